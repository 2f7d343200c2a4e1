"""What members decide beside who belongs: read from what a person types, and written for people to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from chatchain.errors import UsageError
from chatchain.identity.keys import parse_address, to_checksum
from chatchain.model import (
    Address,
    Decision,
    Group,
    Kind,
    Ledger,
    Policy,
    Reason,
    RelayAddress,
    SetAnchorer,
    SetRelays,
    SetRewards,
    SetRules,
    SetSuccessor,
    SetWitnesses,
)

Wish = Callable[[Group, Ledger], Decision]
"""A decision as it was typed: what was left out comes from how things stand."""

MAX_REASON: Final = 1024
"""Bytes of a reason that the contract takes."""

MAX_WITNESSES: Final = 16
MAX_RELAYS: Final = 16
MIN_PERIOD_S: Final = 3600
MAX_PERIOD_S: Final = 365 * 24 * 3600

_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*(%?)")
_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

KIND_OF: Final[dict[type[Decision], Kind]] = {
    SetRules: Kind.SET_RULES,
    SetAnchorer: Kind.SET_ANCHORER,
    SetWitnesses: Kind.SET_WITNESSES,
    SetRelays: Kind.SET_RELAYS,
    SetRewards: Kind.SET_REWARDS,
    SetSuccessor: Kind.SUCCESSOR,
}


# --- from what is typed ---------------------------------------------------------------------------------


def rules(policy: str | None, threshold: str | None, period: str | None) -> Wish:
    """How a group votes: `open` or `vote` (the network only), percent that must be passed, `7d`, `36h`."""
    if policy is None and threshold is None and period is None:
        raise UsageError(
            "There is nothing to change.", "Give --policy, --threshold or --period, or several of them."
        )
    try:
        chosen = None if policy is None else Policy[policy.upper()]
    except KeyError:
        raise UsageError(f"{policy!r} is no policy: it is open or vote.") from None
    hundredths = None if threshold is None else _hundredths(threshold)
    seconds = None if period is None else _seconds(period)

    def wish(group: Group, _: Ledger) -> Decision:
        if group.group != 0 and chosen is Policy.VOTE:
            raise UsageError("Only the network has a policy; that of other groups is always open.")
        return SetRules(
            group.policy if chosen is None else chosen,
            group.threshold if hundredths is None else hundredths,
            group.voting_period if seconds is None else seconds,
        )

    return wish


def _hundredths(percent: str) -> int:
    """A share as a person writes it (`66`, `66%`, `66.5 %`) in hundredths of a percent."""
    match = _PERCENT.fullmatch(percent.strip())
    share = float(match[1]) if match is not None else 0.0
    if match is None or not 0.01 <= share <= 99.99:
        raise UsageError(
            f"{percent[:32]!r} is no threshold: it is 1 to 99.99 percent, such as 66 or 66%.",
            "More than that must vote yes.",
        )
    if share < 1 and not match[2]:
        raise UsageError(
            f"{percent[:32]!r} would be less than one percent.",
            f"Write percent: {share * 100:g} for that share; or {percent.strip()}% if it is meant.",
        )
    return round(share * 100)


def anchorer(address: str, log: str | None) -> Wish:
    """Who anchors, into the log that grows or into a new one (64 hex digits)."""
    holder, log_id = _somebody(address), None if log is None else _hash(log, "A log's id")

    def wish(_: Group, ledger: Ledger) -> Decision:
        if log_id is None and not ledger.logs:
            raise UsageError(
                "There is no log of messages yet.", "Name the first with --log and 64 hex digits."
            )
        return SetAnchorer(holder, ledger.logs[-1].log_id if log_id is None else log_id)

    return wish


def witnesses(quorum: int, addresses: Sequence[str]) -> Wish:
    """Who witnesses heads, in any order, and how many of them must sign."""
    people = sorted({_somebody(address) for address in addresses})
    if len(people) != len(addresses):
        raise UsageError("A witness is named twice.")
    if not 1 <= quorum <= len(people) <= MAX_WITNESSES:
        raise UsageError(f"There are 1 to {MAX_WITNESSES} witnesses, of whom 1 to all must sign.")
    return _just(SetWitnesses(quorum, tuple(people)))


def relays(texts: Sequence[str]) -> Wish:
    """The relays, first choice first, each as `host:port=KEY` or `host:port=KEY,NEXTKEY`."""
    if len(texts) > MAX_RELAYS:
        raise UsageError(f"A network has at most {MAX_RELAYS} relays.")
    return _just(SetRelays(tuple(map(_relay, texts))))


def rewards(address: str) -> Wish:
    """Who publishes the roots of rewards."""
    return _just(SetRewards(_somebody(address)))


def successor(address: str) -> Wish:
    """Another network's Directory, or `none`."""
    return _just(SetSuccessor(None if address.lower() == "none" else _somebody(address)))


def reason(text: str) -> Reason:
    """A reason that the contract takes."""
    if len(text.encode()) > MAX_REASON:
        raise UsageError(f"A reason has at most {MAX_REASON} bytes.")
    return Reason(text)


def _just(decision: Decision) -> Wish:
    return lambda _group, _ledger: decision


def _somebody(text: str) -> Address:
    address = parse_address(text)
    if not any(address):
        raise UsageError("The zero address is nobody's.")
    return address


def _hash(text: str, what: str) -> bytes:
    digits = text.removeprefix("0x")
    try:
        raw = bytes.fromhex(digits) if digits.isalnum() else b""
    except ValueError:
        raw = b""
    if len(raw) != 32 or not any(raw):
        raise UsageError(f"{what} is 64 hex digits, not all of them zero; {text[:80]!r} is not.")
    return raw


def _relay(text: str) -> RelayAddress:
    endpoint, _, pins = text.partition("=")
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or len(endpoint.encode()) > 255:
        raise UsageError(f"{text[:80]!r} is not a relay: write host:port=KEY or host:port=KEY,NEXTKEY.")
    now, _, later = pins.replace(":", "").partition(",")  # a relay's log shows its fingerprint with colons
    what = f"The key of {endpoint} (SHA-256 of its public key)"
    return RelayAddress(endpoint, _hash(now, what), _hash(later, what) if later else bytes(32))


def _seconds(text: str) -> int:
    number, unit = text[:-1], _UNITS.get(text[-1:].lower())
    if unit is None or not number.isdecimal():
        raise UsageError(f"{text[:20]!r} is no voting period: write 7d, 36h or 90m.")
    seconds = int(number[:12]) * unit
    if not MIN_PERIOD_S <= seconds <= MAX_PERIOD_S:
        raise UsageError(
            f"A vote lasts an hour at least and a year at most, which {text[:20]} is not.",
            "Within less nobody might vote in time, not even to have it longer again.",
        )
    return seconds


# --- for people to read ---------------------------------------------------------------------------------


def sentence(kind: Kind, subject: str, decision: Decision | None, group: int) -> str:
    """What a proposal would do, to stand behind "Proposal 7:"."""
    if decision is None:
        return f"{_PLAIN.get(kind, kind.name.lower().replace('_', ' '))}, by data that cannot be read"
    match decision:
        case Reason(text):
            what = f"{kind.name.lower()} {subject}" if kind in (Kind.ADMIT, Kind.EXPEL) else _PLAIN[kind]
            return f"{what} ({text})" if text else what
        case SetRules(policy, threshold, period):
            who = "members only send" if policy is Policy.VOTE else "every registered user sends"
            share = f"more than {threshold / 100:g} % pass a proposal, within {_span(period)}"
            return f"{who}; {share}" if group == 0 else share
        case SetAnchorer(holder, log_id):
            return f"let {to_checksum(holder)} anchor the log of messages {log_id.hex()}"
        case SetWitnesses(quorum, people):
            names = ", ".join(map(to_checksum, people))
            return f"require {quorum} of {len(people)} witnesses of the log: {names}"
        case SetRelays(relays_):
            return f"use the relays {'; '.join(map(_told, relays_))}" if relays_ else "use no relay"
        case SetRewards(holder):
            return f"let {to_checksum(holder)} publish who earned rewards"
        case SetSuccessor(directory):
            if directory is None:
                return "recommend no other network any more"
            return f"recommend to go on with the network {to_checksum(directory)}"


_PLAIN: Final = {
    Kind.PAUSE: "pause the network for 7 days",
    Kind.UNPAUSE: "end the network's pause",
}


def _told(relay: RelayAddress) -> str:
    later = f", then {relay.next_spki.hex()}" if any(relay.next_spki) else ""
    return f"{relay.endpoint} with key {relay.spki.hex()}{later}"


def _span(seconds: int) -> str:
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} seconds"
