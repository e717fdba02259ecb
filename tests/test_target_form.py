"""A target's own canonical form: what it may say, and what a search with it comes to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_target_load import PLAIN
from test_target_load import load as load_target_file
from toy_target import ToyTarget

from unbrick.campaign.behaviour import BehaviourSearch
from unbrick.campaign.book import UNIT, find_units
from unbrick.campaign.run import Here
from unbrick.campaign.search import Bounds, find_successors
from unbrick.campaign.target import MemoryMark, Outcome, State
from unbrick.errors import SetupError
from unbrick.flash.cells import Cells
from unbrick.flash.geometry import FlashGeometry
from unbrick.flash.ops import FlashOp
from unbrick.target.description import Description

GEOMETRY = FlashGeometry((8, 8), unit=4)
"""Two blocks of two units: a number and a value in each."""

FORM = "[canonical]\nfile = 'form.py'\nfields = {}\n"
FIELD = "[{ at = 0x08000400, size = 8 }]"


def load(folder: Path, text: str) -> Description:
    return load_target_file(folder, PLAIN + text)


def write_form(folder: Path, body: str, fields: str = FIELD) -> str:
    """A function ``canonical`` in a file, and the table that names it."""
    (folder / "form.py").write_text(f"def canonical(fields):\n    {body}\n")
    return FORM.format(fields)


def test_a_form_gives_fields_other_contents(tmp_path: Path) -> None:
    body = "fields.put(0x08000404, fields.word(0x08000400) + 1 & 0xFF)"
    form = load(tmp_path, write_form(tmp_path, body)).form
    assert form is not None
    cells = Cells.of(bytes(0x400) + b"\5\0\0\0" + bytes(8), _geometry(tmp_path))
    assert form.apply(cells).read(0x400, 12).hex() == "050000000600000000000000"
    assert form.apply(cells).read(0, 0x400) == bytes(0x400)


def test_a_form_sees_weak_cells(tmp_path: Path) -> None:
    body = "fields.put(0x08000404, 7) if fields.may_be(0x08000400, 5) else None"
    form = load(tmp_path, write_form(tmp_path, body)).form
    assert form is not None
    cells = Cells.of(b"", _geometry(tmp_path))
    blank = cells.with_range(0x400, b"\xff" * 4, b"\xfa\xff\xff\xff")
    assert form.apply(blank).read(0x404, 4) == b"\7\0\0\0"
    assert form.apply(cells) == cells


def _geometry(folder: Path) -> FlashGeometry:
    return load(folder, "").chip.geometry


@pytest.mark.parametrize(
    ("body", "fields", "says"),
    [
        ("fields.word(0x08000800)", FIELD, "0x8000800, which is in none of the fields"),
        ("1 / 0", FIELD, "fails: ZeroDivisionError"),
        ("pass", "[]", "`fields` is (wrong|missing)"),
        ("pass", "[{ at = 0x08000402, size = 4 }]", "not whole words of one erase block"),
        ("pass", "[{ at = 0x080003fc, size = 8 }]", "not whole words of one erase block"),
        ("pass", FIELD.replace("}]", "}, { at = 0x08000404, size = 4 }]"), "or is there twice"),
        ("pass\n\ncanonical = 1", FIELD, "has no function canonical"),
    ],
)
def test_a_form_that_is_wrong_is_told(tmp_path: Path, body: str, fields: str, says: str) -> None:
    with pytest.raises(SetupError, match=says):
        load(tmp_path, write_form(tmp_path, body, fields))


def test_another_form_is_another_target(tmp_path: Path) -> None:
    one = load(tmp_path, write_form(tmp_path, "pass")).digest
    (tmp_path / "other").mkdir()
    other = load(tmp_path / "other", write_form(tmp_path / "other", "return")).digest
    assert one != other


class Ranks:
    """The numbers of the two blocks count by which is larger, and not at all where they are 0."""

    ranges: Sequence[tuple[int, int]] = ((0, 4), (8, 4))

    def apply(self, cells: Cells) -> Cells:
        """Cells that count as the same."""
        numbers = [int.from_bytes(cells.read(*place), "little") for place in self.ranges]
        known = sorted({number for number in numbers if number != BLANK})
        for place, number in zip(self.ranges, numbers, strict=True):
            counted = BLANK if number == BLANK else known.index(number) + 1
            cells = cells.with_range(place[0], counted.to_bytes(UNIT, "little"))
        return cells


BLANK = 0xFFFF_FFFF


class Tops(Ranks):
    """A form that is wrong: all numbers count as the same."""

    def apply(self, cells: Cells) -> Cells:
        """Cells that count as the same."""
        for offset, length in self.ranges:
            if cells.read(offset, length) != b"\xff" * length:
                cells = cells.with_range(offset, b"\1\0\0\0")
        return cells


@dataclass(frozen=True)
class FormedToy(ToyTarget):
    """A toy with a form."""

    form: Ranks | None = field(default_factory=Ranks)


def count_up(state: State, _: object = None) -> Outcome:
    """Write the older block anew, with a number that is larger by one; the value comes first."""
    cells = state.cells
    numbers = [int.from_bytes(cells.read(at, UNIT), "little") for at in (0, 8)]
    known = [number for number in numbers if number != BLANK]
    newest = max(known, default=0)
    block = numbers.index(newest) if known else 1
    older = 8 * (1 - block)
    number = (newest + 1).to_bytes(UNIT, "little")
    ops = [
        FlashOp(0, "erase", older, 8, 3, 0, 0),
        FlashOp(1, "word", older + UNIT, UNIT, 3, 0, 0, b"\5\5\5\5"),
        FlashOp(2, "word", older, UNIT, 3, 0, 0, number),
    ]
    held = cells.read(8 * block + UNIT, UNIT)
    wrong = bool(known) and held != b"\5\5\5\5"
    relevant = find_units(0, UNIT) | find_units(8, UNIT) | find_units(8 * block + UNIT, UNIT)
    violation = ("bricked", "") if wrong else None
    return Outcome(violation, "", ops, [MemoryMark(0, None)], None, 0, 0, relevant=relevant)


def search(target: ToyTarget, sessions: int = 200) -> BehaviourSearch:
    bounds = Bounds(shapes="none", states=sessions)
    found = BehaviourSearch(
        target, target.start(), lambda *what: Here().submit(target.run, *what), bounds
    )
    list(found.cases())
    return found


def test_a_counter_ends_only_with_a_form() -> None:
    first = State(Cells.of(b"\1\0\0\0\5\5\5\5", GEOMETRY))
    endless = search(FormedToy(count_up, first, form=None))
    assert not endless.result.closed
    ended = search(FormedToy(count_up, first))
    assert ended.result.closed
    assert "as the target's own form counts states" in ended.result.statement
    assert not ended.result.violations
    assert len(ended.result.cases) < 10


def find_refuted(found: BehaviourSearch, target: ToyTarget, most: int = 300) -> str:
    """Run states as they are, not as they count: the first whose verdict the search has not said.

    Empty: there is none.
    """
    waiting, seen = deque([target.start()]), 0
    while waiting and seen < most:
        state, seen = waiting.popleft(), seen + 1
        said = found.judge(state)
        outcome = target.session(state, None)  # type: ignore[arg-type]
        if said is None:
            return "nobody judged it"
        if said[0].outcome.violation != outcome.violation:
            return "another verdict"
        if outcome.violation is None:
            case = found.result.cases[0].id
            waiting += [after for _, after in find_successors(case, state, outcome, shapes="none")]
    return ""


def test_what_counts_as_known_is_as_it_was_said() -> None:
    first = State(Cells.of(b"\1\0\0\0\5\5\5\5", GEOMETRY))
    target = FormedToy(count_up, first)
    assert not find_refuted(search(target), target)


def test_a_form_that_is_wrong_is_found() -> None:
    first = State(Cells.of(b"\1\0\0\0\5\5\5\5", GEOMETRY))
    target = FormedToy(count_up, first, form=Tops())
    assert find_refuted(search(target), target)
