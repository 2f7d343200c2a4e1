"""How much a home's database keeps of what others can make grow: a number for each, and which goes first.

History with people one knows grows, because they and their reader want it. Everything else has a bound:
what was dealt with (`seen`), notices, what strangers send, deeds that wait for their message, receipts that
nothing can be sent with, sessions that were lost, handshakes that must not come again. Somebody is met, and
no stranger, once this home's user has written to them, added their card or verified them; of whoever was met
nothing but the oldest notices and `seen` goes, and the device versions seen of them (protection against a
rollback) never do.

Functions work inside of a transaction of store/local.py.
"""

# ruff: noqa: S608 - what is put into statements are constants of this file

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlcipher3 import dbapi2 as sqlcipher

from chatchain.store import handshakes

DAY_MS: Final = 24 * 3600 * 1000

SEEN_MS: Final = 60 * DAY_MS
"""How long it is remembered that something was dealt with: twice as long as a relay keeps messages unless its
operator sets otherwise. What an older session opened it never opens again; older messages of suite 1, which
has no sessions, are refused.
"""

LOST_MS: Final = DAY_MS
"""How long it is remembered that a session was lost; what depends on it looks an hour back."""

ALL: Final = 0
"""In the place of a sender: the floor for everybody."""


@dataclass(frozen=True)
class Bounds:
    """The numbers; those of a file's default are in force, smaller ones are for tests."""

    every: int = 256
    """After so many new things it is looked whether something is over its bound."""
    seen_of_one: int = 100_000
    """Of one sender; more than 3,000 a day for a month."""
    seen: int = 1_000_000
    notices_of_one: int = 200
    notices: int = 10_000
    notice_ms: int = 365 * DAY_MS
    strangers: int = 1_000
    """Those heard last stay; one who goes, goes with everything."""
    of_stranger: int = 1_000
    """Messages of one stranger."""
    stranger_bytes: int = 64 * 2**20
    """Of the messages of all strangers together, text and what is said of files."""
    early_bytes: int = 16 * 2**20
    """Of deeds that wait for their message."""
    receipts: int = 1_000
    """That wait to be sent to one user."""
    handshakes: int = 1_000_000
    """Without one-time keys, with all signed prekeys that are kept: 18 to 24 MB."""


DEFAULT: Final = Bounds()

SCHEMA: Final = """
    ALTER TABLE messages ADD COLUMN received_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN arrived_ms INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX messages_notices ON messages (peer, row) WHERE kind = 'notice';
    ALTER TABLE contacts ADD COLUMN met INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE seen RENAME TO seen_before;
    CREATE TABLE seen (
        row INTEGER PRIMARY KEY AUTOINCREMENT, sender INTEGER NOT NULL, id BLOB NOT NULL,
        at_ms INTEGER NOT NULL, UNIQUE (sender, id)
    );
    INSERT INTO seen (sender, id, at_ms)
        SELECT sender, id, 1000 * CAST(strftime('%s', 'now') AS INTEGER) FROM seen_before;
    DROP TABLE seen_before;
    CREATE INDEX seen_by_sender ON seen (sender, at_ms);
    CREATE INDEX seen_by_age ON seen (at_ms);
    CREATE TABLE seen_floors (sender INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL);
    CREATE TABLE trimmed (
        one INTEGER PRIMARY KEY CHECK (one = 1), row INTEGER NOT NULL, at_ms INTEGER NOT NULL
    );
    INSERT INTO trimmed VALUES (1, 0, 0);
"""

_OF_SOMEBODY: Final = (
    ("messages", "peer"),
    ("contacts", "uid"),
    ("sessions", "uid"),
    ("bundles", "uid"),
    ("peers", "uid"),
    ("early", "sender"),
    ("receipts_due", "peer"),
    ("outbox", "recipient"),
)
"""Tables, and the column that says whose a row is."""
_NOTICE: Final = "kind = 'notice'"
_BYTES: Final = "octet_length(text) + octet_length(content)"


def see(db: sqlcipher.Connection, sender: int, id: bytes, at_ms: int) -> bool:
    """Remembers that something was dealt with; says whether it is new."""
    new = db.execute(
        "INSERT OR IGNORE INTO seen (sender, id, at_ms) VALUES (?, ?, ?)", (sender, id, at_ms)
    ).rowcount
    return bool(new)


def floor_ms(db: sqlcipher.Connection, sender: int, now_ms: int) -> int:
    """Up to which time things of a sender may have been dealt with that are not remembered any more."""
    (latest,) = db.execute(
        "SELECT max(at_ms) FROM seen_floors WHERE sender IN (?, ?)", (sender, ALL)
    ).fetchone()
    return max(now_ms - SEEN_MS, latest or 0)


def is_due(db: sqlcipher.Connection, now_ms: int, bounds: Bounds) -> bool:
    """Whether enough has come, or enough time passed, to look again."""
    row, at_ms = db.execute("SELECT row, at_ms FROM trimmed").fetchone()
    (last,) = db.execute("SELECT max(row) FROM seen").fetchone()
    return (last or 0) >= row + bounds.every or not at_ms <= now_ms < at_ms + DAY_MS


def trim(db: sqlcipher.Connection, me: int, now_ms: int, bounds: Bounds) -> bool:
    """Brings everything within its bound; says whether messages went."""
    gone = _trim_notices(db, now_ms, bounds) + _trim_strangers(db, me, bounds)
    _trim_seen(db, now_ms, bounds)
    handshakes.trim(db, bounds.handshakes)
    _newest(db, "early", "1", "octet_length(deed)", bounds.early_bytes)
    _newest_of_each(db, "outbox", "recipient", "kind = 'receipt'", bounds.receipts)
    db.execute(
        "UPDATE trimmed SET row = (SELECT ifnull(max(row), 0) FROM seen), at_ms = ?",
        (now_ms,),
    )
    return gone > 0


def forget_lost(db: sqlcipher.Connection, now_ms: int) -> None:
    """Forgets lost sessions that nothing depends on, and such as a wrong clock dated ahead."""
    db.execute("DELETE FROM lost_sessions WHERE at_ms NOT BETWEEN ? AND ?", (now_ms - LOST_MS, now_ms))


# --- inside ---------------------------------------------------------------------------------------------


def _trim_notices(db: sqlcipher.Connection, now_ms: int, bounds: Bounds) -> int:
    gone: int = db.execute(
        "DELETE FROM messages WHERE row IN (SELECT row FROM (SELECT row, "
        "row_number() OVER (PARTITION BY peer ORDER BY row DESC) AS place, "
        "row_number() OVER (ORDER BY row DESC) AS place_in_all, arrived_ms "
        f"FROM messages INDEXED BY messages_notices WHERE {_NOTICE} AND state IS NOT 'queued') "
        "WHERE place > ? OR place_in_all > ? OR (arrived_ms > 0 AND arrived_ms < ?))",
        (bounds.notices_of_one, bounds.notices, now_ms - bounds.notice_ms),
    ).rowcount
    return gone


def _trim_strangers(db: sqlcipher.Connection, me: int, bounds: Bounds) -> int:
    """Of strangers the ones heard last stay, of each the newest messages, of all the newest bytes; gives how
    many messages went.
    """
    db.execute("CREATE TEMP TABLE IF NOT EXISTS strangers (uid INTEGER PRIMARY KEY, place INTEGER NOT NULL)")
    db.execute("DELETE FROM strangers")
    db.execute(
        "INSERT INTO strangers SELECT uid, row_number() OVER (ORDER BY max("
        "ifnull((SELECT max(arrived_ms) FROM messages WHERE peer = uid), 0), "
        "ifnull((SELECT max(used_ms) FROM sessions WHERE sessions.uid = them.uid), 0)) DESC, uid) "
        "FROM (SELECT uid FROM contacts UNION SELECT uid FROM sessions UNION SELECT uid FROM bundles "
        "UNION SELECT uid FROM peers UNION SELECT sender FROM early) AS them "
        "WHERE uid != ? AND uid NOT IN (SELECT uid FROM contacts WHERE met OR pin IS NOT NULL)",
        (me,),
    )
    gone = 0
    for table, column in _OF_SOMEBODY:
        rows = db.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT uid FROM strangers WHERE place > ?)",
            (bounds.strangers,),
        ).rowcount
        gone += rows if table == "messages" else 0
    of_strangers = f"peer IN (SELECT uid FROM strangers) AND NOT {_NOTICE}"
    gone += _newest_of_each(db, "messages", "peer", of_strangers, bounds.of_stranger)
    return gone + _newest(db, "messages", of_strangers, _BYTES, bounds.stranger_bytes)


def _newest_of_each(db: sqlcipher.Connection, table: str, whose: str, which: str, limit: int) -> int:
    """Deletes the oldest rows beyond so many of each; gives their number."""
    gone: int = db.execute(
        f"DELETE FROM {table} WHERE row IN (SELECT row FROM (SELECT row, row_number() OVER "
        f"(PARTITION BY {whose} ORDER BY row DESC) AS place FROM {table} WHERE {which}) WHERE place > ?)",
        (limit,),
    ).rowcount
    return gone


def _newest(db: sqlcipher.Connection, table: str, which: str, size: str, limit: int) -> int:
    """Deletes the oldest rows beyond so many bytes; gives their number."""
    gone: int = db.execute(
        f"DELETE FROM {table} WHERE row IN (SELECT row FROM (SELECT row, sum({size}) OVER "
        f"(ORDER BY row DESC) AS bytes FROM {table} WHERE {which}) WHERE bytes > ?)",
        (limit,),
    ).rowcount
    return gone


def _trim_seen(db: sqlcipher.Connection, now_ms: int, bounds: Bounds) -> None:
    """Forgets what is older than SEEN_MS, and beyond the numbers the oldest, whose time becomes a floor."""
    db.execute("DELETE FROM seen WHERE at_ms < ?", (now_ms - SEEN_MS,))
    db.execute("DELETE FROM seen_floors WHERE at_ms < ?", (now_ms - SEEN_MS,))
    (count,) = db.execute("SELECT count(*) FROM seen").fetchone()
    if count <= bounds.seen_of_one:
        return
    crowded = db.execute(
        "SELECT sender, count(*) FROM seen GROUP BY sender HAVING count(*) > ?", (bounds.seen_of_one,)
    ).fetchall()
    for sender, count in crowded:
        _forget(db, sender, "WHERE sender = ?", (sender,), count - bounds.seen_of_one)
    (count,) = db.execute("SELECT count(*) FROM seen").fetchone()
    if count > bounds.seen:
        _forget(db, ALL, "", (), count - bounds.seen)


def _forget(db: sqlcipher.Connection, sender: int, which: str, values: tuple[int, ...], number: int) -> None:
    oldest = f"(SELECT row, at_ms FROM seen {which} ORDER BY at_ms, row LIMIT ?)"
    db.execute(
        f"INSERT INTO seen_floors SELECT ?, max(at_ms) FROM {oldest} WHERE true "
        "ON CONFLICT (sender) DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)",
        (sender, *values, number),
    )
    db.execute(f"DELETE FROM seen WHERE row IN (SELECT row FROM {oldest})", (*values, number))
