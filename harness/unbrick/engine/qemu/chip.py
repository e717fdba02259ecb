"""A microcontroller on QEMU: an nRF51 on the machine ``microbit``, in real time.

QEMU says nothing of its flash. So its server for debuggers is asked: watchpoints stop it at each
store to the flash and to the registers that erase, and its code says what was stored. The source of
the registers is the nRF51 series reference manual, chapter 6.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import struct
import time
from typing import TYPE_CHECKING

from unbrick.engine.base import FirmwareFault
from unbrick.engine.lines import NoLine
from unbrick.engine.opinion import SecondOpinion
from unbrick.engine.qemu.debugger import QemuDebugger
from unbrick.engine.qemu.process import LOG_KEPT, QemuLine, QemuProcess, find_qemu
from unbrick.engine.qemu.stores import find_stores
from unbrick.engine.symbols import Symbols
from unbrick.errors import EngineError, NotKnownHereError
from unbrick.flash.ops import FlashOp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from unbrick.board.mcu import McuChip

MACHINES = {"nrf51822": "microbit"}
"""The machines of QEMU that have a chip of ours with its flash."""

KICK_INTERVAL_S = 0.02
"""Seconds after which a QEMU that is silent is asked something. Its main loop may sleep on although
a watchpoint has stopped the core (seen with 7.2)."""

STARVED_AT_MOST = 20
STARVED_AT_MOST_S = 5.0
"""So many times the time, or seconds, it is waited for a QEMU that others keep from running."""

_CONFIG, _ERASES = 0x504, 0x508  # registers of the NVMC
_ERASEPAGE, _ERASEALL, _ERASEPCR0, _ERASEUICR = 0x508, 0x50C, 0x510, 0x514
_ERASES_SIZE = 0x10
_WRITE_ENABLED = 1
_WORD = 4


class QemuChip(SecondOpinion):
    """A microcontroller in a QEMU process, in real time.

    Its flash works at once. UICR is blank there, whatever it was loaded with.

    Args:
        chip: what it is.
        elf_files: firmware ELF files with symbols, so that faults name function and line.
        console: name of the UART that is the console.

    Raises:
        NotKnownHereError: QEMU has no machine with this chip, or not this console.
        MissingToolError: QEMU is not installed.
    """

    name = "qemu"

    def __init__(
        self, chip: McuChip, elf_files: Iterable[Path] = (), *, console: str | None = None
    ) -> None:
        if chip.name not in MACHINES or console not in {None, *chip.uarts}:
            raise NotKnownHereError(
                f"the engine qemu has no {chip.name} with the console {console or 'it needs'}",
                hint=f"leave out --engine; it has {', '.join(MACHINES)}",
            )
        find_qemu()
        self.chip, self.board = chip, chip.board
        self._symbols = Symbols(elf_files)
        self._main, self._nvmc = chip.main, chip.device("nvmc").base
        self._page = chip.main.block_sizes[0]
        self._cells = bytearray(chip.factory_image)
        self._console = QemuLine()
        self.wire, self.radio = self._console, NoLine()
        self.lines = {chip.uarts[0]: self._console}
        self._process: QemuProcess | None = None
        self._debugger: QemuDebugger | None = None
        self._start = time.monotonic()
        self._ops: list[FlashOp] = []
        self._faults: list[FirmwareFault] = []
        self._resets = self._pc = 0
        self._cut_before: int | None = None
        self._cut_reached = False

    @property
    def powered(self) -> bool:
        return self._process is not None

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    @property
    def ops(self) -> list[FlashOp]:
        """Every flash operation that was begun, in order, over all power cycles."""
        return self._ops

    @property
    def op_count(self) -> int:
        """How many flash operations were begun."""
        return len(self._ops)

    @property
    def cut_reached(self) -> bool:
        """Whether the armed cut stopped the chip; :meth:`power_off` completes it."""
        return self._cut_reached

    def cut_before_op(self, index: int | None) -> None:
        """Arm a power cut just before flash operation ``index`` (counted as in :attr:`ops`)."""
        self._cut_before = index

    def forget(self) -> None:
        if self.powered:
            raise EngineError("time cannot begin anew under power", hint="power off first")
        self._start = time.monotonic()
        self._ops, self._faults, self._resets = [], [], 0

    @property
    def faults(self) -> list[FirmwareFault]:
        """What QEMU has refused of the flash, and whether the core has locked up."""
        if self._process is not None:
            self._process.log.read()
            self._collect(self._process)
        return self._faults

    @property
    def pc(self) -> int:
        """Address of the code that the core is at, or was at last."""
        if self._debugger is not None and not self._cut_reached:
            self._debugger.stop()
            self._pc = self._debugger.registers()[15]
            self._handle_stops()
        return self._pc

    @property
    def resets(self) -> int:
        """How often the chip has reset itself since the engine was made or has forgotten."""
        self._count_resets()
        return self._resets

    def _count_resets(self) -> None:
        if self._process is not None:
            self._resets += self._process.count_resets()

    def power_on(self) -> None:
        if self._process is not None:
            return
        process = QemuProcess(
            ["-serial", "chardev:wire", "-gdb", "chardev:gdb", "-d", "guest_errors"],
            ["wire", "gdb"],
            machine=("-M", MACHINES[self.chip.name]),
        )
        self._process, self._cut_reached = process, False
        try:
            debugger = QemuDebugger(process)
            for region, first in self.chip.placed_flash[:1]:
                debugger.write(region.base, bytes(self._cells[first : first + region.size]))
            for _, ram in self.chip.rams:  # as in process
                debugger.write(ram.base, random.Random(ram.base).randbytes(ram.size))
            process.reset()  # now the core finds its vectors
            debugger.watch(self._main.base, self._main.size)
            debugger.watch(self._nvmc + _ERASES, _ERASES_SIZE)
            debugger.go()
        except EngineError:
            self.power_off()
            raise
        self._debugger = debugger
        self._console.connect(process.ends["wire"])

    def power_off(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._debugger is not None and not self._cut_reached:
            with contextlib.suppress(EngineError):  # it has ended by itself
                self._debugger.stop()
                while self._debugger.stopped_at_watchpoint:
                    self._take_stop(self._debugger)
                    self._debugger.stop()
                self._pc = self._debugger.registers()[15]
                self._cells[: self._main.size] = self._debugger.read(
                    self._main.base, self._main.size
                )
        self._debugger = None
        self._resets += process.count_resets()
        process.kill()
        self._console.disconnect()
        self._collect(process)
        process.close()
        self._cut_reached = False

    def press_reset(self) -> None:
        if self._process is None or self._debugger is None:
            raise EngineError("without power there is no reset", hint="power on first")
        self._debugger.stop()
        self._process.reset()
        self._debugger.go()

    def advance(self, seconds: float) -> None:
        """Wait for output for at most ``seconds``; the chip runs on between calls, too.

        Raises:
            EngineError: QEMU ended by itself; the power is off then.
        """
        process, debugger = self._process, self._debugger
        if process is None or debugger is None or self._cut_reached:
            time.sleep(seconds)
            return
        deadline = time.monotonic() + seconds
        had = process.processor_time()
        wire = process.ends["wire"]
        with selectors.DefaultSelector() as selector:
            selector.register(process.log.reader, selectors.EVENT_READ)
            selector.register(process.ends["gdb"], selectors.EVENT_READ)
            selector.register(wire, selectors.EVENT_READ)
            while True:
                write = selectors.EVENT_WRITE if self._console.waits else 0
                selector.modify(wire, selectors.EVENT_READ | write)
                left = deadline - time.monotonic()
                if not selector.select(KICK_INTERVAL_S if left < 0 else min(KICK_INTERVAL_S, left)):
                    process.kick()
                if not process.log.read():
                    self._lose(process)
                    return
                self._handle_stops()
                self._count_resets()
                if self._console.pump() or self._cut_reached:
                    return
                if left <= 0 and not self._is_starved(process, had, seconds, -left):
                    return

    @staticmethod
    def _is_starved(process: QemuProcess, had: float, seconds: float, late: float) -> bool:
        """Whether QEMU waits for a processor that others have: then its silence says nothing.

        Args:
            process: QEMU.
            had: seconds of a processor that it had had before.
            seconds: that it was to have since then, unless it sleeps.
            late: how long that has been over.
        """
        late_enough = late > max(STARVED_AT_MOST_S, STARVED_AT_MOST * seconds)
        return not late_enough and process.wants_time() and process.processor_time() < had + seconds

    def _lose(self, process: QemuProcess) -> None:
        """QEMU has ended by itself: since the core locked up, or for a reason of its own."""
        error = process.gone()
        now = self.now
        self._debugger = None
        self.power_off()
        if "Lockup" not in str(error):
            raise error
        self._faults.append(FirmwareFault("lockup", self._pc, "", str(error), now))

    def _handle_stops(self) -> None:
        """See whether QEMU stands at a store to the flash, and let it go on."""
        debugger = self._debugger
        if debugger is None or debugger.running:
            return
        if debugger.stopped_at_watchpoint:
            self._take_stop(debugger)
        if not self._cut_reached:
            debugger.go()

    def _take_stop(self, debugger: QemuDebugger) -> None:
        """Note the operations that the next instruction begins, and have it carried out."""
        registers = debugger.registers()
        self._pc = registers[15]
        code = debugger.read(self._pc, 2)
        (config,) = struct.unpack("<I", debugger.read(self._nvmc + _CONFIG, _WORD))
        for address, value in find_stores(struct.unpack("<H", code)[0], registers):
            op = self._find_operation(address, value, config)
            if op is None:
                continue
            if len(self._ops) == self._cut_before:
                self._cut_reached = True
                return
            self._ops.append(op)
            end = op.offset + op.length
            old = self._cells[op.offset : end]
            self._cells[op.offset : end] = (
                b"\xff" * op.length
                if op.kind == "erase"
                else bytes(a & b for a, b in zip(old, op.data, strict=True))
            )
        debugger.step()

    def _find_operation(self, address: int, value: int, config: int) -> FlashOp | None:
        """The operation that a store begins, if any."""
        size = self._main.size
        if self._main.base <= address < self._main.base + size:
            if config != _WRITE_ENABLED:
                return None
            return self._make("word", address - self._main.base, _WORD, struct.pack("<I", value))
        register = address - self._nvmc
        if register in {_ERASEPAGE, _ERASEPCR0} and value < size:
            return self._make("erase", value // self._page * self._page, self._page)
        if register == _ERASEALL and value & 1:
            return self._make("erase", 0, len(self._cells))
        if register == _ERASEUICR and value & 1:
            return self._make("erase", size, len(self._cells) - size)
        return None

    def _make(self, kind: str, offset: int, length: int, data: bytes = b"") -> FlashOp:
        now = self.now
        return FlashOp(len(self._ops), kind, offset, length, 1, now, now, data)

    def _collect(self, process: QemuProcess) -> None:
        for line in process.log.guest:
            if "while flash not" in line and len(self._faults) < LOG_KEPT:
                where = self._symbols.describe(self._pc)
                self._faults.append(FirmwareFault("flash-locked", self._pc, where, line, self.now))
        process.log.guest.clear()

    def read_nor(self) -> bytes:
        return bytes(self._cells)

    def load_nor(self, image: bytes) -> None:
        if self.powered:
            raise EngineError("the flash cannot be replaced under power", hint="power off first")
        self._check_size(image)
        self._cells[:] = image.ljust(len(self._cells), b"\xff")

    def read_memory(self, address: int, length: int) -> bytes:
        place = self.chip.find_flash(address)
        if place is not None:
            start, left = place
            return bytes(self._cells[start : start + min(length, left)])
        for _, ram in self.chip.rams:
            if ram.base <= address < ram.base + ram.size and self._debugger is not None:
                self._debugger.stop()
                found = self._debugger.read(address, min(length, ram.base + ram.size - address))
                self._handle_stops()
                return found
        raise EngineError(f"{address:#x} is neither in the flash nor in the RAM")

    def close(self) -> None:
        self.power_off()
