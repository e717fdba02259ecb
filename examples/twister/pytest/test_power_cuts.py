"""No power cut in the update bricks the board. Twister runs this (`harness: pytest`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unbrick.report.model import ScenarioReport
    from unbrick.started import StartedTarget


def test_no_power_cut_bricks_it(unbrick_campaign: ScenarioReport) -> None:
    assert unbrick_campaign.transitions > 0


def test_it_comes_back_after_one(unbrick_target: StartedTarget) -> None:
    unbrick_target.cut_before_operation(12)  # MCUboot swaps as soon as it starts
    unbrick_target.recover()
