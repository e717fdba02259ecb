"""What a terminal is offered: the server's judgment of its software (row B2), and what goes on."""

from __future__ import annotations

from collections.abc import Iterable

from unbrick.center.call import Need, Situation
from unbrick.server.analysis import judge
from unbrick.server.records import Image, Terminal, Update
from unbrick.server.user_records import Verdict


def situation(
    terminal: Terminal | None, images: list[Image], updates: Iterable[Update]
) -> Situation:
    """How it is with a terminal.

    Args:
        terminal: as it registered last.
        images: everything that is published.
        updates: those of this terminal; what has ended is passed over.
    """
    if terminal is None:
        return Situation(Need.UNKNOWN, why="it has never registered")
    for update in updates:
        if not update.state.ended:
            why = f"update {update.id} is {update.state.value}"
            return Situation(Need.UNDER_WAY, terminal.version, update.version, why)
    found = judge(terminal, images)
    if found.verdict is Verdict.UPGRADE and found.latest is not None:
        return Situation(Need.NEEDED, terminal.version, found.latest.version, found.reason)
    return Situation(Need.UNNECESSARY, terminal.version, why=found.reason)
