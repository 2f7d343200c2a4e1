"""How much waits for each device, and how much of it is from whom. Pure.

A mailbox has a limit so that nobody fills the relay's disk, and each sender a share of it so that nobody
fills another's mailbox. What is on its way into the store counts as if it were there.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

Key = tuple[int, int]
"""A device: its user's id and its number."""

Usage = Mapping[tuple[int, int, int], tuple[int, int]]
"""What the store holds: rows and bytes by recipient, recipient's device and sender."""


class Quota(msgspec.Struct, frozen=True):
    """How much may wait for one device, how much of that from one sender, and for how long."""

    rows: int = 100_000
    bytes: int = 256 * 1024 * 1024
    sender_rows: int = 25_000
    sender_bytes: int = 64 * 1024 * 1024
    days: int = 30


class _Count:
    """Rows and bytes: those stored, and those on their way besides."""

    __slots__ = ("bytes", "coming_bytes", "coming_rows", "rows")

    def __init__(self) -> None:
        self.rows = self.bytes = self.coming_rows = self.coming_bytes = 0

    def reserve(self, size: int, count: int, rows: int, bytes_: int) -> bool:
        """Counts more rows as on their way if that leaves no more than so many rows and bytes."""
        if self.rows + self.coming_rows + count > rows or self.bytes + self.coming_bytes + size > bytes_:
            return False
        self.coming_rows += count
        self.coming_bytes += size
        return True

    def release(self, rows: int, size: int) -> None:
        """These are not on their way any more."""
        self.coming_rows -= rows
        self.coming_bytes -= size

    @property
    def empty(self) -> bool:
        """Whether there is nothing to count."""
        return not self.rows and not self.coming_rows


class Quotas:
    """The counts of all mailboxes; those that are empty take no memory."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._devices: dict[Key, _Count] = {}
        self._shares: dict[Key, dict[int, _Count]] = {}

    def waiting(self, key: Key) -> int:
        """Rows stored for a device."""
        count = self._devices.get(key)
        return count.rows if count is not None else 0

    def reserve(self, key: Key, sender: int, size: int, count: int = 1) -> bool:
        """Counts more rows, so large together, as on their way, unless there is no room for all of them."""
        quota = self._quota
        device, share = self._both(key, sender)
        if device.reserve(size, count, quota.rows, quota.bytes):
            if share.reserve(size, count, quota.sender_rows, quota.sender_bytes):
                return True
            device.release(count, size)
        self._tidy(key, sender)
        return False

    def release(self, key: Key, sender: int, rows: int, size: int) -> None:
        """So many rows and bytes that were on their way have arrived, or will not."""
        for count in self._both(key, sender):
            count.release(rows, size)
        self._tidy(key, sender)

    def came(self, key: Key, sender: int, rows: int, size: int) -> None:
        """So many rows and bytes are stored."""
        for count in self._both(key, sender):
            count.rows += rows
            count.bytes += size

    def gone(self, key: Key, sender: int, rows: int, size: int) -> None:
        """So many rows and bytes were acknowledged."""
        for count in self._both(key, sender):
            count.rows = max(0, count.rows - rows)
            count.bytes = max(0, count.bytes - size)
        self._tidy(key, sender)

    def forget(self, key: Key) -> None:
        """Nothing is stored for this device any more."""
        for sender in list(self._shares.get(key, {})):
            for count in self._both(key, sender):
                count.rows = count.bytes = 0
            self._tidy(key, sender)

    def load(self, usage: Usage) -> None:
        """Takes the store's word for what is stored; what is on its way stays."""
        for key in list(self._devices):
            self.forget(key)
        for (uid, device, sender), (rows, size) in usage.items():
            for count in self._both((uid, device), sender):
                count.rows += rows
                count.bytes += size

    def _both(self, key: Key, sender: int) -> tuple[_Count, _Count]:
        device = self._devices.get(key)
        if device is None:
            device = self._devices[key] = _Count()
        shares = self._shares.get(key)
        if shares is None:
            shares = self._shares[key] = {}
        share = shares.get(sender)
        if share is None:
            share = shares[sender] = _Count()
        return device, share

    def _tidy(self, key: Key, sender: int) -> None:
        shares = self._shares.get(key)
        if shares is not None:
            if sender in shares and shares[sender].empty:
                del shares[sender]
            if not shares:
                del self._shares[key]
                self._devices.pop(key, None)
