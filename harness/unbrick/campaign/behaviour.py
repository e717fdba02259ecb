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

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unbrick.campaign.book import Book, find_units, find_weak_units
from unbrick.campaign.case import CaseId
from unbrick.campaign.search import (
    Case,
    SearchResult,
    find_kind,
    find_successors,
    list_readings,
    spread,
)
from unbrick.campaign.target import Fate
from unbrick.errors import ToolBrokenError
from unbrick.flash.cells import RESOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from concurrent.futures import Future

    from unbrick.campaign.target import Outcome, State, Target

ROUND = 16
"""Sessions that are run before the search looks again at which of the others are still new."""


@dataclass(eq=False)
class Behaviour:
    """What all states do that agree on the relevance of one session.

    Attributes:
        outcome: of the session that was run.
        relevant: its units whose first contents had a say, as a set of bits.
        weak: whether one of these has a weak bit. Then other ways of reading are other behaviours.
        needs: units in which a difference may count, now or after later power cuts.
        members: states that are followed, no two of which agree on the needs.
        users: behaviours that lead here, each with its first operation at which a cut does.
    """

    outcome: Outcome
    relevant: int
    weak: bool
    needs: int = 0
    members: list[Member] = field(default_factory=list)
    users: dict[Behaviour, int] = field(default_factory=dict)
    _erased: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.needs = self.relevant
        units = 0
        for number, op in enumerate(self.outcome.ops):
            if op.kind == "erase":
                units |= find_units(op.offset, op.length)
                self._erased.append((number, units))

    def find_erased(self, op: int) -> int:
        """The units that were erased before operation ``op`` began."""
        units = 0
        for number, so_far in self._erased:
            if number >= op:
                break
            units = so_far
        return units


@dataclass(eq=False)
class Member:
    """One state of a behaviour, which is followed for all that agree with it on the needs.

    Attributes:
        case: a case that begins with it.
        state: the state.
        entry: of the book.
        walked: whether its successors have been counted.
    """

    behaviour: Behaviour
    case: CaseId
    state: State
    entry: int
    walked: bool = False


class BehaviourSearch:
    """A search under way; used as :class:`unbrick.campaign.search.Search` is.

    Of the result, ``states`` are the members, and ``transitions`` the cuts in their sessions.

    Args:
        target: what to search. Its outcomes say what was relevant.
        start: the state in which it begins.
        submit: has a session run, and promises its outcome.
        torn: whether operations are torn, or only not begun.
        seed: of the order in which the new states of a session are run.
    """

    def __init__(
        self,
        target: Target,
        start: State,
        submit: Callable[[State, Fate], Future[Outcome]],
        *,
        torn: bool = True,
        seed: int = 0,
    ) -> None:
        self.result = SearchResult(target)
        self._submit, self._torn, self._seed = submit, torn, seed
        self._book = Book(start.cells.geometry)
        self._groups: dict[Hashable, int] = {}
        self._behaviours: dict[int, Behaviour] = {}  # by entry of the book
        self._dirty: dict[Member, None] = {}
        self._start = start

    def cases(self) -> Iterator[Case]:
        """Run what must be run until all is known."""
        yield from self._run([(CaseId(self.result.target.name), self._start)])
        while self._dirty:
            member = next(iter(self._dirty))
            del self._dirty[member]
            unknown = self._walk(member)
            if unknown:
                yield from self._run(unknown[:ROUND])
                self._dirty = {member: None, **self._dirty}
        self.result.closed = True

    def judge(self, state: State) -> list[Behaviour] | None:
        """The behaviours of any state, one for each way of reading its weak cells.

        One is enough where none of these has a say. None: no power cuts lead to the state.
        """
        self._book.show(state.cells)
        return self._find(state)

    def _group(self, state: State, resolution: int, kind: str) -> int:
        key = (self.result.target.peers_key(state), resolution, kind)
        return self._groups.setdefault(key, len(self._groups))

    def _find(self, state: State) -> list[Behaviour] | None:
        """The behaviours of the state that the book shows, one for each way of reading weak cells.

        One is enough where none of these has a say. None: one of them is not known.
        """
        found: list[Behaviour] = []
        for resolution in range(RESOLUTIONS):
            entry = self._book.find(self._group(state, resolution, "behaviour"))
            if entry is None:
                return None
            found.append(self._behaviours[entry])
            if not found[0].weak:
                break
        return found

    def _run(self, unknown: Sequence[tuple[CaseId, State]]) -> Iterator[Case]:
        """Run states, in every way in which their weak cells may read and have a say."""
        running = [(one, self._submit(one[1], Fate(one[0].resolution))) for one in unknown]
        for (case_id, state), future in running:
            self._book.show(state.cells)
            if self._find(state) is not None:
                future.cancel()  # Another one of them has just shown what it does.
                continue
            behaviour = self._note(case_id, state, future.result())
            yield self._report(case_id, behaviour)
            if behaviour.weak:
                _, *others = list_readings(case_id, state)
                for reading, _ in others:
                    outcome = self._submit(state, Fate(reading.resolution)).result()
                    yield self._report(reading, self._note(reading, state, outcome))
            self._settle(case_id, state)

    def _note(self, case_id: CaseId, state: State, outcome: Outcome) -> Behaviour:
        """Keep a session that was run, of the state that the book shows.

        Raises:
            ToolBrokenError: the engine has not noted what the session reads.
        """
        if outcome.relevant is None:
            raise ToolBrokenError("the engine has not noted what a session reads")
        weak = bool(outcome.relevant & find_weak_units(state.cells))
        behaviour = Behaviour(outcome, outcome.relevant, weak)
        group = self._group(state, case_id.resolution, "behaviour")
        self._behaviours[self._book.add(group, outcome.relevant)] = behaviour
        return behaviour

    def _report(self, case_id: CaseId, behaviour: Behaviour) -> Case:
        case = Case.of(case_id, behaviour.outcome)
        self.result.cases.append(case)
        return case

    def _settle(self, case_id: CaseId, state: State) -> list[Behaviour] | None:
        """See that the state that the book shows is followed; None: it must be run first."""
        found = self._find(state)
        readings = list_readings(case_id, state)
        for behaviour, (reading, _) in zip(found or (), readings, strict=False):
            group = self._group(state, reading.resolution, "member")
            if behaviour.outcome.violation or self._book.find(group) is not None:
                continue
            self.result.states += 1
            member = Member(behaviour, reading, state, self._book.add(group, behaviour.needs))
            behaviour.members.append(member)
            self._dirty[member] = None
        return found

    def _walk(self, member: Member) -> list[tuple[CaseId, State]]:
        """Look at every state that a cut in a member's session leaves; those that must be run."""
        behaviour = member.behaviour
        unknown: dict[str, list[tuple[CaseId, State]]] = {}
        ops = behaviour.outcome.ops
        self._book.show(member.state.cells)
        shown = member.state.cells
        for case_id, state in find_successors(
            member.case, member.state, behaviour.outcome, torn=self._torn
        ):
            cut = case_id.cuts[-1]
            if state.cells is not shown:
                shown = state.cells
                for op in ops[max(0, cut.op - 1) : cut.op + 1]:
                    self._book.show_range(shown, op.offset, op.length)
            self.result.transitions += not member.walked
            found = self._settle(case_id, state)
            if found is None:
                unknown.setdefault(find_kind(cut, ops), []).append((case_id, state))
            for other in found or ():
                if cut.op < other.users.get(behaviour, len(ops) + 1):
                    other.users[behaviour] = cut.op
                    self._grow(other)
        member.walked = True
        return spread(unknown.values(), self._seed)

    def _grow(self, behaviour: Behaviour) -> None:
        """What a behaviour needs, those that lead to it need, unless it was erased by then."""
        grown: dict[Behaviour, None] = {}
        todo = deque([behaviour])
        while todo:
            needing = todo.popleft()
            for user, op in needing.users.items():
                more = needing.needs & ~user.find_erased(op) & ~user.needs
                if more:
                    user.needs |= more
                    grown[user] = None
                    todo.append(user)
        for other in grown:
            self._renew(other)

    def _renew(self, behaviour: Behaviour) -> None:
        """Ask more of the members of a behaviour that needs more. Look again at who leads there."""
        shown = self._book.cells
        for member in behaviour.members:
            self._book.drop(member.entry)
            self._book.show(member.state.cells)
            group = self._group(member.state, member.case.resolution, "member")
            member.entry = self._book.add(group, behaviour.needs)
        self._book.show(shown)
        for user in behaviour.users:
            for member in user.members:
                self._dirty.setdefault(member)
