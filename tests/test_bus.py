"""NATS over TLS, with a real server: whom the bus believes, and who learns its password."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client

from chatchain.bus import MOST, Bus
from chatchain.errors import BadConfig
from deploy import certificates
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.nats import Nats
from tests.relay.stage import Stage
from tests.relay.test_nodes import on_different_workers
from tests.relay.test_program import assert_ends, run


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of our authority."""
    folder = tmp_path_factory.mktemp("ours")
    certificates.make(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody else's, with the same names."""
    folder = tmp_path_factory.mktemp("theirs")
    certificates.make(folder)
    return folder


@pytest.fixture(scope="module")
def secured(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A server that takes nobody without TLS, and has a certificate of ours."""
    server = Nats(tmp_path_factory.mktemp("secured"), tls=ours)
    yield server
    server.stop()


@asynccontextmanager
async def joined(url: str, authority: Path | None) -> AsyncIterator[tuple[Bus, list[bytes], list[str]]]:
    """A bus, what it hears, and what it complains about."""
    heard: list[bytes] = []
    told: list[str] = []
    bus = Bus(url, "talk", told.append, authority=authority and authority / "ca.pem")
    bus.start(heard.append)
    try:
        yield bus, heard, told
    finally:
        await bus.close()


async def test_a_server_that_our_authority_vouches_for_is_used(secured: Nats, ours: Path) -> None:
    """With a user and a password; also when it comes back after it was killed."""
    async with joined(secured.url, ours) as (one, _, _), joined(secured.url, ours) as (_, heard, told):
        async with asyncio.timeout(60):
            while not heard:
                await one.say(b"look")
                await asyncio.sleep(0.05)
        assert not told
        secured.kill()
        secured.start()
        heard.clear()
        async with asyncio.timeout(60):
            while not heard:
                await one.say(b"again")
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("authority", ["theirs", "the system's"])
async def test_a_certificate_of_another_authority_is_refused_in_words(
    secured: Nats, theirs: Path, authority: str
) -> None:
    """The log says what is wrong with it."""
    async with joined(secured.url, theirs if authority == "theirs" else None) as (bus, _, told):
        async with asyncio.timeout(60):
            while not told:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not bus.connected
        assert len(told) == 1
        assert told[0].startswith("SSLCertVerificationError: ")
        assert "certificate" in told[0]
        assert secured.password not in told[0]


async def test_a_server_without_tls_is_not_told_the_password(ours: Path) -> None:
    """Somebody between who leaves out that the server wants TLS learns nothing."""
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.9.10", "max_payload": 65536, "auth_required": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        said.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with joined(f"tls://chatchain:geheim@127.0.0.1:{port}", ours) as (bus, _, told):
        async with asyncio.timeout(60):
            while not told or len(said) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not bus.connected
        assert told == ["NoTls"]
    assert set(said) == {b""}
    server.close()


async def test_who_hangs_up_at_once_may() -> None:
    """Before it has begun to connect, and one that never began."""
    for begins in (True, False):
        bus = Bus("nats://127.0.0.1:1", "talk", print)
        if begins:
            bus.start(print)
        await bus.close()
        await bus.say(b"nothing")
        assert not bus.connected


def test_an_authority_that_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    """Missing, or no certificate."""
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(BadConfig, match="cannot be read"):
            Bus("tls://127.0.0.1", "talk", print, authority=path)


def command_line(pid: int) -> bytes:
    """What every user of the machine can read about a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_workers_wake_each_other_over_tls_or_look_by_themselves(
    secured: Nats,
    ours: Path,
    theirs: Path,
    anvil: DevChain,
    mariadb: MariaDB,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With the wrong authority messages come all the same; no log and no command line has the password."""
    for folder, complaint in ((ours, False), (theirs, True)):
        stage = Stage(anvil, tmp_path_factory.mktemp("workers"), mariadb.new_database())
        stage.environment |= {"NATS_URL": secured.url, "NATS_CA": str(folder / "ca.pem")}
        process = stage.start("--workers", "2")
        ada, bob = stage.register("ada"), stage.register("bob")
        one, other = await on_different_workers(stage, ada, bob)
        for number in range(3):
            await one.send(bob, b"%d" % number)
            assert (await other.receive(1))[0].body == b"%d" % number
        for device in (one, other):
            await device.close()
        log = stage.log.read_text()
        assert ("SSLCertVerificationError" in log) is complaint
        assert secured.password not in log
        assert secured.password.encode() not in command_line(process.pid)
        if complaint:
            done = run(stage, "--nats-ca", str(folder / "none.pem"), "--port", "0", "--workers", "1")
            assert_ends(done, 2, "The authority of the NATS server")
        stage.stop()


async def test_only_what_others_say_and_what_is_short_is_heard(nats: Nats) -> None:
    """Nobody hears himself, nor a message that is longer than any of ours."""
    client = Client()
    await client.connect(nats.url)
    async with joined(nats.url, None) as (bus, heard, told), asyncio.timeout(60):
        while not heard:
            await client.publish("talk", b"begin")
            await asyncio.sleep(0.05)
        await bus.say(b"own")
        await client.publish("talk", bytes(MOST + 1))
        await client.publish("talk", bytes(MOST))
        await client.publish("talk", b"end")
        while heard[-1] != b"end":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert [each for each in heard if each != b"begin"] == [bytes(MOST), b"end"]
        assert told == []
    await client.close()


async def test_who_hung_up_hears_and_says_nothing_more(
    nats: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it try to connect, whether it was connected or not."""
    monkeypatch.setattr("chatchain.bus._RETRY", 3_600)
    (tmp_path / "away").mkdir()
    away = Nats(tmp_path / "away")
    away.kill()
    for server in (nats, away):
        async with joined(server.url, None) as (bus, heard, told):
            async with asyncio.timeout(60):
                while not (bus.connected or told):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            task = bus._task
        assert task is not None
        await asyncio.wait([task])
        assert task.cancelled()
        assert not bus.connected
        await bus.say(b"nothing")
        assert heard == []


async def test_a_server_that_is_not_there_yet_is_found_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it was not; the same complaint is made once."""
    monkeypatch.setattr("chatchain.bus._RETRY", 0.01)
    server = Nats(tmp_path)
    server.kill()
    async with joined(server.url, None) as (one, _, told), joined(server.url, None) as (_, heard, _):
        async with asyncio.timeout(60):
            while not told:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await one.say(b"lost")
            await asyncio.sleep(0.3)  # in which it is tried some times more
            server.start()
            while not heard:
                await one.say(b"look")
                await asyncio.sleep(0.05)
        assert b"lost" not in heard
        assert told == ["ConnectionRefusedError"]
    server.stop()


@pytest.mark.parametrize("again", [True, False])
async def test_who_was_thrown_out_comes_again(monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """The library ends for good then, and so another of its clients begins; who hangs up in between may."""
    monkeypatch.setattr("chatchain.bus._RETRY", 0.01 if again else 3_600)
    came = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        info = {"server_id": "x", "version": "2.9.10", "max_payload": 65536}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        async for line in reader:
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            elif line.startswith(b"SUB"):
                came += 1
                writer.write(b"-ERR 'Maximum Connections Exceeded'\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with joined(f"nats://127.0.0.1:{port}", None) as (bus, _, _), asyncio.timeout(60):
        while came < 3 if again else not came or bus._client is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    server.close()
