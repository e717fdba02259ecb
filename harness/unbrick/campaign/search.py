"""The search: every power cut and torn operation, after it every one of the recovery, to the end.

A state is what outlives a power cut: the cells of the NOR and what the server remembers. From each
state a session is run once (once for each way in which weak cells may read). Its trace gives every
state in which a cut can leave it, without running them: cells before operation k are the cells at
the beginning after k operations. New states are kept once, by their canonical key, and searched in
their turn, until there are none. Then the statement holds for any number of power cuts in any
order.

Where the scenario says that the server is mortal, each state in which it changes its mind also
gives sessions in which it dies there, and goes on from its records, while the terminal keeps its
power: at once, before and after it has told what it has in mind, or late. What losses of power lead
to in these is searched, too, but for those with a late return.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from unbrick.board import BOARD
from unbrick.campaign.case import CaseId, Death, Step
from unbrick.campaign.session import State
from unbrick.errors import SetupError
from unbrick.nor.cells import RESOLUTIONS
from unbrick.nor.torn import tear, variants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from unbrick.campaign.scenario import Scenario
    from unbrick.campaign.session import Outcome
    from unbrick.nor.ops import FlashOp


@dataclass(frozen=True)
class Bounds:
    """How far a search goes; ``None`` is without bound.

    Attributes:
        depth: losses of power in a row.
        torn: whether operations are torn, or only not begun.
        states: stop after so many.
        stop_early: end with the first violation.
        exact: every difference in a cell makes another state: nothing is taken for granted of what
            the firmware can tell apart (``unbrick.campaign.canonical``).
        partition: only power that is lost at operations on this partition; ``None``: on all.
        deaths: so many deaths of a mortal server at most, all in the session without other faults
            and spread over it; ``None``: one for each different state.
    """

    depth: int | None = None
    torn: bool = True
    states: int | None = None
    stop_early: bool = False
    exact: bool = False
    partition: str | None = None
    deaths: int | None = None

    def admit(self, step: Step, ops: Sequence[FlashOp]) -> bool:
        """Whether a loss of power at ``step`` of a session with ``ops`` is within the bounds."""
        if self.partition is None:
            return True
        part = BOARD.partition(self.partition)
        inside = step.op < len(ops) and (step.change is None or step.torn)
        at = ops[step.op].offset if inside else -1
        return part.offset <= at < part.end


@dataclass
class Case:
    """One session that was run, and what came of it."""

    id: CaseId
    outcome: Outcome
    successors: int = 0

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
        images: the software of the scenario, by digest.
    """

    scenario: Scenario
    cases: list[Case] = field(default_factory=list)
    states: int = 0
    transitions: int = 0
    closed: bool = False
    cut_short: str = ""
    images: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)

    def key(self, state: State) -> object:
        """States with the same key count as one."""
        return state.key(self.images)

    @property
    def deaths(self) -> int:
        """Sessions in which the server died."""
        return sum(case.id.death is not None for case in self.cases)

    @property
    def violations(self) -> list[Case]:
        """The cases in which an invariant does not hold, those with fewest faults first."""
        bad = [case for case in self.cases if case.outcome.violation]
        return sorted(bad, key=lambda case: case.depth)

    @property
    def statement(self) -> str:
        """The verdict in one sentence."""
        counted = f"{self.states} states, {self.transitions} transitions"
        if self.deaths:
            counted += f", {self.deaths} deaths of the server"
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
    before = cells = state.cells
    marks = deque(enumerate(outcome.marks))
    server = outcome.marks[0].server
    for index in range(len(outcome.ops) + 1):
        while marks and marks[0][1].ops <= index:
            number, mark = marks.popleft()
            server = mark.server
            begun = outcome.ops[index - 1] if index else None
            if torn and begun is not None and mark.time < begun.end:
                for variant in variants(begun):
                    step = Step(index - 1, variant, change=number)
                    yield case.then(step), State(tear(before, begun, variant), server)
            yield case.then(Step(index, change=number)), State(cells, server)
        yield case.then(Step(index)), State(cells, server)
        if index == len(outcome.ops):
            return
        op = outcome.ops[index]
        if torn:
            for variant in variants(op):
                yield case.then(Step(index, variant)), State(tear(cells, op, variant), server)
        before, cells = cells, cells.after([op])


def after_loss(case: CaseId, step: Step, state: State, outcome: Outcome) -> State:
    """The state in which ``step`` leaves a session.

    Raises:
        SetupError: the session has no such operation or change of mind.
    """
    wanted = replace(step, resolution=0, death=None)
    for found, successor in losses(case, state, outcome, torn=True):
        if found.steps[-1] == wanted:
            return successor
    raise SetupError(
        f"the session {case} has no step {step}",
        hint="the firmware or the scenario is another one than when the case was found",
    )


def follow(
    case: CaseId, start: State, run: Callable[[State, int, Death | None], Outcome]
) -> Iterator[tuple[CaseId, State, Outcome]]:
    """Run every session that leads to a case, and the case itself.

    Args:
        case: where to.
        start: where its scenario begins.
        run: runs a session: its state, how weak cells read, and the death of the server in it.

    Yields:
        The session's case ID, the state it begins with, and its outcome.

    Raises:
        SetupError: the case does not exist.
    """
    state, so_far = start, replace(case, steps=())
    for step in case.steps:
        outcome = run(state, so_far.resolution, so_far.death)
        yield so_far, state, outcome
        state = after_loss(so_far, step, state, outcome)
        so_far = so_far.then(step)
    yield so_far, state, run(state, so_far.resolution, so_far.death)


class Search:
    """A search under way.

    The result does not depend on the executor or on the number of its workers: outcomes are taken
    in the order of the search.

    Args:
        scenario: what to search.
        start: where it begins.
        run: runs a session (``campaign.session.run_session`` without engine and releases); must be
            picklable for the executor.
        executor: anything that offers ``concurrent.futures.Executor``.
        bounds: how far to go.
        workers: how many sessions to keep under way.
        images: the software of the scenario, by digest.
    """

    def __init__(
        self,
        scenario: Scenario,
        start: State,
        run: Callable[..., Outcome],
        executor: Executor,
        bounds: Bounds = Bounds(),
        *,
        workers: int = 2,
        images: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.result = Result(scenario, states=1, images=images or {})
        self._run, self._executor, self._bounds = run, executor, bounds
        self._ahead = 2 * workers
        self._known = {self.result.key(start)}
        self._fatal: set[object] = set()
        self._data: dict[bytes, bytes] = {}
        self._queue: deque[tuple[CaseId, State]] = deque([(CaseId(scenario.name), start)])
        self._running: deque[tuple[CaseId, State, Future[Outcome]]] = deque()

    @property
    def waiting(self) -> int:
        """Cases that are known and not run yet."""
        return len(self._queue) + len(self._running)

    def cases(self) -> Iterator[Case]:
        """Run case after case until none is left or a bound is met; may be closed at any time."""
        try:
            while self.waiting:
                case, state = self._next()
                self.result.cases.append(case)
                if case.outcome.violation and self._bounds.stop_early:
                    self.result.cut_short = "it was to end with the first violation"
                    yield case
                    return
                if self.result.scenario.mortal and not case.outcome.violation:
                    self._let_die(case, state)
                if self._goes_on(case):
                    self._follow(case, state)
                yield case
            if self._bounds.depth is not None and not self.result.cut_short:
                self.result.cut_short = f"it was to go {self._bounds.depth} losses of power deep"
            if self._bounds.partition is not None and not self.result.cut_short:
                self.result.cut_short = f"it was to keep to the partition {self._bounds.partition}"
            self.result.closed = not self.result.cut_short
        finally:
            for *_, future in self._running:
                future.cancel()

    def _next(self) -> tuple[Case, State]:
        while self._queue and len(self._running) < self._ahead:
            case_id, state = self._queue.popleft()
            session = self.result.scenario, state, case_id.resolution
            death = () if case_id.death is None else (None, case_id.death)
            future = self._executor.submit(self._run, *session, *death)
            self._running.append((case_id, state, future))
        case_id, state, future = self._running.popleft()
        return Case(case_id, self._light(future.result())), state

    def _light(self, outcome: Outcome) -> Outcome:
        """An outcome without what nobody asks for, and with what it shares with others once:
        thousands of them are kept.
        """
        data = self._data
        ops = [replace(op, data=data.setdefault(op.data, op.data)) for op in outcome.ops]
        console = outcome.console if outcome.violation else ""
        return replace(outcome, ops=ops, console=console, final=None)

    def _goes_on(self, case: Case) -> bool:
        late = case.id.death is not None and case.id.death.when == "late"
        return not case.outcome.violation and case.depth != self._bounds.depth and not late

    def _follow(self, case: Case, state: State) -> None:
        """Note every new state that a loss of power in this session leads to."""
        result = self.result
        for next_id, successor in losses(case.id, state, case.outcome, torn=self._bounds.torn):
            if not self._bounds.admit(next_id.steps[-1], case.outcome.ops):
                continue
            result.transitions += 1
            case.successors += 1
            key = successor.exact_key if self._bounds.exact else result.key(successor)
            if key in self._known:
                continue
            if self._bounds.states is not None and result.states >= self._bounds.states:
                result.cut_short = f"it was to end after {self._bounds.states} states"
                continue
            self._known.add(key)
            result.states += 1
            self._queue.extend(readings(next_id, successor))

    def _let_die(self, case: Case, state: State) -> None:
        """Have the server die at its changes of mind, but once only in states that count as one.

        In every way in the session without other faults; in others before it tells, and once in
        eight in every way.
        """
        most, golden = self._bounds.deaths, not case.id.steps
        if case.id.death is not None or (most is not None and not golden):
            return
        apart = 1 if most is None else max(1, (len(case.outcome.marks) - 1) // max(1, most))
        for found, successor in losses(case.id, state, case.outcome, torn=False):
            change = found.steps[-1].change
            if not change or change % apart or len(self._fatal) == most:
                continue
            key = self.result.key(successor)
            if key not in self._fatal:
                self._fatal.add(key)
                ways = ("", "said", "late") if golden or len(self._fatal) % 8 == 0 else ("",)
                self._queue.extend((case.id.with_death(Death(change, way)), state) for way in ways)


def readings(case_id: CaseId, state: State) -> Iterator[tuple[CaseId, State]]:
    """The sessions of a state: one for each way in which its weak cells may read."""
    *before, last = case_id.steps
    for resolution in range(RESOLUTIONS if state.cells.weak else 1):
        step = replace(last, resolution=resolution)
        yield replace(case_id, steps=(*before, step)), state


def search(
    scenario: Scenario,
    start: State,
    run: Callable[..., Outcome],
    executor: Executor,
    bounds: Bounds = Bounds(),
    *,
    workers: int = 2,
    progress: Callable[[Result, int], None] | None = None,
    images: Mapping[bytes, bytes] | None = None,
) -> Result:
    """Carry out a search to its end.

    Args:
        scenario: what to search; the other arguments as for :class:`Search`.
        start: where it begins.
        run: runs a session.
        executor: where.
        bounds: how far to go.
        workers: how many sessions to keep under way.
        progress: called after each case with the result so far and the number of cases that wait.
        images: the software of the scenario, by digest.

    Returns:
        The result, also when it was interrupted (KeyboardInterrupt).
    """
    under_way = Search(scenario, start, run, executor, bounds, workers=workers, images=images)
    try:
        for _ in under_way.cases():
            if progress:
                progress(under_way.result, under_way.waiting)
    except KeyboardInterrupt:
        under_way.result.cut_short = "it was interrupted"
    return under_way.result


def minimise(case: CaseId, fails: Callable[[CaseId], bool]) -> CaseId:
    """The case with the fewest faults that still fails, as far as leaving out and plainer go.

    Args:
        case: one that fails.
        fails: whether a case fails; False also when it does not exist.
    """
    while True:
        plainer = next((other for other in _plainer(case) if fails(other)), None)
        if plainer is None:
            return case
        case = plainer


def _plainer(case: CaseId) -> Iterator[CaseId]:
    """Cases with one fault less, or with one that is easier to understand."""
    if case.link is not None:
        yield replace(case, link=None)
    if case.first_death is not None:
        yield replace(case, first_death=None)
    for i, step in enumerate(case.steps):
        yield replace(case, steps=case.steps[:i] + case.steps[i + 1 :])
        for other in (
            replace(step, resolution=0),
            replace(step, torn=""),
            replace(step, death=None),
        ):
            if other != step:
                yield replace(case, steps=(*case.steps[:i], other, *case.steps[i + 1 :]))
