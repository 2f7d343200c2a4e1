"""What a home's database knows of files: what has to be uploaded first, and where a file was put.

A message whose file is not at the relay yet stands in the outbox and is passed over; once the file is there,
it joins the end. Functions work inside of a transaction of store/local.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlcipher3 import dbapi2 as sqlcipher

from chatchain.model import WaitingUpload

SCHEMA: Final = """
    ALTER TABLE messages ADD COLUMN path TEXT NOT NULL DEFAULT '';
    CREATE TABLE uploads (
        id BLOB PRIMARY KEY REFERENCES outbox (id) ON DELETE CASCADE, blob BLOB NOT NULL,
        size INTEGER NOT NULL
    ) WITHOUT ROWID;
"""

HELD: Final = "id NOT IN (SELECT id FROM uploads)"
"""The rows of the outbox that may leave."""


def add(db: sqlcipher.Connection, uploads: Iterable[WaitingUpload]) -> None:
    """Has messages of the outbox wait for their files."""
    db.executemany(
        "INSERT INTO uploads (id, blob, size) VALUES (?, ?, ?)",
        [(upload.id, upload.blob, upload.size) for upload in uploads],
    )


def waiting(db: sqlcipher.Connection) -> list[WaitingUpload]:
    """The files to upload, in the order in which they were sent."""
    rows = db.execute("SELECT id, blob, size FROM uploads JOIN outbox USING (id) ORDER BY row").fetchall()
    return [WaitingUpload(bytes(message), bytes(blob), size) for message, blob, size in rows]


def done(db: sqlcipher.Connection, message: bytes) -> None:
    """Lets a message leave, behind all that waits by now: who goes through the outbox has passed it by."""
    columns = "id, recipient, kind, content, time_ms, version"  # nothing is sealed yet
    row = db.execute(f"SELECT {columns} FROM outbox WHERE id = ?", (message,)).fetchone()  # noqa: S608
    if row is not None:
        db.execute("DELETE FROM outbox WHERE id = ?", (message,))
        db.execute(f"INSERT INTO outbox ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608
