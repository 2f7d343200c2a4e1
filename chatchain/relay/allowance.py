"""How much one user, one address, one device may have: every figure in one place, each configurable.

Beyond a limit the answer is a typed error that says when to try again; nobody is slowed down for another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from chatchain.relay.berths import MOVING_BYTES
from chatchain.relay.blobs import DAY_MS, BlobLimits
from chatchain.relay.limits import REMEMBERED, Bucket, Rate
from chatchain.relay.quota import Quota
from chatchain.wire.intake import READ_BYTES, UNFINISHED_BYTES

KNOWN_LOOKUPS: Final = 1_000
"""Users whom one account has looked up and may look up again for nothing."""

ACCOUNT_PAIRS: Final = 2_048
"""Pairs of a device of one account and somebody's device that count at a time."""

REMEMBERED_PAIRS: Final = 100_000
"""The same of all accounts; the one that was quiet longest is forgotten first."""

Device = tuple[int, int]
"""A user and the number of a device."""

SHUT_SECONDS: Final = 1.0
"""Once a message was refused for its sender's rate, those after it are too, for so long at least: what was
already on its way must not overtake what has to be sent again.
"""


class Allowance(msgspec.Struct, frozen=True):
    """What this relay allows."""

    messages: Rate = Rate(burst=2_000, per_second=500)
    """Of one account, on all its devices."""

    logins: Rate = Rate(burst=120, per_second=120 / 60)
    """Of one account."""

    address_logins: Rate = Rate(burst=1_200, per_second=1_200 / 60)
    """From one address, behind which there may be many accounts."""

    failed_logins: Rate = Rate(burst=5, per_second=5 / 60)
    """From one address as one user."""

    address_failed_logins: Rate = Rate(burst=1_000, per_second=2)
    """The same as whomever. Much larger, so that whoever fails on purpose keeps no neighbour out; logins that
    are being judged count until they succeed, so a crowd must have room as well.
    """

    lookups: Rate = Rate(burst=100, per_second=1 / (15 * 60))
    """Users whose keys one account asks for, each counted once, and none who shares a group with it."""

    key_requests: Rate = Rate(burst=200, per_second=20)
    """Publications and look-ups of key bundles and prekeys by one account; who asks for many devices' prekeys
    makes several at once.
    """

    prekeys: Rate = Rate(burst=6, per_second=1 / 600)
    """Fetches of one device's prekeys by one other device."""

    prekeys_kept: int = 500
    """One-time keys of each sort of one device; the oldest go first."""

    file_requests: Rate = Rate(burst=200, per_second=20)
    """Uploads, downloads and deletions that one account may begin."""

    signals: Rate = Rate(burst=10, per_second=30 / 60)
    """Of one device to one user; of one account to all together ten times as many."""

    files: BlobLimits = BlobLimits()
    """What is kept of one account's files."""

    quota: Quota = Quota()
    """What may wait for one device."""

    connections: int = 10_000

    read: int = READ_BYTES
    """Bytes of memory for what was read from all connections since the database committed something."""

    unfinished: int = UNFINISHED_BYTES
    """Bytes of all frames that have begun and are not finished."""

    moving: int = MOVING_BYTES
    """Bytes of memory for all connections that move files."""


def allowance_of(settings: Mapping[str, int]) -> Allowance:
    """What the setting RELAY_LIMITS says; what it does not name stays as it is."""
    plain, mib = Allowance(), 1024 * 1024
    quota, files = plain.quota, plain.files

    def rate(name: str, default: Rate, *, seconds: float, burst: str = "") -> Rate:
        count = settings.get(name)
        pace = default.per_second if count is None else count / seconds
        most = settings.get(burst) if burst else count
        return Rate(default.burst if most is None else most, pace)

    minutes, prekey_minutes = settings.get("lookup_minutes", 15), settings.get("prekey_minutes", 10)
    return Allowance(
        messages=rate("messages_per_second", plain.messages, seconds=1, burst="message_burst"),
        logins=rate("logins_per_minute", plain.logins, seconds=60),
        address_logins=rate("address_logins_per_minute", plain.address_logins, seconds=60),
        failed_logins=rate("failed_logins_per_minute", plain.failed_logins, seconds=60),
        address_failed_logins=rate(
            "address_failed_logins_per_minute", plain.address_failed_logins, seconds=60
        ),
        lookups=Rate(settings.get("lookups", plain.lookups.burst), 1 / (60 * minutes)),
        key_requests=rate(
            "key_requests_per_second", plain.key_requests, seconds=1, burst="key_request_burst"
        ),
        prekeys=Rate(settings.get("prekeys", plain.prekeys.burst), 1 / (60 * prekey_minutes)),
        prekeys_kept=settings.get("prekeys_kept", plain.prekeys_kept),
        file_requests=rate(
            "file_requests_per_second", plain.file_requests, seconds=1, burst="file_request_burst"
        ),
        signals=rate("signals_per_minute", plain.signals, seconds=60, burst="signal_burst"),
        files=BlobLimits(
            largest=settings.get("file_bytes", files.largest),
            count=settings.get("files", files.count),
            bytes=settings.get("files_mib", files.bytes // mib) * mib,
            per_day=settings.get("files_mib_per_day", files.per_day // mib) * mib,
            kept_ms=settings.get("files_days", files.kept_ms // DAY_MS) * DAY_MS,
            connections=settings.get("file_connections", files.connections),
        ),
        quota=Quota(
            rows=settings.get("mailbox_messages", quota.rows),
            bytes=settings.get("mailbox_mib", quota.bytes // mib) * mib,
            sender_rows=settings.get("sender_messages", quota.sender_rows),
            sender_bytes=settings.get("sender_mib", quota.sender_bytes // mib) * mib,
            days=settings.get("mailbox_days", quota.days),
        ),
        connections=settings.get("connections", plain.connections),
        read=settings.get("read_mib", plain.read // mib) * mib,
        unfinished=settings.get("unfinished_mib", plain.unfinished // mib) * mib,
        moving=settings.get("moving_mib", plain.moving // mib) * mib,
    )


class Pace:
    """What one account may still send. Shared by its devices' sessions."""

    __slots__ = ("_at", "_left", "_rate", "_shut_until")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left = rate.burst
        self._at = now
        self._shut_until = 0.0

    def take(self, now: float) -> float:
        """Takes room for one message, or gives the seconds until there is some again."""
        if self.take_all(now, 1):
            return 0.0
        if now >= self._shut_until:
            self._shut_until = now + max((1 - self._left) / self._rate.per_second, SHUT_SECONDS)
        return self._shut_until - now

    def take_all(self, now: float, count: int) -> bool:
        """Takes room for so many messages if there is some for all of them."""
        if now < self._shut_until:
            return False
        left = min(self._rate.burst, self._left + (now - self._at) * self._rate.per_second)
        self._at = now
        room = left >= count
        self._left = left - count if room else left
        return room

    def give_back(self, count: int) -> None:
        """So many were not sent after all."""
        self._left += count


class Paces:
    """The paces of all accounts that were seen of late."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._paces: OrderedDict[int, Pace] = OrderedDict()

    def of(self, uid: int, now: float) -> Pace:
        """An account's, the same for each of its sessions."""
        pace = self._paces.get(uid)
        if pace is None:
            pace = self._paces[uid] = Pace(self._rate, now)
            if len(self._paces) > REMEMBERED:
                self._paces.popitem(last=False)
        self._paces.move_to_end(uid)
        return pace


class _Looker:
    __slots__ = ("bucket", "known")

    def __init__(self, rate: Rate, now: float) -> None:
        self.bucket = Bucket(rate, now)
        self.known: OrderedDict[int, None] = OrderedDict()


class Lookups:
    """Who has asked for whose keys: as many strangers as the rate allows, those known again for nothing."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._lookers: OrderedDict[int, _Looker] = OrderedDict()

    def take(self, uid: int, wanted: Iterable[int], now: float) -> float:
        """Lets an account look these users up, or gives the seconds until it may."""
        looker = self._lookers.get(uid)
        if looker is None:
            looker = self._lookers[uid] = _Looker(self._rate, now)
            if len(self._lookers) > REMEMBERED:
                self._lookers.popitem(last=False)
        self._lookers.move_to_end(uid)
        new = {other for other in wanted if other != uid and other not in looker.known}
        wait = looker.bucket.take(now, len(new)) if new else 0.0
        if not wait:
            for other in new:
                looker.known[other] = None
                if len(looker.known) > KNOWN_LOOKUPS:
                    looker.known.popitem(last=False)
        return wait


class _Beginner:
    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: OrderedDict[tuple[int, int, int], Bucket] = OrderedDict()

    def tidy(self, rate: Rate, now: float) -> None:
        """Forgets pairs that may fetch as much as those that never did, the oldest first."""
        for pair, bucket in list(self.pairs.items()):
            if bucket.wait(now, rate.burst):
                break
            del self.pairs[pair]


class Pairs:
    """Which device has fetched whose prekeys.

    Nobody makes the relay forget what he has fetched by fetching of many: after so many he has to wait.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._beginners: OrderedDict[int, _Beginner] = OrderedDict()
        self._count = 0

    def take(self, asking: Device, wanted: Iterable[Device], now: float) -> dict[Device, float]:
        """Lets a device fetch the prekeys of other devices; gives those of them for which it has to wait,
        each with the seconds until it may, and counts nothing for these.
        """
        uid, device = asking
        beginner = self._beginners.setdefault(uid, _Beginner())
        self._beginners.move_to_end(uid)
        before, known = len(beginner.pairs), beginner.pairs
        beginner.tidy(self._rate, now)
        waits: dict[Device, float] = {}
        for other in wanted:
            pair = device, *other
            if pair in known:
                wait = known[pair].take(now)
                if not wait:
                    known.move_to_end(pair)
            elif len(known) < ACCOUNT_PAIRS:
                known[pair], wait = Bucket(self._rate, now), 0.0
                known[pair].take(now)
            else:
                wait = next(iter(known.values())).wait(now, self._rate.burst)
            if wait:
                waits[other] = wait
        self._count += len(known) - before
        while self._count > REMEMBERED_PAIRS:
            _, forgotten = self._beginners.popitem(last=False)
            self._count -= len(forgotten.pairs)
        return waits

    def give_back(self, asking: Device, wanted: Iterable[Device]) -> None:
        """Puts back what was taken for devices of which nothing was given."""
        uid, device = asking
        pairs = self._beginners[uid].pairs if uid in self._beginners else {}
        for other in wanted:
            pair = device, *other
            bucket = pairs.get(pair)
            if bucket is None:
                continue
            bucket.give_back()
            if bucket.full:
                del pairs[pair]
                self._count -= 1
