"""Where the reference firmware keeps what in the NOR, by the names that the campaign uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from unbrick.flash.geometry import FlashGeometry
from unbrick.flash.partition import Partition
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from unbrick.engine.base import FlashTrace
    from unbrick.flash.ops import FlashOp

SLOT_SIZE = 64
"""Bytes of a record in journal and user data, and of a log's header."""


@dataclass(frozen=True)
class Places:
    """Places in the NOR.

    Attributes:
        geometry: its erase blocks.
        block: bytes of each.
        application, journal, userdata, starts: partitions.
        application_blocks: numbers of the blocks of the application.
        plain_blocks: numbers of the blocks outside of the four.
    """

    geometry: FlashGeometry
    block: int
    application: Partition
    journal: Partition
    userdata: Partition
    starts: Partition
    application_blocks: range
    plain_blocks: tuple[int, ...]


@cache
def find_places() -> Places:
    """The places of our firmware's layout."""
    layout = reference_layout()
    nor = layout.board.nor
    block = nor.block_size
    names = ("application", "journal", "userdata", "starts")
    application, journal, userdata, starts = map(layout.partition, names)
    numbers = {
        part: range(part.offset // block, part.end // block)
        for part in (application, journal, userdata, starts)
    }
    return Places(
        geometry=nor.geometry,
        block=block,
        application=application,
        journal=journal,
        userdata=userdata,
        starts=starts,
        application_blocks=numbers[application],
        plain_blocks=tuple(
            number
            for number in range(nor.modelled // block)
            if not any(number in taken for taken in numbers.values())
        ),
    )


def is_of_starts(op: FlashOp) -> bool:
    """Whether an operation is on the counter of starts."""
    starts = find_places().starts
    return starts.offset <= op.offset < starts.end


def list_starts(engine: FlashTrace) -> list[FlashOp]:
    """The operations on the counter of starts so far."""
    return [op for op in engine.ops if is_of_starts(op)]
