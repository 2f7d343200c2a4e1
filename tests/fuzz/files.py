"""Files: what a message says of one, the blob that a relay gives out for it, and pictures."""

from __future__ import annotations

import hashlib
import io
import zlib
from typing import Final

import PIL.Image

from chatchain.client import images
from chatchain.crypto.attachments import CHUNK_BYTES, HEADER_BYTES, REF_BYTES, Cobblestone, FileRef, Opener
from chatchain.errors import RefusedError, TooLarge, Undecryptable
from tests.crypto.test_attachments import BLOB, FILE, THREE
from tests.fuzz.target import cases, field, target

SMALL: Final = [
    zlib.decompress(bytes.fromhex(case["ciphertext"]))
    for case in cases("cobblestone.json")
    if len(case["ciphertext"]) < 1000
]
KEY: Final = bytes.fromhex(cases("cobblestone.json")[0]["key"])


@target(TooLarge, Undecryptable, seeds=[FILE.encode(), *field("file.json", "file")])
def reference(data: bytes) -> None:
    """What a message says of its file."""
    assert FileRef.decode(data).encode() == data


@target(
    TooLarge,
    Undecryptable,
    seeds=[bytes.fromhex(case["file"] + case["blob"]) for case in cases("file.json")],
)
def blob(data: bytes) -> None:
    """A file by what its message says: what opens whole is of that size and hash."""
    opener = Opener(FileRef.decode(data[:REF_BYTES]))
    opened = opener.update(data[REF_BYTES : REF_BYTES + 40]) + opener.update(data[REF_BYTES + 40 :])
    opened += opener.finish()
    told = FileRef.decode(data[:REF_BYTES])
    assert (told.size, told.sha256) == (len(opened), hashlib.sha256(opened).digest())


@target(Undecryptable, seeds=[BLOB[HEADER_BYTES + 2 * (CHUNK_BYTES + 16) :]])
def resumed(data: bytes) -> None:
    """The rest of a file of which two chunks are here: only its own rest completes it."""
    opener = Opener(FILE, [THREE[: 2 * CHUNK_BYTES]])
    rest = opener.update(BLOB[:HEADER_BYTES] + data)
    assert THREE[2 * CHUNK_BYTES :] == rest + opener.finish()


@target(Undecryptable, seeds=SMALL)
def cobblestone(data: bytes) -> None:
    """The published format, in pieces."""
    stream = Cobblestone(KEY, b"", data[:HEADER_BYTES])
    half = (HEADER_BYTES + len(data)) // 2
    stream.update(data[HEADER_BYTES:half])
    stream.update(data[half:])
    stream.finish()


def picture(kind: str) -> bytes:
    """A small picture with metadata."""
    target_ = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (24, 16), (200, 30, 30)).save(target_, kind, exif=exif)
    return target_.getvalue()


@target(RefusedError, seeds=[picture("JPEG"), picture("PNG"), picture("WEBP")])
def image(data: bytes) -> None:
    """A picture from anywhere, before it is sent."""
    if images.image_format(data) is None:
        images.other_image(data)
        return
    images.without_metadata(data)
    images.thumbnail(data, 32)


@target(RefusedError, seeds=[picture("JPEG"), images.thumbnail(picture("PNG")).jpeg])
def preview(data: bytes) -> None:
    """The small picture inside a stranger's message, which a terminal shows unasked."""
    seen = images.preview_pixels(data, 40, 24)
    assert len(seen.rgb) == 3 * seen.width * seen.height
    assert (seen.width <= 40, seen.height <= 24) == (True, True)
    images.preview_again(data)
