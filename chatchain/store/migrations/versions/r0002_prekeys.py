"""Prekeys: the signed ones of each device, and its stocks of one-time keys."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def _bytes(length: int) -> TypeEngine[bytes]:
    return sa.LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


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
    """Create both tables."""
    _create(
        "prekeys",
        {"uid": _number(), "device": _number()},
        {
            "version": _number(),
            "signed": _bytes(128),
            "last_resort": _bytes(2048),
            "expires": _number(),
            "newest_x25519": _number(),
            "newest_kem": _number(),
        },
    )
    _create(
        "one_time_prekeys",
        {"uid": _number(), "device": _number(), "sort": _number(), "id": _number()},
        {"expires": _number(), "prekey": _bytes(2048)},
    )


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
    raise NotImplementedError("restore a backup instead")
