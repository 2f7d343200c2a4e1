"""Processes on Linux: their children, threads and connections, and on which cores they run."""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def threads_of(pid: int) -> list[int]:
    """The threads of a process."""
    return [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]


def bind(threads: Collection[int], cores: Collection[int]) -> None:
    """Has threads run on these cores only; those that they start do the same."""
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(thread, cores)


def connections_of(pid: int) -> set[tuple[int, int]]:
    """The ports of a process's TCP connections over IPv4: its own, and the other side's."""
    files = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            files.add(str(file.readlink()))
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {(_port(line[1]), _port(line[2])) for line in lines if f"socket:[{line[9]}]" in files}


def _port(end: str) -> int:
    return int(end.partition(":")[2], 16)
