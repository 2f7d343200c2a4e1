"""The sponsor's limits for an hour and a day, with a clock that the test turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatchain.model import GWEI, Booked
from chatchain.relay.spending import DAY, HOUR, SLICE, Spending
from tests.relay.journal import MemoryJournal

PER_HOUR, PER_DAY = 100 * GWEI, 240 * GWEI


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def spending(clock: Clock, journal: MemoryJournal | None = None) -> Spending:
    return Spending(journal or MemoryJournal(), clock, wei_per_hour=PER_HOUR, wei_per_day=PER_DAY)


def test_a_sum_is_spent_once_an_hour() -> None:
    """It comes free again when its own hour has passed, not before, and the wait says when."""
    clock = Clock()
    purse = spending(clock)
    assert isinstance(purse.book([60 * GWEI])[0], Booked)
    clock.now += 600
    assert isinstance(purse.book([40 * GWEI])[0], Booked)
    (wait,) = purse.book([GWEI])
    assert wait == pytest.approx(3000, abs=SLICE)
    clock.now += 3000 - 2 * SLICE
    assert not isinstance(purse.book([GWEI])[0], Booked)
    clock.now += 2 * SLICE
    assert isinstance(purse.book([60 * GWEI])[0], Booked)
    assert not isinstance(purse.book([GWEI])[0], Booked)


@pytest.mark.parametrize("late", [0.0, 1.0, SLICE - 1.0, SLICE - 0.001])
def test_nobody_is_told_to_come_again_at_once(late: float) -> None:
    """However near the end of its slice the first sum is: a wait of nothing would be no wait."""
    clock = Clock()
    purse = spending(clock)
    purse.book([100 * GWEI])
    assert clock.now % SLICE == 0
    clock.now += (HOUR - 1) * SLICE + late
    assert purse.book([GWEI]) == [SLICE]
    clock.now += SLICE
    assert isinstance(purse.book([GWEI])[0], Booked)


def test_a_larger_sum_is_refused_and_a_smaller_one_behind_it_passes() -> None:
    """In one turn, each by itself."""
    told = spending(Clock()).book([70 * GWEI, 50 * GWEI, 30 * GWEI])
    assert [isinstance(one, Booked) for one in told] == [True, False, True]


def test_parts_of_a_gwei_are_booked_whole_and_not_given_back() -> None:
    """What is kept is never less than what was spent."""
    journal = MemoryJournal()
    purse = spending(Clock(), journal)
    (booked,) = purse.book([3 * GWEI + 1])
    assert isinstance(booked, Booked)
    assert journal.total == 4
    purse.settle([([booked], 2 * GWEI + 1)])
    assert journal.total == 3


def test_more_than_was_booked_gives_nothing_back() -> None:
    """A dearer end takes nothing off what others booked."""
    journal = MemoryJournal()
    purse = spending(Clock(), journal)
    (booked,) = purse.book([3 * GWEI])
    assert isinstance(booked, Booked)
    purse.settle([([booked], 5 * GWEI)])
    assert journal.total == 3


def test_a_clock_that_is_set_back_frees_nothing() -> None:
    """What lies in the future counts all the same."""
    clock = Clock()
    purse = spending(clock)
    purse.book([100 * GWEI])
    clock.now -= 1800
    assert not isinstance(purse.book([GWEI])[0], Booked)


@given(st.lists(st.tuples(st.floats(0, 2000), st.integers(1, 60)), max_size=100))
def test_no_window_holds_more_than_its_limit(wanted: list[tuple[float, int]]) -> None:
    """Whatever is asked for whenever, no hour and no day exceeds its limit, by more than a slice's blur."""
    clock = Clock()
    purse, spent = spending(clock), []
    for pause, gwei in wanted:
        clock.now += pause
        if isinstance(purse.book([gwei * GWEI])[0], Booked):
            spent.append((clock.now, gwei))
    for start, _ in spent:
        for slices, limit in ((HOUR, PER_HOUR), (DAY, PER_DAY)):
            end = start + (slices - 1) * SLICE
            assert sum(gwei for at, gwei in spent if start <= at < end) <= limit // GWEI
