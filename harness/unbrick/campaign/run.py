"""Runs a campaign against a target: the one assembly that every way to call it uses.

Sessions run in worker processes, one engine in each. The target says how; it is pickled there.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

from unbrick.campaign.behaviour import BehaviourSearch
from unbrick.campaign.exhaustive import start_raw_states
from unbrick.campaign.link_search import try_links
from unbrick.campaign.refute import refute
from unbrick.campaign.search import INTERRUPTED, Bounds, Search
from unbrick.campaign.store import Recall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unbrick.campaign.search import SearchResult
    from unbrick.campaign.store import OutcomeStore
    from unbrick.campaign.target import Fate, Outcome, Run, State, Target

PRESETS = {
    "quick": Bounds(depth=1, states=40, deaths=12),
    "single": Bounds(depth=1),
    "full": Bounds(),
    "exhaustive": Bounds(),
}
"""How far a campaign goes, by name.

quick: one power cut, torn operations, at most 40 states and 12 deaths of a peer, for every day;
single: one power cut, at every operation, before it and torn; full: until no state is new;
exhaustive: as full, then every state that only counts as known is started, too, unless it agrees
with one that was on all that its session reads (``unbrick.campaign.exhaustive``).
"""


class Here(Executor):
    """Runs everything at once, in this process."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN201
        """Call ``fn`` now."""
        future: Future[object] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            future.set_exception(error)
        return future


def _run_of(target: Target) -> Run:
    return target.run


@dataclass(frozen=True)
class Workers:
    """Who runs the sessions of a campaign.

    Attributes:
        executor: hands them out; anything that offers ``concurrent.futures.Executor``.
        count: how many it has run at a time.
        bring: brings a target there, and returns what runs its sessions.
    """

    executor: Executor = field(default_factory=Here)
    count: int = 1
    bring: Callable[[Target], Run] = _run_of


def count_cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def _leave_ctrl_c() -> None:
    """Ctrl-C goes to every process of a terminal; the one that collects the results decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def open_pool(jobs: int | None = None) -> Iterator[Workers]:
    """Processes to which targets are pickled, by default one for each core; one: this one."""
    jobs = jobs or count_cores()
    if jobs <= 1:
        yield Workers()
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_ctrl_c) as executor:
        yield Workers(executor, jobs)


def run_campaign(
    target: Target,
    workers: Workers | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    *,
    exhaustive: bool = False,
    tries: int = 0,
    store: OutcomeStore | None = None,
    progress: Callable[[SearchResult, int], None] | None = None,
) -> SearchResult:
    """Search one target.

    Args:
        target: what to search.
        workers: who runs its sessions; this process by default.
        bounds: how far to go.
        exhaustive: start every state that only counts as known, once the search is closed.
        tries: so many random states that were judged without a session are run when the search has
            ended, where states are judged by what sessions read.
        store: keeps outcomes, and has those of a stopped campaign.
        progress: called after each case with the result so far and the number of cases that wait.

    Returns:
        The result, also when it was interrupted (KeyboardInterrupt).

    Raises:
        SetupError: a state that was tried is not what the target's own form counts it as.
        ToolBrokenError: one is not what it was judged as.
    """
    workers = workers or Workers()
    run: Callable[..., Outcome] = workers.bring(target)
    submit: Callable[[State, Fate], Future[Outcome]] = partial(workers.executor.submit, run)
    if store is not None:
        submit = Recall(submit, store, target)
    start, ahead = target.start(), 2 * workers.count
    search: Search | BehaviourSearch
    if target.notes_reads and not (exhaustive or bounds.exact or target.mortal):
        search = BehaviourSearch(
            target, start, submit, bounds, ahead=workers.count, keep_traces=bool(tries)
        )
    else:
        search = Search(target, start, submit, bounds, ahead=ahead, keep_traces=exhaustive)
    result = search.result
    try:
        for _ in search.cases():
            if progress:
                progress(result, search.waiting)
        if exhaustive and result.closed and isinstance(search, Search):
            start_raw_states(search, start, submit, ahead=ahead, progress=progress)
        if tries and isinstance(search, BehaviourSearch) and result.cut_short == bounds.words:
            refute(search, tries, bounds, partial(progress, result) if progress else int)
    except KeyboardInterrupt:
        result.cut_short, result.closed = INTERRUPTED, False
    return result


def run_links(target: Target, workers: Workers, count: int) -> SearchResult:
    """Try a target over the first ``count`` bad links."""
    return try_links(target, workers.executor, range(count), workers.bring(target))
