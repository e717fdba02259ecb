"""Chips as data: their files are read, checked, and refused with what to do."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from brickproof_demo import BOARDS
from cfi_boards import AMD_X16, INTEL_PAIR
from test_board import check_refused, write_changed

import unbrick
from unbrick.board import list_chips, load_chip
from unbrick.board.device_models import MODELS
from unbrick.errors import SetupError

CHIPS = Path(unbrick.__file__).parent / "board" / "chips"


@pytest.mark.parametrize("name", list_chips())
def test_a_chip_is_found_by_name_and_by_path(name: str) -> None:
    chip = load_chip(name)
    assert load_chip(CHIPS / f"{name}.toml") == chip
    assert pickle.loads(pickle.dumps(chip)) == chip  # noqa: S301 - as to other processes
    assert chip.geometry.size == len(chip.factory_image) == chip.board.nor.modelled
    assert chip.board.nor.geometry == chip.geometry
    assert chip.board.uarts == chip.uarts


@pytest.mark.parametrize(
    ("name", "flash", "ram", "blocks"),
    [
        ("rp2040", 2048, 264, 512 + 1),
        ("stm32f103x8", 64, 20, 64 + 1),
        ("stm32f103xb", 128, 20, 128 + 1),
        ("stm32f411xe", 512, 128, 8 + 1),
        ("stm32f407xg", 1024, 128, 12 + 1),
        ("stm32l432xc", 256, 48, 128 + 128 + 1),  # with the check cells of each page
        ("stm32l476xg", 1024, 96, 512 + 512 + 2),
        ("stm32g071xb", 128, 36, 64 + 64 + 1),
        ("stm32g0b1xe", 512, 144, 256 + 256 + 1),
        ("stm32h743xi", 2048, 128, 16 + 16 + 1),
        ("stm32h563xi", 2048, 640, 256 + 256 + 1),
        ("nrf51822", 256, 16, 256 + 1),
        ("nrf52832", 512, 64, 128 + 1),
        ("nrf52833", 512, 128, 128 + 1),
        ("nrf52840", 1024, 256, 256 + 1),
    ],
)
def test_memories_are_those_of_the_data_sheet(name: str, flash: int, ram: int, blocks: int) -> None:
    chip = load_chip(name)
    assert chip.main.size == flash * 1024
    assert chip.rams[0][1].size == ram * 1024
    assert len(chip.geometry.block_sizes) == blocks


def test_a_chip_says_only_how_it_differs_from_another() -> None:
    small, big = load_chip("stm32f103x8"), load_chip("stm32f103xb")
    assert small.devices == big.devices
    sizes = {c.name: r.reset for c in (small, big) for r in c.registers if "flash_size" in r.name}
    assert sizes == {"stm32f103x8": 0xFFFF_0040, "stm32f103xb": 0xFFFF_0080}


def test_regions_lie_one_after_the_other_in_the_flash_image() -> None:
    chip = load_chip("stm32f103xb")
    assert chip.image_offset(0x0800_0400) == chip.image_offset(0x400) == 0x400
    assert chip.image_offset(0x1FFF_F800) == 0x2_0000
    assert chip.factory_image[0x2_0000:0x2_0002] == b"\xa5\x5a"
    with pytest.raises(SetupError, match="no flash at 0x20000000") as error:
        chip.image_offset(0x2000_0000)
    assert "main at 0x8000000, options at 0x1ffff800" in error.value.hint


def test_a_device_is_found_by_its_name() -> None:
    chip = load_chip("nrf52840")
    assert chip.device("uarte1").interrupt == 40
    with pytest.raises(SetupError, match="usart1") as error:
        chip.device("usart1")
    assert "uarte0, uarte1" in error.value.hint


def test_what_follows_is_named_by_address() -> None:
    rules = {(rule.enable, rule.ready) for rule in load_chip("stm32f407xg").ready}
    assert ((0x4002_3800, 1 << 16), (0x4002_3800, 1 << 17)) in rules
    assert ((0x4000_280C, 1 << 7), (0x4000_280C, 1 << 6)) in rules


WRONG = [
    ('core = "cortex-m3"', 'core = "cortex-m2"', "cortex-m2", "mean cortex-m"),
    ("bit_band = true", "bitband = true", "unknown entry `bitband`", "`bit_band`?"),
    ("clock_hz = 72_000_000", "", "`clock_hz` is missing", "a number"),
    ("unit = 2", "unit = 3", "`unit` is 3", "choose one of"),
    ("alias = 0x0000_0000", "alias = 0x2000_0000", "after 0x20000000|overlap", "overlap"),
    ("blocks = [{ count = 128, size = 1024 }]", "", "flash.main.*`blocks` is missing", "`count`"),
    ("factory = [0xA5", "factory = [0x1A5", "no byte", "0 to 255"),
    ("factory = [0xA5", "factory = [1, 0xA5", "17 bytes, the region 16", "leave out"),
    ("count = 1, size = 16", "count = 70000, size = 16", "too many", "correct"),
    ("size = 0x5000", "size = 0x5001", "no multiple of 0x1000", "0x5000"),
    ("base = 0x2000_0000\n", "base = 0x0800_0000\n", "at 0x8000000 ends at", "overlap"),
    ("base = 0x4001_3800", "base = 0x2000_0800", r"usart1 at .* is in \[ram.sram\]", "`base`"),
    ("base = 0x4001_3800", "base = 0x4001_3802", "no multiple of 4", "0x40013800"),
    ('model = "flash_stm32f1"', 'model = "flash_stm32f2"', "flash_stm32f2", "flash_stm32f"),
    ('model = "flash_stm32f1"', 'model = "rng_nrf"', "unknown entry", "correct"),
    ("erase_us = 20_000", "erase_ms = 20", "`erase_us` is missing", "`erase_us`"),
    ("program_us = 53", "program_us = 0", "`program_us` is 0", "choose 1 to"),
    ("protected_pages = 4", "protected_pages = 33", "`protected_pages` is 33", "1 to 32"),
    ("interrupt = 37", "interrupt = 43", "usart1 has interrupt 43", "correct"),
    ("interrupt = 37", "interrupt = 480", "`interrupt` is 480", "0 to 479"),
    ('"usart3"]', '"flash"]', "`uarts` names 'flash'", "usart1, usart2, usart3"),
    ("[ram.sram]", "[ram]", "ram.*`base` is not a table", "table"),
    ("ready = 0x0000_0002", "ready = 0x0000_0006", "number of bits", "one field"),
    (
        "{ enable = 0x3, ready",
        '{ register = "cfg", enable = 0x3, ready',
        "`register` is 'cfg'",
        "mean cfgr",
    ),
    ("reset = 0x0000_0014", "rest = 0x14", "unknown entry `rest`", "`reset`?"),
    (
        "[flash.options]",
        "[flash.options2]\nbase = 0\nblocks = []\n[flash.options]",
        "`blocks`",
        "`count`",
    ),
    ("alias = 0x0000_0000", "ecc = 4", "`ecc` is 4", "choose one of"),
    ("count = 1, size = 16 }]", "count = 1, size = 16 }]\necc = 8", "has 16 bytes", "1024"),
    ('core = "cortex-m3"', 'like = "mine.toml"', "circle", "complete"),
    ('core = "cortex-m3"', 'like = "stm32f103"', "no chip 'stm32f103'", "stm32f103x8"),
]


@pytest.mark.parametrize(("old", "new", "why", "hint"), WRONG)
def test_a_wrong_chip_is_told_where(
    old: str, new: str, why: str, hint: str, tmp_path: Path
) -> None:
    wrong = write_changed(CHIPS / "stm32f103xb.toml", old, new, tmp_path)
    check_refused(lambda file: load_chip(file.name, tmp_path), wrong, why, hint)


ROMS_WRONG = [
    ('program = "rp2040"', 'program = "rp2350"', "`program` is 'rp2350'", "mean rp2040"),
    ("base = 0x0000_0000", "base = 0x0000_0800", "no multiple of 0x1000", "choose 0x0"),
    ("base = 0x0000_0000", "base = 0x1FFF_F000", "after 0x20000000", "overlap"),
    ("stage = 0x100", "stage = 0x10000", "`stage` is", "4096"),
    ("size = 0x8000", "", "`size` is missing", "number"),
    ('bus = "ssi"', 'bus = "sio"', "`bus` is 'sio'", "mean ssi"),
]


@pytest.mark.parametrize(("old", "new", "why", "hint"), ROMS_WRONG)
def test_a_wrong_boot_rom_is_told_where(
    old: str, new: str, why: str, hint: str, tmp_path: Path
) -> None:
    wrong = write_changed(CHIPS / "rp2040.toml", old, new, tmp_path)
    check_refused(lambda file: load_chip(file.name, tmp_path), wrong, why, hint)


def test_a_board_with_more_flash_says_only_that(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'like = "rp2040"\n[flash.main]\nblocks = [{ count = 1024, size = 4096 }]\n'
        "[devices.nor]\nid = 0xEF_4016\n",
        encoding="utf-8",
    )
    chip = load_chip("mine.toml", tmp_path)
    assert chip.main.size == 4 << 20
    assert chip.firmware_base == chip.main.base + 0x100
    assert chip.find_flash(0x1330_0000) == (3 << 20, 1 << 20)


def test_a_region_that_no_controller_has_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'like = "stm32f103xb"\n[flash.eeprom]\nbase = 0x0808_0000\n'
        "blocks = [{ count = 1, size = 4096 }]\n"
    )
    with pytest.raises(SetupError, match="3 regions, its controllers have 2") as error:
        load_chip("mine.toml", tmp_path)
    assert "controller" in error.value.hint


def test_every_model_is_of_use_to_some_chip(tmp_path: Path) -> None:
    chips = [load_chip(name) for name in list_chips()]
    for number, board in enumerate((*BOARDS.values(), AMD_X16, INTEL_PAIR)):
        (tmp_path / f"board{number}.toml").write_text(board, encoding="utf-8")
        chips.append(load_chip(f"board{number}.toml", tmp_path))
    virt = CHIPS.parents[3] / "examples" / "u-boot" / "virt.toml"
    (tmp_path / "virt.toml").write_bytes(virt.read_bytes())
    (tmp_path / "virt.dtb").write_bytes(b"")
    chips.append(load_chip("virt.toml", tmp_path))
    used = {device.model for chip in chips for device in chip.devices}
    assert used == set(MODELS)
