"""Users from the database and from memory: a crowd shares look-ups, and the chain's word is the last."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from chatchain.errors import StoreUnavailable
from chatchain.model import Address, Uid, User
from chatchain.relay.directory import Changes
from chatchain.relay.ports import Reader
from chatchain.relay.tasks import Threads
from chatchain.relay.users import Users

CROWD = [Uid(number) for number in range(1, 101)]


def user(uid: int, **changes: Any) -> User:
    plain = User(
        uid=Uid(uid),
        username=f"user-{uid}",
        account=Address(bytes(20)),
        recovery=Address(bytes(20)),
        epoch=0,
        verifier=bytes(32),
        kdf=b"",
        devices=(),
        device_list_version=1,
        block=1,
        time=1,
    )
    return replace(plain, **changes)


class Slow:
    """A database that answers when it may."""

    def __init__(self) -> None:
        self.rows = {uid: user(uid) for uid in CROWD}
        self.asked: list[list[int]] = []
        self.may = threading.Event()
        self.is_there = True

    def users(self, uids: Sequence[int]) -> list[User]:
        self.asked.append(list(uids))
        found = [self.rows[Uid(uid)] for uid in uids if uid in self.rows]
        assert self.may.wait(10)
        if not self.is_there:
            raise StoreUnavailable("It does not answer.")
        return found


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def known(slow: Slow) -> AsyncIterator[Users]:
    """Users on that database."""
    threads = Threads(2, "test")
    yield Users(cast(Reader, slow), threads)
    slow.may.set()
    threads.stop()


async def under_way(slow: Slow) -> None:
    async with asyncio.timeout(10):
        while not slow.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_crowd_is_looked_up_together(known: Users, slow: Slow) -> None:
    """Whoever is asked for while the database answers waits for the next look-up, with all others."""
    first = asyncio.create_task(known.user(CROWD[0]))
    await under_way(slow)
    others = [asyncio.create_task(known.user(uid)) for uid in (*CROWD[1:], 1_000, *CROWD[1:])]
    await asyncio.sleep(0)
    slow.may.set()
    assert await first == user(CROWD[0])
    everybody = [user(uid) for uid in CROWD[1:]]
    assert await asyncio.gather(*others) == [*everybody, None, *everybody]
    assert slow.asked == [[CROWD[0]], [*CROWD[1:], 1_000]]
    assert await known.user(CROWD[5]) == user(CROWD[5])
    assert len(slow.asked) == 2, "from memory"


async def test_what_the_chain_says_during_a_look_up_is_newer(known: Users, slow: Slow) -> None:
    """A user rewritten or gone meanwhile is not remembered as the database had them before."""
    asking = [asyncio.create_task(known.user(uid)) for uid in (1, 2, 3)]
    await under_way(slow)
    known.changed(Changes(users=(user(1, epoch=7),), gone=(Uid(2),), membership=None, head=2))
    slow.may.set()
    expected = [user(1, epoch=7), None, user(3)]
    assert await asyncio.gather(*asking) == expected
    del slow.rows[Uid(2)]
    assert [await known.user(uid) for uid in (1, 2, 3)] == expected
    assert slow.asked == [[1, 2, 3]]
    known.changed(Changes(users=(user(2),), gone=(), membership=None, head=3))
    assert await known.user(2) == user(2), "who was nobody is known once the chain says so"


async def test_a_database_that_is_away_is_told_to_all_who_asked(known: Users, slow: Slow) -> None:
    """And asked again for the next."""
    slow.is_there = False
    slow.may.set()
    asked = await asyncio.gather(*map(known.user, (1, 2, 3)), return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in asked)
    slow.is_there = True
    assert await known.user(1) == user(1)
