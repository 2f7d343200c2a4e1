"""The index in which messages are searched: their texts, and the names of the files that they brought.

Functions work inside of a transaction of store/local.py, or on its connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlcipher3 import dbapi2 as sqlcipher

SCHEMA: Final = """
    ALTER TABLE messages ADD COLUMN file_name TEXT NOT NULL DEFAULT '';
    DROP TRIGGER words_in;
    DROP TRIGGER words_out;
    DROP TRIGGER words_changed;
    DROP TABLE words;
    UPDATE messages SET file_name = file_name_in(content) WHERE content != x'';
    CREATE VIRTUAL TABLE words USING fts5 (
        text, file_name, content='messages', content_rowid='row', tokenize='trigram'
    );
    CREATE TRIGGER words_in AFTER INSERT ON messages WHEN new.kind IN ('text', 'file') BEGIN
        INSERT INTO words (rowid, text, file_name) VALUES (new.row, new.text, new.file_name);
    END;
    CREATE TRIGGER words_out AFTER DELETE ON messages WHEN old.kind IN ('text', 'file') BEGIN
        INSERT INTO words (words, rowid, text, file_name) VALUES ('delete', old.row, old.text, old.file_name);
    END;
    CREATE TRIGGER words_changed AFTER UPDATE OF text, file_name ON messages
    WHEN new.kind IN ('text', 'file') BEGIN
        INSERT INTO words (words, rowid, text, file_name) VALUES ('delete', old.row, old.text, old.file_name);
        INSERT INTO words (rowid, text, file_name) VALUES (new.row, new.text, new.file_name);
    END;
    INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
    INSERT INTO words (rowid, text, file_name)
        SELECT row, text, file_name FROM messages WHERE kind IN ('text', 'file');
"""
"""`file_name_in` is the function below, for files that were there before their names had a column."""

INDEXED: Final = 3
"""The fewest characters of a word that the index serves."""

_NAME: Final = 2
"""Where the name stands in what a message says of its file: behind the kind and the blob."""


_fields: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def file_name_in(content: bytes) -> str:
    """The name in what a message says of its file (docs/protocol.md); empty for anything else."""
    try:
        return msgspec.msgpack.decode(_fields(content[1:])[_NAME], type=str)
    except (msgspec.DecodeError, IndexError):
        return ""


def condition(words: Sequence[str]) -> tuple[str, list[object]]:
    """What a row of messages fulfils that holds every word, with the values of the marks in it."""
    clauses, values = ["kind IN ('text', 'file')"], list[object]()
    if indexed := [word for word in words if len(word) >= INDEXED]:
        clauses.append("row IN (SELECT rowid FROM words WHERE words MATCH ?)")
        values.append(" ".join('"' + word.replace('"', '""') + '"' for word in indexed))
    for word in words:
        if len(word) < INDEXED:
            clauses.append("(text LIKE ? ESCAPE '\\' OR file_name LIKE ? ESCAPE '\\')")
            like = "%" + word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            values += [like, like]
    return " AND ".join(clauses), values


def prepare(connection: sqlcipher.Connection) -> None:
    """Gives the connection the function that the script above needs."""
    connection.create_function("file_name_in", 1, file_name_in, deterministic=True)
