"""The search by relevance against a search that runs every state, on firmwares from a seed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from random import Random
from typing import Any

import pytest
from judged_states import find_unfollowed
from toy_target import ToyTarget

from unbrick.campaign import behaviour, walk
from unbrick.campaign.behaviour import (
    Behaviour,
    BehaviourSearch,
    CountedFields,
    Cover,
    KnownSessions,
)
from unbrick.campaign.book import UNIT, Book, find_units
from unbrick.campaign.case import CaseId
from unbrick.campaign.graph import Erasure
from unbrick.campaign.run import Here
from unbrick.campaign.search import Bounds, Case, Search, find_successors
from unbrick.campaign.target import Fate, MemoryMark, Outcome, State
from unbrick.errors import ToolBrokenError
from unbrick.flash.cells import Cells
from unbrick.flash.geometry import CheckCells, FlashGeometry
from unbrick.flash.ops import FlashOp
from unbrick.flash.torn import Shape
from unbrick.flash.trace import OP, Trace

GEOMETRY = FlashGeometry((12, 12), unit=4)
"""Two blocks of three units."""

CHECKED = FlashGeometry((16, 16, 8), unit=4, checks=(CheckCells(0, 32, 32, UNIT),))
"""Two blocks of four units, and their check cells: a unit for each block."""

UNITS = 6  # that a firmware uses
MOST_STATES = 300
FIRMWARES = 25
AFTER_ALL = 1 << 31
"""An operation after all of a session."""

PATTERNS = (b"\x00\x00\x00\x00", b"\xfe\xff\xff\xff", b"\xff\xff\x00\x00")


@dataclass(frozen=True)
class Line:
    """One line of a firmware: ``kind`` is read, erase, program or brick.

    Attributes:
        at: a unit, or a block to erase.
        data: what is programmed.
        next: the lines that may follow, by what was read.
    """

    kind: str
    at: int = 0
    data: bytes = b""
    next: tuple[int, ...] = ()


def make_firmware(dice: Random, lines: int = 10) -> tuple[Line, ...]:
    """A firmware that only jumps forward, so it ends."""
    kinds = dice.choices(("read", "erase", "program", "brick"), (8, 4, 7, 1), k=lines)
    made = []
    for number, kind in enumerate(kinds):
        after = tuple(dice.randint(number + 1, lines) for _ in range(3 if kind == "read" else 1))
        at = dice.randrange(2 if kind == "erase" else UNITS)
        made.append(Line(kind, at, dice.choice(PATTERNS), after))
    return tuple(made)


def find_places(geometry: FlashGeometry, op: FlashOp) -> list[tuple[int, int]]:
    """Offset and length of what an operation touches."""
    return [(part.offset, part.length) for part in geometry.list_parts(op)]


def find_touched(geometry: FlashGeometry, op: FlashOp) -> int:
    """The same as a set of units."""
    return reduce(or_, (find_units(*place) for place in find_places(geometry, op)))


def run(firmware: tuple[Line, ...], state: State, fate: Fate) -> Outcome:
    """A session, noting what it reads. A read of a unit is one of its check cell, too."""
    cells = state.cells.readable(fate.resolution)
    geometry, block = cells.geometry, cells.geometry.block_sizes[0]
    ops: list[FlashOp] = []
    relevant, erased, at, said = 0, 0, 0, ""
    while at < len(firmware) and firmware[at].kind != "brick":
        line = firmware[at]
        at = line.next[0]
        if line.kind == "read":
            op = FlashOp(0, "word", line.at * UNIT, UNIT, 3, 0, 0, PATTERNS[0])
            value = b"".join(cells.read(*place) for place in find_places(geometry, op))
            relevant |= find_touched(geometry, op) & ~erased
            said += value.hex()
            at = line.next[sum(value) % len(line.next)]
            continue
        if line.kind == "erase":
            op = FlashOp(len(ops), "erase", line.at * block, block, 3, 0, 0)
            erased |= find_touched(geometry, op)
        else:
            op = FlashOp(len(ops), "word", line.at * UNIT, UNIT, 3, 0, 0, line.data)
        ops.append(op)
        cells = cells.after([op])
    violation = ("bricked", "") if at < len(firmware) else None
    marks = [MemoryMark(0, None)]
    return Outcome(violation, "", ops, marks, None, 0, 0, said, relevant=relevant)


def pack(ops: Sequence[FlashOp]) -> Trace:
    """Operations as an engine keeps them: so the search walks over their cuts in C."""
    kinds, records, data = {0: "erase", 1: "word"}, b"", b""
    for op in ops:
        kind = op.kind == "word"
        records += OP.pack(kind, op.lanes, op.offset, op.length, op.failed, 0, 0, len(data))
        data += op.data
    return Trace(records, data, kinds)


def make_target(
    seed: int, geometry: FlashGeometry = GEOMETRY, *, packed: bool = False
) -> ToyTarget:
    dice = Random(seed)
    firmware = make_firmware(dice)
    first = State(Cells.of(dice.randbytes(UNITS * UNIT), geometry))

    def session(state: State, fate: Fate) -> Outcome:
        outcome = run(firmware, state, fate)
        return replace(outcome, ops=pack(outcome.ops)) if packed else outcome

    return ToyTarget(session, first)


def find_difference(seed: int, geometry: FlashGeometry = GEOMETRY, *, packed: bool = False) -> str:
    """What the search by relevance says otherwise than one that runs every state; empty: nothing.

    The other search runs the first states that it meets, in every way of reading their weak cells.
    """
    target = make_target(seed, geometry, packed=packed)

    def submit(state: State, fate: Fate) -> Future[Outcome]:
        return Here().submit(target.run, state, fate)

    exact = Search(target, target.start(), submit, Bounds(exact=True, states=MOST_STATES))
    list(exact.cases())
    every = list(target.started)
    search = BehaviourSearch(target, target.start(), submit)
    list(search.cases())
    for state, fate in every:
        behaviours = search.judge(state)
        if behaviours is None:
            return "a state that nobody judged"
        said = behaviours[min(fate.resolution, len(behaviours) - 1)].outcome
        outcome = target.session(state, fate)
        if (said.ops, said.console) != (outcome.ops, outcome.console):
            return "another session"
        if said.violation != outcome.violation:
            return "another verdict"
    return find_unfollowed(search)


@pytest.fixture(autouse=True)
def short_sessions_may_lean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviour, "LONG", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("geometry", "packed"),
    [(GEOMETRY, False), (CHECKED, False), (GEOMETRY, True)],
    ids=["plain", "checked", "in C"],
)
def test_what_was_not_run_is_judged_as_if_it_had_been(
    geometry: FlashGeometry,
    packed: bool,
) -> None:
    found = {seed: find_difference(seed, geometry, packed=packed) for seed in range(FIRMWARES)}
    assert {seed: text for seed, text in found.items() if text} == {}


def count_all(seed: int, *, packed: bool) -> tuple[int, ...]:
    """Sessions, members, cuts, and where these were counted."""
    target = make_target(seed, packed=packed)
    search = BehaviourSearch(
        target, target.start(), lambda state, fate: Here().submit(target.run, state, fate)
    )
    cases = list(search.cases())
    judged, followed = (sum(getattr(case, of) for case in cases) for of in ("judged", "successors"))
    return len(cases), search.result.states, search.result.transitions, judged, followed


@pytest.mark.slow
def test_a_walk_in_c_counts_what_a_walk_by_single_cuts_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What is spared depends on the order in which states are met, which is another one.
    monkeypatch.setattr(BehaviourSearch, "_find_end", lambda *_: AFTER_ALL)
    for seed in range(FIRMWARES):
        assert count_all(seed, packed=True) == count_all(seed, packed=False), seed


def test_a_state_that_differs_where_nothing_reads_is_not_run() -> None:
    """The session erases the second block before it reads there; the first unit decides."""
    firmware = (
        Line("read", 0, next=(1, 1, 1)),
        Line("erase", 1, next=(2,)),
        Line("program", 3, PATTERNS[0], (3,)),
        Line("read", 3, next=(4, 4, 4)),
    )
    target = ToyTarget(
        lambda state, fate: run(firmware, state, fate), State(Cells.of(b"\x5a" * 24, GEOMETRY))
    )
    search = BehaviourSearch(
        target, target.start(), lambda state, fate: Here().submit(target.run, state, fate)
    )
    assert len(list(search.cases())) == 1
    assert (search.result.states, search.result.transitions) == (1, 12)
    assert search.result.closed


@pytest.mark.parametrize("packed", [False, True], ids=["singly", "in C"])
@pytest.mark.parametrize("seed", [8, 18, pytest.param(7, marks=pytest.mark.slow)])
def test_each_power_cut_is_counted_where_it_leads(seed: int, packed: bool) -> None:
    target = make_target(seed, packed=packed)
    search = BehaviourSearch(
        target, target.start(), lambda state, fate: Here().submit(target.run, state, fate)
    )
    first, *others = cases = list(search.cases())
    # A state has one case for each way of reading that differs.
    assert search.result.transitions <= sum(case.judged for case in cases)
    assert (first.after, first.first_op) == (None, None)
    for number, case in enumerate(others, 1):
        assert case.after in [before.id for before in cases[:number]]
    # Followed from the start, by hand: which session leads to which, and at which operation first.
    led: dict[tuple[CaseId, CaseId], int] = {}
    todo, known = deque(search.judge(target.start()) or ()), set()
    while todo:
        user = todo.popleft()
        if user in known or user.outcome.violation:
            continue
        known.add(user)
        for member in user.members:
            for found, state in find_successors(member.case, member.state, user.outcome):
                for led_to in search.judge(state) or ():
                    edge = user.case.id, led_to.case.id
                    led[edge] = min(led.get(edge, sys.maxsize), found.cuts[-1].op)
                    todo.append(led_to)
    assert {case.id: case.first_op for case in others} == {
        case.id: led[case.after, case.id] for case in others if case.after
    }


@pytest.mark.parametrize("seed", [8, 18])
def test_a_search_by_key_counts_them_too(seed: int) -> None:
    target = make_target(seed)
    search = Search(
        target,
        target.start(),
        lambda state, fate: Here().submit(target.run, state, fate),
        Bounds(exact=True),
    )
    first, *others = cases = list(search.cases())
    assert search.result.transitions == sum(case.judged for case in cases if not case.id.resolution)
    assert first.after is None
    assert all(case.judged for case in others)
    assert {case.after for case in others} <= {case.id for case in cases}


TAG, ASKED, FURTHER = 0, 3, 4
"""Units: which of the stories is told, and what two of these ask for."""

FEW, SOME = 0xFFFF_000F, 0xFFFF_00FF
MASK = 0xFFFF_FFFE


def put(unit: int, value: int) -> tuple[int, int]:
    """Program a unit."""
    return unit, value


def begin(tag: str) -> tuple[int, int]:
    """Program the tag."""
    return TAG, int.from_bytes(tag.encode() * UNIT, "little")


CLEAR = (-1, 0)
"""Erase the block with the tag."""

STORIES = {
    "A": [CLEAR, begin("U"), CLEAR, begin("L"), CLEAR, begin("G"), put(5, FEW)],
    # K and U of G have all of FURTHER, and D has less.
    "G": [
        *(put(ASKED, FEW), put(FURTHER, SOME), CLEAR, begin("K"), CLEAR, begin("U")),
        *(CLEAR, put(FURTHER, FEW), begin("D"), put(5, SOME)),
    ],
    # The session of L is the end of that of U.
    "U": [CLEAR, begin("Y"), CLEAR, begin("K"), CLEAR, begin("D")],
    "L": [CLEAR, begin("K"), CLEAR, begin("D")],
}


def list_ops(plan: Sequence[tuple[int, int]]) -> list[FlashOp]:
    """What a story does."""
    return [
        FlashOp(number, "erase", 0, 12, 3, 0, 0)
        if (unit, value) == CLEAR
        else FlashOp(number, "word", unit * UNIT, UNIT, 3, 0, 0, value.to_bytes(UNIT, "little"))
        for number, (unit, value) in enumerate(plan)
    ]


def tell(state: State, _fate: Fate) -> Outcome:
    """A session that does what the tag says. K and D ask for more, and Y for something else."""

    def read(unit: int) -> int:
        return int.from_bytes(state.cells.read(unit * UNIT, UNIT), "little")

    tag, relevant, violation = chr(read(TAG) & 0xFF), 1 << TAG, None
    plan = STORIES.get(tag, [])
    relevant |= {"K": 1 << ASKED, "D": 1 << ASKED, "Y": 1 << FURTHER}.get(tag, 0)
    if tag == "K" and read(ASKED) == FEW:
        relevant |= 1 << FURTHER
        violation = ("bricked", "") if read(FURTHER) == SOME & MASK else None
    if tag == "D" and read(ASKED) == FEW:
        plan = [put(FURTHER, MASK), CLEAR, begin("L")]
    said = f"{tag} {read(ASKED):x}" if tag in "KD" else tag
    marks = [MemoryMark(0, None)]
    ops = pack(list_ops(plan))
    return Outcome(violation, "", ops, marks, None, 0, 0, said, relevant=relevant)


def test_who_first_leads_to_what_comes_to_need_more_looks_again() -> None:
    """A walk finds that U leads to K and then to D. That it does to K has D need more.

    For L shares the cuts of U, and D leads to L. Who leads to D only from now on must know.
    """
    target = ToyTarget(tell, State(Cells.of(b"AAAA", GEOMETRY)))
    bounds = Bounds(shapes="none")

    def submit(state: State, fate: Fate) -> Future[Outcome]:
        return Here().submit(target.run, state, fate)

    exact = Search(target, target.start(), submit, replace(bounds, exact=True))
    list(exact.cases())
    assert exact.result.violations
    search = BehaviourSearch(target, target.start(), submit, bounds)
    list(search.cases())
    assert search.result.violations
    assert find_unfollowed(search) == ""


TAGS, VALUES, ASKABLE = "ABCDEF", (FEW, SOME, MASK), (3, 4, 5)


def make_stories(seed: int) -> ToyTarget:
    """Stories from a seed: many end alike, and some ask for a unit and may be another one then.

    A peer remembers one thing, which some stories change, and which others go by.
    """
    dice = Random(seed)

    def steps(count: int) -> list[tuple[int, int]]:
        kinds = dice.choices((True, False), k=count)
        ways = (
            [CLEAR, begin(dice.choice(TAGS))]
            if clears
            else [put(dice.choice(ASKABLE), dice.choice(VALUES))]
            for clears in kinds
        )
        return [step for way in ways for step in way]

    end = steps(dice.randint(1, 3))
    stories = {tag: steps(dice.randint(0, 2)) + end * (dice.random() < 0.6) for tag in TAGS}
    asked = {tag: dice.choice(ASKABLE) for tag in TAGS if dice.random() < 0.5}
    wanted, other = dice.choice(VALUES), dice.choice(TAGS)
    movers, shy = (frozenset(dice.sample(TAGS, dice.randint(0, 3))) for _ in range(2))

    def session(state: State, _: Fate) -> Outcome:
        tag = chr(state.cells.read(TAG, 1)[0])
        plan, relevant, said = stories.get(tag, []), 1 << TAG, tag
        if tag in asked:
            value = state.cells.read(asked[tag] * UNIT, UNIT)
            relevant |= 1 << asked[tag]
            said += value.hex()
            if value == wanted.to_bytes(UNIT, "little"):
                plan = [*stories[other], put(asked[tag], MASK)]
        if state.peers and tag in shy:
            plan, said = [], f"{said}, and no more"
        marks = [MemoryMark(0, state.peers ^ (tag in movers))]
        ops = pack(list_ops(plan))
        return Outcome(None, "", ops, marks, None, 0, 0, said, relevant=relevant)

    return ToyTarget(session, State(Cells.of(b"AAAA", GEOMETRY), peers=False))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [None, 2, 3])
def test_stories_are_followed_as_the_proof_asks(depth: int | None) -> None:
    for seed in range(100):
        target = make_stories(seed)
        search = BehaviourSearch(
            target,
            target.start(),
            lambda state, fate, target=target: Here().submit(target.run, state, fate),
            Bounds(shapes="none", depth=depth),
        )
        list(search.cases())
        assert find_unfollowed(search, depth=depth) == "", seed


def no_say(_cells: Cells) -> int:
    return 0


def as_if_at_once(self: Behaviour, erase: Any = Behaviour.list_erasures) -> list[Erasure]:
    return [erasure._replace(before=0) for erasure in erase(self)]


def as_if_all_at_once(self: Behaviour) -> list[Erasure]:
    return [Erasure(0, 0, self.geometry.size // UNIT)]


def before_it_has_ended(
    self: Behaviour, units: int, first: int = 0, find: Any = Behaviour.find_erasing
) -> int:
    return max(first, find(self, units, first) - 1)


def forgetful(firmware: tuple[Line, ...], state: State, fate: Fate, run: Any = run) -> Outcome:
    outcome: Outcome = run(firmware, state, fate)
    assert outcome.relevant is not None
    return replace(outcome, relevant=outcome.relevant & ~0b10)


def cover_all(
    self: Cover, behaviour: Behaviour, fields: CountedFields, init: Any = Cover.__init__
) -> None:
    init(self, behaviour, fields)
    self.is_usable = True


def show_main_cells(
    self: Book, cells: Cells, offset: int, length: int, show: Any = Book.show_range
) -> None:
    if offset < CHECKED.checks[0].first:
        show(self, cells, offset, length)
    self._cells = cells


def as_first_read(
    self: KnownSessions, state: State, _resolution: int, recall: Any = KnownSessions.recall
) -> Behaviour | None:
    run: Behaviour | None = recall(self, state, 0)
    return run


# Each with the seed of a firmware that shows it.
MISTAKES: dict[str, tuple[int, tuple[Any, str, Any]]] = {
    "a read is not noted": (39, (sys.modules[__name__], "run", forgetful)),
    "weak cells have no say": (7, (behaviour, "find_weak_units", no_say)),
    "needs do not flow back": (7, (Behaviour, "list_erasures", as_if_all_at_once)),
    "needs end at a later erase": (41, (Behaviour, "list_erasures", as_if_at_once)),
    "cuts are spared too early": (7, (Behaviour, "find_erasing", before_it_has_ended)),
    "the ends of sessions agree too early": (1, (Behaviour, "find_live", lambda *_: 0)),
    "where ends lead is not noted": (149, (Behaviour, "list_leads", lambda *_: [])),
    "one way of reading is taken for another": (7, (KnownSessions, "recall", as_first_read)),
    "members are not asked again": (7, (BehaviourSearch, "_renew", lambda *_: None)),
}


def without_weak_cells(
    op: FlashOp, geometry: FlashGeometry, variant: str, find: Any = walk.find_shape
) -> Shape:
    moved, weak = find(op, geometry, variant)
    return Shape(moved, bytes(len(weak)))


def test_a_mistake_in_what_c_is_told_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not find_difference(1, packed=True)
    monkeypatch.setattr(walk, "find_shape", without_weak_cells)
    assert find_difference(1, packed=True)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_search_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, change = MISTAKES[mistake]
    monkeypatch.setattr(*change)
    assert find_difference(seed)


CHECK_MISTAKES: dict[str, tuple[int, tuple[Any, str, Any]]] = {
    "what is known of neighbours leaves them out": (4, (Cover, "__init__", cover_all)),
    "the book is not shown them": (4, (Book, "show_range", show_main_cells)),
}


@pytest.mark.parametrize("mistake", CHECK_MISTAKES)
def test_a_mistake_with_check_cells_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, change = CHECK_MISTAKES[mistake]
    assert not find_difference(seed, CHECKED)
    monkeypatch.setattr(*change)
    assert find_difference(seed, CHECKED)


def test_an_engine_that_notes_nothing_is_told() -> None:
    target = make_target(1)
    search = BehaviourSearch(
        target,
        target.start(),
        lambda state, fate: Here().submit(lambda: replace(target.run(state, fate), relevant=None)),
    )
    with pytest.raises(ToolBrokenError, match="has not noted what a session reads"):
        list(search.cases())


@pytest.mark.parametrize(
    ("change", "erased"),
    [({}, [Erasure(1, 0, 3)]), ({"failed": True}, []), ({"lanes": 1}, [])],
    ids=["whole", "failed", "one chip of two"],
)
def test_what_may_be_left_of_was_not_erased(change: dict[str, Any], erased: list[Erasure]) -> None:
    pair = FlashGeometry((12, 12), unit=4, chips=2)
    op = FlashOp(0, "erase", 0, 12, 3, 0, 0)._replace(**change)
    outcome = Outcome(None, "", [op], [MemoryMark(0, None)], None, 0, 0, "", relevant=0)
    case = Case.of(CaseId("toy"), outcome)
    assert Behaviour(case, outcome, 0, weak=False, geometry=pair).list_erasures() == erased
