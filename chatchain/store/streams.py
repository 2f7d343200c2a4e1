"""How far this home has come in the mailboxes of its relays.

Each relay is believed about itself alone. Relays that share a database share its space, and any relay can
claim to: what one delivered under whatever number must not let another delete what it still holds. What comes
again through the other is known by its id. Functions work inside of a transaction of store/local.py.
"""

from __future__ import annotations

from typing import Final

from sqlcipher3 import dbapi2 as sqlcipher

from chatchain.model import Progress

SCHEMA: Final = """
    CREATE TABLE streams (
        relay BLOB NOT NULL UNIQUE, space INTEGER NOT NULL, after INTEGER NOT NULL,
        row INTEGER PRIMARY KEY AUTOINCREMENT
    );
"""

KEPT: Final = 16
"""Relays that are remembered; of one that was forgotten what comes again is known by its id."""


def advance(db: sqlcipher.Connection, progress: Progress) -> None:
    """Notes that everything up to a sequence is stored; never goes back within a space."""
    before = known(db, progress.relay)
    after = max(progress.after, before.after) if before.space == progress.space else progress.after
    db.execute("DELETE FROM streams WHERE relay = ?", (progress.relay,))
    db.execute(
        "INSERT INTO streams (relay, space, after) VALUES (?, ?, ?)", (progress.relay, progress.space, after)
    )
    db.execute(
        "DELETE FROM streams WHERE row <= (SELECT row FROM streams ORDER BY row DESC LIMIT 1 OFFSET ?)",
        (KEPT,),
    )


def known(db: sqlcipher.Connection, relay: bytes) -> Progress:
    """How far this home has come at a relay; nowhere, in no space, at one that it does not know."""
    row = db.execute("SELECT space, after FROM streams WHERE relay = ?", (relay,)).fetchone()
    return Progress(relay, *row) if row else Progress(relay, 0, 0)
