"""`make demo`: a newcomer sees the main job, nothing stays behind, and what goes wrong is not hidden."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from deploy import demo
from tests.e2e.programs import ROOT, clean_environment, run, runs

DEMO = [sys.executable, str(ROOT / "deploy" / "demo.py")]


def test_the_transcript_tells_the_whole_story(tmp_path: Path) -> None:
    """Every step in order, exit 0, and neither a folder nor a process is left."""
    done = run(DEMO, settings={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    at = -1
    for words in (
        "$ python deploy/devnet.py up --policy vote --members ada,bob",
        "Directory         0x",
        "carol $ chatchain join 'chatchain://join?",
        "carol $ chatchain register carol",
        'carol $ chatchain send ada "Hello, may I come in?"',
        "exit code 7: refused",
        "ada $ chatchain vote 1 yes",
        "bob $ chatchain vote 1 yes",
        "passed",
        f"ada $ chatchain send carol '{demo.HELLO}'",
        "sent to carol",
        "not there: ada's message",
        "not there: carol's password",
        "not there: the sponsor's private key",
        "carol $ chatchain receive",
        f"ada: {demo.HELLO}",
        f"carol: {demo.THANKS}",
        f"[delivered]: {demo.HELLO}",
        "Done in ",
    ):
        found = done.stdout.find(words, at + 1)
        assert found > at, f"{words!r} is missing, or comes too early:\n{done.stdout}"
        at = found
    assert list(tmp_path.iterdir()) == []


def test_an_end_in_the_middle_stops_everything(tmp_path: Path) -> None:
    """SIGTERM while the network runs: it goes down, and where the logs are is said."""
    command = subprocess.Popen(
        DEMO,
        env=clean_environment() | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with command as started:
        assert started.stdout is not None
        while "carol arrives" not in started.stdout.readline():
            assert started.poll() is None
        [folder] = tmp_path.iterdir()
        pids = [json.loads(path.read_text())["pid"] for path in (folder / "run").iterdir()]
        assert len(pids) == 2
        assert all(runs(pid) for pid in pids)
        started.send_signal(signal.SIGTERM)
        _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert str(folder / "logs") in said
    assert not any(runs(pid) for pid in pids)


def test_a_step_that_fails_is_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 and the reason, with the folder kept to look into."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(self: demo.Demo) -> None:
        raise demo.DemoFailed("the votes were not counted")

    monkeypatch.setattr(demo.Demo, "run", broken)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert demo.main([]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "failed: the votes were not counted" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("place", ["body", "log"])
@pytest.mark.parametrize("form", sorted(demo._spellings("x" * 64 + "?")))
def test_a_leak_is_found(tmp_path: Path, place: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search through database and log finds what it looks for, in every spelling."""
    leak = demo._spellings(demo.HELLO)[form]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "relay.log").write_bytes(leak if place == "log" else b"carol came")
    connection = sqlite3.connect(tmp_path / "relay.sqlite3")
    connection.execute("CREATE TABLE mail (uid INTEGER, last INTEGER, content BLOB)")
    body = leak if place == "body" else b"carol"
    parcel = msgspec.msgpack.encode((b"id", 1, 8, 1, 7, 0, b"header", b"\0" * 30 + body))
    connection.execute("INSERT INTO mail VALUES (7, 1, ?)", (len(parcel).to_bytes(4, "big") + parcel,))
    connection.commit()
    connection.close()
    monkeypatch.setattr(demo.Demo, "_secrets", lambda self: {})
    with pytest.raises(demo.DemoFailed, match="ada's message is in the relay's database or log"):
        demo.Demo(tmp_path)._look_into_the_relay()


def test_a_key_is_found_in_bytes_too() -> None:
    """Hex digits of a key are also looked for as the bytes that they spell."""
    assert demo._spellings("ab" * 32)["in bytes"] == b"\xab" * 32
    assert "in bytes" not in demo._spellings("ab" * 31)


def test_a_command_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And named."""
    monkeypatch.setattr(demo, "COMMAND_SECONDS", 0.2)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(demo.DemoFailed, match="takes longer than"):
        demo.Demo(tmp_path)._call(command, clean_environment())
