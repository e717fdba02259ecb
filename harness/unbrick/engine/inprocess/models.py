"""The C device models (``c/``) as seen from Python.

:class:`Models` owns the memories and the models; :class:`NorModel` is the NOR alone, without a CPU,
for tests of the chip.
"""

from __future__ import annotations

import ctypes as c
import mmap
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from unbrick.board import Board
from unbrick.engine.base import NoteSource, emulated_board
from unbrick.engine.compiled import CFault, CompiledModels, CWatch
from unbrick.errors import EngineError
from unbrick.flash.ops import FlashOp, Worn
from unbrick.library import Signatures, load_library

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Stop(IntEnum):
    """Why a run ended (``enum stop_reason``)."""

    TIME = 0
    OUTPUT = 1
    CUT = 2
    FAULT = 3
    RESET = 4
    BREAK = 5
    HALTED = 6
    WATCH = 7


FAULT_KINDS = {
    1: "busy-fetch",
    2: "busy-read",
    3: "program-set-bit",
    4: "command",
    5: "locked",
    6: "bounds",
    7: "exception",
    8: "uart-lost",
}

OP_KINDS = {1: "word", 2: "buffer", 3: "erase"}
COPIED = 2048 * 4096
"""Bytes of the copies of pages with code (``COPIES`` in ``c/parts.h``)."""

WORN_MOST = 8
ALWAYS = (1 << 32) - 1


class CWorn(c.Structure):
    """``struct worn``."""

    _fields_ = (
        ("kinds", c.c_uint32),
        ("first", c.c_uint32),
        ("last", c.c_uint32),
        ("lanes", c.c_uint32),
        ("good", c.c_uint32),
        ("bad", c.c_uint32),
        ("silent", c.c_uint32),
        ("spoils", c.c_uint32),
        ("times", c.c_uint32),
    )


class CUnicorn(c.Structure):
    """``struct unicorn``: the emulator and the functions the models call."""

    _fields_ = (
        ("uc", c.c_void_p),
        ("emu_start", c.c_void_p),
        ("emu_stop", c.c_void_p),
        ("reg_read", c.c_void_p),
        ("reg_write", c.c_void_p),
        ("mem_protect", c.c_void_p),
        ("ctl", c.c_void_p),
        ("context_save", c.c_void_p),
        ("context_restore", c.c_void_p),
        ("context_size", c.c_void_p),
        ("scratch", c.c_void_p),
    )


@cache
def _load() -> Any:
    board, u64, size = c.c_void_p, c.c_uint64, c.c_size_t
    signatures: Signatures = {
        "board_new": (board, [c.c_void_p, c.c_void_p, c.c_void_p]),
        "board_changed": (None, [board, c.c_uint32, c.c_uint32]),
        "board_free": (None, [board]),
        "board_attach": (None, [board, c.POINTER(CUnicorn)]),
        "board_power_on": (None, [board, c.c_uint32]),
        "board_power_off": (None, [board]),
        "board_now": (u64, [board]),
        "board_settle": (None, [board]),
        "board_elapse": (None, [board, u64]),
        "board_run": (c.c_int, [board, u64]),
        "board_blocks": (u64, [board]),
        "board_mmio_nor_read": (u64, [c.c_void_p, u64, c.c_uint, board]),
        "board_mmio_nor_write": (None, [c.c_void_p, u64, c.c_uint, u64, board]),
        "board_uart_push": (None, [board, c.c_int, c.c_char_p, size]),
        "board_line_take": (size, [board, c.c_int, c.c_char_p, size]),
        "board_uart_overruns": (size, [board, c.c_int]),
        "board_faults": (size, [board, c.POINTER(CFault), size]),
        "board_ops": (size, [board, c.c_char_p, size, size]),
        "board_op_data": (size, [board, c.c_char_p, size]),
        "board_forget": (None, [board]),
        "board_break": (None, [board]),
        "board_watch": (None, [board, c.POINTER(CWatch), size]),
        "board_watch_hit": (c.c_uint, [board, c.POINTER(c.c_uint32)]),
        "board_step": (c.c_int, [board, c.c_bool]),
        "board_pc": (c.c_uint32, [board]),
        "board_set_pc": (None, [board, c.c_uint32]),
        "board_watch_code": (None, [board, c.c_void_p]),
        "board_remember": (None, [board, c.c_size_t]),
        "board_followed": (u64, [board]),
        "board_arrive": (None, [board]),
        "board_leave": (None, [board]),
        "board_cut_before": (None, [board, u64]),
        "board_locked_down": (c.c_bool, [board, c.c_uint32]),
        "board_wear": (None, [board, c.POINTER(CWorn), size]),
        "board_note_reads": (None, [board, c.c_uint32]),
        "board_note": (None, [board, c.c_uint32, c.c_uint32]),
        "board_relevant": (size, [board, c.c_char_p, size]),
    }
    return load_library("engine/inprocess", signatures)


def _as_struct(worn: Worn) -> CWorn:
    kinds = sum(1 << number for number, kind in OP_KINDS.items() if (kind == "erase") == worn.erase)
    last = worn.offset + worn.length - 1
    bad = ALWAYS if worn.bad is None else worn.bad
    how = worn.silent, worn.spoils, worn.times
    return CWorn(kinds, worn.offset, last, worn.lanes, worn.good, bad, *how)


class Models(CompiledModels):
    """NOR, SRAM and devices of a board, which is the one that ``c/`` models."""

    op_kinds = OP_KINDS

    def __init__(self, board: Board) -> None:
        super().__init__(_load(), mmap.mmap(-1, board.nor.modelled))
        self.flash[:] = b"\xff" * board.nor.modelled
        self.sram = mmap.mmap(-1, board.sram.size)
        self.flash_address = c.addressof(c.c_char.from_buffer(self.flash))
        self.sram_address = c.addressof(c.c_char.from_buffer(self.sram))
        self._copies = mmap.mmap(-1, COPIED)
        self.copies_address = c.addressof(c.c_char.from_buffer(self._copies))
        memories = self.flash_address, self.sram_address, self.copies_address
        self.board = c.c_void_p(self.lib.board_new(*memories))
        if not self.board:
            raise EngineError("no memory for the device models")
        self._connect("board", self.board)

    def changed(self, low: int, high: int) -> None:
        """The host has changed the NOR or the SRAM between two addresses."""
        self.lib.board_changed(self.board, low, high)

    def arrive(self) -> None:
        """The host wants to look at the SRAM, or at the CPU."""
        self.lib.board_arrive(self.board)

    def leave(self) -> None:
        """The host wants to change something there."""
        self.lib.board_leave(self.board)

    def wear(self, worn: Iterable[Worn]) -> None:
        """Which operations end with an error, from now on; counting begins anew."""
        listed = [_as_struct(item) for item in worn]
        if len(listed) > WORN_MOST:
            raise EngineError(f"of {len(listed)} worn places the models keep {WORN_MOST}")
        self.lib.board_wear(self.board, (CWorn * len(listed))(*listed), len(listed))


class NorModel:
    """The pair of chips alone: 32-bit bus accesses to the command window and explicit time."""

    def __init__(self) -> None:
        self._models = Models(emulated_board(None, "inprocess"))
        self._models.lib.board_power_on(self._models.board, 0)

    @property
    def array(self) -> bytes:
        """The cells of the modelled part."""
        return self._models.cells()

    def read32(self, offset: int) -> int:
        """Read the window at ``offset`` (bytes, a multiple of 4)."""
        models = self._models
        return int(models.lib.board_mmio_nor_read(None, offset, 4, models.board))

    def write32(self, offset: int, value: int) -> None:
        """Write the window at ``offset`` (bytes, a multiple of 4)."""
        models = self._models
        models.lib.board_mmio_nor_write(None, offset, 4, value, models.board)

    def advance(self, ns: int) -> None:
        """Let ``ns`` nanoseconds pass."""
        self._models.lib.board_elapse(self._models.board, ns)

    def wear(self, *worn: Worn) -> None:
        """Which operations end with an error, from now on."""
        self._models.wear(worn)

    def power_cycle(self) -> None:
        """Power off, tearing what is under way, and on again."""
        self._models.lib.board_power_off(self._models.board)
        self._models.lib.board_power_on(self._models.board, 0)

    def note_reads(self, sources: NoteSource) -> None:
        """Power off and on, and note from then on which first contents of the cells have a say."""
        self._models.power_off()
        self._models.note_reads(int(sources))
        self._models.lib.board_power_on(self._models.board, 0)

    @property
    def relevant(self) -> int:
        """The units of 4 bytes whose first contents had one, as a set of bits."""
        return self._models.relevant()

    def load(self, image: bytes) -> None:
        """Set the cells; shorter images are filled with 0xFF."""
        self._models.flash[:] = image.ljust(len(self._models.flash), b"\xff")

    @property
    def faults(self) -> list[str]:
        """The kinds of the faults so far."""
        return [FAULT_KINDS[fault.kind] for fault in self._models.faults()]

    @property
    def ops(self) -> Sequence[FlashOp]:
        """Every operation so far."""
        return self._models.ops()
