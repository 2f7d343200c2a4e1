"""Backups of the relay's database: what comes back, what must not, and what clients see of a restore."""

from __future__ import annotations

import itertools
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from chatchain.errors import RefusedError, StoreUnavailable, UsageError
from chatchain.store import backup
from chatchain.store.database import open_database
from chatchain.store.server import ServerStore
from chatchain.store.tables import blobs, counters, network
from chatchain.wire.messages import Tick
from deploy import backup as program
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.relay.stage import Device, Stage

NewDatabase = Callable[[], str]


@pytest.fixture(params=["sqlite", "mariadb"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Gives the URL of one more empty database."""
    if request.param == "mariadb":
        server: MariaDB = request.getfixturevalue("mariadb")
        return server.new_database
    numbers = iter(range(100))
    return lambda: f"sqlite:///{tmp_path / f'relay{next(numbers)}.db'}"


@pytest.fixture
def stage(anvil: DevChain, new_database: NewDatabase, tmp_path: Path) -> Iterator[Stage]:
    """A relay that runs."""
    made = Stage(anvil, tmp_path, new_database())
    made.start()
    yield made
    made.stop()


async def test_after_a_restore_nothing_is_missed_and_what_comes_again_is_known_by_its_id(
    stage: Stage, new_database: NewDatabase, tmp_path: Path
) -> None:
    """Sequences go on above all that clients have seen, however old the backup is."""
    ada, bob = stage.register("backupada"), stage.register("backupbob")
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    space = (await recipient.resume(0, 0)).space
    again, waiting = sender.envelope(bob, b"again"), sender.envelope(bob, b"waiting")
    assert isinstance(await sender.submit(again), Tick)
    await recipient.receive(1, acknowledge=False)
    file = tmp_path / "backup"
    assert program.main(["save", str(file), "--db", stage.database]) == 0  # while the relay works
    assert isinstance(await sender.submit(waiting), Tick)
    seen = [*await recipient.receive(1, acknowledge=False)]
    for number in range(20):  # after the backup: sequences that are given out and forgotten
        assert isinstance(await sender.send(bob, b"%d" % number), Tick)
        seen += await recipient.receive(1)
    highest = max(delivery.sequence for delivery in seen)
    for device in (sender, recipient):
        await device.close()
    stage.stop()

    stage.database = new_database()
    assert program.main(["load", str(file), "--db", stage.database]) == 0
    stage.start()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    resumed = await recipient.resume(space, highest)
    assert (resumed.space != space, resumed.after) == (True, 0)
    assert isinstance(await sender.submit(again), Tick), "its id is remembered: it is not stored twice"
    assert isinstance(await sender.send(bob, b"new"), Tick)
    repeated, new = await recipient.receive(2)
    assert (repeated.id, repeated.body) == (again.id, b"again")
    assert new.body == b"new"
    assert repeated.sequence < highest < new.sequence
    for device in (sender, recipient):
        await device.close()


async def test_an_older_file_in_the_place_of_the_database_swallows_nothing(
    anvil: DevChain, tmp_path: Path
) -> None:
    """Its sequences are given out again, for other messages: what a device has says nothing of them."""
    file, old = tmp_path / "relay.db", tmp_path / "old.db"
    stage = Stage(anvil, tmp_path, f"sqlite:///{file}")
    stage.start()
    ada, bob = stage.register("olderada"), stage.register("olderbob")
    stage.stop()
    shutil.copy(file, old)
    stage.start()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    space = (await recipient.resume(0, 0)).space
    for number in range(5):
        await sender.send(bob, b"before %d" % number)
    seen = await recipient.receive(5)
    for device in (sender, recipient):
        await device.close()
    stage.stop()
    shutil.copy(old, file)
    stage.start()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    for number in range(5):
        await sender.send(bob, b"after %d" % number)
    await recipient.resume(space, seen[-1].sequence)
    assert [delivery.body for delivery in await recipient.receive(5)] == [b"after %d" % n for n in range(5)]
    for device in (sender, recipient):
        await device.close()
    stage.stop()


def filled(url: str) -> None:
    """A database with a row that is worth keeping."""
    store = ServerStore(url)
    store.migrate()
    store.deployment(31337, b"\x07" * 20)
    store.close()
    engine = open_database(url)
    with engine.execution_options(writes=True).begin() as connection:
        row = {"owner": 7, "blob": bytes(range(32)), "size": 1, "state": 0, "spent": 0}
        connection.execute(insert(blobs), [row | {"created_ms": 2**40, "expires_ms": 2**50}])
    engine.dispose()


def held(url: str) -> tuple[list[object], dict[str, int], dict[str, int]]:
    """What of it there is in a database."""
    engine = open_database(url)
    with engine.connect() as connection:
        rows: list[object] = [tuple(row) for row in connection.execute(select(blobs))]
        numbers = {row.name: row.value for row in connection.execute(select(counters))}
        marks = {row.name: row.value for row in connection.execute(select(network))}
    engine.dispose()
    return rows, numbers, marks


def test_a_backup_goes_from_one_kind_of_database_to_another(mariadb: MariaDB, tmp_path: Path) -> None:
    """And back: rows, counters and the deployment that it belongs to; only its owner may read it."""
    urls = [f"sqlite:///{tmp_path / 'a.db'}", mariadb.new_database(), f"sqlite:///{tmp_path / 'b.db'}"]
    filled(urls[0])
    before = held(urls[0])
    for number, (source, target) in enumerate(itertools.pairwise(urls), 1):
        file = tmp_path / f"backup{number}"
        backup.save(source, file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        backup.load(target, file)
        rows, numbers, marks = held(target)
        assert (rows, marks) == (before[0], before[2])
        assert numbers["sequence"] == before[1]["sequence"] + number * backup.AHEAD


def test_a_damaged_backup_leaves_nothing_behind(tmp_path: Path) -> None:
    """Cut short anywhere, changed anywhere, or with something after its end."""
    filled(url := f"sqlite:///{tmp_path / 'source.db'}")
    backup.save(url, file := tmp_path / "backup")
    data = file.read_bytes()
    target = f"sqlite:///{tmp_path / 'target.db'}"
    damaged = [data[:cut] for cut in range(0, len(data), 41)]
    damaged += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), 41)]
    for wrong in (*damaged, data + b"\0"):
        file.write_bytes(wrong)
        with pytest.raises(UsageError):
            backup.load(target, file)
    assert held(target)[0] == []
    file.write_bytes(data)
    backup.load(target, file)
    assert held(target)[0] == held(url)[0]


def test_no_backup_is_made_of_what_is_not_there(new_database: NewDatabase, tmp_path: Path) -> None:
    """Neither of a mistyped name, which leaves no file behind, nor of a database without a relay's data."""
    missing = tmp_path / "folder" / "typo.db"
    with pytest.raises(StoreUnavailable, match="There is no database file"):
        backup.save(f"sqlite:///{missing}", tmp_path / "backup")
    assert not missing.parent.exists()
    ServerStore(empty := new_database()).close()  # which makes the file
    with pytest.raises(UsageError, match="No relay has used this database"):
        backup.save(empty, tmp_path / "backup")
    assert not list(tmp_path.glob("backup*"))
    ServerStore(empty).migrate()
    backup.save(empty, tmp_path / "backup")


def test_a_backup_is_loaded_into_an_empty_database_that_nobody_uses(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    """What is there is not written over."""
    filled(url := new_database())
    backup.save(url, file := tmp_path / "backup")
    with pytest.raises(RefusedError, match="not empty"):
        backup.load(url, file)
    target = new_database()
    store = ServerStore(target)
    store.migrate()
    if store.shareable:
        store.join("at work")
    else:
        store.claim()
    with pytest.raises(RefusedError, match="working on this database"):
        backup.load(target, file)
    store.close()
    backup.load(target, file)


def test_every_table_is_either_saved_or_comes_back_by_itself() -> None:
    """A new table is saved unless somebody decided otherwise."""
    names = {table.name for table in backup.saved()}
    assert {
        "mail",
        "accepted_ids",
        "counters",
        "key_bundles",
        "prekeys",
        "one_time_prekeys",
        "blobs",
    } <= names
    assert not {"users", "chain_logs", "nodes", "leases", "presence"} & names
