"""Files on their way: uploads that wait for the relay, downloads that wait for a person.

In the home, below `files`: `out/<blob id>` is a sealed file that is not at the relay yet;
`in/<sender>-<message id>/<name>` is a file that came, `.part` beside it one that is coming,
`previews/<sender>-<message id>.jpg` a preview that was asked for. A file has its name only once size, hash
and every chunk were right. A message with a file is kept from the start, and joins the end of the outbox once
the relay has said that the blob is on its disk; what was written meanwhile does not wait for it.

An upload that broke off goes on with the next session where the relay says; a download with the next attempt,
behind the last chunk that is here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from chatchain.client.home import make_private, sync_folder
from chatchain.client.outbox import Outbox, Outcome
from chatchain.client.ports import Store
from chatchain.client.transfer import Transfer
from chatchain.crypto.attachments import CHUNK_BYTES, HEADER_BYTES, Opener, blob_size, pieces
from chatchain.crypto.content import File
from chatchain.errors import (
    AlreadyDone,
    BadFile,
    ChatchainError,
    LimitReached,
    NetworkError,
    NoSuchFile,
    RefusedError,
    StoreUnavailable,
    VerificationError,
)
from chatchain.model import MessageState, StoredMessage, Uid, WaitingUpload

NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""How file systems that have none (FAT, some network shares) refuse them."""

AUTO_BYTES: Final = 1_000_000
"""Files up to this size are fetched when their message comes, larger ones when a person asks."""

AUTO_FILES: Final = 1000
"""So many files of one sender may be here for another to come along: one small blob can be named by any
number of messages, and each keeps a copy.
"""

AUTO_FILES_OF_STRANGER: Final = 10
"""The same for a stranger: somebody whom this home's user never wrote to, added or verified."""

AUTO_FILES_OF_STRANGERS: Final = 100
"""The same for all strangers together: names are cheap, and a thousand of them would bring 10 GB."""

AUTO_S: Final = 10.0
"""How long a message waits to be shown for such a file."""

PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Between attempts of one session to upload that bring nothing; after the last it is left to the next."""

KEPT_BYTES: Final = 1024 * 1024
"""By how much later an attempt begins if the one before has brought something: relays keep whole MiB."""

Enter = Callable[[], AbstractAsyncContextManager[Transfer]]
"""Gives a connection for files, a new one or one that is at hand."""


# --- up -------------------------------------------------------------------------------------------------


class Courier:
    """Uploads what waits, in order, for as long as there is a session."""

    def __init__(
        self, me: Uid, store: Store, outbox: Outbox, files: Path, enter: Enter, fresh: Collection[bytes]
    ) -> None:
        """`fresh` are blobs that were sealed just now, and whose messages are about to be stored."""
        self._me = me
        self._store = store
        self._outbox = outbox
        self._files = files
        self._folder = files / "out"
        self._enter = enter
        self._fresh = fresh
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0  # attempts since one brought something
        self._furthest = b"", 0  # which blob was gone on with, and how much of it was on its way then at most

    async def start(self) -> None:
        """Begins with what earlier runs left."""
        await self.stop()
        self._forget_sent()
        self.forget_deleted()
        self._wake.set()
        self._idle.clear()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops; what is under way goes on another time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def nudge(self) -> None:
        """There may be something new."""
        self._wake.set()

    def forget_deleted(self) -> None:
        """Deletes what messages had brought that were taken back."""
        forget_files(self._files, self._store.has_file)

    async def drained(self, patience: float) -> None:
        """Waits until nothing more can be uploaded now, or none of it has moved for so many seconds."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while self._task is not None and not self._task.done() and not self._idle.is_set():
            left = max(since, self._outbox.progress) + patience - loop.time()
            if left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._idle.wait()

    async def _run(self) -> None:
        self._failures, self._furthest = 0, (b"", 0)
        while True:
            self._wake.clear()
            if not (waiting := self._store.uploads()):
                self._idle.set()
                await self._wake.wait()
                self._idle.clear()
                continue
            try:
                await self._round(waiting)
                self._failures = 0
            except ChatchainError as obstacle:
                if isinstance(obstacle, NetworkError) and self._failures < len(PAUSES_S):
                    await asyncio.sleep(PAUSES_S[self._failures])
                    self._failures += 1
                    continue
                for upload in self._store.uploads():
                    self._outbox.conclude(upload.id, Outcome(MessageState.QUEUED, obstacle))
                self._idle.set()
                await self._wake.wait()
                self._idle.clear()

    async def _round(self, waiting: list[WaitingUpload]) -> None:
        async with self._enter() as transfer:
            for upload in waiting:
                await self._deliver(transfer, upload)

    async def _deliver(self, transfer: Transfer, upload: WaitingUpload) -> None:
        try:
            if not self._store.has_file(self._me, upload.id):
                raise RefusedError("The message was deleted before its file was uploaded.")
            try:
                await self._send(transfer, upload)
            except VerificationError:  # what an earlier attempt left there was damaged, and is forgotten now
                await self._send(transfer, upload)
        except (LimitReached, VerificationError):
            raise
        except (RefusedError, BadFile) as refused:
            self._store.settle([upload.id], MessageState.DROPPED, refused.code)
            self._outbox.conclude(upload.id, Outcome(MessageState.DROPPED, refused))
        else:
            self._store.uploaded(upload.id)
            self._outbox.wake()
        self._forget_sent()

    async def _send(self, transfer: Transfer, upload: WaitingUpload) -> None:
        goes_on = True

        def moved(sent: int) -> None:
            nonlocal goes_on
            self._outbox.progress = asyncio.get_running_loop().time()
            if goes_on:
                goes_on = False
                self._gone_on(upload.blob, sent)

        with _sealed(self._folder / upload.blob.hex()) as source:
            await transfer.upload(upload.blob, upload.size, source, moved)

    def _gone_on(self, blob: bytes, sent: int) -> None:
        """An attempt has begun: if much later than any before, these were no failures. A relay that forgets
        again and again what it had brings nothing.
        """
        before, furthest = self._furthest
        if blob != before:
            self._furthest = blob, sent
        elif sent >= furthest + KEPT_BYTES:
            self._failures, self._furthest = 0, (blob, sent)

    def _forget_sent(self) -> None:
        """Deletes sealed files that no message waits for any more."""
        wanted = {blob.hex() for blob in self._fresh}
        wanted |= {upload.blob.hex() for upload in self._store.uploads()}
        with suppress(OSError):
            for path in self._folder.iterdir():
                if path.name not in wanted and not path.name.startswith(f".{os.getpid()}-"):
                    path.unlink()


@contextmanager
def _sealed(path: Path) -> Iterator[BinaryIO]:
    try:
        source = path.open("rb")
    except OSError as failure:
        raise BadFile(
            f"The sealed file {path} is gone or unreadable ({failure.strerror}).", "Send the file again."
        ) from failure
    with source:
        yield source


# --- down -----------------------------------------------------------------------------------------------


def place_of(files: Path, message: StoredMessage) -> Path:
    """The folder that a message's file has for itself."""
    return files / "in" / f"{message.sender}-{message.id.hex()}"


def preview_of(files: Path, message: StoredMessage) -> Path:
    """Where the preview of a message is kept once a person has asked for it."""
    return files / "previews" / f"{message.sender}-{message.id.hex()}.jpg"


def counts(files: Path) -> Counter[Uid]:
    """How many files of each sender are here."""
    here = Counter[Uid]()
    with suppress(OSError):
        for folder in (files / "in").iterdir():
            with suppress(ValueError):
                here[Uid(int(folder.name.partition("-")[0]))] += 1
    return here


async def fetch(enter: Enter, file: File, folder: Path) -> Path:
    """Brings a file into a folder of its own, under its own name, and gives its path.

    Raises NotFoundError when the relay does not have it (any more), VerificationError when what it has is
    something else, NetworkError; what came is kept where it may be used.
    """
    target, part = folder / file.name, folder / ".part"
    if await asyncio.to_thread(_is_there, target, file):
        return target
    came, tired = 0, False
    while True:
        try:
            await _attempt(enter, file, part)
        except _Damaged as damaged:
            # Perhaps it was what an earlier run left here: the relay is to blame only for all of it.
            if not damaged.resumed:
                raise VerificationError(damaged.message, damaged.hint) from damaged
        except NetworkError:
            before, came = came, _size(part)
            if came <= before and tired:
                raise
            tired = came <= before  # once more: a connection that was at hand may have been dead
        else:
            with _stored(folder):
                part.replace(target)
                sync_folder(folder)
            return target


class _Damaged(VerificationError):
    """What was put together is not the file of the message; it is deleted."""

    def __init__(self, flaw: VerificationError, *, resumed: bool) -> None:
        super().__init__(flaw.message, flaw.hint or "Ask for it again; what came was deleted.")
        self.resumed = resumed


async def _attempt(enter: Enter, file: File, part: Path) -> None:
    """Fetches what is missing and writes it behind what is there, over one connection."""
    sealed, name = blob_size(file.size), file.blob
    with _stored(part):
        out, opener, here = await asyncio.to_thread(_begin, part, file)
    with out:
        try:
            async with enter() as transfer:
                if here:
                    async for data in transfer.fetch(name, sealed, 0, HEADER_BYTES):
                        opener.update(data)
                start = opener.offset if here else 0
                async for data in transfer.fetch(name, sealed, start, sealed - start):
                    with _stored(part):
                        out.write(opener.update(data))
                with _stored(part):
                    out.write(opener.finish())
                    out.flush()
                    os.fsync(out.fileno())
        except VerificationError as flaw:
            os.unlink(part)  # noqa: PTH108
            raise _Damaged(flaw, resumed=bool(here)) from flaw


def _begin(part: Path, file: File) -> tuple[BinaryIO, Opener, int]:
    """Opens what is there of a file, cut to whole chunks, to go on behind them."""
    make_private(part.parent)
    out = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b")
    try:
        here = min(os.fstat(out.fileno()).st_size, file.size) // CHUNK_BYTES * CHUNK_BYTES
        out.truncate(here)
        return out, Opener(file.ref, pieces(out)), here
    except BaseException:
        out.close()
        raise


def _is_there(target: Path, file: File) -> bool:
    """Whether the file came before; it got its name only after every check."""
    return not target.is_symlink() and target.is_file() and target.stat().st_size == file.size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def copy_out(source: Path, out: Path, *, name: str, overwrite: bool) -> Path:
    """Copies a file that came to where a person wants it (into a folder: under this name); whole or not.

    Raises AlreadyDone rather than touch what is there, unless told to overwrite it; NoSuchFile for a folder
    that does not exist, BadFile for a place where nothing can be written.
    """
    target = out / name if out.is_dir() else out
    if not target.parent.is_dir():
        raise NoSuchFile(f"There is no folder {target.parent}.", "Make it first, or name another file.")
    # Whoever else may write in that folder must not have made the file for us, with rights of his own.
    beside = target.with_name(f".{os.urandom(8).hex()}.part")
    with _copied(source, target):
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as copy, source.open("rb") as file:
                shutil.copyfileobj(file, copy, 256 * 1024)
                copy.flush()
                os.fsync(copy.fileno())
            if overwrite:
                beside.replace(target)
            else:
                _link(beside, target)
        except FileExistsError as exists:
            raise AlreadyDone(
                f"{target} exists already; it was not touched.", "Name another, or give --overwrite."
            ) from exists
        finally:
            with suppress(OSError):  # where nothing can be written nothing was
                beside.unlink(missing_ok=True)
        sync_folder(target.parent)
    return target.absolute()


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name that nothing has yet; where names cannot be shared, it takes the place of an
    empty file that only this call can have made. Raises FileExistsError.
    """
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        source.replace(target)


def keep_private(path: Path, data: bytes) -> None:
    """Writes a small file into a folder of the home, for its owner alone."""
    with _stored(path):
        make_private(path.parent)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)


def forget_files(files: Path, is_wanted: Callable[[int, bytes], bool]) -> None:
    """Deletes the files and previews of messages that are not there any more: `is_wanted` is asked by sender
    and id.
    """
    for folder in (files / "in", files / "previews"):
        with suppress(OSError):
            for path in folder.iterdir():
                sender, _, message = path.stem.partition("-")
                with suppress(ValueError, OSError):
                    if is_wanted(int(sender), bytes.fromhex(message)):
                        continue
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


@contextmanager
def _copied(source: Path, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise BadFile(
            f"{target} cannot be written: {failure.strerror or failure}.",
            f"The file itself is at {source}; name a folder of yours that has room.",
        ) from failure


@contextmanager
def _stored(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise StoreUnavailable(f"{path} cannot be written: {failure.strerror or failure}.") from failure
