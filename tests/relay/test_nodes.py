"""Several processes of one relay, with real parts: workers, NATS, MariaDB, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from chatchain.bus import Bus
from chatchain.errors import NetworkError
from chatchain.transport import dial
from chatchain.wire.messages import Deliver, Goodbye, Receive, Sponsored, Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.nats import Nats
from tests.relay.stage import Account, Device, Stage
from tests.relay.test_program import assert_ends, run

pytestmark = pytest.mark.alone


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def stage(
    anvil: DevChain, mariadb: MariaDB, nats: Nats, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Two workers on one port, which wake each other through NATS."""
    made = Stage(anvil, tmp_path_factory.mktemp("nodes"), mariadb.new_database())
    made.start("--workers", "2", "--nats", nats.url)
    yield made
    made.stop()


def worker_of(device: Device) -> int:
    """The process that has the other end of a device's connection open."""
    assert device.link is not None
    assert device.stage.process is not None
    mine = device.link._writer.get_extra_info("sockname")[1]
    ends = f":{device.stage.port:04X}", f":{mine:04X}"
    for _ in range(500):
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        # The kernel may list a connection twice or not at all while its table changes, and one without a
        # socket (inode 0) before it is accepted or after it ended.
        sockets = {
            f"socket:[{row[9]}]" for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1])
        }
        for pid in children(device.stage.process.pid):
            with contextlib.suppress(OSError):  # one that ends meanwhile
                if sockets & {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}:
                    return pid
        time.sleep(0.01)
    raise AssertionError("nobody serves this device")


async def on_different_workers(stage: Stage, *accounts: Account) -> list[Device]:
    """Devices of these accounts, each on another worker than the one before."""
    found: list[Device] = []
    last = 0
    for account in accounts:
        while True:
            device = Device(stage, account)
            device.link = await dial(stage.relays)
            worker = worker_of(device)
            if worker != last:
                break
            await device.close()
        last = worker
        await device.log_in()
        await device.say(Receive(0))
        found.append(device)
    return found


async def test_a_message_reaches_a_device_on_another_worker(stage: Stage) -> None:
    """In both directions and in order."""
    ada, bob = stage.register("acrossada"), stage.register("acrossbob")
    one, other = await on_different_workers(stage, ada, bob)
    for number in range(20):
        assert isinstance(await one.send(bob, b"%d" % number), Tick)
        assert isinstance(await other.send(ada, b"%d" % number), Tick)
    for device in (one, other):
        bodies = [delivery.body for delivery in await device.receive(20)]
        assert bodies == [b"%d" % number for number in range(20)]
        await device.close()


async def test_what_another_worker_has_just_stored_is_announced_at_login(stage: Stage) -> None:
    """All of it, whichever worker the device comes to: a program that fetches once stops when it has that."""
    ada, bob = stage.register("announcingada"), stage.register("announcedbob")
    total = 0
    for _ in range(5):
        one, other = await on_different_workers(stage, ada, ada)  # the older one is closed
        await one.close()
        for number in range(8):
            assert isinstance(await other.send(bob, b"%d" % number), Tick)
        total += 8
        served = worker_of(other)
        for elsewhere in (True, False):
            while True:
                reader = Device(stage, bob)
                reader.link = await dial(stage.relays)
                if (worker_of(reader) != served) == elsewhere:
                    break
                await reader.close()
            await reader.log_in()
            assert reader.welcome is not None
            assert reader.welcome.waiting == total
            await reader.close()
        await other.close()


async def test_a_login_on_another_worker_closes_the_older_connection(stage: Stage) -> None:
    """As one on the same worker does."""
    ada = stage.register("twiceada")
    older, newer = await on_different_workers(stage, ada, ada)
    goodbye = await older.next()
    assert isinstance(goodbye, Goodbye)
    assert goodbye.code == "replaced"
    assert isinstance(await newer.send(ada), Tick)
    await newer.close()
    await older.close()


async def test_a_revocation_reaches_every_worker(stage: Stage) -> None:
    """Whichever of them follows the chain."""
    people = [stage.register(f"gone{number}") for number in range(2)]
    devices = await on_different_workers(stage, *people)
    for account, device in zip(people, devices, strict=True):
        stage.world.fund(account.address)
        stage.world.writer.send(stage.world.calls.revoke_device(account.device), account.key)
        goodbye = await device.next()
        assert isinstance(goodbye, Goodbye)
        assert goodbye.code == "revoked"
        await device.close()


async def test_a_newcomer_is_known_to_every_worker(stage: Stage) -> None:
    """As soon as somebody writes to them, whichever worker follows the chain."""
    one, other = await on_different_workers(stage, stage.register("newada"), stage.register("newbob"))
    late = stage.register("newlate")
    for device in (one, other):
        assert isinstance(await device.send(late), Tick)
        await device.close()


async def test_both_workers_pay_from_one_account(stage: Stage) -> None:
    """One at a time picks a nonce, so that neither takes the other's."""
    people = [Account(f"paid{number}") for number in range(6)]
    devices = await on_different_workers(stage, stage.register("payada"), stage.register("paybob"))
    for device in devices:
        await device.close()

    async def register(account: Account) -> None:
        device = Device(stage, account)
        device.link = await dial(stage.relays)
        answer = await device.sponsor(account.registration(stage.world))
        assert isinstance(answer, Sponsored), answer
        await device.close()

    await asyncio.gather(*map(register, people))
    for account in people:
        await asyncio.to_thread(stage.settle, account)


async def test_a_killed_worker_is_replaced_and_its_clients_move_within_5_s(stage: Stage) -> None:
    """To the other at once; nothing that was ticked is lost."""
    ada, bob = stage.register("movedada"), stage.register("movedbob")
    one, other = await on_different_workers(stage, ada, bob)
    assert stage.process is not None
    assert isinstance(await one.send(bob, b"before"), Tick)
    dead = worker_of(other)
    os.kill(dead, signal.SIGKILL)
    killed = time.monotonic()
    with contextlib.suppress(NetworkError):
        while True:
            await other.expect(Deliver)
    moved = await Device(stage, bob).begin_again()
    assert isinstance(await one.send(bob, b"after"), Tick)
    assert [delivery.body for delivery in await moved.receive(2)] == [b"before", b"after"]
    assert time.monotonic() - killed < 5
    async with asyncio.timeout(60):
        while dead in (alive := children(stage.process.pid)) or len(alive) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await other.close()
    for device in (one, moved):
        await device.close()


async def test_without_nats_a_message_comes_within_two_seconds(stage: Stage, nats: Nats) -> None:
    """Killed, NATS delays; started again, it is used again; nothing is lost either way."""
    ada, bob, away = (stage.register(f"silent{name}") for name in ("ada", "bob", "away"))
    one, other = await on_different_workers(stage, ada, bob)
    nats.kill()
    try:
        took = []
        for number in range(5):
            assert isinstance(await one.send(bob, b"%d" % number), Tick)
            ticked = time.monotonic()
            assert (await other.receive(1))[0].body == b"%d" % number
            took.append(time.monotonic() - ticked)
        assert statistics.median(took) < 2  # half a second is usual; the machine may be busy for one of them
    finally:
        nats.start()
    async with listening(nats) as heard, asyncio.timeout(60):
        while not heard:  # of somebody who is at no neighbour
            assert isinstance(await one.send(away), Tick)
            await asyncio.sleep(0.2)
    for device in (one, other):
        await device.close()


async def test_what_travels_through_nats_names_devices_and_nothing_else(stage: Stage, nats: Nats) -> None:
    """User ids and device numbers, in few bytes."""
    ada, bob = stage.register("tellada"), stage.register("tellbob")
    one, other = await on_different_workers(stage, ada, bob)
    async with listening(nats) as heard:
        for _ in range(3):
            assert isinstance(await one.send(bob, b"sealed" * 100), Tick)
        await other.receive(3)
    seen = [pair for message in heard for pair in msgspec.msgpack.decode(message)]
    assert [bob.uid, bob.device] in seen
    assert {type(number) for pair in seen for number in pair} == {int}
    for device in (one, other):
        await device.close()


async def test_garbage_on_nats_changes_nothing(stage: Stage, nats: Nats) -> None:
    """Unreadable, huge, many, and calls for everybody: messages go on arriving once and in order."""
    ada, bob = stage.register("noiseada"), stage.register("noisebob")
    one, other = await on_different_workers(stage, ada, bob)
    client = Client()
    await client.connect(nats.url)
    subject = await subject_of(nats, one, bob)
    noise = [
        b"",
        b"garbage",
        b"\xdd\xff\xff\xff\xff",
        bytes(1_000_000),
        msgspec.msgpack.encode([[bob.uid, bob.device, 7]]),
        msgspec.msgpack.encode([[-1, 2**63]]),
        msgspec.msgpack.encode([[bob.uid, bob.device]] * 2_000),
        msgspec.msgpack.encode([]),
    ]

    quiet = asyncio.Event()

    async def disturb() -> None:
        while not quiet.is_set():  # not cancelled: Python 3.11's wait_for, in `flush`, may swallow that
            for message in noise:
                await client.publish(subject, message)
            await client.flush()
            await asyncio.sleep(0.02)

    disturbing = asyncio.create_task(disturb())
    for number in range(30):
        assert isinstance(await one.send(bob, b"%d" % number), Tick)
    bodies = [delivery.body for delivery in await other.receive(31)]
    assert bodies[-30:] == [b"%d" % number for number in range(30)]
    quiet.set()
    await disturbing
    await client.close()
    for device in (one, other):
        await device.close()


@contextlib.asynccontextmanager
async def listening(nats: Nats) -> AsyncIterator[list[bytes]]:
    """Everything that is said on the server meanwhile."""
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    client = Client()
    await client.connect(nats.url)
    await client.subscribe("chatchain.>", cb=hear)
    await client.flush()
    yield heard
    await client.close()


async def subject_of(nats: Nats, device: Device, to: Account) -> str:
    """The subject on which the relay's processes talk."""
    client = Client()
    await client.connect(nats.url)
    talk = await client.subscribe("chatchain.>")
    await client.flush()
    assert isinstance(await device.send(to), Tick)
    subject = (await talk.next_msg(timeout=10)).subject
    await client.close()
    return subject


def test_several_processes_need_a_database_that_several_can_use(stage: Stage, tmp_path: Path) -> None:
    """SQLite serves one, with or without NATS."""
    file = f"sqlite:///{tmp_path / 'relay.db'}"
    assert_ends(run(stage, "--db", file, "--workers", "2"), 2, "An SQLite database serves one process.")
    assert_ends(run(stage, "--db", file, "--nats", "nats://127.0.0.1:1"), 2, "nobody to wake through NATS")


def test_what_is_wrong_is_said_once_for_all_workers(stage: Stage, mariadb: MariaDB) -> None:
    """The first worker finds it out alone."""
    done = run(stage, "--workers", "3", "--port", "0", "--db", mariadb.new_database() + "x")
    assert_ends(done, 4, "does not exist")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(stage, "--workers", "2", "--port", str(port))
        assert_ends(done, 2, f"cannot listen on 127.0.0.1:{port}: another program uses it")
    done = run(stage, "--workers", "2", "--port", str(stage.port))
    assert_ends(done, 2, "another program uses it")


def test_workers_end_with_their_supervisor(anvil: DevChain, mariadb: MariaDB, tmp_path: Path) -> None:
    """SIGTERM ends all with 0; and when it is killed they drain and end by themselves."""
    made = Stage(anvil, tmp_path, mariadb.new_database())
    process = made.start("--workers", "2")
    process._child.terminate()
    assert process._child.wait(60) == 0
    process = made.start("--workers", "2")
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def test_a_flood_on_nats_does_not_fill_the_log(nats: Nats) -> None:
    """What is said faster than it is heard is dropped, and that is told once and not each time."""
    told: list[str] = []
    heard: list[bytes] = []
    bus = Bus(nats.url, "flood", told.append)
    bus.start(heard.append)
    client = Client()
    await client.connect(nats.url)
    async with asyncio.timeout(60):
        while not heard:
            await client.publish("flood", b"")
            await asyncio.sleep(0.05)
        for _ in range(10):
            for _ in range(3_000):
                await client.publish("flood", b"")
            await client.flush()
    await client.close()
    await bus.close()
    assert told == ["SlowConsumerError"]
