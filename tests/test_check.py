"""``unbrick check``: what it says of a target, and what to do about each trouble."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from small_firmware import build_small

from unbrick.cli.check import show_trial
from unbrick.cli.main import cli
from unbrick.target.target import FileTarget
from unbrick.target.trial import try_target

pytestmark = pytest.mark.slow

UPDATER = """
static const unsigned *const staged = (const unsigned *)0x08004000;
static const unsigned *const installed = (const unsigned *)0x08005000;
static void say(const char *text) {
    REGISTER(0x40004408) = 8000000 / 115200;
    REGISTER(0x4000440C) = 1 << 13 | 1 << 3;
    for (; *text != 0; text++) {
        while (!(REGISTER(0x40004400) & 1 << 7)) {
        }
        REGISTER(0x40004404) = (unsigned char)*text;
    }
}
void start(void) {
    UNLOCK
    if (*staged != 0xFFFFFFFF && *installed == 0xFFFFFFFF) {
        REGISTER(0x40022010) = 1;
        *(volatile unsigned short *)installed = 0x1234;
        while (REGISTER(0x4002200C) & 1) {
        }
    }
    say(*staged == 0xFFFFFFFF ? "old\\r\\n" : "new\\r\\n");
    for (;;) {
        __asm("wfi");
    }
}
"""
"""Programs a half-word when something is staged, and says at USART2 whether there is."""

UNLOCK = "REGISTER(0x40022004) = 0x45670123; REGISTER(0x40022004) = 0xCDEF89AB;"

STAGED = """
[update]
stage = { hex = "01 02 03 04", at = 0x0800_4000 }
"""


@pytest.fixture(scope="module")
def updater(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a target that updates itself."""
    return make(tmp_path_factory.mktemp("updater"), UNLOCK)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a bug: the flash stays locked."""
    return make(tmp_path_factory.mktemp("locked"), "")


def make(folder: Path, unlock: str) -> Path:
    source = UPDATER.replace("UNLOCK", unlock)
    target = build_small(folder, "stm32f103xb", source, 'console = "usart2"')
    text = target.read_text(encoding="utf-8").replace('"ready"', '"new"\nwithin = "20 ms"')
    target.write_text(text + STAGED, encoding="utf-8")
    return folder


def check(folder: Path, *options: str, **changes: str) -> Result:
    """Check the target with some of its texts replaced."""
    text = (folder / "small.toml").read_text(encoding="utf-8")
    for old, new in (("usart2", "console"), ('says = "new"', "says"), (STAGED, "staged")):
        if new in changes:
            assert old in text
            text = text.replace(old, changes[new])
    text = changes.get("whole", text)
    (folder / "changed.toml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(cli, ["check", str(folder / "changed.toml"), *options])


def test_a_target_that_works_is_ready(updater: Path) -> None:
    done = check(updater)
    assert done.exit_code == 0, done.output
    lines = dict(line.split(maxsplit=1) for line in done.output.splitlines())
    assert re.fullmatch(r"at 0x080000\w\w, start \(small.c:\d+\)", lines["boots"])
    assert lines["console"].startswith("'new' after ")
    assert lines["flash"] == "main: 0 erases, 1 programs of 2 bytes in all"
    assert lines["recovered"].endswith("says 'new'")
    assert re.match(r"\d+ cuts, a session takes .* at most; a guess: ", lines["single"])
    assert lines["full"].startswith("a guess: ")
    assert "note" not in done.output
    assert done.output.endswith(f"    unbrick campaign {updater / 'changed.toml'}\n")


def test_a_script_is_told_the_same(updater: Path) -> None:
    done = check(updater, "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["ready"] is True
    assert told["operations"] == 1
    assert [said["text"] for said in told["said"]] == ["new"]
    assert told["recovered"]["is"] is True
    assert told["cost"]["single_most_s"] >= told["cost"]["single_guess_s"] > 0
    assert told["troubles"] == told["notes"] == []


def test_the_cuts_that_are_foretold_are_those_of_the_campaign(updater: Path) -> None:
    foretold = json.loads(check(updater, "--json").stdout)["cost"]["cuts"]
    words = ["campaign", str(updater / "small.toml"), "--jobs", "1", "--json"]
    (scenario,) = json.loads(CliRunner().invoke(cli, words).stdout)["scenarios"]
    assert scenario["transitions"] == foretold


TROUBLES = {
    "another UART": (
        {"console": "usart1"},
        "trouble: the console usart1 says nothing, but usart2 says 'new'",
        'write console = "usart2"',
    ),
    "a text that is nearly right": (
        {"says": 'says = "neww"'},
        "trouble: it does not say 'neww' within 0.02 s; at the end the core is at start",
        "is it 'new' that `says` of [recovered] means?",
    ),
    "nothing to cut": (
        {"staged": "", "says": 'says = "old"'},
        "trouble: the update does nothing to the flash: there is nowhere to cut",
        "stage something with [update] stage, or drive it with `driver` or `type`",
    ),
    "nothing where the chip starts": (
        {
            "whole": 'chip = "stm32f103xb"\n[[firmware]]\nhex = "00"\nat = 0x0800_1000\n'
            '[recovered]\nsays = "new"\n'
        },
        "trouble: nothing is flashed at 0x8000000, where the chip starts",
        "name the bootloader in [[firmware]], with `at` if it is a binary file",
    ),
}


@pytest.mark.parametrize("case", TROUBLES)
def test_a_trouble_comes_with_what_to_do(case: str, updater: Path) -> None:
    changes, trouble, hint = TROUBLES[case]
    done = check(updater, **changes)
    assert done.exit_code == 1, done.output
    lines = done.output.splitlines()
    found = next(number for number, line in enumerate(lines) if line.startswith(trouble))
    assert lines[found + 1] == f"    {hint}"
    assert lines[-1] == "Not ready for a campaign."


def test_a_fault_is_told_with_its_source_line(locked: Path) -> None:
    done = check(locked)
    assert done.exit_code == 1
    assert re.search(
        r"^trouble: a fault in start \(small.c:\d+\): .* is locked \(flash-locked\)\n"
        r"    correct the firmware; `allowed` of \[never\] lets flash-locked pass$",
        done.output,
        re.MULTILINE,
    )
    done = check(locked, staged=f'{STAGED}[never]\nallowed = ["flash-locked"]\n')
    assert "note: `allowed` lets pass: start (small.c:" in done.output


def test_a_device_that_recovers_without_its_update_is_worth_a_look(updater: Path) -> None:
    done = check(updater, says='says = ["new", "old"]')
    assert done.exit_code == 0
    assert "note: without the update the device counts as recovered, too\n" in done.output


WAITS = """
void start(void) {
    while (REGISTER(0x40012500) == 0) {
    }
}
"""


def test_a_register_that_is_polled_in_vain_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(build_small(tmp_path, "stm32f103xb", WAITS))])
    assert done.exit_code == 1
    assert re.search(
        r"^trouble: the firmware waits in vain for 0x40012500, which has no model: read .* in "
        r"start \(small.c:3\)\n    give the chip's file .*; --svd FILE gives it a name$",
        done.output,
        re.MULTILINE,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.toml"], "unbrick: cannot read missing.toml: No such file or directory. Name"),
        (["{folder}/small.c"], "is not TOML"),
        (["{folder}/small.toml", "--svd", "none"], "cannot read none"),
    ],
)
def test_a_call_that_is_wrong_is_refused_in_one_line(
    words: list[str], said: str, updater: Path
) -> None:
    done = CliRunner().invoke(cli, ["check", *(word.format(folder=updater) for word in words)])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_a_window_is_never_wider_than_it_is_and_nothing_is_cut(updater: Path) -> None:
    out = io.StringIO()
    trial = try_target(FileTarget.load(updater / "small.toml", tried=False))
    show_trial(trial, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 80  # the last one is a command, to be copied whole
    for word in ("start (small.c:", "says 'new'", "single", "of one core, if it comes to an end"):
        assert word in " ".join(out.getvalue().split())
