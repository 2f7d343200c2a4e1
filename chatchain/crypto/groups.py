"""Sender keys: each device of a group encrypts once, and every other device of the group reads it.

A device draws a chain: a chain key, from which each message's key is derived by HMAC and then forgotten, and
an Ed25519 key that signs what is sent under it. Both travel as a `Distribution` inside of the pairwise
sessions, so a listener knows whose chain it is; from then on one ciphertext serves all. Who holds a chain
can read on, not back, and cannot write: only the sender has the signing key.

The rules:

- A chain belongs to one group, epoch and roster hash and to one sender; all of it is in the additional data
  of each message and under its signature. A message moved elsewhere does not open.
- A chain ends when somebody who has it must not read on (`rotation_due`), after 7 days, and after 1,000
  messages; the next one is drawn afresh, so a removed member has nothing to derive it from.
- Each message opens once: below its chain's next index there are only the keys of messages that were skipped.
- Chains of one sender are ordered by (epoch, generation), and that order is never walked backwards.
- A message's key is committed to, so one ciphertext cannot say different things to different listeners.
- A state is a frozen value; `encrypt` and `decrypt` give a new one, and what fails leaves the old one as it
  was. The caller stores the new state in the transaction in which it stores the message, before anything
  leaves.

Groups of up to `PAIRWISE_UP_TO` devices are better served by the pairwise sessions, which heal with every
reply; choosing is the caller's business, as is padding. Byte layouts: docs/protocol.md.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from chatchain.crypto.padding import MAX_PADDED
from chatchain.errors import (
    BadRecord,
    ForgedMessage,
    MissingSenderKey,
    Replayed,
    TooLarge,
    Undecryptable,
    WrongEpoch,
)
from chatchain.identity import ed25519
from chatchain.model import Network

PAIRWISE_UP_TO: Final = 8
"""Members up to whom a group's messages go through the pairwise sessions instead."""

MAX_CHAIN_MESSAGES: Final = 1000
"""Messages of one chain, refused above by both sides; so no message makes a listener skip more."""

MAX_CHAIN_SECONDS: Final = 7 * 24 * 3600
"""How long a chain is sent on: what a thief of its key reads at most."""

MAX_KEPT: Final = 2000
"""Keys of skipped messages kept of one sender in a group, the newest ones."""

KEPT_SECONDS: Final = 30 * 24 * 3600
"""How long the key of a skipped message, or a chain that a newer one replaced, is kept."""

MAX_CHAINS: Final = 5
"""Chains kept of one sender, the newest ones: late messages of the others are lost."""

GROUP_BYTES: Final = 32
ROSTER_HASH_BYTES: Final = 32

_FORMAT: Final = 1
_KEY: Final = 32
_TAG: Final = 16
_ZERO_NONCE: Final = bytes(12)

_GROUP_LABEL: Final = b"chatchain/2 group"
_BODY_LABEL: Final = b"chatchain/2 group body"
_SIGNATURE_LABEL: Final = b"chatchain/2 group message"
_KEYS_LABEL: Final = b"chatchain/2 group keys"
_MESSAGE_STEP: Final = b"\x01"
_CHAIN_STEP: Final = b"\x02"

_GROUP: Final = struct.Struct(">Q20sI")
_PLACE: Final = struct.Struct(">32sQ32sQIII")
_HEADER: Final = struct.Struct(">BQII32s")
_DISTRIBUTION: Final = struct.Struct(">B32sQ32sIII32s32s")
_LISTENER: Final = struct.Struct(">QII")
_SENDING: Final = struct.Struct(">B32sQ32sQIIIIQ32s32sI")
_RECEIVING: Final = struct.Struct(">B32sQIQIB")
_CHAIN: Final = struct.Struct(">Q32sIIIIQ32s32sH")
_SKIPPED: Final = struct.Struct(">IQ32s")

OVERHEAD_BYTES: Final = _HEADER.size + _TAG + ed25519.SIGNATURE_BYTES
MAX_MESSAGE_BYTES: Final = OVERHEAD_BYTES + MAX_PADDED
DISTRIBUTION_BYTES: Final = _DISTRIBUTION.size


def group_id(network: Network, group: int) -> bytes:
    """Gives the 32 bytes that stand for a group of the Membership contract; other groups draw theirs."""
    return hashlib.sha256(_GROUP_LABEL + _GROUP.pack(network.chain_id, network.membership, group)).digest()


class GroupEpoch(msgspec.Struct, frozen=True):
    """One state of a group's roster: its id (32 bytes), epoch and roster hash (32 bytes)."""

    group: bytes
    epoch: int
    roster_hash: bytes

    def __post_init__(self) -> None:
        if len(self.group) != GROUP_BYTES or len(self.roster_hash) != ROSTER_HASH_BYTES:
            raise ValueError("a group's id and its roster hash have 32 bytes")


class Sender(msgspec.Struct, frozen=True):
    """The device that sends a chain."""

    uid: int
    device: int


class Listener(msgspec.Struct, frozen=True):
    """A device that a chain was given to; `epoch` is its user's, which rises with each recovery."""

    uid: int
    device: int
    epoch: int


class Rotation(StrEnum):
    """Why the next message needs a new chain."""

    FIRST = "first"
    ROSTER = "roster"
    """The group's epoch or roster hash is another one: a vote passed."""
    LISTENER = "listener"
    """A device that has the chain must not read on: removed, revoked, or its user was recovered."""
    ASKED = "asked"
    AGE = "age"
    COUNT = "count"


class Distribution(msgspec.Struct, frozen=True):
    """What lets a listener read a chain from `index` on; travels inside of a pairwise session only.

    `previous` is how many messages the sender's generation before this one has: no more will come.
    """

    epoch: GroupEpoch
    generation: int
    index: int
    previous: int
    chain_key: bytes
    public: bytes

    def __repr__(self) -> str:
        return f"Distribution(epoch={self.epoch.epoch}, generation={self.generation}, index={self.index})"

    def encode(self) -> bytes:
        """Gives the 149 bytes that travel."""
        place = self.epoch
        return _DISTRIBUTION.pack(
            _FORMAT,
            place.group,
            place.epoch,
            place.roster_hash,
            self.generation,
            self.index,
            self.previous,
            self.chain_key,
            self.public,
        )

    @classmethod
    def decode(cls, data: bytes) -> Distribution:
        """Reads what `encode` wrote; raises Undecryptable."""
        if len(data) != DISTRIBUTION_BYTES or data[0] != _FORMAT:
            raise Undecryptable("The group key is malformed.")
        _, group, epoch, roster_hash, generation, index, previous, chain_key, public = _DISTRIBUTION.unpack(
            data
        )
        if index > MAX_CHAIN_MESSAGES or previous > MAX_CHAIN_MESSAGES:
            raise Undecryptable("The group key is for more messages than a chain has.")
        return cls(GroupEpoch(group, epoch, roster_hash), generation, index, previous, chain_key, public)


class SendingChain(msgspec.Struct, frozen=True):
    """This device's chain in one group: what it encrypts with, and who was given it.

    `listeners` are these devices as they are stored: 16 bytes each, in order, none twice.
    """

    epoch: GroupEpoch
    sender: Sender
    generation: int
    index: int
    previous: int
    started: int
    chain_key: bytes
    signing_secret: bytes
    listeners: bytes

    def __repr__(self) -> str:
        return f"SendingChain(epoch={self.epoch.epoch}, generation={self.generation}, index={self.index})"

    @property
    def audience(self) -> frozenset[Listener]:
        """The devices that were given this chain."""
        return frozenset(Listener(*fields) for fields in _LISTENER.iter_unpack(self.listeners))

    def encode(self) -> bytes:
        """Gives the state for the encrypted database; a secret."""
        head = _SENDING.pack(
            _FORMAT,
            self.epoch.group,
            self.epoch.epoch,
            self.epoch.roster_hash,
            self.sender.uid,
            self.sender.device,
            self.generation,
            self.index,
            self.previous,
            self.started,
            self.chain_key,
            self.signing_secret,
            len(self.listeners) // _LISTENER.size,
        )
        return head + self.listeners

    @classmethod
    def decode(cls, data: bytes) -> SendingChain:
        """Reads what `encode` wrote; raises BadRecord."""
        if len(data) < _SENDING.size or data[0] != _FORMAT:
            raise BadRecord("The stored group key is damaged.")
        _, group, epoch, roster_hash, uid, device, *numbers, chain_key, secret, count = _SENDING.unpack_from(
            data
        )
        generation, index, previous, started = numbers
        listeners = data[_SENDING.size :]
        found = cls(
            GroupEpoch(group, epoch, roster_hash),
            Sender(uid, device),
            generation=generation,
            index=index,
            previous=previous,
            started=started,
            chain_key=chain_key,
            signing_secret=secret,
            listeners=listeners,
        )
        if (
            len(listeners) != count * _LISTENER.size
            or _packed(found.audience) != listeners
            or max(index, previous) > MAX_CHAIN_MESSAGES
        ):
            raise BadRecord("The stored group key is damaged.")
        return found


def start(
    epoch: GroupEpoch,
    sender: Sender,
    audience: Iterable[Listener],
    now: int,
    after: SendingChain | None = None,
) -> SendingChain:
    """Draws a new chain for these listeners, in place of `after`; `now` in Unix seconds.

    Each of them is then sent its `distribution`. Raises WrongEpoch when the epoch is behind that of `after`.
    """
    if after is not None:
        if (after.epoch.group, after.sender) != (epoch.group, sender):
            raise ValueError("a chain follows one of the same sender in the same group")
        if epoch.epoch < after.epoch.epoch:
            raise WrongEpoch(
                f"The group is said to be at epoch {epoch.epoch}, "
                f"but this device has already sent at {after.epoch.epoch}."
            )
    return SendingChain(
        epoch,
        sender,
        generation=after.generation + 1 if after else 1,
        index=0,
        previous=after.index if after else 0,
        started=now,
        chain_key=os.urandom(_KEY),
        signing_secret=os.urandom(_KEY),
        listeners=_packed(audience),
    )


def newcomers(chain: SendingChain, audience: Iterable[Listener]) -> tuple[Listener, ...]:
    """Gives those who must be sent the `distribution` before the next message; then `admit` them."""
    return tuple(sorted(set(audience) - chain.audience, key=msgspec.structs.astuple))


def admit(chain: SendingChain, listeners: Iterable[Listener]) -> SendingChain:
    """Notes that these are sent the chain as it stands; they read nothing of before."""
    return msgspec.structs.replace(chain, listeners=_packed(chain.audience | set(listeners)))


def distribution(chain: SendingChain) -> Distribution:
    """Gives what lets a listener read from the next message on."""
    public, _ = _signing_keys(chain.signing_secret)
    return Distribution(chain.epoch, chain.generation, chain.index, chain.previous, chain.chain_key, public)


def encrypt(
    chain: SendingChain, epoch: GroupEpoch, plaintext: bytes, associated: bytes = b""
) -> tuple[SendingChain, bytes]:
    """Encrypts one (padded) plaintext for all listeners; gives the chain after it and the message.

    `epoch` is the group's as the chain says now; `associated` is bound and not sent. Raises WrongEpoch when
    the chain belongs to another epoch, TooLarge for more than the largest bucket.
    """
    if epoch != chain.epoch:
        raise WrongEpoch(
            f"The group is at epoch {epoch.epoch}; the key is of {chain.epoch.epoch}.",
            "A new key is sent with the next message.",
        )
    if chain.index >= MAX_CHAIN_MESSAGES:
        raise ValueError("the chain has ended: start the next one first")
    if len(plaintext) > MAX_PADDED:
        raise TooLarge(f"The message has {len(plaintext)} bytes; {MAX_PADDED} fit.")
    key, commitment = _message_keys(_message_seed(chain.chain_key))
    additional = _additional(epoch, chain.sender, chain.generation, chain.index, associated)
    # The key is derived for this one message and forgotten, so a fixed nonce never meets it twice.
    sealed = AESGCM(key).encrypt(_ZERO_NONCE, plaintext, additional)
    _, signing_key = _signing_keys(chain.signing_secret)
    signature = crypto_sign(_signed(additional, commitment, sealed), signing_key)[: ed25519.SIGNATURE_BYTES]
    header = _HEADER.pack(_FORMAT, epoch.epoch, chain.generation, chain.index, commitment)
    stepped = msgspec.structs.replace(
        chain, index=chain.index + 1, chain_key=_next_chain_key(chain.chain_key)
    )
    return stepped, header + sealed + signature


def rotation_due(
    chain: SendingChain | None,
    epoch: GroupEpoch,
    audience: Iterable[Listener],
    now: int,
    *,
    asked: bool = False,
) -> Rotation | None:
    """Says why the next message needs a new chain, or None when this one goes on.

    `audience` are the devices that may read now: of the members and of the sender itself. Comparing them
    with those who were given the chain finds every removal, revocation and recovery, also those that happened
    while this program did not run. `asked` is for what the roster does not show, such as a vote on the rules.
    """
    if chain is None:
        return Rotation.FIRST
    if chain.epoch != epoch:
        return Rotation.ROSTER
    if chain.audience - set(audience):
        return Rotation.LISTENER
    if asked:
        return Rotation.ASKED
    if now - chain.started >= MAX_CHAIN_SECONDS:
        return Rotation.AGE
    if chain.index >= MAX_CHAIN_MESSAGES:
        return Rotation.COUNT
    return None


class Received(msgspec.Struct, frozen=True):
    """A group message that was opened, and where it stands among its sender's."""

    plaintext: bytes
    epoch: GroupEpoch
    generation: int
    index: int


class ReceivingChain(msgspec.Struct, frozen=True):
    """One chain as a listener holds it.

    It was given from `first` on, has stepped to `next`, and has no message from `end` on. `skipped` holds, by
    index, when a message was skipped and what its keys are derived from. `retired` is when a newer chain took
    over (0 = in use).
    """

    epoch: GroupEpoch
    generation: int
    first: int
    next: int
    end: int
    retired: int
    chain_key: bytes
    public: bytes
    skipped: Mapping[int, tuple[int, bytes]]

    def __repr__(self) -> str:
        return f"ReceivingChain(epoch={self.epoch.epoch}, generation={self.generation}, next={self.next})"

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among the chains of its sender."""
        return self.epoch.epoch, self.generation


class SenderKeys(msgspec.Struct, frozen=True):
    """What this device holds of one sender in one group: its newest chains, oldest first.

    `newest` is the place of the newest one ever held. The caller drops the whole of it when the sender is no
    longer a member, or its device is revoked.
    """

    group: bytes
    sender: Sender
    newest: tuple[int, int] = (0, 0)
    chains: tuple[ReceivingChain, ...] = ()

    @property
    def kept(self) -> int:
        """How many keys of skipped messages are held."""
        return sum(len(chain.skipped) for chain in self.chains)

    def encode(self) -> bytes:
        """Gives the state for the encrypted database; a secret."""
        head = _RECEIVING.pack(
            _FORMAT, self.group, self.sender.uid, self.sender.device, *self.newest, len(self.chains)
        )
        return head + b"".join(_encoded(chain) for chain in self.chains)

    @classmethod
    def decode(cls, data: bytes) -> SenderKeys:
        """Reads what `encode` wrote; raises BadRecord."""
        if len(data) < _RECEIVING.size or data[0] != _FORMAT:
            raise BadRecord("The stored group keys are damaged.")
        _, group, uid, device, epoch, generation, count = _RECEIVING.unpack_from(data)
        chains: list[ReceivingChain] = []
        at = _RECEIVING.size
        try:
            for _ in range(count):
                chain, at = _decoded(group, data, at)
                chains.append(chain)
        except (struct.error, ValueError) as exc:
            raise BadRecord("The stored group keys are damaged.") from exc
        places = [chain.place for chain in chains]
        ordered = all(older < newer for older, newer in pairwise(places))
        if (
            at != len(data)
            or count > MAX_CHAINS
            or not ordered
            or any(p > (epoch, generation) for p in places)
        ):
            raise BadRecord("The stored group keys are damaged.")
        return cls(group, Sender(uid, device), (epoch, generation), tuple(chains))


def accept(keys: SenderKeys, given: Distribution, rosters: Mapping[int, bytes], now: int) -> SenderKeys:
    """Takes a chain that this sender gave through its pairwise session; one held already changes nothing.

    `rosters` are the roster hashes that count by the chain, by epoch: the current one, and those before it
    whose late messages the caller still wants. Raises WrongEpoch for a roster that is not among them and for
    a step backwards, ForgedMessage for another chain under the same number or an unsafe key.
    """
    place = (given.epoch.epoch, given.generation)
    if given.epoch.group != keys.group:
        raise ForgedMessage("The group key is for another group.")
    if rosters.get(given.epoch.epoch) != given.epoch.roster_hash:
        raise WrongEpoch(f"The group key is for a roster (epoch {place[0]}) that the chain does not confirm.")
    if not ed25519.is_valid_key(given.public):
        raise ForgedMessage("The group key's signing key is not a safe point.")
    held = _find(keys, place)
    if held is not None:
        if held.public != given.public:
            raise ForgedMessage("The sender gives two different group keys under one number.")
        return keys
    if place <= keys.newest:
        raise WrongEpoch(
            f"The group key (epoch {place[0]}, generation {place[1]}) is older than one that came before."
        )
    added = ReceivingChain(
        given.epoch,
        given.generation,
        first=given.index,
        next=given.index,
        end=MAX_CHAIN_MESSAGES,
        retired=0,
        chain_key=given.chain_key,
        public=given.public,
        skipped={},
    )
    older = tuple(_retired(chain, given, now) for chain in keys.chains)
    kept = msgspec.structs.replace(keys, newest=place, chains=(*older, added)[-MAX_CHAINS:])
    return expire(kept, now)


def decrypt(keys: SenderKeys, message: bytes, associated: bytes, now: int) -> tuple[SenderKeys, Received]:
    """Opens one message of this sender; gives the keys after it, with which it does not open again.

    Raises MissingSenderKey when its chain has not come yet, Replayed when it was opened before, ForgedMessage
    when the sender did not sign it, Undecryptable otherwise. `now` dates the keys that are kept for skipped
    messages.
    """
    if not OVERHEAD_BYTES <= len(message) <= MAX_MESSAGE_BYTES or message[0] != _FORMAT:
        raise Undecryptable("The group message is truncated, too long, or of an unknown format.")
    _, epoch, generation, index, commitment = _HEADER.unpack_from(message)
    chain = _chain_for(keys, (epoch, generation))
    _check_index(chain, index)
    signed_until = len(message) - ed25519.SIGNATURE_BYTES
    sealed, signature = message[_HEADER.size : signed_until], message[signed_until:]
    additional = _additional(chain.epoch, keys.sender, generation, index, associated)
    # The signature comes first: who cannot sign makes us derive nothing.
    if not ed25519.verify(chain.public, signature, _signed(additional, commitment, sealed)):
        raise ForgedMessage("The group message does not bear its sender's signature.")
    stepped, seed = _take_seed(chain, index, now)
    key, promised = _message_keys(seed)
    if not hmac.compare_digest(commitment, promised):
        raise ForgedMessage("The sender gave this device another key than it encrypted with.")
    try:
        plaintext = AESGCM(key).decrypt(_ZERO_NONCE, sealed, additional)
    except InvalidTag:
        raise Undecryptable("The group message was altered.") from None
    chains = tuple(stepped if each is chain else each for each in keys.chains)
    after = _bounded(msgspec.structs.replace(keys, chains=chains))
    return after, Received(plaintext, chain.epoch, generation, index)


def forget_before(keys: SenderKeys, epoch: int) -> SenderKeys:
    """Drops the chains of older epochs: their late messages will not be read any more."""
    chains = tuple(chain for chain in keys.chains if chain.epoch.epoch >= epoch)
    return msgspec.structs.replace(keys, chains=chains)


def expire(keys: SenderKeys, now: int) -> SenderKeys:
    """Drops what was kept for 30 days: keys of skipped messages, and chains since their successor."""
    oldest = now - KEPT_SECONDS
    chains = tuple(
        _with_skipped(chain, {i: kept for i, kept in chain.skipped.items() if kept[0] > oldest})
        for chain in keys.chains
        if not chain.retired or chain.retired > oldest
    )
    return msgspec.structs.replace(keys, chains=chains)


def _retired(chain: ReceivingChain, successor: Distribution, now: int) -> ReceivingChain:
    """The chain once another has taken over; the one right before it is closed where its sender left it."""
    retired, end, skipped = chain.retired or now, chain.end, chain.skipped
    if chain.generation == successor.generation - 1:
        end = min(end, successor.previous)
        skipped = {index: kept for index, kept in skipped.items() if index < end}
    return msgspec.structs.replace(chain, retired=retired, end=end, skipped=skipped)


def _find(keys: SenderKeys, place: tuple[int, int]) -> ReceivingChain | None:
    return next((chain for chain in reversed(keys.chains) if chain.place == place), None)


def _chain_for(keys: SenderKeys, place: tuple[int, int]) -> ReceivingChain:
    chain = _find(keys, place)
    if chain is not None:
        return chain
    if place > keys.newest:
        raise MissingSenderKey(
            f"The key for this group message (epoch {place[0]}, generation {place[1]}) has not come yet."
        )
    raise Undecryptable("The group message is older than the keys that are kept.")


def _check_index(chain: ReceivingChain, index: int) -> None:
    if index >= chain.end:
        raise Undecryptable("The group message stands after the end of its key.")
    if index < chain.first:
        raise Undecryptable("The group message is from before this device was given the key.")
    if index < chain.next and index not in chain.skipped:
        raise Replayed("The group message was opened before, or its key was kept too long.")


def _take_seed(chain: ReceivingChain, index: int, now: int) -> tuple[ReceivingChain, bytes]:
    """Gives what one message's keys are derived from, and the chain without it."""
    if index < chain.next:
        skipped = dict(chain.skipped)
        _, seed = skipped.pop(index)
        return _with_skipped(chain, skipped), seed
    chain_key, fresh = chain.chain_key, {}
    for passed in range(chain.next, index):
        fresh[passed] = (now, _message_seed(chain_key))
        chain_key = _next_chain_key(chain_key)
    stepped = msgspec.structs.replace(
        chain,
        next=index + 1,
        chain_key=_next_chain_key(chain_key),
        skipped={**chain.skipped, **fresh} if fresh else chain.skipped,
    )
    return stepped, _message_seed(chain_key)


def _with_skipped(chain: ReceivingChain, skipped: Mapping[int, tuple[int, bytes]]) -> ReceivingChain:
    return msgspec.structs.replace(chain, skipped=skipped)


def _bounded(keys: SenderKeys) -> SenderKeys:
    """Keeps the newest keys of skipped messages within the limit."""
    excess = keys.kept - MAX_KEPT
    if excess <= 0:
        return keys
    chains = []
    for chain in keys.chains:
        dropped = set(sorted(chain.skipped)[: max(excess, 0)])
        excess -= len(dropped)
        kept = {index: seed for index, seed in chain.skipped.items() if index not in dropped}
        chains.append(_with_skipped(chain, kept))
    return msgspec.structs.replace(keys, chains=tuple(chains))


def _encoded(chain: ReceivingChain) -> bytes:
    head = _CHAIN.pack(
        chain.epoch.epoch,
        chain.epoch.roster_hash,
        chain.generation,
        chain.first,
        chain.next,
        chain.end,
        chain.retired,
        chain.chain_key,
        chain.public,
        len(chain.skipped),
    )
    return head + b"".join(
        _SKIPPED.pack(index, kept, seed) for index, (kept, seed) in sorted(chain.skipped.items())
    )


def _decoded(group: bytes, data: bytes, at: int) -> tuple[ReceivingChain, int]:
    """Reads the chain at a position; gives it with the position after. Raises ValueError, struct.error."""
    epoch, roster, *numbers, chain_key, public, count = _CHAIN.unpack_from(data, at)
    generation, first, next_, end, retired = numbers
    at += _CHAIN.size
    skipped: dict[int, tuple[int, bytes]] = {}
    last = first - 1
    for _ in range(count):
        index, kept, seed = _SKIPPED.unpack_from(data, at)
        at += _SKIPPED.size
        if not last < index < min(next_, end):
            raise ValueError("skipped indices are not in order")
        skipped[index] = (kept, seed)
        last = index
    if not first <= next_ <= MAX_CHAIN_MESSAGES or end > MAX_CHAIN_MESSAGES:
        raise ValueError("indices are out of range")
    chain = ReceivingChain(
        GroupEpoch(group, epoch, roster),
        generation,
        first=first,
        next=next_,
        end=end,
        retired=retired,
        chain_key=chain_key,
        public=public,
        skipped=skipped,
    )
    return chain, at


def _packed(listeners: Iterable[Listener]) -> bytes:
    return b"".join(sorted({_LISTENER.pack(each.uid, each.device, each.epoch) for each in listeners}))


@lru_cache(maxsize=64)
def _signing_keys(secret: bytes) -> tuple[bytes, bytes]:
    """The public key, and the key as libsodium signs with it: made once a chain, not once a message.

    libsodium because it signs faster than OpenSSL here; RFC 8032 leaves both no choice of bytes.
    """
    public, signing_key = crypto_sign_seed_keypair(secret)
    return public, signing_key


def _message_seed(chain_key: bytes) -> bytes:
    return hmac.digest(chain_key, _MESSAGE_STEP, "sha256")


def _next_chain_key(chain_key: bytes) -> bytes:
    return hmac.digest(chain_key, _CHAIN_STEP, "sha256")


def _message_keys(seed: bytes) -> tuple[bytes, bytes]:
    """The AES-256-GCM key of one message, and what commits to it: GCM by itself commits to no key."""
    keys = hmac.digest(seed, _KEYS_LABEL, "sha512")
    return keys[:_KEY], keys[_KEY:]


def _additional(epoch: GroupEpoch, sender: Sender, generation: int, index: int, associated: bytes) -> bytes:
    place = _PLACE.pack(
        epoch.group, epoch.epoch, epoch.roster_hash, sender.uid, sender.device, generation, index
    )
    return _BODY_LABEL + place + associated


def _signed(additional: bytes, commitment: bytes, sealed: bytes) -> bytes:
    return _SIGNATURE_LABEL + hashlib.sha256(additional).digest() + commitment + sealed
