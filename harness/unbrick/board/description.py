"""Memory map, NOR geometry and layout of the terminal. Sizes and addresses are in bytes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

from unbrick.flash.geometry import FlashGeometry

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Region:
    """A range of the address space: ``base`` to ``base + size - 1``."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address after the region."""
        return self.base + self.size


@dataclass(frozen=True)
class NorGeometry:
    """Two 16-bit StrataFlash P30-65nm chips side by side, as the CFI query reports them.

    Every size is for the pair. ``modelled`` is how much of the array the engines keep: the layout
    ends below it, and firmware that touches more is at fault.
    """

    size: int = 64 * MIB
    block_size: int = 256 * KIB
    write_buffer: int = 2 * KIB
    modelled: int = 4 * MIB

    @cached_property
    def geometry(self) -> FlashGeometry:
        """The erase blocks of what is modelled."""
        return FlashGeometry.of_blocks(self.modelled, self.block_size)


@dataclass(frozen=True)
class Partition:
    """A range of the NOR, as offsets from the start of the chip."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first offset after the partition."""
        return self.offset + self.size


@dataclass(frozen=True)
class MemoryMap:
    """Where things are in the address space."""

    nor: int = 0x0000_0000
    nor_window: int = 0x4000_0000
    sram: int = 0x4800_0000
    sysreg: int = 0x1000_0000
    sys_24mhz: int = 0x1000_005C
    sys_cfgctrl: int = 0x1000_00A4
    uart0: int = 0x1000_9000
    uart1: int = 0x1000_A000
    timer: int = 0x1001_1000
    gic_cpu: int = 0x1E00_0100
    gic_dist: int = 0x1E00_1000
    irq_timer: int = 34
    irq_uart0: int = 37
    irq_uart1: int = 38


@dataclass(frozen=True)
class Board:
    """One terminal: its map, its memories and what lies where in them."""

    hardware_id: str
    map: MemoryMap
    nor: NorGeometry
    partitions: tuple[Partition, ...]
    sram: Region
    agent: Region
    pool: Region
    resident: Region
    image_header_size: int = 0x200
    uart_clock_hz: int = 24_000_000
    baud: int = 115_200
    timer_hz: int = 1_000_000
    counter_hz: int = 24_000_000

    def partition(self, name: str) -> Partition:
        """The partition called ``name``.

        Raises:
            KeyError: there is none.
        """
        for part in self.partitions:
            if part.name == name:
                return part
        raise KeyError(name)

    def name_partition(self, offset: int) -> str:
        """The name of the partition at an offset in the NOR; ``unused`` between them."""
        found = (part.name for part in self.partitions if part.offset <= offset < part.end)
        return next(found, "unused")


MAP = MemoryMap()

BOARD = Board(
    hardware_id="unbrick-a9-r1",
    map=MAP,
    nor=NorGeometry(),
    partitions=(
        Partition("boot", 0x000000, 0x040000),
        Partition("identity", 0x040000, 0x040000),
        Partition("journal", 0x080000, 0x080000),
        Partition("application", 0x100000, 0x100000),
        Partition("userdata", 0x200000, 0x080000),
    ),
    sram=Region(MAP.sram, 2 * MIB),
    # The program's own data and stacks come first, then the pool, then the agent. While the
    # resident program runs, its code takes the end of the pool.
    pool=Region(MAP.sram + 128 * KIB, (2048 - 128 - 64) * KIB),
    resident=Region(MAP.sram + (2048 - 64 - 128) * KIB, 128 * KIB),
    agent=Region(MAP.sram + (2048 - 64) * KIB, 64 * KIB),
)


def _values(board: Board) -> dict[str, int]:
    values = {f"BOARD_{f.name.upper()}": getattr(board.map, f.name) for f in fields(board.map)}
    for name in ("sram", "pool", "resident", "agent"):
        region: Region = getattr(board, name)
        values[f"BOARD_{name.upper()}_BASE"] = region.base
        values[f"BOARD_{name.upper()}_SIZE"] = region.size
    for part in board.partitions:
        values[f"BOARD_{part.name.upper()}_OFFSET"] = part.offset
        values[f"BOARD_{part.name.upper()}_SIZE"] = part.size
    values["BOARD_IMAGE_HEADER_SIZE"] = board.image_header_size
    values["BOARD_UART_CLOCK_HZ"] = board.uart_clock_hz
    values["BOARD_BAUD"] = board.baud
    values["BOARD_TIMER_HZ"] = board.timer_hz
    values["BOARD_COUNTER_HZ"] = board.counter_hz
    return values


def c_header(board: Board = BOARD) -> str:
    """``board_map.h``: every address, size and border as a C macro. No NOR geometry: the firmware
    learns that by CFI query.
    """
    lines = ["#pragma once", f'#define BOARD_HARDWARE_ID "{board.hardware_id}"']
    lines += [f"#define {name} 0x{value:08x}u" for name, value in _values(board).items()]
    return "\n".join(lines) + "\n"


def linker_symbols(board: Board = BOARD) -> str:
    """``board_map.ld``: the same values as linker symbols, to be included by linker scripts."""
    return "".join(f"{name} = 0x{value:08x};\n" for name, value in _values(board).items())
