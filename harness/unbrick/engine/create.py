"""Makes an engine by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.board import Board, load_board
from unbrick.engine import ENGINES
from unbrick.engine.base import EMULATED
from unbrick.engine.inprocess import InProcessEngine
from unbrick.engine.inprocess.debugged import DebuggedTerminal
from unbrick.engine.paced import PacedEngine
from unbrick.engine.qemu.engine import QemuEngine
from unbrick.engine.renode.engine import RenodeEngine
from unbrick.engine.serial.board_file import find_board_file, read_board_file
from unbrick.engine.serial.engine import SerialEngine
from unbrick.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from unbrick.engine.base import Engine


def create_engine(
    name: str,
    elf_files: Iterable[Path] = (),
    *,
    speed: float | None = None,
    debugger: bool = False,
    board: Board | None = None,
    board_file: Path | None = None,
) -> Engine:
    """The engine called ``name``.

    Args:
        name: one of :data:`unbrick.engine.ENGINES`.
        elf_files: the firmware's ELF files, for messages that name the source line.
        speed: keep virtual time to this many seconds a second; ``None``: as fast as it goes.
            QEMU's time, and a real board's, is the clock's, whatever this says.
        debugger: :meth:`Engine.gdb_server` will be called.
        board: the hardware (:func:`unbrick.board.load_board`); by default the one that is emulated.
        board_file: where the engine ``serial`` finds it; by default ``$UNBRICK_BOARD`` or
            ``board.toml`` here.

    Raises:
        SetupError: there is no such engine, it does not emulate the board, or what it needs is
            missing.
    """
    if name == "inprocess":
        engine = (DebuggedTerminal if debugger else InProcessEngine)(elf_files, board=board)
        return engine if speed is None else PacedEngine(engine, speed)
    if name == "qemu":
        return QemuEngine(board=board)
    if name == "renode":
        renode = RenodeEngine(elf_files, board=board)
        return renode if speed is None else PacedEngine(renode, speed)
    if name == "serial":
        hardware = board or load_board(EMULATED)
        file = read_board_file(find_board_file(board_file), hardware.baud)
        return SerialEngine(file, hardware)
    raise SetupError(f"there is no engine {name!r}", hint=f"choose one of {', '.join(ENGINES)}")
