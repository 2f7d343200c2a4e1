"""Whoever asks for somebody learns nothing from the work that it makes: for nobody there is as much."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event

from chatchain.model import BlockRef, DeviceState, LogRow, Uid, User
from chatchain.relay import follower
from chatchain.relay.authentication import Authentication
from chatchain.relay.login import REFUSAL
from chatchain.transport import RelayLink, dial
from chatchain.wire.messages import FetchKeys, FetchPrekeys, Goodbye, Keys, Message, Prekeys
from tests.relay.here import Here, farewell
from tests.relay.test_mailbox import BOB, user

NOBODY = 123_456_789_012_345
PERSONAL = ("users", "devices", "key_bundles", "prekeys", "one_time_prekeys", "seats")


class Work:
    """What is asked of the database about people, and how often the chain is looked at."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.statements: list[str] = []
        self.looks = here.chain.looks
        event.listen(here.store._engine, "before_cursor_execute", self._noted)

    def _noted(self, _c: Any, _k: Any, statement: str, *_: Any) -> None:
        words = statement.split()
        if "FROM" in words and words[words.index("FROM") + 1] in PERSONAL:
            self.statements.append(re.sub(r"\d+", "0", statement))  # some hold their values

    def taken(self) -> tuple[list[str], int]:
        """What was done since the last time."""
        statements, looks = self.statements, self.here.chain.looks - self.looks
        self.statements, self.looks = [], self.here.chain.looks
        return statements, looks


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    """A relay that knows ada and bob, and looks at the chain only when it has to."""
    monkeypatch.setattr(follower, "POLL", 1_000.0)
    monkeypatch.setattr(follower, "LOOK_GAP", 0.0)
    made = Here(tmp_path)
    bob, ada = user(BOB, DeviceState.ACTIVE), made.chain.user
    known: Callable[[Uid], User | None] = lambda uid: bob if uid == BOB else ada(uid)  # noqa: E731
    monkeypatch.setattr(made.chain, "user", known)
    row = LogRow(2, b"c" * 32, 0, 1, 1, (b"t" * 32,), b"", subject=BOB)
    made.store.log.take([row], [BlockRef(2, b"c" * 32, b"b" * 32)])
    made.chain.head = 2
    await made.start()
    yield made
    await made.stop()


async def asked(link: RelayLink, message: Message) -> Message:
    await link.send(message)  # type: ignore[arg-type]
    return await link.receive()


async def test_keys_of_somebody_and_of_nobody_make_the_same_work(here: Here) -> None:
    """The first time and when the relay has them in memory; and the answers are alike."""
    link = await here.connect()
    work = Work(here)
    for turn in range(3):
        done = []
        for uid in (BOB, NOBODY):
            work.taken()
            assert await asked(link, FetchKeys(turn, (uid,))) == Keys(turn, ())
            done.append(work.taken())
        assert done[0] == done[1]
        assert done[0][0]
    await link.close()


async def test_prekeys_of_somebody_and_of_nobody_make_the_same_work(here: Here) -> None:
    """As long as there are none, which is what is asked."""
    link = await here.connect()
    work = Work(here)
    for turn in range(3):
        done = []
        for uid in (BOB, NOBODY):
            work.taken()
            assert await asked(link, FetchPrekeys(turn, ((uid, 1), (uid, 2)))) == Prekeys(turn, (), ())
            done.append(work.taken())
        assert done[0] == done[1]
        assert done[0][0]
    await link.close()


async def test_a_batch_makes_the_same_work_whoever_of_it_is_there(here: Here) -> None:
    """As many statements for many as for one, which hold as many names."""
    link = await here.connect()
    work = Work(here)
    for turn in range(2):
        done = []
        for uids in ((BOB, NOBODY), (NOBODY, NOBODY + 1), (NOBODY,)):
            work.taken()
            assert await asked(link, FetchPrekeys(turn, tuple((uid, 1) for uid in uids))) == Prekeys(
                turn, (), ()
            )
            done.append(work.taken())
        assert done[0] == done[1]
        assert len(done[0][0]) == len(done[2][0])
    await link.close()


async def test_a_login_as_somebody_and_as_nobody_makes_the_same_work(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is checked as often; both are told the same."""
    checks: list[int] = []
    check = Authentication._check

    async def counted(self: Authentication, guest: Any, proof: Any) -> User:
        checks.append(proof.uid)
        return await check(self, guest, proof)

    monkeypatch.setattr(Authentication, "_check", counted)
    work = Work(here)
    for _ in range(2):
        done = []
        for uid in (BOB, NOBODY):
            link = await dial(here.named)
            work.taken()
            checks.clear()
            await link.send(msgspec.structs.replace(here.login(link), uid=uid))
            assert await farewell(link) == Goodbye("login_refused", REFUSAL, 0)
            done.append((*work.taken(), len(checks)))
        assert done[0] == done[1]
        assert done[0][2] == 2


async def test_somebody_who_was_nobody_is_known_at_once(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """That there was nobody is remembered only until the chain says otherwise."""
    link = await here.connect()
    users = here.relay._follower._users
    assert await users.user(NOBODY) is None
    assert await asked(link, FetchKeys(1, (NOBODY,))) == Keys(1, ())
    new, before = user(NOBODY, DeviceState.ACTIVE), here.chain.user
    monkeypatch.setattr(here.chain, "user", lambda uid: new if uid == NOBODY else before(uid))
    row = LogRow(3, b"d" * 32, 0, 1, 1, (b"t" * 32,), b"", subject=NOBODY)
    here.store.log.take([row], [BlockRef(3, b"d" * 32, b"c" * 32)])
    here.chain.head = 3
    assert await here.relay._follower.look_again()
    found = await users.user(NOBODY)
    assert found is not None
    assert found.uid == NOBODY
    await link.close()
