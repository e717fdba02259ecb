"""The server's log: all that happens, a JSON object a line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from processes import Running
from server_world import SERIAL, inspect, make_image, open_http, post, registration

from unbrick.server.core.core import ServerCore
from unbrick.server.edge.access import add_token
from unbrick.server.edge.client import ServerClient
from unbrick.server.edge.event_log import EventLog
from unbrick.server.records.access import AccessRole
from unbrick.server.records.contract import EVENTS_AT_ONCE
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import Event

NOW = 1_700_000_000.0
TIME = "2023-11-14T22:13:20.000Z"


class Logged:
    """A core in memory with a terminal, and its log."""

    def __init__(self) -> None:
        self.core = ServerCore(MemoryRecords(), inspect)
        self.core.publish(make_image(), NOW)
        self.register()
        self.out = io.StringIO()
        self.log = EventLog(self.core.records, self.out, lambda: NOW)

    def register(self) -> None:
        self.core.handle("127.0.0.1:4000", post("register", registration().encode()), NOW)

    def http(self, **more: Any) -> Any:
        return open_http(self.core, lambda: NOW, log=self.log, **more)

    def lines(self) -> list[dict[str, Any]]:
        """What was said since this was asked last."""
        self.log.look()
        said = self.out.getvalue().splitlines()
        self.out.seek(0)
        self.out.truncate()
        return [json.loads(line) for line in said]


def test_it_begins_with_what_is_new() -> None:
    logged = Logged()
    assert logged.lines() == []
    logged.core.start_update(SERIAL, "1.1.0", NOW)
    (line,) = logged.lines()
    assert line == {
        "time": TIME,
        "event": "update",
        "serial": SERIAL,
        "update": 1,
        "state": "pending",
        "text": "",
    }
    assert logged.lines() == []


def test_what_was_undone_is_not_said() -> None:
    logged = Logged()

    def fail_after_all() -> None:
        with logged.core.records.transaction():
            logged.core.start_update(SERIAL, "1.1.0", NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_all()
    assert logged.lines() == []


@pytest.mark.parametrize("count", [1, EVENTS_AT_ONCE, 2 * EVENTS_AT_ONCE + 1])
def test_all_are_said_however_many_there_are(count: int) -> None:
    logged = Logged()
    for number in range(count):
        logged.core.records.add_event(Event(0, NOW, SERIAL, None, None, str(number)))
    assert [line["text"] for line in logged.lines()] == [str(number) for number in range(count)]


def test_orders_are_said_with_who_gave_them() -> None:
    logged = Logged()
    token = add_token(logged.core.records.tokens, "ada", AccessRole.VIEWER, NOW)
    order = {"serial": SERIAL, "text": "a secret for the user"}
    logged.http().get("/api/terminals")
    statuses = [
        logged.http(**who).post("/api/messages", json=order).status_code
        for who in ({}, {"token": token}, {"token": ""})
    ]
    assert statuses == [201, 403, 401]
    said = [line for line in logged.lines() if line["event"] == "order"]
    assert [(line["who"], line["status"]) for line in said] == [
        ("own", 201),
        ("ada", 403),
        ("", 401),
    ]
    assert {(line["time"], line["method"], line["path"]) for line in said} == {
        (TIME, "POST", "/api/messages")
    }


def test_nothing_personal_is_said() -> None:
    logged = Logged()
    logged.http().post("/api/messages", json={"serial": SERIAL, "text": "a secret"})
    logged.log.look()
    assert "a secret" not in logged.out.getvalue()


@pytest.mark.slow
def test_a_server_says_all_that_happens(tmp_path: Path) -> None:
    options = ("--coap-port", 0, "--http-port", 0, "--database", tmp_path / "server.db")
    with Running("server", "start", "--insecure", "--log", *options) as running:
        url = running.wait_for(r"server: ready, \S+ (http://\S+)").group(1)
        with ServerClient(url) as client:
            client.center_is_there()
        line = json.loads(running.wait_for(r"\{.*\}").group())
        assert (line["event"], line["who"], line["path"]) == ("order", "own", "/api/center")
        assert running.end() == 0
