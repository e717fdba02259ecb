"""A Renode under way, and the one connection by which it is driven.

Renode's own monitor and terminals listen on every interface; so Renode is made to connect to us,
and nobody else can reach it. The other side is ``renode/peripherals/BenchLink.cs``.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import signal
import socket
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.engine.child import die_with_parent, find_program, living
from unbrick.errors import EngineError
from unbrick.flash.ops import FlashOp
from unbrick.folders import renode_folder
from unbrick.patience import ANSWER_TIMEOUT_S, START_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from unbrick.flash.ops import Worn

PROGRAM = "renode"
PROGRAM_VARIABLE = "RENODE"

ANSWER_LIMIT = 1 << 28  # bytes
LOG_KEPT = 16384  # bytes of what Renode prints

TERMINAL = "include $CWD/renode/platform.resc\n"
"""The script that makes the terminal."""

TERMINAL_UARTS = ("uart0", "uart1")

# As fast as it goes.
_SCRIPT = """\
{machine}include $CWD/renode/peripherals/BenchLink.cs
emulation SetGlobalAdvanceImmediately true
emulation SetGlobalQuantum "{quantum_s}"
logLevel {log_level}
machine ConnectBench {port} "{token}" "{uarts}" {is_chip}
"""

_WARNINGS, _ERRORS = 2, 3
"""Levels of Renode's log."""

_OPERATION = struct.Struct("<BBIIQQBI")
_KINDS = {1: "word", 2: "buffer", 3: "erase"}
_WORN = struct.Struct("<5IB3?")
_ALWAYS = (1 << 32) - 1

_FAILED = re.compile(
    r"error CS\d+|There was an error|Errors? during|Could not|FATAL UNHANDLED"
    r"|Error E\d+|Cannot find library"
)


def find_renode() -> str:
    """The path of Renode: ``$RENODE``, or what is on ``PATH``.

    Raises:
        MissingToolError: it is not installed.
    """
    return find_program(PROGRAM, PROGRAM_VARIABLE, "get it from renode.io")


def ask_renode_version() -> str:
    """The version of the Renode that :func:`find_renode` finds, such as ``1.16.1``.

    Raises:
        MissingToolError: there is none.
        EngineError: it does not say its version.
    """
    said = subprocess.run(
        [find_renode(), "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWER_TIMEOUT_S,
    ).stdout
    match = re.search(r"(\d+\.\d+\.\d+)", said)
    if match is None:
        raise EngineError("Renode does not say its version", hint=f"try: {PROGRAM} --version")
    return match.group(1)


@dataclass(frozen=True)
class RenodeMachine:
    """What a Renode process runs.

    Attributes:
        script: the commands that make it; ``$CWD`` is a folder with ``renode`` and the files.
        uarts: their names there, or their addresses as ``0x…``.
        is_chip: whether it is a microcontroller, and not the terminal.
        files: their contents, by name.
        quantum_s: a step of time. Each costs about a tenth of a millisecond; a CPU that is halted
            goes on at the end of one.
    """

    script: str = TERMINAL
    uarts: Sequence[str] = TERMINAL_UARTS
    is_chip: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    quantum_s: str = "0.005"


THE_TERMINAL = RenodeMachine()


class RenodeLink:
    """A Renode process with a machine in it, powered off.

    Its history, configuration and temporary files are in a folder of its own, which goes with it.

    Args:
        machine: what it runs.

    Raises:
        MissingToolError: Renode is not installed.
        EngineError: it does not start.
    """

    def __init__(self, machine: RenodeMachine = THE_TERMINAL) -> None:
        program, platform = find_renode(), renode_folder()
        self._folder = tempfile.TemporaryDirectory(
            prefix="unbrick-renode-", ignore_cleanup_errors=True
        )
        self._log = b""
        self._socket: socket.socket | None = None
        folder = Path(self._folder.name)
        token = secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            (folder / "renode").symlink_to(platform)  # Renode takes no path with a space
            script, config = folder / "start.resc", folder / "config"
            for name, text in machine.files.items():
                (folder / name).write_text(text, encoding="utf-8")
            script.write_text(_make_script(machine, port, token))
            config.write_text(f"[general]\nhistory-path = {folder / 'history'}\n")
            self._output, output = os.pipe()  # of Renode; it waits for us when that is full
            os.set_blocking(self._output, False)
            command = [program, "--plain", "--disable-xwt", "--console", "--config", str(config)]
            try:
                self._child = subprocess.Popen(
                    [*command, "-e", f"include @{script}"],
                    cwd=folder,
                    env={**os.environ, "TMPDIR": str(folder), "XDG_CONFIG_HOME": str(folder)},
                    stdin=subprocess.PIPE,  # it never gets anything, nor comes to an end
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for us, who switch the terminal off
                    preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call, no locks
                )
            except OSError as error:
                os.close(self._output)
                self._folder.cleanup()
                raise EngineError(f"{program} does not start: {error.strerror}") from error
            finally:
                os.close(output)
            living.add(self)
            try:
                self._socket = self._accept(server, token)
            except EngineError:
                self.close()
                raise

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def _wait(self, source: socket.socket, timeout: float, failed: Callable[[], bool]) -> None:
        """Wait for ``source`` to have something, and keep Renode's output flowing."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            selector.register(self._output, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                ready = [key.fileobj for key, _ in selector.select(max(0.0, left))]
                if source in ready:
                    return
                if left <= 0:
                    raise EngineError(f"Renode did not answer within {timeout:g} s")
                if ready and not self._read_log():
                    selector.unregister(self._output)
                if failed() or self._child.poll() is not None:
                    raise self._gone()

    def _accept(self, server: socket.socket, token: str) -> socket.socket:
        """The connection of our Renode; whoever else comes first is sent away."""
        while True:
            self._wait(server, START_TIMEOUT_S, lambda: bool(_FAILED.search(self._text)))
            peer, _ = server.accept()
            peer.settimeout(ANSWER_TIMEOUT_S)
            with contextlib.suppress(OSError):
                if secrets.compare_digest(_receive(peer, len(token)), token.encode()):
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return peer
            peer.close()

    @property
    def _text(self) -> str:
        return self._log.decode("utf-8", "replace")

    def _read_log(self) -> bool:
        """Take what Renode has printed; False at its end."""
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return True
        self._log = (self._log + data)[-LOG_KEPT:]
        return bool(data)

    def _gone(self) -> EngineError:
        """The error that says what went wrong, in Renode's words."""
        time.sleep(0.2)  # the rest of the sentence
        self._read_log()
        lines = [line.strip() for line in self._text.splitlines() if line.strip()]
        telling = [line for line in lines if _FAILED.search(line)] or lines[-1:]
        words = f": {telling[-1]}" if telling else ""
        return EngineError(f"Renode failed{words}", hint=f"try: {PROGRAM} renode/terminal.resc")

    def ask(self, request: str, body: bytes = b"") -> bytes:
        """Carry out a request and return its answer.

        Raises:
            EngineError: Renode refused it, is gone or does not answer.
        """
        if self._socket is None:
            raise EngineError("Renode has been closed")
        message = request.encode() + struct.pack("<I", len(body)) + body
        try:
            self._socket.sendall(message)
            self._wait(self._socket, ANSWER_TIMEOUT_S, lambda: False)
            done, length = struct.unpack("<BI", _receive(self._socket, 5))
            if length > ANSWER_LIMIT:
                raise EngineError(f"Renode answered with {length} bytes")
            answer = _receive(self._socket, length)
        except OSError as error:
            raise self._gone() from error
        self._read_log()
        if not done:
            raise EngineError(f"Renode refused: {answer.decode('utf-8', 'replace')}")
        return answer

    def read_ops(self, began: int = 0) -> list[FlashOp]:
        """Every flash operation so far; ``began`` is Renode's time, in nanoseconds, that is 0."""
        answer, at = self.ask("T", struct.pack("<i", 0)), 0
        found: list[FlashOp] = []
        while at < len(answer):
            *what, start, end, failed, size = _OPERATION.unpack_from(answer, at)
            kind, lanes, offset, length = what
            at += _OPERATION.size
            data = answer[at : at + size]
            at += size
            times = ((start - began) / 1e9, (end - began) / 1e9)
            found.append(
                FlashOp(len(found), _KINDS[kind], offset, length, lanes, *times, data, failed)
            )
        return found

    def wear(self, worn: Iterable[Worn]) -> None:
        """Which operations end with an error, from now on; counting begins anew."""
        body = b"".join(
            _WORN.pack(
                place.offset,
                place.length,
                place.good,
                _ALWAYS if place.bad is None else place.bad,
                place.times,
                place.lanes,
                place.erase,
                place.silent,
                place.spoils,
            )
            for place in worn
        )
        self.ask("W", body)

    def kill(self) -> None:
        """The same as :meth:`close`."""
        self.close()

    def close(self) -> None:
        """End the process and remove its folder."""
        living.discard(self)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1
        self._folder.cleanup()

    def __del__(self) -> None:
        child = getattr(self, "_child", None)
        if child is not None and child.returncode is None:
            self.close()


def _make_script(machine: RenodeMachine, port: int, token: str) -> str:
    return _SCRIPT.format(
        machine=machine.script,
        quantum_s=machine.quantum_s,
        log_level=_ERRORS if machine.is_chip else _WARNINGS,
        port=port,
        token=token,
        uarts=",".join(machine.uarts),
        is_chip=str(machine.is_chip).lower(),
    )


def _receive(peer: socket.socket, length: int) -> bytes:
    """Exactly ``length`` bytes.

    Raises:
        OSError: the other side is gone.
    """
    data = bytearray()
    while len(data) < length:
        piece = peer.recv(min(1 << 20, length - len(data)))
        if not piece:
            raise ConnectionResetError
        data += piece
    return bytes(data)


class RenodeNor:
    """Renode's NOR alone: bus accesses to the command window, no CPU, and explicit time.

    It has the calls of :class:`unbrick.engine.inprocess.NorModel`, and :meth:`batch`, which is
    faster.
    """

    READ, WRITE, ADVANCE, POWER_CYCLE = range(4)

    def __init__(self) -> None:
        self._link = RenodeLink()

    def batch(self, steps: list[tuple[int, int, int]]) -> list[int]:
        """Carry out ``(what, offset, value)`` in order; returns what was read."""
        body = b"".join(struct.pack("<BIQ", *step) for step in steps)
        answer = self._link.ask("B", body)
        return list(struct.unpack(f"<{len(answer) // 4}I", answer))

    @property
    def array(self) -> bytes:
        """The cells of the modelled part."""
        return self._link.ask("N")

    def load(self, image: bytes) -> None:
        """Set the cells, and begin to count operations and faults anew.

        Shorter images are filled with 0xFF.
        """
        self._link.ask("L", image.ljust(len(self.array), b"\xff"))
        self._link.ask("Z")

    def wear(self, *worn: Worn) -> None:
        """Which operations end with an error, from now on."""
        self._link.wear(worn)

    @property
    def ops(self) -> list[FlashOp]:
        """Every operation since :meth:`load`."""
        return self._link.read_ops()

    @property
    def faults(self) -> list[str]:
        """The kinds of the faults so far."""
        return [line.split("\t")[0] for line in self._link.ask("F").decode().splitlines()]

    def close(self) -> None:
        """End Renode."""
        self._link.close()
