"""The kernel's word for the promise: between a message's arrival and its tick, the log was on the disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from chatchain.wire.messages import Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.processes import Process
from tests.integration.faults.load import FULL
from tests.relay.stage import Device, Stage

MESSAGES: Final = 200 if FULL else 10
LOGS: Final = {"sqlite": "-wal", "mariadb": "ib_logfile0"}
"""How the file is called that holds a commit first."""

CALLS: Final = "fsync,fdatasync,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg"


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Which database."""
    return str(request.param)


@pytest.fixture
def stage(
    kind: str, request: pytest.FixtureRequest, anvil: DevChain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A relay on it."""
    folder = tmp_path_factory.mktemp("fsync")
    if kind == "sqlite":
        database = f"sqlite:///{folder / 'relay.db'}"
    else:
        server: MariaDB = request.getfixturevalue("mariadb")
        database = server.new_database()
    made = Stage(anvil, folder, database)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"], indirect=True)
async def test_fsync_comes_before_the_tick(
    stage: Stage, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """One trace of relay and database: no byte goes to the sender before an fsync of the log has returned
    that began after the message had come.
    """
    assert stage.process is not None
    watched = [stage.process.pid]
    if kind == "mariadb":
        server: MariaDB = request.getfixturevalue("mariadb")
        watched.append(server.process.pid)
    ada, bob = stage.register("ada"), stage.register("bob")
    sender = await Device(stage, ada).connect()
    assert isinstance(await sender.send(bob), Tick)
    assert sender.link is not None
    assert sender.link._beat is not None
    sender.link._beat.cancel()  # a heartbeat would come and be answered beside the messages
    port = sender.link._writer.get_extra_info("sockname")[1]

    trace, said = tmp_path / "trace", tmp_path / "strace.log"
    attach = [word for pid in watched for word in ("-p", str(pid))]
    tracer = Process(["strace", "-f", "-yy", "-e", f"trace={CALLS}", "-o", str(trace), *attach], said)
    try:
        await asyncio.to_thread(tracer.wait_until, lambda: said.read_text().count("attached") >= len(watched))
        for _ in range(MESSAGES):
            assert isinstance(await sender.send(bob), Tick)
            await asyncio.sleep(0.02)  # so that each has a commit and a record of TLS to itself
    finally:
        tracer.stop()
    await sender.close()

    order = happened(trace.read_text().splitlines(), LOGS[kind], stage.port, port)
    assert (order.count("come"), order.count("tick")) == (MESSAGES, MESSAGES), "one record of TLS for each"
    seen: list[str] = []
    for what in order:
        if what != "synced" or seen[-1:] == ["come"]:  # between a tick and the next message it says nothing
            seen.append(what)
    assert seen == ["come", "synced", "tick"] * MESSAGES, "a tick without an fsync since its message came"


def happened(trace: list[str], log: str, relay: int, client: int) -> list[str]:
    """What a trace tells in order: "come" when bytes of the client have been read, "synced" when an fsync of
    the log that began after that has returned, "tick" when a write to the client begins.
    """
    socket = rf"\(\d+<TCP:\[127\.0\.0\.1:{relay}->127\.0\.0\.1:{client}\]>"
    write = re.compile(rf"\b(write|writev|sendto|sendmsg){socket}")
    read = re.compile(rf"^(\d+) +(read|readv|recvfrom|recvmsg){socket}(.* = [1-9]|.*<unfinished)")
    been_read = re.compile(r"^(\d+) +<\.\.\. (read|readv|recvfrom|recvmsg) resumed>.* = [1-9]")
    sync = re.compile(rf"^(\d+) +(fsync|fdatasync)\(\d+<[^>]*{re.escape(log)}>(\) += 0| <unfinished)")
    resumed = re.compile(r"^(\d+) +<\.\.\. (fsync|fdatasync) resumed>\) += 0")
    under_way: set[str] = set()  # threads whose fsync began after the last bytes had come
    reading: set[str] = set()
    order = []
    for line in trace:
        if found := sync.search(line):
            if "unfinished" in found[3]:
                under_way.add(found[1])
            else:
                order.append("synced")
        elif (found := resumed.search(line)) and found[1] in under_way:
            under_way.discard(found[1])
            order.append("synced")
        elif (found := read.search(line)) and "unfinished" in found[3]:
            reading.add(found[1])
        elif found or ((found := been_read.search(line)) and found[1] in reading):
            reading.discard(found[1])
            under_way.clear()
            order.append("come")
        elif write.search(line):
            order.append("tick")
    return order
