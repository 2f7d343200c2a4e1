"""The network at its worst: connections cut within frames, silence that nobody announces, packets lost."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from chatchain.errors import NetworkError
from chatchain.wire.messages import Tick
from tests.fixtures.chains import DevChain
from tests.integration.faults import hasty
from tests.integration.faults.load import FULL, UNLIMITED, compare, health, pairs
from tests.integration.faults.wire import Wire
from tests.relay import stage as stages
from tests.relay.stage import ROOT, Device, Stage

RESETS: Final = 1_000 if FULL else 20
LONGEST: Final = 40_000
"""Bytes of the longest messages: several TLS records, so that the relay too sees halves of frames."""

BLACKHOLE: Final = 90.0 if FULL else 0.0
"""Seconds that it lasts at least; it does until both sides have found it."""

FOUND: Final = 45.0 if FULL else 30.0
"""Seconds within which a dead peer must be found; at small count with deadlines of a tenth, on a machine that
may be busy.
"""

LOSSY_MESSAGES: Final = 2_000 if FULL else 100
LOSSY_DEADLINE: Final = 600


@pytest.fixture
def stage(anvil: DevChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A relay that is not surprised by people who log in every second."""
    folder = tmp_path_factory.mktemp("network")
    made = Stage(anvil, folder, f"sqlite:///{folder / 'relay.db'}")
    made.environment["RELAY_LIMITS"] = UNLIMITED
    yield made
    made.stop()


async def test_connections_reset_within_a_frame_lose_and_repeat_nothing(stage: Stage) -> None:
    """RST after any number of bytes, in the handshake, the login or a message, again and again."""
    process = stage.start()
    async with Wire(stage.port) as wire:
        wire.lasts = lambda: random.choice((random.randint(1, 6_000), random.randint(6_000, 200_000)))
        through = wire.before(stage)
        talking = pairs(through, through, 2, LONGEST)
        receiving = [asyncio.create_task(pair.recipient.run()) for pair in talking]
        async with asyncio.timeout(600 + RESETS):
            while wire.resets < RESETS:
                await asyncio.gather(*(pair.sender.run(10) for pair in talking))
            wire.lasts = None
            for pair in talking:
                await pair.recipient.has(pair.sender.made)
        for task in receiving:
            task.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)
        compare(talking)
    assert process.running
    async with asyncio.timeout(120):
        while (await health(stage))[1]["connections"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_silence_in_both_directions_is_found_by_both_sides(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing arrives and nothing says so: each gives the other up in time, and afterwards all goes on."""
    if not FULL:
        hasty.hasten(stage, monkeypatch)
    monkeypatch.setattr(stages, "PATIENCE", 4 * FOUND)  # it is the link that has to notice
    stage.start()
    async with Wire(stage.port) as wire:
        through = wire.before(stage)
        talking = pairs(through, through, 2)
        idle = await Device(through, stage.register("idle")).begin()
        receiving = [asyncio.create_task(pair.recipient.run()) for pair in talking]
        await asyncio.gather(*(pair.sender.run(50) for pair in talking))
        assert (await health(stage))[1]["sessions"] >= 3

        wire.swallows = True
        began = time.monotonic()
        sending = [asyncio.create_task(pair.sender.run(50)) for pair in talking]
        async with asyncio.timeout(2 * FOUND):
            with pytest.raises(NetworkError, match="fallen silent"):
                await idle.next()
            assert time.monotonic() - began <= FOUND, "the client found its relay dead too late"
            while (await health(stage))[1]["sessions"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert time.monotonic() - began <= FOUND, "the relay found its clients dead too late"
        await asyncio.sleep(max(0.0, began + BLACKHOLE - time.monotonic()))
        assert not any(task.done() for task in sending), "nothing was ticked in the dark"

        wire.swallows = False
        async with asyncio.timeout(120):
            await asyncio.gather(*sending)
            for pair in talking:
                await pair.recipient.has(pair.sender.made)
        for task in receiving:
            task.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)
        compare(talking)
        await idle.close()
        assert isinstance(await (await idle.connect()).send(idle.account), Tick)
        await idle.close()


def test_a_tenth_of_all_packets_lost_only_delays(tmp_path: Path) -> None:
    """In a network of its own, where the kernel drops at random: everything arrives once and in order."""
    own = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*own, sys.executable, "-m", "tests.integration.faults.lossy", str(tmp_path), str(LOSSY_MESSAGES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LOSSY_DEADLINE,
        check=False,
    )
    assert done.returncode == 0, f"a network of its own, or a test in it, failed:\n{done.stderr[-3000:]}"
    lost = re.search(r"lost (\d+)", done.stdout)
    assert lost is not None
    assert int(lost[1]) > LOSSY_MESSAGES / 10
