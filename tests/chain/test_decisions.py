"""The data of proposals: eth_abi's bytes, read back to the same values, and nothing but None for garbage."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode as oracle_encode
from hypothesis import given
from hypothesis import strategies as st

from chatchain.chain.calls import Calls
from chatchain.chain.decisions import decision_data, read_decision
from chatchain.client.decisions import KIND_OF, sentence
from chatchain.identity.keys import to_checksum
from chatchain.model import (
    Address,
    Decision,
    Kind,
    Policy,
    Reason,
    RelayAddress,
    SetAnchorer,
    SetRelays,
    SetRewards,
    SetRules,
    SetSuccessor,
    SetWitnesses,
)

ADA, BOB = Address(b"\xad" * 20), Address(b"\xb0" * 20)
KEY, NEXT = b"k" * 32, b"n" * 32
RELAY = RelayAddress("relay.example:5555", KEY, NEXT)

CASES: list[tuple[Decision, tuple[str, ...], tuple[object, ...], str]] = [
    (
        SetRules(Policy.VOTE, 6650, 7 * 86_400),
        ("uint8", "uint16", "uint32"),
        (1, 6650, 7 * 86_400),
        "members only send; more than 66.5 % pass a proposal, within 7 days",
    ),
    (
        SetAnchorer(ADA, KEY),
        ("address", "bytes32"),
        (ADA, KEY),
        f"let {to_checksum(ADA)} anchor the log of messages {KEY.hex()}",
    ),
    (
        SetWitnesses(1, (ADA, BOB)),
        ("uint8", "address[]"),
        (1, [ADA, BOB]),
        f"require 1 of 2 witnesses of the log: {to_checksum(ADA)}, {to_checksum(BOB)}",
    ),
    (
        SetRelays((RELAY,)),
        ("(string,bytes32,bytes32)[]",),
        ([("relay.example:5555", KEY, NEXT)],),
        f"use the relays relay.example:5555 with key {KEY.hex()}, then {NEXT.hex()}",
    ),
    (SetRewards(ADA), ("address",), (ADA,), f"let {to_checksum(ADA)} publish who earned rewards"),
    (
        SetSuccessor(ADA),
        ("address",),
        (ADA,),
        f"recommend to go on with the network {to_checksum(ADA)}",
    ),
    (SetSuccessor(None), ("address",), (bytes(20),), "recommend no other network any more"),
]


@pytest.mark.parametrize(("decision", "types", "values", "said"), CASES)
def test_each_kind_is_the_arguments_of_its_function(
    decision: Decision, types: tuple[str, ...], values: tuple[object, ...], said: str
) -> None:
    """The bytes are eth_abi's, they read back to the same decision, and a person is told all of it."""
    kind = KIND_OF[type(decision)]
    data = Calls().decision_data(decision)
    assert data == oracle_encode(types, values)
    assert read_decision(kind, data) == decision
    assert sentence(kind, "", decision, 0) == said


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (Kind.ADMIT, "", "admit eve"),
        (Kind.EXPEL, "spam", "expel eve (spam)"),
        (Kind.PAUSE, "a rogue relay", "pause the network for 7 days (a rogue relay)"),
        (Kind.UNPAUSE, "", "end the network's pause"),
    ],
)
def test_the_other_kinds_carry_a_reason(kind: Kind, text: str, said: str) -> None:
    """Text, and nothing that a contract reads."""
    assert read_decision(kind, decision_data(Reason(text))) == Reason(text)
    assert sentence(kind, "eve" if kind <= Kind.EXPEL else "", Reason(text), 0) == said


@given(st.sampled_from(Kind), st.binary(max_size=300))
def test_garbage_is_none_or_a_decision(kind: Kind, data: bytes) -> None:
    """Anybody may propose anything: whatever stands there is read or called unreadable, and always told."""
    decision = read_decision(kind, data)
    assert decision is None or read_decision(kind, decision_data(decision)) == decision
    assert sentence(kind, "eve", decision, 0)


@pytest.mark.parametrize("kind", [kind for kind in Kind if Kind.SET_RULES <= kind <= Kind.SUCCESSOR])
def test_no_data_are_no_decision(kind: Kind) -> None:
    """What the contract will refuse is not made into something that it would do."""
    assert read_decision(kind, b"") is None
    assert sentence(kind, "", None, 0).endswith("by data that cannot be read")


def test_a_policy_that_does_not_exist_is_no_decision() -> None:
    """An enum is as wide as the contract's."""
    assert read_decision(Kind.SET_RULES, oracle_encode(("uint8", "uint16", "uint32"), (2, 5000, 60))) is None
