"""The QEMU engine: ``qemu-system-arm -M vexpress-a9`` runs the terminal in real time.

Power-off is the death of the process. QEMU writes every change of its flash through to the file
behind it before the firmware can see the operation's end, so the file is the NOR that survives.

QEMU is more patient than the hardware: its UARTs never lose a byte and have no rate, its NOR works
at once (``docs/nor-differences.md``), and it has more SRAM than the terminal. What only the
in-process engine can catch is for that engine to catch.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.engine.base import Engine, FirmwareFault, emulated_board
from unbrick.engine.qemu.process import (
    LOG_KEPT,
    QemuLine,
    QemuProcess,
    ask_qemu_version,
    escape_path,
    find_qemu,
)
from unbrick.errors import EngineError, PortError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from unbrick.board import Board, Nor


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
        self._process: QemuProcess | None = None
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._start = time.monotonic()
        self._faults: list[FirmwareFault] = []
        self._wire, self._radio = QemuLine(), QemuLine()
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

    def _collect(self, process: QemuProcess) -> None:
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
        arguments = ["-drive", f"if=pflash,format=raw,index=0,file={escape_path(self._nor)}"]
        arguments += ["-serial", "chardev:wire", "-serial", "chardev:radio"]
        arguments += ["-no-reboot", "-d", "guest_errors,unimp,int"]
        garbage = (
            f"loader,file={escape_path(self._garbage)},addr={self.board.sram.base:#x},force-raw=on"
        )
        arguments += ["-device", garbage, *self._arguments]
        process = QemuProcess(arguments, ["wire", "radio"])
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
        drive = f"if=pflash,format=raw,index=0,file={escape_path(self._nor)}"
        # The character device must be called so: QEMU 7.2 looks for no other.
        arguments = ["-drive", drive, "-qtest", "chardev:qtest", "-qtest-log", os.devnull]
        self._process = QemuProcess(arguments, ["qtest"])
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
