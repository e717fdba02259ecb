"""The flash of STM32F1 does what RM0008 and PM0075 say, seen by real code."""

from __future__ import annotations

import pytest
from chip_probe import ChipProbe, Step, enable_interrupt, read, sleep, wait, write

FLASH = 0x4002_2000
KEYR, OPTKEYR, SR, CR, AR = FLASH + 4, FLASH + 8, FLASH + 0xC, FLASH + 0x10, FLASH + 0x14
OBR, WRPR = FLASH + 0x1C, FLASH + 0x20
BSY, PGERR, WRPRTERR, EOP = 1 << 0, 1 << 2, 1 << 4, 1 << 5
PG, PER, MER, OPTPG, OPTER, STRT, LOCK, OPTWRE, ERRIE, EOPIE = (
    *(1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 9, 1 << 10, 1 << 12),
)
KEYS = (0x4567_0123, 0xCDEF_89AB)
UNLOCK = tuple(write(KEYR, key) for key in KEYS)
UNLOCK_OPTIONS = (*UNLOCK, *(write(OPTKEYR, key) for key in KEYS))
MAIN, PAGE, OPTIONS = 0x0800_8000, 1024, 0x1FFF_F800
INTERRUPT = 4
READY = wait(SR, BSY, 0)


@pytest.fixture
def f1() -> ChipProbe:
    return ChipProbe("stm32f103xb")


def erase(address: int) -> tuple[Step, ...]:
    return (write(CR, PER), write(AR, address), write(CR, PER | STRT))


def erase_options() -> tuple[Step, ...]:
    return (write(CR, OPTER | OPTWRE), write(CR, OPTER | OPTWRE | STRT), READY)


def program_option(offset: int, value: int) -> tuple[Step, ...]:
    return (write(CR, OPTPG | OPTWRE), write(OPTIONS + offset, value, 2), READY)


def test_half_words_are_programmed_and_a_page_erased(f1: ChipProbe) -> None:
    f1.image[0x8400:0x8402] = b"\0\0"
    values = f1.run(
        *(*UNLOCK, write(CR, PG), write(MAIN, 0x1234, 2), read(SR), read(MAIN)),
        *(write(SR, EOP), read(SR), *erase(MAIN + 6), READY, read(SR), read(MAIN)),
    )
    assert values == [EOP, 0xFFFF_1234, 0, EOP, 0xFFFF_FFFF]
    assert [(op.kind, op.offset, op.length, op.data) for op in f1.engine.ops] == [
        ("word", 0x8000, 2, b"\x34\x12"),
        ("erase", 0x8000, PAGE, b""),
    ]
    assert f1.flash(MAIN + PAGE, 2) == b"\0\0"
    assert f1.faults == []


def test_code_in_flash_waits_and_code_in_ram_sees_it_busy(f1: ChipProbe) -> None:
    steps = (*UNLOCK, write(CR, PG), write(MAIN, 0, 2), read(SR), read(MAIN), READY, read(MAIN))
    assert f1.run(*steps) == [EOP, 0xFFFF_0000, 0xFFFF_0000]
    assert f1.run(*steps, from_ram=True) == [BSY, 0xFFFF_FFFF, 0xFFFF_0000]
    (op,) = f1.engine.ops
    assert op.end - op.start == pytest.approx(53e-6)


def test_a_store_during_an_operation_waits_for_its_end(f1: ChipProbe) -> None:
    stores = (write(MAIN, 1, 2), write(MAIN + 2, 2, 2))
    assert f1.run(*UNLOCK, write(CR, PG), *stores, READY, read(MAIN), from_ram=True) == [
        0x0002_0001
    ]
    first, second = f1.engine.ops
    assert second.start >= first.end
    assert f1.faults == []


def test_an_erase_during_an_operation_is_refused(f1: ChipProbe) -> None:
    f1.run(*UNLOCK, *erase(MAIN), *erase(MAIN + PAGE), READY, from_ram=True)
    assert f1.faults == ["flash-busy"]
    assert [op.offset for op in f1.engine.ops] == [0x8000]


@pytest.mark.parametrize(
    ("steps", "fault", "status"),
    [
        ((write(CR, PG), write(MAIN, 0, 2)), "flash-locked", 0),
        ((*UNLOCK, write(MAIN, 0, 2)), "flash-stray", 0),
        ((*UNLOCK, write(CR, PG), write(MAIN, 0, 4)), "flash-width", 0),
        ((*UNLOCK, write(CR, PG), write(MAIN, 0, 1)), "flash-width", 0),
        ((*UNLOCK, write(CR, PG), write(MAIN + PAGE, 0x10, 2)), "flash-dirty", PGERR),
        ((*UNLOCK, write(CR, STRT)), "flash-command", 0),
        ((*UNLOCK, *erase(0x2000_0000)), "flash-command", 0),
        ((write(KEYR, 1), *UNLOCK, write(CR, PG), write(MAIN, 0, 2)), "flash-locked", 0),
        ((*UNLOCK, write(CR, LOCK), write(CR, PG), write(MAIN, 0, 2)), "flash-locked", 0),
    ],
)
def test_what_is_wrong_is_refused(
    f1: ChipProbe, steps: tuple[Step, ...], fault: str, status: int
) -> None:
    f1.image[0x8400:0x8402] = b"\x11\x11"
    assert f1.run(*steps, read(SR)) == [status]
    assert set(f1.faults) == {fault}
    assert f1.engine.ops == []
    assert f1.flash(MAIN, 2) == b"\xff\xff"


def test_zero_may_be_programmed_over_anything(f1: ChipProbe) -> None:
    f1.image[0x8000:0x8002] = b"\x12\x34"
    assert f1.run(*UNLOCK, write(CR, PG), write(MAIN, 0, 2), read(SR)) == [EOP]
    assert f1.flash(MAIN, 2) == b"\0\0"


def test_all_of_the_main_flash_is_erased_at_once(f1: ChipProbe) -> None:
    f1.run(*UNLOCK, write(CR, MER), write(CR, MER | STRT), READY, from_ram=True)
    (op,) = f1.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", 0, 128 * 1024)
    assert f1.engine.read_nor()[: op.length] == b"\xff" * op.length
    assert f1.flash(OPTIONS, 2) == b"\xa5\x5a"


def test_its_end_and_its_refusal_interrupt(f1: ChipProbe) -> None:
    on = enable_interrupt(INTERRUPT)
    steps = (write(CR, PG | EOPIE), write(MAIN, 0, 2), sleep(), read(SR))
    assert f1.run(on, *UNLOCK, *steps, from_ram=True) == [EOP]
    assert f1.interrupts(INTERRUPT) == 1
    refused = (write(CR, PG | ERRIE), write(MAIN, 1, 2), write(MAIN, 3, 2))
    f1.run(on, *UNLOCK, *refused)
    assert f1.interrupts(INTERRUPT) == 1
    f1.run(on, *UNLOCK, write(CR, PG), *refused[1:])
    assert f1.interrupts(INTERRUPT) == 0


def test_option_bytes_outlive_the_power_and_protect_pages_after_the_next_reset(
    f1: ChipProbe,
) -> None:
    protect = (*UNLOCK_OPTIONS, *erase_options(), *program_option(0, 0xA5))
    assert f1.run(*protect, *program_option(8, 0xFE), read(WRPR), read(OBR)) == [
        0xFFFF_FFFF,
        0x03FF_FC1C,
    ]
    assert f1.flash(OPTIONS, 10) == b"\xa5\x5a" + b"\xff" * 6 + b"\xfe\x01"
    assert [op.offset for op in f1.engine.ops] == [0x2_0000, 0x2_0000, 0x2_0008]
    options = f1.flash(OPTIONS, 16)
    f1.image[0x2_0000:] = options
    program = (write(CR, PG), write(0x0800_0C00, 0, 2), read(SR), write(SR, WRPRTERR))
    others = (*erase(0x0800_0C00), read(SR), write(CR, PG), write(MAIN, 0, 2), read(MAIN, 2))
    assert f1.run(read(WRPR), *UNLOCK, *program, *others) == [
        *(0xFFFF_FFFE, WRPRTERR, WRPRTERR, 0),
    ]
    assert f1.faults == ["flash-protected", "flash-protected"]
    f1.run(*UNLOCK, write(CR, MER), write(CR, MER | STRT))
    assert f1.faults == ["flash-protected"]


def test_option_bytes_are_refused_without_their_own_key(f1: ChipProbe) -> None:
    f1.run(*UNLOCK, write(CR, OPTPG), write(OPTIONS + 8, 0, 2))
    assert f1.faults == ["flash-locked"]
    f1.run(*UNLOCK_OPTIONS, *program_option(0, 0x12))
    assert f1.faults == ["flash-dirty"]
    assert f1.engine.ops == []


def test_erased_option_bytes_protect_from_being_read_and_leaving_that_erases_all(
    f1: ChipProbe,
) -> None:
    f1.image[0x2_0000:] = b"\xff" * 16
    assert f1.run(read(OBR), *UNLOCK, write(CR, PG), write(0x0800_0800, 0, 2)) == [0x03FF_FC1E]
    assert f1.faults == ["flash-protected"]
    f1.run(*UNLOCK_OPTIONS, *program_option(0, 0xA5), from_ram=True)
    assert [(op.kind, op.length) for op in f1.engine.ops] == [("erase", 0x2_0000), ("word", 2)]
    assert f1.flash(MAIN, 2) == b"\xff\xff"


def test_the_chip_is_found_through_its_alias_too(f1: ChipProbe) -> None:
    f1.run(*UNLOCK, write(CR, PG), write(0x8000, 0x1234, 2), read(0x8000), read(MAIN))
    assert f1.results == [0xFFFF_1234] * 2


def test_a_power_cut_leaves_what_the_trace_says_before_it(f1: ChipProbe) -> None:
    steps = (*UNLOCK, write(CR, PG), write(MAIN, 1, 2), write(MAIN + 2, 2, 2))
    f1.load(*steps)
    f1.engine.cut_before_op(1)
    f1.engine.power_on()
    f1.go_on(1.0)
    assert f1.engine.cut_reached
    f1.engine.power_off()
    assert f1.flash(MAIN, 4) == b"\x01\0\xff\xff"
