"""The home's database: real SQLCipher files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2 as sqlcipher

from chatchain.crypto import content as contents
from chatchain.crypto.attachments import FileRef
from chatchain.errors import StoreUnavailable
from chatchain.model import (
    Arrival,
    BlockRef,
    Contact,
    Copy,
    Direction,
    Envelope,
    KeyBundle,
    LogRow,
    MessageState,
    Outgoing,
    OwnKeys,
    Pin,
    StoredMessage,
    Uid,
)
from chatchain.store import local
from chatchain.store.local import FORWARD, KEPT_BLOCKS, SCHEMA, LocalStore
from chatchain.store.search import SCHEMA as SEARCH_SCHEMA

KEY = bytes(range(32))
ME, ADA, BOB = Uid(100000000000001), Uid(100000000000002), Uid(100000000000003)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.db"


@pytest.fixture
def store(path: Path) -> LocalStore:
    return LocalStore(path, KEY)


def own(text: str = "hello", *, peer: Uid = ADA, id: bytes | None = None) -> StoredMessage:
    return StoredMessage(
        id=id or os.urandom(16),
        sender=ME,
        device=1,
        peer=peer,
        direction=Direction.OUT,
        kind="text",
        text=text,
        time_ms=1,
        state=MessageState.QUEUED,
    )


def incoming(
    text: str = "hello", *, sender: Uid = ADA, id: bytes | None = None, kind: str = "text"
) -> StoredMessage:
    return StoredMessage(
        id=id or os.urandom(16),
        sender=sender,
        device=1,
        peer=sender,
        direction=Direction.IN,
        kind=kind,
        text=text,
        time_ms=2,
    )


def waiting(message: StoredMessage) -> Outgoing:
    return Outgoing(message.id, message.peer, "text", b"content", message.time_ms)


def state_of(store: LocalStore, id: bytes) -> MessageState | None:
    found = store.message(id)
    assert found is not None
    return found.state


# --- the file -------------------------------------------------------------------------------------------


def test_file_is_encrypted_and_private(path: Path) -> None:
    """Neither text nor SQLite's own header can be read in the file, and nobody else may open it."""
    store = LocalStore(path, KEY)
    store.queue([own("a secret sentence")], [])
    store.close()
    raw = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"a secret sentence" not in raw
    assert not path.read_bytes().startswith(b"SQLite format 3")
    assert path.stat().st_mode & 0o077 == 0


def test_wrong_key_is_a_sentence(path: Path) -> None:
    """Another key than the file's gives an error that a person can read, and changes nothing."""
    LocalStore(path, KEY).close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="damaged or belongs to another vault"):
        LocalStore(path, bytes(32))
    assert path.read_bytes() == before


def test_damaged_file_is_a_sentence(path: Path, store: LocalStore) -> None:
    """A page overwritten with noise is noticed when it is read."""
    store.queue([own(os.urandom(400).hex()) for _ in range(200)], [])
    store.close()
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = os.urandom(64)
    path.write_bytes(data)
    with pytest.raises(StoreUnavailable, match="damaged"):
        LocalStore(path, KEY).history(ADA, limit=500)


def test_truncated_file_is_a_sentence(path: Path, store: LocalStore) -> None:
    """A file cut in half is not taken for an empty one."""
    store.queue([own(os.urandom(400).hex()) for _ in range(200)], [])
    store.close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreUnavailable):
        LocalStore(path, KEY).history(ADA, limit=500)


def test_newer_schema_is_refused(path: Path, store: LocalStore) -> None:
    """A file written by a later version is left alone."""
    store._db.execute(f"PRAGMA user_version = {len(SCHEMA) + 1}")
    store.close()
    with pytest.raises(StoreUnavailable, match="newer chatchain"):
        LocalStore(path, KEY)


def test_commits_are_durable(path: Path, store: LocalStore) -> None:
    """Journal and synchronisation are those that survive a power cut, after `mark_shown` too."""
    store.take_in([Arrival(ADA, b"i" * 16, message=incoming(id=b"i" * 16))])
    store.mark_shown(1, 1)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_killed_writer_leaves_whole_transactions(path: Path) -> None:
    """A process killed in the middle of writing leaves each message with its outbox row, or neither."""
    script = f"""
import os
from pathlib import Path
from tests.store.test_local import KEY, own, waiting
from chatchain.store.local import LocalStore
store = LocalStore(Path({str(path)!r}), KEY)
for round in range(10_000):
    message = own(str(round))
    store.queue([message], [waiting(message)])
    print(round, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = 0
        for _ in range(30):
            last = int(process.stdout.readline())
        process.kill()
    store = LocalStore(path, KEY)
    messages = store.history(ADA, limit=20_000)
    assert [message.text for message in messages] == [str(number) for number in range(len(messages))]
    assert len(messages) > last
    assert [item.id for item in store.pending(limit=20_000)] == [message.id for message in messages]


# --- outbox ---------------------------------------------------------------------------------------------


def test_outbox_keeps_order_and_envelope(store: LocalStore, path: Path) -> None:
    """What waits comes back in order, and the envelope byte for byte, by another opening of the file."""
    messages = [own(str(number)) for number in range(5)]
    envelope = Envelope(messages[2].id, 1, ADA, 1, 1, b"body", (Copy(ADA, 1, b"header"),))
    items = [waiting(message) for message in messages]
    items[2] = Outgoing(messages[2].id, ADA, "text", b"content", 1, envelope, version=1)
    store.queue(messages, items)
    store.close()
    again = LocalStore(path, KEY)
    assert [item.id for item in again.pending()] == [message.id for message in messages]
    assert again.pending()[2].envelope == envelope
    assert [item.id for item in again.pending(after=again.pending()[1].row, limit=2)] == [
        m.id for m in messages[2:4]
    ]


def test_tick_takes_off_the_outbox(store: LocalStore) -> None:
    """A tick moves the message to sent and takes it off the outbox at once."""
    message = own()
    store.queue([message], [waiting(message)])
    store.settle([message.id], MessageState.SENT)
    assert store.pending() == []
    assert state_of(store, message.id) is MessageState.SENT


@pytest.mark.parametrize("state", list(MessageState))
@pytest.mark.parametrize("following", list(MessageState))
def test_states_never_go_backwards(store: LocalStore, state: MessageState, following: MessageState) -> None:
    """From every state exactly the later ones may be entered, by settling as by receipts."""
    message = own()
    store.queue([message], [])
    path = {MessageState.QUEUED: []}.get(state, [state])
    for step in path:
        store.settle([message.id], step)
    store.settle([message.id], following)
    expected = following if state in FORWARD[following] else state
    assert state_of(store, message.id) is expected


def test_receipt_counts_for_its_own_conversation_only(store: LocalStore) -> None:
    """Bob cannot say that a message to Ada was read."""
    message = own(peer=ADA)
    store.queue([message], [])
    store.settle([message.id], MessageState.SENT)
    store.take_in([Arrival(BOB, b"r" * 16, states=((message.id, MessageState.READ),))])
    assert state_of(store, message.id) is MessageState.SENT
    store.take_in([Arrival(ADA, b"r" * 16, states=((message.id, MessageState.READ),))])
    assert state_of(store, message.id) is MessageState.READ


def test_dropped_message_keeps_its_reason(store: LocalStore) -> None:
    """The relay's reason stays with the message."""
    message = own()
    store.queue([message], [waiting(message)])
    store.settle([message.id], MessageState.DROPPED, "not_a_member")
    found = store.message(message.id)
    assert found is not None
    assert (found.state, found.code) == (MessageState.DROPPED, "not_a_member")
    assert store.count_queued() == 0


# --- inbox ----------------------------------------------------------------------------------------------


def test_duplicate_comes_in_once(store: LocalStore) -> None:
    """The same (sender, id) a second time is neither a message nor a receipt; another sender's same id is."""
    first = Arrival(ADA, b"x" * 16, message=incoming("one", id=b"x" * 16), receipt_due=True)
    again = Arrival(ADA, b"x" * 16, message=incoming("two", id=b"x" * 16), receipt_due=True)
    other = Arrival(BOB, b"x" * 16, message=incoming("three", sender=BOB, id=b"x" * 16))
    assert [message.text for message in store.take_in([first, again, other])] == ["one", "three"]
    assert store.take_in([again]) == []
    assert store.receipts_due() == {(ADA, MessageState.DELIVERED): [b"x" * 16]}


def test_unshown_survives_until_marked(store: LocalStore, path: Path) -> None:
    """What was stored and not handed out is handed out by the next process; what was marked is not."""
    fresh = store.take_in(
        [Arrival(ADA, bytes([n]) * 16, message=incoming(str(n), id=bytes([n]) * 16)) for n in range(3)]
    )
    store.mark_shown(fresh[0].row, 1)
    store.close()
    assert [message.text for message in LocalStore(path, KEY).unshown()] == ["1", "2"]


def test_receipts_become_one_thing_to_send(store: LocalStore) -> None:
    """Owed receipts turn into an outbox row in one step and are not owed any more."""
    ids = [bytes([number]) * 16 for number in range(3)]
    store.take_in([Arrival(ADA, one, message=incoming(id=one), receipt_due=True) for one in ids])
    assert store.receipts_due() == {(ADA, MessageState.DELIVERED): ids}
    store.queue_receipts(ADA, Outgoing(b"q" * 16, ADA, "receipt", b"", 1), ids)
    assert store.receipts_due() == {}
    assert [item.kind for item in store.pending()] == ["receipt"]
    assert store.count_queued() == 0


def test_reading_owes_a_read_receipt(store: LocalStore) -> None:
    """Looking at a conversation marks it read up to there, for messages of people and not for notices."""
    rows = store.take_in(
        [
            Arrival(ADA, b"a" * 16, message=incoming(id=b"a" * 16)),
            Arrival(ADA, b"b" * 16, message=incoming(id=b"b" * 16, kind="notice")),
            Arrival(ADA, b"c" * 16, message=incoming(id=b"c" * 16)),
        ]
    )
    assert store.count_unread() == 3
    assert store.mark_read(ADA, rows[1].row, 1) == 2
    assert store.count_unread() == 1
    assert store.receipts_due() == {(ADA, MessageState.READ): [b"a" * 16]}


# --- reading back ---------------------------------------------------------------------------------------


def test_history_pages_backwards(store: LocalStore) -> None:
    """The last page first, each page oldest first, other conversations left out."""
    for number in range(10):
        store.queue([own(str(number))], [])
        store.queue([own(f"other {number}", peer=BOB)], [])
    last = store.history(ADA, limit=4)
    assert [message.text for message in last] == ["6", "7", "8", "9"]
    assert [message.text for message in store.history(ADA, limit=4, before=last[0].row)] == [
        "2",
        "3",
        "4",
        "5",
    ]


def test_history_uses_its_index(store: LocalStore) -> None:
    """A page of history is looked up, never scanned for."""
    plan = store._db.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM messages WHERE peer = ? AND row < ? ORDER BY row DESC LIMIT 5",
        (1, 2),
    ).fetchall()
    assert "messages_by_peer" in str(plan)
    assert "SCAN" not in str(plan)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["quick"], {"the quick fox", "Quick and dirty"}),
        (["QUICK", "fox"], {"the quick fox"}),
        (["ui"], {"the quick fox", "Quick and dirty"}),
        (["100%"], {"100% sure"}),
        (["%"], {"100% sure"}),
        (['"or'], {'say "or" not'}),
        (["привет"], {"привет мир"}),
        (["мир", "при"], {"привет мир"}),
        (["missing"], set()),
    ],
)
def test_search_finds_every_word(store: LocalStore, words: list[str], found: set[str]) -> None:
    """Parts of words, any script, any case for words of three characters or more, and no query language."""
    for text in ("the quick fox", "Quick and dirty", "100% sure", 'say "or" not', "привет мир"):
        store.queue([own(text)], [])
    store.take_in([Arrival(ADA, b"n" * 16, message=incoming("quick notice", id=b"n" * 16, kind="notice"))])
    assert {message.text for message in store.search(words, limit=10)} == found


def test_names_of_files_from_before_their_column_are_found(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older database gives its files' names to the new index, and its texts; damage gives none."""
    ref = FileRef(b"k" * 32, 5, b"h" * 32)
    content = contents.encode(
        contents.file(ref, b"b" * 32, "Überblick.pdf", "application/pdf", caption="as promised")
    )
    with monkeypatch.context() as older:
        older.setattr(local, "SCHEMA", SCHEMA[: SCHEMA.index(SEARCH_SCHEMA)])
        old = LocalStore(path, KEY)
        columns = "id, sender, device, peer, direction, kind, text, code, time_ms, shown, read, content"
        for number, (kind, text, what) in enumerate(
            [("file", "as promised", content), ("file", "", b"\1junk"), ("text", "a plain word", b"")]
        ):
            old._db.execute(
                f"INSERT INTO messages ({columns}) VALUES (?, ?, 1, ?, 'in', ?, ?, '', 1, 1, 1, ?)",
                (bytes([number]), ADA, ADA, kind, text, what),
            )
        old.close()
    store = LocalStore(path, KEY)
    for words, found in (("überblick", [b"\0"]), ("pdf promised", [b"\0"]), ("plain", [b"\2"]), ("junk", [])):
        assert [message.id for message in store.search(words.split(), limit=9)] == found
    store._db.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_search_is_newest_first_and_limited(store: LocalStore) -> None:
    """The limit cuts the oldest."""
    for number in range(5):
        store.queue([own(f"word {number}")], [])
    assert [message.text for message in store.search(["word"], limit=2)] == ["word 4", "word 3"]


# --- contacts, keys, settings ---------------------------------------------------------------------------


def test_contact_floors_never_sink(store: LocalStore) -> None:
    """What was once seen of a device list is not forgotten by a later, lower word."""
    pin = Pin(b"a" * 20, bytes(20), 0, ((1, 1, 1, b"h" * 32),), 7)
    store.put_contact(Contact(ADA, "ada", pin=pin, floor=5, confirmed=5))
    store.put_contact(Contact(ADA, "ada", pin=pin, floor=3, confirmed=2, listed=False))
    assert store.contact(ADA) == Contact(ADA, "ada", pin=pin, floor=5, confirmed=5, listed=True)
    store.put_contact(Contact(BOB, "bob", floor=1, listed=False))
    assert [contact.username for contact in store.contacts()] == ["ada"]


def test_superseded_keys_are_kept_for_a_while(store: LocalStore) -> None:
    """Secrets before the version in force are retired at first and forgotten after the time given."""
    for version in (1, 2, 3):
        store.put_own_keys(OwnKeys(version, bytes([version])))
    store.retire_own_keys(2, now_ms=1000, keep_ms=500)
    assert [(keys.version, keys.retired_ms) for keys in store.own_keys()] == [(3, 0), (2, 0), (1, 1000)]
    store.retire_own_keys(2, now_ms=1500, keep_ms=500)
    assert [keys.version for keys in store.own_keys()] == [3, 2, 1]
    store.retire_own_keys(2, now_ms=1501, keep_ms=500)
    assert [keys.version for keys in store.own_keys()] == [3, 2]


def test_bundles_are_kept_one_a_device(store: LocalStore) -> None:
    """A newer bundle replaces the older one of its device."""
    old, new = (KeyBundle(ADA, 1, version, b"k", 1, 2, b"s") for version in (1, 2))
    store.put_bundles([old, KeyBundle(ADA, 2, 1, b"k", 1, 2, b"s")])
    store.put_bundles([new])
    assert {bundle.device: bundle.version for bundle in store.bundles(ADA)} == {1: 2, 2: 1}
    assert store.bundles(BOB) == []


def test_settings(store: LocalStore) -> None:
    """A value is there until it is removed."""
    assert store.setting("x") is None
    store.set_setting("x", b"1")
    store.set_setting("x", b"2")
    assert store.setting("x") == b"2"
    store.set_setting("x", None)
    assert store.setting("x") is None


# --- the chain's logs -----------------------------------------------------------------------------------


def block(number: int, salt: bytes = b"") -> BlockRef:
    return BlockRef(number, (salt + number.to_bytes(4, "big")).rjust(32, b"h"), bytes(32))


def row(number: int, index: int = 0, salt: bytes = b"", **columns: object) -> LogRow:
    values = {"subject": 0, "label": "", "address": b"", "source": 1} | columns
    return LogRow(
        block=number,
        block_hash=block(number, salt).hash,
        index=index,
        time=number * 10,
        topics=(b"t" * 32, b"u" * 32),
        data=b"data",
        **values,  # type: ignore[arg-type]  # columns by name
    )


def test_logs_are_found_by_each_column(store: LocalStore) -> None:
    """Rows come back as they were, in chain order, for whatever is asked."""
    rows = [
        row(2, subject=7, label="ada", address=b"a" * 20),
        row(1, 1, subject=7),
        row(1, 0, source=2),
        row(3, subject=8, label="bob"),
    ]
    store.logs.take(rows, [block(number) for number in range(4)])
    assert store.logs.rows() == [rows[2], rows[1], rows[0], rows[3]]
    assert store.logs.rows(subject=7) == [rows[1], rows[0]]
    assert store.logs.rows(label="bob") == [rows[3]]
    assert store.logs.rows(address=b"a" * 20) == [rows[0]]
    assert store.logs.rows(source=2) == [rows[2]]
    assert store.logs.rows(source=1, subject=8) == [rows[3]]
    assert store.logs.rows(address=b"b" * 20) == []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("subject = 1 AND subject != 0", "logs_by_subject"),
        ("label = 'x' AND label != ''", "logs_by_label"),
        ("address = x'01' AND address != x''", "logs_by_address"),
    ],
)
def test_log_look_ups_use_an_index(store: LocalStore, query: str, index: str) -> None:
    """No look-up scans the history."""
    plan = str(
        store._db.execute(
            f"EXPLAIN QUERY PLAN SELECT * FROM logs WHERE {query} ORDER BY block, idx"
        ).fetchall()
    )
    assert index in plan


def test_head_and_recent_blocks(store: LocalStore) -> None:
    """The last block taken is the head, and only recent ones are kept."""
    assert store.logs.head() is None
    store.logs.take([], [block(number) for number in range(KEPT_BLOCKS + 50)])
    assert store.logs.head() == block(KEPT_BLOCKS + 49)
    assert [ref.number for ref in store.logs.recent(3)] == [
        KEPT_BLOCKS + 49,
        KEPT_BLOCKS + 48,
        KEPT_BLOCKS + 47,
    ]
    assert len(store.logs.recent(10_000)) == KEPT_BLOCKS


def test_reorg_drops_blocks_and_rows(store: LocalStore) -> None:
    """Everything from the fork on goes; what the new branch has in the same places comes in."""
    store.logs.take([row(1), row(2), row(3)], [block(1), block(2), block(3)])
    assert store.logs.drop_from(2) == [row(2), row(3)]
    assert store.logs.head() == block(1)
    assert store.logs.rows() == [row(1)]
    store.logs.take([row(2, salt=b"new")], [block(2, b"new")])
    assert store.logs.rows() == [row(1), row(2, salt=b"new")]
    assert store.logs.drop_from(0) == [row(1), row(2, salt=b"new")]
    assert store.logs.head() is None


def test_logs_and_messages_are_written_side_by_side(store: LocalStore) -> None:
    """A catch-up in a thread and messages on the loop share the file without an error."""
    import threading

    def catch_up() -> None:
        for number in range(200):
            store.logs.take([row(number)], [block(number)])

    thread = threading.Thread(target=catch_up)
    thread.start()
    for number in range(200):
        store.queue([own(str(number))], [])
    thread.join()
    assert len(store.logs.rows()) == 200
    assert len(store.history(ADA, limit=500)) == 200


@pytest.mark.parametrize(
    ("text", "says", "advice"),
    [
        ("database or disk is full", "The disk is full", "Free some space"),
        ("disk I/O error", "The disk refused", "Is it full?"),
        ("database is locked", "Another process", "Let it finish"),
        ("attempt to write a readonly database", "cannot be opened", "can be written to"),
        ("file is not a database", "damaged or belongs to another vault", "backup"),
    ],
)
def test_what_sqlite_says_is_told_with_what_helps(text: str, says: str, advice: str) -> None:
    """A full disk shows as an I/O error too, and must not pass for damage."""
    with pytest.raises(StoreUnavailable, match=says) as told, local._translated():
        raise sqlcipher.OperationalError(text)
    assert advice in told.value.hint
