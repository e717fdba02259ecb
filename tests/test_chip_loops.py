"""Loops that only count: time passes in them as if every round were run (``c/loops.c``).

Rounds are skipped in flash alone. So each loop runs once there and once from RAM, and all that can
be seen of the two must be the same, whenever one looks.
"""

from __future__ import annotations

import struct
from random import Random
from typing import NamedTuple

import pytest
from chip_probe import FREE_RAM, ChipProbe, call, copy, write

FLASH_CODE = 0x0800_8000
RAM_CODE = FREE_RAM + 0x400
"""At the same place of a page: a basic block ends where that does."""

RAM, RAM_SIZE = 0x2000_0000, 0x5000
SYSTICK, SYSTICK_RELOAD = 0xE000_E010, 0xE000_E014

LDR_R2, LDR_R3, STR_R2, STR_R3 = 0x9A01, 0x9B01, 0x9201, 0x9301  # [sp, #4]
CMP_R0_R1, CMP_R1_R0, CMP_R2_R1, CMP_R3_R1 = 0x4288, 0x4281, 0x428A, 0x428B
NOP = 0xBF00
EQ, NE, CS, CC, HI, GE, LT, GT = 0, 1, 2, 3, 8, 10, 11, 12

BEGIN = (0xB510, 0xB082, 0x9001, 0x2200, 0x2300)
"""push {r4, lr}; sub sp, #8; str r0, [sp, #4]; movs r2, #0; movs r3, #0"""
END = (0xF3EF, 0x8100, 0x4048, 0x9901, 0x4048, 0x4060, 0x4058, 0x4050, 0xB002, 0xBD10)
"""mrs r1, apsr; eors r0, r1; ldr r1, [sp, #4]; eors r0 with r1, r4, r3, r2; add sp, #8;
pop {r4, pc}"""


def adds(register: int, number: int) -> int:
    return 0x3000 | register << 8 | number


def subs(register: int, number: int) -> int:
    return 0x3800 | register << 8 | number


def branch(condition: int, at: int, target: int) -> int:
    """At and to an instruction of the loop, by number."""
    return 0xD000 | condition << 8 | (target - at - 2) & 0xFF


def jump(at: int) -> int:
    """Back to the first instruction."""
    return 0xE000 | (-at - 2) & 0x7FF


class Loop(NamedTuple):
    """Its code, and how far its limit is from where it begins: from, to."""

    code: tuple[int, ...]
    far: tuple[int, int] = (1, 3000)


LOOPS = {
    "a volatile counts up": Loop(
        (LDR_R3, CMP_R3_R1, branch(HI, 2, 7), LDR_R3, adds(3, 1), STR_R3, jump(6))
    ),
    "a volatile counts down": Loop(
        (LDR_R2, subs(2, 1), STR_R2, NOP, CMP_R2_R1, branch(CS, 5, 0)), (-3000, -1)
    ),
    "a register counts to nothing": Loop((subs(0, 1), branch(NE, 1, 0))),
    "a register counts up to a limit": Loop((adds(0, 1), CMP_R0_R1, branch(NE, 2, 0))),
    "by steps of three, with signs": Loop((adds(0, 3), CMP_R0_R1, branch(LT, 2, 0)), (-9, 9000)),
    "down by steps of seven": Loop((subs(0, 7), CMP_R0_R1, branch(GE, 2, 0)), (-9000, 9)),
    "the limit comes first": Loop((adds(0, 5), CMP_R1_R0, branch(HI, 2, 0)), (-9, 9000)),
    "until it goes past zero": Loop((subs(0, 10), branch(CS, 1, 0))),
    "two ways out": Loop(
        (adds(0, 1), CMP_R0_R1, branch(CS, 2, 5), 0x28C8, branch(NE, 4, 0)), (1, 400)
    ),
    "two counters": Loop((adds(3, 1), adds(0, 1), CMP_R0_R1, branch(NE, 3, 0))),
    "what it keeps is of the round before": Loop(
        (0x1C54, adds(0, 1), 0x1CDA, CMP_R0_R1, branch(NE, 4, 0))
    ),  # adds r4, r2, #1; adds r2, r3, #3
    "it leaves a copy of the round before": Loop(
        (LDR_R3, CMP_R3_R1, branch(EQ, 2, 7), 0x1C1A, adds(3, 1), STR_R3, jump(6))
    ),  # adds r2, r3, #0
    "a carry ends it": Loop((adds(0, 200), branch(CC, 1, 0))),
    "one round ends it, with signs": Loop(
        (adds(0, 3), CMP_R0_R1, branch(LT, 2, 0)), (0x1FD, 0x1FD)
    ),
    "one round ends it": Loop((adds(0, 3), CMP_R0_R1, branch(CC, 2, 0)), (0xFD, 0xFD)),
    "it looks for something it never meets": Loop((adds(0, 2), CMP_R0_R1, branch(GT, 2, 0))),
}
STARTS = (0, 5, 2000, 0x7FFF_FE00, 0x8000_0100, 0xFFFF_FF00)


@pytest.fixture(scope="module")
def probe() -> ChipProbe:
    """An STM32F103."""
    return ChipProbe("stm32f103xb")


def put(probe: ChipProbe, loop: Loop) -> int:
    """Put a function with the loop into the flash; gives its size."""
    code = struct.pack(f"<{len(BEGIN + loop.code + END)}H", *BEGIN, *loop.code, *END)
    at = FLASH_CODE - 0x0800_0000
    probe.image[at : at + len(code)] = code
    return len(code)


def watch(probe: ChipProbe, at: int, size: int, start: int, limit: int, seed: int) -> list[object]:
    """All that can be seen while the function runs at an address: at odd times, under SysTick."""
    turn, seen = Random(seed), list[object]()
    probe.load(
        copy(RAM_CODE, FLASH_CODE, size),
        write(SYSTICK_RELOAD, turn.randrange(400, 4000)),
        write(SYSTICK, 7),
        call(at, start, limit),
        write(SYSTICK, 0),
    )
    engine = probe.engine
    engine.forget()
    engine.power_on()
    while not engine.quiet and engine.now < 0.01:
        engine.advance(turn.uniform(1e-6, 5e-4))
        words = struct.unpack(f"<{RAM_SIZE // 4}I", engine.read_memory(RAM, RAM_SIZE))
        pc = engine.pc - at if at <= engine.pc < at + size else engine.pc
        moved = [word - at if at <= word <= at + size else word for word in words]
        seen.append(
            (engine.now, engine.instruction_bytes, engine.exceptions, pc, hash(tuple(moved)))
        )
    return [*seen, probe.results]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_in_flash_does_what_it_does_in_ram(probe: ChipProbe, name: str) -> None:
    loop = LOOPS[name]
    size = put(probe, loop)
    for seed, start in enumerate(STARTS):
        limit = (start + Random(f"{name} {seed}").randint(*loop.far)) & 0xFFFF_FFFF
        here = watch(probe, FLASH_CODE | 1, size, start, limit, seed)
        there = watch(probe, RAM_CODE | 1, size, start, limit, seed)
        assert len(here) > 1
        assert here == there, (hex(start), hex(limit))


def test_a_delay_of_a_minute_takes_as_long_as_a_short_one(probe: ChipProbe) -> None:
    put(probe, LOOPS["a register counts to nothing"])
    rounds = 0x8000_0000  # some 60 s, which would also be some 20 s of the processor
    probe.run(call(FLASH_CODE | 1, rounds))
    assert probe.engine.quiet
    assert probe.engine.instruction_bytes > 4 * rounds
    assert probe.engine.now > 25
