"""A host that comes later: it waits, and then programs by XCP.

The option ``wait_s`` says for how many seconds; those of the driver ``xcp`` may be there, too.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from unbrick.target.console import DriverConsole, Wait
from unbrick.target.description import FirmwareFile
from unbrick.target.drivers import xcp


def update(
    console: DriverConsole, payload: FirmwareFile, options: Mapping[str, Any]
) -> Generator[Wait, Any, None]:
    """Wait, and update."""
    yield console.pause(float(options["wait_s"]))
    yield from xcp.update(console, payload, options)
