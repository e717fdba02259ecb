"""What a run of the tests says at its end, and the order that they go in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S
from summary import BUILT_ONCE, FAST_S, SLOW_S, skip_reasons, wrong_marks


def report(
    name: str, seconds: float, *marks: str, when: str = "call", longrepr: object = None
) -> pytest.TestReport:
    location = "tests/test_x.py", 1, name
    keywords = dict.fromkeys(marks, 1)
    outcome = "skipped" if longrepr else "passed"
    return pytest.TestReport(
        name, location, keywords, outcome, longrepr, when, duration=seconds  # type: ignore[arg-type]
    )  # fmt: skip


def test_marks_that_are_not_true_are_told() -> None:
    between = (SLOW_S + FAST_S) / 2
    lines = wrong_marks(
        [
            report("fast", 0.1),
            report("fast and marked", 0.1, "slow"),
            report("between", between),
            report("between and marked", between, "slow"),
            report("slow and marked", 9.0, "slow"),
            report("some[1]", 0.1, "slow"),
            report("some[2]", 9.0, "slow"),
            report("all[1]", 5.0),
            report("all[2]", 6.0),
            report("slow", 3.0),
            report("slower", 4.0),
            report("shared", 9.0, when="setup"),
            report("its own", 9.0, "slow", when="setup"),
            report("its own", 0.1, "slow"),
        ]
    )
    assert [line.split(" s, ")[1] for line in lines] == [
        "mark it slow: all[2]",
        "mark it slow: slower",
        "mark it slow: slow",
        "not slow: fast and marked",
    ]


def test_skips_are_one_line_for_each_reason() -> None:
    qemu, browser = (("test_x.py", n, f"Skipped: no {n}") for n in (1, 2))
    skipped = [report("a", 0.0, longrepr=why) for why in (qemu, browser, browser)]
    assert skip_reasons(skipped) == ["   2 no 2", "   1 no 1"]


def test_files_that_build_once_are_there() -> None:
    assert {path.stem for path in Path(__file__).parent.glob("test_*.py")} >= BUILT_ONCE


RUN = """
import pytest

def test_fails(): assert False
def test_passes(): pass
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.slow
def test_prepared(): pass
@pytest.mark.slow(first=True)
def test_slowest(): pass
@pytest.mark.parametrize("number", range(3))
def test_skips(number): pytest.skip("no abacus is installed")
"""
CONFTEST = """
from summary import *

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if item.name == "test_prepared" and call.when == "setup":
        report.duration = 9.0
    return report
"""
SHARED = """
import pytest

@pytest.fixture(scope="session")
def program():
    with open("builds", "a") as file: file.write("one ")
@pytest.mark.parametrize("number", range(60))
def test_shares(number, program): pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_ends_with_its_failures_and_begins_with_what_is_slow(
    workers: int, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: x\n")
    (tmp_path / "test_it.py").write_text(RUN)
    options = ["-v", "-p", "no:cacheprovider", "-p", "no:randomly", f"-n{workers}"]
    (tmp_path / "test_mcu_core.py").write_text(SHARED)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    said = done.stdout
    assert "1 failed, 64 passed, 3 skipped" in said, said
    assert (tmp_path / "builds").read_text() == "one ", "only one worker builds"
    assert said.count("no abacus is installed") == 1 + 3 * (not workers)
    skips, marks = said.index("   3 no abacus"), said.index("s, not slow: test_it.py::test_slow")
    assert skips < marks < said.index("= FAILURES =")
    assert "not slow: test_it.py::test_prepared" not in said, "its fixtures take as long"
    if not workers:
        order = list(dict.fromkeys(re.findall(r"::(\w+)\S* (?:PASSED|FAILED)", said)))
        assert order[:3] == ["test_slowest", "test_shares", "test_slow"]
        assert order[3:] == ["test_prepared", "test_fails", "test_passes"]
