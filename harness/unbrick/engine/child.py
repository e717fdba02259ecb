"""Emulators that are programs of their own: none of them outlives the bench."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from unbrick.errors import MissingToolError

if TYPE_CHECKING:
    from collections.abc import Callable

_PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)


class Child(Protocol):
    """Something with a process behind it."""

    def kill(self) -> None:
        """End the process at once."""


living: weakref.WeakSet[Any] = weakref.WeakSet()
"""Every :class:`Child` that was not ended; what is left of them ends with Python."""


@atexit.register
def _kill_all() -> None:
    child: Child
    for child in list(living):
        child.kill()


def find_program(name: str, variable: str, source: str) -> str:
    """The path of a program.

    Args:
        name: what to look for on ``PATH``.
        variable: of the environment, which may name another program.
        source: what to do to have it, for the hint.

    Raises:
        MissingToolError: it is not installed.
    """
    wanted = os.environ.get(variable) or name
    found = shutil.which(wanted)
    if found is None:
        raise MissingToolError(
            f"{wanted} is not installed", hint=f"{source}, or set {variable} to its path"
        )
    return found


def die_with_parent(number: int = signal.SIGKILL) -> Callable[[], object] | None:
    """For ``preexec_fn``: the child gets a signal when the thread that started it is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return None if prctl is None else lambda: prctl(_PDEATHSIG, number)
