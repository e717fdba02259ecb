"""The engine for microcontrollers, as a campaign takes it."""

from __future__ import annotations

from unbrick.engine.base import ChipEngine
from unbrick.engine.mcu.engine import McuEngine


class McuTargetEngine(McuEngine, ChipEngine):
    """A :class:`unbrick.engine.mcu.engine.McuEngine` with all that a search needs."""
