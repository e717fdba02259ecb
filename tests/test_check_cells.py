"""Check cells: the code, what operations do to them, and how an image gets them."""

from __future__ import annotations

from random import Random

import pytest

from unbrick.board import load_chip
from unbrick.flash.cells import Cells
from unbrick.flash.check import find_check_cells
from unbrick.flash.geometry import CheckCells, FlashGeometry
from unbrick.flash.ops import FlashOp
from unbrick.flash.torn import list_variants, tear

UNITS = (8, 16, 32)
PAGES = FlashGeometry((1024, 1024, 128, 128, 16), 8, checks=(CheckCells(0, 2048, 2048, 8),))
"""Two pages of double words, their check cells, and a block that has none."""

OLD, NEW = bytes(range(8)), b"\x80\x70\x60\x50\x40\x30\x20\x10"


def program(offset: int, data: bytes) -> FlashOp:
    return FlashOp(0, "word", offset, len(data), 1, 0.0, 0.0, data)


def erase(offset: int, length: int) -> FlashOp:
    return FlashOp(0, "erase", offset, length, 1, 0.0, 0.0)


SURE = [name for name in list_variants(program(8, NEW), PAGES, "many") if "weak" not in name]


def is_right(cells: Cells, offset: int, resolution: int = 0) -> bool:
    """Whether a double word reads without an error."""
    read = cells.readable(resolution).read
    return find_check_cells(read(offset, 8), 8) == read(2048 + offset // 8, 1)


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_blank_and_what_is_zero_is_right(unit: int) -> None:
    assert find_check_cells(b"\xff" * unit * 300, unit) == b"\xff" * 300
    assert find_check_cells(bytes(unit), unit) == b"\0"


@pytest.mark.parametrize("unit", UNITS)
def test_one_wrong_bit_is_seen_and_of_a_double_word_every_two(unit: int) -> None:
    data = Random(unit).randbytes(unit)
    right = find_check_cells(data, unit)[0]
    shown = [1 << bit for bit in range(8)]  # of the check cell itself
    for bit in range(8 * unit):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        shown.append(find_check_cells(bytes(wrong), unit)[0] ^ right)
    assert 0 not in shown
    if unit == 8:
        assert len(set(shown)) == len(shown)


def test_whole_operations_keep_them_right() -> None:
    cells = Cells.of(b"", PAGES).after([program(8, OLD), program(1024, NEW)])
    assert cells.read(8, 8) == OLD
    assert is_right(cells, 8)
    assert is_right(cells, 1024)
    assert cells.read(2049, 1) != b"\xff"
    assert cells.after([erase(0, 1024)]).read(2048, 128) == b"\xff" * 128
    assert cells.after([erase(0, 2048)]) == Cells.of(b"", PAGES)
    assert is_right(cells.after([program(8, bytes(8))]), 8)
    assert not is_right(cells.after([program(8, NEW)]), 8)


def test_a_block_without_them_is_as_before() -> None:
    (op,) = PAGES.list_parts(program(2304, OLD))
    assert op.offset == 2304


@pytest.mark.parametrize("variant", SURE)
def test_a_torn_program_leaves_a_wrong_one(variant: str) -> None:
    torn = tear(Cells.of(b"", PAGES), program(8, NEW), variant)
    assert torn.read(8, 8) != NEW
    assert not is_right(torn, 8)
    assert is_right(torn, 16)


def test_weak_cells_read_as_before_as_after_or_wrong() -> None:
    torn = tear(Cells.of(b"", PAGES), program(8, NEW), "all-weak")
    blank, done, mixed = (one.read(8, 8) for one in torn.readings())
    assert (blank, done) == (b"\xff" * 8, NEW)
    assert mixed not in (blank, done)
    assert [is_right(torn, 8, resolution) for resolution in range(3)] == [True, True, False]


@pytest.mark.parametrize("variant", ["begun", "half", "nearly", "bits-2"])
def test_a_torn_erase_leaves_wrong_ones(variant: str) -> None:
    full = Cells.of(b"", PAGES).after([program(at, NEW) for at in range(0, 2048, 8)])
    torn = tear(full, erase(0, 1024), variant)
    wrong = [at for at in range(0, 2048, 8) if not is_right(torn, at)]
    assert wrong
    assert max(wrong) < 1024


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(KeyError):
        tear(Cells.of(b"", PAGES), program(8, NEW), "bytes-8")


def test_an_image_gets_them_for_whole_units() -> None:
    image = bytearray(b"\xff" * PAGES.size)
    image[11:21] = bytes(10)
    PAGES.set_checks(image, 11, 10)
    assert all(is_right(Cells.of(bytes(image), PAGES), at) for at in range(0, 2048, 8))
    assert image[2048 + 1 : 2048 + 3] != b"\xff\xff"


def test_a_chip_has_them_behind_its_main_flash() -> None:
    chip = load_chip("stm32l476xg")
    (check,) = chip.geometry.checks
    assert (check.first, check.unit) == (chip.main.size, 8)
    assert chip.image_offset(0x1FFF_7800) == chip.main.size * 9 // 8
    assert chip.find_flash(chip.main.base + chip.main.size) is None
    assert chip.factory_image.startswith(b"\xff" * (chip.main.size * 9 // 8) + b"\xaa\xf8\xef\xff")
