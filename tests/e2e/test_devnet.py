"""devnet.py up, down, status and seat, with real chains, relays and clients."""

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy.engine import make_url

from deploy import devnet as program
from tests.e2e.programs import (
    DEVNET,
    chatchain,
    clean_environment,
    devnet,
    newcomer,
    run,
    runs,
    up,
)
from tests.fixtures.chains import call
from tests.fixtures.mariadb import MariaDB

EVERYWHERE = "0.0.0.0"  # noqa: S104  # the case that must warn
KEYS = {"rpc", "contract_address", "relay", "db", "env_file", "join", "pids"}


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def block_number(report: dict[str, Any]) -> object:
    return call(port_of(report["rpc"]), "eth_blockNumber")


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def secrets_in(folder: Path) -> set[str]:
    """Everything in a network's folder that nobody else may learn, as text."""
    keys = json.loads((folder / "secrets.json").read_text()).values()
    files = [path for path in (folder / "homes").glob("*.*") if path.suffix in {".password", ".mnemonic"}]
    return {*keys, *(path.read_text().strip() for path in files)}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network with two founders, under policy `vote`. Whoever stops it starts it again."""
    folder = tmp_path_factory.mktemp("devnet")
    up(folder, "--policy", "vote", "--members", "ada,bob")
    yield folder
    devnet("down", folder)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a network of one test's own, which ends with the test."""
    path = tmp_path / "D"
    yield path
    if (path / "devnet.json").exists():
        devnet("down", path)


# --- up -------------------------------------------------------------------------------------------------


def test_the_founders_can_message_at_once(network: Path) -> None:
    """Registered, seated, sealed; each home opens with the password beside it."""
    report = devnet("status", network)
    assert report.keys() >= KEYS
    assert report["sealed"] is True
    assert report["running"] == {"chain": True, "relay": True}
    assert report["members"] == ["ada", "bob"]
    assert {member["username"] for member in chatchain(network, "ada", "members")} == {"ada", "bob"}
    [sent] = chatchain(network, "ada", "send", "bob", "first words")
    assert sent["state"] in {"sent", "delivered"}
    [received] = chatchain(network, "bob", "receive", "--wait", "10")
    assert (received["from"], received["text"]) == ("ada", "first words")


def test_what_runs_is_named_and_holds_nothing_of_ours(network: Path) -> None:
    """Each process has its own session, reads nothing and writes to its log."""
    report = devnet("status", network)
    assert report["pids"].keys() == {"chain", "relay"}
    for name, pid in report["pids"].items():
        assert os.getsid(pid) == pid
        held = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
        assert held == ["/dev/null", *[str(network / "logs" / f"{name}.log")] * 2]


def test_secrets_are_in_files_of_the_owner_alone(network: Path) -> None:
    """Mode 0600, and neither a command line nor a log nor the relay's database repeats one."""
    report = devnet("status", network)
    secret_files = [network / name for name in ("secrets.json", "relay.env", "devnet.json", "tls/relay.key")]
    for path in (*secret_files, *(network / "homes").glob("*.*")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((network / "homes").stat().st_mode) == 0o700
    lines = b"".join(command_line(pid) for pid in report["pids"].values())
    logs = b"".join(path.read_bytes() for path in (network / "logs").iterdir())
    database = b"".join(path.read_bytes() for path in network.glob("relay.sqlite3*"))
    assert b"ada" in database
    secrets = secrets_in(network)
    assert len(secrets) == 6
    for secret in secrets:
        for place in (lines, logs, database):
            assert secret.encode() not in place
            if len(secret) == 64:  # a key, which may also lie there in bytes
                assert bytes.fromhex(secret) not in place


def test_f10_nobody_else_reads_or_locks_anything_of_a_network(network: Path) -> None:
    """Whoever may read a file may lock it, and keep devnet or the relay from their work; even where the
    folder itself was there before, and is open.
    """
    (network / "lock").chmod(0o644)  # as an earlier version left it
    devnet("down", network)
    up(network)
    reached = {path.name for path in network.iterdir() if path.stat().st_mode & 0o077}
    assert reached <= {"deployment.json"}, "public, and nobody locks it"


def test_the_relays_settings_are_complete(network: Path) -> None:
    """The file that `env_file` names has what a relay needs; its sponsor is not the deployer."""
    report = devnet("status", network)
    lines = Path(report["env_file"]).read_text().splitlines()
    settings = {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}
    assert settings["CONTRACT_ADDRESS"] == report["contract_address"]
    assert settings["RPC_URL"] == report["rpc"]
    assert settings["DATABASE_URL"] == report["db"]
    keys = json.loads((network / "secrets.json").read_text())
    assert settings["PRIVATE_KEY"] == f"0x{keys['sponsor']}"
    assert keys["sponsor"] != keys["deployer"]
    assert settings["ACCOUNT"] != json.loads((network / "deployment.json").read_text())["deployer"]


def test_the_chain_has_no_account_that_anybody_could_use(network: Path) -> None:
    """No unlocked account, and no ether on the keys that development chains usually fund."""
    report = devnet("status", network)
    assert call(port_of(report["rpc"]), "eth_accounts") == []
    known = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert call(port_of(report["rpc"]), "eth_getBalance", [known, "latest"]) == "0x0"


def test_up_again_changes_nothing(network: Path) -> None:
    """The same object, the same processes, not one more block."""
    before, blocks = devnet("status", network), None
    blocks = block_number(before)
    assert up(network, "--policy", "vote", "--members", "ada,bob") == before
    assert block_number(before) == blocks


def test_a_killed_relay_comes_back_with_everything(network: Path) -> None:
    """`status` misses it, `up` starts it and nothing else, and what waited in it still waits."""
    before = devnet("status", network)
    chatchain(network, "ada", "send", "bob", "kept by the relay")
    os.kill(before["pids"]["relay"], signal.SIGKILL)
    while runs(before["pids"]["relay"]):
        time.sleep(0.02)
    assert devnet("status", network)["pids"].keys() == {"chain"}
    after = up(network)
    assert after["pids"]["chain"] == before["pids"]["chain"]
    assert {**after, "pids": {}} == {**before, "pids": {}}
    received = chatchain(network, "bob", "receive", "--wait", "10")
    assert [message["text"] for message in received] == ["kept by the relay"]


def test_down_keeps_everything_for_the_next_up(network: Path) -> None:
    """Members, messages and addresses are there again after both have stopped."""
    before = devnet("status", network)
    chatchain(network, "bob", "send", "ada", "kept over night")
    head = block_number(before)
    assert devnet("down", network)["stopped"] == before["pids"]
    assert not any(runs(pid) for pid in before["pids"].values())
    stopped = devnet("status", network)
    assert stopped["pids"] == {}
    assert stopped["sealed"] is None
    assert devnet("down", network)["stopped"] == {}
    after = up(network)
    assert {**after, "pids": {}} == {**before, "pids": {}}
    assert block_number(after) == head
    received = chatchain(network, "ada", "receive", "--wait", "10")
    assert [message["text"] for message in received] == ["kept over night"]


def test_a_newcomer_joins_with_the_link_and_is_voted_in(network: Path) -> None:
    """The whole of governance on a running network."""
    registered = newcomer(network, "carol", devnet("status", network)["join"])
    assert registered["member"] is False
    chatchain(network, "carol", "send", "ada", "too early", expect=7)
    [proposal] = [one for one in chatchain(network, "ada", "proposals") if one["state"] == "open"]
    assert (proposal["kind"], proposal["subject"]) == ("admit", "carol")
    chatchain(network, "ada", "vote", str(proposal["id"]), "yes")
    [passed] = chatchain(network, "bob", "vote", str(proposal["id"]), "yes")
    assert passed["state"] == "passed"
    chatchain(network, "carol", "send", "ada", "hello at last")
    received = chatchain(network, "ada", "receive", "--wait", "10")
    assert [message["text"] for message in received] == ["hello at last"]


def test_a_sealed_network_has_no_more_founders(network: Path) -> None:
    """The command says who decides now."""
    newcomer(network, "dan", devnet("status", network)["join"])
    done = run([*DEVNET, "seat", "dan", "--dir", str(network)])
    assert done.returncode == 2
    assert "sealed" in done.stderr


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--policy", "open"), ("--chain", "ganache"), ("--db", "sqlite:///x"), ("--port", "9")],
)
def test_a_network_stays_what_it_is(network: Path, flag: str, value: str) -> None:
    """A flag that would change it is refused, and what runs goes on."""
    before = devnet("status", network)
    done = run([*DEVNET, "up", "--dir", str(network), flag, value])
    assert done.returncode == 2
    assert flag in done.stderr
    assert devnet("status", network) == before


# --- seat -----------------------------------------------------------------------------------------------


def test_founders_may_come_later_also_on_ganache(folder: Path) -> None:
    """Without members the network is not sealed; `seat` does it, and Ganache keeps its state too."""
    done = run(
        [*DEVNET, "up", "--chain", "ganache", "--port", "0", "--relay-port", "0", "--dir", str(folder)]
    )
    assert done.returncode == 0, done.stderr
    assert "not sealed" in done.stderr
    assert f"python deploy/devnet.py down --dir {folder}" in done.stderr
    report = json.loads(done.stdout)
    assert f"chatchain --user NAME join {report['join']!r}" in done.stderr
    assert (report["sealed"], report["chain"], report["policy"]) == (False, "ganache", "open")
    newcomer(folder, "eve-1", report["join"])
    assert run([*DEVNET, "seat", "nobody-here", "--dir", str(folder)]).returncode == 6
    assert devnet("seat", folder, "eve-1")["sealed"] is True
    head = block_number(report)
    devnet("down", folder)
    assert up(folder)["sealed"] is True
    assert block_number(report) == head
    assert [member["username"] for member in chatchain(folder, "eve-1", "members")] == ["eve-1"]


# --- trouble --------------------------------------------------------------------------------------------


def test_a_failed_up_cleans_up_and_the_next_goes_on_from_there(folder: Path) -> None:
    """With the relay's port taken, the chain stops again; afterwards the same contracts are used."""
    made = up(folder)
    devnet("down", folder)
    with socket.create_server(("127.0.0.1", int(made["relay"].rpartition(":")[2]))):
        done = run([*DEVNET, "up", "--dir", str(folder)])
        assert done.returncode == 2
        assert made["relay"] in done.stderr
    stopped = devnet("status", folder)
    assert (stopped["pids"], stopped["running"]) == ({}, {"chain": False, "relay": False})
    assert up(folder)["contract_address"] == made["contract_address"]


@pytest.mark.parametrize("flag", ["--port", "--relay-port"])
def test_a_port_in_use_is_named_and_nothing_is_left(folder: Path, flag: str) -> None:
    """Before anything was started; a folder that was there stays, and no plan in it."""
    ports = {"--port": "0", "--relay-port": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[flag] = str(taken.getsockname()[1])
        command = [*DEVNET, "up", "--dir", str(folder), *(word for pair in ports.items() for word in pair)]
        for there in (False, True):
            done = run(command)
            assert done.returncode == 2
            assert f"127.0.0.1:{ports[flag]}" in done.stderr
            assert f"{flag} 0" in done.stderr
            assert folder.exists() is there
            folder.mkdir(exist_ok=True)
    assert not (folder / "devnet.json").exists()
    assert run([*DEVNET, "up", "--dir", str(folder / "new"), "--members", "a"]).returncode == 2
    assert not (folder / "new").exists()


def test_a_relay_that_cannot_start_is_reported_with_its_log(folder: Path) -> None:
    """Which log, and its last lines."""
    database = "mysql+pymysql://nobody:not-to-be-shown@127.0.0.1:9/none"
    done = run([*DEVNET, "up", "--dir", str(folder), "--port", "0", "--relay-port", "0", "--db", database])
    assert done.returncode == 4
    assert str(folder / "logs" / "relay.log") in done.stderr
    assert "not-to-be-shown" not in done.stderr
    assert devnet("status", folder)["pids"] == {}


def test_ctrl_c_leaves_nothing_running(folder: Path) -> None:
    """An interrupted `up` ends what it had started, and the next one comes through."""
    command = [*DEVNET, "up", "--dir", str(folder), "--port", "0", "--relay-port", "0"]
    with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE, text=True) as started:
        record = folder / "run" / "chain.json"
        while not record.exists():
            assert started.poll() is None
            time.sleep(0.01)
        pid = json.loads(record.read_text())["pid"]
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == 130
    assert not runs(pid)
    assert up(folder)["pids"].keys() == {"chain", "relay"}


def test_a_lost_chain_is_not_silently_replaced(folder: Path) -> None:
    """Without its state the network is over, and `up` says so instead of deploying another."""
    up(folder)
    devnet("down", folder)
    (folder / "chain" / "state.json").unlink()
    done = run([*DEVNET, "up", "--dir", str(folder)])
    assert done.returncode == 5
    assert "its state was lost" in done.stderr
    assert devnet("status", folder)["pids"] == {}


def test_two_commands_do_not_work_on_one_folder(folder: Path) -> None:
    """The second is told to wait."""
    folder.mkdir()
    (folder / "devnet.json").write_text("{}")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run([*DEVNET, "status", "--dir", str(folder)])
    assert done.returncode == 7
    assert "Another devnet command" in done.stderr
    (folder / "devnet.json").unlink()


def test_no_network_is_said(tmp_path: Path) -> None:
    """And no folder is made for the question."""
    for command in (["status"], ["down"], ["seat", "ada"]):
        done = run([*DEVNET, *command, "--dir", str(tmp_path / "none")])
        assert done.returncode == 6
        assert "no network" in done.stderr
    assert not (tmp_path / "none").exists()


# --- other databases, other machines --------------------------------------------------------------------


def test_mysql_holds_no_more_than_sqlite(folder: Path, mariadb: MariaDB, mariadb_url: str) -> None:
    """The relay on MariaDB: messages pass, and a dump of all tables shows neither text nor secret."""
    report = up(folder, "--members", "ada,bob", "--db", mariadb_url)
    assert mariadb.password.encode() not in b"".join(command_line(pid) for pid in report["pids"].values())
    text = "only for the eyes of bob"
    chatchain(folder, "ada", "send", "bob", text)
    dump = _dump(mariadb_url)
    assert b"ada" in dump
    for secret in (text, mariadb.password, *secrets_in(folder)):
        assert secret.encode() not in dump
    assert mariadb.password not in (folder / "logs" / "relay.log").read_text()
    [received] = chatchain(folder, "bob", "receive", "--wait", "10")
    assert received["text"] == text


def _dump(url: str) -> bytes:
    """Every value of every table."""
    place = make_url(url)
    connection = pymysql.connect(
        host=place.host,
        port=place.port or 3306,
        user=place.username,
        password=str(place.password),
        database=place.database,
    )
    held = []
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT * FROM `{table}`")
            values = [value for row in cursor.fetchall() for value in row]
            held += [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return b"\n".join(held)


def test_more_than_loopback_warns(folder: Path) -> None:
    """The warning, and a link and a relay's address that others can use."""
    done = run(
        [*DEVNET, "up", "--dir", str(folder), "--host", EVERYWHERE, "--port", "0", "--relay-port", "0"]
    )
    assert done.returncode == 0, done.stderr
    assert f"warning: {EVERYWHERE} is open to other machines" in done.stderr
    report = json.loads(done.stdout)
    assert EVERYWHERE not in report["join"] + report["relay"] + report["rpc"]


@pytest.mark.parametrize(
    ("host", "beyond"),
    [
        ("127.0.0.1", False),
        ("127.8.9.1", False),
        ("::1", False),
        ("localhost", False),
        (EVERYWHERE, True),
        ("::", True),
        ("192.0.2.1", True),
        ("relay.example", True),
    ],
)
def test_what_is_beyond_loopback(host: str, beyond: bool) -> None:
    """Whatever another machine could reach."""
    assert program.beyond_loopback(host) is beyond
