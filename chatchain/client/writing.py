"""What a person writes: each thing with its content to send, and what of it the own database keeps.

Pure: it says what may be written about a message and raises what may not; nothing is stored or sent here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from chatchain.client.reading import FILE, NOTICE, TEXT, switched
from chatchain.crypto import content as contents
from chatchain.crypto.content import Content
from chatchain.errors import AlreadyDone, BadText, LimitReached, RefusedError
from chatchain.model import (
    DELETE_WINDOW_MS,
    EDIT_WINDOW_MS,
    MAX_EDITS,
    MESSAGE_ID_BYTES,
    Deed,
    DeedKind,
    DeviceId,
    Direction,
    MessageState,
    Outgoing,
    Peer,
    StoredMessage,
    Uid,
    WaitingUpload,
)

if TYPE_CHECKING:
    from chatchain.client.packing import Packed

EXPIRED: Final = "expired"
"""Why a message is dropped that had left: nobody but the relay says that it never arrived."""

HOUR_MS: Final = 3600 * 1000


@dataclass(frozen=True)
class Written:
    """One thing to send, the message that is kept of it, and what it does to what is there already."""

    outgoing: Outgoing
    message: StoredMessage | None = None
    deed: Deed | None = None
    upload: WaitingUpload | None = None
    """The sealed file that has to be at the relay before it leaves."""


@dataclass(frozen=True)
class Writer:
    """Who writes, to whom, and when; `peer` is how the conversation is set."""

    uid: Uid
    device: DeviceId
    peer: Peer
    now_ms: int

    def text(self, text: str) -> Written:
        """A text; raises BadText and TooLarge."""
        _require_word(text)
        return self._message(contents.text(text, self.peer.timer_s), text)

    def reply(self, target: StoredMessage, text: str) -> Written:
        """An answer to a message; raises BadText, TooLarge and RefusedError."""
        _there(target, "answered")
        _require_word(text)
        content = contents.reply(target.sender, target.id, text, self.peer.timer_s)
        return self._message(content, text, target)

    def file(self, packed: Packed, caption: str) -> Written:
        """A sealed file with a word about it; raises BadText and TooLarge."""
        content = contents.file(
            packed.ref,
            packed.blob,
            packed.name,
            packed.media_type,
            thumbnail=packed.thumbnail,
            caption=caption,
            expires=self.peer.timer_s,
        )
        written = self._message(content, caption)
        return replace(written, upload=WaitingUpload(written.outgoing.id, packed.blob, packed.size))

    def edit(self, target: StoredMessage, text: str, versions: Sequence[tuple[int, str]]) -> Written:
        """Another text for an own message; raises BadText, TooLarge, RefusedError and LimitReached."""
        content = contents.edit(target.id, text)
        _require_word(text)
        self._own(target, "edit", "edited", EDIT_WINDOW_MS)
        if target.kind != TEXT:
            raise RefusedError(
                "Only a text can be edited, and not what was said of a file.", "Delete it and send it again."
            )
        if text == target.text:  # the other side need not be told of nothing, and edits are counted
            raise AlreadyDone("The message says just that already.")
        if len(versions) > MAX_EDITS:
            raise LimitReached(
                f"The message was edited {MAX_EDITS} times; that is the limit.",
                "Write a new one, or delete it.",
            )
        last_ms = max(target.time_ms, versions[-1][0] if versions else 0)
        return self._deed(DeedKind.EDIT, content, target=target, after_ms=last_ms, value=text)

    def delete(self, target: StoredMessage) -> Written:
        """Takes an own message back for everybody; raises RefusedError."""
        self._own(target, "delete", "deleted", DELETE_WINDOW_MS)
        return self._deed(DeedKind.DELETE, contents.delete(target.id), target=target, after_ms=target.time_ms)

    def reaction(self, target: StoredMessage, emoji: str) -> Written:
        """An emoji at a message, or with an empty one its removal; raises BadText, RefusedError and, when
        nothing would change, AlreadyDone.
        """
        content = contents.reaction(target.sender, target.id, emoji)
        _there(target, "reacted to")
        mine = next((sign for reactor, sign in target.reactions if reactor == self.uid), "")
        if mine == emoji:  # the other side need not be told of nothing
            raise AlreadyDone(
                "That is your reaction already." if emoji else "There is no reaction of yours to take away."
            )
        return self._deed(DeedKind.REACTION, content, target=target, value=emoji)

    def timer(self, seconds: int) -> Written:
        """After how long messages disappear; raises TooLarge."""
        return self._deed(
            DeedKind.TIMER, contents.timer(seconds), after_ms=self.peer.timer_ms, number=seconds
        )

    def off_the_record(self, *, on: bool) -> Written:
        """Whether the conversation is off the record."""
        content = contents.off_the_record(on=on)
        return self._deed(
            DeedKind.OFF_THE_RECORD, content, after_ms=self.peer.off_the_record_ms, number=int(on)
        )

    def profile(self, name: str, after_ms: int) -> Written:
        """The own display name (in its one form), or none; `after_ms` is when it was changed last."""
        return self._deed(DeedKind.PROFILE, contents.Profile(name), after_ms=after_ms, value=name)

    # --- building -------------------------------------------------------------------------------------------

    def _message(
        self,
        content: contents.Text | contents.Reply | contents.File,
        text: str,
        target: StoredMessage | None = None,
    ) -> Written:
        place = os.urandom(MESSAGE_ID_BYTES)
        kind = FILE if isinstance(content, contents.File) else TEXT
        message = StoredMessage(
            id=place,
            sender=self.uid,
            device=self.device,
            peer=self.peer.uid,
            direction=Direction.OUT,
            kind=kind,
            text=text,
            time_ms=self.now_ms,
            state=MessageState.QUEUED,
            about_author=target.sender if target is not None else Uid(0),
            about=target.id if target is not None else b"",
            expires_s=content.expires,
            expires_ms=self.now_ms + 1000 * content.expires if content.expires else 0,
            content=contents.encode(content) if isinstance(content, contents.File) else b"",
            file_name=content.name if isinstance(content, contents.File) else "",
        )
        return Written(self._outgoing(place, kind, content, self.now_ms), message)

    def _deed(
        self,
        kind: DeedKind,
        content: Content,
        *,
        target: StoredMessage | None = None,
        after_ms: int = 0,
        value: str = "",
        number: int = 0,
    ) -> Written:
        # Of two deeds the later one counts, whatever this machine's clock was set to in between.
        place, time_ms = os.urandom(MESSAGE_ID_BYTES), max(self.now_ms, after_ms + 1)
        deed = Deed(
            kind=kind,
            id=place,
            sender=self.uid,
            peer=self.peer.uid,
            time_ms=time_ms,
            author=target.sender if target is not None else Uid(0),
            target=target.id if target is not None else b"",
            value=value,
            number=number,
        )
        notice = switched(deed, "You")
        message = None
        if notice is not None:
            code, sentence = notice
            message = StoredMessage(
                id=place,
                sender=self.uid,
                device=self.device,
                peer=self.peer.uid,
                direction=Direction.OUT,
                kind=NOTICE,
                text=sentence,
                time_ms=time_ms,
                code=code,
                state=MessageState.QUEUED,
            )
        return Written(self._outgoing(place, kind.value, content, time_ms), message, deed)

    def _outgoing(self, id: bytes, kind: str, content: Content, time_ms: int) -> Outgoing:
        return Outgoing(id, self.peer.uid, kind, contents.encode(content), time_ms)

    def _own(self, target: StoredMessage, verb: str, done: str, window_ms: int) -> None:
        """Raises RefusedError unless the message is one's own, there, and young enough."""
        if target.sender != self.uid:
            raise RefusedError(
                f"Only whoever wrote a message can {verb} it.", "You can answer it or react to it."
            )
        _there(target, done)
        if target.state is MessageState.DROPPED and target.code != EXPIRED:
            raise RefusedError("The message was never sent.", "Send it again instead.")
        if self.now_ms - target.time_ms > window_ms:
            raise RefusedError(
                f"A message can be {done} for {window_ms // HOUR_MS} hours; this one is older.",
                "Write a new one about it.",
            )


def _require_word(text: str) -> None:
    if text and not text.strip():
        raise BadText("There is nothing in the message but blanks.", "Write something, or send nothing.")


def _there(target: StoredMessage, done: str) -> None:
    if target.deleted:
        raise RefusedError(
            "The message was deleted already."
            if done == "deleted"
            else f"The message was deleted; it cannot be {done} any more."
        )
    if target.kind not in (TEXT, FILE):
        raise RefusedError(f"That is a notice of this program; it cannot be {done}.")
