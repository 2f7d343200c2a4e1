"""A file is sealed as it was when it was read, or refused with a reason; nothing is left of a refusal."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest

from chatchain.client import packing
from chatchain.client.images import other_image
from chatchain.client.packing import Packed, pack
from chatchain.crypto.attachments import MAX_FILE_BYTES, Opener, Reader, blob_size, pieces
from chatchain.errors import BadFile, NoSuchFile, RefusedError, StoreUnavailable, TooLarge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "files" / "out"


def opened(packed: Packed, folder: Path) -> bytes:
    """What the recipient will have."""
    blob = (folder / packed.blob.hex()).read_bytes()
    assert hashlib.sha256(blob).digest() == packed.blob
    assert len(blob) == packed.size == blob_size(packed.ref.size)
    opener = Opener(packed.ref)
    return opener.update(blob) + opener.finish()


def photo(kind: str = "JPEG", side: int = 400) -> bytes:
    """A picture that says where it was taken."""
    image = PIL.Image.effect_noise((side, side), 60).convert("RGB")
    exif = PIL.Image.Exif()
    exif[0x010F] = "Maker of the camera"
    exif.get_ifd(0x8825)[2] = (47.0, 22.0, 1.0)
    target = BytesIO()
    image.save(target, kind, exif=exif)
    return target.getvalue()


@pytest.mark.parametrize("size", [1, 16 * 1024, 16 * 1024 + 1, 1_000_000])
def test_a_file_is_sealed_beside_the_home(tmp_path: Path, folder: Path, size: int) -> None:
    """Under its blob's id, for its owner alone; name and kind go into the message."""
    data = os.urandom(size)
    path = tmp_path / "Report 2026.pdf"
    path.write_bytes(data)
    packed = pack(path, folder)
    assert opened(packed, folder) == data
    assert (packed.name, packed.media_type, packed.thumbnail) == ("Report 2026.pdf", "application/pdf", b"")
    assert (folder / packed.blob.hex()).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 1


def test_the_same_file_twice_is_two_blobs(tmp_path: Path, folder: Path) -> None:
    """Each under a key of its own, so that nobody sees that it is the same."""
    path = tmp_path / "file"
    path.write_bytes(b"data")
    first, second = pack(path, folder), pack(path, folder)
    assert first.ref.key != second.ref.key
    assert first.blob != second.blob
    assert first.media_type == "application/octet-stream"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_freed_of_where_it_was_taken(tmp_path: Path, folder: Path, kind: str) -> None:
    """Unless that is wanted; a small copy for the message is free of it in any case."""
    path = tmp_path / f"photo.{kind.lower()}"
    path.write_bytes(photo(kind))
    bare = pack(path, folder)
    data = opened(bare, folder)
    assert b"Maker of the camera" in path.read_bytes()
    assert b"Maker of the camera" not in data
    assert not PIL.Image.open(BytesIO(data)).getexif()
    kept = pack(path, folder, keep_metadata=True)
    assert opened(kept, folder) == path.read_bytes()
    for packed in (bare, kept):
        assert packed.media_type == f"image/{kind.lower()}"
        assert 0 < len(packed.thumbnail) <= 12 * 1024
        assert not PIL.Image.open(BytesIO(packed.thumbnail)).getexif()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"II*\0", "TIFF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF or AVIF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "HEIF or AVIF"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"\xff\x0a\xfa", "JPEG XL"),
    ],
)
def test_a_picture_that_cannot_be_freed_is_not_sent_by_mistake(
    tmp_path: Path, folder: Path, head: bytes, name: str
) -> None:
    """Phones write such; it goes as it is when that is wanted."""
    path = tmp_path / "photo"
    path.write_bytes(head + b"where it was taken")
    assert other_image(head) == name
    with pytest.raises(RefusedError, match=name) as told:
        pack(path, folder)
    assert "--keep-metadata" in told.value.hint
    assert not folder.exists()
    assert opened(pack(path, folder, keep_metadata=True), folder) == path.read_bytes()


def test_a_broken_picture_is_refused_or_sent_as_it_is(tmp_path: Path, folder: Path) -> None:
    """What cannot be read cannot be freed of anything."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo()[:500])
    with pytest.raises(RefusedError) as told:
        pack(path, folder)
    assert "--keep-metadata" in told.value.hint
    kept = pack(path, folder, keep_metadata=True)
    assert kept.thumbnail == b""


def test_25_mb_are_sealed_and_a_byte_more_is_refused_unread(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is read and before anything is asked of a network: exit code 7."""
    path = tmp_path / "film"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES)
    assert pack(path, folder).size == blob_size(MAX_FILE_BYTES)
    with path.open("ab") as file:
        file.write(b"x")
    monkeypatch.setattr(packing, "_seal", None)
    with pytest.raises(TooLarge) as told:
        pack(path, folder)
    assert told.value.exit_code == 7


def test_what_is_no_file_is_told_apart(tmp_path: Path, folder: Path) -> None:
    """Missing, a folder, empty, a pipe that nobody writes to, a device."""
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NoSuchFile, match="There is no file") as told:
        pack(tmp_path / "missing", folder)
    assert told.value.exit_code == 6
    with pytest.raises(NoSuchFile):
        pack(tmp_path / "empty" / "below", folder)
    for name, reason in (
        ("", "is a folder"),
        ("empty", "is empty"),
        ("pipe", "no file that has a size"),
        ("\0", "cannot be read"),
    ):
        with pytest.raises(BadFile, match=reason) as told_bad:
            pack(tmp_path / name, folder)
        assert told_bad.value.exit_code == 2
    with pytest.raises(BadFile, match="no file that has a size"):
        pack(Path("/dev/null"), folder)
    assert not folder.exists()


@pytest.mark.parametrize("change", ["longer", "shorter", "touched"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Half of one and half of another is nobody's file; nothing sealed stays."""
    path = tmp_path / "log"
    path.write_bytes(bytes(900_000))

    def changing(source: Reader) -> Iterator[bytes]:
        for number, piece in enumerate(pieces(source)):
            if not number:
                if change == "touched":
                    os.utime(path, ns=(1, 1))
                else:
                    os.truncate(path, 1_000_000 if change == "longer" else 300_000)
            yield piece

    monkeypatch.setattr(packing, "pieces", changing)
    with pytest.raises(RefusedError, match="changed while it was read"):
        pack(path, folder)
    assert list(folder.iterdir()) == []


def test_a_home_without_room_is_told_from_a_bad_file(tmp_path: Path, folder: Path) -> None:
    """The file is well; it is the disk of the home that fails."""
    path = tmp_path / "file"
    path.write_bytes(bytes(1_000_000))
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from chatchain.client.packing import pack\n"
        "from chatchain.errors import StoreUnavailable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "try:\n    pack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except StoreUnavailable as told:\n    print(told)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(folder)], capture_output=True, text=True, check=True
    )
    assert "cannot be written" in done.stdout
    assert list(folder.iterdir()) == []
    (tmp_path / "blocked").write_text("")
    with pytest.raises(StoreUnavailable):
        pack(path, tmp_path / "blocked" / "out")


def test_memory_does_not_grow_with_the_file(tmp_path: Path, folder: Path) -> None:
    """25 MB cost less than 16 MB more than one byte does."""
    path = tmp_path / "film"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES)
    (tmp_path / "byte").write_bytes(b"x")
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from chatchain.client.packing import pack\n"
        "pack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    used = [
        int(
            subprocess.run(
                [sys.executable, "-c", script, str(tmp_path / name), str(folder)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for name in ("byte", "film")
    ]
    assert used[1] - used[0] < 16 * 1024
