"""The user database keeps its promises on every store."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from record_stores import Open
from server_world import SERIAL, registration
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from unbrick.center.operators.database import SqlAccounts
from unbrick.server.database import SqlRecords, tables
from unbrick.server.records.analysis import (
    Analysis,
    Installation,
    Preparation,
    PreparationState,
    Range,
    RangeKind,
    Verdict,
)
from unbrick.server.records.calls import Call
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import Actor, AuditAction, Subscriber
from unbrick.server.records.sessions import (
    Backup,
    CommandedSession,
    PlannedStep,
    SessionState,
    StepKind,
    StepState,
)
from unbrick.server.records.updates import (
    Image,
    MessageState,
    Terminal,
    TextMessage,
    Update,
    UpdateState,
)

CLERK = Actor("clerk", 100.0, "asked for by phone")
OTHER = "T-other"
TERMINAL = Terminal(**vars(registration()), endpoint="e", first_seen=1.0, last_seen=1.0)
OLD, NEW = (
    Image(digest, version, "hw", "terminal", "2024-05-01T12:00:00Z", 1, 9, 10, b"f" * 32, 3.5)
    for digest, version in ((b"o" * 32, "1.0.0+0"), (b"n" * 32, "1.1.0+0"))
)
INSTALLATION = Installation(
    0, SERIAL, "hw", "terminal", "1.0.0+0", "2024-01-01T00:00:00Z", OLD.digest, 2.0, None
)
STEPS = [
    PlannedStep(0, 0, StepKind.BACK_UP, 0, 0),
    PlannedStep(0, 1, StepKind.ERASE, 0x100000, 0x40000),
    PlannedStep(0, 2, StepKind.WRITE, 0x100000, 512),
]
SECRET = b"ciphertext of a phonebook" * 1000


def add_session(records: Records) -> CommandedSession:
    """A session in a store that was empty."""
    records.save_terminal(TERMINAL)
    records.add_image(OLD, b"old")
    records.add_image(NEW, b"new")
    pending = UpdateState.PENDING
    update = records.add_update(
        Update(0, SERIAL, NEW.version, NEW.digest, "", b"", pending, None, "", 4.0, 4.0)
    )
    planned = CommandedSession(
        0, update.id, SERIAL, OLD.digest, NEW.digest, SessionState.PLANNED, "", 5.0, 5.0
    )
    return records.add_session(planned, STEPS)


def backup_of(session: CommandedSession) -> Backup:
    return Backup(0, session.id, SERIAL, len(SECRET), sha256(SECRET).digest(), 6.0)


def test_an_empty_store_knows_nobody(open_records: Open) -> None:
    with open_records() as records:
        assert records.subscriber(1) is None
        assert records.owner(SERIAL) is None
        assert records.analysis(SERIAL) is None
        assert records.preparation(b"o" * 32, b"n" * 32) is None
        assert records.call(1) is None
        assert records.session(1) is None
        assert records.next_step(1) is None
        for listing in (
            records.subscribers(),
            records.owned(1),
            records.installations(SERIAL),
            records.preparations(),
            records.ranges(b"o" * 32, b"n" * 32),
            records.open_calls(),
            records.unfinished_sessions(),
            records.backups(),
            records.audit(),
        ):
            assert listing == []
        with pytest.raises(KeyError):
            records.read_backup(1, CLERK)
        records.delete_backup(1, CLERK)
        records.delete_subscriber(1, CLERK)
        assert records.audit() == [], "nothing was touched"


def test_a_subscriber_has_terminals_and_each_terminal_one_subscriber(open_records: Open) -> None:
    with open_records() as records:
        alice = records.add_subscriber(Subscriber(0, "+441632960001", "Alice", 1.0), CLERK)
        bob = records.add_subscriber(Subscriber(0, "+441632960002", "Bob", 2.0), CLERK)
        for serial in ("T-2", "T-1"):
            records.assign(serial, alice.id, CLERK)
        records.assign("T-2", alice.id, CLERK)
        records.assign("T-1", bob.id, CLERK)
    with open_records() as records:
        assert records.subscribers() == [alice, bob]
        assert records.subscriber(bob.id) == bob
        assert records.owner("T-1") == bob
        assert records.owned(alice.id) == ["T-2"]
        assert records.owners() == {"T-1": bob, "T-2": alice}
        renamed = replace(alice, name="Alice Smith")
        records.save_subscriber(renamed, CLERK)
        assert records.subscriber(alice.id) == renamed
        records.delete_subscriber(bob.id, CLERK)
        assert records.subscribers() == [renamed]
        assert records.owner("T-1") is None
        carol = records.add_subscriber(Subscriber(0, bob.phone, "Carol", 3.0), CLERK)
        assert carol.id not in {alice.id, bob.id}, "an id never comes back"


def test_a_phone_number_is_one_subscribers(open_records: Open) -> None:
    with open_records() as records:
        alice = records.add_subscriber(Subscriber(0, "+441632960001", "Alice", 1.0), CLERK)
        bob = records.add_subscriber(Subscriber(0, "+441632960002", "Bob", 2.0), CLERK)
        with pytest.raises(KeyError):
            records.add_subscriber(Subscriber(0, alice.phone, "Eve", 3.0), CLERK)
        with pytest.raises(KeyError):
            records.save_subscriber(replace(bob, phone=alice.phone), CLERK)
        records.save_subscriber(replace(bob, name="Bobby"), CLERK)
        assert [item.name for item in records.subscribers()] == ["Alice", "Bobby"]


def test_everything_that_touches_personal_data_is_in_the_audit(open_records: Open) -> None:
    with open_records() as records:
        alice = records.add_subscriber(Subscriber(0, "+441632960001", "Alice", 1.0), CLERK)
        bob = records.add_subscriber(Subscriber(0, "+441632960002", "Bob", 2.0), CLERK)
        records.assign(SERIAL, alice.id, CLERK)
        records.assign(SERIAL, bob.id, CLERK)
        records.save_subscriber(replace(alice, name="A."), CLERK)
        records.delete_subscriber(bob.id, CLERK)
        backup = records.add_backup(backup_of(add_session(records)), SECRET, CLERK)
        records.read_backup(backup.id, Actor("server", 101.0, "restore"))
        records.delete_backup(backup.id, CLERK)
        records.delete_backup(backup.id, CLERK)
    with open_records() as records:
        entries = records.audit()
        assert [(entry.action, entry.serial, entry.subject) for entry in entries] == [
            (AuditAction.SUBSCRIBER_ADDED, "", alice.id),
            (AuditAction.SUBSCRIBER_ADDED, "", bob.id),
            (AuditAction.TERMINAL_ASSIGNED, SERIAL, alice.id),
            (AuditAction.TERMINAL_RELEASED, SERIAL, alice.id),
            (AuditAction.TERMINAL_ASSIGNED, SERIAL, bob.id),
            (AuditAction.SUBSCRIBER_CHANGED, "", alice.id),
            (AuditAction.TERMINAL_RELEASED, SERIAL, bob.id),
            (AuditAction.SUBSCRIBER_DELETED, "", bob.id),
            (AuditAction.BACKUP_KEPT, SERIAL, backup.id),
            (AuditAction.BACKUP_READ, SERIAL, backup.id),
            (AuditAction.BACKUP_DELETED, SERIAL, backup.id),
        ]
        assert [entry.id for entry in entries] == sorted({entry.id for entry in entries})
        assert (entries[0].time, entries[0].actor, entries[0].text) == (
            CLERK.now,
            CLERK.name,
            CLERK.why,
        )
        assert entries[9].actor == "server"
        assert len(records.audit(serial=SERIAL)) == 7
        assert "Alice" not in str(entries), "the audit names no people"


def test_what_touches_personal_data_and_its_audit_are_kept_together(open_records: Open) -> None:
    with open_records() as records:
        session = add_session(records)

        def fail() -> None:
            with records.transaction():
                records.add_backup(backup_of(session), SECRET, CLERK)
                raise RuntimeError("power")

        with pytest.raises(RuntimeError, match="power"):
            fail()
        assert records.backups() == []
        assert records.audit() == []


def test_a_backup_comes_back_and_goes_for_good(open_records: Open) -> None:
    with open_records() as records:
        session = add_session(records)
        backup = records.add_backup(backup_of(session), SECRET, CLERK)
        with pytest.raises(KeyError):
            records.add_backup(backup_of(session), b"another", CLERK)
    with open_records() as records:
        assert records.backups() == records.backups(SERIAL) == [backup]
        assert records.backups("T-9") == []
        assert records.read_backup(backup.id, CLERK) == SECRET
        records.delete_backup(backup.id, CLERK)
        assert records.backups() == []
        with pytest.raises(KeyError):
            records.read_backup(backup.id, CLERK)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_of_a_deleted_backup_no_byte_is_left_in_the_files(tmp_path: Path, *, inside: bool) -> None:
    records = SqlRecords(str(tmp_path / "records.db"))
    backup = records.add_backup(backup_of(add_session(records)), SECRET, CLERK)

    def holds_it() -> bool:
        parts = (SECRET[i : i + 25] for i in (0, 25 * 500))
        files = [Path(entry).read_bytes() for entry in os.scandir(tmp_path)]
        return any(part in data for part in parts for data in files)

    assert holds_it(), "the test can see it"
    if inside:
        with records.transaction():
            records.delete_backup(backup.id, CLERK)
    else:
        records.delete_backup(backup.id, CLERK)
    assert not holds_it()
    records.close()


@pytest.mark.parametrize("removed", [False, True], ids=["changed", "removed"])
def test_of_what_a_subscriber_was_called_no_byte_is_left(tmp_path: Path, *, removed: bool) -> None:
    records = SqlRecords(str(tmp_path / "records.db"))
    for number in range(200):  # More than a page of them.
        records.add_subscriber(Subscriber(0, f"+44{number}", f"Nobody {number}", 1.0), CLERK)
    known = Subscriber(0, "+49 8765 4321", "Unmistakable", 1.0)
    known = records.add_subscriber(known, CLERK)
    records.assign(SERIAL, known.id, CLERK)

    def holds_it() -> bool:
        files = [Path(entry).read_bytes() for entry in os.scandir(tmp_path)]
        return any(part in data for part in (b"8765", b"Unmistak") for data in files)

    assert holds_it(), "the test can see it"
    if removed:
        records.delete_subscriber(known.id, CLERK)
    else:
        records.save_subscriber(replace(known, phone="+49 1", name="Somebody"), CLERK)
    assert not holds_it()
    records.close()
    assert not holds_it()


def test_a_file_is_its_users_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared.db"
    shared.touch(0o660)
    shared.chmod(0o660)
    before = os.umask(0o022)
    try:
        with (
            contextlib.closing(SqlRecords(str(tmp_path / "records.db"))) as records,
            contextlib.closing(SqlAccounts(str(tmp_path / "center.db"))),
            contextlib.closing(SqlRecords(str(shared))),
        ):
            records.add_image(OLD, b"")
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert {"records.db", "records.db-wal", "records.db-shm", "center.db"} <= set(modes)
    found = {modes.pop(name) for name in list(modes) if name.startswith("shared.db")}
    assert found == {0o660}, "whoever made the file has chosen who may read it"
    assert set(modes.values()) == {0o600}


def test_what_was_deleted_by_a_process_that_was_killed_then_goes_with_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit and the emptying of the log, say."""
    folder = tmp_path / "as it was left"
    with monkeypatch.context() as patched:
        patched.setattr(tables, "wipe_log", lambda _engine: False)
        records = SqlRecords(str(tmp_path / "records.db"))
        backup = records.add_backup(backup_of(add_session(records)), SECRET, CLERK)
        records.delete_backup(backup.id, CLERK)
        shutil.copytree(tmp_path, folder)
        records.close()

    def holds_it() -> bool:
        return any(SECRET[:25] in file.read_bytes() for file in folder.iterdir())

    assert holds_it(), "the test can see it"
    SqlRecords(str(folder / "records.db")).close()
    assert not holds_it()


VALUES = "(id, time, actor, action, serial, subject, text) VALUES (1, 0, '', '', '', 0, '')"


@pytest.mark.parametrize(
    "what",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        {
            "sqlite": f"INSERT OR REPLACE INTO audit {VALUES}",
            "postgresql": f"INSERT INTO audit {VALUES} ON CONFLICT (id) DO UPDATE SET actor = ''",
        },
        {"sqlite": "DELETE FROM audit WHERE id > 0", "postgresql": "TRUNCATE audit"},
    ],
    ids=["update", "delete", "replace", "truncate"],
)
def test_the_database_itself_keeps_the_audit_as_it_is(
    database_url: str, what: str | dict[str, str]
) -> None:
    records = SqlRecords(database_url)
    records.add_subscriber(Subscriber(0, "+441632960001", "Alice", 1.0), CLERK)
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql(what if isinstance(what, str) else what[engine.dialect.name])
    engine.dispose()
    assert [entry.actor for entry in records.audit()] == ["clerk"]
    records.close()


def test_what_a_terminal_ran_is_remembered_with_its_times(open_records: Open) -> None:
    with open_records() as records:
        for serial in (SERIAL, "T-2"):
            records.save_terminal(replace(TERMINAL, serial=serial))
            records.add_installation(replace(INSTALLATION, serial=serial))
        records.end_installation(SERIAL, 5.0)
        records.end_installation(SERIAL, 6.0)
        records.add_installation(replace(INSTALLATION, version="1.1.0+0", since=7.0))
    with open_records() as records:
        first, second = records.installations(SERIAL)
        assert (first.version, first.since, first.until) == ("1.0.0+0", 2.0, 5.0)
        assert (second.version, second.since, second.until) == ("1.1.0+0", 7.0, None)
        assert replace(first, id=0, until=None) == INSTALLATION
        assert [item.until for item in records.installations("T-2")] == [None]


def test_decisions_are_kept_with_their_reasons(open_records: Open) -> None:
    with open_records() as records:
        for serial in (SERIAL, OTHER):
            records.save_terminal(replace(TERMINAL, serial=serial))
        first = records.add_analysis(
            Analysis(0, SERIAL, 1.0, Verdict.UPGRADE, NEW.digest, "1.1.0 is newer")
        )
        second = records.add_analysis(
            Analysis(0, SERIAL, 2.0, Verdict.CURRENT, NEW.digest, "it runs 1.1.0")
        )
    with open_records() as records:
        assert records.analyses(SERIAL) == [first, second]
        assert records.analysis(SERIAL) == second
        assert (first.needed, second.needed) == (True, False)
        other = records.add_analysis(replace(first, serial=OTHER))
        assert records.decisions([SERIAL]) == {SERIAL: second}
        assert records.decisions([SERIAL, OTHER, "nobody"]) == {SERIAL: second, OTHER: other}


def test_images_and_preparations_are_read_in_parts_by_their_time(open_records: Open) -> None:
    # The clock went back, and two came at the same time.
    times = {b"d": 4.0, b"b": 2.0, b"a": 2.0, b"c": 2.5}
    images = [
        replace(OLD, digest=name * 32, version=str(time), published=time)
        for name, time in times.items()
    ]
    made = [
        Preparation(
            *(OLD.digest, image.digest, PreparationState.READY, 1, 7, ""),
            created=image.published,
            changed=9.0,
        )
        for image in images
    ]
    with open_records() as records:
        records.add_image(replace(OLD, published=1.0), b"")
        for image, item in zip(images, made, strict=True):
            records.add_image(image, b"")
            records.save_preparation(item)
        records.set_ranges(OLD.digest, images[0].digest, [Range(RangeKind.WRITE, 0, 4)])
        records.set_ranges(
            *(OLD.digest, images[1].digest),
            [Range(RangeKind.WRITE, 0, 4), Range(RangeKind.WRITE, 8, 16)],
        )
        for whole in (
            contextlib.nullcontext(),
            records.transaction(),
        ):  # Remembered answers are no others.
            with whole:
                assert records.images()[0] == replace(OLD, published=1.0)
                found = records.images_after(None, 9)
                assert [image.digest[:1] for image in found] == [b"o", b"a", b"b", b"c", b"d"]
                assert records.images_after(found[1], 2) == found[2:4]
                assert records.images_after(found[4], 2) == []
                assert records.images_after(None, 1) == found[:1]
                assert records.images_among(frozenset([b"a" * 32, b"?" * 32])) == [images[2]]
                items = records.preparations_after(None, 9)
                assert [item.digest[:1] for item in items] == [b"a", b"b", b"c", b"d"]
                assert records.preparations_after(items[0], 2) == items[1:3]
                write = RangeKind.WRITE
                assert records.sum_up_ranges(made[1:]) == {
                    (OLD.digest, images[1].digest, write): (2, 20)
                }


def test_what_is_prepared_for_a_pair_is_kept(open_records: Open) -> None:
    queued = Preparation(
        OLD.digest, NEW.digest, PreparationState.QUEUED, 0, None, "", created=1.0, changed=1.0
    )
    ready = replace(queued, state=PreparationState.READY, tries=1, file_size=7, changed=2.0)
    ranges = [
        Range(RangeKind.ERASE, 0x140000, 0x40000),
        Range(RangeKind.ERASE, 0x100000, 0x40000),
        Range(RangeKind.DIFFERENCE, 0x100010, 4),
    ]
    with open_records() as records:
        records.add_image(OLD, b"")
        records.add_image(NEW, b"")
        records.save_preparation(queued)
        assert records.preparations(PreparationState.QUEUED) == [queued]
        with records.transaction():
            records.set_ranges(OLD.digest, NEW.digest, [Range(RangeKind.WRITE, 0, 4)])
            records.set_ranges(OLD.digest, NEW.digest, ranges)
            records.save_preparation(ready)
    with open_records() as records:
        assert records.preparation(OLD.digest, NEW.digest) == ready
        assert records.preparation(NEW.digest, OLD.digest) is None
        assert records.preparations() == [ready]
        assert records.preparations(PreparationState.QUEUED) == []
        pair = OLD.digest, NEW.digest
        assert records.ranges(*pair) == [ranges[2], ranges[1], ranges[0]]
        assert records.ranges(*pair, RangeKind.ERASE) == [ranges[1], ranges[0]]
        records.set_ranges(*pair, [])
        assert records.ranges(*pair) == []


def test_a_call_is_kept_while_it_lasts_and_afterwards(open_records: Open) -> None:
    with open_records() as records:
        call = records.add_call(Call(0, SERIAL, "terminal", "", "", "", 1.0, None))
        other = records.add_call(Call(0, "T-2", "clerk", "", "", "", 1.5, None))
        assert records.open_calls() == [call, other]
        over = replace(call, keys="31", outcome="upgrade", text="update 1", ended=2.0)
        records.save_call(over)
    with open_records() as records:
        assert records.call(call.id) == over
        assert records.calls() == [over, other]
        assert records.calls(SERIAL) == [over]
        assert records.open_calls() == [other]


def test_a_session_is_kept_step_by_step(open_records: Open) -> None:
    with open_records() as records:
        session = add_session(records)
        steps = records.steps(session.id)
        assert steps == [replace(step, session_id=session.id) for step in STEPS]
        assert records.unfinished_sessions() == [session]
        done = replace(steps[0], state=StepState.DONE, tries=1, result=0, changed=6.0)
        sent = replace(steps[1], state=StepState.SENT, tries=2, text="again", changed=7.0)
        records.save_step(done)
        records.save_step(sent)
    with open_records() as records:
        assert records.steps(session.id) == [done, sent, steps[2]]
        assert records.next_step(session.id) == sent
        for step in (sent, steps[2]):
            records.save_step(replace(step, state=StepState.DONE))
        assert records.next_step(session.id) is None
        ended = replace(session, state=SessionState.SUCCEEDED, text="done", changed=9.0)
        records.save_session(ended)
        assert records.session(session.id) == ended
        assert records.sessions(SERIAL) == records.sessions() == [ended]
        assert records.sessions("T-9") == []
        assert records.unfinished_sessions() == []


def test_in_a_transaction_every_store_says_the_same_about_sessions(database_url: str) -> None:
    """Stores may remember what they have read or written; nobody may notice."""
    rng = random.Random(7)
    database = SqlRecords(database_url)
    stores: list[Records] = [MemoryRecords(), database]
    for records in stores:
        add_session(records)
    for _ in range(40):
        choices = [(rng.random(), rng.choice(list(StepState)), rng.randrange(3)) for _ in range(8)]
        with contextlib.ExitStack() as stack:
            for records in stores:
                stack.enter_context(records.transaction())
            for what, state, number in choices:
                said = []
                for records in stores:
                    going = records.unfinished_sessions(SERIAL)
                    last = records.sessions(SERIAL)[-1]
                    if not going or what < 0.05:
                        records.add_session(replace(last, state=SessionState.RUNNING), STEPS)
                    elif what < 0.3:
                        ends = SessionState.FAILED if what < 0.1 else SessionState.RUNNING
                        records.save_session(replace(going[0], state=ends, text=str(what)))
                    else:
                        step = records.steps(last.id)[number]
                        records.save_step(replace(step, state=state, text=str(what)))
                    said.append((records.next_step(last.id), records.unfinished_sessions(SERIAL)))
                assert said[0] == said[1]
    database.close()


def test_two_processes_share_a_database(database_url: str) -> None:
    mine, others = SqlRecords(database_url), SqlRecords(database_url)
    with mine.transaction():
        mine.save_terminal(TERMINAL)
        assert others.terminals() == [], "nobody sees what is not kept yet"
    assert others.terminals() == [TERMINAL]
    with others.transaction():
        assert others.terminal(SERIAL) == TERMINAL
        others.save_terminal(replace(TERMINAL, version="2.0.0+0"))
    assert mine.terminals() == [replace(TERMINAL, version="2.0.0+0")]
    mine.close()
    others.close()


WRITES = ("add an update", "change an update", "decide", "send", "install", "register")


def write(records: Records, what: str, update: Update, text: str) -> object:
    """Write something about the terminal of an update; gives what comes back."""
    serial = update.serial
    if what == "add an update":
        return records.add_update(replace(update, text=text))
    if what == "change an update":
        return records.save_update(replace(update, text=text))
    if what == "decide":
        return records.add_analysis(Analysis(0, serial, 1.0, Verdict.CURRENT, b"", text))
    if what == "send":
        sent = records.add_message(TextMessage(0, serial, "", MessageState.QUEUED, 1.0, 1.0))
        return records.save_message(replace(sent, text=text))
    if what == "install":
        records.end_installation(serial, 2.0)
        return records.add_installation(replace(INSTALLATION, serial=serial, version=text))
    return records.save_terminal(replace(TERMINAL, serial=serial, version=text))


def all_about(records: Records, update: Update) -> object:
    """Everything that is kept of the terminal of an update."""
    serial = update.serial
    return [
        *(records.terminal(serial), records.update(update.id), records.updates(serial)),
        *(records.analysis(serial), records.analyses(serial), records.messages(serial)),
        *(records.installations(serial), records.decisions([serial]), records.unfinished_updates()),
    ]


@pytest.mark.slow
def test_in_a_transaction_every_store_says_the_same_about_terminals(database_url: str) -> None:
    """What is remembered of the database's answers follows what is written."""
    rng = random.Random(11)
    database = SqlRecords(database_url)
    stores: list[Records] = [MemoryRecords(), database]
    for records in stores:
        add_session(records)
        records.save_terminal(replace(TERMINAL, serial="T-2"))
        records.add_update(replace(records.updates()[0], serial="T-2"))
    for _ in range(30):
        updates = database.updates()
        with contextlib.ExitStack() as stack:
            for records in stores:
                stack.enter_context(records.transaction())
            for _ in range(6):
                update, what, text = rng.choice(updates), rng.choice(WRITES), str(rng.random())
                for do in (all_about, partial(write, what=what, text=text), all_about):
                    mine, its = (do(records, update=update) for records in stores)
                    assert mine == its, what
    database.close()
