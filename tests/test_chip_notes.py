"""Which units of the flash had a say, access by access, for each flash controller."""

from __future__ import annotations

import pytest
import test_chip_flash_nrf as nrf
import test_chip_flash_stm32f1 as f1
import test_chip_flash_stm32f4 as f4
from chip_probe import FREE_RAM, SCRIPT_OFFSET, ChipProbe, Step, read, write

from unbrick.campaign.book import UNIT
from unbrick.engine.base import NoteSource

WINDOW = 64
"""Units that are looked at, from MAIN on."""


def list_noted(
    probe: ChipProbe, main: int, *steps: Step, sources: NoteSource = NoteSource.ALL
) -> list[int]:
    """The units from ``main`` on that have a say in a session with these steps."""
    probe.engine.power_off()
    probe.engine.note_reads(sources)
    probe.run(*steps)
    window = probe.engine.relevant >> probe.chip.image_offset(main) // UNIT
    return [unit for unit in range(WINDOW) if window >> unit & 1]


def f1_program(offset: int, value: int) -> tuple[Step, ...]:
    return (write(f1.CR, f1.PG), write(f1.MAIN + offset, value, 2), f1.READY)


def f4_program(offset: int) -> tuple[Step, ...]:
    store = write(f4.MAIN + offset, 1)
    return (*f4.UNLOCK, write(f4.CR, f4.PG | f4.X32), store, f4.READY)


@pytest.mark.parametrize(
    ("steps", "noted"),
    [
        ((read(f1.MAIN + 8),), [2]),
        ((read(f1.MAIN + 9, 1), read(f1.MAIN + 14, 2)), [2, 3]),
        ((read(f1.MAIN - 0x0800_0000 + 4),), [1]),
        ((*f1.UNLOCK, *f1.erase(f1.MAIN), f1.READY, read(f1.MAIN)), []),
        ((*f1.UNLOCK, read(f1.MAIN), *f1.erase(f1.MAIN), f1.READY, read(f1.MAIN + 4)), [0]),
        ((*f1.UNLOCK, *f1_program(4, 1)), [1]),
        ((*f1.UNLOCK, *f1_program(4, 0)), []),
        ((*f1.UNLOCK, *f1_program(4, 0), read(f1.MAIN + 4)), [1]),
        ((*f1.UNLOCK, *f1.erase(f1.MAIN), *f1_program(4, 1), read(f1.MAIN + 4)), []),
    ],
)
def test_a_say_ends_with_an_erase(steps: tuple[Step, ...], noted: list[int]) -> None:
    """An STM32F1 refuses to program over what is not blank, with anything but 0."""
    assert list_noted(ChipProbe("stm32f103xb"), f1.MAIN, *steps) == noted


def test_until_an_erase_has_ended_what_was_there_has_a_say() -> None:
    probe = ChipProbe("stm32f103xb")
    probe.load(*f1.UNLOCK, *f1.erase(f1.MAIN), read(f1.MAIN), f1.READY, read(f1.MAIN + 4))
    probe.engine.note_reads()
    probe.engine.power_on()
    probe.go_on()
    assert not probe.engine.relevant >> 0x8000 // UNIT & 3
    steps = (*f1.UNLOCK, *f1.erase(f1.MAIN), read(f1.MAIN), f1.READY, read(f1.MAIN + 4))
    probe.load(*steps, from_ram=True)
    probe.engine.note_reads()
    probe.engine.power_on()
    probe.go_on()
    assert probe.engine.relevant >> 0x8000 // UNIT & 3 == 1


def test_an_stm32f4_looks_at_what_it_programs() -> None:
    probe = ChipProbe("stm32f411xe")
    assert list_noted(probe, f4.MAIN, *f4_program(8)) == [2]
    assert list_noted(probe, f4.MAIN, read(f4.MAIN + 4)) == [1]


@pytest.mark.parametrize(("name", "limit"), [("nrf52832", 181 - 128), ("nrf52840", None)])
def test_an_nrf52_counts_writes_when_they_could_be_too_many(name: str, limit: int | None) -> None:
    """The second write of a word may be one too many after a first one that the cells tell of."""
    probe = ChipProbe(name)
    assert list_noted(probe, nrf.MAIN, *nrf.program(nrf.MAIN, 1)) == []
    assert list_noted(probe, nrf.MAIN, *nrf.program(nrf.MAIN, 1), read(nrf.MAIN)) == [0]
    assert list_noted(probe, nrf.MAIN, *2 * nrf.program(nrf.MAIN + 4, 1)) == [1]
    many = nrf.program(nrf.MAIN, *range(54))
    assert list_noted(probe, nrf.MAIN, *many[: limit and limit + 1], *many[-2:]) == []
    noted = list_noted(probe, nrf.MAIN, *many)
    assert noted == (list(range(WINDOW)) if limit else [])


@pytest.mark.parametrize(
    ("name", "main"),
    [("stm32f103xb", f1.MAIN), ("stm32f411xe", f4.MAIN), ("nrf52832", nrf.MAIN)],
)
def test_each_source_is_noted(name: str, main: int) -> None:
    probe = ChipProbe(name)
    base = probe.chip.main.base
    assert list_noted(probe, base, sources=NoteSource.TRANSFERS)[:2] == [0, 1]  # SP and reset
    assert list_noted(probe, base, sources=NoteSource.FETCHES) == []  # vectors alone are there
    fetched = probe.engine.relevant
    assert 0 < fetched < 1 << probe.chip.image_offset(base + SCRIPT_OFFSET) // UNIT
    # Of a script without steps: whether it runs from RAM, and that it has ended.
    assert list_noted(probe, base + SCRIPT_OFFSET, sources=NoteSource.LOADS) == [0, 1]
    probe.engine.power_off()
    probe.engine.note_reads(NoteSource.HOST)
    assert probe.engine.read_memory(main + 4, 8)
    assert probe.engine.relevant == 0b11 << probe.chip.image_offset(main + 4) // UNIT


def test_code_in_ram_and_what_ram_holds_have_no_say() -> None:
    probe = ChipProbe("stm32f103xb")
    steps = (write(FREE_RAM, 7), read(FREE_RAM))
    assert list_noted(probe, f1.MAIN, *steps) == []
    assert probe.results == [7]


def test_options_have_a_say_when_they_are_loaded() -> None:
    for name, options, size in (("stm32f103xb", f1.OPTIONS, 16), ("stm32f411xe", f4.OPTIONS, 16)):
        probe = ChipProbe(name)
        assert list_noted(probe, options) == list(range(size // UNIT))
