"""kill -9 of real client processes on a real network: nothing lost, nothing twice, order kept."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import CLIENT, clean_environment, devnet, up, user

LINES = 600


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An open network with ada and bob."""
    folder = tmp_path_factory.mktemp("network")
    try:
        up(folder, "--members", "ada,bob")
        yield folder
    finally:
        devnet("down", folder)


def start(network: Path, name: str, *arguments: str, lines: list[str] | None = None) -> subprocess.Popen[str]:
    """Starts one command of somebody."""
    process = subprocess.Popen(
        [*CLIENT, "--json", *arguments],
        env=clean_environment() | user(network, name),
        stdin=subprocess.PIPE if lines else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if lines:
        assert process.stdin is not None
        process.stdin.write("\n".join(lines) + "\n")
        process.stdin.close()
    return process


def tell(network: Path, name: str, *arguments: str, lines: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs one command that must succeed and gives its objects."""
    with start(network, name, *arguments, lines=lines) as process:
        assert process.stdout is not None
        told = [json.loads(line) for line in process.stdout]
    assert process.returncode == 0, told
    return told


def killed_after(process: subprocess.Popen[str], count: int) -> list[str]:
    """Kills a process once it has put out so many lines; gives every whole line that it had put out."""
    with process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.kill()
        return lines + [line for line in process.stdout if line.endswith("\n")]


def test_sender_killed_again_and_again(network: Path) -> None:
    """Killed before, among and after its ticks: what its database holds arrives, each once and in order."""
    for ticks in (0, 1, 40, 200):
        lines = [f"{ticks} ticks, line {number}" for number in range(LINES)]
        process = start(network, "ada", "send", "bob", "--lines", lines=lines)
        if not ticks:
            time.sleep(0.7)
        killed_after(process, ticks)
    assert tell(network, "ada", "login")[0]["username"] == "ada"
    kept = tell(network, "ada", "history", "bob", "--limit", "10000")
    assert {one["state"] for one in kept} == {"sent"}
    shown = tell(network, "bob", "receive", "--wait", "2")
    assert len(shown) > 240
    assert [one["id"] for one in shown] == [one["id"] for one in kept]
    assert [one["text"] for one in shown] == [one["text"] for one in kept]
    assert tell(network, "bob", "receive") == []


def test_receiver_killed_again_and_again(network: Path) -> None:
    """Killed while showing: everything is shown, in order; only the last one before a kill may come again."""
    texts = [f"message {number}" for number in range(LINES)]
    tell(network, "ada", "send", "bob", "--lines", lines=texts)
    screen: list[list[str]] = []
    for count in (1, 30, 150):
        process = start(network, "bob", "receive", "--follow")
        screen.append([json.loads(line)["text"] for line in killed_after(process, count)])
    screen.append([one["text"] for one in tell(network, "bob", "receive", "--wait", "2")])
    for before, after in pairwise(screen):
        if after and before and after[0] == before[-1]:
            after.pop(0)
    assert [text for run_of in screen for text in run_of] == texts
    stored = [one["text"] for one in tell(network, "bob", "history", "ada", "--limit", str(LINES))]
    assert stored == texts
