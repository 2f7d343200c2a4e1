"""The relay's stocks of prekeys, on SQLite and on a real MariaDB: what is handed out, kept and deleted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import event

from chatchain.errors import StoreUnavailable
from chatchain.model import (
    Address,
    Device,
    DeviceId,
    DeviceState,
    DeviceVersion,
    OneTimePrekey,
    PrekeyBatch,
    PrekeySort,
    Uid,
    User,
)
from chatchain.store.prekeys import TERMS
from chatchain.store.server import FETCHED, ServerStore, ServerWriter
from chatchain.store.writer import Listener

ADA, BOB = 100_000_000_000_001, 100_000_000_000_002
NOW = 1_700_000_000
LATER = NOW + 90 * 24 * 3600
KEPT = 500
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'relay.db'}"
    return str(request.getfixturevalue("mariadb_url"))


@pytest.fixture
def store(url: str) -> Iterator[ServerStore]:
    """A store that knows ada with two devices and bob with one."""
    made = ServerStore(url)
    made.migrate()
    made.rewrite([user(ADA, 1, 1), user(BOB, 1)], [], settled_to=1)
    yield made
    made.close()


@pytest.fixture
def writer(store: ServerStore) -> Iterator[ServerWriter]:
    """The committing thread."""
    made = store.writer(Listener(lambda told, runs: None, lambda reason: None, lambda: None))
    yield made
    made.stop()


def user(uid: int, *versions: int, revoked: tuple[int, ...] = ()) -> User:
    """A user whose devices have these versions."""
    devices = tuple(
        Device(
            Uid(uid),
            DeviceId(number),
            DeviceState.REVOKED if number in revoked else DeviceState.ACTIVE,
            bytes(32),
            (DeviceVersion(version, Address(b"s" * 20), b"record", 1, NOW),),
        )
        for number, version in enumerate(versions, 1)
    )
    account = Address(uid.to_bytes(20, "big"))
    return User(Uid(uid), f"u{uid}", account, Address(bytes(20)), 0, bytes(32), b"", devices, 1, 1, NOW)


def one_time(sort: PrekeySort, id: int, expires: int = LATER) -> OneTimePrekey:
    return OneTimePrekey(sort, id, expires, f"{sort.name} {id}".encode())


def batch(x: range, kem: range, *, version: int = 1, signed: bytes = b"signed") -> PrekeyBatch:
    keys = [one_time(PrekeySort.X25519, number) for number in x] + [
        one_time(PrekeySort.KEM, number) for number in kem
    ]
    return PrekeyBatch(version, signed, b"last resort", LATER, tuple(keys))


def ask(version: int = 1) -> PrekeyBatch:
    return PrekeyBatch(version, b"", b"", 0, ())


def publish(
    writer: ServerWriter, made: PrekeyBatch, uid: int = ADA, device: int = 1, kept: int = KEPT
) -> tuple[int, int] | None:
    return writer.publish_prekeys(uid, device, made, kept=kept, now=NOW).result(60)


def taken(
    writer: ServerWriter, *devices: int, uid: int = ADA, now: int = NOW
) -> list[tuple[int, bytes, bytes]]:
    draws = writer.take_prekeys([(uid, device) for device in devices or (1,)], now).result(60)
    return [(draw.device, draw.kem, draw.one_time) for draw in draws]


def test_a_one_time_key_is_given_once_and_the_oldest_first(writer: ServerWriter) -> None:
    """And when there is none left, the last-resort key stands in for the KEM's and nothing for the other."""
    assert publish(writer, batch(range(1, 3), range(10, 13))) == (2, 3)
    assert taken(writer) == [(1, b"KEM 10", b"X25519 1")]
    assert taken(writer) == [(1, b"KEM 11", b"X25519 2")]
    assert taken(writer) == [(1, b"KEM 12", b"")]
    assert taken(writer) == [(1, b"last resort", b"")]
    assert publish(writer, ask()) == (0, 0)


def test_each_device_has_stocks_of_its_own(writer: ServerWriter) -> None:
    """Nobody's keys are given for another's, and who has published nothing is absent."""
    publish(writer, batch(range(1, 3), range(1, 3)), device=2)
    publish(writer, batch(range(5, 6), range(5, 6)), uid=BOB)
    assert taken(writer, 1, 2, 3) == [(2, b"KEM 1", b"X25519 1")]
    assert taken(writer, 1) == []
    assert taken(writer, 1, uid=123_456_789_012_345) == []
    assert taken(writer, 2, 1, uid=BOB) == [(1, b"KEM 5", b"X25519 5")]
    assert publish(writer, ask(), device=2) == (1, 1)


def test_fetches_that_come_together_are_served_together(store: ServerStore, writer: ServerWriter) -> None:
    """In a few transactions; each gets keys that no other gets, the oldest first."""
    publish(writer, batch(range(1, 81), range(1, 71)))
    publish(writer, batch(range(1, 4), range(1, 3)), device=2)
    publish(writer, batch(range(1, 2), range(1, 2)), uid=BOB)
    may, commits = threading.Event(), []
    event.listen(store._engine, "commit", lambda _: commits.append(1))
    held = writer.run(lambda _: may.wait(60))
    asked = [(ADA, (2, 1)) if number < 3 else (ADA, (1,)) for number in range(100)]
    asked += [(BOB, (1, 7)), (123_456_789_012_345, (1,))]
    futures = [writer.take_prekeys([(uid, device) for device in devices], NOW) for uid, devices in asked]
    commits.clear()
    may.set()
    assert held.result(60)
    draws = [future.result(30) for future in futures]
    assert len(commits) <= 2
    first = [[draw for draw in drawn if draw.device == 1] for drawn in draws[:100]]
    assert [drawn[0].one_time for drawn in first] == [
        f"X25519 {number}".encode() if number < 81 else b"" for number in range(1, 101)
    ]
    assert [drawn[0].kem for drawn in first] == [
        f"KEM {number}".encode() if number < 71 else b"last resort" for number in range(1, 101)
    ]
    assert [[draw.device for draw in drawn] for drawn in draws[:4]] == [[1, 2], [1, 2], [1, 2], [1]]
    assert [drawn[1].kem for drawn in draws[:3]] == [b"KEM 1", b"KEM 2", b"last resort"]
    assert [(draw.device, draw.kem) for draw in draws[100]] == [(1, b"KEM 1")]
    assert draws[101] == []
    assert publish(writer, ask()) == (0, 0)


def test_one_fetch_takes_of_many_users(store: ServerStore, writer: ServerWriter) -> None:
    """In one transaction, in the order of users and devices; who is not there, or has nothing, is absent."""
    publish(writer, batch(range(1, 3), range(1, 3)))
    publish(writer, batch(range(3, 5), range(3, 5)), device=2)
    publish(writer, batch(range(5, 7), range(5, 6)), uid=BOB)
    nobody = 123_456_789_012_345
    commits: list[int] = []
    event.listen(store._engine, "commit", lambda _: commits.append(1))
    wanted = [(BOB, 2), (nobody, 1), (BOB, 1), (ADA, 2), (ADA, 1), (ADA, 3)]
    draws = [writer.take_prekeys(wanted, NOW).result(60) for _ in range(2)]
    assert [(draw.uid, draw.device, draw.kem, draw.one_time) for draw in draws[0]] == [
        (ADA, 1, b"KEM 1", b"X25519 1"),
        (ADA, 2, b"KEM 3", b"X25519 3"),
        (BOB, 1, b"KEM 5", b"X25519 5"),
    ]
    assert [draw.kem for draw in draws[1]] == [b"KEM 2", b"KEM 4", b"last resort"]
    assert len(commits) == 2
    store.rewrite([user(ADA, 1, 1, revoked=(1,)), user(BOB, 2)], [], settled_to=2)
    assert [(draw.uid, draw.device) for draw in writer.take_prekeys(wanted, NOW).result(60)] == [(ADA, 2)]


def test_a_crowd_of_large_fetches_is_served_some_at_a_time(store: ServerStore, writer: ServerWriter) -> None:
    """So that messages need not wait for all of them; one that is larger than that is served alone."""
    may, sizes = threading.Event(), []

    @event.listens_for(store._engine, "before_cursor_execute")
    def noted(_c: object, _k: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT uid, device, version, signed"):
            sizes.append(statement.count("uid="))

    held = writer.run(lambda _: may.wait(60))
    sent = [100, 100, 100, FETCHED + 1, 1, FETCHED - 1, 1]
    futures = [writer.take_prekeys([(BOB, n) for n in range(1, size + 1)], NOW) for size in sent]
    may.set()
    assert held.result(60)
    assert [future.result(60) for future in futures] == [[]] * len(sent)
    # The devices of those who ask together are named once.
    assert sizes == [100, 100, TERMS, FETCHED + 1 - TERMS, TERMS, FETCHED - 1 - TERMS, 1]


def test_a_fetch_that_was_given_up_takes_nothing(writer: ServerWriter) -> None:
    """Nobody would get what it took."""
    publish(writer, batch(range(1, 4), range(1, 4)))
    may = threading.Event()
    held = writer.run(lambda _: may.wait(60))
    futures = [writer.take_prekeys([(ADA, 1)], NOW) for _ in range(3)]
    futures[1].cancel()
    may.set()
    assert held.result(60)
    assert [futures[n].result(60)[0].one_time for n in (0, 2)] == [b"X25519 1", b"X25519 2"]
    assert publish(writer, ask()) == (1, 1)


def test_all_who_wait_hear_that_the_database_is_away(writer: ServerWriter) -> None:
    """And those after them are served again."""
    writer._backoff, writer._retry_at = 1.0, time.monotonic() + 3600.0
    for future in [writer.take_prekeys([(ADA, 1)], NOW) for _ in range(5)]:
        with pytest.raises(StoreUnavailable):
            future.result(60)
    writer._retry_at = 0.0
    end = time.monotonic() + 60
    while True:
        try:
            writer.take_prekeys([(ADA, 1)], NOW).result(60)
            break
        except StoreUnavailable:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_asking_publishes_nothing(writer: ServerWriter) -> None:
    """Before anything was published, and afterwards."""
    assert publish(writer, ask()) == (0, 0)
    assert taken(writer) == []
    publish(writer, batch(range(1, 2), range(2, 3)))
    assert publish(writer, ask()) == (1, 1)
    assert taken(writer) == [(1, b"KEM 2", b"X25519 1")]


def test_the_signed_keys_are_replaced_and_the_stocks_added_to(writer: ServerWriter) -> None:
    """As the weekly rotation does it."""
    publish(writer, batch(range(1, 2), range(2, 3)))
    renewed = msgspec.structs.replace(
        batch(range(3, 5), range(5, 7)), signed=b"signed 2", last_resort=b"last 2"
    )
    assert publish(writer, renewed) == (3, 3)
    (draw,) = writer.take_prekeys([(ADA, 1)], NOW).result(60)
    assert (draw.version, draw.signed, draw.one_time) == (1, b"signed 2", b"X25519 1")
    taken(writer)
    taken(writer)
    assert taken(writer) == [(1, b"last 2", b"")]


def test_a_key_that_was_given_out_does_not_come_back(writer: ServerWriter) -> None:
    """A device that repeats a publication, because its answer was lost, adds nothing twice."""
    first = batch(range(1, 4), range(1, 4))
    publish(writer, first)
    taken(writer)
    assert publish(writer, first) == (2, 2)
    assert publish(writer, batch(range(1, 5), range(1, 5))) == (3, 3)
    assert [one for _, _, one in [*taken(writer), *taken(writer), *taken(writer)]] == [
        b"X25519 2",
        b"X25519 3",
        b"X25519 4",
    ]


def test_a_stock_is_bounded_and_the_oldest_go(writer: ServerWriter) -> None:
    """However often is published."""
    publish(writer, batch(range(1, 8), range(1, 3)), kept=5)
    assert publish(writer, batch(range(8, 10), range(8, 9)), kept=5) == (5, 3)
    assert taken(writer) == [(1, b"KEM 1", b"X25519 5")]


def test_expired_keys_are_not_given_out(writer: ServerWriter) -> None:
    """A one-time key alone, and everything when the signed ones have expired; counting leaves them out."""
    keys = (one_time(PrekeySort.KEM, 1, NOW + 5), one_time(PrekeySort.KEM, 2), one_time(PrekeySort.X25519, 3))
    publish(writer, PrekeyBatch(1, b"signed", b"last", LATER - 10, keys))
    assert publish(writer, ask()) == (1, 2)
    assert writer.publish_prekeys(ADA, 1, ask(), kept=KEPT, now=NOW + 5).result(60) == (1, 1)
    assert taken(writer, now=LATER - 10) == []
    assert taken(writer, now=NOW + 5) == [(1, b"KEM 2", b"X25519 3")]


def test_prekeys_for_another_version_are_refused(writer: ServerWriter) -> None:
    """Older, newer, of a revoked device or of nobody: nothing is kept."""
    for uid, device, version in ((ADA, 1, 2), (ADA, 3, 1), (BOB, 2, 1), (123_456_789_012_345, 1, 1)):
        assert publish(writer, batch(range(1, 2), range(2, 3), version=version), uid, device) is None
        assert publish(writer, ask(version), uid, device) is None
    assert taken(writer) == []


def test_old_bundle_goes_with_its_version(store: ServerStore, writer: ServerWriter) -> None:
    """When the device's record is replaced; the republished old keys are refused, the new ones begin anew."""
    old = batch(range(1, 9), range(1, 9))
    publish(writer, old)
    publish(writer, old, device=2)
    store.rewrite([user(ADA, 2, 1)], [], settled_to=2)
    assert [device for device, _, _ in taken(writer, 1, 2)] == [2]
    assert publish(writer, old) is None
    assert publish(writer, ask(2)) == (0, 0)
    assert publish(writer, batch(range(1, 2), range(1, 2), version=2)) == (1, 1)
    assert taken(writer, 1) == [(1, b"KEM 1", b"X25519 1")]


def test_a_stock_that_outlived_its_version_is_worth_nothing(store: ServerStore, writer: ServerWriter) -> None:
    """As after a restored backup or an older program: nothing of it is given, counted or kept."""

    def change(values: str) -> None:
        with store._engine.execution_options(writes=True).begin() as connection:
            connection.exec_driver_sql(f"UPDATE devices SET {values} WHERE uid = {ADA} AND device = 1")

    assert publish(writer, batch(range(1, 4), range(1, 4))) == (3, 3)
    change("version = 2")
    assert taken(writer) == []
    assert publish(writer, ask(2)) == (0, 0)
    assert publish(writer, batch(range(7, 9), range(7, 9), version=2)) == (2, 2)
    assert taken(writer) == [(1, b"KEM 7", b"X25519 7")]
    change(f"state = {int(DeviceState.REVOKED)}")
    assert taken(writer) == []


def test_a_version_that_a_reorg_took_back_leaves_nothing(store: ServerStore, writer: ServerWriter) -> None:
    """The version before counts again, and its device publishes again."""
    store.rewrite([user(ADA, 2, 1)], [], settled_to=1)
    publish(writer, batch(range(1, 9), range(1, 9), version=2))
    store.rewrite([user(ADA, 1, 1)], [], settled_to=1)
    assert taken(writer) == []
    assert publish(writer, batch(range(1, 2), range(1, 2))) == (1, 1)


@pytest.mark.parametrize("how", ["revoked", "forgotten", "unregistered"])
def test_a_device_that_is_gone_leaves_no_prekeys(store: ServerStore, writer: ServerWriter, how: str) -> None:
    """Revoked, or its whole user taken back by a reorg; even if it should come back."""
    publish(writer, batch(range(1, 9), range(1, 9)))
    publish(writer, batch(range(1, 9), range(1, 9)), uid=BOB)
    if how == "revoked":
        store.rewrite([user(ADA, 1, 1, revoked=(1,))], [], settled_to=2)
        assert publish(writer, batch(range(1, 9), range(1, 9))) is None
    elif how == "forgotten":
        writer.forget_device(ADA, 1).result(60)
    else:
        store.rewrite([], [ADA], settled_to=2)
    store.rewrite([user(ADA, 1, 1)], [], settled_to=3)
    assert taken(writer) == []
    assert publish(writer, ask()) == (0, 0)
    assert len(taken(writer, uid=BOB)) == 1


def test_two_relays_never_give_one_key_twice(store: ServerStore, url: str) -> None:
    """Two stores with their own connections empty one stock while a third fills it."""
    ears = Listener(lambda told, runs: None, lambda reason: None, lambda: None)
    stores = [ServerStore(url) for _ in range(3)]
    writers = [each.writer(ears) for each in stores]
    publish(writers[0], batch(range(1, 31), range(1, 31)))

    def drain(which: ServerWriter) -> list[tuple[int, bytes, bytes]]:
        return [draw for _ in range(30) for draw in taken(which)]

    with ThreadPoolExecutor(3) as pool:
        draining = [pool.submit(drain, which) for which in writers[:2]]
        pool.submit(publish, writers[2], batch(range(31, 61), range(31, 61))).result(30)
        found = [draw for future in draining for draw in future.result(30)]
    found += [draw for _ in range(60) for draw in taken(writers[2])]
    one_times = [one for _, _, one in found if one]
    kems = [kem for _, kem, _ in found if kem != b"last resort"]
    assert sorted(one_times) == sorted(f"X25519 {number}".encode() for number in range(1, 61))
    assert sorted(kems) == sorted(f"KEM {number}".encode() for number in range(1, 61))
    for made in writers:
        made.stop()
    for each in stores:
        each.close()


DRAIN = """
import sys
from chatchain.store.server import ServerStore
from chatchain.store.writer import Listener
store = ServerStore(sys.stdin.readline().strip())
writer = store.writer(Listener(lambda told, runs: None, lambda reason: None, lambda: None))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    for draw in writer.take_prekeys([(int(sys.argv[1]), 1)], int(sys.argv[2])).result(30):
        print(draw.kem.decode(), draw.one_time.decode(), sep="\\n", flush=True)
writer.stop()
"""


def test_two_processes_never_give_one_key_twice(writer: ServerWriter, url: str) -> None:
    """Each takes twenty of forty keys, both at the same time."""
    publish(writer, batch(range(1, 41), range(1, 41)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DRAIN, str(ADA), str(NOW)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(url + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
    lines = [line for process in _released(processes) for line in process.splitlines()]
    assert len(lines) == len(set(lines)) == 80
    assert taken(writer) == [(1, b"last resort", b"")]


def _released(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Lets all of them go at once and gives what each wrote."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0] for process in processes]
