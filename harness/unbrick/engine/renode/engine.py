"""The Renode engines: Renode runs the terminal or a chip, in virtual time, with our flash models.

The terminal and the flashes are in ``renode/``. Time passes only in :meth:`RenodeRun.advance`, so
the same flash and the same bytes at the same times give the same run. Renode's UARTs send at once
and lose nothing; the flash takes its time and is as strict as the in-process one.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from unbrick.engine.base import Engine, FirmwareFault, emulated_board
from unbrick.engine.renode.link import (
    THE_TERMINAL,
    RenodeLink,
    ask_renode_version,
    find_renode,
)
from unbrick.engine.symbols import Symbols
from unbrick.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from unbrick.board import Board
    from unbrick.engine.renode.link import RenodeMachine
    from unbrick.flash.ops import FlashOp, Worn

MAX_WAITING_BYTES = 1 << 20  # wait for the terminal; more are lost
NEVER = (1 << 64) - 1
MAX_REQUEST_NS = 1_000_000_000  # that a request may last
_STATE = struct.Struct("<QQII?QI")


class _Line:
    """One UART. Without power what is written is lost."""

    def __init__(self) -> None:
        self.powered = False
        self.waiting = bytearray()
        self.received = bytearray()

    def write(self, data: bytes) -> None:
        """Send ``data``; bytes arrive one after the other at the line's rate."""
        if self.powered:
            self.waiting += data[: MAX_WAITING_BYTES - len(self.waiting)]

    def read(self) -> bytes:
        """What the terminal has sent since the last call."""
        data = bytes(self.received)
        self.received.clear()
        return data


class RenodeRun(Engine):
    """What a Renode process runs, in virtual time. The process lives as long as the engine.

    Args:
        board: what it is.
        machine: how Renode makes it.
        elf_files: firmware ELF files with symbols, so that faults name function and line.

    Raises:
        MissingToolError: Renode is not installed.
        EngineError: it does not start.
    """

    name = "renode"
    _garbage = b""  # in RAM when the power comes, as a request has it

    def __init__(self, board: Board, machine: RenodeMachine, elf_files: Iterable[Path]) -> None:
        self.board = board
        find_renode()
        self._symbols = Symbols(elf_files)
        self._link = RenodeLink(machine)
        self._powered = False
        self._began = self._nanoseconds = 0  # of Renode's time
        self._dark = (
            0.0  # seconds without power, or after a cut, in which Renode's time stands still
        )
        self._generation = -1  # of the flash's cells
        self._cells = b""
        self._operations = self._fault_count = 0
        self._cut_reached = False
        self._faults: list[FirmwareFault] = []
        self._pc = self._resets = 0
        self._lines = tuple(_Line() for _ in machine.uarts)

    @property
    def version(self) -> str:
        """The version of Renode."""
        return ask_renode_version()

    @property
    def powered(self) -> bool:
        return self._powered

    @property
    def now(self) -> float:
        return (self._nanoseconds - self._began) / 1e9 + self._dark

    @property
    def faults(self) -> list[FirmwareFault]:
        """What our NOR model and Renode have found, in the order of time (first 64 of each)."""
        return self._faults

    @property
    def ops(self) -> list[FlashOp]:
        """Every flash operation that was begun, in order, over all power cycles."""
        return self._link.read_ops(self._began)

    @property
    def op_count(self) -> int:
        """How many flash operations were begun."""
        return self._operations

    def forget(self) -> None:
        """Begin anew at time 0, with no operations and no faults so far; the power must be off."""
        if self._powered:
            raise EngineError("time cannot begin anew under power", hint="power off first")
        (self._began,) = struct.unpack("<Q", self._link.ask("Z"))
        self._nanoseconds, self._dark = self._began, 0.0
        self._operations = self._fault_count = 0
        self._faults = []

    def cut_before_op(self, index: int | None) -> None:
        """Arm a power cut just before flash operation ``index`` (counted as in :attr:`ops`)."""
        self._link.ask("C", struct.pack("<Q", NEVER if index is None else index))

    @property
    def cut_reached(self) -> bool:
        """Whether the armed cut stopped the terminal; :meth:`power_off` completes it."""
        return self._powered and self._cut_reached

    def power_on(self) -> None:
        if self._powered:
            return
        self._link.ask("P", self._garbage)
        self._set_power(on=True)

    def power_off(self) -> None:
        if not self._powered:
            return
        self._link.ask("O")
        self._set_power(on=False)

    def _set_power(self, *, on: bool) -> None:
        self._powered = on
        self._cut_reached = False
        self._generation = -1
        for line in self._lines:
            line.powered = on
            line.waiting.clear()

    def advance(self, seconds: float) -> None:
        """Let the terminal run; Renode's time goes in whole microseconds.

        Raises:
            EngineError: Renode ended by itself or does not answer; the power is off then.
        """
        if not self._powered or self._cut_reached:
            self._dark += seconds
            return
        left = max(1, math.ceil(seconds * 1e6)) * 1000  # nanoseconds
        said = False
        while left > 0 and not said and not self._cut_reached:
            before = self._nanoseconds
            try:
                said = self._run(min(left, MAX_REQUEST_NS))
            except EngineError:
                self._set_power(on=False)
                raise
            left -= self._nanoseconds - before

    def _run(self, period: int) -> bool:
        """Let ``period`` nanoseconds pass, or fewer; whether the terminal has said something."""
        body = struct.pack("<Q", period)
        for line in self._lines:
            body += struct.pack("<I", len(line.waiting)) + line.waiting
            line.waiting.clear()
        return self._take(self._link.ask("R", body))

    def _take(self, answer: bytes) -> bool:
        self._nanoseconds, generation, self._operations, faults, *core = _STATE.unpack_from(answer)
        self._cut_reached, self._pc, self._resets = core
        at = _STATE.size
        for line in self._lines:
            (length,) = struct.unpack_from("<I", answer, at)
            line.received += answer[at + 4 : at + 4 + length]
            at += 4 + length
        if generation != self._generation:
            self._generation, self._cells = generation, b""
        if faults != self._fault_count:
            self._fault_count = faults
            self._faults = self._read_faults()
        return any(line.received for line in self._lines)

    def _read_faults(self) -> list[FirmwareFault]:
        found = []
        for line in self._link.ask("F").decode("utf-8", "replace").splitlines():
            kind, pc, time, text = line.split("\t", 3)
            address = min(int(pc), 0xFFFF_FFFF)
            where = self._symbols.describe(address)
            seconds = (int(time) - self._began) / 1e9
            found.append(FirmwareFault(kind, address, where, text, seconds))
        return sorted(found, key=lambda fault: fault.time)

    def read_nor(self) -> bytes:
        if not self._cells or self._generation < 0:
            self._cells = self._link.ask("N")
        return self._cells

    def load_nor(self, image: bytes) -> None:
        if self._powered:
            raise EngineError("the NOR cannot be replaced under power", hint="power off first")
        self._check_size(image)
        self._link.ask("L", image)
        self._generation = -1

    def close(self) -> None:
        self._link.close()
        self._powered = False


class RenodeEngine(RenodeRun):
    """A terminal in a Renode process.

    Args:
        elf_files: firmware ELF files with symbols, so that faults name function and line.
        board: what it is; by default the board that there is.

    Raises:
        SetupError: it is another board.
        MissingToolError: Renode is not installed.
        EngineError: it does not start.
    """

    def __init__(self, elf_files: Iterable[Path] = (), *, board: Board | None = None) -> None:
        super().__init__(emulated_board(board, self.name), THE_TERMINAL, elf_files)
        self.wire, self.radio = self._lines

    def wear(self, worn: Iterable[Worn]) -> None:
        """Have flash operations end with an error from now on; what was said before is forgotten.

        Any number of places may be worn.
        """
        self._link.wear(worn)
