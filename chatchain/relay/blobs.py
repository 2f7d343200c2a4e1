"""What a relay allows of files, and how an upload comes together. Pure.

A blob is an opaque file that a message names; its id is the SHA-256 of its bytes. It comes as pieces and is
kept as parts of one size: an upload that breaks off goes on behind the last part that was kept. What is in
flight is bounded by the part, not by the file.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from chatchain.errors import LimitReached, RefusedError, TooLarge
from chatchain.model import Blob, BlobUse

PART_BYTES: Final = 1024 * 1024
"""What one upload loses at most when it breaks off."""

PIECE_BYTES: Final = 128 * 1024
"""How much of a download travels in one frame."""

HOUR_MS: Final = 3600 * 1000
DAY_MS: Final = 24 * HOUR_MS


class BlobLimits(msgspec.Struct, frozen=True):
    """How much of files a relay takes, and for how long."""

    largest: int = 25_024_472
    """Bytes of one blob: those of a sealed file of 25,000,000 bytes."""
    count: int = 2_000
    """Blobs that one user may have here at a time."""
    bytes: int = 4 * 1024**3
    """Bytes of all of them."""
    per_day: int = 2 * 1024**3
    """Bytes that one user may upload within a day, deleted or not."""
    kept_ms: int = 30 * DAY_MS
    """How long a blob is kept."""
    unfinished_ms: int = DAY_MS
    """How long an upload that broke off may be taken up again."""
    connections: int = 4
    """Connections for files of one user at a time."""


def check_size(limits: BlobLimits, size: int) -> None:
    """Raises TooLarge before a byte of the blob has come."""
    if size > limits.largest:
        raise TooLarge(f"The file is too large: {size:,} bytes; {limits.largest:,} is this relay's limit.")


def admit(limits: BlobLimits, use: BlobUse, size: int) -> None:
    """Raises LimitReached when a user has no room for another blob of this size."""
    if use.today + size > limits.per_day:
        raise LimitReached(
            f"No more than {limits.per_day:,} bytes of files may be uploaded within a day.",
            retry_after_ms=HOUR_MS,
        )
    if use.count >= limits.count or use.bytes + size > limits.bytes:
        raise LimitReached(
            f"The relay keeps {limits.count:,} files and {limits.bytes:,} bytes of one user.",
            retry_after_ms=DAY_MS,
        )


def part_sizes(size: int) -> list[int]:
    """The sizes of the parts that a blob of this size is kept in."""
    whole, rest = divmod(size, PART_BYTES)
    return [PART_BYTES] * whole + [rest] * bool(rest)


def parts_kept(size: int, found: list[int]) -> int:
    """How many of the parts that were found, from the first on, an upload goes on behind."""
    kept = 0
    for has, wanted in zip(found, part_sizes(size), strict=False):
        if has != wanted:
            break
        kept += 1
    return kept


class Assembly:
    """One upload: pieces in, parts out, and the hash of all of it."""

    def __init__(self, blob: Blob, parts: int = 0) -> None:
        """`parts` are kept already; they have to go through `keep`, too, before any other."""
        self.blob = blob
        self._sizes = part_sizes(blob.size)
        self._cut = parts
        self._part = bytearray()
        self._hash = hashlib.sha256()
        self._kept = 0

    @property
    def offset(self) -> int:
        """Where the bytes that are still to come begin."""
        return sum(self._sizes[: self._cut]) + len(self._part)

    @property
    def complete(self) -> bool:
        """Whether every part went through `keep`."""
        return self._kept == len(self._sizes)

    def take(self, piece: bytes) -> list[bytes]:
        """Takes the next bytes and gives the parts that they complete; raises RefusedError for too many."""
        if self.offset + len(piece) > self.blob.size:
            raise RefusedError("The upload is longer than was announced.")
        parts: list[bytes] = []
        view = memoryview(piece)
        while view:
            room = self._sizes[self._cut] - len(self._part)
            self._part += view[:room]
            view = view[room:]
            if len(self._part) == self._sizes[self._cut]:
                parts.append(bytes(self._part))
                self._part.clear()
                self._cut += 1
        return parts

    def keep(self, part: bytes | memoryview) -> int:
        """Counts a part in, in order, and gives its number; it may be called away from the loop."""
        self._hash.update(part)
        self._kept += 1
        return self._kept - 1

    def matches(self) -> bool:
        """Whether the whole is what its id says."""
        return self.complete and hmac.compare_digest(self._hash.digest(), self.blob.id)


def slices(offset: int, length: int) -> list[tuple[int, int, int]]:
    """The parts that hold so many bytes from an offset on: number, first and last byte in each."""
    found = []
    end = offset + length
    while offset < end:
        part, start = divmod(offset, PART_BYTES)
        stop = min(PART_BYTES, start + end - offset)
        found.append((part, start, stop))
        offset += stop - start
    return found
