"""The base station: a terminal's modem on one side, the server's CoAP port on the other.

Bytes of the modem's stream become UDP datagrams, and the other way round. Every terminal has a UDP
socket of its own, a new one each time its modem connects. So the server tells terminals apart by
address, and a terminal before and after a power cut, too. The faults of the link are made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import termios
import tty
from collections.abc import Callable
from dataclasses import dataclass

from unbrick.errors import LinkError, PortError, SetupError
from unbrick.link.faults import Direction, Faults
from unbrick.wire import slipmux

READ_SIZE = 4096
MAX_BACKLOG_BYTES = 64 * 1024
"""Bytes that may wait for a modem that does not take them. Frames beyond that are lost."""

FIRST_RETRY_INTERVAL_S = 0.2
MAX_RETRY_INTERVAL_S = 5.0
"""Seconds between attempts to reach a modem that is not there."""


@dataclass
class Traffic:
    """Counts of what a bridge has carried."""

    messages_up: int = 0
    messages_down: int = 0
    diagnostics: int = 0
    frames_dropped: int = 0


def parse_host_port(text: str) -> tuple[str, int]:
    """``HOST:PORT`` as a pair; the brackets of an IPv6 address are taken off.

    Raises:
        SetupError: it is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        raise SetupError(f"{text!r} is no address", hint="write it as HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _ServerSide(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        self._received(data)

    def error_received(self, exc: Exception) -> None:
        """The server is not there: the datagram is lost, as datagrams are."""


class _Session:
    """One connection of one modem."""

    def __init__(
        self, writer: asyncio.StreamWriter, faults: Faults, latency: float, traffic: Traffic
    ) -> None:
        self._writer = writer
        self._faults = faults
        self._latency = latency
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._decoder = slipmux.Decoder()
        self._server: asyncio.DatagramTransport | None = None

    async def run(self, reader: asyncio.StreamReader, server: tuple[str, int]) -> None:
        """Carry messages until the modem hangs up."""
        self._server, _ = await self._loop.create_datagram_endpoint(
            lambda: _ServerSide(self._from_server), remote_addr=server
        )
        try:
            while data := await reader.read(READ_SIZE):
                self._from_modem(data)
        except OSError:
            pass  # The modem is gone, or a pseudo-terminal's other end has closed.
        finally:
            self._server.close()
            self._server = None

    def _from_modem(self, data: bytes) -> None:
        before = self._decoder.dropped
        for frame in self._decoder.feed(self._faults.spoil(Direction.UP, data)):
            if frame.type is slipmux.FrameType.COAP:
                self._carry(Direction.UP, frame.data)
            else:
                self._traffic.diagnostics += 1
        self._traffic.frames_dropped += self._decoder.dropped - before

    def _from_server(self, datagram: bytes) -> None:
        self._carry(Direction.DOWN, datagram)

    def _carry(self, direction: Direction, message: bytes) -> None:
        deliver = self._to_server if direction is Direction.UP else self._to_modem
        try:
            deliveries = self._faults.carry(direction, message, self._loop.time() - self._start)
        except LinkError:
            self._traffic.frames_dropped += 1
            return
        for delivery in deliveries:
            after = self._latency + delivery.after
            if after > 0:
                self._loop.call_later(after, deliver, delivery.frame)
            else:
                deliver(delivery.frame)

    def _to_server(self, frame: bytes) -> None:
        for part in slipmux.Decoder().feed(frame):
            if part.type is slipmux.FrameType.COAP and self._server is not None:
                self._traffic.messages_up += 1
                self._server.sendto(part.data)

    def _to_modem(self, frame: bytes) -> None:
        transport = self._writer.transport
        if self._server is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self._traffic.frames_dropped += 1
            return
        self._traffic.messages_down += 1
        self._writer.write(self._faults.spoil(Direction.DOWN, frame))


class Bridge:
    """Connects the modem at ``modem`` with the CoAP server at ``server``.

    Args:
        modem: ``tcp:HOST:PORT`` to call a modem, ``listen:HOST:PORT`` to be called by modems, or
            the path of a serial port or pseudo-terminal.
        server: host and port of the server's CoAP.
        faults: makes the faults of each session, given its number from 0; none without it.
        latency: seconds that a message takes one way, besides what the line takes.

    Attributes:
        traffic: what was carried so far.
    """

    def __init__(
        self,
        modem: str,
        server: tuple[str, int],
        *,
        faults: Callable[[int], Faults] | None = None,
        latency: float = 0.0,
    ) -> None:
        self.traffic = Traffic()
        self._modem = modem
        self._server = server
        self._make_faults = faults or (lambda _number: Faults())
        self._latency = latency
        self._sessions = 0
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._tty: asyncio.ReadTransport | None = None

    @property
    def port(self) -> int:
        """The TCP port that modems can call; 0 when the bridge calls the modem."""
        return self._listener.sockets[0].getsockname()[1] if self._listener else 0

    async def start(self) -> None:
        """Begin to work. A modem that is not there yet is tried again and again.

        Raises:
            PortError: the port cannot be opened.
            SetupError: ``modem`` is not of a known form.
        """
        kind, colon, address = self._modem.partition(":")
        if kind == "listen" and colon:
            host, port = parse_host_port(address)
            try:
                self._listener = await asyncio.start_server(self._called, host, port)
            except OSError as error:
                raise PortError(
                    f"{address} cannot be listened on: {error.strerror}",
                    hint="give another port, or 0 for a free one",
                ) from error
        elif kind == "tcp" and colon:
            host, port = parse_host_port(address)
            self._task = asyncio.create_task(self._call(host, port))
        else:
            self._tty, reader, writer = await _open_tty(self._modem)
            self._task = asyncio.create_task(self._session(reader, writer))

    async def wait(self) -> None:
        """Return when there is nothing left to carry: a serial port went away."""
        if self._listener is not None:
            await self._listener.serve_forever()
        elif self._task is not None:
            await self._task

    async def close(self) -> None:
        """Hang up everywhere."""
        if self._listener is not None:
            self._listener.close()
        tasks = [*self._tasks, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._tty is not None:
            self._tty.close()

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a connection is handled in a task")
        self._tasks.add(task)
        try:
            await self._session(reader, writer)
        except asyncio.CancelledError:
            pass  # The bridge closes; asyncio would log the cancellation as an error.
        finally:
            self._tasks.discard(task)

    async def _call(self, host: str, port: int) -> None:
        pause = FIRST_RETRY_INTERVAL_S
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_RETRY_INTERVAL_S)
                continue
            pause = FIRST_RETRY_INTERVAL_S
            await self._session(reader, writer)
            await asyncio.sleep(pause)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._sessions
        self._sessions += 1
        session = _Session(writer, self._make_faults(number), self._latency, self.traffic)
        try:
            await session.run(reader, self._server)
        finally:
            writer.close()
            with contextlib.suppress(OSError):  # But not the cancellation: it would go on.
                await writer.wait_closed()


async def _open_tty(
    path: str,
) -> tuple[asyncio.ReadTransport, asyncio.StreamReader, asyncio.StreamWriter]:
    """A serial port or pseudo-terminal as a pair of streams, raw and at 115200 baud.

    The reader reads from the transport. Closing the writer does not close that.
    """
    hint = "give the path of a serial port or pseudo-terminal, tcp:HOST:PORT or listen:HOST:PORT"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise PortError(f"{path} cannot be opened: {error.strerror}", hint=hint) from error
    if not stat.S_ISCHR(os.fstat(descriptor).st_mode) or not os.isatty(descriptor):
        os.close(descriptor)
        raise PortError(f"{path} is no serial port", hint=hint)
    tty.setraw(descriptor)
    settings = termios.tcgetattr(descriptor)
    settings[4] = settings[5] = termios.B115200
    termios.tcsetattr(descriptor, termios.TCSANOW, settings)

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    # Two files: each transport closes its own.
    receiving, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    writing = os.fdopen(os.dup(descriptor), "wb", buffering=0)
    # The protocol is there for its flow control alone, and its reader stays empty.
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), writing
    )
    return receiving, reader, asyncio.StreamWriter(transport, protocol, reader, loop)
