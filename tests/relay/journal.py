"""A sponsor's journal in memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence

from chatchain.errors import StoreUnavailable
from chatchain.model import Booked, Note
from chatchain.relay.spending import Judge


class MemoryJournal:
    """Satisfies `relay.spending.Journal`."""

    def __init__(self) -> None:
        self.slices: Counter[int] = Counter()
        self.notes: dict[bytes, tuple[int, Note]] = {}
        """By the name of the first sum: whose it is, and what it is."""
        self.owner = 0
        self.away: Callable[[int], bool] | None = None
        """Which changes it does not take, as when the database is away."""

    @property
    def total(self) -> int:
        """Gwei in all slices."""
        return self.slices.total()

    def next_process(self) -> MemoryJournal:
        """The same journal for a process that begins when this one is gone."""
        other = copy.copy(self)
        other.owner += 1
        return other

    def book(self, slice_: int, hour: int, day: int, judge: Judge) -> None:
        sums = []
        for window in (hour, day):
            within = {at: gwei for at, gwei in self.slices.items() if at > slice_ - window and gwei > 0}
            sums.append((sum(within.values()), min(within, default=slice_)))
        made = judge(sums[0][0], sums[1][0], sums[0][1], sums[1][1])
        self._check(sum(one.gwei for one in made))
        self.slices[slice_] += sum(one.gwei for one in made)
        self.notes |= {one.id: (self.owner, Note((one,), b"")) for one in made}

    def keep(self, notes: Sequence[Note]) -> None:
        self._check(0)
        if any(self.notes.get(note.booked[0].id, (-1,))[0] != self.owner for note in notes):
            raise StoreUnavailable("Taken over.")
        for note in notes:
            for one in note.booked[1:]:
                self.notes.pop(one.id, None)
            self.notes[note.booked[0].id] = self.owner, note

    def settle(self, bills: Sequence[tuple[Sequence[Booked], int]]) -> None:
        back: Counter[int] = Counter()
        settled: list[bytes] = []
        for booked, gwei in bills:
            left = gwei if booked[0].id in self.notes else 0
            known = [one.id for one in booked if one.id in self.notes]
            for one in (one for id_ in known for one in self.notes[id_][1].booked):
                spent = min(left, one.gwei)
                left -= spent
                back[one.slice] += one.gwei - spent
            settled += known
        self._check(-back.total())
        self.slices.subtract(back)
        for id_ in settled:
            del self.notes[id_]

    def left(self) -> list[Note]:
        self._check(0)
        found = [note for owner, note in self.notes.values() if owner != self.owner]
        self.notes |= {note.booked[0].id: (self.owner, note) for note in found}
        return found

    def _check(self, gwei: int) -> None:
        if self.away is not None and self.away(gwei):
            raise StoreUnavailable("Away.")
