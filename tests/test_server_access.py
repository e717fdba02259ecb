"""Who may use the HTTP API, and by which name it is reached."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from processes import Running
from server_world import OWN_TOKEN, SERIAL, inspect, open_client, open_http, post, registration
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from unbrick.cli.server import server
from unbrick.errors import ServerError, SetupError
from unbrick.folders import state_folder
from unbrick.server.core.core import ServerCore
from unbrick.server.database import SqlRecords
from unbrick.server.edge.access import TOKEN_VARIABLE, add_token, find_token, make_token
from unbrick.server.edge.client import ServerClient
from unbrick.server.edge.exposure import Exposure, HostGuard
from unbrick.server.records.access import AccessRole
from unbrick.server.records.memory import MemoryRecords

NOW = 1_700_000_000.0

OPEN = {("GET", "/health"), ("GET", "/api/openapi.json")}
"""What everybody may ask."""

ROUTES = {
    AccessRole.VIEWER: [
        ("GET", "/metrics"),
        ("GET", "/api/terminals"),
        ("GET", f"/api/terminals/{SERIAL}"),
        ("GET", "/api/preparations"),
        ("GET", "/api/images"),
        ("GET", "/api/updates"),
        ("GET", "/api/updates/1"),
        ("GET", "/api/sessions/1"),
        ("GET", "/api/waiting"),
        ("GET", "/api/rollouts"),
        ("GET", "/api/rollouts/1"),
        ("GET", "/api/rollouts/1/members"),
    ],
    AccessRole.OPERATOR: [
        ("POST", "/api/images"),
        ("POST", "/api/updates"),
        ("DELETE", "/api/updates/1"),
        ("DELETE", "/api/updates/1/backup"),
        ("POST", "/api/messages"),
        ("POST", "/api/approvals"),
        ("POST", "/api/rollouts"),
        *(
            ("POST", f"/api/rollouts/1/{deed}")
            for deed in ("approve", "pause", "resume", "abandon")
        ),
    ],
    AccessRole.CENTER: [
        ("POST", "/api/center"),
        ("DELETE", "/api/center"),
        ("PUT", "/api/calls/1/texts/1"),
    ],
}


class Api:
    """The API over a core in memory, for senders with any token. Tests move its clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.core = ServerCore(MemoryRecords(), inspect)
        self.core.handle("127.0.0.1:4000", post("register", registration().encode()), NOW)

    def http(self, token: str) -> Any:
        return open_http(self.core, lambda: self.now, token=token)

    def add(self, role: AccessRole, **more: Any) -> str:
        return add_token(self.core.records.tokens, "somebody", role, NOW, **more)


@pytest.fixture
def api() -> Api:
    return Api()


def test_every_address_is_here_with_its_role(api: Api) -> None:
    known = {
        (method, re.sub(r"\{\w+:int\}", "1", route.path).replace("{serial:path}", SERIAL))
        for route in api.http("").app.routes
        for method in route.methods - {"HEAD"}
    }
    assert known == {item for items in ROUTES.values() for item in items} | OPEN


@pytest.mark.parametrize("role", list(AccessRole))
def test_a_token_lets_its_role_do_what_it_may_and_no_more(api: Api, role: AccessRole) -> None:
    http = api.http(api.add(role))
    for needed, addresses in ROUTES.items():
        for method, path in addresses:
            response = http.request(method, path)
            may = role.includes(needed)
            assert (response.status_code != 403) is may, (method, path)
            if not may:
                assert response.json() == {
                    "error": f"a token of a {role.value} does not let you do this",
                    "hint": f"use one of a {needed.value}",
                }


@pytest.mark.parametrize("token", ["", "wrong", "unbrick_" + 43 * "x", OWN_TOKEN[:-1]])
@pytest.mark.parametrize(
    ("method", "path"), [address for group in ROUTES.values() for address in group]
)
def test_who_is_not_known_does_nothing(api: Api, token: str, method: str, path: str) -> None:
    api.add(AccessRole.CENTER)
    response = api.http(token).request(method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert set(response.json()) == {"error", "hint"}


@pytest.mark.parametrize(("method", "path"), sorted(OPEN))
def test_some_may_be_asked_by_everybody(api: Api, method: str, path: str) -> None:
    assert api.http("").request(method, path).status_code == 200


@pytest.mark.parametrize("scheme", ["Basic", "", "Bearer:"])
def test_a_token_is_shown_as_one(api: Api, scheme: str) -> None:
    token = api.add(AccessRole.VIEWER)
    headers = {"authorization": f"{scheme} {token}".strip()}
    assert api.http("").get("/api/terminals", headers=headers).status_code == 401
    headers = {"authorization": f"bearer {token}"}
    assert api.http("").get("/api/terminals", headers=headers).status_code == 200


def test_a_token_ends_and_is_replaced_and_is_taken_away(api: Api) -> None:
    first = api.add(AccessRole.VIEWER, lifetime_s=60.0)
    status = lambda token: api.http(token).get("/api/terminals").status_code  # noqa: E731
    api.now = NOW + 59.9
    assert status(first) == 200
    api.now = NOW + 60.0
    assert status(first) == 401
    second = api.add(AccessRole.VIEWER)
    api.now = NOW + 1e9
    assert (status(first), status(second)) == (401, 200)
    assert api.core.records.tokens.remove("somebody")
    assert not api.core.records.tokens.remove("somebody")
    assert status(second) == 401


def test_no_token_is_in_the_database(tmp_path: Path) -> None:
    records = SqlRecords(str(tmp_path / "server.db"))
    token = add_token(records.tokens, "somebody", AccessRole.VIEWER, NOW)
    records.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"somebody" in kept
    assert token.encode() not in kept
    assert token.removeprefix("unbrick_").encode() not in kept


# ---- Commands ----


def test_the_commands_make_list_and_remove_tokens(tmp_path: Path) -> None:
    database = ("--database", str(tmp_path / "server.db"))
    runner = CliRunner()

    def run(*words: str) -> str:
        result = runner.invoke(server, ["token", *words, *database], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    assert "nobody has a token" in run("list")
    made = run("add", "Prometheus", "--for-ever").strip()
    run("add", "Ada", "--role", "operator", "--days", "1")
    listed = run("list")
    assert "Prometheus" in listed
    assert "never" in listed
    assert "operator" in listed
    assert made not in listed
    records = SqlRecords(str(tmp_path / "server.db"))
    ada, prometheus = records.tokens.list()
    records.close()
    assert ada.expires == ada.created + 86_400
    assert (prometheus.role, prometheus.expires) == (AccessRole.VIEWER, None)
    assert run("remove", "Ada") == "Ada may not use the server any more\n"
    with pytest.raises(SetupError, match="nobody called 'Ada' has a token"):
        run("remove", "Ada")


# ---- Names ----


async def _hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("192.168.1.5", True),
        ("localhost:8080", True),
        ("LOCALHOST.", True),
        ("updates.example:443", True),
        ("evil.example:8080", False),
        ("updates.example.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example@localhost", True),  # Its host is localhost.
        ("", False),
        ("[", False),
    ],
)
def test_only_names_that_are_the_servers_are_answered(host: str, meant: bool) -> None:
    app = HostGuard(Starlette(routes=[Route("/", _hello)]), ["Updates.example"])
    response = open_client(app).get("/", headers={"host": host})
    assert response.status_code == (200 if meant else 421)
    if not meant:
        assert set(response.json()) == {"error", "hint"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.5.5.5"])
def test_a_port_of_this_machine_needs_no_https(host: str) -> None:
    Exposure(host, 0).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])  # noqa: S104
def test_a_port_for_others_needs_https(host: str) -> None:
    with pytest.raises(SetupError, match=r"nobody could sign in at .* without HTTPS"):
        Exposure(host, 0).check()
    Exposure(host, 0, behind_proxy=True).check()
    Exposure(host, 0, certificate=Path("x.pem")).check()


# ---- A server's own user ----


def test_the_environment_comes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    token = make_token()
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    assert find_token("http://127.0.0.1:1") == token
    assert find_token("https://updates.example") == token
    monkeypatch.setenv(TOKEN_VARIABLE, "two words")
    with pytest.raises(SetupError, match="UNBRICK_TOKEN holds is no token"):
        find_token("http://127.0.0.1:1")


def test_a_file_is_for_servers_on_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    (tmp_path / "unbrick").mkdir()
    (tmp_path / "unbrick" / "server-80.token").write_text("mine")
    assert find_token("http://localhost") == "mine"
    assert find_token("http://[::1]:80") == "mine"
    assert find_token("http://updates.example") == ""
    assert find_token("http://127.0.0.1:81") == ""


@pytest.mark.slow
def test_a_server_lets_in_its_own_user_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    database = ("--database", tmp_path / "server.db")
    options = ("--coap-port", 0, "--http-port", 0, *database)
    with Running("server", "start", *options, "--host-name", "updates.example") as running:
        url = running.wait_for(r"server: ready, \S+ (http://\S+)").group(1)
        (file,) = state_folder().iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with ServerClient(url) as own:
            assert own.terminals() == []
        with (
            ServerClient(url, token="") as stranger,
            pytest.raises(ServerError, match="does not know who asks") as caught,
        ):
            stranger.terminals()
        assert "unbrick server token add" in caught.value.hint
        token = file.read_text()
        signed_in = {"authorization": f"Bearer {token}"}
        rebound = {**signed_in, "host": "evil.example:8080", "origin": "http://evil.example:8080"}
        with httpx.Client(base_url=url, trust_env=False) as http:
            text = {"serial": SERIAL, "text": "a lie"}
            assert http.post("/api/messages", json=text, headers=rebound).status_code == 421
            named = {**signed_in, "host": "updates.example"}
            assert http.get("/api/terminals", headers=named).status_code == 200
        assert running.end() == 0
    assert not file.exists()


@pytest.mark.slow
def test_a_server_that_cannot_leave_its_token_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", os.fspath(tmp_path / "file"))
    options = ("--coap-port", 0, "--http-port", 0, "--database", tmp_path / "server.db")
    with Running("server", "start", *options) as running:
        running.wait_for(r"cannot be left in \S+: .*")
        running.wait_for("XDG_STATE_HOME")
        assert running.wait() == 2
