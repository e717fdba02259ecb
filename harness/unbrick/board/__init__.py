"""The board: the hardware that firmware runs on, as data.

``boards/*.toml`` has one file for each board, ``flash_chips/*.toml`` one for each flash chip, and
``chips/*.toml`` one for each microcontroller. Who needs a board is given one.
``tests/test_board.py`` compares the engines' own numbers with these files.
"""

from unbrick.board.description import Board, Device, FlashChip, FlashTimes, Nor, Region
from unbrick.board.load import load_board, load_flash_chip
from unbrick.board.load_chip import list_chips, load_chip
from unbrick.board.mcu import FlashRegion, McuChip, McuDevice, ReadyRule, Register

__all__ = [
    "Board",
    "Device",
    "FlashChip",
    "FlashRegion",
    "FlashTimes",
    "McuChip",
    "McuDevice",
    "Nor",
    "ReadyRule",
    "Region",
    "Register",
    "list_chips",
    "load_board",
    "load_chip",
    "load_flash_chip",
]
