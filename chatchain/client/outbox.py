"""The outbox: what was written is stored before it leaves, and stays until the relay's tick.

The database is the queue. A message and its envelope enter it in one transaction; after a crash the very same
ciphertext is submitted again, and the relay and every recipient recognise it by its id. One pump a session
submits in order, with a window of envelopes under way, and settles whatever verdicts have come in one
transaction. An answer that asks for a repeat (device lists out of date, a limit) stops the filling of the
window until everything under way has its verdict, so that no message overtakes another.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final

from chatchain.client.own import Own
from chatchain.client.people import People
from chatchain.client.ports import Store
from chatchain.client.sealing import RECEIPT, NoKeys, Sealing
from chatchain.client.session import Session, Verdict, failure
from chatchain.client.sessions import NoSession, Sessions
from chatchain.client.watch import Watch, way_in
from chatchain.client.writing import Written
from chatchain.crypto import content as contents
from chatchain.crypto.content import Content, ReceiptKind
from chatchain.errors import (
    ChatchainError,
    FoldMismatch,
    LimitReached,
    NetworkError,
    NotAMember,
    NoTick,
    RefusedError,
)
from chatchain.model import (
    MessageState,
    Outgoing,
    Policy,
    SessionChanges,
    Uid,
    User,
)
from chatchain.wire.messages import Refused, StaleDevices, Tick

WINDOW: Final = 256
"""Envelopes under way at once: enough to keep a relay's group commit busy over a long line."""

REPEATS: Final = 8
"""How often one session repeats an envelope that the relay finds out of date or too early."""

LONGEST_PAUSE_S: Final = 30.0
"""Nobody who waits for a message waits out a longer pause: it is put off, and tried again after this one."""

ALREADY_TAKEN: Final = "id_reused"
"""The relay's word for a message id under which it has taken another envelope."""

_RECEIPTS: Final = {MessageState.DELIVERED: ReceiptKind.DELIVERED, MessageState.READ: ReceiptKind.READ}


@dataclass(frozen=True)
class Outcome:
    """How it went with one message: SENT, DROPPED with the relay's reason, QUEUED with what is in the way."""

    state: MessageState
    error: ChatchainError | None = None


class Outbox:
    """What waits to be sent, and the pump that sends it."""

    def __init__(
        self,
        own: Own,
        store: Store,
        watch: Watch,
        people: People,
        sessions: Sessions,
        now_ms: Callable[[], int],
    ) -> None:
        self._own = own
        self._store = store
        self._watch = watch
        self._people = people
        self._sealing = Sealing(own, store, people, sessions, now_ms)
        self._now_ms = now_ms
        self._outcomes: dict[bytes, asyncio.Future[Outcome]] = {}
        self._wake = asyncio.Event()
        self.progress = 0.0
        """Loop time of the last verdict."""
        self.pump: Pump | None = None
        self.woken: Callable[[], None] = lambda: None
        """Told whenever there may be something new."""

    # --- putting in -----------------------------------------------------------------------------------------

    async def check(self, peer: User) -> None:
        """Raises what would keep a message to this peer from being sent: KeyChanged, NotAMember,
        FoldMismatch.
        """
        await self._people.vet(peer)
        group = await self._watch.group()
        if group.policy is Policy.VOTE:
            members = {member.uid for member in group.members}
            if self._own.uid not in members:
                raise NotAMember(
                    "Only admitted members may send messages in this network.",
                    await way_in(self._watch, self._own.uid),
                )
            if peer.uid not in members:
                raise NotAMember(
                    f"{peer.username} is not a member of this network (yet).",
                    "`chatchain proposals` shows open requests.",
                )

    async def add(self, peer: User, written: Sequence[Written], session: Session | None) -> None:
        """Stores what was written, sealed if the keys are at hand or the session has them; nothing has left
        yet.
        """
        outgoing = [one.outgoing for one in written if one.upload is None]
        # What waits for its file is sealed when it leaves: by then much may have been sent.
        held = [one.outgoing for one in written if one.upload is not None]
        changes = SessionChanges()
        try:
            plan = await self._sealing.plan(peer.uid, session)
            outgoing, changes = self._sealing.seal(outgoing, plan)
        except (NetworkError, LimitReached, NoKeys, NoSession):
            pass  # kept unsealed: the pump seals it once it has a session
        outgoing = [*outgoing, *held]
        keep(self._store, written, outgoing, changes)
        for item in outgoing:
            self._outcomes[item.id] = asyncio.get_running_loop().create_future()
        if self.pump is not None and isinstance(self.pump.error, _Broken):
            self.give_up(self.pump.error)
        self.wake()

    async def whisper(self, peer: User, content: Content, session: Session) -> None:
        """Sends what matters only now, to who is there; nobody keeps it, and it may get lost."""
        await self._people.vet(peer)
        me = await self._people.require(self._own.uid)
        item = Outgoing(os.urandom(16), peer.uid, RECEIPT, contents.encode(content), self._now_ms())
        envelope, changes = self._sealing.seal_signal(item, peer, me)
        if envelope is not None:
            self._store.change_sessions(changes)
            await session.signal(envelope)

    def outcome(self, id: bytes) -> asyncio.Future[Outcome]:
        """What will have become of a message added by this process."""
        return self._outcomes[id]

    def forget(self, id: bytes) -> None:
        """Stops waiting for a message."""
        self._outcomes.pop(id, None)

    def queue_receipts(self) -> int:
        """Turns the receipts that are owed into things to send, one a peer and kind; gives their number."""
        due = self._store.receipts_due()
        for (peer, state), ids in due.items():
            content = contents.receipt(_RECEIPTS[state], tuple(ids[: contents.MAX_RECEIPT_IDS]))
            item = Outgoing(os.urandom(16), peer, RECEIPT, contents.encode(content), self._now_ms())
            self._store.queue_receipts(peer, item, content.ids)
        self.wake()  # also for what the inbox has put into the outbox itself
        return len(due)

    # --- sealing --------------------------------------------------------------------------------------------

    def stale(self, uid: Uid | None = None) -> None:
        """Forgets for whom envelopes are sealed (to one user, or to all)."""
        self._sealing.stale(uid)

    async def outdated(self, items: Sequence[Outgoing]) -> set[bytes]:
        """Of things that are sealed, those by keys or for device lists that were replaced since.

        The relay would say so, too, but it might rather hand a revoked device what was sealed for it.
        """
        lists = {}
        for uid in {self._own.uid, *(one.recipient for one in items)}:
            user = await self._watch.user(uid)
            lists[uid] = user.device_list_version if user is not None else 0
        return {
            item.id
            for item in items
            if item.envelope is not None
            and (
                item.version != self._own.version
                or item.envelope.recipient_version < lists[item.recipient]
                or item.envelope.sender_version < lists[self._own.uid]
            )
        }

    async def seal_again(self, items: Sequence[Outgoing], session: Session) -> list[Outgoing]:
        """Seals things for the devices that the chain lists now and stores that before they leave.

        What cannot be sealed now gets its outcome and is left out; it stays queued.
        """
        sealed: list[Outgoing] = []
        spoken = {item.recipient for item in items if item.kind != RECEIPT}
        receipts = {item.recipient for item in items} - spoken
        plans = await self._sealing.plans([*spoken, *receipts], session, receipts)
        for recipient, run in groupby(items, lambda item: item.recipient):
            batch, made = list(run), plans[recipient]
            try:
                if isinstance(made, ChatchainError):
                    raise made
                plan = await self._sealing.plan(recipient, session)  # made, unless a session went meanwhile
                fresh, changes = self._sealing.seal(batch, plan)
            except ChatchainError as obstacle:
                if not session.alive:
                    raise
                for item in batch:
                    self.conclude(item.id, Outcome(MessageState.QUEUED, obstacle))
            else:
                self._store.reseal(fresh, changes)
                sealed += fresh
        return sealed

    # --- verdicts -------------------------------------------------------------------------------------------

    def conclude(self, id: bytes, outcome: Outcome) -> None:
        """Tells whoever waits for a message."""
        waiting = self._outcomes.get(id)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)

    def give_up(self, why: ChatchainError) -> None:
        """Tells everybody who waits that their message stays queued."""
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_result(Outcome(MessageState.QUEUED, why))

    def settle(self, verdicts: Sequence[tuple[Outgoing, Outcome]]) -> None:
        """Stores final verdicts in few transactions, then tells."""
        sent = [item.id for item, outcome in verdicts if outcome.state is MessageState.SENT]
        if sent:
            self._store.settle(sent, MessageState.SENT)
        for item, outcome in verdicts:
            if outcome.state is MessageState.DROPPED:
                self._store.settle(
                    [item.id], MessageState.DROPPED, outcome.error.code if outcome.error else ""
                )
        for item, outcome in verdicts:
            self.conclude(item.id, outcome)

    async def refresh(self, stale: Sequence[StaleDevices], recipients: Collection[Uid]) -> None:
        """Brings the fold up to what the relay pointed at; the chain is the judge, not the relay.

        A relay that knows of more changes than the events here show is a sign that somebody hides them, so
        for the recipients and ourselves the heads are compared with the contract's: raises FoldMismatch.
        """
        await self._watch.sync()
        for uid in {Uid(hint.uid) for hint in stale}:
            if uid == self._own.uid or uid in recipients:
                await self._watch.confirm(uid)
            self.stale(uid)

    # --- the pump -------------------------------------------------------------------------------------------

    def start(self, session: Session) -> None:
        """Starts to send what waits, in order, over this session."""
        self.pump = Pump(self, self._own, self._store, session, self._wake)
        self._wake.set()

    def wake(self) -> None:
        """Says that there is something to send, or to upload first."""
        self._wake.set()
        self.woken()
        if self.pump is not None:
            self.pump.busy()

    async def stop(self) -> None:
        """Stops the pump; what is under way stays queued."""
        if self.pump is not None:
            await self.pump.stop()
            self.pump = None

    async def drained(self, patience: float) -> None:
        """Waits until nothing more can be sent now, or no verdict has come for so many seconds."""
        if self.pump is not None:
            await self.pump.drained(patience)


class Pump:
    """Sends the outbox over one session."""

    def __init__(self, outbox: Outbox, own: Own, store: Store, session: Session, wake: asyncio.Event) -> None:
        self._outbox = outbox
        self._own = own
        self._store = store
        self._session = session
        self._wake = wake
        self._row = 0  # everything up to here was taken up in this session
        self._flights: OrderedDict[bytes, Outgoing] = OrderedDict()
        self._landed: list[tuple[Outgoing, Verdict]] = []
        self._again: list[Outgoing] = []
        self._later: list[Outgoing] = []  # put off: nothing more to their recipients may overtake them
        self._waking: asyncio.TimerHandle | None = None
        self._hints: list[StaleDevices] = []
        self._repeats: dict[bytes, int] = {}
        self._pause_s = 0.0
        self._idle = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self.error: ChatchainError | None = None
        """Why the pump ended, once it has."""

    async def stop(self) -> None:
        """Ends the pump."""
        if self._waking is not None:
            self._waking.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def busy(self) -> None:
        """There is something to do again."""
        if self.error is None:
            self._idle.clear()

    async def drained(self, patience: float) -> None:
        """Waits until the pump has nothing to do, or no verdict has come for so many seconds."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while not self._idle.is_set():
            left = max(since, self._outbox.progress) + patience - loop.time()
            if left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._idle.wait()

    async def _run(self) -> None:
        try:
            while True:
                self._wake.clear()
                self._settle_landed()
                if self._again:
                    if not self._flights:
                        await self._repeat()
                        continue
                elif await self._fill():
                    continue
                if not self._flights and not self._again:
                    self._idle.set()
                await self._wake.wait()
                self._idle.clear()
        except ChatchainError as failed:
            self.error = failed
            self._idle.set()
        except Exception as bug:
            # Nobody would send any more and nobody would know: whoever waits is told; it all stays queued.
            self.error = _Broken(
                f"Sending broke off ({type(bug).__name__}).",
                "The messages are kept. Update chatchain; if this happens again, report it.",
            )
            self.error.__cause__ = bug
            self._idle.set()
            self._outbox.give_up(self.error)

    async def _fill(self) -> bool:
        """Submits the next of what waits; says whether there was something."""
        room = WINDOW - len(self._flights)
        batch = self._store.pending(after=self._row, limit=room) if room > 0 else []
        if not batch:
            return False
        self._row = batch[-1].row
        for item in self._in_turn(await self._ready(batch)):
            await self._submit(item)
        return True

    async def _ready(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        """The batch with everything sealed by the keys in force, for the devices listed now, in order."""
        outdated = await self._outbox.outdated(batch)
        unready = [item for item in batch if item.envelope is None or item.id in outdated]
        fresh = {item.id: item for item in await self._sealed_again(unready)} if unready else {}
        left_out = {item.id for item in unready} - fresh.keys()
        return [fresh.get(item.id, item) for item in batch if item.id not in left_out]

    async def _sealed_again(self, items: Sequence[Outgoing]) -> list[Outgoing]:
        """Those of these that could be sealed now; the others are put off."""
        sealed = await self._outbox.seal_again(items, self._session)
        done = {item.id for item in sealed}
        for item in items:
            if item.id not in done:
                self._put_off(item)
        return sealed

    def _in_turn(self, items: Sequence[Outgoing]) -> list[Outgoing]:
        """Without those that would overtake another to the same recipient: these are put off as well."""
        # A receipt that waits holds nothing up: nobody minds if it comes after what was written later.
        waiting = {item.recipient for item in self._later if item.kind != RECEIPT}
        for item in items:
            if item.recipient in waiting:
                self._outbox.conclude(item.id, Outcome(MessageState.QUEUED, _behind_others()))
                self._put_off(item)
        return [item for item in items if item.recipient not in waiting]

    def _put_off(self, item: Outgoing) -> None:
        self._later.append(item)
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(LONGEST_PAUSE_S, self._take_up)

    def _take_up(self) -> None:
        """Tries again what was put off."""
        self._waking = None
        self._again += self._later
        for item in self._later:
            self._repeats.pop(item.id, None)
        self._later = []
        self._wake.set()

    async def _submit(self, item: Outgoing) -> None:
        assert item.envelope is not None
        self._flights[item.id] = item
        verdict = asyncio.ensure_future(await self._session.submit(item.envelope))
        verdict.add_done_callback(partial(self._land, item))

    def _land(self, item: Outgoing, verdict: asyncio.Future[Verdict]) -> None:
        if verdict.cancelled():
            return
        broken = verdict.exception()
        if broken is None:
            self._landed.append((item, verdict.result()))
        elif isinstance(broken, ChatchainError):
            self.error = broken
            self._task.cancel()
            self._idle.set()
        self._wake.set()

    def _settle_landed(self) -> None:
        if not self._landed:
            return
        landed, self._landed = self._landed, []
        self._outbox.progress = asyncio.get_running_loop().time()
        final: list[tuple[Outgoing, Outcome]] = []
        for item, verdict in landed:
            self._flights.pop(item.id, None)
            match verdict:
                case Tick():
                    final.append((item, Outcome(MessageState.SENT)))
                case StaleDevices():
                    self._repeat_or_give_up(item, _stale_error())
                    self._hints.append(verdict)
                case Refused(_, code) if code == ALREADY_TAKEN:
                    # Nobody else draws our ids: it has an earlier envelope of this message, sealed by keys
                    # that were replaced since, and the tick was lost.
                    final.append((item, Outcome(MessageState.SENT)))
                case Refused(_, code, sentence, retry) if retry > 0:
                    self._repeat_or_give_up(item, failure(code, sentence, retry), retry / 1000)
                case Refused(_, code, sentence):
                    final.append((item, Outcome(MessageState.DROPPED, _refusal(code, sentence))))
        self._outbox.settle(final)

    def _repeat_or_give_up(self, item: Outgoing, why: ChatchainError, pause_s: float = 0.0) -> None:
        count = self._repeats.get(item.id, 0) + 1
        self._repeats[item.id] = count
        if count > REPEATS or pause_s > LONGEST_PAUSE_S:
            self._outbox.conclude(item.id, Outcome(MessageState.QUEUED, why))
            self._put_off(item)
        else:
            self._pause_s = max(self._pause_s, pause_s)
            self._again.append(item)

    async def _repeat(self) -> None:
        """Submits again, in order, what the relay sent back, sealed anew where the device lists moved."""
        again, self._again = sorted(self._again, key=lambda item: item.row), []
        hints, self._hints = self._hints, []
        pause, self._pause_s = self._pause_s, 0.0
        if pause:
            await asyncio.sleep(min(pause, LONGEST_PAUSE_S))
        if hints:
            # The relay may have seen a block before our endpoint did.
            await asyncio.sleep(
                0.1 * (max(self._repeats.get(item.id, 1) for item in again) - 1) if again else 0
            )
            try:
                await self._outbox.refresh(hints, {item.recipient for item in again})
            except FoldMismatch as hidden:
                for item in again:
                    self._outbox.conclude(item.id, Outcome(MessageState.QUEUED, hidden))
                    self._put_off(item)
                return
            again = await self._sealed_again(again)
        else:
            again = await self._ready(again)
        for item in self._in_turn(again):
            await self._submit(item)


def keep(
    store: Store,
    written: Sequence[Written],
    outgoing: Sequence[Outgoing],
    changes: SessionChanges = SessionChanges(),  # noqa: B008 - a frozen value
) -> None:
    """Stores what was written, as it is to be sent, and the sessions after it."""
    store.queue(
        [one.message for one in written if one.message is not None],
        outgoing,
        changes,
        done=[one.deed for one in written if one.deed is not None],
        waiting=[one.upload for one in written if one.upload is not None],
    )


class _Broken(NetworkError):
    """The pump failed in a way that nobody foresaw."""

    code = "sending_broke_off"


def _behind_others() -> ChatchainError:
    return NoTick("A message to them that was written before this one has to wait.", "Both are kept.")


def _stale_error() -> ChatchainError:
    return NoTick(
        "The relay knows of a newer device than the chain shows here.",
        "The message is kept. Check the RPC endpoint (`chatchain doctor`), then try again.",
    )


def _refusal(code: str, sentence: str) -> ChatchainError:
    error = failure(code, sentence)
    return error if isinstance(error, RefusedError) else RefusedError(error.message, error.hint)
