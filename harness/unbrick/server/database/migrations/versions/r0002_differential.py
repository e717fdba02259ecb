"""Differential files, and updates that the server begins by itself.

Some servers without migrations had these already, and are passed over.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the database up to this revision."""
    there = sa.inspect(op.get_bind())
    for table, column in (
        ("terminals", sa.Column("confirmed", sa.LargeBinary())),
        ("updates", sa.Column("restoration", sa.Boolean())),
        ("updates", sa.Column("kind", BIG)),
    ):
        if column.name not in {found["name"] for found in there.get_columns(table)}:
            op.add_column(table, column)
    if not there.has_table("differences"):
        op.create_table(
            "differences",
            sa.Column("base", sa.LargeBinary(32), sa.ForeignKey("images.digest"), primary_key=True),
            sa.Column(
                "digest", sa.LargeBinary(32), sa.ForeignKey("images.digest"), primary_key=True
            ),
            sa.Column("data", sa.LargeBinary(), nullable=False),
        )
