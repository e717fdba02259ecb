"""Keywords: firmware of your own, which a target file describes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from robot.api import logger

from unbrick.campaign.run import PRESETS, run_campaign
from unbrick.errors import SetupError, UpdateError
from unbrick.report.formats import tell_violations_briefly
from unbrick.report.model import ScenarioReport, report_scenario
from unbrick.robot.base import Keywords, expect, keyword, read_variable
from unbrick.robot.device import TargetDevice
from unbrick.started import StartedTarget
from unbrick.target.target import FileTarget


class TargetKeywords(Keywords):
    """A device with firmware of your own, and campaigns of it. They always run in process."""

    @keyword
    def start_target(self, target: Path) -> None:
        """Starts a device with the firmware that a target file describes.

        ``target`` is named from the suite's folder; docs/any-firmware.md says what is in it. What
        it stages is in the flash. Keywords for the UART, `Power On`, `Cut Power` and `Run For` work
        with the device, as with a terminal. What was started before is switched off and given back.

        | `Start Target`               | target.toml |
        | `Wait For Line On Uart`      | APP v1      |
        | `Start Target Update`        |
        | `Cut Power Before Operation` | 12          |
        | `Target Should Recover`      |
        """
        found = FileTarget.load(_find(target), tried=False)
        self._close()
        self._device_or_none = TargetDevice(StartedTarget(found))
        logger.info(f"{found.name} on a {found.description.chip.name}")
        self._device.power_on()

    @keyword
    def start_target_update(self) -> None:
        """Types, and sends the file, as ``[update]`` says, while the device runs on.

        A staged update begins by itself, when the power comes.
        """
        self._target.started.start_update()

    @keyword
    def cut_power_before_operation(
        self, number: int, timeout: timedelta = timedelta(minutes=1)
    ) -> None:
        """Lets the device run, and cuts its power just before a flash operation.

        ``number`` counts from the last `Power On`, and the first operation is 0: so does a case ID.
        The test fails when the operation does not come within ``timeout``.

        | `Cut Power Before Operation` | 12 |
        | `Power On`                   |
        """
        expect(number >= 0, "flash operations are counted from 0, the first one since power-on")
        device = self._target
        device.started.cut_before_operation(number, timeout.total_seconds())
        device.note_cut()

    @keyword
    def target_should_recover(self) -> None:
        """Plays what follows a power cut, and judges it by ``[recovered]``, as a campaign does.

        The update is done again where the target file says so. Then the device is started anew.
        """
        device = self._target
        device.started.recover()
        device.uart.skip()
        device.uart.note("recovered; power on")

    @keyword
    def campaign_should_find_no_violation(
        self,
        target: Path,
        preset: Literal["quick", "single", "full", "exhaustive"] = "single",
        depth: int | None = None,
    ) -> None:
        """Cuts the power at and in every flash operation of a target file, and judges what comes.

        What the presets search is in docs/any-firmware.md. ``depth`` bounds the power cuts in a
        row. A violation fails the test, and says how to replay it.

        | `Campaign Should Find No Violation` | target.toml |               |
        | `Campaign Should Find No Violation` | target.toml | preset=single |
        """
        _search(target, preset, depth)

    @keyword
    def campaign_should_be_closed(self, target: Path) -> None:
        """Cuts the power again in each recovery, until nothing new comes, and finds no violation.

        Then no number of power cuts in any order bricks the device. This may take minutes. Firmware
        that counts its starts comes to no end.

        | `Campaign Should Be Closed` | target.toml |
        """
        report = _search(target, "full", None)
        expect(report.closed, f"the search has not come to its end: {report.statement}")


def _find(target: Path) -> Path:
    """A target file, from the folder of the suite."""
    source = read_variable("SUITE_SOURCE")
    if source is None:
        return target
    suite = Path(source)
    return (suite if suite.is_dir() else suite.parent) / target


def _search(target: Path, preset: str, depth: int | None) -> ScenarioReport:
    """Search a target.

    Raises:
        UpdateError: there are violations.
    """
    bounds = PRESETS[preset]
    if depth is not None:
        if depth < 0:
            raise SetupError(f"depth is {depth}", hint="it is a number of power cuts")
        bounds = replace(bounds, depth=depth)
    found = FileTarget.load(_find(target))
    report = report_scenario(run_campaign(found, bounds=bounds, exhaustive=preset == "exhaustive"))
    logger.info(report.statement)
    if report.violations:
        raise UpdateError(tell_violations_briefly(report))
    return report
