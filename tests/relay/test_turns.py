"""Turns: nobody waits alone, a turn's failure is everybody's own, and two are under way at most."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatchain.errors import ChainUnreachable, ChatchainError, NameUnavailable
from chatchain.relay.sponsor import Order, Paid
from chatchain.relay.turns import AT_ONCE, TURN, PayAll, Turns
from tests.relay.test_sponsor import newcomers, vote

PAID = Paid(bytes(32), 1)


class Sponsor:
    """Pays when the test lets it, and remembers its turns."""

    def __init__(self) -> None:
        self.turns: list[list[Order]] = []
        self.open = threading.Event()
        self.at_once = self.most_at_once = 0
        self.refused: set[Order] = set()
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def pay_all(self, orders: Sequence[Order]) -> list[Paid | ChatchainError]:
        with self._lock:
            self.turns.append(list(orders))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.open.wait(20)
        with self._lock:
            self.at_once -= 1
        if self.failure is not None:
            raise self.failure
        return [NameUnavailable("Taken.") if order in self.refused else PAID for order in orders]


@pytest.fixture
async def turns_of() -> AsyncIterator[Callable[[PayAll, float], Turns]]:
    """Makes turns over threads that end with the test."""
    with ThreadPoolExecutor(4) as threads:
        yield lambda pay_all, gather: Turns(pay_all, threads, gather=gather)


async def begun(sponsor: Sponsor, turns: int) -> None:
    async with asyncio.timeout(60):
        while len(sponsor.turns) < turns:  # noqa: ASYNC110  # another thread counts
            await asyncio.sleep(0.001)


async def test_who_comes_while_others_are_paid_for_goes_with_the_next_turn(
    turns_of: Callable[[PayAll, float], Turns],
) -> None:
    """The first is served at once, the others together; each has its own answer."""
    sponsor, orders = Sponsor(), [Order(call) for call in newcomers(40)]
    turns = turns_of(sponsor.pay_all, 0.0)
    sponsor.refused = {orders[7]}
    waiting = []
    for count in (1, 1, 38):
        some, orders = orders[:count], orders[count:]
        waiting += [asyncio.create_task(turns.pay(order)) for order in some]
        await begun(sponsor, min(len(sponsor.turns) + 1, AT_ONCE))
    sponsor.open.set()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [len(turn) for turn in sponsor.turns] == [1, 1, 38]
    assert sponsor.most_at_once <= AT_ONCE
    assert [isinstance(one, NameUnavailable) for one in told] == [place == 7 for place in range(40)]


async def test_a_turn_has_a_size(turns_of: Callable[[PayAll, float], Turns]) -> None:
    """However many wait."""
    sponsor = Sponsor()
    sponsor.open.set()
    turns = turns_of(sponsor.pay_all, 0.0)
    orders = [Order(vote(number)) for number in range(TURN + 3)]
    assert await asyncio.gather(*(turns.pay(order) for order in orders)) == [PAID] * (TURN + 3)
    assert max(len(turn) for turn in sponsor.turns) <= TURN
    assert sum(len(turn) for turn in sponsor.turns) == TURN + 3


@pytest.mark.parametrize("failure", [ChainUnreachable("Gone."), ValueError("a bug")], ids=["chain", "bug"])
async def test_when_a_turn_fails_each_of_it_is_told_and_the_next_is_not_harmed(
    failure: Exception, turns_of: Callable[[PayAll, float], Turns]
) -> None:
    """Nobody waits for ever."""
    sponsor = Sponsor()
    sponsor.open.set()
    sponsor.failure = failure
    turns = turns_of(sponsor.pay_all, 0.0)
    orders = [Order(vote(number)) for number in range(3)]
    told = await asyncio.gather(*(turns.pay(order) for order in orders), return_exceptions=True)
    assert [type(one) for one in told] == [type(failure)] * 3
    sponsor.failure = None
    assert await turns.pay(orders[0]) == PAID


async def test_votes_wait_for_each_other_and_newcomers_for_nobody(
    turns_of: Callable[[PayAll, float], Turns],
) -> None:
    """Where that is wanted, votes that come within a moment are one turn."""
    sponsor = Sponsor()
    sponsor.open.set()
    turns = turns_of(sponsor.pay_all, 0.2)
    both = [asyncio.create_task(turns.pay(Order(vote(number)))) for number in (1, 2)]
    assert await asyncio.gather(*both) == [PAID, PAID]
    assert [len(turn) for turn in sponsor.turns] == [2]
    turns = turns_of(sponsor.pay_all, 60.0)
    waiting = [asyncio.create_task(turns.pay(Order(vote(number)))) for number in range(3)]
    await asyncio.sleep(0.02)
    assert len(sponsor.turns) == 1
    assert await turns.pay(Order(newcomers(1)[0])) == PAID  # and the votes go along
    assert await asyncio.gather(*waiting) == [PAID] * 3
    turns.stop()
