"""Has calls paid for: who may ask, in which order it is judged, and what is told.

`sponsor` decides what is paid for, `newcomers` who may register, `turns` gathers what is paid for together.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

from structlog.typing import FilteringBoundLogger

from chatchain.errors import (
    ChainError,
    ChatchainError,
    CommitmentPending,
    LimitReached,
    RefusedError,
    StoreUnavailable,
)
from chatchain.identity.admission import Invitation
from chatchain.model import Call
from chatchain.relay.limits import Buckets, Rate, milliseconds
from chatchain.relay.metrics import Metrics
from chatchain.relay.newcomers import Newcomers
from chatchain.relay.ports import Peer
from chatchain.relay.sessions import Guest, Session
from chatchain.relay.sponsor import Order, Paid, Sponsor, is_registration
from chatchain.relay.tasks import Threads
from chatchain.relay.turns import Turns
from chatchain.relay.users import Users
from chatchain.wire import deadlines
from chatchain.wire.messages import Sponsor as SponsorRequest
from chatchain.wire.messages import Sponsored

AT_ONCE: Final = 32
GUESTS_AT_ONCE: Final = AT_ONCE // 2
"""Of these, calls from connections of one address that have not logged in."""

STRANGERS_AT_ONCE: Final = AT_ONCE * 3 // 4
"""The same from all addresses: the rest is kept for members' votes and calls."""

REQUESTS: Final = Rate(burst=300, per_second=5)
"""Calls that one user, or who has not logged in from one address, may ask for: beyond it nothing of them is
looked at, nor logged.
"""

TEND: Final = 3.0
"""Seconds between two looks at what was sent and is not mined."""


class Sponsoring:
    """Serves what connections want paid; without a sponsor it refuses everything."""

    def __init__(
        self,
        sponsor: Sponsor | None,
        newcomers: Newcomers | None,
        *,
        users: Users,
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._sponsor = sponsor
        self._newcomers = newcomers
        self._users = users
        self._log = log
        self._metrics = metrics
        self._requests = Buckets(REQUESTS)
        metrics.sponsor_stalled.set_function(lambda: self.state == "stalled")
        metrics.unsettled.set_function(lambda: sponsor.unsettled if sponsor is not None else 0)
        self._under_way = 0
        self._guests: Counter[str] = Counter()
        self._threads = Threads(4, "sponsor")
        self._turns = Turns(
            self._pay_all, self._threads.executor, gather=sponsor.gather if sponsor is not None else 0.0
        )

    @property
    def work_announced(self) -> int:
        """What the challenge says of the work that a newcomer has to show."""
        return self._newcomers.rules.announced if self._newcomers is not None else 0

    @property
    def state(self) -> Literal["off", "paying", "stalled"]:
        """Whether calls are paid for."""
        if self._sponsor is None:
            return "off"
        return "stalled" if self._sponsor.stalled(time.monotonic()) else "paying"

    async def pay_for(self, peer: Peer, session: Session | None, request: SponsorRequest) -> Sponsored:
        """Has a call sent for a device that is logged in, or for a guest; raises ChatchainError."""
        if self._sponsor is None:
            raise RefusedError("This relay does not pay for transactions.", "Put ether on the account.")
        wait = self._requests.take(session.uid if session is not None else peer.address, time.monotonic())
        if wait:
            raise LimitReached("Too many calls to be paid for.", retry_after_ms=milliseconds(wait))
        crowded = session is None and (
            self._guests[peer.address] >= GUESTS_AT_ONCE or self._guests.total() >= STRANGERS_AT_ONCE
        )
        if crowded or self._under_way >= AT_ONCE:
            raise LimitReached("The relay is paying for as many calls as it can.", retry_after_ms=1_000)
        uid = session.uid if session is not None else 0
        self._under_way += 1
        if session is None:
            self._guests[peer.address] += 1
        try:
            paid = await self._judged_and_paid(self._sponsor, peer, uid, request)
        except ChatchainError as error:
            if isinstance(error, CommitmentPending):
                _give_time(peer)
            self._metrics.sponsored.labels(error.code).inc()
            self._log.info("sponsor refused", code=error.code, uid=uid)
            raise
        finally:
            self._under_way -= 1
            if session is None:
                self._guests[peer.address] -= 1
                self._guests += Counter()  # forgets those at zero
        self._metrics.sponsored.labels("sent").inc()
        self._log.info("sponsored", tx=paid.tx_hash.hex(), uid=uid, wei=paid.wei)
        _give_time(peer)
        return Sponsored(request.ref, paid.tx_hash)

    async def tend(self) -> None:
        """Sees the sponsor's transactions through, for ever."""
        if self._sponsor is None:
            return
        await self._threads.run(self._sponsor.prepare)
        said = "paying"
        while True:
            await asyncio.sleep(TEND)
            try:
                await self._threads.run(partial(self._sponsor.tend, time.monotonic()))
            except (ChainError, StoreUnavailable) as error:
                self._log.warning("transactions not tended", code=error.code)
            if (state := self.state) != said:
                said = state
                tell = self._log.info if state == "paying" else self._log.error
                tell(f"sponsor {state}", unsettled=self._sponsor.unsettled)

    def stop(self) -> None:
        """Takes up no more work."""
        self._turns.stop()
        self._threads.stop()

    def _pay_all(self, orders: Sequence[Order]) -> list[Paid | ChatchainError]:
        assert self._sponsor is not None, "who has no sponsor takes no turns"
        return self._sponsor.pay_all(orders, time.monotonic())

    async def _judged_and_paid(self, sponsor: Sponsor, peer: Peer, uid: int, request: SponsorRequest) -> Paid:
        call = Call(request.contract, request.data)
        user = await self._users.user(uid) if uid else None
        sponsor.admit(call, user, peer.address, time.monotonic())
        invitation = await self._let_in(peer, call, request)
        if not uid:
            await self._threads.run(lambda: sponsor.inspect(call))
        return await self._pay_one(Order(call, uid), invitation)

    async def _let_in(self, peer: Peer, call: Call, request: SponsorRequest) -> Invitation | None:
        """Refuses the registration of a newcomer who neither worked for it nor is invited."""
        if self._newcomers is None or not is_registration(call):
            return None
        guest = peer.session
        if not isinstance(guest, Guest):
            raise RefusedError("A newcomer is registered before login, on a connection of its own.")
        invitation = self._newcomers.invitation(request.admission)
        if invitation is None:
            if request.ref <= guest.worked:
                raise RefusedError("Each request for a newcomer needs work of its own.")
            self._newcomers.require_work(request.admission, guest.nonce, request.ref, call)
            guest.worked = request.ref
            return None
        self._newcomers.judge(
            invitation,
            await self._users.user(invitation.inviter),
            is_member=invitation.inviter in self._users.membership.members,
            time=int(time.time()),
            now=time.monotonic(),
        )
        return invitation

    async def _pay_one(self, order: Order, invitation: Invitation | None) -> Paid:
        """Has a call paid for; that uses an invitation up, unless the call is refused."""
        newcomers = self._newcomers
        if newcomers is None or invitation is None:
            return await self._turns.pay(order)
        first = await self._threads.run(partial(newcomers.spend, invitation, order.call, int(time.time())))
        try:
            paid = await self._turns.pay(order)
        except ChatchainError:
            if first:
                await self._threads.run(partial(newcomers.restore, invitation, order.call))
            raise
        if first:
            newcomers.used(invitation, time.monotonic())
        return paid


def _give_time(peer: Peer) -> None:
    """The chain has to mine what was paid for a stranger before it can log in."""
    if peer.deadline:
        peer.deadline = asyncio.get_running_loop().time() + deadlines.SPONSORED
