"""Strangers and members who mean harm: frames that are none, replays, impostors, sockets that never end."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import secrets
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from chatchain import transport
from chatchain.errors import CertificateMismatch, NetworkError
from chatchain.model import RelayAddress
from chatchain.wire.connection import MAX_FRAME, MAX_FRAME_BEFORE_LOGIN, frame
from chatchain.wire.messages import Acknowledge, Goodbye, Submit, Tick, Welcome
from deploy import certificates
from tests.fixtures.chains import DevChain
from tests.fixtures.processes import Process
from tests.integration.faults import hasty, slowloris
from tests.integration.faults.load import FULL, UNLIMITED, forget_most, health, rss_kib, worst_of_100
from tests.integration.faults.wire import Wire
from tests.relay.stage import ROOT, Account, Device, Stage

ROUNDS: Final = 200 if FULL else 20
"""Of each bad frame, before login and after it."""

WARM: Final = 3
"""Rounds after which everything is loaded that a relay needs for them."""

FLAT_KIB: Final = 4 * 1024
"""More resident memory than this, at any moment, would be for what is refused, and afterwards a leak."""

REPLAYS: Final = 200 if FULL else 10
SOCKETS: Final = 2_000 if FULL else 200
ATTACK: Final = 40.0 if FULL else 8.0
"""Seconds of slow sockets."""

SAMPLES: Final = 500 if FULL else 50
"""Messages of honest people before the attack, and under it."""


@pytest.fixture
def stage(anvil: DevChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A relay that counts no logins, for people who make hundreds; not yet started."""
    folder = tmp_path_factory.mktemp("hostile")
    made = Stage(anvil, folder, f"sqlite:///{folder / 'relay.db'}")
    made.environment["RELAY_LIMITS"] = UNLIMITED
    yield made
    made.stop()


# --- frames -------------------------------------------------------------------------------------------------


def _framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


BAD: Final = {
    "empty": struct.pack(">I", 0),
    "negative": struct.pack(">i", -1),
    "oversized": struct.pack(">I", MAX_FRAME + 1),
    "two gigabytes": struct.pack(">I", 2**31 - 1),
    "nested": _framed(b"\x91" * (MAX_FRAME_BEFORE_LOGIN - 1) + b"\x90"),
    "nested very deeply": _framed(b"\x91" * (MAX_FRAME - 1) + b"\x90"),
    "an array of four billion": _framed(b"\xdd\xff\xff\xff\xff" + bytes(100)),
    "a text of four billion": _framed(b"\x92\x01\xdb\xff\xff\xff\xff" + bytes(100)),
    "garbage": _framed(secrets.token_bytes(1_000)),
    "no frame": b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
    "the relay's own": frame(Welcome(123_456_789_012_345, 0, 0)),
}
"""What is refused at the first look, whoever sends it."""


async def cut(device: Device, data: bytes) -> None:
    """Sends bytes and is told off: nothing more has to follow for that."""
    assert device.link is not None
    device.link._writer.write(data)
    assert (await device.expect(Goodbye)).code == "protocol_violation"
    with pytest.raises(NetworkError):
        await device.next()
    await device.close()


async def test_frames_that_are_none_end_one_connection_and_cost_no_memory(stage: Stage) -> None:
    """Before login and after it, whole and broken off; the length alone is enough to be cut."""
    process = stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    witness = await Device(stage, bob).begin()

    async def once() -> None:
        for data in BAD.values():
            stranger = Device(stage, ada)
            stranger.link = await transport.dial(stage.relays)
            await cut(stranger, data)
            await cut(await Device(stage, ada).connect(), data)
        for data in (frame(Submit(witness.envelope(bob, bytes(200_000)))), struct.pack(">I", MAX_FRAME)):
            member = await Device(stage, ada).connect()
            assert member.link is not None
            member.link._writer.write(data[:-1])  # the rest never comes
            await member.link._writer.drain()
            member.link._writer.transport.abort()
            await member.close()

    for _ in range(WARM):
        await once()
    before = rss_kib(process.pid)
    forget_most(process.pid)
    for _ in range(ROUNDS):
        await once()
    assert rss_kib(process.pid, most=True) - before < FLAT_KIB, "not even for a moment"
    async with asyncio.timeout(120):
        while (await health(stage))[1]["connections"] > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert rss_kib(process.pid) - before < FLAT_KIB
    assert process.running
    assert isinstance(await witness.send(bob), Tick)
    assert len(await witness.receive(1)) == 1
    await witness.close()


# --- replays ------------------------------------------------------------------------------------------------


async def test_a_recorded_login_and_recorded_frames_gain_nothing(stage: Stage) -> None:
    """A login fits its own connection only; a message sent again is ticked again and delivered once."""
    stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    sender = Device(stage, ada)
    sender.link = await transport.dial(stage.relays)
    recorded = sender.proof()
    await sender.log_in()
    thief = Device(stage, ada)
    for _ in range(REPLAYS):
        thief.link = await transport.dial(stage.relays)
        await thief.say(recorded)
        assert (await thief.expect(Goodbye)).code == "login_refused"
        await thief.close()

    recipient = await Device(stage, bob).begin()
    envelope = sender.envelope(bob)
    for _ in range(REPLAYS):
        assert isinstance(await sender.submit(envelope), Tick)
    delivery = (await recipient.receive(1))[0]
    for _ in range(REPLAYS):
        await recipient.say(Acknowledge((delivery.sequence,)))
    assert isinstance(await sender.send(bob, b"last"), Tick)
    assert [delivery.body for delivery in await recipient.receive(1)] == [b"last"]
    await sender.close()
    await recipient.close()


async def test_a_recorded_connection_played_again_is_nobody_s(stage: Stage) -> None:
    """The very bytes of a login and a message on the wire: TLS knows them for old, and nothing is stored."""
    stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    async with Wire(stage.port) as wire:
        wire.record = bytearray()
        sender = await Device(wire.before(stage), ada).connect()
        assert isinstance(await sender.send(bob, b"once"), Tick)
        await sender.close()
        recorded = bytes(wire.record)
    for _ in range(REPLAYS):
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(recorded)
        async with asyncio.timeout(120):
            with contextlib.suppress(ConnectionError):
                await reader.read()  # until the relay has hung up
        writer.transport.abort()
    async with asyncio.timeout(120):
        while (await health(stage))[1]["connections"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    recipient = await Device(stage, bob).begin()
    assert recipient.welcome is not None
    assert recipient.welcome.waiting == 1
    assert [delivery.body for delivery in await recipient.receive(1)] == [b"once"]
    await recipient.close()


# --- impostors ----------------------------------------------------------------------------------------------


async def test_a_certificate_with_another_key_gets_no_login(stage: Stage, tmp_path: Path) -> None:
    """Of the same names and by another authority, where the relay should be: clients say so, and wait for the
    right one.
    """
    stage.start()
    ada = stage.register("ada")
    own, stage.pair = stage.pair, certificates.make(tmp_path / "impostor")
    stage.stop()
    stage.start()
    with pytest.raises(CertificateMismatch):
        await transport.dial(stage.relays)
    assert (await health(stage))[1]["sessions"] == 0
    stage.stop()
    stage.pair = own
    stage.start()
    device = await Device(stage, ada).connect()
    assert isinstance(await device.send(ada), Tick)
    await device.close()


async def test_a_login_carried_on_by_an_impostor_is_refused(stage: Stage, tmp_path: Path) -> None:
    """Even a client that took the wrong certificate: its proof names the key that it saw."""
    stage.start()
    ada = stage.register("ada")
    pair = certificates.make(tmp_path / "impostor")

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes part in both conversations and carries every byte on."""
        back, forth = await asyncio.open_connection("127.0.0.1", stage.port, ssl=transport.client_context())

        async def carry(come: asyncio.StreamReader, go: asyncio.StreamWriter) -> None:
            while data := await come.read(65536):
                go.write(data)

        await asyncio.wait(
            [asyncio.create_task(carry(reader, forth)), asyncio.create_task(carry(back, writer))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for end in (writer, forth):
            end.transport.abort()

    context = transport.server_context(str(pair.certificate), str(pair.key))
    server = await asyncio.start_server(between, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    fooled = copy.copy(stage)
    fooled.relays = (RelayAddress(f"127.0.0.1:{port}", pair.spki, bytes(32)),)
    device = Device(fooled, ada)
    device.link = await transport.dial(fooled.relays)
    await device.say(device.proof())
    assert (await device.expect(Goodbye)).code == "login_refused"
    await device.close()
    server.close()


# --- sockets that never end ---------------------------------------------------------------------------------


async def test_slow_sockets_are_cut_in_time_and_hold_nobody_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Silent, shaking hands a byte at a time, or spelling their login out: all end at a deadline."""
    if not FULL:
        hasty.hasten(stage, monkeypatch)
    process = stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    before = await _latencies(sender, recipient, bob)

    log = tmp_path / "attack.log"
    program = [sys.executable, slowloris.__file__, str(stage.port), str(SOCKETS), str(ATTACK)]
    attack = Process(["/usr/bin/env", f"PYTHONPATH={ROOT}", *program], log)
    try:
        await asyncio.to_thread(attack.wait_until, lambda: "all open" in log.read_text(), 120)
        assert (await health(stage))[1]["connections"] >= SOCKETS / 4, "those that shook hands"
        under = await _latencies(sender, recipient, bob)
        async with asyncio.timeout(ATTACK + 120):
            while attack.running:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    finally:
        attack.stop()
    report = json.loads(log.read_text().splitlines()[-1])
    handshake, login = hasty.deadlines_in_force()
    assert report["cut"] >= SOCKETS, report
    assert report["longest_s"]["silent"] <= handshake + 5, report
    assert report["longest_s"]["greeting"] <= handshake + 5, report
    assert report["longest_s"]["spelling"] <= handshake + login + 5, report
    assert process.running
    print(
        f"honest p99: {worst_of_100(before) * 1000:.1f} ms, under attack {worst_of_100(under) * 1000:.1f} ms"
    )
    if FULL:
        assert worst_of_100(under) <= 2 * worst_of_100(before)
    await sender.close()
    await recipient.close()


async def _latencies(sender: Device, recipient: Device, to: Account) -> list[float]:
    """Seconds from submission to delivery, one message after the other."""
    found = []
    for number in range(SAMPLES):
        body = os.urandom(16) + str(number).encode()
        began = time.perf_counter()
        assert isinstance(await sender.send(to, body), Tick)
        assert [delivery.body for delivery in await recipient.receive(1)] == [body]
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)
    return found
