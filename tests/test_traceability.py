"""The page of rows and tests is what the tests' names say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "traceability.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool: ModuleType) -> None:
    written = (ROOT / "docs" / "traceability.md").read_text(encoding="utf-8")
    assert written == tool.page(tool.collect(ROOT / "tests")), "run: make docs/traceability"


def test_tests_are_found_by_name_in_classes_and_for_several_rows(
    tool: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "test_x.py").write_text(
        "def test_claim_a4_a10_both(): ...\n"
        "class TestY:\n    async def test_claim_b1_in_a_class(self): ...\n"
        "def test_other(): ...\ndef claim_c1_no_test(): ...\n"
    )
    assert tool.collect(tmp_path) == {
        "A4": ["sub/test_x.py::test_claim_a4_a10_both"],
        "A10": ["sub/test_x.py::test_claim_a4_a10_both"],
        "B1": ["sub/test_x.py::test_claim_b1_in_a_class"],
    }


def test_a_row_that_does_not_exist_is_an_error(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_claim_a99_nothing(): ...\n")
    with pytest.raises(ValueError, match="A99"):
        tool.collect(tmp_path)


def test_a_row_without_a_test_is_open(tool: ModuleType) -> None:
    page = tool.page({"A1": ["test_x.py::test_claim_a1_x"]})
    assert "| A1 |" in page
    assert "`test_x.py::test_claim_a1_x`" in page
    assert page.count("*open*") == len(tool.ROWS) - 1
