"""A microcontroller in this process, with a debugger."""

from __future__ import annotations

import ctypes as c
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from unbrick.board.mcu import APPLICATION_CORES
from unbrick.engine.compiled import Watchpoint, check_watchpoint, pack_watches
from unbrick.engine.gdb.registers import MemoryRange, m_profile
from unbrick.engine.gdb.server import STALE, DebuggedEngine, Halt, MonitorCommand
from unbrick.engine.mcu.engine import McuEngine
from unbrick.engine.mcu.models import SMALL_CORES, McuStop
from unbrick.errors import EngineError, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from unbrick.board.mcu import McuChip
    from unbrick.engine.base import FirmwareFault

CORE_REGISTERS = range(0xE000_E000, 0xE000_F000)
"""The system control space, which GDB reads to unwind exceptions (Armv7-M ARM, B3.2)."""

_HALTS = {
    McuStop.BREAK: Halt.BREAK,
    McuStop.WATCH: Halt.WATCH,
    McuStop.STEP: Halt.STEP,
    McuStop.CUT: Halt.CUT,
    McuStop.FAULT: Halt.FAULT,
}


class DebuggedChip(McuEngine, DebuggedEngine):
    """A chip that a debugger can stop.

    Args:
        chip: as of :class:`McuEngine`, and so are ``elf_files``, ``console`` and ``svd``.
        allows: says which faults of the firmware stop nothing; by default all stop it.

    Raises:
        SetupError: the core is one that it cannot tell a debugger of.
    """

    def __init__(
        self,
        chip: McuChip,
        elf_files: Iterable[Path] = (),
        *,
        console: str | None = None,
        svd: Path | None = None,
        allows: Callable[[FirmwareFault], bool] = lambda _: False,
    ) -> None:
        if chip.core in APPLICATION_CORES:
            raise SetupError(
                f"no debugger knows the core of {chip.name}, {chip.core}",
                hint="run it without one; `unbrick replay` tells all that happens",
            )
        super().__init__(chip, elf_files, console=console, svd=svd)
        self._allows = allows
        self._breakpoints: set[int] = set()
        self._watchpoints: list[Watchpoint] = []
        self._watch_hit: tuple[Watchpoint, int] | None = None
        self.core = m_profile(main=chip.core not in SMALL_CORES, fpu=bool(chip.fpu))
        self.memories = tuple(_find_memories(chip))

    @property
    def progress(self) -> str:
        return (
            f"{self.instruction_bytes} bytes of instructions executed, "
            f"{self.exceptions} exceptions taken, {self.resets} resets"
        )

    @property
    def monitor(self) -> Mapping[str, MonitorCommand]:
        commands = super().monitor
        if self._listener is None:
            return commands
        purpose = "press the reset button: the RAM keeps what it holds"
        reset = MonitorCommand(purpose, lambda _: self._reset(), ("halt",))
        return {**commands, "reset": reset}

    def advance(self, seconds: float) -> None:
        DebuggedEngine.advance(self, seconds)

    def run_freely(self, seconds: float) -> None:
        McuEngine.advance(self, seconds)

    def run_debugged(
        self, seconds: float, *, steps: bool, passes: bool, past_watch: bool
    ) -> Halt | None:
        lib, mcu = self._models.lib, self._models.mcu
        if steps or passes:
            lib.mcu_pass(mcu, past_watch)
        run = lib.mcu_step if steps else lib.mcu_run
        faults = len(self.faults)
        self._last = McuStop(run(mcu, self._find_end(seconds)))
        if self._last is McuStop.WATCH:
            address = c.c_uint32()
            index = lib.mcu_watch_hit(mcu, c.byref(address))
            self._watch_hit = self._watchpoints[index], address.value
        elif self._last is McuStop.FAULT and all(map(self._allows, self.faults[faults:])):
            return None
        return _HALTS.get(self._last)

    def _reset(self) -> str:
        """Press the reset button, and let go of it; says so."""
        self.press_reset()
        self._models.run(self._models.now_ns)
        return f"the reset button was pressed{STALE}"

    def note_debugger(self, *, attached: bool) -> None:
        self._models.lib.mcu_debug(self._models.mcu, attached)

    def read_register(self, number: int) -> int:
        return int(self._models.lib.mcu_core_read(self._models.mcu, number))

    def write_register(self, number: int, value: int) -> None:
        self._models.lib.mcu_core_write(self._models.mcu, number, value)

    def read_memory(self, address: int, length: int) -> bytes:
        """Flash, RAM, or registers of the core; shorter at their end.

        Raises:
            EngineError: it is another place; to look at a device would change it.
        """
        if address not in CORE_REGISTERS:
            return super().read_memory(address, length)
        out, word = b"", c.c_uint32()
        first, end = address & ~3, min(address + length, CORE_REGISTERS.stop)
        for place in range(first, end, 4):
            self._models.lib.mcu_look(self._models.mcu, place, c.byref(word))
            out += word.value.to_bytes(4, "little")
        return out[address - first : end - first]

    def write_ram(self, address: int, data: bytes) -> None:
        if not self._models.lib.mcu_poke(self._models.mcu, address, data, len(data)):
            raise EngineError(f"{address:#x} is not in the RAM")

    def erase_flash(self, address: int, size: int) -> None:
        first = self._find_cells(address, size)
        starts = {0, *accumulate(self.chip.geometry.block_sizes)}
        if not {first, first + size} <= starts:
            raise EngineError(f"{size} bytes at {address:#x} are no whole blocks of flash")
        self._models.lib.mcu_reflash(self._models.mcu, first, None, size)

    def program_flash(self, address: int, data: bytes) -> None:
        first = self._find_cells(address, len(data))
        self._models.lib.mcu_reflash(self._models.mcu, first, data, len(data))

    def _find_cells(self, address: int, size: int) -> int:
        """Where in the flash image so many bytes are.

        Raises:
            EngineError: they are not in one flash.
        """
        place = self.chip.find_flash(address)
        if place is None or size > place[1]:
            raise EngineError(f"{size} bytes at {address:#x} are in no flash")
        return place[0]

    @property
    def breakpoints(self) -> frozenset[int]:
        return frozenset(self._breakpoints)

    def set_breakpoint(self, address: int) -> None:
        if not self._models.lib.mcu_break_at(self._models.mcu, address & ~1, True):
            raise EngineError("there are too many breakpoints", hint="delete one of them")
        self._breakpoints.add(address & ~1)

    def clear_breakpoint(self, address: int) -> None:
        self._models.lib.mcu_break_at(self._models.mcu, address & ~1, False)
        self._breakpoints.discard(address & ~1)

    @property
    def watchpoints(self) -> frozenset[Watchpoint]:
        return frozenset(self._watchpoints)

    @property
    def watch_hit(self) -> tuple[Watchpoint, int] | None:
        return self._watch_hit

    def set_watchpoint(self, watchpoint: Watchpoint) -> None:
        if watchpoint not in self._watchpoints:
            check_watchpoint(watchpoint, len(self._watchpoints))
            self._watchpoints.append(watchpoint)
            self._watch()

    def clear_watchpoint(self, watchpoint: Watchpoint) -> None:
        if watchpoint in self._watchpoints:
            self._watchpoints.remove(watchpoint)
            self._watch()

    def _watch(self) -> None:
        array = pack_watches(self._watchpoints)
        self._models.lib.mcu_watch(self._models.mcu, array, len(array))

    def close(self) -> None:
        self.end_debugging()
        super().close()


def _find_memories(chip: McuChip) -> Iterator[MemoryRange]:
    """What a debugger may look at: a flash as ranges of equal blocks."""
    for region in chip.flash:
        start = region.base
        for size, blocks in groupby(region.block_sizes):
            length = size * len(list(blocks))
            yield MemoryRange("flash", start, length, size)
            start += length
        if region.alias is not None:
            yield MemoryRange("rom", region.alias, region.size)
    if chip.boot_rom is not None:
        yield MemoryRange("rom", chip.boot_rom.base, chip.boot_rom.size)
    for _, ram in chip.rams:
        yield MemoryRange("ram", ram.base, ram.size)
    yield MemoryRange("rom", CORE_REGISTERS.start, len(CORE_REGISTERS))
