"""Tries to refute a search by relevance: states that it has judged without a session are run.

Random power cuts lead to them, from the start and on from each other. Each is run as it is, in an
engine of its own, so that it joins no other session. It must do what the search has said.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from unbrick.campaign.case import CaseId
from unbrick.campaign.search import find_cells, find_cuts
from unbrick.campaign.target import Fate, State
from unbrick.errors import SetupError, ToolBrokenError
from unbrick.flash.cells import RESOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from unbrick.campaign.behaviour import BehaviourSearch
    from unbrick.campaign.search import Bounds
    from unbrick.campaign.target import Outcome
    from unbrick.engine.base import TracedEngine
    from unbrick.flash.ops import FlashOp

MOST_CUTS = 6
"""Power cuts in a row, at most, that lead to a state; a search may be less deep."""


@dataclass
class Tried:
    """What came of it.

    Attributes:
        states: that were run.
        unrun: those of them for which the search had run no session.
        case: the first that does otherwise; None: none does.
        difference: in what.
    """

    states: int = 0
    unrun: int = 0
    case: CaseId | None = None
    difference: str = ""


def find_difference(said: Outcome, outcome: Outcome, leave_out: str = "") -> str:
    """In which part a session is another than it was said to be; empty: in none."""
    names = ["violation", "ops", "console", "downtime", "virtual", "marks", "relevant"]
    others = (name for name in names if getattr(said, name) != getattr(outcome, name))
    return next((name for name in others if name != leave_out), "")


def list_places(ops: Sequence[FlashOp]) -> list[tuple[str, int, int]]:
    """Kind, offset and length of each operation, which say what cuts there are."""
    return [(op.kind, op.offset, op.length) for op in ops]


def find_other_form(said: Outcome, outcome: Outcome) -> str:
    """In what a session breaks the word of a form; empty: in nothing.

    What counts as one has the same verdict and the same cuts. Its data may differ.
    """
    kinds = [one.violation and one.violation[0] for one in (said, outcome)]
    if kinds[0] != kinds[1]:
        return "violation"
    return "" if list_places(said.ops) == list_places(outcome.ops) else "ops"


def try_states(
    search: BehaviourSearch,
    dice: Random,
    count: int,
    most_cuts: int = MOST_CUTS,
    find: Callable[[Outcome, Outcome], str] = find_difference,
    step: Callable[[int], object] = int,
) -> Tried:
    """Run random states to which power cuts lead, each in a random way of reading weak cells.

    Args:
        search: that has ended, and has kept its traces.
        dice: chooses the cuts.
        count: so many states.
        most_cuts: in a row.
        find: says in what a session is another than it was said to be.
        step: is told before each state how many are left.
    """
    tried, run = Tried(), {case.id for case in search.result.cases}
    with search.result.target.create_engine() as engine:
        while tried.states < count and not tried.case:
            for case, said, outcome in _walk(search, engine, dice, most_cuts):
                step(count - tried.states)
                tried.states += 1
                tried.unrun += case not in run
                tried.difference = find(said, outcome) if said else "nobody has judged it"
                if tried.difference:
                    tried.case = case
                if tried.difference or tried.states == count:
                    break
    return tried


def _walk(
    search: BehaviourSearch, engine: TracedEngine, dice: Random, most_cuts: int
) -> Iterator[tuple[CaseId, Outcome | None, Outcome]]:
    """Random cuts in a row: each case, what the search has said of it, and what it does."""
    target = search.result.target
    case, state = CaseId(target.name), target.start()
    for number in range(most_cuts + 1):
        resolution = dice.randrange(RESOLUTIONS) if state.cells.weak else 0
        case = case.with_resolution(resolution)
        behaviours = search.judge(state)
        outcome = target.run(state, Fate(resolution), engine)
        said = behaviours and behaviours[min(resolution, len(behaviours) - 1)].outcome
        yield case, said or None, outcome
        if outcome.violation or number == most_cuts:
            return
        case, state = choose_cut(search, dice, case, state, outcome)


def choose_cut(
    search: BehaviourSearch, dice: Random, case: CaseId, state: State, outcome: Outcome
) -> tuple[CaseId, State]:
    """A random power cut of a session: the case that it begins, and the state that it leaves."""
    cuts = find_cuts(case, outcome, state.cells.geometry, shapes=search.result.shapes)
    after, peers = dice.choice(list(cuts))
    return after, State(find_cells(state.cells, outcome.ops, after.cuts[-1]), peers)


def refute(
    search: BehaviourSearch, count: int, bounds: Bounds, step: Callable[[int], object]
) -> None:
    """Try so many states, and note in the result that they do as it was said.

    Args:
        search: that has come to its end, and has kept its traces.
        count: so many states.
        bounds: of the search.
        step: as for :func:`try_states`.

    Raises:
        SetupError: a state is not what the target's own form counts it as.
        ToolBrokenError: a state is not what it was judged as.
    """
    result = search.result
    most_cuts = MOST_CUTS if bounds.depth is None else min(bounds.depth, MOST_CUTS)
    find = find_other_form if result.formed else find_difference
    tried = try_states(search, Random(bounds.seed), count, most_cuts, find, step)
    result.tried, result.tried_first = tried.states, tried.unrun
    if not tried.case:
        return
    said = f"{tried.case} does otherwise than was said of it: {tried.difference}"
    if result.formed:
        raise SetupError(said, hint="what the function of [canonical] drops, the firmware reads")
    raise ToolBrokenError(said)
