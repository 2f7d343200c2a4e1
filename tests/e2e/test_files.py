"""Files with the programs that people run: what scripts rely on, and kill -9 in both directions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import CLIENT, chatchain, clean_environment, devnet, run, up, user

LIMIT = 25_000_000


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An open network with ada and bob."""
    folder = tmp_path_factory.mktemp("network")
    try:
        up(folder, "--members", "ada,bob")
        yield folder
    finally:
        devnet("down", folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The largest file that is sent."""
    path = tmp_path_factory.mktemp("files") / "film.mp4"
    path.write_bytes(os.urandom(LIMIT))
    return path


def hashed(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def told_of(shown: list[dict[str, Any]]) -> dict[str, Any]:
    """The one file among what was shown."""
    [one] = [one for one in shown if one["kind"] == "file"]
    return one


def killed_when(network: Path, name: str, *arguments: str, so: Callable[[], bool]) -> None:
    """Starts one command of somebody and kills it as soon as something is so, if it has not ended before."""
    process = subprocess.Popen(
        [*CLIENT, "--json", *arguments],
        env=clean_environment() | user(network, name),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not so():
        time.sleep(0.0005)
    process.kill()
    process.wait()


def test_a_small_file_with_a_caption(network: Path, tmp_path: Path) -> None:
    """Every key that scripts read, on both sides; the object comes with its message."""
    path = tmp_path / "notes.txt"
    path.write_text("What we decided.\n")
    [sent] = chatchain(network, "ada", "send", "bob", "Have a look.", "--file", str(path))
    assert (sent["to"], sent["state"]) == ("bob", "sent")
    shown = told_of(chatchain(network, "bob", "receive", "--wait", "5"))
    assert (shown["id"], shown["from"], shown["text"], shown["group"]) == (
        sent["id"],
        "ada",
        "Have a look.",
        None,
    )
    attachment = shown["attachment"]
    assert (attachment["name"], attachment["size"]) == ("notes.txt", path.stat().st_size)
    assert attachment["sha256"] == hashed(path) == hashed(attachment["path"])
    assert Path(attachment["path"]).stat().st_mode & 0o777 == 0o600
    for name in ("ada", "bob"):
        home = next(one for one in chatchain(network, name, "doctor") if one["check"] == "home")
        assert home["ok"], home
    [got] = chatchain(network, "bob", "file", "get", sent["id"])
    assert got["path"] == attachment["path"]
    [kept] = chatchain(network, "ada", "history", "bob", "--limit", "1")
    assert (kept["kind"], kept["attachment"]["name"], kept["state"]) == ("file", "notes.txt", "sent")


def test_what_is_refused_ends_with_its_exit_code(network: Path, tmp_path: Path) -> None:
    """Too large (7) before anything is sent; missing (6); no file, or two things at once (2)."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(LIMIT + 1)
    for arguments, code, word in (
        (("--file", str(large)), 7, "too_large"),
        (("--file", str(tmp_path / "missing")), 6, "no_such_file"),
        (("--file", str(tmp_path)), 2, "bad_file"),
        (("--file", str(large), "--lines"), 2, "usage"),
        (("--file", __file__, "--file", str(large)), 2, "usage"),
        (("hello", "--keep-metadata"), 2, "usage"),
    ):
        [told] = chatchain(network, "ada", "send", "bob", *arguments, expect=code)
        assert told["error"]["code"] == word
    [told] = chatchain(network, "bob", "file", "get", "ab" * 16, expect=6)
    assert told["error"]["code"] == "unknown_message"


def test_25_mb_arrive_and_are_put_where_they_are_wanted(network: Path, film: Path, tmp_path: Path) -> None:
    """Not by themselves; into a folder under their own name; never over what is there unless told so."""
    [sent] = chatchain(network, "ada", "send", "bob", "--file", str(film))
    shown = told_of(chatchain(network, "bob", "receive", "--wait", "5"))
    assert (shown["attachment"]["size"], shown["attachment"]["path"]) == (LIMIT, None)
    [got] = chatchain(network, "bob", "file", "get", sent["id"][:8], "--out", str(tmp_path))
    assert got["path"] == str(tmp_path / "film.mp4")
    assert hashed(got["path"]) == got["sha256"] == hashed(film)
    [told] = chatchain(network, "bob", "file", "get", sent["id"], "--out", str(tmp_path), expect=7)
    assert told["error"]["code"] == "already_done"
    Path(got["path"]).write_bytes(b"")
    chatchain(network, "bob", "file", "get", sent["id"], "--out", str(tmp_path), "--overwrite")
    assert hashed(got["path"]) == got["sha256"]
    plain = run(
        [*CLIENT, "--no-input", "file", "get", sent["id"]], settings=user(network, "bob")
    ).stdout.splitlines()
    assert len(plain) == 1
    assert "film.mp4" in plain[0]


def test_kill_9_in_mid_upload_and_in_mid_download(network: Path, film: Path) -> None:
    """The next command that connects sends the rest and the message; the next `file get` fetches the rest.

    A kill may come too late: then it is tried with another.
    """
    relay, home = network / "files", network / "homes"

    def parts() -> int:
        return sum(len(files) for _, _, files in os.walk(relay))

    kept: dict[str, Any] = {}
    for _ in range(20):
        enough = parts() + 2
        killed_when(network, "ada", "send", "bob", "--file", str(film), so=lambda: parts() > enough)  # noqa: B023
        [kept] = chatchain(network, "ada", "history", "bob", "--limit", "1")
        if kept["state"] == "queued":
            break
    assert (kept["kind"], kept["state"]) == ("file", "queued")
    chatchain(network, "ada", "login")
    [kept] = chatchain(network, "ada", "history", "bob", "--limit", "1")
    assert kept["state"] in ("sent", "delivered")
    assert list((home / "ada" / "files" / "out").iterdir()) == []
    shown = chatchain(network, "bob", "receive", "--wait", "5")[-1]
    assert (shown["kind"], shown["id"]) == ("file", kept["id"])

    def came() -> int:
        with contextlib.suppress(FileNotFoundError):  # it becomes the file
            return sum(path.stat().st_size for path in (home / "bob" / "files" / "in").rglob(".part"))
        return 0

    for _ in range(20):
        killed_when(network, "bob", "file", "get", shown["id"], so=lambda: came() > 1_000_000)
        if came():
            break
        chatchain(network, "ada", "send", "bob", "--file", str(film))
        shown = chatchain(network, "bob", "receive", "--wait", "5")[-1]
    assert 1_000_000 < came() < LIMIT
    [got] = chatchain(network, "bob", "file", "get", shown["id"])
    assert hashed(got["path"]) == hashed(film)
    assert came() == 0
