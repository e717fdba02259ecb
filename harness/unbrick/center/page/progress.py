"""What the page shows of a commanded update: its stages, its commands, the user's data, the NOR."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from unbrick.center.page.nor_map import BlockMark, find_blocks
from unbrick.layout import reference_layout
from unbrick.server.records.people import AuditAction, AuditEntry
from unbrick.server.records.sessions import (
    Backup,
    CommandedSession,
    PlannedStep,
    SessionState,
    StepKind,
    StepState,
    may_have_erased,
)
from unbrick.wire.messages import Result

_STAGES = (
    ((StepKind.BACK_UP,), "the user's data is backed up"),
    ((StepKind.PREPARE,), "the resident program runs"),
    ((StepKind.ERASE, StepKind.WRITE), "what differs is rewritten"),
    ((StepKind.CHECK,), "the NOR is checked"),
    ((StepKind.RESTART,), "the new software runs"),
    ((StepKind.GIVE_BACK,), "the user's data is given back"),
    ((StepKind.DELETE_BACKUP,), "the backup is deleted"),
)
_DATA = {
    AuditAction.BACKUP_KEPT: "backed up, sealed by the terminal",
    AuditAction.BACKUP_READ: "on its way back to the terminal",
    AuditAction.BACKUP_DELETED: "deleted from the database",
}


@dataclass(frozen=True)
class UpdateStage:
    """A stage of an update: ``done``, ``now``, ``failed``, ``skipped`` or ``later``."""

    words: str
    state: str


@dataclass(frozen=True)
class CommandGroup:
    """Steps of a kind that belong together: all that is written into one block of the NOR."""

    steps: list[PlannedStep]

    @property
    def words(self) -> str:
        """What they do."""
        first, last = self.steps[0], self.steps[-1]
        words = first.kind.value
        if first.length:
            words += f" {first.offset:#08x}, {sum(step.length for step in self.steps):,} bytes"
        if first is not last:
            words += f", {self.done} of {len(self.steps)} commands"
        return words

    @property
    def done(self) -> int:
        """How many of them are done."""
        return sum(step.state is StepState.DONE for step in self.steps)

    @property
    def state(self) -> StepState:
        """How far they are together; between two of them it goes on."""
        states = {step.state for step in self.steps}
        for state in (StepState.FAILED, StepState.SENT):
            if state in states:
                return state
        if len(states) > 1 and StepState.WAITING in states and StepState.DONE in states:
            return StepState.SENT
        return max(states, key=[StepState.DONE, StepState.SKIPPED, StepState.WAITING].index)

    @property
    def notes(self) -> str:
        """What did not go well, and how often it was tried again."""
        again = sum(step.tries for step in self.steps)
        said = [step.text or _result(step.result) for step in self.steps if step.result]
        times = f"tried again {again} time{'s' if again > 1 else ''}" if again else ""
        return ", ".join(part for part in (times, *said[-1:]) if part)


def _result(number: int | None) -> str:
    try:
        return Result(number).text if number else ""
    except ValueError:
        return f"result {number}"


@dataclass(frozen=True)
class SessionView:
    """A commanded update, and what is in the server's care meanwhile.

    Attributes:
        data: when and what was done with the user's data, the first first.
        kept: the backup that is in the database now.
    """

    session: CommandedSession
    steps: list[PlannedStep]
    data: list[tuple[float, str]]
    kept: Backup | None

    @property
    def stages(self) -> list[UpdateStage]:
        """Its stages, and how far each is."""
        going = not self.session.state.ended
        found = []
        for kinds, words in _STAGES:
            state = _stage([step for step in self.steps if step.kind in kinds])
            if state == "later" and going:
                # Only one is at work; a failed one is tried again.
                going = False
                state = "now"
            found.append(UpdateStage(words, state))
        return found

    @property
    def done(self) -> int:
        """How many steps are over."""
        return sum(step.state.over for step in self.steps)

    @property
    def current(self) -> PlannedStep | None:
        """The step that it is at."""
        if self.session.state.ended:
            return None
        return next((step for step in self.steps if not step.state.over), None)

    @property
    def current_words(self) -> str:
        """What it is at, in words."""
        return "" if self.current is None else CommandGroup([self.current]).words

    @property
    def commands(self) -> list[CommandGroup]:
        """All steps, those of one kind in one block together."""
        size = reference_layout().board.nor.block_size
        groups = groupby(self.steps, key=lambda step: (step.kind, step.offset // size))
        return [CommandGroup(list(steps)) for _, steps in groups]

    @property
    def cancellable(self) -> bool:
        """Whether the server would still cancel it: until the first erase is sent."""
        return not self.session.state.ended and not may_have_erased(self.steps)

    @property
    def kind(self) -> str:
        """The class of its state in the style sheet."""
        styles = {SessionState.SUCCEEDED: "good", SessionState.FAILED: "bad"}
        return styles.get(self.session.state, "due" if self.session.state.ended else "busy")


def _stage(steps: list[PlannedStep]) -> str:
    states = {step.state for step in steps}
    if StepState.FAILED in states:
        return "failed"
    if states <= {StepState.DONE, StepState.SKIPPED}:
        return "done" if StepState.DONE in states or not states else "skipped"
    return "later"


def list_data(entries: Iterable[AuditEntry]) -> list[tuple[float, str]]:
    """What was done with a user's data, from the audit; who did it is in the log."""
    return [(entry.time, _DATA[entry.action]) for entry in entries if entry.action in _DATA]


def mark_blocks(steps: list[PlannedStep]) -> dict[int, tuple[BlockMark, int]]:
    """What the steps do to blocks of the NOR, by number, and how much is written in per cent."""
    touching: dict[int, list[PlannedStep]] = {}
    for step in steps:
        if step.kind in (StepKind.ERASE, StepKind.WRITE):
            for number in find_blocks(step.offset, step.length):
                touching.setdefault(number, []).append(step)
    found = {}
    for number, of_block in touching.items():
        mark = _mark(of_block)
        if mark is not None:
            writes = [step for step in of_block if step.kind is StepKind.WRITE]
            there = sum(step.length for step in writes if step.state is StepState.DONE)
            whole = sum(step.length for step in writes)
            found[number] = mark, 100 * there // whole if whole else 0
    return found


def _mark(steps: list[PlannedStep]) -> BlockMark | None:
    """What happens to a block whose steps these are."""
    states = [step.state for step in steps]
    if StepState.FAILED in states:
        return BlockMark.FAILED
    if all(state is StepState.SKIPPED for state in states):
        return None
    if all(state.over for state in states):
        if StepState.SKIPPED in states:
            return None
        writes = any(step.kind is StepKind.WRITE for step in steps)
        return BlockMark.DONE if writes else BlockMark.ERASED
    erases = [step for step in steps if step.kind is StepKind.ERASE]
    if any(step.state is StepState.SENT for step in erases):
        return BlockMark.ERASING
    if any(not step.state.over for step in erases):
        return BlockMark.DUE
    begun = any(
        step.state in (StepState.SENT, StepState.DONE)
        for step in steps
        if step.kind is StepKind.WRITE
    )
    return BlockMark.WRITING if begun else BlockMark.ERASED
