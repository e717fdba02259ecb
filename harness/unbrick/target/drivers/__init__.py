"""Drivers of updates: generators over the console, ours by name, a user's from a Python file."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.errors import SetupError
from unbrick.target.drivers import smp, xcp, xmodem, ymodem
from unbrick.target.user_file import read_function

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from unbrick.target.console import DriverConsole, Wait
    from unbrick.target.description import FirmwareFile

    Drive = Callable[
        [DriverConsole, FirmwareFile | None, Mapping[str, Any]], Generator[Wait, Any, object]
    ]


@dataclass(frozen=True)
class Driver:
    """One of our drivers.

    Attributes:
        drive: what it does.
        addressed: whether it must know where each byte of the file belongs.
    """

    drive: Drive
    addressed: bool = False


DRIVERS = {
    "smp": Driver(smp.update),
    "xcp": Driver(xcp.update, addressed=True),
    "xmodem": Driver(xmodem.update),
    "ymodem": Driver(ymodem.update),
}
"""Our drivers, by name."""


def start_driver(
    driver: str | Path,
    console: DriverConsole,
    payload: FirmwareFile | None,
    options: Mapping[str, Any],
) -> Generator[Wait, Any, object]:
    """The generator that a driver is: one of ours by its name, or a user's by its file.

    Raises:
        SetupError: the user's file is wrong.
    """
    if not isinstance(driver, Path):
        return DRIVERS[driver].drive(console, payload, options)
    driving = read_driver(driver)(console, payload, options)
    if not isinstance(driving, Generator):
        raise SetupError(
            f"{FUNCTION} of the driver {driver} gives {driving!r}",
            hint="make it a generator: yield what it waits for",
        )
    return driving


FUNCTION = "update"
"""What a user's file must define."""


def read_driver(path: Path) -> Drive:
    """The driver that a Python file has: its function ``update(console, payload, options)``.

    Raises:
        SetupError: the file cannot be read or run, or has no such function.
    """
    shape = f"{FUNCTION}(console, payload, options), a generator"
    return read_function(path, FUNCTION, "the driver", shape)
