"""Starts every state that a search has only counted as one it knows.

A search keeps states once by their canonical form. That is sound as far as the form is
(``unbrick.campaign.canonical``). This asks the firmware itself: each different NOR, cell for cell,
that any loss of power leaves is started once, and the invariants must hold.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING

from unbrick.campaign.search import Case, losses, readings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future

    from unbrick.campaign.case import CaseId
    from unbrick.campaign.search import Result
    from unbrick.campaign.session import Outcome, State


def _raw(state: State) -> bytes:
    """A state cell for cell."""
    server = state.server.canonical if state.server else ""
    digest = hashlib.sha256(repr((state.cells.weak, server)).encode())
    for block in state.cells.blocks:
        digest.update(hashlib.sha256(block).digest())
    return digest.digest()


def _unstarted(result: Result, start: State) -> Iterator[tuple[CaseId, State]]:
    """Every state of a closed search that was reached and, as it is cell for cell, not started."""
    started = {_raw(start)}
    of_case: dict[CaseId, State] = {result.cases[0].id: start}
    wanted = {case.id for case in result.cases}
    left: list[tuple[CaseId, State]] = []
    for case in list(result.cases):
        state = of_case[case.id.with_death(None)]
        if case.outcome.violation:
            continue
        for next_id, successor in losses(case.id, state, case.outcome, torn=True):
            if next_id in wanted:
                started.add(_raw(successor))
                of_case.update((same, successor) for same, _ in readings(next_id, successor))
            else:
                left.append((next_id, successor))
    for next_id, successor in left:
        raw = _raw(successor)
        if raw not in started:
            started.add(raw)
            yield next_id, successor


def start_raw_states(
    result: Result,
    start: State,
    run: Callable[..., Outcome],
    executor: Executor,
    workers: int = 2,
    progress: Callable[[Result, int], None] | None = None,
) -> None:
    """Start every state that a closed search has not, and add the cases to its result.

    Args:
        result: of a search that is closed; is added to.
        start: where it began.
        run: runs a session.
        executor: where.
        workers: how many sessions to keep under way.
        progress: called after each case with the result so far and the number of cases that wait.
    """
    waiting = deque(reading for found in _unstarted(result, start) for reading in readings(*found))
    running: deque[tuple[CaseId, Future[Outcome]]] = deque()
    try:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                case_id, state = waiting.popleft()
                future = executor.submit(run, result.scenario, state, case_id.resolution)
                running.append((case_id, future))
            case_id, future = running.popleft()
            result.cases.append(Case(case_id, future.result()))
            if progress:
                progress(result, len(waiting) + len(running))
    except KeyboardInterrupt:
        result.cut_short, result.closed = "it was interrupted", False
    finally:
        for _, future in running:
            future.cancel()
