"""What Alembic runs to bring the center's own database up to date.

The user database may be the same one: the two count their revisions in tables of their own.
"""

from __future__ import annotations

from alembic import context

from unbrick.center.operators.database import META, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=META,
    transactional_ddl=True,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
