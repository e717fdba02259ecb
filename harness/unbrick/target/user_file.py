"""A function that a Python file of the user's has."""

from __future__ import annotations

import types
from functools import cache
from typing import TYPE_CHECKING, Any

from unbrick.errors import SetupError
from unbrick.target.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@cache
def read_function(path: Path, name: str, what: str, shape: str) -> Callable[..., Any]:
    """The function of a Python file.

    Args:
        path: of the file, which is run.
        name: of the function.
        what: the file is, for people.
        shape: of the function, for people.

    Raises:
        SetupError: the file cannot be read or run, or has no such function.
    """
    source = read_bytes(path)
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - it is the user's
    except Exception as error:
        raise SetupError(
            f"{what} {path} cannot be loaded: {type(error).__name__}: {error}",
            hint="correct it; it is run as Python",
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise SetupError(f"{what} {path} has no function {name}", hint=f"define {shape}")
    function: Callable[..., Any] = found
    return function
