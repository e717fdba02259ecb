"""Reads ``layout.toml`` of a firmware, and makes the firmware's header of it.

The build writes :func:`c_header` and :func:`linker_symbols` into its folder, so no address is
written down twice. Sizes, offsets and addresses are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.board import Board, Region, load_board
from unbrick.flash.partition import Partition, find_partition, name_partition
from unbrick.tables import read_toml

if TYPE_CHECKING:
    from unbrick.tables import Entries

PARTITIONS = ("boot", "identity", "journal", "application", "userdata", "starts")
"""What the firmware has in the NOR."""


@dataclass(frozen=True)
class Layout:
    """Where our firmware has what.

    Attributes:
        board: the hardware.
        hardware_id: what images and terminals call that hardware.
        image_header_size: bytes before the program in an image.
        partitions: of the NOR.
        pool: of the SRAM, for tasks and the staging area.
        resident: of the SRAM, for the resident program; the end of the pool.
        agent: of the SRAM, for the code that rewrites the NOR.
    """

    board: Board
    hardware_id: str
    image_header_size: int
    partitions: tuple[Partition, ...]
    pool: Region
    resident: Region
    agent: Region

    def partition(self, name: str) -> Partition:
        """The partition called ``name``.

        Raises:
            SetupError: there is none.
        """
        return find_partition(self.partitions, name)

    def name_partition(self, offset: int) -> str:
        """The name of the partition at an offset in the NOR; ``unused`` between them."""
        return name_partition(self.partitions, offset)


def load_layout(path: Path) -> Layout:
    """Read and check a layout.

    Args:
        path: ``layout.toml`` of a firmware. A board that it names by a path is looked for from the
            file's folder.

    Raises:
        SetupError: the file is missing or wrong, or does not fit its board.
    """
    entries = read_toml(path, "copy `layout.toml` from the folder `firmware` of the repository")
    name = entries.text("board")
    board = load_board(path.parent / name if name.endswith(".toml") else name)
    sram, partitions = entries.table("sram"), entries.table("partitions")
    layout = Layout(
        board=board,
        hardware_id=entries.text("hardware_id"),
        image_header_size=entries.number("image_header_size", least=1, most=0xFFFF),
        partitions=tuple(_partition(partitions, name) for name in PARTITIONS),
        pool=_region(sram, "pool", board),
        resident=_region(sram, "resident", board),
        agent=_region(sram, "agent", board),
    )
    for table in (entries, sram, partitions):
        table.all_used()
    pool, resident, agent = layout.pool, layout.resident, layout.agent
    if not (pool.base <= resident.base and resident.end == pool.end):
        raise sram.wrong("is wrong: `resident` is not the end of `pool`", "move one of them")
    if agent.base < pool.end and pool.base < agent.end:
        raise sram.wrong("is wrong: `agent` and `pool` overlap", "move one of them")
    borders = {0, *board.nor.geometry.starts, board.nor.modelled}
    first = ", ".join(map(hex, sorted(borders)[:3]))
    for part in layout.partitions:
        if not {part.offset, part.end} <= borders:
            raise partitions.wrong(
                f"is wrong: `{part.name}` does not begin and end with an erase block of the board",
                f"choose from {first}, … {board.nor.modelled:#x}",
            )
    ordered = sorted(layout.partitions, key=lambda part: part.offset)
    for one, other in pairwise(ordered):
        if one.end > other.offset:
            raise partitions.wrong(
                f"is wrong: `{one.name}` and `{other.name}` overlap", "move one of them"
            )
    return layout


def _partition(entries: Entries, name: str) -> Partition:
    return Partition(name, *_range(entries.table(name)))


def _region(entries: Entries, name: str, board: Board) -> Region:
    offset, size = _range(entries.table(name))
    if offset + size > board.sram.size:
        raise entries.wrong(
            f"is wrong: `{name}` ends at {offset + size:#x}",
            f"the SRAM of {board.name} has {board.sram.size:#x} bytes",
        )
    return Region(board.sram.base + offset, size)


def _range(entries: Entries) -> tuple[int, int]:
    offset, size = entries.number("offset"), entries.number("size", least=1)
    entries.all_used()
    return offset, size


def _values(layout: Layout) -> dict[str, int]:
    board = layout.board
    values = {
        "BOARD_NOR": board.nor.base,
        "BOARD_NOR_WINDOW": board.nor.window,
        "BOARD_SRAM": board.sram.base,
    }
    values |= {f"BOARD_{device.name.upper()}": device.base for device in board.devices}
    interrupts = [(d.interrupt, d.name) for d in board.devices if d.interrupt is not None]
    values |= {f"BOARD_IRQ_{name.upper()}": number for number, name in sorted(interrupts)}
    regions = {"SRAM": board.sram, "POOL": layout.pool}
    regions |= {"RESIDENT": layout.resident, "AGENT": layout.agent}
    for name, region in regions.items():
        values[f"BOARD_{name}_BASE"] = region.base
        values[f"BOARD_{name}_SIZE"] = region.size
    for part in layout.partitions:
        values[f"BOARD_{part.name.upper()}_OFFSET"] = part.offset
        values[f"BOARD_{part.name.upper()}_SIZE"] = part.size
    values["BOARD_IMAGE_HEADER_SIZE"] = layout.image_header_size
    values["BOARD_UART_CLOCK_HZ"] = board.device(board.uarts[0]).clock_hz or 0
    values["BOARD_BAUD"] = board.baud
    values["BOARD_TIMER_HZ"] = board.device("timer").clock_hz or 0
    values["BOARD_COUNTER_HZ"] = board.device("sys_24mhz").clock_hz or 0
    return values


def c_header(layout: Layout) -> str:
    """``board_map.h``: every address, size and border as a C macro. No NOR geometry: the firmware
    learns that by CFI query.
    """
    lines = ["#pragma once", f'#define BOARD_HARDWARE_ID "{layout.hardware_id}"']
    lines += [f"#define {name} 0x{value:08x}u" for name, value in _values(layout).items()]
    return "\n".join(lines) + "\n"


def linker_symbols(layout: Layout) -> str:
    """``board_map.ld``: the same values as linker symbols, to be included by linker scripts."""
    return "".join(f"{name} = 0x{value:08x};\n" for name, value in _values(layout).items())
