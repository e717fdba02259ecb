"""Firmware files: what an ELF, Intel HEX, S-record, UF2 or binary file puts where.

Sources: the ELF specification and Arm's addenda (IHI 0045) for the attributes of the processor, and
Microsoft's UF2 specification.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.board.mcu import APPLICATION_CORES
from unbrick.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FLAT_SIZE = 64 << 20
"""Bytes from the first to the last of a file that is taken as one image."""
MAX_FIRMWARE_SIZE = 64 << 20
"""Bytes of a firmware file that are read; debug information makes ELF files large."""

_UF2_MAGIC, _UF2_BLOCK_SIZE = 0x0A324655, 512
_UF2_SECOND_MAGIC, _UF2_END_MAGIC = 0x9E5D5157, 0x0AB16F30
_UF2_DATA_MAX = 476
_UF2_ELSEWHERE = 0x0000_1001
"""Flags of a block that is not for the main flash, or is a file."""

_ELF_MAGIC = b"\x7fELF"
_NAME_HINT = "build the firmware, or correct the name: it counts from the target's file"
_EM_ARM = 40
_BINARY_SUFFIXES = (".bin", ".img")

# Tag_CPU_arch: what each core runs besides that of the cores before it.
_V6M, _V6SM, _V7, _V7EM, _V8M_BASE, _V8M_MAIN = 11, 12, 10, 13, 16, 17
_ARCHITECTURES = {
    "cortex-m0": {_V6M, _V6SM},
    "cortex-m0plus": {_V6M, _V6SM},
    "cortex-m3": {_V6M, _V6SM, _V7},
    "cortex-m4": {_V6M, _V6SM, _V7, _V7EM},
    "cortex-m7": {_V6M, _V6SM, _V7, _V7EM},
    "cortex-m33": {_V6M, _V6SM, _V7, _V7EM, _V8M_BASE, _V8M_MAIN},
    "cortex-a15": {_V7},
}
_ARCHITECTURE_NAMES = {
    _V6M: "Armv6-M",
    _V6SM: "Armv6S-M",
    _V7: "Armv7",
    _V7EM: "Armv7E-M",
    _V8M_BASE: "Armv8-M.base",
    _V8M_MAIN: "Armv8-M.main",
    14: "Armv8-A",
    15: "Armv8-R",
}


def count_architectures(core: str) -> int:
    """How many of Arm's architectures a core can run: the least that will do is what files want."""
    return len(_ARCHITECTURES[core])


class OtherCoreError(SetupError):
    """A file is for another core than the chip's."""


@dataclass(frozen=True)
class Piece:
    """Bytes at an address."""

    address: int
    data: bytes

    @property
    def end(self) -> int:
        """The first address after them."""
        return self.address + len(self.data)


def read_flat(path: Path) -> tuple[bytes, int | None]:
    """What a file for any processor holds, gaps filled with 0xFF, and where it lies if it says so.

    Raises:
        SetupError: it cannot be read, is damaged, or its parts lie too far from each other.
    """
    data = read_bytes(path, hint="correct its name")
    form = _find_format(path, data)
    if form is None:
        return data, None
    pieces = _join(path, form[1](path, data, None))
    first, end = pieces[0].address, pieces[-1].end
    if end - first > MAX_FLAT_SIZE:
        raise SetupError(
            f"{path} has parts that lie far apart, at {first:#x} and {pieces[-1].address:#x}",
            hint="give a file of the program alone",
        )
    flat = bytearray(b"\xff" * (end - first))
    for piece in pieces:
        flat[piece.address - first : piece.end - first] = piece.data
    return bytes(flat), first


def read_firmware(path: Path, at: int | None, core: str) -> tuple[Piece, ...]:
    """What a file puts where; nothing overlaps, and the addresses go up.

    The contents say which format it is. Files whose names end with ``.bin`` or ``.img`` are binary.

    Args:
        path: the file.
        at: address of a binary file. The other formats have their own addresses.
        core: of the chip, such as ``cortex-m3``.

    Raises:
        SetupError: it cannot be read, is damaged, is for another core, or has no address or two.
    """
    data = read_bytes(path)
    form = _find_format(path, data)
    if form is None:
        if at is None:
            raise SetupError(
                f"{path} is a binary file, which does not say where it lies",
                hint="give `at`, its address in the flash",
            )
        return (Piece(at, data),)
    name, read = form
    if at is not None:
        raise SetupError(
            f"{path} has addresses of its own, as every {name} file", hint="leave out `at`"
        )
    return _join(path, read(path, data, core))


def read_bytes(path: Path, *, hint: str = _NAME_HINT) -> bytes:
    """A whole file.

    Args:
        path: the file.
        hint: what to do when it cannot be read.

    Raises:
        SetupError: it cannot be read, is empty or too long.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FIRMWARE_SIZE + 1)
    except OSError as error:
        raise SetupError(
            f"cannot read {path}: {error.strerror}",
            hint=hint,
        ) from None
    if not data:
        raise SetupError(f"{path} is empty", hint="build the firmware again")
    if len(data) > MAX_FIRMWARE_SIZE:
        raise SetupError(f"{path} is longer than {MAX_FIRMWARE_SIZE >> 20} MiB", hint="strip it")
    return data


def tells_addresses(path: Path) -> bool:
    """Whether a file has addresses of its own; a binary file has none.

    Raises:
        SetupError: it cannot be read, is empty or too long.
    """
    return _find_format(path, read_bytes(path)) is not None


def is_elf(path: Path) -> bool:
    """Whether a file is ELF.

    Raises:
        SetupError: it cannot be read, is empty or too long.
    """
    return read_bytes(path).startswith(_ELF_MAGIC)


def _find_format(path: Path, data: bytes) -> tuple[str, Callable[..., list[Piece]]] | None:
    if path.suffix.lower() in _BINARY_SUFFIXES:
        return None
    if data.startswith(_ELF_MAGIC):
        return "ELF", _read_elf
    if len(data) >= _UF2_BLOCK_SIZE and data.startswith(_UF2_MAGIC.to_bytes(4, "little")):
        return "UF2", _read_uf2
    start = data[:2]
    if start[:1] == b":":
        return "Intel HEX", _read_hex
    if start[:1] == b"S" and start[1:].isdigit():
        return "S-record", _read_srec
    return None


def _read_elf(path: Path, data: bytes, core: str | None) -> list[Piece]:
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 - slow to import
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        elf = ELFFile(io.BytesIO(data))
        if core is not None:
            _check_core(path, elf, core)
        return [
            Piece(part["p_paddr"], part.data())
            for part in elf.iter_segments("PT_LOAD")
            if part["p_filesz"]
        ]
    except (ELFError, ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise _damaged(path, "ELF", error) from None


def _check_core(path: Path, elf: Any, core: str) -> None:
    """See that the compiler made it for this core, or for one that this one can stand for."""
    machine = elf.header["e_machine"]
    if machine not in {"EM_ARM", _EM_ARM} or elf.elfclass != 32 or not elf.little_endian:
        what = str(machine).removeprefix("EM_")
        raise _other_core(path, f"{what}, {elf.elfclass} bits", core)
    section = elf.get_section_by_name(".ARM.attributes")
    if section is None:
        return
    found = {
        attribute.tag: attribute.value
        for part in section.iter_subsections()
        for sub in part.iter_subsubsections()
        for attribute in sub.iter_attributes()
    }
    profile, architecture = found.get("TAG_CPU_ARCH_PROFILE"), found.get("TAG_CPU_ARCH")
    if profile is not None and (chr(profile) in "AR") != (core in APPLICATION_CORES):
        raise _other_core(path, f"a Cortex-{chr(profile)}", core)
    if architecture is not None and architecture not in _ARCHITECTURES[core]:
        name = _ARCHITECTURE_NAMES.get(architecture, f"architecture {architecture}")
        raise _other_core(path, name, core)


def _other_core(path: Path, what: str, core: str) -> OtherCoreError:
    return OtherCoreError(
        f"{path} is for another core: {what}; the chip has a {core}",
        hint="name the firmware that was built for this chip, or correct `chip`",
    )


def _damaged(path: Path, form: str, error: Exception) -> SetupError:
    return SetupError(
        f"{path} is damaged, or no {form}: {str(error).rstrip('.')}", hint="build it again"
    )


def _read_hex(path: Path, data: bytes, _core: str | None) -> list[Piece]:
    return _read_records(path, data, "Intel HEX", "add_ihex")


def _read_srec(path: Path, data: bytes, _core: str | None) -> list[Piece]:
    return _read_records(path, data, "S-record", "add_srec")


def _read_records(path: Path, data: bytes, form: str, add: str) -> list[Piece]:
    import bincopy  # noqa: PLC0415 - slow to import

    binary = bincopy.BinFile()
    try:
        getattr(binary, add)(data.decode("ascii"))
    except (bincopy.Error, ValueError, IndexError) as error:
        raise _damaged(path, form, error) from None
    return [Piece(segment.address, bytes(segment.data)) for segment in binary.segments]


def _read_uf2(path: Path, data: bytes, _core: str | None) -> list[Piece]:
    pieces = []
    for at in range(0, len(data), _UF2_BLOCK_SIZE):
        block = data[at : at + _UF2_BLOCK_SIZE]
        if len(block) < _UF2_BLOCK_SIZE:
            raise _damaged(path, "UF2", ValueError(f"block {at // _UF2_BLOCK_SIZE} is cut off"))
        first, second, flags, address, size = struct.unpack_from("<5I", block)
        last = int.from_bytes(block[-4:], "little")
        magics = (first, second, last) == (_UF2_MAGIC, _UF2_SECOND_MAGIC, _UF2_END_MAGIC)
        if not magics or size > _UF2_DATA_MAX:
            raise _damaged(path, "UF2", ValueError(f"block {at // _UF2_BLOCK_SIZE} is wrong"))
        if not flags & _UF2_ELSEWHERE:
            pieces.append(Piece(address, block[32 : 32 + size]))
    return pieces


def _join(path: Path, pieces: list[Piece]) -> tuple[Piece, ...]:
    """Pieces by their addresses, those that touch as one.

    Raises:
        SetupError: there is none, or two of them overlap.
    """
    if not pieces:
        raise SetupError(f"{path} holds nothing to load", hint="name the file that is flashed")
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.address):
        if joined and piece.address < joined[-1].end:
            raise _damaged(path, "file to load", ValueError(f"{piece.address:#x} is there twice"))
        if joined and piece.address == joined[-1].end:
            joined[-1] = Piece(joined[-1].address, joined[-1].data + piece.data)
        else:
            joined.append(piece)
    return tuple(joined)
