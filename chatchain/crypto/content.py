"""What is inside of an envelope: a version byte, then a tagged msgpack array.

Each kind is one struct, made by the function of its name, which keeps its bounds; `decode` keeps the same
ones. A content has one spelling: trailing fields that hold their default are left out, and whatever `encode`
would not have written is refused. Kinds that a newer program sends decode to `Unsupported`, so that they show
as a notice instead of being lost.

A message is named by its author and its id, since only the two together are unique; an edit and a deletion
name no author, because nobody but the author may do either.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

import msgspec

from chatchain.crypto import groups
from chatchain.crypto.attachments import FileRef, check_size
from chatchain.crypto.glyphs import display_name, is_display_name, is_emoji, is_file_name
from chatchain.crypto.padding import MAX_PADDED
from chatchain.errors import BadText, TooLarge, Undecryptable
from chatchain.model import MAX_TEXT_BYTES, MESSAGE_ID_BYTES

CONTENT_VERSION = 1
MAX_RECEIPT_IDS = 256
MAX_CAPTION_BYTES: Final = 8 * 1024
MAX_THUMBNAIL_BYTES: Final = 16 * 1024
MAX_MEDIA_TYPE_BYTES: Final = 127
MAX_CONTROL_BYTES: Final = 4 * 1024
MAX_TIMER_S: Final = 365 * 24 * 3600
"""The longest time after which messages may be set to disappear: a year."""

BLOB_BYTES: Final = 32
"""The name of a blob at the relay."""

_KEY_BYTES: Final = 32
_SHA256_BYTES: Final = 32
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")
_MAX_UID: Final = 2**64 - 1


class ReceiptKind(IntEnum):
    """What happened to the messages named."""

    DELIVERED = 1
    READ = 2
    UNREADABLE = 3
    """They came and could not be opened; whoever says so has begun a new session."""


class TypingState(IntEnum):
    """Whether somebody began to type, or gave up."""

    STARTED = 1
    STOPPED = 2


class ControlKind(IntEnum):
    """What a group control carries."""

    SENDER_KEY = 1
    """A `Distribution` of crypto/groups."""


class _Kind(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What every kind is."""


class Text(_Kind, frozen=True, tag=1):
    """A text of 1 to 65,536 UTF-8 bytes, gone `expires` seconds after it was read (0: never)."""

    text: str
    expires: int = 0


class Receipt(_Kind, frozen=True, tag=2):
    """Says that messages were stored on the recipient's device, or shown."""

    kind: ReceiptKind
    ids: tuple[bytes, ...]


class File(_Kind, frozen=True, tag=3):
    """A file, sealed as crypto/attachments says and kept by the relay under the name `blob`."""

    blob: bytes
    name: str
    media_type: str
    key: bytes
    size: int
    sha256: bytes
    thumbnail: bytes = b""
    caption: str = ""
    expires: int = 0

    @property
    def ref(self) -> FileRef:
        """What opens the blob."""
        return FileRef(self.key, self.size, self.sha256)

    def __repr__(self) -> str:
        return f"File(name={self.name!r}, size={self.size})"


class Edit(_Kind, frozen=True, tag=4):
    """Another text for an earlier message of the same author."""

    target: bytes
    text: str


class Delete(_Kind, frozen=True, tag=5):
    """Takes an earlier message of the same author back, for everybody."""

    target: bytes


class Reply(_Kind, frozen=True, tag=6):
    """A text that answers a message; what it quotes, each reader looks up in their own database."""

    author: int
    target: bytes
    text: str
    expires: int = 0


class Reaction(_Kind, frozen=True, tag=7):
    """One emoji at a message, in place of the one before; an empty one takes it away."""

    author: int
    target: bytes
    emoji: str = ""


class Typing(_Kind, frozen=True, tag=8):
    """Says that somebody types; nobody stores it."""

    state: TypingState


class Timer(_Kind, frozen=True, tag=9):
    """From now on messages of this conversation disappear so many seconds after they were read; 0: never."""

    seconds: int = 0


class GroupControl(_Kind, frozen=True, tag=10):
    """What devices of a group tell each other; its meaning is the groups' business."""

    kind: int
    payload: bytes

    def __repr__(self) -> str:
        return f"GroupControl(kind={self.kind}, {len(self.payload)} bytes)"


class Profile(_Kind, frozen=True, tag=11):
    """The name that the sender wants to be shown by, beside the username; an empty one takes it away."""

    name: str = ""


class OffTheRecord(_Kind, frozen=True, tag=12):
    """From now on this conversation is off the record, or on it again."""

    on: bool = False


class Unsupported(msgspec.Struct, frozen=True):
    """Signed content of a kind that this program does not know."""

    version: int
    kind: int


Content = (
    Text
    | Receipt
    | File
    | Edit
    | Delete
    | Reply
    | Reaction
    | Typing
    | Timer
    | GroupControl
    | Profile
    | OffTheRecord
)

_KINDS: Final = {int(str(kind.__struct_config__.tag)): kind for kind in Content.__args__}
_DEFAULTS: Final = {
    kind: tuple(field.default for field in msgspec.structs.fields(kind)) for kind in _KINDS.values()
}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Content)
_peek = msgspec.msgpack.Decoder(list[msgspec.Raw])
_kind = msgspec.msgpack.Decoder(int)


# --- making ---------------------------------------------------------------------------------------------


def text(value: str, expires: int = 0) -> Text:
    """Gives a text message; raises BadText when empty or not text, TooLarge when over the limit."""
    return Text(_text_holds(value), _timer_holds(expires))


def receipt(kind: ReceiptKind, ids: tuple[bytes, ...]) -> Receipt:
    """Gives a receipt for 1 to 256 messages."""
    if not 1 <= len(ids) <= MAX_RECEIPT_IDS or any(len(each) != MESSAGE_ID_BYTES for each in ids):
        raise ValueError("a receipt names 1 to 256 ids of 16 bytes")
    return Receipt(kind, ids)


def file(
    ref: FileRef,
    blob: bytes,
    name: str,
    media_type: str,
    *,
    thumbnail: bytes = b"",
    caption: str = "",
    expires: int = 0,
) -> File:
    """Gives a file message; raises TooLarge for a file or caption over its limit, BadText for a caption.

    `name` is one that `glyphs.file_name` made; `media_type` two lower-case words, `application/octet-stream`
    when nothing better is known; `thumbnail` a JPEG of at most 16 KiB, or nothing.
    """
    return _file_holds(
        File(
            blob,
            name,
            media_type,
            ref.key,
            ref.size,
            ref.sha256,
            thumbnail,
            caption,
            _timer_holds(expires),
        )
    )


def caption(value: str) -> str:
    """Gives back what is to be said of a file; raises TooLarge and BadText."""
    if _utf8_size(value) > MAX_CAPTION_BYTES:
        raise TooLarge(
            f"The caption has more than {MAX_CAPTION_BYTES} bytes.", "Send the text as a message of its own."
        )
    return value


def edit(target: bytes, value: str) -> Edit:
    """Gives an edit; raises as `text` does."""
    return Edit(_id_holds(target), _text_holds(value))


def delete(target: bytes) -> Delete:
    """Gives a deletion for all."""
    return Delete(_id_holds(target))


def reply(author: int, target: bytes, value: str, expires: int = 0) -> Reply:
    """Gives an answer; raises as `text` does."""
    return Reply(_uid_holds(author), _id_holds(target), _text_holds(value), _timer_holds(expires))


def reaction(author: int, target: bytes, emoji: str) -> Reaction:
    """Gives a reaction, or with an empty emoji its removal; raises BadText for anything but one emoji."""
    if emoji and not is_emoji(emoji):
        raise BadText("A reaction is one emoji.", "Give one, such as 👍.")
    return Reaction(_uid_holds(author), _id_holds(target), emoji)


def typing(state: TypingState) -> Typing:
    """Gives a sign of typing."""
    return Typing(state)


def timer(seconds: int) -> Timer:
    """Gives a new timer; raises TooLarge beyond a year."""
    if seconds > MAX_TIMER_S:
        raise TooLarge("Messages disappear after a year at the latest.", "Name a shorter time.")
    return Timer(_timer_holds(seconds))


def group_control(kind: int, payload: bytes) -> GroupControl:
    """Gives a group control: a sender key, or what a later program calls by another number."""
    if kind == ControlKind.SENDER_KEY:
        groups.Distribution.decode(payload)
    if not 1 <= kind <= 255 or not 1 <= len(payload) <= MAX_CONTROL_BYTES:
        raise ValueError("a group control has a kind of one byte and 1 to 4,096 bytes")
    return GroupControl(kind, payload)


def profile(name: str) -> Profile:
    """Gives a profile with the name in its one form; raises BadText for a name that must not be."""
    return Profile(display_name(name) if name.strip() else "")


def off_the_record(*, on: bool) -> OffTheRecord:
    """Gives the switch."""
    return OffTheRecord(on)


# --- bounds ---------------------------------------------------------------------------------------------


def _text_holds(value: str) -> str:
    size = _utf8_size(value)
    if size == 0:
        raise BadText("The message is empty.", "Write at least one character.")
    if size > MAX_TEXT_BYTES:
        raise TooLarge(
            f"The message has {size} bytes; a text may have {MAX_TEXT_BYTES}.",
            "Send it in parts.",
        )
    return value


def _utf8_size(value: str) -> int:
    try:
        return len(value.encode())
    except UnicodeEncodeError as exc:
        raise BadText("The message is not valid text: it holds half of a surrogate pair.") from exc


def _file_holds(content: File) -> File:
    check_size(content.size)
    caption(content.caption)
    if not (
        content.size >= 0
        and len(content.blob) == BLOB_BYTES
        and len(content.key) == _KEY_BYTES
        and len(content.sha256) == _SHA256_BYTES
        and len(content.thumbnail) <= MAX_THUMBNAIL_BYTES
        and is_file_name(content.name)
        and is_media_type(content.media_type)
    ):
        raise ValueError("a part of the file's description is outside of its bounds")
    return content


def is_media_type(value: str) -> bool:
    """Whether this is two lower-case words of a media type, without parameters."""
    return len(value) <= MAX_MEDIA_TYPE_BYTES and _MEDIA_TYPE.fullmatch(value) is not None


def _id_holds(target: bytes) -> bytes:
    if len(target) != MESSAGE_ID_BYTES:
        raise ValueError("a message id has 16 bytes")
    return target


def _uid_holds(author: int) -> int:
    if not 0 < author <= _MAX_UID:
        raise ValueError("an author is a uid")
    return author


def _timer_holds(seconds: int) -> int:
    if not 0 <= seconds <= MAX_TIMER_S:
        raise ValueError("messages disappear after 0 seconds (never) to a year")
    return seconds


# --- bytes ----------------------------------------------------------------------------------------------


def encode(content: Content) -> bytes:
    """Gives the bytes that are padded and sealed."""
    values = [content.__struct_config__.tag, *msgspec.structs.astuple(content)]
    for default in reversed(_DEFAULTS[type(content)]):
        if values[-1] != default:
            break
        values.pop()
    return bytes([CONTENT_VERSION]) + _encoder.encode(values)


def decode(data: bytes) -> Content | Unsupported:
    """Reads the bytes of an opened envelope; raises Undecryptable when they are no content at all."""
    if not data:
        raise Undecryptable("The message is empty inside.")
    if len(data) > MAX_PADDED:
        raise Undecryptable("The message's content is longer than one may be.")
    if data[0] != CONTENT_VERSION:
        return Unsupported(data[0], 0)
    try:
        kind = _first(data[1:])
        if kind not in _KINDS:
            return Unsupported(CONTENT_VERSION, kind)
        content = _held(_decoder.decode(data[1:]))
    except (msgspec.DecodeError, ValueError, BadText, TooLarge, RecursionError) as exc:
        raise Undecryptable("The message's content is malformed.") from exc
    if encode(content) != data:
        raise Undecryptable("The message's content is spelt in another way than the one that is allowed.")
    return content


def _held(content: Content) -> Content:
    """The content as the function of its kind would have made it."""
    match content:
        case Text(value, expires):
            return text(value, expires)
        case Receipt(state, ids):
            return receipt(state, ids)
        case File():
            _timer_holds(content.expires)
            return _file_holds(content)
        case Edit(target, value):
            return edit(target, value)
        case Delete(target):
            return delete(target)
        case Reply(author, target, value, expires):
            return reply(author, target, value, expires)
        case Reaction(author, target, emoji):
            return reaction(author, target, emoji)
        case Timer(seconds):
            return timer(seconds)
        case GroupControl(kind, payload):
            return group_control(kind, payload)
        case Profile(name) if name and not is_display_name(name):
            raise ValueError("the display name is not in its one form")
        case Typing() | Profile() | OffTheRecord():
            return content


def _first(data: bytes) -> int:
    fields = _peek.decode(data)
    if not fields:
        raise ValueError("no kind")
    return _kind.decode(fields[0])
