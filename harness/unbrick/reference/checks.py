"""What must hold at the end of a session of the reference terminal."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import TYPE_CHECKING

from unbrick.campaign.verdict import Violation
from unbrick.errors import ImageError
from unbrick.reference.canonical import find_newest, read_valid_header
from unbrick.reference.layout import find_places
from unbrick.reference.story import SERIAL, inspect_installed, inspect_once
from unbrick.server.records.updates import UpdateState
from unbrick.wire.messages import Result, TerminalState

if TYPE_CHECKING:
    from unbrick.flash.cells import Cells
    from unbrick.flash.ops import FlashOp
    from unbrick.reference.story import Story


COUNTER = slice(8, 12)
"""Where a record of the journal has the security counter."""

_REASONS_OF_DAMAGE = ("no application", "application damaged", "rewrite was interrupted")


def check_end(story: Story) -> None:
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


def check_given_up(story: Story) -> None:
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
        if name.encode() not in stored or number.encode() not in stored:
            raise Violation("data-lost", f"{name} {number} is gone from the NOR")


def check_network(story: Story) -> None:
    """The terminal was not taken in by its network."""
    for part in story.network:
        blame = part.blame(story.bench.console.text)
        if blame:
            raise blame


def check_outcome(story: Story, running: str) -> None:
    """What the scenario wants has come about: an update that never happens is a violation.

    Over a bad link an update may fail for good reasons; then the server must know of it.
    """
    wanted = story.scenario.outcomes
    if running in wanted or story.link_is_bad:
        return
    updates = [u for u in story.store.updates(SERIAL) if not u.restoration]
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


def check_differences(story: Story, ops: list[FlashOp]) -> None:
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


def check_erases(ops: list[FlashOp]) -> None:
    """One command erases a block once, or until the chips say that it is erased."""
    last: dict[int, str] = {}
    for op in ops:
        number = op.offset // find_places().block
        if op.failed:
            continue
        if op.kind == last.get(number) == "erase":
            raise Violation("restless", f"the block at {op.offset:#x} was erased twice")
        last[number] = op.kind


def check_need(story: Story, before: Cells, ops: int) -> None:
    """What was not called for: a restoration of what was whole, or writing without a cause."""
    scenario = story.scenario
    if scenario.installed and not (scenario.saves or scenario.updates) and ops:
        raise Violation("restless", "a healthy terminal writes its NOR when it starts")
    if re.search(
        "agent: done\\s+boot: [^\r\n]*\\s+restoration: rewrite was", story.bench.console.text
    ):
        raise Violation("needless", "the rewrite said that it was done, and boot finds no image")
    untouched = re.split("agent: rewriting|resident: erased", story.bench.console.text)[0]
    if not any(f"restoration: {reason}" in untouched for reason in _REASONS_OF_DAMAGE):
        return
    application = find_places().application
    nor = before.image()[application.offset : application.end]
    if any(nor.startswith(image) for image in story.releases.signed.values()):
        raise Violation("needless", "boot wants to be restored, and the application is whole")


def check_counter(before: Cells, after: bytes) -> None:
    """The journal forgets nothing of what keeps old software out; ``after`` is the whole NOR."""
    journal = find_places().journal
    kept = read_counter(before.read(journal.offset, journal.size))
    left = read_counter(after[journal.offset : journal.end])
    if left < kept:
        raise Violation("forged", f"the journal's security counter was {kept}, and is {left}")


def read_counter(journal: bytes) -> int:
    """The security counter in the newest record of the journal; 0 without any."""
    block = find_places().block
    halves = [journal[at : at + block] for at in range(0, len(journal), block)]
    valid = [(header[0], half) for half in halves if (header := read_valid_header(half))]
    newest = find_newest(max(valid, key=itemgetter(0))[1]) if valid else None
    return int.from_bytes(newest[COUNTER], "little") if newest else 0
