"""Writes the serial bootloader of Nordic's nRF5 SDK as target files, with the SDK's own updates.

`UNBRICK_CORPUS=FOLDER python examples/nrf5-sdk/prepare.py` does it. The folder is a clone of
github.com/cmdwtf/nRF5_SDK, which holds version 17.0.2 of the SDK, or has one. Of it this takes
what is for the nRF52832: the MBR, the bootloader, and packages that Nordic has signed.
docs/nrf5-sdk.md says what searches find in them.

A target file NAME.toml leaves the device alone after a power cut. NAME-again.toml has the host send
the update once more.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from unbrick.packages import find_clone, run_by_hand

REPOSITORY = "cmdwtf/nRF5_SDK"
EXAMPLES = Path("examples/dfu")
BUILD = Path(__file__).parent / "build"
DRIVER = Path(__file__).parent / "serial_dfu.py"

BOOT = "secure_bootloader/pca10040_uart_debug/hex/secure_bootloader_uart_mbr_pca10040_debug.hex"
"""The MBR and the bootloader that are there before the update."""

PACKAGES = "secure_dfu_test_images/uart/nrf52832"

BOARD = """# The nRF52 DK, as far as the bootloader needs it: no button is pressed.
like = "nrf52832"

[registers.p0]
base = 0x5000_0000
in = { offset = 0x510, reset = 0xFFFF_FFFF }
"""


@dataclass(frozen=True)
class Update:
    """What is sent.

    Attributes:
        name: of its target file.
        package: that has it.
        at: where it runs.
        runs: the images that may run after a power cut.
    """

    name: str
    package: str
    at: int
    runs: tuple[str, ...]


UPDATES = (
    Update("application", "blinky_mbr.zip", 0x1000, ("boot", "new")),
    Update(
        "bootloader",
        "bootloader_secure_uart_debug_without_bonds_mbr.zip",
        0x6_4000,
        ("boot", "new"),
    ),
)


def find_corpus() -> Path:
    """The folder with the examples.

    Raises:
        SetupError: it is not there.
    """
    names = [BOOT, *(f"{PACKAGES}/{update.package}" for update in UPDATES)]
    return find_clone(REPOSITORY, [str(EXAMPLES / name) for name in names]) / EXAMPLES


def read_package(path: Path) -> tuple[bytes, bytes]:
    """The firmware of a package of nrfutil, and its init packet."""
    with zipfile.ZipFile(path) as package:
        (name,) = (name for name in package.namelist() if name.endswith(".bin"))
        return package.read(name), package.read(name.replace(".bin", ".dat"))


def write_targets(update: Update, corpus: Path, folder: Path) -> list[Path]:
    """Write the target files of an update with all that they name; gives their paths."""
    firmware, init = read_package(corpus / PACKAGES / update.package)
    new = f"{update.name}.bin"
    (folder / "boot.hex").write_bytes((corpus / BOOT).read_bytes())
    (folder / "board.toml").write_text(BOARD, encoding="utf-8")
    (folder / new).write_bytes(firmware)
    paths = []
    for name, again in ((update.name, False), (f"{update.name}-again", True)):
        lines = [
            f'name = "nrf5-{name}"',
            f'about = "Nordic\'s serial bootloader takes a new {update.name}"',
            'chip = "board.toml"',
            'firmware = [{ file = "boot.hex" }]',
            "[update]",
            f'driver = "{DRIVER}"',
            f'file = "{new}"',
            f"at = {update.at:#x}",
            f'options = {{ init = "{init.hex()}" }}',
            f"again = {str(again).lower()}",
            "[recovered]",
            f"runs = {[*update.runs] if not again else ['new']}",
            'within = "1500 ms"',
            "[images]",
            'boot = { file = "boot.hex" }',
            f'new = {{ file = "{new}", at = {update.at:#x} }}',
        ]
        paths.append(folder / f"{name}.toml")
        paths[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def prepare(folder: Path = BUILD) -> dict[str, Path]:
    """Write all target files to a folder; their paths by name, such as ``bootloader-again``.

    Raises:
        SetupError: the corpus is not there.
    """
    corpus = find_corpus()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for update in UPDATES for path in write_targets(update, corpus, folder)]
    return {path.stem: path for path in paths}


if __name__ == "__main__":
    run_by_hand(prepare, f"the target files are in {BUILD}")
