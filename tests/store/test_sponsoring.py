"""What the sponsor must not forget, in both kinds of database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatchain.errors import StoreUnavailable
from chatchain.model import GWEI, Booked, Note
from chatchain.relay.spending import DAY, HOUR, SLICE, Spending
from chatchain.store import migrations
from chatchain.store.server import ServerStore

NOW = 1_800_000_000.0


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'relay.db'}"
    return str(request.getfixturevalue("mariadb_url"))


@pytest.fixture
def store(url: str) -> Iterator[ServerStore]:
    """A store with its tables."""
    made = ServerStore(url)
    made.migrate()
    yield made
    made.close()


def spent(store: ServerStore, now: float = NOW) -> tuple[int, int]:
    """Gwei in the hour and in the day before."""
    told: list[tuple[int, int]] = []

    def judge(hour: int, day: int, _first_of_hour: int, _first_of_day: int) -> list[Booked]:
        told.append((hour, day))
        return []

    store.sponsoring.book(int(now // SLICE), HOUR, DAY, judge)
    return told[0]


def test_what_was_spent_outlives_the_process(store: ServerStore, url: str) -> None:
    """Another process over the same database reads what this one wrote; hours and days end by themselves."""
    purse = Spending(store.sponsoring, lambda: NOW, wei_per_hour=10 * GWEI, wei_per_day=15 * GWEI)
    first, second = purse.book([7 * GWEI, 3 * GWEI])
    assert isinstance(first, Booked)
    assert isinstance(second, Booked)
    purse.settle([([second], GWEI)])
    again = ServerStore(url)
    assert spent(again) == (8, 8)
    assert spent(again, NOW + (HOUR - 1) * SLICE) == (8, 8)
    assert spent(again, NOW + HOUR * SLICE) == (0, 8)
    later = Spending(
        again.sponsoring, lambda: NOW + HOUR * SLICE, wei_per_hour=10 * GWEI, wei_per_day=15 * GWEI
    )
    assert [isinstance(one, Booked) for one in later.book([8 * GWEI, 7 * GWEI])] == [False, True]
    assert spent(again, NOW + HOUR * SLICE) == (7, 15)
    assert spent(again, NOW + (DAY - 1) * SLICE) == (0, 15)
    assert spent(again, NOW + DAY * SLICE) == (0, 7)
    again.close()


def test_an_invitation_is_given_back_by_whom_it_was_used(store: ServerStore) -> None:
    """Another account's failure makes it no better; one that has expired is forgotten, and no other."""
    spent_by = store.invitations
    old, young = b"o" * 16, b"y" * 16
    assert spent_by.spend(old, 50, b"a" * 20, 10) is None
    assert spent_by.spend(young, 60, b"a" * 20, 10) is None
    spent_by.restore(young, b"b" * 20)
    assert spent_by.spend(young, 60, b"b" * 20, 49) == b"a" * 20
    assert spent_by.spend(old, 50, b"b" * 20, 49) == b"a" * 20
    spent_by.restore(young, b"a" * 20)
    assert spent_by.spend(young, 60, b"b" * 20, 50) is None
    assert spent_by.spend(old, 50, b"c" * 20, 50) is None


def test_a_sum_of_more_than_nine_ether_is_kept(store: ServerStore) -> None:
    """Wei would not fit into the database's numbers; gwei do."""
    ether = 10**18
    purse = Spending(store.sponsoring, lambda: NOW, wei_per_hour=10**6 * ether, wei_per_day=10**6 * ether)
    assert isinstance(purse.book([10**6 * ether])[0], Booked)
    assert not isinstance(purse.book([GWEI])[0], Booked)


def test_days_that_are_over_are_forgotten(store: ServerStore) -> None:
    """The table holds a day and no more; a sum given back to a forgotten slice changes nothing."""
    (old,) = Spending(store.sponsoring, lambda: NOW, wei_per_hour=GWEI, wei_per_day=GWEI).book([GWEI])
    assert isinstance(old, Booked)
    far = NOW + 2 * DAY * SLICE
    purse = Spending(store.sponsoring, lambda: far, wei_per_hour=GWEI, wei_per_day=GWEI)
    purse.book([GWEI])
    purse.settle([([old], 0)])
    assert spent(store) == (1, 1)  # what lies ahead of the old time, and nothing of its own


def test_several_who_book_at_once_stay_within_one_limit(store: ServerStore, url: str) -> None:
    """Each sees what the others booked before it."""
    stores = [ServerStore(url) for _ in range(4)]
    passed: list[int] = []

    def book(one: ServerStore) -> None:
        purse = Spending(one.sponsoring, lambda: NOW, wei_per_hour=10 * GWEI, wei_per_day=10 * GWEI)
        passed.extend(1 for _ in range(5) if isinstance(purse.book([GWEI])[0], Booked))

    threads = [threading.Thread(target=book, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 10
    assert spent(store) == (10, 10)
    for one in stores:
        one.close()


def booked(store: ServerStore, *gwei: int) -> list[Booked]:
    """So many sums, booked together."""
    purse = Spending(store.sponsoring, lambda: NOW, wei_per_hour=10**9 * GWEI, wei_per_day=10**9 * GWEI)
    told = purse.book([amount * GWEI for amount in gwei])
    return [one for one in told if isinstance(one, Booked)]


def test_what_a_process_leaves_is_the_next_one_s_and_no_longer_its_own(store: ServerStore, url: str) -> None:
    """Sums that were never signed for, and a transaction with all that was booked for it."""
    first, second, third = booked(store, 100, 50, 7)
    store.sponsoring.keep([Note((first, second), b"transaction")])
    store.sponsoring.keep([Note((first, second), b"another version")])
    assert store.sponsoring.left() == []
    again = ServerStore(url)
    left = {note.sent: note.booked for note in again.sponsoring.left()}
    assert left == {b"": (third,), b"another version": (first, Booked(second.slice, 50, b""))}
    assert again.sponsoring.left() == []
    for one in (first, third):
        with pytest.raises(StoreUnavailable):
            store.sponsoring.keep([Note((one,), b"late")])
    (more,) = booked(again, 30)
    again.sponsoring.keep([Note((*left[b"another version"], more), b"dearer")])
    assert spent(store) == (187, 187)
    again.sponsoring.settle([([third], 0)])
    again.sponsoring.settle([([first, more], 120)])
    assert spent(store) == (120, 120)
    for process in (store, again):
        process.sponsoring.settle([([first, second, more], 0)])
        process.sponsoring.settle([([third], 0)])
    assert spent(store) == (120, 120), "it is settled once"
    assert again.sponsoring.left() == store.sponsoring.left() == []
    again.close()


def test_of_several_notes_all_are_kept_or_none(store: ServerStore) -> None:
    """One of them is settled already: the others must not be sent under a booking that is unsure."""
    first, second = booked(store, 100, 50)
    store.sponsoring.settle([([second], 0)])
    with pytest.raises(StoreUnavailable):
        store.sponsoring.keep([Note((first,), b"one"), Note((second,), b"other")])
    store.sponsoring.settle([([first], 0)])
    assert spent(store) == (0, 0)


def test_what_a_living_process_has_booked_is_left_to_it(mariadb_url: str) -> None:
    """Of several on one database; when one is gone the first to look takes it over, and nobody else."""
    stores = [ServerStore(mariadb_url) for _ in range(3)]
    stores[0].migrate()
    for number, one in enumerate(stores):
        one.join(f"node-{number}")
    (first,) = booked(stores[0], 100)
    assert [one.sponsoring.left() for one in stores] == [[], [], []]
    stores[0].close()
    assert stores[1].sponsoring.left() == [Note((first,), b"")]
    assert stores[2].sponsoring.left() == []
    for one in stores[1:]:
        one.close()


def test_migrations_form_one_line() -> None:
    """Two of one number, as when two branches meet, would keep every relay from starting."""
    versions = Path(migrations.__file__).parent / "versions"
    numbers = sorted(path.name[1:5] for path in versions.glob("r0*.py"))
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
