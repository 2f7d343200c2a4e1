"""The files of the relay in tests/world.py: blobs in a dictionary, and ways to be unreliable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from chatchain.wire import messages as m

STEP = 100_000
"""Bytes in a piece, and of what an upload that breaks off loses."""


@dataclass
class Shelf:
    """What a relay does with connections for files."""

    blobs: dict[bytes, bytes] = field(default_factory=dict)
    begun: dict[bytes, bytes] = field(default_factory=dict)
    """Uploads that have not come to their end."""
    largest: int = 25_024_472
    refuse: Callable[[m.Upload], m.Failed | None] = lambda upload: None
    cut_up: list[int] = field(default_factory=list)
    """Each upload that follows is cut after so many bytes."""
    cut_down: list[int] = field(default_factory=list)
    """The same of downloads."""
    uploaded: int = 0
    """Bytes that came in pieces."""
    fetched: list[m.Fetch] = field(default_factory=list)
    entered: int = 0
    """Connections for files so far."""
    tamper: Callable[[bytes], bytes] = lambda blob: blob
    _current: m.Upload | None = None
    _limit: int | None = None

    def handle(self, message: m.Message) -> list[m.Message | None]:
        """What is said to a message; None cuts the connection."""
        match message:
            case m.Upload(ref, blob):
                if (failed := self.refuse(message)) is not None:
                    return [failed]
                if blob in self.blobs:
                    return [m.Stored(ref, 1)]
                there = self.begun.setdefault(blob, b"")
                there = self.begun[blob] = there[: len(there) // STEP * STEP]
                self._current = message
                self._limit = self.cut_up.pop(0) if self.cut_up else None
                return [m.Uploading(ref, len(there))]
            case m.Piece(ref, data):
                return self._take(ref, data)
            case m.Fetch(ref, blob, offset, length):
                self.fetched.append(message)
                return self._give(ref, blob, offset, length)
            case m.Discard(ref, blob):
                self.blobs.pop(blob, None)
                return [m.Done(ref)]
            case _:
                raise AssertionError(message)

    def _take(self, ref: int, data: bytes) -> list[m.Message | None]:
        assert self._current is not None
        blob, size = self._current.blob, self._current.size
        if self._limit is not None and self._limit < len(data):
            self.begun[blob] += data[: self._limit]
            return [None]
        self._limit = self._limit - len(data) if self._limit is not None else None
        self.uploaded += len(data)
        self.begun[blob] += data
        if len(self.begun[blob]) < size:
            return []
        whole = self.begun.pop(blob)
        if hashlib.sha256(whole).digest() != blob:
            return [m.Failed(ref, "not_verified", "Another hash.", 0)]
        self.blobs[blob] = whole
        return [m.Stored(ref, 1)]

    def _give(self, ref: int, blob: bytes, offset: int, length: int) -> list[m.Message | None]:
        if blob not in self.blobs:
            return [m.Failed(ref, "not_found", "It is not here.", 0)]
        whole = self.tamper(self.blobs[blob])
        answers: list[m.Message | None] = [m.Fetching(ref, len(whole))]
        limit = self.cut_down.pop(0) if self.cut_down and length > STEP else None
        part = whole[offset : offset + length]
        for at in range(0, len(part), STEP):
            if limit is not None and at >= limit:
                return [*answers, None]
            answers.append(m.Piece(ref, part[at : at + STEP]))
        return answers
