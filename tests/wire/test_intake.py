"""What all connections together may have sent: bounds that hold for any number of them, and who gives way."""

from __future__ import annotations

import pytest

from chatchain.wire.connection import MAX_FRAME
from chatchain.wire.intake import FOLD, FRAME_GRACE, READ_BYTES, Intake, frame_seconds

READ = 64 * 1024
"""What the kernel queues of one connection, and a relay reads at a time."""

SLOWEST = 2 * 1024
"""Bytes a second of the slowest link that must do."""


class Flood:
    """A connection that always has something to say."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.read = 0
        self.told = 0
        self.gone = False
        intake.enter(self)

    def speak(self, size: int = READ) -> None:
        """Is read from, if it may be."""
        if self.intake.lets(self):
            self.read += size
            self.intake.took(self, size)

    def adjust(self) -> None:
        self.told += 1

    def give_way(self) -> None:
        self.gone = True
        self.intake.leave(self)


@pytest.mark.parametrize("count", [10, 200, 600, 10_000])
@pytest.mark.parametrize("size", [500, READ])
def test_without_a_commit_no_number_of_connections_is_read_beyond_the_bound(count: int, size: int) -> None:
    """However often each of them speaks."""
    intake = Intake()
    crowd = [Flood(intake) for _ in range(count)]
    for _ in range(20):
        for flood in crowd:
            flood.speak(size)
    kept = sum(FOLD * size for flood in crowd if flood.read)
    assert kept == intake.read < READ_BYTES + FOLD * size
    assert intake.shut == (count * FOLD * size >= READ_BYTES)
    assert intake.waiting == sum(not flood.read for flood in crowd)


def test_whoever_has_said_little_may_not_say_much_once_the_bound_is_reached() -> None:
    """Ten thousand words are cheap, and what follows them would not be."""
    intake = Intake()
    crowd = [Flood(intake) for _ in range(10_000)]
    for size in (10, 10_000, READ):
        for flood in crowd:
            flood.speak(size)
    assert intake.shut
    assert intake.read < READ_BYTES + FOLD * READ
    assert intake.waiting == sum(not intake.lets(flood) for flood in crowd) > 9_000


def test_those_who_cost_already_are_read_on_and_a_commit_frees_the_others() -> None:
    """Whoever waits is told to look again, once when it begins and once when it is over."""
    intake = Intake(read=2 * FOLD * READ)
    first, second, third = (Flood(intake) for _ in range(3))
    first.speak()
    second.speak()
    third.speak()
    assert intake.shut
    assert third.read == 0
    first.speak()
    assert first.read == 2 * READ
    assert third.told == 1
    intake.committed()
    assert third.told == 2
    third.speak()
    assert third.read == READ
    assert intake.read == FOLD * READ


def test_one_that_leaves_makes_room_for_nobody_before_a_commit_and_is_forgotten() -> None:
    """What TLS kept of it is given back; a stranger counts for nothing."""
    intake = Intake(read=FOLD * READ)
    flood = Flood(intake)
    flood.speak()
    intake.leave(flood)
    assert intake.read == 0
    flood.speak(READ)
    assert intake.read == 0
    assert intake.lets(flood)
    assert intake.waiting == 0


def test_the_frame_that_began_first_gives_way_and_no_other() -> None:
    """Many who never finish keep out nobody who does."""
    intake = Intake(unfinished=10 * MAX_FRAME)
    trickles = [Flood(intake) for _ in range(600)]
    for place, trickle in enumerate(trickles):
        intake.begun(trickle, MAX_FRAME - 1, anew=True)
        assert intake.unfinished <= 10 * MAX_FRAME
        honest = Flood(intake)
        for size in (1_000, 60_000, 200_000):
            intake.begun(honest, size, anew=size == 1_000)
        intake.finished(honest)
        assert not honest.gone
        intake.leave(honest)
        assert [trickle.gone for trickle in trickles[: place + 1]].count(False) in (9, min(place + 1, 10))
    assert intake.unfinished == sum(MAX_FRAME - 1 for trickle in trickles if not trickle.gone)


def test_a_connection_that_begins_its_next_frame_is_the_last_in_the_row() -> None:
    """Whoever finishes what it begins is not the slowest."""
    intake = Intake(unfinished=250)
    busy, slow, third = (Flood(intake) for _ in range(3))
    intake.begun(busy, 100, anew=True)
    intake.begun(slow, 100, anew=True)
    intake.begun(busy, 100, anew=True)
    intake.begun(third, 100, anew=True)
    assert (busy.gone, slow.gone, third.gone) == (False, True, False)
    assert intake.unfinished == 200


@pytest.mark.parametrize("length", [4, 1_000, 64 * 1024, MAX_FRAME])
def test_the_slowest_link_has_twice_the_time_that_it_needs(length: int) -> None:
    """And nobody holds a frame for longer than five minutes."""
    assert frame_seconds(length) >= FRAME_GRACE + 2 * length / SLOWEST
    assert frame_seconds(length) <= 300
