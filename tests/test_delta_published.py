"""Pairs of published firmware for the benchmark: what of a HEX file counts, and what is skipped."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from bincopy import BinFile

import delta_published
from delta_published import Image, Published, published_pairs
from unbrick.errors import SetupError


def test_the_flash_of_a_hex_file_is_taken_and_nothing_above_it() -> None:
    file = BinFile()
    for address, data in ((0x1000, b"abcd"), (0x1008, b"efgh"), (0x10001014, b"uicr")):
        file.add_binary(data, address=address)
    assert delta_published._flat_hex(file.as_ihex()) == (b"abcd\xff\xff\xff\xffefgh", 0x1000)


def test_a_pair_that_cannot_be_had_is_skipped_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(_: Path) -> Image:
        return b"old", 0x8000

    def nowhere(_: Path) -> Image:
        raise SetupError("it is gone", hint="look elsewhere")

    entries = (Published("lost", "ARM", here, nowhere), Published("there", "Thumb", here, here))
    monkeypatch.setattr(delta_published, "PUBLISHED", entries)
    skipped: list[str] = []
    (pair,) = published_pairs(tmp_path, skipped)
    assert (pair.name, pair.base) == ("there", 0x8000)
    assert len(skipped) == 1
    assert skipped[0].startswith("lost: it is gone")


def test_a_package_that_apt_does_not_have_is_told_with_the_file_to_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(100, command)

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(SetupError, match=r"could not be fetched") as caught:
        delta_published._u_boot("2025.01")(tmp_path)
    assert "u-boot-qemu_2025.01-3+deb13u1_all.deb" in str(caught.value.hint)


def test_another_package_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "u-boot-qemu_2025.01-3+deb13u1_all.deb").write_bytes(b"other")
    with pytest.raises(SetupError, match="not what it should be"):
        delta_published._u_boot("2025.01")(tmp_path)
