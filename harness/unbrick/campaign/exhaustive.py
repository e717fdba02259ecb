"""Starts every state that a search has only counted as one it knows.

A search keeps states once by the target's key. That is sound as far as the key is. This asks the
firmware itself: each different content of the flash, cell for cell, that any power cut leaves is
started once, and the invariants must hold. The result says for how many states it can vouch so.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING

from unbrick.campaign.search import Case, find_successors, list_readings
from unbrick.campaign.target import Fate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from unbrick.campaign.case import CaseId
    from unbrick.campaign.search import SearchResult
    from unbrick.campaign.target import Outcome, State, Target


def _digest(target: Target, state: State) -> bytes:
    """Names a state cell for cell."""
    digest = hashlib.sha256(repr((state.cells.weak, target.peers_key(state))).encode())
    for block in state.cells.blocks:
        digest.update(hashlib.sha256(block).digest())
    return digest.digest()


def _list_unstarted(result: SearchResult, start: State) -> Iterator[tuple[CaseId, State]]:
    """Every state of a closed search that was reached and, as it is cell for cell, not started.

    Counts in the result the states that the search has started.
    """
    target = result.target
    started = {_digest(target, start)}
    of_case: dict[CaseId, State] = {result.cases[0].id: start}
    wanted = {case.id for case in result.cases}
    left: list[tuple[CaseId, State]] = []
    for case in list(result.cases):
        state = of_case[case.id.with_death(None)]
        if case.outcome.violation:
            continue
        for found, successor in find_successors(case.id, state, case.outcome, shapes=result.shapes):
            if found in wanted:
                started.add(_digest(target, successor))
                of_case.update((same, successor) for same, _ in list_readings(found, successor))
            else:
                left.append((found, successor))
    result.vouched = len(started)
    for found, successor in left:
        digest = _digest(target, successor)
        if digest not in started:
            started.add(digest)
            yield found, successor


def _is_other_state(case_id: CaseId, other: CaseId) -> bool:
    """Whether two cases are more than two ways of reading the weak cells of one state."""
    return other.with_resolution(case_id.resolution) != case_id


def start_raw_states(
    result: SearchResult,
    start: State,
    submit: Callable[[State, Fate], Future[Outcome]],
    *,
    ahead: int = 2,
    progress: Callable[[SearchResult, int], None] | None = None,
) -> None:
    """Start every state that a closed search has not, and add the cases to its result.

    Args:
        result: of a search that is closed and has kept its traces; is added to.
        start: the state in which it began.
        submit: has a session run, and promises its outcome.
        ahead: how many sessions to keep under way.
        progress: called after each case with the result so far and the number of cases that wait.
    """
    unstarted = list(_list_unstarted(result, start))
    result.different = result.vouched + len(unstarted)
    waiting = deque(reading for found in unstarted for reading in list_readings(*found))
    running: deque[tuple[CaseId, Future[Outcome]]] = deque()
    try:
        while waiting or running:
            while waiting and len(running) < ahead:
                case_id, state = waiting.popleft()
                running.append((case_id, submit(state, Fate(case_id.resolution))))
            case_id, future = running.popleft()
            result.cases.append(Case.of(case_id, future.result()))
            waits = running[0][0] if running else waiting[0][0] if waiting else None
            if waits is None or _is_other_state(case_id, waits):
                result.vouched += 1  # This was the last way in which its weak cells may read.
            if progress:
                progress(result, len(waiting) + len(running))
    finally:
        for _, future in running:
            future.cancel()
