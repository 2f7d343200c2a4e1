"""A database that stands still, and one whose disk is full: no false tick, bounded memory, and it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from chatchain.transport import dial
from chatchain.wire.connection import frame
from chatchain.wire.messages import Goodbye, Message, Refused, Submit, Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.integration.faults.disks import SmallDisk
from tests.integration.faults.load import FULL, UNLIMITED, compare, gauges, health, pairs, rss_kib
from tests.relay import stage as stages
from tests.relay.stage import Device, Stage

STOPPED: Final = 60.0 if FULL else 4.0
"""Seconds that the database stands still: at full count longer than the relay's own patience with it."""


ENDS: Final = 10.0
"""Seconds that a relay has to end in."""


class Crowd(NamedTuple):
    """Connections that all submit at once."""

    connections: int
    messages: int
    body: int
    limits: str = ""


FEW: Final = Crowd(100 if FULL else 5, 40, 60_000)
"""Each submits 2.4 MB, more than the relay reads from one connection without an answer."""

MANY: Final = Crowd(600, 100, 300) if FULL else Crowd(30, 200, 300, " read_mib=1")
"""Each submits at once as much as the relay reads at a time: all of them together would fill it."""

MEMORY_KIB: Final = 64 * 1024
DRAINED: Final = 10.0
"""Seconds after its return within which all that waited is ticked."""


async def flood(device: Device, crowd: Crowd) -> list[Message]:
    """Submits to oneself; gives the answers."""
    body = bytes(crowd.body)

    async def speak() -> None:
        if crowd is MANY:  # in whole records of TLS, of which none is read in parts
            assert device.link is not None
            said = (frame(Submit(device.envelope(device.account, body))) for _ in range(crowd.messages))
            device.link._writer.write(b"".join(said))
            return
        for _ in range(crowd.messages):
            await device.say(Submit(device.envelope(device.account, body)))

    speaking = asyncio.create_task(speak())
    try:
        answers = [await device.next() for _ in range(crowd.messages)]
        await speaking
        return answers
    finally:
        speaking.cancel()


async def nobody_is_read(stage: Stage, crowd: Crowd) -> None:
    """Waits until the relay reads from nobody who is logged in, also not from those who only listen, or of
    many only from those who have cost something; on a slow machine, until it calls the database away.
    """
    async with asyncio.timeout(120):
        while (await health(stage))[1]["database"]:
            found = await gauges(stage)
            held, unread = found["chatchain_connections_held"], found["chatchain_connections_unread"]
            if found["chatchain_sessions"] == held >= crowd.connections or unread > 0:
                return
            await asyncio.sleep(0.1)


async def newcomers_are_sent_away(stage: Stage) -> None:
    """Waits until so much was read that nobody else may add to it."""
    async with asyncio.timeout(120):
        while True:
            link = await dial(stage.relays)
            try:
                goodbye = await asyncio.wait_for(link.receive(), 5.0)
            except TimeoutError:
                continue
            finally:
                await link.close()
            assert isinstance(goodbye, Goodbye)
            assert (goodbye.code, goodbye.retry_after_ms > 0) == ("relay_busy", True)
            return


@pytest.mark.parametrize("crowd", [FEW, MANY], ids=["few", "many"])
async def test_a_database_that_stands_still_makes_senders_wait(
    crowd: Crowd,
    anvil: DevChain,
    mariadb: MariaDB,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody gets a tick, the relay takes in no more than it may, and all is drained soon after."""
    monkeypatch.setattr(stages, "PATIENCE", 2 * STOPPED + 60)  # nobody dials anew because of a slow answer
    stage = Stage(anvil, tmp_path_factory.mktemp("still"), mariadb.new_database())
    stage.environment["RELAY_LIMITS"] = UNLIMITED + crowd.limits
    process = stage.start()
    talking = pairs(stage, stage, 4)
    receiving = [asyncio.create_task(pair.recipient.run()) for pair in talking]
    await asyncio.gather(*(pair.sender.run(100) for pair in talking))
    devices = [
        await Device(stage, stage.register(f"flood{number}-{crowd.messages}")).connect()
        for number in range(crowd.connections)
    ]
    before = rss_kib(process.pid)
    sending = [asyncio.create_task(pair.sender.run(1_000_000)) for pair in talking]
    await asyncio.sleep(0.3)

    mariadb.process.pause()
    try:
        await asyncio.sleep(0.5)  # what was committed before may still be told
        ticked = [len(pair.sender.ticked) for pair in talking]
        flooding = [asyncio.create_task(flood(device, crowd)) for device in devices]
        await nobody_is_read(stage, crowd)
        ends, most = time.monotonic() + STOPPED, 0
        while time.monotonic() < ends:
            most = max(most, rss_kib(process.pid) - before)
            await asyncio.sleep(0.25)
        assert [len(pair.sender.ticked) for pair in talking] == ticked, "a tick without a commit"
        print(f"{most} KiB more while the database stood still")
        assert most <= MEMORY_KIB
        if crowd is MANY:
            await newcomers_are_sent_away(stage)
    finally:
        mariadb.process.resume()
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    async with asyncio.timeout(DRAINED):
        await asyncio.gather(*(pair.sender.run(0) for pair in talking))
        for pair in talking:
            await pair.recipient.has(pair.sender.made)
        answers = [answer for answers in await asyncio.gather(*flooding) for answer in answers]
    assert len(answers) == crowd.connections * crowd.messages
    assert all(
        isinstance(answer, Tick) or (isinstance(answer, Refused) and answer.retry_after_ms > 0)
        for answer in answers
    )
    for task in receiving:
        task.cancel()
    await asyncio.gather(*receiving, *(device.close() for device in devices), return_exceptions=True)
    compare(talking)
    stage.stop()


async def test_a_relay_ends_in_time_though_its_database_stands_still(
    anvil: DevChain, mariadb: MariaDB, tmp_path: Path
) -> None:
    """SIGTERM while messages wait for a commit: within ten seconds, and without a false tick.

    Until then its pages say that it takes no more.
    """
    stage = Stage(anvil, tmp_path, mariadb.new_database())
    process = stage.start()
    ada = stage.register("ada")
    device = await Device(stage, ada).connect()
    assert isinstance(await device.send(ada), Tick)
    mariadb.process.pause()
    try:
        for _ in range(20):
            await device.say(Submit(device.envelope(ada)))
        async with asyncio.timeout(60):
            while not (await gauges(stage))["chatchain_queued_bytes"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        began = time.monotonic()
        process._child.terminate()
        async with asyncio.timeout(ENDS):
            while not (drains := await health(stage))[1]["draining"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (drains[0], (await health(stage, "ready"))[0]) == (503, 503)
        assert await asyncio.to_thread(process._child.wait, 60) == 0
        took = time.monotonic() - began
        print(f"{took:.1f} s to end")
        assert took < ENDS
        assert (await device.expect(Goodbye)).code == "shutdown"
    finally:
        mariadb.process.resume()
    await device.close()


class Database:
    """A relay's database on a disk of its own."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.server: OnSmallDisk | None = None
        if kind == "sqlite":
            self.disk = SmallDisk(folder / "disk", 24)
            self.url = f"sqlite:///{folder / 'disk' / 'relay.db'}"
        else:
            self.disk = SmallDisk(folder / "data", 96)
            self.server = OnSmallDisk(folder, self.disk)
            self.url = self.server.new_database()

    def stage(self, chain: DevChain, folder: Path) -> Stage:
        """A relay on it."""
        stage = Stage(chain, folder, self.url)
        stage.environment["RELAY_LIMITS"] = UNLIMITED
        plain: Callable[..., list[str]] = stage.command
        stage.command = lambda *more: self.disk.inside(plain(*more))  # type: ignore[method-assign]
        return stage

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
        self.disk.stop()


class OnSmallDisk(MariaDB):
    """A server whose data directory is a small disk."""

    def __init__(self, folder: Path, disk: SmallDisk) -> None:
        self._disk = disk
        super().__init__(folder)

    def _command(self) -> list[str]:
        return self._disk.inside(super()._command())


@pytest.fixture
def small(kind: str, tmp_path: Path) -> Iterator[Database]:
    """A database with little room."""
    made = Database(tmp_path, kind)
    yield made
    made.stop()


@pytest.mark.parametrize(("kind", "size"), [("sqlite", 8_000), ("mariadb", 300), ("mariadb", 8_000)])
async def test_a_full_disk_under_the_database_refuses_for_now(
    small: Database, size: int, anvil: DevChain, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Senders are told to try again, what waits is still delivered, and with room again all goes on.

    MariaDB 10.11 ends itself when it has to take back a row that is longer than half a page ("Out of disk
    space in rollback"). Then nothing can be read; it is started again, as a service manager would.
    """
    stage = small.stage(anvil, tmp_path_factory.mktemp("full"))
    process = stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    sender = await Device(stage, ada).connect()
    ticked: list[bytes] = []
    for _ in range(20):
        envelope = sender.envelope(bob)
        assert isinstance(await sender.submit(envelope), Tick)
        ticked.append(envelope.id)

    small.disk.fill()
    refused = None
    for _ in range(20_000):  # a database has some pages of its own left
        envelope = sender.envelope(bob, bytes(size))
        answer = await sender.submit(envelope)
        if isinstance(answer, Refused):
            assert answer.retry_after_ms > 0, answer
            refused = envelope
            break
        assert isinstance(answer, Tick)
        ticked.append(envelope.id)
    assert refused is not None, "the disk was never full"

    got: dict[bytes, None] = {}
    recipient = Device(stage, bob)

    async def has(count: int) -> None:
        """Waits for so many, and sees each once."""
        async with asyncio.timeout(120):
            while len(got) < count:
                got.setdefault((await recipient.receive(1))[0].id)

    small.disk.fill()  # what the last attempt gave back
    for _ in range(5):
        answer = await sender.submit(refused)
        assert isinstance(answer, Refused)
        assert answer.retry_after_ms > 0, answer

    # Its socket still accepts while it writes down why it ends.
    died = small.server is not None and "got signal" in (small.server.folder / "server.log").read_text()
    if not died:
        await recipient.begin()
        await has(len(ticked))
        assert list(got) == ticked, "delivered in order while the disk is full"

    small.disk.clear()
    if died:
        assert small.server is not None
        small.server.kill()  # it may still be writing down why
        small.server.start()
    async with asyncio.timeout(120):
        while isinstance(await sender.submit(refused), Refused):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    ticked.append(refused.id)
    if died:
        await recipient.begin()
    await has(len(ticked))
    assert list(got) == ticked
    async with asyncio.timeout(120):
        while (await health(stage))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert process.running
    await sender.close()
    await recipient.close()
    stage.stop()
