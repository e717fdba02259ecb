"""The model of the NOR pair behaves as the data sheet of the P30-65nm says."""

from __future__ import annotations

import pytest

from unbrick.board import load_board
from unbrick.engine.inprocess import NorModel
from unbrick.errors import EngineError
from unbrick.flash.cells import Cells
from unbrick.flash.ops import Worn

BLOCK = 0x40000
ADDRESS = 0x80000
READY = 0x00800080
ERASE_TIME_NS = 500_000_000
WORD_TIME_NS = 270_000


def both(command: int) -> int:
    """The same command for both chips."""
    return command << 16 | command


@pytest.fixture
def nor() -> NorModel:
    """A blank pair of chips, block at ADDRESS unlocked."""
    model = NorModel()
    unlock(model)
    return model


def unlock(model: NorModel, address: int = ADDRESS) -> None:
    model.write32(address, both(0x60))
    model.write32(address, both(0xD0))
    model.write32(address, both(0xFF))


def status(model: NorModel) -> int:
    model.write32(ADDRESS, both(0x70))
    return model.read32(ADDRESS)


def program(model: NorModel, address: int, value: int) -> None:
    model.write32(address, both(0x40))
    model.write32(address, value)
    model.advance(WORD_TIME_NS)


def erase(model: NorModel, address: int = ADDRESS) -> None:
    model.write32(address, both(0x20))
    model.write32(address, both(0xD0))
    model.advance(ERASE_TIME_NS)


def array(model: NorModel, address: int) -> int:
    model.write32(address, both(0xFF))
    return model.read32(address)


def test_bits_only_clear_and_the_attempt_is_reported(nor: NorModel) -> None:
    program(nor, ADDRESS, 0xFFFF00F0)
    assert nor.faults == []
    program(nor, ADDRESS, 0xFFFFFF0F)
    assert array(nor, ADDRESS) == 0xFFFF0000
    assert nor.faults == ["program-set-bit"]


def test_programming_all_ones_over_data_asks_for_nothing_and_is_no_fault(nor: NorModel) -> None:
    program(nor, ADDRESS, 0x12345678)
    program(nor, ADDRESS, 0xFFFFFFFF)
    assert array(nor, ADDRESS) == 0x12345678
    assert nor.faults == []


def test_erase_sets_one_block_and_no_other(nor: NorModel) -> None:
    nor.load(b"\x00" * 0x200000)
    erase(nor)
    cells = nor.array
    assert cells[ADDRESS : ADDRESS + BLOCK] == b"\xff" * BLOCK
    assert cells[ADDRESS - 1] == 0
    assert cells[ADDRESS + BLOCK] == 0


def test_an_operation_takes_its_time_and_reads_give_status_until_then(nor: NorModel) -> None:
    nor.write32(ADDRESS, both(0x20))
    nor.write32(ADDRESS, both(0xD0))
    assert nor.read32(ADDRESS) & READY == 0
    nor.write32(ADDRESS, both(0xFF))  # a busy chip does not change to its array
    assert nor.read32(ADDRESS) & READY == 0
    nor.advance(ERASE_TIME_NS)
    assert nor.read32(ADDRESS) == READY


def test_blocks_power_up_locked_and_refuse_with_sr1() -> None:
    nor = NorModel()
    program(nor, ADDRESS, 0)
    assert status(nor) == both(0x92)
    assert array(nor, ADDRESS) == 0xFFFFFFFF
    assert nor.faults == ["locked", "locked"]  # one a chip


def test_lock_down_lasts_until_the_next_power_up(nor: NorModel) -> None:
    nor.write32(ADDRESS, both(0x60))
    nor.write32(ADDRESS, both(0x2F))
    unlock(nor)
    program(nor, ADDRESS, 0)
    assert array(nor, ADDRESS) == 0xFFFFFFFF
    nor.power_cycle()
    unlock(nor)
    program(nor, ADDRESS, 0)
    assert array(nor, ADDRESS) == 0


def test_error_bits_stay_until_cleared(nor: NorModel) -> None:
    nor.write32(ADDRESS, both(0x20))
    nor.write32(ADDRESS, both(0x12))  # not the confirmation
    assert status(nor) == both(0xB0)
    nor.write32(ADDRESS, both(0x50))
    assert status(nor) == READY


def buffer(model: NorModel, address: int, words: list[int], *, count: int | None = None) -> None:
    model.write32(address, both(0xE8))
    model.write32(address, both(len(words) - 1 if count is None else count))
    for index, word in enumerate(words):
        model.write32(address + 4 * index, word)
    model.write32(address, both(0xD0))
    model.advance(900_000)


def test_buffered_program_up_to_512_words(nor: NorModel) -> None:
    words = [(i * 0x01010101) & 0xFFFFFFFF for i in range(512)]
    buffer(nor, ADDRESS, words)
    assert nor.array[ADDRESS : ADDRESS + 2048] == b"".join(w.to_bytes(4, "little") for w in words)
    assert [(op.kind, op.length, op.lanes) for op in nor.ops] == [("buffer", 2048, 3)]


def test_buffer_across_its_border_or_too_long_is_refused(nor: NorModel) -> None:
    buffer(nor, ADDRESS + 2044, [0, 0])
    assert status(nor) == both(0xB0)
    nor.write32(ADDRESS, both(0x50))
    nor.write32(ADDRESS, both(0xE8))
    nor.write32(ADDRESS, both(512))  # 513 words
    assert status(nor) == both(0xB0)
    assert nor.array[ADDRESS : ADDRESS + BLOCK] == b"\xff" * BLOCK


def test_a_buffer_goes_to_its_own_block_wherever_it_is_confirmed(nor: NorModel) -> None:
    locked = ADDRESS + BLOCK
    for filled, confirmed, operations in ((locked, ADDRESS, 0), (ADDRESS, locked, 1)):
        nor.write32(filled, both(0xE8))
        nor.write32(filled, both(0))
        nor.write32(filled, 0)
        nor.write32(confirmed, both(0xD0))
        nor.advance(900_000)
        assert len(nor.ops) == operations
    assert nor.faults == ["locked", "locked"]  # one a chip
    assert nor.array[locked : locked + 4] == b"\xff" * 4
    assert nor.array[ADDRESS : ADDRESS + 4] == bytes(4)


def test_chips_are_two_and_can_be_told_apart(nor: NorModel) -> None:
    nor.write32(ADDRESS, 0x00FF0040)  # only the low chip gets a program command
    nor.write32(ADDRESS, 0x00FF1234)
    nor.advance(WORD_TIME_NS)
    assert array(nor, ADDRESS) == 0xFFFF1234
    assert nor.ops[0].lanes == 1


def test_cfi_query_and_identity(nor: NorModel) -> None:
    nor.write32(0x55 * 4, both(0x98))
    assert [nor.read32(i * 4) for i in (0x10, 0x11, 0x12)] == [both(ord(c)) for c in "QRY"]
    assert nor.read32(0x27 * 4) == both(25)
    assert nor.read32(0x2A * 4) == both(10)
    nor.write32(0, both(0x90))
    assert nor.read32(0) == both(0x89)
    assert nor.read32(ADDRESS + 8) == 0  # unlocked
    assert nor.read32(2 * ADDRESS + 8) == both(1)  # locked


def test_erase_suspend_lets_another_block_be_read_and_programmed(nor: NorModel) -> None:
    nor.load(b"\x00" * 0x100000 + b"\x55" * 0x100000)
    other = 0x200000
    unlock(nor, other)
    nor.write32(ADDRESS, both(0x20))
    nor.write32(ADDRESS, both(0xD0))
    nor.advance(1_000_000)
    nor.write32(ADDRESS, both(0xB0))
    assert status(nor) == both(0xC0)
    assert array(nor, 0x100000) == 0x55555555
    program(nor, other, 0x11112222)
    program(nor, ADDRESS, 0)  # the suspended block itself refuses
    assert nor.faults == ["command", "command"]
    nor.write32(ADDRESS, both(0x50))
    nor.write32(ADDRESS, both(0xD0))
    nor.advance(ERASE_TIME_NS)
    assert array(nor, ADDRESS) == 0xFFFFFFFF
    assert array(nor, other) == 0x11112222


def test_blank_check(nor: NorModel) -> None:
    for expected in (both(0x80), both(0xA0)):
        nor.write32(ADDRESS, both(0xBC))
        nor.write32(ADDRESS, both(0xD0))
        nor.advance(10_000_000)
        assert status(nor) == expected
        program(nor, ADDRESS + 64, 0)


def test_power_lost_in_an_erase_tears_it_the_same_way_each_time() -> None:
    images = []
    for _ in range(2):
        nor = NorModel()
        nor.load(b"\x00" * 0x100000)
        unlock(nor)
        nor.write32(ADDRESS, both(0x20))
        nor.write32(ADDRESS, both(0xD0))
        nor.advance(ERASE_TIME_NS // 2)
        nor.power_cycle()
        images.append(nor.array)
    assert images[0] == images[1]
    ones = sum((byte).bit_count() for byte in images[0][ADDRESS : ADDRESS + BLOCK])
    assert BLOCK * 2 < ones < BLOCK * 6
    assert images[0][:ADDRESS] == b"\x00" * ADDRESS


def test_power_lost_in_a_buffer_leaves_a_beginning(nor: NorModel) -> None:
    nor.write32(ADDRESS, both(0xE8))
    nor.write32(ADDRESS, both(511))
    for index in range(512):
        nor.write32(ADDRESS + 4 * index, 0)
    nor.write32(ADDRESS, both(0xD0))
    nor.advance(450_000)
    nor.power_cycle()
    written = nor.array[ADDRESS : ADDRESS + 2048]
    zeros = len(written) - len(written.lstrip(b"\x00"))
    assert 1000 <= zeros <= 1048
    assert written[zeros + 4 :] == b"\xff" * (2048 - zeros - 4)


# Worn cells ---------------------------------------------------------------------------------------


def test_an_erase_of_worn_cells_ends_with_an_error_and_is_half_done(nor: NorModel) -> None:
    nor.load(bytes(2 * ADDRESS))
    nor.wear(Worn(ADDRESS, BLOCK, erase=True))
    erase(nor)
    assert status(nor) == both(0xA0)
    half = BLOCK // 2
    assert nor.array[ADDRESS : ADDRESS + BLOCK] == b"\xff" * half + bytes(half)
    assert [op.failed for op in nor.ops] == [3]


def test_a_program_of_worn_cells_ends_with_an_error_and_is_half_done(nor: NorModel) -> None:
    nor.wear(Worn(ADDRESS, BLOCK, erase=False, lanes=1))
    buffer(nor, ADDRESS, [0, 0, 0, 0])
    assert status(nor) == 0x00800090  # the low chip's alone
    assert nor.array[ADDRESS : ADDRESS + 16] == bytes(8) + b"\xff\xff\0\0" * 2


def test_an_error_of_one_operation_hangs_on_to_the_next_until_it_is_cleared(nor: NorModel) -> None:
    nor.wear(Worn(ADDRESS, BLOCK, erase=False, bad=1))
    program(nor, ADDRESS, 0)
    program(nor, ADDRESS, 0)
    assert array(nor, ADDRESS) == 0
    assert status(nor) == both(0x90)
    nor.write32(ADDRESS, both(0x50))
    assert status(nor) == READY


def test_only_as_many_operations_fail_as_are_to_and_only_there(nor: NorModel) -> None:
    unlock(nor, ADDRESS + BLOCK)
    nor.wear(Worn(ADDRESS, BLOCK, erase=False, good=1, bad=2))
    for address in (ADDRESS, ADDRESS + BLOCK, *[ADDRESS] * 3):
        program(nor, address, 0)
    erase(nor)
    assert [op.failed for op in nor.ops] == [0, 0, 3, 3, 0, 0]


def test_the_cells_after_failed_operations_are_the_models(nor: NorModel) -> None:
    image = bytes(range(256)) * (2 * ADDRESS // 256)
    nor.load(image)
    geometry = load_board("vexpress-a9").nor.geometry
    nor.wear(
        Worn(ADDRESS, BLOCK, erase=True, bad=1, lanes=2), Worn(ADDRESS, BLOCK, erase=False, lanes=1)
    )
    erase(nor)
    buffer(nor, ADDRESS, [0x01020304] * 5)
    program(nor, ADDRESS + 64, 0)
    assert Cells.of(image, geometry).after(nor.ops).reads_as(nor.array)
    assert [op.failed for op in nor.ops] == [2, 1, 1]


def test_more_worn_places_than_the_model_keeps_are_refused(nor: NorModel) -> None:
    with pytest.raises(EngineError, match="of 9 worn places the models keep 8"):
        nor.wear(*[Worn(ADDRESS, BLOCK, erase=True)] * 9)


def test_worn_cells_may_say_nothing(nor: NorModel) -> None:
    nor.wear(Worn(ADDRESS, BLOCK, erase=False, silent=True))
    buffer(nor, ADDRESS, [0, 0])
    assert status(nor) == READY
    assert nor.array[ADDRESS : ADDRESS + 8] == bytes(4) + b"\xff" * 4
    assert [op.failed for op in nor.ops] == [3]


def test_what_nobody_could_see_fails_with_no_word(nor: NorModel) -> None:
    buffer(nor, ADDRESS, [0, 0])
    nor.wear(
        Worn(ADDRESS, BLOCK, erase=False, silent=True),
        Worn(ADDRESS, BLOCK, erase=True, silent=True),
    )
    buffer(nor, ADDRESS, [0, 0])  # all of it is there
    buffer(nor, ADDRESS + 64, [0, 0xFFFFFFFF])  # its second half changes nothing
    erase(nor)  # the second half of the block is blank
    buffer(nor, ADDRESS, [0, 0])
    assert [op.failed for op in nor.ops] == [0, 0, 0, 0, 3]
    assert nor.array[ADDRESS : ADDRESS + 8] == bytes(4) + b"\xff" * 4


def test_a_program_that_fails_may_clear_cells_that_are_to_stay(nor: NorModel) -> None:
    geometry = load_board("vexpress-a9").nor.geometry
    nor.wear(Worn(ADDRESS, BLOCK, erase=False, lanes=2, spoils=True))
    buffer(nor, ADDRESS, [0xFFFFFFFF] * 4)
    assert nor.array[ADDRESS : ADDRESS + 16] == b"\xff" * 8 + b"\xff\xff\0\0" + b"\xff" * 4
    assert Cells.of(b"", geometry).after(nor.ops).reads_as(nor.array)


def test_operations_on_slow_cells_last_longer(nor: NorModel) -> None:
    nor.wear(Worn(ADDRESS, BLOCK, erase=True, bad=0, times=8))
    erase(nor)
    nor.advance(7 * ERASE_TIME_NS)
    program(nor, ADDRESS, 0)
    slow, usual = (op.end - op.start for op in nor.ops)
    assert slow == pytest.approx(4.0)
    assert usual < 0.001
    assert [op.failed for op in nor.ops] == [0, 0]
