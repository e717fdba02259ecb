"""Engines whose models are compiled: what they have in common, whatever they model."""

from __future__ import annotations

import ctypes as c
import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from unbrick.engine.base import FirmwareFault, NoteSource, TracedEngine
from unbrick.errors import EngineError
from unbrick.flash.trace import OP, Trace

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable, Mapping

FAULTS_KEPT = 64
"""Faults that the models keep (``parts.h``, ``core.h``)."""

CHUNK_SIZE = 65536
"""Bytes of a line that are taken at once."""

NEVER = (1 << 64) - 1
"""No operation has this number."""

ModelsT = TypeVar("ModelsT", bound="CompiledModels")


class CFault(c.Structure):
    """``struct fault`` of both engines."""

    _fields_ = (
        ("kind", c.c_uint32),
        ("pc", c.c_uint32),
        ("address", c.c_uint32),
        ("detail", c.c_uint32),
        ("time", c.c_uint64),
    )


class CWatch(c.Structure):
    """``struct watch`` of both engines."""

    _fields_ = (("first", c.c_uint32), ("last", c.c_uint32), ("kinds", c.c_uint32))


@dataclass(frozen=True)
class Watchpoint:
    """Bytes whose accesses by the CPU stop the terminal.

    Attributes:
        address: of the first one, in a memory or a device.
        length: how many.
        kind: ``write``, ``read`` or ``access``, which is both.
    """

    address: int
    length: int
    kind: str


MOST_WATCHPOINTS = 16
_WATCH_KINDS = {"read": 1, "write": 2, "access": 3}
"""``enum watch_kind`` of both engines."""


def check_watchpoint(watchpoint: Watchpoint, others: int) -> None:
    """See that a watchpoint can be, beside so many others.

    Raises:
        EngineError: it cannot.
    """
    first, last = watchpoint.address, watchpoint.address + watchpoint.length - 1
    if others >= MOST_WATCHPOINTS:
        raise EngineError(
            f"there are {MOST_WATCHPOINTS} watchpoints already", hint="delete one of them"
        )
    if not 0 <= first <= last <= 0xFFFFFFFF:
        raise EngineError(
            f"{watchpoint.length} bytes at {first:#x} cannot be watched",
            hint="the addresses go from 0 to 0xffffffff",
        )


def pack_watches(watchpoints: Iterable[Watchpoint]) -> c.Array[CWatch]:
    """Watchpoints as the models take them."""
    watches = [
        CWatch(one.address, one.address + one.length - 1, _WATCH_KINDS[one.kind])
        for one in watchpoints
    ]
    return (CWatch * len(watches))(*watches)


class CompiledModels:
    """Compiled models, as far as they are asked the same.

    Attributes:
        lib: their library.
        flash: the cells of the flash image.
        op_kinds: the names of the kinds in their ``struct op``.
        settle: has what is due come about.
        run: lets time pass until a time in nanoseconds, and gives the reason for which it ended.
        power_off: takes the power away.
        forget: begins anew at time 0, without power.
        cut_before: stops the next run before an operation of the flash, by its number.
        note_reads: begins to note, without power, what of some sources reads the flash image.
        note: the host has looked at a part of the flash image: offset and length.
    """

    op_kinds: Mapping[int, str]

    def __init__(self, lib: Any, flash: mmap.mmap) -> None:
        self.lib, self.flash = lib, flash
        self._chunk = c.create_string_buffer(CHUNK_SIZE)

    def _connect(self, prefix: str, handle: c.c_void_p) -> None:
        """The models are there: ``prefix`` is that of their functions, which take ``handle``."""

        def find(name: str) -> Callable[..., Any]:
            return partial(getattr(self.lib, f"{prefix}_{name}"), handle)

        self._handle, self._free = handle, find("free")
        self.settle, self.run, self.power_off = find("settle"), find("run"), find("power_off")
        self.forget, self.cut_before = find("forget"), find("cut_before")
        self._now, self._line_take = find("now"), find("line_take")
        self.note_reads, self.note = find("note_reads"), find("note")
        self._relevant = find("relevant")
        self._faults, self._ops, self._op_data = find("faults"), find("ops"), find("op_data")

    def close(self) -> None:
        """Release the models. The memories stay until nobody refers to them."""
        if self._handle:
            self._free()
            self._handle.value = None

    def cells(self) -> bytes:
        """The flash image at this moment; an operation that has not ended has not changed any."""
        self.settle()
        return bytes(self.flash)

    def relevant(self) -> int:
        """What was noted: units of 4 bytes of the flash image, as a set of bits."""
        units = c.create_string_buffer(int(self._relevant(None, 0)))
        self._relevant(units, len(units))
        return int.from_bytes(units.raw, "little")

    @property
    def now_ns(self) -> int:
        """Virtual time in nanoseconds."""
        return int(self._now())

    def take(self, line: int) -> bytes:
        """What a line has finished sending since the last call."""
        out = b""
        while True:
            n = self._line_take(line, self._chunk, CHUNK_SIZE)
            out += c.string_at(self._chunk, n)
            if n < CHUNK_SIZE:
                return out

    @property
    def fault_count(self) -> int:
        """How many of the faults so far are kept."""
        return min(int(self._faults(None, 0)), FAULTS_KEPT)

    def faults(self) -> list[CFault]:
        """The faults so far (the first ones are kept)."""
        kept = (CFault * self.fault_count)()
        self._faults(kept, len(kept))
        return list(kept)

    @property
    def op_count(self) -> int:
        """How many operations of the flash were begun so far."""
        return int(self._ops(None, 0, 0))

    def ops(self) -> Trace:
        """Every operation of the flash so far, in order."""
        count = self.op_count
        kept = c.create_string_buffer(count * OP.size)
        self._ops(kept, 0, count)
        given = c.create_string_buffer(int(self._op_data(None, 0)))
        self._op_data(given, len(given))
        return Trace(kept.raw, given.raw, self.op_kinds)


class CompiledEngine(TracedEngine, Generic[ModelsT]):
    """An engine in this process, in virtual time, around compiled models."""

    def __init__(self, models: ModelsT) -> None:
        self._models = models
        self._powered = False
        self._known_faults: list[FirmwareFault] = []

    @property
    def powered(self) -> bool:
        return self._powered

    @property
    def now(self) -> float:
        return self._models.now_ns / 1e9

    @property
    def ops(self) -> Trace:
        """Every flash operation that was begun, in order, over all power cycles."""
        return self._models.ops()

    @property
    def op_count(self) -> int:
        """How many flash operations were begun."""
        return self._models.op_count

    @property
    def faults(self) -> list[FirmwareFault]:
        if self._models.fault_count != len(self._known_faults):
            self._known_faults = [self._describe(fault) for fault in self._models.faults()]
        return self._known_faults

    @abstractmethod
    def _describe(self, fault: CFault) -> FirmwareFault:
        """A fault in words."""

    def power_off(self) -> None:
        self._models.power_off()
        self._powered = False

    def forget(self) -> None:
        """Begin anew at time 0, with no operations and no faults so far; the power must be off."""
        if self._powered:
            raise EngineError("time cannot begin anew under power", hint="power off first")
        self._models.forget()
        self._known_faults = []

    def note_reads(self, sources: NoteSource = NoteSource.ALL) -> None:
        """Begin anew to note which first contents of the flash have a say; the power is off."""
        if self._powered:
            raise EngineError("noting cannot begin under power", hint="power off first")
        self._models.note_reads(int(sources))

    @property
    def relevant(self) -> int:
        return self._models.relevant()

    def cut_before_op(self, index: int | None) -> None:
        """Arm a power cut just before flash operation ``index`` (counted as in :attr:`ops`)."""
        self._models.cut_before(NEVER if index is None else index)

    def read_nor(self) -> bytes:
        return self._models.cells()

    def close(self) -> None:
        if self._powered:
            self.power_off()
        self._models.close()

    def _find_end(self, seconds: float) -> int:
        """The virtual time in so many seconds, in nanoseconds; later than now."""
        return self._models.now_ns + max(1, math.ceil(seconds * 1e9))
