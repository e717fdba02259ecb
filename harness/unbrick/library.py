"""Loads what ``unbrick.compile`` has compiled."""

from __future__ import annotations

import ctypes as c
from typing import Any

from unbrick.compile import LIBRARIES, PACKAGE
from unbrick.errors import SetupError

Signatures = dict[str, tuple[Any, list[Any]]]
"""Of each function, by its name: what it returns, and what it takes."""


def load_library(part: str, signatures: Signatures) -> Any:
    """The library of a part, with the types of its functions.

    Args:
        part: one of :data:`unbrick.compile.LIBRARIES`.
        signatures: of its functions.

    Raises:
        SetupError: it is not compiled.
    """
    path = PACKAGE / part / LIBRARIES[part]
    if not path.exists():
        raise SetupError(
            f"the C files of {part} are not compiled",
            hint="run: python -m unbrick.compile (or install the package again)",
        )
    library = c.CDLL(str(path))
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
