"""What is done every now and then as long as the relay runs: silent connections, old messages, old ids."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from typing import Final

from structlog.typing import FilteringBoundLogger

from chatchain.errors import StoreUnavailable
from chatchain.relay.clocks import Clocks, Verdict
from chatchain.relay.expiry import notices
from chatchain.relay.letters import Letters
from chatchain.relay.ports import Peer, Writer
from chatchain.wire import deadlines
from chatchain.wire.intake import Intake
from chatchain.wire.messages import Ping

SWEEP: Final = 1.0
PRUNE: Final = 20.0
"""Seconds between two looks for old messages, and for old message ids, of which each takes up a small part.
"""

REOPEN: Final = 0.2
"""Seconds between two looks whether the database answers, while that decides who is read from."""

TOO_SLOW_MS: Final = 1_000
DAY_MS: Final = 24 * 3600 * 1000


def chores(
    writer: Writer,
    peers: AbstractSet[Peer],
    letters: Letters,
    clocks: Clocks,
    intake: Intake,
    log: FilteringBoundLogger,
    *,
    days: int,
) -> list[Coroutine[None, None, None]]:
    """Everything that has to be done; `days` is how long a message may wait."""

    def expire() -> Future[bool]:
        return writer.expire(clocks.deleting_ms - days * DAY_MS, clocks.own_ms, notices)

    return [
        sweep(peers, letters),
        keep_time(writer, clocks, log),
        reopen(writer, clocks, intake),
        _thin_out(lambda: writer.prune(clocks.deleting_ms)),
        _thin_out(expire),
    ]


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
            elif peer.overdue(now):
                peer.say_goodbye("too_slow", "A message came too slowly.", TOO_SLOW_MS)
            elif now > peer.heard + deadlines.SILENCE and not peer.held:
                peer.abort()
            elif now > peer.heard + deadlines.HEARTBEAT and now > peer.asked + deadlines.HEARTBEAT:
                peer.asked = now
                peer.send(Ping(nonce))
        letters.poll()


async def keep_time(writer: Writer, clocks: Clocks, log: FilteringBoundLogger) -> None:
    """Has the database know the time, and says so when the clock becomes wrong or right."""
    said: Verdict = "right"
    while True:
        with contextlib.suppress(StoreUnavailable):
            clocks.kept(await asyncio.wrap_future(writer.keep_time(clocks.second_ms, clocks.own_ms)))
        if clocks.verdict != said:
            said = clocks.verdict
            tell = log.info if said == "right" else log.warning
            tell(f"clock {said}", seconds=clocks.ahead_ms // 1000)
        await asyncio.sleep(PRUNE)


async def reopen(writer: Writer, clocks: Clocks, intake: Intake) -> None:
    """Has everybody read from again once the database answers, also if nobody is left who could commit."""
    while True:
        await asyncio.sleep(REOPEN)
        if intake.shut:
            with contextlib.suppress(StoreUnavailable):
                clocks.kept(await asyncio.wrap_future(writer.keep_time(clocks.second_ms, clocks.own_ms)))
                intake.committed()


async def _thin_out(batch: Callable[[], Future[bool]]) -> None:
    """Has the database forget what is old, a batch now and then, and the next soon if there may be more."""
    while True:
        try:
            more = await asyncio.wrap_future(batch())
        except StoreUnavailable:
            more = False
        await asyncio.sleep(SWEEP if more else PRUNE)
