"""The in-process engine: execution in place, virtual time, power, and faults of the firmware."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elftools.elf.elffile import ELFFile

from unbrick.engine.inprocess import InProcessEngine
from unbrick.engine.inprocess.models import COPIED
from unbrick.errors import EngineError
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LAYOUT = reference_layout()
PROBE = Path(__file__).with_name("probe")


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe program, compiled."""
    elf = tmp_path_factory.mktemp("probe") / "probe.elf"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += ["-mcpu=cortex_a9", "-O2", "-g", "-fno-sanitize=all", "-nostdlib"]
    command += [f"-Wl,-T,{PROBE / 'probe.ld'}", "-o", str(elf), str(PROBE / "probe.c")]
    subprocess.run(command, check=True)
    return elf


@pytest.fixture
def engine(probe: Path) -> Iterator[InProcessEngine]:
    """A terminal that runs the probe and has said so."""
    image = bytearray(b"\xff" * 0x40000)
    with probe.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            start = segment["p_paddr"]
            image[start : start + segment["p_filesz"]] = segment.data()
    with InProcessEngine([probe]) as made:
        assert isinstance(made, InProcessEngine)
        made.load_nor(bytes(image))
        made.power_on()
        assert run(made, 0.1) == b"!\n"
        yield made


def run(engine: InProcessEngine, seconds: float) -> bytes:
    end, said = engine.now + seconds, b""
    while engine.now < end:
        engine.advance(end - engine.now)
        said += engine.wire.read()
    return said


def ask(engine: InProcessEngine, text: bytes, seconds: float = 0.1) -> bytes:
    engine.wire.write(text)
    return run(engine, seconds)


def begin_arm(engine: InProcessEngine, at: int, program: Iterable[int]) -> None:
    """Put a program of ARM instructions into the SRAM, and have it run next."""
    engine.write_sram(at, b"".join(word.to_bytes(4, "little") for word in program))
    engine.write_register(16, engine.read_register(16) & ~0x20)  # ARM state
    engine.write_register(15, at)


def test_the_models_assert_what_the_host_owes_them() -> None:
    wrongly = "from unbrick.engine.inprocess import models as m\nm._load().board_new(*[None] * 3)\n"
    done = subprocess.run(
        [sys.executable, "-c", wrongly], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGABRT
    assert "c/board.c" in done.stderr
    assert "nor && sram" in done.stderr


def test_executes_in_place_and_picks_up_reprogrammed_code(engine: InProcessEngine) -> None:
    ask(engine, b"e", 1)
    ask(engine, b"7")
    assert ask(engine, b"c") == b"00000007\n"
    ask(engine, b"e", 1)
    ask(engine, b"9")
    assert ask(engine, b"c") == b"00000009\n"
    assert engine.faults == []


def test_code_that_was_loaded_before_it_is_fetched_is_what_is_there(
    engine: InProcessEngine,
) -> None:
    for value in b"7", b"9":
        ask(engine, b"e", 1)
        ask(engine, value)
        assert ask(engine, b"l").endswith(b"200%b\n" % value)
        assert ask(engine, b"c") == b"0000000%b\n" % value


def test_power_off_loses_the_sram_and_keeps_the_nor(engine: InProcessEngine) -> None:
    ask(engine, b"e", 1)
    ask(engine, b"7")
    first = ask(engine, b"s")
    assert ask(engine, b"s") == b"12345678\n"
    engine.power_off()
    engine.power_on()
    run(engine, 0.1)
    assert ask(engine, b"s") == first != b"12345678\n"
    assert ask(engine, b"c") == b"00000007\n"


@pytest.mark.slow
def test_same_input_same_run_however_it_is_sliced(engine: InProcessEngine) -> None:
    """Slices of different length change neither what is said nor when."""
    said = []
    for slice_length in (10.0, 0.0013):
        engine.power_off()
        engine.advance(1 - engine.now % 1)  # the counter starts at whole seconds
        start, blocks = engine.now, engine.blocks
        engine.power_on()
        out = b""
        engine.advance(0.01)
        engine.wire.write(b"oe7")
        while engine.now < start + 1:
            engine.advance(min(slice_length, start + 1 - engine.now))
            out += engine.wire.read()
        times = [(op.start - start, op.end - start) for op in engine.ops[-2:]]
        said.append((out, engine.blocks - blocks, [round(t, 9) for pair in times for t in pair]))
    assert said[0] == said[1]


def test_the_line_has_a_rate(engine: InProcessEngine) -> None:
    start = engine.now
    text = b"-" * 115
    assert ask(engine, text, 0.0) == b""
    while engine.now - start < 0.00998:
        engine.advance(0.00998 - (engine.now - start))
    first = engine.wire.read()
    assert 105 <= len(first) < 115
    assert first + run(engine, 0.01) == text
    assert engine.overruns == (0, 0)


def test_a_receiver_that_is_not_read_loses_bytes(engine: InProcessEngine) -> None:
    ask(engine, b"o" + b"-" * 60, 0.1)
    assert engine.overruns[0] > 0


def test_a_loop_without_end_does_not_hang_the_bench(engine: InProcessEngine) -> None:
    before = engine.now
    assert ask(engine, b"h", 0.05) == b""
    assert engine.now >= before + 0.05


def test_fetch_from_a_busy_nor_is_reported_with_its_source_line(engine: InProcessEngine) -> None:
    ask(engine, b"f")
    (fault,) = engine.faults
    assert fault.kind == "busy-fetch"
    assert fault.where.startswith("main (probe.c:")


def test_read_of_the_array_while_the_chip_answers_status_is_reported(
    engine: InProcessEngine,
) -> None:
    ask(engine, b"r")
    (fault,) = engine.faults
    assert fault.kind == "busy-read"
    assert "read_while_status" in fault.where or "main" in fault.where


@pytest.mark.slow
def test_an_access_beyond_the_sram_stops_the_terminal(engine: InProcessEngine) -> None:
    ask(engine, b"b")
    assert [fault.kind for fault in engine.faults] == ["exception"]
    assert ask(engine, b"x") == b""
    engine.power_off()
    engine.power_on()
    assert run(engine, 0.1) == b"!\n"


def test_cut_before_an_operation(engine: InProcessEngine) -> None:
    ask(engine, b"e", 1)
    engine.cut_before_op(len(engine.ops))
    ask(engine, b"7")
    assert engine.cut_reached
    engine.power_off()
    assert engine.read_nor()[0x80000:0x80004] == b"\xff" * 4
    engine.cut_before_op(None)
    engine.power_on()
    assert not engine.cut_reached
    run(engine, 0.1)
    ask(engine, b"7")
    assert engine.read_nor()[0x80000:0x80004] == bytes.fromhex("07207047")


def test_code_in_sram_that_writes_over_its_own_page_runs_as_changed(
    engine: InProcessEngine,
) -> None:
    """Stores to SRAM go the short way only while nothing of that page was executed."""
    at = LAYOUT.board.sram.base + 0x100
    program = (
        0xE3A00000,  # 00 mov r0, #0
        0xE3A05000,  # 04 mov r5, #0
        0xE2800001,  # 08 first: add r0, r0, #1     becomes add r0, r0, #16
        0xEAFFFFFF,  # 0c b second
        0xE2800001,  # 10 second: add r0, r0, #1    becomes add r0, r0, #16
        0xE3550000,  # 14 cmp r5, #0
        0x1A000008,  # 18 bne done
        0xE3A05001,  # 1c mov r5, #1
        0xE3A03501,  # 20 mov r3, #0x400000
        0xE2533A01,  # 24 touch: subs r3, r3, #0x1000   so many pages that this one is forgotten
        0xE5934000,  # 28 ldr r4, [r3]
        0x1AFFFFFC,  # 2c bne touch
        0xE59F1014,  # 30 ldr r1, [changed]
        0xE50F1034,  # 34 str r1, [first]
        0xE50F1030,  # 38 str r1, [second]
        0xEAFFFFF1,  # 3c b first
        0xE58F0000,  # 40 done: str r0, [result]
        0xEAFFFFFE,  # 44 stay
        0x00000000,  # 48 result
        0xE2800010,  # 4c changed: add r0, r0, #16
    )
    begin_arm(engine, at, program)
    run(engine, 0.01)
    assert int.from_bytes(engine.read_memory(at + 0x48, 4), "little") == 1 + 1 + 16 + 16


def test_blocks_that_follow_each_other_run_as_changed(engine: InProcessEngine) -> None:
    """The block with the store has been followed by the changed one before."""
    at = LAYOUT.board.sram.base + 0x100
    program = (
        0xE3A00000,  # 00 mov r0, #0
        0xE3A05000,  # 04 mov r5, #0
        0xE59F602C,  # 08 ldr r6, [elsewhere]
        0xE2800001,  # 0c first: add r0, r0, #1     becomes add r0, r0, #16
        0xE3550002,  # 10 cmp r5, #2
        0x0A000005,  # 14 beq done
        0xE2855001,  # 18 add r5, r5, #1
        0xE3550002,  # 1c cmp r5, #2
        0x024F601C,  # 20 subeq r6, pc, #0x1c       first
        0xE59F1014,  # 24 ldr r1, [changed]
        0xE5861000,  # 28 str r1, [r6]
        0xEAFFFFF6,  # 2c b first
        0xE58F0000,  # 30 done: str r0, [result]
        0xEAFFFFFE,  # 34 stay
        0x00000000,  # 38 result
        0x48010000,  # 3c elsewhere
        0xE2800010,  # 40 changed: add r0, r0, #16
    )
    begin_arm(engine, at, program)
    run(engine, 0.01)
    assert int.from_bytes(engine.read_memory(at + 0x38, 4), "little") == 1 + 1 + 16


def test_more_code_than_there_is_room_for_copies_runs_as_it_is(engine: InProcessEngine) -> None:
    """A program beside it runs before and after all copies are given up, and at last otherwise.

    Meanwhile another page takes the place of its first copy.
    """
    at, waits = LAYOUT.board.sram.base + 0x10000, engine.read_register(15)
    state, copies, early, around = engine.read_register(16), COPIED // 1024, 100, 20
    beside, result = at - 1024, at + 2048
    stay = 0xEAFFFFFE
    constant = (
        0xE3A00001,  # 00 mov r0, #1
        0xE58F0BF4,  # 04 str r0, [result]
        stay,  # 08
        0xE3A00002,  # 0c mov r0, #2
        0xE58F0BE8,  # 10 str r0, [result]
        stay,  # 14
    )
    begin_arm(engine, beside, constant)
    for number in range(copies + 2 * early):
        program = (
            0xE3A00000 | number % 251,  # mov r0, #...
            0xE58F07F4,  # str r0, [result]
            stay,
            number,
        )
        begin_arm(engine, at, program)
        engine.advance(1e-6)
        assert engine.read_memory(result, 1) == bytes([number % 251])
        if number == early or abs(number - copies) < around:
            engine.write_register(15, beside)
            engine.advance(1e-6)
            assert engine.read_memory(result, 1) == b"\1"
    engine.write_register(15, beside + 0xC)
    engine.advance(1e-6)
    assert engine.read_memory(result, 1) == b"\2"
    engine.write_register(16, state)
    engine.write_register(15, waits)
    assert ask(engine, b"x") == b"x"


def fill_sram(engine: InProcessEngine, number: int, *, hidden: bool = False) -> None:
    """Have a program write all pages of the SRAM but its own, and run them: each adds a number.

    Args:
        engine: its power goes off and on.
        number: what they add.
        hidden: whether the NOR cannot be read meanwhile.
    """
    sram, pages = LAYOUT.board.sram, LAYOUT.board.sram.size // 1024 - 1
    program = (
        0xE59F0038,  # 00 ldr r0, [read_status]
        0xE59F1038,  # 04 ldr r1, [nor]
        0xE5810000 if hidden else 0xE1A00000,  # 08 str r0, [r1]
        0xE3A00000,  # 0c mov r0, #0
        0xE59F1030,  # 10 ldr r1, [first]
        0xE59F2030,  # 14 ldr r2, [add]
        0xE59F3030,  # 18 ldr r3, [next]
        0xE59F4034,  # 1c ldr r4, [pages]
        0xE881001C,  # 20 fill: stm r1, {r2, r3, r4}
        0xE2811B01,  # 24 add r1, r1, #1024
        0xE2544001,  # 28 subs r4, r4, #1
        0x1AFFFFFB,  # 2c bne fill
        0xE59F301C,  # 30 ldr r3, [stay]
        0xE50133FC,  # 34 str r3, [r1, #-1020]
        0xE59FF008,  # 38 ldr pc, [first]
        0x00000000,  # 3c
        0x00700070,  # 40 read_status
        LAYOUT.board.nor.window,  # 44 nor
        sram.base,  # 48 first
        0xE2800000 | number,  # 4c add: add r0, r0, #...
        0xEA0000FD,  # 50 next: b to where the next page begins
        0xEAFFFFFE,  # 54 stay
        pages,  # 58 pages
    )
    engine.power_off()
    engine.power_on()
    begin_arm(engine, sram.base + 1024 * pages, program)
    engine.advance(1e-3)
    assert engine.read_register(0) == number * pages
    assert engine.faults == []


FULL = 4
"""So often the SRAM can be filled, and the last pages find no room for their copies."""


@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden"])
def test_what_was_translated_of_copies_that_are_given_up_is_forgotten(
    engine: InProcessEngine, hidden: bool
) -> None:
    """Afterwards each page has the copy that it had at first."""
    for number in range(1, FULL + 2):
        fill_sram(engine, number, hidden=hidden)


def test_nobody_finds_copies_where_they_were_given_up(engine: InProcessEngine) -> None:
    for number in range(1, FULL + 1):
        fill_sram(engine, number)
    engine.write_register(15, 0xE000_0000)
    engine.advance(1e-3)
    assert [fault.pc for fault in engine.faults] == [0xE000_0000]


def test_code_that_the_host_has_replaced_together_with_the_page_before_it_runs(
    engine: InProcessEngine,
) -> None:
    """It is written while it runs. So it runs where it lies, but the page before may be a copy."""
    at = LAYOUT.board.sram.base + 0x400
    stay, store = 0xEAFFFFFE, 0xE58F0034  # str r0, [result]
    old, new = (0xE2800001, store, stay), (0xE2800010, store, stay)  # add r0, r0, #...
    begin_arm(engine, at, old)
    engine.write_register(0, 0)
    run(engine, 0.001)
    engine.write_register(15, at)
    run(engine, 0.001)
    engine.write_sram(at - 4, b"".join(word.to_bytes(4, "little") for word in (stay, *new)))
    for _ in range(2):
        engine.write_register(15, at)
        run(engine, 0.001)
    assert engine.read_register(0) == 1 + 1 + 16 + 16


def test_code_is_gone_with_the_power(engine: InProcessEngine) -> None:
    at = LAYOUT.board.sram.base + 0x10000
    program = (0xE58F17F8, 0xEAFFFFFE)  # str r1, [result]; stay
    engine.write_sram(at, b"".join(word.to_bytes(4, "little") for word in program))
    for _ in range(2):
        engine.write_register(16, engine.read_register(16) & ~0x20)  # ARM state
        engine.write_register(1, 0xC0FFEE)
        engine.write_register(15, at)
        engine.advance(1e-6)
        said = engine.read_memory(at + 0x800, 4)
        engine.power_off()
        engine.power_on()
    assert said != (0xC0FFEE).to_bytes(4, "little")


def test_an_it_block_ends_where_it_ends_when_its_load_meets_a_new_page(
    engine: InProcessEngine,
) -> None:
    at = LAYOUT.board.sram.base + 0x100
    program = (
        0x4280,  # cmp r0, r0
        0xBF08,  # it eq
        0x6811,  # ldreq r1, [r2]       from a page that was never touched
        0xE7FF,  # b to the next one: a new basic block
        0xD000,  # beq done             must not be in an IT block
        0xE7FE,  # stay
        0x2107,  # done: movs r1, #7
        0x6019,  # str r1, [r3]
        0xE7FE,  # stay
    )
    engine.write_sram(at, b"".join(half.to_bytes(2, "little") for half in program))
    engine.write_register(2, LAYOUT.board.sram.base + 0x155000)
    engine.write_register(3, LAYOUT.board.sram.base)
    engine.write_register(15, at)
    run(engine, 0.001)
    assert engine.read_memory(LAYOUT.board.sram.base, 4) == (7).to_bytes(4, "little")
    assert not engine.faults


def test_the_nor_is_replaced_only_without_power(engine: InProcessEngine) -> None:
    with pytest.raises(EngineError, match="under power"):
        engine.load_nor(b"")
    engine.power_off()
    with pytest.raises(EngineError, match="bytes"):
        engine.load_nor(b"x" * (LAYOUT.board.nor.modelled + 1))
