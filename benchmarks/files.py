"""Files up and down, with the client's own code, in a process of its own; `relay.py` starts it with a relay.

`up_mb_s` ends when the relay says that the file is on its disk with the right hash, `down_mb_s` when the last
byte is here; both count sealed bytes, and each is the median of several files. The first file and the login
are not counted. `extra_mb` is by how much the relay's processes grow at most, from before the first file.
`server_cpu_ms` is processor time of one file, up and down. `tick_ms` is the longest that another user's
message waits for its tick while files go up and down, `quiet_tick_ms` the same without.

Reads a `load.Site` from stdin and writes one JSON object.
"""

import asyncio
import hashlib
import io
import json
import os
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402

from benchmarks.load import HEADER, KDF, LOGIN_KEY, PAYLOAD, Site, cpu_s, signer_of  # noqa: E402
from chatchain.client.session import Credentials, Session  # noqa: E402
from chatchain.client.transfer import Transfer  # noqa: E402
from chatchain.crypto.attachments import MAX_FILE_BYTES, blob_size  # noqa: E402
from chatchain.model import Copy, Envelope, RelayAddress, Suite  # noqa: E402
from chatchain.transport import dial  # noqa: E402
from chatchain.wire.messages import Tick  # noqa: E402

ROUNDS: Final = 9
SIZE: Final = blob_size(MAX_FILE_BYTES)
MB: Final = 1_000_000
QUIET_S: Final = 1.0


def credentials(site: Site, number: int) -> Credentials:
    """What a user of the benchmark logs in with."""
    return Credentials(site.uids[number], 1, 0, KDF, LOGIN_KEY, signer_of(number))


def grown(site: Site, line: str) -> int:
    """A line of the server's memory, in bytes: VmRSS now, VmHWM the most since it was forgotten."""
    total = 0
    for pid in site.server:
        status = Path(f"/proc/{pid}/status").read_text()
        total += next(int(row.split()[1]) * 1024 for row in status.splitlines() if row.startswith(line))
    return total


def forget_peak(site: Site) -> int:
    """Has the most that the server uses counted from now on; gives what it uses now."""
    for pid in site.server:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return grown(site, "VmRSS")


async def ticks(session: Session, sender: int, recipient: int, waits: list[float]) -> None:
    """Sends one message after the other, and notes how long each waits for its tick."""
    while True:
        copy = Copy(recipient, 1, secrets.token_bytes(HEADER))
        envelope = Envelope(
            secrets.token_bytes(16), Suite.RATCHET, recipient, 1, 1, secrets.token_bytes(PAYLOAD), (copy,)
        )
        start = time.perf_counter()
        verdict = await (await session.submit(envelope))
        if not isinstance(verdict, Tick):
            raise SystemExit(f"no tick for user {sender}: {verdict}")
        waits.append(time.perf_counter() - start)
        await asyncio.sleep(0.002)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """The megabytes a second of moving one file."""
    start = time.perf_counter()
    await work()
    return SIZE / (time.perf_counter() - start) / MB


async def measured(site: Site) -> dict[str, float]:
    """Files up and down, first alone, then while somebody sends messages."""
    relays = (RelayAddress(f"127.0.0.1:{site.port}", site.spki, bytes(32)),)
    mover = Transfer(await dial(relays))
    await mover.enter(site.network, credentials(site, 0))
    blobs = [secrets.token_bytes(SIZE) for _ in range(3)]

    async def up(data: bytes) -> None:
        await mover.upload(hashlib.sha256(data).digest(), SIZE, io.BytesIO(data))

    async def down(data: bytes) -> None:
        async for _ in mover.fetch(hashlib.sha256(data).digest(), SIZE, 0, SIZE):
            pass

    before = forget_peak(site)
    await up(blobs[0])
    await down(blobs[0])
    ups, downs, used = [], [], cpu_s(site.server)
    for _ in range(ROUNDS):
        data = os.urandom(SIZE)
        ups.append(await timed(lambda: up(data)))  # noqa: B023
        downs.append(await timed(lambda: down(data)))  # noqa: B023
    used = (cpu_s(site.server) - used) / ROUNDS
    extra = grown(site, "VmHWM") - before
    session = Session(await dial(relays))
    await session.login(site.network, credentials(site, 1))
    quiet: list[float] = []
    busy: list[float] = []
    for waits in (quiet, busy):
        talking = asyncio.create_task(ticks(session, site.uids[1], site.uids[2], waits))
        if waits is quiet:
            await asyncio.sleep(QUIET_S)
        else:
            for data in blobs[1:]:
                await up(data)
                await down(data)
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    await session.close()
    await mover.close()
    return {
        "up_mb_s": round(statistics.median(ups)),
        "down_mb_s": round(statistics.median(downs)),
        "extra_mb": round(extra / MB, 1),
        "server_cpu_ms": round(used * 1000),
        "quiet_tick_ms": round(max(quiet) * 1000, 1),
        "tick_ms": round(max(busy) * 1000, 1),
    }


if __name__ == "__main__":
    where = msgspec.json.decode(sys.stdin.buffer.readline(), type=Site)
    print(json.dumps(asyncio.run(measured(where))), flush=True)
