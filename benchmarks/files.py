"""How fast a relay takes and gives a file of 25 MB over TLS on loopback, and what memory that costs it.

Prints JSON lines only. `up_mb_s` ends when the relay says that the file is on its disk with the right hash,
`down_mb_s` when the last byte is there, both of the sealed bytes with the client's own code and in a process
of its own; login and the first connection are not counted. Figures are medians of several files. `extra_mb`
is the relay's largest resident size meanwhile beyond that before the first file. `message_ms` is the longest
that a message between two others took from its sender to its recipient while files went up and down.
"""

import asyncio
import hashlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from chatchain.client.session import Credentials  # noqa: E402
from chatchain.client.transfer import Transfer  # noqa: E402
from chatchain.crypto.attachments import MAX_FILE_BYTES, blob_size  # noqa: E402
from chatchain.transport import dial  # noqa: E402
from chatchain.wire.messages import Tick  # noqa: E402
from tests.fixtures.anvil import start_anvil  # noqa: E402
from tests.relay.stage import Account, Device, Stage  # noqa: E402

if TYPE_CHECKING:
    from tests.fixtures.processes import Process

ROUNDS: Final = 9
MB: Final = 1_000_000


async def transfer(stage: Stage, account: Account) -> Transfer:
    """A connection for files of this account."""
    made = Transfer(await dial(stage.relays))
    who = Credentials(account.uid, account.device, 0, account.kdf, account.login_key, account.signer)
    await made.enter(stage.world.network, who)
    return made


def resident(process: "Process", line: str) -> int:
    """A line of the process's memory, in bytes: VmRSS now, VmHWM the most since it was reset."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(row.split()[1]) * 1024 for row in status.splitlines() if row.startswith(line))


def forget_peak(process: "Process") -> int:
    """Has the most that it used counted from now on; gives what it uses now."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return resident(process, "VmRSS")


async def measured(stage: Stage) -> dict[str, float]:
    """Files up and down, one after another, while two others talk."""
    assert stage.process is not None
    mover = await transfer(stage, stage.register("mover"))
    ada, bob = stage.register("ada"), stage.register("bob")
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    await _talk(sender, recipient, bob)  # what the first use of anything costs
    before = forget_peak(stage.process)
    size, ups, downs, waits = blob_size(MAX_FILE_BYTES), [], [], []
    for _ in range(ROUNDS):
        data = os.urandom(size)
        blob = hashlib.sha256(data).digest()
        start = time.perf_counter()
        await mover.upload(blob, size, io.BytesIO(data))
        ups.append(size / (time.perf_counter() - start) / MB)
        start = time.perf_counter()
        got = [len(piece) async for piece in mover.fetch(blob, size, 0, size)]
        downs.append(size / (time.perf_counter() - start) / MB)
        assert sum(got) == size
    extra = resident(stage.process, "VmHWM") - before
    data = os.urandom(size)
    blob = hashlib.sha256(data).digest()
    moving = asyncio.create_task(_up_and_down(mover, blob, data))
    while not moving.done():
        waits.append(await _talk(sender, recipient, bob))
    await moving
    for each in (sender, recipient, mover):
        await each.close()
    return {
        "up_mb_s": round(statistics.median(ups)),
        "down_mb_s": round(statistics.median(downs)),
        "extra_mb": round(extra / MB, 1),
        "message_ms": round(max(waits) * 1000, 1),
    }


async def _up_and_down(mover: Transfer, blob: bytes, data: bytes) -> None:
    await mover.upload(blob, len(data), io.BytesIO(data))
    async for _ in mover.fetch(blob, len(data), 0, len(data)):
        pass


async def _talk(sender: Device, recipient: Device, to: Account) -> float:
    """Seconds from a message's start until its recipient has it."""
    start = time.perf_counter()
    arriving = asyncio.create_task(recipient.receive(1))
    assert isinstance(await sender.send(to), Tick)
    await arriving
    return time.perf_counter() - start


def file_25mb() -> dict[str, float]:
    """The case, over a relay of its own."""
    with tempfile.TemporaryDirectory(prefix="chatchain-files-") as folder:
        chain = start_anvil(Path(folder))
        try:
            stage = Stage(chain, Path(folder), f"sqlite:///{folder}/relay.db")
            stage.start()
            try:
                return asyncio.run(measured(stage))
            finally:
                stage.stop()
        finally:
            chain.process.stop()


if __name__ == "__main__":
    print(json.dumps({"bench": "relay", "case": "file_25mb", **file_25mb()}), flush=True)
