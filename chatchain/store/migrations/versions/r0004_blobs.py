"""A table of the files that clients leave at the relay."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def _number() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _bytes(length: int) -> TypeEngine[bytes]:
    return sa.LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


def upgrade() -> None:
    """Create the table and its indexes."""
    op.create_table(
        "blobs",
        sa.Column("owner", _number(), primary_key=True, autoincrement=False),
        sa.Column("blob", _bytes(32), primary_key=True, autoincrement=False),
        *(
            sa.Column(name, _number(), nullable=False)
            for name in ("size", "state", "spent", "created_ms", "expires_ms")
        ),
        **_OPTIONS,
    )
    op.create_index("blobs_by_id", "blobs", ["blob"])
    op.create_index("blobs_by_expiry", "blobs", ["expires_ms"])


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
    raise NotImplementedError("restore a backup instead")
