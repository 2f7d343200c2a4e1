"""When a session tells its relay what is stored: at once or for many at a time, and nothing is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from chatchain.client import session as sessions
from chatchain.client.session import ACKNOWLEDGE_BYTES, ACKNOWLEDGE_MOST, Session
from chatchain.errors import ChatchainError, NetworkError
from chatchain.model import Delivery, RelayAddress
from chatchain.wire.messages import Acknowledge, Challenge, ClientMessage, Deliver, RelayMessage, Resumed

HOUR = 3600.0
PATIENCE = 60.0


class Line:
    """A link to a relay that says nothing and notes what it is told."""

    relay = RelayAddress("relay.example:1", bytes(32), bytes(32))
    spki = bytes(32)

    def __init__(self) -> None:
        self.heard: asyncio.Queue[ClientMessage] = asyncio.Queue()
        self.down = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()
        self.asked = asyncio.Event()

    @property
    def challenge(self) -> Challenge:
        raise AssertionError("nobody logs in here")

    async def send(self, message: ClientMessage) -> None:
        self.asked.set()
        await self.takes.wait()
        if self.down.is_set():
            raise NetworkError("The line is down.")
        self.heard.put_nowait(message)

    async def receive(self) -> RelayMessage:
        await self.down.wait()
        raise NetworkError("The line is down.")

    async def close(self) -> None:
        self.down.set()

    def told(self) -> list[tuple[int, ...]]:
        """The acknowledgements that have come since the last call."""
        found = []
        while not self.heard.empty():
            message = self.heard.get_nowait()
            assert isinstance(message, Acknowledge)
            found.append(message.sequences)
        return found


@pytest.fixture
def line() -> Line:
    """A line that stands."""
    return Line()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said because of the time."""
    monkeypatch.setattr(sessions, "ACKNOWLEDGE_S", HOUR)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never time at once, and always in a moment."""
    monkeypatch.setattr(Session, "_due_in", lambda _: 0.01)


@pytest.mark.usefixtures("patient")
async def test_a_delivery_that_comes_alone_is_acknowledged_at_once(line: Line) -> None:
    session = Session(line)
    await session.acknowledge((7,))
    assert line.told() == [(7,)]
    await session.close()
    assert line.told() == []


@pytest.mark.usefixtures("patient")
async def test_those_that_follow_wait_for_each_other(line: Line) -> None:
    session = Session(line)
    await session.acknowledge((1,))
    assert line.told() == [(1,)]
    for sequence in range(2, ACKNOWLEDGE_MOST + 1):
        await session.acknowledge((sequence,))
    assert line.told() == [], "one fewer than go at once"
    await session.acknowledge((ACKNOWLEDGE_MOST + 1,))
    assert line.told() == [tuple(range(2, ACKNOWLEDGE_MOST + 2))]
    await session.acknowledge((1000,))
    assert line.told() == []
    await session.close()
    assert line.told() == [(1000,)], "what is left goes before the end"


async def test_nobody_waits_for_ever(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ACKNOWLEDGE_S", 2.0)
    session = Session(line)
    for sequence in (1, 2, 3):
        await session.acknowledge((sequence,))
    assert await line.heard.get() == Acknowledge((1,))
    assert await line.heard.get() == Acknowledge((2, 3))
    monkeypatch.setattr(sessions, "ACKNOWLEDGE_S", 0.01)
    for sequence in (4, 5):  # and so it goes on
        await session.acknowledge((sequence,))
    heard = 0
    while heard != 5:
        message = await line.heard.get()
        assert isinstance(message, Acknowledge)
        heard = max(message.sequences)
    await session.close()
    assert line.told() == []


@pytest.mark.usefixtures("patient")
async def test_the_end_waits_for_no_relay_that_takes_nothing(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "FAREWELL_S", 0.01)
    session = Session(line)
    await session.acknowledge((1,))
    await session.acknowledge((2,))
    line.takes.clear()
    await session.close()
    assert line.down.is_set()
    assert line.told() == [(1,)]


async def test_a_line_that_breaks_meanwhile_is_reported_to_whoever_uses_it_next(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "ACKNOWLEDGE_S", 0.01)
    session = Session(line)
    await session.acknowledge((1,))
    await session.acknowledge((2,))
    line.down.set()
    await session.ended.wait()
    assert session._telling is not None
    await asyncio.wait([session._telling])
    assert session._telling.exception() is None, "nobody waits for that one"
    with pytest.raises(ChatchainError, match="line is down"):
        await session.acknowledge((3,))
    await session.close()


def large(sequence: int) -> Delivery:
    """Two of these, but not one, are as much as is acknowledged at once."""
    return Delivery(sequence, bytes(16), 1, 2, 1, 1, 1, b"header", bytes(ACKNOWLEDGE_BYTES * 2 // 3))


@pytest.mark.usefixtures("patient")
async def test_what_is_large_does_not_wait_for_many(line: Line) -> None:
    """A relay has no more than a few large ones on their way before it waits for their acknowledgement."""
    session = Session(line)
    session._dispatch(Resumed(1, 0))
    told = []
    for sequence in range(1, 6):
        session._dispatch(Deliver(large(sequence)))
        assert len(await session.deliveries(1)) == 1
        await session.acknowledge((sequence,))
        told.append(line.told())
    assert told == [[(1,)], [], [(2, 3)], [], [(4, 5)]]
    await session.close()


@pytest.mark.usefixtures("patient")
async def test_what_is_large_does_not_wait_because_something_older_was_said_meanwhile(line: Line) -> None:
    session = Session(line)
    session._dispatch(Resumed(1, 0))
    await session.acknowledge((1,))
    await session.acknowledge((2,))
    for sequence in (3, 4):
        session._dispatch(Deliver(large(sequence)))
    assert len(await session.deliveries(2)) == 2
    await session._acknowledge()  # as after a moment: while these are being stored
    assert line.told() == [(1,), (2,)]
    await session.acknowledge((3, 4))
    assert line.told() == [(3, 4)]
    await session.close()


@pytest.mark.usefixtures("soon")
async def test_what_is_stored_while_the_relay_takes_its_time_is_said_after_that(line: Line) -> None:
    session = Session(line)
    line.takes.clear()
    await session.acknowledge((1,))
    async with asyncio.timeout(PATIENCE):
        await line.asked.wait()
        await session.acknowledge((2,))
        line.takes.set()
        assert await line.heard.get() == Acknowledge((1,))
        assert await line.heard.get() == Acknowledge((2,))
    await session.close()


async def test_whoever_is_cancelled_while_the_relay_takes_its_time_leaves_nothing_unsaid(line: Line) -> None:
    session = Session(line)
    line.takes.clear()
    stored = asyncio.create_task(session.acknowledge((1, 2)))
    await line.asked.wait()
    stored.cancel()
    await asyncio.wait([stored])
    assert stored.cancelled()
    line.takes.set()
    async with asyncio.timeout(PATIENCE):
        assert await line.heard.get() == Acknowledge((1, 2))
    await session.close()


@pytest.mark.usefixtures("soon")
async def test_the_end_says_what_waits_for_its_turn(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another message is being sent when the time for the acknowledgement has come, and still at the end."""
    monkeypatch.setattr(sessions, "FAREWELL_S", HOUR)
    session, begun = Session(line), asyncio.Event()
    send = session._send

    async def noted(message: ClientMessage) -> None:
        begun.set()
        await send(message)

    monkeypatch.setattr(session, "_send", noted)
    async with asyncio.timeout(PATIENCE):
        async with session._writing:
            await session.acknowledge((1,))
            await begun.wait()
            end = asyncio.create_task(session.close())
            assert session._telling is not None
            await asyncio.wait([session._telling])
        await end
    assert line.told() == [(1,)]
