"""Suite 1, "sealed": each message is sealed to the current key of every device that the chain lists.

The body is encrypted once, under a random key used once; each device gets a header, sealed to it with HPKE
(RFC 9180, base mode) over X-Wing, that holds this key and the sender's signature. There is no forward
secrecy: who gets a device's X-Wing seed reads what was sealed to it before (docs/threats.md). Byte layouts:
docs/protocol.md.

Authenticity rests on the signature alone. It names everything that could be swapped: network, sender,
recipient, id, time and the padded plaintext. What the relay says of a message is believed only as far as the
signature says the same.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from chatchain.crypto import content as contents
from chatchain.crypto.content import Content, Unsupported
from chatchain.crypto.device import DeviceSecrets, KemSecret, kem_public_key
from chatchain.crypto.padding import MAX_PADDED, pad, unpad
from chatchain.errors import ForgedMessage, TooLarge, Undecryptable
from chatchain.identity import ed25519
from chatchain.model import MESSAGE_ID_BYTES, Copy, Delivery, Network
from chatchain.model import Suite as SuiteId

MAX_COPIES = 32
"""Devices that one envelope may go to: with the largest body it stays under half of a 256 KiB frame."""

_HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_ENC_BYTES = 1120
_TAG = 16

MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: what calendars, and databases with signed integers, can hold."""

_HEADER = struct.Struct(">32sIQ64s")
_HEADER_INFO = struct.Struct(">Q20sQI")
_SIGNED = struct.Struct(">Q20sQIQ16sQ32s")
_HEADER_LABEL = b"chatchain/1 sealed header"
_BODY_LABEL = b"chatchain/1 sealed body"
_SIGNATURE_LABEL = b"chatchain/1 sealed message"

HEADER_BYTES = _ENC_BYTES + _HEADER.size + _TAG
MAX_BODY_BYTES = MAX_PADDED + _TAG

_ZERO_NONCE = bytes(12)

KeyResolver = Callable[[int, int, int, int], bytes]
"""(uid, device, key version, signed time in ms) → the sender's Ed25519 key, or raises ForgedMessage.

`identity.record.signing_key_for` is the rule behind it.
"""


class Target(msgspec.Struct, frozen=True):
    """A device to seal to, with its verified X-Wing public key."""

    uid: int
    device: int
    kem_public: bytes


class Opened(msgspec.Struct, frozen=True):
    """What a delivery held, its signature checked: the content, the sender's time and key version."""

    content: Content | Unsupported
    time_ms: int
    version: int


def seal(
    network: Network,
    content: Content,
    *,
    secrets: DeviceSecrets,
    sender: int,
    device: int,
    version: int,
    recipient: int,
    message_id: bytes,
    time_ms: int,
    targets: Sequence[Target],
) -> tuple[bytes, tuple[Copy, ...]]:
    """Seals one message from this device to all targets: the common body and a header for each.

    `targets` are the recipient's active devices and the sender's own others. Raises TooLarge for more than
    32, BadRecord for a malformed key.
    """
    if not targets:
        raise ValueError("a message needs a device to go to")
    if len(targets) > MAX_COPIES:
        raise TooLarge(f"The message would go to {len(targets)} devices; {MAX_COPIES} is the limit.")
    if len(message_id) != MESSAGE_ID_BYTES:
        raise ValueError("a message id has 16 bytes")
    padded = pad(contents.encode(content))
    signed = _signed_bytes(network, sender, device, recipient, message_id, time_ms, padded)
    signature = secrets.signing_key.sign(signed)
    key = os.urandom(32)
    # The key is random and seals this one body only, so a fixed nonce is never used twice with it.
    body = AESGCM(key).encrypt(_ZERO_NONCE, padded, _BODY_LABEL)
    header = _HEADER.pack(key, version, time_ms, signature)
    copies = tuple(
        Copy(
            target.uid,
            target.device,
            _HPKE.encrypt(
                header, kem_public_key(target.kem_public), _header_info(network, target.uid, target.device)
            ),
        )
        for target in targets
    )
    return body, copies


def open_(
    network: Network,
    delivery: Delivery,
    *,
    uid: int,
    device: int,
    keys: Sequence[KemSecret],
    resolve: KeyResolver,
) -> Opened:
    """Opens a delivery on this device (`uid`, `device`) and checks who signed it.

    `keys` are this device's X-Wing keys, the current one first, then superseded ones. Raises Undecryptable
    when no key opens it, a part was altered or its time is beyond MAX_TIME_MS, ForgedMessage when the
    signature is not the claimed sender's for exactly this message. The caller checks the id against replays.
    """
    if delivery.suite != SuiteId.SEALED:
        raise Undecryptable(
            f"The message is sealed with suite {delivery.suite}, which this program does not know."
        )
    if (
        len(delivery.header) != HEADER_BYTES
        or len(delivery.body) > MAX_BODY_BYTES
        or len(delivery.id) != MESSAGE_ID_BYTES
    ):
        raise Undecryptable("The message is truncated or too long.")
    if uid not in (delivery.recipient, delivery.sender):
        # A reader could pass a signed message on; it must not appear where it was not written for.
        raise ForgedMessage("The message is addressed to somebody else.")
    key, version, time_ms, signature = _HEADER.unpack(_open_header(network, delivery, uid, device, keys))
    try:
        padded = AESGCM(key).decrypt(_ZERO_NONCE, delivery.body, _BODY_LABEL)
    except InvalidTag:
        raise Undecryptable("The message's body was altered or belongs to another message.") from None
    public = resolve(delivery.sender, delivery.sender_device, version, time_ms)
    signed = _signed_bytes(
        network, delivery.sender, delivery.sender_device, delivery.recipient, delivery.id, time_ms, padded
    )
    if not ed25519.verify(public, signature, signed):
        raise ForgedMessage(
            f"The message claims to come from device {delivery.sender_device} of user {delivery.sender}, "
            "whose signature it does not bear."
        )
    if time_ms > MAX_TIME_MS:
        raise Undecryptable("The message gives a time after the year 9999 as its own.")
    return Opened(contents.decode(unpad(padded)), time_ms, version)


def _open_header(
    network: Network, delivery: Delivery, uid: int, device: int, keys: Sequence[KemSecret]
) -> bytes:
    info = _header_info(network, uid, device)
    for secret in keys:
        try:
            header = _HPKE.decrypt(delivery.header, secret.private, info)
        except InvalidTag:
            continue
        return header
    raise Undecryptable("The message was altered on its way, or is for another device.")


def _header_info(network: Network, uid: int, device: int) -> bytes:
    return _HEADER_LABEL + _HEADER_INFO.pack(network.chain_id, network.registry, uid, device)


def _signed_bytes(
    network: Network, sender: int, device: int, recipient: int, message_id: bytes, time_ms: int, padded: bytes
) -> bytes:
    try:
        return _SIGNATURE_LABEL + _SIGNED.pack(
            network.chain_id,
            network.registry,
            sender,
            device,
            recipient,
            message_id,
            time_ms,
            hashlib.sha256(padded).digest(),
        )
    except struct.error as exc:
        raise ForgedMessage("The message names a sender or recipient that cannot exist.") from exc
