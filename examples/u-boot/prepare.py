"""Puts U-Boot onto a board like QEMU's `virt`, and saves an environment there.

`python examples/u-boot/prepare.py` does it once. U-Boot is that of Debian's package `u-boot-qemu`:
`apt install u-boot-qemu`, or name its `u-boot.bin` by UNBRICK_U_BOOT.

A session at its prompt then sets a variable and saves it, as a user would. The power cuts come
while it is saved again.
"""

from __future__ import annotations

import os
from pathlib import Path

from device_tree import write_tree

from unbrick.board import load_chip
from unbrick.engine.mcu import McuEngine
from unbrick.errors import EngineError, SetupError
from unbrick.packages import run_by_hand

HERE = Path(__file__).parent
BUILD = HERE / "build"
INSTALLED = Path("/usr/lib/u-boot/qemu_arm/u-boot.bin")
"""Where Debian's package has it."""

PROMPT = b"=> "
WITHIN_S = 60.0
"""Virtual seconds in which U-Boot must have answered."""
RAM_BASE, RAM_SIZE = 0x4000_0000, 0x200_0000
UART = 0x900_0000
BANKS = (0, 0x400_0000)
BANK_SIZE = 0x400_0000


def find_u_boot() -> Path:
    """The file with U-Boot.

    Raises:
        SetupError: it is not there.
    """
    path = Path(os.environ.get("UNBRICK_U_BOOT") or INSTALLED)
    if not path.is_file():
        raise SetupError(
            f"{path} is not there",
            hint="install Debian's u-boot-qemu, or name its u-boot.bin by UNBRICK_U_BOOT",
        )
    return path


def describe_board() -> bytes:
    """The device tree: what QEMU 7.2 tells of `virt`, as far as U-Boot uses it here."""
    banks = [number for bank in BANKS for number in (0, bank, 0, BANK_SIZE)]
    return write_tree(
        {
            "#address-cells": 2,
            "#size-cells": 2,
            "compatible": "linux,dummy-virt",
            "chosen": {"stdout-path": "/pl011@9000000"},
            "memory@40000000": {"device_type": "memory", "reg": (0, RAM_BASE, 0, RAM_SIZE)},
            "psci": {"compatible": ("arm,psci-1.0", "arm,psci-0.2", "arm,psci"), "method": "hvc"},
            "apb-pclk": {
                "compatible": "fixed-clock",
                "#clock-cells": 0,
                "clock-frequency": 24_000_000,
                "phandle": 1,
            },
            "pl011@9000000": {
                "compatible": ("arm,pl011", "arm,primecell"),
                "reg": (0, UART, 0, 0x1000),
                "clocks": (1, 1),
                "clock-names": ("uartclk", "apb_pclk"),
            },
            "flash@0": {"compatible": "cfi-flash", "reg": banks, "bank-width": 4},
        }
    )


class Prompt:
    """U-Boot's prompt on an emulated board.

    Args:
        chip_file: of the board.
        image: of its flash; None: U-Boot, and nothing else.
    """

    def __init__(self, chip_file: Path, image: bytes | None = None) -> None:
        chip = load_chip(chip_file)
        self.engine = McuEngine(chip)
        if image is None:
            u_boot = find_u_boot().read_bytes()
            image = u_boot + chip.factory_image[len(u_boot) :]
        self.engine.load_nor(image)
        self.greeting = self.start()

    def start(self) -> str:
        """Switch the power on, and stop what starts by itself; what U-Boot says."""
        self.engine.power_on()
        greeting = self._listen(b"autoboot:")
        self.engine.wire.write(b"\r")
        return greeting + self._listen(PROMPT)

    def type(self, line: str) -> str:
        """Type a line; what comes of it."""
        self.engine.wire.write(line.encode() + b"\r")
        return self._listen(PROMPT).removeprefix(line).removesuffix(PROMPT.decode()).strip()

    def _listen(self, text: bytes) -> str:
        said, end = b"", self.engine.now + WITHIN_S
        while text not in said:
            if self.engine.now > end:
                raise EngineError(f"{text!r} did not come, but {said!r}", hint="look at the board")
            self.engine.advance(0.01)
            said += self.engine.wire.read()
        return said.replace(b"\r", b"").decode(errors="replace")


def write_board(build: Path) -> Path:
    """Write the chip file of the board, and its device tree, to a folder."""
    build.mkdir(parents=True, exist_ok=True)
    (build / "virt.dtb").write_bytes(describe_board())
    path = build / "virt.toml"
    path.write_bytes((HERE / "virt.toml").read_bytes())
    return path


def prepare(build: Path) -> None:
    """Write the board, and its flash with a saved environment, to the folder ``build``.

    Raises:
        SetupError: U-Boot is not there.
    """
    prompt = Prompt(write_board(build))
    prompt.type("setenv note one")
    prompt.type("saveenv")
    prompt.engine.power_off()
    chip, image = prompt.engine.chip, prompt.engine.read_nor()
    (build / "boot.bin").write_bytes(image[: chip.main.size])
    (build / "environment.bin").write_bytes(image[chip.main.size :])


if __name__ == "__main__":
    run_by_hand(lambda: prepare(BUILD), f"the board and its flash are in {BUILD}")
