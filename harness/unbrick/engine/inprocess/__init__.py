"""The terminal in this process: Unicorn runs the CPU, C models are the board, time is virtual."""

from unbrick.engine.compiled import MOST_WATCHPOINTS, Watchpoint
from unbrick.engine.inprocess.engine import InProcessEngine
from unbrick.engine.inprocess.models import NorModel

__all__ = ["MOST_WATCHPOINTS", "InProcessEngine", "NorModel", "Watchpoint"]
