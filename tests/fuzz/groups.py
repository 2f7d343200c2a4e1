"""Sender keys: what comes from a group's members, and what a disk gives back."""

from __future__ import annotations

from chatchain.crypto import groups
from chatchain.crypto.groups import Distribution, SenderKeys, SendingChain
from chatchain.errors import (
    BadRecord,
    ForgedMessage,
    LimitReached,
    MissingSenderKey,
    Replayed,
    Undecryptable,
    WrongEpoch,
)
from tests.crypto.talkers import GROUP, NOW, ROSTERS, SENDER, listening, started
from tests.fuzz.target import field, target

CHAIN = started()
KEYS = listening(CHAIN)
_, MESSAGE = groups.encrypt(CHAIN, CHAIN.epoch, b"hello, group")
READING = (ForgedMessage, LimitReached, MissingSenderKey, Replayed, Undecryptable, WrongEpoch)


@target(BadRecord, seeds=[CHAIN.encode(), *field("groups.json", "state_after")])
def sending(data: bytes) -> None:
    """A stored chain."""
    assert SendingChain.decode(data).encode() == data


@target(BadRecord, *READING, seeds=[KEYS.encode()])
def receiving(data: bytes) -> None:
    """A listener's stored keys, and a message for them."""
    keys = SenderKeys.decode(data)
    assert keys.encode() == data
    groups.decrypt(groups.expire(keys, NOW), MESSAGE, b"", NOW)


@target(
    BadRecord, *READING, seeds=[groups.distribution(CHAIN).encode(), *field("groups.json", "distribution")]
)
def distribution(data: bytes) -> None:
    """A group key from a pairwise session."""
    given = Distribution.decode(data)
    assert given.encode() == data
    groups.accept(SenderKeys(GROUP, SENDER), given, ROSTERS, NOW)


@target(*READING, seeds=[MESSAGE, *field("groups.json", "message")])
def message(data: bytes) -> None:
    """A group message; none but the sender's own opens."""
    _, received = groups.decrypt(KEYS, data, b"", NOW)
    assert (data, received.plaintext) == (MESSAGE, b"hello, group")
