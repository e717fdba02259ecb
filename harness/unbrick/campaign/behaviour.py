"""The search by relevance: a state is judged by what its session reads, and run only if it must be.

A session notes its *relevance*: the units of the flash whose first contents had a say in it. Every
other state that agrees with it there runs step by step the same; it has the same *behaviour*. What
a power cut then leaves is not the same, for states of one behaviour differ in other units. Such a
difference counts as long as some later session may read it. Those units are what a behaviour
*needs*: its own relevance, and what each behaviour needs that a power cut leads to, less what has
been erased before the cut. The needs are the least ones for which that holds.

Two states of one behaviour that agree on its needs have the same future, whatever is cut and how
often. The search follows one of them (a *member*). docs/adr/0028-relevance.md has the proof.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple

from unbrick.campaign.book import (
    LAST,
    UNIT,
    WEAK,
    Book,
    find_difference,
    find_units,
    find_weak_units,
)
from unbrick.campaign.case import CaseId, PowerCut
from unbrick.campaign.graph import Erasure, Graph
from unbrick.campaign.search import (
    Bounds,
    Case,
    SearchResult,
    find_cells,
    find_cuts,
    find_kind,
    find_place,
    is_inside,
    spread_cuts,
)
from unbrick.campaign.target import Fate, FormedTarget, State
from unbrick.campaign.walk import CutWalk, WalkEnd, Walker
from unbrick.errors import ToolBrokenError
from unbrick.flash.cells import RESOLUTIONS
from unbrick.flash.partition import find_partition
from unbrick.flash.torn import tear
from unbrick.flash.trace import (
    PlaceSet,
    Trace,
    count_common_end,
    find_blocks,
    find_last,
    find_next,
    find_span,
    list_erases,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from unbrick.campaign.target import Form, Outcome, Target
    from unbrick.flash.cells import Cells
    from unbrick.flash.geometry import FlashGeometry
    from unbrick.flash.ops import FlashOp

MANY = 64
"""Operations from which on it is faster to compare whole blocks."""

LONG = 1000
"""Operations from which on it is faster to see whether another session has had the same cuts."""

LOOK_EVERY = 256
"""Once a part of so many of those that wait was looked at, the library tells which are known."""

LAST_DEPTH = 2
"""Power cuts in a row up to which what is met later is no less deep than what was met before."""

_NOTHING: Future[Outcome] = Future()
"""Of what need not be run."""


@dataclass(eq=False)
class Behaviour:
    """What all states do that agree on the relevance of one session.

    Attributes:
        case: the session that was run, and stands for all of them.
        outcome: of it.
        relevant: its units whose first contents had a say, as a set of bits.
        weak: whether one of these has a weak bit. Then other ways of reading are other behaviours.
        geometry: of the flash.
        graph: says what the behaviour needs, and where cuts lead from it; None: nobody asks.
        members: states that are followed, no two of which agree on the needs.
        node: of the graph.
    """

    case: Case
    outcome: Outcome
    relevant: int
    weak: bool
    geometry: FlashGeometry
    graph: Graph | None = None
    members: list[Member] = field(default_factory=list)
    node: int = 0

    @property
    def needs(self) -> int:
        """The units in which a difference may count, now or after later power cuts."""
        return self._known_graph.read_needs(self.node)

    @property
    def has_one_mark(self) -> bool:
        """Whether all cuts leave the peers the same."""
        return len(self.outcome.marks) == 1

    @property
    def growths(self) -> int:
        """How often its needs have grown."""
        return self._known_graph.count_growths(self.node)

    @property
    def _known_graph(self) -> Graph:
        assert self.graph  # noqa: S101 - where needs are asked for
        return self.graph

    @cached_property
    def blocks(self) -> frozenset[int]:
        """The numbers of the blocks that its operations change."""
        return find_blocks(self.outcome.ops, self.geometry)

    def list_erasures(self) -> list[Erasure]:
        """What it erases, in order."""
        found = []
        lanes = (1 << self.geometry.chips) - 1
        for number, op in list_erases(self.outcome.ops):
            if op.failed or op.lanes & lanes != lanes:
                continue  # Something of what was there may be left.
            for part in self.geometry.list_parts(op):
                end = -(-(part.offset + part.length) // UNIT)
                found.append(Erasure(number + 1, part.offset // UNIT, end))
        return found

    def find_erasing(self, units: int, first: int = 0) -> int:
        """The first operation, from ``first`` on, before which all of these have been erased since.

        There may be none: then it is the one after the last.
        """
        if not units:
            return first
        found = self._known_graph.find_erasing(self.node, units, first)
        return len(self.outcome.ops) + 1 if found is None else found

    def list_leads(self, start: int) -> list[tuple[int, int]]:
        """The nodes to which cuts from operation ``start`` on lead, each with those that do.

        The operations are a set, in which ``start`` is 0.
        """
        return self._known_graph.list_leads(self.node, start)

    def find_live(self, start: int) -> int:
        """The units that must agree before operation ``start`` for the same to follow its cuts."""
        return self._known_graph.find_live(self.node, start)


@dataclass(eq=False)
class Member:
    """One state of a behaviour, which is followed for all that agree with it on the needs.

    Attributes:
        case: a case that begins with it.
        state: the state.
        entry: of the book.
        order: how many members were there before it.
        parent: the member whose session was cut; None: the search begins here.
        walked: whether all its successors have been looked at.
        spared: whether those were not that another member has had, too.
    """

    behaviour: Behaviour
    case: CaseId
    state: State
    entry: int
    order: int
    parent: Member | None
    walked: bool = False
    spared: bool = False


class Reached(NamedTuple):
    """A state that a search has come to. What it holds is made when it is asked for.

    Attributes:
        before: the case whose session was cut, or the one with which the search begins.
        cut: the cut; None: the search begins here.
        peers: what the peers remember.
        user: the member whose session was cut; None: the search begins here.
    """

    before: CaseId
    cut: PowerCut | None
    peers: Any
    user: Member | None

    @property
    def case(self) -> CaseId:
        """A case that begins with it."""
        return self.before.then(self.cut) if self.cut else self.before


class CountedFields:
    """The fields of a target's own form.

    Args:
        form: the form; None: there is none, and so no field.
    """

    def __init__(self, form: Form | None) -> None:
        self._form = form
        self.ranges = tuple(form.ranges) if form else ()
        self.units = reduce(or_, (find_units(*place) for place in self.ranges), 0)

    def apply(self, cells: Cells) -> Cells:
        """Cells that count as the same."""
        return self._form.apply(cells) if self._form else cells

    def find_blocks(self, geometry: FlashGeometry) -> frozenset[int]:
        """The numbers of the blocks with a field."""
        return frozenset(geometry.find_block(start)[0] for start, _ in self.ranges)

    def touches(self, offset: int, length: int) -> bool:
        """Whether a range has a part of a field."""
        return any(start < offset + length and offset < start + size for start, size in self.ranges)


class Known:
    """The behaviours of a state, one for each way of reading, and what they needed then."""

    def __init__(self, behaviours: list[Behaviour], fields: CountedFields) -> None:
        self.behaviours = behaviours
        self._then = [behaviour.growths for behaviour in behaviours]
        needs = (behaviour.needs for behaviour in behaviours)
        self.places = PlaceSet(reduce(or_, needs), fields.ranges)

    @property
    def holds(self) -> bool:
        """Whether they need no more by now."""
        for behaviour, then in zip(self.behaviours, self._then, strict=True):
            if behaviour.growths != then:
                return False
        return True


class Cover:
    """What is known of the states that cuts in one member's session leave, without a look at them.

    Neighbours differ in one operation's units. Where a behaviour needs none of these, both are of
    that behaviour, and one member stands for both. An operation on a field may change all fields.

    Args:
        behaviour: whose session is cut.
        fields: of the target's own form.
    """

    def __init__(self, behaviour: Behaviour, fields: CountedFields) -> None:
        outcome = behaviour.outcome
        self._fields = fields
        self._ops = outcome.ops
        self._known: list[Known | None] = [None] * (len(self._ops) + 1)
        # Spans leave out check cells.
        self.is_usable = behaviour.has_one_mark and not behaviour.geometry.checks

    def find(self, cut: PowerCut) -> list[Behaviour] | None:
        """The behaviours of the state that a cut leaves, if they are known, and that still holds.

        There is one for each way of reading, as of :meth:`KnownSessions.find`.
        """
        known = self._known[cut.op]
        if known is None or not known.holds:
            return None
        return None if cut.torn and self._has_say(cut.op, known) else known.behaviours

    def note(self, cut: PowerCut, behaviours: list[Behaviour]) -> None:
        """The state that a cut leaves is of these behaviours, and followed if it must be."""
        entry = Known(behaviours, self._fields)
        if not self.is_usable or (cut.torn and self._has_say(cut.op, entry)):
            return
        first = find_last(self._ops, cut.op, entry.places)
        end = find_next(self._ops, cut.op, entry.places)
        self._known[first : end + 1] = [entry] * (end + 1 - first)

    def _has_say(self, op: int, known: Known) -> bool:
        return known.places.meet(*find_span(self._ops, op))


class Shown:
    """The states that cuts in a session leave, shown in a book in the order of the cuts.

    Args:
        book: it shows them.
        cells: where the session begins.
        ops: its operations.
        fields: of the target's own form: the book shows what the cells count as.
    """

    def __init__(
        self, book: Book, cells: Cells, ops: Sequence[FlashOp], fields: CountedFields
    ) -> None:
        self._book, self._ops, self._fields = book, ops, fields
        self._cells, self._done = cells, 0  # before operation number _done
        self._at = 0  # the book shows what is before this operation
        self._torn = False  # or what is left of it
        geometry = cells.geometry
        plain = isinstance(ops, Trace) and ops.is_plain
        self.is_simple = plain and geometry.chips == 1 and not geometry.checks
        book.show(cells)

    def show(self, cut: PowerCut) -> Cells:
        """Have the book show what a cut leaves, which is returned."""
        self.pass_to(cut.op)
        cells = self._find_cells()
        if not cut.torn:
            return self._fields.apply(cells)
        op = self._ops[cut.op]
        left = self._fields.apply(tear(cells, op, cut.torn))
        self._show_parts(left, (op,))
        self._torn = True
        return left

    def pass_to(self, op: int) -> bool:
        """Have the book show what is before an operation.

        Returns:
            Whether it is sure to agree with the same entries as before the operation that it was
            at. False may be wrong.
        """
        if self._torn:
            self._show_parts(self._find_counted(), (self._ops[self._at],))
            self._torn = False
        if not self.is_simple:
            self._pass_by_cells(op)
            return False
        same = True
        while self._at < op:
            same = same and not self.has_say(self._at)
            passed = self._ops[self._at]
            self._at += 1
            self._book.change(passed, self._find_counted)
            if self._fields.touches(passed.offset, passed.length):
                self._show_fields(self._find_counted())
        return same

    def has_say(self, op: int) -> bool:
        """Whether the book could agree with other entries by what an operation changes."""
        place = find_span(self._ops, op)
        return self._fields.touches(*place) or self._book.has_say(*place)

    def _pass_by_cells(self, op: int) -> None:
        passed = self._ops[self._at : op]
        self._at = op
        left = self._find_counted()
        if len(passed) > MANY:
            self._book.show(left)
        else:
            self._show_parts(left, passed)

    def _show_parts(self, cells: Cells, ops: Sequence[FlashOp]) -> None:
        for part in cells.geometry.list_all_parts(ops):
            self._book.show_range(cells, part.offset, part.length)
        self._show_fields(cells)

    def _show_fields(self, cells: Cells) -> None:
        for place in self._fields.ranges:
            self._book.show_range(cells, *place)

    def has_passed_to(self, op: int, blocks: frozenset[int]) -> None:
        """The library has had the book show what is before an operation; it may change blocks."""
        self._at = op
        self._book.has_passed(self._find_counted, blocks)

    def _find_cells(self) -> Cells:
        """What is before the operation that the book is at."""
        if self._done < self._at:
            self._cells = self._cells.after(self._ops[self._done : self._at])
            self._done = self._at
        return self._cells

    def _find_counted(self) -> Cells:
        """The same, as it counts."""
        return self._fields.apply(self._find_cells())


class KnownSoFar(NamedTuple):
    """What is known of the state that the book shows while an operation begins.

    Attributes:
        version: of the book; with another one nothing is known.
        behaviours: of the state; None: they are not all known.
    """

    version: int
    behaviours: list[Behaviour] | None


class KnownSessions:
    """Sessions that were run, each found for every state that agrees with it on what it reads.

    Args:
        target: of all of them.
        geometry: of its flash.
        graph: gets their behaviours; None: nobody asks where cuts lead.

    Attributes:
        book: shows the state that is looked for.
        behaviours: of the graph, by their nodes.
    """

    def __init__(self, target: Target, geometry: FlashGeometry, graph: Graph | None = None) -> None:
        self.book, self._graph = Book(geometry), graph
        self.behaviours: list[Behaviour] = []
        self._readings = Book(geometry)  # shows what is read of that state
        self._read: dict[int, Behaviour] = {}  # by entry of that book
        self._target = target
        self._groups: dict[Hashable, int] = {}
        self._lists: dict[Hashable, list[list[int]]] = {}  # of groups
        self._behaviours: dict[int, Behaviour] = {}  # by entry of the book

    def find_group(self, state: State, *kind: Hashable) -> int:
        """The book's number for entries of a kind with these peers."""
        key = (self._target.peers_key(state), *kind)
        return self._groups.setdefault(key, len(self._groups))

    def list_groups(self, state: State, levels: int) -> list[list[int]]:
        """For each way of reading: the group of behaviours, and those of members up to a level."""
        key = self._target.peers_key(state), levels
        if key not in self._lists:
            self._lists[key] = [
                [
                    self.find_group(state, "behaviour", resolution),
                    *(
                        self.find_group(state, "member", resolution, level)
                        for level in range(levels)
                    ),
                ]
                for resolution in range(RESOLUTIONS)
            ]
        return self._lists[key]

    def find(self, state: State) -> list[Behaviour]:
        """The behaviours of the state that the book shows, up to the first that is not known.

        There is one for each way of reading its weak cells, or one where none of these has a say.
        """
        found: list[Behaviour] = []
        while not is_whole(found):
            entry = self.book.find(self.find_group(state, "behaviour", len(found)))
            if entry is None:
                break
            found.append(self._behaviours[entry])
        return found

    def add(self, case_id: CaseId, state: State, outcome: Outcome) -> Behaviour:
        """Keep a session that was run, of the state that the book shows.

        Raises:
            ToolBrokenError: the engine has not noted what the session reads.
        """
        if outcome.relevant is None:
            raise ToolBrokenError("the engine has not noted what a session reads")
        case = Case.of(case_id, outcome)
        behaviour = self._enter(case, outcome, state, case_id.resolution, None)
        self._readings.show(state.cells.readable(case_id.resolution))
        entry = self._readings.add(self.find_group(state, "reading"), outcome.relevant)
        self._read[entry] = behaviour
        return behaviour

    def recall(self, state: State, resolution: int) -> Behaviour | None:
        """One that was run of a state that reads the same, so that this one need not be run."""
        self._readings.show(state.cells.readable(resolution))
        entry = self._readings.find(self.find_group(state, "reading"))
        return None if entry is None else self._read[entry]

    def share(self, run: Behaviour, state: State, resolution: int) -> None:
        """The state that the book shows, read in a way, does what another one has done."""
        self._enter(run.case, run.outcome, state, resolution, run.node)

    def _enter(
        self, case: Case, outcome: Outcome, state: State, resolution: int, counted: int | None
    ) -> Behaviour:
        relevant = outcome.relevant or 0
        weak = bool(relevant & find_weak_units(state.cells))
        geometry = self.book.cells.geometry
        behaviour = Behaviour(case, outcome, relevant, weak, geometry, self._graph)
        entry = self.book.add(self.find_group(state, "behaviour", resolution), relevant)
        self.book.mark(entry, WEAK * weak | LAST * bool(outcome.violation))
        self._behaviours[entry] = behaviour
        if self._graph:
            behaviour.node = self._graph.add(entry, counted, relevant, behaviour.list_erasures())
            self.behaviours.append(behaviour)
        return behaviour


class BehaviourSearch:
    """A search under way; used as :class:`unbrick.campaign.search.Search` is.

    Of the result, ``states`` are the members, and ``transitions`` the cuts in their sessions. A
    bound on the states bounds the sessions that are run. The result depends neither on the executor
    nor on how many sessions are kept under way.

    Args:
        target: what to search. Its outcomes say what was relevant.
        start: the state in which it begins.
        submit: has a session run, and promises its outcome.
        bounds: how far to go.
        ahead: how many sessions to keep under way.
        keep_traces: whether the traces are kept also of sessions in which nothing is cut, for the
            bound on depth. There are many of them, and they are long.
    """

    def __init__(
        self,
        target: Target,
        start: State,
        submit: Callable[[State, Fate], Future[Outcome]],
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        *,
        ahead: int = 1,
        keep_traces: bool = False,
    ) -> None:
        self._keep_traces = keep_traces
        form = target.form if isinstance(target, FormedTarget) else None
        self._fields = CountedFields(form)
        self.result = SearchResult(
            target, shapes=bounds.shapes, by_reading=True, formed=form is not None
        )
        self._submit, self._bounds, self._ahead = submit, bounds, ahead
        self._part = bounds.partition and find_partition(target.partitions, bounds.partition)
        self._graph = Graph(start.cells.geometry, self._fields.units)
        self._sessions = KnownSessions(target, start.cells.geometry, self._graph)
        self._book = self._sessions.book
        self._walker = Walker(self._book, start.cells.geometry, bounds.shapes, form)
        self._dirty: dict[Member, None] = {}
        self._start = replace(start, cells=self._fields.apply(start.cells))
        self._cover: Cover | None = None
        self._walked: tuple[Member, CutWalk] | None = None  # the last walk, if it was in C
        self._looked_at = 0  # those that waited since the library told which of them are known
        self._first: Member | None = None
        self._ended: dict[bytes, Member] = {}  # the first with that ending
        self._pieces: dict[bytes, bytes] = {}  # of all traces
        self._listed: tuple[list[Behaviour], list[Case]] = [], []  # cases of some behaviours
        self._made: tuple[Reached, State] | None = None  # the last one
        self._queue: deque[Reached] = deque()
        self._running: deque[tuple[Reached, tuple[int, Future[Outcome]]]] = deque()

    @property
    def waiting(self) -> int:
        """States that are still to be looked at. Most of them need no session of their own."""
        return len(self._queue) + len(self._running)

    def cases(self) -> Iterator[Case]:
        """Run what must be run until all is known or a bound is met; may be closed at any time."""
        try:
            first = Reached(CaseId(self.result.target.name), None, self._start.peers, None)
            yield from self._run([first])
            while self._dirty and not self.result.cut_short:
                member = next(iter(self._dirty))
                del self._dirty[member]
                yield from self._run(self._walk(member))
                member.walked = True
        finally:
            for _, (_, future) in self._running:
                future.cancel()
            self._tell_cases()
        self.result.cut_short = self.result.cut_short or self._bounds.words
        self.result.closed = not self.result.cut_short

    @property
    def behaviours(self) -> Sequence[Behaviour]:
        """All of them, by their nodes in the graph."""
        return self._sessions.behaviours

    def judge(self, state: State) -> list[Behaviour] | None:
        """The behaviours of any state, one for each way of reading its weak cells.

        One is enough where none of these has a say. None: no power cuts lead to the state.
        """
        self._book.show(self._fields.apply(state.cells))
        found = self._sessions.find(state)
        return found if is_whole(found) else None

    def _run(self, unknown: Iterable[Reached]) -> Iterator[Case]:
        """Run states in turn, each if it is still unknown then, and see that they are followed."""
        self._queue.extend(unknown)
        while self.waiting:
            while self._queue and len(self._running) < self._ahead:
                found = self._queue.popleft()
                known = self._find_covered(found)
                if known and not self._running:
                    self._count(found, known)
                    continue
                begun = (RESOLUTIONS, _NOTHING) if known else self._begin(found, self._show(found))
                self._running.append((found, begun))
            if not self._running:
                continue
            found, (resolution, future) = self._running.popleft()
            if known := self._find_covered(found):
                future.cancel()
                self._count(found, known)
                continue
            state = self._show(found)
            # Meanwhile another one of them may have shown what it does.
            before = len(self._sessions.behaviours)
            while not is_whole(behaviours := self._sessions.find(state)):
                if run := self._recall(found, state, len(behaviours)):
                    self._sessions.share(run, state, len(behaviours))
                    continue
                if len(self.result.cases) == self._bounds.states:
                    self.result.cut_short = f"it was to end after {self._bounds.states} sessions"
                    future.cancel()
                    return
                if len(behaviours) != resolution:
                    resolution, future = self._begin(found, state)
                case_id = found.case.with_resolution(resolution)
                case = self._note(found.user, case_id, state, future.result())
                yield case
                if case.outcome.violation and self._bounds.stop_early:
                    self.result.cut_short = "it was to end with the first violation"
                    return
            future.cancel()
            self._follow(found, state)
            self._looked_at += 1
            if before < len(self._sessions.behaviours):
                self._pass_known()

    def _show(self, found: Reached) -> State:
        """Have the book show a state, which is made for it."""
        user = found.user
        if self._made and self._made[0] is found:
            state = self._made[1]
        elif user is None:
            state = self._start
        else:
            assert found.cut  # noqa: S101 - of the user's session
            left = find_cells(user.state.cells, user.behaviour.outcome.ops, found.cut)
            state = State(self._fields.apply(left), found.peers)
        self._made = found, state
        self._book.show(state.cells)
        return state

    def _find_covered(self, found: Reached) -> list[Behaviour] | None:
        """The behaviours of a state that neither must be looked at nor followed."""
        return self._cover.find(found.cut) if self._cover and found.cut else None

    def _is_last(self, case_id: CaseId) -> bool:
        """Whether no state that does the same as this case can be cut.

        Where a bound on depth is above 2, one that is less deep may yet be met.
        """
        return len(case_id.cuts) == self._bounds.depth and len(case_id.cuts) <= LAST_DEPTH

    def _recall(self, found: Reached, state: State, resolution: int) -> Behaviour | None:
        """A session that was run of a state that reads the same, with its trace if that is needed.

        The state is the one that the book shows.
        """
        run = self._sessions.recall(state, resolution)
        is_lost = run and self._is_last(run.case.id) and not self._is_last(found.case)
        return None if is_lost else run

    def _begin(self, found: Reached, state: State) -> tuple[int, Future[Outcome]]:
        """Have the state that the book shows run in the first way of reading that is not known."""
        known = self._sessions.find(state)
        if is_whole(known) or self._recall(found, state, len(known)):
            return RESOLUTIONS, _NOTHING
        return len(known), self._submit(state, Fate(len(known)))

    def _note(self, user: Member | None, case_id: CaseId, state: State, outcome: Outcome) -> Case:
        """Keep a session that was run, of the state that the book shows."""
        if isinstance(outcome.ops, Trace):
            outcome.ops.share(self._pieces)
        behaviour = self._sessions.add(case_id, state, outcome)
        behaviour.case.after = user.behaviour.case.id if user else None
        self.result.cases.append(behaviour.case)
        if not self._keep_traces and self._is_last(case_id):
            behaviour.case.outcome = behaviour.outcome = replace(outcome, ops=[], final=None)
        return behaviour.case

    def _follow(self, found: Reached, state: State) -> list[Behaviour] | None:
        """See that the state that the book shows is followed; None: it must be run first."""
        behaviours = self._sessions.find(state)
        if not is_whole(behaviours):
            return None
        for resolution, behaviour in enumerate(behaviours):
            if not behaviour.outcome.violation:
                self._join(behaviour, found, state, resolution)
        self._count(found, behaviours)
        if self._cover and found.cut:
            self._cover.note(found.cut, behaviours)
        return behaviours

    def _count(self, found: Reached, behaviours: list[Behaviour]) -> None:
        """Note who leads to behaviours."""
        if found.user is None or found.cut is None:
            return
        user, op = found.user.behaviour, found.cut.op
        if not found.user.walked:
            cases = self._list_cases(behaviours)
            for case in cases:
                case.judged += 1
            if not found.before.cuts and found.cut.change is None:
                self.result.first_cuts.setdefault(op, {})[found.cut.torn] = cases
        nodes = [behaviour.node for behaviour in behaviours]
        new = [node for node in nodes if not self._graph.leads_at(user.node, node, op)]
        if new:
            self._graph.lead(user.node, ((node, 1 << op) for node in new))
            self._look_again()

    def _list_cases(self, behaviours: list[Behaviour]) -> list[Case]:
        """The sessions of behaviours: the same list for the same ones, as long as they come."""
        if self._listed[0] is not behaviours:
            self._listed = behaviours, list_cases(behaviours)
        return self._listed[1]

    def _tell_cases(self) -> None:
        """Have the cases say what the graph has noted of them."""
        graph, nodes = self._graph, dict[CaseId, list[int]]()
        for behaviour in self._sessions.behaviours:
            nodes.setdefault(behaviour.case.id, []).append(behaviour.node)
        for behaviour in self._sessions.behaviours:
            case = behaviour.case
            case.judged += graph.take_count(behaviour.node)
            if case.after is not None:
                firsts = (graph.find_first(user, behaviour.node) for user in nodes[case.after])
                case.first_op = min(
                    (first for first in (case.first_op, *firsts) if first is not None), default=None
                )

    def _look_again(self, *, over: bool = False) -> None:
        """Look again where more is needed, or more is led, by what the graph was told.

        Unless a walk is over, the book then shows what it has shown.
        """
        behaviours = self._sessions.behaviours
        for node in self._graph.list_leaners():
            self._ask_again(behaviours[node])
        grown = self._graph.list_grown()
        if not grown:
            return
        shown = None if over else self._book.cells
        for node in grown:
            self._renew(behaviours[node])
        if shown:
            self._book.show(shown)

    def _ask_again(self, behaviour: Behaviour) -> None:
        """Look again at what was spared."""
        for member in behaviour.members:
            if member.spared:
                self._dirty.setdefault(member)

    def _join(self, behaviour: Behaviour, found: Reached, state: State, resolution: int) -> None:
        """Have the state that the book shows followed, unless a member stands for it.

        Where the depth is bounded, a member stands for states that are no less deep, so that none
        is followed less far than it should be.
        """
        case_id = found.case
        if len(case_id.cuts) == self._bounds.depth:
            return
        for level in range(self._find_level(case_id) + 1):
            group = self._sessions.find_group(state, "member", resolution, level)
            if self._book.find(group) is not None:
                return
        case_id = case_id.with_resolution(resolution)
        entry = self._add_member(behaviour, case_id, state)
        member = Member(behaviour, case_id, state, entry, self.result.states, found.user)
        self._first = self._first or member
        self.result.states += 1
        self.result.met += 1
        behaviour.members.append(member)
        self._dirty[member] = None

    def _add_member(self, behaviour: Behaviour, case_id: CaseId, state: State) -> int:
        group = self._sessions.find_group(
            state, "member", case_id.resolution, self._find_level(case_id)
        )
        return self._book.add_from(group, self._graph.find_needs(behaviour.node))

    def _find_level(self, case_id: CaseId) -> int:
        return 0 if self._bounds.depth is None else len(case_id.cuts)

    def _has_members_after(self, case_id: CaseId) -> bool:
        """Whether the states after a case may be members, for they are followed."""
        return self._bounds.depth is None or len(case_id.cuts) + 1 < self._bounds.depth

    def _walk(self, member: Member) -> list[Reached]:
        """Look at every state that a cut in a member's session leaves; those that must be run."""
        behaviour, end = member.behaviour, self._find_end(member)
        ops, self._cover, self._walked = behaviour.outcome.ops, None, None
        shown = Shown(self._book, member.state.cells, ops, self._fields)
        # Of the first member each cut is noted by itself.
        plain = shown.is_simple and behaviour.has_one_mark and bool(member.case.cuts)
        if plain and not self._part and isinstance(ops, Trace):
            unknown = self._walk_in_c(member, ops, shown, end)
        else:
            unknown = self._walk_singly(member, shown, end)
        return self._spread(member, unknown)

    def _spread(self, member: Member, unknown: list[Reached]) -> list[Reached]:
        """Cuts in a member's session, in the order in which they are to be run."""
        ops, target = member.behaviour.outcome.ops, self.result.target
        places: dict[tuple[int, int], tuple[str, str]] = {}  # with the kind of the operation
        kinds: dict[tuple[str, str, bool], str] = {}

        def describe(found: Reached) -> tuple[str, str, Reached]:
            cut = found.cut
            assert cut  # noqa: S101 - of the member's session
            at = cut.op, id(found.peers)
            if at not in places:
                kind = ops[cut.op].kind if cut.op < len(ops) else ""
                state = State(member.state.cells, found.peers)
                places[at] = find_place(target, cut, ops, state), kind
            place, kind = places[at]
            way = kind, cut.torn, cut.change is None
            if way not in kinds:
                kinds[way] = find_kind(cut, ops)
            return place, kinds[way], found

        return spread_cuts(map(describe, unknown), self._bounds.seed)

    def _tally(self, member: Member, cuts: int) -> None:
        """So many cuts of a member's session were looked at."""
        if not member.walked:
            self.result.transitions += cuts
            member.behaviour.case.successors += cuts

    def _walk_singly(self, member: Member, shown: Shown, end: int) -> list[Reached]:
        """The same, cut by cut."""
        behaviour, standing = member.behaviour, None
        unknown: list[Reached] = []
        self._cover = Cover(behaviour, self._fields)
        ops, geometry = behaviour.outcome.ops, member.state.cells.geometry
        shapes = self._bounds.shapes
        for case_id, peers in find_cuts(member.case, behaviour.outcome, geometry, shapes=shapes):
            cut = case_id.cuts[-1]
            if cut.op >= end:
                break
            if self._part and not is_inside(cut, ops, self._part):
                continue
            self._tally(member, 1)
            found = Reached(member.case, cut, peers, member)
            known = self._cover.find(cut)
            if known:
                self._count(found, known)
                continue
            if standing and standing.version != self._book.version:
                standing = None
            if standing and not shown.pass_to(cut.op):
                standing = None
            if standing and not (cut.torn and shown.has_say(cut.op)):
                behaviours = standing.behaviours
                if behaviours:
                    self._count(found, behaviours)
            else:
                behaviours = self._look(found, shown)
                if not cut.torn and shown.is_simple and self._cover.is_usable:
                    standing = KnownSoFar(self._book.version, behaviours)
            if not behaviours:
                unknown.append(found)
        return unknown

    def _look(self, found: Reached, shown: Shown) -> list[Behaviour] | None:
        """See that what a cut leaves is followed; None: it must be run first."""
        assert found.cut  # noqa: S101 - of a member's session
        return self._follow(found, State(shown.show(found.cut), found.peers))

    def _walk_in_c(self, member: Member, ops: Trace, shown: Shown, end: int) -> list[Reached]:
        """The same, by what the library knows of most cuts."""
        peers = member.behaviour.outcome.marks[0].peers
        groups = self._list_groups(member, peers)
        walk = CutWalk(self._walker, member.state.cells, ops, end, groups)
        self._tally(member, self._go_on(member, walk, shown) + len(walk.unknown))
        self._walked, self._looked_at = (member, walk), 0
        return [Reached(member.case, cut, peers, member) for cut in walk.unknown]

    def _go_on(self, member: Member, walk: CutWalk, shown: Shown) -> int:
        """Walk to the end; how many cuts leave states that are known."""
        peers, known = member.behaviour.outcome.marks[0].peers, 0
        blocks = member.behaviour.blocks | self._fields.find_blocks(member.state.cells.geometry)
        node, why = member.behaviour.node, None
        while why is not WalkEnd.DONE:
            why = walk.go_on()
            shown.has_passed_to(min(walk.op, member.behaviour.case.op_count), blocks)
            known += self._graph.take(node, self._walker, counts=not member.walked)
            self._look_again(over=why is WalkEnd.DONE)
            if why is WalkEnd.MEMBER:
                for cut in walk.list_at():
                    self._look(Reached(member.case, cut, peers, member), shown)
                    known += 1
                shown.pass_to(walk.op)
                walk.pass_by()
            elif why is not WalkEnd.DONE:
                walk.help_on(why)
        return known

    def _pass_known(self) -> None:
        """Of those that wait, count the ones that are known by now; the library tells of many."""
        if not self._walked or self._looked_at * LOOK_EVERY < self.waiting:
            return
        self._looked_at = 0
        member, walk = self._walked
        ops = member.behaviour.outcome.ops
        waiting = [*(found for found, _ in self._running), *self._queue]
        # The first two are one to the library.
        only = sorted(walk.unknown[found.cut] for found in waiting if found.cut and found.cut.op)
        if not only:
            return
        assert isinstance(ops, Trace)  # noqa: S101 - else the walk is not in C
        shown = Shown(self._book, member.state.cells, ops, self._fields)
        groups = self._list_groups(member, waiting[0].peers)
        now = CutWalk(self._walker, member.state.cells, ops, only[-1][0] + 1, groups, only)
        self._go_on(member, now, shown)

        def waits(found: Reached) -> bool:
            return found.cut in now.unknown or not (found.cut and found.cut.op)

        for found, (_, future) in self._running:
            if not waits(found):
                future.cancel()
        self._running = deque(item for item in self._running if waits(item[0]))
        self._queue = deque(filter(waits, self._queue))

    def _list_groups(self, member: Member, peers: Any) -> list[list[int]]:
        """For each way of reading: the group of behaviours, and those of whom a cut may join."""
        state, cuts = State(member.state.cells, peers), len(member.case.cuts) + 1
        levels = 1 if self._bounds.depth is None else cuts + 1
        if cuts == self._bounds.depth:
            levels = 0
        return self._sessions.list_groups(state, levels)

    def _find_end(self, member: Member) -> int:
        """The operation from which on another member has had the same successors, as far as needed.

        Within a behaviour that is so once all has been erased in which the two differ, of what the
        behaviour needs. Who came first is never spared for who came later.
        """
        behaviour = member.behaviour
        end = len(behaviour.outcome.ops) + 1
        for other in behaviour.members:
            shallow = self._find_level(other.case) <= self._find_level(member.case)
            if other.order < member.order and other.walked and not other.spared and shallow:
                units = find_difference(member.state.cells, other.state.cells) & behaviour.needs
                end = min(end, behaviour.find_erasing(units))
        if len(behaviour.outcome.ops) >= LONG:
            ended = self._ended.setdefault(self._find_ending(member), member)
            for before in dict.fromkeys((member.parent, self._first, ended)):
                if before and before.order < member.order and before.walked:
                    end = min(end, self._lean(member, before, end))
        member.spared = end <= len(behaviour.outcome.ops)
        return end

    def _find_ending(self, member: Member) -> bytes:
        """A digest of what a member's session leaves: a hint at who may have had the same cuts."""
        digest = hashlib.blake2b(digest_size=16)
        left = self._fields.apply(member.state.cells.after(member.behaviour.outcome.ops))
        for block in left.blocks:
            digest.update(len(block).to_bytes(4, "little") + block)
        digest.update(repr(left.weak).encode())
        return digest.digest()

    def _lean(self, member: Member, other: Member, end: int) -> int:
        """The operation from which on a member has the successors that another one's session has.

        Both sessions end with the same operations. Before one of these both flashes hold the same,
        wherever that may count.
        """
        behaviour, whole = member.behaviour, other.behaviour
        if behaviour is whole or not self._have_same_peers(member, other):
            return end
        ops, other_ops = behaviour.outcome.ops, whole.outcome.ops
        common = count_common_end(ops, other_ops)
        first, other_first = len(ops) - common, len(other_ops) - common
        if first >= end:
            return end
        cells = member.state.cells.after(ops[:first])
        other_cells = other.state.cells.after(other_ops[:other_first])
        if find_next(ops, first, PlaceSet(0, self._fields.ranges)) == len(ops):
            # From here on the fields stay as they are, so also what they count as.
            cells, other_cells = self._fields.apply(cells), self._fields.apply(other_cells)
        differing = find_difference(cells, other_cells)
        units = differing and differing & whole.find_live(other_first)
        found = behaviour.find_erasing(units, first)
        if found >= min(end, len(ops)):
            return end
        shift = first - other_first
        self._graph.lean(whole.node, behaviour.node, found - shift, found)
        leads = whole.list_leads(found - shift)
        self._graph.lead(behaviour.node, ((led, same << found) for led, same in leads))
        self._look_again()
        return found

    def _have_same_peers(self, one: Member, other: Member) -> bool:
        """Whether the peers of two sessions remember the same, all the time."""
        marks, other_marks = one.behaviour.outcome.marks, other.behaviour.outcome.marks
        key = self.result.target.peers_key
        return len(marks) == len(other_marks) == 1 and key(
            replace(one.state, peers=marks[0].peers)
        ) == key(replace(other.state, peers=other_marks[0].peers))

    def _renew(self, behaviour: Behaviour) -> None:
        """Ask more of the members of a behaviour that needs more. Look again at who leads there."""
        for member in behaviour.members:
            self._book.drop(member.entry)
            self._book.show(member.state.cells)
            member.entry = self._add_member(behaviour, member.case, member.state)
            if member.spared:
                self._dirty.setdefault(member)
        for user in self._graph.list_users(behaviour.node):
            for member in self._sessions.behaviours[user].members:
                if self._has_members_after(member.case):
                    self._dirty.setdefault(member)


def list_cases(behaviours: list[Behaviour]) -> list[Case]:
    """The sessions of behaviours, each once: several ways of reading may share one."""
    if len(behaviours) == 1:
        return [behaviours[0].case]
    return list({id(behaviour.case): behaviour.case for behaviour in behaviours}.values())


def is_whole(found: list[Behaviour]) -> bool:
    """Whether there is one for each way of reading; one is enough where weak cells have no say."""
    return len(found) == (RESOLUTIONS if found and found[0].weak else 1)
