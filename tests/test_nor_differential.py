"""The model of the NOR and QEMU's agree, but for what ``docs/nor-differences.md`` says."""

from __future__ import annotations

import mmap
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from nor_watch import BLOCK, BUFFER, Difference, Read, Step, Wait, Watch, Write

from unbrick.engine.inprocess import NorModel
from unbrick.engine.qemu.engine import QemuNor

SEQUENCES = 750  # a part; there are as many parts as PARTS
PARTS = range(2)
LONGEST_OPERATION = 1_000_000_000  # nanoseconds, more than any
BLOCKS = (2, 3, 5)
COMMANDS = (
    0xFF,
    0x70,
    0x50,
    0x20,
    0x40,
    0x10,
    0xE8,
    0xD0,
    0x60,
    0x90,
    0x98,
    0xB0,
    0x01,
    0x2F,
    0x28,
    0xBC,
    0xC0,
)
DOCUMENT = Path(__file__).parents[1] / "docs" / "nor-differences.md"


def both(command: int) -> int:
    """The same for both chips."""
    return command << 16 | command


class Pair:
    """The two models, in step. Only ``BLOCKS`` are written to, so only they are compared often."""

    def __init__(self, qemu: QemuNor) -> None:
        self.qemu, self.model = qemu, NorModel()
        self.cells = bytearray(qemu.array)  # at the last restart
        self.model.load(bytes(self.cells))

    def restart(self) -> None:
        """Power off and on; cells that came to differ are QEMU's."""
        self.qemu.reset()
        self.model.power_cycle()
        for start in (block * BLOCK for block in BLOCKS):
            block = self.qemu.cells(start, BLOCK)
            self.cells[start : start + BLOCK] = block
            self._memory[start : start + BLOCK] = block

    @property
    def _memory(self) -> mmap.mmap:
        return self.model._models.flash

    def differing(self) -> list[int]:
        """Offsets of the 32-bit words of ``BLOCKS`` that are not equal once all has ended."""
        self.model.advance(LONGEST_OPERATION)
        self.model.read32(0)  # it carries out what has ended when it is looked at
        words = []
        for start in (block * BLOCK for block in BLOCKS):
            mine, its = self._memory[start : start + BLOCK], self.qemu.cells(start, BLOCK)
            if mine != its:
                words += [
                    start + o for o in range(0, BLOCK, 4) if mine[o : o + 4] != its[o : o + 4]
                ]
        return words

    def run(self, steps: list[Step]) -> list[tuple[int, int]]:
        """Carry out ``steps`` on both; what each read gave, as (model, QEMU)."""
        mine = []
        for step in steps:
            if isinstance(step, Write):
                self.model.write32(step.offset, step.value)
            elif isinstance(step, Read):
                mine.append(self.model.read32(step.offset))
            else:
                self.model.advance(LONGEST_OPERATION)
        bus = [
            (step.offset, step.value if isinstance(step, Write) else None)
            for step in steps
            if not isinstance(step, Wait)
        ]
        return list(zip(mine, self.qemu.batch(bus), strict=True))


@pytest.fixture(scope="module")
def qemu_nor(qemu: str) -> Iterator[QemuNor]:
    """QEMU's chip, kept for the tests of this file."""
    assert qemu
    with QemuNor() as nor:
        yield nor


@pytest.fixture
def pair(qemu_nor: QemuNor) -> Pair:
    """Both chips, blank, after power-up."""
    made = Pair(qemu_nor)
    made.restart()
    for block in BLOCKS:
        made.run([*unlock(block * BLOCK), *erase(block * BLOCK)])
    made.restart()
    assert made.model.array == qemu_nor.array
    return made


def unlock(offset: int) -> list[Step]:
    return [Write(offset, both(0x60)), Write(offset, both(0xD0)), Write(offset, both(0xFF))]


def erase(offset: int) -> list[Step]:
    return [Write(offset, both(0x20)), Write(offset, both(0xD0)), Wait()]


def word(offset: int, value: int) -> list[Step]:
    return [Write(offset, both(0x40)), Write(offset, value), Wait()]


def buffer(offset: int, values: list[int]) -> list[Step]:
    steps: list[Step] = [Write(offset, both(0xE8)), Write(offset, both(len(values) - 1))]
    steps += [Write(offset + 4 * i, value) for i, value in enumerate(values)]
    return [*steps, Write(offset, both(0xD0)), Wait()]


# ------------------------------------------------------------------ random sequences


def an_offset(rng: random.Random) -> int:
    """A word: near the borders of blocks and buffers, as often as not."""
    base = rng.choice(BLOCKS) * BLOCK + rng.choice((0, BUFFER, BLOCK - BUFFER))
    return base + rng.choice((0, 4, 8, BUFFER - 4, 4 * rng.randrange(BUFFER // 4)))


def data(rng: random.Random) -> int:
    return rng.choice((rng.getrandbits(32), rng.getrandbits(32) | rng.getrandbits(32), 0))


def sound(rng: random.Random) -> list[Step]:
    """One thing that a driver would do."""
    at = an_offset(rng)
    mode = rng.choice((0xFF, 0x70))
    free = (BUFFER - at % BUFFER) // 4
    count = rng.choice((1, min(free, rng.randint(1, 12)), free if rng.random() < 0.1 else 1))
    return rng.choice(
        (
            lambda: unlock(at),
            lambda: erase(at),
            lambda: word(at, data(rng)),
            lambda: buffer(at, [data(rng) for _ in range(count)]),
            lambda: [Write(at, both(mode)), *(Read(an_offset(rng)) for _ in range(3))],
            lambda: [Write(at, both(mode)), Read(at)],
            lambda: [Write(at, both(0x50)), Write(at, both(mode)), Read(at)],
            lambda: [Write(at, both(rng.choice((0x90, 0x98)))), Read(at), Write(at, both(0xFF))],
            lambda: [Write(at, both(0x60)), Write(at, both(rng.choice((0x01, 0xD0, 0x2F))))],
            lambda: [Read(at)],
        )
    )()


def spoil(rng: random.Random, steps: list[Step]) -> list[Step]:
    """The same with one step that is missing, doubled, in the wrong place or of another value."""
    at = rng.randrange(len(steps))
    step = steps[at]
    instead: list[Step] = rng.choice(([], [step, step], [Read(an_offset(rng)), step]))
    if isinstance(step, Write):
        options = (
            instead,
            [Write(an_offset(rng), step.value)],
            [Write(step.offset, both(rng.choice(COMMANDS)))],
            [Write(step.offset, step.value ^ 1 << rng.randrange(32))],
            [Write(step.offset, both(rng.getrandbits(12)))],
        )
        instead = list(rng.choice(options))
    return [*steps[:at], *instead, *steps[at + 1 :]]


def odd_buffer(rng: random.Random) -> list[Step]:
    """A buffered program whose count is wrong, or whose words come in another order."""
    at = an_offset(rng) // BUFFER * BUFFER + 4 * rng.randrange(BUFFER // 4 - 8)
    if rng.random() < 0.3:
        return [Write(at, both(0xE8)), Write(at, both(rng.randint(510, 700))), Read(at)]
    offsets = [at + 4 * i for i in range(rng.randint(2, 6))]
    steps = buffer(at, [data(rng) for _ in offsets])
    rng.shuffle(offsets)
    return [*steps[:2], *(Write(o, data(rng)) for o in offsets), *steps[-2:]]


def nonsense(rng: random.Random) -> list[Step]:
    """Commands and values in no order."""
    values = (
        both(rng.choice(COMMANDS)),
        both(rng.getrandbits(8)),
        both(rng.getrandbits(3)),
        rng.getrandbits(32),
    )
    at = an_offset(rng)
    return [rng.choice((Write(at, rng.choice(values)), Read(at), Wait()))]


def a_sequence(rng: random.Random) -> list[Step]:
    """Blocks unlocked, most of the time, and then sound, spoilt or senseless things to do."""
    steps = [step for b in BLOCKS if rng.random() < 0.9 for step in unlock(b * BLOCK)]
    kind = rng.choice((0.0, 0.0, 0.2, 0.9))
    for _ in range(rng.randint(2, 8)):
        if rng.random() >= kind:
            steps += sound(rng)
        else:
            spoilt = spoil(rng, sound(rng))
            steps += rng.choice((spoilt, spoilt, nonsense(rng), nonsense(rng), odd_buffer(rng)))
        steps.append(Read(an_offset(rng)))
    return steps


def check(pair: Pair, steps: list[Step]) -> tuple[Watch, int]:
    """Run ``steps``; fail at a difference without an excuse.

    Returns the watch and how many comparisons had to be equal.
    """
    watch, strict = Watch(pair.cells), 0
    reads = iter(pair.run(steps))
    shown = []
    for step in steps:
        shown.append(str(step))
        if isinstance(step, Write):
            watch.write(step)
        elif isinstance(step, Wait):
            watch.wait()
        else:
            mine, its = next(reads)
            shown[-1] += f" model {mine:#010x} qemu {its:#010x}"
            excuse = watch.excuse_for_read(step.offset)
            strict += excuse is None
            assert mine == its or excuse, "\n".join(shown)
    for offset in pair.differing():
        assert watch.excuse_for_cell(offset), f"cells at {offset:#x}\n" + "\n".join(shown)
    return watch, strict + 1


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_random_sequences_differ_only_as_documented(pair: Pair, part: int) -> None:
    strict = untouched = 0
    seen: Counter[Difference] = Counter()
    for number in range(SEQUENCES):
        rng = random.Random(f"{part}.{number}")
        pair.restart()
        watch, comparisons = check(pair, a_sequence(rng))
        strict += comparisons
        untouched += not watch.seen
        seen.update(watch.seen)
    assert strict > 4 * SEQUENCES, "most comparisons are excused: the test has lost its teeth"
    assert untouched > SEQUENCES // 20
    assert set(seen) == set(Difference), "a difference that no sequence meets"


# ---------------------------------------------------------------- each known difference

AT = BLOCKS[0] * BLOCK
OTHER = BLOCKS[1] * BLOCK
READY = both(0x80)
ARRAY: list[Step] = [Write(AT, both(0xFF)), Read(AT)]
STATUS: list[Step] = [Write(AT, both(0x70)), Read(AT)]
OPEN = [*unlock(AT), *unlock(OTHER)]
BLANK = 0xFFFFFFFF

# For each: the steps, and what the last read gives in the model and in QEMU.
SHOWN: dict[Difference, tuple[list[Step], int, int]] = {
    Difference.OVERWRITES: (
        [*OPEN, *word(AT, 0xFFFF00F0), *word(AT, 0xFFFFFF0F), *ARRAY],
        0xFFFF0000,
        0xFFFFFF0F,
    ),
    Difference.NO_LOCKS: ([*word(AT, 0x1234), *ARRAY], BLANK, 0x1234),
    Difference.NO_TIME: (
        [*OPEN, Write(AT, both(0x20)), Write(AT, both(0xD0)), Read(AT)],
        0,
        READY,
    ),
    Difference.NO_SUSPEND: (
        [*OPEN, Write(AT, both(0x20)), Write(AT, both(0xD0)), Write(AT, both(0xB0)), *STATUS],
        both(0xC0),
        READY,
    ),
    Difference.NO_BLANK_CHECK: (
        [*OPEN, *word(AT, 0), Write(AT, both(0xBC)), Write(AT, both(0xD0)), Wait(), *STATUS],
        both(0xA0),
        READY,
    ),
    Difference.NO_OTP: (
        [*OPEN, Write(AT, both(0xC0)), Write(AT, 0), Wait(), *STATUS],
        both(0x92),
        READY,
    ),
    Difference.UNKNOWN_COMMAND: ([*STATUS, Write(AT, both(0x33)), Read(AT)], READY, BLANK),
    Difference.ERASE_AT_SETUP: (
        [*OPEN, *word(AT, 0x1234), Write(AT, both(0x20)), Write(AT, both(0xFF)), *ARRAY],
        0x1234,
        BLANK,
    ),
    Difference.NO_SEQUENCE_ERROR: (
        [*OPEN, Write(AT, both(0x60)), Write(AT, both(0x55)), *STATUS],
        both(0xB0),
        READY,
    ),
    Difference.CLEAR_STATUS: ([*OPEN, Write(AT, both(0x50)), *STATUS], READY, 0),
    Difference.ONE_CHIP: (
        [*OPEN, Write(AT, 0x00FF0040), Write(AT, 0x00FF1234), Wait(), *ARRAY],
        0xFFFF1234,
        0x00FF1234,
    ),
    Difference.IDENTITY: ([Write(AT, both(0x90)), Read(AT + 4)], both(0x891C), both(0x18)),
    Difference.QUERY: ([Write(AT, both(0x98)), Read(4 * 0x2A)], both(0x0A), both(0x0B)),
    Difference.QUERY_STICKS: ([Write(AT, both(0x98)), Write(AT, both(0x70)), Read(AT)], READY, 0),
    Difference.BUFFER_COUNT: (
        [Write(AT, both(0xE8)), Write(AT, both(512)), Read(AT)],
        both(0xB0),
        READY,
    ),
    Difference.BUFFER_RANGE: (
        [
            *(*OPEN, Write(AT, both(0xE8)), Write(AT, both(1)), Write(AT + 4, 1), Write(AT, 2)),
            *(Write(AT, both(0xD0)), Wait(), *ARRAY),
        ],
        BLANK,
        2,
    ),
    Difference.BUFFER_ERROR: (
        [
            *(*OPEN, Write(AT, both(0xE8)), Write(AT, both(0)), Write(OTHER, 1)),
            *(Write(AT, both(0xD0)), Wait(), *STATUS),
        ],
        both(0xB0),
        both(0x90),
    ),
}


@pytest.mark.parametrize("difference", Difference, ids=lambda d: d.value)
def test_the_known_difference_is_still_there(pair: Pair, difference: Difference) -> None:
    steps, mine, its = SHOWN[difference]
    assert pair.run(steps)[-1] == (mine, its)


@pytest.mark.parametrize("difference", Difference, ids=lambda d: d.value)
def test_the_watch_excuses_the_known_difference(pair: Pair, difference: Difference) -> None:
    watch, _ = check(pair, SHOWN[difference][0])
    assert difference in watch.seen | {watch.lost} or difference is Difference.NO_TIME


def test_what_the_query_tells_a_driver_is_the_same_but_for_the_buffer(pair: Pair) -> None:
    """Signature, command set, size and block regions: what the firmware goes by."""
    query: list[Step] = [Write(4 * 0x55, both(0x98))]
    words = [0x10, 0x11, 0x12, 0x13, 0x14, 0x27, 0x28, 0x29, 0x2A, 0x2B, *range(0x2C, 0x31)]
    reads = pair.run([*query, *(Read(4 * word) for word in words)])
    differing = {word for word, (mine, its) in zip(words, reads, strict=True) if mine != its}
    assert differing == {0x28, 0x2A}


def test_the_document_names_every_difference() -> None:
    documented = re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert documented == [difference.value for difference in Difference]
