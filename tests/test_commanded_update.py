"""Rows B5 to B10 from end to end: the real ARM binary, the wireless link and the real server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from unbrick.image.factory import derive_bench_key
from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.link.faults import FaultPlan, Faults
from unbrick.reference.system import System
from unbrick.server.core.core import ServerCore
from unbrick.server.records.analysis import RangeKind
from unbrick.server.records.people import OF_BACKUPS, Actor
from unbrick.server.records.sessions import PlannedStep, StepKind, StepState
from unbrick.server.records.updates import Update, UpdateState
from unbrick.wire.messages import TerminalState
from unbrick.wire.userdata import open_backup

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")
ENGINES = ["inprocess", "qemu", "renode"]
ENTRIES = [("Alice", "+441632960123"), ("Bob", "112")]


def start(
    make_system: Callable[..., System], engine: str = "inprocess", **options: object
) -> System:
    """A registered terminal with 1.0.0 and two entries; the server knows both releases."""
    system = make_system(engine=engine, **options)
    system.publish("1.0.0")
    system.publish("1.1.0")
    system.power_on()
    system.wait_registered()
    for name, number in ENTRIES:
        system.console.command(f"pb add {name} {number}")
    return system


def steps(system: System, update: int) -> list[PlannedStep]:
    (session,) = [s for s in system.records.sessions(system.serial) if s.update_id == update]
    return system.records.steps(session.id)


def finished(system: System, update: int) -> bool:
    return all(
        s.state.ended for s in system.records.sessions(system.serial) if s.update_id == update
    )


def wait_finished(system: System, update: int, timeout: float = 600.0) -> Update:
    assert system.bench.run_until(lambda: finished(system, update), timeout), (
        system.console.text[-2000:],
        [(s.number, s.kind.value, s.state.value, s.text) for s in steps(system, update)][-8:],
    )
    return system.update(update)


def reached(system: System, update: int, kind: StepKind) -> Callable[[], bool]:
    return lambda: any(
        s.kind is kind and s.state is not StepState.WAITING for s in steps(system, update)
    )


def application(system: System) -> bytes:
    return system.engine.read_nor()[APPLICATION.offset : APPLICATION.end].rstrip(b"\xff")


def check_all_is_well(system: System, version: str) -> None:
    """The software, the user's data, and nothing of it on the server."""
    assert application(system) == system.releases.signed[version]
    system.console.skip()
    listing = system.console.command("pb list")
    assert all(name in listing and number in listing for name, number in ENTRIES)
    assert not system.records.backups(system.serial)
    terminal = system.records.terminal(system.serial)
    assert terminal
    assert terminal.digest == inspect(system.releases.signed[version]).digest


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_claim_b8_only_what_differs_is_erased_and_written_command_by_command(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = start(unbrick_make_system, engine)
    update = system.start_commanded_update("1.1.0")
    assert wait_finished(system, update).state is UpdateState.SUCCEEDED
    check_all_is_well(system, "1.1.0")
    plan = steps(system, update)
    assert all(step.state is StepState.DONE for step in plan)
    pair = (inspect(system.releases.signed[v]).digest for v in ("1.0.0", "1.1.0"))
    ranges = system.records.ranges(*pair)
    for kind, prepared in ((StepKind.ERASE, RangeKind.ERASE), (StepKind.WRITE, RangeKind.WRITE)):
        done = [(step.offset, step.length) for step in plan if step.kind is kind]
        whole = [(item.offset, item.length) for item in ranges if item.kind is prepared]
        assert sum(length for _, length in done) == sum(length for _, length in whole) > 0
        for offset, length in done:
            assert any(at <= offset and offset + length <= at + size for at, size in whole)
    erased = re.findall(r"resident: erased 0x([0-9a-f]+)", system.console.text)
    assert [int(at, 16) for at in erased] == [s.offset for s in plan if s.kind is StepKind.ERASE]


@pytest.mark.parametrize("engine", ENGINES)
def test_claim_b7_on_the_start_message_the_resident_program_is_loaded_and_registers(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = start(unbrick_make_system, engine)
    system.start_commanded_update("1.1.0")
    system.console.expect("update: commanded to 1.1.0")
    system.console.expect_pattern(r"boot: resident program loaded, \d+ bytes")

    def commanded() -> bool:
        return any(r.state is TerminalState.COMMANDED for r in system.link.registrations)

    assert system.bench.run_until(commanded, 60)
    assert application(system) == system.releases.signed["1.0.0"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_claim_b6_the_users_data_is_backed_up_given_back_and_deleted(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = start(unbrick_make_system, engine)
    update = system.start_commanded_update("1.1.0")
    assert system.bench.run_until(reached(system, update, StepKind.ERASE), 120)
    (backup,) = system.records.backups(system.serial)
    sealed = system.records.read_backup(backup.id, Actor("test", 0.0))
    assert not any(word.encode() in sealed for entry in ENTRIES for word in entry)
    entries = open_backup(sealed, derive_bench_key(system.serial), system.serial, update)
    assert [(name, number) for _, name, number in entries] == ENTRIES
    assert wait_finished(system, update).state is UpdateState.SUCCEEDED
    check_all_is_well(system, "1.1.0")
    audit = system.records.audit(serial=system.serial)
    said = [entry.action for entry in audit if entry.actor != "test"]
    assert [action for action in said if action in OF_BACKUPS] == list(OF_BACKUPS)
    text = system.console.text
    assert text.index("user's data backed up, 2 entries") < text.index("resident: erased")
    assert text.index("1.1.0 confirmed") < text.index("user's data given back, 2 entries")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_claim_b6_new_software_with_another_format_has_the_users_data(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = start(unbrick_make_system, engine)
    system.publish("2.0.0")
    update = system.start_commanded_update("2.0.0")
    assert wait_finished(system, update).state is UpdateState.SUCCEEDED
    check_all_is_well(system, "2.0.0")
    userdata = LAYOUT.partition("userdata")
    erased = {s.offset for s in steps(system, update) if s.kind is StepKind.ERASE}
    assert userdata.offset in erased
    assert "given back, 2 entries, 2 of them stored" in system.console.text


def test_claim_b5_what_the_link_loses_is_transmitted_again(
    unbrick_make_system: Callable[..., System],
) -> None:
    plan = FaultPlan(drop=0.15, duplicate=0.1, corrupt=0.05, reorder=0.05)
    system = start(unbrick_make_system, faults=Faults(plan, 7))
    update = system.start_commanded_update("1.1.0")
    assert wait_finished(system, update, 3600.0).state is UpdateState.SUCCEEDED
    assert system.link.faults.counts.total() > 20
    check_all_is_well(system, "1.1.0")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_claim_b5_b10_after_power_cuts_and_deaths_of_the_server_it_goes_on(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = start(unbrick_make_system, engine)
    update = system.start_commanded_update("1.1.0")
    for kind in (StepKind.ERASE, StepKind.WRITE, StepKind.CHECK, StepKind.GIVE_BACK):
        assert system.bench.run_until(reached(system, update, kind), 300)
        system.link.server_dies()
        system.bench.cut_power()
        system.engine.power_on()
        system.bench.run_for(1.0)
        system.server_returns(ServerCore(system.records, inspect))
    assert wait_finished(system, update).state is UpdateState.SUCCEEDED
    check_all_is_well(system, "1.1.0")


def test_claim_b10_each_command_is_answered_and_its_result_sent(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = start(unbrick_make_system)
    update = system.start_commanded_update("1.1.0")
    assert wait_finished(system, update).state is UpdateState.SUCCEEDED
    paths = ("/erase", "/write", "/check", "/finish", "/result")
    said = [e for e in system.link.exchanges if e.request.removeprefix("POST ") in paths]
    commands = [e for e in said if e.request != "POST /result"]
    assert all(e.answer == "2.04" for e in said)
    assert len(commands) == len(said) / 2
    kinds = (StepKind.ERASE, StepKind.WRITE, StepKind.CHECK, StepKind.RESTART)
    assert len(commands) == sum(step.kind in kinds for step in steps(system, update))
