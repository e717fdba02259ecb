"""No access to a flash controller makes its model do what C leaves undefined."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unbrick.board import list_chips, load_chip
from unbrick.compile import PACKAGE

FUZZ = Path(__file__).with_name("chip_fuzz.py")
ONE_OF_EACH = {load_chip(name).devices[0].model: name for name in list_chips()}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, compiled so that undefined behaviour stops the process."""
    built = tmp_path_factory.mktemp("models") / "libmcu.so"
    folders = [PACKAGE / "engine" / "mcu" / "c", PACKAGE / "engine" / "c"]
    command = [sys.executable, "-m", "ziglang", "cc", "-std=c11", "-O1", "-UNDEBUG", "-shared"]
    command += ["-fPIC", "-fvisibility=hidden", "-lm", "-o", str(built)]
    command += ["-fsanitize=undefined", "-fsanitize-trap=undefined"]
    command += [f"-I{folder}" for folder in folders]
    command += [str(file) for folder in folders for file in sorted(folder.glob("*.c"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


@pytest.mark.parametrize("chip", ONE_OF_EACH.values())
def test_random_accesses_do_no_harm(chip: str, library: Path) -> None:
    command = [sys.executable, str(FUZZ), str(library), chip]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
