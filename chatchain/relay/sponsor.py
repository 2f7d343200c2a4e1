"""Pays for signed calls of accounts without ether: which, for whom, how often and for how much.

Only calls that carry their author's own signature are paid for, so a sponsor can withhold but not forge.
Before login that is a registration, or the device and verifier that an account adds to restore a home;
afterwards what the logged-in user signed, recognised by the uid or address in the calldata. A call is tried
out before it is paid for; one that would be refused costs nothing but its place in the rate.
"""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from chatchain.errors import LimitReached, RefusedError
from chatchain.identity.keys import keccak256
from chatchain.model import Address, Call, User
from chatchain.relay.limits import Bucket, Buckets, Budget, Rate
from chatchain.relay.ports import Cost, Payer

MAX_GAS: Final = 1_000_000
"""A registration takes about a quarter of it; an account that is a contract could take any amount to check
a signature.
"""

DAY: Final = 24 * 3600.0
_WORD: Final = 32


class SponsorLimits(msgspec.Struct, frozen=True):
    """How often the sponsor pays; `wei_per_day` is all that it spends in 24 hours."""

    wei_per_day: int
    registrations: Rate = Rate.hourly(1000)
    registrations_per_address: Rate = Rate.hourly(200)
    calls_per_user: Rate = Rate.hourly(200)


class _Verb(msgspec.Struct, frozen=True):
    """A call that may be paid for: which argument names its author, and whether as uid or as address."""

    contract: str
    signature: str
    author: int = -1
    by_address: bool = False


_VERBS: Final = (
    _Verb("identity", "registerFor(address,string,bytes32,bytes,address,address,bytes,uint256,bytes)"),
    _Verb("identity", "addDeviceFor(uint64,address,bytes,uint256,bytes)", 0),
    _Verb("identity", "updateDeviceFor(uint64,uint32,uint32,address,bytes,uint256,address,bytes)", 0),
    _Verb("identity", "revokeDeviceFor(uint64,uint32,uint256,bytes)", 0),
    _Verb("identity", "setVerifierFor(uint64,bytes32,bytes,uint256,bytes)", 0),
    _Verb("membership", "requestFor(uint32,address,uint256,bytes)", 1, by_address=True),
    _Verb("membership", "proposeFor(uint32,uint8,uint64,bytes,address,uint256,bytes)", 4, by_address=True),
    _Verb("membership", "voteBySig(uint64,bool,address,bytes)", 2, by_address=True),
)
_REGISTRATION: Final = _VERBS[0]
_RESTORING: Final = frozenset({_VERBS[1], _VERBS[4]})
"""A restored home cannot log in before its device is listed; the account has signed both calls."""


def _selector(signature: str) -> bytes:
    return keccak256(signature.encode())[:4]


class Sponsor:
    """Decides about calls and has them paid for. Methods may be called from several threads one at a time
    each.
    """

    def __init__(self, payer: Payer, limits: SponsorLimits, now: float) -> None:
        self._payer = payer
        self._by_selector = {(verb.contract, _selector(verb.signature)): verb for verb in _VERBS}
        self._registrations = Bucket(limits.registrations, now)
        self._by_address = Buckets(limits.registrations_per_address)
        self._by_user = Buckets(limits.calls_per_user)
        self._budget = Budget(limits.wei_per_day, DAY)
        self._purse = threading.Lock()  # calls are booked on the loop, higher fees in a thread

    @property
    def spent(self) -> int:
        """Wei booked within the last 24 hours: the most that what was sent can cost."""
        return self._budget.total

    def admit(self, call: Call, user: User | None, address: str, now: float) -> None:
        """Lets a call pass to `estimate`; `user` is who is logged in. Raises RefusedError or LimitReached."""
        verb = self._verb(call)
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
        if self._verb(call) is _REGISTRATION and self._payer.has_code(Address(call.data[16:36])):
            raise RefusedError("The relay does not pay for the registration of a contract.")

    def estimate(self, call: Call) -> Cost:
        """Tries the call out and gives its cost; raises why the contract would refuse it. Blocks."""
        cost = self._payer.estimate(call, MAX_GAS)
        if max(cost.gas, cost.limit) > MAX_GAS:
            raise RefusedError(f"The call would take {cost.gas} gas; the relay pays for {MAX_GAS}.")
        return cost

    def reserve(self, call: Call, cost: Cost, now: float) -> None:
        """Books a call that would succeed against the sums; raises LimitReached.

        Only here do registrations count for all together: attempts that fail do not use up the others' share.
        """
        if self._verb(call) is _REGISTRATION:
            _require(self._registrations.take(now), "registrations")
        with self._purse:
            _require(self._budget.spend(now, cost.wei), "calls")

    def pay(self, call: Call, cost: Cost) -> bytes:
        """Sends the call for what was reserved and gives the transaction's hash. Blocks."""
        return self._payer.submit(call, cost)

    def _verb(self, call: Call) -> _Verb | None:
        return self._by_selector.get((call.contract, call.data[:4]))

    def prepare(self) -> None:
        """Gets ready to pay. Blocks."""
        self._payer.prepare()

    def tend(self, now: float) -> None:
        """Sees what was sent through until it is mined and settled; higher fees are booked, too. Blocks."""

        def allow(wei: int) -> bool:
            with self._purse:
                return not self._budget.spend(now, wei)

        self._payer.tend(allow)


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
        raise LimitReached(
            f"The relay has paid for as many {what} as it does for now.", retry_after_ms=int(wait * 1000) + 1
        )
