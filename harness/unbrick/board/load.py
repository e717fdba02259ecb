"""Reads boards and chips from their TOML files, and checks them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.board.description import Board, Device, FlashChip, FlashTimes, Nor, Region
from unbrick.errors import SetupError
from unbrick.tables import read_toml

if TYPE_CHECKING:
    from unbrick.tables import Entries

SUFFIX = ".toml"
ADDRESS_SPACE_SIZE = 1 << 32
"""Bytes of the address space."""
UNREADABLE_HINT = "name a file that can be read"

_HERE = Path(__file__).resolve().parent
_WIDTHS = (8, 16, 32, 64)
_SIDE_BY_SIDE = (1, 2, 4)


@cache
def load_board(name_or_path: str | Path) -> Board:
    """A board, by the name of one that comes with Unbrick, or from a file.

    Args:
        name_or_path: a name, such as ``vexpress-a9``, or a path that ends with ``.toml``. The chip
            that such a file names is one of Unbrick, or a path from the file's folder.

    Raises:
        SetupError: there is no such board, or its file or its chip's file is wrong.
    """
    path = find_file("boards", str(name_or_path), Path())
    entries = read_toml(path, UNREADABLE_HINT)
    devices = tuple(_device(name, table) for name, table in entries.table("devices").tables())
    board = Board(
        name=path.stem,
        core=entries.text("core"),
        nor=_nor(entries.table("nor"), path.parent),
        sram=_sram(entries.table("sram")),
        devices=devices,
        uarts=tuple(entries.take("uarts", list, "a list of names of devices")),
        baud=entries.number("baud", least=1, most=10_000_000),
    )
    entries.all_used()
    _check(board, entries)
    return board


@cache
def load_flash_chip(name_or_path: str | Path, folder: Path = Path()) -> FlashChip:
    """A flash chip, by the name of one that comes with Unbrick, or from a file.

    Args:
        name_or_path: as in :func:`load_board`.
        folder: where a path begins.

    Raises:
        SetupError: there is no such chip, or its file is wrong.
    """
    path = find_file("flash_chips", str(name_or_path), folder)
    entries = read_toml(path, UNREADABLE_HINT)
    times = entries.table("times_ns")
    width = entries.number("width")
    if width not in _WIDTHS:
        raise entries.wrong(f"is wrong: `width` is {width}", f"choose one of {_WIDTHS}")
    chip = FlashChip(
        name=path.stem,
        width=width,
        blocks=tuple(read_pairs(entries, "blocks", "count", "size")),
        write_buffer=entries.number("write_buffer", 0),
        manufacturer_id=entries.number("manufacturer_id", 0),
        device_id=entries.number("device_id", 0),
        times=FlashTimes(
            word=times.number("word", least=1),
            erase=times.number("erase", least=1, most=1 << 40),
            blank_check=times.number("blank_check", 0),
            suspend=times.number("suspend", 0),
            buffer=tuple(read_pairs(times, "buffer", "words", "ns")),
        ),
    )
    for table in (entries, times):
        table.all_used()
    if not chip.blocks:
        raise entries.wrong("is wrong: `blocks` is missing", "give each `count` and `size`")
    largest = max((words for words, _ in chip.times.buffer), default=0)
    if largest * chip.width // 8 != chip.write_buffer:
        raise times.wrong(
            f"is wrong: `buffer` ends with {largest} words, `write_buffer` is {chip.write_buffer}",
            "give a time for the whole buffer, or neither",
        )
    return chip


def find_file(kind: str, name: str, folder: Path) -> Path:
    """The file of a board or a chip: in the folder ``kind`` of this package, or at a path.

    Raises:
        SetupError: there is no such name.
    """
    if name.endswith(SUFFIX):
        return folder / name
    known = {path.stem: path for path in sorted((_HERE / kind).glob(f"*{SUFFIX}"))}
    if name not in known:
        raise SetupError(
            f"there is no {kind.removesuffix('s').replace('_', ' ')} {name!r}",
            hint=f"choose {' or '.join(known)}, or give the path of a file {SUFFIX}",
        )
    return known[name]


def read_pairs(entries: Entries, key: str, first: str, second: str) -> list[tuple[int, int]]:
    """A list of tables that have two numbers each, both at least 1."""
    pairs = []
    for row in entries.rows(key):
        pairs.append((row.number(first, least=1), row.number(second, least=1)))
        row.all_used()
    return pairs


def _nor(entries: Entries, folder: Path) -> Nor:
    base = entries.number("base")
    count = entries.number("side_by_side", 1)
    if count not in _SIDE_BY_SIDE:
        raise entries.wrong(
            f"is wrong: `side_by_side` is {count}", f"choose one of {_SIDE_BY_SIDE}"
        )
    chip = load_flash_chip(entries.text("chip"), folder)
    size = chip.size * count
    nor = Nor(
        chip=chip,
        side_by_side=count,
        base=base,
        window=entries.number("window", base),
        modelled=entries.number("modelled", size, least=1, most=size),
    )
    entries.all_used()
    if nor.geometry.size != nor.modelled:
        raise entries.wrong(
            f"is wrong: `modelled`, {nor.modelled:#x}, ends within an erase block",
            f"choose {nor.geometry.size:#x}",
        )
    return nor


def _sram(entries: Entries) -> Region:
    region = Region(entries.number("base"), entries.number("size", least=1))
    entries.all_used()
    return region


def _device(name: str, entries: Entries) -> Device:
    device = Device(
        name=name,
        base=entries.number("base"),
        interrupt=entries.number("interrupt", most=1019) if entries.has("interrupt") else None,
        clock_hz=entries.number("clock_hz", least=1) if entries.has("clock_hz") else None,
    )
    entries.all_used()
    return device


def _check(board: Board, entries: Entries) -> None:
    """See that the parts fit together."""
    names = [device.name for device in board.devices]
    for uart in board.uarts:
        if uart not in names:
            raise entries.wrong(
                f"is wrong: `uarts` names {uart!r}", f"name devices: {', '.join(names)}"
            )
    memories = sorted(
        {
            ("nor", board.nor.base, board.nor.size),
            ("nor", board.nor.window, board.nor.size),
            ("sram", board.sram.base, board.sram.size),
        },
        key=lambda memory: memory[1],
    )
    ends = [base + size for _, base, size in memories]
    starts = [*(base for _, base, _ in memories[1:]), ADDRESS_SPACE_SIZE]
    for (name, base, _), end, start in zip(memories, ends, starts, strict=True):
        if end > start:
            raise entries.wrong(
                f"is wrong: [{name}] at {base:#x} ends at {end:#x}, after {start:#x}",
                "correct `base` or `size`, so that no two memories overlap",
            )
    for device in board.devices:
        for name, base, size in memories:
            if base <= device.base < base + size:
                raise entries.wrong(
                    f"is wrong: the device {device.name} at {device.base:#x} is in [{name}]",
                    "correct its `base`",
                )
