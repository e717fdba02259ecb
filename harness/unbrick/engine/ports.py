"""Shows a UART to other programs: as a TCP port on loopback or as a pseudo-terminal.

A port is a peer of the bench. As at a serial port, what the terminal sends while no program has it
open is lost: a program that comes later does not get answers to what it never asked.

A program that is told what it missed often throws that away: serial libraries empty their input
when they open a port. It is told once more, unless it has already said something.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
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
MAX_TOLD_BYTES = 1 << 13  # are said again to a program that begins by emptying its input


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
        self._emptied = False  # The other program has thrown away what it had not read.
        self._told: bytes | None = None  # since it came; None: that is not told again
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
            self._told = None
            self._line.write(data)
        return now + POLL_INTERVAL_S

    def _speak(self, said: bytes) -> None:
        """Give the other program what the terminal has said."""
        before, self._open = self._open, self._is_open()
        emptied, self._emptied = self._emptied, False
        missed = b""
        if self._missed is not None:
            if self._open and not before:
                missed, self._told = self._missed.take(), None if emptied else b""
            self._missed.hear(said, read=self._open)
        if not self._open:
            self._unsent, self._told = b"", None
            return
        if emptied and self._told:
            self._unsent, self._told = self._told, None
        self._tell(missed + said)
        self.lost += max(0, len(self._unsent) - MAX_BEHIND_BYTES)
        self._unsent = self._unsent[-MAX_BEHIND_BYTES:]

    def _tell(self, words: bytes) -> None:
        """Send as much as the other program takes, of ``words`` at the end."""
        self._unsent += words
        if self._told is not None:
            self._told = self._told + words if len(self._told) < MAX_TOLD_BYTES else None
        if self._unsent:
            self._unsent = self._unsent[self._send(self._unsent) :]

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
        fcntl.ioctl(self._master, termios.TIOCPKT, struct.pack("i", True))
        os.close(slave)  # From now on the system tells whether a program has it open.
        self._events = select.poll()
        self._events.register(self._master, select.POLLHUP | select.POLLPRI)

    def _is_open(self) -> bool:
        seen = dict(self._events.poll(0)).get(self._master, 0)
        if seen & select.POLLPRI:
            self._read(0)
        there = not seen & select.POLLHUP
        if self._open and not there:
            self._renew()
        return there

    def _renew(self) -> None:
        """What the last program has not read, and its settings, are not for the next one."""
        slave = os.open(self.path, os.O_RDWR | os.O_NOCTTY)
        termios.tcflush(slave, termios.TCIFLUSH)
        tty.setraw(slave)
        self._read(0)
        self._emptied = False
        os.close(slave)

    def _send(self, data: bytes) -> int:
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0

    def _receive(self, limit: int) -> bytes:
        return self._read(limit)

    def _read(self, limit: int) -> bytes:
        """At most ``limit`` bytes of the other program, or a note of what it did (tty_ioctl(4))."""
        try:
            note, *_ = data = os.read(self._master, 1 + limit)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:  # No program has it open, and none has left anything.
                raise
            return b""
        if note & termios.TIOCPKT_FLUSHREAD:
            self._emptied = True
        return data[1:]

    def close(self) -> None:
        os.close(self._master)
