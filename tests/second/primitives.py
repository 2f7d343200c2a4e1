"""The algorithms that the protocol names, as other libraries have them, and its padding."""

import hashlib
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ONCE = bytes(12)  # the nonce wherever a key serves one text


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def hkdf(secret: bytes, info: bytes, length: int = 32, salt: bytes | None = None) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def seal(key: bytes, text: bytes, also: bytes = b"", nonce: bytes = ONCE) -> bytes:
    return AESGCM(key).encrypt(nonce, text, also)


def unseal(key: bytes, box: bytes, also: bytes = b"", nonce: bytes = ONCE) -> bytes:
    return AESGCM(key).decrypt(nonce, box, also)


def dh(secret: bytes, public: bytes) -> bytes:
    """X25519; the library refuses a shared secret of zeros."""
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def dh_public(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def pad(text: bytes) -> bytes:
    sizes = [256, 512, 1024, *range(2048, 16385, 2048), *range(20480, 69633, 4096)]
    size = next(size for size in sizes if size > len(text))
    return (text + b"\x80").ljust(size, b"\0")


def unpad(padded: bytes) -> bytes:
    text, mark, _ = padded.rstrip(b"\0").rpartition(b"\x80")
    if not mark or pad(text) != padded:
        raise ValueError("padding has one spelling, and this is another")
    return text
