"""Files outlive what happens to the relay that carries them: kill -9 in the middle, and a full disk.

The whole relay here, with its login, as a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from chatchain.client.session import Credentials
from chatchain.client.transfer import Transfer
from chatchain.errors import LoginRefused, NetworkError, StoreUnavailable
from chatchain.relay.berths import BERTH_BYTES
from chatchain.relay.blobs import PART_BYTES
from chatchain.transport import RelayLink, dial
from chatchain.wire.messages import Goodbye, Stored, Tick, Uploading
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.integration.faults.load import FULL, UNLIMITED, forget_most, gauges, rss_kib
from tests.relay.fileserver import Mover, parts_on_disk
from tests.relay.stage import Account, Device, Stage

ROUNDS: Final = int(os.environ.get("CHATCHAIN_FAULT_ROUNDS", "0")) or (30 if FULL else 2)
"""Kills in one test."""

SIZE: Final = 12 * PART_BYTES + 4321

CROWD: Final = 200 if FULL else 40
"""Who uploads at once."""

MOVING_MIB: Final = 16
WAITING_KIB: Final = 32
"""What somebody who waits may cost besides."""


@pytest.fixture(params=["sqlite", "mariadb"])
def stage(
    request: pytest.FixtureRequest, anvil: DevChain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A relay of this test's own, on each of the databases."""
    folder = tmp_path_factory.mktemp("files")
    if request.param == "sqlite":
        database = f"sqlite:///{folder / 'relay.db'}"
    else:
        server: MariaDB = request.getfixturevalue("mariadb")
        database = server.new_database()
    made = Stage(anvil, folder, database)
    made.start("--blobs", str(folder / "blobs"))
    yield made
    made.stop()


async def transfer(stage: Stage, account: Account) -> Transfer:
    """A connection for files of this account."""
    made = Transfer(await dial(stage.relays))
    who = Credentials(account.uid, account.device, 0, account.kdf, account.login_key, account.signer)
    await made.enter(stage.world.network, who)
    return made


async def fetched(mover: Transfer, blob: bytes, size: int) -> bytes:
    """The whole blob."""
    return b"".join([piece async for piece in mover.fetch(blob, size, 0, size)])


async def test_an_upload_survives_the_relay_that_is_killed_in_the_middle(stage: Stage) -> None:
    """Again and again; what was said to be stored is served by the next process, whole."""
    ada, bob = stage.register("ada"), stage.register("bob")
    stored: dict[bytes, bytes] = {}
    for _ in range(ROUNDS):
        data = os.urandom(SIZE)
        blob = hashlib.sha256(data).digest()
        assert stage.process is not None
        await broken_off(await transfer(stage, ada), blob, data, stage.folder / "blobs", stage.process.kill)
        stage.start("--blobs", str(stage.folder / "blobs"))
        mover = await transfer(stage, ada)
        begun: list[int] = []
        await mover.upload(blob, SIZE, io.BytesIO(data), begun.append)
        assert not begun or begun[0] > PART_BYTES, "it went on, not back to the start"
        stored[blob] = data
        await mover.close()
    reader = await transfer(stage, bob)
    for blob, data in stored.items():
        assert await fetched(reader, blob, SIZE) == data
    await reader.close()


async def broken_off(
    mover: Transfer, blob: bytes, data: bytes, blobs: Path, kill: Callable[[], None]
) -> None:
    """Uploads, and kills somewhere in the middle."""
    uploading = asyncio.create_task(mover.upload(blob, SIZE, io.BytesIO(data)))
    name = blob.hex()

    def parts() -> int:
        # Of this file alone: what is tidied up after those before comes and goes.
        return sum(map(parts_on_disk, (blobs / name[:2]).glob(f"{name}-*")))

    def first() -> bool:
        # Two are written at a time, and the second may be there before the first: who goes on needs that one.
        return any((blobs / name[:2]).glob(f"{name}-*/0000"))

    wanted = parts() + random.randint(1, 10)
    while not (first() and parts() >= wanted) and not uploading.done():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    kill()
    with contextlib.suppress(NetworkError):  # it may have been done before
        await uploading
    await mover.close()


async def test_an_upload_goes_on_at_the_node_that_is_left(
    anvil: DevChain, mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of two machines with one folder one is killed in the middle; the other takes the rest at once."""
    one = Stage(anvil, tmp_path_factory.mktemp("one"), mariadb.new_database())
    other = one.beside(tmp_path_factory.mktemp("other"))
    blobs = one.folder / "blobs"
    ada, bob = one.register("ada"), one.register("bob")
    for stage in (one, other):
        stage.start("--blobs", str(blobs))
    for _ in range(ROUNDS):
        data = os.urandom(SIZE)
        blob = hashlib.sha256(data).digest()
        mover = await transfer(one.alone(), ada)
        assert one.process is not None
        await broken_off(mover, blob, data, blobs, one.process.kill)
        mover = await transfer(other.alone(), ada)
        begun: list[int] = []
        await mover.upload(blob, SIZE, io.BytesIO(data), begun.append)
        assert not begun or begun[0] > PART_BYTES, "it went on, not back to the start"
        await mover.close()
        one.start("--blobs", str(blobs))
        for stage in (one, other):
            reader = await transfer(stage.alone(), bob)
            assert await fetched(reader, blob, SIZE) == data
            await reader.close()
    for stage in (one, other):
        stage.stop()


async def test_a_connection_for_files_is_logged_in_and_replaces_none_for_messages(stage: Stage) -> None:
    """Its proof is over its own nonce; a wrong one is refused; messages go on beside it."""
    ada, bob = stage.register("ada"), stage.register("bob")
    talker = await Device(stage, ada).begin()
    mover = await transfer(stage, ada)
    data = os.urandom(100_000)
    await mover.upload(hashlib.sha256(data).digest(), len(data), io.BytesIO(data))
    assert isinstance(await talker.send(bob), Tick)
    with pytest.raises(LoginRefused):
        await transfer(stage, Account("mallory", uid=ada.uid))
    await mover.close()
    await talker.close()


async def test_any_number_of_uploads_at_once_costs_no_more_than_is_set(
    anvil: DevChain, tmp_path: Path
) -> None:
    """All of them stall within a part; then all go on, and every file is stored."""
    stage = Stage(anvil, tmp_path, f"sqlite:///{tmp_path / 'relay.db'}")
    limits = f" moving_mib={MOVING_MIB} file_connections={2 * CROWD} file_request_burst={10 * CROWD}"
    stage.environment["RELAY_LIMITS"] = UNLIMITED + limits
    process = stage.start("--blobs", str(tmp_path / "blobs"))
    ada = stage.register("ada")
    first = await transfer(stage, ada)
    await first.upload(hashlib.sha256(bytes(SIZE)).digest(), SIZE, io.BytesIO(bytes(SIZE)))
    await first.close()
    crowd = [Uploader(stage, ada) for _ in range(CROWD)]
    for each in crowd:
        await each.begin()
    before = rss_kib(process.pid)
    forget_most(process.pid)
    stalling = [asyncio.create_task(each.stall()) for each in crowd]
    berths = MOVING_MIB * 1024 * 1024 // BERTH_BYTES

    async def moved() -> tuple[float, float, float]:
        found = await gauges(stage)
        return (
            found["chatchain_files_moving"],
            found["chatchain_files_waiting"],
            found['chatchain_file_bytes_total{direction="up"}'],
        )

    async with asyncio.timeout(120):
        while await moved() != (berths, CROWD - berths, SIZE + berths * PART_BYTES):
            for task in stalling:
                if task.done():
                    task.result()
            await asyncio.sleep(0.05)
    assert rss_kib(process.pid, most=True) - before < MOVING_MIB * 1024 + CROWD * WAITING_KIB
    await asyncio.gather(*stalling)
    await asyncio.gather(*(each.finish() for each in crowd))
    most = rss_kib(process.pid, most=True) - before
    print(f"{most} KiB more for {CROWD} uploads, {berths} at a time")
    assert most < MOVING_MIB * 1024 + CROWD * WAITING_KIB
    stage.stop()


class Uploader:
    """Somebody who uploads two parts."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self._stage = stage
        self._account = account
        self._data = os.urandom(2 * PART_BYTES)
        self._blob = hashlib.sha256(self._data).digest()

    async def begin(self) -> None:
        """Logs in and announces nothing yet."""
        link = (await transfer(self._stage, self._account))._link
        assert isinstance(link, RelayLink)
        self._mover = Mover(link)

    async def stall(self) -> None:
        """Sends all but the last byte."""
        assert isinstance(await self._mover.announce(self._blob, len(self._data)), Uploading)
        await self._mover.pieces(self._data[:-1])

    async def finish(self) -> None:
        """Sends the rest, and goes on over another connection if the turn on this one was over."""
        with contextlib.suppress(NetworkError):
            await self._mover.pieces(self._data[-1:])
            answer = await self._mover.link.receive()
            await self._mover.close()
            if isinstance(answer, Stored):
                return
            assert isinstance(answer, Goodbye), answer
            assert answer.code == "relay_busy"
        again = await transfer(self._stage, self._account)
        await again.upload(self._blob, len(self._data), io.BytesIO(self._data))
        await again.close()


async def test_a_full_disk_under_the_files_refuses_for_now(anvil: DevChain, tmp_path: Path) -> None:
    """Uploads are told to try again and then go on where they came to; downloads and messages go on."""
    small = tmp_path / "small"
    small.mkdir()
    stage = Stage(anvil, tmp_path, f"sqlite:///{tmp_path / 'relay.db'}")
    plain = stage.command("--blobs", str(small / "blobs"))
    # A file system of its own that only this process sees, as root or in a user namespace.
    script = 'mount -t tmpfs -o size=16m tmpfs "$1" && head -c 13M /dev/zero > "$1/ballast"; shift; exec "$@"'
    inside = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    stage.command = lambda *_: [*inside, "sh", "-c", script, "sh", str(small), *plain]  # type: ignore[method-assign]
    process = stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    mover, talker = await transfer(stage, ada), await Device(stage, ada).connect()
    little, data = os.urandom(1000), os.urandom(4 * PART_BYTES)
    blob = hashlib.sha256(data).digest()
    await mover.upload(hashlib.sha256(little).digest(), len(little), io.BytesIO(little))
    with pytest.raises(StoreUnavailable, match="no room"):
        await mover.upload(blob, len(data), io.BytesIO(data))
    assert isinstance(await talker.send(bob), Tick)
    assert await fetched(mover, hashlib.sha256(little).digest(), len(little)) == little
    os.unlink(f"/proc/{process.pid}/root{small}/ballast")  # noqa: PTH108
    begun: list[int] = []
    await mover.upload(blob, len(data), io.BytesIO(data), begun.append)
    assert begun[0] > PART_BYTES
    assert await fetched(mover, blob, len(data)) == data
    await mover.close()
    await talker.close()
    stage.stop()
