"""The server's side of commanded updates (rows B5, B6, B8, B10), against a modelled terminal."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import Any

import aiocoap
import pytest
from commanded_terminal import (
    APPLICATION,
    BLOCK,
    USERDATA,
    CommandedTerminal,
    in_nor,
    seal,
    unseal,
)
from commanded_world import ENTRIES, MIGRATED, NEW, OLD, Chances, World, with_format
from hypothesis import given, settings
from hypothesis import strategies as st
from server_world import SERIAL, inspect, make_image, post, registration

from unbrick.server.core import backups, plan
from unbrick.server.core.core import ServerCore
from unbrick.server.core.difference import find_ranges
from unbrick.server.core.restoring import choose_image
from unbrick.server.errors import ConflictError, NotCommandedError, UnknownError
from unbrick.server.records.analysis import Range, RangeKind
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import Actor
from unbrick.server.records.sessions import Backup, PlannedStep, SessionState, StepKind, StepState
from unbrick.server.records.updates import UpdateState
from unbrick.wire.commands import (
    MAX_WRITE_SIZE,
    Check,
    CommandResult,
    Erase,
    Finish,
    Leave,
    Write,
    decode_command,
)
from unbrick.wire.messages import Result, TerminalState

BROKEN = (Erase, Write, Check)


def world(target: bytes = NEW, *, seed: int = 0, **changes: Any) -> World:
    """A terminal that runs the old software, with entries, and a server with both images."""
    chances = changes.pop("chances", Chances())
    terminal = CommandedTerminal([OLD, target], list(ENTRIES), seed=seed, **changes)
    return World(terminal, chances=chances, seed=seed)


def version_of(target: bytes) -> str:
    return str(inspect(target).version)


def sealed(world: World, backup: Backup) -> bytes:
    """What a backup holds; nobody is told of the looking."""
    assert isinstance(world.records, MemoryRecords)
    return dict(world.records.tables[Backup].take().data)[backup.id]


def check_nothing_is_lost(world: World) -> None:
    """The user's data is in the NOR, or a backup has it, at any time."""
    there = in_nor(world.terminal)
    for backup in world.records.backups(SERIAL):
        session = world.records.session(backup.session_id)
        assert session is not None
        there |= set(unseal(sealed(world, backup), session.update_id))
    assert there >= set(ENTRIES), world.story()


def check_end(world: World) -> None:
    """A session is over: the user's data is on the terminal alone, and the records are true."""
    terminal, update = world.terminal, world.update()
    world.run(lambda: said(world))
    assert set(terminal.read() or ()) >= set(ENTRIES), world.story()
    assert world.records.backups() == []
    audit = world.audit()
    assert audit.count("backup kept") == audit.count("backup deleted"), audit
    assert world.session().state.value == update.state.value
    assert (update.state is UpdateState.SUCCEEDED) == (terminal.digest == update.digest)


def said(world: World) -> bool:
    """Whether the terminal runs an application, and the server knows which."""
    known = world.records.terminal(SERIAL)
    runs = world.terminal.program is TerminalState.APPLICATION
    return runs and known is not None and known.digest == world.terminal.digest


def settled(world: World) -> bool:
    check_nothing_is_lost(world)
    ended = all(update.state.ended for update in world.records.updates(SERIAL))
    return ended and world.session().state.ended and said(world)


# The plan


def test_a_plan_backs_up_first_and_writes_only_what_was_prepared() -> None:
    first, second = APPLICATION.offset, APPLICATION.offset + BLOCK
    ranges = [
        Range(RangeKind.DIFFERENCE, first, 4),
        Range(RangeKind.ERASE, first, BLOCK),
        Range(RangeKind.ERASE, second, BLOCK),
        Range(RangeKind.WRITE, first, 2000),
        Range(RangeKind.WRITE, second + 8, 4),
    ]
    steps = plan.make_plan(ranges, 5000, new_format=False)
    assert [(step.kind.value, step.offset, step.length) for step in steps] == [
        ("back up", 0, 0),
        ("prepare", 0, 0),
        ("erase", first, BLOCK),
        ("write", first, 896),
        ("write", first + 896, 896),
        ("write", first + 1792, 208),
        ("erase", second, BLOCK),
        ("write", second + 8, 4),
        ("check", first, 5000),
        ("restart", 0, 0),
        ("give back", 0, 0),
        ("delete backup", 0, 0),
    ]
    assert [step.number for step in steps] == list(range(12))
    migrated = plan.make_plan(ranges, 5000, new_format=True)
    erased = [step.offset for step in migrated if step.kind is StepKind.ERASE]
    assert erased == [USERDATA.offset, USERDATA.offset + BLOCK, first, second]


def test_what_a_plan_writes_over_the_old_image_makes_the_new_one() -> None:
    old, new = make_image("1.0.0+0", size=300_001), make_image("1.1.0+0", size=299_999)
    nor = bytearray(b"\xff" * USERDATA.end)
    nor[APPLICATION.offset : APPLICATION.offset + len(old)] = old
    for step in plan.make_plan(find_ranges(old, new), len(new), new_format=False):
        end = step.offset + step.length
        if step.kind is StepKind.ERASE:
            nor[step.offset : end] = b"\xff" * step.length
        elif step.kind is StepKind.WRITE:
            data = plan.slice_data(step, new)
            assert 0 < len(data) <= MAX_WRITE_SIZE
            assert nor[step.offset : end] == b"\xff" * len(data)
            nor[step.offset : end] = data
    assert nor[APPLICATION.offset : APPLICATION.offset + len(new)] == new


def at(kind: StepKind, offset: int, number: int, tries: int = 1) -> PlannedStep:
    return PlannedStep(1, number, kind, offset, BLOCK, StepState.DONE, tries)


def test_what_is_repeated_after_a_failure() -> None:
    first, second = APPLICATION.offset, APPLICATION.offset + BLOCK
    steps = [
        at(StepKind.ERASE, USERDATA.offset, 2),
        *(at(StepKind.ERASE, first, 3), at(StepKind.WRITE, first, 4)),
        *(at(StepKind.ERASE, second, 5), at(StepKind.WRITE, second, 6)),
        at(StepKind.CHECK, first, 7),
    ]

    def numbers(failed: PlannedStep) -> list[int] | None:
        repeat = plan.plan_repeat(steps, failed, 0.0)
        return None if repeat is None else [step.number for step in repeat]

    assert numbers(steps[0]) == [2]
    assert numbers(steps[3]) == [5]
    assert numbers(steps[4]) == [5, 6]
    assert numbers(steps[5]) == [3, 4, 5, 6, 7]
    assert numbers(replace(steps[4], tries=plan.MAX_TRIES)) is None
    assert numbers(at(StepKind.RESTART, 0, 8)) is None


# Rows B5, B6, B8, B10


@pytest.mark.parametrize("target", [NEW, MIGRATED], ids=["same format", "new format"])
def test_claim_b6_data_is_backed_up_before_the_first_erase_given_back_and_deleted(
    target: bytes,
) -> None:
    w = world(target)
    kept: list[bytes] = []

    def look(message: Any) -> None:
        if message.opt.uri_path == ("erase",):
            (backup,) = w.records.backups(SERIAL)
            kept.append(sealed(w, backup))

    w.on_request = look
    update = w.start(version_of(target))
    w.run(lambda: settled(w))
    assert set(kept) == {seal(ENTRIES, update)}
    assert b"Alice" not in kept[0]
    assert w.audit() == ["backup kept", "backup read", "backup deleted"]
    why = [entry.text for entry in w.records.audit(serial=SERIAL)]
    assert why[0] == f"for update {update}"
    assert why[2] == "the terminal has confirmed that it has it"
    check_end(w)
    assert w.update().state is UpdateState.SUCCEEDED
    assert all(step.state is StepState.DONE for step in w.steps())
    assert w.terminal.format() == inspect(target).userdata_format


@pytest.mark.parametrize("room", [backups.REMEMBERED_SIZE, 10])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_backup_is_read_from_the_records_when_it_is_not_in_memory(
    room: int, monkeypatch: pytest.MonkeyPatch, *, restarts: bool
) -> None:
    monkeypatch.setattr(backups, "REMEMBERED_SIZE", room)
    remembered: list[bool] = []
    read = MemoryRecords.read_backup

    def note(records: Any, backup_id: int, actor: Actor, known: bytes | None = None) -> bytes:
        remembered.append(known is not None)
        return read(records, backup_id, actor, known)

    monkeypatch.setattr(MemoryRecords, "read_backup", note)
    w = world()
    w.start()
    w.run(lambda: w.records.backups(SERIAL) != [])
    if restarts:
        w.restart()
    w.run(lambda: settled(w))
    check_end(w)
    assert w.audit() == ["backup kept", "backup read", "backup deleted"]
    assert remembered == [room > 10 and not restarts]
    keeper = w.core._commander
    assert (len(keeper._remembered), keeper._remembered_size) == (0, 0)


def test_claim_b6_the_backup_stays_until_the_terminal_has_confirmed_it() -> None:
    w = world(refuse={"restore": [Result.NO_ROOM, Result.BACKUP_UNREADABLE]})
    w.start()
    w.run(lambda: w.update().state.ended)
    for _ in range(200):
        w.tick()
    (backup,) = w.records.backups(SERIAL)
    assert w.session().state is SessionState.RUNNING
    with pytest.raises(ConflictError, match="not in its last step"):
        w.core.start_update(SERIAL, "1.0.0", w.now)
    w.run(lambda: settled(w))
    check_end(w)
    assert w.audit() == ["backup kept", "backup read", "backup deleted"]
    assert [entry.subject for entry in w.records.audit(serial=SERIAL)] == [backup.id] * 3


def test_claim_b6_data_that_changes_is_backed_up_again() -> None:
    w = world()

    def add(message: Any) -> None:
        if message.opt.uri_path == ("upgrade",) and len(w.terminal.read() or ()) == 2:
            w.terminal.store([*ENTRIES, "Carol 112"])

    w.on_request = add
    w.start()
    w.run(lambda: settled(w))
    assert set(w.terminal.read() or ()) == {*ENTRIES, "Carol 112"}
    assert w.audit() == [
        *("backup kept", "backup deleted", "backup kept", "backup read", "backup deleted"),
    ]
    check_end(w)


def test_claim_b6_data_that_never_stops_changing_ends_the_update() -> None:
    w = world()
    count = iter(range(1000))

    def add(message: Any) -> None:
        if message.opt.uri_path == ("upgrade",):
            w.terminal.store([*ENTRIES, f"Number {next(count)}"])

    w.on_request = add
    w.start()
    assert w.finish() is SessionState.FAILED
    assert next(count) == plan.MAX_STARTS
    check_end(w)


@pytest.mark.parametrize("target", [NEW, MIGRATED], ids=["same format", "new format"])
def test_claim_b5_what_is_lost_on_the_way_is_sent_again(target: bytes) -> None:
    w = world(target, chances=Chances(lose=0.3, repeat=0.2, until=10_000), seed=3)
    w.start(version_of(target))
    w.run(lambda: settled(w), 5000)
    assert w.update().state is UpdateState.SUCCEEDED
    w.chances = Chances()
    check_end(w)


def test_claim_b8_only_the_blocks_that_differ_are_erased_and_written() -> None:
    old = make_image("1.0.0+0", size=2 * BLOCK + 5000)
    new = bytearray(old.replace(b"1.0.0+0", b"1.1.0+0", 1))
    new[2 * BLOCK + 100] ^= 1
    terminal = CommandedTerminal([old, bytes(new)], list(ENTRIES))
    w = World(terminal)
    sent: list[Any] = []
    w.on_request = lambda m: sent.append(m) if m.opt.uri_path[0] in ("erase", "write") else None
    w.start()
    w.run(lambda: settled(w))
    check_end(w)
    erased = [c.offset for c in terminal.done if isinstance(c, Erase)]
    assert erased == [APPLICATION.offset, APPLICATION.offset + 2 * BLOCK]
    blocks = {c.offset // BLOCK for c in terminal.done if isinstance(c, Write)}
    assert blocks == {offset // BLOCK for offset in erased}
    assert len(sent) == sum(isinstance(c, Erase | Write) for c in terminal.done)


def test_claim_b8_b10_each_command_waits_for_the_result_of_the_one_before() -> None:
    w = world()
    under_way: list[int] = []

    def look(message: Any) -> None:
        if message.opt.uri_path[0] in ("erase", "write", "check", "finish"):
            command = decode_command(message.opt.uri_path[0], message.payload)
            assert len(w.terminal.done) == command.step - 1
            sent = [step for step in w.steps() if step.state is StepState.SENT]
            assert [step.kind.value for step in sent] == [
                {"finish": "restart"}.get(command.path, command.path)
            ]
            under_way.append(command.step)

    w.on_request = look
    w.start()
    w.run(lambda: settled(w))
    assert under_way == list(range(1, len(w.terminal.done) + 1))
    kinds = [type(command) for command in w.terminal.done]
    assert kinds[0] is Erase
    assert kinds[-2:] == [Check, Finish]


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("times", [1, 2])
def test_claim_b10_a_command_that_failed_is_given_again(kind: Any, times: int) -> None:
    w = world(bad={kind: [Result.PROGRAM_FAILED] * times})
    w.start()
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.SUCCEEDED
    check_end(w)
    done = w.terminal.done
    numbers = [command.step for command in done]
    assert numbers == sorted(set(numbers))
    erases = sum(isinstance(command, Erase) for command in done)
    assert erases == 1 + times


@pytest.mark.parametrize("kind", [Erase, Write])
@pytest.mark.parametrize("target", [NEW, MIGRATED], ids=["same format", "new format"])
def test_a_command_that_keeps_failing_ends_in_a_restoration_with_the_data_back(
    kind: Any, target: bytes
) -> None:
    w = world(target, bad={kind: [Result.PROGRAM_FAILED] * plan.MAX_TRIES})
    w.start(version_of(target))
    w.run(lambda: settled(w))
    update = w.update()
    assert update.state is UpdateState.FAILED
    assert update.result is Result.PROGRAM_FAILED
    assert isinstance(w.terminal.done[-1], Leave)
    assert w.terminal.running() == OLD
    check_end(w)


def test_an_image_that_is_right_after_all_is_a_success() -> None:
    """Leaving, the terminal finds it valid, and tries it."""
    w = world(bad={Check: [Result.PROGRAM_FAILED] * plan.MAX_TRIES})
    w.start()
    w.run(lambda: settled(w))
    assert isinstance(w.terminal.done[-1], Leave)
    assert w.update().state is UpdateState.SUCCEEDED
    check_end(w)


@pytest.mark.parametrize(
    ("kind", "course"),
    [(Erase, [Erase] * plan.MAX_TRIES), (Write, [Erase, Write] * plan.MAX_TRIES)],
)
def test_claim_b10_a_result_is_only_believed_with_the_right_contents(
    kind: Any, course: list[Any]
) -> None:
    w = world(lies={kind})
    w.start()
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.FAILED
    assert [type(command) for command in w.terminal.done] == [*course, Leave]
    check_end(w)


def test_results_that_nobody_waits_for_change_nothing() -> None:
    w = world()
    w.start()
    w.run(lambda: bool(w.steps(StepKind.WRITE)[1].state is StepState.SENT))
    step, session = w.steps(StepKind.WRITE)[1], w.session()
    known = w.records.terminal(SERIAL)
    assert known is not None
    data = plan.slice_data(step, NEW)
    good = CommandResult(
        serial=SERIAL,
        update_id=session.update_id,
        nonce=known.nonce,
        step=session.command,
        result=Result.SUCCESS,
        digest=hashlib.sha256(data).digest(),
        text="",
    )
    before = w.records.steps(session.id)
    for wrong in (
        replace(good, nonce=good.nonce ^ 1),
        replace(good, step=good.step - 1),
        replace(good, step=good.step + 1),
    ):
        answer = w.core.handle("radio", post("result", wrong.encode()), w.now)
        assert answer.code == aiocoap.CHANGED
        assert w.records.steps(session.id) == before
    for stranger in (replace(good, serial="T-0002"), replace(good, update_id=99)):
        answer = w.core.handle("radio", post("result", stranger.encode()), w.now)
        assert answer.code == aiocoap.NOT_FOUND
    malformed = w.core.handle("radio", post("result", b"\xa0"), w.now)
    assert malformed.code == aiocoap.BAD_REQUEST
    assert w.records.steps(session.id) == before
    w.core.handle("radio", post("result", good.encode()), w.now)
    assert w.steps(StepKind.WRITE)[1].state is StepState.DONE


def test_a_result_may_be_here_before_the_answer_to_its_command() -> None:
    w = world()
    w.start()
    w.run(lambda: len(w.terminal.done) == 2)
    while not (outgoing := w.core.poll(w.now)):
        w.now += 0.05
        for ticket, message in w.terminal.step(w.now):
            w.terminal.answered(ticket, w.core.handle("radio", message, w.now), w.now)
    (command,) = outgoing
    answer = w.terminal.handle(command.message, w.now)
    w.now += 1.0
    ((ticket, result),) = w.terminal.step(w.now)
    assert result.opt.uri_path == ("result",)
    w.terminal.answered(ticket, w.core.handle("radio", result, w.now), w.now)
    assert w.core.poll(w.now) == []
    w.core.outcome(command.ticket, answer, w.now)
    (following,) = w.core.poll(w.now)
    assert following.message.payload != command.message.payload
    w.core.outcome(following.ticket, w.terminal.handle(following.message, w.now), w.now)
    w.run(lambda: settled(w))
    check_end(w)


# Power cuts


@pytest.mark.slow
@pytest.mark.parametrize("target", [NEW, MIGRATED], ids=["same format", "new format"])
def test_power_is_lost_at_any_moment(target: bytes) -> None:
    whole = world(target)
    whole.start(version_of(target))
    whole.run(lambda: settled(whole))
    ticks = round(whole.now / 0.05)
    for tick in range(2, ticks):
        w = world(target)
        w.start(version_of(target))
        while round(w.now / 0.05) < tick:
            w.tick()
        w.terminal.cut(w.now)
        w.run(lambda w=w: settled(w))  # type: ignore[misc]
        assert w.update().state is UpdateState.SUCCEEDED
        check_end(w)


def test_after_a_power_cut_it_goes_on_where_it_was() -> None:
    w = world()
    w.start()
    w.run(lambda: len(w.terminal.done) == 4)
    w.terminal.cut(w.now)
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.SUCCEEDED
    erases = [command for command in w.terminal.done if isinstance(command, Erase)]
    assert len(erases) == 1
    assert len({command.nonce for command in w.terminal.done}) == 2


# The server dies


def deaths(target: bytes) -> list[tuple[str, int]]:
    """Every moment at which a server can die: around each message of either side."""
    w = world(target)
    counts = {"request": 0, "answer": 0}

    def count(_message: Any) -> None:
        counts["request"] += 1

    w.on_request = count
    w.start(version_of(target))
    w.run(lambda: settled(w))
    n = counts["request"]
    return [(when, number) for when in ("unsent", "unanswered") for number in range(n)]


@pytest.mark.parametrize("target", [NEW, MIGRATED], ids=["same format", "new format"])
def test_the_server_dies_around_each_of_its_messages(target: bytes) -> None:
    for when, number in deaths(target):
        w = world(target)
        count = iter(range(1000))
        dead = {"now": False}

        def kill(
            _message: Any,
            w: World = w,
            count: Any = count,
            dead: Any = dead,
            moment: tuple[str, int] = (when, number),
        ) -> None:
            dead["now"] = next(count) == moment[1]
            if dead["now"] and moment[0] == "unsent":
                raise DiedError

        w.on_request = kill
        w.start(version_of(target))

        def go_on(w: World = w, dead: Any = dead) -> bool:
            if dead["now"]:
                dead["now"] = False
                w.restart()
            return settled(w)

        while True:
            try:
                w.run(go_on)
                break
            except DiedError:
                dead["now"] = False
                w.restart()
        assert w.update().state is UpdateState.SUCCEEDED, (when, number)
        check_end(w)


class DiedError(Exception):
    """The server is dead."""


# What goes otherwise


def test_a_trial_that_fails_ends_in_the_old_software_with_the_data_back() -> None:
    w = world(MIGRATED, failing={inspect(MIGRATED).digest})
    w.start("2.0.0")
    w.run(lambda: settled(w))
    update = w.update()
    assert (update.state, update.result) == (UpdateState.FAILED, Result.TRIAL_FAILED)
    assert w.terminal.running() == OLD
    check_end(w)


@pytest.mark.parametrize("result", [Result.SIGNATURE_WRONG, Result.OLDER_THAN_COUNTER])
def test_an_upgrade_that_is_refused_touches_nothing(result: Result) -> None:
    w = world(refuse={"upgrade": [result]})
    w.start()
    w.run(lambda: settled(w))
    assert (w.update().state, w.update().result) == (UpdateState.FAILED, result)
    assert w.terminal.done == []
    assert w.audit() == ["backup kept", "backup deleted"]
    check_end(w)


@pytest.mark.parametrize("result", [Result.BACKUP_UNREADABLE, Result.USERDATA_UNREADABLE])
def test_without_a_backup_nothing_is_commanded(result: Result) -> None:
    w = world(refuse={"backup": [result]})
    w.start()
    w.run(lambda: settled(w))
    assert (w.update().state, w.update().result) == (UpdateState.FAILED, result)
    assert w.terminal.done == []
    assert w.audit() == []
    check_end(w)


def test_software_that_knows_nothing_of_backups_is_left_alone() -> None:
    w = world()
    answer = w.terminal._answer

    def old_software(path: str, payload: bytes, now: float) -> bytes | None:
        return None if path == "backup" else answer(path, payload, now)

    w.terminal._answer = old_software  # type: ignore[method-assign]
    w.start()
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.FAILED
    assert "keeps no backup" in w.update().text


def test_a_terminal_that_is_busy_is_asked_again() -> None:
    w = world(refuse={"upgrade": [Result.BUSY], "backup": [Result.BUSY, Result.OUT_OF_TURN]})
    w.start()
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.SUCCEEDED
    check_end(w)


def silence(w: World, seconds: float) -> None:
    """Nothing gets through."""
    end, w.chances = w.now + seconds, Chances(lose=1.0, until=1e9)
    w.run(lambda: w.now >= end)
    w.chances = Chances()


def silent_before_the_application_is_erased(w: World) -> None:
    """From then on until the terminal has left by itself, nothing gets through."""

    def look(message: Any) -> None:
        if message.opt.uri_path == ("erase",):
            command = decode_command("erase", message.payload)
            assert isinstance(command, Erase)
            if command.offset == APPLICATION.offset:
                w.chances = Chances(lose=1.0, until=1e9)

    w.on_request = look
    w.run(lambda: w.chances.lose > 0 or w.session().state.ended)
    w.on_request = lambda _message: None
    if w.chances.lose:
        w.run(lambda: w.terminal.program is TerminalState.APPLICATION)
    w.chances = Chances()


@pytest.mark.parametrize("target", [NEW, MIGRATED], ids=["same format", "new format"])
def test_a_terminal_that_has_left_in_a_silence_begins_again(target: bytes) -> None:
    """Something may have been erased: first its user's data is given back."""
    w = world(target)
    w.start(version_of(target))
    silent_before_the_application_is_erased(w)
    assert w.terminal.running() == OLD
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.SUCCEEDED
    once = ["backup kept", "backup read", "backup deleted"]
    assert w.audit() == once * 2
    check_end(w)


def test_an_erase_without_a_known_result_counts_as_carried_out() -> None:
    w = world(MIGRATED)
    w.start("2.0.0")
    w.run(lambda: w.terminal._busy is not None)
    silence(w, 100)
    assert w.terminal.read() == []
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.SUCCEEDED
    check_end(w)


def test_a_terminal_that_has_left_untouched_is_started_again() -> None:
    w = world()
    w.start()
    w.run(lambda: w.terminal.journal.phase == "commanded")
    silence(w, 100)
    assert w.terminal.running() == OLD
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.SUCCEEDED
    assert w.audit() == ["backup kept", "backup read", "backup deleted"]
    check_end(w)


def test_a_terminal_that_leaves_again_and_again_is_given_up() -> None:
    w = world(MIGRATED)
    w.start("2.0.0")
    for _ in range(plan.MAX_STARTS):
        silent_before_the_application_is_erased(w)
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.FAILED
    assert w.terminal.running() == OLD
    check_end(w)


def test_a_silence_in_the_middle_is_survived() -> None:
    w = world()
    w.start()
    w.run(lambda: len(w.terminal.done) == 3)
    silence(w, 1000)
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.SUCCEEDED
    check_end(w)


def rescue(w: World, image: bytes) -> None:
    """Somebody restores it over the wire."""
    area = image.ljust(APPLICATION.size, b"\xff")
    w.terminal.nor[APPLICATION.offset : APPLICATION.end] = area
    w.terminal.journal.phase = "idle"
    w.terminal.journal.last_id = w.terminal.journal.update_id
    w.terminal.journal.last_result = Result.RESTORED
    w.terminal.power_on(w.now)


@pytest.mark.parametrize("by", ["old", "new", "other"])
def test_a_terminal_that_is_restored_over_the_wire_gets_its_data_back(by: str) -> None:
    w = world()
    other = make_image("1.0.5+0", size=6000)
    w.terminal.images.append(other)
    w.start()
    w.run(lambda: len(w.terminal.done) == 3)
    rescue(w, {"old": OLD, "new": NEW, "other": other}[by])
    w.run(lambda: settled(w))
    # With the old software it begins again.
    expected = UpdateState.FAILED if by == "other" else UpdateState.SUCCEEDED
    assert w.update().state is expected
    check_end(w)


def test_an_erase_that_nobody_heard_of_is_not_forgotten_when_it_is_restored() -> None:
    w = world(MIGRATED)
    other = make_image("1.0.5+0", size=6000)
    w.terminal.images.append(other)
    w.start("2.0.0")
    w.run(lambda: w.terminal._busy is not None)
    w.chances = Chances(lose=1.0, until=1e9)
    w.run(lambda: len(w.terminal.done) == 1)
    rescue(w, other)
    w.chances = Chances()
    assert w.terminal.read() == []
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.FAILED
    check_end(w)


def test_old_news_of_a_terminal_do_no_harm() -> None:
    """A registration of the application, copied by the link, arrives amid the commands."""
    w = world()
    w.start()
    stale = w.terminal.registration()
    w.run(lambda: len(w.terminal.done) == 3)
    w.core.handle("radio", post("register", stale.encode()), w.now)
    w.run(lambda: settled(w))
    assert w.update().state is UpdateState.SUCCEEDED
    check_end(w)


def test_a_resident_program_that_nobody_commands_is_sent_away() -> None:
    w = world()
    w.start()
    w.run(lambda: w.terminal.journal.phase == "commanded")
    other = World(CommandedTerminal([OLD, NEW], list(ENTRIES)), now=w.now)
    other.terminal = w.terminal
    other.run(lambda: said(other))
    assert isinstance(w.terminal.done[-1], Leave)
    assert w.terminal.running() == OLD
    assert other.records.updates(SERIAL) == []


# Cancelling


def test_claim_b6_an_update_that_is_cancelled_leaves_nothing_behind() -> None:
    for moment in range(200):
        w = world()
        update = w.start()
        for _ in range(moment):
            w.tick()
        begun = any(step.state is not StepState.WAITING for step in w.steps(StepKind.ERASE))
        if w.update().state.ended:
            break
        if begun:
            with pytest.raises(ConflictError, match="cannot be cancelled"):
                w.core.cancel_update(update, w.now)
        else:
            w.core.cancel_update(update, w.now)
            assert w.records.backups() == []
        w.run(lambda w=w: settled(w))  # type: ignore[misc]
        check_end(w)
        assert w.update().state is (UpdateState.SUCCEEDED if begun else UpdateState.CANCELLED)
        assert not any(isinstance(command, Erase) for command in w.terminal.done) or begun
    else:
        pytest.fail("it never ended")
    assert moment > 20


def test_a_terminal_that_is_gone_can_be_given_up() -> None:
    w = world(MIGRATED)
    update = w.start("2.0.0")
    w.run(lambda: len(w.terminal.done) == 4)
    with pytest.raises(ConflictError):
        w.core.cancel_update(update, w.now)
    w.core.abandon_update(update, w.now)
    assert w.session().state is SessionState.FAILED
    assert w.records.backups() == []
    last = w.records.audit(serial=SERIAL)[-1]
    assert (last.actor, last.text) == ("operator", "given up by a person")
    with pytest.raises(ConflictError, match="nothing of it goes on"):
        w.core.abandon_update(update, w.now)
    with pytest.raises(UnknownError):
        w.core.abandon_update(99, w.now)
    # It does come back, is sent away, and restored; what its user had is lost.
    w.run(lambda: said(w) and all(u.state.ended for u in w.records.updates(SERIAL)))
    assert isinstance(w.terminal.done[-1], Leave)
    assert w.update().state is UpdateState.FAILED
    assert w.terminal.running() == OLD
    assert w.terminal.read() == []


# Starting


def test_what_cannot_be_commanded_is_refused_and_why() -> None:
    records = MemoryRecords()
    core = ServerCore(records, inspect)
    core.publish(NEW, 0.0)
    with pytest.raises(NotCommandedError, match="has not registered with software that runs"):
        core.start_update(SERIAL, "1.1.0", 0.0, commanded=True)
    core.handle("a", post("register", registration().encode()), 1.0)
    with pytest.raises(NotCommandedError, match="is not published here"):
        core.start_update(SERIAL, "1.1.0", 1.0, commanded=True)
    core.publish(OLD, 2.0)
    state = TerminalState.RESTORATION
    where = registration(digest=inspect(OLD).digest, state=state)
    core.handle("a", post("register", where.encode()), 3.0)
    with pytest.raises(NotCommandedError, match="has not registered with software that runs"):
        core.start_update(SERIAL, "1.1.0", 4.0, commanded=True)


def test_software_with_another_format_is_not_staged() -> None:
    core = ServerCore(MemoryRecords(), inspect)
    for image in (OLD, MIGRATED):
        core.publish(image, 0.0)
    # Ordered before the terminal was known: it turns out when it registers.
    early = core.start_update(SERIAL, "2.0.0", 0.0)
    here = registration(digest=inspect(OLD).digest)
    core.handle("a", post("register", here.encode()), 1.0)
    assert core.poll(1.0) == []
    refused = core.records.update(early.id)
    assert refused is not None
    assert refused.state is UpdateState.REFUSED
    with pytest.raises(ConflictError, match="another format") as caught:
        core.start_update(SERIAL, "2.0.0", 2.0)
    assert "--commanded" in caught.value.hint


def test_a_restoration_prefers_software_that_reads_the_data_as_it_is() -> None:
    newest = with_format(make_image("3.0.0+0"), 3)
    fitting = with_format(make_image("2.1.0+0"), 2)
    core = ServerCore(MemoryRecords(), inspect)
    for image in (OLD, MIGRATED, fitting, newest):
        core.publish(image, 0.0)
    here = registration(digest=inspect(MIGRATED).digest, version="2.0.0+0")
    core.handle("a", post("register", here.encode()), 1.0)
    terminal = core.records.terminal(SERIAL)
    assert terminal is not None
    images = core.records.images()
    broken = replace(terminal, state=TerminalState.RESTORATION, digest=bytes(32))
    chosen = choose_image(broken, [], images)
    assert chosen is not None
    assert chosen.version == "2.0.0+0"
    without = [replace(i, hardware_id="other") if i.version == "2.0.0+0" else i for i in images]
    instead = choose_image(broken, [], without)
    assert instead is not None
    assert instead.version == "2.1.0+0"


def test_a_second_order_waits_until_the_first_is_over() -> None:
    w = world()
    update = w.start()
    with pytest.raises(ConflictError, match=f"update {update} of"):
        w.core.start_update(SERIAL, "1.1.0", w.now, commanded=True)
    w.run(lambda: settled(w))
    again = w.core.start_update(SERIAL, "1.0.0", w.now, commanded=True, downgrade=True)
    w.run(lambda: settled(w))
    assert w.terminal.running() == OLD
    assert w.records.update(again.id) == w.update()
    check_end(w)


# Everything at once

results = st.sampled_from([Result.ERASE_FAILED, Result.PROGRAM_FAILED, Result.OTHER_CONTENT])
refusals = st.sampled_from(
    [Result.BUSY, Result.USERDATA_CHANGED, Result.OUT_OF_TURN, Result.NO_ROOM]
)
often = st.sampled_from([0.0, 0.02, 0.1, 0.3])


@pytest.mark.slow
@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 20),
    target=st.sampled_from([NEW, MIGRATED]),
    fails=st.booleans(),
    bad=st.dictionaries(st.sampled_from(BROKEN), st.lists(results, max_size=5), max_size=2),
    refuse=st.dictionaries(
        st.sampled_from(["backup", "upgrade", "restore"]), st.lists(refusals, max_size=2)
    ),
    chances=st.builds(
        Chances,
        lose=often,
        repeat=often,
        cut=st.sampled_from([0.0, 0.005, 0.02]),
        kill=st.sampled_from([0.0, 0.01, 0.1]),
        until=st.sampled_from([20.0, 100.0, 400.0]),
    ),
    cancelled_at=st.none() | st.floats(0.0, 30.0),
)
def test_whatever_happens_it_ends_well(
    seed: int,
    target: bytes,
    fails: bool,
    bad: dict[Any, list[Result]],
    refuse: dict[str, list[Result]],
    chances: Chances,
    cancelled_at: float | None,
) -> None:
    w = world(target, seed=seed, chances=chances, bad=bad, refuse=refuse)
    if fails:
        w.terminal.failing.add(inspect(target).digest)
    update = w.start(version_of(target))
    cancel = [] if cancelled_at is None else [w.now + cancelled_at]

    def over() -> bool:
        if cancel and w.now >= cancel[0]:
            cancel.clear()
            with contextlib.suppress(ConflictError):
                w.core.cancel_update(update, w.now)
        return settled(w) and not cancel

    w.run(over, 2500)
    w.chances = Chances()
    check_end(w)
