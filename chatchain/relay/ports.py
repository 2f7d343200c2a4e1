"""What the relay asks of the outside worlds; store and chain satisfy these Protocols, programs/server.py
wires them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

import msgspec

from chatchain.errors import ChatchainError
from chatchain.model import (
    Address,
    Blob,
    BlobUse,
    Call,
    Cost,
    Device,
    Dispatch,
    Group,
    KeyBundle,
    Letter,
    Outcome,
    Policy,
    PrekeyBatch,
    PrekeyDraw,
    Run,
    Uid,
    User,
)
from chatchain.relay.quota import Usage
from chatchain.wire.connection import State
from chatchain.wire.messages import Message


class Membership(msgspec.Struct, frozen=True):
    """Who may message: everybody registered, or these."""

    policy: Policy
    members: frozenset[int]

    def admits(self, *uids: int) -> bool:
        """Whether policy lets all of these message."""
        return self.policy is Policy.OPEN or all(uid in self.members for uid in uids)


class Peer(Protocol):
    """A connection, as `transport.Peer` is one: decoded messages in, a bounded queue out."""

    address: str
    """What the other side counts as: its address, or its network."""
    session: object
    """Whatever the relay remembers about this connection."""
    slow: bool
    """Whether it leaves so much unread that it is given nothing more for now."""
    deadline: float
    """Loop time by which the login must hold; 0 once it does."""
    heard: float
    """Loop time of the last byte from the peer."""
    asked: float
    """Loop time of the last Ping to it."""

    @property
    def state(self) -> State:
        """How far the conversation has come."""

    @property
    def waits(self) -> bool:
        """Whether what it says is kept waiting by a `hold`."""

    @property
    def held(self) -> bool:
        """Whether its messages are kept waiting."""

    def overdue(self, now: float) -> bool:
        """Whether the rest of what it has begun to say should be there by now."""

    def send(self, message: Message) -> None:
        """Queues one message, or does nothing on a closed connection."""

    def send_frames(self, kind: type[Message], frames: bytes) -> None:
        """The same for frames that were made elsewhere, all of one kind."""

    def say_goodbye(self, code: str, message: str, retry_after_ms: int = 0) -> None:
        """Sends Goodbye and closes."""

    def abort(self) -> None:
        """Cuts the connection at once."""

    def hold(self) -> None:
        """Stops handing messages on until a `release` for each `hold`."""

    def release(self) -> None:
        """Hands on what came meanwhile, in order."""

    def logged_in(self) -> None:
        """The peer is a stranger no more."""

    def narrow(self) -> None:
        """Has the kernel queue little for this peer, who sends messages and no files."""


Keep = Callable[[Sequence[tuple[int, Dispatch]]], None]
"""Writes down what was signed before it is sent, with its place among the calls that were given (-1: it is
another version of what was sent); raises ChatchainError if it must not be sent.
"""


class Payer(Protocol):
    """Sends calls and pays for them from one account. Blocks; may be used from several threads."""

    def canonical(self, call: Call) -> bool:
        """Whether the calldata is spelt as the contract's own encoding spells it. Does not block."""

    def has_code(self, account: Address) -> bool:
        """Whether the account is a contract, whose code would judge its signatures."""

    def estimate_all(
        self, calls: Sequence[tuple[Call, int]], *, next_block: bool = False
    ) -> list[Cost | ChatchainError]:
        """Tries each call out with so much gas at most: its cost, or what the contract would refuse it with.

        With `next_block` as if the next block were begun.
        """

    def submit_all(self, calls: Sequence[tuple[Call, Cost]], keep: Keep) -> list[bytes | ChatchainError]:
        """Sends each call for exactly that cost and gives the transactions' hashes without waiting; only what
        `keep` has taken.
        """

    def together(self, votes: Sequence[Call]) -> Call:
        """One call that casts all of these votes and skips those that fail. Does not block."""

    def commitment(self, registration: Call) -> Call:
        """The call that commits to a registration. Does not block."""

    def has_voted(self, vote: Call, uid: int) -> bool:
        """Whether this user's vote on the vote's proposal is counted."""

    def follow(self, tx_hash: bytes) -> bytes:
        """The hash under which a transaction is found that was submitted under this one. Does not block."""

    def prepare(self) -> None:
        """Gets ready, so that the first call does not wait for it."""

    def adopt(self, dispatches: Sequence[Dispatch]) -> list[bool | None]:
        """Looks after what another process has sent from this account; False for another account's, None for
        what was never sent.
        """

    def tend(self, allow: Callable[[bytes, int], bool], keep: Keep) -> list[Outcome]:
        """Sends again what is not mined yet, or for a better price if the submitted one is allowed so many
        wei more; gives what was mined or failed since the last time.
        """


class Chain(Protocol):
    """The chain as folded; `sync` asks the endpoints. Blocks."""

    def sync(self) -> int:
        """Takes in what is new and gives the head's block number."""

    @property
    def head_time(self) -> int:
        """When that block was made, by its own word in seconds."""

    def user(self, uid: Uid) -> User | None:
        """The user with this id."""

    def groups(self) -> tuple[Group, ...]:
        """Every group with its members, the network itself first."""


class Directory(Protocol):
    """The fold of the chain in the relay's database. Blocks."""

    def touched(self) -> dict[int, int]:
        """Users that must be rewritten (0: the members), each with the newest block that concerns it."""

    def rewrite(self, found: Iterable[User], gone: Iterable[int], *, settled_to: int) -> None:
        """Brings these users to what the fold says."""

    def rewrite_membership(
        self,
        policy: Policy,
        sequences: dict[int, int],
        seats: Iterable[tuple[int, int]],
        *,
        settled_to: int,
    ) -> None:
        """Brings the network's policy and members, and who sits in other groups, to what the fold says."""

    def rewrite_seats(self, seats: Iterable[tuple[int, int]]) -> None:
        """Brings who sits in other groups than the network to what the fold says."""


class Reader(Protocol):
    """What the relay reads from its database. Blocks; raises StoreUnavailable."""

    def usage(self) -> tuple[Usage, int]:
        """What waits for each device from each sender, and the sequence up to which that was counted."""

    def space(self) -> int:
        """The identity of the space in which the sequences count."""

    def waiting(self, uid: int, device: int, after: int, rows: int, size: int) -> tuple[list[Run], bool]:
        """The next runs after a sequence; whether there may be more."""

    def count_waiting(self, uid: int, device: int, after: int, rows: int) -> tuple[int, bool]:
        """How many messages wait after a sequence in so many runs at most; whether there may be more."""

    def accepted(self, sender: int, device: int, id: bytes) -> bytes | None:
        """The digest under which a message was stored."""

    def bundles(self, uids: Sequence[int]) -> list[KeyBundle]:
        """The key bundles of these users' devices."""

    def users(self, uids: Sequence[int]) -> list[User]:
        """Those of these users that there are, as last rewritten."""

    def membership(self) -> tuple[Policy, frozenset[int]] | None:
        """The network's policy and members as last rewritten."""

    def fellows(self, uid: int, others: Sequence[int]) -> set[int]:
        """Those of these users who share a group with a user, the network left out."""


class PrekeyWriter(Protocol):
    """What the writer does with prekeys."""

    def publish_prekeys(
        self, uid: int, device: int, batch: PrekeyBatch, *, kept: int, now: int
    ) -> Future[tuple[int, int] | None]:
        """Takes prekeys in and counts what is left; None when the device's version is another."""

    def take_prekeys(self, devices: Sequence[tuple[int, int]], now: int) -> Future[list[PrekeyDraw]]:
        """Takes one one-time key of each sort off the stocks of each device, named as (uid, device)."""


class Writer(PrekeyWriter, Protocol):
    """Queues work for the thread that commits; never blocks."""

    def keep(self, letters: list[Letter]) -> None:
        """Stores letters; what became of them is told to `Letters.kept`."""

    def remove(self, uid: int, device: int, through: int) -> None:
        """Deletes a device's rows up to a sequence, within a moment."""

    def removed(self, uid: int, device: int) -> int:
        """Up to which sequence a device's rows are about to be deleted."""

    def publish(self, bundle: KeyBundle) -> Future[None]:
        """Keeps a key bundle."""

    def forget_device(self, uid: int, device: int) -> Future[None]:
        """Deletes what waits for a device, its bundle and its prekeys."""

    def expire(
        self,
        before_ms: int,
        now_ms: int,
        tell: Callable[[Sequence[Run], Sequence[Device], int], list[Letter]],
    ) -> Future[bool]:
        """Gives up what came before a time, some at a time, and stores what `tell` makes of it for the
        senders; `Letters.expired` is told. Whether there may be more.
        """

    def keep_time(self, second_ms: int, own_ms: int) -> Future[int]:
        """Moves the time that is kept up to the earlier of a process's clock and the best second opinion,
        that time among them; gives it.
        """

    def prune(self, now_ms: int) -> Future[bool]:
        """Forgets old message ids, some at a time; whether there may be more of those it looked at."""


class BlobParts(Protocol):
    """The bytes of files, as numbered parts in folders. Blocks; raises StoreUnavailable."""

    def put(self, folder: str, part: int, data: bytes) -> None:
        """Writes one part."""

    def sync(self, folder: str, part: int) -> bool:
        """Returns when the part is on the disk; its name is once `settle` has returned. False when somebody
        has taken it away.
        """

    def settle(self, folder: str) -> None:
        """Returns when the names of all parts that were put are on the disk."""

    def get(self, folder: str, part: int, start: int, end: int) -> memoryview:
        """Bytes `start` to `end` of one part, never fewer."""

    def sizes(self, folder: str) -> list[int]:
        """The sizes of the parts that are there, from the first up to a gap."""

    def folders(self, shelf: str) -> dict[str, int]:
        """The folders below a first part of their names, each with the time of its youngest part in ms."""

    def move(self, folder: str, to: str) -> None:
        """Gives a folder another name; nothing happens if there is none."""

    def delete(self, folder: str) -> None:
        """Deletes all parts; nothing happens if there are none."""


class BlobTable(Protocol):
    """Which files there are, whose, and until when. Blocks; raises StoreUnavailable."""

    def find(self, blob: bytes, now_ms: int) -> Blob | None:
        """A whole blob that may be served, whoever uploaded it."""

    def own(self, owner: int, blob: bytes) -> Blob | None:
        """What is known of this user's copy, expired or not."""

    def folders(self, ids: Iterable[bytes]) -> set[str]:
        """The folders of all rows of these blobs, whosever and in whichever state."""

    def begin(self, wanted: Blob, now_ms: int, admit: Callable[[BlobUse], None]) -> tuple[Blob, Blob | None]:
        """Enters an upload, or goes on with the user's live copy of the same blob; `admit` may refuse a new
        one. Gives the blob, and what was there before, under another name unless it is whole.
        """

    def stored(self, blob: Blob, expires_ms: int) -> bool:
        """Says that a blob is whole; False if it was given up meanwhile."""

    def gone(self, blob: Blob, now_ms: int) -> None:
        """Says that a blob is served no more; the next sweep deletes its parts."""

    def expired(self, now_ms: int) -> list[Blob]:
        """Blobs whose time is over, the oldest first, some at a time."""

    def swept(self, blob: Blob, now_ms: int) -> None:
        """Forgets a blob whose parts were deleted, once its day is over."""
