"""Follows a command sequence and knows where the model of the NOR and QEMU's may differ, and why.

The differences are those of ``docs/nor-differences.md``, by name. What is not excused by one of
them must be equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from unbrick.layout import reference_layout

LAYOUT = reference_layout()
BLOCK = LAYOUT.board.nor.block_size
BUFFER = LAYOUT.board.nor.write_buffer
BLANK = 0xFFFFFFFF


class Difference(Enum):
    """The known differences; the values are their names in the documentation."""

    OVERWRITES = "overwrites"
    NO_LOCKS = "no-locks"
    NO_TIME = "no-time"
    NO_SUSPEND = "no-suspend"
    NO_BLANK_CHECK = "no-blank-check"
    NO_OTP = "no-otp"
    UNKNOWN_COMMAND = "unknown-command-reads-array"
    ERASE_AT_SETUP = "erases-before-confirm"
    NO_SEQUENCE_ERROR = "no-sequence-error"
    CLEAR_STATUS = "clear-status-forgets-ready"
    ONE_CHIP = "one-chip"
    IDENTITY = "identity"
    QUERY = "query"
    QUERY_STICKS = "query-sticks"
    BUFFER_COUNT = "buffer-count-unchecked"
    BUFFER_RANGE = "buffer-range"
    BUFFER_ERROR = "buffer-error"


@dataclass(frozen=True)
class Write:
    """A 32-bit write to the command window; ``offset`` in bytes."""

    offset: int
    value: int

    def __str__(self) -> str:
        return f"write {self.offset:#08x} {self.value:#010x}"


@dataclass(frozen=True)
class Read:
    """A 32-bit read of the command window; ``offset`` in bytes."""

    offset: int

    def __str__(self) -> str:
        return f"read  {self.offset:#08x}"


@dataclass(frozen=True)
class Wait:
    """Time for any operation to end."""

    def __str__(self) -> str:
        return "wait"


Step = Write | Read | Wait


class _Phase(Enum):
    READY = 0
    ERASE = 0x20
    WORD = 0x40
    COUNT = 0xE8
    LOCK = 0x60
    DATA = -1
    CONFIRM = -2


class _Mode(Enum):
    ARRAY = 0xFF
    STATUS = 0x70
    IDENTITY = 0x90
    QUERY = 0x98


@dataclass
class Watch:
    """One sequence after power-up, with every block locked; ``cells`` is what the NOR holds."""

    cells: bytes | bytearray
    lost: Difference | None = None  # from here on the chips are in different states
    excused_cells: dict[int, Difference] = field(default_factory=dict)
    excused_blocks: dict[int, Difference] = field(default_factory=dict)
    seen: set[Difference] = field(default_factory=set)
    _phase: _Phase = _Phase.READY
    _mode: _Mode = _Mode.ARRAY
    _other_mode: Difference | None = None
    _other_status: Difference | None = None
    _busy: bool = False
    _open: set[int] = field(default_factory=set)
    _down: set[int] = field(default_factory=set)
    _block: int = 0
    _buffer: int = 0
    _count: int = 0
    _data: list[tuple[int, int]] = field(default_factory=list)
    _overlay: dict[int, int] = field(default_factory=dict)
    _erased: set[int] = field(default_factory=set)

    def excuse_for_read(self, offset: int) -> Difference | None:
        """Why a read of ``offset`` may differ now, if it may."""
        if self.lost or self._other_mode:
            return self.lost or self._other_mode
        if self._busy:
            return Difference.NO_TIME
        if self._mode is _Mode.STATUS:
            return self._other_status
        if self._mode is _Mode.ARRAY:
            return self.excuse_for_cell(offset)
        return Difference.QUERY if self._mode is _Mode.QUERY else Difference.IDENTITY

    def excuse_for_cell(self, offset: int) -> Difference | None:
        """Why the cells at ``offset`` (a multiple of 4) may differ, if they may."""
        block = offset // BLOCK
        return self.lost or self.excused_cells.get(offset) or self.excused_blocks.get(block)

    def wait(self) -> None:
        """Operations have ended."""
        self._busy = False

    def write(self, step: Write) -> None:
        """Follow one write."""
        if self.lost:
            return
        if self._busy:
            suspend = step.value & 0xFF == 0xB0
            self._lose(Difference.NO_SUSPEND if suspend else Difference.NO_TIME)
            return
        low, high = step.value & 0xFFFF, step.value >> 16
        if self._phase is _Phase.DATA:
            self._buffer_word(step)
        elif self._phase is _Phase.WORD:
            self._phase = _Phase.READY
            self._forgive_clear()
            self._program([(step.offset, step.value)])
        elif self._phase is _Phase.COUNT:
            self._buffer_count(low, high, step.offset)
        elif low & 0xFF != high & 0xFF:
            self._lose(Difference.ONE_CHIP)
        else:
            {
                _Phase.READY: self._command,
                _Phase.ERASE: self._erase,
                _Phase.LOCK: self._lock,
                _Phase.CONFIRM: self._confirm,
            }[self._phase](low & 0xFF, step.offset // BLOCK)

    def _note(self, difference: Difference) -> Difference:
        self.seen.add(difference)
        return difference

    def _lose(self, difference: Difference) -> None:
        self.lost = self._note(difference)

    def _set_mode(self, mode: _Mode) -> None:
        if self._mode is _Mode.QUERY and mode is not _Mode.ARRAY:
            self._lose(Difference.QUERY_STICKS)
        self._mode, self._other_mode = mode, None

    def _qemu_reads_array(self, why: Difference) -> None:
        """QEMU has gone back to its array, the chip has not."""
        if self._mode is not _Mode.ARRAY:
            self._other_mode = self._note(why)

    def _forgive_clear(self) -> None:
        """An operation makes QEMU say ready again."""
        if self._other_status is Difference.CLEAR_STATUS:
            self._other_status = None

    def _command(self, command: int, block: int) -> None:
        self._block = block
        if command in {0xFF, 0x70, 0x90, 0x98}:
            self._set_mode(_Mode(command))
            if command in {0x90, 0x98}:
                self._note(Difference.IDENTITY if command == 0x90 else Difference.QUERY)
        elif command == 0x50:
            if self._mode is _Mode.QUERY:
                self._lose(Difference.QUERY_STICKS)
            self._other_status = self._note(Difference.CLEAR_STATUS)
            self._qemu_reads_array(Difference.CLEAR_STATUS)
        elif command in {0x20, 0x40, 0x10, 0xE8, 0x60}:
            self._set_mode(_Mode.STATUS)
            self._phase = _Phase(0x40 if command == 0x10 else command)
            if command in {0x20, 0xE8}:
                self._forgive_clear()
            if command == 0x20:
                self.excused_blocks[block] = Difference.ERASE_AT_SETUP
        else:
            self._strange(command)

    def _strange(self, command: int) -> None:
        lost = {0xBC: Difference.NO_BLANK_CHECK, 0xC0: Difference.NO_OTP}
        if self._mode is _Mode.QUERY:
            self._lose(Difference.QUERY_STICKS)
        elif command in lost:
            self._lose(lost[command])
        elif command in {0xB0, 0xD0}:
            self._qemu_reads_array(Difference.NO_SUSPEND)
        else:
            self._qemu_reads_array(Difference.UNKNOWN_COMMAND)

    def _refused_by_the_chip(self, why: Difference, *, qemu_reads_array: bool = False) -> None:
        self._other_status = self._note(why)
        if qemu_reads_array:
            self._qemu_reads_array(why)

    def _erase(self, command: int, block: int) -> None:
        self._phase = _Phase.READY
        setup = self._block
        if command != 0xD0:
            self._note(Difference.ERASE_AT_SETUP)
            self._refused_by_the_chip(Difference.NO_SEQUENCE_ERROR, qemu_reads_array=True)
        elif block != setup:
            self._note(Difference.ERASE_AT_SETUP)
            self.excused_blocks[block] = Difference.ERASE_AT_SETUP
            self._refused_by_the_chip(Difference.ERASE_AT_SETUP)
            self._busy = True
        elif block in self._open:
            self._erased.add(block)
            self.excused_blocks.pop(block)
            for offset in [o for o in self.excused_cells if o // BLOCK == block]:
                del self.excused_cells[offset]
            self._overlay = {o: v for o, v in self._overlay.items() if o // BLOCK != block}
            self._busy = True
        else:
            self.excused_blocks[block] = self._note(Difference.NO_LOCKS)
            self._refused_by_the_chip(Difference.NO_LOCKS)

    def _lock(self, command: int, block: int) -> None:
        self._phase = _Phase.READY
        if command in {0x01, 0xD0}:
            self._forgive_clear()
            if command == 0x01:
                self._open.discard(block)
            elif block not in self._down:
                self._open.add(block)
        elif command == 0x2F:
            self._open.discard(block)
            self._down.add(block)
            self._qemu_reads_array(Difference.NO_LOCKS)
        elif command == 0x03:
            self._mode = _Mode.ARRAY
        else:
            self._refused_by_the_chip(Difference.NO_SEQUENCE_ERROR, qemu_reads_array=True)

    def _buffer_count(self, low: int, high: int, offset: int) -> None:
        if low != high:
            self._lose(Difference.ONE_CHIP)
        elif low >= BUFFER // 4:
            self._lose(Difference.BUFFER_COUNT)
        else:
            self._phase, self._count, self._data = _Phase.DATA, low + 1, []
            self._buffer = offset // BUFFER

    def _buffer_word(self, step: Write) -> None:
        if step.offset // BUFFER != self._buffer:
            # QEMU gives up: for it, the count's address says which buffer is meant.
            self._lose(Difference.BUFFER_ERROR)
            return
        self._data.append((step.offset, step.value))
        if len(self._data) == self._count:
            self._phase = _Phase.CONFIRM

    def _confirm(self, command: int, _block: int) -> None:
        self._phase = _Phase.READY
        start, end = self._data[0][0], self._data[0][0] + 4 * self._count
        if command != 0xD0:
            self._refused_by_the_chip(Difference.NO_SEQUENCE_ERROR, qemu_reads_array=True)
        elif (
            start // BLOCK != self._block
            or end > (start // BUFFER + 1) * BUFFER
            or any(not start <= offset < end for offset, _ in self._data)
        ):
            for offset, _ in self._data:
                self.excused_cells[offset] = Difference.BUFFER_RANGE
            self._refused_by_the_chip(Difference.BUFFER_RANGE)
        else:
            self._program(self._data)

    def _program(self, data: list[tuple[int, int]]) -> None:
        if data[0][0] // BLOCK not in self._open:
            for offset, _ in data:
                self.excused_cells[offset] = self._note(Difference.NO_LOCKS)
            self._refused_by_the_chip(Difference.NO_LOCKS)
            return
        self._busy = True
        for offset, value in dict(data).items():
            old = self._cell(offset)
            if value & ~old:
                self.excused_cells[offset] = self._note(Difference.OVERWRITES)
            self._overlay[offset] = old & value

    def _cell(self, offset: int) -> int:
        if offset in self._overlay:
            return self._overlay[offset]
        if offset // BLOCK in self._erased:
            return BLANK
        return int.from_bytes(self.cells[offset : offset + 4], "little")
