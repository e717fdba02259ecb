"""A Cortex-M microcontroller in this process: Unicorn executes, C models are all around it."""

from unbrick.engine.mcu.engine import McuEngine
from unbrick.engine.mcu.models import SEMIHOSTING

__all__ = ["SEMIHOSTING", "McuEngine"]
