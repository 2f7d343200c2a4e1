"""Up to where a process knows what was committed: a machine without sockets, database or clock.

Every commit takes the sequences that follow the last commit's, whichever process makes it. A stretch says
what lies in some sequences that follow each other: for the devices that are believed to be here whole runs,
of the others only the name. Each is used once, and only when everything before it is known: then nothing that
is for a device here can lie unseen below what the device is given. What comes early is kept for a moment,
within bounds; whatever is missing then, or came late, or did not fit, is for a look into the database.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chatchain.model import Run

EARLY: Final = 256
EARLY_BYTES: Final = 4 * 1024 * 1024
"""Stretches that may wait for those before them, and what is in them."""


class Stretch(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What was committed under the sequences `first` to `last`."""

    origin: int
    """The number of the process that committed it."""
    first: int
    last: int
    runs: list[Run]
    named: list[tuple[int, int, int]]
    """Devices for which something else is in it: uid, device, the last sequence."""

    @property
    def size(self) -> int:
        """Bytes of what was handed over."""
        return sum(map(len, (parcel for run in self.runs for parcel in run.parcels)))


class Frontier:
    """What this process knows of all commits."""

    def __init__(self, known: int) -> None:
        self.known = known
        """Everything up to this sequence is accounted for."""
        self._early: dict[int, Stretch] = {}
        self._early_bytes = 0

    @property
    def seen(self) -> int:
        """The highest sequence of which this process has heard."""
        return max((stretch.last for stretch in self._early.values()), default=self.known)

    def came(self, stretch: Stretch) -> list[Stretch]:
        """Takes a stretch in; gives those that are next now, in order."""
        if not self.known < stretch.first <= stretch.last or stretch.first in self._early:
            return []  # known already, at least in part: a look has said, or will say, what is in the rest
        if stretch.first == self.known + 1:
            self.known = stretch.last
            return [stretch, *self._next()]
        size = stretch.size
        if len(self._early) >= EARLY or self._early_bytes + size > EARLY_BYTES:
            return []
        self._early[stretch.first] = stretch
        self._early_bytes += size
        return []

    def looked(self, to: int) -> list[Stretch]:
        """The database has said for whom there is something up to here; gives what is next now."""
        self.known = max(self.known, to)
        for first in [first for first in self._early if first <= self.known]:
            self._drop(first)
        return self._next()

    def _next(self) -> list[Stretch]:
        found = []
        while self.known + 1 in self._early:
            stretch = self._drop(self.known + 1)
            self.known = stretch.last
            found.append(stretch)
        return found

    def _drop(self, first: int) -> Stretch:
        stretch = self._early.pop(first)
        self._early_bytes -= stretch.size
        return stretch
