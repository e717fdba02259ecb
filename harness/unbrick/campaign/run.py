"""Runs campaigns: sessions in worker processes, one engine in each."""

from __future__ import annotations

import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.campaign.link_search import try_links
from unbrick.campaign.search import Bounds, search
from unbrick.campaign.session import images_of, initial_state, run_session
from unbrick.engine.inprocess import InProcessEngine
from unbrick.image.release import make_releases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unbrick.campaign.case import Death
    from unbrick.campaign.scenario import Scenario
    from unbrick.campaign.search import Result
    from unbrick.campaign.session import Outcome, State
    from unbrick.image.release import Releases


@lru_cache(maxsize=4)
def _tools(firmware: Path) -> tuple[InProcessEngine, Releases]:
    """This process's engine, and the firmware in a folder."""
    releases = make_releases(firmware)
    return InProcessEngine(releases.elf_files), releases


def run_in(
    firmware: Path,
    scenario: Scenario,
    state: State,
    resolution: int = 0,
    link: tuple[int, int] | None = None,
    death: Death | None = None,
) -> Outcome:
    """Run one session with the firmware in a folder; for any process."""
    return run_session(*_tools(firmware), scenario, state, resolution, link, death)


def images_in(firmware: Path) -> dict[bytes, bytes]:
    """The software in a folder, by digest."""
    return images_of(_tools(firmware)[1])


def start_in(firmware: Path, scenario: Scenario) -> State:
    """Where a scenario begins with the firmware in a folder."""
    return initial_state(*_tools(firmware), scenario)


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


def _leave_ctrl_c() -> None:
    """Ctrl-C goes to every process of a terminal; the one that collects the results decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def pool(jobs: int) -> Iterator[Executor]:
    """An executor with ``jobs`` processes; with one, everything runs in this one."""
    if jobs <= 1:
        yield Here()
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_ctrl_c) as executor:
        yield executor


def run_campaign(
    scenario: Scenario,
    firmware: Path,
    executor: Executor,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    *,
    workers: int = 2,
    progress: Callable[[Result, int], None] | None = None,
) -> Result:
    """Search one scenario with the firmware in a folder.

    Args:
        scenario: what to search.
        firmware: folder of the build; built when it is not there.
        executor: anything that offers ``concurrent.futures.Executor`` and shares the folder.
        bounds: how far to go.
        workers: how many sessions to keep under way.
        progress: as in :func:`unbrick.campaign.search.search`.
    """
    firmware = Path(firmware).resolve()
    start = start_in(firmware, scenario)
    run = partial(run_in, firmware)
    return search(
        scenario,
        start,
        run,
        executor,
        bounds,
        workers=workers,
        progress=progress,
        images=images_in(firmware),
    )


def run_links(
    scenario: Scenario, firmware: Path, executor: Executor, numbers: Iterable[int]
) -> Result:
    """Try one scenario over the bad links ``numbers`` with the firmware in a folder."""
    firmware = Path(firmware).resolve()
    run = partial(run_in, firmware)
    return try_links(scenario, start_in(firmware, scenario), run, executor, numbers)
