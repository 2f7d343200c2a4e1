"""The safety number: sixty digits that two people compare to know that they see the same two accounts.

The construction is that of Signal's numeric fingerprint (version 0 layout, 5,200 rounds of SHA-512) and gives
the same digits for the same input. Our input: the 15 digits of the uid as the stable identifier and the
account's 20-byte address as the key, since the address is what the chain holds of the account key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import lru_cache

from chatchain.errors import BadRecord
from chatchain.identity.names import uid_text
from chatchain.model import Address, User

ROUNDS = 5200
_LAYOUT = b"\x00\x00"
_QR_VERSION = b"\x01"
_HALF_BYTES = 32
_CODE = "chatchain://safety?code="


def fingerprint(stable_id: bytes, key: bytes) -> bytes:
    """Gives one side's 64-byte fingerprint."""
    digest = _LAYOUT + key + stable_id
    for _ in range(ROUNDS):
        digest = hashlib.sha512(digest + key).digest()
    return digest


def safety_number(mine: User, theirs: User) -> str:
    """Gives the sixty digits; both sides see the same."""
    return digits(_of(mine), _of(theirs))


def digits(mine: bytes, theirs: bytes) -> str:
    """Writes two fingerprints as sixty digits, the smaller half first."""
    return "".join(sorted((_half(mine), _half(theirs))))


def spaced(number: str) -> str:
    """Writes a safety number in twelve groups of five, as people read it aloud."""
    return " ".join(number[start : start + 5] for start in range(0, len(number), 5))


def qr_payload(mine: User, theirs: User) -> bytes:
    """Gives what a QR code shows: a version byte, then 32 bytes of my fingerprint and 32 of theirs."""
    return _QR_VERSION + _of(mine)[:_HALF_BYTES] + _of(theirs)[:_HALF_BYTES]


def qr_text(mine: User, theirs: User) -> str:
    """Gives the same as text, which is what a QR code of ours holds: any camera reads it to a person."""
    return _CODE + base64.urlsafe_b64encode(qr_payload(mine, theirs)).decode().rstrip("=")


def read_qr(text: str) -> bytes:
    """Reads what `qr_text` wrote, ignoring blanks and line breaks; raises BadRecord."""
    line = "".join(text.split())
    try:
        payload = base64.urlsafe_b64decode(line.removeprefix(_CODE) + "=")
    except ValueError:
        payload = b""
    if len(payload) != 1 + 2 * _HALF_BYTES or _CODE + base64.urlsafe_b64encode(payload).decode()[:-1] != line:
        raise BadRecord("This is not the code of a safety number.")
    return payload


def qr_matches(scanned: bytes, mine: User, theirs: User) -> bool:
    """Says whether the code that they show stands for the same two accounts; raises BadRecord for no code."""
    if len(scanned) != 1 + 2 * _HALF_BYTES or scanned[:1] != _QR_VERSION:
        raise BadRecord("This is not the code of a safety number that this program knows.")
    # What they show has them first.
    return hmac.compare_digest(scanned, qr_payload(theirs, mine))


@lru_cache(maxsize=64)
def account_fingerprint(uid: int, account: Address) -> bytes:
    """Gives a user's fingerprint."""
    return fingerprint(uid_text(uid).encode(), account)


def _of(user: User) -> bytes:
    return account_fingerprint(user.uid, user.account)


def _half(full: bytes) -> str:
    chunks = (int.from_bytes(full[start : start + 5], "big") % 100_000 for start in range(0, 30, 5))
    return "".join(f"{chunk:05d}" for chunk in chunks)
