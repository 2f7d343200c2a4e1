"""What runs beside the loop's callbacks, for ever or for one connection, and threads that may block.

While a connection waits for an answer its further messages wait too, so each client is served in the order
in which it spoke.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from structlog.typing import FilteringBoundLogger

from chatchain.errors import ChatchainError, NetworkError, StoreUnavailable
from chatchain.relay.ports import Peer
from chatchain.wire.messages import Failed, Message

T = TypeVar("T")


BUSY_MS: Final = 2_000
"""When to ask again after something outside has failed."""


def failed(ref: int, error: ChatchainError, busy_ms: int = BUSY_MS) -> Failed:
    """What a client is told of an error; not what to do about a store, which is its operator's business."""
    sentence = error.message if isinstance(error, StoreUnavailable) else f"{error.message} {error.hint}"
    retry = getattr(error, "retry_after_ms", busy_ms if isinstance(error, NetworkError) else 0)
    return Failed(ref, error.code, sentence.strip()[:1000], retry)


class Threads:
    """A few threads in which something outside is asked."""

    def __init__(self, count: int, name: str) -> None:
        self.executor = ThreadPoolExecutor(count, name)

    async def run(self, work: Callable[[], T]) -> T:
        """Does it in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    def stop(self) -> None:
        """Takes up no more work."""
        self.executor.shutdown(wait=False, cancel_futures=True)


class Tasks:
    """Everything of one relay that is under way."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Does the work beside everything else; what it raises is a bug, and logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def hold(self, peer: Peer, work: Coroutine[None, None, None]) -> None:
        """Does the work before anything else that this peer has said."""
        peer.hold()
        self.spawn(self._held(peer, work))

    def answer(self, peer: Peer, ref: int, work: Coroutine[None, None, Message]) -> None:
        """The same for work that gives the answer to a request; an error is told as Failed."""
        self.hold(peer, self._answered(peer, ref, work))

    def stop(self) -> None:
        """Gives everything up."""
        for task in list(self._tasks):
            task.cancel()

    @staticmethod
    async def _answered(peer: Peer, ref: int, work: Coroutine[None, None, Message]) -> None:
        try:
            answer = await work
        except ChatchainError as error:
            answer = failed(ref, error)
        peer.send(answer)

    async def _held(self, peer: Peer, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:
            peer.say_goodbye("relay_failure", "The relay failed at this; it is a bug.", 5_000)
            raise
        finally:
            peer.release()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("bug", exc_info=task.exception())
