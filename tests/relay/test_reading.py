"""Many connections are read into one place, held and released, cut and sent away in each other's turns.

Whatever a handler does in a turn, each connection's bytes are its own, come in order and come all.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest
import uvloop

from chatchain import transport
from chatchain.errors import ProtocolViolation
from chatchain.model import Delivery
from chatchain.transport import Listener, Peer, server_context
from chatchain.wire.connection import frame
from chatchain.wire.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    Challenge,
    Deliver,
    Login,
    Message,
    Welcome,
)
from deploy import certificates
from tests.relay.fileserver import until

CONNECTIONS: Final = 12
MESSAGES: Final = 1_500
DOOMED: Final = 4
"""Every so many may be cut or sent away."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> certificates.Pair:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


class Mischief:
    """A handler that does to its connections whatever one may, at any time, from within any other's turn."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.greeted: list[Peer] = []
        self.peers: dict[int, Peer] = {}
        self.got: dict[int, list[int]] = {}
        self.gone: set[int] = set()
        self.wrong: list[object] = []
        self.holds = 0

    def opened(self, peer: Peer) -> None:
        self.greeted.append(peer)
        peer.send(Challenge(PROTOCOL_VERSION, bytes(32), 31337, bytes(20), 0))

    def received(self, peer: Peer, message: Message) -> None:
        if isinstance(message, Login):
            peer.session = message.uid
            self.peers[message.uid], self.got[message.uid] = peer, []
            peer.logged_in()
            peer.send(Welcome(message.uid, 0, 0))
            return
        assert isinstance(message, Acknowledge)
        who, number = divmod(message.sequences[0], MESSAGES)
        if {who, *message.sequences[1:]} != {peer.session}:
            self.wrong.append((peer.session, message))
        self.got[who].append(number)
        self._meddle(peer, self._chance.choice([peer, *self.peers.values()]))

    def _meddle(self, peer: Peer, other: Peer) -> None:
        loop = asyncio.get_running_loop()
        doomed = all(isinstance(one.session, int) and one.session % DOOMED == 0 for one in (peer, other))
        match self._chance.randrange(2_000):
            case number if number < 20:
                self._hold(other)
                match self._chance.randrange(3):
                    case 0:
                        self._release(other)
                    case 1:
                        loop.call_soon(self._release, other)
                    case 2:
                        loop.call_later(self._chance.random() / 50, self._release, other)
            case number if number < 25:  # again in the same turn
                for _ in range(2):
                    self._hold(other)
                    self._release(other)
                self._hold(other)
                loop.call_soon(self._release, other)
            case number if number < 30:
                size = self._chance.randrange(1_000, 200_000)
                other.send(Deliver(Delivery(1, bytes(16), 1, 2, 1, 2, 0, b"h", bytes(size))))
            case 30 if doomed:
                other.abort()
            case 31 if doomed:
                other.say_goodbye("revoked", "This device was revoked.")

    def _hold(self, peer: Peer) -> None:
        self.holds += 1
        peer.hold()

    def _release(self, peer: Peer) -> None:
        self.holds -= 1
        peer.release()

    def submitted(self, peer: Peer, inbox: deque[Message]) -> None:
        self.wrong.append(inbox.popleft())

    def violated(self, peer: Peer, violation: ProtocolViolation) -> None:
        self.wrong.append(violation)

    def writable(self, peer: Peer) -> None:
        pass

    def closed(self, peer: Peer) -> None:
        assert isinstance(peer.session, int)
        self.gone.add(peer.session)
        self.peers.pop(peer.session)


async def talk(port: int, who: int, chance: random.Random, heard: Callable[[], bool]) -> None:
    """Logs in and says all it has in pieces of any length, while it reads what comes; until it is heard."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=transport.client_context())
    reading = asyncio.create_task(_read(reader, chance))
    writer.write(frame(Login(who, 1, 0, b"", bytes(65), bytes(65))))
    with contextlib.suppress(OSError):
        said = bytearray()
        for number in range(MESSAGES):
            said += frame(Acknowledge((who * MESSAGES + number, *[who] * chance.choice([0, 1, 50, 200]))))
            if chance.randrange(50) == 0:
                cut = chance.randrange(len(said) + 1)
                writer.write(bytes(said[:cut]))
                del said[:cut]
                await (writer.drain() if chance.randrange(3) else asyncio.sleep(chance.random() / 200))
        writer.write(bytes(said))
        await writer.drain()
    await until(heard)
    writer.transport.abort()
    await reading


async def _read(reader: asyncio.StreamReader, chance: random.Random) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(chance.choice([10, 1_000, 100_000])):
            if chance.randrange(20) == 0:
                await asyncio.sleep(chance.random() / 50)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_each_connection_s_bytes_are_its_own_whatever_is_done_in_whose_turn(
    loop: Callable[[], asyncio.AbstractEventLoop], pair: certificates.Pair
) -> None:
    """None is mixed in, lost, doubled, out of order or left unread once nobody holds it any more."""
    chance = random.Random(1)

    async def run() -> Mischief:
        handler = Mischief(chance)
        listener = Listener(handler, server_context(str(pair.certificate), str(pair.key)))
        port = await listener.start("127.0.0.1", 0)

        def heard(who: int) -> bool:
            return who in handler.gone or len(handler.got.get(who, [])) == MESSAGES

        async with asyncio.timeout(60):
            await asyncio.gather(
                *(talk(port, who, chance, partial(heard, who)) for who in range(1, 1 + CONNECTIONS))
            )
        await until(lambda: not handler.holds and not listener.gate.open)
        listener.stop()
        return handler

    with asyncio.Runner(loop_factory=loop) as runner:
        handler = runner.run(run())
    assert handler.wrong == []
    for who, numbers in handler.got.items():
        assert numbers == list(range(len(numbers))), who
        assert len(numbers) == MESSAGES or who % DOOMED == 0


async def test_what_one_listener_reads_another_does_not_touch(pair: certificates.Pair) -> None:
    """Their loops may run in different threads, one reading while the other's bytes are being copied."""
    chance = random.Random(1)
    listeners = []
    for _ in range(2):
        handler = Mischief(chance)
        listener = Listener(handler, server_context(str(pair.certificate), str(pair.key)))
        port = await listener.start("127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=transport.client_context())
        listeners.append((listener, handler, writer))
    await until(lambda: all(handler.greeted for _, handler, _ in listeners))
    peers = [handler.greeted[0] for _, handler, _ in listeners]
    logins = [frame(Login(who, 1, 0, b"", bytes(65), bytes(65))) for who in (1, 2)]
    for peer, login in zip(peers, logins, strict=True):
        peer.get_buffer(-1)[: len(login)] = login
    for peer, login in zip(peers, logins, strict=True):
        peer.buffer_updated(len(login))
    assert [peer.session for peer in peers] == [1, 2]
    for listener, _, writer in listeners:
        writer.transport.abort()
        listener.stop()
    await until(lambda: not any(listener.gate.open for listener, _, _ in listeners))
