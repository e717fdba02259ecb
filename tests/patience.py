"""How long tests wait for what another process, thread or machine does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PATIENCE_S = 600.0
"""Seconds until a hopeless wait ends. No test takes that long: it says nothing about speed."""

POLL_S = 0.02


def until(true: Callable[[], T], what: str = "what was waited for") -> T:
    """Wait until ``true`` returns something that is true; returns that.

    Raises:
        AssertionError: it never did.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(POLL_S)
    return found
