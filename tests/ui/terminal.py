"""The client in a process of its own: with pipes, or at a pseudo-terminal that a test types into."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = (sys.executable, str(ROOT / "client.py"))
PATIENCE: Final = 120.0
"""Seconds after which a program that should answer counts as hanging."""


@dataclass(frozen=True)
class Ended:
    """A command that is done: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What a program reads: every line of stdout must be one JSON object."""
        read = [json.loads(line) for line in self.out.splitlines()]
        assert all(isinstance(one, dict) for one in read)
        return read

    @property
    def object(self) -> dict[str, Any]:
        """The only object on stdout."""
        [only] = self.objects
        return only

    @property
    def error(self) -> dict[str, Any]:
        """The error that a program reads."""
        found = self.object["error"]
        assert isinstance(found, dict)
        assert found.keys() == {"code", "message", "hint"}
        return found


@dataclass(frozen=True)
class Shell:
    """Somebody's surroundings: a folder to start in, and an environment without our own settings."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str | Path, stdin: str | bytes | None = None) -> Ended:
        """Runs one command without a terminal."""
        done = subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=dict(self.environment),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in ended.out + ended.err or "--debug" in arguments
        return ended

    @contextlib.contextmanager
    def start(self, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """Runs one command without a terminal for the length of a block, at most."""
        with subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            try:
                yield child
            finally:
                child.kill()

    @contextlib.contextmanager
    def terminal(self, *arguments: str | Path) -> Iterator["Terminal"]:
        """Runs one command at a terminal; it must have ended when the block does."""
        with Terminal([*PROGRAM, *map(str, arguments)], self.folder, self.environment) as terminal:
            yield terminal


def shell(folder: Path, **environment: str | Path) -> Shell:
    """Surroundings whose data and config folders lie below `folder`."""
    for name in ("work", "data", "config"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT") if name in os.environ}
    own = {
        "HOME": folder,
        "XDG_DATA_HOME": folder / "data",
        "XDG_CONFIG_HOME": folder / "config",
        "TERM": "xterm",
    }
    return Shell(folder / "work", kept | {name: str(value) for name, value in (own | environment).items()})


class Terminal:
    """A program at a pseudo-terminal."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._mine, theirs = pty.openpty()
        self._seen = ""
        self._raw = b""
        self._child = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._theirs = theirs  # held open, so that its settings can be looked at

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()
        os.close(self._mine)
        os.close(self._theirs)

    @property
    def transcript(self) -> str:
        """Everything that the terminal has shown."""
        return self._raw.decode(errors="replace").replace("\r\n", "\n")

    def expect(self, text: str) -> str:
        """Waits until the text appears behind what was expected before; gives what stood in between."""
        end = time.monotonic() + PATIENCE
        while (unread := self.transcript[len(self._seen) :]).find(text) < 0:
            if not self._read(end):
                raise AssertionError(f"{text!r} did not come; since the last match:\n{unread}")
        before = unread[: unread.find(text)]
        self._seen += before + text
        return before

    def _read(self, end: float) -> bool:
        ready, _, _ = select.select([self._mine], [], [], max(end - time.monotonic(), 0))
        if not ready:
            # The program's side is held open here, so its end shows in the process only.
            return False
        self._raw += os.read(self._mine, 65536)
        return True

    def type(self, line: str) -> None:
        """Types a line and Enter."""
        self.press(f"{line}\n".encode())

    def press(self, keys: bytes) -> None:
        """Presses keys."""
        os.write(self._mine, keys)

    def ended(self) -> int:
        """Waits for the end of the program and gives its exit code."""
        code = self._child.wait(PATIENCE)
        while select.select([self._mine], [], [], 0)[0]:
            self._raw += os.read(self._mine, 65536)
        return code

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._theirs)[3] & termios.ECHO)
