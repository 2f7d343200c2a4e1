"""A home's database: SQLCipher under a raw key, one file, one transaction for what belongs together.

It keeps and finds; it decides nothing but what a row's uniqueness decides: a (sender, id) comes in once, and
an own message's state only moves forward. A second connection (`logs`) holds the chain's logs, so that a
catch-up in a worker thread and a message on the event loop do not wait in one another's Python objects.

Whatever SQLite raises leaves here as StoreUnavailable.
"""

# ruff: noqa: S608 - what is put into statements are constants of this file

from __future__ import annotations

import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from sqlcipher3 import dbapi2 as sqlcipher

from chatchain.errors import StoreUnavailable
from chatchain.model import (
    Address,
    Arrival,
    BlockRef,
    Contact,
    Deed,
    DeedKind,
    Direction,
    Envelope,
    KeptSession,
    KeyBundle,
    LogRow,
    MessageState,
    Outgoing,
    OwnKeys,
    Peer,
    Pin,
    Progress,
    SessionChanges,
    StoredMessage,
    Uid,
    WaitingUpload,
)
from chatchain.store import bounds, deeds, handshakes, search, sessions, streams, uploads
from chatchain.store.bounds import Bounds
from chatchain.store.deeds import Effect
from chatchain.store.sessions import UNCHANGED

KEY_BYTES = 32
BUSY_MS = 10_000
"""How long one connection waits for the other's transaction."""
MOMENT_MS = 20
"""How long the emptying of the journal waits for it: there will be another occasion."""
KEPT_BLOCKS = 256
"""How far back a reorg can be walked; older blocks need no row of their own."""

SCHEMA: tuple[str, ...] = (
    """
    CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE own_keys (version INTEGER PRIMARY KEY, secret BLOB NOT NULL, retired_ms INTEGER NOT NULL);
    CREATE TABLE contacts (
        uid INTEGER PRIMARY KEY, username TEXT NOT NULL, pin BLOB, floor INTEGER NOT NULL,
        confirmed INTEGER NOT NULL, listed INTEGER NOT NULL
    );
    CREATE TABLE bundles (
        uid INTEGER NOT NULL, device INTEGER NOT NULL, bundle BLOB NOT NULL, PRIMARY KEY (uid, device)
    ) WITHOUT ROWID;
    CREATE TABLE messages (
        row INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, sender INTEGER NOT NULL,
        device INTEGER NOT NULL, peer INTEGER NOT NULL, direction TEXT NOT NULL, kind TEXT NOT NULL,
        text TEXT NOT NULL, code TEXT NOT NULL, time_ms INTEGER NOT NULL, state TEXT,
        shown INTEGER NOT NULL, read INTEGER NOT NULL, UNIQUE (sender, id)
    );
    CREATE INDEX messages_by_peer ON messages (peer, row);
    CREATE INDEX messages_by_id ON messages (id);
    CREATE INDEX messages_unshown ON messages (row) WHERE shown = 0;
    CREATE INDEX messages_unread ON messages (peer, row) WHERE read = 0;
    CREATE VIRTUAL TABLE words USING fts5 (text, content='messages', content_rowid='row', tokenize='trigram');
    CREATE TRIGGER words_in AFTER INSERT ON messages WHEN new.kind = 'text' BEGIN
        INSERT INTO words (rowid, text) VALUES (new.row, new.text);
    END;
    CREATE TABLE outbox (
        row INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, recipient INTEGER NOT NULL,
        kind TEXT NOT NULL, content BLOB NOT NULL, time_ms INTEGER NOT NULL, envelope BLOB,
        version INTEGER NOT NULL
    );
    CREATE TABLE seen (sender INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (sender, id)) WITHOUT ROWID;
    CREATE TABLE receipts_due (
        peer INTEGER NOT NULL, id BLOB NOT NULL, state TEXT NOT NULL, PRIMARY KEY (peer, id)
    ) WITHOUT ROWID;
    CREATE TABLE blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, parent BLOB NOT NULL);
    CREATE TABLE logs (
        block INTEGER NOT NULL, idx INTEGER NOT NULL, block_hash BLOB NOT NULL, time INTEGER NOT NULL,
        source INTEGER NOT NULL, topics BLOB NOT NULL, data BLOB NOT NULL, subject INTEGER NOT NULL,
        label TEXT NOT NULL, address BLOB NOT NULL,
        PRIMARY KEY (block, idx, block_hash)
    ) WITHOUT ROWID;
    CREATE INDEX logs_by_subject ON logs (subject) WHERE subject != 0;
    CREATE INDEX logs_by_label ON logs (label) WHERE label != '';
    CREATE INDEX logs_by_address ON logs (address) WHERE address != x'';
    """,
    deeds.SCHEMA,
    sessions.SCHEMA,
    uploads.SCHEMA,
    bounds.SCHEMA,
    search.SCHEMA,
    streams.SCHEMA,
    handshakes.SCHEMA,
)
"""One script a version; `user_version` counts those applied. A script that was released is never edited."""

FORWARD: dict[MessageState, tuple[MessageState, ...]] = {
    MessageState.QUEUED: (),
    MessageState.SENT: (MessageState.QUEUED,),
    MessageState.DELIVERED: (MessageState.QUEUED, MessageState.SENT, MessageState.DROPPED),
    MessageState.READ: (
        MessageState.QUEUED,
        MessageState.SENT,
        MessageState.DELIVERED,
        MessageState.DROPPED,
    ),
    MessageState.DROPPED: (MessageState.QUEUED,),
}
"""From which states each one may be entered: never backwards. That a message was dropped is
the relay's word, which the recipient's own overrules.
"""

_encode = msgspec.msgpack.encode
_decode_sealed_for = msgspec.msgpack.Decoder(tuple[tuple[int, int, int], ...]).decode


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what SQLite raises into a sentence."""
    try:
        yield
    except sqlcipher.Error as failure:
        text = str(failure)
        if "disk I/O error" in text:  # of a full disk too, where the journal's shared memory is to grow
            raise StoreUnavailable(
                f"The disk refused the database of this home ({text}).",
                "Is it full? Free some space and try again; nothing was lost. If it is not, it may be "
                "failing: save the home elsewhere.",
            ) from failure
        if "disk is full" in text:
            raise StoreUnavailable(
                "The disk is full; nothing was stored.", "Free some space and try again."
            ) from failure
        if "locked" in text or "busy" in text:
            raise StoreUnavailable(
                "Another process holds the database of this home.", "Let it finish or end it, then try again."
            ) from failure
        if "unable to open" in text or "readonly" in text:
            raise StoreUnavailable(
                f"The database of this home cannot be opened ({text}).",
                "Check the folder's owner and rights, and that its disk can be written to: reading needs "
                "that too.",
            ) from failure
        raise StoreUnavailable(
            f"The database of this home is damaged or belongs to another vault ({text}).",
            "Restore the home from a backup, or register again with the recovery phrase in a new home.",
        ) from failure


def _connect(path: Path, key: bytes) -> sqlcipher.Connection:
    """One connection with the key set and the pragmas that durability needs."""
    connection = sqlcipher.connect(str(path), isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlcipher.Connection) -> Iterator[sqlcipher.Connection]:
    """BEGIN IMMEDIATE … COMMIT; anything raised inside rolls back."""
    with _translated():
        connection.execute("BEGIN IMMEDIATE")
    try:
        with _translated():
            yield connection
            connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlcipher.Error):
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlcipher.Connection) -> None:
    """Applies the scripts that this file has not seen, each in a transaction with its version."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(SCHEMA):
        raise StoreUnavailable(
            "The database of this home was written by a newer chatchain.", "Update chatchain."
        )
    search.prepare(connection)
    for number in range(version, len(SCHEMA)):
        connection.executescript(
            f"BEGIN EXCLUSIVE;\n{SCHEMA[number]}\nPRAGMA user_version = {number + 1};\nCOMMIT;"
        )


class LocalStore:
    """The database of one home."""

    def __init__(self, path: Path, key: bytes, limits: Bounds = bounds.DEFAULT) -> None:
        """Opens the file or makes it (0600); a wrong key is StoreUnavailable."""
        if len(key) != KEY_BYTES:
            raise ValueError("a raw SQLCipher key has 32 bytes")
        self._path, self._key, self._bounds = path, key, limits
        with _translated():
            self._db = _connect(path, key)
            try:
                _migrate(self._db)
            except BaseException:
                self._db.close()
                raise
        if stat.S_IMODE(path.stat().st_mode) != 0o600:
            path.chmod(0o600)
        self._logs: LocalLogs | None = None
        self._clean_at = -1  # a program that was killed left its journal to this one

    def close(self) -> None:
        """Closes both connections; may be called twice."""
        if self._logs is not None:
            self._logs.close()
        self._db.close()

    @property
    def logs(self) -> LocalLogs:
        """The chain's logs, on a connection of their own."""
        if self._logs is None:
            with _translated():
                self._logs = LocalLogs(_connect(self._path, self._key))
        return self._logs

    @contextmanager
    def _soon(self) -> Iterator[None]:
        """For what need not be on the disk before anybody is told: the next durable commit takes it along.

        It survives the death of the process. A power cut may undo it, and then it is done again: a message
        that was ticked is submitted and ticked once more, one that was shown is shown once more.
        """
        with _translated():
            self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            with _translated():
                self._db.execute("PRAGMA synchronous = FULL")

    # --- settings and own keys ------------------------------------------------------------------------------

    def setting(self, key: str) -> bytes | None:
        """A stored value."""
        with _translated():
            row = self._db.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else None

    def set_setting(self, key: str, value: bytes | None) -> None:
        """Stores a value; None removes it."""
        with _transaction(self._db) as db:
            if value is None:
                db.execute("DELETE FROM settings WHERE key = ?", (key,))
            else:
                db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, value))

    def own_keys(self) -> list[OwnKeys]:
        """Every version of this device's secrets that is kept, newest first."""
        with _translated():
            rows = self._db.execute(
                "SELECT version, secret, retired_ms FROM own_keys ORDER BY version DESC"
            ).fetchall()
        return [OwnKeys(version, bytes(secret), retired) for version, secret, retired in rows]

    def put_own_keys(self, keys: OwnKeys) -> None:
        """Stores one version of the secrets (replacing the same version)."""
        with _transaction(self._db) as db:
            db.execute(
                "INSERT OR REPLACE INTO own_keys VALUES (?, ?, ?)",
                (keys.version, keys.secret, keys.retired_ms),
            )

    def retire_own_keys(self, in_force: int, now_ms: int, keep_ms: int) -> None:
        """Marks versions before `in_force` as superseded and forgets those superseded more than `keep_ms`
        ago.
        """
        with _transaction(self._db) as db:
            db.execute(
                "UPDATE own_keys SET retired_ms = ? WHERE version < ? AND retired_ms = 0", (now_ms, in_force)
            )
            db.execute("DELETE FROM own_keys WHERE retired_ms != 0 AND retired_ms < ?", (now_ms - keep_ms,))

    # --- contacts and their key bundles ---------------------------------------------------------------------

    def contact(self, uid: Uid) -> Contact | None:
        """A contact."""
        with _translated():
            row = self._db.execute("SELECT * FROM contacts WHERE uid = ?", (uid,)).fetchone()
        return _contact(row) if row else None

    def contacts(self) -> list[Contact]:
        """Every listed contact by name."""
        with _translated():
            rows = self._db.execute("SELECT * FROM contacts WHERE listed ORDER BY username").fetchall()
        return [_contact(row) for row in rows]

    def put_contact(self, contact: Contact) -> None:
        """Stores a contact. `floor` and `confirmed` never sink."""
        with _transaction(self._db) as db:
            _put_contact(db, contact)

    def bundles(self, uid: Uid) -> list[KeyBundle]:
        """The key bundles kept for a user's devices."""
        with _translated():
            rows = self._db.execute("SELECT bundle FROM bundles WHERE uid = ?", (uid,)).fetchall()
        return [msgspec.msgpack.decode(row[0], type=KeyBundle) for row in rows]

    def put_bundles(self, bundles: Iterable[KeyBundle]) -> None:
        """Keeps bundles (already checked), one a device."""
        with _transaction(self._db) as db:
            db.executemany(
                "INSERT OR REPLACE INTO bundles VALUES (?, ?, ?)",
                [(bundle.uid, bundle.device, _encode(bundle)) for bundle in bundles],
            )

    # --- sessions -------------------------------------------------------------------------------------------

    def sessions(self, uid: int, device: int) -> list[KeptSession]:
        """The sessions with a device."""
        with _translated():
            return sessions.kept(self._db, uid, device)

    def session_devices(self) -> list[tuple[int, int]]:
        """The devices, as (uid, device), with which there are sessions."""
        with _translated():
            return sessions.devices(self._db)

    def lost_ms(self, uid: int, device: int) -> int:
        """When the session with a device was last found lost (0: never)."""
        with _translated():
            return sessions.lost_ms(self._db, uid, device)

    def lost_since(self, since_ms: int) -> int:
        """With how many devices the session was found lost since then."""
        with _translated():
            return sessions.lost_since(self._db, since_ms)

    def prekeys(self) -> bytes | None:
        """The secrets of this device's prekeys."""
        with _translated():
            return sessions.prekeys(self._db)

    def handshakes(self, signed_id: int, user: int) -> tuple[frozenset[bytes], bool]:
        """The marks of a user's handshakes that a signed prekey answered without one-time keys, as far as
        they are remembered; and whether no others of theirs are to be answered.
        """
        with _translated():
            return handshakes.known(self._db, signed_id, user)

    def change_sessions(self, changes: SessionChanges) -> None:
        """Stores changes of sessions and prekeys that belong to no message."""
        with _transaction(self._db) as db:
            sessions.change(db, changes)

    # --- outbox ---------------------------------------------------------------------------------------------

    def queue(
        self,
        messages: Sequence[StoredMessage],
        outgoing: Sequence[Outgoing],
        changes: SessionChanges = UNCHANGED,
        *,
        done: Sequence[Deed] = (),
        waiting: Sequence[WaitingUpload] = (),
    ) -> None:
        """Stores own messages and deeds, what is to be sent for them and the sessions after it, in one
        transaction; what waits for a file is not pending before `uploaded`.
        """
        with _transaction(self._db) as db:
            sessions.change(db, changes)
            for deed in done:
                deeds.act(db, deed)
            _insert_messages(db, messages)
            _insert_outgoing(db, outgoing)
            uploads.add(db, waiting)
        if any(deed.kind is DeedKind.DELETE for deed in done):
            self._forget_journal()

    def uploads(self) -> list[WaitingUpload]:
        """The files to upload, in the order in which they were sent."""
        with _translated():
            return uploads.waiting(self._db)

    def uploaded(self, message: bytes) -> None:
        """Says that a message's file is at the relay: it joins the end of the outbox."""
        with _transaction(self._db) as db:
            uploads.done(db, message)

    def put_path(self, sender: Uid, id: bytes, path: str) -> None:
        """Notes where the file of a message is."""
        with _transaction(self._db) as db:
            db.execute("UPDATE messages SET path = ? WHERE sender = ? AND id = ?", (path, sender, id))

    def has_file(self, sender: int, id: bytes) -> bool:
        """Whether there is a message with a file, and it was not deleted."""
        with _translated():
            found = self._db.execute(
                "SELECT 1 FROM messages WHERE sender = ? AND id = ? AND content != x''", (sender, id)
            ).fetchone()
        return found is not None

    def queue_receipts(self, peer: Uid, outgoing: Outgoing, ids: Sequence[bytes]) -> None:
        """Turns receipts that are due into one thing to send."""
        with _transaction(self._db) as db:
            db.executemany("DELETE FROM receipts_due WHERE peer = ? AND id = ?", [(peer, one) for one in ids])
            _insert_outgoing(db, [outgoing])

    def reseal(self, sealed: Sequence[Outgoing], changes: SessionChanges = UNCHANGED) -> None:
        """Stores new envelopes of things that are waiting, and the sessions after it, in one transaction."""
        with _transaction(self._db) as db:
            sessions.change(db, changes)
            db.executemany(
                "UPDATE outbox SET envelope = ?, version = ?, key = ?, sealed_for = ? WHERE id = ?",
                [
                    (
                        _encode(item.envelope) if item.envelope else None,
                        item.version,
                        item.key,
                        _encode(item.sealed_for),
                        item.id,
                    )
                    for item in sealed
                ],
            )

    def pending(self, *, after: int = 0, limit: int = 256) -> list[Outgoing]:
        """What waits, in the order in which it was queued, from behind row `after`."""
        with _translated():
            rows = self._db.execute(
                "SELECT row, id, recipient, kind, content, time_ms, envelope, version, key, sealed_for "
                f"FROM outbox WHERE row > ? AND {uploads.HELD} ORDER BY row LIMIT ?",
                (after, limit),
            ).fetchall()
        return [
            Outgoing(
                id=bytes(message),
                recipient=Uid(recipient),
                kind=kind,
                content=bytes(content),
                time_ms=time_ms,
                envelope=msgspec.msgpack.decode(envelope, type=Envelope) if envelope is not None else None,
                version=version,
                row=row,
                key=bytes(key),
                sealed_for=_decode_sealed_for(sealed_for),
            )
            for row, message, recipient, kind, content, time_ms, envelope, version, key, sealed_for in rows
        ]

    def settle(self, ids: Sequence[bytes], state: MessageState, code: str = "") -> None:
        """Takes things off the outbox (ticked: SENT, refused for good: DROPPED) and moves their messages'
        states.
        """
        with self._soon(), _transaction(self._db) as db:
            db.executemany("DELETE FROM outbox WHERE id = ?", [(one,) for one in ids])
            _advance(db, None, [(one, state) for one in ids])
            if code:
                db.executemany(
                    "UPDATE messages SET code = ? WHERE id = ? AND direction = 'out'",
                    [(code, one) for one in ids],
                )

    def count_queued(self) -> int:
        """How many own messages wait for their tick."""
        with _translated():
            (count,) = self._db.execute(
                "SELECT count(*) FROM outbox WHERE kind NOT IN ('receipt', 'profile')"
            ).fetchone()
        return int(count)

    # --- inbox ----------------------------------------------------------------------------------------------

    def has_seen(self, sender: Uid, id: bytes) -> bool:
        """Whether something of this sender under this id was taken in, as far as that is remembered."""
        with _translated():
            found = self._db.execute(
                "SELECT 1 FROM seen WHERE sender = ?1 AND id = ?2 "
                "UNION ALL SELECT 1 FROM messages WHERE sender = ?1 AND id = ?2",
                (sender, id),
            )
            return found.fetchone() is not None

    def forgotten_ms(self, sender: Uid, now_ms: int) -> int:
        """Up to which time things of a sender may have been taken in that are not remembered any more."""
        with _translated():
            return bounds.floor_ms(self._db, sender, now_ms)

    def trim(self, me: Uid, now_ms: int) -> bool:
        """Forgets what is over its bound, now and then; says whether messages went."""
        with _translated():
            if not bounds.is_due(self._db, now_ms, self._bounds):
                return False
        with _transaction(self._db) as db:
            return bounds.trim(db, me, now_ms, self._bounds)

    def progress(self, relay: bytes) -> Progress:
        """How far this home has come at a relay."""
        with _translated():
            return streams.known(self._db, relay)

    def take_in(
        self,
        arrivals: Sequence[Arrival],
        changes: SessionChanges = UNCHANGED,
        progress: Progress | None = None,
    ) -> list[StoredMessage]:
        """Stores what came, with the sessions after it and how far it brings this home, in one transaction
        and gives the messages that were not there before, with their rows.
        """
        fresh: list[StoredMessage] = []
        changed: set[int] = set()
        with _transaction(self._db) as db:
            sessions.change(db, changes)
            if progress is not None:
                streams.advance(db, progress)
            for arrival in arrivals:
                if not bounds.see(db, arrival.sender, arrival.id, arrival.at_ms):
                    continue
                _advance(db, arrival.sender, arrival.states)
                db.executemany(
                    "UPDATE messages SET state = 'dropped', code = 'expired' "
                    "WHERE id = ? AND peer = ? AND direction = 'out' AND state = 'sent'",
                    [(one, arrival.sender) for one in arrival.dropped],
                )
                if arrival.deed is not None:
                    told, row = _done(db, arrival, arrival.deed)
                    fresh += _insert_messages(db, told)
                    changed.add(row)
                elif arrival.message is not None:
                    for message in _insert_messages(db, [arrival.message]):
                        fresh.append(message)
                        if deeds.catch_up(db, message.sender, message.id):
                            changed.add(message.row)
                if arrival.receipt_due:
                    db.execute(
                        "INSERT OR IGNORE INTO receipts_due VALUES (?, ?, ?)",
                        (arrival.sender, arrival.id, MessageState.DELIVERED.value),
                    )
                if arrival.answer is not None:
                    _insert_outgoing(db, [arrival.answer])
            again = {message.row: message for message in _by_rows(db, changed)}
        if any(arrival.deed is not None and arrival.deed.kind is DeedKind.DELETE for arrival in arrivals):
            self._forget_journal()
        return [again.get(message.row, message) for message in fresh]

    def receipts_due(self, limit: int = 256) -> dict[tuple[Uid, MessageState], list[bytes]]:
        """Receipts that are owed, by peer and kind."""
        with _translated():
            rows = self._db.execute("SELECT peer, state, id FROM receipts_due LIMIT ?", (limit,)).fetchall()
        due: dict[tuple[Uid, MessageState], list[bytes]] = {}
        for peer, state, message in rows:
            due.setdefault((Uid(peer), MessageState(state)), []).append(bytes(message))
        return due

    def unshown(self, limit: int = 256) -> list[StoredMessage]:
        """Messages that were stored and never handed to a person, oldest first."""
        with _translated():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE shown = 0 ORDER BY row LIMIT ?",
                (limit,),
            ).fetchall()
        return self._whole(rows)

    def mark_shown(self, row: int, now_ms: int) -> None:
        """Notes that a message was handed to a person: what disappears after reading begins to count, what
        is told only once goes. Not fsynced: after a power cut it may be shown again, never lost.
        """
        with self._soon(), _translated():
            kept = self._db.execute(
                f"UPDATE messages SET shown = 1, {_COUNTING} WHERE row = ? AND {_KEPT}", (now_ms, row)
            ).rowcount
            if not kept:
                self._db.execute("DELETE FROM messages WHERE row = ?", (row,))

    def mark_read(self, peer: Uid, up_to: int, now_ms: int, *, tell: bool = True) -> int:
        """Marks a peer's messages up to a row as read, owes the receipts for them if it is to be told, and
        gives their number.
        """
        with _transaction(self._db) as db:
            if tell:
                db.execute(
                    "INSERT OR REPLACE INTO receipts_due SELECT peer, id, ? FROM messages WHERE peer = ? "
                    "AND row <= ? AND read = 0 AND kind IN ('text', 'file') AND direction = 'in'",
                    (MessageState.READ.value, peer, up_to),
                )
            db.execute(
                f"DELETE FROM messages WHERE peer = ? AND row <= ? AND read = 0 AND NOT {_KEPT}",
                (peer, up_to),
            )
            return int(
                db.execute(
                    f"UPDATE messages SET read = 1, shown = 1, {_COUNTING} "
                    "WHERE peer = ? AND row <= ? AND read = 0",
                    (now_ms, peer, up_to),
                ).rowcount
            )

    def count_unread(self) -> int:
        """How many messages that came in nobody was shown yet, by `receive` or by looking back."""
        with _translated():
            (count,) = self._db.execute(
                f"SELECT count(*) FROM messages WHERE shown = 0 AND {_KEPT}"
            ).fetchone()
        return int(count)

    # --- reading back ---------------------------------------------------------------------------------------

    def message(self, id: bytes) -> StoredMessage | None:
        """A message by its id."""
        found = self.messages(id, id)
        return found[0] if found else None

    def messages(self, first: bytes, last: bytes, *, limit: int = 8) -> list[StoredMessage]:
        """The messages whose ids lie between two, both included."""
        with _translated():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE id BETWEEN ? AND ? AND {_KEPT} ORDER BY row LIMIT ?",
                (first, last, limit),
            ).fetchall()
        return self._whole(rows)

    def quoted(self, author: Uid, id: bytes) -> StoredMessage | None:
        """The message that another one is about."""
        with _translated():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE sender = ? AND id = ? AND {_KEPT}", (author, id)
            ).fetchall()
        return self._whole(rows)[0] if rows else None

    def versions(self, row: int) -> list[tuple[int, str]]:
        """The texts that a message has had, by time; empty for one that was never edited."""
        with _translated():
            return deeds.versions(self._db, row)

    def history(self, peer: Uid, *, limit: int, before: int | None = None) -> list[StoredMessage]:
        """The last messages with a peer before a row, oldest first."""
        with _translated():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE peer = ? AND row < ? AND {_KEPT} "
                "ORDER BY row DESC LIMIT ?",
                (peer, before if before is not None else 2**62, limit),
            ).fetchall()
        return self._whole(rows[::-1])

    def newest(self, *, limit: int, before: int | None = None) -> list[StoredMessage]:
        """The last messages of all conversations before a row, newest first."""
        with _translated():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE row < ? AND {_KEPT} ORDER BY row DESC LIMIT ?",
                (before if before is not None else 2**62, limit),
            ).fetchall()
        return self._whole(rows)

    def adopt(
        self, contacts: Sequence[Contact], peers: Sequence[Peer], messages: Sequence[StoredMessage]
    ) -> int:
        """Stores what another device of one's own handed over, as read; gives how many messages are new."""
        with _transaction(self._db) as db:
            for contact in contacts:
                _put_contact(db, contact)
            for peer in peers:
                deeds.adopt_peer(db, peer)
            fresh = _insert_messages(db, messages)
            for message in fresh:
                db.execute("UPDATE messages SET shown = 1, read = 1 WHERE row = ?", (message.row,))
                bounds.see(db, message.sender, message.id, max(message.arrived_ms, message.time_ms))
                deeds.adopt(db, message)
        return len(fresh)

    def search(self, words: Sequence[str], *, limit: int, peer: Uid | None = None) -> list[StoredMessage]:
        """Messages that contain every word in their text or their file's name, newest first; with `peer`
        those with one user.
        """
        clause, values = search.condition(words)
        if peer is not None:
            clause, values = f"{clause} AND peer = ?", [*values, peer]
        with _translated():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE {clause} ORDER BY row DESC LIMIT ?", (*values, limit)
            ).fetchall()
        return self._whole(rows)

    def _whole(self, rows: Sequence[tuple[object, ...]]) -> list[StoredMessage]:
        """Messages with the reactions at them."""
        with _translated():
            return _with_reactions(self._db, [_message(row) for row in rows])

    # --- conversations --------------------------------------------------------------------------------------

    def peer(self, uid: Uid) -> Peer:
        """What the conversation with a user is set to."""
        with _translated():
            return deeds.peer(self._db, uid)

    def purge(self, now_ms: int) -> bool:
        """Deletes what has disappeared by now, from the file and from its journal; says whether anything."""
        with _translated():
            if not deeds.is_due(self._db, now_ms):
                return False
        with _transaction(self._db) as db:
            deeds.purge(db, now_ms)
        self._forget_journal()
        return True

    def forget_states(self) -> None:
        """Empties the journal if something was written since it was last empty.

        What was overwritten, such as a session's earlier state, lies there until then. While the other
        connection is at work it waits for the next time.
        """
        changes = self._db.total_changes
        if changes == self._clean_at:
            return
        with _translated():
            self._db.execute(f"PRAGMA busy_timeout = {MOMENT_MS}")
        try:
            if self._forget_journal():
                self._clean_at = changes
        finally:
            with _translated():
                self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _forget_journal(self) -> bool:
        """Writes the journal back and empties it, so that it does not keep what was deleted; says whether."""
        with suppress(sqlcipher.Error):  # another connection that reads keeps it from happening, not for ever
            ((busy, *_),) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return not busy
        return False

    def next_expiry(self) -> int | None:
        """When the next message disappears."""
        with _translated():
            (when,) = self._db.execute(
                "SELECT min(expires_ms) FROM messages WHERE expires_ms > 0 AND state IS NOT 'queued'"
            ).fetchone()
        return int(when) if when is not None else None


_COLUMNS = (
    "id, sender, device, peer, direction, kind, text, time_ms, code, state, row, "
    "about_author, about, content, edited_ms, deleted, expires_s, expires_ms, path, received_ms, arrived_ms, "
    "file_name"
)
_KEPT = "kind NOT IN ('edit', 'delete', 'reaction')"
_COUNTING = (
    "expires_ms = CASE WHEN expires_s > 0 AND expires_ms = 0 THEN ? + 1000 * expires_s ELSE expires_ms END"
)


def _by_rows(db: sqlcipher.Connection, rows: Iterable[int]) -> list[StoredMessage]:
    found = [
        _message(found)
        for row in rows
        for found in db.execute(f"SELECT {_COLUMNS} FROM messages WHERE row = ?", (row,))
    ]
    return _with_reactions(db, found)


def _with_reactions(db: sqlcipher.Connection, messages: list[StoredMessage]) -> list[StoredMessage]:
    found = deeds.reactions(db, [message.row for message in messages]) if messages else {}
    return [
        msgspec.structs.replace(message, reactions=tuple(found[message.row]))
        if message.row in found
        else message
        for message in messages
    ]


def _done(db: sqlcipher.Connection, arrival: Arrival, deed: Deed) -> tuple[list[StoredMessage], int]:
    """Does a deed that came in; gives what a person is to be told of it, and the row of its message."""
    effect, row = deeds.act(db, deed)
    if effect is Effect.FOREIGN:
        return [arrival.refusal] if arrival.refusal is not None else [], row
    # Whoever has not seen the message yet sees it as it is now, and needs not be told of what was before.
    unseen = row and db.execute("SELECT 1 FROM messages WHERE row = ? AND shown = 0", (row,)).fetchone()
    if effect is not Effect.DONE or arrival.message is None or unseen:
        return [], row
    return [arrival.message], row


def _message(row: tuple[object, ...]) -> StoredMessage:
    columns = dict(zip(_COLUMNS.split(", "), row, strict=True))
    columns["deleted"] = bool(columns["deleted"])
    return msgspec.convert(columns, StoredMessage, builtin_types=(bytes,))


def _contact(row: tuple[object, ...]) -> Contact:
    uid, username, pin, floor, confirmed, listed, met = row
    return msgspec.convert(
        {
            "uid": uid,
            "username": username,
            "pin": msgspec.msgpack.decode(pin, type=Pin) if isinstance(pin, bytes) else None,
            "floor": floor,
            "confirmed": confirmed,
            "listed": bool(listed),
            "met": bool(met),
        },
        Contact,
        from_attributes=True,
    )


def _put_contact(db: sqlcipher.Connection, contact: Contact) -> None:
    pin = _encode(contact.pin) if contact.pin is not None else None
    db.execute(
        "INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uid) DO UPDATE SET "
        "username = excluded.username, pin = excluded.pin, floor = max(floor, excluded.floor), "
        "confirmed = max(confirmed, excluded.confirmed), listed = max(listed, excluded.listed), "
        "met = max(met, excluded.met)",
        (contact.uid, contact.username, pin, contact.floor, contact.confirmed, contact.listed, contact.met),
    )


def _insert_messages(db: sqlcipher.Connection, messages: Iterable[StoredMessage]) -> list[StoredMessage]:
    """Inserts messages and gives those that are new with their rows; what comes in is unshown and unread."""
    fresh: list[StoredMessage] = []
    for message in messages:
        incoming = message.direction is Direction.IN
        cursor = db.execute(
            "INSERT OR IGNORE INTO messages "
            "(id, sender, device, peer, direction, kind, text, code, time_ms, state, shown, read, "
            "about_author, about, content, expires_s, expires_ms, edited_ms, deleted, received_ms, "
            "arrived_ms, file_name) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                message.id,
                message.sender,
                message.device,
                message.peer,
                message.direction.value,
                message.kind,
                message.text,
                message.code,
                message.time_ms,
                message.state.value if message.state is not None else None,
                not incoming,
                not incoming,
                message.about_author,
                message.about,
                message.content,
                message.expires_s,
                message.expires_ms,
                message.edited_ms,
                message.deleted,
                message.received_ms,
                message.arrived_ms,
                message.file_name,
            ),
        )
        if cursor.rowcount:
            fresh.append(msgspec.structs.replace(message, row=cursor.lastrowid))
    return fresh


def _insert_outgoing(db: sqlcipher.Connection, outgoing: Sequence[Outgoing]) -> None:
    db.executemany(
        "INSERT INTO outbox (id, recipient, kind, content, time_ms, envelope, version, key, sealed_for) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                item.id,
                item.recipient,
                item.kind,
                item.content,
                item.time_ms,
                _encode(item.envelope) if item.envelope is not None else None,
                item.version,
                item.key,
                _encode(item.sealed_for),
            )
            for item in outgoing
        ],
    )


def _advance(
    db: sqlcipher.Connection, peer: Uid | None, states: Iterable[tuple[bytes, MessageState]]
) -> None:
    """Moves own messages forward; with `peer` only messages to that peer (a receipt speaks for its sender
    alone).
    """
    for message, state in states:
        before = FORWARD[state]
        if not before:
            continue
        marks = ", ".join("?" for _ in before)
        db.execute(
            "UPDATE messages SET state = ?, code = CASE code WHEN 'expired' THEN '' ELSE code END "
            f"WHERE id = ? AND direction = 'out' AND (? IS NULL OR peer = ?) AND state IN ({marks})",
            (state.value, message, peer, peer, *(earlier.value for earlier in before)),
        )


class LocalLogs:
    """The chain's logs in the home's database; used from worker threads, one call at a time."""

    def __init__(self, connection: sqlcipher.Connection) -> None:
        self._db = connection
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes the connection."""
        with self._lock:
            self._db.close()

    def head(self) -> BlockRef | None:
        """The last block taken in."""
        blocks = self.recent(1)
        return blocks[0] if blocks else None

    def recent(self, limit: int) -> list[BlockRef]:
        """The newest blocks kept, newest first."""
        with self._lock, _translated():
            rows = self._db.execute(
                "SELECT number, hash, parent FROM blocks ORDER BY number DESC LIMIT ?", (limit,)
            ).fetchall()
        return [BlockRef(number, bytes(own), bytes(parent)) for number, own, parent in rows]

    def take(self, rows: Sequence[LogRow], blocks: Sequence[BlockRef]) -> None:
        """Takes in rows and blocks in one transaction; rows that are there already stay."""
        with self._lock, _transaction(self._db) as db:
            db.executemany(
                "INSERT OR IGNORE INTO logs "
                "(block, idx, block_hash, time, source, topics, data, subject, label, address) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        row.block,
                        row.index,
                        row.block_hash,
                        row.time,
                        row.source,
                        b"".join(row.topics),
                        row.data,
                        row.subject,
                        row.label,
                        row.address,
                    )
                    for row in rows
                ],
            )
            db.executemany(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)",
                [(block.number, block.hash, block.parent) for block in blocks],
            )
            db.execute(
                "DELETE FROM blocks WHERE number <= "
                "(SELECT number FROM blocks ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (KEPT_BLOCKS,),
            )

    def drop_from(self, number: int) -> list[LogRow]:
        """Undoes a reorg's blocks: deletes them and, by block hash, their rows; gives the deleted rows."""
        with self._lock, _transaction(self._db) as db:
            dropped = db.execute(
                f"SELECT {_LOG_COLUMNS} FROM logs WHERE block >= ? ORDER BY block, idx",
                (number,),
            ).fetchall()
            db.execute(
                "DELETE FROM logs "
                "WHERE block_hash IN (SELECT hash FROM blocks WHERE number >= ?) OR block >= ?",
                (number, number),
            )
            db.execute("DELETE FROM blocks WHERE number >= ?", (number,))
        return [_log(row) for row in dropped]

    def rows(
        self,
        *,
        source: int | None = None,
        subject: int | None = None,
        label: str | None = None,
        address: bytes | None = None,
    ) -> list[LogRow]:
        """The rows that match everything given, in chain order."""
        wanted = {"source": source, "subject": subject, "label": label, "address": address}
        given = {column: value for column, value in wanted.items() if value is not None}
        # The partial indexes serve only queries that repeat their condition.
        guards = {"subject": "subject != 0", "label": "label != ''", "address": "address != x''"}
        clauses = [f"{column} = ?" for column in given]
        clauses += [guards[column] for column, value in given.items() if column in guards and value]
        where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        with self._lock, _translated():
            found = self._db.execute(
                f"SELECT {_LOG_COLUMNS} FROM logs {where} ORDER BY block, idx",
                tuple(given.values()),
            ).fetchall()
        return [_log(row) for row in found]


_LOG_COLUMNS = "block, block_hash, idx, time, source, topics, data, subject, label, address"


def _log(row: tuple[object, ...]) -> LogRow:
    block, block_hash, index, time, source, topics, data, subject, label, address = row
    assert isinstance(topics, bytes)
    return LogRow(
        block=int(str(block)),
        block_hash=_bytes(block_hash),
        index=int(str(index)),
        time=int(str(time)),
        source=int(str(source)),
        topics=tuple(topics[at : at + 32] for at in range(0, len(topics), 32)),
        data=_bytes(data),
        subject=int(str(subject)),
        label=str(label),
        address=Address(_bytes(address)),
    )


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
