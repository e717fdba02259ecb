"""The campaign finds bugs of the firmware and of the server, and none where there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unbrick.image.build import firmware_folder
from unbrick.reference.bugs import BUGS, SERVER_BUGS, Bug, look_for
from unbrick.reference.invariants import INVARIANTS
from unbrick.reference.scenario import SCENARIOS

ROOT = Path(__file__).parents[1]
BUILDS = ROOT / "build" / "firmware-bugs"
PAGE = ROOT / "docs" / "bugs.md"

# One search of the good firmware for each different search that finds a bug, the deepest of them.
ALL = (*BUGS, *SERVER_BUGS)
SEARCHES = {
    (bug.scenario, bug.torn, bug.exact, bug.partition, bug.deaths): bug
    for bug in sorted(ALL, key=lambda bug: bug.depth)
}


@pytest.mark.parametrize("bug", ALL, ids=lambda bug: bug.folder)
def test_the_campaign_finds(bug: Bug) -> None:
    result = look_for(bug, BUILDS)
    assert result.violations, f"{bug.name} was not found: {result.statement}"
    case = result.violations[0]
    assert case.outcome.violation is not None
    kind, text = case.outcome.violation
    assert kind in bug.kinds, f"{bug.name} was found as {kind} at {case.id}: {text}"
    row = f"| {bug.name} | {bug.about} | {kind} | `{case.id}` |"
    assert row in PAGE.read_text(encoding="utf-8").splitlines(), (
        "docs/bugs.md is out of date: put in what `python -m unbrick.reference.bugs` prints"
    )


@pytest.mark.parametrize("bug", SEARCHES.values(), ids=lambda bug: f"as-for-{bug.folder}")
def test_the_same_search_finds_nothing_in_the_good_firmware(bug: Bug) -> None:
    result = look_for(bug, BUILDS, seeded=False)
    assert not result.violations, result.statement
    assert len(result.cases) > bug.depth, "it has searched something"


def test_every_bug_that_can_be_built_in_is_looked_for() -> None:
    header = (firmware_folder() / "lib" / "bug.h").read_text(encoding="utf-8")
    switches = re.findall(r"^    BUG_(\w+),", header, re.MULTILINE)
    assert sorted(switches) == sorted(["NONE", *(bug.name for bug in BUGS)])


def test_every_invariant_has_a_bug_that_breaks_it() -> None:
    broken = {INVARIANTS[kind].partition(":")[0] for bug in ALL for kind in bug.kinds}
    assert broken == {"1", "2", "3", "4", "5"}


def test_every_bug_is_looked_for_where_there_is_something_to_find() -> None:
    assert {bug.scenario for bug in ALL} <= set(SCENARIOS)
    assert {kind for bug in ALL for kind in bug.kinds} <= set(INVARIANTS)
    assert len({bug.folder for bug in ALL}) == len(ALL)
