"""What a microcontroller is made of. Sizes and addresses are in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.board.description import (
    Board,
    Device,
    FlashChip,
    FlashTimes,
    Nor,
    Region,
    find_device,
)
from unbrick.board.device_models import MODELS
from unbrick.errors import SetupError
from unbrick.flash.geometry import CheckCells, WordPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from unbrick.flash.geometry import FlashGeometry

SECURE_DISTANCE = 0x1000_0000
"""How much further secure code has RAM and devices on chips with ``secure_alias``."""
SECURE_PARTS = (0x3, 0x5)
"""The first digit of their addresses there."""
FLASH_WINDOWS = (0x10, 0x11, 0x12, 0x13)
"""The first byte of the flash's addresses with ``shared_bus``: one for each use of a cache."""


APPLICATION_CORES = ("cortex-a15",)
"""Those of Armv7-A: without NVIC, SysTick and MPU."""


OPTION_WORD = 8
"""Bytes of an option word that has no address: itself, and its complement."""


@dataclass(frozen=True)
class FlashRegion:
    """Flash that keeps its contents without power: the main flash, option bytes, UICR.

    Attributes:
        name: what its table is called; the first region is the main flash.
        base: where it is read, and stored to.
        blocks: number and size of erase blocks, from ``base`` on.
        alias: a second address of the same cells; None: it has none.
        factory: what the chip is delivered with, from ``base`` on; the rest is blank.
        ecc: bytes that one check cell is for; 0: it has none.
        words: of option words that have no address: name, and offset of the register that programs
            each, in the flash's controller. In the region each is eight bytes: itself and its
            complement. Empty: the bytes have addresses.
    """

    name: str
    base: int
    blocks: tuple[tuple[int, int], ...]
    alias: int | None = None
    factory: bytes = b""
    ecc: int = 0
    words: tuple[tuple[str, int], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the region."""
        return sum(count * size for count, size in self.blocks)

    @property
    def placed_blocks(self) -> tuple[tuple[int, int], ...]:
        """Number and size of erase blocks in the flash image: those of the check cells follow."""
        checks = ((count, size // self.ecc) for count, size in self.blocks if self.ecc)
        return (*self.blocks, *checks)

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Bytes of each erase block."""
        return tuple(size for count, size in self.blocks for _ in range(count))


@dataclass(frozen=True)
class McuDevice:
    """A device that a model stands for.

    Attributes:
        name: what its table is called.
        model: the name of the model, one of :data:`unbrick.board.device_models.MODELS`.
        base: address of its first register.
        interrupt: its line at the NVIC; None: it has none.
        numbers: what the model wants to know, in the order in which the model names them.
    """

    name: str
    model: str
    base: int
    interrupt: int | None
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class ReadyRule:
    """Bits that show that something is ready, as soon as it is switched on.

    Attributes:
        enable: address of the register, and mask of the bits, that firmware writes.
        ready: address and mask of the bits that follow. A mask of as many bits copies a field.
    """

    enable: tuple[int, int]
    ready: tuple[int, int]


@dataclass(frozen=True)
class Register:
    """A register that holds what was written, and has a value of its own after a reset."""

    name: str
    address: int
    reset: int


@dataclass(frozen=True)
class BootRom:
    """A ROM that the chip starts in; it is no flash, and never changes.

    Attributes:
        name: of its program, one of those in ``roms/``.
        base: where it lies.
        size: of its space, in bytes; what the program leaves is 0.
        stage: bytes of the main flash that are the ROM's: its second stage. Firmware lies behind.
    """

    name: str
    base: int
    size: int
    stage: int = 0

    def read(self) -> bytes:
        """What it holds.

        Raises:
            SetupError: it has not been compiled.
        """
        path = Path(__file__).parent / "roms" / f"{self.name}.bin"
        try:
            program = path.read_bytes()
        except OSError as error:
            raise SetupError(
                f"the boot ROM {self.name} is not there", hint="compile it: make setup"
            ) from error
        return program.ljust(self.size, b"\0")


@dataclass(frozen=True)
class Programmers:
    """What programs that put firmware onto a board call the chip; empty: it is not known.

    Attributes:
        openocd: the file in OpenOCD's folder ``target``, without its suffix.
        openocd_erase: its command that erases the whole flash.
        pyocd: the target of pyOCD.
        pyocd_pack: whether pyOCD knows it from a CMSIS pack only.
        jlink: the device of SEGGER's J-Link.
        nrfjprog: the family of Nordic's nrfjprog.
    """

    openocd: str = ""
    openocd_erase: str = ""
    pyocd: str = ""
    pyocd_pack: bool = False
    jlink: str = ""
    nrfjprog: str = ""


@dataclass(frozen=True)
class McuChip:
    """A microcontroller: its core, memories and devices. It knows of no firmware.

    Attributes:
        name: of its file in ``chips/``.
        core: such as ``cortex-m3``.
        clock_hz: of the core, once firmware has started its clocks.
        interrupts: lines of the NVIC.
        priority_bits: of each interrupt.
        mpu_regions: 0: it has no MPU.
        fpu: 0: none, 1: single precision, 2: double, too.
        bit_band: whether single bits of SRAM and devices have addresses of their own.
        baud: bits a second of every UART, 8N1.
        unit: bytes that one program takes at most, all at once.
        flash: what keeps its contents; the main flash is first.
        rams: by name; the first is the main one.
        devices: what has a model, in the order of the file.
        uarts: names of devices; the first is the console unless somebody says otherwise.
        registers: what has a value after a reset but no model.
        ready: bits that follow others.
        systick_divider: of the core's clock, for SysTick's other clock or the generic timer; 0:
            there is none.
        secure_alias: whether RAM and devices are 256 MiB further, too, for secure code.
        shared_bus: whether registers and flash have four addresses each, as on an RP2040.
        boot_rom: what it starts in; None: it starts in its main flash.
        secure_option: address and bytes of the option that has the chip start secure code; None:
            there is none.
        loaded: what something else than the core has put into a RAM before it starts, by its name.
        programmers: what other programs call it; no session depends on that.
        unmodelled: what the chip has and nothing models, for people. Registers there hold what was
            written.
    """

    name: str
    core: str
    clock_hz: int
    interrupts: int
    priority_bits: int
    mpu_regions: int
    fpu: int
    bit_band: bool
    baud: int
    unit: int
    flash: tuple[FlashRegion, ...]
    rams: tuple[tuple[str, Region], ...]
    devices: tuple[McuDevice, ...]
    uarts: tuple[str, ...]
    registers: tuple[Register, ...]
    ready: tuple[ReadyRule, ...]
    systick_divider: int = 0
    secure_alias: bool = False
    shared_bus: bool = False
    boot_rom: BootRom | None = None
    secure_option: tuple[int, bytes] | None = None
    loaded: Mapping[str, bytes] = field(default_factory=dict, repr=False, hash=False)
    programmers: Programmers = field(default=Programmers(), repr=False, compare=False)
    unmodelled: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def main(self) -> FlashRegion:
        """The main flash."""
        return self.flash[0]

    @property
    def vectors(self) -> int:
        """Where the table of vectors is that the core begins with."""
        if self.boot_rom is not None:
            return self.boot_rom.base
        return self.main.base if self.main.alias is None else min(self.main.base, self.main.alias)

    @property
    def firmware_base(self) -> int:
        """Where firmware begins with its table of vectors, unless it is for another place."""
        return self.main.base + (self.boot_rom.stage if self.boot_rom else 0)

    @property
    def ram_size(self) -> int:
        """Bytes of all RAM."""
        return sum(region.size for _, region in self.rams)

    @cached_property
    def geometry(self) -> FlashGeometry:
        """The erase blocks of the flash image: all regions, one after the other."""
        return self.board.nor.geometry

    @cached_property
    def placed_flash(self) -> tuple[tuple[FlashRegion, int], ...]:
        """Each region, and where in the flash image it begins."""
        sizes = (sum(count * size for count, size in part.placed_blocks) for part in self.flash)
        firsts = accumulate(sizes, initial=0)
        return tuple(zip(self.flash, firsts, strict=False))

    @cached_property
    def factory_image(self) -> bytes:
        """The flash image as the chip is delivered."""
        image = bytearray(b"\xff" * self.geometry.size)
        for part, first in self.placed_flash:
            image[first : first + len(part.factory)] = part.factory
        self.geometry.set_checks(image, 0, len(image))
        return bytes(image)

    def plain_address(self, address: int) -> int:
        """The address that one stands for: of what secure code has at two, and flash at four."""
        if self.shared_bus and address >> 24 in FLASH_WINDOWS:
            return FLASH_WINDOWS[0] << 24 | address & 0xFF_FFFF
        secure = self.secure_alias and address >> 28 in SECURE_PARTS
        return address - SECURE_DISTANCE if secure else address

    def find_flash(self, address: int) -> tuple[int, int] | None:
        """Where in the flash image an address is, and how many bytes its region has from there on.

        Aliases count, too. None: no flash is there.
        """
        address = self.plain_address(address)
        for part, first in self.placed_flash:
            for base in (part.base, part.alias):
                if base is not None and base <= address < base + part.size:
                    return first + address - base, base + part.size - address
        return None

    def image_offset(self, address: int) -> int:
        """Where in the flash image an address of the flash is; aliases count, too.

        Raises:
            SetupError: no flash is there.
        """
        place = self.find_flash(address)
        if place is not None:
            return place[0]
        places = ", ".join(f"{part.name} at {part.base:#x}" for part in self.flash)
        raise SetupError(f"{self.name} has no flash at {address:#x}", hint=f"it has {places}")

    def device(self, name: str) -> McuDevice:
        """The device called ``name``.

        Raises:
            SetupError: there is none.
        """
        return find_device(f"the chip {self.name}", self.devices, name)

    def _list_words(self) -> Iterator[WordPart]:
        """The flash that programs words of its own: parallel NOR."""
        placed = iter(self.placed_flash)
        for device in self.devices:
            model = MODELS[device.model]
            for _ in range(model.flash_regions):
                region, first = next(placed)
                if model.in_memory:
                    numbers = dict(zip(model.numbers, device.numbers, strict=True))
                    yield WordPart(first, region.size, numbers["width"] // 8, numbers["chips"])

    @cached_property
    def board(self) -> Board:
        """The chip as a board of its own, for what asks an engine for its board."""
        blocks = tuple(pair for part in self.flash for pair in part.placed_blocks)
        flash = FlashChip(self.name, self.unit * 8, blocks, FlashTimes(word=1, erase=1))
        checks = tuple(
            CheckCells(first, part.size, first + part.size, part.ecc)
            for part, first in self.placed_flash
            if part.ecc
        )
        base, size = self.main.base, sum(count * size for count, size in blocks)
        words = tuple(self._list_words())
        return Board(
            name=self.name,
            core=self.core,
            nor=Nor(flash, 1, base=base, window=base, modelled=size, checks=checks, parts=words),
            sram=self.rams[0][1],
            devices=tuple(Device(part.name, part.base, part.interrupt) for part in self.devices),
            uarts=self.uarts,
            baud=self.baud,
        )
