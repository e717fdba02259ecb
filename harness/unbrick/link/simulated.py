"""The wireless link in a deterministic simulation. A terminal's radio line is on one side, the
server's core on the other; latency and faults are in between. The caller passes the time in.

    link = SimulatedLink(engine.radio, core, faults=Faults(FaultPlan(drop=0.1), seed=7))
    ...
    deadline = link.step(engine.now)

    link.server_dies()
    assert link.fetched_blocks(update.id) == [0, 1, 2]
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import Protocol

import aiocoap

from unbrick.engine.base import Line
from unbrick.errors import LinkError
from unbrick.link.faults import Direction, Faults
from unbrick.server.core.guard import LinkGuard
from unbrick.wire import slipmux
from unbrick.wire.coap import CoapEndpoint, Outgoing
from unbrick.wire.messages import Registration, Report

LATENCY_S = 0.05
"""Seconds that a message takes one way."""

MAX_DIAGNOSTICS = 1000


class Server(Protocol):
    """The part of the server that the link needs: see ``unbrick.server.core.core.ServerCore``."""

    def handle(self, endpoint: str, request: aiocoap.Message, now: float) -> aiocoap.Message:
        """The answer to a terminal's request."""

    def poll(self, now: float, endpoint: str | None = None) -> list[Outgoing]:
        """The requests to send to ``endpoint`` now."""

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """Take in how one of them ended."""


@dataclass(frozen=True)
class Fetch:
    """A block of a file that the terminal asked for; ``size`` in bytes."""

    time: float
    update_id: int
    block: int
    size: int
    code: str


@dataclass(frozen=True)
class Exchange:
    """A request of either side and the code of its answer, as a test would write it."""

    time: float
    request: str
    answer: str


class SimulatedLink:
    """The link and the server's CoAP endpoint, for one terminal.

    A server that protects its messages is a ``LinkGuard``, or has one.

    Call ``step`` whenever the terminal has sent something, and when the deadline has come. Call it
    after the server was told something, too (a new update, a new message).

    Attributes:
        fetched: every block that reached the server as a request, in order.
        exchanges: every request that the server answered or had answered, in order.
        registrations: what the terminal registered, in order.
        reports: what the terminal reported, in order, and when.
        diagnostics: lines of text that the terminal sent beside the messages.
        bytes_up: bytes that came from the terminal.
        bytes_down: bytes that were written to the terminal.
    """

    def __init__(
        self,
        line: Line,
        server: Server,
        *,
        endpoint: str = "radio",
        latency: float = LATENCY_S,
        faults: Faults | None = None,
        seed: int = 0,
        guard: LinkGuard | None = None,
    ) -> None:
        self.faults = faults or Faults()
        self.latency = latency
        self.fetched: list[Fetch] = []
        self.exchanges: list[Exchange] = []
        self.registrations: list[Registration] = []
        self.reports: list[tuple[float, Report]] = []
        self.diagnostics: list[str] = []
        self.bytes_up = 0
        self.bytes_down = 0
        self._line = line
        self._server: Server | None = server
        self._guard = self._follow(server, guard)
        self._endpoint = endpoint
        self._rng = random.Random(f"{seed}/server")
        self._coap = CoapEndpoint(self._handle, self._rng)
        self._asked: dict[int, str] = {}
        self._decoder = slipmux.Decoder()
        self._in_flight: list[tuple[float, int, Direction, bytes]] = []
        self._sequence = 0
        self._cut_until = 0.0

    @property
    def server_alive(self) -> bool:
        """Whether there is a server that answers."""
        return self._server is not None

    @property
    def frames_lost(self) -> int:
        """Frames that were spoiled on the terminal's line."""
        return self._decoder.dropped

    def server_dies(self, *, unsent: bool = False) -> None:
        """From now on nobody answers. Messages in the air are lost with the server's sockets.

        Args:
            unsent: it dies before its latest messages have left.
        """
        self._server = None
        if unsent:
            up = [flight for flight in self._in_flight if flight[2] is Direction.UP]
            self._in_flight = sorted(up)
        self._coap = CoapEndpoint(self._handle, self._rng)
        self._asked.clear()

    def server_returns(self, server: Server, guard: LinkGuard | None = None) -> None:
        """A server is there again. It is made from the records of the dead one.

        Args:
            server: that is there.
            guard: what protects its messages; by default ``server``, if it is one.
        """
        self._server = server
        self._guard = self._follow(server, guard)

    def _follow(self, server: Server, guard: LinkGuard | None) -> LinkGuard | None:
        """Have protected messages written down as they were meant."""
        if guard is None and isinstance(server, LinkGuard):
            guard = server
        if guard is not None:
            guard.opened = self._write_down
        return guard

    def cut_off(self, until: float) -> None:
        """Let nothing through, either way, before the time ``until``."""
        self._cut_until = until

    def fetched_blocks(self, update_id: int) -> list[int]:
        """The numbers of the blocks that were asked for, in order, with repetitions."""
        return [fetch.block for fetch in self.fetched if fetch.update_id == update_id]

    def step(self, now: float) -> float | None:
        """Do everything that is due; return the time of the next thing to do, or None."""
        self._listen(now)
        while True:
            self._deliver_due(now)
            self._talk(now)
            if not self._in_flight or self._in_flight[0][0] > now:
                break
        deadlines = [time for time in (self._coap.deadline,) if time is not None]
        if self._in_flight:
            deadlines.append(self._in_flight[0][0])
        return min(deadlines, default=None)

    def _listen(self, now: float) -> None:
        data = self._line.read()
        self.bytes_up += len(data)
        for frame in self._decoder.feed(self.faults.spoil(Direction.UP, data)):
            if frame.type is slipmux.FrameType.COAP:
                self._send(Direction.UP, frame.data, now)
            elif len(self.diagnostics) < MAX_DIAGNOSTICS:
                self.diagnostics.append(frame.data.decode(errors="replace"))

    def _send(self, direction: Direction, message: bytes, now: float) -> None:
        if now < self._cut_until:
            self.faults.counts["cut off"] += 1
            return
        for delivery in self.faults.carry(direction, message, now):
            self._sequence += 1
            due = now + self.latency + delivery.after
            heapq.heappush(self._in_flight, (due, self._sequence, direction, delivery.frame))

    def _deliver_due(self, now: float) -> None:
        while self._in_flight and self._in_flight[0][0] <= now:
            _, _, direction, frame = heapq.heappop(self._in_flight)
            if direction is Direction.DOWN:
                data = self.faults.spoil(Direction.DOWN, frame)
                self.bytes_down += len(data)
                self._line.write(data)
            elif self._server is not None:
                for part in slipmux.Decoder().feed(frame):
                    if part.type is slipmux.FrameType.COAP:
                        self._coap.receive(part.data, now)
                        self._pass_on_outcomes(self._server, now)

    def _talk(self, now: float) -> None:
        """Send what the server has to say."""
        if self._server is None:
            return
        self._coap.poll(now)
        self._pass_on_outcomes(self._server, now)
        for outgoing in self._server.poll(now, self._endpoint):
            self._asked[outgoing.ticket] = _in_words(outgoing.meant or outgoing.message)
            self._coap.request(outgoing.message, outgoing.ticket, now, outgoing.read)
        for datagram in self._coap.take_datagrams():
            self._send(Direction.DOWN, datagram, now)

    def _pass_on_outcomes(self, server: Server, now: float) -> None:
        for outcome in self._coap.take_outcomes():
            answer = "no answer" if outcome.response is None else outcome.response.code.dotted
            request = self._asked.pop(outcome.ticket)
            self.exchanges.append(Exchange(now, request, answer))
            server.outcome(outcome.ticket, outcome.response, now)

    def _handle(self, request: aiocoap.Message, now: float) -> aiocoap.Message:
        if self._server is None:
            raise AssertionError("a dead server was asked")
        response = self._server.handle(self._endpoint, request, now)
        if self._guard is None or request.opt.oscore is None:
            self._write_down(request, response, now)
        elif self._endpoint in self._guard.take_restarted():
            self._coap.abandon()
        return response

    def _write_down(self, request: aiocoap.Message, response: aiocoap.Message, now: float) -> None:
        words = _in_words(request)
        self.exchanges.append(Exchange(now, words, response.code.dotted))
        try:
            if words == "POST /register":
                self.registrations.append(Registration.decode(request.payload))
            elif words == "POST /report":
                self.reports.append((now, Report.decode(request.payload)))
        except LinkError:
            return
        path = request.opt.uri_path
        if words.startswith("GET /file/") and len(path) == 2 and path[1].isdecimal():
            number = request.opt.block2.block_number if request.opt.block2 else 0
            self.fetched.append(
                Fetch(now, int(path[1]), number, len(response.payload), response.code.dotted)
            )


def _in_words(request: aiocoap.Message) -> str:
    return f"{request.code.name} /{'/'.join(request.opt.uri_path)}"
