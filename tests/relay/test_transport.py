"""The transport over real sockets and TLS: certificates, deadlines, back-pressure. No relay behind it.

Both sides run on asyncio here; the tests of the whole relay run its side on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from chatchain import transport
from chatchain.errors import CertificateMismatch, NetworkError, ProtocolViolation, RelayUnreachable
from chatchain.model import Delivery, RelayAddress
from chatchain.transport import Listener, Peer, dial, fingerprint, server_context
from chatchain.wire import deadlines
from chatchain.wire.connection import frame
from chatchain.wire.intake import FOLD, Intake
from chatchain.wire.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    Challenge,
    Deliver,
    Goodbye,
    Login,
    Message,
    Ping,
    Receive,
    Welcome,
)
from deploy import certificates
from tests.fixtures.processes import free_port

UID = 123_456_789_012_345
LOGIN = Login(UID, 1, 0, b"", bytes(65), bytes(65))
NOWHERE = bytes(31) + b"\x01"


class Handler:
    """Greets, welcomes whoever logs in, and notes what happens."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.messages: list[Message] = []
        self.gone: list[Peer] = []
        self.violations: list[ProtocolViolation] = []
        self.greeting: Message | None = Challenge(PROTOCOL_VERSION, bytes(32), 31337, bytes(20), 0)

    def opened(self, peer: Peer) -> None:
        self.peers.append(peer)
        if self.greeting is not None:
            peer.send(self.greeting)

    def received(self, peer: Peer, message: Message) -> None:
        self.messages.append(message)
        if isinstance(message, Login):
            peer.logged_in()
            peer.send(Welcome(UID, 0, 0))

    def submitted(self, peer: Peer, inbox: deque[Message]) -> None:
        self.messages.append(inbox.popleft())

    def violated(self, peer: Peer, violation: ProtocolViolation) -> None:
        self.violations.append(violation)

    def writable(self, peer: Peer) -> None:
        pass

    def closed(self, peer: Peer) -> None:
        self.gone.append(peer)


class Server:
    """A listener, its handler and how the chain would name it."""

    def __init__(self, pair: certificates.Pair, **limits: Any) -> None:
        self.handler = Handler()
        self.listener = Listener(self.handler, server_context(str(pair.certificate), str(pair.key)), **limits)
        self.spki = pair.spki
        self.port = 0

    async def start(self) -> Server:
        self.port = await self.listener.start("127.0.0.1", 0)
        return self

    def named(self, spki: bytes | None = None, next_spki: bytes = bytes(32)) -> RelayAddress:
        return RelayAddress(f"127.0.0.1:{self.port}", self.spki if spki is None else spki, next_spki)

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TLS connection without a protocol."""
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=transport.client_context())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> certificates.Pair:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def server(pair: certificates.Pair) -> AsyncIterator[Server]:
    made = await Server(pair).start()
    yield made
    made.listener.stop()
    for peer in made.handler.peers:
        peer.abort()


async def until(holds: Callable[[], bool]) -> None:
    """Waits for something that is about to happen."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- the client's side --------------------------------------------------------------------------------------


async def test_pings_of_a_relay_that_reads_nothing_end_the_link(pair: certificates.Pair) -> None:
    """The answers that it does not take are not kept without end."""
    flood = b"".join(frame(Ping(2**63 - 1 - number)) for number in range(1_000))
    flooders: list[asyncio.Task[None]] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(Challenge(PROTOCOL_VERSION, bytes(32), 31337, bytes(20), 0)))
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while True:
                writer.write(flood)
                await writer.drain()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport over TCP reads
        flooders.append(asyncio.create_task(greet(reader, writer)))

    context = server_context(str(pair.certificate), str(pair.key))
    flooding = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    port = flooding.sockets[0].getsockname()[1]
    link = await dial([RelayAddress(f"127.0.0.1:{port}", pair.spki, bytes(32))])
    try:
        async with asyncio.timeout(30):
            with pytest.raises(ProtocolViolation, match="does not read"):
                await link.receive()
        assert link._writer.transport.get_write_buffer_size() <= 2 * transport.WRITE_QUEUE
    finally:
        await link.close()
        for task in flooders:
            task.cancel()
        await asyncio.gather(*flooders, return_exceptions=True)
        flooding.close()


@pytest.mark.parametrize("place", ["current", "next"])
async def test_a_certificate_that_the_chain_names_is_taken(server: Server, place: str) -> None:
    """Current or next, so that a certificate can be changed without a gap."""
    relay = server.named() if place == "current" else server.named(NOWHERE, server.spki)
    link = await dial([relay])
    assert (link.spki, link.relay, link.challenge) == (server.spki, relay, server.handler.greeting)
    await link.close()


async def test_another_certificate_is_a_hard_stop(server: Server) -> None:
    """Both fingerprints are shown, nothing was said, and no further relay is tried."""
    second = server.named()
    with pytest.raises(CertificateMismatch) as raised:
        await dial([server.named(NOWHERE), second])
    assert fingerprint(server.spki) in raised.value.message
    assert fingerprint(NOWHERE) in raised.value.message
    await until(lambda: len(server.handler.gone) == 1)
    assert server.handler.messages == []
    assert len(server.handler.peers) == 1


async def test_an_empty_pin_fits_nobody(server: Server) -> None:
    """A chain that names no key must not mean any key."""
    with pytest.raises(CertificateMismatch):
        await dial([server.named(bytes(32))])


async def test_a_relay_that_is_down_is_passed_over(server: Server) -> None:
    """The next one answers."""
    down = RelayAddress(f"127.0.0.1:{free_port()}", server.spki, bytes(32))
    link = await dial(
        [down, RelayAddress("no-such-host.invalid:5555", server.spki, bytes(32)), server.named()]
    )
    assert link.relay == server.named()
    await link.close()


async def test_when_no_relay_answers_each_is_named(server: Server) -> None:
    """With its reason; and an empty list is no relay."""
    port = free_port()
    with pytest.raises(
        RelayUnreachable, match=f"127.0.0.1:{port} does not answer: the connection is refused"
    ):
        await dial([RelayAddress(f"127.0.0.1:{port}", server.spki, bytes(32))])
    with pytest.raises(RelayUnreachable, match="host:port"):
        await dial([RelayAddress("localhost", server.spki, bytes(32))])
    with pytest.raises(RelayUnreachable, match="no relay"):
        await dial([])


async def test_a_server_without_tls_13_is_no_relay(pair: certificates.Pair) -> None:
    """TLS 1.2 and plain TCP end as unreachable."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(pair.certificate, pair.key)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    talked = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()
        talked.set()

    for context in (old, None):
        other = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(RelayUnreachable):
            await dial([RelayAddress(f"127.0.0.1:{port}", pair.spki, bytes(32))])
        other.close()
    await talked.wait()  # the one without TLS got as far as that


async def test_a_silent_server_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, pair: certificates.Pair
) -> None:
    """One that never shakes hands and one that never sends its challenge; the next relay is asked."""

    async def listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        monkeypatch.setattr(deadlines, "HANDSHAKE", 20.0)  # for the next
        await reader.read()
        writer.close()

    monkeypatch.setattr(deadlines, "HANDSHAKE", 0.5)
    mute = await asyncio.start_server(listen_only, "127.0.0.1", 0)
    silent = RelayAddress(f"127.0.0.1:{mute.sockets[0].getsockname()[1]}", pair.spki, bytes(32))
    async with asyncio.timeout(30):  # half of what TLS by itself would wait for
        link = await dial([silent, server.named()])
    await link.close()
    mute.close()
    server.handler.greeting = None
    checked = transport._checked

    def then_in_a_hurry(relay: RelayAddress, writer: asyncio.StreamWriter) -> bytes:
        monkeypatch.setattr(deadlines, "HANDSHAKE", 0.2)
        return checked(relay, writer)

    monkeypatch.setattr(transport, "_checked", then_in_a_hurry)
    with pytest.raises(RelayUnreachable, match="says nothing"):
        await dial([server.named()])


async def test_a_relay_of_another_protocol_is_told_apart(server: Server) -> None:
    """A newer version, and one that turns us away."""
    server.handler.greeting = Challenge(PROTOCOL_VERSION + 1, bytes(32), 1, bytes(20), 0)
    with pytest.raises(ProtocolViolation, match=f"version {PROTOCOL_VERSION + 1}"):
        await dial([server.named()])
    server.handler.greeting = Goodbye("shutdown", "Not now.", 0)
    with pytest.raises(RelayUnreachable, match="Not now"):
        await dial([server.named()])


async def test_a_link_gives_messages_and_answers_heartbeats(server: Server) -> None:
    """Pings are answered and never shown; after Goodbye the link has ended."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    assert await link.receive() == Welcome(UID, 0, 0)
    peer = server.handler.peers[0]
    before = peer.heard
    peer.send(Ping(7))
    delivery = Delivery(1, bytes(16), 1, UID, 1, UID, 0, b"h", b"b")
    peer.send(Deliver(delivery))
    assert await link.receive() == Deliver(delivery)
    await until(lambda: peer.heard > before)
    await link.send(Receive(0))
    await until(lambda: len(server.handler.messages) == 2)
    peer.say_goodbye("shutdown", "Bye.")
    assert await link.receive() == Goodbye("shutdown", "Bye.", 0)
    with pytest.raises(NetworkError):
        await link.receive()
    with pytest.raises(NetworkError):
        await link.send(Receive(0))
    await link.close()
    assert server.handler.messages == [LOGIN, Receive(0)]


async def test_a_link_asks_whether_the_relay_is_alive(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of itself, so that a dead connection is noticed by whoever only listens."""
    monkeypatch.setattr(deadlines, "HEARTBEAT", 0.05)
    link = await dial([server.named()])
    await until(lambda: len(server.handler.peers) == 1)
    peer = server.handler.peers[0]
    for _ in range(2):
        before = peer.heard
        await until(lambda: peer.heard > before)  # noqa: B023
    await link.close()


async def test_a_relay_that_falls_silent_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its connection would stay open."""
    link = await dial([server.named()])
    monkeypatch.setattr(deadlines, "SILENCE", 0.1)
    async with asyncio.timeout(30):
        with pytest.raises(NetworkError, match="fallen silent"):
            await link.receive()
    await link.close()


async def test_a_cancelled_receive_loses_nothing(server: Server) -> None:
    """Half a frame that came before the cancellation is part of the message that comes after it."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    await link.receive()
    peer = server.handler.peers[0]
    data = frame(Deliver(Delivery(1, bytes(16), 1, UID, 1, UID, 0, b"h", bytes(5000))))
    assert peer._transport is not None
    peer._transport.write(data[:3000])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await link.receive()
    peer._transport.write(data[3000:])
    async with asyncio.timeout(60):
        assert isinstance(await link.receive(), Deliver)
    await link.close()


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x00\x00\x01\xc1", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", frame(Receive(1)), frame(LOGIN)],
)
async def test_a_relay_that_breaks_the_protocol_is_left(server: Server, garbage: bytes) -> None:
    """Its bytes end as ProtocolViolation, after what it said before them."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    assert isinstance(await link.receive(), Welcome)
    assert server.handler.peers[0]._transport is not None
    server.handler.peers[0]._transport.write(garbage)
    for _ in range(2):
        with pytest.raises(ProtocolViolation):
            await link.receive()
    await link.close()


# --- the relay's side ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x80\x00\x00\x00",
        struct.pack(">I", 4097),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x04garb",
        frame(Receive(0)),
        frame(Welcome(UID, 0, 0)),
    ],
    ids=["empty", "max", "negative", "oversized", "http", "garbage", "out of turn", "relay's own"],
)
async def test_a_client_that_breaks_the_protocol_is_told_and_cut_off(server: Server, garbage: bytes) -> None:
    """It gets a Goodbye with the reason, and the next client is served."""
    reader, writer = await server.raw()
    writer.write(garbage)
    async with asyncio.timeout(60):
        said = await reader.read()
    assert said.endswith(frame(Goodbye("protocol_violation", server.handler.violations[0].message, 0)))
    writer.close()
    await until(lambda: len(server.handler.gone) == 1)
    assert server.handler.messages == []
    await (await dial([server.named()])).close()


async def test_a_connection_that_ends_within_a_frame_leaves_nothing(server: Server) -> None:
    """Truncated frames and connections cut without a word free their place."""
    for data in (b"\x00\x00", frame(LOGIN)[:-1], b""):
        _, writer = await server.raw()
        writer.write(data)
        await writer.drain()
        writer.transport.abort()
    await until(lambda: len(server.handler.gone) == 3)
    assert server.listener.gate.open == 0
    assert server.handler.messages == []


async def test_a_client_without_tls_13_is_not_served(server: Server) -> None:
    """Nothing older is spoken, whoever asks for it."""
    old = transport.client_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=old)
    assert server.handler.peers == []


async def test_no_tls_session_is_resumed(server: Server) -> None:
    """Each connection shakes hands in full: no ticket is given out that outlives a certificate."""
    reader, writer = await server.raw()
    await reader.readexactly(4)  # tickets would have come before
    session = writer.get_extra_info("ssl_object").session
    assert not session.has_ticket
    writer.transport.abort()


async def test_who_never_shakes_hands_is_dropped(
    pair: certificates.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TCP connection without TLS holds its place only until the deadline."""
    monkeypatch.setattr(deadlines, "HANDSHAKE", 0.3)
    server = await Server(pair).start()
    with socket.create_connection(("127.0.0.1", server.port)):
        await until(lambda: server.listener.gate.open == 1)
        await until(lambda: server.listener.gate.open == 0)
    assert server.handler.peers == []
    server.listener.stop()


async def test_strangers_of_one_address_are_counted(pair: certificates.Pair) -> None:
    """Beyond the limit they are turned away while all are being served, until one logs in or leaves."""
    server = await Server(pair, strangers_per_address=2).start()
    first, second = await dial([server.named()]), await dial([server.named()])
    for peer in server.handler.peers:
        peer.hold()
    with pytest.raises(RelayUnreachable):
        await dial([server.named()])
    for peer in server.handler.peers:
        peer.release()
    await first.send(LOGIN)
    await first.receive()
    third = await dial([server.named()])
    await second.close()
    await until(lambda: len(server.handler.gone) == 1)
    fourth = await dial([server.named()])
    for link in (first, third, fourth):
        await link.close()
    await until(lambda: server.listener.gate.open == 0)
    server.listener.stop()


async def test_f11_silent_strangers_keep_nobody_out(pair: certificates.Pair) -> None:
    """The oldest of them gives way, in its handshake or after it; who is being served or logged in stays."""
    server = await Server(pair, strangers_per_address=4).start()
    known = await dial([server.named()])
    await known.send(LOGIN)
    await known.receive()
    served = await dial([server.named()])
    server.handler.peers[1].hold()
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]  # no handshake
    await until(lambda: server.listener.gate.open == 4)
    greeted = await dial([server.named()])
    newcomers = [await dial([server.named()]) for _ in range(3)]
    for reader, _ in silent:
        assert await asyncio.wait_for(reader.read(), 20) == b""
    await until(lambda: server.handler.gone == [server.handler.peers[2]])
    with pytest.raises(NetworkError):
        await greeted.receive()
    await until(lambda: server.listener.gate.open == 5)
    await newcomers[0].send(LOGIN)
    await newcomers[0].receive()
    server.handler.peers[1].release()
    await served.send(LOGIN)
    await served.receive()
    for link in (known, served, *newcomers):
        await link.close()
    for _, writer in silent:
        writer.transport.abort()
    await until(lambda: server.listener.gate.open == 0)
    assert not server.listener.gate._strangers
    server.listener.stop()


async def test_connections_are_counted(pair: certificates.Pair) -> None:
    """No more than so many at once, logged in or not."""
    server = await Server(pair, connections=1).start()
    first = await dial([server.named()])
    await first.send(LOGIN)
    await first.receive()
    with pytest.raises(RelayUnreachable):
        await dial([server.named()])
    await first.close()
    await until(lambda: server.listener.gate.open == 0)
    await (await dial([server.named()])).close()
    server.listener.stop()


async def test_silent_strangers_of_many_addresses_do_not_fill_the_relay(pair: certificates.Pair) -> None:
    """Whoever has 10,000 connections from many addresses keeps nobody out who has something to say."""
    server = await Server(pair, connections=3).start()
    known = await dial([server.named()])
    await known.send(LOGIN)
    await known.receive()
    silent = [
        await asyncio.open_connection("127.0.0.1", server.port, local_addr=(f"127.0.0.{number}", 0))
        for number in (2, 3)
    ]
    await until(lambda: server.listener.gate.open == 3)
    newcomer = await dial([server.named()])
    assert await asyncio.wait_for(silent[0][0].read(), 20) == b""
    await newcomer.send(LOGIN)
    await newcomer.receive()
    last = await dial([server.named()])
    await last.send(LOGIN)
    await last.receive()
    with pytest.raises(RelayUnreachable):  # all that are open are somebody's
        await dial([server.named()])
    for link in (known, newcomer, last):
        await link.close()
    for _, writer in silent:
        writer.transport.abort()
    await until(lambda: server.listener.gate.open == 0)
    assert not server.listener.gate._strangers
    server.listener.stop()


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_an_address_counts_as_one_subscriber(host: str, counted: str) -> None:
    """An IPv4 address that a proxy writes as IPv6 is still one of its own, not one with all others."""
    assert transport._subject(host) == counted


async def test_a_stalled_reader_costs_a_bounded_queue(server: Server) -> None:
    """It is marked slow, not listened to, and cut off before more than about a MiB waits for it."""
    reader, writer = await server.raw()
    with contextlib.suppress(ValueError):
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    writer.write(frame(LOGIN))
    await until(lambda: server.handler.messages == [LOGIN])
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a whole Transport
    peer = server.handler.peers[0]
    message = Deliver(Delivery(1, bytes(16), 1, UID, 1, UID, 0, b"h", os.urandom(100_000)))
    queued = 0
    for _ in range(1000):
        peer.send(message)
        await asyncio.sleep(0)
        if peer._transport is None or server.handler.gone:
            break
        queued = max(queued, peer._transport.get_write_buffer_size())
        if peer.slow:
            writer.write(frame(Acknowledge((1,))))
    await until(lambda: server.handler.gone == [peer])
    assert queued < 2 * transport.WRITE_QUEUE
    assert Acknowledge((1,)) not in server.handler.messages
    writer.transport.abort()
    del reader


async def test_messages_wait_while_the_handler_does(server: Server) -> None:
    """What comes during a hold is handed on afterwards, in order; holds add up."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    await link.receive()
    peer = server.handler.peers[0]
    peer.hold()
    peer.hold()
    for number in range(3):
        await link.send(Receive(number))
    await asyncio.sleep(0.1)
    peer.release()
    await asyncio.sleep(0.1)
    assert server.handler.messages == [LOGIN]
    peer.release()
    await until(lambda: len(server.handler.messages) == 4)
    assert server.handler.messages[1:] == [Receive(number) for number in range(3)]
    await link.close()


async def test_nothing_more_is_taken_in_during_a_hold(server: Server) -> None:
    """Neither by TLS: what the kernel does not hold stays with the peer, and comes afterwards."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    await link.receive()
    peer = server.handler.peers[0]
    peer.hold()
    many = [Receive(number) for number in range(200_000)]
    link._writer.write(b"".join(map(frame, many)))
    await asyncio.sleep(0.2)
    assert peer._transport is not None
    assert peer._transport.get_read_buffer_size() == 0  # type: ignore[attr-defined]  # of TLS transports
    peer.hold()  # a second one changes nothing
    await asyncio.sleep(0.1)
    assert peer._transport.get_read_buffer_size() == 0  # type: ignore[attr-defined]
    assert not peer._inbox
    peer.release()
    peer.release()
    await until(lambda: len(server.handler.messages) == 1 + len(many))
    assert server.handler.messages[1:] == many
    await link.close()


async def test_others_wait_once_all_have_sent_what_may_be_kept(pair: certificates.Pair) -> None:
    """Those who have sent nothing yet are not listened to, nor taken for dead, until there is a commit."""
    intake = Intake(read=FOLD * 10_000)
    server = await Server(pair, intake=intake).start()
    links = [await dial([server.named()]) for _ in range(4)]
    for link, peer in zip(links, server.handler.peers, strict=True):
        await link.send(LOGIN)
        await link.receive()
        peer.narrow()
    loud, *others = zip(links, server.handler.peers, strict=True)
    many = [Receive(number) for number in range(5_000)]
    loud[0]._writer.write(b"".join(map(frame, many)))
    await until(lambda: intake.shut)
    heard = len(server.handler.messages)
    assert intake.waiting == 4
    for link, peer in others:
        assert peer.held
        await link.send(Receive(7_000))
    stranger = await dial([server.named()])
    await stranger.send(LOGIN)
    await stranger.receive()
    await until(lambda: server.handler.messages[-1] == LOGIN)
    assert len(server.handler.messages) == heard + 1, "nobody else was read from"
    peer = others[0][1]
    peer.heard -= 2 * deadlines.SILENCE
    intake.committed()
    assert not peer.held
    assert peer.heard > asyncio.get_running_loop().time() - deadlines.HEARTBEAT
    while intake.shut or len(server.handler.messages) < 4 + 1 + 3 + len(many):
        intake.committed()
        await asyncio.sleep(0.01)
    assert server.handler.messages.count(Receive(7_000)) == 3
    for link in (*links, stranger):
        await link.close()
    await until(lambda: len(server.handler.gone) == 5)
    assert intake.read == intake.waiting == 0
    server.listener.stop()


async def test_the_slowest_frame_gives_way(pair: certificates.Pair) -> None:
    """It is told when to come again, and what it had sent is forgotten; its time stands still while nobody
    listens.
    """
    intake = Intake(unfinished=100_000)
    server = await Server(pair, intake=intake).start()
    slow, quick = [await dial([server.named()]) for _ in range(2)]
    for link in (slow, quick):
        await link.send(LOGIN)
        await link.receive()
    data = frame(Deliver(Delivery(1, bytes(16), 1, UID, 1, UID, 0, b"h", os.urandom(90_000))))
    slow._writer.write(data[:60_000])
    await until(lambda: intake.unfinished == 60_000)
    peer = server.handler.peers[0]
    peer._frame_began -= 1_000.0
    peer.hold()
    assert not peer.overdue(asyncio.get_running_loop().time())
    peer._stopped_at -= 1_000.0
    peer.release()
    assert not peer.overdue(asyncio.get_running_loop().time())
    quick._writer.write(data[:60_000])
    goodbye = await slow.receive()
    assert isinstance(goodbye, Goodbye)
    assert (goodbye.code, goodbye.retry_after_ms > 0) == ("relay_busy", True)
    await until(lambda: intake.unfinished == 60_000)
    for link in (slow, quick):
        await link.close()
    await until(lambda: intake.unfinished == 0)
    server.listener.stop()


async def test_silence_counts_from_the_end_of_a_hold(server: Server) -> None:
    """Whoever was not listened to for long is not taken for dead before the next word is read."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    await link.receive()
    peer = server.handler.peers[0]
    peer.hold()
    await link.send(Receive(0))
    peer.heard -= 2 * deadlines.SILENCE
    peer.release()
    assert peer.heard > asyncio.get_running_loop().time() - deadlines.HEARTBEAT
    await until(lambda: server.handler.messages == [LOGIN, Receive(0)])
    await link.close()


async def test_what_waited_is_handed_on_one_by_one_if_each_takes_time(server: Server) -> None:
    """A message that makes the handler hold again keeps those behind it waiting."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    await link.receive()
    peer = server.handler.peers[0]
    take = server.handler.received

    def take_one(peer: Peer, message: Message) -> None:
        take(peer, message)
        peer.hold()

    server.handler.received = take_one  # type: ignore[method-assign]  # as a relay that looks something up
    link._writer.write(b"".join(frame(Receive(number)) for number in range(4)))
    await until(lambda: len(peer._inbox) == 3)
    for number in range(4):
        assert server.handler.messages == [LOGIN, *(Receive(earlier) for earlier in range(number + 1))]
        peer.release()
    await link.close()


async def test_the_kernel_queues_little_for_whoever_logged_in(server: Server) -> None:
    """Many who send at once are not to cost much each; Linux counts what it asks for twice."""
    link = await dial([server.named()])
    peer = server.handler.peers[0]
    assert peer._transport is not None
    connected = peer._transport.get_extra_info("socket")
    before = connected.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    peer.narrow()
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * transport.READ_QUEUE < before
    await link.close()


async def test_who_is_sent_away_while_held_ends_at_once(server: Server) -> None:
    """Its farewell is waited for, and heard: the connection is gone long before it would be cut."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    await link.receive()
    peer = server.handler.peers[0]
    peer.hold()
    peer.say_goodbye("revoked", "This device has been revoked.")
    assert isinstance(await link.receive(), Goodbye)
    await link.close()
    async with asyncio.timeout(deadlines.HANDSHAKE / 2):
        await until(lambda: server.handler.gone == [peer])
    assert peer._farewell is not None
    assert peer._farewell.cancelled(), "nothing keeps what belonged to it"


async def test_what_waits_of_somebody_sent_away_is_not_served(server: Server) -> None:
    """A revoked device's messages do not outlive its farewell."""
    link = await dial([server.named()])
    await link.send(LOGIN)
    await link.receive()
    peer = server.handler.peers[0]
    take = server.handler.received

    def take_one(peer: Peer, message: Message) -> None:
        take(peer, message)
        peer.hold()

    server.handler.received = take_one  # type: ignore[method-assign]  # as a relay that looks something up
    link._writer.write(frame(Receive(1)) + frame(Receive(2)))
    await until(lambda: len(peer._inbox) == 1)
    peer.say_goodbye("revoked", "This device has been revoked.")
    peer.release()
    await until(lambda: server.handler.gone == [peer])
    assert server.handler.messages == [LOGIN, Receive(1)]
    await link.close()


def test_a_client_imports_none_of_the_relay_s_weight(tmp_path: Path) -> None:
    """Dialling needs neither uvloop nor SQLAlchemy nor web3, and no certificate parser before its time."""
    import subprocess
    import sys

    code = "import chatchain.transport, sys; print([m for m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded: Any = done.stdout
    for heavy in ("uvloop", "sqlalchemy", "web3", "eth_account", "cryptography", "structlog"):
        assert f"'{heavy}" not in loaded
