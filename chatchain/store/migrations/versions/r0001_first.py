"""The first set of tables."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def _bytes(length: int) -> TypeEngine[bytes]:
    return sa.LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


def _blob() -> TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _number() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _create(name: str, keys: Mapping[str, TypeEngine[Any]], columns: Mapping[str, TypeEngine[Any]]) -> None:
    op.create_table(
        name,
        *(sa.Column(key, type_, primary_key=True, autoincrement=False) for key, type_ in keys.items()),
        *(sa.Column(column, type_, nullable=False) for column, type_ in columns.items()),
        **_OPTIONS,
    )


def upgrade() -> None:
    """Create everything."""
    _create(
        "users",
        {"uid": _number()},
        {
            "username": sa.String(64),
            "password": _bytes(32),
            "kdf": _bytes(64),
            "pub_key": _bytes(1024),
            "account": _bytes(20),
            "recovery": _bytes(20),
            "epoch": _number(),
            "device_list_version": _number(),
            "update_time": _number(),
            "block": _number(),
            "block_hash": _bytes(32),
        },
    )
    op.create_index("users_by_name", "users", ["username"])
    op.create_index("users_by_account", "users", ["account"])
    _create(
        "devices",
        {"uid": _number(), "device": _number()},
        {
            "state": _number(),
            "version": _number(),
            "signer": _bytes(20),
            "head": _bytes(32),
            "record": _bytes(1024),
            "block": _number(),
            "time": _number(),
        },
    )
    _create("members", {"uid": _number()}, {"sequence": _number()})
    _create("network", {"name": sa.String(32)}, {"value": _number()})
    _create("touched", {"uid": _number()}, {"block": _number()})
    _create(
        "mailbox",
        {"sequence": _number()},
        {
            "uid": _number(),
            "device": _number(),
            "id": _bytes(16),
            "suite": _number(),
            "sender": _number(),
            "sender_device": _number(),
            "recipient": _number(),
            "received_ms": _number(),
            "size": _number(),
            "header": _blob(),
            "body": _blob(),
        },
    )
    op.create_index("mailbox_by_device", "mailbox", ["uid", "device", "sequence"])
    _create(
        "accepted",
        {"sender": _number(), "sender_device": _number(), "id": _bytes(16)},
        {"hash": _bytes(32), "received_ms": _number()},
    )
    op.create_index("accepted_by_time", "accepted", ["received_ms"])
    _create("counters", {"name": sa.String(32)}, {"value": _number()})
    op.execute("INSERT INTO counters (name, value) VALUES ('sequence', 0)")
    _create(
        "key_bundles",
        {"uid": _number(), "device": _number()},
        {
            "version": _number(),
            "kem_public": _bytes(4096),
            "issued": _number(),
            "expires": _number(),
            "signature": _bytes(128),
        },
    )
    _create("chain_blocks", {"number": _number()}, {"hash": _bytes(32), "parent": _bytes(32)})
    _create(
        "chain_logs",
        {"block": _number(), "position": _number()},
        {
            "block_hash": _bytes(32),
            "time": _number(),
            "source": _number(),
            "topics": _bytes(128),
            "data": _blob(),
            "subject": _number(),
            "label": sa.String(64),
            "address": _bytes(20),
        },
    )
    op.create_index("chain_logs_by_hash", "chain_logs", ["block_hash"])
    op.create_index("chain_logs_by_source", "chain_logs", ["source", "subject"])
    op.create_index("chain_logs_by_subject", "chain_logs", ["subject"])
    op.create_index("chain_logs_by_label", "chain_logs", ["label"])
    op.create_index("chain_logs_by_address", "chain_logs", ["address"])


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
    raise NotImplementedError("restore a backup instead")
