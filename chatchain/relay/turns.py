"""Gathers calls while one turn of the sponsor is under way, and gives them to the next together.

Whoever comes while nobody is being paid for is served at once; the busier the sponsor, the larger its turns.
Two turns are under way at most: one is tried out while the other is sent.
Votes may be let wait a moment for more of them: together they cost each less.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple

from chatchain.errors import ChatchainError
from chatchain.relay.sponsor import Order, Paid

TURN: Final = 256
"""Calls that are tried out and sent together."""

AT_ONCE: Final = 2
"""Turns under way."""

PayAll = Callable[[Sequence[Order]], list[Paid | ChatchainError]]


class _Due(NamedTuple):
    order: Order
    outcome: asyncio.Future[Paid]


class Turns:
    """Takes turns with `pay_all`, in an executor's threads."""

    def __init__(self, pay_all: PayAll, executor: Executor, *, gather: float = 0.0) -> None:
        """`gather` is how many seconds votes wait for others when nothing else is due."""
        self._pay_all = pay_all
        self._executor = executor
        self._gather = gather
        self._due: list[_Due] = []
        self._taking: set[asyncio.Task[None]] = set()
        self._gathering = False

    async def pay(self, order: Order) -> Paid:
        """Has a call paid for in the next turn; raises why it is not."""
        outcome: asyncio.Future[Paid] = asyncio.get_running_loop().create_future()
        self._due.append(_Due(order, outcome))
        joins = self._gathering and order.patient
        if len(self._taking) < AT_ONCE and not joins:
            self._gathering = self._gather > 0 and all(due.order.patient for due in self._due)
            self._taking.add(asyncio.create_task(self._take(self._gather if self._gathering else 0.0)))
        return await outcome

    def stop(self) -> None:
        """Gives up what is due."""
        for task in self._taking:
            task.cancel()

    async def _take(self, gather: float) -> None:
        turn: list[_Due] = []
        try:
            if gather:
                await asyncio.sleep(gather)
                self._gathering = False
            while self._due:
                turn, self._due = self._due[:TURN], self._due[TURN:]
                await self._take_one(turn)
        finally:
            # In the same breath as finding nothing due: whoever comes next must start another.
            task = asyncio.current_task()
            assert task is not None
            self._taking.discard(task)
            for due in turn:
                due.outcome.cancel()

    async def _take_one(self, turn: Sequence[_Due]) -> None:
        orders = [due.order for due in turn]
        told: Sequence[Paid | ChatchainError]
        try:
            told = await asyncio.get_running_loop().run_in_executor(self._executor, self._pay_all, orders)
        except ChatchainError as error:
            told = [error] * len(turn)
        except Exception as bug:
            for due in turn:
                if not due.outcome.done():
                    due.outcome.set_exception(bug)
            return
        for due, paid in zip(turn, told, strict=True):
            if due.outcome.done():
                continue
            if isinstance(paid, ChatchainError):
                due.outcome.set_exception(paid)
            else:
                due.outcome.set_result(paid)
