"""A wire between clients and a relay that can be cut in the middle of a frame, or swallow everything."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import socket
import struct
from collections.abc import Callable
from typing import Final, Self

from chatchain.model import RelayAddress
from tests.relay.stage import Stage

CHUNK: Final = 16 * 1024

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing says RST, and what was not sent is not."""


class Wire:
    """Carries bytes both ways between whoever dials its port and one other port."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.lasts: Callable[[], int] | None = None
        """How many bytes, of both directions, the next connections carry until they are reset."""
        self.swallows = False
        """Whether everything is taken and nothing arrives: neither side is told."""
        self.resets = 0
        self.record: bytearray | None = None
        """What came from those who dialled, if anybody wants to know."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def before(self, stage: Stage) -> Stage:
        """The stage for clients that dial through this wire."""
        mine = copy.copy(stage)
        mine.relays = (RelayAddress(f"127.0.0.1:{self.port}", stage.pair.spki, bytes(32)),)
        return mine

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            if self.swallows:  # also the knock at the relay's door
                while await reader.read(CHUNK):
                    pass
                return
            back, forth = await asyncio.open_connection("127.0.0.1", self._to)
            ends.append(forth)
            left = None if self.lasts is None else [self.lasts()]
            ways = [
                asyncio.create_task(self._carry(reader, forth, left, forth=True)),
                asyncio.create_task(self._carry(back, writer, left)),
            ]
            done, pending = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in pending:
                way.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            if left is not None and left[0] <= 0:
                self.resets += 1
                for end in ends:
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            for way in done:
                way.exception()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        left: list[int] | None,
        *,
        forth: bool = False,
    ) -> None:
        lost = False
        while data := await _read(reader):
            if self.swallows or lost:
                lost = True  # what comes later makes no sense any more
                continue
            if left is not None:
                data, left[0] = data[: left[0]], left[0] - len(data)
            if self.record is not None and forth:
                self.record += data
            writer.write(data)
            await writer.drain()
            if left is not None and left[0] <= 0:
                return
        if lost or self.swallows:
            await asyncio.Event().wait()  # that one side has hung up is swallowed, too


async def _read(reader: asyncio.StreamReader) -> bytes:
    """What came next; nothing when that end has hung up, however it did."""
    with contextlib.suppress(OSError):
        return await reader.read(CHUNK)
    return b""
