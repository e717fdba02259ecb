"""How a case ends."""

from __future__ import annotations

from unbrick.errors import UnbrickError

INVARIANTS = {
    "bricked": "1: the terminal always comes back",
    "silent": "1: the terminal always comes back",
    "restless": "1: a healthy terminal writes nothing",
    "needless": "1: no person is needed while the application is intact",
    "untried": "1: software that fails its trial does not stay",
    "rejected": "1: a good update is taken",
    "data-lost": "2: nothing of the user's is lost",
    "data-read": "2: nobody but the terminal can read the user's data",
    "data-left": "2: nothing of the user's is left with the server",
    "unaudited": "2: what was done to the user's data is in the audit",
    "forged": "3: nothing forged and nothing old runs",
    "executed-or-programmed-wrongly": "4: the NOR is used as its data sheet says",
    "server-lies": "5: the server's word is true",
}


class Violation(UnbrickError):  # noqa: N818 - it is a finding before it is an error
    """An invariant does not hold.

    Attributes:
        kind: one of :data:`INVARIANTS`.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
