"""From the factory to the first registration: enrolment files, commands, the API, a server."""

from __future__ import annotations

import json
import random
import stat
import time
from pathlib import Path
from typing import Any

import aiocoap
import pytest
from click.testing import CliRunner
from processes import Running, unbrick
from server_world import SERIAL, inspect, open_http, post, registration
from test_server_process import UdpTerminal

from unbrick.cli.main import cli
from unbrick.errors import ServerError, SetupError
from unbrick.image.enrolment import (
    Enrolment,
    add_enrolment,
    enrol_identity,
    find_enrolment_file,
    parse_link_key,
    read_enrolments,
)
from unbrick.image.factory import Identity, derive_bench_key, derive_link_key, read_identity
from unbrick.server.core.admission import Admission, Limits, Reason
from unbrick.server.core.core import ServerCore
from unbrick.server.core.guard import LinkGuard
from unbrick.server.edge.client import ServerClient
from unbrick.server.edge.metrics import Metrics
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import AuditAction
from unbrick.wire.codec import decode
from unbrick.wire.oscore import Context, Side
from unbrick.wire.protected import ProtectedEndpoint

KEY = bytes(range(32))
NOW = 1000.0
HERE = "198.51.100.7:1000"


# Files


def test_an_enrolment_file_has_a_line_a_terminal_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "all.enrolment"
    for item in (Enrolment("A 1", KEY), Enrolment("B", KEY), Enrolment("A 1", bytes(32))):
        add_enrolment(file, item)
    assert file.read_text() == f"B {KEY.hex()}\nA 1 {bytes(32).hex()}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_enrolments(file) == [Enrolment("B", KEY), Enrolment("A 1", bytes(32))]
    assert list(file.parent.iterdir()) == [file]


def test_the_last_line_about_a_terminal_counts(tmp_path: Path) -> None:
    file = tmp_path / "e"
    file.write_text(f"A {KEY.hex()}\n\nA {bytes(32).hex()}")
    assert read_enrolments(file) == [Enrolment("A", bytes(32))]


@pytest.mark.parametrize(
    "text", ["nothing", f" {KEY.hex()}", "A 00", "A " + "g" * 64, "A" * 32 + f" {KEY.hex()}", "é"]
)
def test_what_is_no_enrolment_file_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "e"
    file.write_text(f"B {KEY.hex()}\n{text}\n")
    with pytest.raises(SetupError) as caught:
        read_enrolments(file)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert KEY.hex() not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No such file"):
        read_enrolments(tmp_path / "nowhere")
    (tmp_path / "e").touch()
    with pytest.raises(SetupError, match="cannot write"):
        add_enrolment(tmp_path / "e" / "f", Enrolment("A", KEY))


def test_a_terminal_without_a_key_cannot_be_enrolled() -> None:
    assert enrol_identity(Identity("A", "hw")) is None
    assert enrol_identity(Identity("A", "hw", KEY)) == Enrolment("A", derive_link_key(KEY))
    assert KEY.hex() not in repr(Enrolment("A", KEY))


def test_a_link_key_is_64_digits() -> None:
    assert parse_link_key(KEY.hex().upper()) == KEY
    with pytest.raises(SetupError, match="64 hexadecimal digits"):
        parse_link_key("12")


def test_the_factory_writes_the_enrolment_of_the_terminal_beside_its_nor(tmp_path: Path) -> None:
    boot, nor = tmp_path / "boot.bin", tmp_path / "t.nor"
    boot.write_bytes(bytes(100))
    words = ["image", "factory", "--boot", str(boot), "--serial", "T-9"]
    done = CliRunner().invoke(cli, [*words, "-o", str(nor)])
    assert done.exit_code == 0, done.output
    identity = read_identity(nor.read_bytes())
    assert read_enrolments(find_enrolment_file(nor)) == [enrol_identity(identity)]
    assert identity.key.hex() not in find_enrolment_file(nor).read_text()
    other = tmp_path / "fleet"
    for serial in ("T-1", "T-2"):
        words[-1] = serial
        again = [*words, "-o", str(nor), "--enrolment", str(other)]
        assert CliRunner().invoke(cli, again).exit_code == 0
    assert [item.serial for item in read_enrolments(other)] == ["T-1", "T-2"]


# The API, over a core


def make_core(limits: Limits | None = None) -> ServerCore:
    return ServerCore(MemoryRecords(), inspect, admission=Admission(limits or Limits()))


def protected(payload: bytes = b"") -> Any:
    """A registration as a terminal protects it."""
    context = Context(KEY, SERIAL, Side.TERMINAL)
    terminal = ProtectedEndpoint(lambda request, _now: request, random.Random(1), context, 1)
    terminal.request(post("register", payload or registration().encode()), 1, 0.0)
    return decode(terminal.take_datagrams()[0])


def test_who_has_no_key_is_listed_and_let_in_with_one() -> None:
    core = make_core()
    guard = LinkGuard(core)
    http = open_http(core, lambda: NOW, guard=guard)
    assert guard.handle(HERE, protected(), NOW).code == aiocoap.UNAUTHORIZED
    plain = post("register", registration(serial="T-0002").encode())
    assert guard.handle(HERE, plain, NOW).code == aiocoap.UNAUTHORIZED
    waits = {item["serial"]: item for item in http.get("/api/waiting").json()}
    assert sorted(waits) == sorted([SERIAL, "T-0002"])
    assert waits[SERIAL]["version"] == ""
    assert waits["T-0002"]["version"] == registration().version
    without = http.post("/api/approvals", json={"serial": SERIAL})
    assert without.status_code == 409
    assert "--key" in without.json()["hint"]
    for key in ("12", "x" * 64):
        wrong = http.post("/api/approvals", json={"serial": SERIAL, "key": key})
        assert wrong.status_code == 400, wrong.json()
    order = {"serial": SERIAL, "key": KEY.hex()}
    assert http.post("/api/approvals", json=order).status_code == 201
    assert [item["serial"] for item in http.get("/api/waiting").json()] == ["T-0002"]
    assert guard.handle(HERE, protected(), NOW).code == aiocoap.CHANGED
    assert core.records.terminal(SERIAL) is not None
    # Once more, also of a terminal that has registered: nothing changes.
    before = core.records.links.find(SERIAL)
    assert http.post("/api/approvals", json=order).status_code == 201
    assert core.records.links.find(SERIAL) == before
    actions = [entry.action for entry in core.records.audit(serial=SERIAL)]
    assert actions == [AuditAction.TERMINAL_ENROLLED]
    said = http.get("/metrics").text
    assert 'unbrick_link_refused_total{reason="unknown"} 1.0' in said
    assert 'unbrick_link_refused_total{reason="plain"} 1.0' in said


def test_an_insecure_server_approves_without_a_key() -> None:
    core = make_core()
    http = open_http(core, lambda: NOW, guard=LinkGuard(core, insecure=True))
    assert http.post("/api/approvals", json={"serial": SERIAL}).status_code == 201


def test_the_list_of_those_that_wait_is_bounded_like_registrations() -> None:
    core = make_core(Limits(new_per_second=1 / 60))
    guard = LinkGuard(core)
    for number in range(50):
        said = registration(serial=f"S-{number}")
        guard.handle(HERE, post("register", said.encode()), NOW)
    assert core.admission is not None
    assert len(core.waiting()) < 10
    assert core.admission.refused[Reason.NETWORK] > 40


@pytest.mark.parametrize("name", [b"", b"\xff\xfe", b"x" * 32, b"a\nb"])
def test_names_that_no_terminal_can_have_are_not_listed(name: bytes) -> None:
    core = make_core()
    guard = LinkGuard(core)
    request = aiocoap.Message(code=aiocoap.POST, payload=bytes(20))
    request.opt.oscore = bytes((0x19, 1, len(name))) + name
    assert guard.handle(HERE, request, NOW).code == aiocoap.UNAUTHORIZED
    assert core.waiting() == []


def test_metrics_without_a_guard_name_nobody_who_was_not_heard() -> None:
    assert b"unbrick_link_refused" not in Metrics(MemoryRecords()).write()


# A server as a process


@pytest.mark.slow
def test_a_terminal_that_was_enrolled_registers_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "factory.enrolment"
    link_key = derive_link_key(derive_bench_key(SERIAL))
    add_enrolment(file, Enrolment(SERIAL, link_key))
    options = ("--coap-port", 0, "--http-port", 0, "--database", tmp_path / "server.db")
    with Running("server", "start", *options) as server:
        found = server.wait_for(r"ready, coap://127\.0\.0\.1:(\d+) (\S+)")
        port, url = int(found[1]), found[2]
        with UdpTerminal(port) as terminal, ServerClient(url) as client:
            context = Context(link_key, SERIAL, Side.TERMINAL)
            terminal._coap = ProtectedEndpoint(terminal._handle, random.Random(1), context, 1)
            terminal._coap.request(post("register", registration().encode()), 1, time.monotonic())
            while not client.waiting():
                terminal.serve()
            assert client.terminals() == []
            assert [item["serial"] for item in client.waiting()] == [SERIAL]
            with pytest.raises(ServerError, match="key of its link"):
                client.approve(SERIAL)
            done = unbrick("server", "enrol", file, "--server-url", url, "--json")
            assert json.loads(done.stdout) == [SERIAL]
            while not (outcomes := terminal._coap.take_outcomes()):
                terminal.serve()
            assert outcomes[0].response.code == aiocoap.CHANGED
            client.send_text(SERIAL, "hello")
            while not terminal.texts:
                terminal.serve()
            assert [item["serial"] for item in client.terminals()] == [SERIAL]
            assert client.waiting() == []
        wrong = unbrick("server", "enrol", tmp_path / "nowhere", "--server-url", url)
        assert wrong.returncode == 2
        assert server.end() == 0
        assert len(server.output) == 1


@pytest.mark.slow
def test_a_server_that_hears_anybody_says_so_at_every_start(tmp_path: Path) -> None:
    options = ("--coap-port", 0, "--http-port", 0, "--database", tmp_path / "server.db")
    for _ in range(2):
        with Running("server", "start", "--insecure", *options) as server:
            server.wait_for("--insecure, anybody can speak")
            assert server.end() == 0
