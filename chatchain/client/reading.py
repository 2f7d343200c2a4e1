"""What an opened delivery comes to: a message, a deed, a sign of typing; pure.

Who sent it was shown before; here is decided what it means in the conversation that it belongs to. What was
written on another device of one's own means the same as if it had been written here.
"""

from __future__ import annotations

from typing import Final

from chatchain.crypto import content as contents
from chatchain.crypto.content import (
    Content,
    Delete,
    Edit,
    File,
    GroupControl,
    OffTheRecord,
    Profile,
    Reaction,
    Reply,
    Text,
    Timer,
    Typing,
)
from chatchain.model import (
    GRACE_MS,
    Arrival,
    Deed,
    DeedKind,
    Delivery,
    Direction,
    MessageState,
    StoredMessage,
    Uid,
    User,
)

TEXT: Final = "text"
FILE: Final = "file"
NOTICE: Final = "notice"

TIMER_CHANGED: Final = "timer_changed"
OFF_THE_RECORD_CHANGED: Final = "off_the_record_changed"
PROFILE_CHANGED: Final = "profile_changed"
GROUP_CONTROL: Final = "group_control"
NOT_THE_AUTHOR: Final = "not_the_author"

_UNITS: Final = ((7 * 86_400, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def arrival(
    delivery: Delivery, sender: User, me: Uid, content: Content, time_ms: int, now_ms: int
) -> Arrival | None:
    """What this content of a sender comes to; None for a kind that nothing here answers to."""
    mine = sender.uid == me
    peer = Uid(delivery.recipient) if mine else sender.uid
    reading = _Reading(delivery, sender, peer, mine, time_ms, now_ms)
    match content:
        case Text(text, expires):
            return reading.message(TEXT, text, expires)
        case Reply(author, target, text, expires):
            return reading.message(TEXT, text, expires, Uid(author), target)
        case File():
            encoded = contents.encode(content)
            return reading.message(
                FILE, content.caption, content.expires, content=encoded, file_name=content.name
            )
        case Edit(target, text):
            return reading.deed(DeedKind.EDIT, sender.uid, target, value=text)
        case Delete(target):
            return reading.deed(DeedKind.DELETE, sender.uid, target)
        case Reaction(author, target, emoji):
            return reading.deed(DeedKind.REACTION, Uid(author), target, value=emoji)
        case Timer(seconds):
            return reading.deed(DeedKind.TIMER, number=seconds)
        case OffTheRecord(on):
            return reading.deed(DeedKind.OFF_THE_RECORD, number=int(on))
        case Profile(name):
            return reading.deed(DeedKind.PROFILE, value=name)
        case Typing(state):
            return Arrival(sender.uid, delivery.id, typing=int(state))
        case GroupControl() if mine:
            return Arrival(sender.uid, delivery.id)
        case GroupControl():
            return reading.notice(
                GROUP_CONTROL,
                f"{sender.username} sent what a group chat needs to begin, and this version of chatchain has "
                "no group chats. There is nothing to do; update chatchain to take part.",
            )
        case _:
            return None


class _Reading:
    """One delivery, and the conversation that it belongs to."""

    def __init__(
        self, delivery: Delivery, sender: User, peer: Uid, mine: bool, time_ms: int, now_ms: int
    ) -> None:
        self._delivery = delivery
        self._sender = sender
        self._peer = peer
        self._mine = mine
        self._time_ms = time_ms
        self._now_ms = now_ms

    def message(
        self,
        kind: str,
        text: str,
        expires_s: int,
        about_author: Uid = Uid(0),  # noqa: B008 - a number
        about: bytes = b"",
        content: bytes = b"",
        file_name: str = "",
    ) -> Arrival:
        """A message, for which a receipt is owed unless it is one's own."""
        message = self._stored(
            kind,
            text,
            about_author=about_author,
            about=about,
            content=content,
            file_name=file_name,
            expires_s=expires_s,
            # What another device of one's own sent disappears here as it does there.
            expires_ms=self._time_ms + 1000 * expires_s if self._mine and expires_s else 0,
        )
        return Arrival(self._sender.uid, self._delivery.id, message=message, receipt_due=not self._mine)

    def notice(self, code: str, sentence: str) -> Arrival:
        """Something of which a person is told, and that changes nothing."""
        return Arrival(self._sender.uid, self._delivery.id, message=self._stored(NOTICE, sentence, code=code))

    def deed(
        self,
        kind: DeedKind,
        author: Uid = Uid(0),  # noqa: B008 - a number
        target: bytes = b"",
        *,
        value: str = "",
        number: int = 0,
    ) -> Arrival:
        """A deed with what a person is told of it: one's own deeds need not be told, but for switches."""
        deed = Deed(
            kind=kind,
            id=self._delivery.id,
            sender=self._sender.uid,
            peer=self._peer,
            time_ms=self._time_ms if target else self._not_ahead(),
            received_ms=self._delivery.received_ms,
            arrived_ms=self._now_ms,
            author=author,
            target=target,
            value=value,
            number=number,
        )
        told = None
        if (notice := switched(deed, "You" if self._mine else self._sender.username)) is not None:
            code, sentence = notice
            told = self._stored(NOTICE, sentence, code=code)
        elif target and not self._mine:
            emoji = value if kind is DeedKind.REACTION else ""
            told = self._stored(kind.value, emoji, about_author=author, about=target)
        return Arrival(
            self._sender.uid,
            self._delivery.id,
            message=told,
            deed=deed,
            refusal=None if self._mine else self._stored(NOTICE, self._foreign(kind), code=NOT_THE_AUTHOR),
        )

    def _not_ahead(self) -> int:
        """The time of a switch, of which the last one counts: dated ahead, it would count for ever."""
        # The relay's time is the same on every device of ours; ours keeps it from dating ahead as well.
        latest = min(self._delivery.received_ms, self._now_ms + GRACE_MS) + GRACE_MS
        return min(self._time_ms, latest)

    def _foreign(self, kind: DeedKind) -> str:
        who = self._sender.username
        return f"{who} tried to {kind.value} a message that {who} did not write; it stays as it was."

    def _stored(
        self,
        kind: str,
        text: str,
        *,
        code: str = "",
        about_author: Uid = Uid(0),  # noqa: B008 - a number
        about: bytes = b"",
        content: bytes = b"",
        file_name: str = "",
        expires_s: int = 0,
        expires_ms: int = 0,
    ) -> StoredMessage:
        return StoredMessage(
            id=self._delivery.id,
            sender=self._sender.uid,
            device=self._delivery.sender_device,
            peer=self._peer,
            direction=Direction.OUT if self._mine else Direction.IN,
            kind=kind,
            text=text,
            time_ms=self._time_ms,
            code=code,
            state=MessageState.SENT if self._mine else None,
            about_author=about_author,
            about=about,
            content=content,
            file_name=file_name,
            expires_s=expires_s,
            expires_ms=expires_ms,
            received_ms=self._delivery.received_ms,
            arrived_ms=self._now_ms,
        )


def switched(deed: Deed, who: str) -> tuple[str, str] | None:
    """The notice that both sides of a conversation keep of a change to it: a stable word and a sentence."""
    match deed.kind:
        case DeedKind.TIMER if deed.number:
            return TIMER_CHANGED, (
                f"{who} set messages to disappear {span(deed.number)} after they were read."
            )
        case DeedKind.TIMER:
            return TIMER_CHANGED, f"{who} turned disappearing messages off; new ones stay."
        case DeedKind.OFF_THE_RECORD if deed.number:
            return OFF_THE_RECORD_CHANGED, (
                f"{who} took this conversation off the record: what you both write from now on is not meant "
                "to be kept as proof."
            )
        case DeedKind.OFF_THE_RECORD:
            return OFF_THE_RECORD_CHANGED, (
                f"{who} put this conversation on the record again: what you both write from now on may be "
                "kept as proof."
            )
        case DeedKind.PROFILE if who == "You":
            return None
        case DeedKind.PROFILE if deed.value:
            return PROFILE_CHANGED, f"{who} is now also called “{deed.value}”."
        case DeedKind.PROFILE:
            return PROFILE_CHANGED, f"{who} goes by no other name any more."
        case _:
            return None


def span(seconds: int) -> str:
    """A time in the largest unit that it is a whole number of."""
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    number = seconds // size
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
