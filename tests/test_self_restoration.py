"""Rows A10, A11 and A12, taken further: a terminal without valid software restores itself over the
wireless link, listens on the wire meanwhile, and starts again wherever the power is cut."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from counted_starts import but_for_starts

from unbrick.bench.tap import Tap
from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.link.faults import FaultPlan, Faults
from unbrick.restore.apparatus import Apparatus, RestorationStage
from unbrick.server.core.core import ServerCore
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Result, TerminalState

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.reference.system import System

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")
ENTRY = "Alice                            12345"


@pytest.fixture(params=["inprocess", "qemu", "renode"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name."""
    return str(request.param)


def application(system: System) -> bytes:
    """What lies in the application's partition."""
    return system.engine.read_nor()[APPLICATION.offset : APPLICATION.end]


def erase_application(system: System) -> None:
    """The application is gone; boot, journal and the user's data are not. Power must be off."""
    cells = bytearray(system.engine.read_nor())
    cells[APPLICATION.offset : APPLICATION.end] = b"\xff" * APPLICATION.size
    system.engine.load_nor(bytes(cells))


def in_use(make_system: Callable[..., System], **options: object) -> System:
    """A terminal with 1.0.0 and an entry in its phonebook that its server knows; power is off."""
    system = make_system(**options)
    system.power_on()
    system.wait_registered()
    system.console.command("pb add Alice 12345")
    system.publish("1.0.0")
    system.bench.cut_power()
    return system


def comes_back(system: System, timeout: float = 300.0) -> str:
    """Wait for an application that has passed its trial; what it says of itself."""
    said = system.console.expect_pattern(r"terminal: (.*), built", timeout).group(1)
    system.console.expect("confirmed", 60)
    return said


@pytest.mark.slow
def test_claim_a11_a_terminal_with_only_the_link_restores_itself(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = in_use(unbrick_make_system, engine=engine)
    image = system.releases.signed["1.0.0"]
    erase_application(system)
    system.engine.power_on()
    system.console.expect("restoration: no application", 60)
    assert comes_back(system) == "unbrick-terminal 1.0.0"
    assert application(system).startswith(image)
    system.wait_registered()
    (update,) = system.records.updates(system.serial)
    assert update.state is UpdateState.SUCCEEDED
    assert update.result is Result.RESTORED_BY_LINK
    assert update.restoration
    system.restart()
    assert ENTRY in system.console.command("pb list")


def test_claim_a11_the_server_learns_what_a_terminal_in_restoration_is(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = unbrick_make_system(engine=engine, installed=None)
    system.engine.power_on()
    system.console.expect("link: registered as in restoration", 60)
    said = system.link.registrations[-1]
    assert said.state is TerminalState.RESTORATION
    assert (said.serial, said.hardware_id) == (system.serial, LAYOUT.hardware_id)
    assert (said.version, said.digest, said.security_counter) == ("", bytes(32), 0)
    assert system.records.updates(system.serial) == []  # there is nothing that it could run


@pytest.mark.slow
def test_claim_a12_with_the_link_dead_the_terminal_is_restored_over_the_wire(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = in_use(unbrick_make_system, engine=engine)
    erase_application(system)
    system.link.cut_off(math.inf)
    system.engine.power_on()
    system.console.expect("restoration: no application", 60)
    system.restore(system.releases.signed["1.0.0"])
    assert system.records.updates(system.serial) == []
    system.restart()
    assert ENTRY in system.console.command("pb list")


@pytest.mark.slow
def test_claim_a12_while_the_link_works_the_wire_is_heard(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = unbrick_make_system(engine=engine, installed=None)
    system.engine.power_on()
    system.console.expect("link: registered as in restoration", 60)
    system.restore(system.releases.signed["1.1.0"])
    assert application(system).startswith(system.releases.signed["1.1.0"])


@pytest.mark.slow
def test_claim_a10_a11_power_cuts_every_300_ms_end_well_all_the_same(
    unbrick_make_system: Callable[..., System],
) -> None:
    """One terminal loses power after 0.1 s, then after 0.4 s, and so on until it has come back."""
    system = in_use(unbrick_make_system)
    erase_application(system)
    restored = 0
    for tenths in range(1, 400, 3):
        system.engine.power_on()
        system.bench.run_for(tenths / 10)
        system.bench.cut_power()
        restored += application(system).startswith(system.releases.signed["1.0.0"])
        if restored > 3:  # some of its lives with the new application, too
            break
    else:
        pytest.fail("it has never come so far")
    assert tenths > 50, "a transfer takes its time"
    system.restart()
    assert ENTRY in system.console.command("pb list")
    assert system.bench.run_until(
        lambda: all(u.state.ended for u in system.records.updates(system.serial)), 120
    )
    runs = system.records.terminal(system.serial)
    assert runs is not None
    assert runs.digest == inspect(application(system).rstrip(b"\xff")).digest


@pytest.mark.slow
def test_claim_a10_a11_power_cuts_while_it_restores_itself_end_well_by_the_clock(
    unbrick_make_system: Callable[..., System], qemu: str
) -> None:
    del qemu
    system = in_use(unbrick_make_system, engine="qemu")
    erase_application(system)
    for seconds in (0.1, 0.4, 1.0, 2.5):
        system.engine.power_on()
        system.bench.run_for(seconds)
        system.bench.cut_power()
    system.engine.power_on()
    system.console.expect("\r\n> ", 300)
    assert ENTRY in system.console.command("pb list")
    assert application(system).startswith(system.releases.signed["1.0.0"])


@pytest.mark.slow
def test_claim_a10_software_that_fails_its_trial_is_not_sent_again(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = in_use(unbrick_make_system, engine=engine)
    system.power_on()
    system.publish("1.2.0")
    update = system.start_update("1.2.0")
    system.console.expect("restoration: the new software failed its trial", 300)
    assert comes_back(system) == "unbrick-terminal 1.0.0"
    system.wait_registered()
    failed, restoration = system.records.updates(system.serial)
    assert (failed.id, failed.state, failed.result) == (
        update,
        UpdateState.FAILED,
        Result.TRIAL_FAILED,
    )
    assert restoration.result is Result.RESTORED_BY_LINK
    assert ENTRY in system.console.command("pb list")


def test_an_interrupted_rewrite_is_made_good_by_the_same_update(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = in_use(unbrick_make_system)
    system.power_on()
    system.publish("1.1.0")
    before = application(system)
    update = system.start_update("1.1.0")
    assert system.bench.run_until(lambda: application(system) != before, 300)
    system.bench.restart()
    system.console.expect("restoration: rewrite was interrupted", 60)
    assert comes_back(system) == "unbrick-terminal 1.1.0"
    ended = system.wait_update(update)
    assert (ended.state, ended.result) == (UpdateState.SUCCEEDED, Result.RESTORED_BY_LINK)
    assert len(system.records.updates(system.serial)) == 1


def test_a_healthy_terminal_writes_nothing_and_leaves_the_radio_to_its_application(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = in_use(unbrick_make_system)
    before = system.engine.read_nor()
    system.link.exchanges.clear()
    system.engine.power_on()
    system.console.expect("terminal: ", 60)
    assert system.link.exchanges == []
    system.wait_registered()
    system.bench.cut_power()
    assert {said.state for said in system.link.registrations} == {TerminalState.APPLICATION}
    assert but_for_starts(system.engine.read_nor()) == but_for_starts(before)


@pytest.mark.parametrize("seed", range(4))
def test_over_a_bad_link_it_takes_longer(
    unbrick_make_system: Callable[..., System], seed: int
) -> None:
    plan = FaultPlan(drop=0.1, duplicate=0.1, reorder=0.2, corrupt=0.05, delay=0.3)
    system = unbrick_make_system(installed=None, faults=Faults(plan, seed=seed))
    system.publish("1.1.0")
    system.engine.power_on()
    assert comes_back(system, 900) == "unbrick-terminal 1.1.0"


def test_a_server_that_dies_in_mid_transfer_goes_on_when_it_returns(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system(installed=None)
    system.publish("1.1.0")
    system.engine.power_on()
    assert system.bench.run_until(lambda: len(system.link.fetched) > 10, 60)
    system.link.server_dies()
    system.bench.run_for(40)
    system.server_returns(ServerCore(system.records, inspect))
    assert comes_back(system) == "unbrick-terminal 1.1.0"


def test_a_forged_image_is_refused_and_another_one_taken(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system(installed=None)
    forged = bytearray(system.releases.signed["1.3.0"])
    forged[-1] ^= 1  # in the signature
    system.server.publish(bytes(forged), 0.0)
    system.publish("1.1.0")
    system.engine.power_on()
    system.console.expect("link: refused, signature wrong or missing", 60)
    assert application(system).strip(b"\xff") == b"", "nothing was written"
    assert comes_back(system) == "unbrick-terminal 1.1.0"
    system.wait_registered()
    assert [update.result for update in system.records.updates(system.serial)] == [
        Result.SIGNATURE_WRONG,
        Result.RESTORED_BY_LINK,
    ]


def test_a_transfer_over_the_wire_that_has_begun_comes_to_its_end(
    unbrick_make_system: Callable[..., System],
) -> None:
    """The radio's file is whole while a person's is half there: the person's is installed."""
    system = unbrick_make_system(installed=None)
    system.publish("1.1.0")
    system.engine.power_on()
    system.console.expect("link: receiving 1.1.0", 60)
    system.bench.run_for(3)
    image = system.releases.signed["1.0.0"]
    tap = Tap(system.console)
    apparatus = Apparatus(tap, image, inspect(image))
    system.bench.peers.append(apparatus)
    assert system.bench.run_until(lambda: apparatus.stage is RestorationStage.SENDING, 10)
    whole = len(system.releases.signed["1.1.0"])
    assert system.bench.run_until(
        lambda: sum(fetch.size for fetch in system.link.fetched) >= whole, 60
    )
    assert apparatus.stage is RestorationStage.SENDING
    assert system.bench.run_until(lambda: apparatus.finished, 300)
    assert apparatus.error is None
    assert apparatus.accepted == "1.0.0+0"
    assert application(system).startswith(image)


def test_a_transfer_over_the_wire_that_breaks_off_leaves_it_to_the_link(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system(installed=None)
    system.publish("1.1.0")
    system.engine.power_on()
    system.console.expect("link: receiving 1.1.0", 60)
    image = system.releases.signed["1.0.0"]
    apparatus = Apparatus(Tap(system.console), image, inspect(image))
    system.bench.peers.append(apparatus)
    assert system.bench.run_until(lambda: apparatus.sent > 2000, 60)
    system.bench.peers.remove(apparatus)  # the plug is pulled
    assert comes_back(system) == "unbrick-terminal 1.1.0"
