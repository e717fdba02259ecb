"""What a session on the reference terminal reads is noted, all of it: nothing else has a say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from counted_starts import STARTS
from judged_states import Ignored, find_difference, scramble, search_target

from unbrick.campaign.book import find_units
from unbrick.campaign.case import CaseId
from unbrick.campaign.refute import try_states
from unbrick.campaign.search import Bounds, find_successors
from unbrick.campaign.target import State
from unbrick.engine.base import NoteSource
from unbrick.engine.inprocess.models import NorModel
from unbrick.reference.layout import is_of_starts
from unbrick.reference.memory import FOR_PEOPLE, PARTS, ServerState
from unbrick.reference.target import ReferenceTarget, find_target

if TYPE_CHECKING:
    from unbrick.firmware.signed import Releases

SCENARIOS = ("phonebook", "staged", "commanded")
SOURCES = (NoteSource.LOADS, NoteSource.FETCHES, NoteSource.HOST)
"""Those that have a say in a good session; the chips' own looks are tested with a chip alone."""

WINDOW = 64
"""Units that are looked at."""

PAIR = 0x1_0001  # the same for both chips

IGNORED = Ignored("relevant", is_of_starts, times=True)
"""How many starts there were is not noted. It makes messages other bytes, and a session takes some
nanoseconds more or less; nothing else of it is another."""

find_ignoring = partial(find_difference, ignored=IGNORED)


def list_noted(nor: NorModel) -> list[int]:
    """The units that have a say, of the first ones."""
    return [unit for unit in range(WINDOW) if nor.relevant >> unit & 1]


@pytest.fixture
def nor() -> NorModel:
    model = NorModel()
    model.note_reads(NoteSource.ALL)
    for command in (0x60, 0xD0, 0xFF):
        model.write32(0, command * PAIR)
    return model


def program(nor: NorModel, offset: int, value: int) -> None:
    for word in (0x40 * PAIR, value):
        nor.write32(offset, word)
    nor.advance(10**6)
    nor.write32(offset, 0xFF * PAIR)


def erase(nor: NorModel, lanes: int = PAIR) -> None:
    for command in (0x20, 0xD0):
        nor.write32(0, command * lanes)
    nor.advance(10**9)
    nor.write32(0, 0xFF * PAIR)


def test_reads_through_the_window_are_noted_as_what_they_are(nor: NorModel) -> None:
    nor.read32(8)
    assert list_noted(nor) == [2]
    for command in (0x70, 0x90, 0x98):  # status, identity, CFI
        nor.write32(0, command * PAIR)
        nor.read32(12)
    assert list_noted(nor) == [2]


def test_a_chip_looks_at_what_it_is_to_program(nor: NorModel) -> None:
    program(nor, 4, 0x1234_5678)
    assert list_noted(nor) == [1]
    program(nor, 8, 0x0000_FFFF)  # asks for no cell that is 0
    assert list_noted(nor) == [1]


def test_a_chip_that_checks_for_blank_looks_at_its_block(nor: NorModel) -> None:
    for command in (0xBC, 0xD0):
        nor.write32(0, command * PAIR)
    nor.advance(10**9)
    nor.read32(0)
    assert list_noted(nor) == list(range(WINDOW))


def test_a_say_ends_when_both_chips_have_erased(nor: NorModel) -> None:
    erase(nor, 1)
    nor.read32(4)
    erase(nor, PAIR - 1)
    nor.read32(8)
    program(nor, 12, 0x1234_5678)
    assert list_noted(nor) == [1]


def find_noting(name: str, releases: Releases) -> ReferenceTarget:
    return replace(find_target(name, releases), sources=NoteSource.ALL)


def run_scrambled(target: ReferenceTarget, state: State) -> str:
    """How a session goes otherwise when all that it has not noted holds something else."""
    said = target.run(state)
    assert said.relevant is not None
    starts = find_units(STARTS.offset, STARTS.size)
    other = scramble(state, said.relevant | starts, Random(1))
    return find_difference(said, target.run(other), IGNORED)


def list_middles(target: ReferenceTarget) -> list[tuple[CaseId, State]]:
    """The beginning, and states after power cuts on the way."""
    state = target.start()
    found = list(find_successors(CaseId(target.name), state, target.run(state), shapes="few"))
    return [(CaseId(target.name), state), *Random(2).sample(found, 6)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_not_noted_has_no_say(name: str, unbrick_releases: Releases) -> None:
    target = find_noting(name, unbrick_releases)
    found = {str(case): run_scrambled(target, state) for case, state in list_middles(target)}
    assert {case: name for case, name in found.items() if name} == {}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_not_noted_is_found(
    source: NoteSource, unbrick_releases: Releases
) -> None:
    target = replace(find_target("commanded", unbrick_releases), sources=NoteSource.ALL & ~source)
    assert any(run_scrambled(target, state) for _, state in list_middles(target))


@pytest.mark.slow
def test_noting_changes_nothing(unbrick_releases: Releases) -> None:
    noting = find_noting("commanded", unbrick_releases)
    silent = replace(noting, sources=NoteSource.NONE)
    outcome = silent.run(noting.start())
    assert find_difference(noting.run(noting.start()), outcome) == "relevant"
    assert outcome.relevant is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["phonebook", "staged"])
def test_states_that_were_not_run_are_as_it_was_said(name: str, unbrick_releases: Releases) -> None:
    search = search_target(find_noting(name, unbrick_releases), Bounds(depth=1))
    tried = try_states(search, Random(0), 40, most_cuts=1, find=find_ignoring)
    assert tried.difference == ""
    assert tried.unrun > 10


@pytest.mark.slow
def test_loads_that_are_not_noted_are_found_by_running_states(unbrick_releases: Releases) -> None:
    deaf = replace(
        find_noting("phonebook", unbrick_releases), sources=NoteSource.ALL & ~NoteSource.LOADS
    )
    search = search_target(deaf, Bounds(depth=1))
    assert try_states(search, Random(0), 60, most_cuts=1, find=find_ignoring).difference


def change_for_people(server: ServerState, dice: Random) -> ServerState:
    """The same server with other times and texts, wherever it decides nothing by them."""

    def change(item: Any) -> Any:
        kept = {name: getattr(item, name) for name in FOR_PEOPLE[type(item).__name__]}
        return replace(
            item,
            **{name: "?" if name == "text" else dice.uniform(0, 1e6) for name in kept},
        )

    return replace(server, **{part: tuple(map(change, getattr(server, part))) for part in PARTS})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["staged", "commanded", "migrated"])
def test_the_server_asks_neither_times_nor_texts(name: str, unbrick_releases: Releases) -> None:
    """In particular not when it has last heard of a terminal, before the session's time began."""
    target, dice = find_noting(name, unbrick_releases), Random(3)
    for case, state in list_middles(target)[1:]:
        other = State(state.cells, change_for_people(state.peers, dice))
        assert target.peers_key(other) == target.peers_key(state)
        name = find_difference(target.run(state), target.run(other), Ignored("marks"))
        assert not name, f"{case}: {name}"
