"""X25519 on raw bytes, by libsodium: OpenSSL would compute the public key of every secret that it loads."""

from __future__ import annotations

from typing import Final

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from chatchain.errors import BadRecord

KEY_BYTES: Final = 32


def agree(secret: bytes, public: bytes) -> bytes:
    """Gives the shared secret (RFC 7748, section 6.1); raises BadRecord for a key of small order."""
    # The binding reads 32 bytes of both, however long they are.
    if len(secret) != KEY_BYTES or len(public) != KEY_BYTES:
        raise BadRecord(f"An X25519 key has {KEY_BYTES} bytes.")
    try:
        return crypto_scalarmult(secret, public)
    except CryptoError as exc:
        raise BadRecord("An X25519 key is of small order.") from exc


def public_of(secret: bytes) -> bytes:
    """Gives the public key of a secret."""
    return crypto_scalarmult_base(secret)
