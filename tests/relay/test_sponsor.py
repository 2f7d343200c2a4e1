"""What the sponsor pays for, with a payer that only keeps accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from chatchain.chain.calls import Calls
from chatchain.errors import LimitReached, RefusedError
from chatchain.model import Address, Call, DeviceState, ProposalId, Uid, User
from chatchain.programs.server import Purse
from chatchain.relay import ports
from chatchain.relay.limits import Rate
from chatchain.relay.sponsor import DAY, MAX_GAS, Sponsor, SponsorLimits
from tests.relay.test_mailbox import ADA, BOB, user

CALLS = Calls()
FAR, SIGNATURE, RECORD = 2**40, bytes(65), bytes(227)
NOBODY = Address(bytes(20))
SIGNER = Address(b"\x01" * 20)  # of the first device that `user` makes
STRANGER = Address(b"\x09" * 20)


class Cost(NamedTuple):
    gas: int
    wei: int
    limit: int = 400_000
    fee: int = 1
    tip: int = 1


COST = Cost(250_000, 1000)


class Payer:
    """Names a price, and remembers what it was made to pay for."""

    def __init__(self) -> None:
        self.cost = COST
        self.paid: list[Call] = []
        self.contracts: set[Address] = set()
        self.raises: list[int] = []
        self.raised: list[bool] = []

    def canonical(self, call: Call) -> bool:
        return Purse.canonical(self, call)  # type: ignore[arg-type]  # it looks at the call only

    def has_code(self, account: Address) -> bool:
        return account in self.contracts

    def estimate(self, call: Call, most: int) -> Cost:
        return self.cost

    def submit(self, call: Call, cost: ports.Cost) -> bytes:
        assert cost == self.cost
        self.paid.append(call)
        return bytes(32)

    def prepare(self) -> None:
        pass

    def tend(self, allow: Callable[[int], bool]) -> None:
        self.raised = [allow(wei) for wei in self.raises]


def registration() -> Call:
    return CALLS.register_for(STRANGER, "ada", bytes(32), b"kdf", NOBODY, SIGNER, RECORD, FAR, SIGNATURE)


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
    with pytest.raises(RefusedError, match="gas"):
        made.estimate(registration())
    assert payer.paid == []


def test_a_day_has_a_limit_in_wei() -> None:
    """What was spent comes free after 24 hours, and the refusal says when to come again."""
    made, payer = sponsor(wei_per_day=2500)
    for _ in range(2):
        cost = made.estimate(registration())
        made.reserve(registration(), cost, 0)
        made.pay(registration(), cost)
    with pytest.raises(LimitReached) as raised:
        made.reserve(registration(), COST, 1)
    assert 0 < raised.value.retry_after_ms <= DAY * 1000
    assert made.spent == 2000
    assert len(payer.paid) == 2
    made.reserve(registration(), COST, DAY + 400)


def test_f3_higher_fees_are_booked_too() -> None:
    """A replacement for a better price stays within the day's limit."""
    made, payer = sponsor(wei_per_day=2500)
    made.reserve(registration(), COST, 0)
    payer.raises = [1000, 600, 500, 1]
    made.tend(1)
    assert payer.raised == [True, False, True, False]
    assert made.spent == 2500


def test_f3_the_limit_of_a_transaction_is_judged_like_its_estimate() -> None:
    """What a contract could burn counts, not what it took when it was asked."""
    made, payer = sponsor()
    payer.cost = Cost(250_000, 1, limit=MAX_GAS + 1)
    with pytest.raises(RefusedError, match="gas"):
        made.estimate(registration())


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


def test_one_address_does_not_use_up_the_others_registrations() -> None:
    """Each has its own share, and failed attempts count for nobody else."""
    made, _ = sponsor(registrations_per_address=Rate.hourly(2), registrations=Rate.hourly(3))
    for _ in range(2):
        made.admit(registration(), None, "first", 0)
    with pytest.raises(LimitReached):
        made.admit(registration(), None, "first", 0)
    made.admit(registration(), None, "second", 0)
    for _ in range(3):
        made.reserve(registration(), COST, 0)
    with pytest.raises(LimitReached):
        made.reserve(registration(), COST, 0)
    made.reserve(OWN["voteBySig"], COST, 0)


def test_one_user_does_not_use_up_the_others_calls() -> None:
    """Each has its own share."""
    made, _ = sponsor(calls_per_user=Rate.hourly(1))
    made.admit(OWN["voteBySig"], someone(), "address", 0)
    with pytest.raises(LimitReached):
        made.admit(OWN["voteBySig"], someone(), "address", 0)
    made.admit(calls_of(BOB, SIGNER)["voteBySig"], someone(BOB), "address", 0)
