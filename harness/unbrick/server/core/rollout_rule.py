"""What a rollout does next, decided from counts alone: no database, no clock, no terminals.

A group begins when enough of the one before has succeeded. Too many failures in any group stop the
rollout, and so does a group that cannot succeed any more. So a rollout always comes to an end when
its terminals do (``docs/rollouts.md``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from unbrick.server.core.restoring import foresee_refusal, is_older
from unbrick.server.errors import ConflictError
from unbrick.server.records.rollouts import GroupCount, MemberState
from unbrick.server.records.updates import Image, Running, Terminal, UpdateState
from unbrick.wire.messages import TerminalState

MOST_GROUPS = 20


@dataclass(frozen=True)
class Filter:
    """Which terminals a rollout is for: patterns with ``*`` and ``?``, capitals matter.

    Attributes:
        serials: of serials.
        software: of the names of what they run.
        runs: of the versions of that.
    """

    serials: str
    software: str
    runs: str

    def takes(self, terminal: Terminal) -> bool:
        """Whether a terminal is one of them."""
        return self.takes_software(terminal) and self.takes_serial(terminal.serial)

    def takes_software(self, runs: Terminal | Running) -> bool:
        """Whether it is for what a terminal runs."""
        return fnmatchcase(runs.name, self.software) and fnmatchcase(runs.version, self.runs)

    def takes_serial(self, serial: str) -> bool:
        """Whether it is for a terminal with this serial."""
        return fnmatchcase(serial, self.serials)


def needs_it(image: Image, terminal: Terminal | Running, *, downgrade: bool) -> bool:
    """Whether a terminal could be updated to an image that it does not run."""
    if foresee_refusal(image, terminal) is not None:
        return False
    if terminal.state is TerminalState.APPLICATION and terminal.digest == image.digest:
        return False
    return downgrade or not is_older(image, terminal)


def check_groups(percents: Sequence[int]) -> None:
    """Whether there can be such groups.

    Raises:
        ConflictError: their percentages do not rise to 100.
    """
    rising = all(a < b for a, b in zip((0, *percents), percents, strict=False))
    if not rising or not percents or percents[-1] != 100 or len(percents) > MOST_GROUPS:
        raise ConflictError(
            "the percentages of groups have to rise, and to end with 100",
            hint=f"such as 5,25,100; {MOST_GROUPS} groups at most",
        )


def divide(serials: Iterable[str], percents: Sequence[int], salt: str) -> dict[str, int]:
    """The group of each terminal: 1 is the first one.

    Who is early in one rollout need not be early in another. Anybody can work it out: terminals
    stand in the order of the SHA-256 of ``salt/serial``.

    Args:
        serials: of the terminals.
        percents: how many percent have been asked when a group has; a part of one counts as one.
        salt: a text that is the rollout's own.
    """
    order = sorted(
        serials, key=lambda serial: (hashlib.sha256(f"{salt}/{serial}".encode()).digest(), serial)
    )
    groups, at = {}, 0
    for group, percent in enumerate(percents, 1):
        end = -(-len(order) * percent // 100)
        groups.update(dict.fromkeys(order[at:end], group))
        at = max(at, end)
    return groups


@dataclass(frozen=True)
class KeepWaiting:
    """Terminals of the groups that have begun are updated; nothing else is due."""


@dataclass(frozen=True)
class BeginGroup:
    """The group with this number begins."""

    group: int


@dataclass(frozen=True)
class StopAll:
    """No more is ordered, and what was is taken back; for this reason."""

    why: str


@dataclass(frozen=True)
class FinishRollout:
    """All terminals are done with."""


Decision = KeepWaiting | BeginGroup | StopAll | FinishRollout


def decide(groups: Sequence[GroupCount], begun: int, *, success: int, error: int) -> Decision:
    """What a rollout does next.

    Args:
        groups: how it is with the terminals of each, the first one first.
        begun: how many of the groups have begun.
        success: percent of a group that must succeed before the next one begins.
        error: percent of a group of which more must not fail.
    """
    for number, count in enumerate(groups[:begun], 1):
        why = _find_trouble(number, count, last=number == len(groups), success=success, error=error)
        if why:
            return StopAll(why)
    if begun == len(groups):
        return KeepWaiting() if any(count.open for count in groups) else FinishRollout()
    if begun == 0 or _has_succeeded(groups[begun - 1], success):
        return BeginGroup(begun + 1)
    return KeepWaiting()


def _has_succeeded(count: GroupCount, success: int) -> bool:
    return 100 * count.succeeded >= success * count.counted


def _find_trouble(
    number: int, count: GroupCount, *, last: bool, success: int, error: int
) -> str | None:
    """Why a group stops the rollout; None: it does not."""
    if 100 * count.failed > error * count.counted:
        return f"group {number}: {count.failed} of {count.counted} failed, more than {error} %"
    # After the last group there is nothing that its success could open.
    if not last and 100 * (count.succeeded + count.open) < success * count.counted:
        return f"group {number}: {success} % cannot succeed any more, {count.failed} failed"
    return None


_ENDS = {
    UpdateState.SUCCEEDED: MemberState.SUCCEEDED,
    UpdateState.FAILED: MemberState.FAILED,
    UpdateState.REFUSED: MemberState.FAILED,
}


def follow(member: MemberState, update: UpdateState) -> MemberState:
    """What has become of a terminal in a rollout when its update is in a state.

    A cancelled update may have come too late to be cancelled; then it is under way again. Success
    may come after a failure, when a terminal that was given up registers.
    """
    end = _ENDS.get(update)
    if end is MemberState.FAILED and member is MemberState.FORGIVEN:
        return member
    if end is not None:
        return end
    if update is UpdateState.CANCELLED:
        # Of one that waits the rollout itself has taken the order back.
        return MemberState.SKIPPED if member is MemberState.ORDERED else member
    late = (MemberState.WAITING, MemberState.SKIPPED)
    return MemberState.ORDERED if member in late else member
