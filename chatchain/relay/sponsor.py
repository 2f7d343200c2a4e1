"""Pays for signed calls of accounts without ether: which, for whom, how often and for how much.

Only calls that carry their author's own signature are paid for, so a sponsor can withhold but not forge.
Before login that is a registration, or what gives an account back to its owner; afterwards what the logged-in
user signed, recognised by the uid or address in the calldata.

Calls are paid for in turns. All of a turn are tried out together, with a bound on the gas of each; those that
would succeed are booked for the most that they can cost, and sent for exactly that. One that would be refused
costs nothing but its place in the rate, and spoils none of the others. When a transaction is mined, what it
did not use is given back. What is signed is written down before it is sent, so whichever process comes next
sees it through.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from chatchain.errors import (
    AlreadyDone,
    ChainError,
    ChatchainError,
    CommitmentNeeded,
    CommitmentPending,
    LimitReached,
    RefusedError,
    Reverted,
    SponsorUnavailable,
    StoreUnavailable,
    TooLarge,
)
from chatchain.identity.keys import keccak256
from chatchain.model import Address, Booked, Call, Cost, Dispatch, Note, Outcome, User
from chatchain.relay.bills import Sending, decode, encode
from chatchain.relay.limits import Bucket, Buckets, Rate, milliseconds
from chatchain.relay.ports import Payer
from chatchain.relay.spending import Spending

MAX_GAS: Final = 1_000_000
"""A registration takes about a quarter of it; an account that is a contract could take any amount to check a
signature.
"""

MOST_FOR_DECISIONS: Final = 5_000_000
"""What the contract keeps ready for the decision that takes most, a new list of relays. The vote that decides
must bring it along, used or not.
"""

BESIDES_DECISION: Final = 500_000
"""For the vote itself, and for reading what was decided on: 4 KiB at most, some 270,000."""

VOTES_TOGETHER: Final = 64
GAS_TOGETHER: Final = 10_000_000
"""Votes in one transaction, and their gas: a third of what a block holds."""

REMEMBERED: Final = 10_000
REMEMBERED_SECONDS: Final = 600.0
"""How many calls are known to have been sent, and for how long: as long as clients let signatures last."""

CLAIMED_SECONDS: Final = 60.0
"""How long a name counts as about to be taken: until the transaction is surely mined, or lost."""

ON_ITS_WAY_MS: Final = 2_000
"""After how long somebody who waits for a transaction asks again."""

STALLED: Final = 300.0
"""Seconds without anything mined of what is on its way, after which nothing more is sent: 25 of Ethereum's
blocks, and as long as a transaction takes to be offered at its highest price.
"""

TOGETHER: Final = 500
"""Transactions that are settled at once."""

UNAVAILABLE_MS: Final = 60_000
"""After how long somebody asks again whether the relay pays."""

_WORD: Final = 32


class SponsorLimits(msgspec.Struct, frozen=True):
    """How often the sponsor pays, and how many seconds votes wait for others when nothing else is due."""

    registrations: Rate = Rate.hourly(1000)
    registrations_per_address: Rate = Rate.hourly(200)
    calls_per_user: Rate = Rate.hourly(200)
    gather: float = 0.0


class _Verb(msgspec.Struct, frozen=True):
    """A call that may be paid for: which argument names its author, and whether as uid or as address."""

    contract: str
    signature: str
    author: int = 0
    by_address: bool = False


_REGISTRATION: Final = _Verb(
    "identity", "registerFor(address,string,bytes32,bytes,address,address,bytes,uint256,bytes)"
)
_VOTE: Final = _Verb("membership", "voteBySig(uint64,bool,address,bytes)", 2, by_address=True)
_RESTORING: Final = (
    _Verb("identity", "addDeviceFor(uint64,address,bytes,uint256,bytes)"),
    _Verb("identity", "setVerifierFor(uint64,bytes32,bytes,uint256,bytes)"),
    _Verb("identity", "proposeRecoveryFor(uint64,address,uint256,bytes)"),
    _Verb("identity", "vetoRecoveryFor(uint64,uint256,bytes)"),
    _Verb("identity", "finaliseRecoveryFor(uint64,uint256,bytes)"),
)
"""Whoever restores a home or recovers an account cannot log in yet; the contract knows who must sign."""

_VERBS: Final = (
    _REGISTRATION,
    *_RESTORING,
    _Verb("identity", "updateDeviceFor(uint64,uint32,uint32,address,bytes,uint256,address,bytes)"),
    _Verb("identity", "revokeDeviceFor(uint64,uint32,uint256,bytes)"),
    _Verb("identity", "addKeyFor(uint64,uint8,bytes,uint256,bytes)"),
    _Verb("identity", "updateKeyFor(uint64,uint32,uint32,bytes,uint256,bytes)"),
    _Verb("identity", "revokeKeyFor(uint64,uint32,uint256,bytes)"),
    _Verb("identity", "setRecoveryFor(uint64,address,uint256,bytes)"),
    _Verb("identity", "transferFor(uint64,address,uint256,bytes,bytes)"),
    _Verb("identity", "invalidateNonceFor(uint64,uint256,bytes)"),
    _Verb(
        "membership",
        "createGroupFor(string,uint64[],(uint16,uint32),address,uint256,bytes)",
        4,
        by_address=True,
    ),
    _Verb("membership", "requestFor(uint32,address,uint256,bytes)", 1, by_address=True),
    _Verb("membership", "proposeFor(uint32,uint8,uint64,bytes,address,uint256,bytes)", 4, by_address=True),
    _VOTE,
    _Verb("membership", "leaveFor(uint32,address,uint256,bytes)", 1, by_address=True),
)


def _selector(signature: str) -> bytes:
    return keccak256(signature.encode())[:4]


_BY_SELECTOR: Final = {(verb.contract, _selector(verb.signature)): verb for verb in _VERBS}


def _verb(call: Call) -> _Verb | None:
    return _BY_SELECTOR.get((call.contract, call.data[:4]))


def is_registration(call: Call) -> bool:
    """Whether a call makes a newcomer's account."""
    return _verb(call) is _REGISTRATION


class Order(msgspec.Struct, frozen=True):
    """A call to be paid for, and who asks: the logged-in user's uid, or 0 before login."""

    call: Call
    uid: int = 0

    @property
    def patient(self) -> bool:
        """Whether it may wait a moment for others of its kind."""
        return _verb(self.call) is _VOTE


class Paid(msgspec.Struct, frozen=True):
    """A call that was sent: under which transaction, and the most wei that it can cost."""

    tx_hash: bytes
    wei: int


class _Parcel(msgspec.Struct):
    """One transaction to be: its call and cost, and the orders that it carries out, each with its cost."""

    call: Call
    cost: Cost
    orders: list[Order]
    costs: list[Cost]
    booked: list[Booked]


class _Memory(msgspec.Struct):
    """A call that was sent, for those who ask again: until when, and whether it is mined."""

    until: float
    paid: Paid
    together: bool  # with other votes, of which a mined transaction may have skipped some
    mined: bool = False


class _Bill(msgspec.Struct):
    """A transaction that is not settled: what was booked for it, the calls that it carries out with the most
    wei of each, and since when it is on its way.
    """

    booked: list[Booked]
    calls: list[Call]
    wei: list[int]
    since: float


class Sponsor:
    """Decides about calls and has them paid for, many in one turn.

    `admit` may be called at any time; the others block, and may be called from several threads: of several
    turns one is tried out while another is sent.
    """

    def __init__(self, payer: Payer, spending: Spending, limits: SponsorLimits, now: float) -> None:
        self._payer = payer
        self._spending = spending
        self.gather = limits.gather
        self._registrations = Bucket(limits.registrations, now)
        self._by_address = Buckets(limits.registrations_per_address)
        self._by_user = Buckets(limits.calls_per_user)
        self._sent: OrderedDict[bytes, _Memory] = OrderedDict()
        self._claims: OrderedDict[bytes, float] = OrderedDict()
        self._bills: dict[bytes, _Bill] = {}
        self._returns: deque[tuple[list[Booked], int]] = deque()
        self._settled_at = now
        self._turn = threading.Lock()

    def stalled(self, now: float) -> bool:
        """Whether nothing that was sent is mined: the chain stands still, or its node does not tell."""
        oldest = min((bill.since for bill in list(self._bills.values())), default=now)
        return now - max(oldest, self._settled_at) > STALLED

    @property
    def unsettled(self) -> int:
        """How many transactions are on their way."""
        return len(self._bills)

    def admit(self, call: Call, user: User | None, address: str, now: float) -> None:
        """Lets a call pass to `pay_all`; `user` is who is logged in. Raises RefusedError or LimitReached."""
        verb = _verb(call)
        if verb is None:
            raise RefusedError("The relay does not pay for this call.")
        if not self._payer.canonical(call):
            raise RefusedError("The relay does not pay for calldata that is more than its call.")
        if verb is _REGISTRATION or (user is None and verb in _RESTORING):
            _require(self._by_address.take(address, now), "registrations")
            return
        if user is None:
            raise RefusedError(
                "Before login the relay pays for registering and restoring only.", "Log in first."
            )
        if not _is_author(verb, call.data, user):
            raise RefusedError("The relay pays only for what the logged-in user signed.")
        _require(self._by_user.take(user.uid, now), "calls")

    def inspect(self, call: Call) -> None:
        """Refuses strangers the registration of a contract, whose own code would run at their bidding before
        anybody is known. Blocks.
        """
        if is_registration(call) and self._payer.has_code(_account(call)):
            raise RefusedError("The relay does not pay for the registration of a contract.")

    def pay_all(self, orders: Sequence[Order], now: float) -> list[Paid | ChatchainError]:
        """Tries calls out, books them and sends those that would succeed: what became of each. Blocks.

        A call that was sent before is answered with its transaction: whoever lost the answer, and asks again,
        finds the name taken and the signature used by nobody else, and learns under which hash a replaced
        transaction is found.
        """
        outcomes: dict[bytes, Paid | ChatchainError] = {}
        with self._turn:
            fresh = self._fresh(orders, now, outcomes)
            if self.stalled(now):  # more would only be booked, and wait as well
                outcomes.update((_digest(order.call), _stalled()) for order in fresh)
                fresh = []
        # Meanwhile the turn before may still be sending: a node tries out and takes in side by side.
        costs = dict(zip(map(_digest_of, fresh), self._try_out([order.call for order in fresh]), strict=True))
        with self._turn:
            fresh = self._fresh(fresh, now, outcomes)  # without what that turn sent
            found = [costs[_digest_of(order)] for order in fresh]
            self._commit_first(fresh, found, now)
            self._send(self._packed(self._booked(fresh, found, outcomes, now)), outcomes, now)
            self._return()
            return [outcomes[_digest_of(order)] for order in orders]

    def prepare(self) -> None:
        """Gets ready to pay. Blocks."""
        self._payer.prepare()

    def tend(self, now: float) -> None:
        """Sees what was sent through until it is mined and settled, also what other processes have left;
        higher fees are booked, too. Blocks.
        """
        with self._turn:
            self._take_over(now)
            self._return()
            for outcome in self._payer.tend(self._allow, self._keep_versions):
                self._settle(outcome)
                self._settled_at = now
            self._return()

    # --- one turn ------------------------------------------------------------------------------------------

    def _fresh(
        self, orders: Sequence[Order], now: float, outcomes: dict[bytes, Paid | ChatchainError]
    ) -> list[Order]:
        """The orders to be tried out, each call once; the others are answered at once."""
        while self._sent and next(iter(self._sent.values())).until <= now:
            self._sent.popitem(last=False)
        while self._claims and next(iter(self._claims.values())) <= now:
            self._claims.popitem(last=False)
        fresh: list[Order] = []
        seen: set[bytes] = set()
        claimed: set[bytes] = set()
        for order in orders:
            digest = _digest(order.call)
            if digest in seen:
                continue
            seen.add(digest)
            before = self._remembered(digest, order)
            claims = _claims_of(order.call)
            if before is not None:
                outcomes[digest] = before
            elif any(claim in claimed or claim in self._claims for claim in claims):
                outcomes[digest] = _overlapping()
            else:
                claimed.update(claims)
                fresh.append(order)
        return fresh

    def _remembered(self, digest: bytes, order: Order) -> Paid | None:
        """The transaction that carries a call out already; None if the call must be tried out (again)."""
        memory = self._sent.get(digest)
        if memory is None:
            return None
        if memory.together and not self._payer.has_voted(order.call, order.uid) and memory.mined:
            del self._sent[digest]  # its batch skipped it; tried out by itself it tells why
            return None
        if memory.mined:
            return memory.paid
        return msgspec.structs.replace(memory.paid, tx_hash=self._payer.follow(memory.paid.tx_hash))

    def _try_out(self, calls: Sequence[Call]) -> list[Cost | ChatchainError]:
        costs = self._estimate(calls, MAX_GAS)
        for place, call in enumerate(calls):
            needed = _needed(costs[place]) if _verb(call) is _VOTE else 0
            if needed:
                (costs[place],) = self._estimate([call], needed)
        return costs

    def _estimate(
        self, calls: Sequence[Call], most: int, *, next_block: bool = False
    ) -> list[Cost | ChatchainError]:
        if not calls:
            return []
        costs = self._payer.estimate_all([(call, most) for call in calls], next_block=next_block)
        return [
            TooLarge(f"The call would take {cost.gas} gas; the relay pays for {most}.")
            if isinstance(cost, Cost) and max(cost.gas, cost.limit) > most
            else cost
            for cost in costs
        ]

    def _commit_first(self, orders: Sequence[Order], costs: list[Cost | ChatchainError], now: float) -> None:
        """Commits for newcomers whose names must have been committed to in an earlier block.

        Where that is done and mined, the call is tried out as part of the next block; otherwise who asked is
        told to come again.
        """
        needed = [place for place, cost in enumerate(costs) if isinstance(cost, CommitmentNeeded)]
        if not needed:
            return
        commitments = [Order(self._payer.commitment(orders[place].call)) for place in needed]
        told: dict[bytes, Paid | ChatchainError] = {}
        fresh = self._fresh(commitments, now, told)
        tried = self._estimate([order.call for order in fresh], MAX_GAS)
        self._send(self._booked(fresh, tried, told, now), told, now)
        ready: list[int] = []
        for place, commitment in zip(needed, commitments, strict=True):
            digest = _digest(commitment.call)
            answer, memory = told[digest], self._sent.get(digest)
            if isinstance(answer, AlreadyDone) or (memory is not None and memory.mined):
                ready.append(place)
            elif isinstance(answer, ChatchainError):
                costs[place] = answer
            else:
                costs[place] = _committing()
        later = self._estimate([orders[place].call for place in ready], MAX_GAS, next_block=True)
        for place, cost in zip(ready, later, strict=True):
            costs[place] = _committing() if isinstance(cost, CommitmentNeeded) else cost

    def _booked(
        self,
        orders: Sequence[Order],
        costs: Sequence[Cost | ChatchainError],
        outcomes: dict[bytes, Paid | ChatchainError],
        now: float,
    ) -> list[_Parcel]:
        """Books the calls that would succeed; the others' refusals, and those of the limits, are outcomes.

        Only here do registrations count for all together, and calls before login for the user whose account
        they are about: attempts that fail do not use up others' shares.
        """
        passed: list[tuple[Order, Cost]] = []
        for order, cost in zip(orders, costs, strict=True):
            try:
                if isinstance(cost, ChatchainError):
                    raise cost
                if is_registration(order.call):
                    _require(self._registrations.take(now), "registrations")
                elif not order.uid and _verb(order.call) in _RESTORING:
                    _require(self._by_user.take(_word(order.call.data, 0), now), "calls")
                if cost.wei > self._spending.most:
                    raise _too_dear()
                passed.append((order, cost))
            except ChatchainError as refusal:
                outcomes[_digest(order.call)] = refusal
        parcels = []
        told = self._spending.book([cost.wei for _, cost in passed]) if passed else []
        for (order, cost), booked in zip(passed, told, strict=True):
            if isinstance(booked, Booked):
                parcels.append(_Parcel(order.call, cost, [order], [cost], [booked]))
            else:
                outcomes[_digest(order.call)] = _spent(booked, "calls")
        return parcels

    def _packed(self, parcels: list[_Parcel]) -> list[_Parcel]:
        """Votes that wait together go in one transaction, for the sum of what was booked for each."""
        votes = [parcel for parcel in parcels if _verb(parcel.call) is _VOTE and parcel.cost.limit <= MAX_GAS]
        if len(votes) < 2:
            return parcels
        packed = [parcel for parcel in parcels if parcel not in votes]
        batches: list[list[_Parcel]] = [[]]
        for vote in votes:
            gas = sum(parcel.cost.limit for parcel in batches[-1]) + vote.cost.limit
            if len(batches[-1]) == VOTES_TOGETHER or (batches[-1] and gas > GAS_TOGETHER):
                batches.append([])
            batches[-1].append(vote)
        for batch in batches:
            together = self._that_passes(_together(self._payer, batch)) if len(batch) > 1 else None
            packed += batch if together is None else [together]
        return packed

    def _that_passes(self, batch: _Parcel) -> _Parcel | None:
        """The batch if it passes for what was booked, or with what it decides booked besides.

        One of the votes may decide, though none of them would alone. Where that cannot be found out, each
        goes by itself: what was booked for it must be spent or given back.
        """
        try:
            (told,) = self._estimate([batch.call], batch.cost.limit)
            if isinstance(told, Cost):
                return batch
            more = _needed(told)
            if not more:
                return None
            (booked,) = self._spending.book([more * batch.cost.fee])
        except (ChainError, StoreUnavailable):
            return None
        if not isinstance(booked, Booked):
            return None
        cost = msgspec.structs.replace(batch.cost, limit=batch.cost.limit + more)
        return msgspec.structs.replace(batch, cost=cost, booked=[*batch.booked, booked])

    def _send(
        self, parcels: Sequence[_Parcel], outcomes: dict[bytes, Paid | ChatchainError], now: float
    ) -> None:
        """Sends what was booked for exactly that; what cannot be sent is given back."""
        if not parcels:
            return

        def keep(signed: Sequence[tuple[int, Dispatch]]) -> None:
            self._spending.keep(
                [
                    _note(parcels[place].booked, *_contents(parcels[place]), dispatch)
                    for place, dispatch in signed
                ]
            )

        try:
            told = self._payer.submit_all([(parcel.call, parcel.cost) for parcel in parcels], keep)
        except ChatchainError as failure:
            told = [failure] * len(parcels)
        for parcel, sent in zip(parcels, told, strict=True):
            if isinstance(sent, ChatchainError):
                self._give_back(parcel.booked, 0)
                outcomes.update((_digest(order.call), sent) for order in parcel.orders)
                continue
            self._bills[sent] = _Bill(parcel.booked, *_contents(parcel), now)
            for order, cost in zip(parcel.orders, parcel.costs, strict=True):
                outcomes[_digest(order.call)] = paid = Paid(sent, cost.wei)
                self._remember(order.call, paid, now, together=len(parcel.orders) > 1)

    def _remember(self, call: Call, paid: Paid, now: float, *, together: bool) -> None:
        self._sent[_digest(call)] = _Memory(now + REMEMBERED_SECONDS, paid, together)
        for claim in _claims_of(call):
            self._claims[claim] = now + CLAIMED_SECONDS
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        while len(self._claims) > 2 * REMEMBERED:
            self._claims.popitem(last=False)

    # --- afterwards ----------------------------------------------------------------------------------------

    def _allow(self, submitted: bytes, wei: int) -> bool:
        """Books a higher fee, if the limits let it."""
        bill = self._bills.get(submitted)
        if bill is None:
            return False  # it is settled, and was mined once
        try:
            (booked,) = self._spending.book([wei])
        except StoreUnavailable:
            return False
        if isinstance(booked, Booked):
            bill.booked.append(booked)
        return isinstance(booked, Booked)

    def _keep_versions(self, signed: Sequence[tuple[int, Dispatch]]) -> None:
        bills = [(self._bills.get(dispatch.hashes[0]), dispatch) for _, dispatch in signed]
        notes = [
            _note(bill.booked, bill.calls, bill.wei, dispatch)
            for bill, dispatch in bills
            if bill is not None  # else it is settled, and was mined once
        ]
        if notes:
            self._spending.keep(notes)

    def _take_over(self, now: float) -> None:
        """Sees to what processes that are gone have booked: what they never signed is given back at once.

        Whether what they signed was sent as well nobody knows: it is sent again if no node has it.
        """
        signed: list[tuple[Note, Sending]] = []
        try:
            left = self._spending.left()
        except StoreUnavailable:
            return  # what is on its way is looked after all the same
        for note in left:
            if note.sent:
                signed.append((note, decode(note.sent)))
            else:
                self._give_back(list(note.booked), 0)
        if not signed:
            return
        adopted = self._payer.adopt([sending.dispatch for _, sending in signed])
        for (note, (calls, wei, dispatch)), own in zip(signed, adopted, strict=True):
            if own is None:
                self._give_back(list(note.booked), 0)
            if not own:
                continue  # of another account: it counts for its day
            submitted = dispatch.hashes[0]
            self._bills[submitted] = _Bill(list(note.booked), calls, wei, now)
            for call, most in zip(calls, wei, strict=True):
                self._remember(call, Paid(submitted, most), now, together=len(calls) > 1)

    def _settle(self, outcome: Outcome) -> None:
        """Gives back what a transaction did not use, and keeps in mind what it has done."""
        bill = self._bills.pop(outcome.submitted, None)
        if bill is None:
            return
        self._give_back(bill.booked, outcome.wei)
        for call in bill.calls:
            memory = self._sent.get(_digest(call))
            if memory is None or memory.paid.tx_hash != outcome.submitted:
                continue
            if outcome.failure is None:
                memory.mined = True
                memory.paid = msgspec.structs.replace(memory.paid, tx_hash=outcome.mined)
                continue
            del self._sent[_digest(call)]  # whoever asks again is told why, or has it tried anew
            for claim in _claims_of(call):
                self._claims.pop(claim, None)

    def _give_back(self, booked: list[Booked], wei: int) -> None:
        """Has all of what was booked but so much be given back, with what else is."""
        self._returns.append((booked, wei))

    def _return(self) -> None:
        """Gives back what is due; what the database does not take now is due still."""
        with contextlib.suppress(StoreUnavailable):
            while self._returns:
                due = list(itertools.islice(self._returns, TOGETHER))
                self._spending.settle(due)
                for _ in due:
                    self._returns.popleft()


def _contents(parcel: _Parcel) -> tuple[list[Call], list[int]]:
    """The calls that a parcel carries out, and the most wei of each."""
    return [order.call for order in parcel.orders], [cost.wei for cost in parcel.costs]


def _note(booked: Sequence[Booked], calls: Sequence[Call], wei: Sequence[int], dispatch: Dispatch) -> Note:
    return Note(tuple(booked), encode(calls, wei, dispatch))


def _together(payer: Payer, batch: Sequence[_Parcel]) -> _Parcel:
    limit = sum(parcel.cost.limit for parcel in batch)
    fee = sum(parcel.cost.wei for parcel in batch) // limit
    tip = min(fee, *(parcel.cost.tip for parcel in batch))
    return _Parcel(
        payer.together([parcel.call for parcel in batch]),
        Cost(sum(parcel.cost.gas for parcel in batch), limit, fee, tip),
        [order for parcel in batch for order in parcel.orders],
        [cost for parcel in batch for cost in parcel.costs],
        [booked for parcel in batch for booked in parcel.booked],
    )


def _needed(refusal: Cost | ChatchainError) -> int:
    """The gas of the vote that a decision must bring along, when a call was refused for the lack of it; a
    call can hand on 63 of 64 parts of what it has.
    """
    if not isinstance(refusal, Reverted) or refusal.error != "NotEnoughGas":
        return 0
    kept = refusal.values[0]
    assert isinstance(kept, int), "the contract's error carries a number"
    return kept * 64 // 63 + BESIDES_DECISION if kept <= MOST_FOR_DECISIONS else 0


def _committing() -> CommitmentPending:
    return CommitmentPending(
        "The relay has committed to this registration, and pays for it once that is mined.",
        "Ask again in a moment.",
        retry_after_ms=ON_ITS_WAY_MS,
    )


def _stalled() -> SponsorUnavailable:
    return SponsorUnavailable(
        f"The relay has sent transactions, and for {STALLED // 60:.0f} minutes none of them was mined.",
        retry_after_ms=UNAVAILABLE_MS,
    )


def _too_dear() -> SponsorUnavailable:
    return SponsorUnavailable(
        "The chain's node asks for more than this relay pays in an hour.", retry_after_ms=UNAVAILABLE_MS
    )


def _overlapping() -> LimitReached:
    """On the chain as it is both would pass, and the second would fail when it is mined."""
    return LimitReached(
        "Another registration of this name or account is on its way.", retry_after_ms=ON_ITS_WAY_MS
    )


def _claims_of(call: Call) -> tuple[bytes, ...]:
    """What a registration takes that no other can have: its account and its name."""
    if not is_registration(call):
        return ()
    return _account(call), b"name" + _text(call.data, 1)


def _account(registration: Call) -> Address:
    return Address(registration.data[16:36])


def _digest_of(order: Order) -> bytes:
    return _digest(order.call)


def _digest(call: Call) -> bytes:
    return sha256(call.contract.encode() + b"\0" + call.data).digest()


def _word(data: bytes, argument: int) -> int:
    return int.from_bytes(data[4 + argument * _WORD :][:_WORD], "big")


def _text(data: bytes, argument: int) -> bytes:
    """A string among the arguments of canonical calldata."""
    at = 4 + _word(data, argument)
    length = int.from_bytes(data[at : at + _WORD], "big")
    return data[at + _WORD : at + _WORD + length]


def _is_author(verb: _Verb, data: bytes, user: User) -> bool:
    start = 4 + verb.author * _WORD
    word = data[start : start + _WORD]
    if len(word) != _WORD:
        return False
    if not verb.by_address:
        return int.from_bytes(word, "big") == user.uid
    own = {user.account, *(device.current.signer for device in user.active_devices)}
    return not any(word[:12]) and word[12:] in own


def _require(wait: float, what: str) -> None:
    if wait:
        raise _spent(wait, what)


def _spent(wait: float, what: str) -> LimitReached:
    return LimitReached(
        f"The relay has paid for as many {what} as it does for now.", retry_after_ms=milliseconds(wait)
    )
