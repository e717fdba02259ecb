"""What the HTTP API says of records, as JSON has it. Times are ISO 8601, UTC; digests are hex.

The classes are the types of the API's description (``description``).
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypedDict

from unbrick.server.records.analysis import RangeKind
from unbrick.server.records.sessions import StepKind, StepState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from unbrick.server.core.admission import WaitingTerminal
    from unbrick.server.records.analysis import Analysis, Installation, Preparation
    from unbrick.server.records.contract import Records
    from unbrick.server.records.people import AuditEntry
    from unbrick.server.records.rollouts import GroupCount, Rollout, RolloutMember
    from unbrick.server.records.sessions import CommandedSession, PlannedStep
    from unbrick.server.records.updates import Event, Image, Terminal, TextMessage


MOST_LISTED = 1000
"""Items of a list in one answer."""


class ErrorShape(TypedDict):
    """What went wrong, and what to do."""

    error: str
    hint: str


class DecisionShape(TypedDict):
    """A decision whether a terminal should run other software."""

    time: str
    verdict: str
    needed: bool
    digest: str
    reason: str


class TerminalShape(TypedDict):
    """A terminal as it registered last."""

    serial: str
    hardware_id: str
    name: str
    version: str
    build_time: str
    digest: str
    state: str
    last_update_id: int
    last_result: int
    last_result_text: str
    security_counter: int
    endpoint: str
    first_seen: str
    last_seen: str


class WaitingShape(TypedDict):
    """A terminal that waits for approval, as it said."""

    serial: str
    hardware_id: str
    name: str
    version: str
    endpoint: str
    first: str
    last: str
    times: int


class ApprovedShape(TypedDict):
    """A terminal that may register."""

    serial: str


class ListedTerminal(TerminalShape):
    """A terminal with the last decision about it."""

    upgrade: DecisionShape | None


class InstallationShape(TypedDict):
    """What a terminal runs or ran."""

    name: str
    version: str
    build_time: str
    digest: str
    since: str
    until: str | None


class ImageShape(TypedDict):
    """A published image."""

    version: str
    hardware_id: str
    name: str
    build_time: str
    security_counter: int
    digest: str
    size: int
    published: str


class PublishedShape(ImageShape, total=False):
    """An image that was just published; what a person should know of it is in warnings."""

    warnings: list[str]


class EventShape(TypedDict):
    """Something that happened; ``state`` is the one that an update changed to, if it did."""

    id: int
    time: str
    serial: str
    update_id: int | None
    state: str | None
    text: str


class MessageShape(TypedDict):
    """A text message."""

    id: int
    serial: str
    text: str
    state: str
    created: str
    changed: str


class StepShape(TypedDict):
    """A step of a session; offset and length are in the NOR."""

    number: int
    kind: str
    offset: int
    length: int
    state: str
    tries: int
    result: int | None
    text: str
    changed: str


class BackupShape(TypedDict):
    """A backup of the user's data, sealed by the terminal."""

    size: int
    created: str


class SessionShape(TypedDict):
    """The session of a commanded update, and how far it is."""

    id: int
    update_id: int
    serial: str
    state: str
    ended: bool
    outcome: str | None
    text: str
    steps: int
    done: int
    repeats: int
    current: StepShape | None
    backup: BackupShape | None
    created: str
    changed: str


class PlannedSession(SessionShape):
    """A session with its plan."""

    plan: list[StepShape]


class UpdateShape(TypedDict):
    """An update; sizes are bytes of the file that is sent."""

    id: int
    serial: str
    version: str
    digest: str
    from_version: str
    state: str
    ended: bool
    restoration: bool
    commanded: bool
    result: int | None
    text: str
    sent: int
    size: int
    kind: str | None
    created: str
    changed: str


class UpdateHistory(UpdateShape):
    """An update with all that happened, and its session if it is commanded."""

    session: SessionShape | None
    events: list[EventShape]


class TerminalHistory(ListedTerminal):
    """A terminal with all that is known of it."""

    installations: list[InstallationShape]
    analyses: list[DecisionShape]
    updates: list[UpdateShape]
    messages: list[MessageShape]
    events: list[EventShape]


class RangeCount(TypedDict):
    """Ranges of the NOR, and how many bytes they have."""

    count: int
    bytes: int


class PreparationShape(TypedDict):
    """What is prepared for a pair of images, whose digests are in ``id``; sizes are bytes."""

    id: str
    hardware_id: str
    from_version: str
    version: str
    state: str
    text: str
    file_size: int | None
    full_size: int
    ranges: dict[str, RangeCount]
    changed: str


class RolloutGroupShape(TypedDict):
    """A group of a rollout: how many of its terminals are in which state.

    ``percent``: how many of all terminals have been asked when this group has.
    """

    group: int
    percent: int
    terminals: int
    waiting: int
    asked: int
    ordered: int
    succeeded: int
    failed: int
    skipped: int
    forgiven: int
    consented: int


class RolloutShape(TypedDict):
    """A rollout, and how far its groups are; ``group`` is the last one that has begun."""

    id: int
    name: str
    version: str
    hardware_id: str
    digest: str
    serials: str
    software: str
    runs: str
    way: str
    downgrade: bool
    consent: bool
    success: int
    error: int
    not_before: str | None
    state: str
    group: int
    text: str
    ended: bool
    terminals: int
    groups: list[RolloutGroupShape]
    created: str
    created_by: str
    approved_by: str
    changed: str


class DeedShape(TypedDict):
    """Something that was done with a rollout, and who did it."""

    time: str
    who: str
    what: str
    text: str


class MemberShape(TypedDict):
    """A terminal of a rollout."""

    serial: str
    group: int
    state: str
    update_id: int | None
    text: str
    changed: str
    consented: bool


class RolloutHistory(RolloutShape):
    """A rollout with what was done with it, and the first of those terminals that failed."""

    history: list[DeedShape]
    failures: list[MemberShape]


class HealthShape(TypedDict):
    """The server answers, and its database does."""

    status: str


class NothingShape(TypedDict):
    """There is nothing to be said."""


def format_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def describe_terminal(item: Terminal) -> TerminalShape:
    """A terminal as it registered last."""
    return {
        "serial": item.serial,
        "hardware_id": item.hardware_id,
        "name": item.name,
        "version": item.version,
        "build_time": item.build_time,
        "digest": item.digest.hex(),
        "state": item.state.name.lower(),
        "last_update_id": item.last_update_id,
        "last_result": int(item.last_result),
        "last_result_text": item.last_result.text,
        "security_counter": item.security_counter,
        "endpoint": item.endpoint,
        "first_seen": format_time(item.first_seen),
        "last_seen": format_time(item.last_seen),
    }


def describe_listed(item: Terminal, decision: Analysis | None) -> ListedTerminal:
    """A terminal with the last decision about it."""
    return {
        **describe_terminal(item),
        "upgrade": None if decision is None else describe_analysis(decision),
    }


def describe_waiting(item: WaitingTerminal) -> WaitingShape:
    """A terminal that waits for approval."""
    return {
        "serial": item.serial,
        "hardware_id": item.hardware_id,
        "name": item.name,
        "version": item.version,
        "endpoint": item.endpoint,
        "first": format_time(item.first),
        "last": format_time(item.last),
        "times": item.times,
    }


def describe_analysis(item: Analysis) -> DecisionShape:
    """A decision about a terminal."""
    return {
        "time": format_time(item.time),
        "verdict": item.verdict.value,
        "needed": item.needed,
        "digest": item.digest.hex(),
        "reason": item.reason,
    }


def describe_installation(item: Installation) -> InstallationShape:
    """What a terminal runs or ran."""
    return {
        "name": item.name,
        "version": item.version,
        "build_time": item.build_time,
        "digest": item.digest.hex(),
        "since": format_time(item.since),
        "until": None if item.until is None else format_time(item.until),
    }


def describe_image(item: Image) -> ImageShape:
    """A published image."""
    return {
        "version": item.version,
        "hardware_id": item.hardware_id,
        "name": item.name,
        "build_time": item.build_time,
        "security_counter": item.security_counter,
        "digest": item.digest.hex(),
        "size": item.size,
        "published": format_time(item.published),
    }


def describe_preparations(items: Sequence[Preparation], records: Records) -> list[PreparationShape]:
    """What is prepared for pairs of images, ``contract.AT_ONCE`` of them at most."""
    digests = frozenset(digest for item in items for digest in (item.base, item.digest))
    images = {image.digest: image for image in records.images_among(digests)}
    ranges = records.sum_up_ranges(items)
    return [
        _describe_preparation(
            item,
            images.get(item.base),
            images.get(item.digest),
            {kind: ranges.get((item.base, item.digest, kind), (0, 0)) for kind in RangeKind},
        )
        for item in items
    ]


def _describe_preparation(
    item: Preparation,
    base: Image | None,
    image: Image | None,
    ranges: Mapping[RangeKind, tuple[int, int]],
) -> PreparationShape:
    return {
        "id": f"{item.base.hex()}-{item.digest.hex()}",
        "hardware_id": image.hardware_id if image else "",
        "from_version": base.version if base else "",
        "version": image.version if image else "",
        "state": item.state.value,
        "text": item.text,
        "file_size": item.file_size,
        "full_size": image.file_size if image else 0,
        "ranges": {
            kind.value: {"count": count, "bytes": size} for kind, (count, size) in ranges.items()
        },
        "changed": format_time(item.changed),
    }


def describe_event(item: Event) -> EventShape:
    """Something that happened."""
    return {
        "id": item.id,
        "time": format_time(item.time),
        "serial": item.serial,
        "update_id": item.update_id,
        "state": item.state.value if item.state else None,
        "text": item.text,
    }


def describe_message(item: TextMessage) -> MessageShape:
    """A text message."""
    return {
        "id": item.id,
        "serial": item.serial,
        "text": item.text,
        "state": item.state.value,
        "created": format_time(item.created),
        "changed": format_time(item.changed),
    }


def describe_step(item: PlannedStep) -> StepShape:
    """A step of a session."""
    return {
        "number": item.number,
        "kind": item.kind.value,
        "offset": item.offset,
        "length": item.length,
        "state": item.state.value,
        "tries": item.tries,
        "result": item.result,
        "text": item.text,
        "changed": format_time(item.changed),
    }


def describe_session(item: CommandedSession, records: Records) -> SessionShape:
    """A session: how far it is. Of a backup no contents."""
    steps = records.steps(item.id)
    current = next((found for found in steps if not found.state.over), None)
    backup = next((b for b in records.backups(item.serial) if b.session_id == item.id), None)
    return {
        "id": item.id,
        "update_id": item.update_id,
        "serial": item.serial,
        "state": item.state.value,
        "ended": item.state.ended,
        "outcome": item.outcome.value if item.outcome else None,
        "text": item.text,
        "steps": len(steps),
        "done": sum(found.state is StepState.DONE for found in steps),
        "repeats": sum(found.tries for found in steps if found.kind is not StepKind.PREPARE),
        "current": None if current is None or item.state.ended else describe_step(current),
        "backup": None
        if backup is None
        else {"size": backup.size, "created": format_time(backup.created)},
        "created": format_time(item.created),
        "changed": format_time(item.changed),
    }


def describe_plan(item: CommandedSession, records: Records) -> PlannedSession:
    """A session with every step."""
    plan = [describe_step(found) for found in records.steps(item.id)]
    return {**describe_session(item, records), "plan": plan}


def describe_rollout(item: Rollout, counts: Sequence[GroupCount]) -> RolloutShape:
    """A rollout with the counts of its groups."""
    groups: list[RolloutGroupShape] = [
        {
            "group": number,
            "percent": percent,
            "terminals": count.total,
            "waiting": count.waiting,
            "asked": count.asked,
            "ordered": count.ordered,
            "succeeded": count.succeeded,
            "failed": count.failed,
            "skipped": count.skipped,
            "forgiven": count.forgiven,
            "consented": count.consented,
        }
        for number, (percent, count) in enumerate(zip(item.percents, counts, strict=True), 1)
    ]
    return {
        "id": item.id,
        "name": item.name,
        "version": item.version,
        "hardware_id": item.hardware_id,
        "digest": item.digest.hex(),
        "serials": item.serials,
        "software": item.software,
        "runs": item.runs,
        "way": "commanded" if item.commanded else "staged",
        "downgrade": item.downgrade,
        "consent": item.consent,
        "success": item.success,
        "error": item.error,
        "not_before": None if item.not_before is None else format_time(item.not_before),
        "state": item.state.value,
        "group": item.group,
        "text": item.text,
        "ended": item.state.ended,
        "terminals": sum(count.total for count in counts),
        "groups": groups,
        "created": format_time(item.created),
        "created_by": item.created_by,
        "approved_by": item.approved_by,
        "changed": format_time(item.changed),
    }


def describe_deed(item: AuditEntry) -> DeedShape:
    """Something that was done with a rollout."""
    what = item.action.value.removeprefix("rollout ")
    return {"time": format_time(item.time), "who": item.actor, "what": what, "text": item.text}


def describe_member(item: RolloutMember) -> MemberShape:
    """A terminal of a rollout."""
    return {
        "serial": item.serial,
        "group": item.group,
        "state": item.state.value,
        "update_id": item.update_id,
        "text": item.text,
        "changed": format_time(item.changed),
        "consented": item.consented,
    }
