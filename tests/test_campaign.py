"""The campaign's search: sound where it calculates, complete where it says so, and repeatable."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from counted_starts import ops_but_for_starts
from hypothesis import given
from hypothesis import strategies as st
from toy_target import ToyTarget

from unbrick.campaign.case import CaseId, PowerCut
from unbrick.campaign.run import Workers, open_pool, run_campaign, run_links
from unbrick.campaign.search import (
    Bounds,
    find_state_after,
    find_successors,
    follow,
    minimise,
    spread,
    spread_cuts,
)
from unbrick.campaign.target import MemoryMark, Outcome
from unbrick.campaign.verdict import Violation
from unbrick.engine.inprocess import InProcessEngine
from unbrick.engine.qemu.engine import QemuEngine
from unbrick.errors import MissingToolError, SetupError
from unbrick.flash.cells import Cells
from unbrick.flash.ops import FlashOp
from unbrick.flash.torn import list_variants, tear
from unbrick.layout import reference_layout
from unbrick.reference import canonical
from unbrick.reference.canonical import canonicalise
from unbrick.reference.checks import check_transfers
from unbrick.reference.layout import find_places
from unbrick.reference.links import make_bad_link
from unbrick.reference.scenario import SCENARIOS, find_scenario
from unbrick.reference.session import run_session
from unbrick.reference.story import MOST_TRANSFERS, Bystander, Story
from unbrick.reference.target import ReferenceTarget, find_target
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.campaign.target import State
    from unbrick.firmware.signed import Releases

LAYOUT = reference_layout()
GEOMETRY, BLOCK, APPLICATION = (
    find_places().geometry,
    find_places().block,
    find_places().application,
)
STAGED = find_scenario("staged")


@pytest.fixture(scope="module")
def engine(unbrick_releases: Releases) -> Iterator[InProcessEngine]:
    with InProcessEngine(unbrick_releases.elf_files) as made:
        assert isinstance(made, InProcessEngine)
        yield made


@pytest.fixture(scope="module")
def staged(engine: InProcessEngine, unbrick_releases: Releases) -> tuple[State, Outcome]:
    """The golden session of the staged update, and where it begins."""
    start = find_target("staged", unbrick_releases).start()
    return start, run_session(engine, unbrick_releases, STAGED, start)


@pytest.fixture(scope="module")
def phonebook(unbrick_releases: Releases) -> ReferenceTarget:
    return find_target("phonebook", unbrick_releases)


cuts = st.builds(
    PowerCut,
    op=st.integers(0, 999),
    torn=st.sampled_from(["", "weak", "first-word"]),
    resolution=st.integers(0, 2),
) | st.builds(PowerCut, op=st.integers(0, 999), change=st.integers(0, 20))


def test_cells_know_what_reads_as_they_do() -> None:
    image = bytearray(b"\xff" * LAYOUT.board.nor.modelled)
    image[5], image[LAYOUT.board.nor.block_size + 7] = 0x12, 0x34
    cells = Cells.of(bytes(image), GEOMETRY)
    assert cells.reads_as(bytes(image))
    for offset in (0, 5, 6, LAYOUT.board.nor.block_size + 7, LAYOUT.board.nor.modelled - 1):
        other = bytearray(image)
        other[offset] ^= 0x40
        assert not cells.reads_as(bytes(other))
    assert not cells.reads_as(bytes(image[:-1]))


@given(st.lists(cuts, max_size=5), st.none() | st.integers(0, 10**6))
def test_a_case_id_names_its_case(path: list[PowerCut], link: int | None) -> None:
    case = CaseId("staged", tuple(path), link)
    assert CaseId.parse(str(case)) == case


@pytest.mark.parametrize(
    "text", ["staged/x", "staged/1-", "staged~x/1", "staged/1+9+9", "staged//"]
)
def test_what_is_no_case_id_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="not a case ID"):
        CaseId.parse(text)


@pytest.mark.slow
def test_a_real_cut_leaves_what_the_trace_says(
    engine: InProcessEngine, unbrick_releases: Releases, staged: tuple[State, Outcome]
) -> None:
    """The tool checks itself: calculated cells against cells of a terminal that lost power."""
    start, golden = staged
    for op in sorted(random.Random(1).sample(range(len(golden.ops)), 6)):
        engine.power_off()
        engine.forget()
        engine.load_nor(start.cells.image())
        engine.cut_before_op(op)
        with pytest.raises(Violation):  # a terminal without power does not come back
            Story(engine, unbrick_releases, STAGED, start.peers).run()
        assert engine.cut_reached
        engine.power_off()
        engine.cut_before_op(None)
        calculated = find_state_after(CaseId("staged"), PowerCut(op), start, golden)
        assert engine.read_nor() == calculated.cells.image()


def test_the_same_session_twice_is_the_same(
    engine: InProcessEngine, unbrick_releases: Releases, staged: tuple[State, Outcome]
) -> None:
    start, golden = staged
    assert run_session(engine, unbrick_releases, STAGED, start) == golden


def test_a_session_after_the_end_writes_nothing(
    engine: InProcessEngine, unbrick_releases: Releases, staged: tuple[State, Outcome]
) -> None:
    final = staged[1].final
    assert final is not None
    ops = run_session(engine, unbrick_releases, STAGED, final).ops
    assert ops_but_for_starts(ops) == []
    assert len(ops) == 1


def test_a_confirmation_that_was_not_sealed_is_written_again_and_is_another_state(
    engine: InProcessEngine, unbrick_releases: Releases, staged: tuple[State, Outcome]
) -> None:
    start, golden = staged
    *_, sealing = golden.ops
    cut = find_state_after(CaseId("staged"), PowerCut(len(golden.ops) - 1), start, golden)
    again = run_session(engine, unbrick_releases, STAGED, cut)
    slots = [(op.offset - sealing.offset) // 64 for op in ops_but_for_starts(again.ops)[1:]]
    assert slots == [-1, 0, 1, 2]  # the log is affirmed, then the record and its seal
    assert again.final is not None
    assert golden.final is not None
    assert canonicalise(cut.cells) != canonicalise(golden.final.cells)
    assert canonicalise(again.final.cells) == canonicalise(golden.final.cells)


def test_an_update_that_never_happens_is_a_violation(unbrick_releases: Releases) -> None:
    """1.2.0 fails its trial and is taken back: nobody has said that this is to be."""
    wanted = replace(find_scenario("fallback"), ends_with=())
    target = ReferenceTarget(wanted, unbrick_releases)
    violation = target.run(target.start()).violation
    assert violation is not None
    assert violation[0] == "not-updated"
    assert "1.0.0 runs where 1.2.0 is wanted" in violation[1]
    assert "trial failed" in violation[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if SCENARIOS[name].sizes])
def test_images_of_more_than_one_block_are_rewritten_and_survive_cuts(
    unbrick_releases: Releases, name: str
) -> None:
    """Without faults, and the quicker ones with a few cuts; `unbrick campaign` makes the others."""
    target = find_target(name, unbrick_releases)
    image, block = target.releases.signed["1.1.0"], find_places().block
    ((blocks, rest),) = [size for version, *size in target.scenario.sizes if version == "1.1.0"]
    assert len(image) == blocks * block + rest
    depth = int(name in {"bordering", "large"})
    result = run_campaign(target, bounds=Bounds(depth=depth, states=4, deaths=0))
    assert result.violations == [], result.statement
    erased = {op.offset for op in result.cases[0].outcome.ops if op.kind == "erase"}
    start = find_places().application.offset
    old = target.releases.signed["1.0.0"]
    differing = {at for at in range(0, len(image), block) if image[at:][:block] != old[at:][:block]}
    assert {start + at for at in differing} == erased & set(range(start, start + len(image)))


def test_what_lies_behind_an_image_is_no_violation(
    engine: InProcessEngine, unbrick_releases: Releases, staged: tuple[State, Outcome]
) -> None:
    """A torn erase of the next block may leave it; no hash covers it."""
    final = staged[1].final
    assert final is not None
    behind = APPLICATION.offset + BLOCK + 64
    state = replace(final, cells=final.cells.with_range(behind, b"\x5a" * 512))
    outcome = run_session(engine, unbrick_releases, STAGED, state)
    assert outcome.violation is None
    assert ops_but_for_starts(outcome.ops) == []


def test_a_small_search_closes(phonebook: ReferenceTarget) -> None:
    result = run_campaign(phonebook)
    assert result.violations == []
    assert result.closed
    assert result.transitions > result.states > 1


@pytest.mark.slow
def test_one_process_and_two_find_the_same(phonebook: ReferenceTarget) -> None:
    found = []
    for jobs in (1, 2):
        with open_pool(jobs) as workers:
            result = run_campaign(phonebook, workers, Bounds(depth=1))
        found.append([(str(case.id), case.outcome) for case in result.cases])
    assert found[0] == found[1]


def test_a_search_without_end_can_be_bounded() -> None:
    """A toy that writes another cell in every session never comes to an end."""

    def write_the_next(state: State, _: object) -> Outcome:
        op = word(0x100000 + 4 * len(state.cells.blocks[4]), b"\0" * 4)
        return Outcome(None, "application", [op], [MemoryMark(0, None)], None, 1.0, 0.0)

    toy = ToyTarget(write_the_next)
    result = run_campaign(toy, bounds=Bounds(depth=0))
    assert not result.closed
    assert "0 power cuts deep" in result.statement
    assert "1 power cut deep" in run_campaign(toy, bounds=Bounds(depth=1)).statement
    result = run_campaign(toy, bounds=Bounds(states=9))
    assert result.states == 9
    assert not result.closed


def test_a_bounded_search_takes_a_sample_of_the_whole_session() -> None:
    """400 writes, of which 40 states are searched: the toy's session is the same in all."""
    ops = [word(0x100000 + 4 * i, b"\0" * 4)._replace(index=i) for i in range(400)]

    def write_all(state: State, _: object) -> Outcome:
        return Outcome(None, "application", ops, [MemoryMark(0, None)], None, 1.0, 0.0)

    def search(seed: int) -> tuple[list[int], str]:
        bounds = Bounds(depth=1, states=40, shapes="none", seed=seed)
        result = run_campaign(ToyTarget(write_all), bounds=bounds)
        assert (result.states, result.met, result.closed) == (40, 401, False)
        return sorted(case.id.cuts[0].op for case in result.cases[1:]), result.statement

    found, statement = search(0)
    assert statement.startswith("40 of 401 states, ")
    assert found[0] <= 1
    assert found[-1] >= 380
    assert max(b - a for a, b in pairwise(found)) <= 20
    assert search(7)[0] == search(7)[0] != found


@pytest.mark.parametrize(
    ("flight", "cuts"),
    [
        (0.0, {"2@1"}),
        (0.05, {"1-half@1", "2@1"}),
        (0.2, {"1@1", "1-half@1", "2@1"}),
        (0.3, {"0-half@1", "1@1", "1-half@1", "2@1"}),
    ],
)
def test_what_was_sent_before_a_power_cut_arrives(flight: float, cuts: set[str]) -> None:
    """The peers hear of the second write at 1.32 s; how early was that said?"""
    times = [(1.0, 1.1), (1.2, 1.3), (2.0, 2.1)]
    ops = [
        word(0x100000 + 4 * at, b"\0" * 4)._replace(index=at, start=start, end=end)
        for at, (start, end) in enumerate(times)
    ]
    marks = [MemoryMark(0, "before"), MemoryMark(2, "told", 1.32)]
    outcome = Outcome(None, "application", ops, marks, None, 3.0, 0.0, flight=flight)
    start = ToyTarget(lambda _, __: outcome).start()
    found = {
        str(case).removeprefix("toy/"): (state.cells, state.peers)
        for case, state in find_successors(CaseId("toy"), start, outcome)
    }
    every = {cut.replace("half", way) for cut in cuts for way in list_variants(ops[0], GEOMETRY)}
    assert {cut for cut in found if cut.endswith("@1")} == every
    for cut in cuts:
        assert found[cut] == (found[cut.removesuffix("@1")][0], "told")


@given(st.lists(st.lists(st.integers(), max_size=40), max_size=6), st.integers(0, 9))
def test_every_item_has_its_turn(groups: list[list[int]], seed: int) -> None:
    named = [[(number, at) for at in range(len(group))] for number, group in enumerate(groups)]
    ordered = spread(named, seed)
    assert sorted(ordered) == [item for group in named for item in group]
    firsts = [group[0] for group in named if group]
    assert ordered[: len(firsts)] == firsts
    for count in range(1, len(ordered)):
        turns = [number for number, _ in ordered[:count]]
        unfinished = [number for number in set(turns) if turns.count(number) < len(named[number])]
        counts = {turns.count(number) for number in unfinished}
        assert len(counts) <= 2
        assert not counts or max(counts) - min(counts) <= 1


places_and_kinds = st.tuples(st.sampled_from("abc"), st.sampled_from("kinds"))


@given(st.lists(places_and_kinds, max_size=60), st.integers(0, 9))
def test_places_take_turns_and_kinds_in_each(cuts: list[tuple[str, str]], seed: int) -> None:
    found = [(place, kind, (place, kind, at)) for at, (place, kind) in enumerate(cuts)]
    ordered = spread_cuts(found, seed)
    assert sorted(ordered) == sorted(cut for *_, cut in found)
    places = {place for place, _ in cuts}
    assert {place for place, *_ in ordered[: len(places)]} == places
    for place in places:
        of_place = [cut for cut in ordered if cut[0] == place]
        kinds = {kind for kind, other in ((kind, other) for other, kind in cuts) if other == place}
        assert {kind for _, kind, _ in of_place[: len(kinds)]} == kinds


def test_a_small_sample_has_every_place_and_kind() -> None:
    found = [(place, kind, place + kind) for place in "abcde" for kind in "ABCDE" for _ in range(9)]
    sample = spread_cuts(found, 0)[:5]
    assert {place for place, _ in sample} == set("abcde")
    assert {kind for _, kind in sample} == set("ABCDE")


@pytest.mark.slow
def test_a_transfer_may_end_when_its_update_has_succeeded(unbrick_releases: Releases) -> None:
    case = CaseId.parse("selfrestore/45-weak/4@2+1/46-weak+1")
    target = find_target(case.scenario, unbrick_releases)
    *_, (_, _, outcome) = follow(case, target.start(), target.run)
    assert outcome.violation is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["foreigncommanded/138@99", "dying!1-late"])
def test_nothing_is_wrong_with(unbrick_releases: Releases, name: str) -> None:
    """Boot starts no image for other hardware; a server that was long away knows what it missed."""
    case = CaseId.parse(name)
    target = find_target(case.scenario, unbrick_releases)
    *_, (_, _, outcome) = follow(case, target.start(), target.run)
    assert outcome.violation is None


@pytest.mark.parametrize("late", [True, False])
def test_a_transfer_that_is_given_up_counts_until_its_update_has_succeeded(*, late: bool) -> None:
    succeeded = SimpleNamespace(id=7, state=UpdateState.SUCCEEDED)
    going = SimpleNamespace(id=7, state=UpdateState.TRANSFERRING)
    marks = [
        MemoryMark(0, SimpleNamespace(updates=(going,)), 0.0),
        MemoryMark(0, SimpleNamespace(updates=(succeeded,)), 2.0),
    ]
    report = SimpleNamespace(result=Result.TRANSFER_GAVE_UP, update_id=7, text="gave up")
    story = SimpleNamespace(
        link_is_bad=False,
        absence=SimpleNamespace(was_long=False),
        store=SimpleNamespace(updates=lambda _: [succeeded]),
        link=SimpleNamespace(reports=[(3.0 if late else 1.0, report)]),
    )
    with nullcontext() if late else pytest.raises(Violation, match="update 7 was given up"):
        check_transfers(cast("Any", story), marks)


def test_a_restoration_in_vain_is_told_in_the_terminals_words(unbrick_releases: Releases) -> None:
    said = "boot: rewrite was interrupted\r\nrestoration: refused, the signature is wrong\r\nC"
    console = SimpleNamespace(listeners=[], text=said, write=lambda _: None)
    bystander = Bystander(cast("Any", console), unbrick_releases.signed["1.1.0"])
    bystander._apparatus.transfers = MOST_TRANSFERS + 1
    with pytest.raises(
        Violation, match=r"1\.1\.0\+0 was sent 6 times .* asks for it again"
    ) as found:
        bystander.step(0.0)
    assert found.value.kind == "bricked"
    assert "it says 'restoration: refused, the signature is wrong'" in str(found.value)


@pytest.mark.slow
def test_bad_links_do_no_harm(unbrick_releases: Releases) -> None:
    target = find_target("staged", unbrick_releases)
    result = run_links(target, Workers(), 6)
    assert result.violations == []
    assert {case.id.link for case in result.cases} == set(range(6))
    again = run_links(target, Workers(), 2)
    assert again.cases == [case for case in result.cases if case.id.link in {0, 1}]


def test_a_link_is_what_its_number_says() -> None:
    assert make_bad_link(7, 1) == make_bad_link(7, 1)
    assert len({repr(make_bad_link(number)) for number in range(50)}) == 50


def test_a_failing_case_is_reduced_to_its_faults() -> None:
    case = CaseId.parse("staged~3/5-weak+2/9/12-half+1/3")

    def fails(other: CaseId) -> bool:
        return any(cut.op == 12 for cut in other.cuts)

    assert str(minimise(case, fails)) == "staged/12"


@pytest.mark.slow
@pytest.mark.parametrize("cuts", ["", "/3", "/20-half"])
def test_qemu_ends_a_case_as_the_in_process_engine_does(
    engine: InProcessEngine,
    unbrick_releases: Releases,
    staged: tuple[State, Outcome],
    cuts: str,
) -> None:
    try:
        other = QemuEngine()
    except MissingToolError as error:
        pytest.skip(f"{error} ({error.hint})")
    start, golden = staged
    state = start
    for cut in CaseId.parse("staged" + cuts).cuts:
        state = find_state_after(CaseId("staged"), cut, start, golden)
    here = run_session(engine, unbrick_releases, STAGED, state)
    with other:
        other.load_nor(state.cells.image())
        story = Story(other, unbrick_releases, STAGED, state.peers)
        story.run()
        other.power_off()
        assert here.final is not None
        assert canonicalise(Cells.of(other.read_nor(), GEOMETRY)) == canonicalise(here.final.cells)
        assert story.store.snapshot().canonical == here.final.peers.canonical  # type: ignore[union-attr]


# ---- cells, torn operations, canonical forms


def test_answers_are_kept_as_long_as_what_was_asked_has_its_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(canonical, "CACHE_SIZE", 100)
    asked: list[bytes] = []

    @canonical._keep_some
    def first_byte(parts: tuple[bytes, ...], *, offset: int) -> int:
        asked.append(parts[0])
        return parts[0][offset]

    small, other, big = b"s" * 40, b"o" * 60, b"b" * 61
    for part in (small, other, small, other):
        assert first_byte((part,), offset=1) == part[1]
    assert asked == [small, other]
    assert first_byte((big,), offset=1) == ord("b")  # Both must go for it.
    for part in (big, small, big):
        assert first_byte((part,), offset=1) == part[1]
    assert asked == [small, other, big, small, big], "101 bytes are too many"
    assert first_byte((big,), offset=2) == ord("b")
    assert asked[5:] == [big], "it is another question"


def word(offset: int, data: bytes) -> FlashOp:
    return FlashOp(0, "buffer", offset, len(data), 3, 0.0, 0.0, data)


def erase(offset: int) -> FlashOp:
    return FlashOp(0, "erase", offset, BLOCK, 3, 0.0, 0.0)


BLANK = Cells.of(b"", GEOMETRY)


def test_cells_only_clear_until_they_are_erased() -> None:
    cells = BLANK.after([word(0x100000, b"\xf0" * 4), word(0x100000, b"\x0f" * 4)])
    assert cells.read(0x100000, 4) == b"\0" * 4
    assert cells.after([erase(0x100000)]) == BLANK


def test_a_weak_cell_reads_as_it_likes_until_it_is_cleared_or_erased() -> None:
    torn = tear(BLANK, word(0x100000, b"\0" * 4), "all-weak")
    reads = {torn.image(resolution)[0x100000:0x100004] for resolution in range(3)}
    assert len(reads) == 3
    sure = torn.after([word(0x100000, b"\0" * 4)])
    assert sure.weak == ()
    assert torn.after([erase(0x100000)]) == BLANK


@pytest.mark.parametrize("name", list_variants(word(0, b"\0" * 64), GEOMETRY))
def test_a_torn_program_lies_between_before_and_after(name: str) -> None:
    before = BLANK.after([word(0x100000, b"\x55" * 64)])
    op = word(0x100000, bytes(range(64)))
    after = before.after([op]).read(0x100000, 64)
    for resolution in range(3):
        read = tear(before, op, name).image(resolution)[0x100000:0x100040]
        assert all(a & r == a and r & 0x55 == r for a, r in zip(after, read, strict=True))
        assert tear(before, op, name) == tear(before, op, name)


@pytest.mark.parametrize("name", list_variants(erase(0), GEOMETRY))
def test_a_torn_erase_clears_no_cell_and_touches_no_other_block(name: str) -> None:
    before = BLANK.after([word(0x100000, b"\x3c" * 64), word(0x140000, b"\x3c" * 64)])
    for resolution in range(3):
        torn = tear(before, erase(0x100000), name).image(resolution)
        assert all(byte & 0x3C == 0x3C for byte in torn[0x100000:0x100040])
        assert torn[0x140000:] == before.image()[0x140000:]


def test_states_that_differ_in_what_the_firmware_sees_are_told_apart(
    staged: tuple[State, Outcome],
) -> None:
    start, golden = staged
    final = golden.final
    assert final is not None
    assert canonicalise(start.cells) != canonicalise(final.cells)
    changed = final.cells.with_range(0x100300, b"\0")
    assert canonicalise(changed) != canonicalise(final.cells)
    assert canonicalise(changed) == canonicalise(final.cells.with_range(0x100400, b"\0"))
    user = final.cells.with_range(0x200040, b"\0")
    assert canonicalise(user) != canonicalise(final.cells)
