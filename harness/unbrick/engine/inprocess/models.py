"""The C device models (``c/``) as seen from Python.

:class:`Models` owns the memories and the models; :class:`NorModel` is the NOR alone, without a CPU,
for tests of the chip.
"""

from __future__ import annotations

import ctypes as c
import mmap
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.board import Board
from unbrick.engine.base import emulated_board
from unbrick.errors import EngineError, SetupError
from unbrick.flash.ops import FlashOp, Worn

if TYPE_CHECKING:
    from collections.abc import Iterable


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

FAULTS_KEPT = 64
OP_KINDS = {1: "word", 2: "buffer", 3: "erase"}
WORN_MOST = 8
ALWAYS = (1 << 32) - 1


class CFault(c.Structure):
    """``struct fault``."""

    _fields_ = (
        ("kind", c.c_uint32),
        ("pc", c.c_uint32),
        ("address", c.c_uint32),
        ("detail", c.c_uint32),
        ("time", c.c_uint64),
    )


class COp(c.Structure):
    """``struct op``."""

    _fields_ = (
        ("kind", c.c_uint32),
        ("lanes", c.c_uint32),
        ("offset", c.c_uint32),
        ("length", c.c_uint32),
        ("start", c.c_uint64),
        ("end", c.c_uint64),
        ("data", c.c_uint64),
        ("failed", c.c_uint32),
    )


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
    )


class CWatch(c.Structure):
    """``struct watch``."""

    _fields_ = (("first", c.c_uint32), ("last", c.c_uint32), ("kinds", c.c_uint32))


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
    )


def _load() -> Any:
    # Here, so that `python -m unbrick.compile` finds itself not imported yet.
    from unbrick.compile import LIBRARIES  # noqa: PLC0415

    path = Path(__file__).with_name(LIBRARIES["engine/inprocess"])
    if not path.exists():
        raise SetupError(
            "the device models are not compiled",
            hint="run: python -m unbrick.compile (or install the package again)",
        )
    lib = c.CDLL(str(path))
    board, u64, size = c.c_void_p, c.c_uint64, c.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "board_new": (board, [c.c_void_p, c.c_void_p]),
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
        "board_uart_take": (size, [board, c.c_int, c.c_char_p, c.POINTER(u64), size]),
        "board_uart_overruns": (size, [board, c.c_int]),
        "board_faults": (size, [board, c.POINTER(CFault), size]),
        "board_ops": (size, [board, c.POINTER(COp), size, size]),
        "board_op_data": (None, [board, size, c.c_char_p]),
        "board_forget": (None, [board]),
        "board_break": (None, [board]),
        "board_watch": (None, [board, c.POINTER(CWatch), size]),
        "board_watch_hit": (c.c_uint, [board, c.POINTER(c.c_uint32)]),
        "board_step": (c.c_int, [board, c.c_bool]),
        "board_pc": (c.c_uint32, [board]),
        "board_set_pc": (None, [board, c.c_uint32]),
        "board_watch_code": (None, [board, c.c_void_p]),
        "board_cut_before": (None, [board, u64]),
        "board_locked_down": (c.c_bool, [board, c.c_uint32]),
        "board_wear": (None, [board, c.POINTER(CWorn), size]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def _as_struct(worn: Worn) -> CWorn:
    kinds = sum(1 << number for number, kind in OP_KINDS.items() if (kind == "erase") == worn.erase)
    last = worn.offset + worn.length - 1
    bad = ALWAYS if worn.bad is None else worn.bad
    return CWorn(kinds, worn.offset, last, worn.lanes, worn.good, bad, worn.silent)


class Models:
    """NOR, SRAM and devices of a board, which is the one that ``c/`` models."""

    def __init__(self, board: Board) -> None:
        self.lib = _load()
        self.nor = mmap.mmap(-1, board.nor.modelled)
        self.nor[:] = b"\xff" * board.nor.modelled
        self.sram = mmap.mmap(-1, board.sram.size)
        self.nor_address = c.addressof(c.c_char.from_buffer(self.nor))
        self.sram_address = c.addressof(c.c_char.from_buffer(self.sram))
        self.board = c.c_void_p(self.lib.board_new(self.nor_address, self.sram_address))
        if not self.board:
            raise EngineError("no memory for the device models")
        self._chunk = c.create_string_buffer(65536)

    def close(self) -> None:
        """Release the models. The memories stay until nobody refers to them."""
        if self.board:
            self.lib.board_free(self.board)
            self.board = c.c_void_p(None)

    def cells(self) -> bytes:
        """The NOR's cells at this moment; an operation that has not ended has not changed any."""
        self.lib.board_settle(self.board)
        return bytes(self.nor)

    @property
    def now_ns(self) -> int:
        """Virtual time in nanoseconds."""
        return int(self.lib.board_now(self.board))

    def take(self, uart: int) -> bytes:
        """What UART ``uart`` has finished sending since the last call."""
        out = b""
        while True:
            n = self.lib.board_uart_take(self.board, uart, self._chunk, None, len(self._chunk))
            if not n:
                return out
            out += self._chunk.raw[:n]

    @property
    def fault_count(self) -> int:
        """How many of the faults so far are kept (at most 64)."""
        return min(int(self.lib.board_faults(self.board, None, 0)), FAULTS_KEPT)

    def faults(self) -> list[CFault]:
        """The faults so far (the first 64 are kept)."""
        kept = (CFault * self.fault_count)()
        self.lib.board_faults(self.board, kept, len(kept))
        return list(kept)

    def wear(self, worn: Iterable[Worn]) -> None:
        """Which operations end with an error, from now on; counting begins anew."""
        listed = [_as_struct(item) for item in worn]
        if len(listed) > WORN_MOST:
            raise EngineError(f"of {len(listed)} worn places the models keep {WORN_MOST}")
        self.lib.board_wear(self.board, (CWorn * len(listed))(*listed), len(listed))

    @property
    def op_count(self) -> int:
        """How many operations of the NOR were begun so far."""
        return int(self.lib.board_ops(self.board, None, 0, 0))

    def _data(self, index: int, op: COp) -> bytes:
        if OP_KINDS[op.kind] == "erase":
            return b""
        data = c.create_string_buffer(op.length)
        self.lib.board_op_data(self.board, index, data)
        return data.raw

    def ops(self) -> list[FlashOp]:
        """Every operation of the NOR so far, in order."""
        count = self.op_count
        kept = (COp * count)()
        self.lib.board_ops(self.board, kept, 0, count)
        return [
            FlashOp(
                index=i,
                kind=OP_KINDS[op.kind],
                offset=op.offset,
                length=op.length,
                lanes=op.lanes,
                start=op.start / 1e9,
                end=op.end / 1e9,
                data=self._data(i, op),
                failed=op.failed,
            )
            for i, op in enumerate(kept)
        ]


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

    def load(self, image: bytes) -> None:
        """Set the cells; shorter images are filled with 0xFF."""
        self._models.nor[:] = image.ljust(len(self._models.nor), b"\xff")

    @property
    def faults(self) -> list[str]:
        """The kinds of the faults so far."""
        return [FAULT_KINDS[fault.kind] for fault in self._models.faults()]

    @property
    def ops(self) -> list[FlashOp]:
        """Every operation so far."""
        return self._models.ops()
