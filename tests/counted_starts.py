"""The counter of starts, which changes with every start, and what is beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.layout import reference_layout
from unbrick.reference.layout import is_of_starts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unbrick.flash.ops import FlashOp

STARTS = reference_layout().partition("starts")


def but_for_starts(nor: bytes) -> bytes:
    """The NOR without the counter of starts."""
    return nor[: STARTS.offset] + nor[STARTS.end :]


def ops_but_for_starts(ops: Iterable[FlashOp]) -> list[FlashOp]:
    """The operations that do something else than to count a start."""
    return [op for op in ops if not is_of_starts(op)]
