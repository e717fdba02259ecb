"""The operations of a session, packed as the engines keep them (``c/trace.c``).

A session can have hundreds of thousands. A search keeps them for each session that it runs, and
looks at few of them one by one.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence
from functools import cache, cached_property
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from unbrick.flash.ops import FlashOp
from unbrick.flash.pieces import Pieces
from unbrick.library import Signatures, load_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from unbrick.flash.geometry import FlashGeometry

OP = Struct("=5I4x3Q")
"""``struct op``: kind, lanes, offset, length, failed, start, end, data."""

_KIND, _OFFSET, _LENGTH, _FAILED = 0, 2, 3, 4
"""Where a field is, in numbers of 4 bytes."""

_SPAN, _SPAN_AT = Struct("=2I"), 8
"""Offset and length, and where they are in it, in bytes."""

_UNIT = 4
"""Bytes, as in ``unbrick.campaign.book``."""

_ERASE = "erase"

_PIECE = 1024 * OP.size, 4096
"""Bytes of a piece of the records and of the data: sessions share most of these."""


@cache
def _load() -> Any:
    arguments = [c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p, c.c_uint32]
    end = [c.c_void_p, c.c_size_t, c.c_char_p] * 2 + [c.c_uint32]
    meets = [c.c_void_p, c.c_size_t, c.c_char_p, c.c_size_t, c.c_void_p, c.c_size_t]
    signatures: Signatures = {
        "trace_apply": (None, arguments),
        "trace_common_end": (c.c_size_t, end),
        "trace_next": (c.c_size_t, meets),
        "trace_last": (c.c_size_t, meets),
        "trace_mark_blocks": (None, [c.c_void_p, c.c_size_t, c.c_void_p, c.c_size_t, c.c_char_p]),
    }
    return load_library("flash", signatures)


class TraceMemory(NamedTuple):
    """Where a trace lies as the libraries see it, as long as this is there.

    Attributes:
        address: of the first operation.
        ops: how many there are.
        data: what they program.
        kept: has the operations.
    """

    address: int
    ops: int
    data: bytes
    kept: bytes


class PlaceSet:
    """Places of a flash.

    Args:
        units: some of its units of 4 bytes, as a set of bits.
        ranges: offset and length of further ones.
    """

    def __init__(self, units: int, ranges: Sequence[tuple[int, int]] = ()) -> None:
        self._ranges = ranges
        self._bits = bits = units.to_bytes(units.bit_length() // 8 + 1, "little")
        numbers = [number for place in ranges for number in place]
        packed = (c.c_uint32 * len(numbers))(*numbers)
        self.arguments = bits, len(bits), packed, len(ranges)

    def meet(self, offset: int, length: int) -> bool:
        """Whether a range has a part of one of them."""
        for start, size in self._ranges:
            if start < offset + length and offset < start + size:
                return True
        first, last = offset // _UNIT, (offset + length - 1) // _UNIT
        if first == last:
            return first // 8 < len(self._bits) and bool(self._bits[first // 8] >> first % 8 & 1)
        bits = int.from_bytes(self._bits[first // 8 : last // 8 + 1], "little") >> first % 8
        return bool(bits & (1 << last + 1 - first) - 1)


class Trace(Sequence[FlashOp]):
    """Operations in order; one that is looked at is made then. A slice is another trace.

    Args:
        records: a ``struct op`` for each.
        data: the bytes that they program.
        kinds: the names of their kinds.
        numbers: which of them are meant; None: all.
    """

    def __init__(
        self,
        records: bytes | Pieces,
        data: bytes | Pieces,
        kinds: Mapping[int, str],
        numbers: range | None = None,
    ) -> None:
        self._pieces = Pieces.of(records, _PIECE[0]), Pieces.of(data, _PIECE[1])
        self._kinds = kinds
        self._numbers = range(len(self._pieces[0]) // OP.size) if numbers is None else numbers

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
        return Trace(*self._pieces, self._kinds, self._numbers[index])

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
        records, data = self._pieces
        theirs, their_data = other._pieces
        return Trace(records.followed_by(theirs), data.followed_by(their_data), self._kinds)

    def share(self, known: dict[bytes, bytes]) -> None:
        """Have it share its memory with other traces that have the same pieces, which are known."""
        for pieces in self._pieces:
            pieces.share(known)

    @property
    def _records(self) -> bytes:
        return self._pieces[0].whole

    @property
    def _data(self) -> bytes:
        return self._pieces[1].whole

    @cached_property
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

    def find_touching(self, offset: int, length: int) -> list[int]:
        """The places of the operations that touch a range."""
        places, found = PlaceSet(0, ((offset, length),)), list[int]()
        at = self.find_next(0, places)
        while at < len(self):
            found.append(at)
            at = self.find_next(at + 1, places)
        return found

    def count_common_end(self, other: Trace) -> int | None:
        """How many operations at the end do the same as those of another; None: look for oneself.

        Times do not count.
        """
        erase = self.find_erase_kind()
        if self._kinds != other._kinds or erase is None:
            return None
        memories = self.find_memory(), other.find_memory()
        arguments = [part for memory in memories for part in memory[:3]]
        return int(_load().trace_common_end(*arguments, erase))

    def find_erase_kind(self) -> int | None:
        """The number of the one kind that erases; None: there are several."""
        erases = [kind for kind, name in self._kinds.items() if name == _ERASE]
        return erases[0] if len(erases) == 1 else None

    def find_span(self, number: int) -> tuple[int, int]:
        """Offset and length of an operation."""
        piece, place = self._pieces[0].find(self._numbers[number] * OP.size)
        offset, length = _SPAN.unpack_from(piece, place + _SPAN_AT)
        return offset, length

    def find_next(self, first: int, places: PlaceSet) -> int:
        """The first operation from ``first`` on that touches one of some places; none: the end."""
        memory = self.find_memory()
        start = memory.address + first * OP.size
        return first + int(_load().trace_next(start, len(self) - first, *places.arguments))

    def find_last(self, end: int, places: PlaceSet) -> int:
        """The operation after the last one before ``end`` that touches one of some places."""
        return int(_load().trace_last(self.find_memory().address, end, *places.arguments))

    def find_blocks(self, geometry: FlashGeometry) -> frozenset[int]:
        """The numbers of the blocks that it touches."""
        count, memory = len(geometry.starts), self.find_memory()
        starts, marks = (c.c_uint32 * count)(*geometry.starts), c.create_string_buffer(count)
        _load().trace_mark_blocks(memory.address, len(self), starts, count, marks)
        return frozenset(number for number, mark in enumerate(marks.raw) if mark)

    def find_memory(self) -> TraceMemory:
        """Where it lies as the libraries see it."""
        records = self._records
        address = c.cast(c.c_char_p(records), c.c_void_p).value or 0
        return TraceMemory(address + self._numbers.start * OP.size, len(self), self._data, records)

    def apply(self, image: bytearray) -> None:
        """Change a flash as these operations do, none of which may have failed."""
        cells = (c.c_char * len(image)).from_buffer(image)
        erases = sum(1 << kind for kind, name in self._kinds.items() if name == _ERASE)
        memory = self.find_memory()
        _load().trace_apply(cells, memory.address, memory.ops, memory.data, erases)

    def _column(self, field: int) -> list[int]:
        words, size, numbers = memoryview(self._records).cast("I"), OP.size // 4, self._numbers
        return words[numbers.start * size + field : numbers.stop * size : size].tolist()

    def _make(self, number: int) -> FlashOp:
        records, data = self._pieces
        piece, place = records.find(number * OP.size)
        kind, lanes, offset, length, failed, start, end, at = OP.unpack_from(piece, place)
        name = self._kinds[kind]
        given = b"" if name == _ERASE else data.read(at, length)
        times = start / 1e9, end / 1e9
        return FlashOp(number, name, offset, length, lanes, *times, given, failed)


def list_erases(ops: Sequence[FlashOp]) -> list[tuple[int, FlashOp]]:
    """The erases among operations, each with its number."""
    if isinstance(ops, Trace):
        return [(number, ops[number]) for number in ops.find_erases()]
    return [(number, op) for number, op in enumerate(ops) if op.kind == _ERASE]


def find_span(ops: Sequence[FlashOp], number: int) -> tuple[int, int]:
    """Offset and length of an operation."""
    if isinstance(ops, Trace):
        return ops.find_span(number)
    return ops[number].offset, ops[number].length


def find_next(ops: Sequence[FlashOp], first: int, places: PlaceSet) -> int:
    """The first operation from ``first`` on that touches one of some places; none: the end."""
    if isinstance(ops, Trace):
        return ops.find_next(first, places)
    found = (at for at in range(first, len(ops)) if places.meet(*find_span(ops, at)))
    return next(found, len(ops))


def find_last(ops: Sequence[FlashOp], end: int, places: PlaceSet) -> int:
    """The operation after the last one before ``end`` that touches one of some places."""
    if isinstance(ops, Trace):
        return ops.find_last(end, places)
    found = (at for at in range(end, 0, -1) if places.meet(*find_span(ops, at - 1)))
    return next(found, 0)


def find_blocks(ops: Sequence[FlashOp], geometry: FlashGeometry) -> frozenset[int]:
    """The numbers of the blocks that operations touch."""
    if isinstance(ops, Trace):
        return ops.find_blocks(geometry)
    return frozenset(number for op in ops for number, *_ in geometry.split(op.offset, op.length))


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
