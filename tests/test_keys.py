"""Keys that are remembered tell the same states apart as those that are found one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from commanded_records import DIGEST, IMAGE, WRITES, records
from hypothesis import given, settings
from hypothesis import strategies as st
from record_log import log

from unbrick.campaign.case import CaseId
from unbrick.campaign.search import find_cuts, find_successors
from unbrick.campaign.target import MemoryMark, Outcome, State
from unbrick.flash.cells import Cells
from unbrick.flash.ops import FlashOp
from unbrick.reference import keys as reference_keys
from unbrick.reference.canonical import Part, list_parts
from unbrick.reference.keys import RememberedKeys, key_state
from unbrick.reference.layout import find_places
from unbrick.server.records.sessions import SessionState, StepState

if TYPE_CHECKING:
    from unbrick.reference.memory import ServerState

PLACES = find_places()
GEOMETRY, BLOCK = PLACES.geometry, PLACES.block
APPLICATION, JOURNAL, USERDATA, STARTS = (
    part.offset for part in (PLACES.application, PLACES.journal, PLACES.userdata, PLACES.starts)
)
OTHERS = [number * BLOCK for number in PLACES.plain_blocks]
IMAGES = {DIGEST: IMAGE}
CASE = CaseId("keys")
JOURNALS = [log(bytes([phase])) for phase in (0, 1, 4)]
DONE, SENT = StepState.DONE, StepState.SENT
SERVERS: list[ServerState | None] = [
    None,
    records(state=SessionState.SUCCEEDED).snapshot(),
    *(records(*[DONE] * count, SENT).snapshot() for count in (2, 3, 4, 5)),
    records(DONE, DONE, outcome=SessionState.FAILED).snapshot(),
    replace(records(DONE, DONE, SENT).snapshot(), counts=()),
    records(digest=hashlib.sha256(b"nobody knows it").digest()).snapshot(),
]
"""Some without an update, some at other steps of it, one whose image is not known."""


def program(at: int, data: bytes, failed: int = 0) -> FlashOp:
    return FlashOp(0, "buffer", at, len(data), 3, 0.0, 0.0, data, failed)


def erase(at: int, length: int = BLOCK) -> FlashOp:
    return FlashOp(0, "erase", at, length, 3, 0.0, 0.0)


def make_outcome(ops: list[FlashOp], servers: list[ServerState | None]) -> Outcome:
    """A session in which the server changes its mind between the operations."""
    timed = [
        op._replace(index=at, start=float(at), end=at + 0.5)  # as engines have them
        for at, op in enumerate(ops)
    ]
    marks = [MemoryMark(at, server, float(at)) for at, server in enumerate(servers)]
    return Outcome(None, "application", timed, marks, 1.0, 2.0, 3.0, flight=1.2)


class Comparison:
    """Keys that are remembered, held against those that are not."""

    def __init__(self) -> None:
        self.keys = RememberedKeys(IMAGES)
        self.numbers: dict[Hashable, Hashable] = {}
        self.plain: dict[Hashable, Hashable] = {}

    def compare(self, state: State, number: Hashable) -> None:
        """A number stands for a key, and for no other one."""
        key = key_state(state, IMAGES)
        assert self.numbers.setdefault(key, number) == number
        assert self.plain.setdefault(number, key) == key

    def follow(self, state: State, outcome: Outcome, shapes: str = "usual") -> list[State]:
        """What power cuts in a session leave: all of that is held against each other."""
        self.compare(state, self.keys.find(state))
        left = self.keys.follow(state.cells, outcome.ops)
        found = list(find_successors(CASE, state, outcome, shapes=shapes))
        for case, successor in found:
            cut = case.cuts[-1]
            self.compare(successor, left.find_key(cut.op, cut.torn, successor.peers))
            assert left.make_cells() == successor.cells
        return [successor for _, successor in found]


PLACES_OF_WEAK = [
    *(JOURNAL + at for at in (0, 64, 128, BLOCK)),
    *(APPLICATION + at for at in (0, 896, 3 * 896 + 7)),
    *(USERDATA + at for at in (0, 64, 190)),
    *(STARTS + at for at in (0, 4)),
    *OTHERS[:2],
    *(JOURNAL - 3, APPLICATION - 2, USERDATA - 1, STARTS + BLOCK - 2),
]
"""The last ones lie across the borders of partitions."""

OPERATIONS = [
    *(program(JOURNAL + at, bytes([at % 7]) * 64) for at in (64, 128, 192)),
    *(program(JOURNAL + 64, half[64:128]) for half in JOURNALS),
    *(program(JOURNAL + BLOCK, half[:64]) for half in JOURNALS),
    *(program(at, IMAGE[at - APPLICATION :][:size]) for at, size in WRITES[:4]),
    program(APPLICATION + 100, b"\xff" * 20 + bytes(60)),
    program(USERDATA + 64, log(b"Alice")[64:]),
    program(USERDATA + 128, b"Bob".ljust(64, b"\0")),
    *(program(STARTS + at, bytes([0xFF, 0xFE << at & 0xFF, 0xFF, 0xFF])) for at in (0, 4)),
    program(STARTS, b"\xfe\xff\xff\xff"),
    *(program(at, b"\x12\x34\x56\x78") for at in OTHERS[:2]),
    *map(erase, (JOURNAL, JOURNAL + BLOCK, APPLICATION, USERDATA, STARTS, OTHERS[0])),
    erase(JOURNAL + BLOCK, 2 * BLOCK),
    *(program(JOURNAL + 128, bytes(64), failed) for failed in (0, 1)),
]
"""The last one ends with an error, and the third last is in two parts."""


@st.composite
def cells(draw: st.DrawFn) -> Cells:
    """A NOR with something in each of its parts."""
    made = Cells.of(b"", GEOMETRY)
    journal = draw(st.sampled_from([b"", *JOURNALS, JOURNALS[2] + b"torn"]))
    written = draw(st.sampled_from([0, 896, 2 * 896, 2000, len(IMAGE)]))
    starts = draw(st.sampled_from([b"", b"\xf8", b"\xe8", b"\xff" * 4 + b"\xfe"]))
    for at, held in (
        (JOURNAL, journal),
        (APPLICATION, IMAGE[:written]),
        (USERDATA, draw(st.sampled_from([b"", log(b"Alice"), log(b"Bob") + b"torn"]))),
        (STARTS, starts),
        (OTHERS[0], draw(st.sampled_from([b"", b"boot"]))),
    ):
        made = made.with_range(at, held)
    masks = st.sampled_from([b"\x01", b"\x10\x02", b"\x0f\0\0\0\0\0\0\0\xf0", b"\xff" * 64])
    for at in draw(st.lists(st.sampled_from(PLACES_OF_WEAK), max_size=3)):
        mask = draw(masks)
        made = made.with_range(at, made.read(at, len(mask)), mask)
    return made


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """A session of a few operations."""
    ops = draw(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=5))
    servers = draw(st.lists(st.sampled_from(SERVERS), min_size=1, max_size=4))
    return make_outcome(ops, servers)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data(), st.lists(cells(), min_size=1, max_size=2), st.sampled_from(["usual", "few"]))
def test_remembered_keys_are_those_that_are_found_one_by_one(
    data: st.DataObject, nors: list[Cells], shapes: str
) -> None:
    """Sessions that do the same from one state and from another, and from what one has left."""
    compared = Comparison()
    outcome = data.draw(outcomes())
    left = [
        successor
        for nor in nors
        for successor in compared.follow(State(nor, outcome.marks[0].peers), outcome, shapes)
    ]
    after = data.draw(st.sampled_from(left))
    compared.follow(after, outcome, shapes)
    compared.follow(after, data.draw(outcomes()), shapes)


@pytest.mark.parametrize("part", Part)
def test_weak_cells_of_each_part_are_found_and_made_sure(part: Part) -> None:
    """Torn in the first session, and written or erased in the second."""
    compared = Comparison()
    ops = [op for op in OPERATIONS if list_parts()[op.offset // BLOCK] is part and not op.failed]
    start = State(Cells.of(b"", GEOMETRY).with_range(JOURNAL, JOURNALS[2]), SERVERS[3])
    outcome = make_outcome(ops, SERVERS[2:5])
    weak = [state for state in compared.follow(start, outcome) if state.cells.weak]
    assert weak
    for state in weak[:: max(1, len(weak) // 8)]:
        compared.follow(state, outcome)


def make_hollow() -> Cells:
    """Weak cells whose range has none any more at its beginning, in the application."""
    before = Cells.of(b"", GEOMETRY).with_range(JOURNAL, JOURNALS[2])
    wide = before.with_range(APPLICATION, bytes([0xFE, *[0xFF] * 5, 0xFE]), b"\x01\0\0\0\0\0\x01")
    split = wide.with_range(APPLICATION + 6, b"\0")
    hollow = split.with_range(APPLICATION, b"\0")
    assert [mask for _, mask in hollow.weak] == [bytes(5)]
    return hollow


@pytest.mark.parametrize("at", [JOURNAL + 128, APPLICATION + 896, STARTS])
def test_a_program_anywhere_has_empty_ranges_of_weak_cells_forgotten(at: int) -> None:
    compared = Comparison()
    for server in SERVERS[:4]:
        outcome = make_outcome([erase(OTHERS[0]), program(at, b"\xf0" * 64)], [server])
        left = compared.follow(State(make_hollow(), server), outcome)
        assert left[0].cells.weak
        assert not left[-1].cells.weak


def test_an_operation_that_fails_is_another_one() -> None:
    compared = Comparison()
    start = State(Cells.of(b"", GEOMETRY).with_range(JOURNAL, JOURNALS[0]), SERVERS[1])
    for failed in (0, 1, 0):
        record = program(JOURNAL + 128, JOURNALS[1][64:128], failed)
        compared.follow(start, make_outcome([record, erase(OTHERS[0])], SERVERS[1:2]))


def test_what_is_remembered_has_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is forgotten at times, in the middle of a session, too."""
    monkeypatch.setattr(reference_keys, "MOST_REMEMBERED", 20_000)
    compared = Comparison()
    outcome = make_outcome(OPERATIONS[:14], SERVERS[1:5])
    start = State(Cells.of(b"", GEOMETRY), SERVERS[1])
    for _ in range(2):
        compared.follow(start, outcome)
        assert len(cast("Any", compared.keys)._contents) < len(OPERATIONS)


def test_a_session_that_was_followed_is_not_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = Comparison()
    outcome = make_outcome(OPERATIONS[:14], SERVERS[:5])
    start = State(Cells.of(b"", GEOMETRY).with_range(JOURNAL, JOURNALS[2]), SERVERS[3])
    compared.follow(start, outcome)
    cuts = list(find_cuts(CASE, outcome, GEOMETRY))
    for name in ("tear", "hold_part", "hold_under_command", "join", "key_state"):
        monkeypatch.delattr(reference_keys, name)
    left = compared.keys.follow(start.cells, outcome.ops)
    for case, server in cuts:
        left.find_key(case.cuts[-1].op, case.cuts[-1].torn, server)
