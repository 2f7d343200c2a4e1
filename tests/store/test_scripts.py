"""Written-out statements with bytes beside them, on both kinds of database."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from chatchain.model import Run
from chatchain.store import letters
from chatchain.store.database import open_database
from chatchain.store.scripts import (
    BOX_BYTES,
    BOXES,
    FEW_BYTES,
    SCRIPT_BYTES,
    run_statements,
    takes_boxes,
    written_out,
)
from chatchain.store.server import ServerStore

EVERY_BYTE = bytes(range(256))


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind, with its tables."""
    made = (
        f"sqlite:///{tmp_path / 'relay.db'}"
        if request.param == "sqlite"
        else str(request.getfixturevalue("mariadb_url"))
    )
    _migrated(made)
    return made


def _migrated(url: str) -> None:
    store = ServerStore(url)
    store.migrate()
    store.close()


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    engine = open_database(url)
    with engine.connect() as made:
        yield made.execution_options(writes=True)
    engine.dispose()


@pytest.fixture
def mariadb_connection(mariadb_url: str) -> Iterator[Connection]:
    _migrated(mariadb_url)
    engine = open_database(mariadb_url)
    with engine.connect() as made:
        yield made
    engine.dispose()


def store(connection: Connection, runs: list[Run]) -> int:
    """Stores runs in a transaction of their own; gives in how many statements."""
    statements = list(letters.storing(connection, runs, "0", 5))
    with written_out(connection):
        run_statements(connection, statements, commit=True)
    return len(statements)


def stored(connection: Connection) -> list[tuple[int, int, list[bytes]]]:
    with connection.begin():
        runs, more = letters.waiting(connection, 7, 1, 0, 100_000, 2**30)
    assert not more
    return [(run.sender, run.first, run.parcels) for run in runs]


def runs_of(*contents: list[bytes]) -> list[Run]:
    found, first = [], 1
    for sender, parcels in enumerate(contents, 1):
        found.append(Run(7, 1, sender, first, parcels))
        first += len(parcels)
    return found


@pytest.mark.parametrize(
    "contents",
    [
        [[EVERY_BYTE]],
        [[b""], [b"", EVERY_BYTE], [b"\\'; DROP TABLE mail; --", b"?1 %s @box1 \0"]],
        [[bytes(FEW_BYTES)]],
        [[bytes(FEW_BYTES + 1)]],
        [[EVERY_BYTE] * 60, [b""], [b"\\'; DROP TABLE mail; --", b"?1 %s @box1 \0"]],
        [[os.urandom(509)] * 25 for _ in range(12)],
        [[os.urandom(3)] for _ in range(600)],
        [[os.urandom(BOX_BYTES - 4)] for _ in range(BOXES)],
        [[os.urandom(BOX_BYTES)] for _ in range(BOXES + 1)],
        [[os.urandom(200_000)] for _ in range(3 * BOXES)],
    ],
    ids=[
        "every-byte",
        "nothing-and-sql",
        "few-exactly",
        "one-too-many",
        "nothing-and-sql-in-boxes",
        "runs",
        "many-small",
        "boxes-exactly",
        "one-box-more",
        "large",
    ],
)
def test_what_is_stored_comes_back_byte_by_byte(connection: Connection, contents: list[list[bytes]]) -> None:
    """Whatever is in it, and however many boxes and round trips it takes."""
    runs = runs_of(*contents)
    statements = store(connection, runs)
    assert stored(connection) == [(run.sender, run.first, run.parcels) for run in runs]
    assert statements == 1 + (sum(len(parcel) + 4 for run in runs for parcel in run.parcels) - 1) // (
        BOXES * max(BOX_BYTES, len(contents[0][0]) + 4)
    )


def test_an_error_leaves_nothing_of_a_transaction(connection: Connection) -> None:
    """Neither what stands before it nor what comes after it, and the connection serves the next."""
    twice = [*runs_of([b"a"]), *runs_of([b"b"])]
    with pytest.raises(DBAPIError):
        store(connection, twice)
    assert stored(connection) == []
    store(connection, runs_of([b"c"]))
    assert stored(connection) == [(1, 1, [b"c"])]


def test_values_stay_with_their_statements(connection: Connection) -> None:
    """Several that bring boxes are no round trip of one set of boxes."""
    runs = runs_of([b"one"], [b"two"])
    statements = [next(letters.storing(connection, [run], "0", 5)) for run in runs]
    with written_out(connection):
        run_statements(connection, statements, commit=True)
    assert [parcels for _, _, parcels in stored(connection)] == [[b"one"], [b"two"]]


def test_a_long_script_takes_several_round_trips(connection: Connection) -> None:
    """In order, and in one transaction."""
    padding = "/*" + "x" * SCRIPT_BYTES + "*/"
    [statement] = letters.storing(connection, runs_of([b"a"]), "0", 5)
    with written_out(connection):
        run_statements(
            connection,
            [f"DELETE FROM mail {padding}", statement, f"DELETE FROM members {padding}"],
            commit=True,
        )
    assert stored(connection) == [(1, 1, [b"a"])]


def test_the_databases_we_know_take_boxes(connection: Connection) -> None:
    """Both kinds; and a server that is gone is not one that takes none."""
    assert takes_boxes(connection)
    if connection.dialect.name == "sqlite":
        return
    mine = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
    with connection.engine.connect() as other:
        other.exec_driver_sql(f"KILL {mine}")
    with pytest.raises(DBAPIError):
        takes_boxes(connection)
    connection.invalidate()


@pytest.mark.parametrize("mode", ["STRICT_ALL_TABLES", ""])
def test_boxes_that_never_came_store_nothing(mariadb_connection: Connection, mode: str) -> None:
    """The server has forgotten the statement that fills them, so those of the script before are still there:
    the script must not take them for its own, also where the server makes do with whatever it is given.
    """
    mariadb_connection.exec_driver_sql(f"SET SESSION sql_mode = '{mode}'")
    mariadb_connection.commit()
    before, after = bytes(FEW_BYTES + 1), os.urandom(FEW_BYTES + 1)
    store(mariadb_connection, runs_of([before]))
    mariadb_connection.info["boxes"] += 1_000
    with pytest.raises(OperationalError):
        store(mariadb_connection, [Run(7, 1, 9, 50, [after])])
    mariadb_connection.invalidate()
    assert stored(mariadb_connection) == [(1, 1, [before])]
