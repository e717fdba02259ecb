"""Operators: both stores, passwords, the throttle, and the commands that make accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import argon2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from center_world import PASSWORD, QUICK
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from unbrick.center.operators.accounts import (
    MAX_PASSWORD_CHARS,
    MIN_PASSWORD_CHARS,
    PasswordError,
    Passwords,
    Permission,
    Throttle,
    add_operator,
    may,
)
from unbrick.center.operators.database import META, SqlAccounts
from unbrick.center.operators.records import (
    Accounts,
    Deed,
    LogEntry,
    MemoryAccounts,
    Operator,
    Role,
)
from unbrick.cli.center import COMMANDS
from unbrick.errors import SetupError
from unbrick.server.database import SqlRecords
from unbrick.server.database.connection import open_database


@pytest.fixture(params=["memory", "file"])
def accounts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Accounts]:
    if request.param == "memory":
        yield MemoryAccounts()
        return
    store = SqlAccounts(str(tmp_path / "center.db"))
    yield store
    store.close()


def test_operators_are_kept_changed_and_removed(accounts: Accounts) -> None:
    zoe = Operator("zoe", Role.CLERK, "hash", 1.5)
    cleo = Operator("cleo", Role.AUDITOR, "other", 2.5)
    for operator in (zoe, cleo):
        accounts.save_operator(operator)
    assert accounts.operators() == [cleo, zoe]
    changed = Operator("zoe", Role.ENGINEER, "new", 1.5)
    accounts.save_operator(changed)
    assert accounts.operator("zoe") == changed
    accounts.remove_operator("zoe")
    accounts.remove_operator("nobody")
    assert accounts.operator("zoe") is None
    assert accounts.operators() == [cleo]


def test_the_log_gives_the_latest_first(accounts: Accounts) -> None:
    for number in range(5):
        accounts.log(LogEntry(99, float(number), "cleo", Deed.CALLED, "T-1", f"call {number}"))
    assert [entry.text for entry in accounts.entries(3)] == ["call 4", "call 3", "call 2"]
    assert accounts.entries(9)[-1] == LogEntry(1, 0.0, "cleo", Deed.CALLED, "T-1", "call 0")
    assert accounts.entries(0) == []


def test_what_a_file_keeps_outlives_the_store(tmp_path: Path) -> None:
    path = str(tmp_path / "center.db")
    operator = Operator("cleo", Role.CLERK, "hash", 1.5)
    first = SqlAccounts(path)
    first.save_operator(operator)
    first.close()
    second = SqlAccounts(path)
    assert second.operators() == [operator]
    second.close()


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="accounts cannot be opened") as caught:
        SqlAccounts(str(tmp_path / "none" / "center.db"))
    assert "path of a file" in caught.value.hint


def test_the_migrations_end_as_the_tables_say_beside_the_user_database(database_url: str) -> None:
    users = SqlRecords(database_url)
    SqlAccounts(database_url).close()
    SqlAccounts(database_url).close()
    engine = open_database(database_url)
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": "alembic_version_center"}
        context = MigrationContext.configure(connection, opts=options)
        found = [
            difference
            for difference in compare_metadata(context, META)
            if not (difference[0].startswith("remove_") and "operator" not in str(difference[1]))
        ]
        assert context.get_current_revision() == "0001"
    engine.dispose()
    users.close()
    assert found == []


def test_a_database_from_before_the_migrations_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "center.db"
    engine = create_engine(f"sqlite:///{path}")
    META.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO operators VALUES ('zoe', 'clerk', 'hash', 1.5)")
    engine.dispose()
    store = SqlAccounts(str(path))
    assert store.operators() == [Operator("zoe", Role.CLERK, "hash", 1.5)]
    store.close()


def test_every_role_may_do_something_of_its_own() -> None:
    able = {
        role: {item for item in Permission if may(Operator("x", role, "", 0.0), item)}
        for role in Role
    }
    assert able[Role.CLERK] - able[Role.ENGINEER] - able[Role.AUDITOR] == {Permission.CALL}
    assert able[Role.ENGINEER] - able[Role.CLERK] == {Permission.UPDATE}
    assert Permission.SEE_SUBSCRIBERS not in able[Role.ENGINEER]
    assert able[Role.AUDITOR] == {Permission.SEE_SUBSCRIBERS, Permission.SEE_LOG}


@pytest.mark.slow
def test_a_password_is_kept_as_argon2id_with_a_salt() -> None:
    passwords = Passwords()
    first, second = (Operator("x", Role.CLERK, passwords.hash(PASSWORD), 0.0) for _ in "ab")
    assert first.password.startswith("$argon2id$")
    assert first.password != second.password
    assert passwords.fits(first, PASSWORD)
    assert not passwords.fits(first, PASSWORD + "x")
    assert not passwords.fits(None, PASSWORD)
    assert passwords.renewed(first, PASSWORD) is None
    old = Operator("x", Role.CLERK, QUICK.hash(PASSWORD), 0.0)
    renewed = passwords.renewed(old, PASSWORD)
    assert renewed
    assert passwords.fits(renewed, PASSWORD)


@pytest.mark.parametrize("hasher", [argon2.PasswordHasher(), QUICK._hasher])
def test_to_compare_with_nobodys_password_takes_as_long(hasher: argon2.PasswordHasher) -> None:
    """It is a hash that Argon2 works out, by the same parameters as any other."""
    nobody, kept = Passwords(hasher)._nobody, hasher.hash(PASSWORD)
    assert argon2.extract_parameters(nobody) == argon2.extract_parameters(kept)
    with pytest.raises(argon2.exceptions.VerifyMismatchError):
        hasher.verify(nobody, PASSWORD)


@pytest.mark.parametrize(
    "password", ["", "x" * (MIN_PASSWORD_CHARS - 1), "x" * (MAX_PASSWORD_CHARS + 1)]
)
def test_passwords_that_will_not_do(password: str) -> None:
    with pytest.raises(PasswordError, match="12 to 256 characters"):
        QUICK.hash(password)


@given(st.text(max_size=300))
def test_no_other_password_and_no_broken_hash_fits(text: str) -> None:
    operator = Operator("x", Role.CLERK, QUICK.hash(PASSWORD), 0.0)
    assert QUICK.fits(operator, text) is (text == PASSWORD)
    assert not QUICK.fits(Operator("x", Role.CLERK, text, 0.0), PASSWORD)


@pytest.mark.parametrize("name", ["", "Cleo", "1a", "a b", "a" * 33, "cleö", "a/b", "?"])
def test_names_that_will_not_do(name: str) -> None:
    accounts = MemoryAccounts()
    with pytest.raises(PasswordError, match="cannot be an operator's name"):
        add_operator(accounts, QUICK, name, Role.CLERK, PASSWORD, 0.0)
    assert accounts.operators() == []
    assert accounts.entries(9) == []


# The throttle


def test_who_fails_too_often_waits_longer_and_longer() -> None:
    throttle = Throttle(3)
    now = 0.0
    waits = []
    for _ in range(12):
        throttle.failed("key", now)
        waits.append(throttle.wait("key", now))
        now += waits[-1]
        assert throttle.wait("key", now) == 0
    assert waits[:6] == [0, 0, 30, 60, 120, 240]
    assert waits[-1] == Throttle.MAX_WAIT_S
    assert throttle.wait("other", now) == 0


def test_success_and_an_hour_forgive() -> None:
    throttle = Throttle(1)
    throttle.failed("a", 0.0)
    throttle.succeeded("a")
    assert throttle.wait("a", 0.0) == 0
    throttle = Throttle(2)
    throttle.failed("a", 0.0)
    throttle.failed("a", Throttle.MEMORY_S)
    assert throttle.wait("a", Throttle.MEMORY_S) == 0


def test_the_throttle_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Throttle, "KEYS", 10)
    throttle = Throttle(1)
    for number in range(11):
        throttle.failed(number, 0.0)
    assert throttle.wait(0, 0.0) == 0, "the oldest is forgotten"
    assert throttle.wait(1, 0.0) > 0


# Commands


def run(path: Path, *arguments: str, typed: str = "") -> str:
    options = ["--accounts", str(path / "center.db")] if arguments[0] != "--help" else []
    result = CliRunner().invoke(
        COMMANDS[0], [*arguments, *options], input=typed, catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_accounts_by_command(tmp_path: Path) -> None:
    assert "there are no operators" in run(tmp_path, "operators")
    twice = f"{PASSWORD}\n{PASSWORD}\n"
    said = run(tmp_path, "add-operator", "cleo", "--role", "clerk", typed=twice)
    assert "cleo may sign in as clerk" in said
    assert PASSWORD not in said
    run(tmp_path, "add-operator", "cleo", "--role", "auditor", typed=twice)
    assert "auditor" in run(tmp_path, "operators")
    run(tmp_path, "remove-operator", "cleo")
    with pytest.raises(SetupError, match="no operator 'cleo'"):
        run(tmp_path, "remove-operator", "cleo")
    store = SqlAccounts(str(tmp_path / "center.db"))
    deeds = [entry.deed for entry in store.entries(9)]
    store.close()
    assert deeds == [Deed.REMOVED, Deed.CHANGED, Deed.ADDED]
