"""How a case ends."""

from __future__ import annotations

from unbrick.errors import UnbrickError


class Violation(UnbrickError):  # noqa: N818 - it is a finding before it is an error
    """An invariant does not hold.

    Attributes:
        kind: one of the target's invariants.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
