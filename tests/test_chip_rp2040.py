"""An RP2040 starts, reads its flash in place and changes it, as its data sheet says."""

from __future__ import annotations

import struct

import pytest
from chip_probe import FREE_RAM, ChipProbe, Step, call, enable_interrupt, read, sleep, wait, write

from unbrick.board import load_chip
from unbrick.engine.mcu.debugged import DebuggedChip
from unbrick.engine.mcu.models import McuStop

FLASH, WINDOWS = 0x1000_0000, (0x1000_0000, 0x1100_0000, 0x1200_0000, 0x1300_0000)
STATUS = 0xF000_0000
SIZE = 2 << 20

FLIP, SET, CLEAR = 0x1000, 0x2000, 0x3000
RESETS, RESET_DONE = 0x4000_C000, 0x4000_C008
UART_RESET = 1 << 22
CLK_SYS_CTRL, CLK_SYS_SELECTED = 0x4000_803C, 0x4000_8044
XOSC_CTRL, XOSC_STATUS, PLL_CS = 0x4002_4000, 0x4002_4004, 0x4002_8000

SSI_CTRLR0, SSI_CTRLR1, SSIENR, SER, BAUDR, SSI_SR, DR, SPI_CTRLR0 = (
    0x1800_0000 + at for at in (0, 4, 8, 0x10, 0x14, 0x28, 0x60, 0xF4)
)
TFE, RFNE, BUSY = 1 << 2, 1 << 3, 1 << 0
SS_CTRL, FORCED_LOW, FORCED_HIGH = 0x4001_800C, 2 << 8, 3 << 8
XIP_FLUSH = 0x1400_0004

WATCHDOG, LOAD, REASON = 0x4005_8000, 0x4005_8004, 0x4005_8008
SCRATCH = [0x4005_800C + 4 * number for number in range(8)]
CHIP_RESET = 0x4006_4008

TIMELR, TIMEHR, ALARM0, ARMED, TIMERAWL, INTR, INTE = (
    0x4005_4000 + at for at in (0xC, 8, 0x10, 0x20, 0x28, 0x34, 0x38)
)

SIO = 0xD000_0000

BYTES = (  # frames of eight bits, each way
    *(write(SSIENR, 0), write(SSI_CTRLR0, 7 << 16), write(BAUDR, 6), write(SER, 1)),
    write(SSIENR, 1),
)
END_MODE = 0xFF


def exchange(*data: int, keep: int = 0) -> tuple[Step, ...]:
    """Send bytes with the flash selected by force, and keep the last ``keep`` that come."""
    steps: list[Step] = [write(SS_CTRL, FORCED_LOW)]
    for number, byte in enumerate(data):
        kept = number >= len(data) - keep
        steps += [write(DR, byte), wait(SSI_SR, RFNE, RFNE)]
        steps.append(read(DR) if kept else wait(DR, 0, 0))
    return (*steps, write(SS_CTRL, FORCED_HIGH))


def place(offset: int) -> tuple[int, int, int]:
    return offset >> 16, offset >> 8 & 0xFF, offset & 0xFF


COMMANDS = (*BYTES, *exchange(END_MODE))
ENABLE = exchange(6)


def delay(microseconds: int) -> tuple[Step, ...]:
    """Some time, at least."""
    bit = 1 << microseconds.bit_length()
    return (wait(TIMERAWL, bit, 0), wait(TIMERAWL, bit, bit), wait(TIMERAWL, bit, 0))


@pytest.fixture
def rp() -> ChipProbe:
    return ChipProbe("rp2040")


def find(code: str, table: int = 0x14) -> int:
    """What the ROM's table has for two letters."""
    rom = load_chip("rp2040").boot_rom
    assert rom
    image = rom.read()
    (at,) = struct.unpack_from("<H", image, table)
    while image[at : at + 2] != code.encode():
        assert image[at : at + 2] != b"\0\0", f"the ROM has no {code}"
        at += 4
    return int.from_bytes(image[at + 2 : at + 4], "little")


def bits(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


# The start


def test_the_rom_begins_a_second_stage_that_begins_the_firmware(rp: ChipProbe) -> None:
    rp.image[0x1_0000:0x1_0004] = b"here"
    found = rp.run(read(FLASH + 0x1_0000), seconds=2e-3)
    assert found == [int.from_bytes(b"here", "little")]
    assert rp.faults == []


@pytest.mark.parametrize("at", [0, 0x60, 251, 252, 255])
def test_a_second_stage_with_a_wrong_checksum_is_not_begun(rp: ChipProbe, at: int) -> None:
    rp.image[at] ^= 0x10
    assert rp.run(read(FLASH), seconds=0.4) == []
    assert not rp.engine.quiet
    assert rp.go_on(0.2) == []
    assert rp.engine.quiet
    assert rp.engine.pc < 0x8000


def test_a_blank_flash_leaves_the_chip_in_its_rom(rp: ChipProbe) -> None:
    rp.engine.load_nor(b"")
    rp.engine.power_on()
    rp.go_on(5)
    assert rp.engine.quiet
    assert rp.faults == []


def test_the_watchdog_begins_code_in_the_ram_once(rp: ChipProbe) -> None:
    magic, entry, stack = 0xB007_C0D3, FREE_RAM + 0x100, FREE_RAM + 0x400
    store = [0x2101, 0x4802, 0x6001, 0xBF30, 0xE7FD]  # LDR R0, =; STR R1; WFI; B
    code = struct.pack("<6H2I", *store, 0xBF00, FREE_RAM + 0x800, 0)
    words = struct.unpack("<5I", code)
    rp.run(
        *(write(entry + 4 * number, word) for number, word in enumerate(words)),
        *(write(FREE_RAM + 0x800, 0), write(SCRATCH[4], magic), write(SCRATCH[6], stack)),
        *(write(SCRATCH[5], entry ^ -magic & 0xFFFF_FFFF), write(SCRATCH[7], entry)),
        write(WATCHDOG, 1 << 31),
        seconds=0.1,
    )
    assert rp.engine.resets == 1
    assert rp.engine.read_memory(FREE_RAM + 0x800, 4) == b"\1\0\0\0"
    rp.engine.press_reset()
    rp.engine.advance(1e-3)
    assert rp.engine.pc > FREE_RAM or rp.engine.resets > 2  # the firmware asked for it once more


# The ROM's functions


@pytest.mark.parametrize(
    ("code", "value", "result"),
    [
        ("P3", 0xF00F_0001, 9),
        ("R3", 0x8000_0002, 0x4000_0001),
        ("L3", 0x0001_0000, 15),
        ("L3", 0, 32),
        ("T3", 0x0001_0000, 16),
        ("T3", 0, 32),
    ],
)
def test_bits_are_counted(rp: ChipProbe, code: str, value: int, result: int) -> None:
    assert rp.run(call(find(code), value)) == [result]


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_memory_is_filled_and_copied(rp: ChipProbe, offset: int) -> None:
    at, size = FREE_RAM + offset, 11
    rp.image[0x1_0000:0x1_0010] = bytes(range(0x40, 0x50))
    rp.run(
        call(find("MS"), FREE_RAM, 0xA5, 32),
        call(find("MC"), at, FLASH + 0x1_0000, size),
        call(find("S4"), FREE_RAM + 16, 0x5A, 4),
        call(find("C4"), FREE_RAM + 24, FLASH + 0x1_0000, 4),
    )
    after = bytearray(b"\xa5" * 32)
    after[offset : offset + size] = range(0x40, 0x40 + size)
    after[16:20], after[24:28] = b"\x5a" * 4, bytes(range(0x40, 0x44))
    assert rp.engine.read_memory(FREE_RAM, 32) == after


@pytest.mark.parametrize(
    ("number", "arguments", "result"),
    [
        (0, (1.5, 2.25), 3.75),
        (1, (1.5, 2.25), -0.75),
        (2, (1.5, -2.0), -3.0),
        (3, (1.0, 4.0), 0.25),
        (6, (2.25,), 1.5),
        (15, (0.5,), 0.8775826),
        (16, (0.5,), 0.4794255),
        (17, (0.5,), 0.5463025),
        (19, (1.0,), 2.7182817),
        (20, (10.0,), 2.3025851),
        (22, (1.0, -2.0), 2.6779451),
        (22, (-1.0, -1.0), -2.3561945),
    ],
)
def test_floating_point_is_calculated(
    rp: ChipProbe, number: int, arguments: tuple[float, ...], result: float
) -> None:
    rom = rp.chip.boot_rom
    assert rom
    (function,) = struct.unpack_from("<I", rom.read(), find("SF", 0x16) + 4 * number)
    (found,) = rp.run(call(function, *map(bits, arguments)))
    (value,) = struct.unpack("<f", struct.pack("<I", found))
    assert value == pytest.approx(result, rel=2e-7)


@pytest.mark.parametrize(
    ("number", "arguments", "result"),
    [
        (7, (bits(-2.5),), -3),
        (7, (bits(3e10),), 0x7FFF_FFFF),
        (8, (bits(2.75), 1), 5),
        (9, (bits(-1.0),), 0),
        (11, (-3 & 0xFFFF_FFFF,), bits(-3.0)),
        (12, (5, 1), bits(2.5)),
        (21, (bits(1.0), bits(2.0)), -1),
        (21, (bits(2.0), bits(2.0)), 0),
    ],
)
def test_numbers_are_converted_and_compared(
    rp: ChipProbe, number: int, arguments: tuple[int, ...], result: int
) -> None:
    rom = rp.chip.boot_rom
    assert rom
    (function,) = struct.unpack_from("<I", rom.read(), find("SF", 0x16) + 4 * number)
    assert rp.run(call(function, *arguments)) == [result & 0xFFFF_FFFF]


def test_the_rom_erases_and_programs(rp: ChipProbe) -> None:
    at = 0x1_8000
    rp.image[at - 0x1000 : at + 0x4000] = bytes(0x5000)
    data = bytes(range(256))
    rp.image[0x4000:0x4100] = data
    fill = [write(FREE_RAM + 4 * n, word) for n, word in enumerate(struct.unpack("<64I", data))]
    rp.run(
        *fill,
        *(call(find(code)) for code in ("IF", "EX")),
        call(find("RE"), at, 0x3000, 1 << 31),  # so large a block fits nowhere
        call(find("RP"), at + 0x100, FREE_RAM, 256),
        *(call(find(code)) for code in ("FC", "CX")),
        read(FLASH + at + 0x104),
        from_ram=True,
    )
    assert rp.results[-1] == 0x0706_0504
    assert rp.faults == []
    assert rp.flash(FLASH + at, 0x300) == b"\xff" * 0x100 + data + b"\xff" * 0x100
    assert rp.flash(FLASH + at - 4, 4) == rp.flash(FLASH + at + 0x3000, 4) == bytes(4)
    kinds = [(op.kind, op.offset - at, op.length) for op in rp.engine.ops]
    ones = 1  # at the end, which change nothing
    assert kinds == [*(("erase", n * 4096, 4096) for n in range(3)), ("word", 0x100, 256 - ones)]


def call_with_fourth(function: int, fourth: int) -> bytes:
    """Code that calls a function with one more argument than a step has: R3."""
    code = (0x4B01, 0x469C, 0x4B01, 0x4760)  # LDR R3, =; MOV R12, R3; LDR R3, =; BX R12
    return struct.pack("<4H2I", *code, function | 1, fourth)


@pytest.mark.parametrize(("block", "command", "blocks"), [(1 << 16, 0xD8, 1), (1 << 15, 0x52, 2)])
def test_the_rom_erases_blocks_where_they_fit(
    rp: ChipProbe, block: int, command: int, blocks: int
) -> None:
    sector, at, end = 0x1000, 0x1_E000, 0x3_2000
    rp.image[at - sector : end + sector] = bytes(end - at + 2 * sector)
    words = struct.unpack("<4I", call_with_fourth(find("RE"), command))
    rp.run(
        *(write(FREE_RAM + 4 * number, word) for number, word in enumerate(words)),
        *(call(find(code)) for code in ("IF", "EX")),
        call(FREE_RAM, at, end - at, block),
        *(call(find(code)) for code in ("FC", "CX")),
        read(FLASH + end - 4),
        from_ram=True,
    )
    assert rp.results[-1] == 0xFFFF_FFFF
    assert rp.faults == []
    assert rp.flash(FLASH + at, end - at) == b"\xff" * (end - at)
    assert rp.flash(FLASH + at - 4, 4) == rp.flash(FLASH + end, 4) == bytes(4)
    first = -(-at // block) * block
    middle = [(first + number * block, block) for number in range(blocks)]
    before = [(one, sector) for one in range(at, first, sector)]
    after = [(one, sector) for one in range(first + blocks * block, end, sector)]
    assert [(op.offset, op.length) for op in rp.engine.ops] == [*before, *middle, *after]


# The bus


def test_registers_have_addresses_that_change_bits(rp: ChipProbe) -> None:
    pad = 0x4001_C004
    steps = (write(pad, 0xF0), *(write(pad + at, 0x3C) for at in (SET,)), read(pad))
    steps += (write(pad + CLEAR, 0x14), read(pad), write(pad + FLIP, 0xFF), read(pad + FLIP))
    assert rp.run(*steps) == [0xFC, 0xE8, 0x17]


def test_the_flash_is_at_four_addresses(rp: ChipProbe) -> None:
    rp.image[0x1_0000:0x1_0004] = b"\x78\x56\x34\x12"
    assert rp.run(*(read(base + 0x1_0000) for base in WINDOWS)) == [0x1234_5678] * 4
    assert rp.run(read(FLASH + SIZE + 0x1_0000)) == [0x1234_5678]
    assert rp.engine.read_memory(WINDOWS[3] + 0x1_0000, 2) == b"\x78\x56"


@pytest.mark.parametrize("base", WINDOWS)
def test_a_store_to_the_flash_is_a_fault(rp: ChipProbe, base: int) -> None:
    rp.run(write(base + 0x1_0000, 1))
    assert rp.faults == ["flash-stray"]
    assert rp.flash(FLASH + 0x1_0000, 4) == b"\xff" * 4


def test_a_store_to_the_rom_is_a_fault(rp: ChipProbe) -> None:
    before = rp.engine.read_memory(0x100, 4)
    assert rp.run(read(0x10), write(0x100, 1), read(0x10), seconds=2e-3) == [0x0301_754D]
    assert set(rp.faults) == {"bus-fault"}
    assert rp.engine.read_memory(0x100, 4) == before


def test_the_flash_is_not_read_while_it_takes_commands(rp: ChipProbe) -> None:
    rp.run(*COMMANDS, read(FLASH + 0x1_0000), from_ram=True)
    assert rp.faults == ["flash-hidden"]


def test_code_does_not_run_there_meanwhile(rp: ChipProbe) -> None:
    rp.run(write(SSIENR, 0), read(FLASH))
    assert rp.faults == ["flash-fetch"]
    assert rp.engine.last_stop is McuStop.LOCKUP


# The SSI and the flash


def test_the_flash_tells_what_it_is(rp: ChipProbe) -> None:
    steps = (*exchange(0x9F, 0, 0, 0, keep=3), *exchange(0x4B, *[0] * 12, keep=8))
    found = rp.run(*COMMANDS, *steps, from_ram=True)
    assert found[:3] == [0xEF, 0x40, 0x15]
    assert len(set(found[3:])) > 1
    table = rp.run(*COMMANDS, *exchange(0x5A, *place(0), *[0] * 17, keep=16), from_ram=True)
    assert bytes(table[:4]) == b"SFDP"
    assert table[8] == 0
    (pointer,) = struct.unpack("<I", bytes((*table[12:15], 0)))
    basic = rp.run(*COMMANDS, *exchange(0x5A, *place(pointer), *[0] * 9, keep=8), from_ram=True)
    assert struct.unpack("<I", bytes(basic[4:])) == (SIZE * 8 - 1,)
    assert rp.faults == []


def test_the_ssi_selects_the_flash_while_it_sends(rp: ChipProbe) -> None:
    both = (write(SS_CTRL, 0), write(DR, 5), write(DR, 5), wait(SSI_SR, BUSY | TFE, TFE))
    assert rp.run(*COMMANDS, *ENABLE, *both, read(DR), read(DR), from_ram=True)[1] == 2
    # What is sent on its own is a command of its own.
    alone = (write(SS_CTRL, 0), write(DR, 6), wait(SSI_SR, BUSY | TFE, TFE), read(DR))
    found = rp.run(*COMMANDS, *alone, *both, read(DR), read(DR), from_ram=True)
    assert found[-1] == 2


def test_registers_hold_still_while_the_ssi_is_on(rp: ChipProbe) -> None:
    steps = (*COMMANDS, write(BAUDR, 8), read(BAUDR), write(SSIENR, 0), write(BAUDR, 8))
    assert rp.run(*steps, read(BAUDR), from_ram=True) == [6, 8]


def test_a_page_begins_again_at_its_end(rp: ChipProbe) -> None:
    rp.run(
        *COMMANDS,
        *ENABLE,
        *exchange(2, *place(0x1_00FE), 1, 2, 3),
        *delay(500),
        *exchange(5, 0, keep=1),
        from_ram=True,
    )
    assert rp.results == [0]
    assert rp.flash(FLASH + 0x1_0000, 0x101) == b"\3" + b"\xff" * 253 + b"\1\2\xff"
    assert rp.faults == []


def test_a_program_without_write_enable_is_refused(rp: ChipProbe) -> None:
    rp.run(*COMMANDS, *exchange(2, *place(0x1_0000), 0), from_ram=True)
    assert rp.faults == ["flash-locked"]


def test_the_flash_answers_nothing_while_it_is_busy(rp: ChipProbe) -> None:
    found = rp.run(
        *COMMANDS,
        *ENABLE,
        *exchange(0x20, *place(0x1_0000)),
        *exchange(5, 0, keep=1),
        *exchange(3, *place(0), 0, keep=1),
        from_ram=True,
    )
    assert found == [3, 0xFF]
    assert rp.faults == ["flash-busy"]


def test_an_erase_is_torn_by_a_power_cut(rp: ChipProbe) -> None:
    rp.image[0x1_0000:0x1_1000] = bytes(4096)
    steps = (*COMMANDS, *ENABLE, *exchange(0x20, *place(0x1_0000)))
    rp.load(*steps, from_ram=True)
    rp.engine.forget()
    rp.engine.power_on()
    rp.engine.advance(0.02)
    rp.engine.power_off()
    cells = rp.flash(FLASH + 0x1_0000, 4096)
    ones = sum(byte.bit_count() for byte in cells)
    assert 4096 * 8 // 4 < ones < 4096 * 8 * 3 // 4


def test_quad_reads_want_their_bit(rp: ChipProbe) -> None:
    quad = ((0xEB << 24 | 2 << 8 | 6 << 2 | 1, 0xEB), (0x03 << 24 | 2 << 8 | 6 << 2, 0x03))
    for settings, command in quad:
        lines = 2 << 21 if command == 0xEB else 0
        steps = (
            *(*COMMANDS, write(SS_CTRL, 0), write(SSIENR, 0)),
            *(write(SSI_CTRLR0, lines | 31 << 16 | 3 << 8), write(SPI_CTRLR0, settings)),
            *(write(SSIENR, 1), read(FLASH + 0x1_0000)),
        )
        rp.image[0x1_0000:0x1_0004] = b"\1\0\0\0"
        assert rp.run(*steps, from_ram=True) == [1], hex(command)
        assert rp.faults == []


def test_a_command_is_an_address_where_reads_have_none(rp: ChipProbe) -> None:
    rp.run(*BYTES, *exchange(0x9F, 0, keep=1), from_ram=True)
    assert rp.faults == ["flash-command"]


def test_both_status_registers_are_kept(rp: ChipProbe) -> None:
    rp.run(*COMMANDS, *ENABLE, *exchange(1, 0x1C, 0x02), *delay(12_000), from_ram=True)
    assert rp.flash(STATUS, 2) == bytes((0xFF ^ 0x1C, 0xFF ^ 0x02))
    rp.run(*COMMANDS, *ENABLE, *exchange(0x31, 0x40), *delay(12_000), from_ram=True)
    assert rp.flash(STATUS, 2) == bytes((0xFF, 0xFF ^ 0x40))
    assert rp.faults == []


def test_the_cache_is_flushed_at_once(rp: ChipProbe) -> None:
    assert rp.run(write(XIP_FLUSH, 1), read(XIP_FLUSH), read(0x1400_0008)) == [1, 3]


# The rest


def test_blocks_clocks_and_oscillators_are_ready(rp: ChipProbe) -> None:
    steps = (
        *(read(RESET_DONE), write(RESETS + CLEAR, UART_RESET), read(RESET_DONE)),
        *(write(XOSC_CTRL, 0xFAB << 12), read(XOSC_STATUS), write(PLL_CS, 1), read(PLL_CS)),
        *(read(CLK_SYS_SELECTED), write(CLK_SYS_CTRL, 1), read(CLK_SYS_SELECTED)),
    )
    pins, on = 1 << 6 | 1 << 9, 1 << 31
    assert rp.run(*steps) == [pins, pins | UART_RESET, on | 0x1000, on | 1, 1, 2]


def test_a_block_in_reset_forgets_its_registers(rp: ChipProbe) -> None:
    ibrd = 0x4003_4024
    steps = (write(ibrd, 67), read(ibrd), write(RESETS + CLEAR, UART_RESET), read(ibrd))
    assert rp.run(*steps, write(RESETS + SET, UART_RESET), read(ibrd)) == [67, 67, 0]


def test_the_timer_counts_microseconds(rp: ChipProbe) -> None:
    low, high, later = rp.run(read(TIMELR), read(TIMEHR), *delay(1000), read(TIMERAWL))
    assert high == 0
    assert 1024 <= later - low <= 4096


def test_an_alarm_interrupts(rp: ChipProbe) -> None:
    steps = (write(INTE, 1), enable_interrupt(0), write(ALARM0, 5000), read(ARMED))
    assert rp.run(*steps, sleep(), read(ARMED), read(INTR), read(TIMERAWL))[:3] == [1, 0, 1]
    assert 5000 <= rp.results[3] < 5010
    assert rp.interrupts(0) == 1
    steps = (write(ALARM0, 5000), write(ARMED, 1), *delay(5000), read(INTR))
    assert rp.run(*steps) == [0]


def test_the_watchdog_resets_the_chip(rp: ChipProbe) -> None:
    script = (
        *(read(REASON), read(SCRATCH[0]), read(CHIP_RESET)),
        *(wait(REASON, 3, 0), write(SCRATCH[0], 7), write(LOAD, 20_000), write(WATCHDOG, 1 << 30)),
    )
    rp.run(*script, *delay(50_000), seconds=0.05)
    first = rp.results
    assert rp.engine.resets == 1
    assert first[:3] == [1, 7, 1 << 8]
    assert rp.faults == ["watchdog"]
    assert rp.engine.faults[0].time == pytest.approx(0.010, abs=2e-3)


def test_firmware_asks_for_a_reset(rp: ChipProbe) -> None:
    rp.run(
        read(REASON),
        wait(REASON, 2, 0),
        write(SCRATCH[3], 9),
        write(WATCHDOG, 1 << 31),
        seconds=0.05,
    )
    assert rp.engine.resets == 1
    assert rp.results[0] == 2
    assert rp.faults == []
    assert rp.run(read(REASON), read(SCRATCH[3])) == [0, 0]


@pytest.mark.parametrize(
    ("signed", "dividend", "divisor", "quotient", "remainder"),
    [
        (False, 100, 7, 14, 2),
        (False, 0xFFFF_FFFF, 2, 0x7FFF_FFFF, 1),
        (False, 5, 0, 0xFFFF_FFFF, 5),
        (True, -7, 2, -3, -1),
        (True, -7, 0, 1, -7),
        (True, 7, 0, -1, 7),
        (True, -(1 << 31), -1, -(1 << 31), 0),
    ],
)
def test_the_divider_divides(
    rp: ChipProbe, signed: bool, dividend: int, divisor: int, quotient: int, remainder: int
) -> None:
    at, mask = SIO + (0x68 if signed else 0x60), 0xFFFF_FFFF
    steps = (write(at, dividend & mask), write(at + 4, divisor & mask), read(SIO + 0x78))
    found = rp.run(*steps, read(SIO + 0x74), read(SIO + 0x70), read(SIO + 0x78))
    assert found == [3, remainder & mask, quotient & mask, 1]


def test_a_spinlock_is_taken_once(rp: ChipProbe) -> None:
    lock = SIO + 0x100 + 4 * 5
    steps = (read(lock), read(lock), read(SIO + 0x5C), write(lock, 0), read(lock))
    assert rp.run(*steps) == [1 << 5, 0, 1 << 5, 1 << 5]


def test_outputs_are_set_cleared_and_flipped(rp: ChipProbe) -> None:
    out = SIO + 0x10
    steps = (write(out, 0xF0), write(out + 4, 0x3C), write(out + 8, 0x14), write(out + 12, 0xFF))
    assert rp.run(*steps, read(out), write(SIO + 0x20, 3), read(SIO + 4)) == [0x17, 3]


def test_core_0_is_alone(rp: ChipProbe) -> None:
    assert rp.run(read(SIO), write(SIO + 0x54, 1), read(SIO + 0x50), read(SIO + 0x58)) == [0, 2, 0]


def test_a_uart_asks_for_bytes_when_half_have_gone(rp: ChipProbe) -> None:
    uart, interrupt = 0x4003_4000, 20
    dr, lcr, cr, imsc, ris, icr = (uart + at for at in (0, 0x2C, 0x30, 0x38, 0x3C, 0x44))
    on = (write(lcr, 0x70), write(cr, 0x301), write(imsc, 1 << 5), read(ris))
    fill = tuple(write(dr, ord("a") + number) for number in range(12))
    found = rp.run(*on, *fill, read(ris), enable_interrupt(interrupt), sleep(), read(ris))
    assert [value >> 5 & 1 for value in found] == [0, 0, 1]
    assert rp.interrupts(interrupt) == 1
    again = (*on, *fill, wait(ris, 1 << 5, 1 << 5), write(icr, 1 << 5), read(ris))
    assert [value >> 5 & 1 for value in rp.run(*again)] == [0, 0]
    assert b"abcdefghijkl" in rp.engine.wire.read()


def test_a_debugger_sees_the_rom_and_stops_in_it(rp: ChipProbe) -> None:
    with DebuggedChip(rp.chip) as chip:
        rom = next(one for one in chip.memories if one.kind == "rom")
        assert (rom.start, rom.size) == (0, 0x8000)
        assert chip.read_memory(0x10, 3) == b"Mu\1"
        chip.set_breakpoint(find("EX") & ~1)
        chip.power_on()
        chip.advance(1)
        assert chip.pc == find("EX") & ~1
