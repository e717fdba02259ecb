"""The flash of STM32L4 does what RM0351 and RM0394 say, seen by real code."""

from __future__ import annotations

import pytest
from chip_probe import ChipProbe, Step, call, enable_interrupt, read, sleep, wait, write

FLASH = 0x4002_2000
KEYR, OPTKEYR, SR, CR, ECCR = FLASH + 8, FLASH + 0xC, FLASH + 0x10, FLASH + 0x14, FLASH + 0x18
OPTR, WRP1AR, WRP2BR = FLASH + 0x20, FLASH + 0x2C, FLASH + 0x50
EOP, OPERR, PROGERR, WRPERR = 1 << 0, 1 << 1, 1 << 3, 1 << 4
PGAERR, SIZERR, PGSERR, OPTVERR, BSY = 1 << 5, 1 << 6, 1 << 7, 1 << 15, 1 << 16
PG, PER, MER1, BKER, MER2 = 1 << 0, 1 << 1, 1 << 2, 1 << 11, 1 << 15
STRT, OPTSTRT, FSTPG, EOPIE, ERRIE = 1 << 16, 1 << 17, 1 << 18, 1 << 24, 1 << 25
OBL_LAUNCH, OPTLOCK, LOCK = 1 << 27, 1 << 30, 1 << 31
ECCD, ECC_BANK_2 = 1 << 31, 1 << 19
UNLOCK = (write(KEYR, 0x4567_0123), write(KEYR, 0xCDEF_89AB))
UNLOCK_OPTIONS = (write(OPTKEYR, 0x0819_2A3B), write(OPTKEYR, 0x4C5D_6E7F))
PAGE, BANK = 0x800, 0x8_0000
MAIN, OTHER, OPTIONS = 0x0800_8000, 0x0808_8000, 0x1FFF_7800
INTERRUPT, NMI = 4, -14
READY = wait(SR, BSY, 0)
FACTORY_OPTR = 0xFFEF_F8AA
VALUE = 0x0807_0605_0403_0201
PROGRAM = (write(CR, PG), write(MAIN, VALUE, 8))


@pytest.fixture
def l4() -> ChipProbe:
    return ChipProbe("stm32l476xg")


def erase(page: int, flags: int = 0) -> tuple[Step, ...]:
    return (write(CR, PER | page << 3 | flags), write(CR, PER | page << 3 | flags | STRT))


def options_at(probe: ChipProbe, register: int, bank: int = 0) -> tuple[int, int]:
    """An option word and its complement, as they lie in the flash."""
    place = {OPTR: 0, WRP1AR: 0x18, WRP2BR: 0x20}[register]
    cells = probe.flash(OPTIONS + bank * 0x8000 + place, 8)
    return int.from_bytes(cells[:4], "little"), int.from_bytes(cells[4:], "little")


def test_two_words_are_programmed_as_a_double_word(l4: ChipProbe) -> None:
    assert l4.run(*UNLOCK, *PROGRAM, read(SR), read(MAIN), read(MAIN + 4)) == [
        *(0, 0x0403_0201, 0x0807_0605)
    ]
    (op,) = l4.engine.ops
    assert op.data == l4.flash(MAIN, 8) == VALUE.to_bytes(8, "little")
    assert op.end - op.start == pytest.approx(82e-6)
    assert l4.interrupts(NMI) == 0


@pytest.mark.parametrize(
    ("flags", "offset", "length"),
    [
        (PER | 16 << 3, 16 * PAGE, PAGE),
        (PER | BKER | 255 << 3, BANK + 255 * PAGE, PAGE),
        (MER2, BANK, BANK),
    ],
)
def test_pages_and_banks_are_erased(l4: ChipProbe, flags: int, offset: int, length: int) -> None:
    l4.image[offset : offset + length] = bytes(length)
    l4.run(*UNLOCK, write(CR, flags), write(CR, flags | STRT), read(0x0800_0000 + offset))
    (op,) = l4.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", offset, length)
    assert l4.flash(0x0800_0000 + offset, length) == b"\xff" * length
    assert l4.interrupts(NMI) == 0


def test_all_is_erased_at_once_with_the_check_cells(l4: ChipProbe) -> None:
    l4.broken = [OTHER]
    both = (write(CR, MER1 | MER2), write(CR, MER1 | MER2 | STRT))
    l4.run(*UNLOCK, *both, from_ram=True)
    assert [(op.offset, op.length) for op in l4.engine.ops] == [(0, 2 * BANK)]
    assert l4.engine.read_nor()[: l4.chip.image_offset(OPTIONS)].strip(b"\xff") == b""


def test_the_core_goes_on_while_the_other_bank_is_busy(l4: ChipProbe) -> None:
    assert l4.run(*UNLOCK, *erase(16, BKER), read(SR), READY, read(SR)) == [BSY, 0]
    assert l4.run(*UNLOCK, *erase(16), read(SR)) == [0]
    steps = (*erase(16), read(SR), write(CR, PG), write(MAIN, VALUE, 8), read(SR), READY)
    assert l4.run(*UNLOCK, *steps, from_ram=True) == [BSY, BSY]
    first, second = l4.engine.ops
    assert second.start >= first.end


@pytest.mark.parametrize(
    ("steps", "fault", "status"),
    [
        ((write(MAIN, VALUE, 8),), "flash-locked", PGSERR),
        ((write(CR, PG),), "flash-locked", 0),
        ((*UNLOCK, write(MAIN, VALUE, 8)), "flash-stray", PGSERR),
        ((*UNLOCK, write(CR, PG | PER), write(MAIN, VALUE, 8)), "flash-stray", PGSERR),
        ((*UNLOCK, write(CR, FSTPG), write(MAIN, VALUE, 8)), "flash-stray", PGSERR),
        ((*UNLOCK, write(CR, PG), write(MAIN, 0, 2)), "flash-width", SIZERR),
        ((*UNLOCK, write(CR, PG), write(MAIN, 0, 1)), "flash-width", SIZERR),
        ((*UNLOCK, write(CR, PG), write(MAIN + 4, 0)), "flash-width", PGAERR),
        ((*UNLOCK, write(CR, PG), write(MAIN, 0), write(MAIN + 12, 0)), "flash-width", PGAERR),
        ((*UNLOCK, write(CR, PG), write(MAIN, 0), write(MAIN, 0)), "flash-width", PGAERR),
        ((*UNLOCK, write(CR, STRT)), "flash-command", 0),
        ((*UNLOCK, write(CR, PER | MER1 | STRT)), "flash-command", PGSERR),
        ((*UNLOCK, write(CR, PER | PG | STRT)), "flash-command", PGSERR),
        ((write(KEYR, 1), *UNLOCK, write(CR, PG)), "flash-locked", 0),
        ((*UNLOCK, write(CR, LOCK), write(CR, PG)), "flash-locked", 0),
        ((*UNLOCK, write(OPTR, 0)), "flash-locked", 0),
        ((*UNLOCK, write(CR, OPTSTRT)), "flash-locked", 0),
    ],
)
def test_what_is_wrong_is_refused(
    l4: ChipProbe, steps: tuple[Step, ...], fault: str, status: int
) -> None:
    assert l4.run(*steps, read(SR)) == [status]
    assert set(l4.faults) == {fault}
    assert l4.engine.ops == []


def test_a_double_word_is_programmed_once_but_zeros_go_over_it(l4: ChipProbe) -> None:
    l4.image[0x8000:0x8008] = b"\x0f" * 8
    steps = (*PROGRAM, read(SR), read(MAIN), write(SR, PROGERR))
    zeros = (write(CR, 0), write(CR, PG), write(MAIN, 0, 8), read(SR), read(MAIN))
    assert l4.run(*UNLOCK, *steps, *zeros) == [PROGERR, 0x0F0F_0F0F, 0, 0]
    assert l4.faults == ["flash-dirty"]
    assert len(l4.engine.ops) == 1
    assert l4.interrupts(NMI) == 0


def test_an_error_flag_that_was_not_cleared_refuses_what_follows(l4: ChipProbe) -> None:
    wrong = (write(CR, PG), write(MAIN + 4, 0))
    assert l4.run(*UNLOCK, *wrong, *PROGRAM, read(SR)) == [PGAERR | PGSERR]
    assert l4.faults == ["flash-width", "flash-command", "flash-command"]
    assert l4.run(*UNLOCK, *wrong, *erase(16), read(SR)) == [PGAERR | PGSERR]
    l4.run(*UNLOCK, *wrong, write(SR, PGAERR), *PROGRAM)
    assert len(l4.engine.ops) == 1


def test_half_a_double_word_is_forgotten_with_pg(l4: ChipProbe) -> None:
    half = (write(CR, PG), write(MAIN, 0), write(CR, 0), write(CR, PG))
    assert l4.run(*UNLOCK, *half, write(MAIN + 4, 0), read(SR)) == [PGAERR]
    assert l4.engine.ops == []


def test_eop_and_operr_are_set_and_interrupt_only_when_they_are_enabled(l4: ChipProbe) -> None:
    on = enable_interrupt(INTERRUPT)
    assert l4.run(on, *UNLOCK, *PROGRAM, read(SR)) == [0]
    assert l4.interrupts(INTERRUPT) == 0
    told = (write(CR, PG | EOPIE | ERRIE), write(MAIN, VALUE, 8))
    assert l4.run(on, *UNLOCK, *told, read(SR)) == [EOP]
    assert l4.interrupts(INTERRUPT) == 1
    wrong = (write(CR, PG | EOPIE | ERRIE), write(MAIN, 0, 1))
    assert l4.run(on, *UNLOCK, *wrong, read(SR)) == [OPERR | SIZERR]
    assert l4.interrupts(INTERRUPT) == 1
    assert l4.run(on, *UNLOCK, *erase(16, EOPIE), sleep(), read(SR), from_ram=True) == [EOP]


@pytest.mark.parametrize(("address", "bank"), [(MAIN + 8, 0), (OTHER + 8, ECC_BANK_2)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_read_of_a_wrong_double_word_is_an_nmi(
    l4: ChipProbe, address: int, bank: int, size: int
) -> None:
    l4.broken = [address]
    steps = (read(ECCR), read(address - 8), read(address + 4, size), read(ECCR))
    values = l4.run(*steps, write(ECCR, ECCD), read(ECCR))
    assert values[0] == values[-1] == 0
    assert values[3] == ECCD | bank | 0x8008
    assert l4.interrupts(NMI) == 1


def test_the_nmi_comes_again_only_when_its_flag_was_cleared(l4: ChipProbe) -> None:
    l4.broken = [MAIN, MAIN + 16]
    l4.run(read(MAIN), read(MAIN + 16), read(ECCR))
    assert l4.interrupts(NMI) == 1
    assert l4.results[-1] == ECCD | 0x8000
    l4.run(read(MAIN), write(ECCR, ECCD), read(MAIN + 16), read(ECCR))
    assert l4.interrupts(NMI) == 2
    assert l4.results[-1] == ECCD | 0x8010


def test_the_nmi_is_taken_behind_the_instruction_that_reads(l4: ChipProbe) -> None:
    """What the handler wrote is there when the next instruction of the same block looks."""
    count = 0x2000_0000 + 512 * 4 + 2 * 4  # where the probe counts its NMIs
    l4.broken = [MAIN]
    code = (
        *(0x6800, 0x6809),  # ldr r0, [r0]; ldr r1, [r1]
        *(0x4608, 0x4770),  # mov r0, r1; bx lr
    )
    place = 0x0800_6000
    program = b"".join(word.to_bytes(2, "little") for word in code)
    l4.image[0x6000 : 0x6000 + len(program)] = program
    assert l4.run(call(place, MAIN, count)) == [1]


def test_code_with_a_wrong_double_word_is_an_nmi(l4: ChipProbe) -> None:
    l4.image[0x6000:0x6004] = bytes.fromhex("07207047")  # movs r0, #7; bx lr
    l4.broken = [0x0800_6000]
    assert l4.run(call(0x0800_6000), read(ECCR)) == [7, ECCD | 0x6000]
    assert l4.interrupts(NMI) == 1


def test_a_wrong_double_word_is_not_blank(l4: ChipProbe) -> None:
    l4.broken = [MAIN]
    assert l4.run(*UNLOCK, *PROGRAM, read(SR)) == [PROGERR]
    assert l4.faults == ["flash-dirty"]
    l4.run(*UNLOCK, *erase(16), *PROGRAM, read(MAIN))
    assert l4.results == [0x0403_0201]
    assert l4.interrupts(NMI) == 0


def test_option_bytes_are_loaded_by_a_launch_and_outlive_the_power(l4: ChipProbe) -> None:
    protect = (write(WRP1AR, 0xFF10_FF10), write(CR, OPTSTRT))
    steps = (*UNLOCK, *UNLOCK_OPTIONS, *protect, read(SR), *erase(16), read(SR))
    assert l4.run(*steps) == [0, 0]  # not in force before they are loaded
    l4.engine.press_reset()
    assert l4.go_on() == [0, 0]  # which a reset does not do
    assert l4.run(*steps) == [0, 0]
    kinds = [op.kind for op in l4.engine.ops]
    assert kinds == ["erase"] * 2 + ["word"] * 9 + ["erase"]
    assert options_at(l4, WRP1AR) == (0xFF10_FF10, 0x00EF_00EF)
    assert options_at(l4, WRP2BR, 1) == (0xFF00_FFFF, 0x00FF_0000)
    first = l4.chip.image_offset(OPTIONS)
    l4.image[first:] = l4.engine.read_nor()[first:]
    refused = (*UNLOCK, *erase(16), read(SR), write(SR, WRPERR), *PROGRAM, read(SR))
    assert l4.run(*refused, *erase(15)) == [WRPERR, WRPERR]
    assert l4.faults == ["flash-protected", "flash-protected", "flash-command"]
    mass = (*UNLOCK, write(CR, MER1 | STRT), read(SR))
    assert l4.run(*mass) == [WRPERR]
    assert l4.run(*UNLOCK, write(CR, MER2 | STRT), READY, read(SR)) == [0]


def test_a_launch_resets_the_chip(l4: ChipProbe) -> None:
    l4.run(*UNLOCK, *UNLOCK_OPTIONS, write(CR, OBL_LAUNCH), seconds=0.01)
    assert l4.engine.resets > 0


def test_an_option_word_without_its_complement_is_told(l4: ChipProbe) -> None:
    place = l4.chip.image_offset(OPTIONS)
    l4.image[place] = 0xCC
    assert l4.run(read(SR), read(OPTR), write(SR, OPTVERR), read(SR)) == [OPTVERR, 0xFFFF_F8FF, 0]


def test_leaving_read_protection_erases_all_and_level_2_is_for_ever(l4: ChipProbe) -> None:
    place = l4.chip.image_offset(OPTIONS)
    l4.image[place], l4.image[place + 4] = 0x55, 0xAA
    leave = (*UNLOCK, *UNLOCK_OPTIONS, write(OPTR, FACTORY_OPTR), write(CR, OPTSTRT), READY)
    l4.run(*leave, from_ram=True)
    assert (l4.engine.ops[0].kind, l4.engine.ops[0].length) == ("erase", 2 * BANK)
    l4.image[place], l4.image[place + 4] = 0xCC, 0x33
    assert l4.run(*leave, read(SR)) == [WRPERR]
    assert l4.faults == ["flash-protected"]
    assert l4.engine.ops == []


def test_a_cut_between_options_is_seen(l4: ChipProbe) -> None:
    l4.load(*UNLOCK, *UNLOCK_OPTIONS, write(WRP1AR, 0xFF10_FF10), write(CR, OPTSTRT))
    l4.engine.forget()
    l4.engine.cut_before_op(3)
    l4.engine.power_on()
    l4.go_on(1.0)
    l4.engine.power_off()
    first = l4.chip.image_offset(OPTIONS)
    l4.image[first:] = l4.engine.read_nor()[first:]
    assert l4.run(read(SR), read(OPTR)) == [OPTVERR, FACTORY_OPTR]


def test_one_bank_is_all_of_the_flash() -> None:
    one = ChipProbe("stm32l432xc")
    assert one.run(*UNLOCK, *erase(127), read(SR)) == [0]  # the core stood still
    for refused in (erase(16, BKER), erase(128), (write(CR, MER2), write(CR, MER2 | STRT))):
        one.run(*UNLOCK, *refused)
        assert one.faults == ["flash-command"]
    one.run(*UNLOCK, write(CR, MER1), write(CR, MER1 | STRT), from_ram=True)
    assert [(op.offset, op.length) for op in one.engine.ops] == [(0, 0x4_0000)]


def test_an_area_of_one_bank_has_numbers_of_seven_bits() -> None:
    one = ChipProbe("stm32l432xc")
    place = one.chip.image_offset(OPTIONS + 0x18)
    word = 0xFF90_FF90  # pages 16 to 16; the upper bits are reserved
    one.image[place : place + 8] = word.to_bytes(4, "little") + (~word & 0xFFFF_FFFF).to_bytes(
        4, "little"
    )
    assert one.run(*UNLOCK, *erase(16), read(SR)) == [WRPERR]
    one.run(*UNLOCK, *erase(17))
    assert one.faults == []
