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

import math
import random
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from unbrick.flash.bits import intersect, invert, unite

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.flash.cells import Cells
    from unbrick.flash.geometry import FlashGeometry
    from unbrick.flash.ops import FlashOp


@lru_cache(maxsize=4096)
def _noise(seed: str, length: int) -> bytes:
    """Bits that are the same for the same operation: sessions repeat most of theirs."""
    return random.Random(seed).randbytes(length)


def _program(cells: Cells, op: FlashOp, data: bytes, weak: bytes = b"") -> Cells:
    old = cells.read(op.offset, op.length)
    new = intersect(old, data)
    if weak:
        weak = intersect(
            weak, intersect(old, invert(op.data))
        )  # only cells on their way to 0 can be weak
    return cells.with_range(op.offset, new, weak)


def _first_words(words: int) -> Callable[[Cells, FlashOp], Cells]:
    """Some words are done, the next one is torn, the rest not begun. A word is a unit of each chip.

    ``words`` that are negative mean half of them.
    """

    def tear(cells: Cells, op: FlashOp) -> Cells:
        word = math.prod(cells.geometry.find_word(op.offset))
        count = op.length // word
        whole = (min(words, count - 1) if words >= 0 else count // 2) * word
        torn = unite(op.data[whole : whole + word], _noise(f"word {op.offset}", word))
        rest = b"\xff" * (op.length - whole - word)
        return _program(cells, op, op.data[:whole] + torn + rest)

    return tear


def _uneven_chips(cells: Cells, op: FlashOp) -> Cells:
    """The first chip is done, those beside it have not begun."""
    unit, chips = cells.geometry.find_word(op.offset)
    mask = (b"\0" * unit + b"\xff" * unit * (chips - 1)) * (op.length // (unit * chips))
    return _program(cells, op, unite(op.data, mask))


def _scattered(cells: Cells, op: FlashOp) -> Cells:
    """Every word has some of its bits."""
    return _program(cells, op, unite(op.data, _noise(f"bits {op.offset}", op.length)))


def _weak_program(cells: Cells, op: FlashOp) -> Cells:
    """All is there, but a part of the cells is weak."""
    return _program(cells, op, op.data, _noise(f"weak {op.offset}", op.length))


def _all_weak_program(cells: Cells, op: FlashOp) -> Cells:
    """No cell has been cleared for sure."""
    return _program(cells, op, b"\xff" * op.length, b"\xff" * op.length)


def _erase(share: int) -> Callable[[Cells, FlashOp], Cells]:
    """``share`` of 4 of the bits have moved to 1; the last step leaves few zeros."""

    def tear(cells: Cells, op: FlashOp) -> Cells:
        ones = _noise(f"erase {op.offset} {share}", op.length)
        for i in range(abs(2 - share)):
            more = _noise(f"erase {op.offset} {share} {i}", op.length)
            ones = intersect(ones, more) if share < 2 else unite(ones, more)
        return cells.with_range(op.offset, unite(cells.read(op.offset, op.length), ones))

    return tear


def _weak_erase(cells: Cells, op: FlashOp) -> Cells:
    """The block looks blank; cells that were 0 are weak."""
    weak = intersect(
        invert(cells.read(op.offset, op.length)), _noise(f"blank {op.offset}", op.length)
    )
    return cells.with_range(op.offset, b"\xff" * op.length, weak)


PROGRAMS: tuple[tuple[str, Callable[[Cells, FlashOp], Cells]], ...] = (
    ("first-word", _first_words(0)),
    ("half", _first_words(-1)),
    ("last-word", _first_words(1 << 30)),
    ("low-chip", _uneven_chips),
    ("scattered", _scattered),
    ("weak", _weak_program),
    ("all-weak", _all_weak_program),
)


def _barely_erased(cells: Cells, op: FlashOp) -> Cells:
    """Every cell that was 0 may still read as 0, or already as 1."""
    old = cells.read(op.offset, op.length)
    return cells.with_range(op.offset, b"\xff" * op.length, invert(old))


ERASES: tuple[tuple[str, Callable[[Cells, FlashOp], Cells]], ...] = (
    ("begun", _erase(0)),
    ("half", _erase(2)),
    ("nearly", _erase(4)),
    ("weak", _weak_erase),
    ("barely", _barely_erased),
)


_OF_SEVERAL_UNITS = {"first-word", "half", "last-word"}
_OF_SEVERAL_CHIPS = {"low-chip"}

SHAPES = ("none", "few", "sure", "usual", "many")
"""In how many shapes operations are torn.

none: an operation is done or not begun; few: some of its bits, a half, weak cells; sure: as usual,
without weak cells; usual: one of each kind that chips are known for; many: the numbered ones, too.
"""
NUMBERED = ("bytes", "part", "bits")
"""Kinds of numbered shapes."""

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
    if shapes == "sure":
        return tuple(name for name in names if name not in _WEAK)
    return names + (_list_numbered(op) if shapes == "many" else ())


def _list_numbered(op: FlashOp) -> tuple[str, ...]:
    """Each byte of a double word; eighths of what is longer; and subsets of the bits."""
    short = op.kind != "erase" and op.length <= STEPS
    steps = [f"bytes-{at}" for at in range(1, op.length)] if short else []
    steps = steps or [f"part-{at}" for at in range(1, STEPS if op.length >= STEPS else 1)]
    return (*steps, *(f"bits-{number}" for number in range(SUBSETS)))


def _tear_numbered(cells: Cells, op: FlashOp, kind: str, number: int, steps: int) -> Cells:
    """The numbered shapes: see the module; ``steps``: into how many parts they divide it."""
    if kind == "bits":
        done = _noise(f"subset {op.offset} {number}", op.length)
    else:
        length = op.length * number // steps
        done = (b"\xff" * length).ljust(op.length, b"\0")
    if op.kind == "erase":
        return cells.with_range(op.offset, unite(cells.read(op.offset, op.length), done))
    return _program(cells, op, unite(op.data, invert(done)))


def tear(cells: Cells, op: FlashOp, variant: str) -> Cells:
    """What ``op`` leaves when power is lost in it.

    Args:
        cells: before the operation.
        op: the operation.
        variant: one of :func:`list_variants`.

    Raises:
        KeyError: there is no such variant.
    """
    numbered = _NUMBERED.fullmatch(variant)
    if numbered and variant not in _list_numbered(op):
        raise KeyError(variant)
    named = dict(ERASES if op.kind == "erase" else PROGRAMS)
    for part in cells.geometry.list_parts(op):
        if numbered:
            kind, number = numbered[1], int(numbered[2])
            steps = op.length if kind == "bytes" else STEPS
            cells = _tear_numbered(cells, part, kind, number, steps)
        else:
            cells = named[variant](cells, part)
    return cells
