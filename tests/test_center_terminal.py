"""Rows B3 and B4 with the real ARM binary: a message is shown to the user, a call upgrades."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from center_world import World, words

from unbrick.center.calls.notify import Notifier
from unbrick.reference.system import System

SERIAL = "UB-000001"


@pytest.fixture
def unbrick_system(unbrick_make_system: Callable[..., System]) -> System:
    made = unbrick_make_system(engine="inprocess", serial=SERIAL)
    made.power_on()
    made.wait_registered()
    made.publish("1.1.0")
    return made


def center_of(system: System) -> World:
    return World(records=system.records, core=system.server)


def test_claim_b3_a_text_message_about_an_upgrade_is_shown_to_the_terminals_user(
    unbrick_system: System,
) -> None:
    browser = center_of(unbrick_system).browser("cleo")
    text = "Version 1.1.0 is ready. Call us."
    page = browser.order(f"/terminals/{SERIAL}/messages", text=text)
    assert f"queued {text}" in words(page)
    unbrick_system.console.expect(f"message: {text}")
    assert unbrick_system.bench.run_until(lambda: not unbrick_system.records.queued_messages(), 60)
    assert f"delivered {text}" in words(browser.get(f"/terminals/{SERIAL}"))


def test_claim_b3_a_message_waits_while_the_terminal_is_out_of_reach(
    unbrick_system: System,
) -> None:
    unbrick_system.bench.cut_power()
    browser = center_of(unbrick_system).browser("cleo")
    browser.order(f"/terminals/{SERIAL}/messages", text="Call us.")
    assert "queued Call us." in words(browser.get(f"/terminals/{SERIAL}"))
    unbrick_system.power_on()
    unbrick_system.console.expect("message: Call us.")


def test_claim_b4_a_call_at_the_center_upgrades_the_terminal(unbrick_system: System) -> None:
    with center_of(unbrick_system).browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        browser.order("/calls/1/key", key="1")
        browser.order("/calls/1/hang-up")
        (update,) = unbrick_system.records.updates(SERIAL)
        assert unbrick_system.wait_update(update.id).state.value == "succeeded"
        unbrick_system.console.expect("update: 1.1.0 confirmed")
        page = words(browser.get(f"/terminals/{SERIAL}"))
        assert "up to date" in page
        assert "upgrade started" in page
        page = words(browser.order(f"/terminals/{SERIAL}/calls"))
        assert "Your terminal runs 1.1.0, there is nothing newer for it" in page


def test_claim_b3_the_user_is_told_of_an_upgrade_without_anybody_sending_it(
    unbrick_system: System,
) -> None:
    world = center_of(unbrick_system)
    notifier = Notifier(world.center.desk, world.center.menu, lambda *_: None)
    asyncio.run(notifier.look())
    unbrick_system.console.expect("message: Version 1.1.0 of your terminal's software is ready.")
