"""Sessions that join an earlier one: what comes of them is what comes of them alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from brickproof_demo import find_demo, list_builds
from judged_states import find_difference
from small_firmware import build_small
from test_ab_updater import build

from unbrick.campaign.case import CaseId
from unbrick.campaign.search import find_successors
from unbrick.campaign.target import UNDISTURBED, Fate, Outcome, State
from unbrick.engine.mcu import McuEngine
from unbrick.engine.mcu.models import JoinPart
from unbrick.flash.cells import RESOLUTIONS
from unbrick.target import rests as rests_module
from unbrick.target.rests import KnownRests
from unbrick.target.session import run_session
from unbrick.target.target import FileTarget

DEMO = find_demo()
STATES = 100

SEED = 0xF000
"""Offset of the words that a power cut is thought to have left."""

FIRMWARE = """
#define SEED REGISTER(0x0800f000)
#define NOTE REGISTER(RAM + 0x800)
#define HELD REGISTER(0x40007408) /* of the DAC, which has no model: it holds what was written */
#define FORGET __asm__ volatile("movs r0, #0; movs r1, #0; movs r2, #0; movs r3, #0" \\
                                ::: "r0", "r1", "r2", "r3", "cc", "memory")
static void say(unsigned byte) {
    while (!(REGISTER(0x40013800) & 0x80)) {
    }
    REGISTER(0x40013804) = byte;
}
static void erase(unsigned page) {
    REGISTER(0x40022010) = 2;
    REGISTER(0x40022014) = page;
    REGISTER(0x40022010) = 0x42;
    while (REGISTER(0x4002200c) & 1) {
    }
    REGISTER(0x40022010) = 0;
}
void start(void) {
    register unsigned kept __asm__("r8") = 0;
    REGISTER(0x4001380c) = 0x2008;
    REGISTER(0x40022004) = 0x45670123;
    REGISTER(0x40022004) = 0xcdef89ab;
    NOTE = HELD = 0;
    BEFORE;
    FORGET;
    say('.');
    FORGET;
    erase(0x0800e000);
    AFTER;
    for (const char *c = " ready\\n"; *c; c++) {
        say(*c);
    }
    for (;;) {
    }
}
"""

KEEP = '__asm__ volatile("" : "+r"(kept))'


@dataclass(frozen=True)
class Way:
    """How what was read before the erase has a say after it.

    Attributes:
        part: of the machine, in which it is meanwhile; NONE: it has no say.
        before: is done before the erase.
        after: is done after it.
    """

    part: JoinPart
    before: str
    after: str


WAYS = (
    Way(JoinPart(0), "(void)SEED", "say('x')"),
    Way(JoinPart(0), "(void)(&SEED)[SEED]", "(void)(&SEED)[4]"),
    Way(
        JoinPart(0), "(void)(&SEED)[SEED]; (void)REGISTER(0x0800e000)", "say(REGISTER(0x0800e000))"
    ),
    Way(JoinPart.CORE, f"kept = SEED; {KEEP}", f"{KEEP}; say('0' + kept)"),
    Way(JoinPart.RAMS, "NOTE = SEED", "say('0' + NOTE)"),
    Way(JoinPart.DEVICES, "HELD = SEED", "say('0' + HELD)"),
    Way(JoinPart.PAST, "say('0' + SEED)", "say('x')"),
    Way(JoinPart.FLASH, "(void)0", "say('0' + SEED)"),
)
MOST = 4
"""Different words that are tried at SEED."""


def build_way(way: Way, folder: Path) -> FileTarget:
    defines = f"#define BEFORE {way.before}\n#define AFTER {way.after}\n"
    path = build_small(folder, "stm32f103xb", defines + FIRMWARE, 'console = "usart1"')
    return FileTarget.load(path, tried=False)


def start_with(target: FileTarget, seed: int) -> State:
    cells = target.start().cells
    return State(cells.with_range(SEED, seed.to_bytes(4, "little")))


def run_alone(target: FileTarget, state: State, fate: Fate = UNDISTURBED) -> Outcome:
    with target.create_engine() as engine:
        return target.run(state, fate, engine)


def list_seeds(target: FileTarget, parts: JoinPart) -> list[tuple[bool, str]]:
    """For each word: whether its session joins one, and how it differs from that word alone."""
    engine = target.create_engine()
    assert isinstance(engine, McuEngine)
    found = []
    with engine:
        rests = KnownRests(engine, parts)
        for seed in range(1, MOST):
            state = start_with(target, seed)
            outcome = run_session(engine, target.description, state, UNDISTURBED, rests)
            difference = find_difference(run_alone(target, state), outcome)
            found.append((engine.has_joined, difference))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.part.name or 'none'}-{way.after}")
def test_sessions_join_where_nothing_is_left_of_a_difference(way: Way, tmp_path: Path) -> None:
    target = build_way(way, tmp_path)
    assert list_seeds(target, JoinPart.ALL) == [
        (False, ""),
        *(MOST - 2) * [(not way.part, "")],
    ]
    if way.part:
        found = list_seeds(target, JoinPart.ALL & ~way.part)
        assert all(joined and difference for joined, difference in found[1:])


@pytest.mark.slow
def test_the_oldest_sessions_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rests_module, "MOST_SESSIONS", 1)
    target = build_way(WAYS[-1], tmp_path)
    engine = target.create_engine()
    assert isinstance(engine, McuEngine)
    with engine:
        rests, joined = KnownRests(engine), []
        for seed in (1, 1, 2, 1):
            run_session(engine, target.description, start_with(target, seed), UNDISTURBED, rests)
            joined.append(engine.has_joined)
    assert joined == [False, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["f103", "f411", "l476", "nrf52"] if DEMO else [])
def test_what_comes_of_published_firmware_is_the_same(name: str, tmp_path: Path) -> None:
    """Its sessions go on after the recovery, with another update."""
    (one,) = (one for one in list_builds(DEMO) if one.name == name)
    assert count_joined(FileTarget.load(one.write_target(tmp_path))) > STATES // 10


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["nrf52840", "stm32f103"])
def test_what_comes_of_a_target_with_a_driver_is_the_same(chip: str, tmp_path: Path) -> None:
    assert count_joined(FileTarget.load(build(tmp_path, chip))) > STATES // 10


def count_joined(target: FileTarget) -> int:
    """Run states after one power cut, each in a random way of reading: how many have joined.

    All must be the same as when they are run alone.
    """
    start, dice, joined = target.start(), Random(0), 0
    engine = target.create_engine()
    assert isinstance(engine, McuEngine)
    with engine, target.create_engine() as alone:
        rests = KnownRests(engine)
        whole = run_session(engine, target.description, start, UNDISTURBED, rests)
        cuts = list(find_successors(CaseId(target.name), start, whole))
        for case, state in dice.sample(cuts, STATES):
            fate = Fate(dice.randrange(RESOLUTIONS) if state.cells.weak else 0)
            outcome = run_session(engine, target.description, state, fate, rests)
            joined += engine.has_joined
            said = target.run(state, fate, alone)
            assert find_difference(said, outcome) == "", case
            assert said.final == outcome.final, case
    return joined
