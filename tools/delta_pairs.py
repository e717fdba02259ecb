"""Pairs of images to measure differential files with: our own releases, and public C projects built
for bare metal with the pinned compiler. Their sources come from the package index, are checked
against pinned hashes, and never enter the repository.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from unbrick.errors import SetupError
from unbrick.firmware.signed import make_releases

CODE_BASE = 0x20000
RAM_BASE = 0x20000000
ISAS = {
    "Thumb-2": ["-target", "thumb-linux-musleabi", "-mcpu=cortex_m4"],
    "ARM": ["-target", "arm-linux-musleabi", "-mcpu=cortex_a9"],
}
COMPILE = ["-c", "-Os", "-w", "-fno-pic", "-fno-sanitize=all", "-fno-stack-protector"]
COMPILE += ["-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-fno-exceptions"]
LINKER_SCRIPT = f"""
SECTIONS {{
  .text {CODE_BASE:#x} : {{ *(.text*) constants = .; *(.rodata*) . = ALIGN(8); }}
  .data {RAM_BASE:#x} : AT(ADDR(.text) + SIZEOF(.text)) {{ *(.data*) . = ALIGN(8); }}
  .bss (NOLOAD) : {{ *(.bss*) *(COMMON) ram_end = .; }}
  /DISCARD/ : {{ *(.ARM.*) *(.comment) *(.note*) }}
}}
"""


@dataclass(frozen=True)
class Source:
    """A source distribution on the package index that holds a C project.

    Attributes:
        package: and its version, as pip wants it.
        file: its archive.
        sha256: of the archive.
        folders: with the project's C files, in the archive.
        include: further folders with headers.
        skip: C files that need an operating system.
    """

    package: str
    file: str
    sha256: str
    folders: tuple[str, ...]
    include: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


LUA_SKIP = ("lua.c", "luac.c", "onelua.c", "ltests.c", "liolib.c", "loslib.c", "loadlib.c")
BROTLI = ("c/common", "c/dec", "c/enc")
SOURCES = {
    "Lua 5.4.4": Source(
        "lupa==2.0",
        "lupa-2.0.tar.gz",
        "ad3fef486be7adddd349fe9a9c393789061312cf98ebc533b489be34f484cb79",
        ("third-party/lua54",),
        skip=LUA_SKIP,
    ),
    "Lua 5.4.6": Source(
        "lupa==2.2",
        "lupa-2.2.tar.gz",
        "665a006bcf8d9aacdfdb953824b929d06a0c55910a662b59be2f157ab4c8924d",
        ("third-party/lua54",),
        skip=LUA_SKIP,
    ),
    "Lua 5.4.7": Source(
        "lupa==2.4",
        "lupa-2.4.tar.gz",
        "5300d21f81aa1bd4d45f55e31dddba3b879895696068a3f84cfcb5fd9148aacd",
        ("third-party/lua54",),
        skip=LUA_SKIP,
    ),
    "zstd 1.5.5": Source(
        "zstandard==0.22.0",
        "zstandard-0.22.0.tar.gz",
        "8226a33c542bcb54cd6bd0a366067b610b41713b64c9abec1bc4533d69f51e70",
        ("zstd",),
    ),
    "zstd 1.5.6": Source(
        "zstandard==0.23.0",
        "zstandard-0.23.0.tar.gz",
        "b2d8c62d08e7255f68f7a740bae85b3c9b8e5466baa9cbf7f57f1cde0ac6bc09",
        ("zstd",),
    ),
    "Brotli 1.0.9": Source(
        "Brotli==1.0.9",
        "Brotli-1.0.9.zip",
        "4d1b810aa0ed773f81dceda2cc7b403d01057458730e309856356d4ef4188438",
        BROTLI,
        include=("c/include",),
    ),
    "Brotli 1.1.0": Source(
        "Brotli==1.1.0",
        "Brotli-1.1.0.tar.gz",
        "81de08ac11bcb85841e440c13611c00b67d3bf82698314928d0b676362546724",
        BROTLI,
        include=("c/include",),
    ),
    "wasm3 0.4.9": Source(
        "pywasm3==0.4.9",
        "pywasm3-0.4.9.tar.gz",
        "bbe3643fc3154538ea6af59b8b2ce4f8eca4de7faade8fd60f02a55a6c30a2c1",
        ("m3",),
        skip=("m3_api_libc.c", "m3_api_wasi.c", "m3_api_meta_wasi.c", "m3_api_uvwasi.c"),
    ),
    "wasm3 0.5.0": Source(
        "pywasm3==0.5.0",
        "pywasm3-0.5.0.tar.gz",
        "5a47c8a39f7f6ae71b3316b2e5d86c9d0db6e771a65f09a86e4d4aa3a19aefcc",
        ("wasm3",),
    ),
    "Duktape 2.7.0": Source(
        "dukpy==0.3.0",
        "dukpy-0.3.0.tar.gz",
        "ca5772e9373f3cf7772a711e65db765c4361dcf6d4e65c5d88cb879e9ee3f5a6",
        ("src/duktape",),
    ),
    "Duktape 2.99": Source(
        "dukpy==0.5.0",
        "dukpy-0.5.0.tar.gz",
        "079fe2d65ac5e24df56806c6b4e1a26f92bb7f13dc764f4fb230a6746744c1ad",
        ("src/duktape",),
    ),
}

PUBLIC = (
    ("Lua 5.4.7", "Lua 5.4.7", "Thumb-2", ("-DLUA_COMPAT_5_3",)),
    ("Lua 5.4.7", "Lua 5.4.7", "ARM", ("-DLUA_COMPAT_5_3",)),
    ("zstd 1.5.6", "zstd 1.5.6", "Thumb-2", ("-DZSTD_HASHLOG3_MAX=16",)),
    ("Lua 5.4.6", "Lua 5.4.7", "Thumb-2", ()),
    ("Lua 5.4.6", "Lua 5.4.7", "ARM", ()),
    ("Lua 5.4.4", "Lua 5.4.6", "Thumb-2", ()),
    ("zstd 1.5.5", "zstd 1.5.6", "Thumb-2", ()),
    ("zstd 1.5.5", "zstd 1.5.6", "ARM", ()),
    ("wasm3 0.4.9", "wasm3 0.5.0", "Thumb-2", ()),
    ("Duktape 2.7.0", "Duktape 2.99", "ARM", ()),
    ("Brotli 1.0.9", "Brotli 1.1.0", "Thumb-2", ()),
)
"""Old, new, instruction set, and macros that only the new one is compiled with."""

OWN = (("1.1.0", "1.2.0"), ("1.1.0", "1.3.0"), ("1.0.0", "1.1.0"), ("1.0.0", "1.3.0"))


@dataclass(frozen=True)
class Sections:
    """Where an image that was linked here has what; some tools want to be told.

    Attributes:
        constants: offset in the image from which constants and initial data lie.
        ram_end: address behind the variables, which begin at :data:`RAM_BASE`.
    """

    constants: int
    ram_end: int


@dataclass(frozen=True)
class Pair:
    """Two images to update between.

    Attributes:
        name: for people.
        isa: what the code is.
        change: "small" when a release or an option changed, "large" for versions of a project.
        old: the installed image.
        new: the wanted one.
        base: where they lie; found from their contents when not given.
        sections: of both, where they are known.
    """

    name: str
    isa: str
    change: str
    old: bytes
    new: bytes
    base: int | None
    sections: tuple[Sections, Sections] | None = None


def pairs(folder: Path) -> Iterator[Pair]:
    """All pairs, built in ``folder``.

    Raises:
        SetupError: sources cannot be fetched, or do not compile.
    """
    signed = make_releases(folder / "firmware").signed
    for old, new in OWN:
        yield Pair(f"Unbrick {old} → {new}", "Thumb-2", "small", signed[old], signed[new], 0x100000)
    for old, new, isa, macros in PUBLIC:
        change = "small" if macros else "large"
        name = f"{old} → {' '.join(macros) if macros else new.split()[1]}"
        before, after = _image(folder, old, isa), _image(folder, new, isa, macros)
        sections = (before[1], after[1])
        yield Pair(name, isa, change, before[0], after[0], CODE_BASE, sections)


def _image(
    folder: Path, name: str, isa: str, macros: tuple[str, ...] = ()
) -> tuple[bytes, Sections]:
    """The flat image of a project; built once."""
    tag = "-".join([name.replace(" ", "-"), isa, *(m.strip("-") for m in macros)])
    path, notes = folder / f"{tag}.bin", folder / f"{tag}.json"
    if not notes.is_file():
        source = SOURCES[name]
        root = unpack_sources(folder, source)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            elf = _compile(root, source, [*ISAS[isa], *macros], Path(scratch))
            path.write_bytes(_flat(elf))
            notes.write_text(json.dumps(_sections(elf)))
    return path.read_bytes(), Sections(**json.loads(notes.read_text()))


def check_archive(archive: Path, sha256: str) -> None:
    """Raises SetupError when an archive has another digest."""
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise SetupError(f"{archive} is not what it should be", hint="delete it and try again")


def unpack_sources(folder: Path, source: Source) -> Path:
    """The source distribution, fetched into ``folder`` and unpacked there.

    Raises:
        SetupError: it cannot be fetched, or is another one.
    """
    archive = folder / source.file
    if not archive.is_file():
        _fetch(source, archive)
    check_archive(archive, source.sha256)
    root = folder / source.file.removesuffix(".zip").removesuffix(".tar.gz")
    if not root.is_dir():
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)  # noqa: S202  of a pinned archive
        else:
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(folder, filter="data")
    return root


def _fetch(source: Source, archive: Path) -> None:
    name = source.package.partition("==")[0]
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        pin = Path(scratch) / "requirements.txt"
        pin.write_text(f"{source.package} --hash=sha256:{source.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-binary", name, "--no-build-isolation"]
        command += ["--require-hashes", "--dest", scratch, "--requirement", str(pin)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(scratch) / source.file
        if done.returncode or not fetched.is_file():
            raise SetupError(
                f"{source.package} could not be fetched: {done.stderr.strip()[-200:]}",
                hint=f"see that pip reaches a package index, or put {source.file} into "
                f"{archive.parent}",
            )
        fetched.replace(archive)


def _compile(root: Path, source: Source, options: list[str], scratch: Path) -> Path:
    zig = [sys.executable, "-m", "ziglang"]
    include = [f"-I{root / folder}" for folder in (*source.folders, *source.include)]
    files = [
        path
        for folder in source.folders
        for path in sorted((root / folder).glob("*.c"))
        if path.name not in source.skip
    ]

    def compile_one(number: int) -> Path:
        made = scratch / f"{number:03}.o"
        _run([*zig, "cc", *options, *COMPILE, *include, "-o", str(made), str(files[number])])
        return made

    with ThreadPoolExecutor(max_workers=2) as workers:
        objects = [str(made) for made in workers.map(compile_one, range(len(files)))]
    script, elf = scratch / "bare.ld", scratch / "image.elf"
    script.write_text(LINKER_SCRIPT)
    # What the projects want of a C library is not there: such calls lead nowhere.
    link = ["--unresolved-symbols=ignore-all", "--no-gc-sections", "-e", "0", "-T", str(script)]
    _run([*zig, "ld.lld", *link, "-o", str(elf), *objects])
    return elf


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"a pair does not compile: {done.stderr.strip()[:300]}")


def _flat(elf: Path) -> bytes:
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        parts = [
            (segment["p_paddr"], segment.data())
            for segment in file.iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
        ]
    end = max(at + len(data) for at, data in parts)
    image = bytearray(end - CODE_BASE)
    for at, data in parts:
        image[at - CODE_BASE : at - CODE_BASE + len(data)] = data
    return bytes(image)


def _sections(elf: Path) -> dict[str, int]:
    """What :class:`Sections` holds."""
    with elf.open("rb") as stream:
        symbols = {
            symbol.name: int(symbol["st_value"])
            for section in ELFFile(stream).iter_sections()
            if isinstance(section, SymbolTableSection)
            for symbol in section.iter_symbols()
        }
    return {"constants": symbols["constants"] - CODE_BASE, "ram_end": symbols["ram_end"]}
