"""Rollouts and their terminals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, BIG, nullable=False)


def _yes(name: str, *, index: bool | None = None) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False, index=index)


def _time(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=nullable)


def upgrade() -> None:
    """Bring the database up to this revision."""
    op.create_table(
        "rollouts",
        sa.Column("id", BIG, primary_key=True),
        _text("name"),
        sa.Column("digest", sa.LargeBinary(), sa.ForeignKey("images.digest"), nullable=False),
        *(
            _text(name)
            for name in ("version", "hardware_id", "serials", "software", "runs", "groups")
        ),
        _number("success"),
        _number("error"),
        _yes("commanded"),
        _yes("downgrade"),
        _time("not_before", nullable=True),
        _text("state"),
        _number("group"),
        _text("text"),
        _yes("settled", index=True),
        _time("created"),
        _text("created_by"),
        _text("approved_by"),
        _time("changed"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rollout_members",
        sa.Column("rollout_id", BIG, sa.ForeignKey("rollouts.id"), primary_key=True),
        sa.Column("serial", sa.String(), sa.ForeignKey("terminals.serial"), primary_key=True),
        _number("group"),
        _text("state"),
        sa.Column("update_id", BIG, sa.ForeignKey("updates.id"), nullable=True, index=True),
        _text("text"),
        _time("changed"),
    )
    op.create_index("ix_audit_subject", "audit", ["subject"])
