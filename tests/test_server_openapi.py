"""The HTTP API is as its description says, whatever it is asked; health and metrics."""

from __future__ import annotations

import re
from typing import Any

import hypothesis
import pytest
import schemathesis
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.checks import positive_data_acceptance
from server_world import OWN_TOKEN, SERIAL, inspect, make_image, open_http, post, registration

from unbrick.server.core.core import ServerCore
from unbrick.server.core.rollouts import RolloutDraft, RolloutRunner
from unbrick.server.edge.access import Gate, add_token
from unbrick.server.edge.http import make_app
from unbrick.server.records.access import AccessRole
from unbrick.server.records.memory import MemoryRecords

NOW = 1_700_000_000.0


def make_core() -> ServerCore:
    """A core with terminals, images, updates of both ways, a rollout, and a message."""
    core = ServerCore(MemoryRecords(), inspect)
    old, new = make_image("1.0.0+0"), make_image()
    for image in (old, new):
        core.publish(image, NOW)
    digest = inspect(old).digest
    for number in range(3):
        request = registration(serial=f"{SERIAL}{number}", digest=digest)
        core.handle(f"127.0.0.1:{4000 + number}", post("register", request.encode()), NOW)
    core.start_update(f"{SERIAL}0", "1.1.0", NOW)
    core.start_update(f"{SERIAL}1", "1.1.0", NOW, commanded=True)
    core.send_text(f"{SERIAL}2", "hello", NOW)
    RolloutRunner(core).create(RolloutDraft("1.1.0"), "ada", NOW)
    return core


JUDGED_BY_MORE = {
    "GET /api/images",
    "GET /api/preparations",
    "POST /api/images",
    "POST /api/messages",
}
"""What is sent there has bounds that no schema can say: a signature, bytes of UTF-8, or that there
is what a list is asked for after."""

EXAMPLES = 15
"""Requests of each operation and kind: its description is small."""


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """The API over a core that has not been asked before: no request depends on another."""
    core = make_core()
    app = make_app(
        core, lambda: None, lambda: NOW, Gate(core.records.tokens, lambda: NOW, OWN_TOKEN)
    )
    await app(scope, receive, send)


SCHEMA = schemathesis.openapi.from_asgi("/api/openapi.json", _answer)


@SCHEMA.auth()
class _OwnUser:
    """Shows a token, where the test is not about that."""

    def get(self, _case: Any, _context: Any) -> str:
        return OWN_TOKEN

    def set(self, case: Any, data: str, _context: Any) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


def _test(operation: Any) -> Any:
    """The test of one operation."""

    @hypothesis.settings(max_examples=EXAMPLES)
    def test(case: Any) -> None:
        judged_by_more = case.operation.label in JUDGED_BY_MORE
        case.call_and_validate(excluded_checks=[positive_data_acceptance] if judged_by_more else [])

    only = SCHEMA.include(path=operation.path, method=operation.method)
    return only.parametrize()(test)


OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]

# A name for each: processes tell tests apart by their ids, and those of one test would be alike.
for _one in OPERATIONS:
    _words = re.sub(r"\W+", "_", _one.label.removesuffix("/")).lower()
    globals()[f"test_it_answers_as_its_description_says_{_words}"] = _test(_one)


def test_the_description_says_who_may_do_what() -> None:
    paths = open_http(make_core(), lambda: NOW, token="").get("/api/openapi.json").json()["paths"]
    assert paths["/api/updates"]["post"]["x-role"] == "operator"
    assert paths["/api/updates"]["get"]["security"] == [{"token": []}]
    assert paths["/health"]["get"]["security"] == []
    assert "x-role" not in paths["/health"]["get"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation["summary"].endswith("."), (method, path)


def test_a_whole_number_may_have_a_point() -> None:
    api = open_http(make_core(), lambda: NOW)
    said = api.post("/api/rollouts", json={"version": "1.1.0", "groups": [5.0, 1e2]})
    assert [group["percent"] for group in said.json()["groups"]] == [5, 100]
    assert api.post("/api/rollouts", json={"version": "1.1.0", "groups": [5.5]}).status_code == 400


def test_the_description_says_how_long_lists_are_asked_for() -> None:
    paths = open_http(make_core(), lambda: NOW, token="").get("/api/openapi.json").json()["paths"]
    for path, kind in (
        ("/api/terminals", "string"),
        ("/api/rollouts/{rollout_id}/members", "string"),
        ("/api/updates", "integer"),
        ("/api/rollouts", "integer"),
        ("/api/terminals/{serial}", "integer"),
        ("/api/images", "string"),
        ("/api/preparations", "string"),
    ):
        asked = {item["name"]: item for item in paths[path]["get"]["parameters"]}
        assert (asked["after"]["in"], asked["after"]["schema"]["type"]) == ("query", kind)
        assert asked["first"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000}


def test_the_server_says_whether_its_database_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    core = make_core()
    http = open_http(core, lambda: NOW, token="")
    assert http.get("/health").json() == {"status": "ok"}

    def fail(_digest: bytes) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(core.records, "image", fail)
    monkeypatch.setattr(core.records.tokens, "find", fail)
    response = http.get("/health", headers={"authorization": "Bearer unknown"})
    assert response.status_code == 503
    assert response.json() == {
        "error": "the database does not answer",
        "hint": "see the server's log",
    }


def test_prometheus_is_told_of_terminals_updates_and_requests() -> None:
    http = open_http(make_core(), lambda: NOW)
    http.get(f"/api/terminals/{SERIAL}0")
    http.get("/api/terminals/nobody")
    http.post("/api/updates", json=[])
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert found["unbrick_terminals", "application"] == 3
    assert found["unbrick_updates", "pending"] == 2
    assert found["unbrick_messages", "queued"] == 1
    assert found["unbrick_rollouts", "for approval"] == 1
    assert found["unbrick_rollout_terminals", "waiting"] == 3
    of_a_terminal = "/api/terminals/{serial}"
    assert found["unbrick_http_requests_total", of_a_terminal, "200", "GET"] == 1
    assert found["unbrick_http_requests_total", of_a_terminal, "404", "GET"] == 1
    assert found["unbrick_http_requests_total", "/api/updates", "400", "POST"] == 1
    assert found["unbrick_http_request_seconds_count", of_a_terminal, "GET"] == 2
    assert SERIAL not in response.text, "no terminal is named"


@pytest.mark.parametrize("role", list(AccessRole))
def test_every_role_may_measure(role: AccessRole) -> None:
    core = make_core()
    token = add_token(core.records.tokens, "Prometheus", role, NOW)
    assert open_http(core, lambda: NOW, token=token).get("/metrics").status_code == 200
