"""Calldata for every verb of the contracts, and the questions that their views answer. Pure.

The signatures stand here as text, so that neither a client that sends a line nor the relay reads an ABI; a
test holds each of them against the ABIs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from chatchain.chain.decisions import decision_data
from chatchain.chain.encoding import Malformed, decode, encode, split_types
from chatchain.chain.rpc import Request, eth_call
from chatchain.errors import ChainError
from chatchain.identity.keys import keccak256
from chatchain.model import (
    Address,
    Call,
    Decision,
    DeviceState,
    KeyKind,
    Network,
    ProposalId,
    RelayAddress,
    Uid,
)

IDENTITY: Final = "identity"
MEMBERSHIP: Final = "membership"
DIRECTORY: Final = "directory"
LEDGER: Final = "ledger"
REWARDS: Final = "rewards"


def address_in(network: Network, contract: str) -> Address:
    """Where a contract named in a Call lives; raises ChainError for a name that is none."""
    match contract:
        case "identity":
            return network.registry
        case "membership":
            return network.membership
        case "directory":
            return network.directory
        case "ledger":
            return network.ledger
        case "rewards":
            return network.rewards
    raise ChainError(f"There is no contract called {contract[:32]!r}.")


class _Verb:
    """One function of a contract that changes state."""

    def __init__(self, contract: str, signature: str) -> None:
        self.contract = contract
        self.signature = signature
        self.types = _arguments(signature)
        self.selector = keccak256(signature.encode())[:4]

    def __call__(self, *values: object) -> Call:
        return Call(self.contract, self.selector + encode(self.types, values))


def _arguments(signature: str) -> tuple[str, ...]:
    return split_types(signature[signature.index("(") + 1 : -1])


_REGISTER: Final = _Verb(IDENTITY, "register(string,bytes32,bytes,address,address,bytes)")
_REGISTER_FOR: Final = _Verb(
    IDENTITY, "registerFor(address,string,bytes32,bytes,address,address,bytes,uint256,bytes)"
)
_ADD_DEVICE: Final = _Verb(IDENTITY, "addDevice(address,bytes)")
_ADD_DEVICE_FOR: Final = _Verb(IDENTITY, "addDeviceFor(uint64,address,bytes,uint256,bytes)")
_UPDATE_DEVICE: Final = _Verb(IDENTITY, "updateDevice(uint32,uint32,address,bytes)")
_UPDATE_DEVICE_FOR: Final = _Verb(
    IDENTITY, "updateDeviceFor(uint64,uint32,uint32,address,bytes,uint256,address,bytes)"
)
_REVOKE_DEVICE: Final = _Verb(IDENTITY, "revokeDevice(uint32)")
_REVOKE_DEVICE_FOR: Final = _Verb(IDENTITY, "revokeDeviceFor(uint64,uint32,uint256,bytes)")
_SET_VERIFIER: Final = _Verb(IDENTITY, "setVerifier(bytes32,bytes)")
_SET_VERIFIER_FOR: Final = _Verb(IDENTITY, "setVerifierFor(uint64,bytes32,bytes,uint256,bytes)")
_COMMIT: Final = _Verb(IDENTITY, "commit(bytes32)")
_ADD_KEY: Final = _Verb(IDENTITY, "addKey(uint8,bytes)")
_ADD_KEY_FOR: Final = _Verb(IDENTITY, "addKeyFor(uint64,uint8,bytes,uint256,bytes)")
_UPDATE_KEY: Final = _Verb(IDENTITY, "updateKey(uint32,uint32,bytes)")
_UPDATE_KEY_FOR: Final = _Verb(IDENTITY, "updateKeyFor(uint64,uint32,uint32,bytes,uint256,bytes)")
_REVOKE_KEY: Final = _Verb(IDENTITY, "revokeKey(uint32)")
_REVOKE_KEY_FOR: Final = _Verb(IDENTITY, "revokeKeyFor(uint64,uint32,uint256,bytes)")
_SET_RECOVERY: Final = _Verb(IDENTITY, "setRecovery(address)")
_SET_RECOVERY_FOR: Final = _Verb(IDENTITY, "setRecoveryFor(uint64,address,uint256,bytes)")
_PROPOSE_RECOVERY: Final = _Verb(IDENTITY, "proposeRecovery(uint64,address)")
_PROPOSE_RECOVERY_FOR: Final = _Verb(IDENTITY, "proposeRecoveryFor(uint64,address,uint256,bytes)")
_VETO_RECOVERY: Final = _Verb(IDENTITY, "vetoRecovery()")
_VETO_RECOVERY_FOR: Final = _Verb(IDENTITY, "vetoRecoveryFor(uint64,uint256,bytes)")
_FINALISE_RECOVERY: Final = _Verb(IDENTITY, "finaliseRecovery(uint64)")
_FINALISE_RECOVERY_FOR: Final = _Verb(IDENTITY, "finaliseRecoveryFor(uint64,uint256,bytes)")
_TRANSFER_FOR: Final = _Verb(IDENTITY, "transferFor(uint64,address,uint256,bytes,bytes)")
_INVALIDATE_NONCE: Final = _Verb(IDENTITY, "invalidateNonce()")
_INVALIDATE_NONCE_FOR: Final = _Verb(IDENTITY, "invalidateNonceFor(uint64,uint256,bytes)")
_SEAT: Final = _Verb(MEMBERSHIP, "seat(uint64[])")
_CREATE_GROUP: Final = _Verb(MEMBERSHIP, "createGroup(string,uint64[],(uint16,uint32))")
_CREATE_GROUP_FOR: Final = _Verb(
    MEMBERSHIP, "createGroupFor(string,uint64[],(uint16,uint32),address,uint256,bytes)"
)
_LEAVE: Final = _Verb(MEMBERSHIP, "leave(uint32)")
_LEAVE_FOR: Final = _Verb(MEMBERSHIP, "leaveFor(uint32,address,uint256,bytes)")
_REQUEST: Final = _Verb(MEMBERSHIP, "request(uint32)")
_REQUEST_FOR: Final = _Verb(MEMBERSHIP, "requestFor(uint32,address,uint256,bytes)")
_PROPOSE: Final = _Verb(MEMBERSHIP, "propose(uint32,uint8,uint64,bytes)")
_PROPOSE_FOR: Final = _Verb(MEMBERSHIP, "proposeFor(uint32,uint8,uint64,bytes,address,uint256,bytes)")
_VOTE: Final = _Verb(MEMBERSHIP, "vote(uint64,bool)")
_VOTE_BY_SIG: Final = _Verb(MEMBERSHIP, "voteBySig(uint64,bool,address,bytes)")
_VOTE_BATCH: Final = _Verb(MEMBERSHIP, "voteBatch((uint64,bool,address,bytes)[])")
_CLOSE: Final = _Verb(MEMBERSHIP, "close(uint64)")
_SEAL: Final = _Verb(DIRECTORY, "seal()")
_SET_RELAYS: Final = _Verb(DIRECTORY, "setRelays((string,bytes32,bytes32)[])")
_SET_SUCCESSOR: Final = _Verb(DIRECTORY, "setSuccessor(address)")
_ANCHOR: Final = _Verb(LEDGER, "anchor(bytes32,uint64,bytes32,bytes[])")
_SET_ANCHORER: Final = _Verb(LEDGER, "setAnchorer(address,bytes32)")
_SET_WITNESSES: Final = _Verb(LEDGER, "setWitnesses(uint8,address[])")
_SET_ROOT: Final = _Verb(REWARDS, "setRoot(bytes32,uint64,uint128)")
_SET_SETTER: Final = _Verb(REWARDS, "setSetter(address)")
_CLAIM: Final = _Verb(REWARDS, "claim(uint256,bytes32,bytes32[])")
_CLAIM_FOR: Final = _Verb(REWARDS, "claimFor(address,uint256,bytes32,bytes32[])")

VERBS: Final[tuple[_Verb, ...]] = tuple(
    value for value in globals().copy().values() if isinstance(value, _Verb)
)


def selector(call: Call) -> bytes:
    """The four bytes that say which verb a call is."""
    return call.data[:4]


def verb(call: Call) -> str:
    """The name of the function that a call runs, or "" when it is none of ours."""
    for known in VERBS:
        if known.contract == call.contract and known.selector == call.data[:4]:
            return known.signature.partition("(")[0]
    return ""


def arguments(call: Call) -> tuple[Any, ...]:
    """The decoded arguments of a call to one of our verbs; raises ChainError for other calldata."""
    for known in VERBS:
        if known.contract == call.contract and known.selector == call.data[:4]:
            try:
                return decode(known.types, call.data[4:])
            except Malformed as error:
                raise ChainError(f"The arguments of the call are malformed: {error}.") from error
    raise ChainError("The call is to no function of the contracts.")


class Calls:
    """Builds the calls that change state."""

    def register(
        self, username: str, verifier: bytes, kdf: bytes, recovery: Address, signer: Address, record: bytes
    ) -> Call:
        """Registers the sender with its first device."""
        return _REGISTER(username, verifier, kdf, recovery, signer, record)

    def register_for(
        self,
        account: Address,
        username: str,
        verifier: bytes,
        kdf: bytes,
        recovery: Address,
        signer: Address,
        record: bytes,
        deadline: int,
        signature: bytes,
    ) -> Call:
        """Registers an account that signed for it."""
        return _REGISTER_FOR(account, username, verifier, kdf, recovery, signer, record, deadline, signature)

    def add_device(self, signer: Address, record: bytes) -> Call:
        """Adds a device to the sender's."""
        return _ADD_DEVICE(signer, record)

    def add_device_for(
        self, uid: Uid, signer: Address, record: bytes, deadline: int, signature: bytes
    ) -> Call:
        """Adds a device by the account's signature."""
        return _ADD_DEVICE_FOR(uid, signer, record, deadline, signature)

    def update_device(self, device: int, version: int, signer: Address, record: bytes) -> Call:
        """Gives a device new keys."""
        return _UPDATE_DEVICE(device, version, signer, record)

    def update_device_for(
        self,
        uid: Uid,
        device: int,
        version: int,
        signer: Address,
        record: bytes,
        deadline: int,
        by: Address,
        signature: bytes,
    ) -> Call:
        """Gives a device new keys by signature of the account or of the device."""
        return _UPDATE_DEVICE_FOR(uid, device, version, signer, record, deadline, by, signature)

    def revoke_device(self, device: int) -> Call:
        """Withdraws a device for good."""
        return _REVOKE_DEVICE(device)

    def revoke_device_for(self, uid: Uid, device: int, deadline: int, signature: bytes) -> Call:
        """Withdraws a device by the account's signature."""
        return _REVOKE_DEVICE_FOR(uid, device, deadline, signature)

    def set_verifier(self, verifier: bytes, kdf: bytes) -> Call:
        """Changes the login verifier."""
        return _SET_VERIFIER(verifier, kdf)

    def set_verifier_for(
        self, uid: Uid, verifier: bytes, kdf: bytes, deadline: int, signature: bytes
    ) -> Call:
        """Changes the login verifier by the account's signature."""
        return _SET_VERIFIER_FOR(uid, verifier, kdf, deadline, signature)

    def commit(self, commitment: bytes) -> Call:
        """Commits to a registration without telling the name; see `registration_commitment`."""
        return _COMMIT(commitment)

    def commit_registration(self, username: str, account: Address, verifier: bytes) -> Call:
        """Commits to a registration of this name by this account."""
        return _COMMIT(registration_commitment(username, account, verifier))

    def add_key(self, kind: int, key: bytes) -> Call:
        """Publishes a key of the sender's."""
        return _ADD_KEY(kind, key)

    def add_key_for(self, uid: Uid, kind: int, key: bytes, deadline: int, signature: bytes) -> Call:
        """Publishes a key by the account's signature."""
        return _ADD_KEY_FOR(uid, kind, key, deadline, signature)

    def update_key(self, number: int, version: int, key: bytes) -> Call:
        """Replaces a published key."""
        return _UPDATE_KEY(number, version, key)

    def update_key_for(
        self, uid: Uid, number: int, version: int, key: bytes, deadline: int, signature: bytes
    ) -> Call:
        """Replaces a published key by the account's signature."""
        return _UPDATE_KEY_FOR(uid, number, version, key, deadline, signature)

    def revoke_key(self, number: int) -> Call:
        """Withdraws a published key for good."""
        return _REVOKE_KEY(number)

    def revoke_key_for(self, uid: Uid, number: int, deadline: int, signature: bytes) -> Call:
        """Withdraws a published key by the account's signature."""
        return _REVOKE_KEY_FOR(uid, number, deadline, signature)

    def set_recovery(self, recovery: Address) -> Call:
        """Names the address that may propose another account."""
        return _SET_RECOVERY(recovery)

    def set_recovery_for(self, uid: Uid, recovery: Address, deadline: int, signature: bytes) -> Call:
        """Names the recovery address by the account's signature."""
        return _SET_RECOVERY_FOR(uid, recovery, deadline, signature)

    def propose_recovery(self, uid: Uid, account: Address) -> Call:
        """Proposes another account for a user, as its recovery address."""
        return _PROPOSE_RECOVERY(uid, account)

    def propose_recovery_for(self, uid: Uid, account: Address, deadline: int, signature: bytes) -> Call:
        """Proposes another account by the recovery address's signature."""
        return _PROPOSE_RECOVERY_FOR(uid, account, deadline, signature)

    def veto_recovery(self) -> Call:
        """Refuses the pending recovery of the sender's user."""
        return _VETO_RECOVERY()

    def veto_recovery_for(self, uid: Uid, deadline: int, signature: bytes) -> Call:
        """Refuses the pending recovery by the account's signature."""
        return _VETO_RECOVERY_FOR(uid, deadline, signature)

    def finalise_recovery(self, uid: Uid) -> Call:
        """Makes the sender, which was proposed, the user's account."""
        return _FINALISE_RECOVERY(uid)

    def finalise_recovery_for(self, uid: Uid, deadline: int, signature: bytes) -> Call:
        """Ends a recovery by the proposed account's signature."""
        return _FINALISE_RECOVERY_FOR(uid, deadline, signature)

    def transfer_for(
        self, uid: Uid, to: Address, deadline: int, signature: bytes, signature_of_taker: bytes
    ) -> Call:
        """Hands a user over to another account, as both signed."""
        return _TRANSFER_FOR(uid, to, deadline, signature, signature_of_taker)

    def invalidate_nonce(self) -> Call:
        """Makes signatures void that somebody may hold and that carry the present nonce."""
        return _INVALIDATE_NONCE()

    def invalidate_nonce_for(self, uid: Uid, deadline: int, signature: bytes) -> Call:
        """The same by the account's signature."""
        return _INVALIDATE_NONCE_FOR(uid, deadline, signature)

    def create_group(self, name: str, founders: Sequence[Uid], threshold: int, voting_period: int) -> Call:
        """Creates a group of the sender's user and the founders."""
        return _CREATE_GROUP(name, list(founders), (threshold, voting_period))

    def create_group_for(
        self,
        name: str,
        founders: Sequence[Uid],
        threshold: int,
        voting_period: int,
        by: Address,
        deadline: int,
        signature: bytes,
    ) -> Call:
        """Creates a group for who signed."""
        rules = (threshold, voting_period)
        return _CREATE_GROUP_FOR(name, list(founders), rules, by, deadline, signature)

    def leave(self, group: int) -> Call:
        """Gives up the sender's seat."""
        return _LEAVE(group)

    def leave_for(self, group: int, by: Address, deadline: int, signature: bytes) -> Call:
        """Gives up the seat of who signed."""
        return _LEAVE_FOR(group, by, deadline, signature)

    def seat(self, uids: Sequence[Uid]) -> Call:
        """Seats founders, before the seal."""
        return _SEAT(list(uids))

    def request(self, group: int) -> Call:
        """Asks a group to admit the sender."""
        return _REQUEST(group)

    def request_for(self, group: int, by: Address, deadline: int, signature: bytes) -> Call:
        """Asks a group to admit who signed."""
        return _REQUEST_FOR(group, by, deadline, signature)

    def propose(self, group: int, kind: int, subject: Uid, data: bytes) -> Call:
        """Opens a proposal."""
        return _PROPOSE(group, kind, subject, data)

    def propose_for(
        self, group: int, kind: int, subject: Uid, data: bytes, by: Address, deadline: int, signature: bytes
    ) -> Call:
        """Opens a proposal by signature."""
        return _PROPOSE_FOR(group, kind, subject, data, by, deadline, signature)

    def decision_data(self, decision: Decision) -> bytes:
        """What `propose` takes as data to ask for this."""
        return decision_data(decision)

    def vote(self, proposal: ProposalId, support: bool) -> Call:
        """Votes."""
        return _VOTE(proposal, support)

    def vote_by_sig(self, proposal: ProposalId, support: bool, voter: Address, signature: bytes) -> Call:
        """Votes by signature."""
        return _VOTE_BY_SIG(proposal, support, voter, signature)

    def vote_batch(self, votes: Sequence[tuple[int, bool, bytes, bytes]]) -> Call:
        """Casts many votes: proposal, support, voter's address and signature of each."""
        return _VOTE_BATCH(list(votes))

    def close(self, proposal: ProposalId) -> Call:
        """Closes a proposal whose time is over."""
        return _CLOSE(proposal)

    def seal(self) -> Call:
        """Ends the deployer's role."""
        return _SEAL()

    def set_relays(self, relays: Sequence[RelayAddress]) -> Call:
        """Enters the relays."""
        return _SET_RELAYS([(relay.endpoint, relay.spki, relay.next_spki) for relay in relays])

    def set_successor(self, directory: Address) -> Call:
        """Recommends another network."""
        return _SET_SUCCESSOR(directory)

    def anchor(self, log_id: bytes, size: int, root: bytes, signatures: Sequence[bytes]) -> Call:
        """Enters a head of the log with its witnesses' signatures, ascending by their addresses."""
        return _ANCHOR(log_id, size, root, list(signatures))

    def set_anchorer(self, anchorer: Address, log_id: bytes) -> Call:
        """Says who anchors, and into which log."""
        return _SET_ANCHORER(anchorer, log_id)

    def set_witnesses(self, quorum: int, witnesses: Sequence[Address]) -> Call:
        """Says who witnesses, ascending, and how many of them a head needs."""
        return _SET_WITNESSES(quorum, list(witnesses))

    def set_root(self, root: bytes, epoch: int, total: int) -> Call:
        """Publishes the root of an epoch's rewards."""
        return _SET_ROOT(root, epoch, total)

    def set_setter(self, setter: Address) -> Call:
        """Says who publishes roots of rewards."""
        return _SET_SETTER(setter)

    def claim(self, cumulative: int, expected_root: bytes, proof: Sequence[bytes]) -> Call:
        """Claims what the sender earned."""
        return _CLAIM(cumulative, expected_root, list(proof))

    def claim_for(
        self, account: Address, cumulative: int, expected_root: bytes, proof: Sequence[bytes]
    ) -> Call:
        """Claims what an account earned, for it."""
        return _CLAIM_FOR(account, cumulative, expected_root, list(proof))


def registration_commitment(username: str, account: Address, verifier: bytes) -> bytes:
    """What `commit` takes before a registration of this name by this account."""
    words = (keccak256(username.encode()), account, verifier)
    return keccak256(encode(("bytes32", "address", "bytes32"), words))


# --- views ----------------------------------------------------------------------------------------------


class View(NamedTuple):
    """One function that only answers."""

    contract: str
    signature: str
    returns: tuple[str, ...]

    def data(self, *values: object) -> bytes:
        """The calldata."""
        return keccak256(self.signature.encode())[:4] + encode(_arguments(self.signature), values)

    def request(self, to: Address, *values: object, block: str = "latest") -> Request:
        """The JSON-RPC request."""
        return eth_call(to, self.data(*values), block)

    def answer(self, data: bytes) -> tuple[Any, ...]:
        """The decoded answer; raises ChainError when it is not one that this function gives."""
        try:
            return decode(self.returns, data)
        except Malformed as error:
            name = self.signature.partition("(")[0]
            raise ChainError(f"An endpoint gave a malformed answer to {name}: {error}.") from error


DEVICES: Final = View(IDENTITY, "devices(uint64)", ("(uint8,uint32,address,bytes32)[]",))
USER: Final = View(IDENTITY, "user(uint64)", ("address", "uint32", "uint32", "uint32", "bytes32", "address"))
UID_OF: Final = View(IDENTITY, "uidOf(string)", ("uint64",))
RESOLVE: Final = View(IDENTITY, "resolve(address)", ("uint64", "uint32", "uint32"))
USER_COUNT: Final = View(IDENTITY, "userCount()", ("uint64",))
GROUP: Final = View(MEMBERSHIP, "group(uint32)", ("uint32", "uint32", "bytes32", "uint8", "uint16", "uint32"))
MEMBER: Final = View(MEMBERSHIP, "member(uint32,uint64)", ("bool", "uint32"))
MAY_SEND: Final = View(MEMBERSHIP, "maySend(uint64)", ("bool",))
HAS_VOTED: Final = View(MEMBERSHIP, "hasVoted(uint64,uint64)", ("bool",))
PROPOSAL: Final = View(
    MEMBERSHIP,
    "proposal(uint64)",
    ("(uint32,uint8,uint64,uint64,uint32,uint32,uint32,uint64,uint8,bytes32)",),
)
PROPOSAL_COUNT: Final = View(MEMBERSHIP, "proposalCount()", ("uint64",))
KEYS: Final = View(IDENTITY, "keys(uint64)", ("(uint8,uint8,uint32,bytes32)[]",))
RECOVERY_OF: Final = View(IDENTITY, "recoveryOf(uint64)", ("(address,address,uint64,address,uint64,uint64)",))
GUARDED_UNTIL: Final = View(IDENTITY, "guardedUntil()", ("uint64",))
COMMITTED_AT: Final = View(IDENTITY, "committedAt(bytes32)", ("uint64", "uint64"))
GROUP_NAMED: Final = View(MEMBERSHIP, "groupNamed(string)", ("bool", "uint32"))
GROUP_COUNT: Final = View(MEMBERSHIP, "groupCount()", ("uint32",))
PAUSED_UNTIL: Final = View(MEMBERSHIP, "pausedUntil()", ("uint64",))
PAYLOAD: Final = View(MEMBERSHIP, "payload(uint64)", ("bytes",))
MEMBERSHIP_DIRECTORY: Final = View(MEMBERSHIP, "directory()", ("address",))
MEMBERSHIP_REGISTRY: Final = View(MEMBERSHIP, "registry()", ("address",))
REGISTRY_ADDRESS: Final = View(DIRECTORY, "identityRegistry()", ("address",))
MEMBERSHIP_ADDRESS: Final = View(DIRECTORY, "membership()", ("address",))
LEDGER_ADDRESS: Final = View(DIRECTORY, "messageLedger()", ("address",))
REWARDS_ADDRESS: Final = View(DIRECTORY, "rewardDistributor()", ("address",))
SUCCESSOR: Final = View(DIRECTORY, "successor()", ("address",))
RELAYS: Final = View(DIRECTORY, "relays()", ("(string,bytes32,bytes32)[]",))
IS_SEALED: Final = View(DIRECTORY, "isSealed()", ("bool",))
VERSION: Final = View(DIRECTORY, "version()", ("uint32",))
LEDGER_DIRECTORY: Final = View(LEDGER, "directory()", ("address",))
LEDGER_MEMBERSHIP: Final = View(LEDGER, "membership()", ("address",))
ANCHORER: Final = View(LEDGER, "anchorer()", ("address",))
CURRENT_LOG: Final = View(LEDGER, "currentLog()", ("bytes32",))
LOG: Final = View(LEDGER, "log(bytes32)", ("(uint64,uint64,bool,bytes32,bytes32)",))
WITNESSES: Final = View(LEDGER, "witnesses()", ("uint8", "address[]"))
REWARDS_DIRECTORY: Final = View(REWARDS, "directory()", ("address",))
REWARDS_MEMBERSHIP: Final = View(REWARDS, "membership()", ("address",))
TOKEN: Final = View(REWARDS, "token()", ("address",))
SETTER: Final = View(REWARDS, "setter()", ("address",))
CURRENT_ROOT: Final = View(REWARDS, "current()", ("(bytes32,uint128,uint64,uint64)",))
PENDING_ROOT: Final = View(REWARDS, "pending()", ("(bytes32,uint128,uint64,uint64)",))
CLAIMED: Final = View(REWARDS, "claimed(address)", ("uint256",))

VIEWS: Final[tuple[View, ...]] = tuple(
    value for value in globals().copy().values() if isinstance(value, View)
)


class DeviceInfo(msgspec.Struct, frozen=True):
    """What the registry stores of one device."""

    state: DeviceState
    version: int
    signer: Address
    head: bytes


def device_infos(answer: tuple[Any, ...]) -> tuple[DeviceInfo, ...]:
    """The answer of DEVICES; raises ChainError for a state that does not exist."""
    try:
        return tuple(DeviceInfo(DeviceState(state), *rest) for state, *rest in answer[0])
    except ValueError as error:
        raise ChainError("An endpoint told a device state that does not exist.") from error


class KeyInfo(msgspec.Struct, frozen=True):
    """What the registry stores of one published key."""

    kind: KeyKind
    state: DeviceState
    version: int
    head: bytes


def key_infos(answer: tuple[Any, ...]) -> tuple[KeyInfo, ...]:
    """The answer of KEYS; raises ChainError for a kind or state that does not exist."""
    try:
        return tuple(KeyInfo(KeyKind(kind), DeviceState(state), *rest) for kind, state, *rest in answer[0])
    except ValueError as error:
        raise ChainError("An endpoint told a kind or state of a key that does not exist.") from error


def relay_addresses(answer: tuple[Any, ...]) -> tuple[RelayAddress, ...]:
    """The answer of RELAYS."""
    return tuple(RelayAddress(endpoint, spki, next_spki) for endpoint, spki, next_spki in answer[0])
