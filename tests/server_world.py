"""What the tests of the server share: images that are none, and a terminal that is a script."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import aiocoap

from unbrick.errors import ImageError, LinkError
from unbrick.server.core.core import ServerCore
from unbrick.server.core.guard import LinkGuard
from unbrick.server.edge.access import Gate
from unbrick.server.edge.event_log import EventLog
from unbrick.server.edge.http import make_app
from unbrick.server.edge.udp import CoapServer
from unbrick.wire import slipmux
from unbrick.wire.coap import CoapEndpoint, post
from unbrick.wire.messages import (
    Announcement,
    Decision,
    Phase,
    Registration,
    Report,
    Result,
    Status,
    TerminalState,
    Text,
)

HARDWARE = "unbrick-a9-r1"
SERIAL = "T-0001"


OWN_TOKEN = "unbrick_" + 43 * "o"
"""Of a server's own user."""


@dataclass(frozen=True)
class Info:
    """What the stand-in for an image says about itself."""

    name: str
    version: str
    hardware_id: str
    build_time: str
    security_counter: int
    digest: bytes
    size: int
    userdata_format: int = 1
    signature: bytes = bytes(64)
    dependencies: tuple[str, ...] = ()


def make_image(
    version: str = "1.1.0+0",
    *,
    size: int = 5000,
    hardware_id: str = HARDWARE,
    counter: int = 2,
    salt: str = "",
) -> bytes:
    """A file that ``inspect`` takes for an image: a line of JSON and noise."""
    head = {"version": version, "hardware_id": hardware_id, "security_counter": counter}
    line = json.dumps(head).encode() + b"\n"
    return line + random.Random(f"{version}{salt}").randbytes(size - len(line))


def inspect(data: bytes) -> Info:
    try:
        head = json.loads(data.partition(b"\n")[0])
        return Info(
            name="terminal",
            build_time="2024-05-01T12:00:00Z",
            digest=hashlib.sha256(b"image" + data).digest(),
            size=len(data),
            **head,
        )
    except (ValueError, TypeError) as error:
        raise ImageError("this is no image", hint="give an image") from error


def registration(**changes: Any) -> Registration:
    base = Registration(
        serial=SERIAL,
        hardware_id=HARDWARE,
        name="terminal",
        version="1.0.0+0",
        build_time="2024-01-01T00:00:00Z",
        digest=b"1.0.0".ljust(32, b"\0"),
        state=TerminalState.APPLICATION,
        last_update_id=0,
        last_result=Result.SUCCESS,
        security_counter=1,
    )
    return replace(base, **changes)


def open_client(app: Any, **options: Any) -> Any:
    """A client of an ASGI application."""
    with warnings.catch_warnings():
        # Newer test clients want the successor of httpx; the command line has httpx.
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient  # noqa: PLC0415

    return TestClient(app, raise_server_exceptions=False, **options)


def open_http(
    core: ServerCore,
    now: Callable[[], float],
    pump: Callable[[], None] = lambda: None,
    token: str = OWN_TOKEN,
    log: EventLog | None = None,
    guard: LinkGuard | None = None,
) -> Any:
    """A client of the HTTP API over a core. It shows the token of the server's own user."""
    app = make_app(core, pump, now, Gate(core.records.tokens, now, OWN_TOKEN), log, guard=guard)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return open_client(app, headers=headers)


def serve_plainly(core: ServerCore) -> CoapServer:
    """A server for terminals that protect nothing."""
    return CoapServer(core, LinkGuard(core, insecure=True))


def get_block(update_id: int | str, number: int, exponent: int = 6) -> Any:
    message = aiocoap.Message(code=aiocoap.GET, uri_path=("file", str(update_id)))
    message.opt.block2 = (number, False, exponent)
    return message


class RadioTerminal:
    """A terminal for the simulated link: a line of bytes, and behind it the manners of the
    firmware without the firmware. It takes whatever it is announced, fetches it block by block,
    reports, and then runs it.
    """

    def __init__(self, serial: str = SERIAL, *, seed: int = 1) -> None:
        self.identity = registration(serial=serial)
        self.decision = Decision(Result.SUCCESS, 0, 0, "")
        self.texts: list[str] = []
        self.file = b""
        self.announcement: Announcement | None = None
        self.phase = Phase.IDLE
        self.after_transfer: Callable[[], None] = self._install
        self._seed = seed
        self._line = bytearray()
        self._inbox: list[bytes] = []
        self._register_at = 0.0
        self._fetch_soon = False
        self._power_up()

    # The engine's side: a line.

    def read(self) -> bytes:
        data = bytes(self._line)
        self._line.clear()
        return data

    def write(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self._inbox.append(frame.data)

    # The firmware's side.

    def step(self, now: float) -> float | None:
        inbox, self._inbox = self._inbox, []
        for message in inbox:
            self._coap.receive(message, now)
        if self._fetch_soon:  # After the decision, which is the answer to the announcement.
            self._fetch_soon = False
            self._fetch(now)
        self._coap.poll(now)
        for outcome in self._coap.take_outcomes():
            self._answers.pop(outcome.ticket)(outcome.response, now)
        if now >= self._register_at:
            self._register_at = now + 60.0
            self._request(post("register", self.identity.encode()), self._ignore, now)
        for datagram in self._coap.take_datagrams():
            self._line += slipmux.encode(datagram)
        deadlines = (self._register_at, self._coap.deadline)
        return min(deadline for deadline in deadlines if deadline is not None)

    def power_cut(self) -> None:
        """What is in RAM is lost; the identity, as it lies in NOR, is not."""
        self._seed += 1
        self._power_up()

    def _power_up(self) -> None:
        self._coap = CoapEndpoint(self._handle, random.Random(self._seed))
        self._decoder = slipmux.Decoder()
        self._inbox = []
        self._answers: dict[int, Callable[[Any, float], None]] = {}
        self._ticket = 0
        self._fetch_soon = False
        self._register_at = 0.0
        self.phase = Phase.IDLE
        self.announcement = None
        self.file = b""
        self._line.clear()

    def _request(self, message: Any, answer: Callable[[Any, float], None], now: float) -> None:
        self._ticket += 1
        self._answers[self._ticket] = answer
        self._coap.request(message, self._ticket, now)

    def _ignore(self, response: Any, now: float) -> None:
        pass

    def _handle(self, request: Any, _now: float) -> Any:
        try:
            return self._answer(request)
        except LinkError:
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)

    def _answer(self, request: Any) -> Any:
        path = request.opt.uri_path
        if path == ("message",):
            self.texts.append(Text.decode(request.payload).text)
            return aiocoap.Message(code=aiocoap.CHANGED)
        if path == ("status",):
            announced = self.announcement
            status = Status(
                self.phase,
                announced.update_id if announced else 0,
                len(self.file),
                announced.file_size if announced else 0,
            )
            return aiocoap.Message(code=aiocoap.CONTENT, payload=status.encode())
        if path == ("announce",):
            decision = self.decision
            if decision.result is Result.SUCCESS:
                if self.phase is not Phase.IDLE:
                    decision = replace(decision, result=Result.BUSY)
                else:
                    self.announcement = Announcement.decode(request.payload)
                    self.phase = Phase.TRANSFERRING
                    self.file = b""
                    self._fetch_soon = True
            return aiocoap.Message(code=aiocoap.CHANGED, payload=decision.encode())
        return aiocoap.Message(code=aiocoap.NOT_FOUND)

    def _fetch(self, now: float) -> None:
        if self.announcement is not None:
            number = len(self.file) // 1024
            self._request(get_block(self.announcement.update_id, number), self._block, now)

    def _block(self, response: Any, now: float) -> None:
        announced = self.announcement
        if announced is None or self.phase is not Phase.TRANSFERRING:
            return
        if response is None:
            self._fetch(now)
        elif response.code != aiocoap.CONTENT:
            self.report(Phase.FINISHED, Result.TRANSFER_GAVE_UP, now)
            self.phase = Phase.IDLE
        else:
            self.file += response.payload
            if response.opt.block2 is not None and response.opt.block2.more:
                self._fetch(now)
                return
            if hashlib.sha256(self.file).digest() != announced.file_digest:
                self.report(Phase.FINISHED, Result.FILE_DIGEST_WRONG, now)
                self.phase = Phase.IDLE
                return
            self.phase = Phase.RECEIVED
            for phase in (Phase.RECEIVED, Phase.CHECKED, Phase.REWRITING):
                self.report(phase, Result.SUCCESS, now)
            self.after_transfer()

    def report(self, phase: Phase, result: Result, now: float) -> None:
        assert self.announcement is not None
        report = Report(
            self.identity.serial,
            self.announcement.update_id,
            phase,
            result,
            self.identity.version,
            self.identity.digest,
            "",
        )
        self._request(post("report", report.encode()), self._ignore, now)

    def _install(self) -> None:
        """The rewrite, and the start of the new software, which registers again."""
        assert self.announcement is not None
        self.identity = replace(
            self.identity,
            version=self.announcement.version,
            digest=self.announcement.image_digest,
            last_update_id=self.announcement.update_id,
            last_result=Result.SUCCESS,
        )
        self.phase = Phase.IDLE
        self._register_at = 0.0


def run(
    until: float, *peers: Any, start: float = 0.0, stop: Callable[[], bool] | None = None
) -> float:
    """Let peers of a simulation run to a time, or until ``stop`` says so; gives the time."""
    now = start
    while now < until and not (stop is not None and stop()):
        deadlines = [peer.step(now) for peer in peers]
        due = [deadline for deadline in deadlines if deadline is not None and deadline > now]
        # A small step as well, so that what one peer sent in this round is read by the other.
        now = min([now + 0.01, *due])
    return now
