"""What the sponsor spent, so that its limits outlive a restart."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    """Create the table, with the row that those who book wait for."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    table = op.create_table(
        "sponsor_spending",
        sa.Column("slice", number, primary_key=True, autoincrement=False),
        sa.Column("gwei", number, nullable=False),
        **_OPTIONS,
    )
    op.bulk_insert(table, [{"slice": 0, "gwei": 0}])


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
    raise NotImplementedError("restore a backup instead")
