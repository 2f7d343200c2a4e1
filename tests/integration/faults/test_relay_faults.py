"""What was ticked is never lost: relay and database are killed under load, again and again.

The clients here keep what a real one keeps: an outbox of what was not ticked, which is sent again after each
reconnect, and a disk of what was received, which is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import pytest

from chatchain.errors import NetworkError
from chatchain.model import Envelope
from chatchain.wire.messages import Acknowledge, Deliver, Receive, Refused, Submit, Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.relay.stage import Account, Device, Stage

ROUNDS: Final = int(os.environ.get("CHATCHAIN_FAULT_ROUNDS", "0")) or (
    30 if os.environ.get("CHATCHAIN_FAULTS") == "full" else 2
)
"""Kills in one test."""

MESSAGES: Final = 600
"""Sent in each round, on both sides of the kill."""

WINDOW: Final = 40


@pytest.fixture(params=["sqlite", "mariadb"])
def stage(
    request: pytest.FixtureRequest, anvil: DevChain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A relay of this test's own, on each of the databases."""
    folder = tmp_path_factory.mktemp("faults")
    if request.param == "sqlite":
        database = f"sqlite:///{folder / 'relay.db'}"
    else:
        database = request.getfixturevalue("mariadb").new_database()
    made = Stage(anvil, folder, database)
    made.start()
    yield made
    made.stop()


class Sender:
    """Sends numbered messages and sends again what was not ticked, in order."""

    def __init__(self, stage: Stage, account: Account, to: Account) -> None:
        self.stage, self.account, self.to = stage, account, to
        self.outbox: dict[bytes, Envelope] = {}
        self.ticked: list[bytes] = []
        self.made = 0

    async def run(self, count: int) -> None:
        """Until so many more are ticked, through however many reconnects."""
        target = self.made + count
        while self.made < target or self.outbox:
            device = Device(self.stage, self.account)
            try:
                await device.connect()
                for envelope in self.outbox.values():
                    await device.say(Submit(envelope))
                await self._pump(device, target)
            except (NetworkError, OSError, AssertionError):
                await asyncio.sleep(0.05)
            finally:
                await device.close()

    async def _pump(self, device: Device, target: int) -> None:
        while self.made < target or self.outbox:
            while self.made < target and len(self.outbox) < WINDOW:
                envelope = device.envelope(self.to, str(self.made).encode())
                self.made += 1
                self.outbox[envelope.id] = envelope
                await device.say(Submit(envelope))
            answer = await device.next()
            if isinstance(answer, Refused) and answer.retry_after_ms:
                raise NetworkError("Not now; all of it again, in order.")
            assert isinstance(answer, Tick), answer
            if self.outbox.pop(answer.id, None) is not None:
                self.ticked.append(answer.id)


class Recipient:
    """Stores what comes and acknowledges it afterwards; sees each id once."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self.stage, self.account = stage, account
        self.disk: dict[bytes, bytes] = {}
        self.news = asyncio.Event()

    async def has(self, count: int) -> None:
        """Waits until so many have come."""
        while len(self.disk) < count:
            self.news.clear()
            await self.news.wait()

    async def run(self) -> None:
        """Until cancelled, through however many reconnects."""
        while True:
            device = Device(self.stage, self.account)
            try:
                await device.connect()
                await device.say(Receive(0))
                while True:
                    delivery = (await device.expect(Deliver)).delivery
                    self.disk.setdefault(delivery.id, delivery.body)
                    self.news.set()
                    await device.say(Acknowledge((delivery.sequence,)))
            except (NetworkError, OSError, AssertionError):
                await asyncio.sleep(0.05)
            finally:
                await device.close()


async def through(stage: Stage, fault: Callable[[], Awaitable[None]]) -> None:
    """Runs load through one fault after another, and compares what was promised with what arrived."""
    ada, bob = stage.register("ada"), stage.register("bob")
    sender, recipient = Sender(stage, ada, bob), Recipient(stage, bob)
    for _ in range(ROUNDS):
        loading = asyncio.create_task(sender.run(MESSAGES))
        receiving = asyncio.create_task(recipient.run())
        await asyncio.sleep(random.uniform(0.02, 0.25))
        await fault()
        async with asyncio.timeout(120):
            await loading
            await recipient.has(sender.made)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
    assert set(sender.ticked) <= recipient.disk.keys(), "ticked and lost"
    assert len(sender.ticked) == sender.made == ROUNDS * MESSAGES
    assert list(recipient.disk.values()) == [str(number).encode() for number in range(sender.made)]


async def test_a_relay_killed_under_load_loses_nothing_ticked(stage: Stage) -> None:
    """kill -9 in the middle, a new process, and every message arrives once and in order."""

    async def fault() -> None:
        assert stage.process is not None
        stage.process.kill()
        await asyncio.sleep(0.1)
        # Not in a thread: the fixtures' processes end with the thread that started them.
        stage.start()

    await through(stage, fault)


async def test_a_database_killed_under_load_loses_nothing_ticked(
    stage: Stage, request: pytest.FixtureRequest
) -> None:
    """The server dies without a word and comes back; the relay goes on by itself."""
    if stage.database.startswith("sqlite"):
        # SQLite has no server to kill: what can happen to it is that another process holds its lock.
        async def fault() -> None:
            path = stage.database.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("PRAGMA busy_timeout=10000")
                other.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(0.3)
                other.execute("ROLLBACK")

    else:
        server: MariaDB = request.getfixturevalue("mariadb")

        async def fault() -> None:
            server.kill()
            await asyncio.sleep(0.3)
            server.start()

    assert stage.process is not None
    pid = stage.process.pid
    await through(stage, fault)
    assert stage.process.running
    assert stage.process.pid == pid


async def test_while_the_database_is_away_nothing_is_ticked(
    anvil: DevChain, mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Senders are refused and may try again; logins are turned away; health says so; then all goes on."""
    stage = Stage(anvil, tmp_path_factory.mktemp("away"), mariadb.new_database())
    stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    assert isinstance(await sender.send(bob, b"0"), Tick)
    mariadb.stop()
    try:
        lost = [sender.envelope(bob, str(number).encode()) for number in range(1, 50)]
        for envelope in lost:
            answer = await sender.submit(envelope)
            assert isinstance(answer, Refused)
            assert answer.code == "store_unavailable"
            assert answer.retry_after_ms > 0
        assert (await _health(stage))[0] == 503
    finally:
        mariadb.start()
    async with asyncio.timeout(30):
        while isinstance(await sender.submit(lost[0]), Refused):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    for envelope in lost[1:]:
        assert isinstance(await sender.submit(envelope), Tick)
    bodies = [delivery.body for delivery in await recipient.receive(50)]
    assert bodies == [str(number).encode() for number in range(50)]
    async with asyncio.timeout(30):
        while (await _health(stage))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await sender.close()
    await recipient.close()
    stage.stop()


async def _health(stage: Stage) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.metrics_port)
    writer.write(b"GET /health HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), answer
