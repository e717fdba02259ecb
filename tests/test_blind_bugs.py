"""Bugs seeded blind show in the cases that the searches have found; sound builds show nothing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from blind_search import BLIND_BUGS, look

from unbrick.campaign.case import CaseId
from unbrick.campaign.search import follow
from unbrick.reference.target import find_target

PAGE = Path(__file__).parents[1] / "docs" / "bugs.md"
ROW = re.compile(r"^\| ([a-z-]+) \| ([a-z-]+) \| `([^`]+)` \| [a-z ]+ \| \d+ \|$", re.MULTILINE)
MISSED = re.compile(r"^\| ([a-z-]+) \| missed \| [A-Z].+\. \|$", re.MULTILINE)

BLIND = PAGE.read_text(encoding="utf-8").partition("## Bugs seeded blind")[2]
FOUND: list[tuple[str, str, str]] = ROW.findall(BLIND)
LONG = {"exact-multiple-lost"}
"""Starts again forty times, for minutes: `python tests/blind_search.py plain` shows it."""
CONTROLS = [name for name in BLIND_BUGS if name.startswith("control/")]

needs_git = pytest.mark.skipif(
    shutil.which("git") is None, reason="git, which applies the patches, is missing"
)


def test_the_page_has_every_bug_once_as_found_or_as_missed() -> None:
    listed = [name for name, *_ in FOUND] + MISSED.findall(BLIND)
    assert sorted(listed) == sorted(set(BLIND_BUGS) - set(CONTROLS))
    counts = f"{len(FOUND)} of {len(listed)}"
    assert counts in BLIND, f"the page says how many of how many were found: {counts}"


@pytest.mark.slow
@needs_git
@pytest.mark.parametrize(
    ("name", "kind", "case"), [pytest.param(*row, id=row[0]) for row in FOUND if row[0] not in LONG]
)
def test_the_case_of_the_page_shows(name: str, kind: str, case: str) -> None:
    bug, case_id = BLIND_BUGS[name], CaseId.parse(case)
    with bug.server():
        target = find_target(case_id.scenario, bug.build())
        *_, (_, _, outcome) = follow(case_id, target.start(), target.run)
    assert outcome.violation is not None
    assert outcome.violation[0] == kind


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_sound_software_is_updated_without_a_violation(name: str) -> None:
    assert look(BLIND_BUGS[name].build(), "steps", "plain", until=1e9) is None
