"""Buckets, with a clock that the test turns."""

import re
from pathlib import Path
from typing import Final

import pytest

from chatchain.config import LIMITS
from chatchain.relay.allowance import (
    ACCOUNT_PAIRS,
    KNOWN_LOOKUPS,
    REMEMBERED_PAIRS,
    SHUT_SECONDS,
    Allowance,
    Lookups,
    Pace,
    Paces,
    Pairs,
    allowance_of,
)
from chatchain.relay.blobs import BlobLimits
from chatchain.relay.limits import REMEMBERED, Bucket, Buckets, Rate, milliseconds
from chatchain.relay.quota import Quota
from chatchain.wire.bounds import MAX_RETRY_MS

ROOT: Final = Path(__file__).parents[2]


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """Three at once, then one every two seconds; a refusal takes nothing."""
    bucket = Bucket(Rate(burst=3, per_second=0.5), now=0)
    assert [bucket.take(0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(0) == pytest.approx(2)
    assert bucket.take(1) == pytest.approx(1)
    assert bucket.take(2) == 0
    assert bucket.take(2) > 0


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    """However long it was left alone, and however much is given back."""
    rate = Rate(burst=2, per_second=1)
    idle, given = Bucket(rate, now=-1_000), Bucket(rate, now=0)
    assert all(given.give_back() for _ in range(5)), "it is full each time"
    for bucket in (idle, given):
        assert [bucket.take(0) > 0 for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 1), (0.000_1, 1), (0.5, 501), (60.0, 60_001)])
def test_a_wait_is_never_told_as_nothing(seconds: float, told: int) -> None:
    """Which would mean not to try again; nor is it told as less than it is."""
    assert milliseconds(seconds) == told


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
    buckets = Buckets(Rate(burst=1, per_second=0.001))
    assert buckets.take("busy", 0) == 0
    for key in range(REMEMBERED + 10):
        buckets.take(key, 0)
        assert buckets.take("busy", 0) > 0, "who goes on and on is not forgotten for it"


# --- what a relay allows ------------------------------------------------------------------------------------


def test_every_limit_can_be_set_by_its_name() -> None:
    """Each name changes something, and nothing else is changed with it."""
    plain = allowance_of({})
    assert plain == Allowance()
    for name in LIMITS:
        assert allowance_of({name: 7}) != plain, name
    assert allowance_of({"messages_per_second": 50}).messages == Rate(2_000, 50)
    assert allowance_of({"message_burst": 9}).messages == Rate(9, 500)
    assert allowance_of({"logins_per_minute": 60}).logins == Rate(60, 1)
    assert allowance_of({"lookups": 3, "lookup_minutes": 1}).lookups == Rate(3, 1 / 60)
    assert allowance_of({"prekeys": 3, "prekey_minutes": 1}).prekeys == Rate(3, 1 / 60)
    assert allowance_of({"prekey_minutes": 1}).prekeys == Rate(6, 1 / 60)
    assert allowance_of({"key_requests_per_second": 2, "key_request_burst": 9}).key_requests == Rate(9, 2)
    assert allowance_of({"file_requests_per_second": 2}).file_requests == Rate(200, 2)
    files = allowance_of({"files": 3, "files_mib": 2, "files_mib_per_day": 1, "files_days": 5}).files
    assert files == BlobLimits(count=3, bytes=2**21, per_day=2**20, kept_ms=5 * 24 * 3_600_000)
    assert allowance_of({"mailbox_mib": 2, "sender_messages": 5}).quota == Quota(bytes=2**21, sender_rows=5)


def test_the_usual_limits_are_those_that_people_are_promised() -> None:
    """Of one account; what the relay's makers said before it was built."""
    usual = allowance_of({})
    assert usual.messages == Rate(burst=2_000, per_second=500)
    assert usual.logins == Rate(burst=120, per_second=120 / 60)
    assert usual.failed_logins == Rate(burst=5, per_second=5 / 60)
    assert usual.lookups == Rate(burst=100, per_second=1 / (15 * 60))
    assert usual.prekeys == Rate(burst=6, per_second=1 / (10 * 60))


def test_every_limit_is_named_with_its_usual_value_where_people_set_it() -> None:
    """In .env.example; docs/operations.md says what each is for."""
    example, operations = (ROOT / ".env.example").read_text(), (ROOT / "docs/operations.md").read_text()
    usual = {name: int(number) for name, number in re.findall(r"\b([a-z_]+)=(\d+)", example)}
    for name in LIMITS:
        if name != "address_failed_logins_per_minute":  # which sets how many at once as well
            assert allowance_of({name: usual[name]}) == Allowance(), name
        assert name in usual
        assert f"`{name}`" in operations, name


def test_a_pace_once_overrun_stays_shut_for_a_while() -> None:
    """However soon a token is there again; then it goes on."""
    pace = Pace(Rate(2, 100), 0.0)
    assert [pace.take(0.0) for _ in range(3)] == [0.0, 0.0, SHUT_SECONDS]
    assert pace.take(0.5) == SHUT_SECONDS - 0.5
    assert pace.take(SHUT_SECONDS) == 0.0


def test_accounts_have_a_pace_each_and_memory_is_bounded() -> None:
    """The same for all of an account's sessions."""
    paces = Paces(Rate(1, 1))
    first = paces.of(1, 0.0)
    assert paces.of(1, 5.0) is first
    for uid in range(2, REMEMBERED + 2):
        paces.of(uid, 0.0)
    assert paces.of(1, 0.0) is not first
    assert len(paces._paces) == REMEMBERED


def test_lookups_count_strangers_once() -> None:
    """Oneself never; and what was refused was not looked up."""
    lookups = Lookups(Rate(3, 0.5))
    assert lookups.take(1, (1, 2, 3), 0.0) == 0.0
    assert lookups.take(1, (2, 3), 0.0) == 0.0
    assert lookups.take(1, (4, 5), 0.0) == 2.0
    assert lookups.take(1, (4,), 0.0) == 0.0
    assert lookups.take(1, (5,), 0.0) == 2.0
    assert lookups.take(2, (5,), 0.0) == 0.0


def test_whom_one_account_knows_is_bounded() -> None:
    """The earliest are strangers again."""
    lookups = Lookups(Rate(2 * KNOWN_LOOKUPS, 0.001))
    for other in range(2, KNOWN_LOOKUPS + 7):
        assert lookups.take(1, (other,), 0.0) == 0.0
    assert len(lookups._lookers[1].known) == KNOWN_LOOKUPS


def test_nobody_makes_the_relay_forget_what_he_has_fetched() -> None:
    """Who fetches of very many has to wait, until what he fetched first counts no more."""
    pairs = Pairs(Rate(2, 0.01))
    ada, eve = (1, 1), (2, 1)
    assert [pairs.take(ada, [(7, 1)], 0.0) for _ in range(2)] == [{}, {}]
    others = [(other, 1) for other in range(100, 100 + ACCOUNT_PAIRS - 1)]
    assert pairs.take(ada, others, 0.0) == {}
    assert pairs.take(ada, [(99, 1)], 0.0)[99, 1] > 0
    assert pairs.take(ada, [(7, 1)], 0.0)[7, 1] > 0
    assert pairs.take(ada, [others[0], (99, 1)], 0.0).keys() == {(99, 1)}, "those that count go on"
    assert pairs.take(eve, [(7, 1)], 0.0) == {}, "others are not concerned"
    assert pairs.take(ada, [(99, 1)], 200.0) == {}
    assert pairs._count == 2


def test_pairs_are_bounded_over_all_accounts() -> None:
    """The account that was quiet longest is forgotten."""
    pairs = Pairs(Rate(1, 0.001))
    for uid in range(REMEMBERED_PAIRS // 1_000 + 5):
        for other in range(100):
            assert pairs.take((uid, 1), [(other, device) for device in range(1, 11)], 0.0) == {}
    assert pairs._count == sum(len(beginner.pairs) for beginner in pairs._beginners.values())
    assert pairs._count <= REMEMBERED_PAIRS
    assert pairs.take((0, 1), [(0, 1)], 0.0) == {}
    assert pairs.take((REMEMBERED_PAIRS // 1_000 + 4, 1), [(0, 1)], 0.0)[0, 1] > 0


def test_a_wait_is_told_as_the_wire_bears_it() -> None:
    """Never 0, and never so long that the client takes it for a violation and hangs up."""
    assert [milliseconds(seconds) for seconds in (0, 1.5, 1e9)] == [1, 1501, MAX_RETRY_MS]
