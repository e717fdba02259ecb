"""What transactions have written, for the other servers that share a database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the database up to this revision."""
    op.create_table(
        "writings",
        sa.Column("number", BIG, primary_key=True, autoincrement=False),
        sa.Column("what", sa.String(), nullable=False),
    )
