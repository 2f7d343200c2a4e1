"""The mailbox as a machine: events in, actions out; no sockets, no database, no clock.

What it keeps:

- An envelope is ticked when the store says that it is committed, never before; the same envelope again is
  ticked again and stored once.
- Each device gets what waits for it in the order of commitment, which keeps each sender's order. A delivery
  counts until acknowledged: about WINDOW_ROWS and WINDOW_BYTES are on their way to a device at a time.
- Rows are deleted up to the first that is not acknowledged; what was acknowledged beyond it may come again
  on another connection, and on no other account.
- A session either follows (it has been given everything, and is given new rows as they are committed) or is
  behind (its rows must be read from the store). Whatever might leave a gap (a full window, a slow reader, a
  failure of the store) puts it behind; only a read that finds the end lets it follow again.
- Nothing is delivered again on a connection after it was acknowledged there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final, Literal, NamedTuple

from chatchain.model import Envelope, Letter, Run, User
from chatchain.relay.quota import Key, Quota, Quotas, Usage
from chatchain.wire.messages import Message, Refused, StaleDevices

WINDOW_ROWS: Final = 512
WINDOW_BYTES: Final = 512 * 1024
"""Deliveries that one device may have unacknowledged; the bytes are half of what a connection may queue."""

REPLACED: Final = "replaced", "This device has logged in on another connection."
"""Why a device's older connection is closed."""

Verdict = Literal["stored", "duplicate", "conflict", "failed"]


# --- actions --------------------------------------------------------------------------------------------


class Send(NamedTuple):
    """Give this message to this session's peer."""

    session: int
    message: Message


class Ticks(NamedTuple):
    """Tell this session's peer that these of its messages are committed."""

    session: int
    ids: list[bytes]


class Give(NamedTuple):
    """Deliver to this session's peer: the parcel at index n has the sequence `first` + n."""

    session: int
    first: int
    parcels: list[bytes]


class Store(NamedTuple):
    """Have this committed."""

    letter: Letter


class Load(NamedTuple):
    """Read what follows `after` for this device, at most so much, and come back with `loaded` or
    `load_failed`.
    """

    session: int
    uid: int
    device: int
    after: int
    rows: int
    bytes: int


class Remove(NamedTuple):
    """Delete what this device has up to a sequence; it is on the recipient's disk."""

    uid: int
    device: int
    through: int


class Forget(NamedTuple):
    """Delete everything of a device that was revoked."""

    uid: int
    device: int


class Close(NamedTuple):
    """End this session, saying why."""

    session: int
    code: str
    message: str


Action = Send | Ticks | Give | Store | Load | Remove | Forget | Close


# --- judging an envelope --------------------------------------------------------------------------------


class Ahead(NamedTuple):
    """The client has seen a newer device list than this relay: look at the chain before judging."""

    uid: int


def judge(
    envelope: Envelope, sender: User, recipient: User | None, *, device: int, admitted: bool
) -> Refused | StaleDevices | Ahead | None:
    """Says why an envelope is not taken, or None when it is. `device` is the sender's, `admitted` tells
    whether policy lets both message.
    """
    if (sender.uid, device) not in sender.mailboxes:
        return Refused(envelope.id, "revoked", "The device that sends this has been revoked.", 0)
    if recipient is None:
        return Refused(envelope.id, "unknown_user", f"Nobody has the id {envelope.recipient}.", 0)
    if not admitted:
        return Refused(
            envelope.id, "not_a_member", "In this network only admitted members send and receive messages.", 0
        )
    for user, version in ((recipient, envelope.recipient_version), (sender, envelope.sender_version)):
        if version > user.device_list_version:
            return Ahead(user.uid)
        if version < user.device_list_version:
            return _stale(envelope, user)
    named = {(copy.uid, copy.device) for copy in envelope.copies}
    if not (named <= recipient.mailboxes or named <= recipient.mailboxes | sender.mailboxes):
        return Refused(envelope.id, "bad_copies", "A copy is for a device that may not have it.", 0)
    if not recipient.mailboxes:
        return Refused(envelope.id, "unknown_device", f"{recipient.username} has no active device.", 0)
    if not recipient.mailboxes <= named:
        return _stale(envelope, recipient)
    return None


def _stale(envelope: Envelope, user: User) -> StaleDevices:
    return StaleDevices(envelope.id, user.uid, user.device_list_version, user.block)


# --- the machine ----------------------------------------------------------------------------------------


class _Session:
    __slots__ = (
        "again",
        "behind",
        "cursor",
        "key",
        "loading",
        "name",
        "receiving",
        "slow",
        "window",
        "window_bytes",
    )

    def __init__(self, name: int, key: Key) -> None:
        self.name = name
        self.key = key
        self.receiving = False
        self.cursor = 0  # everything up to here was given to this connection
        self.window: dict[int, tuple[int, int]] = {}  # unacknowledged: sequence to size and sender
        self.window_bytes = 0
        self.behind = True
        self.loading = False
        self.again = False  # something was committed while a read was under way
        self.slow = False

    @property
    def full(self) -> bool:
        return len(self.window) >= WINDOW_ROWS or self.window_bytes >= WINDOW_BYTES

    def give(self, run: Run) -> Give:
        sizes = [len(parcel) for parcel in run.parcels]
        self.window.update(zip(range(run.first, run.last + 1), zip(sizes, repeat(run.sender)), strict=False))
        self.window_bytes += sum(sizes)
        self.cursor = run.last
        return Give(self.name, run.first, run.parcels)

    @property
    def done(self) -> int:
        """Everything up to this sequence was acknowledged."""
        return next(iter(self.window)) - 1 if self.window else self.cursor


class Mailbox:
    """All mailboxes of one relay process; `woken` tells what other processes have put into them."""

    def __init__(
        self, usage: Usage | None = None, counted_to: int = 0, *, quota: Quota | None = None
    ) -> None:
        self._quotas = Quotas(quota or Quota())
        # Which rows the quotas know: those up to this sequence, and not these, acknowledged before their
        # verdict.
        self._counted_to = counted_to
        self._early: set[int] = set()
        self._sessions: dict[int, _Session] = {}
        self._by_device: dict[Key, _Session] = {}
        self._sound = True  # the store has confirmed everything since its last failure
        if usage:
            self._quotas.load(usage)

    # --- sessions ---

    def opened(self, session: int, uid: int, device: int) -> list[Action]:
        """A device has logged in; a connection that it had before gives way."""
        actions: list[Action] = []
        before = self._by_device.get((uid, device))
        if before is not None:
            actions.append(Close(before.name, *REPLACED))
            self.closed(before.name)
        self._sessions[session] = self._by_device[uid, device] = _Session(session, (uid, device))
        return actions

    def closed(self, session: int) -> None:
        """A connection is gone; what was not acknowledged on it is delivered on the next."""
        gone = self._sessions.pop(session, None)
        if gone is not None:
            del self._by_device[gone.key]

    def waiting(self, uid: int, device: int) -> int:
        """How many deliveries are stored for a device."""
        return self._quotas.waiting((uid, device))

    def sessions_of(self, uid: int) -> list[int]:
        """The sessions of a user's devices."""
        return [session.name for key, session in self._by_device.items() if key[0] == uid]

    def receive(self, session: int, after: int = 0) -> list[Action]:
        """A device wants its deliveries; those up to a sequence are on its disk."""
        found = self._sessions.get(session)
        if found is None or found.receiving:
            return []
        found.receiving = True
        found.cursor = after
        done = [Remove(*found.key, after)] if after else []
        return [*done, *self._pump(found)]

    def slow(self, session: int, slow: bool) -> list[Action]:
        """A device has stopped, or started again, to take in what it is sent."""
        found = self._sessions.get(session)
        if found is None:
            return []
        found.slow = slow
        return self._pump(found)

    # --- in ---

    def submit(self, letter: Letter) -> list[Action]:
        """An envelope that passed `judge`: stores it unless a recipient's quota is used up."""
        for index, (uid, device, parcel) in enumerate(letter.parcels):
            if not self._quotas.reserve((uid, device), letter.sender, len(parcel)):
                self._release(letter, index)
                refusal = Refused(
                    letter.id, "limit_reached", "The recipient's mailbox is full until they fetch it.", 60_000
                )
                return [Send(letter.session, refusal)]
        return [Store(letter)]

    def submit_all(self, letters: Sequence[Letter]) -> bool:
        """The same for letters of one session for the same devices, if there is room for all of them; gives
        whether they are to be stored.
        """
        first = letters[0]
        for index, (uid, device, _) in enumerate(first.parcels):
            size = sum([len(letter.parcels[index][2]) for letter in letters])
            if not self._quotas.reserve((uid, device), first.sender, size, len(letters)):
                for letter in letters:
                    self._release(letter, index)
                return False
        return True

    def kept(self, told: Iterable[tuple[Letter, Verdict]], runs: Sequence[Run]) -> list[Action]:
        """The store's verdicts, and what it has stored for whom, in the order of commitment."""
        return self.judged(told, runs) + self.committed(runs)

    def judged(self, told: Iterable[tuple[Letter, Verdict]], runs: Iterable[Run]) -> list[Action]:
        """The store's verdicts; what it has stored is `committed` once all before it is known."""
        actions: list[Action] = []
        ticks: dict[int, list[bytes]] = {}
        for letter, verdict in told:
            if verdict in ("stored", "duplicate"):
                ticks.setdefault(letter.session, []).append(letter.id)
            else:
                actions.append(Send(letter.session, not_taken(letter.id, verdict)))
            if verdict != "stored":
                self._release(letter, len(letter.parcels))
        actions += [Ticks(session, ids) for session, ids in ticks.items()]
        for run in runs:
            self._quotas.release((run.uid, run.device), run.sender, len(run.parcels), _size(run))
        return actions

    def committed(self, runs: Iterable[Run], named: Iterable[tuple[int, int, int]] = ()) -> list[Action]:
        """What was committed next, here or by another process; what was committed before it is known.

        Whose name is all that was told (uid, device and the last sequence) must read, and is given none of
        the runs: something else may lie between them.
        """
        actions = self.woken(named)
        for run in runs:
            self._arrived(run)
            self._hand_out(run, actions)
        return actions

    def expired(self, gone: Iterable[Run]) -> None:
        """The store has given runs up for their age."""
        for run in gone:
            self._quotas.gone((run.uid, run.device), run.sender, len(run.parcels), _size(run))

    # --- out ---

    def loaded(self, session: int, runs: Sequence[Run], more: bool) -> list[Action]:
        """A read has come back; `more` says that it may not have reached the end."""
        found = self._sessions.get(session)
        if found is None:
            return []
        found.loading = False
        actions: list[Action] = [found.give(run) for run in runs]
        found.behind = more or found.again
        found.again = False
        self._settle_count(found)
        return actions + self._pump(found)

    def load_failed(self, session: int) -> None:
        """A read did not come back; `poll` tries again."""
        found = self._sessions.get(session)
        if found is not None:
            found.loading = False

    def acknowledged(self, session: int, sequences: Iterable[int]) -> list[Action]:
        """A device has these on its disk. What was not on its way on this connection is not its to delete."""
        found = self._sessions.get(session)
        if found is None:
            return []
        before, window, counted_to = found.done, found.window, self._counted_to
        gone: dict[int, list[int]] = {}  # sizes by sender
        for sequence in sequences:
            given = window.pop(sequence, None)
            if given is None:
                continue
            size, sender = given
            found.window_bytes -= size
            if sequence > counted_to:
                self._early.add(sequence)
            else:
                gone.setdefault(sender, []).append(size)
        for sender, sizes in gone.items():
            self._quotas.gone(found.key, sender, len(sizes), sum(sizes))
        self._settle_count(found)
        removal = [Remove(*found.key, found.done)] if found.done > before else []
        return [*removal, *self._pump(found)]

    # --- the world outside changes ---

    def revoked(self, uid: int, device: int) -> list[Action]:
        """The chain says that a device is none any more: it is cut off and what waits for it is deleted."""
        actions: list[Action] = [Forget(uid, device)]
        session = self._by_device.get((uid, device))
        if session is not None:
            actions.append(Close(session.name, "revoked", "This device has been revoked."))
            self.closed(session.name)
        self._quotas.forget((uid, device))
        return actions

    def store_failed(self) -> None:
        """A commit may or may not have happened: nobody follows any more, all must read."""
        self._sound = False
        for session in self._sessions.values():
            session.behind = True
            session.again = session.loading

    def store_settled(self, usage: Usage, counted_to: int) -> list[Action]:
        """The store is back and shows everything that it committed; `usage` counts rows up to a sequence."""
        self._sound = True
        self.recounted(usage, counted_to)
        return self.poll()

    def recounted(self, usage: Usage, counted_to: int) -> None:
        """Other processes store and delete, too: takes the store's word for what waits."""
        self._quotas.load(usage)
        self._counted(counted_to)

    def woken(self, devices: Iterable[tuple[int, int, int]]) -> list[Action]:
        """Other processes have stored something for these: uid, device and the last sequence."""
        actions: list[Action] = []
        for uid, device, sequence in devices:
            session = self._by_device.get((uid, device))
            if session is None or sequence <= session.cursor:
                continue
            session.behind = True
            session.again = session.loading
            actions += self._pump(session)
        return actions

    def session_of(self, uid: int, device: int) -> int | None:
        """The session of a device, if it is connected here."""
        session = self._by_device.get((uid, device))
        return session.name if session is not None else None

    def holds(self, uid: int, device: int) -> bool:
        """Whether this device is connected here."""
        return (uid, device) in self._by_device

    def elsewhere(self, uid: int, device: int) -> list[Action]:
        """A device has logged in through another process."""
        session = self._by_device.get((uid, device))
        if session is None:
            return []
        self.closed(session.name)
        return [Close(session.name, *REPLACED)]

    def poll(self) -> list[Action]:
        """Takes up every read that is due after a failure."""
        actions: list[Action] = []
        for session in self._sessions.values():
            actions += self._pump(session)
        return actions

    # --- inside ---

    def _hand_out(self, run: Run, actions: list[Action]) -> None:
        session = self._by_device.get((run.uid, run.device))
        if session is None or not session.receiving:
            return
        if run.last <= session.cursor:
            return  # a read saw the rows committed before this verdict came, and gave them
        if session.behind or session.full or session.slow:  # all are behind while the store is away
            session.behind = True
            session.again = session.loading
            actions += self._pump(session)
            return
        actions.append(session.give(run))

    def _pump(self, session: _Session) -> list[Action]:
        """Starts a read if one is due and at least half of the window is free."""
        wanted = session.receiving and session.behind and not session.loading
        possible = self._sound and not session.slow
        room = len(session.window) <= WINDOW_ROWS // 2 and session.window_bytes <= WINDOW_BYTES // 2
        if not (wanted and possible and room):
            return []
        session.loading = True
        session.again = False
        uid, device = session.key
        rows, size = WINDOW_ROWS - len(session.window), WINDOW_BYTES - session.window_bytes
        return [Load(session.name, uid, device, session.cursor, rows, size)]

    def _release(self, letter: Letter, parcels: int) -> None:
        """Takes back what so many parcels of a letter had reserved."""
        for uid, device, parcel in letter.parcels[:parcels]:
            self._quotas.release((uid, device), letter.sender, 1, len(parcel))

    def _arrived(self, run: Run) -> None:
        """Counts what was stored; a recount may have come before, or an acknowledgement."""
        key, sizes = (run.uid, run.device), [len(parcel) for parcel in run.parcels]
        if run.first > self._counted_to:
            new = sizes
            if self._early:
                new = [size for n, size in enumerate(sizes, run.first) if n not in self._early]
            self._quotas.came(key, run.sender, len(new), sum(new))
        self._counted(run.last)

    def _counted(self, sequence: int) -> None:
        self._counted_to = max(self._counted_to, sequence)
        if self._early:
            self._early = {early for early in self._early if early > self._counted_to}

    def _settle_count(self, session: _Session) -> None:
        """Who follows and has acknowledged all has nothing waiting, whatever the count went through."""
        follows = session.receiving and not session.behind
        if follows and not session.window and self._quotas.waiting(session.key):
            self._quotas.forget(session.key)


def _size(run: Run) -> int:
    return sum(map(len, run.parcels))


def not_taken(id: bytes, verdict: Verdict) -> Refused:
    """What the sender of a message is told that the store did not take."""
    if verdict == "conflict":
        return Refused(id, "id_reused", "Another message with this id was stored before.", 0)
    return Refused(id, "store_unavailable", "The relay cannot store messages at the moment.", 2_000)
