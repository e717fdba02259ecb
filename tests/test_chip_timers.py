"""Clocks, timers, watchdogs and registers without a model, seen by real code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chip_probe import (
    FREE_RAM,
    GAVE_UP,
    ChipProbe,
    Step,
    enable_interrupt,
    read,
    sleep,
    wait,
    write,
)

from unbrick.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POWER, RTC1, TIMER0, RNG, WDT = 0x4000_0000, 0x4001_1000, 0x4000_8000, 0x4000_D000, 0x4001_0000
IWDG, F1_CSR, F4_CSR, AIRCR = 0x4000_3000, 0x4002_1024, 0x4002_3874, 0xE000_ED0C
RESET_NOW = write(AIRCR, 0x05FA_0004)
PPI, TIMER1 = 0x4001_F000, 0x4000_9000
TIM2, TIM_CR1, TIM_DIER, TIM_SR, TIM_EGR = 0x4000_0000, 0x00, 0x0C, 0x10, 0x14
TIM_CNT, TIM_PSC, TIM_ARR, TIM_CCR1 = 0x24, 0x28, 0x2C, 0x34
MICROSECONDS = (write(TIM2 + TIM_PSC, 71), write(TIM2 + TIM_EGR, 1), write(TIM2 + TIM_SR, 0))
"""TIM2 of an STM32F103 counts microseconds."""
SVD = """<?xml version="1.0" encoding="utf-8"?>
<device schemaVersion="1.1">
  <name>toy</name><version>1</version><description>a toy</description>
  <addressUnitBits>8</addressUnitBits><width>32</width><size>32</size>
  <peripherals>
    <peripheral>
      <name>{name}</name><baseAddress>0x40029000</baseAddress>
      <registers>
        <register><name>EVENTS_READY</name><addressOffset>0x100</addressOffset></register>
      </registers>
    </peripheral>
  </peripherals>
</device>
"""


@pytest.fixture
def nrf() -> ChipProbe:
    return ChipProbe("nrf52840")


def test_an_rtc_interrupts_at_a_compare(nrf: ChipProbe) -> None:
    on = (write(POWER + 0x008, 1), wait(POWER + 0x104, 1, 1), enable_interrupt(17))
    start = (write(RTC1 + 0x540, 328), write(RTC1 + 0x304, 1 << 16), write(RTC1, 1), sleep())
    (count,) = nrf.run(*on, *start, read(RTC1 + 0x504))
    assert count == 328
    assert nrf.interrupts(17) == 1
    values = nrf.run(*on, write(RTC1 + 0x508, 32), *start, read(RTC1 + 0x504), seconds=0.2)
    assert values == [], "it is 33 times as slow"
    assert nrf.go_on(0.2) == [328]


def test_an_rtc_overflows_and_ticks(nrf: ChipProbe) -> None:
    overflow = (write(RTC1 + 0x344, 2), write(RTC1 + 0x00C, 1), write(RTC1, 1), read(RTC1 + 0x504))
    assert nrf.run(*overflow, wait(RTC1 + 0x104, 1, 1), read(RTC1 + 0x504)) == [0xFF_FFF0, 0]
    tick = (write(RTC1 + 0x304, 1), write(RTC1, 1), enable_interrupt(17), sleep())
    assert nrf.run(*tick, read(RTC1 + 0x504)) == [1]


def test_a_timer_captures_compares_clears_and_stops(nrf: ChipProbe) -> None:
    setup = (write(TIMER0 + 0x510, 4), write(TIMER0 + 0x508, 3), write(TIMER0 + 0x540, 1000))
    capture = (write(TIMER0 + 0x044, 1), read(TIMER0 + 0x544))
    compare = wait(TIMER0 + 0x140, 1, 1)
    (plain,) = nrf.run(*setup, write(TIMER0, 1), compare, *capture)
    assert 1000 <= plain < 1010, "microseconds"
    (cleared,) = nrf.run(*setup, write(TIMER0 + 0x200, 1), write(TIMER0, 1), compare, *capture)
    assert cleared < 10
    stop = (write(TIMER0 + 0x200, 1 << 8), write(TIMER0, 1), compare, *capture)
    assert nrf.run(*setup, *stop) == [1000]
    irq = (enable_interrupt(8), write(TIMER0 + 0x304, 1 << 16), write(TIMER0, 1), sleep(), *capture)
    assert nrf.run(*setup, *irq)[0] >= 1000
    assert nrf.interrupts(8) == 1


def test_a_counter_counts_what_it_is_told(nrf: ChipProbe) -> None:
    mode = (write(TIMER0 + 0x504, 1), write(TIMER0 + 0x540, 2), write(TIMER0, 1))
    count = write(TIMER0 + 0x008, 1)
    steps = (
        count,
        read(TIMER0 + 0x140),
        count,
        read(TIMER0 + 0x140),
        count,
        write(TIMER0 + 0x44, 1),
    )
    assert nrf.run(*mode, *steps, read(TIMER0 + 0x544)) == [0, 1, 3]


def connect(channel: int, event: int, task: int, fork: int = 0) -> tuple[Step, ...]:
    """A channel of the PPI, switched on."""
    place = PPI + 0x510 + 8 * channel
    ends = (write(place, event), write(place + 4, task), write(PPI + 0x910 + 4 * channel, fork))
    return (*ends, write(PPI + 0x504, 1 << channel))


def test_an_event_triggers_tasks_without_code(nrf: ChipProbe) -> None:
    compare, capture = TIMER0 + 0x140, TIMER1 + 0x040
    timers = (write(TIMER0 + 0x540, 500), write(TIMER1 + 0x508, 3), write(TIMER1, 1))
    channel = connect(3, compare, capture, fork=TIMER0 + 0x004)
    steps = (*timers, write(TIMER0 + 0x304, 1 << 16), write(TIMER0, 1), wait(compare, 1, 1))
    stopped = (write(TIMER0 + 0x044, 1), read(TIMER0 + 0x544), read(TIMER1 + 0x540))
    count, captured = nrf.run(*channel, *steps, *stopped)
    assert count == 500
    assert 500 <= captured < 510
    off = write(PPI + 0x508, 1 << 3)
    count, captured = nrf.run(*channel, off, *steps, *stopped)
    assert count > 500
    assert captured == 0


def test_a_circle_of_events_and_tasks_has_an_end(nrf: ChipProbe) -> None:
    stop, stopped = 0x4000_200C, 0x4000_2158
    on = (write(0x4000_2500, 8), *connect(0, stopped, stop), *connect(1, stopped, 0x4003_0000))
    assert nrf.run(*on, write(stop, 1), read(stopped), read(0x4003_0000)) == [1, 1]


def test_clocks_start_after_a_while(nrf: ChipProbe) -> None:
    low = (write(POWER + 0x518, 1), write(POWER + 0x008, 1), read(POWER + 0x418))
    assert nrf.run(*low, wait(POWER + 0x104, 1, 1), read(POWER + 0x418)) == [0, 0x1_0001]
    high = (write(POWER, 1), read(POWER + 0x40C), wait(POWER + 0x100, 1, 1), read(POWER + 0x40C))
    assert nrf.run(*high) == [0, 0x1_0001]
    on = (
        enable_interrupt(0),
        write(POWER + 0x304, 1),
        write(POWER, 1),
        sleep(),
        read(POWER + 0x100),
    )
    assert nrf.run(*on) == [1]


def test_random_numbers_are_the_same_each_time(nrf: ChipProbe) -> None:
    take = (wait(RNG + 0x100, 1, 1), write(RNG + 0x100, 0), read(RNG + 0x508))
    first = nrf.run(write(RNG, 1), *take * 8)
    assert len(set(first)) > 4
    assert nrf.run(write(RNG, 1), *take * 8) == first


def restart(probe: ChipProbe, count: int, *steps: Step, after: float = 0.0) -> list[int]:
    """The first values that are read after the reset that comes soon ``after`` so many seconds."""
    probe.load(*steps)
    probe.engine.forget()
    probe.engine.power_on()
    probe.engine.advance(max(after, 1e-6))
    assert probe.engine.resets == 0
    for awaited in (lambda: probe.engine.resets, lambda: not probe.results):
        advance_until(probe, awaited)
    advance_until(probe, lambda: len(probe.results) >= count)
    return probe.results[:count]


def advance_until(probe: ChipProbe, awaited: Callable[[], object]) -> None:
    """Go on by microseconds."""
    for _ in range(1000):
        if awaited():
            return
        probe.engine.advance(1e-6)
    raise AssertionError("it does not come")


def test_an_nrf_tells_why_it_was_reset(nrf: ChipProbe) -> None:
    reason, kept = read(POWER + 0x400), read(POWER + 0x51C)
    assert nrf.run(reason) == [0]
    assert restart(nrf, 2, reason, kept, write(POWER + 0x51C, 0x5A), RESET_NOW) == [4, 0x5A]
    bark = (write(WDT + 0x504, 32767), write(WDT, 1), write(POWER + 0x51C, 1))
    assert restart(nrf, 2, reason, kept, *bark, after=1.0) == [2, 0]
    assert "watchdog" in nrf.faults
    reload = (write(WDT + 0x504, 3276), write(WDT, 1), *(write(WDT + 0x600, 0x6E52_4635),) * 3)
    nrf.run(*reload, seconds=0.05)
    assert nrf.faults == []


@pytest.mark.parametrize(
    ("chip", "csr", "power", "hz"),
    [
        ("stm32f103xb", F1_CSR, 0x0C00_0000, 40_000),
        ("stm32f411xe", F4_CSR, 0x0E00_0000, 32_000),
    ],
)
def test_an_stm32_tells_why_it_was_reset(chip: str, csr: int, power: int, hz: int) -> None:
    probe = ChipProbe(chip)
    assert probe.run(read(csr)) == [power]
    assert restart(probe, 1, read(csr), write(csr, 1 << 24), RESET_NOW) == [0x1400_0000]
    set_up = (write(IWDG, 0x5555), write(IWDG + 4, 1), write(IWDG + 8, 999), write(IWDG, 0xCCCC))
    probe.run(*set_up, read(IWDG + 8), seconds=7990 / hz)
    assert probe.engine.resets == 0
    probe.go_on(20 / hz)
    assert probe.engine.resets == 1
    assert probe.faults == ["watchdog"]
    assert restart(probe, 1, read(csr), *set_up, after=7999 / hz) == [power | 0x2000_0000]


@pytest.mark.parametrize(
    ("chip", "steps", "after"),
    [
        ("nrf52840", (read(POWER + 0x400), read(POWER + 0x51C), write(POWER + 0x51C, 9)), [1, 0]),
        ("stm32f103xb", (read(F1_CSR), write(F1_CSR, 1 << 24), read(F1_CSR)), [0x0400_0000, 0]),
        ("stm32f411xe", (read(F4_CSR), write(F4_CSR, 1 << 24), read(F4_CSR)), [0x0400_0000, 0]),
    ],
)
def test_a_reset_by_the_pin_is_told_and_keeps_the_ram(
    chip: str, steps: tuple[Step, ...], after: list[int]
) -> None:
    probe = ChipProbe(chip)
    probe.run(*steps, read(FREE_RAM), write(FREE_RAM, 0x77))
    probe.engine.press_reset()
    assert probe.go_on() == [*after, 0x77]
    assert probe.engine.resets == 1
    probe.engine.power_off()
    with pytest.raises(EngineError, match="without power"):
        probe.engine.press_reset()


def test_a_reset_by_the_pin_stops_a_watchdog_and_ends_a_lockup(nrf: ChipProbe) -> None:
    start = (read(WDT + 0x400), write(WDT + 0x504, 1 << 20), write(WDT, 1))
    assert restart(nrf, 1, *start, RESET_NOW) == [1], "a soft reset does not stop it"
    assert nrf.run(*start, seconds=0.1) == [0]
    nrf.engine.press_reset()
    assert nrf.go_on(0.1) == [0]
    nrf.engine.power_off()
    nrf.engine.load_nor(bytes.fromhex("00100020 09000000 00de"))
    nrf.engine.power_on()
    for lockups in (1, 2):
        nrf.engine.advance(0.01)
        assert nrf.faults.count("lockup") == lockups
        nrf.engine.press_reset()


@pytest.mark.parametrize(
    ("chip", "option", "value", "seconds"),
    [("stm32f103xb", 0x2_0002, b"\xfe\x01", 0.4096), ("stm32f411xe", 0x8_0000, b"\xcf", 0.512)],
)
def test_an_option_bit_starts_the_watchdog_at_the_reset(
    chip: str, option: int, value: bytes, seconds: float
) -> None:
    probe = ChipProbe(chip)
    probe.run(read(IWDG + 8), seconds=1.0)
    assert probe.engine.resets == 0
    probe.image[option : option + len(value)] = value
    probe.run(read(IWDG + 8), seconds=0.99 * seconds)
    assert probe.engine.resets == 0
    probe.go_on(0.02 * seconds)
    assert probe.engine.resets == 1


@pytest.mark.parametrize("chip", ["stm32f103xb", "stm32f407xg"])
def test_standby_loses_the_ram_and_ends_with_a_reset(chip: str) -> None:
    pwr, scr = 0x4000_7000, 0xE000_ED10
    probe = ChipProbe(chip)
    flags = (read(pwr + 4), write(pwr, 1 << 2 | 1 << 3), read(pwr + 4), read(FREE_RAM))
    steps = (*flags, write(FREE_RAM, 7), write(scr, 1 << 2), write(pwr, 1 << 1))
    probe.run(*steps, write(pwr, 0), sleep(), seconds=1.0)
    assert probe.engine.resets == 0
    first, cleared, kept = restart(probe, 3, *steps, sleep())
    assert first & 3 == 3
    assert cleared & 3 == 0
    assert kept != 7
    assert probe.engine.now > 0.2


def test_ready_follows_enable(nrf: ChipProbe) -> None:
    f1, rcc = ChipProbe("stm32f103xb"), 0x4002_1000
    hse = (
        write(rcc, 0x1_0083),
        wait(rcc, 1 << 17, 1 << 17),
        read(rcc),
        write(rcc, 0x83),
        read(rcc),
    )
    switch = (write(rcc + 4, 2), wait(rcc + 4, 0xC, 0x8), write(rcc + 4, 0xC), read(rcc + 4))
    assert f1.run(read(rcc), *hse, *switch) == [0x83, 0x3_0083, 0x83, 0]
    assert f1.engine.find_vain_registers() == []
    f4, pwr = ChipProbe("stm32f407xg"), 0x4000_7000
    assert f4.run(write(pwr, 0), read(pwr + 4), write(pwr, 0x4000), read(pwr + 4)) == [0, 0x4000]
    assert nrf.run(read(0x4000_C100), write(0x4000_C000, 1), read(0x4000_C100)) == [0, 1]


def test_registers_have_their_values_after_each_reset() -> None:
    f1 = ChipProbe("stm32f103x8")
    assert f1.run(read(0x1FFF_F7E0, 2), read(0xE004_2000), read(0x4002_1014)) == [
        *(64, 0x2003_6410, 0x14),
    ]
    ahbenr = 0x4002_1014
    assert restart(f1, 1, read(ahbenr), write(ahbenr, 0), RESET_NOW) == [0x14]


@pytest.mark.parametrize(("in_file", "name"), [("QSPI", "QSPI.EVENTS_READY"), ("", "")])
def test_a_register_that_is_polled_in_vain_is_named(
    in_file: str, name: str, tmp_path: Path
) -> None:
    svd, qspi_ready = tmp_path / "nrf52840.svd", 0x4002_9100
    svd.write_text(SVD.format(name=in_file), encoding="utf-8")
    nrf = ChipProbe("nrf52840", svd=svd if in_file else None)
    assert nrf.run(wait(qspi_ready, 1, 1), *(read(0x1000_0014),) * 150)[0] == GAVE_UP
    (vain,) = nrf.engine.find_vain_registers(100)
    assert (vain.address, vain.name, vain.count) == (qspi_ready, name, 999_999)


@pytest.fixture
def stm32() -> ChipProbe:
    return ChipProbe("stm32f103xb")


def tim2(offset: int, value: int) -> Step:
    return write(TIM2 + offset, value)


def test_a_timer_of_stm32_counts_with_its_prescaler(stm32: ChipProbe) -> None:
    until_half = wait(TIM2 + TIM_CNT, 1 << 9, 1 << 9)
    stopped = (tim2(TIM_CR1, 0), read(TIM2 + TIM_CNT), read(TIM2 + TIM_CNT))
    values = stm32.run(*MICROSECONDS, tim2(TIM_CR1, 1), until_half, *stopped, seconds=0.0005)
    assert values == [], "microseconds"
    first, second = stm32.go_on(0.0002)
    assert 512 <= first < 520
    assert second == first


def test_a_timer_of_stm32_interrupts_when_it_begins_again(stm32: ChipProbe) -> None:
    start = (tim2(TIM_ARR, 999), tim2(TIM_DIER, 1), enable_interrupt(28), tim2(TIM_CR1, 1))
    stop = (tim2(TIM_CR1, 0), read(TIM2 + TIM_SR), tim2(TIM_SR, 0), read(TIM2 + TIM_SR))
    assert stm32.run(*MICROSECONDS, *start, sleep(), *stop, seconds=0.001) == []
    assert stm32.go_on(0.0002) == [0x1F, 0], "the compares at 0 have come, too"
    assert stm32.interrupts(28) >= 1


def test_a_timer_of_stm32_compares(stm32: ChipProbe) -> None:
    start = (tim2(TIM_CCR1, 300), tim2(TIM_DIER, 2), enable_interrupt(28), tim2(TIM_CR1, 1))
    stop = (tim2(TIM_DIER, 0), read(TIM2 + TIM_CNT), read(TIM2 + TIM_SR))
    count, flags = stm32.run(*MICROSECONDS, *start, sleep(), *stop)
    assert 300 <= count < 310
    assert flags & 3 == 2


def test_a_timer_of_stm32_that_nobody_looks_at_keeps_its_count(stm32: ChipProbe) -> None:
    start = (*MICROSECONDS, tim2(TIM_ARR, 0x2FF), tim2(TIM_CR1, 1))
    other = 0x4000_0400
    pause = (write(other + TIM_PSC, 71), write(other + TIM_EGR, 1), write(other + TIM_CR1, 1))
    pause += (wait(other + TIM_CNT, 1 << 13, 1 << 13),)
    count, flags = stm32.run(*start, *pause, read(TIM2 + TIM_CNT), read(TIM2 + TIM_SR))
    assert 8192 % 768 <= count < 8192 % 768 + 20
    assert flags & 1


def test_a_timer_of_stm32_takes_over_what_is_preloaded(stm32: ChipProbe) -> None:
    preloaded = (tim2(TIM_CR1, 0x81), tim2(TIM_ARR, 99), wait(TIM2 + TIM_CNT, 0x80, 0x80))
    assert stm32.run(*MICROSECONDS, *preloaded, read(TIM2 + TIM_SR)) == [0]
    at_once = (tim2(TIM_CR1, 0x01), tim2(TIM_ARR, 99), wait(TIM2 + TIM_SR, 1, 1))
    assert stm32.run(*MICROSECONDS, *at_once, read(TIM2 + TIM_CNT))[0] < 10


def test_a_timer_of_stm32_counts_once(stm32: ChipProbe) -> None:
    once = (tim2(TIM_ARR, 99), tim2(TIM_CR1, 0x09), wait(TIM2 + TIM_CR1, 1, 0))
    assert stm32.run(*MICROSECONDS, *once, read(TIM2 + TIM_CNT)) == [0]


def test_a_timer_of_stm32_may_be_wide() -> None:
    wide, narrow = ChipProbe("stm32f407xg"), ChipProbe("stm32f103xb")
    steps = (tim2(TIM_CNT, 0x12_3456), read(TIM2 + TIM_CNT), read(TIM2 + TIM_ARR))
    assert wide.run(*steps) == [0x12_3456, 0xFFFF_FFFF]
    assert narrow.run(*steps) == [0x3456, 0xFFFF]


def test_can_and_usb_of_stm32_say_that_they_are_ready() -> None:
    mcr, msr, reset_control = 0x4000_6400, 0x4000_6404, 0x5000_0010
    probe = ChipProbe("stm32f407xg")
    can = (write(mcr, 1), wait(msr, 3, 1), write(mcr, 0), wait(msr, 3, 0))
    usb = (write(reset_control, 0x1), wait(reset_control, 0x8000_0001, 0x8000_0000))
    assert GAVE_UP not in probe.run(*can, *usb, read(reset_control))
