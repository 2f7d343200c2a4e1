"""What time it is for deleting, by clocks that are right, ahead, behind, alone."""

from __future__ import annotations

import pytest

from chatchain.relay.clocks import OFF_MS, Clocks

NOW = 1_800_000_000_000
DAY_MS = 24 * 3600 * 1000


class World:
    """A process's clock, its watch, and the chain."""

    def __init__(self, off_ms: int = 0) -> None:
        self.true_ms = NOW
        self.off_ms = off_ms
        self.clocks = Clocks(lambda: self.true_ms + self.off_ms, lambda: self.true_ms / 1000)

    def passes(self, ms: int) -> None:
        self.true_ms += ms

    def verdict(self) -> str:
        return self.clocks.verdict

    def block(self) -> None:
        self.clocks.heard(self.true_ms)


def test_nothing_is_deleted_before_anybody_else_says_what_time_it_is() -> None:
    """Neither the chain nor the database has said a word."""
    assert World().clocks.deleting_ms == 0


@pytest.mark.parametrize("off_ms", [0, -5_000])
def test_a_right_clock_goes_on_by_its_watch_while_the_chain_is_quiet(off_ms: int) -> None:
    """For weeks, if need be."""
    world = World(off_ms)
    world.block()
    world.clocks.kept(world.clocks.deleting_ms)
    world.passes(40 * DAY_MS)
    assert abs(world.clocks.deleting_ms - world.true_ms) <= 5_000
    assert world.verdict() == "right"


def test_a_clock_that_jumps_ahead_deletes_nothing_the_sooner() -> None:
    """By the chain, by what was kept, or by both; what the database hears from it is no later."""
    world = World()
    world.block()
    world.clocks.kept(NOW)
    world.passes(1_000)
    world.off_ms = 40 * DAY_MS
    assert world.clocks.deleting_ms == world.true_ms
    assert world.verdict() == "ahead"
    assert world.clocks.ahead_ms == 40 * DAY_MS
    world.off_ms = 0
    assert world.verdict() == "right"


def test_a_start_with_a_clock_ahead_goes_by_the_chain_or_by_what_was_kept() -> None:
    """Whichever is later: the chain may have been quiet, or not have answered yet."""
    world = World(40 * DAY_MS)
    world.clocks.kept(NOW - DAY_MS)
    assert world.clocks.deleting_ms == NOW - DAY_MS
    world.block()
    assert world.clocks.deleting_ms == NOW
    assert world.verdict() == "ahead"


def test_a_block_confirms_that_days_have_passed() -> None:
    """Off for a month with a quiet chain: a doubt until the next block."""
    world = World()
    world.clocks.kept(NOW - 30 * DAY_MS)
    assert world.verdict() == "ahead"
    assert world.clocks.deleting_ms == NOW - 30 * DAY_MS
    world.block()
    assert world.verdict() == "right"
    assert world.clocks.deleting_ms == NOW


def test_a_chain_that_is_ahead_deletes_nothing_the_sooner() -> None:
    """An endpoint may say anything: both must say that it is time. The clock is called behind."""
    world = World()
    world.clocks.heard(NOW + 40 * DAY_MS)
    assert world.clocks.deleting_ms == NOW
    assert world.verdict() == "behind"
    assert world.clocks.ahead_ms == -40 * DAY_MS


@pytest.mark.parametrize(
    ("off_ms", "verdict"), [(OFF_MS, "right"), (OFF_MS + 1, "ahead"), (-OFF_MS - 1, "behind")]
)
def test_a_little_off_is_not_wrong(off_ms: int, verdict: str) -> None:
    """Blocks are a little old, and clocks drift."""
    world = World(off_ms)
    world.block()
    assert world.verdict() == verdict
