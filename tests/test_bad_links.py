"""The staged update over a link that fails, and with a server that goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unbrick.image.format import inspect
from unbrick.link.faults import FaultPlan, Faults
from unbrick.server.core.core import ServerCore
from unbrick.server.records.updates import UpdateState

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.reference.system import System

PLANS = {
    "drops": FaultPlan(drop=0.1),
    "duplicates": FaultPlan(duplicate=0.3),
    "reorders": FaultPlan(reorder=0.3),
    "corrupts": FaultPlan(corrupt=0.1),
    "truncates": FaultPlan(truncate=0.1),
    "is late": FaultPlan(delay=0.5),
    "is noisy": FaultPlan(noise=0.0001),
    "does it all": FaultPlan(drop=0.03, duplicate=0.1, reorder=0.1, corrupt=0.03, truncate=0.03),
}


def ready(system: System) -> System:
    system.power_on()
    system.console.expect("link: registered", 600)
    system.publish("1.1.0")
    return system


@pytest.mark.parametrize("name", PLANS)
def test_the_update_gets_through_a_link_that(
    unbrick_make_system: Callable[..., System], name: str
) -> None:
    system = ready(unbrick_make_system(faults=Faults(PLANS[name], seed=11)))
    record = system.wait_update(system.start_update("1.1.0"), 1200)
    assert record.state is UpdateState.SUCCEEDED
    if not PLANS[name].delay:
        assert sum(system.link.faults.counts.values()) > 0, "the link must really have failed"


def test_a_link_that_garbles_messages_loses_nothing_and_forges_nothing(
    unbrick_make_system: Callable[..., System],
) -> None:
    """Bytes changed where no checksum guards them: the file's digest finds it, if nothing else."""
    system = ready(unbrick_make_system(faults=Faults(FaultPlan(garble=0.02), seed=3)))
    system.start_update("1.1.0")
    system.bench.run_for(120)
    system.link.faults = Faults()
    system.bench.run_for(200)
    version = system.console.command("version")
    assert "1.0.0" in version or "1.1.0" in version


def test_same_seed_same_run(unbrick_make_system: Callable[..., System]) -> None:
    ends = []
    for _ in range(2):
        system = ready(unbrick_make_system(faults=Faults(PLANS["does it all"], seed=5), seed=5))
        system.wait_update(system.start_update("1.1.0"), 1200)
        ends.append((system.engine.now, system.console.text, system.engine.read_nor()))
    assert ends[0] == ends[1]


def test_a_server_that_dies_in_mid_transfer_and_returns(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = ready(unbrick_make_system())
    update = system.start_update("1.1.0")
    system.console.expect("update: received 30 %", 300)
    system.link.server_dies()
    system.bench.run_for(20)
    system.server_returns(ServerCore(system.records, inspect))
    assert system.wait_update(update).state is UpdateState.SUCCEEDED


def test_a_server_that_is_gone_for_good_leaves_the_terminal_as_it_was(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = ready(unbrick_make_system())
    tasks = system.console.command("tasks")
    before = system.engine.read_nor()
    system.start_update("1.1.0")
    system.console.expect("update: received 30 %", 300)
    system.link.server_dies()
    system.console.expect_pattern(r"update: failed, .+", 300)
    system.console.expect("update: resumed browser")
    system.bench.run_for(1)
    assert system.console.command("tasks") == tasks
    assert system.engine.read_nor() == before


def test_a_terminal_out_of_reach_is_told_when_it_comes_back(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system()
    system.power_on()
    system.wait_registered()
    system.publish("1.1.0")
    system.link.cut_off(system.engine.now + 400)
    system.server.send_text(system.serial, "Your terminal has news", system.engine.now)
    update = system.start_update("1.1.0")
    system.console.expect("message: Your terminal has news", 900)
    assert system.wait_update(update, 900).state is UpdateState.SUCCEEDED
