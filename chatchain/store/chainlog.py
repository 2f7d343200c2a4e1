"""The chain's events in the relay's database: what `chain.sync` takes in, and which users that touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, Engine, Row, Select, delete, insert, select

from chatchain.model import BlockRef, LogRow
from chatchain.store.database import translated
from chatchain.store.tables import chain_blocks, chain_logs, touched

KEPT_BLOCKS: Final = 256
"""How far back a reorg can be walked before everything is fetched again."""

WORD: Final = 32
MEMBERSHIP: Final = 2
"""The source whose events touch the network's membership."""


class ServerLogStore:
    """Satisfies `chain.sync.LogStore`. Used by one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(writes=True)
        self._reading = engine
        self.guard: Callable[[Connection], None] = lambda _: None
        """Runs first in each transaction that writes; raises to prevent it."""

    def head(self) -> BlockRef | None:
        """The last block taken in."""
        newest = self.recent(1)
        return newest[0] if newest else None

    def recent(self, limit: int) -> list[BlockRef]:
        """The newest blocks that are kept, newest first."""
        query = select(chain_blocks).order_by(chain_blocks.c.number.desc()).limit(limit)
        with translated(), self._reading.connect() as connection:
            return [
                BlockRef(row.number, bytes(row.hash), bytes(row.parent)) for row in connection.execute(query)
            ]

    def take(self, rows: Sequence[LogRow], blocks: Sequence[BlockRef]) -> None:
        """Takes in events and blocks (ascending; the last one is the new head) in one transaction."""
        with translated(), self._engine.begin() as connection:
            self.guard(connection)
            if rows:
                connection.execute(insert(chain_logs), [_values(row) for row in rows])
                _touch(connection, rows)
            if blocks:
                connection.execute(
                    insert(chain_blocks),
                    [
                        {"number": block.number, "hash": block.hash, "parent": block.parent}
                        for block in blocks
                    ],
                )
                _prune(connection)

    def drop_from(self, number: int) -> list[LogRow]:
        """Takes blocks numbered so or higher, and their events, out again; gives those events."""
        above = chain_logs.c.block >= number
        with translated(), self._engine.begin() as connection:
            self.guard(connection)
            gone = [_row(found) for found in connection.execute(_in_order().where(above))]
            connection.execute(delete(chain_logs).where(above))
            connection.execute(delete(chain_blocks).where(chain_blocks.c.number >= number))
            _touch(connection, gone)
            return gone

    def rows(
        self,
        *,
        source: int | None = None,
        subject: int | None = None,
        label: str | None = None,
        address: bytes | None = None,
    ) -> list[LogRow]:
        """The events with these marks, in chain order."""
        query = _in_order()
        if source is not None:
            query = query.where(chain_logs.c.source == source)
        if subject is not None:
            query = query.where(chain_logs.c.subject == subject)
        if label is not None:
            query = query.where(chain_logs.c.label == label)
        if address is not None:
            query = query.where(chain_logs.c.address == address)
        with translated(), self._reading.connect() as connection:
            return [_row(found) for found in connection.execute(query)]

    def touched(self) -> dict[int, int]:
        """Users that `users` must be rewritten for, each with the newest block that concerns it (0: the
        members).
        """
        with translated(), self._reading.connect() as connection:
            return {row.uid: row.block for row in connection.execute(select(touched))}


def _in_order() -> Select[tuple[object, ...]]:
    return select(chain_logs).order_by(chain_logs.c.block, chain_logs.c.position)


def _values(row: LogRow) -> dict[str, object]:
    return {
        "block": row.block,
        "position": row.index,
        "block_hash": row.block_hash,
        "time": row.time,
        "source": row.source,
        "topics": b"".join(row.topics),
        "data": row.data,
        "subject": row.subject,
        "label": row.label,
        "address": row.address,
    }


def _row(found: Row[tuple[object, ...]]) -> LogRow:
    topics = bytes(found.topics)
    return LogRow(
        block=found.block,
        block_hash=bytes(found.block_hash),
        index=found.position,
        time=found.time,
        source=found.source,
        topics=tuple(topics[start : start + WORD] for start in range(0, len(topics), WORD)),
        data=bytes(found.data),
        subject=found.subject,
        label=found.label,
        address=bytes(found.address),
    )


def _touch(connection: Connection, rows: Sequence[LogRow]) -> None:
    newest: dict[int, int] = {}
    for row in rows:
        if row.subject or row.source == MEMBERSHIP:
            newest[row.subject] = max(row.block, newest.get(row.subject, 0))
    uids = list(newest)
    for start in range(0, len(uids), 500):
        some = uids[start : start + 500]
        connection.execute(delete(touched).where(touched.c.uid.in_(some)))
        connection.execute(insert(touched), [{"uid": uid, "block": newest[uid]} for uid in some])


def _prune(connection: Connection) -> None:
    numbers = select(chain_blocks.c.number).order_by(chain_blocks.c.number.desc())
    oldest_kept = connection.execute(numbers.offset(KEPT_BLOCKS - 1).limit(1)).scalar()
    if oldest_kept is not None:
        connection.execute(delete(chain_blocks).where(chain_blocks.c.number < oldest_kept))
