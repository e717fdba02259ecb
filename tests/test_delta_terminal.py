"""The decoder of differential files as the terminal runs it: ARM code, no byte beyond its areas."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from delta_samples import BASE, arm, thumb

from unbrick.delta import encode, read_header

TOOL = Path(__file__).parents[1] / "tools" / "delta_terminal.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("delta_terminal", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["delta_terminal"] = module
    spec.loader.exec_module(module)
    return module


def test_rebuilds_on_the_terminals_processor(tool: ModuleType, tmp_path: Path) -> None:
    decoder = tool.TerminalDecoder(tmp_path)
    chance = random.Random(1)
    pairs = [
        (thumb(random.Random(7), 60), thumb(random.Random(7), 60, shift=8, edits=20)),
        (arm(random.Random(8), 60), arm(random.Random(8), 60, shift=2)),
        (chance.randbytes(500), chance.randbytes(300)),
    ]
    for old, new in pairs:
        file = encode(old, new, base_address=BASE)
        run = decoder.run(old, file, new)
        assert (run.error, run.image) == (0, new)
        assert run.memory == read_header(file).memory
        assert run.stack < 1024
