"""Buckets, with a clock that the test turns."""

import pytest

from chatchain.relay.limits import REMEMBERED, Bucket, Buckets, Rate


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """Three at once, then one every two seconds; a refusal takes nothing."""
    bucket = Bucket(Rate(burst=3, per_second=0.5), now=0)
    assert [bucket.take(0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(0) == pytest.approx(2)
    assert bucket.take(1) == pytest.approx(1)
    assert bucket.take(2) == 0
    assert bucket.take(2) > 0


def test_what_is_given_back_may_be_taken_again() -> None:
    """Up to a full bucket, and for the key that took it."""
    buckets = Buckets(Rate(burst=2, per_second=0.001))
    assert [buckets.take("a", 0) for _ in range(2)] == [0, 0]
    buckets.give_back("b")
    assert buckets.take("a", 0) > 0
    for _ in range(5):
        buckets.give_back("a")
    assert [buckets.take("a", 0) > 0 for _ in range(3)] == [False, False, True]


def test_more_than_the_burst_waits_for_a_full_bucket_only() -> None:
    """An amount above the burst is not refused for ever."""
    bucket = Bucket(Rate(burst=3, per_second=1), now=0)
    assert bucket.take(0, 10) == 0
    assert 0 < bucket.wait(0, 10) <= 10


def test_keys_do_not_share_a_bucket() -> None:
    """What one key takes leaves the other's alone."""
    buckets = Buckets(Rate(burst=1, per_second=1))
    assert buckets.take("a", 0) == 0
    assert buckets.take("a", 0) > 0
    assert buckets.take("b", 0) == 0


def test_remembered_keys_are_bounded() -> None:
    """However many keys come, memory stays; the one that was quiet longest is forgotten."""
    buckets = Buckets(Rate(burst=1, per_second=0.001))
    for key in range(REMEMBERED + 10):
        buckets.take(key, 0)
    assert len(buckets._buckets) == REMEMBERED
    assert buckets.take(0, 0) == 0
    assert buckets.take(REMEMBERED + 9, 0) > 0
