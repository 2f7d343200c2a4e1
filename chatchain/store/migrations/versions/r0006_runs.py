"""What waits for the devices in runs under device and sequence, and accepted ids without their time."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}
_BATCH = 500
_DAY_MS = 24 * 3600 * 1000


def _bytes(length: int) -> TypeEngine[bytes]:
    return sa.LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


def _blob() -> TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _number() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _create(
    name: str, keys: Mapping[str, TypeEngine[Any]], columns: Mapping[str, TypeEngine[Any]]
) -> sa.Table:
    return op.create_table(
        name,
        *(sa.Column(key, type_, primary_key=True, autoincrement=False) for key, type_ in keys.items()),
        *(sa.Column(column, type_, nullable=False) for column, type_ in columns.items()),
        **_OPTIONS,
    )


def upgrade() -> None:
    """Create the new tables, carry over what waits and what was accepted, drop the old ones."""
    mail = _create(
        "mail",
        {"uid": _number(), "device": _number(), "last": _number()},
        {
            "sender": _number(),
            "messages": _number(),
            "size": _number(),
            "received_ms": _number(),
            "content": _blob(),
        },
    )
    op.create_index("mail_by_sequence", "mail", ["last"])
    accepted = _create(
        "accepted_ids",
        {"id": _bytes(16), "sender": _number(), "sender_device": _number()},
        {"hash": _bytes(16), "day": _number()},
    )
    for rows in _rows("mailbox", "sequence"):
        op.bulk_insert(mail, [_run(row) for row in rows])
    for rows in _rows("accepted", "sender, sender_device, id"):
        op.bulk_insert(
            accepted,
            [
                {
                    "id": bytes(row.id),
                    "sender": row.sender,
                    "sender_device": row.sender_device,
                    "hash": bytes(row.hash)[:16],
                    "day": row.received_ms // _DAY_MS,
                }
                for row in rows
            ],
        )
    op.drop_table("mailbox")
    op.drop_table("accepted")


def _rows(table: str, order: str) -> Iterator[list[Any]]:
    """A table's rows in batches."""
    start = 0
    while True:
        query = sa.text(f"SELECT * FROM {table} ORDER BY {order} LIMIT {_BATCH} OFFSET {start}")  # noqa: S608
        found = list(op.get_bind().execute(query))
        if not found:
            return
        yield found
        start += len(found)


def _run(row: Any) -> dict[str, object]:
    """A run of one message: a length and the msgpack array of a delivery without its sequence."""
    parcel = msgspec.msgpack.encode(
        (
            bytes(row.id),
            row.suite,
            row.sender,
            row.sender_device,
            row.recipient,
            row.received_ms,
            bytes(row.header),
            bytes(row.body),
        )
    )
    return {
        "uid": row.uid,
        "device": row.device,
        "last": row.sequence,
        "sender": row.sender,
        "messages": 1,
        "size": len(parcel),
        "received_ms": row.received_ms,
        "content": len(parcel).to_bytes(4, "big") + parcel,
    }


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
    raise NotImplementedError("restore a backup instead")
