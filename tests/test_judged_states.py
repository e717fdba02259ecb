"""What a session on a microcontroller reads is noted, all of it: nothing else has a say."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from judged_states import find_difference, scramble, search_target
from test_ab_updater import build

from unbrick.campaign.behaviour import BehaviourSearch
from unbrick.campaign.book import UNIT
from unbrick.campaign.refute import try_states
from unbrick.campaign.run import open_pool, run_campaign
from unbrick.campaign.search import Bounds
from unbrick.campaign.target import Outcome, State
from unbrick.engine.base import NoteSource
from unbrick.engine.mcu import McuEngine
from unbrick.errors import EngineError
from unbrick.target.target import FileTarget

CHIPS = ("nrf52840", "stm32f103")
ONE_CUT = Bounds(depth=1)
STATES = 60
SOURCES = (NoteSource.LOADS, NoteSource.FETCHES, NoteSource.TRANSFERS, NoteSource.HOST)
"""Those that have a say in this session; test_chip_notes.py has the flash controllers, too."""

HEADER_END = 44

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Example:
    """The example on a chip, how its update goes without a power cut, and after one.

    Attributes:
        target: it is.
        state: a start.
        outcome: of the session from there.
    """

    target: FileTarget
    state: State
    outcome: Outcome


@pytest.fixture(scope="module", params=CHIPS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    """It also has to leave some flash blank, that nobody but the judge looks at."""
    path = build(tmp_path_factory.mktemp(request.param), request.param)
    last = {"nrf52840": 0xF_F000, "stm32f103": 0x0801_FC00}[request.param]
    with path.open("a", encoding="utf-8") as file:
        file.write(f'flash = {{ at = {last:#x}, hex = "ffffffff" }}\n')
    target = FileTarget.load(path)
    state = target.start()
    return Example(target, state, target.run(state))


def leave_out(source: NoteSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed an error into the engine: it does not note what this source reads."""
    note_reads = McuEngine.note_reads
    monkeypatch.setattr(
        McuEngine, "note_reads", lambda engine: note_reads(engine, NoteSource.ALL & ~source)
    )


def rerun_scrambled(example: Example) -> str:
    """How a session goes otherwise when all that it has not noted holds something else."""
    said = example.target.run(example.state)
    assert said.relevant is not None
    other = scramble(example.state, said.relevant, Random(1))
    with example.target.create_engine() as engine:
        return find_difference(said, example.target.run(other, engine=engine))


def test_what_was_not_noted_has_no_say(example: Example) -> None:
    assert rerun_scrambled(example) == ""


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_not_noted_is_found(
    source: NoteSource, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(source, monkeypatch)
    assert rerun_scrambled(example)


def test_what_is_erased_before_it_is_read_has_no_say(example: Example) -> None:
    """The update erases the other slot and reads it then; boot has read no more than its header."""
    slot = {"ab-nrf52840": 0x5000, "ab-stm32f103": 0x4000}[example.target.name]
    programs = [op.offset for op in example.outcome.ops if op.kind == "word"]
    body = {offset // UNIT for offset in programs if offset >= slot + HEADER_END}
    assert len(body) > 100
    assert example.outcome.relevant is not None
    assert not any(example.outcome.relevant >> unit & 1 for unit in body)


def test_noting_changes_nothing(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(McuEngine, "note_reads", lambda _: None)
    silent = example.target.run(example.state, engine=example.target.create_engine())
    assert find_difference(example.outcome, silent) == "relevant"
    assert silent.relevant == 0


@pytest.fixture(scope="module")
def search(example: Example) -> BehaviourSearch:
    return search_target(example.target, ONE_CUT)


def test_states_that_were_not_run_are_as_it_was_said(search: BehaviourSearch) -> None:
    tried = try_states(search, Random(0), STATES, most_cuts=1)
    assert tried.difference == ""
    assert tried.unrun > STATES // 4


def test_loads_that_are_not_noted_are_found_by_running_states(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(NoteSource.LOADS, monkeypatch)
    tried = try_states(search_target(example.target, ONE_CUT), Random(0), 400, most_cuts=1)
    assert tried.difference


def test_any_number_of_jobs_finds_the_same(example: Example) -> None:
    here = run_campaign(example.target, bounds=ONE_CUT)
    with open_pool(2) as workers:
        there = run_campaign(example.target, workers, ONE_CUT)
    assert [case.id for case in here.cases] == [case.id for case in there.cases]
    assert here.statement == there.statement
    assert len(here.cases) < here.transitions / 10


def test_the_first_contents_can_only_be_noted_from_power_on(example: Example) -> None:
    with example.target.create_engine() as engine:
        engine.power_on()
        with pytest.raises(EngineError, match="cannot begin under power"):
            engine.note_reads()
