"""Commanded updates in the campaign: what counts of the NOR, what the judge sees, deaths."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from commanded_records import (
    APPLICATION,
    DIGEST,
    DONE,
    ENTRIES,
    IMAGE,
    KEY,
    SEALED,
    SENT,
    SERIAL,
    WRITES,
    backup,
    records,
    session,
)
from counted_starts import ops_but_for_starts
from hypothesis import given
from hypothesis import strategies as st
from record_log import log
from toy_target import ToyTarget

from unbrick.campaign.case import CaseId, Death, PowerCut
from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.campaign.store import pack, unpack
from unbrick.campaign.target import Fate, MemoryMark, Outcome, State
from unbrick.campaign.verdict import Violation
from unbrick.cli.main import cli
from unbrick.firmware.signed import Releases
from unbrick.flash.cells import Cells
from unbrick.flash.ops import FlashOp
from unbrick.flash.torn import list_variants, tear
from unbrick.layout import reference_layout
from unbrick.reference import canonical, remembered
from unbrick.reference.canonical import Part, Plan, canonicalise, hold_part, make_plan
from unbrick.reference.judge import Judge, check_nothing_left
from unbrick.reference.keys import key_state
from unbrick.reference.layout import find_places
from unbrick.reference.looks import Looks
from unbrick.reference.memory import ServerMemory
from unbrick.reference.scenario import SCENARIOS, Scenario
from unbrick.reference.target import find_target
from unbrick.server.records.people import Actor, AuditEntry
from unbrick.server.records.sessions import (
    Backup,
    SessionState,
)
from unbrick.wire.userdata import seal_backup

LAYOUT = reference_layout()
GEOMETRY, BLOCK = find_places().geometry, find_places().block
USERDATA = LAYOUT.partition("userdata").offset
JOURNAL = LAYOUT.partition("journal").offset


def nor(application: bytes = b"", *, phase: int = 4, saved: tuple[str, ...] = ()) -> Cells:
    """A NOR whose journal is in a phase, with an application and saved words."""
    cells = Cells.of(b"", GEOMETRY).with_range(JOURNAL, log(bytes([phase])))
    if saved:
        cells = cells.with_range(USERDATA, log(*(word.encode() for word in saved)))
    return cells.with_range(APPLICATION, application) if application else cells


def program(at: int, data: bytes) -> FlashOp:
    return FlashOp(0, "buffer", at, len(data), 3, 0.0, 0.0, data)


def plan(written: int, *to_erase: int) -> Plan:
    """The plan when so many of its writes are over."""
    writes = ((*write, number < written) for number, write in enumerate(WRITES))
    return make_plan(IMAGE, tuple(writes), frozenset(to_erase))


PLAN = plan(0)

# What counts --------------------------------------------------------------------------------------


def test_a_write_that_was_torn_counts_as_one_that_is_to_come() -> None:
    before = nor(IMAGE[: 2 * 896])
    op = program(WRITES[2][0], IMAGE[2 * 896 : 3 * 896])
    after = before.after([op])
    one = canonicalise(before, plan(2))
    assert {
        canonicalise(tear(before, op, variant), plan(2)) for variant in list_variants(op, GEOMETRY)
    } == {one}
    assert canonicalise(after, plan(2)) == one, "it is given again when its result is not known"
    assert canonicalise(after, plan(3)) not in {one, canonicalise(before, plan(3))}


def test_what_is_over_must_be_sure() -> None:
    before = nor(IMAGE[: 2 * 896])
    op = program(WRITES[2][0], IMAGE[2 * 896 : 3 * 896])
    after = canonicalise(before.after([op]), plan(3))
    assert after not in {
        canonicalise(tear(before, op, way), plan(3)) for way in list_variants(op, GEOMETRY)
    }


def test_what_cannot_be_made_right_by_programming_counts_cell_by_cell() -> None:
    wrong = nor(IMAGE[:896] + bytes(896))
    also = nor(IMAGE[:896] + b"\x01" + bytes(895))
    assert len({canonicalise(cells, plan(1)) for cells in (nor(IMAGE[:896]), wrong, also)}) == 3


def test_what_is_still_to_be_erased_does_not_count() -> None:
    erasing = plan(0, APPLICATION)
    assert canonicalise(nor(bytes(999)), erasing) == canonicalise(nor(b"\x01" * 999), erasing)
    assert canonicalise(nor(bytes(999)), PLAN) != canonicalise(nor(b"\x01" * 999), PLAN)


def is_repaired_first(cells: Cells) -> bool:
    return canonical.is_repaired_first(hold_part(cells, Part.JOURNAL))


def test_it_makes_no_difference_what_was_compared_before() -> None:
    op = program(WRITES[2][0], IMAGE[2 * 896 : 3 * 896])
    before = nor(IMAGE[: 2 * 896])
    cells = [before, *(tear(before, op, way) for way in list_variants(op, GEOMETRY)), nor(IMAGE)]
    states = [(each, steps) for each in cells for steps in (plan(2), plan(3), None)]
    forms = [(is_repaired_first(each), canonicalise(each, steps)) for each, steps in states]
    again = [
        (is_repaired_first(each), canonicalise(each, steps)) for each, steps in reversed(states)
    ]
    assert again == forms[::-1]
    assert len({form for _, form in forms}) > 3


@pytest.mark.parametrize("phase", [0, 1, 2, 3])
def test_without_a_command_it_counts_how_far_a_check_of_the_image_comes(
    unbrick_releases: Releases, phase: int
) -> None:
    whole = unbrick_releases.signed["1.1.0"]

    def counts_as(there: bytes) -> object:
        return canonicalise(nor(there, phase=phase), PLAN)

    blank, torn, begun, nearly, unsigned, valid = (
        counts_as(there)
        for there in (b"", bytes(896), whole[:896], whole[:-200], whole[:-4], whole)
    )
    assert len({blank, torn, begun, nearly, unsigned, valid}) == 6
    assert begun == counts_as(whole[:1792]) == counts_as(whole[:40] + bytes(800))
    assert nearly == counts_as(whole[:5000] + b"\0" + whole[5001:]), "the hash is wrong"
    assert canonicalise(nor(whole[:896]), None) != canonicalise(nor(), None), "nor without a plan"


def repairing(position: int, *extra: bytes) -> object:
    """The key of a state with more in the journal than one record, so many writes being over."""
    cells = nor(IMAGE[: position * 896])
    tail = 64 + 64
    for number, slot in enumerate(extra):
        cells = cells.with_range(JOURNAL + tail + 64 * number, slot)
    server = records(*[DONE] * (3 + position), SENT).snapshot()
    return key_state(State(cells, server), {DIGEST: IMAGE})


def test_what_boot_repairs_first_counts_once_for_all_steps() -> None:
    assert repairing(1) != repairing(2), "how far it is counts"
    assert repairing(1, b"torn") == repairing(2, b"torn"), "boot repairs that before all else"
    assert repairing(1, b"torn") not in {repairing(1), repairing(2)}
    weak = nor(IMAGE[:896]).with_range(JOURNAL + 128, b"\xff" * 64, b"\x01" * 64)
    assert is_repaired_first(weak)
    assert not is_repaired_first(nor(IMAGE[:896]))
    assert not is_repaired_first(nor(IMAGE[:896], phase=1).with_range(JOURNAL + 128, b"torn"))


def test_a_record_log_of_another_format_is_another() -> None:
    one, two = (nor().with_range(USERDATA, log(b"Alice", layout=layout)) for layout in (1, 2))
    assert canonicalise(one) != canonicalise(two)


# What a server remembers --------------------------------------------------------------------------


def test_what_a_server_remembers_can_be_taken_and_put_back() -> None:
    state = records(DONE, DONE, SENT).snapshot()
    other = ServerMemory()
    other.put_back(state)
    assert other.snapshot() == state
    assert other.sealed(1) == SEALED
    other.delete_backup(1, Actor("server", 4.0))
    assert other.snapshot().backups == ()
    again = other.add_backup(backup(), SEALED, Actor("server", 5.0))
    assert again.id == 2, "ids never come back"
    assert other.snapshot().canonical == state.canonical


def test_an_outcome_with_a_session_is_read_as_it_was_written() -> None:
    states = [records(DONE, DONE, *[DONE] * count, SENT).snapshot() for count in range(6)]
    cells = nor()
    marks = [MemoryMark(number, state) for number, state in enumerate(states)]
    final = State(cells, states[-1])
    outcome = Outcome(None, "application", [], marks, 1.0, 2.0, 3.0, "text", 0.05, final)
    target = cast(
        "Any", SimpleNamespace(pack_peers=remembered.pack, unpack_peers=remembered.unpack)
    )
    packed = pack(outcome, target, lambda data: data.hex())
    assert unpack(packed, target, State(cells, states[0]), bytes.fromhex) == outcome
    plain = zlib.decompress(packed)
    assert len(json.loads(plain)["peers"]["rows"]) < 40, "records that are the same are kept once"


def test_what_makes_a_difference_is_told_apart() -> None:
    here = records(DONE, DONE, SENT).snapshot()
    others = [
        records(DONE, DONE, DONE).snapshot(),
        records(DONE, DONE, SENT, outcome=SessionState.FAILED).snapshot(),
        records(DONE, DONE, SENT, sealed=None).snapshot(),
        records(DONE, DONE, SENT, state=SessionState.CANCELLED).snapshot(),
    ]
    assert here.canonical not in {other.canonical for other in others}
    late = [replace(step, changed=99.0, text="x") for step in here.steps]
    same = replace(here, steps=tuple(late), sessions=(session(changed=99.0, command=7),))
    assert same.canonical == here.canonical


def test_the_plan_is_that_of_the_session_under_way() -> None:
    images = {DIGEST: IMAGE}
    assert records(DONE, DONE, DONE).snapshot().plan(images) == PLAN
    assert records(DONE, DONE, DONE, DONE, SENT).snapshot().plan(images) == plan(1)
    assert records(DONE, DONE, SENT).snapshot().plan(images) == plan(0, APPLICATION)
    assert records(state=SessionState.SUCCEEDED).snapshot().plan(images) is None
    with pytest.raises(KeyError):
        records().snapshot().plan({})
    unknown = State(nor(), records().snapshot())
    assert key_state(unknown, {}) == (unknown.cells, unknown.peers.canonical), (
        "what cannot be judged counts cell by cell"
    )


# The judge ----------------------------------------------------------------------------------------

SCENARIO = Scenario("test", "", saved=(("Alice", "12345"),), updates=("1.1.0",), commanded=True)
SAVED = ("Alice 12345",)


def judge(store: ServerMemory, cells: Cells) -> Judge:
    image = cells.image()
    engine = SimpleNamespace(
        board=LAYOUT.board,
        read_memory=lambda address, length: image[address - LAYOUT.board.nor.base :][:length],
        ops=[],
    )
    story = SimpleNamespace(store=store, scenario=SCENARIO, link_is_bad=False)
    looks = Looks(cast("Any", engine), wanted=True)
    return Judge(cast("Any", story), cast("Any", engine), cells, KEY, looks)


def looks(store: ServerMemory, cells: Cells) -> None:
    judge(store, cells).look(store.snapshot())


def test_a_good_server_is_passed() -> None:
    looks(records(DONE, SENT), nor(saved=SAVED))
    looks(records(DONE, DONE, DONE), nor())
    looks(records(DONE, DONE, DONE, DONE, SENT), nor(IMAGE[:900]))
    looks(records(*[DONE] * (3 + len(WRITES))), nor(IMAGE))
    # Once it is decided, or not commanded any more, the steps are history.
    looks(records(DONE, DONE, DONE, DONE, outcome=SessionState.FAILED), nor())
    looks(records(DONE, DONE, DONE, DONE), nor(phase=1))


@pytest.mark.parametrize(
    ("kind", "store", "cells"),
    [
        ("server-lies", records(DONE, DONE, DONE), nor(IMAGE)),
        ("server-lies", records(DONE, DONE, DONE, SENT), nor(IMAGE[:897])),
        ("server-lies", records(DONE, DONE, DONE, DONE), nor(IMAGE[:895])),
        ("server-lies", records(DONE, DONE, DONE, DONE, DONE), nor(IMAGE[:1700])),
        ("server-lies", records(DONE, DONE, SENT, SENT), nor()),
        ("data-lost", records(DONE, SENT, sealed=None), nor()),
        ("data-lost", records(DONE, SENT, sealed=None), nor(saved=("Alice",))),
        ("data-lost", records(sealed=seal_backup([], KEY, SERIAL, 1)), nor()),
        ("data-lost", records(sealed=seal_backup(ENTRIES, KEY, SERIAL, 2)), nor(saved=SAVED)),
        ("data-lost", records(sealed=seal_backup(ENTRIES, b"k" * 32, SERIAL, 1)), nor(saved=SAVED)),
        ("data-read", records(sealed=b"Alice" + SEALED), nor(saved=SAVED)),
        ("data-read", records(sealed=b"12345" + SEALED), nor(saved=SAVED)),
        ("data-left", records(state=SessionState.SUCCEEDED), nor(saved=SAVED)),
    ],
)
def test_the_judge_sees(kind: str, store: ServerMemory, cells: Cells) -> None:
    if kind == "data-lost" and not store.backups():
        looks(store, nor(saved=SAVED))
    with pytest.raises(Violation) as seen:
        looks(store, cells)
    assert seen.value.kind == kind


def test_the_judge_does_not_trust_weak_cells() -> None:
    whole = nor(saved=SAVED)
    at = USERDATA + whole.read(USERDATA, 128).index(b"Alice")
    weak = whole.with_range(at, b"A", b"\x01")
    assert next(weak.readings()).read(at, 1) == whole.read(at, 1)
    looks(records(DONE, SENT), weak)
    store = records(DONE, SENT, sealed=None)
    looks(store, whole)
    with pytest.raises(Violation, match="is nowhere"):
        looks(store, weak)


def test_the_judge_reads_the_audit() -> None:
    store = records(DONE, SENT)
    sees = judge(store, nor(saved=SAVED))
    sees.look(store.snapshot())
    store.read_backup(1, Actor("server", 4.0))
    store.delete_backup(1, Actor("server", 5.0))
    sees.look(store.snapshot())
    store.tables[AuditEntry].add(store.audit()[-1])
    with pytest.raises(Violation, match="backup deleted") as seen:
        sees.look(replace(store.snapshot(), messages=()))
    assert seen.value.kind == "unaudited"


def test_the_judge_misses_what_is_not_in_the_audit() -> None:
    store = records(DONE, SENT)
    sees = judge(store, nor(saved=SAVED))
    sees.look(store.snapshot())
    store.tables[Backup].remove(id=1)
    with pytest.raises(Violation, match="by the audit") as seen:
        sees.look(store.snapshot())
    assert seen.value.kind == "unaudited"


def test_nothing_may_be_left() -> None:
    check_nothing_left(records())
    with pytest.raises(Violation, match="is left"):
        check_nothing_left(records(state=SessionState.CANCELLED))


# With the real firmware ---------------------------------------------------------------------------

COMMANDED = sorted(
    scenario.name
    for scenario in SCENARIOS.values()
    if scenario.commanded and not scenario.sizes  # Those are in test_campaign.py.
)


@pytest.fixture(scope="module")
def firmware(unbrick_releases: Releases) -> Path:
    """The folder of the build."""
    return unbrick_releases.elf_files[0].parent


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDED)
def test_without_a_fault_it_ends_well(unbrick_releases: Releases, name: str) -> None:
    result = run_campaign(find_target(name, unbrick_releases), bounds=Bounds(depth=0, deaths=0))
    assert result.violations == [], result.statement
    assert len(result.cases) == 1


def test_software_that_nobody_has_signed_is_refused_whatever_happens(
    unbrick_releases: Releases,
) -> None:
    result = run_campaign(find_target("commandedforged", unbrick_releases))
    assert result.violations == [], result.statement
    assert result.closed
    assert result.deaths > 3
    assert not any(ops_but_for_starts(case.outcome.ops) for case in result.cases)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["migrated", "recalled"])
def test_power_and_server_may_be_lost(unbrick_releases: Releases, name: str) -> None:
    bounds = Bounds(depth=1, states=6, deaths=2)
    result = run_campaign(find_target(name, unbrick_releases), bounds=bounds)
    assert result.violations == [], result.statement
    assert {case.id.death.when for case in result.cases if case.id.death} == {"", "said", "late"}
    assert {case.depth for case in result.cases} == {0, 1}


def test_a_death_of_the_server_can_be_replayed(firmware: Path) -> None:
    words = ["replay", "commandedforged!2-late", "--firmware", str(firmware)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "DIES when it has said so" in done.output
    assert "step 1, prepare: sent" in done.output
    assert CliRunner().invoke(cli, ["replay", "commandedforged!x"]).exit_code == 2


@pytest.mark.slow
def test_deaths_of_the_server_are_measured_and_kept(firmware: Path, tmp_path: Path) -> None:
    words = ["campaign", "commandedforged", "--jobs", "1", "--firmware", str(firmware)]
    measured = CliRunner().invoke(cli, [*words, "--coverage", "--json"])
    assert measured.exit_code == 0, measured.output
    lines = json.loads(measured.stdout)["coverage"]
    assert lines
    runs = [CliRunner().invoke(cli, [*words, "--json", "--out", str(tmp_path)]) for _ in range(2)]
    first, again = (json.loads(run.stdout) for run in runs)
    assert first.pop("timings")["reused"] == 0
    assert again.pop("timings")["reused"] == again["totals"]["sessions"]
    assert first == again
    assert "deaths of the server" in first["scenarios"][0]["statement"]


# Deaths of the server -----------------------------------------------------------------------------

deaths = st.none() | st.builds(Death, st.integers(0, 300), st.sampled_from(["", "said", "late"]))


@given(deaths, deaths, st.none() | st.integers(0, 99))
def test_a_case_id_says_when_the_server_dies(
    first: Death | None, then: Death | None, link: int | None
) -> None:
    case = CaseId("commanded", (PowerCut(3, "weak", None, 1, then),), link, first)
    assert CaseId.parse(str(case)) == case
    assert case.death == then
    assert case.with_death(None).death is None
    assert replace(case, cuts=()).death == first


def invented(state: State, fate: Fate) -> Outcome:
    """A session that changes the server's mind three times and writes twice, whatever happens."""
    marks = [MemoryMark(count // 2, (count, fate.death)) for count in range(4)]
    ops = [program(APPLICATION, b"\0" * 4), program(APPLICATION + 8, b"\0" * 4)]
    return Outcome(None, "application", ops, marks, None, 1.0, 0.0)


def test_a_death_is_searched_once_however_long_messages_are_on_their_way() -> None:
    """With power nothing of a message depends on how far the NOR is when it leaves."""

    def slow(state: State, fate: Fate) -> Outcome:
        outcome = invented(state, fate)
        ops = [op._replace(start=at + 0.1, end=at + 0.2) for at, op in enumerate(outcome.ops)]
        marks = [replace(mark, time=float(mark.ops)) for mark in outcome.marks]
        return replace(outcome, ops=ops, marks=marks, flight=9.0)

    toy = ToyTarget(slow, State(nor(), ()), mortal=True)
    result = run_campaign(toy, bounds=Bounds(depth=0, shapes="none"))
    assert len(result.cases) == len({case.id for case in result.cases}) == 10
    some = run_campaign(toy, bounds=Bounds(depth=0, shapes="none", deaths=3))
    assert {case.id.death.change for case in some.cases if case.id.death} == {1, 2, 3}


def test_the_server_dies_at_each_change_of_its_mind() -> None:
    toy = ToyTarget(invented, State(nor(), ()), mortal=True)
    result = run_campaign(toy, bounds=Bounds(depth=0, shapes="none"))
    assert {str(case.id) for case in result.cases} == {
        "toy",
        *(f"toy!{change}{when}" for change in (1, 2, 3) for when in ("", "-said", "-late")),
    }
    assert result.deaths == 9
    assert "9 deaths of the server" in result.statement
    some = run_campaign(toy, bounds=Bounds(depth=0, shapes="none", deaths=1))
    assert some.deaths == 3
    immortal = replace(toy, mortal=False)
    assert run_campaign(immortal, bounds=Bounds(depth=0, shapes="none")).deaths == 0


def test_a_few_deaths_cover_every_stage_of_the_server() -> None:
    """A hundred writes are one stage, however many of the changes of mind are theirs."""

    def writing(_: State, __: Fate) -> Outcome:
        stages = ["told", *(["write"] * 100), "check", "restart"]
        marks = [MemoryMark(0, (stage, at)) for at, stage in enumerate(stages)]
        return Outcome(None, "application", [], marks, None, 1.0, 0.0)

    class Staged(ToyTarget):
        def name_stage(self, state: State) -> str:
            return str(state.peers[0])

    toy = Staged(writing, State(nor(), ()), mortal=True)
    result = run_campaign(toy, bounds=Bounds(depth=0, shapes="none", deaths=4))
    died = {case.id.death.change for case in result.cases if case.id.death}
    assert {101, 102, 1} < died
    assert len(died) == 4
