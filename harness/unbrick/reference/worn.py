"""Parts of the NOR that are worn: operations there end with an error, and are half done.

The error bit stays in the status register until it is cleared, and so an operation that goes well
seems to fail, too. Source: data sheet of the P30-65nm, status register.
"""

from __future__ import annotations

from dataclasses import dataclass

from unbrick.flash.ops import Worn
from unbrick.reference.layout import find_places


@dataclass(frozen=True)
class WornPart:
    """Which operations end with an error.

    Attributes:
        partition: ``application``, ``journal``, ``userdata`` or ``starts``.
        kind: ``erase`` or ``program``.
        good: so many of them go well before, in each session.
        bad: so many fail then; ``None``: all, for ever.
        block: the erase block of the partition, counted from 0; ``None``: all of them.
        lanes: the chips that fail, bit 0 for the low one.
        silent: whether no error bit tells it. Only operations fail so of which it shows: where
            cells are weak and read right, nobody can tell whether a program did anything.
        spoils: whether a program that fails clears the word at which it ends.
        times: all operations there last so many times as long as they typically do.
    """

    partition: str
    kind: str
    good: int = 0
    bad: int | None = 1
    block: int | None = None
    lanes: int = 3
    silent: bool = False
    spoils: bool = False
    times: int = 1

    @property
    def cells(self) -> Worn:
        """Where that is."""
        places = find_places()
        parts = (places.application, places.journal, places.userdata, places.starts)
        partition = {part.name: part for part in parts}[self.partition]
        offset, length = partition.offset, partition.size
        if self.block is not None:
            offset, length = offset + self.block * places.block, places.block
        erase = self.kind == "erase"
        return Worn(
            offset,
            length,
            erase=erase,
            good=self.good,
            bad=self.bad,
            lanes=self.lanes,
            silent=self.silent,
            spoils=self.spoils,
            times=self.times,
        )
