"""What is done every now and then as long as the relay runs: silent connections, old messages, old ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from typing import Final

from chatchain.errors import StoreUnavailable
from chatchain.relay.expiry import notices
from chatchain.relay.letters import Letters
from chatchain.relay.ports import Peer, Writer
from chatchain.wire import deadlines
from chatchain.wire.messages import Ping

SWEEP: Final = 1.0
PRUNE: Final = 20.0
"""Seconds between two looks for old messages, and for old message ids, of which each takes up a small part.
"""

DAY_MS: Final = 24 * 3600 * 1000


def chores(
    writer: Writer, peers: AbstractSet[Peer], letters: Letters, *, days: int
) -> list[Coroutine[None, None, None]]:
    """Everything that has to be done; `days` is how long a message may wait."""

    def expire() -> Future[bool]:
        now = _now_ms()
        return writer.expire(now - days * DAY_MS, now, notices)

    return [sweep(peers, letters), _thin_out(lambda: writer.prune(_now_ms())), _thin_out(expire)]


async def sweep(peers: AbstractSet[Peer], letters: Letters) -> None:
    """Looks after deadlines, heartbeats and reads that are due."""
    loop = asyncio.get_running_loop()
    nonce = 0
    while True:
        await asyncio.sleep(SWEEP)
        now = loop.time()
        nonce += 1
        for peer in list(peers):
            if peer.deadline and now > peer.deadline:
                peer.say_goodbye("login_deadline", "Nobody logged in on this connection.")
            elif now > peer.heard + deadlines.SILENCE and not peer.held:
                peer.abort()
            elif now > peer.heard + deadlines.HEARTBEAT and now > peer.asked + deadlines.HEARTBEAT:
                peer.asked = now
                peer.send(Ping(nonce))
        letters.poll()


async def _thin_out(batch: Callable[[], Future[bool]]) -> None:
    """Has the database forget what is old, a batch now and then, and the next soon if there may be more."""
    while True:
        try:
            more = await asyncio.wrap_future(batch())
        except StoreUnavailable:
            more = False
        await asyncio.sleep(SWEEP if more else PRUNE)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
