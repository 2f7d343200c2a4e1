"""Group commit: one thread turns whatever waits into one multi-row insert and one commit.

What `keep` was given is told back in batches, after the commit and never before. Sequences are drawn from a
counter row inside the same transaction, so they are committed in their own order, also when several
processes write to one database, and without a gap. A commit whose connection was lost may have happened or
not, or be under way: the next connection is used only when the server has ended that session. Then the writer
gets a transaction through ("settled"), and only then may anybody trust that a read shows all that was
committed.
While the database is away, what comes is told back as failed at once: nothing piles up. A session of which
something failed is refused until the relay has heard of it, so that its order holds.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Literal, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)

from chatchain.errors import StoreUnavailable
from chatchain.model import Letter, Run
from chatchain.store import letters
from chatchain.store.database import sentence, succeed
from chatchain.store.scripts import BOXED, Statement, drawing, run_statements, takes_boxes, written_out
from chatchain.store.tables import counters

BATCH_ITEMS: Final = 2_000
BATCH_BYTES: Final = 2 * 1024 * 1024
"""A commit takes no more than this, so that a flood delays others by one commit only."""

LINGER: Final = 0.05
ALONE: Final = 0.1
"""Seconds after which deletions go with the next commit, and after which they get one of their own: until
then later ones of the same device take in what earlier ones would delete.
"""

COMPANY: Final = 0.001
"""Seconds after a commit for which those who were just told wait for each other: who sends one message at a
time sends the next one now, and all of these then cost one commit instead of two.
"""

ENOUGH: Final = 64
"""Letters that are worth a commit, whoever else may come: nobody waits for company any more."""

RETRY_FIRST: Final = 0.1
RETRY_LAST: Final = 2.0
"""Seconds between attempts to reach a database that is away."""

SHUT_SESSIONS: Final = 20_000
"""Sessions of which it is remembered that something failed: twice as many as a relay has connections."""

IDLE: Final = 30.0
"""Seconds after which the connection is no longer taken for granted, but made again."""

_log = logging.getLogger(__name__)

_DEADLOCK: Final = 1213
_TRANSIENT: Final = frozenset({1205, _DEADLOCK})
"""MySQL's lock wait timeout and deadlock: the statement was rolled back and may be tried again."""

Verdict = Literal["stored", "duplicate", "conflict", "failed"]
Told = list[tuple[Letter, Verdict]]
"""What became of letters."""

T = TypeVar("T")
U = TypeVar("U")

Begin = Callable[[Connection], contextlib.AbstractContextManager[object]]


class Listener(msgspec.Struct, frozen=True):
    """Whom the writer tells, from its own thread."""

    kept: Callable[[Told, list[Run]], None]
    """What became of letters, in their order, and in which runs those stored wait for whom."""
    failed: Callable[[str], None]
    """Why the database is away."""
    settled: Callable[[], None]
    expired: Callable[[list[Run], list[Run]], None] = lambda *_: None
    """Which runs were given up for their age, and in which runs the relay's own word of it waits for whom."""


class _Keep(msgspec.Struct):
    letters: list[Letter]
    weight: int


class _Work(msgspec.Struct):
    work: Callable[[Connection], Any]
    future: Future[Any]
    after: Callable[[Any], Any]


class _Stop(msgspec.Struct):
    pass


_Job = _Keep | _Work | _Stop


class Writer:
    """The one writing thread of a relay process."""

    def __init__(self, engine: Engine, listener: Listener) -> None:
        self._engine = engine
        self._listener = listener
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._change = threading.Lock()  # for what follows, up to where the thread alone is at work
        self._jobs: deque[_Job] = deque()
        self._came: set[int] = set()  # sessions of which letters wait
        self._queued = 0  # letters that wait
        self._urgent = False  # whether something waits that no company is waited for
        self._wakes_at = 0.0
        self._done: dict[tuple[int, int], int] = {}  # what is to be deleted: devices, and up to where
        self._going: dict[tuple[int, int], int] = {}  # what is being deleted
        self._done_since = 0.0
        self._company: set[int] = set()  # sessions that the last commit was for
        self._company_until = 0.0
        self._backoff = 0.0  # more than 0: the database is away
        self._retry_at = 0.0
        self._connection: Connection | None = None
        self._lock = f"chatchain_writer_{secrets.token_hex(16)}"  # which its session holds
        self._boxed: bool | None = None  # whether the server takes boxes, once it was asked
        self._used_at = 0.0
        self._shut: dict[int, int] = {}  # sessions, and the last round of which something failed
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)
        self._thread.start()

    def keep(self, letters: list[Letter]) -> None:
        """Stores letters for every device that they name; the listener hears what became of them."""
        start = weight = 0
        jobs: list[_Keep] = []
        for end, letter in enumerate(letters, 1):
            weight += letter.size
            if end - start == BATCH_ITEMS or weight >= BATCH_BYTES or end == len(letters):
                jobs.append(_Keep(letters[start:end], weight))
                start, weight = end, 0
        with self._change:
            self._jobs += jobs
            self._queued += len(letters)
            self._came.update([letter.session for letter in letters])
            sleeps = self._oversleeps()
        if sleeps:
            self._bell.put(None)

    def remove(self, uid: int, device: int, through: int) -> None:
        """Deletes a device's rows up to a sequence; should that fail they are delivered once more, which is
        allowed.
        """
        with self._change:
            if not self._done:
                self._done_since = time.monotonic()
            self._done[uid, device] = max(through, self._done.get((uid, device), 0))
            sleeps = self._oversleeps()
        if sleeps:
            self._bell.put(None)

    def removed(self, uid: int, device: int) -> int:
        """Up to which sequence a device's rows are about to be deleted: nobody needs to read them."""
        with self._change:
            return max(self._done.get((uid, device), 0), self._going.get((uid, device), 0))

    def run(self, work: Callable[[Connection], T]) -> Future[T]:
        """Does something in a transaction of its own; the future raises StoreUnavailable when it cannot."""
        return self._then(work, lambda found: found)

    def _then(self, work: Callable[[Connection], T], after: Callable[[T], U]) -> Future[U]:
        """The same for what `after` makes of it, in the thread and after the commit."""
        future: Future[U] = Future()
        self._demand(_Work(work, future, after))
        return future

    def stop(self, timeout: float = 10.0) -> None:
        """Finishes what waits and ends the thread."""
        self._demand(_Stop())
        self._thread.join(timeout)

    def _demand(self, job: _Job) -> None:
        with self._change:
            self._jobs.append(job)
            self._urgent = True
            sleeps = self._oversleeps()
        if sleeps:
            self._bell.put(None)

    def _oversleeps(self) -> bool:
        """Whether the thread sleeps for longer than it may now. The bell is rung once, and without the lock,
        which the thread takes first.
        """
        if self._wakes_at <= self._due_at():
            return False
        self._wakes_at = 0.0
        return True

    def _due_at(self) -> float:
        """When the thread has something to do: letters wait for the company that the last ones had."""
        if self._urgent:
            return 0.0
        due_at = self._done_since + ALONE if self._done else math.inf
        if self._jobs:
            complete = self._company <= self._came or self._queued >= ENOUGH
            due_at = min(due_at, 0.0 if complete else self._company_until)
        if self._backoff:
            due_at = min(due_at, self._retry_at)
        return due_at

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
        self._disconnect()

    def _waiting(self) -> list[_Job]:
        """Waits until there is something to do; gives everything that waits, up to a batch."""
        while True:
            with self._change:
                due_at = self._due_at()
                wait = due_at - time.monotonic()
                if wait <= 0:
                    self._wakes_at = 0.0
                    return self._taken()
                self._wakes_at = due_at
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=None if due_at == math.inf else wait)

    def _taken(self) -> list[_Job]:
        jobs: list[_Job] = []
        items = weight = 0
        came: set[int] = set()
        while self._jobs and items < BATCH_ITEMS and weight < BATCH_BYTES:
            job = self._jobs.popleft()
            jobs.append(job)
            if isinstance(job, _Keep):
                items += len(job.letters)
                weight += job.weight
                came.update([letter.session for letter in job.letters])
            elif isinstance(job, _Stop):
                break
        self._queued -= items
        if came:
            self._company = came
        self._came = set()
        self._urgent = bool(self._jobs)  # too much for one batch: the next follows at once
        return jobs

    def _serve(self, jobs: list[_Job]) -> None:
        letters = [letter for job in jobs if isinstance(job, _Keep) for letter in job.letters]
        done: dict[tuple[int, int], int] = {}
        # Whoever has something else done finds all deleted that was to be deleted before.
        patience = (LINGER if letters else ALONE) if all(isinstance(job, _Keep) for job in jobs) else 0.0
        if self._done and time.monotonic() >= self._done_since + patience:
            done = self._take_done()
        if letters or done:
            self._commit(letters, done)
            self._going = {}
        for job in jobs:
            if isinstance(job, _Work):
                self._run(job)
        if letters:
            self._company_until = time.monotonic() + COMPANY

    def _take_done(self) -> dict[tuple[int, int], int]:
        with self._change:
            done, self._done = self._done, {}
            self._going = done
        return done

    def _turn_away(self, jobs: list[_Job]) -> None:
        self._take_done()  # delivered once more, which is allowed
        self._going = {}
        for job in jobs:
            if isinstance(job, _Keep):
                self._fail(job.letters)
            elif isinstance(job, _Work) and job.future.set_running_or_notify_cancel():
                job.future.set_exception(StoreUnavailable("The relay's database does not answer."))

    def _fail(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            self._shut.pop(letter.session, None)  # the latest stand last
            self._shut[letter.session] = letter.round
        for session in list(self._shut)[:-SHUT_SESSIONS]:
            del self._shut[session]
        self._listener.kept([(letter, "failed") for letter in letters], [])

    def _in_order(self, letters: list[Letter]) -> list[Letter]:
        """Without those that came before the relay had heard that others of their session failed: they fail,
        too.
        """
        late = [letter for letter in letters if letter.round <= self._shut.get(letter.session, -1)]
        if not late:
            return letters
        self._listener.kept([(letter, "failed") for letter in late], [])
        return [letter for letter in letters if letter.round > self._shut.get(letter.session, -1)]

    def _commit(self, letters: list[Letter], done: dict[tuple[int, int], int]) -> None:
        if self._shut:
            letters = self._in_order(letters)
            if not letters and not done:
                return
        try:
            told, runs = self._stored(letters, done)
        except Exception as error:  # whatever the driver makes of a row: the thread must live
            if isinstance(error, SQLAlchemyError) and _is_away(error):
                self._lost(error)
                self._fail(letters)
                return
            self._disconnect()
            # The database is there and refuses: find the one that it refuses, the others are not to suffer.
            if len(letters) > 1 or (letters and done):
                for letter in letters:
                    self._commit([letter], {})
                if done:
                    self._commit([], done)
                return
            _log.exception("the database refuses a row")
            told, runs = [(letter, "failed") for letter in letters], []
        if told:
            self._listener.kept(told, runs)

    def _stored(self, letters: list[Letter], done: dict[tuple[int, int], int]) -> tuple[Told, list[Run]]:
        """Repeated envelopes are rare: they are looked for only when the insert meets one."""
        try:
            return self._attempt(lambda connection: self._write(connection, letters, done), written_out)
        except IntegrityError:
            if not letters:
                raise
        for patience in (2, 1, 0):
            try:
                return self._attempt(lambda connection: self._look_and_write(connection, letters, done))
            except IntegrityError:
                if not patience:
                    raise
        raise AssertionError("unreachable")

    def _run(self, job: _Work) -> None:
        if not job.future.set_running_or_notify_cancel():
            return  # whoever asked has gone
        if self._backoff:
            job.future.set_exception(StoreUnavailable("The relay's database does not answer."))
            return
        try:
            job.future.set_result(job.after(self._attempt(job.work)))
        except SQLAlchemyError as error:
            if _is_away(error):
                self._lost(error)
            self._disconnect()
            failure = StoreUnavailable("The relay's database did not carry this out.")
            failure.__cause__ = error
            job.future.set_exception(failure)
        except Exception as error:  # the work's own: its caller's business
            self._disconnect()
            job.future.set_exception(error)

    def _attempt(self, work: Callable[[Connection], T], begin: Begin = Connection.begin) -> T:
        """One transaction; a deadlock or lock timeout is tried again a few times."""
        for patience in (2, 1, 0):
            connection = self._connected()
            try:
                with begin(connection):
                    return work(connection)
            except DBAPIError as error:
                if not patience or _number(error) not in _TRANSIENT:
                    raise
        raise AssertionError("unreachable")

    def _connected(self) -> Connection:
        now = time.monotonic()
        if now > self._used_at + IDLE:
            self._disconnect()
        if self._connection is None:
            self._connection = self._engine.connect()
            if self._boxed is None:
                self._boxed = takes_boxes(self._connection)
                if not self._boxed:
                    self._disconnect()
                    self._connection = self._engine.connect()
            succeed(self._connection, self._lock)
            self._connection = self._connection.execution_options(writes=True, **{BOXED: self._boxed})
        self._used_at = now
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                self._connection.invalidate()
            with contextlib.suppress(SQLAlchemyError, OSError):
                self._connection.close()
            self._connection = None

    def _lost(self, error: SQLAlchemyError) -> None:
        self._disconnect()
        if not self._backoff:
            self._backoff = RETRY_FIRST
            self._retry_at = time.monotonic() + self._backoff
            self._listener.failed(sentence(error)[0])

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
        self, connection: Connection, keeps: list[Letter], done: dict[tuple[int, int], int]
    ) -> tuple[Told, list[Run]]:
        """Stores what was never stored before; an envelope that was is an IntegrityError."""
        deleting = list(letters.deleting(done))
        if not keeps:
            run_statements(connection, deleting, commit=True)
            return [], []
        runs = self._insert_letters(connection, keeps, deleting, commit=True)
        return [(keep, "stored") for keep in keeps], runs

    def _look_and_write(
        self, connection: Connection, keeps: list[Letter], done: dict[tuple[int, int], int]
    ) -> tuple[Told, list[Run]]:
        """Stores those that were not stored before."""
        deleting = list(letters.deleting(done))
        first_of: dict[letters.Key, Letter] = {}
        for keep in keeps:
            first_of.setdefault((keep.sender, keep.device, keep.id), keep)
        known = letters.accepted_of(connection, first_of.values())
        new = [keep for key, keep in first_of.items() if key not in known]
        runs = []
        if new:
            runs = self._insert_letters(connection, new, deleting, commit=False)
        else:
            run_statements(connection, deleting)
        stored = {id(keep) for keep in new}
        known |= {key: keep.digest for key, keep in first_of.items() if key not in known}
        return [(keep, "stored" if id(keep) in stored else _repetition(keep, known)) for keep in keeps], runs

    def _insert_letters(
        self, connection: Connection, new: list[Letter], first: Iterable[Statement], *, commit: bool
    ) -> list[Run]:
        runs, received_ms = letters.into_runs(new), new[-1].received_ms
        return self._insert(connection, runs, received_ms, [*first, *letters.accepting(new)], commit=commit)

    def _insert(
        self,
        connection: Connection,
        runs: list[Run],
        received_ms: int,
        first: Iterable[Statement] = (),
        *,
        commit: bool = False,
    ) -> list[Run]:
        """Stores runs, after some other statements; gives the runs with their sequences."""
        count = runs[-1].last
        # Drawn as late as may be: its lock puts the transactions of several processes in a row.
        draw, base = drawing(connection, count)
        statements = [*first, *draw, *letters.storing(connection, runs, base, received_ms)]
        drawn = run_statements(connection, statements, commit=commit)
        return letters.shifted(runs, drawn - count if draw else int(base))


def _repetition(letter: Letter, known: Mapping[letters.Key, bytes]) -> Verdict:
    same = known[letter.sender, letter.device, letter.id] == letter.digest
    return "duplicate" if same else "conflict"


def _number(error: DBAPIError) -> int:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _is_away(error: SQLAlchemyError) -> bool:
    """Whether the database is not there (or cannot take anything), as opposed to refusing one statement."""
    if isinstance(error, DBAPIError) and _number(error) == _DEADLOCK:
        return False
    return not isinstance(error, (IntegrityError, DataError, ProgrammingError, NotSupportedError))
