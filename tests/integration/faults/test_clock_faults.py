"""Clocks two days off, ahead and behind, and set while everything runs: nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from chatchain.wire.messages import Tick
from tests.fixtures.chains import DevChain
from tests.integration.faults.load import FULL, UNLIMITED, health, pairs, through
from tests.relay.stage import Device, Stage

ROUNDS: Final = 20 if FULL else 2
MESSAGES: Final = 150
OFF: Final = 2 * 24 * 3600
"""Seconds."""
MONTH: Final = 31 * 24 * 3600

LIBRARY: Final = "faketime/libfaketime.so.1"


def library() -> Path:
    """What makes a program see another time."""
    found = [*Path("/usr/lib").glob(f"*/{LIBRARY}"), *Path("/usr/lib").glob(LIBRARY)]
    assert found, "faketime is missing: 'make test' installs it, or names the command that does"
    return found[0]


class Clock:
    """The clock of the programs that are started with `environment`; the monotonic one stays true."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its cure for an old C library ends each of Python's timed waits at once: a start took seconds.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def set(self, seconds: int) -> None:
        """Sets it so far off the true time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """The relay's."""
    return Clock(tmp_path)


@pytest.fixture
def stage(anvil: DevChain, clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A relay that goes by that clock."""
    folder = tmp_path_factory.mktemp("clock")
    made = Stage(anvil, folder, f"sqlite:///{folder / 'relay.db'}")
    made.environment |= {"RELAY_LIMITS": UNLIMITED, **clock.environment}
    yield made
    made.stop()


@pytest.mark.parametrize("off", [OFF, -OFF], ids=["ahead", "behind"])
async def test_a_relay_whose_clock_is_two_days_off_serves(stage: Stage, clock: Clock, off: int) -> None:
    """What waited from the right time is delivered, logins hold, and messages go on."""
    stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    sender = await Device(stage, ada).connect()
    for number in range(10):
        await sender.send(bob, str(number).encode())
    await sender.close()
    stage.stop()

    clock.set(off)
    stage.start()
    recipient, sender = await Device(stage, bob).begin(), await Device(stage, ada).connect()
    assert recipient.welcome is not None
    assert recipient.welcome.waiting == 10
    assert abs(recipient.welcome.time_ms / 1000 - time.time() - off) < 60, (
        "the clock is as wrong as was meant"
    )
    for number in range(10, 20):
        await sender.send(bob, str(number).encode())
    bodies = [delivery.body for delivery in await recipient.receive(20)]
    assert bodies == [str(number).encode() for number in range(20)]
    await sender.close()
    await recipient.close()


async def test_a_clock_a_month_ahead_gives_nothing_up(
    new_anvil: Callable[..., DevChain], clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What waits stays and the relay says what is wrong; when the chain, too, is that far it goes."""
    chain, folder = new_anvil(), tmp_path_factory.mktemp("month")
    stage = Stage(chain, folder, f"sqlite:///{folder / 'relay.db'}")
    stage.environment |= clock.environment
    stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    sender = await Device(stage, ada).connect()
    await sender.send(bob, b"before")
    await sender.close()
    await verdict(stage, "right")
    stage.stop()

    async def waiting() -> int:
        """How much waits, once the writer has done all that it was asked to at the start."""
        sender = await Device(stage, ada).connect()
        assert isinstance(await sender.send(ada), Tick)
        await sender.close()
        recipient = await Device(stage, bob).connect()
        assert recipient.welcome is not None
        await recipient.close()
        return recipient.welcome.waiting

    clock.set(MONTH)
    stage.start()
    await verdict(stage, "ahead")
    assert await waiting() == 1
    assert '"clock ahead"' in stage.log.read_text()
    stage.stop()

    chain.rpc("evm_increaseTime", MONTH)
    chain.rpc("evm_mine")
    stage.start()
    await verdict(stage, "right")
    assert await waiting() == 0
    stage.stop()


async def verdict(stage: Stage, wanted: str) -> None:
    """Waits until /health says so of the clock."""
    async with asyncio.timeout(60):
        while (await health(stage))[1]["clock"] != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_clock_set_under_load_loses_nothing(stage: Stage, clock: Clock) -> None:
    """Two days ahead, two days behind, back again: everything arrives once and in order."""
    process = stage.start()
    talking = pairs(stage, stage, 4)

    async def fault() -> None:
        for off in (OFF, -OFF, 0):
            clock.set(off)
            await asyncio.sleep(0.3)

    await through(talking, ROUNDS, MESSAGES, fault)
    assert process.running
