"""The table of files on both databases, and their bytes in a folder and in a bucket."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from chatchain.errors import BadConfig, LimitReached, StoreUnavailable
from chatchain.model import Blob, BlobState, BlobUse
from chatchain.store.blobs import DAY_MS, BlobFolder, BlobTable
from chatchain.store.server import ServerStore
from tests.store.bucket import Bucket

NOW = 1_700_000_000_000
ADA, BOB = 670_887_400_361_956, 123_456_789_012_345


@pytest.fixture(params=["sqlite", "mariadb"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobTable]:
    """An empty table on each of the databases."""
    embedded = f"sqlite:///{tmp_path / 'relay.db'}"
    store = ServerStore(
        embedded if request.param == "sqlite" else str(request.getfixturevalue("mariadb_url"))
    )
    store.migrate()
    yield store.blobs
    store.close()


def upload(owner: int = ADA, id: bytes = b"", size: int = 1000, now: int = NOW) -> Blob:
    return Blob(owner, id or secrets.token_bytes(32), size, BlobState.PARTIAL, now, now + DAY_MS)


def anything(_: BlobUse) -> None:
    """Admits every upload."""


def test_a_blob_is_served_between_stored_and_expired(table: BlobTable) -> None:
    """Not while it comes, not afterwards; whoever asks."""
    blob, _ = table.begin(upload(), NOW, anything)
    assert table.find(blob.id, NOW) is None
    assert table.stored(blob, NOW + 500)
    found = table.find(blob.id, NOW + 499)
    assert found == replace(blob, state=BlobState.STORED, expires_ms=NOW + 500)
    assert table.find(blob.id, NOW + 500) is None


def test_whoever_goes_on_with_an_upload_gets_a_name_of_its_own(table: BlobTable) -> None:
    """And is told where the parts lie; the one before can store nothing any more. It gets a new lease. With
    another size it is another upload.
    """
    first, _ = table.begin(upload(), NOW, anything)
    later = upload(id=first.id, now=NOW + 5000)
    again, before = table.begin(later, NOW + 5000, anything)
    assert before == first
    assert again.folder != first.folder
    assert not table.stored(first, NOW + 9000)
    own = table.own(ADA, first.id)
    assert own is not None
    assert own.expires_ms == later.expires_ms
    other, before = table.begin(replace(later, size=1001), NOW + 5000, anything)
    assert before == own
    assert other.folder not in (first.folder, again.folder)
    assert table.stored(other, NOW + 9000)
    assert table.begin(replace(later, size=1001), NOW + 6000, anything)[0].folder == other.folder


def test_what_a_user_has_and_spent_is_counted_before_each_new_upload(table: BlobTable) -> None:
    """Live blobs by count and bytes; the day's bytes also for what was given up and begun again."""
    seen: list[BlobUse] = []
    blob, _ = table.begin(upload(), NOW, seen.append)
    table.begin(upload(BOB, size=7), NOW, seen.append)
    table.begin(upload(size=30), NOW, seen.append)
    table.gone(blob, NOW)
    table.begin(upload(id=blob.id, now=NOW + 1), NOW + 1, seen.append)
    table.begin(upload(size=1), NOW + 2, seen.append)
    table.begin(upload(size=1, now=NOW + DAY_MS), NOW + DAY_MS, seen.append)
    assert seen == [
        BlobUse(0, 0, 0),
        BlobUse(0, 0, 0),
        BlobUse(1, 1000, 1000),
        BlobUse(1, 30, 1030),
        BlobUse(2, 1030, 2030),
        BlobUse(1, 1000, 2000),  # the others' day and lease are over
    ]


def test_a_refused_upload_leaves_no_row(table: BlobTable) -> None:
    """The quota's refusal undoes the transaction."""

    def refuse(_: BlobUse) -> None:
        raise LimitReached("Full.")

    blob = upload()
    with pytest.raises(LimitReached):
        table.begin(blob, NOW, refuse)
    assert table.own(ADA, blob.id) is None


def test_nothing_is_stored_that_was_given_up(table: BlobTable) -> None:
    """The sweep may come between the last part and the word; the row of a newer attempt is another's."""
    blob, _ = table.begin(upload(), NOW, anything)
    table.gone(blob, NOW)
    assert not table.stored(blob, NOW + 500)
    newer, _ = table.begin(upload(id=blob.id, now=NOW + 1), NOW + 1, anything)
    assert not table.stored(blob, NOW + 500)
    assert table.stored(newer, NOW + 500)


def test_the_sweep_finds_what_is_over_and_forgets_it_after_its_day(table: BlobTable) -> None:
    """A row that counts for the day stays that long and is found once more."""
    blob, _ = table.begin(upload(), NOW, anything)
    table.stored(blob, NOW + 500)
    kept, _ = table.begin(upload(), NOW, anything)
    table.stored(kept, NOW + 40 * DAY_MS)
    assert table.expired(NOW + 499) == []
    (over,) = table.expired(NOW + 500)
    assert over.folder == blob.folder
    table.gone(over, NOW + 500)
    table.swept(over, NOW + 500)
    assert table.expired(NOW + DAY_MS) == []
    (over,) = table.expired(NOW + DAY_MS + 1)
    assert over.state is BlobState.GONE
    table.swept(over, NOW + DAY_MS + 1)
    assert table.own(ADA, blob.id) is None
    assert table.find(kept.id, NOW + DAY_MS) is not None


# --- the bytes ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "bucket"])
def parts(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BlobFolder]:
    """Each of the stores, empty."""
    if request.param == "folder":
        yield BlobFolder(str(tmp_path / "files"))
        return
    bucket = Bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "nowhere")
    yield BlobFolder("s3://bucket/relay/files")
    if bucket.signed:
        assert all(key.startswith("relay/files/") for key in bucket.objects)
    bucket.close()


def test_parts_come_back_as_they_went(parts: BlobFolder) -> None:
    """By ranges; another folder's are others."""
    folder, other = upload().folder, upload().folder
    for number, data in enumerate((b"first", b"second", b"third")):
        parts.put(folder, number, data)
    parts.put(other, 0, b"other")
    parts.settle(folder)
    assert parts.sizes(folder) == [5, 6, 5]
    assert bytes(parts.get(folder, 1, 0, 6)) == b"second"
    assert bytes(parts.get(folder, 1, 2, 4)) == b"co"
    parts.delete(folder)
    assert parts.sizes(folder) == []
    parts.delete(folder)
    assert bytes(parts.get(other, 0, 0, 5)) == b"other"


def test_parts_move_to_another_name(parts: BlobFolder) -> None:
    """All of them; what lies under other names stays, and nothing there is nothing to move."""
    for folder in ("ab/one", "ab/one-more"):
        parts.put(folder, 0, folder.encode())
        parts.put(folder, 1, b"xy")
    parts.move("ab/one", "ab/two")
    parts.move("ab/none", "ab/three")
    assert parts.sizes("ab/one") == parts.sizes("ab/three") == []
    assert bytes(parts.get("ab/two", 0, 0, 6)) == b"ab/one"
    assert parts.sizes("ab/two") == [6, 2]
    assert parts.sizes("ab/one-more") == [11, 2]


def test_parts_that_are_moved_while_they_are_deleted_are_all_there_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload goes on at one node while another tidies up after its end there: what the former has seen and
    hashed must stay.
    """
    parts, unlink, seen = BlobFolder(str(tmp_path / "files")), os.unlink, list[list[int]]()
    for number in range(3):
        parts.put("ab/one", number, b"part")

    def unlink_late(path: str, *, dir_fd: int | None = None) -> None:
        if not seen:
            parts.move("ab/one", "ab/two")
            seen.append(parts.sizes("ab/two"))
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink_late)
    parts.delete("ab/one")
    assert seen == [parts.sizes("ab/two")]
    assert parts.folders("ab").keys() == ({"ab/two"} if seen[0] else set())


def test_what_follows_a_gap_is_not_counted(parts: BlobFolder) -> None:
    """Parts are written side by side, so a kill may leave one behind that is missing."""
    folder = upload().folder
    for number in (0, 2):
        parts.put(folder, number, b"part")
    assert parts.sizes(folder) == [4]


@pytest.mark.parametrize("ask", [(0, 0, 6), (0, 3, 6), (1, 0, 1)], ids=["long", "behind", "missing"])
def test_a_part_that_is_not_what_it_was_is_an_error(parts: BlobFolder, ask: tuple[int, int, int]) -> None:
    """Never fewer bytes than asked for."""
    folder = upload().folder
    parts.put(folder, 0, b"first")
    part, start, end = ask
    with pytest.raises(StoreUnavailable):
        parts.get(folder, part, start, end)


def test_the_folder_is_the_relay_s_alone(tmp_path: Path) -> None:
    """Whoever may read it could count what lies there."""
    BlobFolder(str(tmp_path / "files"))
    assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("url", ["ftp://host/x", "file://host/x", "http://127.0.0.1/x"])
def test_other_places_are_refused(url: str) -> None:
    """With what would do."""
    with pytest.raises(BadConfig, match="folder or in a bucket"):
        BlobFolder(url)


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    """When the relay starts, not when the first file comes."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        BlobFolder(str(tmp_path / "file" / "below"))


def test_the_name_of_a_folder_holds_nothing_from_outside() -> None:
    """Hex and numbers, whatever the id's bytes."""
    folder = upload(id=b"../../../../etc/passwd\0/////////").folder
    assert folder.replace("/", "", 1).replace("-", "").isalnum()


def test_a_part_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself after it has its name; then its folder, the one above, and the root."""
    synced: list[str] = []
    import os

    real: Callable[[int], None] = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    parts, folder = BlobFolder(str(tmp_path / "files")), upload().folder
    root = tmp_path / "files"
    parts.put(folder, 0, b"part")
    parts.sync(folder, 0)
    assert synced == [str(root / folder / "0000")]
    parts.settle(folder)
    assert synced[1:] == [str(root / folder), str((root / folder).parent), str(root)]


def test_a_part_that_the_disk_did_not_take_has_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second fsync of the same file would go well, whatever became of the pages that the first one lost."""
    parts = BlobFolder(str(tmp_path / "blobs"))
    for number in range(3):
        parts.put("aa/1", number, bytes(1000))
        assert parts.sync("aa/1", number)

    def lost(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", lost)
        with pytest.raises(StoreUnavailable):
            parts.sync("aa/1", 1)
    assert parts.sizes("aa/1") == [1000], "only what lies before it counts"
    assert not parts.sync("aa/1", 1), "nobody is told that what is gone is on the disk"
    assert parts.sync("aa/1", 2)
