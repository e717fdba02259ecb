"""The campaign finds bugs of the firmware and of the server, and none where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bug_search import (
    BUGS,
    PATCHES,
    SERVER_BUGS,
    Bug,
    apply_patch,
    build_good,
    build_seeded,
    look_for,
    row,
)

from unbrick.errors import BuildError
from unbrick.reference.invariants import INVARIANTS
from unbrick.reference.scenario import SCENARIOS

PAGE = Path(__file__).parents[1] / "docs" / "bugs.md"

# One search of the good firmware for each different search that finds a bug, the deepest of them.
ALL = (*BUGS, *SERVER_BUGS)
SEARCHES = {
    (bug.scenario, bug.torn, bug.exact, bug.partition, bug.deaths): bug
    for bug in sorted(ALL, key=lambda bug: bug.depth)
}


needs_git = pytest.mark.skipif(
    shutil.which("git") is None, reason="git, which applies the patches, is missing"
)


@pytest.mark.slow(first=True)
@needs_git
@pytest.mark.parametrize("bug", ALL, ids=lambda bug: bug.name)
def test_the_campaign_finds(bug: Bug) -> None:
    if bug.patch:
        check_programs(bug.patch)
    result = look_for(bug)
    assert result.violations, f"{bug.name} was not found: {result.statement}"
    case = result.violations[0]
    assert case.outcome.violation is not None
    kind, text = case.outcome.violation
    assert kind in bug.breaks, f"{bug.name} was found as {kind} at {case.id}: {text}"
    assert row(bug, result) in PAGE.read_text(encoding="utf-8").splitlines(), (
        "docs/bugs.md is out of date: put in what `python tests/bug_search.py` prints"
    )


@pytest.mark.slow
@pytest.mark.parametrize("bug", SEARCHES.values(), ids=lambda bug: f"as-for-{bug.name}")
def test_the_same_search_finds_nothing_in_the_good_firmware(bug: Bug) -> None:
    result = look_for(bug, seeded=False)
    assert not result.violations, result.statement
    assert len(result.cases) > bug.depth, "it has searched something"


def check_programs(patch: Path) -> None:
    """A patch applies and changes the programs."""
    good, seeded = build_good().firmware, build_seeded(patch).firmware
    assert [program.name for program in good.programs] == [p.name for p in seeded.programs]
    pairs = zip(good.programs, seeded.programs, strict=True)
    assert any(one.binary.read_bytes() != other.binary.read_bytes() for one, other in pairs)


@needs_git
def test_a_patch_that_no_longer_applies_is_named(tmp_path: Path) -> None:
    good = (PATCHES / "hash-not-checked.patch").read_text(encoding="utf-8")
    stale = tmp_path / "was-once-a-bug.patch"
    stale.write_text(good.replace("image->digest", "image->hash"), encoding="utf-8")
    with pytest.raises(BuildError, match="the seeded bug was-once-a-bug does not fit") as error:
        apply_patch(stale, tmp_path / "copy")
    assert "verify.c" in str(error.value)


def test_every_invariant_has_a_bug_that_breaks_it() -> None:
    broken = {INVARIANTS[kind].partition(":")[0] for bug in ALL for kind in bug.breaks}
    assert broken == {"1", "2", "3", "4", "5"}


def test_every_bug_is_looked_for_where_there_is_something_to_find() -> None:
    assert {bug.scenario for bug in ALL} <= set(SCENARIOS)
    assert {kind for bug in ALL for kind in bug.breaks} <= set(INVARIANTS)
    assert len({bug.name for bug in ALL}) == len(ALL)
