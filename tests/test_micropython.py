"""MicroPython for the micro:bit, which nobody here wrote, comes back and keeps its files."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.cli.main import cli
from unbrick.errors import SetupError
from unbrick.target.target import FileTarget
from unbrick.target.trial import try_target

EXAMPLE = Path(__file__).parents[1] / "examples" / "micropython"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("micropython_prepare", EXAMPLE / "prepare.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["V1", "V2"])
def board(request: pytest.FixtureRequest, prepare: ModuleType) -> Any:
    found = getattr(prepare, request.param)
    try:
        prepare.UFLASH.fetch("MicroPython")
    except SetupError as error:
        pytest.skip(f"{error} ({error.hint})")
    return found


@pytest.fixture(scope="module")
def image(prepare: ModuleType, board: Any) -> bytes:
    made: bytes = prepare.make_image(board)
    return made


@pytest.fixture(scope="module")
def example(prepare: ModuleType, board: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(board.name)
    for path in EXAMPLE.iterdir():
        if path.name == "prompt.py" or path.suffix == ".toml":
            shutil.copy(path, folder)
    prepare.prepare(folder / "build", board)
    return folder / f"{board.name}.toml"


def test_a_pico_keeps_its_files(tmp_path: Path) -> None:
    """UNBRICK_CORPUS names the folder with the release, which no package index has."""
    pico = runpy.run_path(str(EXAMPLE / "prepare_pico.py"), run_name="prepare_pico")
    try:
        pico["prepare"](tmp_path / "build")
    except SetupError as error:
        pytest.skip(f"{error} ({error.hint})")
    for name in ("pico.toml", "prompt.py"):
        shutil.copy(EXAMPLE / name, tmp_path)
    target = FileTarget.load(tmp_path / "pico.toml")
    assert try_target(target).troubles == ()
    result = run_campaign(target, bounds=Bounds(depth=1, states=12))
    assert not result.violations, result.statement
    assert result.transitions >= 12


GREETINGS = {
    "microbit": ("MicroPython v1.9.2", "micro:bit v1.0.1 with nRF51822"),
    "microbit-v2": ("MicroPython v1.13", "micro:bit v2.0.0-beta.5 with nRF52833"),
}


def test_it_comes_to_its_prompt_and_calculates(
    prepare: ModuleType, board: Any, image: bytes
) -> None:
    prompt = prepare.Prompt(board, image)
    for words in GREETINGS[board.name]:
        assert words in prompt.greeting
    assert prompt.type("print(6*7, 2**70)") == "42 1180591620717411303424"
    assert "ZeroDivisionError" in prompt.type("1/0")


def test_a_file_outlives_a_power_cut(prepare: ModuleType, board: Any, image: bytes) -> None:
    prompt = prepare.Prompt(board, image)
    assert prompt.type("f=open('a','w');print(f.write('kept'));f.close()").endswith("4")
    prompt.engine.power_off()
    prompt.start()
    assert prompt.type("print(open('a').read())") == "kept"
    assert "OSError" in prompt.type("open('b')")


WORN = {"microbit": set(), "microbit-v2": {"flash-worn"}}
"""Kinds of faults that the target's file lets pass."""


def test_it_keeps_the_rules_of_the_flash_or_the_target_says_which_it_does_not(
    board: Any, example: Path
) -> None:
    target = FileTarget.load(example)
    assert set(target.description.never.allowed) == WORN[board.name]
    trial = try_target(target)
    assert {fault.kind for fault in trial.faults} == WORN[board.name]
    assert trial.troubles == ()


def test_no_file_is_lost_while_another_one_is_written(example: Path) -> None:
    target = FileTarget.load(example)
    result = run_campaign(target, bounds=Bounds(depth=1, states=12))
    assert not result.violations, result.statement
    assert len(result.cases) == 12
    assert result.transitions > 100


def test_a_file_that_is_rewritten_carelessly_is_found_lost(example: Path, tmp_path: Path) -> None:
    """It is read, deleted, and written again: a power cut in between takes it."""
    shutil.copytree(example.parent, tmp_path / "careless")
    driver = tmp_path / "careless" / "prompt.py"
    careless = """LINES = (
    "d=open('kept').read()",
    "import os;os.remove('kept')",
    "f=open('kept','w');f.write(d);f.close()",
    """
    text = driver.read_text(encoding="utf-8")
    assert "LINES = (\n    " in text
    driver.write_text(text.replace("LINES = (\n    ", careless), encoding="utf-8")
    target = tmp_path / "careless" / example.name
    done = CliRunner().invoke(cli, ["campaign", str(target), "--stop-early", "--jobs", "1"])
    assert done.exit_code == 1, done.output
    assert "bricked" in done.output
