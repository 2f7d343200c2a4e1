"""A file that is to be sent: read once, freed of what an image tells of its taking, sealed beside the home.

The key is drawn for this one reading, so what is uploaded is the sealed copy and never the file again: it may
be changed or gone by then. An image is read whole, because its pixels are written anew; everything else goes
through in pieces. All of this blocks.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from chatchain.client.home import make_private, sync_folder
from chatchain.client.images import image_format, other_image, thumbnail, without_metadata
from chatchain.crypto.attachments import FileRef, Reader, Sealer, check_size, pieces, seal_pieces
from chatchain.crypto.content import is_media_type
from chatchain.crypto.glyphs import file_name
from chatchain.errors import (
    BadFile,
    ChatchainError,
    NoSuchFile,
    RefusedError,
    StoreUnavailable,
    TooLarge,
)

HEAD_BYTES: Final = 32
"""By which an image is recognised."""

UNKNOWN_TYPE: Final = "application/octet-stream"

KEEP: Final = "`--keep-metadata` sends it as it is, with where and when it was taken, if it says so."


class Packed(msgspec.Struct, frozen=True):
    """A sealed file that waits below its blob's id in the folder, and what a message says of it."""

    ref: FileRef
    blob: bytes
    size: int
    """Of the blob."""
    name: str
    media_type: str
    thumbnail: bytes


def pack(path: Path, folder: Path, *, keep_metadata: bool = False) -> Packed:
    """Seals a file into the folder; raises NoSuchFile, BadFile, TooLarge, RefusedError, StoreUnavailable."""
    with _opened(path) as (file, found):
        head = file.read(HEAD_BYTES)
        file.seek(0)
        source: Reader = file
        preview, size = b"", found.st_size
        if image_format(head) is not None:
            data = file.read(size + 1)
            if len(data) != size:
                raise _changed()
            preview = _preview(data)
            if not keep_metadata:
                data = _bare(data)
            source, size = BytesIO(data), len(data)
            del data
        elif not keep_metadata and (kind := other_image(head)) is not None:
            raise RefusedError(f"What a picture in {kind} tells of its taking cannot be removed here.", KEEP)
        ref, blob, sealed = _seal(source, size, folder)
        after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
            (folder / blob.hex()).unlink()
            raise _changed()
    return Packed(ref, blob, sealed, file_name(path.name), _media_type(path.name), preview)


def check_sendable(path: Path) -> None:
    """Raises NoSuchFile, BadFile and TooLarge for what could not be sent, before anything is done with it."""
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """The file, once its kind and size allow it to be sent."""
    try:
        # Not to wait for a pipe's writer: what it is shows only once it is open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise NoSuchFile(f"There is no file {path}.", "Check the spelling of its path.") from missing
    except (OSError, ValueError) as failure:
        raise BadFile(f"The file {path} cannot be read: {_why(failure)}.") from failure
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        os.close(descriptor)
        raise BadFile(f"{path} is a folder; only files can be sent.", "Pack it into one file first.")
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(found.st_mode):
            raise BadFile(f"{path} is no file that has a size.", "Save what it holds to a file first.")
        if not found.st_size:
            raise BadFile(f"The file {path} is empty.")
        check_size(found.st_size)
        try:
            yield file, found
        except OSError as failure:
            raise BadFile(f"The file {path} cannot be read: {_why(failure)}.") from failure


def _bare(data: bytes) -> bytes:
    try:
        bare = without_metadata(data)
        check_size(len(bare))
    except TooLarge as large:
        raise TooLarge(f"The picture cannot be freed of its metadata: {large.message}", KEEP) from large
    except RefusedError as unreadable:
        raise RefusedError(unreadable.message, KEEP) from unreadable
    return bare


def _preview(data: bytes) -> bytes:
    """A small picture for the message itself, or nothing."""
    try:
        return thumbnail(data).jpeg
    except ChatchainError:  # whether it may be sent at all is another question
        return b""


def _seal(source: Reader, size: int, folder: Path) -> tuple[FileRef, bytes, int]:
    """Writes the blob, whole after a crash or not at all, and gives its reference, id and size."""
    sealer = Sealer(size)
    digest, written = hashlib.sha256(), 0
    part = folder / f".{os.getpid()}-{os.urandom(4).hex()}.part"
    with _stored(folder):
        make_private(folder)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            for piece in seal_pieces(sealer, pieces(source)):
                digest.update(piece)
                with _stored(folder):
                    written += out.write(piece)
            last, ref = sealer.finish()
            digest.update(last)
            with _stored(folder):
                written += out.write(last)
                out.flush()
                os.fsync(out.fileno())
        with _stored(folder):
            part.replace(folder / digest.hexdigest())
            sync_folder(folder)
    finally:
        part.unlink(missing_ok=True)
    return ref, digest.digest(), written


@contextmanager
def _stored(folder: Path) -> Iterator[None]:
    """Tells a failure of the home's disk from one of the file that is read."""
    try:
        yield
    except OSError as failure:
        raise StoreUnavailable(f"{folder} cannot be written: {_why(failure)}.") from failure


def _media_type(name: str) -> str:
    guessed = (mimetypes.guess_type(name, strict=False)[0] or "").lower()
    return guessed if is_media_type(guessed) else UNKNOWN_TYPE


def _changed() -> RefusedError:
    return RefusedError("The file changed while it was read.", "Send it again once nothing writes to it.")


def _why(failure: Exception) -> str:
    return (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
