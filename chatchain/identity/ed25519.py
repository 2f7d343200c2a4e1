"""Ed25519 as this project uses it: every public key is gated before it is believed.

OpenSSL's verifier accepts public keys of small order, for which anybody can make signatures that hold for
many messages; libsodium's point check refuses those and points outside the prime-order group.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
SIGNATURE_BYTES = 64


def public_of(secret: bytes) -> bytes:
    """Gives the public key of a 32-byte Ed25519 secret."""
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def sign(secret: bytes, message: bytes) -> bytes:
    """Signs a message (RFC 8032, pure Ed25519): 64 bytes."""
    return Ed25519PrivateKey.from_private_bytes(secret).sign(message)


@lru_cache(maxsize=4096)
def is_valid_key(public: bytes) -> bool:
    """Says whether these 32 bytes are a point of prime order in its one encoding."""
    from nacl.bindings import crypto_core_ed25519_is_valid_point

    return len(public) == KEY_BYTES and crypto_core_ed25519_is_valid_point(public)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Says whether the signature holds, under a key that passes the gate.

    libsodium judges it, three times as fast as OpenSSL here; it also refuses an R of small order.
    """
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    if len(signature) != SIGNATURE_BYTES or not is_valid_key(public):
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True
