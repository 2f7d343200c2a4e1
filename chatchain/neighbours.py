"""Unix datagrams, by which the workers of one machine hand each other what they have just committed.

Each worker reads from a socket that bears its number, in a folder that is their owner's alone. A datagram
arrives whole or not at all, and nobody waits for anybody: what a slow or frozen neighbour does not take is
queued up to a bound and then dropped. So nothing here may be the only way to learn of anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

MOST: Final = 192 * 1024
"""Bytes of a datagram: what Linux lets a socket send at once unless it is told otherwise is a little more."""

QUEUE_BYTES: Final = 1024 * 1024
"""What may wait for one neighbour, beside the ten datagrams or so that the kernel keeps for it."""

AT_ONCE: Final = 16
"""Datagrams that are read before the loop turns to something else."""


class Neighbours:
    """The other workers of this machine, by their numbers."""

    def __init__(self, folder: Path, number: int, count: int, told: Callable[[str], None]) -> None:
        """`told` hears why a socket could not be had."""
        self.number = number
        """Which worker this is."""
        self.others = [other for other in range(count) if other != number]
        """Which there are besides."""
        self._path = folder / str(number)
        self._lines = {other: _Line(str(folder / str(other))) for other in self.others}
        self._told = told
        self._socket: socket.socket | None = None
        self._buffer = memoryview(bytearray(MOST))
        self._heard: Callable[[memoryview], None] = lambda _: None

    def start(self, heard: Callable[[memoryview], None]) -> None:
        """Begins to read; `heard` gets each message, on the loop, and must keep nothing of it."""
        self._heard = heard
        reading = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        reading.setblocking(False)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()  # of a worker of this number that ended
            reading.bind(str(self._path))
            self._path.chmod(0o600)
        except OSError as error:  # the others then find nobody, and the database tells
            reading.close()
            self._told(error.strerror or str(error))
            return
        self._socket = reading
        asyncio.get_running_loop().add_reader(reading.fileno(), self._read)

    def send(self, to: int, message: bytes) -> bool:
        """Sends without waiting; False when the message was dropped."""
        return len(message) <= MOST and self._lines[to].send(message)

    def close(self) -> None:
        """Reads and sends no more."""
        for line in self._lines.values():
            line.hang_up()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            if self._socket is None:
                return
            try:
                size = self._socket.recv_into(self._buffer)
            except OSError:
                return
            self._heard(self._buffer[:size])


class _Line:
    """What goes to one neighbour."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._queue: deque[bytes] = deque()
        self._queued = 0

    def send(self, message: bytes) -> bool:
        """Sends or queues a message, or drops it."""
        if not self._queue:
            try:
                self._connected().send(message)
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._connected().fileno(), self._flush)
            except OSError:  # there is nobody just now
                self.hang_up()
                return False
            else:
                return True
        if self._queued + len(message) > QUEUE_BYTES:
            return False
        self._queue.append(message)
        self._queued += len(message)
        return True

    def hang_up(self) -> None:
        """Drops what waits; the next message looks for the neighbour anew."""
        if self._socket is not None:
            if self._queue:
                asyncio.get_running_loop().remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._queue.clear()
        self._queued = 0

    def _connected(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * QUEUE_BYTES)
            try:
                made.connect(self._path)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _flush(self) -> None:
        assert self._socket is not None
        try:
            while self._queue:
                self._socket.send(self._queue[0])
                self._queued -= len(self._queue.popleft())
        except BlockingIOError:
            return
        except OSError:
            self.hang_up()
            return
        asyncio.get_running_loop().remove_writer(self._socket.fileno())
