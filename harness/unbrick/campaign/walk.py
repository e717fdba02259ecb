"""A walk over the power cuts of a session, in C (``c/walk.c``): what each of them leaves.

Most cuts leave states that are known and followed. These are counted there, thousands in a
millisecond. The others are left to the caller, one by one.
"""

from __future__ import annotations

import ctypes as c
from enum import IntEnum
from itertools import islice, starmap
from typing import TYPE_CHECKING, Any

from unbrick.campaign.book import load_book
from unbrick.campaign.case import PowerCut
from unbrick.flash.torn import find_shape, list_variants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.campaign.book import Book
    from unbrick.campaign.target import Contents, Form
    from unbrick.flash.cells import Cells
    from unbrick.flash.geometry import FlashGeometry
    from unbrick.flash.ops import FlashOp
    from unbrick.flash.trace import Trace


_FIRST = (PowerCut(0, change=0),)
"""Before the peers have heard of anything. It leaves what the cut after it leaves."""


class WalkEnd(IntEnum):
    """Why a walk stands still; see ``c/walk.h``."""

    DONE = 0
    MEMBER = 1
    SHAPES = 2
    FORM = 3


class _Cut(c.Structure):
    _fields_ = (("op", c.c_uint32), ("variant", c.c_uint32))


class _Session(c.Structure):
    _fields_ = (
        ("ops", c.c_void_p),
        ("data", c.c_char_p),
        ("count", c.c_uint32),
        ("end", c.c_uint32),
        ("erase", c.c_uint32),
        ("levels", c.c_uint32),
        ("groups", c.c_void_p),
        ("held", c.c_void_p),
        ("only", c.c_void_p),
        ("only_count", c.c_uint32),
    )


class Walker:
    """Walks in a book; the shapes of operations are kept from one session to the next.

    Args:
        book: it shows what cuts leave.
        geometry: of the flash: with one chip, and without check cells.
        shapes: one of ``unbrick.flash.torn.SHAPES``.
        form: the target's own; None: there is none.

    Raises:
        MemoryError: there is no room for it.
    """

    def __init__(self, book: Book, geometry: FlashGeometry, shapes: str, form: Form | None) -> None:
        self._book, self._geometry, self._shapes = book, geometry, shapes
        self._form, self._library = form, load_book()
        self._ranges = tuple(form.ranges) if form else ()
        fields = _list_numbers([number for field in self._ranges for number in field])
        self._walk = self._library.walk_new(book.handle, len(self._ranges), c.addressof(fields))
        if not self._walk:
            raise MemoryError

    def __del__(self) -> None:
        if getattr(self, "_walk", None):
            self._library.walk_free(self._walk)

    @property
    def handle(self) -> Any:
        """Of the library."""
        return self._walk

    def list_names(self, op: FlashOp) -> list[str]:
        """The names of the variants of cuts at an operation: the first one is not torn."""
        return ["", *list_variants(op, self._geometry, self._shapes)]

    def add_shapes(self, op: FlashOp) -> None:
        """Say how an operation can be torn, and all of its kind at its place."""
        shapes = [find_shape(op, self._geometry, name) for name in self.list_names(op)[1:]]
        masks = b"".join(mask for shape in shapes for mask in shape)
        self._library.walk_add_shapes(
            *(self._walk, op.kind == "erase", op.offset, op.length, len(shapes), masks)
        )

    def read_fields(self, cells: Cells) -> bytes:
        """What the form's fields hold: the values of all, and then their weak bits."""
        return _join(self._form.read(cells)) if self._form else b""

    def add_form(self) -> None:
        """Say what fields count as that hold what the library has asked for."""
        assert self._form  # noqa: S101 - without one nothing is asked
        sizes = [length for _, length in self._ranges]
        held = c.string_at(self._library.walk_asked(self._walk), 2 * sum(sizes))
        values, weak = iter(held[: sum(sizes)]), iter(held[sum(sizes) :])
        contents = tuple((bytes(islice(values, size)), bytes(islice(weak, size))) for size in sizes)
        self._library.walk_add_form(self._walk, held, _join(self._form.count(contents)))

    def go_on(self, session: _Session, at: _Cut) -> WalkEnd:
        """Walk until the caller must look."""
        return WalkEnd(self._library.walk_on(self._walk, c.byref(session), c.byref(at)))

    def list_unknown(self) -> list[tuple[int, int]]:
        """The cuts, as operation and variant, that leave states which nobody knows."""
        count = self._library.walk_unknown_count(self._walk)
        cuts = c.cast(self._library.walk_unknown(self._walk), c.POINTER(_Cut))
        return [(cuts[number].op, cuts[number].variant) for number in range(count)]


class CutWalk:
    """The cuts of one session, from the first to operation ``end``; the book shows where it begins.

    Args:
        walker: of the search.
        cells: where the session begins.
        trace: the session's operations, none of which failed.
        end: see above.
        groups: for each way of reading: the book's group of behaviours, and those of members.
        only: look at no other cuts than these, each an operation and a variant, in their order.

    Attributes:
        op, variant: of the cut that the caller is to look at.
        unknown: the cuts that leave states which nobody knows, each with its operation and variant.
    """

    def __init__(
        self,
        walker: Walker,
        cells: Cells,
        trace: Trace,
        end: int,
        groups: Sequence[Sequence[int]],
        only: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._walker, self._trace = walker, trace
        self._memory = trace.find_memory()  # which the library looks at
        ops, count, data, _ = self._memory
        self._groups = _list_numbers([group for way in groups for group in way])
        self._held = c.create_string_buffer(walker.read_fields(cells))
        self._only = None if only is None else (_Cut * len(only))(*starmap(_Cut, only))
        self._session = _Session(
            *(ops, data, count, end, trace.find_erase_kind(), len(groups[0]) - 1),
            *(c.addressof(self._groups), c.addressof(self._held)),
            *((c.addressof(self._only), len(self._only)) if self._only is not None else ()),
        )
        self._at = _Cut()
        self.unknown: dict[PowerCut, tuple[int, int]] = {}

    @property
    def op(self) -> int:
        """See the class."""
        return int(self._at.op)

    def go_on(self) -> WalkEnd:
        """Walk until the caller must look; the book shows what is before its operation."""
        end = self._walker.go_on(self._session, self._at)
        at, names = None, list[str]()
        for op, variant in self._walker.list_unknown():
            if op != at and variant:
                at, names = op, self._walker.list_names(self._trace[op])
            cuts = [PowerCut(op, names[variant])] if variant else _list_whole(op)
            self.unknown.update((cut, (op, variant)) for cut in cuts)
        return end

    def help_on(self, why: WalkEnd) -> None:
        """Say what the walk has asked for."""
        if why is WalkEnd.SHAPES:
            self._walker.add_shapes(self._trace[self.op])
        elif why is WalkEnd.FORM:
            self._walker.add_form()

    def list_at(self) -> list[PowerCut]:
        """The cuts that the caller is to look at: one, or the first two, which leave the same."""
        if not self.variant:
            return _list_whole(self.op)
        return [PowerCut(self.op, self._walker.list_names(self._trace[self.op])[self.variant])]

    def pass_by(self) -> None:
        """Go on with the next cut; the book shows what is before its operation."""
        self._at.variant += 1

    @property
    def variant(self) -> int:
        """See the class."""
        return int(self._at.variant)


def _list_whole(op: int) -> list[PowerCut]:
    return [*_FIRST * (op == 0), PowerCut(op)]


def _join(contents: Contents) -> bytes:
    return b"".join(values for values, _ in contents) + b"".join(weak for _, weak in contents)


def _list_numbers(numbers: Sequence[int]) -> Any:
    return (c.c_uint32 * max(1, len(numbers)))(*numbers)
