"""Parts of files that no row of the table names, and so nobody will ever ask for.

Names and bytes lie in two stores, and no order of writing spares both: a node that dies between entering an
upload and moving the parts that it goes on with leaves these behind, and so does a database that was put back
to an older state. Such parts are looked for, a share of the names at a time.

A row is what makes parts wanted, whatever they look like; a row that is being written now belongs to parts
that were written of late. Parts without one go only when they are older than any file is kept: a relay that
is started with the wrong database, or before its backup was loaded, must not delete what the right one names.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from chatchain.relay.ports import BlobParts, BlobTable

SHELVES: Final = 256
"""Shares that the names are looked through in: by the first byte of the id."""

_NAME: Final = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})-\d+-\d+(?:~[0-9a-f]+)*")
"""Of a folder, also of one that a node that died had put aside to delete it."""


class Orphans:
    """Finds and deletes them, one share after the other. Blocks; raises StoreUnavailable."""

    def __init__(self, parts: BlobParts, table: BlobTable, *, age_ms: int) -> None:
        """`age_ms` is how old the youngest of them must be."""
        self._parts = parts
        self._table = table
        self._age_ms = age_ms
        self._next = secrets.randbelow(SHELVES)  # however often the relay is restarted

    def look(self, now_ms: int) -> int:
        """Looks through the next share; gives how many folders were deleted."""
        shelf, self._next = self._next, (self._next + 1) % SHELVES
        before = now_ms - self._age_ms
        named = {
            folder: bytes.fromhex(name[1])
            for folder, youngest_ms in self._parts.folders(f"{shelf:02x}").items()
            if youngest_ms < before and (name := _NAME.fullmatch(folder)) is not None
        }
        # The rows after the parts: a row of parts that were seen is seen as well.
        orphans = named.keys() - self._table.folders(named.values())
        for folder in orphans:
            self._parts.delete(folder)
        return len(orphans)
