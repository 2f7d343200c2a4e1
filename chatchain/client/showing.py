"""How things look to a person: the views of messages, contacts and errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from chatchain.client.reading import FILE, NOTICE
from chatchain.client.times import time_text
from chatchain.client.views import Attachment, ChatSettings, Preview, Problem, Quote, Reacted, Shown
from chatchain.crypto import content as contents
from chatchain.crypto.content import File
from chatchain.errors import (
    ChatchainError,
    UsageError,
)
from chatchain.model import DeedKind, Direction, StoredMessage, Uid

if TYPE_CHECKING:
    from chatchain.client.station import Station

TYPING: Final = "typing"
EDIT: Final = DeedKind.EDIT.value
REACTION: Final = DeedKind.REACTION.value
DEEDS: Final = (EDIT, DeedKind.DELETE.value, REACTION)
"""Kinds of what is told once and no history keeps."""

QUOTED: Final = 80
"""Characters of a message that an answer shows of it."""

PREVIEW_TYPE: Final = "image/jpeg"

_ID: Final = re.compile(r"[0-9a-f]{4,32}")


def problem_of(error: ChatchainError) -> Problem:
    return Problem(error.code, error.message, error.hint)


def still_queued(view: ChatSettings, obstacle: ChatchainError) -> ChatSettings:
    """Settings that count here and wait to be sent, with what is in the way."""
    return msgspec.structs.replace(view, state="queued", error=problem_of(obstacle))


def message_ids(beginning: str) -> tuple[bytes, bytes]:
    """The first and the last id that begin so: 4 to 32 hex digits; raises UsageError."""
    digits = beginning.strip().lower()
    if not _ID.fullmatch(digits):
        raise UsageError(
            f"{beginning[:64]!r} is not the id of a message: 32 hex digits, or at least the first 4.",
            "`chatchain history PEER --ids` shows the ids.",
        )
    return bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))


async def shown_of(station: Station, message: StoredMessage, *, full: bool = False) -> Shown:
    """A stored message as people read it; `full` adds what history shows."""
    store = await station.store()
    account = station.home.require_account()
    outgoing = message.direction is Direction.OUT
    peer = await station.name_of(message.peer)
    told = message.kind in DEEDS
    about = store.quoted(message.about_author, message.about) if message.about else None
    if about is not None and about.peer != message.peer:
        about = None
    sender = Uid(account.uid) if outgoing else message.peer
    return Shown(
        id=message.id.hex(),
        kind=message.kind,
        time=time_text(message.time_ms),
        from_=account.username if outgoing else peer,
        from_uid=sender,
        name=store.peer(sender).display_name or None,
        text=_text_of(message, about),
        notice=message.text if message.kind == NOTICE else None,
        code=message.code or None,
        to=peer if outgoing else None,
        target=message.about.hex() if told else None,
        emoji=message.text if message.kind == REACTION else None,
        reply_to=message.about.hex() if message.about and not told else None,
        quote=await _quote(station, about) if about is not None else None,
        reactions=tuple([await _reacted(station, reactor, emoji) for reactor, emoji in message.reactions]),
        attachment=_attachment(message),
        edited=message.edited_ms > 0,
        deleted=message.deleted,
        expires_after=message.expires_s or None,
        expires=time_text(message.expires_ms) if message.expires_ms else None,
        direction=message.direction.value if full else None,
        state=(message.state.value if message.state is not None else "received") if full else None,
    )


async def typing_of(station: Station, uid: Uid, *, started: bool) -> Shown:
    """That somebody types, as people see it; nothing of it is stored."""
    return Shown(
        id="",
        kind=TYPING,
        time=time_text(station.now_ms()),
        from_=await station.name_of(uid),
        from_uid=uid,
        state="started" if started else "stopped",
    )


def _text_of(message: StoredMessage, about: StoredMessage | None) -> str | None:
    if message.kind == EDIT:
        return about.text if about is not None else None
    return None if message.kind in (NOTICE, *DEEDS) or message.deleted else message.text


async def _quote(station: Station, message: StoredMessage) -> Quote:
    """What this home's own database has of a message; what an answer claims of it is nowhere asked."""
    text = " ".join(message.text.split())
    if message.kind == FILE and not text and message.content:
        text = described(message).name
    return Quote(
        from_=await station.name_of(message.sender),
        text=text if len(text) <= QUOTED else text[: QUOTED - 1] + "…",
        deleted=message.deleted,
    )


async def _reacted(station: Station, reactor: Uid, emoji: str) -> Reacted:
    return Reacted(from_=await station.name_of(reactor), emoji=emoji)


def _attachment(message: StoredMessage) -> Attachment | None:
    if message.kind != FILE or not message.content:
        return None
    file = described(message)
    path = there(message)
    return Attachment(
        name=file.name,
        size=file.size,
        sha256=file.sha256.hex(),
        media_type=file.media_type,
        path=str(path) if path is not None else None,
        thumbnail=Preview(PREVIEW_TYPE, len(file.thumbnail)) if file.thumbnail else None,
    )


def there(message: StoredMessage) -> Path | None:
    """Where the file of a message is, if it is still there."""
    path = Path(message.path)
    return path if message.path and path.is_file() else None


def described(message: StoredMessage) -> File:
    """What the message of a file says of it."""
    content = contents.decode(message.content)
    assert isinstance(content, File), "what was stored was checked"
    return content
