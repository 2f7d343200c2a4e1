"""Keeping the relay supplied with this device's prekeys: asked at each login, replaced weekly, refilled.

The secrets are stored before the relay hears of the keys. Keys that were made and never got there cost
nothing but their number: the next time the relay is asked it still has too few, and others are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chatchain.client.own import Own
from chatchain.client.ports import Store
from chatchain.client.session import Session
from chatchain.client.sessions import stock_changes
from chatchain.crypto import prekeys
from chatchain.crypto.prekeys import PrekeyStore
from chatchain.identity.record import lists
from chatchain.model import Suite

SUPPLIED: Final = "prekeys_version"
"""The setting that says for which key version of this device the prekeys in force were drawn."""


async def supply(own: Own, store: Store, session: Session, now_ms: Callable[[], int], *, again: bool) -> None:
    """Does what is due, and gives the relay what it lacks; with `again` also what it should have."""
    if not lists(own.identity.party.record, Suite.RATCHET):
        return
    left, kem_left = await session.prekeys_left(own.version)
    since, stock, changed = _stocked(own, store, now_ms() // 1000, left, kem_left)
    if not (changed or again):
        return
    made = prekeys.upload(
        stock,
        own.network,
        own.secrets,
        uid=own.uid,
        device=own.device,
        version=own.version,
        since=since,
    )
    await session.publish_prekeys(own.version, made)


def _stocked(own: Own, store: Store, now: int, left: int, kem_left: int) -> tuple[int, PrekeyStore, bool]:
    """Brings the stored prekeys up to date; gives the id from which on they are new, them, and whether they
    changed.
    """
    stored, version = store.prekeys(), str(own.version).encode()
    before = prekeys.decode_store(stored) if stored is not None else None
    if before is None:
        since, after = 0, prekeys.new_store(now)
    else:
        since, after = before.next_id, before
        if store.setting(SUPPLIED) != version:
            # Whoever made us replace our keys may have had these as well.
            after = prekeys.renew(after, now)
        after = prekeys.maintain(after, now, left, kem_left)
    if after is not before:
        store.change_sessions(stock_changes(after))
        store.set_setting(SUPPLIED, version)
    return since, after, after is not before
