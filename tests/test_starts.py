"""The counter of starts on the terminal, and the campaign's view of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from counted_starts import STARTS, but_for_starts

from unbrick.flash.cells import Cells
from unbrick.reference.canonical import canonicalise, hold, name_doubt
from unbrick.reference.layout import find_places

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.reference.system import System


def count(nor: bytes) -> int:
    """Starts that were counted: bits that are 0."""
    return sum(8 - byte.bit_count() for byte in nor[STARTS.offset : STARTS.end])


def test_each_start_is_counted_by_one_bit(unbrick_system: System) -> None:
    before = unbrick_system.engine.read_nor()
    unbrick_system.power_on()
    for number in range(1, 4):
        unbrick_system.wait_registered()
        unbrick_system.bench.cut_power()
        nor = unbrick_system.engine.read_nor()
        assert count(nor) == number
        assert but_for_starts(nor) == but_for_starts(before)
        unbrick_system.power_on()


def test_where_no_start_can_be_counted_nothing_is_sent(
    unbrick_make_system: Callable[..., System],
) -> None:
    system = unbrick_make_system()
    nor = bytearray(system.engine.read_nor())
    nor[STARTS.offset : STARTS.end] = bytes(STARTS.size)
    system.engine.load_nor(bytes(nor))
    system.power_on()
    system.console.expect("link: no number is left for its messages")
    assert "boot: this start cannot be counted" in system.console.text
    system.bench.run_for(70)
    assert system.link.bytes_up == 0


def counted(values: bytes, weak: bytes = b"") -> Cells:
    """Cells that are blank but for the counter."""
    return Cells.of(b"", find_places().geometry).with_range(STARTS.offset, values, weak)


def test_how_many_starts_there_were_does_not_count() -> None:
    few, many = counted(b"\xf8"), counted(bytes(5) + b"\x80")
    assert canonicalise(few) == canonicalise(many) == canonicalise(counted(b"\xff"))
    assert name_doubt(hold(few)) is name_doubt(hold(many)) is None


def test_a_count_in_doubt_is_another_state() -> None:
    weak, more = counted(b"\xf8", b"\x08"), counted(bytes(4) + b"\xfe", bytes(4) + b"\x06")
    doubts = [name_doubt(hold(cells)) for cells in (weak, more, counted(b"\xe8"))]
    assert doubts[0] == doubts[1] is not None
    assert doubts[2] not in [*doubts[:2], None]
