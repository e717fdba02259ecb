"""An index for the list of terminals: what they run, and which ones do."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

COLUMNS = (
    *("hardware_id", "name", "version", "build_time", "digest", "state", "security_counter"),
    "serial",
)


def upgrade() -> None:
    """Bring the database up to this revision."""
    op.create_index("ix_terminals_running", "terminals", COLUMNS)
