"""What the relay's sponsor must not forget when it is started again. Every method blocks."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from chatchain.errors import StoreUnavailable
from chatchain.store.database import translated
from chatchain.store.tables import invitations
from chatchain.store.tables import sponsor_spending as spending

_LOCK = 0
"""The slice whose row keeps others from booking; no spending is that old."""


class SponsorJournal:
    """Satisfies `relay.spending.Journal`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(writes=True)

    def book(self, slice_: int, hour: int, day: int, judge: Callable[[int, int, int, int], int]) -> None:
        """Adds the gwei that `judge` gives for what was spent till now; one books at a time."""
        with translated(), self._engine.begin() as connection:
            connection.execute(select(spending).where(spending.c.slice == _LOCK).with_for_update())
            sums = select(func.coalesce(func.sum(spending.c.gwei), 0), func.min(spending.c.slice))
            (in_hour, first_of_hour), (in_day, first_of_day) = (
                connection.execute(sums.where(spending.c.slice > slice_ - window, spending.c.gwei > 0)).one()
                for window in (hour, day)
            )
            gwei = judge(int(in_hour), int(in_day), first_of_hour or slice_, first_of_day or slice_)
            if not gwei:
                return
            here = spending.c.slice == slice_
            added = connection.execute(update(spending).where(here).values(gwei=spending.c.gwei + gwei))
            if not added.rowcount:
                connection.execute(insert(spending).values(slice=slice_, gwei=gwei))
                old = (spending.c.slice > _LOCK, spending.c.slice <= slice_ - day)
                connection.execute(delete(spending).where(*old))

    def give_back(self, slice_: int, gwei: int) -> None:
        """Takes so much off a slice that is still kept."""
        with translated(), self._engine.begin() as connection:
            here = spending.c.slice == slice_
            connection.execute(update(spending).where(here).values(gwei=spending.c.gwei - gwei))


class SpentInvitations:
    """Satisfies `relay.newcomers.Spent`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(writes=True)

    def spend(self, id: bytes, expires: int, account: bytes, now: int) -> bytes | None:
        """Notes that this account uses an invitation; gives the account that has used it before, if any."""
        with translated(), self._engine.begin() as connection:
            connection.execute(delete(invitations).where(invitations.c.expires <= now))
        try:
            with translated(), self._engine.begin() as connection:
                values = {"id": id, "account": account, "expires": expires}
                connection.execute(insert(invitations).values(values))
                return None
        except StoreUnavailable as failure:
            if not isinstance(failure.__cause__, IntegrityError):
                raise
        with translated(), self._engine.connect() as connection:
            user = connection.execute(select(invitations.c.account).where(invitations.c.id == id)).scalar()
            return None if user is None else bytes(user)

    def restore(self, id: bytes, account: bytes) -> None:
        """Makes an invitation good again, as nothing came of its use."""
        with translated(), self._engine.begin() as connection:
            same = (invitations.c.id == id, invitations.c.account == account)
            connection.execute(delete(invitations).where(*same))
