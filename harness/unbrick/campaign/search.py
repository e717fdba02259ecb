"""The search: every power cut and torn operation, after it every one of the recovery, to the end.

A state is what outlives a power cut: the cells of the NOR and what the server remembers. From each
state a session is run once (once for each way in which weak cells may read). Its trace gives every
state in which a cut can leave it, without running them: cells before operation k are the cells at
the beginning after k operations. New states are kept once, by their canonical key, and searched in
their turn, until there are none. Then the statement holds for any number of power cuts in any order.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from unbrick.campaign.case import CaseId, Step
from unbrick.campaign.session import State
from unbrick.errors import SetupError
from unbrick.nor.cells import RESOLUTIONS
from unbrick.nor.torn import tear, variants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future

    from unbrick.campaign.scenario import Scenario
    from unbrick.campaign.session import Outcome


@dataclass(frozen=True)
class Bounds:
    """How far a search goes; ``None`` is without bound.

    Attributes:
        depth: losses of power in a row.
        torn: whether operations are torn, or only not begun.
        states: stop after so many.
        stop_early: end with the first violation.
    """

    depth: int | None = None
    torn: bool = True
    states: int | None = None
    stop_early: bool = False


@dataclass
class Case:
    """One session that was run, and what came of it."""

    id: CaseId
    outcome: Outcome
    successors: int = 0
    settled: bool = False

    @property
    def depth(self) -> int:
        """Losses of power before it."""
        return len(self.id.steps)


@dataclass
class Result:
    """What a search has found.

    Attributes:
        scenario: what was searched.
        cases: the sessions, in the order of the search.
        states: how many states there are.
        transitions: losses of power that lead from one state to another, repetitions included.
        closed: whether no new state was left.
        cut_short: why it ended before that; empty when it did not.
    """

    scenario: Scenario
    cases: list[Case] = field(default_factory=list)
    states: int = 0
    transitions: int = 0
    closed: bool = False
    cut_short: str = ""

    @property
    def violations(self) -> list[Case]:
        """The cases in which an invariant does not hold, those with fewest faults first."""
        bad = [case for case in self.cases if case.outcome.violation]
        return sorted(bad, key=lambda case: case.depth)

    @property
    def statement(self) -> str:
        """The verdict in one sentence."""
        counted = f"{self.states} states, {self.transitions} transitions"
        if self.violations:
            worst = self.violations[0]
            kind, text = worst.outcome.violation or ("", "")
            return f"{counted}: {len(self.violations)} violations; {worst.id} is {kind}: {text}"
        if self.closed:
            return f"{counted}, closed: no number of power cuts in any order bricks this terminal"
        return f"{counted}, not closed: {self.cut_short}"


def losses(
    case: CaseId, state: State, outcome: Outcome, *, torn: bool
) -> Iterator[tuple[CaseId, State]]:
    """Every state in which a loss of power can leave a session, with the case that it begins.

    The new case's weak cells read in way 0; the search adds the other ways.
    """
    cells = state.cells
    marks = deque(enumerate(outcome.marks))
    server = outcome.marks[0].server
    for index in range(len(outcome.ops) + 1):
        while marks and marks[0][1].ops <= index:
            number, mark = marks.popleft()
            server = mark.server
            yield case.then(Step(index, change=number)), State(cells, server)
        yield case.then(Step(index)), State(cells, server)
        if index == len(outcome.ops):
            return
        op = outcome.ops[index]
        if torn:
            for variant in variants(op):
                yield case.then(Step(index, variant)), State(tear(cells, op, variant), server)
        cells = cells.after([op])


def after_loss(case: CaseId, step: Step, state: State, outcome: Outcome) -> State:
    """The state in which ``step`` leaves a session.

    Raises:
        SetupError: the session has no such operation or change of mind.
    """
    wanted = replace(step, resolution=0)
    for found, successor in losses(case, state, outcome, torn=True):
        if found.steps[-1] == wanted:
            return successor
    raise SetupError(
        f"the session {case} has no step {step}",
        hint="the firmware or the scenario is another one than when the case was found",
    )


def follow(
    case: CaseId, start: State, run: Callable[[State, int], Outcome]
) -> Iterator[tuple[CaseId, State, Outcome]]:
    """Run every session that leads to a case, and the case itself.

    Yields:
        The session's case ID, the state it begins with, and its outcome.

    Raises:
        SetupError: the case does not exist.
    """
    state, resolution, so_far = start, 0, CaseId(case.scenario)
    for step in case.steps:
        outcome = run(state, resolution)
        yield so_far, state, outcome
        state = after_loss(so_far, step, state, outcome)
        so_far, resolution = so_far.then(step), step.resolution
    yield so_far, state, run(state, resolution)


def search(
    scenario: Scenario,
    start: State,
    run: Callable[[Scenario, State, int], Outcome],
    executor: Executor,
    bounds: Bounds = Bounds(),
    *,
    workers: int = 2,
    progress: Callable[[Result, int], None] | None = None,
) -> Result:
    """Search a scenario.

    The result does not depend on the executor or on the number of its workers: outcomes are taken in
    the order of the search.

    Args:
        scenario: what to search.
        start: where it begins.
        run: runs a session; must be picklable for the executor.
        executor: anything that offers ``concurrent.futures.Executor``.
        bounds: how far to go.
        workers: how many sessions to keep under way.
        progress: called after each case with the result so far and the number of cases that wait.

    Returns:
        The result so far also when it was interrupted (KeyboardInterrupt).
    """
    result = Result(scenario)
    known = {start.key}
    queue: deque[tuple[CaseId, State, bool]] = deque([(CaseId(scenario.name), start, False)])
    running: deque[tuple[CaseId, State, bool, Future[Outcome]]] = deque()
    result.states = 1
    try:
        while queue or running:
            while queue and len(running) < 2 * workers:
                case_id, state, settled = queue.popleft()
                resolution = case_id.steps[-1].resolution if case_id.steps else 0
                future = executor.submit(run, scenario, state, resolution)
                running.append((case_id, state, settled, future))
            wait([running[0][3]], return_when=FIRST_COMPLETED)
            case_id, state, settled, future = running.popleft()
            case = Case(case_id, future.result(), settled=settled)
            result.cases.append(case)
            if case.outcome.violation:
                if bounds.stop_early:
                    result.cut_short = "it was to end with the first violation"
                    break
            elif bounds.depth is None or case.depth < bounds.depth:
                for next_id, successor in losses(case_id, state, case.outcome, torn=bounds.torn):
                    result.transitions += 1
                    case.successors += 1
                    key = successor.key
                    if key in known:
                        continue
                    if bounds.states is not None and result.states >= bounds.states:
                        result.cut_short = f"it was to end after {bounds.states} states"
                        continue
                    known.add(key)
                    result.states += 1
                    queue.extend(_readings(next_id, successor))
            if progress:
                progress(result, len(queue) + len(running))
        else:
            result.closed = not result.cut_short and bounds.depth is None
            if bounds.depth is not None and not result.cut_short:
                result.cut_short = f"it was to go {bounds.depth} losses of power deep"
    except KeyboardInterrupt:
        result.cut_short = "it was interrupted"
    for *_, future in running:
        future.cancel()
    return result


def _readings(case_id: CaseId, state: State) -> Iterator[tuple[CaseId, State, bool]]:
    """The sessions of a state: one for each way in which its weak cells may read."""
    *before, last = case_id.steps
    for resolution in range(RESOLUTIONS if state.cells.weak else 1):
        step = Step(last.op, last.torn, last.change, resolution)
        yield CaseId(case_id.scenario, (*before, step)), state, False
