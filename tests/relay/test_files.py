"""Files over real TLS in and out of a real folder: what is served is whole, what breaks off goes on."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chatchain.client import transfer
from chatchain.client.transfer import Transfer
from chatchain.errors import StoreUnavailable, TooLarge
from chatchain.model import Blob, BlobState
from chatchain.relay import berths as turns
from chatchain.relay.berths import BERTH_BYTES
from chatchain.relay.blobs import DAY_MS, PART_BYTES, BlobLimits
from chatchain.relay.files import WRITES, FileSession
from chatchain.relay.limits import Buckets, Rate
from chatchain.relay.orphans import Orphans
from chatchain.store.blobs import BlobFolder, BlobTable
from chatchain.transport import WRITE_QUEUE, RelayLink, dial
from chatchain.wire import deadlines
from chatchain.wire.connection import State
from chatchain.wire.messages import (
    Discard,
    Done,
    EnterFiles,
    Failed,
    Fetch,
    Fetching,
    Goodbye,
    Message,
    Piece,
    RelayMessage,
    Stored,
    Upload,
    Uploading,
)
from deploy import certificates
from tests.relay.fileserver import FileServer, Mover, enter, parts_on_disk, some, until

SIZE = 3 * PART_BYTES + PART_BYTES // 2

Start = Callable[..., Awaitable[FileServer]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> certificates.Pair:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def start(pair: certificates.Pair, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts servers, one after another over the same folder and database."""
    running: list[FileServer] = []

    async def begin(
        limits: BlobLimits | None = None, folder: Path | None = None, *, berths: int = 32
    ) -> FileServer:
        for before in running:
            await before.stop()
        running.clear()
        server = FileServer(
            pair,
            f"sqlite:///{tmp_path / 'relay.db'}",
            str(folder or tmp_path / "blobs"),
            limits,
            moving=berths * BERTH_BYTES,
        )
        running.append(await server.start())
        return server

    yield begin
    for server in running:
        await server.stop()


async def fetched(mover: Mover, data: bytes, offset: int = 0, length: int | None = None) -> bytes:
    """What the server sends of a blob."""
    mover.ref += 1
    length = len(data) - offset if length is None else length
    await mover.say(Fetch(mover.ref, hashlib.sha256(data).digest(), offset, length))
    head = await mover.next()
    assert head == Fetching(mover.ref, len(data))
    got = b""
    while len(got) < length:
        piece = await mover.next()
        assert isinstance(piece, Piece)
        got += piece.data
    return got


def failed(answer: Message) -> str:
    assert isinstance(answer, Failed), answer
    return answer.code


async def test_a_file_comes_back_as_it_went_for_whoever_knows_its_id(start: Start) -> None:
    """Whole, in the middle, over the border of two parts, and its last byte."""
    server = await start()
    ada, bob = await enter(server, 1), await enter(server, 2)
    data = some(SIZE)
    answer = await ada.upload(data)
    assert isinstance(answer, Stored)
    assert answer.expires_ms > time.time_ns() // 1_000_000 + 29 * 24 * 3600 * 1000
    assert await fetched(bob, data) == data
    for offset, length in ((0, 56), (PART_BYTES - 1, 2), (PART_BYTES, PART_BYTES), (SIZE - 1, 1)):
        assert await fetched(bob, data, offset, length) == data[offset : offset + length]
    for offset, length in ((SIZE - 1, 2), (SIZE, 1), (0, SIZE + 1)):
        await bob.say(Fetch(99, hashlib.sha256(data).digest(), offset, length))
        assert failed(await bob.next()) == "refused", "beyond its end there is nothing"
    await ada.close()
    await bob.close()


@pytest.mark.parametrize("size", [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1])
async def test_sizes_around_a_part_are_stored_whole(start: Start, size: int) -> None:
    """No part is empty and none is missing."""
    server = await start()
    ada = await enter(server)
    data = some(size)
    assert isinstance(await ada.upload(data), Stored)
    assert await fetched(ada, data) == data
    await ada.close()


@pytest.mark.parametrize("parts", [0, 1, 2, 3])
async def test_an_upload_goes_on_behind_the_last_part_that_was_kept(
    start: Start, tmp_path: Path, parts: int
) -> None:
    """Cut in the middle of each part; also by a server that starts anew."""
    server = await start()
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    ada = await enter(server)
    assert await ada.announce(blob, SIZE) == Uploading(1, 0)
    await ada.pieces(data[: parts * PART_BYTES + 1000])
    await until(lambda: parts_on_disk(tmp_path / "blobs") == parts)
    await ada.close()
    server = await start()
    again = await enter(server)
    assert await again.announce(blob, SIZE) == Uploading(1, parts * PART_BYTES)
    await again.pieces(data[parts * PART_BYTES :])
    assert isinstance(await again.next(), Stored)
    assert await fetched(again, data) == data
    await again.close()


async def test_an_upload_that_was_whole_but_never_confirmed_is_confirmed(start: Start) -> None:
    """Every part was kept when the server died; nothing has to be sent again."""
    server = await start()
    data = some(SIZE)
    ada = await enter(server)
    assert isinstance(await ada.upload(data), Stored)
    row = server.store.blobs.own(1, hashlib.sha256(data).digest())
    assert row is not None
    with server.store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE blobs SET state = 0")
    assert await ada.announce(row.id, SIZE) == Uploading(2, SIZE)
    assert isinstance(await ada.next(), Stored)
    await ada.close()


async def test_what_is_not_what_its_id_says_is_never_served(start: Start, tmp_path: Path) -> None:
    """A flipped bit: the relay says so, keeps nothing, and takes the right bytes afterwards."""
    server = await start()
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    ada = await enter(server)
    await ada.announce(blob, SIZE)
    await ada.pieces(data[:-1] + bytes([data[-1] ^ 1]))
    assert failed(await ada.next()) == "not_verified"
    assert parts_on_disk(tmp_path / "blobs") == 0
    await ada.say(Fetch(9, blob, 0, 1))
    assert failed(await ada.next()) == "not_found"
    assert isinstance(await ada.upload(data), Stored)
    await ada.close()


async def test_parts_that_were_damaged_on_the_disk_are_sent_anew(start: Start, tmp_path: Path) -> None:
    """A torn part has the right length; the hash of the whole finds it out, and the next attempt is clean."""
    server = await start()
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    ada = await enter(server)
    await ada.announce(blob, SIZE)
    await ada.pieces(data[: 2 * PART_BYTES])
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 2)
    await ada.close()
    torn = next((tmp_path / "blobs").rglob("0001"))
    torn.write_bytes(bytes(PART_BYTES))
    again = await enter(server)
    assert failed(await again.upload(data)) == "not_verified"
    assert isinstance(await again.upload(data), Stored)
    assert await fetched(again, data) == data
    await again.close()


async def test_an_unfinished_upload_is_not_served(start: Start) -> None:
    """Not even the parts that are there."""
    server = await start()
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    ada = await enter(server)
    await ada.announce(blob, SIZE)
    await ada.pieces(data[: 2 * PART_BYTES])
    bob = await enter(server, 2)
    await bob.say(Fetch(1, blob, 0, 1))
    assert failed(await bob.next()) == "not_found"
    await ada.close()
    await bob.close()


async def test_more_than_was_announced_is_refused_at_the_first_byte_too_many(start: Start) -> None:
    """And what is still on its way then is dropped; the connection goes on."""
    server = await start()
    data = some(PART_BYTES)
    ada = await enter(server)
    await ada.announce(hashlib.sha256(data).digest(), len(data) - 1)
    await ada.pieces(data + data)
    assert failed(await ada.next()) == "refused"
    assert isinstance(await ada.upload(data), Stored)
    await ada.close()


async def test_a_file_over_the_limit_is_refused_before_a_byte_of_it(start: Start) -> None:
    """One byte more than 25 MB have when sealed; exactly as many are taken."""
    server = await start()
    largest = BlobLimits().largest
    ada = await enter(server)
    assert failed(await ada.announce(bytes(32), largest + 1)) == "too_large"
    assert isinstance(await ada.announce(bytes(32), largest), Uploading)
    client = Transfer(await dial(server.relays()))
    await client._link.send(EnterFiles(1, 1, 0, b"", bytes(65), bytes(65)))
    client._largest = (await client._link.receive()).largest  # type: ignore[union-attr]
    with pytest.raises(TooLarge):
        await client.upload(bytes(32), largest + 1, io.BytesIO())
    await client.close()
    await ada.close()


async def test_quotas_hold_for_count_bytes_and_day(start: Start) -> None:
    """Others are not touched; what is deleted makes room, but what it took of the day's bytes is gone."""
    ada_limits = BlobLimits(count=2, bytes=10_000, per_day=14_000)
    server = await start(ada_limits)
    ada, bob = await enter(server, 1), await enter(server, 2)
    first = some(4000)
    assert isinstance(await ada.upload(first), Stored)
    assert failed(await ada.upload(some(6001))) == "limit_reached"
    assert isinstance(await ada.upload(some(4000)), Stored)
    answer = await ada.upload(some(1))
    assert isinstance(answer, Failed)
    assert (answer.code, answer.retry_after_ms > 0) == ("limit_reached", True)
    assert isinstance(await ada.upload(first), Stored), "what is there costs nothing"
    assert isinstance(await bob.upload(some(4000)), Stored)
    await ada.say(Discard(50, hashlib.sha256(first).digest()))
    assert await ada.next() == Done(50)
    assert failed(await ada.upload(some(6001))) == "limit_reached"
    assert isinstance(await ada.upload(first), Stored)
    assert failed(await ada.upload(some(2001))) == "limit_reached"
    await ada.close()
    await bob.close()


async def test_a_discarded_file_is_gone_for_everybody_but_those_with_a_copy(
    start: Start, tmp_path: Path
) -> None:
    """Nobody deletes another's: the same blob of two users is kept twice."""
    server = await start()
    ada, bob = await enter(server, 1), await enter(server, 2)
    data = some(5000)
    blob = hashlib.sha256(data).digest()
    assert isinstance(await ada.upload(data), Stored)
    await bob.say(Discard(1, blob))
    assert await bob.next() == Done(1)
    assert await fetched(bob, data) == data
    assert isinstance(await bob.upload(data), Stored)
    await ada.say(Discard(7, blob))
    assert await ada.next() == Done(7)
    assert await fetched(ada, data) == data
    await bob.say(Discard(8, blob))
    assert await bob.next() == Done(8)
    await ada.say(Fetch(9, blob, 0, 1))
    assert failed(await ada.next()) == "not_found"
    assert parts_on_disk(tmp_path / "blobs") == 0
    await ada.close()
    await bob.close()


async def test_an_expired_file_is_not_served_and_its_bytes_go(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not; the sweep finds both, and what was stored for longer stays. Nothing goes before the time
    for deleting has come, whatever the clock says.
    """
    server = await start()
    ada = await enter(server)
    kept = some(2000)
    assert isinstance(await ada.upload(kept), Stored)
    server = await start(BlobLimits(kept_ms=-1, unfinished_ms=-1))
    ada = await enter(server)
    data = some(2000)
    assert isinstance(await ada.upload(data), Stored)
    await ada.announce(bytes(32), SIZE)
    await ada.pieces(some(PART_BYTES))
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 3)
    await ada.say(Fetch(9, hashlib.sha256(data).digest(), 0, 1))
    assert failed(await ada.next()) == "not_found"
    looks: list[int] = []

    def look(_: Orphans, now_ms: int) -> int:
        looks.append(now_ms)
        return 0

    monkeypatch.setattr(Orphans, "look", look)
    server.late_ms = DAY_MS  # by a clock that is wrong
    sweep = asyncio.create_task(server.files.sweep())
    await until(lambda: bool(looks))  # it comes after all that is over
    sweep.cancel()
    assert parts_on_disk(tmp_path / "blobs") == 3
    server.late_ms = 0
    sweep = asyncio.create_task(server.files.sweep())
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 1)
    sweep.cancel()
    assert await fetched(ada, kept) == kept
    await ada.close()


async def test_what_an_operator_should_do_is_told_to_nobody_else(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client learns what is wrong and when to come again; where the database lies is not its business."""

    def fail(*_: object) -> None:
        raise StoreUnavailable("The database server does not answer.", "Check --db (DATABASE_URL).")

    server = await start()
    ada = await enter(server)
    monkeypatch.setattr(server.files._table, "begin", fail)
    refused = await ada.upload(some(1000))
    assert isinstance(refused, Failed)
    assert (refused.code, refused.message) == ("store_unavailable", "The database server does not answer.")
    assert refused.retry_after_ms > 0
    await ada.close()


async def test_the_log_says_why_a_sweep_failed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of the folder or the bucket: without credentials, say."""

    def look(_: Orphans, now_ms: int) -> int:
        raise StoreUnavailable("The relay's store of files failed.") from OSError("no credentials")

    server = await start()
    monkeypatch.setattr(Orphans, "look", look)
    with capture_logs() as log:
        sweep = asyncio.create_task(server.files.sweep())
        await until(lambda: bool(log))
        sweep.cancel()
    assert [(line["event"], line["cause"]) for line in log] == [("files not swept", "no credentials")]


async def test_a_newer_connection_takes_an_upload_over(start: Start, tmp_path: Path) -> None:
    """The older may be a dead one that nobody has noticed yet; it is told, and the upload ends well."""
    server = await start()
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    old, new = await enter(server), await enter(server)
    await old.announce(blob, SIZE)
    await old.pieces(data[:PART_BYTES])
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 1)
    answer = await new.announce(blob, SIZE)
    assert answer == Uploading(1, PART_BYTES)
    assert failed(await old.next()) == "refused"
    await old.pieces(data[PART_BYTES : 2 * PART_BYTES])
    await new.pieces(data[PART_BYTES:])
    assert isinstance(await new.next(), Stored)
    assert await fetched(old, data) == data
    await old.close()
    await new.close()


async def test_what_is_taken_over_is_not_tidied_away_on_its_way(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the word that an upload goes on and the moving of its parts these look like leftovers."""
    move, own = BlobFolder.move, BlobTable.own

    def move_late(self: BlobFolder, folder: str, to: str) -> None:
        time.sleep(0.6)
        move(self, folder, to)

    def look_late(self: BlobTable, owner: int, blob: bytes) -> Blob | None:
        time.sleep(0.3)
        return own(self, owner, blob)

    monkeypatch.setattr(BlobFolder, "move", move_late)
    monkeypatch.setattr(BlobTable, "own", look_late)
    server, data = await start(), some(SIZE)
    blob = hashlib.sha256(data).digest()
    old, new = await enter(server), await enter(server)
    await old.announce(blob, SIZE)
    await old.pieces(data[:PART_BYTES])
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 1)
    assert await new.announce(blob, SIZE) == Uploading(1, PART_BYTES)
    assert await new.announce(blob, SIZE) == Uploading(2, PART_BYTES), "over the same connection as well"
    await old.close()
    await new.close()


async def test_other_bytes_under_the_same_id_spoil_nothing(
    start: Start, pair: certificates.Pair, tmp_path: Path
) -> None:
    """Whoever knows a file's id may upload it twice at a time, through two nodes, and lie in one of them.

    Each writes where the other does not, so what is stored is what was hashed.
    """
    server, folder = await start(), tmp_path / "blobs"
    beside = await FileServer(pair, f"sqlite:///{tmp_path / 'relay.db'}", str(folder)).start()
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    honest, liar, bob = await enter(server), await enter(beside), await enter(server, 2)
    await honest.announce(blob, SIZE)
    await honest.pieces(data[:PART_BYTES])
    await until(lambda: parts_on_disk(folder) == 1)
    assert await liar.announce(blob, SIZE) == Uploading(1, PART_BYTES)
    await honest.pieces(data[PART_BYTES : 3 * PART_BYTES])
    await until(lambda: parts_on_disk(folder) == 3)
    await liar.pieces(bytes(2 * PART_BYTES))
    await until(lambda: parts_on_disk(folder) == 5)
    await honest.pieces(data[3 * PART_BYTES :])
    assert failed(await honest.next()) == "refused"  # it goes on at the other node
    assert await honest.announce(blob, SIZE) == Uploading(2, 3 * PART_BYTES)
    await honest.pieces(data[3 * PART_BYTES :])
    assert failed(await honest.next()) == "not_verified"
    assert isinstance(await honest.upload(data), Stored)
    assert await fetched(bob, data) == data
    await liar.pieces(bytes(SIZE - 3 * PART_BYTES))
    # Or that its parts went elsewhere, if they were not on the disk before.
    assert failed(await liar.next()) in ("not_verified", "refused")
    assert await fetched(bob, data) == data
    for mover in (honest, liar, bob):
        await mover.close()
    await until(lambda: parts_on_disk(folder) == 4)  # nothing is left of the others
    await beside.stop()


async def test_going_on_again_and_again_with_an_upload_is_limited(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time the relay reads and hashes all that is there, for a request of a few bytes."""
    server = await start()
    monkeypatch.setattr(server.files, "_requests", Buckets(Rate(burst=10, per_second=0.01)))
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    ada = await enter(server)
    await ada.announce(blob, SIZE)
    await ada.pieces(data[: 3 * PART_BYTES])
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 3)
    for ref in (2, 3):
        assert await ada.announce(blob, SIZE) == Uploading(ref, 3 * PART_BYTES)
    assert failed(await ada.announce(blob, SIZE)) == "limit_reached"
    monkeypatch.setattr(server.files, "_requests", Buckets(Rate(burst=10, per_second=0.01)))
    assert await ada.announce(blob, SIZE) == Uploading(5, 3 * PART_BYTES)
    await ada.pieces(data[3 * PART_BYTES :])
    assert isinstance(await ada.next(), Stored)
    await ada.close()


async def test_what_comes_after_a_discard_is_not_kept(start: Start, tmp_path: Path) -> None:
    """Else whoever discards what he still uploads, and breaks off, would fill the disk beyond his share."""
    server = await start()
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    up, other = await enter(server), await enter(server)
    await up.announce(blob, SIZE)
    await up.pieces(data[:PART_BYTES])
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 1)
    await other.say(Discard(1, blob))
    assert await other.next() == Done(1)
    await up.pieces(data[PART_BYTES : 2 * PART_BYTES])
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 1)
    await up.close()
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 0)
    await other.close()


async def test_two_users_upload_the_same_bytes_at_once(start: Start) -> None:
    """Neither is in the other's way."""
    server = await start()
    data = some(SIZE)
    movers = [await enter(server, uid) for uid in (1, 2, 3)]
    answers = await asyncio.gather(*(mover.upload(data) for mover in movers))
    assert all(isinstance(answer, Stored) for answer in answers)
    assert await fetched(movers[0], data) == data
    for mover in movers:
        await mover.close()


async def test_a_reader_that_stops_has_a_bounded_queue_and_delays_nobody(start: Start) -> None:
    """At most 1 MiB waits for it; another download goes on; once it reads again it gets the rest."""
    server = await start()
    data = some(BlobLimits().largest)
    ada = await enter(server)
    assert isinstance(await ada.upload(data), Stored)
    slow = await enter(server, 2)
    slow.link._reader._transport.pause_reading()  # type: ignore[attr-defined]
    await slow.say(Fetch(1, hashlib.sha256(data).digest(), 0, len(data)))
    peer = server.peers[-1]
    await until(lambda: peer.slow)
    assert await fetched(ada, data) == data
    transport = peer._transport
    assert transport is not None
    assert transport.get_write_buffer_size() <= WRITE_QUEUE
    slow.link._reader._transport.resume_reading()  # type: ignore[attr-defined]
    assert await slow.next() == Fetching(1, len(data))
    got = hashlib.sha256()
    left = len(data)
    while left:
        piece = await slow.next()
        assert isinstance(piece, Piece)
        got.update(piece.data)
        left -= len(piece.data)
    assert got.digest() == hashlib.sha256(data).digest()
    await slow.close()
    await ada.close()


async def test_a_reader_that_never_goes_on_is_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its download does not stay for ever."""
    server = await start()
    data = some(BlobLimits().largest)
    ada = await enter(server)
    assert isinstance(await ada.upload(data), Stored)
    stopped = await enter(server, 2)
    stopped.link._reader._transport.pause_reading()  # type: ignore[attr-defined]
    monkeypatch.setattr(deadlines, "SILENCE", 0.3)
    await stopped.say(Fetch(1, hashlib.sha256(data).digest(), 0, len(data)))
    peer = server.peers[-1]
    await until(lambda: peer.state is State.CLOSED and peer._transport is None)
    await stopped.close()
    monkeypatch.undo()
    assert await fetched(ada, data) == data
    await ada.close()


async def test_a_part_that_is_gone_or_short_ends_a_download_with_a_reason(
    start: Start, tmp_path: Path
) -> None:
    """Never with fewer bytes, or others, under the same answer."""
    server = await start()
    data = some(SIZE)
    ada = await enter(server)
    assert isinstance(await ada.upload(data), Stored)
    last = next((tmp_path / "blobs").rglob("0003"))
    last.write_bytes(last.read_bytes()[:-1])
    await ada.say(Fetch(5, hashlib.sha256(data).digest(), 3 * PART_BYTES, PART_BYTES // 2))
    assert await ada.next() == Fetching(5, SIZE)
    assert failed(await ada.next()) == "store_unavailable"
    last.unlink()
    await ada.say(Fetch(6, hashlib.sha256(data).digest(), 3 * PART_BYTES, 1))
    assert await ada.next() == Fetching(6, SIZE)
    assert failed(await ada.next()) == "store_unavailable"
    await ada.close()


async def test_who_is_no_member_moves_no_files(start: Start) -> None:
    """Neither up nor down, also somebody who was one a moment ago."""
    server = await start()
    ada = await enter(server)
    data = some(100)
    assert isinstance(await ada.upload(data), Stored)
    server.members = False
    assert failed(await ada.upload(some(100))) == "not_a_member"
    await ada.say(Fetch(9, hashlib.sha256(data).digest(), 0, 1))
    assert failed(await ada.next()) == "not_a_member"
    await ada.close()


async def test_a_user_has_so_many_connections_for_files_and_no_more(start: Start) -> None:
    """The fifth is sent away; one that ends makes room."""
    server = await start()
    movers = [await enter(server) for _ in range(BlobLimits().connections)]
    one_more = Mover(await dial(server.relays()))
    await one_more.say(EnterFiles(1, 1, 0, b"", bytes(65), bytes(65)))
    answer = await one_more.next()
    assert isinstance(answer, Goodbye)
    assert answer.code == "limit_reached"
    await movers.pop().close()
    await until(lambda: server.files._of_user[1] == len(movers))
    movers.append(await enter(server))
    for mover in (*movers, one_more):
        await mover.close()


async def test_a_revoked_device_s_connection_ends_and_the_others_stay(start: Start) -> None:
    """Also when the account's key was replaced."""
    server = await start()
    first, second = await enter(server, 1, 1), await enter(server, 1, 2)
    server.files.end(1, "revoked", "This device was revoked.", device=2)
    answer = await second.next()
    assert isinstance(answer, Goodbye)
    assert answer.code == "revoked"
    data = some(10)
    assert isinstance(await first.upload(data), Stored)
    server.files.end(1, "login_refused", "The account's key was replaced.", except_epoch=1)
    assert isinstance(await first.next(), Goodbye)
    for mover in (first, second):
        await mover.close()


async def test_the_sender_of_a_slow_upload_is_read_no_faster_than_its_parts_are_written(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk takes its time, what the server holds of 25 MB is a few parts."""
    server = await start()
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    put = server.parts.put
    held: list[int] = []

    def patient(folder: str, part: int, data: bytes) -> None:
        held.append(part)
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        put(folder, part, data)

    monkeypatch.setattr(server.parts, "put", patient)
    ada = await enter(server)
    data = some(BlobLimits().largest)
    sending = asyncio.create_task(ada.upload(data))
    session = server.peers[-1].session
    assert isinstance(session, FileSession)
    await until(lambda: session.upload is not None and session.upload.held)
    await until(lambda: len(held) == WRITES)
    await asyncio.sleep(0.05)
    assert len(held) == WRITES
    assert session.upload is not None
    assert session.upload.held
    assert len(session.upload.waiting) <= 2
    assert not sending.done()
    gate.set()
    assert isinstance(await sending, Stored)
    assert server.store.blobs.own(1, hashlib.sha256(data).digest()).state is BlobState.STORED  # type: ignore[union-attr]
    await ada.close()


async def test_a_full_disk_is_no_bug_however_many_parts_fail_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that fails is told, and nothing of the others is left for the loop to complain of."""
    server, loop = await start(), asyncio.get_running_loop()
    both, complaints = threading.Barrier(WRITES), list[object]()

    def full(*_: object) -> None:
        both.wait(60)
        raise StoreUnavailable("The relay has no room for files at the moment.")

    loop.set_exception_handler(lambda _, context: complaints.append(context))
    monkeypatch.setattr(server.parts, "put", full)
    ada = await enter(server)
    assert failed(await ada.upload(some(WRITES * PART_BYTES))) == "store_unavailable"
    monkeypatch.undo()
    assert isinstance(await ada.upload(some(1000)), Stored)
    await ada.close()
    await until(lambda: server.files.berths.taken == 0)
    gc.collect()
    assert complaints == []


async def test_what_is_stored_was_on_the_disk_before(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part and then their names, before the table and the client hear of it, however slow the disk."""
    server = await start()
    done: list[str] = []
    sync, settle, stored = server.parts.sync, server.parts.settle, server.store.blobs.stored

    def slow_sync(folder: str, part: int) -> bool:
        time.sleep(0.2)
        there = sync(folder, part)
        done.append("part")
        return there

    def noted_settle(folder: str) -> None:
        settle(folder)
        done.append("names")

    def noted_stored(blob: Blob, expires_ms: int) -> bool:
        done.append("row")
        return stored(blob, expires_ms)

    monkeypatch.setattr(server.parts, "sync", slow_sync)
    monkeypatch.setattr(server.parts, "settle", noted_settle)
    monkeypatch.setattr(server.store.blobs, "stored", noted_stored)
    ada = await enter(server)
    assert isinstance(await ada.upload(some(SIZE)), Stored)
    assert done == [*["part"] * 4, "names", "row"]
    await ada.close()


async def test_what_somebody_wrote_and_did_not_sync_is_on_the_disk_before_it_is_stored(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that was killed between the two left parts that are whole, until the machine loses power."""
    server = await start()
    monkeypatch.setattr(server.parts, "sync", lambda *_: True)
    data, synced = some(SIZE), set[int]()

    def noted_sync(_: str, part: int) -> bool:
        synced.add(part)
        return True

    ada = await enter(server)
    await ada.announce(hashlib.sha256(data).digest(), SIZE)
    await ada.pieces(data[: 2 * PART_BYTES])
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 2)
    await ada.close()
    server = await start()
    monkeypatch.setattr(server.parts, "sync", noted_sync)
    ada = await enter(server)
    assert isinstance(await ada.upload(data), Stored)
    assert synced == {0, 1, 2, 3}
    await ada.close()


async def test_who_was_overtaken_at_another_node_is_told_that_and_not_to_come_again(
    start: Start, pair: certificates.Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its part was moved before it was on the disk: no disk failed, and coming again would be to fight."""
    server, folder = await start(), tmp_path / "blobs"
    beside = await FileServer(pair, f"sqlite:///{tmp_path / 'relay.db'}", str(folder)).start()
    sync, moved = server.parts.sync, threading.Event()

    def late_sync(part_folder: str, part: int) -> bool:
        moved.wait(60)
        return sync(part_folder, part)

    monkeypatch.setattr(server.parts, "sync", late_sync)
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    slow, fast = await enter(server), await enter(beside)
    await slow.announce(blob, SIZE)
    await slow.pieces(data[:PART_BYTES])
    await until(lambda: parts_on_disk(folder) == 1)
    assert await fast.announce(blob, SIZE) == Uploading(1, PART_BYTES)
    moved.set()
    assert failed(await slow.next()) == "refused"
    await fast.pieces(data[PART_BYTES:])
    assert isinstance(await fast.next(), Stored)
    for mover in (slow, fast):
        await mover.close()
    await beside.stop()


async def test_what_an_upload_that_was_given_up_still_meets_is_not_another_s(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it was taken over, its connection serves the next; told is each of them once."""
    server, gate, loop = await start(), asyncio.Event(), asyncio.get_running_loop()
    sync, first = server.parts.sync, list[str]()

    def hang_and_fail(folder: str, part: int) -> bool:
        if not first:
            first.append(folder)
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
            raise StoreUnavailable("The disk failed.")
        return sync(folder, part)

    monkeypatch.setattr(server.parts, "sync", hang_and_fail)
    data, other = some(1000), some(1000)
    blob = hashlib.sha256(data).digest()
    old, new = await enter(server), await enter(server)
    assert await old.announce(blob, len(data)) == Uploading(1, 0)
    await old.pieces(data)
    await until(lambda: bool(first))
    await new.say(Upload(1, blob, len(data)))
    assert failed(await old.next()) == "refused"
    assert await old.announce(hashlib.sha256(other).digest(), len(other)) == Uploading(2, 0)
    gate.set()
    assert await new.next() == Uploading(1, len(data))
    assert isinstance(await new.next(), Stored)
    await old.pieces(other)
    answer = await old.next()
    assert isinstance(answer, Stored)
    assert answer.ref == 2
    await old.close()
    await new.close()


async def test_a_disk_that_fails_is_told_of_though_nothing_more_comes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that waits for something else within a part does not learn it only with the next."""
    server = await start()

    def full(*_: object) -> None:
        raise StoreUnavailable("The relay has no room for files at the moment.")

    monkeypatch.setattr(server.parts, "put", full)
    ada = await stalled(server, 1, some(SIZE))
    assert failed(await ada.next()) == "store_unavailable"
    await ada.close()


async def stalled(server: FileServer, uid: int, data: bytes) -> Mover:
    """An upload that has come to one part and nearly another, and says no more."""
    mover = await enter(server, uid)
    assert await mover.announce(hashlib.sha256(data).digest(), len(data)) == Uploading(1, 0)
    await mover.pieces(data[: 2 * PART_BYTES - 1])
    return mover


async def turned_away(mover: Mover) -> None:
    """Reads on until the relay says goodbye, because others wait."""
    while not isinstance(answer := await mover.next(), Goodbye):
        pass
    assert (answer.code, answer.retry_after_ms > 0) == ("relay_busy", True)
    await mover.close()


async def test_who_comes_beyond_the_berths_waits_unread_and_goes_on_by_itself(
    start: Start, tmp_path: Path
) -> None:
    """Up and down; for somebody who is done and hangs up, or is done and stays."""
    server = await start(berths=2)
    berths = server.files.berths
    first = some(SIZE)
    zoe = await enter(server, 9)
    assert isinstance(await zoe.upload(first), Stored)
    await zoe.close()
    files = [some(SIZE) for _ in range(4)]
    ada, bob = [await stalled(server, uid, data) for uid, data in enumerate(files[:2], 1)]
    cleo, dan = await enter(server, 3), await enter(server, 4)
    up = asyncio.create_task(cleo.upload(files[2]))
    await until(lambda: berths.waiting == 1)
    down = asyncio.create_task(fetched(dan, first))
    await until(lambda: berths.waiting == 2)
    blob = hashlib.sha256(files[2]).hexdigest()
    assert not list((tmp_path / "blobs" / blob[:2]).glob(f"{blob}-*/*")), "it is answered, and not read from"
    await ada.pieces(files[0][2 * PART_BYTES - 1 :])
    assert isinstance(await ada.next(), Stored)
    await ada.close()
    assert isinstance(await up, Stored)
    await bob.pieces(files[1][2 * PART_BYTES - 1 :])
    assert isinstance(await bob.next(), Stored)
    assert await down == first, "one of those who stayed has given way"
    for mover in (bob, cleo, dan):
        await mover.close()
    await until(lambda: berths.taken == berths.waiting == 0)


async def test_a_stalled_upload_keeps_its_berth_for_one_turn_and_goes_on_at_the_next(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of what was kept is sent again."""
    server = await start(berths=1)
    data, other = some(SIZE), some(SIZE)
    ada = await stalled(server, 1, data)
    await until(lambda: parts_on_disk(tmp_path / "blobs") == 1)
    bob = await enter(server, 2)
    monkeypatch.setattr(turns, "TURN", 0.0)
    up = asyncio.create_task(bob.upload(other))
    await turned_away(ada)
    monkeypatch.undo()
    assert isinstance(await up, Stored)
    await bob.close()
    again = await enter(server, 1)
    assert await again.announce(hashlib.sha256(data).digest(), SIZE) == Uploading(1, PART_BYTES)
    await again.pieces(data[PART_BYTES:])
    assert isinstance(await again.next(), Stored)
    await again.close()


async def test_a_reader_that_takes_nothing_keeps_its_berth_for_one_turn(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have their files meanwhile; what had come of this one is gone on behind."""
    server = await start(berths=1)
    data = some(BlobLimits().largest)
    ada, bob = await enter(server, 1), await enter(server, 2)
    assert isinstance(await ada.upload(data), Stored)
    await ada.say(Fetch(9, hashlib.sha256(data).digest(), 0, len(data)))
    await until(lambda: server.peers[0].slow)
    monkeypatch.setattr(turns, "TURN", 0.0)
    assert await fetched(bob, data) == data
    assert server.peers[0].state is State.CLOSED
    await ada.close()
    await bob.close()


async def test_a_berth_is_free_only_when_nothing_of_its_upload_is_in_memory(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many hang up while the disk hangs."""
    server = await start(berths=1)
    berths, gate, loop = server.files.berths, asyncio.Event(), asyncio.get_running_loop()
    put = server.parts.put

    def patient(folder: str, part: int, data: bytes) -> None:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        put(folder, part, data)

    monkeypatch.setattr(server.parts, "put", patient)
    ada = await stalled(server, 1, some(SIZE))
    bob = await enter(server, 2)
    up = asyncio.create_task(bob.upload(some(SIZE)))
    await until(lambda: berths.waiting == 1)
    session = server.peers[0].session
    assert isinstance(session, FileSession)
    await until(lambda: session.last is not None and len(session.last.writes) == 1)
    await ada.close()
    await until(lambda: server.peers[0].session is None)
    await asyncio.sleep(0)
    assert (berths.taken, berths.waiting) == (1, 1)
    gate.set()
    assert isinstance(await up, Stored)
    await bob.close()


async def test_a_client_waits_longer_for_its_turn_than_for_an_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up and down: whoever gave up meanwhile would stand behind all others again."""
    server = await start(berths=1)
    data, other = some(1000), some(1000)
    zoe = await enter(server, 9)
    assert isinstance(await zoe.upload(data), Stored)
    await zoe.close()

    class Answered(RelayLink):
        """From its first answer on nobody waits for another."""

        async def receive(self) -> RelayMessage:
            message = await super().receive()
            if isinstance(message, Fetching | Uploading):
                monkeypatch.setattr(transfer, "ANSWER_S", 1e-9)
            return message

    async def up(client: Transfer) -> object:
        return await client.upload(hashlib.sha256(other).digest(), len(other), io.BytesIO(other))

    async def down(client: Transfer) -> object:
        return [piece async for piece in client.fetch(hashlib.sha256(data).digest(), 1000, 0, 1000)]

    for work in (up, down):
        ada, bob = await stalled(server, 1, some(SIZE)), await enter(server, 2)
        bob.link.__class__ = Answered
        client = Transfer(bob.link)
        client._largest = SIZE
        working = asyncio.create_task(work(client))
        await until(lambda: server.files.berths.waiting == 1 and transfer.ANSWER_S < 1)
        await ada.close()
        assert await working
        await bob.close()
        await until(lambda: server.files.berths.taken == 0)
        monkeypatch.undo()


async def test_who_hangs_up_while_waiting_keeps_nobody_out(start: Start) -> None:
    """Who is not read from is not seen to hang up either, but at its turn at the latest."""
    server = await start(berths=1)
    berths = server.files.berths
    ada = await stalled(server, 1, some(SIZE))
    bob, cleo = await enter(server, 2), await enter(server, 3)
    await bob.announce(hashlib.sha256(b"").digest(), SIZE)
    await until(lambda: berths.waiting == 1)
    up = asyncio.create_task(cleo.upload(some(SIZE)))
    await until(lambda: berths.waiting == 2)
    await bob.close()
    await ada.close()
    assert isinstance(await up, Stored)
    await cleo.close()
    await until(lambda: berths.taken == berths.waiting == 0)


async def test_bytes_that_belong_to_no_upload_make_no_room_of_their_own(start: Start) -> None:
    """Who never had a berth has no business to send any."""
    server = await start()
    ada = await enter(server)
    await ada.pieces(some(1000))
    answer = await ada.next()
    assert isinstance(answer, Goodbye)
    assert answer.code == "protocol_violation"
    await ada.close()
