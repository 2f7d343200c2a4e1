"""The inbox: from a delivery to a stored message, and only then an acknowledgement.

A delivery is opened, its sender checked against the keys that the chain lists, and what it comes to is
stored in one transaction together with the sessions after it and the receipt that is owed for it; a
(sender, id) that is there already changes nothing. What does not hold becomes a notice that says what
happened: it is stored and acknowledged too, or it would come back for ever. So does a delivery on which this
program itself stumbles: one message must not keep all others out. The notice's own id is a digest of the
delivery, so a forgery cannot take the place of the real message. What no session opens makes the next message
to its device begin a new one, and the sender is told.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from chatchain.client import reading
from chatchain.client.own import Own
from chatchain.client.people import People, changes
from chatchain.client.ports import Store
from chatchain.client.reading import FILE, NOTICE, TEXT
from chatchain.client.sealing import RECEIPT
from chatchain.client.sessions import Draft, LostSession, Sessions, Step
from chatchain.client.times import second_text
from chatchain.client.watch import Watch
from chatchain.crypto import content as contents
from chatchain.crypto.content import Receipt, ReceiptKind, Typing, TypingState, Unsupported
from chatchain.crypto.prekeys import refuse_downgrade
from chatchain.crypto.ratcheted import associated_data, open_body
from chatchain.crypto.sealed import Opened, open_
from chatchain.errors import (
    BadRecord,
    ChatchainError,
    ForgedMessage,
    KeyChanged,
    RevokedSender,
    VerificationError,
)
from chatchain.identity.record import SUPERSEDED_GRACE_MS, device_record, listed_device, signing_key_for
from chatchain.model import (
    MESSAGE_ID_BYTES,
    RELAYS_WORD,
    Arrival,
    DeedKind,
    Delivery,
    Device,
    Direction,
    MessageId,
    MessageState,
    Outgoing,
    Policy,
    Progress,
    SessionChanges,
    StoredMessage,
    Suite,
    Uid,
    User,
)
from chatchain.wire.bounds import MAX_NAMED

TYPING_MS: Final = 15_000
"""How old a sign of typing may be; an older one says nothing any more."""

SIGNAL_LASTS_MS: Final = 5 * 60 * 1000
"""How far from now a signal may be dated, which gives no time of arrival: two clocks are in it."""

AHEAD_MS: Final = 30 * 24 * 3600 * 1000
"""How far ahead a message of suite 1 may be dated: it is remembered from its date on."""

FRESH_S: Final = 5.0
"""How old the fold may be when messages are judged by it; a key or member that it does not know is looked for
at once.
"""

_NOT_ITS_FAULT: Final = (ChatchainError, MemoryError, OSError)
"""What is wrong with the machine, the chain or the database, and says nothing about one delivery."""

_STATES: Final = {
    ReceiptKind.DELIVERED: MessageState.DELIVERED,
    ReceiptKind.READ: MessageState.READ,
}


@dataclass(frozen=True)
class Taken:
    """What a batch of deliveries came to: the messages that are new here, and what may be acknowledged."""

    fresh: list[StoredMessage]
    sequences: tuple[int, ...]
    typing: list[tuple[Uid, bool]]
    """Who began to type just now, or gave up."""
    deletes: bool = False
    """Whether a message was taken back or is over a bound, and its file with it."""


class Inbox:
    """Takes deliveries in."""

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
        self._sessions = sessions
        self._now_ms = now_ms

    async def take(self, deliveries: Sequence[Delivery], progress: Progress) -> Taken:
        """Opens, checks and stores deliveries and how far they bring this home; afterwards they may be
        acknowledged.
        """
        fresh_fold = await self._watch.sync_if_older(FRESH_S)
        fold = await self._fold(deliveries)
        judged = self._judged(deliveries, fold)
        if judged.forged and not fresh_fold:
            # The key, device or seat may be newer than our fold: no message is called forged by an old one.
            await self._watch.sync()
            fold = await self._fold(deliveries)
            judged = self._judged(deliveries, fold)
        # Before it is stored, as what is stored is never looked at again, whatever happens in between.
        self._list(judged.arrivals, fold)
        changed = self._changed_keys(judged.arrivals, fold)
        told = self._store.take_in(changed) if changed else []
        fresh = told + self._stored(deliveries, fold, judged, progress)
        typing = [
            (arrival.sender, arrival.typing == TypingState.STARTED)
            for delivery, arrival in zip(deliveries, judged.arrivals, strict=True)
            if arrival.typing and self._now_ms() - delivery.received_ms <= TYPING_MS
        ]
        deletes = any(
            arrival.deed is not None and arrival.deed.kind is DeedKind.DELETE for arrival in judged.arrivals
        )
        deletes = self._store.trim(self._own.uid, self._now_ms()) or deletes
        return Taken(fresh, tuple(delivery.sequence for delivery in deliveries), typing, deletes)

    async def hear(self, signals: Sequence[Delivery]) -> list[tuple[Uid, bool]]:
        """Opens signals and says who began to type, or gave up.

        What cannot be opened is nobody's business: anybody on the way could have made it. What is not a
        signal is not taken in on this way, and its session stays as it was.
        """
        fold = await self._fold(signals)
        draft, typing = self._sessions.draft(), []
        for delivery in signals:
            sender = fold.users[Uid(delivery.sender)]
            if sender is None or (fold.members is not None and sender.uid not in fold.members):
                continue
            with suppress(VerificationError):
                step, opened = self._step(delivery, sender, draft)
                if isinstance(opened.content, Typing) and step.prekeys is None:
                    draft.keep(step)
                    if abs(self._now_ms() - opened.time_ms) > SIGNAL_LASTS_MS:
                        continue  # somebody on the way kept it back
                    typing.append((sender.uid, opened.content.state is TypingState.STARTED))
        if draft.changes != SessionChanges():
            self._store.change_sessions(draft.changes)
        return typing

    async def _fold(self, deliveries: Sequence[Delivery]) -> _Fold:
        """What the chain says of everybody concerned."""
        uids = {Uid(delivery.sender) for delivery in deliveries}
        uids |= {Uid(one.recipient) for one in deliveries if one.sender == self._own.uid}
        group = await self._watch.group()
        members = frozenset(member.uid for member in group.members)
        return _Fold(
            {uid: await self._watch.user(uid) for uid in uids},
            members if group.policy is Policy.VOTE else None,
        )

    # --- from here to the storing nothing waits, so no session can change in between ------------------------

    def _list(self, arrivals: Sequence[Arrival], fold: _Fold) -> None:
        """Lists whoever has written among the contacts; to whom another device wrote, this user has met."""
        written = [one.message for one in arrivals if one.message and one.message.kind in (TEXT, FILE)]
        met = {message.peer for message in written if message.direction is Direction.OUT}
        for uid in {message.peer for message in written}:
            if (user := fold.users[uid]) is not None:
                self._people.remember(user, met=uid in met)

    def _changed_keys(self, arrivals: Sequence[Arrival], fold: _Fold) -> list[Arrival]:
        """A notice about each who writes and has other keys than those that a person compared; one a change.

        Sending to them stops; whoever only reads is to know it as well.
        """
        written = [one.message for one in arrivals if one.message and one.message.kind in (TEXT, FILE)]
        found: list[Arrival] = []
        for uid in sorted({one.peer for one in written if one.direction is Direction.IN}):
            user, contact = fold.users[uid], self._store.contact(uid)
            if user is None or contact is None or contact.pin is None:
                continue
            changed = "; ".join(changes(contact.pin, user))
            own_id = _changed_id(uid, contact.pin.block, changed)
            if changed and not self._store.has_seen(uid, own_id):
                found.append(self._about_keys(user, own_id, changed))
        return found

    def _about_keys(self, user: User, own_id: MessageId, changed: str) -> Arrival:
        now = self._now_ms()
        message = StoredMessage(
            id=own_id,
            sender=user.uid,
            device=user.devices[0].device,
            peer=user.uid,
            direction=Direction.IN,
            kind=NOTICE,
            text=f"The keys of {user.username} changed since you verified them: {changed}. What follows may "
            "be somebody else's, until you have compared the safety number again: `chatchain contacts verify "
            f"{user.username}`.",
            time_ms=now,
            code=KeyChanged.code,
            received_ms=now,
            arrived_ms=now,
        )
        return Arrival(user.uid, own_id, message=message, at_ms=now)

    def _stored(
        self, deliveries: Sequence[Delivery], fold: _Fold, judged: _Judged, progress: Progress
    ) -> list[StoredMessage]:
        """Stores arrivals in one transaction; one that cannot be stored as it is becomes a notice."""
        try:
            return self._store.take_in(judged.arrivals, judged.changes, progress)
        except _NOT_ITS_FAULT:
            raise  # nothing was stored, nothing is acknowledged, everything comes again
        except Exception:
            fresh: list[StoredMessage] = []
            for delivery in deliveries:
                alone = self._judged([delivery], fold)
                try:
                    fresh += self._store.take_in(alone.arrivals, alone.changes)
                except _NOT_ITS_FAULT:
                    raise
                except Exception as bug:
                    sender = fold.users[Uid(delivery.sender)]
                    told = self._notice(delivery, sender, _stumbled(bug))
                    fresh += self._store.take_in([msgspec.structs.replace(told, at_ms=self._now_ms())])
            return fresh + self._store.take_in([], progress=progress)

    def _judged(self, deliveries: Sequence[Delivery], fold: _Fold) -> _Judged:
        """What deliveries come to, in their order, with the sessions after them."""
        draft, arrivals, forged = self._sessions.draft(), list[Arrival](), False
        taken = set[tuple[int, bytes]]()
        for delivery in deliveries:
            sender = fold.users[Uid(delivery.sender)]
            try:
                if (delivery.sender, delivery.id) in taken or self._store.has_seen(
                    Uid(delivery.sender), delivery.id
                ):
                    # It is there: the acknowledgement got lost, or the relay repeats it. Its key is used up.
                    arrival = Arrival(Uid(delivery.sender), delivery.id)
                elif delivery.suite == RELAYS_WORD:
                    arrival = _relays_word(delivery)
                else:
                    arrival = self._arrival(delivery, sender, fold.members, draft)
            except VerificationError as flaw:
                forged = forged or isinstance(flaw, ForgedMessage)
                arrival = self._notice(delivery, sender, flaw)
                if isinstance(flaw, LostSession) and draft.lost(delivery.sender, delivery.sender_device):
                    arrival = msgspec.structs.replace(arrival, answer=self._unreadable(delivery))
            except _NOT_ITS_FAULT:
                raise
            except Exception as bug:
                arrival = self._notice(delivery, sender, _stumbled(bug))
            arrivals.append(msgspec.structs.replace(arrival, at_ms=max(arrival.at_ms, self._now_ms())))
            taken.add((arrival.sender, arrival.id))
        return _Judged(arrivals, draft.changes, forged)

    def _arrival(
        self, delivery: Delivery, sender: User | None, members: frozenset[Uid] | None, draft: Draft
    ) -> Arrival:
        if sender is None:
            raise ForgedMessage(
                f"A message claims to come from user {delivery.sender}, whom the chain does not list."
            )
        if delivery.recipient != self._own.uid and delivery.sender != self._own.uid:
            raise ForgedMessage(f"A message of {sender.username} for somebody else was delivered here.")
        if members is not None and sender.uid not in members:
            raise ForgedMessage(
                f"A message comes from {sender.username}, who is not a member of this network."
            )
        opened = self._open(delivery, sender, draft)
        arrival: Arrival | None
        match opened.content:
            case Receipt(ReceiptKind.UNREADABLE):
                return self._could_not_read(delivery, sender)
            case Receipt(kind, ids):
                states = tuple((message, _STATES[kind]) for message in ids)
                arrival = Arrival(sender.uid, delivery.id, states=states)
            case Unsupported():
                arrival = None
            case content:
                arrival = reading.arrival(
                    delivery, sender, self._own.uid, content, opened.time_ms, self._now_ms()
                )
        if arrival is None:
            raise _TooNew(f"{sender.username} sent something that this version of chatchain cannot show.")
        ahead = opened.time_ms if delivery.suite == Suite.SEALED else 0
        return msgspec.structs.replace(arrival, at_ms=ahead)

    def _open(self, delivery: Delivery, sender: User, draft: Draft) -> Opened:
        if not delivery.header:
            # There is nothing in it that the sender vouched for: it is for the relay to say, and may be
            # untrue.
            raise _PassedBy(
                f"The relay says that {sender.username} sent a message before this device had published its "
                "keys. It carries no signature; if it is so, only your other devices can read it."
            )
        if delivery.suite == Suite.RATCHET:
            return self._open_ratchet(delivery, sender, draft)
        return self._open_sealed(delivery, sender)

    def _open_ratchet(self, delivery: Delivery, sender: User, draft: Draft) -> Opened:
        step, opened = self._step(delivery, sender, draft)
        draft.keep(step)
        return opened

    def _step(self, delivery: Delivery, sender: User, draft: Draft) -> tuple[Step, Opened]:
        if delivery.sender_device not in {device.device for device in sender.active_devices}:
            draft.forget(sender.uid, delivery.sender_device)
        device = listed_device(sender, delivery.sender_device)
        ad = associated_data(
            self._own.network, delivery.id, sender.uid, delivery.sender_device, delivery.recipient
        )
        step = draft.decrypt(sender, device, delivery.header, ad)
        content, time_ms = open_body(step.carried, delivery.body)
        version = step.line.kept.version
        # A session stands for as long as the keys that it was begun between: the same rule as for signatures.
        signing_key_for(self._own.network, sender, device.device, version, time_ms, delivery.received_ms)
        if step.own.until_ms is not None and max(time_ms, delivery.received_ms) > step.own.until_ms:
            raise LostSession("The message was sent to keys of this device that have been replaced.")
        return step, Opened(content, time_ms, version)

    def _open_sealed(self, delivery: Delivery, sender: User) -> Opened:
        def resolve(uid: int, device: int, version: int, time_ms: int) -> bytes:
            assert uid == sender.uid
            return signing_key_for(self._own.network, sender, device, version, time_ms, delivery.received_ms)

        opened = open_(
            self._own.network,
            delivery,
            uid=self._own.uid,
            device=self._own.device,
            keys=self._own.readers,
            resolve=resolve,
        )
        now = self._now_ms()
        if not self._store.forgotten_ms(sender.uid, now) < opened.time_ms <= now + AHEAD_MS:
            # A session opens nothing twice. Here only the memory of what was taken in stands against a
            # repeat, and it does not reach that far.
            raise _FarOff(
                f"A message of {sender.username}, sealed the old way, bears a date so far off that it cannot "
                "be told from a repeated one."
            )
        since = self._own.ratchet_since_ms
        if since is not None and max(opened.time_ms, delivery.received_ms) > since:
            device = listed_device(sender, delivery.sender_device)
            entry = next(one for one in device.history if one.version == opened.version)
            record = device_record(self._own.network, sender, device, entry)
            try:
                refuse_downgrade(record, delivery.suite)
            except BadRecord as downgraded:
                raise _Downgraded(
                    f"A message of {sender.username} came sealed the old way, although both devices speak "
                    "the newer one."
                ) from downgraded
        return opened

    def _could_not_read(self, delivery: Delivery, sender: User) -> Arrival:
        """A device of the other side says that it could not open something of ours."""
        message = StoredMessage(
            id=delivery.id,
            sender=sender.uid,
            device=delivery.sender_device,
            peer=sender.uid,
            direction=Direction.IN,
            kind=NOTICE,
            text=f"A device of {sender.username} could not read a message of yours. What you write now "
            "reaches it again; if something matters, send it once more.",
            time_ms=min(delivery.received_ms, self._now_ms()),
            code="unreadable_there",
            received_ms=delivery.received_ms,
            arrived_ms=self._now_ms(),
        )
        return Arrival(sender.uid, delivery.id, message=message)

    def _unreadable(self, delivery: Delivery) -> Outgoing | None:
        """Tells the sender, on the new session that sending it begins; one's own devices are told by the next
        message.
        """
        if delivery.sender == self._own.uid:
            return None
        content = contents.receipt(ReceiptKind.UNREADABLE, (delivery.id,))
        return Outgoing(
            os.urandom(MESSAGE_ID_BYTES),
            Uid(delivery.sender),
            RECEIPT,
            contents.encode(content),
            self._now_ms(),
        )

    def _notice(self, delivery: Delivery, sender: User | None, flaw: VerificationError) -> Arrival:
        own_id = notice_id(delivery)
        if isinstance(flaw, RevokedSender) and sender is not None:
            device = next(one for one in sender.devices if one.device == delivery.sender_device)
            flaw = _from_revoked(sender, device, delivery.received_ms, own=sender.uid == self._own.uid)
            if isinstance(flaw, RevokedSender):  # one word for all that it had sent
                own_id = _revoked_id(sender, device)
        peer = Uid(delivery.sender)
        message = StoredMessage(
            id=own_id,
            sender=peer,
            device=delivery.sender_device,
            peer=peer,
            direction=Direction.IN,
            kind=NOTICE,
            text=f"{flaw.message} {_next_step(flaw, sender)}".rstrip(),
            time_ms=min(delivery.received_ms, self._now_ms()),
            code=flaw.code,
            received_ms=delivery.received_ms,
            arrived_ms=self._now_ms(),
        )
        return Arrival(peer, own_id, message=message)


@dataclass(frozen=True)
class _Fold:
    """What the chain says of who a batch is from, or to for one's own, and who may message (None: everybody
    registered).
    """

    users: dict[Uid, User | None]
    members: frozenset[Uid] | None


@dataclass(frozen=True)
class _Judged:
    """What a batch comes to; nothing of it is stored yet."""

    arrivals: list[Arrival]
    changes: SessionChanges
    forged: bool
    """Whether something in it claims what the chain does not bear out."""


class _Downgraded(VerificationError):
    """A message of an older suite where a newer one is spoken."""

    code = "downgraded"
    default_hint = "Nothing of it is shown: somebody may have made it with stolen keys."


class _FarOff(VerificationError):
    """A message without a session, of a time at which nothing is remembered of what was taken in."""

    code = "too_far_off"


class _PassedBy(VerificationError):
    """A message that was not encrypted to this device."""

    code = "not_for_this_device"


class _TooNew(VerificationError):
    """A message of a kind that this program does not know."""

    code = "unsupported"
    default_hint = "Update chatchain to see it, and ask for it again."


class _Stumbled(VerificationError):
    """A message that this program has no proper answer to, which is a mistake in the program."""

    code = "not_understood"
    default_hint = "Update chatchain; if this happens again, report it."


def _stumbled(bug: Exception) -> _Stumbled:
    """The flaw that stands for an unexpected failure; what the failure says may hold a secret, its name does
    not.
    """
    return _Stumbled(f"A message could not be taken in ({type(bug).__name__}).")


def _from_revoked(sender: User, device: Device, received_ms: int, *, own: bool) -> VerificationError:
    """What is said of a message by a device that is revoked by now.

    What came before, by the relay's clock, may be what the owner wrote; it is not shown even so, for nobody
    but the relay says when it came.
    """
    which = f"your device {device.device}" if own else f"{sender.username}'s device {device.device}"
    when = f"was revoked at block {device.revoked_block} ({second_text(device.revoked_time)})"
    if received_ms > device.revoked_time * 1000 + SUPERSEDED_GRACE_MS:
        return ForgedMessage(
            f"A message claims to come from {which}, which {when}; by the relay's own clock it came later, "
            "and the relay should have refused it."
        )
    what = (
        f"{which} {when}. What it had sent before, and this device fetches only now, is not shown: a thief "
        "of the device could have made it, and that it came before is the relay's word alone."
    )
    step = (
        "Whom you wrote to from it may have read it; what matters, send once more."
        if own
        else f"If you miss something, ask {sender.username} to send it again."
    )
    return RevokedSender(what[0].upper() + what[1:], step)


def _revoked_id(sender: User, device: Device) -> MessageId:
    """The id of the notice about everything that came too late from a revoked device."""
    place = sender.uid.to_bytes(8, "big") + device.device.to_bytes(8, "big")
    return MessageId(hashlib.sha256(b"chatchain/1 revoked" + place).digest()[:16])


def _changed_id(uid: Uid, since: int, changed: str) -> MessageId:
    """The id of the notice about keys that are not those that were compared."""
    what = uid.to_bytes(8, "big") + since.to_bytes(8, "big") + changed.encode()
    return MessageId(hashlib.sha256(b"chatchain/1 changed" + what).digest()[:16])


def _next_step(flaw: VerificationError, sender: User | None) -> str:
    """What a person can do about a message that cannot be shown."""
    if flaw.hint or sender is None:
        return flaw.hint
    return f"If you expected a message, ask {sender.username} to send it again."


def _relays_word(delivery: Delivery) -> Arrival:
    """What the relay says that nobody fetched; under an id that is no message's, so that it hides none."""
    starts = range(0, len(delivery.body), MESSAGE_ID_BYTES)
    messages = tuple(delivery.body[start : start + MESSAGE_ID_BYTES] for start in starts)
    return Arrival(Uid(delivery.sender), notice_id(delivery), dropped=messages[:MAX_NAMED])


def notice_id(delivery: Delivery) -> MessageId:
    """The id of the notice about a delivery: the same for the same bytes, however often they come."""
    digest = hashlib.sha256(b"chatchain/1 notice")
    for part in (
        delivery.id,
        delivery.sender.to_bytes(8, "big"),
        delivery.sender_device.to_bytes(8, "big"),
        delivery.recipient.to_bytes(8, "big"),
        hashlib.sha256(delivery.header).digest(),
        hashlib.sha256(delivery.body).digest(),
    ):
        digest.update(part)
    return MessageId(digest.digest()[:16])
