"""The store that lasts: SQLAlchemy on SQLite or PostgreSQL, brought up to date by Alembic."""

from unbrick.server.database.store import SqlRecords

__all__ = ["SqlRecords"]
