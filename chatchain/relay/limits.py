"""Rates and quotas. Pure: the clock is an argument, in seconds that never run backwards."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from chatchain.wire.bounds import MAX_RETRY_MS

REMEMBERED: Final = 10_000
"""Keys that a set of buckets remembers; the one that was quiet longest is forgotten first, and so full
again.
"""


class Rate(msgspec.Struct, frozen=True):
    """So many at once, and then so many a second."""

    burst: float
    per_second: float

    @staticmethod
    def hourly(count: int) -> Rate:
        """So many at once and within each hour."""
        return Rate(count, count / 3600)


class Bucket:
    """A token bucket: full at first, refilled at its rate."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left = rate.burst
        self._at = now

    def wait(self, now: float, amount: float = 1.0) -> float:
        """Seconds until so much may be taken; 0 when it may be taken now."""
        self._refill(now)
        missing = min(amount, self._rate.burst) - self._left
        return max(0.0, missing / self._rate.per_second)

    def take(self, now: float, amount: float = 1.0) -> float:
        """Takes so much, or gives the seconds until it may be taken and takes nothing."""
        self._refill(now)
        if self._left < amount:
            wait = self.wait(now, amount)
            if wait:
                return wait
        self._left -= amount
        return 0.0

    def give_back(self, amount: float = 1.0) -> bool:
        """Puts back what was taken for something that does not count after all; says whether it is full."""
        self._left = min(self._rate.burst, self._left + amount)
        return self._left == self._rate.burst

    @property
    def full(self) -> bool:
        """Whether nothing that was taken counts any more, as of the last time that it was asked."""
        return self._left >= self._rate.burst

    def _refill(self, now: float) -> None:
        left = self._left + (now - self._at) * self._rate.per_second
        self._left = left if left < self._rate.burst else self._rate.burst
        self._at = now


class Buckets:
    """One bucket for each key that was seen of late."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[object, Bucket] = OrderedDict()

    def wait(self, key: object, now: float, amount: float = 1.0) -> float:
        """Seconds until the key may take so much."""
        bucket = self._buckets.get(key)
        return bucket.wait(now, amount) if bucket is not None else 0.0

    def take(self, key: object, now: float, amount: float = 1.0) -> float:
        """Takes so much for the key, or gives the seconds until it may be taken."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._rate, now)
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket.take(now, amount)

    def give_back(self, key: object, amount: float = 1.0) -> None:
        """Puts back what the key took for something that does not count after all."""
        bucket = self._buckets.get(key)
        if bucket is not None and bucket.give_back(amount):
            del self._buckets[key]  # a new one is as full


def milliseconds(seconds: float) -> int:
    """A wait as it is told on the wire: never 0, which would mean not to try again, nor more than a day."""
    return min(int(seconds * 1000) + 1, MAX_RETRY_MS)
