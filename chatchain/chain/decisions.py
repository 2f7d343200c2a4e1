"""The data of proposals: what a vote would set, as bytes for the contract and back. Pure.

The data of a kind that sets something are the arguments of the function that the deciding vote calls; those
of the others are a reason. Whoever opens a proposal writes its data, so reading them believes nothing: what
the contract would refuse to decode is None, and is to be shown as such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chatchain.chain.encoding import decode, encode
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

_NOBODY: Final = bytes(20)

_TYPES: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.SET_RULES: ("uint8", "uint16", "uint32"),
    Kind.SET_ANCHORER: ("address", "bytes32"),
    Kind.SET_WITNESSES: ("uint8", "address[]"),
    Kind.SET_RELAYS: ("(string,bytes32,bytes32)[]",),
    Kind.SET_REWARDS: ("address",),
    Kind.SUCCESSOR: ("address",),
}


def decision_data(decision: Decision) -> bytes:
    """The data of a proposal that asks for this; raises Malformed for a value that does not fit its field."""
    match decision:
        case Reason(text):
            return text.encode()
        case SetRules(policy, threshold, voting_period):
            return encode(_TYPES[Kind.SET_RULES], (int(policy), threshold, voting_period))
        case SetAnchorer(anchorer, log_id):
            return encode(_TYPES[Kind.SET_ANCHORER], (anchorer, log_id))
        case SetWitnesses(quorum, witnesses):
            return encode(_TYPES[Kind.SET_WITNESSES], (quorum, list(witnesses)))
        case SetRelays(relays):
            words = [(relay.endpoint, relay.spki, relay.next_spki) for relay in relays]
            return encode(_TYPES[Kind.SET_RELAYS], (words,))
        case SetRewards(setter):
            return encode(_TYPES[Kind.SET_REWARDS], (setter,))
        case SetSuccessor(directory):
            return encode(_TYPES[Kind.SUCCESSOR], (directory or _NOBODY,))


def _successor(directory: bytes) -> SetSuccessor:
    return SetSuccessor(None if directory == _NOBODY else Address(directory))


_READERS: Final[dict[Kind, Callable[..., Decision]]] = {
    Kind.SET_RULES: lambda policy, threshold, period: SetRules(Policy(policy), threshold, period),
    Kind.SET_ANCHORER: lambda anchorer, log_id: SetAnchorer(Address(anchorer), log_id),
    Kind.SET_WITNESSES: lambda quorum, witnesses: SetWitnesses(quorum, tuple(map(Address, witnesses))),
    Kind.SET_RELAYS: lambda relays: SetRelays(tuple(RelayAddress(*relay) for relay in relays)),
    Kind.SET_REWARDS: lambda setter: SetRewards(Address(setter)),
    Kind.SUCCESSOR: _successor,
}


def read_decision(kind: Kind, data: bytes) -> Decision | None:
    """What a proposal of this kind asks for; None for data that no contract of ours would carry out."""
    types = _TYPES.get(kind)
    try:
        if types is None:
            return Reason(data.decode())
        values: tuple[Any, ...] = decode(types, data)
        return _READERS[kind](*values)
    except ValueError:  # malformed, a policy that does not exist, or a reason that is no text
        return None
