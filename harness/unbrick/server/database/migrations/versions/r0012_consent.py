"""Whether the users of terminals are asked in a rollout, and whether each has consented."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Bring the database up to this revision."""
    for table, name in (("rollouts", "consent"), ("rollout_members", "consented")):
        op.add_column(
            table, sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
        )
