"""The EIP-712 digests that accounts and devices sign; field order is the contracts'.

A small encoder for the few field types in use, so that signing a login imports no Ethereum library. The
contracts verify the same digests; tests compare each with an independent encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from chatchain.identity.keys import keccak256
from chatchain.model import (
    Address,
    Decision,
    KeyKind,
    Kind,
    Network,
    Policy,
    Reason,
    SetAnchorer,
    SetRelays,
    SetRewards,
    SetRules,
    SetSuccessor,
    SetWitnesses,
)

DOMAIN_NAME = "chatchain"
DOMAIN_VERSION = "1"

_DOMAIN = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"

REGISTER = (
    "Register(string username,address account,bytes32 verifier,bytes kdf,address recovery,"
    "address signer,bytes record,uint256 deadline)"
)
ADD_DEVICE = "AddDevice(uint64 uid,uint32 epoch,address signer,bytes record,uint256 nonce,uint256 deadline)"
UPDATE_DEVICE = (
    "UpdateDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint32 version,"
    "address signer,bytes record,uint256 deadline)"
)
REVOKE_DEVICE = "RevokeDevice(uint64 uid,uint32 epoch,uint32 deviceId,uint256 deadline)"
SET_VERIFIER = (
    "SetVerifier(uint64 uid,uint32 epoch,bytes32 verifier,bytes kdf,uint256 nonce,uint256 deadline)"
)
ADD_KEY = "AddKey(uint64 uid,uint32 epoch,string keyType,bytes key,uint256 nonce,uint256 deadline)"
UPDATE_KEY = "UpdateKey(uint64 uid,uint32 epoch,uint32 keyId,uint32 version,bytes key,uint256 deadline)"
REVOKE_KEY = "RevokeKey(uint64 uid,uint32 epoch,uint32 keyId,uint256 deadline)"
SET_RECOVERY = "SetRecovery(uint64 uid,uint32 epoch,address recovery,uint256 nonce,uint256 deadline)"
PROPOSE_RECOVERY = "ProposeRecovery(uint64 uid,uint32 epoch,address account,uint256 nonce,uint256 deadline)"
VETO_RECOVERY = "VetoRecovery(uint64 uid,uint32 epoch,address account,uint256 nonce,uint256 deadline)"
FINALISE_RECOVERY = "FinaliseRecovery(uint64 uid,uint32 epoch,address account,uint256 deadline)"
TRANSFER = "Transfer(uint64 uid,uint32 epoch,address from,address to,uint256 nonce,uint256 deadline)"
INVALIDATE_NONCE = "InvalidateNonce(uint64 uid,uint32 epoch,uint256 nonce,uint256 deadline)"
CREATE_GROUP = (
    "CreateGroup(string name,uint64[] founders,uint16 threshold,uint32 votingPeriod,"
    "uint64 creator,uint32 epoch,uint256 deadline)"
)
LEAVE = "Leave(string group,uint64 uid,uint32 sequence,uint32 epoch,uint256 deadline)"
TREE_HEAD = "TreeHead(bytes32 logId,uint64 size,bytes32 root)"
REQUEST = "Request(string group,uint64 uid,uint32 epoch,uint256 deadline)"


def _proposing(matter: str) -> str:
    name, _, fields = matter.partition("(")
    return f"{name}(string action,string group,{fields[:-1]},uint64 proposer,uint32 epoch,uint256 deadline)"


RELAY = "Relay(string endpoint,bytes32 spki,bytes32 nextSpki)"
PROPOSE = _proposing("Propose(uint64 subject,string reason)")
PROPOSE_RULES = _proposing("ProposeRules(bool onlyMembersSend,uint16 threshold,uint32 votingPeriod)")
PROPOSE_ANCHORER = _proposing("ProposeAnchorer(address anchorer,bytes32 logId)")
PROPOSE_WITNESSES = _proposing("ProposeWitnesses(uint8 quorum,address[] witnesses)")
PROPOSE_RELAYS = _proposing("ProposeRelays(Relay[] relays)") + RELAY
PROPOSE_REWARDS = _proposing("ProposeRewards(address setter)")
PROPOSE_SUCCESSOR = _proposing("ProposeSuccessor(address successor)")
PROPOSE_PAUSE = _proposing("ProposePause(string reason)")
ACTIONS: Final = {
    Kind.ADMIT: "Admit a member",
    Kind.EXPEL: "Expel a member",
    Kind.SET_RULES: "Change the rules",
    Kind.SET_ANCHORER: "Choose who anchors the log",
    Kind.SET_WITNESSES: "Choose who witnesses the log",
    Kind.SET_RELAYS: "Choose the relays",
    Kind.SET_REWARDS: "Choose who publishes rewards",
    Kind.SUCCESSOR: "Recommend another network",
    Kind.PAUSE: "Pause the network for 7 days",
    Kind.UNPAUSE: "End the pause of the network",
}
"""The words that a wallet shows of a proposal, before its values."""

VOTE = "Vote(uint64 proposal,uint64 voter,uint32 epoch,bool support)"
LOGIN = "Login(bytes32 spki,bytes32 nonce,uint64 uid,uint32 device,uint32 epoch)"
INVITATION = "Invitation(uint64 inviter,uint32 epoch,uint128 id,uint256 expires)"

Value = int | bytes | str | bool | tuple["Value", ...]


def register_digest(
    network: Network,
    username: str,
    account: Address,
    verifier: bytes,
    kdf: bytes,
    recovery: Address,
    signer: Address,
    record: bytes,
    deadline: int,
) -> bytes:
    """What the new account signs so that a sponsor may register it."""
    return _registry(network, REGISTER, username, account, verifier, kdf, recovery, signer, record, deadline)


def add_device_digest(
    network: Network, uid: int, epoch: int, signer: Address, record: bytes, nonce: int, deadline: int
) -> bytes:
    """What the account signs to add a device."""
    return _registry(network, ADD_DEVICE, uid, epoch, signer, record, nonce, deadline)


def add_device_prompt(
    network: Network, uid: int, epoch: int, signer: Address, record: bytes, nonce: int, deadline: int
) -> dict[str, object]:
    """What a wallet shows and signs for the same, as eth_signTypedData_v4 takes it: values of JSON only."""
    values = (uid, epoch, signer, record, nonce, deadline)
    return _prompt(network.chain_id, network.registry, ADD_DEVICE, values)


def update_device_digest(
    network: Network,
    uid: int,
    epoch: int,
    device: int,
    version: int,
    signer: Address,
    record: bytes,
    deadline: int,
) -> bytes:
    """What the account or the device's signer signs to replace the device's keys."""
    return _registry(network, UPDATE_DEVICE, uid, epoch, device, version, signer, record, deadline)


def revoke_device_digest(network: Network, uid: int, epoch: int, device: int, deadline: int) -> bytes:
    """What the account signs to revoke a device for good."""
    return _registry(network, REVOKE_DEVICE, uid, epoch, device, deadline)


def set_verifier_digest(
    network: Network, uid: int, epoch: int, verifier: bytes, kdf: bytes, nonce: int, deadline: int
) -> bytes:
    """What the account signs to change the login password's verifier."""
    return _registry(network, SET_VERIFIER, uid, epoch, verifier, kdf, nonce, deadline)


def add_key_digest(
    network: Network, uid: int, epoch: int, kind: KeyKind, key: bytes, nonce: int, deadline: int
) -> bytes:
    """What the account signs to publish a key."""
    return _registry(network, ADD_KEY, uid, epoch, kind.name, key, nonce, deadline)


def update_key_digest(
    network: Network, uid: int, epoch: int, number: int, version: int, key: bytes, deadline: int
) -> bytes:
    """What the account signs to replace a published key."""
    return _registry(network, UPDATE_KEY, uid, epoch, number, version, key, deadline)


def revoke_key_digest(network: Network, uid: int, epoch: int, number: int, deadline: int) -> bytes:
    """What the account signs to withdraw a published key for good."""
    return _registry(network, REVOKE_KEY, uid, epoch, number, deadline)


def set_recovery_digest(
    network: Network, uid: int, epoch: int, recovery: Address, nonce: int, deadline: int
) -> bytes:
    """What the account signs to name its recovery address."""
    return _registry(network, SET_RECOVERY, uid, epoch, recovery, nonce, deadline)


def propose_recovery_digest(
    network: Network, uid: int, epoch: int, account: Address, nonce: int, deadline: int
) -> bytes:
    """What the recovery address signs to propose another account."""
    return _registry(network, PROPOSE_RECOVERY, uid, epoch, account, nonce, deadline)


def propose_recovery_prompt(
    network: Network, uid: int, epoch: int, account: Address, nonce: int, deadline: int
) -> dict[str, object]:
    """What a wallet shows and signs for the same, as eth_signTypedData_v4 takes it."""
    values = (uid, epoch, account, nonce, deadline)
    return _prompt(network.chain_id, network.registry, PROPOSE_RECOVERY, values)


def veto_recovery_digest(
    network: Network, uid: int, epoch: int, account: Address, nonce: int, deadline: int
) -> bytes:
    """What the account signs to refuse the account that was proposed."""
    return _registry(network, VETO_RECOVERY, uid, epoch, account, nonce, deadline)


def finalise_recovery_digest(
    network: Network, uid: int, epoch: int, account: Address, deadline: int
) -> bytes:
    """What the proposed account signs to take over."""
    return _registry(network, FINALISE_RECOVERY, uid, epoch, account, deadline)


def transfer_digest(
    network: Network, uid: int, epoch: int, giver: Address, taker: Address, nonce: int, deadline: int
) -> bytes:
    """What both accounts sign to hand a user over."""
    return _registry(network, TRANSFER, uid, epoch, giver, taker, nonce, deadline)


def invalidate_nonce_digest(network: Network, uid: int, epoch: int, nonce: int, deadline: int) -> bytes:
    """What the account signs to make signatures with the present nonce void."""
    return _registry(network, INVALIDATE_NONCE, uid, epoch, nonce, deadline)


def create_group_digest(
    network: Network,
    name: str,
    founders: Sequence[int],
    threshold: int,
    voting_period: int,
    creator: int,
    epoch: int,
    deadline: int,
) -> bytes:
    """What an account or device signs to create a group."""
    return _membership(
        network, CREATE_GROUP, name, tuple(founders), threshold, voting_period, creator, epoch, deadline
    )


def leave_digest(network: Network, group: str, uid: int, sequence: int, epoch: int, deadline: int) -> bytes:
    """What a member's account or device signs to give up the seat with this sequence; `group` is a name."""
    return _membership(network, LEAVE, group, uid, sequence, epoch, deadline)


def tree_head_digest(network: Network, log_id: bytes, size: int, root: bytes) -> bytes:
    """What a witness signs of a head of the log of messages."""
    return _digest(network.chain_id, network.ledger, TREE_HEAD, (log_id, size, root))


def login_digest(network: Network, spki: bytes, nonce: bytes, uid: int, device: int, epoch: int) -> bytes:
    """What the login key and the device's signer both sign to log in at a relay."""
    return _registry(network, LOGIN, spki, nonce, uid, device, epoch)


def invitation_digest(network: Network, inviter: int, epoch: int, id: bytes, expires: int) -> bytes:
    """What a member's account or device signs to have the relay register one newcomer."""
    return _registry(network, INVITATION, inviter, epoch, int.from_bytes(id, "big"), expires)


def request_digest(network: Network, group: str, uid: int, epoch: int, deadline: int) -> bytes:
    """What an account or device signs to ask for membership in a group, by its name."""
    return _membership(network, REQUEST, group, uid, epoch, deadline)


def propose_digest(
    network: Network,
    group: str,
    kind: Kind,
    subject: int,
    decision: Decision,
    proposer: int,
    epoch: int,
    deadline: int,
) -> bytes:
    """What a member's account or device signs to open a proposal in a group, by its name."""
    struct, matter = _matter(kind, subject, decision)
    return _membership(network, struct, ACTIONS[kind], group, *matter, proposer, epoch, deadline)


def _matter(kind: Kind, subject: int, decision: Decision) -> tuple[str, tuple[Value, ...]]:
    """The struct in which such a proposal is signed, and what stands in it between group and proposer."""
    match decision:
        case Reason(text):
            return (PROPOSE, (subject, text)) if kind <= Kind.EXPEL else (PROPOSE_PAUSE, (text,))
        case SetRules(policy, threshold, voting_period):
            return PROPOSE_RULES, (policy is Policy.VOTE, threshold, voting_period)
        case SetAnchorer(anchorer, log_id):
            return PROPOSE_ANCHORER, (anchorer, log_id)
        case SetWitnesses(quorum, witnesses):
            return PROPOSE_WITNESSES, (quorum, witnesses)
        case SetRelays(relays):
            return PROPOSE_RELAYS, (tuple((one.endpoint, one.spki, one.next_spki) for one in relays),)
        case SetRewards(setter):
            return PROPOSE_REWARDS, (setter,)
        case SetSuccessor(directory):
            return PROPOSE_SUCCESSOR, (bytes(20) if directory is None else directory,)


def vote_digest(network: Network, proposal: int, voter: int, epoch: int, support: bool) -> bytes:
    """What a member's account or device signs to vote; `voter` is a uid."""
    return _membership(network, VOTE, proposal, voter, epoch, support)


def _registry(network: Network, kind: str, *values: Value) -> bytes:
    return _digest(network.chain_id, network.registry, kind, values)


def _membership(network: Network, kind: str, *values: Value) -> bytes:
    return _digest(network.chain_id, network.membership, kind, values)


def _digest(chain_id: int, contract: Address, kind: str, values: tuple[Value, ...]) -> bytes:
    return keccak256(b"\x19\x01" + _domain_separator(chain_id, contract) + _struct_hash(kind, values))


def _prompt(chain_id: int, contract: Address, kind: str, values: tuple[Value, ...]) -> dict[str, object]:
    domain = (DOMAIN_NAME, DOMAIN_VERSION, chain_id, contract)
    kinds = {text.partition("(")[0]: _fields(text) for text in (_DOMAIN, kind)}
    return {
        "types": {
            name: [{"name": field, "type": solidity} for solidity, field in fields]
            for name, fields in kinds.items()
        },
        "primaryType": kind.partition("(")[0],
        "domain": _shown(_fields(_DOMAIN), domain),
        "message": _shown(_fields(kind), values),
    }


def _fields(kind: str) -> list[tuple[str, str]]:
    inside = kind[kind.index("(") + 1 : kind.index(")")]
    return [(field.split(" ")[0], field.split(" ")[1]) for field in inside.split(",")]


def _shown(fields: list[tuple[str, str]], values: tuple[Value, ...]) -> dict[str, object]:
    return {
        name: "0x" + value.hex() if isinstance(value, bytes) else value
        for (_, name), value in zip(fields, values, strict=True)
    }


@lru_cache(maxsize=64)
def _domain_separator(chain_id: int, contract: Address) -> bytes:
    return _struct_hash(_DOMAIN, (DOMAIN_NAME, DOMAIN_VERSION, chain_id, contract))


def _struct_hash(kind: str, values: tuple[Value, ...]) -> bytes:
    type_hash, encoders = _shape(kind)
    return keccak256(
        type_hash + b"".join(encode(value) for encode, value in zip(encoders, values, strict=True))
    )


@lru_cache(maxsize=32)
def _shape(kind: str) -> tuple[bytes, tuple[Callable[[Value], bytes], ...]]:
    return keccak256(kind.encode()), tuple(_encoder(solidity) for solidity, _ in _fields(kind))


def _encoder(solidity: str) -> Callable[[Value], bytes]:
    if solidity.endswith("[]"):
        return _array(_encoder(solidity.removesuffix("[]")))
    match solidity:
        case "string":
            return _string
        case "bytes":
            return _dynamic_bytes
        case "bytes32":
            return _fixed(32)
        case "address":
            return _fixed(20)
        case "bool":
            return _bool
        case "Relay":
            return _relay
        case _ if solidity.startswith("uint"):
            return _uint(int(solidity.removeprefix("uint")))
    raise ValueError(f"no encoder for {solidity}")


def _string(value: Value) -> bytes:
    if not isinstance(value, str):
        raise TypeError("a string field takes text")
    return keccak256(value.encode())


def _dynamic_bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a bytes field takes bytes")
    return keccak256(value)


def _bool(value: Value) -> bytes:
    if not isinstance(value, bool):
        raise TypeError("a bool field takes a bool")
    return bytes(31) + bytes([value])


def _array(item: Callable[[Value], bytes]) -> Callable[[Value], bytes]:
    def encode(value: Value) -> bytes:
        if not isinstance(value, tuple):
            raise TypeError("an array field takes a tuple")
        return keccak256(b"".join(item(one) for one in value))

    return encode


def _relay(value: Value) -> bytes:
    if not isinstance(value, tuple):
        raise TypeError("a struct takes a tuple")
    return _struct_hash(RELAY, value)


def _fixed(size: int) -> Callable[[Value], bytes]:
    def encode(value: Value) -> bytes:
        if not isinstance(value, bytes) or len(value) != size:
            raise ValueError(f"this field takes exactly {size} bytes")
        return value.rjust(32, b"\0")

    return encode


def _uint(bits: int) -> Callable[[Value], bytes]:
    def encode(value: Value) -> bytes:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise ValueError(f"this field takes a uint{bits}")
        return value.to_bytes(32, "big")

    return encode
