"""Boards with a parallel NOR flash, as chip files: an STM32F407 with the chips behind its FSMC."""

from __future__ import annotations

BASE = 0x6400_0000
"""Where the NOR flash is; it is the third region of the chip, behind the option bytes."""

CELLS = 0x10_0010
"""Where it begins in the flash image."""

_BOARD = """like = "stm32f407xg"
[flash.nor]
base = {base:#x}
blocks = [{blocks}]
[devices.nor]
model = "nor_cfi_{model}"
{numbers}
"""


def write_board(model: str, blocks: str, **numbers: int) -> str:
    """A chip file; ``blocks`` are rows of ``count`` and ``size``."""
    text = "\n".join(f"{name} = {number}" for name, number in numbers.items())
    return _BOARD.format(base=BASE, model=model, blocks=blocks, numbers=text)


S29GL = {
    "maker": 0x01,
    "device": 0x227E,
    "extended": 0x2221_2201,
    "buffer": 32,
    "program_us": 60,
    "buffer_us": 240,
    "erase_us": 500_000,
    "suspend_us": 5,
}
"""A Spansion S29GL128N, with the typical times of its data sheet (27631)."""

P30 = {
    "maker": 0x89,
    "device": 0x891C,
    "buffer": 1024,
    "program_us": 270,
    "buffer_us": 900,
    "erase_us": 500_000,
    "suspend_us": 25,
}
"""A Micron P30-65nm, 256 Mbit, with the typical times of its data sheet."""

AMD_X16 = write_board("amd", "{ count = 4, size = 0x20000 }", **S29GL)
AMD_X8 = write_board("amd", "{ count = 4, size = 0x20000 }", width=8, byte_mode=1, **S29GL)
AMD_PAIR = write_board("amd", "{ count = 2, size = 0x40000 }", chips=2, **S29GL)
AMD_BOOT = write_board(
    "amd",
    "{ count = 1, size = 0x4000 }, { count = 2, size = 0x2000 }, { count = 1, size = 0x8000 }, "
    "{ count = 1, size = 0x10000 }",
    **(S29GL | {"size": 0x20_0000, "device": 0x2249, "extended": 0, "buffer": 0}),
)
"""An Am29LV160DB, of which the lowest 128 KiB are modelled."""
INTEL_X16 = write_board("intel", "{ count = 4, size = 0x20000 }", **P30)
INTEL_X8 = write_board("intel", "{ count = 4, size = 0x20000 }", width=8, **P30)
INTEL_PAIR = write_board("intel", "{ count = 2, size = 0x40000 }", chips=2, **P30)
