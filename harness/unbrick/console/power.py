"""The power of a terminal at the console: now, or when the NOR is about to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.engine.gdb.server import DebuggerGoneError, PowerLostError
from unbrick.errors import EngineError, NotKnownHereError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.console.typist import Typist
    from unbrick.engine.base import Engine


class PowerSwitch:
    """Cuts the power and gives it back, and lets the terminal run in between.

    Args:
        engine: runs the terminal.
        typist: types at it.
        say: called with lines for a person.
        lost: called when the power was cut, before that is said.
    """

    def __init__(
        self,
        engine: Engine,
        typist: Typist,
        say: Callable[[str], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine = engine
        self._exact = engine.flash_trace
        self._typist, self._say, self._lost = typist, say, lost
        self._nor_before: bytes | None = None
        self._faults_told = 0
        self._noticed = True

    @property
    def exact(self) -> bool:
        """Whether a cut comes just before an operation, not just after it."""
        return self._exact is not None

    def on(self) -> None:
        """Start the terminal, if it is off."""
        if not self.engine.powered:
            self._typist.power_on(self.engine.now)
            self.engine.power_on()
            self._noticed = False

    def cut(self, why: str = "power cut", then: str = "; `on` gives it back") -> None:
        """Cut the power now, and say ``why``. An armed cut is no longer armed."""
        self.disarm()
        self.engine.power_off()
        self._off(why + then)

    def reset(self, press: Callable[[], None]) -> None:
        """Have ``press`` reset what has power; an armed cut stays armed.

        Raises:
            NotKnownHereError: it has none.
        """
        if not self.engine.powered:
            raise NotKnownHereError("the power is off", hint="`on` gives it back")
        press()
        self._typist.power_on(self.engine.now)
        self._lost()
        self._say("reset")

    def _off(self, why: str) -> None:
        self._typist.power_off()
        self._noticed = True
        self._lost()
        self._say(why)

    def arm(self, count: int = 1) -> None:
        """Cut the power at the ``count``-th flash operation from now.

        Raises:
            NotKnownHereError: this engine does not count operations.
        """
        if self._exact is not None:
            self._exact.cut_before_op(self._exact.op_count + count - 1)
        elif count == 1:
            self._nor_before = self.engine.read_nor()
        else:
            raise NotKnownHereError(
                f"the engine {self.engine.name} does not count flash operations",
                hint="type `cut next`, or run this with --engine inprocess",
            )

    def disarm(self) -> None:
        """No longer cut the power at a flash operation."""
        self._nor_before = None
        if self._exact is not None:
            self._exact.cut_before_op(None)

    def advance(self, seconds: float) -> None:
        """Let the terminal run for at most ``seconds``, and make a cut that is due."""
        try:
            self.engine.advance(seconds)
        except PowerLostError:
            pass  # told by cut_reached
        except DebuggerGoneError as error:
            self.cut(str(error))
        except EngineError as error:
            self.cut(f"{error}{'. ' if error.hint else ''}{error.hint}")
        if self._exact is not None and self._exact.cut_reached:
            self.cut(f"power cut just before flash operation {self._exact.op_count}")
        elif self._nor_before is not None and self.engine.read_nor() != self._nor_before:
            self.cut("power cut as soon as the NOR was seen to change")
        elif not (self.engine.powered or self._noticed):
            self._off("the power is off; `on` gives it back")
        self._tell_faults()

    def _tell_faults(self) -> None:
        for fault in self.engine.faults[self._faults_told :]:
            self._say(f"firmware fault in {fault}")
        self._faults_told = len(self.engine.faults)
