"""Carries rollouts out: orders for terminals in groups, by the one rule for orders.

All that a rollout has to know is in the records. An order and the note that it was given are one
transaction. So a server that was killed goes on where it was, and orders nothing twice. What comes
next is decided in ``rollout_rule``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from unbrick.server.core.core import ServerCore
from unbrick.server.core.orders import Order, complete_version
from unbrick.server.core.rollout_rule import (
    BeginGroup,
    Filter,
    FinishRollout,
    StopAll,
    check_groups,
    decide,
    divide,
    follow,
    needs_it,
)
from unbrick.server.errors import BusyError, ConflictError, UnknownError
from unbrick.server.records.people import AuditAction
from unbrick.server.records.rollouts import (
    UPDATES_AT_ONCE,
    MemberState,
    Rollout,
    RolloutMember,
    RolloutState,
)
from unbrick.server.records.updates import Image, Update

ORDERS_AT_ONCE = 50
"""Orders in one transaction; messages of terminals wait meanwhile."""

BUSY_INTERVAL_S = 10.0
"""Seconds after which a terminal that had another update under way is looked at again."""

MOST_AHEAD_S = 366 * 86_400.0
"""Seconds that a rollout may be scheduled ahead; what is later is taken for a slip."""

INVITATION = (
    "Version {new} of your terminal's software is ready. Call us when it suits you, and press 1."
)
"""What asks a terminal's user to consent; as in the center's menu, which says it only once so."""

SERVER = "server"
"""Who does what nobody has ordered, in the audit."""


@dataclass(frozen=True)
class RolloutDraft:
    """What a person wants to roll out. Attributes as in ``Rollout``.

    Attributes:
        version: of a published image.
        hardware_id: of that image; empty: that of the only one there is.
        name: for people; empty: the version.
        software: pattern; empty: the name of the image's software.
    """

    version: str
    hardware_id: str = ""
    name: str = ""
    serials: str = "*"
    software: str = ""
    runs: str = "*"
    percents: tuple[int, ...] = (5, 25, 100)
    success: int = 90
    error: int = 5
    commanded: bool = False
    downgrade: bool = False
    consent: bool = False
    not_before: float | None = None


class RolloutRunner:
    """Makes rollouts, and carries them out. Every ``now`` is in seconds since 1970.

    Args:
        core: takes the orders.
        self_approval: whoever made a rollout may approve it.
        on_change: called with a rollout whose state or group has changed.
    """

    def __init__(
        self,
        core: ServerCore,
        *,
        self_approval: bool = False,
        on_change: Callable[[Rollout], None] = lambda _rollout: None,
    ) -> None:
        self._core = core
        self._records = core.records
        self._rollouts = core.records.rollouts
        self._self_approval = self_approval
        self._on_change = on_change
        self._seen: int | None = None
        self._busy: dict[tuple[int, str], float] = {}
        self._ordered: list[Update] = []
        self._changed: list[Rollout] = []

    # What people do

    def create(self, draft: RolloutDraft, who: str, now: float) -> Rollout:
        """Make a rollout for the terminals that there are now; it waits for approval.

        Raises:
            UnknownError: there is no such image.
            ConflictError: something of it cannot be, or it is for no terminal.
        """
        check_groups(draft.percents)
        texts = (draft.name, draft.serials, draft.software, draft.runs)
        if not all(text.isprintable() for text in texts):
            raise ConflictError("a text has signs that cannot be printed", hint="leave them out")
        if draft.not_before is not None and draft.not_before > now + MOST_AHEAD_S:
            raise ConflictError("it is to begin in more than a year", hint="check the date")
        image = self._find_image(draft)
        rollout = Rollout(
            id=0,
            name=draft.name or image.version,
            digest=image.digest,
            version=image.version,
            hardware_id=image.hardware_id,
            serials=draft.serials,
            software=draft.software or image.name,
            runs=draft.runs,
            groups=",".join(map(str, draft.percents)),
            success=draft.success,
            error=draft.error,
            commanded=draft.commanded,
            downgrade=draft.downgrade,
            not_before=draft.not_before,
            state=RolloutState.FOR_APPROVAL,
            group=0,
            text="",
            settled=False,
            created=now,
            created_by=who,
            approved_by="",
            changed=now,
            consent=draft.consent,
        )
        wanted = Filter(rollout.serials, rollout.software, rollout.runs)
        # What terminals run is judged once, however many run it.
        serials = [
            serial
            for running in self._records.running()
            if wanted.takes_software(running)
            and needs_it(image, running, downgrade=draft.downgrade)
            for serial in self._records.serials_running(running)
            if wanted.takes_serial(serial)
        ]
        if not serials:
            raise ConflictError(
                f"no terminal that the filter takes needs {image.version}",
                hint="`unbrick terminals` lists what they are and run",
            )
        with self._records.transaction():
            rollout = self._rollouts.add(rollout)
            groups = divide(serials, draft.percents, str(rollout.id))
            self._rollouts.add_members(
                RolloutMember(rollout.id, serial, group, MemberState.WAITING, None, "", now)
                for serial, group in groups.items()
            )
            text = f"{image.version} for {len(serials)} terminals"
            self._rollouts.note(rollout, AuditAction.ROLLOUT_CREATED, who, now, text)
        self._on_change(rollout)
        return rollout

    def _find_image(self, draft: RolloutDraft) -> Image:
        version = complete_version(draft.version)
        found = [
            image
            for image in self._records.images()
            if image.version == version and draft.hardware_id in ("", image.hardware_id)
        ]
        if not found:
            what = f"{version} for {draft.hardware_id}" if draft.hardware_id else version
            raise UnknownError(
                f"there is no image {what}",
                hint="publish it with `unbrick publish`; `unbrick images` lists what there is",
            )
        if len(found) > 1:
            kinds = ", ".join(sorted(image.hardware_id for image in found))
            raise ConflictError(
                f"there is {version} for several kinds of hardware",
                hint=f"say which one with --hardware: {kinds}",
            )
        return found[0]

    def approve(self, rollout_id: int, who: str, now: float) -> Rollout:
        """Let a rollout begin.

        Raises:
            UnknownError: there is no such rollout.
            ConflictError: it does not wait for that, or who made it approves it.
        """
        with self._records.transaction():
            rollout = self._in_state(rollout_id, "be approved", RolloutState.FOR_APPROVAL)
            if rollout.created_by == who and not self._self_approval:
                raise ConflictError(
                    f"{who} has made rollout {rollout_id}, so somebody else has to approve it",
                    hint="somebody with a token of an operator, or an engineer at the center's"
                    " page",
                )
            approved, state = replace(rollout, approved_by=who), self._begun_state(rollout, now)
            approved = self._change(approved, state, now, AuditAction.ROLLOUT_APPROVED, who)
        self._on_change(approved)
        return approved

    def pause(self, rollout_id: int, who: str, now: float) -> Rollout:
        """Order nothing more for now, and take back what can be.

        Raises:
            UnknownError: there is no such rollout.
            ConflictError: it is not under way.
        """
        going = (RolloutState.SCHEDULED, RolloutState.RUNNING)
        with self._records.transaction():
            rollout = self._in_state(rollout_id, "be paused", *going)
            action = AuditAction.ROLLOUT_PAUSED
            paused = self._change(rollout, RolloutState.PAUSED, now, action, who)
        self._on_change(paused)
        return paused

    def resume(self, rollout_id: int, who: str, now: float) -> Rollout:
        """Go on with one that was paused or has stopped; failures so far count no more.

        Raises:
            UnknownError: there is no such rollout.
            ConflictError: it is neither.
        """
        held = (RolloutState.PAUSED, RolloutState.STOPPED)
        with self._records.transaction():
            rollout = self._in_state(rollout_id, "be resumed", *held)
            if rollout.state is RolloutState.STOPPED:
                for member in self._rollouts.members(rollout_id, states=(MemberState.FAILED,)):
                    forgiven = replace(member, state=MemberState.FORGIVEN, changed=now)
                    self._rollouts.save_member(forgiven)
            state = self._begun_state(rollout, now)
            resumed = self._change(rollout, state, now, AuditAction.ROLLOUT_RESUMED, who)
        self._on_change(resumed)
        return resumed

    def abandon(self, rollout_id: int, who: str, now: float) -> Rollout:
        """Give a rollout up for good, and take back what can be.

        Raises:
            UnknownError: there is no such rollout.
            ConflictError: it has ended.
        """
        going = [state for state in RolloutState if not state.ended]
        with self._records.transaction():
            rollout = self._in_state(rollout_id, "be abandoned", *going)
            action = AuditAction.ROLLOUT_ABANDONED
            abandoned = self._change(rollout, RolloutState.ABANDONED, now, action, who)
        self._on_change(abandoned)
        return abandoned

    def _in_state(self, rollout_id: int, what: str, *states: RolloutState) -> Rollout:
        rollout = self._rollouts.get(rollout_id)
        if rollout is None:
            raise UnknownError(
                f"there is no rollout {rollout_id}", hint="`unbrick rollout list` has all"
            )
        if rollout.state not in states:
            raise ConflictError(
                f"rollout {rollout_id} is {rollout.state.value}, so it cannot {what}",
                hint=f"see `unbrick rollout show {rollout_id}`",
            )
        return rollout

    def _begun_state(self, rollout: Rollout, now: float) -> RolloutState:
        due = rollout.not_before is None or rollout.not_before <= now
        return RolloutState.RUNNING if due else RolloutState.SCHEDULED

    def _change(
        self,
        rollout: Rollout,
        state: RolloutState,
        now: float,
        action: AuditAction | None = None,
        who: str = SERVER,
        *,
        text: str = "",
    ) -> Rollout:
        """Keep a new state or group, and that somebody did it."""
        changed = replace(rollout, state=state, text=text, changed=now)
        with self._records.transaction():
            self._rollouts.save(changed)
            if action is not None:
                self._rollouts.note(changed, action, who, now, text)
        return changed

    # What the server does

    def look(self, now: float) -> bool:
        """Do what is due; gives whether there is more to be done at once."""
        if not self._rollouts.unsettled():
            self._seen = None
            return False
        self._ordered, self._changed = [], []
        with self._records.transaction():
            seen = self._follow(now)
            more = [self._advance(rollout, now) for rollout in self._rollouts.unsettled()]
        self._seen = seen
        for update in self._ordered:
            self._core.carry_out(update)
        for rollout in self._changed:
            self._on_change(rollout)
        return any(more)

    def _follow(self, now: float) -> int:
        """See what has become of the updates that were ordered; gives the last event's id."""
        newest = self._records.events(newest=1)
        seen = newest[-1].id if newest else 0
        if self._seen is None:
            for rollout in self._rollouts.unsettled():
                self._compare(self._rollouts.members(rollout.id), now)
        elif seen != self._seen:
            events = self._records.events_after(self._seen)
            changed = {e.update_id for e in events if e.update_id is not None and e.state}
            self._compare(self._rollouts.members_of(changed), now)
        return seen

    def _compare(self, members: Iterable[RolloutMember], now: float) -> None:
        with_update = {
            member.update_id: member for member in members if member.update_id is not None
        }
        ids = sorted(with_update)
        for at in range(0, len(ids), UPDATES_AT_ONCE):
            for update in self._records.updates_among(frozenset(ids[at : at + UPDATES_AT_ONCE])):
                member = with_update[update.id]
                state = follow(member.state, update.state)
                if state is not member.state:
                    self._put(member, state, now, text=update.text)

    def _put(
        self,
        member: RolloutMember,
        state: MemberState,
        now: float,
        *,
        text: str = "",
        update_id: int | None = None,
    ) -> None:
        number = member.update_id if update_id is None else update_id
        self._rollouts.save_member(
            replace(member, state=state, update_id=number, text=text, changed=now)
        )

    def _advance(self, rollout: Rollout, now: float) -> bool:
        """Take a rollout a step further; gives whether another one is due at once."""
        if rollout.state is RolloutState.SCHEDULED:
            if self._begun_state(rollout, now) is RolloutState.SCHEDULED:
                return False
            rollout = self._become(rollout, RolloutState.RUNNING, now)
        if rollout.state.held:
            return self._take_back(rollout, now)
        if rollout.state is not RolloutState.RUNNING:
            return False
        decision = decide(
            *(self._rollouts.group_counts(rollout), rollout.group),
            success=rollout.success,
            error=rollout.error,
        )
        if isinstance(decision, BeginGroup):
            begun = replace(rollout, group=decision.group)
            text = f"group {decision.group} of {len(rollout.percents)}"
            self._become(begun, RolloutState.RUNNING, now, AuditAction.ROLLOUT_BEGUN, text)
            return True
        if isinstance(decision, StopAll):
            action = AuditAction.ROLLOUT_STOPPED
            self._become(rollout, RolloutState.STOPPED, now, action, decision.why)
            return True
        if isinstance(decision, FinishRollout):
            ended, action = replace(rollout, settled=True), AuditAction.ROLLOUT_FINISHED
            self._become(ended, RolloutState.FINISHED, now, action)
            return False
        return self._order(rollout, now)

    def _become(
        self,
        rollout: Rollout,
        state: RolloutState,
        now: float,
        action: AuditAction | None = None,
        text: str = "",
    ) -> Rollout:
        """Keep what the server has done by itself; it is told when that is kept for sure."""
        changed = self._change(rollout, state, now, action, text=text)
        self._changed.append(changed)
        return changed

    def _order(self, rollout: Rollout, now: float) -> bool:
        """Order updates for terminals that wait; gives whether there may be more of them."""
        image = self._records.image(rollout.digest)
        assert image is not None  # noqa: S101 - the table refers to it
        # One that is longer than that is of a clock that has gone back.
        self._busy = {
            key: until for key, until in self._busy.items() if now < until <= now + BUSY_INTERVAL_S
        }
        begun = range(1, rollout.group + 1)
        waiting = self._rollouts.members(
            rollout.id,
            states=(MemberState.WAITING,),
            groups=begun,
            first=ORDERS_AT_ONCE + len(self._busy),
        )
        due = [item for item in waiting if (item.rollout_id, item.serial) not in self._busy]
        for member in due[:ORDERS_AT_ONCE]:
            self._order_one(rollout, member, image, now)
        return bool(due)

    def _order_one(self, rollout: Rollout, member: RolloutMember, image: Image, now: float) -> None:
        how = {"commanded": rollout.commanded, "downgrade": rollout.downgrade}
        try:
            if rollout.consent and not member.consented:
                self._core.check(Order(image, member.serial, **how))
                text = INVITATION.format(new=image.version.removesuffix("+0"))
                self._core.send_text(member.serial, text, now)
                self._put(member, MemberState.ASKED, now)
                return
            update = self._core.order(member.serial, image, now, **how)
        except BusyError as error:
            self._busy[member.rollout_id, member.serial] = now + BUSY_INTERVAL_S
            if member.text != str(error):
                self._put(member, MemberState.WAITING, now, text=str(error))
        except ConflictError as error:
            self._put(member, MemberState.SKIPPED, now, text=str(error))
        else:
            self._ordered.append(update)
            self._put(member, MemberState.ORDERED, now, text=update.text, update_id=update.id)

    def _take_back(self, rollout: Rollout, now: float) -> bool:
        """Cancel what can be cancelled; gives whether there may be more of it."""
        ordered = self._rollouts.members(rollout.id, states=(MemberState.ORDERED,))
        if not ordered and rollout.state.ended:
            self._rollouts.save(replace(rollout, settled=True))
            return False
        by_update = {member.update_id: member for member in ordered}
        taken = 0
        for update_id, member in by_update.items():
            if taken == ORDERS_AT_ONCE:
                break
            if update_id is not None and self._core.try_to_cancel(update_id, now):
                taken += 1
                self._put(member, MemberState.WAITING, now, text="taken back")
        return taken > 0
