"""Operators and their log.

Some centers without migrations had them already, and are passed over.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Bring the database up to this revision."""
    there = sa.inspect(op.get_bind())
    if not there.has_table("operators"):
        op.create_table(
            "operators",
            sa.Column("name", sa.String(32), primary_key=True),
            sa.Column("role", sa.String(), nullable=False),
            sa.Column("password", sa.String(), nullable=False),
            sa.Column("created", sa.Float(), nullable=False),
        )
    if not there.has_table("operator_log"):
        op.create_table(
            "operator_log",
            sa.Column("id", sa.Integer(), primary_key=True),
            sa.Column("time", sa.Float(), nullable=False),
            sa.Column("operator", sa.String(), nullable=False),
            sa.Column("deed", sa.String(), nullable=False),
            sa.Column("serial", sa.String(), nullable=False),
            sa.Column("text", sa.String(), nullable=False),
            sqlite_autoincrement=True,
        )
