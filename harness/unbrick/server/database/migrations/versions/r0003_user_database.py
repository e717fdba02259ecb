"""The user database: subscribers, history, analysis, calls, sessions, backups, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, *, index: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False, index=index)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, BIG, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=nullable)


def _id() -> sa.Column[int]:
    return sa.Column("id", BIG, primary_key=True)


def _other(
    name: str, to: str, *, index: bool | None = None, unique: bool | None = None
) -> sa.Column[int]:
    key = sa.ForeignKey(to)
    return sa.Column(name, BIG, key, nullable=False, index=index, unique=unique)


def _terminal() -> sa.Column[str]:
    key = sa.ForeignKey("terminals.serial")
    return sa.Column("serial", sa.String(), key, nullable=False, index=True)


def upgrade() -> None:
    """Bring the database up to this revision."""
    _people()
    _software()
    _preparations()
    _sessions()
    op.create_table(
        "audit",
        _id(),
        _time("time"),
        _text("actor"),
        _text("action"),
        _text("serial", index=True),
        _number("subject"),
        _text("text"),
        sqlite_autoincrement=True,
    )
    _append_only("audit")


def _people() -> None:
    op.create_table(
        "subscribers",
        _id(),
        sa.Column("phone", sa.String(), nullable=False, unique=True),
        _text("name"),
        _time("created"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "ownerships",
        sa.Column("serial", sa.String(), primary_key=True),
        _other("subscriber_id", "subscribers.id", index=True),
    )
    op.create_table(
        "calls",
        _id(),
        _text("serial", index=True),
        _text("caller"),
        _text("keys"),
        _text("outcome"),
        _text("text"),
        _time("started"),
        _time("ended", nullable=True),
        sqlite_autoincrement=True,
    )


def _software() -> None:
    op.create_table(
        "software",
        _id(),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        _text("hardware_id"),
        _text("name"),
        _text("version"),
        _text("build_time"),
        sa.UniqueConstraint("digest", "hardware_id", "name", "version", "build_time"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "installations",
        _id(),
        _terminal(),
        _other("software_id", "software.id"),
        _time("since"),
        _time("until", nullable=True),
        sqlite_autoincrement=True,
    )
    # What is known of terminals that registered before there was a history: since when at most.
    op.execute(
        "INSERT INTO software (digest, hardware_id, name, version, build_time)"
        " SELECT DISTINCT digest, hardware_id, name, version, build_time FROM terminals"
        " WHERE state = 0"
    )
    op.execute(
        "INSERT INTO installations (serial, software_id, since)"
        " SELECT t.serial, s.id, t.last_seen FROM terminals t JOIN software s"
        " ON s.digest = t.digest AND s.hardware_id = t.hardware_id AND s.name = t.name"
        " AND s.version = t.version AND s.build_time = t.build_time"
        " WHERE t.state = 0 ORDER BY t.serial"
    )


def _preparations() -> None:
    op.create_table(
        "analyses",
        _id(),
        _terminal(),
        _time("time"),
        _text("verdict"),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        _text("reason"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "preparations",
        sa.Column("base", sa.LargeBinary(32), sa.ForeignKey("images.digest"), primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), sa.ForeignKey("images.digest"), primary_key=True),
        _text("state", index=True),
        _number("tries"),
        _number("file_size", nullable=True),
        _text("text"),
        _time("created"),
        _time("changed"),
    )
    op.create_table(
        "ranges",
        sa.Column("base", sa.LargeBinary(32), primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("offset", BIG, primary_key=True),
        _number("length"),
        sa.ForeignKeyConstraint(["base", "digest"], ["preparations.base", "preparations.digest"]),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        _id(),
        _other("update_id", "updates.id", index=True),
        _text("serial", index=True),
        sa.Column("base", sa.LargeBinary(32), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), sa.ForeignKey("images.digest"), nullable=False),
        _text("state", index=True),
        _text("text"),
        _time("created"),
        _time("changed"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "steps",
        sa.Column("session_id", BIG, sa.ForeignKey("sessions.id"), primary_key=True),
        sa.Column("number", BIG, primary_key=True),
        _text("kind"),
        _number("offset"),
        _number("length"),
        _text("state"),
        _number("tries"),
        _number("result", nullable=True),
        _text("text"),
        _time("changed"),
    )
    op.create_table(
        "backups",
        _id(),
        _other("session_id", "sessions.id", unique=True),
        _text("serial", index=True),
        _number("size"),
        sa.Column("checksum", sa.LargeBinary(32), nullable=False),
        _time("created"),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sqlite_autoincrement=True,
    )


def _append_only(table: str) -> None:
    """Have the database itself refuse to change or to remove rows."""
    if op.get_bind().dialect.name == "sqlite":
        # A row is replaced (INSERT OR REPLACE) without a word to the triggers of DELETE.
        there = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)"  # noqa: S608 - ours
        for what, when in (("UPDATE", ""), ("DELETE", ""), ("INSERT", there)):
            op.execute(
                f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table} {when}"
                f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
    )
