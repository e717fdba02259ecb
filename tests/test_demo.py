"""``unbrick demo`` shows a power cut that bricks an example, and leaves all of it in a folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from processes import unbrick

pytestmark = pytest.mark.slow

SCREEN = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def said(folder: Path) -> str:
    """What the demo says in an empty folder."""
    done = unbrick("demo", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_good_one_comes_back_and_the_bug_is_found(said: str) -> None:
    assert re.search(r"1\. The update has \d+ flash operations\. [^.]* [\d,]+ cuts\.\n", said)
    lines = said.splitlines()
    assert [line for line in lines if len(line) > SCREEN and "VIOLATION" not in line] == []
    heard = [line.split(" s  ")[-1] for line in lines if re.match(r" +\d+\.\d+ s  ", line)]
    assert heard[:5] == ["on", "typed: u", "APP v1", "C", "APP v2"]
    good, bad = said.index("It always comes back."), said.index("3. One cut bricks it: bug/")
    assert good < bad
    assert "APP v2\n" in said[bad:]
    assert "boot: no image\n" in said[bad:]
    assert "VIOLATION" in said[bad:]


def test_the_command_that_is_shown_runs_the_case_again(said: str, folder: Path) -> None:
    (command,) = re.findall(r"^ +unbrick (replay .*)$", said, re.MULTILINE)
    done = unbrick(*shlex.split(command), cwd=folder)
    assert done.returncode == 1
    assert "VIOLATION" in done.stdout
    assert "boot: no image" in done.stdout


def test_a_reduced_case_is_told_with_the_command_that_runs_it(said: str, folder: Path) -> None:
    (path, case) = re.findall(r"^ +unbrick replay (\S+) (\S+)$", said, re.MULTILINE)[0]
    done = unbrick("replay", path, case, "--minimise", cwd=folder)
    assert f"reduced: unbrick replay {path} {case}\n" in done.stderr


def test_the_picture_and_the_sources_are_there(said: str, folder: Path) -> None:
    demo = folder / "unbrick-demo"
    assert "boot: no image" in (demo / "report.html").read_text(encoding="utf-8")
    good, bug = ((demo / name / "boot.c").read_text("utf-8") for name in ("good", "bug"))
    assert good != bug
    assert unbrick("check", demo / "bug" / "target.toml").returncode == 0


def test_what_is_there_is_not_touched(said: str, folder: Path) -> None:
    done = unbrick("demo", cwd=folder)
    assert done.returncode == 2
    assert done.stderr == (
        "unbrick: unbrick-demo is there already. Remove it, or give another --out\n"
    )
    done = unbrick("demo", "--out", "/proc/no/such", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("unbrick: /proc/no/such cannot be made: ")
    assert done.stderr.count("\n") == 1
