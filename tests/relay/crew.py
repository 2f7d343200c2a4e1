"""A supervisor whose workers do what they are told: `python -m tests.relay.crew HOW...`, one for each worker.

Each says on standard output what it does, a line at a time. HOW is `serve`, or `fail`: before it is ready,
with code 3.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path
from types import FrameType

import structlog

from chatchain.programs import workers


def say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{line}\n".encode())


class Told(Exception):
    """SIGTERM came."""


def work(channel: workers.Channel, how: str) -> int:
    """One worker."""

    def note(number: int, _frame: FrameType | None) -> None:
        say(f"{channel.number} hears {signal.Signals(number).name}")
        if number == signal.SIGTERM:
            raise Told

    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # which is not to end it before it can heed it
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    try:
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, note)
        files = len(list(Path("/proc/self/fd").iterdir()))
        say(f"{channel.number} begins with {files} files as {os.getpid()}")
        if how == "fail":
            return 3
        channel.say(workers.READY)
        while not select.select([channel.life], [], [], 0.05)[0]:
            channel.say(workers.ALIVE)
        say(f"{channel.number} outlives its supervisor")
    except Told:
        pass
    return 0


def main() -> int:
    hows = sys.argv[1:]
    log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    try:
        return workers.Supervisor(
            len(hows), lambda channel: work(channel, hows[channel.number]), log, lambda: say("ready")
        ).serve()
    finally:
        say("over")


if __name__ == "__main__":
    sys.exit(main())
