"""The reference terminal in this process, with a debugger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.engine.gdb.registers import A_PROFILE, MemoryRange
from unbrick.engine.gdb.server import DebuggedEngine, Halt
from unbrick.engine.inprocess.engine import InProcessEngine
from unbrick.engine.inprocess.models import Stop

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from unbrick.board import Board

_HALTS = {
    Stop.BREAK: Halt.BREAK,
    Stop.WATCH: Halt.WATCH,
    Stop.FAULT: Halt.FAULT,
    Stop.CUT: Halt.CUT,
}


class DebuggedTerminal(InProcessEngine, DebuggedEngine):
    """An in-process terminal that a debugger can stop. It takes what an in-process engine does."""

    core = A_PROFILE

    def __init__(self, elf_files: Iterable[Path] = (), *, board: Board | None = None) -> None:
        super().__init__(elf_files, board=board)
        nor, sram = self.board.nor, self.board.sram
        self.memories = (
            MemoryRange("rom", nor.base, nor.modelled),
            MemoryRange("ram", sram.base, sram.size),
        )

    @property
    def progress(self) -> str:
        return f"{self.blocks} basic blocks executed"

    def advance(self, seconds: float) -> None:
        DebuggedEngine.advance(self, seconds)

    def run_freely(self, seconds: float) -> None:
        InProcessEngine.advance(self, seconds)

    def run_debugged(
        self, seconds: float, *, steps: bool, passes: bool, past_watch: bool
    ) -> Halt | None:
        """As every debugged engine; a step takes an instruction whose time is only roughly so."""
        if steps or passes:
            self.step(over_watchpoints=past_watch)
            halt = _HALTS.get(self.last_stop)
            if steps or halt is not None:
                return halt or Halt.STEP
        InProcessEngine.advance(self, seconds)
        return _HALTS.get(self.last_stop)

    def write_ram(self, address: int, data: bytes) -> None:
        self.write_sram(address, data)

    def close(self) -> None:
        self.end_debugging()
        super().close()
