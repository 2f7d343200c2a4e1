"""Files of several nodes over one database and one folder or bucket: what one began another goes on with."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from chatchain.model import Blob, BlobState
from chatchain.relay import files, orphans
from chatchain.relay.blobs import DAY_MS, PART_BYTES, BlobLimits
from chatchain.wire.messages import Discard, Done, Failed, Fetch, Stored, Uploading
from deploy import certificates
from tests.relay.fileserver import FileServer, enter, parts_on_disk, some, until
from tests.relay.test_files import failed, fetched
from tests.store.bucket import Bucket
from tests.store.test_server import ADA, user

SIZE = 3 * PART_BYTES + PART_BYTES // 2

Nodes = Callable[..., Awaitable[tuple[FileServer, FileServer]]]


class Place:
    """Where the bytes of all nodes lie."""

    def __init__(self, url: str, objects: Callable[[], int]) -> None:
        self.url = url
        self.objects = objects
        """How many parts there are."""


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A folder that all nodes see, or a bucket."""
    if request.param == "folder":
        yield Place(str(tmp_path / "blobs"), lambda: parts_on_disk(tmp_path / "blobs"))
        return
    bucket = Bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    for name, value in {
        "ALLOW_HTTP": "true",
        "ACCESS_KEY_ID": "key",
        "SECRET_ACCESS_KEY": "secret",
        "REGION": "nowhere",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    yield Place("s3://bucket/files", lambda: len(bucket.objects))
    bucket.close()


@pytest.fixture
async def nodes(mariadb_url: str, place: Place, tmp_path: Path) -> AsyncIterator[Nodes]:
    """Starts two on one database."""
    running: list[FileServer] = []
    pair = certificates.make(tmp_path / "certificates")

    async def begin(limits: BlobLimits | None = None) -> tuple[FileServer, FileServer]:
        for _ in range(2):
            server = FileServer(pair, mariadb_url, place.url, limits)
            running.append(await server.start())
        return running[-2], running[-1]

    yield begin
    for server in running:
        await server.stop()


async def test_what_one_node_stored_another_serves_and_deletes(nodes: Nodes, place: Place) -> None:
    """Whole and in parts; discarded at one, it is gone at both, with its bytes."""
    one, other = await nodes()
    ada, bob, again = await enter(one, 1), await enter(other, 2), await enter(other, 1)
    data = some(SIZE)
    assert isinstance(await ada.upload(data), Stored)
    assert await fetched(bob, data) == data
    assert await fetched(bob, data, PART_BYTES - 1, 2) == data[PART_BYTES - 1 : PART_BYTES + 1]
    assert isinstance(await again.upload(data), Stored), "known there without a byte"
    await again.say(Discard(9, hashlib.sha256(data).digest()))
    assert await again.next() == Done(9)
    await ada.say(Fetch(9, hashlib.sha256(data).digest(), 0, 1))
    assert failed(await ada.next()) == "not_found"
    assert place.objects() == 0
    for mover in (ada, bob, again):
        await mover.close()


async def test_an_upload_goes_on_at_another_node(nodes: Nodes, place: Place) -> None:
    """Behind the last whole part; what still comes at the first counts for nobody."""
    one, other = await nodes()
    data = some(SIZE)
    blob = hashlib.sha256(data).digest()
    old, new = await enter(one), await enter(other)
    await old.announce(blob, SIZE)
    await old.pieces(data[: 2 * PART_BYTES + 1000])
    await until(lambda: place.objects() == 2)
    assert await new.announce(blob, SIZE) == Uploading(1, 2 * PART_BYTES)
    await old.pieces(some(SIZE - 2 * PART_BYTES - 1000))
    assert isinstance(await old.next(), Failed)
    await new.pieces(data[2 * PART_BYTES :])
    assert isinstance(await new.next(), Stored)
    assert await fetched(old, data) == data
    assert await fetched(new, data) == data
    await until(lambda: place.objects() == 4)
    await old.close()
    await new.close()


async def test_what_expires_is_swept_by_whichever_node(nodes: Nodes, place: Place) -> None:
    """Stored through one, given up by the other; two that sweep at once do not disturb each other."""
    one, other = await nodes(BlobLimits(kept_ms=-1, unfinished_ms=-1))
    ada, bob = await enter(one, 1), await enter(other, 2)
    data = some(SIZE)
    assert isinstance(await ada.upload(data), Stored)
    await ada.announce(bytes(32), SIZE)
    await ada.pieces(some(PART_BYTES))
    await until(lambda: place.objects() == 5)
    await bob.say(Fetch(9, hashlib.sha256(data).digest(), 0, 1))
    assert failed(await bob.next()) == "not_found"
    sweeps = [asyncio.create_task(node.files.sweep()) for node in (other, one)]
    await until(lambda: place.objects() == 0)
    for sweep in sweeps:
        sweep.cancel()
    await ada.close()
    await bob.close()


async def test_parts_of_no_file_are_found_and_no_others(
    nodes: Nodes, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node died after it had entered an upload that went on, and before the parts had their new name: these
    go once they are old. What a file or an upload is made of stays however old it is, and so do young ones.
    """
    monkeypatch.setattr(files, "SHELVES_A_SWEEP", orphans.SHELVES)
    one, other = await nodes()
    dying, _ = await nodes()
    bob, ada = await enter(one, 2), [await enter(dying, 1) for _ in range(2)]
    data, going_on = some(SIZE), some(SIZE)
    assert isinstance(await bob.upload(data), Stored)
    await bob.announce(hashlib.sha256(going_on).digest(), SIZE)
    await bob.pieces(going_on[:PART_BYTES])
    lost = [some(SIZE) for _ in range(2)]
    for device, each in zip(ada, lost, strict=True):
        await device.announce(hashlib.sha256(each).digest(), SIZE)
        await device.pieces(each[:PART_BYTES])
    await until(lambda: place.objects() == 4 + 1 + 2)
    dying.files.stop()
    for device in ada:
        await device.close()
    now = time.time_ns() // 1_000_000
    for each in lost:
        blob = Blob(1, hashlib.sha256(each).digest(), SIZE, BlobState.PARTIAL, now, now + DAY_MS)
        _, before = one.store.blobs.begin(blob, now, lambda _: None)  # ... and here it died
        assert before is not None
    for folder in (tmp_path / "blobs").glob(f"*/{hashlib.sha256(lost[1]).hexdigest()}-*"):
        folder.rename(f"{folder}~0a1b2c3d")  # as one that died while deleting
    for part in (tmp_path / "blobs").glob("*/*/*"):
        if part.parent.name.startswith(hashlib.sha256(lost[0]).hexdigest()):
            continue
        os.utime(part, (0, 0))  # those of the bucket are old anyway
    left = 4 + 1 + (tmp_path / "blobs").exists()
    sweep = asyncio.create_task(other.files.sweep())
    await until(lambda: place.objects() == left)
    sweep.cancel()
    all_of_them = orphans.Orphans(one.parts, one.store.blobs, age_ms=BlobLimits().kept_ms + DAY_MS)
    for _ in range(orphans.SHELVES):
        assert await asyncio.to_thread(all_of_them.look, now) == 0
    assert place.objects() == left
    await bob.pieces(going_on[PART_BYTES:])
    assert isinstance(await bob.next(), Stored)
    assert await fetched(bob, data) == data
    await bob.close()


async def test_quotas_hold_over_all_nodes(nodes: Nodes) -> None:
    """However many uploads begin at once, wherever; another user's have their own."""
    limits = BlobLimits(count=4, connections=16)
    one, other = await nodes(limits)
    one.store.rewrite([user(ADA)], [], settled_to=0)  # of whom one upload is counted at a time
    movers = [await enter(node, ADA) for node in (one, other) for _ in range(6)]
    answers = await asyncio.gather(*(mover.upload(some(2_000)) for mover in movers))
    stored = [answer for answer in answers if isinstance(answer, Stored)]
    assert len(stored) == limits.count
    assert {failed(answer) for answer in answers if answer not in stored} == {"limit_reached"}
    bob = await enter(other, 2)
    assert isinstance(await bob.upload(some(2_000)), Stored)
    for mover in (*movers, bob):
        await mover.close()


async def test_a_day_s_bytes_hold_over_all_nodes(nodes: Nodes) -> None:
    """What was uploaded through one counts at the other."""
    one, other = await nodes(BlobLimits(per_day=5_000))
    here, there = await enter(one), await enter(other)
    data = some(3_000)
    assert isinstance(await here.upload(data), Stored)
    assert failed(await there.upload(some(2_001))) == "limit_reached"
    assert isinstance(await there.upload(some(2_000)), Stored)
    assert failed(await here.upload(some(1))) == "limit_reached"
    found = other.store.blobs.own(1, hashlib.sha256(data).digest())
    assert found is not None
    assert found.state is BlobState.STORED
    await here.close()
    await there.close()
