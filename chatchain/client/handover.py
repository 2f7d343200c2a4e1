"""What a new device is handed of the past: contacts, settings and the newest messages, sealed as one file.

The file's key is in the answer that goes from screen to screen; the relay, if it carries the file, knows it
by its hash alone and forgets it once it was fetched.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from chatchain.client.ports import Edges, Store
from chatchain.client.session import Credentials
from chatchain.client.transfer import Transfer
from chatchain.client.watch import Watch
from chatchain.crypto import attachments
from chatchain.errors import ChatchainError, MissingInput, NotFoundError, Undecryptable
from chatchain.model import Contact, MessageState, Network, Peer, StoredMessage, Uid

MAX_MESSAGES: Final = 10_000
MAX_HISTORY_BYTES: Final = 20_000_000
"""What is handed over at most, the newest of all conversations; within what a relay carries as one file."""

_PAGE: Final = 500
_FORMAT: Final = 1


class History(msgspec.Struct, frozen=True):
    """What a new device is given of the past: messages in their order, oldest first.

    `peers` are what conversations are set to, with the own display name under the own uid.
    """

    format: int
    contacts: tuple[Contact, ...]
    peers: tuple[Peer, ...]
    messages: tuple[StoredMessage, ...]


NOTHING: Final = History(_FORMAT, (), (), ())
"""What comes along when nothing is handed over."""


@dataclass(frozen=True, repr=False)
class Packed:
    """A history that was sealed, and how much is in it."""

    blob: bytes
    file: attachments.FileRef
    contacts: int
    messages: int


def pack(store: Store, own: Uid) -> Packed:
    """Everybody known and the newest messages, sealed as a file; its key is in the reference."""
    contacts = tuple(store.contacts())
    peers = tuple(store.peer(uid) for uid in (own, *(contact.uid for contact in contacts)))
    told = History(_FORMAT, contacts, peers, _newest(store))
    plain = msgspec.msgpack.encode(told)
    sealer = attachments.Sealer(len(plain))
    blob = sealer.update(plain)
    last, file = sealer.finish()
    return Packed(blob + last, file, len(told.contacts), len(told.messages))


def _newest(store: Store) -> tuple[StoredMessage, ...]:
    """The newest messages within the bounds, oldest first.

    What still waits here to be sent is not past; what was taken back or is to disappear is not copied.
    """
    found: list[StoredMessage] = []
    size, before = 0, None
    while len(found) < MAX_MESSAGES:
        page = store.newest(limit=_PAGE, before=before)
        if not page:
            break
        before = page[-1].row
        for message in page:
            if message.state is MessageState.QUEUED or message.deleted or message.expires_s:
                continue
            size += len(msgspec.msgpack.encode(message))
            if size > MAX_HISTORY_BYTES or len(found) == MAX_MESSAGES:
                return tuple(reversed(found))
            found.append(message)
    return tuple(reversed(found))


def open_history(file: attachments.FileRef, blob: bytes) -> History:
    """What the sealed file holds; raises Undecryptable for another file than the one that is meant."""
    opener = attachments.Opener(file)
    plain = opener.update(blob)
    plain += opener.finish()
    try:
        told = msgspec.msgpack.decode(plain, type=History)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Undecryptable("The history that was handed over is malformed.") from exc
    if told.format != _FORMAT:
        raise Undecryptable("The history that was handed over is of a newer program than this one.")
    return told


async def leave(edges: Edges, watch: Watch, network: Network, who: Credentials, packed: Packed) -> None:
    """Leaves the sealed file with the relay, for who knows its name."""
    transfer = await _files(edges, watch, network, who)
    try:
        name = hashlib.sha256(packed.blob).digest()
        await transfer.upload(name, len(packed.blob), io.BytesIO(packed.blob))
    finally:
        await transfer.close()


async def fetch(
    edges: Edges, watch: Watch, network: Network, who: Credentials, file: attachments.FileRef, blob: bytes
) -> bytes:
    """The sealed file from the relay, which is to forget it then."""
    size = attachments.blob_size(file.size)
    transfer = await _files(edges, watch, network, who)
    try:
        found = b"".join([piece async for piece in transfer.fetch(blob, size, 0, size)])
        with suppress(ChatchainError):
            await transfer.discard(blob)
    except NotFoundError as gone:
        raise MissingInput(
            "The relay does not have the history that is handed over, or not any more.",
            "Bring the old device's file, if it wrote one: --history FILE. Without it: --no-history.",
        ) from gone
    finally:
        await transfer.close()
    return found


async def _files(edges: Edges, watch: Watch, network: Network, who: Credentials) -> Transfer:
    """A connection for files, logged in."""
    transfer = Transfer(await edges.dial(await watch.relays()))
    try:
        await transfer.enter(network, who)
    except BaseException:
        await transfer.close()
        raise
    return transfer
