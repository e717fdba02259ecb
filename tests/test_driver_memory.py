"""What a driver remembers outlives a power cut: so a campaign sees a promise that was not kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_firmware import build_small

from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.campaign.target import MemoryMark, State
from unbrick.errors import ExpectError
from unbrick.flash.cells import Cells
from unbrick.started import StartedTarget
from unbrick.target.session import BEGUN
from unbrick.target.target import FileTarget

KEEPER = """
static void say(const char *text) {
    while (*text) {
        while (!(REGISTER(0x40004400) & 0x80)) {
        }
        REGISTER(0x40004404) = *text++;
    }
}
static void keep(void) {
    REGISTER(0x40022010) = 1;
    *(volatile unsigned short *)0x08004000 = 0;
    while (REGISTER(0x4002200C) & 1) {
    }
}
void start(void) {
    REGISTER(0x40022004) = 0x45670123;
    REGISTER(0x40022004) = 0xCDEF89AB;
    REGISTER(0x4000440C) = 0x200C;
    say(*(volatile unsigned short *)0x08004000 ? "empty\\n" : "kept\\n");
    while (!(REGISTER(0x40004400) & 0x20)) {
    }
    KEEP
    say("ready\\n");
    for (;;) {
        __asm("wfi");
    }
}
"""
"""Says whether something is kept; when a byte comes, it keeps it and promises that."""

SENT = "while (!(REGISTER(0x40004400) & 0x40)) {}"
PROMISES = {
    "late": 'keep(); say("promised\\n");',
    "early": f'say("promised\\n"); {SENT} keep();',
}

DRIVER = """
def update(console, payload, options):
    there = yield console.until("\\n")
    if console.remembered and there != b"kept\\n":
        console.give_up(f"it has {console.remembered}, and does not keep it")
    console.write("k")
    yield console.until("promised\\n")
    console.remember("promised")
    yield console.pause(0.01)
"""

UPDATE = 'console = "usart2"\n[update]\ndriver = "driver.py"\n'


def make(folder: Path, promise: str) -> FileTarget:
    (folder / "driver.py").write_text(DRIVER)
    source = KEEPER.replace("KEEP", PROMISES[promise])
    return FileTarget.load(build_small(folder, "stm32f103xb", source, UPDATE))


def start(target: FileTarget) -> State:
    found = target.description
    return State(Cells.of(found.start_image, found.chip.geometry))


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> FileTarget:
    """Promises what it has kept."""
    return make(tmp_path_factory.mktemp("late"), "late")


def find_marks(marks: list[MemoryMark]) -> list[tuple[int, str]]:
    return [(mark.ops, mark.peers) for mark in marks]


def test_a_memory_counts_from_the_operation_at_which_it_came(late: FileTarget) -> None:
    outcome = late.run(start(late))
    assert outcome.violation is None
    assert find_marks(outcome.marks) == [(0, BEGUN), (1, f"{BEGUN}: promised")]
    assert outcome.marks[1].time > outcome.ops[0].end
    assert outcome.final
    assert outcome.final.peers == f"{BEGUN}: promised"


def test_the_next_session_begins_with_it(late: FileTarget) -> None:
    outcome = late.run(State(start(late).cells, f"{BEGUN}: promised"))
    assert outcome.violation == ("not-updated", "it has promised, and does not keep it")
    assert find_marks(outcome.marks) == [(0, f"{BEGUN}: promised")]


def test_a_promise_that_is_kept_passes(late: FileTarget) -> None:
    result = run_campaign(late, bounds=Bounds(shapes="sure"))
    assert result.closed
    assert not result.violations, result.statement


def test_a_promise_that_comes_too_early_is_found(tmp_path: Path) -> None:
    result = run_campaign(make(tmp_path, "early"), bounds=Bounds(depth=1, shapes="none"))
    assert [str(case.id) for case in result.violations] == ["small/0"]
    kind, text = result.violations[0].outcome.violation or ("", "")
    assert (kind, text) == ("not-updated", "it has promised, and does not keep it")


def test_a_device_under_a_test_of_the_users_is_asked_for_it_too(late: FileTarget) -> None:
    device = StartedTarget(late)
    device.power_on()
    device.start_update()
    device.console.expect("ready")
    device.recover()
    device.cut_power()
    device.engine.load_nor(late.description.start_image)
    with pytest.raises(ExpectError, match="it has promised, and does not keep it"):
        device.recover()
    device.close()
