"""What a Zephyr build folder tells: its images, the chip, the console, and the partitions.

Source: Zephyr's documentation, *Build and configuration systems*: `zephyr.dts` is the whole
devicetree, `build_info.yml` names the board, and sysbuild has a folder for each image. The nRF
Connect SDK's documentation, *Partition Manager*: `partitions.yml` says where its partitions are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable

TEXT_MOST = 4 << 20
"""Bytes of a text of the build that are read."""

BOOTLOADER = "mcuboot"
"""What sysbuild calls the image of MCUboot."""

SLOT_NAMES = ("image-0", "slot0", "mcuboot_primary")

SIGNED_NAMES = ("zephyr.signed.bin", "app_update.bin")
"""What the signed image is called, by sysbuild and by older builds of the nRF Connect SDK."""

ELF_NAME = "zephyr.elf"
"""What every image is linked as."""

_CONSOLE = re.compile(r"zephyr,console\s*=\s*&(\w+)")
_PARTITION = re.compile(r"partition@[0-9a-f]+\s*\{([^{}]*)\}", re.IGNORECASE)
_LABEL = re.compile(r"\blabel\s*=\s*\"([^\"]+)\"")
_REG = re.compile(r"\breg\s*=\s*<\s*(0x[0-9a-f]+|\d+)\s+(0x[0-9a-f]+|\d+)\s*>", re.IGNORECASE)
_MANAGED = re.compile(r"^(\w+):\n((?:[ ].*\n|- .*\n)+)", re.MULTILINE)
_MANAGED_NUMBER = re.compile(r"^  (address|size): (\w+)$", re.MULTILINE)
_COMPATIBLE = re.compile(r"\bcompatible\s*=\s*([^;]+);")
_BOARD = re.compile(r"^\s*(?:name|qualifiers|BOARD):\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Build:
    """A build folder.

    Attributes:
        files: files to flash, the bootloader first, each with its offset in the flash or None.
        symbols: ELF files of what the others were made of.
        words: what names the chip.
        uart: label of the console's device; empty: it is not known.
        partitions: name, offset in the flash, and size in bytes.
    """

    files: tuple[tuple[Path, int | None], ...]
    symbols: tuple[Path, ...]
    words: str
    uart: str
    partitions: tuple[tuple[str, int, int], ...]

    def console(self, uarts: Iterable[str]) -> str:
        """The UART of a chip that the build calls its console; empty: none goes by that name."""
        number = re.sub(r"\D+", "", self.uart)
        for uart in uarts:
            if uart == self.uart or (number and uart.endswith(number) and uart[:4] == "uart"):
                return uart
        return ""


def is_build(folder: Path) -> bool:
    """Whether a folder is one where Zephyr was built."""
    return bool(_list_images(folder))


def read_build(folder: Path) -> Build:
    """What a build folder tells.

    Raises:
        SetupError: nothing was built there.
    """
    images = _list_images(folder)
    if not images:
        raise SetupError(
            f"{folder} is no folder where Zephyr was built",
            hint="name a folder with zephyr/zephyr.elf or the files to flash themselves",
        )
    devicetree = "".join(_read(image / "zephyr.dts") for image in images)
    partitions = _list_managed(_read(folder / "partitions.yml"))
    partitions = partitions or _list_partitions(_read(images[-1] / "zephyr.dts"))
    slot = next((at for name, at, _ in partitions if name in SLOT_NAMES), None)
    files: list[tuple[Path, int | None]] = []
    symbols: list[Path] = []
    alone = len(images) == 1
    for image in images:
        elf = image / ELF_NAME
        signed = [image / name for name in SIGNED_NAMES if (image / name).is_file()]
        if signed and not (alone and slot is None):
            files.append((signed[0], slot))
            symbols += [elf] if elf.is_file() else []
        else:
            files.append((elf if elf.is_file() else image / "zephyr.hex", None))
    console = _CONSOLE.search(devicetree)
    return Build(
        files=tuple(files),
        symbols=tuple(symbols),
        words=" ".join(_COMPATIBLE.findall(devicetree) + _BOARD.findall(_read_info(folder))),
        uart=console[1] if console else "",
        partitions=partitions,
    )


def _list_images(folder: Path) -> list[Path]:
    """The folders `zephyr` of all images, the bootloader's first."""
    places = [folder, *(sorted(folder.iterdir()) if folder.is_dir() else ())]
    found = [
        place / "zephyr"
        for place in places
        if any((place / "zephyr" / name).is_file() for name in ("zephyr.elf", "zephyr.hex"))
    ]
    return sorted(found, key=lambda image: image.parent.name != BOOTLOADER)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(TEXT_MOST).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _read_info(folder: Path) -> str:
    return _read(folder / "build_info.yml") + _read(folder / "domains.yaml")


def _list_managed(text: str) -> tuple[tuple[str, int, int], ...]:
    """The partitions of the nRF Connect SDK's Partition Manager, in place of the devicetree's.

    Parts of the main flash without other parts in them count, and the slots as a whole.
    """
    found = []
    for name, body in _MANAGED.findall(text):
        numbers = dict(_MANAGED_NUMBER.findall(body))
        whole = name.startswith("mcuboot_") and not name.endswith(("_app", "_pad"))
        inside = {"app", "mcuboot_pad", "mcuboot_primary_app"}
        if "region: flash_primary" in body and (whole or name not in inside):
            found.append((name, int(numbers["address"], 0), int(numbers["size"], 0)))
    return tuple(sorted(found, key=lambda part: part[1]))


def _list_partitions(devicetree: str) -> tuple[tuple[str, int, int], ...]:
    found = []
    for body in _PARTITION.findall(devicetree):
        label, reg = _LABEL.search(body), _REG.search(body)
        if label and reg:
            found.append((label[1], int(reg[1], 0), int(reg[2], 0)))
    return tuple(sorted(found, key=lambda part: part[1]))
