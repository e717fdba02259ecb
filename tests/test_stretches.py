"""An engine that remembers what the terminal did: it makes no difference but to the time."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from unbrick.campaign.case import CaseId, Death
from unbrick.campaign.search import find_successors
from unbrick.campaign.target import Fate
from unbrick.engine.inprocess import InProcessEngine
from unbrick.reference.target import MOST_STRETCHES, find_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.firmware.signed import Releases

CUTS = 6
"""Power cuts that are drawn by lot."""


@pytest.fixture
def plain(unbrick_releases: Releases) -> Iterator[InProcessEngine]:
    """One that executes all."""
    engine = InProcessEngine(unbrick_releases.elf_files)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    "name", ["staged", "selfrestore", pytest.param("commanded", marks=pytest.mark.slow)]
)
def test_sessions_are_the_same_to_the_last_bit(
    name: str, unbrick_releases: Releases, remembering: InProcessEngine, plain: InProcessEngine
) -> None:
    target = find_target(name, unbrick_releases)
    start = target.start()
    golden = target.run(start, engine=plain)
    found = [state for _, state in find_successors(CaseId(name), start, golden)]
    for state in [start, *Random(name).sample(found, CUTS), start]:
        for fate in (Fate(0), Fate(1)) if state.cells.weak else (Fate(),):
            alone, blocks = target.run(state, fate, engine=plain), plain.blocks
            assert target.run(state, fate, engine=remembering) == alone
            assert remembering.blocks == blocks
    assert remembering.followed > 0


@pytest.mark.slow
def test_what_is_given_up_is_executed_again(
    unbrick_releases: Releases, plain: InProcessEngine
) -> None:
    """A session keeps about 7 MB: not at all in the first, and a few in the second."""
    target, followed = find_target("staged", unbrick_releases), list[int]()
    start = target.start()
    golden = target.run(start, engine=plain)
    found = [state for _, state in find_successors(CaseId("staged"), start, golden)]
    states = [start, *found[::100]]
    alone = [target.run(state, engine=plain) for state in states]
    for most in (1 << 20, 8 << 20, MOST_STRETCHES):
        with InProcessEngine(unbrick_releases.elf_files, remembers=most) as engine:
            for _ in range(2):
                assert [target.run(state, engine=engine) for state in states] == alone
            followed.append(engine.followed)
    assert 0 == followed[0] < followed[1] < followed[2]


@pytest.mark.slow
def test_a_server_that_dies_leaves_what_is_known(
    unbrick_releases: Releases, remembering: InProcessEngine, plain: InProcessEngine
) -> None:
    target = find_target("commanded", unbrick_releases)
    start = target.start()
    marks = len(target.run(start, engine=remembering).marks)
    for change, when in ((marks // 2, ""), (marks // 2, "late"), (marks - 2, "said")):
        fate, before = Fate(death=Death(change, when)), remembering.followed
        assert target.run(start, fate, remembering) == target.run(start, fate, plain)
        assert remembering.followed > before


@pytest.mark.parametrize(("ops", "blocks"), [(1, 0), (0, 500_000)])
def test_what_the_host_looks_at_is_as_if_all_had_been_executed(
    ops: int,
    blocks: int,
    unbrick_releases: Releases,
    remembering: InProcessEngine,
    plain: InProcessEngine,
) -> None:
    image = find_target("staged", unbrick_releases).start().cells.image()
    seen = []
    for engine in (plain, remembering, remembering):
        engine.power_off()
        engine.forget()
        engine.load_nor(image)
        engine.power_on()
        while engine.op_count < ops or engine.blocks < blocks:
            engine.advance(0.001)
        engine.advance(0.001)  # the operation has ended
        registers = [engine.read_register(number) for number in range(17)]
        looked = engine.read_sram(), registers, engine.read_nor(), engine.is_locked_down(0)
        engine.advance(1.0)
        seen.append((*looked, engine.now, engine.blocks, engine.wire.read(), engine.ops))
    assert seen[0] == seen[1] == seen[2]
    assert remembering.followed > 0 or ops  # all of a stretch that was left is executed


def test_what_the_host_changes_is_not_overlooked(
    unbrick_releases: Releases, remembering: InProcessEngine
) -> None:
    image = find_target("staged", unbrick_releases).start().cells.image()
    address = remembering.board.sram.base + remembering.board.sram.size // 2
    for said in (b"one", b"two"):
        remembering.power_off()
        remembering.forget()
        remembering.load_nor(image)
        remembering.power_on()
        remembering.advance(0.001)
        remembering.write_sram(address, said)
        remembering.advance(0.001)
        assert remembering.read_memory(address, 3) == said


VICTIM = 0x80000
"""What the probe erases and programs."""


def let_pass(engine: InProcessEngine, until: float) -> None:
    """Let time pass, although the probe says something."""
    while engine.now < until:
        engine.advance(until - engine.now)


def erase_and_program(engine: InProcessEngine, image: bytes, amid: float) -> bytes:
    """The probe erases a word and programs it; a run ends at a time amid the erase."""
    engine.power_off()
    engine.forget()
    engine.load_nor(image)
    engine.power_on()
    let_pass(engine, 0.001)
    engine.wire.write(b"loe")  # it says what is there, counts far, and erases
    let_pass(engine, amid)
    assert engine.op_count == 1
    let_pass(engine, amid + 1.0)
    engine.wire.write(b"7")
    let_pass(engine, amid + 1.1)
    engine.power_off()
    return engine.read_nor()[VICTIM : VICTIM + 4]


def test_what_was_under_way_at_a_moment_is_not_carried_out_when_the_power_goes(
    probe_image: bytes, remembering: InProcessEngine, plain: InProcessEngine
) -> None:
    """Sessions that begin otherwise come to a moment amid an erase, and follow from there."""
    amid, programmed = 0.2, b"\x07\x20\x70\x47"
    for old in (b"some", b"more", b"most"):
        image = probe_image.ljust(VICTIM, b"\xff") + old
        assert erase_and_program(plain, image, amid) == programmed
        assert erase_and_program(remembering, image, amid) == programmed
    assert remembering.followed > 0
