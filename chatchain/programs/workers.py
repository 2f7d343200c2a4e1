"""Several relay processes that share one port: starts them, starts them again, and ends them together.

The supervisor holds no connection and no database: it forks before any thread or event loop exists, and then
only waits. Each worker has two pipes with it. On one the worker says that it is ready, and again every second
that it lives; one that falls silent is killed, so that the kernel gives it no more connections. The other
says nothing: its end is the end of the supervisor, after which a worker drains and ends, too.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final

from structlog.typing import FilteringBoundLogger

from chatchain.programs.notify import notify, watchdog_seconds

BEAT: Final = 1.0
SILENT: Final = 10.0
"""Seconds after which a worker that says nothing is killed."""

START_SECONDS: Final = 120.0
"""The same before it is ready: it may have to bring the tables up to date."""

STOP_SECONDS: Final = 14.0
"""After SIGTERM, until a worker is killed; it drains for less than ten."""

PAUSE_FIRST: Final = 0.1
PAUSE_LAST: Final = 5.0
"""Seconds before a worker that ended is started again: doubled each time, up to this."""

PROVEN: Final = 30.0
"""Seconds after which a worker counts as sound again."""

READY: Final = b"R"
ALIVE: Final = b"."

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True)
class Channel:
    """A worker's line to its supervisor."""

    number: int
    report: int
    """File descriptor to write READY and ALIVE to."""
    life: int
    """File descriptor that ends when the supervisor does."""

    def say(self, word: bytes) -> None:
        """Tells the supervisor; it may be gone, which `life` tells."""
        with contextlib.suppress(OSError):
            os.write(self.report, word)


Run = Callable[[Channel], int]
"""What a worker does; gives its exit code."""


@dataclass
class _Worker:
    number: int
    pid: int = 0
    report: int = -1
    ready: bool = False
    started: float = 0.0
    heard: float = 0.0
    pause: float = PAUSE_FIRST
    start_at: float = 0.0


class Supervisor:
    """Keeps a number of workers running until it is told to stop."""

    def __init__(self, count: int, run: Run, log: FilteringBoundLogger, on_ready: Callable[[], None]) -> None:
        self._run = run
        self._log = log
        self._on_ready = on_ready
        self._workers = [_Worker(number) for number in range(count)]
        self._life = os.pipe()  # nobody writes; the workers read its end
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._announced = False
        self._stopping_since = 0.0
        self._exit_code = 0
        self._watchdog = watchdog_seconds()

    def serve(self) -> int:
        """Runs until SIGTERM or SIGINT, or until the first worker cannot start; gives the exit code."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._note)
        self._selector.register(wake_read, selectors.EVENT_READ)
        told = 0.0
        while not self._ended():
            for key, _ in self._selector.select(timeout=0.1 if self._busy() else 0.5):
                if key.fd == wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 1024)
                else:
                    self._hear(key.data)
            self._heed()
            self._reap()
            self._tend()
            if self._watchdog is not None and time.monotonic() - told > self._watchdog / 3:
                told = time.monotonic()
                notify("WATCHDOG=1")
        return self._exit_code

    # --- signals ---

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _heed(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(0)
            elif number == signal.SIGHUP:
                self._send(signal.SIGHUP)

    def _stop(self, code: int) -> None:
        if not self._stopping_since:
            self._stopping_since = time.monotonic()
            self._exit_code = code
            notify("STOPPING=1")
            self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)

    # --- workers ---

    def _ended(self) -> bool:
        return bool(self._stopping_since) and not any(worker.pid for worker in self._workers)

    def _busy(self) -> bool:
        return bool(self._stopping_since) or any(not worker.pid for worker in self._workers)

    def _tend(self) -> None:
        now = time.monotonic()
        if self._stopping_since:
            if now - self._stopping_since > STOP_SECONDS:
                self._send(signal.SIGKILL)
            return
        first = self._workers[0]
        for worker in self._workers:
            if worker.pid:
                patience = SILENT if worker.ready else START_SECONDS
                if now - worker.heard > patience:
                    self._log.error("worker silent", worker=worker.number, pid=worker.pid)
                    worker.heard = now
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
                elif worker.ready and now - worker.started > PROVEN:
                    worker.pause = PAUSE_FIRST
            # The first alone prepares the database; whatever is wrong is said once.
            elif now >= worker.start_at and (worker is first or self._announced or first.ready):
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become(Channel(worker.number, writing, self._life[0]), reading)
        os.close(writing)
        os.set_blocking(reading, False)
        now = time.monotonic()
        worker.pid, worker.report, worker.ready = pid, reading, False
        worker.started = worker.heard = now
        self._selector.register(reading, selectors.EVENT_READ, worker)

    def _become(self, channel: Channel, reading: int) -> None:
        """In the child: a process of its own, which never returns from here."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(
                signal.SIGHUP, signal.SIG_IGN
            )  # until it can heed it; it starts with the newest pair
            os.close(reading)
            os.close(self._life[1])
            self._selector.close()
            for other in self._workers:
                if other.report >= 0:
                    os.close(other.report)
            code = self._run(channel)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _hear(self, worker: _Worker) -> None:
        try:
            words = os.read(worker.report, 4096)
        except BlockingIOError:
            return
        if not words:
            self._hang_up(worker)
            return
        worker.heard = time.monotonic()
        if READY in words:
            worker.ready = True
            if not self._announced and all(each.ready for each in self._workers):
                self._announced = True
                self._on_ready()
                notify("READY=1")

    def _hang_up(self, worker: _Worker) -> None:
        if worker.report >= 0:
            self._selector.unregister(worker.report)
            os.close(worker.report)
            worker.report = -1

    def _reap(self) -> None:
        for worker in self._workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._hang_up(worker)
                self._ended_with(worker, os.waitstatus_to_exitcode(status))

    def _ended_with(self, worker: _Worker, code: int) -> None:
        worker.pid = 0
        if self._stopping_since:
            self._exit_code = self._exit_code or max(code, 0)
            return
        if not self._announced and not worker.ready:
            self._stop(code if code > 0 else 1)  # it never worked: trying again would say the same again
            return
        worker.start_at = time.monotonic() + worker.pause
        self._log.error("worker ended", worker=worker.number, code=code, again_in=worker.pause)
        worker.pause = min(2 * worker.pause, PAUSE_LAST)
