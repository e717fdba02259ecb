"""The HTTP API: answers, status codes, and bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from record_stores import count_rows, list_statements
from server_world import OWN_TOKEN, SERIAL, inspect, make_image, open_http, post, registration

from unbrick.errors import ImageError, ServerError, SetupError
from unbrick.server.core.core import ServerCore
from unbrick.server.database import SqlRecords
from unbrick.server.edge.client import ServerClient
from unbrick.server.edge.http import MAX_ID, MAX_IMAGE, MAX_JSON_SIZE
from unbrick.server.errors import NotCommandedError
from unbrick.server.records.analysis import Preparation, PreparationState, Range, RangeKind
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import Image
from unbrick.wire.messages import Kind

IMAGE = make_image()


class Api:
    """The API over a core in memory; counts how often it was told to send."""

    def __init__(self) -> None:
        self.pumped = 0
        self.core = ServerCore(MemoryRecords(), inspect)
        self.http = open_http(self.core, lambda: 1_700_000_000.25, self._pump)

    def _pump(self) -> None:
        self.pumped += 1

    def register(self, **changes: object) -> None:
        request = post("register", registration(**changes).encode())
        self.core.handle("127.0.0.1:4000", request, 1_600_000_000.0)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def client(api: Api) -> Iterator[ServerClient]:
    with ServerClient("http://testserver", api.http._transport, OWN_TOKEN) as client:
        yield client


def test_an_empty_server_lists_nothing(api: Api) -> None:
    for path in ("terminals", "images", "updates"):
        response = api.http.get(f"/api/{path}")
        assert (response.status_code, response.json()) == (200, [])


def test_terminals_with_all_they_said(api: Api) -> None:
    api.register()
    (terminal,) = api.http.get("/api/terminals").json()
    assert terminal["serial"] == SERIAL
    assert terminal["build_time"] == "2024-01-01T00:00:00Z"
    assert terminal["digest"] == registration().digest.hex()
    assert terminal["state"] == "application"
    assert terminal["last_seen"] == "2020-09-13T12:26:40.000Z"
    one = api.http.get(f"/api/terminals/{SERIAL}").json()
    assert {key: one[key] for key in terminal} == terminal
    assert [event["text"] for event in one["events"]] == ["registered with 1.0.0+0"]


@pytest.mark.parametrize("form", [False, True], ids=["body", "form"])
def test_publishing_an_image(api: Api, form: bool) -> None:
    if form:
        response = api.http.post("/api/images", files={"file": ("x.bin", IMAGE)})
    else:
        response = api.http.post("/api/images", content=IMAGE)
    assert response.status_code == 201
    assert response.json()["version"] == "1.1.0+0"
    assert api.http.get("/api/images").json() == [response.json()]
    (image,) = api.core.records.images()
    assert api.core.records.image_file(image.digest) == IMAGE


def test_the_course_of_an_update(api: Api) -> None:
    api.core.publish(IMAGE, 0.0)
    api.register()
    response = api.http.post("/api/updates", json={"serial": SERIAL, "version": "1.1.0"})
    assert response.status_code == 201
    update = response.json()
    assert (update["id"], update["state"], update["size"]) == (1, "pending", len(IMAGE))
    assert update["created"] == "2023-11-14T22:13:20.250Z"
    assert api.pumped == 1
    (outgoing,) = api.core.poll(0.0)
    shown = api.http.get("/api/updates/1").json()
    assert shown["state"] == "announced"
    assert [event["state"] for event in shown["events"]] == ["pending", "announced"]
    response = api.http.delete("/api/updates/1")
    assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    assert [item["ended"] for item in api.http.get("/api/updates").json()] == [True]
    api.core.outcome(outgoing.ticket, None, 0.0)


def test_messages(api: Api) -> None:
    api.register()
    response = api.http.post("/api/messages", json={"serial": SERIAL, "text": "Grüße"})
    assert (response.status_code, response.json()["state"]) == (201, "queued")
    assert api.pumped == 1
    assert api.http.get(f"/api/terminals/{SERIAL}").json()["messages"] == [response.json()]


JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("method", "path", "extra", "status"),
    [
        ("GET", "/api/terminals/nobody", {}, 404),
        ("GET", "/api/updates/1", {}, 404),
        ("GET", f"/api/updates/{10**30}", {}, 404),
        ("GET", "/api/updates/x", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("PUT", "/api/images", {}, 405),
        ("DELETE", "/api/updates/1", {}, 404),
        ("POST", "/api/images", {"content": b"no image"}, 422),
        ("POST", "/api/images", {"content": b""}, 422),
        ("POST", "/api/images", {"content": bytes(MAX_IMAGE + 1)}, 413),
        ("POST", "/api/images", {"content": b"rubbish", "headers": FORM}, 400),
        ("POST", "/api/images", {"files": [("a", b"1"), ("b", b"2")]}, 400),
        ("POST", "/api/images", {"data": {"a": "b"}, "files": [("c", b"1")]}, 400),
        ("POST", "/api/images", {"files": [("a", b"no image")]}, 422),
        ("POST", "/api/updates", {"content": b"{", "headers": JSON}, 400),
        ("POST", "/api/updates", {"content": b"[" * 5000, "headers": JSON}, 400),
        ("POST", "/api/updates", {"content": b"\xff", "headers": JSON}, 400),
        ("POST", "/api/updates", {"content": b" " * (MAX_JSON_SIZE + 1), "headers": JSON}, 413),
        ("POST", "/api/updates", {"json": []}, 400),
        ("POST", "/api/updates", {"json": {"serial": SERIAL}}, 400),
        ("POST", "/api/updates", {"json": {"serial": SERIAL, "version": 1}}, 400),
        ("POST", "/api/updates", {"json": {"serial": SERIAL, "version": "9.9.9"}}, 404),
        ("POST", "/api/updates", {"content": b"{}"}, 415),
        ("POST", "/api/updates", {"json": {"serial": "x", "version": "1", "way": "by post"}}, 400),
        ("POST", "/api/updates", {"json": {"serial": "x", "version": "1", "when": "now"}}, 400),
        ("DELETE", "/api/updates/1/backup", {}, 404),
        ("GET", "/api/sessions/1", {}, 404),
        ("GET", f"/api/sessions/{10**30}", {}, 404),
        ("POST", "/api/messages", {"json": {"serial": "nobody", "text": "x"}}, 404),
        ("POST", "/api/messages", {"json": {"serial": SERIAL, "text": "x" * 161}}, 400),
        ("GET", "/api/updates", {"headers": {"origin": "http://elsewhere"}}, 403),
        ("GET", "/api/updates", {"headers": {"origin": "http://["}}, 403),
    ],
)
def test_errors_say_what_is_wrong_and_what_to_do(
    api: Api, method: str, path: str, extra: dict[str, object], status: int
) -> None:
    api.register()
    response = api.http.request(method, path, **extra)  # type: ignore[arg-type]
    assert response.status_code == status
    answer = response.json()
    assert set(answer) == {"error", "hint"}
    assert answer["error"]
    assert answer["hint"]
    assert api.pumped == 0


def test_conflicts(api: Api) -> None:
    api.core.publish(IMAGE, 0.0)
    api.register(security_counter=9)
    response = api.http.post("/api/updates", json={"serial": SERIAL, "version": "1.1.0"})
    assert response.status_code == 409
    assert "takes nothing below 9" in response.json()["error"]


def test_that_a_terminal_cannot_be_commanded_is_told_to_programs(
    api: Api, client: ServerClient
) -> None:
    api.core.publish(IMAGE, 0.0)
    api.register()
    with pytest.raises(NotCommandedError, match="is not published here"):
        client.start(SERIAL, "1.1.0", "commanded")


def test_the_session_of_a_commanded_update(api: Api, client: ServerClient) -> None:
    old = make_image("1.0.0+0")
    for image in (old, IMAGE):
        api.core.publish(image, 0.0)
    api.register(digest=inspect(old).digest)
    assert client.start(SERIAL, "1.1.0", "commanded")["commanded"]
    assert api.pumped == 1
    session = client.update(1)["session"]
    assert (session["state"], session["outcome"], session["done"]) == ("planned", None, 0)
    assert session["current"]["kind"] == "back up"
    assert session["backup"] is None
    with_plan = client.session(session["id"])
    assert with_plan == {**session, "plan": with_plan["plan"]}
    kinds = [step["kind"] for step in with_plan["plan"]]
    assert len(kinds) == session["steps"]
    assert kinds[:3] == ["back up", "prepare", "erase"]
    assert kinds[-4:] == ["check", "restart", "give back", "delete backup"]
    assert client.cancel(1)["state"] == "cancelled"
    assert api.pumped == 2
    ended = client.update(1)["session"]
    assert (ended["state"], ended["current"]) == ("cancelled", None)
    with pytest.raises(ServerError, match="nothing of it goes on"):
        client.abandon(1)
    assert [item["state"] for item in client.watch(1)] == ["cancelled"]


def test_terminals_are_listed_some_at_a_time(api: Api) -> None:
    names = [f"T-{number}" for number in range(5)]
    for name in reversed(names):
        api.register(serial=name)

    def listed(query: str) -> list[str]:
        return [item["serial"] for item in api.http.get(f"/api/terminals{query}").json()]

    assert listed("") == names
    assert listed("?first=2") == names[:2]
    assert listed("?after=T-1&first=2") == names[2:4]
    assert listed("?after=T-4") == []
    assert listed("?first=1000") == names
    for wrong in ("first=0", "first=x", "first=", "first=-1", "first=1001", "after=%00"):
        answer = api.http.get(f"/api/terminals?{wrong}")
        assert answer.status_code in (400, 409), wrong
        assert answer.json()["hint"]


def test_updates_are_listed_some_at_a_time(api: Api) -> None:
    order_for_some(api, 5)

    def listed(query: str) -> list[int]:
        return [item["id"] for item in api.http.get(f"/api/updates{query}").json()]

    assert listed("") == [1, 2, 3, 4, 5]
    assert listed("?first=2") == [1, 2]
    assert listed("?after=0&first=1") == [1]
    assert listed("?after=2&first=2") == [3, 4]
    assert listed("?after=5") == []
    assert listed(f"?after={MAX_ID}&first=1000") == []
    for wrong in ("first=0", "first=1001", "after=", "after=x", "after=-1", f"after={MAX_ID + 1}"):
        answer = api.http.get(f"/api/updates?{wrong}")
        assert answer.status_code == 400, wrong
        assert answer.json()["hint"].startswith("give "), wrong


def test_images_and_preparations_are_listed_some_at_a_time(api: Api) -> None:
    keep_images(api.core, 4)
    for path, key in (("images", "digest"), ("preparations", "id")):
        known = api.http.get(f"/api/{path}").json()
        names = [item[key] for item in known]
        assert len(set(names)) == len(known) == {"images": 4, "preparations": 3}[path]
        for query, expected in (
            ("first=2", known[:2]),
            (f"after={names[0]}", known[1:]),
            (f"after={names[0]}&first=1", known[1:2]),
            (f"after={names[-1]}", []),
        ):
            assert api.http.get(f"/api/{path}?{query}").json() == expected, query
        for wrong in ("first=0", "first=1001", "after=", "after=x"):
            answer = api.http.get(f"/api/{path}?{wrong}")
            assert answer.status_code == 400, wrong
            assert answer.json()["hint"].startswith("give "), wrong


def keep_images(core: ServerCore, count: int) -> list[Image]:
    """So many images, and what is prepared from the first to each of the others."""
    images = [core.publish(make_image(f"1.{n}.0+0"), float(n)) for n in range(count)]
    for image in images[1:]:
        core.records.save_preparation(
            Preparation(
                *(images[0].digest, image.digest, PreparationState.READY, 1, 9, "", 5.0, 5.0)
            )
        )
    return images


def test_lists_are_cut_by_the_database(tmp_path: Path) -> None:
    with closing(SqlRecords(str(tmp_path / "records.db"))) as records:
        core = ServerCore(records, inspect)
        http = open_http(core, lambda: 1.0)
        images = keep_images(core, 40)
        for image in images[1:]:
            ranges = [
                Range(kind, 4096 * number, 4096)
                for kind in (RangeKind.ERASE, RangeKind.WRITE)
                for number in range(3)
            ]
            records.set_ranges(images[0].digest, image.digest, ranges)
        shown = http.get("/api/preparations").json()
        assert shown[5]["ranges"] == {
            "difference": {"count": 0, "bytes": 0},
            "erase": {"count": 3, "bytes": 3 * 4096},
            "write": {"count": 3, "bytes": 3 * 4096},
        }
        digests = [item["digest"] for item in http.get("/api/images").json()]
        for path, after, read in (
            # The one before, and the next two.
            ("images", digests[9], [1, 2]),
            # Also their three images, and two sums for each of the two kinds of their ranges.
            ("preparations", shown[9]["id"], [1, 2, 3, 4, 4]),
        ):
            with count_rows() as rows, list_statements() as said:
                found = http.get(f"/api/{path}?first=2&after={after}").json()
            assert len(found) == 2
            assert sorted(rows) == read, path
            assert said.count("SELECT") == len(read), path


def test_the_events_of_a_terminal_are_listed_some_at_a_time(
    api: Api, client: ServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for serial in (SERIAL, "other", SERIAL):
        for number in range(3):
            api.register(serial=serial, version=f"1.{number}.0", digest=bytes([number]) * 32)
    whole = api.http.get(f"/api/terminals/{SERIAL}").json()
    ids = [item["id"] for item in whole["events"]]
    assert ids == [1, 2, 3, 7, 8, 9]
    some = api.http.get(f"/api/terminals/{SERIAL}?after=2&first=3").json()
    assert [item["id"] for item in some["events"]] == [3, 7, 8]
    assert {**some, "events": whole["events"]} == whole
    assert api.http.get(f"/api/terminals/{SERIAL}?after=x").status_code == 400
    for at_once in (1, 3, 6, 7):
        for module in ("client", "http"):
            monkeypatch.setattr(f"unbrick.server.edge.{module}.MOST_LISTED", at_once)
        assert client.terminal(SERIAL) == whole


def test_the_sizes_of_files_are_asked_for_together(tmp_path: Path) -> None:
    with closing(SqlRecords(str(tmp_path / "records.db"))) as records:
        core = ServerCore(records, inspect)
        old, new = (core.publish(make_image(version), 0.0) for version in ("1.0.0+0", "1.1.0+0"))
        records.save_preparation(
            Preparation(*(old.digest, new.digest, PreparationState.READY, 1, 9, "", 5.0, 5.0))
        )
        for number in range(6):
            request = post("register", registration(serial=f"T {number}").encode())
            core.handle("127.0.0.1:4000", request, 0.0)
            update = core.start_update(f"T {number}", "1.1.0", 0.0)
            kind = Kind.DIFFERENTIAL if number % 2 else Kind.FULL_IMAGE
            base = old.digest if number < 4 else b"unknown"
            records.save_update(replace(update, kind=kind, from_digest=base))
        http = open_http(core, lambda: 1.0)
        with list_statements() as said:
            sizes = [item["size"] for item in http.get("/api/updates").json()]
        full = len(make_image())
        assert sizes == [full, 9, full, 9, full, full]
        # The updates, their images, what is prepared, and the one file that is not.
        assert said.count("SELECT") == 4


def order_for_some(api: Api, count: int) -> None:
    """Updates of so many terminals."""
    api.core.publish(IMAGE, 1_600_000_000.0)
    for number in range(count):
        api.register(serial=f"T {number}")
        api.core.start_update(f"T {number}", "1.1.0", 1_600_000_000.0)


# The client that the command line uses


def test_the_client_lists_all_there_is(
    api: Api, client: ServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_for_some(api, 6)
    keep_images(api.core, 4)
    known = [client.images(), client.preparations()]
    names = [f"T {number}" for number in range(6)]
    for at_once in (1, 2, 3, 6, 7):
        for module in ("client", "http"):
            monkeypatch.setattr(f"unbrick.server.edge.{module}.MOST_LISTED", at_once)
        assert [item["serial"] for item in client.terminals()] == names
        assert [item["id"] for item in client.updates()] == [1, 2, 3, 4, 5, 6]
        assert len(api.http.get("/api/updates").json()) == min(at_once, 6)
        assert [client.images(), client.preparations()] == known


def test_the_client_does_not_ask_for_ever(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    order_for_some(api, 2)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        """As a server that does not know ``after`` would."""
        asked.append(request.url.path)
        found = api.http.get(request.url.path, params={"first": "2"})
        return httpx.Response(200, json=found.json())

    monkeypatch.setattr("unbrick.server.edge.client.MOST_LISTED", 2)
    with ServerClient("http://old.example", httpx.MockTransport(answer)) as old:
        for ask in (old.terminals, old.updates, lambda: old.terminal("T 1")):
            asked.clear()
            with pytest.raises(ServerError, match="lists the same again") as caught:
                ask()
            assert "version" in caught.value.hint
            assert len(asked) == 2


def test_the_client_speaks_the_api(api: Api, client: ServerClient) -> None:
    api.register()
    assert client.publish(IMAGE)["version"] == "1.1.0+0"
    assert [item["serial"] for item in client.terminals()] == [SERIAL]
    assert [item["version"] for item in client.images()] == ["1.1.0+0"]
    assert client.start(SERIAL, "1.1.0")["id"] == 1
    assert client.update(1)["state"] == "pending"
    assert client.send_text(SERIAL, "hello")["state"] == "queued"
    assert client.cancel(1)["state"] == "cancelled"
    assert [item["state"] for item in client.watch(1)] == ["cancelled"]
    assert len(client.updates()) == 1


def test_the_client_says_what_the_server_said(api: Api, client: ServerClient) -> None:
    with pytest.raises(ImageError, match="this is no image") as caught:
        client.publish(b"x")
    assert caught.value.hint == "give an image"
    with pytest.raises(ServerError, match="there is no update 5"):
        client.update(5)
    with pytest.raises(ServerError, match="no software management server"):
        client._ask("HEAD", "/api/updates")


def test_the_client_says_that_nobody_is_there() -> None:
    with ServerClient("http://127.0.0.1:1") as client, pytest.raises(ServerError) as caught:
        client.terminals()
    assert "no server answers at http://127.0.0.1:1" in str(caught.value)
    assert "unbrick server start" in caught.value.hint


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://[", "http://x:y"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(SetupError, match="no address of a server"), ServerClient(url) as client:
        client.terminals()
