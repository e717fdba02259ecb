"""A target without firmware, for tests of the campaign itself: a session is a Python function."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbrick.board import Board
from unbrick.campaign.target import (
    UNDISTURBED,
    Fate,
    Outcome,
    ReplayedSession,
    State,
    TimelineEvent,
)
from unbrick.flash.cells import Cells
from unbrick.flash.partition import Partition
from unbrick.layout import reference_layout

LAYOUT = reference_layout()
BLANK = State(Cells.of(b"", LAYOUT.board.nor.geometry))


@dataclass(frozen=True)
class ToyTarget:
    """A target whose sessions are what ``session`` says.

    Attributes:
        session: from state and fate to outcome.
        first: the state in which it begins.
        mortal: whether a peer can die.
        notes_reads: whether its outcomes say what was relevant.
        started: every (state, fate) of a session, in order.
    """

    session: Callable[[State, Fate], Outcome]
    first: State = BLANK
    mortal: bool = False
    notes_reads: bool = False
    name: str = "toy"
    about: str = "nothing real"
    file: str = ""
    source: tuple[str, int] = ("toy.py", 1)
    started: list[tuple[State, Fate]] = field(default_factory=list, compare=False)

    board: Board = LAYOUT.board
    partitions: tuple[Partition, ...] = LAYOUT.partitions
    invariants: Mapping[str, str] = field(default_factory=lambda: {"bricked": "it comes back"})
    programs: Mapping[str, str] = field(default_factory=dict)
    identity: str = "toy"
    covered: tuple[Sequence[Path], str] = ((), "")

    def start(self) -> State:
        return self.first

    def create_engine(self, *, debugged: bool = False) -> Any:
        raise NotImplementedError(debugged)

    def run(self, state: State, fate: Fate = UNDISTURBED, engine: object = None) -> Outcome:
        assert engine is None
        self.started.append((state, fate))
        return self.session(state, fate)

    def key(self, state: State) -> Hashable:
        return state.cells, state.peers

    def peers_key(self, state: State) -> Hashable:
        return state.peers

    def name_stage(self, state: State) -> str:
        return str(state.peers)

    def pack_peers(self, peers: Sequence[Any]) -> Any:
        return list(peers)

    def unpack_peers(self, packed: Any) -> list[Any]:
        return list(packed)

    def tell(self, _: ReplayedSession) -> Iterable[TimelineEvent]:
        return ()
