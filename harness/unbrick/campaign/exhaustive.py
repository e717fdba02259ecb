"""Holds the target's key against the firmware: states that only count as known are started, too.

A search keeps states once by the target's key. That is sound as far as the key is. This asks the
firmware itself, about each different content of the flash, cell for cell, that any power cut
leaves. Where a target notes what its sessions read, a state that agrees there with one that was
started needs no session (``unbrick.campaign.behaviour``). Every other one is started once:

- The invariants must hold, as they do for the state that it counts as.
- Each power cut in its session must lead to a state that counts as one that the search has met.
  One that does not is searched in its turn, and so is all that follows from it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from unbrick.campaign.behaviour import CountedFields, KnownSessions, Shown, is_whole
from unbrick.campaign.book import Book
from unbrick.campaign.search import Case, find_cells, find_cuts, list_readings
from unbrick.campaign.target import Fate, State
from unbrick.flash.cells import RESOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from concurrent.futures import Future

    from unbrick.campaign.case import CaseId
    from unbrick.campaign.search import Search, SearchResult
    from unbrick.campaign.target import Outcome, Target


@lru_cache(maxsize=256)
def _digest_block(block: bytes) -> bytes:
    """Most blocks are those of the state before."""
    return hashlib.sha256(block).digest()


def _digest(target: Target, state: State) -> bytes:
    """Names a state cell for cell."""
    digest = hashlib.sha256(repr((state.cells.weak, target.peers_key(state))).encode())
    for block in state.cells.blocks:
        digest.update(_digest_block(block))
    return digest.digest()


class _Begun(NamedTuple):
    """A session under way of a state that only counts as known, in a way of reading weak cells."""

    case: CaseId
    state: State
    resolution: int
    future: Future[Outcome]


class _RawStates:
    """The states that power cuts in the sessions of a closed search lead to.

    Args:
        search: that is closed, and has kept its traces.
        start: the state in which it began.
    """

    def __init__(self, search: Search, start: State) -> None:
        self.result = search.result
        target, geometry = self.result.target, start.cells.geometry
        self._missed: list[tuple[CaseId, State]] = []
        self.sessions = KnownSessions(target, geometry) if target.notes_reads else None
        self._book = self.sessions.book if self.sessions else Book(geometry)
        self._list_unmet = search.list_unmet
        self._seen = {_digest(target, start)}
        self._started: set[CaseId] = set()
        self._states: dict[CaseId, State] = {self.result.cases[0].id: start}
        self._verdicts: dict[Hashable, set[str]] = {}
        self._searched: deque[tuple[Case, State]] = deque()
        self.result.vouched = self.result.different = 1

    def take_in(self, cases: Sequence[Case]) -> None:
        """Find the states of cases that were searched, and keep what their sessions have read."""
        self._started.update(case.id for case in cases)
        for case in cases:
            state = self._states[case.id.with_death(None)]
            self._searched.append((case, state))
            if case.id.death is None:
                self._note(case, state)
            if not case.outcome.violation:
                for found, peers in self._find_cuts(case, state):
                    if found in self._started and found not in self._states:
                        cells = find_cells(state.cells, case.outcome.ops, found.cuts[-1])
                        self._add(found, State(cells, peers))
            if case is not self.result.cases[0]:  # The report shows what that one has read.
                case.outcome = replace(case.outcome, relevant=None)

    def _add(self, found: CaseId, state: State) -> None:
        """A state is started by the search."""
        self._states.update((same, state) for same, _ in list_readings(found, state))
        self.result.vouched += self._is_new(state)

    def _find_cuts(self, case: Case, state: State) -> Iterator[tuple[CaseId, Any]]:
        geometry = state.cells.geometry
        return find_cuts(case.id, case.outcome, geometry, shapes=self.result.shapes)

    def _note(self, case: Case, state: State) -> None:
        verdict = case.outcome.violation[0] if case.outcome.violation else ""
        self._verdicts.setdefault(self.result.target.key(state), set()).add(verdict)
        self._keep(case.id, state, case.outcome)

    def _keep(self, case_id: CaseId, state: State, outcome: Outcome) -> None:
        if self.sessions:
            self._book.show(state.cells)
            behaviour = self.sessions.add(case_id, state, outcome)
            # They are large, and the book has what counts.
            behaviour.relevant = 0
            behaviour.outcome = _strip(outcome)
            behaviour.case.outcome = behaviour.outcome

    def list_unknown(self) -> Iterator[tuple[CaseId, State]]:
        """Each state once that was not started and whose session is not known.

        Others may be shown by the book between two of them.
        """
        while self._searched:
            case, state = self._searched.popleft()
            if case.outcome.violation:
                continue
            shown = Shown(self._book, state.cells, case.outcome.ops, CountedFields(None))
            for found, peers in self._find_cuts(case, state):
                successor = State(shown.show(found.cuts[-1]), peers)
                if found in self._started or not self._is_new(successor):
                    continue
                if self.sessions and is_whole(self.sessions.find(successor)):
                    self.result.confirmed += 1
                    continue
                yield found, successor
                self._book.show(successor.cells)

    def _is_new(self, state: State) -> bool:
        digest = _digest(self.result.target, state)
        if digest in self._seen:
            return False
        self._seen.add(digest)
        self.result.different += 1
        return True

    def find_reading(self, state: State, done: int) -> int | None:
        """The next way of reading in which a state is to be started; None: there is none left.

        Args:
            state: it.
            done: in so many ways it was started.
        """
        if self.sessions is None:
            return done if done < (RESOLUTIONS if state.cells.weak else 1) else None
        self._book.show(state.cells)
        known = self.sessions.find(state)
        return None if is_whole(known) else len(known)

    def judge(self, case_id: CaseId, state: State, outcome: Outcome) -> None:
        """Keep a session, and see whether its state is what the target's key takes it for."""
        self._keep(case_id, state, outcome)
        verdict = outcome.violation[0] if outcome.violation else ""
        if verdict not in self._verdicts.get(self.result.target.key(state), ()):
            self.result.differed.append(case_id)
        if verdict:
            return
        self._missed += self._list_unmet(case_id, state, outcome)

    def have_missed_searched(self, search: Search) -> bool:
        """Give the search what only these states have shown; False: there is no such state."""
        missed, self._missed = self._missed, []
        added = [(found, state) for found, state in missed if search.add(found, state)]
        for found, state in added:
            self._add(found, state)
        return bool(added)


def start_raw_states(
    search: Search,
    start: State,
    submit: Callable[[State, Fate], Future[Outcome]],
    *,
    ahead: int = 2,
    progress: Callable[[SearchResult, int], None] | None = None,
) -> None:
    """Start every state that a closed search has not, as far as needed, and add the cases.

    Args:
        search: that is closed and has kept its traces.
        start: the state in which it began.
        submit: has a session run, and promises its outcome.
        ahead: how many sessions to keep under way.
        progress: called after each case with the result so far and the number of cases that wait.
    """
    result, states = search.result, _RawStates(search, start)
    states.take_in(list(result.cases))
    _start(states, submit, ahead, progress)
    while states.have_missed_searched(search):
        searched = []
        for case in search.cases():
            searched.append(case)
            if progress:
                progress(result, search.waiting)
        states.take_in(searched)
        _start(states, submit, ahead, progress)


def _start(
    states: _RawStates,
    submit: Callable[[State, Fate], Future[Outcome]],
    ahead: int,
    progress: Callable[[SearchResult, int], None] | None,
) -> None:
    """Start every state that is to be started now."""
    result, unknown = states.result, states.list_unknown()
    running: deque[_Begun] = deque()

    def begin(case_id: CaseId, state: State, done: int = 0) -> _Begun | None:
        resolution = states.find_reading(state, done)
        if resolution is None:
            return None
        future = submit(state, Fate(resolution))
        return _Begun(case_id.with_resolution(resolution), state, resolution, future)

    try:
        while True:
            while len(running) < ahead and (found := next(unknown, None)):
                running.extend(filter(None, [begin(*found)]))
            if not running:
                return
            now: _Begun | None = running.popleft()
            started = 0
            while now is not None:
                # Meanwhile another one of them may have shown what it does.
                if states.find_reading(now.state, started) != now.resolution:
                    now.future.cancel()
                else:
                    outcome = now.future.result()
                    started += 1
                    case = Case.of(now.case, outcome)
                    case.outcome = _strip(outcome)
                    result.cases.append(case)
                    states.judge(now.case, now.state, outcome)
                    if progress:
                        progress(result, len(running))
                now = begin(now.case, now.state, started)
            result.vouched += started > 0
            result.confirmed += started == 0
    finally:
        for begun in running:
            begun.future.cancel()


def _strip(outcome: Outcome) -> Outcome:
    """An outcome without what is large, as a search gives it up that is done with a session."""
    console = outcome.console if outcome.violation else ""
    return replace(outcome, ops=[], marks=[], console=console, final=None, relevant=None)
