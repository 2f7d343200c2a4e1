"""The inbox: from a delivery to a stored message, and only then an acknowledgement.

A delivery is opened, its signature checked against the keys that the chain lists, and what it comes to is
stored in one transaction together with the receipt that is owed for it; a (sender, id) that is there already
changes nothing. What does not hold becomes a notice that says what happened: it is stored and acknowledged
too, or it would come back for ever. So does a delivery on which this program itself stumbles: one message
must not keep all others out. The notice's own id is a digest of the delivery, so a forgery cannot take the
place of the real message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from chatchain.client.contacts import People
from chatchain.client.own import Own
from chatchain.client.ports import Store
from chatchain.client.watch import Watch
from chatchain.crypto.content import Receipt, ReceiptKind, Text
from chatchain.crypto.sealed import Opened, open_
from chatchain.errors import ChatchainError, ForgedMessage, VerificationError
from chatchain.identity.record import signing_key_for
from chatchain.model import (
    Arrival,
    Delivery,
    Direction,
    MessageId,
    MessageState,
    Policy,
    StoredMessage,
    Uid,
    User,
)

TEXT: Final = "text"
NOTICE: Final = "notice"

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


class Inbox:
    """Takes deliveries in."""

    def __init__(
        self, own: Own, store: Store, watch: Watch, people: People, now_ms: Callable[[], int]
    ) -> None:
        self._own = own
        self._store = store
        self._watch = watch
        self._people = people
        self._now_ms = now_ms

    async def take(self, deliveries: Sequence[Delivery]) -> Taken:
        """Opens, checks and stores deliveries; afterwards they may be acknowledged."""
        fresh_fold = await self._watch.sync_if_older(FRESH_S)
        judged = [await self._judged(delivery) for delivery in deliveries]
        if not fresh_fold and any(isinstance(outcome, ForgedMessage) for outcome in judged):
            # The key, device or seat may be newer than our fold: no message is called forged by an old one.
            await self._watch.sync()
            judged = [await self._judged(delivery) for delivery in deliveries]
        arrivals = [
            outcome if isinstance(outcome, Arrival) else await self._notice(delivery, outcome)
            for delivery, outcome in zip(deliveries, judged, strict=True)
        ]
        fresh = await self._stored(deliveries, arrivals)
        for uid in {message.peer for message in fresh if message.kind == TEXT}:
            self._people.remember(await self._people.require(uid))
        return Taken(fresh, tuple(delivery.sequence for delivery in deliveries))

    async def _stored(
        self, deliveries: Sequence[Delivery], arrivals: Sequence[Arrival]
    ) -> list[StoredMessage]:
        """Stores arrivals in one transaction; one that cannot be stored as it is becomes a notice."""
        try:
            return self._store.take_in(arrivals)
        except _NOT_ITS_FAULT:
            raise  # nothing was stored, nothing is acknowledged, everything comes again
        except Exception:
            fresh: list[StoredMessage] = []
            for delivery, arrival in zip(deliveries, arrivals, strict=True):
                try:
                    fresh += self._store.take_in([arrival])
                except _NOT_ITS_FAULT:
                    raise
                except Exception as bug:
                    fresh += self._store.take_in([await self._notice(delivery, _stumbled(bug))])
            return fresh

    async def _members(self) -> frozenset[Uid] | None:
        """Who may message, or None where everybody registered may."""
        group = await self._watch.group()
        return frozenset(member.uid for member in group.members) if group.policy is Policy.VOTE else None

    async def _judged(self, delivery: Delivery) -> Arrival | VerificationError:
        sender = await self._watch.user(Uid(delivery.sender))
        members = await self._members()
        try:
            return self._arrival(delivery, sender, members)
        except VerificationError as flaw:
            return flaw
        except _NOT_ITS_FAULT:
            raise
        except Exception as bug:
            return _stumbled(bug)

    def _arrival(self, delivery: Delivery, sender: User | None, members: frozenset[Uid] | None) -> Arrival:
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
        opened = self._open(delivery, sender)
        match opened.content:
            case Text(text):
                return self._text(delivery, sender, opened, text)
            case Receipt(kind, ids):
                states = tuple((message, _STATES[kind]) for message in ids)
                return Arrival(sender.uid, delivery.id, states=states)
            case _:
                raise _TooNew(f"{sender.username} sent something that this version of chatchain cannot show.")

    def _open(self, delivery: Delivery, sender: User) -> Opened:
        if not delivery.header:
            # There is nothing in it that the sender signed: it is for the relay to say, and may be untrue.
            raise _PassedBy(
                f"The relay says that {sender.username} sent a message before this device had published its "
                "keys. It carries no signature; if it is so, only your other devices can read it."
            )

        def resolve(uid: int, device: int, version: int, time_ms: int) -> bytes:
            assert uid == sender.uid
            return signing_key_for(self._own.network, sender, device, version, time_ms, delivery.received_ms)

        return open_(
            self._own.network,
            delivery,
            uid=self._own.uid,
            device=self._own.device,
            keys=self._own.readers,
            resolve=resolve,
        )

    def _text(self, delivery: Delivery, sender: User, opened: Opened, text: str) -> Arrival:
        mine = sender.uid == self._own.uid  # written on another device of ours
        message = StoredMessage(
            id=delivery.id,
            sender=sender.uid,
            device=delivery.sender_device,
            peer=Uid(delivery.recipient) if mine else sender.uid,
            direction=Direction.OUT if mine else Direction.IN,
            kind=TEXT,
            text=text,
            time_ms=opened.time_ms,
            state=MessageState.SENT if mine else None,
        )
        return Arrival(sender.uid, delivery.id, message=message, receipt_due=not mine)

    async def _notice(self, delivery: Delivery, flaw: VerificationError) -> Arrival:
        sender = await self._watch.user(Uid(delivery.sender))
        own_id = notice_id(delivery)
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
        )
        return Arrival(peer, own_id, message=message)


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


def _next_step(flaw: VerificationError, sender: User | None) -> str:
    """What a person can do about a message that cannot be shown."""
    if flaw.hint or sender is None:
        return flaw.hint
    return f"If you expected a message, ask {sender.username} to send it again."


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
