"""Many terminals at once, each with a UDP socket of its own, to load a server with."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

from fleet_terminal import (
    REGISTRATION_INTERVAL_S,
    UNPUBLISHED,
    FleetTerminal,
    find_link_key,
    identity,
)
from unbrick.errors import ToolBrokenError
from unbrick.folders import firmware_folder
from unbrick.image.format import inspect
from unbrick.image.sign import sign
from unbrick.layout import reference_layout
from unbrick.server.core.core import ServerCore
from unbrick.server.records.contract import Records
from unbrick.server.records.people import Actor
from unbrick.wire.coap import post

_TURN_S = 0.1
"""Seconds between looks at what is to be sent again."""

_MAX_DATAGRAM = 2048

FACTORY = Actor("factory", 0.0)
"""Who has enrolled the terminals."""

NOWHERE = "127.0.0.1:9"
"""Where terminals were before they came to life."""

COMMANDED_COURSE = ["pending", "announced", "rewriting", "succeeded"]
COURSE = ["pending", "announced", "transferring", "received", "checked", "rewriting", "succeeded"]
"""What the records say of an update of such a terminal, if nothing was lost."""


def make_small_image(version: str, size: int = 3000) -> bytes:
    """A signed image of so many bytes that is no program."""
    layout = reference_layout()
    start = layout.partition("application").offset + layout.image_header_size
    head = layout.board.sram.end.to_bytes(4, "little") + (start + 0x41).to_bytes(4, "little")
    return sign(
        head + random.Random(version).randbytes(size - len(head)),
        name="terminal",
        version=version,
        build_time="2024-05-01T12:00:00Z",
        hardware_id=layout.hardware_id,
        security_counter=1,
        key=firmware_folder() / "keys" / "development.pem",
    )


def order(
    records: Records, images: Sequence[bytes], serials: Iterable[str], *, enrols: bool = True
) -> None:
    """Have a server on these records update terminals to the last of the images.

    One image: they are not known yet, and their software is not published. Two: they run the
    first, and are commanded. The server knows their link keys if it ``enrols`` them.
    """
    core = ServerCore(records, inspect)
    published = [core.publish(image, time.time()) for image in images]
    commanded = len(published) > 1
    with records.transaction():
        for serial in serials:
            if enrols:
                records.links.enrol(serial, find_link_key(serial), FACTORY)
            if commanded:
                said = identity(serial, published[0].digest)
                core.handle(NOWHERE, post("register", said.encode()), time.time())
            core.start_update(serial, published[-1].version, time.time(), commanded=commanded)


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
            self.terminal.receive(self.socket.recv(_MAX_DATAGRAM), time.monotonic())
        self.flush()  # If there is more, this is called again.


class Fleet:
    """Terminals that are updated, so many at once.

    Args:
        serials: theirs.
        server: address and UDP port.
        at_once: how many; one after the other takes the place of one that is done.
        seed: of their message ids and the times at which they send again.
        patience: seconds after which a terminal registers again that has heard nothing.
        digest: of the software that they have.
        gives_up: a cancelled update is one that they wait for the next after.
        start: how often they have started; None: they protect nothing.
    """

    def __init__(
        self,
        serials: Iterable[str],
        server: tuple[str, int],
        *,
        at_once: int,
        seed: int = 1,
        patience: float = REGISTRATION_INTERVAL_S,
        digest: bytes = UNPUBLISHED,
        gives_up: bool = False,
        start: int | None = 1,
    ) -> None:
        rng = random.Random(seed)
        self._members = [
            _Member(
                FleetTerminal(name, rng, patience, digest, gives_up=gives_up, start=start), server
            )
            for name in serials
        ]
        self._waiting = self._members[::-1]
        self._running: dict[_Member, None] = {}
        self._at_once = at_once
        self._broken: list[ToolBrokenError] = []
        self.dismissed = False
        """Set when nobody needs them any more, done or not."""

    def let_fail(self, serials: Container[str]) -> None:
        """With these terminals the new software does not pass its trial."""
        for member in self._members:
            member.terminal.fails = member.terminal.serial in serials

    @property
    def texts(self) -> dict[str, int]:
        """How many text messages the user of each terminal has got, by serial."""
        return {member.terminal.serial: member.terminal.texts for member in self._members}

    @property
    def serials(self) -> list[str]:
        """Of all terminals."""
        return [member.terminal.serial for member in self._members]

    @property
    def done(self) -> int:
        """Terminals that have come to the end."""
        return sum(member.terminal.done for member in self._members)

    async def run(
        self, limit: float = 600.0, settled: Callable[[], bool] = lambda: True
    ) -> FleetResult:
        """Returns when all are done, when they are dismissed, or after so many seconds.

        Args:
            limit: that many.
            settled: whether the server, too, is done with all; until then terminals answer it.

        Raises:
            ToolBrokenError: a terminal got another file than the one announced.
        """
        loop = asyncio.get_running_loop()
        start = time.monotonic()
        for member in self._members:
            loop.add_reader(member.socket, self._read, member)
        self._fill()
        while not (self._broken or self.dismissed) and time.monotonic() < start + limit:
            await asyncio.sleep(_TURN_S)
            self._poll(time.monotonic())
            if not self._running and settled():
                break
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
