"""Points the tests at the firmware that Twister has just built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

TARGET = Path(__file__).parents[1] / "target.toml"
FIXTURES = {"unbrick_campaign", "unbrick_target"}


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Mark each test that asks for firmware with the target file, in Twister's build folder."""
    if FIXTURES & set(metafunc.fixturenames):
        copy = shutil.copy(TARGET, Path(metafunc.config.getoption("--build-dir")).absolute())
        metafunc.definition.add_marker(pytest.mark.unbrick(str(copy)))
