"""What the sponsor pays for, with a payer and a journal that only keep accounts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chatchain.chain.calls import Calls, arguments
from chatchain.errors import (
    AlreadyDone,
    ChatchainError,
    CommitmentNeeded,
    CommitmentPending,
    LimitReached,
    NameUnavailable,
    NoEther,
    RefusedError,
    Reverted,
    SponsorUnavailable,
    StoreUnavailable,
    TooLarge,
    VerificationError,
    VotingClosed,
)
from chatchain.model import (
    GWEI,
    Address,
    Call,
    Cost,
    DeviceState,
    Dispatch,
    Note,
    Outcome,
    ProposalId,
    Uid,
    User,
)
from chatchain.programs.purse import Purse
from chatchain.relay.limits import Rate
from chatchain.relay.ports import Keep
from chatchain.relay.spending import DAY, HOUR, SLICE, Spending
from chatchain.relay.sponsor import (
    CLAIMED_SECONDS,
    GAS_TOGETHER,
    MAX_GAS,
    MOST_FOR_DECISIONS,
    REMEMBERED_SECONDS,
    STALLED,
    VOTES_TOGETHER,
    Order,
    Paid,
    Sponsor,
    SponsorLimits,
)
from tests.relay.journal import MemoryJournal
from tests.relay.test_mailbox import ADA, BOB, user

CALLS = Calls()
FAR, SIGNATURE, RECORD = 2**40, bytes(65), bytes(227)
NOBODY = Address(bytes(20))
SIGNER = Address(b"\x01" * 20)  # of the first device that `user` makes
STRANGER = Address(b"\x09" * 20)
ETHER = 10**18

COST = Cost(250_000, 400_000, GWEI, 1)
WEI = COST.wei


class Killed(BaseException):
    """The process is no more."""


class Payer:
    """Names a price, and remembers what it was made to pay for; some calls it refuses to try or to send."""

    def __init__(self) -> None:
        self.cost = COST
        self.costs: dict[Call, Cost] = {}
        self.paid: list[Call] = []
        self.given: list[Cost] = []
        self.tried: list[tuple[Call, int, bool]] = []
        self.refused: dict[Call, ChatchainError] = {}
        self.refused_now: dict[Call, ChatchainError] = {}
        self.unsendable: dict[Call, ChatchainError] = {}
        self.contracts: set[Address] = set()
        self.kept_ready: dict[Call, int] = {}
        self.voted: set[Call] = set()
        self.followed: dict[bytes, bytes] = {}
        self.raises: list[tuple[bytes, int]] = []
        self.raised: list[bool] = []
        self.outcomes: list[Outcome] = []
        self.dies = ""
        self.adopted: list[Dispatch] = []
        self.adopts: bool | None = True

    def canonical(self, call: Call) -> bool:
        return Purse.canonical(self, call)  # type: ignore[arg-type]  # it looks at the call only

    def has_code(self, account: Address) -> bool:
        return account in self.contracts

    def estimate_all(
        self, calls: Sequence[tuple[Call, int]], *, next_block: bool = False
    ) -> list[Cost | ChatchainError]:
        self.tried += [(call, most, next_block) for call, most in calls]
        return [self._judge(call, most, next_block) for call, most in calls]

    def _judge(self, call: Call, most: int, next_block: bool) -> Cost | ChatchainError:
        if not next_block and call in self.refused_now:
            return self.refused_now[call]
        kept = self.kept_ready.get(call, 0)
        if kept and most * 63 // 64 < kept:
            return Reverted("It needs gas.", error="NotEnoughGas", values=(kept,))
        cost = self.costs.get(call, self.cost)
        return self.refused.get(call) or (cost if cost.gas <= most else TooLarge("Too much gas."))

    def submit_all(self, calls: Sequence[tuple[Call, Cost]], keep: Keep) -> list[bytes | ChatchainError]:
        outcomes: list[bytes | ChatchainError] = []
        numbers = itertools.count(len(self.paid) + 1)
        signed = [
            (place, self.dispatch(next(numbers).to_bytes(32, "big"), call))
            for place, (call, _) in enumerate(calls)
            if call not in self.unsendable
        ]
        if self.dies == "before signing":
            raise Killed
        keep(signed)
        if self.dies == "before sending":
            raise Killed
        for call, cost in calls:
            refusal = self.unsendable.get(call)
            if refusal is None:
                self.paid.append(call)
                self.given.append(cost)
            outcomes.append(refusal or len(self.paid).to_bytes(32, "big"))
        return outcomes

    def together(self, votes: Sequence[Call]) -> Call:
        return CALLS.vote_batch([arguments(vote) for vote in votes])

    def commitment(self, registration: Call) -> Call:
        return CALLS.commit(registration.data[36:68])

    def has_voted(self, vote: Call, uid: int) -> bool:
        assert uid
        return vote in self.voted

    def follow(self, tx_hash: bytes) -> bytes:
        return self.followed.get(tx_hash, tx_hash)

    def prepare(self) -> None:
        pass

    def dispatch(self, tx_hash: bytes, call: Call) -> Dispatch:
        return Dispatch(NOBODY, 1, NOBODY, call.data, 1, self.cost.fee, 1, 0, (tx_hash,))

    def adopt(self, dispatches: Sequence[Dispatch]) -> list[bool | None]:
        self.adopted += dispatches
        return [self.adopts for _ in dispatches]

    def tend(self, allow: Callable[[bytes, int], bool], keep: Keep) -> list[Outcome]:
        self.raised = [allow(*more) for more in self.raises]
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def mine(self, tx_hash: bytes, wei: int = 0, failure: ChatchainError | None = None) -> None:
        self.outcomes.append(Outcome(tx_hash, self.follow(tx_hash), 7, wei, failure))


def registration(name: str = "ada", account: Address = STRANGER, deadline: int = FAR) -> Call:
    return CALLS.register_for(account, name, bytes(32), b"kdf", NOBODY, SIGNER, RECORD, deadline, SIGNATURE)


def newcomers(count: int) -> list[Call]:
    """Registrations that have nothing in common."""
    return [registration(f"user-{number}", Address(bytes([9, number]) * 10)) for number in range(count)]


def vote(number: int, by: Address = SIGNER) -> Call:
    return CALLS.vote_by_sig(ProposalId(number), True, by, SIGNATURE)


def someone(uid: int = ADA) -> User:
    return user(uid, DeviceState.ACTIVE, DeviceState.REVOKED)


def calls_of(uid: int, by: Address) -> dict[str, Call]:
    """Every call that a logged-in user may have paid for, as made by this user or this address."""
    me = Uid(uid)
    return {
        "addDeviceFor": CALLS.add_device_for(me, STRANGER, RECORD, FAR, SIGNATURE),
        "updateDeviceFor": CALLS.update_device_for(me, 1, 2, STRANGER, RECORD, FAR, STRANGER, SIGNATURE),
        "revokeDeviceFor": CALLS.revoke_device_for(me, 1, FAR, SIGNATURE),
        "setVerifierFor": CALLS.set_verifier_for(me, bytes(32), b"kdf", FAR, SIGNATURE),
        "addKeyFor": CALLS.add_key_for(me, 0, bytes(294), FAR, SIGNATURE),
        "updateKeyFor": CALLS.update_key_for(me, 1, 2, bytes(294), FAR, SIGNATURE),
        "revokeKeyFor": CALLS.revoke_key_for(me, 1, FAR, SIGNATURE),
        "setRecoveryFor": CALLS.set_recovery_for(me, STRANGER, FAR, SIGNATURE),
        "proposeRecoveryFor": CALLS.propose_recovery_for(me, STRANGER, FAR, SIGNATURE),
        "vetoRecoveryFor": CALLS.veto_recovery_for(me, FAR, SIGNATURE),
        "finaliseRecoveryFor": CALLS.finalise_recovery_for(me, FAR, SIGNATURE),
        "transferFor": CALLS.transfer_for(me, STRANGER, FAR, SIGNATURE, SIGNATURE),
        "invalidateNonceFor": CALLS.invalidate_nonce_for(me, FAR, SIGNATURE),
        "createGroupFor": CALLS.create_group_for("group", [Uid(BOB)], 5000, 60, by, FAR, SIGNATURE),
        "requestFor": CALLS.request_for(0, by, FAR, SIGNATURE),
        "proposeFor": CALLS.propose_for(0, 0, Uid(BOB), b"", by, FAR, SIGNATURE),
        "voteBySig": CALLS.vote_by_sig(ProposalId(1), True, by, SIGNATURE),
        "leaveFor": CALLS.leave_for(0, by, FAR, SIGNATURE),
    }


RESTORING = ("addDeviceFor", "setVerifierFor", "proposeRecoveryFor", "vetoRecoveryFor", "finaliseRecoveryFor")


class Clock:
    """Seconds since 1970, as the test sets them."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def sponsor(
    wei_per_day: int = ETHER,
    wei_per_hour: int = ETHER,
    clock: Clock | None = None,
    journal: MemoryJournal | None = None,
    **limits: Any,
) -> tuple[Sponsor, Payer]:
    payer = Payer()
    spending = Spending(
        journal or MemoryJournal(), clock or Clock(), wei_per_hour=wei_per_hour, wei_per_day=wei_per_day
    )
    return Sponsor(payer, spending, SponsorLimits(**limits), 0), payer


def pay(made: Sponsor, calls: Sequence[Call], now: float = 0, uid: int = ADA) -> list[Paid | ChatchainError]:
    return made.pay_all([Order(call, uid) for call in calls], now)


def kinds(outcomes: Sequence[Paid | ChatchainError]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


OWN = calls_of(ADA, SIGNER)
OTHERS = calls_of(BOB, STRANGER)


def test_every_signed_twin_of_the_contracts_is_paid_for() -> None:
    """Whatever verb takes its author's signature, and no other."""
    from chatchain.chain.calls import VERBS
    from chatchain.relay.sponsor import _VERBS

    signed = {
        verb.signature
        for verb in VERBS
        if verb.contract in ("identity", "membership")
        and verb.signature.partition("(")[0].endswith(("For", "BySig"))
    }
    assert {verb.signature for verb in _VERBS} == signed


@pytest.mark.parametrize("name", OWN)
def test_a_user_s_own_signed_calls_are_paid_for(name: str) -> None:
    """Recognised by the uid, or by the address of account or active signer."""
    made, _ = sponsor()
    made.admit(OWN[name], someone(), "address", 0)


@pytest.mark.parametrize("name", OTHERS)
def test_what_another_signed_is_not_paid_for(name: str) -> None:
    """Nor what a revoked device of one's own would sign."""
    made, _ = sponsor()
    with pytest.raises(RefusedError, match="logged-in user"):
        made.admit(OTHERS[name], someone(), "address", 0)
    revoked = calls_of(BOB, Address(b"\x02" * 20))[name]
    with pytest.raises(RefusedError):
        made.admit(revoked, someone(), "address", 0)


@pytest.mark.parametrize("name", [name for name in OWN if name not in RESTORING])
def test_a_stranger_gets_only_what_makes_login_possible(name: str) -> None:
    """Registering, and what brings a home back; nothing else before login."""
    made, _ = sponsor()
    for call in (registration(), *(OWN[verb] for verb in RESTORING)):
        made.admit(call, None, "address", 0)
    with pytest.raises(RefusedError, match="Before login"):
        made.admit(OWN[name], None, "address", 0)


@pytest.mark.parametrize(
    "call",
    [
        Call("identity", bytes(100)),
        Call("identity", b"\x00"),
        Call("directory", registration().data),
        Call("membership", registration().data),
        Call("nonsense", registration().data),
        CALLS.seal(),
        CALLS.register("ada", bytes(32), b"kdf", NOBODY, SIGNER, RECORD),
        CALLS.vote(ProposalId(1), True),
        Call("membership", OWN["voteBySig"].data[: 4 + 2 * 32 + 31]),
        Call(
            "membership",
            OWN["voteBySig"].data[: 4 + 2 * 32] + b"\x01" + OWN["voteBySig"].data[4 + 2 * 32 + 1 :],
        ),
    ],
    ids=[
        "zeros",
        "short",
        "directory",
        "wrong contract",
        "no contract",
        "seal",
        "unsigned",
        "vote",
        "cut",
        "padded",
    ],
)
def test_other_calls_are_not_paid_for(call: Call) -> None:
    """Only signed verbs on the contract that has them, and only well-formed."""
    made, _ = sponsor()
    with pytest.raises(RefusedError):
        made.admit(call, someone(), "address", 0)


def test_a_call_that_takes_too_much_gas_is_refused_before_it_is_sent() -> None:
    """Whatever an account's own code would burn."""
    made, payer = sponsor()
    payer.cost = Cost(MAX_GAS + 1, MAX_GAS + 1, 1, 1)
    (refusal,) = pay(made, [registration()])
    assert isinstance(refusal, TooLarge)
    assert "gas" in refusal.message
    assert payer.paid == []


def test_f3_the_limit_of_a_transaction_is_judged_like_its_estimate() -> None:
    """What a contract could burn counts, not what it took when it was asked."""
    made, payer = sponsor()
    payer.cost = Cost(250_000, MAX_GAS + 1, 1, 1)
    assert kinds(pay(made, [registration()])) == [TooLarge]
    assert payer.paid == []


def test_every_question_names_the_most_gas() -> None:
    """No node runs more for us than is paid for."""
    made, payer = sponsor()
    pay(made, [*newcomers(2), vote(1), vote(2)])
    assert {most for _, most, _ in payer.tried} == {MAX_GAS, 2 * COST.limit}


def test_only_a_vote_that_decides_may_take_more() -> None:
    """As much as the contract keeps ready for what is decided; any other call keeps to the common bound."""
    made, payer = sponsor()
    dear = Cost(5_100_000, 5_300_000, GWEI, 1)
    on_relays, other = vote(1), vote(2)
    payer.kept_ready = {on_relays: MOST_FOR_DECISIONS, registration(): MOST_FOR_DECISIONS}
    payer.costs = {on_relays: dear, other: dear}
    assert kinds(pay(made, [on_relays, other, registration()])) == [Paid, TooLarge, Reverted]
    assert payer.given == [dear]
    first, second = (most for call, most, _ in payer.tried if call == on_relays)
    assert first == MAX_GAS
    assert MOST_FOR_DECISIONS < second < MOST_FOR_DECISIONS + 600_000
    payer.kept_ready[vote(3)] = MOST_FOR_DECISIONS + 1
    assert kinds(pay(made, [vote(3)])) == [Reverted]


def test_a_day_has_a_limit_in_wei() -> None:
    """What was spent comes free after 24 hours, and the refusal says when to come again."""
    clock = Clock()
    made, payer = sponsor(wei_per_day=2 * WEI + WEI // 2, clock=clock)
    first, second, third = newcomers(3)
    refusal = pay(made, [first, second, third])[2]
    assert isinstance(refusal, LimitReached)
    assert 0 < refusal.retry_after_ms <= DAY * SLICE * 1000 + 1
    assert payer.paid == [first, second]
    clock.now += DAY * SLICE - SLICE
    assert kinds(pay(made, [third])) == [LimitReached]
    clock.now += refusal.retry_after_ms / 1000 - (DAY * SLICE - SLICE)
    assert kinds(pay(made, [third])) == [Paid]


def test_an_hour_has_a_limit_within_the_day_s() -> None:
    """A rush ends at the hour's sum and takes nothing of the day's; an hour later there is more."""
    clock = Clock()
    made, payer = sponsor(wei_per_day=10 * WEI, wei_per_hour=2 * WEI, clock=clock)
    calls = newcomers(4)
    refusal = pay(made, calls[:3])[2]
    assert isinstance(refusal, LimitReached)
    assert 0 < refusal.retry_after_ms <= HOUR * SLICE * 1000 + 1
    clock.now += refusal.retry_after_ms / 1000
    assert kinds(pay(made, calls[2:])) == [Paid, Paid]
    assert payer.paid == calls


def test_a_restart_forgets_nothing_that_was_spent() -> None:
    """Another sponsor over the same journal goes on where the first stopped; so do two at once."""
    journal, clock = MemoryJournal(), Clock()
    first, _ = sponsor(wei_per_hour=2 * WEI, clock=clock, journal=journal)
    second, _ = sponsor(wei_per_hour=2 * WEI, clock=clock, journal=journal)
    assert kinds(pay(first, newcomers(1))) == [Paid]
    assert kinds(pay(second, newcomers(3))) == [Paid, LimitReached, LimitReached]
    assert kinds(pay(first, newcomers(2)[1:])) == [LimitReached]


def test_what_mining_did_not_use_is_given_back() -> None:
    """A call is booked for the most that it can cost, and counts with what it cost once that is known."""
    journal = MemoryJournal()
    made, payer = sponsor(wei_per_hour=2 * WEI, journal=journal)
    first, second, *later = newcomers(4)
    sent = pay(made, [first, second])
    assert kinds(pay(made, later)) == [LimitReached, LimitReached]
    for paid in sent:
        assert isinstance(paid, Paid)
        payer.mine(paid.tx_hash, WEI // 2)
    made.tend(0)
    assert journal.total == WEI // GWEI
    assert kinds(pay(made, later)) == [Paid, LimitReached]


@pytest.mark.parametrize("dies", ["before signing", "before sending", "before mining", "before settling"])
def test_whoever_comes_next_sees_to_what_one_that_was_killed_had_booked(dies: str) -> None:
    """Nothing stays booked for nothing, nothing is sent twice, and nothing is given back twice."""
    journal, call = MemoryJournal(), registration()
    made, payer = sponsor(journal=journal)
    if dies in ("before signing", "before sending"):
        payer.dies = dies
        with pytest.raises(Killed):
            pay(made, [call])
    else:
        pay(made, [call])
    assert journal.total == WEI // GWEI
    (submitted,) = [(1).to_bytes(32, "big")]

    heir, payer = sponsor(journal=journal.next_process())
    if dies == "before settling":
        payer.mine(submitted, 1000 * GWEI)
    heir.tend(0)
    if dies == "before signing":
        assert (payer.adopted, journal.total, journal.notes) == ([], 0, {})
        assert kinds(pay(heir, [call])) == [Paid]
        return
    assert [one.hashes for one in payer.adopted] == [(submitted,)]
    assert payer.adopted[0].data == call.data
    (again,) = pay(heir, [call])
    assert again == Paid(submitted, WEI), "whoever asks again is told the transaction that there is"
    assert payer.paid == []
    assert kinds(pay(heir, [registration("ada", Address(b"\x08" * 20))])) == [LimitReached]
    if dies != "before settling":
        assert journal.total == WEI // GWEI
        payer.mine(submitted, 1000 * GWEI)
        heir.tend(0)
        assert journal.total == 1000
    third, payer = sponsor(journal=journal.next_process())
    before = journal.total
    payer.mine(submitted, 0)
    third.tend(0)
    assert payer.adopted == []
    assert journal.total == before == 1000


def test_one_that_wakes_up_sends_nothing_that_another_has_taken_over() -> None:
    """It was taken for dead between booking and sending: what it had booked is given back already."""
    journal, calls = MemoryJournal(), newcomers(2)
    made, payer = sponsor(journal=journal)
    heir, _ = sponsor(journal=journal.next_process())
    keep = journal.keep

    def asleep(notes: Sequence[Note]) -> None:
        heir.tend(0)
        keep(notes)

    journal.keep = asleep  # type: ignore[method-assign]  # what happens meanwhile
    assert kinds(pay(made, calls)) == [StoreUnavailable, StoreUnavailable]
    assert journal.total == 0
    assert payer.paid == []
    made.tend(0)
    assert journal.total == 0


def test_what_was_booked_besides_is_taken_over_with_it() -> None:
    """Votes that went together, and a better price that was agreed on later: all of it is one sum."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    paid, other = pay(made, [vote(1), vote(2)])
    assert isinstance(paid, Paid)
    assert paid == other
    payer.raises = [(paid.tx_hash, 700 * GWEI)]
    made.tend(0)
    assert journal.total == 2 * WEI // GWEI + 700
    heir, payer = sponsor(journal=journal.next_process())
    heir.tend(0)
    payer.raises = [(paid.tx_hash, 300 * GWEI)]
    payer.mine(paid.tx_hash, 900 * GWEI)
    heir.tend(0)
    assert payer.raised == [True]
    assert journal.total == 900


def test_what_another_account_has_sent_counts_for_its_day() -> None:
    """The operator has changed the key: nobody can replace it, and whether it is mined nobody asks."""
    journal = MemoryJournal()
    made, _ = sponsor(journal=journal)
    pay(made, [registration()])
    heir, payer = sponsor(journal=journal.next_process())
    payer.adopts = False
    heir.tend(0)
    assert journal.total == WEI // GWEI
    assert heir.unsettled == 0
    assert kinds(pay(heir, newcomers(1), STALLED + 1)) == [Paid]


def test_what_was_signed_and_never_sent_is_given_back() -> None:
    """Another transaction has its place by now; whoever asks again is tried anew."""
    journal = MemoryJournal()
    made, _ = sponsor(journal=journal)
    pay(made, [registration()])
    heir, payer = sponsor(journal=journal.next_process())
    payer.adopts = None
    heir.tend(0)
    assert (journal.total, journal.notes, heir.unsettled) == (0, {}, 0)
    assert kinds(pay(heir, [registration()])) == [Paid]


def test_a_database_that_is_away_leaves_prices_as_they_are() -> None:
    """And what is on its way is looked after all the same; nothing of it is forgotten."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    (paid,) = pay(made, [registration()])
    assert isinstance(paid, Paid)
    journal.away = lambda _: True
    payer.raises = [(paid.tx_hash, 1000 * GWEI), (bytes(32), GWEI)]
    made.tend(0)
    assert payer.raised == [False, False]
    journal.away = None
    made.tend(0)
    assert payer.raised == [True, False], "nothing is booked for what is settled"
    assert journal.total == WEI // GWEI + 1000
    assert made.unsettled == 1


def test_a_chain_that_mines_nothing_is_said_and_costs_no_more() -> None:
    """What is on its way is seen through; nothing more is booked for it until something of it is mined."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    first, *others = newcomers(4)
    (paid,) = pay(made, [first])
    assert isinstance(paid, Paid)
    assert kinds(pay(made, others[:1], STALLED)) == [Paid]
    booked = journal.total
    made.tend(STALLED + 1)
    assert made.stalled(STALLED + 1)
    (refusal,) = pay(made, others[1:2], STALLED + 1)
    assert isinstance(refusal, SponsorUnavailable)
    assert refusal.retry_after_ms > 0
    assert refusal.hint
    assert pay(made, [first], STALLED + 1) == [paid], "who asks for what was sent is told"
    assert journal.total == booked
    payer.mine(paid.tx_hash, 1000 * GWEI)
    made.tend(STALLED + 2)
    assert not made.stalled(STALLED + 2)
    assert kinds(pay(made, others[1:2], STALLED + 2)) == [Paid]
    assert made.stalled(2 * STALLED + 3)


def test_a_price_beyond_all_limits_is_the_node_s_fault() -> None:
    """It would never pass, so nobody is told to wait for the next hour; at a price of this world it does."""
    made, payer = sponsor(wei_per_hour=3 * WEI)
    payer.cost = Cost(250_000, 400_000, 10**6 * GWEI, 1)
    assert kinds(pay(made, newcomers(2))) == [SponsorUnavailable, SponsorUnavailable]
    payer.cost = COST
    assert kinds(pay(made, newcomers(2))) == [Paid, Paid]


def test_what_is_due_is_given_back_when_the_database_is_there_again() -> None:
    """It was away when transactions were mined, and when another could not be sent: no sum stays booked."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    first, second, third = newcomers(3)
    sent = pay(made, [first, second])
    payer.unsendable[third] = NoEther("The purse is empty.")
    journal.away = lambda gwei: gwei < 0
    assert kinds(pay(made, [third])) == [NoEther]
    for paid in sent:
        assert isinstance(paid, Paid)
        payer.mine(paid.tx_hash, 1000 * GWEI)
    made.tend(0)
    assert journal.total == 3 * WEI // GWEI
    journal.away = None
    made.tend(0)
    assert journal.total == 2000
    assert kinds(pay(made, [first])) == [Paid]  # and what was mined is remembered
    assert payer.paid == [first, second]


def test_a_batch_that_cannot_be_tried_out_leaves_nothing_booked() -> None:
    """The endpoint or the database went away between booking and sending."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    votes = [vote(1), vote(2)]
    payer.refused[CALLS.vote_batch([arguments(each) for each in votes])] = Reverted(
        "It needs gas.", error="NotEnoughGas", values=(MOST_FOR_DECISIONS,)
    )
    journal.away = lambda gwei: gwei > 0 and journal.total > 0
    assert kinds(pay(made, votes)) == [Paid, Paid]
    journal.away = None
    for number in range(1, 3):
        payer.mine(number.to_bytes(32, "big"), 1000 * GWEI)
    made.tend(0)
    assert journal.total == 2000


def test_what_failed_when_it_was_mined_costs_what_it_cost() -> None:
    """No more and no less; what was never mined costs nothing."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    failed, overtaken = pay(made, newcomers(2))
    assert isinstance(failed, Paid)
    assert isinstance(overtaken, Paid)
    payer.mine(failed.tx_hash, 1000 * GWEI, Reverted("It failed."))
    payer.mine(overtaken.tx_hash, 0, Reverted("Another took its place."))
    made.tend(0)
    assert journal.total == 1000


def test_f3_higher_fees_are_booked_too() -> None:
    """A replacement for a better price stays within the limits, and is given back like the rest."""
    journal = MemoryJournal()
    made, payer = sponsor(wei_per_day=WEI + 1500 * GWEI, journal=journal)
    (paid,) = pay(made, [registration()])
    assert isinstance(paid, Paid)
    payer.raises = [(paid.tx_hash, wei * GWEI) for wei in (1000, 600, 500, 1)]
    made.tend(0)
    assert payer.raised == [True, False, True, False]
    assert journal.total == WEI // GWEI + 1500
    payer.raises = []
    payer.mine(paid.tx_hash, WEI + 700 * GWEI)
    made.tend(0)
    assert journal.total == WEI // GWEI + 700


def test_f4_a_contract_is_not_registered_for_strangers() -> None:
    """Its code would run for whoever asks, as long as it likes."""
    made, payer = sponsor()
    made.inspect(registration())
    payer.contracts = {STRANGER}
    made.inspect(OWN["voteBySig"])
    with pytest.raises(RefusedError, match="contract"):
        made.inspect(registration())


@pytest.mark.parametrize("name", ["registerFor", *OWN])
def test_calldata_that_is_more_than_its_call_is_not_paid_for(name: str) -> None:
    """Bytes behind the arguments or between them cost gas and say nothing."""
    made, _ = sponsor()
    call = OWN.get(name) or registration()
    made.admit(call, someone(), "address", 0)
    padding = call.data[:-1] + b"\x01"  # every one of them ends with a signature's padding
    for data in (call.data + bytes(32), call.data + b"\xff", call.data[:-32], padding):
        with pytest.raises(RefusedError):
            made.admit(Call(call.contract, data), someone(), "address", 0)


def test_one_poisoned_call_spoils_none_of_the_others() -> None:
    """Refused by the contract, too dear, or refused by the node: each answer is its own."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    calls = newcomers(5)
    payer.refused[calls[1]] = VerificationError("It is by another key.")
    payer.unsendable[calls[3]] = NoEther("The purse is empty.")
    assert kinds(pay(made, calls)) == [Paid, VerificationError, Paid, NoEther, Paid]
    assert payer.paid == [calls[0], calls[2], calls[4]]
    assert journal.total == 3 * WEI // GWEI


def test_a_call_that_was_sent_is_answered_with_its_transaction() -> None:
    """Who lost the answer and asks again is not told that the name is taken; nothing is paid twice."""
    made, payer = sponsor()
    call = registration()
    (first,) = pay(made, [call])
    payer.refused[call] = NameUnavailable("The name ada is taken.")
    assert pay(made, [call], 1) == [first]
    assert pay(made, [call, call], 2) == [first, first]
    assert payer.paid == [call]
    assert isinstance(first, Paid)
    payer.mine(first.tx_hash)
    made.tend(2)
    assert kinds(pay(made, [call], REMEMBERED_SECONDS + 1)) == [NameUnavailable]


def test_a_replaced_transaction_is_told_under_its_latest_hash() -> None:
    """Before it is mined and afterwards."""
    made, payer = sponsor()
    (first,) = pay(made, [registration()])
    assert isinstance(first, Paid)
    payer.followed[first.tx_hash] = b"2" * 32
    assert pay(made, [registration()]) == [Paid(b"2" * 32, WEI)]
    payer.mine(first.tx_hash)
    made.tend(0)
    payer.followed.clear()  # the writer forgets what is settled
    assert pay(made, [registration()]) == [Paid(b"2" * 32, WEI)]


def test_a_call_that_failed_when_it_was_mined_is_tried_anew() -> None:
    """Whoever asks again is told why, or is paid for a second time if the chain would let it pass now."""
    made, payer = sponsor()
    (first,) = pay(made, [registration()])
    assert isinstance(first, Paid)
    payer.mine(first.tx_hash, 0, NameUnavailable("The name ada is taken."))
    made.tend(0)
    payer.refused[registration()] = NameUnavailable("The name ada is taken.")
    assert kinds(pay(made, [registration()])) == [NameUnavailable]
    payer.refused.clear()
    assert kinds(pay(made, [registration()])) == [Paid]
    assert len(payer.paid) == 2


def test_the_same_call_twice_in_one_turn_is_sent_once() -> None:
    """Both are told the same transaction."""
    made, payer = sponsor()
    for call in (registration(), OWN["voteBySig"], OWN["leaveFor"]):
        before = len(payer.paid)
        first, second = pay(made, [call, call])
        assert first == second
        assert payer.paid[before:] == [call]


def test_of_two_registrations_of_one_name_or_account_one_is_paid_for() -> None:
    """Both would pass on the chain as it is; the second waits until it is seen what became of the first."""
    made, payer = sponsor()
    other = Address(b"\x08" * 20)
    same_name, same_account = registration("ada", other), registration("eve")
    outcomes = pay(made, [registration(), same_name, same_account])
    assert kinds(outcomes) == [Paid, LimitReached, LimitReached]
    refusal = outcomes[1]
    assert isinstance(refusal, LimitReached)
    assert 0 < refusal.retry_after_ms < 10_000
    assert kinds(pay(made, [same_name, same_account], 1)) == [LimitReached] * 2
    assert payer.paid == [registration()]
    assert kinds(pay(made, [same_name], CLAIMED_SECONDS + 1)) == [Paid]


def test_a_name_is_free_again_when_its_registration_failed() -> None:
    """Nobody waits for what is known to have come to nothing."""
    made, payer = sponsor()
    (first,) = pay(made, [registration()])
    assert isinstance(first, Paid)
    payer.mine(first.tx_hash, 0, Reverted("It failed."))
    made.tend(0)
    assert kinds(pay(made, [registration("ada", Address(b"\x08" * 20))])) == [Paid]


def test_votes_that_wait_together_go_in_one_transaction() -> None:
    """With the other calls of the turn beside them; every voter is told the same transaction."""
    made, payer = sponsor()
    votes = [vote(number) for number in range(1, 4)]
    outcomes = pay(made, [votes[0], registration(), votes[1], votes[2]])
    hashes = [outcome.tx_hash for outcome in outcomes if isinstance(outcome, Paid)]
    assert len(hashes) == 4
    assert hashes[0] == hashes[2] == hashes[3] != hashes[1]
    assert payer.paid == [registration(), payer.together(votes)]


def test_a_batch_of_votes_costs_what_was_booked_for_them() -> None:
    """Whatever a wallet's code says by then: it is tried out with that much gas, and no more."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    votes = [vote(number) for number in range(1, 4)]
    payer.costs[votes[0]] = Cost(100_000, 200_000, 3 * GWEI, 2 * GWEI)
    pay(made, votes)
    booked = 200_000 * 3 * GWEI + 2 * WEI
    (given,) = payer.given
    assert given.limit == 200_000 + 2 * COST.limit
    assert given.wei <= booked
    assert given.tip <= given.fee
    assert journal.total == booked // GWEI
    assert payer.tried[3:] == [(payer.paid[0], given.limit, False)]


def test_a_vote_alone_goes_as_it_came() -> None:
    """A batch of one would only hide why it failed."""
    made, payer = sponsor()
    pay(made, [vote(1)])
    assert payer.paid == [vote(1)]


def test_votes_go_one_by_one_when_they_do_not_pass_together() -> None:
    """A batch that is refused as a whole costs nobody the vote."""
    made, payer = sponsor()
    votes = [vote(number) for number in range(1, 4)]
    payer.refused[payer.together(votes)] = RefusedError("Not so.")
    assert kinds(pay(made, votes)) == [Paid] * 3
    assert payer.paid == votes


def test_a_batch_that_decides_brings_along_what_that_takes() -> None:
    """Though none of its votes would decide alone; what that needs is booked besides, or they go alone."""
    journal = MemoryJournal()
    made, payer = sponsor(journal=journal)
    votes = [vote(1), vote(1, STRANGER)]
    payer.kept_ready[payer.together(votes)] = 1_000_000
    assert kinds(pay(made, votes)) == [Paid, Paid]
    (given,) = payer.given
    assert given.limit > 2 * COST.limit + 1_000_000
    assert journal.total == -(-given.wei // GWEI)
    poor, payer = sponsor(wei_per_hour=2 * WEI)
    payer.kept_ready[payer.together(votes)] = 1_000_000
    assert kinds(pay(poor, votes)) == [Paid, Paid]
    assert payer.paid == votes


def test_a_batch_of_votes_has_a_size() -> None:
    """More votes, or more gas, than one transaction carries go in several."""
    made, payer = sponsor()
    payer.cost = Cost(50_000, 100_000, GWEI, 1)
    pay(made, [vote(number) for number in range(VOTES_TOGETHER + 2)])
    assert [len(arguments(call)[0]) for call in payer.paid] == [VOTES_TOGETHER, 2]
    payer.cost = Cost(700_000, MAX_GAS, GWEI, 1)
    pay(made, [vote(number) for number in range(100, 100 + GAS_TOGETHER // MAX_GAS + 1)])
    assert len(arguments(payer.paid[-2])[0]) == GAS_TOGETHER // MAX_GAS
    assert all(cost.limit <= GAS_TOGETHER for cost in payer.given)


def test_a_voter_whose_vote_a_batch_skipped_is_told_why() -> None:
    """Asked again after the batch was mined, the vote is tried by itself; the counted ones keep their
    transaction.
    """
    made, payer = sponsor()
    counted, skipped = vote(1), vote(2)
    sent, _ = pay(made, [counted, skipped])
    assert isinstance(sent, Paid)
    assert pay(made, [skipped]) == [sent]  # not mined yet: nobody knows
    payer.mine(sent.tx_hash)
    made.tend(0)
    payer.voted = {counted}
    payer.refused[skipped] = VotingClosed("Proposal 2 takes no more votes: it is passed.")
    assert pay(made, [counted]) == [sent]
    assert kinds(pay(made, [skipped])) == [VotingClosed]
    payer.refused.clear()
    assert kinds(pay(made, [skipped])) == [Paid]
    assert payer.paid[-1] == skipped


def test_a_name_that_must_be_committed_to_is() -> None:
    """First the commitment, then the registration as part of the block after it; who asks is told to wait."""
    made, payer = sponsor()
    call = registration()
    payer.refused_now[call] = CommitmentNeeded("Commit first.")
    (told,) = pay(made, [call])
    assert isinstance(told, CommitmentPending)
    assert 0 < told.retry_after_ms < 10_000
    assert payer.paid == [payer.commitment(call)]
    assert kinds(pay(made, [call])) == [CommitmentPending]  # on its way: it is not sent twice
    assert payer.paid == [payer.commitment(call)]
    payer.mine((1).to_bytes(32, "big"))
    made.tend(0)
    assert kinds(pay(made, [call])) == [Paid]
    assert payer.paid == [payer.commitment(call), call]
    assert payer.tried[-1] == (call, MAX_GAS, True)


def test_somebody_else_s_commitment_serves_as_well() -> None:
    """What it commits to is the same; only that it is mined early enough counts."""
    made, payer = sponsor()
    call = registration()
    payer.refused_now[call] = CommitmentNeeded("Commit first.")
    payer.refused[payer.commitment(call)] = AlreadyDone("It was committed to already.")
    assert kinds(pay(made, [call])) == [Paid]
    payer.refused[registration("eve", SIGNER)] = CommitmentNeeded("Commit first.")
    assert kinds(pay(made, [registration("eve", SIGNER)])) == [CommitmentPending]


def test_a_commitment_stays_within_the_limits() -> None:
    """A newcomer for whom the purse does not reach is told so."""
    made, payer = sponsor(wei_per_hour=2 * WEI - 1)
    assert kinds(pay(made, newcomers(1))) == [Paid]
    payer.refused_now[registration()] = CommitmentNeeded("Commit first.")
    assert kinds(pay(made, [registration()])) == [LimitReached]
    assert payer.paid == newcomers(1)


def test_one_address_does_not_use_up_the_others_registrations() -> None:
    """Each has its own share, and failed attempts count for nobody else."""
    made, payer = sponsor(registrations_per_address=Rate.hourly(2), registrations=Rate.hourly(3))
    for _ in range(2):
        made.admit(registration(), None, "first", 0)
    with pytest.raises(LimitReached) as raised:
        made.admit(registration(), None, "first", 0)
    assert raised.value.retry_after_ms > 1_000
    made.admit(registration(), None, "second", 0)
    bad, *good = newcomers(5)
    payer.refused[bad] = VerificationError("It is by another key.")
    outcomes = pay(made, [bad, *good, OWN["voteBySig"]])
    assert kinds(outcomes) == [VerificationError, Paid, Paid, Paid, LimitReached, Paid]


def test_one_user_does_not_use_up_the_others_calls() -> None:
    """Each has its own share."""
    made, _ = sponsor(calls_per_user=Rate.hourly(1))
    made.admit(OWN["voteBySig"], someone(), "address", 0)
    with pytest.raises(LimitReached):
        made.admit(OWN["voteBySig"], someone(), "address", 0)
    made.admit(calls_of(BOB, SIGNER)["voteBySig"], someone(BOB), "address", 0)


def test_before_login_a_call_counts_for_the_account_that_signed_it() -> None:
    """From however many addresses it comes; a forged one counts for nobody."""
    made, payer = sponsor(calls_per_user=Rate.hourly(2))
    forged, *signed = (
        CALLS.add_device_for(Uid(ADA), STRANGER, RECORD, FAR + step, SIGNATURE) for step in range(4)
    )
    payer.refused[forged] = VerificationError("It is by another key.")
    outcomes = pay(made, [forged, *signed], uid=0)
    assert kinds(outcomes) == [VerificationError, Paid, Paid, LimitReached]
    assert kinds(pay(made, [OTHERS["addDeviceFor"]], uid=0)) == [Paid]
