"""One session of one case: from power-on with given cells until all has come about, traced."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from unbrick.campaign.book import find_units
from unbrick.campaign.target import UNDISTURBED, Fate, MemoryMark, Outcome, State
from unbrick.campaign.verdict import Violation
from unbrick.engine.base import NoteSource
from unbrick.errors import SetupError, ToolBrokenError
from unbrick.image.factory import derive_bench_key
from unbrick.reference.checks import (
    check_announced,
    check_counter,
    check_differences,
    check_end,
    check_erases,
    check_given_up,
    check_need,
    check_network,
    check_source,
    check_sure,
    check_transfers,
    is_of_application,
)
from unbrick.reference.conversation import Conversation
from unbrick.reference.judge import Judge, check_nothing_left
from unbrick.reference.layout import find_places, list_starts
from unbrick.reference.links import make_bad_link
from unbrick.reference.looks import Looks
from unbrick.reference.numbers import NumberWatch, check_heard
from unbrick.reference.story import SERIAL, Story
from unbrick.reference.watcher import TerminalWatch

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from unbrick.campaign.case import Death
    from unbrick.engine.base import TracedEngine
    from unbrick.firmware.signed import Releases
    from unbrick.flash.cells import Cells
    from unbrick.flash.ops import FlashOp
    from unbrick.reference.conversation import Conversations
    from unbrick.reference.memory import ServerState
    from unbrick.reference.scenario import Scenario
    from unbrick.reference.worn import WornPart


class _Recorder:
    """Notes, with every look at the bench, how far the NOR is and what the server thinks.

    Has the server die, too, if it is to; and judges each thing that it newly thinks.
    """

    def __init__(
        self,
        story: Story,
        engine: TracedEngine,
        cells: Cells,
        death: Death | None,
        looks: Looks,
    ) -> None:
        self._story, self._engine, self._death = story, engine, death
        self._judge = Judge(story, engine, cells, derive_bench_key(SERIAL), looks)
        self.marks: list[MemoryMark] = []
        self._seen: ServerState | None = None

    def step(self, _now: float) -> None:
        """Note a change. The server changes only between the terminal's turns.

        Raises:
            Violation: what the server newly thinks is not true, or not right.
        """
        server = self._story.store.snapshot()
        if server == self._seen:
            return
        self._seen = server
        same = self.marks and server.canonical == self.marks[-1].peers.canonical
        if not same:
            self.marks.append(MemoryMark(self._engine.op_count, server, self._engine.now))
        self._judge.look(server)
        if same:
            return
        if self._death is not None and self._death.change == len(self.marks) - 1:
            self._story.server_dies(self._death.when)


def _wear(engine: TracedEngine, worn: tuple[WornPart, ...]) -> None:
    """Have the flash worn like this.

    Raises:
        SetupError: the engine has no such flash.
    """
    flash = engine.wearing_flash
    if flash is not None:
        flash.wear(part.cells for part in worn)
    elif worn:
        raise SetupError(f"the engine {engine.name} has no flash with worn cells")


@dataclass(frozen=True)
class Peers:
    """The peers of a session, and what they have noted of it."""

    story: Story
    recorder: _Recorder

    def run(self) -> None:
        """Have all come about.

        Raises:
            Violation: it does not, or not rightly.
        """
        self.recorder.step(0.0)
        self.story.run()


def name_beginning(scenario: Scenario, state: State, fate: Fate) -> Hashable | None:
    """How the peers of a session begin; None: what they do is not kept.

    Of the cells they know the counter of starts. Where user data may read otherwise they know all:
    what peers do with that is not kept, nor over a bad link, nor when one of them dies.
    """
    starts, userdata = find_places().starts, find_places().userdata
    doubtful = any(userdata.offset <= at < userdata.end for at, _ in state.cells.weak)
    if doubtful or fate.link is not None or fate.death is not None:
        return None
    block = state.cells.blocks[starts.offset // find_places().block]
    weak = state.cells.read_weak(starts.offset, starts.size)
    return scenario, state.peers and state.peers.as_at_start, block, weak


def _gather(
    engine: TracedEngine,
    releases: Releases,
    scenario: Scenario,
    state: State,
    fate: Fate,
    looks: Looks,
) -> Peers:
    """The peers of a session that is to begin."""
    talk = engine if isinstance(engine, Conversation) else None
    starts = talk.list_starts if talk else partial(list_starts, engine)
    link = None if fate.link is None else make_bad_link(*fate.link)
    line = NumberWatch(engine.radio, starts, state.cells)
    story = Story(engine, releases, scenario, state.peers, link=link, line=line)
    recorder = _Recorder(story, engine, state.cells, fate.death, looks)
    story.bench.peers += [recorder, TerminalWatch(story, engine)]
    return Peers(story, recorder)


def _check(
    peers: Peers, state: State, readable: Cells, ops: Sequence[FlashOp], looks: Looks
) -> tuple[Cells, Cells]:
    """See whether all that must hold at the end of a session does.

    Args:
        peers: of the session, which has come to its end.
        state: where it began.
        readable: its cells, as they read then.
        ops: the session's flash operations.
        looks: notes what is looked at.

    Returns:
        The cells at the end: as they read in this session, and with those that are still weak.

    Raises:
        Violation: something does not hold.
    """
    story, scenario = peers.story, peers.story.scenario
    check_network(story)
    if not story.link_is_bad:
        check_heard(story.guard)
    check_transfers(story, peers.recorder.marks)
    sure = readable.after(ops)
    left = sure if readable is state.cells else state.cells.after(ops)
    if story.given_up:
        check_given_up(story, sure, looks)
    else:
        check_end(story, looks)
    check_nothing_left(story.store)
    of_application = [op for op in ops if is_of_application(op)]
    check_differences(story, of_application)
    if scenario.commanded and "agent: rewriting" not in story.bench.console.text:
        check_erases(of_application)
    check_need(story, state, readable, ops, looks)
    check_counter(readable, sure, looks)
    check_announced(state.cells, ops, looks)
    check_source(story, readable, ops, looks)
    if not story.given_up:
        check_sure(story, left, looks)
    return sure, left


def run_session(
    engine: TracedEngine,
    releases: Releases,
    scenario: Scenario,
    state: State,
    fate: Fate = UNDISTURBED,
    *,
    sources: NoteSource = NoteSource.NONE,
    known: Conversations[Peers] | None = None,
) -> Outcome:
    """Run one session and check the invariants.

    Args:
        engine: any; its contents are replaced.
        releases: the software.
        scenario: what is wanted.
        state: where the session begins.
        fate: what happens to it; a bad link's number is that of ``unbrick.reference.links``.
        sources: what reads the NOR and is noted; by default nothing is.
        known: what the peers did in earlier sessions with this engine; None: they do it again.

    Raises:
        ToolBrokenError: the NOR is not what the trace says: no verdict on the firmware.
    """
    start = time.perf_counter()
    engine.power_off()
    engine.forget()
    readable = state.cells.readable(fate.resolution)
    engine.load_nor(readable.image())
    engine.note_reads(sources)
    looks = Looks(engine, wanted=bool(sources))
    _wear(engine, scenario.worn)
    beginning = name_beginning(scenario, state, fate)
    talk = None if known is None or beginning is None else known.begin(engine, beginning)
    repeated = talk and talk.repeat()
    asked = talk or engine
    peers = repeated or _gather(asked, releases, scenario, state, fate, looks)
    story, recorder = peers.story, peers.recorder
    violation = None
    sure = left = state.cells
    try:
        if not repeated:
            peers.run()
        if talk:
            talk.end(peers)
        sure, left = _check(peers, state, readable, engine.ops, looks)
    except Violation as found:
        violation = (found.kind, str(found))
        if talk:
            talk.end(None)
    downtime, virtual = story.first_prompt, engine.now
    engine.power_off()
    _wear(engine, ())
    ops = engine.ops
    if violation is None and not sure.reads_as(engine.read_nor()):
        raise ToolBrokenError("the NOR is not what the trace of the session says")
    return Outcome(
        violation=violation,
        route="restored" if "restoration: accepted" in story.bench.console.text else "application",
        ops=ops,
        marks=recorder.marks,
        downtime=downtime,
        virtual=virtual,
        seconds=time.perf_counter() - start,
        console=story.bench.console.text,
        flight=scenario.latency,
        final=State(state.cells.after(ops) if violation else left, recorder.marks[-1].peers),
        relevant=_find_relevant(engine, looks, violated=violation is not None) if sources else None,
    )


def _find_relevant(engine: TracedEngine, looks: Looks, *, violated: bool) -> int:
    """The units that had a say. Where an invariant does not hold that is all of them.

    The counter of starts is read at every start, and reads otherwise each time. What a session does
    is the same with any count (``unbrick.reference.canonical``).
    """
    if violated:
        return find_units(0, engine.geometry.size)
    starts = find_places().starts
    return (engine.relevant | looks.units) & ~find_units(starts.offset, starts.size)
