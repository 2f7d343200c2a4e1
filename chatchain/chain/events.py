"""What the contracts' events say, and their pure fold into a directory of users, groups and offices.

`decode` turns one LogRow into a typed event. `Directory` takes rows in chain order and can then be asked
for users, groups and proposals as they stand. It trusts nobody about completeness: a step that the
contracts cannot have taken (a version left out, a sequence reused) means that an endpoint hid or invented
an event and raises FoldMismatch; what it cannot notice, the last events missing, shows when heads are
compared with the contract's.

Confirmations: with a `horizon`, what adds to anybody's rights (Registered, DeviceAdded, DeviceUpdated,
KeyAdded, KeyUpdated, MemberAdded) in a later block is not yet in force and left out; what takes rights away
(DeviceRevoked, KeyRevoked, MemberRemoved) acts at first sight. So does AccountReplaced: it ends the old
account's rights, and a device, for which the new account could use them, waits for itself. So no fold is
continued over a rising horizon: it is made anew.

What falls due at a second (a recovery address, a root of rewards) is folded as it stood at the last event;
the answers tell when it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from chatchain.chain.decisions import read_decision
from chatchain.chain.encoding import Malformed
from chatchain.chain.encoding import decode as decode_abi
from chatchain.chain.encoding import encode as encode_abi
from chatchain.errors import FoldMismatch
from chatchain.identity.keys import keccak256
from chatchain.model import (
    Address,
    Device,
    DeviceId,
    DeviceState,
    DeviceVersion,
    FormerAccount,
    Group,
    KeyKind,
    KeyVersion,
    Kind,
    Ledger,
    Log,
    LogRow,
    Member,
    Policy,
    Proposal,
    ProposalId,
    ProposalState,
    PublishedKey,
    RelayAddress,
    RewardRoot,
    Rewards,
    Takeover,
    TreeHead,
    Uid,
    User,
)

DIRECTORY: Final = 0
IDENTITY: Final = 1
MEMBERSHIP: Final = 2
LEDGER: Final = 3
REWARDS: Final = 4
"""`LogRow.source`: which contract spoke."""

MAX_DATA: Final = 16 * 1024
"""Bytes of an event's data; the longest is a list of 16 relays."""

_MAX_UID: Final = 10**15 - 1
_MAX_NAME: Final = 32
_MAX_NUMBER: Final = 2**53
_NO_HASH: Final = bytes(32)
_NOBODY: Final = bytes(20)
_ADD: Final = 1
_REMOVE: Final = 2
_KEY: Final = -1
"""Marks a published key among what is too young, where others are marked by their source."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """What every event is."""


class Registered(Event, frozen=True, gc=False):
    """A user came to be."""

    uid: int
    account: bytes
    username: str
    recovery: bytes


class VerifierSet(Event, frozen=True, gc=False):
    """A user's login verifier is now this one."""

    uid: int
    verifier: bytes
    kdf: bytes


class DeviceAdded(Event, frozen=True, gc=False):
    """A user has a new device at version 1."""

    uid: int
    device: int
    signer: bytes
    record: bytes


class DeviceUpdated(Event, frozen=True, gc=False):
    """A device has a new record."""

    uid: int
    device: int
    signer: bytes
    version: int
    record: bytes


class DeviceRevoked(Event, frozen=True, gc=False):
    """A device was withdrawn for good."""

    uid: int
    device: int


class KeyAdded(Event, frozen=True, gc=False):
    """A user publishes a key at version 1."""

    uid: int
    number: int
    kind: int
    key: bytes


class KeyUpdated(Event, frozen=True, gc=False):
    """A published key was replaced."""

    uid: int
    number: int
    version: int
    key: bytes


class KeyRevoked(Event, frozen=True, gc=False):
    """A published key was withdrawn for good."""

    uid: int
    number: int


class RecoverySet(Event, frozen=True, gc=False):
    """A user's recovery address is this one from a second on."""

    uid: int
    recovery: bytes
    effective_at: int


class RecoveryProposed(Event, frozen=True, gc=False):
    """The recovery address proposed an account, which may take over from a second on."""

    uid: int
    account: bytes
    ready_at: int


class RecoveryVetoed(Event, frozen=True, gc=False):
    """The account refused the pending recovery."""

    uid: int
    account: bytes


class AccountReplaced(Event, frozen=True, gc=False):
    """A user has another account."""

    uid: int
    account: bytes
    previous: bytes
    epoch: int


class NonceInvalidated(Event, frozen=True, gc=False):
    """Signatures with an earlier nonce count no more."""

    uid: int
    nonce: int


class Committed(Event, frozen=True, gc=False):
    """Somebody committed to a registration."""

    commitment: bytes
    guarded_until: int


class GroupCreated(Event, frozen=True, gc=False):
    """A group and its rules."""

    group: int
    name: str
    policy: int
    threshold: int
    voting_period: int


class MemberAdded(Event, frozen=True, gc=False):
    """Somebody took a seat."""

    group: int
    uid: int
    sequence: int
    epoch: int
    roster_hash: bytes


class MemberRemoved(Event, frozen=True, gc=False):
    """Somebody left a seat."""

    group: int
    uid: int
    sequence: int
    epoch: int
    roster_hash: bytes


class Proposed(Event, frozen=True, gc=False):
    """A proposal opened."""

    id: int
    group: int
    subject: int
    kind: int
    proposer: int
    electorate: int
    deadline: int
    data: bytes


class Voted(Event, frozen=True, gc=False):
    """A vote was counted; `yes` and `no` are the sums with it."""

    id: int
    voter: int
    support: bool
    yes: int
    no: int


class Closed(Event, frozen=True, gc=False):
    """A proposal found its end."""

    id: int
    state: int


class RulesSet(Event, frozen=True, gc=False):
    """A group votes by these rules from now on."""

    group: int
    policy: int
    threshold: int
    voting_period: int


class Paused(Event, frozen=True, gc=False):
    """The network is paused up to a second."""

    until: int


class Unpaused(Event, frozen=True, gc=False):
    """The pause is over before its time."""


class Sealed(Event, frozen=True, gc=False):
    """The deployer's role is over."""


class RelaysSet(Event, frozen=True, gc=False):
    """The network's relays are now these: (endpoint, SPKI hash, next SPKI hash)."""

    relays: tuple[tuple[str, bytes, bytes], ...]


class SuccessorSet(Event, frozen=True, gc=False):
    """Members recommend another network, or none any more."""

    successor: bytes


class LogStarted(Event, frozen=True, gc=False):
    """This log of messages grows from now on."""

    log_id: bytes
    previous_id: bytes
    previous_size: int
    previous_root: bytes


class HeadAnchored(Event, frozen=True, gc=False):
    """The log has so many leaves under this root."""

    log_id: bytes
    size: int
    root: bytes


class AnchorerSet(Event, frozen=True, gc=False):
    """Only this address enters heads, and only into this log."""

    log_id: bytes
    anchorer: bytes


class WitnessesSet(Event, frozen=True, gc=False):
    """Heads need the signatures of a quorum of these."""

    quorum: int
    witnesses: tuple[bytes, ...]


class RootSet(Event, frozen=True, gc=False):
    """A root of rewards was published."""

    epoch: int
    root: bytes
    total: int
    effective_at: int


class RootDropped(Event, frozen=True, gc=False):
    """A root that did not count yet never will."""

    epoch: int
    root: bytes


class SetterSet(Event, frozen=True, gc=False):
    """Only this address publishes roots."""

    setter: bytes


class Claimed(Event, frozen=True, gc=False):
    """An account was given what it had earned."""

    account: bytes
    amount: int
    cumulative: int


# --- decoding -------------------------------------------------------------------------------------------

_Topics: TypeAlias = tuple[bytes, ...]


_UINT32: Final = 2**32 - 1
_UINT64: Final = 2**64 - 1


def _number(topic: bytes, largest: int = _UINT64) -> int:
    number = int.from_bytes(topic, "big")
    if number > largest:
        raise Malformed("a topic does not fit its type")
    return number


def _address(topic: bytes) -> bytes:
    if any(topic[:12]):
        raise Malformed("a topic is not an address")
    return topic[12:]


def _registered(topics: _Topics, data: bytes) -> Event:
    username, recovery = decode_abi(("string", "address"), data)
    return Registered(_number(topics[1]), _address(topics[2]), username, recovery)


def _verifier_set(topics: _Topics, data: bytes) -> Event:
    verifier, kdf = decode_abi(("bytes32", "bytes"), data)
    return VerifierSet(_number(topics[1]), verifier, kdf)


def _device_added(topics: _Topics, data: bytes) -> Event:
    (record,) = decode_abi(("bytes",), data)
    return DeviceAdded(_number(topics[1]), _number(topics[2], _UINT32), _address(topics[3]), record)


def _device_updated(topics: _Topics, data: bytes) -> Event:
    version, record = decode_abi(("uint32", "bytes"), data)
    return DeviceUpdated(
        _number(topics[1]), _number(topics[2], _UINT32), _address(topics[3]), version, record
    )


def _device_revoked(topics: _Topics, data: bytes) -> Event:
    decode_abi((), data)
    return DeviceRevoked(_number(topics[1]), _number(topics[2], _UINT32))


def _group_created(topics: _Topics, data: bytes) -> Event:
    return GroupCreated(
        _number(topics[1], _UINT32), *decode_abi(("string", "uint8", "uint16", "uint32"), data)
    )


def _member_added(topics: _Topics, data: bytes) -> Event:
    words = decode_abi(("uint32", "uint32", "bytes32"), data)
    return MemberAdded(_number(topics[1], _UINT32), _number(topics[2]), *words)


def _member_removed(topics: _Topics, data: bytes) -> Event:
    words = decode_abi(("uint32", "uint32", "bytes32"), data)
    return MemberRemoved(_number(topics[1], _UINT32), _number(topics[2]), *words)


def _proposed(topics: _Topics, data: bytes) -> Event:
    words = decode_abi(("uint8", "uint64", "uint32", "uint64", "bytes"), data)
    return Proposed(_number(topics[1]), _number(topics[2], _UINT32), _number(topics[3]), *words)


def _voted(topics: _Topics, data: bytes) -> Event:
    return Voted(_number(topics[1]), _number(topics[2]), *decode_abi(("bool", "uint32", "uint32"), data))


def _closed(topics: _Topics, data: bytes) -> Event:
    return Closed(_number(topics[1]), *decode_abi(("uint8",), data))


def _sealed(topics: _Topics, data: bytes) -> Event:
    decode_abi((), data)
    return Sealed()


def _relays_set(topics: _Topics, data: bytes) -> Event:
    (relays,) = decode_abi(("(string,bytes32,bytes32)[]",), data)
    return RelaysSet(tuple(relays))


def _witnesses_set(topics: _Topics, data: bytes) -> Event:
    quorum, witnesses = decode_abi(("uint8", "address[]"), data)
    return WitnessesSet(quorum, tuple(witnesses))


def _reads(kind: Callable[..., Event], indexed: str, *plain: str) -> _Decoder:
    """A decoder for events that come seldom: the types of the topics, then those of the data."""
    topic_types = tuple(indexed.split())

    def read(topics: _Topics, data: bytes) -> Event:
        if len(topics) != len(topic_types) + 1:
            raise Malformed("an event has another number of topics")
        return kind(*decode_abi(topic_types, b"".join(topics[1:])), *decode_abi(plain, data))

    return read


_Decoder: TypeAlias = Callable[[_Topics, bytes], Event]

_SIGNATURES: Final[tuple[tuple[int, str, _Decoder], ...]] = (
    (IDENTITY, "Registered(uint64,address,string,address)", _registered),
    (IDENTITY, "VerifierSet(uint64,bytes32,bytes)", _verifier_set),
    (IDENTITY, "DeviceAdded(uint64,uint32,address,bytes)", _device_added),
    (IDENTITY, "DeviceUpdated(uint64,uint32,address,uint32,bytes)", _device_updated),
    (IDENTITY, "DeviceRevoked(uint64,uint32)", _device_revoked),
    (IDENTITY, "KeyAdded(uint64,uint32,uint8,bytes)", _reads(KeyAdded, "uint64 uint32", "uint8", "bytes")),
    (
        IDENTITY,
        "KeyUpdated(uint64,uint32,uint32,bytes)",
        _reads(KeyUpdated, "uint64 uint32", "uint32", "bytes"),
    ),
    (IDENTITY, "KeyRevoked(uint64,uint32)", _reads(KeyRevoked, "uint64 uint32")),
    (IDENTITY, "RecoverySet(uint64,address,uint64)", _reads(RecoverySet, "uint64", "address", "uint64")),
    (
        IDENTITY,
        "RecoveryProposed(uint64,address,uint64)",
        _reads(RecoveryProposed, "uint64 address", "uint64"),
    ),
    (IDENTITY, "RecoveryVetoed(uint64,address)", _reads(RecoveryVetoed, "uint64 address")),
    (
        IDENTITY,
        "AccountReplaced(uint64,address,address,uint32)",
        _reads(AccountReplaced, "uint64 address address", "uint32"),
    ),
    (IDENTITY, "NonceInvalidated(uint64,uint32)", _reads(NonceInvalidated, "uint64", "uint32")),
    (IDENTITY, "Committed(bytes32,uint64)", _reads(Committed, "bytes32", "uint64")),
    (MEMBERSHIP, "GroupCreated(uint32,string,uint8,uint16,uint32)", _group_created),
    (MEMBERSHIP, "MemberAdded(uint32,uint64,uint32,uint32,bytes32)", _member_added),
    (MEMBERSHIP, "MemberRemoved(uint32,uint64,uint32,uint32,bytes32)", _member_removed),
    (MEMBERSHIP, "Proposed(uint64,uint32,uint64,uint8,uint64,uint32,uint64,bytes)", _proposed),
    (MEMBERSHIP, "Voted(uint64,uint64,bool,uint32,uint32)", _voted),
    (MEMBERSHIP, "Closed(uint64,uint8)", _closed),
    (
        MEMBERSHIP,
        "RulesSet(uint32,uint8,uint16,uint32)",
        _reads(RulesSet, "uint32", "uint8", "uint16", "uint32"),
    ),
    (MEMBERSHIP, "Paused(uint64)", _reads(Paused, "", "uint64")),
    (MEMBERSHIP, "Unpaused()", _reads(Unpaused, "")),
    (DIRECTORY, "Sealed()", _sealed),
    (DIRECTORY, "RelaysSet((string,bytes32,bytes32)[])", _relays_set),
    (DIRECTORY, "SuccessorSet(address)", _reads(SuccessorSet, "", "address")),
    (
        LEDGER,
        "LogStarted(bytes32,bytes32,uint64,bytes32)",
        _reads(LogStarted, "bytes32 bytes32", "uint64", "bytes32"),
    ),
    (LEDGER, "HeadAnchored(bytes32,uint64,bytes32)", _reads(HeadAnchored, "bytes32", "uint64", "bytes32")),
    (LEDGER, "AnchorerSet(address,bytes32)", _reads(AnchorerSet, "bytes32", "address")),
    (LEDGER, "WitnessesSet(uint8,address[])", _witnesses_set),
    (
        REWARDS,
        "RootSet(uint64,bytes32,uint256,uint64)",
        _reads(RootSet, "uint64", "bytes32", "uint256", "uint64"),
    ),
    (REWARDS, "RootDropped(uint64,bytes32)", _reads(RootDropped, "uint64", "bytes32")),
    (REWARDS, "SetterSet(address)", _reads(SetterSet, "", "address")),
    (
        REWARDS,
        "Claimed(address,uint256,uint256)",
        _reads(Claimed, "address", "uint256", "uint256"),
    ),
)

SIGNATURES: Final = tuple((source, signature) for source, signature, _ in _SIGNATURES)
"""Every event that is understood, by contract; a test holds them against the ABIs."""

_DECODERS: Final[dict[tuple[int, bytes], _Decoder]] = {
    (source, keccak256(signature.encode())): decoder for source, signature, decoder in _SIGNATURES
}
_COMMITTED: Final = keccak256(b"Committed(bytes32,uint64)")
_ACCOUNT_REPLACED: Final = keccak256(b"AccountReplaced(uint64,address,address,uint32)")
_REGISTERED: Final = keccak256(b"Registered(uint64,address,string,address)")
_INTRODUCES_SIGNER: Final = frozenset(
    {
        keccak256(b"DeviceAdded(uint64,uint32,address,bytes)"),
        keccak256(b"DeviceUpdated(uint64,uint32,address,uint32,bytes)"),
    }
)


def decode(row: LogRow) -> Event:
    """The event that a row holds; raises FoldMismatch when it is none of ours."""
    return _decode(row.source, row.topics, row.data)


def _decode(source: int, topics: _Topics, data: bytes) -> Event:
    decoder = _DECODERS.get((source, topics[0] if topics else b""))
    if decoder is None:
        raise FoldMismatch("An endpoint served an event that the contracts do not have.")
    try:
        return decoder(topics, data)
    except (Malformed, IndexError) as error:
        raise FoldMismatch(f"An endpoint served a malformed event: {error}.") from error


def row_of(
    block: int, block_hash: bytes, index: int, time: int, source: int, topics: _Topics, data: bytes
) -> LogRow:
    """A row with its look-up columns filled in; raises FoldMismatch for a log that is no event of ours.

    What passes fits into every store: no number, name or data is larger than the contracts allow.
    """
    kind = topics[0] if topics else b""
    if (source, kind) not in _DECODERS:
        raise FoldMismatch("An endpoint served an event that the contracts do not have.")
    if len(data) > MAX_DATA or max(block, index, time) > _MAX_NUMBER:
        raise FoldMismatch("An endpoint served an event larger than the contracts emit.")
    if source != IDENTITY or kind == _COMMITTED:  # a commitment names nobody
        return LogRow(block, block_hash, index, time, source, topics, data)
    label, address = "", b""
    if kind == _REGISTERED:
        event = _decode(source, topics, data)
        assert isinstance(event, Registered)
        label, address = event.username, event.account
    elif kind in _INTRODUCES_SIGNER and len(topics) == 4:
        address = topics[3][12:]
    elif kind == _ACCOUNT_REPLACED and len(topics) == 4:
        address = topics[2][12:]
    uid = int.from_bytes(topics[1], "big") if len(topics) > 1 else 0
    if not 0 < uid <= _MAX_UID or len(label) > _MAX_NAME or len(address) not in {0, 20}:
        raise FoldMismatch("An endpoint served a malformed event.")
    return LogRow(block, block_hash, index, time, source, topics, data, uid, label, address)


# --- folding --------------------------------------------------------------------------------------------


class _Device:
    """A device while it is being folded."""

    __slots__ = ("history", "revoked_block", "revoked_time")

    def __init__(self) -> None:
        self.history: list[DeviceVersion] = []
        self.revoked_block = -1
        self.revoked_time = 0


class _Key:
    """A published key while it is being folded."""

    __slots__ = ("history", "kind", "revoked")

    def __init__(self, kind: KeyKind) -> None:
        self.kind = kind
        self.history: list[KeyVersion] = []
        self.revoked = False


class _User:
    """A user while being folded."""

    __slots__ = (
        "account",
        "block",
        "changes",
        "devices",
        "epoch",
        "former",
        "kdf",
        "keys",
        "next_account",
        "next_recovery",
        "recovery",
        "time",
        "username",
        "verifier",
    )

    def __init__(self, event: Registered) -> None:
        self.username = event.username
        self.account = event.account
        self.recovery = event.recovery
        self.verifier = b""
        self.kdf = b""
        self.devices: dict[int, _Device] = {}
        self.epoch = 0
        self.former: list[FormerAccount] = []
        self.keys: dict[int, _Key] = {}
        self.next_recovery: Takeover | None = None
        self.next_account: Takeover | None = None
        self.changes = 0  # device events so far
        self.block = 0
        self.time = 0


class _Group:
    """A group while it is being folded."""

    __slots__ = (
        "chain_epoch",
        "chain_hash",
        "epoch",
        "members",
        "name",
        "policy",
        "roster_hash",
        "sequence",
        "threshold",
        "voting_period",
    )

    def __init__(self, created: GroupCreated) -> None:
        self.name = created.name
        self.policy = _enum(Policy, created.policy)
        self.threshold = created.threshold
        self.voting_period = created.voting_period
        self.epoch = 0
        self.roster_hash = _NO_HASH
        # The contract's own, which count additions that are not in force here yet.
        self.chain_epoch = 0
        self.chain_hash = _NO_HASH
        self.sequence = 0
        self.members: dict[int, Member] = {}


class _Proposal:
    """A proposal while it is being folded."""

    __slots__ = ("block", "no", "opened", "state", "voters", "yes")

    def __init__(self, opened: Proposed, block: int) -> None:
        self.opened = opened
        self.block = block
        self.yes = 0
        self.no = 0
        self.voters: dict[int, None] = {}
        self.state = ProposalState.OPEN


class _Log:
    """A log of messages while it is being folded."""

    __slots__ = ("head", "started")

    def __init__(self, started: LogStarted) -> None:
        self.started = started
        self.head: TreeHead | None = None


class Directory:
    """Users, groups, proposals and offices as a history of rows makes them."""

    def __init__(self, rows: Iterable[LogRow] = (), *, horizon: int | None = None) -> None:
        self._horizon = horizon
        self._users: dict[int, _User] = {}
        self._names: dict[str, int] = {}
        self._principals: dict[bytes, tuple[int, int]] = {}  # (uid, device), 0 for the account
        self._groups: dict[int, _Group] = {}
        self._group_names: dict[str, int] = {}
        self._logs: dict[bytes, _Log] = {}
        self._anchorer = _NOBODY
        self._quorum = 0
        self._witnesses: tuple[bytes, ...] = ()
        self._root: RewardRoot | None = None
        self._next_root: RewardRoot | None = None
        self._setter = _NOBODY
        self._claimed: dict[bytes, int] = {}
        self._proposals: dict[int, _Proposal] = {}
        self._pending: set[tuple[int, int, int]] = set()
        self._last = (-1, -1)
        self.sealed = False
        self.relays: tuple[RelayAddress, ...] = ()
        self.successor = Address(_NOBODY)
        self.paused_until = 0
        for row in rows:
            self.take(row)

    @property
    def pending(self) -> bool:
        """Whether an addition was left out because it is too young."""
        return bool(self._pending)

    def take(self, row: LogRow) -> None:
        """Adds the next row; raises FoldMismatch when the contracts cannot have emitted it here."""
        place = (row.block, row.index)
        if place <= self._last:
            raise FoldMismatch(f"The events of block {row.block} are out of order.")
        self._last = place
        event = decode(row)
        _STEPS[type(event)](self, event, row)

    # -- steps: one for each event

    def _young(self, row: LogRow, what: tuple[int, int, int]) -> bool:
        """Notes and tells whether an addition is not in force yet."""
        if self._horizon is None or row.block <= self._horizon:
            return False
        self._pending.add(what)
        return True

    def _on_registered(self, event: Registered, row: LogRow) -> None:
        if self._young(row, (IDENTITY, event.uid, 0)):
            return
        taken = self._taken(event.account)
        if event.uid in self._users or event.username in self._names or taken:
            raise FoldMismatch(f"The user {event.username} is registered twice in the events served.")
        user = self._users[event.uid] = _User(event)
        user.block, user.time = row.block, row.time
        self._names[event.username] = event.uid
        self._principals[event.account] = event.uid, 0

    def _on_verifier_set(self, event: VerifierSet, row: LogRow) -> None:
        user = self._changed(event.uid, row)
        if user is not None:
            user.verifier, user.kdf = event.verifier, event.kdf

    def _on_device_added(self, event: DeviceAdded, row: LogRow) -> None:
        if self._young(row, (IDENTITY, event.uid, event.device)):
            return
        user = self._existing(event.uid)
        if event.device != len(user.devices) + 1:
            raise FoldMismatch(f"Device {event.device} of {user.username} appears out of turn.")
        user.devices[event.device] = device = _Device()
        self._enter(event.uid, event.device, user, device, _version(user, row, 1, event.signer, event.record))

    def _on_device_updated(self, event: DeviceUpdated, row: LogRow) -> None:
        if self._young(row, (IDENTITY, event.uid, event.device)):
            return
        user = self._existing(event.uid)
        device = user.devices.get(event.device)
        if device is None or device.revoked_block >= 0 or event.version != device.history[-1].version + 1:
            raise FoldMismatch(
                f"Version {event.version} of device {event.device} of {user.username} does not follow "
                f"from the events before."
            )
        version = _version(user, row, event.version, event.signer, event.record)
        if device.history[-1].signer != event.signer:
            self._release(device.history[-1].signer, event.uid, event.device)
            self._enter(event.uid, event.device, user, device, version)
        else:
            self._grow(user, device, version)

    def _taken(self, account: bytes) -> bool:
        """Whether an address cannot become an account: a signer, who was only named, gives way to one."""
        return self._principals.get(account, (0, 1))[1] == 0

    def _release(self, signer: bytes, uid: int, device: int) -> None:
        """Frees a device's signer, unless it gave way to an account."""
        if self._principals.get(signer) == (uid, device):
            del self._principals[signer]

    def _enter(self, uid: int, number: int, user: _User, device: _Device, version: DeviceVersion) -> None:
        if version.signer in self._principals:
            raise FoldMismatch(f"A signer of {user.username} is in use twice in the events served.")
        self._principals[version.signer] = uid, number
        self._grow(user, device, version)

    @staticmethod
    def _grow(user: _User, device: _Device, version: DeviceVersion) -> None:
        device.history.append(version)
        user.changes += 1
        user.block, user.time = version.block, version.time

    def _on_device_revoked(self, event: DeviceRevoked, row: LogRow) -> None:
        user = self._changed(event.uid, row)
        if user is None:
            return
        device = user.devices.get(event.device)
        if device is None and (IDENTITY, event.uid, event.device) in self._pending:
            return  # it never came into force
        if device is None or device.revoked_block >= 0:
            raise FoldMismatch(f"Device {event.device} of {user.username} is revoked without being active.")
        device.revoked_block, device.revoked_time = row.block, row.time
        self._release(device.history[-1].signer, event.uid, event.device)
        user.changes += 1

    def _on_key_added(self, event: KeyAdded, row: LogRow) -> None:
        if self._young(row, (_KEY, event.uid, event.number)):
            return
        user = self._existing(event.uid)
        if event.number != len(user.keys) + 1:
            raise FoldMismatch(f"Key {event.number} of {user.username} appears out of turn.")
        user.keys[event.number] = key = _Key(_enum(KeyKind, event.kind))
        key.history.append(KeyVersion(1, event.key, row.block, row.time))
        user.block, user.time = row.block, row.time

    def _on_key_updated(self, event: KeyUpdated, row: LogRow) -> None:
        if self._young(row, (_KEY, event.uid, event.number)):
            return
        user = self._existing(event.uid)
        key = user.keys.get(event.number)
        if key is None or key.revoked or event.version != key.history[-1].version + 1:
            raise FoldMismatch(
                f"Version {event.version} of key {event.number} of {user.username} does not follow "
                f"from the events before."
            )
        key.history.append(KeyVersion(event.version, event.key, row.block, row.time))
        user.block, user.time = row.block, row.time

    def _on_key_revoked(self, event: KeyRevoked, row: LogRow) -> None:
        user = self._changed(event.uid, row)
        if user is None:
            return
        key = user.keys.get(event.number)
        if key is None and (_KEY, event.uid, event.number) in self._pending:
            return  # it never came into force
        if key is None or key.revoked:
            raise FoldMismatch(f"Key {event.number} of {user.username} is revoked without being active.")
        key.revoked = True

    def _on_recovery_set(self, event: RecoverySet, row: LogRow) -> None:
        user = self._changed(event.uid, row)
        if user is None:
            return
        if user.next_recovery is not None and user.next_recovery.time <= row.time:
            user.recovery = user.next_recovery.address
        if event.effective_at <= row.time:
            user.recovery, user.next_recovery = event.recovery, None
        else:
            user.next_recovery = Takeover(Address(event.recovery), event.effective_at, row.block)

    def _on_recovery_proposed(self, event: RecoveryProposed, row: LogRow) -> None:
        user = self._changed(event.uid, row)
        if user is not None:
            user.next_account = Takeover(Address(event.account), event.ready_at, row.block)

    def _on_recovery_vetoed(self, event: RecoveryVetoed, row: LogRow) -> None:
        user = self._changed(event.uid, row)
        if user is None:
            return
        if user.next_account is None or user.next_account.address != event.account:
            raise FoldMismatch(f"A recovery of {user.username} is refused that was not proposed.")
        user.next_account = None

    def _on_account_replaced(self, event: AccountReplaced, row: LogRow) -> None:
        user = self._changed(event.uid, row)
        if user is None:
            return
        if (event.previous, event.epoch) != (user.account, user.epoch + 1):
            raise FoldMismatch(f"The accounts of {user.username} do not follow each other.")
        if user.next_account is not None and user.next_account.address != event.account:
            raise FoldMismatch(f"An account takes over {user.username} that was not proposed.")
        if self._taken(event.account):
            raise FoldMismatch(f"The account of {user.username} is in use twice in the events served.")
        user.former.append(FormerAccount(Address(user.account), user.epoch, row.block, row.time))
        self._principals.pop(user.account, None)
        self._principals[event.account] = event.uid, 0
        user.account, user.epoch, user.next_account = event.account, event.epoch, None

    def _on_nonce_invalidated(self, event: NonceInvalidated, row: LogRow) -> None:
        """Nonces are asked for, not folded."""
        self._changed(event.uid, row)

    def _on_committed(self, event: Committed, row: LogRow) -> None:
        """A commitment tells nothing yet."""

    def _existing(self, uid: int) -> _User:
        user = self._users.get(uid)
        if user is None:
            raise FoldMismatch(f"An event names the user {uid}, whose registration was not served.")
        return user

    def _changed(self, uid: int, row: LogRow) -> _User | None:
        """A user that an event of any age changes; None while the registration itself is too young."""
        if uid not in self._users and (IDENTITY, uid, 0) in self._pending:
            return None
        user = self._existing(uid)
        user.block, user.time = row.block, row.time
        return user

    def _on_group_created(self, event: GroupCreated, row: LogRow) -> None:
        if event.group != len(self._groups) or event.name in self._group_names:
            raise FoldMismatch(f"Group {event.group} is created out of turn in the events served.")
        self._groups[event.group] = _Group(event)
        self._group_names[event.name] = event.group

    def _on_rules_set(self, event: RulesSet, row: LogRow) -> None:
        group = self._group(event.group)
        group.policy = _enum(Policy, event.policy)
        group.threshold, group.voting_period = event.threshold, event.voting_period

    def _on_paused(self, event: Paused, row: LogRow) -> None:
        self.paused_until = event.until

    def _on_unpaused(self, event: Unpaused, row: LogRow) -> None:
        self.paused_until = row.time - 1

    def _on_member_added(self, event: MemberAdded, row: LogRow) -> None:
        group = self._turned(event, _ADD)
        if event.sequence != group.sequence + 1:
            raise FoldMismatch(f"A seat of group {event.group} is given out of turn in the events served.")
        group.sequence = event.sequence
        if self._young(row, (MEMBERSHIP, event.group, event.uid)):
            return
        if event.uid in group.members:
            raise FoldMismatch(f"The user {event.uid} joins group {event.group} twice in the events served.")
        group.members[event.uid] = Member(Uid(event.uid), event.sequence, row.block)
        group.epoch, group.roster_hash = event.epoch, event.roster_hash

    def _on_member_removed(self, event: MemberRemoved, row: LogRow) -> None:
        group = self._turned(event, _REMOVE)
        group.epoch, group.roster_hash = event.epoch, event.roster_hash
        seat = (MEMBERSHIP, event.group, event.uid)
        if group.members.pop(event.uid, None) is None and seat not in self._pending:
            raise FoldMismatch(f"The user {event.uid} leaves group {event.group} without a seat.")
        self._pending.discard(seat)

    def _turned(self, event: MemberAdded | MemberRemoved, change: int) -> _Group:
        """The group of a change of roster, whose epoch and hash must follow from those before."""
        group = self._group(event.group)
        words = (group.chain_hash, change, event.uid, event.sequence)
        group.chain_epoch += 1
        group.chain_hash = keccak256(encode_abi(("bytes32", "uint8", "uint64", "uint32"), words))
        if (event.epoch, event.roster_hash) != (group.chain_epoch, group.chain_hash):
            raise FoldMismatch(f"The roster of group {event.group} has a gap at epoch {group.chain_epoch}.")
        return group

    def _group(self, number: int) -> _Group:
        group = self._groups.get(number)
        if group is None:
            raise FoldMismatch(f"An event names group {number}, whose creation was not served.")
        return group

    def _on_proposed(self, event: Proposed, row: LogRow) -> None:
        if event.id != len(self._proposals) + 1:
            raise FoldMismatch(f"Proposal {event.id} appears out of turn in the events served.")
        self._group(event.group)
        self._proposals[event.id] = _Proposal(event, row.block)

    def _on_voted(self, event: Voted, row: LogRow) -> None:
        proposal = self._open_proposal(event.id)
        proposal.yes += event.support
        proposal.no += not event.support
        if event.voter in proposal.voters or (event.yes, event.no) != (proposal.yes, proposal.no):
            raise FoldMismatch(f"The votes on proposal {event.id} do not add up in the events served.")
        proposal.voters[event.voter] = None

    def _on_closed(self, event: Closed, row: LogRow) -> None:
        self._open_proposal(event.id).state = _enum(ProposalState, event.state)

    def _open_proposal(self, number: int) -> _Proposal:
        proposal = self._proposals.get(number)
        if proposal is None or proposal.state is not ProposalState.OPEN:
            raise FoldMismatch(f"An event names proposal {number}, which is not open in the events served.")
        return proposal

    def _on_sealed(self, event: Sealed, row: LogRow) -> None:
        self.sealed = True

    def _on_relays_set(self, event: RelaysSet, row: LogRow) -> None:
        self.relays = tuple(RelayAddress(*relay) for relay in event.relays)

    def _on_successor_set(self, event: SuccessorSet, row: LogRow) -> None:
        self.successor = Address(event.successor)

    def _on_log_started(self, event: LogStarted, row: LogRow) -> None:
        last = next(reversed(self._logs.values()), None)
        before = (_NO_HASH, 0, _NO_HASH)
        if last is not None:
            head = last.head
            before = (last.started.log_id, *((head.size, head.root) if head else before[1:]))
        told = (event.previous_id, event.previous_size, event.previous_root)
        if event.log_id in self._logs or told != before:
            raise FoldMismatch("A log of messages starts without naming the last head of the one before.")
        self._logs[event.log_id] = _Log(event)

    def _on_head_anchored(self, event: HeadAnchored, row: LogRow) -> None:
        log = next(reversed(self._logs.values()), None)
        if log is None or log.started.log_id != event.log_id:
            raise FoldMismatch("A head is anchored in a log of messages that does not grow.")
        if log.head is not None and event.size <= log.head.size:
            raise FoldMismatch(f"The log of messages shrinks to {event.size} in the events served.")
        log.head = TreeHead(event.log_id, event.size, event.root, row.block, row.time)

    def _on_anchorer_set(self, event: AnchorerSet, row: LogRow) -> None:
        log = next(reversed(self._logs.values()), None)
        if (log.started.log_id if log is not None else _NO_HASH) != event.log_id:
            raise FoldMismatch("The anchorer is named for another log of messages than the one that grows.")
        self._anchorer = event.anchorer

    def _on_witnesses_set(self, event: WitnessesSet, row: LogRow) -> None:
        self._quorum, self._witnesses = event.quorum, event.witnesses

    def _on_root_set(self, event: RootSet, row: LogRow) -> None:
        root = RewardRoot(event.epoch, event.root, event.total, event.effective_at)
        if self._next_root is not None and self._next_root.effective_at <= row.time:
            self._root = self._next_root
        if event.epoch != (self._root.epoch if self._root is not None else 0) + 1:
            raise FoldMismatch(f"The root of epoch {event.epoch} appears out of turn in the events served.")
        self._next_root = root

    def _on_root_dropped(self, event: RootDropped, row: LogRow) -> None:
        dropped = self._next_root
        if dropped is None or (dropped.epoch, dropped.root) != (event.epoch, event.root):
            raise FoldMismatch(f"The root of epoch {event.epoch} is dropped without being set.")
        self._next_root = None

    def _on_setter_set(self, event: SetterSet, row: LogRow) -> None:
        self._setter = event.setter

    def _on_claimed(self, event: Claimed, row: LogRow) -> None:
        claimed = self._claimed.get(event.account, 0) + event.amount
        if event.cumulative != claimed:
            raise FoldMismatch("The claims of an account do not add up in the events served.")
        self._claimed[event.account] = claimed

    # -- answers

    def uids(self) -> tuple[Uid, ...]:
        """Every user in force, in order of registration."""
        return tuple(Uid(uid) for uid in self._users)

    def user(self, uid: Uid) -> User | None:
        """The user with this id."""
        user = self._users.get(uid)
        if user is None:
            return None
        return User(
            uid=uid,
            username=user.username,
            account=Address(user.account),
            recovery=Address(user.recovery),
            epoch=user.epoch,
            verifier=user.verifier,
            kdf=user.kdf,
            devices=tuple(_device(uid, number, device) for number, device in user.devices.items()),
            device_list_version=user.changes,
            block=user.block,
            time=user.time,
            keys=tuple(_published(number, key) for number, key in user.keys.items()),
            next_recovery=user.next_recovery,
            next_account=user.next_account,
            former_accounts=tuple(user.former),
        )

    def user_by_name(self, username: str) -> User | None:
        """The user with this name."""
        uid = self._names.get(username)
        return None if uid is None else self.user(Uid(uid))

    def user_by_address(self, address: Address) -> User | None:
        """The user whose account or active signer this is."""
        found = self._principals.get(address)
        return None if found is None else self.user(Uid(found[0]))

    def group(self, number: int) -> Group | None:
        """A group with its members in order of their seats."""
        group = self._groups.get(number)
        if group is None:
            return None
        return Group(
            group=number,
            name=group.name,
            policy=group.policy,
            threshold=group.threshold,
            voting_period=group.voting_period,
            epoch=group.epoch,
            roster_hash=group.roster_hash,
            members=tuple(group.members.values()),
        )

    def groups(self) -> tuple[Group, ...]:
        """Every group, group 0 first."""
        return tuple(group for number in self._groups if (group := self.group(number)) is not None)

    def group_by_name(self, name: str) -> Group | None:
        """The group with this name."""
        number = self._group_names.get(name)
        return None if number is None else self.group(number)

    def ledger(self) -> Ledger:
        """The logs of messages with their last heads, and who fills the offices."""
        witnesses = tuple(Address(witness) for witness in self._witnesses)
        return Ledger(tuple(map(_log, self._logs.values())), Address(self._anchorer), self._quorum, witnesses)

    def rewards(self, now: int) -> Rewards:
        """The roots of rewards as they stand at a time (seconds)."""
        current, pending = self._root, self._next_root
        if pending is not None and pending.effective_at <= now:
            current, pending = pending, None
        return Rewards(current, pending, Address(self._setter))

    def claimed(self, account: Address) -> int:
        """All that an account was given."""
        return self._claimed.get(account, 0)

    def proposals(self, group: int, now: int) -> tuple[Proposal, ...]:
        """A group's proposals, oldest first, as they stand at a time (seconds)."""
        return tuple(
            _proposal(proposal, now)
            for proposal in self._proposals.values()
            if proposal.opened.group == group
        )

    def proposal(self, number: ProposalId, now: int) -> Proposal | None:
        """One proposal as it stands at a time (seconds)."""
        proposal = self._proposals.get(number)
        return None if proposal is None else _proposal(proposal, now)


def device_head(history: Iterable[DeviceVersion]) -> bytes:
    """The commitment that the registry stores for a device with this history."""
    return _head((version.version, version.record) for version in history)


def key_head(history: Iterable[KeyVersion]) -> bytes:
    """The commitment that the registry stores for a published key with this history."""
    return _head((version.version, version.key) for version in history)


def _head(history: Iterable[tuple[int, bytes]]) -> bytes:
    head = _NO_HASH
    for version, content in history:
        words = (head, version, keccak256(content))
        head = keccak256(encode_abi(("bytes32", "uint256", "bytes32"), words))
    return head


def _version(user: _User, row: LogRow, version: int, signer: bytes, record: bytes) -> DeviceVersion:
    account = Address(user.account)
    return DeviceVersion(version, Address(signer), record, row.block, row.time, account)


def _published(number: int, key: _Key) -> PublishedKey:
    return PublishedKey(
        number=number,
        kind=key.kind,
        state=DeviceState.REVOKED if key.revoked else DeviceState.ACTIVE,
        head=key_head(key.history),
        history=tuple(key.history),
    )


def _log(log: _Log) -> Log:
    started = log.started
    return Log(started.log_id, started.previous_id, started.previous_size, started.previous_root, log.head)


def _device(uid: Uid, number: int, device: _Device) -> Device:
    revoked = device.revoked_block >= 0
    return Device(
        uid=uid,
        device=DeviceId(number),
        state=DeviceState.REVOKED if revoked else DeviceState.ACTIVE,
        head=device_head(device.history),
        history=tuple(device.history),
        revoked_block=device.revoked_block if revoked else 0,
        revoked_time=device.revoked_time,
    )


def _proposal(proposal: _Proposal, now: int) -> Proposal:
    opened = proposal.opened
    lapsed = proposal.state is ProposalState.OPEN and now > opened.deadline
    return Proposal(
        id=ProposalId(opened.id),
        group=opened.group,
        kind=_enum(Kind, opened.kind),
        subject=Uid(opened.subject),
        proposer=Uid(opened.proposer),
        electorate=opened.electorate,
        yes=proposal.yes,
        no=proposal.no,
        deadline=opened.deadline,
        state=ProposalState.EXPIRED if lapsed else proposal.state,
        voters=tuple(Uid(voter) for voter in proposal.voters),
        block=proposal.block,
        data=opened.data,
        decision=read_decision(_enum(Kind, opened.kind), opened.data),
    )


_E = TypeVar("_E", bound=IntEnum)


def _enum(kind: type[_E], value: int) -> _E:
    try:
        return kind(value)
    except ValueError:
        raise FoldMismatch(
            f"An event holds the {kind.__name__} {value}, which this version does not know."
        ) from None


_STEPS: Final[dict[type[Event], Callable[[Directory, Any, LogRow], None]]] = {
    Registered: Directory._on_registered,
    VerifierSet: Directory._on_verifier_set,
    DeviceAdded: Directory._on_device_added,
    DeviceUpdated: Directory._on_device_updated,
    DeviceRevoked: Directory._on_device_revoked,
    KeyAdded: Directory._on_key_added,
    KeyUpdated: Directory._on_key_updated,
    KeyRevoked: Directory._on_key_revoked,
    RecoverySet: Directory._on_recovery_set,
    RecoveryProposed: Directory._on_recovery_proposed,
    RecoveryVetoed: Directory._on_recovery_vetoed,
    AccountReplaced: Directory._on_account_replaced,
    NonceInvalidated: Directory._on_nonce_invalidated,
    Committed: Directory._on_committed,
    GroupCreated: Directory._on_group_created,
    RulesSet: Directory._on_rules_set,
    Paused: Directory._on_paused,
    Unpaused: Directory._on_unpaused,
    MemberAdded: Directory._on_member_added,
    MemberRemoved: Directory._on_member_removed,
    Proposed: Directory._on_proposed,
    Voted: Directory._on_voted,
    Closed: Directory._on_closed,
    Sealed: Directory._on_sealed,
    RelaysSet: Directory._on_relays_set,
    SuccessorSet: Directory._on_successor_set,
    LogStarted: Directory._on_log_started,
    HeadAnchored: Directory._on_head_anchored,
    AnchorerSet: Directory._on_anchorer_set,
    WitnessesSet: Directory._on_witnesses_set,
    RootSet: Directory._on_root_set,
    RootDropped: Directory._on_root_dropped,
    SetterSet: Directory._on_setter_set,
    Claimed: Directory._on_claimed,
}
