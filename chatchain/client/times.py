"""How times are told: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def time_text(time_ms: int) -> str:
    """RFC 3339 in UTC; an impossible time (the sender's word) shows as the nearest possible one."""
    clamped = min(max(time_ms, 0), 253_402_300_799_999)
    return (
        datetime.fromtimestamp(clamped / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def second_text(time: int) -> str:
    """RFC 3339 in UTC, to the second: how block times and deadlines are told."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
