"""A sponsor's journal in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from chatchain.errors import StoreUnavailable
from chatchain.relay.spending import Judge


class MemoryJournal:
    """Satisfies `relay.spending.Journal`."""

    def __init__(self) -> None:
        self.slices: Counter[int] = Counter()
        self.away: Callable[[int], bool] | None = None
        """Which changes it does not take, as when the database is away."""

    @property
    def total(self) -> int:
        """Gwei in all slices."""
        return self.slices.total()

    def book(self, slice_: int, hour: int, day: int, judge: Judge) -> None:
        sums = []
        for window in (hour, day):
            within = {at: gwei for at, gwei in self.slices.items() if at > slice_ - window and gwei > 0}
            sums.append((sum(within.values()), min(within, default=slice_)))
        self._add(slice_, judge(sums[0][0], sums[1][0], sums[0][1], sums[1][1]))

    def give_back(self, slice_: int, gwei: int) -> None:
        self._add(slice_, -gwei)

    def _add(self, slice_: int, gwei: int) -> None:
        if self.away is not None and self.away(gwei):
            raise StoreUnavailable("Away.")
        self.slices[slice_] += gwei
