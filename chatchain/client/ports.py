"""What the client core asks of the outside worlds; the edges satisfy these Protocols and programs/client.py
wires them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from chatchain.model import (
    Address,
    Arrival,
    BlockRef,
    Call,
    Contact,
    Decision,
    Deed,
    Group,
    KeptSession,
    KeyBundle,
    Ledger,
    LogRow,
    MessageState,
    Mined,
    Network,
    Outgoing,
    OwnKeys,
    Peer,
    Progress,
    Proposal,
    ProposalId,
    RelayAddress,
    SessionChanges,
    StoredMessage,
    Uid,
    User,
    WaitingUpload,
)
from chatchain.wire.messages import Challenge, ClientMessage, RelayMessage


class NetworkSettings(msgspec.Struct, frozen=True):
    """Where the chain is and which deployment is meant; `chain_id` 0 = whatever the endpoints serve."""

    endpoints: tuple[str, ...]
    directory: Address
    chain_id: int = 0
    invitation: str = ""
    """A member's invitation that came with the join link, for the account that is made here."""


class Link(Protocol):
    """One authenticated-server connection to a relay (or, later, a peer): whole messages in, whole messages
    out.
    """

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

    def groups(self) -> tuple[Group, ...]:
        """Every group, the network itself first."""

    def group_by_name(self, name: str) -> Group | None:
        """The group with this name."""

    def proposals(self, group: int = 0) -> tuple[Proposal, ...]:
        """Every proposal, oldest first."""

    def proposal(self, proposal: ProposalId) -> Proposal | None:
        """One proposal."""

    def ledger(self) -> Ledger:
        """The logs of messages with their last heads, and who anchors and witnesses."""

    def relays(self) -> tuple[RelayAddress, ...]:
        """The relays that the Directory names now (asked, not folded)."""

    def nonce(self, uid: Uid) -> int:
        """The user's signature nonce in the registry (asked, not folded)."""

    def veto_from(self, uid: Uid) -> int:
        """From which second on the user's account may refuse a recovery again; 0 if it never did (asked)."""

    def is_contract(self, account: Address) -> bool:
        """Whether there is code at an address (asked)."""

    def accepts(self, account: Address, digest: bytes, signature: bytes) -> bool:
        """Whether the contract at an address calls this signature over a digest its own (ERC-1271; asked)."""


class ChainWriter(Protocol):
    """Sends transactions; the only port behind which web3 is imported."""

    def balance(self, account: Address) -> int:
        """Wei that the account can spend."""

    def send(self, call: Call, account_key: bytes, *, next_block: bool = False) -> Mined:
        """Signs with the account key, sends, resubmits when needed, waits until mined (30 s, then
        TransactionPending). With `next_block` it is tried out as if the next block were begun.
        """

    def look(self, tx_hash: bytes) -> Mined | None:
        """The transaction if it is mined; raises what the contract refused it with when it failed."""


class Calls(Protocol):
    """Builds calldata for each verb of the contracts; pure."""

    def register(
        self, username: str, verifier: bytes, kdf: bytes, recovery: Address, signer: Address, record: bytes
    ) -> Call: ...

    def commit_registration(self, username: str, account: Address, verifier: bytes) -> Call: ...

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

    def add_key(self, kind: int, key: bytes) -> Call: ...

    def add_key_for(self, uid: Uid, kind: int, key: bytes, deadline: int, signature: bytes) -> Call: ...

    def revoke_key(self, number: int) -> Call: ...

    def revoke_key_for(self, uid: Uid, number: int, deadline: int, signature: bytes) -> Call: ...

    def set_recovery(self, recovery: Address) -> Call: ...

    def set_recovery_for(self, uid: Uid, recovery: Address, deadline: int, signature: bytes) -> Call: ...

    def propose_recovery(self, uid: Uid, account: Address) -> Call: ...

    def propose_recovery_for(self, uid: Uid, account: Address, deadline: int, signature: bytes) -> Call: ...

    def veto_recovery(self) -> Call: ...

    def veto_recovery_for(self, uid: Uid, deadline: int, signature: bytes) -> Call: ...

    def finalise_recovery(self, uid: Uid) -> Call: ...

    def finalise_recovery_for(self, uid: Uid, deadline: int, signature: bytes) -> Call: ...

    def transfer_for(
        self, uid: Uid, to: Address, deadline: int, signature: bytes, signature_of_taker: bytes
    ) -> Call: ...

    def create_group(
        self, name: str, founders: Sequence[Uid], threshold: int, voting_period: int
    ) -> Call: ...

    def create_group_for(
        self,
        name: str,
        founders: Sequence[Uid],
        threshold: int,
        voting_period: int,
        by: Address,
        deadline: int,
        signature: bytes,
    ) -> Call: ...

    def leave(self, group: int) -> Call: ...

    def leave_for(self, group: int, by: Address, deadline: int, signature: bytes) -> Call: ...

    def request(self, group: int) -> Call: ...

    def request_for(self, group: int, by: Address, deadline: int, signature: bytes) -> Call: ...

    def propose(self, group: int, kind: int, subject: Uid, data: bytes) -> Call: ...

    def propose_for(
        self, group: int, kind: int, subject: Uid, data: bytes, by: Address, deadline: int, signature: bytes
    ) -> Call: ...

    def decision_data(self, decision: Decision) -> bytes: ...

    def vote(self, proposal: ProposalId, support: bool) -> Call: ...

    def vote_by_sig(self, proposal: ProposalId, support: bool, voter: Address, signature: bytes) -> Call: ...


class LogStore(Protocol):
    """Where a ChainView keeps the logs that it folds; the core only hands it on."""

    def head(self) -> BlockRef | None:
        """The last block taken in."""

    def recent(self, limit: int) -> list[BlockRef]:
        """The newest blocks kept, newest first."""

    def take(self, rows: Sequence[LogRow], blocks: Sequence[BlockRef]) -> None:
        """Takes in rows and blocks (ascending; the last is the new head) in one transaction."""

    def drop_from(self, number: int) -> list[LogRow]:
        """Undoes every block from `number` on and gives the rows that went with them."""

    def rows(
        self,
        *,
        source: int | None = None,
        subject: int | None = None,
        label: str | None = None,
        address: bytes | None = None,
    ) -> list[LogRow]:
        """The rows that match everything given, in chain order."""


class Store(Protocol):
    """A home's encrypted database (store/local.py); every method is one transaction."""

    @property
    def logs(self) -> LogStore:
        """The chain's logs, on a connection of their own."""

    def close(self) -> None:
        """Closes both connections; may be called twice."""

    def setting(self, key: str) -> bytes | None:
        """A stored value."""

    def set_setting(self, key: str, value: bytes | None) -> None:
        """Stores a value; None removes it."""

    def own_keys(self) -> list[OwnKeys]:
        """Every version of this device's secrets that is kept, newest first."""

    def put_own_keys(self, keys: OwnKeys) -> None:
        """Stores one version of the secrets (replacing the same version)."""

    def retire_own_keys(self, in_force: int, now_ms: int, keep_ms: int) -> None:
        """Marks versions before `in_force` as superseded and forgets those superseded more than `keep_ms`
        ago.
        """

    def contact(self, uid: Uid) -> Contact | None:
        """A contact."""

    def contacts(self) -> list[Contact]:
        """Every listed contact by name."""

    def put_contact(self, contact: Contact) -> None:
        """Stores a contact. `floor` and `confirmed` never sink."""

    def bundles(self, uid: Uid) -> list[KeyBundle]:
        """The key bundles kept for a user's devices."""

    def put_bundles(self, bundles: Iterable[KeyBundle]) -> None:
        """Keeps bundles (already checked), one a device."""

    def sessions(self, uid: int, device: int) -> list[KeptSession]:
        """The sessions with a device."""

    def session_devices(self) -> list[tuple[int, int]]:
        """The devices, as (uid, device), with which there are sessions."""

    def lost_ms(self, uid: int, device: int) -> int:
        """When the session with a device was last found lost (0: never)."""

    def lost_since(self, since_ms: int) -> int:
        """With how many devices the session was found lost since then."""

    def prekeys(self) -> bytes | None:
        """The secrets of this device's prekeys."""

    def handshakes(self, signed_id: int, user: int) -> tuple[frozenset[bytes], bool]:
        """The marks of a user's handshakes that a signed prekey answered without one-time keys, as far as
        they are remembered; and whether no others of theirs are to be answered.
        """

    def change_sessions(self, changes: SessionChanges) -> None:
        """Stores changes of sessions and prekeys that belong to no message."""

    def queue(
        self,
        messages: Sequence[StoredMessage],
        outgoing: Sequence[Outgoing],
        changes: SessionChanges = SessionChanges(),  # noqa: B008 - a frozen value
        *,
        done: Sequence[Deed] = (),
        waiting: Sequence[WaitingUpload] = (),
    ) -> None:
        """Stores own messages and deeds, what is to be sent for them and the sessions after it, in one
        transaction.
        """

    def uploads(self) -> list[WaitingUpload]:
        """The files to upload, in the order in which they were sent."""

    def uploaded(self, message: bytes) -> None:
        """Says that a message's file is at the relay: it joins the end of the outbox."""

    def put_path(self, sender: Uid, id: bytes, path: str) -> None:
        """Notes where the file of a message is."""

    def has_file(self, sender: int, id: bytes) -> bool:
        """Whether there is a message with a file, and it was not deleted."""

    def queue_receipts(self, peer: Uid, outgoing: Outgoing, ids: Sequence[bytes]) -> None:
        """Turns receipts that are due into one thing to send."""

    def reseal(self, sealed: Sequence[Outgoing], changes: SessionChanges) -> None:
        """Stores new envelopes of things that are waiting, and the sessions after it, in one transaction."""

    def pending(self, *, after: int = 0, limit: int = 256) -> list[Outgoing]:
        """What waits, in the order in which it was queued, from behind row `after`."""

    def settle(self, ids: Sequence[bytes], state: MessageState, code: str = "") -> None:
        """Takes things off the outbox (ticked: SENT, refused for good: DROPPED) and moves their messages'
        states.
        """

    def count_queued(self) -> int:
        """How many own messages wait for their tick."""

    def has_seen(self, sender: Uid, id: bytes) -> bool:
        """Whether something of this sender under this id was taken in, as far as that is remembered."""

    def forgotten_ms(self, sender: Uid, now_ms: int) -> int:
        """Up to which time things of a sender may have been taken in that are not remembered any more."""

    def trim(self, me: Uid, now_ms: int) -> bool:
        """Forgets what is over its bound, now and then; says whether messages went."""

    def progress(self, relay: bytes) -> Progress:
        """How far this home has come at a relay, known by the hash of its key."""

    def take_in(
        self,
        arrivals: Sequence[Arrival],
        changes: SessionChanges = SessionChanges(),  # noqa: B008 - a frozen value
        progress: Progress | None = None,
    ) -> list[StoredMessage]:
        """Stores what came, with the sessions after it and how far it brings this home, in one transaction
        and gives the messages that were not there before, with their rows.
        """

    def receipts_due(self, limit: int = 256) -> dict[tuple[Uid, MessageState], list[bytes]]:
        """Receipts that are owed, by peer and kind."""

    def unshown(self, limit: int = 256) -> list[StoredMessage]:
        """Messages that were stored and never handed to a person, oldest first."""

    def mark_shown(self, row: int, now_ms: int) -> None:
        """Notes that a message was handed to a person: what disappears after reading begins to count, what
        is told only once goes. Not fsynced: after a power cut it may be shown again, never lost.
        """

    def mark_read(self, peer: Uid, up_to: int, now_ms: int, *, tell: bool = True) -> int:
        """Marks a peer's messages up to a row as read, owes the receipts for them if it is to be told, and
        gives their number.
        """

    def count_unread(self) -> int:
        """How many messages that came in were not read yet."""

    def message(self, id: bytes) -> StoredMessage | None:
        """A message by its id."""

    def messages(self, first: bytes, last: bytes, *, limit: int = 8) -> list[StoredMessage]:
        """The messages whose ids lie between two, both included."""

    def quoted(self, author: Uid, id: bytes) -> StoredMessage | None:
        """The message that another one is about."""

    def versions(self, row: int) -> list[tuple[int, str]]:
        """The texts that a message has had, by time; empty for one that was never edited."""

    def history(self, peer: Uid, *, limit: int, before: int | None = None) -> list[StoredMessage]:
        """The last messages with a peer before a row, oldest first."""

    def newest(self, *, limit: int, before: int | None = None) -> list[StoredMessage]:
        """The last messages of all conversations before a row, newest first."""

    def adopt(
        self, contacts: Sequence[Contact], peers: Sequence[Peer], messages: Sequence[StoredMessage]
    ) -> int:
        """Stores what another device of one's own handed over, as read; gives how many messages are new."""

    def search(self, words: Sequence[str], *, limit: int, peer: Uid | None = None) -> list[StoredMessage]:
        """Messages that contain every word in their text or their file's name, newest first; with `peer`
        those with one user.
        """

    def peer(self, uid: Uid) -> Peer:
        """What the conversation with a user is set to."""

    def purge(self, now_ms: int) -> bool:
        """Deletes what has disappeared by now, from the file and from its journal; says whether anything."""

    def forget_states(self) -> None:
        """Leaves nothing of what was overwritten, such as sessions' earlier states, if it can be done now."""

    def next_expiry(self) -> int | None:
        """When the next message disappears."""


@dataclass(frozen=True)
class Edges:
    """The outside worlds as programs/client.py hands them to the core."""

    open_store: Callable[[Path, bytes], Store]
    """Opens (or makes) the encrypted database at a path with a raw 32-byte key."""
    chain: Callable[[NetworkSettings, LogStore | None], ChainView]
    """A view over a log store; without one over memory. Touches the network only when it is used."""
    writer: Callable[[NetworkSettings, Network], ChainWriter]
    """The sender of transactions; the one place that imports web3."""
    calls: Calls
    dial: Dialer
    clock: Callable[[], float] = time.time
