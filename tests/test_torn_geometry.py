"""Torn operations on flashes that are divided in other ways than the reference terminal's."""

from __future__ import annotations

import pytest

from unbrick.flash.cells import Cells
from unbrick.flash.geometry import FlashGeometry
from unbrick.flash.ops import FlashOp
from unbrick.flash.torn import SHAPES, find_shapes, list_variants, strip_number, tear

PAGES = FlashGeometry((1024,) * 4 + (16,), unit=2)
FOUR_CHIPS = FlashGeometry((4096,) * 2, unit=1, chips=4)


def program(offset: int, data: bytes) -> FlashOp:
    return FlashOp(0, "word", offset, len(data), 1, 0.0, 0.0, data)


def erase(offset: int, length: int) -> FlashOp:
    return FlashOp(0, "erase", offset, length, 1, 0.0, 0.0)


def test_a_range_is_split_at_the_borders_of_blocks() -> None:
    assert list(PAGES.split(1000, 2000)) == [(0, 1000, 24), (1, 0, 1024), (2, 0, 952)]
    assert list(PAGES.split(4096, 16)) == [(4, 0, 16)]
    assert list(PAGES.split(0, 0)) == []


def test_a_program_of_one_unit_does_not_end_between_units() -> None:
    assert list_variants(program(0, b"\0\0"), PAGES) == ("scattered", "weak", "all-weak")
    several = list_variants(program(0, bytes(4)), PAGES)
    assert several == ("first-word", "half", "last-word", "scattered", "weak", "all-weak")
    assert "low-chip" in list_variants(program(0, bytes(4)), FOUR_CHIPS)


@pytest.mark.parametrize(("variant", "done"), [("half", 4), ("last-word", 6)])
def test_units_before_the_torn_one_are_whole_and_those_behind_it_blank(
    variant: str, done: int
) -> None:
    torn = tear(Cells.of(b"", PAGES), program(100, bytes(8)), variant).read(100, 8)
    assert torn[:done] == bytes(done)
    assert torn[done + 2 :] == b"\xff" * (6 - done)
    assert torn[done : done + 2] not in (b"\0\0", b"\xff\xff")


def test_the_first_of_four_chips_is_done_alone() -> None:
    torn = tear(Cells.of(b"", FOUR_CHIPS), program(8, bytes(8)), "low-chip")
    assert torn.read(8, 8) == b"\0\xff\xff\xff" * 2


def test_an_erase_of_all_blocks_is_one_operation() -> None:
    full = Cells.of(bytes(PAGES.size), PAGES)
    assert full.after([erase(0, 4096)]).image() == b"\xff" * 4096 + bytes(16)
    assert full.after([erase(0, PAGES.size)]) == Cells.of(b"", PAGES)


def test_an_erase_of_a_part_of_a_block_leaves_the_rest() -> None:
    full = Cells.of(bytes(PAGES.size), PAGES)
    assert full.after([erase(1020, 8)]).read(1016, 16) == bytes(4) + b"\xff" * 8 + bytes(4)
    ops = [erase(0, 16), program(0, b"\1\2"), erase(0, 1), program(4, b"\3\4")]
    left = full.after(ops).read(0, 18)
    assert left == b"\xff\2\xff\xff\3\4" + b"\xff" * 10 + bytes(2)


@pytest.mark.parametrize("variant", list_variants(erase(0, 16), PAGES))
def test_a_torn_erase_of_several_blocks_reaches_each_of_them_and_no_other(variant: str) -> None:
    full = Cells.of(bytes(PAGES.size), PAGES)
    torn = tear(full, erase(1024, 2048), variant)
    ones = [torn.read(start, 1024) for start in PAGES.starts[:4]]
    assert ones[0] == ones[3] == bytes(1024)
    assert any(ones[1] + ones[2])
    assert bytes(1024) not in ones[1:3]
    if torn.weak:
        assert torn.image(1)[1024:3072] != torn.image(0)[1024:3072]
        assert torn.after([erase(1024, 2048)]).weak == ()


OPERATIONS = [
    program(100, bytes(2)),
    program(100, bytes(8)),
    program(0, bytes(64)),
    erase(0, 1024),
    erase(0, 16),
]


@pytest.mark.parametrize("op", OPERATIONS)
def test_more_shapes_have_all_of_the_fewer(op: FlashOp) -> None:
    names = {shapes: set(list_variants(op, PAGES, shapes)) for shapes in SHAPES}
    none, few, sure, usual, many_sure, many = names.values()
    assert not none
    assert few < usual < many
    assert sure < usual
    assert many_sure == many - (usual - sure)
    for shapes, names in (("usual", usual), ("many", many - usual)):
        assert {find_shapes(name) for name in names} == {shapes}
    assert find_shapes("") == "none"
    assert len(many) == len(list_variants(op, PAGES, "many"))


@pytest.mark.parametrize("op", OPERATIONS)
def test_a_torn_operation_moves_only_bits_that_the_whole_one_moves(op: FlashOp) -> None:
    before = Cells.of(bytes(range(256)) * 17, PAGES) if op.kind == "erase" else Cells.of(b"", PAGES)
    old, new = before.image(), before.after([op]).image()
    for variant in list_variants(op, PAGES, "many"):
        left = tear(before, op, variant)
        for was, now, will in zip(old, left.image(), new, strict=True):
            assert (was ^ now) & ~(was ^ will) == 0, variant


@pytest.mark.parametrize("op", OPERATIONS)
def test_the_usual_shapes_without_the_sure_ones_leave_weak_cells(op: FlashOp) -> None:
    before = Cells.of(bytes(PAGES.size) if op.kind == "erase" else b"", PAGES)
    sure, usual = (list_variants(op, PAGES, shapes) for shapes in ("sure", "usual"))
    weak = [name for name in usual if tear(before, op, name).weak]
    assert weak == [name for name in usual if name not in sure]
    assert weak


def test_a_double_word_ends_after_each_of_its_bytes_and_in_eight_random_subsets() -> None:
    op, blank = program(100, bytes(8)), Cells.of(b"", PAGES)
    names = [name for name in list_variants(op, PAGES, "many") if find_shapes(name) == "many"]
    left = [tear(blank, op, name).read(100, 8) for name in names]
    assert left[:7] == [bytes(at).ljust(8, b"\xff") for at in range(1, 8)]
    subsets = left[7:]
    assert len(set(subsets)) == len(subsets) == 8
    assert {strip_number(name) for name in names[7:]} == {"bits"}
    ones = sum(bits.bit_count() for subset in subsets for bits in subset)
    assert 8 * 64 * 0.4 < ones < 8 * 64 * 0.6


def test_a_block_is_erased_eighth_by_eighth() -> None:
    full, op = Cells.of(bytes(PAGES.size), PAGES), erase(1024, 1024)
    for eighths in range(1, 8):
        left = tear(full, op, f"part-{eighths}").read(1024, 1024)
        assert left == (b"\xff" * 128 * eighths).ljust(1024, b"\0")


@pytest.mark.parametrize("variant", ["bytes-1", "part-8", "bits-8", "part-0", "bits-", "first"])
def test_a_shape_that_an_operation_does_not_have_is_refused(variant: str) -> None:
    with pytest.raises(KeyError):
        tear(Cells.of(b"", PAGES), erase(0, 1024), variant)
