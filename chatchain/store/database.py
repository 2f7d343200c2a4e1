"""Opens the relay's database, SQLite or MySQL, and brings its tables up to date. The only place that knows
both.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from pymysql.constants import CLIENT
from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    create_engine,
    delete,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError

from chatchain.errors import BadConfig, RefusedError, StoreUnavailable
from chatchain.store.tables import network

CONNECT_SECONDS: Final = 5
QUERY_SECONDS: Final = 30
BUSY_SECONDS: Final = 30
"""How long SQLite waits for another writer (the chain's follower, or a second process)."""

MIGRATION_SECONDS: Final = 60
SESSION_SECONDS: Final = 5
"""How long a session that was told to end may take, to undo what it had begun, before one asks again."""


OLDEST_REVISION: Final = "oldest_revision"
"""In the table `network`: whose programs may still use the database."""

_ACCESS_DENIED: Final = (1045, 1698)
_NOT_THERE_OR_NOT_YOURS: Final = 1044
"""MySQL does not tell a user whether a database exists of which he has no part."""

_NO_DATABASE: Final = 1049
_NOT_GRANTED: Final = (1142, 1143, 1227)
_NO_ANSWER: Final = (2002, 2003, 2006, 2013)
_CLOSED: Final = (0, "")
"""What the driver says of a connection that is closed."""

_CHECK_URL: Final = (
    "Check --db (DATABASE_URL); in it % is written as %25, and in user and password @ as %40, / as %2F, "
    "# as %23 and ? as %3F."
)
_GRANT: Final = "The relay makes its tables itself: GRANT ALL ON that database to its user."


def open_database(url: str, *, existing: bool = False) -> Engine:
    """Gives an engine for a SQLAlchemy URL; connects to nothing yet. Raises BadConfig.

    With `existing`, a file that is not there is not made: StoreUnavailable says so.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed, existing=existing)
        if parsed.get_backend_name() in ("mysql", "mariadb"):
            return _mysql(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        raise BadConfig(
            "The database URL cannot be read.",
            "It looks like sqlite:///relay.db or mysql+pymysql://user:password@host/database.",
        ) from error
    raise BadConfig(f"The relay keeps its data in SQLite or MySQL, not in {parsed.get_backend_name()}.")


def migrate(engine: Engine, to: str = "head") -> None:
    """Creates or upgrades the tables; several processes may try at once. Raises StoreUnavailable.

    A database that a newer program has upgraded is left as it is, and may be used if that program's last
    revision says that ours still can (`oldest`, migrations/__init__.py).
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    head = ScriptDirectory.from_config(config).get_revision("head")
    assert head is not None, "there are revisions"
    with translated(), engine.connect() as connection, _alone(connection):
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, to)
        except CommandError as error:
            oldest = connection.execute(
                select(network.c.value).where(network.c.name == OLDEST_REVISION)
            ).scalar()
            if oldest is None or oldest > int(head.revision):
                raise StoreUnavailable(
                    "The relay's database was written by a newer version of chatchain.",
                    "Run that version, or restore the backup made before the upgrade.",
                ) from error
            return
        if to != "head":
            return
        connection.execute(delete(network).where(network.c.name == OLDEST_REVISION))
        connection.execute(insert(network), [{"name": OLDEST_REVISION, "value": int(head.module.oldest)}])


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the database's failures into StoreUnavailable with a sentence that holds no password."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable(*sentence(error)) from error


def sentence(error: SQLAlchemyError) -> tuple[str, str]:
    """What a failure of the database is in words, and what to do about it; it holds no password."""
    original = error.orig if isinstance(error, DBAPIError) else None
    arguments = original.args if original is not None else ()
    number = arguments[0] if arguments and isinstance(arguments[0], int) else 0
    if number in _ACCESS_DENIED:
        return "The database server refuses the user or the password.", _CHECK_URL
    if number == _NOT_THERE_OR_NOT_YOURS:
        return "The database named in the URL does not exist, or this user has no rights to it.", _GRANT
    if number == _NO_DATABASE:
        return (
            "The database named in the URL does not exist.",
            "Create it: CREATE DATABASE … CHARACTER SET utf8mb4.",
        )
    detail = str(arguments[-1]) if arguments else type(error).__name__
    if number in _NO_ANSWER and "[SSL" in detail:
        return (
            "TLS with the database server failed.",
            "Its certificate must name the host, and ssl_ca in --db (DATABASE_URL) its authority.",
        )
    if number in _NO_ANSWER or arguments == _CLOSED:
        return "The database server does not answer.", f"Check that it runs. {_CHECK_URL}"
    return f"The relay's database failed: {detail}.", _GRANT if number in _NOT_GRANTED else ""


def claim(engine: Engine) -> Claim:
    """Makes this process the only relay of an SQLite database until the claim is dropped; raises
    RefusedError.
    """
    return _claim_file(Path(engine.url.database or ""))


class Claim(Protocol):
    """What holds a claim; it also ends with the process."""

    def close(self) -> None:
        """Gives the database free."""


_TAKEN: Final = "Another relay is working on this database."
_TAKEN_HINT: Final = "Stop it first, or give this one a database of its own with --db."


# --- SQLite ---------------------------------------------------------------------------------------------


def _sqlite(url: URL, *, existing: bool) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise BadConfig("The relay's database is a file; one in memory would forget what was ticked.")
    assert url.database is not None
    path = Path(url.database)
    if path.is_dir():
        raise StoreUnavailable(f"The database file {path} cannot be opened: it is a folder.")
    if existing and not path.exists():
        raise StoreUnavailable(f"There is no database file {path}.", "Check --db (DATABASE_URL).")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise StoreUnavailable(f"The database file {path} cannot be opened: {error.strerror}.") from error
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={
            "timeout": BUSY_SECONDS,
            "check_same_thread": False,
            "cached_statements": 0,  # those that matter hold their values, and are long
        },
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's guess
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer says so at once: a reader that turned writer would fail instead of waiting.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _claim_file(database: Path) -> Claim:
    lock = open(database.with_name(f"{database.name}.lock"), "ab", opener=_private)  # noqa: SIM115
    os.fchmod(lock.fileno(), 0o600)  # who may read a file may lock it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise RefusedError(_TAKEN, _TAKEN_HINT) from error
    return lock


# --- MySQL and MariaDB ----------------------------------------------------------------------------------


def _mysql(url: URL) -> Engine:
    if not url.database:
        raise BadConfig("The database URL names no database.", "It ends in /name.")
    url = url.set(drivername=f"{url.get_backend_name()}+pymysql").update_query_dict({"charset": "utf8mb4"})
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",  # no gap locks between several processes
        hide_parameters=True,
        pool_pre_ping=True,
        pool_recycle=3600,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": QUERY_SECONDS,
            "write_timeout": QUERY_SECONDS,
            "client_flag": CLIENT.MULTI_STATEMENTS,
        },
    )

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Dialect, _record: object, args: list[Any], options: dict[str, Any]) -> Any:
        # The driver's own errors go through; these are what the URL says behind its question mark.
        try:
            return dialect.connect(*args, **options)
        except (TypeError, AttributeError, ValueError) as error:
            raise BadConfig(
                "The database URL asks for what the driver does not know.",
                "Behind its question mark may stand such as ssl_ca=FILE.",
            ) from error
        except OSError as error:
            raise StoreUnavailable(
                f"A file that the database URL names cannot be used: {error.strerror or error}.",
                "Check what stands behind the question mark in --db (DATABASE_URL).",
            ) from error

    return engine


def succeed(connection: Connection, lock: str) -> None:
    """Has this session of a server hold a lock, and ends the one that did if its client has lost it: nothing
    of that one is committed any more. Raises SQLAlchemyError. SQLite has no sessions.
    """
    if connection.dialect.name == "sqlite":
        return
    take, name = text("SELECT GET_LOCK(:lock, :s)"), {"lock": lock}
    if connection.execute(take, {**name, "s": 0}).scalar() != 1:
        holder = connection.execute(text("SELECT IS_USED_LOCK(:lock)"), name).scalar()
        if holder is not None:
            with contextlib.suppress(DBAPIError):  # it has ended meanwhile
                connection.exec_driver_sql(f"KILL {int(holder)}")
        if connection.execute(take, {**name, "s": SESSION_SECONDS}).scalar() != 1:
            raise OperationalError("GET_LOCK", None, Exception(0, "its last session has not ended yet"))
    connection.commit()


@contextlib.contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Lets one process migrate at a time."""
    if connection.dialect.name == "sqlite":
        with connection.execution_options(writes=True).begin():
            yield
        return
    taken = connection.execute(text("SELECT GET_LOCK('chatchain_migrations', :s)"), {"s": MIGRATION_SECONDS})
    if taken.scalar() != 1:
        raise StoreUnavailable("Another process is still bringing the database's tables up to date.")
    try:
        yield
        connection.commit()
    finally:
        connection.execute(text("SELECT RELEASE_LOCK('chatchain_migrations')"))
        connection.commit()
