"""Unbrick: over-the-air software update that cannot brick, and the bench that proves it."""

__version__ = "0.2.0"
