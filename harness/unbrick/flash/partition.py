"""A named range of a flash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unbrick.errors import SetupError


@dataclass(frozen=True)
class Partition:
    """A range of the flash, as offsets in bytes from its start."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first offset after the partition."""
        return self.offset + self.size


def find_partition(partitions: Iterable[Partition], name: str) -> Partition:
    """The partition called ``name``.

    Raises:
        SetupError: there is none.
    """
    partitions = tuple(partitions)
    for part in partitions:
        if part.name == name:
            return part
    known = ", ".join(part.name for part in partitions) or "none"
    raise SetupError(f"there is no partition {name!r}", hint=f"choose one of {known}")


def name_partition(partitions: Iterable[Partition], offset: int) -> str:
    """The name of the partition at an offset; ``unused`` between them."""
    return next((part.name for part in partitions if part.offset <= offset < part.end), "unused")
