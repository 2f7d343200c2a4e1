"""Messages that come in one piece are taken together, and yet each as if it had come alone."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from chatchain.errors import ProtocolViolation
from chatchain.model import Copy, Envelope
from chatchain.relay.allowance import Allowance
from chatchain.relay.limits import Rate
from chatchain.relay.quota import Quota
from chatchain.transport import Gate, Peer, RelayLink
from chatchain.wire.connection import State, frame
from chatchain.wire.intake import Intake
from chatchain.wire.messages import (
    Acknowledge,
    Challenge,
    Deliver,
    FetchKeys,
    Login,
    Message,
    Receive,
    Refused,
    StaleDevices,
    Submit,
    Tick,
    Welcome,
)
from tests.relay.here import Begin
from tests.relay.test_mailbox import ADA

STRANGER = 123_456_789_012_345


def envelope(number: int, body: bytes = b"body", *, to: int = ADA, version: int = 1) -> Envelope:
    return Envelope(number.to_bytes(16, "big"), 1, to, version, version, body, (Copy(to, 1, b"header"),))


async def told(link: RelayLink, *sent: Envelope) -> list[str]:
    """What the relay answers to envelopes in one write: for each its code, or that it ticks."""
    link._writer.write(b"".join(frame(Submit(each)) for each in sent))
    answers: dict[bytes, deque[str]] = {}
    for _ in sent:
        answer = await link.receive()
        assert isinstance(answer, Tick | Refused | StaleDevices), answer
        word = answer.code if isinstance(answer, Refused) else type(answer).__name__
        answers.setdefault(answer.id, deque()).append(word)
    return [answers[each.id].popleft() for each in sent]


async def arrived(link: RelayLink, count: int) -> list[int]:
    """The numbers of so many messages, in the order of their delivery."""
    await link.send(Receive(0))
    numbers = []
    for _ in range(count):
        deliver = await link.receive()
        assert isinstance(deliver, Deliver)
        numbers.append(int.from_bytes(deliver.delivery.id, "big"))
        await link.send(Acknowledge((deliver.delivery.sequence,)))
    return numbers


# --- through a relay ------------------------------------------------------------------------------------


async def test_a_write_of_many_is_ticked_and_delivered_in_order(begin: Begin) -> None:
    """More than one commit or one read takes."""
    here = await begin()
    link = await here.connect()
    assert await told(link, *(envelope(n, bytes(300)) for n in range(1_500))) == ["Tick"] * 1_500
    assert await arrived(link, 1_500) == list(range(1_500))
    await link.close()


async def test_one_of_many_that_is_refused_leaves_those_before_it(begin: Begin) -> None:
    """Those behind it would overtake it; who sends it again sends them again."""
    here = await begin()
    link = await here.connect()
    first, second, ahead, fourth = envelope(1), envelope(2), envelope(3, version=2), envelope(4)
    answers = await told(link, first, second, ahead, fourth)
    assert answers == ["Tick", "Tick", "relay_behind", "relay_behind"]
    assert await told(link, envelope(3), fourth) == ["Tick", "Tick"]
    assert await arrived(link, 4) == [1, 2, 3, 4]
    await link.close()


async def test_recipients_are_judged_one_by_one(begin: Begin) -> None:
    """However they are mixed."""
    here = await begin()
    link = await here.connect()
    mixed = [envelope(1), envelope(2, to=STRANGER), envelope(3), envelope(4), envelope(5, to=STRANGER)]
    assert await told(link, *mixed) == ["Tick", "unknown_user", "Tick", "Tick", "unknown_user"]
    strange = Envelope(bytes([6]) * 16, 1, ADA, 1, 1, b"", (Copy(ADA, 1, b""), Copy(STRANGER, 1, b"")))
    assert await told(link, envelope(7), strange, envelope(8)) == ["Tick", "bad_copies", "Tick"]
    assert await arrived(link, 5) == [1, 3, 4, 7, 8]
    await link.close()


async def test_a_mailbox_takes_of_many_what_there_is_room_for(begin: Begin) -> None:
    """And what had no room has taken none, of it or of what its sender may send."""
    here = await begin(Allowance(messages=Rate(burst=13, per_second=0.001), quota=Quota(sender_rows=5)))
    link = await here.connect()
    answers = await told(link, *(envelope(n) for n in range(8)))
    assert answers == ["Tick"] * 5 + ["limit_reached"] * 3
    assert await arrived(link, 5) == [0, 1, 2, 3, 4]
    assert await told(link, *(envelope(n) for n in range(5, 10))) == ["Tick"] * 5
    await link.close()


async def test_a_sender_may_send_of_many_what_a_limit_leaves(begin: Begin) -> None:
    """The first ones."""
    here = await begin(Allowance(messages=Rate(burst=3, per_second=0.001)))
    link = await here.connect()
    answers = await told(link, *(envelope(n) for n in range(8)))
    assert answers == ["Tick"] * 3 + ["limit_reached"] * 5
    assert await arrived(link, 3) == [0, 1, 2]
    await link.close()


async def test_one_that_comes_twice_among_many_is_stored_once(begin: Begin) -> None:
    """Both times ticked; another content under its id is refused."""
    here = await begin()
    link = await here.connect()
    answers = await told(link, envelope(1), envelope(2), envelope(1), envelope(2, b"another"), envelope(3))
    assert sorted(answers) == ["Tick", "Tick", "Tick", "Tick", "id_reused"]
    assert await arrived(link, 3) == [1, 2, 3]
    await link.close()


# --- what a connection hands on -------------------------------------------------------------------------


class Transport(asyncio.Transport):
    """Takes everything, and says nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


class Handler:
    """Notes what it is given, and holds the peer at some of it."""

    def __init__(self, hold_at: int = -1) -> None:
        self.given: list[list[Message]] = []
        self.violations: list[ProtocolViolation] = []
        self._hold_at = hold_at

    def opened(self, peer: Peer) -> None:
        peer.send(Challenge(1, bytes(32), 31337, bytes(20), 0))

    def received(self, peer: Peer, message: Message) -> None:
        if isinstance(message, Login):
            peer.send(Welcome(1, 0, 0))
        else:
            self._note(peer, message)
            self.given.append([message])

    def submitted(self, peer: Peer, inbox: deque[Message]) -> None:
        taken: list[Message] = []
        while inbox and isinstance(inbox[0], Submit) and not peer.waits:
            taken.append(inbox.popleft())
            self._note(peer, taken[-1])
        self.given.append(taken)

    def _note(self, peer: Peer, message: Message) -> None:
        if isinstance(message, Submit) and message.envelope.id[-1] == self._hold_at:
            peer.hold()

    def violated(self, peer: Peer, violation: ProtocolViolation) -> None:
        self.violations.append(violation)

    def writable(self, peer: Peer) -> None:
        pass

    def closed(self, peer: Peer) -> None:
        pass


def connected(handler: Handler) -> Peer:
    """A peer whose login holds."""
    peer = Peer(handler, Gate(1, 1), Intake(), "127.0.0.1", memoryview(bytearray()))
    peer.connection_made(Transport())
    peer.data_received(frame(Login(ADA, 1, 0, b"", bytes(65), bytes(65))))
    assert peer.state is State.READY
    return peer


SAID: tuple[Message, ...] = (
    *(Submit(envelope(number)) for number in range(3)),
    FetchKeys(1, (ADA,)),
    *(Submit(envelope(number)) for number in range(3, 5)),
)


async def test_what_is_to_be_stored_is_handed_on_together() -> None:
    """As far as nothing else stands between, and in order."""
    handler = Handler()
    connected(handler).data_received(b"".join(map(frame, SAID)))
    assert handler.given == [list(SAID[:3]), [SAID[3]], list(SAID[4:])]


@pytest.mark.parametrize("hold_at", range(5))
async def test_who_is_held_is_handed_on_nothing_until_released(hold_at: int) -> None:
    """Wherever that falls; and then the rest, in order."""
    handler = Handler(hold_at)
    peer = connected(handler)
    peer.data_received(b"".join(map(frame, SAID)))
    before = [message for messages in handler.given for message in messages]
    assert before == list(SAID[: SAID.index(Submit(envelope(hold_at))) + 1])
    peer.data_received(frame(Submit(envelope(9))))
    assert [message for messages in handler.given for message in messages] == before
    peer.release()
    assert [message for messages in handler.given for message in messages] == [*SAID, Submit(envelope(9))]


async def test_what_came_before_a_breach_of_the_protocol_is_handed_on() -> None:
    """In the same piece as well."""
    handler = Handler()
    connected(handler).data_received(b"".join(map(frame, SAID)) + bytes(4))
    assert handler.given == [list(SAID[:3]), [SAID[3]], list(SAID[4:])]
    assert len(handler.violations) == 1
