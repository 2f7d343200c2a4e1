"""Edits, deletions, reactions and settings in the home's database: any order, the same end; gone is gone."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.model import (
    DELETE_WINDOW_MS,
    EDIT_WINDOW_MS,
    GRACE_MS,
    MAX_EDITS,
    Arrival,
    Deed,
    DeedKind,
    Direction,
    Peer,
    StoredMessage,
    Uid,
)
from chatchain.store import local
from chatchain.store.deeds import EARLY_MS, MAX_EARLY
from chatchain.store.deeds import SCHEMA as DEEDS_SCHEMA
from chatchain.store.local import LocalStore
from tests.store.pages import pages

KEY = bytes(range(32))
ME, ADA, BOB = Uid(100000000000001), Uid(100000000000002), Uid(100000000000003)
WRITTEN = 1_800_000_000_000
ID = b"the message's id"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


@pytest.fixture
def store(path: Path) -> LocalStore:
    return LocalStore(path, KEY)


def message(text: str = "hello", *, id: bytes = ID, peer: Uid = ADA, expires_s: int = 0) -> StoredMessage:
    """A message that came in from a peer."""
    return StoredMessage(id, peer, 1, peer, Direction.IN, "text", text, WRITTEN, expires_s=expires_s)


def came(found: StoredMessage) -> Arrival:
    return Arrival(found.sender, found.id, message=found)


def deed(
    kind: DeedKind,
    value: str = "",
    *,
    id: bytes,
    after_ms: int = 1000,
    received_ms: int = WRITTEN,
    sender: Uid = ADA,
    peer: Uid = ADA,
    author: Uid = ADA,
    target: bytes = ID,
    number: int = 0,
) -> Deed:
    """A deed in the conversation with ADA, about her message."""
    place = id.rjust(16, b"\0")
    time_ms = WRITTEN + after_ms
    return Deed(kind, place, sender, peer, time_ms, received_ms, author, target, value, number)


def done(what: Deed) -> Arrival:
    """A deed as it comes in, with what tells a person of it."""
    told = StoredMessage(
        what.id,
        what.sender,
        1,
        what.peer,
        Direction.IN,
        what.kind.value if what.target else "notice",
        what.value if what.kind is DeedKind.REACTION else "",
        what.time_ms,
        about_author=what.author,
        about=what.target,
    )
    refused = msgspec.structs.replace(told, kind="notice", text="not the author", about=b"")
    return Arrival(what.sender, what.id, message=told, deed=what, refusal=refused)


def only(store: LocalStore, peer: Uid = ADA) -> StoredMessage:
    (found,) = store.history(peer, limit=10)
    return found


# --- the same end in every order ------------------------------------------------------------------------

times = st.integers(-5, 8)
emoji = st.sampled_from(["👍", "🎉", ""])
some_deeds = st.lists(
    st.one_of(
        st.tuples(st.just(DeedKind.EDIT), st.just(ADA), times, st.text("abc", min_size=1, max_size=3)),
        st.tuples(st.just(DeedKind.REACTION), st.sampled_from([ADA, ME]), times, emoji),
        st.tuples(st.just(DeedKind.TIMER), st.sampled_from([ADA, ME]), times, st.just("")),
        st.tuples(st.just(DeedKind.OFF_THE_RECORD), st.sampled_from([ADA, ME]), times, st.just("")),
        st.tuples(st.just(DeedKind.PROFILE), st.just(ADA), times, st.sampled_from(["Ada", "Ida", ""])),
        st.tuples(st.just(DeedKind.DELETE), st.just(ADA), times, st.just("")),
    ),
    max_size=16,
)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStore, list[int]]:
    """One database and a counter: each order is played in a conversation of its own."""
    return LocalStore(tmp_path_factory.mktemp("homes") / "messages.db", KEY), [0]


@given(some_deeds, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_every_order_ends_the_same(
    homes: tuple[LocalStore, list[int]],
    deeds: list[tuple[DeedKind, Uid, int, str]],
    chance: random.Random,
) -> None:
    """Before or after the message, once or twice, in any order: five homes agree on everything."""
    store, counter = homes
    ends = []
    for _ in range(5):
        counter[0] += 1
        peer = Uid(10**14 + counter[0])
        target = counter[0].to_bytes(16, "big")
        arrivals = [came(message("first", id=target, peer=peer))]
        for number, (kind, sender, after, value) in enumerate(deeds):
            what = Deed(
                kind,
                # Of this conversation alone: one that Hypothesis breaks off leaves deeds that wait.
                b"\1" + (counter[0] * 100 + number).to_bytes(15, "big"),
                peer if sender == ADA else ME,
                peer,
                WRITTEN + after,
                received_ms=WRITTEN + 10,
                author=peer,
                target=target if kind in (DeedKind.EDIT, DeedKind.REACTION, DeedKind.DELETE) else b"",
                value=value,
                number=number % 3,
            )
            place = (counter[0] * 100 + number).to_bytes(
                16, "big"
            )  # told apart from other conversations' ids
            arrivals += [msgspec.structs.replace(done(what), id=place)] * chance.choice([1, 1, 2])
        chance.shuffle(arrivals)
        while arrivals:
            size = chance.randint(1, len(arrivals))
            store.take_in(arrivals[:size])
            del arrivals[:size]
        (found,) = [one for one in store.history(peer, limit=99) if one.kind == "text"]
        reactions = [(reactor == ME, what) for reactor, what in found.reactions]
        peers = msgspec.structs.replace(store.peer(peer), uid=ADA)
        ends.append((found.text, found.edited_ms, found.deleted, reactions, store.versions(found.row), peers))
        assert store.search([found.text], limit=1) or found.deleted
    assert ends == ends[:1] * 5


def test_of_many_edits_the_first_count(store: LocalStore) -> None:
    """An eleventh edit changes nothing, also when it comes before the others."""
    edits = [deed(DeedKind.EDIT, f"edit {n}", id=bytes([n]), after_ms=n) for n in range(1, MAX_EDITS + 2)]
    store.take_in([came(message()), *map(done, reversed(edits))])
    assert only(store).text == f"edit {MAX_EDITS}"
    versions = store.versions(only(store).row)
    assert [text for _, text in versions] == ["hello", *(f"edit {n}" for n in range(1, MAX_EDITS + 1))]


@pytest.mark.parametrize(
    ("kind", "after_ms", "received_ms", "holds"),
    [
        (DeedKind.EDIT, EDIT_WINDOW_MS, 0, True),
        (DeedKind.EDIT, EDIT_WINDOW_MS + 1, 0, False),
        (DeedKind.EDIT, 0, 0, False),
        (DeedKind.EDIT, -1, 0, False),
        (DeedKind.EDIT, 5, EDIT_WINDOW_MS + GRACE_MS, True),
        (DeedKind.EDIT, 5, EDIT_WINDOW_MS + GRACE_MS + 1, False),
        (DeedKind.DELETE, DELETE_WINDOW_MS, 0, True),
        (DeedKind.DELETE, DELETE_WINDOW_MS + 1, 0, False),
        (DeedKind.DELETE, 5, DELETE_WINDOW_MS + GRACE_MS, True),
        (DeedKind.DELETE, 5, DELETE_WINDOW_MS + GRACE_MS + 1, False),
    ],
)
@pytest.mark.parametrize("early", [False, True])
def test_a_message_can_be_changed_for_a_while(
    store: LocalStore, kind: DeedKind, after_ms: int, received_ms: int, holds: bool, early: bool
) -> None:
    """By the author's clock, and not much later by the relay's, whichever came first."""
    what = deed(kind, "new", id=b"d", after_ms=after_ms, received_ms=WRITTEN + received_ms)
    order = [came(message()), done(what)]
    store.take_in(order[::-1] if early else order)
    assert (only(store).text != "hello") == holds


# --- who may --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DeedKind.EDIT, DeedKind.DELETE])
def test_only_the_author_changes_a_message(store: LocalStore, kind: DeedKind) -> None:
    """ADA's attempt at a message of mine leaves it as it was, and a notice."""
    mine = StoredMessage(ID, ME, 1, ADA, Direction.OUT, "text", "mine", WRITTEN)
    store.queue([mine], [])
    (told,) = store.take_in([done(deed(kind, "hers", id=b"d"))])
    assert (told.kind, told.text) == ("notice", "not the author")
    kept = next(one for one in store.history(ADA, limit=5) if one.id == ID)
    assert (kept.text, kept.deleted, kept.edited_ms) == ("mine", False, 0)


@pytest.mark.parametrize("kind", [DeedKind.EDIT, DeedKind.DELETE, DeedKind.REACTION])
def test_a_deed_reaches_only_its_own_conversation(store: LocalStore, kind: DeedKind) -> None:
    """A message of ADA's to me is not changed by what stands in the conversation with BOB."""
    store.take_in([came(message())])
    store.take_in([done(deed(kind, "👍", id=b"d", peer=BOB))])
    found = only(store)
    assert (found.text, found.reactions, found.deleted) == ("hello", (), False)


# --- what is told ---------------------------------------------------------------------------------------


def test_deeds_are_told_once_about_what_was_seen(store: LocalStore) -> None:
    """About a message that nobody was shown yet there is nothing to tell: it shows as it is now."""
    first = store.take_in([came(message()), done(deed(DeedKind.EDIT, "unseen", id=b"1"))])
    assert [(one.kind, one.text) for one in first] == [("text", "unseen")]
    store.mark_shown(first[0].row, WRITTEN)
    (told,) = store.take_in([done(deed(DeedKind.EDIT, "seen", id=b"2", after_ms=2000))])
    assert (told.kind, told.about) == ("edit", ID)
    assert [one.row for one in store.unshown()] == [told.row]
    assert store.count_unread() == 0
    store.mark_shown(told.row, WRITTEN)
    assert store.unshown() == []
    assert only(store).text == "seen"


def test_a_deletion_takes_back_what_was_not_told_yet(store: LocalStore) -> None:
    """A reaction and an edit that wait to be shown go with their message; the deletion is told."""
    (shown,) = store.take_in([came(message())])
    store.mark_shown(shown.row, WRITTEN)
    store.take_in(
        [done(deed(DeedKind.EDIT, "secret", id=b"1")), done(deed(DeedKind.REACTION, "👍", id=b"2"))]
    )
    store.take_in([done(deed(DeedKind.DELETE, id=b"3"))])
    assert [one.kind for one in store.unshown()] == ["delete"]
    found = only(store)
    assert (found.text, found.deleted, found.edited_ms, found.reactions) == ("", True, 0, ())
    assert store.versions(found.row) == []
    assert store.search(["secret"], limit=5) == store.search(["hello"], limit=5) == []


def test_a_changed_mind_is_told_once(store: LocalStore) -> None:
    """Of two reactions by one person that nobody was shown, the last one is told."""
    (shown,) = store.take_in([came(message())])
    store.mark_shown(shown.row, WRITTEN)
    for number, what in enumerate(("👍", "🎉")):
        store.take_in([done(deed(DeedKind.REACTION, what, id=bytes([number]), after_ms=number))])
    assert [(one.kind, one.text) for one in store.unshown()] == [("reaction", "🎉")]
    assert only(store).reactions == ((ADA, "🎉"),)


def test_search_follows_an_edit(store: LocalStore) -> None:
    """The new text is found, the old one is not."""
    store.take_in([came(message("before")), done(deed(DeedKind.EDIT, "afterwards", id=b"1"))])
    assert [one.text for one in store.search(["after"], limit=5)] == ["afterwards"]
    assert store.search(["before"], limit=5) == []


@pytest.mark.parametrize(
    ("ahead_ms", "relays_ms", "later_ms", "counts"),
    [
        (0, 60_000, 60_000, True),
        (10**12, 60_000, 60_000, True),  # whoever's clock is wrong may edit, too
        (10**12, EDIT_WINDOW_MS + GRACE_MS, EDIT_WINDOW_MS + GRACE_MS, True),
        (10**12, EDIT_WINDOW_MS + GRACE_MS + 1, EDIT_WINDOW_MS + GRACE_MS + 1, False),
        (0, 60_000, EDIT_WINDOW_MS + GRACE_MS + EARLY_MS, True),  # it waited in our mailbox for a month
        (10**12, 60_000, EDIT_WINDOW_MS + GRACE_MS + EARLY_MS + 1, False),  # the relay dates it back
        (0, 60_000, -5, True),  # the edit came before its message
    ],
)
def test_a_message_that_is_dated_ahead_is_not_open_for_longer(
    store: LocalStore, ahead_ms: int, relays_ms: int, later_ms: int, counts: bool
) -> None:
    """By its author's clock each of these edits comes in time; the relay's clock and ours have a say, too."""
    written = msgspec.structs.replace(
        message(), time_ms=WRITTEN + ahead_ms, received_ms=WRITTEN, arrived_ms=WRITTEN + 7
    )
    what = msgspec.structs.replace(
        deed(DeedKind.EDIT, "new", id=b"e", after_ms=ahead_ms + 1, received_ms=WRITTEN + relays_ms),
        arrived_ms=WRITTEN + 7 + later_ms,
    )
    both = [came(written), done(what)]
    store.take_in(both if later_ms > 0 else both[::-1])
    assert only(store).text == ("new" if counts else "hello")


# --- what waits for its message -------------------------------------------------------------------------


def test_early_deeds_are_bounded(store: LocalStore) -> None:
    """Of one sender the newest wait; somebody else's are not pushed out."""
    store.take_in([done(deed(DeedKind.REACTION, "🎉", id=b"b", sender=BOB, peer=BOB, author=BOB))])
    store.take_in(
        [
            done(deed(DeedKind.EDIT, "x", id=b"e%d" % number, target=b"%016d" % number))
            for number in range(MAX_EARLY + 10)
        ]
    )
    counts = dict(store._db.execute("SELECT sender, count(*) FROM early GROUP BY sender").fetchall())
    assert counts == {ADA: MAX_EARLY, BOB: 1}
    store.purge(WRITTEN + 1000 + EARLY_MS + 1)
    assert store._db.execute("SELECT count(*) FROM early").fetchone() == (0,)


# --- what disappears ------------------------------------------------------------------------------------


SECRET = "xylophone quagmire"


def test_what_disappeared_is_in_no_page(path: Path, store: LocalStore) -> None:
    """Neither text nor versions nor index nor journal keep it, and what stays is whole."""
    store.take_in([came(message(SECRET, expires_s=60)), came(message("stays", id=b"s" * 16))])
    store.take_in([done(deed(DeedKind.EDIT, SECRET + " twice", id=b"1"))])
    assert SECRET.encode() in pages(path, KEY)
    shown = store.history(ADA, limit=5)
    store.mark_shown(shown[0].row, WRITTEN)
    assert store.next_expiry() == WRITTEN + 60_000
    store.purge(WRITTEN + 59_999)
    assert len(store.history(ADA, limit=5)) == 2
    store.purge(WRITTEN + 60_000)
    assert [one.text for one in store.history(ADA, limit=5)] == ["stays"]
    assert SECRET.encode() not in pages(path, KEY)
    assert b"xyl" not in pages(path, KEY)  # what the search index was made of
    assert b"stays" in pages(path, KEY)
    assert store.search(["xylophone"], limit=5) == []
    store._db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_was_deleted_for_all_is_in_no_page(path: Path, store: LocalStore) -> None:
    """A tombstone tells nothing of what was said."""
    store.take_in([came(message(SECRET)), done(deed(DeedKind.EDIT, SECRET + " twice", id=b"1"))])
    assert b"xyl" in pages(path, KEY)
    store.take_in([done(deed(DeedKind.DELETE, id=b"2"))])
    assert b"xyl" not in pages(path, KEY)  # also for who copies the home while it is at work


def test_what_one_took_back_oneself_is_in_no_page(path: Path, store: LocalStore) -> None:
    """The same at the author's."""
    mine = StoredMessage(b"m" * 16, ME, 1, ADA, Direction.OUT, "text", SECRET, WRITTEN)
    store.queue([mine], [])
    assert b"xyl" in pages(path, KEY)
    store.queue([], [], done=[deed(DeedKind.DELETE, id=b"2", sender=ME, author=ME, target=b"m" * 16)])
    assert b"xyl" not in pages(path, KEY)


def test_time_counts_from_reading(store: LocalStore) -> None:
    """Shown or looked back at, whichever came first; an unread message stays."""
    store.take_in([came(message(id=bytes([n]) * 16, expires_s=60)) for n in range(3)])
    rows = [one.row for one in store.history(ADA, limit=5)]
    store.mark_shown(rows[0], WRITTEN)
    store.mark_read(ADA, rows[1], WRITTEN + 5000)
    store.mark_shown(rows[0], WRITTEN + 9000)
    assert [one.expires_ms - WRITTEN if one.expires_ms else 0 for one in store.history(ADA, limit=5)] == [
        60_000,
        65_000,
        0,
    ]
    store.purge(WRITTEN * 2)
    assert [one.row for one in store.history(ADA, limit=5)] == [rows[2]]


def test_what_comes_late_about_what_disappeared_is_dropped(store: LocalStore) -> None:
    """An edit of a message that is gone must not keep its text here."""
    store.take_in([came(message(expires_s=1))])
    store.mark_shown(only(store).row, WRITTEN)
    mine = StoredMessage(
        b"m" * 16, ME, 1, ADA, Direction.OUT, "text", "mine", WRITTEN, expires_s=1, expires_ms=WRITTEN
    )
    store.queue([mine], [])
    store.purge(WRITTEN + 1000)
    assert store.history(ADA, limit=5) == []
    store.take_in(
        [
            done(deed(DeedKind.EDIT, SECRET, id=b"1")),
            done(deed(DeedKind.REACTION, "👍", id=b"2", author=ME, target=b"m" * 16)),
        ]
    )
    assert store._db.execute("SELECT count(*) FROM early").fetchone() == (0,)
    assert store.unshown() == []


def test_what_was_handed_over_takes_later_deeds(store: LocalStore) -> None:
    """A message from another own device keeps its edit against an older one, and takes a newer one."""
    edited = msgspec.structs.replace(
        message("third"), edited_ms=WRITTEN + 300, reactions=((ADA, "👍"),), deleted=False
    )
    taken_back = msgspec.structs.replace(message("", id=b"d" * 16), deleted=True)
    store.take_in([done(deed(DeedKind.EDIT, "second", id=b"2", after_ms=200))])  # it waits for its message
    assert store.adopt([], [], [edited, taken_back]) == 2
    assert [(one.text, one.deleted) for one in store.history(ADA, limit=5)] == [("third", False), ("", True)]
    assert store.history(ADA, limit=5)[0].reactions == ((ADA, "👍"),)
    store.take_in([done(deed(DeedKind.EDIT, "fourth", id=b"4", after_ms=400))])
    store.take_in([done(deed(DeedKind.REACTION, "", id=b"5", after_ms=1))])
    first = store.history(ADA, limit=5)[0]
    assert (first.text, first.reactions) == ("fourth", ())


# --- settings -------------------------------------------------------------------------------------------


def test_a_conversation_is_as_it_was_set_last(store: LocalStore) -> None:
    """Each thing for itself; only what changes something is told."""
    assert store.peer(ADA) == Peer(ADA)
    later = deed(DeedKind.TIMER, id=b"2", after_ms=2, target=b"", number=60)
    sooner = deed(DeedKind.TIMER, id=b"1", after_ms=1, target=b"", number=5)
    assert len(store.take_in([done(later), done(sooner)])) == 1
    store.take_in([done(deed(DeedKind.OFF_THE_RECORD, id=b"3", after_ms=1, target=b"", number=1))])
    store.take_in([done(deed(DeedKind.PROFILE, "Ada", id=b"4", after_ms=1, target=b""))])
    found = store.peer(ADA)
    assert (found.timer_s, found.off_the_record, found.display_name) == (60, True, "Ada")
    assert store.peer(BOB) == Peer(BOB)


def test_the_own_profile_is_noted_with_whoever_got_it(store: LocalStore) -> None:
    """A peer's own name and what the peer was told of mine do not touch each other."""
    store.take_in([done(deed(DeedKind.PROFILE, "Ada", id=b"1", target=b""))])
    mine = deed(DeedKind.PROFILE, "Me", id=b"2", sender=ME, target=b"")
    store.queue([], [], done=[mine])
    assert (store.peer(ADA).display_name, store.peer(ADA).profile_sent) == ("Ada", "Me")
    assert (store.peer(ME).display_name, store.peer(BOB).profile_sent) == ("Me", "")


def test_the_same_again_is_not_told(store: LocalStore) -> None:
    """A name that is repeated, by another device say, is no news; the later time counts all the same."""
    first, again = (deed(DeedKind.PROFILE, "Ada", id=bytes([n]), after_ms=n, target=b"") for n in (1, 2))
    assert [len(store.take_in([done(one)])) for one in (first, again)] == [1, 0]
    assert store.peer(ADA).profile_ms == WRITTEN + 2


def test_a_caption_is_not_edited(store: LocalStore) -> None:
    """Edits are for texts; a file's message can be taken back, with all that it said."""
    file = msgspec.structs.replace(message("caption"), kind="file", content=b"what opens it")
    store.take_in([came(file), done(deed(DeedKind.EDIT, "new", id=b"1"))])
    assert (only(store).text, only(store).content) == ("caption", b"what opens it")
    store.take_in([done(deed(DeedKind.DELETE, id=b"2"))])
    assert (only(store).text, only(store).content, only(store).deleted) == ("", b"", True)


def test_ids_are_found_by_their_beginning(store: LocalStore) -> None:
    """Between two ids, deeds left out, in the order of arrival."""
    for place in (b"\xab\x01".ljust(16), b"\xab\x02".ljust(16), b"\xac".ljust(16)):
        store.take_in([came(message(id=place))])
    found = store.messages(b"\xab".ljust(16, b"\0"), b"\xab".ljust(16, b"\xff"))
    assert [one.id[:2] for one in found] == [b"\xab\x01", b"\xab\x02"]
    plan = store._db.execute(
        "EXPLAIN QUERY PLAN SELECT row FROM messages WHERE id BETWEEN ? AND ?", (b"", b"")
    )
    assert "messages_by_id" in str(plan.fetchall())


# --- from the schema before -----------------------------------------------------------------------------


def test_a_database_of_the_schema_before_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, states and the search index of version 1 are there afterwards, and take edits."""
    before = local.SCHEMA.index(DEEDS_SCHEMA)
    with monkeypatch.context() as older:
        older.setattr(local, "SCHEMA", local.SCHEMA[:before])
        old = LocalStore(path, KEY)
        columns = "id, sender, device, peer, direction, kind, text, code, time_ms, state, shown, read"
        for place, kind, text in (
            (ID, "text", "hello old friend"),
            (b"n" * 16, "notice", "something happened"),
        ):
            old._db.execute(
                f"INSERT INTO messages ({columns}) VALUES (?, ?, 1, ?, 'in', ?, ?, '', ?, NULL, 0, 0)",
                (place, ADA, ADA, kind, text, WRITTEN),
            )
        old.close()
    store = LocalStore(path, KEY)
    assert [(one.kind, one.text, one.expires_s, one.deleted) for one in store.history(ADA, limit=5)] == [
        ("text", "hello old friend", 0, False),
        ("notice", "something happened", 0, False),
    ]
    store.take_in([done(deed(DeedKind.EDIT, "hello new friend", id=b"1"))])
    assert store.search(["old"], limit=5) == []
    assert [one.text for one in store.search(["friend"], limit=5)] == ["hello new friend"]
    store.take_in([done(deed(DeedKind.DELETE, id=b"2"))])
    assert store.search(["friend"], limit=5) == []
    store._db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
