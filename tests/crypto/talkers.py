"""Devices of a group with fixed ids, and short words for what they do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from chatchain.crypto import groups
from chatchain.crypto.groups import GroupEpoch, Listener, Sender, SenderKeys, SendingChain
from tests.identity.people import NETWORK, uid_of

NOW = 1_700_000_000
GROUP = groups.group_id(NETWORK, 7)
ADA, BOB, CAROL, DAVE, EVE = (Listener(uid_of(name), 1, 0) for name in ("ada", "bob", "carol", "dave", "eve"))
SENDER = Sender(ADA.uid, ADA.device)


def roster_hash(epoch: int) -> bytes:
    """A roster's hash, another one for each epoch."""
    return hashlib.sha256(b"roster" + epoch.to_bytes(8, "big")).digest()


def at(epoch: int) -> GroupEpoch:
    """The group at an epoch."""
    return GroupEpoch(GROUP, epoch, roster_hash(epoch))


ROSTERS = {epoch: roster_hash(epoch) for epoch in range(1, 20)}


def started(
    epoch: int = 1, audience: Iterable[Listener] = (BOB,), now: int = NOW, after: SendingChain | None = None
) -> SendingChain:
    """A new chain of Ada's."""
    return groups.start(at(epoch), SENDER, audience, now, after)


def listening(*chains: SendingChain, now: int = NOW) -> SenderKeys:
    """What a listener holds who was given these chains as they stand."""
    keys = SenderKeys(GROUP, SENDER)
    for chain in chains:
        keys = groups.accept(keys, groups.distribution(chain), ROSTERS, now)
    return keys


def said(chain: SendingChain, count: int, associated: bytes = b"") -> tuple[SendingChain, list[bytes]]:
    """The chain after so many messages, and these: "message 0" and so on."""
    messages = []
    for _ in range(count):
        chain, message = groups.encrypt(chain, chain.epoch, f"message {chain.index}".encode(), associated)
        messages.append(message)
    return chain, messages
