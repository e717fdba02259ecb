"""Points the tests at the firmware that Twister has just built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TARGET = Path(__file__).parents[1] / "target.toml"
FIXTURES = {"unbrick_campaign", "unbrick_target"}


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Mark each test that asks for firmware with the target file, in Twister's build folder."""
    if FIXTURES & set(metafunc.fixturenames):
        build = Path(metafunc.config.getoption("--build-dir")).absolute()
        text = TARGET.read_text(encoding="utf-8").replace('"app/', f'"{find_application(build)}/')
        (build / TARGET.name).write_text(text, encoding="utf-8")
        metafunc.definition.add_marker(pytest.mark.unbrick(str(build / TARGET.name)))


def find_application(build: Path) -> str:
    """The folder of the application in ``build``: of several images, sysbuild names the default."""
    domains = (build / "domains.yaml").read_text(encoding="utf-8")
    (name,) = re.findall(r"^default: (.+)$", domains, re.MULTILINE)
    return name
