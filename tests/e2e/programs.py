"""The programs as a person or a script runs them: commands, their JSON, and the processes that they leave."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chatchain.config import CLIENT_OPTIONS, SERVER_OPTIONS
from deploy.services import start_time
from tests.fixtures.processes import free_port

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DEVNET: Final = [sys.executable, str(ROOT / "deploy" / "devnet.py")]
CLIENT: Final = [sys.executable, str(ROOT / "client.py")]


def clean_environment() -> dict[str, str]:
    """The environment without settings of ours."""
    ours = {option.variable for option in (*CLIENT_OPTIONS, *SERVER_OPTIONS)}
    return {name: value for name, value in os.environ.items() if name not in ours}


def run(
    command: list[str], *, cwd: Path | None = None, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. It returns only when nobody holds its pipes any more."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment() | dict(settings or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def devnet(command: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a devnet command that must succeed; gives its one JSON object."""
    done = run([*DEVNET, command, "--dir", str(folder), *arguments])
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


def up(folder: Path, *arguments: str) -> dict[str, Any]:
    """Bring a network up, on free ports if it is a new one."""
    if not (folder / "devnet.json").exists():
        arguments = ("--port", str(free_port()), "--relay-port", str(free_port()), *arguments)
    return devnet("up", folder, *arguments)


def user(folder: Path, name: str) -> dict[str, str]:
    """The settings that make the client one of the network's users."""
    home = folder / "homes" / name
    return {"CHATCHAIN_HOME": str(home), "CHATCHAIN_PASSWORD_FILE": f"{home}.password"}


def chatchain(folder: Path, name: str, *arguments: str, expect: int = 0) -> list[dict[str, Any]]:
    """Run a client command as one user; gives its JSON objects."""
    done = run([*CLIENT, "--json", "--no-input", *arguments], settings=user(folder, name))
    assert done.returncode == expect, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def newcomer(folder: Path, name: str, link: str) -> dict[str, Any]:
    """Let somebody join and register."""
    password = folder / "homes" / f"{name}.password"
    password.parent.mkdir(mode=0o700, exist_ok=True)
    password.write_text(f"the password of {name} 4711")
    password.chmod(0o600)
    chatchain(folder, name, "join", link)
    [registered] = chatchain(
        folder, name, "register", name, "--mnemonic-file", str(password.with_suffix(".words"))
    )
    return registered


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    return start_time(pid) is not None
