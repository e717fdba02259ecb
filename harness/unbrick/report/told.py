"""Plays violations again, for a picture of each: the run that ends well, and the run that does not.

They part at the last power cut. The run that ends well is the session in which it comes, as it goes
on when the power stays.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from unbrick.campaign.replay import list_events, replay
from unbrick.report.model import GoldenOp, ToldCase, ToldSession

if TYPE_CHECKING:
    from unbrick.campaign.search import Case, SearchResult
    from unbrick.campaign.target import ReplayedSession, Target

MOST_TOLD = 3
"""Violations of a search that are told: of each kind the one with fewest faults."""

MOST_LINES = 14
"""Lines of a session that are kept: its last ones."""

_SAID = ("power", "uart0", "server")
"""Whose lines these are. Flash operations are in the picture, and frames say little to people."""

_BYTES = re.compile(r"(typed: )?\d+ bytes, ")
"""A line that is no text: the bytes of a file."""


def tell_violations(result: SearchResult) -> tuple[ToldCase, ...]:
    """The first violation of each kind that a search has found, played again.

    Raises:
        SetupError: one does not happen again.
        ToolBrokenError: the flash is not what the trace says.
    """
    if not result.violations:
        return ()
    told, target = [], result.target
    kinds: dict[str, Case] = {}
    for case in result.violations:
        kinds.setdefault(case.outcome.violation[0] if case.outcome.violation else "", case)
    chosen = list(kinds.values())[:MOST_TOLD]
    with closing(target.create_engine()) as engine:
        for case in chosen:
            *before, bad = replay(target, engine, case.id)
            well = _tell(before[-1], target) if before else None
            told.append(ToldCase(str(case.id), well, _tell(bad, target)))
    return tuple(told)


def _tell(session: ReplayedSession, target: Target) -> ToldSession:
    outcome, cut = session.outcome, session.cut
    whole = replace(session, cut=None)
    events = [
        event
        for event in list_events(whole, target)
        if event.source in _SAID and not _BYTES.match(event.text)
    ]
    return ToldSession(
        case=str(session.case),
        ops=tuple(GoldenOp(op.kind, op.offset, op.length, op.start, op.end) for op in outcome.ops),
        cut=None if cut is None else cut.op,
        torn="" if cut is None else cut.torn,
        kind=(outcome.violation or ("", ""))[0],
        said=tuple((event.time, event.text) for event in events[-MOST_LINES:]),
    )
