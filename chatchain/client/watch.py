"""The chain as the other machines ask for it: asynchronous, one question at a time, remembered between two
blocks.

A ChainView blocks (it talks HTTP and folds rows), so every call goes to a worker thread, and a lock keeps
calls from overlapping.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from chatchain.client.ports import ChainView
from chatchain.errors import ChainError, TransactionPending
from chatchain.model import (
    Address,
    Group,
    Kind,
    Ledger,
    Network,
    Proposal,
    ProposalId,
    ProposalState,
    RelayAddress,
    Uid,
    User,
)

REMEMBERED: Final = 4096
"""Users kept folded in memory; beyond that the memory starts again."""

SETTLE_S: Final = 30.0
"""How long to look for one's own mined transaction in the fold."""

_T = TypeVar("_T")


class Watch:
    """One ChainView, awaited."""

    def __init__(self, view: ChainView, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._clock = clock
        self._lock = asyncio.Lock()
        self._users: dict[Uid, User | None] = {}
        self._vetoes: dict[Uid, int] = {}
        self._network: Network | None = None
        self._synced: float | None = None
        self.head = 0
        """The last block taken in."""

    async def sync(self) -> int:
        """Takes in what is new; gives the head."""
        async with self._lock:
            head = await asyncio.to_thread(self._view.sync)
            self._users.clear()
            self._vetoes.clear()
            self.head, self._synced = head, self._clock()
            return head

    async def sync_if_older(self, seconds: float) -> bool:
        """Takes in what is new unless that was done just now; says whether it did.

        Once this process has the chain, an endpoint that fails for a while does not stop messages from being
        read: what the fold has stays true, and every send asks again.
        """
        if self._synced is not None and self._clock() - self._synced < seconds:
            return False
        try:
            await self.sync()
        except ChainError:
            if self._synced is None:
                raise
            return False
        return True

    @property
    def synced(self) -> bool:
        """Whether this process has the chain."""
        return self._synced is not None

    async def network(self) -> Network:
        """The deployment."""
        if self._network is None:
            self._network = await self._ask(self._view.network)
        return self._network

    async def user(self, uid: Uid) -> User | None:
        """A user by id."""
        if uid not in self._users:
            if len(self._users) >= REMEMBERED:
                self._users.clear()
            self._users[uid] = await self._ask(lambda: self._view.user(uid))
        return self._users[uid]

    async def user_by_name(self, username: str) -> User | None:
        """A user by normalised name."""
        return await self._ask(lambda: self._view.user_by_name(username))

    async def user_by_address(self, address: Address) -> User | None:
        """A user by account or active signer."""
        return await self._ask(lambda: self._view.user_by_address(address))

    async def user_by_account(self, account: Address) -> User | None:
        """A user by account alone: anybody may name any address as a signer, which says nothing."""
        user = await self.user_by_address(account)
        return user if user is not None and user.account == account else None

    async def confirm(self, uid: Uid) -> None:
        """Compares the fold of a user with the contract; raises FoldMismatch."""
        await self._ask(lambda: self._view.confirm(uid))

    async def group(self, group: int = 0) -> Group:
        """A group with its members."""
        return await self._ask(lambda: self._view.group(group))

    async def group_by_name(self, name: str) -> Group | None:
        """The group that is governed on the chain under this name."""
        return await self._ask(lambda: self._view.group_by_name(name))

    async def proposals(self, group: int = 0) -> tuple[Proposal, ...]:
        """Every proposal, oldest first."""
        return await self._ask(lambda: self._view.proposals(group))

    async def proposal(self, proposal: ProposalId) -> Proposal | None:
        """One proposal."""
        return await self._ask(lambda: self._view.proposal(proposal))

    async def ledger(self) -> Ledger:
        """The logs of messages, and who anchors and witnesses."""
        return await self._ask(self._view.ledger)

    async def relays(self) -> tuple[RelayAddress, ...]:
        """The relays that the Directory names."""
        return await self._ask(self._view.relays)

    async def nonce(self, uid: Uid) -> int:
        """The user's signature nonce."""
        return await self._ask(lambda: self._view.nonce(uid))

    async def veto_from(self, uid: Uid) -> int:
        """From which second on the user's account may refuse a recovery again; 0 if it never did."""
        if uid not in self._vetoes:
            self._vetoes[uid] = await self._ask(lambda: self._view.veto_from(uid))
        return self._vetoes[uid]

    async def is_contract(self, account: Address) -> bool:
        """Whether there is code at an address: it may be a wallet that judges its signatures itself."""
        return await self._ask(lambda: self._view.is_contract(account))

    async def accepts(self, account: Address, digest: bytes, signature: bytes) -> bool:
        """Whether the contract at an address calls this signature over a digest its own (ERC-1271)."""
        return await self._ask(lambda: self._view.accepts(account, digest, signature))

    async def is_member(self, uid: Uid, group: int = 0) -> bool:
        """Whether the user has a seat."""
        return any(member.uid == uid for member in (await self.group(group)).members)

    async def until(self, holds: Callable[[], Awaitable[_T | None]], what: str) -> _T:
        """Follows the chain until a question has an answer; raises TransactionPending after half a minute.

        On a chain where additions count only after some blocks, one's own mined transaction is not in force
        at once.
        """
        deadline = time.monotonic() + SETTLE_S
        pause = 0.05
        while True:
            await self.sync()
            answer = await holds()
            if answer is not None:
                return answer
            if time.monotonic() > deadline:
                raise TransactionPending(
                    f"{what} is mined and not yet in force.", "Try again in a few blocks."
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _ask(self, question: Callable[[], _T]) -> _T:
        async with self._lock:
            return await asyncio.to_thread(question)


async def way_in(watch: Watch, uid: Uid, group: int = 0) -> str:
    """What helps somebody who is no member: the vote that is under way, if one is."""
    found = await open_proposal(watch, group, Kind.ADMIT, uid)
    return f"Proposal {found.id} is open; wait for the vote." if found is not None else ""


async def open_proposal(watch: Watch, group: int, kind: Kind, subject: Uid) -> Proposal | None:
    """The proposal about somebody that still takes votes."""
    for proposal in reversed(await watch.proposals(group)):
        if (proposal.kind, proposal.subject, proposal.state) == (kind, subject, ProposalState.OPEN):
            return proposal
    return None
