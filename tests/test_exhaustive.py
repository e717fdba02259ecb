"""States that only count as known are started, unless one that was started reads the same."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import pytest
from toy_target import ToyTarget

from unbrick.campaign.book import UNIT
from unbrick.campaign.run import open_pool, run_campaign
from unbrick.campaign.search import Bounds
from unbrick.campaign.target import Fate, MemoryMark, Outcome, State
from unbrick.flash.ops import FlashOp
from unbrick.report.model import report_scenario

NOTHING = b"\xff" * UNIT
UNREAD = 5
"""A unit that no session reads."""


@dataclass(frozen=True)
class Forgetful(ToyTarget):
    """Its key leaves out all but the first unit."""

    def key(self, state: State) -> Hashable:
        return state.cells.read(0, UNIT)


def session(state: State, fate: Fate, *, broken: bool = False) -> Outcome:
    """Mark the second unit; once it is marked, the first one, and what nobody reads."""
    cells = state.cells.readable(fate.resolution)
    marked = cells.read(UNIT, UNIT) != NOTHING
    places = (UNREAD * UNIT, 0) if marked else (UNREAD * UNIT, UNIT)
    ops = [
        FlashOp(number, "word", at, UNIT, 3, number, number + 1, b"\x5a" * UNIT)
        for number, at in enumerate(places)
    ]
    violation = ("bricked", "") if broken and cells.read(0, UNIT) != NOTHING else None
    marks = [MemoryMark(0, None)]
    return Outcome(violation, "application", ops, marks, None, 2, 0, relevant=0b11)


def list_places(target: ToyTarget) -> set[bytes]:
    return {state.cells.read(0, UNIT) for state, _ in target.started}


def test_what_follows_from_a_state_that_is_not_known_is_searched() -> None:
    alone = run_campaign(Forgetful(session))
    assert (alone.states, alone.closed) == (1, True)
    target = Forgetful(session)
    result = run_campaign(target, exhaustive=True)
    assert result.closed
    assert result.missed
    assert result.states > len(result.missed)
    assert len(list_places(target)) > 1
    assert f"{len(result.missed)} of the states were met only so" in result.statement
    assert report_scenario(result).missed == tuple(map(str, result.missed))


def test_a_violation_that_the_key_hides_is_found() -> None:
    def broken(state: State, fate: Fate) -> Outcome:
        return session(state, fate, broken=True)

    assert not run_campaign(Forgetful(broken)).violations
    assert run_campaign(Forgetful(broken), exhaustive=True).violations


@pytest.mark.parametrize("shapes", ["none", "usual"])
def test_a_state_that_reads_the_same_is_not_started(shapes: str) -> None:
    bounds = Bounds(shapes=shapes)
    all_run, some_run = Forgetful(session), Forgetful(session, notes_reads=True)
    started = run_campaign(all_run, bounds=bounds, exhaustive=True)
    spared = run_campaign(some_run, bounds=bounds, exhaustive=True)
    assert started.confirmed == 0
    assert spared.confirmed > 0
    assert spared.vouched + spared.confirmed == spared.different == started.different
    assert len(some_run.started) < len(all_run.started)
    assert list_places(some_run) == list_places(all_run)
    assert f"where one that was has read ({spared.confirmed})" in spared.statement


def test_a_read_that_is_not_noted_hides_what_follows() -> None:
    """So what vouches here is what the engine notes."""

    def deaf(state: State, fate: Fate) -> Outcome:
        return replace(session(state, fate), relevant=0)

    assert not run_campaign(Forgetful(deaf, notes_reads=True), exhaustive=True).missed


def test_another_verdict_than_that_of_what_it_counts_as_is_told() -> None:
    def moody(state: State, fate: Fate) -> Outcome:
        marked = state.cells.read(UNIT, UNIT) != NOTHING
        return replace(session(state, fate), violation=("bricked", "") if marked else None)

    result = run_campaign(Forgetful(moody), exhaustive=True)
    assert result.violations
    assert result.differed


@pytest.mark.slow
def test_any_number_of_jobs_finds_the_same() -> None:
    target = Forgetful(session, notes_reads=True)
    here = run_campaign(target, exhaustive=True)
    with open_pool(2) as workers:
        there = run_campaign(target, workers, exhaustive=True)
    assert [case.id for case in here.cases] == [case.id for case in there.cases]
    assert here.statement == there.statement
