"""The page of what is modelled of each chip is what the chips' files say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import chip_page
from unbrick.board import list_chips, load_chip
from unbrick.board.device_models import MODELS
from unbrick.errors import SetupError


def test_the_page_is_up_to_date() -> None:
    written = chip_page.PAGE.read_text(encoding="utf-8")
    assert written == chip_page.write_page(), "run: make docs/chip-models"


@pytest.mark.parametrize("name", list_chips())
def test_a_chip_says_what_it_has_that_nothing_models(name: str) -> None:
    rows = dict(chip_page.describe(load_chip(name)))
    assert rows["not modelled"]
    unmodelled = {word for text in load_chip(name).unmodelled for word in text.lower().split()}
    assert not unmodelled & {device.name for device in load_chip(name).devices}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_what_it_does(name: str) -> None:
    assert MODELS[name].does


def test_every_part_of_a_chip_is_on_the_page() -> None:
    chip = load_chip("stm32f411xe")
    rows = dict(chip_page.describe(chip))
    assert rows["`spi_stm32`"] == "spi1, spi2, spi3, spi4, spi5"
    assert rows["flash"].startswith("main at 0x8000000: 4 of 16 KiB, 1 of 64 KiB, 3 of 128 KiB<br>")
    assert (
        rows["registers with bits that follow others"]
        == "otg_fs: grstctl; rcc: bdcr, cfgr, cr; rtc: isr"
    )
    assert dict(chip_page.describe(replace(chip, devices=chip.devices[1:]))) != rows


def test_what_is_not_modelled_is_no_list_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('like = "stm32f103xb"\nunmodelled = [1]\n')
    with pytest.raises(SetupError, match="`unmodelled` is no list of texts"):
        load_chip(path)
