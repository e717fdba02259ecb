"""Whether an update to older software is meant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Bring the database up to this revision."""
    no = sa.false()
    op.add_column(
        "updates", sa.Column("downgrade", sa.Boolean(), nullable=False, server_default=no)
    )
