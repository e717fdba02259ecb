"""What Alembic runs to bring a database up to date; ``open_database`` gives it the connection."""

from __future__ import annotations

from alembic import context

from unbrick.server.database.models import META

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=META,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
