"""The operations of a session, packed as the engines keep them (``c/trace.c``).

A session can have hundreds of thousands. A search keeps them for each session that it runs, and
looks at few of them one by one.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence
from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, Any, overload

from unbrick.flash.ops import FlashOp
from unbrick.library import Signatures, load_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OP = Struct("=5I4x3Q")
"""``struct op``: kind, lanes, offset, length, failed, start, end, data."""

_KIND, _OFFSET, _LENGTH, _FAILED = 0, 2, 3, 4
"""Where a field is, in numbers of 4 bytes."""

_ERASE = "erase"


@cache
def _load() -> Any:
    arguments = [c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p]
    end = [c.c_void_p, c.c_size_t, c.c_char_p] * 2 + [c.c_uint32]
    signatures: Signatures = {
        "trace_program": (None, arguments),
        "trace_common_end": (c.c_size_t, end),
    }
    return load_library("flash", signatures)


class Trace(Sequence[FlashOp]):
    """Operations in order; one that is looked at is made then. A slice is another trace.

    Args:
        records: a ``struct op`` for each.
        data: the bytes that they program.
        kinds: the names of their kinds.
        numbers: which of them are meant; None: all.
    """

    def __init__(
        self, records: bytes, data: bytes, kinds: Mapping[int, str], numbers: range | None = None
    ) -> None:
        self._records, self._data, self._kinds = records, data, kinds
        self._numbers = range(len(records) // OP.size) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> FlashOp: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FlashOp]: ...
    def __getitem__(self, index: int | slice) -> FlashOp | Sequence[FlashOp]:
        if not isinstance(index, slice):
            return self._make(self._numbers[index])
        if index.step not in {None, 1}:
            return list(map(self._make, self._numbers[index]))
        return Trace(self._records, self._data, self._kinds, self._numbers[index])

    def __iter__(self) -> Iterator[FlashOp]:
        return map(self._make, self._numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return repr(list(self))

    def followed_by(self, other: Trace) -> Trace:
        """These operations, and then those of another trace from there on.

        Up to there both must be of the same kinds, at the same places. Both must be whole.
        """
        records = self._records + other._records[len(self._records) :]
        return Trace(records, self._data + other._data[len(self._data) :], self._kinds)

    @property
    def is_plain(self) -> bool:
        """Whether no operation ended with an error."""
        return not any(self._column(_FAILED))

    def find_erases(self) -> list[int]:
        """The places of the erases."""
        erases = [kind for kind, name in self._kinds.items() if name == _ERASE]
        kinds, found = self._column(_KIND), list[int]()
        for kind in erases:
            at = -1
            for _ in range(kinds.count(kind)):
                at = kinds.index(kind, at + 1)
                found.append(at)
        return sorted(found)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Offset and length of each operation."""
        return list(zip(self._column(_OFFSET), self._column(_LENGTH), strict=True))

    def find_touching(self, offset: int, length: int) -> list[int]:
        """The places of the operations that touch a range."""
        end, spans = offset + length, enumerate(self.spans)
        return [at for at, (start, size) in spans if start < end and start + size > offset]

    def count_common_end(self, other: Trace) -> int | None:
        """How many operations at the end do the same as those of another; None: look for oneself.

        Times do not count.
        """
        erase = self.find_erase_kind()
        if self._kinds != other._kinds or erase is None:
            return None
        return int(_load().trace_common_end(*self.find_memory(), *other.find_memory(), erase))

    def find_erase_kind(self) -> int | None:
        """The number of the one kind that erases; None: there are several."""
        erases = [kind for kind, name in self._kinds.items() if name == _ERASE]
        return erases[0] if len(erases) == 1 else None

    def find_memory(self) -> tuple[int, int, bytes]:
        """Where the first operation is in memory, how many there are, and their data."""
        records = c.cast(c.c_char_p(self._records), c.c_void_p).value or 0
        return records + self._numbers.start * OP.size, len(self), self._data

    def apply(self, image: bytearray) -> None:
        """Change a flash as these operations do, none of which may have failed."""
        cells = (c.c_char * len(image)).from_buffer(image)
        done = 0
        for at in self.find_erases():
            self._program(cells, done, at)
            erase = self[at]
            c.memset(c.byref(cells, erase.offset), 0xFF, erase.length)
            done = at + 1
        self._program(cells, done, len(self))

    def _program(self, cells: Any, first: int, end: int) -> None:
        start = self.find_memory()[0] + first * OP.size
        _load().trace_program(cells, start, end - first, self._data)

    def _column(self, field: int) -> list[int]:
        words, size, numbers = memoryview(self._records).cast("I"), OP.size // 4, self._numbers
        return words[numbers.start * size + field : numbers.stop * size : size].tolist()

    def _make(self, number: int) -> FlashOp:
        found = OP.unpack_from(self._records, number * OP.size)
        kind, lanes, offset, length, failed, start, end, at = found
        name = self._kinds[kind]
        data = b"" if name == _ERASE else self._data[at : at + length]
        times = start / 1e9, end / 1e9
        return FlashOp(number, name, offset, length, lanes, *times, data, failed)


def list_erases(ops: Sequence[FlashOp]) -> list[tuple[int, FlashOp]]:
    """The erases among operations, each with its number."""
    if isinstance(ops, Trace):
        return [(number, ops[number]) for number in ops.find_erases()]
    return [(number, op) for number, op in enumerate(ops) if op.kind == _ERASE]


def list_spans(ops: Sequence[FlashOp]) -> list[tuple[int, int]]:
    """Offset and length of each operation."""
    return ops.spans if isinstance(ops, Trace) else [(op.offset, op.length) for op in ops]


def count_common_end(one: Sequence[FlashOp], other: Sequence[FlashOp]) -> int:
    """How many operations at the end of two sessions do the same to a flash, at whatever times."""
    if isinstance(one, Trace) and isinstance(other, Trace):
        count = one.count_common_end(other)
        if count is not None:
            return count
    count = 0
    for last, other_last in zip(reversed(one), reversed(other), strict=False):
        same = other_last._replace(index=last.index, start=last.start, end=last.end)
        if last != same:
            break
        count += 1
    return count
