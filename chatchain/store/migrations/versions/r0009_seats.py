"""Who sits in which group besides the network: whoever shares one is no stranger to the others."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
oldest = "0008"  # a program that does not know the table leaves it as it is

_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    """Create the table, and have the members looked at once more, which fills it."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "seats",
        sa.Column("uid", number, primary_key=True, autoincrement=False),
        sa.Column("in_group", number, primary_key=True, autoincrement=False),
        **_OPTIONS,
    )
    op.create_index("seats_by_group", "seats", ["in_group", "uid"])
    connection = op.get_bind()
    folded = connection.execute(sa.text("SELECT count(*) FROM network WHERE name = 'policy'")).scalar()
    waiting = connection.execute(sa.text("SELECT count(*) FROM touched WHERE uid = 0")).scalar()
    if folded and not waiting:
        connection.execute(sa.text("INSERT INTO touched (uid, block) VALUES (0, 0)"))


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
    raise NotImplementedError("restore a backup instead")
