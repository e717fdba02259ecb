"""A QEMU under way, and its ends: the machine protocol, the log, the serial lines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.engine.child import die_with_parent, find_program, living
from unbrick.errors import EngineError
from unbrick.patience import ANSWER_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


class QemuProcess:
    """A QEMU that is under way, paused before its first instruction.

    Every stream is a socket pair made beforehand, so nothing has to be connected and nothing can be
    missed.

    Args:
        arguments: besides those that every QEMU here gets.
        channels: names of the character devices to make; ends are in :attr:`ends`.
        machine: the arguments that say what it emulates.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        channels: Iterable[str],
        machine: Sequence[str] = ("-M", "vexpress-a9", "-m", "32M"),
    ) -> None:
        self.ends: dict[str, socket.socket] = {}
        theirs: list[socket.socket] = []
        command = [find_qemu(), *machine, "-nodefaults", "-no-user-config"]
        command += ["-display", "none", "-audiodev", "none,id=none", "-S"]
        for channel in ("qmp", *channels):
            self.ends[channel], end = socket.socketpair()
            theirs.append(end)
            command += ["-chardev", f"socket,id={channel},fd={end.fileno()}"]
        command += ["-mon", "chardev=qmp,mode=control", *arguments]
        self.log = QemuLog()
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
        self._resets = self._guest_resets = 0
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
            self._note(answer)

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

    def receive_at_once(self, channel: str) -> bytes:
        """All that has come from ``channel``; may be empty."""
        found = b""
        with contextlib.suppress(OSError):
            while data := self.ends[channel].recv(65536, socket.MSG_DONTWAIT):
                found += data
        return found

    def reset(self) -> None:
        """Reset the machine, which stands still, and wait until that is done."""
        before = self._resets
        self.qmp("system_reset")
        while self._resets == before:
            self._answers += self.receive("qmp")
            self._see_events()

    def kick(self) -> None:
        """Wake its main loop; what it has to say then comes by itself.

        A QEMU that is gone is found out elsewhere.
        """
        with contextlib.suppress(EngineError):
            self.qmp("query-status")

    def wants_time(self) -> bool:
        """Whether one of its threads wants a processor, and is not asleep."""
        for stat in Path(f"/proc/{self._child.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):  # that thread has ended
                if stat.read_text().rpartition(")")[2].split()[0] == "R":
                    return True
        return False

    def processor_time(self) -> float:
        """Seconds of a processor that it has had."""
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
            return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def count_resets(self) -> int:
        """How often the guest has reset the machine since the last call."""
        self._answers += self.receive_at_once("qmp")
        self._see_events()
        count, self._guest_resets = self._guest_resets, 0
        return count

    def _see_events(self) -> None:
        """Take in what has come without having been asked for."""
        while b"\n" in self._answers:
            line, _, self._answers = self._answers.partition(b"\n")
            self._note(json.loads(line))

    def _note(self, said: dict[str, Any]) -> None:
        if said.get("event") == "RESET":
            self._resets += 1
            self._guest_resets += bool(said["data"]["guest"])

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


class QemuLog:
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


class QemuLine:
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


def escape_path(path: Path) -> str:
    """``path`` as the value of a QEMU option, in which a comma is doubled."""
    return str(path).replace(",", ",,")
