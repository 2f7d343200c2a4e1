"""The servers that other tests lean on are real, private, and gone when they should be."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import create_engine, text

from tests.fixtures.chains import FUNDED_KEYS, DevChain, RpcFailed
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.processes import DidNotStart, Process, accepts, free_port, running

ROOT = Path(__file__).resolve().parent.parent


def test_a_mariadb_url_is_an_empty_database_of_its_own(mariadb: MariaDB, mariadb_url: str) -> None:
    """Two URLs never share a table."""
    for url in (mariadb_url, mariadb.new_database()):
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE only_here (id INT PRIMARY KEY) ENGINE=InnoDB"))
        engine.dispose()


def test_mariadb_syncs_each_commit_and_keeps_it_when_killed(mariadb: MariaDB, mariadb_url: str) -> None:
    """A committed row is there after kill -9 and a new start on the same port."""
    engine = create_engine(mariadb_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT @@innodb_flush_log_at_trx_commit")).scalar() == 1
        connection.execute(text("CREATE TABLE kept (id INT PRIMARY KEY) ENGINE=InnoDB"))
        connection.execute(text("INSERT INTO kept VALUES (7)"))
    engine.dispose()
    mariadb.kill()
    assert not accepts(mariadb.port)
    mariadb.start()
    with engine.begin() as connection:
        assert connection.execute(text("SELECT id FROM kept")).scalars().all() == [7]
    engine.dispose()


def test_mariadb_listens_on_loopback_only_and_wants_a_password(mariadb: MariaDB) -> None:
    """Nobody else on the machine gets in without the password of this run."""
    for user in ("root", "chatchain"):
        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            pymysql.connect(host="127.0.0.1", port=mariadb.port, user=user, password="")
    command = b"\0".join(part.encode() for part in mariadb.process.command)
    assert b"--bind-address=127.0.0.1" in command
    assert mariadb.password.encode() not in command


def test_anvil_funds_the_known_keys(anvil: DevChain) -> None:
    """The chain answers with its id, and the first known account has ether."""
    assert anvil.chain_id == 31337
    assert len(FUNDED_KEYS) == len(anvil.keys) == 5
    first = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert int(str(anvil.rpc("eth_getBalance", first, "latest")), 16) > 10**20


def test_a_new_anvil_is_another_chain(anvil: DevChain, new_anvil: Callable[..., DevChain]) -> None:
    """Options reach it, and its blocks are not the shared chain's."""
    own = new_anvil("--chain-id", "777")
    assert own.chain_id == 777
    before = anvil.rpc("eth_blockNumber")
    own.rpc("anvil_mine", "0x5")
    assert own.rpc("eth_blockNumber") == "0x5"
    assert anvil.rpc("eth_blockNumber") == before


def test_ganache_funds_the_same_keys(ganache: DevChain) -> None:
    """Ganache has the same accounts under its own chain id."""
    assert ganache.chain_id == 1337
    accounts = ganache.rpc("eth_accounts")
    assert isinstance(accounts, list)
    assert accounts[0].lower() == "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"


def test_a_chain_says_why_it_refuses(anvil: DevChain) -> None:
    """An error of the chain is raised with its words."""
    with pytest.raises(RpcFailed, match="no_such_method"):
        anvil.rpc("no_such_method")


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    """The tail of the log is in the message, and nothing waits for the deadline."""
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(3)"]
    with (
        pytest.raises(DidNotStart, match=r"ended with 3:\nno such option"),
        running(command, tmp_path / "log", lambda: False),
    ):
        raise AssertionError("the block must not be entered")


def test_a_server_that_ignores_sigterm_is_stopped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the deadline it is killed."""
    monkeypatch.setattr("tests.fixtures.processes.STOP_DEADLINE", 0.2)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    process = Process([sys.executable, "-c", deaf], tmp_path / "log")
    process.wait_until(lambda: "up" in process.tail())
    process.stop()
    assert not process.running


def test_a_server_goes_when_the_tests_are_killed(tmp_path: Path) -> None:
    """kill -9 of the tests leaves no server behind."""
    port = free_port()
    parent = f"""
import sys, time
from pathlib import Path
from tests.fixtures.processes import Process, accepts
command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}"]
server = Process(command, Path({str(tmp_path / "log")!r}))
server.wait_until(lambda: accepts({port}))
print(server.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        server = int(tests.stdout.readline())
        assert accepts(port)
        tests.kill()
        tests.wait()
    for _ in range(500):
        if not _alive(server):
            break
        time.sleep(0.02)
    assert not _alive(server)


def test_one_failure_is_one_failure(tmp_path: Path) -> None:
    """What a failed test leaves open does not fail the test after it, which would for leaving it open."""
    tests = """
import asyncio, gc, socket
import pytest

async def leave_open():
    listening = socket.create_server(("127.0.0.1", 0))
    return listening, await asyncio.open_connection(*listening.getsockname())

async def test_fails():
    mine = await leave_open()
    assert not mine

@pytest.fixture
async def broken():
    mine = await leave_open()
    assert not mine

async def test_is_not_even_set_up(broken):
    pass

def test_has_nothing_to_do_with_them():
    gc.collect()

async def test_is_careless():
    mine = await leave_open()

def test_neither():
    gc.collect()
"""
    (tmp_path / "test_some.py").write_text(tests)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-q", "-rfEp", "--tb=no", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told: dict[str, set[str]] = {}
    for kind, name in re.findall(r"^(PASSED|FAILED|ERROR) test_some.py::(\w+)", done.stdout, re.MULTILINE):
        told.setdefault(name, set()).add(kind)
    assert [name for name in told if told[name] == {"PASSED"}] == [
        "test_has_nothing_to_do_with_them",
        "test_neither",
    ]
    assert set(told) > {"test_fails", "test_is_not_even_set_up", "test_is_careless"}, done.stdout


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie waits for whoever adopted it; it serves nobody.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
