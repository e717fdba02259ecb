"""Row B4: a terminal's user calls the customer center, hears the menu and presses keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiocoap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_world import SERIAL, inspect, make_image, post, registration

from unbrick.center.calls.terminal import split_text
from unbrick.reference.center import SimulatedCenter
from unbrick.reference.system import System
from unbrick.server.core.core import ServerCore
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import UpdateState
from unbrick.wire.calls import CallRequest, HangUp, Key, SayRequest
from unbrick.wire.messages import Text

IMAGE = make_image()
ADDRESS = "192.0.2.1:4000"


@pytest.mark.parametrize(
    ("text", "most", "parts"),
    [
        ("one two three", 20, ["one two three"]),
        ("one two three", 7, ["one two", "three"]),
        ("  one   two ", 3, ["one", "two"]),
        ("onetwothree", 4, ["onet", "woth", "ree"]),
        ("a äöü b", 4, ["a", "äö", "ü b"]),
        ("", 5, []),
        ("Hello. Press 1. Or 2!", 16, ["Hello. Press 1.", "Or 2!"]),
        ("Hello there. a", 9, ["Hello", "there. a"]),
    ],
)
def test_a_long_text_is_said_in_parts(text: str, most: int, parts: list[str]) -> None:
    assert split_text(text, most) == parts


class User:
    """A terminal and its user, with a simulated center; everything happens at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.records = MemoryRecords()
        self.core = ServerCore(self.records, inspect)
        self.sends("register", registration().encode())
        self.core.publish(IMAGE, self.now)
        self.center = SimulatedCenter(self.core)
        self.heard: list[SayRequest] = []
        self.messages: list[str] = []
        self.waits()

    def sends(self, path: str, payload: bytes) -> Any:
        return self.core.handle(ADDRESS, post(path, payload), self.now).code

    def waits(self, seconds: float = 1.0) -> str:
        """Let time pass; gives what is heard meanwhile."""
        before = len(self.heard)
        until = self.now + seconds
        while self.now < until:
            self.now += 0.25
            self.center.step(self.now)
            while requests := self.core.poll(self.now):
                for request in requests:
                    self._answer(request)
        return " ".join(said.text for said in self.heard[before:])

    def _answer(self, request: Any) -> None:
        (path,) = request.message.opt.uri_path
        if path == "say":
            self.heard.append(SayRequest.decode(request.message.payload))
        elif path == "message":
            self.messages.append(Text.decode(request.message.payload).text)
        self.core.outcome(request.ticket, post("", b"").copy(code=68), self.now)

    def calls(self, number: int = 1) -> str:
        self.sends("call", CallRequest(SERIAL, number).encode())
        return self.waits()

    def presses(self, keys: str, number: int = 1) -> str:
        there = len(self.records.terminal_calls()[0].keys)
        for count, key in enumerate(keys, there):
            self.sends("key", Key(SERIAL, number, count, key).encode())
        return self.waits()


def test_claim_b4_the_user_is_invited_calls_and_presses_1() -> None:
    user = User()
    (invitation,) = user.messages
    assert "Version 1.1.0" in invitation
    menu = user.calls()
    assert "Version 1.1.0 is ready for your terminal, which runs 1.0.0." in menu
    assert user.heard[0].number == 1
    assert [said.count for said in user.heard] == list(range(len(user.heard)))
    assert "begins when this call has ended" in user.presses("1")
    (update,) = user.records.updates(SERIAL)
    assert update.version == "1.1.0+0"
    assert "Goodbye" in user.presses("0")
    assert [said.last for said in user.heard] == [False] * (len(user.heard) - 1) + [True]
    (call,) = user.records.calls()
    assert (call.caller, call.keys, call.outcome) == ("terminal", "10", "upgrade started")


def test_claim_b4_a_wrong_key_repeating_and_hanging_up_at_the_terminal() -> None:
    user = User()
    menu = user.calls()
    assert user.presses("5") == f"5 is not one of the choices. {menu}"
    assert user.presses("9") == menu
    user.sends("hang-up", HangUp(SERIAL, 1).encode())
    assert user.waits() == ""
    (call,) = user.records.calls()
    assert (call.keys, call.outcome) == ("59", "hung up")
    assert user.records.updates() == []


def test_silence_ends_a_call_only_after_the_texts_were_heard() -> None:
    user = User()
    user.calls()
    assert "I have not heard a key" in user.waits(21)
    assert "Please call again" in user.waits(45)
    assert user.heard[-1].last
    assert user.records.calls()[0].outcome == "no choice made"


def test_a_new_center_knows_nothing_of_calls_of_another() -> None:
    user = User()
    user.calls()
    user.center = SimulatedCenter(user.core)
    assert "customer center is not there any more" in user.waits()
    assert user.heard[-1].last
    assert user.records.calls()[0].outcome == "broken off"
    assert "is ready for your terminal" in user.calls(2)


# Whatever goes wrong

EVENTS = st.one_of(
    st.sampled_from(["call", "hang up", "key again", "terminal starts anew"]),
    st.sampled_from(["server starts anew", "center starts anew", "center is gone", "registers"]),
    st.sampled_from("0129#").map("press {}".format),
    st.integers(1, 4).map("lose {} answers".format),
    st.sampled_from([1, 8, 25]).map("wait {}".format),
)


class Unlucky(User):
    """Things go wrong for this user: texts arrive whose answers are lost, and parts start anew."""

    def __init__(self) -> None:
        self.lost = self.number = self.pressed = 0
        self.on = False
        self.there = True
        super().__init__()

    def _answer(self, request: Any) -> None:
        (path,) = request.message.opt.uri_path
        if path != "say":
            super()._answer(request)
            return
        said = SayRequest.decode(request.message.payload)
        code = aiocoap.CHANGED
        if not self.on or said.number != self.number:
            code = aiocoap.NOT_FOUND
        elif said.count >= len(self.heard):
            assert said.count == len(self.heard), "no text is left out"
            self.heard.append(said)
            self.on = not said.last
        elif said == self.heard[-1] and said.last:
            pass
        else:
            assert said == self.heard[said.count], "what was said is not changed"
        self.lost -= 1
        response = None if self.lost >= 0 else aiocoap.Message(code=code)
        self.core.outcome(request.ticket, response, self.now)

    def waits(self, seconds: float = 1.0) -> str:
        if self.there:
            return super().waits(seconds)
        center, self.center = self.center, Nobody()
        try:
            return super().waits(seconds)
        finally:
            self.center = center

    def meets(self, event: str) -> None:
        match event.split():
            case ["call"] if not self.on:
                self.number += 1
                self._call()
            case ["hang", "up"]:
                self.on = False
                self.sends("hang-up", HangUp(SERIAL, self.number).encode())
            case ["press", key] if self.on:
                code = self.sends("key", Key(SERIAL, self.number, self.pressed, key).encode())
                self.pressed += code.is_successful()
            case ["key", "again"] if self.on and self.pressed:
                self.sends("key", Key(SERIAL, self.number, self.pressed - 1, "1").encode())
            case ["terminal", *_]:
                self.number, self.on = 0, False
                self.sends("register", registration().encode())
            case _:
                self._else(event)

    def _else(self, event: str) -> None:
        match event.split():
            case ["server", *_]:
                self.core = ServerCore(self.records, inspect)
                self.center._core = self.core
            case ["center", "starts", _]:
                self.center, self.there = SimulatedCenter(self.core), True
            case ["center", *_]:
                self.there = False
            case ["registers"]:
                self.sends("register", registration().encode())
            case ["lose", count, _]:
                self.lost = int(count)
            case ["wait", seconds]:
                self.waits(float(seconds))

    def _call(self) -> None:
        for _ in range(2):  # Later, the link would know the message again.
            code = self.sends("call", CallRequest(SERIAL, self.number).encode())
        if code.is_successful():
            self.on, self.pressed, self.heard = True, 0, []


class Nobody:
    """Where a center was."""

    def step(self, now: float) -> None:
        """Do nothing."""


@pytest.mark.slow(first=True)
@settings(max_examples=150)
@given(st.lists(EVENTS, max_size=14))
def test_claim_b4_whatever_happens_texts_come_in_their_order_and_every_call_ends(
    events: list[str],
) -> None:
    user = Unlucky()
    for event in events:
        user.meets(event)
        user.waits(0.5)
    user.lost = 0
    for _ in range(4):  # It registers every minute.
        user.meets("registers")
        user.waits(30)
    assert not user.on, "the user is not left on a line that nobody holds"
    assert user.records.terminal_calls() == []
    going = [update for update in user.records.updates() if not update.state.ended]
    assert len(going) <= 1
    user.meets("center starts anew")
    user.waits()
    assert user.records.open_calls() == []
    assert all("1" in call.keys for call in user.records.calls() if "told to" in call.text)


# With the real ARM binary


@pytest.fixture
def unbrick_system(unbrick_make_system: Callable[..., System]) -> System:
    made = unbrick_make_system(engine="inprocess", serial="UB-000001")
    made.power_on()
    made.wait_registered()
    for version in ("1.0.0", "1.1.0"):
        made.publish(version)
    made.bench.peers.append(SimulatedCenter(made.server))
    return made


def test_claim_b4_the_user_calls_from_the_console_and_presses_1_to_upgrade(
    unbrick_system: System,
) -> None:
    console = unbrick_system.console
    console.expect("message: Version 1.1.0 of your terminal's software is ready.")
    console.command("pb add Alice 112")
    console.type("call")
    console.expect("call: Welcome. Version 1.1.0 is ready for your terminal, which runs 1.0.0.")
    console.expect("0 to end.")
    console.type("1")
    console.expect("begins when this call has ended")
    console.type("hang up")
    (update,) = unbrick_system.records.updates(unbrick_system.serial)
    assert update.commanded
    assert unbrick_system.wait_update(update.id).state is UpdateState.SUCCEEDED
    console.expect("update: 1.1.0 confirmed")
    assert unbrick_system.bench.run_until(
        lambda: not unbrick_system.records.unfinished_sessions(), 120
    )
    assert "Alice" in console.command("pb list")
    assert unbrick_system.records.backups() == []
    (call,) = unbrick_system.records.calls()
    assert (call.caller, call.keys, call.outcome) == ("terminal", "1", "upgrade started")
    assert "server: by commands\n" in call.text


@pytest.mark.parametrize("how", ["0", "hang up", ""])
def test_claim_b4_the_upgrade_begins_when_the_call_has_ended(
    unbrick_system: System, how: str
) -> None:
    console, bench = unbrick_system.console, unbrick_system.bench
    console.type("call")
    console.expect("0 to end.")
    console.type("1")
    console.expect("begins when this call has ended")
    (update,) = unbrick_system.records.updates(unbrick_system.serial)
    bench.run_for(15)
    assert unbrick_system.update(update.id).state is UpdateState.PENDING
    waits = [event.text for event in unbrick_system.records.events(update_id=update.id)]
    assert waits == ["", "it begins when the call has ended"]
    if how:
        console.type(how)
    if how != "hang up":
        console.expect("Goodbye.", 120)
    begun = lambda: unbrick_system.update(update.id).state is UpdateState.REWRITING  # noqa: E731
    assert bench.run_until(begun, 10)
    assert unbrick_system.records.calls()[0].outcome == "upgrade started"


def test_claim_b4_at_the_console_the_center_goes_away_in_mid_call(unbrick_system: System) -> None:
    console = unbrick_system.console
    console.type("call")
    console.expect("0 to end.")
    unbrick_system.bench.peers.pop()
    console.expect("call: The customer center is not there any more.")
    console.type("call")
    console.expect("call: nobody takes calls")
    assert unbrick_system.records.updates() == []
