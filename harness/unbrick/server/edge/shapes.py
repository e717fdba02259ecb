"""What the HTTP API says of records, as JSON has it. Times are ISO 8601, UTC; digests are hex."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from unbrick.server.records.analysis import Analysis, Installation
from unbrick.server.records.contract import Records
from unbrick.server.records.sessions import CommandedSession, PlannedStep, StepKind, StepState
from unbrick.server.records.updates import Event, Image, Terminal, TextMessage


def format_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def describe_terminal(item: Terminal) -> dict[str, Any]:
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


def describe_listed(item: Terminal, decision: Analysis | None) -> dict[str, Any]:
    """A terminal with the last decision about it."""
    return {
        **describe_terminal(item),
        "upgrade": None if decision is None else describe_analysis(decision),
    }


def describe_analysis(item: Analysis) -> dict[str, Any]:
    """A decision about a terminal."""
    return {
        "time": format_time(item.time),
        "verdict": item.verdict.value,
        "needed": item.needed,
        "digest": item.digest.hex(),
        "reason": item.reason,
    }


def describe_installation(item: Installation) -> dict[str, Any]:
    """What a terminal runs or ran."""
    return {
        "name": item.name,
        "version": item.version,
        "build_time": item.build_time,
        "digest": item.digest.hex(),
        "since": format_time(item.since),
        "until": None if item.until is None else format_time(item.until),
    }


def describe_image(item: Image) -> dict[str, Any]:
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


def describe_event(item: Event) -> dict[str, Any]:
    """Something that happened."""
    return {
        "time": format_time(item.time),
        "serial": item.serial,
        "update_id": item.update_id,
        "state": item.state.value if item.state else None,
        "text": item.text,
    }


def describe_message(item: TextMessage) -> dict[str, Any]:
    """A text message."""
    return {
        "id": item.id,
        "serial": item.serial,
        "text": item.text,
        "state": item.state.value,
        "created": format_time(item.created),
        "changed": format_time(item.changed),
    }


def describe_step(item: PlannedStep) -> dict[str, Any]:
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


def describe_session(
    item: CommandedSession, records: Records, *, plan: bool = False
) -> dict[str, Any]:
    """A session: how far it is, and with ``plan`` every step. Of a backup no contents."""
    steps = records.steps(item.id)
    current = next((found for found in steps if not found.state.over), None)
    backup = next((b for b in records.backups(item.serial) if b.session_id == item.id), None)
    shape = {
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
        "backup": backup and {"size": backup.size, "created": format_time(backup.created)},
        "created": format_time(item.created),
        "changed": format_time(item.changed),
    }
    return {**shape, "plan": [describe_step(found) for found in steps]} if plan else shape
