"""Packets of GDB's remote serial protocol, and the loopback socket that they come through.

Source: "Remote Protocol" in the GDB manual.
"""

from __future__ import annotations

import select
import shlex
import socket
from typing import TYPE_CHECKING

from unbrick.errors import PortError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

MAX_PACKET_SIZE = 0x2000
IDLE_S = 0.02


class Connection:
    """Packets from and to a debugger; acknowledged, with a checksum, of a bounded length.

    Args:
        peer: the debugger.
        idle: called again and again while it says nothing; may raise.
    """

    def __init__(self, peer: socket.socket, idle: Callable[[], None] | None = None) -> None:
        self._peer, self._waiting, self._sent = peer, b"", b""
        self._idle = idle

    def send(self, body: bytes) -> None:
        """Send one packet.

        Raises:
            OSError: the debugger is gone.
        """
        self._sent = b"$%s#%02x" % (body, sum(body) % 256)
        self._peer.sendall(self._sent)

    def say(self, text: str) -> None:
        """Have the debugger print something.

        Raises:
            OSError: the debugger is gone.
        """
        data = text.encode()
        for at in range(0, len(data), MAX_PACKET_SIZE // 4):
            self.send(b"O" + data[at : at + MAX_PACKET_SIZE // 4].hex().encode())

    def interrupted(self) -> bool:
        """Whether Ctrl-C has come, without waiting; it is taken. Packets stay.

        Raises:
            OSError: the debugger is gone.
        """
        while select.select([self._peer], [], [], 0)[0]:
            self._receive()
        found = b"\x03" in self._waiting.partition(b"$")[0]
        if found:
            self._waiting = self._waiting.replace(b"\x03", b"", 1)
        return found

    def receive(self) -> bytes:
        """Wait for the next packet.

        Raises:
            OSError: the debugger is gone, or sends what is no packet.
        """
        while True:
            head, dollar, rest = self._waiting.partition(b"$")
            if b"-" in head:
                self._peer.sendall(self._sent)
            body, end, checksum = rest.partition(b"#")
            if not dollar:
                self._waiting = b""
            elif end and len(checksum) >= 2:
                self._waiting = checksum[2:]
                good = checksum[:2].lower() == b"%02x" % (sum(body) % 256)
                self._peer.sendall(b"+" if good else b"-")
                if good:
                    return body
                continue
            else:
                self._waiting = dollar + rest
            self._receive()

    def _receive(self) -> None:
        while self._idle and not select.select([self._peer], [], [], IDLE_S)[0]:
            self._idle()
        data = self._peer.recv(4096)
        if not data:
            raise ConnectionError("the debugger has closed the connection")
        self._waiting += data
        if len(self._waiting) > 2 * MAX_PACKET_SIZE:
            raise ConnectionError("the debugger has sent a packet that is too long")

    def close(self) -> None:
        """Hang up."""
        self._peer.close()


def wait_for_debugger(port: int, ready: Callable[[int], None]) -> Connection:
    """Wait for a debugger on a TCP port of the loopback interface.

    Args:
        port: where to listen; 0: any.
        ready: called with the port as soon as a debugger can connect.

    Raises:
        PortError: nobody can listen there.
    """
    with listen(port) as listener:
        ready(listener.getsockname()[1])
        return Connection(accept(listener))


def gdb_command(elf_files: Iterable[Path], port: int) -> str:
    """The shell command that starts GDB with the symbols of ``elf_files`` at a server's port."""
    files = [str(path) for path in elf_files]
    orders = ["set confirm off", *(f"add-symbol-file {path}" for path in files[1:])]
    orders += ["set confirm on", f"target remote 127.0.0.1:{port}"]
    words = ["gdb-multiarch", *files[:1], *(word for order in orders for word in ("-ex", order))]
    return shlex.join(words)


def listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise PortError(
            f"nothing can listen on port {port}: {error.strerror}", hint="choose another port"
        ) from error


def accept(listener: socket.socket) -> socket.socket:
    peer, _ = listener.accept()
    peer.setblocking(True)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer
