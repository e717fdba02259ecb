"""Terminals that the server does not know: bounded, waiting for approval, at the cost of no row."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiocoap
import pytest
from click.testing import CliRunner
from patience import PATIENCE_S
from prometheus_client.parser import text_string_to_metric_families
from record_stores import STORES, Open, opener
from server_world import SERIAL, inspect, open_http, post, registration, serve_plainly

from unbrick.cli import server as commands
from unbrick.cli.server import server
from unbrick.server.core.admission import APPROVAL_WAIT_S, Admission, Limits, Unknown
from unbrick.server.core.core import ServerCore
from unbrick.server.edge.access import add_token
from unbrick.server.edge.client import ServerClient
from unbrick.server.edge.udp import CoapServer
from unbrick.server.records.access import AccessRole
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import AuditAction

NOW = 1_700_000_000.0
WAIT = Limits(Unknown.WAIT)


def make_core(limits: Limits = WAIT, records: Records | None = None) -> ServerCore:
    """A core as the server makes it."""
    records = records or MemoryRecords()
    known = {terminal.serial for terminal in records.terminals()} | records.approved()
    return ServerCore(records, inspect, admission=Admission(limits, known))


def register(core: ServerCore, serial: str = SERIAL, endpoint: str = "192.0.2.1:5683") -> Any:
    return core.handle(endpoint, post("register", registration(serial=serial).encode()), NOW)


def test_an_unknown_terminal_waits_and_costs_no_row() -> None:
    core = make_core()
    answer = register(core)
    assert answer.code == aiocoap.SERVICE_UNAVAILABLE
    assert answer.opt.max_age == APPROVAL_WAIT_S
    assert answer.payload == b""
    assert core.records.terminals() == []
    assert core.records.events() == []
    assert core.records.installations(SERIAL) == []
    assert [item.serial for item in core.waiting()] == [SERIAL]


@pytest.fixture(params=STORES)
def open_records(request: pytest.FixtureRequest, tmp_path: Any) -> Open:
    return opener(request, tmp_path)


def test_an_approved_terminal_is_taken_also_by_a_server_that_was_killed(
    open_records: Open,
) -> None:
    with open_records() as records:
        core = make_core(records=records)
        register(core)
        core.approve_terminal(SERIAL, "ada", NOW)
        core.approve_terminal(SERIAL, "bob", NOW)
        assert core.waiting() == []
        (entry,) = records.audit(serial=SERIAL)
        assert (entry.actor, entry.action) == ("ada", AuditAction.TERMINAL_APPROVED)
    with open_records() as records:
        core = make_core(records=records)
        assert register(core).code == aiocoap.CHANGED
        assert register(core, "T-0002").code == aiocoap.SERVICE_UNAVAILABLE
        assert [item.serial for item in records.terminals()] == [SERIAL]


def test_what_another_process_has_let_in_is_taken() -> None:
    records = MemoryRecords()
    core, other = make_core(records=records), make_core(Limits(), records)
    other.approve_terminal("approved", "ada", NOW)
    register(other, "registered")
    assert register(core, "approved").code == aiocoap.CHANGED
    assert register(core, "registered").code == aiocoap.CHANGED


def test_a_terminal_that_was_there_before_strangers_had_to_wait_is_taken() -> None:
    records = MemoryRecords()
    register(make_core(Limits(), records))
    assert register(make_core(records=records)).code == aiocoap.CHANGED


def test_the_api_shows_who_waits_and_lets_them_in() -> None:
    core = make_core()
    http = open_http(core, lambda: NOW)
    register(core)
    (waits,) = http.get("/api/waiting").json()
    assert (waits["serial"], waits["endpoint"], waits["times"]) == (SERIAL, "192.0.2.1:5683", 1)
    viewer = add_token(core.records.tokens, "looker", AccessRole.VIEWER, NOW)
    order = {"serial": SERIAL}
    refused = open_http(core, lambda: NOW, token=viewer).post("/api/approvals", json=order)
    assert refused.status_code == 403
    assert http.post("/api/approvals", json=order).status_code == 201
    assert http.get("/api/waiting").json() == []
    assert register(core).code == aiocoap.CHANGED
    again = http.post("/api/approvals", json=order)
    assert again.status_code == 409
    assert f"unbrick terminal {SERIAL}" in again.json()["hint"]
    assert http.post("/api/approvals", json={"serial": "\n"}).status_code == 409


def test_prometheus_is_told_of_refused_registrations() -> None:
    core = make_core(Limits(Unknown.WAIT, new_per_second=1 / 60))
    register(core)
    register(core, "T-0002")
    text = open_http(core, lambda: NOW).get("/metrics").text
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    refused = "unbrick_registrations_refused_total"
    assert found[refused, "approval"] == 1
    assert found[refused, "network"] == 1
    assert found[refused, "terminal"] == 0
    assert found["unbrick_terminals_waiting",] == 1
    assert SERIAL not in text, "no terminal is named"


def test_the_commands_show_who_waits_and_let_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    core = make_core()
    http = open_http(core, lambda: NOW)
    register(core)

    class Client(ServerClient):
        def __init__(self, _url: str) -> None:
            super().__init__("http://127.0.0.1:1", http._transport, token=http.headers["x"])

    http.headers["x"] = http.headers["authorization"].partition(" ")[2]
    monkeypatch.setattr(commands, "ServerClient", Client)

    def run(*words: str) -> str:
        result = CliRunner().invoke(server, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert SERIAL in run("waiting")
    assert json.loads(run("waiting", "--json"))[0]["serial"] == SERIAL
    assert run("approve", SERIAL) == f"{SERIAL} may register\n"
    assert run("waiting") == "no terminal waits for approval\n"


# On a real port


def with_server(core: ServerCore, test: Callable[[CoapServer], Awaitable[None]]) -> None:
    async def run() -> None:
        edge = serve_plainly(core)
        await edge.start("127.0.0.1", 0)
        try:
            await asyncio.wait_for(test(edge), PATIENCE_S)
        finally:
            await edge.close()

    asyncio.run(run())


async def ask(sock: socket.socket, serial: str, mid: int) -> Any:
    """Register from a socket; gives the answer."""
    request = post("register", registration(serial=serial).encode())
    request.mtype, request.mid, request.token = aiocoap.CON, mid, b"t"
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request.encode())
    answer = aiocoap.Message.decode(await loop.sock_recv(sock, 2048))
    assert (answer.mtype, answer.mid, answer.token) == (aiocoap.ACK, mid, b"t")
    return answer


def open_socket(edge: CoapServer) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(("127.0.0.1", edge.port))
    return sock


def test_refused_strangers_reach_neither_the_core_nor_the_memory_of_endpoints() -> None:
    core = make_core(Limits(new_per_second=1 / 60))
    assert register(core, "known", "127.0.0.1:1").code == aiocoap.CHANGED
    handled: list[str] = []
    handle = core.handle
    core.handle = lambda name, *rest: handled.append(name) or handle(name, *rest)  # type: ignore[method-assign,func-returns-value]

    async def test(edge: CoapServer) -> None:
        edge._clock = lambda: NOW
        known = open_socket(edge)
        for mid in range(20):
            with open_socket(edge) as stranger:
                answer = await ask(stranger, f"S-{mid}", mid)
            assert answer.code == aiocoap.TOO_MANY_REQUESTS
            assert 1 <= answer.opt.max_age <= 255
            assert (await ask(known, "known", mid)).code == aiocoap.CHANGED
        assert len(handled) == 20
        assert len(edge._peers) == 1
        known.close()

    with_server(core, test)
    assert [item.serial for item in core.records.terminals()] == ["known"]


def test_strangers_that_wait_do_not_push_out_those_that_are_spoken_with() -> None:
    core = make_core()
    core.approve_terminal("known", "ada", NOW)

    async def test(edge: CoapServer) -> None:
        known = open_socket(edge)
        assert (await ask(known, "known", 1)).code == aiocoap.CHANGED
        for mid in range(10):
            with open_socket(edge) as stranger:
                assert (await ask(stranger, f"S-{mid}", mid)).code == aiocoap.SERVICE_UNAVAILABLE
        assert len(edge._peers) == 1
        known.close()

    with_server(core, test)
