"""Usernames and 15-digit ids, as the IdentityRegistry contract rules them."""

from __future__ import annotations

import re

from chatchain.errors import MalformedName, MalformedUid
from chatchain.model import Uid

MIN_NAME = 3
MAX_NAME = 32
MAX_TYPED_NAME = 255
"""Longest input that is normalised at all; nothing longer could become a username."""

UID_DIGITS = 15
UID_BODY_FIRST = 10**13
"""Bodies (the id without its check digit) have 14 digits and never start with 0."""

RESERVED_NAMES: tuple[str, ...] = (
    "admin",
    "administrator",
    "all",
    "anonymous",
    "anyone",
    "chatchain",
    "contract",
    "deployer",
    "directory",
    "everyone",
    "group",
    "help",
    "here",
    "identity",
    "ledger",
    "membership",
    "moderator",
    "network",
    "nobody",
    "none",
    "null",
    "official",
    "operator",
    "owner",
    "postmaster",
    "registry",
    "relay",
    "root",
    "security",
    "self",
    "server",
    "sponsor",
    "staff",
    "support",
    "system",
    "treasury",
    "undefined",
    "webmaster",
)
"""Names that nobody can register: they would pass for the system's voice or mean everybody."""

_ALLOWED = re.compile(r"[a-z0-9-]+\Z")


def normalise_username(text: str) -> str:
    """Gives the one spelling of a username that the chain knows.

    What is typed is first normalised per ENSIP-15, so that "Ada" and full-width "ａｄａ" mean "ada"; the
    contract's rule is checked on the outcome. Raises MalformedName, whose message says which rule is broken.
    """
    if len(text) > MAX_TYPED_NAME:
        raise MalformedName("The username is too long.")
    # For plain ASCII letters, digits and hyphens ENSIP-15 only lowers the case, so `ens` (which imports web3)
    # stays out.
    name = text.lower() if text.isascii() else _ensip15(text)
    _require_rule(name, text)
    return name


def _ensip15(text: str) -> str:
    from ens.exceptions import InvalidName
    from ens.utils import normalize_name

    try:
        return str(normalize_name(text))
    except InvalidName as exc:
        raise MalformedName(f"{text!r} contains characters that cannot stand in a username.") from exc


def _require_rule(name: str, typed: str) -> None:
    shown = repr(typed)
    if not name:
        raise MalformedName("The username is empty.")
    if not _ALLOWED.match(name):
        raise MalformedName(f"The username {shown} may only have the characters a-z, 0-9 and hyphen.")
    if not MIN_NAME <= len(name) <= MAX_NAME:
        raise MalformedName(
            f"The username {shown} has {len(name)} characters; {MIN_NAME} to {MAX_NAME} are allowed."
        )
    if not "a" <= name[0] <= "z":
        raise MalformedName(f"The username {shown} does not start with a letter.")
    if name[-1] == "-":
        raise MalformedName(f"The username {shown} ends with a hyphen.")
    if "--" in name:
        raise MalformedName(f"The username {shown} has two hyphens in a row.")


def check_digit(body: int | str) -> int:
    """Gives the ISO 7064 MOD 11,10 check digit: it catches every wrong digit and nearly every swap."""
    product = 10
    for digit in str(body):
        total = (product + int(digit)) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10


def uid_text(uid: int) -> str:
    """Writes an id as people type it: 15 digits."""
    return f"{uid:0{UID_DIGITS}d}"


def uid_from_text(text: str) -> Uid:
    """Reads a 15-digit id, spaces between groups of digits allowed; raises MalformedUid."""
    digits = text.strip().replace(" ", "")
    if not (digits.isascii() and digits.isdigit()) or len(digits) != UID_DIGITS:
        raise MalformedUid(f"{text[:64]!r} is not an id: an id has exactly {UID_DIGITS} digits.")
    return checked_uid(int(digits))


def checked_uid(number: int) -> Uid:
    """Gives the number as an id if its length and check digit allow; raises MalformedUid."""
    body, check = divmod(number, 10)
    if not UID_BODY_FIRST <= body < 10 * UID_BODY_FIRST:
        raise MalformedUid(f"{number} is not an id: an id has exactly {UID_DIGITS} digits.")
    if check_digit(body) != check:
        raise MalformedUid(f"The id {uid_text(number)} is mistyped: its check digit does not fit.")
    return Uid(number)
