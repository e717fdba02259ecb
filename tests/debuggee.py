"""A debugged engine; packets of GDB's protocol to it, byte by byte; and GDB itself at it."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress

from patience import PATIENCE_S

from unbrick.engine.gdb.connection import Connection, wait_for_debugger
from unbrick.engine.gdb.server import DebuggedEngine


class Debuggee:
    """A debugged engine in a thread of its own, and the debugger's end of its socket.

    Args:
        engine: what is debugged.
        image: the contents of its flash.
        live: whether the debugger comes by a port, as to what runs for no case.
    """

    def __init__(self, engine: DebuggedEngine, image: bytes, *, live: bool = False) -> None:
        self.engine = engine
        self.engine.load_nor(image)
        if live:
            port = self.engine.gdb_server(0, lambda: None)
            self.socket = socket.create_connection(("127.0.0.1", port))
        else:
            self.socket, theirs = socket.socketpair()
            self.engine.attach(Connection(theirs))
        self.socket.settimeout(PATIENCE_S)
        self.error: Exception | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.engine.power_on()
        try:
            while not self.stop.is_set():
                self.engine.advance(0.01)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def send(self, text: str) -> None:
        self.socket.sendall(f"${text}#{sum(text.encode()) % 256:02x}".encode())

    def answer(self) -> str:
        """The next packet; what acknowledges ours is passed over."""
        got = b""
        while got[-3:-2] != b"#":
            got += self._byte()
        with suppress(BrokenPipeError):  # it hangs up after some answers
            self.socket.sendall(b"+")
        return got.partition(b"$")[2][:-3].decode()

    def ask(self, text: str) -> str:
        self.send(text)
        return self.answer()

    def _byte(self) -> bytes:
        got = self.socket.recv(1)
        assert got, "the terminal has hung up"
        return got

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def hung_up(self) -> bool:
        try:
            return all(got == b"+" for got in iter(lambda: self.socket.recv(4096), b""))
        except ConnectionError:  # the last "+" came too late for it
            return True

    def monitor(self, line: str) -> str:
        """What ``monitor`` answers to a line."""
        answers = [self.ask(f"qRcmd,{line.encode().hex()}")]
        while answers[-1] != "OK":
            answers.append(self.answer())
        assert all(answer.startswith("O") for answer in answers)
        return "".join(bytes.fromhex(answer[1:]).decode() for answer in answers[:-1])

    def end(self) -> None:
        """Hang up, and end the thread."""
        self.stop.set()
        self.socket.close()
        self.thread.join(PATIENCE_S)
        self.engine.close()


def play_gdb(
    gdb: str,
    device: Callable[[Callable[[], Connection]], None],
    find_words: Callable[[int], list[str]],
) -> str:
    """What GDB says until it has done all that it was told to.

    Args:
        gdb: its path.
        device: runs an engine, in a thread of its own; is given what waits for the debugger.
        find_words: GDB's words on the command line, for the port that the device has.
    """
    ports: queue.Queue[int] = queue.Queue()
    thread = threading.Thread(
        target=device, args=[lambda: wait_for_debugger(0, ports.put)], daemon=True
    )
    thread.start()
    done = subprocess.run(
        [gdb, "-nx", "-batch", *find_words(ports.get(timeout=PATIENCE_S))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), done.stdout
    return done.stdout


def as_words(commands: list[str]) -> list[str]:
    """Commands of GDB as words of its command line."""
    return [word for command in commands for word in ("-ex", command)]
