"""What resets a chip, what it says of that afterwards, and what outlives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from brickproof_demo import NOR
from chip_probe import FREE_RAM, ChipProbe, Step, enable_interrupt, read, sleep, wait, write

from unbrick.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AIRCR, SCR = 0xE000_ED0C, 0xE000_ED10
RESET_NOW = write(AIRCR, 0x05FA_0004)
PIN = 1 << 26
PWR_CR, DBP = 0x4000_7000, 1 << 8


@dataclass(frozen=True)
class Family:
    """Where a chip has what this is about.

    Attributes:
        chip: its name.
        wwdg, iwdg: bases of the watchdogs.
        clock_hz: of the window watchdog, as the chip's file has it.
        shift: where the prescaler is in its CFR.
        csr, rmvf: the register with the flags of resets, and its bit that clears them.
        bit, pin: the flags of the window watchdog and of the pin.
        power, brown_out: the flags after each of these.
        backup, count: the first backup register, and how many there are.
        unlock: register and value with DBP.
    """

    chip: str
    clock_hz: int
    shift: int
    csr: int
    rmvf: int
    backup: int
    count: int
    unlock: tuple[int, int] = (PWR_CR, DBP)
    wwdg: int = 0x4000_2C00
    iwdg: int = 0x4000_3000
    bit: int = 1 << 30
    pin: int = PIN
    power: int = 0x0C00_0000
    brown_out: int = 0x0C00_0000

    @property
    def tick(self) -> float:
        """Seconds of a count with the largest prescaler of old ones, 8."""
        return 4096 * 8 / self.clock_hz


FAMILIES = [
    Family("stm32f103xb", 36_000_000, 7, 0x4002_1024, 1 << 24, 0x4000_6C04, 10),
    Family(
        *("stm32f407xg", 42_000_000, 7, 0x4002_3874, 1 << 24, 0x4000_2850, 20),
        power=0x0E00_0000,
        brown_out=0x0600_0000,
    ),
    Family(
        *("stm32f411xe", 50_000_000, 7, 0x4002_3874, 1 << 24, 0x4000_2850, 20),
        power=0x0E00_0000,
        brown_out=0x0600_0000,
    ),
    Family("stm32l432xc", 80_000_000, 7, 0x4002_1094, 1 << 23, 0x4000_2850, 32),
    Family("stm32l476xg", 80_000_000, 7, 0x4002_1094, 1 << 23, 0x4000_2850, 32),
    Family("stm32g071xb", 64_000_000, 11, 0x4002_1060, 1 << 23, 0x4000_B100, 5),
    Family("stm32g0b1xe", 64_000_000, 11, 0x4002_1060, 1 << 23, 0x4000_B100, 5),
    Family(
        *("stm32h563xi", 250_000_000, 11, 0x4402_0CF4, 1 << 23, 0x4400_7D00, 32),
        unlock=(0x4402_0824, 1),
    ),
    Family(
        *("stm32h743xi", 100_000_000, 11, 0x5802_44D0, 1 << 16, 0x5800_4050, 32),
        unlock=(0x5802_4800, DBP),
        wwdg=0x5000_3000,
        iwdg=0x5800_4800,
        bit=1 << 28,
        pin=1 << 22,
        power=0x00E0_0000,
        brown_out=0x0060_0000,
    ),
]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.chip)


def advance_until(probe: ChipProbe, awaited: Callable[[], object]) -> None:
    """Go on by microseconds."""
    tries = 1000
    while not awaited():
        probe.engine.advance(1e-6)
        tries -= 1
        assert tries, "it does not come"


def set_window(family: Family, window: int = 0x7F, flags: int = 0) -> tuple[Step, ...]:
    """Counts of :attr:`Family.tick`."""
    return (write(family.wwdg + 4, window | 3 << family.shift | flags),)


@each_family
def test_a_window_watchdog_that_is_reloaded_too_late_resets_the_chip(family: Family) -> None:
    probe, flags = ChipProbe(family.chip), read(family.csr)
    start = (*set_window(family), write(family.wwdg, 0xC0 | 0x1F), read(family.wwdg))
    probe.run(flags, write(family.csr, family.rmvf), *start, seconds=31.9 * family.tick)
    assert probe.engine.resets == 0
    assert probe.results[1] == 0xDF
    probe.go_on(0.2 * family.tick)
    assert probe.engine.resets == 1
    assert probe.faults == ["watchdog"]
    probe.go_on(1e-3)
    assert probe.results[0] & 0xFFFF_0000 == family.bit | family.pin


@pytest.mark.parametrize(("window", "is_reset"), [(0x60, True), (0x7F, False)])
@each_family
def test_it_must_not_be_reloaded_before_its_window(
    family: Family, window: int, *, is_reset: bool
) -> None:
    probe = ChipProbe(family.chip)
    again = write(family.wwdg, 0xFF)
    probe.run(*set_window(family, window), again, again, seconds=2 * family.tick)
    assert bool(probe.engine.resets) == bool(probe.faults) == is_reset


@each_family
def test_it_is_reloaded_in_its_window(family: Family) -> None:
    probe = ChipProbe(family.chip)
    reload = write(family.wwdg, 0xFF)
    start = (*set_window(family, 0x60), reload, wait(family.wwdg, 0x7F, 0x60), reload)
    probe.run(*start, read(family.wwdg), seconds=90 * family.tick)
    assert (probe.engine.resets, probe.faults) == (0, [])
    assert probe.results == [0xFF]
    probe.go_on(6 * family.tick)
    assert probe.engine.resets == 1


@each_family
def test_it_warns_a_count_before(family: Family) -> None:
    probe, ewi = ChipProbe(family.chip), 1 << 9
    on = (enable_interrupt(0), *set_window(family, flags=ewi), write(family.wwdg, 0xC4))
    look = (read(family.wwdg), read(family.wwdg + 8), write(family.wwdg, 0xFF))
    clear = (write(family.wwdg + 8, 0), read(family.wwdg + 8), *set_window(family))
    values = probe.run(*on, sleep(), *look, *clear, read(family.wwdg + 4), seconds=5 * family.tick)
    assert values == [0xC0, 1, 0, 0x7F | 3 << family.shift | ewi]
    assert probe.interrupts(0) == 1
    assert probe.faults == []


def test_a_count_that_is_too_low_is_a_reset_at_once() -> None:
    probe = ChipProbe("stm32f103xb")
    probe.run(write(0x4000_2C00, 0x3F), read(0x4000_2C00), seconds=1e-3)
    assert (probe.results, probe.engine.resets) == ([0x3F], 0), "it is off"
    probe.run(write(0x4000_2C00, 0x80 | 0x3F), seconds=1e-3)
    assert probe.engine.resets > 0


@pytest.mark.parametrize(
    ("chip", "option", "mask", "hz"),
    [
        ("stm32l476xg", 0x1FFF_7802, 0x08, 80_000_000),
        ("stm32h563xi", 0xF000_0000, 0x10, 250_000_000),
    ],
)
def test_an_option_bit_starts_it_at_the_reset(chip: str, option: int, mask: int, hz: int) -> None:
    probe = ChipProbe(chip)
    probe.run(read(0x4000_2C00), seconds=1.0)
    assert probe.results == [0x7F]
    at = probe.chip.image_offset(option)
    for place in (at, at + 4):  # WWDG_SW, and its complement behind it
        probe.image[place] ^= mask
    probe.run(read(0x4000_2C00), seconds=63 * 4096 / hz)
    assert probe.engine.resets == 0
    assert probe.results == [0xFF]
    probe.go_on(2 * 4096 / hz)
    assert probe.engine.resets == 1


def of_iwdg(family: Family, prescaler: int, reload: int) -> tuple[Step, ...]:
    base = family.iwdg
    return (
        write(base, 0xCCCC),
        write(base, 0x5555),
        write(base + 4, prescaler),
        write(base + 8, reload),
    )


NEWER = [family for family in FAMILIES if family.chip[:7] not in ("stm32f1", "stm32f4")]


@pytest.mark.parametrize("family", NEWER, ids=lambda one: one.chip)
def test_the_independent_watchdog_has_a_window_too(family: Family) -> None:
    """With LSI of 32 kHz, and counts of 4 of its clocks: 125 microseconds."""
    probe, base = ChipProbe(family.chip), family.iwdg
    start = (*of_iwdg(family, 0, 999), write(base + 0x10, 500), read(base + 0x10))
    probe.run(*start, write(base, 0xAAAA), seconds=0.01)
    assert probe.faults[0] == "watchdog"
    late = (*of_iwdg(family, 0, 999), write(base + 0x10, 999), write(base, 0xAAAA))
    assert probe.run(*late, read(base + 0x10), seconds=0.1) == [999]
    assert probe.faults == []


def test_a_reload_in_the_window_of_the_independent_watchdog_is_good() -> None:
    (l4,) = (family for family in FAMILIES if family.chip == "stm32l432xc")
    probe, base, tim2 = ChipProbe(l4.chip), l4.iwdg, 0x4000_0000
    pause = (write(tim2 + 0x28, 79), write(tim2 + 0x14, 1), write(tim2, 1))
    pause += (wait(tim2 + 0x24, 1 << 16, 1 << 16),)  # 65.5 ms: 475 counts are left
    start = (*of_iwdg(l4, 0, 999), write(base + 0x10, 500))
    probe.run(*start, *pause, write(base, 0xAAAA), read(base + 8), seconds=0.12)
    assert (probe.results, probe.faults) == ([999], [])
    probe.go_on(0.08)
    assert probe.faults == ["watchdog"]


def test_the_longest_times_of_an_stm32h5() -> None:
    (h5,) = (family for family in FAMILIES if family.chip == "stm32h563xi")
    probe = ChipProbe(h5.chip)
    probe.run(*of_iwdg(h5, 8, 99), write(h5.iwdg, 0xAAAA), seconds=99 * 1024 / 32_000)
    assert probe.faults == []
    probe.go_on(2 * 1024 / 32_000)
    assert probe.faults == ["watchdog"]


@each_family
def test_power_and_a_brown_out_have_their_flags(family: Family) -> None:
    probe = ChipProbe(family.chip)
    flags = (read(family.csr), write(family.csr, family.rmvf), read(family.csr))
    first, cleared = probe.run(*flags)
    assert first & 0xFFE0_0000 == family.power
    assert cleared & 0xFFE0_0000 == 0
    probe.engine.brown_out()
    assert probe.go_on()[0] & 0xFFE0_0000 == family.brown_out


@pytest.mark.parametrize("chip", ["stm32l476xg", "stm32g071xb"])
def test_the_loading_of_options_has_a_flag(chip: str) -> None:
    (family,) = (one for one in FAMILIES if one.chip == chip)
    probe, flash = ChipProbe(chip), 0x4002_2000
    keys = (write(flash + 8, 0x4567_0123), write(flash + 8, 0xCDEF_89AB))
    keys += (write(flash + 0xC, 0x0819_2A3B), write(flash + 0xC, 0x4C5D_6E7F))
    flags = (read(family.csr), write(family.csr, family.rmvf))
    probe.load(*flags, *keys, write(flash + 0x14, 1 << 27))
    probe.engine.forget()
    probe.engine.power_on()
    for awaited in (lambda: probe.engine.resets, lambda: not probe.results, lambda: probe.results):
        advance_until(probe, awaited)
    assert probe.results[0] & 0xFFE0_0000 == 1 << 25 | PIN


@each_family
def test_backup_registers_outlive_resets_but_not_the_power(family: Family) -> None:
    probe = ChipProbe(family.chip)
    last = family.backup + 4 * (family.count - 1)
    look = (read(family.backup), read(last))
    keep = (write(family.backup, 0x1234_5678), write(last, 0x9ABC))
    width = 0xFFFF if family.chip == "stm32f103xb" else 0xFFFF_FFFF
    assert probe.run(*look, *keep, *look) == [0, 0, 0, 0], "they are protected"
    steps = (*look, write(*family.unlock), *keep, *look)
    assert probe.run(*steps) == [0, 0, 0x1234_5678 & width, 0x9ABC]
    kept = [0x1234_5678 & width, 0x9ABC]
    probe.engine.press_reset()
    assert probe.go_on() == [*kept, *kept]
    probe.engine.brown_out()
    assert probe.go_on() == [*kept, *kept]
    probe.engine.power_off()
    probe.engine.power_on()
    assert probe.go_on()[:2] == [0, 0]


@dataclass(frozen=True)
class Standby:
    """Where a chip has Standby: registers, and bits of them.

    Attributes:
        mode: what asks for it.
        flag: what tells of it.
        clear: what takes the flag away.
    """

    mode: tuple[int, int]
    flag: tuple[int, int]
    clear: tuple[int, int]


_OF_F = Standby((PWR_CR, 1 << 1), (PWR_CR + 4, 1 << 1), (PWR_CR, 1 << 3))
_OF_L4 = Standby((PWR_CR, 3), (PWR_CR + 0x10, 1 << 8), (PWR_CR + 0x18, 1 << 8))
_OF_H5 = Standby((0x4402_0800, 1), (0x4402_0804, 1 << 6), (0x4402_0800, 1 << 7))
_OF_H7 = Standby((0x5802_4810, 7), (0x5802_4810, 1 << 6), (0x5802_4810, 1 << 9))
STANDBY = {"stm32f": _OF_F, "stm32l4": _OF_L4, "stm32g0": _OF_L4, "stm32h5": _OF_H5}
STANDBY["stm32h7"] = _OF_H7


@each_family
def test_standby_loses_the_ram_and_ends_with_a_reset_of_its_own(family: Family) -> None:
    (where,) = (one for name, one in STANDBY.items() if family.chip.startswith(name))
    probe = ChipProbe(family.chip)
    flag, at = read(where.flag[0]), family.backup
    look = (flag, read(family.csr), read(at), read(FREE_RAM))
    steps = (
        *look,
        write(family.csr, family.rmvf),
        write(*where.clear),
        flag,
        write(*family.unlock),
    )
    mode = where.mode[1] | (DBP if where.mode[0] == family.unlock[0] else 0)
    steps += (write(at, 7), write(FREE_RAM, 0x77), write(SCR, 1 << 2), write(where.mode[0], mode))
    probe.load(*steps, sleep())
    probe.engine.power_on()
    advance_until(probe, lambda: probe.engine.resets and len(probe.results) == len(look) + 1)
    flags, reasons, kept, ram, cleared = probe.results
    assert (flags & where.flag[1], cleared & where.flag[1]) == (where.flag[1], 0)
    assert reasons & 0xFFE0_0000 == family.pin, "it was no software"
    assert (kept, ram == 0x77) == (7, False)
    assert probe.engine.now > 0.2


def erase_a_page(chip: str) -> tuple[int, tuple[Step, ...]]:
    """A page, and what erases it."""
    page = {"stm32f103xb": 0x0800_8000, "stm32l476xg": 0x0808_0000, "nrf52840": 0x8000}[chip]
    erase = {
        "stm32f103xb": (
            *(write(0x4002_2004, 0x4567_0123), write(0x4002_2004, 0xCDEF_89AB)),
            *(write(0x4002_2010, 2), write(0x4002_2014, page), write(0x4002_2010, 0x42)),
        ),
        "stm32l476xg": (
            *(write(0x4002_2008, 0x4567_0123), write(0x4002_2008, 0xCDEF_89AB)),
            write(0x4002_2014, 1 << 16 | 1 << 11 | 2),
        ),
        "nrf52840": (write(0x4001_E504, 2), write(0x4001_E508, page)),
    }[chip]
    return page, erase


@pytest.mark.parametrize("chip", ["stm32f103xb", "stm32l476xg", "nrf52840"])
def test_a_brown_out_tears_what_is_under_way_and_keeps_the_ram(chip: str) -> None:
    page, erase = erase_a_page(chip)
    probe = ChipProbe(chip)
    at = probe.chip.image_offset(page)
    probe.image[at : at + 256] = bytes(256)
    steps = (read(FREE_RAM), write(FREE_RAM, 0x77), *erase)
    probe.run(*steps, from_ram=True, seconds=0.01)
    (op,) = probe.engine.ops
    assert op.end > probe.engine.now
    probe.engine.brown_out()
    probe.engine.advance(1e-6)
    ones = sum(byte.bit_count() for byte in probe.flash(page, 256))
    assert 0 < ones < 8 * 256
    assert probe.go_on(1e-3) == [0x77]
    assert probe.engine.resets == 1


@pytest.mark.parametrize("chip", ["stm32f103xb", "stm32l476xg", "nrf52840"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_brown_out_comes_in_the_middle_of_an_operation_for_which_the_core_waits(
    chip: str, number: int
) -> None:
    page, erase = erase_a_page(chip)
    probe = ChipProbe(chip)
    at = probe.chip.image_offset(page)
    probe.image[at : at + 256] = bytes(256)
    steps = (read(FREE_RAM), write(FREE_RAM, 0x77), *erase)
    probe.load(*steps, *(steps[2:] if number else ()))
    probe.engine.forget()
    probe.engine.brown_out_in_op(number)
    probe.engine.power_on()
    advance_until(probe, lambda: probe.engine.op_count > number)
    op = probe.engine.ops[number]
    assert probe.engine.now == pytest.approx((op.start + op.end) / 2, abs=2e-6)
    ones = sum(byte.bit_count() for byte in probe.flash(page, 256))
    assert (ones == 8 * 256) == bool(number), "what was erased before is torn, and blank"
    assert ones > 0
    assert probe.go_on(1.0) == [0x77]
    assert probe.engine.resets == 1
    assert probe.flash(page, 256) == b"\xff" * 256, "nothing comes twice"


def test_nothing_is_begun_after_a_brown_out_until_the_chip_is_reset() -> None:
    probe, flash, word = ChipProbe("stm32f411xe"), 0x4002_3C00, 0x0802_0000
    keys = (write(flash + 4, 0x4567_0123), write(flash + 4, 0xCDEF_89AB))
    both = write(word, 0, size=8)  # STRD: two words, and a program for each
    probe.load(*keys, write(flash + 0x10, 0x201), both)
    probe.engine.forget()
    probe.engine.brown_out_in_op(0)
    probe.engine.power_on()
    advance_until(probe, lambda: probe.engine.op_count)
    assert probe.engine.op_count == 1
    first, second = probe.flash(word, 4), probe.flash(word + 4, 4)
    assert first not in (bytes(4), b"\xff" * 4)
    assert second == b"\xff" * 4


def test_a_brown_out_leaves_a_chip_beside_it_alone(tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text(NOR, encoding="utf-8")
    probe, cells = ChipProbe(str(tmp_path / "board.toml")), 0xA000_0000
    at = probe.chip.image_offset(cells)
    probe.image[at : at + 256] = bytes(256)
    spi, bsrr, pin = 0x4001_3000, 0x4002_0018, 1 << 4
    on = (write(bsrr, pin), write(0x4002_0000, 0xA800_0100), write(spi, 0x354))
    erase: tuple[Step, ...] = ()
    for command in ((0x06,), (0x20, 0, 0, 0)):
        erase += (write(bsrr, pin << 16),)
        for byte in command:
            erase += (write(spi + 0xC, byte), wait(spi + 8, 1, 1), wait(spi + 0xC, 0, 0))
        erase += (write(bsrr, pin),)
    probe.run(*on, *erase, seconds=0.01)
    (op,) = probe.engine.ops
    assert op.end > probe.engine.now
    probe.engine.brown_out()
    probe.engine.cut_before_op(1)
    probe.go_on(op.end - probe.engine.now + 0.001)
    assert probe.flash(cells, 256) == b"\xff" * 256


def test_without_power_there_is_no_brown_out() -> None:
    with pytest.raises(EngineError, match="without power"):
        ChipProbe("stm32f103xb").engine.brown_out()
