"""Pays for signed calls of accounts without ether: which, for whom, how often and for how much.

Only calls that carry their author's own signature are paid for, so a sponsor can withhold but not forge.
Before login that is a registration, or the device and verifier that an account adds to restore a home;
afterwards what the logged-in user signed, recognised by the uid or address in the calldata. A call is tried
out before it is paid for; one that would be refused costs nothing but its place in the rate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from chatchain.errors import ChatchainError, LimitReached, NameUnavailable, RefusedError
from chatchain.identity.keys import keccak256
from chatchain.model import Call, User
from chatchain.relay.limits import Bucket, Buckets, Budget, Rate
from chatchain.relay.ports import Cost, Payer

HOUR: Final = 3600.0

VOTES_TOGETHER: Final = 64
"""Votes in one transaction."""

REMEMBERED: Final = 10_000
REMEMBERED_SECONDS: Final = 600.0
"""How many calls are known to have been sent, and for how long: as long as clients let signatures last."""

CLAIMED_SECONDS: Final = 60.0
"""How long a name counts as about to be taken: until the transaction is surely mined, or lost."""

MAX_GAS: Final = 1_000_000
"""A registration takes about a quarter of it; an account that is a contract could take any amount to check
a signature.
"""

DAY: Final = 24 * 3600.0
_WORD: Final = 32


class SponsorLimits(msgspec.Struct, frozen=True):
    """How often the sponsor pays; `wei_per_day` is all that it spends in 24 hours, `wei_per_hour` in one.

    Without an hour's limit (0) only the day's counts.
    """

    wei_per_day: int
    wei_per_hour: int = 0
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
    _Verb("identity", "addKeyFor(uint64,uint8,bytes,uint256,bytes)", 0),
    _Verb("identity", "updateKeyFor(uint64,uint32,uint32,bytes,uint256,bytes)", 0),
    _Verb("identity", "revokeKeyFor(uint64,uint32,uint256,bytes)", 0),
    _Verb("identity", "setRecoveryFor(uint64,address,uint256,bytes)", 0),
    _Verb("identity", "vetoRecoveryFor(uint64,uint256,bytes)", 0),
    _Verb("identity", "transferFor(uint64,address,uint256,bytes,bytes)", 0),
    _Verb("identity", "invalidateNonceFor(uint64,uint256,bytes)", 0),
    _Verb(
        "membership",
        "createGroupFor(string,uint64[],(uint16,uint32),address,uint256,bytes)",
        4,
        by_address=True,
    ),
    _Verb("membership", "leaveFor(uint32,address,uint256,bytes)", 1, by_address=True),
    _Verb("membership", "requestFor(uint32,address,uint256,bytes)", 1, by_address=True),
    _Verb("membership", "proposeFor(uint32,uint8,uint64,bytes,address,uint256,bytes)", 4, by_address=True),
    _Verb("membership", "voteBySig(uint64,bool,address,bytes)", 2, by_address=True),
)
_REGISTRATION: Final = _VERBS[0]
_VOTE: Final = next(verb for verb in _VERBS if verb.signature.startswith("voteBySig("))
_RESTORING: Final = frozenset({_VERBS[1], _VERBS[4]})
"""A restored home cannot log in before its device is listed; the account has signed both calls."""


def _selector(signature: str) -> bytes:
    return keccak256(signature.encode())[:4]


class Paid(msgspec.Struct, frozen=True):
    """A call that was sent: under which transaction, and the wei that it will cost by estimate."""

    tx_hash: bytes
    wei: int


class _Parcel(msgspec.Struct):
    """One transaction to be: its call with gas and price, and the places of the calls that it carries out."""

    call: Call
    gas: int
    places: list[int]


class Sponsor:
    """Decides about calls and has them paid for, many in one turn.

    `admit` may be called at any time; `pay_all` and `tend` block, and of `pay_all` one runs at a time.
    """

    def __init__(self, payer: Payer, limits: SponsorLimits, now: float) -> None:
        self._payer = payer
        self._by_selector = {(verb.contract, _selector(verb.signature)): verb for verb in _VERBS}
        self._registrations = Bucket(limits.registrations, now)
        self._by_address = Buckets(limits.registrations_per_address)
        self._by_user = Buckets(limits.calls_per_user)
        self._day = Budget(limits.wei_per_day, DAY)
        self._hour = Budget(limits.wei_per_hour or limits.wei_per_day, HOUR)
        self._sent: OrderedDict[bytes, tuple[float, Paid]] = OrderedDict()
        self._claims: OrderedDict[bytes, float] = OrderedDict()

    @property
    def spent(self) -> int:
        """Wei spent within the last 24 hours, by estimate."""
        return self._day.total

    def admit(self, call: Call, user: User | None, address: str, now: float) -> None:
        """Lets a call pass to `pay_all`; `user` is who is logged in. Raises RefusedError or LimitReached."""
        verb = self._verb(call)
        if verb is None:
            raise RefusedError("The relay does not pay for this call.")
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

    def pay_all(self, calls: Sequence[Call], now: float) -> list[Paid | ChatchainError]:
        """Tries calls out, books them and sends those that would succeed: what became of each. Blocks.

        One that is refused spoils none of the others. A call that was sent before is answered with its
        transaction: whoever lost the answer, and asks again, finds the name taken and the signature used by
        nobody else.
        """
        outcomes: dict[int, Paid | ChatchainError] = {}
        fresh = self._fresh(calls, now, outcomes)
        parcels: list[_Parcel] = []
        prices: dict[int, int] = {}
        costs = self._payer.estimate_all([calls[place] for place in fresh]) if fresh else ()
        for place, cost in zip(fresh, costs, strict=True):
            try:
                if isinstance(cost, ChatchainError):
                    raise cost
                if any(claim in self._claims for claim in self._claims_of(calls[place])):
                    raise _overlapping()
                self._book(calls[place], cost, now)
            except ChatchainError as refusal:
                outcomes[place] = refusal
            else:
                prices[place] = cost.wei
                parcels.append(_Parcel(calls[place], cost.gas, [place]))
        parcels = self._packed(parcels)
        hashes = self._payer.submit_all([(parcel.call, parcel.gas) for parcel in parcels]) if parcels else ()
        for parcel, told in zip(parcels, hashes, strict=True):
            for place in parcel.places:
                if isinstance(told, ChatchainError):
                    outcomes[place] = told
                else:
                    outcomes[place] = paid = Paid(told, prices[place])
                    self._remember(calls[place], paid, now)
        digests = [_digest(call) for call in calls]
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        return [outcomes[first[digest]] for digest in digests]

    def prepare(self) -> None:
        """Gets ready to pay. Blocks."""
        self._payer.prepare()

    def tend(self) -> None:
        """Sees what was sent through until it is mined and settled. Blocks."""
        self._payer.tend()

    def _fresh(
        self, calls: Sequence[Call], now: float, outcomes: dict[int, Paid | ChatchainError]
    ) -> list[int]:
        """The places of calls to be tried out; the others are answered at once, or with their like."""
        while self._sent and next(iter(self._sent.values()))[0] <= now:
            self._sent.popitem(last=False)
        while self._claims and next(iter(self._claims.values())) <= now:
            self._claims.popitem(last=False)
        fresh = []
        seen: set[bytes] = set()
        claimed: set[bytes] = set()
        for place, call in enumerate(calls):
            digest = _digest(call)
            if digest in seen:
                continue
            seen.add(digest)
            before = self._sent.get(digest)
            if before is not None:
                outcomes[place] = before[1]
                continue
            claims = self._claims_of(call)
            if claimed.intersection(claims):
                outcomes[place] = _overlapping()
                continue
            claimed.update(claims)
            fresh.append(place)
        return fresh

    def _claims_of(self, call: Call) -> tuple[bytes, ...]:
        """What a registration takes that no other can have: its account and its name."""
        if self._verb(call) is not _REGISTRATION:
            return ()
        return call.data[4:36], b"name" + _text(call.data, 1)

    def _book(self, call: Call, cost: Cost, now: float) -> None:
        """Books a call that would succeed against the sums; raises RefusedError or LimitReached.

        Only here do registrations count for all together: attempts that fail do not use up the others' share.
        """
        if cost.gas > MAX_GAS:
            raise RefusedError(f"The call would take {cost.gas} gas; the relay pays for {MAX_GAS}.")
        if self._verb(call) is _REGISTRATION:
            _require(self._registrations.take(now), "registrations")
        _require(self._hour.wait(now, cost.wei), "calls")
        _require(self._day.spend(now, cost.wei), "calls")
        self._hour.spend(now, cost.wei)

    def _packed(self, parcels: list[_Parcel]) -> list[_Parcel]:
        """Votes that wait together go in one transaction, which costs each of them less."""
        votes = [parcel for parcel in parcels if self._verb(parcel.call) is _VOTE]
        if len(votes) < 2:
            return parcels
        packed = [parcel for parcel in parcels if self._verb(parcel.call) is not _VOTE]
        for start in range(0, len(votes), VOTES_TOGETHER):
            some = votes[start : start + VOTES_TOGETHER]
            try:
                call = self._payer.together([vote.call for vote in some])
                (cost,) = self._payer.estimate_all([call])
                if isinstance(cost, ChatchainError):
                    raise cost
            except ChatchainError:
                packed += some  # each for itself
            else:
                packed.append(_Parcel(call, cost.gas, [place for vote in some for place in vote.places]))
        return packed

    def _remember(self, call: Call, paid: Paid, now: float) -> None:
        self._sent[_digest(call)] = (now + REMEMBERED_SECONDS, paid)
        for claim in self._claims_of(call):
            self._claims[claim] = now + CLAIMED_SECONDS
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        while len(self._claims) > 2 * REMEMBERED:
            self._claims.popitem(last=False)

    def _verb(self, call: Call) -> _Verb | None:
        return self._by_selector.get((call.contract, call.data[:4]))


def _overlapping() -> NameUnavailable:
    """On the chain as it is both would pass, and the second would fail when it is mined."""
    return NameUnavailable(
        "Another registration of this name or account is on its way.",
        "Try again in a moment if it was not yours.",
    )


def _digest(call: Call) -> bytes:
    return sha256(call.contract.encode() + b"\0" + call.data).digest()


def _text(data: bytes, argument: int) -> bytes:
    """A string among the arguments of calldata, as far as it is there: contracts refuse what is malformed."""
    at = 4 + int.from_bytes(data[4 + argument * _WORD :][:_WORD], "big")
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
        raise LimitReached(
            f"The relay has paid for as many {what} as it does for now.", retry_after_ms=int(wait * 1000) + 1
        )
