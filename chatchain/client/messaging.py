"""Sending, receiving and looking back: the streams of messages between a station and a person.

`send` feeds the outbox and tells each message's outcome; `receive` feeds the inbox and tells what is new. A
message counts as shown once the one who asked has come back for more, so a crash shows it again rather than
never.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from chatchain.client import files
from chatchain.client.inbox import Taken
from chatchain.client.outbox import Outcome, keep
from chatchain.client.packing import pack
from chatchain.client.ports import Store
from chatchain.client.privacy import privacy
from chatchain.client.session import Session, made_up_for_later
from chatchain.client.showing import TYPING, message_ids, problem_of, shown_of, typing_of
from chatchain.client.station import Desk, Station, known_contact, rest_s
from chatchain.client.takeover import noticed
from chatchain.client.times import time_text
from chatchain.client.views import Fetched, PendingRecovery, Sent, Shown
from chatchain.client.writing import Writer, Written
from chatchain.crypto import content as contents
from chatchain.crypto.content import TypingState
from chatchain.errors import (
    AmbiguousName,
    BadText,
    CertificateMismatch,
    ChainError,
    ChainUnreachable,
    ChatchainError,
    LimitReached,
    NetworkError,
    NoTick,
    RefusedError,
    UnknownMessage,
    UsageError,
)
from chatchain.model import Delivery, DeviceId, Direction, MessageState, Outgoing, StoredMessage, Uid, User

CHUNK: Final = 128
"""Texts that are stored in one transaction, and deliveries that are."""

AHEAD: Final = 512
"""Own messages that may wait for their verdict before more input is read."""

QUIET_S: Final = 2.0
"""A mailbox that announced more than it delivers counts as empty after this long."""

T = TypeVar("T")
LOOK_AGAIN_S: Final = 5.0
"""How often, at least, a program that runs looks for messages whose time is over."""

LOOK_OUT_S: Final = 60.0
"""How old the chain may get, at most, while somebody follows what comes in."""

SUPPLY_AGAIN_S: Final = 3600.0
"""How often a program that stays connected asks the relay whether it lacks prekeys, as a login does."""

Texts = str | Iterable[str] | AsyncIterable[str]


Act = Callable[[Writer], Written]
"""One thing that a person wants to be written, once it is known how the conversation is set."""


# --- out ------------------------------------------------------------------------------------------------


async def send(station: Station, to: str, texts: Texts, wait_s: float) -> AsyncIterator[Sent]:
    """Sends each text to one peer; see `Client.send`."""
    if isinstance(texts, str):
        contents.text(texts)
    async with aclosing(_chunks(texts)) as chunks:
        async for sent in _sent(station, to, chunks, _text, wait_s):
            yield sent


async def do(station: Station, to: str, act: Act, wait_s: float, about: bytes = b"") -> AsyncIterator[Sent]:
    """Writes and sends one thing that is no text of its own; `about` is the message that it is about."""
    if about:
        # What may not be done is said before anything is asked of a network.
        account, store = station.home.require_account(), await station.store()
        peer = store.peer(await station.uid_of(store, to))
        act(Writer(Uid(account.uid), DeviceId(account.device), peer, station.now_ms()))
    async with aclosing(_single(act)) as chunks:
        async for sent in _sent(station, to, chunks, lambda act: act, wait_s):
            yield msgspec.structs.replace(sent, id=about.hex(), change=sent.id) if about else sent


async def send_file(
    station: Station, to: str, path: Path, caption: str, keep_metadata: bool, wait_s: float
) -> AsyncIterator[Sent]:
    """Seals a file and sends it; the message leaves once the relay has the file."""
    contents.caption(caption)
    await station.open(exclusive=True)
    folder = station.files / "out"
    packed = await asyncio.to_thread(pack, path, folder, keep_metadata=keep_metadata)
    station.sealed.add(packed.blob)
    try:
        async for sent in do(station, to, lambda writer: writer.file(packed, caption), wait_s):
            yield sent
    finally:
        station.sealed.discard(packed.blob)
        files.forget_unless_waiting(await station.store(), folder, packed.blob)


async def fetch_file(station: Station, id: str, out: Path | None, overwrite: bool, preview: bool) -> Fetched:
    """Brings the file of a message here, or only its preview; see `Client.fetch_file`."""
    bring = files.bring_preview if preview else files.bring
    return await bring(station, find_message(await tidied(station), id), out, overwrite=overwrite)


async def reply(station: Station, id: str, text: str, wait_s: float) -> AsyncIterator[Sent]:
    """Answers a message."""
    store = await tidied(station)
    target = find_message(store, id)
    async for sent in do(station, str(target.peer), lambda writer: writer.reply(target, text), wait_s):
        yield sent


async def edit(station: Station, id: str, text: str, wait_s: float) -> AsyncIterator[Sent]:
    """Gives an own message another text."""
    store = await tidied(station)
    target = find_message(store, id, mine=True)
    versions = store.versions(target.row)
    async for sent in do(
        station, str(target.peer), lambda writer: writer.edit(target, text, versions), wait_s, target.id
    ):
        yield sent


async def delete(station: Station, id: str, wait_s: float) -> AsyncIterator[Sent]:
    """Takes an own message back."""
    store = await tidied(station)
    target = find_message(store, id, mine=True)
    async for sent in do(station, str(target.peer), lambda writer: writer.delete(target), wait_s, target.id):
        yield sent
    await files.discard(station, target)


async def react(station: Station, id: str, emoji: str, wait_s: float) -> AsyncIterator[Sent]:
    """Puts one emoji at a message, or takes it away."""
    store = await tidied(station)
    target = find_message(store, id)
    async for sent in do(
        station, str(target.peer), lambda writer: writer.reaction(target, emoji), wait_s, target.id
    ):
        yield sent


def find_message(store: Store, beginning: str, *, mine: bool = False) -> StoredMessage:
    """The message whose id begins so; raises UsageError, AmbiguousName, UnknownMessage.

    Whoever got a message can send another under the same id. Of those the one that came first is meant, or
    with `mine` one's own: nobody is to keep us from taking our words back.
    """
    first, last = message_ids(beginning)
    found = store.messages(first, last)
    if not found:
        raise UnknownMessage(
            f"There is no message {beginning} here.", "`chatchain history PEER --ids` shows the ids."
        )
    if len({one.id for one in found}) > 1:
        raise AmbiguousName(
            f"Several ids begin with {beginning}: {', '.join(one.id.hex() for one in found)}.",
            "Give more of its digits.",
        )
    own = [one for one in found if one.direction is Direction.OUT] if mine else []
    return (own or found)[0]


async def type_(station: Station, to: str, *, started: bool) -> bool:
    """Tells a peer that something is being typed, if a session stands; says whether one does.

    It is told now and then, and not at all where the person does not want it.
    """
    if station.session is None or not station.session.alive:
        return False
    desk = await station.desk()
    peer = await desk.people.find(to)
    now = asyncio.get_running_loop().time()
    if not privacy(desk.unlocked.store).typing or not station.typing.due(peer.uid, started=started, now=now):
        return True
    state = TypingState.STARTED if started else TypingState.STOPPED
    with suppress(ChatchainError):
        await desk.outbox.whisper(peer, contents.typing(state), station.session)
    return True


async def _sent(
    station: Station,
    to: str,
    chunks: AsyncGenerator[list[T], None],
    act: Callable[[T], Act],
    wait_s: float,
) -> AsyncIterator[Sent]:
    """Writes and sends things to one peer as they come, and tells each one's outcome."""
    try:
        desk = await station.desk()
        peer = await desk.people.find(to)
        if peer.uid == desk.own.uid:
            raise UsageError(
                "That is you; a message needs somebody else.", "`chatchain members` lists the others."
            )
        await desk.outbox.check(peer)
    except ChainUnreachable as away:
        async for sent in _kept(station, to, chunks, act, away):
            yield sent
        return
    with made_up_for_later():
        await station.connect()
    keeper = asyncio.create_task(station.keep_connected())
    sending = _Sending(station, desk, peer, act, wait_s)
    try:
        async for sent in sending.run(chunks):
            yield sent
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    if sending.error is not None:
        raise sending.error


async def _kept(
    station: Station,
    to: str,
    chunks: AsyncGenerator[list[T], None],
    act: Callable[[T], Act],
    away: ChainUnreachable,
) -> AsyncIterator[Sent]:
    """Without the chain, keeps things for somebody whom this home knows, and raises in the end.

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
    store.put_contact(msgspec.structs.replace(contact, met=True))
    async for chunk in chunks:
        peer = store.peer(contact.uid)
        writer = Writer(Uid(account.uid), DeviceId(account.device), peer, station.now_ms())
        good, flaw = _good(chunk, writer, act)
        keep(store, good, [one.outgoing for one in good])
        for one in good:
            yield Sent(
                id=one.outgoing.id.hex(),
                to=contact.username,
                state=MessageState.QUEUED.value,
                time=time_text(one.outgoing.time_ms),
                error=problem_of(kept),
            )
        if flaw is not None:
            raise flaw
    raise kept from away


class _Sending(Generic[T]):
    """One run of `send`: input on one side, verdicts on the other, neither in the other's way."""

    def __init__(
        self, station: Station, desk: Desk, peer: User, act: Callable[[T], Act], wait_s: float
    ) -> None:
        self._station = station
        self._desk = desk
        self._peer = peer
        self._act = act
        self._wait_s = wait_s
        self._waiting: deque[tuple[Outgoing, float]] = deque()
        self.error: ChatchainError | None = None
        """What to raise in the end: a flaw of the input, else the first message that did not get through."""

    async def run(self, chunks: AsyncGenerator[list[T], None]) -> AsyncIterator[Sent]:
        """Takes things in while they come, and gives messages out in order as their verdicts come."""
        following: asyncio.Task[list[T] | None] | None = asyncio.create_task(_next(chunks))
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

    async def _either(self, following: asyncio.Task[list[T] | None]) -> None:
        """Waits for more input or for the first verdict that is due."""
        until: set[asyncio.Future[Any]] = {following}
        if self._waiting:
            until.add(self._desk.outbox.outcome(self._waiting[0][0].id))
        await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)

    async def _taken(self, following: asyncio.Task[list[T] | None]) -> ChatchainError | None:
        """Stores what was read up to the first thing that cannot be sent, and says why it cannot."""
        try:
            things = following.result()
        except ChatchainError as broken:  # the source itself failed
            return broken
        desk, store = self._desk, self._desk.unlocked.store
        peer = store.peer(self._peer.uid)
        writer = Writer(desk.own.uid, desk.own.device, peer, self._station.now_ms())
        good, flaw = _good(things or (), writer, self._act)
        if good:
            desk.people.remember(self._peer)
            now = asyncio.get_running_loop().time()
            await desk.outbox.add(self._peer, introduced(store, writer) + good, self._session())
            self._waiting.extend((one.outgoing, now) for one in good)
        return flaw

    def _session(self) -> Session | None:
        session = self._station.session
        return session if session is not None and session.alive else None

    async def _settled(self, item: Outgoing, since: float) -> Sent:
        """Waits for the verdict about one message, as long as verdicts keep coming."""
        outbox, loop = self._desk.outbox, asyncio.get_running_loop()
        future = outbox.outcome(item.id)
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
        outbox.forget(item.id)
        self.error = self.error or outcome.error
        return Sent(
            id=item.id.hex(),
            to=self._peer.username,
            state=outcome.state.value,
            time=time_text(item.time_ms),
            error=problem_of(outcome.error) if outcome.error is not None else None,
        )


def _is_final(offline: ChatchainError) -> bool:
    """Whether connecting again makes no sense."""
    return isinstance(offline, CertificateMismatch) or not isinstance(offline, NetworkError)


def introduced(store: Store, writer: Writer) -> list[Written]:
    """The own display name, when the peer was told another one or none."""
    mine = store.peer(writer.uid)
    if mine.display_name == writer.peer.profile_sent:
        return []
    return [writer.profile(mine.display_name, mine.profile_ms)]


def _text(text: str) -> Act:
    return lambda writer: writer.text(text)


async def _single(act: Act) -> AsyncGenerator[list[Act], None]:
    yield [act]


async def _next(chunks: AsyncGenerator[list[T], None]) -> list[T] | None:
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


def _good(
    things: Sequence[T], writer: Writer, act: Callable[[T], Act]
) -> tuple[list[Written], ChatchainError | None]:
    """What is written, up to the first thing that cannot be, and why it cannot."""
    good: list[Written] = []
    for thing in things:
        try:
            good.append(act(thing)(writer))
        except (BadText, RefusedError) as flaw:
            return good, flaw
    return good, None


# --- in -------------------------------------------------------------------------------------------------


async def receive(
    station: Station,
    wait_s: float,
    follow: bool,
    count: int | None,
    typing: bool,
    outage: Callable[[ChatchainError | None], None],
    alarm: Callable[[PendingRecovery], None],
) -> AsyncIterator[Shown]:
    """Stores, acknowledges and yields what comes in; see `Client.receive`."""
    deadline = asyncio.get_running_loop().time() + wait_s
    desk = await station.desk()
    chores = [
        asyncio.create_task(_tidy(station, desk.unlocked.store)),
        asyncio.create_task(_keep_supplied(station)),
        asyncio.create_task(_look_out(station, alarm)),
    ]
    try:
        async with aclosing(_received(station, desk, deadline, follow, count, outage)) as stream:
            async for shown in stream:
                if typing or shown.kind != TYPING:
                    yield shown
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)


async def tidied(station: Station) -> Store:
    """The database without what has disappeared by now."""
    store = await station.store()
    station.purge(store)
    return store


async def _tidy(station: Station, store: Store) -> None:
    """Deletes what disappears while somebody looks on."""
    while True:
        following = store.next_expiry()
        left_s = (following - station.now_ms()) / 1000 if following is not None else LOOK_AGAIN_S
        await asyncio.sleep(min(max(left_s, 0.0), LOOK_AGAIN_S))
        station.purge(store)


async def _keep_supplied(station: Station) -> None:
    """Rotates and refills prekeys on a connection that stands for long."""
    while True:
        await asyncio.sleep(SUPPLY_AGAIN_S)
        session = station.session
        if session is not None and not session.ended.is_set():
            with suppress(ChatchainError):  # whoever uses the connection says what is wrong with it
                await station.publish(session)


async def _look_out(station: Station, alarm: Callable[[PendingRecovery], None]) -> None:
    """Tells of an account that was proposed in the place of this one, while somebody looks on.

    Messages bring the chain up to date, but it is a thief's good fortune if none come.
    """
    while True:
        proposed = None
        with suppress(ChatchainError):  # whoever uses the chain says what is wrong with it
            await station.require_watch().sync_if_older(LOOK_OUT_S)
            proposed = await noticed(station)
        if proposed is not None:
            alarm(proposed)
        await asyncio.sleep(LOOK_AGAIN_S)


async def _received(
    station: Station,
    desk: Desk,
    deadline: float,
    follow: bool,
    count: int | None,
    outage: Callable[[ChatchainError | None], None],
) -> AsyncGenerator[Shown, None]:
    left, some = count, False
    async for shown in _left_over(station, desk, left):
        left, some = left - 1 if left is not None else None, True
        yield shown
    if left == 0:
        return
    loop = asyncio.get_running_loop()
    session, since = await station.connect(), loop.time()
    while left is None or left > 0:
        try:
            await session.receive(desk.unlocked.store.progress(session.link.spki))
            station.background(station.publish(session))
            while left is None or left > 0:
                wanted = CHUNK if left is None else min(CHUNK, left)
                taken = await _batch(desk, session, wanted, deadline, follow=follow, some=some)
                if taken is None:
                    return
                for uid, started in taken.typing:
                    yield await typing_of(station, uid, started=started)
                for message in taken.fresh:
                    left, some = left - 1 if left is not None else None, True
                    yield await shown_of(station, await files.with_small_file(station, message))
                    desk.unlocked.store.mark_shown(message.row, station.now_ms())
        except (NetworkError, ChainError, LimitReached) as broken:
            if not follow or isinstance(broken, CertificateMismatch):
                raise
            outage(broken)
            await asyncio.sleep(rest_s(session, loop.time() - since))
            session, since = await station.connect_again(), loop.time()
            outage(None)


async def _left_over(station: Station, desk: Desk, count: int | None) -> AsyncIterator[Shown]:
    """What was stored and not yet shown when an earlier run ended."""
    left = count
    while batch := desk.unlocked.store.unshown(CHUNK if left is None else min(CHUNK, left)):
        for message in batch:
            yield await shown_of(station, await files.with_small_file(station, message))
            desk.unlocked.store.mark_shown(message.row, station.now_ms())
        left = left - len(batch) if left is not None else None


async def _batch(
    desk: Desk, session: Session, wanted: int, deadline: float, *, follow: bool, some: bool
) -> Taken | None:
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
        stored = [delivery for delivery in deliveries if delivery.sequence]
        signals = [delivery for delivery in deliveries if not delivery.sequence]
        taken = await _taken(desk, session, stored) if stored else Taken([], (), [])
        typing = taken.typing + (await desk.inbox.hear(signals) if signals else [])
        fresh = [message for message in taken.fresh if message.direction is Direction.IN]
        if fresh or typing:
            return replace(taken, fresh=fresh, typing=typing)


async def _taken(desk: Desk, session: Session, deliveries: Sequence[Delivery]) -> Taken:
    """Takes in what the relay keeps for this device, and says so."""
    taken = await desk.inbox.take(deliveries, session.progress(deliveries))
    await session.acknowledge(taken.sequences)
    if taken.deletes:
        desk.courier.forget_deleted()
    desk.outbox.queue_receipts()
    return taken


# --- back -----------------------------------------------------------------------------------------------


async def history(station: Station, peer: str, limit: int, before: str | None) -> list[Shown]:
    """The last messages with a peer; who looks has read them."""
    store = await tidied(station)
    uid = await station.uid_of(store, peer)
    row = None
    if before is not None:
        found = find_message(store, before)
        if found.peer != uid:
            raise UnknownMessage(
                f"There is no message {before} with {peer} here.",
                "`chatchain history PEER --ids` shows the ids.",
            )
        row = found.row
    messages = store.history(uid, limit=max(limit, 1), before=row)
    if messages:
        tell = privacy(store).read_receipts
        store.mark_read(uid, messages[-1].row, station.now_ms(), tell=tell)
    return [await shown_of(station, message, full=True) for message in messages]


async def search(station: Station, text: str, limit: int, peer: str | None) -> list[Shown]:
    """Stored messages that contain every word, newest first; of all conversations or of one."""
    words = text.replace("\0", " ").split()  # which no query may hold, and a message may
    if not words:
        raise UsageError("Say what to search for.")
    store = await tidied(station)
    uid = await station.uid_of(store, peer) if peer is not None else None
    found = store.search(words, limit=max(limit, 1), peer=uid)
    return [await shown_of(station, message, full=True) for message in found]
