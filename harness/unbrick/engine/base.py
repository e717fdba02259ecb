"""What every engine can do: power, two serial lines, NOR in and out, and time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from unbrick.board import Board, load_board
from unbrick.errors import EngineError, NotKnownHereError, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Self

    from unbrick.flash.geometry import FlashGeometry
    from unbrick.flash.ops import FlashOp, Worn

EMULATED = "vexpress-a9"
"""The board that the engines emulate; ``tests/test_board.py`` compares their numbers with it."""


def emulated_board(board: Board | None, engine: str) -> Board:
    """The board that an engine emulates, if that is the one that is wanted.

    Args:
        board: what is wanted; None: whatever there is.
        engine: its name, for the message.

    Raises:
        SetupError: another one is wanted.
    """
    known = load_board(EMULATED)
    if board is None:
        return known
    if replace(board, name=known.name) != known:
        raise SetupError(
            f"the engine {engine} does not emulate the board {board.name}",
            hint=f"it emulates {EMULATED}, with the numbers of Unbrick's own description",
        )
    return board


class Line(Protocol):
    """The host's end of one of the terminal's UARTs, as a byte stream that never blocks."""

    def write(self, data: bytes) -> None:
        """Send ``data`` to the terminal; it arrives at the line's rate."""

    def read(self) -> bytes:
        """All bytes the terminal has sent since the last call; may be empty."""


@dataclass(frozen=True)
class FirmwareFault:
    """Something the firmware did that the hardware forbids.

    Attributes:
        kind: ``busy-fetch``, ``busy-read``, ``program-set-bit``, ``command``, ``locked``,
            ``bounds``, ``exception``, ...
        pc: address of the basic block that did it.
        where: ``function (file:line)`` when symbols are known, else empty.
        detail: one line for a person.
        time: seconds since the engine was made.
    """

    kind: str
    pc: int
    where: str
    detail: str
    time: float

    def __str__(self) -> str:
        return f"{self.where or f'pc {self.pc:#x}'}: {self.detail} ({self.kind})"


@dataclass(frozen=True)
class VainRegister:
    """A register that nobody models and that firmware waits for in vain.

    Attributes:
        address: of the register.
        name: of an SVD file or of the chip's; may be empty.
        count: how often one loop has read it with nothing written meanwhile.
        pc: of the code that did.
        where: ``function (file:line)`` when symbols are known, else empty.
    """

    address: int
    name: str
    count: int
    pc: int
    where: str

    def __str__(self) -> str:
        name = f"{self.name} at {self.address:#010x}" if self.name else f"{self.address:#010x}"
        return (
            f"the firmware waits in vain for {name}, which has no model: "
            f"read {self.count:,} times in {self.where or f'pc {self.pc:#x}'}"
        )


@runtime_checkable
class FlashTrace(Protocol):
    """An engine that notes every flash operation, and cuts the power exactly before one."""

    @property
    def ops(self) -> Sequence[FlashOp]:
        """Every flash operation that was begun, in order, over all power cycles."""

    @property
    def op_count(self) -> int:
        """How many flash operations were begun."""

    @property
    def cut_reached(self) -> bool:
        """Whether the armed cut stopped the terminal; :meth:`Engine.power_off` completes it."""

    def cut_before_op(self, index: int | None) -> None:
        """Arm a power cut just before flash operation ``index``; None: none."""

    def forget(self) -> None:
        """Begin anew at time 0, with no operations and no faults; the power must be off."""


@runtime_checkable
class MemoryAccess(Protocol):
    """An engine whose memories can be looked at while the terminal runs."""

    def read_memory(self, address: int, length: int) -> bytes:
        """NOR (its cells, whatever the chip answers now) or SRAM; shorter at the memory's end.

        Raises:
            EngineError: it is another place.
        """


@runtime_checkable
class WearingFlash(Protocol):
    """An engine whose flash can have worn cells."""

    def wear(self, worn: Iterable[Worn]) -> None:
        """Have operations end with an error from now on; what was said before is forgotten.

        Raises:
            EngineError: these are more places than it can keep.
        """


class Engine(ABC):
    """One terminal on one kind of (emulated) hardware.

    ``wire`` is UART0, ``radio`` is UART1. Both keep working over power cuts: what is written while
    the power is off is lost, as on a real line.
    """

    name: str
    board: Board
    wire: Line
    radio: Line

    @property
    def geometry(self) -> FlashGeometry:
        """The erase blocks of the NOR, as far as it is modelled."""
        return self.board.nor.geometry

    @property
    def flash_trace(self) -> FlashTrace | None:
        """The engine as one that traces flash operations; None where it cannot."""
        return self if isinstance(self, FlashTrace) else None

    @property
    def memory_access(self) -> MemoryAccess | None:
        """The engine as one whose memories can be looked at; None where they cannot."""
        return self if isinstance(self, MemoryAccess) else None

    @property
    def wearing_flash(self) -> WearingFlash | None:
        """The engine as one whose flash can have worn cells; None where it cannot."""
        return self if isinstance(self, WearingFlash) else None

    @property
    def overruns(self) -> tuple[int, ...]:
        """Bytes that UART0 and UART1 lost since the software was late; empty: it is not known."""
        return ()

    @property
    @abstractmethod
    def powered(self) -> bool:
        """Whether the terminal has power."""

    @property
    @abstractmethod
    def now(self) -> float:
        """Seconds since the engine was made: virtual in process, of the clock elsewhere."""

    @property
    @abstractmethod
    def faults(self) -> list[FirmwareFault]:
        """What the firmware did wrong so far, as far as this engine can see it."""

    @abstractmethod
    def power_on(self) -> None:
        """Start the terminal from the NOR with unknown SRAM (the models fill it with a pattern)."""

    @abstractmethod
    def power_off(self) -> None:
        """Cut the power: SRAM and CPU state are lost, the NOR keeps its cells as they are."""

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Let the terminal run for at most ``seconds``; returns early when it sent something."""

    @abstractmethod
    def read_nor(self) -> bytes:
        """The modelled part of the NOR (``board.nor.modelled`` bytes)."""

    def _check_size(self, image: bytes) -> None:
        """See that an image is not longer than the NOR.

        Raises:
            EngineError: it is.
        """
        if len(image) > self.board.nor.modelled:
            raise EngineError(
                f"the image has {len(image)} bytes, the NOR model {self.board.nor.modelled}",
                hint="make it shorter",
            )

    @abstractmethod
    def load_nor(self, image: bytes) -> None:
        """Replace the NOR's contents; shorter images are filled with 0xFF.

        Raises:
            EngineError: the power is on, or the image is too long.
        """

    def gdb_server(self, port: int, idle: Callable[[], None]) -> int:
        """From the next power-on let debuggers (GDB's remote protocol) in, one at a time.

        Args:
            port: TCP, of the loopback interface; 0: any.
            idle: called about every 20 ms while a debugger keeps :meth:`advance` from coming back,
                if it does; may raise, which ends :meth:`advance` with the terminal as it is.

        Returns:
            The port.

        Raises:
            NotKnownHereError: this engine has no server for debuggers.
            PortError: nobody can listen there.
        """
        del port, idle
        raise NotKnownHereError(
            f"the engine {self.name} has no debugger", hint="choose another with --engine"
        )

    @abstractmethod
    def close(self) -> None:
        """Stop the terminal and release everything."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NoteSource(IntFlag):
    """What reads flash, so that its contents have a say (``enum note_source``)."""

    NONE = 0
    LOADS = 1
    FETCHES = 2
    TRANSFERS = 4
    CONTROLLER = 8
    HOST = 16
    ALL = 31


class TracedEngine(Engine, FlashTrace, MemoryAccess):
    """An engine in virtual time with a trace of its flash: what a campaign searches with."""

    @abstractmethod
    def note_reads(self, sources: NoteSource = NoteSource.ALL) -> None:
        """Begin anew to note which first contents of the flash have a say; the power is off.

        Args:
            sources: what reads the flash and is noted.

        Raises:
            EngineError: the power is on.
        """

    @property
    @abstractmethod
    def relevant(self) -> int:
        """The units of 4 bytes whose first contents had one, as a set of bits."""


class ChipEngine(TracedEngine):
    """An engine of one microcontroller, whose core can be looked at while it runs.

    Attributes:
        lines: every serial line, by the name of its UART.
    """

    lines: Mapping[str, Line]

    @property
    @abstractmethod
    def pc(self) -> int:
        """Address of the code that the core is at."""

    @property
    @abstractmethod
    def resets(self) -> int:
        """How often the chip has reset itself since the engine was made or has forgotten."""

    @property
    def has_joined(self) -> bool:
        """Whether the session has ended, since it has come to where an earlier one has been."""
        return False

    @abstractmethod
    def find_overruns(self, uart: str) -> int:
        """Bytes that a UART, by its name, lost since the firmware was late."""

    @abstractmethod
    def press_reset(self) -> None:
        """Reset the chip by its pin: RAM keeps what it holds.

        Raises:
            EngineError: the power is off.
        """

    def brown_out(self) -> None:
        """Have the supply too low for a moment: the chip is reset, and RAM keeps what it holds.

        An operation of its own flash that is under way is torn. That of a chip beside it goes on.

        Raises:
            EngineError: the power is off.
            NotKnownHereError: this engine knows no brown-out.
        """
        raise NotKnownHereError("this engine knows no brown-out", hint="the engine inprocess does")

    def brown_out_in_op(self, index: int | None) -> None:
        """Arm a brown-out in the middle of flash operation ``index``; None: none.

        Raises:
            NotKnownHereError: this engine knows no brown-out.
        """
        del index
        raise NotKnownHereError("this engine knows no brown-out", hint="the engine inprocess does")

    @abstractmethod
    def find_vain_registers(self, least: int = 1000) -> list[VainRegister]:
        """Registers without a model that were read in vain at least so often, most often first.

        Raises:
            SetupError: the file with their names is none.
        """


@runtime_checkable
class LockingFlash(Protocol):
    """An engine whose flash has blocks that can be locked down."""

    def is_locked_down(self, offset: int) -> bool:
        """Whether no software can change the block at an offset before the next power-up."""


@runtime_checkable
class CodeWatch(Protocol):
    """An engine that notes which code is executed."""

    def watch_code(self) -> None:
        """From now on note which code is executed."""

    def executed(self) -> list[tuple[int, int]]:
        """(address, length in bytes) of every basic block that was executed since then."""
