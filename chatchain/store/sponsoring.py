"""What the relay's sponsor must not forget when it is started again. Every method blocks."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from chatchain.errors import StoreUnavailable
from chatchain.model import Booked, Note
from chatchain.store.database import translated
from chatchain.store.tables import invitations, nodes
from chatchain.store.tables import sponsor_bookings as bookings
from chatchain.store.tables import sponsor_spending as spending

_LOCK = 0
"""The slice whose row keeps others from booking; no spending is that old."""


Judge = Callable[[int, int, int, int], list[Booked]]
"""Of `relay.spending`."""


class SponsorJournal:
    """Satisfies `relay.spending.Journal`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(writes=True)
        self.owner = secrets.token_bytes(16)
        """This process; where there are others, its place among them (store.nodes)."""
        self.shared = False

    def book(self, slice_: int, hour: int, day: int, judge: Judge) -> None:
        """Books what `judge` gives for what was spent till now; one books at a time."""
        with translated(), self._engine.begin() as connection:
            _lock(connection)
            sums = select(func.coalesce(func.sum(spending.c.gwei), 0), func.min(spending.c.slice))
            (in_hour, first_of_hour), (in_day, first_of_day) = (
                connection.execute(sums.where(spending.c.slice > slice_ - window, spending.c.gwei > 0)).one()
                for window in (hour, day)
            )
            made = judge(int(in_hour), int(in_day), first_of_hour or slice_, first_of_day or slice_)
            if not made:
                return
            rows = [
                {"id": id_, "owner": self.owner, "slice": at, "gwei": gwei, "more": b"", "sent": b""}
                for at, gwei, id_ in made
            ]
            connection.execute(insert(bookings), rows)
            gwei = sum(row[1] for row in made)
            here = spending.c.slice == slice_
            added = connection.execute(update(spending).where(here).values(gwei=spending.c.gwei + gwei))
            if not added.rowcount:
                connection.execute(insert(spending).values(slice=slice_, gwei=gwei))
                old = (spending.c.slice > _LOCK, spending.c.slice <= slice_ - day)
                connection.execute(delete(spending).where(*old))
                connection.execute(delete(bookings).where(bookings.c.slice <= slice_ - day))

    def keep(self, notes: Sequence[Note]) -> None:
        """Writes down what is about to be sent, under the first of what was booked for it; raises
        StoreUnavailable, and writes nothing, if one of these is not this process's any more.
        """
        rows: list[dict[str, Any]] = []
        absorbed: list[bytes] = []
        for (first, *others), sent in notes:
            more = _ENCODER.encode([(slice_, gwei) for slice_, gwei, _ in others])
            slice_, gwei, id_ = first
            rows.append(
                {"id": id_, "owner": self.owner, "slice": slice_, "gwei": gwei, "more": more, "sent": sent}
            )
            absorbed += [other.id for other in others if other.id]
        with translated(), self._engine.begin() as connection:
            _lock(connection)
            mine = bookings.c.owner == self.owner
            found = 0
            for some in _portions([row["id"] for row in rows]):
                found += connection.execute(delete(bookings).where(bookings.c.id.in_(some), mine)).rowcount
            if found < len(rows):
                raise StoreUnavailable("Another process of this relay has taken the payment over.")
            connection.execute(insert(bookings), rows)
            for some in _portions(absorbed):
                connection.execute(delete(bookings).where(bookings.c.id.in_(some), mine))

    def settle(self, bills: Sequence[tuple[Sequence[Booked], int]]) -> None:
        """Takes off what was booked for each transaction all but so much, and forgets it; what is forgotten
        changes nothing.
        """
        names = [[one.id for one in booked if one.id] for booked, _ in bills]
        every = [id_ for some in names for id_ in some]
        back: Counter[int] = Counter()
        with translated(), self._engine.begin() as connection:
            _lock(connection)
            found = {
                bytes(row.id): row
                for some in _portions(every)
                for row in connection.execute(select(bookings).where(bookings.c.id.in_(some)))
            }
            for own, (_, gwei) in zip(names, bills, strict=True):
                left = gwei if own[0] in found else 0  # else what was spent is settled already
                for row in (found.pop(id_) for id_ in own if id_ in found):
                    own_sum = Booked(row.slice, row.gwei, bytes(row.id))
                    for one in (own_sum, *_more(bytes(row.more))):
                        spent = min(left, one.gwei)
                        left -= spent
                        back[one.slice] += one.gwei - spent
            for slice_, gwei in back.items():
                place = spending.c.slice == slice_
                connection.execute(update(spending).where(place).values(gwei=spending.c.gwei - gwei))
            for some in _portions(every):
                connection.execute(delete(bookings).where(bookings.c.id.in_(some)))

    def left(self) -> list[Note]:
        """What processes that are gone had booked, which is this one's from now on: sums by themselves, and
        transactions with all of theirs.
        """
        orphaned = bookings.c.owner != self.owner
        if self.shared:
            orphaned = and_(orphaned, bookings.c.owner.not_in(select(nodes.c.id)))
        with translated(), self._engine.connect() as connection:
            if not connection.execute(select(bookings.c.id).where(orphaned).limit(1)).first():
                return []
        with translated(), self._engine.begin() as connection:
            _lock(connection)
            rows = connection.execute(select(bookings).where(orphaned)).all()
            for some in _portions([bytes(row.id) for row in rows]):
                mine = update(bookings).where(bookings.c.id.in_(some)).values(owner=self.owner)
                connection.execute(mine)
        return [
            Note((Booked(row.slice, row.gwei, bytes(row.id)), *_more(bytes(row.more))), bytes(row.sent))
            for row in rows
        ]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[tuple[int, int]])


def _more(kept: bytes) -> list[Booked]:
    """Sums that have no name of their own any more."""
    return [Booked(slice_, gwei, b"") for slice_, gwei in _DECODER.decode(kept)] if kept else []


def _lock(connection: Connection) -> None:
    """Keeps others from booking and settling until the transaction ends."""
    connection.execute(select(spending).where(spending.c.slice == _LOCK).with_for_update())


def _portions(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(names), 500):
        yield names[start : start + 500]


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
