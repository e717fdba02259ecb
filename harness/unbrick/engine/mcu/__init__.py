"""A Cortex-M microcontroller in this process: Unicorn executes, C models are all around it."""

from unbrick.engine.mcu.engine import McuEngine, VainRegister
from unbrick.engine.mcu.models import SEMIHOSTING

__all__ = ["SEMIHOSTING", "McuEngine", "VainRegister"]
