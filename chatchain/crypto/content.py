"""What is inside of an envelope: a version byte, then a tagged msgpack array.

Kinds that a newer program sends decode to `Unsupported`, so that they show as a notice instead of being lost.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from chatchain.errors import BadText, TooLarge, Undecryptable
from chatchain.model import MAX_TEXT_BYTES, MESSAGE_ID_BYTES

CONTENT_VERSION = 1
MAX_RECEIPT_IDS = 256


class ReceiptKind(IntEnum):
    """What happened to the messages named."""

    DELIVERED = 1
    READ = 2


class Text(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A text of 1 to 65,536 UTF-8 bytes; make it with `text`."""

    text: str


class Receipt(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Says that messages were stored on the recipient's device, or shown; make it with `receipt`."""

    kind: ReceiptKind
    ids: tuple[bytes, ...]


class Unsupported(msgspec.Struct, frozen=True):
    """Signed content of a kind that this program does not know."""

    version: int
    kind: int


Content = Text | Receipt

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Content)
_peek = msgspec.msgpack.Decoder(list[msgspec.Raw])
_kind = msgspec.msgpack.Decoder(int)
_KNOWN_KINDS = (1, 2)


def text(value: str) -> Text:
    """Gives a text message; raises BadText when empty or not text, TooLarge when over the limit."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError as exc:
        raise BadText("The message is not valid text: it holds half of a surrogate pair.") from exc
    if size == 0:
        raise BadText("The message is empty.", "Write at least one character.")
    if size > MAX_TEXT_BYTES:
        raise TooLarge(
            f"The message has {size} bytes; a text may have {MAX_TEXT_BYTES}.",
            "Send it in parts.",
        )
    return Text(value)


def receipt(kind: ReceiptKind, ids: tuple[bytes, ...]) -> Receipt:
    """Gives a receipt for 1 to 256 messages."""
    if not 1 <= len(ids) <= MAX_RECEIPT_IDS or any(len(each) != MESSAGE_ID_BYTES for each in ids):
        raise ValueError("a receipt names 1 to 256 ids of 16 bytes")
    return Receipt(kind, ids)


def encode(content: Content) -> bytes:
    """Gives the bytes that are padded and sealed."""
    return bytes([CONTENT_VERSION]) + _encoder.encode(content)


def decode(data: bytes) -> Content | Unsupported:
    """Reads the bytes of an opened envelope; raises Undecryptable when they are no content at all."""
    if not data:
        raise Undecryptable("The message is empty inside.")
    if data[0] != CONTENT_VERSION:
        return Unsupported(data[0], 0)
    try:
        kind = _first(data[1:])
        if kind not in _KNOWN_KINDS:
            return Unsupported(CONTENT_VERSION, kind)
        content = _decoder.decode(data[1:])
        return text(content.text) if isinstance(content, Text) else receipt(content.kind, content.ids)
    except (msgspec.DecodeError, ValueError, BadText, TooLarge, RecursionError) as exc:
        raise Undecryptable("The message's content is malformed.") from exc


def _first(data: bytes) -> int:
    fields = _peek.decode(data)
    if not fields:
        raise ValueError("no kind")
    return _kind.decode(fields[0])
