"""One rule for orders: what a person may order, and what is said of it (docs/orders.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from server_world import SERIAL, inspect, make_image, open_http, post, registration

from unbrick.center.calls.machine import Need
from unbrick.center.calls.menu import read_menu
from unbrick.center.calls.notify import list_invitations
from unbrick.center.offer import find_situation
from unbrick.cli.main import cli
from unbrick.server.core.analysis import AtOnce
from unbrick.server.core.core import ServerCore
from unbrick.server.edge.client import ServerClient
from unbrick.server.errors import ConflictError, DowngradeError, NotCommandedError
from unbrick.server.judgment import judge
from unbrick.server.records.analysis import Verdict
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import Update, UpdateState
from unbrick.wire.messages import Result, TerminalState

WAYS = [False, True]
VERSIONS = ("1.2.0+0", "1.8.0+0", "1.9.0+0", "1.9.0+1", "1.10.0+0", "1.11.0+0")


def image_of(version: str) -> bytes:
    return make_image(version, counter=2)


class World:
    """A server with releases; a terminal that has registered with one of them, or has not."""

    def __init__(self, runs: str | None = "1.10.0+0", **changes: Any) -> None:
        self.records = MemoryRecords()
        self.core = ServerCore(self.records, inspect, AtOnce(self.records, foresees=True))
        self.now = 0.0
        for version in VERSIONS:
            self.core.publish(image_of(version), self.now)
        if runs is not None:
            self.register(runs, **changes)

    def register(self, runs: str, **changes: Any) -> None:
        self.now += 1
        digest = inspect(image_of(runs)).digest
        said = registration(version=runs, digest=digest, security_counter=2, **changes)
        self.core.handle("a", post("register", said.encode()), self.now)

    def order(self, version: str, **how: bool) -> Update:
        self.now += 1
        return self.core.start_update(SERIAL, version, self.now, **how)

    def refused(self, version: str, **how: bool) -> ConflictError:
        before = self.records.updates()
        with pytest.raises(ConflictError) as caught:
            self.order(version, **how)
        assert self.records.updates() == before
        assert caught.value.hint
        return caught.value

    def put(self, update: Update, **changes: Any) -> None:
        self.records.save_update(replace(update, **changes))


@pytest.mark.parametrize("commanded", WAYS)
@pytest.mark.parametrize("second", ["1.11.0", "1.9.0", "1.10.0"])
def test_a_terminal_has_one_update_at_a_time_whatever_is_ordered(
    second: str, commanded: bool
) -> None:
    """The same version, a newer one, an older one, and what still runs: one answer."""
    for first in ("1.11.0", "1.9.0"):
        world = World()
        update = world.order(first, downgrade=True, commanded=commanded)
        error = world.refused(second, commanded=commanded, downgrade=True)
        assert f"update {update.id} of {SERIAL} to {update.version} is still pending" in str(error)
        assert "one update at a time" in str(error)
        same = second == first
        assert (f"`unbrick update show {update.id}` follows it" in error.hint) is same
        assert (f"`unbrick update cancel {update.id}`, then order again" in error.hint) is not same


def test_what_cannot_be_cancelled_any_more_is_said() -> None:
    world = World()
    world.put(world.order("1.11.0"), state=UpdateState.REWRITING)
    error = world.refused("1.9.0", downgrade=True)
    assert "is still rewriting" in str(error)
    assert "cannot be cancelled" in error.hint


@pytest.mark.parametrize("commanded", WAYS)
@pytest.mark.parametrize(
    ("runs", "older"),
    [
        ("1.10.0+0", "1.9.0"),
        ("1.10.0+0", "1.2.0"),
        ("1.9.0+1", "1.9.0"),
        ("1.9.0+1", "1.9.0+0"),
        ("1.11.0+0", "1.10.0"),
    ],
)
def test_older_software_is_carried_out_only_if_it_is_meant(
    runs: str, older: str, commanded: bool
) -> None:
    world = World(runs)
    error = world.refused(older, commanded=commanded)
    assert isinstance(error, DowngradeError)
    assert f"is older than {runs}, which {SERIAL} runs" in str(error)
    assert "--downgrade" in error.hint
    update = world.order(older, commanded=commanded, downgrade=True)
    assert update.downgrade
    assert update.text == f"a downgrade from {runs}"
    assert world.records.events(update_id=update.id)[0].text == update.text


@pytest.mark.parametrize(
    ("runs", "other"),
    [("1.9.0+0", "1.10.0"), ("1.9.0+0", "1.9.0+1"), ("1.2.0+0", "1.11.0"), ("1.8.0+0", "1.9.0")],
)
def test_newer_software_needs_no_more_words(runs: str, other: str) -> None:
    update = World(runs).order(other)
    assert (update.text, update.downgrade) == ("", False)


def test_downgrade_says_no_more_than_it_means() -> None:
    """It may be given with any order, and is no force."""
    assert World("1.9.0+0").order("1.10.0", downgrade=True).text == ""
    world = World("1.10.0+0")
    assert "runs 1.10.0+0 already" in str(world.refused("1.10.0", downgrade=True))
    world.core.publish(make_image("1.3.0+0", counter=1), 0.0)
    assert "takes nothing below 2" in str(world.refused("1.3.0", downgrade=True))
    assert "no option overrides that" in world.refused("1.3.0", downgrade=True).hint
    world.core.publish(make_image("1.4.0+0", hardware_id="toaster"), 0.0)
    assert "is for toaster" in str(world.refused("1.4.0", downgrade=True))


def test_the_same_version_of_another_build_is_not_older() -> None:
    world = World(None)
    said = registration(version="1.10.0+0", digest=b"x" * 32, security_counter=2)
    world.core.handle("a", post("register", said.encode()), 1.0)
    assert world.order("1.10.0").text == ""


def test_other_software_is_not_older_whatever_its_number() -> None:
    world = World(None)
    said = registration(name="other", version="9.0.0+0", digest=b"x" * 32, security_counter=2)
    world.core.handle("a", post("register", said.encode()), 1.0)
    assert world.order("1.2.0").text == ""


def test_what_failed_there_is_carried_out_and_said() -> None:
    world = World()
    first = world.order("1.11.0")
    world.put(first, state=UpdateState.FAILED, result=Result.TRIAL_FAILED)
    update = world.order("1.11.0")
    assert update.text == "1.11.0+0 has failed its trial there before"


def test_an_order_for_the_last_counter_says_what_it_ends() -> None:
    world = World()
    world.core.publish(make_image("2.0.0+0", counter=2**32 - 1), 0.0)
    assert "counter is the last one" in world.order("2.0.0").text


@pytest.mark.parametrize("version", ["1.2.0", "1.9.0", "1.10.0", "1.11.0"])
def test_an_order_takes_the_place_of_what_the_server_has_begun_by_itself(version: str) -> None:
    """A terminal in restoration runs nothing: nothing is older, whatever is ordered."""
    world = World()
    world.register("1.10.0+0", state=TerminalState.RESTORATION)
    (own,) = world.records.unfinished_updates()
    assert own.restoration
    update = world.order(version)
    assert f"in place of update {own.id} to {own.version}" in update.text
    assert world.records.unfinished_updates() == [update]
    assert "one update at a time" in str(world.refused("1.11.0", downgrade=True))


def test_a_restoration_that_cannot_be_cancelled_is_waited_for() -> None:
    world = World()
    world.register("1.10.0+0", state=TerminalState.RESTORATION)
    (own,) = world.records.unfinished_updates()
    world.put(own, state=UpdateState.CHECKED)
    for version in ("1.10.0", "1.11.0"):
        assert "one update at a time" in str(world.refused(version))
    with pytest.raises(NotCommandedError):
        World(None).order("1.11.0", commanded=True)


def test_an_order_that_waits_becomes_no_downgrade_without_a_word() -> None:
    """It was ordered before the terminal ever registered, or before it was restored by hand."""
    for meant in (False, True):
        world = World(None)
        update = world.order("1.9.0", downgrade=meant)
        world.register("1.10.0+0")
        sent = world.core.poll(world.now)
        found = world.records.update(update.id)
        assert found is not None
        assert bool(sent) is meant
        if not meant:
            assert found.state is UpdateState.REFUSED
            assert "1.9.0+0 is older than 1.10.0+0, and no downgrade was ordered" in found.text


def downgraded() -> World:
    """A terminal that went from 1.10.0 to 1.9.0 by an order, while 1.11.0 was there."""
    world = World("1.10.0+0")
    update = world.order("1.9.0", downgrade=True)
    world.core.poll(world.now)
    world.register("1.9.0+0", last_update_id=update.id)
    found = world.records.update(update.id)
    assert found is not None
    assert found.state is UpdateState.SUCCEEDED
    return world


def test_after_a_downgrade_that_was_meant_nothing_that_was_there_is_offered() -> None:
    world = downgraded()
    decision = world.records.analysis(SERIAL)
    assert decision is not None
    assert decision.verdict is Verdict.CURRENT
    assert decision.reason == "it runs 1.9.0+0 instead of 1.10.0+0, as update 1 meant"
    now = find_situation(world.records, SERIAL)
    assert now.need is Need.UNNECESSARY
    assert list_invitations(world.records, read_menu()) == []
    nine, others = inspect(image_of("1.9.0+0")).digest, ("1.10.0+0", "1.11.0+0")
    for other in others:
        pair = nine, inspect(image_of(other)).digest
        assert world.records.preparation(*pair) is None, "nothing is prepared for it either"


def test_what_is_published_after_a_downgrade_is_offered_and_so_is_all_after_another_order() -> None:
    world = downgraded()
    world.core.publish(make_image("1.12.0+0"), world.now + 1)
    assert find_situation(world.records, SERIAL).new == "1.12.0+0"
    assert len(list_invitations(world.records, read_menu())) == 1
    world = downgraded()
    update = world.order("1.10.0")
    world.core.poll(world.now)
    world.register("1.10.0+0", last_update_id=update.id)
    assert find_situation(world.records, SERIAL).new == "1.11.0+0"


def test_software_that_came_there_otherwise_is_offered_an_upgrade() -> None:
    world = downgraded()
    world.register("1.8.0+0")
    terminal = world.records.terminal(SERIAL)
    assert terminal is not None
    found = judge(terminal, world.records.images(), world.records.updates(SERIAL))
    assert found.verdict is Verdict.UPGRADE


# ---- The same rule from outside ----


def http_of(world: World) -> Any:
    return open_http(world.core, lambda: world.now)


def test_the_api_says_it() -> None:
    http = http_of(World())
    order = {"serial": SERIAL, "version": "1.9.0"}
    refused = http.post("/api/updates", json=order)
    assert refused.status_code == 409
    assert refused.json()["code"] == "downgrade"
    assert http.post("/api/updates", json={**order, "downgrade": "yes"}).status_code == 400
    assert http.post("/api/updates", json={**order, "downgrade": False}).status_code == 409
    taken = http.post("/api/updates", json={**order, "downgrade": True})
    assert taken.status_code == 201
    assert taken.json()["text"] == "a downgrade from 1.10.0+0"
    again = http.post("/api/updates", json={**order, "downgrade": True})
    assert again.status_code == 409
    assert "one update at a time" in again.json()["error"]


def test_the_command_line_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(
        ServerClient, "_ask", lambda client, *words, **more: ask(client, world, *words, **more)
    )

    def run(*words: str) -> Any:
        command = ["update", "start", SERIAL, "1.9.0", *words]
        return CliRunner().invoke(cli, command, prog_name="unbrick")

    refused = run()
    assert refused.exit_code == 1
    assert "1.9.0+0 is older than 1.10.0+0" in refused.stderr
    assert "--downgrade" in refused.stderr
    taken = run("--downgrade")
    assert taken.exit_code == 0, taken.output
    assert "note: a downgrade from 1.10.0+0" in taken.stderr
    again = run("--downgrade")
    assert again.exit_code == 1
    assert "one update at a time" in again.stderr
    assert "`unbrick update show 1` follows it" in again.stderr


_ASK = ServerClient._ask


def ask(client: ServerClient, world: World, *words: str, **more: Any) -> Any:
    """As the client asks, but of a server in this process."""
    client._http = http_of(world)
    return _ASK(client, *words, **more)
