"""The search: every power cut and torn operation, after it every one of the recovery, to the end.

A state is what outlives a power cut: the cells of the flash and what the peers remember. From each
state a session is run once for each way in which weak cells may read. The session's trace gives
every state in which a cut can leave it, without running them: the cells before operation k are the
cells at the beginning after k operations. A new state is kept once, by the target's key, and is
searched in its turn, until there are none. Then the statement holds for any number of power cuts in
any order.

Where the target has a mortal peer (a server), the search also has it die at its changes of mind,
while the terminal keeps its power. The peer goes on from its records: at once, before or after it
has told what it has in mind, or late. Power cuts are searched in these sessions too, except in
those with a late return.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from itertools import takewhile
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from unbrick.campaign.case import CaseId, Death, PowerCut
from unbrick.campaign.keys import LeftCells, PlainKeys, open_keys
from unbrick.campaign.target import Fate, State
from unbrick.errors import SetupError
from unbrick.flash.cells import RESOLUTIONS
from unbrick.flash.partition import find_partition
from unbrick.flash.torn import find_shapes, list_variants, strip_number, tear
from unbrick.flash.trace import list_erases

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from unbrick.campaign.target import Outcome, Run, StateKeys, Target
    from unbrick.flash.cells import Cells
    from unbrick.flash.geometry import FlashGeometry
    from unbrick.flash.ops import FlashOp
    from unbrick.flash.partition import Partition

INTERRUPTED = "it was interrupted"

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """How far a search goes; ``None`` is without bound.

    Attributes:
        depth: power cuts in a row.
        shapes: in which shapes operations are torn, one of ``unbrick.flash.torn.SHAPES``.
        states: stop after so many.
        stop_early: end with the first violation.
        exact: every difference in a cell makes another state: nothing is taken for granted of what
            the firmware can tell apart.
        partition: only power cuts at operations on this partition; ``None``: on all.
        deaths: so many deaths of a mortal peer at most, all in the session without other faults
            and spread over its stages; ``None``: one for each different state.
        seed: of the order in which the new states of a session are searched; so also of the sample
            that a bound on states or deaths leaves.
    """

    depth: int | None = None
    shapes: str = "usual"
    states: int | None = None
    stop_early: bool = False
    exact: bool = False
    partition: str | None = None
    deaths: int | None = None
    seed: int = 0

    @property
    def words(self) -> str:
        """Where a search with these bounds ends, for people; empty: nowhere."""
        if self.depth is not None:
            return f"it was to go {self.depth} power cut{'s' * (self.depth != 1)} deep"
        if self.partition is not None:
            return f"it was to keep to the partition {self.partition}"
        return ""


def is_inside(cut: PowerCut, ops: Sequence[FlashOp], part: Partition) -> bool:
    """Whether a cut comes at an operation on a partition."""
    at_operation = cut.op < len(ops) and (cut.change is None or cut.torn)
    return bool(at_operation) and part.offset <= ops[cut.op].offset < part.end


def find_kind(cut: PowerCut, ops: Sequence[FlashOp]) -> str:
    """What a cut meets: the kind of its operation and how it tears it, or a change of mind."""
    kind = ops[cut.op].kind if cut.op < len(ops) else "end"
    return f"{kind}-{strip_number(cut.torn)}{'@' * (cut.change is not None)}"


def find_place(target: Target, cut: PowerCut, ops: Sequence[FlashOp], state: State) -> str:
    """Where a cut comes: the partition of its operation, and the stage that the peers are in."""
    offset = ops[cut.op].offset if cut.op < len(ops) else -1
    inside = (part.name for part in target.partitions if part.offset <= offset < part.end)
    return f"{next(inside, '')} {target.name_stage(state)}"


def spread(groups: Iterable[Sequence[T]], seed: int) -> list[T]:
    """All items, in an order of which each beginning covers all groups and each whole group.

    The groups take turns. Within one, the first item comes first, for what happens for the first
    time is worth a look; the others follow in the order of their bits reversed (van der Corput),
    turned by ``seed``.
    """
    turn = Random(seed)
    placed: list[tuple[int, int, T]] = []
    for number, group in enumerate(groups):
        first, rest = group[:1], group[1:]
        at = turn.randrange(len(rest)) if rest and seed else 0
        order = [0]
        while len(order) < len(rest):
            order = [2 * at for at in order] + [2 * at + 1 for at in order]
        order = [at for at in order if at < len(rest)]
        turned = (rest[(index + at) % len(rest)] for index in order)
        placed += ((place, number, item) for place, item in enumerate((*first, *turned)))
    return [item for *_, item in sorted(placed, key=lambda one: one[:2])]


def spread_cuts(found: Iterable[tuple[str, str, T]], seed: int) -> list[T]:
    """All cuts, in an order of which each beginning covers the places, the kinds and the session.

    The places take turns, and the kinds in each. Each place begins with another kind, so that a few
    turns have met all kinds.

    Args:
        found: for each cut, in the order of the session: its place, its kind, and what is returned.
        seed: as for :func:`spread`.
    """
    places: dict[str, dict[str, list[T]]] = {}
    for place, kind, cut in found:
        places.setdefault(place, {}).setdefault(kind, []).append(cut)
    turns: list[tuple[int, int, T]] = []
    for number, kinds in enumerate(places.values()):
        turned = deque(kinds.values())
        turned.rotate(-number)
        turns += ((turn, number, cut) for turn, cut in enumerate(spread(turned, seed)))
    return [cut for *_, cut in sorted(turns, key=lambda one: one[:2])]


@dataclass
class Case:
    """One session that was run, and what came of it.

    Attributes:
        id: names it.
        outcome: what came of it. A search gives up the trace of a session that it is done with,
            for it runs thousands of them.
        op_count: flash operations in the session.
        erases: offset of each block that was erased, and how often.
        successors: power cuts that were followed from it.
        judged: power cuts that lead to the session, or to one for which it stands.
        after: the session in which one of these comes, where it was met first, or the one that is
            like it but for a peer's death; None: nothing comes before.
        first_op: the first operation of ``after`` at which a power cut leads here; None: none does.
    """

    id: CaseId
    outcome: Outcome
    op_count: int = 0
    erases: Mapping[int, int] = field(default_factory=dict)
    successors: int = 0
    judged: int = 0
    after: CaseId | None = None
    first_op: int | None = None

    @classmethod
    def of(cls, case_id: CaseId, outcome: Outcome) -> Case:
        """The case of a session."""
        erases = Counter(op.offset for _, op in list_erases(outcome.ops))
        first_op = case_id.cuts[-1].op if case_id.cuts and case_id.death is None else None
        return cls(
            case_id,
            outcome,
            len(outcome.ops),
            erases,
            after=case_id.before,
            first_op=first_op,
        )

    @property
    def depth(self) -> int:
        """Power cuts before it."""
        return len(self.id.cuts)


@dataclass
class SearchResult:
    """What a search has found.

    Attributes:
        target: what was searched.
        cases: the sessions, in the order of the search.
        states: how many states were searched.
        met: how many different states were met; those beyond a bound are not searched.
        transitions: power cuts that lead from one state to another, repetitions included.
        closed: whether no new state was left.
        cut_short: why it ended before that; empty when it did not.
        different: states that were met, with each difference in a cell; 0: they were not counted.
        vouched: so many of these were started, in every way of reading their weak cells.
        confirmed: so many more hold the same wherever a session that was started has read. For the
            others the target's key vouches.
        missed: cases that begin with states which only these have shown: a state before counted as
            known, and was not. They were searched, too.
        differed: cases that have another verdict than what they count as.
        shapes: in which shapes operations were torn.
        by_reading: whether a session stands for all that read the same
            (``unbrick.campaign.behaviour``), and not the target's key.
        formed: whether states that the target's own form counts as one were taken for one.
        tried: so many random states, most of which were judged without a session, were run as they
            are when the search had ended, and did as it was said.
        tried_first: so many of these had not been run.
        first_cuts: where a session stands for others, of each power cut in the session without
            faults, by its operation and how that is torn: the cases that stand for what it leaves,
            one for each way of reading weak cells.
    """

    target: Target
    cases: list[Case] = field(default_factory=list)
    states: int = 0
    met: int = 0
    transitions: int = 0
    closed: bool = False
    cut_short: str = ""
    different: int = 0
    vouched: int = 0
    confirmed: int = 0
    missed: list[CaseId] = field(default_factory=list)
    differed: list[CaseId] = field(default_factory=list)
    shapes: str = "usual"
    by_reading: bool = False
    formed: bool = False
    tried: int = 0
    tried_first: int = 0
    first_cuts: dict[int, dict[str, list[Case]]] = field(default_factory=dict)

    @property
    def deaths(self) -> int:
        """Sessions in which a peer died."""
        return sum(case.id.death is not None for case in self.cases)

    @property
    def vouching(self) -> str:
        """How many states that differ in any cell the target's key need not vouch for."""
        sure = self.vouched + self.confirmed
        said = "all" if sure == self.different else f"{sure} of"
        said += f" {self.different} that differ in any cell were started"
        if self.confirmed:
            said += f", or hold the same where one that was has read ({self.confirmed})"
        return said

    @property
    def violations(self) -> list[Case]:
        """The cases in which an invariant does not hold, those with fewest faults first."""
        bad = [case for case in self.cases if case.outcome.violation]
        return sorted(bad, key=lambda case: case.depth)

    @property
    def statement(self) -> str:
        """The verdict in one sentence."""
        share = f" of {self.met}" if self.met > self.states else ""
        counted = f"{self.states}{share} states, {self.transitions} transitions"
        if self.by_reading:
            counted += f", judged by what {len(self.cases)} sessions read"
        if self.formed:
            counted += ", as the target's own form counts states"
        if self.tried:
            counted += f", held against {self.tried} random states that were run as they are"
            counted += f" ({self.tried_first} of them for the first time)"
        if self.deaths:
            counted += f", {self.deaths} deaths of the server"
        if self.different:
            counted += f", {self.vouching}"
        if self.missed:
            counted += f", {len(self.missed)} of the states were met only so"
        if self.violations:
            worst = self.violations[0]
            kind, text = worst.outcome.violation or ("", "")
            return f"{counted}: {len(self.violations)} violations; {worst.id} is {kind}: {text}"
        if self.closed:
            return f"{counted}, closed: no number of power cuts in any order bricks this terminal"
        return f"{counted}, not closed: {self.cut_short}"


def find_successors(
    case: CaseId, state: State, outcome: Outcome, *, shapes: str = "usual"
) -> Iterator[tuple[CaseId, State]]:
    """Every state in which a power cut can leave a session, with the case that it begins.

    The new case's weak cells read in way 0; the search adds the other ways.

    Args:
        case: the session's.
        state: where it begins.
        outcome: what it came to.
        shapes: in which shapes operations are torn, one of ``unbrick.flash.torn.SHAPES``.
    """
    left = LeftCells(state.cells, outcome.ops)
    for found, peers in find_cuts(case, outcome, state.cells.geometry, shapes=shapes):
        cut = found.cuts[-1]
        yield found, State(left.find(cut.op, cut.torn), peers)


def find_cuts(
    case: CaseId, outcome: Outcome, geometry: FlashGeometry, *, shapes: str = "usual"
) -> Iterator[tuple[CaseId, Any]]:
    """Every power cut in a session: the case that it begins, and what the peers remember then.

    What the terminal had sent before the cut may still reach its peers. So these remember what they
    do after any change of their memory that came while the cut could, or within the session's
    ``flight`` after it.
    """
    for op, torn, change, peers in _list_cuts(outcome, geometry, shapes):
        yield case.then(PowerCut(op, torn, change)), peers


def _list_cuts(
    outcome: Outcome, geometry: FlashGeometry, shapes: str
) -> Iterator[tuple[int, str, int | None, Any]]:
    """Every power cut in a session, in order; thousands are listed, and few are named.

    Yields:
        The first three attributes of :class:`PowerCut`, and what the peers remember then.
    """
    ops, marks = outcome.ops, outcome.marks
    told = -1
    for index in range(len(ops) + 1):
        while told + 1 < len(marks) and marks[told + 1].ops <= index:
            told += 1
            yield index, "", told, marks[told].peers
        yield index, "", None, marks[told].peers
        if index == len(ops):
            return
        op = ops[index]
        for number in _list_arrivals(outcome, told, op.start):
            yield index, "", number, marks[number].peers
        late = _list_arrivals(outcome, told, op.end)
        for variant in list_variants(op, geometry, shapes):
            yield index, variant, None, marks[told].peers
            for number in late:
                yield index, variant, number, marks[number].peers


def find_cells(cells: Cells, ops: Sequence[FlashOp], cut: PowerCut) -> Cells:
    """What a power cut in a session with these operations leaves of cells."""
    before = cells.after(ops[: cut.op])
    return tear(before, ops[cut.op], cut.torn) if cut.torn else before


def _list_arrivals(outcome: Outcome, told: int, cut: float) -> list[int]:
    """The changes of memory after number ``told`` that a power cut at ``cut`` does not prevent."""
    marks, until = outcome.marks, cut + outcome.flight
    later = range(told + 1, len(marks))
    return list(takewhile(lambda number: marks[number].time < until, later))


def find_state_after(case: CaseId, cut: PowerCut, state: State, outcome: Outcome) -> State:
    """The state in which ``cut`` leaves a session.

    Raises:
        SetupError: the session has no such operation or change of mind.
    """
    wanted = replace(cut, resolution=0, death=None)
    shapes = find_shapes(cut.torn)
    for found, peers in find_cuts(case, outcome, state.cells.geometry, shapes=shapes):
        if found.cuts[-1] == wanted:
            return State(find_cells(state.cells, outcome.ops, wanted), peers)
    raise SetupError(
        f"the session {case} has no power cut {cut}: it has {len(outcome.ops)} flash operations",
        hint="the firmware or the scenario is another one than when the case was found",
    )


def follow(case: CaseId, start: State, run: Run) -> Iterator[tuple[CaseId, State, Outcome]]:
    """Run every session that leads to a case, and the case itself.

    Args:
        case: where to.
        start: the state in which its target begins.
        run: runs a session, as :meth:`Target.run` does.

    Yields:
        The session's case ID, the state it begins with, and its outcome.

    Raises:
        SetupError: the case does not exist.
    """
    state, so_far = start, replace(case, cuts=())
    for number, cut in enumerate(case.cuts):
        outcome = run(state, _fate(so_far, number))
        yield so_far, state, outcome
        state = find_state_after(so_far, cut, state, outcome)
        so_far = so_far.then(cut)
    yield so_far, state, run(state, _fate(so_far, len(case.cuts)))


def _fate(case: CaseId, number: int) -> Fate:
    """What happens to a case's own session, the ``number``-th on its way."""
    link = None if case.link is None else (case.link, number)
    return Fate(case.resolution, link, case.death)


class _Left(NamedTuple):
    """A state that waits. Its cells are made when it is asked for, for thousands may wait.

    Attributes:
        start: where the session began that leads to it.
        ops: of that session.
        cut: the power cut that ended it; None: it is the start.
        peers: what they remember.
    """

    start: State
    ops: Sequence[FlashOp]
    cut: PowerCut | None
    peers: Any

    def make(self) -> State:
        """The state."""
        if self.cut is None:
            return self.start
        return State(find_cells(self.start.cells, self.ops, self.cut), self.peers)


class Search:
    """A search under way.

    The result does not depend on the executor or on the number of its workers: outcomes are taken
    in the order of the search.

    Args:
        target: what to search.
        start: the state in which it begins.
        submit: has a session run, and promises its outcome.
        bounds: how far to go.
        ahead: how many sessions to keep under way.
        keep_traces: whether the traces of all sessions are kept in the result.
    """

    def __init__(
        self,
        target: Target,
        start: State,
        submit: Callable[[State, Fate], Future[Outcome]],
        bounds: Bounds = Bounds(),
        *,
        ahead: int = 2,
        keep_traces: bool = False,
    ) -> None:
        self.result = SearchResult(target, states=1, met=1, shapes=bounds.shapes)
        self._keep_traces = keep_traces
        self._data: dict[bytes, bytes] = {}
        self._submit, self._bounds, self._ahead = submit, bounds, ahead
        self._part = bounds.partition and find_partition(target.partitions, bounds.partition)
        self._counted = open_keys(target)
        self._keys: StateKeys = self._counted
        if bounds.exact:
            self._keys = PlainKeys(lambda state: (state.cells, target.peers_key(state)))
        self._known = {self._keys.find(start): 0}  # and how many power cuts lead there
        self._judged: list[tuple[Case, Hashable]] = []
        self._fatal: set[Hashable] = set()
        self._queue: deque[tuple[CaseId, _Left]] = deque()
        self._wait(CaseId(target.name), start)
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
                if case.id.death is None:
                    self._judged.append((case, self._keys.find(state)))
                if case.outcome.violation and self._bounds.stop_early:
                    self.result.cut_short = "it was to end with the first violation"
                    yield case
                    return
                if self.result.target.mortal and not case.outcome.violation:
                    self._let_die(case, state)
                if self._goes_on(case):
                    self._follow(case, state)
                self._forget_trace(case)
                yield case
            self.result.cut_short = self.result.cut_short or self._bounds.words
            self.result.closed = not self.result.cut_short
        finally:
            for *_, future in self._running:
                future.cancel()
            for case, key in self._judged:
                case.judged = self._known[key]

    def _wait(self, case_id: CaseId, state: State) -> None:
        """A state is to be run as it is."""
        self._queue.append((case_id, _Left(state, (), None, state.peers)))

    def add(self, case_id: CaseId, state: State) -> bool:
        """Have another state searched, too, if it does not count as one that was met."""
        key = self._keys.find(state)
        if key in self._known:
            return False
        self._known[key] = 0
        self.result.states += 1
        self.result.met += 1
        self.result.missed.append(case_id)
        for same, _ in list_readings(case_id, state):
            self._wait(same, state)
        return True

    def list_unmet(
        self, case_id: CaseId, state: State, outcome: Outcome
    ) -> Iterator[tuple[CaseId, State]]:
        """What power cuts in a session leave that does not count as a state that was met.

        Args:
            case_id: the session's.
            state: where it begins.
            outcome: what it came to.
        """
        left = self._keys.follow(state.cells, outcome.ops)
        for op, torn, change, peers in _list_cuts(
            outcome, state.cells.geometry, self._bounds.shapes
        ):
            if left.find_key(op, torn, peers) not in self._known:
                found = case_id.then(PowerCut(op, torn, change))
                yield found, State(left.make_cells(), peers)

    def _next(self) -> tuple[Case, State]:
        while self._queue and len(self._running) < self._ahead:
            case_id, left = self._queue.popleft()
            state = left.make()
            future = self._submit(state, Fate(case_id.resolution, death=case_id.death))
            self._running.append((case_id, state, future))
        case_id, state, future = self._running.popleft()
        return Case.of(case_id, future.result()), state

    def _forget_trace(self, case: Case) -> None:
        """Keep what a report needs of a case, and what others share with it once."""
        if self._keep_traces or case is self.result.cases[0]:
            shared = self._data
            ops = [op._replace(data=shared.setdefault(op.data, op.data)) for op in case.outcome.ops]
            marks = case.outcome.marks
        else:
            ops, marks = [], []
        console = case.outcome.console if case.outcome.violation else ""
        case.outcome = replace(case.outcome, ops=ops, marks=marks, console=console, final=None)

    def _goes_on(self, case: Case) -> bool:
        late = case.id.death is not None and case.id.death.when == "late"
        return not case.outcome.violation and case.depth != self._bounds.depth and not late

    def _follow(self, case: Case, state: State) -> None:
        """Note every new state that a power cut in this session leads to.

        They are searched in an order that covers the whole session soon. Where there is no room for
        all of them, those that are left make a sample of it.
        """
        result, room = self.result, self._bounds.states
        new: list[tuple[str, str, tuple[list[CaseId], _Left]]] = []
        ops, known = case.outcome.ops, self._known
        left = self._keys.follow(state.cells, ops)
        for op, torn, change, peers in _list_cuts(
            case.outcome, state.cells.geometry, self._bounds.shapes
        ):
            if self._part and not is_inside(PowerCut(op, torn, change), ops, self._part):
                continue
            result.transitions += 1
            case.successors += 1
            key = left.find_key(op, torn, peers)
            met = known.get(key)
            known[key] = (met or 0) + 1
            if met is not None:
                continue
            cut, successor = PowerCut(op, torn, change), State(left.make_cells(), peers)
            found = case.id.then(cut)
            place = find_place(result.target, cut, ops, successor)
            readings = [same for same, _ in list_readings(found, successor)]
            waiting = _Left(state, ops, cut, peers)
            new.append((place, find_kind(cut, ops), (readings, waiting)))
        ordered = spread_cuts(new, self._bounds.seed)
        result.met += len(ordered)
        if room is not None and result.met > room:
            result.cut_short = f"it was to end after {room} states"
            ordered = ordered[: room - result.states]
        result.states += len(ordered)
        for readings, waiting in ordered:
            self._queue.extend((same, waiting) for same in readings)

    def _let_die(self, case: Case, state: State) -> None:
        """Have a peer die at its changes of mind, once for each state in which it does.

        In the session without other faults it dies in every way. In the others it dies before it
        tells; at every eighth state in every way. Where there is room for some deaths alone, the
        stages of the peers take turns.
        """
        most, golden = self._bounds.deaths, not case.id.cuts
        if case.id.death is not None or (most is not None and not golden):
            return
        # The terminal keeps its power: what it has said arrives when it does.
        powered = replace(case.outcome, flight=0.0)
        target, stages = self.result.target, dict[str, list[list[Death]]]()
        left = self._counted.follow(state.cells, powered.ops)
        for op, torn, change, peers in _list_cuts(powered, state.cells.geometry, "none"):
            if not change:
                continue
            key = left.find_key(op, torn, peers)
            if key in self._fatal:
                continue
            self._fatal.add(key)
            how = ("", "said", "late") if golden or len(self._fatal) % 8 == 0 else ("",)
            deaths = [Death(change, when) for when in how]
            stage = target.name_stage(State(left.make_cells(), peers))
            stages.setdefault(stage, []).append(deaths)
        chosen = spread(stages.values(), self._bounds.seed)[:most]
        for deaths in sorted(chosen, key=lambda deaths: deaths[0].change):
            for death in deaths:
                self._wait(case.id.with_death(death), state)


def list_readings(case_id: CaseId, state: State) -> Iterator[tuple[CaseId, State]]:
    """The sessions of a state: one for each way in which its weak cells may read."""
    for resolution in range(RESOLUTIONS if state.cells.weak and case_id.cuts else 1):
        yield case_id.with_resolution(resolution), state


def minimise(case: CaseId, fails: Callable[[CaseId], bool]) -> CaseId:
    """The case with the fewest faults that still fails, as far as leaving out and plainer go.

    Args:
        case: one that fails.
        fails: whether a case fails; False also when it does not exist.
    """
    while True:
        plainer = next((other for other in _list_plainer(case) if fails(other)), None)
        if plainer is None:
            return case
        case = plainer


def _list_plainer(case: CaseId) -> Iterator[CaseId]:
    """Cases with one fault less, or with one that is easier to understand."""
    if case.link is not None:
        yield replace(case, link=None)
    if case.first_death is not None:
        yield replace(case, first_death=None)
    for i, cut in enumerate(case.cuts):
        yield replace(case, cuts=case.cuts[:i] + case.cuts[i + 1 :])
        for other in (
            replace(cut, resolution=0),
            replace(cut, torn=""),
            replace(cut, death=None),
        ):
            if other != cut:
                yield replace(case, cuts=(*case.cuts[:i], other, *case.cuts[i + 1 :]))
