"""Sending, receiving and looking back: the streams of messages between a station and a person.

`send` feeds the outbox and tells each message's outcome; `receive` feeds the inbox and tells what is new. A
message counts as shown once the one who asked has come back for more, so a crash shows it again rather than
never.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Final

from chatchain.client.outbox import Outcome, written
from chatchain.client.session import Session
from chatchain.client.showing import message_id, problem_of, time_text
from chatchain.client.station import Desk, Patience, Station, known_contact
from chatchain.client.views import Sent, Shown
from chatchain.crypto import content as contents
from chatchain.errors import (
    BadText,
    CertificateMismatch,
    ChainError,
    ChainUnreachable,
    ChatchainError,
    LimitReached,
    NetworkError,
    NoTick,
    TooLarge,
    UnknownMessage,
    UsageError,
)
from chatchain.model import DeviceId, Direction, MessageState, StoredMessage, Uid, User

CHUNK: Final = 128
"""Texts that are stored in one transaction, and deliveries that are."""

AHEAD: Final = 512
"""Own messages that may wait for their verdict before more input is read."""

QUIET_S: Final = 2.0
"""A mailbox that announced more than it delivers counts as empty after this long."""

Texts = str | Iterable[str] | AsyncIterable[str]


# --- out ------------------------------------------------------------------------------------------------


async def send(station: Station, to: str, texts: Texts, wait_s: float) -> AsyncIterator[Sent]:
    """Sends each text to one peer; see `Client.send`."""
    if isinstance(texts, str):
        contents.text(texts)
    try:
        desk = await station.desk()
        peer = await desk.people.find(to)
        if peer.uid == desk.own.uid:
            raise UsageError("That is you; a message needs somebody else.")
        await desk.outbox.check(peer)
    except ChainUnreachable as away:
        async for sent in _kept(station, to, texts, away):
            yield sent
        return
    with made_up_for_later():
        await station.connect()
    keeper = asyncio.create_task(station.keep_connected())
    sending = _Sending(station, desk, peer, wait_s)
    try:
        async with aclosing(_chunks(texts)) as chunks:
            async for sent in sending.run(chunks):
                yield sent
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    if sending.error is not None:
        raise sending.error


async def _kept(station: Station, to: str, texts: Texts, away: ChainUnreachable) -> AsyncIterator[Sent]:
    """Without the chain, keeps texts for somebody whom this home knows, and raises in the end.

    They are not sealed: whose keys are whose is asked of the chain by the session that sends them.
    """
    account = station.home.require_account()
    store = await station.store()
    contact = known_contact(store, to)
    if contact is None:
        raise ChainUnreachable(
            away.message, f"Nothing was kept: this home has not written with {to} before. {away.hint}"
        ) from away
    kept = ChainUnreachable(
        away.message, f"What you wrote is kept; the next command that connects sends it. {away.hint}"
    )
    async with aclosing(_chunks(texts)) as chunks:
        async for chunk in chunks:
            good, flaw = _good(chunk)
            messages, outgoing = written(
                Uid(account.uid), DeviceId(account.device), contact.uid, good, station.now_ms()
            )
            store.queue(messages, outgoing)
            for message in messages:
                yield Sent(
                    id=message.id.hex(),
                    to=contact.username,
                    state=MessageState.QUEUED.value,
                    time=time_text(message.time_ms),
                    error=problem_of(kept),
                )
            if flaw is not None:
                raise flaw
    raise kept from away


class _Sending:
    """One run of `send`: input on one side, verdicts on the other, neither in the other's way."""

    def __init__(self, station: Station, desk: Desk, peer: User, wait_s: float) -> None:
        self._station = station
        self._desk = desk
        self._peer = peer
        self._wait_s = wait_s
        self._waiting: deque[tuple[StoredMessage, float]] = deque()
        self.error: ChatchainError | None = None
        """What to raise in the end: a flaw of the input, else the first message that did not get through."""

    async def run(self, chunks: AsyncGenerator[list[str], None]) -> AsyncIterator[Sent]:
        """Takes texts in while they come, and gives messages out in order as their verdicts come."""
        following: asyncio.Task[list[str] | None] | None = asyncio.create_task(_next(chunks))
        flaw: ChatchainError | None = None
        try:
            while following is not None or self._waiting:
                if following is not None and len(self._waiting) <= AHEAD:
                    await self._either(following)
                    if following.done():
                        flaw = await self._taken(following)
                        over = flaw is not None or following.result() is None
                        following = None if over else asyncio.create_task(_next(chunks))
                while self._waiting and (following is None or self._told() or len(self._waiting) > AHEAD):
                    yield await self._settled(*self._waiting.popleft())
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
        self.error = flaw or self.error

    def _told(self) -> bool:
        return self._desk.outbox.outcome(self._waiting[0][0].id).done()

    async def _either(self, following: asyncio.Task[list[str] | None]) -> None:
        """Waits for more input or for the first verdict that is due."""
        until: set[asyncio.Future[Any]] = {following}
        if self._waiting:
            until.add(self._desk.outbox.outcome(self._waiting[0][0].id))
        await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)

    async def _taken(self, following: asyncio.Task[list[str] | None]) -> ChatchainError | None:
        """Stores what was read up to the first text that cannot be sent, and says why it cannot."""
        try:
            texts = following.result()
        except ChatchainError as broken:  # the source itself failed
            return broken
        good, flaw = _good(texts or ())
        if good:
            self._desk.people.remember(self._peer)
            now = asyncio.get_running_loop().time()
            stored = await self._desk.outbox.add(self._peer, good, self._session())
            self._waiting.extend((message, now) for message in stored)
        return flaw

    def _session(self) -> Session | None:
        session = self._station.session
        return session if session is not None and session.alive else None

    async def _settled(self, message: StoredMessage, since: float) -> Sent:
        """Waits for the verdict about one message, as long as verdicts keep coming."""
        outbox, loop = self._desk.outbox, asyncio.get_running_loop()
        future = outbox.outcome(message.id)
        while not future.done():
            offline = self._station.offline
            left = max(since, outbox.progress) + self._wait_s - loop.time()
            if left <= 0 or (offline is not None and _is_final(offline)):
                break
            await asyncio.wait([future], timeout=min(left, 0.25) if offline else left)
        if future.done():
            outcome = future.result()
        else:
            silence = NoTick("The relay has not confirmed in time.")
            outcome = Outcome(MessageState.QUEUED, self._station.offline or silence)
        outbox.forget(message.id)
        self.error = self.error or outcome.error
        return Sent(
            id=message.id.hex(),
            to=self._peer.username,
            state=outcome.state.value,
            time=time_text(message.time_ms),
            error=problem_of(outcome.error) if outcome.error is not None else None,
        )


def _is_final(offline: ChatchainError) -> bool:
    """Whether connecting again makes no sense."""
    return isinstance(offline, CertificateMismatch) or not isinstance(offline, NetworkError)


@contextmanager
def made_up_for_later() -> Iterator[None]:
    """Lets a failing network pass where a later attempt makes up for it; a wrong certificate never passes."""
    try:
        yield
    except CertificateMismatch:
        raise
    except NetworkError:
        pass


async def _next(chunks: AsyncGenerator[list[str], None]) -> list[str] | None:
    return await anext(chunks, None)


async def _chunks(texts: Texts) -> AsyncGenerator[list[str], None]:
    """Texts in lists of up to CHUNK: from a stream, whatever is there when the last list was dealt with."""
    if isinstance(texts, str):
        yield [texts]
    elif isinstance(texts, AsyncIterable):
        async with aclosing(_streamed(texts)) as chunks:
            async for chunk in chunks:
                yield chunk
    else:
        chunk = []
        for text in texts:
            chunk.append(text)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


async def _streamed(texts: AsyncIterable[str]) -> AsyncGenerator[list[str], None]:
    queue: asyncio.Queue[str | None] = asyncio.Queue(AHEAD)

    async def read() -> None:
        try:
            async for text in texts:
                await queue.put(text)
        finally:
            await queue.put(None)

    reader = asyncio.create_task(read())
    try:
        over = False
        while not over:
            batch = [await queue.get()]
            while len(batch) < CHUNK and not queue.empty():
                batch.append(queue.get_nowait())
            over = None in batch
            if found := [text for text in batch if text is not None]:
                yield found
        await reader  # whatever failed in reading is told here
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


def _good(texts: Sequence[str]) -> tuple[list[str], ChatchainError | None]:
    """The texts up to the first that cannot be sent, and why it cannot."""
    good: list[str] = []
    for text in texts:
        try:
            contents.text(text)
        except (BadText, TooLarge) as flaw:
            return good, flaw
        good.append(text)
    return good, None


# --- in -------------------------------------------------------------------------------------------------


async def receive(station: Station, wait_s: float, follow: bool, count: int | None) -> AsyncIterator[Shown]:
    """Stores, acknowledges and yields what comes in; see `Client.receive`."""
    deadline = asyncio.get_running_loop().time() + wait_s
    desk = await station.desk()
    left, some = count, False
    async for shown in _left_over(station, desk, left):
        left, some = left - 1 if left is not None else None, True
        yield shown
    patience, loop = Patience(), asyncio.get_running_loop()
    while left is None or left > 0:
        since, session = loop.time(), None
        try:
            session, since = await station.connect(), loop.time()
            await session.receive()
            station.background(station.publish(session))
            while left is None or left > 0:
                wanted = CHUNK if left is None else min(CHUNK, left)
                fresh = await _batch(desk, session, wanted, deadline, follow=follow, some=some)
                if fresh is None:
                    return
                for message in fresh:
                    left, some = left - 1 if left is not None else None, True
                    yield await shown_of(station, message)
                    desk.unlocked.store.mark_shown(message.row, station.now_ms())
        except (NetworkError, ChainError, LimitReached) as broken:
            if (
                not follow
                or isinstance(broken, CertificateMismatch)
                or (not patience.failures and station.session is None)
            ):
                raise
            if session is not None:
                patience.ended(session, loop.time() - since)
            await asyncio.sleep(patience.pause_s(broken))


async def _left_over(station: Station, desk: Desk, count: int | None) -> AsyncIterator[Shown]:
    """What was stored and not yet shown when an earlier run ended."""
    left = count
    while batch := desk.unlocked.store.unshown(CHUNK if left is None else min(CHUNK, left)):
        for message in batch:
            yield await shown_of(station, message)
            desk.unlocked.store.mark_shown(message.row, station.now_ms())
        left = left - len(batch) if left is not None else None


async def _batch(
    desk: Desk, session: Session, wanted: int, deadline: float, *, follow: bool, some: bool
) -> list[StoredMessage] | None:
    """Takes the next deliveries in and gives what is new for a person; None when it is time to end."""
    loop = asyncio.get_running_loop()
    while True:
        empty = session.announced == 0 and session.idle
        if not follow and empty and (some or loop.time() >= deadline):
            return None
        patience = None if follow else max(deadline - loop.time(), QUIET_S if session.announced else 0.0)
        try:
            async with asyncio.timeout(patience):
                deliveries = await session.deliveries(wanted)
        except TimeoutError:
            session.announced = 0
            continue
        taken = await desk.inbox.take(deliveries)
        await session.acknowledge(taken.sequences)
        desk.outbox.queue_receipts()
        fresh = [message for message in taken.fresh if message.direction is Direction.IN]
        if fresh:
            return fresh


# --- back -----------------------------------------------------------------------------------------------


async def history(station: Station, peer: str, limit: int, before: str | None) -> list[Shown]:
    """The last messages with a peer; who looks has read them."""
    store = await station.store()
    uid = await station.uid_of(store, peer)
    row = None
    if before is not None:
        found = store.message(message_id(before))
        if found is None or found.peer != uid:
            raise UnknownMessage(
                f"There is no message {before} with {peer} here.", "`chatchain history --json` shows the ids."
            )
        row = found.row
    messages = store.history(uid, limit=max(limit, 1), before=row)
    if messages:
        store.mark_read(uid, messages[-1].row, station.now_ms())
    return [await shown_of(station, message, full=True) for message in messages]


async def search(station: Station, text: str, limit: int) -> list[Shown]:
    """Stored messages that contain every word, newest first."""
    words = text.split()
    if not words:
        raise UsageError("Say what to search for.")
    store = await station.store()
    return [await shown_of(station, found, full=True) for found in store.search(words, limit=max(limit, 1))]


async def shown_of(station: Station, message: StoredMessage, *, full: bool = False) -> Shown:
    """A stored message as people read it; `full` adds what history shows."""
    outgoing = message.direction is Direction.OUT
    peer = await station.name_of(message.peer)
    account = station.home.require_account()
    notice = message.kind == "notice"
    return Shown(
        id=message.id.hex(),
        kind=message.kind,
        time=time_text(message.time_ms),
        from_=account.username if outgoing else peer,
        from_uid=account.uid if outgoing else message.peer,
        text=None if notice else message.text,
        notice=message.text if notice else None,
        code=message.code or None,
        to=peer if outgoing else None,
        direction=message.direction.value if full else None,
        state=(message.state.value if message.state is not None else "received") if full else None,
    )
