"""Serves connections for files: uploads into parts on the disk, downloads out of them.

Such a connection is logged in like one for messages and carries nothing else, so that a large file keeps no
message waiting. It does one thing at a time. An upload is read no faster than it is written: behind the parts
that are being written one may wait and one be gathered. A download is sent no faster than it is read: what a
slow reader has not taken stays on the disk. Database and disk are asked in threads.

Of all connections only so many move files at a time. Whoever waits is answered, and then not read from, nor
sent anything, until there is a berth.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import msgspec
from structlog.typing import FilteringBoundLogger

from chatchain.errors import (
    ChatchainError,
    LimitReached,
    NotAMember,
    NotFoundError,
    RefusedError,
    StoreUnavailable,
    VerificationError,
)
from chatchain.model import Blob, BlobState
from chatchain.relay.berths import BERTH_BYTES, Berths
from chatchain.relay.blobs import (
    PIECE_BYTES,
    Assembly,
    BlobLimits,
    admit,
    check_size,
    parts_kept,
    slices,
)
from chatchain.relay.limits import Buckets, Rate, milliseconds
from chatchain.relay.metrics import Metrics
from chatchain.relay.orphans import Orphans
from chatchain.relay.ports import BlobParts, BlobTable, Peer
from chatchain.relay.tasks import failed
from chatchain.wire import deadlines
from chatchain.wire.connection import State
from chatchain.wire.messages import (
    Discard,
    Done,
    Fetch,
    Fetching,
    FilesOpen,
    Message,
    Piece,
    Stored,
    Upload,
    Uploading,
)

THREADS: Final = 4
WRITES: Final = 2
"""Parts of one upload that are being written at a time."""

SWEEP: Final = 600.0
"""Seconds between two looks for files whose time is over."""

SHELVES_A_SWEEP: Final = 16
"""Shares of the names that each of these looks goes through for parts that belong to no file: all in 3 h."""

BUSY_MS: Final = 10_000
"""When to try again what failed for want of disk or database."""

WAY: Final = 1.0
"""Seconds between two looks for who has to give way, while somebody waits for a berth."""

WAY_MS: Final = 1_000
"""When to go on after having given way: in turn, behind those who wait by then."""

T = TypeVar("T")


class _Upload:
    """One blob on its way in."""

    def __init__(self, session: FileSession, ref: int, assembly: Assembly) -> None:
        self.session = session
        self.ref = ref
        self.assembly = assembly
        self.waiting: deque[bytes] = deque()
        self.writes: set[asyncio.Task[None]] = set()
        self.syncs: list[asyncio.Task[None]] = []
        """Parts that are written and on their way to the disk: these cost no memory here."""
        self.dropped = False
        """Nothing more is taken of it: it failed, or goes on elsewhere."""
        self.held = False
        self.idle = asyncio.Event()
        """Whether nobody is at work on it; writes may still be under way."""
        self.idle.set()


class FileSession(msgspec.Struct, eq=False):
    """A connection for files after its login."""

    uid: int
    device: int
    epoch: int
    peer: Peer
    writable: asyncio.Event
    spoke: float
    """Loop time of the last thing it said, heartbeats excepted."""
    upload: _Upload | None = None
    last: _Upload | None = None
    """The last that it began: what is still being written of it costs memory."""


class Files:
    """All connections for files of one relay."""

    def __init__(
        self,
        parts: BlobParts,
        table: BlobTable,
        *,
        limits: BlobLimits,
        requests: Rate,
        moving: int,
        log: FilteringBoundLogger,
        metrics: Metrics,
        admits: Callable[[int], Awaitable[bool]],
        hold: Callable[[Peer, Coroutine[None, None, None]], None],
        spawn: Callable[[Coroutine[None, None, None]], None],
        deleting_ms: Callable[[], int],
    ) -> None:
        """`requests` is how many a user may begin, `moving` how much memory all connections may take, and
        `admits` says who may use the relay; `hold` does work before anything else that a peer says. By
        `deleting_ms` something is old enough to be deleted.
        """
        self._deleting_ms = deleting_ms
        self._parts = parts
        self._table = table
        self._limits = limits
        self._log = log
        self._metrics = metrics
        self._admits = admits
        self._hold = hold
        self._spawn = spawn
        self._sessions: set[FileSession] = set()
        self._of_user: Counter[int] = Counter()
        self._uploads: dict[tuple[int, bytes], _Upload] = {}
        self._requests = Buckets(requests)
        self.berths: Final = Berths[FileSession](max(1, moving // BERTH_BYTES), lambda session: session.uid)
        metrics.files_moving.set_function(lambda: self.berths.taken)
        metrics.files_waiting.set_function(lambda: self.berths.waiting)
        self._making_way = False
        self._stopped = False
        self._orphans = Orphans(parts, table, age_ms=limits.kept_ms + limits.unfinished_ms)
        self._pool = ThreadPoolExecutor(THREADS, "files")
        self._syncs = ThreadPoolExecutor(THREADS, "file-sync")

    # --- connections ---

    def enter(self, peer: Peer, uid: int, device: int, epoch: int) -> FileSession | None:
        """Takes a connection in whose login holds; None, after a Goodbye, if the user has too many."""
        if self._of_user[uid] >= self._limits.connections:
            peer.say_goodbye("limit_reached", "Too many connections for files at a time.", BUSY_MS)
            return None
        session = FileSession(uid, device, epoch, peer, asyncio.Event(), _now())
        self._sessions.add(session)
        self._of_user[uid] += 1
        peer.send(FilesOpen(uid, self._limits.largest))
        return session

    def closed(self, session: FileSession) -> None:
        """Forgets a connection; what it left unfinished stays for the next."""
        self._sessions.discard(session)
        self._of_user[session.uid] -= 1
        self._of_user += Counter()  # forgets those at zero
        self._drop(session)
        session.writable.set()
        if session.last is None:
            self.berths.leave(session, _now())
        else:
            self._spawn(self._leave(session, session.last))

    def writable(self, session: FileSession) -> None:
        """Goes on with a slow reader."""
        session.writable.set()

    def end(self, uid: int, code: str, message: str, *, device: int = 0, except_epoch: int = -1) -> None:
        """Ends a user's connections: of one device, or all but those of an epoch."""
        for session in list(self._sessions):
            if session.uid == uid and device in (0, session.device) and session.epoch != except_epoch:
                session.peer.say_goodbye(code, message)

    def stop(self) -> None:
        """Takes up no more work."""
        self._stopped = True
        for pool in (self._pool, self._syncs):
            pool.shutdown(wait=False, cancel_futures=True)

    def received(self, session: FileSession, message: Message) -> None:
        """Serves one message."""
        session.spoke = _now()
        match message:
            case Piece(ref, data):
                self._take(session, ref, data)
            case Upload(ref):
                self._hold(session.peer, self._answered(session, ref, self._begin(session, message)))
            case Fetch(ref):
                self._hold(session.peer, self._answered(session, ref, self._serve(session, message)))
            case Discard(ref, blob):
                self._hold(session.peer, self._answered(session, ref, self._discard(session, ref, blob)))
            case _:
                raise AssertionError("the table of turns lets nothing else through")

    async def _answered(self, session: FileSession, ref: int, work: Coroutine[None, None, None]) -> None:
        """Does the work, or says why it failed."""
        try:
            self._require_pace(session.uid)
            await work
        except ChatchainError as error:
            work.close()
            self._fail(session, ref, error)

    def _require_pace(self, uid: int, amount: int = 1) -> None:
        if wait := self._requests.take(uid, time.monotonic(), amount):
            raise LimitReached("Too many requests for files.", retry_after_ms=milliseconds(wait))

    def _fail(self, session: FileSession, ref: int, error: ChatchainError) -> None:
        self._metrics.files.labels(error.code).inc()
        if isinstance(error, StoreUnavailable):
            self._log.warning("files failed", reason=error.message, cause=_cause(error))
        session.peer.send(failed(ref, error, BUSY_MS))

    # --- in turn ---

    async def _berth(self, session: FileSession) -> bool:
        """Waits until this connection may move files; False when it is gone."""
        if session.peer.state is State.CLOSED:
            return False
        given = self.berths.take(session, _now())
        if not given.done() and not self._making_way:
            self._making_way = True
            self._spawn(self._make_way())
        had = await given
        session.spoke = _now()
        return had

    async def _make_way(self) -> None:
        """As long as somebody waits, has those give way whose turn is over."""
        try:
            while self.berths.waiting:
                await asyncio.sleep(WAY)
                now = _now()
                for session in self.berths.give_way(now, lambda one: _idle(one, now)):  # noqa: B023
                    session.peer.say_goodbye(
                        "relay_busy", "Others wait for their turn with a file; go on in a moment.", WAY_MS
                    )
        finally:
            self._making_way = False

    async def _leave(self, session: FileSession, last: _Upload) -> None:
        """Frees the berth once nothing of a connection is in memory any more."""
        await last.idle.wait()
        await asyncio.gather(*last.writes, return_exceptions=True)
        session.last = None  # else it and its session would keep each other, and all of the connection
        self.berths.leave(session, _now())

    # --- up ---

    async def _begin(self, session: FileSession, message: Upload) -> None:
        check_size(self._limits, message.size)
        if not await self._admits(session.uid):
            raise NotAMember("Only admitted members may upload files in this network.", "Ask to be admitted.")
        earlier = [mine] if (mine := self._detach(session)) is not None else []
        key = session.uid, message.blob
        if (other := self._uploads.get(key)) is not None:
            # A connection that died without a word, most likely: the newer one goes on where it came to.
            self._detach(other.session)
            self._fail(other.session, other.ref, RefusedError("The upload goes on over a newer connection."))
            earlier.append(other)
        for one in earlier:
            await one.idle.wait()
            await asyncio.gather(*one.writes, *one.syncs, return_exceptions=True)
        now = _now_ms()
        blob = Blob(
            session.uid, message.blob, message.size, BlobState.PARTIAL, now, now + self._limits.unfinished_ms
        )
        try:
            blob = await self._in(lambda: self._entered(blob, now))
        finally:
            for one in earlier:  # not before: until its parts were moved they look like what nobody wants
                self._spawn(self._tidy(one))
        if blob.state is BlobState.STORED:
            session.peer.send(Stored(message.ref, blob.expires_ms))
            return
        parts = await self._in(lambda: parts_kept(blob.size, self._parts.sizes(blob.folder)))
        self._require_pace(session.uid, parts)  # all of them are read, and hashed
        assembly = await self._in(lambda: self._resumed(blob, parts))
        if session.peer.state is State.CLOSED:
            return
        session.upload = session.last = upload = self._uploads[key] = _Upload(session, message.ref, assembly)
        session.peer.send(Uploading(message.ref, assembly.offset))
        if assembly.complete:  # every part was there and only the word that it is stored is missing
            self._write_on(upload)
        else:
            await self._berth(session)

    def _entered(self, wanted: Blob, now_ms: int) -> Blob:
        """Enters an upload in the table, and takes over what an older one of the same blob has left."""
        blob, before = self._table.begin(wanted, now_ms, lambda use: admit(self._limits, use, wanted.size))
        if before is not None and before.folder != blob.folder:
            if before.continued_by(wanted, now_ms):
                self._parts.move(before.folder, blob.folder)
            else:
                self._parts.delete(before.folder)
        return blob

    def _resumed(self, blob: Blob, parts: int) -> Assembly:
        """The upload as far as it came, with the hash of what is there."""
        assembly = Assembly(blob, parts)
        for part, start, end in slices(0, assembly.offset):
            assembly.keep(self._parts.get(blob.folder, part, start, end))
            if not self._parts.sync(blob.folder, part):  # whoever wrote it may not have come to that
                raise _elsewhere()
        return assembly

    def _take(self, session: FileSession, ref: int, data: bytes) -> None:
        upload = session.upload
        if upload is None or upload.dropped or upload.ref != ref:
            if not self.berths.has(session):  # never asked for one: what TLS grows by must not be had so
                session.peer.say_goodbye("protocol_violation", "These bytes belong to no upload.")
            return  # was on its way when the relay gave the upload up, and said so
        try:
            parts = upload.assembly.take(data)
        except RefusedError as error:
            self._give_up(upload, error)
            return
        if parts:
            upload.waiting.extend(parts)
            self._write_on(upload)

    def _write_on(self, upload: _Upload) -> None:
        if upload.idle.is_set():
            upload.idle.clear()
            self._spawn(self._write(upload))
        elif not upload.held:
            upload.held = True
            upload.session.peer.hold()

    async def _write(self, upload: _Upload) -> None:
        """Writes the parts that wait, one after the other, and after the last says that all is stored."""
        session, assembly = upload.session, upload.assembly
        folder = assembly.blob.folder
        try:
            while upload.waiting and not upload.dropped:
                part = upload.waiting.popleft()
                number = await self._in(partial(assembly.keep, part))
                await self._written(upload, WRITES - 1)
                upload.writes.add(asyncio.create_task(self._put(upload, folder, number, part)))
                self._metrics.file_bytes.labels("up").inc(len(part))
                self._let_go(upload)
            if assembly.complete:
                await self._written(upload, 0)
                await asyncio.gather(*upload.syncs)
            if assembly.complete and not upload.dropped:
                self._detach(session)
                expires_ms = await self._in(lambda: self._finished(assembly))
                self._metrics.files.labels("stored").inc()
                session.peer.send(Stored(upload.ref, expires_ms))
        except ChatchainError as error:
            self._fail(session, upload.ref, error)
        finally:
            upload.idle.set()
            self._let_go(upload)

    async def _put(self, upload: _Upload, folder: str, number: int, part: bytes) -> None:
        # What keeps a part from the disk is dealt with at once: the task would keep the error, which keeps
        # the calls that it went through, and these the part, the upload and so the task.
        try:
            await self._in(partial(self._parts.put, folder, number, part))
            upload.syncs.append(asyncio.create_task(self._sync(upload, folder, number)))
        except ChatchainError as error:
            self._give_up(upload, error)

    async def _sync(self, upload: _Upload, folder: str, number: int) -> None:
        if self._stopped:
            return
        sync = partial(self._parts.sync, folder, number)
        try:
            if not await asyncio.get_running_loop().run_in_executor(self._syncs, sync):
                raise _elsewhere()
        except ChatchainError as error:
            self._give_up(upload, error)

    @staticmethod
    async def _written(upload: _Upload, left: int) -> None:
        """Waits until no more than so many parts are being written."""
        while len(upload.writes) > left:
            done, upload.writes = await asyncio.wait(upload.writes, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()

    @staticmethod
    def _let_go(upload: _Upload) -> None:
        if upload.held and not upload.waiting:
            upload.held = False
            upload.session.peer.release()

    def _finished(self, assembly: Assembly) -> int:
        """Makes a whole upload durable and known; raises VerificationError if it is not what its id says."""
        blob, now = assembly.blob, _now_ms()
        if not assembly.matches():
            self._table.gone(blob, now)
            self._parts.delete(blob.folder)
            raise VerificationError("The upload does not have the hash that was announced.")
        self._parts.settle(blob.folder)
        expires_ms = now + self._limits.kept_ms
        if not self._table.stored(blob, expires_ms):
            self._parts.delete(blob.folder)
            raise _elsewhere()
        return expires_ms

    def _give_up(self, upload: _Upload, error: ChatchainError) -> None:
        """Says why no more is taken of an upload, unless something else was said before."""
        if not upload.dropped:
            self._drop(upload.session)
            self._fail(upload.session, upload.ref, error)

    def _drop(self, session: FileSession) -> None:
        """Takes no more of the upload on this connection; the parts that are kept stay."""
        upload = self._detach(session)
        if upload is not None:
            self._spawn(self._tidy(upload))

    def _detach(self, session: FileSession) -> _Upload | None:
        """Parts a connection from its upload; whoever calls has what it still writes tidied up."""
        upload, session.upload = session.upload, None
        if upload is None:
            return None
        upload.dropped = True
        upload.waiting.clear()
        key = session.uid, upload.assembly.blob.id
        if self._uploads.get(key) is upload:
            del self._uploads[key]
        return upload

    async def _tidy(self, upload: _Upload) -> None:
        """Deletes what an upload still wrote after another went on with its parts, or after it was discarded:
        that counts for nobody.
        """
        await upload.idle.wait()
        await asyncio.gather(*upload.writes, *upload.syncs, return_exceptions=True)
        blob = upload.assembly.blob
        if self._stopped:
            return
        try:
            await self._in(lambda: self._tidied(blob))
        except StoreUnavailable as error:
            self._log.warning("files not swept", reason=error.message, cause=_cause(error))

    def _tidied(self, blob: Blob) -> None:
        own = self._table.own(blob.owner, blob.id)
        if own is None or own.state is BlobState.GONE or own.folder != blob.folder:
            self._parts.delete(blob.folder)

    # --- down ---

    async def _serve(self, session: FileSession, message: Fetch) -> None:
        if not await self._admits(session.uid):
            raise NotAMember("Only admitted members may download files in this network.")
        blob = await self._in(lambda: self._table.find(message.blob, _now_ms()))
        if blob is None:
            raise NotFoundError("The relay does not have this file, or not any more.")
        if message.offset + message.length > blob.size:
            raise RefusedError("The file ends before the bytes that were asked for.")
        peer = session.peer
        peer.send(Fetching(message.ref, blob.size))
        if not await self._berth(session):
            return
        for part, start, end in slices(message.offset, message.length):
            data = await self._in(lambda: self._parts.get(blob.folder, part, start, end))  # noqa: B023
            for at in range(0, len(data), PIECE_BYTES):
                if not await self._drained(session):
                    return
                peer.send(Piece(message.ref, bytes(data[at : at + PIECE_BYTES])))
            self._metrics.file_bytes.labels("down").inc(len(data))
        self._metrics.files.labels("fetched").inc()

    async def _drained(self, session: FileSession) -> bool:
        """Waits until a slow reader has read; False when it is gone, or has read nothing for too long."""
        while session.peer.slow and session.peer.state is not State.CLOSED:
            session.writable.clear()
            try:
                async with asyncio.timeout(deadlines.SILENCE):
                    await session.writable.wait()
            except TimeoutError:
                session.peer.abort()
        return session.peer.state is not State.CLOSED

    # --- away ---

    async def _discard(self, session: FileSession, ref: int, blob: bytes) -> None:
        await self._in(lambda: self._discarded(session.uid, blob))
        session.peer.send(Done(ref))

    def _discarded(self, uid: int, id: bytes) -> None:
        blob = self._table.own(uid, id)
        if blob is not None and blob.state is not BlobState.GONE:
            self._remove(blob)

    def _remove(self, blob: Blob) -> None:
        """First nobody is served any more, then the bytes go, then the row if its day is over."""
        now = self._deleting_ms()
        self._table.gone(blob, now)
        self._parts.delete(blob.folder)
        self._table.swept(blob, now)

    async def sweep(self) -> None:
        """Deletes what has expired, for ever."""
        while True:
            try:
                found = await self._in(lambda: self._table.expired(self._deleting_ms()))
                for blob in found:
                    await self._in(lambda: self._remove(blob))  # noqa: B023
                if not found:
                    await self._clear_orphans()
            except StoreUnavailable as error:
                self._log.warning("files not swept", reason=error.message, cause=_cause(error))
                found = []
            if not found:
                await asyncio.sleep(SWEEP)

    async def _clear_orphans(self) -> None:
        for _ in range(SHELVES_A_SWEEP):
            count = await self._in(lambda: self._orphans.look(self._deleting_ms()))
            if count:
                self._metrics.files.labels("orphaned").inc(count)
                self._log.info("orphaned parts deleted", count=count)

    async def _in(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _elsewhere() -> RefusedError:
    """Another connection, here or at another node, has gone on with an upload or discarded it."""
    return RefusedError("The upload was given up elsewhere.")


def _cause(error: ChatchainError) -> str:
    """What a folder or bucket said, for the log; whoever uploads is told only that it failed."""
    return str(error.__cause__ or "")[:200]


def _idle(session: FileSession, now: float) -> float:
    """For how long a connection has had nothing to do."""
    writing = session.last is not None and not session.last.idle.is_set()
    busy = writing or session.upload is not None or session.peer.waits
    return 0.0 if busy else now - session.spoke


def _now() -> float:
    return asyncio.get_running_loop().time()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
