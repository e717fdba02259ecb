"""The example: an update in place recovers, and each bug that is put into it is found."""

from __future__ import annotations

import re
import runpy
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from unbrick.campaign.run import PRESETS, run_campaign
from unbrick.cli.main import cli
from unbrick.delta import encode
from unbrick.target.target import FileTarget

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "in-place"
BUILD = runpy.run_path(str(EXAMPLE / "build.py"))

SEARCHED = ("no-log", "record-early", "record-dropped-early", "update-dropped-early")
"""Bugs that one power cut finds."""

PLAYED = {
    "record-not-affirmed": "218-barely+1/0-begun",
    "record-left": "115-weak/0-begun+1",
    "equal-spared": "217-weak+1/16",
}
"""Bugs that take two, with a case that the full search finds. It is that of weak cells: of the
record when it is erased (218) and when it comes (115), and of the application's last word."""


def build(folder: Path, bug: str = "", log_pages: int = 3) -> Path:
    """Build the example, with a bug in it or none; gives its target file."""
    BUILD["copy_sources"](folder)
    if bug:
        BUILD["put_bug"](bug, folder)
    BUILD["build"](folder / "build", folder, log_pages)
    return Path(shutil.copy(EXAMPLE / "nrf52840.toml", folder))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("good"))


def play(target: Path, case: str = "") -> str:
    """What is told of a case."""
    name = "/".join(filter(None, ("in-place-nrf52840", case)))
    return CliRunner().invoke(cli, ["replay", str(target), name]).stdout


@pytest.mark.slow
def test_the_example_recovers_from_every_kind_of_cut(good: Path) -> None:
    result = run_campaign(FileTarget.load(good), bounds=PRESETS["single"])
    assert result.transitions > 800
    assert [case.outcome.violation for case in result.cases if case.outcome.violation] == []


@pytest.mark.slow
@pytest.mark.parametrize("bug", SEARCHED)
def test_a_bug_is_found_by_one_power_cut(bug: str, tmp_path: Path) -> None:
    target = FileTarget.load(build(tmp_path, bug))
    result = run_campaign(target, bounds=replace(PRESETS["single"], stop_early=True))
    assert result.cases[-1].outcome.violation
    assert result.cases[-1].id.cuts, "the update must work as long as nothing disturbs it"


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLAYED)
def test_a_bug_is_shown_by_its_case(bug: str, tmp_path: Path) -> None:
    target = build(tmp_path, bug)
    assert "all has come about" in play(target)
    assert "VIOLATION" in play(target, PLAYED[bug])


def test_every_bug_is_tried_and_described() -> None:
    bugs = {path.stem: path.read_text("utf-8") for path in (EXAMPLE / "bugs").glob("*.patch")}
    assert set(bugs) == {*SEARCHED, *PLAYED}
    page = (ROOT / "docs" / "differential.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+?) \| ", page, re.MULTILINE))
    assert rows == {bug: text.splitlines()[0].split(": ", 1)[1] for bug, text in bugs.items()}


@pytest.mark.parametrize("bug", [*SEARCHED, *PLAYED])
def test_a_bug_is_put_in_as_git_does_it(bug: str, tmp_path: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    for name in ("ours", "gits"):
        (tmp_path / name).mkdir()
        BUILD["copy_sources"](tmp_path / name)
    BUILD["put_bug"](bug, tmp_path / "ours")
    patch = EXAMPLE / "bugs" / f"{bug}.patch"
    subprocess.run([git, "apply", str(patch)], cwd=tmp_path / "gits", check=True)
    for file in (tmp_path / "gits").iterdir():
        assert (tmp_path / "ours" / file.name).read_bytes() == file.read_bytes()


def written(told: str) -> list[str]:
    """Where the flash was written."""
    return re.findall(r"nor +\d+: .*\((\w+)\)", told)


@pytest.mark.slow
def test_a_log_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    told = play(build(tmp_path, log_pages=1))
    assert "the update is refused: the log has 01 pages, it takes 02" in told
    assert "APP v1" in told
    assert written(told) == ["staged"]


def corrupt(file: bytes) -> bytes:
    return file[:-3] + bytes((file[-3] ^ 1,)) + file[-2:]


REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "is cut off": (lambda file: file[:-20], ""),
    "is for another image": (lambda file: encode(file, file[::-1]), "another image"),
    "has a wrong byte": (corrupt, ""),
    "is none": (lambda file: b"x" * len(file), "not a differential file"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_file_is_refused_that(case: str, good: Path, tmp_path: Path) -> None:
    spoil, why = REFUSED[case]
    target = shutil.copytree(good.parent, tmp_path / "target") / good.name
    staged = target.parent / "build" / "nrf52840" / "update.bin"
    _, length, _ = struct.unpack_from("<3I", staged.read_bytes())
    staged.write_bytes(BUILD["make_staged"](spoil(staged.read_bytes()[12 : 12 + length])))
    told = play(target)
    assert "boot: the update is refused: " in told
    assert why in told
    assert "APP v1" in told
    assert written(told) == ["staged"]


@pytest.mark.slow
def test_a_file_that_did_not_arrive_whole_is_no_update(good: Path, tmp_path: Path) -> None:
    target = shutil.copytree(good.parent, tmp_path / "target") / good.name
    staged = target.parent / "build" / "nrf52840" / "update.bin"
    staged.write_bytes(corrupt(staged.read_bytes()))
    told = play(target)
    assert "APP v1" in told
    assert "boot:" not in told
    assert written(told) == []
