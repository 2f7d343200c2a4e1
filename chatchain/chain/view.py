"""The chain as a client or a relay sees it: the store's rows, folded when somebody is asked for.

`sync` brings the store level; `user`, `group`, `ledger` and the like fold only the rows that they need and
keep the result until such rows change; `network`, `relays` and `nonce` ask the endpoints; `confirm` holds a
fold against the state that the contracts store, so an endpoint that hides the latest key of somebody is
found out.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from chatchain.chain import artifacts, calls
from chatchain.chain.calls import DeviceInfo, KeyInfo, View
from chatchain.chain.encoding import encode
from chatchain.chain.events import DIRECTORY, LEDGER, MEMBERSHIP, REWARDS, Directory
from chatchain.chain.rpc import (
    Endpoints,
    Request,
    Rpc,
    RpcFault,
    eth_call,
    hexed,
    quantity,
    require_chain,
    unhex,
)
from chatchain.chain.sync import DEV_CHAINS, Advance, LogStore, Sync
from chatchain.errors import ChainError, FoldMismatch, NoContract, UnknownUser
from chatchain.identity.keys import keccak256, to_checksum
from chatchain.model import (
    Address,
    BlockRef,
    Device,
    DeviceState,
    Group,
    Ledger,
    LogRow,
    Network,
    Proposal,
    ProposalId,
    RelayAddress,
    Rewards,
    TreeHead,
    Uid,
    User,
)

CONFIRMATIONS: Final = 12
"""Blocks on top of an addition before it is in force; about two and a half minutes on Ethereum."""

_KEPT_USERS: Final = 4096

_IS_VALID_SIGNATURE: Final = keccak256(b"isValidSignature(bytes32,bytes)")[:4]
"""What ERC-1271 calls the question, and what a contract that agrees answers."""

_HINT_VERSION: Final = (
    "Check --directory (CONTRACT_ADDRESS); if the address is right, this network was deployed by "
    "another version "
    "of chatchain."
)

_HINT_HIDING: Final = (
    "An RPC endpoint may be hiding events: name others with --rpc, and trust no key until it is clear."
)


class ChainView:
    """What the chain says, by way of a store; reads may come from other threads if the store allows."""

    def __init__(
        self,
        endpoints: Endpoints,
        directory: Address,
        store: LogStore,
        *,
        chain_id: int | None = None,
        confirmations: int | None = None,
        start: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.endpoints = endpoints
        self._directory = directory
        self._store = store
        self._chain_id = chain_id
        self._confirmations = confirmations
        self._start = start
        self._clock = clock
        self._network: Network | None = None
        self._sync: Sync | None = None
        self._time = 0
        self._asking = threading.Lock()
        self._syncing = threading.Lock()
        self._reading = threading.Lock()
        # What was folded, for one state of the store; `_generation` moves when rows may have changed.
        self._head: BlockRef | None = None
        self._generation = 0
        self._users: OrderedDict[Uid, User] = OrderedDict()
        self._folds: dict[int, Directory] = {}  # of one contract's rows, by LogRow.source

    # -- asked

    def network(self) -> Network:
        """The deployment, checked once: chain id, code and wiring of the contracts."""
        if self._network is None:
            with self._asking:
                if self._network is None:
                    self._network = self.endpoints.agree(self._check, tell=_in_words)
        return self._network

    def relays(self) -> tuple[RelayAddress, ...]:
        """The relays that the Directory names now."""
        return calls.relay_addresses(self._ask(calls.RELAYS, self._directory))

    def nonce(self, uid: Uid) -> int:
        """The user's signature nonce in the registry; raises UnknownUser."""
        account, _, _, nonce, _, _ = self._ask(calls.USER, self.network().registry, uid)
        if not any(account):
            raise UnknownUser(f"Nobody has the id {uid}.")
        return int(nonce)

    def veto_from(self, uid: Uid) -> int:
        """From which second on the user's account may refuse a recovery again; 0 if it never did."""
        (recovering,) = self._ask(calls.RECOVERY_OF, self.network().registry, uid)
        return int(recovering[5])

    def is_contract(self, account: Address) -> bool:
        """Whether there is code at an address."""
        return bool(
            self.endpoints.first(lambda endpoint: _value(endpoint, endpoint.batch([_code(account)])[0]))
        )

    def accepts(self, account: Address, digest: bytes, signature: bytes) -> bool:
        """Whether the contract at an address calls this signature over a digest its own (ERC-1271)."""
        data = _IS_VALID_SIGNATURE + encode(("bytes32", "bytes"), (digest, signature))
        request = eth_call(account, data, "latest")

        def ask(endpoint: Rpc) -> bool:
            answer = endpoint.try_batch([request])[0]
            # A contract that reverts says no; whatever else went wrong is no answer.
            if isinstance(answer, RpcFault):
                if answer.data is None and "revert" not in answer.reason.lower():
                    raise answer
                return False
            return unhex(endpoint.plain(answer)) == _IS_VALID_SIGNATURE.ljust(32, b"\0")

        return self.endpoints.first(ask)

    def confirm(self, uid: Uid) -> None:
        """Compares this user's events with what the registry stores; raises FoldMismatch."""
        self._compare(lambda step: self._user_differs(uid, step))

    def confirm_group(self, group: int = 0) -> None:
        """Compares a group's events with what Membership stores; raises FoldMismatch."""
        self._compare(lambda step: self._group_differs(group, step))

    def confirm_ledger(self) -> None:
        """Compares the ledger's events with what MessageLedger stores; raises FoldMismatch."""
        self._compare(self._ledger_differs)

    # -- folded

    def sync(self) -> int:
        """Takes in what is new and gives the head's block number."""
        return self.advance().head.number

    @property
    def head_time(self) -> int:
        """When the chain's newest block was made, by its own word in seconds; 0 before the first `sync`."""
        return self._time

    def advance(self) -> Advance:
        """As `sync`, telling what changed."""
        with self._syncing:
            if self._sync is None:
                self._sync = Sync(self.endpoints, self.network(), self._store, start=self._start)
            step = self._sync.advance()
            with self._reading:
                self._forget(step)
            return step

    def reread(self) -> Advance:
        """Forgets the whole history and reads it again: the way back from events that an endpoint hid."""
        with self._syncing:
            self._store.drop_from(0)
            with self._reading:
                self._generation += 1
                self._users.clear()
                self._folds.clear()
        return self.advance()

    def head(self) -> BlockRef | None:
        """The block up to which the store is level."""
        return self._store.head()

    def user(self, uid: Uid) -> User | None:
        """The user with this id."""
        head, generation = self._state()
        with self._reading:
            kept = self._users.get(uid)
            if kept is not None:
                self._users.move_to_end(uid)
                return kept.at(self._now())
        fold = self._fold(head, self._store.rows(subject=uid))
        user = fold.user(uid)
        if user is not None and not fold.pending:
            with self._reading:
                if generation == self._generation:
                    self._users[uid] = user
                    while len(self._users) > _KEPT_USERS:
                        self._users.popitem(last=False)
        return None if user is None else user.at(self._now())

    def user_by_name(self, username: str) -> User | None:
        """The user with this (normalised) name."""
        return self._found(self._store.rows(label=username), lambda user: user.username == username)

    def user_by_address(self, address: Address) -> User | None:
        """The user whose account this is, or else whose active signer: a signer gives way to an account, and
        stays in the list.
        """
        rows = self._store.rows(address=address)
        return self._found(rows, lambda user: address == user.account) or self._found(
            rows, lambda user: any(address == device.current.signer for device in user.active_devices)
        )

    def group(self, group: int = 0) -> Group:
        """A group with its members; raises FoldMismatch when its creation was not served."""
        found = self._groups().group(group)
        if found is None:
            raise FoldMismatch(f"Group {group} does not exist in the events served.")
        return found

    def groups(self) -> tuple[Group, ...]:
        """Every group, the network itself first."""
        return self._groups().groups()

    def group_by_name(self, name: str) -> Group | None:
        """The group with this name."""
        return self._groups().group_by_name(name)

    def paused_until(self) -> int:
        """Last second of the last pause; the network is paused until then."""
        return self._groups().paused_until

    def ledger(self) -> Ledger:
        """The logs of messages with their last heads, and who anchors and witnesses."""
        return self._folded(LEDGER).ledger()

    def ledger_head(self, log_id: bytes | None = None) -> TreeHead | None:
        """The last head of a log, by default of the one that grows; None before the first."""
        logs = self.ledger().logs
        found = [log for log in logs if log_id is None or log.log_id == log_id]
        return found[-1].head if found else None

    def rewards(self) -> Rewards:
        """The roots of rewards, and who publishes them."""
        return self._folded(REWARDS).rewards(self._now())

    def claimed(self, account: Address) -> int:
        """All the rewards that an account was given, in units of 1e-18 CHAT."""
        return self._folded(REWARDS).claimed(account)

    def successor(self) -> Address | None:
        """The Directory of the network that members recommend to go on with."""
        successor = self._folded(DIRECTORY).successor
        return successor if any(successor) else None

    def proposals(self, group: int = 0) -> tuple[Proposal, ...]:
        """Every proposal, oldest first."""
        return self._groups().proposals(group, self._now())

    def proposal(self, proposal: ProposalId) -> Proposal | None:
        """One proposal."""
        return self._groups().proposal(proposal, self._now())

    # -- what is folded when, and kept how long

    def _state(self) -> tuple[BlockRef | None, int]:
        """The store's head and the number of its state; forgets what was folded before another process
        wrote.
        """
        head = self._store.head()
        with self._reading:
            if head != self._head:
                self._head = head
                self._generation += 1
                self._users.clear()
                self._folds.clear()
            return head, self._generation

    def _forget(self, step: Advance) -> None:
        """After our own sync: only what had rows added or dropped, and what waits for confirmations."""
        self._time = step.time
        self._head = step.head
        if step.sources:
            self._generation += 1
        for uid in step.subjects:
            self._users.pop(Uid(uid), None)
        for source, fold in list(self._folds.items()):
            if source in step.sources or fold.pending:
                del self._folds[source]

    def _found(self, rows: Sequence[LogRow], is_it: Callable[[User], bool]) -> User | None:
        for subject in dict.fromkeys(row.subject for row in reversed(rows)):
            user = self.user(Uid(subject))
            if user is not None and is_it(user):
                return user
        return None

    def _groups(self) -> Directory:
        return self._folded(MEMBERSHIP)

    def _folded(self, source: int) -> Directory:
        """What one contract's rows fold to."""
        head, generation = self._state()
        with self._reading:
            kept = self._folds.get(source)
            if kept is not None:
                return kept
        fold = self._fold(head, self._store.rows(source=source))
        with self._reading:
            if generation == self._generation:
                self._folds[source] = fold
        return fold

    def _fold(self, head: BlockRef | None, rows: Sequence[LogRow]) -> Directory:
        try:
            return Directory(rows, horizon=self._horizon(head))
        except FoldMismatch as mismatch:
            raise FoldMismatch(mismatch.message, _HINT_HIDING) from mismatch

    def _horizon(self, head: BlockRef | None) -> int | None:
        """The last block whose additions are in force; None for all."""
        confirmations = self._confirmations
        if confirmations is None:
            confirmations = 0 if self.network().chain_id in DEV_CHAINS else CONFIRMATIONS
        return None if confirmations == 0 or head is None else head.number - confirmations

    def _now(self) -> int:
        # The next block's time is about now; a development chain's clock may run ahead of ours.
        return max(int(self._clock()), self._time)

    # -- comparing with the contracts

    def _compare(self, differs: Callable[[Advance], str]) -> None:
        failure: ChainError | None = None
        for attempt in range(3):
            # The state is asked for at the block up to which the store is level. Where that block was
            # replaced in between, the next round looks at a newer one; where the store was filled by an
            # endpoint that lied, the last round reads everything anew from those that are asked now.
            step = self.reread() if attempt == 2 and isinstance(failure, FoldMismatch) else self.advance()
            try:
                what = differs(step)
            except (RpcFault, FoldMismatch) as error:
                failure = error
                continue
            if not what:
                return
            failure = FoldMismatch(what, _HINT_HIDING)
        assert failure is not None
        raise failure

    def _user_differs(self, uid: Uid, step: Advance) -> str:
        views = [calls.DEVICES, calls.USER, calls.KEYS, calls.RECOVERY_OF]
        devices, stored, keys, (recovering,) = self._ask_all(
            views, self.network().registry, uid, block=hex(step.head.number)
        )
        user = Directory(self._store.rows(subject=uid)).user(uid)
        account, epoch, _, _, verifier, _ = stored
        if user is None:
            hidden = f"The contract knows the user {uid}, whose registration was not served."
            return hidden if any(account) else ""
        who = user.username
        found = calls.device_infos(devices)
        if len(found) != len(user.devices):
            return f"The contract knows {len(found)} devices of {who}, the events served {len(user.devices)}."
        for theirs, ours in zip(found, user.devices, strict=True):
            if not _same_device(theirs, ours):
                return (
                    f"The contract holds other keys for device {ours.device} of {who} than the events served."
                )
        if (account, epoch, verifier) != (user.account, user.epoch, user.verifier):
            return f"The contract holds another account or verifier of {who} than the events served."
        published = [KeyInfo(key.kind, key.state, key.current.version, key.head) for key in user.keys]
        if list(calls.key_infos(keys)) != published:
            return f"The contract holds other published keys of {who} than the events served."
        if recovering[:5] != _recovering(user.at(step.time)):
            return f"The contract holds another recovery of {who} than the events served."
        return ""

    def _ledger_differs(self, step: Advance) -> str:
        address, block = self.network().ledger, hex(step.head.number)
        views = [calls.CURRENT_LOG, calls.ANCHORER, calls.WITNESSES]
        (current,), (anchorer,), (quorum, witnesses) = self._ask_all(views, address, block=block)
        ((stored,),) = self._ask_all([calls.LOG], address, current, block=block)
        ledger = Directory(self._store.rows(source=LEDGER)).ledger()
        if (anchorer, quorum, tuple(witnesses)) != (ledger.anchorer, ledger.quorum, ledger.witnesses):
            return "The contract names another anchorer or other witnesses than the events served."
        newest = ledger.logs[-1] if ledger.logs else None
        head = newest.head if newest is not None else None
        ours = (
            newest.log_id if newest is not None else bytes(32),
            head.size if head is not None else 0,
            head.root if head is not None else bytes(32),
        )
        if ours != (current, stored[0], stored[3]):
            return (
                f"The contract holds another head of the log of messages ({stored[0]} leaves) than the "
                f"events served ({ours[1]} leaves)."
            )
        return ""

    def _group_differs(self, number: int, step: Advance) -> str:
        block = hex(step.head.number)
        (stored,) = self._ask_all([calls.GROUP], self.network().membership, number, block=block)
        members, epoch, roster_hash, policy, threshold, period = stored
        group = Directory(self._store.rows(source=MEMBERSHIP)).group(number)
        if group is None:
            return f"The creation of group {number} was not served." if period else ""
        ours = (
            len(group.members),
            group.epoch,
            group.roster_hash,
            group.policy,
            group.threshold,
            group.voting_period,
        )
        if ours != (members, epoch, roster_hash, policy, threshold, period):
            return (
                f"The contract holds another roster of group {number} (epoch {epoch}, {members} "
                f"members) than the "
                f"events served (epoch {group.epoch}, {len(group.members)} members)."
            )
        return ""

    # -- asking

    def _ask(self, view: View, to: Address, *values: object) -> tuple[Any, ...]:
        return self._ask_all([view], to, *values)[0]

    def _ask_all(
        self, views: Sequence[View], to: Address, *values: object, block: str = "latest"
    ) -> list[tuple[Any, ...]]:
        """Several views of one contract with the same arguments, agreed on by the endpoints."""
        requests = [view.request(to, *values, block=block) for view in views]

        def ask(endpoint: Rpc) -> list[tuple[Any, ...]]:
            results = endpoint.batch(requests)
            return [
                view.answer(unhex(endpoint.plain(result)))
                for view, result in zip(views, results, strict=True)
            ]

        return self.endpoints.agree(ask)

    def _check(self, endpoint: Rpc) -> Network:
        """The deployment as one endpoint shows it; raises WrongChain or NoContract."""
        at = self._directory
        results = endpoint.try_batch(
            [
                Request("eth_chainId"),
                _code(at),
                calls.REGISTRY_ADDRESS.request(at),
                calls.MEMBERSHIP_ADDRESS.request(at),
                calls.LEDGER_ADDRESS.request(at),
                calls.REWARDS_ADDRESS.request(at),
            ]
        )
        if isinstance(results[0], RpcFault):
            raise results[0]
        chain_id = quantity(endpoint.plain(results[0]))
        if self._chain_id is not None:
            require_chain(endpoint, endpoint.plain(results[0]), self._chain_id)
        self._require_code("Directory", at, chain_id, _value(endpoint, results[1]))
        named = (
            calls.REGISTRY_ADDRESS,
            calls.MEMBERSHIP_ADDRESS,
            calls.LEDGER_ADDRESS,
            calls.REWARDS_ADDRESS,
        )
        network = Network(
            chain_id,
            at,
            *(
                Address(view.answer(_value(endpoint, result))[0])
                for view, result in zip(named, results[2:], strict=True)
            ),
        )
        self._check_parts(endpoint, network)
        return network

    def _check_parts(self, endpoint: Rpc, network: Network) -> None:
        """Refuses a Directory whose contracts are not ours, or belong to another Directory."""
        parts = {
            "IdentityRegistry": network.registry,
            "Membership": network.membership,
            "MessageLedger": network.ledger,
            "RewardDistributor": network.rewards,
        }
        questions = (
            (calls.MEMBERSHIP_DIRECTORY, network.membership, network.directory),
            (calls.MEMBERSHIP_REGISTRY, network.membership, network.registry),
            (calls.LEDGER_DIRECTORY, network.ledger, network.directory),
            (calls.LEDGER_MEMBERSHIP, network.ledger, network.membership),
            (calls.REWARDS_DIRECTORY, network.rewards, network.directory),
            (calls.REWARDS_MEMBERSHIP, network.rewards, network.membership),
        )
        requests = [_code(address) for address in parts.values()]
        requests += [view.request(asked) for view, asked, _ in questions]
        requests.append(calls.TOKEN.request(network.rewards))
        results = endpoint.try_batch(requests)
        for (contract, address), result in zip(parts.items(), results, strict=False):
            self._require_code(contract, address, network.chain_id, _value(endpoint, result))
        wiring = results[len(parts) : -1]
        for (view, asked, expected), result in zip(questions, wiring, strict=True):
            found = Address(view.answer(_value(endpoint, result))[0])
            if found != expected:
                name = view.signature.partition("(")[0]
                raise NoContract(
                    f"The contracts at {to_checksum(network.directory)} do not belong together: the one at "
                    f"{to_checksum(asked)} names {to_checksum(found)} as its {name}, and not "
                    f"{to_checksum(expected)}."
                )
        # The distributor made its token itself, at construction: its code is all that there is to check.
        token = Address(calls.TOKEN.answer(_value(endpoint, results[-1]))[0])
        code = _value(endpoint, endpoint.batch([_code(token)])[0])
        self._require_code("RewardToken", token, network.chain_id, code)

    @staticmethod
    def _require_code(contract: str, address: Address, chain_id: int, found: bytes) -> None:
        if not found:
            raise NoContract(f"There is no contract at {to_checksum(address)} on chain {chain_id}.")
        if not artifacts.code(contract).matches(found):
            raise NoContract(
                f"The contract at {to_checksum(address)} on chain {chain_id} is not the {contract} "
                f"that this version "
                f"of chatchain knows: its {len(found)} bytes of code are others.",
                _HINT_VERSION,
            )


def _recovering(user: User) -> tuple[object, ...]:
    """What the registry's `recoveryOf` tells of a user, but for the veto."""
    waiting = [
        (takeover.address, takeover.time) if takeover is not None else (bytes(20), 0)
        for takeover in (user.next_recovery, user.next_account)
    ]
    return (user.recovery, *waiting[0], *waiting[1])


def _same_device(stored: DeviceInfo, folded: Device) -> bool:
    """Whether the registry stores a device as the events make it."""
    if (stored.state, stored.version, stored.head) != (folded.state, folded.current.version, folded.head):
        return False
    # What signer a revoked device had is of no consequence.
    return folded.state is DeviceState.REVOKED or stored.signer == folded.current.signer


def _in_words(network: Network) -> str:
    parts = to_checksum(network.registry), to_checksum(network.membership)
    return f"chain {network.chain_id} with registry {parts[0]} and membership {parts[1]}"


def _code(address: Address) -> Request:
    return Request("eth_getCode", (hexed(address), "latest"))


def _value(endpoint: Rpc, result: object) -> bytes:
    if isinstance(result, RpcFault):
        raise result
    return unhex(endpoint.plain(result))  # type: ignore[arg-type]
