"""Turns what a contract reverts with into a sentence and the failure that it is.

Nodes hand over four bytes of selector and encoded values, undecoded, in several wrappings. The table below
has one entry for every custom error of the ABIs; a test keeps it so.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from chatchain.chain.encoding import Malformed, decode, split_types
from chatchain.errors import (
    AlreadyDone,
    AlreadyVoted,
    ChatchainError,
    CommitmentNeeded,
    LimitReached,
    MalformedName,
    NameUnavailable,
    NotAMember,
    NotFoundError,
    RefusedError,
    Reverted,
    TooLarge,
    UnknownDevice,
    UnknownProposal,
    UnknownUser,
    UsageError,
    VerificationError,
    VotingClosed,
)
from chatchain.identity.keys import keccak256, to_checksum
from chatchain.model import Address, Kind, ProposalState

_Failure: TypeAlias = Callable[..., ChatchainError]


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "a time far away"


def _address(address: bytes) -> str:
    return to_checksum(Address(address))


def _state(state: int) -> str:
    return ProposalState(state).name.lower() if state in set(ProposalState) else "closed"


def _plain(name: str, sentence: str, hint: str = "") -> _Failure:
    """A revert without a narrower class: it keeps its name and values for programs."""
    return lambda *values: Reverted(sentence.format(*values), hint, error=name, values=values)


def _kind(kind: int) -> str:
    return Kind(kind).name if kind in set(Kind) else f"the kind {kind}"


def _chat(amount: int) -> str:
    whole = f"{amount // 10**18}.{amount % 10**18:018}".rstrip("0").rstrip(".")
    return f"{whole} CHAT"


_NOT_ZERO: Final = "The token takes no zero address there."
_STALE: Final = "Synchronise and try again: the state changed in between."
_SIGN_AGAIN: Final = "Run the command again: it signs anew."

FAILURES: Final[dict[str, _Failure]] = {
    # IdentityRegistry
    "NameMalformed(string)": lambda name: MalformedName(f"{name!r} is not a possible name."),
    "NameTaken(string)": lambda name: NameUnavailable(f"The name {name} is taken."),
    "NameReserved(string)": lambda name: NameUnavailable(f"The name {name} is reserved."),
    "AddressTaken(address)": lambda address: AlreadyDone(
        f"The address {_address(address)} already belongs to a user of this network.",
        "An account or device key serves one user once; use another.",
    ),
    "NotRegistered(address)": lambda address: UnknownUser(
        f"The address {_address(address)} belongs to no user of this network.",
        "Register first, or check which account or device signs.",
    ),
    "UnknownUser(uint64)": lambda uid: UnknownUser(f"Nobody has the id {uid}."),
    "UnknownDevice(uint64,uint32)": lambda uid, device: UnknownDevice(
        f"The user {uid} has no device {device}."
    ),
    "DeviceNotActive(uint64,uint32)": lambda uid, device: RefusedError(
        f"Device {device} of the user {uid} is revoked, and that is for good.", "Add a new device instead."
    ),
    "NotAuthorized(address)": lambda caller: RefusedError(
        f"{_address(caller)} may not do this: only the user's account may, or the device for itself."
    ),
    "WrongVersion(uint32,uint32)": lambda expected, given: RefusedError(
        f"The device is due for version {expected}, and version {given} was offered: another update "
        f"came first.",
        _STALE,
    ),
    "TooManyDevices(uint32)": lambda limit: LimitReached(
        f"A user has at most {limit} active devices.", "Revoke one that is no longer used."
    ),
    "UnknownKey(uint64,uint32)": lambda uid, key: NotFoundError(
        f"The user {uid} has published no key {key}."
    ),
    "KeyNotActive(uint64,uint32)": lambda uid, key: RefusedError(
        f"Key {key} of the user {uid} is revoked, and that is for good.", "Publish a new key instead."
    ),
    "TooManyKeys(uint32)": lambda limit: LimitReached(
        f"A user publishes at most {limit} active keys.", "Revoke one that is no longer used."
    ),
    "MalformedKey()": lambda: UsageError(
        "The key is no RSA public key of 2048 bits with the exponent 65537 in DER."
    ),
    "RecoveryPending(uint64)": lambda uid: RefusedError(
        f"A recovery of the user {uid} is pending, and until it ends nothing can be added.",
        "If it is not meant, refuse it with the account; else wait until the new account has taken over.",
    ),
    "NoRecovery(uint64)": lambda uid: RefusedError(f"No recovery of the user {uid} is pending."),
    "RecoveryNotReady(uint64)": lambda ready: RefusedError(
        f"The new account may take over from {_time(ready)} on, not before."
    ),
    "VetoSpent(uint64)": lambda ready: LimitReached(
        f"A recovery can be refused once in 30 days, and so again from {_time(ready)} on."
    ),
    "CommitmentNeeded(uint64)": lambda until: CommitmentNeeded(
        f"Until {_time(until)} a registration must have been committed to in an earlier block.",
        "Commit first, or wait until then.",
    ),
    "AlreadyCommitted(bytes32)": lambda commitment: AlreadyDone(
        "This registration was committed to already.", "Register now, from the next block on."
    ),
    "BadLength(uint256)": _plain("BadLength", "The contract does not take a value of {0} bytes there."),
    "EmptyVerifier()": _plain("EmptyVerifier", "The contract does not take an empty password verifier."),
    "ZeroAddress()": _plain("ZeroAddress", "The contract does not take the zero address there."),
    # All that take signatures
    "Expired(uint256)": lambda deadline: RefusedError(
        f"The signature was valid until {_time(deadline)}, and that time is over.", _SIGN_AGAIN
    ),
    "BadSignature()": lambda: VerificationError(
        "The contract does not accept the signature: it is by another key, or for another network or state.",
        _SIGN_AGAIN,
    ),
    "SignatureUsed()": lambda: AlreadyDone(
        "This signature was used before and counts only once.", _SIGN_AGAIN
    ),
    # Membership
    "NotMember(uint64)": lambda uid: NotAMember(f"The user {uid} is not a member."),
    "AlreadyMember(uint64)": lambda uid: AlreadyDone(f"The user {uid} is a member already."),
    "AlreadyVoted(uint64,uint64)": lambda proposal, voter: AlreadyVoted(
        f"You have already voted on proposal {proposal}.", "A vote is final; nothing was counted twice."
    ),
    "JoinedLater(uint64,uint64)": lambda proposal, voter: RefusedError(
        f"Proposal {proposal} opened before you became a member, so you have no vote on it."
    ),
    "UnknownProposal(uint64)": lambda proposal: UnknownProposal(f"There is no proposal {proposal}."),
    "NotOpen(uint64,uint8)": lambda proposal, state: VotingClosed(
        f"Proposal {proposal} takes no more votes: it is {_state(state)}."
    ),
    "VotingEnded(uint64,uint256)": lambda proposal, deadline: VotingClosed(
        f"The vote on proposal {proposal} ended at {_time(deadline)}."
    ),
    "StillOpen(uint64)": lambda proposal: RefusedError(
        f"Proposal {proposal} is still open: it can be closed once its time is over."
    ),
    "AlreadyProposed(uint64)": lambda proposal: AlreadyDone(
        f"Proposal {proposal} already asks for this.", "Vote on that one."
    ),
    "UnknownGroup(uint32)": lambda group: NotFoundError(f"There is no group {group}."),
    "NoMembers(uint32)": lambda group: RefusedError(
        f"Group {group} has no members who could vote.",
        "Before the network is sealed, its deployer seats founders.",
    ),
    "DataTooLong(uint256)": lambda length: TooLarge(
        f"A proposal carries a reason of at most 1024 bytes, or 4096 bytes of what it enacts, not {length}."
    ),
    "BadRules()": _plain("BadRules", "The threshold or the voting period is out of bounds."),
    "TooManyFounders(uint256)": lambda count: LimitReached(
        f"A group is founded by at most 64 users besides its creator, not {count}."
    ),
    "LastMember(uint32)": lambda group: RefusedError(f"Group {group} would be left without members."),
    "NetworkOnly(uint8)": lambda kind: RefusedError(
        f"Only group 0, the network itself, votes on {_kind(kind)}."
    ),
    "BadSubject(uint64)": lambda subject: UsageError(
        f"A proposal of this kind is about no user, and {subject} was given."
    ),
    "NotAdmitted(uint64)": lambda uid: NotAMember(
        f"The network lets only its own members do this, and the user {uid} is none."
    ),
    "NetworkPaused(uint256)": lambda until: RefusedError(
        f"The network is paused until {_time(until)}.", "Members may vote to end the pause."
    ),
    "NotEnoughGas(uint256)": _plain(
        "NotEnoughGas", "The transaction needs {0} gas to tell a failure from a lack of gas."
    ),
    # MessageLedger
    "NotAnchorer(address)": lambda caller: RefusedError(
        f"{_address(caller)} may not anchor: only the voted anchorer may."
    ),
    "LogNotOpen(bytes32)": lambda log: RefusedError(
        f"The log 0x{log.hex()} is not the one that grows now.", "Only a vote starts another log."
    ),
    "NotGrowing(uint64,uint64)": lambda size, given: RefusedError(
        f"The log has {size} leaves already, and a head of {given} was offered.", _STALE
    ),
    "ZeroHash()": _plain("ZeroHash", "The contract does not take a hash of zeros there."),
    "TooFewSignatures(uint256,uint256)": lambda needed, given: RefusedError(
        f"The head needs {needed} signatures of witnesses, and {given} were given."
    ),
    "NotWitness(address)": lambda signer: VerificationError(
        f"The signature leads to {_address(signer)}, which is no witness."
    ),
    "NotAscending(address)": lambda follower: UsageError(
        f"The addresses do not ascend at {_address(follower)}: sort them, and name each once."
    ),
    "BadQuorum(uint256,uint256)": lambda quorum, count: UsageError(
        f"There are 1 to 16 witnesses, and a quorum of one at least and all at most: not {quorum} of {count}."
    ),
    # RewardDistributor and RewardToken
    "NotSetter(address)": lambda caller: RefusedError(
        f"{_address(caller)} may not publish rewards: only the voted setter may."
    ),
    "WrongEpoch(uint64,uint64)": lambda expected, given: RefusedError(
        f"The next root of rewards is that of epoch {expected}, not {given}.", _STALE
    ),
    "TotalOutOfBounds(uint256,uint256,uint256)": lambda least, most, given: RefusedError(
        f"The total of the rewards may be {_chat(least)} to {_chat(most)}, not {_chat(given)}."
    ),
    "WrongRoot(bytes32)": lambda root: RefusedError(
        "Another root of rewards counts now.", "Make the proof anew, for the root that counts."
    ),
    "BadProof()": lambda: VerificationError(
        "The proof does not lead from this account and amount to the root of rewards."
    ),
    "NothingToClaim(address)": lambda account: AlreadyDone(
        f"{_address(account)} has claimed all that it earned."
    ),
    "ExceedsTotal(uint256,uint256,uint256)": lambda total, supply, wanted: RefusedError(
        f"All claims under this root may come to {_chat(total)}, and with this one they would come to "
        f"{_chat(supply + wanted)}.",
        "The root is wrong: whoever published it promised more than the total.",
    ),
    "BadTerms()": _plain("BadTerms", "The challenge window or the cap of an epoch is out of bounds."),
    "NotMinter(address)": lambda caller: RefusedError(
        f"{_address(caller)} may not make tokens: only the distributor of rewards may."
    ),
    "ERC20InsufficientBalance(address,uint256,uint256)": lambda account, held, needed: RefusedError(
        f"{_address(account)} holds {_chat(held)}, and {_chat(needed)} are needed."
    ),
    "ERC20InsufficientAllowance(address,uint256,uint256)": lambda spender, allowed, needed: RefusedError(
        f"{_address(spender)} may spend {_chat(allowed)}, and {_chat(needed)} are needed."
    ),
    "ERC20InvalidApprover(address)": _plain("ERC20InvalidApprover", _NOT_ZERO),
    "ERC20InvalidReceiver(address)": _plain("ERC20InvalidReceiver", _NOT_ZERO),
    "ERC20InvalidSender(address)": _plain("ERC20InvalidSender", _NOT_ZERO),
    "ERC20InvalidSpender(address)": _plain("ERC20InvalidSpender", _NOT_ZERO),
    # Directory, and the deployer's role
    "NotDeployer(address)": lambda caller: RefusedError(
        f"{_address(caller)} may not do this: before the seal, only the deployer may.",
        "Give the deployer's key with --key-file; else PRIVATE_KEY is taken, which in a relay's settings is "
        "its sponsor's.",
    ),
    "NotMembership(address)": lambda caller: RefusedError(
        f"{_address(caller)} may not do this: only a vote of the network's members does."
    ),
    "IsSealed()": lambda: RefusedError(
        "The network is sealed: its deployer has no role any more, members vote."
    ),
    "WrongWiring(address)": lambda wrong: _plain(
        "WrongWiring", f"The contract at {_address(wrong)} belongs to another network."
    )(wrong),
    "NoFounders()": lambda: RefusedError("The network has no members yet.", "Seat founders before the seal."),
    "NoRelays()": lambda: RefusedError("The network names no relay yet.", "Enter one before the seal."),
    "IrregularData()": _plain("IrregularData", "The list of relays is not encoded as it should be."),
    "TooManyRelays(uint256)": lambda count: LimitReached(f"A network names at most 16 relays, not {count}."),
    "BadRelay(string)": lambda endpoint: UsageError(
        f"{endpoint!r} is not a relay's host:port with the hash of its certificate."
    ),
    # Solidity's own
    "Error(string)": lambda text: Reverted(f"The contract refused: {text}"),
    "Panic(uint256)": _plain("Panic", "The contract stopped on an internal error (panic {0:#x})."),
}

BY_SELECTOR: Final[dict[bytes, tuple[tuple[str, ...], _Failure]]] = {
    keccak256(signature.encode())[:4]: (split_types(signature[signature.index("(") + 1 : -1]), failure)
    for signature, failure in FAILURES.items()
}
"""The types of what each reason carries, and what it is to us, by the four bytes that it begins with."""


def explain(data: bytes) -> ChatchainError:
    """The failure that revert data stands for; a Reverted with the data in hex when it is unknown."""
    types, failure = BY_SELECTOR.get(data[:4], ((), None))
    if failure is not None:
        try:
            return failure(*decode(types, data[4:]))
        except Malformed:
            pass  # a selector of ours before other bytes: told as unknown
    if not data:
        return Reverted("The contract refused without giving a reason.")
    return Reverted(
        f"The contract refused with an error that this version does not know (0x{data[:36].hex()}).",
        error=f"0x{data[:4].hex()}",
        values=(data,),
    )


def revert_data(told: Any) -> bytes | None:
    """The revert data in the `data` of a JSON-RPC error; None when the error is not a revert.

    Anvil and geth give it as hex; Ganache as hex or inside an object, by transaction hash in older versions.
    """
    if isinstance(told, str):
        try:
            return bytes.fromhex(told.removeprefix("Reverted ").removeprefix("0x"))
        except ValueError:
            return None
    if isinstance(told, dict):
        for key in ("data", "result", "return"):
            if isinstance(told.get(key), str):
                return revert_data(told[key])
    return None
