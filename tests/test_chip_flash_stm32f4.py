"""The flash of STM32F4 does what RM0090 and RM0383 say, seen by real code."""

from __future__ import annotations

import pytest
from chip_probe import ChipProbe, Step, enable_interrupt, read, sleep, wait, write

FLASH = 0x4002_3C00
KEYR, OPTKEYR, SR, CR, OPTCR = FLASH + 4, FLASH + 8, FLASH + 0xC, FLASH + 0x10, FLASH + 0x14
EOP, OPERR, WRPERR, PGPERR, PGSERR, BSY = (*(1 << 0, 1 << 1, 1 << 4, 1 << 6, 1 << 7, 1 << 16),)
PG, SER, MER, STRT, EOPIE, ERRIE, LOCK = (
    *(1 << 0, 1 << 1, 1 << 2, 1 << 16, 1 << 24, 1 << 25, 1 << 31),
)
X8, X16, X32, X64 = (size << 8 for size in range(4))
UNLOCK = (write(KEYR, 0x4567_0123), write(KEYR, 0xCDEF_89AB))
UNLOCK_OPTIONS = (write(OPTKEYR, 0x0819_2A3B), write(OPTKEYR, 0x4C5D_6E7F))
OPTLOCK, OPTSTRT = 1 << 0, 1 << 1
MAIN, SECTOR_5, OPTIONS = 0x0800_8000, 0x0802_0000, 0x1FFF_C000
INTERRUPT = 4
READY = wait(SR, BSY, 0)


@pytest.fixture
def f4() -> ChipProbe:
    return ChipProbe("stm32f411xe")


def erase(sector: int, flags: int = X32) -> tuple[Step, ...]:
    return (write(CR, SER | sector << 3 | flags), write(CR, SER | sector << 3 | flags | STRT))


@pytest.mark.parametrize(("psize", "size"), [(X8, 1), (X16, 2), (X32, 4)])
def test_as_many_bytes_are_programmed_as_psize_says(f4: ChipProbe, psize: int, size: int) -> None:
    value = 0x0403_0201 & ((1 << 8 * size) - 1)
    assert f4.run(*UNLOCK, write(CR, PG | psize), write(MAIN, value, size), read(SR)) == [0]
    (op,) = f4.engine.ops
    assert op.data == f4.flash(MAIN, size) == value.to_bytes(size, "little")


@pytest.mark.parametrize(
    ("chip", "sector", "offset", "length", "seconds"),
    [
        ("stm32f411xe", 2, 0x8000, 0x4000, 0.25),
        ("stm32f411xe", 4, 0x1_0000, 0x1_0000, 0.55),
        ("stm32f411xe", 7, 0x6_0000, 0x2_0000, 1.0),
        ("stm32f407xg", 11, 0xE_0000, 0x2_0000, 1.0),
    ],
)
def test_a_sector_is_erased(
    chip: str, sector: int, offset: int, length: int, seconds: float
) -> None:
    probe = ChipProbe(chip)
    probe.image[offset : offset + length] = bytes(length)
    probe.run(*UNLOCK, *erase(sector))
    (op,) = probe.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", offset, length)
    assert op.end - op.start == pytest.approx(seconds)
    assert probe.flash(0x0800_0000 + offset, length) == b"\xff" * length
    probe.run(*UNLOCK, *erase(sector, X8))
    (slow,) = probe.engine.ops
    assert slow.end - slow.start > op.end - op.start


def test_code_in_ram_sees_it_busy_and_the_bus_waits(f4: ChipProbe) -> None:
    store = write(MAIN, 0x1234, 4)
    steps = (*erase(2), read(SR), write(CR, PG | X32), store, read(SR), READY, read(MAIN))
    assert f4.run(*UNLOCK, *steps, from_ram=True) == [BSY, BSY, 0x1234]
    first, second = f4.engine.ops
    assert second.start >= first.end


@pytest.mark.parametrize(
    ("steps", "fault", "status"),
    [
        ((write(MAIN, 0),), "flash-locked", PGSERR),
        ((write(CR, PG),), "flash-locked", 0),
        ((*UNLOCK, write(MAIN, 0)), "flash-stray", PGSERR),
        ((*UNLOCK, write(CR, PG | X32), write(MAIN, 0, 2)), "flash-width", PGPERR),
        ((*UNLOCK, write(CR, PG | X8), write(MAIN, 0, 4)), "flash-width", PGPERR),
        ((*UNLOCK, write(CR, PG | X64), write(MAIN, 0, 8)), "flash-width", PGPERR),
        ((*UNLOCK, write(CR, PG | X32), write(MAIN + 2, 0, 4)), "flash-width", PGPERR),
        ((*UNLOCK, *erase(8)), "flash-command", PGSERR),
        ((*UNLOCK, write(CR, STRT)), "flash-command", PGSERR),
        ((*UNLOCK, write(CR, SER | MER | STRT)), "flash-command", PGSERR),
        ((write(KEYR, 1), *UNLOCK, write(CR, PG)), "flash-locked", 0),
        ((*UNLOCK, write(CR, LOCK), write(CR, PG)), "flash-locked", 0),
    ],
)
def test_what_is_wrong_is_refused(
    f4: ChipProbe, steps: tuple[Step, ...], fault: str, status: int
) -> None:
    assert f4.run(*steps, read(SR)) == [status]
    assert set(f4.faults) == {fault}
    assert f4.engine.ops == []


def test_cells_that_are_programmed_are_only_cleared_and_that_is_told(f4: ChipProbe) -> None:
    f4.image[0x8000:0x8004] = b"\x0f\x0f\x0f\x0f"
    assert f4.run(*UNLOCK, write(CR, PG | X32), write(MAIN, 0x3333_3333), read(MAIN)) == [
        0x0303_0303
    ]
    assert f4.faults == ["flash-dirty"]
    f4.run(*UNLOCK, write(CR, PG | X32), write(MAIN, 0x0101_0101))
    assert f4.faults == []


def test_eop_and_operr_are_set_and_interrupt_only_when_they_are_enabled(f4: ChipProbe) -> None:
    on = enable_interrupt(INTERRUPT)
    program = write(MAIN, 0)
    assert f4.run(on, *UNLOCK, write(CR, PG | X32), program, read(SR)) == [0]
    assert f4.interrupts(INTERRUPT) == 0
    flags = PG | X32 | EOPIE | ERRIE
    assert f4.run(on, *UNLOCK, write(CR, flags), program, read(SR)) == [EOP]
    assert f4.interrupts(INTERRUPT) == 1
    assert f4.run(on, *UNLOCK, write(CR, flags), write(MAIN, 0, 1), read(SR), write(SR, 0xFF)) == [
        OPERR | PGPERR
    ]
    assert f4.interrupts(INTERRUPT) == 1
    sleeps = (write(CR, SER | X32 | EOPIE | 2 << 3), write(CR, SER | X32 | EOPIE | 2 << 3 | STRT))
    assert f4.run(on, *UNLOCK, *sleeps, sleep(), read(SR), from_ram=True) == [EOP]


def test_option_bytes_protect_sectors_and_outlive_the_power(f4: ChipProbe) -> None:
    option = 0x7FFF_AAEC & ~(1 << 18)  # nWRP2
    steps = (write(OPTCR, option), write(OPTCR, option | OPTSTRT), READY, read(OPTCR))
    refused = (
        *UNLOCK,
        *erase(2),
        read(SR),
        write(CR, PG | X32),
        write(SECTOR_5, 0),
        read(SECTOR_5),
    )
    values = f4.run(*UNLOCK_OPTIONS, *steps, *refused)
    assert values == [option & 0x0FFF_FFFF, WRPERR, 0]
    assert f4.faults == ["flash-protected"]
    assert [op.kind for op in f4.engine.ops] == ["erase", "word", "word"]
    f4.image[0x8_0000:] = f4.flash(OPTIONS, 16)
    assert f4.run(read(OPTCR), *UNLOCK, write(CR, MER), write(CR, MER | STRT), read(SR)) == [
        (option & 0x0FFF_FFFF) | OPTLOCK,
        WRPERR,
    ]
    f4.run(write(OPTCR, 0x0FFF_AAEE))
    assert f4.faults == ["flash-locked"]


def test_leaving_read_protection_erases_all_and_level_2_is_for_ever(f4: ChipProbe) -> None:
    f4.image[0x8_0000:] = b"\xef\x55" + b"\xff" * 6 + b"\xff\x7f" + b"\xff" * 6
    leave = (write(OPTCR, 0x0FFF_AAEC), write(OPTCR, 0x0FFF_AAEC | OPTSTRT), READY)
    f4.run(*UNLOCK_OPTIONS, *leave, from_ram=True)
    assert [(op.kind, op.length) for op in f4.engine.ops] == [
        *(("erase", 0x8_0000), ("erase", 16), ("word", 16)),
    ]
    assert f4.flash(SECTOR_5, 4) == b"\xff" * 4
    f4.image[0x8_0001] = 0xCC
    f4.run(*UNLOCK_OPTIONS, *leave)
    assert set(f4.faults) == {"flash-protected"}
    assert f4.engine.ops == []
