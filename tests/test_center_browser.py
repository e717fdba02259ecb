"""The customer center's page in a real browser: live, by keyboard, on a phone, light and dark."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from browsers import FindBarriers
from center_world import PASSWORD, SERIAL, World, begin_session, carry_out, go_on, roll_out
from patience import PATIENCE_S
from server_world import inspect, make_image, post

from unbrick.server.records.people import Actor
from unbrick.server.records.sessions import Backup
from unbrick.server.records.updates import MessageState, UpdateState
from unbrick.wire.calls import CallRequest, Key
from unbrick.wire.messages import TerminalState

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}

# Each text against what is behind it, after WCAG 2.2: what is below 4.5 (3 for large text).
FAINT = """() => {
  const parse = (c) => [...c.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const light = ([r, g, b]) => {
    const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c[3] === 1) return c;
    }
    return [255, 255, 255, 1];
  };
  const faint = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(".hidden, .skip, noscript")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${e.outerHTML}: ${ratio}`);
  }
  return faint;
}"""

# Whatever somebody can use on a page, with a number each.
NUMBER = """() => {
  const use = "a[href], button, input:not([type=hidden]), select, textarea, summary, .commands";
  const all = [...document.querySelectorAll(use)];
  const usable = all.filter((e) => e.checkVisibility() && !e.disabled);
  usable.forEach((e, number) => { e.dataset.number = number; });
  document.activeElement.blur();
  return usable.length;
}"""
# Of that which has the focus, if that can be seen.
FOCUSED = """() => {
  const seen = getComputedStyle(document.activeElement).outlineStyle === "solid";
  return seen && document.activeElement.dataset.number;
}"""

KEEP_STREAM = """
  window.streams = [];
  window.EventSource = class extends EventSource {
    constructor(address) { super(address); streams.push(this); }
  };
"""


def find_unreachable(page: Page) -> list[str]:
    """What can be used on a page, but not be reached with the Tab key, or not be seen to be."""
    for _ in range(3):  # The page may change meanwhile, and its parts are new ones then.
        left = {str(number) for number in range(page.evaluate(NUMBER))}
        # A field for a time has several parts, which are reached one after the other.
        for _ in range(2 * len(left) + 20):
            page.keyboard.press("Tab")
            left.discard(page.evaluate(FOCUSED))
            if not left:
                return []
    return [page.locator(f"[data-number='{number}']").inner_text() for number in left]


def _complaint(said: ConsoleMessage) -> bool:
    """Whether it is more than that a request was refused, which browsers tell as an error, too."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")


class Site:
    """A center that is served on a port."""

    def __init__(self) -> None:
        self.world = World()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self.world.app, log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    async def _run(self) -> None:
        task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(0.01)
        self._ready.set()
        await task

    def close(self) -> None:
        self.world.center.hub.close()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    made.world.register()
    made.world.publish(make_image("1.1.0+0", size=600_000))
    made.world.subscribe()
    yield made
    made.close()


@pytest.fixture
def sit_down(chromium: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Somebody signs in, in a window of their own; errors of the page fail the test."""
    errors: list[str] = []
    contexts = []

    def sit(name: str = "cleo", size: str = "desktop", **options: Any) -> Page:
        width, height = SIZES[size]
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE_S)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: _complaint(said) and errors.append(said.text))
        page.goto(site.url)
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Terminals").wait_for()
        return page

    yield sit
    for context in contexts:
        context.close()
    assert errors == []


@pytest.mark.slow
def test_claim_b4_a_call_played_by_keyboard(sit_down: Callable[..., Page], site: Site) -> None:
    page = sit_down()
    page.get_by_role("link", name=SERIAL).press("Enter")
    page.get_by_role("button", name="Begin a call").press("Enter")
    said = page.get_by_role("log")
    said.get_by_text("Version 1.1.0 is ready").wait_for()
    page.wait_for_load_state()
    page.keyboard.press("5")
    said.get_by_text("5 is not one of the choices.").wait_for()
    page.get_by_role("button", name="1 upgrade").focus()
    page.keyboard.press("1")
    said.get_by_text("begins when this call has ended").wait_for()
    focused = page.evaluate("document.activeElement.value")
    assert focused == "1", "the focus stays on the key although the page has changed"
    page.get_by_role("button", name="Hang up").press("Enter")
    page.get_by_text("The call is over").wait_for()
    assert [call.outcome for call in site.world.records.calls()] == ["upgrade started"]


@pytest.mark.slow
def test_an_update_is_followed_live_with_its_steps_and_the_nor(
    sit_down: Callable[..., Page], site: Site
) -> None:
    page = sit_down("enno")
    page.goto(f"{site.url}/terminals/{SERIAL}")
    page.get_by_label("Version").select_option("1.1.0+0")
    page.get_by_role("button", name="Start").click()
    page.get_by_text("The update is ordered.").wait_for()
    records = site.world.records
    (update,) = records.updates(SERIAL)
    page.evaluate("window.mine = 'the same page'")
    records.save_update(replace(update, state=UpdateState.TRANSFERRING))
    site.world.core._files._sent[update.id] = 300_000
    page.get_by_text("50 % of 600,000 bytes").wait_for()
    assert page.locator(".nor .due").count() == 3
    records.save_update(replace(update, state=UpdateState.REWRITING))
    page.locator("li[aria-current=step]", has_text="being rewritten").wait_for()
    assert page.locator(".nor .rewriting").count() == 3
    records.save_update(replace(update, state=UpdateState.SUCCEEDED))
    page.locator(".nor .done").nth(2).wait_for()
    assert page.evaluate("window.mine") == "the same page", "it was never loaded anew"


@pytest.mark.slow
def test_a_commanded_update_is_followed_live(sit_down: Callable[..., Page], site: Site) -> None:
    records = site.world.records
    page = sit_down("enno")
    page.goto(f"{site.url}/terminals/{SERIAL}")
    page.evaluate("window.mine = 'the same page'")
    steps = begin_session(site.world)
    current = page.locator(".stages li[aria-current=step]")
    current.get_by_text("backed up").wait_for()
    session_id = steps[0].session_id
    actor = Actor("server", site.world.now)
    sealed = Backup(0, session_id, SERIAL, 77, b"c" * 32, site.world.now)
    kept = records.add_backup(sealed, b"s" * 77, actor)
    page.get_by_text("77 bytes, which only the terminal can read").wait_for()
    carry_out(site.world, steps, 2, 2)
    page.locator(".nor .erasing").wait_for()
    carry_out(site.world, steps, 4, 4)
    page.locator(".nor .writing", has_text="being written").wait_for()
    assert page.locator(".nor .writing rect").get_attribute("width") == "25"
    page.get_by_text("4 of 13 steps, now: write 0x100380, 896 bytes").wait_for()
    commands = page.get_by_role("list", name="Commands")
    assert commands.locator("[aria-current=step]").inner_text().startswith("write 0x100000")
    commands.focus()
    carry_out(site.world, steps, 11, 11)
    current.get_by_text("given back").wait_for()
    assert page.locator(".nor .done").count() == 2
    records.delete_backup(kept.id, actor)
    page.get_by_text("on the terminal alone").wait_for()
    assert page.evaluate("window.mine") == "the same page", "it was never loaded anew"


@pytest.mark.slow
def test_a_terminal_is_given_up_by_keyboard(sit_down: Callable[..., Page], site: Site) -> None:
    world = site.world
    base = make_image("1.0.0+0")
    world.publish(base)
    world.register(digest=inspect(base).digest)
    world.core.start_update(SERIAL, "1.1.0", world.now, commanded=True)
    steps = world.records.steps(world.records.sessions(SERIAL)[-1].id)
    page = sit_down("enno")
    page.goto(f"{site.url}/terminals/{SERIAL}")
    page.get_by_role("button", name="Cancel the update").wait_for()
    given_up = page.get_by_role("region", name="If it does not come back")
    assert not given_up.is_visible()
    carry_out(world, steps, 4, 4)
    given_up.wait_for()
    assert page.get_by_role("button", name="Cancel the update").count() == 0
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    carry_out(world, steps, 5, 5)
    page.get_by_text(f"5 of {len(steps)} steps").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "do-abandon", "it has stayed open"
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("The update is abandoned.").wait_for()
    given_up.wait_for(state="hidden")
    page.get_by_text("given up by a person").first.wait_for()
    assert world.records.unfinished_sessions() == []


@pytest.mark.slow
def test_a_rollout_is_ruled_by_keyboard_and_watched_live(
    sit_down: Callable[..., Page], site: Site
) -> None:
    world = site.world
    number = roll_out(world, 40, percents=(50, 100), error=20)
    page = sit_down("enno")
    page.get_by_role("link", name="Rollouts").press("Enter")
    page.get_by_role("link", name="Release 1").press("Enter")
    page.get_by_role("button", name="Approve").press("Enter")
    page.get_by_role("button", name="Pause").wait_for()
    page.evaluate("window.mine = 'the same page'")
    assert world.records.rollouts.history(number)[-1].actor == "enno"
    go_on(world, succeeded=10, failed=1)
    page.get_by_text("10 succeeded, 1 failed, 9 ordered").wait_for()
    bar = page.get_by_role("img", name="10 succeeded, 1 failed, 9 ordered")
    assert bar.locator(".good").get_attribute("width") == "50.0"
    page.get_by_role("region", name="Where it failed").get_by_text("did not start").wait_for()
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Resume").wait_for()
    go_on(world)
    page.get_by_text("10 succeeded, 1 failed, 9 waiting").wait_for()
    page.get_by_role("button", name="Resume").press("Enter")
    page.get_by_role("button", name="Pause").wait_for()
    go_on(world, succeeded=9)
    page.get_by_text("20 ordered").wait_for()
    go_on(world, failed=5)
    page.get_by_text("5 of 20 failed, more than 20 %").first.wait_for()
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "do-abandon"
    page.keyboard.press("Enter")
    page.get_by_text("abandoned", exact=True).first.wait_for()
    page.get_by_role("region", name="What to do").wait_for(state="hidden")
    assert page.evaluate("window.mine") == "the same page", "it was never loaded anew"


@pytest.mark.slow
def test_a_rollout_is_made_by_keyboard(sit_down: Callable[..., Page], site: Site) -> None:
    site.world.register("T-0002")
    page = sit_down("enno")
    page.get_by_role("link", name="Rollouts").press("Enter")
    page.get_by_role("link", name="New rollout").press("Enter")
    page.get_by_label("Name").fill("May")
    page.get_by_label("Serials").fill("T-*")
    page.get_by_role("textbox", name="Groups").fill("50%, 100%")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="May").wait_for()
    page.get_by_text("for approval").first.wait_for()
    (made,) = site.world.records.rollouts.all()
    assert (made.created_by, made.serials, made.groups) == ("enno", "T-*", "50,100")


@pytest.mark.slow
def test_a_call_of_a_terminal_is_watched(sit_down: Callable[..., Page], site: Site) -> None:
    page = sit_down()
    world = site.world
    world.core.lines.center_is_there(world.now)
    world.core.handle("127.0.0.1:4000", post("call", CallRequest(SERIAL, 1).encode()), world.now)
    page.get_by_role("link", name="call in progress").click()
    page.get_by_role("log").get_by_text("Version 1.1.0 is ready").wait_for()
    page.get_by_text("user makes this call").wait_for()
    assert page.get_by_role("button", name="Hang up").count() == 0
    world.core.handle("127.0.0.1:4000", post("key", Key(SERIAL, 1, 0, "1").encode()), world.now)
    page.get_by_role("log").get_by_text("begins when this call has ended").wait_for()
    assert len(world.records.updates(SERIAL)) == 1


@pytest.mark.slow
def test_a_message_is_seen_to_be_delivered_and_what_is_being_typed_stays(
    sit_down: Callable[..., Page], site: Site
) -> None:
    page = sit_down()
    page.goto(f"{site.url}/terminals/{SERIAL}")
    text = page.get_by_label("at most 160 bytes")
    text.fill("Please call us.")
    page.get_by_role("button", name="Send").click()
    messages = page.get_by_role("region", name="Messages")
    messages.get_by_text("queued").wait_for()
    text.fill("Another, half wri")
    (message,) = site.world.records.messages(SERIAL)
    site.world.records.save_message(replace(message, state=MessageState.DELIVERED))
    messages.get_by_text("delivered").wait_for()
    assert text.input_value() == "Another, half wri"
    text.fill("ä" * 100)
    page.get_by_role("button", name="Send").click()
    page.get_by_role("status").get_by_text("160").wait_for()


@pytest.mark.slow
def test_what_was_said_stays_when_the_event_stream_opens(
    sit_down: Callable[..., Page], site: Site
) -> None:
    page = sit_down("enno")
    page.add_init_script(KEEP_STREAM)
    page.goto(f"{site.url}/terminals/{SERIAL}")
    page.get_by_label("Version").select_option("1.1.0+0")
    page.get_by_role("button", name="Start").click()
    status = page.get_by_role("status")
    status.get_by_text("The update is ordered.").wait_for()
    page.evaluate("streams[0].dispatchEvent(new Event('open'))")
    assert status.text_content() == "The update is ordered."
    page.evaluate("streams[0].dispatchEvent(new Event('error'))")
    assert status.text_content() == "The connection is lost. What is shown may be old."
    page.evaluate("streams[0].dispatchEvent(new Event('open'))")
    assert status.text_content() == ""


@pytest.mark.slow
def test_it_works_without_javascript(sit_down: Callable[..., Page], site: Site) -> None:
    page = sit_down(java_script_enabled=False)
    page.get_by_role("link", name=SERIAL).click()
    page.get_by_role("button", name="Begin a call").click()
    page.get_by_role("button", name="1 upgrade").click()
    page.get_by_text("begins when this call has ended").wait_for()
    page.get_by_role("button", name="Hang up").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    assert len(site.world.records.updates(SERIAL)) == 1


@pytest.mark.slow
def test_a_page_that_is_left_open_says_when_the_session_or_the_center_is_gone(
    sit_down: Callable[..., Page], site: Site
) -> None:
    page = sit_down()
    site.world.accounts.remove_operator("cleo")
    site.world.register("T-0002")
    page.get_by_role("heading", name="Sign in").wait_for()
    page = sit_down("enno")
    site.close()
    page.get_by_role("status").get_by_text("What is shown may be old").wait_for()
    page.close()


def _fill(world: World) -> None:
    """Something of everything that pages show."""
    world.register("T-0002", state=TerminalState.RESTORATION, hardware_id="other")
    digest = world.records.images()[0].digest
    world.register("T-0003", version="1.1.0+0", digest=digest)
    for number, state in enumerate((UpdateState.REWRITING, UpdateState.FAILED), 4):
        world.register(f"T-000{number}")
        update = world.core.start_update(f"T-000{number}", "1.1.0", world.now)
        world.records.save_update(replace(update, state=state))
    carry_out(world, begin_session(world, "T-0006"), 5, 5)
    world.core.send_text(SERIAL, "Version 1.1.0 is ready. Call us.", world.now)
    _fill_rollouts(world)


def _fill_rollouts(world: World) -> None:
    """Rollouts in every state."""
    rollouts = world.server.rollouts
    finished = roll_out(world, 8)
    rollouts.approve(finished, "bob", world.now)
    for _ in range(3):
        go_on(world, succeeded=8)
    stopped = roll_out(world, 60, name="A release with a name that is rather long, for phones")
    rollouts.approve(stopped, "bob", world.now)
    go_on(world, succeeded=3)
    go_on(world, succeeded=9, failed=2)
    given_up, scheduled, _for_approval, running = (roll_out(world, 40) for _ in range(4))
    rollouts.abandon(given_up, "enno", world.now)
    rollouts.approve(scheduled, "bob", world.now)
    rollouts.pause(scheduled, "bob", world.now)
    rollouts.approve(running, "bob", world.now)
    go_on(world, succeeded=2)
    go_on(world, succeeded=5)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_readable_named_and_as_wide_as_the_window(
    sit_down: Callable[..., Page],
    site: Site,
    find_barriers: FindBarriers,
    size: str,
    scheme: str,
    tmp_path: Path,
) -> None:
    _fill(site.world)
    page = sit_down("cleo", size, color_scheme=scheme, reduced_motion="reduce")
    seen = []

    def look(name: str) -> None:
        page.screenshot(path=tmp_path / f"{name}-{size}-{scheme}.png", full_page=True)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= SIZES[size][0], f"{name} must be scrolled sideways"
        assert page.evaluate(FAINT) == [], name
        assert find_barriers(page) == [], name
        assert page.locator("h1").count() == 1, name
        assert find_unreachable(page) == [], name
        seen.append(name)

    look("terminals")
    page.goto(f"{site.url}/?q=nobody")
    look("nothing found")
    for serial in (SERIAL, "T-0003", "T-0004", "T-0005", "T-0006"):
        page.goto(f"{site.url}/terminals/{serial}")
        look(serial)
    page.goto(f"{site.url}/terminals/{SERIAL}")
    page.get_by_role("button", name="Begin a call").click()
    page.get_by_role("log").get_by_text("Welcome").wait_for()
    page.wait_for_load_state()
    page.keyboard.press("5")
    page.get_by_text("is not one of the choices").wait_for()
    look("call")
    page.get_by_role("button", name="Hang up").click()
    page.get_by_text("The call is over").wait_for()
    look("call that is over")
    for address, name in (("calls", "calls"), ("nothing", "error")):
        errors = page.goto(f"{site.url}/{address}")
        assert errors
        look(name)
    page = sit_down("enno", size, color_scheme=scheme)
    for serial in (SERIAL, "T-0006"):
        page.goto(f"{site.url}/terminals/{serial}")
        look(f"{serial} of an engineer")
    page.locator("summary").click()
    look("update to abandon")
    for address in ("rollouts", "rollouts/new", "rollouts/2", "rollouts/5", "rollouts/6"):
        page.goto(f"{site.url}/{address}")
        look(address.replace("/", " "))
    page.locator("summary").click()
    look("rollout to abandon")
    page = sit_down("aude", size, color_scheme=scheme)
    page.goto(f"{site.url}/log")
    look("log")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Name").fill("aude")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    look("sign in")
    assert len(seen) == len(list(tmp_path.glob("*.png")))


@pytest.mark.slow
def test_the_focus_stays_where_a_page_changes(sit_down: Callable[..., Page], site: Site) -> None:
    site.world.register("T-0002")
    page = sit_down()
    page.get_by_role("link", name="T-0002").focus()
    site.world.register("T-0000")
    page.get_by_role("link", name="T-0000").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "T-0002"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == SERIAL
    steps = begin_session(site.world)
    page.goto(f"{site.url}/terminals/{SERIAL}")
    commands = page.get_by_role("list", name="Commands")
    commands.focus()
    carry_out(site.world, steps, 2, 2)
    commands.get_by_text("back up: done").wait_for()
    assert page.evaluate("document.activeElement.className") == "commands"


@pytest.mark.slow
def test_the_first_key_leads_past_the_navigation(sit_down: Callable[..., Page]) -> None:
    page = sit_down()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the contents"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "q"
    # The focus can be seen.
    page.wait_for_function("getComputedStyle(document.activeElement).outlineStyle === 'solid'")
