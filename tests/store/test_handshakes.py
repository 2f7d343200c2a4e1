"""The memory of handshakes without one-time keys: nothing comes again, it ends, and no newcomer pays."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chatchain.model import Arrival, SessionChanges, Uid
from chatchain.store.bounds import DEFAULT, Bounds
from chatchain.store.local import LocalStore

ME = Uid(100_000_000_000_001)
NOW = 1_800_000_000_000
ADA, MALLORY = 7, 8
MOST = 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    """A home that remembers few handshakes."""
    made = LocalStore(tmp_path / "messages.db", bytes(32), Bounds(every=1, handshakes=MOST))
    yield made
    made.close()


def mark(number: int) -> bytes:
    """As random as a hash: with zeros and with bytes that are no text."""
    return (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big")


def remember(store: LocalStore, *begun: tuple[int, int, bytes], oldest: int = 0) -> None:
    store.change_sessions(SessionChanges(prekeys=b"prekeys", begun=begun, oldest_prekey=oldest))


_numbers = itertools.count(1)


def trim(store: LocalStore) -> None:
    """As after a batch of arrivals."""
    store.take_in([Arrival(Uid(9), next(_numbers).to_bytes(16, "big"), at_ms=NOW)])
    store.trim(ME, NOW)


def size(store: LocalStore) -> int:
    rows = store._db.execute("SELECT length(marks) / 8 FROM handshakes").fetchall()
    return sum(1 if marks is None else marks for (marks,) in rows)


def test_what_is_remembered_is_there_after_a_restart(tmp_path: Path) -> None:
    """Of each user and signed prekey apart; with the prekey it goes."""
    store = LocalStore(tmp_path / "messages.db", bytes(32))
    marks = [bytes(8), b"\xff" * 8, b"\x00\xff\x80a\xc3(\x00\x00"]
    remember(store, (1, ADA, marks[0]), (1, ADA, marks[1]), (3, ADA, marks[2]))
    remember(store, (1, ADA, marks[2]), (1, MALLORY, marks[0]))
    store.close()
    store = LocalStore(tmp_path / "messages.db", bytes(32))
    assert store.handshakes(1, ADA) == (frozenset(marks), False)
    assert store.handshakes(3, ADA) == (frozenset(marks[2:]), False)
    assert store.handshakes(1, MALLORY) == (frozenset(marks[:1]), False)
    assert store.handshakes(1, 9) == (frozenset(), False)
    remember(store, oldest=3)
    assert store.handshakes(1, ADA) == (frozenset(), False)
    assert store.handshakes(3, ADA) == (frozenset(marks[2:]), False)
    store.close()


def test_a_flood_of_names_delays_no_newcomer(store: LocalStore) -> None:
    """Who has most of the memory loses it and is answered no more; who has one handshake keeps it."""
    remember(store, (1, ADA, mark(1)))
    for first in range(1_000, 1_050, 10):
        names = range(first, first + 10)
        remember(store, *((1, name, mark(10 * name + n)) for name in names for n in range(3)))
        trim(store)
        assert size(store) <= MOST
        assert store.handshakes(1, ADA) == (frozenset({mark(1)}), False)
        assert store.handshakes(1, 100_000 + first) == (frozenset(), False)
    for name in range(1_000, 1_050):
        marks, closed = store.handshakes(1, name)
        assert closed or marks == {mark(10 * name + n) for n in range(3)}


def test_a_flood_of_as_many_names_as_can_be_remembered_opens_no_door_to_a_replay(store: LocalStore) -> None:
    """One handshake each: then that signed prekey answers nobody who uses up no key; another one does."""
    remember(store, (2, ADA, mark(1)))
    remember(store, *((1, name, mark(name)) for name in range(100, 100 + MOST)))
    trim(store)
    assert all(store.handshakes(1, user)[1] for user in (ADA, 100, 999))
    assert store.handshakes(2, ADA) == (frozenset({mark(1)}), False)
    assert store.handshakes(2, 999) == (frozenset(), False)
    assert size(store) == 2
    remember(store, (1, ADA, mark(2)), (1, ADA, b""))
    assert store.handshakes(1, ADA)[1]
    remember(store, oldest=2)
    assert store.handshakes(1, 999) == (frozenset(), False)


def test_memory_that_was_given_up_stays_so(store: LocalStore) -> None:
    """Whatever is added to it: what it has lost could come again."""
    remember(store, (1, ADA, mark(1)), (1, ADA, b""))
    remember(store, (1, ADA, mark(2)))
    assert store.handshakes(1, ADA) == (frozenset(), True)


def test_nothing_goes_while_there_is_room(store: LocalStore) -> None:
    """And no more than a sixteenth beside what is too much."""
    users = range(1, MOST // 4 + 1)
    remember(store, *((1, user, mark(4 * user + n)) for user in users for n in range(4)))
    trim(store)
    assert not any(store.handshakes(1, user)[1] for user in users)
    remember(store, (1, 999, mark(0)))
    trim(store)
    assert [store.handshakes(1, user)[1] for user in users].count(True) == 2
    assert not store.handshakes(1, 999)[1]


def test_a_million_can_be_remembered() -> None:
    """Four thousand names had once filled it; now as many have two hundred and fifty each."""
    assert DEFAULT.handshakes >= 4_000 * 250


class Device(RuleBasedStateMachine):
    """A device that answers what it may, and everybody else, who try everything again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "messages.db"
        self.store = LocalStore(path, bytes(32), Bounds(every=1, handshakes=20))
        self.answered: set[tuple[int, int, bytes]] = set()
        self.signed = range(1, 3)

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(user=st.integers(1, 30), which=st.integers(0, 1), often=st.integers(1, 6))
    def begins(self, user: int, which: int, often: int) -> None:
        signed_id = self.signed[which]
        for _ in range(often):
            if not self.store.handshakes(signed_id, user)[1]:
                made = (signed_id, user, mark(next(_numbers)))
                remember(self.store, made, oldest=self.signed[0])
                self.answered.add(made)
        trim(self.store)

    @rule()
    def rotates(self) -> None:
        self.signed = range(self.signed[0] + 1, self.signed[-1] + 2)
        remember(self.store, oldest=self.signed[0])
        self.answered = {made for made in self.answered if made[0] in self.signed}

    @invariant()
    def nothing_comes_again(self) -> None:
        for signed_id, user, made in self.answered:
            marks, closed = self.store.handshakes(signed_id, user)
            assert closed or made in marks

    @invariant()
    def memory_has_an_end(self) -> None:
        assert size(self.store) <= 20


Device.TestCase.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
TestDevice = Device.TestCase
