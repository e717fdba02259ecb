"""Differential files: how a new image differs from the installed one (docs/delta-format.md)."""

from unbrick.delta.codec import decode, encode
from unbrick.delta.format import DeltaHeader, read_header

__all__ = ["DeltaHeader", "decode", "encode", "read_header"]
