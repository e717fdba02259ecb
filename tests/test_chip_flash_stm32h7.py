"""The flash of STM32H7 does what RM0433 says, seen by real code."""

from __future__ import annotations

import pytest
from chip_probe import ChipProbe, Step, call, enable_interrupt, read, wait, write

from unbrick.board import load_chip

FLASH, BANK_2 = 0x5200_2000, 0x100
KEYR, OPTKEYR, CR, SR, CCR = (FLASH + at for at in (4, 8, 0xC, 0x10, 0x14))
OPTCR, OPTSR_CUR, OPTSR_PRG, OPTCCR = (FLASH + at for at in (0x18, 0x1C, 0x20, 0x24))
WPSN_CUR, WPSN_PRG, ECC_FA = FLASH + 0x38, FLASH + 0x3C, FLASH + 0x60
BSY, WBNE, QW = 1 << 0, 1 << 1, 1 << 2
EOP, WRPERR, PGSERR, STRBERR, INCERR, DBECCERR = (1 << bit for bit in (16, 17, 18, 19, 21, 26))
LOCK, PG, SER, BER, FW, START = (1 << bit for bit in (0, 1, 2, 3, 6, 7))
OPTLOCK, OPTSTART, MER, OPTCHANGEERR, SWAP_BANK = 1 << 0, 1 << 1, 1 << 4, 1 << 30, 1 << 31
SHCSR, BUS_FAULTS, CCR_OF_CORE, BFHFNMIGN = 0xE000_ED24, 1 << 17, 0xE000_ED14, 1 << 8
SECTOR, BANK, OPTIONS = 0x2_0000, 0x10_0000, 0xF000_0000
MAIN, OTHER = 0x0802_0000, 0x0812_0000
INTERRUPT, NMI, BUS_FAULT = 4, -14, -11
FACTORY_OPTSR = 0x0006_AAD0
WORDS = tuple(0x0403_0201 + 0x0404_0404 * at for at in range(8))


def at(register: int, bank: int) -> int:
    return register + BANK_2 * bank


def unlock(bank: int = 0) -> tuple[Step, ...]:
    return (write(at(KEYR, bank), 0x4567_0123), write(at(KEYR, bank), 0xCDEF_89AB))


def word(address: int) -> tuple[Step, ...]:
    return tuple(write(address + 4 * part, value) for part, value in enumerate(WORDS))


def erase(sector: int, bank: int = 0) -> tuple[Step, ...]:
    return (write(at(CR, bank), SER | sector << 8 | START),)


UNLOCK_OPTIONS = (write(OPTKEYR, 0x0819_2A3B), write(OPTKEYR, 0x4C5D_6E7F))
PROGRAM = (write(CR, PG), *word(MAIN))


@pytest.fixture
def h7() -> ChipProbe:
    return ChipProbe("stm32h743xi")


def set_option(probe: ChipProbe, number: int, value: int) -> None:
    """An option word as it lies in the flash, with its complement."""
    place = probe.chip.image_offset(OPTIONS) + 8 * number
    pair = (value, value ^ 0xFFFF_FFFF)
    probe.image[place : place + 8] = b"".join(part.to_bytes(4, "little") for part in pair)


def test_eight_words_are_programmed_as_one(h7: ChipProbe) -> None:
    assert h7.run(*unlock(), *PROGRAM, read(SR), read(MAIN + 28)) == [EOP, WORDS[7]]
    (op,) = h7.engine.ops
    assert op.data == h7.flash(MAIN, 32) == bytes(range(1, 33))
    assert h7.interrupts(NMI) == 0


def test_a_part_is_programmed_when_that_is_forced(h7: ChipProbe) -> None:
    steps = (write(CR, PG), write(MAIN + 4, 0, 1), read(SR), write(CR, PG | FW))
    assert h7.run(*unlock(), *steps) == [WBNE]
    assert h7.flash(MAIN, 32) == b"\xff" * 4 + b"\0" + b"\xff" * 27


@pytest.mark.parametrize(
    ("bank", "flags", "offset", "length"),
    [
        (0, SER | 7 << 8, 7 * SECTOR, SECTOR),
        (1, SER | 3 << 8, BANK + 3 * SECTOR, SECTOR),
        (1, BER, BANK, BANK),
    ],
)
def test_sectors_and_banks_are_erased(
    h7: ChipProbe, bank: int, flags: int, offset: int, length: int
) -> None:
    h7.image[offset : offset + length] = bytes(length)
    h7.run(*unlock(bank), write(at(CR, bank), flags | START), read(0x0800_0000 + offset))
    assert [(op.kind, op.offset, op.length) for op in h7.engine.ops] == [("erase", offset, length)]
    h7.go_on()
    assert h7.flash(0x0800_0000 + offset, length) == b"\xff" * length
    assert h7.faults == []


@pytest.mark.slow
def test_all_is_erased_when_both_banks_are_open(h7: ChipProbe) -> None:
    everything = (*UNLOCK_OPTIONS, *unlock(0), *unlock(1), write(OPTCR, MER))
    h7.run(*everything, wait(SR, BSY, 0), wait(at(SR, 1), BSY, 0), from_ram=True)
    assert sorted(op.offset for op in h7.engine.ops) == [0, BANK]


def test_each_bank_is_busy_by_itself(h7: ChipProbe) -> None:
    look = (read(SR), read(at(SR, 1)))
    steps = (*unlock(0), *unlock(1), *erase(3, 1), *look, *PROGRAM, *look)
    busy = BSY | QW
    assert h7.run(*steps, wait(at(SR, 1), BSY, 0), *look) == [0, busy, EOP, busy, EOP, EOP]


@pytest.mark.parametrize(
    ("steps", "fault", "status"),
    [
        ((write(MAIN, 0),), "flash-locked", PGSERR),
        ((write(CR, PG),), "flash-locked", 0),
        ((*unlock(1), write(CR, PG)), "flash-locked", 0),
        ((*unlock(), write(MAIN, 0)), "flash-stray", PGSERR),
        ((*unlock(), write(CR, PG), write(MAIN, 0), write(MAIN + 32, 0)), "flash-width", INCERR),
        ((*unlock(), write(CR, PG), write(MAIN, 0), write(MAIN, 0)), "flash-width", STRBERR),
        ((*unlock(), write(CR, START)), "flash-command", PGSERR),
        ((*unlock(), write(CR, SER | PG | START)), "flash-command", PGSERR),
        ((write(KEYR, 1), *unlock(), write(CR, PG)), "flash-locked", 0),
        ((*unlock(), write(CR, LOCK), write(CR, PG)), "flash-locked", 0),
        ((write(WPSN_PRG, 0),), "flash-locked", 0),
        ((write(OPTCR, OPTSTART),), "flash-locked", 0),
        ((*UNLOCK_OPTIONS, write(OPTCR, OPTLOCK), write(OPTCR, OPTSTART)), "flash-locked", 0),
    ],
)
def test_what_is_wrong_is_refused(
    h7: ChipProbe, steps: tuple[Step, ...], fault: str, status: int
) -> None:
    assert h7.run(*steps, read(SR)) == [status]
    assert set(h7.faults) == {fault}
    assert h7.engine.ops == []


@pytest.mark.parametrize("bank", [0, 1])
def test_flags_are_cleared_and_interrupt_when_that_is_enabled(h7: ChipProbe, bank: int) -> None:
    on = enable_interrupt(INTERRUPT)
    place = (MAIN, OTHER)[bank]
    steps = (*unlock(bank), write(at(CR, bank), PG | EOP), *word(place))
    assert h7.run(
        on, *steps, wait(at(SR, bank), BSY, 0), write(at(CCR, bank), EOP), read(at(SR, bank))
    ) == [0]
    assert h7.interrupts(INTERRUPT) == 1


@pytest.mark.parametrize(("address", "bank"), [(MAIN + 32, 0), (OTHER + 32, 1)])
def test_a_read_of_a_wrong_word_is_a_bus_fault(h7: ChipProbe, address: int, bank: int) -> None:
    h7.broken = [address]
    steps = (write(SHCSR, BUS_FAULTS), read(address - 4), read(address + 16), read(SR))
    assert len(h7.run(*steps, seconds=1e-3)) == 1  # its handler returns to the same instruction
    assert h7.interrupts(BUS_FAULT) > 1
    assert h7.interrupts(NMI) == 0
    assert h7.faults == []  # of the firmware


def test_a_bus_fault_that_is_masked_leaves_the_flag(h7: ChipProbe) -> None:
    code = (0xB671, 0x6800, 0xB661, 0x4770)  # cpsid f; ldr r0, [r0]; cpsie f; bx lr
    h7.image[0x6000:0x6008] = b"".join(part.to_bytes(2, "little") for part in code)
    h7.image[0x2_0020:0x2_0024] = b"\x33" * 4
    h7.broken = [MAIN + 32]
    masked = (write(CCR_OF_CORE, 0x200 | BFHFNMIGN), call(0x0800_6000, MAIN + 32))
    clear = (write(CCR, DBECCERR), read(SR))
    told = h7.run(*masked, read(SR), read(ECC_FA), *clear)
    assert told == [0x3333_3333, DBECCERR, 0x1001, 0]


def test_a_word_over_another_one_is_a_fault_and_no_word(h7: ChipProbe) -> None:
    h7.image[0x2_0000:0x2_0020] = b"\xf5" * 32
    h7.run(*unlock(), *PROGRAM, write(SHCSR, BUS_FAULTS), read(MAIN), seconds=1e-2)
    assert h7.faults == ["flash-dirty"]
    assert h7.interrupts(BUS_FAULT) > 1


@pytest.mark.parametrize("bank", [0, 1])
def test_a_sector_is_protected(h7: ChipProbe, bank: int) -> None:
    set_option(h7, 2 + bank, 0xFF & ~(1 << 3))
    assert h7.run(*unlock(bank), *erase(3, bank), read(at(SR, bank))) == [WRPERR]
    assert h7.run(*unlock(bank), write(at(CR, bank), BER | START), read(at(SR, bank))) == [WRPERR]
    h7.run(*unlock(bank), *erase(4, bank), wait(at(SR, bank), BSY, 0), from_ram=True)
    assert h7.faults == []


def test_option_words_are_in_force_when_they_are_programmed(h7: ChipProbe) -> None:
    protect = (*UNLOCK_OPTIONS, write(at(WPSN_PRG, 1), 0xF7), read(at(WPSN_CUR, 1)))
    steps = (*protect, write(OPTCR, OPTSTART), read(at(WPSN_CUR, 1)), read(WPSN_CUR))
    assert h7.run(*steps, *unlock(1), *erase(3, 1), read(at(SR, 1))) == [0xFF, 0xF7, 0xFF, WRPERR]


def test_a_cut_between_option_words_is_seen(h7: ChipProbe) -> None:
    h7.load(*UNLOCK_OPTIONS, write(WPSN_PRG, 0), write(OPTCR, OPTSTART))
    h7.engine.forget()
    h7.engine.cut_before_op(3)
    h7.engine.power_on()
    h7.go_on(10.0)
    h7.engine.power_off()
    first = h7.chip.image_offset(OPTIONS)
    h7.image[first:] = h7.engine.read_nor()[first:]
    told = h7.run(read(OPTSR_CUR), write(OPTCCR, OPTCHANGEERR), read(OPTSR_CUR))
    assert told == [FACTORY_OPTSR | OPTCHANGEERR, FACTORY_OPTSR]


def test_banks_are_swapped_with_their_registers_at_the_next_reset(h7: ChipProbe) -> None:
    h7.image[0x2_0000:0x2_0004] = b"\x11" * 4
    h7.image[BANK + 0x2_0000 : BANK + 0x2_0004] = b"\x22" * 4
    look = (read(OPTCR), read(MAIN), read(OTHER))
    h7.load(*look, *unlock(1), *erase(5, 1), wait(at(SR, 1), BSY, 0), read(at(SR, 1)))
    h7.image[BANK : BANK + 0x2000] = h7.engine.read_nor()[:0x2000]
    swap = (*UNLOCK_OPTIONS, write(OPTSR_PRG, FACTORY_OPTSR | SWAP_BANK), write(OPTCR, OPTSTART))
    h7.load(*swap, *look)
    h7.engine.forget()
    h7.engine.power_on()
    assert h7.go_on() == [0, 0x1111_1111, 0x2222_2222]
    h7.engine.press_reset()
    assert h7.go_on() == [OPTLOCK | SWAP_BANK, 0x2222_2222, 0x1111_1111, EOP]
    *_, op = h7.engine.ops
    assert (op.kind, op.offset) == ("erase", 5 * SECTOR)


def test_the_chip_file_has_right_complements() -> None:
    chip = load_chip("stm32h743xi")
    (options,) = (part for part in chip.flash if part.name == "options")
    for place in range(0, len(options.factory), 8):
        pair = (options.factory[place : place + 4], options.factory[place + 4 : place + 8])
        value, other = (int.from_bytes(part, "little") for part in pair)
        assert value == other ^ 0xFFFF_FFFF
