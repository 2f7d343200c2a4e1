"""The files of messages that came: small ones come along, larger ones when a person asks for them."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path

import msgspec

from chatchain.client.attachments import (
    AUTO_BYTES,
    AUTO_FILES,
    AUTO_FILES_OF_STRANGER,
    AUTO_FILES_OF_STRANGERS,
    AUTO_S,
    copy_out,
    counts,
    fetch,
    forget_files,
    keep_private,
    place_of,
    preview_of,
)
from chatchain.client.images import Picture, preview_again, preview_pixels
from chatchain.client.ports import Store
from chatchain.client.reading import FILE
from chatchain.client.showing import PREVIEW_TYPE, described, there
from chatchain.client.station import Station
from chatchain.client.views import Fetched, Shown
from chatchain.errors import ChatchainError, NotFoundError, RefusedError
from chatchain.model import StoredMessage, Uid


async def bring(station: Station, message: StoredMessage, out: Path | None, *, overwrite: bool) -> Fetched:
    """Brings the file of a message here, if it is not yet, and copies it out if that is wanted."""
    if message.deleted:
        raise RefusedError("The message was deleted, and its file with it.")
    if message.kind != FILE:
        raise RefusedError("The message has no file.", "`chatchain history PEER` shows which have one.")
    file, path = described(message), there(message)
    if path is None:
        await station.desk()
        path = await _fetched(station, message)
    if out is not None:
        path = await asyncio.to_thread(copy_out, path, out, name=file.name, overwrite=overwrite)
    return _fetched_view(message, file.name, file.size, file.sha256.hex(), file.media_type, path)


async def picture(station: Station, shown: Shown, width: int, height: int) -> Picture | None:
    """The preview of a message that was shown, as pixels for a screen; None if there is none to be seen."""
    message = (await station.store()).quoted(Uid(shown.from_uid), bytes.fromhex(shown.id))
    if message is None or message.kind != FILE or not message.content:
        return None
    preview = described(message).thumbnail
    try:
        return await asyncio.to_thread(preview_pixels, preview, width, height) if preview else None
    except RefusedError:  # not worth a word: the file itself can still be had
        return None


async def bring_preview(
    station: Station, message: StoredMessage, out: Path | None, *, overwrite: bool
) -> Fetched:
    """Writes the preview of a message into a file, without asking the relay for anything."""
    if message.kind != FILE or not message.content:
        raise RefusedError("The message has no file.", "`chatchain history PEER` shows which have one.")
    file = described(message)
    if not file.thumbnail:
        raise NotFoundError("The file came without a preview.", "Only pictures have one.")
    jpeg = await asyncio.to_thread(preview_again, file.thumbnail)
    name = f"{Path(file.name).stem[:100]}-preview.jpg"
    path = preview_of(station.files, message)
    await asyncio.to_thread(keep_private, path, jpeg)
    if out is not None:
        path = await asyncio.to_thread(copy_out, path, out, name=name, overwrite=overwrite)
    return _fetched_view(message, name, len(jpeg), hashlib.sha256(jpeg).hexdigest(), PREVIEW_TYPE, path)


async def with_small_file(station: Station, message: StoredMessage) -> StoredMessage:
    """A message that came in, with its file if that is small; what fails is left to a person's asking."""
    if message.kind != FILE or message.deleted or described(message).size > AUTO_BYTES or there(message):
        return message
    if not _has_room(await station.store(), station.files, message.sender):
        return message
    with suppress(ChatchainError, TimeoutError):
        async with asyncio.timeout(AUTO_S):
            path = await _fetched(station, message)
        return msgspec.structs.replace(message, path=str(path))
    return message


def _has_room(store: Store, files: Path, sender: Uid) -> bool:
    """Whether another file of a sender may come along by itself."""
    here = counts(files)
    if _met(store, sender):
        return here[sender] < AUTO_FILES
    of_strangers = sum(number for uid, number in here.items() if not _met(store, uid))
    return here[sender] < AUTO_FILES_OF_STRANGER and of_strangers < AUTO_FILES_OF_STRANGERS


def _met(store: Store, uid: Uid) -> bool:
    contact = store.contact(uid)
    return contact is not None and contact.met


async def discard(station: Station, message: StoredMessage) -> None:
    """Forgets the file of an own message that was deleted, here and at the relay; if that is away, the file
    goes there when it expires.
    """
    forget_files(station.files, (await station.store()).has_file)
    if message.kind == FILE and message.content and station.session is not None and station.session.alive:
        with suppress(ChatchainError):
            async with station.transfer() as transfer:
                await transfer.discard(described(message).blob)


def forget_unless_waiting(store: Store, folder: Path, blob: bytes) -> None:
    """Deletes a sealed file that came into no message."""
    if all(upload.blob != blob for upload in store.uploads()):
        (folder / blob.hex()).unlink(missing_ok=True)


def _fetched_view(
    message: StoredMessage, name: str, size: int, sha256: str, media_type: str, path: Path
) -> Fetched:
    return Fetched(
        id=message.id.hex(),
        state=message.state.value if message.state is not None else "received",
        name=name,
        size=size,
        sha256=sha256,
        media_type=media_type,
        path=str(path),
    )


async def _fetched(station: Station, message: StoredMessage) -> Path:
    path = await fetch(station.transfer, described(message), place_of(station.files, message))
    (await station.store()).put_path(message.sender, message.id, str(path))
    return path
