"""The reference terminal with its server, as a target of the campaign: one for each scenario."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from unbrick.campaign.target import UNDISTURBED, Fate
from unbrick.engine.base import NoteSource
from unbrick.engine.inprocess import InProcessEngine
from unbrick.engine.inprocess.debugged import DebuggedTerminal
from unbrick.firmware.signed import TWIN
from unbrick.layout import reference_layout
from unbrick.reference import remembered
from unbrick.reference.conversation import Conversations
from unbrick.reference.invariants import INVARIANTS
from unbrick.reference.keys import RememberedKeys, key_state
from unbrick.reference.layout import find_places
from unbrick.reference.scenario import find_row, find_scenario
from unbrick.reference.session import Peers, run_session
from unbrick.reference.start import find_images, make_initial_state
from unbrick.reference.timeline import tell_radio, tell_server

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from pathlib import Path

    from unbrick.board import Board
    from unbrick.campaign.target import Outcome, ReplayedSession, State, TimelineEvent
    from unbrick.engine.base import TracedEngine
    from unbrick.firmware.signed import Releases
    from unbrick.flash.partition import Partition
    from unbrick.reference.memory import ServerState
    from unbrick.reference.scenario import Scenario


MOST_TOOLS = 4
"""Sets of software that one process keeps an engine for."""

MOST_STRETCHES = 80 << 20
"""Bytes in which such an engine keeps what the terminal did (decision 0043)."""


@dataclass
class _Tools:
    """What one process has for one set of software."""

    images: dict[bytes, bytes]
    engine: InProcessEngine
    starts: dict[Scenario, State] = field(default_factory=dict)
    known: Conversations[Peers] = field(default_factory=Conversations)


_TOOLS: dict[str, _Tools] = {}


def forget_peers() -> None:
    """Whoever changes the code of server, person or judge in this process calls this.

    What they did with the code of before is not known any more, nor where scenarios begin.
    """
    for tools in _TOOLS.values():
        tools.known = Conversations()
        tools.starts.clear()


@dataclass(frozen=True)
class ReferenceTarget:
    """One scenario of the reference system; see :class:`unbrick.campaign.target.Target`.

    Attributes:
        scenario: what is wanted.
        releases: the software. Other processes need its folder, too.
        sources: what reads the NOR and is noted, so that a session stands for all states that read
            the same; by default nothing is.
    """

    scenario: Scenario
    releases: Releases
    sources: NoteSource = NoteSource.NONE

    @property
    def _tools(self) -> _Tools:
        identity = self.releases.identity
        if identity not in _TOOLS:
            while len(_TOOLS) >= MOST_TOOLS:
                _TOOLS.pop(next(iter(_TOOLS))).engine.close()
            engine = InProcessEngine(
                self.releases.elf_files, board=self.board, remembers=MOST_STRETCHES
            )
            _TOOLS[identity] = _Tools(find_images(self.releases), engine)
        return _TOOLS[identity]

    @property
    def name(self) -> str:
        """Of the scenario."""
        return self.scenario.name

    @property
    def about(self) -> str:
        """One sentence for people."""
        return self.scenario.about

    @property
    def file(self) -> str:
        """None does: the scenarios are known by their names."""
        return ""

    @property
    def source(self) -> tuple[str, int]:
        """The row of the scenario, in the repository."""
        return find_row(self.scenario.name)

    @property
    def mortal(self) -> bool:
        """Whether the server's deaths are searched."""
        return self.scenario.mortal

    @property
    def notes_reads(self) -> bool:
        """Where that is wanted. It makes a session longer, by a half or so."""
        return bool(self.sources)

    @property
    def board(self) -> Board:
        """The terminal's."""
        return reference_layout().board

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Those of our firmware."""
        return reference_layout().partitions

    @property
    def invariants(self) -> Mapping[str, str]:
        """What must hold."""
        return INVARIANTS

    @property
    def programs(self) -> Mapping[str, str]:
        """SHA-256 of boot and of each signed release."""
        programs = {"boot": self.releases.boot}
        for version, image in self.releases.signed.items():
            programs[f"application {version}"] = image
        return {name: hashlib.sha256(program).hexdigest() for name, program in programs.items()}

    @property
    def identity(self) -> str:
        """The scenario, whole, and whether it is noted what a session reads."""
        return f"{self.scenario!r}/{int(self.sources)}"

    @property
    def covered(self) -> tuple[Sequence[Path], str]:
        """Boot, resident program and agent: not the application, which is another one later."""
        return self.releases.common_elf_files, "firmware/"

    def portable(self) -> Callable[[], ReferenceTarget]:
        """The scenario and the software."""
        return partial(ReferenceTarget, self.scenario, self.releases, self.sources)

    def start(self) -> State:
        """The state in which the scenario begins; made once in a process."""
        tools = self._tools
        if self.scenario not in tools.starts:
            state = make_initial_state(tools.engine, self.releases, self.scenario)
            tools.starts[self.scenario] = state
        return tools.starts[self.scenario]

    def create_engine(self, *, debugged: bool = False) -> InProcessEngine:
        """An engine with the symbols of all programs."""
        return (DebuggedTerminal if debugged else InProcessEngine)(
            self.releases.elf_files, board=self.board
        )

    def run(
        self,
        state: State,
        fate: Fate = UNDISTURBED,
        engine: TracedEngine | None = None,
    ) -> Outcome:
        """Run one session; see :func:`unbrick.reference.session.run_session`."""
        tools = self._tools
        known = tools.known if engine is None and not self.sources else None
        return run_session(
            *(engine or tools.engine, self.releases, self.scenario, state, fate),
            sources=self.sources,
            known=known,
        )

    def key(self, state: State) -> Hashable:
        """The canonical forms of cells and server."""
        return key_state(state, self._tools.images)

    def open_keys(self) -> RememberedKeys:
        """The same keys as numbers; quick, for sessions repeat most of theirs."""
        return RememberedKeys(self._tools.images)

    def peers_key(self, state: State) -> Hashable:
        """All that the server keeps. Where nobody notes what is read, its canonical form."""
        server: ServerState | None = state.peers
        if server is None:
            return ""
        return server.whole if self.sources else server.canonical

    def name_stage(self, state: State) -> str:
        """Of the server's newest update."""
        return state.peers.stage if state.peers else ""

    def pack_peers(self, peers: Sequence[Any]) -> Any:
        """Records of the server as JSON."""
        return remembered.pack(peers)

    def unpack_peers(self, packed: Any) -> list[Any]:
        """Records of the server from JSON."""
        return remembered.unpack(packed)

    def tell(self, session: ReplayedSession) -> Iterable[TimelineEvent]:
        """The link's frames, and what the server newly remembers."""
        yield from tell_radio(session)
        yield from tell_server(session)


def find_target(
    name: str, releases: Releases, sources: NoteSource = NoteSource.NONE
) -> ReferenceTarget:
    """The scenario called ``name`` as a target; ``sources`` as of the target.

    Raises:
        SetupError: there is no such scenario.
    """
    scenario = find_scenario(name)
    return ReferenceTarget(scenario, make_images(releases, scenario), sources)


def make_images(releases: Releases, scenario: Scenario) -> Releases:
    """The releases, with those images besides that a scenario plays with.

    Raises:
        SetupError: a release is missing.
    """
    plain = [name for name in scenario.releases if not name.endswith(TWIN)]
    releases.require(plain, f"the scenario {scenario.name}")
    if scenario.sizes:
        block = find_places().block
        sizes = {version: blocks * block + rest for version, blocks, rest in scenario.sizes}
        releases = releases.with_sizes(sizes)
    for version in scenario.twins:
        releases = releases.with_twin(version)
    return releases.with_foreign(scenario.foreign) if scenario.foreign else releases
