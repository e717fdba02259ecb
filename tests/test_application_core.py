"""An application core runs as far as boot loaders need it, with nothing of the host's in it."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from elftools.elf.elffile import ELFFile

from unbrick.board import load_chip
from unbrick.engine.mcu import McuEngine
from unbrick.engine.mcu.debugged import DebuggedChip
from unbrick.engine.mcu.models import McuStop
from unbrick.errors import SetupError
from unbrick.target.files import OtherCoreError, read_firmware
from unbrick.target.rests import MOST_RAM

SOURCE = Path(__file__).with_name("application_program.c")
BOARD = Path(__file__).parents[1] / "examples" / "u-boot" / "virt.toml"
LAYOUT = (
    "SECTIONS { .text 0 : { KEEP(*(first)) *(.text*) *(.rodata*) } "
    "/DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) } }\n"
)


@cache
def build(state: str) -> tuple[bytes, bytes]:
    """The program in ARM or Thumb code: what is flashed, and its ELF file."""
    with TemporaryDirectory() as folder:
        script, elf = Path(folder) / "program.ld", Path(folder) / "program.elf"
        script.write_text(LAYOUT, encoding="utf-8")
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "arm-freestanding-eabi"]
        command += ["-mcpu=cortex_a9", f"-m{state}", "-std=c11", "-Os", "-ffreestanding"]
        command += ["-nostdlib", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror"]
        command += [f"-Wl,-T,{script}", "-Wl,--entry=start", "-o", str(elf), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with elf.open("rb") as stream:
            (segment,) = (
                one for one in ELFFile(stream).iter_segments("PT_LOAD") if one["p_filesz"]
            )
            return segment.data(), elf.read_bytes()


def write_board(folder: Path, loaded: bytes = b"DATA") -> Path:
    (folder / "virt.dtb").write_bytes(loaded)
    path = folder / "virt.toml"
    path.write_bytes(BOARD.read_bytes())
    return path


class Machine:
    """A board with the program."""

    def __init__(self, folder: Path, state: str = "arm") -> None:
        chip = load_chip(write_board(folder))
        self.engine = McuEngine(chip)
        program, _ = build(state)
        self.engine.load_nor(program + chip.factory_image[len(program) :])
        self.engine.power_on()
        self.greeting = self.listen(2)

    def listen(self, lines: int = 1) -> str:
        said, end = b"", self.engine.now + 10.0
        while said.count(b"\n") < lines and self.engine.now < end:
            self.engine.advance(end - self.engine.now)
            said += self.engine.wire.read()
            if self.engine.last_stop in {McuStop.LOCKUP, McuStop.EXIT}:
                break
        return said.decode()

    def ask(self, byte: bytes) -> str:
        self.engine.wire.write(byte)
        return self.listen().strip()


@pytest.fixture(params=["arm", "thumb"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


def test_it_starts_with_what_was_loaded_for_it(machine: Machine) -> None:
    data = int.from_bytes(b"DATA", "little")
    assert machine.greeting == f"rate {62_500_000:08x}\nram {data:08x}\n"
    assert machine.engine.faults == []


def test_its_timer_counts_virtual_time(machine: Machine) -> None:
    start = machine.engine.now
    assert machine.ask(b"t") == "00000001"
    assert 1e-3 < machine.engine.now - start < 4e-3


def test_two_runs_are_alike_to_the_bit(tmp_path: Path) -> None:
    def run() -> tuple[str, float, int]:
        machine = Machine(tmp_path)
        said = "".join(machine.ask(byte) for byte in (b"t", b"e", b"t"))
        return said, machine.engine.now, machine.engine.instruction_bytes

    assert run() == run()


def test_psci_answers_resets_and_switches_off(machine: Machine) -> None:
    assert machine.ask(b"v") == "00010000"
    assert machine.ask(b"x") == "ffffffff"
    machine.engine.wire.write(b"r")
    assert machine.listen(2) == machine.greeting
    assert machine.engine.resets == 1
    assert machine.ask(b"o") == ""
    assert machine.engine.last_stop is McuStop.EXIT
    assert machine.engine.faults == []


@pytest.mark.parametrize(("byte", "kind"), [(b"u", "usage-fault"), (b"n", "bus-fault")])
def test_an_exception_is_a_fault_and_the_core_stands_still(
    byte: bytes, kind: str, machine: Machine
) -> None:
    assert machine.ask(byte) == ""
    assert machine.engine.last_stop is McuStop.LOCKUP
    assert [fault.kind for fault in machine.engine.faults] == [kind]


def test_it_erases_flash_and_waits_for_that(machine: Machine) -> None:
    """It looks at the time meanwhile, and that makes it miss nothing."""
    assert machine.ask(b"e") == "ffffffff"
    (op,) = machine.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", 0x10_0000, 0x4_0000)
    answer_s = 9 / 11_520  # eight digits and the end of the line
    assert machine.engine.now - op.end == pytest.approx(answer_s, abs=1e-4)


def test_firmware_of_another_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.elf"
    path.write_bytes(build("arm")[1])
    assert read_firmware(path, None, "cortex-a15")
    with pytest.raises(OtherCoreError, match="Cortex-A"):
        read_firmware(path, None, "cortex-m3")


def test_what_is_loaded_must_be_there_and_fit(tmp_path: Path) -> None:
    path = write_board(tmp_path, bytes(0x200_0001))
    with pytest.raises(SetupError, match=r"virt.dtb has 33554433 bytes, the RAM 33554432"):
        load_chip(path)
    (tmp_path / "virt.dtb").unlink()
    with pytest.raises(SetupError, match=r"`loaded`: virt.dtb cannot be read"):
        load_chip(path)


def test_a_debugger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no debugger knows the core of virt, cortex-a15"):
        DebuggedChip(load_chip(write_board(tmp_path)))


def test_ram_of_a_boot_loader_is_too_much_to_be_kept_for_joining(tmp_path: Path) -> None:
    assert load_chip(write_board(tmp_path)).ram_size > MOST_RAM > load_chip("nrf52840").ram_size
