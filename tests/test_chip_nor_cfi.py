"""Parallel NOR flashes of both command sets do what their data sheets say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cfi_boards import (
    AMD_BOOT,
    AMD_PAIR,
    AMD_X8,
    AMD_X16,
    BASE,
    CELLS,
    INTEL_PAIR,
    INTEL_X8,
    INTEL_X16,
    P30,
    S29GL,
    write_board,
)
from chip_probe import ChipProbe, Step, call, copy, read, wait, write

from unbrick.board import load_chip
from unbrick.errors import SetupError
from unbrick.flash.cells import Cells
from unbrick.flash.torn import list_variants, tear

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 0x2_0000
READY = 0x80
DEMCR, DWT_CONTROL, CYCLES = 0xE000_EDFC, 0xE000_1000, 0xE000_1004
CYCLES_ON = (write(DEMCR, 1 << 24), write(DWT_CONTROL, 1), write(CYCLES, 0))


class Bus:
    """How a board's chips are wired, and the accesses for it."""

    def __init__(self, folder: Path, text: str) -> None:
        path = folder / f"board-{len(list(folder.iterdir()))}.toml"
        path.write_text(text, encoding="utf-8")
        self.probe = ChipProbe(str(path))
        numbers = load_chip(path).devices[-1].numbers
        self.width, self.chips, self.byte_mode = numbers[0] // 8, numbers[1], numbers[2]
        self.bus = self.width * self.chips

    def both(self, value: int) -> int:
        return sum(value << 8 * self.width * chip for chip in range(self.chips))

    def give(self, word: int, value: int) -> Step:
        """A command, or data, at an address as the chip counts."""
        return write(BASE + word * self.bus, self.both(value), self.bus)

    def ask(self, word: int) -> Step:
        return read(BASE + word * self.bus, self.bus)

    def unlock(self, command: int) -> tuple[Step, ...]:
        first, second = (0xAAA, 0x555) if self.byte_mode else (0x555, 0x2AA)
        return (self.give(first, 0xAA), self.give(second, 0x55), self.give(first, command))

    def program(self, word: int, value: int) -> tuple[Step, ...]:
        return (*self.unlock(0xA0), self.give(word, value), self.until(word, value))

    def until(self, word: int, value: int) -> Step:
        mask = 0xFFFF_FFFF if self.bus == 4 else (1 << 8 * self.bus) - 1
        if self.bus == 4:
            return wait(BASE + word * 4, mask, self.both(value))
        start = (BASE + word * self.bus) & ~3
        shift = 8 * (BASE + word * self.bus - start)
        return wait(start, mask << shift, self.both(value) << shift)

    def erase(self, word: int) -> tuple[Step, ...]:
        first, second = (0xAAA, 0x555) if self.byte_mode else (0x555, 0x2AA)
        more = (self.give(first, 0xAA), self.give(second, 0x55), self.give(word, 0x30))
        return (*self.unlock(0x80), *more)

    def query(self, word: int) -> int:
        return word << self.byte_mode

    def run(self, *steps: Step, **options: bool) -> list[int]:
        return self.probe.run(*steps, **options)

    @property
    def faults(self) -> list[str]:
        return self.probe.faults


@pytest.fixture
def amd(tmp_path: Path) -> Bus:
    return Bus(tmp_path, AMD_X16)


@pytest.fixture
def intel(tmp_path: Path) -> Bus:
    return Bus(tmp_path, INTEL_X16)


ALL = {
    "amd-x16": AMD_X16,
    "amd-x8": AMD_X8,
    "amd-pair": AMD_PAIR,
    "intel-x16": INTEL_X16,
    "intel-x8": INTEL_X8,
    "intel-pair": INTEL_PAIR,
}


@pytest.mark.parametrize("name", ALL)
def test_the_query_describes_the_chips_and_a_reset_ends_it(name: str, tmp_path: Path) -> None:
    bus = Bus(tmp_path, ALL[name])
    words = (0x10, 0x11, 0x12, 0x13, 0x1F, 0x20, 0x21, 0x27, 0x28, 0x2A, 0x2C, 0x2D, 0x30, 0x40)
    intel = name.startswith("intel")
    out = bus.run(
        bus.give(bus.query(0x55), 0x98),
        *(bus.ask(bus.query(word)) for word in words),
        bus.give(0, 0xFF if intel else 0xF0),
        bus.ask(0),
    )
    size = {1: 19, 2: 18}[bus.chips]
    buffer = 10 if intel else 5
    interface = 2 if bus.byte_mode else bus.width - 1
    times = (9, 10, 9) if intel else (6, 8, 9)
    wanted = (*b"QRY", 1 if intel else 2, *times, size, interface, buffer, 1)
    blocks = 4 // bus.chips
    wanted = (*wanted, blocks - 1, BLOCK // 0x100 >> 8, ord("P"))
    assert out == [*map(bus.both, wanted), bus.both(0xFFFF if bus.width == 2 else 0xFF)]
    assert bus.faults == []


def test_the_query_tells_blocks_of_several_sizes_and_of_the_whole_chip(tmp_path: Path) -> None:
    bus = Bus(tmp_path, AMD_BOOT)
    out = bus.run(bus.give(0x55, 0x98), *(bus.ask(word) for word in range(0x2C, 0x3D)))
    regions = [(1, 0x40), (2, 0x20), (1, 0x80), (31, 0x100)]
    told = [byte for count, size in regions for byte in (count - 1, 0, size & 0xFF, size >> 8)]
    assert out == [4, *told]
    assert bus.probe.run(bus.give(0x55, 0x98), bus.ask(0x27)) == [21]


def test_the_identity_of_both(amd: Bus, intel: Bus) -> None:
    out = amd.run(
        *(*amd.unlock(0x90), amd.ask(0), amd.ask(1), amd.ask(0xE), amd.ask(0xF)),
        *(amd.ask(0x10002), amd.give(0, 0xF0), amd.ask(0)),
    )
    assert out == [0x01, 0x227E, 0x2221, 0x2201, 0, 0xFFFF]
    lock = BLOCK // 2 + 2
    out = intel.run(
        *(intel.give(0, 0x90), intel.ask(0), intel.ask(1), intel.ask(lock)),
        *(intel.give(BLOCK // 2, 0x60), intel.give(BLOCK // 2, 0xD0)),
        *(intel.give(0, 0x90), intel.ask(lock), intel.ask(2), intel.give(0, 0xFF), intel.ask(0)),
    )
    assert out == [0x89, 0x891C, 1, 0, 1, 0xFFFF]
    assert amd.faults == intel.faults == []


# The AMD command set


@pytest.mark.parametrize("name", ["amd-x16", "amd-x8", "amd-pair"])
def test_amd_programs_a_word_of_all_chips(name: str, tmp_path: Path) -> None:
    bus = Bus(tmp_path, ALL[name])
    assert bus.run(*bus.program(0x80, 0x5A), bus.ask(0x80)) == [bus.both(0x5A)]
    (op,) = bus.probe.engine.ops
    assert (op.offset, op.length) == (CELLS + 0x80 * bus.bus, bus.bus)
    assert op.data == bus.both(0x5A).to_bytes(bus.bus, "little")
    assert op.end - op.start == pytest.approx(60e-6)
    assert bus.faults == []


def test_amd_shows_dq7_and_toggles_dq6_while_it_programs(amd: Bus) -> None:
    out = amd.run(*amd.unlock(0xA0), amd.give(8, 0x1234), *[amd.ask(8)] * 4, amd.until(8, 0x1234))
    assert [value & 0x80 for value in out] == [0x80] * 4
    assert [value & 0x40 for value in out] in ([0x40, 0, 0x40, 0], [0, 0x40, 0, 0x40])
    out = amd.run(*amd.unlock(0xA0), amd.give(8, 0x80), amd.ask(8))
    assert out[0] & 0x80 == 0


def test_amd_erases_a_sector_and_shows_dq3_and_dq2(amd: Bus) -> None:
    amd.probe.image[CELLS : CELLS + 4] = b"abcd"
    other = BLOCK // 2
    steps = (*amd.erase(0), amd.ask(0), wait(BASE, 8, 8), *[amd.ask(0)] * 2, *[amd.ask(other)] * 2)
    out = amd.run(*steps, amd.until(0, 0xFFFF), amd.ask(1))
    assert out[0] & 0x88 == 0, "within 50 us DQ3 is 0"
    assert (out[1] ^ out[2]) & 0x44 == 0x44, "in the sector DQ2 toggles, too"
    assert (out[3] ^ out[4]) & 0x44 == 0x40, "elsewhere DQ6 alone"
    assert out[5] == 0xFFFF
    (op,) = amd.probe.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", CELLS, BLOCK)


def test_amd_erases_several_sectors_that_came_in_time(amd: Bus) -> None:
    more = (amd.give(BLOCK // 2, 0x30), amd.give(BLOCK, 0x30))
    amd.run(*amd.erase(0), *more, amd.until(0, 0xFFFF))
    assert [op.offset for op in amd.probe.engine.ops] == [CELLS, CELLS + BLOCK, CELLS + 2 * BLOCK]
    amd.run(*amd.erase(0), wait(BASE, 8, 8), amd.give(BLOCK // 2, 0x30), amd.until(0, 0xFFFF))
    assert len(amd.probe.engine.ops) == 1
    assert amd.faults == ["flash-busy"]


def test_amd_erases_all(amd: Bus) -> None:
    amd.probe.image[CELLS + BLOCK] = 0
    steps = (*amd.erase(0)[:-1], amd.give(0x555, 0x10), amd.until(0, 0xFFFF))
    assert amd.run(*steps, amd.ask(BLOCK // 2)) == [0xFFFF]
    (op,) = amd.probe.engine.ops
    assert (op.offset, op.length) == (CELLS, 4 * BLOCK)


@pytest.mark.parametrize("name", ["amd-x16", "amd-x8", "amd-pair"])
def test_amd_programs_a_buffer(name: str, tmp_path: Path) -> None:
    bus = Bus(tmp_path, ALL[name])
    words = [0x11, 0x22, 0x33]
    at = 0x10005
    start = (*bus.unlock(0)[:2], bus.give(at, 0x25), bus.give(at, len(words) - 1))
    data = tuple(bus.give(at + i, word) for i, word in enumerate(words))
    out = bus.run(*start, *data, bus.give(at, 0x29), bus.until(at + 2, 0x33), bus.ask(at))
    assert out == [bus.both(0x11)]
    (op,) = bus.probe.engine.ops
    assert (op.offset, op.length) == (CELLS + at * bus.bus, 3 * bus.bus)
    assert bus.faults == []


def test_amd_refuses_a_buffer_until_it_is_reset(amd: Bus) -> None:
    begin = (*amd.unlock(0)[:2], amd.give(0, 0x25))
    wrong = (amd.give(0, 1), amd.give(0, 1), amd.give(16, 2))  # another page of 32 bytes
    after = (amd.ask(0), amd.give(0, 0xF0), amd.ask(0), *amd.unlock(0xF0), amd.ask(0))
    out = amd.run(*begin, *wrong, *after)
    assert [bool(value & 2) for value in out[:2]] == [True, True]
    assert out[2] == 0xFFFF
    assert amd.run(*begin, amd.give(0, 16), *amd.unlock(0xF0), amd.ask(0)) == [0xFFFF]
    assert amd.probe.engine.ops == []
    assert amd.faults == ["flash-command"]


def test_amd_suspends_an_erase_for_reads_and_programs(amd: Bus) -> None:
    amd.probe.image[CELLS : CELLS + 2] = b"\0\0"
    amd.probe.image[CELLS + BLOCK : CELLS + BLOCK + 2] = b"ab"
    other = BLOCK // 2
    out = amd.run(
        *(*amd.erase(0), wait(BASE, 8, 8), amd.give(0, 0xB0)),
        *(amd.ask(other), amd.ask(0), amd.ask(0)),
        *(*amd.program(other + 1, 0x4321), amd.ask(other + 1)),
        *(*amd.unlock(0xA0), amd.give(5, 0), amd.give(0, 0x30), amd.until(0, 0xFFFF), amd.ask(5)),
    )
    assert out[0] == 0x6261
    assert out[1] & 0x80
    assert (out[1] ^ out[2]) & 0x44 == 0x04
    assert out[3:] == [0x4321, 0xFFFF]
    assert amd.faults == ["flash-command"], "a program into the suspended sector"
    erased, programmed = amd.probe.engine.ops
    assert (erased.kind, programmed.offset) == ("erase", CELLS + BLOCK + 2)


def test_amd_ends_with_dq5_what_would_set_bits(amd: Bus) -> None:
    steps = (*amd.program(8, 0), *amd.unlock(0xA0), amd.give(8, 1), wait(BASE + 16, 0x20, 0x20))
    assert amd.run(*steps, amd.give(0, 0xF0), amd.ask(8)) == [0]
    assert amd.faults == ["flash-dirty"]


def test_amd_programs_without_unlocking_in_bypass(amd: Bus) -> None:
    first = (amd.give(0, 0xA0), amd.give(3, 0x77), amd.until(3, 0x77))
    out = amd.run(*amd.unlock(0x20), *first, amd.give(0, 0x90), amd.give(0, 0), *first, amd.ask(3))
    assert out == [0x77]
    assert amd.faults == ["flash-stray", "flash-stray"], "it has left the bypass"
    assert len(amd.probe.engine.ops) == 1


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([(0x100, 0x1234)], "flash-stray"),
        ([(0x555, 0xAA), (0x2AB, 0x55)], "flash-command"),
        ([(0x555, 0xAA), (0x2AA, 0x55), (0x556, 0xA0)], "flash-command"),
        ([(0x555, 0xAA), (0x2AA, 0x55), (0x555, 0x77)], "flash-command"),
        ([(0x555, 0xAA), (0x2AA, 0x55), (0x555, 0x80), (0x555, 0x55)], "flash-command"),
    ],
)
def test_amd_goes_back_to_its_array(amd: Bus, steps: list[tuple[int, int]], kind: str) -> None:
    assert amd.run(*(amd.give(*step) for step in steps), amd.ask(0)) == [0xFFFF]
    assert amd.faults == [kind]
    assert amd.probe.engine.ops == []


# The Intel command set


def opened(bus: Bus, word: int) -> tuple[Step, ...]:
    return (bus.give(word, 0x60), bus.give(word, 0xD0))


def ready(bus: Bus) -> Step:
    return wait(BASE, bus.both(READY) & 0xFFFF_FFFF, bus.both(READY))


@pytest.mark.parametrize("name", ["intel-x16", "intel-x8", "intel-pair"])
def test_intel_programs_a_word_of_all_chips(name: str, tmp_path: Path) -> None:
    bus = Bus(tmp_path, ALL[name])
    begin = (*opened(bus, 0x80), bus.give(0x80, 0x40), bus.give(0x80, 0x5A), bus.ask(0))
    out = bus.run(*begin, ready(bus), bus.ask(0), bus.give(0, 0xFF), bus.ask(0x80))
    assert out == [0, bus.both(READY), bus.both(0x5A)]
    (op,) = bus.probe.engine.ops
    assert (op.offset, op.length) == (CELLS + 0x80 * bus.bus, bus.bus)
    assert op.end - op.start == pytest.approx(270e-6)
    assert bus.faults == []


@pytest.mark.parametrize("name", ["intel-x16", "intel-x8", "intel-pair"])
def test_intel_programs_a_buffer(name: str, tmp_path: Path) -> None:
    bus = Bus(tmp_path, ALL[name])
    at, words = 0x105, [0x11, 0x22, 0x33]
    data = (bus.give(at + i, word) for i, word in enumerate(words))
    begin = (*opened(bus, at), bus.give(at, 0xE8), bus.ask(at), bus.give(at, 2), *data)
    out = bus.run(*begin, bus.give(at, 0xD0), ready(bus), bus.give(0, 0xFF), bus.ask(at + 2))
    assert out == [bus.both(READY), bus.both(0x33)]
    (op,) = bus.probe.engine.ops
    assert (op.offset, op.length) == (CELLS + at * bus.bus, 3 * bus.bus)
    assert bus.faults == []


def test_intel_erases_a_block(intel: Bus) -> None:
    intel.probe.image[CELLS + BLOCK + 8] = 0
    word = BLOCK // 2 + 4
    begin = (*opened(intel, word), intel.give(word, 0x20), intel.give(word, 0xD0), intel.ask(0))
    out = intel.run(*begin, ready(intel), intel.give(0, 0xFF), intel.ask(word))
    assert out == [0, 0xFFFF]
    (op,) = intel.probe.engine.ops
    assert (op.kind, op.offset, op.length) == ("erase", CELLS + BLOCK, BLOCK)
    assert op.end - op.start == pytest.approx(0.5)


def test_intel_keeps_locked_blocks_and_says_so_until_it_is_cleared(intel: Bus) -> None:
    program = (intel.give(0, 0x40), intel.give(0, 0))
    out = intel.run(
        *(*program, intel.ask(0), intel.give(0, 0x20), intel.give(0, 0xD0), intel.ask(0)),
        *(intel.give(0, 0x50), intel.give(0, 0x70), intel.ask(0)),
        *(*opened(intel, 0), intel.give(0, 0x60), intel.give(0, 0x01), *program, intel.ask(0)),
    )
    assert out == [READY | 0x12, READY | 0x32, READY, READY | 0x12]
    assert intel.faults == ["flash-protected"] * 3
    assert intel.probe.engine.ops == []


def test_intel_locks_down_until_power_goes(intel: Bus) -> None:
    down = (intel.give(0, 0x60), intel.give(0, 0x2F), *opened(intel, 0))
    assert intel.run(*down, intel.give(0, 0x90), intel.ask(2)) == [3]
    assert intel.faults == ["flash-protected"]
    assert intel.run(intel.give(0, 0x90), intel.ask(2)) == [1]


def test_intel_without_locks(tmp_path: Path) -> None:
    text = write_board("intel", "{ count = 2, size = 0x20000 }", **(P30 | {"locks": 0}))
    bus = Bus(tmp_path, text)
    steps = (bus.give(0, 0x90), bus.ask(2), bus.give(0, 0x10), bus.give(0, 7), ready(bus))
    assert bus.run(*steps, bus.give(0, 0xFF), bus.ask(0)) == [0, 7]


def test_intel_suspends_an_erase_for_a_program_and_that_for_a_read(intel: Bus) -> None:
    intel.probe.image[CELLS : CELLS + 2] = b"\0\0"
    other = BLOCK // 2
    out = intel.run(
        *CYCLES_ON,
        *(*opened(intel, 0), *opened(intel, other), intel.give(0, 0x20), intel.give(0, 0xD0)),
        *(intel.give(0, 0xB0), intel.ask(0), intel.give(0, 0xFF), intel.ask(other)),
        *(intel.give(other, 0x40), intel.give(other, 0x1234), ready(intel)),
        *(intel.give(0, 0x40), intel.give(0, 0), intel.ask(0), intel.give(0, 0x50)),
        *(intel.give(0, 0x20), intel.give(0, 0x70), intel.ask(0)),
        *(intel.give(0, 0xD0), intel.ask(0), ready(intel)),
        *(intel.give(0, 0xFF), intel.ask(0), intel.ask(other), read(CYCLES)),
    )
    assert out.pop() / 168e6 == pytest.approx(0.5, abs=2e-3), "it goes on where it was"
    assert out == [READY | 0x40, 0xFFFF, READY | 0x50, READY | 0x70, 0x30, 0xFFFF, 0x1234]
    assert intel.faults == ["flash-command", "flash-command"]
    erased, programmed = intel.probe.engine.ops
    assert (erased.kind, programmed.offset) == ("erase", CELLS + BLOCK)
    out = intel.run(
        *(*opened(intel, 0), intel.give(1, 0x40), intel.give(1, 0), intel.give(0, 0xB0)),
        *(intel.ask(0), intel.give(0, 0xFF), intel.ask(1), intel.give(0, 0xD0), ready(intel)),
        *(intel.give(0, 0xFF), intel.ask(1)),
    )
    assert out == [READY | 0x04, 0xFFFF, 0]


def test_intel_takes_nothing_but_status_and_suspend_while_it_is_busy(intel: Bus) -> None:
    begin = (*opened(intel, 0), intel.give(0, 0x40), intel.give(0, 0), intel.give(0, 0xFF))
    assert intel.run(*begin, intel.give(0, 0x70), intel.ask(0)) == [0]
    assert intel.faults == ["flash-busy"]


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([(0, 0x20), (0, 0x70)], "flash-command"),
        ([(0, 0x60), (0, 0x70)], "flash-command"),
        ([(0, 0xE8), (0, 512)], "flash-command"),
        ([(0, 0xE8), (0, 1), (0, 5), (512, 5), (0, 0xD0)], "flash-command"),
        ([(0, 0xE8), (0, 0), (0, 5), (0, 0x70)], "flash-command"),
    ],
)
def test_intel_refuses_what_is_in_no_order(
    intel: Bus, steps: list[tuple[int, int]], kind: str
) -> None:
    out = intel.run(*opened(intel, 0), *(intel.give(*step) for step in steps), intel.ask(0))
    assert out == [READY | 0x30]
    assert intel.faults == [kind]
    assert intel.probe.engine.ops == []


# All of them


@pytest.mark.parametrize("name", ALL)
def test_a_store_that_is_narrower_than_the_bus_is_no_command(name: str, tmp_path: Path) -> None:
    bus = Bus(tmp_path, ALL[name])
    if bus.bus == 1:
        wide = write(BASE, 0x9098_90FF if name.startswith("intel") else 0xF0F0_F0F0)
        assert bus.run(wide, read(BASE)) != []
        assert bus.faults == []
        return
    assert bus.run(write(BASE, 0x90, bus.bus // 2), read(BASE)) == [0xFFFF_FFFF]
    assert bus.faults == ["flash-width"]


def test_code_in_the_chip_loses_what_it_runs_from(intel: Bus) -> None:
    code = bytes.fromhex("9020 0880 7047".replace(" ", ""))  # movs r0, #0x90; strh r0, [r1]; bx lr
    intel.probe.image[CELLS : CELLS + len(code)] = code
    intel.run(call(BASE, 0, BASE))
    assert intel.faults == ["flash-fetch"]


def test_a_program_and_an_erase_are_torn_as_the_chips_are_wired(tmp_path: Path) -> None:
    bus = Bus(tmp_path, INTEL_PAIR)
    data = (bus.give(i, 0x1111 * i) for i in range(4))
    bus.run(
        *opened(bus, 0), bus.give(0, 0xE8), bus.give(0, 3), *data, bus.give(0, 0xD0), ready(bus)
    )
    (op,) = bus.probe.engine.ops
    chip = bus.probe.chip
    assert "low-chip" in list_variants(op, chip.geometry)
    torn = tear(Cells.of(chip.factory_image, chip.geometry), op, "low-chip").image()
    assert torn[CELLS : CELLS + 8] == bytes.fromhex("0000 ffff 1111 ffff".replace(" ", ""))
    main = op._replace(offset=0, length=8)
    assert "low-chip" not in list_variants(main, chip.geometry)


@pytest.mark.parametrize("name", ["amd-x16", "intel-x16"])
def test_power_that_goes_in_an_operation_leaves_a_part_of_it(name: str, tmp_path: Path) -> None:
    bus = Bus(tmp_path, ALL[name])
    bus.probe.image[CELLS : CELLS + BLOCK] = bytes(BLOCK)
    steps = bus.erase(0) if name.startswith("amd") else (*opened(bus, 0), bus.give(0, 0x20))
    steps += () if name.startswith("amd") else (bus.give(0, 0xD0),)
    bus.probe.load(*steps)
    engine = bus.probe.engine
    engine.power_on()
    engine.advance(0.25)
    engine.power_off()
    cells = engine.read_nor()[CELLS : CELLS + BLOCK]
    ones = int.from_bytes(cells, "big").bit_count() / (8 * BLOCK)
    assert 0.4 < ones < 0.6


def test_a_cut_comes_before_an_operation(intel: Bus) -> None:
    begin = (*opened(intel, 0), intel.give(0, 0x40), intel.give(0, 0))
    intel.probe.load(*begin, *begin[2:])
    engine = intel.probe.engine
    engine.cut_before_op(0)
    engine.power_on()
    engine.advance(1)
    assert engine.cut_reached
    assert engine.ops == []
    engine.power_off()
    assert engine.read_nor()[CELLS : CELLS + 2] == b"\xff\xff"


def test_the_array_is_read_as_memory_again(intel: Bus) -> None:
    intel.probe.image[CELLS : CELLS + 8] = b"12345678"
    copied = 0x2000_8000
    steps = (intel.give(0, 0x70), intel.ask(0), intel.give(0, 0xFF), copy(copied, BASE, 8))
    assert intel.run(*steps, read(copied), read(copied + 4)) == [
        *(READY, int.from_bytes(b"1234", "little"), int.from_bytes(b"5678", "little"))
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 12}, "`width` is 12"),
        ({"byte_mode": 1}, "`width` is 16"),
        ({"size": 0x60000}, "`size` is 393216"),
        ({"size": 0x40000}, "`size` is 262144"),
        ({"buffer": 48}, "`buffer` is 48"),
        ({"buffer": 2048, "chips": 2}, "`buffer` is 2048"),
    ],
)
def test_a_chip_that_cannot_be_is_refused(
    change: dict[str, int], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "board.toml"
    text = write_board("amd", "{ count = 4, size = 0x20000 }", **(S29GL | change))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SetupError, match=message):
        load_chip(path)
