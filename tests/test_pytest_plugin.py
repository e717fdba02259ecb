"""Row C8: pytest drives the bench, by the fixtures of the plugin."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import unbrick
from small_firmware import build_small
from test_ab_updater import build

from unbrick.campaign.run import PRESETS
from unbrick.image.hexfile import read_image, to_hex
from unbrick.layout import reference_layout
from unbrick.server.core.core import ServerCore

if TYPE_CHECKING:
    from unbrick.bench.console import Console
    from unbrick.firmware.signed import Releases
    from unbrick.link.simulated import SimulatedLink
    from unbrick.reference.system import System

LAYOUT = reference_layout()
USER_TEST = """
def test_update(unbrick_system):
    unbrick_system.power_on()
    unbrick_system.wait_registered()
    unbrick_system.update_to("1.1.0")
    assert "1.1.0" in unbrick_system.console.command("version")

def test_that_fails(unbrick_console):
    assert "a command that is not there" in unbrick_console.command("help")
"""


def run_pytest(
    folder: Path, text: str, firmware: Path | None, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run a user's test file in a folder of its own."""
    (folder / "test_user.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += ["--rootdir", str(folder), *options, "test_user.py"]
    if firmware is not None:
        command += ["--unbrick-firmware", str(firmware)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_claim_c8_pytest_drives_terminal_server_and_link(
    unbrick_console: Console,
    unbrick_server: ServerCore,
    unbrick_link: SimulatedLink,
    unbrick_system: System,
) -> None:
    """All four fixtures are parts of one system, and it works."""
    assert "unbrick-terminal 1.0.0" in unbrick_console.command("version")
    assert unbrick_system.console is unbrick_console
    unbrick_system.wait_registered()
    assert [registration.serial for registration in unbrick_link.registrations] == [
        unbrick_system.serial
    ]
    unbrick_server.send_text(unbrick_system.serial, "hello", unbrick_system.engine.now)
    unbrick_console.expect("message: hello")


def test_claim_c8_what_comes_as_intel_hex_goes_into_the_terminal_and_out_again(
    unbrick_system: System, unbrick_releases: Releases, tmp_path: Path
) -> None:
    image = unbrick_releases.signed["1.1.0"]
    there, back = tmp_path / "in.hex", tmp_path / "out.hex"
    there.write_text(to_hex(image))
    unbrick_system.server.publish(read_image(there), unbrick_system.engine.now)
    unbrick_system.power_on()
    unbrick_system.wait_registered()
    unbrick_system.wait_update(unbrick_system.start_update("1.1.0"))
    start = LAYOUT.partition("application").offset
    back.write_text(to_hex(unbrick_system.engine.read_nor()[start : start + len(image)]))
    assert back.read_text() == there.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inprocess", "qemu"])
def test_a_users_tests_run_on_the_engine_they_ask_for_and_show_the_console(
    engine: str, firmware: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if engine == "qemu":
        request.getfixturevalue("qemu")
    done = run_pytest(tmp_path, USER_TEST, firmware, "--unbrick-engine", engine)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert f"console of UB-000001 on {engine}" in done.stdout
    assert "terminal: unbrick-terminal 1.0.0" in done.stdout


ONE_RELEASE = """
from dataclasses import replace

import pytest

@pytest.fixture(scope="session")
def unbrick_releases(unbrick_releases):
    signed = unbrick_releases.signed
    return replace(unbrick_releases, signed=type(signed)({"1.1.0": signed["1.1.0"]}))
"""
ASKS_FOR_WHAT_IS_MISSING = """
import pytest

def test_of_the_system(unbrick_system):
    pass

def test_in_its_own_line(unbrick_make_system):
    unbrick_make_system(installed="1.1.0").publish("9.9.9")

@pytest.mark.unbrick_campaign("steps")
def test_of_a_campaign(unbrick_campaign):
    pass

@pytest.mark.unbrick_campaign("phonebook", preset="swift")
def test_of_a_preset(unbrick_campaign):
    pass
"""


@pytest.mark.slow
def test_what_is_missing_is_said_with_what_there_is(firmware: Path, tmp_path: Path) -> None:
    """A traceback is shown of what the test has called, and none of what a fixture does."""
    (tmp_path / "conftest.py").write_text(ONE_RELEASE)
    said = run_pytest(tmp_path, ASKS_FOR_WHAT_IS_MISSING, firmware).stdout
    assert "1 failed, 3 errors" in said
    assert "KeyError" not in said
    assert "there is no release 1.0.0 (choose from 1.1.0)" in said
    assert '>       unbrick_make_system(installed="1.1.0").publish("9.9.9")' in said
    assert "SetupError: there is no release 9.9.9" in said
    assert "- what to do -" in said
    assert "the scenario steps needs the releases 1.0.0 and 1.3.0, and this " in said
    assert f"there is no preset 'swift' (choose from {', '.join(PRESETS)})" in said
    assert said.count("harness/unbrick/") <= 4, "no more tracebacks than that of the one test"


OF_A_TARGET = """
import pytest

pytestmark = pytest.mark.unbrick("app/stm32f103.toml")

@pytest.mark.unbrick("app/stm32f103.toml", preset="quick")
def test_no_cut_bricks_it(unbrick_campaign):
    assert unbrick_campaign.transitions > 400

@pytest.mark.unbrick_campaign("app/stm32f103.toml", depth=0)
def test_both_markers(unbrick_campaign, unbrick_target):
    assert unbrick_campaign.deepest == 0
    unbrick_target.console.expect("APP v1")

def test_a_cut(unbrick_target):
    unbrick_target.console.expect("APP v1")
    unbrick_target.start_update()
    unbrick_target.cut_before_operation(12)
    assert [op.index for op in unbrick_target.ops] == list(range(12))
    unbrick_target.power_on()
    unbrick_target.console.expect("APP v1")
    unbrick_target.recover()
    unbrick_target.console.expect("APP v2")
    assert unbrick_target.console.text.count("APP v2") == 2

def test_the_first_operation_after_a_restart(unbrick_target):
    for _ in range(2):
        unbrick_target.start_update()
        unbrick_target.cut_before_operation(1)
        assert unbrick_target.op_count == 1
        unbrick_target.power_on()
        assert unbrick_target.op_count == 0

def test_without_power(unbrick_target):
    unbrick_target.cut_power()
    with pytest.raises(Exception, match="operation 0 did not come within 1 s; there were 0"):
        unbrick_target.cut_before_operation(0, timeout=1)
    with pytest.raises(Exception, match="the device has no power"):
        unbrick_target.start_update()
    unbrick_target.recover()
    unbrick_target.recover()

def test_that_fails(unbrick_target):
    unbrick_target.console.expect("APP v9", timeout=1)
"""


@pytest.mark.slow
def test_a_users_tests_of_a_target_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    build(tmp_path / "app", "stm32f103")
    said = run_pytest(tmp_path, OF_A_TARGET, None).stdout
    assert "1 failed, 5 passed" in said
    assert "the device did not say 'APP v9' within 1 s" in said
    assert "- console of ab-stm32f103 -" in said
    assert not (tmp_path / "build").exists(), "the terminal's firmware is not built"


@pytest.mark.slow
def test_the_example_of_the_page_is_true(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "any-firmware.md").read_text(encoding="utf-8")
    (example,) = (
        block.partition("```")[0]
        for block in page.split("```python\n")[1:]
        if "unbrick_campaign" in block.partition("```")[0]
    )
    build(tmp_path, "stm32f103")
    done = run_pytest(tmp_path, example, None)
    assert "2 passed" in done.stdout, done.stdout


OF_A_BUG = """
import pytest

@pytest.mark.unbrick("stm32f103.toml")
def test_campaign(unbrick_campaign):
    pass

@pytest.mark.unbrick("stm32f103.toml", stop_early=True)
def test_first(unbrick_campaign):
    pass

@pytest.mark.unbrick("stm32f103.toml")
def test_one_cut(unbrick_target):
    unbrick_target.start_update()
    unbrick_target.cut_before_operation(459)
    unbrick_target.recover()
"""


@pytest.mark.slow
def test_a_violation_of_a_target_fails_the_test_and_says_how_to_replay_it(tmp_path: Path) -> None:
    file = build(tmp_path, "stm32f103", "no-fallback")
    said = run_pytest(tmp_path, OF_A_BUG, None).stdout
    assert "1 failed, 2 errors" in said
    assert re.search(r": [2-9]\d* violations; ab-stm32f103/", said)
    assert ": 1 violations; ab-stm32f103/" in said, "stop_early ends with the first one"
    case = re.search(r"unbrick replay (\S+) (ab-stm32f103/\S+)", said)
    assert case
    assert case.group(1) == str(file)
    assert "the device does not recover: not-updated: the device did not say" in said
    replayed = unbrick("replay", *case.groups())
    assert replayed.returncode == 1, replayed.stderr
    assert "VIOLATION" in replayed.stdout


WRONG = """
import pytest

def test_without_a_marker(unbrick_target):
    pass

@pytest.mark.unbrick("missing.toml")
def test_of_a_missing_file(unbrick_target):
    pass

@pytest.mark.unbrick("small.toml", presets="full")
def test_of_an_option(unbrick_campaign):
    pass

@pytest.mark.unbrick("small.toml", stop_early="yes")
def test_of_an_early_stop(unbrick_campaign):
    pass

@pytest.mark.unbrick("small.toml", depth="far")
def test_of_a_depth(unbrick_campaign):
    pass

@pytest.mark.unbrick("small.toml")
def test_of_nothing_to_cut(unbrick_campaign):
    pass

@pytest.mark.unbrick("small.toml")
def test_in_its_own_line(unbrick_target):
    unbrick_target.start_update()
"""


@pytest.mark.slow
def test_what_is_wrong_about_a_target_is_said(tmp_path: Path) -> None:
    build_small(tmp_path, "stm32f103xb", "void start(void) { for (;;) { } }")
    said = run_pytest(tmp_path, WRONG, None).stdout
    assert "1 failed, 6 errors" in said
    assert "stop_early is 'yes' (with True the first violation ends the campaign)" in said
    assert 'mark the test with @pytest.mark.unbrick("target.toml")' in said
    assert "missing.toml" in said
    assert "a campaign has no option 'presets' (choose from preset, depth, stop_early)" in said
    assert "depth is 'far' (it is a number of power cuts)" in said
    assert "without any power cut the update of small does not work: bricked" in said
    assert "nobody begins the update of small: it is staged" in said


@pytest.mark.slow
def test_all_that_the_plugin_brings_begins_with_its_name(tmp_path: Path) -> None:
    listed = run_pytest(tmp_path, "", None, "--fixtures", "--color=no").stdout
    section = listed.partition("fixtures defined from unbrick.pytest_plugin")[2]
    names = re.findall(
        r"^(\w+)(?: \[session scope\])? -- ", section.partition("fixtures defined")[0], re.MULTILINE
    )
    assert "unbrick_system" in names
    assert all(name.startswith("unbrick_") for name in names), names
    help_text = run_pytest(tmp_path, "", None, "--help").stdout
    group = help_text.partition("terminals (unbrick):\n")[2].partition("\n\n")[0]
    options = re.findall(r"^  (--\S+?)[= \n]", group, re.MULTILINE)
    assert "--unbrick-engine" in options
    assert all(option.startswith("--unbrick-") for option in options), options
    markers = run_pytest(tmp_path, "", None, "--markers").stdout
    assert "@pytest.mark.unbrick_campaign(" in markers
    assert "@pytest.mark.unbrick(" in markers


def test_a_run_that_has_nothing_to_do_with_terminals_loads_next_to_nothing() -> None:
    script = "import sys, unbrick.pytest_plugin; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.partition(".")[0] == "unbrick"}
    assert ours == {"unbrick", "unbrick.engine", "unbrick.errors", "unbrick.pytest_plugin"}
    heavy = {"cffi", "click", "httpx", "numpy", "rich", "sqlalchemy", "unicorn", "elftools"}
    assert not heavy & set(loaded)
