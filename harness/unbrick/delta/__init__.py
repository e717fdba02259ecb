"""Differential files: how a new image differs from the installed one (docs/delta-format.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.delta.format import DeltaHeader, read_header

if TYPE_CHECKING:
    from unbrick.delta.codec import decode, encode, make_delta

__all__ = ["DeltaHeader", "decode", "encode", "make_delta", "read_header"]


def __getattr__(name: str) -> object:
    """Making files and applying them needs NumPy, reading a header does not.

    Raises:
        AttributeError: there is nothing of that name.
    """
    if name not in {"decode", "encode", "make_delta"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unbrick.delta import codec  # noqa: PLC0415

    return getattr(codec, name)
