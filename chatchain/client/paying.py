"""How a call of ours gets onto the chain: sent and paid by the account, or signed and paid by the relay's
sponsor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from chatchain.client.ports import ChainWriter
from chatchain.client.session import Session
from chatchain.errors import AccountKeyElsewhere, NoEther
from chatchain.model import Address, Call, Mined

SIGNATURE_LASTS_S: Final = 600
"""How long a signed call may wait at a sponsor."""


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
        self, direct: Call, account_key: Callable[[], bytes], signed: Callable[[], Awaitable[Call]]
    ) -> Paid:
        """Sends `direct` if the account has ether, else has the relay send what `signed` makes; waits until
        mined.
        """
        if await self.has_ether():
            with suppress(NoEther, AccountKeyElsewhere):  # a little, and not enough; or nothing to sign with
                key = account_key()
                return _paid(await asyncio.to_thread(self._writer.send, direct, key), sponsored=False)
        call = await signed()
        session = await self._session()
        return await self.sponsored(session, call)

    async def sponsored(self, session: Session, call: Call) -> Paid:
        """Has the relay pay for a signed call."""
        tx = await session.sponsor(call.contract, call.data)
        return _paid(await asyncio.to_thread(self._writer.wait, tx), sponsored=True)


def _paid(mined: Mined, *, sponsored: bool) -> Paid:
    return Paid("0x" + mined.tx_hash.hex(), mined.block, sponsored)
