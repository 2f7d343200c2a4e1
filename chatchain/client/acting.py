"""Who acts on the chain for the account of this home, and what with: what every such deed needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from chatchain.client.account import Unlocked
from chatchain.client.own import Own
from chatchain.client.paying import Payer
from chatchain.client.ports import Calls, Edges, Store
from chatchain.client.watch import Watch
from chatchain.model import User

if TYPE_CHECKING:
    from chatchain.client.station import Station


@dataclass(frozen=True)
class Acting:
    """This user, this device, and the way to the chain."""

    own: Own
    me: User
    unlocked: Unlocked
    watch: Watch
    edges: Edges
    payer: Payer
    account_key: Callable[[], bytes]

    @classmethod
    async def at(cls, station: Station) -> Self:
        """The user of a home, over a chain that was just looked at."""
        desk = await station.desk()
        me = await desk.people.require(desk.own.uid)
        return cls(
            own=desk.own,
            me=me,
            unlocked=desk.unlocked,
            watch=station.require_watch(),
            edges=station.edges,
            payer=station.payer(me),
            account_key=station.account_key,
        )

    @property
    def store(self) -> Store:
        """The home's database."""
        return self.unlocked.store

    @property
    def calls(self) -> Calls:
        """How the contracts are called."""
        return self.edges.calls

    def now(self) -> float:
        """Seconds since 1970."""
        return self.edges.clock()
