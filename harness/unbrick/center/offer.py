"""What a terminal is offered: the server's judgment of its software (row B2), and what goes on."""

from __future__ import annotations

from collections.abc import Iterable

from unbrick.center.calls.machine import Need, Situation
from unbrick.server.judgment import judge
from unbrick.server.records.analysis import Verdict
from unbrick.server.records.contract import Records
from unbrick.server.records.sessions import CommandedSession
from unbrick.server.records.updates import Image, Running, Terminal, Update


def find_situation(records: Records, serial: str) -> Situation:
    """How it is with a terminal, as the database has it."""
    going = records.updates(serial), records.unfinished_sessions(serial)
    return judge_situation(records.terminal(serial), records.images(), *going)


def judge_situation(
    terminal: Terminal | Running | None,
    images: list[Image],
    updates: Iterable[Update],
    sessions: Iterable[CommandedSession],
) -> Situation:
    """How it is with a terminal.

    Args:
        terminal: as it registered last, or what it runs.
        images: everything that is published.
        updates: those of this terminal, in their order.
        sessions: those of this terminal that have not ended: its user's data is given back still.
    """
    if terminal is None:
        return Situation(Need.UNKNOWN, why="it has never registered")
    updates = list(updates)
    for update in updates:
        if not update.state.ended:
            why = f"update {update.id} is {update.state.value}"
            return Situation(Need.UNDER_WAY, terminal.version, update.version, why)
    for session in sessions:
        why = f"session {session.id} is {session.state.value}"
        return Situation(Need.UNDER_WAY, terminal.version, terminal.version, why)
    found = judge(terminal, images, updates)
    if found.verdict is Verdict.UPGRADE and found.latest is not None:
        return Situation(Need.NEEDED, terminal.version, found.latest.version, found.reason)
    return Situation(Need.UNNECESSARY, terminal.version, why=found.reason)
