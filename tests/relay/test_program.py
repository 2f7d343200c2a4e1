"""`python server.py`: what it prints, how it ends, and what it says when it cannot start."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatchain.identity.keys import to_checksum
from chatchain.model import Address, Policy
from chatchain.wire.messages import Failed, FetchPrekeys, Goodbye, Prekeys, Refused, Submit, Tick
from deploy import certificates
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.processes import free_port
from tests.relay.stage import ROOT, Device, Stage

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def stage(anvil: DevChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A network under policy `vote`, and a relay that no test has started yet."""
    folder = tmp_path_factory.mktemp("program")
    made = Stage(anvil, folder, f"sqlite:///{folder / 'relay.db'}", Policy.VOTE)
    yield made
    made.stop()


def run(stage: Stage, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs the program until it ends by itself."""
    return subprocess.run(stage.command(*more), capture_output=True, text=True, timeout=60, check=False)


def without(stage: Stage, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs it without these flags."""
    command = stage.command()
    for flag in flags:
        place = command.index(flag)
        del command[place : place + 2]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def sentences(done: subprocess.CompletedProcess[str]) -> str:
    """What it said to people: stderr without the log's lines."""
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("{"))


def pair(folder: Path, *kind: str) -> tuple[Path, Path]:
    """A certificate and its key, as openssl makes them."""
    folder.mkdir()
    certificate, key = folder / "relay.pem", folder / "relay.key"
    made = ["openssl", "req", "-x509", "-days", "9", "-subj", "/CN=relay.example", *kind]
    subprocess.run([*made, "-keyout", key, "-out", certificate], capture_output=True, check=True)
    return certificate, key


def assert_ends(done: subprocess.CompletedProcess[str], code: int, sentence: str) -> None:
    assert sentence in sentences(done), done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Server is running" not in done.stdout
    assert len(sentences(done).splitlines()) <= 2


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [("--rpc", "No chain is given."), ("--directory", "No network is given."), ("--cert", "cert")],
)
def test_what_is_missing_is_named(stage: Stage, flag: str, sentence: str) -> None:
    """With exit code 2 and the flag that would give it."""
    done = without(stage, flag)
    assert_ends(done, 2, sentence)
    assert "--" in done.stderr


def test_no_certificate_at_all_is_named(stage: Stage) -> None:
    """The relay does not invent one that the chain does not know."""
    assert_ends(without(stage, "--cert", "--key"), 2, "No TLS certificate is given.")


def test_files_that_are_no_pair_are_named(stage: Stage, tmp_path: Path) -> None:
    """Missing, unreadable as PEM, and a key of another certificate."""
    other = certificates.make(tmp_path)
    (tmp_path / "text").write_text("not a certificate")
    assert_ends(run(stage, "--cert", str(tmp_path / "none.pem")), 2, "cannot be read: No such file")
    assert_ends(run(stage, "--key", str(tmp_path / "none.pem")), 2, "cannot be read: No such file")
    assert_ends(run(stage, "--cert", str(tmp_path / "text")), 2, "is not valid PEM")
    assert_ends(run(stage, "--key", str(other.key)), 2, "does not belong to the certificate")
    rsa = pair(tmp_path / "rsa", "-newkey", "rsa:2048", "-nodes")
    assert_ends(run(stage, "--key", str(rsa[1])), 2, "does not belong to the certificate")
    weak = pair(tmp_path / "weak", "-newkey", "rsa:1024", "-nodes")
    assert_ends(run(stage, "--cert", str(weak[0]), "--key", str(weak[1])), 2, "is too weak")


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(stage: Stage, tmp_path: Path) -> None:
    """OpenSSL would ask at the terminal, where nobody may be: at a reload for ever."""
    certificate, key = pair(tmp_path / "locked", "-newkey", "rsa:2048", "-passout", "pass:sesame")
    done = run(stage, "--cert", str(certificate), "--key", str(key))
    assert_ends(done, 2, "A key with a passphrase is not supported.")
    assert "pass phrase:" not in done.stderr + done.stdout


def test_with_debug_the_exit_code_stays_and_the_stack_trace_comes(stage: Stage) -> None:
    """Also where the environment asks for it."""
    done = run(stage, "--db", "sqlite://", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    stage.environment["CHATCHAIN_DEBUG"] = "true"
    try:
        done = run(stage, "--db", "sqlite://")
    finally:
        del stage.environment["CHATCHAIN_DEBUG"]
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_secrets_that_others_can_read_are_warned_of(stage: Stage, tmp_path: Path) -> None:
    """The key's file and the settings in the current folder; what is the owner's alone is not."""
    made = certificates.make(tmp_path)
    settings = stage.folder / ".env"
    settings.touch(mode=0o600)

    def warned() -> list[str]:
        done = run(
            stage, "--cert", str(made.certificate), "--key", str(made.key), "--db", f"sqlite:///{tmp_path}"
        )
        assert_ends(done, 4, "it is a folder")
        lines = (json.loads(line) for line in done.stderr.splitlines() if line.startswith("{"))
        return [line["file"] for line in lines if line["event"] == "readable by others"]

    try:
        assert warned() == []
        for path in (settings, made.key):
            path.chmod(0o644)
        assert warned() == [str(settings), str(made.key)]
    finally:
        settings.unlink()


def test_a_port_in_use_is_named(stage: Stage) -> None:
    """Also when it is the metrics port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flag in ("--port", "--metrics-port"):
            assert_ends(
                done := run(stage, flag, str(port)),
                2,
                f"cannot listen on 127.0.0.1:{port}: another program uses it",
            )
            assert f"with --host and {flag}." in done.stderr
    assert_ends(run(stage, "--host", "203.0.113.1"), 2, "this machine has no such address")


def test_a_database_that_cannot_serve_is_named(stage: Stage, mariadb: MariaDB) -> None:
    """Unreachable, refused, malformed; never with its password."""
    assert_ends(
        run(stage, "--db", f"mysql+pymysql://u:sesame@127.0.0.1:{free_port()}/x"), 4, "does not answer"
    )
    refused = run(stage, "--db", mariadb.new_database().replace(mariadb.password, "sesame"))
    assert_ends(refused, 4, "refuses the user or the password")
    assert "sesame" not in refused.stderr
    assert_ends(run(stage, "--db", "postgresql://localhost/x"), 2, "")


def test_a_chain_that_cannot_serve_is_named(stage: Stage) -> None:
    """Nobody there, and nobody's contract there."""
    assert_ends(run(stage, "--rpc", f"http://127.0.0.1:{free_port()}"), 5, "")
    command = stage.command()
    for place, word in enumerate(command):
        if word == "--rpc":
            command[place + 1] = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert_ends(done, 5, "does not answer")
    assert_ends(run(stage, "--directory", to_checksum(Address(b"x" * 20))), 5, "")


def test_bad_flags_are_a_matter_of_usage(stage: Stage) -> None:
    """Unknown flags and values that cannot be."""
    assert run(stage, "--nonsense").returncode == 2
    assert_ends(run(stage, "--port", "99999"), 2, "99999")


def test_help_names_every_option() -> None:
    """Of the command line's description."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "server.py"), "--help"], capture_output=True, text=True, check=True
    )
    for flag in ("host", "port", "db", "rpc", "directory", "cert", "key", "workers", "metrics-port", "nats"):
        assert f"--{flag}" in done.stdout


def test_a_second_relay_on_the_database_is_refused(stage: Stage) -> None:
    """With SQLite, while the first goes on."""
    first = stage.start()
    assert_ends(run(stage, "--port", "0"), 7, "Another relay is working on this database.")
    assert first.running
    first.stop()


def test_a_certificate_that_the_chain_does_not_name_is_warned_of(stage: Stage, tmp_path: Path) -> None:
    """The relay runs, since the entry may follow, and shows the fingerprint to enter."""
    other = certificates.make(tmp_path)
    before = len(stage.log.read_text()) if stage.log.exists() else 0
    process = stage.start("--cert", str(other.certificate), "--key", str(other.key))
    process.stop()
    assert other.spki.hex(":").upper() in stage.log.read_text()[before:]


async def test_without_a_key_the_relay_runs_and_sponsors_nobody(stage: Stage) -> None:
    """It says so in its log, and to who asks."""
    account = stage.register("unsponsored")
    key = stage.environment.pop("PRIVATE_KEY")
    try:
        process = stage.start()
    finally:
        stage.environment["PRIVATE_KEY"] = key
    device = await Device(stage, account).connect()
    failed = await device.sponsor(account.vote(stage.world, 1, True))
    assert isinstance(failed, Failed)
    assert failed.code == "refused"
    await device.close()
    process.stop()
    assert any(
        json.loads(line)["event"] == "sponsor off"
        for line in stage.log.read_text().splitlines()
        if "{" in line
    )


async def test_under_policy_vote_only_members_message(stage: Stage) -> None:
    """Both sides must be admitted, also to use up prekeys; a seat counts from its block on."""
    process = stage.start()
    ada, bob = stage.register("voteada"), stage.register("votebob")
    device = await Device(stage, ada).connect()

    async def code() -> str:
        answer = await device.send(bob)
        return answer.code if isinstance(answer, Refused) else type(answer).__name__

    async def prekeys() -> str:
        await device.say(FetchPrekeys(7, ((bob.uid, 1),)))
        answer = await device.next()
        if isinstance(answer, Prekeys) and answer.withheld:
            return answer.withheld[0].code
        return answer.code if isinstance(answer, Failed) else type(answer).__name__

    assert await code() == await prekeys() == "not_a_member"
    stage.world.deployer.seat(stage.world.network, ["voteada"])
    assert await code() == await prekeys() == "not_a_member"
    stage.world.deployer.seat(stage.world.network, ["votebob"])
    # Whoever was just admitted does not wait until the relay looks at the chain by itself.
    assert await prekeys() == "Prekeys"
    assert await code() == "Tick"
    await device.close()
    process.stop()


async def test_a_terminated_relay_says_goodbye_and_ends_with_0(stage: Stage) -> None:
    """What was submitted before is answered; it takes less than ten seconds, and nothing is lost."""
    process = stage.start()
    ada = stage.register("drained")
    stage.world.deployer.seat(stage.world.network, ["drained"])
    device = await Device(stage, ada).connect()
    envelopes = [device.envelope(ada) for _ in range(200)]
    for envelope in envelopes:
        await device.say(Submit(envelope))
    first = await device.expect(Tick)
    started = time.monotonic()
    process._child.terminate()
    ticked = {first.id}
    while True:
        message = await device.next()
        if isinstance(message, Goodbye):
            assert message.code == "shutdown"
            break
        assert isinstance(message, Tick)
        ticked.add(message.id)
    assert await asyncio.to_thread(process._child.wait, 60) == 0
    assert time.monotonic() - started < 10
    stage.start()
    again = await Device(stage, ada).connect()
    assert again.welcome is not None
    assert again.welcome.waiting >= len(ticked)
    await device.close()
    await again.close()
    stage.stop()


def test_a_relay_ends_with_0_though_it_waits_for_its_database_to_start(stage: Stage) -> None:
    """Of one that is silent it would hear nothing for half a minute, and then end with that."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        command = stage.command("--db", f"mysql+pymysql://u:p@127.0.0.1:{silent.getsockname()[1]}/x")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as relay:
            asked, _ = silent.accept()
            with asked:
                relay.terminate()
                _, said = relay.communicate(timeout=60)
    assert relay.returncode == 0, said
    assert "cut short" in said


ALTERNATING = """
import os
from pathlib import Path
from chatchain.programs import server

def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

server._return_large_blocks()
before = pages()
for _ in range(2):  # what is freed first teaches glibc that blocks of this size come again
    pairs = [([bytearray(512 * 1024)], bytearray(100 * 1024)) for _ in range(64)]
    for large, _ in pairs:
        large.clear()
print((pages() - before) * os.sysconf("SC_PAGE_SIZE") // 2**20)
"""


def test_large_blocks_go_back_to_the_system_though_small_ones_between_them_stay() -> None:
    """What one connection needed for a file is not the process's until it ends; else 35 MiB would be left."""
    done = subprocess.run([sys.executable, "-c", ALTERNATING], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16
