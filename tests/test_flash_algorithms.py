"""Vendors' flash algorithms erase and program the models as they do the chips."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from chip_probe import FREE_RAM, STATIC_BASE, ChipProbe, Step, call, copy, write
from corpus import why_no_clone
from flash_algorithms import (
    ERASE,
    PROGRAM,
    FlashAlgorithm,
    read_algorithm,
    read_cloned_algorithm,
)

from unbrick.board import load_chip

PAGE = Path(__file__).parents[1] / "docs" / "chips.md"

CODE_AT, DATA_AT = 0x2000, 0x3000
"""Offsets in the flash from which the algorithm and what is to be programmed are copied."""

CODE, DATA = FREE_RAM, FREE_RAM + 0x1000
"""Where they go in the RAM."""


@dataclass(frozen=True)
class Chip:
    """A chip, the target of `pyocd` whose algorithm is for it, and where it is tried.

    Attributes:
        name: of the chip.
        target: of `pyocd`.
        address: where a sector begins.
        sector: its size in bytes.
        page: how much is programmed at once, in bytes.
        erase_refused: what the algorithm returns for an erase that the chip refuses. Those for
            STM32F1 and nRF52 look at nothing but whether the flash is ready.
        program_refused: what it returns for such a program.
        unaligned_refused: what for one that is not aligned, which it does not try; None: it does.
        locked: whether a flash that `Init` has not opened refuses an erase.
        option: address of an option byte that is 0 in the bit of ``option_bit`` where the sector is
            protected (of an STM32F1 its complement is behind it); None: registers protect it.
        option_bit: which one.
        protects: whether what protects its flash has a model.
        opened: whether the algorithm itself wants `Init` to have been called.
        wraps: whether what is not aligned goes round in its page, and is no error.
        series: the file of probe-rs that has the algorithm; empty: it comes with `pyocd`.
        relock: register and value that lock the flash again, since the algorithm finds its
            registers in `Init`; None: it needs no `Init`.
    """

    name: str
    target: str
    address: int
    sector: int
    page: int
    erase_refused: int
    program_refused: int
    unaligned_refused: int | None = None
    locked: bool = False
    option: int | None = None
    option_bit: int = 0
    protects: bool = True
    opened: bool = False
    wraps: bool = False
    series: str = ""
    relock: tuple[int, int] | None = None

    @property
    def wants_blank(self) -> bool:
        """Whether the chip refuses to program what is not erased; the others clear bits."""
        return self.name.startswith(("stm32f1", "stm32l4", "stm32g0"))


F1_WRP, F4_WRP, L4_WRP, H7_WRP = 0x1FFF_F808, 0x1FFF_C008, 0x1FFF_7818, 0xF000_0010
H5_WRP = 0xF000_0020
"""Option bytes that protect sectors: PM0075 2.5; RM0090, "Flash option bytes"; RM0351 3.4.1; where
the chip's file has those of an STM32H7."""

RP_STATUS = 0xF000_0000
"""Where the chip's file has the status registers of an RP2040's flash, inverted."""

CHIPS = [
    Chip(
        *("rp2040", "rp2", 0x101F_0000, 4096, 256),
        erase_refused=0,
        program_refused=0,
        option=RP_STATUS,
        option_bit=4,  # BP2: the last quarter
        opened=True,
        wraps=True,
    ),
    Chip(
        *("stm32f103xb", "STM32F103RC", 0x0800_8000, 1024, 1024),
        erase_refused=0,
        program_refused=1,
        option=F1_WRP + 2,
    ),
    Chip(
        *("stm32f103x8", "STM32F103RC", 0x0800_7C00, 1024, 1024),
        erase_refused=0,
        program_refused=1,
        option=F1_WRP,
        option_bit=7,
    ),
    Chip(
        *("stm32f407xg", "STM32F412xx", 0x0801_0000, 0x1_0000, 2048),
        erase_refused=1,
        program_refused=1,
        locked=True,
        option=F4_WRP,
        option_bit=4,
    ),
    Chip(
        *("stm32f411xe", "STM32F412xx", 0x0802_0000, 0x2_0000, 2048),
        erase_refused=1,
        program_refused=1,
        locked=True,
        option=F4_WRP,
        option_bit=5,
    ),
    *(
        Chip(
            *(name, target, 0x0801_0000, 2048, 1024),
            erase_refused=1,
            program_refused=1,
            locked=True,
            option=L4_WRP,
        )
        for name, target in (("stm32l476xg", "STM32L475xx"), ("stm32l432xc", "STM32L432xx"))
    ),
    Chip(
        *("stm32h743xi", "STM32H743xx", 0x0802_0000, 0x2_0000, 1024),
        erase_refused=0,
        program_refused=0,
        locked=True,
        option=H7_WRP,
        option_bit=1,
    ),
    Chip(
        *("nrf51822", "nRF51822_xxAA", 0x2_0000, 1024, 1024),
        erase_refused=0,
        program_refused=0,
        protects=False,
    ),
    Chip("nrf52832", "nRF52832_xxAA", 0x2_0000, 4096, 2048, erase_refused=0, program_refused=0),
    Chip(
        *("nrf52833", "nRF52833_xxAA", 0x4_0000, 4096, 2048),
        erase_refused=0,
        program_refused=104,  # since it reads back what it has programmed
        unaligned_refused=101,
        locked=True,
    ),
    Chip("nrf52840", "nRF52840_xxAA", 0x8_0000, 4096, 2048, erase_refused=0, program_refused=0),
    *(
        Chip(
            *(name, "stm32g0bx_512", 0x0801_0000, 2048, 1024),
            erase_refused=1,
            program_refused=1,
            locked=True,
            option=L4_WRP,
            series="STM32G0_Series",
        )
        for name in ("stm32g071xb", "stm32g0b1xe")
    ),
    Chip(
        *("stm32h563xi", "stm32h5xx_2m_0800", 0x0802_0000, 8192, 1024),
        erase_refused=1,
        program_refused=1,
        locked=True,
        option=H5_WRP,
        option_bit=4,  # the fifth group of four sectors
        series="STM32H5_Series",
        relock=(0x4002_2028, 1),
    ),
]

BPROT_CONFIG1, BPROT_DEBUG = 0x4000_0604, 0x4000_0608
ACL = 0x4001_E800
"""Registers that protect pages: BPROT of the nRF52832, ACL of the nRF52840 (their PS)."""


@dataclass
class Programmer:
    """A debugger that has loaded an algorithm."""

    chip: Chip
    probe: ChipProbe
    algorithm: FlashAlgorithm

    def run(self, *steps: Step, data: bytes = b"") -> list[int]:
        """Load the algorithm and ``data``, and do the steps; what the functions return."""
        image, code = self.probe.image, self.algorithm.code
        image[CODE_AT : CODE_AT + len(code)] = code
        image[DATA_AT : DATA_AT + len(data)] = data
        base = self.probe.chip.main.base
        return self.probe.run(
            copy(CODE, base + CODE_AT, len(code)),
            copy(DATA, base + DATA_AT, len(data)),
            write(STATIC_BASE, CODE + self.algorithm.static_base),
            *steps,
            from_ram=self.probe.chip.boot_rom is not None,  # which stops reads of the flash
        )

    def begin(self, purpose: int) -> Step:
        return call(CODE + self.algorithm.init, self.probe.chip.main.base, 8_000_000, purpose)

    def erase(self, address: int) -> Step:
        return call(CODE + self.algorithm.erase_sector, address)

    def program(self, address: int, length: int) -> Step:
        return call(CODE + self.algorithm.program_page, address, length, DATA)

    def protect(self) -> tuple[Step, ...]:
        """Have the sector protected; the steps that must come first."""
        chip, image = self.chip, self.probe.image
        if chip.option is not None:
            at = self.probe.chip.image_offset(chip.option)
            if chip.option == L4_WRP:  # the first and the last page of an area
                page = (chip.address - self.probe.chip.main.base) // chip.sector
                word = page | page << 16
                image[at : at + 8] = struct.pack("<II", word, word ^ 0xFFFF_FFFF)
                return ()
            image[at] &= ~(1 << chip.option_bit)
            if chip.option != F4_WRP:
                complement = at + (4 if chip.option in (H5_WRP, H7_WRP) else 1)
                image[complement] |= 1 << chip.option_bit
            return ()
        if chip.name == "nrf52832":
            return (write(BPROT_DEBUG, 0), write(BPROT_CONFIG1, 1 << chip.address // 4096 % 32))
        return (write(ACL, chip.address), write(ACL + 4, chip.sector), write(ACL + 8, 2))

    @property
    def sector(self) -> bytes:
        return self.probe.flash(self.chip.address, self.chip.sector)


NO_CLONE = why_no_clone(lambda: read_cloned_algorithm("STM32G0_Series", "stm32g0bx_512"))


@pytest.fixture(
    params=[chip for chip in CHIPS if not chip.series or not NO_CLONE], ids=lambda chip: chip.name
)
def programmer(request: pytest.FixtureRequest) -> Programmer:
    chip: Chip = request.param
    return make_programmer(chip, ChipProbe(chip.name))


def make_programmer(chip: Chip, probe: ChipProbe) -> Programmer:
    """A debugger that has loaded what is for a chip's main flash; its sector is full."""
    if chip.series:
        algorithm = read_cloned_algorithm(chip.series, chip.target)
    else:
        algorithm = read_algorithm(chip.target)
    if algorithm is None:
        pytest.skip("pyocd is not installed: pip install pyocd==0.46.0")
    start = chip.address - probe.chip.main.base
    probe.image[start : start + chip.sector] = bytes(chip.sector)
    return Programmer(chip, probe, algorithm)


def test_the_page_has_each_chip_and_its_algorithm() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("own code as judge")[2]
    rows = re.findall(r"^\| (`[^|]+`) \| `(\w+)` \| ([^\n]+) \|$", page, re.MULTILINE)
    said = {
        name: [target, *words.split(" | ")]
        for names, target, words in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    for chip in CHIPS:
        refused = (("of an erase", chip.erase_refused), ("of a program", chip.program_refused))
        kinds = [kind for kind, code in refused if code]
        told = " and ".join(kinds) or "nothing"
        assert said.pop(chip.name) == [chip.target, *list_passed(chip), told]
    assert not said


def test_the_clone_is_there() -> None:
    """Without it, algorithms of the chips with a series are not tried."""
    if NO_CLONE:
        pytest.skip(NO_CLONE)


def test_an_algorithm_of_a_clone_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "probe-rs" / "probe-rs" / "targets"
    folder.mkdir(parents=True)
    (folder / "Toy.yaml").write_text(
        "flash_algorithms:\n- name: other\n  instructions: AAAA\n- name: toy\n"
        "  description: a toy\n  instructions: AQIDBA==\n  pc_init: 0x1\n"
        "  pc_program_page: 0x15f\n  pc_erase_sector: 0xe1\n  data_section_offset: 0x1e0\n"
        "  flash_properties:\n    page_size: 0x400\n- name: last\n  instructions: BBBB\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("UNBRICK_CORPUS", str(tmp_path))
    found = read_cloned_algorithm("Toy", "toy")
    assert found == FlashAlgorithm(b"\1\2\3\4", 0x1, 0xE1, 0x15F, 0x1E0)
    with pytest.raises(LookupError, match="no flash algorithm wanted"):
        read_cloned_algorithm("Toy", "wanted")


def list_passed(chip: Chip) -> tuple[str, ...]:
    """What the page says of a chip, as the tests below have it."""
    refused = "refused"
    core = load_chip(chip.name).core
    unaligned = "goes round" if chip.wraps else "the core refuses" if is_strict(core) else refused
    return (
        "yes",  # erased, programmed, verified
        unaligned,
        refused if chip.wants_blank else "loses bits",
        refused if chip.protects else "no model",
        refused if chip.locked or chip.opened else "opens it",
    )


def is_strict(core: str) -> bool:
    """Whether a core refuses every access that is not aligned."""
    return core.startswith("cortex-m0")


@pytest.mark.slow
def test_a_sector_is_erased_and_programmed(programmer: Programmer) -> None:
    chip = programmer.chip
    data = Random(chip.name).randbytes(chip.page)
    returned = programmer.run(
        programmer.begin(ERASE),
        programmer.erase(chip.address),
        programmer.begin(PROGRAM),
        programmer.program(chip.address, len(data)),
        data=data,
    )
    assert returned == [0, 0, 0, 0]
    assert programmer.sector == data.ljust(chip.sector, b"\xff")
    assert programmer.probe.faults == []


def test_what_is_not_erased_does_not_come_to_hold_the_data(programmer: Programmer) -> None:
    chip, probe = programmer.chip, programmer.probe
    data = Random(chip.name).randbytes(chip.page)
    steps = programmer.begin(PROGRAM), programmer.program(chip.address, len(data))
    says_so = chip.wants_blank or chip.name == "nrf52833"  # which looks at what it has programmed
    assert programmer.run(*steps, data=data) == [0, chip.program_refused if says_so else 0]
    assert programmer.sector == bytes(chip.sector)
    if not chip.name.startswith("nrf"):  # which is silent when no word is written too often
        assert set(probe.faults) == {"flash-dirty"}


@pytest.mark.slow
def test_what_is_not_aligned_is_not_programmed(programmer: Programmer) -> None:
    chip, probe = programmer.chip, programmer.probe
    if chip.wraps:
        pytest.skip("what is not aligned goes round in its page")
    if is_strict(probe.chip.core):
        pytest.skip("the core itself refuses what is not aligned")
    data = Random(chip.name).randbytes(16)
    returned = programmer.run(
        programmer.begin(ERASE),
        programmer.erase(chip.address),
        programmer.begin(PROGRAM),
        programmer.program(chip.address + 1, len(data)),
        data=data,
    )
    unaligned = chip.unaligned_refused
    assert returned == [0, 0, 0, chip.program_refused if unaligned is None else unaligned]
    assert programmer.sector == b"\xff" * chip.sector
    # An L4 does nothing more until its error flag is cleared.
    after = {"flash-command"} if chip.name.startswith("stm32l4") else set()
    assert set(probe.faults) == ({"flash-width", *after} if unaligned is None else set())


@pytest.mark.slow
def test_a_protected_sector_stays_as_it_is(programmer: Programmer) -> None:
    chip, probe = programmer.chip, programmer.probe
    if not chip.protects:
        pytest.skip("what protects the flash of this chip has no model")
    first = programmer.protect()
    returned = programmer.run(*first, programmer.begin(ERASE), programmer.erase(chip.address))
    assert returned == [0, chip.erase_refused]
    assert programmer.sector == bytes(chip.sector)
    assert set(probe.faults) == {"flash-protected"}


def test_a_locked_flash_stays_as_it_is(programmer: Programmer) -> None:
    """The algorithms for STM32F1 and nRF52 open the flash for each operation themselves."""
    chip, probe = programmer.chip, programmer.probe
    first = (programmer.begin(ERASE), write(*chip.relock)) if chip.relock else ()
    *_, returned = programmer.run(*first, programmer.erase(chip.address))
    if chip.opened:
        assert returned == 1
        assert programmer.sector == bytes(chip.sector)
        assert probe.faults == []
    elif chip.locked:
        assert programmer.sector == bytes(chip.sector)
        assert set(probe.faults) == {"flash-locked"}
    else:
        assert programmer.sector == b"\xff" * chip.sector
        assert probe.faults == []


@dataclass(frozen=True)
class Options:
    """An algorithm of probe-rs for option bytes.

    Attributes:
        chip: its name; the sector of its row above is to be protected.
        series: the file that has the algorithm.
        name: of it there.
        base: where the option bytes are.
        words: what it is given: registers in its order, or what lies there on an STM32F1.
    """

    chip: str
    series: str
    name: str
    base: int
    words: tuple[int, ...]


_F1, _F4, _L4, _G0 = (f"STM32{family}_Series" for family in ("F1", "F4", "L4", "G0"))
_PAGE, _NONE = 32 | 32 << 16, 0xFF  # the first and the last page of an area
_L4_OPTR, _G0_OPTR = 0xFFEF_F8AA, 0xDFFF_E1AA
OPTIONS = [
    Options(
        *("stm32f103xb", _F1, "stm32f10x_opt", 0x1FFF_F800),
        (0x00FF_5AA5, 0x00FF_00FF, 0x01FE_00FF, 0x00FF_00FF),
    ),
    Options("stm32f411xe", _F4, "stm32f401xx_opt", 0x1FFF_C000, (0x0FDF_AAED,)),
    Options(
        *("stm32l432xc", _L4, "stm32l4xx_sb_opt", 0x1FFF_7800),
        (_L4_OPTR, 0xFFFF, 0, _PAGE, _NONE),
    ),
    Options(
        *("stm32l476xg", _L4, "stm32l4xx_db_opt", 0x1FFF_7800),
        (_L4_OPTR, 0xFFFF, 0, _PAGE, _NONE, 0xFFFF, 0, _NONE, _NONE),
    ),
    Options(
        *("stm32g071xb", _G0, "stm32g0x1_sb_opt", 0x1FFF_7800),
        (_G0_OPTR, _PAGE, _NONE, 0x1FF, 0, 0x1FF, 0, 0),
    ),
    Options(
        *("stm32g0b1xe", _G0, "stm32g0x1_db_opt", 0x1FFF_7800),
        (_G0_OPTR, _PAGE, _NONE, 0x1FF, 0, 0x1FF, 0, 0, _NONE, _NONE, 0x1FF, 0, 0x1FF, 0),
    ),
]


@pytest.mark.skipif(bool(NO_CLONE), reason=NO_CLONE)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.chip)
def test_option_bytes_that_are_programmed_protect_after_the_next_start(options: Options) -> None:
    (chip,) = (one for one in CHIPS if one.name == options.chip)
    probe = ChipProbe(chip.name)
    data = struct.pack(f"<{len(options.words)}I", *options.words)
    algorithm = read_cloned_algorithm(options.series, options.name)
    writer = Programmer(chip, probe, algorithm)
    steps = (writer.begin(PROGRAM), writer.erase(options.base))
    assert writer.run(*steps, writer.program(options.base, len(data)), data=data) == [0, 0, 0]
    assert probe.faults == []
    probe.image = bytearray(probe.engine.read_nor())
    programmer = make_programmer(chip, probe)
    erased = programmer.run(programmer.begin(ERASE), programmer.erase(chip.address))
    assert erased == [0, chip.erase_refused]
    assert set(probe.faults) == {"flash-protected"}
    assert programmer.sector == bytes(chip.sector)
