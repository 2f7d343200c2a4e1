"""A process that dies at any statement of a transaction: what belongs together is there whole, or not at all.

Message keys are used once. So a session must not be behind the message that it carried, nor ahead of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatchain.model import (
    Arrival,
    Deed,
    DeedKind,
    KeptSession,
    MessageState,
    Outgoing,
    Progress,
    SessionChanges,
)
from chatchain.store.local import LocalStore
from tests.store.test_local import ADA, KEY, ME, incoming, own, waiting

RELAY = b"r" * 32
ID, OWN, OTHER, SECOND = (os.urandom(16) for _ in range(4))
CHANGES = SessionChanges(
    kept=(KeptSession(ADA, 1, b"s" * 32, 1, 1, 1, 0, 1, False, b"after"),), prekeys=b"after"
)


class Died(BaseException):
    """The process is gone."""


class Mortal:
    """A connection on which nothing is done any more from one statement on."""

    def __init__(self, real: Any, left: int) -> None:
        self._real, self._left = real, left

    def __getattr__(self, name: str) -> Any:
        what = getattr(self._real, name)
        if name not in ("execute", "executemany"):
            return what

        def done(*values: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise Died
            return what(*values)

        return done


def outcomes(
    path: Path, act: Callable[[LocalStore], object], look: Callable[[LocalStore], tuple[bool, ...]]
) -> list[tuple[bool, ...]]:
    """What is found afterwards, for a death at each statement in turn and for none."""
    found: list[tuple[bool, ...]] = []
    for number in range(1000):
        file = path / f"{number}.db"
        store = LocalStore(file, KEY)
        prepare(store)
        real = store._db
        store._db = Mortal(real, number)
        died = False
        try:
            act(store)
        except Died:
            died = True
        real.close()
        store = LocalStore(file, KEY)
        found.append(look(store))
        store.close()
        if not died:
            return found
    raise AssertionError("it never ends")


def prepare(store: LocalStore) -> None:
    """Two messages of one's own that wait, without an envelope."""
    message = own(id=OWN)
    store.queue([message], [waiting(message), Outgoing(OTHER, ADA, "receipt", b"content", 1)])


def sessions(store: LocalStore) -> bool:
    """Whether session and prekeys have moved; both or none."""
    moved = bool(store.sessions(ADA, 1))
    assert moved == (store.prekeys() is not None)
    return moved


def whole(found: list[tuple[bool, ...]]) -> None:
    """Everything or nothing each time, and everything in the end."""
    assert all(len(set(each)) == 1 for each in found), found
    assert set(found[0]) == {False}
    assert set(found[-1]) == {True}


def test_taking_in_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """Message, receipt, session, prekeys and how far the mailbox was read."""
    arrivals = [
        Arrival(ADA, ID, message=incoming(id=ID), receipt_due=True),
        Arrival(ADA, SECOND, states=((OWN, MessageState.READ),)),
    ]

    def look(store: LocalStore) -> tuple[bool, ...]:
        old = store.message(OWN)
        assert old is not None
        return (
            sessions(store),
            store.message(ID) is not None,
            store.has_seen(ADA, SECOND),
            old.state is MessageState.READ,
            bool(store.receipts_due()),
            store.progress(RELAY).after == 5,
        )

    whole(outcomes(tmp_path, lambda store: store.take_in(arrivals, CHANGES, Progress(RELAY, 7, 5)), look))


def test_queueing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """Message, what is to be sent for it, deed and session."""
    message = own(id=ID)
    deed = Deed(DeedKind.TIMER, ID, ME, ADA, 1, number=60)

    def look(store: LocalStore) -> tuple[bool, ...]:
        return (
            sessions(store),
            store.message(ID) is not None,
            any(one.id == ID for one in store.pending()),
            store.peer(ADA).timer_s == 60,
        )

    whole(
        outcomes(
            tmp_path, lambda store: store.queue([message], [waiting(message)], CHANGES, done=[deed]), look
        )
    )


def test_sealing_anew_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """Envelope and session."""
    sealed = Outgoing(OTHER, ADA, "text", b"content", 1, version=3, key=os.urandom(32))

    def look(store: LocalStore) -> tuple[bool, ...]:
        (waits,) = (one for one in store.pending() if one.id == OTHER)
        return sessions(store), waits.version == 3, waits.key == sealed.key

    whole(outcomes(tmp_path, lambda store: store.reseal([sealed], CHANGES), look))


@pytest.mark.parametrize("state", [MessageState.SENT, MessageState.DROPPED])
def test_settling_is_whole_or_not_at_all(tmp_path: Path, state: MessageState) -> None:
    """What leaves the outbox has its verdict, and the reason."""

    def look(store: LocalStore) -> tuple[bool, ...]:
        found = store.message(OWN)
        assert found is not None
        return found.state is state, len(store.pending()) == 1, found.code == "code"

    whole(outcomes(tmp_path, lambda store: store.settle([OWN], state, "code"), look))
