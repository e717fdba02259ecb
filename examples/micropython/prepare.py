"""Fetches MicroPython for the micro:bit V1 and V2, and flashes it.

`python examples/micropython/prepare.py` does it once.

The interpreter comes with `uflash`, a package for teachers, in one Intel HEX file for two boards. A
session at its prompt then writes a file, as a user would. What the flash holds after that is what
the power cuts must not take away.
"""

from __future__ import annotations

import ast
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unbrick.board import load_chip
from unbrick.board.mcu import McuChip
from unbrick.engine.mcu import McuEngine
from unbrick.errors import EngineError
from unbrick.packages import SourcePackage, run_by_hand

UFLASH = SourcePackage(
    "uflash", "2.0.0", "f583d2264fcf37e3e358f1f3a4370ce43b24eb3fdf845a477202555235b52582"
)
BUILD = Path(__file__).parent / "build"
PROMPT = b">>> "
WITHIN_S = 60.0
"""Virtual seconds in which the interpreter must have answered."""

DATA, PARAGRAPH, SEGMENT, BLOCK_START, OTHER_DATA = 0x00, 0x02, 0x04, 0x0A, 0x0D
"""Types of records; see the specification of micro:bit's universal HEX files."""


@dataclass(frozen=True)
class Board:
    """A board.

    Attributes:
        name: of its target file.
        number: in a universal HEX file.
        data: the type of its records of data there.
        chip_file: its chip, or a file of this folder.
    """

    name: str
    number: int
    data: int
    chip_file: str

    @property
    def chip(self) -> McuChip:
        """Its chip."""
        return load_chip(self.chip_file, Path(__file__).parent)


V1 = Board("microbit", 0x9900, DATA, "nrf51822")
V2 = Board("microbit-v2", 0x9903, OTHER_DATA, "microbit-v2-board.toml")


def read_interpreter(archive: Path, wanted: Board) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of each record of data for a board, in the package's archive."""
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(f"{UFLASH.folder}/uflash.py")
        module = ast.parse(stream.read() if stream else b"")
    runtime = next(
        one.value
        for one in module.body
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "_RUNTIME"
    )
    board = base = 0
    for line in ast.literal_eval(runtime).split():
        record = bytes.fromhex(line[1:])
        length, address, kind = record[0], int.from_bytes(record[1:3], "big"), record[3]
        data = record[4 : 4 + length]
        if kind == BLOCK_START:
            board = int.from_bytes(data[:2], "big")
        elif kind in {PARAGRAPH, SEGMENT}:
            base = int.from_bytes(data, "big") << (4 if kind == PARAGRAPH else 16)
        elif kind == wanted.data and board == wanted.number:
            yield base + address, data


class Prompt:
    """MicroPython's prompt on an emulated micro:bit.

    Args:
        board: which one.
        image: of the flash.
    """

    def __init__(self, board: Board, image: bytes) -> None:
        self.engine = McuEngine(board.chip)
        self.engine.load_nor(image)
        self.greeting = self.start()

    def start(self) -> str:
        """Switch the power on; what the interpreter says."""
        self.engine.power_on()
        return self._listen()

    def type(self, line: str) -> str:
        """Type a line; what comes of it."""
        self.engine.wire.write(line.encode() + b"\r")
        return self._listen().removeprefix(line).strip()

    def _listen(self) -> str:
        said, end = b"", self.engine.now + WITHIN_S
        while not said.endswith(PROMPT):
            if self.engine.now > end:
                raise EngineError(f"no prompt came, but {said!r}", hint="look at the chip's file")
            self.engine.advance(0.01)
            said += self.engine.wire.read()
        return said.removesuffix(PROMPT).decode()


def make_image(board: Board) -> bytes:
    """The flash of a new micro:bit with MicroPython.

    Raises:
        SetupError: the package cannot be fetched.
    """
    chip = board.chip
    image = bytearray(chip.factory_image)
    for address, data in read_interpreter(UFLASH.fetch("MicroPython"), board):
        at = chip.image_offset(address)
        image[at : at + len(data)] = data
    return bytes(image)


def prepare(build: Path, board: Board) -> None:
    """Write the flash of a board with a file in it to the folder ``build``.

    Raises:
        SetupError: the package cannot be fetched.
    """
    prompt = Prompt(board, make_image(board))
    prompt.type("f=open('kept','w');f.write('hello');f.close()")
    prompt.engine.power_off()
    chip, image = prompt.engine.chip, prompt.engine.read_nor()
    build.mkdir(parents=True, exist_ok=True)
    (build / f"{board.name}-flash.bin").write_bytes(image[: chip.main.size])
    (build / f"{board.name}-uicr.bin").write_bytes(image[chip.main.size :])


if __name__ == "__main__":
    run_by_hand(lambda: [prepare(BUILD, one) for one in (V1, V2)], f"the flash is in {BUILD}")
