"""On PostgreSQL: a count of the transactions that write, so that one can tell if others wrote."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Bring the database up to this revision."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE SEQUENCE writers")
