"""The keys of the links to terminals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the database up to this revision."""
    op.create_table(
        "link_keys",
        sa.Column("serial", sa.String(), primary_key=True),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("reserved", BIG, nullable=False),
        sa.Column("start", BIG, nullable=False),
        sa.Column("holder", BIG, nullable=False),
    )
