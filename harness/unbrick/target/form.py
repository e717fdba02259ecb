"""A target's own canonical form: what of some fields of its flash the firmware can tell apart.

Counters, sequence numbers and torn marks make ever more states. A user's Python file may say which
of them count as one: its function ``canonical(fields)`` gives the fields other contents, the same
for all that the firmware takes alike. The search then goes on with those.
docs/adr/0037-a-form-of-the-targets-own.md says what the statement then rests on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from struct import Struct
from typing import TYPE_CHECKING

from unbrick.errors import SetupError
from unbrick.target.user_file import read_function

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from unbrick.board.mcu import McuChip
    from unbrick.campaign.target import Contents
    from unbrick.flash.cells import Cells

FUNCTION = "canonical"
"""What a user's file must define."""

WORD = 4
"""Bytes."""

_read_word: Callable[[bytes | bytearray, int], tuple[int]] = Struct("<I").unpack_from

MOST_KNOWN = 1 << 12
"""Contents of all fields of which a process keeps what they come to. A search keeps them in C."""


class FieldPlaces:
    """Where the words of fields are, by their addresses.

    Args:
        chip: whose flash it is.
        ranges: offset and length of each field in the flash image.
    """

    def __init__(self, chip: McuChip, ranges: Sequence[tuple[int, int]]) -> None:
        self._chip, self._ranges = chip, ranges
        self._known: dict[int, tuple[int, int]] = {}  # a form asks for the same words all the time

    def find(self, address: int) -> tuple[int, int]:
        """In which field a word is, and where in it.

        Raises:
            SetupError: it is in none.
        """
        place = self._known.get(address)
        if place is None:
            place = self._known[address] = self._find(address)
        return place

    def _find(self, address: int) -> tuple[int, int]:
        offset = self._chip.image_offset(address)
        for number, (start, length) in enumerate(self._ranges):
            if start <= offset and offset + WORD <= start + length:
                return number, offset - start
        raise SetupError(
            f"{FUNCTION} asks for {address:#x}, which is in none of the fields",
            hint="name it in `fields` of [canonical]",
        )


class Fields:
    """The fields of a flash, as a user's function sees and changes them. Addresses are the chip's.

    Args:
        places: of their words.
        contents: of each.
    """

    def __init__(self, places: FieldPlaces, contents: Contents) -> None:
        self._find = places.find
        self._values = [bytearray(values) for values, _ in contents]
        self._weak = [bytearray(weak) for _, weak in contents]

    @property
    def contents(self) -> Contents:
        """What they hold now."""
        return tuple(zip(map(bytes, self._values), map(bytes, self._weak), strict=True))

    def word(self, address: int) -> int:
        """The word at an address, with weak cells read as 1."""
        number, at = self._find(address)
        return _read_word(self._values[number], at)[0]

    def weak(self, address: int) -> int:
        """Which cells of the word at an address are weak, as a mask."""
        number, at = self._find(address)
        return _read_word(self._weak[number], at)[0]

    def may_be(self, address: int, value: int) -> bool:
        """Whether the word at an address may read as a value: it does, or has weak cells for it."""
        number, at = self._find(address)
        (word,), (weak,) = _read_word(self._values[number], at), _read_word(self._weak[number], at)
        return not (word ^ value) & ~weak

    def put(self, address: int, value: int, weak: int = 0) -> None:
        """Have the word at an address count as one that holds a value; ``weak`` cells read as 1."""
        number, at = self._find(address)
        self._values[number][at : at + WORD] = (value | weak).to_bytes(WORD, "little")
        self._weak[number][at : at + WORD] = weak.to_bytes(WORD, "little")


@dataclass(frozen=True)
class FileForm:
    """See :class:`unbrick.campaign.target.Form`.

    Attributes:
        path: of the user's file.
        chip: whose flash it is.
        ranges: offset and length of each field in the flash image.
    """

    path: Path
    chip: McuChip = field(repr=False)
    ranges: tuple[tuple[int, int], ...]
    _known: dict[Contents, Contents] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _places(self) -> FieldPlaces:
        return FieldPlaces(self.chip, self.ranges)

    def read(self, cells: Cells) -> Contents:
        """What the fields hold."""
        return tuple((cells.read(*place), cells.read_weak(*place)) for place in self.ranges)

    def count(self, held: Contents) -> Contents:
        """What fields count as that hold something.

        Raises:
            SetupError: the user's function is wrong.
        """
        counts = self._known.get(held)
        if counts is None:
            counts = self._rewrite(held)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[held] = counts
        return counts

    def apply(self, cells: Cells) -> Cells:
        """Cells whose fields hold what they count as.

        Raises:
            SetupError: the user's function is wrong.
        """
        held = self.read(cells)
        counts = self.count(held)
        for (offset, _), old, new in zip(self.ranges, held, counts, strict=True):
            if old != new:
                cells = cells.with_range(offset, *new)
        return cells

    def _rewrite(self, held: Contents) -> Contents:
        rewrite: Callable[[Fields], object] = read_function(
            self.path, FUNCTION, "the canonical form", "canonical(fields)"
        )
        fields = Fields(self._places, held)
        try:
            rewrite(fields)
        except SetupError:
            raise
        except Exception as error:
            raise SetupError(
                f"{FUNCTION} of {self.path} fails: {type(error).__name__}: {error}",
                hint="correct it; docs/any-firmware.md says what it is given",
            ) from error
        return fields.contents
