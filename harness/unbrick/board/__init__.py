"""The board: the hardware that firmware runs on, as data.

``boards/*.toml`` has one file for each board, ``chips/*.toml`` one for each flash chip. Who needs a
board is given one. ``tests/test_board.py`` compares the engines' own numbers with these files.
"""

from unbrick.board.description import Board, Chip, Device, FlashTimes, Nor, Region
from unbrick.board.load import load_board, load_chip

__all__ = [
    "Board",
    "Chip",
    "Device",
    "FlashTimes",
    "Nor",
    "Region",
    "load_board",
    "load_chip",
]
