"""One session of one case: from power-on with given cells until all has come about, traced."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from unbrick.board import BOARD
from unbrick.campaign.canonical import canonical, repaired_first
from unbrick.campaign.judge import Judge, check_nothing_left
from unbrick.campaign.links import bad_link
from unbrick.campaign.story import SERIAL, Story, inspect_once
from unbrick.campaign.verdict import Violation
from unbrick.errors import ImageError, ToolBrokenError
from unbrick.image.factory import bench_key, factory_image
from unbrick.nor.cells import Cells
from unbrick.server.records import UpdateState
from unbrick.wire.messages import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unbrick.campaign.case import Death
    from unbrick.campaign.memory import ServerState
    from unbrick.campaign.scenario import Scenario
    from unbrick.engine.inprocess import InProcessEngine
    from unbrick.image.release import Releases
    from unbrick.nor.ops import FlashOp

APPLICATION = BOARD.partition("application")
JOURNAL = BOARD.partition("journal")
USERDATA = BOARD.partition("userdata")
SLOT = 64


@dataclass(frozen=True)
class State:
    """What outlives a power cut: the NOR's cells and what the server remembers."""

    cells: Cells
    server: ServerState | None

    def key(self, images: Mapping[bytes, bytes]) -> tuple[object, str]:
        """States with the same key count as one.

        Args:
            images: the software of the scenario, by digest.
        """
        if self.server is None:
            return canonical(self.cells), ""
        try:
            plan = self.server.plan(images)
        except KeyError:
            return self.exact_key
        if plan is not None and repaired_first(self.cells):
            return canonical(self.cells), self.server.canonical_without_steps
        return canonical(self.cells, plan), self.server.canonical

    @property
    def exact_key(self) -> tuple[object, str]:
        """States with the same key are the same to the cell."""
        return self.cells, self.server.canonical if self.server else ""


@dataclass(frozen=True)
class Mark:
    """A moment at which the server had changed its mind: so many operations had been begun.

    ``time`` is in virtual seconds of the session.
    """

    ops: int
    server: ServerState
    time: float = 0.0


@dataclass
class Outcome:
    """What a session came to.

    Attributes:
        violation: (kind, text) of a broken invariant, or None.
        route: ``application`` or ``restored``.
        ops: the flash operations, in order.
        marks: the server's changes of mind, the first one from before the session.
        downtime: virtual seconds from power-on to the application's prompt; None if it never came.
        virtual: virtual seconds of the session.
        seconds: what it cost, by the clock.
        console: everything the terminal said.
    """

    violation: tuple[str, str] | None
    route: str
    ops: list[FlashOp]
    marks: list[Mark]
    downtime: float | None
    virtual: float
    seconds: float = field(compare=False)
    console: str = ""
    final: State | None = None


class _Recorder:
    """Notes, with every look at the bench, how far the NOR is and what the server thinks.

    Has the server die, too, if it is to; and judges each thing that it newly thinks.
    """

    def __init__(self, story: Story, engine: InProcessEngine, death: Death | None) -> None:
        self._story, self._engine, self._death = story, engine, death
        self._judge = Judge(story, engine, bench_key(SERIAL))
        self.marks: list[Mark] = []
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
        same = self.marks and server.canonical == self.marks[-1].server.canonical
        if not same:
            self.marks.append(Mark(self._engine.op_count, server, self._engine.now))
        self._judge.look(server)
        if same:
            return
        if self._death is not None and self._death.change == len(self.marks) - 1:
            self._story.server_dies(self._death.when)


def run_session(
    engine: InProcessEngine,
    releases: Releases,
    scenario: Scenario,
    state: State,
    resolution: int = 0,
    link: tuple[int, int] | None = None,
    death: Death | None = None,
) -> Outcome:
    """Run one session and check the invariants.

    Args:
        engine: any; its contents are replaced.
        releases: the software.
        scenario: what is wanted.
        state: where the session begins.
        resolution: how weak cells read.
        link: number of a bad link (``unbrick.campaign.links``) and of the session over it.
        death: of the server in it.

    Raises:
        ToolBrokenError: the NOR is not what the trace says: no verdict on the firmware.
    """
    start = time.perf_counter()
    engine.power_off()
    engine.forget()
    readable = state.cells.readable(resolution)
    engine.load_nor(readable.image())
    bad = None if link is None else bad_link(*link)
    story = Story(engine, releases, scenario, state.server, link=bad)
    recorder = _Recorder(story, engine, death)
    story.bench.peers.append(recorder)
    violation = None
    try:
        recorder.step(0.0)
        story.run()
        _check_end(story)
        check_nothing_left(story.store)
        ops = [op for op in engine.ops if _is_of_application(op)]
        _check_differences(story, ops)
        if scenario.commanded and "agent: rewriting" not in story.bench.console.text:
            _check_erases(ops)
        _check_need(story, readable, engine.op_count)
    except Violation as found:
        violation = (found.kind, str(found))
    downtime, virtual = story.first_prompt, engine.now
    engine.power_off()
    ops = engine.ops
    if violation is None and not readable.after(ops).reads_as(engine.read_nor()):
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
        final=State(state.cells.after(ops), recorder.marks[-1].server),
    )


def _check_end(story: Story) -> None:
    """Invariants 3 and 5, at the end of a session."""
    nor = story.engine.read_nor()
    try:
        running = inspect_once(nor[APPLICATION.offset : APPLICATION.end].rstrip(b"\xff"))
    except ImageError as error:
        raise Violation("forged", f"what runs is no image: {error}") from error
    signed = {
        inspect_once(image).digest: version for version, image in story.releases.signed.items()
    }
    if running.digest not in signed:
        raise Violation("forged", f"{running.version} runs, which nobody has signed")
    if signed[running.digest] in story.scenario.unfit:
        raise Violation("untried", f"{running.version} runs, which fails its trial")
    terminal = story.store.terminal(SERIAL)
    if terminal is None or terminal.digest != running.digest:
        known = terminal.version if terminal else "nothing"
        raise Violation("server-lies", f"the server knows {known}, {running.version} runs")
    unfinished = [u for u in story.store.updates(SERIAL) if u.restoration and not u.state.ended]
    if unfinished:
        raise Violation("server-lies", f"update {unfinished[0].id} restores what runs already")
    updates = [u for u in story.store.updates(SERIAL) if u.state is UpdateState.SUCCEEDED]
    if updates and updates[-1].digest != running.digest:
        newest = max(u.version for u in updates)
        if running.version < newest:
            raise Violation("server-lies", f"{newest} succeeded, {running.version} runs")


def _is_of_application(op: FlashOp) -> bool:
    return APPLICATION.offset <= op.offset < APPLICATION.end


def _check_differences(story: Story, ops: list[FlashOp]) -> None:
    """What must be refused is, and as early as it can be; ``ops`` are on the application."""
    kind = story.scenario.differences
    if kind == "misfit" and Result.NOT_REBUILT.text in story.bench.console.text:
        raise Violation("forged", "a differential file for other software was begun with")
    if kind == "forged" and "agent: rewriting" in story.bench.console.text:
        raise Violation("forged", "an image that nobody has signed was rebuilt and written")
    imposter = (story.scenario.imposter or "") if story.scenario.commanded else ""
    if imposter.startswith("forged") and ops:
        raise Violation("forged", "for an image that nobody has signed the NOR was erased")
    failed = [update.result for update in story.store.updates(SERIAL) if update.commanded]
    if imposter and Result.TRIAL_FAILED in failed:
        raise Violation("forged", "what must be refused was put on trial")


def _check_erases(ops: list[FlashOp]) -> None:
    """One command erases a block once."""
    last: dict[int, str] = {}
    for op in ops:
        if op.kind == last.get(op.offset // BOARD.nor.block_size) == "erase":
            raise Violation("restless", f"the block at {op.offset:#x} was erased twice")
        last[op.offset // BOARD.nor.block_size] = op.kind


def _check_need(story: Story, before: Cells, ops: int) -> None:
    """What was not called for: a restoration of what was whole, or writing without a cause."""
    scenario = story.scenario
    if scenario.installed and not (scenario.saves or scenario.updates) and ops:
        raise Violation("restless", "a healthy terminal writes its NOR when it starts")
    untouched = re.split("agent: rewriting|resident: erased", story.bench.console.text)[0]
    if not any(f"restoration: {reason}" in untouched for reason in _REASONS_OF_DAMAGE):
        return
    nor = before.image()[APPLICATION.offset : APPLICATION.end].rstrip(b"\xff")
    if nor in story.releases.signed.values():
        raise Violation("needless", "boot wants to be restored, and the application is whole")


_REASONS_OF_DAMAGE = ("no application", "application damaged", "rewrite was interrupted")


def images_of(releases: Releases) -> dict[bytes, bytes]:
    """The signed software, by digest."""
    return {inspect_once(image).digest: image for image in releases.signed.values()}


def initial_state(engine: InProcessEngine, releases: Releases, scenario: Scenario) -> State:
    """Where a scenario begins, made by really running the terminal.

    Raises:
        SetupError: the firmware lacks a release that the scenario plays with.
        ToolBrokenError: the terminal does not come that far without any fault.
    """
    releases.require(scenario.releases, f"the scenario {scenario.name}")
    application = None if scenario.installed is None else releases.signed[scenario.installed]
    cells = Cells.of(factory_image(releases.boot, application, SERIAL, key=bench_key(SERIAL)))
    if scenario.installed is None:
        return State(cells, None)
    before = replace(
        scenario,
        saves=scenario.saved,
        updates=scenario.before,
        interrupted_by=None,
        saved=(),
        commanded=False,
        meddled=False,
        recalled="",
        echoed=False,
        tampered=False,
    )
    outcome = run_session(engine, releases, before, State(cells, None))
    if outcome.violation or outcome.final is None:
        raise ToolBrokenError(f"{scenario.name} cannot begin: {outcome.violation}")
    state = outcome.final
    if scenario.journal_free is not None:
        state = State(_fill(state.cells, JOURNAL.offset, scenario.journal_free), state.server)
    if scenario.phonebook_free is not None:
        state = State(_fill(state.cells, USERDATA.offset, scenario.phonebook_free), state.server)
    return state


def _fill(cells: Cells, half: int, free: int) -> Cells:
    """Repeat a record log's newest record until ``free`` slots of ``half`` are left."""
    block = cells.blocks[half // BOARD.nor.block_size]
    used = len(block) + -len(block) % SLOT
    newest = cells.read(half + used - SLOT, SLOT)
    count = (BOARD.nor.block_size - used) // SLOT - free
    return cells.with_range(half + used, newest * count)
