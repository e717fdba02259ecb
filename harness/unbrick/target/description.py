"""What a target file says, read and checked. Times are virtual seconds, addresses the chip's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from unbrick.board.mcu import McuChip
    from unbrick.engine.base import FirmwareFault
    from unbrick.flash.partition import Partition
    from unbrick.target.files import Piece
    from unbrick.target.form import FileForm


@dataclass(frozen=True)
class FirmwareFile:
    """A file of firmware, or bytes that the target file has itself.

    Attributes:
        name: for people.
        pieces: what lies where.
        path: of the file; None: there is none.
        symbols: the ELF file with its symbols, which it may be itself; None: there is none.
    """

    name: str
    pieces: tuple[Piece, ...]
    path: Path | None = None
    symbols: Path | None = None

    @property
    def data(self) -> bytes:
        """Its bytes from the first address on; gaps are blank."""
        first = self.pieces[0].address
        data = bytearray()
        for piece in self.pieces:
            data = data.ljust(piece.address - first, b"\xff") + piece.data
        return bytes(data)

    @property
    def digest(self) -> str:
        """SHA-256 of all that it puts anywhere, and of where."""
        digest = hashlib.sha256()
        for piece in self.pieces:
            digest.update(f"{piece.address}/{len(piece.data)}/".encode())
            digest.update(piece.data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Trigger:
    """What begins the update.

    Attributes:
        after: what the device must have said before anybody types or drives; empty: nothing.
        typed: what is then typed, as it stands.
        driver: name of one of ours, or a Python file; empty: there is none.
        payload: what the driver sends.
        options: of the driver.
        again: whether all this happens again after a power cut.
        within: until the driver must be done, from power-on.
        staged: what is put into the flash before the first start.
    """

    after: str = ""
    typed: tuple[str, ...] = ()
    driver: str | Path = ""
    payload: FirmwareFile | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    again: bool = True
    within: float = 60.0
    staged: tuple[FirmwareFile, ...] = ()

    @property
    def is_driven(self) -> bool:
        """Whether anybody does anything at the console."""
        return bool(self.typed or self.driver)


@dataclass(frozen=True)
class Recovered:
    """When the device counts as recovered; what is not given is not asked.

    Attributes:
        says: one of these texts, at the console.
        within: until it says so, from power-on or from the end of the driver's work.
        flash: what the flash must hold then.
        runs: names of images; the core must be in one of them, and that must be whole.
        pc: first address, and the one after the last, of where the core must be.
        quiet: for so long the flash must be left alone before the session ends.
        stays: for so long it must go on without starting anew.
    """

    says: tuple[str, ...] = ()
    within: float = 5.0
    flash: tuple[FirmwareFile, ...] = ()
    runs: tuple[str, ...] = ()
    pc: tuple[int, int] | None = None
    quiet: float = 0.1
    stays: float = 0.0


@dataclass(frozen=True)
class Never:
    """What must never be.

    Attributes:
        says: texts at the console.
        faults: whether the hardware's rules must be kept.
        allowed: kinds of faults that may be all the same.
    """

    says: tuple[str, ...] = ()
    faults: bool = True
    allowed: tuple[str, ...] = ()

    def allows(self, fault: FirmwareFault) -> bool:
        """Whether a fault may be all the same."""
        return not self.faults or fault.kind in self.allowed


@dataclass(frozen=True)
class Afterwards:
    """A check after each recovery: put something into the flash, and start the device again.

    Attributes:
        stage: what is put into the flash.
        says: one of these must come.
        never: none of these may come.
        within: until then.
    """

    stage: tuple[FirmwareFile, ...]
    says: tuple[str, ...]
    never: tuple[str, ...]
    within: float


@dataclass(frozen=True)
class Description:
    """A target, as its file has it.

    Attributes:
        path: of the file.
        name: first part of every case ID.
        about: one sentence for people.
        chip: what it runs on.
        console: name of the UART that is the console.
        uarts: names of other UARTs that are shown to other programs, by what they are called there.
        programs: what lies in the flash when the search begins, by name: firmware, then what is
            staged.
        images: what the core may be in, by name.
        partitions: named ranges of the flash.
        update: what begins the update.
        recovered: when the device counts as recovered.
        never: what must not be.
        afterwards: a further check; None: there is none.
        form: what of some fields of the flash counts; None: all does.
        svd: the vendor's file with names of registers; None: there is none.
        digest: SHA-256 of the target file and of all that it names but ``svd`` and ``uarts``,
            which change no verdict.
    """

    path: Path
    name: str
    about: str
    chip: McuChip
    console: str
    programs: tuple[FirmwareFile, ...]
    images: Mapping[str, FirmwareFile]
    partitions: tuple[Partition, ...]
    update: Trigger
    recovered: Recovered
    never: Never
    afterwards: Afterwards | None
    form: FileForm | None = None
    svd: Path | None = None
    uarts: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @cached_property
    def start_image(self) -> bytes:
        """The flash image with which the search begins."""
        return put(self.chip, self.chip.factory_image, self.programs)

    @property
    def elf_files(self) -> tuple[Path, ...]:
        """Files with symbols. What is sent has some only when the target's file names them."""
        programs = [*self.programs, *self.images.values()]
        programs += [self.update.payload] if self.update.payload else []
        found = (program.symbols for program in programs)
        return tuple(dict.fromkeys(path for path in found if path is not None))


def put(chip: McuChip, image: bytes, programs: Iterable[FirmwareFile]) -> bytes:
    """A flash image with programs in it, which must fit."""
    return put_pieces(chip, image, (piece for program in programs for piece in program.pieces))


def put_pieces(chip: McuChip, image: bytes, pieces: Iterable[Piece]) -> bytes:
    """A flash image with pieces in it, which must fit, and the check cells that belong to them."""
    changed = bytearray(image)
    for piece in pieces:
        offset = chip.image_offset(piece.address)
        changed[offset : offset + len(piece.data)] = piece.data
        chip.geometry.set_checks(changed, offset, len(piece.data))
    return bytes(changed)
