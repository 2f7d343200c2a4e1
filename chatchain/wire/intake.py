"""What all connections of one process cost together by what they have sent and nobody has dealt with. Pure.

Two things add up with the number of those who send, whatever is allowed to each:

- What was read while the database commits nothing. TLS keeps the room that one read took as long as the
  connection lasts, and so each connection that is read from once costs about as much as it had sent by then.
  Once that comes to a bound, nobody is read from until there is a commit, but those of whom as much was read
  at a time as can be: these cost no more than they do.
- Frames that have begun. Each must be finished within a time that its length gives; and beyond a bound for
  all of them the one that began first gives way, which is the slowest. An honest one comes again.
"""

from __future__ import annotations

from typing import Final, Protocol

READ_BYTES: Final = 16 * 1024 * 1024
"""What may have been read since the last commit, in memory that stays."""

FOLD: Final = 3
"""How often one read lies in memory: as it came, as TLS keeps it, and as messages."""

READ_MOST: Final = 64 * 1024
"""What can be read of one connection at a time: the kernel queues twice what it is asked to."""

UNFINISHED_BYTES: Final = 32 * 1024 * 1024
"""Of frames that have begun: 128 of the longest."""

FRAME_GRACE: Final = 15.0
FRAME_RATE: Final = 1024
"""Seconds that a frame may take however short it is, and bytes a second that it must come at besides: half of
what the slowest links of today do. The longest frame has four and a half minutes.
"""


class Source(Protocol):
    """A connection that sends messages."""

    def adjust(self) -> None:
        """What `Intake.lets` says of it may have changed."""

    def give_way(self) -> None:
        """Its frame has to go."""


def frame_seconds(length: int) -> float:
    """How long a frame of this length may take."""
    return FRAME_GRACE + length / FRAME_RATE


class Intake:
    """The two bounds of one process."""

    def __init__(self, *, read: int = READ_BYTES, unfinished: int = UNFINISHED_BYTES) -> None:
        self._most_read = read
        self._most_unfinished = unfinished
        self._sources: dict[Source, None] = {}
        self._costs: dict[Source, int] = {}
        self._unfinished: dict[Source, int] = {}  # those that began first stand first
        self._unfinished_bytes = 0
        self.read = 0
        """What was read since the last commit, and is kept."""
        self.shut = False
        """Whether nobody may add to it."""

    @property
    def unfinished(self) -> int:
        """Bytes of frames that have begun."""
        return self._unfinished_bytes

    @property
    def waiting(self) -> int:
        """Connections that are not read from because of what others have sent."""
        return sum(not self.lets(source) for source in self._sources) if self.shut else 0

    def enter(self, source: Source) -> None:
        """Counts a connection for messages from now on."""
        self._sources[source] = None

    def leave(self, source: Source) -> None:
        """Forgets a connection."""
        self._sources.pop(source, None)
        self.read -= self._costs.pop(source, 0)
        self.finished(source)

    def took(self, source: Source, size: int) -> None:
        """So many bytes came from a connection at once."""
        if source not in self._sources:
            return
        cost = FOLD * size
        more = cost - self._costs.get(source, 0)
        if more > 0:
            self._costs[source] = cost
            self.read += more
            if self.read >= self._most_read and not self.shut:
                self.shut = True
                self._adjust()

    def lets(self, source: Source) -> bool:
        """Whether a connection may be read from."""
        return not self.shut or source not in self._sources or self._costs.get(source, 0) >= FOLD * READ_MOST

    def committed(self) -> None:
        """The database works: what was read is dealt with, or will be."""
        if self._costs:
            self._costs.clear()
            self.read = 0
        if self.shut:
            self.shut = False
            self._adjust()

    def begun(self, source: Source, size: int, *, anew: bool) -> None:
        """So many bytes of an unfinished frame of this connection wait for the rest."""
        if anew:
            self.finished(source)
        self._unfinished_bytes += size - self._unfinished.get(source, 0)
        self._unfinished[source] = size
        while self._unfinished_bytes > self._most_unfinished and len(self._unfinished) > 1:
            slowest = next(iter(self._unfinished))
            self.finished(slowest)
            slowest.give_way()

    def finished(self, source: Source) -> None:
        """No frame of this connection is unfinished."""
        self._unfinished_bytes -= self._unfinished.pop(source, 0)

    def _adjust(self) -> None:
        for source in list(self._sources):
            source.adjust()
