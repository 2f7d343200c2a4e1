"""Saves what a relay's database holds and nothing else can give back, and loads it into an empty one.

Users, members and events come from the chain again; processes, leases and presence are of the moment. What is
left is written as one consistent state, table by table, in a form that fits SQLite and MySQL alike, with a
checksum at its end. After a load sequences count in another space, and on from far above all that was ever
given out, also after the backup was made: a device that says how far it has come must not miss what is new.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec
from sqlalchemy import Connection, Table, delete, func, insert, inspect, select, text, update

from chatchain.errors import RefusedError, StoreUnavailable, UsageError
from chatchain.store.database import migrate, open_database, translated
from chatchain.store.server import DEPLOYMENT, ServerStore
from chatchain.store.tables import (
    chain_blocks,
    chain_logs,
    counters,
    devices,
    folded,
    leases,
    members,
    metadata,
    network,
    nodes,
    presence,
    seats,
    touched,
    users,
)

AHEAD: Final = 10**12
"""By how much the sequences jump at a load: more than a relay gives out between two backups."""

MAGIC: Final = b"chatchain backup 1\n"
_ROWS: Final = 200
_CHUNK: Final = 1024 * 1024
_CHECKSUM: Final = 32

_FROM_CHAIN: Final = (users, devices, members, seats, network, touched, chain_blocks, chain_logs)
_OF_THE_MOMENT: Final = (nodes, leases, presence, folded)
_MADE: Final = {"sponsor_spending": 1}
"""Rows that a table has when it is made."""

_COUNTERS_OF_THE_MOMENT: Final = ("login", "fold", "looks", "head", "space")


T = TypeVar("T")


class Header(msgspec.Struct, frozen=True):
    """What a backup is of."""

    revision: str
    marks: dict[str, int]


class Batch(msgspec.Struct, frozen=True):
    """Some rows of a table; without rows, the end of the file."""

    table: str
    rows: tuple[tuple[Any, ...], ...]


def saved() -> list[Table]:
    """The tables that a backup holds."""
    left_out = {table.name for table in (*_FROM_CHAIN, *_OF_THE_MOMENT)}
    return [table for table in metadata.sorted_tables if table.name not in left_out]


def save(url: str, path: Path) -> int:
    """Writes a backup, which only its owner may read; gives the number of rows. The relay may go on.

    Raises UsageError for a database that no relay has used.
    """
    engine = open_database(url, existing=True)
    half = path.with_name(f"{path.name}.half")
    rows = 0
    try:
        with translated(), engine.connect() as connection, _secret(half) as file:
            if engine.name != "sqlite":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            if not inspect(connection).has_table("alembic_version"):
                raise UsageError("No relay has used this database.", "Check --db (DATABASE_URL).")
            writing = _Writing(file)
            writing.put(Header(_revision(connection), _marks(connection)))
            for table in saved():
                # From the server row by row: a mailbox may be larger than the memory.
                found = connection.execution_options(yield_per=_ROWS).execute(select(table))
                for some in found.partitions():
                    rows += len(some)
                    writing.put(Batch(str(table.name), tuple(tuple(row) for row in some)))
            writing.put(Batch("", ()))
            writing.end()
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
        engine.dispose()
    return rows


def load(url: str, path: Path) -> int:
    """Fills an empty database from a backup, wholly or not at all; gives the number of rows.

    Raises UsageError for a file that is none, RefusedError for a database that holds something.
    """
    engine = open_database(url)
    migrate(engine)
    store = ServerStore(url)
    rows = 0
    try:
        _require_idle(store)
        tables = {table.name: table for table in saved()}
        with translated(), engine.execution_options(writes=True).begin() as connection, _opened(path) as file:
            reading = _Reading(file)
            header = reading.take(Header)
            if header.revision != _revision(connection):
                raise UsageError(
                    f"The backup is of a database at revision {header.revision}, this version makes "
                    f"{_revision(connection)}.",
                    "Load it with the version that wrote it, and upgrade afterwards.",
                )
            _require_empty(connection, header)
            connection.execute(delete(counters).where(counters.c.name.not_in(_COUNTERS_OF_THE_MOMENT)))
            for table in tables.values():
                if table is not counters:
                    connection.execute(delete(table))  # rows that the tables are made with
            while (batch := reading.take(Batch)).table:
                if batch.table not in tables:
                    raise UsageError(f"The backup holds a table {batch.table!r} that is none of ours.")
                rows += _insert(connection, tables[batch.table], batch)
            jump = counters.c.name == "sequence"
            connection.execute(update(counters).where(jump).values(value=counters.c.value + AHEAD))
            if header.marks:
                marks = [{"name": name, "value": value} for name, value in header.marks.items()]
                connection.execute(insert(network), marks)
    finally:
        store.close()
        engine.dispose()
    return rows


def _insert(connection: Connection, table: Table, batch: Batch) -> int:
    names = [column.name for column in table.columns]
    values = [dict(zip(names, row, strict=True)) for row in batch.rows]
    if table is counters:
        values = [value for value in values if value["name"] not in _COUNTERS_OF_THE_MOMENT]
    if values:
        connection.execute(insert(table), values)
    return len(batch.rows)


def _require_idle(store: ServerStore) -> None:
    if not store.shareable:
        store.claim()
    elif store.join("backup").beat():
        raise RefusedError("A relay is working on this database.", "Stop it first.")


def _require_empty(connection: Connection, header: Header) -> None:
    held = [
        table.name
        for table in saved()
        if table is not counters
        and connection.execute(select(func.count()).select_from(table)).scalar_one()
        > _MADE.get(table.name, 0)
    ]
    marks = _marks(connection)
    if held or (marks and marks != header.marks):
        raise RefusedError(
            "The database is not empty.", "Load a backup into a new one, and give that to the relay."
        )
    connection.execute(delete(network).where(network.c.name.in_(marks)))


def _marks(connection: Connection) -> dict[str, int]:
    """To which deployment the database belongs."""
    found = connection.execute(select(network).where(network.c.name.in_(DEPLOYMENT)))
    return {row.name: row.value for row in found}


def _revision(connection: Connection) -> str:
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


# --- the file -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _secret(path: Path) -> Iterator[BinaryIO]:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreUnavailable(f"The file {path} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UsageError(f"The file {path} cannot be read: {error.strerror}.") from error


class _Writing:
    """Objects with their lengths, and at the end what they hash to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._raw(MAGIC)

    def put(self, value: msgspec.Struct) -> None:
        data = msgspec.msgpack.encode(value)
        self._raw(len(data).to_bytes(4, "big"))
        self._raw(data)

    def end(self) -> None:
        self._file.write(self._hash.digest())

    def _raw(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


class _Reading:
    """The same, read: a file that is not as it was written raises UsageError before anything is taken."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        if file.read(len(MAGIC)) != MAGIC:
            raise UsageError("This is not a backup of a relay.")
        left = os.fstat(file.fileno()).st_size - len(MAGIC) - _CHECKSUM
        hashed = hashlib.sha256(MAGIC)
        while left > 0:
            data = file.read(min(left, _CHUNK))
            hashed.update(data)
            left -= len(data)
        if left or file.read() != hashed.digest():
            raise UsageError("The backup is damaged or cut short.")
        file.seek(len(MAGIC))

    def take(self, kind: type[T]) -> T:
        length = int.from_bytes(self._file.read(4), "big")
        return msgspec.msgpack.decode(self._file.read(length), type=kind)
