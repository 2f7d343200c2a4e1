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
    """How much may wait for one device, and how much of that from one sender."""

    rows: int = 100_000
    bytes: int = 256 * 1024 * 1024
    sender_rows: int = 25_000
    sender_bytes: int = 64 * 1024 * 1024


class _Count:
    __slots__ = ("bytes", "coming_bytes", "coming_rows", "rows")

    def __init__(self) -> None:
        self.rows = self.bytes = self.coming_rows = self.coming_bytes = 0

    def has_room(self, size: int, rows: int, bytes_: int) -> bool:
        return self.rows + self.coming_rows < rows and self.bytes + self.coming_bytes + size <= bytes_

    @property
    def empty(self) -> bool:
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

    def has_room(self, key: Key, sender: int, size: int) -> bool:
        """Whether one more row of this size from this sender may come."""
        quota = self._quota
        device = self._devices.get(key)
        share = self._shares.get(key, {}).get(sender)
        return (device is None or device.has_room(size, quota.rows, quota.bytes)) and (
            share is None or share.has_room(size, quota.sender_rows, quota.sender_bytes)
        )

    def coming(self, key: Key, sender: int, size: int) -> None:
        """A row is on its way into the store."""
        for count in self._both(key, sender):
            count.coming_rows += 1
            count.coming_bytes += size

    def came(self, key: Key, sender: int, size: int, *, stored: bool) -> None:
        """It has arrived there, or will not."""
        for count in self._both(key, sender):
            count.coming_rows -= 1
            count.coming_bytes -= size
            if stored:
                count.rows += 1
                count.bytes += size
        self._tidy(key, sender)

    def gone(self, key: Key, sender: int, size: int) -> None:
        """A row was acknowledged."""
        for count in self._both(key, sender):
            count.rows = max(0, count.rows - 1)
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
