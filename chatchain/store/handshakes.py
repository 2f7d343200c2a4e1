"""Handshakes without one-time keys in a home's database: remembered, so that none is answered twice.

A row for each user and signed prekey holds the marks of theirs, one behind the other; what they are is the
crypto room's business. A row without marks says that the memory was given up for others': nothing of that
user's is answered by that prekey any more, so nothing can come again. User 0 stands for everybody.

Functions work inside of a transaction of store/local.py.
"""

# ruff: noqa: S608 - what is put into statements is a constant of this file

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlcipher3 import dbapi2 as sqlcipher

from chatchain.model import HANDSHAKE_MARK_BYTES

SCHEMA: Final = """
    CREATE TABLE handshakes (
        signed_id INTEGER NOT NULL, user INTEGER NOT NULL, marks BLOB, PRIMARY KEY (signed_id, user)
    ) WITHOUT ROWID;
"""

EVERYBODY: Final = 0
_COUNT: Final = f"length(marks) / {HANDSHAKE_MARK_BYTES}"


def known(db: sqlcipher.Connection, signed_id: int, user: int) -> tuple[frozenset[bytes], bool]:
    """The marks of a user's handshakes with a signed prekey, and whether no others are answered."""
    rows = db.execute(
        "SELECT marks FROM handshakes WHERE signed_id = ? AND user IN (?, ?)", (signed_id, user, EVERYBODY)
    ).fetchall()
    size = HANDSHAKE_MARK_BYTES
    marks = (row[start : start + size] for (row,) in rows if row for start in range(0, len(row), size))
    return frozenset(marks), any(row is None for (row,) in rows)


def remember(db: sqlcipher.Connection, begun: Sequence[tuple[int, int, bytes]]) -> None:
    """Adds handshakes, each as (signed prekey, user, mark); an empty mark gives the memory up."""
    db.executemany(
        "INSERT INTO handshakes VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET marks = CAST(marks || excluded.marks AS BLOB)",
        [(signed_id, user, mark or None) for signed_id, user, mark in begun],
    )


def forget(db: sqlcipher.Connection, before: int) -> None:
    """Forgets what was begun with signed prekeys of lower ids: they are gone, and answer nothing."""
    db.execute("DELETE FROM handshakes WHERE signed_id < ?", (before,))


def trim(db: sqlcipher.Connection, most: int) -> None:
    """Gives up memory beyond so many handshakes: of those who have most of it, and nobody's without need.

    A sixteenth more goes at a time, so that a flood is not sorted again and again. Where everybody has one,
    those signed prekeys that have most answer nobody any more who uses up no key.
    """
    over = _size(db) - most
    if over <= 0:
        return
    db.execute(
        "UPDATE handshakes SET marks = NULL WHERE (signed_id, user) IN (SELECT signed_id, user FROM ("
        "SELECT signed_id, user, sum(more) OVER (ORDER BY more DESC, signed_id, user "
        "ROWS UNBOUNDED PRECEDING) - more AS before FROM ("
        f"SELECT signed_id, user, {_COUNT} - 1 AS more FROM handshakes)"
        " WHERE more > 0) WHERE before < ?)",
        (over + most // 16,),
    )
    while _size(db) > most:
        (fullest,) = db.execute(
            "SELECT signed_id FROM handshakes GROUP BY signed_id ORDER BY count(*) DESC LIMIT 1"
        ).fetchone()
        db.execute("DELETE FROM handshakes WHERE signed_id = ?", (fullest,))
        db.execute("INSERT INTO handshakes VALUES (?, ?, NULL)", (fullest, EVERYBODY))


def _size(db: sqlcipher.Connection) -> int:
    (size,) = db.execute(f"SELECT ifnull(sum(ifnull({_COUNT}, 1)), 0) FROM handshakes").fetchone()
    return int(size)
