"""What a sender was told to send again comes before anything else of his. Pure: the clock is an argument.

A client has many messages under way. When one of them is refused for now, those behind it would overtake it:
the relay sees more of the chain a moment later, a smaller one fits into a mailbox, a slow line delivers them
when a limit lets more pass. So they are refused, too, for as long as they may have been sent in ignorance:
the first of them that comes again shows that the client has heard, and bytes keep their order on a
connection. A client that never repeats anything loses nothing by it: its next message is refused once, and
passes when it comes again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chatchain.wire.messages import Refused

MOST: Final = 2_000
"""Ids that are remembered: the earliest, which come again first."""

IN_IGNORANCE: Final = 60.0
"""Seconds after which nothing can be under way any more that was sent before the refusal was heard."""

ASK_AGAIN_MS: Final = 100
"""When to repeat what was refused only for the sake of order, at the earliest."""

EVERYBODY: Final = 0
"""Stands for all recipients: what was refused had nothing to do with any of them."""


class _Owed(msgspec.Struct):
    """What was refused, and why."""

    code: str
    sentence: str
    again_at: float
    forgotten_at: float
    ids: dict[bytes, None]


class Order:
    """The order of one connection's messages to each recipient."""

    __slots__ = ("owed",)

    def __init__(self) -> None:
        self.owed: dict[int, _Owed] = {}
        """By recipient; empty nearly always."""

    def came(self, id: bytes) -> None:
        """A message has come: if it was refused before, its sender knows."""
        for recipient in [recipient for recipient, owed in self.owed.items() if id in owed.ids]:
            del self.owed[recipient]

    def refused(self, recipient: int, refusal: Refused, now: float) -> None:
        """A message was refused, to be sent again."""
        again_at = now + refusal.retry_after_ms / 1000
        owed = self.owed.get(recipient)
        if owed is None:
            owed = self.owed[recipient] = _Owed(
                refusal.code, refusal.message, again_at, max(again_at, now + IN_IGNORANCE), {}
            )
        owed.again_at = max(owed.again_at, again_at)
        if len(owed.ids) < MOST:
            owed.ids[refusal.id] = None

    def overtakes(self, recipient: int, id: bytes, now: float) -> Refused | None:
        """Why a message is not taken now that would overtake another; None if it overtakes none."""
        for key in (EVERYBODY, recipient):
            owed = self.owed.get(key)
            if owed is None:
                continue
            if now >= owed.forgotten_at:
                del self.owed[key]
                continue
            wait = max(ASK_AGAIN_MS, int((owed.again_at - now) * 1000) + 1)
            refusal = Refused(id, owed.code, owed.sentence, wait)
            if len(owed.ids) < MOST:
                owed.ids[id] = None
            return refusal
        return None
