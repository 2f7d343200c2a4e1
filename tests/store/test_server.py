"""The relay's store on SQLite and on a real MariaDB, by the same claims."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, event, select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from chatchain.chain.sync import MemoryLogStore
from chatchain.errors import BadConfig, RefusedError, StoreUnavailable
from chatchain.model import (
    Address,
    BlockRef,
    Delivery,
    Device,
    DeviceId,
    DeviceState,
    DeviceVersion,
    KeyBundle,
    Letter,
    LogRow,
    Policy,
    Run,
    Uid,
    User,
)
from chatchain.store import letters, scripts
from chatchain.store import writer as writing
from chatchain.store.database import open_database, sentence
from chatchain.store.letters import EXPIRED_RUNS, RUN_BYTES, RUN_PARCELS
from chatchain.store.scripts import FEW_BYTES
from chatchain.store.server import ACCEPTED_DAYS, PRUNE_PARTS, ServerStore, ServerWriter, part_bounds
from chatchain.store.tables import counters, metadata
from chatchain.store.writer import BATCH_BYTES, BATCH_ITEMS, Listener, Told, Verdict
from chatchain.wire.connection import frame
from chatchain.wire.messages import Deliver
from chatchain.wire.parcels import deliver_frames
from deploy import certificates
from tests.fixtures.mariadb import MariaDB

ADA, BOB, CARL = 100_000_000_000_001, 100_000_000_000_002, 100_000_000_000_003
DAY_MS = 24 * 3600 * 1000


class Ears:
    """Hears what the writer tells and lets a test wait for it."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[Letter, Verdict] | str] = queue.Queue()
        self.batches: list[int] = []
        self.runs: list[Run] = []
        self.words: list[str] = []
        self.reasons: list[str] = []
        self.expired: list[tuple[list[Run], list[Run]]] = []

    def kept(self, told: Told, runs: list[Run]) -> None:
        self.batches.append(len(told))
        self.runs += runs
        for one in told:
            self.heard.put(one)

    def listener(self) -> Listener:
        return Listener(
            self.kept,
            self._failed,
            lambda: self._hear("settled"),
            expired=lambda gone, told: self.expired.append((gone, told)),
        )

    def _failed(self, reason: str) -> None:
        self.reasons.append(reason)
        self._hear("failed")

    def _hear(self, word: str) -> None:
        self.words.append(word)
        self.heard.put(word)

    def verdicts(self, count: int) -> Told:
        """The next verdicts, other news left out."""
        found: Told = []
        while len(found) < count:
            one = self.heard.get(timeout=30)
            if not isinstance(one, str):
                found.append(one)
        return found

    def wait_for(self, word: str) -> None:
        while self.heard.get(timeout=30) != word:
            pass


class Turned:
    """A clock that stands until the test turns it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'relay.db'}"
    return str(request.getfixturevalue("mariadb_url"))


@pytest.fixture
def store(url: str) -> Iterator[ServerStore]:
    """A store with its tables."""
    made = ServerStore(url)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def writer(store: ServerStore, ears: Ears) -> Iterator[ServerWriter]:
    """The committing thread."""
    made = store.writer(ears.listener())
    yield made
    made.stop()


def letter(
    *to: tuple[int, int],
    body: bytes = b"body",
    id: bytes = b"",
    digest: bytes = bytes(16),
    at: int = 5,
    device: int = 1,
    sender: int = ADA,
    session: int = 1,
) -> Letter:
    """A letter whose parcels are the bare body."""
    parcels = tuple((uid, number, body) for uid, number in to or ((BOB, 1),))
    return Letter(session, sender, device, id or secrets.token_bytes(16), digest, at, parcels, len(body))


def bodies(store: ServerStore, uid: int = BOB, device: int = 1) -> list[bytes]:
    runs, more = store.waiting(uid, device, 0, 10_000, 2**30)
    assert not more
    return [parcel for run in runs for parcel in run.parcels]


# --- tables -------------------------------------------------------------------------------------------------


def test_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    """Running them twice changes nothing, and nothing is left to be generated."""
    store = ServerStore(url)
    store.migrate()
    store.migrate()
    engine = open_database(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        found = {row.name: row.value for row in connection.execute(select(counters))}
        assert found.pop("space") > 0
        assert found == dict.fromkeys(("sequence", "login", "fold", "looks", "head"), 0)
    engine.dispose()
    store.close()


def test_a_database_of_a_newer_version_is_left_alone(store: ServerStore, url: str) -> None:
    """An old program does not touch tables that it does not know, and works on those that it may."""
    engine = create_engine(url)

    def upgrade(oldest: str) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.execute(text(f"UPDATE network SET value = {oldest} WHERE name = 'oldest_revision'"))

    upgrade("9999")
    with pytest.raises(StoreUnavailable, match="newer version"):
        store.migrate()
    upgrade("1")
    store.migrate()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    engine.dispose()


def test_an_sqlite_database_serves_one_relay_at_a_time(tmp_path: Path) -> None:
    """The second is told so; when the first goes the database is free."""
    url = f"sqlite:///{tmp_path / 'relay.db'}"
    store, second = ServerStore(url), ServerStore(url)
    assert not store.shareable
    store.migrate()
    store.claim()
    with pytest.raises(RefusedError, match="Another relay"):
        second.claim()
    store.close()
    second.claim()
    second.close()


def test_a_relay_that_begins_alone_begins_another_space(tmp_path: Path) -> None:
    """It cannot know whether the database is as it was left; until it ends the space stays."""
    url, spaces = f"sqlite:///{tmp_path / 'relay.db'}", []
    for _ in range(3):
        store = ServerStore(url)
        store.migrate()
        store.claim()
        assert store.space() == store.space()
        spaces.append(store.space())
        store.close()
    assert len(set(spaces)) == 3
    assert all(0 < space < 2**63 for space in spaces)


def test_f10_nobody_else_can_lock_a_database_file(tmp_path: Path) -> None:
    """Whoever may read a file may lock it: neither the database nor its lock is for others, old or new."""
    (tmp_path / "relay.db.lock").touch(mode=0o644)
    before = os.umask(0)
    try:
        store = ServerStore(f"sqlite:///{tmp_path / 'relay.db'}")
        store.migrate()
        store.claim()
    finally:
        os.umask(before)
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    store.close()
    assert {"relay.db", "relay.db.lock"} <= set(files)
    assert set(files.values()) == {0o600}


def test_a_database_belongs_to_one_deployment(store: ServerStore) -> None:
    """Another chain or Directory is refused instead of mixed in."""
    store.deployment(31337, b"a" * 20)
    store.deployment(31337, b"a" * 20)
    with pytest.raises(BadConfig):
        store.deployment(31337, b"b" * 20)
    with pytest.raises(BadConfig):
        store.deployment(1, b"a" * 20)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "postgresql://localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql+pymysql://u:p@localhost",
    ],
)
def test_a_useless_database_url_is_a_matter_of_configuration(url: str) -> None:
    """And the sentence does not repeat it, for it may hold a password."""
    with pytest.raises(BadConfig) as raised:
        ServerStore(url)
    assert "u:p" not in str(raised.value)


def test_a_database_that_is_not_there_is_named_in_a_sentence(mariadb: MariaDB, tmp_path: Path) -> None:
    """Refused connections, wrong passwords, missing databases and folders that cannot be written."""
    good = mariadb.new_database()
    bad = {
        good.replace(mariadb.password, "wrong"): "refuses the user or the password",
        good.rsplit("/", 1)[0] + "/nowhere": "does not exist",
        "mysql+pymysql://u:secret@127.0.0.1:1/x": "does not answer",
        "mysql+pymysql://u:se@cret@127.0.0.1:1/x": "does not answer",
        f"{good}?ssl_ca={tmp_path / 'none.pem'}": "A file that the database URL names cannot be used",
    }
    for url, said in bad.items():
        with pytest.raises(StoreUnavailable, match=said) as raised:
            ServerStore(url).check()
        told = f"{raised.value} {raised.value.hint}"
        assert mariadb.password not in told
        assert "cret" not in told
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "relay.db", tmp_path):
        with pytest.raises(StoreUnavailable, match="cannot be opened"):
            ServerStore(f"sqlite:///{path}")


def test_tls_with_the_database_goes_by_the_authority_that_its_url_names(tmp_path: Path) -> None:
    """A server for which somebody else vouches gets no password, and the sentence says what failed."""
    folder = tmp_path / "server"
    folder.mkdir()
    pair = certificates.make(tmp_path / "tls")
    server = MariaDB(folder, f"--ssl-cert={pair.certificate}", f"--ssl-key={pair.key}")
    try:
        url = server.new_database()
        ServerStore(f"{url}?ssl_ca={tmp_path / 'tls' / 'ca.pem'}").check()
        certificates.make(tmp_path / "other")
        with pytest.raises(StoreUnavailable, match="TLS with the database server failed"):
            ServerStore(f"{url}?ssl_ca={tmp_path / 'other' / 'ca.pem'}").check()
    finally:
        server.stop()


@pytest.mark.parametrize("asked", ["ssl=1", "nonsense=1"])
def test_what_the_databases_driver_does_not_know_is_a_matter_of_configuration(
    mariadb_url: str, asked: str
) -> None:
    """Behind the URL's question mark anything may stand; it is no bug of the relay."""
    with pytest.raises(BadConfig, match="asks for what the driver does not know"):
        ServerStore(f"{mariadb_url}?{asked}").check()


def test_a_user_who_may_not_enough_is_told_what_he_needs(mariadb: MariaDB) -> None:
    """One who has no part of the database at all, and one who may only read it."""
    good = mariadb.new_database()
    name = good.rpartition("/")[2]
    mariadb.execute("CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'p'")
    url = f"mysql+pymysql://reader:p@127.0.0.1:{mariadb.port}/{name}"
    try:
        with pytest.raises(StoreUnavailable, match="does not exist, or this user has no rights") as raised:
            ServerStore(url).check()
        assert "GRANT ALL" in raised.value.hint
        mariadb.execute(f"GRANT SELECT ON {name}.* TO reader@'127.0.0.1'")
        with pytest.raises(StoreUnavailable, match="CREATE command denied") as raised:
            ServerStore(url).migrate()
        assert "GRANT ALL" in raised.value.hint
    finally:
        mariadb.execute("DROP USER reader@'127.0.0.1'")


# --- writing ------------------------------------------------------------------------------------------------


def test_what_is_kept_waits_for_each_device(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """A run a device, told as it is stored, and nothing for anybody else."""
    body = b"\x00\xff'\"\\%s"
    made = letter((BOB, 1), (BOB, 2), (ADA, 7), body=body)
    writer.keep([made])
    assert ears.verdicts(1) == [(made, "stored")]
    runs = [Run(BOB, 1, ADA, 1, [body]), Run(BOB, 2, ADA, 2, [body]), Run(ADA, 7, ADA, 3, [body])]
    assert ears.runs == runs
    assert store.waiting(BOB, 2, 0, 10, 1000) == ([runs[1]], False)
    assert store.usage() == ({(BOB, 1, ADA): (1, 7), (BOB, 2, ADA): (1, 7), (ADA, 7, ADA): (1, 7)}, 3)
    assert store.waiting(BOB, 3, 0, 10, 1000) == ([], False)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("_SET", b"SET @box1 = NO_SUCH_FUNCTION(?)"),
        ("_OURS", "SET @script = IF({} < 0, 0, (SELECT 1 UNION SELECT 2));"),
    ],
    ids=["does not know the statement", "takes other values than were sent"],
)
def test_a_server_that_takes_no_boxes_gets_text(
    store: ServerStore, ears: Ears, monkeypatch: pytest.MonkeyPatch, part: str, other: bytes | str
) -> None:
    """It is found out at the first commit, which nobody notices."""
    monkeypatch.setattr(scripts, part, other)
    writer = store.writer(ears.listener())
    large = [letter(body=bytes([number]) * 2 * FEW_BYTES) for number in range(3)]
    try:
        for one in large:
            writer.keep([one])
            assert ears.verdicts(1) == [(one, "stored")]
    finally:
        writer.stop()
    assert bodies(store) == [one.parcels[0][2] for one in large]
    assert ears.words == []


def test_one_commit_makes_a_run_of_what_a_sender_has_for_a_device(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """Whatever comes between; several senders' runs have sequences of their own, none of them twice."""
    made = [
        letter((BOB, 1), (BOB, 2), sender=(ADA, CARL)[number % 2], body=str(number).encode())
        for number in range(6)
    ]
    writer.keep(made)
    assert ears.verdicts(6) == [(one, "stored") for one in made]
    even, odd = [b"0", b"2", b"4"], [b"1", b"3", b"5"]
    assert ears.runs == [
        Run(BOB, 1, ADA, 1, even),
        Run(BOB, 2, ADA, 4, even),
        Run(BOB, 1, CARL, 7, odd),
        Run(BOB, 2, CARL, 10, odd),
    ]
    assert store.waiting(BOB, 1, 0, 10, 1000) == ([ears.runs[0], ears.runs[2]], False)


def test_what_follows_a_sequence_may_begin_within_a_run(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """Then the rest of it is given; and a run stays until all of it is acknowledged."""
    writer.keep([letter(body=bytes([number])) for number in range(5)])
    ears.verdicts(5)
    writer.remove(BOB, 1, 2)
    writer.run(lambda connection: None).result(10)
    assert store.waiting(BOB, 1, 2, 10, 1000) == ([Run(BOB, 1, ADA, 3, [b"\x02", b"\x03", b"\x04"])], False)
    assert len(bodies(store)) == 5
    writer.remove(BOB, 1, 5)
    writer.run(lambda connection: None).result(10)
    assert bodies(store) == []


def test_runs_are_bounded(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """In messages and in bytes, so that each fits into what may be on its way."""
    writer.keep([letter() for _ in range(RUN_PARCELS + 1)])
    ears.verdicts(RUN_PARCELS + 1)
    assert [len(run.parcels) for run in ears.runs] == [RUN_PARCELS, 1]
    writer.keep([letter((BOB, 2), body=bytes(RUN_BYTES // 2)) for _ in range(3)])
    ears.verdicts(3)
    assert [len(run.parcels) for run in ears.runs[2:]] == [2, 1]
    assert [run.first for run in ears.runs] == [1, 65, 66, 68]


def test_one_sender_s_order_is_kept_through_batches(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """More than a batch at once comes out in order, ticked in order."""
    made = [letter(body=str(number).encode()) for number in range(BATCH_ITEMS + 500)]
    for start in range(0, len(made), 7):
        writer.keep(made[start : start + 7])
    assert ears.verdicts(len(made)) == [(one, "stored") for one in made]
    sequences = [sequence for run in ears.runs for sequence in range(run.first, run.last + 1)]
    assert sequences == list(range(1, len(made) + 1))
    assert bodies(store) == [str(number).encode() for number in range(len(made))]
    assert max(ears.batches) > 7, "nothing was committed together"


def test_a_repetition_is_known_and_stored_once(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """Within a batch, later, and after a restart; by sender, device and id together."""
    made = letter()
    writer.keep([made, letter(id=made.id), letter(id=made.id)])
    assert [verdict for _, verdict in ears.verdicts(3)] == ["stored", "duplicate", "duplicate"]
    others = [letter() for _ in range(5)]
    writer.keep([letter(id=made.id, digest=b"\x01" * 16), letter(id=made.id, device=2), *others])
    told = [verdict for _, verdict in ears.verdicts(7)]
    assert told == ["conflict", *["stored"] * 6]
    later = store.writer(ears.listener())
    later.keep([made])
    assert ears.verdicts(1) == [(made, "duplicate")]
    later.stop()
    assert len(bodies(store)) == 7
    assert store.accepted(ADA, 1, made.id) == bytes(16)
    assert store.accepted(BOB, 1, made.id) is None


def test_one_refused_row_spoils_no_other(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """A row that cannot be written fails alone, and the writer goes on."""
    bad = letter(digest=None)  # type: ignore[arg-type]  # nothing that the relay makes would be refused
    good = [letter(body=b"1"), letter(body=b"2")]
    writer.keep([good[0], bad, good[1]])
    told = {made.id: verdict for made, verdict in ears.verdicts(3)}
    assert told[good[0].id] == told[good[1].id] == "stored"
    assert told[bad.id] == "failed"
    assert bodies(store) == [b"1", b"2"]


def test_acknowledged_rows_go(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """Only those; and a sequence is never used again, not even when the mailbox is empty."""
    for number in range(4):
        writer.keep([letter((BOB, 1), (BOB, 2), body=bytes([number]))])
        ears.verdicts(1)
    writer.remove(BOB, 1, 3)
    writer.remove(BOB, 1, 2)  # a device that connected anew may say less than before
    writer.remove(CARL, 1, 99)
    writer.run(lambda connection: None).result(10)
    assert bodies(store) == [b"\x02", b"\x03"]
    assert len(bodies(store, device=2)) == 4
    for uid in range(1, 500):
        writer.remove(uid, 1, 99)
    writer.remove(BOB, 1, 99)
    writer.remove(BOB, 2, 99)
    writer.stop()
    again = store.writer(ears.listener())
    again.keep([letter()])
    ears.verdicts(1)
    assert ears.runs[-1].first == 9
    assert bodies(store) == [b"body"]
    again.stop()


def test_reads_are_bounded_by_rows_and_bytes(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """At least one run comes, however large, and the rest follows after its sequence."""
    for _ in range(5):
        writer.keep([letter(body=bytes(1000))])
        ears.verdicts(1)
    few, more = store.waiting(BOB, 1, 0, 3, 2**20)
    assert ([run.last for run in few], more) == ([1, 2, 3], True)
    small, more = store.waiting(BOB, 1, 0, 10, 2500)
    assert ([run.last for run in small], more) == ([1, 2], True)
    one, more = store.waiting(BOB, 1, 4, 10, 1)
    assert ([run.last for run in one], more) == ([5], False)
    writer.keep([letter(body=b"a"), letter(body=b"b")])
    ears.verdicts(2)
    whole, more = store.waiting(BOB, 1, 4, 2, 2**20)
    assert ([run.last for run in whole], more) == ([5], True), "a run that is one too long waits"


def test_the_largest_row_fits(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """A body of the protocol's limit for many devices, in bytes that need escaping."""
    made = letter(*((BOB, device) for device in range(1, 65)), body=b"'" * 200 * 1024)
    writer.keep([made])
    assert ears.verdicts(1) == [(made, "stored")]
    assert bodies(store, device=64) == [b"'" * 200 * 1024]


def test_forgetting_a_device_leaves_the_others(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """Its rows and its bundle go."""
    writer.keep([letter((BOB, 1), (BOB, 2))])
    ears.verdicts(1)
    for device in (1, 2):
        writer.publish(KeyBundle(BOB, device, 1, b"k", 1, 2, b"s")).result(10)
    writer.forget_device(BOB, 1).result(10)
    assert store.usage() == ({(BOB, 2, ADA): (1, 4)}, 2)
    assert [bundle.device for bundle in store.bundles([BOB])] == [2]


def test_a_bundle_replaces_the_one_before(store: ServerStore, writer: ServerWriter) -> None:
    """One a device, given out as published."""
    old, new = KeyBundle(BOB, 1, 1, b"old", 1, 2, b"s"), KeyBundle(BOB, 1, 2, b"new" * 400, 3, 4, b"t" * 64)
    others = [KeyBundle(ADA, 1, 1, b"her", 1, 2, b"s"), KeyBundle(BOB, 2, 1, b"second", 1, 2, b"s")]
    for bundle in (old, *others, new):
        writer.publish(bundle).result(10)
    assert store.bundles([BOB, ADA]) == [others[0], new, others[1]]


def test_old_ids_are_forgotten_and_young_ones_kept(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """So the memory of repetitions is bounded."""
    now = 100 * DAY_MS
    old = letter(at=now - (ACCEPTED_DAYS + 1) * DAY_MS, id=b"\xff" * 16)
    young = letter(at=now - (ACCEPTED_DAYS - 1) * DAY_MS, id=b"\xff" * 15 + b"\0")
    elsewhere = letter(at=now - (ACCEPTED_DAYS + 1) * DAY_MS, id=b"\x00" * 16)
    writer.keep([old, young, elsewhere])
    ears.verdicts(3)
    writer.next_part = PRUNE_PARTS - 1
    assert writer.prune(now).result(10) is False
    known = [store.accepted(ADA, 1, made.id) is not None for made in (old, young, elsewhere)]
    assert known == [False, True, True]
    assert writer.prune(now).result(10) is False
    assert store.accepted(ADA, 1, elsewhere.id) is None


def test_what_is_too_old_goes_and_its_senders_are_told(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """In one transaction; the young stays, and the word of it waits like any message."""
    for at in (10, 30):
        writer.keep([letter((BOB, 1), (BOB, 2), body=str(at).encode(), at=at)])
        ears.verdicts(1)
    asked: list[tuple[list[int], int]] = []

    def tell(gone: Sequence[Run], people: Sequence[Device], now_ms: int) -> list[Letter]:
        asked.append(([run.last for run in gone], now_ms))
        return [letter((ADA, 1), body=b"word", sender=BOB)] if gone else []

    assert writer.expire(20, 99, tell).result(10) is False
    assert writer.expire(20, 99, tell).result(10) is False
    assert asked == [([1, 2], 99), ([], 99)]
    assert [bodies(store, *device) for device in ((BOB, 1), (BOB, 2), (ADA, 1))] == [
        [b"30"],
        [b"30"],
        [b"word"],
    ]
    ((gone, told),) = ears.expired
    assert [(run.uid, run.device, run.last, run.parcels) for run in gone] == [
        (BOB, 1, 1, [b"10"]),
        (BOB, 2, 2, [b"10"]),
    ]
    assert [(run.uid, run.sender, run.first, run.parcels) for run in told] == [(ADA, BOB, 5, [b"word"])]


def test_of_two_devices_mail_what_is_old_goes_and_nothing_beside_it(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """Not even what lies before it, as when another node's clock was ahead; and who is concerned is known."""
    store.rewrite([user(ADA), user(BOB, name="bob", states=(DeviceState.ACTIVE,) * 2)], [], settled_to=1)
    for to, at in (((BOB, 1), 21), ((BOB, 1), 20), ((BOB, 2), 19)):
        writer.keep([letter(to, body=str(at).encode(), at=at)])
        ears.verdicts(1)
    asked: list[set[tuple[int, int]]] = []

    def tell(gone: Sequence[Run], people: Sequence[Device], now_ms: int) -> list[Letter]:
        asked.append({(device.uid, device.device) for device in people})
        return []

    writer.expire(20, 99, tell).result(10)
    assert asked == [{(ADA, 1), (BOB, 1), (BOB, 2)}]
    assert (bodies(store, BOB, 1), bodies(store, BOB, 2)) == ([b"21", b"20"], [])


def test_a_node_whose_clock_is_ahead_gives_nothing_up(mariadb_url: str, ears: Ears) -> None:
    """The database's clock counts as well: what is young by either stays, for all nodes."""
    store = ServerStore(mariadb_url)
    store.migrate()
    writer = store.writer(ears.listener())
    now = time.time_ns() // 1_000_000
    young, old = letter(at=now), letter(at=now - 31 * DAY_MS, id=b"\xff" * 16)
    for each in (old, young):
        writer.keep([each])
        ears.verdicts(1)
    late = now + 400 * DAY_MS

    def tell(gone: Sequence[Run], people: Sequence[Device], now_ms: int) -> list[Letter]:
        return []

    assert writer.expire(late - 30 * DAY_MS, late, tell).result(10) is False
    assert len(bodies(store)) == 1
    for _ in range(PRUNE_PARTS):
        writer.prune(late).result(10)
    assert store.accepted(ADA, 1, young.id) is not None
    writer.stop()
    store.close()


def test_what_fails_to_be_told_is_not_given_up(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """It stays as it was, and nobody hears that it went."""
    writer.keep([letter()])
    ears.verdicts(1)

    def tell(gone: Sequence[Run], people: Sequence[Device], now_ms: int) -> list[Letter]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writer.expire(20, 99, tell).result(10)
    assert bodies(store) == [b"body"]
    assert ears.expired == []


def test_old_messages_go_in_batches_that_part_no_copies(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """What came of one commit, or at least of one sender for one user, is looked at together."""
    uids = [BOB + number for number in range(EXPIRED_RUNS // 3 + 10)]
    writer.keep([letter(*((uid, device) for device in (1, 2, 3))) for uid in uids])
    ears.verdicts(len(uids))
    writer.keep([letter(at=6)])
    ears.verdicts(1)
    batches: list[list[int]] = []

    def tell(gone: Sequence[Run], people: Sequence[Device], now_ms: int) -> list[Letter]:
        batches.append([run.uid for run in gone])
        return []

    while writer.expire(20, 99, tell).result(10):
        pass
    assert [len(batch) % 3 for batch in batches] == [0, 1]
    assert max(map(len, batches)) <= EXPIRED_RUNS
    assert sum(map(len, batches)) == 3 * len(uids) + 1
    assert store.usage() == ({}, 0)


def test_every_id_is_in_exactly_one_part() -> None:
    """So each is looked at once in a round."""
    bounds = [part_bounds(part) for part in range(PRUNE_PARTS)]
    assert bounds[0][0] == b""
    assert bounds[-1][1] > b"\xff" * 16
    assert all(before[1] == after[0] for before, after in pairwise(bounds))


def test_a_failing_job_hurts_nobody(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """Its own failure comes back to who asked, and the thread goes on."""

    def bug(connection: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writer.run(bug).result(10)
    writer.keep([letter()])
    assert [verdict for _, verdict in ears.verdicts(1)] == ["stored"]


def test_what_waits_is_committed_in_batches(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """However much was handed over at once: others wait for one commit only."""
    begun, go_on = threading.Event(), threading.Event()

    def busy(_: Any) -> None:
        begun.set()
        assert go_on.wait(60)

    waiting = writer.run(busy)
    assert begun.wait(60)
    large = bytes(BATCH_BYTES // 2)
    writer.keep([letter(body=large) for _ in range(4)])
    writer.keep([letter(body=large)])
    go_on.set()
    waiting.result(60)
    ears.verdicts(5)
    assert ears.batches == [2, 2, 1]


def test_a_deadlock_is_tried_again(store: ServerStore, writer: ServerWriter) -> None:
    """A few times: the database gave the statement back and holds nothing of it."""
    tries: list[int] = []

    def work(_: Any) -> int:
        tries.append(len(tries))
        if len(tries) < lasts:
            raise OperationalError("x", None, Exception(1213, "Deadlock found"))
        return 7

    lasts = 3
    assert writer.run(work).result(60) == 7
    tries.clear()
    lasts = 9
    with pytest.raises(StoreUnavailable):
        writer.run(work).result(60)
    assert len(tries) == 3


def hold_ids(connection: Connection, *held: Letter) -> None:
    """Remembers ids as a process would that is about to commit them."""
    for statement in letters.accepting(held):
        connection.exec_driver_sql(statement)


def await_a_lock(store: ServerStore) -> None:
    """Waits until some transaction waits for what another holds."""
    waiting = text("SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with store._engine.connect() as connection:
            if connection.execute(waiting).scalar_one():
                return
        time.sleep(0.2)  # asked more often than every 0.1 s the server says what it said before
    raise AssertionError("nobody waits")


def test_who_waits_for_an_id_keeps_no_other_process_waiting(mariadb: MariaDB, ears: Ears) -> None:
    """A message that comes again through another process while its first commit is under way."""
    store = ServerStore(mariadb.new_database())
    store.migrate()
    writers = [store.writer(ears.listener()) for _ in range(2)]
    again, other = letter(), letter(sender=CARL)
    with store._engine.connect() as connection:
        hold_ids(connection, again)
        writers[0].keep([again])
        await_a_lock(store)
        writers[1].keep([other])
        assert ears.verdicts(1) == [(other, "stored")]
        connection.commit()
    assert ears.verdicts(1) == [(again, "duplicate")]
    for one in writers:
        one.stop()
    store.close()


def test_ids_are_inserted_in_one_order_by_all() -> None:
    """Processes that are given the same messages in different orders then wait for each other one way."""
    given = [letter(id=bytes([number] * 16)) for number in (7, 3, 255, 0)]
    (statement,) = letters.accepting(given)
    places = [statement.index(each.id.hex()) for each in given]
    assert sorted(places) == [places[which] for which in (3, 1, 0, 2)]


def test_a_deadlock_that_comes_again_and_again_is_no_outage(
    store: ServerStore, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be committed together then goes one by one."""
    together: list[int] = []
    accepting = letters.accepting

    def crossed(given: Sequence[Letter]) -> Iterator[str]:
        together.append(len(given))
        if len(given) > 1:
            raise OperationalError("x", None, Exception(1213, "Deadlock found"))
        return accepting(given)

    monkeypatch.setattr(letters, "accepting", crossed)
    writer = store.writer(ears.listener())
    given = [letter(body=b"1"), letter(body=b"2")]
    writer.keep(given)
    assert ears.verdicts(2) == [(each, "stored") for each in given]
    assert (together, ears.words) == ([2, 2, 2, 1, 1], [])
    assert bodies(store) == [b"1", b"2"]
    writer.stop()


def test_ids_that_are_waited_for_crosswise_are_stored(mariadb: MariaDB, ears: Ears) -> None:
    """By somebody who does not keep to the order of ids: a deadlock, which the database ends at the cost of
    one.
    """
    store = ServerStore(mariadb.new_database())
    store.migrate()
    writer = store.writer(ears.listener())
    first, second = letter(body=b"1", id=bytes(16)), letter(body=b"2", id=bytes([255] * 16))
    with store._engine.connect() as connection:
        hold_ids(connection, second)
        writer.keep([first, second])
        await_a_lock(store)
        with contextlib.suppress(OperationalError):  # unless it is the writer that has to begin again
            hold_ids(connection, first)
        connection.rollback()
    assert ears.verdicts(2) == [(first, "stored"), (second, "stored")]
    assert bodies(store) == [b"1", b"2"]
    writer.stop()
    store.close()


def test_nothing_is_committed_late_by_a_session_that_was_lost(mariadb: MariaDB, ears: Ears) -> None:
    """The server may not have noticed that a connection is gone, and have more of its script to run: the
    writer goes on only once that session is ended. Its message failed, and can come again.
    """
    store = ServerStore(mariadb.new_database())
    store.migrate()
    writer = store.writer(ears.listener())
    number = writer.run(lambda c: c.execute(text("SELECT CONNECTION_ID()")).scalar_one()).result(60)
    lost = letter(body=b"lost")
    listed = text("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE id = :number")
    with store._engine.connect() as connection:
        hold_ids(connection, lost)
        writer.keep([lost])
        await_a_lock(store)
        assert writer._connection is not None
        driver: Any = writer._connection.connection.driver_connection
        driver._sock.shutdown(socket.SHUT_RDWR)
        assert ears.verdicts(1) == [(lost, "failed")]
        ears.wait_for("settled")
        assert connection.execute(listed, {"number": number}).scalar_one() == 0
        connection.rollback()
    assert bodies(store) == []
    again = msgspec.structs.replace(lost, session=lost.session + 1)
    writer.keep([again])
    assert ears.verdicts(1) == [(again, "stored")]
    assert bodies(store) == [b"lost"]
    writer.stop()
    store.close()


def test_two_processes_on_one_database_do_not_share_a_sequence(store: ServerStore, ears: Ears) -> None:
    """Two writers at once: every row once, all sequences different."""
    writers = [store.writer(ears.listener()) for _ in range(2)]
    for number in range(400):
        writers[number % 2].keep([letter(body=str(number).encode(), device=number % 2 + 1)])
    told = ears.verdicts(400)
    for one in writers:
        one.stop()
    assert {verdict for _, verdict in told} == {"stored"}
    sequences = [sequence for run in ears.runs for sequence in range(run.first, run.last + 1)]
    assert len(set(sequences)) == len(sequences) == 400
    found = bodies(store)
    for parity in (0, 1):
        mine = [body for body in found if int(body) % 2 == parity]
        assert mine == [str(number).encode() for number in range(parity, 400, 2)]


def test_a_stopped_database_is_no_false_tick(mariadb: MariaDB, ears: Ears) -> None:
    """While it is away everything fails at once; when it is back the writer says so and stores again."""
    store = ServerStore(mariadb.new_database())
    store.migrate()
    writer = store.writer(ears.listener())
    writer.keep([letter(body=b"before")])
    assert [verdict for _, verdict in ears.verdicts(1)] == ["stored"]
    mariadb.stop()
    try:
        lost = letter(body=b"lost")
        writer.keep([lost])
        assert ears.verdicts(1) == [(lost, "failed")]
        for _ in range(100):
            writer.keep([letter()])
        assert {verdict for _, verdict in ears.verdicts(100)} == {"failed"}
        with pytest.raises(StoreUnavailable):
            writer.publish(KeyBundle(BOB, 1, 1, b"k", 1, 2, b"s")).result(30)
        with pytest.raises(StoreUnavailable):
            store.usage()
        assert ears.words == ["failed"], "said once, and it is away still"
        assert ["database" in reason for reason in ears.reasons] == [True]
    finally:
        mariadb.start()
    ears.wait_for("settled")
    assert ears.words == ["failed", "settled"]
    again = msgspec.structs.replace(lost, session=lost.session + 1)
    writer.keep([again])
    assert ears.verdicts(1) == [(again, "stored")]
    assert bodies(store) == [b"before", b"lost"]
    writer.stop()
    store.close()


def test_nothing_overtakes_what_failed(store: ServerStore, ears: Ears) -> None:
    """A session whose message failed has more on its way: that is refused however long it took, as when the
    process slept, until the relay has heard; another session is not.
    """
    writer = store.writer(ears.listener())
    away = True

    def lose(*_: object) -> None:
        if away:
            raise OperationalError("BEGIN", None, ConnectionResetError())

    event.listen(store._engine, "engine_connect", lose)
    try:
        first, second, other = letter(body=b"1"), letter(body=b"2"), letter(body=b"other", session=9)
        writer.keep([first])
        assert ears.verdicts(1) == [(first, "failed")]
        away = False
        ears.wait_for("settled")
        writer.keep([second, other])
        assert ears.verdicts(2) == [(second, "failed"), (other, "stored")]
        heard = [msgspec.structs.replace(each, round=1) for each in (first, second)]
        writer.keep([second, *heard])
        assert ears.verdicts(3) == [(second, "failed"), *((each, "stored") for each in heard)]
    finally:
        event.remove(store._engine, "engine_connect", lose)
    assert bodies(store) == [b"other", b"1", b"2"]
    writer.stop()


def test_what_waits_for_a_device_is_counted_up_to_a_bound(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """Message by message behind a sequence; a run that was acknowledged in part counts whole."""
    for count in (3, 1, 2):
        writer.keep([letter() for _ in range(count)])
        ears.verdicts(count)
    writer.keep([letter((BOB, 2)), letter((CARL, 1))])
    ears.verdicts(2)
    assert store.count_waiting(BOB, 1, 0, 10) == (6, False)
    assert store.count_waiting(BOB, 1, 0, 2) == (4, True)
    assert store.count_waiting(BOB, 1, 2, 10) == (6, False)
    assert store.count_waiting(BOB, 1, 3, 10) == (3, False)
    assert store.count_waiting(BOB, 1, 6, 10) == (0, False)
    assert store.count_waiting(ADA, 1, 0, 10) == (0, False)


def test_who_was_just_told_waits_for_company(
    store: ServerStore, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who send one message at a time share a commit, however their messages come; a third who sends for
    the first time shares it; who has no company any more waits no longer than a moment.
    """
    monkeypatch.setattr(writing, "COMPANY", 20.0)
    writer = store.writer(ears.listener())
    writer.keep([letter(session=1), letter(session=2)])
    ears.verdicts(2)
    for session in (2, 3, 1):
        writer.keep([letter(session=session)])
    assert [told.session for told, _ in ears.verdicts(3)] == [2, 3, 1]
    assert ears.batches == [2, 3]
    monkeypatch.setattr(writing, "COMPANY", 0.01)
    for session in (2, 3, 1):
        writer.keep([letter(session=session)])
    ears.verdicts(3)
    writer.keep([letter(session=1)])
    assert len(ears.verdicts(1)) == 1
    writer.stop()


def test_who_brings_enough_waits_for_nobody(
    store: ServerStore, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once or letter by letter, and again after the next commit; one letter fewer does wait."""
    monkeypatch.setattr(writing, "COMPANY", 3600.0)
    writer = store.writer(ears.listener())
    writer.keep([letter(session=1), letter(session=2)])
    ears.verdicts(2)
    writer.keep([letter(session=1) for _ in range(writing.ENOUGH)])
    ears.verdicts(writing.ENOUGH)
    writer.keep([letter(session=1), letter(session=2)])
    ears.verdicts(2)
    for number in range(1, writing.ENOUGH + 1):
        if number == writing.ENOUGH:
            assert ears.batches == [2, writing.ENOUGH, 2]
        writer.keep([letter(session=2)])
    ears.verdicts(writing.ENOUGH)
    assert ears.batches == [2, writing.ENOUGH, 2, writing.ENOUGH]
    writer.stop()


def test_deletions_wait_for_a_commit_but_not_for_ever(
    store: ServerStore, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go with a later commit, all of a device at once, or by themselves after a while."""
    deletions: list[int] = []

    def counted(done: dict[tuple[int, int], int]) -> Iterator[str]:
        deletions.append(len(done))
        return deleting(done)

    deleting = letters.deleting
    monkeypatch.setattr(letters, "deleting", counted)
    monkeypatch.setattr(writing, "LINGER", 0.0)
    monkeypatch.setattr(writing, "ALONE", 3600.0)
    writer = store.writer(ears.listener())
    writer.keep([letter(body=b"1"), letter(body=b"2", sender=CARL), letter((CARL, 1), body=b"3")])
    ears.verdicts(3)
    deletions.clear()
    for through in (1, 2):
        writer.remove(BOB, 1, through)
    writer.remove(CARL, 1, 3)
    assert bodies(store) == [b"1", b"2"]
    assert (writer.removed(BOB, 1), writer.removed(CARL, 1), writer.removed(ADA, 1)) == (2, 3, 0)
    writer.keep([letter(body=b"4")])
    ears.verdicts(1)
    assert (bodies(store), bodies(store, CARL), deletions) == ([b"4"], [], [2])
    monkeypatch.setattr(writing, "ALONE", 0.0)
    writer.remove(BOB, 1, 4)
    while bodies(store):
        time.sleep(0.01)
    writer.stop()


def test_what_is_being_deleted_need_not_be_read(
    store: ServerStore, writer: ServerWriter, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the word of it until it is gone, so that nobody who connects meanwhile is given it again."""
    writer.keep([letter()])
    ears.verdicts(1)
    during: list[tuple[int, int]] = []
    deleting = letters.deleting

    def watched(done: Mapping[tuple[int, int], int]) -> Iterator[str]:
        during.append((writer.removed(BOB, 1), writer.removed(BOB, 2)))
        return deleting(done)

    monkeypatch.setattr(letters, "deleting", watched)
    writer.remove(BOB, 1, 1)
    end = time.monotonic() + 60
    while bodies(store) and time.monotonic() < end:
        time.sleep(0.01)
    assert during
    assert set(during) == {(1, 0)}
    writer.run(lambda _: None).result(10)
    assert writer.removed(BOB, 1) == 0


def test_a_connection_that_is_closed_is_a_server_that_does_not_answer(mariadb: MariaDB) -> None:
    """That is what the log says of it."""
    store = ServerStore(mariadb.new_database())
    with store._engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver._force_close()
        with pytest.raises(SQLAlchemyError) as caught:
            connection.execute(select(1))
        assert sentence(caught.value)[0] == "The database server does not answer."
    store.close()


def test_a_connection_killed_by_the_server_is_made_again(mariadb: MariaDB, ears: Ears) -> None:
    """An administrator's KILL costs one refusal at most."""
    store = ServerStore(mariadb.new_database())
    store.migrate()
    writer = store.writer(ears.listener())
    number = writer.run(lambda c: c.execute(text("SELECT CONNECTION_ID()")).scalar()).result(10)
    mariadb.execute(f"KILL {number}")
    writer.keep([letter()])
    if ears.verdicts(1)[0][1] == "failed":
        ears.wait_for("settled")
        writer.keep([letter(session=2)])
        assert ears.verdicts(1)[0][1] == "stored"
    assert len(bodies(store)) == 1
    writer.stop()
    store.close()


def test_a_connection_that_was_idle_is_not_taken_for_granted(
    mariadb: MariaDB, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server or a firewall may have forgotten it: after half a minute it is asked first, and what comes
    then is stored and not refused.
    """
    store = ServerStore(mariadb.new_database())
    store.migrate()
    turned = Turned()
    monkeypatch.setattr(writing, "time", turned)
    writer = store.writer(ears.listener())

    def number() -> int:
        return int(writer.run(lambda c: c.execute(text("SELECT CONNECTION_ID()")).scalar_one()).result(60))

    used = number()
    turned.now += 29.0
    assert number() == used
    mariadb.execute(f"KILL {used}")
    listed = text("SELECT COUNT(*) FROM information_schema.processlist WHERE id = :number")
    with store._engine.connect() as connection:
        while connection.execute(listed, {"number": used}).scalar():
            time.sleep(0.01)
    turned.now += 31.0
    writer.keep([letter()])
    assert ears.verdicts(1)[0][1] == "stored"
    assert ears.words == []
    writer.stop()
    store.close()


def test_what_an_older_version_stored_is_carried_over(url: str) -> None:
    """Its rows wait on, each as a run of one, and its ids are still known."""
    store = ServerStore(url)
    store.migrate("0005")
    engine = create_engine(url)
    row = {
        "id": b"i" * 16,
        "hash": b"h" * 32,
        "header": b"header",
        "body": b"\x00body",
        "to": BOB,
        "from": ADA,
    }
    with engine.begin() as connection:
        for number in (7, 9):
            values = f"{number}, :to, 1, :id, 2, :from, 3, :to, 86400005, 11, :header, :body"
            connection.execute(text(f"INSERT INTO mailbox VALUES ({values})"), row)
        connection.execute(text("INSERT INTO accepted VALUES (:from, 3, :id, :hash, 86400005)"), row)
    store.migrate()
    runs, more = store.waiting(BOB, 1, 0, 10, 1000)
    assert ([run.first for run in runs], more) == ([7, 9], False)
    frames = deliver_frames(7, runs[0].parcels)
    expected = Delivery(7, b"i" * 16, 2, ADA, 3, BOB, 86400005, b"header", b"\x00body")
    assert frames == frame(Deliver(expected))
    assert store.usage() == ({(BOB, 1, ADA): (2, 2 * len(runs[0].parcels[0]))}, 9)
    assert store.accepted(ADA, 3, b"i" * 16) == b"h" * 16
    store.close()
    engine.dispose()


# --- the chain's log ----------------------------------------------------------------------------------------


def block(number: int, branch: str = "a") -> BlockRef:
    def name(n: int) -> bytes:
        return f"{branch if n == number else 'a'}{n}".encode().ljust(32, b".")

    return BlockRef(number, name(number), name(number - 1))


def row(number: int, index: int = 0, *, branch: str = "a", source: int = 1, **columns: Any) -> LogRow:
    return LogRow(
        block=number,
        block_hash=block(number, branch).hash,
        index=index,
        time=1000 + number,
        source=source,
        topics=tuple(bytes([index % 200 + n]) * 32 for n in range(index % 4 + 1)),
        data=b"\x00\xff" * (index % 50),
        **columns,
    )


def questions(log: Any) -> list[object]:
    """Everything that a log store can be asked."""
    filters: list[dict[str, object]] = [
        {},
        {"source": 1},
        {"source": 2},
        {"subject": ADA},
        {"source": 1, "subject": BOB},
        {"label": "ada"},
        {"address": b"a" * 20},
        {"subject": ADA, "address": b"a" * 20},
    ]
    return [log.head(), log.recent(3), log.recent(1000), *(log.rows(**chosen) for chosen in filters)]


def test_the_log_answers_as_the_one_in_memory(store: ServerStore) -> None:
    """The same steps, a reorg among them, and the same answers after each."""
    memory = MemoryLogStore()
    rows = [
        row(1, 0, subject=ADA, label="ada", address=b"a" * 20),
        row(1, 1, subject=ADA),
        row(2, 0, subject=BOB, label="bob", address=b"b" * 20),
        row(2, 3, source=2),
    ]
    replaced = [row(2, 2, branch="b", subject=ADA, address=b"a" * 20)]
    steps: list[Callable[[Any], object]] = [
        lambda log: None,
        lambda log: log.take(rows, [block(1), block(2)]),
        lambda log: log.take([], [block(3)]),
        lambda log: log.drop_from(2),
        lambda log: log.take(replaced, [block(2, "b"), block(3)]),
        lambda log: log.take([], [block(number) for number in range(4, 400)]),
        lambda log: log.drop_from(1),
    ]
    for step in steps:
        assert step(store.log) == step(memory)
        assert questions(store.log) == questions(memory)


def test_events_touch_their_users_and_so_does_their_loss(store: ServerStore) -> None:
    """A user is touched until rewritten at a height that settles it; membership counts as user 0."""
    log = store.log
    log.take([row(1, 0, subject=ADA), row(2, 0, subject=ADA), row(2, 1, source=2)], [block(1), block(2)])
    assert store.touched() == {ADA: 2, 0: 2}
    store.rewrite([user(ADA)], [], settled_to=1)
    assert store.touched() == {ADA: 2, 0: 2}
    store.rewrite([user(ADA)], [], settled_to=2)
    store.rewrite_membership(Policy.VOTE, {ADA: 1}, [], settled_to=2)
    assert store.touched() == {}
    log.drop_from(2)
    assert store.touched() == {ADA: 2, 0: 2}


def user(uid: int, *, name: str = "ada", states: tuple[DeviceState, ...] = (DeviceState.ACTIVE,)) -> User:
    devices = tuple(
        Device(
            Uid(uid),
            DeviceId(number),
            state,
            bytes([number]) * 32,
            (DeviceVersion(3, Address(bytes([number]) * 20), b"record" + bytes([number]), 2, 1002),),
        )
        for number, state in enumerate(states, start=1)
    )
    return User(
        uid=Uid(uid),
        username=name,
        account=Address(b"a" * 20),
        recovery=Address(bytes(20)),
        epoch=1,
        verifier=b"v" * 32,
        kdf=b"kdf",
        devices=devices,
        device_list_version=len(states),
        block=2,
        time=1002,
    )


def test_users_are_the_fold_as_last_rewritten(store: ServerStore, url: str) -> None:
    """They come back as they were; a rewrite replaces, a user who is gone is gone."""
    store.log.take([], [block(1), block(2)])
    ada, bob = (
        user(ADA, states=(DeviceState.ACTIVE, DeviceState.ACTIVE, DeviceState.REVOKED)),
        user(BOB, name="bob"),
    )
    store.rewrite([ada, bob], [], settled_to=2)
    assert (store.user(ADA), store.user(BOB), store.user(1)) == (ada, bob, None)
    assert sorted(store.users([BOB, *range(1, 1_000), ADA]), key=lambda one: one.username) == [ada, bob]
    engine = create_engine(url)
    with engine.connect() as connection:
        columns = connection.execute(
            text("SELECT username, password, pub_key, update_time, block_hash FROM users")
        )
        found = {each.username: each for each in columns}
    engine.dispose()
    assert bytes(found["ada"].password) == b"v" * 32
    assert bytes(found["ada"].pub_key) == b"record\x02"
    assert (found["ada"].update_time, bytes(found["ada"].block_hash)) == (1002, block(2).hash)
    store.rewrite([user(ADA)], [BOB], settled_to=2)
    assert (store.user(ADA), store.user(BOB)) == (user(ADA), None)


def test_membership_is_the_fold_as_last_rewritten(store: ServerStore) -> None:
    """Policy and members; nothing before the first time."""
    assert store.membership() is None
    store.rewrite_membership(Policy.VOTE, {ADA: 1, BOB: 2}, [], settled_to=0)
    assert store.membership() == (Policy.VOTE, frozenset({ADA, BOB}))
    store.rewrite_membership(Policy.OPEN, {}, [], settled_to=0)
    assert store.membership() == (Policy.OPEN, frozenset())


def test_fellows_are_who_sits_in_a_group_with_somebody(store: ServerStore) -> None:
    """In any but the network itself, as last rewritten; nobody who left or whom a reorg took back."""
    carol, nobody = 100_000_000_000_003, 123_456_789_012_345
    asked = [ADA, BOB, carol, nobody]
    assert store.fellows(ADA, asked) == set()
    store.rewrite_membership(Policy.OPEN, {}, [(1, ADA), (1, BOB), (2, BOB), (2, carol)], settled_to=0)
    assert store.fellows(ADA, asked) == {ADA, BOB}
    assert store.fellows(BOB, asked) == {ADA, BOB, carol}
    assert store.fellows(ADA, [carol, nobody]) == set()
    assert store.fellows(nobody, asked) == set()
    store.rewrite_membership(Policy.OPEN, {}, [(1, ADA), (2, carol), (3, carol), (3, ADA)], settled_to=0)
    assert store.fellows(ADA, asked) == {ADA, carol}
    assert store.fellows(BOB, asked) == set()
    store.rewrite_membership(Policy.OPEN, {}, [], settled_to=0)
    assert store.fellows(ADA, asked) == set()


def test_a_large_history_is_taken_in_one_go(store: ServerStore) -> None:
    """Thousands of events in one transaction, and found again by their subject."""
    rows = [row(1, index, subject=ADA + index % 50) for index in range(4000)]
    store.log.take(rows, [block(1)])
    assert len(store.log.rows(subject=ADA + 7)) == 80
    assert len(store.touched()) == 50
