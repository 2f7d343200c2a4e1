"""What others can make grow in a home's database has an end, and never at the cost of who was met."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chatchain.model import (
    Arrival,
    Contact,
    Deed,
    DeedKind,
    Direction,
    KeptSession,
    MessageState,
    Outgoing,
    Pin,
    SessionChanges,
    StoredMessage,
    Uid,
)
from chatchain.store import local
from chatchain.store.bounds import DAY_MS, LOST_MS, SEEN_MS, Bounds
from chatchain.store.bounds import SCHEMA as BOUNDS_SCHEMA
from chatchain.store.local import LocalStore

KEY = bytes(range(32))
ME = Uid(100000000000001)
NOW = 1_800_000_000_000
SMALL = Bounds(
    every=4,
    seen_of_one=12,
    seen=30,
    notices_of_one=3,
    notices=7,
    strangers=2,
    of_stranger=3,
    stranger_bytes=60,
    early_bytes=600,
    receipts=2,
)
PEOPLE = st.sampled_from([Uid(200 + number) for number in range(6)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


@pytest.fixture
def store(path: Path) -> LocalStore:
    return LocalStore(path, KEY, SMALL)


def message(peer: Uid, number: int, now_ms: int, *, kind: str = "text", text: str = "hello") -> Arrival:
    place = number.to_bytes(16, "big")
    found = StoredMessage(place, peer, 1, peer, Direction.IN, kind, text, now_ms, arrived_ms=now_ms)
    return Arrival(peer, place, message=found, at_ms=now_ms)


def count(store: LocalStore, what: str, *values: object) -> int:
    return int(store._db.execute(f"SELECT count(*) FROM {what}", values).fetchone()[0])


class Home(RuleBasedStateMachine):
    """A home to which anything may come in any order; the model says only what must never go."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = LocalStore(Path(self.folder.name) / "messages.db", KEY, SMALL)
        self.now = NOW
        self.numbers = itertools.count(1)
        self.met: dict[Uid, set[bytes]] = {}
        self.floors: dict[Uid, int] = {}

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def take(self, arrival: Arrival) -> None:
        self.store.take_in([arrival])
        found = arrival.message
        if found is not None and found.kind == "text":
            # As the inbox lists whoever has spoken.
            before = self.store.contact(found.peer) or Contact(found.peer, "somebody", met=False)
            self.store.put_contact(msgspec.structs.replace(before, listed=True))
            if found.peer in self.met:
                self.met[found.peer].add(found.id)
        self.store.trim(ME, self.now)

    @rule(peer=PEOPLE, size=st.integers(1, 40))
    def hears(self, peer: Uid, size: int) -> None:
        self.take(message(peer, next(self.numbers), self.now, text="x" * size))

    @rule(peer=PEOPLE)
    def is_told(self, peer: Uid) -> None:
        self.take(message(peer, next(self.numbers), self.now, kind="notice"))

    @rule(peer=PEOPLE, times=st.integers(1, 9))
    def gets_receipts(self, peer: Uid, times: int) -> None:
        for _ in range(times):
            self.take(Arrival(peer, next(self.numbers).to_bytes(16, "big"), at_ms=self.now))

    @rule(peer=PEOPLE)
    def is_told_of_what_never_comes(self, peer: Uid) -> None:
        number = next(self.numbers)
        deed = Deed(
            DeedKind.EDIT,
            number.to_bytes(16, "big"),
            peer,
            peer,
            self.now,
            self.now,
            peer,
            b"?" * 16,
            "y" * 99,
        )
        self.take(Arrival(peer, deed.id, deed=deed, at_ms=self.now))

    @rule(peer=PEOPLE)
    def has_a_session(self, peer: Uid) -> None:
        kept = KeptSession(peer, 1, b"s", 1, 1, 1, 0, self.now, retired=False, state=b"state")
        self.store.change_sessions(SessionChanges(kept=(kept,)))

    @rule(peer=PEOPLE, device=st.integers(1, 3))
    def loses_a_session(self, peer: Uid, device: int) -> None:
        self.store.change_sessions(SessionChanges(lost=((peer, device, self.now),)))

    @rule(peer=PEOPLE)
    def owes_a_receipt_that_cannot_be_sent(self, peer: Uid) -> None:
        item = Outgoing(next(self.numbers).to_bytes(16, "big"), peer, "receipt", b"", self.now)
        self.store.queue_receipts(peer, item, [])

    @rule(peer=PEOPLE, floor=st.integers(1, 9), pinned=st.booleans())
    def meets(self, peer: Uid, floor: int, pinned: bool) -> None:
        before = self.store.contact(peer) or Contact(peer, "somebody")
        pin = Pin(b"a" * 20, bytes(20), 0, (), 7) if pinned else before.pin
        self.store.put_contact(msgspec.structs.replace(before, pin=pin, floor=floor, met=True))
        self.met.setdefault(
            peer, {one.id for one in self.store.history(peer, limit=99) if one.kind == "text"}
        )
        self.floors[peer] = max(floor, self.floors.get(peer, 0))

    @rule(days=st.integers(1, 40))
    def waits(self, days: int) -> None:
        self.now += days * DAY_MS
        self.store.trim(ME, self.now)

    @invariant()
    def nothing_of_who_was_met_is_gone(self) -> None:
        for peer, messages in self.met.items():
            contact = self.store.contact(peer)
            assert contact is not None
            assert (contact.met, contact.floor) == (True, self.floors[peer])
            there = {one.id for one in self.store.history(peer, limit=9999) if one.kind == "text"}
            assert there == messages

    @invariant()
    def everything_has_an_end(self) -> None:
        over = SMALL.every - 1  # what may have come since it was looked last
        db = self.store._db
        assert count(self.store, "seen") <= SMALL.seen + over
        for (held,) in db.execute("SELECT count(*) FROM seen GROUP BY sender"):
            assert held <= SMALL.seen_of_one + over
        assert count(self.store, "messages WHERE kind = 'notice'") <= SMALL.notices + over
        for (held,) in db.execute("SELECT count(*) FROM messages WHERE kind = 'notice' GROUP BY peer"):
            assert held <= SMALL.notices_of_one + over
        strangers = "(SELECT uid FROM contacts WHERE NOT met)"
        assert count(self.store, f"contacts WHERE uid IN {strangers}") <= SMALL.strangers + over
        for (held,) in db.execute(
            f"SELECT count(*) FROM messages WHERE kind = 'text' AND peer IN {strangers} GROUP BY peer"
        ):
            assert held <= SMALL.of_stranger + over
        (size,) = db.execute(
            "SELECT ifnull(sum(octet_length(text)), 0) FROM messages "
            f"WHERE kind = 'text' AND peer IN {strangers}"
        ).fetchone()
        assert size <= SMALL.stranger_bytes + over * 40
        (size,) = db.execute("SELECT ifnull(sum(octet_length(deed)), 0) FROM early").fetchone()
        assert size <= SMALL.early_bytes + over * 250
        (first, last) = db.execute("SELECT min(at_ms), max(at_ms) FROM lost_sessions").fetchone()
        assert first is None or first >= last - LOST_MS


Home.TestCase.settings = settings(max_examples=12, stateful_step_count=40, deadline=None)
TestHome = Home.TestCase


def test_who_was_verified_is_no_stranger(store: LocalStore) -> None:
    """Whatever else is known of them: a pin is never evicted by others who write."""
    pin = Pin(b"a" * 20, b"r" * 20, 0, (), 1)
    store.put_contact(Contact(Uid(200), "ada", pin=pin, floor=3, listed=True, met=False))
    for number in range(1, 20):
        peer = Uid(300 + number)
        store.put_contact(Contact(peer, "somebody", met=False))
        store.take_in([message(peer, number, NOW + number)])
        store.trim(ME, NOW + number)
    assert len(store.contacts()) <= 1 + SMALL.strangers + SMALL.every
    kept = store.contact(Uid(200))
    assert kept is not None
    assert (kept.pin, kept.floor) == (pin, 3)


def test_the_oldest_of_what_was_seen_goes_and_leaves_its_time(store: LocalStore) -> None:
    """What is forgotten for its number lies at or below the floor of its sender; nobody else has one."""
    for number in range(1, SMALL.seen_of_one + 6):
        store.take_in([Arrival(Uid(200), number.to_bytes(16, "big"), at_ms=NOW + number)])
    store.take_in([Arrival(Uid(201), b"o" * 16, at_ms=NOW)])
    store.trim(ME, NOW)
    seen = [store.has_seen(Uid(200), n.to_bytes(16, "big")) for n in range(1, SMALL.seen_of_one + 6)]
    assert seen == [False] * 5 + [True] * SMALL.seen_of_one
    assert store.forgotten_ms(Uid(200), NOW) == NOW + 5
    assert store.forgotten_ms(Uid(201), NOW) == NOW - SEEN_MS
    assert store.has_seen(Uid(201), b"o" * 16)
    for number in range(SMALL.seen + 9):
        store.take_in([Arrival(Uid(300 + number), b"n" * 16, at_ms=NOW + 100)])
    store.trim(ME, NOW)
    assert count(store, "seen") == SMALL.seen
    assert store.forgotten_ms(Uid(999), NOW) >= NOW + 100


def test_what_was_seen_is_kept_for_its_time_and_messages_for_longer(store: LocalStore) -> None:
    """A relay's repeat within two months is known; of a message that is still here, for ever."""
    store.take_in([message(Uid(200), 1, NOW), Arrival(Uid(200), b"r" * 16, at_ms=NOW)])
    store.put_contact(Contact(Uid(200), "ada"))
    store.trim(ME, NOW + SEEN_MS)
    assert store.has_seen(Uid(200), b"r" * 16)
    store.trim(ME, NOW + SEEN_MS + DAY_MS)
    assert not store.has_seen(Uid(200), b"r" * 16)
    assert count(store, "seen") == 0
    assert store.has_seen(Uid(200), (1).to_bytes(16, "big"))
    assert store.take_in([message(Uid(200), 1, NOW)]) == []


def test_notices_go_after_a_year_and_never_one_that_waits_to_be_sent(store: LocalStore) -> None:
    """The sentence about a setting that is on its way stays until it has left."""
    store.take_in([message(Uid(200), 1, NOW, kind="notice")])
    own = StoredMessage(
        b"q" * 16, ME, 1, Uid(200), Direction.OUT, "notice", "You …", NOW, state=MessageState.QUEUED
    )
    store.queue([own], [])
    store.trim(ME, NOW + 365 * DAY_MS)
    assert [one.id[-1:] for one in store.history(Uid(200), limit=9)] == [b"\1", b"q"]
    store.trim(ME, NOW + 367 * DAY_MS)
    assert [one.id[-1:] for one in store.history(Uid(200), limit=9)] == [b"q"]


def test_a_stranger_who_goes_goes_with_everything(store: LocalStore) -> None:
    """Those heard last stay; of the others nothing is left, in no table and not in the search index."""
    for number, peer in enumerate((Uid(200), Uid(201), Uid(202)), start=1):
        store.take_in([message(peer, number, NOW + number, text=f"secret{peer}")])
        store.put_contact(Contact(peer, "somebody", met=False, floor=3))
        kept = KeptSession(peer, 1, b"s", 1, 1, 1, 0, NOW + number, retired=False, state=b"state")
        store.change_sessions(SessionChanges(kept=(kept,)))
        timer = Deed(DeedKind.TIMER, b"%016d" % number, peer, peer, NOW, number=60)
        store.take_in([Arrival(peer, b"t%015d" % number, deed=timer, receipt_due=True, at_ms=NOW)])
    assert store.trim(ME, NOW + 10)
    assert [one.uid for one in store.contacts()] == [Uid(201), Uid(202)]
    assert store.session_devices() == [(201, 1), (202, 1)]
    assert store.history(Uid(200), limit=9) == store.search(["secret200"], limit=9) == []
    assert store.peer(Uid(200)).timer_s == 0
    assert {peer for peer, _ in store.receipts_due()} == {Uid(201), Uid(202)}
    assert len(store.search(["secret201"], limit=9)) == 1


def test_own_devices_are_no_strangers(tmp_path: Path) -> None:
    """Sessions with one's other devices stay, also where no stranger may."""
    nobody = dataclasses.replace(SMALL, strangers=0)
    store = LocalStore(tmp_path / "messages.db", KEY, nobody)
    for uid in (ME, Uid(200)):
        kept = KeptSession(uid, 2, b"s", 1, 1, 1, 0, NOW, retired=False, state=b"state")
        store.change_sessions(SessionChanges(kept=(kept,)))
    store.trim(ME, NOW)
    assert store.session_devices() == [(ME, 2)]


def test_sessions_lost_in_a_future_that_was_none_are_forgotten(store: LocalStore) -> None:
    """A clock that was wrong for a while must not keep sessions from being mended for years."""
    store.change_sessions(SessionChanges(lost=((200, 1, NOW + 999 * DAY_MS),)))
    store.change_sessions(SessionChanges(lost=((200, 2, NOW),)))
    assert (store.lost_ms(200, 1), store.lost_ms(200, 2)) == (0, NOW)


def test_a_database_of_the_schema_before_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was known stays known, and what was seen stays seen for two months from now."""
    before = local.SCHEMA.index(BOUNDS_SCHEMA)
    with monkeypatch.context() as older:
        older.setattr(local, "SCHEMA", local.SCHEMA[:before])
        old = LocalStore(path, KEY)
        old._db.execute("INSERT INTO contacts VALUES (200, 'ada', NULL, 3, 3, 1)")
        old._db.execute("INSERT INTO seen VALUES (200, x'01')")
        old.close()
    store = LocalStore(path, KEY)
    assert store.contact(Uid(200)) == Contact(Uid(200), "ada", floor=3, confirmed=3, met=True)
    now_ms = int(time.time() * 1000)
    store.trim(ME, now_ms + SEEN_MS - DAY_MS)
    assert store.has_seen(Uid(200), b"\1")
    store.trim(ME, now_ms + SEEN_MS + DAY_MS)
    assert not store.has_seen(Uid(200), b"\1")
