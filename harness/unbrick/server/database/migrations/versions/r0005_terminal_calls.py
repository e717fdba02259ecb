"""Calls that a terminal's user makes: the terminal's end of them, and what is to be said there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the database up to this revision."""
    op.create_table(
        "terminal_calls",
        sa.Column("call_id", BIG, sa.ForeignKey("calls.id"), primary_key=True),
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("number", BIG, nullable=False),
        sa.Column("keys", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False, index=True),
    )
    op.create_table(
        "sayings",
        sa.Column("call_id", BIG, sa.ForeignKey("calls.id"), primary_key=True),
        sa.Column("count", BIG, primary_key=True),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("heard", sa.Boolean(), nullable=False),
    )
    # Calls that have not ended are looked for four times a second.
    op.create_index("ix_calls_ended", "calls", ["ended"])
