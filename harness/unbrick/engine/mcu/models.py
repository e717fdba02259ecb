"""The C models (``c/``) as seen from Python: :class:`McuModels` is one microcontroller."""

from __future__ import annotations

import ctypes as c
import mmap
from enum import IntEnum, IntFlag
from functools import cache
from typing import TYPE_CHECKING, Any

from unicorn import arm_const
from unicorn.unicorn_const import (
    UC_ARCH_ARM,
    UC_MODE_ARM,
    UC_MODE_MCLASS,
    UC_MODE_THUMB,
    UC_TLB_VIRTUAL,
)
from unicorn.unicorn_py3 import unicorn as binding

from unbrick.board.device_models import MODELS
from unbrick.board.mcu import APPLICATION_CORES
from unbrick.engine.compiled import CFault, CompiledModels, CWatch
from unbrick.errors import EngineError, SetupError
from unbrick.library import Signatures, load_library

if TYPE_CHECKING:
    from unbrick.board.mcu import FlashRegion, McuChip, McuDevice

ACCESS_NS = 100
"""Nanoseconds that an access to a register takes: about what a bus bridge costs."""

TRANSLATED = 32 << 20
"""Bytes of translated code that Unicorn keeps; its 1 GiB would all be used in time."""

_NONE = (1 << 32) - 1
"""No interrupt, no alias (``NO_INTERRUPT``, ``NOWHERE``)."""


class McuStop(IntEnum):
    """Why a run ended (``enum stop_reason``)."""

    TIME = 0
    OUTPUT = 1
    CUT = 2
    LOCKUP = 3
    QUIET = 4
    EXIT = 5
    BREAK = 6
    WATCH = 7
    STEP = 8
    FAULT = 9
    JOINED = 10


class JoinPart(IntFlag):
    """What of a machine is compared with what another one was (``enum join_part``)."""

    CORE = 1
    RAMS = 2
    DEVICES = 4
    PAST = 8
    FLASH = 16
    ALL = 31


SEMIHOSTING = "semihosting"
"""The line of what firmware says by BKPT 0xAB."""

OP_KINDS = {1: "word", 2: "erase"}

_CORES = {
    "cortex-m0": (1, arm_const.UC_CPU_ARM_CORTEX_M0),
    "cortex-m0plus": (2, arm_const.UC_CPU_ARM_CORTEX_M0),
    "cortex-m3": (3, arm_const.UC_CPU_ARM_CORTEX_M3),
    "cortex-m4": (4, arm_const.UC_CPU_ARM_CORTEX_M4),
    "cortex-m7": (5, arm_const.UC_CPU_ARM_CORTEX_M7),
    "cortex-m33": (6, arm_const.UC_CPU_ARM_CORTEX_M33),
    "cortex-a15": (7, arm_const.UC_CPU_ARM_CORTEX_A9),  # without a timer; see c/application.c
}
"""``enum core``, and the CPU that Unicorn executes as."""

SMALL_CORES = {"cortex-m0", "cortex-m0plus"}
"""Those of Armv6-M."""


class CSetup(c.Structure):
    """``struct setup``."""

    _fields_ = tuple(
        (name, c.c_uint32)
        for name in (
            *("core", "interrupts", "priority_bits", "mpu_regions", "fpu", "bit_band"),
            *(
                "secure_alias",
                "shared_bus",
                "vectors",
                "hz",
                "systick_hz",
                "pace_ps",
                "access_ns",
                "semihosting",
            ),
        )
    )


class CPlain(c.Structure):
    """``struct plain``."""

    _fields_ = tuple(
        (name, c.c_uint32) for name in ("address", "value", "reads", "writes", "vain", "run", "pc")
    )


_UNICORN_FUNCTIONS = (
    *("emu_start", "emu_stop", "reg_read", "reg_write"),
    *(
        "context_save",
        "context_restore",
        "context_size",
        "mem_map_ptr",
        "mmio_map",
        "hook_add",
        "hook_del",
        "ctl",
    ),
)


class CMcuUnicorn(c.Structure):
    """``struct unicorn``: the emulator and the functions that the models call."""

    _fields_ = tuple(
        (name, c.c_void_p) for name in ("uc", "reset_state", "scratch", *_UNICORN_FUNCTIONS)
    )


class CFlashPlace(c.Structure):
    """``struct flash_place``."""

    _fields_ = (
        *((name, c.c_uint32) for name in ("base", "size", "alias")),
        ("cells", c.c_void_p),
        ("block_sizes", c.POINTER(c.c_uint32)),
        ("block_count", c.c_uint32),
        ("check_unit", c.c_uint32),
    )


class CDevicePlace(c.Structure):
    """``struct device_place``."""

    _fields_ = (
        *((name, c.c_uint32) for name in ("base", "interrupt", "baud")),
        ("numbers", c.POINTER(c.c_uint32)),
        ("flash", c.POINTER(CFlashPlace)),
    )


class CRegisterPlace(c.Structure):
    """``struct register_place``."""

    _fields_ = (("address", c.c_uint32), ("reset", c.c_uint32))


class CReadyPlace(c.Structure):
    """``struct ready_place``."""

    _fields_ = tuple(
        (name, c.c_uint32) for name in ("enable", "enable_mask", "ready", "ready_mask")
    )


@cache
def load_models() -> Any:
    """The compiled models, with the types of their functions.

    Raises:
        SetupError: they are not compiled.
    """
    mcu, u32, u64, size, line = c.c_void_p, c.c_uint32, c.c_uint64, c.c_size_t, c.c_uint
    signatures: Signatures = {
        "mcu_new": (mcu, [c.POINTER(CMcuUnicorn), c.POINTER(CSetup)]),
        "mcu_free": (None, [mcu]),
        "mcu_add_ram": (c.c_int, [mcu, u32, u32, c.c_void_p]),
        "mcu_add_boot_rom": (c.c_int, [mcu, u32, u32, c.c_void_p]),
        "mcu_add_rom": (None, [mcu, c.POINTER(CFlashPlace)]),
        "mcu_add_model": (c.c_bool, [mcu, c.c_char_p, c.POINTER(CDevicePlace)]),
        "mcu_add_registers": (
            None,
            [mcu, c.POINTER(CRegisterPlace), size, c.POINTER(CReadyPlace), size],
        ),
        "mcu_watch_code": (c.c_bool, [mcu, c.c_void_p]),
        "mcu_load_flash": (None, [mcu, c.c_char_p, size]),
        "mcu_power_on": (None, [mcu]),
        "mcu_power_off": (None, [mcu]),
        "mcu_press_reset": (None, [mcu]),
        "mcu_brown_out": (None, [mcu]),
        "mcu_run": (c.c_int, [mcu, u64]),
        "mcu_now": (u64, [mcu]),
        "mcu_instruction_bytes": (u64, [mcu]),
        "mcu_exceptions": (u64, [mcu]),
        "mcu_resets": (u64, [mcu]),
        "mcu_pc": (u32, [mcu]),
        "mcu_quiet": (c.c_bool, [mcu]),
        "mcu_settle": (None, [mcu]),
        "mcu_forget": (None, [mcu]),
        "mcu_note_reads": (None, [mcu, u32]),
        "mcu_note": (None, [mcu, u32, u32]),
        "mcu_relevant": (size, [mcu, c.c_char_p, size]),
        "mcu_join_sessions": (None, [mcu, u32]),
        "mcu_set_kind": (None, [mcu, u64]),
        "mcu_keep_session": (c.c_bool, [mcu, u64]),
        "mcu_drop_session": (None, [mcu, u64]),
        "mcu_joined": (u64, [mcu]),
        "mcu_lines": (size, [mcu]),
        "mcu_line_push": (None, [mcu, line, c.c_char_p, size]),
        "mcu_line_take": (size, [mcu, line, c.c_char_p, size]),
        "mcu_line_overruns": (size, [mcu, line]),
        "mcu_cut_before": (None, [mcu, u64]),
        "mcu_brown_out_in": (None, [mcu, u64]),
        "mcu_ops": (size, [mcu, c.c_char_p, size, size]),
        "mcu_op_data": (size, [mcu, c.c_char_p, size]),
        "mcu_faults": (size, [mcu, c.POINTER(CFault), size]),
        "mcu_plain": (size, [mcu, c.POINTER(CPlain), size]),
        "mcu_debug": (None, [mcu, c.c_bool]),
        "mcu_break_at": (c.c_bool, [mcu, u32, c.c_bool]),
        "mcu_watch": (None, [mcu, c.POINTER(CWatch), size]),
        "mcu_watch_hit": (size, [mcu, c.POINTER(u32)]),
        "mcu_pass": (None, [mcu, c.c_bool]),
        "mcu_step": (c.c_int, [mcu, u64]),
        "mcu_core_read": (u64, [mcu, c.c_uint]),
        "mcu_core_write": (None, [mcu, c.c_uint, u64]),
        "mcu_poke": (c.c_bool, [mcu, u32, c.c_char_p, u32]),
        "mcu_look": (c.c_bool, [mcu, u32, c.POINTER(u32)]),
        "mcu_reflash": (None, [mcu, u32, c.c_char_p, u32]),
    }
    return load_library("engine/mcu", signatures)


def _address(function: object) -> int:
    return c.cast(function, c.c_void_p).value or 0  # type: ignore[arg-type]


def _words(numbers: tuple[int, ...]) -> Any:
    return (c.c_uint32 * max(1, len(numbers)))(*numbers)


def _places(flash: tuple[tuple[FlashRegion, int], ...], cells: int) -> Any:
    """Where the regions are; their cells lie one after the other from address ``cells`` on."""
    places = (CFlashPlace * len(flash))()
    for place, (region, first) in zip(places, flash, strict=True):
        place.base, place.size = region.base, region.size
        place.alias = _NONE if region.alias is None else region.alias
        place.cells = cells + first
        place.block_sizes = _words(region.block_sizes)
        place.block_count = len(region.block_sizes)
        place.check_unit = region.ecc
    return places


class McuModels(CompiledModels):
    """Memories, core and devices of one chip.

    Args:
        chip: what it is.
        pace_ps: picoseconds that a byte of instructions takes.
        semihosting: whether BKPT 0xAB writes to a line of its own, which is the first one then.

    Attributes:
        lines: the number of each serial line, by the name of its device.

    Raises:
        SetupError: the models are not compiled, or they lack one that the chip has.
    """

    op_kinds = OP_KINDS

    def __init__(self, chip: McuChip, *, pace_ps: int, semihosting: bool) -> None:
        super().__init__(load_models(), mmap.mmap(-1, chip.geometry.size))
        self._flash_address = c.addressof(c.c_char.from_buffer(self.flash))
        self._chip = chip
        self._rams = [(region.base, mmap.mmap(-1, region.size)) for _, region in chip.rams]
        self._roms: list[tuple[int, mmap.mmap]] = []
        number, cpu = _CORES[chip.core]
        setup = CSetup(
            core=number,
            interrupts=chip.interrupts,
            priority_bits=chip.priority_bits,
            mpu_regions=chip.mpu_regions,
            fpu=chip.fpu,
            bit_band=chip.bit_band,
            secure_alias=chip.secure_alias,
            shared_bus=chip.shared_bus,
            vectors=chip.vectors,
            hz=chip.clock_hz,
            systick_hz=chip.clock_hz // chip.systick_divider if chip.systick_divider else 0,
            pace_ps=pace_ps,
            access_ns=ACCESS_NS,
            semihosting=semihosting,
        )
        self._unicorn = self._start_unicorn(cpu, application=chip.core in APPLICATION_CORES)
        self.mcu = c.c_void_p(self.lib.mcu_new(c.byref(self._unicorn), c.byref(setup)))
        if not self.mcu:
            raise EngineError("no memory for the models of the microcontroller")
        self._connect("mcu", self.mcu)
        try:
            self._add_rams()
            self.lines = self._add_devices(chip, [SEMIHOSTING] if semihosting else [])
        except BaseException:
            self.close()
            raise

    def _start_unicorn(self, cpu: int, *, application: bool) -> CMcuUnicorn:
        """Unicorn as it is at a reset, and the functions of it that the models call."""
        mode = UC_MODE_ARM if application else UC_MODE_THUMB | UC_MODE_MCLASS
        uc: Any = binding.Uc(UC_ARCH_ARM, mode)
        uc.ctl_set_tcg_buffer_size(TRANSLATED)  # before all else
        uc.ctl_set_cpu_model(cpu)
        uc.ctl_set_tlb_mode(UC_TLB_VIRTUAL)
        self._uc, self._reset_state, self._scratch = uc, uc.context_save(), uc.context_save()
        functions = (getattr(binding.uclib, f"uc_{name}") for name in _UNICORN_FUNCTIONS)
        return CMcuUnicorn(
            uc._uch,  # noqa: SLF001 - the binding has no public name for it
            self._reset_state.context,
            self._scratch.context,
            *map(_address, functions),
        )

    def _add_rams(self) -> None:
        for base, memory in self._rams:
            address = c.addressof(c.c_char.from_buffer(memory))
            error = self.lib.mcu_add_ram(self.mcu, base, len(memory), address)
            if error:
                raise EngineError(f"Unicorn refused the memory at {base:#x} ({error})")
        rom = self._chip.boot_rom
        if rom is not None:
            memory = mmap.mmap(-1, rom.size)
            memory[:] = rom.read()
            address = c.addressof(c.c_char.from_buffer(memory))
            if self.lib.mcu_add_boot_rom(self.mcu, rom.base, rom.size, address):
                raise EngineError(f"Unicorn refused the boot ROM at {rom.base:#x}")
            self._roms.append((rom.base, memory))

    def _add_devices(self, chip: McuChip, lines: list[str]) -> dict[str, int]:
        """Add flash and devices; flash that no device controls can only be read."""
        places = _places(chip.placed_flash, self._flash_address)
        self._keep = places
        used = 0
        for device in chip.devices:
            self._add_device(chip, device, c.pointer(places[used]) if used < len(places) else None)
            used += MODELS[device.model].flash_regions
            lines += [device.name] if MODELS[device.model].is_uart else []
        for place in places[used:]:
            self.lib.mcu_add_rom(self.mcu, c.byref(place))
        registers = [CRegisterPlace(one.address, one.reset) for one in chip.registers]
        rules = [CReadyPlace(*rule.enable, *rule.ready) for rule in chip.ready]
        self.lib.mcu_add_registers(
            self.mcu,
            (CRegisterPlace * max(1, len(registers)))(*registers),
            len(registers),
            (CReadyPlace * max(1, len(rules)))(*rules),
            len(rules),
        )
        return {name: number for number, name in enumerate(lines)}

    def _add_device(self, chip: McuChip, device: McuDevice, flash: Any) -> None:
        place = CDevicePlace(
            base=device.base,
            interrupt=_NONE if device.interrupt is None else device.interrupt,
            baud=chip.baud,
            numbers=_words(device.numbers),
            flash=flash,
        )
        if not self.lib.mcu_add_model(self.mcu, device.model.encode(), c.byref(place)):
            raise SetupError(
                f"{chip.name}: there is no model {device.model} yet",
                hint="leave the device out of a chip file of your own, or wait for a release",
            )

    def load(self, image: bytes) -> None:
        """Replace the flash image, without power; what is missing at its end is 0xFF."""
        self.lib.mcu_load_flash(self.mcu, image, len(image))

    def read_flash(self, start: int, length: int) -> bytes:
        """A part of the flash image at this moment."""
        self.settle()
        return self.flash[start : start + length]

    def fill_rams(self, garbage: list[bytes]) -> None:
        """What RAM holds when power comes."""
        for (_, memory), bytes_ in zip(self._rams, garbage, strict=True):
            memory[:] = bytes_

    def read_ram(self, address: int, length: int) -> bytes | None:
        """RAM or ROM; shorter at its end; None: it is another place."""
        self.settle()
        address = self._chip.plain_address(address)
        for base, memory in (*self._rams, *self._roms):
            if base <= address < base + len(memory):
                return bytes(memory[address - base : address - base + length])
        return None

    def plain(self) -> list[CPlain]:
        """The registers that nobody models, as the firmware used them."""
        count = int(self.lib.mcu_plain(self.mcu, None, 0))
        kept = (CPlain * count)()
        self.lib.mcu_plain(self.mcu, kept, count)
        return list(kept)
