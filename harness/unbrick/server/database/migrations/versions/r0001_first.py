"""The tables of the first servers, which had no migrations.

A database of theirs has them already; it is taken to be at this revision (``open_database``).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the database up to this revision."""
    op.create_table(
        "terminals",
        sa.Column("serial", sa.String(), primary_key=True),
        sa.Column("hardware_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("build_time", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("state", BIG, nullable=False),
        sa.Column("last_update_id", BIG, nullable=False),
        sa.Column("last_result", BIG, nullable=False),
        sa.Column("security_counter", BIG, nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("first_seen", sa.Float(), nullable=False),
        sa.Column("last_seen", sa.Float(), nullable=False),
    )
    op.create_table(
        "images",
        sa.Column("id", BIG, primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("hardware_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("build_time", sa.String(), nullable=False),
        sa.Column("security_counter", BIG, nullable=False),
        sa.Column("size", BIG, nullable=False),
        sa.Column("file_size", BIG, nullable=False),
        sa.Column("file_digest", sa.LargeBinary(), nullable=False),
        sa.Column("published", sa.Float(), nullable=False),
    )
    op.create_table(
        "files",
        sa.Column("digest", sa.LargeBinary(32), sa.ForeignKey("images.digest"), primary_key=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "updates",
        sa.Column("id", BIG, primary_key=True),
        sa.Column("serial", sa.String(), nullable=False, index=True),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), sa.ForeignKey("images.digest"), nullable=False),
        sa.Column("from_version", sa.String(), nullable=False),
        sa.Column("from_digest", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("result", BIG),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "events",
        sa.Column("id", BIG, primary_key=True),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("serial", sa.String(), nullable=False, index=True),
        sa.Column("update_id", BIG, sa.ForeignKey("updates.id"), index=True),
        sa.Column("state", sa.String()),
        sa.Column("text", sa.String(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "messages",
        sa.Column("id", BIG, primary_key=True),
        sa.Column(
            "serial", sa.String(), sa.ForeignKey("terminals.serial"), nullable=False, index=True
        ),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
        sqlite_autoincrement=True,
    )
