"""The plan of a commanded update: its steps, and what becomes of them (row B8). All of it is pure.

Offsets count from the start of the NOR; offsets and lengths are in bytes.

    back up → prepare → erase, write …, erase, write … → check → restart → give back → delete backup

The new software may keep the user's data in another format. Then the blocks of the user's data are
erased before everything else. So no application finds data that it cannot read, before the restart
or after it, and each gets its own back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from unbrick.layout import Layout, reference_layout
from unbrick.server.records.analysis import Range, RangeKind
from unbrick.server.records.sessions import COMMANDS, PlannedStep, StepKind, StepState
from unbrick.wire.commands import MAX_WRITE_SIZE
from unbrick.wire.messages import Result

MAX_TRIES = 3
"""Times that a command may fail on the terminal before the session is given up."""

MAX_STARTS = 8
"""Times that a terminal may leave by itself, or have changed data, until a session is given up."""

REWRITING = (StepKind.PREPARE, *COMMANDS)


def make_plan(
    ranges: Iterable[Range], image_size: int, *, new_format: bool, layout: Layout | None = None
) -> list[PlannedStep]:
    """The steps of a session, all of them waiting.

    Args:
        ranges: what was prepared for the pair of images.
        image_size: of the new image, with header and TLVs.
        new_format: the new software has another format of the user's data.
        layout: where things lie; by default as in our firmware.
    """
    ranges = list(ranges)
    steps: list[tuple[StepKind, int, int]] = [(StepKind.BACK_UP, 0, 0), (StepKind.PREPARE, 0, 0)]
    layout = layout or reference_layout()
    block = layout.board.nor.block_size
    if new_format:
        data = layout.partition("userdata")
        steps += [(StepKind.ERASE, at, block) for at in range(data.offset, data.end, block)]
    writes = [item for item in ranges if item.kind is RangeKind.WRITE]
    for erase in (item for item in ranges if item.kind is RangeKind.ERASE):
        steps.append((StepKind.ERASE, erase.offset, erase.length))
        for item in writes:
            if erase.offset <= item.offset < erase.offset + erase.length:
                steps += [(StepKind.WRITE, *piece) for piece in _pieces(item)]
    steps.append((StepKind.CHECK, layout.partition("application").offset, image_size))
    steps += [(kind, 0, 0) for kind in (StepKind.RESTART, StepKind.GIVE_BACK)]
    steps.append((StepKind.DELETE_BACKUP, 0, 0))
    return [PlannedStep(0, number, *step) for number, step in enumerate(steps)]


def _pieces(item: Range) -> list[tuple[int, int]]:
    end = item.offset + item.length
    return [(at, min(MAX_WRITE_SIZE, end - at)) for at in range(item.offset, end, MAX_WRITE_SIZE)]


def slice_data(step: PlannedStep, image: bytes, layout: Layout | None = None) -> bytes:
    """What a step writes; what lies behind the end of the image is blank."""
    at = step.offset - (layout or reference_layout()).partition("application").offset
    return image[at : at + step.length].ljust(step.length, b"\xff")


def find_step(kind: StepKind, steps: Iterable[PlannedStep]) -> PlannedStep:
    """The step of a kind that every plan has once."""
    return next(step for step in steps if step.kind is kind)


def skip_steps(
    steps: Iterable[PlannedStep], now: float, kinds: Iterable[StepKind]
) -> list[PlannedStep]:
    """The steps of these kinds that are not over, as they are when they shall not be done.

    Of one that was sent it stays to be seen, in ``tries``.
    """
    return [
        replace(
            step,
            state=StepState.SKIPPED,
            tries=step.tries + (step.state is StepState.SENT),
            changed=now,
        )
        for step in steps
        if step.kind in kinds and not step.state.over
    ]


def reset_steps(steps: Iterable[PlannedStep], now: float) -> list[PlannedStep]:
    """Steps as they are before they are done for another time; ``tries`` stays."""
    return [
        replace(step, state=StepState.WAITING, result=None, text="", changed=now) for step in steps
    ]


def start_over(steps: Iterable[PlannedStep], now: float) -> list[PlannedStep]:
    """A whole plan, to be carried out anew when the user's data is back in its place.

    Only how often it came to nothing before is remembered.
    """
    return [
        step if step.kind is StepKind.PREPARE else replace(step, tries=0)
        for step in reset_steps(steps, now)
    ]


def plan_repeat(
    steps: list[PlannedStep], failed: PlannedStep, now: float
) -> list[PlannedStep] | None:
    """What is done again after a command failed; None when that will not help.

    What was not written well is erased first, with all of its block. When the check of the whole
    fails, every block of the application is.
    """
    if failed.tries >= MAX_TRIES or failed.kind is StepKind.RESTART:
        return None
    if failed.kind is StepKind.ERASE:
        return reset_steps([failed], now)
    application = reference_layout().partition("application")
    erases = [
        step
        for step in steps
        if step.kind is StepKind.ERASE and application.offset <= step.offset < application.end
    ]
    if failed.kind is StepKind.WRITE:
        erases = [
            step for step in erases if step.offset <= failed.offset < step.offset + step.length
        ]
    first, last = erases[0].number, failed.number
    return reset_steps((step for step in steps if first <= step.number <= last), now)


SENSELESS = frozenset((Result.MALFORMED_ANNOUNCEMENT, Result.OUT_OF_TURN))
"""Results of a command that was none for that terminal."""

LASTING = SENSELESS | frozenset(
    (
        Result.TOO_LARGE,
        Result.IMAGE_MALFORMED,
        Result.IMAGE_HASH_WRONG,
        Result.SIGNATURE_WRONG,
        Result.OTHER_HARDWARE,
        Result.OLDER_THAN_COUNTER,
    )
)
"""Results of a command that it would have every time."""
