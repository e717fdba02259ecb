"""Where in the source an address of the firmware comes from (DWARF, with ``pyelftools``)."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from elftools.dwarf.lineprogram import LineProgram, LineState


def _sequences(program: LineProgram) -> list[tuple[int, str]]:
    """Addresses and ``file:line`` of a line program, without code that the linker dropped: its
    sequences begin at address 0, where only the reset vector really is.
    """
    files = program["file_entry"]
    first = 0 if program["version"] >= 5 else 1
    found: list[tuple[int, str]] = []
    sequence: list[tuple[int, str]] = []
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if state.end_sequence:
            if sequence and sequence[0][0] != 0:
                found += sequence
            sequence = []
        elif 0 <= state.file - first < len(files):
            name = files[state.file - first].name.decode(errors="replace")
            sequence.append((state.address, f"{name}:{state.line}"))
    return found


class SourceLine(NamedTuple):
    """Code from ``start`` to before ``end`` comes from line ``number`` (0: none) of ``file``."""

    start: int
    end: int
    file: str
    number: int


def read_source_lines(elf_file: Path) -> Iterator[SourceLine]:
    """The line table of an ELF file, without code that the linker dropped; see above."""
    with elf_file.open("rb") as stream:
        dwarf = ELFFile(stream).get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is None:
                continue
            files = _paths(program)
            sequence: list[LineState] = []
            for entry in program.get_entries():
                if entry.state is None:
                    continue
                sequence.append(entry.state)
                if not entry.state.end_sequence:
                    continue
                if sequence[0].address != 0:
                    for this, following in pairwise(sequence):
                        if this.address < following.address:
                            file = files.get(this.file, "")
                            yield SourceLine(this.address, following.address, file, this.line)
                sequence = []


def _paths(program: LineProgram) -> dict[int, str]:
    """Folder and name of each file of a line program, by its number."""
    first = 0 if program["version"] >= 5 else 1
    folders = [folder.decode(errors="replace") for folder in program["include_directory"]]
    paths = {}
    for number, entry in enumerate(program["file_entry"], first):
        at = entry.dir_index - first
        folder = folders[at] + "/" if 0 <= at < len(folders) else ""
        paths[number] = folder + entry.name.decode(errors="replace")
    return paths


ASSEMBLY_MOST = 256
"""Bytes that a function of no size has at most: assembly seldom says how long one is."""


def _fill_sizes(functions: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Functions by address; one of no size goes on to the next one, if that is near."""
    starts = sorted({start for start, _, _ in functions})
    found = []
    for start, end, name in functions:
        following = bisect_right(starts, start)
        last = starts[following] if following < len(starts) else start + ASSEMBLY_MOST
        found.append((start, end if end > start else min(last, start + ASSEMBLY_MOST), name))
    return found


class Symbols:
    """Functions and lines of one or more ELF files."""

    def __init__(self, elf_files: Iterable[Path] = ()) -> None:
        self._files = [Path(path) for path in elf_files]

    @cached_property
    def _functions(self) -> list[tuple[int, int, str]]:
        found = []
        for path in self._files:
            with path.open("rb") as stream:
                for section in ELFFile(stream).iter_sections():
                    if not isinstance(section, SymbolTableSection):
                        continue
                    for symbol in section.iter_symbols():
                        if symbol["st_info"]["type"] == "STT_FUNC":
                            start = symbol["st_value"] & ~1
                            found.append((start, start + symbol["st_size"], symbol.name))
        return _fill_sizes(sorted(found))

    @cached_property
    def _lines(self) -> list[tuple[int, str]]:
        found = []
        for path in self._files:
            with path.open("rb") as stream:
                elf = ELFFile(stream)
                if not elf.has_dwarf_info():
                    continue
                dwarf = elf.get_dwarf_info()
                for unit in dwarf.iter_CUs():
                    program = dwarf.line_program_for_CU(unit)
                    if program is None:
                        continue
                    found += _sequences(program)
        return sorted(found)

    def describe(self, address: int) -> str:
        """``function (file:line)`` for an address, or an empty string when it is not known."""
        at = bisect_right(self._functions, (address, 1 << 32, "")) - 1
        if at < 0 or not self._functions[at][0] <= address < self._functions[at][1]:
            return ""
        line = bisect_right(self._lines, (address, "\U0010ffff")) - 1
        where = f" ({self._lines[line][1]})" if line >= 0 else ""
        return self._functions[at][2] + where
