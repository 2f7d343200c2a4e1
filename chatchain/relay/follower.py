"""Follows the chain: every now and then, and at once when somebody has news of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from structlog.typing import FilteringBoundLogger

from chatchain.errors import ChainError, NetworkError, StoreUnavailable
from chatchain.relay.directory import Changes
from chatchain.relay.metrics import Metrics
from chatchain.relay.nodes import Fold
from chatchain.relay.tasks import Threads
from chatchain.relay.users import Users

POLL: Final = 0.5
"""Seconds between two looks at the chain."""

LOOK_GAP: Final = 0.25
"""Seconds between two looks at the chain when somebody has news of it."""

LONGEST_PAUSE: Final = 10.0
"""Seconds between two looks at a chain that does not answer."""

STALE: Final = 60.0
"""Seconds without a successful look at the chain after which /health says so."""


class Follower:
    """Looks at the chain in a thread of its own, keeps `users` level with it and tells who changed."""

    def __init__(
        self,
        keeper: Fold,
        users: Users,
        changed: Callable[[Changes], None],
        *,
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._keeper = keeper
        self._users = users
        self._changed = changed
        self._log = log
        self._metrics = metrics
        self._threads = Threads(1, "chain")
        self._look: asyncio.Task[None] | None = None
        self._next_look: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self._look_ended = float("-inf")

    @property
    def fresh(self) -> bool:
        """Whether the chain was seen of late."""
        return time.monotonic() - self._looked_at < STALE

    async def start(self) -> None:
        """Looks once; raises ChainError or StoreUnavailable."""
        await self._refresh()
        await self._users.load_membership()

    async def follow(self) -> None:
        """Looks for ever; when the chain does not answer, more and more patiently."""
        pause, complained = POLL, False
        while True:
            try:
                await self._refreshed()
                if complained:
                    self._log.info("chain back")
                pause, complained = POLL, False
            except (ChainError, NetworkError) as error:
                if not complained:
                    self._log.warning("chain not followed", code=error.code, reason=error.message)
                pause, complained = min(pause * 2, LONGEST_PAUSE), True
            await asyncio.sleep(pause)

    async def admits(self, *uids: int) -> bool:
        """Whether policy lets all of these message, after a look at the chain if the first answer is no."""
        if self._users.membership.admits(*uids):
            return True
        return await self.look_again() and self._users.membership.admits(*uids)

    async def look_again(self) -> bool:
        """Looks at the chain now; False when it does not answer."""
        try:
            await self._refreshed()
        except (ChainError, StoreUnavailable):
            return False
        return True

    def stop(self) -> None:
        """Takes up no more work."""
        self._threads.stop()

    async def _refreshed(self) -> None:
        """Waits for a look at the chain that begins after this call; those who ask meanwhile share it."""
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._after_this())
        await asyncio.shield(self._next_look)

    async def _after_this(self) -> None:
        # Nothing here keeps the look before: one that failed keeps its error, and that whoever asked.
        if self._look is not None:
            await asyncio.wait([self._look])
            await asyncio.sleep(max(0.0, self._look_ended + LOOK_GAP - time.monotonic()))
        self._look, self._next_look = self._next_look, None
        try:
            await self._refresh()
        finally:
            self._look_ended = time.monotonic()

    async def _refresh(self) -> None:
        changes = await self._threads.run(self._keeper.refresh)
        self._looked_at = time.monotonic()
        self._metrics.head.set(changes.head)
        self._users.changed(changes)
        self._changed(changes)
        if changes.users or changes.gone:
            self._log.info(
                "users changed", count=len(changes.users), gone=len(changes.gone), head=changes.head
            )
