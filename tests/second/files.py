"""Attachments: Cobblestone-256."""

import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.second.primitives import seal, sha256, unseal

_CHUNK = 16384


def seal_file(content: bytes) -> tuple[bytes, bytes]:
    """The file's key, and the blob."""
    key, salt = os.urandom(32), os.urandom(24)
    box, nonce, commitment = _keys(key, salt)
    chunks = [content[at : at + _CHUNK] for at in range(0, len(content) + 1, _CHUNK)]
    return key, salt + commitment + b"".join(
        seal(box, chunk, nonce=_nonce(nonce, n)) for n, chunk in enumerate(chunks)
    )


def open_file(key: bytes, size: int, digest: bytes, blob: bytes) -> bytes:
    if len(blob) != blob_size(size):
        raise ValueError("a blob of another size")
    box, nonce, commitment = _keys(key, blob[:24])
    if blob[24:56] != commitment:
        raise ValueError("a blob for another key")
    chunks = [blob[at : at + _CHUNK + 16] for at in range(56, len(blob), _CHUNK + 16)]
    content = b"".join(unseal(box, chunk, nonce=_nonce(nonce, n)) for n, chunk in enumerate(chunks))
    if sha256(content) != digest:
        raise ValueError("another file")
    return content


def blob_size(size: int) -> int:
    return 56 + size + 16 * (size // _CHUNK + 1)


def _keys(key: bytes, salt: bytes) -> tuple[bytes, bytes, bytes]:
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + b"chatchain/2 file"
    out = HKDFExpand(hashes.SHA512(), 76, info).derive(key)
    return out[:32], out[32:44], out[44:]


def _nonce(base: bytes, n: int) -> bytes:
    return (int.from_bytes(base) ^ n).to_bytes(12)
