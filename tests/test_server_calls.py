"""Calls that a terminal's user makes, at the server: kept, safe to repeat, ended by either."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import aiocoap
import pytest
from record_stores import Open
from server_world import SERIAL, inspect, post, registration

from unbrick.errors import LinkError
from unbrick.server.core.core import ServerCore
from unbrick.server.core.lines import (
    BROKEN_OFF,
    CENTER_SILENCE_S,
    LOOK_INTERVAL_S,
    LOST,
    MAX_CALLS,
    CallOverError,
)
from unbrick.server.records.calls import LineState
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.wire.calls import CallRequest, HangUp, Key, SayRequest
from unbrick.wire.messages import TerminalState

ADDRESS = "192.0.2.1:4000"
DONE = aiocoap.Message(code=aiocoap.CHANGED)
NO_SUCH_CALL = aiocoap.Message(code=aiocoap.NOT_FOUND)


class Line:
    """A server with a center, and the terminal's end of the link."""

    def __init__(self, records: Records | None = None) -> None:
        self.now = 100.0
        self.records = records or MemoryRecords()
        self.start()
        self.register()
        self.core.lines.center_is_there(self.now)
        self.core.poll(self.now)

    def start(self) -> None:
        self.core = ServerCore(self.records, inspect)

    def register(self, **changes: Any) -> None:
        self.sends("register", registration(**changes).encode())

    def sends(self, path: str, payload: bytes) -> Any:
        return self.core.handle(ADDRESS, post(path, payload), self.now).code

    def calls(self, number: int = 1, serial: str = SERIAL) -> Any:
        return self.sends("call", CallRequest(serial, number).encode())

    def presses(self, key: str, count: int, number: int = 1) -> Any:
        return self.sends("key", Key(SERIAL, number, count, key).encode())

    def hangs_up(self, number: int = 1) -> Any:
        return self.sends("hang-up", HangUp(SERIAL, number).encode())

    def hears(self, answer: Any = DONE) -> list[SayRequest]:
        """What the server sends now; each is answered alike."""
        said = []
        while requests := self.core.poll(self.now):
            for request in requests:
                assert request.endpoint == ADDRESS
                assert request.message.opt.uri_path == ("say",)
                said.append(SayRequest.decode(request.message.payload))
                self.core.outcome(request.ticket, answer, self.now)
        return said

    def state(self, call_id: int = 1) -> LineState:
        found = self.records.terminal_call(call_id)
        assert found
        return found.state


def test_a_call_its_keys_and_its_end_are_kept(open_records: Open) -> None:
    with open_records() as records:
        line = Line(records)
        assert line.calls(7) == aiocoap.CHANGED
        assert [line.presses(key, count, 7) for count, key in enumerate("1#")] == [
            aiocoap.CHANGED,
            aiocoap.CHANGED,
        ]
    with open_records() as records:
        (call,) = records.open_calls()
        assert (call.serial, call.caller, call.started) == (SERIAL, "terminal", 100.0)
        (end,) = records.terminal_calls()
        assert (end.call_id, end.number, end.keys) == (call.id, 7, "1#")
        line = Line(records)
        assert line.hangs_up(7) == aiocoap.CHANGED
        assert records.terminal_calls() == []
        assert line.state(call.id) is LineState.OVER


def test_whatever_is_sent_again_changes_nothing() -> None:
    line = Line()
    for _ in range(3):
        assert line.calls() == aiocoap.CHANGED
    for _ in range(3):
        assert line.presses("1", 0) == aiocoap.CHANGED
    assert line.presses("9", 1) == aiocoap.CHANGED
    assert line.presses("1", 0) == aiocoap.CHANGED
    assert len(line.records.calls()) == 1
    assert line.records.terminal_calls()[0].keys == "19"
    for _ in range(3):
        assert line.hangs_up() == aiocoap.CHANGED
    assert line.presses("1", 2) == aiocoap.NOT_FOUND
    assert line.records.terminal_calls() == []


def test_a_terminal_that_has_started_anew_calls_under_a_number_that_it_had() -> None:
    line = Line()
    line.calls(1)
    line.presses("2", 0)
    line.calls(1)
    line.presses("1", 0)
    first, second = line.records.calls()
    assert line.state(first.id) is LineState.OVER
    (end,) = line.records.terminal_calls()
    assert (end.call_id, end.keys) == (second.id, "1")


def test_nobody_takes_calls_without_a_center() -> None:
    line = Line()
    line.now += CENTER_SILENCE_S
    assert line.calls() == aiocoap.SERVICE_UNAVAILABLE
    line.core.lines.center_is_there(line.now)
    assert line.calls() == aiocoap.CHANGED
    line.core.center_leaves()
    assert line.calls(2) == aiocoap.SERVICE_UNAVAILABLE
    line.start()
    assert line.calls(2) == aiocoap.SERVICE_UNAVAILABLE


def test_a_stranger_cannot_call_and_calls_are_limited() -> None:
    line = Line()
    assert line.calls(serial="T-9999") == aiocoap.NOT_FOUND
    for number in range(MAX_CALLS):
        line.register(serial=f"T-{number}")
        assert line.calls(serial=f"T-{number}") == aiocoap.CHANGED
    assert line.calls() == aiocoap.SERVICE_UNAVAILABLE
    assert len(line.records.calls()) == MAX_CALLS


@pytest.mark.parametrize("path", ["call", "key", "hang-up"])
@pytest.mark.parametrize(
    "payload", [b"", b"\xa0", b"\xa1\x01\x61x", Key(SERIAL, 1, 5, "1").encode()]
)
def test_what_is_malformed_or_out_of_turn_is_refused(path: str, payload: bytes) -> None:
    line = Line()
    line.calls()
    if path == "key" or len(payload) < 6:
        assert line.sends(path, payload) == aiocoap.BAD_REQUEST
    assert line.records.terminal_calls()[0].keys == ""


def test_keys_have_an_end() -> None:
    line = Line()
    line.calls()
    answers = [line.presses("5", count) for count in range(201)]
    assert answers == [aiocoap.CHANGED] * 200 + [aiocoap.BAD_REQUEST]


def test_texts_are_said_in_their_order_each_until_it_is_heard() -> None:
    line = Line()
    line.calls(3)
    line.core.say(1, 0, "one", last=False)
    line.core.say(1, 1, "two", last=False)
    assert line.hears() == [SayRequest(3, 0, "one"), SayRequest(3, 1, "two")]
    line.core.say(1, 2, "goodbye", last=True)
    assert line.hears() == [SayRequest(3, 2, "goodbye", last=True)]
    assert line.state() is LineState.OVER
    assert line.records.sayings(1) == []


def test_one_text_is_under_way_at_a_time() -> None:
    line = Line()
    line.calls()
    for count in range(3):
        line.core.say(1, count, "text", last=False)
    (request,) = line.core.poll(line.now)
    line.register()
    assert line.core.poll(line.now) == []
    line.core.outcome(request.ticket, DONE, line.now)
    assert len(line.core.poll(line.now)) == 1


def test_saying_it_again_changes_nothing_and_out_of_turn_is_refused() -> None:
    line = Line()
    line.calls()
    for _ in range(3):
        line.core.say(1, 0, "one", last=False)
    for count, text in ((0, "another"), (2, "two")):
        with pytest.raises(CallOverError, match="cannot follow"):
            line.core.say(1, count, text, last=False)
    with pytest.raises(LinkError):
        line.core.say(1, 1, "x" * 161, last=False)
    line.core.say(1, 1, "goodbye", last=True)
    with pytest.raises(CallOverError, match="cannot follow 2"):
        line.core.say(1, 2, "more", last=False)
    assert [said.text for said in line.hears()] == ["one", "goodbye"]
    for call_id in (1, 2):
        with pytest.raises(CallOverError, match="is over"):
            line.core.say(call_id, 0, "one", last=False)


def test_texts_survive_a_restart_of_the_server() -> None:
    line = Line()
    line.calls()
    line.core.say(1, 0, "one", last=False)
    line.core.say(1, 1, "two", last=False)
    (request,) = line.core.poll(line.now)
    line.core.outcome(request.ticket, DONE, line.now)
    line.core.poll(line.now)  # The second is under way when the server is killed.
    line.start()
    assert [(said.count, said.text) for said in line.hears()] == [(1, "two")]
    assert line.presses("1", 0) == aiocoap.CHANGED


def test_a_terminal_that_knows_nothing_of_its_call_has_ended_it() -> None:
    line = Line()
    line.calls()
    line.core.say(1, 0, "one", last=False)
    line.core.say(1, 1, "two", last=False)
    assert len(line.hears(NO_SUCH_CALL)) == 1
    assert line.state() is LineState.OVER


def test_a_terminal_out_of_reach_hears_later_that_the_call_is_over() -> None:
    line = Line()
    line.calls()
    for count, text in enumerate(("one", "two", "three")):
        line.core.say(1, count, text, last=False)
    assert [said.text for said in line.hears(None)] == ["one"]
    assert line.state() is LineState.CLOSING
    assert line.presses("1", 0) == aiocoap.NOT_FOUND
    with pytest.raises(CallOverError):
        line.core.say(1, 3, "four", last=False)
    line.start()
    line.register(state=TerminalState.RESTORATION)
    assert line.hears(None) == [SayRequest(1, 0, "one")], "what was due when the server started"
    line.register(state=TerminalState.RESTORATION)
    assert line.hears(None) == [], "nobody hears anything in restoration"
    line.register()
    assert line.hears() == [SayRequest(1, 0, "one"), SayRequest(1, 1, LOST, last=True)]
    assert line.state() is LineState.OVER


def test_a_call_after_one_that_was_lost_is_a_new_one() -> None:
    line = Line()
    line.calls(1)
    line.core.say(1, 0, "one", last=False)
    line.hears(None)
    assert line.calls(2) == aiocoap.CHANGED
    line.core.say(2, 0, "hello", last=False)
    assert line.hears() == [SayRequest(2, 0, "hello")]


@pytest.mark.parametrize("how", ["says so", "is silent", "is silent after a restart"])
def test_claim_b4_when_the_center_is_gone_the_terminals_user_hears_so(how: str) -> None:
    line = Line()
    line.calls()
    line.core.say(1, 0, "hello", last=False)
    assert [said.text for said in line.hears()] == ["hello"]
    if how == "says so":
        line.core.center_leaves()
    elif how == "is silent":
        line.now += CENTER_SILENCE_S - LOOK_INTERVAL_S
        assert line.hears() == []
        line.now += LOOK_INTERVAL_S
    else:
        line.now += CENTER_SILENCE_S / 2
        line.start()
        assert line.hears() == []
        line.now += CENTER_SILENCE_S - LOOK_INTERVAL_S
        assert line.hears() == [], "it gets time to say that it is there"
        line.now += LOOK_INTERVAL_S
    assert line.hears() == [SayRequest(1, 1, BROKEN_OFF, last=True)]
    assert line.state() is LineState.OVER


def test_a_call_that_the_center_has_ended_without_a_last_word_is_over_for_the_user() -> None:
    line = Line()
    line.calls()
    line.core.say(1, 0, "hello", last=False)
    line.hears()
    (call,) = line.records.calls()
    line.records.save_call(replace(call, ended=line.now))
    heard = []
    for _ in range(16):
        line.core.lines.center_is_there(line.now)
        heard += line.hears()
        line.now += 1.0
    assert heard == [SayRequest(1, 1, LOST, last=True)]
    assert line.state() is LineState.OVER


def test_a_center_that_goes_on_speaking_keeps_its_calls() -> None:
    line = Line()
    line.calls()
    for _ in range(10):
        line.now += CENTER_SILENCE_S / 2
        line.core.lines.center_is_there(line.now)
        assert line.hears() == []
    assert line.state() is LineState.OPEN


def test_the_last_text_of_a_call_is_not_followed_by_another() -> None:
    line = Line()
    line.calls()
    line.core.say(1, 0, "goodbye", last=True)
    line.core.poll(line.now)
    line.core.center_leaves()
    line.start()
    assert line.hears() == [SayRequest(1, 0, "goodbye", last=True)]
