"""Torn operations: the cells that a power cut in the middle of a program or an erase leaves.

Every variant is a pure function of the cells before, of the operation and of its name. So a case ID
names it exactly. Check cells, where there are any, are torn beside those that they are for. The
patterns follow the behaviour of NOR cells:

- Programming goes unit by unit, and can leave a unit with some of its bits.
- Chips side by side need not be equally far.
- An erase moves bits to 1 in no order.
- A cell that was nearly done is weak.

How many are tried is a choice (:data:`SHAPES`). The numbered ones are steps and subsets: an
operation ends after some of its bytes (``bytes-3``) or eighths (``part-3``), or some of its bits
have moved, whichever they are (``bits-3``).
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from unbrick.flash.bits import intersect, invert, unite

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.flash.cells import Cells
    from unbrick.flash.geometry import FlashGeometry
    from unbrick.flash.ops import FlashOp


class Shape(NamedTuple):
    """How far an operation has come on each of its cells, as masks of its length.

    Attributes:
        moved: the cells that are what they were to become.
        weak: of the cells that were on their way, those that are weak, whatever ``moved`` says.
    """

    moved: bytes
    weak: bytes


class _Place(NamedTuple):
    """Where an operation is, in bytes, and the ``unit`` and ``chips`` of the flash there."""

    offset: int
    length: int
    unit: int
    chips: int


def _noise(seed: str, length: int) -> bytes:
    """Bits that are the same for the same operation: sessions repeat most of theirs."""
    return random.Random(seed).randbytes(length)


def _all(place: _Place) -> bytes:
    return b"\xff" * place.length


def _none(place: _Place) -> bytes:
    return bytes(place.length)


def _first_words(words: int) -> Callable[[_Place], Shape]:
    """Some words are done, the next one is torn, the rest not begun. A word is a unit of each chip.

    ``words`` that are negative mean half of them.
    """

    def find(place: _Place) -> Shape:
        word = place.unit * place.chips
        count = place.length // word
        whole = (min(words, count - 1) if words >= 0 else count // 2) * word
        torn = invert(_noise(f"word {place.offset}", word))
        return Shape((b"\xff" * whole + torn).ljust(place.length, b"\0"), _none(place))

    return find


def _uneven_chips(place: _Place) -> Shape:
    """The first chip is done, those beside it have not begun."""
    word = b"\xff" * place.unit + bytes(place.unit * (place.chips - 1))
    return Shape(word * (place.length // len(word)), _none(place))


def _scattered(place: _Place) -> Shape:
    """Every word has some of its bits."""
    return Shape(invert(_noise(f"bits {place.offset}", place.length)), _none(place))


def _weak_program(place: _Place) -> Shape:
    """All is there, but a part of the cells is weak."""
    return Shape(_all(place), _noise(f"weak {place.offset}", place.length))


def _all_weak(place: _Place) -> Shape:
    """No cell has moved for sure: each on its way may still read as before, or as it was to be."""
    return Shape(_none(place), _all(place))


def _erase(share: int) -> Callable[[_Place], Shape]:
    """``share`` of 4 of the bits have moved to 1; the last step leaves few zeros."""

    def find(place: _Place) -> Shape:
        ones = _noise(f"erase {place.offset} {share}", place.length)
        for i in range(abs(2 - share)):
            more = _noise(f"erase {place.offset} {share} {i}", place.length)
            ones = intersect(ones, more) if share < 2 else unite(ones, more)
        return Shape(ones, _none(place))

    return find


def _weak_erase(place: _Place) -> Shape:
    """The block looks blank; cells that were 0 are weak."""
    return Shape(_all(place), _noise(f"blank {place.offset}", place.length))


PROGRAMS: tuple[tuple[str, Callable[[_Place], Shape]], ...] = (
    ("first-word", _first_words(0)),
    ("half", _first_words(-1)),
    ("last-word", _first_words(1 << 30)),
    ("low-chip", _uneven_chips),
    ("scattered", _scattered),
    ("weak", _weak_program),
    ("all-weak", _all_weak),
)

ERASES: tuple[tuple[str, Callable[[_Place], Shape]], ...] = (
    ("begun", _erase(0)),
    ("half", _erase(2)),
    ("nearly", _erase(4)),
    ("weak", _weak_erase),
    ("barely", _all_weak),
)


_OF_SEVERAL_UNITS = {"first-word", "half", "last-word"}
_OF_SEVERAL_CHIPS = {"low-chip"}

SHAPES = ("none", "few", "sure", "usual", "many-sure", "many")
"""In how many shapes operations are torn.

none: an operation is done or not begun; few: some of its bits, a half, weak cells; sure: as usual,
without weak cells; usual: one of each kind that chips are known for; many: the numbered ones, too;
many-sure: as many, without weak cells.
"""
NUMBERED = ("bytes", "part", "bits")
"""Kinds of numbered shapes."""

_SURE, _MANY = {"sure", "many-sure"}, {"many", "many-sure"}
"""Choices of shapes without weak cells, and with the numbered ones."""

_FEW = {"scattered", "half", "weak"}
"""Names of those that are tried when few are."""

_WEAK = {"weak", "all-weak", "barely"}
"""Names of those that leave weak cells."""

STEPS = 8
"""Into so many parts the numbered shapes divide a long operation."""

SUBSETS = 8
"""So many random subsets of the bits of an operation are tried."""

_NUMBERED = re.compile(rf"({'|'.join(NUMBERED)})-(\d+)")


def strip_number(variant: str) -> str:
    """The kind of a variant, the same for all numbers."""
    found = _NUMBERED.fullmatch(variant)
    return found[1] if found else variant


def find_shapes(variant: str) -> str:
    """One of :data:`SHAPES` that has a variant; ``variant`` is empty for what is not torn."""
    if not variant:
        return "none"
    return "many" if _NUMBERED.fullmatch(variant) else "usual"


def list_variants(op: FlashOp, geometry: FlashGeometry, shapes: str = "usual") -> tuple[str, ...]:
    """The names of the ways in which ``op`` can be torn on a flash of this geometry.

    Args:
        op: the operation.
        geometry: of the flash.
        shapes: one of :data:`SHAPES`.
    """
    if shapes == "none":
        return ()
    unit, chips = geometry.find_word(op.offset)
    left_out = set() if op.length > unit else _OF_SEVERAL_UNITS
    left_out = left_out if chips > 1 else left_out | _OF_SEVERAL_CHIPS
    known = ERASES if op.kind == "erase" else PROGRAMS
    names = tuple(name for name, _ in known if op.kind == "erase" or name not in left_out)
    if shapes == "few":
        return tuple(name for name in names if name in _FEW)
    if shapes in _SURE:
        names = tuple(name for name in names if name not in _WEAK)
    return names + (_list_numbered(op) if shapes in _MANY else ())


def _list_numbered(op: FlashOp) -> tuple[str, ...]:
    """Each byte of a double word; eighths of what is longer; and subsets of the bits."""
    short = op.kind != "erase" and op.length <= STEPS
    steps = [f"bytes-{at}" for at in range(1, op.length)] if short else []
    steps = steps or [f"part-{at}" for at in range(1, STEPS if op.length >= STEPS else 1)]
    return (*steps, *(f"bits-{number}" for number in range(SUBSETS)))


def _numbered(place: _Place, kind: str, number: int, steps: int) -> Shape:
    """The numbered shapes: see the module; ``steps``: into how many parts they divide it."""
    if kind == "bits":
        moved = _noise(f"subset {place.offset} {number}", place.length)
    else:
        moved = (b"\xff" * (place.length * number // steps)).ljust(place.length, b"\0")
    return Shape(moved, _none(place))


@lru_cache(maxsize=4096)
def _find_shape(place: _Place, variant: str, *, erases: bool, steps: int) -> Shape:
    numbered = _NUMBERED.fullmatch(variant)
    if numbered:
        return _numbered(place, numbered[1], int(numbered[2]), steps)
    return dict(ERASES if erases else PROGRAMS)[variant](place)


def find_shape(
    op: FlashOp, geometry: FlashGeometry, variant: str, part: FlashOp | None = None
) -> Shape:
    """How far an operation has come in a variant.

    Args:
        op: the operation.
        geometry: of the flash.
        variant: one of :func:`list_variants`.
        part: what it does to check cells, when that is asked for.

    Raises:
        KeyError: there is no such variant.
    """
    steps = op.length if variant.startswith("bytes-") else STEPS
    asked = part or op
    place = _Place(asked.offset, asked.length, *geometry.find_word(asked.offset))
    return _find_shape(place, variant, erases=op.kind == "erase", steps=steps)


def tear(cells: Cells, op: FlashOp, variant: str) -> Cells:
    """What ``op`` leaves when power is lost in it.

    Args:
        cells: before the operation.
        op: the operation.
        variant: one of :func:`list_variants`.

    Raises:
        KeyError: there is no such variant.
    """
    if _NUMBERED.fullmatch(variant) and variant not in _list_numbered(op):
        raise KeyError(variant)
    for part in cells.geometry.list_parts(op):
        moved, weak = find_shape(op, cells.geometry, variant, part)
        old, mask = cells.read(part.offset, part.length), b""
        if op.kind == "erase":
            new = unite(old, moved)
        else:
            new = intersect(old, unite(part.data, invert(moved)))
        if weak.strip(b"\0"):
            on_their_way = invert(old if op.kind == "erase" else unite(invert(old), part.data))
            mask = intersect(weak, on_their_way)
        cells = cells.with_range(part.offset, new, mask)
    return cells
