"""The labels that keep derived keys apart, and the check that the post-quantum half exists."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatchain.errors import BadConfig

LOGIN_KEY: Final = b"chatchain/1 login key"
VAULT_KEY: Final = b"chatchain/1 vault key"
ACCOUNT_SECRET: Final = b"chatchain/1 account secret"
KEYSTORE_SECRET: Final = b"chatchain/1 keystore secret"


def hkdf(secret: bytes, label: bytes, length: int = 32, salt: bytes | None = None) -> bytes:
    """Derives bytes for one purpose, named by its label (RFC 5869, SHA-256; uniform inputs need no salt)."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=label).derive(secret)


def require_post_quantum() -> None:
    """Raises BadConfig when the cryptography library lacks ML-KEM: nothing is ever sent classical-only."""
    try:
        MLKEM768PrivateKey.from_seed_bytes(bytes(64))
    except (UnsupportedAlgorithm, AttributeError) as exc:
        raise BadConfig(
            "This machine's cryptography library has no ML-KEM: messages could not be sealed post-quantum.",
            "Install the `cryptography` wheel from PyPI (version 50 or newer, which brings OpenSSL 3.5).",
        ) from exc
