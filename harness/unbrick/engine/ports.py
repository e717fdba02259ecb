"""Shows a UART to other programs: as a TCP port on loopback or as a pseudo-terminal.

A port is a peer of the bench. As at a serial port, what the terminal sends while no program has it
open is lost: a program that comes later does not get answers to what it never asked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import termios
import tty
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from unbrick.errors import PortError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Line

MAX_BEHIND_BYTES = 1 << 16  # a program that has the port open may be behind with reading
POLL_INTERVAL_S = 0.005  # between two looks at the other program
BURST_BYTES = 512  # may go to the terminal at once; then the line's rate counts


class Missed(Protocol):
    """Keeps what a program that opens the port later would want to know."""

    def hear(self, data: bytes, *, read: bool) -> None:
        """The terminal says ``data``; ``read``: to a program that has the port open."""

    def take(self) -> bytes:
        """What the program that has just come is told first."""


class Port(ABC):
    """A UART on the one side, another program on the other.

    Args:
        line: the UART.
        rate: bytes a second of the bench's time that may go to the terminal.
        missed: keeps what is said while no program has the port open; None: it is lost.
        room: gives how many bytes the line would take now; None: as many as the rate allows.

    Attributes:
        lost: bytes from the terminal that a program which has the port open was too late to read.
    """

    def __init__(
        self,
        line: Line,
        *,
        rate: float,
        missed: Missed | None = None,
        room: Callable[[], int] | None = None,
    ) -> None:
        self.lost = 0
        self._line, self._rate, self._missed, self._room = line, rate, missed, room
        self._unsent = b""
        self._open = False
        self._credit = float(BURST_BYTES)
        self._last: float | None = None

    def step(self, now: float) -> float:
        """Move what can be moved; ``now`` in seconds. Returns when to look again."""
        if self._last is not None:
            earned = (now - self._last) * self._rate
            self._credit = min(self._credit + earned, float(BURST_BYTES))
        self._last = now
        self._speak(self._line.read())
        limit = int(self._credit) if self._room is None else min(int(self._credit), self._room())
        data = self._receive(limit) if limit > 0 else b""
        self._credit -= len(data)
        if data:
            self._line.write(data)
        return now + POLL_INTERVAL_S

    def _speak(self, said: bytes) -> None:
        """Give the other program what the terminal has said."""
        before, self._open = self._open, self._is_open()
        if self._missed is not None and self._open and not before:
            self._unsent = self._missed.take()
        if self._missed is not None:
            self._missed.hear(said, read=self._open)
        if not self._open:
            self._unsent = b""
            return
        self._unsent += said
        if self._unsent:
            self._unsent = self._unsent[self._send(self._unsent) :]
        self.lost += max(0, len(self._unsent) - MAX_BEHIND_BYTES)
        self._unsent = self._unsent[-MAX_BEHIND_BYTES:]

    @abstractmethod
    def _is_open(self) -> bool:
        """Whether a program has the port open."""

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
        rate: float,
        missed: Missed | None = None,
        room: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(line, rate=rate, missed=missed, room=room)
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

    def _is_open(self) -> bool:
        if self._client is None:
            with contextlib.suppress(BlockingIOError):
                self._client = self._server.accept()[0]
                self._client.setblocking(False)
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._client is not None

    def _send(self, data: bytes) -> int:
        if self._client is None:
            return 0
        try:
            return self._client.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._drop()
            return 0

    def _receive(self, limit: int) -> bytes:
        if self._client is None:
            return b""
        try:
            data = self._client.recv(limit)
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

    def __init__(
        self,
        line: Line,
        *,
        rate: float,
        missed: Missed | None = None,
        room: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(line, rate=rate, missed=missed, room=room)
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        self.path = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)  # From now on the system tells whether a program has it open.
        self._events = select.poll()
        self._events.register(self._master, select.POLLHUP)

    def _is_open(self) -> bool:
        there = not any(event & select.POLLHUP for _, event in self._events.poll(0))
        if self._open and not there:
            self._renew()
        return there

    def _renew(self) -> None:
        """What the last program has not read, and its settings, are not for the next one."""
        slave = os.open(self.path, os.O_RDWR | os.O_NOCTTY)
        termios.tcflush(slave, termios.TCIFLUSH)
        tty.setraw(slave)
        os.close(slave)

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
        except OSError as error:
            if error.errno != errno.EIO:  # No program has it open, and none has left anything.
                raise
            return b""

    def close(self) -> None:
        os.close(self._master)
