"""``unbrick console`` with a target's file: a person, or a script, at the console of a chip."""

from __future__ import annotations

import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial
from person import Person, close
from processes import unbrick
from small_firmware import build_small
from test_ab_updater import CHIPS, build
from test_run_target import BROKEN, PATIENCE_S, send_update

from unbrick.target.load import load_target

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=CHIPS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target file of the example, for each chip."""
    return build(tmp_path_factory.mktemp("example"), request.param)


@pytest.fixture
def sit_at(tmp_path: Path) -> Iterator[Callable[..., Person]]:
    """Has somebody sit down at the console of a target."""
    people: list[Person] = []

    def sit(*options: object) -> Person:
        people.append(Person(list(options), tmp_path))
        return people[-1]

    yield sit
    for person in people:
        close(person.window)


def test_a_person_plays_with_a_chip(
    example: Path, sit_at: Callable[..., Person], tmp_path: Path
) -> None:
    nor = tmp_path / "flash.bin"
    person = sit_at(example, "--nor", nor)
    person.sees("C-a is the bench's prompt")
    person.sees("APP v1\r\n")
    person.tells_the_bench("nor")
    person.sees("0x")
    person.sees("main")
    person.tells_the_bench("save fresh.bin", "saved the NOR to fresh.bin (not saved: RAM, CPU,")
    # The power goes between two erases, and before the first block of the update.
    person.tells_the_bench("cut next 2", "the power goes just before it")
    person.types("u")
    person.sees("power cut just before flash operation 1")
    person.tells_the_bench("on")
    person.sees("APP v1\r\n")
    person.types("u")
    person.sees("C")
    person.tells_the_bench("reset", "reset\r\n")
    person.sees("APP v1\r\n")
    person.types("u")
    person.sees("C")
    person.tells_the_bench("restart", "power cut\r\n")
    person.sees("APP v1\r\n")
    person.tells_the_bench("cut", "power cut; `on` gives it back")
    person.tells_the_bench("load fresh.bin", "power cut\r\nloaded the NOR from fresh.bin")
    person.sees("APP v1\r\n")
    person.tells_the_bench("quit")
    assert person.is_gone() == 0
    assert (tmp_path / "fresh.bin").read_bytes() == load_target(example).start_image
    assert nor.read_bytes() == load_target(example).start_image


def test_what_a_chip_cannot_do_is_said(
    example: Path, sit_at: Callable[..., Person], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not to be lost")
    person = sit_at(example)
    person.sees("APP v1\r\n")
    size = load_target(example).chip.geometry.size
    for line, answer in (
        ("link up", "`link` is not known for this target: only the reference terminal has it"),
        ("update 1.1.0", "`update` is not known for this target"),
        ("message hello", "`message` is not known for this target"),
        ("gdb", "there is no debugger's port: start this with --gdb PORT"),
        ("jump", "no command 'jump': type help"),
        ("re", "no command 're': type help"),
        ("load notes.txt", f"notes.txt is no NOR image, which has {size} bytes: it has 14 bytes"),
        ("save notes.txt", "notes.txt is there already, and is no NOR image"),
    ):
        person.tells_the_bench(line, answer)
    person.tells_the_bench("help", "cut [next [N]]   cut the power now")
    said = person.sees("C-a twice sends it")
    assert "restart" in said
    assert "link" not in said
    person.types("u")
    person.sees("C")
    assert (tmp_path / "notes.txt").read_text() == "not to be lost"


def test_a_program_at_the_pseudo_terminal_updates_the_chip_of_a_person(
    example: Path, sit_at: Callable[..., Person]
) -> None:
    bench = sit_at(example, "--pty")
    bench.window.expect(r"console: (\S+)\r\n")
    path = bench.window.match.group(1)
    bench.sees("bench> ")
    with serial.Serial(path, 115200, timeout=PATIENCE_S) as port:
        port.read_until(b"APP v1\r\n")
        port.write(b"u")
        send_update(port, example)
        assert port.read_until(b"APP v2\r\n").endswith(b"APP v2\r\n")
        bench.types("restart\n")
        bench.sees("power cut")
        assert port.read_until(b"APP v2\r\n") == b"APP v2\r\n"
    bench.types("quit\n")
    assert bench.is_gone() == 0


def test_a_script_works_from_top_to_bottom(example: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.bin"
    script = f"u\x01cut\n\x01save {saved}\n\x01on\n\x01link up\n"
    done = unbrick("console", example, input=script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "APP v1\nCAPP v1\n"
    assert "power cut; `on` gives it back\nsaved the NOR to " in done.stderr
    assert "`link` is not known for this target" in done.stderr
    assert len(saved.read_bytes()) == load_target(example).chip.geometry.size


CHATTER = """
void start(void) {
    REGISTER(0x40002500) = 4;
    REGISTER(0x40002008) = 1;
    for (;;) {
        REGISTER(0x4000211C) = 0;
        REGISTER(0x4000251C) = '.';
        while (REGISTER(0x4000211C) == 0) {
        }
    }
}
"""
"""The UART of an nRF52 sends for ever."""


def test_a_script_ends_also_at_a_chip_that_is_never_silent(tmp_path: Path) -> None:
    target = build_small(tmp_path, "nrf52832", CHATTER)
    done = unbrick("console", target, input="\x01cut\n\x01quit\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 1000
    assert set(done.stdout) == {"."}
    assert "power cut" in done.stderr


def test_faults_are_told_with_their_source_line_and_the_console_goes_on(
    sit_at: Callable[..., Person], tmp_path: Path
) -> None:
    person = sit_at(build_small(tmp_path, "nrf52832", BROKEN))
    person.sees("firmware fault in start (small.c:3): UsageFault at ")
    person.sees("(lockup)")
    person.tells_the_bench("reset", "reset\r\n")
    person.sees("firmware fault in start (small.c:3): UsageFault at ")
    person.sees("(lockup)")
    person.tells_the_bench("restart", "power cut\r\n")
    person.sees("firmware fault in start (small.c:3): UsageFault at ")
    assert termios.tcgetattr(person.window.child_fd) != person.before
    person.window.kill(signal.SIGTERM)
    assert person.is_gone() == 0


@pytest.mark.parametrize("option", ["--modem=pty", "--serial=X"])
def test_what_only_the_reference_terminal_has_is_refused(option: str, tmp_path: Path) -> None:
    target = build_small(tmp_path, "stm32f103xb", BROKEN)
    done = unbrick("console", target, option, input="")
    assert done.returncode == 2
    name = option.partition("=")[0]
    assert done.stderr.startswith(f"unbrick: {name} is the reference terminal's")
