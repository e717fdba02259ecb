"""Keywords: the campaign, which cuts the power everywhere."""

from __future__ import annotations

from typing import Literal

from robot.api import logger

from unbrick.campaign.run import PRESETS, run_campaign
from unbrick.engine.inprocess import InProcessEngine
from unbrick.errors import NotKnownHereError, UpdateError
from unbrick.reference.target import find_target
from unbrick.report.formats import tell_violations_briefly
from unbrick.report.model import report_scenario
from unbrick.robot.base import Keywords, keyword


class CampaignKeywords(Keywords):
    """Systematic searches. They always run in process."""

    @keyword
    def campaign_should_find_nothing(
        self, scenario: str, preset: Literal["quick", "full"] = "quick"
    ) -> None:
        """Cuts the power at and in every flash operation of a scenario, and checks each outcome.

        ``unbrick campaign --help`` names the scenarios; what the presets search is in
        docs/campaign.md. A violation fails the test, and says how to replay it. Campaigns run in
        process: on other engines the test is skipped.

        | `Campaign Should Find Nothing` | phonebook |
        """
        if self._wanted_engine() != InProcessEngine.name:
            raise NotKnownHereError(
                "campaigns run in process", hint="--variable ENGINE:inprocess runs them"
            )
        target = find_target(scenario, self._releases)
        report = report_scenario(run_campaign(target, bounds=PRESETS[preset]))
        logger.info(report.statement)
        if report.violations:
            raise UpdateError(tell_violations_briefly(report))
