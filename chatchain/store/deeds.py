"""What deeds do in a home's database: edits, deletions, reactions and what a conversation is set to.

Deeds come from several devices, in any order and more than once, and every home must end up with the same.
So each rule here is one whose outcome does not depend on the order: of edits the first MAX_EDITS by (time,
id) are kept and the last of them counts; of reactions by one person, timers, names and switches the last by
(time, id); a deletion is final. A deed whose message has not come waits for it. Functions work inside of a
transaction of store/local.py.
"""

# ruff: noqa: S608 - what is put into statements are constants of this file

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

import msgspec
from sqlcipher3 import dbapi2 as sqlcipher

from chatchain.model import (
    DELETE_WINDOW_MS,
    EDIT_WINDOW_MS,
    GRACE_MS,
    MAX_EDITS,
    Deed,
    DeedKind,
    Peer,
    StoredMessage,
    Uid,
)
from chatchain.store import bounds

MAX_EARLY: Final = 1000
"""Deeds of one sender that wait for their messages; the oldest give way."""
EARLY_MS: Final = 30 * 24 * 3600 * 1000
"""How long they wait, as long as a relay keeps messages."""

SCHEMA: Final = """
    ALTER TABLE messages ADD COLUMN about_author INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN about BLOB NOT NULL DEFAULT x'';
    ALTER TABLE messages ADD COLUMN content BLOB NOT NULL DEFAULT x'';
    ALTER TABLE messages ADD COLUMN edited_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN expires_s INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN expires_ms INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX messages_expiring ON messages (expires_ms) WHERE expires_ms > 0;
    CREATE INDEX messages_about ON messages (about) WHERE about != x'';
    CREATE TABLE versions (
        message INTEGER NOT NULL REFERENCES messages (row) ON DELETE CASCADE, time_ms INTEGER NOT NULL,
        id BLOB NOT NULL, text TEXT NOT NULL, PRIMARY KEY (message, time_ms, id)
    ) WITHOUT ROWID;
    CREATE TABLE reactions (
        message INTEGER NOT NULL REFERENCES messages (row) ON DELETE CASCADE, reactor INTEGER NOT NULL,
        emoji TEXT NOT NULL, time_ms INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (message, reactor)
    ) WITHOUT ROWID;
    CREATE TABLE early (
        row INTEGER PRIMARY KEY AUTOINCREMENT, sender INTEGER NOT NULL, id BLOB NOT NULL,
        author INTEGER NOT NULL, target BLOB NOT NULL, deed BLOB NOT NULL, since_ms INTEGER NOT NULL,
        UNIQUE (sender, id)
    );
    CREATE INDEX early_by_target ON early (author, target);
    CREATE INDEX early_by_sender ON early (sender, row);
    CREATE TABLE peers (
        uid INTEGER PRIMARY KEY,
        timer INTEGER NOT NULL DEFAULT 0, timer_ms INTEGER NOT NULL DEFAULT 0,
        timer_id BLOB NOT NULL DEFAULT x'',
        off_the_record INTEGER NOT NULL DEFAULT 0, off_the_record_ms INTEGER NOT NULL DEFAULT 0,
        off_the_record_id BLOB NOT NULL DEFAULT x'',
        profile TEXT NOT NULL DEFAULT '', profile_ms INTEGER NOT NULL DEFAULT 0,
        profile_id BLOB NOT NULL DEFAULT x'',
        profile_sent TEXT NOT NULL DEFAULT ''
    );
    DROP TRIGGER words_in;
    CREATE TRIGGER words_in AFTER INSERT ON messages WHEN new.kind IN ('text', 'file') BEGIN
        INSERT INTO words (rowid, text) VALUES (new.row, new.text);
    END;
    CREATE TRIGGER words_out AFTER DELETE ON messages WHEN old.kind IN ('text', 'file') BEGIN
        INSERT INTO words (words, rowid, text) VALUES ('delete', old.row, old.text);
    END;
    CREATE TRIGGER words_changed AFTER UPDATE OF text ON messages WHEN new.kind IN ('text', 'file') BEGIN
        INSERT INTO words (words, rowid, text) VALUES ('delete', old.row, old.text);
        INSERT INTO words (rowid, text) VALUES (new.row, new.text);
    END;
    INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
"""

_MESSAGE_DEEDS: Final = (DeedKind.EDIT, DeedKind.DELETE, DeedKind.REACTION)
_OVER: Final = "expires_ms > 0 AND expires_ms <= ? AND state IS NOT 'queued'"
_encode = msgspec.msgpack.encode


class Effect(Enum):
    """What a deed came to."""

    DONE = "done"
    """Something is another way now."""
    NOTHING = "nothing"
    """It came too late, a later one counts, or its message is gone."""
    EARLY = "early"
    """Its message has not come yet."""
    FOREIGN = "foreign"
    """It is about a message that somebody else wrote."""


def act(db: sqlcipher.Connection, deed: Deed) -> tuple[Effect, int]:
    """Does a deed once; gives its effect and the row of its message (0: none)."""
    if deed.kind not in _MESSAGE_DEEDS:
        return (Effect.DONE if _set(db, deed) else Effect.NOTHING), 0
    found = db.execute(
        "SELECT row, deleted, kind, kind IN ('text', 'file') AND peer = ?, time_ms, received_ms, arrived_ms "
        "FROM messages WHERE sender = ? AND id = ?",
        (deed.peer, deed.author, deed.target),
    ).fetchone()
    if found is None:
        return _without_message(db, deed), 0
    row, deleted, kind, meant, *times = found
    if deleted or not meant or (kind == "file" and deed.kind is DeedKind.EDIT):
        return Effect.NOTHING, row
    done = {DeedKind.EDIT: _edit, DeedKind.DELETE: _delete, DeedKind.REACTION: _react}[deed.kind](
        db, deed, row, _Times(*times)
    )
    return (Effect.DONE if done else Effect.NOTHING), row


def catch_up(db: sqlcipher.Connection, author: Uid, id: bytes) -> bool:
    """Does what waited for a message that has come now; says whether there was something."""
    waiting = db.execute("SELECT deed FROM early WHERE author = ? AND target = ?", (author, id)).fetchall()
    for (deed,) in waiting:
        act(db, msgspec.msgpack.decode(deed, type=Deed))
    if waiting:
        db.execute("DELETE FROM early WHERE author = ? AND target = ?", (author, id))
    return bool(waiting)


def is_due(db: sqlcipher.Connection, now_ms: int) -> bool:
    """Whether there is something to purge."""
    return _exists(db, f"FROM messages WHERE {_OVER}", (now_ms,)) or _exists(
        db, "FROM early WHERE since_ms < ?", (now_ms - EARLY_MS,)
    )


def purge(db: sqlcipher.Connection, now_ms: int) -> None:
    """Deletes messages whose time is over, with all that hangs on them, and deeds that waited too long.

    An own message that still waits for its tick stays until it has left.
    """
    gone = db.execute(f"SELECT sender, id FROM messages WHERE {_OVER}", (now_ms,)).fetchall()
    for author, message in gone:
        # What comes later about a message that is gone must not wait for it.
        bounds.see(db, author, message, now_ms)
    db.executemany(
        "DELETE FROM messages "
        "WHERE about_author = ? AND about = ? AND kind IN ('edit', 'delete', 'reaction')",
        gone,
    )
    db.execute(f"DELETE FROM messages WHERE {_OVER}", (now_ms,))
    db.execute("DELETE FROM early WHERE since_ms < ?", (now_ms - EARLY_MS,))


def versions(db: sqlcipher.Connection, row: int) -> list[tuple[int, str]]:
    """The texts that a message has had, by time; empty for one that was never edited."""
    found = db.execute(
        "SELECT time_ms, text FROM versions WHERE message = ? ORDER BY time_ms, id", (row,)
    ).fetchall()
    return [(int(time_ms), str(text)) for time_ms, text in found]


def reactions(db: sqlcipher.Connection, rows: list[int]) -> dict[int, list[tuple[Uid, str]]]:
    """The reactions at messages, oldest first."""
    marks = ", ".join("?" for _ in rows)
    found: dict[int, list[tuple[Uid, str]]] = {}
    for message, reactor, emoji in db.execute(
        f"SELECT message, reactor, emoji FROM reactions WHERE message IN ({marks}) AND emoji != '' "
        "ORDER BY message, time_ms, id",
        rows,
    ):
        found.setdefault(message, []).append((Uid(reactor), emoji))
    return found


def adopt(db: sqlcipher.Connection, message: StoredMessage) -> None:
    """Gives a message that another device of one's own handed over its last edit and its reactions.

    Of the reactions no time is known, so whatever comes of the same person later counts instead; an edit that
    comes late finds its place before or after the last one.
    """
    if message.edited_ms:
        db.executemany(
            "INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?)",
            [
                (message.row, time_ms, message.id, message.text)
                for time_ms in (message.time_ms, message.edited_ms)
            ],
        )
    db.executemany(
        "INSERT OR IGNORE INTO reactions VALUES (?, ?, ?, 0, x'')",
        [(message.row, reactor, emoji) for reactor, emoji in message.reactions],
    )
    catch_up(db, message.sender, message.id)


def adopt_peer(db: sqlcipher.Connection, peer: Peer) -> None:
    """Sets a conversation to what it is set to on another device of one's own, unless it is known here."""
    db.execute(
        "INSERT OR IGNORE INTO peers (uid, timer, timer_ms, off_the_record, off_the_record_ms, profile, "
        "profile_ms, profile_sent) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            peer.uid,
            peer.timer_s,
            peer.timer_ms,
            peer.off_the_record,
            peer.off_the_record_ms,
            peer.display_name,
            peer.profile_ms,
            peer.profile_sent,
        ),
    )


def peer(db: sqlcipher.Connection, uid: Uid) -> Peer:
    """What a conversation is set to."""
    found = db.execute(
        "SELECT timer, off_the_record, profile, timer_ms, off_the_record_ms, profile_ms, profile_sent "
        "FROM peers WHERE uid = ?",
        (uid,),
    ).fetchone()
    if found is None:
        return Peer(uid)
    timer, off_the_record, *rest = found
    return Peer(uid, timer, bool(off_the_record), *rest)


# --- deeds about a message ------------------------------------------------------------------------------


def _without_message(db: sqlcipher.Connection, deed: Deed) -> Effect:
    if deed.kind is not DeedKind.REACTION and _exists(
        db,
        "FROM messages WHERE id = ? AND sender != ? AND peer = ? AND kind IN ('text', 'file')",
        (deed.target, deed.sender, deed.peer),
    ):
        return Effect.FOREIGN
    if _exists(db, "FROM seen WHERE sender = ? AND id = ?", (deed.author, deed.target)):
        return Effect.NOTHING  # it was here and has disappeared
    db.execute(
        "INSERT OR IGNORE INTO early (sender, id, author, target, deed, since_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (
            deed.sender,
            deed.id,
            deed.author,
            deed.target,
            _encode(deed),
            deed.arrived_ms or deed.received_ms or deed.time_ms,
        ),
    )
    db.execute(
        "DELETE FROM early WHERE sender = ? AND row <= "
        "(SELECT row FROM early WHERE sender = ? ORDER BY row DESC LIMIT 1 OFFSET ?)",
        (deed.sender, deed.sender, MAX_EARLY),
    )
    return Effect.EARLY


def _exists(db: sqlcipher.Connection, clause: str, values: tuple[object, ...]) -> bool:
    return db.execute(f"SELECT 1 {clause} LIMIT 1", values).fetchone() is not None


class _Times(NamedTuple):
    """When a message was written by its author's clock, and came by the relay's and by this device's."""

    written_ms: int
    received_ms: int
    arrived_ms: int


def _in_time(deed: Deed, times: _Times, window_ms: int) -> bool:
    """Whether a message may still be changed: by its author's clock, not much later by the relay's, and not
    later still by this device's. Where a message is dated before the relay's time of it, the relay's clock is
    measured from the author's: one that was days behind shortens the window, and none lengthens it.
    """
    first_ms = min(times.written_ms, times.received_ms or times.written_ms)
    if deed.received_ms > first_ms + window_ms + GRACE_MS:
        return False  # a message that was dated ahead is not open for longer
    if times.arrived_ms and deed.arrived_ms > times.arrived_ms + window_ms + GRACE_MS + EARLY_MS:
        return False  # a relay that dates back what comes gains no more than what it could keep in a mailbox
    return times.written_ms < deed.time_ms <= times.written_ms + window_ms


def _edit(db: sqlcipher.Connection, deed: Deed, row: int, times: _Times) -> bool:
    if not _in_time(deed, times, EDIT_WINDOW_MS):
        return False
    db.execute(
        "INSERT OR IGNORE INTO versions SELECT row, time_ms, id, text FROM messages WHERE row = ? "
        "AND NOT EXISTS (SELECT 1 FROM versions WHERE message = ?)",
        (row, row),
    )
    db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?)", (row, deed.time_ms, deed.id, deed.value))
    db.execute(
        "DELETE FROM versions WHERE message = ?1 AND (time_ms, id) > (SELECT time_ms, id FROM versions "
        "WHERE message = ?1 ORDER BY time_ms, id LIMIT 1 OFFSET ?2)",
        (row, MAX_EDITS),
    )
    last_ms, last_id, text = db.execute(
        "SELECT time_ms, id, text FROM versions WHERE message = ? ORDER BY time_ms DESC, id DESC LIMIT 1",
        (row,),
    ).fetchone()
    db.execute("UPDATE messages SET text = ?, edited_ms = ? WHERE row = ?", (text, last_ms, row))
    return (last_ms, bytes(last_id)) == deed.place


def _delete(db: sqlcipher.Connection, deed: Deed, row: int, times: _Times) -> bool:
    """Leaves a tombstone: that there was a message, of whom and when, and nothing of what it said."""
    if not _in_time(deed, times, DELETE_WINDOW_MS):
        return False
    db.execute(
        "UPDATE messages SET deleted = 1, text = '', content = x'', file_name = '', edited_ms = 0, "
        "about_author = 0, about = x'' WHERE row = ?",
        (row,),
    )
    db.execute("DELETE FROM versions WHERE message = ?", (row,))
    db.execute("DELETE FROM reactions WHERE message = ?", (row,))
    db.execute(
        "DELETE FROM messages WHERE about_author = ? AND about = ? AND kind IN ('edit', 'reaction')",
        (deed.author, deed.target),
    )
    return True


def _react(db: sqlcipher.Connection, deed: Deed, row: int, _: _Times) -> bool:
    # What was taken away stays as an empty row, so that an older reaction that comes late does not return.
    changed = db.execute(
        "INSERT INTO reactions VALUES (?, ?, ?, ?, ?) ON CONFLICT (message, reactor) DO UPDATE SET "
        "emoji = excluded.emoji, time_ms = excluded.time_ms, id = excluded.id "
        "WHERE (excluded.time_ms, excluded.id) > (time_ms, id)",
        (row, deed.sender, deed.value, deed.time_ms, deed.id),
    ).rowcount
    if changed:
        db.execute(
            "DELETE FROM messages WHERE about_author = ? AND about = ? AND sender = ? AND kind = 'reaction'",
            (deed.author, deed.target, deed.sender),
        )
    return bool(changed)


# --- deeds about a conversation -------------------------------------------------------------------------


def _set(db: sqlcipher.Connection, deed: Deed) -> bool:
    """Sets one thing of a conversation, unless it was set later already; says whether it is another now."""
    name = deed.kind.value
    # A name is its bearer's, whoever the conversation is with.
    uid = deed.sender if deed.kind is DeedKind.PROFILE else deed.peer
    value: object = deed.value if deed.kind is DeedKind.PROFILE else deed.number
    before = _setting(db, name, uid)
    db.execute(
        f"INSERT INTO peers (uid, {name}, {name}_ms, {name}_id) VALUES (?, ?, ?, ?) "
        f"ON CONFLICT (uid) DO UPDATE SET {name} = excluded.{name}, {name}_ms = excluded.{name}_ms, "
        f"{name}_id = excluded.{name}_id "
        f"WHERE (excluded.{name}_ms, excluded.{name}_id) > ({name}_ms, {name}_id)",
        (uid, value, deed.time_ms, deed.id),
    )
    if deed.kind is DeedKind.PROFILE and deed.sender != deed.peer:  # one's own, on its way to a peer
        db.execute(
            "INSERT INTO peers (uid, profile_sent) VALUES (?, ?) "
            "ON CONFLICT (uid) DO UPDATE SET profile_sent = excluded.profile_sent",
            (deed.peer, value),
        )
    return _setting(db, name, uid) != before


def _setting(db: sqlcipher.Connection, name: str, uid: Uid) -> object:
    found = db.execute(f"SELECT {name} FROM peers WHERE uid = ?", (uid,)).fetchone()
    return found[0] if found is not None else ("" if name == DeedKind.PROFILE else 0)
