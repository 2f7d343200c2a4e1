"""The time after which messages disappear, as a person writes it."""

from __future__ import annotations

import re
from typing import Final

from chatchain.errors import UsageError

OFF: Final = ("off", "never", "0")
_TIME: Final = re.compile(r"([1-9][0-9]{0,8})\s*(s|m|h|d|w)?")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, None: 1}


def timer_seconds(text: str) -> int:
    """A time as a person writes it, in seconds; raises UsageError."""
    typed = text.strip().lower()
    if typed in OFF:
        return 0
    match = _TIME.fullmatch(typed)
    if match is None:
        raise UsageError(
            f"{text!r} is no time after which messages disappear.",
            "Write a whole number with s, m, h, d or w behind it, such as 1d; or off.",
        )
    return int(match[1]) * _SECONDS[match[2]]
