"""Flashes MicroPython for the Raspberry Pi Pico, with a file system whose `boot.py` opens a UART.

`UNBRICK_CORPUS=FOLDER python examples/micropython/prepare_pico.py` does it once. FOLDER has the
release `RPI_PICO-20240602-v1.23.0.uf2`, which no package index has. Its prompt is at USB, where
nobody is connected. So the file system has a `boot.py` that has it at UART0, too; `pip install
littlefs-python` writes that.
"""

from __future__ import annotations

import hashlib
import os
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.board import load_chip
from unbrick.errors import SetupError
from unbrick.packages import run_by_hand
from unbrick.target.files import read_firmware

if TYPE_CHECKING:
    from unbrick.board.mcu import McuChip

HERE = Path(__file__).resolve().parent
COMMON = runpy.run_path(str(HERE / "prepare.py"), run_name="prepare")
RELEASE = "RPI_PICO-20240602-v1.23.0.uf2"
SHA256 = "b7966f448e5a23d2691ca28d6894065fc9dab659fcea0113a1f006c1702dd61c"
FILES_AT, FILES_SIZE = 0x100A_0000, 0x16_0000
"""Where the firmware has its file system, and its bytes: the rest of 2 MiB."""
BLOCK = 4096
BOOT = "import os\nfrom machine import UART\nos.dupterm(UART(0, 115200))\n"


class Pico:
    """The board, as :class:`prepare.Prompt` wants it."""

    chip: McuChip = load_chip("rp2040")


def find_release() -> Path:
    """The firmware.

    Raises:
        SetupError: UNBRICK_CORPUS does not name a folder that has it.
    """
    path = Path(os.environ.get("UNBRICK_CORPUS", ".")) / RELEASE
    if not path.is_file():
        raise SetupError(
            f"{path} is missing", hint="download it, and set UNBRICK_CORPUS to its folder"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SetupError(f"{path} is another file", hint="download the release again")
    return path


def make_files() -> bytes:
    """A file system with `boot.py`.

    Raises:
        SetupError: the package that writes it is missing.
    """
    try:
        from littlefs import LittleFS  # noqa: PLC0415 - no dependency of ours
    except ImportError as error:
        raise SetupError("littlefs-python is missing", hint="pip install it") from error
    files = LittleFS(
        block_size=BLOCK,
        block_count=FILES_SIZE // BLOCK,
        prog_size=256,
        read_size=32,
        lookahead_size=32,
        cache_size=1024,
        disk_version=0x0002_0000,
    )
    with files.open("boot.py", "w") as stream:
        stream.write(BOOT)
    return bytes(files.context.buffer)


def make_image() -> bytes:
    """The flash of a Pico with MicroPython.

    Raises:
        SetupError: something is missing.
    """
    chip = Pico.chip
    image = bytearray(chip.factory_image)
    for piece in read_firmware(find_release(), None, chip.core):
        at = chip.image_offset(piece.address)
        image[at : at + len(piece.data)] = piece.data
    at, files = chip.image_offset(FILES_AT), make_files()
    image[at : at + len(files)] = files
    return bytes(image)


def prepare(build: Path) -> None:
    """Write the flash, with a file in it, to the folder ``build``.

    Raises:
        SetupError: something is missing.
    """
    prompt = COMMON["Prompt"](Pico, make_image())
    prompt.type("f=open('kept','w');f.write('hello');f.close()")
    prompt.engine.power_off()
    build.mkdir(parents=True, exist_ok=True)
    flash = prompt.engine.read_nor()[: Pico.chip.main.size]
    (build / "pico-flash.bin").write_bytes(flash.rstrip(b"\xff"))


if __name__ == "__main__":
    build = COMMON["BUILD"]
    run_by_hand(lambda: prepare(build), f"the flash is in {build}")
