"""An engine that a debugger can stop: the server's half of GDB's remote serial protocol.

Source: "Remote Protocol" in the GDB manual. While the debugger has stopped the device, virtual time
stands still, for its peers too; its power and its peers are the bench's.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from string import hexdigits
from typing import TYPE_CHECKING

from unbrick.engine.base import TracedEngine
from unbrick.engine.compiled import Watchpoint
from unbrick.engine.gdb.connection import MAX_PACKET_SIZE, Connection, accept, listen
from unbrick.engine.gdb.registers import PC, describe_memories
from unbrick.errors import EngineError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from unbrick.engine.gdb.registers import CoreRegister, CoreRegisters, MemoryRange

MOST_BREAKPOINTS = 64
SHOWN = 10
"""Operations of the flash that ``monitor ops`` tells one by one."""

_INTERRUPTED, _TRAP, _FAULT = b"S02", b"S05", b"S0b"
_WATCHPOINTS = {"2": "write", "3": "read", "4": "access"}
_WATCH_WORDS = {"write": "watch", "read": "rwatch", "access": "awatch"}
_ESCAPE, _ESCAPED = 0x7D, 0x20
"""What comes before a byte of binary data that has a meaning of its own, and how that differs."""


class DebuggerGoneError(EngineError):
    """The debugger has killed the terminal."""


class PowerLostError(EngineError):
    """The debugger went on from where the power is lost."""


class Halt(Enum):
    """Why a debugged core has stopped."""

    STEP = auto()
    BREAK = auto()
    WATCH = auto()
    FAULT = auto()
    CUT = auto()


@dataclass(frozen=True)
class MonitorCommand:
    """What ``monitor`` in GDB can ask for.

    Attributes:
        purpose: for its help.
        answer: carries it out, and gives lines for a person.
        words: that may follow, for those who are used to them.
    """

    purpose: str
    answer: Callable[[DebuggedEngine], str]
    words: tuple[str, ...] = ()


class DebuggedEngine(TracedEngine):
    """An engine that a debugger can stop, between and within the turns of the bench.

    Call :meth:`attach` when a debugger is to have it: the device then stops at its next turn. Or
    let debuggers come and go by themselves, with :meth:`gdb_server`.

    Attributes:
        core: the registers of its core.
        memories: what a debugger may look at.
    """

    core: CoreRegisters
    memories: Sequence[MemoryRange]

    _connection: Connection | None = None
    _listener: socket.socket | None = None
    _idle: Callable[[], None] | None = None
    _stopped = False
    _steps = False
    _halt: Halt | None = None
    _resumed_at: int | None = None
    _stopped_at: int | None = None

    # What an engine has to know of its core. Each may be called between two runs only.

    @property
    @abstractmethod
    def progress(self) -> str:
        """How much was executed, in words."""

    @abstractmethod
    def run_freely(self, seconds: float) -> None:
        """As :meth:`advance` without a debugger."""

    @abstractmethod
    def run_debugged(
        self, seconds: float, *, steps: bool, passes: bool, past_watch: bool
    ) -> Halt | None:
        """Let time pass, until something stops the core; None: nothing has.

        Args:
            seconds: for how long at most.
            steps: it is to stop after one instruction.
            passes: no breakpoint stops it before the next one; none does that of a step.
            past_watch: and nothing that is watched does.
        """

    @abstractmethod
    def read_register(self, number: int) -> int:
        """A register, by the engine's number."""

    @abstractmethod
    def write_register(self, number: int, value: int) -> None:
        """Set a register, by the engine's number."""

    @abstractmethod
    def write_ram(self, address: int, data: bytes) -> None:
        """Change RAM.

        Raises:
            EngineError: it is not there.
        """

    def erase_flash(self, address: int, size: int) -> None:
        """Erase whole blocks from outside, as no operation of the firmware.

        Raises:
            EngineError: they are none, or this engine cannot.
        """
        raise EngineError(f"no {size} bytes of flash can be erased at {address:#x}")

    def program_flash(self, address: int, data: bytes) -> None:
        """Program flash from outside, as no operation of the firmware.

        Raises:
            EngineError: it is not there, or this engine cannot.
        """
        raise EngineError(f"no {len(data)} bytes of flash can be programmed at {address:#x}")

    @property
    @abstractmethod
    def breakpoints(self) -> frozenset[int]:
        """Addresses of instructions before which the core stops."""

    @abstractmethod
    def set_breakpoint(self, address: int) -> None:
        """Stop before the instruction at ``address``, every time."""

    @abstractmethod
    def clear_breakpoint(self, address: int) -> None:
        """No longer stop there."""

    @property
    @abstractmethod
    def watchpoints(self) -> frozenset[Watchpoint]:
        """What is watched: the core stops before an access to it."""

    @property
    @abstractmethod
    def watch_hit(self) -> tuple[Watchpoint, int] | None:
        """Which watchpoint stopped the core last, and the address that was to be accessed."""

    @abstractmethod
    def set_watchpoint(self, watchpoint: Watchpoint) -> None:
        """Stop before every instruction that accesses what is watched.

        Raises:
            EngineError: there are too many already, or it is not within the 32-bit addresses.
        """

    @abstractmethod
    def clear_watchpoint(self, watchpoint: Watchpoint) -> None:
        """No longer watch it."""

    def note_debugger(self, *, attached: bool) -> None:
        """A debugger has come, or gone."""

    # The debugger's coming and going.

    @property
    def monitor(self) -> Mapping[str, MonitorCommand]:
        """What ``monitor`` knows. In a case power and resets are the case's own."""
        return MONITOR if self._listener is None else MONITOR | LIVE_MONITOR

    def attach(self, connection: Connection) -> None:
        """Let a debugger control the device from the next turn on."""
        self._connection, self._stopped, self._halt = connection, True, None
        self.note_debugger(attached=True)

    def gdb_server(self, port: int, idle: Callable[[], None]) -> int:
        """Debuggers keep the device, and their breakpoints, over power cuts."""
        self._listener, self._idle = listen(port), idle
        self._listener.setblocking(False)
        return int(self._listener.getsockname()[1])

    def _let_in(self) -> None:
        if self._listener is not None and self._connection is None and self.powered:
            with suppress(BlockingIOError):
                self.attach(Connection(accept(self._listener), self._idle))

    def end_debugging(self) -> None:
        """Let nobody in any more, and the debugger go."""
        if self._listener is not None:
            self._listener.close()
        self.detach()

    def detach(self) -> None:
        """Let the debugger go; the device runs on. Tells it that the program has ended."""
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
        self._connection, self._stopped, self._steps = None, False, False
        self.note_debugger(attached=False)

    # Running.

    def advance(self, seconds: float) -> None:
        """As any engine; blocks while the debugger has stopped the device.

        Raises:
            DebuggerGoneError: it was killed.
            PowerLostError: it went on where :meth:`cut_before_op` had stopped the device.
        """
        try:
            self._advance(seconds)
        except OSError:  # as if it had let the device go
            self._release()
        if self.cut_reached:
            self._resumed_at = None
            raise PowerLostError("the power is lost here")

    def _advance(self, seconds: float) -> None:
        self._let_in()
        if self._connection is not None and self.powered:
            if not self._stopped and self._connection.interrupted():
                self._stopped, self._halt = True, None
                self._connection.send(_INTERRUPTED)
            self._obey()
        if self._connection is None or not self.powered:
            self.run_freely(seconds)
            return
        watched = self._halt is Halt.WATCH and self._resumed_at == self._stopped_at
        broken = self._halt is Halt.BREAK and self._resumed_at == self._stopped_at
        passes = watched or broken or self._resumed_at in self.breakpoints
        self._halt, self._resumed_at = None, None
        self._halt = self.run_debugged(
            seconds, steps=self._steps, passes=passes, past_watch=watched
        )
        if self._halt is not None:
            self._tell(self._connection)

    def _tell(self, connection: Connection) -> None:
        """The core has stopped: let the debugger look at it."""
        said = ""
        if self._halt is Halt.CUT:
            said = f"just before flash operation {self.op_count}: the power is lost here"
        elif self._halt is Halt.FAULT and self.faults:
            said = self.faults[-1].detail
        if said:
            connection.say(f"unbrick: {said}\n")
        self._stopped, self._stopped_at = True, self.read_register(PC)
        connection.send(self._why())
        self._obey()

    def _why(self) -> bytes:
        if self._halt is Halt.WATCH and self.watch_hit is not None:
            watchpoint, address = self.watch_hit
            return b"T05%s:%x;" % (_WATCH_WORDS[watchpoint.kind].encode(), address)
        return _FAULT if self._halt is Halt.FAULT else _TRAP

    # Packets.

    def _obey(self) -> None:
        """Do what the debugger asks for while it keeps the device stopped."""
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
        """The answer to a packet; None: there is none now, the device goes on."""
        if packet.startswith(b"vFlash"):
            return self._change_flash(packet)
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
            "g": lambda _: b"".join(map(self._show, self.core.registers)),
            "G": self._set_registers,
            "p": lambda text: self._show(self._find_register(text)),
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
            return self._transfer(text)
        if text.startswith("qRcmd,"):
            return self._obey_monitor(bytes.fromhex(text[6:]).decode(errors="replace"))
        if text == "vCont?":
            return b"vCont;c;C;s;S"
        if text.startswith("vCont;") and text[6:7] in {"c", "C", "s", "S"}:
            return self._go("", steps=text[6] in "sS")
        return b"1" if text.startswith("qAttached") else b""

    def _transfer(self, text: str) -> bytes:
        """The part of a document that ``qXfer`` asks for; nothing when there is no such one."""
        name, _, where = text.removeprefix("qXfer:").rpartition(":")
        if name == "features:read:target.xml":
            document = self.core.document
        elif name == "memory-map:read:":
            document = describe_memories(self.memories)
        else:
            return b""
        first, length = (_number(part) for part in where.split(","))
        part = document[first : first + min(length, MAX_PACKET_SIZE // 2)]
        return (b"m" if first + len(part) < len(document) else b"l") + part

    def _obey_monitor(self, line: str) -> bytes:
        """What ``monitor`` in GDB asks of the device itself."""
        first, *others = line.split() or ["help"]
        command = self.monitor.get(first)
        if command is None or (others and " ".join(others) not in command.words):
            said = f"there is no `{line}`: `monitor help` lists what there is"
        else:
            said = command.answer(self)
        if self._connection is not None:
            self._connection.say(said + "\n")
        return b"OK"

    def _find_register(self, text: str) -> CoreRegister:
        return self.core.registers[_number(text, len(self.core.registers) - 1)]

    def _show(self, register: CoreRegister) -> bytes:
        value = self.read_register(register.number)
        return value.to_bytes(register.size, "little").hex().encode()

    def _set_register(self, text: str) -> bytes:
        number, _, value = text.partition("=")
        register = self._find_register(number)
        data = _bytes(value, register.size)
        self.write_register(register.number, int.from_bytes(data, "little"))
        return b"OK"

    def _set_registers(self, text: str) -> bytes:
        data = _bytes(text, sum(one.size for one in self.core.registers))
        for register in self.core.registers:
            value, data = data[: register.size], data[register.size :]
            self.write_register(register.number, int.from_bytes(value, "little"))
        return b"OK"

    def _read(self, text: str) -> bytes:
        address, length = text.split(",")
        return (
            self.read_memory(_number(address), _number(length, MAX_PACKET_SIZE // 2)).hex().encode()
        )

    def _write(self, text: str) -> bytes:
        where, _, data = text.partition(":")
        address, length = where.split(",")
        self.write_ram(_number(address), _bytes(data, _number(length, MAX_PACKET_SIZE // 2)))
        return b"OK"

    def _change_flash(self, packet: bytes) -> bytes:
        """``load`` in GDB. In a case the flash is the case's own."""
        name, _, rest = packet.partition(b":")
        if self._listener is None:
            raise EngineError("the flash is the case's")
        if name == b"vFlashErase":
            address, length = rest.decode("ascii").split(",")
            self.erase_flash(_number(address), _number(length))
        elif name == b"vFlashWrite":
            place, _, data = rest.partition(b":")
            self.program_flash(_number(place.decode("ascii")), _unescape(data))
        elif name != b"vFlashDone":
            return b""
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
            self.write_register(PC, _number(address))
        self._stopped, self._steps, self._resumed_at = False, steps, self.read_register(PC)
        return None


def _help(engine: DebuggedEngine) -> str:
    return "\n".join(f"{name:<8}{one.purpose}" for name, one in engine.monitor.items())


def _time(engine: DebuggedEngine) -> str:
    return f"{engine.now:.9f} s of virtual time, {engine.progress}"


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


def _cut(engine: DebuggedEngine) -> str:
    engine.power_off()
    engine.power_on()
    return f"the power was off and is on again{STALE}"


STALE = ": `maintenance flush register-cache` shows where the core is now"
"""What GDB has to be told after something that it does not expect of ``monitor``."""

MONITOR: dict[str, MonitorCommand] = {
    "help": MonitorCommand("this list", _help),
    "time": MonitorCommand("the virtual time, which stands still while the terminal does", _time),
    "ops": MonitorCommand(
        "the operations of the flash so far, the last ones one by one", _operations
    ),
    "faults": MonitorCommand(
        "what the firmware did that the hardware forbids, with its place", _faults
    ),
}
"""What ``monitor`` knows everywhere."""

LIVE_MONITOR: dict[str, MonitorCommand] = {
    "cut": MonitorCommand("cut the power and give it back", _cut),
}
"""What it knows of a device that runs for no case."""


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


def _unescape(data: bytes) -> bytes:
    """Binary data of a packet as it was meant."""
    out, escaped = bytearray(), False
    for byte in data:
        if escaped or byte != _ESCAPE:
            out.append(byte ^ _ESCAPED if escaped else byte)
            escaped = False
        else:
            escaped = True
    if escaped:
        raise ValueError("nothing is behind the last escape")
    return bytes(out)
