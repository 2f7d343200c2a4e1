"""The users and members as the database has them, the users of late from memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from chatchain.model import Policy, User
from chatchain.relay.directory import Changes
from chatchain.relay.ports import Membership, Reader
from chatchain.relay.tasks import Threads

CACHED: Final = 20_000


class Users:
    """Who is who, and who may message."""

    def __init__(self, reader: Reader, threads: Threads) -> None:
        self._reader = reader
        self._threads = threads
        self._cached: OrderedDict[int, User] = OrderedDict()
        self.known = self._cached.get
        """A user, if in memory; the dictionary's own, for it is asked twice for every message."""
        self.membership = Membership(Policy.VOTE, frozenset())

    async def load_membership(self) -> None:
        """Takes policy and members from the database; raises StoreUnavailable."""
        found = await self._threads.run(self._reader.membership)
        if found is not None:
            self.membership = Membership(*found)

    async def user(self, uid: int) -> User | None:
        """A user from memory or the database; raises StoreUnavailable."""
        user = self._cached.get(uid)
        if user is not None:
            return user
        user = await self._threads.run(lambda: self._reader.user(uid))
        if user is not None:
            self._cached[uid] = user
            if len(self._cached) > CACHED:
                self._cached.popitem(last=False)
        return user

    def changed(self, changes: Changes) -> None:
        """Takes in what the chain has told."""
        for uid in changes.gone:
            self._cached.pop(uid, None)
        for user in changes.users:
            if user.uid in self._cached:
                self._cached[user.uid] = user
        if changes.membership is not None:
            self.membership = changes.membership
