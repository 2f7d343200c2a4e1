"""Calldata for every verb of the contracts, and the questions that their views answer. Pure.

The signatures stand here as text, so that neither a client that sends a line nor the relay reads an ABI; a
test holds each of them against the ABIs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from chatchain.chain.encoding import Malformed, decode, encode, split_types
from chatchain.chain.rpc import Request, eth_call
from chatchain.errors import ChainError
from chatchain.identity.keys import keccak256
from chatchain.model import Address, Call, DeviceState, Network, ProposalId, RelayAddress, Uid

IDENTITY: Final = "identity"
MEMBERSHIP: Final = "membership"
DIRECTORY: Final = "directory"


def address_in(network: Network, contract: str) -> Address:
    """Where a contract named in a Call lives; raises ChainError for a name that is none."""
    match contract:
        case "identity":
            return network.registry
        case "membership":
            return network.membership
        case "directory":
            return network.directory
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
_SEAT: Final = _Verb(MEMBERSHIP, "seat(uint64[])")
_REQUEST: Final = _Verb(MEMBERSHIP, "request(uint32)")
_REQUEST_FOR: Final = _Verb(MEMBERSHIP, "requestFor(uint32,address,uint256,bytes)")
_PROPOSE: Final = _Verb(MEMBERSHIP, "propose(uint32,uint8,uint64,bytes)")
_PROPOSE_FOR: Final = _Verb(MEMBERSHIP, "proposeFor(uint32,uint8,uint64,bytes,address,uint256,bytes)")
_VOTE: Final = _Verb(MEMBERSHIP, "vote(uint64,bool)")
_VOTE_BY_SIG: Final = _Verb(MEMBERSHIP, "voteBySig(uint64,bool,address,bytes)")
_CLOSE: Final = _Verb(MEMBERSHIP, "close(uint64)")
_SEAL: Final = _Verb(DIRECTORY, "seal()")
_SET_RELAYS: Final = _Verb(DIRECTORY, "setRelays((string,bytes32,bytes32)[])")

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

    def vote(self, proposal: ProposalId, support: bool) -> Call:
        """Votes."""
        return _VOTE(proposal, support)

    def vote_by_sig(self, proposal: ProposalId, support: bool, voter: Address, signature: bytes) -> Call:
        """Votes by signature."""
        return _VOTE_BY_SIG(proposal, support, voter, signature)

    def close(self, proposal: ProposalId) -> Call:
        """Closes a proposal whose time is over."""
        return _CLOSE(proposal)

    def seal(self) -> Call:
        """Ends the deployer's role."""
        return _SEAL()

    def set_relays(self, relays: Sequence[RelayAddress]) -> Call:
        """Enters the relays."""
        return _SET_RELAYS([(relay.endpoint, relay.spki, relay.next_spki) for relay in relays])


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
MEMBERSHIP_DIRECTORY: Final = View(MEMBERSHIP, "directory()", ("address",))
MEMBERSHIP_REGISTRY: Final = View(MEMBERSHIP, "registry()", ("address",))
REGISTRY_ADDRESS: Final = View(DIRECTORY, "identityRegistry()", ("address",))
MEMBERSHIP_ADDRESS: Final = View(DIRECTORY, "membership()", ("address",))
RELAYS: Final = View(DIRECTORY, "relays()", ("(string,bytes32,bytes32)[]",))
IS_SEALED: Final = View(DIRECTORY, "isSealed()", ("bool",))
VERSION: Final = View(DIRECTORY, "version()", ("uint32",))

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


def relay_addresses(answer: tuple[Any, ...]) -> tuple[RelayAddress, ...]:
    """The answer of RELAYS."""
    return tuple(RelayAddress(endpoint, spki, next_spki) for endpoint, spki, next_spki in answer[0])
