"""Reads a target from its TOML file, and checks it (docs/any-firmware.md has every entry)."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.board import load_chip
from unbrick.board.svd import check_svd
from unbrick.errors import SetupError
from unbrick.flash.cells import Cells
from unbrick.flash.partition import Partition
from unbrick.tables import name_nearest, read_toml
from unbrick.target.description import (
    Afterwards,
    Description,
    FirmwareFile,
    Never,
    Recovered,
    Trigger,
)
from unbrick.target.drivers import DRIVERS, read_driver
from unbrick.target.files import Piece, is_elf, read_bytes, read_firmware
from unbrick.target.form import WORD, FileForm

if TYPE_CHECKING:
    from unbrick.board.mcu import McuChip
    from unbrick.flash.geometry import FlashGeometry
    from unbrick.tables import Entries

SUFFIX = ".toml"
MAX_DURATION_S = 3600.0
"""The longest time that a target file can name, in virtual seconds."""

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min)")
_NAME = re.compile(r"[a-z0-9-]+")
WIRE = "wire"
"""What the console is called outside."""

_READ_HINT = "name the file that describes the target; `unbrick init` writes one"


def load_target(path: Path) -> Description:
    """A target from its file.

    Raises:
        SetupError: the file, or one that it names, is missing or wrong.
    """
    entries = read_toml(path, _READ_HINT)
    reader = _Reader(entries, path.parent)
    description = reader.read(path)
    entries.all_used()
    return description


class _Reader:
    """Reads the tables of one file. Other files' names count from its folder."""

    def __init__(self, entries: Entries, folder: Path) -> None:
        self._entries, self._folder = entries, folder
        self._chip: McuChip = load_chip(entries.text("chip"), folder)

    def read(self, path: Path) -> Description:
        entries, chip = self._entries, self._chip
        name = entries.text("name", re.sub(r"[^a-z0-9-]+", "-", path.stem.lower()).strip("-"))
        if not _NAME.fullmatch(name):
            raise entries.wrong(
                f"is wrong: `name` is {name!r}", "use small letters, digits and hyphens"
            )
        firmware = self._programs(entries.one_or_more("firmware"))
        if not firmware:
            raise entries.wrong("is wrong: [[firmware]] is missing", "name what is flashed")
        _check_apart(firmware, entries)
        images = {name: self._program(table) for name, table in entries.table("images").tables()}
        table = entries.table("update")
        update = self._update(table)
        recovered = self._recovered(entries.table("recovered"), images)
        console = self._console(entries)
        description = Description(
            path=path,
            name=name,
            about=entries.text("about", f"the update that {path} describes"),
            chip=chip,
            console=console,
            programs=(*firmware, *update.staged),
            images=images,
            partitions=self._partitions(entries.table("partitions")),
            update=update,
            recovered=recovered,
            never=self._never(entries.table("never")),
            afterwards=self._afterwards(entries),
            form=self._form(entries),
            svd=self._svd(entries),
            uarts=self._uarts(entries.table("uarts"), console),
        )
        return _with_digest(description)

    def _console(self, entries: Entries) -> str:
        uarts = self._chip.uarts
        console = entries.text("console", uarts[0] if uarts else "")
        if console not in uarts:
            raise entries.wrong(
                f"is wrong: `console` is {console!r}",
                f"{self._chip.name} has {', '.join(uarts) or 'no UART'}",
            )
        return console

    def _uarts(self, table: Entries, console: str) -> dict[str, str]:
        """The names of other UARTs, and what they are called outside."""
        uarts: dict[str, str] = {}
        for name, uart in table.plain().items():
            taken = {WIRE, *self._chip.uarts} - {uart}
            if not _NAME.fullmatch(name) or name in taken:
                raise table.wrong(
                    f"is wrong: a UART cannot be called {name!r}",
                    f"use small letters, digits and hyphens; {WIRE} and names of others are taken",
                )
            if uart not in self._chip.uarts:
                raise table.wrong(
                    f"is wrong: `{name}` is {uart!r}", name_nearest(str(uart), self._chip.uarts)
                )
            if uart == console or uart in uarts.values():
                why = "the console" if uart == console else "there twice"
                raise table.wrong(f"is wrong: `{name}` is {uart}, which is {why}", "leave it out")
            uarts[name] = uart
        return uarts

    def _svd(self, entries: Entries) -> Path | None:
        if not entries.has("svd"):
            return None
        path = self._folder / entries.text("svd")
        check_svd(path)
        return path

    def _programs(self, tables: list[Entries]) -> tuple[FirmwareFile, ...]:
        return tuple(self._program(table) for table in tables)

    def _program(self, table: Entries, file_key: str = "file") -> FirmwareFile:
        """A file or bytes, which must fit into the flash."""
        at = _address(table, "at") if table.has("at") else None
        digits = table.text("hex") if table.has("hex") else None
        path = self._folder / table.text(file_key) if digits is None else None
        symbols = self._symbols(table)
        table.all_used()
        if path is None:
            pieces, name = _parse_bytes(digits or "", at, table), "bytes"
        else:
            name, pieces = path.name, read_firmware(path, at, self._chip.core)
            symbols = symbols or (path if is_elf(path) else None)
        for piece in pieces:
            self._check_fits(name, piece, table)
        return FirmwareFile(name, pieces, path, symbols)

    def _symbols(self, table: Entries) -> Path | None:
        """The ELF file that belongs to a binary one."""
        if not table.has("symbols"):
            return None
        path = self._folder / table.text("symbols")
        if not is_elf(path):
            raise table.wrong(f"is wrong: `symbols` is {str(path)!r}", "name an ELF file")
        return path

    def _check_fits(self, name: str, piece: Piece, table: Entries) -> None:
        chip = self._chip
        try:
            first = chip.image_offset(piece.address)
            last = chip.image_offset(piece.end - 1)
        except SetupError as error:
            raise table.wrong(
                f"is wrong: {name} does not fit: it lies at {piece.address:#x} to "
                f"{piece.end - 1:#x}",
                error.hint,
            ) from None
        if last - first != len(piece.data) - 1:
            raise table.wrong(
                f"is wrong: {name} lies across the end of a flash at {piece.address:#x}",
                "correct `at`",
            )

    def _partitions(self, table: Entries) -> tuple[Partition, ...]:
        chip = self._chip
        parts = []
        for name, entries in table.tables():
            offset = chip.image_offset(_address(entries, "at"))
            parts.append(Partition(name, offset, entries.number("size", least=1)))
            entries.all_used()
        for part, first in chip.placed_flash:
            if not any(first <= one.offset < first + part.size for one in parts):
                parts.append(Partition(part.name, first, part.size))
        return tuple(parts)

    def _update(self, table: Entries) -> Trigger:
        staged = self._programs(table.one_or_more("stage"))
        driver = self._driver(table)
        payload = self._payload(table, driver) if table.has("file") else None
        if driver in DRIVERS and payload is None:
            raise table.wrong("is wrong: `file` is missing", f"name what {driver} sends")
        update = Trigger(
            after=table.text("after", ""),
            typed=table.texts("type"),
            driver=driver,
            payload=payload,
            options=table.table("options").plain(),
            again=table.flag("again", default=True),
            within=_duration(table, "within", Trigger.within),
            staged=staged,
        )
        table.all_used()
        return update

    def _driver(self, table: Entries) -> str | Path:
        """One of ours, or a user's, which can be loaded."""
        driver = table.text("driver", "")
        if driver.endswith(".py"):
            path = self._folder / driver
            read_driver(path)
            return path
        if driver and driver not in DRIVERS:
            raise table.wrong(
                f"is wrong: there is no driver {driver!r}",
                f"choose one of {', '.join(sorted(DRIVERS))}, or name a Python file",
            )
        return driver

    def _payload(self, table: Entries, driver: str | Path) -> FirmwareFile:
        """What the driver sends: the file as it is, or, where that matters, what it puts where."""
        path = self._folder / table.text("file")
        at = _address(table, "at") if table.has("at") else None
        symbols = self._symbols(table)
        if isinstance(driver, str) and driver and DRIVERS[driver].addressed:
            return FirmwareFile(path.name, read_firmware(path, at, self._chip.core), path, symbols)
        return FirmwareFile(path.name, (Piece(at or 0, read_bytes(path)),), path, symbols)

    def _recovered(self, table: Entries, images: dict[str, FirmwareFile]) -> Recovered:
        runs = table.texts("runs")
        for name in runs:
            if name not in images:
                raise table.wrong(
                    f"is wrong: `runs` names {name!r}",
                    f"[images] has {', '.join(images) or 'nothing'}",
                )
        pc = table.table("pc") if table.has("pc") else None
        recovered = Recovered(
            says=table.texts("says"),
            within=_duration(table, "within", Recovered.within),
            flash=tuple(self._program(row, "equals") for row in table.one_or_more("flash")),
            runs=runs,
            pc=None if pc is None else (_address(pc, "from"), _address(pc, "to")),
            quiet=_duration(table, "quiet", Recovered.quiet),
            stays=_duration(table, "stays", Recovered.stays),
        )
        if pc is not None:
            pc.all_used()
        table.all_used()
        if not (recovered.says or recovered.flash or runs or recovered.pc):
            raise table.wrong(
                "says nothing of when the device has recovered",
                "give `says`, the text at its console; or `flash`, `runs` or `pc`",
            )
        return recovered

    def _never(self, table: Entries) -> Never:
        never = Never(
            says=table.texts("says"),
            faults=table.flag("faults", default=True),
            allowed=table.texts("allowed"),
        )
        table.all_used()
        return never

    def _afterwards(self, entries: Entries) -> Afterwards | None:
        if not entries.has("afterwards"):
            return None
        table = entries.table("afterwards")
        afterwards = Afterwards(
            stage=self._programs(table.one_or_more("stage")),
            says=table.texts("says"),
            never=table.texts("never"),
            within=_duration(table, "within", Recovered.within),
        )
        table.all_used()
        return afterwards

    def _form(self, entries: Entries) -> FileForm | None:
        if not entries.has("canonical"):
            return None
        table = entries.table("canonical")
        path = self._folder / table.text("file")
        ranges = []
        for field in table.one_or_more("fields"):
            offset = self._chip.image_offset(_address(field, "at"))
            ranges.append((offset, field.number("size", least=1)))
            field.all_used()
        table.all_used()
        if not ranges:
            raise table.wrong("is wrong: `fields` is missing", "name what canonical() looks at")
        if self._chip.geometry.checks:
            raise table.wrong("does not fit: the chip's flash has an ECC", "leave out [canonical]")
        _check_fields(ranges, self._chip.geometry, table)
        form = FileForm(path, self._chip, tuple(ranges))
        form.apply(Cells.of(b"", self._chip.geometry))  # it can be read and called
        return form


def _check_fields(ranges: list[tuple[int, int]], geometry: FlashGeometry, table: Entries) -> None:
    """See that each field is whole words of one block, and that no two have a word in common."""
    blocks = list(zip(geometry.starts, geometry.block_sizes, strict=True))
    end = 0
    for offset, length in sorted(ranges):
        inside = any(start <= offset and offset + length <= start + size for start, size in blocks)
        if offset % WORD or length % WORD or not inside or offset < end:
            raise table.wrong(
                "is wrong: a field is not whole words of one erase block, or is there twice",
                "correct `at` and `size` in `fields`",
            )
        end = offset + length


def _parse_bytes(digits: str, at: int | None, table: Entries) -> tuple[Piece, ...]:
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        data = b""
    if not data or at is None:
        raise table.wrong(
            "is wrong: `at` is missing" if data else f"is wrong: `hex` is {digits!r}",
            "give `hex` as pairs of digits and `at` as their address",
        )
    return (Piece(at, data),)


def _check_apart(programs: tuple[FirmwareFile, ...], entries: Entries) -> None:
    """See that no two files of the firmware lie over each other."""
    spans = sorted(
        (piece.address, piece.end, program.name) for program in programs for piece in program.pieces
    )
    for (_, end, one), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            raise entries.wrong(
                f"is wrong: {one} and {other} both have bytes at {start:#x}",
                "correct `at`, or leave one of them out",
            )


def _with_digest(description: Description) -> Description:
    digest = hashlib.sha256()
    digest.update(repr(replace(description, path=Path(), svd=None, uarts={})).encode())
    driver = description.update.driver
    form = description.form and description.form.path
    for path in (driver, form):
        if isinstance(path, Path):
            digest.update(path.read_bytes())
    return replace(description, digest=digest.hexdigest())


def _address(table: Entries, key: str) -> int:
    return table.number(key)


def _duration(table: Entries, key: str, default: float) -> float:
    """A time such as ``"200 ms"``, in seconds."""
    if not table.has(key):
        return default
    text = table.text(key)
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else MAX_DURATION_S + 1
    if seconds > MAX_DURATION_S:
        raise table.wrong(
            f"is wrong: `{key}` is {text!r}",
            'write a number and us, ms, s or min, as "200 ms"; an hour at most',
        )
    return seconds
