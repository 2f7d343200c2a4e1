"""What the sponsor pays for, with a payer that only keeps accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from chatchain.chain.calls import Calls, arguments
from chatchain.errors import (
    ChatchainError,
    LimitReached,
    NameUnavailable,
    NoEther,
    RefusedError,
    VerificationError,
)
from chatchain.model import Address, Call, DeviceState, ProposalId, Uid, User
from chatchain.relay.limits import Rate
from chatchain.relay.sponsor import (
    CLAIMED_SECONDS,
    DAY,
    HOUR,
    MAX_GAS,
    REMEMBERED_SECONDS,
    VOTES_TOGETHER,
    Paid,
    Sponsor,
    SponsorLimits,
)
from tests.relay.test_mailbox import ADA, BOB, user

CALLS = Calls()
FAR, SIGNATURE, RECORD = 2**40, bytes(65), bytes(227)
NOBODY = Address(bytes(20))
SIGNER = Address(b"\x01" * 20)  # of the first device that `user` makes
STRANGER = Address(b"\x09" * 20)


class Cost(NamedTuple):
    gas: int
    wei: int


class Payer:
    """Names a price, and remembers what it was made to pay for; some calls it refuses to try or to send."""

    def __init__(self) -> None:
        self.cost = Cost(250_000, 1000)
        self.paid: list[Call] = []
        self.tried: list[Call] = []
        self.refused: dict[Call, ChatchainError] = {}
        self.unsendable: dict[Call, ChatchainError] = {}

    def estimate_all(self, calls: Sequence[Call]) -> list[Cost | ChatchainError]:
        self.tried += calls
        return [self.refused.get(call, self.cost) for call in calls]

    def submit_all(self, calls: Sequence[tuple[Call, int]]) -> list[bytes | ChatchainError]:
        outcomes: list[bytes | ChatchainError] = []
        for call, _ in calls:
            refusal = self.unsendable.get(call)
            if refusal is None:
                self.paid.append(call)
            outcomes.append(refusal or len(self.paid).to_bytes(32, "big"))
        return outcomes

    def together(self, votes: Sequence[Call]) -> Call:
        return CALLS.vote_batch([arguments(vote) for vote in votes])

    def prepare(self) -> None:
        pass

    def tend(self) -> None:
        pass


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
        "vetoRecoveryFor": CALLS.veto_recovery_for(me, FAR, SIGNATURE),
        "transferFor": CALLS.transfer_for(me, STRANGER, FAR, SIGNATURE, SIGNATURE),
        "invalidateNonceFor": CALLS.invalidate_nonce_for(me, FAR, SIGNATURE),
        "createGroupFor": CALLS.create_group_for("group", [Uid(BOB)], 5000, 60, by, FAR, SIGNATURE),
        "leaveFor": CALLS.leave_for(0, by, FAR, SIGNATURE),
        "requestFor": CALLS.request_for(0, by, FAR, SIGNATURE),
        "proposeFor": CALLS.propose_for(0, 0, Uid(BOB), b"", by, FAR, SIGNATURE),
        "voteBySig": CALLS.vote_by_sig(ProposalId(1), True, by, SIGNATURE),
    }


def sponsor(**limits: object) -> tuple[Sponsor, Payer]:
    payer = Payer()
    return Sponsor(payer, SponsorLimits(**{"wei_per_day": 10**6, **limits}), 0), payer  # type: ignore[arg-type]


OWN = calls_of(ADA, SIGNER)
OTHERS = calls_of(BOB, STRANGER)


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


@pytest.mark.parametrize("name", [name for name in OWN if name not in ("addDeviceFor", "setVerifierFor")])
def test_a_stranger_gets_only_what_makes_login_possible(name: str) -> None:
    """Registering, and what brings a home back; nothing else before login."""
    made, _ = sponsor()
    for call in (registration(), OWN["addDeviceFor"], OWN["setVerifierFor"]):
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
    payer.cost = Cost(MAX_GAS + 1, 1)
    (refusal,) = made.pay_all([registration()], 0)
    assert isinstance(refusal, RefusedError)
    assert "gas" in refusal.message
    assert payer.paid == []


def test_a_day_has_a_limit_in_wei() -> None:
    """What was spent comes free after 24 hours, and the refusal says when to come again."""
    made, payer = sponsor(wei_per_day=2500)
    first, second, third = newcomers(3)
    refusal = made.pay_all([first, second, third], 0)[2]
    assert isinstance(refusal, LimitReached)
    assert 0 < refusal.retry_after_ms <= DAY * 1000
    assert made.spent == 2000
    assert payer.paid == [first, second]
    assert isinstance(made.pay_all([third], DAY + 400)[0], Paid)


def test_an_hour_has_a_limit_within_the_day_s() -> None:
    """A rush ends at the hour's sum and takes nothing of the day's; an hour later there is more."""
    made, payer = sponsor(wei_per_day=10_000, wei_per_hour=2500)
    calls = newcomers(4)
    refusal = made.pay_all(calls[:3], 0)[2]
    assert isinstance(refusal, LimitReached)
    assert 0 < refusal.retry_after_ms <= HOUR * 1000 + 1
    assert made.spent == 2000
    assert [type(paid) for paid in made.pay_all(calls[2:], HOUR + 20)] == [Paid, Paid]
    assert made.spent == 4000
    assert payer.paid == calls


def test_one_poisoned_call_spoils_none_of_the_others() -> None:
    """Refused by the contract, too dear, or refused by the node: each answer is its own."""
    made, payer = sponsor()
    calls = newcomers(5)
    payer.refused[calls[1]] = VerificationError("It is by another key.")
    payer.unsendable[calls[3]] = NoEther("The purse is empty.")
    outcomes = made.pay_all(calls, 0)
    assert [type(outcome) for outcome in outcomes] == [Paid, VerificationError, Paid, NoEther, Paid]
    assert payer.paid == [calls[0], calls[2], calls[4]]


def test_a_call_that_was_sent_is_answered_with_its_transaction() -> None:
    """Who lost the answer and asks again is not told that the name is taken; nothing is paid twice."""
    made, payer = sponsor()
    call = registration()
    (first,) = made.pay_all([call], 0)
    payer.refused[call] = NameUnavailable("The name ada is taken.")
    assert made.pay_all([call], 1) == [first]
    assert made.pay_all([call, call], 2) == [first, first]
    assert payer.paid == [call]
    assert isinstance(made.pay_all([call], REMEMBERED_SECONDS + 1)[0], NameUnavailable)


def test_the_same_call_twice_in_one_turn_is_sent_once() -> None:
    """Both are told the same transaction."""
    made, payer = sponsor()
    first, second = made.pay_all([registration(), registration()], 0)
    assert first == second
    assert len(payer.paid) == 1


def test_of_two_registrations_of_one_name_or_account_one_is_paid_for() -> None:
    """Both would pass on the chain as it is; the second waits until it is seen what became of the first."""
    made, payer = sponsor()
    other = Address(b"\x08" * 20)
    same_name, same_account = registration("ada", other), registration("eve")
    outcomes = made.pay_all([registration(), same_name, same_account], 0)
    assert [type(outcome) for outcome in outcomes] == [Paid, NameUnavailable, NameUnavailable]
    assert [type(outcome) for outcome in made.pay_all([same_name, same_account], 1)] == [NameUnavailable] * 2
    assert made.spent == 1000
    assert payer.paid == [registration()]
    assert isinstance(made.pay_all([same_name], CLAIMED_SECONDS + 1)[0], Paid)


def test_votes_that_wait_together_go_in_one_transaction() -> None:
    """With the other calls of the turn beside them; every voter is told the same transaction."""
    made, payer = sponsor()
    votes = [vote(number) for number in range(1, 4)]
    outcomes = made.pay_all([votes[0], registration(), votes[1], votes[2]], 0)
    hashes = [outcome.tx_hash for outcome in outcomes if isinstance(outcome, Paid)]
    assert len(hashes) == 4
    assert hashes[0] == hashes[2] == hashes[3] != hashes[1]
    assert payer.paid == [registration(), payer.together(votes)]


def test_a_vote_alone_goes_as_it_came() -> None:
    """A batch of one would only hide why it failed."""
    made, payer = sponsor()
    made.pay_all([vote(1)], 0)
    assert payer.paid == [vote(1)]


def test_votes_go_one_by_one_when_they_cannot_go_together() -> None:
    """A batch that is refused as a whole costs nobody the vote."""
    made, payer = sponsor()
    votes = [vote(number) for number in range(1, 4)]
    payer.refused[payer.together(votes)] = RefusedError("Too little gas.")
    assert [type(outcome) for outcome in made.pay_all(votes, 0)] == [Paid] * 3
    assert payer.paid == votes


def test_a_batch_of_votes_has_a_size() -> None:
    """More votes than one transaction carries go in several."""
    made, payer = sponsor()
    made.pay_all([vote(number) for number in range(VOTES_TOGETHER + 2)], 0)
    assert [len(arguments(call)[0]) for call in payer.paid] == [VOTES_TOGETHER, 2]


def test_one_address_does_not_use_up_the_others_registrations() -> None:
    """Each has its own share, and failed attempts count for nobody else."""
    made, _ = sponsor(registrations_per_address=Rate.hourly(2), registrations=Rate.hourly(3))
    for _ in range(2):
        made.admit(registration(), None, "first", 0)
    with pytest.raises(LimitReached):
        made.admit(registration(), None, "first", 0)
    made.admit(registration(), None, "second", 0)
    outcomes = made.pay_all([*newcomers(4), OWN["voteBySig"]], 0)
    assert [type(outcome) for outcome in outcomes] == [Paid, Paid, Paid, LimitReached, Paid]


def test_one_user_does_not_use_up_the_others_calls() -> None:
    """Each has its own share."""
    made, _ = sponsor(calls_per_user=Rate.hourly(1))
    made.admit(OWN["voteBySig"], someone(), "address", 0)
    with pytest.raises(LimitReached):
        made.admit(OWN["voteBySig"], someone(), "address", 0)
    made.admit(calls_of(BOB, SIGNER)["voteBySig"], someone(BOB), "address", 0)
