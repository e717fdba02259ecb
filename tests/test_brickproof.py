"""Bootloaders that nobody here wrote: the correct ones recover, and their seeded bugs are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from brickproof_demo import Build, find_demo, judge, list_builds

DEMO = find_demo()
LONG = ("retry_limit", "boot_loop")
"""Two cuts in a row, or a second of waiting in each session: brickproof_demo.py searches them."""

BUILDS = [
    build
    for build in (list_builds(DEMO) if DEMO else [])
    if not build.missing and not build.name.endswith(LONG)
]

pytestmark = pytest.mark.slow


def test_the_demo_is_there() -> None:
    if DEMO is None:
        pytest.skip("brickproof-fw is not installed: pip install brickproof-fw==0.4.0")
    assert {build.name.partition("/")[0] for build in BUILDS} == {"f103", "f411", "nrf52"}


@pytest.mark.parametrize("build", [one for one in BUILDS if one.is_bug], ids=lambda one: one.name)
def test_a_seeded_bug_is_found(build: Build, tmp_path: Path) -> None:
    assert judge(build, tmp_path).found


@pytest.mark.parametrize("build", [one for one in BUILDS if not one.is_bug], ids=lambda b: b.name)
def test_a_correct_build_recovers(build: Build, tmp_path: Path) -> None:
    verdict = judge(build, tmp_path, "quick")
    assert verdict.found == ""
    assert verdict.sessions >= 40
