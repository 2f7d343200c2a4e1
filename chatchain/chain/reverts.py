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
from chatchain.model import Address, ProposalState

_Failure: TypeAlias = Callable[..., ChatchainError]


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "a time far away"


def _address(address: bytes) -> str:
    return to_checksum(Address(address))


def _state(state: int) -> str:
    return ProposalState(state).name.lower() if state in set(ProposalState) else "closed"


def _plain(name: str, sentence: str, hint: str = "") -> _Failure:
    """A revert without a narrower class: it keeps its name and values for programs."""
    return lambda *values: Reverted(sentence.format(*values), hint, error=name, values=values)


_STALE: Final = "Synchronise and try again: the state changed in between."
_SIGN_AGAIN: Final = "Run the command again: it signs anew."

FAILURES: Final[dict[str, _Failure]] = {
    # IdentityRegistry
    "NameMalformed(string)": lambda name: MalformedName(f"{name!r} is not a possible username."),
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
    "BadLength(uint256)": _plain("BadLength", "The contract does not take a value of {0} bytes there."),
    "EmptyVerifier()": _plain("EmptyVerifier", "The contract does not take an empty password verifier."),
    "ZeroAddress()": _plain("ZeroAddress", "The contract does not take the zero address there."),
    # Both that take signatures
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
    "DataTooLong(uint256)": lambda length: TooLarge(f"A proposal carries at most 1024 bytes, not {length}."),
    "BadRules()": _plain("BadRules", "The threshold or the voting period is out of bounds."),
    # Directory, and the deployer's role in Membership
    "NotDeployer(address)": lambda caller: RefusedError(
        f"{_address(caller)} may not do this: before the seal, only the deployer may."
    ),
    "IsSealed()": lambda: RefusedError(
        "The network is sealed: its deployer has no role any more, members vote."
    ),
    "WrongWiring(address)": lambda wrong: _plain(
        "WrongWiring", f"The contract at {_address(wrong)} belongs to another network."
    )(wrong),
    "NoFounders()": lambda: RefusedError("The network has no members yet.", "Seat founders before the seal."),
    "NoRelays()": lambda: RefusedError("The network names no relay yet.", "Enter one before the seal."),
    "TooManyRelays(uint256)": lambda count: LimitReached(f"A network names at most 16 relays, not {count}."),
    "BadRelay(string)": lambda endpoint: UsageError(
        f"{endpoint!r} is not a relay's host:port with the hash of its certificate."
    ),
    # Solidity's own
    "Error(string)": lambda text: Reverted(f"The contract refused: {text}"),
    "Panic(uint256)": _plain("Panic", "The contract stopped on an internal error (panic {0:#x})."),
}

_BY_SELECTOR: Final[dict[bytes, tuple[tuple[str, ...], _Failure]]] = {
    keccak256(signature.encode())[:4]: (split_types(signature[signature.index("(") + 1 : -1]), failure)
    for signature, failure in FAILURES.items()
}


def explain(data: bytes) -> ChatchainError:
    """The failure that revert data stands for; a Reverted with the data in hex when it is unknown."""
    types, failure = _BY_SELECTOR.get(data[:4], ((), None))
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
