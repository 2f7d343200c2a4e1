"""Which connections move files at a time: so many of one process, and whoever comes beyond waits in turn.

They go on in the order of coming, but first those whose party has the fewest berths: who comes with many
connections keeps nobody out who comes with one.

A connection costs most from its first upload or download on: parts in memory, and what TLS has grown by,
which it keeps as long as the connection lasts. So a berth is a connection's until it ends. Who has none was
sent nothing of a file yet, and no more than one read was taken in of it, however long it waits.

While somebody waits, those give way who have nothing to do, and after them those who have had their berth for
longest: who is slow, or says nothing, keeps the others out no longer than for one turn. What was uploaded by
then is kept, and is gone on with at the next turn. The clock is an argument, in seconds.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

BERTH_BYTES: Final = 4 * 1024 * 1024
"""What one connection that moves files costs, as measured with many of them at once; the largest part are
four parts of an upload.
"""

MOVING_BYTES: Final = 32 * BERTH_BYTES
"""For all of them."""

TURN: Final = 60.0
"""Seconds after which a connection gives way to one that waits. At 18 KiB/s that is another part."""

IDLE: Final = 1.0
"""The same for one that has nothing to do."""

Who = TypeVar("Who")


class Berths(Generic[Who]):
    """The berths of one process."""

    def __init__(self, count: int, party: Callable[[Who], Hashable]) -> None:
        """`party` says to whom a connection belongs."""
        self._count = count
        self._party = party
        self._taken: dict[Who, float] = {}  # since when; those who have had one longest stand first
        self._leaving: set[Who] = set()
        self._queue: dict[Who, Future[bool]] = {}

    @property
    def taken(self) -> int:
        """Connections that have one."""
        return len(self._taken)

    @property
    def waiting(self) -> int:
        """Connections that wait for one."""
        return len(self._queue)

    def has(self, who: Who) -> bool:
        """Whether this one has a berth."""
        return who in self._taken

    def take(self, who: Who, now: float) -> Future[bool]:
        """Gives a berth as soon as there is one, and one only; False if it left before."""
        if (waits := self._queue.get(who)) is not None:
            return waits
        given: Future[bool] = get_running_loop().create_future()
        if who in self._taken or (len(self._taken) < self._count and not self._queue):
            self._taken.setdefault(who, now)
            given.set_result(True)
        else:
            self._queue[who] = given
        return given

    def leave(self, who: Who, now: float) -> None:
        """Has one of those who wait follow one that is done, or forgets one that waits no longer."""
        if (given := self._queue.pop(who, None)) is not None and not given.done():
            given.set_result(False)
        self._leaving.discard(who)
        self._taken.pop(who, None)
        while self._queue and len(self._taken) < self._count:
            following = self._next()
            given = self._queue.pop(following)
            if not given.done():
                self._taken[following] = now
                given.set_result(True)

    def _next(self) -> Who:
        """The first to have come of those whose party has the fewest berths."""
        has = Counter(map(self._party, self._taken))
        return min(self._queue, key=lambda who: has[self._party(who)])

    def give_way(self, now: float, idle: Callable[[Who], float]) -> list[Who]:
        """Who has to leave for those who wait, each named once; `idle` says for how long one has had nothing
        to do.
        """
        wanted = len(self._queue) - len(self._leaving)
        if wanted <= 0:
            return []
        staying = [who for who in self._taken if who not in self._leaving]
        spent = [who for who in staying if idle(who) >= IDLE]
        spent += [who for who in staying if who not in spent and now - self._taken[who] >= TURN]
        self._leaving.update(spent[:wanted])
        return spent[:wanted]
