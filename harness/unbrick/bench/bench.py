"""One terminal with its peers: server and link, restoration apparatus, console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from unbrick.bench.console import Console
from unbrick.errors import FirmwareFaultError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Engine, FirmwareFault

SLICE_S = 0.5  # how long the terminal runs at most before its peers have a turn


class Peer(Protocol):
    """Something that talks to the terminal."""

    def step(self, now: float, /) -> float | None:
        """Do what is due at ``now`` (seconds); return the time of the next deadline, if any."""


class Bench:
    """A terminal under test and the peers around it.

    Nothing here knows the engine or the clock: the same scenario runs in virtual time in process
    and in real time on QEMU or a board.

    Args:
        engine: runs the terminal.
        allows: says which faults of the firmware may be; by default none may.
        called: what people call it.
    """

    def __init__(
        self,
        engine: Engine,
        allows: Callable[[FirmwareFault], bool] = lambda _: False,
        called: str = "terminal",
    ) -> None:
        self.engine = engine
        self._allows = allows
        self.console = Console(engine.wire, self.run_until, called)
        self.peers: list[Peer] = [self.console]

    def run_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Let everything run until ``condition()`` holds, for at most ``timeout`` seconds.

        Raises:
            FirmwareFaultError: the firmware did what the hardware forbids.
        """
        deadline = self.engine.now + timeout
        while True:
            wake = self._step_peers()
            if condition():
                return True
            self._check_faults()
            now = self.engine.now
            if now >= deadline:
                return False
            self.engine.advance(max(1e-9, min(wake, deadline, now + SLICE_S) - now))

    def run_for(self, seconds: float) -> None:
        """Let everything run for ``seconds``."""
        self.run_until(lambda: False, seconds)

    def cut_power(self) -> None:
        """Cut the power. Words from before do not answer later questions."""
        self.engine.power_off()
        self.console.skip()

    def restart(self) -> None:
        """Cut the power and give it back."""
        self.cut_power()
        self.engine.power_on()

    def _step_peers(self) -> float:
        now = self.engine.now
        deadlines = [peer.step(now) for peer in self.peers]
        return min((d for d in deadlines if d is not None), default=float("inf"))

    def _check_faults(self) -> None:
        for fault in self.engine.faults:
            if not self._allows(fault):
                raise FirmwareFaultError(f"firmware fault in {fault}")
