"""What must hold at the end of a session of the reference terminal."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import TYPE_CHECKING

from unbrick.campaign.verdict import Violation
from unbrick.errors import ImageError
from unbrick.layout import reference_layout
from unbrick.reference.canonical import COMMANDED, IDLE, REWRITING, find_newest, read_valid_header
from unbrick.reference.layout import find_places, is_of_starts
from unbrick.reference.story import SERIAL, inspect_installed, inspect_once
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Result, TerminalState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.campaign.target import MemoryMark, State
    from unbrick.flash.cells import Cells
    from unbrick.flash.ops import FlashOp
    from unbrick.reference.looks import Looks
    from unbrick.reference.memory import ServerState
    from unbrick.reference.story import Story
    from unbrick.server.records.updates import Update


SOURCE = 2
"""Where a record of the journal has where its software comes from: ``RADIO``, or a restoration."""

RADIO = 0

COUNTER = slice(8, 12)
"""Where a record of the journal has the security counter."""

TARGET = slice(24, 56)
"""Where it has the digest of the software that is to be installed."""

_FAILED = "the new software failed its trial"

_OF_A_REWRITE = {REWRITING, COMMANDED}
"""Phases of the journal in which the application is being changed."""

_REASONS_OF_DAMAGE = ("no application", "application damaged", "rewrite was interrupted")


def check_end(story: Story, looks: Looks) -> None:
    """Invariants 3 and 5, at the end of a session."""
    nor = story.engine.read_nor()
    try:
        # A torn operation may leave bytes behind the image; no hash covers them, and nothing asks.
        application = find_places().application
        running = inspect_installed(nor[application.offset : application.end])
    except ImageError as error:
        raise Violation("forged", f"what runs is no image: {error}") from error
    signed = {
        inspect_once(image).digest: version for version, image in story.releases.signed.items()
    }
    if running.digest not in signed:
        raise Violation("forged", f"{running.version} runs, which nobody has signed")
    looks.note_now(application.offset, len(story.releases.signed[signed[running.digest]]))
    if story.scenario.foreign and signed[running.digest] == story.scenario.imposter:
        raise Violation("forged", f"{running.version} runs, which is for other hardware")
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
        if running.version <= newest:
            raise Violation("server-lies", f"{newest} succeeded, {running.version} runs")
    check_outcome(story, signed[running.digest])


def check_given_up(story: Story, left: Cells, looks: Looks) -> None:
    """A terminal that nothing helps says so, keeps the user's data, and the server knows it."""
    terminal = story.store.terminal(SERIAL)
    if terminal is None or terminal.state is not TerminalState.RESTORATION:
        raise Violation("server-lies", "the server does not know that the terminal needs help")
    for update in story.store.updates(SERIAL):
        if update.state is UpdateState.SUCCEEDED:
            raise Violation("server-lies", f"update {update.id} succeeded, and nothing runs")
    if "agent: done" in story.bench.console.text:
        raise Violation("forged", "the rewrite says that it is done, and it has failed")
    userdata = find_places().userdata
    stored = story.engine.read_nor()[userdata.offset : userdata.end]
    for name, number in story.scenario.saved:
        looks.note_words(left, name, number)
        if name.encode() not in stored or number.encode() not in stored:
            raise Violation("data-lost", f"{name} {number} is gone from the NOR")


def check_network(story: Story) -> None:
    """The terminal was not taken in by its network."""
    for part in story.network:
        blame = part.blame(story.bench.console.text)
        if blame:
            raise blame


def check_transfers(story: Story, marks: Sequence[MemoryMark]) -> None:
    """No transfer was given up while link and server were there, however often it died.

    What is given up when its update has succeeded harms nobody: the software runs already, for
    instance since it came over the wire.

    Args:
        story: the session.
        marks: what the server remembered in it, moment by moment.
    """
    if story.link_is_bad or story.absence.was_long:
        return
    wanted = {u.id for u in story.store.updates(SERIAL) if u.state is not UpdateState.CANCELLED}
    for time, report in story.link.reports:
        if report.result is not Result.TRANSFER_GAVE_UP or report.update_id not in wanted:
            continue
        known = [mark.peers for mark in marks if mark.time <= time][-1]
        if not any(
            u.id == report.update_id and u.state is UpdateState.SUCCEEDED for u in known.updates
        ):
            text = f"the transfer of update {report.update_id} was given up: {report.text}"
            raise Violation("rejected", text)


def check_outcome(story: Story, running: str) -> None:
    """What the scenario wants has come about: an update that never happens is a violation.

    Over a bad link an update may fail for good reasons; then the server must know of it.
    """
    wanted = story.scenario.outcomes
    updates = [u for u in story.store.updates(SERIAL) if not u.restoration]
    if running in wanted or story.link_is_bad or _knows_that_it_was_away(story, updates):
        return
    said = ", ".join(
        f"the update to {u.version} is {u.state.value}: "
        f"{'nothing' if u.result is None else u.result.text}"
        for u in updates
    )
    expected = " or ".join(wanted)
    raise Violation(
        "not-updated", f"{running} runs where {expected} is wanted ({said or 'no update'})"
    )


def is_of_application(op: FlashOp) -> bool:
    """Whether an operation is on the application's partition."""
    application = find_places().application
    return application.offset <= op.offset < application.end


def check_differences(story: Story, ops: Sequence[FlashOp]) -> None:
    """What must be refused is, and as early as it can be; ``ops`` are on the application."""
    kind = story.scenario.differences
    if kind == "misfit" and Result.NOT_REBUILT.text in story.bench.console.text:
        raise Violation("forged", "a differential file for other software was begun with")
    if kind == "forged" and "agent: rewriting" in story.bench.console.text:
        raise Violation("forged", "an image that nobody has signed was rebuilt and written")
    scenario = story.scenario
    if scenario.foreign in scenario.updates and not scenario.commanded and ops:
        raise Violation("forged", "an image for other hardware was written")
    imposter = (scenario.imposter or "") if scenario.commanded else ""
    if imposter.startswith("forged") and ops:
        raise Violation("forged", "for an image that nobody has signed the NOR was erased")
    failed = [update.result for update in story.store.updates(SERIAL) if update.commanded]
    if imposter and Result.TRIAL_FAILED in failed:
        raise Violation("forged", "what must be refused was put on trial")


def check_erases(ops: Sequence[FlashOp]) -> None:
    """One command erases a block once, or until the chips say that it is erased."""
    last: dict[int, str] = {}
    for op in ops:
        number = op.offset // find_places().block
        if op.failed:
            continue
        if op.kind == last.get(number) == "erase":
            raise Violation("restless", f"the block at {op.offset:#x} was erased twice")
        last[number] = op.kind


def check_need(
    story: Story, start: State, before: Cells, ops: Sequence[FlashOp], looks: Looks
) -> None:
    """What was not called for: a restoration of what was whole, or writing without a cause.

    Args:
        story: the session.
        start: where it began.
        before: what the terminal has read there.
        ops: of the session.
        looks: notes what is looked at.
    """
    scenario = story.scenario
    counted = sum(map(is_of_starts, ops))
    if scenario.installed and not (scenario.saves or scenario.updates) and counted < len(ops):
        raise Violation("restless", "a healthy terminal writes its NOR when it starts")
    starts = story.bench.console.text.count("boot: unbrick boot")
    if counted > starts and not scenario.worn:
        raise Violation("restless", f"{starts} starts are counted by {counted} operations")
    if re.search(
        "agent: done\\s+boot: [^\r\n]*\\s+restoration: rewrite was", story.bench.console.text
    ):
        raise Violation("needless", "the rewrite said that it was done, and boot finds no image")
    untouched = re.split("agent: rewriting|resident: erased", story.bench.console.text)[0]
    damaged = any(f"restoration: {reason}" in untouched for reason in _REASONS_OF_DAMAGE)
    failed = f"restoration: {_FAILED}" in untouched
    if not damaged and not failed:
        return
    whole = _look_for_release(story, before, looks)
    if whole is None or inspect_once(whole).hardware_id != reference_layout().hardware_id:
        return  # What is for other hardware is whole, and boot does not start it.
    if damaged:
        raise Violation("needless", "boot wants to be restored, and the application is whole")
    looks.note_record(before, now=False)
    if _is_to_be_replaced(start, before, inspect_once(whole).digest):
        raise Violation("needless", "boot calls software failed that was not on trial")


def _is_to_be_replaced(start: State, before: Cells, digest: bytes) -> bool:
    """Whether the application is one that runs, and nothing of its update has been rewritten yet.

    An application registers when it has passed its trial. What fails later is other software. A
    restoration that was begun goes on, also where the application is whole again by chance.
    """
    server: ServerState | None = start.peers
    newest = _read_record(before)
    if server is None or newest is None or newest[0] != REWRITING or newest[TARGET] == digest:
        return False
    known = {(terminal.state, terminal.digest) for terminal in server.terminals}
    return newest[SOURCE] == RADIO and (TerminalState.APPLICATION, digest) in known


def check_source(story: Story, before: Cells, ops: Sequence[FlashOp], looks: Looks) -> None:
    """Software that is whole is replaced by an update over the air, and the journal says so.

    From what counts as a restoration boot never goes back to the software that was there.

    Args:
        story: the session.
        before: what the terminal has read at its beginning.
        ops: of the session.
        looks: notes what is looked at.
    """
    places = find_places().journal
    journal, known = before, _read_record(before)
    looks.note_record(before, now=False)
    for number, op in enumerate(ops):
        if not places.offset <= op.offset < places.end:
            continue
        journal = journal.after([op])
        looks.note_record(journal, now=False)
        newest = _read_record(journal)
        if newest is None or newest == known:
            continue
        begins = newest[0] in _OF_A_REWRITE and newest[SOURCE] != RADIO
        if begins and (known is None or known[0] == IDLE):
            whole = _look_for_release(story, before.after(ops[:number]), looks)
            if whole is not None:
                raise Violation("needless", "an update over the air counts as a restoration")
        known = newest


def check_announced(before: Cells, ops: Sequence[FlashOp], looks: Looks) -> None:
    """Nothing of the application is changed before the journal says so, in every reading.

    Args:
        before: at the beginning, weak cells and all.
        ops: of the session.
        looks: notes what is looked at.
    """
    journal, of_journal, sure = find_places().journal, [], False
    for op in ops:
        if journal.offset <= op.offset < journal.end:
            of_journal.append(op)
            sure = False
        elif is_of_application(op) and not sure:
            readings = tuple(before.after(of_journal).readings())
            for reading in readings:
                looks.note_record(reading, now=False)
            phases = set(map(_read_phase, readings))
            if not phases <= _OF_A_REWRITE:
                said = ", ".join(map(str, sorted(phases)))
                text = f"{op.kind} at {op.offset:#x}, and the journal may say phase {said}"
                raise Violation("unsure", text)
            sure = True


def _knows_that_it_was_away(story: Story, updates: Sequence[Update]) -> bool:
    """Whether a server that was away for long knows that a transfer was given up meanwhile.

    That a person has to order the update again is what the protocol says (docs/campaign.md).
    """
    return story.absence.was_long and any(
        u.state is UpdateState.FAILED and u.result is Result.TRANSFER_GAVE_UP for u in updates
    )


def check_sure(story: Story, left: Cells, looks: Looks) -> None:
    """What has come about is there at the next start, too, however weak cells read.

    Args:
        story: the session.
        left: the cells at its end, weak ones and all.
        looks: notes what is looked at, also where no cell is weak: in other states one may be.
    """
    places, scenario = find_places(), story.scenario
    readings = tuple(left.readings())
    for reading in readings:
        looks.note_record(reading, now=True)
        for name, number in scenario.saved:
            looks.note_words(reading, name, number)
    if not left.weak:
        return
    if len({_read_record(reading) for reading in readings}) > 1:
        raise Violation("unsure", "the journal may say something else at the next start")
    for reading in readings:
        if _find_release(story, reading) is None:
            raise Violation("unsure", "the application may read otherwise at the next start")
        stored = reading.read(places.userdata.offset, places.userdata.size)
        for name, number in scenario.saved:
            there = name.encode() in stored and number.encode() in stored
            if not there and name not in scenario.deletes:
                raise Violation("data-lost", f"{name} {number} may be gone at the next start")


def check_counter(before: Cells, after: Cells, looks: Looks) -> None:
    """The journal forgets nothing of what keeps old software out."""
    looks.note_record(before, now=False)
    looks.note_record(after, now=True)
    kept = read_counter(_read_journal(before))
    left = read_counter(_read_journal(after))
    if left < kept:
        raise Violation("forged", f"the journal's security counter was {kept}, and is {left}")


def read_counter(journal: bytes) -> int:
    """The security counter in the newest record of the journal; 0 without any."""
    newest = _read_newest(journal)
    return int.from_bytes(newest[COUNTER], "little") if newest else 0


def _read_phase(cells: Cells) -> int:
    """The phase in the newest record of the journal; 0 without any."""
    newest = _read_record(cells)
    return newest[0] if newest else 0


def _read_record(cells: Cells) -> bytes | None:
    """The newest record of the journal, if there is one."""
    return _read_newest(_read_journal(cells))


def _read_journal(cells: Cells) -> bytes:
    journal = find_places().journal
    return cells.read(journal.offset, journal.size)


def _find_release(story: Story, cells: Cells) -> bytes | None:
    """The release that is in the application's partition, whole; None: there is none."""
    application = find_places().application
    nor = cells.read(application.offset, application.size)
    return next((image for image in story.releases.signed.values() if nor.startswith(image)), None)


def _look_for_release(story: Story, cells: Cells, looks: Looks) -> bytes | None:
    """The release that was there at some moment, whole; None: there was none."""
    for image in story.releases.signed.values():
        looks.note_otherness(cells, image)
    return _find_release(story, cells)


def _read_newest(journal: bytes) -> bytes | None:
    """The newest record of a journal's bytes, if there is one."""
    block = find_places().block
    halves = [journal[at : at + block] for at in range(0, len(journal), block)]
    valid = [(header[0], half) for half in halves if (header := read_valid_header(half))]
    return find_newest(max(valid, key=itemgetter(0))[1]) if valid else None
