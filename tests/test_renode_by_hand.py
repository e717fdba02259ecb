"""Renode by hand, as docs/renode.md has it: its monitor, and its own `renode-test`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from monitor import Monitor
from patience import PATIENCE_S
from robot import api

from unbrick.layout import reference_layout

LAYOUT = reference_layout()
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "renode.md").read_text(encoding="utf-8")
AHEAD_S = 0.1  # that virtual time may be ahead of the clock
STILL_S = 3  # of virtual time in which a CPU stands still
RUNS = " terminal: unbrick-terminal 1.0.0, built "

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(firmware: Path, tmp_path: Path) -> Path:
    """Where somebody is who has built the firmware, and nothing else."""
    shutil.copytree(firmware, tmp_path / "build" / "firmware")
    shutil.copytree(ROOT / "renode", tmp_path / "renode")
    return tmp_path


@pytest.fixture
def nor(folder: Path) -> Path:
    """The contents of a NOR, made as the page says."""
    for command in shell_commands():
        if command.startswith("unbrick"):
            run(command, folder)
    return folder / "build" / "terminal.nor"


def run(command: str, folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        shlex.split(command),
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=True,
        timeout=PATIENCE_S,
    )


def block(number: int) -> str:
    return PAGE.split("```console\n")[number].split("```")[0].replace("\\\n", "")


def shell_commands() -> list[str]:
    return re.findall(r"^\$ (.*)$", block(1), re.MULTILINE)


def play(lines: str, renode: str, folder: Path) -> None:
    """Type what a block types from `$ renode` on, and wait for what it shows."""
    start, typed = lines.split("$ renode ")[1].split("\n", 1)
    with Monitor(renode, folder, *start.split()) as monitor:
        for prompt, line, shown in re.findall(
            r"^\((\w+)\) (.*)\n((?:(?!\().*\n)*)", typed, re.MULTILINE
        ):
            assert monitor.prompt == prompt
            if line == "quit":
                monitor.quits()
                return
            heard = [expected for expected in shown.splitlines() if expected.startswith("...")]
            answer = shown if not heard else ""
            if answer:
                monitor.asks_until(line, loosely(answer))
            else:
                monitor.asks(line)
            for expected in heard:
                monitor.sees(expected.removeprefix("..."))


def loosely(shown: str) -> re.Pattern[str]:
    """Of a table: times differ, and with them how wide it is."""
    text = re.escape(shown.strip())
    text = re.sub(r"(?:\\-)+", "-+", text)
    text = re.sub(r"(?:\\ )+\\\|", r" *\\|", text)
    text = re.sub(r"\d+\\\.\d{3}", r"\\d+\\.\\d{3} *", text)
    return re.compile(text.replace("\\\n", "\\s+"))


def clocks(monitor: Monitor) -> tuple[float, float]:
    """Virtual time, and the clock's, in seconds, as Renode tells them."""
    said = monitor.asks("machine ElapsedVirtualTime")
    found = re.findall(r"Elapsed (?:Virtual|Host) Time: (\d+):(\d+):([\d.]+)", said)
    virtual, clock = (
        int(hours) * 3600 + int(minutes) * 60 + float(s) for hours, minutes, s in found
    )
    return virtual, clock


def check_it_goes_with_the_clock(monitor: Monitor) -> None:
    virtual, clock = clocks(monitor)
    end = virtual + STILL_S
    while virtual < end:
        assert virtual < clock + AHEAD_S
        virtual, clock = clocks(monitor)


def test_what_the_page_says_to_type_does_what_it_says(renode: str, folder: Path, nor: Path) -> None:
    """A power cut before an operation among it, and the start that comes after."""
    assert nor.exists()
    play(block(1), renode, folder)
    saved = (folder / "build" / "saved.nor").read_bytes()
    assert len(saved) == LAYOUT.board.nor.modelled
    assert b"Alice" in saved
    assert b"Bob" not in saved


def test_two_terminals_in_one_emulation(renode: str, folder: Path, nor: Path) -> None:
    assert nor.exists()
    play(block(2), renode, folder)


def test_the_sram_has_no_zeros_before_the_first_start_and_functions_have_names(
    renode: str, folder: Path, nor: Path
) -> None:
    assert nor.exists()
    sram = LAYOUT.board.sram
    words = (sram.base, sram.base + sram.size - 4)
    with (folder / "build/firmware/app-1.0.0.elf").open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(symbols, SymbolTableSection)
        main = (symbols.get_symbol_by_name("main") or [])[0]
    with Monitor(renode, folder, "--console", "renode/terminal.resc") as monitor:
        before = [monitor.asks(f"sysbus ReadDoubleWord {address:#x}") for address in words]
        assert int(before[0], 16)
        assert int(before[1], 16)
        monitor.asks(f"sysbus WriteDoubleWord {sram.base:#x} 0")
        monitor.asks("machine Reset")
        after = [monitor.asks(f"sysbus ReadDoubleWord {address:#x}") for address in words]
        assert after == before
        assert monitor.asks(f"sysbus FindSymbolAt {main['st_value'] & ~1:#x}") == "main (entry)"


def test_time_goes_with_the_clock_while_a_power_cut_keeps_the_cpu_still(
    renode: str, folder: Path, nor: Path
) -> None:
    """Ahead of the clock, Renode would wait for it after the reset: the terminal froze."""
    assert nor.exists()
    with Monitor(renode, folder, "--console", "renode/terminal.resc") as monitor:
        monitor.asks("start")
        monitor.sees(RUNS)
        monitor.asks("nor CutBefore 1")
        monitor.asks('uart0 WriteLine "pb add Alice 112"')
        monitor.asks_until("nor CutReached", re.compile("True"))
        check_it_goes_with_the_clock(monitor)
        monitor.asks("machine Reset")
        monitor.sees(RUNS)


def test_operations_fail_as_often_as_somebody_says(renode: str, folder: Path, nor: Path) -> None:
    """The terminal gives an operation three times before it says that the flash has failed."""
    assert nor.exists()
    phonebook = LAYOUT.partition("userdata")
    where = f"{phonebook.offset:#x} {phonebook.size:#x}"
    with Monitor(renode, folder, "--console", "renode/terminal.resc") as monitor:
        monitor.asks("start")
        monitor.sees(RUNS)
        monitor.asks(f"nor WearErases {where} 0 1")
        monitor.asks(f"nor WearPrograms {where}")
        monitor.asks('uart0 WriteLine "pb add Alice 112"')
        monitor.sees(" not added, the flash ")
        trace = monitor.asks("nor Trace")
        assert trace.count("Erase") == 2
        monitor.asks("nor Mend")
        monitor.asks('uart0 WriteLine "pb add Alice 112"')
        monitor.sees(" added 1")
        assert monitor.asks("nor FaultCount") == "0x00000000"


def test_without_contents_for_the_nor_renode_says_how_to_make_them(
    renode: str, folder: Path
) -> None:
    with Monitor(renode, folder, "--console", "renode/terminal.resc") as monitor:
        assert "The NOR's contents cannot be read from" in monitor.text
        assert "unbrick image factory --boot build/firmware/boot.bin" in monitor.text
        assert monitor.prompt == "terminal"
        monitor.asks("Clear")
        nor = LAYOUT.board.nor.modelled
        (folder / "large.nor").write_bytes(bytes(nor + 1))
        monitor.asks("$nor=$CWD/large.nor")
        said = monitor.asks("include $CWD/renode/terminal.resc")
        assert f"The image has {nor + 1} bytes, and the NOR {nor}." in said


def test_the_platform_without_its_script_is_refused_with_the_error_that_the_page_explains(
    renode: str, folder: Path
) -> None:
    explained = "Error E04: Could not resolve type: 'Unbrick.NorFlash'"
    assert f"`{explained}`" in PAGE
    with Monitor(renode, folder, "--console") as monitor:
        monitor.asks("mach create")
        said = monitor.asks("machine LoadPlatformDescription $CWD/renode/terminal.repl")
        assert explained in said
        assert "terminal.repl:17:" in said
    lines = (folder / "renode" / "terminal.repl").read_text(encoding="utf-8").splitlines()
    assert "include platform.resc" in lines[15]  # above the line that Renode shows


def test_the_suite_for_renode_test_passes(renode: str, folder: Path, nor: Path) -> None:
    """It is beside `renode`, and has the version of Robot Framework that Renode pins."""
    assert nor.exists()
    program = Path(renode).resolve().with_name("renode-test")
    if not program.exists():
        pytest.skip(f"no {program} (a Renode with its tests has it)")
    run(f"{program} -r {folder / 'results'} renode/terminal.robot", folder)
    suite = api.ExecutionResult(folder / "results" / "robot_output.xml").suite
    written = api.TestSuite.from_file_system(folder / "renode" / "terminal.robot").test_count
    assert suite.statistics.passed == written > 0
