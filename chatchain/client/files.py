"""The files of messages that came: small ones come along, larger ones when a person asks for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec

from chatchain.client.attachments import (
    AUTO_BYTES,
    AUTO_FILES,
    AUTO_FILES_OF_STRANGERS,
    AUTO_S,
    copy_out,
    count_from,
    fetch,
    forget_files,
    place_of,
)
from chatchain.client.ports import Store
from chatchain.client.reading import FILE
from chatchain.client.showing import described, there
from chatchain.client.station import Station
from chatchain.client.views import Fetched
from chatchain.errors import ChatchainError, RefusedError
from chatchain.model import StoredMessage


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
    return Fetched(
        id=message.id.hex(),
        state=message.state.value if message.state is not None else "received",
        name=file.name,
        size=file.size,
        sha256=file.sha256.hex(),
        media_type=file.media_type,
        path=str(path),
    )


async def with_small_file(station: Station, message: StoredMessage) -> StoredMessage:
    """A message that came in, with its file if that is small; what fails is left to a person's asking."""
    if message.kind != FILE or message.deleted or described(message).size > AUTO_BYTES or there(message):
        return message
    contact = (await station.store()).contact(message.peer)
    most = AUTO_FILES if contact is not None and contact.met else AUTO_FILES_OF_STRANGERS
    if count_from(station.files, message.sender) >= most:
        return message
    with suppress(ChatchainError, TimeoutError):
        async with asyncio.timeout(AUTO_S):
            path = await _fetched(station, message)
        return msgspec.structs.replace(message, path=str(path))
    return message


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


async def _fetched(station: Station, message: StoredMessage) -> Path:
    path = await fetch(station.transfer, described(message), place_of(station.files, message))
    (await station.store()).put_path(message.sender, message.id, str(path))
    return path
