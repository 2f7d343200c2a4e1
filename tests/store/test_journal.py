"""What was overwritten is nowhere: neither in a free place of the file nor in its journal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatchain.model import KeptSession, MessageState, Outgoing, OwnKeys, SessionChanges, Uid
from chatchain.store.local import LocalStore
from tests.store.pages import journal_of, pages

KEY = bytes(range(32))
ADA = Uid(100000000000002)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


@pytest.fixture
def store(path: Path) -> LocalStore:
    return LocalStore(path, KEY)


def state(word: bytes, size: int = 2000) -> bytes:
    """A session's state that can be told from another."""
    return (word + b" ").ljust(size, word[:1])


def session(word: bytes, size: int = 2000) -> SessionChanges:
    """A session that has come to a state, and the prekeys with it."""
    kept = KeptSession(ADA, 1, bytes(32), 1, 1, 1, 0, 0, False, state(word, size))
    return SessionChanges(kept=(kept,), prekeys=state(b"prekeys " + word, 9000))


@pytest.mark.parametrize("size", [400, 2000, 20_000])
def test_an_earlier_state_of_a_session_is_in_no_page(path: Path, store: LocalStore, size: int) -> None:
    """Of whatever length it was, and whatever length the next one has."""
    for word in (b"bygone 1", b"bygone 2"):
        store.change_sessions(session(word, size))
    store.change_sessions(session(b"present", 900))
    assert b"bygone" in pages(path, KEY), "else this test sees nothing"
    store.forget_states()
    found = pages(path, KEY)
    assert b"bygone" not in found
    assert found.count(b"present") >= 2
    assert journal_of(path).stat().st_size == 0


def test_a_deleted_session_and_used_keys_are_in_no_page(path: Path, store: LocalStore) -> None:
    """Sessions that ended, body keys of what was sent, keys of the device that were superseded."""
    store.change_sessions(session(b"session"))
    store.put_own_keys(OwnKeys(1, b"own keys".ljust(200, b"k")))
    store.queue([], [Outgoing(b"m" * 16, ADA, "receipt", b"content", 1, key=b"body key".ljust(32, b"b"))])
    assert all(word in pages(path, KEY) for word in (b"session", b"own keys", b"body key"))
    store.change_sessions(SessionChanges(gone=((ADA, 1, bytes(32)),), prekeys=b"other"))
    store.retire_own_keys(2, 1000, 0)
    store.retire_own_keys(2, 5000, 10)
    store.settle([b"m" * 16], MessageState.SENT)
    store.forget_states()
    found = pages(path, KEY)
    assert not any(word in found for word in (b"session ", b"own keys", b"body key"))


def test_where_the_other_connection_reads_it_is_done_the_next_time(path: Path, store: LocalStore) -> None:
    """Nothing is lost meanwhile, and nobody waits for long."""
    store.change_sessions(session(b"bygone"))
    logs = store.logs._db
    logs.execute("BEGIN")
    logs.execute("SELECT count(*) FROM blocks").fetchone()
    store.change_sessions(session(b"present"))
    store.forget_states()
    assert store.sessions(ADA, 1)[0].state == state(b"present")
    logs.execute("COMMIT")
    store.forget_states()
    assert b"bygone" not in pages(path, KEY)


KILLED = """
import os, sys
from pathlib import Path
from chatchain.store.local import LocalStore
from tests.store.test_journal import KEY, session
store = LocalStore(Path(sys.argv[1]), KEY)
store.change_sessions(session(b"bygone"))
store.change_sessions(session(b"present"))
os.kill(os.getpid(), 9)
"""


def test_the_journal_of_a_killed_program_is_emptied_by_the_next(path: Path) -> None:
    """It has written nothing itself yet."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        check=False,
    )
    assert ended.returncode == -9
    assert b"bygone" in pages(path, KEY)
    store = LocalStore(path, KEY)
    store.forget_states()
    found = pages(path, KEY)
    assert b"bygone" not in found
    assert b"present" in found


def test_nothing_is_done_where_nothing_was_written(path: Path, store: LocalStore) -> None:
    """A program that only listens does not work its disk every few seconds."""
    store.change_sessions(session(b"present"))
    store.forget_states()
    before = path.stat().st_mtime_ns, journal_of(path).stat().st_mtime_ns
    for _ in range(3):
        store.forget_states()
    assert (path.stat().st_mtime_ns, journal_of(path).stat().st_mtime_ns) == before
