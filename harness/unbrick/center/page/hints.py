"""The hints of the server in the words of the page: operators type no commands."""

from __future__ import annotations

import re

_WORDS = (
    (r"publish it with `unbrick publish`; `unbrick images` lists .*", "have it published first"),
    (r"`unbrick terminals` lists", "the list of terminals has"),
    (r"`unbrick update cancel [^`]*`", "cancel it on the terminal's page"),
    (r"`unbrick update list`", "the list of terminals"),
    (r"`unbrick (update show|terminal) [^`]*`", "the terminal's page"),
    (r"`unbrick rollout list`", "the list of rollouts"),
    (r"`unbrick rollout show [^`]*`", "the page of the rollout"),
    (r" \(--downgrade\)", ""),
    (r"leave out --commanded", "choose to update it by a file"),
    (r"with --commanded", "by commands"),
    (r"with --hardware: .*", "in the list of software"),
)
"""What a hint may say, and what the page says instead."""


def say_on_page(hint: str) -> str:
    """A hint of the server in the page's words."""
    for pattern, words in _WORDS:
        hint = re.sub(pattern, words, hint)
    return hint
