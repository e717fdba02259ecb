"""GDB itself at chips whose firmware is a target from a file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import serial
from debuggee import as_words, play_gdb
from patience import PATIENCE_S
from person import Debugger, Person, close
from processes import Running
from small_firmware import build_small
from test_ab_updater import build
from test_gdb_chip import PROGRAM
from test_run_target import READY, send_update

from unbrick.campaign.case import CaseId
from unbrick.campaign.replay import debug
from unbrick.campaign.target import Outcome
from unbrick.engine.gdb.connection import Connection, gdb_command
from unbrick.engine.gdb.server import DebuggerGoneError
from unbrick.engine.mcu.debugged import DebuggedChip
from unbrick.target.load import load_target
from unbrick.target.target import FileTarget

pytestmark = pytest.mark.slow

SLOT_SIZES = {"nrf52840": 0x3000, "stm32f103": 0x2000}
"""Of the example on chips that program words: the other slot comes behind the first."""


@pytest.fixture(scope="module", params=SLOT_SIZES)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target file of the example, for each chip."""
    return build(tmp_path_factory.mktemp("example"), request.param)


def assert_names_all_symbols(command: str, example: Path) -> None:
    folder = example.parent / "build" / example.stem
    names = ("boot.elf", "app-v1.elf", "app-v2.elf")
    assert re.findall(r"\S+\.elf", command) == [str(folder / name) for name in names]


def run_gdb(
    gdb: str,
    target: FileTarget,
    commands: list[str],
    work: Callable[[DebuggedChip, Callable[[], Connection]], None],
) -> str:
    """What GDB says while ``work`` goes on with an engine, and waits for it when it wants to."""

    def device(wait: Callable[[], Connection]) -> None:
        engine = target.create_engine(debugged=True)
        assert isinstance(engine, DebuggedChip)
        with engine:
            work(engine, wait)

    def find_words(port: int) -> list[str]:
        _, *words = shlex.split(gdb_command(target.covered[0], port))
        return [*as_words(["set confirm off"]), *words, *as_words(commands)]

    return play_gdb(gdb, device, find_words)


def debug_case(gdb: str, path: Path, case: str, commands: list[str]) -> str:
    target = FileTarget.load(path, tried=False)

    def work(engine: DebuggedChip, wait: Callable[[], Connection]) -> None:
        with suppress(DebuggerGoneError):
            debug(target, engine, CaseId.parse(case), lambda: engine.attach(wait()))

    return run_gdb(gdb, target, commands, work)


def test_gdb_breaks_steps_and_watches_in_the_application(gdb: str, example: Path) -> None:
    said = debug_case(
        gdb,
        example,
        f"ab-{example.stem}",
        [
            "break take_update",
            "continue",
            "info registers",
            "next",
            "print/x slot",
            "delete",
            "break take_block",
            "continue",
            "backtrace",
            "up",
            "watch header.version",
            "continue",
            "print header.version",
            "stepi",
            "info registers pc",
            "kill",
        ],
    )
    slot = load_target(example).programs[1].pieces[0].address + SLOT_SIZES[example.stem]
    stop = said.index(f"Breakpoint 1.1, take_update (slot={slot}) at ./app.c:")
    watched, frames = said.index("Hardware watchpoint 3: header.version"), said.index("#0 ")
    registers = dict(re.findall(r"^(\w+) +(0x[0-9a-f]+) ", said[stop:frames], re.MULTILINE))
    assert int(registers["r4"], 16) == slot
    assert registers["sp"] == registers["msp"]
    assert registers["primask"] == "0x1"
    assert ("fpscr" in registers) is (example.stem == "nrf52840")
    assert f"$1 = {slot:#x}" in said[stop:frames]
    assert re.search(
        r"#0 +take_block .*\n#1 +take_update .*\n#2 +main .*\n#3 .* in reset ", said[frames:watched]
    )
    assert "Old value = 0\nNew value = 2\ntake_update (" in said[watched:]
    assert "$2 = 2" in said[watched:]
    assert "Remote connection closed" in said


def test_a_run_under_a_debugger_that_only_continues_is_the_same(gdb: str, example: Path) -> None:
    target = FileTarget.load(example, tried=False)
    ends: list[Outcome] = []

    def work(engine: DebuggedChip, wait: Callable[[], Connection]) -> None:
        engine.attach(wait())
        ends.append(target.run(target.start(), engine=engine))
        engine.detach()

    said = run_gdb(gdb, target, ["continue"], work)
    assert "exited normally" in said
    alone = target.run(target.start())
    (debugged,) = ends
    assert debugged.violation is None
    assert debugged.console == alone.console
    assert debugged.ops == alone.ops
    assert debugged.virtual == alone.virtual
    assert len(alone.ops) > 100


def test_gdb_is_shown_where_the_power_is_lost(gdb: str, example: Path) -> None:
    said = debug_case(
        gdb,
        example,
        f"ab-{example.stem}/9",
        ["continue", "backtrace", "tbreak main", "continue", "continue"],
    )
    lost = said.index("just before flash operation 9: the power is lost here")
    assert re.search(r"#0 +flash_program \(to=.*\n#1 +0x\w+ in program_block \(", said[lost:])
    start = said.index("Temporary breakpoint 1.1, main () at ./boot.c", lost)
    assert "exited normally" in said[start:]


@pytest.mark.parametrize("chip_name", ["stm32f103xb", "nrf52840"])
def test_gdb_unwinds_an_exception(gdb: str, chip_name: str, tmp_path: Path) -> None:
    target = FileTarget.load(build_small(tmp_path, chip_name, PROGRAM), tried=False)

    def work(engine: DebuggedChip, wait: Callable[[], Connection]) -> None:
        engine.load_nor(target.description.start_image)
        engine.attach(wait())
        engine.power_on()
        with suppress(DebuggerGoneError):
            while True:
                engine.advance(1.0)

    commands = ["break tick", "continue", "continue", "backtrace", "finish", "next", "next"]
    commands += ["info registers psp", "info mem", "kill"]
    said = run_gdb(gdb, target, commands, work)
    frames = (
        r"#0 +tick \(\).*\n#1 +<signal handler called>\n#2 .* in rest \(\).*\n#3 .* in start \(\)"
    )
    assert said.count("Breakpoint 1, tick ()") == 2
    assert re.search(frames, said)
    assert "in rest ()" in said[said.index("#3 ") + 40 :], "finish goes back through the frame"
    flash = target.description.chip.main
    assert re.search(rf"{flash.base:#010x} \S+ flash blocksize {flash.block_sizes[0]:#x} ", said)


def test_a_program_is_debugged_while_others_talk_to_it(gdb: str, example: Path) -> None:
    with Running("run", example, "--gdb") as chip:
        command = chip.wait_for(r"debug it with: (gdb-multiarch .*)\n")[1]
        assert_names_all_symbols(command, example)
        with serial.Serial(chip.wait_for(READY)[1], 115200, timeout=PATIENCE_S) as port:
            port.read_until(b"APP v1\r\n")
            debugger = Debugger(command.replace("gdb-multiarch", f"{gdb} -nx", 1))
            debugger.orders("set confirm off")
            debugger.orders("break take_update")
            debugger.orders("continue")
            debugger.sees("Continuing")
            port.write(b"u")
            debugger.sees(r"Breakpoint 1\.1, take_update \(slot=\d+\)")
            debugger.orders("monitor reset")
            debugger.sees("the reset button was pressed")
            debugger.orders("continue")
            debugger.sees("Continuing")
            assert port.read_until(b"APP v1\r\n").endswith(b"APP v1\r\n")
            debugger.window.sendintr()
            debugger.sees("received signal SIGINT")
            debugger.orders("delete")
            debugger.orders("detach")
            debugger.orders("quit")
            port.write(b"u")
            send_update(port, example)
            assert port.read_until(b"APP v2\r\n").endswith(b"APP v2\r\n")
            again = Debugger(command.replace("gdb-multiarch", f"{gdb} -nx", 1))
            again.orders("info registers pc")
            again.sees("pc +0x")
            assert chip.end() == 0, "also while a debugger keeps it stopped"
        close(again.window)


def test_a_debugger_that_kills_ends_the_run(gdb: str, example: Path) -> None:
    with Running("run", example, "--gdb=0") as chip:
        command = chip.wait_for(r"debug it with: (gdb-multiarch .*)\n")[1]
        chip.wait_for(READY)
        debugger = Debugger(command.replace("gdb-multiarch", f"{gdb} -nx", 1))
        debugger.orders("set confirm off")
        debugger.orders("kill")
        assert chip.wait() == 0
        assert "the debugger has killed the terminal\n" in chip.output
        close(debugger.window)


def test_a_person_debugs_a_chip_from_its_console(gdb: str, example: Path, tmp_path: Path) -> None:
    person = Person([example, "--gdb", 0], tmp_path)
    person.window.expect(r"debug it with: (gdb-multiarch .*?)\r\n")
    command = person.window.match.group(1)
    person.sees("APP v1")
    debugger = Debugger(command.replace("gdb-multiarch", f"{gdb} -nx", 1))
    debugger.orders("set confirm off")
    debugger.orders("break take_update")
    debugger.orders("continue")
    debugger.sees("Continuing")
    person.types("u")
    debugger.sees(r"Breakpoint 1\.1, take_update \(")
    person.tells_the_bench("gdb", "gdb-multiarch ")  # while the chip stands still
    person.tells_the_bench("restart", "power cut")
    debugger.orders("stepi")
    debugger.orders("info registers pc")
    pc = int(debugger.sees(r"pc +(0x[0-9a-f]+)")[1], 16)
    assert pc < load_target(example).programs[1].pieces[0].address, "in the boot program"
    debugger.orders("detach")
    person.sees("APP v1")
    close(debugger.window)
    person.tells_the_bench("quit")
    assert person.is_gone() == 0


def test_replay_says_how_to_start_a_debugger(gdb: str, example: Path) -> None:
    with Running("replay", example, f"ab-{example.stem}/9", "--gdb") as replay:
        command = replay.wait_for(r"(gdb-multiarch .*)\n")[1]
        assert_names_all_symbols(command, example)
        debugger = Debugger(command.replace("gdb-multiarch", f"{gdb} -nx", 1))
        debugger.orders("continue")
        debugger.sees("just before flash operation 9: the power is lost here")
        debugger.orders("detach")
        debugger.orders("quit")
        assert replay.wait() == 0
        assert any("all has come about" in line for line in replay.output)
