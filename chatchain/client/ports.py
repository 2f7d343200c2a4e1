"""What the client core asks of the outside worlds; the edges satisfy these Protocols and programs/client.py wires them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chatchain.model import (
    Address,
    Call,
    Group,
    Mined,
    Network,
    Proposal,
    ProposalId,
    RelayAddress,
    Uid,
    User,
)
from chatchain.wire.messages import Challenge, ClientMessage, RelayMessage


class Link(Protocol):
    """One authenticated-server connection to a relay (or, later, a peer): whole messages in, whole messages out."""

    @property
    def relay(self) -> RelayAddress:
        """Which relay this is."""

    @property
    def spki(self) -> bytes:
        """SHA-256 of the public key that the relay's certificate showed."""

    @property
    def challenge(self) -> Challenge:
        """The relay's opening message."""

    async def send(self, message: ClientMessage) -> None:
        """Writes one message, waiting while the peer is slow."""

    async def receive(self) -> RelayMessage:
        """Gives the next message that is not a heartbeat; raises NetworkError when the link ends."""

    async def close(self) -> None:
        """Ends the link; never raises."""


class Dialer(Protocol):
    """Opens a Link to the first of the chain's relays that answers with the right certificate."""

    async def __call__(self, relays: Sequence[RelayAddress]) -> Link:
        """Raises RelayUnreachable or CertificateMismatch (a mismatch is never skipped over)."""


class ChainView(Protocol):
    """The chain as folded so far: reads come from the local log store, `sync` asks the endpoints."""

    def network(self) -> Network:
        """The deployment, checked once per process: chain id, code and wiring of the contracts."""

    def sync(self) -> int:
        """Takes in what is new, walks back over reorgs, and gives the head's block number."""

    def user(self, uid: Uid) -> User | None:
        """The user with this id."""

    def user_by_name(self, username: str) -> User | None:
        """The user with this (normalised) name."""

    def user_by_address(self, address: Address) -> User | None:
        """The user whose account or active signer this is."""

    def confirm(self, uid: Uid) -> None:
        """Compares the fold of this user with the heads that the contract stores; raises FoldMismatch."""

    def group(self, group: int = 0) -> Group:
        """A group with its members."""

    def proposals(self, group: int = 0) -> tuple[Proposal, ...]:
        """Every proposal, oldest first."""

    def proposal(self, proposal: ProposalId) -> Proposal | None:
        """One proposal."""

    def relays(self) -> tuple[RelayAddress, ...]:
        """The relays that the Directory names now (asked, not folded)."""

    def nonce(self, uid: Uid) -> int:
        """The user's signature nonce in the registry (asked, not folded)."""


class ChainWriter(Protocol):
    """Sends transactions; the only port behind which web3 is imported."""

    def balance(self, account: Address) -> int:
        """Wei that the account can spend."""

    def send(self, call: Call, account_key: bytes) -> Mined:
        """Signs with the account key, sends, resubmits when needed, waits until mined (30 s, then TransactionPending)."""

    def wait(self, tx_hash: bytes) -> Mined:
        """Waits until a transaction that somebody else sent is mined."""


class Calls(Protocol):
    """Builds calldata for each verb of the contracts; pure."""

    def register(
        self, username: str, verifier: bytes, kdf: bytes, recovery: Address, signer: Address, record: bytes
    ) -> Call: ...

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
    ) -> Call: ...

    def add_device(self, signer: Address, record: bytes) -> Call: ...

    def add_device_for(
        self, uid: Uid, signer: Address, record: bytes, deadline: int, signature: bytes
    ) -> Call: ...

    def update_device(self, device: int, version: int, signer: Address, record: bytes) -> Call: ...

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
    ) -> Call: ...

    def revoke_device(self, device: int) -> Call: ...

    def revoke_device_for(self, uid: Uid, device: int, deadline: int, signature: bytes) -> Call: ...

    def set_verifier(self, verifier: bytes, kdf: bytes) -> Call: ...

    def set_verifier_for(
        self, uid: Uid, verifier: bytes, kdf: bytes, deadline: int, signature: bytes
    ) -> Call: ...

    def request(self, group: int) -> Call: ...

    def request_for(self, group: int, by: Address, deadline: int, signature: bytes) -> Call: ...

    def propose(self, group: int, kind: int, subject: Uid, data: bytes) -> Call: ...

    def propose_for(
        self, group: int, kind: int, subject: Uid, data: bytes, by: Address, deadline: int, signature: bytes
    ) -> Call: ...

    def vote(self, proposal: ProposalId, support: bool) -> Call: ...

    def vote_by_sig(self, proposal: ProposalId, support: bool, voter: Address, signature: bytes) -> Call: ...
