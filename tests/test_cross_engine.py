"""The same binary on every engine: the same console transcript and the same NOR, byte for byte."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest

from unbrick.engine.inprocess import InProcessEngine
from unbrick.engine.renode.engine import RenodeEngine
from unbrick.reference.scenario import SCENARIOS as SEARCHED

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.reference.system import System


def start_and_look_around(system: System) -> None:
    """Start a healthy terminal and use every command that changes nothing."""
    system.power_on()
    system.wait_registered()
    for command in ("help", "id", "version", "mem", "tasks", "pb list", "messages", "update", "?"):
        system.console.command(command)


def use_the_phonebook(system: System) -> None:
    """Add, delete, and find it again after a power cut."""
    system.power_on()
    system.wait_registered()
    for entry in range(12):
        system.console.command(f"pb add Name{entry} 0{entry}")
    system.console.command("pb del 3")
    system.restart()
    system.console.command("pb list")


def update_over_the_air(system: System) -> None:
    """The whole staged update."""
    system.power_on()
    system.wait_registered()
    system.console.command("pb add Alice 12345")
    system.update_to("1.1.0")
    system.console.expect("link: registered")
    system.console.command("pb list")
    system.console.command("update")


def update_refused(system: System) -> None:
    """No room even when everything that may be limited is."""
    system.power_on()
    system.wait_registered()
    for task in ("browser", "media", "maps", "logger"):
        system.console.command(f"hold {task}")
    system.publish("1.1.0")
    system.wait_update(system.start_update("1.1.0"))
    system.console.expect("update: refused")
    system.console.command("tasks")


def broken_release_and_restoration(system: System) -> None:
    """A release that fails its trial; then the wire."""
    system.power_on()
    system.wait_registered()
    system.publish("1.2.0")
    system.start_update("1.2.0")
    system.console.expect("boot: trial start 1 of 3", 300)
    system.link.cut_off(math.inf)  # or the server would send what it has
    system.console.expect("restoration: send the signed image by YMODEM", 60)
    system.restore(system.releases.signed["1.1.0"])
    system.console.expect("update: 1.1.0 confirmed\r\n> ")
    system.console.command("pb list")  # whatever the apparatus has asked is answered by then
    system.link.cut_off(0.0)
    system.restart()
    system.wait_registered()
    system.console.command("update")


def commanded_update(system: System) -> None:
    """To software that keeps the user's data in another format, erase by erase, write by write."""
    system.power_on()
    system.wait_registered()
    system.console.command("pb add Alice 12345")
    system.publish("1.0.0")
    system.publish("2.0.0")
    system.start_commanded_update("2.0.0")
    system.console.expect("update: user's data given back", 300)
    system.console.expect("\r\n> ")
    system.console.command("pb list")


SCENARIOS = (
    start_and_look_around,
    use_the_phonebook,
    update_over_the_air,
    update_refused,
    broken_release_and_restoration,
    commanded_update,
)


def heard(system: System) -> str:
    """What the terminal has said, but for the C by which a receiver asks once a second."""
    return re.sub("(?m)^C+", "", system.console.text)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["qemu", "renode"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_claim_c2_every_engine_agrees_with_the_in_process_one(
    unbrick_make_system: Callable[..., System], scenario: Callable[[System], None], other: str
) -> None:
    transcripts, memories = {}, {}
    for engine in (other, "inprocess"):
        system = unbrick_make_system(engine=engine)
        scenario(system)
        transcripts[engine] = heard(system)
        system.engine.power_off()
        memories[engine] = system.engine.read_nor()
        assert system.engine.faults == []
    assert transcripts[other].split("\r\n") == transcripts["inprocess"].split("\r\n")
    assert memories[other] == memories["inprocess"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("tired", r"update: 1\.1\.0 confirmed\r\n> "),
        ("liar", r"update: 1\.1\.0 confirmed\r\n> "),
        ("wornout", r"send the signed image by YMODEM\r\n"),
    ],
)
def test_a_terminal_with_worn_cells_does_the_same_on_renode(
    unbrick_make_system: Callable[..., System], name: str, end: str
) -> None:
    worn, seen = SEARCHED[name].worn, {}
    for engine in ("renode", "inprocess"):
        system = unbrick_make_system(engine=engine)
        flash, trace = system.engine.wearing_flash, system.engine.flash_trace
        assert flash is not None
        assert trace is not None
        flash.wear(part.cells for part in worn)
        system.power_on()
        system.wait_registered()
        system.publish("1.1.0")
        system.start_update("1.1.0")
        system.console.expect_pattern(end, 300)
        system.engine.power_off()
        failed = [(op.kind, op.offset, op.failed) for op in trace.ops if op.failed]
        assert failed
        assert system.engine.faults == []
        seen[engine] = heard(system).split("\r\n"), failed, system.engine.read_nor()
    assert seen["renode"] == seen["inprocess"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 30])  # before anything is rewritten, and in the middle
def test_a_cut_before_the_same_operation_leaves_the_same_nor(
    unbrick_make_system: Callable[..., System], number: int
) -> None:
    memories, starts = {}, {}
    for name in ("renode", "inprocess"):
        system = unbrick_make_system(engine=name)
        engine = system.engine
        assert isinstance(engine, (RenodeEngine, InProcessEngine))
        system.power_on()
        system.wait_registered()
        system.publish("1.1.0")
        system.start_update("1.1.0")
        system.console.expect("update: checked")
        engine.cut_before_op(engine.op_count + number)
        assert system.bench.run_until(partial(getattr, engine, "cut_reached"), 60)
        system.bench.cut_power()
        engine.cut_before_op(None)
        memories[name] = engine.read_nor()
        engine.power_on()
        starts[name] = system.console.expect_pattern(r"(restoration|terminal): .*(?=\r)", 30)[0]
    assert memories["renode"] == memories["inprocess"]
    assert starts["renode"] == starts["inprocess"]
