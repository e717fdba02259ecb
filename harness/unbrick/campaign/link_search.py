"""Tries scenarios over bad links, with losses of power on the way."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from unbrick.campaign.case import CaseId
from unbrick.campaign.search import Case, Result, losses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from unbrick.campaign.scenario import Scenario
    from unbrick.campaign.session import Outcome, State

GIVE_UP = 2  # losses of power at most in a case over a bad link


def try_links(
    scenario: Scenario,
    start: State,
    run: Callable[[Scenario, State, int, tuple[int, int]], Outcome],
    executor: Executor,
    numbers: Iterable[int],
) -> Result:
    """Run a scenario over each of the bad links, with up to two losses of power on the way.

    Args:
        scenario: what to run.
        start: where it begins.
        run: runs a session, with the link's number and the session's.
        executor: where.
        numbers: of the links.
    """
    result = Result(scenario)
    submitted = [
        (number, executor.submit(_one_link, scenario, start, run, number)) for number in numbers
    ]
    for _, future in submitted:
        result.cases += future.result()
    result.states = result.transitions = len(result.cases)
    result.cut_short = "links are tried by number, not to the end"
    return result


def _one_link(
    scenario: Scenario,
    state: State,
    run: Callable[[Scenario, State, int, tuple[int, int]], Outcome],
    number: int,
) -> list[Case]:
    rng = random.Random(f"cuts {number}")
    case_id, cases = CaseId(scenario.name, link=number), []
    for session in range(rng.randint(0, GIVE_UP) + 1):
        case = Case(case_id, run(scenario, state, case_id.resolution, (number, session)))
        cases.append(case)
        if case.outcome.violation or not case.outcome.ops:
            break
        ways = list(losses(case_id, state, case.outcome, torn=True))
        case_id, state = rng.choice(ways)
    return cases
