"""What several relay processes on one database tell each other."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0005"
down_revision = "0004"
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


def upgrade() -> None:
    """Add tables only: a program of the revision before goes on beside this one."""
    op.create_table(
        "nodes",
        sa.Column("id", _bytes(16), primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("beats", _number(), nullable=False),
        sa.Column("connections", sa.String(1024), nullable=False),
        **_OPTIONS,
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("holder", _bytes(16), nullable=False),
        **_OPTIONS,
    )
    op.create_table(
        "presence",
        sa.Column("uid", _number(), primary_key=True, autoincrement=False),
        sa.Column("device", _number(), primary_key=True, autoincrement=False),
        sa.Column("node", _bytes(16), nullable=False),
        sa.Column("number", _number(), nullable=False),
        **_OPTIONS,
    )
    op.create_index("presence_by_number", "presence", ["number"])
    op.create_table(
        "folded",
        sa.Column("uid", _number(), primary_key=True, autoincrement=False),
        sa.Column("number", _number(), nullable=False),
        **_OPTIONS,
    )
    op.create_index("folded_by_number", "folded", ["number"])
    # Parameters, because an empty string literal is no empty byte string for SQLite.
    op.get_bind().execute(
        sa.text("INSERT INTO leases (name, holder) VALUES ('chain', :nobody)"), {"nobody": b""}
    )
    for name in ("login", "fold", "looks", "head"):
        op.get_bind().execute(sa.text("INSERT INTO counters (name, value) VALUES (:name, 0)"), {"name": name})


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
