"""The customer center with a fleet: what it reads does not grow with it, and nobody is left out."""

from __future__ import annotations

import asyncio
import html
import random
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from center_world import World, go_on, roll_out, words
from record_stores import Open, count_rows, list_statements
from server_world import inspect, make_image

from unbrick.center.desk import MOST_ASKED
from unbrick.center.offer import find_situation
from unbrick.center.page.terminal_list import KINDS, classify_status, describe_status
from unbrick.server.database import SqlRecords
from unbrick.server.records.contract import Records
from unbrick.server.records.sessions import CommandedSession, SessionState
from unbrick.server.records.updates import Terminal, UpdateState
from unbrick.wire.messages import TerminalState

OLD, NEW, OTHER = (make_image(f"1.{number}.0+0") for number in range(3))


def make_world(records: Records) -> World:
    """Three releases are published."""
    world = World(records)
    for image in (OLD, NEW, OTHER):
        world.publish(image)
    return world


def add_terminal(world: World, serial: str, image: bytes = OLD, **changes: Any) -> None:
    info = inspect(image)
    world.register(serial, version=info.version, digest=info.digest, **changes)


def order(world: World, serial: str, version: str, state: UpdateState) -> int:
    update = world.core.start_update(serial, version, world.now, downgrade=True)
    world.records.save_update(replace(update, state=state))
    return update.id


def give_back(world: World, serial: str, update: int) -> None:
    """The terminal's user does not have the data yet, whether the update is over or not."""
    times = {"created": world.now, "changed": world.now}
    digests = inspect(OLD).digest, inspect(NEW).digest
    session = CommandedSession(
        *(0, update, serial, *digests, SessionState.RUNNING), text="", **times
    )
    world.records.add_session(session, [])


def scatter(world: World, chance: random.Random, count: int) -> None:
    """Terminals in any state."""
    states = [*UpdateState]
    for number in range(count):
        serial = f"T-{number:03}"
        running = chance.choice([OLD, NEW, OTHER])
        state = chance.choice([TerminalState.APPLICATION] * 5 + [TerminalState.RESTORATION])
        add_terminal(world, serial, running, state=state)
        if chance.random() < 0.6:
            version = chance.choice(["1.1.0", "1.2.0"] if running is OLD else ["1.0.0"])
            update = order(world, serial, version, chance.choice(states))
            if chance.random() < 0.5:
                give_back(world, serial, update)


def list_all(world: World, **query: str) -> list[str]:
    """The serials of all pages."""
    browser = world.browser("cleo")
    page, seen = browser.http.get("/", params=query).text, list[str]()
    told = re.search(r"(\d+) terminal", words(page))
    assert told, words(page)
    while True:
        seen += re.findall('href="/terminals/([^"]+)"', page)
        following = re.search('href="([^"]+)" rel="next"', page)
        if following is None:
            assert int(told[1]) == len(seen)
            return seen
        page = browser.get(html.unescape(following.group(1)))


@pytest.mark.slow
def test_each_terminal_is_listed_once_whatever_goes_on(
    open_records: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbrick.center.page.terminal_list.MOST_TERMINALS", 7)
    with open_records() as records:
        world = make_world(records)
        scatter(world, random.Random(17), 60)

        def find(terminal: Terminal) -> tuple[str, str]:
            now = find_situation(records, terminal.serial)
            return classify_status(terminal, now), describe_status(terminal, now)

        known = {terminal.serial: (terminal, *find(terminal)) for terminal in records.terminals()}
        assert {kind for _, kind, _ in known.values()} == set(KINDS)
        assert any("user's data back" in text for *_, text in known.values())
        everybody = list_all(world)
        assert sorted(everybody) == sorted(known)
        kinds = [list(KINDS).index(known[serial][1]) for serial in everybody]
        assert kinds == sorted(kinds), "what needs somebody comes first"
        for kind in KINDS:
            found = list_all(world, kind=kind)
            assert sorted(found) == [s for s, (_, k, _) in known.items() if k == kind], kind
        for search in ("1.1.0", "T-01", "updated", "back", "restored with 1.0", "nothing"):
            found = list_all(world, q=search)
            assert sorted(found) == [
                serial
                for serial, (terminal, _, text) in known.items()
                if search in serial or search in terminal.version or search in text
            ], search


@pytest.mark.slow
@pytest.mark.parametrize("query", ["/", "/?kind=busy", "/?q=T-0001", "/?version=1.0.0%2B0"])
def test_a_page_reads_as_much_of_many_updates_as_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr("unbrick.center.page.terminal_list.MOST_TERMINALS", 5)
    read = []
    for count in (30, 120):
        with closing(SqlRecords(str(tmp_path / f"{count}.db"))) as records:
            world = make_world(records)
            for number in range(count):
                add_terminal(world, f"T-{number:04}")
            for number in range(0, count, 2):
                order(world, f"T-{number:04}", "1.1.0", UpdateState.ANNOUNCED)
            browser = world.browser("cleo")
            with count_rows() as rows:
                page = browser.get(query)
            assert "T-0001" in page or "T-0000" in page
            with count_rows() as of_watching:
                world.center.views.fingerprint("terminals")
                world.center.views.fingerprint("terminal:T-0000")
            read.append((sum(rows), sum(of_watching)))
    assert read[0] == read[1]


def test_the_server_is_asked_about_so_many_transfers_and_those_that_are_looked_at() -> None:
    world = make_world(World().records)
    updates = []
    for number in range(MOST_ASKED + 10):
        add_terminal(world, f"T-{number:04}")
        updates.append(order(world, f"T-{number:04}", "1.1.0", UpdateState.TRANSFERRING))
    asked: list[int] = []
    world.server.update = lambda number: (asked.append(number), {"sent": 7})[1]  # type: ignore[method-assign]
    desk = world.center.desk
    asyncio.run(desk.refresh(["T-0003", f"T-{MOST_ASKED + 5:04}"]))
    assert sorted(asked) == [*updates[:MOST_ASKED], updates[MOST_ASKED + 5]]
    assert desk.sent(updates[MOST_ASKED + 5]) == 7
    assert desk.sent_in_all == 7 * len(asked)
    page = world.browser("cleo").get("/?q=T-00")
    of_bytes = f"% of {len(NEW):,} bytes"
    assert page.count(of_bytes) == 50
    unknown = world.browser("cleo").get(f"/terminals/T-{MOST_ASKED + 1:04}")
    assert of_bytes not in unknown, "nobody has said how far it is"


def test_the_terminals_of_a_rollout_that_is_over_are_not_counted_again(tmp_path: Path) -> None:
    with closing(SqlRecords(str(tmp_path / "records.db"))) as records:
        world = World(records)
        for _ in range(3):
            world.server.rollouts.abandon(roll_out(world, 3), "ada", world.now)
        going = roll_out(world, 3)
        go_on(world)
        shown = world.center.views.rollouts()
        assert [view.rollout.settled for view in shown] == [False, True, True, True]
        with list_statements() as said:
            assert world.center.views.rollouts() == shown
        assert said.count("SELECT") == 2, "the rollouts, and the terminals of the one that goes on"
        before = world.center.views.fingerprint("rollouts")
        world.server.rollouts.abandon(going, "ada", world.now)
        assert world.center.views.fingerprint("rollouts") != before


def test_what_is_looked_at_is_asked_about() -> None:
    world = make_world(World().records)
    add_terminal(world, "T-1")
    hub = world.center.hub
    with hub.listen("terminal:T-1"), hub.listen("call:77"), hub.listen("call:x"):
        assert world.center._looked_at() == ["T-1"]
