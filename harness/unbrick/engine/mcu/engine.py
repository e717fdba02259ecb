"""The engine for microcontrollers, from a chip's description.

The same flash image and the same bytes at the same virtual times give the same run, bit for bit.
"""

from __future__ import annotations

import ctypes as c
import random
from functools import cached_property
from typing import TYPE_CHECKING

from unbrick.board.svd import read_register_names
from unbrick.engine.base import ChipEngine, FirmwareFault, VainRegister
from unbrick.engine.compiled import NEVER, CompiledEngine
from unbrick.engine.lines import NoLine
from unbrick.engine.mcu.models import SEMIHOSTING, JoinPart, McuModels, McuStop
from unbrick.engine.symbols import Symbols
from unbrick.errors import EngineError, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from unbrick.board.mcu import McuChip
    from unbrick.engine.compiled import CFault

_FAULTS = {
    1: ("hard-fault", "HardFault (HFSR {detail:#010x})"),
    2: ("memory-fault", "MemManage fault at {address:#010x}: {cause} (CFSR {detail:#010x})"),
    3: ("bus-fault", "BusFault at {address:#010x}: {cause} (CFSR {detail:#010x})"),
    4: ("usage-fault", "UsageFault at {address:#010x}: {cause} (CFSR {detail:#010x})"),
    5: ("lockup", "a fault in a handler of faults: the core locked up (CFSR {detail:#010x})"),
    6: ("emulator", "Unicorn cannot go on at {address:#010x} (error {detail})"),
    7: ("flash-locked", "{detail:#x} at flash offset {address:#x} while the flash is locked"),
    8: ("flash-dirty", "programmed {detail:#x} at flash offset {address:#x} without an erase"),
    9: ("flash-width", "a store of {detail} bytes at flash offset {address:#x}"),
    10: ("flash-busy", "{detail:#x} at flash offset {address:#x} during another operation"),
    11: ("flash-protected", "{detail:#x} at flash offset {address:#x}, which is protected"),
    12: ("flash-worn", "flash offset {address:#x} was programmed {detail} times without an erase"),
    13: ("flash-stray", "a store of {detail:#x} at flash offset {address:#x} programs nothing"),
    14: ("flash-command", "the flash refused {detail:#x} for offset {address:#x}"),
    15: ("uart-lost", "the UART at {address:#010x} could not take byte {detail:#04x}"),
    16: ("watchdog", "the watchdog at {address:#010x} reset the chip"),
    17: ("flash-fetch", "code runs at flash offset {address:#x}, where the flash shows its status"),
    18: ("flash-hidden", "flash offset {address:#x} was read while the flash takes commands"),
}
"""Kind and text of each ``enum fault_kind``."""

PERIPHERALS = 0x4000_0000
"""Where registers begin (Armv7-M ARM, B3.1); what is below, such as FICR, does not change."""

_CAUSES = (
    *((1 << 0, "execution is not allowed"), (1 << 1, "access is not allowed")),
    *((1 << 3, "returning"), (1 << 4, "entering an exception")),
    *((1 << 8, "there is no code"), (1 << 9, "nothing is there")),
    *((1 << 11, "returning"), (1 << 12, "entering an exception")),
    *((1 << 16, "undefined instruction"), (1 << 17, "no Thumb code")),
    *((1 << 18, "wrong return from an exception"), (1 << 19, "the coprocessor is off")),
    *((1 << 20, "stack overflow"), (1 << 24, "not aligned"), (1 << 25, "division by zero")),
)
"""Bits of CFSR, Armv7-M ARM B3.2.15."""


class _McuLine:
    """One serial line of the models."""

    def __init__(self, models: McuModels, number: int) -> None:
        self._models, self._number = models, number

    def write(self, data: bytes) -> None:
        """Send ``data``; bytes arrive one after the other at the line's rate."""
        self._models.lib.mcu_line_push(self._models.mcu, self._number, data, len(data))

    def read(self) -> bytes:
        """What the firmware has sent since the last call."""
        return self._models.take(self._number)


def _list_blocks(sizes: bytes, first: int, base: int, size: int) -> list[tuple[int, int]]:
    """Blocks of one memory: where it begins in what was noted, its address, its size in bytes."""
    return [
        (base + 2 * i, 2 * halfwords)
        for i, halfwords in enumerate(sizes[first // 2 : (first + size) // 2])
        if halfwords
    ]


class McuEngine(CompiledEngine[McuModels], ChipEngine):
    """A microcontroller in this process, in virtual time.

    ``wire`` is the console, ``radio`` the first of the other UARTs. What the engine calls the NOR
    is the flash image: all regions of flash, one after the other.

    Args:
        chip: what it is (:func:`unbrick.board.load_chip`).
        elf_files: firmware ELF files with symbols, so that faults name function and line.
        console: name of the UART that is the console, or ``semihosting``; by default the chip's
            first UART.
        svd: the vendor's SVD file, so that registers have names.

    Raises:
        SetupError: a device of the chip has no model, or there is no such UART.
    """

    name = "mcu"

    def __init__(
        self,
        chip: McuChip,
        elf_files: Iterable[Path] = (),
        *,
        console: str | None = None,
        svd: Path | None = None,
    ) -> None:
        self.chip, self.board = chip, chip.board
        self._code_sizes: c.Array[c.c_char] | None = None
        console = console or (chip.uarts[0] if chip.uarts else SEMIHOSTING)
        if console != SEMIHOSTING and console not in chip.uarts:
            raise SetupError(
                f"the chip {chip.name} has no UART {console!r}",
                hint=f"choose one of {', '.join((*chip.uarts, SEMIHOSTING))}",
            )
        # A half-word a cycle.
        pace_ps = 10**12 // 2 // chip.clock_hz
        super().__init__(McuModels(chip, pace_ps=pace_ps, semihosting=console == SEMIHOSTING))
        self._symbols = Symbols(elf_files)
        self._svd = svd
        self._last = McuStop.TIME
        self.lines = {
            name: _McuLine(self._models, number) for name, number in self._models.lines.items()
        }
        self.wire = self.lines[console]
        others = [name for name in chip.uarts if name != console]
        self.radio = self.lines[others[0]] if others else NoLine()
        self._order = (console, *others)
        self._garbage = [
            (
                chip.loaded.get(name, b"")
                + random.Random(region.base).randbytes(region.size)[
                    len(chip.loaded.get(name, b"")) :
                ]
            )
            for name, region in chip.rams
        ]
        self._models.load(b"")

    @property
    def pc(self) -> int:
        """Address of the code that the core is at."""
        return int(self._models.lib.mcu_pc(self._models.mcu))

    @property
    def resets(self) -> int:
        """How often the chip has reset itself since the engine was made or has forgotten."""
        return int(self._models.lib.mcu_resets(self._models.mcu))

    @property
    def exceptions(self) -> int:
        """How many exceptions the core has taken."""
        return int(self._models.lib.mcu_exceptions(self._models.mcu))

    @property
    def instruction_bytes(self) -> int:
        """Bytes of the instructions executed so far."""
        return int(self._models.lib.mcu_instruction_bytes(self._models.mcu))

    @property
    def quiet(self) -> bool:
        """Whether the firmware waits for what will not come without the host."""
        return bool(self._models.lib.mcu_quiet(self._models.mcu))

    @property
    def last_stop(self) -> McuStop:
        """Why :meth:`advance` came back."""
        return self._last

    @property
    def overruns(self) -> tuple[int, ...]:
        """Bytes that each UART has lost: the console, then the others in the chip's order."""
        return tuple(map(self.find_overruns, self._order))

    def find_overruns(self, uart: str) -> int:
        number = self._models.lines[uart]
        return int(self._models.lib.mcu_line_overruns(self._models.mcu, number))

    def _describe(self, fault: CFault) -> FirmwareFault:
        kind, text = _FAULTS[fault.kind]
        causes = [name for bit, name in _CAUSES if fault.detail & bit]
        text = text.format(
            address=fault.address, detail=fault.detail, cause=", ".join(causes) or "unknown"
        )
        where = self._symbols.describe(fault.pc)
        return FirmwareFault(kind, fault.pc, where, text, fault.time / 1e9)

    def watch_code(self) -> None:
        """From now on note which code is executed; see :meth:`executed`."""
        sizes = c.create_string_buffer((self.board.nor.modelled + self.chip.ram_size) // 2)
        if not self._models.lib.mcu_watch_code(self._models.mcu, sizes):
            raise EngineError("Unicorn refused a hook")
        self._code_sizes = sizes

    def executed(self) -> list[tuple[int, int]]:
        """(address, length in bytes) of every basic block that was executed since then.

        One in a flash that is at two addresses is told at both.
        """
        found: list[tuple[int, int]] = []
        sizes = self._code_sizes
        if sizes is None:
            return found
        for part, first in self.chip.placed_flash:
            for base in (part.base, part.alias):
                if base is not None:
                    found += _list_blocks(sizes.raw, first, base, part.size)
        at = self.board.nor.modelled
        for _, ram in self.chip.rams:
            found += _list_blocks(sizes.raw, at, ram.base, ram.size)
            at += ram.size
        return found

    def find_vain_registers(self, least: int = 1000) -> list[VainRegister]:
        waited = [
            one for one in self._models.plain() if one.vain >= least and one.address >= PERIPHERALS
        ]
        names = self._register_names if waited else {}
        found = [
            VainRegister(
                *(one.address, names.get(one.address, ""), one.vain, one.pc),
                self._symbols.describe(one.pc),
            )
            for one in waited
        ]
        return sorted(found, key=lambda one: (-one.count, one.address))

    @cached_property
    def _register_names(self) -> dict[int, str]:
        names = {one.address: one.name for one in self.chip.registers}
        return names | (read_register_names(self._svd) if self._svd else {})

    def power_on(self) -> None:
        if self._powered:
            return
        self._models.fill_rams(self._garbage)
        self._models.lib.mcu_power_on(self._models.mcu)
        self._powered = True
        self._last = McuStop.TIME

    def press_reset(self) -> None:
        if not self._powered:
            raise EngineError("without power there is no reset", hint="power on first")
        self._models.lib.mcu_press_reset(self._models.mcu)

    def brown_out(self) -> None:
        if not self._powered:
            raise EngineError("without power there is no brown-out", hint="power on first")
        self._models.lib.mcu_brown_out(self._models.mcu)

    def brown_out_in_op(self, index: int | None) -> None:
        self._models.lib.mcu_brown_out_in(self._models.mcu, NEVER if index is None else index)

    @property
    def cut_reached(self) -> bool:
        """Whether the armed cut stopped the terminal; :meth:`power_off` completes it."""
        return self._powered and self._last is McuStop.CUT

    def advance(self, seconds: float) -> None:
        self._last = McuStop(self._models.run(self._find_end(seconds)))

    def read_memory(self, address: int, length: int) -> bytes:
        """Flash (its cells, whatever it answers now) or RAM; shorter at the memory's end.

        Raises:
            EngineError: it is another place; to look at a device would change it.
        """
        found = self._models.read_ram(address, length)
        if found is not None:
            return found
        place = self.chip.find_flash(address)
        if place is None:
            raise EngineError(f"{address:#x} is neither in the flash nor in the RAM")
        start, left = place
        self._models.note(start, min(length, left))
        return self._models.read_flash(start, min(length, left))

    def join_sessions(self, parts: JoinPart = JoinPart.ALL) -> None:
        """From now on a session ends where it comes to what a kept one has been; without power.

        Args:
            parts: what must be the same. Without all of them what was joined may go on otherwise.
        """
        self._models.lib.mcu_join_sessions(self._models.mcu, int(parts))

    def set_kind(self, kind: int) -> None:
        """The session that is to begin joins only those of the same kind; without power.

        Of one kind are those in which the host does the same when the chip does the same.
        """
        self._models.lib.mcu_set_kind(self._models.mcu, kind)

    def keep_session(self, number: int) -> bool:
        """Keep the session that has ended, for others to join; False: they can nowhere."""
        return bool(self._models.lib.mcu_keep_session(self._models.mcu, number))

    def drop_session(self, number: int) -> None:
        """No session joins this one any more."""
        self._models.lib.mcu_drop_session(self._models.mcu, number)

    @property
    def has_joined(self) -> bool:
        return self._last is McuStop.JOINED

    @property
    def joined(self) -> int:
        """The number of the session that this one has joined; another one if it has not."""
        return int(self._models.lib.mcu_joined(self._models.mcu))

    def load_nor(self, image: bytes) -> None:
        if self._powered:
            raise EngineError("the flash cannot be replaced under power", hint="power off first")
        self._check_size(image)
        self._models.load(image)
