"""Many terminals at once, without firmware: the protocol from registration to confirmed update.

Each is a UDP socket of its own and a script; together they cost little enough to load a server.
A terminal has one request under way (NSTART 1) and gives none up: when the server does not answer,
the request is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace

import aiocoap

from unbrick.board import BOARD
from unbrick.errors import LinkError, ToolBrokenError
from unbrick.image.format import inspect
from unbrick.server.core import ServerCore
from unbrick.server.records import Records
from unbrick.wire.coap import CoapEndpoint
from unbrick.wire.messages import (
    CBOR_FORMAT,
    Announcement,
    Decision,
    Phase,
    Registration,
    Report,
    Result,
    Status,
    TerminalState,
)

BLOCK = 1024
PATIENCE = 60.0
"""Seconds after which a terminal registers again when it has heard nothing."""

_TURN = 0.1
"""Seconds between looks at what is to be sent again."""

_MAX_DATAGRAM = 2048

_Script = Generator[aiocoap.Message | None, aiocoap.Message | None, None]


def identity(serial: str) -> Registration:
    """A terminal as it comes: with software that no server has."""
    return Registration(
        serial=serial,
        hardware_id=BOARD.hardware_id,
        name="terminal",
        version="1.0.0+0",
        build_time="2024-01-01T00:00:00Z",
        digest=hashlib.sha256(b"1.0.0").digest(),
        state=TerminalState.APPLICATION,
        last_update_id=0,
        last_result=Result.SUCCESS,
        security_counter=0,
    )


class FleetTerminal:
    """One terminal: registers, takes the update that is announced to it, runs it. No I/O.

    Attributes:
        coap: its end of the link.
        seconds: how long the server took for each of its requests.
        done: whether it runs the new software and has told so.
        ended: when that was.
    """

    def __init__(self, serial: str, rng: random.Random, patience: float = PATIENCE) -> None:
        self.coap = CoapEndpoint(self._handle, rng)
        self.seconds: list[float] = []
        self.done = False
        self.ended = 0.0
        self._identity = identity(serial)
        self._patience = patience
        self._announced: Announcement | None = None
        self._phase = Phase.IDLE
        self._received = 0
        self._script = self._live()
        self._asked: aiocoap.Message | None = None
        self._since = 0.0

    def start(self, now: float) -> None:
        """Come to life."""
        self._go_on(None, now)

    def receive(self, datagram: bytes, now: float) -> None:
        """Take what the server sends."""
        self.coap.receive(datagram, now)
        self._look(now)

    def poll(self, now: float) -> None:
        """Do what is due."""
        self.coap.poll(now)
        self._look(now)

    def _look(self, now: float) -> None:
        for outcome in self.coap.take_outcomes():
            if outcome.response is None:
                self._ask(now)
            else:
                self.seconds.append(now - self._since)
                self._go_on(outcome.response, now)
        waits = self._asked is None and not self.done
        if waits and (self._announced is not None or now >= self._since + self._patience):
            self._go_on(None, now)

    def _go_on(self, response: aiocoap.Message | None, now: float) -> None:
        self._since = now
        try:
            self._asked = next(self._script) if response is None else self._script.send(response)
        except StopIteration:
            self._asked, self.done, self.ended = None, True, now
        self._ask(now)

    def _ask(self, now: float) -> None:
        if self._asked is not None:
            self.coap.request(self._asked.copy(), 0, now)

    def _live(self) -> _Script:
        """Every request in its turn; None waits for an announcement, or until patience ends."""
        while self._announced is None:
            yield self._post("register", self._identity.encode())
            if self._announced is None:
                yield None
        announced = self._announced
        yield self._report(Phase.TRANSFERRING)
        digest = hashlib.sha256()
        while self._received < announced.file_size:
            request = aiocoap.Message(code=aiocoap.GET, uri_path=("file", str(announced.update_id)))
            request.opt.block2 = (self._received // BLOCK, False, 6)
            response = yield request
            if response is None or response.code != aiocoap.CONTENT:
                raise ToolBrokenError(f"{self._identity.serial} does not get its file")
            digest.update(response.payload)
            self._received += len(response.payload)
        if digest.digest() != announced.file_digest:
            raise ToolBrokenError(f"{self._identity.serial} got another file")
        for phase in (Phase.RECEIVED, Phase.CHECKED, Phase.REWRITING):
            yield self._report(phase)
        self._identity = replace(
            self._identity,
            version=announced.version,
            digest=announced.image_digest,
            last_update_id=announced.update_id,
        )
        yield self._post("register", self._identity.encode())
        yield self._report(Phase.FINISHED)

    def _post(self, path: str, payload: bytes) -> aiocoap.Message:
        request = aiocoap.Message(code=aiocoap.POST, payload=payload, uri_path=(path,))
        request.opt.content_format = CBOR_FORMAT
        return request

    def _report(self, phase: Phase) -> aiocoap.Message:
        self._phase = phase
        who = self._identity
        update_id = self._announced.update_id if self._announced else 0
        report = Report(who.serial, update_id, phase, Result.SUCCESS, who.version, who.digest, "")
        return self._post("report", report.encode())

    def _handle(self, request: aiocoap.Message, _now: float) -> aiocoap.Message:
        path = request.opt.uri_path
        try:
            if path == ("announce",):
                return self._decide(Announcement.decode(request.payload))
        except LinkError:
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)
        if path == ("status",):
            update_id = self._announced.update_id if self._announced else 0
            status = Status(self._phase, update_id, self._received, 0)
            return aiocoap.Message(code=aiocoap.CONTENT, payload=status.encode())
        return aiocoap.Message(code=aiocoap.NOT_FOUND)

    def _decide(self, announced: Announcement) -> aiocoap.Message:
        if self._announced is None:
            self._announced = announced
        same = announced.update_id == self._announced.update_id
        result = Result.SUCCESS if same and self._phase is Phase.IDLE else Result.BUSY
        decision = Decision(result, announced.file_size, announced.file_size, "")
        return aiocoap.Message(code=aiocoap.CHANGED, payload=decision.encode())


COURSE = ["pending", "announced", "transferring", "received", "checked", "rewriting", "succeeded"]
"""What the records say of an update of such a terminal, if nothing was lost."""


def order(records: Records, image: bytes, serials: Iterable[str]) -> None:
    """Have a server on these records update terminals that it does not know yet."""
    core = ServerCore(records, inspect)
    published = core.publish(image, time.time())
    with records.transaction():
        for serial in serials:
            core.start_update(serial, published.version, time.time())


def courses(records: Records) -> dict[str, list[str]]:
    """Of every terminal that registered: the states of its update, in their order."""
    found: dict[str, list[str]] = {terminal.serial: [] for terminal in records.terminals()}
    for event in records.events():
        if event.state is not None:
            found.setdefault(event.serial, []).append(event.state.value)
    return found


@dataclass(frozen=True)
class FleetResult:
    """What came of a fleet; times are in seconds.

    ``requests`` has how long each request took, from its first datagram to its answer.
    """

    done: int
    seconds: float
    retransmissions: int
    requests: list[float] = field(repr=False)


class _Member:
    """A terminal with its socket."""

    def __init__(self, terminal: FleetTerminal, server: tuple[str, int]) -> None:
        self.terminal = terminal
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(server)

    def flush(self) -> None:
        # What is not sent (the server is away, the buffer is full) is sent again.
        with contextlib.suppress(OSError):
            for datagram in self.terminal.coap.take_datagrams():
                self.socket.send(datagram)

    def read(self) -> None:
        # An error is about what was sent before: nobody listens there.
        with contextlib.suppress(OSError):
            while True:
                self.terminal.receive(self.socket.recv(_MAX_DATAGRAM), time.monotonic())
        self.flush()


class Fleet:
    """Terminals that are updated, so many at once.

    Args:
        serials: theirs.
        server: address and UDP port.
        at_once: how many; one after the other takes the place of one that is done.
        seed: of their message ids and the times at which they send again.
        patience: seconds after which a terminal registers again that has heard nothing.
    """

    def __init__(
        self,
        serials: Iterable[str],
        server: tuple[str, int],
        *,
        at_once: int,
        seed: int = 1,
        patience: float = PATIENCE,
    ) -> None:
        rng = random.Random(seed)
        self._members = [_Member(FleetTerminal(name, rng, patience), server) for name in serials]
        self._waiting = self._members[::-1]
        self._running: dict[_Member, None] = {}
        self._at_once = at_once
        self._broken: list[ToolBrokenError] = []

    @property
    def done(self) -> int:
        """Terminals that have come to the end."""
        return sum(member.terminal.done for member in self._members)

    async def run(self, limit: float = 600.0) -> FleetResult:
        """Returns when all are done, or after so many seconds.

        Raises:
            ToolBrokenError: a terminal got another file than the one announced.
        """
        loop = asyncio.get_running_loop()
        start = time.monotonic()
        for member in self._members:
            loop.add_reader(member.socket, self._read, member)
        self._fill()
        while self._running and not self._broken and time.monotonic() < start + limit:
            await asyncio.sleep(_TURN)
            self._poll(time.monotonic())
        for member in self._members:
            loop.remove_reader(member.socket)
            member.socket.close()
        if self._broken:
            raise self._broken[0]
        terminals = [member.terminal for member in self._members]
        return FleetResult(
            done=self.done,
            seconds=max(terminal.ended for terminal in terminals) - start,
            retransmissions=sum(terminal.coap.retransmissions for terminal in terminals),
            requests=[seconds for terminal in terminals for seconds in terminal.seconds],
        )

    def _read(self, member: _Member) -> None:
        try:
            member.read()
        except ToolBrokenError as error:
            self._broken.append(error)
        if member.terminal.done and member in self._running:
            del self._running[member]
            self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            member = self._waiting.pop()
            self._running[member] = None
            member.terminal.start(time.monotonic())
            member.flush()

    def _poll(self, now: float) -> None:
        for member in list(self._running):
            member.terminal.poll(now)
            member.flush()
