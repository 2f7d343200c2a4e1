"""What the sponsor booked and has not settled, so that a restart settles it."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
oldest = "0009"  # a table more, which a program that does not know it leaves alone

_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def _bytes(length: int) -> TypeEngine[bytes]:
    return sa.LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


def _number() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _long() -> TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "sponsor_bookings",
        sa.Column("id", _bytes(16), primary_key=True, autoincrement=False),
        sa.Column("owner", _bytes(16), nullable=False),
        sa.Column("slice", _number(), nullable=False),
        sa.Column("gwei", _number(), nullable=False),
        sa.Column("more", _long(), nullable=False),
        sa.Column("sent", _long(), nullable=False),
        **_OPTIONS,
    )


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
    raise NotImplementedError("restore a backup instead")
