"""An identity of the space in which sequences count, so that devices know whether it is still the same."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
oldest = "0007"  # a program that does not know the row never asks for it


def upgrade() -> None:
    """Add the row; every relay that begins alone draws it anew (store.server)."""
    space = secrets.randbelow(2**63 - 1) + 1
    op.get_bind().execute(
        sa.text("INSERT INTO counters (name, value) VALUES ('space', :space)"), {"space": space}
    )


def downgrade() -> None:
    """A relay's data is not thrown away by a program."""
    raise NotImplementedError("restore a backup instead")
