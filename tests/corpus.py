"""Clones of public repositories with firmware, which a developer may have (UNBRICK_CORPUS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def why_no_clone(find: Callable[[], Path]) -> str:
    """Why a clone cannot be found; empty: it is there."""
    try:
        find()
    except SetupError as error:
        return f"{error}; {error.hint}"
    return ""
