"""The sessions of suite 2 that this device has with others: which one sends, which one opens, when one ends.

With each device there may be a few: both sides may have begun one at the same time, keys may have been
replaced, one side may have lost its own. What is sent goes out on the one that was last heard (or begun);
the others stay for a while to open what is still on its way. A session stands between two key versions, and
after either side's keys are replaced nothing more is sent on it.

Everything happens in a `Draft`, which reads sessions from the store and changes none of them. What comes of
it (`changes`) is stored in the transaction of the messages that it belongs to; a draft that is thrown away
has not happened. There must be no waiting between a draft's first look and the storing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from chatchain.client.own import Identity, Own
from chatchain.client.ports import Store
from chatchain.client.watch import Watch
from chatchain.crypto import prekeys
from chatchain.crypto import session as sessions
from chatchain.crypto.pqxdh import Handshake, Party
from chatchain.crypto.prekeys import Past, PrekeyBundle, PrekeyStore
from chatchain.crypto.session import Session
from chatchain.errors import (
    BadRecord,
    ForgedMessage,
    LimitReached,
    RefusedError,
    StoreUnavailable,
    Undecryptable,
)
from chatchain.identity.record import device_record
from chatchain.model import Device, KeptSession, SessionChanges, Uid, User

MAX_SESSIONS: Final = 4
"""Sessions kept with one device; the one heard longest ago goes first."""

KEEP_MS: Final = 30 * 24 * 3600 * 1000
"""How long a session that nothing is sent on any more stays to open what is still on its way."""

UNANSWERED_MS: Final = 30 * 24 * 3600 * 1000
"""After so long without any answer a new session is begun: the prekeys that the old one names go."""

AFRESH_MS: Final = 3600 * 1000
"""At most once in this time a message that nothing opens makes us begin a session anew with its device. More
often would let a relay that spoils messages use up prekeys.
"""

MAX_AFRESH: Final = 32
"""With so many devices within that time. More would have a relay that invents messages of everybody make us
write to everybody.
"""


Fresh = dict[tuple[int, int, int], Session]
"""Sessions that were begun and that nothing was sent on, by (uid, device, key version)."""


@dataclass(frozen=True)
class Line:
    """A session as it is kept, and its state."""

    kept: KeptSession
    session: Session


@dataclass(frozen=True)
class Step:
    """A header that was opened and changes nothing until it is kept: what it carried, by which keys."""

    carried: bytes
    line: Line
    own: Identity
    prekeys: PrekeyStore | None = None


class NoSession(RefusedError):
    """There is no session with a device, and no prekeys to begin one."""

    code = "no_session"


class LostSession(Undecryptable):
    """No session opens a message: one side has lost its own, or the message was altered."""


class Sessions:
    """What this device has with others."""

    def __init__(self, own: Own, store: Store, now_ms: Callable[[], int]) -> None:
        self._own = own
        self._store = store
        self._now_ms = now_ms

    def draft(self) -> Draft:
        """A look at the sessions as they are stored now."""
        return Draft(self._own, self._store, self._now_ms())

    def has(self, them: Party) -> bool:
        """Whether something can be sent to a device without beginning a session."""
        now = self._now_ms()
        kept = self._store.sessions(them.uid, them.record.device)
        return any(_sends(each, them.record.version, self._own.version, now) for each in kept)

    def begin(self, them: Party, bundle: PrekeyBundle) -> Session:
        """A new session, which is kept by the draft that first sends on it; raises BadRecord."""
        own = self._own
        return sessions.initiate(
            own.network, own.secrets, own.identity.party, them, bundle, self._now_ms() // 1000
        )

    async def sweep(self, watch: Watch) -> None:
        """Tidies up after everybody."""
        for uid in dict.fromkeys(uid for uid, _ in self._store.session_devices()):
            user = await watch.user(Uid(uid))
            if user is not None:  # else a reorg: nothing is settled yet
                self.tidy(user)

    def tidy(self, user: User) -> None:
        """Deletes the sessions with devices that the chain has revoked, and those whose time is over."""
        active = {device.device for device in user.active_devices}
        draft = self.draft()
        for uid, device in self._store.session_devices():
            if uid == user.uid and device not in active:
                draft.forget(uid, device)
            elif uid == user.uid:
                draft.expire(uid, device)
        if draft.changes != SessionChanges():
            self._store.change_sessions(draft.changes)


def stock_changes(stock: PrekeyStore) -> SessionChanges:
    """What is to be stored when the prekeys have changed."""
    return SessionChanges(
        prekeys=prekeys.encode_store(stock),
        begun=tuple((each.signed_id, each.user, each.mark) for each in stock.begun),
        oldest_prekey=min(pair.signed_id for pair in stock.pairs),
    )


class Draft:
    """Sessions on the way from one stored state to the next."""

    def __init__(self, own: Own, store: Store, now_ms: int) -> None:
        self._own = own
        self._store = store
        self._now_ms = now_ms
        self._lines: dict[tuple[int, int], dict[bytes, Line]] = {}
        self._changed: set[tuple[int, int, bytes]] = set()
        self._gone: set[tuple[int, int, bytes]] = set()
        self._lost: dict[tuple[int, int], int] = {}
        self._prekeys: PrekeyStore | None = None

    @property
    def changes(self) -> SessionChanges:
        """What is to be stored."""
        kept = []
        for uid, device, id_ in sorted(self._changed):
            line = self._lines[uid, device][id_]
            kept.append(msgspec.structs.replace(line.kept, state=sessions.encode_session(line.session)))
        return msgspec.structs.replace(
            stock_changes(self._prekeys) if self._prekeys is not None else SessionChanges(),
            kept=tuple(kept),
            gone=tuple(sorted(self._gone)),
            lost=tuple((*key, at) for key, at in sorted(self._lost.items())),
        )

    # --- out ------------------------------------------------------------------------------------------------

    def encrypt(self, them: Party, plaintext: bytes, ad: bytes, fresh: Fresh) -> bytes:
        """One message to a device: on the session heard last, else on the one in `fresh`; raises NoSession.

        What is taken from `fresh` leaves it: a session that began twice would use its keys twice.
        """
        whose = them.uid, them.record.device, them.record.version
        line = self._sending(them)
        if line is None and whose in fresh:
            session = fresh.pop(whose)
            line = Line(self._kept(them, session, self._own.version, begun_ms=self._now_ms), session)
        if line is None:
            raise NoSession(f"There is no session with device {them.record.device} of user {them.uid}.")
        return self._encrypted(line, plaintext, ad)

    def encrypt_signal(self, them: Party, plaintext: bytes, ad: bytes) -> bytes | None:
        """One message to a device that may get lost; None where that would do harm."""
        line = self._sending(them)
        if line is None or not sessions.may_be_lost(line.session):
            return None
        return self._encrypted(line, plaintext, ad)

    def _sending(self, them: Party) -> Line | None:
        """The session on which something is sent to a device: the one heard last."""
        lines = self._of(them.uid, them.record.device).values()
        version, now = them.record.version, self._now_ms
        able = [one for one in lines if _sends(one.kept, version, self._own.version, now)]
        return max(able, key=lambda one: one.kept.rank, default=None)

    def _encrypted(self, line: Line, plaintext: bytes, ad: bytes) -> bytes:
        after, message = sessions.encrypt(line.session, plaintext, ad)
        self._put(Line(msgspec.structs.replace(line.kept, used_ms=self._now_ms), after))
        return message

    # --- in -------------------------------------------------------------------------------------------------

    def decrypt(self, sender: User, device: Device, message: bytes, ad: bytes) -> Step:
        """Opens a header that came from a device; raises LostSession and other VerificationErrors.

        Nothing has changed until `keep`.
        """
        try:
            begun = sessions.initial_handshake(message)
        except Undecryptable as neither:
            raise LostSession(neither.message) from neither
        lines = self._of(sender.uid, device.device)
        if begun is not None and begun[0] not in lines:
            return self._accept(sender, device, begun, message, ad)
        able = [lines[begun[0]]] if begun is not None else _by_rank(lines)
        for line in able:
            own = self._own.identity_of(line.kept.own_version)
            if own is None:
                continue
            try:
                after, carried = sessions.decrypt(line.session, message, ad, self._now_ms // 1000)
            except Undecryptable:
                continue
            return Step(carried, Line(line.kept, after), own)
        raise LostSession(
            "The message belongs to no session that this device has, or was altered on its way."
            if able
            else "The message belongs to a session that this device does not have."
        )

    def _accept(
        self, sender: User, device: Device, begun: tuple[bytes, Handshake], message: bytes, ad: bytes
    ) -> Step:
        handshake = begun[1]
        entry = next((one for one in device.history if one.version == handshake.initiator_version), None)
        if entry is None:
            raise ForgedMessage(
                f"The message begins a session with key version {handshake.initiator_version} of device "
                f"{device.device} of {sender.username}, which the chain does not list."
            )
        own = self._own.identity_of(handshake.responder_version)
        if own is None:
            raise LostSession("The message begins a session with keys that this device no longer has.")
        them = Party(sender.uid, device_record(self._own.network, sender, device, entry))
        try:
            past = Past(*self._store.handshakes(handshake.signed_id, sender.uid))
            stock, session, carried = sessions.accept(
                self._stock(), past, own.secrets, own.party, them, message, ad, self._now_ms // 1000
            )
        except (Undecryptable, BadRecord, LimitReached) as refused:
            raise LostSession(refused.message) from refused
        kept = self._kept(them, session, own.party.record.version, begun_ms=0)
        return Step(carried, Line(kept, session), own, stock)

    def keep(self, step: Step) -> None:
        """Makes what was opened the state from which to go on."""
        kept = step.line.kept
        rank = self._next_rank(kept.uid, kept.device)
        kept = msgspec.structs.replace(kept, rank=rank, used_ms=self._now_ms, begun_ms=0, retired=False)
        self._put(Line(kept, step.line.session))
        if step.prekeys is not None:
            self._prekeys = step.prekeys

    def lost(self, uid: int, device: int) -> bool:
        """Has the next message to a device begin a new session; says no if that was done just now."""
        before = max(self._store.lost_ms(uid, device), self._lost.get((uid, device), 0))
        since = self._now_ms - AFRESH_MS
        if before > since or self._store.lost_since(since) + len(self._lost) >= MAX_AFRESH:
            return False
        self._lost[uid, device] = self._now_ms
        for line in list(self._of(uid, device).values()):
            self._put(replace(line, kept=msgspec.structs.replace(line.kept, retired=True)))
        return True

    # --- ends -----------------------------------------------------------------------------------------------

    def forget(self, uid: int, device: int) -> None:
        """Ends every session with a device."""
        for id_ in list(self._of(uid, device)):
            self._end(uid, device, id_)

    def expire(self, uid: int, device: int) -> None:
        """Ends the sessions with a device that were not used for long, but for the one heard last."""
        for line in _by_rank(self._of(uid, device))[1:]:
            if line.kept.used_ms < self._now_ms - KEEP_MS:
                self._end(uid, device, line.kept.id)

    # --- inside ---------------------------------------------------------------------------------------------

    def _of(self, uid: int, device: int) -> dict[bytes, Line]:
        lines = self._lines.get((uid, device))
        if lines is None:
            kept = self._store.sessions(uid, device)
            with _of_this_program("sessions"):
                lines = {each.id: Line(each, sessions.decode_session(each.state)) for each in kept}
            self._lines[uid, device] = lines
        return lines

    def _stock(self) -> PrekeyStore:
        if self._prekeys is None:
            stored = self._store.prekeys()
            if stored is None:
                raise LostSession("The message begins a session, and this device has published no prekeys.")
            with _of_this_program("prekeys"):
                return prekeys.decode_store(stored)
        return self._prekeys

    def _kept(self, them: Party, session: Session, own_version: int, begun_ms: int) -> KeptSession:
        uid, device = them.uid, them.record.device
        return KeptSession(
            uid=uid,
            device=device,
            id=session.id,
            version=them.record.version,
            own_version=own_version,
            rank=self._next_rank(uid, device),
            begun_ms=begun_ms,
            used_ms=self._now_ms,
            retired=False,
            state=b"",
        )

    def _next_rank(self, uid: int, device: int) -> int:
        return max((line.kept.rank for line in self._of(uid, device).values()), default=0) + 1

    def _put(self, line: Line) -> None:
        kept = line.kept
        lines = self._of(kept.uid, kept.device)
        lines[kept.id] = line
        self._changed.add((kept.uid, kept.device, kept.id))
        self._gone.discard((kept.uid, kept.device, kept.id))
        for oldest in _by_rank(lines)[MAX_SESSIONS:]:
            self._end(kept.uid, kept.device, oldest.kept.id)

    def _end(self, uid: int, device: int, id_: bytes) -> None:
        del self._lines[uid, device][id_]
        self._changed.discard((uid, device, id_))
        self._gone.add((uid, device, id_))


@contextmanager
def _of_this_program(what: str) -> Iterator[None]:
    """What cannot be read of one's own is no fault of a message: it stays at the relay until it can be."""
    try:
        yield
    except BadRecord as unreadable:
        raise StoreUnavailable(
            f"The {what} of this home were saved by a newer chatchain.", "Update chatchain."
        ) from unreadable


def _by_rank(lines: dict[bytes, Line]) -> list[Line]:
    return sorted(lines.values(), key=lambda line: line.kept.rank, reverse=True)


def _sends(kept: KeptSession, version: int, own_version: int, now_ms: int) -> bool:
    """Whether something may be sent on a session."""
    current = (kept.version, kept.own_version) == (version, own_version)
    return current and not kept.retired and (not kept.begun_ms or kept.begun_ms > now_ms - UNANSWERED_MS)
