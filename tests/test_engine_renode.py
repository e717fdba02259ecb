"""The Renode engine alone, with the probe as firmware, and its NOR against the in-process model."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import PATIENCE_S, until
from probed import (
    LOOP_OF_EXCEPTIONS,
    LOOP_OF_RESETS,
    check_nobody_reads,
    check_nor_is_replaced_only_without_power,
    check_power_off_loses_the_sram,
    hear,
    runs,
)

from unbrick.engine.create import create_engine
from unbrick.engine.inprocess import NorModel
from unbrick.engine.paced import PacedEngine
from unbrick.engine.renode.engine import RenodeEngine
from unbrick.engine.renode.link import RenodeNor, find_renode
from unbrick.errors import EngineError, MissingToolError
from unbrick.flash.ops import FlashOp, Worn
from unbrick.layout import reference_layout

LAYOUT = reference_layout()
BLOCK = LAYOUT.board.nor.block_size
VICTIM = 0x80000  # the block that the probe changes
ACCESS = 50  # nanoseconds that the in-process model takes for an access


@pytest.fixture(scope="module")
def process(renode: str) -> Iterator[RenodeEngine]:
    """One Renode for the tests of this file: it takes some seconds to start."""
    assert renode
    with RenodeEngine() as made:
        assert isinstance(made, RenodeEngine)
        yield made


@pytest.fixture
def erring(process: RenodeEngine, probe_image: bytes) -> Iterator[RenodeEngine]:
    """A terminal that runs the probe and has said so; its firmware may err."""
    process.forget()
    process.load_nor(probe_image)
    process.power_on()
    hear(process, b"!\n")
    yield process
    process.cut_before_op(None)
    process.power_off()
    process.wire.read()


@pytest.fixture
def engine(erring: RenodeEngine) -> Iterator[RenodeEngine]:
    """The same, of firmware that errs in nothing."""
    yield erring
    assert erring.faults == []


def family(leader: int) -> list[int]:
    """Processes of the session that ``leader`` began: Renode and what starts it."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in numbers if runs(pid) and session_of(pid) == leader]


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


# -------------------------------------------------------------------- power and NOR


def test_what_was_programmed_is_in_the_nor_at_the_moment_of_the_cut(engine: RenodeEngine) -> None:
    engine.wire.write(b"e7c")
    hear(engine, b"00000007\n")
    assert engine.read_nor()[VICTIM : VICTIM + 8] == bytes.fromhex("07207047ffffffff")
    engine.power_off()
    assert engine.read_nor()[VICTIM : VICTIM + 8] == bytes.fromhex("07207047ffffffff")


def test_claim_c1_power_off_loses_the_sram_and_keeps_the_nor(engine: RenodeEngine) -> None:
    check_power_off_loses_the_sram(engine)


def test_claim_c1_code_that_was_programmed_anew_is_what_is_executed(engine: RenodeEngine) -> None:
    engine.wire.write(b"e7ce9c")
    assert hear(engine, b"00000009\n") == b"00000007\n00000009\n"


def test_a_cut_in_the_middle_of_an_erase_tears_it(engine: RenodeEngine, probe_image: bytes) -> None:
    engine.power_off()
    engine.load_nor(probe_image.ljust(VICTIM, b"\xff") + bytes(BLOCK))
    engine.power_on()
    hear(engine, b"!\n")
    engine.wire.write(b"e")
    engine.advance(0.25)  # of 0.5
    engine.power_off()
    block = engine.read_nor()[VICTIM : VICTIM + BLOCK]
    ones = int.from_bytes(block, "little").bit_count() / (8 * BLOCK)
    assert 0.4 < ones < 0.6


def test_a_cut_before_an_operation_stops_before_it(engine: RenodeEngine) -> None:
    before = engine.op_count
    engine.cut_before_op(before + 1)
    engine.wire.write(b"e7c")
    deadline = engine.now + PATIENCE_S
    while not engine.cut_reached and engine.now < deadline:
        engine.advance(1.0)
    assert engine.cut_reached
    reached = engine.now
    engine.advance(2.0)  # a terminal without power is waited for, too
    assert engine.now == pytest.approx(reached + 2.0)
    engine.power_off()
    assert [op.kind for op in engine.ops[before:]] == ["erase"]
    assert engine.read_nor()[VICTIM : VICTIM + 4] == b"\xff" * 4
    engine.cut_before_op(None)
    engine.power_on()
    hear(engine, b"!\n")
    engine.wire.write(b"7c")
    hear(engine, b"00000007\n")
    last = engine.ops[-1]
    assert (last.kind, last.offset, last.lanes) == ("word", VICTIM, 3)
    assert last.data == bytes.fromhex("07207047")
    assert last.end > last.start > engine.ops[before].end


def test_operations_on_worn_cells_fail_half_done_and_nothing_else_changes(
    engine: RenodeEngine, probe_image: bytes
) -> None:
    before = probe_image.ljust(VICTIM, b"\xff").ljust(LAYOUT.board.nor.modelled, b"\0")
    engine.power_off()
    engine.load_nor(before)
    flash = engine.wearing_flash
    assert flash is not None
    flash.wear([Worn(VICTIM, BLOCK, erase=True, bad=1), Worn(VICTIM, BLOCK, erase=False, bad=1)])
    engine.power_on()
    hear(engine, b"!\n")
    engine.wire.write(b"eA")
    hear(engine, b"A")
    half = VICTIM + BLOCK // 2
    assert engine.read_nor() == before[:VICTIM] + b"\xff" * (BLOCK // 2) + before[half:]
    engine.power_off()  # worn cells stay worn, and one erase was to fail
    engine.power_on()
    hear(engine, b"!\n")
    engine.wire.write(b"e77c")  # half of a word is none of it; then it goes well
    assert hear(engine, b"\n") == b"00000007\n"
    erased = before[:VICTIM] + b"\xff" * BLOCK + before[VICTIM + BLOCK :]
    assert engine.read_nor() == erased[:VICTIM] + bytes.fromhex("07207047") + erased[VICTIM + 4 :]
    assert [(op.kind, op.failed) for op in engine.ops] == [
        ("erase", 3),
        ("erase", 0),
        ("word", 3),
        ("word", 0),
    ]
    flash.wear(())


def test_the_nor_is_replaced_only_without_power(engine: RenodeEngine) -> None:
    check_nor_is_replaced_only_without_power(engine)


def test_a_board_that_resets_itself_starts_again_from_the_nor(process: RenodeEngine) -> None:
    process.forget()
    process.load_nor(LOOP_OF_RESETS)
    process.power_on()
    assert hear(process, b"RR") == b"RR"
    process.power_off()
    assert process.faults == []


# ---------------------------------------------------------------- lines and time


def test_bytes_arrive_at_the_lines_rate_and_none_is_lost(engine: RenodeEngine) -> None:
    text = bytes(b"ABDGIJKLMNPQ"[i * i % 12] for i in range(5_000)) + b"Z"
    before = engine.now
    engine.wire.write(text)
    assert hear(engine, b"Z") == text
    assert engine.now - before >= 0.95 * len(text) * 10 / LAYOUT.board.baud


def test_a_terminal_that_does_not_read_does_not_block_the_bench(engine: RenodeEngine) -> None:
    check_nobody_reads(engine)


def test_what_is_written_without_power_is_lost_and_time_goes_on(engine: RenodeEngine) -> None:
    engine.power_off()
    engine.wire.write(b"A")
    before = engine.now
    engine.advance(2.5)
    assert engine.now == pytest.approx(before + 2.5)
    engine.power_on()
    hear(engine, b"!\n")
    engine.wire.write(b"B")
    assert hear(engine, b"B") == b"B"


@pytest.mark.slow
def test_the_same_bytes_give_the_same_run(renode: str, probe_image: bytes) -> None:
    assert renode

    def run() -> tuple[bytes, float, object]:
        with RenodeEngine() as engine:
            assert isinstance(engine, RenodeEngine)
            engine.load_nor(probe_image)
            engine.power_on()
            said = hear(engine, b"!\n")
            engine.wire.write(b"te7tcto")
            while said.count(b"\n") < 5:  # t says what the counter of 24 MHz is at
                engine.advance(0.3)
                said += engine.wire.read()
            return said, engine.now, engine.ops

    assert run() == run()


@pytest.mark.slow
def test_speed_is_a_matter_of_the_bench(renode: str) -> None:
    assert renode
    with create_engine("renode", speed=2.0) as made:
        assert isinstance(made, PacedEngine)


# ------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        (b"f", "busy-fetch"),
        (b"r", "busy-read"),
        (b"e79", "program-set-bit"),
        (b"b", "bounds"),
    ],
)
def test_firmware_that_errs_is_found_out(erring: RenodeEngine, typed: bytes, kind: str) -> None:
    erring.wire.write(typed)
    deadline = erring.now + PATIENCE_S
    while not erring.faults and erring.now < deadline:
        erring.advance(0.5)
    assert erring.faults[0].kind == kind
    assert erring.faults[0].detail


def test_exceptions_are_faults_and_a_flood_of_them_blocks_nothing(erring: RenodeEngine) -> None:
    erring.power_off()
    erring.load_nor(LOOP_OF_EXCEPTIONS)
    erring.power_on()
    erring.advance(0.01)
    assert {fault.kind for fault in erring.faults} == {"exception"}
    assert len(erring.faults) == 64


# --------------------------------------------------------------- the NOR as a chip


class Pair:
    """Our two models of the chips, in step."""

    def __init__(self, nor: RenodeNor) -> None:
        self.nor, self.model = nor, NorModel()
        self._steps: list[tuple[int, int, int]] = []
        self._mine: list[int] = []

    def write(self, offset: int, value: int) -> None:
        self.model.write32(offset, value)
        self._steps += [(RenodeNor.ADVANCE, 0, ACCESS), (RenodeNor.WRITE, offset, value)]

    def read(self, offset: int) -> None:
        self._mine.append(self.model.read32(offset))
        self._steps += [(RenodeNor.ADVANCE, 0, ACCESS), (RenodeNor.READ, offset, 0)]

    def advance(self, nanoseconds: int) -> None:
        self.model.advance(nanoseconds)
        self._steps.append((RenodeNor.ADVANCE, 0, nanoseconds))

    def power_cycle(self) -> None:
        self.model.power_cycle()
        self._steps.append((RenodeNor.POWER_CYCLE, 0, 0))

    def wear(self, *worn: Worn) -> None:
        self.agree()
        self.model.wear(*worn)
        self.nor.wear(*worn)

    def agree(self) -> None:
        """Carry it all out on Renode's model, too, and compare what was read and the cells."""
        its = self.nor.batch(self._steps)
        assert its == self._mine
        assert self.nor.array == self.model.array
        self._steps, self._mine = [], []


@pytest.fixture(scope="module")
def chips(renode: str) -> Iterator[RenodeNor]:
    """Renode's chips, kept for the tests of this file."""
    assert renode
    nor = RenodeNor()
    yield nor
    nor.close()


@pytest.fixture
def pair(chips: RenodeNor) -> Pair:
    """Both, after power-up, with data in three blocks."""
    made = Pair(chips)
    image = bytearray(b"\xff" * LAYOUT.board.nor.modelled)
    image[2 * BLOCK : 5 * BLOCK] = random.Random(7).randbytes(3 * BLOCK)
    made.model.load(bytes(image))
    chips.load(bytes(image))
    chips.wear()
    chips.batch([(RenodeNor.POWER_CYCLE, 0, 0)])
    return made


def both(command: int) -> int:
    return command << 16 | command


def unlock(pair: Pair, offset: int) -> None:
    pair.write(offset, both(0x60))
    pair.write(offset, both(0xD0))


OPERATIONS: dict[str, Callable[[Pair, random.Random, int], None]] = {}


Operation = Callable[[Pair, random.Random, int], None]


def operation(function: Operation) -> Operation:
    OPERATIONS[function.__name__] = function
    return function


@operation
def erase(pair: Pair, _chance: random.Random, offset: int) -> None:
    unlock(pair, offset)
    pair.write(offset, both(0x20))
    pair.write(offset, both(0xD0))


@operation
def word(pair: Pair, chance: random.Random, offset: int) -> None:
    unlock(pair, offset)
    pair.write(offset, both(0x40))
    pair.write(offset, chance.getrandbits(32))


@operation
def buffer(pair: Pair, chance: random.Random, offset: int) -> None:
    words = chance.choice((1, 2, 7, 64, 65, 200, 512))
    unlock(pair, offset)
    pair.write(offset, both(0xE8))
    pair.write(offset, both(words - 1))
    for i in range(words):
        pair.write(offset + 4 * chance.choice((i, i, i, i, 0)), chance.getrandbits(32))
    pair.write(offset, both(0xD0))


@operation
def lock_down(pair: Pair, _chance: random.Random, offset: int) -> None:
    pair.write(offset, both(0x60))
    pair.write(offset, both(0x2F))


@operation
def suspend(pair: Pair, chance: random.Random, offset: int) -> None:
    erase(pair, chance, offset)
    pair.advance(100_000_000)
    pair.write(offset, both(0xB0))
    pair.read(offset)
    word(pair, chance, chance.choice((offset, offset ^ BLOCK)))
    pair.advance(1_000_000)
    pair.write(offset, both(0xD0))


@operation
def senseless(pair: Pair, chance: random.Random, offset: int) -> None:
    commands = (0xFF, 0x70, 0x50, 0x20, 0x40, 0xE8, 0xD0, 0x60, 0x90, 0x98, 0xB0, 0x01, 0xBC, 0xC0)
    for _ in range(chance.randrange(1, 6)):
        low, high = chance.choice(commands), chance.choice(commands)
        pair.write(offset, both(low) if chance.random() < 0.7 else high << 16 | low)


@pytest.mark.parametrize("seed", range(6))
def test_claim_c1_renodes_nor_and_the_in_process_model_are_one(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        offset = chance.choice((2, 3, 5, 15, 16)) * BLOCK + 4 * chance.randrange(BLOCK // 4)
        OPERATIONS[chance.choice(sorted(OPERATIONS))](pair, chance, offset)
        pair.read(offset)
        pair.advance(chance.choice((1_000, 100_000, 300_000, 3_000_000, 400_000_000)))
        for command in (0x70, 0x90, 0x98, 0xFF):
            if chance.random() < 0.5:
                pair.write(offset, both(command))
            pair.read(chance.choice((offset, 4 * chance.randrange(0x200))))
        if chance.random() < 0.2:
            pair.power_cycle()  # tears what is under way
    pair.power_cycle()
    pair.agree()


@pytest.mark.parametrize("name", ["erase", "word", "buffer"])
def test_what_a_torn_operation_leaves_is_the_same(pair: Pair, name: str) -> None:
    chance = random.Random(name)
    for part in (0, 1, 50_000, 150_000, 250_000, 299_000, 125_000_000, 499_000_000, 600_000_000):
        OPERATIONS[name](pair, chance, 2 * BLOCK)
        pair.advance(part)
        pair.power_cycle()
        pair.agree()


def traced(ops: list[FlashOp]) -> list[tuple[object, ...]]:
    """All of each operation but when it began: the models began to count at other times."""
    return [
        (op.kind, op.offset, op.length, op.lanes, op.data, op.failed, lasts_ns(op)) for op in ops
    ]


def lasts_ns(op: FlashOp) -> int:
    return round((op.end - op.start) * 1e9)


@pytest.mark.parametrize(("filled", "confirmed"), [(2, 3), (3, 2)])
def test_a_buffer_goes_to_where_it_was_filled_for(pair: Pair, filled: int, confirmed: int) -> None:
    unlock(pair, 2 * BLOCK)  # and block 3 stays locked
    pair.write(filled * BLOCK, both(0xE8))
    pair.write(filled * BLOCK, 0)
    pair.write(filled * BLOCK, 0)
    pair.write(confirmed * BLOCK, both(0xD0))
    pair.advance(1_000_000)
    pair.agree()
    assert traced(pair.nor.ops) == traced(pair.model.ops)
    assert [op.offset for op in pair.nor.ops] == ([2 * BLOCK] if filled == 2 else [])


def chance_of_wear(chance: random.Random) -> Worn:
    return Worn(
        chance.choice((2, 3)) * BLOCK,
        chance.choice((4, BLOCK // 2, BLOCK, 2 * BLOCK)),
        erase=chance.random() < 0.5,
        good=chance.choice((0, 0, 1, 3)),
        bad=chance.choice((0, 1, 2, None)),
        lanes=chance.choice((1, 2, 3, 3)),
        silent=chance.random() < 0.3,
        spoils=chance.random() < 0.3,
        times=chance.choice((1, 1, 8)),
    )


@pytest.mark.parametrize("seed", range(6))
def test_operations_on_worn_cells_fail_the_same_in_both_models(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(4):
        pair.wear(*[chance_of_wear(chance) for _ in range(chance.randrange(1, 9))])
        for _ in range(12):
            offset = chance.choice((2, 3, 4)) * BLOCK + chance.choice((0, 0, 4, BLOCK // 2))
            OPERATIONS[chance.choice(("erase", "word", "buffer", "suspend"))](pair, chance, offset)
            pair.advance(chance.choice((100_000, 1_000_000, 600_000_000, 5_000_000_000)))
            pair.read(offset)
            for command in chance.sample((0x70, 0x50, 0xFF), 2):
                pair.write(offset, both(command))
                pair.read(offset)
            if chance.random() < 0.1:
                pair.power_cycle()
    pair.power_cycle()
    pair.agree()
    assert traced(pair.nor.ops) == traced(pair.model.ops)
    assert {op.failed != 0 for op in pair.nor.ops} == {True, False}


@pytest.mark.parametrize(
    ("name", "worn", "status"),
    [
        ("erase", Worn(2 * BLOCK, BLOCK, erase=True), 0x00A000A0),
        ("word", Worn(2 * BLOCK, BLOCK, erase=False), 0x00900090),
        ("buffer", Worn(2 * BLOCK, BLOCK, erase=False, lanes=2), 0x00900080),
        ("buffer", Worn(2 * BLOCK, BLOCK, erase=False, silent=True), 0x00800080),
        ("erase", Worn(2 * BLOCK, BLOCK, erase=False), 0x00800080),
    ],
)
def test_renodes_nor_says_in_its_status_what_has_failed(
    pair: Pair, name: str, worn: Worn, status: int
) -> None:
    pair.wear(worn)
    OPERATIONS[name](pair, random.Random(name), 2 * BLOCK)
    pair.agree()
    read = (RenodeNor.READ, 2 * BLOCK, 0)
    clear = [(RenodeNor.WRITE, 2 * BLOCK, both(0x50)), (RenodeNor.WRITE, 2 * BLOCK, both(0x70))]
    said = pair.nor.batch([(RenodeNor.ADVANCE, 0, 1_000_000_000), read, *clear, read])
    assert said == [status, 0x00800080]


def test_both_models_find_the_same_faults(pair: Pair) -> None:
    chance = random.Random(1)
    pair.write(2 * BLOCK, both(0x40))  # locked
    pair.write(2 * BLOCK, 0)
    for offset in (2 * BLOCK, 20 * BLOCK, 2 * BLOCK):
        word(pair, chance, offset)
        pair.advance(1_000_000)
    lock_down(pair, chance, 3 * BLOCK)
    unlock(pair, 3 * BLOCK)
    pair.write(0, both(0x77))
    pair.agree()
    assert pair.nor.faults == pair.model.faults
    assert set(pair.nor.faults) == {"locked", "bounds", "program-set-bit", "command"}


# ------------------------------------------------------------------- the process


def test_nobody_else_can_connect_to_it(process: RenodeEngine) -> None:
    sockets = set()
    for pid in family(process._link.pid):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            sockets.add(str(descriptor.readlink()))
    listening = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            mine = f"socket:[{fields[9]}]" in sockets
            if mine and (fields[3] == "0A" or table.startswith("udp")):
                listening.append(fields[1])
    assert listening == []


def test_without_renode_the_error_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENODE", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingToolError) as caught:
        RenodeEngine()
    assert "RENODE" in caught.value.hint
    monkeypatch.setenv("RENODE", "/nowhere/renode")
    with pytest.raises(MissingToolError, match="/nowhere/renode"):
        find_renode()


def test_a_renode_that_does_not_start_is_told_in_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "renode"
    program.write_text("#!/bin/sh\necho 'NorFlash.cs(1,1): error CS1002: ; expected'\nexec cat\n")
    program.chmod(0o755)
    monkeypatch.setenv("RENODE", str(program))
    with pytest.raises(EngineError, match="error CS1002"):
        RenodeEngine()


def test_the_version_is_known(process: RenodeEngine) -> None:
    assert process.version.count(".") == 2


@pytest.mark.slow
def test_an_emulator_that_dies_is_an_error_and_not_a_hang(renode: str) -> None:
    assert renode
    with RenodeEngine() as engine:
        assert isinstance(engine, RenodeEngine)
        engine.power_on()
        for pid in family(engine._link.pid):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="Renode failed"):
            hear(engine, b"never said")
        assert not engine.powered


@pytest.mark.slow
def test_close_leaves_no_process_and_no_file(
    renode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert renode
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    engine = RenodeEngine()
    leader = engine._link.pid
    assert family(leader)
    assert list(tmp_path.iterdir())
    engine.close()
    engine.close()
    until(lambda: not family(leader))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_bench_that_is_killed_takes_its_renode_along(renode: str, tmp_path: Path) -> None:
    assert renode
    script = (
        "import time; from unbrick.engine.renode.engine import RenodeEngine\n"
        "e = RenodeEngine(); print(e._link.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as bench:
        assert bench.stdout is not None
        leader = int(bench.stdout.readline())
        try:
            assert family(leader)
        finally:
            bench.kill()
    until(lambda: not family(leader))
