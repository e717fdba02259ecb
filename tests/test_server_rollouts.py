"""Rollouts: ordinary orders in groups, and what a server that is killed makes of them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from record_stores import STORES, Open, opener
from server_world import OWN_TOKEN, inspect, make_image, open_http, post, registration

from unbrick.center.calls.menu import read_menu
from unbrick.cli.main import cli
from unbrick.errors import ServerError
from unbrick.server.core.core import ServerCore
from unbrick.server.core.rollouts import (
    BUSY_INTERVAL_S,
    INVITATION,
    ORDERS_AT_ONCE,
    RolloutDraft,
    RolloutRunner,
)
from unbrick.server.edge.access import add_token
from unbrick.server.edge.client import ServerClient
from unbrick.server.errors import ConflictError, UnknownError
from unbrick.server.records.access import AccessRole
from unbrick.server.records.calls import CALLER, Call
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import AuditAction
from unbrick.server.records.rollouts import MemberState, Rollout, RolloutState
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import TerminalState

OLD, NEW = make_image("1.0.0+0"), make_image("1.1.0+0")


class World:
    """A server with terminals that run 1.0.0, and 1.1.0 published."""

    def __init__(self, count: int = 20, records: Records | None = None, **options: Any) -> None:
        self.now = 1_700_000_000.0
        self.records = records or MemoryRecords()
        self.told: list[tuple[RolloutState, int]] = []
        self._options = options
        self.start()
        for image in (OLD, NEW):
            self.core.publish(image, self.now)
        for number in range(count):
            self.register(f"T-{number:03}")

    def start(self) -> None:
        """A life of the server begins."""
        self.core = ServerCore(self.records, inspect)
        self.runner = RolloutRunner(self.core, on_change=self._note, **self._options)

    def _note(self, rollout: Rollout) -> None:
        self.told.append((rollout.state, rollout.group))

    def register(self, serial: str, image: bytes = OLD, **changes: Any) -> None:
        info = inspect(image)
        said = registration(serial=serial, version=info.version, digest=info.digest, **changes)
        self.core.handle(f"a:{serial}", post("register", said.encode()), self.now)

    def begin(self, **draft: Any) -> int:
        """A rollout that is approved; gives its number."""
        made = self.runner.create(RolloutDraft("1.1.0", **draft), "ada", self.now)
        self.runner.approve(made.id, "bob", self.now)
        return made.id

    def look(self) -> None:
        """All that is due is done."""
        self.now += 1
        for _ in range(1000):
            if not self.runner.look(self.now):
                return
        raise AssertionError("there is always more to do")

    def rollout(self, number: int = 1) -> Rollout:
        found = self.records.rollouts.get(number)
        assert found is not None
        return found

    def states(self, number: int = 1) -> Counter[str]:
        return Counter(m.state.value for m in self.records.rollouts.members(number))

    def end(self, serial: str, *, well: bool = True, text: str = "it broke") -> None:
        """The update of a terminal ends."""
        (update,) = [u for u in self.records.updates(serial) if not u.state.ended]
        if well:
            self.records.save_update(replace(update, state=UpdateState.ANNOUNCED))
            self.register(serial, NEW)
        else:
            with self.records.transaction():
                self.core._log.change(update, UpdateState.FAILED, text, self.now)

    def open(self) -> list[str]:
        return [update.serial for update in self.records.unfinished_updates()]

    def end_all(self) -> None:
        for serial in self.open():
            self.end(serial)


@pytest.fixture(params=STORES)
def open_records(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return opener(request, tmp_path)


def test_it_goes_through_group_by_group(open_records: Open) -> None:
    with open_records() as records:
        world = World(40, records)
        number = world.begin()
        sizes = []
        for _ in range(3):
            world.look()
            sizes.append(len(world.open()))
            world.end_all()
        world.look()
        assert sizes == [2, 8, 30]
        rollout = world.rollout(number)
        assert (rollout.state, rollout.group, rollout.settled) == (RolloutState.FINISHED, 3, True)
        assert world.states() == {"succeeded": 40}
        assert {t.version for t in records.terminals()} == {"1.1.0+0"}
        assert len(records.updates()) == 40
        assert [
            (e.action.value.partition(" ")[2], e.actor, e.text)
            for e in records.rollouts.history(number)
        ] == [
            ("created", "ada", "1.1.0+0 for 40 terminals"),
            ("approved", "bob", ""),
            ("begun", "server", "group 1 of 3"),
            ("begun", "server", "group 2 of 3"),
            ("begun", "server", "group 3 of 3"),
            ("finished", "server", ""),
        ]
        assert world.told[-1] == (RolloutState.FINISHED, 3)


def test_too_many_failures_stop_it_and_take_back_what_can_be() -> None:
    world = World(40)
    number = world.begin(percents=(50, 100), error=10)
    world.look()
    first, second, third, fourth, *_ = world.open()
    (update,) = world.records.updates(fourth)
    world.records.save_update(replace(update, state=UpdateState.REWRITING))
    for serial in (first, second):
        world.end(serial, well=False)
    world.look()
    assert world.rollout().state is RolloutState.RUNNING, "2 of 20 is not more than 10 %"
    world.end(third, well=False)
    world.look()
    assert world.rollout().state is RolloutState.STOPPED
    assert world.rollout().text == "group 1: 3 of 20 failed, more than 10 %"
    assert world.open() == [fourth], "it rewrites itself, so its order cannot be taken back"
    assert world.states() == {"failed": 3, "ordered": 1, "waiting": 36}
    assert len(world.records.updates()) == 20
    world.end(fourth)
    world.look()
    assert world.states() == {"failed": 3, "succeeded": 1, "waiting": 36}
    world.runner.resume(number, "bob", world.now)
    for _ in range(2):
        world.look()
        world.end_all()
    world.look()
    assert world.rollout().state is RolloutState.FINISHED
    assert world.states() == {"forgiven": 3, "succeeded": 37}


def test_a_group_that_cannot_succeed_any_more_stops_it() -> None:
    world = World(20)
    world.begin(percents=(50, 100), success=100, error=50)
    world.look()
    world.end(world.open()[0], well=False)
    world.look()
    assert world.rollout().state is RolloutState.STOPPED
    assert "100 % cannot succeed any more" in world.rollout().text


def test_the_next_group_need_not_wait_for_the_last_terminal() -> None:
    world = World(20)
    world.begin(percents=(50, 100), success=80)
    world.look()
    for serial in world.open()[:8]:
        world.end(serial)
    world.look()
    assert world.rollout().group == 2
    assert len(world.open()) == 2 + 10


def test_who_made_it_may_not_approve_it_unless_the_server_says_so() -> None:
    world = World()
    made = world.runner.create(RolloutDraft("1.1.0"), "ada", world.now)
    world.look()
    assert world.records.updates() == []
    with pytest.raises(ConflictError, match="somebody else has to approve it"):
        world.runner.approve(made.id, "ada", world.now)
    assert world.rollout().state is RolloutState.FOR_APPROVAL
    world.runner.approve(made.id, "bob", world.now)
    with pytest.raises(ConflictError, match="is running, so it cannot be approved"):
        world.runner.approve(made.id, "bob", world.now)
    with pytest.raises(UnknownError):
        world.runner.approve(7, "bob", world.now)
    alone = World(self_approval=True)
    made = alone.runner.create(RolloutDraft("1.1.0"), "ada", alone.now)
    assert alone.runner.approve(made.id, "ada", alone.now).state is RolloutState.RUNNING


def test_it_begins_at_its_time() -> None:
    world = World()
    world.begin(not_before=world.now + 100)
    world.look()
    assert world.rollout().state is RolloutState.SCHEDULED
    assert world.records.updates() == []
    world.now += 100
    world.look()
    assert world.rollout().state is RolloutState.RUNNING
    assert len(world.open()) == 1
    with pytest.raises(ConflictError, match="more than a year"):
        world.begin(not_before=world.now + 400 * 86400)


def test_it_is_paused_and_goes_on_and_orders_nothing_twice() -> None:
    world = World(200)
    number = world.begin(percents=(100,))
    world.look()
    ordered = world.open()
    assert len(ordered) == 200 > 2 * ORDERS_AT_ONCE
    world.end(ordered[0])
    world.runner.pause(number, "ada", world.now)
    world.look()
    assert world.open() == []
    assert world.states() == {"succeeded": 1, "waiting": 199}
    with pytest.raises(ConflictError, match="is paused"):
        world.runner.pause(number, "ada", world.now)
    world.runner.resume(number, "ada", world.now)
    world.look()
    assert sorted(world.open()) == ordered[1:]
    world.end_all()
    world.look()
    assert world.states() == {"succeeded": 200}
    assert world.rollout().settled


def test_it_is_given_up_and_settles_when_the_last_terminal_has() -> None:
    world = World(20)
    number = world.begin(percents=(50, 100))
    world.look()
    busy = world.open()[0]
    (update,) = world.records.updates(busy)
    world.records.save_update(replace(update, state=UpdateState.REWRITING))
    world.runner.abandon(number, "ada", world.now)
    world.look()
    assert world.open() == [busy]
    assert not world.rollout().settled
    world.end(busy)
    world.look()
    assert world.rollout().settled
    assert world.states() == {"succeeded": 1, "waiting": 19}
    with pytest.raises(ConflictError, match="is abandoned"):
        world.runner.resume(number, "ada", world.now)


def test_a_terminal_with_an_update_under_way_has_its_turn_later() -> None:
    world = World(1)
    world.core.publish(make_image("1.0.5+0"), world.now)
    other = world.core.start_update("T-000", "1.0.5", world.now)
    world.begin(percents=(100,))
    world.look()
    (member,) = world.records.rollouts.members(1)
    assert (member.state, member.update_id) == (MemberState.WAITING, None)
    assert "one update at a time" in member.text
    world.core.cancel_update(other.id, world.now)
    world.now += BUSY_INTERVAL_S
    world.look()
    assert world.states() == {"ordered": 1}


def test_what_the_rule_for_orders_is_against_is_skipped() -> None:
    world = World(2)
    world.begin(percents=(100,))
    world.register("T-000", NEW)
    world.look()
    skipped, ordered = world.records.rollouts.members(1)
    assert (skipped.state, ordered.state) == (MemberState.SKIPPED, MemberState.ORDERED)
    assert skipped.text == "T-000 runs 1.1.0+0 already"
    (update,) = world.records.updates("T-001")
    world.core.cancel_update(update.id, world.now)
    world.look()
    assert world.states() == {"skipped": 2}, "a person has cancelled it"
    assert world.rollout().state is RolloutState.FINISHED


def test_a_cancellation_that_comes_too_late_is_seen() -> None:
    world = World(1)
    number = world.begin(percents=(100,))
    world.look()
    world.runner.pause(number, "ada", world.now)
    world.look()
    assert world.states() == {"waiting": 1}
    (update,) = world.records.updates()
    with world.records.transaction():
        text = "the cancellation came too late"
        world.core._log.change(update, UpdateState.REWRITING, text, world.now)
    world.look()
    assert world.states() == {"ordered": 1}
    world.end("T-000")
    world.look()
    assert world.states() == {"succeeded": 1}


def test_only_terminals_that_the_filter_takes_and_that_need_it_are_members() -> None:
    world = World(3)
    world.register("EU-1")
    world.register("EU-2", NEW)
    world.register("EU-3", hardware_id="other")
    world.register("EU-4", name="player")
    world.register("EU-5", security_counter=9)
    world.register("EU-6", make_image("1.2.0+0"))
    world.register("EU-7", state=TerminalState.RESTORATION)

    def members(**draft: Any) -> list[str]:
        made = world.runner.create(RolloutDraft("1.1.0", **draft), "ada", world.now)
        return [member.serial for member in world.records.rollouts.members(made.id)]

    assert members() == ["EU-1", "EU-7", "T-000", "T-001", "T-002"]
    assert members(serials="EU-*") == ["EU-1", "EU-7"]
    assert members(serials="EU-*", software="*") == ["EU-1", "EU-4", "EU-7"]
    assert members(serials="EU-*", downgrade=True) == ["EU-1", "EU-6", "EU-7"]
    assert members(runs="1.0.*", serials="T-00[12]") == ["T-001", "T-002"]
    with pytest.raises(ConflictError, match=r"no terminal that the filter takes needs 1\.1\.0"):
        members(serials="US-*")
    with pytest.raises(UnknownError, match=r"no image 9\.0\.0"):
        world.runner.create(RolloutDraft("9.0.0"), "ada", world.now)
    world.core.publish(make_image("1.1.0+0", hardware_id="other"), world.now)
    with pytest.raises(ConflictError, match="several kinds of hardware"):
        members()
    assert members(hardware_id="other") == ["EU-3"]


@pytest.mark.slow
@pytest.mark.parametrize("death", ["after a look", "in an order", "after an order"])
def test_a_server_that_is_killed_goes_on_and_does_nothing_twice(
    open_records: Open, death: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after every look, or at every second order: within it, or before it is noted."""
    with open_records() as records:
        world = World(10, records)
        number = world.begin(percents=(10, 100))
        turns = itertools.cycle([True, False])

        def die(do: Callable[..., Any]) -> Callable[..., Any]:
            def done(*args: Any) -> Any:
                if next(turns):
                    raise KeyboardInterrupt
                return do(*args)

            return done

        if death == "in an order":
            monkeypatch.setattr(records, "add_update", die(records.add_update))
        if death == "after an order":
            save = records.rollouts.save_member
            monkeypatch.setattr(records.rollouts, "save_member", die(save))
        monkeypatch.setattr("unbrick.server.core.rollouts.ORDERS_AT_ONCE", 1)
        deaths = 0
        for _ in range(200):
            world.now += BUSY_INTERVAL_S
            try:
                more = world.runner.look(world.now)
            except KeyboardInterrupt:
                more = True
                deaths += 1
            if not more:
                if world.rollout(number).settled or not world.open():
                    break
                world.end(world.open()[0])
            world.start()
        assert world.states() == {"succeeded": 10}
        assert len({u.serial for u in records.updates()}) == len(records.updates()) == 10
        actions = [entry.action for entry in records.rollouts.history(number)]
        assert actions.count(AuditAction.ROLLOUT_BEGUN) == 2
        assert (deaths > 0) is (death != "after a look")


# With the consent of terminals' users


def call(world: World, serial: str, version: str = "1.1.0") -> None:
    """A terminal's user calls the center, which orders the release amid the call."""
    going = world.records.add_call(Call(0, serial, CALLER, "1", "", "", world.now, None))
    world.core.start_update(serial, version, world.now)
    world.records.save_call(replace(going, ended=world.now))


def test_a_terminal_is_updated_only_when_its_user_has_called(open_records: Open) -> None:
    with open_records() as records:
        world = World(10, records)
        number = world.begin(consent=True, percents=(20, 100), success=50)
        world.look()
        assert world.states() == {"asked": 2, "waiting": 8}
        told = [message.serial for message in records.messages()]
        assert len(told) == 2
        assert records.updates() == []
        world.start()  # Who is asked is in the records.
        world.look()
        assert len(records.messages()) == 2
        call(world, told[0])
        world.look()
        assert world.open() == [told[0]]
        counts = records.rollouts.group_counts(world.rollout(number))
        assert [(c.asked, c.ordered, c.consented) for c in counts] == [(1, 1, 1), (0, 0, 0)]
        world.end(told[0])
        world.look()  # Half of the group has succeeded.
        assert world.states() == {"succeeded": 1, "asked": 9}
        for message in records.messages()[1:]:
            call(world, message.serial)
        world.end_all()
        world.look()
        assert world.rollout(number).state is RolloutState.FINISHED
        assert world.states() == {"succeeded": 10}
        assert len(records.messages()) == len(records.updates()) == 10
        assert sum(c.consented for c in records.rollouts.group_counts(world.rollout(number))) == 10


def test_who_calls_before_being_asked_is_not_asked() -> None:
    world = World(4)
    number = world.begin(consent=True, percents=(25, 100))
    world.look()
    (first,) = (message.serial for message in world.records.messages())
    others = sorted({f"T-{at:03}" for at in range(4)} - {first})
    call(world, others[0])
    call(world, first)
    world.end_all()
    world.look()
    asked = [message.serial for message in world.records.messages()]
    assert sorted(asked) == sorted({first, *others[1:]})
    assert world.states(number) == {"succeeded": 2, "asked": 2}


def test_an_order_without_a_call_is_no_consent() -> None:
    world = World(1)
    number = world.begin(consent=True, percents=(100,))
    world.look()
    world.core.start_update("T-000", "1.1.0", world.now)
    (count,) = world.records.rollouts.group_counts(world.rollout(number))
    assert (count.ordered, count.consented) == (1, 0)


def test_an_order_for_another_release_is_no_consent_to_this_one() -> None:
    world = World(1)
    number = world.begin(consent=True, percents=(100,))
    world.core.publish(make_image("1.2.0+0"), world.now)
    world.look()
    call(world, "T-000", "1.2.0")
    assert world.states(number) == {"asked": 1}


def test_who_has_consented_is_not_asked_again_after_a_pause() -> None:
    world = World(2)
    number = world.begin(consent=True, percents=(100,))
    world.look()
    call(world, "T-001")
    world.runner.pause(number, "ada", world.now)
    world.look()
    assert world.open() == []
    assert world.states() == {"asked": 1, "waiting": 1}
    world.runner.resume(number, "ada", world.now)
    world.look()
    assert world.open() == ["T-001"]
    assert len(world.records.messages()) == 2


def test_nobody_is_asked_for_what_the_rule_for_orders_is_against() -> None:
    world = World(2)
    number = world.begin(consent=True, percents=(100,))
    world.register("T-000", NEW)
    world.look()
    assert [message.serial for message in world.records.messages()] == ["T-001"]
    assert world.states(number) == {"asked": 1, "skipped": 1}


@pytest.mark.parametrize("death", ["add_message", "save_member"])
def test_a_server_that_is_killed_asks_nobody_twice(
    death: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(10)
    world.begin(consent=True, percents=(100,))
    world.runner.look(world.now)  # The group begins.
    where = world.records if death == "add_message" else world.records.rollouts
    do, turns = getattr(where, death), itertools.cycle([False, False, True])

    def die(*args: Any) -> Any:
        if next(turns):
            raise KeyboardInterrupt
        return do(*args)

    monkeypatch.setattr(where, death, die)
    monkeypatch.setattr("unbrick.server.core.rollouts.ORDERS_AT_ONCE", 1)
    deaths = 0
    for _ in range(100):
        with contextlib.suppress(KeyboardInterrupt):
            if not world.runner.look(world.now):
                break
            continue
        deaths += 1
        world.start()
    assert deaths > 2
    assert world.states() == {"asked": 10}
    assert len({message.serial for message in world.records.messages()}) == 10
    assert len(world.records.messages()) == 10


def test_the_text_is_that_of_the_centers_menu() -> None:
    """So the center, which tells nobody the same twice, does not ask again."""
    assert read_menu().message == INVITATION


# The HTTP API


@pytest.fixture
def http() -> Any:
    world = World(20)
    client = open_http(world.core, lambda: world.now)
    client.world = world
    return client


def test_the_api_makes_and_shows_a_rollout(http: Any) -> None:
    world = http.world
    made = http.post("/api/rollouts", json={"version": "1.1.0", "name": "May", "groups": [10, 100]})
    assert made.status_code == 201
    shown = made.json()
    assert (shown["state"], shown["created_by"], shown["terminals"]) == ("for approval", "own", 20)
    assert [group["terminals"] for group in shown["groups"]] == [2, 18]
    assert http.post("/api/rollouts/1/approve", json={}).status_code == 409
    token = add_token(world.records.tokens, "bob", AccessRole.OPERATOR, world.now)
    bob = open_http(world.core, lambda: world.now, token=token)
    assert bob.post("/api/rollouts/1/approve", json={"by": "eve"}).status_code == 403
    assert bob.post("/api/rollouts/1/approve", json={}).json()["approved_by"] == "bob"
    world.look()
    world.end(world.open()[0], well=False)
    world.look()
    shown = http.get("/api/rollouts/1").json()
    assert shown["state"] == "stopped"
    assert [failure["text"] for failure in shown["failures"]] == ["it broke"]
    assert [deed["what"] for deed in shown["history"]][-1] == "stopped"
    assert len(http.get("/api/rollouts/1/members").json()) == 20
    assert http.get("/api/rollouts").json()[0]["text"] == shown["text"]
    assert http.get("/api/rollouts/2").status_code == 404
    resumed = http.post("/api/rollouts/1/resume", json={"by": "enno"})
    assert resumed.json()["state"] == "running"
    assert http.get("/api/rollouts/1").json()["history"][-1]["who"] == "enno"
    metrics = http.get("/metrics").text
    assert 'unbrick_rollouts{state="running"} 1.0' in metrics
    assert 'unbrick_rollout_terminals{state="forgiven"} 1.0' in metrics


def test_the_terminals_of_a_rollout_are_listed_some_at_a_time(
    http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # The members of one are none of another.
        http.post("/api/rollouts", json={"version": "1.1.0"})
    names = [f"T-{number:03}" for number in range(20)]

    def listed(query: str) -> list[str]:
        return [item["serial"] for item in http.get(f"/api/rollouts/2/members{query}").json()]

    assert listed("") == names
    assert listed("?first=2") == names[:2]
    assert listed("?after=T-001&first=2") == names[2:4]
    assert listed("?after=T-0015") == names[2:], "no terminal need have that serial"
    assert listed("?after=T-019") == []
    assert http.get("/api/rollouts/2/members?first=1001").status_code == 400
    assert http.get("/api/rollouts/2/members?after=%00").status_code == 409
    assert http.get("/api/rollouts/3/members?first=1").status_code == 404
    client = ServerClient("http://testserver", http._transport, OWN_TOKEN)
    for at_once in (1, 3, 20, 21):
        for module in ("client", "http"):
            monkeypatch.setattr(f"unbrick.server.edge.{module}.MOST_LISTED", at_once)
        assert len(listed("")) == min(at_once, 20)
        assert [item["serial"] for item in client.rollout_members(2)] == names


def test_rollouts_are_listed_some_at_a_time(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        http.post("/api/rollouts", json={"version": "1.1.0"})

    def listed(query: str) -> list[int]:
        return [item["id"] for item in http.get(f"/api/rollouts{query}").json()]

    assert listed("") == [1, 2, 3, 4]
    assert listed("?after=1&first=2") == [2, 3]
    assert listed("?after=4") == []
    assert http.get("/api/rollouts?after=x").status_code == 400
    client = ServerClient("http://testserver", http._transport, OWN_TOKEN)
    for at_once in (1, 4, 5):
        for module in ("client", "http"):
            monkeypatch.setattr(f"unbrick.server.edge.{module}.MOST_LISTED", at_once)
        assert [item["id"] for item in client.rollouts()] == [1, 2, 3, 4]


def test_members_are_read_some_at_a_time(open_records: Open) -> None:
    with open_records() as records:
        world = World(6, records)
        for _ in range(2):
            world.runner.create(RolloutDraft("1.1.0"), "ada", world.now)

        def read(**what: Any) -> list[tuple[int, str]]:
            found = records.rollouts.members(1, **what)
            return [(member.rollout_id, member.serial) for member in found]

        assert read(after="", first=2) == [(1, "T-000"), (1, "T-001")]
        assert read(after="T-001", first=3) == [(1, "T-002"), (1, "T-003"), (1, "T-004")]
        assert read(after="T-004", first=3) == [(1, "T-005")]
        assert read(after="T-005") == []
        assert read(after="T-003", states=(MemberState.FAILED,)) == []
        with records.transaction():
            assert len(read()) == 6
            assert read(after="T-003") == [(1, "T-004"), (1, "T-005")]


def test_a_viewer_may_look_and_nothing_else(http: Any) -> None:
    world = http.world
    http.post("/api/rollouts", json={"version": "1.1.0"})
    token = add_token(world.records.tokens, "vic", AccessRole.VIEWER, world.now)
    viewer = open_http(world.core, lambda: world.now, token=token)
    assert viewer.get("/api/rollouts/1").status_code == 200
    for path in ("", "/1/approve", "/1/pause", "/1/resume", "/1/abandon"):
        assert viewer.post(f"/api/rollouts{path}", json={}).status_code == 403


@pytest.mark.parametrize(
    ("order", "status", "why"),
    [
        ({}, 400, "version"),
        ({"version": "9.9.9"}, 404, "no image"),
        ({"version": "1.1.0", "groups": [5, 5, 100]}, 409, "rise"),
        ({"version": "1.1.0", "groups": []}, 400, "groups"),
        ({"version": "1.1.0", "success": 101}, 400, "success"),
        ({"version": "1.1.0", "serials": "\0"}, 409, "printed"),
        ({"version": "1.1.0", "not_before": "2023-01-01T00:00:00"}, 400, "not_before"),
        ({"version": "1.1.0", "not_before": "9999-12-31T23:59:59-23:00"}, 409, "year"),
        ({"version": "1.1.0", "way": "thrown"}, 400, "way"),
        ({"version": "1.1.0", "by": "a\nb"}, 409, "operator"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(
    http: Any, order: dict[str, Any], status: int, why: str
) -> None:
    answer = http.post("/api/rollouts", json=order)
    assert (answer.status_code, why in answer.json()["error"]) == (status, True), answer.json()
    assert http.get("/api/rollouts").json() == []


# The command line


@pytest.fixture
def run(http: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Types a command of `unbrick rollout`; gives what it says, or what is wrong."""

    def ask(_client: Any, method: str, path: str, **more: Any) -> Any:
        answer = http.request(method, path, **more)
        if not answer.is_success:
            raise ServerError(answer.json()["error"], hint=answer.json()["hint"])
        return answer.json()

    monkeypatch.setattr(ServerClient, "_ask", ask)

    def type_(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, ["rollout", *words], prog_name="unbrick")
        assert done.exit_code == code, done.output + done.stderr
        return str(done.output)

    return type_


def test_the_command_line_plays_a_rollout(http: Any, run: Callable[..., Any]) -> None:
    world = http.world
    assert run("list") == "there are no rollouts\n"
    made = run("create", "1.1.0", "--name", "May", "--groups", "10%, 100", "--serials", "T-*")
    assert "rollout 1 of 1.1.0+0 is made: groups of 2, 18 terminals" in made
    assert "somebody else says `unbrick rollout approve 1`" in made
    assert "somebody else has to approve it" in run("approve", "1", code=1)
    world.runner.approve(1, "bob", world.now)
    world.look()
    assert "1 of 2" in run("list")
    assert "rollout 1 is paused" in run("pause", "1")
    assert "rollout 1 goes on" in run("resume", "1")
    world.look()
    first, second = world.open()
    world.end(first)
    world.end(second, well=False)
    world.look()
    shown = run("show", "1")
    assert "rollout 1, May: stopped, group 1: 1 of 2 failed, more than 5 %" in shown
    assert "group 1  ##########..........  1 succeeded, 1 failed" in shown
    assert "group 2  ....................  18 waiting" in shown
    assert f"{second} failed: it broke" in shown
    assert "bob  approved" in shown
    assert "waiting" in run("show", "1", "--members")
    assert len(json.loads(run("show", "1", "--members", "--json"))) == 20
    assert json.loads(run("list", "--json"))[0]["state"] == "stopped"
    assert "is given up" in run("abandon", "1", "--yes")
    assert "is abandoned, so it cannot be resumed" in run("resume", "1", code=1)


def test_the_command_line_shows_who_was_asked_and_has_consented(
    http: Any, run: Callable[..., Any]
) -> None:
    world = http.world
    run("create", "1.1.0", "--consent", "--groups", "10%,100%")
    world.runner.approve(1, "bob", world.now)
    world.look()
    call(world, world.records.messages()[0].serial)
    shown = run("show", "1")
    assert "2 users were asked, 1 have consented" in shown
    assert "group 1  ....................  1 ordered, 1 asked" in shown


def test_a_time_is_that_of_this_machine_unless_it_says_otherwise(
    http: Any, run: Callable[..., Any]
) -> None:
    when = datetime.fromtimestamp(http.world.now + 3600).isoformat()  # noqa: DTZ006 - as people do
    run("create", "1.1.0", "--not-before", when)
    http.world.runner.approve(1, "bob", http.world.now)
    assert http.world.rollout().not_before == http.world.now + 3600
    assert http.world.rollout().state is RolloutState.SCHEDULED
    assert "not before 2023-11-14T23:13:20.000Z" in run("show", "1")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--groups", "5%,x"), "no list of percentages such as 5%,25%,100%"),
        (("--success", "101"), "no percentage such as 90%"),
        (("--not-before", "tomorrow"), "no time such as 2026-12-01T03:00"),
    ],
)
def test_what_is_typed_wrong_is_said(run: Callable[..., Any], words: Any, why: str) -> None:
    assert why in run("create", "1.1.0", *words, code=2)
