"""How a call of ours gets onto the chain: sent and paid by the account, or signed and paid by the relay's
sponsor.

A sponsor may send several calls in one transaction, and may replace a transaction that waits too long. So
while it waits the payer asks the sponsor again, which tells the transaction's present hash, and it calls
something done only when the chain shows it. The other way round it looks at the chain before it calls
something failed: whoever saw a signature may have sent it first, and then what was wanted is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from chatchain.client.ports import ChainWriter
from chatchain.client.session import Session
from chatchain.errors import (
    AccountKeyElsewhere,
    AlreadyVoted,
    ChainError,
    ChainUnreachable,
    InvitationRefused,
    LimitReached,
    NoEther,
    RefusedError,
    RelayUnreachable,
    TransactionPending,
    VerificationError,
)
from chatchain.identity.admission import INVITED_ONLY, Invitation
from chatchain.model import Address, Call, Mined

SIGNATURE_LASTS_S: Final = 600
"""How long a signed call may wait at a sponsor."""

WAIT_S: Final = 30.0
"""How long a transaction may wait to be mined before it is reported as pending."""

TURN_S: Final = 90.0
"""How long a sponsor that is busy, or that commits to a name first, is asked again."""

SOON_MS: Final = 10_000
"""A sponsor that names a longer delay has reached a limit, and no one waits for it here."""

ASK_AGAIN_S: Final = 5.0
"""How often a sponsor is asked what became of a transaction that is not mined."""

PASSED_OVER_S: Final = 10.0
"""How long a mined transaction may take to show what was wanted, or the sponsor to say why it does not."""

NOT_ASKED: Final = (
    "Nothing was changed on the chain: the relay pays for that, and could not be asked. Run the command "
    "again once it answers."
)

_POLL_S: Final = (0.05, 1.0)

Shown = Callable[[], Awaitable[int | None]]
"""Looks at the chain anew; gives the block since which it shows what a call is for, or None."""


@dataclass(frozen=True)
class Paid:
    """A call that was mined."""

    tx: str
    block: int
    sponsored: bool


class Payer:
    """Carries calls out for one account."""

    def __init__(
        self, writer: ChainWriter, account: Address, session: Callable[[], Awaitable[Session]]
    ) -> None:
        self._writer = writer
        self._account = account
        self._session = session

    async def has_ether(self) -> bool:
        """Whether the account pays for itself."""
        return await asyncio.to_thread(self._writer.balance, self._account) > 0

    async def carry_out(
        self,
        direct: Call,
        account_key: Callable[[], bytes],
        signed: Callable[[], Awaitable[Call]],
        shown: Shown | None = None,
        *,
        may_be_passed_over: bool = False,
    ) -> Paid:
        """Sends `direct` if the account has ether, else has the relay send what `signed` makes; waits until
        mined.

        With `shown` a refusal is none if the chain shows what was wanted all the same; a call that may be
        passed over in a batch, as votes are, is asked for again until it does.
        """
        again = shown if may_be_passed_over else None
        return await self._unless_shown(shown, self._either(direct, account_key, signed, again))

    async def register(
        self,
        direct: Callable[[], Awaitable[Mined]],
        signed: Callable[[], Awaitable[Call]],
        shown: Shown,
        invitation: Invitation | None,
    ) -> Paid:
        """As `carry_out` for a newcomer, with its work or invitation; `direct` sends from its own account."""

        async def either() -> Paid:
            if await self.has_ether():
                with suppress(NoEther):
                    return _paid(await direct(), sponsored=False)
            call = await signed()

            async def ask(session: Session) -> bytes:
                try:
                    return await session.sponsor_newcomer(call, invitation)
                except InvitationRefused:
                    if session.link.challenge.work == INVITED_ONLY:
                        raise
                    return await session.sponsor_newcomer(call)

            return await self._sponsored(ask, None)

        return await self._unless_shown(shown, either())

    async def _either(
        self,
        direct: Call,
        account_key: Callable[[], bytes],
        signed: Callable[[], Awaitable[Call]],
        shown: Shown | None,
    ) -> Paid:
        if await self.has_ether():
            with suppress(NoEther, AccountKeyElsewhere):  # a little, and not enough; or nothing to sign with
                key = account_key()
                return _paid(await asyncio.to_thread(self._writer.send, direct, key), sponsored=False)
        call = await signed()
        return await self._sponsored(lambda session: session.sponsor(call), shown)

    async def _unless_shown(self, shown: Shown | None, work: Awaitable[Paid]) -> Paid:
        """What the work gives; when it is refused, the chain is looked at first."""
        try:
            return await work
        except (TransactionPending, ChainUnreachable, LimitReached, AlreadyVoted):
            raise  # who has voted may have voted otherwise
        except (ChainError, RefusedError, VerificationError):
            block = await shown() if shown is not None else None
            if block is None:
                raise
            return Paid("", block, sponsored=False)

    async def _sponsored(self, ask: Callable[[Session], Awaitable[bytes]], shown: Shown | None) -> Paid:
        """Has the relay pay, and follows the transaction; with `shown` until the chain shows its effect."""
        try:
            first = await self._patiently(ask)
        except RelayUnreachable as away:
            raise RelayUnreachable(away.message, NOT_ASKED) from away
        mined, tx = await self._mined(ask, first)
        deadline = time.monotonic() + PASSED_OVER_S
        while shown is not None and await shown() is None and time.monotonic() < deadline:
            await asyncio.sleep(PASSED_OVER_S / 3)
            again = await self._patiently(ask)
            if again != tx:
                mined, tx = await self._mined(ask, again)
        return _paid(mined, sponsored=True)

    async def _patiently(self, ask: Callable[[Session], Awaitable[bytes]]) -> bytes:
        """Asks until the sponsor has time; raises its refusal."""
        deadline = time.monotonic() + TURN_S
        while True:
            try:
                return await ask(await self._session())
            except LimitReached as later:
                if not 0 < later.retry_after_ms <= SOON_MS or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(later.retry_after_ms / 1000)

    async def _mined(self, ask: Callable[[Session], Awaitable[bytes]], tx: bytes) -> tuple[Mined, bytes]:
        """Waits until the transaction, or another in its place, is mined."""
        now = time.monotonic()
        deadline, asked, pause = now + WAIT_S, now, _POLL_S[0]
        while True:
            mined = await asyncio.to_thread(self._writer.look, tx)
            if mined is not None:
                return mined, tx
            now = time.monotonic()
            if now >= deadline:
                raise TransactionPending(f"The transaction 0x{tx.hex()} is not mined after {WAIT_S:.0f} s.")
            if now >= asked + ASK_AGAIN_S:
                tx, asked = await self._patiently(ask), now
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _POLL_S[1])


def _paid(mined: Mined, *, sponsored: bool) -> Paid:
    return Paid("0x" + mined.tx_hash.hex(), mined.block, sponsored)
