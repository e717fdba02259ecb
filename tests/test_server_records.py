"""Both stores keep the same promises."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_stores import Open, list_statements
from server_world import SERIAL, inspect, make_image, registration
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from unbrick.errors import SetupError
from unbrick.server.core.core import ServerCore
from unbrick.server.database import SqlRecords, answers
from unbrick.server.database.connection import complete_url
from unbrick.server.errors import RecordsError
from unbrick.server.records.contract import ANY, IDLE
from unbrick.server.records.people import Actor, Subscriber
from unbrick.server.records.tables import Elsewhere, UndoneError
from unbrick.server.records.updates import (
    Event,
    Image,
    MessageState,
    Running,
    Terminal,
    TextMessage,
    Update,
    UpdateState,
)
from unbrick.wire.messages import Result, TerminalState

TERMINAL = Terminal(
    **vars(registration(last_result=Result.RESTORED, state=TerminalState.RESTORATION)),
    endpoint="127.0.0.1:4000",
    first_seen=1.5,
    last_seen=2.5,
)
IMAGE = Image(
    b"d" * 32, "1.1.0+0", "hw", "terminal", "2024-05-01T12:00:00Z", 2, 9, 10, b"f" * 32, 3.5
)
UPDATE = Update(
    0, SERIAL, "1.1.0+0", IMAGE.digest, "", b"", UpdateState.PENDING, None, "", 4.0, 4.0
)
EVENT = Event(0, 5.0, SERIAL, None, None, "hello")
MESSAGE = TextMessage(0, SERIAL, "hi", MessageState.QUEUED, 6.0, 6.0)


def test_an_empty_store_has_nothing(open_records: Open) -> None:
    with open_records() as records:
        assert records.terminal(SERIAL) is None
        assert records.image(b"d" * 32) is None
        assert records.update(1) is None
        assert records.message(1) is None
        assert records.terminals() == []
        assert records.images() == []
        assert records.updates() == []
        assert records.unfinished_updates() == []
        assert records.events() == []
        assert records.messages() == []
        with pytest.raises(KeyError):
            records.image_file(b"d" * 32)


def test_what_was_kept_comes_back_as_it_was(open_records: Open) -> None:
    with open_records() as records:
        records.save_terminal(TERMINAL)
        records.add_image(IMAGE, b"the file")
        update = records.add_update(UPDATE)
        event = replace(EVENT, id=1, update_id=update.id, state=UpdateState.FAILED)
        records.add_event(event)
        message = records.add_message(MESSAGE)
        assert (update.id, message.id) == (1, 1)
    with open_records() as records:
        assert records.terminal(SERIAL) == TERMINAL
        assert records.terminals() == [TERMINAL]
        assert records.image(IMAGE.digest) == IMAGE
        assert records.images() == [IMAGE]
        assert records.image_file(IMAGE.digest) == b"the file"
        assert records.update(1) == update
        assert records.events() == [event]
        assert records.message(1) == message


def test_what_changed_is_kept(open_records: Open) -> None:
    with open_records() as records:
        records.save_terminal(TERMINAL)
        records.add_image(IMAGE, b"")
        update = records.add_update(UPDATE)
        message = records.add_message(MESSAGE)
        terminal = replace(TERMINAL, version="2.0.0+0", last_seen=9.0)
        records.save_terminal(terminal)
        failed = replace(
            update, state=UpdateState.FAILED, result=Result.TRIAL_FAILED, text="no", changed=8.0
        )
        records.save_update(failed)
        delivered = replace(message, state=MessageState.DELIVERED, changed=7.0)
        records.save_message(delivered)
    with open_records() as records:
        assert records.terminals() == [terminal]
        assert records.updates() == [failed]
        assert records.messages() == [delivered]
        assert records.unfinished_updates() == []
        assert records.queued_messages() == []


def test_with_whom_something_is_under_way_is_known_also_amid_a_transaction(
    open_records: Open,
) -> None:
    def serials(among: Elsewhere) -> list[str]:
        what = Running(*(getattr(TERMINAL, name) for name in Running._fields))
        found = records.terminals_running(what, among=among)
        assert sum(records.running(among=among).values()) == len(found)
        return [item.serial for item in found]

    with open_records() as records:
        records.add_image(IMAGE, b"")
        with records.transaction():
            for serial in ("a", "b", "c"):
                records.save_terminal(replace(TERMINAL, serial=serial))
            assert serials(IDLE) == serials(ANY) == ["a", "b", "c"]
            update = records.add_update(replace(UPDATE, serial="b", state=UpdateState.PENDING))
            assert serials(IDLE) == ["a", "c"]
            among = records.under_way()
            assert {version: serials(theirs) for version, theirs in among.items()} == {
                update.version: ["b"],
                "": [],
            }
            records.save_update(replace(update, state=UpdateState.FAILED))
            assert serials(IDLE) == ["a", "b", "c"]
        assert records.under_way().keys() == {""}


def test_listings_are_in_order_and_can_be_narrowed(open_records: Open) -> None:
    with open_records() as records:
        for serial in ("b", "a"):
            records.save_terminal(replace(TERMINAL, serial=serial))
        records.add_image(IMAGE, b"")
        states = [UpdateState.FAILED, UpdateState.REWRITING, UpdateState.PENDING]
        for serial, state in zip("aba", states, strict=True):
            update = records.add_update(replace(UPDATE, serial=serial, state=state))
            records.add_event(replace(EVENT, serial=serial, update_id=update.id))
            records.add_message(replace(MESSAGE, serial=serial))
        records.add_event(replace(EVENT, serial="a"))
        assert [item.serial for item in records.terminals()] == ["a", "b"]
        assert [item.id for item in records.updates()] == [1, 2, 3]
        assert [item.id for item in records.updates("a")] == [1, 3]
        assert [item.id for item in records.updates_after(0, 2)] == [1, 2]
        assert [item.id for item in records.updates_after(1, 9)] == [2, 3]
        assert [item.id for item in records.updates_after(2**63 - 1, 9)] == []
        assert [item.id for item in records.unfinished_updates()] == [2, 3]
        assert [item.id for item in records.events(serial="a")] == [1, 3, 4]
        assert [item.id for item in records.events(update_id=2)] == [2]
        assert [item.id for item in records.events(serial="a", newest=2)] == [3, 4]
        assert [item.id for item in records.events(newest=9)] == [1, 2, 3, 4]
        assert [item.id for item in records.messages("b")] == [2]


def test_events_are_read_on_from_the_last_one_that_was_seen(open_records: Open) -> None:
    states = [None, UpdateState.PENDING, UpdateState.ANNOUNCED, UpdateState.CANCELLED, None]
    wanted = frozenset({UpdateState.PENDING, UpdateState.CANCELLED})
    with open_records() as records:
        records.save_terminal(TERMINAL)
        for number, state in enumerate(states):
            records.add_event(replace(EVENT, state=state, text=str(number)))
        seen = records.events()[0].id
        assert [event.text for event in records.events_after(seen)] == ["1", "2", "3", "4"]
        assert [event.text for event in records.events_after(seen, wanted)] == ["1", "3"]
        assert records.events_after(records.events()[-1].id) == []


def test_a_transaction_that_fails_leaves_nothing(open_records: Open) -> None:
    with open_records() as records:
        records.save_terminal(TERMINAL)

        def fail() -> None:
            with records.transaction():
                records.save_terminal(replace(TERMINAL, version="2.0.0+0"))
                records.add_event(EVENT)
                assert records.events() != []
                raise RuntimeError("power")

        with pytest.raises(RuntimeError, match="power"):
            fail()
        assert records.events() == []
    with open_records() as records:
        assert records.terminals() == [TERMINAL]


def test_a_transaction_inside_another_is_a_part_of_it(open_records: Open) -> None:
    with open_records() as records:
        with records.transaction():
            with records.transaction():
                records.save_terminal(TERMINAL)
            records.add_event(EVENT)

        def fail(where: str) -> None:
            with records.transaction():
                records.add_event(EVENT)
                # Somebody takes it for handled.
                with contextlib.suppress(RuntimeError), records.transaction():
                    records.add_event(EVENT)
                    if where == "inside":
                        raise RuntimeError("power")
                if where == "outside":
                    raise RuntimeError("power")

        with pytest.raises(UndoneError):
            fail("inside")
        with pytest.raises(RuntimeError, match="power"):
            fail("outside")
    with open_records() as records:
        assert records.terminals() == [TERMINAL]
        assert len(records.events()) == 1
        with records.transaction():
            records.add_event(EVENT)
        assert len(records.events()) == 2


def test_the_core_does_the_same_on_every_store(open_records: Open) -> None:
    data = make_image()
    with open_records() as records:
        core = ServerCore(records, inspect)
        image = core.publish(data, 1.0)
        update = core.start_update(SERIAL, "1.1.0", 2.0)
    with open_records() as records:
        assert records.image_file(image.digest) == data
        assert records.unfinished_updates() == [update]
        events = records.events(update_id=update.id)
        assert [(event.time, event.state) for event in events] == [(2.0, UpdateState.PENDING)]


def test_what_another_process_writes_is_seen_in_the_next_transaction(database_url: str) -> None:
    ours, theirs = SqlRecords(database_url), SqlRecords(database_url)
    ours.add_image(IMAGE, b"")
    update = ours.add_update(UPDATE)
    for records in (ours, theirs):
        records.save_terminal(TERMINAL)
    for version in ("2.0.0+0", "3.0.0+0"):
        for writer, reader in ((ours, theirs), (theirs, ours)):
            new = replace(TERMINAL, version=version, endpoint=str(writer))
            text = f"{version} {writer}"
            state = replace(update, text=text)
            with writer.transaction():
                writer.save_terminal(new)
                writer.save_update(state)
                writer.add_message(replace(MESSAGE, text=version))
                other = writer.add_update(replace(UPDATE, text=version))
                writer.add_image(replace(IMAGE, digest=text.encode(), version=text), b"")
            for records in (reader, writer):
                assert records.terminal(SERIAL) == new
                assert records.update(update.id) == state
                with records.transaction():
                    assert records.terminal(SERIAL) == new
                    assert records.update(update.id) == state
                    assert records.updates(SERIAL)[-1] == other
                    assert records.messages(SERIAL)[-1].text == version
                    assert records.images()[-1].version == text
    ours.close()
    theirs.close()


def test_what_is_written_in_a_transaction_is_read_in_it(open_records: Open) -> None:
    """Whether it was written at once, or waits for the others of its kind."""
    with open_records() as records:
        records.add_image(IMAGE, b"")
        with records.transaction():
            records.save_terminal(TERMINAL)
            update = records.add_update(UPDATE)
            for number in range(3):
                records.save_terminal(replace(TERMINAL, endpoint=str(number)))
                update = replace(update, text=str(number))
                assert records.update(update.id) is not None
                records.save_update(update)
                records.add_event(replace(EVENT, update_id=update.id, text=str(number)))
                if number == 1:
                    assert [item.text for item in records.events()] == ["0", "1"]
                    assert [item.endpoint for item in records.terminals()] == ["1"]
                    assert records.unfinished_updates() == [update]
            records.add_event(EVENT)
    with open_records() as records:
        assert [item.text for item in records.events()] == ["0", "1", "2", "hello"]
        assert [item.endpoint for item in records.terminals()] == ["2"]
        assert records.updates() == [update]


def test_what_was_undone_is_not_remembered(open_records: Open) -> None:
    with open_records() as records:
        records.add_image(IMAGE, b"")
        update = records.add_update(UPDATE)
        records.save_terminal(TERMINAL)

        def fail() -> None:
            with records.transaction():
                assert records.terminal(SERIAL) == TERMINAL
                records.save_terminal(replace(TERMINAL, version="2.0.0+0"))
                records.save_update(replace(update, text="new"))
                assert records.terminal(SERIAL) != TERMINAL
                raise RuntimeError("power")

        with pytest.raises(RuntimeError, match="power"):
            fail()
        with records.transaction():
            assert records.terminal(SERIAL) == TERMINAL
            assert records.update(update.id) == update


def test_the_memory_of_records_is_bounded(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "REMEMBERED", 30)
    records = SqlRecords(database_url)
    with records.transaction():
        for number in range(100):
            records.save_terminal(replace(TERMINAL, serial=str(number)))
            records.add_message(replace(MESSAGE, serial="0"))
            assert records.messages("0")
            assert records._database.answers.size <= 30
        assert all(records.terminal(str(number)) for number in range(100))
        assert len(records.messages("0")) == 100
    records.close()


def test_the_database_refuses_what_hangs_in_the_air(database_url: str) -> None:
    records = SqlRecords(database_url)
    with pytest.raises(IntegrityError):
        records.add_update(UPDATE)
    with pytest.raises(IntegrityError):
        records.add_message(MESSAGE)
    records.close()


@pytest.mark.parametrize(
    "url",
    [
        "/nowhere/at/all.db",
        "nothing://x",
        "mysql://x/y",
        "sqlite:////",
        "postgresql://127.0.0.1:1/x",
    ],
)
def test_a_database_that_cannot_be_opened_says_so_in_one_line(url: str) -> None:
    with pytest.raises(SetupError, match="cannot be opened") as caught:
        SqlRecords(url)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(SetupError):
        SqlRecords(str(path))
    assert path.read_text() == "Dear Sir or Madam, " * 100


def test_what_terminals_run_is_counted_and_they_are_read_some_at_a_time(
    open_records: Open,
) -> None:
    with open_records() as records:
        assert (records.running(), records.serials(), records.last_registration()) == ({}, set(), 0)
        other = replace(TERMINAL, version="2.0.0+0", state=TerminalState.APPLICATION)
        for number in range(7):
            base = other if number == 3 else TERMINAL
            records.save_terminal(replace(base, serial=f"T_{number}", last_seen=20.0 - number))
        old, new = sorted(records.running(), key=lambda running: running.version)
        assert records.running() == {old: 6, new: 1}
        assert records.running("t_3") == {new: 1}
        assert records.running("2.0") == {new: 1}
        assert records.running("_") == {old: 6, new: 1}, "no sign stands for others"
        assert records.running("%") == {}
        some = records.terminals_running(old, first=3)
        assert [item.serial for item in some] == ["T_0", "T_1", "T_2"]
        more = records.terminals_running(old, after="T_2", first=9)
        assert [item.serial for item in more] == ["T_4", "T_5", "T_6"]
        assert [t.serial for t in records.terminals_running(old, search="_5", first=9)] == ["T_5"]
        assert [t.serial for t in records.terminals_with(["T_5", "T_1", "nobody"])] == [
            "T_1",
            "T_5",
        ]
        assert records.serials() == {f"T_{number}" for number in range(7)}
        assert records.last_registration() == 20.0


def test_terminals_are_found_by_their_subscribers(open_records: Open) -> None:
    with open_records() as records:
        actor = Actor("registrar", 1.0)
        for number, name in enumerate(("Åsa Öberg", "Ada", "Zoë")):
            draft = Subscriber(0, f"+44000{number}", name, 1.0)
            records.assign(f"T-{number}", records.add_subscriber(draft, actor).id, actor)
        assert records.owned_by("åsa", 9) == ["T-0"]
        assert records.owned_by("ADA", 9) == ["T-1"]
        assert records.owned_by("440002", 9) == ["T-2"]
        assert records.owned_by("+44000", 2) == ["T-0", "T-1"]
        found = records.owners_of(["T-2", "T-0", "T-9"])
        assert {serial: owner.name for serial, owner in found.items()} == {
            "T-0": "Åsa Öberg",
            "T-2": "Zoë",
        }


def test_of_two_changes_in_a_transaction_the_last_is_kept(open_records: Open) -> None:
    with open_records() as records:
        with records.transaction():
            records.save_terminal(TERMINAL)
        with records.transaction():
            records.save_terminal(replace(TERMINAL, endpoint="127.0.0.1:4001"))
            records.save_terminal(replace(TERMINAL, endpoint="127.0.0.1:4002"))
        assert records.terminals() == [replace(TERMINAL, endpoint="127.0.0.1:4002")]


def test_ids_count_up_whoever_gives_them(open_records: Open) -> None:
    with open_records() as records:
        records.save_terminal(TERMINAL)
        ids = [records.add_message(MESSAGE).id]
        with contextlib.suppress(LookupError), records.transaction():
            records.add_message(MESSAGE)
            raise LookupError
        with records.transaction():
            ids += [records.add_message(MESSAGE).id for _ in range(3)]
            assert [message.id for message in records.messages()] == ids
            ids.append(records.add_message(MESSAGE).id)
        assert [message.id for message in records.messages()] == ids == sorted(set(ids))


@contextlib.contextmanager
def looking(url: str) -> Iterator[Callable[[str], Any]]:
    """Asks the database a question, whatever others have begun there."""
    engine = create_engine(complete_url(url))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield lambda question: connection.execute(text(question)).scalar()
    engine.dispose()


HELD = (
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE locktype = 'advisory' AND datname = current_database()"
)
"""How many write."""

KEPT = "SELECT string_agg(serial, ' ' ORDER BY serial) FROM terminals"


def test_a_transaction_without_a_change_holds_nobody_up(new_postgresql: str) -> None:
    with closing(SqlRecords(new_postgresql)) as records, looking(new_postgresql) as look:
        with records.transaction():
            assert look(HELD) == 1
        assert look(HELD) == 0
        with contextlib.suppress(LookupError), records.transaction():
            raise LookupError
        assert look(HELD) == 0


def save(records: SqlRecords, *serials: str) -> None:
    """Keep these terminals, in a transaction."""
    with records.transaction():
        for serial in serials:
            records.save_terminal(replace(TERMINAL, serial=serial))


def test_a_transaction_that_follows_is_begun_with_the_end_of_the_last(new_postgresql: str) -> None:
    with closing(SqlRecords(new_postgresql)) as records, looking(new_postgresql) as look:
        save(records, "T-1")
        follows = [True, False]
        records.while_waiting(lambda: follows.pop(0))
        save(records, "T-2")
        assert (follows, look(HELD), look(KEPT)) == ([False], 1, "T-1 T-2")
        with records.transaction():
            assert [found.serial for found in records.terminals()] == ["T-1", "T-2"]
            records.save_terminal(replace(TERMINAL, serial="T-3"))
            assert look(KEPT) == "T-1 T-2"
        assert (follows, look(HELD), look(KEPT)) == ([], 0, "T-1 T-2 T-3")


def test_what_was_begun_with_the_end_of_the_last_can_be_undone(new_postgresql: str) -> None:
    with closing(SqlRecords(new_postgresql)) as records, looking(new_postgresql) as look:
        save(records, "T-1")
        records.while_waiting(lambda: True)
        save(records, "T-2")
        with contextlib.suppress(LookupError), records.transaction():
            records.save_terminal(replace(TERMINAL, serial="T-3"))
            raise LookupError
        assert (look(HELD), look(KEPT)) == (0, "T-1 T-2")
        with records.transaction():
            assert records.terminal("T-3") is None
        save(records, "T-4")
        assert look(KEPT) == "T-1 T-2 T-4"


def test_where_another_writes_too_nothing_is_begun_before_its_time(new_postgresql: str) -> None:
    with (
        closing(SqlRecords(new_postgresql)) as records,
        closing(SqlRecords(new_postgresql)) as other,
        looking(new_postgresql) as look,
    ):
        save(records, "T-1")
        records.while_waiting(lambda: True)
        save(other, "T-2")
        save(records, "T-3")
        assert look(HELD) == 0
        save(other, "T-4")
        assert look(KEPT) == "T-1 T-2 T-3 T-4"


def test_a_connection_that_is_cut_between_two_transactions_loses_nothing(
    new_postgresql: str,
) -> None:
    with closing(SqlRecords(new_postgresql)) as records, looking(new_postgresql) as look:
        save(records, "T-1")
        records.while_waiting(lambda: True)
        save(records, "T-2")
        look("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        with pytest.raises(RecordsError):
            save(records, "T-3")
        save(records, "T-3")
        assert look(KEPT) == "T-1 T-2 T-3"


def test_many_changes_are_few_statements_in_postgresql(new_postgresql: str) -> None:
    names = [f"T-{number}" for number in range(60)]
    with closing(SqlRecords(new_postgresql)) as records:
        with records.transaction():
            for name in names:
                records.save_terminal(replace(TERMINAL, serial=name))
                records.add_message(replace(MESSAGE, serial=name))
        with list_statements() as said, records.transaction():
            for name in names:
                records.save_terminal(replace(TERMINAL, serial=name, endpoint="[::1]:4"))
                records.add_message(replace(MESSAGE, serial=name))
                records.add_event(replace(EVENT, serial=name))
        assert said == ["SELECT", *["INSERT"] * 4, "COMMIT"]
        assert {terminal.endpoint for terminal in records.terminals()} == {"[::1]:4"}
        assert len(records.messages()) == 120
        assert [item.serial for item in records.events()] == names
