"""Writes MCUboot, before and after its fixes, as target files.

`UNBRICK_CORPUS=FOLDER python examples/mcuboot/prepare.py` does it. The folder is a clone of
github.com/neilberkman/tardigrade, or has one. This has ELF files of MCUboot on Zephyr 3.7 for the
nRF52840 and the STM32F407. docs/mcuboot.md says what searches find in them.

Of the folder this takes the ELF files and two applications. The applications are packed anew, with
imgtool, so that each has the size that a fix is about. The slots lie where the devicetree of the
builds has them. The trailer at a slot's end is as MCUboot's docs/design.md has it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from imgtool.image import Image
from imgtool.version import decode_version

from unbrick.packages import find_clone, run_by_hand

REPOSITORY = "neilberkman/tardigrade"

ASSETS = Path("results/oss_validation/assets")
"""Where it has firmware."""

BUILD = Path(__file__).parent / "build"

HEADER_SIZE = 0x200
"""Bytes before the vectors of the applications."""

HASH_SIZE = 40
"""Bytes that imgtool puts behind an application: a head and a hash."""

SIZE_AT = 12
"""Where an image says how many bytes its application has."""

MAGIC = "77c295f3 60d2ef7f 3552500f 2cb67980"
MAGIC_AT, IMAGE_OK_AT, COPY_DONE_AT = -16, -24, -32
"""Bytes from the end of a slot to its magic and flags."""

BUILDS = ("broken", "fixed")

FORMED = "pr2100-fixed"
"""The build for which ``canonical.py`` is written."""

FORM = "canonical.py"

FORM_FIELDS = (
    *((0xC000, 0x20), (0x8_2000, 0x20)),
    *((0x8_19D0, 0x630), (0xF_7FE0, 0x20)),
    (0x1000_1200, 8),
)
"""Address and size of what it looks at: headers, marks and trailers of the slots, and the UICR."""


@dataclass(frozen=True)
class Layout:
    """Where builds have their slots.

    Attributes:
        chip: which they are for.
        console: of the application.
        application: an image of it, in the corpus.
        first, second: addresses of the slots.
        size: bytes of each slot.
        apart: bytes by which an image that waits lies apart from the beginning of its slot.
    """

    chip: str
    console: str
    application: str
    first: int
    second: int
    size: int
    apart: int = 0


_NRF = ("nrf52840", "uarte0", "zephyr_slot0_padded.bin", 0xC000)
MOVE = Layout(*_NRF, 0x8_2000, 0x7_6000)
OFFSET = Layout(*_NRF, 0x8_2000, 0x7_6000, apart=0x1000)
SCRATCH = Layout(*_NRF, 0x7_A000, 0x6_E000)
STM32 = Layout(
    *("stm32f407xg", "usart2", "zephyr_stm32f4_slot0.bin", 0x802_0000, 0x808_0000, 0x6_0000)
)


@dataclass(frozen=True)
class Pair:
    """MCUboot before and after a fix.

    Attributes:
        name: of the fix.
        about: what happens, for people.
        elf: name of its files in the corpus, without ``broken`` and ``fixed``.
        layout: of both builds.
        way: ``upgrade``: the new image waits in the second slot, for good; ``revert``: it was
            tried, and must be taken back; ``stuck``: so it is, and the second slot is empty.
        new_size: bytes of the new image; 0: as it comes.
        refused: whether the old image may stay, as the new one may be refused.
        fixed: name of the file of the fixed build, where it is not called after the pair.
    """

    name: str
    about: str
    elf: str
    layout: Layout
    way: str = "upgrade"
    new_size: int = 0
    refused: bool = False
    fixed: str = ""


PAIRS = (
    # The corpus's fixed build of this pair mixes two versions of MCUboot; this one has the fix.
    Pair("pr1597", "an upgrade by moving sectors", "pr1597_stm32f4", STM32, fixed="stm32f4"),
    Pair("pr2100", "a revert by moving sectors", "pr2100", MOVE, "revert"),
    Pair("pr2109", "an upgrade to a larger image", "pr2109_scratch", SCRATCH, new_size=0x8CA0),
    Pair("pr2199", "a revert to an empty slot", "pr2199_move", MOVE, "stuck"),
    Pair("pr2205", "an upgrade by a scratch area", "pr2205_scratch", SCRATCH),
    Pair(
        *("pr2206", "an image that ends where the trailer begins", "pr2206_scratch_geom", SCRATCH),
        new_size=0x6_AFD0,
        refused=True,
    ),
    Pair(
        *("pr2214", "an upgrade to an image that fills its slot", "pr2214_offset", OFFSET),
        new_size=0x7_4000,
    ),
    Pair(
        *("scratch", "an upgrade to an image that reaches the trailer's block", "scratch", SCRATCH),
        new_size=0x6_D800,
    ),
)


def find_corpus() -> Path:
    """The folder with the firmware.

    Raises:
        SetupError: it is not there.
    """
    return find_clone(REPOSITORY, [str(ASSETS / name) for name in list_files()]) / ASSETS


def list_files() -> list[str]:
    """The names of all files that are taken of the corpus."""
    elf_files = [name_elf(pair, build) for pair in PAIRS for build in BUILDS]
    return [*elf_files, *sorted({pair.layout.application for pair in PAIRS})]


def name_elf(pair: Pair, build: str) -> str:
    """The name of a build's file."""
    if build == "fixed" and pair.fixed:
        return f"oss_mcuboot_{pair.fixed}.elf"
    return f"oss_mcuboot_{pair.elf}_{build}.elf"


@cache
def read_application(path: Path) -> bytes:
    """The application in an image, from its vectors on."""
    image = path.read_bytes()
    size = int.from_bytes(image[SIZE_AT : SIZE_AT + 4], "little")
    application = image[HEADER_SIZE : HEADER_SIZE + size]
    # Zephyr leaves room for the header. The image for the STM32F407 has got another one before it.
    room = bytes(HEADER_SIZE)
    return application.removeprefix(room)


def make_image(application: bytes, version: str, size: int = 0) -> bytes:
    """An image as imgtool makes it, with a hash and no signature.

    Args:
        application: what it holds.
        version: such as ``1.0.0``.
        size: bytes that the image shall have, filled behind the application; 0: as it comes.
    """
    room = max(0, size - HEADER_SIZE - HASH_SIZE - len(application))
    filling = hashlib.shake_128(b"filling").digest(room)
    image = Image(version=decode_version(version), header_size=HEADER_SIZE, pad_header=True)
    # imgtool takes a file and reports on stdout.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "application.bin"
        path.write_bytes(application + filling)
        image.load(str(path))
        image.create(None, "hash", None)
    return bytes(image.payload)


def write_target(pair: Pair, build: str, corpus: Path, folder: Path) -> Path:
    """Write a target file with its firmware beside it; gives its path."""
    name, layout = f"{pair.name}-{build}", pair.layout
    elf = name_elf(pair, build)
    shutil.copyfile(corpus / elf, folder / elf)
    application = read_application(corpus / layout.application)
    old, new = f"{pair.name}-v1.bin", f"{pair.name}-v2.bin"
    (folder / old).write_bytes(make_image(application, "1.0.0"))
    (folder / new).write_bytes(make_image(application, "2.0.0", pair.new_size))
    first_end, second_end = layout.first + layout.size, layout.second + layout.size
    if pair.way == "upgrade":
        there, staged = old, [_file(new, layout.second + layout.apart)]
        staged += [_bytes(MAGIC, second_end + MAGIC_AT), _bytes("01", second_end + IMAGE_OK_AT)]
        runs = ["old", "new"] if pair.refused else ["new"]
    else:
        there, staged = new, [_file(old, layout.second)]
        if pair.way == "stuck":
            there, staged = old, []
        staged += [_bytes(MAGIC, first_end + MAGIC_AT), _bytes("01", first_end + COPY_DONE_AT)]
        runs = ["old"]
    lines = [
        f'name = "{name}"',
        f'about = "MCUboot {build}: {pair.about}"',
        f'chip = "{layout.chip}"',
        f'console = "{layout.console}"',
        f'firmware = [{{ file = "{elf}" }}, {_file(there, layout.first)}]',
        f"update = {{ stage = [{', '.join(staged)}] }}",
        "[recovered]",
        'says = "Hello World!"',
        'within = "2 min"',
        f"runs = {runs}",
    ]
    if pair.way == "stuck":
        # An application that sees that a revert is to come takes no update. To start once more,
        # the first byte of its image is put where it is.
        same = _bytes(f"{(folder / old).read_bytes()[0]:02x}", layout.first)
        lines += ["[afterwards]", f"stage = {same}"]
        lines += ['says = "Hello World!"', 'never = "Swap type: revert"']
    lines += ["[images]"]
    lines += [f"old = {_file(old, layout.first)}", f"new = {_file(new, layout.first)}"]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _file(name: str, at: int) -> str:
    return f'{{ file = "{name}", at = {at:#x} }}'


def _bytes(digits: str, at: int) -> str:
    return f'{{ hex = "{digits}", at = {at:#x} }}'


def write_form(path: Path) -> Path:
    """A target file as another one, with ``canonical.py`` for a form of its own."""
    pair, _, _ = path.stem.partition("-")
    formed = path.with_name(f"{pair}-form.toml")
    shutil.copy(Path(__file__).with_name(FORM), path.parent)
    text = path.read_text().replace(f'name = "{path.stem}"', f'name = "{formed.stem}"')
    fields = ", ".join(f"{{ at = {at:#x}, size = {size:#x} }}" for at, size in FORM_FIELDS)
    formed.write_text(f'{text}[canonical]\nfile = "{FORM}"\nfields = [{fields}]\n')
    return formed


def prepare(folder: Path = BUILD) -> dict[str, Path]:
    """Write all target files to a folder; their paths by name, such as ``pr2100-broken``.

    ``pr2100-form`` is ``pr2100-fixed`` with a form of its own.

    Raises:
        SetupError: the corpus is not there.
    """
    corpus = find_corpus()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [write_target(pair, build, corpus, folder) for pair in PAIRS for build in BUILDS]
    found = {path.stem: path for path in paths}
    formed = write_form(found[FORMED])
    return {**found, formed.stem: formed}


if __name__ == "__main__":
    run_by_hand(prepare, f"the target files are in {BUILD}")
