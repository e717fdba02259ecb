"""Bootloaders that nobody here wrote: the correct ones recover, and their seeded bugs are found."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
from brickproof_demo import Build, find_demo, judge, list_builds
from judged_states import find_difference, scramble

from unbrick.campaign.case import CaseId
from unbrick.campaign.run import PRESETS, Here, run_campaign
from unbrick.campaign.search import Search, follow
from unbrick.target.target import FileTarget

DEMO = find_demo()
LONG = "boot_loop"
"""Waits for a second in each session: brickproof_demo.py searches it."""

BUILDS = [build for build in (list_builds(DEMO) if DEMO else []) if not build.name.endswith(LONG)]
ONE_CUT = [build for build in BUILDS if build.is_bug and build.depth == 1]
TWO_CUTS = [build for build in BUILDS if build.is_bug and build.depth == 2]
READ = [build for build in BUILDS if build.name in {"f103", "l476"}]

pytestmark = pytest.mark.slow


def test_the_demo_is_there() -> None:
    if DEMO is None:
        pytest.skip("brickproof-fw is not installed: pip install brickproof-fw==0.4.0")
    chips = {build.name.partition("/")[0] for build in BUILDS}
    assert chips == {"f103", "f411", "h563", "l476", "nrf52"}
    assert {build.path for build in list_builds(DEMO)} == set(DEMO.rglob("*.yaml"))


@pytest.mark.parametrize("build", ONE_CUT, ids=lambda one: one.name)
def test_a_seeded_bug_is_found(build: Build, tmp_path: Path) -> None:
    assert judge(build, tmp_path).found


@pytest.mark.parametrize("build", TWO_CUTS, ids=lambda one: one.name)
def test_a_bug_is_found_that_only_a_second_cut_shows(build: Build, tmp_path: Path) -> None:
    target = FileTarget.load(build.write_target(tmp_path))
    start = target.start()
    middle = len(target.run(start).ops) // 2
    *_, (_, state, outcome) = follow(CaseId.parse(f"{target.name}/{middle}"), start, target.run)
    assert outcome.violation is None
    bounds = replace(PRESETS["quick"], stop_early=True)
    search = Search(target, state, partial(Here().submit, target.run), bounds)
    assert list(search.cases())[-1].outcome.violation


@pytest.mark.parametrize("build", READ, ids=lambda one: one.name)
def test_what_a_build_has_not_read_has_no_say(build: Build, tmp_path: Path) -> None:
    """Also not what the ECC of its flash says of it."""
    target = FileTarget.load(build.write_target(tmp_path))
    state = target.start()
    said = target.run(state)
    assert said.relevant is not None
    other = scramble(state, said.relevant, Random(1))
    with target.create_engine() as engine:  # it shall not join the session of the first
        assert find_difference(said, target.run(other, engine=engine)) == ""


@pytest.mark.parametrize("build", [one for one in BUILDS if not one.is_bug], ids=lambda b: b.name)
def test_a_correct_build_recovers(build: Build, tmp_path: Path) -> None:
    verdict = judge(build, tmp_path, "quick")
    assert verdict.found == ""
    assert 20 <= verdict.sessions <= 40


@pytest.mark.parametrize("name", ["h563", "h563/hold_pg"])
def test_a_build_without_a_handler_of_the_nmi_stops_at_a_torn_word(
    name: str, tmp_path: Path
) -> None:
    """docs/brickproof.md, "The ECC of the STM32H563"."""
    (build,) = (build for build in BUILDS if build.name == name)
    verdict = judge(replace(build, ecc=True), tmp_path, "quick")
    assert "bricked: it does not say 'APP v2'" in verdict.found


@pytest.mark.parametrize("name", ["f103", "nrf52"])
def test_a_weak_word_of_a_correct_build_needs_a_second_cut_to_do_harm(
    name: str, tmp_path: Path
) -> None:
    """docs/brickproof.md, "Two cuts in a row"."""
    (build,) = (build for build in BUILDS if build.name == name)
    target = FileTarget.load(build.write_target(tmp_path))
    bounds = replace(PRESETS["full"], depth=2, stop_early=True)
    *_, worst = run_campaign(target, bounds=bounds).cases
    assert worst.outcome.violation
    copied, taken_back = worst.id.cuts
    assert (copied.torn, copied.resolution, taken_back.op) == ("weak", 1, 0)
