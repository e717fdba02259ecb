"""The QEMU engine: ``qemu-system-arm -M vexpress-a9`` runs the terminal in real time.

Power-off is the death of the process. QEMU writes every change of its flash through to the file
behind it before the firmware can see the operation's end, so the file is the NOR that survives.

QEMU is more patient than the hardware: its UARTs never lose a byte and have no rate, its NOR works
at once (``docs/nor-differences.md``), and it has more SRAM than the terminal. What only the
in-process engine can catch is for that engine to catch.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import selectors
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.engine.base import Engine, FirmwareFault, emulated_board
from unbrick.engine.child import die_with_parent, find_program, living
from unbrick.errors import EngineError, PortError
from unbrick.patience import ANSWER_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from unbrick.board import Board, Nor

PROGRAM = "qemu-system-arm"
PROGRAM_VARIABLE = "QEMU_SYSTEM_ARM"

MAX_WAITING_BYTES = 1 << 20  # wait for a terminal that does not read; more are lost
MAX_LOG_LINE_SIZE = 4096
LOG_KEPT = 64  # lines, and as many faults


# What QEMU logs although the firmware is right, by what it says:
HARMLESS = (
    # Every buffered program. What is flawed is in docs/nor-differences.md.
    re.compile(r"pflash_write: Write to buffer emulation is flawed"),
    # The board's sound, which the terminal does not have.
    re.compile(r"audio: "),
)


def find_qemu() -> str:
    """The path of ``qemu-system-arm``: ``$QEMU_SYSTEM_ARM``, or what is on ``PATH``.

    Raises:
        MissingToolError: it is not installed.
    """
    return find_program(PROGRAM, PROGRAM_VARIABLE, "run: apt install qemu-system-arm")


def ask_qemu_version() -> tuple[int, int, int]:
    """The version of the QEMU that :func:`find_qemu` finds.

    Raises:
        MissingToolError: there is none.
        EngineError: it does not say its version.
    """
    said = subprocess.run(
        [find_qemu(), "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWER_TIMEOUT_S,
    ).stdout
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        raise EngineError(f"{PROGRAM} does not say its version", hint=f"try: {PROGRAM} --version")
    major, minor, micro = (int(part) for part in match.groups())
    return major, minor, micro


class _Process:
    """A QEMU that is under way, paused before its first instruction.

    Every stream is a socket pair made beforehand, so nothing has to be connected and nothing can be
    missed.

    Args:
        arguments: besides those that every QEMU here gets.
        channels: names of the character devices to make; ends are in :attr:`ends`.
    """

    def __init__(self, arguments: Sequence[str], channels: Iterable[str]) -> None:
        self.ends: dict[str, socket.socket] = {}
        theirs: list[socket.socket] = []
        command = [find_qemu(), "-M", "vexpress-a9", "-m", "32M", "-nodefaults", "-no-user-config"]
        command += ["-display", "none", "-audiodev", "none,id=none", "-S"]
        for channel in ("qmp", *channels):
            self.ends[channel], end = socket.socketpair()
            theirs.append(end)
            command += ["-chardev", f"socket,id={channel},fd={end.fileno()}"]
        command += ["-mon", "chardev=qmp,mode=control", *arguments]
        self.log = _Log()
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.log.writer,
                pass_fds=[end.fileno() for end in theirs],
                start_new_session=True,  # Ctrl-C is for us, who switch the terminal off
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call, no locks
            )
        except OSError as error:
            self._close_ends()
            raise EngineError(f"{command[0]} does not start: {error.strerror}") from error
        finally:
            for end in theirs:
                end.close()
            self.log.close_writer()
        living.add(self)
        self._answers = b""
        try:
            self._answer()  # the greeting
            self.qmp("qmp_capabilities")
        except EngineError:
            self.kill()
            self.close()
            raise

    def qmp(self, command: str, **arguments: object) -> object:
        """Carry out a command of the QEMU machine protocol and return its result.

        Raises:
            EngineError: QEMU refused it, is gone or does not answer.
        """
        message = {"execute": command, "arguments": arguments}
        with contextlib.suppress(OSError):  # the missing answer tells
            self.ends["qmp"].sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._answer()
            if "error" in answer:
                raise EngineError(f"QEMU refused {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def _answer(self) -> dict[str, Any]:
        while b"\n" not in self._answers:
            self._answers += self.receive("qmp")
        line, _, self._answers = self._answers.partition(b"\n")
        return dict(json.loads(line))

    def receive(self, channel: str) -> bytes:
        """At least one byte from ``channel``.

        Raises:
            EngineError: QEMU is gone or does not answer.
        """
        end = self.ends[channel]
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(end, selectors.EVENT_READ)
            selector.register(self.log.reader, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                if left < 0:
                    raise EngineError(f"QEMU did not answer within {ANSWER_TIMEOUT_S:g} s")
                ready = [key.fileobj for key, _ in selector.select(left)]
                if end in ready:
                    break
                if ready and not self.log.read():  # it waits for us when the log is full
                    break
        with contextlib.suppress(OSError):
            data = end.recv(65536, socket.MSG_DONTWAIT)
        if not data:
            raise self.gone()
        return data

    def was_reset(self) -> bool:
        """After its end: whether the guest had asked for a reset of the board."""
        with contextlib.suppress(OSError):
            while data := self.ends["qmp"].recv(65536):
                self._answers += data
        return b'"guest-reset"' in self._answers

    def gone(self) -> EngineError:
        """The error that says why QEMU ended."""
        try:
            status: int | None = self._child.wait(ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = None
        self.log.read()
        words = f": {self.log.last_words}" if self.log.last_words else ""
        return EngineError(f"QEMU ended by itself with status {status}{words}")

    def kill(self) -> None:
        """End it at once. What it has written is in its files; what it has sent can be read."""
        living.discard(self)
        self._child.kill()
        self._child.wait()
        self.log.read()

    def close(self) -> None:
        """Release what is left after :meth:`kill`."""
        self._close_ends()

    def _close_ends(self) -> None:
        self.log.close()
        for end in self.ends.values():
            end.close()

    def __del__(self) -> None:
        child = getattr(self, "_child", None)
        if child is not None and child.returncode is None:
            self.kill()
            self.close()


class _Log:
    """What QEMU says on its standard error: its own messages and what the guest did wrong.

    It is a pipe: firmware that errs without end stops when nobody reads, and fills no disk.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self._rest = b""
        self.guest: list[str] = []
        self.last_words = ""

    def close_writer(self) -> None:
        os.close(self.writer)

    def close(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def read(self) -> bool:
        """Take what has been said; False at the end."""
        if self.reader < 0:
            return False
        for _ in range(16):  # at most a megabyte a turn
            try:
                data = os.read(self.reader, 65536)
            except BlockingIOError:
                return True
            *lines, rest = (self._rest + data).split(b"\n")
            self._rest = rest[:MAX_LOG_LINE_SIZE]
            for line in lines:
                self._take(line[:MAX_LOG_LINE_SIZE].decode("utf-8", "replace").strip())
            if not data:
                return False
        return True

    def _take(self, line: str) -> None:
        own = re.match(r"\S*qemu-system-\w+: (.*)|PFLASH: (.*)", line)
        if own:
            self.last_words = own.group(1) or line
        elif line and len(self.guest) < LOG_KEPT and not any(h.match(line) for h in HARMLESS):
            self.guest.append(line)


class _Line:
    """One UART. It outlives the processes; without power what is written is lost."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._waiting = bytearray()

    def connect(self, end: socket.socket) -> None:
        """Power is on: ``end`` leads to the terminal."""
        end.setblocking(False)
        self._socket = end

    def disconnect(self) -> None:
        """Power is off. What the terminal has sent before can still be read."""
        while self.pump():
            pass
        self._socket = None
        self._waiting.clear()

    @property
    def waits(self) -> bool:
        """Whether bytes wait for the terminal to take them."""
        return bool(self._waiting)

    def pump(self) -> bool:
        """Move bytes both ways as far as they go at once; True if the terminal had sent any."""
        if self._socket is None:
            return False
        with contextlib.suppress(OSError):
            while self._waiting:
                sent = self._socket.send(self._waiting)
                del self._waiting[:sent]
        data = b""
        with contextlib.suppress(OSError):
            data = self._socket.recv(65536)
        self._received += data
        return bool(data)

    def write(self, data: bytes) -> None:
        """Send ``data``; it arrives as fast as the firmware takes it, with none lost."""
        if self._socket is not None:
            self._waiting += data[: MAX_WAITING_BYTES - len(self._waiting)]
            self.pump()

    def read(self) -> bytes:
        """What the terminal has sent since the last call."""
        self.pump()
        data = bytes(self._received)
        self._received.clear()
        return data


class QemuEngine(Engine):
    """A terminal in a QEMU process, in real time.

    Args:
        arguments: more arguments for QEMU, such as ``-icount shift=0``.
        board: what it is; by default the board that there is.

    Raises:
        MissingToolError: QEMU is not installed.
        SetupError: it is another board.
    """

    name = "qemu"

    def __init__(self, arguments: Sequence[str] = (), *, board: Board | None = None) -> None:
        self.board = emulated_board(board, self.name)
        find_qemu()
        self._arguments = list(arguments)
        self._process: _Process | None = None
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._start = time.monotonic()
        self._faults: list[FirmwareFault] = []
        self._wire, self._radio = _Line(), _Line()
        self.wire, self.radio = self._wire, self._radio
        self._folder = tempfile.TemporaryDirectory(prefix="unbrick-qemu-")
        self._nor = Path(self._folder.name, "nor.bin")
        self._garbage = Path(self._folder.name, "sram.bin")
        self._garbage.write_bytes(random.Random(0x5EED).randbytes(self.board.sram.size))
        _blank(self._nor, self.board.nor)

    @property
    def version(self) -> tuple[int, int, int]:
        """The version of QEMU."""
        return ask_qemu_version()

    @property
    def powered(self) -> bool:
        return self._process is not None

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    @property
    def faults(self) -> list[FirmwareFault]:
        """What QEMU has logged of the firmware: exceptions, and what devices refused (first 64)."""
        if self._process is not None:
            self._process.log.read()
            self._collect(self._process)
        return self._faults

    def _collect(self, process: _Process) -> None:
        for line in process.log.guest:
            if line.startswith("..."):
                continue  # details of an exception
            kind = "exception" if line.startswith("Taking exception") else "device"
            if len(self._faults) < LOG_KEPT:
                self._faults.append(FirmwareFault(kind, 0, "", line, self.now))
        process.log.guest.clear()

    def power_on(self) -> None:
        if self._process is not None:
            return
        arguments = ["-drive", f"if=pflash,format=raw,index=0,file={_escape(self._nor)}"]
        arguments += ["-serial", "chardev:wire", "-serial", "chardev:radio"]
        arguments += ["-no-reboot", "-d", "guest_errors,unimp,int"]
        garbage = (
            f"loader,file={_escape(self._garbage)},addr={self.board.sram.base:#x},force-raw=on"
        )
        arguments += ["-device", garbage, *self._arguments]
        process = _Process(arguments, ["wire", "radio"])
        self._process = process
        self._wire.connect(process.ends["wire"])
        self._radio.connect(process.ends["radio"])
        self._selector.register(process.log.reader, selectors.EVENT_READ)
        for line in ("wire", "radio"):
            self._selector.register(process.ends[line], selectors.EVENT_READ)
        try:
            process.qmp("cont")
        except EngineError:
            self.power_off()
            raise

    def power_off(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        self._wire.disconnect()
        self._radio.disconnect()
        self._collect(process)
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
        process.close()

    def advance(self, seconds: float) -> None:
        """Wait for output for at most ``seconds``; the terminal runs on between calls, too.

        Raises:
            EngineError: QEMU ended by itself; the power is off then.
        """
        process = self._process
        if process is None:
            time.sleep(seconds)
            return
        deadline = time.monotonic() + seconds
        while True:
            for name, line in (("wire", self._wire), ("radio", self._radio)):
                write = selectors.EVENT_WRITE if line.waits else 0
                self._selector.modify(process.ends[name], selectors.EVENT_READ | write)
            left = deadline - time.monotonic()
            self._selector.select(max(0.0, left))
            if not process.log.read():
                if process.was_reset():
                    # A new process: one that reset itself would keep translated code of the NOR
                    # that the firmware has rewritten since. The SRAM is given up with it.
                    self.power_off()
                    self.power_on()
                    return
                error = process.gone()
                self.power_off()
                raise error
            said = [line.pump() for line in (self._wire, self._radio)]
            if any(said) or left <= 0:
                return

    def gdb_server(self, port: int, idle: Callable[[], None]) -> int:
        """QEMU's own server; a debugger has to connect anew after a power cut and after a reset."""
        del idle  # QEMU serves debuggers in its own process
        try:
            with socket.create_server(("127.0.0.1", port)) as free:
                port = int(free.getsockname()[1])
        except OSError as error:
            raise PortError(
                f"nothing can listen on port {port}: {error.strerror}", hint="choose another port"
            ) from error
        self._arguments += ["-gdb", f"tcp:127.0.0.1:{port}"]
        return port

    def read_nor(self) -> bytes:
        with self._nor.open("rb") as file:
            return file.read(self.board.nor.modelled)

    def load_nor(self, image: bytes) -> None:
        if self._process is not None:
            raise EngineError("the NOR cannot be replaced under power", hint="power off first")
        self._check_size(image)
        with self._nor.open("r+b") as file:
            file.write(image.ljust(self.board.nor.modelled, b"\xff"))

    def close(self) -> None:
        self.power_off()
        self._selector.close()
        self._folder.cleanup()


class QemuNor:
    """QEMU's model of the NOR alone: bus accesses to the command window, no CPU, no time.

    It has the calls of :class:`unbrick.engine.inprocess.NorModel`, and :meth:`batch`, which is
    faster.
    """

    def __init__(self) -> None:
        self._chips = emulated_board(None, QemuEngine.name).nor
        self._folder = tempfile.TemporaryDirectory(prefix="unbrick-qemu-nor-")
        self._nor = Path(self._folder.name, "nor.bin")
        _blank(self._nor, self._chips)
        drive = f"if=pflash,format=raw,index=0,file={_escape(self._nor)}"
        # The character device must be called so: QEMU 7.2 looks for no other.
        arguments = ["-drive", drive, "-qtest", "chardev:qtest", "-qtest-log", os.devnull]
        self._process = _Process(arguments, ["qtest"])
        self._answers = b""

    @property
    def array(self) -> bytes:
        """The cells of the modelled part."""
        return self.cells(0, self._chips.modelled)

    def cells(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the cells from ``offset``."""
        with self._nor.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def batch(self, accesses: Iterable[tuple[int, int | None]]) -> list[int]:
        """Carry out ``(offset, value)`` writes and ``(offset, None)`` reads of 32 bits, in order.

        Returns what was read. Offsets are in bytes, from the start of the window.

        Raises:
            EngineError: QEMU ended by itself, as it does in some wrong sequences.
        """
        window = self._chips.window
        lines = [
            f"readl {window + offset:#x}\n"
            if value is None
            else f"writel {window + offset:#x} {value:#x}\n"
            for offset, value in accesses
        ]
        reads = []
        for start in range(0, len(lines), 256):  # the answers of so many fit the socket's buffer
            chunk = lines[start : start + 256]
            with contextlib.suppress(OSError):  # the missing answer tells
                self._process.ends["qtest"].sendall("".join(chunk).encode())
            for _ in chunk:
                verdict, *result = self._answer().split()
                if verdict != "OK":
                    raise EngineError(f"QEMU refused a bus access: {verdict} {result}")
                reads += [int(word, 16) for word in result]
        return reads

    def _answer(self) -> str:
        while b"\n" not in self._answers:
            self._answers += self._process.receive("qtest")
        line, _, self._answers = self._answers.partition(b"\n")
        return line.decode()

    def read32(self, offset: int) -> int:
        """Read the window at ``offset`` (bytes, a multiple of 4)."""
        return self.batch([(offset, None)])[0]

    def write32(self, offset: int, value: int) -> None:
        """Write the window at ``offset`` (bytes, a multiple of 4)."""
        self.batch([(offset, value)])

    def reset(self) -> None:
        """Bring the chips to their state at power-up; the cells stay."""
        self._process.qmp("system_reset")
        self._process.qmp("query-status")

    def close(self) -> None:
        """End QEMU and remove its file."""
        self._process.kill()
        self._process.close()
        self._folder.cleanup()

    def __enter__(self) -> QemuNor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _blank(path: Path, nor: Nor) -> None:
    """Write the file of an erased NOR."""
    chunk = b"\xff" * nor.modelled
    with path.open("wb") as file:
        for _ in range(nor.size // len(chunk)):
            file.write(chunk)


def _escape(path: Path) -> str:
    """``path`` as the value of a QEMU option, in which a comma is doubled."""
    return str(path).replace(",", ",,")
