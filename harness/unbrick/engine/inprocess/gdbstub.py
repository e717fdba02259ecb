"""A debugger for the in-process engine: GDB's remote serial protocol over a loopback socket.

Source: "Remote Protocol" and "Memory Map Format" in the GDB manual. While the debugger has stopped
the terminal, virtual time stands still, for the peers of the terminal too; its power and its peers
are the bench's.
"""

from __future__ import annotations

import select
import shlex
import socket
from contextlib import suppress
from string import hexdigits
from typing import TYPE_CHECKING

from unbrick.engine.inprocess.engine import CPSR, InProcessEngine, Watchpoint
from unbrick.engine.inprocess.models import Stop
from unbrick.errors import EngineError, PortError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from unbrick.board import Board

MAX_PACKET_SIZE = 0x2000
MOST_BREAKPOINTS = 64
IDLE_S = 0.02
SHOWN = 10
"""Operations of the flash that ``monitor ops`` tells one by one."""
REGISTERS = CPSR + 1
_NOT_OVER = {Stop.CUT, Stop.FAULT, Stop.WATCH}
"""A step that came back for one of these is not followed by anything."""
_INTERRUPTED, _TRAP, _FAULT = b"S02", b"S05", b"S0b"
_POINTERS = {13: ("sp", "data_ptr"), 14: ("lr", "int"), 15: ("pc", "code_ptr")}
_NAMES = [_POINTERS.get(number, (f"r{number}", "int")) for number in range(16)]
_NAMES.append(("cpsr", "int"))
TARGET = (
    '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
    '<architecture>arm</architecture><feature name="org.gnu.gdb.arm.core">'
    + "".join(f'<reg name="{name}" bitsize="32" type="{kind}"/>' for name, kind in _NAMES)
    + "</feature></target>"
).encode()
_WATCHPOINTS = {"2": "write", "3": "read", "4": "access"}
_WATCH_WORDS = {"write": "watch", "read": "rwatch", "access": "awatch"}


class DebuggerGoneError(EngineError):
    """The debugger has killed the terminal."""


class PowerLostError(EngineError):
    """The debugger went on from where the power is lost."""


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


class DebuggedEngine(InProcessEngine):
    """An in-process terminal that a debugger can stop, between and within the turns of the bench.

    Call :meth:`attach` when a debugger is to have it: the terminal then stops at its next turn. Or
    let debuggers come and go by themselves, with :meth:`gdb_server`.
    """

    _connection: Connection | None = None
    _listener: socket.socket | None = None
    _idle: Callable[[], None] | None = None
    _stopped = False
    _steps = False
    _resumed_at: int | None = None
    _stopped_at: int | None = None

    def attach(self, connection: Connection) -> None:
        """Let a debugger control the terminal from the next turn on."""
        self._connection, self._stopped = connection, True

    def gdb_server(self, port: int, idle: Callable[[], None]) -> int:
        """Debuggers keep the terminal, and their breakpoints, over power cuts."""
        self._listener, self._idle = _listen(port), idle
        self._listener.setblocking(False)
        return int(self._listener.getsockname()[1])

    def _let_in(self) -> None:
        if self._listener is not None and self._connection is None and self.powered:
            with suppress(BlockingIOError):
                self.attach(Connection(_accept(self._listener), self._idle))

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self.detach()
        super().close()

    def detach(self) -> None:
        """Let the debugger go; the terminal runs on. Tells it that the program has ended."""
        if self._connection is not None:
            try:
                if not self._stopped:
                    self._connection.send(b"W00")
            except OSError:
                pass
            self._release()

    def _release(self) -> None:
        for address in self.breakpoints:
            self.clear_breakpoint(address)
        for watchpoint in self.watchpoints:
            self.clear_watchpoint(watchpoint)
        if self._connection is not None:
            self._connection.close()
        self._connection, self._stopped = None, False

    def advance(self, seconds: float) -> None:
        """As any engine; blocks while the debugger has stopped the terminal.

        Raises:
            DebuggerGoneError: it was killed.
            PowerLostError: it went on where :meth:`cut_before_op` had stopped the terminal.
        """
        try:
            self._advance(seconds)
        except OSError:  # as if it had let the terminal go
            self._release()
        if self.cut_reached:
            self._resumed_at = None
            raise PowerLostError("the power is lost here")

    def _advance(self, seconds: float) -> None:
        self._let_in()
        if self._connection is not None and self.powered:
            if not self._stopped and self._connection.interrupted():
                self._stopped = True
                self._connection.send(_INTERRUPTED)
            self._obey()
        if self._connection is None or not self.powered:
            super().advance(seconds)
            return
        watched = self.last_stop is Stop.WATCH and self._resumed_at == self._stopped_at
        over = self._steps or watched or self._resumed_at in self.breakpoints
        self._resumed_at = None
        if over:
            self.step(over_watchpoints=watched)
        if not self._steps and not (over and self.last_stop in _NOT_OVER):
            super().advance(seconds)
        self._tell(self._connection)

    def _tell(self, connection: Connection) -> None:
        """Stop, if there is a reason to, and let the debugger look at it."""
        said = ""
        if self.last_stop is Stop.CUT:
            said = f"just before flash operation {self.op_count}: the power is lost here"
        elif self.last_stop is Stop.FAULT:
            said = self.faults[-1].detail
        elif not self._steps and self.last_stop not in {Stop.BREAK, Stop.WATCH}:
            return
        if said:
            connection.say(f"unbrick: {said}\n")
        self._stopped, self._stopped_at = True, self.read_register(15)
        connection.send(self._why())
        self._obey()

    def _why(self) -> bytes:
        if self.last_stop is Stop.WATCH and self.watch_hit is not None:
            watchpoint, address = self.watch_hit
            return b"T05%s:%x;" % (_WATCH_WORDS[watchpoint.kind].encode(), address)
        return _FAULT if self.last_stop is Stop.FAULT else _TRAP

    def _obey(self) -> None:
        """Do what the debugger asks for while it keeps the terminal stopped."""
        while self._stopped and self._connection is not None:
            packet = self._connection.receive()
            try:
                answer = self._answer(packet)
            except (ValueError, IndexError, EngineError) as error:
                if isinstance(error, DebuggerGoneError):
                    raise
                answer = b"E01"
            if answer is not None:
                self._connection.send(answer)
            if packet[:1] == b"D":
                self._release()

    def _answer(self, packet: bytes) -> bytes | None:
        """The answer to a packet; None: there is none now, the terminal goes on."""
        text = packet.decode("ascii")
        if text[:1] == "k" or text.startswith("vKill"):
            self._release()
            raise DebuggerGoneError("the debugger has killed the terminal")
        if text.startswith(("q", "v")):
            return self._query(text)
        handler = self._handlers().get(text[:1])
        return handler(text[1:]) if handler else b""

    def _handlers(self) -> dict[str, Callable[[str], bytes | None]]:
        return {
            "?": lambda _: self._why(),
            "g": lambda _: b"".join(map(self._register, range(REGISTERS))),
            "G": self._set_registers,
            "p": lambda text: self._register(_number(text, REGISTERS - 1)),
            "P": self._set_register,
            "m": self._read,
            "M": self._write,
            "c": lambda text: self._go(text, steps=False),
            "s": lambda text: self._go(text, steps=True),
            "Z": lambda text: self._breakpoint(text, wanted=True),
            "z": lambda text: self._breakpoint(text, wanted=False),
            "D": lambda _: b"OK",
            "H": lambda _: b"OK",
            "T": lambda _: b"OK",
        }

    def _query(self, text: str) -> bytes | None:
        if text.startswith("qSupported"):
            return (
                b"PacketSize=%x;qXfer:features:read+;qXfer:memory-map:read+;vContSupported+"
                % MAX_PACKET_SIZE
            )
        if text.startswith("qXfer:"):
            return _transfer(text, self.board)
        if text.startswith("qRcmd,"):
            return self._obey_monitor(bytes.fromhex(text[6:]).decode(errors="replace"))
        if text == "vCont?":
            return b"vCont;c;C;s;S"
        if text.startswith("vCont;") and text[6:7] in {"c", "C", "s", "S"}:
            return self._go("", steps=text[6] in "sS")
        return b"1" if text.startswith("qAttached") else b""

    def _obey_monitor(self, line: str) -> bytes:
        """What ``monitor`` in GDB asks of the terminal itself."""
        words = line.split() or ["help"]
        command = MONITOR.get(words[0])
        if command is None or len(words) > 1:
            said = f"there is no `{line}`: `monitor help` lists what there is"
        else:
            said = command[1](self)
        if self._connection is not None:
            self._connection.say(said + "\n")
        return b"OK"

    def _register(self, number: int) -> bytes:
        return self.read_register(number).to_bytes(4, "little").hex().encode()

    def _set_register(self, text: str) -> bytes:
        number, _, value = text.partition("=")
        at = _number(number, REGISTERS - 1)
        self.write_register(at, int.from_bytes(_bytes(value, 4), "little"))
        return b"OK"

    def _set_registers(self, text: str) -> bytes:
        data = _bytes(text, 4 * REGISTERS)
        for number in range(REGISTERS):
            value = int.from_bytes(data[4 * number : 4 * number + 4], "little")
            self.write_register(number, value)
        return b"OK"

    def _read(self, text: str) -> bytes:
        address, length = text.split(",")
        return (
            self.read_memory(_number(address), _number(length, MAX_PACKET_SIZE // 2)).hex().encode()
        )

    def _write(self, text: str) -> bytes:
        where, _, data = text.partition(":")
        address, length = where.split(",")
        self.write_sram(_number(address), _bytes(data, _number(length, MAX_PACKET_SIZE // 2)))
        return b"OK"

    def _breakpoint(self, text: str, *, wanted: bool) -> bytes:
        kind, address, length = text.split(",")
        if kind in _WATCHPOINTS:
            watchpoint = Watchpoint(_number(address), _number(length), _WATCHPOINTS[kind])
            if wanted:
                self.set_watchpoint(watchpoint)
            else:
                self.clear_watchpoint(watchpoint)
            return b"OK"
        if kind not in {"0", "1"}:
            return b""
        if not wanted:
            self.clear_breakpoint(_number(address))
        elif len(self.breakpoints) >= MOST_BREAKPOINTS:
            return b"E02"
        else:
            self.set_breakpoint(_number(address))
        return b"OK"

    def _go(self, address: str, *, steps: bool) -> bytes | None:
        if address:
            self.write_register(15, _number(address))
        self._stopped, self._steps, self._resumed_at = False, steps, self.read_register(15)
        return None


def describe_memories(board: Board) -> bytes:
    """What a debugger can look at. It takes hardware breakpoints for what it cannot write."""
    return (
        '<?xml version="1.0"?><!DOCTYPE memory-map PUBLIC'
        ' "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN"'
        ' "http://sourceware.org/gdb/gdb-memory-map.dtd"><memory-map>'
        f'<memory type="rom" start="{board.nor.base:#x}" length="{board.nor.modelled:#x}"/>'
        f'<memory type="ram" start="{board.sram.base:#x}" length="{board.sram.size:#x}"/>'
        "</memory-map>"
    ).encode()


def _transfer(text: str, board: Board) -> bytes:
    """The part of a document that ``qXfer`` asks for; nothing when there is no such document."""
    name, _, where = text.removeprefix("qXfer:").rpartition(":")
    documents = {
        "features:read:target.xml": TARGET,
        "memory-map:read:": describe_memories(board),
    }
    document = documents.get(name)
    if document is None:
        return b""
    first, length = (_number(part) for part in where.split(","))
    part = document[first : first + min(length, MAX_PACKET_SIZE // 2)]
    return (b"m" if first + len(part) < len(document) else b"l") + part


def _help(_engine: DebuggedEngine) -> str:
    return "\n".join(f"{name:<8}{text}" for name, (text, _) in MONITOR.items())


def _time(engine: DebuggedEngine) -> str:
    return f"{engine.now:.9f} s of virtual time, {engine.blocks} basic blocks executed"


def _operations(engine: DebuggedEngine) -> str:
    lines = [f"{engine.op_count} flash operations were begun"]
    lines += [
        f"{op.index}: {op.kind}, {op.length} bytes at {op.offset:#010x}"
        for op in engine.ops[-SHOWN:]
    ]
    return "\n".join(lines)


def _faults(engine: DebuggedEngine) -> str:
    lines = [f"{fault.where or hex(fault.pc)}: {fault.detail}" for fault in engine.faults]
    return "\n".join(lines) or "the firmware has done nothing that the hardware forbids"


MONITOR: dict[str, tuple[str, Callable[[DebuggedEngine], str]]] = {
    "help": ("this list", _help),
    "time": ("the virtual time, which stands still while the terminal does", _time),
    "ops": ("the operations of the flash so far, the last ones one by one", _operations),
    "faults": ("what the firmware did that the hardware forbids, with its place", _faults),
}
"""What ``monitor`` knows: a text for its help, and what gives the answer."""


def _number(text: str, most: int = 0xFFFFFFFF) -> int:
    value = int(text, 16) if set(text) <= set(hexdigits) else -1
    if not 0 <= value <= most:
        raise ValueError(f"{text} is out of range")
    return value


def _bytes(text: str, length: int) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != length:
        raise ValueError(f"there are {len(data)} bytes, not {length}")
    return data


def wait_for_debugger(port: int, ready: Callable[[int], None]) -> Connection:
    """Wait for a debugger on a TCP port of the loopback interface.

    Args:
        port: where to listen; 0: any.
        ready: called with the port as soon as a debugger can connect.

    Raises:
        PortError: nobody can listen there.
    """
    with _listen(port) as listener:
        ready(listener.getsockname()[1])
        return Connection(_accept(listener))


def gdb_command(elf_files: Iterable[Path], port: int) -> str:
    """The shell command that starts GDB with the symbols of ``elf_files`` at a server's port."""
    first, *others = map(str, elf_files)
    orders = ["set confirm off", *(f"add-symbol-file {path}" for path in others)]
    orders += ["set confirm on", f"target remote 127.0.0.1:{port}"]
    words = ["gdb-multiarch", first, *(word for order in orders for word in ("-ex", order))]
    return shlex.join(words)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise PortError(
            f"nothing can listen on port {port}: {error.strerror}", hint="choose another port"
        ) from error


def _accept(listener: socket.socket) -> socket.socket:
    peer, _ = listener.accept()
    peer.setblocking(True)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer
