"""What a terminal is offered: compares what it runs with what is published (row B2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from unbrick.center.call import Need, Situation
from unbrick.server.records import Image, Terminal, Update
from unbrick.wire.messages import TerminalState


def situation(
    terminal: Terminal | None, images: Iterable[Image], updates: Iterable[Update]
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
    if terminal.state is not TerminalState.APPLICATION:
        why = "it has no software that may run and waits to be restored"
        return Situation(Need.UNNECESSARY, terminal.version, why=why)
    fitting = [
        image
        for image in images
        if image.hardware_id == terminal.hardware_id
        and image.security_counter >= terminal.security_counter
    ]
    latest = max(fitting, key=lambda image: _order(image.version), default=None)
    if latest is None:
        return Situation(Need.UNNECESSARY, terminal.version, why="nothing is published for it")
    if _order(latest.version) <= _order(terminal.version) or latest.digest == terminal.digest:
        return Situation(Need.UNNECESSARY, terminal.version, why="it runs the latest release")
    why = f"{latest.version} is the latest release for {terminal.hardware_id}"
    return Situation(Need.NEEDED, terminal.version, latest.version, why)


def _order(version: str) -> tuple[int, ...]:
    """``1.10.0+2`` as 1, 10, 0, 2."""
    return tuple(int(number) for number in re.findall(r"[0-9]{1,10}", version))
