"""What the judge and the checks look at in the NOR: it has a say in their verdict.

Only what lets a session pass is noted. One that breaks an invariant stands for no other state.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

from unbrick.campaign.book import find_units
from unbrick.reference.canonical import HEADER, read_valid_header
from unbrick.reference.layout import SLOT_SIZE, find_places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.engine.base import TracedEngine
    from unbrick.flash.cells import Cells

_BLANK = b"\xff" * SLOT_SIZE


class Looks:
    """Notes them, or nothing where nobody wants to know.

    Args:
        engine: that of the session, which notes what it reads itself.
        wanted: whether somebody does. It takes a twentieth of a short session's time.

    Attributes:
        units: that were looked at as they were at some earlier moment, as a set of bits.
    """

    def __init__(self, engine: TracedEngine, *, wanted: bool) -> None:
        self._engine, self._wanted = engine, wanted
        self.units = 0

    def note_now(self, offset: int, length: int) -> None:
        """A part of the NOR was looked at as it is. What was erased in this session has no say."""
        if self._wanted:
            self._engine.read_memory(self._engine.board.nor.base + offset, length)

    def note_earlier(self, offset: int, length: int) -> None:
        """A part of the NOR was looked at as it was earlier, perhaps before an erase."""
        if self._wanted:
            self.units |= find_units(offset, length)

    def note_record(self, cells: Cells, *, now: bool) -> None:
        """The newest record of the journal was looked for, in one way of reading weak cells."""
        note = self.note_now if now else self.note_earlier
        for offset, length in _list_record_looks(cells) if self._wanted else ():
            note(offset, length)

    def note_words(self, cells: Cells, name: str, number: str) -> None:
        """An entry of the user's data was looked for; it counts where it was found."""
        if not self._wanted:
            return
        userdata = find_places().userdata
        stored = cells.read(userdata.offset, userdata.size)
        for word in (name.encode(), number.encode()):
            at = stored.find(word)
            if at >= 0:
                self.note_now(userdata.offset + at, len(word))

    def note_otherness(self, cells: Cells, image: bytes) -> None:
        """An earlier application was held against an image: all of it if it is that, else a byte.

        That it is another one shows at the first byte that differs.
        """
        if not self._wanted:
            return
        application = find_places().application
        there = cells.read(application.offset, len(image))
        if there == image:
            self.note_earlier(application.offset, len(image))
        else:
            pairs = zip(there, image, strict=True)
            first = next(at for at, (one, other) in enumerate(pairs) if one != other)
            self.note_earlier(application.offset + first, 1)


def _list_record_looks(cells: Cells) -> Iterator[tuple[int, int]]:
    """(offset, length) of what decides which record of the journal is the newest.

    These are both headers, and the slots of the newer half up to the first blank one.
    """
    journal, block = find_places().journal, find_places().block
    halves = [(at, cells.read(at, block)) for at in range(journal.offset, journal.end, block)]
    valid = []
    for at, half in halves:
        yield at, HEADER
        header = read_valid_header(half)
        if header is not None:
            valid.append((header[0], at, half))
    if valid:
        _, at, half = max(valid, key=itemgetter(0))
        yield at, _find_blank(half)


def _find_blank(half: bytes) -> int:
    """The bytes of a record log's half up to the end of its first blank slot."""
    at = half.find(_BLANK, HEADER)
    while at >= 0:
        slot = -(-at // SLOT_SIZE) * SLOT_SIZE
        if half.startswith(_BLANK, slot):
            return slot + SLOT_SIZE
        at = half.find(_BLANK, slot + 1)
    return len(half)
