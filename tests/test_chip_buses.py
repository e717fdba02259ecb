"""Chips behind the I2C and the SPI of an STM32F411 do what their data sheets say."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from brickproof_demo import EEPROM, NOR
from chip_probe import ChipProbe, Step, enable_interrupt, read, sleep, wait, write

from unbrick.board import load_chip
from unbrick.errors import SetupError

DEMCR, DWT_CTRL, CYCLES = 0xE000_EDFC, 0xE000_1000, 0xE000_1004
DELAY = (
    *(write(DEMCR, 1 << 24), write(DWT_CTRL, 1), write(CYCLES, 0)),
    wait(CYCLES, 1 << 20, 1 << 20),  # 10 ms
)

I2C, I2C_EVENT, I2C_ERROR = 0x4000_5400, 31, 32
I2C_CR1, I2C_CR2, I2C_DR, SR1, SR2, CCR = (I2C + at for at in (0, 4, 0x10, 0x14, 0x18, 0x1C))
PE, START, STOP, ACK = 1 << 0, 1 << 8, 1 << 9, 1 << 10
SB, ADDR, BTF, I2C_RXNE, I2C_TXE, AF = 1 << 0, 1 << 1, 1 << 2, 1 << 6, 1 << 7, 1 << 10
MSL, BUSY, TRA, ITERREN, ITEVTEN = 1 << 0, 1 << 1, 1 << 2, 1 << 8, 1 << 9
BIT_S = 10e-6
I2C_ON = (write(I2C_CR2, 16), write(CCR, 80), write(I2C_CR1, PE))
"""100 kHz with a clock of 16 MHz."""

CELLS = 0xB000_0000
PAGE, GROUP = 64, 4

SPI, SPI_INTERRUPT = 0x4001_3000, 35
SPI_CR1, SPI_CR2, SPI_SR, SPI_DR = (SPI + at for at in (0, 4, 8, 0xC))
RXNE, TXE, OVR, SPI_BUSY = 1 << 0, 1 << 1, 1 << 6, 1 << 7
MODER, IDR, BSRR = 0x4002_0000, 0x4002_0010, 0x4002_0018
PIN = 4
SPI_ON = (
    *(write(BSRR, 1 << PIN), write(MODER, 0xA800_0000 | 1 << 2 * PIN)),
    write(SPI_CR1, 0x34C | 2 << 3),
)
NOR_CELLS, NOR_STATUS = 0xA000_0000, 0xA800_0000


def board(folder: Path, text: str) -> ChipProbe:
    path = folder / "board.toml"
    path.write_text(text, encoding="utf-8")
    return ChipProbe(str(path))


@pytest.fixture
def ee(tmp_path: Path) -> ChipProbe:
    return board(tmp_path, EEPROM)


@pytest.fixture
def nor(tmp_path: Path) -> ChipProbe:
    return board(tmp_path, NOR)


# I2C


def start(byte: int, flags: int = ACK) -> tuple[Step, ...]:
    """A start, or another one, and an address that is acknowledged."""
    begin = (write(I2C_CR1, PE | START | flags), wait(SR1, SB, SB), write(I2C_DR, byte))
    return (*begin, wait(SR1, ADDR, ADDR), wait(SR2, 0, 0))


def put(*data: int) -> tuple[Step, ...]:
    return tuple(
        step for byte in data for step in (wait(SR1, I2C_TXE, I2C_TXE), write(I2C_DR, byte))
    )


def stop() -> tuple[Step, ...]:
    return (wait(SR1, BTF, BTF), write(I2C_CR1, PE | STOP))


def ee_write(address: int, *data: int) -> tuple[Step, ...]:
    return (*start(0xA0), *put(address >> 8, address & 0xFF, *data), *stop())


def ee_read(address: int, count: int) -> tuple[Step, ...]:
    take = (wait(SR1, I2C_RXNE, I2C_RXNE), read(I2C_DR))
    last = (write(I2C_CR1, PE | STOP), *take)
    seek = (*start(0xA0), *put(address >> 8, address & 0xFF), wait(SR1, BTF, BTF))
    return (*seek, *start(0xA1), *take * (count - 1), *last)


def test_bytes_are_read_one_after_the_other(ee: ChipProbe) -> None:
    at = ee.chip.image_offset(CELLS)
    ee.image[at + 0x1234 : at + 0x1237] = b"abc"
    ee.image[-4:] = b"last"
    assert ee.run(*I2C_ON, *ee_read(0x1234, 3)) == list(b"abc")
    ee.image[at] = 0x21
    assert ee.run(*I2C_ON, *ee_read(0x7FFF, 2)) == [ord("t"), 0x21]
    assert ee.engine.ops == []


def test_a_byte_takes_nine_bits(ee: ChipProbe) -> None:
    ee.run(*I2C_ON, *ee_write(0x40, 1))
    op, *_ = ee.engine.ops
    assert op.start == pytest.approx((1 + 4 * 9) * BIT_S, rel=0.1)


def test_a_write_erases_its_groups_and_programs_them(ee: ChipProbe) -> None:
    at = ee.chip.image_offset(CELLS)
    ee.image[at + 0x40 : at + 0x80] = bytes(range(64))
    assert ee.run(*I2C_ON, *ee_write(0x46, 0xF0, 0xF1, 0xF2), *DELAY, *ee_read(0x44, 2)) == [4, 5]
    erased, written = ee.engine.ops
    assert (erased.kind, erased.offset, erased.length) == ("erase", at + 0x44, 8)
    assert (written.offset, written.data) == (at + 0x44, b"\x04\x05\xf0\xf1\xf2\x09\x0a\x0b")
    assert written.end - erased.start == pytest.approx(5e-3, rel=0.01)
    assert ee.flash(CELLS + 0x40, 64) == bytes(range(6)) + b"\xf0\xf1\xf2" + bytes(range(9, 64))


def test_a_page_begins_again_at_its_end(ee: ChipProbe) -> None:
    ee.run(*I2C_ON, *ee_write(0x7E, 1, 2, 3), *DELAY)
    assert ee.flash(CELLS + 0x40, 64) == b"\x03" + b"\xff" * 61 + b"\x01\x02"
    assert ee.flash(CELLS + 0x80, 1) == b"\xff"


def test_it_does_not_answer_while_it_writes_nor_does_anybody_else(ee: ChipProbe) -> None:
    ask = (write(I2C_CR1, PE | START), wait(SR1, SB, SB))
    refused = (wait(SR1, ADDR | AF, AF), read(SR2), write(SR1, 0), write(I2C_CR1, PE | STOP))
    busy = (*ask, write(I2C_DR, 0xA0), *refused)
    wrong = (*ask, write(I2C_DR, 0xA2), *refused)
    assert ee.run(*I2C_ON, *ee_write(0x40, 1), *busy, *DELAY, *wrong, *ee_read(0x40, 1)) == [
        *(MSL | BUSY | TRA, MSL | BUSY | TRA, 1)
    ]


def test_a_start_instead_of_a_stop_writes_nothing(ee: ChipProbe) -> None:
    begun = (*start(0xA0), *put(0, 0x40, 1), wait(SR1, BTF, BTF))
    assert ee.run(*I2C_ON, *begun, *ee_read(0x40, 1), *DELAY) == [0xFF]
    assert ee.engine.ops == []


def test_the_clock_is_stretched_until_a_byte_is_taken(ee: ChipProbe) -> None:
    at = ee.chip.image_offset(CELLS)
    ee.image[at : at + 3] = b"xyz"
    late = (*start(0xA0), *put(0, 0), wait(SR1, BTF, BTF), *start(0xA1), wait(SR1, BTF, BTF))
    both = (read(I2C_DR), read(I2C_DR), write(I2C_CR1, PE | STOP))
    assert ee.run(*I2C_ON, *late, *both, wait(SR1, I2C_RXNE, I2C_RXNE), read(I2C_DR)) == list(
        b"xyz"
    )


def test_the_i2c_interrupts(ee: ChipProbe) -> None:
    on = (*I2C_ON, enable_interrupt(I2C_EVENT), enable_interrupt(I2C_ERROR))
    ee.run(*on, write(I2C_CR2, 16 | ITEVTEN | ITERREN), write(I2C_CR1, PE | START), sleep())
    assert ee.interrupts(I2C_EVENT) == 1
    begin = (write(I2C_CR1, PE | START), wait(SR1, SB, SB))
    ee.run(*on, *begin, write(I2C_CR2, 16 | ITERREN), write(I2C_DR, 0x10), sleep())
    assert ee.interrupts(I2C_ERROR) == 1


@pytest.mark.parametrize(("op", "left"), [(0, bytes(4)), (1, b"\xff" * 4)])
def test_a_write_is_cut_before_it_and_between_its_halves(
    ee: ChipProbe, op: int, left: bytes
) -> None:
    at = ee.chip.image_offset(CELLS)
    ee.image[at : at + 8] = bytes(8)
    ee.load(*I2C_ON, *ee_write(0, 1, 2, 3, 4), *DELAY)
    ee.engine.forget()
    ee.engine.cut_before_op(op)
    ee.engine.power_on()
    ee.go_on(1.0)
    ee.engine.power_off()
    assert ee.flash(CELLS, 8) == left + bytes(4)


def test_the_eeprom_is_at_no_address(ee: ChipProbe) -> None:
    ee.run(read(CELLS), seconds=0.001)
    assert ee.faults[0] == "bus-fault"


# SPI


def transfer(*data: int, keep: int = 0) -> tuple[Step, ...]:
    """The chip is selected for some bytes; the last ones that it gives are kept."""
    steps = [write(BSRR, 1 << PIN + 16)]
    for number, byte in enumerate(data):
        kept = number >= len(data) - keep
        take = read(SPI_DR) if kept else wait(SPI_DR, 0, 0)
        steps += [write(SPI_DR, byte), wait(SPI_SR, RXNE, RXNE), take]
    return (*steps, wait(SPI_SR, SPI_BUSY, 0), write(BSRR, 1 << PIN))


ENABLE = transfer(0x06)
STATUS = transfer(0x05, 0, keep=1)


def place(address: int) -> tuple[int, int, int]:
    return address >> 16, address >> 8 & 0xFF, address & 0xFF


def test_the_chip_says_what_it_is(nor: ChipProbe) -> None:
    assert nor.run(*SPI_ON, *transfer(0x9F, 0, 0, 0, keep=3), *STATUS) == [0xEF, 0x40, 0x14, 0]


def test_it_is_read(nor: ChipProbe) -> None:
    at = nor.chip.image_offset(NOR_CELLS)
    nor.image[at + 0xF_FFFE : at + 0x10_0000] = b"ab"
    nor.image[at] = ord("c")
    slow = transfer(0x03, *place(0xF_FFFE), 0, 0, 0, keep=3)
    fast = transfer(0x0B, *place(0xF_FFFF), 0, 0, keep=1)
    assert nor.run(*SPI_ON, *slow, *fast) == [*b"abc", ord("b")]
    assert nor.faults == []


def test_a_program_clears_bits_of_a_page_and_begins_again_at_its_end(nor: ChipProbe) -> None:
    at = nor.chip.image_offset(NOR_CELLS)
    steps = (*ENABLE, *STATUS, *transfer(0x02, *place(0x1FE), 1, 2, 3), *STATUS, *DELAY, *STATUS)
    assert nor.run(*SPI_ON, *steps) == [2, 3, 0]
    (op,) = nor.engine.ops
    assert (op.offset, op.length) == (at + 0x100, 256)
    assert op.end - op.start == pytest.approx(800e-6)
    assert nor.flash(NOR_CELLS + 0x100, 256) == b"\x03" + b"\xff" * 253 + b"\x01\x02"
    nor.image[at : at + 2] = b"\x0f\x0f"
    nor.run(*SPI_ON, *ENABLE, *transfer(0x02, *place(0), 0x0E, 0x1F), *DELAY)
    assert nor.flash(NOR_CELLS, 2) == b"\x0e\x0f"
    assert nor.faults == ["flash-dirty"]


SECOND = transfer(0x35, 0, keep=1)
SUSPEND, RESUME = transfer(0x75), transfer(0x7A)


def test_an_erase_is_suspended_for_a_program_elsewhere(nor: ChipProbe) -> None:
    at = nor.chip.image_offset(NOR_CELLS)
    nor.image[at : at + 0x1000] = bytes(0x1000)
    program = (*ENABLE, *transfer(0x02, *place(0x1_0000), 7), *DELAY)
    begin = (*ENABLE, *transfer(0x20, *place(0)), *SUSPEND, *STATUS, *SECOND)
    found = nor.run(*SPI_ON, *begin, *program, *RESUME, *STATUS, *SECOND, *DELAY * 6, *STATUS)
    assert found == [0, 0x80, 3, 0, 0]
    assert [op.kind for op in nor.engine.ops] == ["erase", "word"]
    assert nor.flash(NOR_CELLS, 0x1000) == b"\xff" * 0x1000
    assert nor.flash(NOR_CELLS + 0x1_0000, 2) == b"\x07\xff"
    assert nor.faults == []


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        (SUSPEND, "flash-command"),
        (RESUME, "flash-command"),
        ((*ENABLE, *transfer(0xC7), *SUSPEND), "flash-command"),
        ((*ENABLE, *transfer(0x20, 0, 0, 0), *SUSPEND, *SUSPEND), "flash-command"),
        (
            (*ENABLE, *transfer(0x20, 0, 0, 0), *SUSPEND, *ENABLE, *transfer(0x20, 1, 0, 0)),
            "flash-busy",
        ),
        (
            (*ENABLE, *transfer(0x20, 0, 0, 0), *SUSPEND, *ENABLE, *transfer(0x02, 0, 0, 9, 0)),
            "flash-busy",
        ),
    ],
)
def test_what_cannot_be_suspended_or_begun_is_refused(
    nor: ChipProbe, steps: tuple[Step, ...], kind: str
) -> None:
    nor.run(*SPI_ON, *steps, seconds=0.02)
    assert nor.faults == [kind]


def test_a_suspended_erase_is_torn_by_a_power_cut(nor: ChipProbe) -> None:
    at = nor.chip.image_offset(NOR_CELLS)
    nor.image[at : at + 0x1000] = bytes(0x1000)
    nor.run(*SPI_ON, *ENABLE, *transfer(0x20, *place(0)), *DELAY, *SUSPEND, *DELAY, seconds=0.05)
    nor.engine.power_off()
    ones = sum(byte.bit_count() for byte in nor.flash(NOR_CELLS, 0x1000))
    assert 0x8000 // 8 < ones < 0x8000


@pytest.mark.parametrize(
    ("command", "first", "length"),
    [(0x20, 0x1_9000, 0x1000), (0x52, 0x1_8000, 0x8000), (0xD8, 0x1_0000, 0x1_0000)],
)
def test_sectors_and_blocks_are_erased(
    nor: ChipProbe, command: int, first: int, length: int
) -> None:
    at = nor.chip.image_offset(NOR_CELLS)
    nor.image[at : at + 0x10_0000] = bytes(0x10_0000)
    nor.run(*SPI_ON, *ENABLE, *transfer(command, *place(0x1_9ABC)))
    nor.engine.advance(1.0)
    (op,) = nor.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", at + first, length)
    left = nor.flash(NOR_CELLS, 0x10_0000)
    assert left == bytes(first) + b"\xff" * length + bytes(0x10_0000 - first - length)


def test_all_of_the_chip_is_erased(nor: ChipProbe) -> None:
    nor.run(*SPI_ON, *ENABLE, *transfer(0xC7))
    assert [op.length for op in nor.engine.ops] == [0x10_0000]


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        (transfer(0x02, 0, 0, 0, 0), "flash-locked"),
        ((*ENABLE, *transfer(0x04), *transfer(0x20, 0, 0, 0)), "flash-locked"),
        ((*ENABLE, *transfer(0x20, 0, 0)), "flash-command"),
        ((*ENABLE, *transfer(0x20, 0, 0, 0, 0)), "flash-command"),
        ((*ENABLE, *transfer(0x02, 0, 0, 0)), "flash-command"),
        (transfer(0x77), "flash-command"),
        ((*transfer(0xB9), *transfer(0x03, 0, 0, 0, 0)), "flash-command"),
    ],
)
def test_what_the_chip_ignores_is_told(nor: ChipProbe, steps: tuple[Step, ...], fault: str) -> None:
    nor.run(*SPI_ON, *steps)
    assert nor.faults == [fault]
    assert nor.engine.ops == []


def test_a_chip_that_is_busy_or_off_gives_nothing(nor: ChipProbe) -> None:
    at = nor.chip.image_offset(NOR_CELLS)
    nor.image[at] = 0x12
    look = transfer(0x03, 0, 0, 0, 0, keep=1)
    nor.run(*SPI_ON, *ENABLE, *transfer(0x02, *place(0x100), 0), *look, *DELAY, *look)
    assert nor.results == [0xFF, 0x12]
    assert nor.faults == ["flash-busy"]
    assert nor.run(*SPI_ON, *transfer(0xB9), *transfer(0xAB), *look) == [0x12]


@pytest.mark.parametrize(
    ("begin", "given"),
    [
        ((0x06,), []),
        ((0x02, *place(0x200), 7), []),
        ((0x03, *place(0)), [0xFF]),
        ((0x9F,), [0xFF]),
        ((0xB9,), []),
    ],
)
def test_what_a_busy_chip_ignored_stays_ignored_when_it_is_ready(
    nor: ChipProbe, begin: tuple[int, ...], given: list[int]
) -> None:
    """It is selected until long after the end of the program that keeps it busy."""
    nor.image[nor.chip.image_offset(NOR_CELLS)] = 0x12
    *early, deselect = transfer(*begin)
    late = transfer(0, keep=1)[1:-1] if given else ()
    busy = (*SPI_ON, *ENABLE, *transfer(0x02, *place(0x100), 0), *early, *DELAY, *late, deselect)
    assert nor.run(*busy, *transfer(0x9F, 0, keep=1), *STATUS) == [*given, 0xEF, 0]
    assert nor.faults == ["flash-busy"]
    assert len(nor.engine.ops) == 1


def test_every_operation_needs_an_enable_of_its_own(nor: ChipProbe) -> None:
    once = transfer(0x02, *place(0x100), 0)
    nor.run(*SPI_ON, *ENABLE, *once, *DELAY, *once)
    assert nor.faults == ["flash-locked"]
    assert len(nor.engine.ops) == 1


@pytest.mark.parametrize(
    ("status", "protected", "free"),
    [
        (0x04, 0xF_0000, 0xE_F000),
        (0x08, 0xE_0000, 0xD_F000),
        (0x24, 0x0_F000, 0x1_0000),
        (0x44, 0xF_F000, 0xF_E000),
        (0x1C, 0x0_0000, None),
    ],
)
def test_the_status_register_protects_and_outlives_the_power(
    nor: ChipProbe, status: int, protected: int, free: int | None
) -> None:
    nor.run(*SPI_ON, *ENABLE, *transfer(0x01, status), *DELAY, *STATUS)
    assert nor.results == [status]
    assert [op.kind for op in nor.engine.ops] == ["erase", "word"]
    assert nor.flash(NOR_STATUS, 1) == bytes((0xFF ^ status,))
    nor.image = bytearray(nor.engine.read_nor())
    nor.run(*SPI_ON, *STATUS, *ENABLE, *transfer(0x20, *place(protected)))
    assert nor.results == [status]
    assert nor.faults == ["flash-protected"]
    nor.run(*SPI_ON, *ENABLE, *transfer(0x02, *place(protected), 0))
    assert nor.faults == ["flash-protected"]
    if free is not None:
        nor.run(*SPI_ON, *ENABLE, *transfer(0x20, *place(free)))
        assert nor.faults == []


# SPI, four bytes of address

LARGE = (
    NOR.replace("count = 256", "count = 8192")
    .replace("id = 0xEF_4014", "id = 0xEF_4019\nfour_byte_commands = 0xA43")
    .replace("program_us = 800", "program_us = 700")
    .replace("sector_us = 45_000", "sector_us = 50_000")
    .replace("chip_us = 2_000_000", "chip_us = 80_000_000")
)
"""The same board with a W25Q256JV, as docs/chips.md has it, with where its times are from."""
LARGE_SIZE, NEAR, FAR = 32 << 20, 16 << 20, 0x123_4000
ENTER, EXIT, RESTART = transfer(0xB7), transfer(0xE9), (*transfer(0x66), *transfer(0x99))
THIRD, UPPER = transfer(0x15, 0, keep=1), transfer(0xC8, 0, keep=1)


@pytest.fixture
def large(tmp_path: Path) -> ChipProbe:
    probe = board(tmp_path, LARGE)
    at = probe.chip.image_offset(NOR_CELLS)
    for offset, byte in ((FAR, 0xFA), (FAR % NEAR, 0x0E), (LARGE_SIZE - 1, 0x1A), (0, 0x0F)):
        probe.image[at + offset] = byte
    return probe


def far(address: int) -> tuple[int, int, int, int]:
    return address >> 24, *place(address & 0xFF_FFFF)


def look(address: int) -> tuple[Step, ...]:
    """Read a byte with three bytes of address."""
    return transfer(0x03, *place(address % NEAR), 0, keep=1)


LOOK_FAR = transfer(0x03, *far(FAR), 0, keep=1)


def test_the_page_shows_this_board(large: ChipProbe, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "chips.md").read_text(encoding="utf-8")
    shown = next(part for part in page.split("```") if "four_byte_commands =" in part)
    (tmp_path / "shown.toml").write_text(shown.removeprefix("toml"), encoding="utf-8")
    chip = load_chip("shown.toml", tmp_path)
    assert (chip.flash, chip.devices) == (large.chip.flash, large.chip.devices)


def test_commands_with_four_bytes_reach_beyond_16_mib(large: ChipProbe) -> None:
    slow, fast = transfer(0x13, *far(FAR), 0, keep=1), transfer(0x0C, *far(FAR), 0, 0, keep=1)
    assert large.run(*SPI_ON, *look(FAR), *slow, *fast) == [0x0E, 0xFA, 0xFA]
    assert large.faults == []


def test_the_mode_with_four_bytes_is_entered_and_left(large: ChipProbe) -> None:
    clear = (*ENABLE, *transfer(0xC5, 0))
    four = (*ENTER, *THIRD, *LOOK_FAR, *transfer(0x0B, *far(FAR), 0, 0, keep=1))
    found = large.run(*SPI_ON, *THIRD, *four, *EXIT, *THIRD, *clear, *look(FAR))
    assert found == [0, 1, 0xFA, 0xFA, 0, 0x0E]
    assert large.faults == []


def test_a_register_has_the_fourth_byte_of_three(large: ChipProbe) -> None:
    upper = (*ENABLE, *transfer(0xC5, 0xFF), *UPPER, *look(FAR))
    # A command with four bytes leaves its own there: the trap of who leaves the mode.
    trap = (*transfer(0x13, *far(0), 0, keep=1), *UPPER, *ENTER, *LOOK_FAR, *EXIT, *look(FAR))
    assert large.run(*SPI_ON, *UPPER, *upper, *trap) == [0, 1, 0xFA, 0x0F, 0, 0xFA, 0xFA]
    assert large.faults == []
    assert large.run(*SPI_ON, *transfer(0xC5, 1), *UPPER) == [0]
    assert large.faults == ["flash-locked"]


@pytest.mark.parametrize("lose", [RESTART, None])
def test_a_reset_and_the_power_end_the_mode(
    large: ChipProbe, lose: tuple[Step, ...] | None
) -> None:
    begin = (*SPI_ON, *ENTER, *LOOK_FAR, *THIRD, *UPPER)
    assert large.run(*begin, *(lose or ()), *THIRD, *UPPER)[:3] == [0xFA, 1, 1]
    if lose is None:
        assert large.run(*SPI_ON, *THIRD, *UPPER, *look(FAR)) == [0, 0, 0x0E]
    else:
        assert large.results[3:] == [0, 0]
    assert large.faults == []


def test_the_mode_outlives_a_reset_of_the_microcontroller(large: ChipProbe) -> None:
    assert large.run(*SPI_ON, *THIRD, *ENTER) == [0]
    large.engine.press_reset()
    assert large.go_on(0.1) == [1]


def test_the_chip_can_begin_with_four_bytes(large: ChipProbe) -> None:
    assert large.run(*SPI_ON, *ENABLE, *transfer(0x11, 0x02), *DELAY, *DELAY, *THIRD) == [0x02]
    assert large.flash(NOR_STATUS, 3) == b"\xff\xff\xfd"
    large.image = bytearray(large.engine.read_nor())
    steps = (*THIRD, *LOOK_FAR, *EXIT, *THIRD, *RESTART, *THIRD)
    assert large.run(*SPI_ON, *steps) == [3, 0xFA, 2, 3]
    kept = (*ENABLE, *transfer(0x01, 0x04), *DELAY, *DELAY, *THIRD, *STATUS)
    assert large.run(*SPI_ON, *kept) == [3, 4]
    assert large.faults == []


def test_what_is_beyond_the_chip_begins_again(large: ChipProbe) -> None:
    last = transfer(0x13, *far(LARGE_SIZE - 1), 0, 0, keep=2)
    beyond = transfer(0x13, *far(5 * LARGE_SIZE + FAR), 0, keep=1)
    assert large.run(*SPI_ON, *last, *beyond) == [0x1A, 0x0F, 0xFA]
    assert large.faults == []


@pytest.mark.parametrize(
    ("begin", "command", "first", "length"),
    [
        ((), 0x21, FAR & ~0xFFF, 0x1000),
        ((), 0xDC, FAR & ~0xFFFF, 0x1_0000),
        (ENTER, 0x20, FAR & ~0xFFF, 0x1000),
        (ENTER, 0x52, FAR & ~0x7FFF, 0x8000),
        (ENTER, 0xD8, FAR & ~0xFFFF, 0x1_0000),
        (ENTER, 0x02, FAR, 2),
        ((), 0x12, FAR, 2),
    ],
)
def test_what_is_far_is_changed(
    large: ChipProbe, begin: tuple[Step, ...], command: int, first: int, length: int
) -> None:
    at = large.chip.image_offset(NOR_CELLS)
    data = (0x12, 0x34) if length == 2 else ()
    large.run(*SPI_ON, *begin, *ENABLE, *transfer(command, *far(FAR), *data))
    large.engine.advance(0.2)
    (op,) = large.engine.ops
    assert (op.offset, op.length) == (at + first, length)
    assert large.flash(NOR_CELLS + FAR, 2) == (b"\x12\x34" if data else b"\xff\xff")
    assert large.flash(NOR_CELLS + FAR % NEAR, 1) == b"\x0e"


@pytest.mark.parametrize(
    "steps",
    [
        (*ENABLE, *transfer(0x5C, *far(FAR))),  # this chip has none
        (*ENABLE, *transfer(0x21, *place(0))),
        (*ENABLE, *ENTER, *transfer(0x20, *place(0))),
        (*ENABLE, *ENTER, *transfer(0x02, *place(0), 0)),
        (*ENABLE, *EXIT, *transfer(0x20, *far(0))),
    ],
)
def test_a_wrong_number_of_bytes_is_told(large: ChipProbe, steps: tuple[Step, ...]) -> None:
    large.run(*SPI_ON, *steps)
    assert large.faults == ["flash-command"]
    assert large.engine.ops == []


@pytest.mark.parametrize("command", [0xB7, 0xE9, 0xC5, 0xC8, 0x11, 0x15, 0x13, 0x12, 0x21, 0xDC])
def test_a_small_chip_knows_none_of_it(nor: ChipProbe, command: int) -> None:
    nor.run(*SPI_ON, *ENABLE, *transfer(command, 0), *STATUS)
    assert nor.faults == ["flash-command"]


@pytest.mark.parametrize(
    ("status", "protected", "free"),
    [
        (0x04, LARGE_SIZE - 0x1_0000, LARGE_SIZE - 0x2_0000),
        (0x24, NEAR, NEAR - 0x1_0000),
        (0x64, NEAR - 0x1_0000, NEAR),
        (0x28, 0, None),
        (0x3C, 0, None),
    ],
)
def test_a_large_chip_protects_by_four_bits(
    large: ChipProbe, status: int, protected: int, free: int | None
) -> None:
    large.run(*SPI_ON, *ENABLE, *transfer(0x01, status), *DELAY, *DELAY, *STATUS)
    assert large.results == [status]
    large.image = bytearray(large.engine.read_nor())
    large.run(*SPI_ON, *ENABLE, *transfer(0xDC, *far(protected)))
    assert large.faults == ["flash-protected"]
    if free is not None:
        large.run(*SPI_ON, *ENABLE, *transfer(0xDC, *far(free)))
        assert large.faults == []


def read_sfdp(probe: ChipProbe, at: int, words: int, *begin: Step) -> tuple[int, ...]:
    found = b""
    while len(found) < 4 * words:
        size = min(32, 4 * words - len(found))  # a script is not longer
        steps = transfer(0x5A, *place(at + len(found)), *[0] * (size + 1), keep=size)
        found += bytes(probe.run(*SPI_ON, *begin, *steps))
    return struct.unpack(f"<{words}I", found)


def test_sfdp_tells_how_to_address_all_of_it(large: ChipProbe) -> None:
    signature, revision, basic, pointer = read_sfdp(large, 0, 4)
    assert (signature, revision) == (int.from_bytes(b"SFDP", "little"), 0xFF00_0105)
    assert (basic, pointer & 0xFF_FFFF) == (16 << 24 | 0x1_0500, 0x80)
    words = (0, *read_sfdp(large, 0x80, 16, *ENTER))  # always with three bytes of address
    assert words[1] >> 17 & 3 == 1  # three, or four in the mode
    assert words[2] == LARGE_SIZE * 8 - 1
    assert words[8:10] == (0x520F_200C, 0x0000_D810)
    units = (1, 16, 128, 1000)  # ms
    erases = (words[10] >> shift & 0x7F for shift in (4, 11, 18))
    assert [units[one >> 5] * ((one & 31) + 1) for one in erases] == [64, 128, 160]
    page, whole = words[11] >> 8 & 0x3F, words[11] >> 24 & 0x7F
    assert 1 << (words[11] >> 4 & 15) == 256
    assert ((8, 64)[page >> 5] * ((page & 31) + 1), page >> 5) == (704, 1)
    assert (16, 256, 4000, 64_000)[whole >> 5] * ((whole & 31) + 1) == 80_000
    assert words[13] == 0x757A_757A
    assert words[16] >> 8 & 0x3F == 1 << 4  # 66h and 99h
    assert words[16] >> 14 & 0xFF == 0b1100_0101  # E9h, C5h, the reset, the power
    assert words[16] >> 24 & 0x7F == 0b010_0101  # B7h, C5h, commands of their own


def test_sfdp_lists_the_commands_with_four_bytes(tmp_path: Path) -> None:
    probe = board(tmp_path, LARGE.replace("0xA43", "0xE43\nfour_byte_table = 1"))
    header = read_sfdp(probe, 0, 6)
    assert header[1:3] == (0xFF01_0106, 16 << 24 | 0x1_0600)
    assert header[4] == 0x0201_0084
    pointer = header[5] & 0xFF_FFFF
    assert read_sfdp(probe, pointer, 3) == (0xFFF0_0E43, 0xFFDC_5C21, 0xFFFF_FFFF)
    probe.run(*SPI_ON, *ENABLE, *transfer(0x5C, *far(FAR)))
    assert [op.length for op in probe.engine.ops] == [0x8000]


def test_sfdp_of_a_small_chip_has_one_short_table(nor: ChipProbe) -> None:
    header = read_sfdp(nor, 0, 6)
    assert header == (0x5044_4653, 0xFF00_0100, 0x0901_0000, 0xFF00_0080, *[0xFFFF_FFFF] * 2)
    words = read_sfdp(nor, 0x80, 10)
    assert (words[0] >> 17 & 3, words[1], words[9]) == (0, 0x7F_FFFF, 0xFFFF_FFFF)


# SPI of the microcontroller


def test_a_frame_that_is_not_taken_is_an_overrun(nor: ChipProbe) -> None:
    two = (write(SPI_DR, 1), write(SPI_DR, 2), wait(SPI_SR, OVR, OVR), read(SPI_SR), read(SPI_DR))
    values = nor.run(*SPI_ON, *two, read(SPI_SR), read(SPI_SR))
    assert values == [OVR | RXNE | TXE, 0xFF, OVR | TXE, TXE]


def test_the_spi_interrupts_and_takes_its_time(nor: ChipProbe) -> None:
    on = (*SPI_ON, enable_interrupt(SPI_INTERRUPT), write(SPI_CR2, 1 << 6))
    nor.run(*on, write(SPI_DR, 1), read(SPI_SR), sleep(), read(SPI_SR))
    assert nor.interrupts(SPI_INTERRUPT) == 1
    assert nor.results == [TXE | SPI_BUSY, TXE | RXNE]


def test_a_pin_is_read_as_it_is_driven(nor: ChipProbe) -> None:
    both = (write(BSRR, 1 << PIN + 16), read(IDR), write(BSRR, 1 << PIN | 1 << PIN + 16), read(IDR))
    assert nor.run(*SPI_ON, *both) == [0, 1 << PIN]


# Files


@pytest.mark.parametrize(
    ("old", "new", "why", "hint"),
    [
        ('bus = "i2c1"', 'bus = "i2c9"', "`bus` is 'i2c9'", "i2c1"),
        ('bus = "i2c1"', 'bus = "spi1"', "`bus` is 'spi1'", "i2c"),
        ('bus = "i2c1"', "base = 0", "`bus` is missing", "text"),
        ("page = 64", "page = 512", "`page` is 512", "8 to 256"),
        ('like = "stm32f411xe"', 'like = "stm32f103xb"', "none comes before it", "first"),
        ("group = 4", "group = 3", "pages of 64, groups of 3", "whole groups"),
        ("count = 512, size = 64", "count = 3, size = 32", "has 96 bytes", "whole pages"),
        ("count = 512", "count = 1025", "has 65600 bytes", "at most 65536"),
        ("count = 8192", "count = 8207", "has 33615872 bytes", "multiple of 65536"),
        ("count = 8192, size = 4096", "count = 8194, size = 32768", "268500992", "268435456"),
        ("count = 8192", "count = 4096", "four bytes of address and 16777216", "16777216"),
        ("0xA43", "0xA47", "`four_byte_commands` is 0xa47", "0xe43"),
    ],
)
def test_a_wrong_board_is_told(old: str, new: str, why: str, hint: str, tmp_path: Path) -> None:
    text = EEPROM if old in EEPROM else LARGE
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SetupError, match=why) as error:
        load_chip("mine.toml", tmp_path)
    assert hint in error.value.hint


def test_a_flash_that_code_runs_from_has_three_bytes(tmp_path: Path) -> None:
    text = 'like = "rp2040"\n[flash.main]\nblocks = [{ count = 4112, size = 4096 }]\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SetupError, match="has 16842752 bytes") as error:
        load_chip("mine.toml", tmp_path)
    assert "at most 16777216" in error.value.hint
