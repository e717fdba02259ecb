"""The operations of a session, packed: they do what the same operations do one by one."""

from __future__ import annotations

import pickle
import random

import pytest

from unbrick.flash.cells import FEW_OPS, Cells
from unbrick.flash.geometry import CheckCells, FlashGeometry
from unbrick.flash.trace import (
    OP,
    PlaceSet,
    Trace,
    find_blocks,
    find_last,
    find_next,
    find_span,
    list_erases,
)

KINDS = {1: "word", 2: "erase"}
GEOMETRY = FlashGeometry((256, 256, 512), 4)


def make_trace(seed: int, count: int = 4 * FEW_OPS) -> Trace:
    """Programs of 1 to 8 bytes inside a block, and erases of blocks and of parts of them."""
    chance, records, data = random.Random(seed), b"", b""
    for number in range(count):
        block = chance.randrange(len(GEOMETRY.block_sizes))
        start, size = GEOMETRY.starts[block], GEOMETRY.block_sizes[block]
        if chance.random() < 0.02:
            part = chance.choice((size, size // 4))
            place = start + chance.randrange(0, size, part)
            records += OP.pack(2, 1, place, part, 0, number, number + 1, len(data))
            continue
        length = chance.choice((1, 2, 4, 8))
        offset = start + chance.randrange(size - length + 1)
        records += OP.pack(1, 1, offset, length, 0, number, number + 1, len(data))
        data += chance.randbytes(length)
    return Trace(records, data, KINDS)


def make_cells(seed: int) -> Cells:
    """A flash with some blank and some weak cells."""
    chance = random.Random(seed)
    cells = Cells.of(chance.randbytes(700), GEOMETRY)
    for offset in (40, 260, 600):
        cells = cells.with_range(offset, b"\xff" * 60, chance.randbytes(60))
    return cells


@pytest.mark.parametrize("seed", range(20))
def test_it_leaves_what_its_operations_leave_one_by_one(seed: int) -> None:
    trace, cells = make_trace(seed), make_cells(seed)
    assert cells.after(trace) == cells.after(list(trace))
    some = trace[seed : -seed or None]
    assert len(some) > FEW_OPS
    assert cells.after(some) == cells.after(list(some))


def test_it_is_read_as_a_list_is() -> None:
    trace = make_trace(1)
    listed = list(trace)
    assert trace == listed
    assert trace != listed[1:]
    assert (trace[3], trace[-1]) == (listed[3], listed[-1])
    assert (trace[5:9], trace[5:90][2:4], trace[::7]) == (listed[5:9], listed[7:9], listed[::7])
    assert [op.index for op in trace[5:9]] == [5, 6, 7, 8]
    with pytest.raises(IndexError):
        trace[len(trace)]


def test_what_is_found_in_it_is_what_a_look_at_each_finds() -> None:
    trace = make_trace(2)[10:]
    listed = list(trace)
    assert list_erases(trace) == list_erases(listed)
    assert list_erases(trace)
    numbers = range(len(listed))
    assert [find_span(trace, at) for at in numbers] == [find_span(listed, at) for at in numbers]
    places = PlaceSet(0b110 << 60, ((9, 11), (300, 40)))
    for at in numbers:
        assert find_next(trace, at, places) == find_next(listed, at, places)
        assert find_last(trace, at, places) == find_last(listed, at, places)
    assert find_blocks(trace, GEOMETRY) == find_blocks(listed, GEOMETRY)
    assert find_blocks(trace[:1], GEOMETRY) == find_blocks(listed[:1], GEOMETRY)
    touching = [at for at, op in enumerate(listed) if op.offset < 20 and op.offset + op.length > 9]
    assert trace.find_touching(9, 11) == touching


def test_another_process_gets_it_whole() -> None:
    trace = make_trace(3)
    assert pickle.loads(pickle.dumps(trace)) == trace  # noqa: S301 - our own


def test_an_operation_that_failed_is_done_by_itself() -> None:
    trace = make_trace(4)
    failed = bytearray(trace._records)
    failed[4 * 4] = 1
    other = Trace(bytes(failed), trace._data, KINDS)
    assert not other.is_plain
    assert make_cells(4).after(other) == make_cells(4).after(list(other))


def test_check_cells_are_changed_with_what_they_are_for() -> None:
    """A trace does not name them."""
    checked = FlashGeometry((256, 256, 512, 1024), 1, checks=(CheckCells(0, 1024, 1024, 1),))
    trace, cells = make_trace(5), Cells.of(b"", checked)
    left = cells.after(trace)
    assert left == cells.after(list(trace))
    assert left.read(1024, 1024) != cells.read(1024, 1024)
