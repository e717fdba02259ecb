"""What the campaign asks of a target: firmware on a board, with the peers around it.

The campaign cuts the power and judges what follows. It knows flash operations and states. It knows
neither the firmware nor the peers: these are the target's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from pathlib import Path

    from unbrick.board import Board
    from unbrick.campaign.case import CaseId, Death, PowerCut
    from unbrick.engine.base import TracedEngine
    from unbrick.flash.cells import Cells
    from unbrick.flash.ops import FlashOp
    from unbrick.flash.partition import Partition


@dataclass(frozen=True)
class State:
    """What outlives a power cut: the flash's cells, and what the peers remember.

    ``peers`` belongs to the target: the campaign hands it back and never looks into it.
    """

    cells: Cells
    peers: Any = None


@dataclass(frozen=True)
class MemoryMark:
    """A moment at which the peers' memory had changed.

    Attributes:
        ops: flash operations that had begun by then.
        peers: what the peers remember from then on.
        time: virtual seconds since the session's power-on.
    """

    ops: int
    peers: Any
    time: float = 0.0


@dataclass(frozen=True)
class Fate:
    """What happens to one session besides its power cut.

    Attributes:
        resolution: how weak cells read.
        link: number of a bad link, and of the session over it; None: the link is good.
        death: of a mortal peer.
    """

    resolution: int = 0
    link: tuple[int, int] | None = None
    death: Death | None = None


UNDISTURBED = Fate()
"""Nothing happens to the session."""


@dataclass
class Outcome:
    """What a session came to.

    Attributes:
        violation: (kind, text) of a broken invariant, or None.
        route: ``application`` or ``restored``.
        ops: the flash operations, in order.
        marks: the changes of the peers' memory; the first one is from before the session.
        downtime: virtual seconds from power-on to the application's prompt; None if it never came.
        virtual: virtual seconds of the session.
        seconds: what it cost, by the clock.
        console: everything the terminal said.
        flight: virtual seconds for which a message to the peers may be on its way. What was sent
            before a power cut arrives all the same.
        final: the state at its end, if it was asked for.
        relevant: the units of the flash whose first contents had a say, as a set of bits
            (``unbrick.campaign.behaviour``); None: nobody has noted it.
    """

    violation: tuple[str, str] | None
    route: str
    ops: Sequence[FlashOp]
    marks: list[MemoryMark]
    downtime: float | None
    virtual: float
    seconds: float = field(compare=False)
    console: str = ""
    flight: float = 0.0
    final: State | None = None
    relevant: int | None = None


class Heard(NamedTuple):
    """Bytes on a line: ``uart`` 0 or 1, ``sent`` by the terminal, at ``time`` in seconds."""

    time: float
    uart: int
    sent: bool
    data: bytes


class TimelineEvent(NamedTuple):
    """One line of a timeline.

    Attributes:
        time: virtual seconds since the session's power-on.
        source: ``power``, ``uart0``, ``radio``, ``nor`` or ``server``.
        text: for people.
        update: the state of an update, when this event changes it: for waveforms.
    """

    time: float
    source: str
    text: str
    update: str = ""


@dataclass(frozen=True)
class ReplayedSession:
    """One session of a replay.

    Attributes:
        case: the case that it is, or that it leads to.
        outcome: what came of it when nothing cut it.
        heard: what passed on the lines.
        cut: the power cut that ended it; None: it is the case itself.
    """

    case: CaseId
    outcome: Outcome
    heard: tuple[Heard, ...]
    cut: PowerCut | None

    @property
    def end(self) -> float:
        """Virtual seconds from power-on to the power cut, or to the end."""
        if self.cut is None:
            return self.outcome.virtual
        ops = self.outcome.ops
        if self.cut.op >= len(ops):
            return self.outcome.virtual
        op = ops[self.cut.op]
        return (op.start + op.end) / 2 if self.cut.torn else op.start


if TYPE_CHECKING:
    Run = Callable[[State, Fate], Outcome]
    """Runs one session, as :meth:`Target.run` does."""


class Target(Protocol):
    """What a campaign searches. It must be picklable, for other processes."""

    @property
    def name(self) -> str:
        """A short word, the first part of every case ID."""

    @property
    def about(self) -> str:
        """One sentence for people."""

    @property
    def file(self) -> str:
        """The file that describes it, for a command that runs a case again; may be empty."""

    @property
    def source(self) -> tuple[str, int]:
        """Where it is described: a file and a line, for reports."""

    @property
    def mortal(self) -> bool:
        """Whether a peer can die at every change of its memory, and is searched so."""

    @property
    def notes_reads(self) -> bool:
        """Whether its sessions note what they read, so that one stands for others."""

    @property
    def board(self) -> Board:
        """The hardware."""

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Named ranges of the flash, for people and for bounds of a search; may be none."""

    @property
    def invariants(self) -> Mapping[str, str]:
        """What must hold, by the kind of violation."""

    @property
    def programs(self) -> Mapping[str, str]:
        """SHA-256 of each program, by its name for people."""

    @property
    def identity(self) -> str:
        """All that an outcome depends on besides tool, programs, state and fate."""

    @property
    def covered(self) -> tuple[Sequence[Path], str]:
        """ELF files whose coverage counts, and the prefix of the source files that do."""

    def portable(self) -> Callable[[], Target]:
        """What makes this target anew on another machine.

        It is pickled with the contents of each file in place of its path. Paths are ``Path``.
        """

    def start(self) -> State:
        """The state in which a search begins.

        Raises:
            CannotBeginError: without any fault the target does not come that far.
        """

    def create_engine(self, *, debugged: bool = False) -> TracedEngine:
        """An engine for :meth:`run`, with the symbols of the target's programs.

        Raises:
            SetupError: a debugger is wanted, and there is none for this target's engine.
        """

    def run(
        self, state: State, fate: Fate = UNDISTURBED, engine: TracedEngine | None = None
    ) -> Outcome:
        """Run one session from power-on until all has come about, and check the invariants.

        Args:
            state: where it begins.
            fate: what happens to it.
            engine: its contents are replaced; None: this process's own.

        Raises:
            ToolBrokenError: the flash is not what the trace says: no verdict on the firmware.
        """

    def key(self, state: State) -> Hashable:
        """States with the same key count as one."""

    def peers_key(self, state: State) -> Hashable:
        """States with the same key have peers that cannot be told apart."""

    def name_stage(self, state: State) -> str:
        """How far the peers are, in a word or two: a sample of states covers every stage."""

    def pack_peers(self, peers: Sequence[Any]) -> Any:
        """What peers remember, moment by moment, as JSON."""

    def unpack_peers(self, packed: Any) -> list[Any]:
        """What :meth:`pack_peers` has packed.

        Raises:
            ValueError, KeyError, TypeError, IndexError: it is nothing of that kind.
        """

    def tell(self, session: ReplayedSession) -> Iterable[TimelineEvent]:
        """What the peers did in a session, and what passed on the link, in words."""


Contents = tuple[tuple[bytes, bytes], ...]
"""Of each field: what its cells hold, with weak ones as 1, and which are weak."""


class Form(Protocol):
    """What of some fields of the flash the firmware can tell apart, by the user's word.

    The fields are whole units, each within a block (``unbrick.campaign.book.UNIT``).
    """

    @property
    def ranges(self) -> Sequence[tuple[int, int]]:
        """Offset and length of each field."""

    def read(self, cells: Cells) -> Contents:
        """What the fields hold."""

    def count(self, held: Contents) -> Contents:
        """What fields count as that hold something.

        Raises:
            SetupError: the user's word makes no sense.
        """

    def apply(self, cells: Cells) -> Cells:
        """Cells that count as the same, equal for all that do. Only the fields are asked and given.

        Raises:
            SetupError: the user's word makes no sense.
        """


@runtime_checkable
class FormedTarget(Protocol):
    """A target that may have a form of its own."""

    @property
    def form(self) -> Form | None:
        """It; None: each cell counts."""


class LeftByCuts(Protocol):
    """What power cuts in one session leave. They are asked for in their order, some left out."""

    def find_key(self, op: int, torn: str, peers: Any) -> Hashable:
        """The key of what a cut leaves.

        Args:
            op: the operation that it comes at.
            torn: how that is torn; empty: it was not begun.
            peers: what these remember.
        """

    def make_cells(self) -> Cells:
        """The flash as the cut leaves it that was asked for last."""


class StateKeys(Protocol):
    """Keys of states: those with the same one count as one. They hold among themselves only."""

    def find(self, state: State) -> Hashable:
        """The key of a state."""

    def follow(self, cells: Cells, ops: Sequence[FlashOp]) -> LeftByCuts:
        """Those of all that power cuts in a session leave.

        Args:
            cells: the flash where it begins.
            ops: its operations.
        """


@runtime_checkable
class KeyingTarget(Protocol):
    """A target that finds the keys of what a session leaves faster than one by one."""

    def open_keys(self) -> StateKeys:
        """Keys for one search, as :meth:`Target.key` tells states apart."""
