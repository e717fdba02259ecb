"""The board: the one description of the terminal that engines, tools and firmware read.

The firmware's build writes :func:`c_header` and :func:`linker_symbols` into its build folder, so no
address is written down twice. The memory map is the subset of the Arm Versatile Express A9 that
QEMU's ``vexpress-a9`` offers (Arm DUI 0448, motherboard memory map "legacy").
"""

from unbrick.board.description import (
    BOARD,
    MAP,
    Board,
    NorGeometry,
    Partition,
    Region,
    c_header,
    linker_symbols,
)

__all__ = [
    "BOARD",
    "MAP",
    "Board",
    "NorGeometry",
    "Partition",
    "Region",
    "c_header",
    "linker_symbols",
]
