"""The registers of cores, and their memories, as GDB is told of them.

Source: "Target Descriptions", "Arm Features" and "Memory Map Format" in the GDB manual.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class CoreRegister:
    """A register.

    Attributes:
        name: as GDB has it.
        bits: how many it has.
        kind: its type for GDB, such as ``int``, ``code_ptr`` or ``ieee_double``.
        number: what the engine calls it.
    """

    name: str
    bits: int
    kind: str
    number: int

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return (self.bits + 7) // 8


@dataclass(frozen=True)
class RegisterFeature:
    """Registers that belong together.

    Attributes:
        name: of the feature in the GDB manual.
        registers: those of it that there are.
    """

    name: str
    registers: tuple[CoreRegister, ...]


@dataclass(frozen=True)
class CoreRegisters:
    """All registers of a core. GDB counts them through, over all features.

    Attributes:
        features: in the order in which GDB counts.
    """

    features: tuple[RegisterFeature, ...]

    @cached_property
    def registers(self) -> tuple[CoreRegister, ...]:
        """Every register, in GDB's order."""
        return tuple(one for feature in self.features for one in feature.registers)

    @cached_property
    def document(self) -> bytes:
        """The target description."""
        parts = (
            f'<feature name="{feature.name}">'
            + "".join(
                f'<reg name="{one.name}" bitsize="{one.bits}" type="{one.kind}"/>'
                for one in feature.registers
            )
            + "</feature>"
            for feature in self.features
        )
        return (
            '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
            f"<architecture>arm</architecture>{''.join(parts)}</target>"
        ).encode()


PC = 15
"""The number of the program counter, of GDB and of every engine."""

_POINTERS = {13: ("sp", "data_ptr"), 14: ("lr", "int"), PC: ("pc", "code_ptr")}


def _general(status: str) -> tuple[CoreRegister, ...]:
    """R0 to R15, and the status register."""
    names = [_POINTERS.get(number, (f"r{number}", "int")) for number in range(16)]
    return tuple(
        CoreRegister(name, 32, kind, number)
        for number, (name, kind) in enumerate([*names, (status, "int")])
    )


A_PROFILE = CoreRegisters((RegisterFeature("org.gnu.gdb.arm.core", _general("cpsr")),))
"""A Cortex-A without its FPU."""


def m_profile(*, main: bool, fpu: bool) -> CoreRegisters:
    """The registers of a Cortex-M, numbered as ``enum core_register`` of the models.

    Args:
        main: whether it is none of the small ones (M0, M0+), which have one mask alone.
        fpu: whether it has one.
    """
    masks = {"primask": 19, "control": 22}
    if main:
        masks |= {"basepri": 20, "faultmask": 21}
    system = [CoreRegister(name, 32, "data_ptr", 17 + at) for at, name in enumerate(("msp", "psp"))]
    system += [CoreRegister(name, 8, "int8", number) for name, number in masks.items()]
    features = [
        RegisterFeature("org.gnu.gdb.arm.m-profile", _general("xpsr")),
        RegisterFeature("org.gnu.gdb.arm.m-system", tuple(system)),
    ]
    if fpu:
        doubles = [CoreRegister(f"d{at}", 64, "ieee_double", 23 + at) for at in range(16)]
        status = CoreRegister("fpscr", 32, "int", 39)
        features.append(RegisterFeature("org.gnu.gdb.arm.vfp", (*doubles, status)))
    return CoreRegisters(tuple(features))


@dataclass(frozen=True)
class MemoryRange:
    """A range of addresses that a debugger may look at.

    Attributes:
        kind: ``ram``, ``rom`` or ``flash``; it takes hardware breakpoints where it cannot write.
        start: the first address.
        size: bytes.
        block_size: bytes of an erase block; of ``flash`` alone.
    """

    kind: str
    start: int
    size: int
    block_size: int = 0


def describe_memories(memories: Iterable[MemoryRange]) -> bytes:
    """The memory map. What is not in it cannot be looked at."""
    parts = []
    for one in memories:
        place = f'<memory type="{one.kind}" start="{one.start:#x}" length="{one.size:#x}"'
        block = f'<property name="blocksize">{one.block_size:#x}</property>'
        parts.append(f"{place}>{block}</memory>" if one.block_size else f"{place}/>")
    return (
        '<?xml version="1.0"?><!DOCTYPE memory-map PUBLIC'
        ' "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN"'
        f' "http://sourceware.org/gdb/gdb-memory-map.dtd"><memory-map>{"".join(parts)}</memory-map>'
    ).encode()
