"""Keys of the states that power cuts in a session leave: those with the same one count as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unbrick.campaign.target import KeyingTarget, State
from unbrick.flash.torn import tear

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from unbrick.campaign.target import StateKeys, Target
    from unbrick.flash.cells import Cells
    from unbrick.flash.ops import FlashOp


class LeftCells:
    """The cells that power cuts in a session leave, asked for in their order.

    Args:
        cells: where the session begins, or where its operation number ``done`` does.
        ops: of the session.
        done: see there.
    """

    def __init__(self, cells: Cells, ops: Sequence[FlashOp], done: int = 0) -> None:
        self._cells, self._ops, self._done = cells, ops, done
        self._torn, self._left = "", cells

    def find(self, op: int, torn: str) -> Cells:
        """Those that a cut at operation ``op`` leaves, which is torn or was not begun."""
        if op != self._done or not torn:
            while self._done < op:
                self._cells = self._cells.after([self._ops[self._done]])
                self._done += 1
            self._torn, self._left = "", self._cells
        if torn != self._torn:
            self._torn, self._left = torn, tear(self._cells, self._ops[op], torn)
        return self._left


class PlainKeys:
    """Keys of a target, found one by one.

    Args:
        key: of a state.
    """

    def __init__(self, key: Callable[[State], Hashable]) -> None:
        self.find = key

    def follow(self, cells: Cells, ops: Sequence[FlashOp]) -> PlainLeft:
        """See :class:`unbrick.campaign.target.StateKeys`."""
        return PlainLeft(self.find, LeftCells(cells, ops))


class PlainLeft:
    """What power cuts in a session leave; see :class:`unbrick.campaign.target.LeftByCuts`.

    Args:
        key: of a state.
        left: the cells that they leave.
    """

    def __init__(self, key: Callable[[State], Hashable], left: LeftCells) -> None:
        self._key, self._left = key, left
        self._cut = 0, ""

    def find_key(self, op: int, torn: str, peers: Any) -> Hashable:
        """Of what a cut leaves."""
        self._cut = op, torn
        return self._key(State(self.make_cells(), peers))

    def make_cells(self) -> Cells:
        """The flash as the cut leaves it that was asked for last."""
        return self._left.find(*self._cut)


def open_keys(target: Target) -> StateKeys:
    """The keys of a target, for one search."""
    return target.open_keys() if isinstance(target, KeyingTarget) else PlainKeys(target.key)
