"""How things look to a person: the views of messages, contacts and errors."""

from __future__ import annotations

from datetime import UTC, datetime

from chatchain.client.contacts import changes
from chatchain.client.views import (
    ContactView,
    Problem,
)
from chatchain.crypto.safety import safety_number, spaced
from chatchain.errors import (
    ChatchainError,
    UsageError,
)
from chatchain.identity.keys import to_checksum
from chatchain.model import (
    Contact,
    User,
)


def contact_view(me: User, user: User, contact: Contact) -> ContactView:
    changed = changes(contact.pin, user) if contact.pin is not None else []
    return ContactView(
        username=user.username,
        uid=user.uid,
        account=to_checksum(user.account),
        fingerprint=spaced(safety_number(me, user)),
        verified=contact.pin is not None and not changed,
        changed="; ".join(changed) or None,
    )


def problem_of(error: ChatchainError) -> Problem:
    return Problem(error.code, error.message, error.hint)


def time_text(time_ms: int) -> str:
    """RFC 3339 in UTC; an impossible time (the sender's word) shows as the nearest possible one."""
    clamped = min(max(time_ms, 0), 253_402_300_799_999)
    return (
        datetime.fromtimestamp(clamped / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def message_id(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise UsageError(f"{text[:64]!r} is not the id of a message: 32 hex digits.")
    return raw
