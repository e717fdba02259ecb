"""A campaign's page in a real browser: readable for everybody, light and dark, by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsers import FindBarriers
from test_report import BOTH, GOOD, branch_of, campaign, scenario

from unbrick.report.html import render_html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.fixture
def page(
    chromium: Browser,
    request: pytest.FixtureRequest,
) -> Iterator[Page]:
    scheme, size = request.param
    width, height = SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    yield context.new_page()
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [("light", "desktop"), ("dark", "desktop"), ("dark", "phone")], indirect=True
)
def test_a_campaigns_page_shuts_nobody_out(
    page: Page,
    find_barriers: FindBarriers,
    tmp_path: Path,
) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_html(BOTH), encoding="utf-8")
    page.goto(file.as_uri())
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.evaluate("innerWidth"), "it must be scrolled sideways"
    assert find_barriers(page) == []


@pytest.mark.slow
@pytest.mark.parametrize("page", [("light", "desktop")], indirect=True)
def test_lines_of_the_tree_fold_by_keyboard(page: Page, tmp_path: Path) -> None:
    alike = [branch_of(GOOD, number, ops=number) for number in range(3, 60)]
    below = branch_of(alike[0], 1, ops=100)
    file = tmp_path / "report.html"
    file.write_text(render_html(campaign(scenario(GOOD, *alike, below))), encoding="utf-8")
    page.goto(file.as_uri())
    shown = page.get_by_text(below.id)
    assert not shown.is_visible()
    page.locator("summary", has_text=alike[0].id).first.press("Enter")
    shown.wait_for(state="visible")
