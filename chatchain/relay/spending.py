"""What the sponsor may still spend: a sum for each hour and one for each day, kept in the relay's database.

The database and not this process remembers what was spent, so a restart forgets nothing and several processes
share one purse. It also knows what each sum was booked for until that is settled, so that a process that is
killed at any point leaves nothing booked for nothing, and nothing unseen: another takes it over. Time is
counted in slices: an hour is the slice at hand and the 239 before it. Amounts are kept in gwei, rounded up
when they are booked and down when they are given back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from chatchain.model import GWEI, Booked, Note

SLICE: Final = 15
"""Seconds whose spending is kept as one sum."""

HOUR: Final = 3600 // SLICE
DAY: Final = 24 * HOUR
ID_BYTES: Final = 16


Judge = Callable[[int, int, int, int], list[Booked]]
"""Is told the gwei spent within an hour and within a day, and the first slice of each that has a part in it;
gives what is to be booked.
"""


class Journal(Protocol):
    """The book in the database. Blocks; raises StoreUnavailable."""

    def book(self, slice_: int, hour: int, day: int, judge: Judge) -> None:
        """Books what `judge` gives, with nobody else booking meanwhile.

        `judge` is told what was spent in the slices above `slice_ - hour` and above `slice_ - day`; those
        before may be forgotten, with what was booked there.
        """

    def keep(self, notes: Sequence[Note]) -> None:
        """Writes down what is about to be sent: all of it, or nothing when another process has taken one of
        these over (StoreUnavailable).
        """

    def settle(self, bills: Sequence[tuple[Sequence[Booked], int]]) -> None:
        """Takes off what was booked for each transaction all but so many gwei; the second time nothing."""

    def left(self) -> list[Note]:
        """What processes that are gone had booked: it is this one's from now on."""


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

        def judge(hour: int, day: int, first_of_hour: int, first_of_day: int) -> list[Booked]:
            total = 0
            told.clear()
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
                told.append(Booked(slice_, gwei, secrets.token_bytes(ID_BYTES)))
            return [one for one in told if isinstance(one, Booked)]

        self._journal.book(slice_, HOUR, DAY, judge)
        return told

    @property
    def most(self) -> int:
        """Wei that can be booked at once at all."""
        return min(self._hour, self._day) * GWEI

    def keep(self, notes: Sequence[Note]) -> None:
        """Writes down what is about to be sent; raises StoreUnavailable if it must not be."""
        self._journal.keep(notes)

    def settle(self, bills: Sequence[tuple[Sequence[Booked], int]]) -> None:
        """Gives back what of the sums for each transaction was not spent after all, told in wei."""
        self._journal.settle([(booked, -(-spent_wei // GWEI)) for booked, spent_wei in bills])

    def left(self) -> list[Note]:
        """What processes that are gone have left to this one."""
        return self._journal.left()
