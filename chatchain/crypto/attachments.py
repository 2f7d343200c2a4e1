"""Files: encrypted once as a stream of chunks, opened chunk by chunk, in constant memory.

The format is Cobblestone-256, that is c2sp.org/chunked-encryption with SHA-512 in HKDF-Expand and
AES-256-GCM: salt (24) ‖ commitment (32) ‖ chunks of 16 KiB, each sealed under the derived key with the base
nonce XOR its number; the last chunk is always shorter. The commitment ties the ciphertext to one key. A
message carries the `FileRef`: key, size and SHA-256; the relay holds an opaque blob.

This room opens no files: bytes come as pieces (`pieces` cuts a reader) and go as pieces.

- A file is sealed in one pass under a key that is drawn for this pass and never again: were a changed file
  sealed again under the same key, its chunks would meet the nonces of the first. Whoever wants to go on after
  an interrupted upload keeps the ciphertext and sends the rest of it.
- What `Opener.update` gives is authenticated and in its place, but only `Opener.finish` says that the file is
  whole: show nothing before.
- Sizes are judged before bytes are read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import msgspec
from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from chatchain.errors import RefusedError, TooLarge, Undecryptable

MAX_FILE_BYTES: Final = 25_000_000
"""Bytes of one file: what a relay keeps for a recipient who may never come."""

CHUNK_BYTES: Final = 16 * 1024
PIECE_BYTES: Final = 16 * CHUNK_BYTES
"""How much is read at a time: large enough to make calls cheap, small enough to stay in a cache."""

_SALT: Final = 24
_COMMITMENT: Final = 32
_TAG: Final = 16
_KEY: Final = 32
_NONCE: Final = 12
_SEALED_CHUNK: Final = CHUNK_BYTES + _TAG
HEADER_BYTES: Final = _SALT + _COMMITMENT

_CONTEXT: Final = b"chatchain/2 file"
_INFO: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"

_FORMAT: Final = 1
_REF: Final = struct.Struct(">B32sI32s")
REF_BYTES: Final = _REF.size


class Reader(Protocol):
    """What can be read from: an open file, a socket's stream."""

    def read(self, size: int, /) -> bytes:
        """Gives at most `size` bytes, none at the end."""
        ...


class FileRef(msgspec.Struct, frozen=True):
    """What a message says of its file; whoever has it can open the blob."""

    key: bytes
    size: int
    sha256: bytes

    def __repr__(self) -> str:
        return f"FileRef(size={self.size}, sha256={self.sha256.hex()})"

    def encode(self) -> bytes:
        """Gives the 69 bytes that travel inside of a message."""
        return _REF.pack(_FORMAT, self.key, self.size, self.sha256)

    @classmethod
    def decode(cls, data: bytes) -> FileRef:
        """Reads what `encode` wrote; raises Undecryptable, or TooLarge for a file over the limit."""
        if len(data) != REF_BYTES or data[0] != _FORMAT:
            raise Undecryptable("The message's description of a file is malformed.")
        _, key, size, sha256 = _REF.unpack(data)
        check_size(size)
        return cls(key, size, sha256)


def check_size(size: int) -> None:
    """Raises TooLarge when a file of so many bytes is not carried."""
    if size > MAX_FILE_BYTES:
        raise TooLarge(
            f"The file has {size:,} bytes; {MAX_FILE_BYTES:,} is the limit.",
            "Make it smaller, or send it in parts.",
        )


def blob_size(size: int) -> int:
    """Gives how many bytes a file of `size` bytes has when sealed."""
    return HEADER_BYTES + size + _TAG * (size // CHUNK_BYTES + 1)


def pieces(reader: Reader, size: int = PIECE_BYTES) -> Iterator[bytes]:
    """Cuts what can be read into pieces of at most `size` bytes."""
    while piece := reader.read(size):
        yield piece


class Sealer:
    """Seals one file: feed it in pieces of any length, then `finish`.

    The size is told first, so that a file over the limit is refused before a byte of it is read; raises
    TooLarge.
    """

    def __init__(self, size: int) -> None:
        check_size(size)
        self._size = size
        self._read = 0
        self._key = os.urandom(_KEY)
        self._hash = hashlib.sha256()
        self._encryptor = Cobblestone256Encryptor(self._key, _CONTEXT)

    def update(self, piece: bytes) -> bytes:
        """Takes the next piece and gives what of the blob is ready.

        Raises RefusedError when the file turns out longer than was said.
        """
        self._read += len(piece)
        if self._read > self._size:
            raise _changed()
        self._hash.update(piece)
        return self._encryptor.update(piece)

    def finish(self) -> tuple[bytes, FileRef]:
        """Gives the end of the blob, and what to say of it; raises RefusedError when bytes are missing."""
        if self._read != self._size:
            raise _changed()
        return self._encryptor.finalize(), FileRef(self._key, self._size, self._hash.digest())


def _changed() -> RefusedError:
    return RefusedError("The file changed while it was read.", "Send it again once nothing writes to it.")


class Cobblestone:
    """Opens one Cobblestone-256 message, in order, from its start or from a chunk boundary.

    `header` is the first 56 bytes of the message; a wrong key, context or header is refused here, by the
    commitment. Once a chunk was refused, everything is.
    """

    def __init__(self, key: bytes, context: bytes, header: bytes, *, chunk: int = 0) -> None:
        if len(key) != _KEY:
            raise Undecryptable(f"A file's key has {_KEY} bytes, this one {len(key)}.")
        if len(header) != HEADER_BYTES:
            raise Undecryptable("The file is truncated.")
        salt, commitment = header[:_SALT], header[_SALT:]
        length = _KEY + _NONCE + _COMMITMENT
        derived = HKDFExpand(SHA512(), length, _INFO + salt + context).derive(key)
        if not hmac.compare_digest(derived[_KEY + _NONCE :], commitment):
            raise Undecryptable("The file is sealed with another key than the message says.")
        self._cipher: AESGCM | None = AESGCM(derived[:_KEY])
        self._nonce = int.from_bytes(derived[_KEY : _KEY + _NONCE], "big")
        self._chunk = chunk
        self._rest = b""

    def update(self, data: bytes) -> bytes:
        """Takes the next bytes after the header, gives the chunks they complete; raises Undecryptable."""
        data = self._rest + data
        whole = len(data) // _SEALED_CHUNK * _SEALED_CHUNK
        view = memoryview(data)
        opened = [self._open(view[at : at + _SEALED_CHUNK]) for at in range(0, whole, _SEALED_CHUNK)]
        self._rest = data[whole:]
        return b"".join(opened)

    def finish(self) -> bytes:
        """Gives the last, short chunk; raises Undecryptable when it is missing: the file was cut."""
        if len(self._rest) < _TAG:
            self._cipher = None
            raise Undecryptable("The file is truncated.")
        last = self._open(memoryview(self._rest))
        self._cipher = None
        return last

    def _open(self, sealed: memoryview) -> bytes:
        cipher, self._cipher = self._cipher, None
        if cipher is None:
            raise Undecryptable("The file was refused before, or has ended.")
        nonce = (self._nonce ^ self._chunk).to_bytes(_NONCE, "big")
        try:
            opened = cipher.decrypt(nonce, sealed, None)
        except InvalidTag:
            raise Undecryptable("The file was altered, cut, or its parts were moved.") from None
        self._cipher = cipher
        self._chunk += 1
        return opened


class Opener:
    """Opens one blob against what the message says of it: feed it in pieces, then `finish`.

    After an interruption, `written` is the plaintext that is already there, a whole number of chunks;
    `offset` then says where in the blob to go on, after its first 56 bytes were fed. Raises TooLarge for a
    file over the limit, before anything is read.
    """

    def __init__(self, file: FileRef, written: Iterable[bytes] = ()) -> None:
        check_size(file.size)
        self._file = file
        self._hash = hashlib.sha256()
        self._opened = 0
        for piece in written:
            self._hash.update(piece)
            self._opened += len(piece)
        if self._opened % CHUNK_BYTES or self._opened > file.size:
            raise ValueError("go on after a whole number of chunks of this file")
        chunk = self._opened // CHUNK_BYTES
        self._start = chunk
        self._left = blob_size(file.size) - chunk * _SEALED_CHUNK
        self._header = b""
        self._stream: Cobblestone | None = None

    @property
    def offset(self) -> int:
        """Where in the blob the bytes after its header are expected from."""
        return HEADER_BYTES + self._start * _SEALED_CHUNK

    def update(self, data: bytes) -> bytes:
        """Takes the next piece of the blob and gives the plaintext that it completes.

        Raises Undecryptable when it is longer than the message says, altered, or in another order.
        """
        self._left -= len(data)
        if self._left < 0:
            raise Undecryptable("The file is longer than the message says.")
        if self._stream is None:
            self._header += data
            if len(self._header) < HEADER_BYTES:
                return b""
            header, data, self._header = self._header[:HEADER_BYTES], self._header[HEADER_BYTES:], b""
            self._stream = Cobblestone(self._file.key, _CONTEXT, header, chunk=self._start)
        return self._taken(self._stream.update(data))

    def finish(self) -> bytes:
        """Gives the last plaintext if the file is whole and the one of the message; raises Undecryptable."""
        if self._stream is None or self._left:
            raise Undecryptable("The file is truncated.")
        last = self._taken(self._stream.finish())
        if self._opened != self._file.size or not hmac.compare_digest(self._hash.digest(), self._file.sha256):
            raise Undecryptable("The file is not the one that the message names.")
        return last

    def _taken(self, opened: bytes) -> bytes:
        self._hash.update(opened)
        self._opened += len(opened)
        return opened


def seal_pieces(sealer: Sealer, source: Iterable[bytes]) -> Iterator[bytes]:
    """Gives the blob of a source, all but the end that `sealer.finish` gives with the reference."""
    for piece in source:
        yield sealer.update(piece)
