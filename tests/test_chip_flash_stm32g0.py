"""The flash of STM32G0 differs from that of STM32L4 as RM0444 says, seen by real code."""

from __future__ import annotations

import pytest
from chip_probe import ChipProbe, Step, enable_interrupt, read, wait, write

FLASH = 0x4002_2000
KEYR, OPTKEYR, SR, CR, ECCR, ECC2R = (FLASH + at for at in (8, 0xC, 0x10, 0x14, 0x18, 0x1C))
OPTR, WRP1AR, WRP2AR, SECR = (FLASH + at for at in (0x20, 0x2C, 0x4C, 0x80))
PG, PER, MER1, BKER, MER2, STRT = (1 << bit for bit in (0, 1, 2, 13, 15, 16))
OPTSTRT, EOPIE, OBL_LAUNCH = 1 << 17, 1 << 24, 1 << 27
EOP, PROGERR, WRPERR, BSY1, BSY2 = 1 << 0, 1 << 3, 1 << 4, 1 << 16, 1 << 17
ECCD, NOT_SWAPPED = 1 << 31, 1 << 20
UNLOCK = (write(KEYR, 0x4567_0123), write(KEYR, 0xCDEF_89AB))
UNLOCK_OPTIONS = (write(OPTKEYR, 0x0819_2A3B), write(OPTKEYR, 0x4C5D_6E7F))
READY = wait(SR, BSY1 | BSY2, 0)
PAGE, BANK, OPTIONS = 0x800, 0x4_0000, 0x1FFF_7800
MAIN, OTHER = 0x0800_8000, 0x0804_8000
INTERRUPT, NMI = 3, -14
VALUE = 0x0807_0605_0403_0201
PROGRAM = (write(CR, PG), write(MAIN, VALUE, 8))
FACTORY_OPTR = 0xDFFF_E1AA
ONE, TWO = "stm32g071xb", "stm32g0b1xe"


def erase(page: int, flags: int = 0) -> tuple[Step, ...]:
    return (write(CR, PER | page << 3 | flags), write(CR, PER | page << 3 | flags | STRT))


@pytest.mark.parametrize("name", [ONE, TWO])
def test_a_double_word_is_programmed_once(name: str) -> None:
    g0 = ChipProbe(name)
    again = (write(CR, PG), write(MAIN, 1, 8), read(SR), read(MAIN + 4))
    assert g0.run(*UNLOCK, *PROGRAM, read(SR), *again) == [0, PROGERR, 0x0807_0605]
    assert g0.faults == ["flash-dirty"]
    assert g0.flash(MAIN, 8) == VALUE.to_bytes(8, "little")
    g0.run(enable_interrupt(INTERRUPT), *UNLOCK, write(CR, PG | EOPIE), write(MAIN, VALUE, 8))
    assert g0.interrupts(INTERRUPT) == 1


@pytest.mark.parametrize(
    ("name", "flags", "offset", "length"),
    [
        (ONE, PER | 63 << 3, 63 * PAGE, PAGE),
        (TWO, PER | 127 << 3, 127 * PAGE, PAGE),
        (TWO, PER | BKER | 127 << 3, BANK + 127 * PAGE, PAGE),
        (TWO, PER | BKER | 256 + 5 << 3, BANK + 5 * PAGE, PAGE),  # as it is also numbered
        (TWO, MER2, BANK, BANK),
    ],
)
def test_pages_and_banks_are_erased(name: str, flags: int, offset: int, length: int) -> None:
    g0 = ChipProbe(name)
    g0.image[offset : offset + length] = bytes(length)
    g0.run(*UNLOCK, write(CR, flags), write(CR, flags | STRT), READY)
    assert [(op.kind, op.offset, op.length) for op in g0.engine.ops] == [("erase", offset, length)]
    assert g0.faults == []


@pytest.mark.parametrize(
    ("name", "flags"),
    [(ONE, PER | 64 << 3), (ONE, PER | BKER), (ONE, MER2), (TWO, PER | 128 << 3)],
)
def test_a_page_or_a_bank_that_there_is_not_is_refused(name: str, flags: int) -> None:
    g0 = ChipProbe(name)
    g0.run(*UNLOCK, write(CR, flags), write(CR, flags | STRT))
    assert g0.faults == ["flash-command"]
    assert g0.engine.ops == []


def test_each_bank_says_that_it_is_busy() -> None:
    g0 = ChipProbe(TWO)
    assert g0.run(*UNLOCK, *erase(16, BKER), read(SR), READY, read(SR)) == [BSY2, 0]
    assert g0.run(*UNLOCK, *erase(16), read(SR), from_ram=True) == [BSY1]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_each_bank_tells_a_wrong_double_word(size: int) -> None:
    g0 = ChipProbe(TWO)
    g0.broken = [MAIN + 8, OTHER + 16]
    look = (read(ECCR), read(ECC2R))
    values = g0.run(read(MAIN + 8, size), *look, read(OTHER + 16, size), *look)
    assert values[1:3] == [ECCD | 0x1001, 0]
    assert values[4:] == [ECCD | 0x1001, ECCD | 0x1002]
    assert g0.interrupts(NMI) == 2
    clear = (write(ECC2R, ECCD), *look)
    assert g0.run(read(OTHER + 16), *clear)[1:] == [0, 0]


@pytest.mark.parametrize(
    ("name", "register", "flags"), [(ONE, WRP1AR, 0), (TWO, WRP1AR, 0), (TWO, WRP2AR, BKER)]
)
def test_pages_are_protected_after_a_launch(name: str, register: int, flags: int) -> None:
    g0 = ChipProbe(name)
    protect = (*UNLOCK_OPTIONS, write(register, 0xFF10_FF10), write(CR, OPTSTRT), READY)
    g0.run(*UNLOCK, *protect, read(SECR))
    assert g0.results == [0]
    first = g0.chip.image_offset(OPTIONS)
    g0.image[first:] = g0.engine.read_nor()[first:]
    assert g0.run(*UNLOCK, *erase(16, flags), read(SR)) == [WRPERR]
    g0.run(*UNLOCK, *erase(17, flags), READY)
    assert g0.faults == []


def test_banks_are_swapped_when_options_are_launched() -> None:
    g0 = ChipProbe(TWO)
    g0.image[0x8000:0x8004] = b"\x11" * 4
    g0.image[BANK + 0x8000 : BANK + 0x8004] = b"\x22" * 4
    look = (read(MAIN), read(OTHER))
    g0.load(*look, *UNLOCK, *erase(20), read(OPTR))
    second = g0.engine.read_nor()[:0x2000]
    g0.image[BANK : BANK + 0x2000] = second
    swap = (write(OPTR, FACTORY_OPTR & ~NOT_SWAPPED), write(CR, OPTSTRT), READY)
    g0.load(*UNLOCK, *UNLOCK_OPTIONS, *swap, *look, write(CR, OBL_LAUNCH))
    g0.engine.forget()
    g0.engine.power_on()
    assert g0.go_on() == [0x2222_2222, 0x1111_1111, FACTORY_OPTR & ~NOT_SWAPPED]
    *_, op = g0.engine.ops
    assert (op.kind, op.offset) == ("erase", 20 * PAGE)  # BKER means the bank itself
    assert g0.engine.resets == 1
