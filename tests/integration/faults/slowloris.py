"""Sockets that are opened and never get anywhere: `slowloris.py PORT SOCKETS SECONDS`, against loopback.

A third says nothing, a third sends its TLS greeting a byte at a time, a third spells out a frame on a
connection that did shake hands. Who is cut off comes again. The last line says, as JSON, how many were cut
and how long a socket of each sort lived at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from typing import Final

from chatchain.transport import client_context

PER_ADDRESS: Final = 200
"""Fewer than the relay takes of one address: more would push each other out before any deadline."""

PACE: Final = 0.5
"""Seconds between two bytes."""

GREETING: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(505)
"""How a TLS client begins, drawn out."""

SPELLED: Final = b"\x00\x00\x0f\xff" + bytes(500)
"""A frame of nearly 4 KiB, the most that a stranger may announce."""

KINDS: Final = ("silent", "greeting", "spelling")


class Attack:
    """All sockets, and what became of them."""

    def __init__(self, port: int, count: int) -> None:
        self._port, self._count = port, count
        self._open = 0
        self.all_open = asyncio.Event()
        self.cut = 0
        self.longest = dict.fromkeys(KINDS, 0.0)

    async def keep(self, number: int) -> None:
        """Opens this socket again and again."""
        kind, address = KINDS[number % len(KINDS)], f"127.0.1.{1 + number // PER_ADDRESS}"
        counted = False
        while True:
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1",
                    self._port,
                    local_addr=(address, 0),
                    ssl=client_context() if kind == "spelling" else None,
                )
            except OSError:
                await asyncio.sleep(0.2)
                continue
            if not counted:
                counted = True
                self._open += 1
                if self._open == self._count:
                    self.all_open.set()
            with contextlib.suppress(OSError):
                await self._dawdle(kind, reader, writer)
            self.cut += 1
            self.longest[kind] = max(self.longest[kind], time.monotonic() - began)
            writer.transport.abort()

    async def _dawdle(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the other side has had enough."""
        at, words = 0, {"silent": b"", "greeting": GREETING, "spelling": SPELLED}[kind]
        while not reader.at_eof():
            writer.write(words[at : at + 1])
            at += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PACE):
                    while await reader.read(4096):
                        pass


async def main(port: int, count: int, seconds: float) -> None:
    """Keeps so many sockets open for so long."""
    attack = Attack(port, count)
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(attack.keep(number)))
        if number % 20 == 0:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(120):
        await attack.all_open.wait()
    print("all open", flush=True)
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps({"cut": attack.cut, "longest_s": attack.longest}), flush=True)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
