"""A real browser for tests of pages, and axe-core, which finds what shuts people out of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FindBarriers = Callable[["Page"], list[str]]
"""Gives what is wrong with a page, each with the part of the page."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
    )
    if not path:
        pytest.skip("no browser here (Debian: apt install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        # Without its sandbox, which root cannot have: it sees nothing but our own page.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def find_barriers() -> FindBarriers:
    """What axe-core has against a page: rules of WCAG 2.2, and its own of good practice."""
    api = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    axe = api.Axe()

    def find(page: Page) -> list[str]:
        return [
            f"{rule['id']}: {rule['help']}: {node['html']}"
            for rule in axe.run(page).response["violations"]
            for node in rule["nodes"]
        ]

    return find
