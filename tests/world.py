"""A whole world in memory: the contracts' rules, a relay, links and clocks, which a test changes in one line.

What can be real is: the fold, the calldata, every signature, the relay's mailbox, login check and judgement,
the wire's encoding and bounds, SQLCipher in a temporary folder. What stands in is the EVM (its rules restated
in Python), sockets and the relay's disk. `World().client("ada")` gives a client core; knobs are plain
attributes:

    world.relay.up = False             nobody answers
    world.relay.mute = True            commits, and no tick leaves
    world.relay.tamper = f             every delivery passes through f
    world.relay.hand_out = f           every prekey bundle passes through f
    world.chain.up = False             no endpoint answers
    world.chain.wei["ada"] = 10**18    the account pays for itself

"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import re
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from chatchain.chain import calls
from chatchain.chain.decisions import read_decision
from chatchain.chain.encoding import encode, split_types
from chatchain.chain.events import DIRECTORY, IDENTITY, LEDGER, MEMBERSHIP, Directory, row_of
from chatchain.chain.reverts import FAILURES
from chatchain.chain.sync import MemoryLogStore
from chatchain.client.core import Client
from chatchain.client.ports import Edges, LogStore, NetworkSettings, Store
from chatchain.client.views import Sent, Shown
from chatchain.errors import (
    AlreadyDone,
    AlreadyVoted,
    ChainUnreachable,
    FoldMismatch,
    LoginRefused,
    NameUnavailable,
    NetworkError,
    NotAMember,
    RefusedError,
    RelayUnreachable,
    VerificationError,
    VotingClosed,
    WrongChain,
)
from chatchain.identity import typed_data
from chatchain.identity.keys import address_of, keccak256, recover
from chatchain.identity.names import UID_BODY_FIRST, check_digit
from chatchain.model import (
    Address,
    BlockRef,
    Call,
    Delivery,
    Envelope,
    Group,
    KeyBundle,
    KeyKind,
    Kind,
    Ledger,
    Letter,
    LogRow,
    Mined,
    Network,
    Policy,
    Proposal,
    ProposalId,
    ProposalState,
    Reason,
    RelayAddress,
    Run,
    SetRules,
    Uid,
    User,
)
from chatchain.relay import login as relay_login
from chatchain.relay import mailbox as box
from chatchain.relay.expiry import notices
from chatchain.store.local import LocalStore
from chatchain.wire import messages as m
from chatchain.wire.connection import Connection, Role
from chatchain.wire.parcels import parcel
from tests.shelf import Shelf

NETWORK = Network(
    chain_id=31337,
    directory=Address(b"\xd1" * 20),
    registry=Address(b"\xe1" * 20),
    membership=Address(b"\xe2" * 20),
)
SPKI = hashlib.sha256(b"the relay's key").digest()
PASSWORD = "correct horse battery"

RECOVERY_S = 7 * 24 * 3600
VETO_INTERVAL_S = 30 * 24 * 3600
RECOVERY_CHANGE_S = 21 * 24 * 3600


T = TypeVar("T")
_SNAKE = re.compile("([A-Z])")


# --- the chain ------------------------------------------------------------------------------------------


class Chain:
    """The contracts' rules in Python, one block a transaction, events as the real ones encode them."""

    def __init__(self, clock: Callable[[], float], policy: Policy, relays: tuple[RelayAddress, ...]) -> None:
        self.clock = clock
        self.relays = relays
        self.up = True
        self.rows: list[LogRow] = []
        self.blocks: list[BlockRef] = [BlockRef(0, keccak256(b"genesis"), bytes(32))]
        self.wei: dict[Address, int] = {}
        self.nonces: dict[int, int] = {}
        self.vetoed: dict[int, int] = {}
        self.wallets: dict[Address, Callable[[bytes, bytes], bool]] = {}
        """The accounts that are contracts, each with its word on a digest and a signature (ERC-1271)."""
        self.lies: Callable[[LogRow], LogRow | None] = lambda row: row
        """What an endpoint makes of each row on its way to a client."""
        self._emit(
            MEMBERSHIP,
            "GroupCreated(uint32,string,uint8,uint16,uint32)",
            (0,),
            ("network", policy, 5000, 604800),
        )
        self._emit(
            DIRECTORY,
            "RelaysSet((string,bytes32,bytes32)[])",
            (),
            ([(relay.endpoint, relay.spki, relay.next_spki) for relay in relays],),
        )

    # -- reading

    @property
    def fold(self) -> Directory:
        return Directory(self.rows)

    def user(self, name: str) -> User:
        found = self.fold.user_by_name(name)
        assert found is not None, name
        return found

    def group(self, number: int = 0) -> Group:
        found = self.fold.group(number)
        assert found is not None
        return found

    # -- writing

    def execute(self, call: Call, sender: Address) -> Mined:
        """Runs one call as its own block."""
        verb = getattr(self, "_" + _SNAKE.sub(r"_\1", calls.verb(call)).lower())
        verb(sender, *calls.arguments(call))
        return Mined(keccak256(b"tx" + self.blocks[-1].hash), self.blocks[-1].number)

    def seat(self, *names: str) -> None:
        """Makes founders."""
        for name in names:
            self._join(0, self.user(name).uid)

    def found(self, group: str, *names: str) -> None:
        """Makes a group that its members govern by majority."""
        number = len(self.fold.groups())
        rules = (group, int(Policy.OPEN), 5000, 7 * 24 * 3600)
        self._emit(MEMBERSHIP, "GroupCreated(uint32,string,uint8,uint16,uint32)", (number,), rules)
        for name in names:
            self._join(number, self.user(name).uid)

    def _emit(
        self, source: int, signature: str, indexed: Sequence[int | bytes], data: Sequence[object]
    ) -> None:
        number = len(self.blocks)
        block = BlockRef(number, keccak256(b"block" + number.to_bytes(8, "big")), self.blocks[-1].hash)
        self.blocks.append(block)
        arguments = split_types(signature[signature.index("(") + 1 : -1])
        topics = [keccak256(signature.encode())]
        topics += [
            (value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0"))
            for value in indexed
        ]
        types = tuple(arguments[len(indexed) :])
        if signature.startswith("Proposed"):  # its indexed words are id, group, subject
            types = ("uint8", "uint64", "uint32", "uint64", "bytes")
        if signature.startswith("Registered"):
            types = ("string", "address")
        self.rows.append(
            row_of(
                number, block.hash, 0, int(self.clock()), source, tuple(topics), encode(types, tuple(data))
            )
        )

    # -- IdentityRegistry

    def _by_account(self, sender: Address) -> User:
        user = self.fold.user_by_address(sender)
        if user is None or user.account != sender:
            raise RefusedError("not an account")
        return user

    def _new_user(
        self,
        account: Address,
        username: str,
        verifier: bytes,
        kdf: bytes,
        recovery: bytes,
        signer: bytes,
        record: bytes,
    ) -> None:
        fold = self.fold
        if fold.user_by_name(username) is not None:
            raise NameUnavailable(f"The name {username} is taken.")
        if fold.user_by_address(account) is not None:
            raise AlreadyDone("The address is taken.")
        body = UID_BODY_FIRST + 7919 * (len(fold.uids()) + 1)
        uid = 10 * body + check_digit(body)
        self._emit(
            IDENTITY, "Registered(uint64,address,string,address)", (uid, account), (username, recovery)
        )
        self._emit(IDENTITY, "VerifierSet(uint64,bytes32,bytes)", (uid,), (verifier, kdf))
        self._emit(IDENTITY, "DeviceAdded(uint64,uint32,address,bytes)", (uid, 1, signer), (record,))

    def _register(self, sender: Address, *given: Any) -> None:
        self._new_user(sender, *given)

    def _register_for(
        self,
        _: Address,
        account: Address,
        username: str,
        verifier: bytes,
        kdf: bytes,
        recovery: Address,
        signer: Address,
        record: bytes,
        deadline: int,
        signature: bytes,
    ) -> None:
        digest = typed_data.register_digest(
            NETWORK, username, account, verifier, kdf, recovery, signer, record, deadline
        )
        self._signed(digest, signature, account, deadline)
        self._new_user(account, username, verifier, kdf, recovery, signer, record)

    def _add(self, user: User, signer: bytes, record: bytes) -> None:
        if user.next_account is not None:
            raise RefusedError("a recovery is pending")
        number = len(user.devices) + 1
        self._emit(
            IDENTITY, "DeviceAdded(uint64,uint32,address,bytes)", (user.uid, number, signer), (record,)
        )

    def _add_device(self, sender: Address, signer: bytes, record: bytes) -> None:
        self._add(self._by_account(sender), signer, record)

    def _add_device_for(
        self, _: Address, uid: int, signer: Address, record: bytes, deadline: int, signature: bytes
    ) -> None:
        user = self._existing(uid)
        digest = typed_data.add_device_digest(
            NETWORK, uid, user.epoch, signer, record, self.nonces.get(uid, 0), deadline
        )
        self._signed(digest, signature, user.account, deadline)
        self.nonces[uid] = self.nonces.get(uid, 0) + 1
        self._add(user, signer, record)

    def _update(self, user: User, device: int, version: int, signer: bytes, record: bytes) -> None:
        if version != user.devices[device - 1].current.version + 1:
            raise RefusedError("another update came first")
        self._emit(
            IDENTITY,
            "DeviceUpdated(uint64,uint32,address,uint32,bytes)",
            (user.uid, device, signer),
            (version, record),
        )

    def _update_device(
        self, sender: Address, device: int, version: int, signer: bytes, record: bytes
    ) -> None:
        self._update(self._by_account(sender), device, version, signer, record)

    def _update_device_for(
        self,
        _: Address,
        uid: int,
        device: int,
        version: int,
        signer: Address,
        record: bytes,
        deadline: int,
        by: Address,
        signature: bytes,
    ) -> None:
        user = self._existing(uid)
        digest = typed_data.update_device_digest(
            NETWORK, uid, user.epoch, device, version, signer, record, deadline
        )
        assert by in (user.account, user.devices[device - 1].current.signer)
        self._signed(digest, signature, by, deadline)
        self._update(user, device, version, signer, record)

    def _revoke_device(self, sender: Address, device: int) -> None:
        self._emit(IDENTITY, "DeviceRevoked(uint64,uint32)", (self._by_account(sender).uid, device), ())

    def _revoke_device_for(self, _: Address, uid: int, device: int, deadline: int, signature: bytes) -> None:
        user = self._existing(uid)
        digest = typed_data.revoke_device_digest(NETWORK, uid, user.epoch, device, deadline)
        self._signed(digest, signature, user.account, deadline)
        self._emit(IDENTITY, "DeviceRevoked(uint64,uint32)", (uid, device), ())

    def _add_key(self, sender: Address, kind: int, key: bytes) -> None:
        self._publish(self._by_account(sender), kind, key)

    def _add_key_for(
        self, _: Address, uid: int, kind: int, key: bytes, deadline: int, signature: bytes
    ) -> None:
        user = self._existing(uid)
        nonce = self.nonces.get(uid, 0)
        digest = typed_data.add_key_digest(NETWORK, uid, user.epoch, KeyKind(kind), key, nonce, deadline)
        self._signed(digest, signature, user.account, deadline)
        self.nonces[uid] = nonce + 1
        self._publish(user, kind, key)

    def _publish(self, user: User, kind: int, key: bytes) -> None:
        self._emit(
            IDENTITY, "KeyAdded(uint64,uint32,uint8,bytes)", (user.uid, len(user.keys) + 1), (kind, key)
        )

    def _set_verifier(self, sender: Address, verifier: bytes, kdf: bytes) -> None:
        uid = self._by_account(sender).uid
        self._emit(IDENTITY, "VerifierSet(uint64,bytes32,bytes)", (uid,), (verifier, kdf))

    def _set_verifier_for(
        self, _: Address, uid: int, verifier: bytes, kdf: bytes, deadline: int, signature: bytes
    ) -> None:
        user = self._existing(uid)
        digest = typed_data.set_verifier_digest(
            NETWORK, uid, user.epoch, verifier, kdf, self.nonces.get(uid, 0), deadline
        )
        self._signed(digest, signature, user.account, deadline)
        self.nonces[uid] = self.nonces.get(uid, 0) + 1
        self._emit(IDENTITY, "VerifierSet(uint64,bytes32,bytes)", (uid,), (verifier, kdf))

    def propose_recovery(self, name: str, account: bytes) -> None:
        """Somebody's recovery address proposes another account."""
        ready = int(self.clock()) + RECOVERY_S
        uid = self.user(name).uid
        self._emit(IDENTITY, "RecoveryProposed(uint64,address,uint64)", (uid, account), (ready,))

    def replace_account(self, name: str, account: bytes) -> None:
        """The account that was proposed takes over."""
        user = self.user(name)
        self._emit(
            IDENTITY,
            "AccountReplaced(uint64,address,address,uint32)",
            (user.uid, account, user.account),
            (user.epoch + 1,),
        )

    def _set_recovery(self, sender: Address, recovery: bytes) -> None:
        self._name_recovery(self._by_account(sender), recovery)

    def _set_recovery_for(
        self, _: Address, uid: int, recovery: Address, deadline: int, signature: bytes
    ) -> None:
        user, nonce = self._existing(uid), self.nonces.get(uid, 0)
        digest = typed_data.set_recovery_digest(NETWORK, uid, user.epoch, recovery, nonce, deadline)
        self._signed(digest, signature, user.account, deadline)
        self.nonces[uid] = nonce + 1
        self._name_recovery(user, recovery)

    def _name_recovery(self, user: User, recovery: bytes) -> None:
        if user.next_account is not None:
            raise FAILURES["RecoveryPending(uint64)"](user.uid)
        waits = any(user.recovery) and recovery != user.recovery
        since = int(self.clock()) + (RECOVERY_CHANGE_S if waits else 0)
        self._emit(IDENTITY, "RecoverySet(uint64,address,uint64)", (user.uid,), (recovery, since))

    def _propose_recovery(self, sender: Address, uid: int, account: bytes) -> None:
        user = self._existing(uid)
        if sender != user.recovery:
            raise FAILURES["NotAuthorized(address)"](sender)
        holder = self.fold.user_by_address(Address(account))
        if holder is not None and holder.account == account:
            raise FAILURES["AddressTaken(address)"](account)
        if user.next_recovery is not None:
            now = int(self.clock())
            self._emit(IDENTITY, "RecoverySet(uint64,address,uint64)", (uid,), (user.recovery, now))
        self.propose_recovery(user.username, account)

    def _propose_recovery_for(
        self, _: Address, uid: int, account: Address, deadline: int, signature: bytes
    ) -> None:
        user, nonce = self._existing(uid), self.nonces.get(uid, 0)
        digest = typed_data.propose_recovery_digest(NETWORK, uid, user.epoch, account, nonce, deadline)
        self._signed(digest, signature, user.recovery, deadline)
        self.nonces[uid] = nonce + 1
        self._propose_recovery(user.recovery, uid, account)

    def _finalise_recovery(self, sender: Address, uid: int) -> None:
        self._take_over(self._existing(uid), sender)

    def _finalise_recovery_for(self, _: Address, uid: int, deadline: int, signature: bytes) -> None:
        user = self._existing(uid)
        if user.next_account is None:
            raise FAILURES["NoRecovery(uint64)"](uid)
        account = user.next_account.address
        digest = typed_data.finalise_recovery_digest(NETWORK, uid, user.epoch, account, deadline)
        self._signed(digest, signature, account, deadline)
        self._take_over(user, account)

    def _take_over(self, user: User, sender: Address) -> None:
        if user.next_account is None:
            raise FAILURES["NoRecovery(uint64)"](user.uid)
        if user.next_account.address != sender:
            raise FAILURES["NotAuthorized(address)"](sender)
        if self.clock() < user.next_account.time:
            raise FAILURES["RecoveryNotReady(uint64)"](user.next_account.time)
        self.replace_account(user.username, sender)

    def _veto_recovery(self, sender: Address) -> None:
        self._refuse(self._by_account(sender))

    def _veto_recovery_for(self, _: Address, uid: int, deadline: int, signature: bytes) -> None:
        user = self._existing(uid)
        assert user.next_account is not None
        proposed, nonce = user.next_account.address, self.nonces.get(uid, 0)
        digest = typed_data.veto_recovery_digest(NETWORK, uid, user.epoch, proposed, nonce, deadline)
        self._signed(digest, signature, user.account, deadline)
        self.nonces[uid] = nonce + 1
        self._refuse(user)

    def _refuse(self, user: User) -> None:
        assert user.next_account is not None
        again = self.vetoed.get(user.uid, -VETO_INTERVAL_S) + VETO_INTERVAL_S
        if self.clock() < again:
            raise FAILURES["VetoSpent(uint64)"](again)
        self.vetoed[user.uid] = int(self.clock())
        self._emit(IDENTITY, "RecoveryVetoed(uint64,address)", (user.uid, user.next_account.address), ())

    def _existing(self, uid: int) -> User:
        user = self.fold.user(Uid(uid))
        assert user is not None
        return user.at(int(self.clock()))

    def _signed(self, digest: bytes, signature: bytes, by: bytes, deadline: int) -> None:
        assert deadline >= self.clock()
        try:
            if recover(digest, signature) == by:
                return
        except VerificationError:
            if Address(by) not in self.wallets:
                raise
        wallet = self.wallets.get(Address(by))
        if wallet is None or not wallet(digest, signature):
            raise RefusedError("bad signature")

    # -- Membership

    def _join(self, number: int, uid: int) -> None:
        members = self.group(number).members
        sequence = max((member.sequence for member in members), default=0) + 1
        self._turn("MemberAdded", number, 1, uid, sequence)

    def _turn(self, event: str, number: int, change: int, uid: int, sequence: int) -> None:
        group = self.group(number)
        roster = keccak256(
            encode(("bytes32", "uint8", "uint64", "uint32"), (group.roster_hash, change, uid, sequence))
        )
        self._emit(
            MEMBERSHIP,
            f"{event}(uint32,uint64,uint32,uint32,bytes32)",
            (number, uid),
            (sequence, group.epoch + 1, roster),
        )

    def _principal(self, sender: Address) -> User:
        user = self.fold.user_by_address(sender)
        assert user is not None
        return user

    def _open(self, group_number: int, kind: int, subject: int, proposer: int, data: bytes = b"") -> None:
        group, fold, now = self.group(group_number), self.fold, int(self.clock())
        wanted = (kind, subject, data, ProposalState.OPEN)
        for proposal in fold.proposals(group_number, now):
            if (proposal.kind, proposal.subject, proposal.data, proposal.state) == wanted:
                raise AlreadyDone(f"Proposal {proposal.id} already asks for this.")
        number = sum(len(fold.proposals(each.group, now)) for each in fold.groups()) + 1
        deadline = now + group.voting_period
        self._emit(
            MEMBERSHIP,
            "Proposed(uint64,uint32,uint64,uint8,uint64,uint32,uint64,bytes)",
            (number, group_number, subject),
            (kind, proposer, len(group.members), deadline, data),
        )

    def _request(self, sender: Address, group: int) -> None:
        user = self._principal(sender)
        self._open(group, Kind.ADMIT, user.uid, user.uid)

    def _request_for(self, _: Address, group: int, by: Address, deadline: int, signature: bytes) -> None:
        user = self._principal(by)
        digest = typed_data.request_digest(NETWORK, self.group(group).name, user.uid, user.epoch, deadline)
        self._signed(digest, signature, by, deadline)
        self._open(group, Kind.ADMIT, user.uid, user.uid)

    def _propose(self, sender: Address, group: int, kind: int, subject: int, data: bytes) -> None:
        self._open(group, kind, subject, self._principal(sender).uid, data)

    def _propose_for(
        self,
        _: Address,
        group: int,
        kind: int,
        subject: int,
        data: bytes,
        by: Address,
        deadline: int,
        signature: bytes,
    ) -> None:
        user = self._principal(by)
        decision = read_decision(Kind(kind), data)
        assert decision is not None
        digest = typed_data.propose_digest(
            NETWORK, self.group(group).name, Kind(kind), subject, decision, user.uid, user.epoch, deadline
        )
        self._signed(digest, signature, by, deadline)
        self._open(group, kind, subject, user.uid, data)

    def _vote(self, sender: Address, number: int, support: bool) -> None:
        user, now = self._principal(sender), int(self.clock())
        proposal = self.fold.proposal(ProposalId(number), now)
        assert proposal is not None
        group = self.group(proposal.group)
        if proposal.state is not ProposalState.OPEN:
            raise VotingClosed("no more votes")
        if user.uid not in {member.uid for member in group.members}:
            raise NotAMember("not a member")
        if user.uid in proposal.voters:
            raise AlreadyVoted("voted already")
        yes, no = proposal.yes + support, proposal.no + (not support)
        self._emit(
            MEMBERSHIP, "Voted(uint64,uint64,bool,uint32,uint32)", (number, user.uid), (support, yes, no)
        )
        if yes * 10000 > proposal.electorate * group.threshold:
            if proposal.kind is Kind.ADMIT:
                self._join(group.group, proposal.subject)
            elif proposal.kind is not Kind.EXPEL:
                self._enact(proposal)
            else:
                seat = next(member for member in group.members if member.uid == proposal.subject)
                self._turn("MemberRemoved", group.group, 2, seat.uid, seat.sequence)
            self._emit(MEMBERSHIP, "Closed(uint64,uint8)", (number,), (ProposalState.PASSED,))
        elif (proposal.electorate - no) * 10000 <= proposal.electorate * group.threshold:
            self._emit(MEMBERSHIP, "Closed(uint64,uint8)", (number,), (ProposalState.REJECTED,))

    def _enact(self, proposal: Proposal) -> None:
        """What a vote about nobody does; only the kinds that a test asks for."""
        match proposal.decision:
            case SetRules(policy, threshold, period):
                signature = "RulesSet(uint32,uint8,uint16,uint32)"
                self._emit(MEMBERSHIP, signature, (proposal.group,), (int(policy), threshold, period))
            case Reason() if proposal.kind is Kind.PAUSE:
                self._emit(MEMBERSHIP, "Paused(uint64)", (), (int(self.clock()) + 7 * 24 * 3600,))
            case other:
                raise AssertionError(other)

    def _vote_by_sig(self, _: Address, number: int, support: bool, voter: Address, signature: bytes) -> None:
        user = self._principal(voter)
        digest = typed_data.vote_digest(NETWORK, number, user.uid, user.epoch, support)
        assert recover(digest, signature) == voter
        self._vote(voter, number, support)


class View:
    """A client's ChainView over its own log store."""

    def __init__(self, chain: Chain, settings: NetworkSettings, store: LogStore | None) -> None:
        self._chain = chain
        self._settings = settings
        self._store: LogStore = store if store is not None else MemoryLogStore()

    def _ask(self) -> None:
        if not self._chain.up:
            raise ChainUnreachable("No endpoint answers.")

    def network(self) -> Network:
        self._ask()
        if self._settings.chain_id not in (0, NETWORK.chain_id):
            raise WrongChain("The endpoint serves another chain.")
        return NETWORK

    def sync(self) -> int:
        self._ask()
        head = self._store.head()
        after = head.number if head is not None else -1
        tip = self._chain.blocks[-1]
        if head is not None and self._chain.blocks[head.number].hash != head.hash:
            self._store.drop_from(0)
            after = -1
        if tip.number > after:
            rows = [self._chain.lies(row) for row in self._chain.rows if after < row.block <= tip.number]
            self._store.take(
                [row for row in rows if row is not None], self._chain.blocks[after + 1 : tip.number + 1]
            )
        return tip.number

    def user(self, uid: Uid) -> User | None:
        user = Directory(self._store.rows(subject=uid)).user(uid)
        return None if user is None else user.at(int(self._chain.clock()))

    def user_by_name(self, username: str) -> User | None:
        for row in self._store.rows(label=username):
            return self.user(Uid(row.subject))
        return None

    def user_by_address(self, address: Address) -> User | None:
        for row in reversed(self._store.rows(address=address)):
            user = self.user(Uid(row.subject))
            if user is not None and address in (
                user.account,
                *(device.current.signer for device in user.active_devices),
            ):
                return user
        return None

    def confirm(self, uid: Uid) -> None:
        self._ask()
        ours, theirs = self.user(uid), self._chain.fold.user(uid)
        if (
            ours is None
            or theirs is None
            or [d.head for d in ours.devices] != [d.head for d in theirs.devices]
            or [(k.state, k.head) for k in ours.keys] != [(k.state, k.head) for k in theirs.keys]
            or (ours.account, ours.next_account) != (theirs.account, theirs.next_account)
        ):
            raise FoldMismatch("The contract holds other keys than the events served.")

    def group(self, group: int = 0) -> Group:
        found = Directory(self._store.rows(source=MEMBERSHIP)).group(group)
        assert found is not None
        return found

    def groups(self) -> tuple[Group, ...]:
        return Directory(self._store.rows(source=MEMBERSHIP)).groups()

    def group_by_name(self, name: str) -> Group | None:
        return Directory(self._store.rows(source=MEMBERSHIP)).group_by_name(name)

    def proposals(self, group: int = 0) -> tuple[Proposal, ...]:
        return Directory(self._store.rows(source=MEMBERSHIP)).proposals(group, int(self._chain.clock()))

    def proposal(self, proposal: ProposalId) -> Proposal | None:
        return Directory(self._store.rows(source=MEMBERSHIP)).proposal(proposal, int(self._chain.clock()))

    def ledger(self) -> Ledger:
        return Directory(self._store.rows(source=LEDGER)).ledger()

    def relays(self) -> tuple[RelayAddress, ...]:
        self._ask()
        return self._chain.relays

    def nonce(self, uid: Uid) -> int:
        self._ask()
        return self._chain.nonces.get(uid, 0)

    def veto_from(self, uid: Uid) -> int:
        self._ask()
        vetoed = self._chain.vetoed.get(uid)
        return 0 if vetoed is None else vetoed + VETO_INTERVAL_S

    def is_contract(self, account: Address) -> bool:
        self._ask()
        return account in self._chain.wallets

    def accepts(self, account: Address, digest: bytes, signature: bytes) -> bool:
        self._ask()
        return self._chain.wallets[account](digest, signature)


class Writer:
    """A client's ChainWriter."""

    def __init__(self, world: World) -> None:
        self._world = world

    def balance(self, account: Address) -> int:
        return self._world.chain.wei.get(account, self._world.ether)

    def send(self, call: Call, account_key: bytes, *, next_block: bool = False) -> Mined:
        self._world.transactions.append(calls.verb(call))
        for hook in self._world.before_transactions:
            hook()
        return self._world.chain.execute(call, address_of(account_key))

    def look(self, tx_hash: bytes) -> Mined | None:
        return self._world.mined.get(tx_hash)


# --- the relay ------------------------------------------------------------------------------------------


@dataclass
class _Peer:
    """One connection at the relay's side."""

    number: int
    link: Wire
    connection: Connection = field(default_factory=lambda: Connection(Role.RELAY))
    nonce: bytes = field(default_factory=lambda: os.urandom(32))
    user: User | None = None
    device: int = 0


@dataclass
class Stock:
    """What one device has published for suite 2."""

    uid: int
    device: int
    version: int
    signed: bytes = b""
    last_resort: bytes = b""
    one_time: list[bytes] = field(default_factory=list)
    kem_one_time: list[bytes] = field(default_factory=list)

    def draw(self) -> bytes:
        """A bundle; the one-time keys in it are gone from here."""
        head = struct.pack(">BQII", 1, self.uid, self.device, self.version)
        kem = self.kem_one_time.pop(0) if self.kem_one_time else self.last_resort
        return head + self.signed + kem + (self.one_time.pop(0) if self.one_time else b"")


class Relay:
    """A relay around the real mailbox machine, with a dictionary for a disk."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.up = True
        self.spki = SPKI
        self.mute = False
        self.deaf = False
        """Takes envelopes and does nothing with them."""
        self.refuse: Callable[[m.Submit], m.Refused | None] = lambda submit: None
        self.tamper: Callable[[Delivery], Delivery | None] = lambda delivery: delivery
        self.lag: Callable[[Directory], Directory] = lambda fold: fold
        self.rows: dict[int, tuple[tuple[int, int], Delivery]] = {}
        self.stored: dict[tuple[int, int, bytes], bytes] = {}
        self.bundles: dict[tuple[int, int], KeyBundle] = {}
        self.prekeys: dict[tuple[int, int], Stock] = {}
        self.hand_out: Callable[[bytes], bytes | None] = lambda bundle: bundle
        """What becomes of each prekey bundle on its way to whoever asked."""
        self.withhold: Callable[[tuple[int, int]], m.Withheld | None] = lambda device: None
        self.fetched: list[tuple[tuple[int, int], ...]] = []
        """Of which devices prekeys were asked for, request by request."""
        self.submitted: list[m.Submit] = []
        self.signals: list[Envelope] = []
        self.lossy = False
        """Loses every signal."""
        self.logins = 0
        self.space = 7
        self._sequence = itertools.count(1)
        self._numbers = itertools.count(1)
        self._peers: dict[int, _Peer] = {}
        self.mailbox = box.Mailbox()
        self.shelf = Shelf()

    # -- links

    async def dial(self, relays: Sequence[RelayAddress]) -> Wire:
        """What the clients have for a Dialer."""
        await asyncio.sleep(0)
        if not self.up:
            raise RelayUnreachable("No relay answers.")
        peer = _Peer(next(self._numbers), Wire(self, relays[0]))
        peer.link.peer = peer
        self._peers[peer.number] = peer
        challenge = m.Challenge(
            m.PROTOCOL_VERSION,
            peer.nonce,
            NETWORK.chain_id,
            NETWORK.directory,
            int(self._world.clock() * 1000),
        )
        self._say(peer, challenge)
        opening = await peer.link.receive()
        assert isinstance(opening, m.Challenge)
        peer.link.opening = opening
        return peer.link

    def cut(self) -> None:
        """Cuts every connection."""
        for peer in list(self._peers.values()):
            self.gone(peer)

    def gone(self, peer: _Peer) -> None:
        if self._peers.pop(peer.number, None) is not None:
            self.mailbox.closed(peer.number)
            peer.link.end()

    def _say(self, peer: _Peer, message: m.Message) -> None:
        if peer.number in self._peers:
            peer.link.incoming(peer.connection.send(message))

    # -- messages

    def take(self, peer: _Peer, data: bytes) -> None:
        for message in peer.connection.receive_data(data):
            self._handle(peer, message)

    def _handle(self, peer: _Peer, message: m.Message) -> None:
        fold = self.lag(self._world.chain.fold)
        match message:
            case m.Login() | m.EnterFiles():
                self._login(peer, message, fold)
            case m.Upload() | m.Piece() | m.Fetch() | m.Discard():
                for answer in self.shelf.handle(message):
                    if answer is not None:
                        self._say(peer, answer)
                    else:
                        self.gone(peer)
            case m.Sponsor(ref, contract, data, _):
                self._sponsor(peer, ref, Call(contract, data))
            case m.PublishKeys(ref, bundle):
                self.bundles[bundle.uid, bundle.device] = bundle
                self._say(peer, m.Done(ref))
            case m.FetchKeys(ref, uids):
                found = tuple(bundle for (uid, _), bundle in self.bundles.items() if uid in uids)
                self._say(peer, m.Keys(ref, found))
            case m.PublishPrekeys():
                self._stock_up(peer, message)
            case m.FetchPrekeys(ref, devices):
                self.fetched.append(devices)
                withheld = tuple(one for each in devices if (one := self.withhold(each)) is not None)
                kept = {(one.uid, one.device) for one in withheld}
                stocks = [
                    self.prekeys[each] for each in sorted(devices) if each in self.prekeys.keys() - kept
                ]
                bundles = [self.hand_out(stock.draw()) for stock in stocks]
                self._say(peer, m.Prekeys(ref, tuple(one for one in bundles if one is not None), withheld))
            case m.Submit():
                self._submit(peer, message, fold)
            case m.Signal(envelope):
                self._signal(peer, envelope)
            case m.Resume(space, after):
                start = after if space == self.space else 0
                self._say(peer, m.Resumed(self.space, start))
                self._act(self.mailbox.receive(peer.number, start))
            case m.Acknowledge(sequences):
                self._act(self.mailbox.acknowledged(peer.number, sequences))
            case _:
                raise AssertionError(message)

    def _login(self, peer: _Peer, message: m.Login | m.EnterFiles, fold: Directory) -> None:
        user = fold.user(Uid(message.uid))
        try:
            device = relay_login.check(NETWORK, user, message, spki=self.spki, nonce=peer.nonce)
        except LoginRefused as refused:
            self._say(peer, m.Goodbye(refused.code, relay_login.REFUSAL, 0))
            self.gone(peer)
            return
        if isinstance(message, m.EnterFiles):
            self.shelf.entered += 1
            self._say(peer, m.FilesOpen(message.uid, self.shelf.largest))
            return
        self.logins += 1
        peer.user, peer.device = user, device.device
        self._act(self.mailbox.opened(peer.number, message.uid, device.device))
        waiting = self.mailbox.waiting(message.uid, device.device)
        self._say(peer, m.Welcome(message.uid, waiting, int(self._world.clock() * 1000)))

    def _stock_up(self, peer: _Peer, given: m.PublishPrekeys) -> None:
        assert peer.user is not None
        key = peer.user.uid, peer.device
        stock = self.prekeys.get(key)
        if given.signed:
            if stock is None or stock.version != given.version:
                stock = self.prekeys[key] = Stock(*key, given.version)
            stock.signed, stock.last_resort = given.signed, given.kem
            stock.one_time += given.one_time
            stock.kem_one_time += given.kem_one_time
        current = stock if stock is not None and stock.version == given.version else Stock(*key, 0)
        self._say(peer, m.PrekeysLeft(given.ref, len(current.one_time), len(current.kem_one_time)))

    def _sponsor(self, peer: _Peer, ref: int, call: Call) -> None:
        early = ("registerFor", "addDeviceFor", "setVerifierFor")
        recovery = ("proposeRecoveryFor", "vetoRecoveryFor", "finaliseRecoveryFor")
        if peer.user is None and calls.verb(call) not in (*early, *recovery):
            self._say(
                peer, m.Failed(ref, "refused", "Before login the relay pays for a registration only.", 0)
            )
            return
        try:
            self._world.transactions.append(calls.verb(call))
            mined = self._world.chain.execute(call, Address(b"\x5b" * 20))
        except RefusedError as refused:
            self._say(peer, m.Failed(ref, refused.code, refused.message, 0))
            return
        self._world.mined[mined.tx_hash] = mined
        self._say(peer, m.Sponsored(ref, mined.tx_hash))

    def _submit(self, peer: _Peer, submit: m.Submit, fold: Directory) -> None:
        assert peer.user is not None
        self.submitted.append(submit)
        if self.deaf:
            return
        refused = self.refuse(submit)
        if refused is not None:
            self._say(peer, refused)
            return
        envelope = submit.envelope
        sender, recipient = fold.user(peer.user.uid), fold.user(Uid(envelope.recipient))
        group = fold.group(0)
        assert sender is not None
        assert group is not None
        members = {member.uid for member in group.members}
        admitted = group.policy is Policy.OPEN or {sender.uid, envelope.recipient} <= members
        verdict = box.judge(envelope, sender, recipient, device=peer.device, admitted=admitted)
        assert not isinstance(verdict, box.Ahead), "the relay lags; the test says how far"
        if verdict is not None:
            self._say(peer, verdict)
            return
        now_ms = int(self._world.clock() * 1000)
        parcels = tuple(
            (copy.uid, copy.device, parcel(envelope, copy, sender.uid, peer.device, now_ms))
            for copy in envelope.copies
        )
        digest = hashlib.sha256(envelope.body).digest()[:16]
        self._act(
            self.mailbox.submit(
                Letter(
                    peer.number,
                    sender.uid,
                    peer.device,
                    envelope.id,
                    digest,
                    now_ms,
                    parcels,
                    len(envelope.body),
                )
            )
        )

    def _signal(self, peer: _Peer, envelope: Envelope) -> None:
        assert peer.user is not None
        self.signals.append(envelope)
        for copy in envelope.copies:
            there = self.mailbox.session_of(copy.uid, copy.device)
            if there is None or self.lossy:
                continue
            delivery = Delivery(
                0,
                envelope.id,
                envelope.suite,
                peer.user.uid,
                peer.device,
                envelope.recipient,
                int(self._world.clock() * 1000),
                copy.header,
                envelope.body,
            )
            self._say(self._peers[there], m.Signaled(delivery))

    # -- the mailbox's wishes

    def _act(self, actions: list[box.Action]) -> None:
        for action in actions:
            match action:
                case box.Send(session, message):
                    self._send(session, message)
                case box.Ticks(session, ids):
                    for id_ in ids:
                        self._send(session, m.Tick(id_))
                case box.Give(session, first, parcels):
                    for sequence, given in enumerate(parcels, first):
                        self._send(session, m.Deliver(_delivery(sequence, given)))
                case box.Store(letter):
                    self._store(letter)
                case box.Load(session, uid, device, after, rows, _):
                    waiting = [
                        Run(uid, device, d.sender, n, [_parcel(d)])
                        for n, (key, d) in sorted(self.rows.items())
                        if key == (uid, device) and n > after
                    ]
                    self._act(self.mailbox.loaded(session, waiting[:rows], len(waiting) > rows))
                case box.Remove(uid, device, through):
                    for sequence, (key, _) in list(self.rows.items()):
                        if key == (uid, device) and sequence <= through:
                            del self.rows[sequence]
                case box.Forget(uid, device):
                    self.rows = {n: row for n, row in self.rows.items() if row[0] != (uid, device)}
                case box.Close(session, code, text):
                    peer = self._peers[session]
                    self._say(peer, m.Goodbye(code, text, 0))
                    self.gone(peer)
                case _:
                    raise AssertionError(action)

    def _send(self, session: int, message: m.Message) -> None:
        peer = self._peers.get(session)
        if peer is None or (self.mute and isinstance(message, m.Tick)):
            return
        if isinstance(message, m.Deliver):
            changed = self.tamper(message.delivery)
            if changed is None:
                return
            message = m.Deliver(changed)
        self._say(peer, message)

    def _store(self, letter: Letter) -> None:
        key = (letter.sender, letter.device, letter.id)
        if key in self.stored:
            verdict: box.Verdict = "duplicate" if self.stored[key] == letter.digest else "conflict"
            self._act(self.mailbox.kept([(letter, verdict)], []))
            return
        self.stored[key] = letter.digest
        runs = []
        for uid, device, given in letter.parcels:
            sequence = next(self._sequence)
            runs.append(Run(uid, device, letter.sender, sequence, [given]))
            self.rows[sequence] = (uid, device), _delivery(sequence, given)
        self._act(self.mailbox.kept([(letter, "stored")], runs))

    def revoked(self, uid: int, device: int) -> None:
        """Sees the block of a revocation."""
        self._act(self.mailbox.revoked(uid, device))

    def inject(self, to: User, delivery: Delivery, device: int = 1) -> None:
        """Puts a delivery of the relay's own making into a mailbox."""
        sequence = next(self._sequence)
        made = Delivery(
            sequence,
            delivery.id,
            delivery.suite,
            delivery.sender,
            delivery.sender_device,
            delivery.recipient,
            delivery.received_ms,
            delivery.header,
            delivery.body,
        )
        self.rows[sequence] = ((to.uid, device), made)
        self.reopen()

    def expire(self) -> None:
        """Gives up all that waits, as if nobody had fetched it for too long."""
        gone = [
            Run(uid, device, delivery.sender, sequence, [_parcel(delivery)])
            for sequence, ((uid, device), delivery) in self.rows.items()
        ]
        users = [self._world.chain.fold.user(uid) for uid in self._world.chain.fold.uids()]
        devices = [device for user in users if user is not None for device in user.devices]
        self.rows.clear()
        for letter in notices(gone, devices, int(self._world.clock() * 1000)):
            for uid, device, given in letter.parcels:
                sequence = next(self._sequence)
                self.rows[sequence] = (uid, device), _delivery(sequence, given)
        self.reopen()

    def restore(
        self,
        rows: dict[int, tuple[tuple[int, int], Delivery]],
        stored: dict[tuple[int, int, bytes], bytes],
        *,
        space: int,
    ) -> None:
        """Starts over with what was on an older disk, and counts on from there."""
        self.rows, self.stored, self.space = dict(rows), dict(stored), space
        self._sequence = itertools.count(max(rows, default=0) + 1)
        self.reopen()

    def reopen(self) -> None:
        """Starts over with what is on the disk, as a relay that was restarted."""
        usage: dict[tuple[int, int, int], tuple[int, int]] = {}
        for (uid, device), delivery in self.rows.values():
            rows, size = usage.get((uid, device, delivery.sender), (0, 0))
            size += len(delivery.body) + len(delivery.header)
            usage[uid, device, delivery.sender] = (rows + 1, size)
        self.cut()
        self.mailbox = box.Mailbox(usage)


class Wire:
    """A link between a client and the relay: real frames through two queues."""

    def __init__(self, relay: Relay, address: RelayAddress) -> None:
        self._server = relay
        self._address = address
        self._connection = Connection(Role.CLIENT)
        self._bytes: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._messages: list[m.Message] = []
        self._over = False
        self.peer: _Peer | None = None
        self.opening: m.Challenge | None = None

    @property
    def relay(self) -> RelayAddress:
        return self._address

    @property
    def spki(self) -> bytes:
        return self._server.spki

    @property
    def challenge(self) -> m.Challenge:
        assert self.opening is not None
        return self.opening

    async def send(self, message: m.ClientMessage) -> None:
        if self._over or self.peer is None:
            raise NetworkError("The connection has ended.")
        self._server.take(self.peer, self._connection.send(message))
        await asyncio.sleep(0)

    async def receive(self) -> m.RelayMessage:
        while not self._messages:
            data = await self._bytes.get()
            if data is None:
                raise NetworkError("The connection has ended.")
            self._messages += self._connection.receive_data(data)
        message = self._messages.pop(0)
        assert isinstance(message, m.RelayMessage)
        return message

    async def close(self) -> None:
        if self.peer is not None:
            self._server.gone(self.peer)

    def incoming(self, data: bytes) -> None:
        self._bytes.put_nowait(data)

    def end(self) -> None:
        self._over = True
        self._bytes.put_nowait(None)


# --- all of it ------------------------------------------------------------------------------------------


class World:
    """One chain, one relay, and the homes of everybody under one folder."""

    def __init__(self, folder: Path, *, policy: Policy = Policy.OPEN, ether: int = 0) -> None:
        self.folder = folder
        self.now = 1_800_000_000.0
        self.ether = ether
        """What every account has that `chain.wei` does not name: 0 means that the sponsor pays."""
        self.address = RelayAddress("relay.test:5555", SPKI, bytes(32))
        self.chain = Chain(self.clock, policy, (self.address,))
        self.relay = Relay(self)
        self.mined: dict[bytes, Mined] = {}
        self.transactions: list[str] = []
        """The verbs that went to the chain, in order."""
        self.before_transactions: list[Callable[[], None]] = []
        self.stores: list[Store] = []

    def clock(self) -> float:
        """A clock that moves a millisecond with every look, so that no two times are equal."""
        self.now += 0.001
        return self.now

    @property
    def edges(self) -> Edges:
        """What a client is wired with."""
        return Edges(
            open_store=self._open_store,
            chain=lambda settings, store: View(self.chain, settings, store),
            writer=lambda settings, network: Writer(self),
            calls=calls.Calls(),
            dial=self.relay.dial,
            clock=self.clock,
        )

    def _open_store(self, path: Path, key: bytes) -> Store:
        store = LocalStore(path, key)
        self.stores.append(store)
        return store

    def home(self, name: str) -> Path:
        """Where somebody lives."""
        return self.folder / name

    def client(self, name: str, *, password: str | None = PASSWORD, home: str | None = None) -> Client:
        """A client core at somebody's home."""
        return Client(
            self.home(home or name),
            self.edges,
            endpoints=("http://127.0.0.1:8545",),
            directory="0x" + NETWORK.directory.hex(),
            password=password,
        )

    @staticmethod
    def address_of(seed: str) -> Address:
        """An address that belongs to nobody else."""
        return Address(keccak256(seed.encode())[-20:])

    async def kill(self, client: Client) -> None:
        """What kill -9 leaves: the lock falls, the link breaks off, nothing is tidied up."""
        self.relay.cut()
        tasks = [*client._station._tasks]
        if client._station.session is not None:
            tasks.append(client._station.session._reader)
        if client._station._desk is not None and client._station._desk.outbox.pump is not None:
            tasks.append(client._station._desk.outbox.pump._task)
        if client._station._desk is not None and client._station._desk.courier._task is not None:
            tasks.append(client._station._desk.courier._task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client._station.session = client._station._desk = client._station._watch = (
            client._station.unlocked
        ) = None
        client._station.home.release()
        for store in self.stores:
            store.close()
        self.stores.clear()

    async def say(self, sender: str, to: str, *texts: str) -> list[Sent]:
        """Somebody sends something in a run of their own."""
        async with self.client(sender) as client:
            return [sent async for sent in client.send(to, texts)]

    @staticmethod
    async def until(holds: Callable[[], bool]) -> None:
        """Lets everything else run until something is so."""
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - there is no event: the test looks from outside
                await asyncio.sleep(0.001)

    @staticmethod
    async def drain(stream: AsyncIterator[T], into: list[T]) -> None:
        """Takes a stream to its end; what came before an error stays in the list."""
        async for one in stream:
            into += [one]

    async def hear(self, name: str, *, wait_s: float = 0.0, count: int | None = None) -> list[Shown]:
        """What somebody is shown in a run of their own."""
        async with self.client(name) as client:
            return [shown async for shown in client.receive(wait_s=wait_s, count=count)]

    async def register(self, *names: str) -> None:
        """Registers people, each in a home of their own."""
        for name in names:
            async with self.client(name) as client:
                await client.register(name)


__all__ = ["NETWORK", "PASSWORD", "SPKI", "World"]


def _parcel(delivery: Delivery) -> bytes:
    """A delivery as the relay keeps it, without its sequence."""
    return msgspec.msgpack.encode(msgspec.structs.astuple(delivery)[1:])


def _delivery(sequence: int, given: bytes) -> Delivery:
    return Delivery(sequence, *msgspec.msgpack.decode(given))
