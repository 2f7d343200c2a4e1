"""Drives `wire.Connection` over asyncio and TLS 1.3: `dial` for clients, `listen` for relays.

A client takes no certificate on trust and asks no authority: the relay's public key must be the one whose
SHA-256 stands on the chain (its current or its next). A mismatch is final; only a relay that cannot be
reached is passed over for the next. A relay writes to each peer through a bounded queue and stops reading
from one that does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Final, Protocol, cast

from chatchain.errors import CertificateMismatch, NetworkError, ProtocolViolation, RelayUnreachable
from chatchain.model import RelayAddress
from chatchain.wire import deadlines, proxy
from chatchain.wire.connection import Connection, Role, State, frame
from chatchain.wire.intake import Intake, frame_seconds
from chatchain.wire.messages import (
    PROTOCOL_VERSION,
    Challenge,
    ClientMessage,
    Goodbye,
    Message,
    Ping,
    Pong,
    RelayMessage,
    Submit,
)

WRITE_QUEUE: Final = 1024 * 1024
"""Bytes that may wait for one slow reader."""

WRITE_HIGH: Final = 256 * 1024
"""Bytes waiting above which the peer is given nothing more and not listened to, until it has read most of
them.
"""

READ_QUEUE: Final = 32 * 1024
"""Bytes that the kernel is asked to queue, and so gives at once, of a peer whose messages are small."""

CHUNK: Final = 64 * 1024

READ_ROOM: Final = 256 * 1024
"""Bytes for all connections of one listener, which its loop reads one after the other. As a `Protocol` each
read would have a block of this size made for it, of which a short one needs next to nothing.
"""

BUSY_MS: Final = 5_000
"""When to come again to a relay that has too much to take in."""

_HEARTBEATS: Final = (Ping, Pong)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# --- certificates ---------------------------------------------------------------------------------------


def spki_of(certificate: bytes) -> bytes:
    """Gives the SHA-256 of the SubjectPublicKeyInfo of a certificate in DER, as the Directory names
    relays.
    """
    from cryptography import x509  # 60 ms that only a connection needs
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except (
        Exception
    ) as error:  # whatever a stranger's certificate does to the parser, it is not the right one
        raise ProtocolViolation("The relay shows a certificate that cannot be read.") from error


def fingerprint(spki: bytes) -> str:
    """Writes a public key's SHA-256 the way people compare it."""
    return ":".join(f"{byte:02X}" for byte in spki)


def client_context() -> ssl.SSLContext:
    """TLS 1.3 without authorities: the chain says which key is right, `dial` compares it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.3 with this certificate chain and key (PEM files); raises OSError or ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    show_pair(context, certificate, key)
    context.num_tickets = 0  # sessions are not resumed: each proves its login anew
    return context


def show_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Has new connections shown this pair; raises OSError or ssl.SSLError."""
    # Without a passphrase given here OpenSSL asks at the terminal, which stops a running relay.
    context.load_cert_chain(certificate, key, password="")


# --- the client's side ----------------------------------------------------------------------------------


class RelayLink:
    """One connection to a relay whose certificate was right. One task sends, one receives."""

    def __init__(
        self,
        relay: RelayAddress,
        spki: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._relay = relay
        self._spki = spki
        self._reader = reader
        self._writer = writer
        self._connection = Connection(Role.CLIENT)
        self._messages: deque[Message] = deque()
        self._violation: ProtocolViolation | None = None
        self._challenge: Challenge | None = None
        self._beat: asyncio.Task[None] | None = None

    @property
    def relay(self) -> RelayAddress:
        """Which relay this is."""
        return self._relay

    @property
    def spki(self) -> bytes:
        """SHA-256 of the public key that the relay's certificate showed."""
        return self._spki

    @property
    def challenge(self) -> Challenge:
        """The relay's opening message."""
        assert self._challenge is not None, "the link is not open"
        return self._challenge

    async def open(self) -> None:
        """Takes in the challenge and starts the heartbeat; raises NetworkError."""
        opening = await self.receive()
        if isinstance(opening, Goodbye):
            raise RelayUnreachable(f"The relay {self._relay.endpoint} turned us away: {opening.message}")
        assert isinstance(opening, Challenge), "the table of turns lets nothing else open"
        if opening.version != PROTOCOL_VERSION:
            raise ProtocolViolation(
                f"The relay speaks version {opening.version} of the protocol, we speak {PROTOCOL_VERSION}.",
                "Update chatchain."
                if opening.version > PROTOCOL_VERSION
                else "Ask the relay's operator to update it.",
            )
        self._challenge = opening
        self._beat = asyncio.create_task(self._heartbeat())

    async def send(self, message: ClientMessage) -> None:
        """Writes one message, waiting while the relay is slow; raises NetworkError when the link has
        ended.
        """
        if self._connection.state is State.CLOSED:
            raise self._ended()
        self._writer.write(self._connection.send(message))
        try:
            await self._writer.drain()
        except OSError as error:
            raise self._ended() from error

    async def receive(self) -> RelayMessage:
        """Gives the next message that is not a heartbeat; raises NetworkError when the link ends.

        May be cancelled: nothing that has arrived is lost.
        """
        while True:
            while self._messages:
                message = self._messages.popleft()
                if isinstance(message, Ping):
                    self._answer(message)
                elif not isinstance(message, Pong):
                    return cast(RelayMessage, message)
            if self._violation is not None:
                raise self._violation
            self._take_in(await self._read())

    async def close(self) -> None:
        """Ends the link; never raises."""
        if self._beat is not None:
            self._beat.cancel()
        self._connection.close()
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.TimeoutError):
            self._writer.close()
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
                return
        self._writer.transport.abort()  # a relay that does not say goodbye keeps no socket of ours
        await asyncio.sleep(0)

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(deadlines.SILENCE):
                data = await self._reader.read(CHUNK)
        except TimeoutError as error:
            raise NetworkError(f"The relay {self._relay.endpoint} has fallen silent.") from error
        except (OSError, ssl.SSLError) as error:
            raise self._ended() from error
        if not data:
            raise self._ended()
        return data

    def _take_in(self, data: bytes) -> None:
        try:
            self._messages.extend(self._connection.receive_data(data))
        except ProtocolViolation as violation:  # told once what came before it has been given out
            self._violation = violation

    def _answer(self, ping: Ping) -> None:
        # Not drained: waiting here for a relay that waits for us to read would stop both. One that asks on
        # and on and takes no answer is let go before the answers fill the memory.
        if self._writer.transport.get_write_buffer_size() > WRITE_QUEUE:
            self._connection.close()
            self._writer.transport.abort()
            raise ProtocolViolation(f"The relay {self._relay.endpoint} does not read what it asks for.")
        if self._connection.state is not State.CLOSED:
            self._writer.write(self._connection.send(Pong(ping.nonce)))

    async def _heartbeat(self) -> None:
        for nonce in range(1, 2**62):
            await asyncio.sleep(deadlines.HEARTBEAT)
            if self._connection.state is State.CLOSED or self._writer.is_closing():
                return
            self._writer.write(self._connection.send(Ping(nonce)))

    def _ended(self) -> NetworkError:
        return NetworkError(
            f"The connection to the relay {self._relay.endpoint} has ended.",
            "The next command connects again; what was not confirmed is sent again.",
        )


async def dial(relays: Sequence[RelayAddress]) -> RelayLink:
    """Opens a link to the first relay that answers with the right certificate.

    Raises CertificateMismatch at once when one shows a key that the chain does not name, and
    RelayUnreachable when none answers.
    """
    failures = []
    for relay in relays:
        try:
            return await _dial_one(relay)
        except RelayUnreachable as error:
            failures.append(error.message)
    raise RelayUnreachable(" ".join(failures) or "The Directory names no relay.")


async def _dial_one(relay: RelayAddress) -> RelayLink:
    try:
        host, port = split_endpoint(relay.endpoint)
        async with asyncio.timeout(deadlines.HANDSHAKE):
            reader, writer = await asyncio.open_connection(host, port, ssl=client_context(), limit=2 * CHUNK)
    except (OSError, ssl.SSLError, ValueError) as error:  # TimeoutError is an OSError
        raise RelayUnreachable(f"The relay {relay.endpoint} does not answer: {_why(error)}.") from error
    link = None
    try:
        spki = _checked(relay, writer)
        link = RelayLink(relay, spki, reader, writer)
        async with asyncio.timeout(deadlines.HANDSHAKE):
            await link.open()
    except BaseException as error:
        writer.transport.abort()
        if isinstance(error, TimeoutError):
            raise RelayUnreachable(
                f"The relay {relay.endpoint} accepts connections and says nothing."
            ) from error
        if type(error) is NetworkError:  # it hung up before its challenge: as good as not there
            raise RelayUnreachable(error.message) from error
        raise
    return link


def _checked(relay: RelayAddress, writer: asyncio.StreamWriter) -> bytes:
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    spki = spki_of(certificate)
    named = [pin for pin in (relay.spki, relay.next_spki) if any(pin)]
    if not any(hmac.compare_digest(spki, pin) for pin in named):
        expected = " or ".join(map(fingerprint, named)) or "none"
        raise CertificateMismatch(
            f"The relay {relay.endpoint} shows a certificate with the key {fingerprint(spki)}; "
            f"the chain names {expected}."
        )
    return spki


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Reads `host:port` or `[v6]:port`; raises ValueError."""
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("its address on the chain is not host:port")
    return host.strip("[]"), int(port)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it cannot be reached in time"
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(error, socket.gaierror):
        return "its host name is unknown"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS 1.3"
    return (error.strerror if isinstance(error, OSError) else str(error)) or "the connection broke off"


# --- the relay's side -----------------------------------------------------------------------------------


class Handler(Protocol):
    """What a relay does with its connections; every method is called on the loop and must not block."""

    def opened(self, peer: Peer) -> None:
        """A TLS handshake is done; the handler sends the challenge."""

    def received(self, peer: Peer, message: Message) -> None:
        """One message of the peer, heartbeats and what is to be stored excepted."""

    def submitted(self, peer: Peer, inbox: deque[Message]) -> None:
        """What is to be stored stands at the front of what the peer has said: takes of it what can be served
        now, one message at least.
        """

    def violated(self, peer: Peer, violation: ProtocolViolation) -> None:
        """The peer broke the protocol; `closed` follows."""

    def writable(self, peer: Peer) -> None:
        """A peer that was slow has caught up."""

    def closed(self, peer: Peer) -> None:
        """The connection is gone; told exactly once for every `opened`."""


class Gate:
    """Counts connections, and per address those that have not logged in, against their limits.

    Where an address, or the relay, has no room left, the connection that has said nothing for longest gives
    way: whoever opens many and stays silent keeps out nobody who has something to say.
    """

    def __init__(self, connections: int, strangers_per_address: int) -> None:
        self._connections = connections
        self._per_address = strangers_per_address
        self._strangers: dict[Peer, None] = {}  # the oldest first
        self._at: dict[str, dict[Peer, None]] = {}  # the same, by address
        self.open = 0

    def enter(self, peer: Peer) -> bool:
        """Counts a newcomer in, unless all places, or all of its address's, are taken or being served."""
        neighbours = self._at.get(peer.address, {})
        for crowd, crowded in (
            (neighbours, len(neighbours) >= self._per_address),
            (self._strangers, self.open >= self._connections),
        ):
            if crowded:
                silent = next((stranger for stranger in crowd if not stranger.held), None)
                if silent is None:
                    return False
                self.known(silent)
                silent.abort()
                break
        self.open += 1
        self._strangers[peer] = None
        self._at.setdefault(peer.address, {})[peer] = None
        return True

    def known(self, peer: Peer) -> None:
        """This one is no longer a stranger."""
        self._strangers.pop(peer, None)
        neighbours = self._at.get(peer.address, {})
        neighbours.pop(peer, None)
        if not neighbours:
            self._at.pop(peer.address, None)

    def leave(self, peer: Peer) -> None:
        """Counts one out."""
        self.open -= 1
        self.known(peer)


class _Limited(Protocol):
    """What asyncio's and uvloop's TLS transports have besides what asyncio.Transport says."""

    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """From how many bytes that nobody has read on no more are taken in, and until when."""


class Peer(asyncio.BufferedProtocol):
    """A client as the relay sees it: decoded messages in, a bounded queue out."""

    __slots__ = (
        "_connection",
        "_farewell",
        "_frame_began",
        "_gate",
        "_handler",
        "_holds",
        "_inbox",
        "_intake",
        "_outgoing",
        "_room",
        "_stopped",
        "_stopped_at",
        "_transport",
        "address",
        "asked",
        "deadline",
        "handshake",
        "heard",
        "session",
        "slow",
        "was_opened",
    )

    def __init__(self, handler: Handler, gate: Gate, intake: Intake, address: str, room: memoryview) -> None:
        """`room` is where bytes come, its own until `buffer_updated` has copied them."""
        self.address = address
        self.session: object = None
        """Whatever the handler remembers about this peer."""
        self.slow = False
        """Whether the peer leaves so much unread that it is given nothing more for now."""
        self.was_opened = False
        self.handshake: asyncio.Task[None] | None = None
        """What brings the connection about, while it does."""
        self.heard = 0.0
        """Loop time of the last byte from the peer."""
        self.asked = 0.0
        """Loop time of the last Ping to it."""
        self.deadline = 0.0
        """Loop time by which the login must hold; 0 once it does."""
        self._handler = handler
        self._gate = gate
        self._intake = intake
        self._room = room
        self._connection = Connection(Role.RELAY)
        self._transport: asyncio.Transport | None = None
        self._inbox: deque[Message] = deque()
        self._outgoing = bytearray()
        self._holds = 0
        self._stopped = False  # whether nothing more is taken in
        self._stopped_at = 0.0
        self._frame_began = 0.0  # loop time, without what passed while nobody read; 0: there is none
        self._farewell: asyncio.TimerHandle | None = None  # cuts a peer that does not read the last words

    @property
    def state(self) -> State:
        """How far the conversation has come."""
        return self._connection.state

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake is done."""
        self.was_opened = True
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        loop = asyncio.get_running_loop()
        self.heard = loop.time()
        self.deadline = self.heard + deadlines.LOGIN
        self._handler.opened(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where TLS puts what it reads."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came."""
        self.data_received(bytes(self._room[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Bytes came: decode, answer heartbeats, hand the rest on in order.

        Messages to be stored are handed on together, any other before the next is decoded, for the state may
        change by it.
        """
        self.heard = asyncio.get_running_loop().time()
        inbox = self._inbox  # bounded: reading is paused while the peer is held, so at most one read's worth
        try:
            for message in self._connection.receive_data(data):
                if type(message) is Submit:
                    inbox.append(message)
                elif not isinstance(message, _HEARTBEATS):
                    inbox.append(message)
                    self._hand_on()
                elif isinstance(message, Ping):
                    self.send(Pong(message.nonce))
        except ProtocolViolation as violation:
            # Dealt with here: kept longer, it and this call would keep each other, and all of the connection.
            self._hand_on()
            self._refuse(violation)
        else:
            self._hand_on()
        left = self._connection.buffered
        if left or self._frame_began:
            self._mind_frame(left, anew=left <= len(data))
        self._intake.took(self, len(data) + left)

    def pause_writing(self) -> None:
        """Too much lies unread: stop listening to the peer as well, so that no answers pile up."""
        self.slow = True
        self._adjust_reading()

    def resume_writing(self) -> None:
        """The peer has read most of it."""
        self.slow = False
        self._adjust_reading()
        self._handler.writable(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._connection.close()
        self._inbox.clear()
        self._transport = None
        if self._farewell is not None:  # else it would keep all that belonged to the connection
            self._farewell.cancel()
        self._gate.leave(self)
        self._intake.leave(self)
        self._handler.closed(self)

    # --- called by the handler ---

    def send(self, message: Message) -> None:
        """Queues one message, or does nothing on a closed connection.

        What is queued in one turn of the loop leaves as one TLS record. A peer with more than 1 MiB unread is
        cut off.
        """
        if self._transport is not None and self._connection.state is not State.CLOSED:
            self._queue(self._connection.send(message))

    def send_frames(self, kind: type[Message], frames: bytes) -> None:
        """The same for frames that were made elsewhere, all of one kind."""
        if self._transport is not None and self._connection.state is not State.CLOSED:
            self._connection.require_turn(kind)
            self._queue(frames)

    def say_goodbye(self, code: str, message: str, retry_after_ms: int = 0) -> None:
        """Sends Goodbye and closes once it is written, or after a moment if the peer does not read."""
        if self._transport is None or self._connection.state is State.CLOSED:
            return
        self._inbox.clear()  # a device that was revoked, or has a newer connection, is not served any more
        self.send(Goodbye(code, message, retry_after_ms))
        self._finish()

    def abort(self) -> None:
        """Cuts the connection at once."""
        self._connection.close()
        if self._transport is not None:
            self._transport.abort()
        elif self.handshake is not None:
            self.handshake.cancel()

    @property
    def waits(self) -> bool:
        """Whether what this peer says is kept waiting by a `hold`."""
        return self._holds > 0

    @property
    def held(self) -> bool:
        """Whether the handler keeps this peer's messages waiting, or all that it might say."""
        return self._holds > 0 or not self._intake.lets(self)

    def overdue(self, now: float) -> bool:
        """Whether the frame that has begun should be there by now."""
        return (
            self._frame_began > 0
            and not self._stopped
            and now > self._frame_began + frame_seconds(self._connection.announced)
        )

    def hold(self) -> None:
        """Stops handing messages on (and reading) until a `release` for each `hold`."""
        self._holds += 1
        self._adjust_reading()

    def release(self) -> None:
        """Hands on what came meanwhile, in order, and reads again."""
        self._holds -= 1
        self._hand_on()
        self._adjust_reading()

    def logged_in(self) -> None:
        """The peer is a stranger no more: no deadline, and its address has room for another."""
        self.deadline = 0.0
        self._gate.known(self)

    def narrow(self) -> None:
        """Has the kernel queue little for this peer, who sends messages, and counts what it costs.

        What TLS once took in at a time is memory that it keeps as long as the connection lasts.
        """
        self._intake.enter(self)
        self.adjust()
        if self._transport is not None:
            connected = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it may be gone already
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_QUEUE)

    # --- called by the intake ---

    def adjust(self) -> None:
        """Reads, or stops, as all that was read allows by now."""
        self._adjust_reading()

    def give_way(self) -> None:
        """Ends the connection, whose frame has begun before all others'."""
        self.say_goodbye("relay_busy", "Too much is on its way to the relay.", BUSY_MS)

    # --- inside ---

    def _mind_frame(self, left: int, *, anew: bool) -> None:
        """So many bytes of a frame wait for the rest, which has to come in time."""
        if not left:
            self._frame_began = 0.0
            self._intake.finished(self)
            return
        if anew or not self._frame_began:
            self._frame_began = self.heard
        self._intake.begun(self, left, anew=anew)

    def _queue(self, frames: bytes) -> None:
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing += frames
        if len(self._outgoing) > WRITE_HIGH:
            self._flush()

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None:
            outgoing, self._outgoing = self._outgoing, bytearray()
            self._transport.write(outgoing)
            if self.slow and self._transport.get_write_buffer_size() > WRITE_QUEUE:
                self.abort()

    def _hand_on(self) -> None:
        inbox = self._inbox
        while inbox and not self._holds:
            if type(inbox[0]) is Submit:
                self._handler.submitted(self, inbox)
            else:
                self._handler.received(self, inbox.popleft())

    def _adjust_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        stopped = self._holds > 0 or self.slow or not self._intake.lets(self)
        if stopped == self._stopped:
            return
        self._stopped = stopped
        now = asyncio.get_running_loop().time()
        if stopped:
            self._stopped_at = now
            transport.pause_reading()
            self._take_in_nothing()
            # Once more when this turn is over: within `data_received` TLS goes on when that returns.
            asyncio.get_running_loop().call_soon(self._take_in_nothing)
        else:
            self.heard = now  # it could not be heard before: nobody listened
            if self._frame_began:
                self._frame_began += now - self._stopped_at
            cast(_Limited, transport).set_read_buffer_limits()
            transport.resume_reading()

    def _take_in_nothing(self) -> None:
        """Else TLS would take in half a MiB that nobody reads."""
        if self._stopped and self._transport is not None and not self._transport.is_closing():
            limited = cast(_Limited, self._transport)
            limited.set_read_buffer_limits()  # with nothing taken in, each 0 takes the one before back
            limited.set_read_buffer_limits(0, 0)

    def _refuse(self, violation: ProtocolViolation) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._flush()
            # The connection's state is closed by now, so the farewell is framed here.
            self._transport.write(frame(Goodbye(violation.code, violation.message, 0)))
            self._finish()
        self._handler.violated(self, violation)

    def _finish(self) -> None:
        self._flush()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        cast(_Limited, transport).set_read_buffer_limits()  # the peer's own farewell must come through
        transport.close()
        self._farewell = asyncio.get_running_loop().call_later(deadlines.HANDSHAKE, transport.abort)


class Listener:
    """Accepts TLS connections on one address and hands each to the handler as a `Peer`."""

    def __init__(
        self,
        handler: Handler,
        context: ssl.SSLContext,
        *,
        connections: int = 10_000,
        strangers_per_address: int = 256,
        proxies: Sequence[Network] = (),
        intake: Intake | None = None,
    ) -> None:
        """`proxies` must introduce their clients (PROXY protocol, version 2); nobody else can. What all
        connections of the process send counts in `intake`.
        """
        self._handler = handler
        self._context = context
        self._proxies = tuple(proxies)
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.gate = Gate(connections, strangers_per_address)
        self._intake = intake or Intake()
        self._room = memoryview(bytearray(READ_ROOM))

    async def start(self, host: str, port: int, *, shared: bool = False) -> int:
        """Binds and accepts; gives the port (a free one for 0). `shared` lets several processes bind it."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                self._sockets.append(_bound(family, (address[0], port, *address[2:]), shared=shared))
                port = self._sockets[0].getsockname()[1]
        except OSError:
            self.stop()
            raise
        for listening in self._sockets:
            self._spawn(self._accept(listening))
        return port

    def stop(self) -> None:
        """Accepts no more; the connections that are open stay."""
        for task in self._tasks:
            task.cancel()
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError:  # the peer left already, or file descriptors ran out: neither ends the relay
                await asyncio.sleep(0.05)
                continue
            if self._proxies and _within(address[0], self._proxies):
                self._spawn(self._introduce(accepted, address[0]))
            else:
                self._admit(accepted, address[0])

    def _admit(self, accepted: socket.socket, address: str) -> None:
        peer = Peer(self._handler, self.gate, self._intake, _subject(address), self._room)
        if self.gate.enter(peer):
            peer.handshake = self._spawn(self._welcome(accepted, peer))
        else:
            accepted.close()

    async def _introduce(self, accepted: socket.socket, proxy_address: str) -> None:
        """Learns from a proxy whom it speaks for."""
        try:
            async with asyncio.timeout(deadlines.HANDSHAKE):
                fixed = await _exactly(accepted, proxy.FIXED)
                rest = await _exactly(accepted, proxy.following(fixed))
            address = proxy.client_of(fixed, rest) or proxy_address
        except (OSError, ProtocolViolation):  # TimeoutError is an OSError
            accepted.close()
        except asyncio.CancelledError:
            accepted.close()
            raise
        else:
            self._admit(accepted, address)

    async def _welcome(self, accepted: socket.socket, peer: Peer) -> None:
        try:
            with contextlib.suppress(OSError):  # it may be gone already
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a tick must not wait
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: peer,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=deadlines.HANDSHAKE,
                ssl_shutdown_timeout=deadlines.HANDSHAKE,
            )
        except OSError:  # no TLS 1.3, or nothing said in time; ssl.SSLError and TimeoutError are OSErrors
            pass
        finally:
            peer.handshake = None
            if not peer.was_opened:
                self.gate.leave(peer)


def _bound(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening


async def _exactly(accepted: socket.socket, count: int) -> bytes:
    """So many bytes and not one more, which would be TLS's."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(accepted, count - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


def _within(host: str, networks: Sequence[Network]) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    return any(address in network for network in networks)


def _subject(host: str) -> str:
    """What an address counts as: itself, or for IPv6 its /64, which one subscriber holds whole.

    A proxy that listens on IPv6 may write IPv4 addresses as part of one /64: these are many subscribers.
    """
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
