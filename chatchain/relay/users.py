"""The users and members as the database has them, the users of late from memory.

While the database looks some up, those who are asked for meanwhile are gathered and looked up together: a
crowd that logs in costs a few questions and not one each.
"""

from __future__ import annotations

import asyncio
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
        self._cached: OrderedDict[int, User | None] = OrderedDict()
        self.known = self._cached.get
        """A user, if in memory; the dictionary's own, for it is asked twice for every message."""
        self._asked: set[int] = set()
        self._current: asyncio.Task[dict[int, User]] | None = None
        self._next: asyncio.Task[dict[int, User]] | None = None
        self._meanwhile: dict[int, User | None] | None = None
        """Who has changed since the look-up that is under way began (None: is gone)."""
        self.membership = Membership(Policy.VOTE, frozenset())

    async def load_membership(self) -> None:
        """Takes policy and members from the database; raises StoreUnavailable."""
        found = await self._threads.run(self._reader.membership)
        if found is not None:
            self.membership = Membership(*found)

    async def user(self, uid: int) -> User | None:
        """A user from memory or the database; raises StoreUnavailable.

        That there is nobody is remembered as well: nobody learns it from how long it takes.
        """
        if uid in self._cached:
            return self._cached[uid]
        self._asked.add(uid)
        if self._next is None:
            self._next = asyncio.create_task(self._look_up())
            self._next.add_done_callback(lambda done: done.cancelled() or done.exception())
        return (await asyncio.shield(self._next)).get(uid)

    async def _look_up(self) -> dict[int, User]:
        """Waits for the look-up that is under way, and then asks for all who have gathered.

        It keeps none before it: one that failed keeps its error, and that whoever asked.
        """
        if self._current is not None:
            await asyncio.wait([self._current])
        uids, self._asked = sorted(self._asked), set()
        self._current, self._next = self._next, None
        meanwhile: dict[int, User | None] = {}
        self._meanwhile = meanwhile
        try:
            read = await self._threads.run(lambda: self._reader.users(uids))
        finally:
            self._meanwhile = None
        now: dict[int, User | None] = {**{user.uid: user for user in read}, **meanwhile}
        found = {uid: user for uid, user in now.items() if user is not None}
        for uid in uids:
            self._cached[uid] = found.get(uid)
        while len(self._cached) > CACHED:
            self._cached.popitem(last=False)
        return found

    def changed(self, changes: Changes) -> None:
        """Takes in what the chain has told."""
        if self._meanwhile is not None:
            self._meanwhile |= dict.fromkeys(changes.gone) | {user.uid: user for user in changes.users}
        for uid in changes.gone:
            self._cached.pop(uid, None)
        for user in changes.users:
            if user.uid in self._cached:
                self._cached[user.uid] = user
        if changes.membership is not None:
            self.membership = changes.membership
