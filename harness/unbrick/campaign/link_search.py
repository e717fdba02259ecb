"""Tries targets over bad links, with power cuts on the way."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from unbrick.campaign.case import CaseId
from unbrick.campaign.search import Case, SearchResult, find_successors
from unbrick.campaign.target import Fate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

    from unbrick.campaign.target import Run, State, Target

MOST_CUTS = 2  # power cuts at most in a case over a bad link


def try_links(
    target: Target,
    executor: Executor,
    numbers: Iterable[int],
    run: Run,
) -> SearchResult:
    """Run a target over each of the bad links, with up to two power cuts on the way.

    Args:
        target: what to run.
        executor: where.
        numbers: of the links.
        run: runs one of its sessions there.
    """
    result, start = SearchResult(target), target.start()
    submitted = [executor.submit(_try_link, target.name, run, start, number) for number in numbers]
    for future in submitted:
        result.cases += future.result()
    result.states = result.met = result.transitions = len(result.cases)
    result.cut_short = "links are tried by number, not to the end"
    return result


def _try_link(name: str, run: Run, state: State, number: int) -> list[Case]:
    rng = random.Random(f"cuts {number}")
    case_id, cases = CaseId(name, link=number), []
    for session in range(rng.randint(0, MOST_CUTS) + 1):
        outcome = run(state, Fate(case_id.resolution, (number, session)))
        cases.append(Case.of(case_id, outcome))
        if outcome.violation or not outcome.ops:
            break
        case_id, state = rng.choice(list(find_successors(case_id, state, outcome)))
    return cases
