"""Row C5: ``make hil-test`` plays the whole system, and fails when a part of it is broken."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from processes import unbrick

from unbrick.bench.bench import Bench
from unbrick.bench.process import Process
from unbrick.cli import run as cli_run
from unbrick.cli.main import cli
from unbrick.firmware.signed import SignedImages
from unbrick.reference import hil
from unbrick.reference.hil import HilTest

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.firmware.signed import Releases

STEPS = [
    "the terminal boots from NOR",
    "server and bridge start",
    "the terminal registers over the wireless link",
    "the user adds a phonebook entry",
    "1.0.0 is updated to 1.1.0 over the air",
    "the phonebook is still there",
    "power is cut in the middle of a rewrite",
    "the terminal asks to be restored",
    "the apparatus restores it over the wire",
    "the user's data has survived it all",
    "the server knows what runs",
    "an upgrade to 1.3.0 is prepared before anybody asks",
    "the user is told by text message",
    "the user calls the customer center and presses 1",
    "1.1.0 is upgraded to 1.3.0 by commands, step by step",
    "the phonebook has survived that, too",
    "nothing personal is left in the database",
]


def test_the_tutorial_shows_these_steps() -> None:
    page = Path(__file__).parents[1] / "docs" / "tutorials" / "reference-system.md"
    shown: dict[str, str] = {}
    number = ""
    table = page.read_text(encoding="utf-8").split("Unbrick HIL test")[1].split("\n\n")[0]
    head, *rows = table.split("```")[0].strip().splitlines()[1:]
    start, end = head.index("step"), head.index("result")
    for row in rows:
        number = row[:start].strip() or number
        shown[number] = f"{shown.get(number, '')} {row[start:end].strip()}".strip()
    assert list(shown.values()) == STEPS
    assert f"in {len(STEPS)} steps" in (page.parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow(first=True)
@pytest.mark.parametrize("engine", ["inprocess", "qemu"])
def test_claim_c5_the_hil_test_runs_the_whole_system(
    engine: str, firmware: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if engine == "qemu":
        request.getfixturevalue("qemu")
    kept = tmp_path / "kept"
    done = unbrick("hil-test", "--engine", engine, "--json", "--firmware", firmware, "--keep", kept)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(done.stdout)
    assert [step["name"] for step in steps] == STEPS
    assert all(step["passed"] for step in steps)
    seen = {step["name"]: step["detail"] for step in steps}
    assert seen[STEPS[0]] == "terminal: unbrick-terminal 1.0.0, built 2026-01-12T09:00:00Z"
    assert seen[STEPS[4]].startswith("update 1 succeeded")
    assert "was interrupted" in seen[STEPS[7]]
    assert seen[STEPS[10]] == "UB-000001 runs 1.1.0"
    assert "1.3.0+0 is newer than 1.1.0+0" in seen[STEPS[11]]
    assert "steps" in seen[STEPS[14]]
    assert seen[STEPS[16]] == "backup kept, backup read, backup deleted"
    console = (kept / "console.log").read_text()
    for said in ("1.1.0 confirmed", "agent: rewriting", "restoration: accepted 1.1.0"):
        assert said in console
    assert "server: ready" in (kept / "server.log").read_text()
    assert "bridge: ready" in (kept / "bridge.log").read_text()


def run_broken(
    monkeypatch: pytest.MonkeyPatch,
    releases: Releases,
    folder: Path,
    *arguments: str,
    **signed: bytes,
) -> tuple[int, str, str]:
    """The command with some releases replaced."""
    images = {**releases.signed, **{name.replace("_", "."): data for name, data in signed.items()}}
    broken = dataclasses.replace(releases, signed=images)
    monkeypatch.setattr(cli_run, "make_releases", lambda _: broken)
    options = ["hil-test", "--keep", str(folder), *arguments]
    done = CliRunner().invoke(cli, options, prog_name="unbrick")
    return done.exit_code, done.stdout, done.stderr


def test_a_terminal_that_does_not_start_fails_the_first_step(
    monkeypatch: pytest.MonkeyPatch, unbrick_releases: Releases, tmp_path: Path
) -> None:
    image = bytearray(unbrick_releases.signed["1.0.0"])
    image[0x1000] ^= 1
    code, table, error = run_broken(
        monkeypatch, unbrick_releases, tmp_path, **{"1_0_0": bytes(image)}
    )
    assert code == 1
    assert "FAILED" in table
    assert "passed" not in table
    assert error.splitlines()[-1].startswith("unbrick: failed: the terminal boots from NOR. Run it")


@pytest.mark.slow
def test_an_update_to_software_that_is_broken_fails_its_step(
    monkeypatch: pytest.MonkeyPatch, unbrick_releases: Releases, tmp_path: Path
) -> None:
    """The release that is broken on purpose takes the place of the good one."""
    broken = unbrick_releases.signed["1.2.0"]
    code, output, error = run_broken(
        monkeypatch, unbrick_releases, tmp_path, "--json", **{"1_1_0": broken}
    )
    assert code == 1
    steps = json.loads(output)
    assert [step["passed"] for step in steps] == [True] * 4 + [False]
    assert "failed: 1.0.0 is updated to 1.1.0 over the air" in error


@pytest.mark.slow
def test_a_user_whose_data_is_lost_is_noticed(
    monkeypatch: pytest.MonkeyPatch, unbrick_releases: Releases, tmp_path: Path
) -> None:
    update = HilTest._update

    def update_and_lose(test: HilTest) -> str:
        detail = update(test)
        test._console.command("pb del 1")
        return detail

    monkeypatch.setattr(HilTest, "_update", update_and_lose)
    code, output, error = run_broken(monkeypatch, unbrick_releases, tmp_path, "--json")
    assert code == 1
    assert json.loads(output)[-1]["name"] == STEPS[5]
    assert "the phonebook has lost Alice" in json.loads(output)[-1]["detail"]
    assert "failed: the phonebook is still there" in error


def test_a_release_that_is_missing_is_said_before_anything_is_begun(
    monkeypatch: pytest.MonkeyPatch, unbrick_releases: Releases, tmp_path: Path
) -> None:
    less = dataclasses.replace(
        unbrick_releases, signed=SignedImages({"1.0.0": unbrick_releases.signed["1.0.0"]})
    )
    monkeypatch.setattr(cli_run, "make_releases", lambda _: less)
    done = CliRunner().invoke(cli, ["hil-test", "--keep", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stdout == ""
    said = done.stderr.splitlines()[-1]
    assert said.startswith("unbrick: the HIL test needs the releases 1.1.0, 1.2.0 and 1.3.0, and")
    assert "has the release 1.0.0. Unset UNBRICK_FIRMWARE" in said


def test_a_server_that_does_not_start_says_why(
    monkeypatch: pytest.MonkeyPatch, unbrick_releases: Releases, tmp_path: Path
) -> None:
    (tmp_path / "server.sqlite").mkdir()
    code, output, _ = run_broken(monkeypatch, unbrick_releases, tmp_path, "--json")
    assert code == 1
    last = json.loads(output)[-1]
    assert last["name"] == STEPS[1]
    assert "server did not start" in last["detail"]
    assert "database" in last["detail"]


@pytest.mark.slow(first=True)
def test_what_comes_at_the_wrong_time_is_done_again(
    monkeypatch: pytest.MonkeyPatch, unbrick_releases: Releases, tmp_path: Path
) -> None:
    """A cut may come too early or too late, and a call before the center: here on purpose."""
    right = HilTest._application_changes
    attempts: list[str] = []

    def wrong(test: HilTest) -> Callable[[], bool]:
        attempts.append("")
        if len(attempts) == 1:
            return lambda: True
        if len(attempts) == 2:
            return lambda: "failed its trial" in test._console.unread
        return right(test)

    monkeypatch.setattr(HilTest, "_application_changes", wrong)
    call, run_for, started = HilTest._call, Bench.run_for, dict[str, int]()

    class Noted(Process):
        def __init__(self, log: Path, *words: str) -> None:
            super().__init__(log, *words)
            started[words[0]] = self.popen.pid

    def call_too_early(test: HilTest) -> str:
        os.kill(started["center"], signal.SIGSTOP)
        test._server.center_leaves()
        return call(test)

    def go_on(bench: Bench, seconds: float) -> None:
        os.kill(started["center"], signal.SIGCONT)
        run_for(bench, seconds)

    monkeypatch.setattr(hil, "Process", Noted)
    monkeypatch.setattr(HilTest, "_call", call_too_early)
    monkeypatch.setattr(Bench, "run_for", go_on)
    code, output, error = run_broken(monkeypatch, unbrick_releases, tmp_path, "--json")
    assert code == 0, error
    seen = {step["name"]: step["detail"] for step in json.loads(output)}
    assert seen[STEPS[6]] == "at the 3. attempt"
    assert seen[STEPS[7]] == "rewrite was interrupted"
    assert re.fullmatch(r"call, 1, hang up, at the \d+\. attempt", seen[STEPS[13]])
