"""Files that clients leave at the relay: their parts in a folder or in S3, their names in the database.

A blob is kept as parts of equal size, each an object of its own, so that an upload that broke off goes on
behind the last part that is whole, at whichever node. The database alone says which blobs there are: what
lies in the folder and has no row that says STORED is served to nobody.

`obstore` writes a file beside, renames it and fsyncs nothing; here every part is fsynced as it comes, and the
folders before anybody is told that the blob is stored. S3 answers when it is durable. All of this blocks.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url
from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, func, insert, select, update

from chatchain.errors import BadConfig, StoreUnavailable
from chatchain.model import Blob, BlobState, BlobUse
from chatchain.store.database import translated
from chatchain.store.tables import blobs, users

DAY_MS: Final = 24 * 3600 * 1000
SWEPT_ROWS: Final = 100

BUCKETS: Final = ("s3", "s3a", "gs", "az")
"""Schemes of the clouds' stores; credentials come from their usual environment variables."""


class BlobFolder:
    """The bytes: numbered parts below names that the relay makes. Raises StoreUnavailable."""

    def __init__(self, url: str) -> None:
        """`url` is a folder's path, `file:///path`, or `s3://bucket/prefix`; raises BadConfig."""
        parts = urlsplit(url)
        self._root: Path | None = None
        self._store: ObjectStore
        if parts.scheme in BUCKETS:
            try:
                self._store = from_url(url)
            except (BaseError, ValueError) as error:
                raise BadConfig(
                    f"The store of files {url} cannot be used: {_reason(error)}.",
                    "Correct --blobs (BLOB_URL); credentials are read from the environment.",
                ) from error
            return
        if parts.scheme not in ("", "file") or parts.netloc:
            raise BadConfig(
                "Files are kept in a folder or in a bucket.",
                "--blobs (BLOB_URL) is a path, or looks like s3://bucket/prefix.",
            )
        self._root = Path(unquote(parts.path) if parts.scheme else url).absolute()
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._store = LocalStore(self._root)
        except (OSError, BaseError) as error:
            raise StoreUnavailable(
                f"The folder of files {self._root} cannot be opened: {_reason(error)}."
            ) from error

    def put(self, folder: str, part: int, data: bytes) -> None:
        """Writes one part."""
        with _translated():
            self._store.put(_object(folder, part), data, use_multipart=False)

    def sync(self, folder: str, part: int) -> bool:
        """Returns when the part is on the disk; its name is once `settle` has returned. False when somebody
        has taken it away. A part that cannot be brought there is gone: the kernel says so once, and could say
        otherwise the next time.
        """
        if self._root is not None:
            path = self._root / _object(folder, part)
            with _translated():
                try:
                    _sync(path, os.O_RDONLY)
                except FileNotFoundError:
                    return False
                except OSError:
                    path.unlink(missing_ok=True)
                    raise
        return True

    def settle(self, folder: str) -> None:
        """Returns when the names of all parts that were put are on the disk."""
        if self._root is not None:
            with _translated():
                for path in (self._root / folder, (self._root / folder).parent, self._root):
                    _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def get(self, folder: str, part: int, start: int, end: int) -> memoryview:
        """Bytes `start` to `end` of one part; raises StoreUnavailable too when there are not as many."""
        with _translated():
            found = memoryview(self._store.get_range(_object(folder, part), start=start, end=end))
        if len(found) != end - start:
            raise StoreUnavailable("A part of a file is shorter than it was.")
        return found

    def sizes(self, folder: str) -> list[int]:
        """The sizes of the parts that are there, from the first up to a gap."""
        with _translated():
            found = {item["path"]: item["size"] for batch in self._store.list(f"{folder}/") for item in batch}
        sizes: list[int] = []
        while (size := found.get(_object(folder, len(sizes)))) is not None:
            sizes.append(size)
        return sizes

    def folders(self, shelf: str) -> dict[str, int]:
        """The folders below a first part of their names, each with the time of its youngest part in ms."""
        youngest: dict[str, int] = {}
        with _translated():
            for batch in self._store.list(f"{shelf}/"):
                for item in batch:
                    folder = item["path"].rpartition("/")[0]
                    time_ms = int(item["last_modified"].timestamp() * 1000)
                    youngest[folder] = max(time_ms, youngest.get(folder, 0))
        return youngest

    def move(self, folder: str, to: str) -> None:
        """Gives a folder another name; nothing happens if there is none."""
        with _translated():
            if self._root is not None:
                with contextlib.suppress(FileNotFoundError):
                    (self._root / folder).rename(self._root / to)
                return
            if paths := self._paths(folder):
                for path in paths:
                    self._store.copy(path, to + path.removeprefix(folder))
                self._store.delete(paths)

    def delete(self, folder: str) -> None:
        """Deletes all parts; nothing happens if there are none."""
        with _translated():
            if self._root is not None:
                with contextlib.suppress(FileNotFoundError):
                    # Aside first: a folder that is moved while it is emptied would go on losing parts.
                    aside = self._root / f"{folder}~{secrets.token_hex(4)}"
                    shutil.rmtree((self._root / folder).rename(aside))
                return
            if paths := self._paths(folder):
                self._store.delete(paths)

    def _paths(self, folder: str) -> list[str]:
        return [item["path"] for batch in self._store.list(f"{folder}/") for item in batch]


def _object(folder: str, part: int) -> str:
    return f"{folder}/{part:04}"


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    first = str(error).strip().split("\n")[0].rstrip(".")
    return (error.strerror if isinstance(error, OSError) and error.strerror else first) or "no reason given"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OSError, BaseError) as error:
        full = "No space left" in str(error)
        raise StoreUnavailable(
            "The relay has no room for files at the moment." if full else "The relay's store of files failed."
        ) from error


class BlobTable:
    """Which blobs there are, whose, and until when. Raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, blob: bytes, now_ms: int) -> Blob | None:
        """A whole blob that may be served, whoever uploaded it."""
        served = and_(blobs.c.blob == blob, blobs.c.state == int(BlobState.STORED), _alive(now_ms))
        with translated(), self._engine.connect() as connection:
            row = connection.execute(select(blobs).where(served).limit(1)).first()
            return None if row is None else _blob(row)

    def own(self, owner: int, blob: bytes) -> Blob | None:
        """What is known of this user's copy, expired or not."""
        with translated(), self._engine.connect() as connection:
            return _own(connection, owner, blob)

    def folders(self, ids: Iterable[bytes]) -> set[str]:
        """The folders of all rows of these blobs, whosever and in whichever state."""
        wanted = list(ids)
        with translated(), self._engine.connect() as connection:
            return {
                _blob(row).folder
                for start in range(0, len(wanted), 500)
                for row in connection.execute(
                    select(blobs).where(blobs.c.blob.in_(wanted[start : start + 500]))
                )
            }

    def begin(
        self,
        wanted: Blob,
        now_ms: int,
        admit: Callable[[BlobUse], None],
    ) -> tuple[Blob, Blob | None]:
        """Enters an upload, or goes on with the user's live copy of the same blob; `admit` may refuse a new
        one. Gives the blob, and what was there before.

        Whoever goes on with an upload gets a folder of its own, for the one before may still be at work,
        here or at another node.
        """
        with translated(), self._engine.execution_options(writes=True).begin() as connection:
            # Of one user's uploads one is counted at a time, at whichever node they begin.
            connection.execute(select(users.c.uid).where(users.c.uid == wanted.owner).with_for_update())
            known = _own(connection, wanted.owner, wanted.id)
            created_ms = wanted.created_ms if known is None else max(wanted.created_ms, known.created_ms + 1)
            blob = replace(wanted, created_ms=created_ms)
            if known is not None and known.continued_by(wanted, now_ms):
                if known.state is not BlobState.PARTIAL:
                    return known, known
                _set(connection, known, expires_ms=wanted.expires_ms, created_ms=created_ms)
                return blob, known
            admit(_use(connection, wanted.owner, now_ms))
            spent = wanted.size
            if known is not None:
                same = _is(known)
                if known.created_ms > now_ms - DAY_MS:
                    spent += connection.execute(select(blobs.c.spent).where(same)).scalar_one()
                connection.execute(delete(blobs).where(same))
            row = {
                "owner": blob.owner,
                "blob": blob.id,
                "size": blob.size,
                "state": int(blob.state),
                "spent": spent,
                "created_ms": blob.created_ms,
                "expires_ms": blob.expires_ms,
            }
            connection.execute(insert(blobs), [row])
            return blob, known

    def stored(self, blob: Blob, expires_ms: int) -> bool:
        """Says that a blob is whole; False if it was given up meanwhile."""
        here = and_(_is(blob), blobs.c.state != int(BlobState.GONE))
        whole = update(blobs).where(here).values(state=int(BlobState.STORED), expires_ms=expires_ms)
        with translated(), self._engine.execution_options(writes=True).begin() as connection:
            return connection.execute(whole).rowcount > 0

    def gone(self, blob: Blob, now_ms: int) -> None:
        """Says that a blob is served no more; the next sweep deletes its parts."""
        with translated(), self._engine.execution_options(writes=True).begin() as connection:
            _set(connection, blob, state=int(BlobState.GONE), expires_ms=now_ms)

    def expired(self, now_ms: int) -> list[Blob]:
        """Blobs whose time is over, the oldest first, some at a time."""
        query = select(blobs).where(~_alive(now_ms)).order_by(blobs.c.expires_ms).limit(SWEPT_ROWS)
        with translated(), self._engine.connect() as connection:
            return [_blob(row) for row in connection.execute(query)]

    def swept(self, blob: Blob, now_ms: int) -> None:
        """Forgets a blob whose parts were deleted, once its day is over."""
        with translated(), self._engine.execution_options(writes=True).begin() as connection:
            if blob.created_ms <= now_ms - DAY_MS:
                connection.execute(delete(blobs).where(_is(blob)))
            else:
                _set(connection, blob, state=int(BlobState.GONE), expires_ms=blob.created_ms + DAY_MS + 1)


def _alive(now_ms: int) -> ColumnElement[bool]:
    return blobs.c.expires_ms > now_ms


def _is(blob: Blob) -> ColumnElement[bool]:
    return and_(blobs.c.owner == blob.owner, blobs.c.blob == blob.id, blobs.c.created_ms == blob.created_ms)


def _set(connection: Connection, blob: Blob, **values: int) -> None:
    connection.execute(update(blobs).where(_is(blob)).values(**values))


def _own(connection: Connection, owner: int, blob: bytes) -> Blob | None:
    row = connection.execute(select(blobs).where(blobs.c.owner == owner, blobs.c.blob == blob)).first()
    return None if row is None else _blob(row)


def _use(connection: Connection, owner: int, now_ms: int) -> BlobUse:
    kept = and_(blobs.c.owner == owner, blobs.c.state != int(BlobState.GONE), _alive(now_ms))
    count, size = connection.execute(select(func.count(), func.sum(blobs.c.size)).where(kept)).one()
    recent = and_(blobs.c.owner == owner, blobs.c.created_ms > now_ms - DAY_MS)
    today = connection.execute(select(func.sum(blobs.c.spent)).where(recent)).scalar()
    return BlobUse(int(count), int(size or 0), int(today or 0))


def _blob(row: Row[tuple[object, ...]]) -> Blob:
    return Blob(row.owner, bytes(row.blob), row.size, BlobState(row.state), row.created_ms, row.expires_ms)
