"""Clones of public repositories with firmware, which a developer may have (UNBRICK_CORPUS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.campaign.case import CaseId
from unbrick.campaign.replay import replay
from unbrick.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.target.target import FileTarget


def why_no_clone(find: Callable[[], object]) -> str:
    """Why a clone cannot be found; empty: it is there."""
    try:
        find()
    except SetupError as error:
        return f"{error}; {error.hint}"
    return ""


def judge(target: FileTarget, case: str) -> str:
    """The kind of what comes of a case; empty: it recovers."""
    with target.create_engine() as engine:
        *_, last = replay(target, engine, CaseId.parse(case))
        return last.outcome.violation[0] if last.outcome.violation else ""
