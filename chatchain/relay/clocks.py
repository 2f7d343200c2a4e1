"""What time it is for deleting: what is given up for its age must not go because one clock is wrong. Pure.

A clock that jumps ahead would make everything old at once, and nothing brings it back. So the time for
deleting goes no further than a second opinion: the chain's newest block, or the last time kept in the
database and what has passed since by a watch that nobody sets. The kept time itself only ever follows both.

Whoever was off for days with a chain that was as quiet deletes that much later, until the next block says
that the days are over. A clock that is behind deletes later, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

OFF_MS: Final = 3600 * 1000
"""By how much a clock may differ from the second opinion before it is called wrong."""

Verdict = Literal["right", "ahead", "behind"]


class Clocks:
    """This process's clock, and what is held against it."""

    def __init__(
        self,
        own_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        watch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own_ms = own_ms
        self._watch = watch
        self._chain_ms = 0
        self._kept_ms = 0
        self._kept_at = 0.0

    def heard(self, chain_ms: int) -> None:
        """The chain's newest block is of this time."""
        self._chain_ms = chain_ms

    def kept(self, kept_ms: int) -> None:
        """The database has this time now; 0 if it never had one."""
        self._kept_ms, self._kept_at = kept_ms, self._watch()

    @property
    def own_ms(self) -> int:
        """What this process's clock says."""
        return self._own_ms()

    @property
    def second_ms(self) -> int:
        """What the others say, as far as it has come at least; 0 while nobody says anything."""
        passed_ms = int((self._watch() - self._kept_at) * 1000)
        return max(self._chain_ms, self._kept_ms + passed_ms if self._kept_ms else 0)

    @property
    def deleting_ms(self) -> int:
        """The time by which something is old enough to be deleted."""
        return min(self.own_ms, self.second_ms)

    @property
    def ahead_ms(self) -> int:
        """By how much the clock is ahead of the second opinion; less than 0 when it is behind the chain."""
        own = self.own_ms
        return own - self._chain_ms if own < self._chain_ms else max(0, own - self.second_ms)

    @property
    def verdict(self) -> Verdict:
        """What to think of this process's clock."""
        ahead = self.ahead_ms
        if ahead > OFF_MS:
            return "ahead"
        return "behind" if ahead < -OFF_MS else "right"
