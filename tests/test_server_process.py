"""The server, the bridge and the commands as processes; the server killed at any point."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiocoap
import click
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from patience import PATIENCE_S, until
from server_world import SERIAL, get_block, post, registration

import unbrick
from unbrick.cli.server import COMMANDS
from unbrick.errors import (
    ImageError,
    PortError,
    ServerError,
    SetupError,
    UnbrickError,
    UpdateError,
)
from unbrick.image.format import inspect
from unbrick.image.sign import sign
from unbrick.layout import reference_layout
from unbrick.server.edge.client import ServerClient
from unbrick.wire.coap import CoapEndpoint
from unbrick.wire.messages import Announcement, Decision, Phase, Report, Result, Text
from unbrick.wire.slipmux import encode

LAYOUT = reference_layout()
MAIN = """
import sys, click
from unbrick.cli.server import COMMANDS
from unbrick.errors import UnbrickError
try:
    click.Group(commands=COMMANDS).main(standalone_mode=False)
except UnbrickError as error:
    print(f"{error}. {error.hint}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    """A command of ours as a process."""
    path = str(Path(unbrick.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


class ServerProcess:
    """A server on free ports, with a database that outlives it."""

    def __init__(self, database: Path | str, *, insecure: bool = True) -> None:
        self._process = start(
            *("server", "start", "--coap-port", "0", "--http-port", "0"),
            *("--database", str(database)),
            *(["--insecure"] if insecure else []),
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.fullmatch(
            r"server: ready, coap://127\.0\.0\.1:(\d+) (http://127\.0\.0\.1:\d+)\n", line
        )
        if found is None:
            _, errors = self._process.communicate()
            raise AssertionError(f"not ready: {line!r} {errors}")
        self.coap_port = int(found[1])
        self.url = found[2]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, errors

    def kill(self) -> None:
        if self._process.poll() is None:
            self.stop(signal.SIGKILL)


AMID = 50
"""Registrations that a server has acknowledged when it is killed amid others."""

Start = Callable[[], ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Start]:
    """Starts servers on one database, each after the other."""
    servers: list[ServerProcess] = []

    def start_() -> ServerProcess:
        servers.append(ServerProcess(tmp_path / "server.db"))
        return servers[-1]

    yield start_
    for server in servers:
        server.kill()


def make_signed(tmp_path: Path, version: str, counter: int = 1) -> Path:
    key = tmp_path / "key.pem"
    if not key.exists():
        private = Ed25519PrivateKey.from_private_bytes(bytes(32))
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    start_ = LAYOUT.partition("application").offset + LAYOUT.image_header_size
    head = LAYOUT.board.sram.end.to_bytes(4, "little") + (start_ + 0x41).to_bytes(4, "little")
    binary = head + random.Random(version).randbytes(6000)
    image = sign(
        binary,
        name="terminal",
        version=version,
        build_time="2024-05-01T12:00:00Z",
        hardware_id=LAYOUT.hardware_id,
        security_counter=counter,
        key=key,
    )
    file = tmp_path / f"terminal-{version}.bin"
    file.write_bytes(image)
    return file


class UdpTerminal:
    """A terminal without bridge: a blocking UDP socket and the manners of the protocol."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(0.05)
        self._coap = CoapEndpoint(self._handle, random.Random(port))
        self.texts: list[str] = []
        self.announced: list[Announcement] = []

    def __enter__(self) -> UdpTerminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def ask(self, message: Any, alive: Callable[[], bool] = lambda: True) -> Any:
        """The answer to a request.

        Raises:
            OSError: the server is not alive any more.
        """
        self._coap.request(message, 1, time.monotonic())
        while alive():
            self.serve()
            for outcome in self._coap.take_outcomes():
                assert outcome.response is not None, "the server does not answer"
                return outcome.response
        raise OSError("no answer")

    def serve(self) -> None:
        for datagram in self._coap.take_datagrams():
            self._socket.send(datagram)
        try:
            self._coap.receive(self._socket.recv(2048), time.monotonic())
        except TimeoutError:
            self._coap.poll(time.monotonic())
        for datagram in self._coap.take_datagrams():
            self._socket.send(datagram)

    def _handle(self, request: Any, _now: float) -> Any:
        response = aiocoap.Message(code=aiocoap.CHANGED)
        if request.opt.uri_path == ("announce",):
            self.announced.append(Announcement.decode(request.payload))
            response.payload = Decision(Result.SUCCESS, 0, 0, "").encode()
        elif request.opt.uri_path == ("message",):
            self.texts.append(Text.decode(request.payload).text)
        return response


def report(phase: Phase) -> Any:
    old = registration()
    payload = Report(SERIAL, 1, phase, Result.SUCCESS, old.version, old.digest, "").encode()
    return post("report", payload)


def states(client: ServerClient) -> list[str]:
    return [event["state"] for event in client.update(1)["events"] if event["state"]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_ends_well(start_server: Start, number: int) -> None:
    server = start_server()
    with ServerClient(server.url) as client:
        assert client.terminals() == []
        assert server.stop(number) == (0, "")
        with pytest.raises(ServerError, match="no server answers"):
            client.terminals()


@pytest.mark.slow
def test_a_server_killed_between_any_two_answers_keeps_its_word(
    start_server: Start, tmp_path: Path
) -> None:
    """After every answer the server is killed; what it had answered is what its successor says."""
    image = make_signed(tmp_path, "1.1.0").read_bytes()
    info = inspect(image)
    server = start_server()

    def kill() -> None:
        nonlocal server
        server.stop(signal.SIGKILL)
        server = start_server()

    def client() -> ServerClient:
        return ServerClient(server.url)

    with client() as http:
        http.publish(image)
    kill()
    with client() as http, UdpTerminal(server.coap_port) as terminal:
        assert [item["version"] for item in http.images()] == ["1.1.0+0"]
        assert str(terminal.ask(post("register", registration().encode())).code) == "2.04 Changed"
    kill()
    with client() as http:
        assert [item["serial"] for item in http.terminals()] == [SERIAL]
        assert http.start(SERIAL, "1.1.0")["id"] == 1
        http.send_text(SERIAL, "hello")
    kill()
    with client() as http, UdpTerminal(server.coap_port) as terminal:
        assert http.update(1)["state"] in ("pending", "announced")
        terminal.ask(post("register", registration().encode()))
        while not (terminal.announced and terminal.texts):
            terminal.serve()
        assert terminal.announced[0].image_digest == info.digest
        assert terminal.texts == ["hello"]
        until(lambda: http.update(1)["state"] == "transferring")
        first = terminal.ask(get_block(1, 0)).payload
    kill()
    with client() as http, UdpTerminal(server.coap_port) as terminal:
        assert http.update(1)["state"] == "transferring"
        rest = [terminal.ask(get_block(1, number)).payload for number in range(1, 7)]
        assert b"".join([first, *rest]) == image
        terminal.ask(report(Phase.CHECKED))
    kill()
    with client() as http, UdpTerminal(server.coap_port) as terminal:
        assert http.update(1)["state"] == "checked"
        terminal.ask(report(Phase.REWRITING))
        new = registration(digest=info.digest, version="1.1.0+0", last_update_id=1)
        terminal.ask(post("register", new.encode()))
    kill()
    with client() as http:
        assert http.update(1)["state"] == "succeeded"
        assert http.terminals()[0]["version"] == "1.1.0+0"
        course = [state for index, state in enumerate(states(http)) if index]
        assert course == ["announced", "transferring", "checked", "rewriting", "succeeded"]


@pytest.mark.slow
def test_claim_b2_a_server_prepares_beside_its_work_also_when_it_is_killed(
    start_server: Start, tmp_path: Path
) -> None:
    images = [make_signed(tmp_path, version).read_bytes() for version in ("1.0.0", "1.1.0")]
    server = start_server()
    with ServerClient(server.url) as http, UdpTerminal(server.coap_port) as terminal:
        said = registration(digest=inspect(images[0]).digest)
        terminal.ask(post("register", said.encode()))
        for image in images:
            http.publish(image)
        (listed,) = http.terminals()
        assert listed["upgrade"]["needed"]
        server.stop(signal.SIGKILL)
    server = start_server()
    with ServerClient(server.url) as http:
        until(lambda: [item["state"] for item in http.preparations()] == ["ready"])
        (ready,) = http.preparations()
        assert (ready["from_version"], ready["version"]) == ("1.0.0+0", "1.1.0+0")
        assert ready["ranges"]["erase"] == {"count": 1, "bytes": LAYOUT.board.nor.block_size}
        shown = invoke("preparations", "--server-url", server.url).output
        assert "1.0.0+0" in shown
        assert "ready" in shown
        assert "upgrade" in invoke("terminals", "--server-url", server.url).output
        shown = invoke("terminal", SERIAL, "--server-url", server.url).output
        assert "runs terminal 1.0.0+0, built 2024-01-01" in shown
        assert "1.0.0+0, until now" in shown
        assert "upgrade: 1.1.0+0 is newer than 1.0.0+0" in shown
        with pytest.raises(ServerError, match="no terminal a/b"):
            invoke("terminal", "a/b", "--server-url", server.url)
    assert server.stop() == (0, "")


@pytest.mark.slow
def test_a_server_on_postgresql_that_is_killed_goes_on(new_postgresql: str) -> None:
    server = ServerProcess(new_postgresql)
    try:
        with ServerClient(server.url) as http, UdpTerminal(server.coap_port) as terminal:
            terminal.ask(post("register", registration().encode()))
            http.send_text(SERIAL, "hello")
            server.kill()
        server = ServerProcess(new_postgresql)
        with ServerClient(server.url) as http, UdpTerminal(server.coap_port) as terminal:
            assert [item["serial"] for item in http.terminals()] == [SERIAL]
            terminal.ask(post("register", registration().encode()))
            while not terminal.texts:
                terminal.serve()
        assert server.stop() == (0, "")
    finally:
        server.kill()


@pytest.mark.slow
def test_a_server_killed_amid_many_registrations_has_all_that_it_acknowledged(
    start_server: Start,
) -> None:
    server = start_server()
    acknowledged: list[str] = []

    def kill() -> None:
        until(lambda: len(acknowledged) >= AMID, "many registrations")
        server.stop(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with UdpTerminal(server.coap_port) as terminal, contextlib.suppress(OSError):
        killer.start()
        while killer.is_alive():
            serial = f"T-{len(acknowledged)}"
            terminal.ask(post("register", registration(serial=serial).encode()), killer.is_alive)
            acknowledged.append(serial)
    killer.join()
    assert len(acknowledged) >= AMID
    with ServerClient(start_server().url) as client:
        kept = {item["serial"] for item in client.terminals()}
    assert kept >= set(acknowledged)
    assert len(kept) - len(acknowledged) <= 1


# The commands


def invoke(*arguments: str) -> Any:
    """Runs a command; errors of ours are raised as they are for the command line to show."""
    group = click.Group(commands=COMMANDS)
    result = CliRunner().invoke(group, arguments, standalone_mode=False)
    if isinstance(result.exception, UnbrickError):
        raise result.exception
    assert result.exception is None, result.exception
    return result


@pytest.mark.slow
def test_the_commands_from_publishing_to_success(start_server: Start, tmp_path: Path) -> None:
    server = start_server()
    url = ("--server-url", server.url)
    assert invoke("terminals", *url).output == "no terminal has registered\n"
    assert invoke("images", *url).output == "no image is published\n"
    assert invoke("update", "list", *url).output == "there are no updates\n"
    file = make_signed(tmp_path, "1.1.0", counter=2)
    output = invoke("publish", str(file), *url).output
    assert output == "published terminal 1.1.0+0 for unbrick-a9-r1\n"
    assert "1.1.0+0" in invoke("images", *url).output
    with UdpTerminal(server.coap_port) as terminal:
        terminal.ask(post("register", registration().encode()))
        assert SERIAL in invoke("terminals", *url).output
        assert "update 1 of T-0001" in invoke("update", "start", SERIAL, "1.1.0", *url).output
        with pytest.raises(ServerError, match="still"):
            invoke("update", "start", SERIAL, "1.1.0", *url)
        invoke("message", SERIAL, "hello", *url)
        while not (terminal.announced and terminal.texts):
            terminal.serve()
        digest = inspect(file.read_bytes()).digest
        new = registration(digest=digest, version="1.1.0+0", last_update_id=1)
        terminal.ask(post("register", new.encode()))
    shown = invoke("update", "show", "1", *url).output
    assert shown.startswith("update 1 of T-0001, 1.0.0+0 to 1.1.0+0: succeeded\n")
    assert "announced" in shown
    assert json.loads(invoke("update", "show", "1", "--json", *url).output)["ended"] is True
    assert json.loads(invoke("terminals", "--json", *url).output)[0]["version"] == "1.1.0+0"
    assert "succeeded" in invoke("update", "list", *url).output


@pytest.mark.slow
def test_waiting_for_an_update_ends_with_it(start_server: Start, tmp_path: Path) -> None:
    server = start_server()
    with ServerClient(server.url) as client:
        client.publish(make_signed(tmp_path, "1.1.0").read_bytes())
        waiting = start("update", "start", SERIAL, "1.1.0", "--wait", "--server-url", server.url)
        until(lambda: client.updates() != [])
        assert "is cancelled" in invoke("update", "cancel", "1", "--server-url", server.url).output
        _, errors = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == UpdateError.exit_code
    assert "update 1 cancelled" in errors


def test_what_cannot_be_published(start_server: Start, tmp_path: Path) -> None:
    server = start_server()
    junk = tmp_path / "junk.bin"
    junk.write_bytes(bytes(1000))
    with pytest.raises(ImageError):
        invoke("publish", str(junk), "--server-url", server.url)
    with pytest.raises(SetupError, match="cannot read"):
        invoke("publish", str(tmp_path / "missing.bin"), "--server-url", server.url)


@pytest.mark.slow
def test_a_server_on_a_port_that_is_taken_says_so(start_server: Start, tmp_path: Path) -> None:
    server = start_server()
    port = server.url.rpartition(":")[2]
    for option, number in (("--http-port", port), ("--coap-port", str(server.coap_port))):
        other = {"--http-port": "--coap-port", "--coap-port": "--http-port"}[option]
        database = str(tmp_path / "other.db")
        process = start("server", "start", option, number, other, "0", "--database", database)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == PortError.exit_code
        assert f"port {number} of 127.0.0.1 cannot be used" in errors
        assert "Traceback" not in errors


@pytest.mark.slow
def test_the_bridge_as_a_process_carries_and_ends_well(start_server: Start) -> None:
    server = start_server()
    bridge = start(
        "bridge", "--modem", "listen:127.0.0.1:0", "--server", f"127.0.0.1:{server.coap_port}"
    )
    try:
        assert bridge.stdout is not None
        line = bridge.stdout.readline()
        found = re.fullmatch(r"bridge: ready, port (\d+) <-> coap://127\.0\.0\.1:\d+\n", line)
        assert found is not None
        message = post("register", registration().encode())
        endpoint = CoapEndpoint(lambda request, _now: request, random.Random(1))
        endpoint.request(message, 1, 0.0)
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=PATIENCE_S) as modem:
            modem.sendall(encode(endpoint.take_datagrams()[0]))
            assert modem.recv(1)
        with ServerClient(server.url) as client:
            assert [item["serial"] for item in client.terminals()] == [SERIAL]
        bridge.send_signal(signal.SIGTERM)
        _, errors = bridge.communicate(timeout=PATIENCE_S)
        assert (bridge.returncode, errors) == (0, "")
    finally:
        if bridge.poll() is None:
            bridge.kill()
            bridge.communicate()


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SetupError, match="no address"):
        invoke("bridge", "--modem", "tcp:nowhere")
    result = CliRunner().invoke(
        click.Group(commands=COMMANDS), ["bridge", "--modem", "x", "--drop", "2"]
    )
    assert result.exit_code == 2
    assert "--drop" in result.output
