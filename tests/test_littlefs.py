"""The store on littlefs keeps what it has acknowledged, and each bug put into it is found."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.cli.main import cli
from unbrick.errors import SetupError, UpdateNeverWorksError
from unbrick.target.target import FileTarget

EXAMPLE = Path(__file__).parents[1] / "examples" / "littlefs"
BUGS = sorted(path.stem for path in (EXAMPLE / "bugs").glob("*.patch"))
WEAK_CASE = "littlefs/102-weak+1/21"
"""docs/any-firmware.md names it."""

AT_ONCE = {"prog-size-lies": "flash-worn"}
"""Bugs that need no power cut, and what is said of them."""

pytestmark = pytest.mark.slow


def load() -> ModuleType:
    """The example's builder; without littlefs the test is skipped."""
    spec = importlib.util.spec_from_file_location("littlefs_build", EXAMPLE / "build.py")
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    try:
        loaded.LITTLEFS.fetch("littlefs")
    except SetupError as error:
        pytest.skip(f"{error} ({error.hint})")
    return loaded


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return load()


def build(module: ModuleType, folder: Path, bug: str = "") -> Path:
    """Build the example, with a bug in it or none; gives its target file."""
    module.copy_sources(folder)
    if bug:
        module.UPDATER_BUILD["put_bug"](bug, folder, EXAMPLE / "bugs")
    module.build(folder / "build", folder)
    return folder / "nrf52840.toml"


@pytest.fixture(scope="module")
def good(module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target file of the example as it is."""
    return build(module, tmp_path_factory.mktemp("good"))


def test_every_value_that_was_acknowledged_outlives_a_cut(good: Path) -> None:
    bounds = Bounds(depth=1, shapes="sure", states=60)
    result = run_campaign(FileTarget.load(good), bounds=bounds)
    assert len(result.cases) == 60
    assert not result.violations, result.statement


def test_a_weak_cell_takes_a_value(good: Path) -> None:
    done = CliRunner().invoke(cli, ["replay", str(good), WEAK_CASE])
    assert done.exit_code == 1, done.output
    assert "name is 'Bob', and must be 'Carol'" in done.output


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_found(bug: str, module: ModuleType, tmp_path: Path) -> None:
    target = FileTarget.load(build(module, tmp_path, bug))
    bounds = Bounds(depth=1, shapes="sure", stop_early=True)
    if bug in AT_ONCE:
        with pytest.raises(UpdateNeverWorksError, match=AT_ONCE[bug]):
            run_campaign(target, bounds=bounds)
        return
    result = run_campaign(target, bounds=bounds)
    assert [case.outcome.violation[0] for case in result.violations if case.outcome.violation] == [
        "not-updated"
    ]


def test_the_program_is_the_same_wherever_it_is_built(module: ModuleType, tmp_path: Path) -> None:
    first, second = (build(module, tmp_path / name).parent / "build" for name in ("a", "bb"))
    for name in ("store.elf", "pages.bin"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    shutil.rmtree(second)
