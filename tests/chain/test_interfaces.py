"""Signatures that stand in our sources as text, held against the ABIs that the compiler wrote."""

from __future__ import annotations

from typing import Any

import pytest

from chatchain.chain import calls
from chatchain.chain.artifacts import CONTRACTS, artifact, code
from chatchain.chain.encoding import encode
from chatchain.chain.events import SIGNATURES
from chatchain.chain.reverts import FAILURES, explain, revert_data
from chatchain.errors import ChainError, ChatchainError, Reverted
from chatchain.identity.keys import keccak256
from chatchain.model import Address, Call, Network, ProposalId

TOKEN = "RewardToken"  # an ERC-20 for wallets: we neither follow nor call it
SOURCES = dict(enumerate(name for name in CONTRACTS if name != TOKEN))  # as LogRow.source numbers them
ROOMS = {
    "Directory": "directory",
    "IdentityRegistry": "identity",
    "Membership": "membership",
    "MessageLedger": "ledger",
    "RewardDistributor": "rewards",
}


def spelled(parameter: dict[str, Any]) -> str:
    """A parameter's type as signatures write it."""
    kind = str(parameter["type"])
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(spelled(part) for part in parameter['components'])}){kind.removeprefix('tuple')}"


def signature(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(spelled(parameter) for parameter in entry['inputs'])})"


def entries(contract: str, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in artifact(contract).abi if entry["type"] == kind]


def test_every_event_of_the_contracts_is_understood() -> None:
    """No event is missing, none is made up."""
    declared = {
        (number, signature(event)) for number, name in SOURCES.items() for event in entries(name, "event")
    }
    assert set(SIGNATURES) == declared


def test_every_verb_has_a_call_and_every_call_a_verb() -> None:
    """What changes state is exactly what Calls builds."""
    declared = {
        (ROOMS[name], signature(function))
        for name in SOURCES.values()
        for function in entries(name, "function")
        if function["stateMutability"] not in {"view", "pure"}
    }
    assert {(verb.contract, verb.signature) for verb in calls.VERBS} == declared


def test_views_match_the_contracts() -> None:
    """Each view exists and returns what we decode."""
    declared = {
        (ROOMS[name], signature(function)): tuple(spelled(output) for output in function["outputs"])
        for name in SOURCES.values()
        for function in entries(name, "function")
    }
    for view in calls.VIEWS:
        assert declared[view.contract, view.signature] == view.returns


def test_every_error_of_the_contracts_has_a_sentence() -> None:
    """Each custom error becomes a failure that tells a person what happened, with its values."""
    examples = {"string": "ada", "address": bytes(range(20)), "bytes32": bytes(32), "bool": True}
    for name in CONTRACTS:
        for error in entries(name, "error"):
            assert signature(error) in FAILURES
            types = tuple(spelled(parameter) for parameter in error["inputs"])
            values = [examples.get(kind, 4) for kind in types]
            failure = explain(keccak256(signature(error).encode())[:4] + encode(types, values))
            assert isinstance(failure, ChatchainError)
            assert type(failure) is not ChatchainError
            assert failure.message[0].isupper() or failure.message.startswith(("'ada'", "0x"))
            assert failure.message.rstrip().endswith(".")
            assert "{" not in failure.message


def test_no_sentence_is_left_over() -> None:
    """Besides the ABIs' errors the table holds only Solidity's own two."""
    declared = {signature(error) for name in CONTRACTS for error in entries(name, "error")}
    assert set(FAILURES) - declared == {"Error(string)", "Panic(uint256)"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "without giving a reason"),
        (b"\x01\x02\x03\x04rest", "does not know (0x01020304"),
        (keccak256(b"AlreadyVoted(uint64,uint64)")[:4] + b"short", "does not know"),
        (keccak256(b"Error(string)")[:4] + encode(("string",), ("too bad",)), "too bad"),
        (keccak256(b"Panic(uint256)")[:4] + encode(("uint256",), (0x11,)), "0x11"),
    ],
)
def test_unknown_revert_data_is_told_and_not_hidden(data: bytes, said: str) -> None:
    """What we cannot read is shown as it came."""
    failure = explain(data)
    assert isinstance(failure, Reverted)
    assert said in failure.message


@pytest.mark.parametrize(
    ("told", "data"),
    [
        ("0x01ff", b"\x01\xff"),
        ({"data": "0x01ff", "message": "revert"}, b"\x01\xff"),
        ({"hash": "0x00", "result": "0x01ff"}, b"\x01\xff"),
        ("Reverted 0x01ff", b"\x01\xff"),
        (None, None),
        ("no hex", None),
        ({}, None),
        (7, None),
    ],
)
def test_revert_data_is_found_in_every_wrapping(told: object, data: bytes | None) -> None:
    """Anvil's, geth's and Ganache's ways of reporting a revert."""
    assert revert_data(told) == data


def test_a_call_tells_its_verb_and_arguments() -> None:
    """A sponsor can see what it is asked to pay for."""
    call = calls.Calls().vote_by_sig(ProposalId(3), True, Address(bytes(20)), b"s" * 65)
    assert calls.verb(call) == "voteBySig"
    assert calls.arguments(call) == (3, True, bytes(20), b"s" * 65)
    assert calls.verb(Call("identity", call.data)) == ""
    with pytest.raises(ChainError):
        calls.arguments(Call("identity", call.data))
    with pytest.raises(ChainError):
        calls.arguments(Call("membership", call.data[:-40]))


def test_only_the_networks_contracts_are_addressed() -> None:
    """A call cannot name another address."""
    network = Network(1, *(Address(letter * 20) for letter in (b"d", b"r", b"m", b"l", b"w")))
    assert calls.address_in(network, "identity") == b"r" * 20
    assert calls.address_in(network, "membership") == b"m" * 20
    assert calls.address_in(network, "directory") == b"d" * 20
    assert calls.address_in(network, "ledger") == b"l" * 20
    assert calls.address_in(network, "rewards") == b"w" * 20
    with pytest.raises(ChainError):
        calls.address_in(network, "0x" + "11" * 20)


def test_code_matches_only_outside_its_immutables() -> None:
    """A flipped byte of code is noticed, a filled-in immutable is not."""
    for name in CONTRACTS:
        blank = bytes.fromhex(code(name).runtime.removeprefix("0x"))
        filled = bytearray(blank)
        for start, length in code(name).immutables:
            filled[start : start + length] = b"\xaa" * length
        assert code(name).matches(bytes(filled))
        filled[0] ^= 1
        assert not code(name).matches(bytes(filled))
        assert not code(name).matches(blank[:-1])
        assert not code(name).matches(b"")
