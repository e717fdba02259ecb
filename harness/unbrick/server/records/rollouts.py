"""Rollouts: a release for many terminals, in groups, one after the other."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from unbrick.server.records.people import AuditAction, AuditEntry
from unbrick.server.records.tables import Record, Store, Table, given
from unbrick.server.records.updates import Update

UPDATES_AT_ONCE = 5_000
"""Updates that are asked for together; databases have bounds for the values of a statement."""


def read_percent(text: str) -> int | None:
    """A percentage with or without its sign; None: it is none."""
    found = re.fullmatch(r"\s*(\d{1,3})\s*%?\s*", text)
    return int(found[1]) if found is not None and int(found[1]) <= 100 else None


class RolloutState(Enum):
    """How far a rollout is."""

    FOR_APPROVAL = "for approval"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FINISHED = "finished"
    ABANDONED = "abandoned"

    @property
    def ended(self) -> bool:
        """Whether nothing more is ordered, ever."""
        return self in (RolloutState.FINISHED, RolloutState.ABANDONED)

    @property
    def held(self) -> bool:
        """Whether what was ordered is taken back, as far as it can be."""
        return self in (RolloutState.PAUSED, RolloutState.STOPPED, RolloutState.ABANDONED)


class MemberState(Enum):
    """What has become of a terminal in a rollout."""

    WAITING = "waiting"
    """Its update is not ordered, or was taken back."""

    ASKED = "asked"
    """Its user was told of the release, and has not called yet."""

    ORDERED = "ordered"
    SUCCEEDED = "succeeded"

    FAILED = "failed"
    """The update failed, or the terminal refused it."""

    SKIPPED = "skipped"
    """The rule for orders is against it, or a person has cancelled its update."""

    FORGIVEN = "forgiven"
    """It failed, and a person had the rollout go on all the same."""


@dataclass(frozen=True)
class Rollout(Record):
    """A release for the terminals that a filter has found. Times are seconds since 1970.

    Attributes:
        id: its number.
        name: for people.
        digest: of the image.
        version: of the image.
        hardware_id: of the image, and of each terminal.
        serials: pattern of serials, with ``*`` and ``?``.
        software: pattern of the names of what terminals ran.
        runs: pattern of the versions of that.
        groups: how many percent of the terminals have been asked when a group has, by commas.
        success: percent of a group that must succeed before the next one begins.
        error: percent of a group of which more must not fail.
        commanded: not by files, but by commands.
        downgrade: also where that is older.
        not_before: when it may begin, if that matters.
        state: how far it is.
        group: the last one that has begun; 0: none has.
        text: why it is in its state, if that has to be said.
        settled: nothing goes on any more, not even at a terminal.
        created: when somebody made it.
        created_by: who.
        approved_by: who has approved it; empty: nobody.
        changed: when its state or group did last.
        consent: a terminal's user is asked first, by a text message, and consents by a call.
    """

    id: int
    name: str
    digest: bytes
    version: str
    hardware_id: str
    serials: str
    software: str
    runs: str
    groups: str
    success: int
    error: int
    commanded: bool
    downgrade: bool
    not_before: float | None
    state: RolloutState
    group: int
    text: str
    settled: bool
    created: float
    created_by: str
    approved_by: str
    changed: float
    consent: bool = False

    @property
    def percents(self) -> tuple[int, ...]:
        """Of the groups, as numbers."""
        return tuple(map(int, self.groups.split(",")))


@dataclass(frozen=True)
class RolloutMember(Record):
    """A terminal in a rollout; ``update_id`` is of the update that was ordered for it last.

    ``consented``: its user has called for that.
    """

    KEY = ("rollout_id", "serial")
    rollout_id: int
    serial: str
    group: int
    state: MemberState
    update_id: int | None
    text: str
    changed: float
    consented: bool = False


@dataclass(frozen=True)
class GroupCount:
    """How many terminals of a group are in which state; and of how many the user has consented."""

    waiting: int = 0
    asked: int = 0
    ordered: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    forgiven: int = 0
    consented: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.counted + self.skipped + self.forgiven

    @property
    def counted(self) -> int:
        """Those of which thresholds are percent."""
        return self.open + self.succeeded + self.failed

    @property
    def open(self) -> int:
        """Those of which nothing is known yet."""
        return self.waiting + self.asked + self.ordered


_HISTORY = frozenset(
    action for action in AuditAction if action.value.partition(" ")[0] == "rollout"
)


class Rollouts:
    """The rollouts that there are.

    Args:
        store: keeps them.
        audit: keeps who did what.
    """

    def __init__(self, store: Store, audit: Table[AuditEntry]) -> None:
        self._store = store
        self._rollouts = store.table(Rollout)
        self._members = store.table(RolloutMember)
        self._audit = audit

    def get(self, rollout_id: int) -> Rollout | None:
        """The rollout with this id."""
        return self._rollouts.get(rollout_id)

    def all(self) -> list[Rollout]:
        """Every rollout, oldest first."""
        return self._rollouts.select()

    def after(self, rollout_id: int, first: int) -> list[Rollout]:
        """The first so many rollouts with higher ids."""
        return self._rollouts.select(after=rollout_id, first=first)

    def newest(self, count: int) -> list[Rollout]:
        """So many of them that were made last, oldest first."""
        return self._rollouts.select(last=count)

    def unsettled(self) -> list[Rollout]:
        """Those of which something may still go on."""
        return self._rollouts.select(settled=False)

    def count(self) -> dict[str, int]:
        """How many rollouts there are in each state."""
        return {state.value: number for state, number in self._rollouts.tally("state").items()}

    def count_members(self) -> dict[str, int]:
        """How many members of rollouts there are in each state."""
        return {state.value: number for state, number in self._members.tally("state").items()}

    def add(self, rollout: Rollout) -> Rollout:
        """Keep a new rollout."""
        return self._rollouts.add(rollout)

    def save(self, rollout: Rollout) -> None:
        """Keep what has changed of a rollout."""
        self._rollouts.change(rollout)

    def add_members(self, members: Iterable[RolloutMember]) -> None:
        """Keep new members, in the order of their serials."""
        with self._store.together():
            for member in sorted(members, key=lambda member: member.serial):
                self._members.append(member)

    def save_member(self, member: RolloutMember) -> None:
        """Keep what has changed of a member."""
        self._members.change(member)

    def members(
        self,
        rollout_id: int,
        *,
        states: Collection[MemberState] | None = None,
        groups: Collection[int] | None = None,
        after: str | None = None,
        first: int | None = None,
    ) -> list[RolloutMember]:
        """The members of a rollout by serial.

        Args:
            rollout_id: of the rollout.
            states: only those in one of them.
            groups: only those in one of them.
            after: only those with later serials.
            first: only so many.
        """
        where: dict[str, Any] = given(
            state=None if states is None else frozenset(states),
            group=None if groups is None else frozenset(groups),
        )
        found = self._members.select(first=first, after=after, rollout_id=rollout_id, **where)
        return found if first is not None else sorted(found, key=lambda member: member.serial)

    def take_order(self, update: Update, now: float, *, called: bool) -> None:
        """An order by somebody is that of a rollout of the same release that waits for its user.

        Args:
            update: that was ordered.
            now: seconds since 1970.
            called: the user of the terminal did it, in a call.
        """
        for rollout in self.unsettled():
            if not rollout.consent or rollout.digest != update.digest:
                continue
            member = self._members.get(rollout.id, update.serial)
            if member is not None and member.state in (MemberState.WAITING, MemberState.ASKED):
                self.save_member(
                    replace(
                        member,
                        state=MemberState.ORDERED,
                        update_id=update.id,
                        text="",
                        changed=now,
                        consented=member.consented or called,
                    )
                )

    def members_of(self, update_ids: Collection[int]) -> list[RolloutMember]:
        """The members that updates were ordered for."""
        ids, found = sorted(update_ids), []
        for at in range(0, len(ids), UPDATES_AT_ONCE):
            found += self._members.select(update_id=frozenset(ids[at : at + UPDATES_AT_ONCE]))
        return found

    def group_counts(self, rollout: Rollout) -> list[GroupCount]:
        """How many terminals of each group are in which state."""
        counts: list[dict[str, int]] = [{} for _ in rollout.percents]
        tally = self._members.tally("group", "state", rollout_id=rollout.id)
        for (group, state), number in tally.items():
            counts[group - 1][state.value] = number
        if rollout.consent:
            agreed = self._members.tally("group", rollout_id=rollout.id, consented=True)
            for group, number in agreed.items():
                counts[group - 1]["consented"] = number
        return [GroupCount(**count) for count in counts]

    def note(self, rollout: Rollout, action: AuditAction, who: str, now: float, text: str) -> None:
        """Keep for ever what was done with a rollout, and by whom."""
        self._audit.append(AuditEntry(0, now, who, action, "", rollout.id, text))

    def history(self, rollout_id: int) -> list[AuditEntry]:
        """What was done with a rollout."""
        return self._audit.select(subject=rollout_id, action=_HISTORY)
