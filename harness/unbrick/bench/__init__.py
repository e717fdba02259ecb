"""The bench: one terminal on any engine, with everything that talks to it."""

from unbrick.bench.bench import Bench, Peer
from unbrick.bench.console import Console

__all__ = ["Bench", "Console", "Peer"]
