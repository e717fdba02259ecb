"""The terminal in this process: Unicorn runs the CPU, C models are the board, time is virtual."""

from unbrick.engine.inprocess.engine import MOST_WATCHPOINTS, InProcessEngine, Watchpoint
from unbrick.engine.inprocess.models import NorModel

__all__ = ["MOST_WATCHPOINTS", "InProcessEngine", "NorModel", "Watchpoint"]
