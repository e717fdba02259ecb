"""What has power and a console, as keywords use it: a terminal, or the device of a target file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.robot.uart import Uart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unbrick.bench.bench import Bench
    from unbrick.engine.base import Engine
    from unbrick.started import StartedTarget


class HandledDevice:
    """A device, and what it says.

    Args:
        engine: runs it.
        bench: has its peers.
        called: what people call it.

    Attributes:
        uart: what it says at its console.
    """

    def __init__(self, engine: Engine, bench: Bench, called: str) -> None:
        self.engine, self.bench = engine, bench
        self.uart = Uart(bench.run_until, lambda: engine.now, called)
        bench.console.listeners.append(self.uart.hear)

    def power_on(self) -> None:
        """Give it power."""
        self.uart.note("power on")
        self.engine.power_on()

    def cut_power(self) -> None:
        """Take it away. What was said before is no answer to what is asked later."""
        self.bench.cut_power()
        self.note_cut()

    def note_cut(self) -> None:
        """Its power is gone."""
        self.uart.note("power cut")
        self.uart.skip()

    def logs(self) -> Mapping[str, tuple[str, str]]:
        """What a failure shows: for each title the name of a file, and a text."""
        return {
            "UART0, the wire": ("wire", self.uart.log()),
            "faults of the firmware": ("faults", self.faults()),
        }

    def faults(self) -> str:
        """What the firmware did wrong, a line for each."""
        return "\n".join(
            f"[{f.time:10.3f}] {f.kind}: {f.detail} {f.where}" for f in self.engine.faults
        )

    def close(self) -> None:
        """Give back what it holds."""
        self.engine.close()


class TargetDevice(HandledDevice):
    """A device with the firmware of a target file.

    Args:
        started: the device.

    Attributes:
        started: the device.
    """

    def __init__(self, started: StartedTarget) -> None:
        super().__init__(started.engine, started.bench, "device")
        self.started = started

    def power_on(self) -> None:
        """Give it power."""
        self.uart.note("power on")
        self.started.power_on()

    def cut_power(self) -> None:
        """Take it away, and with it whoever drives the update."""
        self.started.cut_power()
        self.note_cut()

    def logs(self) -> Mapping[str, tuple[str, str]]:
        """What a failure shows."""
        return {
            "the console": ("console", self.uart.log()),
            "faults of the firmware": ("faults", self.faults()),
        }

    def close(self) -> None:
        """Give back what it holds."""
        self.started.close()
