"""Servers that share a database remember what they read, and learn what others write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from random import Random

import pytest
from record_stores import list_statements
from test_server_records import EVENT, IMAGE, MESSAGE, TERMINAL, UPDATE

from unbrick.server.database import SqlRecords, connection
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import Actor
from unbrick.server.records.sessions import (
    Backup,
    CommandedSession,
    PlannedStep,
    SessionState,
    StepKind,
    StepState,
)
from unbrick.server.records.updates import MessageState

SERIALS = ("T-1", "T-2", "T-3")
ACTOR = Actor("server", 1.0)


def tell(records: Records) -> tuple[object, ...]:
    """All that the tests write, asked for in ways of which answers are remembered.

    Without ids: what is undone may leave a gap in them.
    """
    with records.transaction():
        return (
            [records.terminal(serial) for serial in SERIALS],
            [[replace(item, id=0) for item in records.updates(serial)] for serial in SERIALS],
            [[replace(item, id=0) for item in records.messages(serial)] for serial in SERIALS],
            records.image(IMAGE.digest),
            [replace(item, id=0) for item in records.queued_messages()],
            [tell_sessions(records, serial) for serial in SERIALS],
        )


def tell_sessions(records: Records, serial: str) -> list[object]:
    told: list[object] = []
    for session in records.sessions(serial):
        next_step = records.next_step(session.id)
        backup = records.backup(session.id)
        told += [
            session.state,
            [replace(step, session_id=0) for step in records.steps(session.id)],
            next_step and replace(next_step, session_id=0),
            backup and (backup.size, records.read_backup(backup.id, ACTOR)),
        ]
    return told


def save_terminal(records: Records, serial: str, value: int) -> None:
    records.save_terminal(replace(TERMINAL, serial=serial, endpoint=f"[::1]:{value}"))


def add_update(records: Records, serial: str, value: int) -> None:
    records.add_update(replace(UPDATE, serial=serial, text=f"{value}"))


def save_update(records: Records, serial: str, value: int) -> None:
    for update in records.updates(serial)[-1:]:
        records.save_update(replace(update, text=f"{value}"))


def add_message(records: Records, serial: str, value: int) -> None:
    records.add_message(replace(MESSAGE, serial=serial, text=f"{value}"))


def save_message(records: Records, serial: str, _: int) -> None:
    for message in records.messages(serial)[:1]:
        records.save_message(replace(message, state=MessageState.DELIVERED))


def add_event(records: Records, serial: str, value: int) -> None:
    records.add_event(replace(EVENT, serial=serial, text=f"{value}"))


def add_session(records: Records, serial: str, value: int) -> None:
    for update in records.updates(serial)[-1:]:
        session = CommandedSession(
            *(0, update.id, serial, b"", IMAGE.digest, SessionState.RUNNING, "", 1.0, 1.0)
        )
        kinds = (StepKind.BACK_UP, StepKind.WRITE, StepKind.WRITE)
        steps = [PlannedStep(0, number, kind, value, 1) for number, kind in enumerate(kinds)]
        records.add_session(session, steps)


def save_step(records: Records, serial: str, value: int) -> None:
    for session in records.unfinished_sessions(serial):
        step = records.next_step(session.id)
        if step is None:
            records.save_session(replace(session, state=SessionState.SUCCEEDED))
        else:
            records.save_step(replace(step, state=StepState.DONE, tries=value))


def change_backup(records: Records, serial: str, value: int) -> None:
    """There is none, there is one, there is another, and so on, sometimes in one transaction."""
    for session in records.sessions(serial)[-1:]:
        for _ in range(value % 4):
            backup = records.backup(session.id)
            if backup is None:
                data = b"%d" % value
                new = Backup(0, session.id, serial, len(data), b"", 1.0)
                records.add_backup(new, data, ACTOR)
            else:
                records.delete_backup(backup.id, ACTOR)


def undo(records: Records, serial: str, value: int) -> None:
    with suppress(LookupError), records.transaction():
        add_update(records, serial, value)
        save_terminal(records, serial, value)
        raise LookupError


WRITERS: tuple[Callable[[Records, str, int], None], ...] = (
    save_terminal,
    add_update,
    save_update,
    add_message,
    save_message,
    add_event,
    add_session,
    save_step,
    change_backup,
    undo,
)


def begin(records: Records) -> None:
    records.add_image(IMAGE, b"")
    for serial in SERIALS:
        save_terminal(records, serial, 1)


@pytest.fixture
def two(new_postgresql: str) -> Iterator[list[SqlRecords]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(SqlRecords(new_postgresql))) for _ in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_they_agree_whoever_writes(two: list[SqlRecords], seed: int) -> None:
    dice, model = Random(seed), MemoryRecords()
    begin(two[0])
    begin(model)
    for number in range(60):
        records = dice.choice(two)
        serial = dice.choice(SERIALS)
        for write in dice.choices(WRITERS, k=dice.randrange(1, 4)):
            for one in (records, model):
                if write is undo:
                    undo(one, serial, number)
                    continue
                with one.transaction():
                    write(one, serial, number)
        told = tell(model)
        for one in two:
            for asked, known in zip(tell(one), told, strict=True):
                assert asked == known
    one, other = two
    for known in one.updates():
        assert other.update(known.id) == known


def count_selects(records: Records, serial: str) -> int:
    """The statements that read a terminal takes."""
    with list_statements() as said, records.transaction():
        records.terminal(serial)
    return said.count("SELECT")


def test_only_what_another_has_written_is_read_again(two: list[SqlRecords]) -> None:
    one, other = two
    begin(other)
    tell(one)
    save_terminal(other, "T-1", 5)
    assert [count_selects(one, serial) for serial in SERIALS] == [1, 0, 0]


def test_who_has_missed_too_much_reads_all_again(
    two: list[SqlRecords], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "KEPT_WRITINGS", 10)
    one, other = two
    begin(other)
    tell(one)
    for number in range(25):
        save_terminal(other, "T-1", number)
    assert count_selects(one, "T-2") == 1
    with one.transaction():
        assert one.terminal("T-1") == replace(TERMINAL, serial="T-1", endpoint="[::1]:24")
    with one._database._engine.connect() as raw:
        kept = raw.exec_driver_sql("SELECT count(*) FROM writings").scalar()
    assert kept is not None
    assert kept <= 10 + 1


def test_what_another_has_removed_is_gone(two: list[SqlRecords]) -> None:
    one, other = two
    begin(other)
    tell(one)
    with other.transaction():
        other._database.table(type(TERMINAL)).remove(serial="T-2")
    with one.transaction():
        assert one.terminal("T-2") is None
