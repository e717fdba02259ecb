"""What a run says at its end, in which order it goes, and what workers share."""

from __future__ import annotations

import gc
import importlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

SLOW_S = 2.0
"""Seconds from which on a test is to be marked slow."""

FAST_S = 0.2
"""Seconds below which the mark is wrong; between the two it depends on the machine."""

SHOWN = 20
"""Lines about marks at most."""

BUILT_ONCE = {
    "test_ab_updater",
    "test_center_browser",
    "test_console_target",
    "test_delta_decoder",
    "test_firmware_build",
    "test_firmware_lib",
    "test_judged_states",
    "test_mcu_core",
    "test_micropython",
    "test_packaging",
    "test_restore_firmware_ymodem",
    "test_run_target",
    "test_u_boot",
}
"""Files whose tests share what takes seconds to build: one worker does it, and has them all."""


@pytest.hookimpl
def pytest_sessionstart(session: pytest.Session) -> None:
    """Have workers that collect all tests begin with different files.

    Pytest rewrites each file of tests and keeps what it has made. In a fresh checkout all workers
    would do so with all of them; so each does it with a part, and finds the rest done.
    """
    config = session.config
    worker = getattr(config, "workerinput", None)
    if worker is None or config.args != config.getini("testpaths"):
        return
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    number, count = int(worker["workerid"].removeprefix("gw")), int(worker["workercount"])
    first = number * len(files) // count
    for file in files[first:] + files[:first]:
        with suppress(Exception, pytest.skip.Exception):  # Collection says it again, and where.
            importlib.import_module(file.stem)


class Scheduling(LoadScopeScheduling):
    """Gives each worker one test at a time, or a whole file of ``BUILT_ONCE``."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if Path(file).stem in BUILT_ONCE else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Tests go to workers in the order of ``pytest_collection_modifyitems``."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: no worker has that left when the others are done."""
    items.sort(key=_rank)
    gc.freeze()  # Thousands of tests and modules stay: nothing that is looked for is among them.


def _rank(item: pytest.Item) -> int:
    """The longest tests first, then the files that go to one worker, then all that is slow."""
    slow = item.get_closest_marker("slow")
    if slow is not None and slow.kwargs.get("first"):
        return 0
    if item.path.stem in BUILT_ONCE:
        return 1
    return 2 if slow is not None else 3


def wrong_marks(passed: list[pytest.TestReport]) -> list[str]:
    """A line for each test function whose mark is not true of its slowest case, the worst first.

    A test that only waits for what it shares with others need not be marked. It may be.
    """
    calls: dict[str, pytest.TestReport] = {}
    whole: defaultdict[str, float] = defaultdict(float)
    for report in passed:
        function = report.nodeid.partition("[")[0]
        whole[function] += report.duration
        if report.when == "call" and (
            function not in calls or report.duration > calls[function].duration
        ):
            calls[function] = report
    lines = []
    for function, report in calls.items():
        seconds, marked = report.duration, "slow" in report.keywords
        if seconds >= SLOW_S and not marked:
            lines.append((seconds, f"{seconds:6.1f} s, mark it slow: {report.nodeid}"))
        elif whole[function] < FAST_S and marked:
            lines.append((0.0, f"{seconds:6.1f} s, not slow: {report.nodeid}"))
    return [line for _, line in sorted(lines, reverse=True)]


def skip_reasons(skipped: list[pytest.TestReport]) -> list[str]:
    """A line for each reason, with the number of tests, the most frequent first."""
    counts: Counter[str] = Counter()
    for report in skipped:
        where_and_why = report.longrepr
        assert isinstance(where_and_why, tuple)
        counts[where_and_why[2].removeprefix("Skipped: ")] += 1
    return [f"{count:4} {reason}" for reason, count in counts.most_common()]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Skips and marks in few lines, above the failures: these are what is to be read last."""
    stats = defaultdict(list, terminalreporter.stats)
    if lines := skip_reasons(stats["skipped"]):
        terminalreporter.section("skipped, and why")
        terminalreporter.write("\n".join([*lines, ""]))
    # What is no outcome yet, as the set-up of a fixture, has no name.
    if lines := wrong_marks([*stats["passed"], *stats[""]]):
        load = os.getloadavg()[0]
        busy = load > (os.cpu_count() or 1) + 1
        remark = f" (but the machine was busy, load {load:.0f})" if busy else ""
        terminalreporter.section("marks of slow tests that are not true" + remark)
        more = [f"       and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        terminalreporter.write("\n".join([*lines[:SHOWN], *more, ""]))
    return (yield)
