"""What a thief with the key reads of a home's database: every page of the file and of its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_PAGE: Final = 4096
_RESERVED: Final = 80
_IV: Final = 16


def journal_of(path: Path) -> Path:
    """The journal of a database."""
    return path.with_name(path.name + "-wal")


def pages(path: Path, key: bytes) -> bytes:
    """Everything in the file and its journal, decrypted: SQLCipher 4 with a raw key."""
    found = b""
    for file in (path, journal_of(path)):
        data = file.read_bytes() if file.exists() else b""
        start, step = (0, _PAGE) if file == path else (32 + 24, _PAGE + 24)
        for at in range(start, len(data), step):
            page = data[at : at + _PAGE]
            skip = 16 if file == path and at == 0 else 0
            body, iv = page[skip : _PAGE - _RESERVED], page[_PAGE - _RESERVED : _PAGE - _RESERVED + _IV]
            if len(page) == _PAGE:
                found += Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor().update(body)
    return found
