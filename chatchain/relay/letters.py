"""Messages on their way: from a sender's connection through the writer to the recipient's.

`mailbox` decides; this carries its actions out. It is the path that every message takes, so nothing here is
asked or looked up twice. What the writer and the other processes tell comes in on the loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

import msgspec
from structlog.typing import FilteringBoundLogger

from chatchain.errors import StoreUnavailable
from chatchain.model import Envelope, Letter, Run, User
from chatchain.relay import mailbox as box
from chatchain.relay.allowance import Allowance, Paces
from chatchain.relay.follower import Follower
from chatchain.relay.limits import milliseconds
from chatchain.relay.metrics import Metrics
from chatchain.relay.nodes import Nodes
from chatchain.relay.order import EVERYBODY
from chatchain.relay.ports import Peer, Reader, Writer
from chatchain.relay.quota import Usage
from chatchain.relay.sessions import Session
from chatchain.relay.tasks import Tasks, Threads
from chatchain.relay.users import Users
from chatchain.wire.intake import Intake
from chatchain.wire.messages import Deliver, Message, Refused, Resumed, StaleDevices, Submit, Tick, Welcome
from chatchain.wire.parcels import deliver_frames, parcel, tick_frames

UNANSWERED_BYTES: Final = 1024 * 1024
UNANSWERED_ROWS: Final = 2_000
"""What one connection may have submitted without an answer; above it the relay stops reading from it."""

LETTER_BYTES: Final = 256
"""What a message takes up while it waits, besides what is in it."""

PENDING_BYTES: Final = 8 * 1024 * 1024
"""The same for all connections together: above it the relay reads from none, also from those that have
submitted nothing yet, because what each may bring with its first word adds up.
"""

COUNTED: Final = 200
"""Runs that a login counts; what lies behind them is announced as the last count of all had it."""

RETRY: Final = 1.0
"""Seconds between two attempts at what the database must do."""


class Letters:
    """All connections for messages of one relay process."""

    _writer: Writer
    _space: int

    def __init__(
        self,
        reader: Reader,
        threads: Threads,
        *,
        users: Users,
        follower: Follower,
        nodes: Nodes | None,
        allowance: Allowance,
        tasks: Tasks,
        intake: Intake,
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._reader = reader
        self._threads = threads
        self._users = users
        self._follower = follower
        self._nodes = nodes
        self._tasks = tasks
        self._intake = intake
        self._log = log
        self._metrics = metrics
        self._quota = allowance.quota
        self._mailbox = box.Mailbox(quota=self._quota)
        self._paces = Paces(allowance.messages)
        self._sessions: dict[int, Session] = {}
        self._names = 0
        self._waiting: dict[Session, None] = {}  # who was held back longest comes first
        self._full = False
        self._gathered: list[Letter] = []  # of this turn of the loop
        self.pending = 0
        """Bytes that wait for their commit."""
        self.store_sound = True
        """Whether the database answers."""
        metrics.sessions.set_function(lambda: len(self._sessions))
        metrics.held.set_function(lambda: len(self._waiting))
        metrics.queued.set_function(lambda: self.pending)

    @property
    def sessions(self) -> int:
        """How many devices are logged in."""
        return len(self._sessions)

    async def start(self, writer: Writer) -> None:
        """Counts what waits; raises StoreUnavailable."""
        self._writer = writer
        self._space = await self._threads.run(self._reader.space)
        usage, counted_to = await self._threads.run(self._reader.usage)
        self._mailbox = box.Mailbox(usage, counted_to, quota=self._quota)

    # --- connections ---

    def enter(self, peer: Peer, user: User, device: int) -> None:
        """Takes in a connection whose login holds."""
        self._names += 1
        pace = self._paces.of(user.uid, time.monotonic())
        session = Session(self._names, user.uid, device, user.epoch, peer, pace)
        peer.session = session
        peer.logged_in()
        peer.narrow()
        self._sessions[session.name] = session
        self._act(self._mailbox.opened(session.name, user.uid, device))
        if self._nodes is None or self._nodes.alone:
            self._welcome(session, self._mailbox.waiting(user.uid, device))
        else:
            self._tasks.hold(peer, self._count_and_welcome(session))
        if self._full:
            self._hold(session)
        if self._nodes is not None:
            self._nodes.logged_in(user.uid, device)
        self._metrics.logins.labels("accepted").inc()

    async def _count_and_welcome(self, session: Session) -> None:
        """Counts in the database: what went through other processes is known here only some seconds later."""
        uid, device = session.uid, session.device
        after, waiting = self._writer.removed(uid, device), self._mailbox.waiting(uid, device)
        try:
            counted, more = await self._threads.run(
                lambda: self._reader.count_waiting(uid, device, after, COUNTED)
            )
        except StoreUnavailable as error:
            self._log.warning("read failed", reason=error.message)
        else:
            waiting = max(waiting, counted) if more else counted
        self._welcome(session, waiting)

    def _welcome(self, session: Session, waiting: int) -> None:
        session.peer.send(Welcome(session.uid, waiting, _now_ms()))
        self._log.info("login", uid=session.uid, device=session.device, waiting=waiting)

    def closed(self, session: Session) -> None:
        """Forgets a connection."""
        self._sessions.pop(session.name, None)
        self._mailbox.closed(session.name)
        self._waiting.pop(session, None)

    def writable(self, session: Session) -> None:
        """Goes on with a slow reader."""
        self._act(self._mailbox.slow(session.name, False))

    def end(self, uid: int, code: str, message: str, *, except_epoch: int = -1) -> None:
        """Ends a user's connections, but those of an epoch."""
        for name in self._mailbox.sessions_of(uid):
            session = self._sessions.get(name)
            if session is not None and session.epoch != except_epoch:
                session.peer.say_goodbye(code, message)

    def revoked(self, uid: int, device: int) -> None:
        """Ends a device's connection and deletes what waits for it."""
        self._act(self._mailbox.revoked(uid, device))

    def listening(self, uid: int, device: int) -> Peer | None:
        """The connection of a device that takes in at once what it is sent, if there is one here."""
        session = self._sessions.get(self._mailbox.session_of(uid, device) or 0)
        return session.peer if session is not None and session.resumed and not session.peer.slow else None

    # --- in ---

    def submitted(self, session: Session, inbox: deque[Message]) -> None:
        """Takes what is to be stored off the front of a connection's inbox, as much as need not wait."""
        while inbox and isinstance(first := inbox[0], Submit):
            alike = [first.envelope] if len(inbox) == 1 else _alike(inbox, first.envelope)
            if len(alike) > 1 and self._store_all(session, alike):
                for _ in alike:
                    inbox.popleft()
            else:
                for envelope in alike:
                    inbox.popleft()
                    self._submit(session, envelope)
                    if session.peer.waits:
                        return
            if session.peer.waits:
                return

    def _store_all(self, session: Session, alike: list[Envelope]) -> bool:
        """Stores envelopes that go the same way, unless there is something about them that must be looked at
        one by one.
        """
        first, known = alike[0], self._users.known
        sender, recipient = known(session.uid), known(first.recipient)
        if (
            session.order.owed
            or sender is None
            or recipient is None
            or self._judge(session, first, sender, recipient) is not None
            or not session.pace.take_all(time.monotonic(), len(alike))
        ):
            return False
        now_ms = _now_ms()
        letters = [_letter(session, envelope, now_ms) for envelope in alike]
        if not self._mailbox.submit_all(letters):
            session.pace.give_back(len(alike))
            return False
        self._keep(letters)
        return True

    def _submit(self, session: Session, envelope: Envelope) -> None:
        """Stores an envelope, or says why not."""
        if session.order.owed:
            session.order.came(envelope.id)
        wait = session.pace.take(time.monotonic())
        if wait:
            sentence = "You send faster than this relay allows."
            refusal = Refused(envelope.id, "limit_reached", sentence, milliseconds(wait))
            self._send_back(session, EVERYBODY, refusal)
            return
        known = self._users.known
        sender, recipient = known(session.uid), known(envelope.recipient)
        if (
            sender is not None
            and recipient is not None
            and self._judge(session, envelope, sender, recipient) is None
        ):
            self._store(session, envelope)
        else:
            self._tasks.hold(session.peer, self._judge_slowly(session, envelope))

    async def _judge_slowly(self, session: Session, envelope: Envelope) -> None:
        """Judges with users from the database, and after a look at the chain where that may help."""
        try:
            verdict = await self._verdict(session, envelope)
            if isinstance(verdict, box.Ahead) or (
                isinstance(verdict, Refused) and not verdict.retry_after_ms
            ):
                await self._follower.look_again()
                verdict = await self._verdict(session, envelope)
            if isinstance(verdict, box.Ahead):
                verdict = Refused(
                    envelope.id, "relay_behind", "The relay has not seen that block yet.", 1_000
                )
            answer: Message | None = verdict
            if answer is not None and await self._was_stored(session, envelope):
                answer = Tick(envelope.id)
        except StoreUnavailable:
            answer = Refused(envelope.id, "store_unavailable", "The relay cannot look anybody up now.", 2_000)
        if answer is None:
            self._store(session, envelope)
        elif isinstance(answer, StaleDevices):
            sentence = "A message before this one has to come again first."
            session.order.refused(
                envelope.recipient, Refused(envelope.id, "relay_behind", sentence, 0), time.monotonic()
            )
            self._send(session, answer)
        elif isinstance(answer, Refused) and answer.retry_after_ms:
            self._send_back(session, envelope.recipient, answer)
        else:
            self._send(session, answer)

    async def _verdict(
        self, session: Session, envelope: Envelope
    ) -> Refused | StaleDevices | box.Ahead | None:
        sender = await self._users.user(session.uid)
        recipient = await self._users.user(envelope.recipient)
        if sender is None:  # a reorg took the registration back
            return Refused(envelope.id, "unknown_user", "The sender is no longer registered.", 0)
        return self._judge(session, envelope, sender, recipient)

    def _judge(
        self, session: Session, envelope: Envelope, sender: User, recipient: User | None
    ) -> Refused | StaleDevices | box.Ahead | None:
        admitted = self._users.membership.admits(sender.uid, envelope.recipient)
        return box.judge(envelope, sender, recipient, device=session.device, admitted=admitted)

    async def _was_stored(self, session: Session, envelope: Envelope) -> bool:
        """Whether this very message was stored and only its tick got lost: whatever has changed since, it
        counts.
        """
        digest = await self._threads.run(
            lambda: self._reader.accepted(session.uid, session.device, envelope.id)
        )
        return digest == _digest(envelope)

    def _store(self, session: Session, envelope: Envelope) -> None:
        if session.order.owed:
            overtaking = session.order.overtakes(envelope.recipient, envelope.id, time.monotonic())
            if overtaking is not None:
                self._send(session, overtaking)
                return
        actions = self._mailbox.submit(_letter(session, envelope, _now_ms()))
        action = actions[0]
        if type(action) is box.Store:
            self._keep([action.letter])
            return
        if isinstance(action, box.Send) and isinstance(action.message, Refused):
            session.order.refused(envelope.recipient, action.message, time.monotonic())
        self._act(actions)

    def _send_back(self, session: Session, recipient: int, refusal: Refused) -> None:
        """Refuses a message for now, and what would overtake it."""
        session.order.refused(recipient, refusal, time.monotonic())
        self._send(session, refusal)

    def _keep(self, letters: list[Letter]) -> None:
        """Hands letters of one session to the writer, with all others of this turn of the loop."""
        size = sum([letter.size for letter in letters])
        self.pending += size
        session = self._sessions.get(letters[0].session)
        if session is not None:
            session.rows += len(letters)
            session.bytes += size
            if session.rows >= UNANSWERED_ROWS or session.bytes >= UNANSWERED_BYTES:
                self._hold(session)
        if self.pending >= PENDING_BYTES and not self._full:
            self._full = True
            for each in self._sessions.values():
                self._hold(each)
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._gathered += letters

    def _hold(self, session: Session) -> None:
        if not session.held:
            session.held = True
            session.peer.hold()
            self._waiting[session] = None

    def _hand_over(self) -> None:
        letters, self._gathered = self._gathered, []
        self._writer.keep(letters)

    # --- out ---

    def receive(self, session: Session) -> None:
        """A device wants its deliveries, from the start."""
        self._act(self._mailbox.receive(session.name))

    def resume(self, session: Session, space: int, after: int) -> None:
        """A device wants those behind a sequence of a space: only of this one does that say anything."""
        session.resumed = True
        start = after if space == self._space else 0
        session.peer.send(Resumed(self._space, start))
        self._act(self._mailbox.receive(session.name, start))

    def acknowledge(self, session: Session, sequences: tuple[int, ...]) -> None:
        """A device has these on its disk."""
        self._metrics.acknowledged.inc(len(sequences))
        self._act(self._mailbox.acknowledged(session.name, sequences))

    def poll(self) -> None:
        """Tries again what is due."""
        self._act(self._mailbox.poll())

    # --- actions of the mailbox ---

    def _act(self, actions: Iterable[box.Action]) -> None:
        for action in actions:
            match action:
                case box.Store(letter):
                    self._keep([letter])
                case box.Ticks(name, ids):
                    session = self._sessions.get(name)
                    if session is not None:
                        session.peer.send_frames(Tick, tick_frames(ids))
                case box.Give(name, first, parcels):
                    session = self._sessions.get(name)
                    if session is not None:
                        self._metrics.deliveries.inc(len(parcels))
                        session.peer.send_frames(Deliver, deliver_frames(first, parcels))
                        self._mind_slowness(session)
                case box.Send(name, message):
                    session = self._sessions.get(name)
                    if session is not None:
                        self._send(session, message)
                case box.Remove(uid, device, through):
                    self._writer.remove(uid, device, through)
                case box.Load():
                    self._tasks.spawn(self._load(action))
                case box.Close(name, code, message):
                    session = self._sessions.pop(name, None)
                    if session is not None:
                        session.peer.say_goodbye(code, message)
                case box.Forget(uid, device):
                    self._tasks.spawn(self._forget(uid, device))

    def _send(self, session: Session, message: Message) -> None:
        if isinstance(message, Refused):
            self._metrics.refusals.labels(message.code).inc()
        session.peer.send(message)
        self._mind_slowness(session)

    def _mind_slowness(self, session: Session) -> None:
        if session.peer.slow:
            self._mailbox.slow(session.name, True)

    async def _load(self, load: box.Load) -> None:
        after = max(load.after, self._writer.removed(load.uid, load.device))
        try:
            runs, more = await self._threads.run(
                lambda: self._reader.waiting(load.uid, load.device, after, load.rows, load.bytes)
            )
        except StoreUnavailable as error:
            self._log.warning("read failed", reason=error.message)
            self._mailbox.load_failed(load.session)
        else:
            self._act(self._mailbox.loaded(load.session, runs, more))

    async def _forget(self, uid: int, device: int) -> None:
        """Deletes what a revoked device left; while the database is away, again and again."""
        while True:
            try:
                await asyncio.wrap_future(self._writer.forget_device(uid, device))
                return
            except StoreUnavailable:
                await asyncio.sleep(RETRY)

    # --- told by the writer ---

    def kept(self, told: list[tuple[Letter, box.Verdict]], runs: list[Run]) -> None:
        """The store's verdicts on one batch, and the runs that it has stored."""
        answered: dict[int, list[int]] = {}
        for letter, _ in told:
            answered.setdefault(letter.session, []).append(letter.size)
        for name, sizes in answered.items():
            size = sum(sizes)
            self.pending -= size
            session = self._sessions.get(name)
            if session is not None:
                session.rows -= len(sizes)
                session.bytes -= size
        verdicts = Counter([verdict for _, verdict in told])
        self._metrics.repeats.inc(verdicts["duplicate"])
        if verdicts["failed"]:
            self._failed([letter for letter, verdict in told if verdict == "failed"])
        if stored := verdicts["stored"]:
            self._metrics.ticks.inc(stored)
            self._metrics.batch.observe(stored)
            self._intake.committed()
            self._metrics.commit.observe(max(0, _now_ms() - told[0][0].received_ms) / 1000)
        if self._nodes is None:
            self._act(self._mailbox.kept(told, runs))
        else:
            self._act(self._mailbox.judged(told, runs))
            self._nodes.committed(runs)
        if self._waiting:
            self._let_go()

    def _failed(self, letters: list[Letter]) -> None:
        """What comes from the same connections meanwhile must not overtake these."""
        now = time.monotonic()
        for letter in letters:
            session = self._sessions.get(letter.session)
            if session is not None:
                session.round = max(session.round, letter.round + 1)
                session.order.refused(EVERYBODY, box.not_taken(letter.id, "failed"), now)

    def expired(self, gone: list[Run], notices: list[Run]) -> None:
        """The store has given these up for their age; the notices are for their senders."""
        self._metrics.dropped.inc(sum(len(run.parcels) for run in gone))
        self._mailbox.expired(gone)
        if self._nodes is None:
            self.committed(notices)
        else:
            self._nodes.committed(notices)

    def store_failed(self, reason: str) -> None:
        """The database went away."""
        self._log.error("database away", reason=reason)
        self.store_sound = False
        self._mailbox.store_failed()

    def store_settled(self) -> None:
        """The database is back."""
        self._log.info("database back")
        self._tasks.spawn(self._recount())

    def _let_go(self) -> None:
        """Reads again from the connections that were held back and whose share is free."""
        if self.pending > PENDING_BYTES // 2:
            return
        self._full = False
        for session in list(self._waiting):
            if self._full:  # what had come of those before is enough again
                return
            if session.rows <= UNANSWERED_ROWS // 2 and session.bytes <= UNANSWERED_BYTES // 2:
                del self._waiting[session]
                session.held = False
                session.peer.release()

    async def _recount(self) -> None:
        while True:
            try:
                usage, counted_to = await self._threads.run(self._reader.usage)
            except StoreUnavailable:
                await asyncio.sleep(RETRY)
            else:
                self.store_sound = True
                self._act(self._mailbox.store_settled(usage, counted_to))
                return

    # --- told of all processes' commits, and of their traces in the database ---

    def committed(self, runs: Iterable[Run], named: Iterable[tuple[int, int, int]] = ()) -> None:
        """What was committed next, whoever committed it: runs, and for whom there is something else."""
        self._act(self._mailbox.committed(runs, named))

    def woken(self, devices: Iterable[tuple[int, int, int]]) -> None:
        """Other processes have stored something for these: uid, device and the last sequence."""
        self._act(self._mailbox.woken(devices))

    def holds(self, uid: int, device: int) -> bool:
        """Whether this device is connected here."""
        return self._mailbox.holds(uid, device)

    def elsewhere(self, uid: int, device: int) -> None:
        """This device has logged in through another process."""
        self._act(self._mailbox.elsewhere(uid, device))

    def recounted(self, usage: Usage, counted_to: int) -> None:
        """What waits, as the database has it."""
        self._mailbox.recounted(usage, counted_to)


_ENCODER: Final = msgspec.msgpack.Encoder()


def _alike(inbox: Iterable[Message], first: Envelope) -> list[Envelope]:
    """The envelopes at the front that are for the same devices as the first and know the same of them."""
    devices = [(copy.uid, copy.device) for copy in first.copies]
    found: list[Envelope] = []
    for message in inbox:
        if type(message) is not Submit:
            break
        envelope = message.envelope
        if (
            envelope.recipient != first.recipient
            or envelope.recipient_version != first.recipient_version
            or envelope.sender_version != first.sender_version
            or [(copy.uid, copy.device) for copy in envelope.copies] != devices
        ):
            break
        found.append(envelope)
    return found


def _digest(envelope: Envelope) -> bytes:
    """Tells whether a message sent again is the same; whoever forges it deceives nobody else."""
    return hashlib.sha256(_ENCODER.encode(envelope)).digest()[:16]


def _letter(session: Session, envelope: Envelope, now_ms: int) -> Letter:
    uid, device = session.uid, session.device
    parcels, size = [], LETTER_BYTES
    for copy in envelope.copies:
        made = parcel(envelope, copy, uid, device, now_ms)
        parcels.append((copy.uid, copy.device, made))
        size += len(made)
    digest, name = _digest(envelope), session.name
    return Letter(name, uid, device, envelope.id, digest, now_ms, tuple(parcels), size, session.round)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
