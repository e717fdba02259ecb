"""What a board is made of. Sizes and addresses are in bytes, times in nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

from unbrick.errors import SetupError
from unbrick.flash.geometry import CheckCells, FlashGeometry, WordPart

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


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
class FlashTimes:
    """How long a flash chip's operations typically take, in nanoseconds.

    Attributes:
        word: a program of one word.
        erase: of one block.
        blank_check: of one block; 0: the chip has none.
        suspend: until an operation has been suspended; 0: it cannot be.
        buffer: a program of at most so many words, and its time; the largest is last.
    """

    word: int
    erase: int
    blank_check: int = 0
    suspend: int = 0
    buffer: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class FlashChip:
    """One flash chip, or the flash within a microcontroller.

    Attributes:
        name: of its file in ``flash_chips/``.
        width: bits of its data bus, and of the word that it programs.
        blocks: number and size of erase blocks, from address 0 on.
        write_buffer: its size; 0: there is none.
        manufacturer_id, device_id: what it answers when it is asked; 0: it cannot be.
        times: of its operations.
    """

    name: str
    width: int
    blocks: tuple[tuple[int, int], ...]
    times: FlashTimes
    write_buffer: int = 0
    manufacturer_id: int = 0
    device_id: int = 0

    @property
    def size(self) -> int:
        """Bytes of the chip."""
        return sum(count * size for count, size in self.blocks)


@dataclass(frozen=True)
class Nor:
    """The flash of a board: equal chips side by side. Every size is for all of them.

    Attributes:
        chip: each of them.
        side_by_side: how many make the width of the bus.
        base: where it is read, and executed in place.
        window: where it takes commands; may be ``base``.
        modelled: how much of it the engines keep. Firmware that touches more is at fault.
        checks: what of it is check cells.
        parts: what of it programs words of its own.
    """

    chip: FlashChip
    side_by_side: int
    base: int
    window: int
    modelled: int
    checks: tuple[CheckCells, ...] = ()
    parts: tuple[WordPart, ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes of all chips."""
        return self.chip.size * self.side_by_side

    @cached_property
    def write_buffer(self) -> int:
        """Bytes that one operation programs at most."""
        return self.chip.write_buffer * self.side_by_side

    @cached_property
    def block_size(self) -> int:
        """Bytes of an erase block, where all are of one size.

        Raises:
            SetupError: they are not.
        """
        sizes = {size for _, size in self.chip.blocks}
        if len(sizes) != 1:
            raise SetupError(
                f"the erase blocks of {self.chip.name} differ in size",
                hint="use `geometry`, which knows each of them",
            )
        return sizes.pop() * self.side_by_side

    @cached_property
    def geometry(self) -> FlashGeometry:
        """How what is modelled is divided."""
        unit = self.chip.width // 8
        blocks = tuple(self._modelled_blocks())
        return FlashGeometry(blocks, unit, self.side_by_side, self.checks, self.parts)

    def _modelled_blocks(self) -> Iterator[int]:
        left = self.modelled
        for count, size in self.chip.blocks:
            for _ in range(count):
                if left <= 0:
                    return
                yield size * self.side_by_side
                left -= size * self.side_by_side


@dataclass(frozen=True)
class Device:
    """A device on the board.

    Attributes:
        name: what programs call it.
        base: address of its first register.
        interrupt: its number at the interrupt controller; None: it has none.
        clock_hz: what it counts, or makes its rate of; None: it has no clock.
    """

    name: str
    base: int
    interrupt: int | None = None
    clock_hz: int | None = None


@dataclass(frozen=True)
class Board:
    """The hardware: its core, its memories and its devices. It knows of no firmware.

    Attributes:
        name: of its file in ``boards/``.
        core: of the CPU, such as ``cortex-a9``.
        nor: the flash.
        sram: the memory that a power cut erases.
        devices: in the order of their file.
        uarts: names of the devices that are the wire, and the radio's modem.
        baud: bits a second of the UARTs, 8N1.
    """

    name: str
    core: str
    nor: Nor
    sram: Region
    devices: tuple[Device, ...]
    uarts: tuple[str, ...]
    baud: int

    @property
    def line_rate(self) -> float:
        """Bytes a second that a UART carries: each has a start bit and a stop bit."""
        return self.baud / 10

    def device(self, name: str) -> Device:
        """The device called ``name``.

        Raises:
            SetupError: there is none.
        """
        return find_device(f"the board {self.name}", self.devices, name)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


def find_device(owner: str, devices: Iterable[NamedT], name: str) -> NamedT:
    """The device called ``name``; ``owner`` says for people of what it is.

    Raises:
        SetupError: there is none.
    """
    by_name = {device.name: device for device in devices}
    if name not in by_name:
        raise SetupError(f"{owner} has no {name!r}", hint=f"it has {', '.join(by_name)}")
    return by_name[name]
