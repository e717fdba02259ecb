"""What docs/c-style.md says of all C files, as far as no other test or tool sees it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("examples", "firmware", "harness", "tests", "tools")
    for path in (ROOT / folder).rglob("*.[ch]")
)
PROGRAMS = [
    path
    for path in FILES
    if path.is_relative_to(ROOT / "firmware")
    and not path.is_relative_to(ROOT / "firmware" / "tests")
]

_TEXT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'')
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def code(text: str) -> str:
    """A C file without its comments of the one kind, and with empty strings."""
    return _COMMENT.sub(" ", _TEXT.sub('""', text))


def has_other_comments(text: str) -> bool:
    return "//" in code(text)


def has_goto(text: str) -> bool:
    return re.search(r"\bgoto\b", code(text)) is not None


def has_heap(text: str) -> bool:
    return re.search(r"\b(?:malloc|calloc|realloc|free|alloca)\s*\(", code(text)) is not None


def begins_badly(text: str) -> bool:
    """Whether a header does not begin with a comment and ``#pragma once``."""
    return re.match(r"/\*.*?\*/\n#pragma once\n", text, re.DOTALL) is None


RULES: dict[str, tuple[Callable[[str], bool], list[Path]]] = {
    "other comments": (has_other_comments, FILES),
    "goto": (has_goto, FILES),
    "a heap": (has_heap, PROGRAMS),
    "a bad beginning": (begins_badly, [path for path in FILES if path.suffix == ".h"]),
}


@pytest.mark.parametrize("rule", RULES)
def test_no_file_has(rule: str) -> None:
    broken, files = RULES[rule]
    assert files
    assert [
        path.relative_to(ROOT).as_posix()
        for path in files
        if broken(path.read_text(encoding="utf-8"))
    ] == []


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        ("other comments", "int a; // one\n", 'char *a = "http://";  /* // */\n'),
        ("goto", "goto end;\n", "/* goto */\n"),
        ("a heap", "p = malloc (3);\n", "pool_free(p);\n"),
        ("a bad beginning", "#pragma once\n", "/* CRCs. */\n#pragma once\n"),
    ],
)
def test_the_rule_tells_good_from_bad(rule: str, bad: str, good: str) -> None:
    broken, _ = RULES[rule]
    assert broken(bad)
    assert not broken(good)


def test_the_layout_has_braces_and_100_columns() -> None:
    layout = (ROOT / ".clang-format").read_text(encoding="utf-8")
    assert "InsertBraces: true\n" in layout
    assert "ColumnLimit: 100\n" in layout
    assert "IndentWidth: 4\n" in layout
