"""Targets from files on other engines: the same operations, the same words, the same verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from brickproof_demo import Build, find_demo, list_builds
from chip_probe import ChipProbe, Step, read, wait, write
from processes import Running, unbrick
from small_firmware import build_small
from test_ab_updater import build

from unbrick.board import load_chip
from unbrick.campaign.case import CaseId
from unbrick.campaign.replay import replay
from unbrick.campaign.search import find_cuts
from unbrick.campaign.target import UNDISTURBED, ReplayedSession
from unbrick.engine.base import ChipEngine
from unbrick.engine.renode.chip import RenodeChip
from unbrick.engine.renode.platform import describe_devices
from unbrick.errors import MissingToolError, NotKnownHereError
from unbrick.flash.ops import FlashOp
from unbrick.target.target import FileTarget

pytestmark = pytest.mark.slow

SECONDS = {"nrf52840": 0.5, "stm32f103xb": 0.5, "stm32f407xg": 2.0, "stm32f411xe": 6.0}
"""By chip, of its time: what a script takes and more."""


@dataclass(frozen=True)
class Pair:
    """A target, and two engines that run its chip."""

    target: FileTarget
    own: ChipEngine
    other: ChipEngine

    def replay(self, case: str) -> tuple[ReplayedSession, ReplayedSession]:
        """The last session of a case on both."""
        found = CaseId.parse(case)
        first, second = (replay(self.target, one, found)[-1] for one in (self.own, self.other))
        return first, second


@cache
def _has_cortex_m() -> str:
    """Why there is no Renode for chips; empty: there is."""
    try:
        RenodeChip(load_chip("stm32f103xb")).close()
    except MissingToolError as error:
        return f"{error} ({error.hint})"
    return ""


@pytest.fixture(scope="module")
def renode_m(renode: str) -> str:
    """The path of a Renode that has a Cortex-M core; others are built without one."""
    if _has_cortex_m():
        pytest.skip(_has_cortex_m())
    return renode


def find_build(name: str) -> Build:
    """A build of `brickproof-fw`, which must be there."""
    demo = find_demo()
    if demo is None:
        pytest.skip("brickproof-fw is not installed: pip install brickproof-fw==0.4.0")
    (found,) = (one for one in list_builds(demo) if one.name == name)
    return found


PAIRS = [
    *(("nrf51822", "renode"), ("nrf52840", "renode"), ("stm32f103", "renode")),
    ("f411", "renode"),
    ("nrf51822", "qemu"),
]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """The example, or `brickproof-fw`'s of a name; and another engine that has the chip."""
    name, engine = request.param
    request.getfixturevalue("renode_m" if engine == "renode" else "qemu")
    folder = tmp_path_factory.mktemp("example")
    path = find_build(name).write_target(folder) if name == "f411" else build(folder, name)
    target = FileTarget.load(path, tried=False)
    with target.create_engine() as own, target.create_engine(engine=engine) as other:
        yield Pair(target, own, other)


def what_was_done(ops: Sequence[FlashOp]) -> list[tuple[str, int, int, bytes]]:
    """Operations without their times."""
    return [(op.kind, op.offset, op.length, op.data) for op in ops]


def list_flash_events(replayed: str) -> list[str]:
    """The lines about the flash and the power of a replay, without their times."""
    lines = [line.split(maxsplit=1)[-1] for line in replayed.splitlines()]
    return [line for line in lines if line.startswith(("nor", "power"))]


def test_the_update_does_the_same_and_says_the_same(pair: Pair) -> None:
    own, other = pair.replay(pair.target.name)
    assert own.outcome.violation is None
    assert len(own.outcome.ops) > 90
    assert what_was_done(other.outcome.ops) == what_was_done(own.outcome.ops)
    assert other.outcome.console == own.outcome.console
    assert other.outcome.violation is None
    assert other.outcome.final.cells == own.outcome.final.cells
    assert pair.other.faults == []
    assert pair.other.resets == pair.own.resets


def test_what_cuts_leave_recovers_in_the_same_way(pair: Pair) -> None:
    outcome = pair.target.run(pair.target.start(), UNDISTURBED, pair.own)
    cuts = list(find_cuts(CaseId(pair.target.name), outcome, pair.own.geometry))
    for case, *_ in cuts[5 :: len(cuts) // 6]:
        own, other = pair.replay(str(case))
        assert what_was_done(other.outcome.ops) == what_was_done(own.outcome.ops), case
        assert other.outcome.console == own.outcome.console
        assert other.outcome.violation == own.outcome.violation


def test_the_power_goes_just_before_an_operation(pair: Pair) -> None:
    number = 60
    cells = {}
    for engine in (pair.own, pair.other):
        engine.power_off()
        engine.forget()
        engine.cut_before_op(number)
        pair.target.run(pair.target.start(), UNDISTURBED, engine)
        assert engine.op_count == number
        engine.cut_before_op(None)
        cells[engine.name] = engine.read_nor()
    assert len(set(cells.values())) == 1


@pytest.mark.parametrize("name", ["ab-stm32f103/458-begun", "f411-bug-consume-first/5"])
def test_a_seeded_bug_is_seen_by_both(name: str, tmp_path: Path, renode_m: str) -> None:
    del renode_m
    if name.startswith("ab"):
        path = build(tmp_path, "stm32f103", "old-erased-early")
    else:
        path = find_build("f411/bug-consume_first").write_target(tmp_path)
    target = FileTarget.load(path, tried=False)
    with target.create_engine() as own, target.create_engine(engine="renode") as other:
        first, second = Pair(target, own, other).replay(name)
    assert first.outcome.violation
    assert second.outcome.violation == first.outcome.violation
    assert second.outcome.console == first.outcome.console


NVMC = 0x4001_E000
CONFIG, ERASEPAGE, ERASEUICR = NVMC + 0x504, NVMC + 0x508, NVMC + 0x514
NRF_READY = wait(NVMC + 0x400, 1, 1)
F1 = 0x4002_2000
KEYR, F1_SR, CR, AR = F1 + 0x04, F1 + 0x0C, F1 + 0x10, F1 + 0x14
F1_READY = wait(F1_SR, 1, 0)
UNLOCK = (write(KEYR, 0x4567_0123), write(KEYR, 0xCDEF_89AB))
PG, PER, START = 1, 2, 0x40
F4 = 0x4002_3C00
F4_KEYR, F4_OPTKEYR, F4_SR, F4_CR, F4_OPTCR = F4 + 4, F4 + 8, F4 + 0xC, F4 + 0x10, F4 + 0x14
F4_UNLOCK = (write(F4_KEYR, 0x4567_0123), write(F4_KEYR, 0xCDEF_89AB))
F4_UNLOCK_OPTIONS = (write(F4_OPTKEYR, 0x0819_2A3B), write(F4_OPTKEYR, 0x4C5D_6E7F))
X16, X32, X64 = (size << 8 for size in (1, 2, 3))
SER, MER, STRT, EOPIE, ERRIE, F4_LOCK = 2, 4, 1 << 16, 1 << 24, 1 << 25, 1 << 31
F4_WAIT = (write(F4_CR, 0), read(F4_SR))
"""Whoever writes the control register waits for what is under way."""
OPTIONS = 0x7FFF_AAEC


def f4_erase(sector: int, flags: int = X32) -> Step:
    """The start of an erase of a sector."""
    return write(F4_CR, SER | sector << 3 | flags | STRT)


SCRIPTS: dict[str, tuple[str, tuple[Step, ...]]] = {
    "nrf-programs": (
        "nrf52840",
        (
            *(write(CONFIG, 1), write(0x8000, 0x1234_5678), NRF_READY, write(0x8004, 0), NRF_READY),
            *(read(0x8000), write(0x8000, 0x0000_5670), NRF_READY, read(0x8000), read(0x8004)),
        ),
    ),
    "nrf-erases": (
        "nrf52840",
        (
            *(write(CONFIG, 1), write(0x8000, 1), NRF_READY, write(0x1000_1080, 5), NRF_READY),
            *(write(CONFIG, 2), write(ERASEPAGE, 0x8000), NRF_READY, read(0x8000)),
            *(write(ERASEUICR, 1), NRF_READY, read(0x1000_1080), read(CONFIG)),
        ),
    ),
    "nrf-locked": ("nrf52840", (write(0x8000, 1), read(0x8000), write(ERASEPAGE, 0x8000))),
    "nrf-stray": ("nrf52840", (write(CONFIG, 2), write(0x8000, 1), write(ERASEPAGE, 0x8004))),
    "nrf-hasty": (
        "nrf52840",
        (
            *(write(CONFIG, 1), write(0x8000, 1), write(0x8004, 2), NRF_READY),
            *(read(0x8000), read(0x8004)),
        ),
    ),
    "nrf-width": ("nrf52840", (write(CONFIG, 1), write(0x8000, 1, 2), read(0x8000))),
    "nrf-worn": (
        "nrf52840",
        (
            write(CONFIG, 1),
            *(
                step
                for i in range(3)
                for step in (write(0x8000, ~(1 << i) & 0xFFFF_FFFF), NRF_READY)
            ),
        ),
    ),
    "f1-programs": (
        "stm32f103xb",
        (
            *(*UNLOCK, read(CR), write(CR, PG), write(0x0800_8000, 0x1234, 2), F1_READY),
            *(write(0x0800_8000, 0, 2), F1_READY, read(0x0800_8000), read(F1_SR)),
        ),
    ),
    "f1-erases": (
        "stm32f103xb",
        (
            *(*UNLOCK, write(CR, PG), write(0x0800_8000, 0x1234, 2), F1_READY, write(CR, PER)),
            *(write(AR, 0x0800_8010), write(CR, PER | START), F1_READY, read(0x0800_8000)),
        ),
    ),
    "f1-locked": ("stm32f103xb", (write(0x0800_8000, 1, 2), write(CR, PG), read(CR))),
    "f1-wrong-key": ("stm32f103xb", (write(KEYR, 1), *UNLOCK, read(CR))),
    "f1-dirty": (
        "stm32f103xb",
        (
            *(*UNLOCK, write(CR, PG), write(0x0800_8000, 1, 2), F1_READY),
            *(write(0x0800_8000, 2, 2), read(F1_SR), read(0x0800_8000)),
        ),
    ),
    "f1-width": ("stm32f103xb", (*UNLOCK, write(CR, PG), write(0x0800_8000, 1))),
    "f1-hasty": (
        "stm32f103xb",
        (
            *(*UNLOCK, write(CR, PG), write(0x0800_8000, 1, 2), write(0x0800_8002, 2, 2)),
            *(F1_READY, read(0x0800_8000)),
        ),
    ),
    "f1-stray": ("stm32f103xb", (*UNLOCK, write(0x0800_8000, 1, 2), write(CR, START))),
    "f4-programs": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK, read(F4_CR), write(F4_CR, PG), write(0x0800_8000, 0x12, 1)),
            *(write(F4_CR, PG | X16), write(0x0800_8002, 0x5634, 2), write(F4_CR, PG | X32)),
            *(write(0x0800_8004, 0x9ABC_DEF0), *F4_WAIT, read(0x0800_8000), read(0x0800_8004)),
        ),
    ),
    "f4-erases": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK, write(F4_CR, PG | X32), write(0x0800_8000, 1), f4_erase(2), *F4_WAIT),
            *(f4_erase(4, X16), *F4_WAIT, f4_erase(7, 0), *F4_WAIT, read(0x0800_8000)),
        ),
    ),
    "f4-erases-late": ("stm32f407xg", (*F4_UNLOCK, f4_erase(11), *F4_WAIT, f4_erase(3))),
    "f4-hasty": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK, f4_erase(2), write(F4_CR, PG | X32), write(0x0800_8000, 1)),
            *(write(0x0800_8004, 2), *F4_WAIT, read(0x0800_8000)),
        ),
    ),
    "f4-locked": (
        "stm32f411xe",
        (write(0x0800_8000, 1), read(F4_SR), write(F4_CR, PG), read(F4_CR), f4_erase(2)),
    ),
    "f4-wrong-key": ("stm32f411xe", (write(F4_KEYR, 1), *F4_UNLOCK, read(F4_CR))),
    "f4-locked-again": (
        "stm32f411xe",
        (*F4_UNLOCK, write(F4_CR, F4_LOCK), write(F4_CR, PG), *F4_UNLOCK, f4_erase(2), *F4_WAIT),
    ),
    "f4-stray": (
        "stm32f411xe",
        (*F4_UNLOCK, write(0x0800_8000, 1), write(0x1FFF_C000, 1), read(F4_SR)),
    ),
    "f4-width": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK, write(F4_CR, PG | X32 | ERRIE), write(0x0800_8000, 0, 2), read(F4_SR)),
            *(write(F4_SR, 0xFF), read(F4_SR), write(0x0800_8001, 0, 1), write(F4_CR, PG)),
            *(write(0x0800_8000, 0), write(F4_CR, PG | X64), write(0x0800_8000, 0, 8), read(F4_SR)),
        ),
    ),
    "f4-dirty": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK, write(F4_CR, PG | X32 | EOPIE), write(0x0800_8000, 0x0F0F_0F0F)),
            *(write(0x0800_8000, 0x3333_3333), write(F4_CR, EOPIE), read(F4_SR), read(0x0800_8000)),
        ),
    ),
    "f4-no-sector": (
        "stm32f411xe",
        (*F4_UNLOCK, f4_erase(8), read(F4_SR), write(F4_CR, STRT), write(F4_CR, SER | MER | STRT)),
    ),
    "f4-protects": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK_OPTIONS, write(F4_OPTCR, OPTIONS & ~(1 << 18))),
            *(write(F4_OPTCR + 2, 0x0FFB, 2), write(F4_OPTCR, OPTIONS & ~(1 << 18) | 2)),
            *(read(F4_OPTCR), *F4_UNLOCK, f4_erase(2), read(F4_SR), write(F4_SR, 0xFF)),
            *(write(F4_CR, PG | X32), write(0x0800_8000, 1), read(F4_SR), read(0x1FFF_C008)),
            *(write(F4_CR, MER | STRT), *F4_WAIT),
        ),
    ),
    "f4-protects-the-others": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK_OPTIONS, write(F4_OPTCR, 1 << 31 | OPTIONS & ~(1 << 18)), read(F4_OPTCR)),
            *(write(F4_OPTCR, 1 << 31 | OPTIONS & ~(1 << 18) | 2), *F4_UNLOCK, f4_erase(2)),
            *(*F4_WAIT, f4_erase(3), *F4_WAIT),
        ),
    ),
    "f4-options-locked": (
        "stm32f411xe",
        (write(F4_OPTCR, OPTIONS), read(F4_OPTCR), write(F4_OPTKEYR, 1), *F4_UNLOCK_OPTIONS),
    ),
    "f4-level-1-and-back": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK_OPTIONS, write(F4_OPTCR, 0x0FFF_55EC), write(F4_OPTCR, 0x0FFF_55EE)),
            *(read(F4_OPTCR), *F4_WAIT, read(0x1FFF_C000)),
        ),
    ),
    "f4-level-2": (
        "stm32f411xe",
        (
            *(*F4_UNLOCK_OPTIONS, write(F4_OPTCR, 0x0FFF_CCEE), write(F4_OPTCR, 0x0FFF_AAEE)),
            *(read(F4_OPTCR), *F4_WAIT, read(0x1FFF_C000)),
        ),
    ),
}
"""What is done to flash, right and wrong."""


@pytest.fixture(scope="module", params=list(SECONDS))
def probes(
    request: pytest.FixtureRequest, renode_m: str
) -> Iterator[tuple[str, ChipProbe, ChipProbe]]:
    """A chip's name, and the probe on it in process and on Renode."""
    del renode_m
    with RenodeChip(load_chip(request.param)) as engine:
        yield request.param, ChipProbe(request.param), ChipProbe(request.param, engine=engine)


def test_our_flash_on_renode_is_the_one_in_process(
    probes: tuple[str, ChipProbe, ChipProbe],
) -> None:
    chip, *both = probes
    for name, (of, steps) in SCRIPTS.items():
        if of != chip:
            continue
        for from_ram in (False, True):
            seen = []
            for probe in both:
                results = probe.run(*steps, from_ram=from_ram, seconds=SECONDS[chip])
                probe.engine.power_off()
                found = (results, what_was_done(probe.engine.ops), probe.faults)
                seen.append((*found, probe.engine.read_nor()))
            assert seen[1] == seen[0], (name, from_ram)


def test_a_platform_of_the_users_will_do(tmp_path: Path, renode_m: str) -> None:
    del renode_m
    target = build(tmp_path, "nrf52840")
    platform = tmp_path / "mine.repl"
    platform.write_text(describe_devices(load_chip("nrf52840")), encoding="utf-8")
    done = unbrick("check", target, "--engine", "renode", "--platform", platform)
    assert done.returncode == 0, done.stderr
    for text in ("engine     renode", "'APP v2'", "the engine renode does not know"):
        assert text in done.stdout
    platform.write_text("cpu: CPU.NoSuchCore @ sysbus\n", encoding="utf-8")
    done = unbrick("check", target, "--engine", "renode", "--platform", platform)
    assert done.returncode != 0
    assert "NoSuchCore" in done.stderr


def test_commands_take_the_engine(pair: Pair) -> None:
    case, path, engine = f"{pair.target.name}/3", pair.target.path, pair.other.name
    own = unbrick("replay", path, case)
    other = unbrick("replay", path, case, "--engine", engine)
    assert (other.returncode, own.returncode) == (0, 0)
    assert len(list_flash_events(own.stdout)) > 90
    assert list_flash_events(other.stdout) == list_flash_events(own.stdout)
    with Running("run", path, "--engine", engine) as chip:
        chip.wait_for(r"ready: wire (\S+)\n")
        assert chip.end() == 0


def test_what_an_engine_does_not_know_is_said_in_one_line(tmp_path: Path) -> None:
    target = build_small(tmp_path, "stm32l476xg", "void start(void) { for (;;) ; }")
    done = unbrick("run", target, "--engine", "renode")
    assert done.returncode == 2
    assert done.stderr.startswith("unbrick: the engine renode has no flash of stm32l476xg")
    done = unbrick("run", target, "--engine", "serial")
    assert done.returncode == 2
    assert done.stderr.startswith("unbrick: the engine serial runs no chip of a target's file")
    done = unbrick("replay", "staged", "--engine", "renode")
    assert done.returncode == 2
    assert "replays no SCENARIO" in done.stderr
    done = unbrick("check", target, "--engine", "qemu", "--platform", target)
    assert done.returncode == 2
    assert "the engine qemu takes no platform" in done.stderr
    done = unbrick("check", target, "--engine", "qemu")
    assert done.returncode == 2
    assert done.stderr.startswith("unbrick: the engine qemu has no stm32l476xg")
    with pytest.raises(NotKnownHereError, match="no debugger"):
        FileTarget.load(target).create_engine(debugged=True, engine="renode")
