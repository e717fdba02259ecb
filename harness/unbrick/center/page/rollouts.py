"""What the pages of rollouts show: a bar for each group, and what may be done; and the form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from unbrick.center.desk import COMMANDED, STAGED
from unbrick.errors import UnbrickError
from unbrick.server.records.people import AuditEntry
from unbrick.server.records.rollouts import (
    GroupCount,
    Rollout,
    RolloutMember,
    RolloutState,
    read_percent,
)

_PARTS = {
    "succeeded": "good",
    "failed": "bad",
    "forgiven": "due",
    "ordered": "busy",
    "asked": "due",
    "waiting": "later",
    "skipped": "left",
}
"""The parts of a bar, from left to right, and their classes in the style sheet."""

_KINDS = {
    RolloutState.FOR_APPROVAL: "due",
    RolloutState.SCHEDULED: "due",
    RolloutState.RUNNING: "busy",
    RolloutState.PAUSED: "due",
    RolloutState.STOPPED: "bad",
    RolloutState.FINISHED: "good",
    RolloutState.ABANDONED: "",
}

_DEEDS = {
    RolloutState.FOR_APPROVAL: ("approve",),
    RolloutState.SCHEDULED: ("pause",),
    RolloutState.RUNNING: ("pause",),
    RolloutState.PAUSED: ("resume",),
    RolloutState.STOPPED: ("resume",),
}
"""What can be done in each state, besides giving it up."""


@dataclass(frozen=True)
class BarPart:
    """A part of a bar; ``left`` and ``width`` are percent of it."""

    kind: str
    left: float
    width: float


@dataclass(frozen=True)
class GroupView:
    """A group: 0 stands for all of them."""

    number: int
    percent: int
    count: GroupCount
    begun: bool

    @property
    def bar(self) -> list[BarPart]:
        """The parts of its bar that are not empty."""
        parts, left = [], 0.0
        for state, kind in _PARTS.items():
            width = 100 * getattr(self.count, state) / max(1, self.count.total)
            if width:
                parts.append(BarPart(kind, round(left, 2), round(width, 2)))
            left += width
        return parts

    @property
    def words(self) -> str:
        """The same in words."""
        found = [f"{getattr(self.count, state):,} {state}" for state in _PARTS]
        return ", ".join(text for text in found if not text.startswith("0 ")) or "no terminals"


@dataclass(frozen=True)
class RolloutView:
    """A rollout as pages show it."""

    rollout: Rollout
    groups: list[GroupView]

    @property
    def kind(self) -> str:
        """The class of its state in the style sheet."""
        return _KINDS[self.rollout.state]

    @property
    def total(self) -> GroupView:
        """All groups together."""
        counts = [vars(group.count) for group in self.groups]
        names = (*_PARTS, "consented")
        summed = {name: sum(count[name] for count in counts) for name in names}
        return GroupView(0, 100, GroupCount(**summed), self.rollout.group > 0)

    @property
    def deeds(self) -> tuple[str, ...]:
        """What can be done with it, besides giving it up."""
        return _DEEDS.get(self.rollout.state, ())


def view_rollout(rollout: Rollout, counts: list[GroupCount]) -> RolloutView:
    """A rollout with how it is with its groups."""
    groups = [
        GroupView(number, percent, count, number <= rollout.group)
        for number, (percent, count) in enumerate(zip(rollout.percents, counts, strict=True), 1)
    ]
    return RolloutView(rollout, groups)


@dataclass(frozen=True)
class RolloutPage:
    """All that the page of one rollout shows."""

    view: RolloutView
    failures: list[RolloutMember]
    history: list[AuditEntry]


class FormError(UnbrickError):
    """Something in a form cannot be."""


BLANK = {
    "image": "",
    "name": "",
    "serials": "*",
    "software": "",
    "runs": "*",
    "groups": "5%, 25%, 100%",
    "success": "90",
    "error": "5",
    "way": STAGED,
    "downgrade": "",
    "consent": "",
    "not_before": "",
}
"""The form for a new rollout as it is at first; all that is in it is text."""


def read_order(form: Mapping[str, str]) -> dict[str, Any]:
    """What a form asks for, as the server takes it (``http.RolloutOrder``).

    Args:
        form: has the fields of ``BLANK``; ``image`` is a version and its hardware.

    Raises:
        FormError: a field is not what it should be.
    """
    values = {name: form.get(name, "").strip() for name in BLANK}
    version, _, hardware = values["image"].partition(" ")
    if not version:
        raise FormError("no software is chosen", hint="choose what is to be rolled out")
    order = {name: values[name] for name in ("name", "software")}
    order |= {name: values[name] or "*" for name in ("serials", "runs")}
    groups = [read_percent(part) for part in values["groups"].split(",")]
    if None in groups:
        raise FormError("the groups are no percentages", hint="write them as 5%, 25%, 100%")
    return {
        **order,
        "version": version,
        "hardware": hardware,
        "groups": groups,
        "success": _read_limit(values["success"], "success"),
        "error": _read_limit(values["error"], "error"),
        "way": COMMANDED if values["way"] == COMMANDED else STAGED,
        "downgrade": values["downgrade"] == "yes",
        "consent": values["consent"] == "yes",
        "not_before": _read_moment(values["not_before"]),
    }


def _read_limit(text: str, name: str) -> int:
    found = read_percent(text)
    if found is None:
        raise FormError(f"the limit of {name} is no percentage", hint="write 0 to 100")
    return found


def _read_moment(text: str) -> str | None:
    """A moment in UTC, as browsers write it."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).isoformat()
    except ValueError as error:
        raise FormError("that is no time", hint="write it as 2026-12-01T03:00") from error
