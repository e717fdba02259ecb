"""Commanded updates: what a session must not forget, and which format user data has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the database up to this revision."""
    for table, name, value in (
        ("terminals", "nonce", "0"),
        ("images", "userdata_format", "1"),
        ("sessions", "command", "0"),
    ):
        op.add_column(table, sa.Column(name, BIG, nullable=False, server_default=value))
    no = sa.false()
    op.add_column(
        "updates", sa.Column("commanded", sa.Boolean(), nullable=False, server_default=no)
    )
    op.add_column("sessions", sa.Column("outcome", sa.String(), nullable=True))
