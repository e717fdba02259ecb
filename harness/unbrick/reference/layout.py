"""Where the reference firmware keeps what in the NOR, by the names that the campaign uses."""

from __future__ import annotations

from unbrick.board import BOARD

GEOMETRY = BOARD.nor.geometry
BLOCK = BOARD.nor.block_size
"""Bytes of an erase block of the pair of chips."""

APPLICATION = BOARD.partition("application")
JOURNAL = BOARD.partition("journal")
USERDATA = BOARD.partition("userdata")
SLOT_SIZE = 64
"""Bytes of a record in journal and user data, and of a log's header."""
