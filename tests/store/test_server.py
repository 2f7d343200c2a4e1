"""The relay's store on SQLite and on a real MariaDB, by the same claims."""

from __future__ import annotations

import os
import queue
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select, text

from chatchain.chain.sync import MemoryLogStore
from chatchain.errors import BadConfig, RefusedError, StoreUnavailable
from chatchain.model import (
    Address,
    BlockRef,
    Copy,
    Device,
    DeviceId,
    DeviceState,
    DeviceVersion,
    Envelope,
    KeyBundle,
    LogRow,
    Policy,
    Uid,
    User,
)
from chatchain.store.database import open_database
from chatchain.store.server import ACCEPTED_DAYS, ServerStore, ServerWriter
from chatchain.store.tables import accepted, counters, mailbox, metadata
from chatchain.store.writer import BATCH_ITEMS, Kept, Listener
from tests.fixtures.mariadb import MariaDB

ADA, BOB = 100_000_000_000_001, 100_000_000_000_002
DAY_MS = 24 * 3600 * 1000


class Ears:
    """Hears what the writer tells and lets a test wait for it."""

    def __init__(self) -> None:
        self.heard: queue.Queue[Kept | str] = queue.Queue()
        self.batches: list[int] = []

    def kept(self, told: list[Kept]) -> None:
        self.batches.append(len(told))
        for one in told:
            self.heard.put(one)

    def listener(self) -> Listener:
        return Listener(self.kept, lambda: self.heard.put("failed"), lambda: self.heard.put("settled"))

    def verdicts(self, count: int) -> list[Kept]:
        """The next verdicts, other news left out."""
        found: list[Kept] = []
        while len(found) < count:
            one = self.heard.get(timeout=30)
            if not isinstance(one, str):
                found.append(one)
        return found

    def wait_for(self, word: str) -> None:
        while self.heard.get(timeout=30) != word:
            pass


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


def envelope(*to: tuple[int, int], body: bytes = b"body", id: bytes = b"") -> Envelope:
    copies = tuple(Copy(uid, device, b"header") for uid, device in to or ((BOB, 1),))
    return Envelope(id or secrets.token_bytes(16), 1, BOB, 1, 1, body, copies)


def keep(
    writer: ServerWriter, made: Envelope, digest: bytes = bytes(32), *, at: int = 5, device: int = 1
) -> None:
    writer.keep(made.id, ADA, device, made, digest, at)


def bodies(store: ServerStore, uid: int = BOB, device: int = 1) -> list[bytes]:
    deliveries, more = store.waiting(uid, device, 0, 10_000, 2**30)
    assert not more
    return [delivery.body for delivery in deliveries]


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
        assert found == dict.fromkeys(("sequence", "login", "fold", "looks", "head"), 0)
    engine.dispose()
    store.close()


def test_a_database_of_a_newer_version_is_left_alone(store: ServerStore, url: str) -> None:
    """An old program does not touch tables that it does not know."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreUnavailable, match="newer version"):
        store.migrate()


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
    }
    for url, sentence in bad.items():
        with pytest.raises(StoreUnavailable, match=sentence) as raised:
            ServerStore(url).check()
        assert mariadb.password not in str(raised.value)
        assert "secret" not in str(raised.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        ServerStore(f"sqlite:///{tmp_path / 'file' / 'relay.db'}")


# --- writing ------------------------------------------------------------------------------------------------


def test_what_is_kept_waits_for_each_device(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """One row a copy, sequences in the order of the copies, nothing for anybody else."""
    made = envelope((BOB, 1), (BOB, 2), (ADA, 7), body=b"\x00\xff'\"\\%s")
    keep(writer, made)
    ((token, verdict, sequences),) = ears.verdicts(1)
    assert (token, verdict, list(sequences)) == (made.id, "stored", [1, 2, 3])
    ((delivery,), more) = store.waiting(BOB, 2, 0, 10, 1000)
    assert not more
    assert (delivery.sequence, delivery.id, delivery.suite, delivery.received_ms) == (2, made.id, 1, 5)
    assert (delivery.sender, delivery.sender_device, delivery.recipient) == (ADA, 1, BOB)
    assert (delivery.header, delivery.body) == (b"header", b"\x00\xff'\"\\%s")
    assert store.usage() == ({(BOB, 1, ADA): (1, 13), (BOB, 2, ADA): (1, 13), (ADA, 7, ADA): (1, 13)}, 3)
    assert store.waiting(BOB, 3, 0, 10, 1000) == ([], False)


def test_one_sender_s_order_is_kept_through_batches(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """More than a batch at once comes out in order, ticked in order."""
    count = BATCH_ITEMS + 500
    for number in range(count):
        keep(writer, envelope(body=str(number).encode()))
    told = ears.verdicts(count)
    sequences = [sequence for _, _, sequences in told for sequence in sequences]
    assert sequences == list(range(1, count + 1))
    assert bodies(store) == [str(number).encode() for number in range(count)]
    assert max(ears.batches) > 1, "nothing was committed together"


def test_a_repetition_is_known_and_stored_once(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """Within a batch, later, and after a restart; by sender, device and id together."""
    made = envelope()
    for _ in range(3):
        keep(writer, made)
    assert sorted(verdict for _, verdict, _ in ears.verdicts(3)) == ["duplicate", "duplicate", "stored"]
    keep(writer, made, b"\x01" * 32)
    keep(writer, made, device=2)
    others = [envelope() for _ in range(5)]
    for other in others:
        keep(writer, other)
    told = {(token, verdict) for token, verdict, _ in ears.verdicts(7)}
    assert told == {(made.id, "conflict"), (made.id, "stored"), *((other.id, "stored") for other in others)}
    later = store.writer(ears.listener())
    keep(later, made)
    assert [verdict for _, verdict, _ in ears.verdicts(1)] == ["duplicate"]
    later.stop()
    assert len(bodies(store)) == 7
    assert store.accepted(ADA, 1, made.id) == bytes(32)
    assert store.accepted(BOB, 1, made.id) is None


def test_one_refused_row_spoils_no_other(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """A row that the database will not have fails alone, and the writer goes on."""
    bad = msgspec.structs.replace(envelope(), suite=2**80)
    good = [envelope(body=b"1"), envelope(body=b"2")]
    for made in (good[0], bad, good[1]):
        keep(writer, made)
    told = {token: verdict for token, verdict, _ in ears.verdicts(3)}
    assert told[good[0].id] == told[good[1].id] == "stored"
    assert told[bad.id] == "failed"
    assert bodies(store) == [b"1", b"2"]


def test_acknowledged_rows_go(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """Only those; and a sequence is never used again, not even when the mailbox is empty."""
    for number in range(4):
        keep(writer, envelope(body=bytes([number])))
    ears.verdicts(4)
    writer.remove([1, 3, 99])
    writer.run(lambda connection: None).result(10)
    assert bodies(store) == [b"\x01", b"\x03"]
    writer.remove(list(range(2500)))
    writer.stop()
    again = store.writer(ears.listener())
    keep(again, envelope())
    assert [list(sequences) for _, _, sequences in ears.verdicts(1)] == [[5]]
    again.stop()


def test_reads_are_bounded_by_rows_and_bytes(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """At least one comes, however large, and the rest follows after its sequence."""
    for _ in range(5):
        keep(writer, envelope(body=bytes(1000)))
    ears.verdicts(5)
    few, more = store.waiting(BOB, 1, 0, 3, 2**20)
    assert ([delivery.sequence for delivery in few], more) == ([1, 2, 3], True)
    small, more = store.waiting(BOB, 1, 0, 10, 2500)
    assert ([delivery.sequence for delivery in small], more) == ([1, 2], True)
    one, more = store.waiting(BOB, 1, 4, 10, 1)
    assert ([delivery.sequence for delivery in one], more) == ([5], False)


def test_the_largest_row_fits(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """A body of the protocol's limit for many devices, in bytes that need escaping."""
    made = envelope(*((BOB, device) for device in range(1, 17)), body=b"'" * 192 * 1024)
    keep(writer, made)
    assert [verdict for _, verdict, _ in ears.verdicts(1)] == ["stored"]
    assert bodies(store, device=16) == [made.body]


def test_forgetting_a_device_leaves_the_others(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """Its rows and its bundle go."""
    keep(writer, envelope((BOB, 1), (BOB, 2)))
    ears.verdicts(1)
    for device in (1, 2):
        writer.publish(KeyBundle(BOB, device, 1, b"k", 1, 2, b"s")).result(10)
    writer.forget_device(BOB, 1).result(10)
    assert store.usage() == ({(BOB, 2, ADA): (1, 10)}, 2)
    assert [bundle.device for bundle in store.bundles([BOB])] == [2]


def test_a_bundle_replaces_the_one_before(store: ServerStore, writer: ServerWriter) -> None:
    """One a device, given out as published."""
    old, new = KeyBundle(BOB, 1, 1, b"old", 1, 2, b"s"), KeyBundle(BOB, 1, 2, b"new" * 400, 3, 4, b"t" * 64)
    for bundle in (old, new):
        writer.publish(bundle).result(10)
    assert store.bundles([BOB, ADA]) == [new]


def test_old_ids_are_forgotten_and_young_ones_kept(
    store: ServerStore, writer: ServerWriter, ears: Ears
) -> None:
    """So the memory of repetitions is bounded."""
    now = 100 * DAY_MS
    old, young = envelope(), envelope()
    keep(writer, old, at=now - (ACCEPTED_DAYS + 1) * DAY_MS)
    keep(writer, young, at=now - (ACCEPTED_DAYS - 1) * DAY_MS)
    ears.verdicts(2)
    assert writer.prune(now).result(10) == 1
    assert writer.prune(now).result(10) == 0
    assert store.accepted(ADA, 1, old.id) is None
    assert store.accepted(ADA, 1, young.id) is not None


def test_a_failing_job_hurts_nobody(store: ServerStore, writer: ServerWriter, ears: Ears) -> None:
    """Its own failure comes back to who asked, and the thread goes on."""

    def bug(connection: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writer.run(bug).result(10)
    keep(writer, envelope())
    assert [verdict for _, verdict, _ in ears.verdicts(1)] == ["stored"]


def test_two_processes_on_one_database_do_not_share_a_sequence(store: ServerStore, ears: Ears) -> None:
    """Two writers at once: every row once, all sequences different."""
    writers = [store.writer(ears.listener()) for _ in range(2)]
    for number in range(400):
        keep(writers[number % 2], envelope(body=str(number).encode()), device=number % 2 + 1)
    told = ears.verdicts(400)
    for one in writers:
        one.stop()
    assert {verdict for _, verdict, _ in told} == {"stored"}
    sequences = [sequence for _, _, sequences in told for sequence in sequences]
    assert len(set(sequences)) == 400
    found = bodies(store)
    for parity in (0, 1):
        mine = [body for body in found if int(body) % 2 == parity]
        assert mine == [str(number).encode() for number in range(parity, 400, 2)]


def test_a_stopped_database_is_no_false_tick(mariadb: MariaDB, ears: Ears) -> None:
    """While it is away everything fails at once; when it is back the writer says so and stores again."""
    store = ServerStore(mariadb.new_database())
    store.migrate()
    writer = store.writer(ears.listener())
    keep(writer, envelope(body=b"before"))
    assert [verdict for _, verdict, _ in ears.verdicts(1)] == ["stored"]
    mariadb.stop()
    try:
        lost = envelope(body=b"lost")
        keep(writer, lost)
        assert [verdict for _, verdict, _ in ears.verdicts(1)] == ["failed"]
        for _ in range(100):
            keep(writer, envelope())
        assert {verdict for _, verdict, _ in ears.verdicts(100)} == {"failed"}
        with pytest.raises(StoreUnavailable):
            writer.publish(KeyBundle(BOB, 1, 1, b"k", 1, 2, b"s")).result(30)
        with pytest.raises(StoreUnavailable):
            store.usage()
    finally:
        mariadb.start()
    ears.wait_for("settled")
    keep(writer, lost)
    assert [verdict for _, verdict, _ in ears.verdicts(1)] == ["stored"]
    assert bodies(store) == [b"before", b"lost"]
    writer.stop()
    store.close()


def test_a_connection_killed_by_the_server_is_made_again(mariadb: MariaDB, ears: Ears) -> None:
    """An administrator's KILL costs one refusal at most."""
    store = ServerStore(mariadb.new_database())
    store.migrate()
    writer = store.writer(ears.listener())
    number = writer.run(lambda c: c.execute(text("SELECT CONNECTION_ID()")).scalar()).result(10)
    mariadb.execute(f"KILL {number}")
    keep(writer, envelope())
    if ears.verdicts(1)[0][1] == "failed":
        ears.wait_for("settled")
        keep(writer, envelope())
        assert ears.verdicts(1)[0][1] == "stored"
    assert len(bodies(store)) == 1
    writer.stop()
    store.close()


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
    store.rewrite_membership(Policy.VOTE, {ADA: 1}, settled_to=2)
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
    store.rewrite_membership(Policy.VOTE, {ADA: 1, BOB: 2}, settled_to=0)
    assert store.membership() == (Policy.VOTE, frozenset({ADA, BOB}))
    store.rewrite_membership(Policy.OPEN, {}, settled_to=0)
    assert store.membership() == (Policy.OPEN, frozenset())


def test_a_large_history_is_taken_in_one_go(store: ServerStore) -> None:
    """Thousands of events in one transaction, and found again by their subject."""
    rows = [row(1, index, subject=ADA + index % 50) for index in range(4000)]
    store.log.take(rows, [block(1)])
    assert len(store.log.rows(subject=ADA + 7)) == 80
    assert len(store.touched()) == 50


def test_the_hot_statements_name_every_column(store: ServerStore) -> None:
    """A column added to a table must be added to the tuples that the writer builds."""
    assert [column.name for column in accepted.columns] == [
        "sender",
        "sender_device",
        "id",
        "hash",
        "received_ms",
    ]
    assert len(mailbox.columns) == 12
