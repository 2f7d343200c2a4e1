"""The RSA-2048 compatibility envelope: to a peer who publishes an RSA key on the chain and nothing better.

RSAES-OAEP with SHA-256 carries an AES-256-GCM key that is used once; RSASSA-PSS with SHA-256 signs (RFC
8017). There is no forward secrecy, no protection against a quantum computer and no deniability, so the
envelope says what it is wherever it shows (`LABEL`, and its text's first line). It is never made for who has
an active device that lists any suite, and never read between two who have: whoever could be written to, or
could write, better is not brought down to this.

Authenticity rests on the signature, which names network, both users with their keys' numbers and versions,
id, time and the padded plaintext, and travels inside of the box. Byte layout: docs/protocol.md.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from chatchain.crypto import content as contents
from chatchain.crypto.content import Content, Unsupported
from chatchain.crypto.padding import MAX_PADDED, pad, unpad
from chatchain.errors import BadRecord, ForgedMessage, Undecryptable
from chatchain.identity.record import better_device
from chatchain.model import MESSAGE_ID_BYTES, DeviceState, Network, PublishedKey, User

LABEL: Final = "RSA-2048 compatibility: no forward secrecy, not post-quantum, not deniable"
"""What every view of such a message says of it."""

BEGIN: Final = "-----BEGIN CHATCHAIN RSA-2048 COMPATIBILITY MESSAGE-----"
END: Final = "-----END CHATCHAIN RSA-2048 COMPATIBILITY MESSAGE-----"

KEY_BITS: Final = 2048
EXPONENT: Final = 65537
PUBLIC_BYTES: Final = 294
"""A key's DER SubjectPublicKeyInfo, as the registry takes it."""

_MODULUS_BYTES: Final = KEY_BITS // 8
_FORMAT: Final = 1
_HEADER: Final = struct.Struct(">BQIIQII16sQ")
_NETWORK: Final = struct.Struct(">Q20s")
_KEY_LABEL: Final = b"chatchain/1 RSA compatibility key"
_BODY_LABEL: Final = b"chatchain/1 RSA compatibility body"
_SIGNATURE_LABEL: Final = b"chatchain/1 RSA compatibility message"
_TAG: Final = 16
_ZERO_NONCE: Final = bytes(12)
_LINE: Final = 64

_BOX_AT: Final = _HEADER.size + _MODULUS_BYTES

MAX_BYTES: Final = _HEADER.size + 2 * _MODULUS_BYTES + MAX_PADDED + _TAG
MAX_TEXT: Final = 2 * MAX_BYTES

PSS: Final = paddings.PSS(paddings.MGF1(SHA256()), salt_length=SHA256.digest_size)
"""RSASSA-PSS with SHA-256 throughout and a salt as long as the hash (RFC 8017, section 9.1)."""


class Opened(msgspec.Struct, frozen=True):
    """What an envelope held, its signature checked; `label` says what it is worth."""

    content: Content | Unsupported
    sender: int
    id: bytes
    time_ms: int
    label: str = LABEL


def new_secret() -> bytes:
    """Draws an RSA-2048 key: PKCS #8, DER."""
    key = rsa.generate_private_key(EXPONENT, KEY_BITS)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def public_of(secret: bytes) -> bytes:
    """Gives the public key of a secret, in the 294 bytes that the registry takes; raises BadRecord."""
    return _encoded(_private(secret))


def public_key(data: bytes) -> rsa.RSAPublicKey:
    """Reads a key as the registry holds it; raises BadRecord for any other than RSA-2048 with e = 65537."""
    try:
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise BadRecord("The RSA key on the chain is malformed.") from exc
    if (
        not isinstance(key, rsa.RSAPublicKey)
        or key.key_size != KEY_BITS
        or key.public_numbers().e != EXPONENT
        or len(data) != PUBLIC_BYTES
    ):
        raise BadRecord(f"The key on the chain is not an RSA key of {KEY_BITS} bits.")
    return key


def recipient_key(user: User) -> PublishedKey:
    """Gives the RSA key that this user is written to with, the newest active one.

    Raises BadRecord when there is none, or when the user has an active device that lists any suite: then this
    envelope is refused, whoever asks for it.
    """
    better = better_device(user)
    if better is not None:
        raise BadRecord(
            f"{user.username} has device {better.device} for better encryption; "
            "the RSA compatibility envelope is refused to such a user.",
            f"Write with it: `chatchain send {user.username} …`.",
        )
    return signing_key(user)


def require_nothing_better(sender: User, recipient: User) -> None:
    """Raises BadRecord when both have a device that lists a suite: then nothing is read that came like this,
    or whoever stole an RSA key could write in its owner's name.
    """
    better = better_device(sender)
    if better is not None and better_device(recipient) is not None:
        raise BadRecord(
            f"{sender.username} has device {better.device} for better encryption, and so have you; "
            "what claims to come from there by the RSA compatibility envelope is refused.",
            f"Ask {sender.username} to write with chatchain.",
        )


def sender_of(envelope: bytes) -> int:
    """Gives the uid of whoever an envelope claims to come from; raises Undecryptable for what is none."""
    if not _BOX_AT + _MODULUS_BYTES + _TAG < len(envelope) <= MAX_BYTES or envelope[0] != _FORMAT:
        raise Undecryptable("This is not an RSA compatibility envelope that this program knows.")
    uid: int = _HEADER.unpack_from(envelope)[1]
    return uid


def signing_key(user: User) -> PublishedKey:
    """Gives the RSA key that this user signs with, the newest active one; raises BadRecord."""
    keys = [key for key in user.keys if key.state is DeviceState.ACTIVE]  # KeyKind has this one kind
    if not keys:
        raise BadRecord(f"{user.username} publishes no RSA key.")
    return keys[-1]


def seal(
    network: Network,
    content: Content,
    *,
    secret: bytes,
    sender: User,
    recipient: User,
    message_id: bytes,
    time_ms: int,
) -> bytes:
    """Seals one message from a user to another by their RSA keys on the chain; `secret` is the sender's."""
    if len(message_id) != MESSAGE_ID_BYTES:
        raise ValueError("a message id has 16 bytes")
    mine, theirs = signing_key(sender), recipient_key(recipient)
    private = _own(secret, mine)
    header = _HEADER.pack(
        _FORMAT,
        sender.uid,
        mine.number,
        mine.current.version,
        recipient.uid,
        theirs.number,
        theirs.current.version,
        message_id,
        time_ms,
    )
    padded = pad(contents.encode(content))
    signature = private.sign(_signed(network, header, padded), PSS, SHA256())
    key = os.urandom(32)
    wrapped = public_key(theirs.current.key).encrypt(key, _oaep(network, header))
    # The key is random and seals this one box only, so a fixed nonce is never used twice with it.
    box = AESGCM(key).encrypt(_ZERO_NONCE, signature + padded, _BODY_LABEL + header + wrapped)
    return header + wrapped + box


def open_(network: Network, envelope: bytes, *, secret: bytes, recipient: User, sender: User) -> Opened:
    """Opens an envelope that `sender` is said to have made for `recipient`, whose key `secret` is.

    Raises Undecryptable for what is not for this key, or altered, ForgedMessage when the signature is not by
    the sender's key that the chain has in force, and BadRecord when both could do better. The caller checks
    the id against replays.
    """
    sender_of(envelope)
    require_nothing_better(sender, recipient)
    header, wrapped, box = envelope[: _HEADER.size], envelope[_HEADER.size : _BOX_AT], envelope[_BOX_AT:]
    _, sender_uid, number, version, *to, message_id, time_ms = _HEADER.unpack(header)
    mine, theirs = signing_key(recipient), signing_key(sender)
    private = _own(secret, mine)
    if to != [recipient.uid, mine.number, mine.current.version]:
        raise Undecryptable("The message is for another user or key than this one.")
    if (sender_uid, number, version) != (sender.uid, theirs.number, theirs.current.version):
        raise ForgedMessage("The message claims another sender or key than the chain has in force.")
    try:
        key = private.decrypt(wrapped, _oaep(network, header))
        inside = AESGCM(key).decrypt(_ZERO_NONCE, box, _BODY_LABEL + header + wrapped)
    except (InvalidTag, ValueError):
        # One answer to both: which of the two failed would help to guess the key (Manger's attack).
        raise Undecryptable("The message does not open with this key, or was altered.") from None
    signature, padded = inside[:_MODULUS_BYTES], inside[_MODULUS_BYTES:]
    try:
        public_key(theirs.current.key).verify(signature, _signed(network, header, padded), PSS, SHA256())
    except InvalidSignature:
        raise ForgedMessage(f"The message is not signed by {sender.username}'s RSA key.") from None
    return Opened(contents.decode(unpad(padded)), sender.uid, message_id, time_ms)


def armour(envelope: bytes) -> str:
    """Writes an envelope as text that says in its first line what it is."""
    body = base64.b64encode(envelope).decode()
    lines = [body[start : start + _LINE] for start in range(0, len(body), _LINE)]
    return "\n".join([BEGIN, f"({LABEL})", *lines, END])


def from_armour(text: str) -> bytes:
    """Reads what `armour` wrote; raises BadRecord."""
    lines = [line.strip() for line in text[:MAX_TEXT].strip().splitlines()]
    if len(text) > MAX_TEXT or lines[:2] != [BEGIN, f"({LABEL})"] or lines[-1] != END:
        raise BadRecord("This is not the text of an RSA compatibility message, whole.")
    try:
        return base64.b64decode("".join(lines[2:-1]), validate=True)
    except ValueError as exc:
        raise BadRecord("The text of the RSA compatibility message is mistyped.") from exc


def _own(secret: bytes, listed: PublishedKey) -> rsa.RSAPrivateKey:
    """The key of this secret, which must be the one that the chain has in force; raises BadRecord."""
    key = _private(secret)
    if listed.current.key != _encoded(key):
        raise BadRecord("This is not the RSA key that the chain has in force for its owner.")
    return key


def _encoded(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@lru_cache(maxsize=1)  # OpenSSL proves the primes of every key that it loads
def _private(secret: bytes) -> rsa.RSAPrivateKey:
    try:
        key = load_der_private_key(secret, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise BadRecord("The RSA key is damaged.") from exc
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != KEY_BITS:
        raise BadRecord(f"The key is not an RSA key of {KEY_BITS} bits.")
    return key


def _oaep(network: Network, header: bytes) -> paddings.OAEP:
    return paddings.OAEP(paddings.MGF1(SHA256()), SHA256(), label=_KEY_LABEL + _bound(network) + header)


def _signed(network: Network, header: bytes, padded: bytes) -> bytes:
    return _SIGNATURE_LABEL + _bound(network) + header + hashlib.sha256(padded).digest()


def _bound(network: Network) -> bytes:
    return _NETWORK.pack(network.chain_id, network.registry)
