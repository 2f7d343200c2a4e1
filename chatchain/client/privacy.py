"""What this device tells of its person without being asked: that somebody types, that something was read.

Each can be switched off, here and for this device alone.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chatchain.client.ports import Store
from chatchain.model import Uid

KEPT: Final = "privacy"
"""Under which setting of the home it is kept."""

TYPING_EVERY_S: Final = 4.0
"""Seconds between two signs of typing in one conversation: whoever shows one shows it for longer."""


class Privacy(msgspec.Struct, frozen=True):
    """What is told."""

    typing: bool = True
    read_receipts: bool = True


def privacy(store: Store) -> Privacy:
    """What this home has chosen."""
    kept = store.setting(KEPT)
    return msgspec.msgpack.decode(kept, type=Privacy) if kept is not None else Privacy()


def choose(store: Store, typing: bool | None, read_receipts: bool | None) -> Privacy:
    """Changes what is given, and gives what is chosen now."""
    before = privacy(store)
    after = Privacy(
        before.typing if typing is None else typing,
        before.read_receipts if read_receipts is None else read_receipts,
    )
    if after != before:
        store.set_setting(KEPT, msgspec.msgpack.encode(after))
    return after


class Pace:
    """How often it is told that somebody is typing."""

    def __init__(self) -> None:
        self._told: dict[Uid, float] = {}

    def due(self, uid: Uid, *, started: bool, now: float) -> bool:
        """Whether it is time to tell this; that typing ended only to whom it was told that it began."""
        told = self._told.get(uid)
        if not started:
            return self._told.pop(uid, None) is not None
        if told is not None and now - told < TYPING_EVERY_S:
            return False
        self._told[uid] = now
        return True
