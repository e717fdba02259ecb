"""Shows a UART to other programs: as a TCP port on loopback or as a pseudo-terminal.

A port is a peer of the bench. What the terminal sends while nobody listens is kept, up to
``KEPT`` bytes, so that a program that comes a moment later misses nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tty
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from unbrick.board import BOARD
from unbrick.errors import PortError

if TYPE_CHECKING:
    from unbrick.engine.base import Line

KEPT = 1 << 20
POLL = 0.005  # seconds between two looks at the other program
BURST = 512  # bytes that may go to the terminal at once; then the line's rate counts


class Port(ABC):
    """A UART on the one side, another program on the other.

    Args:
        line: the UART.
        rate: bytes a second of the bench's time that may go to the terminal.
    """

    def __init__(self, line: Line, *, rate: float = BOARD.baud / 10) -> None:
        self._line, self._rate = line, rate
        self._unsent = b""
        self._credit = float(BURST)
        self._last: float | None = None

    def step(self, now: float) -> float:
        """Move what can be moved; ``now`` in seconds. Returns when to look again."""
        if self._last is not None:
            earned = (now - self._last) * self._rate
            self._credit = min(self._credit + earned, float(BURST))
        self._last = now
        self._unsent = (self._unsent + self._line.read())[-KEPT:]
        if self._unsent:
            self._unsent = self._unsent[self._send(self._unsent) :]
        if self._credit >= 1:
            data = self._receive(int(self._credit))
            self._credit -= len(data)
            if data:
                self._line.write(data)
        return now + POLL

    @abstractmethod
    def _send(self, data: bytes) -> int:
        """Give the other program as much as it takes; returns how much that was."""

    @abstractmethod
    def _receive(self, limit: int) -> bytes:
        """What the other program has sent, at most ``limit`` bytes."""

    @abstractmethod
    def close(self) -> None:
        """Take the port away."""


class TcpPort(Port):
    """Listens on loopback and serves one client at a time.

    Raises:
        PortError: the port cannot be opened.
    """

    def __init__(
        self,
        line: Line,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        rate: float = BOARD.baud / 10,
    ) -> None:
        super().__init__(line, rate=rate)
        try:
            self._server = socket.create_server((host, port))
        except OSError as error:
            raise PortError(
                f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
                hint="choose another port",
            ) from error
        self._server.setblocking(False)
        self._client: socket.socket | None = None

    @property
    def address(self) -> str:
        """``host:port`` to connect to."""
        host, port = self._server.getsockname()[:2]
        return f"{host}:{port}"

    def _peer(self) -> socket.socket | None:
        if self._client is None:
            with contextlib.suppress(BlockingIOError):
                self._client = self._server.accept()[0]
                self._client.setblocking(False)
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._client

    def _send(self, data: bytes) -> int:
        peer = self._peer()
        if peer is None:
            return 0
        try:
            return peer.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._drop()
            return 0

    def _receive(self, limit: int) -> bytes:
        peer = self._peer()
        if peer is None:
            return b""
        try:
            data = peer.recv(limit)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._drop()
        return data

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def close(self) -> None:
        self._drop()
        self._server.close()


class PtyPort(Port):
    """A pseudo-terminal in raw mode; ``path`` is what picocom, ``sb`` or pyserial open."""

    def __init__(self, line: Line, *, rate: float = BOARD.baud / 10) -> None:
        super().__init__(line, rate=rate)
        self._master, self._slave = os.openpty()  # the slave stays open: no hang-up in between
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)

    def _send(self, data: bytes) -> int:
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0

    def _receive(self, limit: int) -> bytes:
        try:
            return os.read(self._master, limit)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)
