"""What the page of the center hints at can be done there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import unbrick.server.core
from unbrick.center.page.hints import say_on_page

CORE = Path(unbrick.server.core.__file__).parent
HINT = re.compile(r'hint ?= ?f?"([^"]*)"(?:\s*f?"([^"]*)")?')


def find_hints() -> list[str]:
    """Every hint of the server's core, with a number in place of each value."""
    return [
        re.sub(r"\{[^}]*\}", "7", "".join(parts))
        for path in sorted(CORE.glob("*.py"))
        for parts in HINT.findall(path.read_text(encoding="utf-8"))
    ]


def test_no_hint_on_the_page_is_about_the_command_line() -> None:
    hints = find_hints()
    assert sum("unbrick " in hint for hint in hints) > 10
    said = [say_on_page(hint) for hint in hints]
    assert [hint for hint in said if "unbrick " in hint or "--" in hint] == []


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (
            "wait for it, or `unbrick update cancel 5`, then order again",
            "wait for it, or cancel it on the terminal's page, then order again",
        ),
        (
            "that is what was ordered: `unbrick update show 5` follows it",
            "that is what was ordered: the terminal's page follows it",
        ),
        ("see `unbrick rollout show 3`", "see the page of the rollout"),
        (
            "if that is meant, order it as a downgrade (--downgrade)",
            "if that is meant, order it as a downgrade",
        ),
        (
            "wait until it has, or leave out --commanded",
            "wait until it has, or choose to update it by a file",
        ),
        ("say which one with --hardware: a, b", "say which one in the list of software"),
        ("see the list of terminals", "see the list of terminals"),
    ],
)
def test_hints_are_said_in_the_words_of_the_page(hint: str, said: str) -> None:
    assert say_on_page(hint) == said
