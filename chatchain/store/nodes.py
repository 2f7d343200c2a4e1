"""Several relay processes on one MySQL database: who is there, who follows the chain, what is new.

The database is the only thing that they need to agree through, and nothing here goes by anybody's clock:

- A process is alive while its heartbeat moves, as each other one sees it by its own watch. It also holds a
  named lock, so that one that was killed is missed at once. One that has stopped (frozen, or cut off from
  here) is fenced: the others end its connections to the database, which gives back the locks that it held.
- One process at a time follows the chain. Each of its writes makes sure, inside the same transaction, that
  it still does; one that was thought dead therefore changes nothing when it wakes up.
- Counters say that something is new: messages, logins, rewritten users. Each process remembers how far it
  has looked, and asks only for what lies beyond.

Methods block. Those of the heartbeat have a connection of their own and are for one thread at a time.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, delete, event, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from chatchain.errors import StoreUnavailable
from chatchain.store.database import translated
from chatchain.store.tables import counters, folded, leases, mail, nodes, presence

SILENT: Final = 5.0
"""Seconds without a heartbeat after which a process counts as dead; `relay.nodes` beats once a second."""

TURN_SECONDS: Final = 10
"""How long one process waits for another that is paying."""

_CHAIN: Final = "chain"
_CONNECTIONS: Final = 40
"""Of a process's connections, those whose ids are written down; it has less than ten."""


class LeaseLost(StoreUnavailable):
    """Another process follows the chain by now."""


class Counts(msgspec.Struct, frozen=True):
    """How much there has been so far."""

    sequence: int
    login: int
    fold: int
    looks: int
    head: int


class _Seen(msgspec.Struct):
    beats: int
    since: float


class NodeStore:
    """This process's place among those at work on a database."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        silent: float = SILENT,
    ) -> None:
        self.id = secrets.token_bytes(16)
        self._engine = engine
        self._name = name[:128]
        self._clock = clock
        self._silent = silent
        self._pulse: Connection | None = None
        self._peers: dict[bytes, _Seen] = {}
        self._connections: set[int] = set()
        self._terms = 0  # how often this process took up following the chain
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "close", self._disconnected)

    # --- being there ---

    def beat(self) -> int:
        """Shows that this process lives and buries those that do not; gives how many others there are.

        Raises StoreUnavailable.
        """
        try:
            with translated():
                return self._beat(self._pulse or self._join())
        except StoreUnavailable:
            self._peers.clear()  # who cannot see the others must not judge them
            self._drop_pulse()
            raise

    def leave(self) -> None:
        """Is gone, and says so."""
        with contextlib.suppress(SQLAlchemyError, OSError), self._engine.begin() as connection:
            self._bury(connection, self.id)
        self._drop_pulse()

    def _join(self) -> Connection:
        # Not from the pool's point of view: a connection that comes back would keep the lock.
        connection = self._engine.connect()
        connection.detach()
        taken = connection.execute(text("SELECT GET_LOCK(:lock, 0)"), {"lock": _lock_of(self.id)}).scalar()
        if taken != 1:  # the connection before this one has not ended yet for the server
            connection.close()
            raise StoreUnavailable("The relay's place among the others is not free yet.")
        connection.commit()
        self._pulse = connection
        return connection

    def _drop_pulse(self) -> None:
        if self._pulse is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                self._pulse.close()
            self._pulse = None

    def _beat(self, connection: Connection) -> int:
        with connection.begin():
            own = {
                "id": self.id,
                "name": self._name,
                "connections": self._listed(),
            }
            connection.execute(
                text(
                    "INSERT INTO nodes (id, name, beats, connections) VALUES (:id, :name, 1, :connections) "
                    "ON DUPLICATE KEY UPDATE beats = beats + 1, connections = :connections"
                ),
                own,
            )
        with connection.begin():
            free = func.IS_FREE_LOCK(func.concat(_LOCK, func.lower(func.hex(nodes.c.id))))
            rows = connection.execute(
                select(nodes.c.id, nodes.c.beats, nodes.c.connections, free.label("free")).where(
                    nodes.c.id != self.id
                )
            ).all()
            dead = [row for row in rows if row.free == 1 or self._has_stopped(bytes(row.id), row.beats)]
            for row in dead:
                self._fence(connection, row.connections)
                self._bury(connection, bytes(row.id))
        return len(rows) - len(dead)

    def _has_stopped(self, peer: bytes, beats: int) -> bool:
        now = self._clock()
        seen = self._peers.get(peer)
        if seen is None or seen.beats != beats:
            self._peers[peer] = _Seen(beats, now)
            return False
        return now - seen.since > self._silent

    def _fence(self, connection: Connection, ids: str) -> None:
        """Ends a process's connections, which a user of the database may do to its own."""
        for word in ids.split():
            if word.isdecimal() and int(word) not in self._connections:
                with contextlib.suppress(SQLAlchemyError), connection.begin_nested():
                    connection.exec_driver_sql(f"KILL {int(word)}")

    def _bury(self, connection: Connection, peer: bytes) -> None:
        self._peers.pop(peer, None)
        connection.execute(delete(nodes).where(nodes.c.id == peer))
        connection.execute(update(leases).where(leases.c.holder == peer).values(holder=b""))

    def _listed(self) -> str:
        return " ".join(map(str, sorted(self._connections)[-_CONNECTIONS:]))

    def _connected(self, connection: Any, _record: object) -> None:
        """A connection is listed before it is used: if this process freezes, the others know it is to end."""
        self._connections.add(connection.thread_id())
        connection.autocommit(True)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE nodes SET connections = %s WHERE id = %s", (self._listed(), self.id))
        connection.autocommit(False)

    def _disconnected(self, connection: Any, _record: object) -> None:
        with contextlib.suppress(Exception):  # whatever is left of it
            self._connections.discard(connection.thread_id())

    # --- following the chain for all ---

    def lead(self) -> int:
        """For the how-many-eth time this process follows the chain, which it takes up if nobody who lives
        does; 0 when another follows it.
        """
        with translated(), self._engine.begin() as connection:
            query = (
                select(leases.c.holder, nodes.c.id)
                .join_from(leases, nodes, nodes.c.id == leases.c.holder, isouter=True)
                .where(leases.c.name == _CHAIN)
            )
            row = connection.execute(query).one()
            if bytes(row.holder) == self.id:
                return self._terms
            if row.id is not None:
                return 0
            free = update(leases).where(leases.c.name == _CHAIN, leases.c.holder == row.holder)
            if connection.execute(free.values(holder=self.id)).rowcount != 1:
                return 0
            self._terms += 1
            return self._terms

    def looked(self, head: int) -> None:
        """Tells the others that the chain was looked at; raises LeaseLost."""
        with translated(), self._engine.begin() as connection:
            self.guard(connection)
            connection.execute(
                update(counters).where(counters.c.name == "looks").values(value=counters.c.value + 1)
            )
            connection.execute(update(counters).where(counters.c.name == "head").values(value=head))

    def give_up(self) -> None:
        """Lets another process follow the chain, because this one cannot."""
        mine = update(leases).where(leases.c.name == _CHAIN, leases.c.holder == self.id)
        with translated(), self._engine.begin() as connection:
            connection.execute(mine.values(holder=b""))

    def guard(self, connection: Connection) -> None:
        """Within a transaction: nobody else follows the chain until it ends; raises LeaseLost."""
        query = select(leases.c.holder).where(leases.c.name == _CHAIN).with_for_update()
        if connection.execute(query).scalar() != self.id:
            raise LeaseLost("Another relay process follows the chain.")

    def tell(self, connection: Connection, uids: Sequence[int]) -> None:
        """Within a transaction that rewrites users (0: the members): has every process notice."""
        number = _draw(connection, "fold", 1)
        for start in range(0, len(uids), 500):
            some = uids[start : start + 500]
            connection.execute(delete(folded).where(folded.c.uid.in_(some)))
            connection.execute(insert(folded), [{"uid": uid, "number": number} for uid in some])

    # --- what is new ---

    def counts(self) -> Counts:
        """How far everything has come."""
        with translated(), self._engine.connect() as connection:
            found = {row.name: row.value for row in connection.execute(select(counters))}
        return Counts(**{name: found.get(name, 0) for name in Counts.__struct_fields__})

    def stored(self, after: int, to: int) -> list[tuple[int, int, int]]:
        """Devices for which something with a sequence in (after, to] waits: uid, device, the last one."""
        query = (
            select(mail.c.uid, mail.c.device, func.max(mail.c.last))
            .where(mail.c.last > after, mail.c.last <= to)
            .group_by(mail.c.uid, mail.c.device)
        )
        with translated(), self._engine.connect() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]

    def logins(self, after: int) -> list[tuple[int, int]]:
        """Devices that have logged in through other processes since a login."""
        query = select(presence.c.uid, presence.c.device).where(
            presence.c.number > after, presence.c.node != self.id
        )
        with translated(), self._engine.connect() as connection:
            return [(row.uid, row.device) for row in connection.execute(query)]

    def folded(self, after: int) -> list[int]:
        """Users that were rewritten since then (0: the members)."""
        with translated(), self._engine.connect() as connection:
            return list(connection.execute(select(folded.c.uid).where(folded.c.number > after)).scalars())

    def announce(self, devices: Sequence[tuple[int, int]]) -> None:
        """Tells the others that these devices are logged in here now."""
        if not devices:
            return
        with translated(), self._engine.begin() as connection:
            number = _draw(connection, "login", 1)
            connection.execute(
                text(
                    "INSERT INTO presence (uid, device, node, number) VALUES (:uid, :device, :node, :number) "
                    "ON DUPLICATE KEY UPDATE node = VALUES(node), number = VALUES(number)"
                ),
                [
                    {"uid": uid, "device": device, "node": self.id, "number": number}
                    for uid, device in sorted(set(devices))
                ],
            )

    # --- taking turns ---

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Does something that one process at a time may do; raises StoreUnavailable after a while."""
        lock = f"chatchain_{name}_{self._engine.url.database}"[:64]
        with translated(), self._engine.connect() as connection:
            taken = connection.execute(
                text("SELECT GET_LOCK(:lock, :s)"), {"lock": lock, "s": TURN_SECONDS}
            ).scalar()
            if taken != 1:
                raise StoreUnavailable("Another relay process takes too long.", "Try again in a moment.")
            try:
                yield
            finally:
                connection.execute(text("SELECT RELEASE_LOCK(:lock)"), {"lock": lock})


_LOCK: Final = "chatchain_node_"


def _lock_of(id: bytes) -> str:
    return _LOCK + id.hex()


def _draw(connection: Connection, name: str, count: int) -> int:
    """Takes so many numbers of a counter, whose row stays locked until the transaction ends."""
    query = text("UPDATE counters SET value = LAST_INSERT_ID(value + :n) WHERE name = :name")
    connection.execute(query, {"n": count, "name": name})
    return int(connection.execute(text("SELECT LAST_INSERT_ID()")).scalar_one())
