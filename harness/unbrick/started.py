"""A device with the firmware of a target's file, started, for a test that handles it.

A campaign plays whole sessions by itself. Here the test says what happens: it talks to the console,
begins the update, and cuts the power where it wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.bench.bench import Bench
from unbrick.campaign.target import UNDISTURBED, State
from unbrick.errors import ExpectError, SetupError
from unbrick.flash.cells import Cells
from unbrick.target.console import DriverConsole
from unbrick.target.session import name_peers, run_session, start_driving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unbrick.bench.console import Console
    from unbrick.flash.ops import FlashOp
    from unbrick.target.console import DriverRun
    from unbrick.target.target import FileTarget


class StartedTarget:
    """A device with the firmware of a target's file. Its power is off at first.

    Its flash is as it is delivered, with what [update] stages. Times are virtual seconds.

    Args:
        target: what it is.

    Attributes:
        target: what it is.
        engine: runs its chip.
        bench: lets it run.
    """

    def __init__(self, target: FileTarget) -> None:
        self.target = target
        found = target.description
        self.engine = target.create_engine()
        self.bench = Bench(self.engine, found.never.allows, called="device")
        self.console.listeners.append(self._hear)
        self.bench.peers.append(self)
        self._first_op = 0
        self._driver: DriverRun | None = None
        self._driver_console = DriverConsole(self.engine.wire, self.engine.now)
        self.engine.load_nor(found.start_image)

    @property
    def console(self) -> Console:
        """Its console."""
        return self.bench.console

    @property
    def op_count(self) -> int:
        """Flash operations since power-on."""
        return self.engine.op_count - self._first_op

    @property
    def ops(self) -> Sequence[FlashOp]:
        """The flash operations since power-on."""
        return self.engine.ops[self._first_op :]

    def power_on(self) -> None:
        """Start it; nothing happens when its power is on."""
        if self.engine.powered:
            return
        self._first_op = self.engine.op_count
        self._driver_console = DriverConsole(
            self.engine.wire, self.engine.now, self._driver_console.remembered
        )
        self.engine.power_on()

    def cut_power(self) -> None:
        """Take the power away, and with it whoever drives the update."""
        self._end_driver()
        self.engine.cut_before_op(None)
        self.bench.cut_power()

    def restart(self) -> None:
        """Cut the power and give it back."""
        self.cut_power()
        self.power_on()

    def start_update(self) -> None:
        """Do what [update] says: type, and send the file, while the device runs on.

        Raises:
            SetupError: nobody does anything in this update, it is staged; or the power is off.
        """
        if not self.target.description.update.is_driven:
            raise SetupError(
                f"nobody begins the update of {self.target.name}: it is staged",
                hint="it begins when the power comes",
            )
        if not self.engine.powered:
            raise SetupError("the device has no power", hint="power on first")
        self._end_driver()
        self._driver = start_driving(self._driver_console, self.target.description)

    def cut_before_operation(self, number: int, timeout: float = 60.0) -> None:
        """Let the device run, and cut its power just before a flash operation.

        Args:
            number: of the operation since power-on, the first is 0: the same as in a case ID.
            timeout: seconds until it must come.

        Raises:
            ExpectError: it did not come, or has been.
        """
        engine = self.engine
        self._await_operation(number, timeout, engine.cut_before_op, lambda: engine.cut_reached)
        self.cut_power()

    def brown_out_in_operation(self, number: int, timeout: float = 60.0) -> None:
        """Let the device run, and have its supply too low in the middle of a flash operation.

        The chip is reset, and its own flash is torn. RAM keeps what it holds, and a chip beside it
        goes on. So does whoever drives the update.

        Args:
            number: as of :meth:`cut_before_operation`.
            timeout: likewise.

        Raises:
            ExpectError: it did not come, or has been.
            NotKnownHereError: the engine knows no brown-out.
        """
        arm = self.engine.brown_out_in_op
        self._await_operation(number, timeout, arm, lambda: self.op_count > number)

    def _await_operation(
        self,
        number: int,
        timeout: float,
        arm: Callable[[int | None], None],
        reached: Callable[[], bool],
    ) -> None:
        if self.op_count > number:
            raise ExpectError(
                f"flash operation {number} has been: the device has begun {self.op_count} since "
                "its power came",
                hint="the first operation has the number 0",
            )
        driven = self.target.description.update.is_driven
        arm(self._first_op + number)
        try:
            if not self.bench.run_until(reached, timeout):
                raise ExpectError(
                    f"flash operation {number} did not come within {timeout:g} s; there were "
                    f"{self.op_count}",
                    hint="begin the update first" if driven and self._driver is None else "",
                )
        finally:
            arm(None)

    def recover(self) -> None:
        """Start it as after a power cut, and see that it recovers as a campaign asks it to.

        What [update] does again after a power cut is done. Then the device is started once more.

        Raises:
            ExpectError: it does not recover.
        """
        self.cut_power()
        found = self.target.description
        peers = name_peers(self._driver_console.remembered)
        state = State(Cells.of(self.engine.read_nor(), found.chip.geometry), peers)
        outcome = run_session(self.engine, found, state, UNDISTURBED)
        self.console.hear(outcome.console.encode())
        self.console.skip()
        if outcome.violation:
            kind, text = outcome.violation
            raise ExpectError(f"the device does not recover: {kind}: {text}")
        self.power_on()

    def step(self, now: float) -> float | None:
        """Let whoever drives the update have a turn; the bench calls it."""
        if self._driver is None:
            return None
        self._driver.step(now)
        return self._driver.deadline

    def close(self) -> None:
        """Give back what it holds."""
        self._end_driver()
        self.engine.close()

    def _hear(self, data: bytes) -> None:
        self._driver_console.hear(data)

    def _end_driver(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None
