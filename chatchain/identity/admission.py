"""What lets a newcomer's registration in at a relay that pays for it: some work, or a member's invitation.

Both travel as bytes beside the call. Work is a counter that makes a hash begin with as many zero bits as the
relay asked for; it binds the connection's nonce, the request's number and the whole call, so it can neither
be done before the connection nor serve twice (the scheme of Back, "Hashcash", 2002). An invitation is an
EIP-712 signature of a member's account or device; its text goes by hand from person to person.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from chatchain.errors import RefusedError, UsageError
from chatchain.identity.typed_data import invitation_digest
from chatchain.model import Call, Network

INVITED_ONLY: Final = 255
"""Announced instead of a number of bits by a relay that takes no work."""

MAX_WORK: Final = 24
"""Bits that a newcomer's program agrees to: 17 million hashes, some 8 s of one core."""

INVITATION_ID_BYTES: Final = 16
SIGNATURE_BYTES: Final = 65

_WORK: Final = 1
_INVITATION: Final = 2
_COUNTER_BYTES: Final = 8
_LABEL: Final = b"chatchain work v1\0"
_TEXT: Final = "invite1"
_LENGTH: Final = 1 + 8 + INVITATION_ID_BYTES + 8 + SIGNATURE_BYTES


class Invitation(msgspec.Struct, frozen=True):
    """A member's word for one newcomer, whoever it may be, until a time in seconds."""

    inviter: int
    id: bytes
    expires: int
    signature: bytes

    def digest(self, network: Network, epoch: int) -> bytes:
        """What the inviter signs; the epoch makes it void once the account was replaced."""
        return invitation_digest(network, self.inviter, epoch, self.id, self.expires)

    def encode(self) -> bytes:
        """As it stands beside the call: kind, inviter, id, expiry, signature."""
        numbers = (self.inviter.to_bytes(8, "big"), self.expires.to_bytes(8, "big"))
        return b"".join((bytes([_INVITATION]), numbers[0], self.id, numbers[1], self.signature))

    def text(self) -> str:
        """As people hand it on."""
        return _TEXT + urlsafe_b64encode(self.encode()).decode().rstrip("=")


def decode_invitation(data: bytes) -> Invitation | None:
    """The invitation beside a call; None when something else is there."""
    if len(data) != _LENGTH or data[0] != _INVITATION:
        return None
    identifier, rest = data[9 : 9 + INVITATION_ID_BYTES], data[9 + INVITATION_ID_BYTES :]
    inviter, expires = int.from_bytes(data[1:9], "big"), int.from_bytes(rest[:8], "big")
    return Invitation(inviter, identifier, expires, rest[8:])


def parse_invitation(text: str) -> Invitation:
    """Reads the text of an invitation; raises UsageError."""
    text = "".join(text.split())
    encoded = text.removeprefix(_TEXT)
    try:
        data = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError:
        data = b""
    invitation = decode_invitation(data)
    if invitation is None or invitation.text() != text:
        raise UsageError(
            "This is not an invitation.", f"It starts with {_TEXT}; copy it again, whole, or ask for another."
        )
    return invitation


def _prefix(nonce: bytes, ref: int, call: Call) -> hashlib._Hash:
    contract = call.contract.encode()
    bound = nonce + ref.to_bytes(8, "big") + len(contract).to_bytes(1, "big") + contract
    return hashlib.sha256(_LABEL + bound + hashlib.sha256(call.data).digest())


def work_for(nonce: bytes, ref: int, call: Call, bits: int) -> bytes:
    """Does the work for one request: 2^bits hashes on average. Raises RefusedError for too much of it."""
    if bits > MAX_WORK:
        raise RefusedError(
            f"The relay asks a newcomer for more work than this program does ({bits} bits).",
            "Ask a member for an invitation: `chatchain invite` makes one.",
        )
    prefix, bound, counter = _prefix(nonce, ref, call), 1 << (256 - bits), 0
    while True:
        tried = prefix.copy()
        tried.update(counter.to_bytes(_COUNTER_BYTES, "big"))
        if int.from_bytes(tried.digest(), "big") < bound:
            return bytes([_WORK]) + counter.to_bytes(_COUNTER_BYTES, "big")
        counter += 1


def shows_work(admission: bytes, nonce: bytes, ref: int, call: Call, bits: int) -> bool:
    """Whether so much work was done for this request."""
    if len(admission) != 1 + _COUNTER_BYTES or admission[0] != _WORK:
        return False
    tried = _prefix(nonce, ref, call)
    tried.update(admission[1:])
    return int.from_bytes(tried.digest(), "big") < 1 << (256 - bits)
