"""What the sponsor may still spend: a sum for each hour and one for each day, kept in the relay's database.

The database and not this process remembers what was spent, so a restart forgets nothing and several processes
share one purse. Time is counted in slices: an hour is the slice at hand and the 239 before it. Amounts are
kept in gwei, rounded up when they are booked and down when they are given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

SLICE: Final = 15
"""Seconds whose spending is kept as one sum."""

HOUR: Final = 3600 // SLICE
DAY: Final = 24 * HOUR
GWEI: Final = 10**9


Judge = Callable[[int, int, int, int], int]
"""Is told the gwei spent within an hour and within a day, and the first slice of each that has a part in it;
gives what is to be added.
"""


class Journal(Protocol):
    """The book in the database. Blocks; raises StoreUnavailable."""

    def book(self, slice_: int, hour: int, day: int, judge: Judge) -> None:
        """Adds the gwei that `judge` gives to a slice, with nobody else booking meanwhile.

        `judge` is told what was spent in the slices above `slice_ - hour` and above `slice_ - day`; those
        before may be forgotten.
        """

    def give_back(self, slice_: int, gwei: int) -> None:
        """Takes so much off a slice, if it is still kept."""


class Booked(NamedTuple):
    """Where a sum was booked, to give a part of it back."""

    slice: int
    gwei: int

    @property
    def wei(self) -> int:
        """The same in wei."""
        return self.gwei * GWEI


class Spending:
    """The sponsor's limits. `clock` gives seconds since 1970: what is kept outlives the process."""

    def __init__(
        self, journal: Journal, clock: Callable[[], float], *, wei_per_hour: int, wei_per_day: int
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._hour = wei_per_hour // GWEI
        self._day = wei_per_day // GWEI

    def book(self, amounts: Sequence[int]) -> list[Booked | float]:
        """Books amounts in wei one after the other; where a limit keeps one out, the seconds until it may
        pass.
        """
        now = self._clock()
        slice_ = int(now // SLICE)
        told: list[Booked | float] = []

        def judge(hour: int, day: int, first_of_hour: int, first_of_day: int) -> int:
            total = 0
            for wei in amounts:
                gwei = -(-wei // GWEI)
                waits = []
                if hour + total + gwei > self._hour:
                    waits.append((first_of_hour + HOUR) * SLICE - now)
                if day + total + gwei > self._day:
                    waits.append((first_of_day + DAY) * SLICE - now)
                if waits:
                    told.append(max(*waits, float(SLICE)))
                    continue
                total += gwei
                told.append(Booked(slice_, gwei))
            return total

        self._journal.book(slice_, HOUR, DAY, judge)
        return told

    def give_back(self, booked: Booked, spent_wei: int) -> None:
        """Gives back what of a sum was not spent after all."""
        left = booked.gwei - -(-spent_wei // GWEI)
        if left > 0:
            self._journal.give_back(booked.slice, left)
