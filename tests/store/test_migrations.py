"""Two neighbouring versions on one database: what a revision promises with `oldest`, it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, Table, insert, select

from chatchain.store import migrations
from chatchain.store.database import migrate, open_database
from tests.fixtures.mariadb import MariaDB


def revisions() -> list[tuple[str, str, str]]:
    """Each revision that lets the one before go on: its number, that one's, and whose programs it lets."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    return [
        (revision.revision, str(revision.down_revision), oldest)
        for revision in script.walk_revisions()
        if (oldest := getattr(revision.module, "oldest", revision.revision)) < revision.revision
    ]


def shape(engine: Engine) -> dict[str, Table]:
    """The tables as the database has them."""
    found = MetaData()
    found.reflect(engine)
    return dict(found.tables)


def broken(before: dict[str, Table], after: dict[str, Table]) -> list[str]:
    """What a program that knows the tables of before would stumble over."""
    told = []
    for name, table in before.items():
        if name not in after:
            told.append(f"{name} is gone")
            continue
        new = after[name].columns
        for column in table.columns:
            if column.name not in new:
                told.append(f"{name}.{column.name} is gone")
            elif repr(new[column.name].type) != repr(column.type):
                told.append(f"{name}.{column.name} is of another type")
        told += [
            f"{name}.{column.name} must be given"
            for column in new
            if column.name not in table.columns and not column.nullable and column.server_default is None
        ]
    return told


@pytest.fixture(params=["sqlite", "mariadb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An empty database."""
    if request.param == "sqlite":
        return open_database(f"sqlite:///{tmp_path / 'relay.db'}")
    server: MariaDB = request.getfixturevalue("mariadb")
    return open_database(server.new_database())


def test_the_program_before_can_work_on_what_a_revision_leaves(engine: Engine) -> None:
    """For each revision that says so: every statement on the old tables stays possible."""
    for revision, before, oldest in reversed(revisions()):
        assert oldest <= before
        migrate(engine, before)
        old = shape(engine)
        migrate(engine, revision)
        assert broken(old, shape(engine)) == [], revision
    engine.dispose()


@pytest.mark.parametrize("folded", [True, False])
def test_a_relay_that_learns_of_seats_looks_at_the_members_once_more(engine: Engine, folded: bool) -> None:
    """They were folded before anybody kept who sits in which group; a new database waits for its first."""
    migrate(engine, "0008")
    if folded:
        with engine.execution_options(writes=True).begin() as connection:
            connection.execute(insert(shape(engine)["network"]), [{"name": "policy", "value": 0}])
    migrate(engine, "0009")
    with engine.connect() as connection:
        assert list(connection.execute(select(shape(engine)["touched"].c.uid)).scalars()) == [0] * folded
    engine.dispose()


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (["ALTER TABLE presence ADD COLUMN more INTEGER"], []),
        (["ALTER TABLE presence ADD COLUMN more INTEGER NOT NULL DEFAULT 7"], []),
        (["CREATE TABLE more (id INTEGER PRIMARY KEY)"], []),
        (["DROP TABLE presence"], ["presence is gone"]),
        (
            ["ALTER TABLE folded RENAME COLUMN number TO count"],
            ["folded.number is gone", "folded.count must"],
        ),
        (["ALTER TABLE members ADD COLUMN more INTEGER NOT NULL"], ["members.more must be given"]),
        (["ALTER TABLE folded MODIFY number VARCHAR(20) NOT NULL"], ["folded.number is of another type"]),
    ],
)
def test_a_step_that_is_too_long_is_noticed(mariadb: MariaDB, statements: list[str], told: list[str]) -> None:
    """Or the test above would say nothing."""
    engine = open_database(mariadb.new_database())
    migrate(engine)
    old = shape(engine)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    found = broken(old, shape(engine))
    assert len(found) == len(told)
    assert all(one.startswith(expected) for one, expected in zip(found, told, strict=True))
    if not told and "presence" in old:
        row: dict[str, Any] = {"uid": 7, "device": 1, "node": b"n", "number": 3}
        with engine.begin() as connection:
            connection.execute(insert(old["presence"]), [row])
            assert connection.execute(select(old["presence"])).one()[:4] == (7, 1, b"n", 3)
    engine.dispose()
