"""Keeps the database's users level with the chain, and says who changed. Runs in the relay's chain thread."""

from __future__ import annotations

from typing import Final

import msgspec

from chatchain.model import Uid, User
from chatchain.relay.ports import Chain, Directory, Membership

BATCH: Final = 500
"""Users rewritten in one transaction."""


class Changes(msgspec.Struct, frozen=True):
    """What a look at the chain brought."""

    head: int
    users: tuple[User, ...] = ()
    gone: tuple[int, ...] = ()
    membership: Membership | None = None
    time_ms: int = 0
    """When that block was made; 0 if this process does not know."""


class Keeper:
    """Follows the chain into the database. `confirmations` is how deep a block must lie to be settled."""

    def __init__(self, chain: Chain, directory: Directory, *, confirmations: int) -> None:
        self._chain = chain
        self._directory = directory
        self._confirmations = confirmations
        self._seen: tuple[int, dict[int, int]] = (-1, {})
        self._seated = False

    def refresh(self) -> Changes:
        """Synchronises and rewrites those whom it concerns; raises ChainError or StoreUnavailable."""
        head = self._chain.sync()
        touched = self._directory.touched()
        # What is not settled is looked at again with each block, since confirmation changes the fold.
        if (head, touched) == self._seen:
            return Changes(head, time_ms=self._chain.head_time * 1000)
        changes = self._rewrite(head, touched)
        if not self._seated:
            # Whoever wrote last may have been a program that did not know of seats (before revision 0009).
            self._directory.rewrite_seats(self._seats())
            self._seated = True
        self._seen = (head, self._directory.touched())
        return changes

    def _rewrite(self, head: int, touched: dict[int, int]) -> Changes:
        settled = head - self._confirmations
        users: list[User] = []
        gone: list[int] = []
        uids = sorted(uid for uid in touched if uid)
        for start in range(0, len(uids), BATCH):
            found = {uid: self._chain.user(Uid(uid)) for uid in uids[start : start + BATCH]}
            present = [user for user in found.values() if user is not None]
            absent = [uid for uid, user in found.items() if user is None]
            self._directory.rewrite(present, absent, settled_to=settled)
            users += present
            gone += absent
        membership = None
        if 0 in touched:
            network = self._chain.groups()[0]
            sequences = {int(member.uid): member.sequence for member in network.members}
            self._directory.rewrite_membership(network.policy, sequences, self._seats(), settled_to=settled)
            membership = Membership(network.policy, frozenset(sequences))
        return Changes(head, tuple(users), tuple(gone), membership, self._chain.head_time * 1000)

    def _seats(self) -> list[tuple[int, int]]:
        others = self._chain.groups()[1:]
        return [(group.group, int(member.uid)) for group in others for member in group.members]
