"""Programs that go on running after the command that started them: start, recognise, wait for, stop.

A service is known by a file `run/NAME.json` with its process id and its start time; both must fit, so that a
number which the system has given to another program since is never signalled. A service has its own session,
no terminal, and a log file for both outputs: whoever started it can end, close its pipes or be interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from chatchain.errors import ChatchainError
from deploy import files

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 20.0
"""The relay drains for 10 s; a chain writes its state down."""

POLL_SECONDS: Final = 0.03
TAIL_LINES: Final = 15


class ServiceFailed(ChatchainError):
    """A program of the development network did not start, or would not stop."""

    code: ClassVar[str] = "service_failed"
    exit_code: ClassVar[int] = 4


class Running(msgspec.Struct, frozen=True):
    """Which process a service is."""

    pid: int
    started: str


class Service:
    """One program of a development network, found again by later commands."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log = folder / "logs" / f"{name}.log"
        self._record = folder / "run" / f"{name}.json"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while the service runs."""
        try:
            known = msgspec.json.decode(self._record.read_bytes(), type=Running)
        except (OSError, msgspec.DecodeError):
            return None
        # Its own child must be asked for, or it stays in the table of processes after its end.
        if self._child is not None and self._child.poll() is not None:
            return None
        return known.pid if start_time(known.pid) == known.started else None

    def start(self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> None:
        """Start the program; `wait_until` tells whether it came up."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = start_time(self._child.pid)
        if started is not None:  # else it ended at once, which wait_until reports
            files.write(self._record, msgspec.json.encode(Running(self._child.pid, started)).decode())

    def wait_until(self, answers: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Return once `answers` is true; raises ServiceFailed with the end of the log."""
        end = time.monotonic() + seconds
        while not answers():
            if self.pid is None:
                raise ServiceFailed(f"The {self.name} ended while starting.", self._last_words())
            if time.monotonic() > end:
                raise ServiceFailed(
                    f"The {self.name} does not answer after {seconds:.0f} s.", self._last_words()
                )
            time.sleep(POLL_SECONDS)

    def stop(self, seconds: float = STOP_SECONDS) -> int | None:
        """End the program gently and wait for it; gives its process id, or None if it was not running."""
        pid = self.pid
        if pid is None:
            self._record.unlink(missing_ok=True)
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + seconds
        while self.pid is not None:
            if time.monotonic() > end:
                raise ServiceFailed(
                    f"The {self.name} (process {pid}) does not stop after {seconds:.0f} s.",
                    f"See {self.log}; kill -9 {pid} ends it, at the risk of its last writes.",
                )
            time.sleep(POLL_SECONDS)
        self._record.unlink(missing_ok=True)
        return pid

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            return f"Its log {self.log} ends with:\n  " + "\n  ".join(lines or ["(nothing)"])
        return f"It wrote no log {self.log}."


def start_time(pid: int) -> str | None:
    """When a process started, in the system's own words; None if there is none, or only a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            state = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        # The second field is the program's name, which may hold anything; the fields after it are plain.
        fields = state.rpartition(")")[2].split()
        return None if fields[0] in {"Z", "X"} else fields[19]
    query = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    told = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split(maxsplit=1)
    return None if len(told) < 2 or told[0].startswith("Z") else told[1].strip()
