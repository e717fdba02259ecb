"""A terminal's call while server or center is killed: processes, and a terminal on UDP (row B4)."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S
from processes import Running
from server_world import SERIAL, post, registration

from unbrick.server.core.lines import BROKEN_OFF
from unbrick.server.database import SqlRecords
from unbrick.wire.calls import CallRequest, Key, SayRequest
from unbrick.wire.coap import CoapEndpoint


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class User:
    """A terminal and its user on UDP: hears what is said, in the protocol of the link."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0.05)
        self._server = ("127.0.0.1", port)
        self._coap = CoapEndpoint(self._handle, random.Random(1))
        self._answers: dict[int, Any] = {}
        self._asked = 0
        self.heard: list[SayRequest] = []

    def _handle(self, request: Any, _now: float) -> Any:
        if request.opt.uri_path == ("say",):
            said = SayRequest.decode(request.payload)
            if said not in self.heard:
                self.heard.append(said)
        return post("", b"").copy(code=68, uri_path=())

    def step(self) -> None:
        now = time.monotonic()
        with contextlib.suppress(OSError):  # Nothing came, or nobody is there.
            self._coap.receive(self._socket.recv(2048), now)
        self._coap.poll(now)
        for outcome in self._coap.take_outcomes():
            self._answers[outcome.ticket] = outcome.response
        for datagram in self._coap.take_datagrams():
            self._socket.sendto(datagram, self._server)

    def until(self, true: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.step()
            if found := true():
                return found
        raise AssertionError(f"it never came; heard: {self.heard}")

    def asks(self, path: str, payload: bytes) -> Any:
        """Send a request, again as often as the protocol has it; gives the code of the answer."""
        self._asked += 1
        ticket = self._asked
        self._coap.request(post(path, payload), ticket, time.monotonic())
        return self.until(lambda: ticket in self._answers and self._answers[ticket]).code

    def calls(self, number: int) -> None:
        """Call until somebody takes the call."""
        call = CallRequest(SERIAL, number).encode()
        self.until(lambda: self.asks("call", call).is_successful())

    def hears(self, words: str) -> SayRequest:
        return next(iter(self.until(lambda: [s for s in self.heard if words in s.text])))

    def close(self) -> None:
        self._socket.close()


class Parts:
    """A server on ports that stay, a center, and a terminal that has registered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coap, self.http = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        self.running: list[Running] = []
        self.server = self.start_server()
        self.center = self.start_center()
        self.user = User(self.coap)
        assert self.user.asks("register", registration().encode()).is_successful()

    def _start(self, *words: object) -> Running:
        made = Running(*words)
        self.running.append(made)
        made.wait_for("ready")
        return made

    def start_server(self) -> Running:
        ports = ("--coap-port", self.coap, "--http-port", self.http)
        return self._start(
            "server", "start", "--insecure", *ports, "--database", self.folder / "s.db"
        )

    def start_center(self) -> Running:
        return self._start(
            *("center", "start", "--port", 0, "--server-url", f"http://127.0.0.1:{self.http}"),
            *("--database", self.folder / "s.db", "--accounts", self.folder / "c.db"),
        )


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    yield made
    made.user.close()
    for process in made.running:
        process.__exit__(None, None, None)


def kill(process: Running) -> None:
    process.end(signal.SIGKILL)


@pytest.mark.slow
def test_claim_b4_a_call_goes_on_although_the_server_is_killed(parts: Parts) -> None:
    user = parts.user
    user.calls(1)
    assert user.hears("there is nothing newer").count == 0
    kill(parts.server)
    key = Key(SERIAL, 1, 0, "9").encode()
    parts.server = parts.start_server()
    before = len(user.heard)
    assert user.asks("key", key).is_successful()
    assert user.asks("key", key).is_successful()
    user.until(lambda: len(user.heard) > before)
    assert user.heard[before].text == user.heard[0].text
    assert [said.count for said in user.heard] == list(range(len(user.heard)))
    user.asks("key", Key(SERIAL, 1, 1, "0").encode())
    assert user.hears("Goodbye").last
    records = SqlRecords(str(parts.folder / "s.db"))
    (call,) = records.calls()
    assert (call.keys, call.outcome) == ("90", "ended by the caller's choice")
    records.close()


@pytest.mark.slow
@pytest.mark.parametrize("another", [False, True], ids=["alone", "another center starts"])
def test_claim_b4_the_user_hears_when_the_center_is_killed(parts: Parts, *, another: bool) -> None:
    user = parts.user
    user.calls(1)
    user.hears("there is nothing newer")
    kill(parts.center)
    if another:
        parts.center = parts.start_center()
    assert user.hears(BROKEN_OFF).last
    user.heard.clear()
    if not another:
        call = CallRequest(SERIAL, 2).encode()
        assert str(user.asks("call", call)) == "5.03 Service Unavailable"
        parts.center = parts.start_center()
    user.calls(2)
    assert user.hears("there is nothing newer").number == 2
    assert parts.center.end() == 0
    assert user.hears(BROKEN_OFF).number == 2, "also when it is told to end"
    records = SqlRecords(str(parts.folder / "s.db"))
    assert [call.outcome for call in records.calls()] == ["broken off"] * 2
    records.close()
