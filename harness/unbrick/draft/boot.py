"""Starts firmware once, in process: which UART speaks, what it says, and what it reads."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbrick.engine.mcu.engine import McuEngine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from unbrick.board.mcu import McuChip
    from unbrick.engine.base import FirmwareFault, VainRegister

SILENT_S, LONGEST_S = 3.0, 60.0
"""Virtual seconds: a start ends so long after the last that came, and after so many in all."""

PATIENCE_S = 20.0
"""Seconds of the clock that a start may take: firmware that never sleeps costs a core."""

STEP_S = 0.05
WORD_SIZE = 4

HEARD_MOST = 64 * 1024
"""Bytes of each UART that count."""

GAP_SIZE = 256
"""Bytes that a firmware may leave out where it reads one thing."""


@dataclass(frozen=True)
class Boot:
    """What a start came to.

    Attributes:
        lines: what was said at each UART that spoke: each line once, in order.
        ops: flash operations.
        reads: where the flash was read whose first contents counted: first addresses and ends.
        image: the flash at the end.
        pc: where the core was then.
        seconds: virtual seconds until nothing new came.
        faults: of the hardware's rules.
        waits: registers that were polled in vain.
    """

    lines: dict[str, tuple[str, ...]]
    ops: int
    reads: tuple[tuple[int, int], ...]
    image: bytes
    pc: int
    seconds: float
    faults: tuple[FirmwareFault, ...]
    waits: tuple[VainRegister, ...]


def boot(chip: McuChip, base: int, image: bytes, symbols: Sequence[Path] = ()) -> Boot:
    """Start a chip with what its flash holds, and listen until nothing new comes.

    Args:
        chip: what runs.
        base: where its main flash is, for the firmware.
        image: the flash image.
        symbols: ELF files, so that faults are told with their source.
    """
    with McuEngine(chip, symbols) as engine:
        engine.load_nor(image)
        engine.note_reads()
        engine.power_on()
        said = {name: bytearray() for name in engine.lines}
        lines: dict[str, tuple[str, ...]] = {}
        ops, last = 0, 0.0
        began = time.monotonic()
        while engine.now < min(last + SILENT_S, LONGEST_S):
            engine.advance(STEP_S)
            for name, line in engine.lines.items():
                said[name] += line.read()
            known = {name: split_lines(bytes(data)) for name, data in said.items()}
            if engine.op_count > ops or known != lines:
                ops, lines, last = engine.op_count, known, engine.now
            locked_up = any(fault.kind == "lockup" for fault in engine.faults)
            if locked_up or time.monotonic() - began > PATIENCE_S:
                break
        pc, reads = engine.pc, _list_reads(chip, base, engine.relevant)
        faults, waits = tuple(engine.faults), tuple(engine.find_vain_registers())
        engine.power_off()
        return Boot(
            lines={name: found for name, found in lines.items() if found},
            ops=ops,
            reads=reads,
            image=engine.read_nor(),
            pc=pc,
            seconds=last,
            faults=faults,
            waits=waits,
        )


_DECORATION = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\[\d\d:\d\d:\d\d\.\d{3},\d{3}\]")
"""What says nothing: colours (ECMA-48, SGR), and the times of Zephyr's log, which never agree."""


def split_lines(data: bytes) -> tuple[str, ...]:
    """What people read of what was said, each line once; the last one may go on."""
    text = _DECORATION.sub("\n", data[:HEARD_MOST].decode("ascii", errors="replace"))
    lines = "".join(one if one >= " " else "\n" for one in text).split("\n")
    *whole, last = (line.strip() for line in lines)
    if not any(line.startswith(last) for line in whole):  # it is no line that comes again
        whole.append(last)
    return tuple(dict.fromkeys(line for line in whole if len(line) > 1 and "\ufffd" not in line))


def _list_reads(chip: McuChip, base: int, relevant: int) -> tuple[tuple[int, int], ...]:
    """Places of the flash that were read, those that are near each other as one."""
    found: list[tuple[int, int]] = []
    for part, first in chip.placed_flash:
        start = base if part is chip.main else part.base
        for unit in range(first // WORD_SIZE, (first + part.size) // WORD_SIZE):
            if not relevant >> unit & 1:
                continue
            address = start + unit * WORD_SIZE - first
            if found and found[-1][1] <= address <= found[-1][1] + GAP_SIZE:
                found[-1] = found[-1][0], address + WORD_SIZE
            else:
                found.append((address, address + WORD_SIZE))
    return tuple(found)
