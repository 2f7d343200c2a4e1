"""What the contracts' calls cost is written down, and a change of it is a change that somebody meant."""

import json

import pytest

from benchmarks.gas import ROOT, snapshot

SNAPSHOT = ROOT / "contracts" / "snapshots" / "gas.json"
AIMS = {
    "register": 205_000,
    "register_for": 230_000,
    "update_device": 50_000,
    "vote": 46_000,
    "vote_by_sig": 52_000,
    "vote_batch_27": 540_000,
    "anchor": 58_000,
    "claim_later": 53_000,
    "claim_later_of_1000": 53_000,
}


def test_every_call_costs_what_the_snapshot_says() -> None:
    """To the unit of gas; `make snapshots` writes a new one."""
    assert snapshot() == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize("case", AIMS)
def test_the_calls_that_people_make_most_stay_below_their_limits(case: str) -> None:
    """A limit is part of the promise; the snapshot alone could creep up."""
    assert json.loads(SNAPSHOT.read_text())[case] <= AIMS[case]
