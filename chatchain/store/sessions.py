"""Sessions of suite 2 and the secrets of prekeys in a home's database: kept and found, never read.

Every function works on a connection inside of its caller's transaction, so that a session changes together
with the messages that it carried.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlcipher3 import dbapi2 as sqlcipher

from chatchain.model import KeptSession, SessionChanges
from chatchain.store import bounds, handshakes

SCHEMA: Final = """
    CREATE TABLE sessions (
        uid INTEGER NOT NULL, device INTEGER NOT NULL, id BLOB NOT NULL, version INTEGER NOT NULL,
        own_version INTEGER NOT NULL, rank INTEGER NOT NULL, begun_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL, retired INTEGER NOT NULL, state BLOB NOT NULL,
        PRIMARY KEY (uid, device, id)
    ) WITHOUT ROWID;
    CREATE TABLE lost_sessions (
        uid INTEGER NOT NULL, device INTEGER NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (uid, device)
    ) WITHOUT ROWID;
    CREATE TABLE prekeys (one INTEGER PRIMARY KEY CHECK (one = 1), secrets BLOB NOT NULL);
    ALTER TABLE outbox ADD COLUMN key BLOB NOT NULL DEFAULT x'';
    ALTER TABLE outbox ADD COLUMN sealed_for BLOB NOT NULL DEFAULT x'90';
"""

UNCHANGED: Final = SessionChanges()


def kept(db: sqlcipher.Connection, uid: int, device: int) -> list[KeptSession]:
    """The sessions with a device."""
    rows = db.execute(
        "SELECT id, version, own_version, rank, begun_ms, used_ms, retired, state FROM sessions "
        "WHERE uid = ? AND device = ?",
        (uid, device),
    ).fetchall()
    return [
        KeptSession(uid, device, bytes(id_), version, own, rank, begun, used, bool(retired), bytes(state))
        for id_, version, own, rank, begun, used, retired, state in rows
    ]


def devices(db: sqlcipher.Connection) -> list[tuple[int, int]]:
    """The devices, as (uid, device), with which there are sessions."""
    return list(db.execute("SELECT DISTINCT uid, device FROM sessions").fetchall())


def lost_ms(db: sqlcipher.Connection, uid: int, device: int) -> int:
    """When the session with a device was last found lost (0: never)."""
    row = db.execute("SELECT at_ms FROM lost_sessions WHERE uid = ? AND device = ?", (uid, device)).fetchone()
    return int(row[0]) if row else 0


def lost_since(db: sqlcipher.Connection, since_ms: int) -> int:
    """With how many devices the session was found lost since then."""
    (count,) = db.execute("SELECT count(*) FROM lost_sessions WHERE at_ms > ?", (since_ms,)).fetchone()
    return int(count)


def prekeys(db: sqlcipher.Connection) -> bytes | None:
    """The secrets of this device's prekeys."""
    row = db.execute("SELECT secrets FROM prekeys").fetchone()
    return bytes(row[0]) if row else None


def change(db: sqlcipher.Connection, changes: SessionChanges) -> None:
    """Stores what has become of sessions and prekeys."""
    db.executemany("DELETE FROM sessions WHERE uid = ? AND device = ? AND id = ?", changes.gone)
    db.executemany(
        "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [msgspec.structs.astuple(one) for one in changes.kept],
    )
    if changes.lost:
        db.executemany("INSERT OR REPLACE INTO lost_sessions VALUES (?, ?, ?)", changes.lost)
        bounds.forget_lost(db, max(at_ms for _, _, at_ms in changes.lost))
    if changes.prekeys is not None:
        db.execute("INSERT OR REPLACE INTO prekeys VALUES (1, ?)", (changes.prekeys,))
        handshakes.remember(db, changes.begun)
        handshakes.forget(db, changes.oldest_prekey)
