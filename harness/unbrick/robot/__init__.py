"""Robot Framework keywords: ``Library    unbrick.robot``. How to use it is in the class below."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from robot.api import logger
from robot.libraries.BuiltIn import BuiltIn

from unbrick import __version__
from unbrick.robot.campaign import CampaignKeywords
from unbrick.robot.device import HandledDevice
from unbrick.robot.lines import UartKeywords
from unbrick.robot.nor import NorKeywords
from unbrick.robot.provider import ProviderKeywords
from unbrick.robot.reference import Reference, make_attachment
from unbrick.robot.target import TargetKeywords
from unbrick.robot.terminal import TerminalKeywords
from unbrick.robot.update import UpdateKeywords


class UnbrickLibrary(
    TerminalKeywords,
    UartKeywords,
    UpdateKeywords,
    ProviderKeywords,
    NorKeywords,
    CampaignKeywords,
    TargetKeywords,
):
    """Keywords for a terminal that is updated over the air, and must never be bricked.

    %TOC%

    = Beginning =

    `Start Terminal` takes a terminal fresh from the factory, with its server and the wireless
    link between them. It runs the real ARM binary. A first suite:

    | ***** Settings *****
    | Library    unbrick.robot
    |
    | ***** Test Cases *****
    | The terminal is updated over the air
    |     Start Terminal    installed=1.0.0
    |     Wait For Registration
    |     Update Terminal    1.1.0
    |     Terminal Should Run    1.1.0

    There is one terminal at a time. It lives on from test to test of a suite, until the next
    `Start Terminal` or the suite's end.

    = Firmware of your own =

    `Start Target` starts a device of a target file (docs/any-firmware.md) in place of a terminal:
    any firmware, on a chip that Unbrick knows. It runs in process, whatever ``${ENGINE}`` says.
    `Campaign Should Be Closed` and `Campaign Should Find No Violation` search a target file.

    = Engines =

    ``--variable ENGINE:qemu`` chooses what runs the terminal; ``inprocess`` is the default. Suites
    need not know. A test is skipped, and says so, when its engine is missing or cannot do
    something: QEMU cannot cut the power at a flash operation, a real board hides its NOR. A
    file describes a real board: ``--variable ENGINE:serial --variable BOARD:board.toml``.

    = The UART =

    Keywords for the UART have the names and the arguments that Renode gives them, where they mean
    the same: `Wait For Line On Uart`, `Write Line To Uart`, `Should Not Be On Uart`. The UART is
    UART0, the terminal's wire with its console. There are no testers to create and no ``testerId``.

    A keyword looks for its text behind the line that was found last. Text is plain unless
    ``treatAsRegex`` is true.

    = Times =

    Times are in Robot's notation: ``30 s``, ``2 minutes``, ``500 ms``; a number is seconds. They
    are the engine's. In process and on Renode time is virtual: in process ten minutes are over in a
    moment, and the same seed gives the same run. Elsewhere time is the clock's.

    = When a test fails =

    ``log.html`` has, with the failed test, the end of the UART's log, the messages on the wireless
    link, faults of the firmware, and a picture of the NOR. All of each log is beside it, in the
    folder ``logs``. (In ``log.html`` from Robot Framework 7.2 on.)
    """

    ROBOT_LIBRARY_SCOPE = "SUITE"
    ROBOT_LIBRARY_VERSION = __version__
    ROBOT_LIBRARY_DOC_FORMAT = "ROBOT"
    ROBOT_LISTENER_API_VERSION = 3
    ROBOT_AUTO_KEYWORDS = False

    def __init__(
        self,
        engine: str | None = None,
        firmware: Path | None = None,
        timeout: timedelta = timedelta(seconds=30),
        seed: int = 0,
    ) -> None:
        """All arguments may be left out.

        | = argument = | = meaning = |
        | engine       | what runs the terminal; else ``${ENGINE}``, else ``inprocess`` |
        | firmware     | where it is built and kept; else ``${FIRMWARE}``, else ``build/firmware`` |
        | timeout      | how long keywords wait for the terminal when they are not told |
        | seed         | of everything random on the server's side and on the link |

        | Library | unbrick.robot |              |            |
        | Library | unbrick.robot | timeout=10 s | seed=17    |
        """
        super().__init__(engine, firmware, timeout, seed)
        self.ROBOT_LIBRARY_LISTENER = self

    def end_test(self, data: Any, result: Any) -> None:
        """Robot calls it: show what is known when a test has failed."""
        if result.failed and self._device_or_none is not None:
            _attach(self._device_or_none, str(data.longname))

    def close(self) -> None:
        """Robot calls it when the suite is over."""
        self._close()


def _attach(device: HandledDevice, test: str) -> None:
    for title, (name, log) in device.logs().items():
        if log:
            logger.write(make_attachment(title, log, _keep(test, f"{name}.log", log)), html=True)
    if not isinstance(device, Reference):
        return
    picture = device.picture()
    if picture.startswith("<svg"):
        _keep(test, "nor.svg", picture)
    logger.write(f"<b>the NOR</b><br>{picture}", html=True)


def _keep(test: str, name: str, log: str) -> str | None:
    """Write a log or a picture beside ``log.html``; returns the link to it."""
    folder = BuiltIn().get_variable_value("${OUTPUT DIR}")
    if not folder:
        return None
    link = Path("logs") / f"{re.sub(r'[^A-Za-z0-9]+', '-', test).strip('-')}.{name}"
    path = Path(folder) / link
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(log + "\n", encoding="utf-8")
    except OSError as error:
        logger.warn(f"the log was not kept: {error}")
        return None
    return link.as_posix()


robot = UnbrickLibrary
"""``Library    unbrick.robot`` finds the class by this name."""
