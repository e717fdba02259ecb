"""The flash of STM32H5 does what RM0481 says, seen by real code."""

from __future__ import annotations

from functools import partial

import pytest
from chip_probe import ChipProbe, Step, call, enable_interrupt, read, sleep, wait, write

from unbrick.board import load_chip

FLASH = 0x4002_2000
NSKEYR, OPTKEYR, OPTCR, NSSR, NSCR = (FLASH + at for at in (4, 0xC, 0x1C, 0x20, 0x28))
NSCCR, ECCDETR = FLASH + 0x30, FLASH + 0x104
OPTSR_CUR, OPTSR_PRG, WRP1R_CUR, WRP1R_PRG = (FLASH + at for at in (0x50, 0x54, 0xE8, 0xEC))
BSY, WBNE = 1 << 0, 1 << 1
EOP, WRPERR, PGSERR, STRBERR, INCERR, OPTCHANGEERR = (1 << bit for bit in (16, 17, 18, 19, 20, 23))
LOCK, PG, SER, BER, FW, START, MER = (1 << bit for bit in (0, 1, 2, 3, 4, 5, 15))
BKSEL, SWAP_BANK, ECCD, ECC_BANK = 1 << 31, 1 << 31, 1 << 31, 1 << 22
OPTLOCK, OPTSTART = 1 << 0, 1 << 1
UNLOCK = (write(NSKEYR, 0x4567_0123), write(NSKEYR, 0xCDEF_89AB))
UNLOCK_OPTIONS = (write(OPTKEYR, 0x0819_2A3B), write(OPTKEYR, 0x4C5D_6E7F))
SECTOR, BANK = 0x2000, 0x10_0000
MAIN, OTHER, OPTIONS = 0x0802_0000, 0x0812_0000, 0xF000_0000
INTERRUPT, INTERRUPT_SECURE, NMI = 6, 7, -14
READY = wait(NSSR, BSY | WBNE, 0)
FACTORY_OPTSR, SECURE_OPTSR2 = 0x2D30_EDD8, 0xB400_007C
WORDS = (0x0403_0201, 0x0807_0605, 0x0C0B_0A09, 0x100F_0E0D)


def quad(address: int) -> tuple[Step, ...]:
    return tuple(write(address + 4 * at, word) for at, word in enumerate(WORDS))


PROGRAM = (write(NSCR, PG), *quad(MAIN))


@pytest.fixture
def h5() -> ChipProbe:
    return ChipProbe("stm32h563xi")


def erase(sector: int, flags: int = 0) -> tuple[Step, ...]:
    return (write(NSCR, SER | sector << 6 | flags), write(NSCR, SER | sector << 6 | flags | START))


def set_option(probe: ChipProbe, number: int, word: int) -> None:
    """An option word as it lies in the flash, with its complement."""
    at = probe.chip.image_offset(OPTIONS) + 8 * number
    probe.image[at : at + 8] = word.to_bytes(4, "little") + (word ^ 0xFFFF_FFFF).to_bytes(
        4, "little"
    )


def test_four_words_are_programmed_as_a_quad_word(h5: ChipProbe) -> None:
    assert h5.run(*UNLOCK, *PROGRAM, read(NSSR), read(MAIN), read(MAIN + 12)) == [
        *(EOP, WORDS[0], WORDS[3])
    ]
    (op,) = h5.engine.ops
    assert op.data == h5.flash(MAIN, 16) == bytes(range(1, 17))
    assert h5.interrupts(NMI) == 0


def test_bytes_make_a_quad_word_in_any_order(h5: ChipProbe) -> None:
    stores = [write(MAIN + at, at + 1, 1) for at in (*range(8, 16), *range(8))]
    steps = (*UNLOCK, write(NSCR, PG), *stores[:-1], read(NSSR), stores[-1], read(NSSR))
    assert h5.run(*steps) == [WBNE, EOP]
    assert h5.flash(MAIN, 16) == bytes(range(1, 17))


def test_a_part_is_programmed_when_that_is_forced(h5: ChipProbe) -> None:
    h5.run(*UNLOCK, write(NSCR, PG), write(MAIN + 4, 0), write(NSCR, PG | FW))
    assert h5.flash(MAIN, 16) == b"\xff" * 4 + bytes(4) + b"\xff" * 8


@pytest.mark.parametrize(
    ("flags", "offset", "length"),
    [
        (SER | 16 << 6, 16 * SECTOR, SECTOR),
        (SER | BKSEL | 127 << 6, BANK + 127 * SECTOR, SECTOR),
        (BER | BKSEL, BANK, BANK),
    ],
)
def test_sectors_and_banks_are_erased(h5: ChipProbe, flags: int, offset: int, length: int) -> None:
    h5.image[offset : offset + length] = bytes(length)
    h5.run(*UNLOCK, write(NSCR, flags | START), read(0x0800_0000 + offset))
    (op,) = h5.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", offset, length)
    assert h5.flash(0x0800_0000 + offset, length) == b"\xff" * length
    assert h5.interrupts(NMI) == 0


def test_all_is_erased_at_once_with_the_check_cells(h5: ChipProbe) -> None:
    h5.broken = [OTHER]
    h5.run(*UNLOCK, write(NSCR, MER | START), from_ram=True)
    assert [(op.offset, op.length) for op in h5.engine.ops] == [(0, 2 * BANK)]
    assert h5.engine.read_nor()[: h5.chip.image_offset(OPTIONS)].strip(b"\xff") == b""


def test_the_core_goes_on_while_the_other_bank_is_busy(h5: ChipProbe) -> None:
    assert h5.run(*UNLOCK, *erase(16, BKSEL), read(NSSR), READY, read(NSSR)) == [BSY, EOP]
    assert h5.run(*UNLOCK, *erase(16), read(NSSR)) == [EOP]
    steps = (*erase(16), read(NSSR), *PROGRAM, read(NSSR), READY)
    assert h5.run(*UNLOCK, *steps, from_ram=True) == [BSY, BSY | EOP]
    first, second = h5.engine.ops
    assert second.start >= first.end


@pytest.mark.parametrize(
    ("steps", "fault", "status"),
    [
        ((write(MAIN, 0),), "flash-locked", PGSERR),
        ((write(NSCR, PG),), "flash-locked", 0),
        ((*UNLOCK, write(MAIN, 0)), "flash-stray", PGSERR),
        ((*UNLOCK, write(NSCR, PG | SER), write(MAIN, 0)), "flash-stray", PGSERR),
        ((*UNLOCK, write(NSCR, PG), write(MAIN, 0), write(MAIN + 16, 0)), "flash-width", INCERR),
        ((*UNLOCK, write(NSCR, PG), write(MAIN, 0), write(MAIN + 3, 0, 1)), "flash-width", STRBERR),
        ((*UNLOCK, write(NSCR, START)), "flash-command", PGSERR),
        ((*UNLOCK, write(NSCR, SER | BER | START)), "flash-command", PGSERR),
        ((*UNLOCK, write(NSCR, SER | PG | START)), "flash-command", PGSERR),
        ((write(NSKEYR, 1), *UNLOCK, write(NSCR, PG)), "flash-locked", 0),
        ((*UNLOCK, write(NSCR, LOCK), write(NSCR, PG)), "flash-locked", 0),
        ((write(WRP1R_PRG, 0),), "flash-locked", 0),
        ((write(OPTCR, OPTSTART),), "flash-locked", 0),
        ((*UNLOCK_OPTIONS, write(OPTCR, OPTLOCK), write(OPTCR, OPTSTART)), "flash-locked", 0),
    ],
)
def test_what_is_wrong_is_refused(
    h5: ChipProbe, steps: tuple[Step, ...], fault: str, status: int
) -> None:
    assert h5.run(*steps, read(NSSR)) == [status]
    assert set(h5.faults) == {fault}
    assert h5.engine.ops == []


def test_flags_are_cleared_and_interrupt_when_that_is_enabled(h5: ChipProbe) -> None:
    on = enable_interrupt(INTERRUPT)
    assert h5.run(on, *UNLOCK, *PROGRAM, write(NSCCR, EOP), read(NSSR)) == [0]
    assert h5.interrupts(INTERRUPT) == 0
    h5.run(on, *UNLOCK, write(NSCR, PG | EOP), *quad(MAIN))
    assert h5.interrupts(INTERRUPT) == 1
    h5.run(on, *UNLOCK, write(NSCR, PGSERR), write(MAIN, 0))
    assert h5.interrupts(INTERRUPT) == 1
    told = h5.run(on, *UNLOCK, *erase(16, EOP), sleep(), read(NSSR), from_ram=True)
    assert told == [EOP]


def test_a_word_over_another_one_is_a_fault_and_no_word(h5: ChipProbe) -> None:
    h5.image[0x2_0000:0x2_0010] = b"\xf5" * 16
    h5.run(*UNLOCK, *PROGRAM, read(MAIN))
    assert h5.faults == ["flash-dirty"]
    assert h5.results == [0x0401_0001]
    assert h5.interrupts(NMI) == 1


@pytest.mark.parametrize(("address", "bank"), [(MAIN + 16, 0), (OTHER + 16, ECC_BANK)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_read_of_a_wrong_quad_word_is_an_nmi(
    h5: ChipProbe, address: int, bank: int, size: int
) -> None:
    h5.broken = [address]
    steps = (read(ECCDETR), read(address - 8), read(address + 12, size), read(ECCDETR))
    values = h5.run(*steps, write(ECCDETR, ECCD), read(ECCDETR))
    assert values[0] == values[-1] == 0
    assert values[3] == ECCD | bank | 0x2001
    assert h5.interrupts(NMI) == 1


def test_the_nmi_comes_again_only_when_its_flag_was_cleared(h5: ChipProbe) -> None:
    h5.broken = [MAIN, MAIN + 16]
    h5.run(read(MAIN), read(MAIN + 16), read(ECCDETR))
    assert h5.interrupts(NMI) == 1
    assert h5.results[-1] == ECCD | 0x2000
    h5.run(read(MAIN), write(ECCDETR, ECCD), read(MAIN + 16), read(ECCDETR))
    assert h5.interrupts(NMI) == 2


def test_a_wrong_quad_word_is_not_blank(h5: ChipProbe) -> None:
    h5.broken = [MAIN]
    h5.run(*UNLOCK, *PROGRAM)
    assert h5.faults == ["flash-dirty"]
    h5.run(*UNLOCK, *erase(16), *PROGRAM, read(MAIN))
    assert h5.results == [WORDS[0]]
    assert h5.interrupts(NMI) == 0


def test_a_torn_quad_word_is_an_nmi_when_it_is_read(h5: ChipProbe) -> None:
    h5.load(*UNLOCK, *PROGRAM, from_ram=True)
    h5.engine.forget()
    h5.engine.power_on()
    while not h5.engine.ops:
        h5.engine.advance(1e-6)
    (op,) = h5.engine.ops
    h5.engine.advance((op.end - op.start) / 2)
    h5.engine.power_off()
    cells = h5.engine.read_nor()
    h5.load(read(MAIN))
    image = bytearray(cells)
    image[:0x2000] = h5.engine.read_nor()[:0x2000]
    checks = h5.chip.geometry.checks[0]
    image[checks.first : checks.first + 0x200] = h5.engine.read_nor()[
        checks.first : checks.first + 0x200
    ]
    h5.engine.load_nor(bytes(image))
    h5.engine.power_on()
    h5.go_on()
    assert h5.results[0] != WORDS[0]
    assert h5.interrupts(NMI) == 1


def test_a_group_of_sectors_is_protected(h5: ChipProbe) -> None:
    set_option(h5, 4, 0xFFFF_FFFF & ~(1 << 4))  # sectors 16 to 19
    steps = (*UNLOCK, *erase(19), read(NSSR), write(NSCCR, WRPERR), *PROGRAM, read(NSSR))
    assert h5.run(*steps) == [WRPERR, WRPERR]
    assert h5.run(*UNLOCK, write(NSCR, BER | START), read(NSSR)) == [WRPERR]
    assert h5.run(*UNLOCK, write(NSCR, MER | START), read(NSSR)) == [WRPERR]
    h5.run(*UNLOCK, *erase(20), *erase(15), *erase(16, BKSEL), READY)
    assert h5.faults == []


def test_option_words_are_in_force_when_they_are_programmed(h5: ChipProbe) -> None:
    protect = (*UNLOCK_OPTIONS, write(WRP1R_PRG, ~(1 << 4) & 0xFFFF_FFFF))
    steps = (*UNLOCK, *protect, read(WRP1R_CUR), write(OPTCR, OPTSTART), read(WRP1R_CUR))
    assert h5.run(*steps, *erase(16), read(NSSR)) == [0xFFFF_FFFF, 0xFFFF_FFEF, EOP | WRPERR]
    assert [op.kind for op in h5.engine.ops] == ["erase", *["word"] * 6]
    first = h5.chip.image_offset(OPTIONS)
    h5.image[first:] = h5.engine.read_nor()[first:]
    assert h5.run(*UNLOCK, *erase(16), read(NSSR)) == [WRPERR]


def test_a_cut_between_option_words_is_seen(h5: ChipProbe) -> None:
    h5.load(*UNLOCK, *UNLOCK_OPTIONS, write(WRP1R_PRG, 0), write(OPTCR, OPTSTART))
    h5.engine.forget()
    h5.engine.cut_before_op(3)
    h5.engine.power_on()
    h5.go_on(1.0)
    h5.engine.power_off()
    first = h5.chip.image_offset(OPTIONS)
    h5.image[first:] = h5.engine.read_nor()[first:]
    assert h5.run(read(NSSR), read(OPTSR_CUR)) == [OPTCHANGEERR, FACTORY_OPTSR]


def test_banks_are_swapped_at_the_next_reset(h5: ChipProbe) -> None:
    """Both banks have the program; the second one has a script that reads something else."""
    swap = (*UNLOCK_OPTIONS, write(OPTSR_PRG, FACTORY_OPTSR | SWAP_BANK), write(OPTCR, OPTSTART))
    h5.image[0x2_0000:0x2_0004] = b"\x11" * 4
    h5.image[BANK + 0x2_0000 : BANK + 0x2_0004] = b"\x22" * 4
    look = (read(OPTCR), read(MAIN), read(OTHER), read(0x0C02_0000))
    in_force = (*UNLOCK, *UNLOCK_OPTIONS)
    h5.load(*in_force, *erase(20), read(MAIN), read(OPTCR), *look)
    second = h5.engine.read_nor()[:SECTOR]
    h5.image[BANK : BANK + SECTOR] = second
    h5.load(*swap, *look)
    h5.engine.forget()
    h5.engine.power_on()
    assert h5.go_on() == [0, 0x1111_1111, 0x2222_2222, 0x1111_1111]
    h5.engine.press_reset()
    expected = [0x2222_2222, SWAP_BANK, SWAP_BANK, 0x2222_2222, 0x1111_1111, 0x2222_2222]
    assert h5.go_on() == expected
    *_, op = h5.engine.ops
    assert (op.kind, op.offset) == ("erase", 20 * SECTOR)  # BKSEL means the bank itself
    assert op.end > op.start


def test_a_wrong_word_is_found_where_its_bank_is_now(h5: ChipProbe) -> None:
    set_option(h5, 0, FACTORY_OPTSR | SWAP_BANK)
    h5.broken = [OTHER]
    h5.load(read(MAIN), read(ECCDETR), read(OTHER))
    image = bytearray(h5.engine.read_nor())
    image[BANK : BANK + SECTOR] = image[:SECTOR]
    h5.chip.geometry.set_checks(image, BANK, SECTOR)
    h5.engine.load_nor(bytes(image))
    h5.engine.forget()
    h5.engine.power_on()
    assert h5.go_on()[1] == ECCD | ECC_BANK | 0x2000
    assert h5.interrupts(NMI) == 1


def test_what_is_read_of_swapped_banks_is_noted_where_it_lies(h5: ChipProbe) -> None:
    set_option(h5, 0, FACTORY_OPTSR | SWAP_BANK)
    h5.load(read(MAIN))
    image = bytearray(h5.engine.read_nor())
    image[BANK : BANK + SECTOR] = image[:SECTOR]
    image[BANK + 0x2_0000 : BANK + 0x2_0004] = b"\x22" * 4
    image[0x2_0000:0x2_0004] = b"\x11" * 4
    h5.chip.geometry.set_checks(image, 0, 2 * BANK)
    h5.engine.load_nor(bytes(image))
    h5.engine.note_reads()
    h5.engine.power_on()
    assert h5.go_on() == [0x2222_2222]
    relevant = h5.engine.relevant
    unit = (BANK + 0x2_0000) // 4
    assert relevant >> unit & 0xF == 0xF  # with the rest of its quad word
    assert relevant & (1 << BANK // 4) - 1 == 0


def test_secure_code_has_its_own_registers_and_addresses(h5: ChipProbe) -> None:
    set_option(h5, 1, SECURE_OPTSR2)
    secure = partial(int.__add__, 0x1000_0000)
    seckeyr, secsr, seccr = secure(FLASH + 8), secure(FLASH + 0x24), secure(FLASH + 0x2C)
    open_ = (write(seckeyr, 0x4567_0123), write(seckeyr, 0xCDEF_89AB))
    on = enable_interrupt(INTERRUPT_SECURE)
    steps = (*open_, write(NSCR, PG), read(NSCR), write(seccr, PG | EOP), *quad(0x0C02_0000))
    assert h5.run(on, *steps, read(secsr), read(MAIN), read(seccr)) == [
        *(0, EOP, WORDS[0], PG | EOP)
    ]
    assert h5.interrupts(INTERRUPT_SECURE) == 1
    set_option(h5, 1, 0xC300_007C)
    assert h5.run(*open_, read(seccr), read(secsr)) == [0, 0]
    assert h5.run(write(0x3000_8000, 7), read(0x2000_8000), read(0x3000_8000, 1)) == [7, 7]


def test_code_runs_in_ram_at_both_addresses(h5: ChipProbe) -> None:
    code = (write(0x3000_8000, 0x4770_2007), call(0x2000_8000))  # movs r0, #7; bx lr
    again = (write(0x2000_8000, 0x4770_2008), call(0x3000_8000), call(0x2000_8000))
    assert h5.run(*code, *again) == [7, 8, 8]


def test_the_chip_file_has_right_complements() -> None:
    chip = load_chip("stm32h563xi")
    (options,) = (part for part in chip.flash if part.name == "options")
    for at in range(0, len(options.factory), 8):
        word, other = (
            int.from_bytes(options.factory[at + part : at + part + 4], "little") for part in (0, 4)
        )
        assert word == other ^ 0xFFFF_FFFF
