"""Writes OpenBLT's prebuilt bootloaders as target files, with its demo programs as the update.

`UNBRICK_CORPUS=FOLDER python examples/openblt/prepare.py` does it. The folder is a clone of
github.com/feaser/openblt, or has one. Of it this takes S-records that IAR and Keil have compiled.
docs/openblt.md says what searches find in them.

A target file NAME.toml leaves the device alone after a power cut. NAME-late.toml has the host come
back a second later.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unbrick.packages import find_clone, run_by_hand
from unbrick.target.files import read_flat

REPOSITORY = "feaser/openblt"
DEMOS = Path("Target/Demo")
BUILD = Path(__file__).parent / "build"
LATE = Path(__file__).parent / "late.py"

OLD, NEW = "Keil", "IAR"
"""Who has compiled the program that is there, and the one that comes, with its bootloader."""

VECTORS_SUMMED = 7
"""So many vectors and the checksum behind all vectors have the sum 0."""


@dataclass(frozen=True)
class Board:
    """A board of OpenBLT's demo programs.

    Attributes:
        name: of its target file.
        demo: its folder, without the compiler.
        chip: what is on it.
        program: where programs begin.
        checksum: bytes from there to the checksum; source: BOOT_FLASH_VECTOR_TABLE_CS_OFFSET.
        starts: milliseconds in which a program has started, when no host comes.
        pins: address and value of the register of the pins that the button is at: it is up.
    """

    name: str
    demo: str
    chip: str
    program: int
    checksum: int
    starts: int
    pins: tuple[int, int] | None


BOARDS = (
    Board(
        *("f103", "ARMCM3_STM32F1_Nucleo_F103RB", "stm32f103xb", 0x0800_2000, 0xEC, 650),
        pins=(0x4001_1008, 0x2000),
    ),
    Board(
        *("f405", "ARMCM4_STM32F4_Olimex_STM32P405", "stm32f407xg", 0x0800_C000, 0x188, 2800),
        pins=None,
    ),
    Board(
        *("l476", "ARMCM4_STM32L4_Nucleo_L476RG", "stm32l476xg", 0x0800_2800, 0x188, 650),
        pins=(0x4800_0810, 0x2000),
    ),
)


def find_corpus() -> Path:
    """The folder with the demo programs.

    Raises:
        SetupError: it is not there.
    """
    files = [name_file(board, *part) for board in BOARDS for part in PARTS]
    return find_clone(REPOSITORY, [str(DEMOS / name) for name in files]) / DEMOS


PARTS = (("openblt", NEW), ("demoprog", OLD), ("demoprog", NEW))
"""What is taken of each board's folders: a program, and who has compiled it."""


def name_file(board: Board, program: str, compiler: str) -> str:
    """Where a file is in the folder of the demo programs."""
    folder = "Boot" if program == "openblt" else "Prog"
    tail = board.demo.partition("_STM32")[2].partition("_")[2].lower()
    chip = {"nucleo_f103rb": "stm32f103", "nucleo_l476rg": "stm32l476"}.get(tail, tail)
    return f"{board.demo}_{compiler}/{folder}/bin/{program}_{chip}.srec"


def make_program(board: Board, path: Path) -> bytes:
    """A demo program, with the checksum that the bootloader gives it."""
    data = bytearray(read_flat(path)[0])
    words = [data[at : at + 4] for at in range(0, 4 * VECTORS_SUMMED, 4)]
    total = sum(int.from_bytes(word, "little") for word in words)
    data[board.checksum : board.checksum + 4] = (-total & 0xFFFF_FFFF).to_bytes(4, "little")
    return bytes(data)


def write_targets(board: Board, corpus: Path, folder: Path) -> list[Path]:
    """Write a board's target files with all that they name; gives their paths."""
    boot, old, new = (corpus / name_file(board, *part) for part in PARTS)
    names = [f"{board.name}-{what}" for what in ("boot.srec", "old.bin", "new.bin")]
    (folder / names[0]).write_bytes(boot.read_bytes())
    for name, path in ((names[1], old), (names[2], new)):
        (folder / name).write_bytes(make_program(board, path))
    chip = board.chip
    if board.pins:
        address, value = board.pins
        chip = f"{board.name}-board.toml"
        rows = [f'like = "{board.chip}"', "[registers.button]", f"base = {address:#x}"]
        rows += [f"pins = {{ offset = 0, reset = {value:#x} }}"]
        (folder / chip).write_text("\n".join(rows) + "\n", encoding="utf-8")
    images = [f'{{ file = "{names[0]}" }}']
    images += [f'{{ file = "{name}", at = {board.program:#x} }}' for name in names[1:]]
    lines = [
        f'chip = "{chip}"',
        'console = "usart2"',
        f"firmware = [{images[0]}, {images[1]}]",
        "[images]",
        *(f"{name} = {image}" for name, image in zip(("boot", "old", "new"), images, strict=True)),
        "[update]",
        f'file = "{names[2]}"',
        f"at = {board.program:#x}",
    ]
    alone = ['driver = "xcp"', "again = false", "[recovered]", f'within = "{board.starts} ms"']
    alone += ['runs = ["boot", "old", "new"]']
    late = [f'driver = "{LATE}"', f"options = {{ wait_s = {1 + board.starts / 1000} }}"]
    late += ["[recovered]", f'within = "{board.starts} ms"', 'runs = ["new"]']
    paths = []
    for name, more in ((board.name, alone), (f"{board.name}-late", late)):
        paths.append(folder / f"{name}.toml")
        head = [f'name = "{name}"', 'about = "OpenBLT programs a demo program over another one"']
        paths[-1].write_text("\n".join([*head, *lines, *more]) + "\n", encoding="utf-8")
    return paths


def prepare(folder: Path = BUILD) -> dict[str, Path]:
    """Write all target files to a folder; their paths by name, such as ``f103-late``.

    Raises:
        SetupError: the corpus is not there.
    """
    corpus = find_corpus()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for board in BOARDS for path in write_targets(board, corpus, folder)]
    return {path.stem: path for path in paths}


if __name__ == "__main__":
    run_by_hand(prepare, f"the target files are in {BUILD}")
