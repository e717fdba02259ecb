"""The canonical form is closed: of states that count as one, so does all that follows from them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import pytest
from record_log import log

from unbrick.campaign.run import run_campaign
from unbrick.engine.base import NoteSource
from unbrick.flash.cells import RESOLUTIONS, Cells
from unbrick.reference import keys
from unbrick.reference.canonical import Held, canonicalise, join
from unbrick.reference.layout import find_places
from unbrick.reference.target import find_target

if TYPE_CHECKING:
    from unbrick.campaign.search import SearchResult
    from unbrick.firmware.signed import Releases

USERDATA = find_places().userdata.offset
BLANK = Cells.of(b"", find_places().geometry)


def search_exhaustively(name: str, releases: Releases) -> SearchResult:
    target = find_target(name, releases, NoteSource.ALL)
    return run_campaign(target, exhaustive=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first", "phonebook", "deleted", "wornphonebook", "crowded"])
def test_what_counts_as_known_leads_nowhere_else(name: str, unbrick_releases: Releases) -> None:
    result = search_exhaustively(name, unbrick_releases)
    assert result.closed
    assert result.vouched + result.confirmed == result.different > result.states
    assert not result.missed
    assert not result.differed
    assert not result.violations


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first", "wornphonebook"])
def test_a_form_that_numbers_the_ways_of_reading_is_found_out(
    name: str, unbrick_releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which way gives which answer may depend on cells that the form leaves out."""

    def number(parts: Sequence[Held], under: Held | None = None) -> Hashable:
        ways = range(RESOLUTIONS if any(held.weak for held in parts) else 1)
        return tuple(
            join([read_as(held, way) for held in parts], under and read_as(under, way))
            for way in ways
        )

    monkeypatch.setattr(keys, "join", number)
    assert search_exhaustively(name, unbrick_releases).missed


def read_as(held: Held, way: int) -> Held:
    """What is held in one way of reading weak cells."""
    return Held(weak=False, ways=(held.read(way),))


def read_weak(offset: int, mask: bytes) -> tuple[Cells, list[bool]]:
    """Weak cells in a half without a header, and whether it is blank in each way of reading."""
    cells = BLANK.with_range(offset, b"\xff" * len(mask), mask)
    readings = (reading.read(USERDATA, 64) for reading in cells.readings())
    return cells, [reading == b"\xff" * 64 for reading in readings]


def test_the_mixed_way_of_reading_counts_as_what_it_is_like() -> None:
    alike = {}
    for bit in range(64 * 8):
        mask = bytes(bit // 8) + bytes([1 << bit % 8])
        cells, blank = read_weak(USERDATA, mask)
        alike.setdefault(tuple(blank), set()).add(canonicalise(cells))
    assert set(alike) == {(True, False, False), (True, False, True)}
    (one,), (other,) = alike.values()
    assert one == other


def test_what_reads_where_all_weak_cells_are_1_counts() -> None:
    """A torn operation begins with that. Both read as the record and as torn, but the other way."""
    half = log(b"\x01")
    cells = BLANK.with_range(USERDATA, half)
    of_one, of_zero = USERDATA + 64, USERDATA + 65
    record = cells.with_range(of_one, b"\x01", b"\x01")
    torn = cells.with_range(of_zero, b"\x00", b"\x01")
    sure, damaged = canonicalise(cells), canonicalise(torn.readable(0))
    assert sure != damaged
    assert [canonicalise(each.readable(0)) for each in (record, torn)] == [sure, damaged]
    assert [canonicalise(each.readable(1)) for each in (record, torn)] == [damaged, sure]
    assert canonicalise(record) != canonicalise(torn)
