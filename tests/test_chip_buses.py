"""Chips behind the I2C and the SPI of an STM32F411 do what their data sheets say."""

from __future__ import annotations

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
    ],
)
def test_a_wrong_board_is_told(old: str, new: str, why: str, hint: str, tmp_path: Path) -> None:
    assert old in EEPROM
    (tmp_path / "mine.toml").write_text(EEPROM.replace(old, new), encoding="utf-8")
    with pytest.raises(SetupError, match=why) as error:
        load_chip("mine.toml", tmp_path)
    assert hint in error.value.hint


def test_a_wrong_size_of_a_nor_flash_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(NOR.replace("count = 256", "count = 15"), encoding="utf-8")
    with pytest.raises(SetupError, match="has 61440 bytes") as error:
        load_chip("mine.toml", tmp_path)
    assert "65536" in error.value.hint
