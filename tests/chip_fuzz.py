"""Random accesses to flash controllers, with power cuts and resets: `chip_fuzz.py LIBRARY CHIP`.

The library is a build of the models that stops the process at undefined behaviour; `test_chip_fuzz`
makes it. The models also assert what must hold.
"""

from __future__ import annotations

import sys
from random import Random

from chip_probe import ChipProbe, Step, read, write

from unbrick.compile import LIBRARIES

RUNS, STEPS = 30, 60
FLASH_KEYS = (0x4567_0123, 0xCDEF_89AB)
OPTION_KEYS = (0x0819_2A3B, 0x4C5D_6E7F)
SIZES = (1, 2, 4)
_L4 = ((0x08,), (0x0C,), (0x14,), (0, 0, 1, 2, 3, 7, 11, 13, 15, 16, 16, 17, 27))
CONTROLS = {
    "flash_stm32f1": ((0x04,), (0x08,), (0x10,), (0, 0, 1, 2, 4, 5, 6, 6, 9)),
    "flash_stm32f4": ((0x04,), (0x08,), (0x10, 0x14), (0, 0, 1, 2, 4, 5, 8, 9, 16, 16)),
    "flash_stm32l4": _L4,
    "flash_stm32l4_one_bank": _L4,
    "flash_stm32g0": _L4,
    "flash_stm32g0_one_bank": _L4,
    "flash_stm32h5": ((0x04,), (0x0C,), (0x28, 0x28, 0x1C), (1, 1, 2, 3, 4, 5, 5, 6, 12, 15, 31)),
    "flash_stm32h7": (
        *((0x04, 0x104), (0x08,), (0x0C, 0x10C, 0x18)),
        (1, 1, 2, 3, 4, 6, 7, 7, 8, 10),
    ),
    "flash_nrf": ((), (), (0x504, 0x508, 0x50C, 0x514), (0, 0, 1)),
    "ssi_rp2040": ((), (), (0, 4, 8, 8, 0x10, 0x60, 0x60, 0x60, 0xF4), (0, 0, 1, 2, 5, 8, 9, 21)),
}
"""By the model of a controller: offsets of the registers that take keys, of those that take keys of
options, and of those that begin something; and the bits for that."""


def make_steps(random: Random, probe: ChipProbe) -> list[Step]:
    """Opens what can be opened, mostly, and then does anything."""
    controller, main = probe.chip.devices[0], probe.chip.main
    *locks, controls, bits = CONTROLS[controller.model]
    steps = []
    for registers, keys in zip(locks, (FLASH_KEYS, OPTION_KEYS), strict=True):
        for offset in registers:
            steps += [write(controller.base + offset, key) for key in keys]
    for _ in range(STEPS):
        offset = random.randrange(0, random.choice((0x40, 0x200, 0x600)), 4)
        register = controller.base + offset
        value = 0
        for _ in range(random.choice((1, 1, 2, 2, 3, 8))):
            value |= 1 << random.randrange(32)
        command = 0
        for _ in range(random.choice((1, 1, 2, 2, 3))):
            command |= 1 << random.choice(bits)
        control = write(controller.base + random.choice(controls), command)
        place = main.base + random.randrange(main.size // 64) * 64
        size = random.choice(SIZES)
        steps += random.choice(
            (
                [control],
                [control, *(write(place + 4 * part, value) for part in range(8))],
                [write(register, value)],
                [write(register + random.randrange(0, 4, size), value, size)],
                [read(register)],
                [write(place + size * part, value, size) for part in range(random.randrange(17))],
                [read(place + random.randrange(0, 64, size), size)],
            )
        )
    return steps[:200]


def play(probe: ChipProbe, random: Random) -> None:
    """A session that is cut or reset, and another one on what it has left."""
    if probe.chip.geometry.checks:
        probe.broken = [probe.chip.main.base + random.randrange(probe.chip.main.size)]
    probe.load(*make_steps(random, probe), from_ram=random.random() < 0.5)
    probe.engine.forget()
    if random.random() < 0.5:
        probe.engine.cut_before_op(random.randrange(1, 5))
    if random.random() < 0.5:
        probe.engine.note_reads()
    probe.engine.power_on()
    probe.engine.advance(random.uniform(1e-5, 1e-2))
    probe.engine.press_reset()
    probe.engine.advance(random.uniform(1e-5, 1e-2))
    assert probe.engine.relevant >= 0
    probe.engine.power_off()
    left = probe.engine.read_nor()
    probe.engine.forget()
    probe.engine.load_nor(left)
    probe.engine.power_on()
    probe.engine.advance(1e-3)
    probe.engine.power_off()


def main(library: str, chip: str) -> None:
    """Play some sessions on a chip."""
    LIBRARIES["engine/mcu"] = library
    random = Random(chip)
    for _ in range(RUNS):
        probe = ChipProbe(chip)
        play(probe, random)
        probe.engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
