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
from chatchain.relay.blobs import PART_BYTES
from chatchain.transport import dial
from chatchain.wire.messages import Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.relay.fileserver import parts_on_disk
from tests.relay.stage import Account, Device, Stage

ROUNDS: Final = int(os.environ.get("CHATCHAIN_FAULT_ROUNDS", "0")) or (
    30 if os.environ.get("CHATCHAIN_FAULTS") == "full" else 2
)
"""Kills in one test."""

SIZE: Final = 12 * PART_BYTES + 4321


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
