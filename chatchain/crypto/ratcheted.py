"""Suite 2, "ratchet": a message is encrypted once, and each device's session carries the key to it.

The padded content is encrypted under a random key used once. Each device's header is one message of its
session (`session`), whose plaintext is that key and the SHA-256 of the body, so no reader can put another
body under somebody's header. What the relay says of a message (its id, who sent it, to whom) is bound as
associated data: where it lies, the header does not open. The time stands inside. Byte layouts:
docs/protocol.md.

Nothing is signed: that a session opens the header is what shows the sender.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import content as contents
from chatchain.crypto.content import Content, Unsupported
from chatchain.crypto.padding import MAX_PADDED, pad, unpad
from chatchain.crypto.sealed import MAX_TIME_MS
from chatchain.errors import ForgedMessage, Undecryptable
from chatchain.model import MESSAGE_ID_BYTES, Network

KEY_BYTES: Final = 32
MAX_BODY_BYTES: Final = MAX_PADDED + 16

_FORMAT: Final = 1
_INSIDE: Final = struct.Struct(">BQ")
"""Format, time in ms; the content follows."""
_KEYED: Final = struct.Struct(f">{KEY_BYTES}s32s")
_ASSOCIATED: Final = struct.Struct(f">Q20s{MESSAGE_ID_BYTES}sQIQ")
_HEADER_LABEL: Final = b"chatchain/2 header"
_BODY_LABEL: Final = b"chatchain/2 body"
_ZERO_NONCE: Final = bytes(12)


def associated_data(network: Network, message_id: bytes, sender: int, device: int, recipient: int) -> bytes:
    """Gives what every header of a message is bound to; raises ForgedMessage for numbers that cannot be."""
    try:
        return _HEADER_LABEL + _ASSOCIATED.pack(
            network.chain_id, network.registry, message_id, sender, device, recipient
        )
    except struct.error as exc:
        raise ForgedMessage("The message names a sender or recipient that cannot exist.") from exc


def seal_body(key: bytes, content: bytes, time_ms: int) -> bytes:
    """Encrypts encoded content under a random key, which must serve no other body."""
    inside = _INSIDE.pack(_FORMAT, time_ms) + content
    return AESGCM(key).encrypt(_ZERO_NONCE, pad(inside), _BODY_LABEL)


def header_content(key: bytes, body: bytes) -> bytes:
    """Gives what a session carries to one device: the body's key and hash, 64 bytes."""
    return _KEYED.pack(key, hashlib.sha256(body).digest())


def open_body(carried: bytes, body: bytes) -> tuple[Content | Unsupported, int]:
    """Gives content and time from a body and what a header of its message carried; raises Undecryptable."""
    if len(carried) != _KEYED.size:
        raise Undecryptable("The message's header does not hold a key.")
    key, digest = _KEYED.unpack(carried)
    if len(body) > MAX_BODY_BYTES or not hmac.compare_digest(hashlib.sha256(body).digest(), digest):
        raise Undecryptable("The message's body was altered or belongs to another message.")
    try:
        inside = unpad(AESGCM(key).decrypt(_ZERO_NONCE, body, _BODY_LABEL))
    except InvalidTag:
        raise Undecryptable("The message's body does not open with the key that came with it.") from None
    if len(inside) < _INSIDE.size:
        raise Undecryptable("The message is empty inside.")
    format_, time_ms = _INSIDE.unpack_from(inside)
    if format_ != _FORMAT:
        return Unsupported(format_, 0), 0
    if time_ms > MAX_TIME_MS:
        raise Undecryptable("The message gives a time after the year 9999 as its own.")
    return contents.decode(inside[_INSIDE.size :]), time_ms
