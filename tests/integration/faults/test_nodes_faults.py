"""Several processes of one relay, under load: killed, frozen, and without NATS.

The clients are those of the faults of one relay: an outbox that is sent again, and a disk. Whoever is
answered by nobody for a few seconds dials again, as a real client does when its heartbeats stay without an
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
from collections.abc import Iterator
from typing import Final

import pytest

from chatchain.wire.messages import Refused, Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.nats import Nats
from tests.integration.faults.load import FULL, pairs, through
from tests.relay import stage as stages
from tests.relay.stage import Device, Stage
from tests.relay.test_nodes import children
from tests.relay.test_operation import page

KILLS: Final = 50 if FULL else 2
FREEZES: Final = 5 if FULL else 1
PAIRS: Final = 4
MESSAGES: Final = 300
"""Of each sender in each round, on both sides of the fault."""

SILENCE: Final = 4.0
"""Seconds after which these clients give a silent relay up."""

MOVED: Final = 5.0
"""Seconds within which the clients of a dead process are logged in at another."""

FROZEN: Final = 8.0
"""Seconds: longer than the others wait for a sign of life."""


# A client that is cancelled while it dials a frozen process leaves its half-open transport to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clients that do not wait for a whole minute."""
    monkeypatch.setattr(stages, "PATIENCE", SILENCE)
    yield
    gc.collect()


@pytest.fixture(scope="module")
def workers(
    anvil: DevChain, mariadb: MariaDB, nats: Nats, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Two workers on one port; whatever was done to them, there are two again."""
    made = Stage(anvil, tmp_path_factory.mktemp("workers"), mariadb.new_database())
    made.start("--workers", "2", "--nats", nats.url)
    yield made
    made.stop()


@pytest.fixture
def machines(
    anvil: DevChain, mariadb: MariaDB, nats: Nats, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, Stage]]:
    """Two relays on one database, as on two machines: each has a port of its own, and no supervisor."""
    one = Stage(anvil, tmp_path_factory.mktemp("machines"), mariadb.new_database())
    other = one.beside(tmp_path_factory.mktemp("beside"))
    for stage in (one, other):
        stage.start("--nats", nats.url)
    yield one, other
    for stage in (one, other):
        stage.stop()


def is_ready(port: int) -> bool:
    """Whether a process says so on its metrics port."""
    with contextlib.suppress(OSError):
        return page(port, "/ready")[0] == 200
    return False


async def both_at_work(workers: Stage) -> None:
    """Waits for one that was just replaced, so that there is another to go on with."""
    async with asyncio.timeout(120):
        for port in (workers.metrics_port, workers.metrics_port + 1):
            while not await asyncio.to_thread(is_ready, port):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_a_worker_killed_under_load_loses_nothing_ticked(workers: Stage) -> None:
    """kill -9 of one of two, again and again: its clients go on with the other within 5 s."""

    async def fault() -> None:
        assert workers.process is not None
        os.kill(random.choice(children(workers.process.pid)), signal.SIGKILL)
        await both_at_work(workers)

    await both_at_work(workers)
    talking = pairs(workers, workers, PAIRS)
    await through(talking, KILLS, MESSAGES, fault)
    absences = [each.absence.longest for pair in talking for each in (pair.sender, pair.recipient)]
    assert 0 < max(absences) < MOVED, absences


async def test_a_frozen_worker_holds_nobody_up_and_is_replaced(workers: Stage) -> None:
    """Its locks are given back after 5 s, and its supervisor kills it after 10 s."""

    async def fault() -> None:
        assert workers.process is not None
        frozen = random.choice(children(workers.process.pid))
        os.kill(frozen, signal.SIGSTOP)
        async with asyncio.timeout(120):
            while frozen in children(workers.process.pid):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await both_at_work(workers)

    await through(pairs(workers, workers, PAIRS), FREEZES, MESSAGES, fault)


async def test_a_frozen_machine_is_fenced_and_goes_on_when_it_wakes(machines: tuple[Stage, Stage]) -> None:
    """Nobody waits for its locks; awake again it has no lease, and serves.

    In its sockets lies then what its clients had sent before they gave it up. What it had begun to store was
    refused, and so is what followed: each message arrives once, and in order.
    """
    one, other = machines

    async def fault() -> None:
        assert one.process is not None
        one.process.pause()
        await asyncio.sleep(FROZEN)
        newcomer = await asyncio.to_thread(other.register, f"n{os.urandom(6).hex()}")
        async with asyncio.timeout(120):
            while True:  # the other machine follows the chain by now
                with contextlib.suppress(OSError, AssertionError):
                    device = Device(other.alone(), newcomer)
                    await device.connect()
                    assert isinstance(await device.send(newcomer), Tick)
                    await device.close()
                    break
        one.process.resume()

    talking = pairs(one, other, PAIRS) + pairs(other, one, PAIRS)
    await through(talking, FREEZES, MESSAGES, fault)
    device = await Device(one.alone(), one.register(f"w{os.urandom(6).hex()}")).begin()
    async with asyncio.timeout(120):  # it may have to find its way to the database first, and says so
        while not isinstance(answer := await device.send(device.account), Tick):
            assert isinstance(answer, Refused)
            assert answer.retry_after_ms
            await asyncio.sleep(answer.retry_after_ms / 1000)
    await device.receive(1)
    await device.close()


async def test_nats_killed_under_load_only_delays(workers: Stage, nats: Nats) -> None:
    """Everything arrives while it is away, and when it is back."""

    async def fault() -> None:
        nats.kill()
        await asyncio.sleep(1)
        nats.start()

    await through(pairs(workers, workers, PAIRS), KILLS, MESSAGES, fault)
