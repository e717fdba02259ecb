"""Microcontrollers in this process: the core does what QEMU does, and what its manual says."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from mcu_chips import MACHINES, PROBE, Machine, build_probe, image_of

from unbrick.board.device_models import MODELS, DeviceModel
from unbrick.board.mcu import McuDevice
from unbrick.engine.mcu import McuEngine
from unbrick.engine.mcu.models import McuStop
from unbrick.errors import EngineError, SetupError


@dataclass(frozen=True)
class Probe:
    """The probe, built for one core."""

    machine: Machine
    elf: Path

    def engine(self) -> McuEngine:
        """A chip with the probe in its flash, without power."""
        engine = McuEngine(self.machine.chip, [self.elf])
        engine.load_nor(image_of(self.elf, self.machine.chip))
        return engine


@pytest.fixture(scope="module", params=MACHINES)
def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    machine = MACHINES[request.param]
    folder = tmp_path_factory.mktemp(machine.chip.core)
    return Probe(machine, build_probe(machine, folder, sorted(PROBE.glob("*.c"))))


def run(engine: McuEngine, *, seconds: float = 20.0) -> str:
    """All that the program says until it ends itself or locks up, or virtual time is over."""
    said, end = b"", engine.now + seconds
    while engine.now < end:
        engine.advance(end - engine.now)
        said += engine.wire.read()
        if engine.last_stop in {McuStop.EXIT, McuStop.LOCKUP}:
            break
    return said.decode()


@pytest.mark.slow
def test_the_probe_says_the_same_here_and_on_qemu(probe: Probe, qemu: str) -> None:
    command = [qemu, "-M", probe.machine.name, "-kernel", str(probe.elf), "-display", "none"]
    command += ["-serial", "none", "-monitor", "none", "-chardev", "stdio,id=out"]
    command += ["-semihosting-config", "enable=on,chardev=out"]
    # Its timers count instructions: on a busy machine those of the host tick too often.
    command += ["-icount", "shift=5,sleep=off"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with probe.engine() as engine:
        engine.power_on()
        here = run(engine)
    assert here.splitlines() == there.splitlines()
    assert here.endswith("the end\n")


@pytest.mark.slow
def test_the_same_image_gives_the_same_run_to_the_nanosecond(probe: Probe) -> None:
    runs = []
    with probe.engine() as engine:
        for _ in range(2):
            engine.power_on()
            said = run(engine)
            runs.append((said, engine.now, engine.exceptions, engine.instruction_bytes))
            engine.power_off()
            engine.forget()
    assert runs[0] == runs[1]
    assert runs[0][2] > 1


def test_a_power_cut_loses_the_ram_and_keeps_the_flash(probe: Probe) -> None:
    with probe.engine() as engine:
        ram = engine.board.sram.base
        engine.power_on()
        unknown = engine.read_memory(ram, 4096)
        run(engine)
        flash = engine.read_nor()
        assert engine.read_memory(ram, 4096) != unknown
        engine.power_off()
        engine.power_on()
        assert engine.read_memory(ram, 4096) == unknown
        assert engine.read_nor() == flash == image_of(probe.elf, probe.machine.chip)


def test_memory_is_read_where_there_is_any(probe: Probe) -> None:
    chip = probe.machine.chip
    with probe.engine() as engine:
        assert engine.read_memory(chip.main.base, 8) == engine.read_nor()[:8]
        assert len(engine.read_memory(chip.main.base + chip.main.size - 2, 8)) == 2
        with pytest.raises(EngineError, match="0x40000000"):
            engine.read_memory(0x4000_0000, 4)
        engine.power_on()
        with pytest.raises(EngineError, match="under power"):
            engine.load_nor(b"")
        with pytest.raises(EngineError, match="under power"):
            engine.forget()


def test_a_chip_without_that_uart_is_refused() -> None:
    chip = MACHINES["cortex-m3"].chip
    with pytest.raises(SetupError, match="no UART 'usart9'"):
        McuEngine(chip, console="usart9")


def test_a_device_without_a_model_in_c_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "toy", DeviceModel(False, 0, False, {}))
    device = McuDevice("toy0", "toy", 0x4000_0000, None, ())
    with pytest.raises(SetupError, match="no model toy"):
        McuEngine(replace(MACHINES["cortex-m3"].chip, devices=(device,)))


def test_a_blank_chip_locks_up_and_says_so() -> None:
    with McuEngine(MACHINES["cortex-m3"].chip) as engine:
        engine.power_on()
        assert run(engine) == ""
        assert engine.last_stop is McuStop.LOCKUP
        assert engine.faults[-1].kind == "lockup"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """A program of its own, for a Cortex-M3 of 16 MHz."""
    machine = MACHINES["cortex-m3"]
    source = Path(__file__).with_name("mcu_program.c")
    return Probe(machine, build_probe(machine, tmp_path_factory.mktemp("program"), [source]))


@pytest.fixture
def done(program: Probe) -> Iterator[McuEngine]:
    """The same after its work: it waits for what will not come."""
    with program.engine() as engine:
        engine.power_on()
        engine.advance(1.0)
        yield engine


def test_the_cycle_counter_agrees_with_systick(done: McuEngine, program: Probe) -> None:
    cycles, *_ = results(done, program)
    assert 16_000 <= cycles < 16_100


def test_a_register_that_is_polled_in_vain_is_told(done: McuEngine, program: Probe) -> None:
    (found,) = done.find_vain_registers()
    assert found.address == 0x4000_1000
    assert 4_990 < found.count <= 5_000
    # So that firmware which polls for long costs little, such a read takes 4 us.
    assert 0.019 < done.faults[0].time < 0.025
    assert found.where.startswith("run (mcu_program.c:")
    assert results(done, program)[1] == 0x1234


def test_a_fault_names_its_cause_and_its_line(done: McuEngine, program: Probe) -> None:
    (fault,) = done.faults
    assert fault.kind == "bus-fault"
    assert fault.where.startswith("go_wrong (mcu_program.c:")
    assert "0x70000000: nothing is there" in fault.detail
    assert results(done, program)[3] == 1  # its handler has gone on


def test_firmware_that_waits_for_nothing_is_quiet_and_costs_nothing(done: McuEngine) -> None:
    bytes_, now = done.instruction_bytes, done.now
    assert done.quiet
    done.advance(1000.0)
    assert done.last_stop is McuStop.QUIET
    assert done.instruction_bytes == bytes_
    assert done.now == pytest.approx(now + 1000.0)


def results(engine: McuEngine, program: Probe) -> tuple[int, ...]:
    """What the program has written down."""
    with program.elf.open("rb") as stream:
        symbols = ELFFile(stream).get_section_by_name(".symtab")
        address = symbols.get_symbol_by_name("result")[0]["st_value"]
    return struct.unpack("<4I", engine.read_memory(address, 16))
