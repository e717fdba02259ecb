"""A database of any age is brought up to date, and ends as the models say."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from server_world import SERIAL

from unbrick.center.operators import database as accounts
from unbrick.errors import SetupError
from unbrick.server.database import SqlRecords
from unbrick.server.database import connection as opening
from unbrick.server.database.models import META
from unbrick.server.records.people import Actor, Subscriber
from unbrick.server.records.updates import UpdateState

FIRST = """
CREATE TABLE terminals (serial VARCHAR NOT NULL, hardware_id VARCHAR NOT NULL,
  name VARCHAR NOT NULL, version VARCHAR NOT NULL, build_time VARCHAR NOT NULL,
  digest BLOB NOT NULL, state INTEGER NOT NULL, last_update_id INTEGER NOT NULL,
  last_result INTEGER NOT NULL, security_counter INTEGER NOT NULL, endpoint VARCHAR NOT NULL,
  first_seen FLOAT NOT NULL, last_seen FLOAT NOT NULL, PRIMARY KEY (serial));
CREATE TABLE images (id INTEGER NOT NULL, digest BLOB NOT NULL, version VARCHAR NOT NULL,
  hardware_id VARCHAR NOT NULL, name VARCHAR NOT NULL, build_time VARCHAR NOT NULL,
  security_counter INTEGER NOT NULL, size INTEGER NOT NULL, file_size INTEGER NOT NULL,
  file_digest BLOB NOT NULL, published FLOAT NOT NULL, PRIMARY KEY (id), UNIQUE (digest));
CREATE TABLE files (digest BLOB NOT NULL, data BLOB NOT NULL, PRIMARY KEY (digest),
  FOREIGN KEY(digest) REFERENCES images (digest));
CREATE TABLE updates (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, serial VARCHAR NOT NULL,
  version VARCHAR NOT NULL, digest BLOB NOT NULL, from_version VARCHAR NOT NULL,
  from_digest BLOB NOT NULL, state VARCHAR NOT NULL, result INTEGER, text VARCHAR NOT NULL,
  created FLOAT NOT NULL, changed FLOAT NOT NULL,
  FOREIGN KEY(digest) REFERENCES images (digest));
CREATE INDEX ix_updates_serial ON updates (serial);
CREATE INDEX ix_updates_state ON updates (state);
CREATE TABLE events (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, time FLOAT NOT NULL,
  serial VARCHAR NOT NULL, update_id INTEGER, state VARCHAR, text VARCHAR NOT NULL,
  FOREIGN KEY(update_id) REFERENCES updates (id));
CREATE INDEX ix_events_serial ON events (serial);
CREATE INDEX ix_events_update_id ON events (update_id);
CREATE TABLE messages (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, serial VARCHAR NOT NULL,
  text VARCHAR NOT NULL, state VARCHAR NOT NULL, created FLOAT NOT NULL, changed FLOAT NOT NULL,
  FOREIGN KEY(serial) REFERENCES terminals (serial));
CREATE INDEX ix_messages_serial ON messages (serial);
CREATE INDEX ix_messages_state ON messages (state);
INSERT INTO terminals VALUES ('T-0001', 'hw', 'terminal', '1.0.0+0', '2024-01-01T00:00:00Z',
  x'6f6f', 0, 7, 0, 4294967295, '127.0.0.1:9', 1.0, 2.0);
INSERT INTO images VALUES (1, x'6e6e', '1.1.0+0', 'hw', 'terminal', '2024-05-01T00:00:00Z',
  2, 9, 10, x'6666', 3.0);
INSERT INTO files VALUES (x'6e6e', x'00112233');
INSERT INTO updates VALUES (3, 'T-0001', '1.1.0+0', x'6e6e', '1.0.0+0', x'6f6f', 'rewriting',
  NULL, '', 4.0, 5.0);
INSERT INTO events VALUES (1, 4.0, 'T-0001', 3, 'pending', '');
INSERT INTO messages VALUES (1, 'T-0001', 'hi', 'queued', 6.0, 6.0);
"""
"""What the first servers made, with something in it."""

SECOND = """
ALTER TABLE terminals ADD COLUMN confirmed BLOB;
ALTER TABLE updates ADD COLUMN restoration BOOLEAN;
ALTER TABLE updates ADD COLUMN kind INTEGER;
CREATE TABLE differences (base BLOB NOT NULL, digest BLOB NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (base, digest), FOREIGN KEY(base) REFERENCES images (digest),
  FOREIGN KEY(digest) REFERENCES images (digest));
INSERT INTO differences VALUES (x'6e6e', x'6e6e', x'77');
UPDATE terminals SET confirmed = x'6f6f';
"""
"""What servers without migrations added later."""


def differences(url: str) -> list[object]:
    """How a database differs from what the models say."""
    engine = opening.open_database(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, META)
    engine.dispose()
    return list(found)


def test_the_migrations_end_as_the_models_say(database_url: str) -> None:
    assert differences(database_url) == []


@pytest.mark.parametrize("script", [FIRST, FIRST + SECOND], ids=["first", "second"])
def test_a_database_from_before_the_migrations_is_taken_over(tmp_path: Path, script: str) -> None:
    path = tmp_path / "records.db"
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    later = script is not FIRST

    assert differences(f"sqlite:///{path}") == []
    records = SqlRecords(str(path))
    (terminal,) = records.terminals()
    assert (terminal.serial, terminal.digest, terminal.security_counter) == (
        SERIAL,
        b"oo",
        2**32 - 1,
    )
    assert terminal.confirmed == (b"oo" if later else b"")
    (update,) = records.unfinished_updates()
    assert (update.id, update.state, update.restoration, update.kind) == (
        3,
        UpdateState.REWRITING,
        False,
        None,
    )
    assert records.image_file(b"nn") == bytes.fromhex("00112233")
    assert records.difference(b"nn", b"nn") == (b"w" if later else None)
    assert [message.text for message in records.queued_messages()] == ["hi"]
    assert [event.update_id for event in records.events()] == [3]
    (installation,) = records.installations(SERIAL)
    assert (installation.version, installation.since) == ("1.0.0+0", 2.0)
    records.close()


def test_a_migration_that_is_broken_off_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.db"
    connection = sqlite3.connect(path)
    connection.executescript(FIRST)
    before = connection.execute("SELECT name, sql FROM sqlite_master").fetchall()

    def then_die(*args: object, **more: object) -> None:
        bring_up_to_date(*args, **more)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    bring_up_to_date = opening.bring_up_to_date
    monkeypatch.setattr(opening, "bring_up_to_date", then_die)
    with pytest.raises(KeyboardInterrupt):
        SqlRecords(str(path))
    monkeypatch.undo()
    assert connection.execute("SELECT name, sql FROM sqlite_master").fetchall() == before
    connection.close()
    assert differences(f"sqlite:///{path}") == []


def test_several_that_open_a_new_database_at_once_agree(database_url: str) -> None:
    errors: list[Exception] = []

    def work() -> None:
        try:
            SqlRecords(database_url).close()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert differences(database_url) == []


def test_what_was_kept_is_there_after_another_opening(database_url: str) -> None:
    records = SqlRecords(database_url)
    alice = Subscriber(0, "+441632960001", "Älice", 1.0)
    kept = records.add_subscriber(alice, Actor("clerk", 1.0))
    records.close()
    records = SqlRecords(database_url)
    assert records.subscribers() == [kept]
    records.close()


def test_a_later_versions_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    SqlRecords(str(path)).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(SetupError, match="9999") as caught:
        SqlRecords(str(path))
    assert "later" in str(caught.value.hint)


@pytest.mark.parametrize("folder", [opening.MIGRATIONS, accounts.MIGRATIONS])
def test_the_newest_migration_is_told_by_its_files_name(folder: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(folder))
    assert [opening._find_newest(folder)] == ScriptDirectory.from_config(config).get_heads()


@pytest.mark.parametrize(
    "store",
    ["unbrick.server.database SqlRecords", "unbrick.center.operators.database SqlAccounts"],
    ids=["records", "accounts"],
)
def test_a_database_that_is_up_to_date_is_opened_without_alembic(
    store: str, tmp_path: Path
) -> None:
    """Importing it takes a fifth of a server's start."""
    module, name = store.split()
    open_it = f"import sys; from {module} import {name}; {name}('records.db')"
    for used in (True, False):
        asked = [sys.executable, "-c", f"{open_it}; print('alembic.command' in sys.modules)"]
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == f"{used}\n"
