"""Group commit: one thread turns whatever waits into one multi-row insert and one commit.

What `keep` was given is told back in batches, after the commit and never before. Sequences are drawn from a
counter row inside the same transaction, so they are committed in their own order, also when several
processes write to one database. Numbers that this process has not drawn show that others have: for whom they
wrote is told ("others") before anything of a higher number is. The row's lock is what a transaction that lost
its connection in mid-commit must give back before the next one goes on. After a failure the writer therefore
first gets a transaction through ("settled"), and only then may anybody trust that a read shows all that was
committed.
While the database is away, what comes is told back as failed at once: nothing piles up.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Literal, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, Table, delete, select, text, update
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)

from chatchain.errors import StoreUnavailable
from chatchain.model import Envelope
from chatchain.store.nodes import stored_between
from chatchain.store.tables import accepted, counters, mailbox

BATCH_ITEMS: Final = 2_000
BATCH_BYTES: Final = 8 * 1024 * 1024
"""A commit takes no more than this, so that a flood delays others by one commit only."""

RETRY_FIRST: Final = 0.1
RETRY_LAST: Final = 2.0
"""Seconds between attempts to reach a database that is away."""

IDLE: Final = 30.0
"""Seconds after which the connection is no longer taken for granted."""

_log = logging.getLogger(__name__)

_TRANSIENT: Final = frozenset({1205, 1213})
"""MySQL's lock wait timeout and deadlock: the statement was rolled back and may be tried again."""

Verdict = Literal["stored", "duplicate", "conflict", "failed"]
Kept = tuple[object, Verdict, Sequence[int]]
"""What became of one envelope: its token, the verdict, and when stored the sequence of each copy in order."""

T = TypeVar("T")


class Listener(msgspec.Struct, frozen=True):
    """Whom the writer tells, from its own thread."""

    kept: Callable[[list[Kept]], None]
    failed: Callable[[], None]
    settled: Callable[[], None]
    others: Callable[[list[tuple[int, int, int]]], None] = lambda _: None
    """Devices for which other processes have stored something: uid, device, the last sequence."""


_Key = tuple[int, int, bytes]
"""What makes an envelope one and the same: sender, sender's device, message id."""


class _Keep(msgspec.Struct):
    token: object
    sender: int
    device: int
    envelope: Envelope
    digest: bytes
    received_ms: int

    @property
    def key(self) -> _Key:
        return self.sender, self.device, self.envelope.id

    @property
    def weight(self) -> int:
        copies = self.envelope.copies
        return len(self.envelope.body) * len(copies) + sum(len(copy.header) for copy in copies)


class _Remove(msgspec.Struct):
    sequences: Sequence[int]


class _Run(msgspec.Struct):
    work: Callable[[Connection], Any]
    future: Future[Any]


class _Stop(msgspec.Struct):
    pass


_Job = _Keep | _Remove | _Run | _Stop


class _Statements:
    """The two hot statements as the driver takes them: rows pass as tuples, not through SQLAlchemy one by
    one.
    """

    def __init__(self, engine: Engine) -> None:
        self.mysql = engine.dialect.name in ("mysql", "mariadb")
        mark = "%s" if self.mysql else "?"
        quote = engine.dialect.identifier_preparer.quote
        self.accepted = _insert(accepted, mark, quote)
        self.mailbox = _insert(mailbox, mark, quote)


def _insert(table: Table, mark: str, quote: Callable[[str], str]) -> str:
    names = ", ".join(quote(column.name) for column in table.columns)
    return f"INSERT INTO {quote(table.name)} ({names}) VALUES ({', '.join([mark] * len(table.columns))})"  # noqa: S608


class Writer:
    """The one writing thread of a relay process."""

    def __init__(self, engine: Engine, listener: Listener) -> None:
        self._engine = engine
        self._listener = listener
        self._statements = _Statements(engine)
        self._queue: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._retry_at = 0.0
        self._backoff = 0.0  # more than 0: the database is away
        self._used_at = 0.0
        self.frontier: int | None = None
        """Up to which sequence it is known for whom others have written; None: there are no others."""
        self._drawn = (0, 0)  # the last transaction's numbers: above the first, up to the second
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)
        self._thread.start()

    def keep(
        self, token: object, sender: int, device: int, envelope: Envelope, digest: bytes, received_ms: int
    ) -> None:
        """Stores an envelope for every device that it names; the listener hears of it under `token`."""
        self._queue.put(_Keep(token, sender, device, envelope, digest, received_ms))

    def remove(self, sequences: Sequence[int]) -> None:
        """Deletes acknowledged rows; should that fail they are delivered once more, which is allowed."""
        self._queue.put(_Remove(sequences))

    def run(self, work: Callable[[Connection], T]) -> Future[T]:
        """Does something in a transaction of its own; the future raises StoreUnavailable when it cannot."""
        future: Future[T] = Future()
        self._queue.put(_Run(work, future))
        return future

    def stop(self, timeout: float = 10.0) -> None:
        """Finishes what waits and ends the thread."""
        self._queue.put(_Stop())
        self._thread.join(timeout)

    # --- the thread ---

    def _loop(self) -> None:
        stopping = False
        while not stopping:
            jobs = self._waiting()
            stopping = any(isinstance(job, _Stop) for job in jobs)
            if self._backoff and time.monotonic() >= self._retry_at:
                self._settle()
            if self._backoff:
                self._turn_away(jobs)
            else:
                self._serve(jobs)
        if self._connection is not None:
            self._connection.close()

    def _waiting(self) -> list[_Job]:
        """Everything that waits, up to a batch; blocks for the first (while the database is away, not for
        long).
        """
        jobs: list[_Job] = []
        items = weight = 0
        with contextlib.suppress(queue.Empty):
            jobs.append(self._queue.get(timeout=self._backoff or None))
            while items < BATCH_ITEMS and weight < BATCH_BYTES and not isinstance(jobs[-1], _Stop):
                job = jobs[-1]
                if isinstance(job, _Keep):
                    items += len(job.envelope.copies)
                    weight += job.weight
                jobs.append(self._queue.get_nowait())
        return jobs

    def _serve(self, jobs: list[_Job]) -> None:
        keeps = [job for job in jobs if isinstance(job, _Keep)]
        removes = [sequence for job in jobs if isinstance(job, _Remove) for sequence in job.sequences]
        if keeps or removes:
            self._commit(keeps, removes)
        for job in jobs:
            if isinstance(job, _Run):
                self._run(job)

    def _turn_away(self, jobs: list[_Job]) -> None:
        failed: list[Kept] = [(job.token, "failed", ()) for job in jobs if isinstance(job, _Keep)]
        if failed:
            self._listener.kept(failed)
        for job in jobs:
            if isinstance(job, _Run) and job.future.set_running_or_notify_cancel():
                job.future.set_exception(StoreUnavailable("The relay's database does not answer."))

    def _commit(self, keeps: list[_Keep], removes: list[int]) -> None:
        try:
            told = self._stored(keeps, removes)
        except Exception as error:  # whatever the driver makes of a row: the thread must live
            if isinstance(error, SQLAlchemyError) and _is_away(error):
                self._lost()
                self._turn_away(list(keeps))
                return
            self._disconnect()
            # The database is there and refuses: find the one that it refuses, the others are not to suffer.
            if len(keeps) > 1 or (keeps and removes):
                for keep in keeps:
                    self._commit([keep], [])
                if removes:
                    self._commit([], removes)
                return
            _log.exception("the database refuses a row")
            told = [(keep.token, "failed", ()) for keep in keeps]
        if keeps:
            self._look_around()
        if told:
            self._listener.kept(told)

    def _look_around(self) -> None:
        """Finds out for whom others have written below the numbers that were just committed."""
        if self.frontier is None:
            return
        first, last = self._drawn
        if first > self.frontier:
            try:
                found = self._attempt(
                    lambda connection: stored_between(connection, self.frontier or 0, first)
                )
            except SQLAlchemyError:
                self._lost()  # all must read, which finds it too
                return
            if found:
                self._listener.others(found)
        self.frontier = max(self.frontier, last)

    def _stored(self, keeps: list[_Keep], removes: list[int]) -> list[Kept]:
        """Repeated envelopes are rare: they are looked for only when the insert meets one."""
        for look in (False, True, True):
            try:
                return self._attempt(lambda connection: self._write(connection, keeps, removes, look=look))  # noqa: B023
            except IntegrityError:
                if not keeps:
                    raise
        return self._attempt(lambda connection: self._write(connection, keeps, removes, look=True))

    def _run(self, job: _Run) -> None:
        if not job.future.set_running_or_notify_cancel():
            return  # whoever asked has gone
        if self._backoff:
            job.future.set_exception(StoreUnavailable("The relay's database does not answer."))
            return
        try:
            job.future.set_result(self._attempt(job.work))
        except SQLAlchemyError as error:
            if _is_away(error):
                self._lost()
            self._disconnect()
            failure = StoreUnavailable("The relay's database did not carry this out.")
            failure.__cause__ = error
            job.future.set_exception(failure)
        except Exception as error:  # the work's own: its caller's business
            self._disconnect()
            job.future.set_exception(error)

    def _attempt(self, work: Callable[[Connection], T]) -> T:
        """One transaction; a deadlock or lock timeout is tried again a few times."""
        for patience in (2, 1, 0):
            connection = self._connected()
            try:
                with connection.begin():
                    return work(connection)
            except DBAPIError as error:
                if not patience or _number(error) not in _TRANSIENT:
                    raise
        raise AssertionError("unreachable")

    def _connected(self) -> Connection:
        now = time.monotonic()
        if self._connection is not None and now > self._used_at + IDLE:
            self._connection.close()  # back to the pool, which asks the server whether it still knows it
            self._connection = None
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(writes=True)
        self._used_at = now
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                self._connection.invalidate()
            with contextlib.suppress(SQLAlchemyError, OSError):
                self._connection.close()
            self._connection = None

    def _lost(self) -> None:
        self._disconnect()
        if not self._backoff:
            self._backoff = RETRY_FIRST
            self._retry_at = time.monotonic() + self._backoff
            self._listener.failed()

    def _settle(self) -> None:
        """Gets one transaction through, which waits for any that a lost connection left behind."""
        same = update(counters).where(counters.c.name == "sequence").values(value=counters.c.value)
        try:
            self._attempt(lambda connection: connection.execute(same))
        except SQLAlchemyError:
            self._disconnect()
            self._backoff = min(2 * self._backoff, RETRY_LAST)
            self._retry_at = time.monotonic() + self._backoff
        else:
            self._backoff = 0.0
            self._listener.settled()

    # --- one transaction ---

    def _write(
        self, connection: Connection, keeps: list[_Keep], removes: list[int], *, look: bool
    ) -> list[Kept]:
        for start in range(0, len(removes), 1000):
            chosen = mailbox.c.sequence.in_(removes[start : start + 1000])
            connection.execute(delete(mailbox).where(chosen))
        if not keeps:
            return []
        # Drawn first: its lock puts the transactions of several processes in a row.
        count = sum(len(keep.envelope.copies) for keep in keeps)
        last = self._draw(connection, count)
        self._drawn = last - count, last
        first_of: dict[_Key, _Keep] = {}
        repeated = [keep for keep in keeps if first_of.setdefault(keep.key, keep) is not keep]
        known = _accepted_of(connection, first_of.values()) if look else {}
        new = [keep for key, keep in first_of.items() if key not in known]
        repeated += [keep for key, keep in first_of.items() if key in known]
        told: list[Kept] = []
        if new:
            self._insert_accepted(connection, new)
            told += self._insert_mailbox(connection, new, last - count)
        known |= {keep.key: keep.digest for keep in new}
        for keep in repeated:
            told.append((keep.token, "duplicate" if known[keep.key] == keep.digest else "conflict", ()))
        return told

    def _insert_accepted(self, connection: Connection, keeps: Sequence[_Keep]) -> None:
        rows = [(keep.sender, keep.device, keep.envelope.id, keep.digest, keep.received_ms) for keep in keeps]
        connection.exec_driver_sql(self._statements.accepted, rows)

    def _insert_mailbox(self, connection: Connection, keeps: Sequence[_Keep], sequence: int) -> list[Kept]:
        rows = []
        told: list[Kept] = []
        for keep in keeps:
            envelope = keep.envelope
            first = sequence + 1
            for copy in envelope.copies:
                sequence += 1
                rows.append(
                    (
                        sequence,
                        copy.uid,
                        copy.device,
                        envelope.id,
                        envelope.suite,
                        keep.sender,
                        keep.device,
                        envelope.recipient,
                        keep.received_ms,
                        len(envelope.body) + len(copy.header),
                        copy.header,
                        envelope.body,
                    )
                )
            told.append((keep.token, "stored", range(first, sequence + 1)))
        connection.exec_driver_sql(self._statements.mailbox, rows)
        return told

    def _draw(self, connection: Connection, count: int) -> int:
        """Takes so many sequences and gives the last of them."""
        if self._statements.mysql:  # one round trip: the new value comes back as the "inserted id"
            drawn = connection.exec_driver_sql(
                "UPDATE counters SET value = LAST_INSERT_ID(value + %s) WHERE name = 'sequence'", (count,)
            )
            return int(drawn.lastrowid)
        raised = text("UPDATE counters SET value = value + :n WHERE name = 'sequence' RETURNING value")
        return int(connection.execute(raised, {"n": count}).scalar_one())


def _accepted_of(connection: Connection, keeps: Iterable[_Keep]) -> dict[_Key, bytes]:
    by_sender: dict[tuple[int, int], list[bytes]] = {}
    for keep in keeps:
        by_sender.setdefault((keep.sender, keep.device), []).append(keep.envelope.id)
    known: dict[_Key, bytes] = {}
    for (sender, device), ids in by_sender.items():
        for start in range(0, len(ids), 500):
            found = connection.execute(
                select(accepted.c.id, accepted.c.hash).where(
                    accepted.c.sender == sender,
                    accepted.c.sender_device == device,
                    accepted.c.id.in_(ids[start : start + 500]),
                )
            )
            known |= {(sender, device, bytes(row.id)): bytes(row.hash) for row in found}
    return known


def _number(error: DBAPIError) -> int:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _is_away(error: SQLAlchemyError) -> bool:
    """Whether the database is not there (or cannot take anything), as opposed to refusing one statement."""
    return not isinstance(error, (IntegrityError, DataError, ProgrammingError, NotSupportedError))
