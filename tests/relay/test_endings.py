"""However a connection ends, nothing of it stays, not even until garbage is looked for.

A relay looks for that seldom, and a part of a file is a MiB.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import uvloop

from chatchain.errors import StoreUnavailable
from chatchain.model import User
from chatchain.relay import follower
from chatchain.relay.berths import BERTH_BYTES
from chatchain.relay.blobs import PART_BYTES
from chatchain.relay.files import FileSession, _Upload
from chatchain.transport import Peer, dial
from chatchain.wire.messages import Failed, Fetch, Fetching, Goodbye, Login, Message, Piece, Stored, Uploading
from deploy import certificates
from tests.relay.fileserver import FileServer, Mover, enter, some, until
from tests.relay.here import Begin

SIZE: Final = 2 * PART_BYTES + 5
BERTHS: Final = 1

Ending = Callable[[FileServer, Mover], Awaitable[None]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> certificates.Pair:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


def break_disk(server: FileServer, deed: str) -> None:
    """What is asked of the disk under this name fails from now on."""

    def full(*_: object) -> None:
        raise StoreUnavailable("The relay has no room for files at the moment.")

    setattr(server.parts, deed, full)


async def begun(mover: Mover) -> bytes:
    """An upload of which one part and nearly another has been sent."""
    data = some(SIZE)
    assert await mover.announce(hashlib.sha256(data).digest(), SIZE) == Uploading(1, 0)
    await mover.pieces(data[: 2 * PART_BYTES - 1])
    return data


async def said(mover: Mover, kind: type[Message]) -> None:
    """Reads on until it comes, and then hangs up."""
    while not isinstance(await mover.next(), kind):
        pass
    await mover.close()


async def stored(server: FileServer, mover: Mover) -> None:
    assert isinstance(await mover.upload(some(SIZE)), Stored)
    await mover.close()


async def cut_in_an_upload(server: FileServer, mover: Mover) -> None:
    await begun(mover)
    mover.link._writer.transport.abort()


async def half_closed_in_an_upload(server: FileServer, mover: Mover) -> None:
    await begun(mover)
    with socket.socket(
        fileno=os.dup(mover.link._writer.transport.get_extra_info("socket").fileno())
    ) as connected:
        connected.shutdown(socket.SHUT_WR)
    await until(lambda: not server.files._sessions)
    await mover.close()


async def cut_in_a_download(server: FileServer, mover: Mover) -> None:
    data = some(SIZE)
    assert isinstance(await mover.upload(data), Stored)
    await mover.say(Fetch(2, hashlib.sha256(data).digest(), 0, SIZE))
    for kind in (Fetching, Piece):
        assert isinstance(await mover.next(), kind)
    mover.link._writer.transport.abort()


async def failed_to_write(server: FileServer, mover: Mover) -> None:
    break_disk(server, "put")
    assert isinstance(await mover.upload(some(SIZE)), Failed)
    await mover.close()


async def failed_to_sync(server: FileServer, mover: Mover) -> None:
    break_disk(server, "sync")
    assert isinstance(await mover.upload(some(SIZE)), Failed)
    await mover.close()


async def failed_to_read(server: FileServer, mover: Mover) -> None:
    data = some(SIZE)
    assert isinstance(await mover.upload(data), Stored)
    break_disk(server, "get")
    await mover.say(Fetch(2, hashlib.sha256(data).digest(), 0, SIZE))
    await said(mover, Failed)


async def not_what_its_id_says(server: FileServer, mover: Mover) -> None:
    data = some(SIZE)
    await mover.announce(bytes(32), SIZE)
    await mover.pieces(data)
    await said(mover, Failed)


async def more_than_was_announced(server: FileServer, mover: Mover) -> None:
    data = await begun(mover)
    await mover.pieces(data)
    await said(mover, Failed)


async def a_breach_in_an_upload(server: FileServer, mover: Mover) -> None:
    await begun(mover)
    mover.link._writer.write(b"\x00\x00\x00\x04garb")
    await said(mover, Goodbye)


async def sent_away_in_an_upload(server: FileServer, mover: Mover) -> None:
    await begun(mover)
    server.files.end(1, "revoked", "This device was revoked.")
    await said(mover, Goodbye)


async def sent_away_while_waiting(server: FileServer, mover: Mover) -> None:
    first = await enter(server, 2)
    await begun(first)
    data = some(SIZE)
    assert await mover.announce(hashlib.sha256(data).digest(), SIZE) == Uploading(1, 0)
    await until(lambda: server.files.berths.waiting == 1)
    sending = asyncio.create_task(mover.pieces(data))
    server.files.end(1, "revoked", "This device was revoked.")
    await said(mover, Goodbye)
    await asyncio.gather(sending, return_exceptions=True)
    await first.close()


async def taken_over(server: FileServer, mover: Mover) -> None:
    data = await begun(mover)
    newer = await enter(server, 1)
    assert isinstance(await newer.upload(data), Stored)
    await newer.close()
    await said(mover, Failed)


ENDINGS: Final[tuple[Ending, ...]] = (
    stored,
    cut_in_an_upload,
    half_closed_in_an_upload,
    cut_in_a_download,
    failed_to_write,
    failed_to_sync,
    failed_to_read,
    not_what_its_id_says,
    more_than_was_announced,
    a_breach_in_an_upload,
    sent_away_in_an_upload,
    sent_away_while_waiting,
    taken_over,
)


def left() -> list[str]:
    """What there is of connections for files and what belongs to them."""
    return [type(each).__name__ for each in gc.get_objects() if type(each) in (Peer, FileSession, _Upload)]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_nothing_is_left_of_a_connection_that_has_ended(
    ending: Ending, loop: Callable[[], asyncio.AbstractEventLoop], pair: certificates.Pair, tmp_path: Path
) -> None:
    """Neither session nor upload keeps the other, nor does what kept a part from disk; its berth is free."""

    async def end() -> None:
        database = f"sqlite:///{tmp_path / 'relay.db'}"
        server = FileServer(pair, database, str(tmp_path / "blobs"), moving=BERTHS * BERTH_BYTES)
        await server.start()
        try:
            await ending(server, await enter(server, 1))
            files = server.files
            await until(lambda: not files._sessions and files.berths.taken == files.berths.waiting == 0)
            await until(lambda: all(peer._transport is None for peer in server.peers) and not server._tasks)
            assert not files._of_user
            assert not files._uploads
            server.peers.clear()
            await until(lambda: left() == before)  # a thread may just be about to forget what it did
        finally:
            await server.stop()

    gc.collect()
    before = left()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(end())
    finally:
        gc.enable()


@pytest.mark.parametrize("away", ["database", "chain"])
async def test_strangers_leave_nothing_while_nobody_can_be_looked_up(
    away: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that lasts: no look that failed keeps the one before it, and so all who ever asked."""
    here = await begin()

    def lost(_: object) -> list[User]:
        raise StoreUnavailable("It does not answer.")

    def kept() -> int:
        """Connections, and tasks that have ended."""
        gc.collect()
        ended = [each for each in gc.get_objects() if type(each) is asyncio.Task and each.done()]
        return left().count("Peer") + len(ended)

    if away == "database":
        monkeypatch.setattr(here.store, "users", lost)
    else:
        here.chain.up = False
        monkeypatch.setattr(follower, "LOOK_GAP", 0.0)
    before = kept()
    for stranger in range(1, 21):
        mover = Mover(await dial(here.named))
        await mover.say(Login(stranger, 1, 0, b"", bytes(65), bytes(65)))
        await said(mover, Goodbye)
    # The last look, at users or chain, and who asked for it; what runs by itself may just have ended.
    await until(lambda: not here.relay._peers and kept() < before + 10)
