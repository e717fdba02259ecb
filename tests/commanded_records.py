"""A server that commands an update, by its records alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from unbrick.image.factory import derive_bench_key
from unbrick.reference.layout import find_places
from unbrick.reference.memory import ServerMemory
from unbrick.server.records.people import Actor
from unbrick.server.records.sessions import (
    Backup,
    CommandedSession,
    PlannedStep,
    SessionState,
    StepKind,
    StepState,
)
from unbrick.server.records.updates import Image, Update, UpdateState
from unbrick.wire.userdata import PhonebookEntry, seal_backup

BLOCK, APPLICATION = find_places().block, find_places().application.offset
SERIAL = "UB-000001"
KEY = derive_bench_key(SERIAL)
IMAGE = hashlib.shake_128(b"an image").digest(5000)
DIGEST = hashlib.sha256(IMAGE).digest()
WRITES = tuple((APPLICATION + at, min(896, len(IMAGE) - at)) for at in range(0, len(IMAGE), 896))


def session(**changes: Any) -> CommandedSession:
    made = CommandedSession(1, 1, SERIAL, b"b" * 32, DIGEST, SessionState.RUNNING, "", 1.0, 2.0)
    return replace(made, **changes)


def plan_steps(*states: StepState) -> list[PlannedStep]:
    """A whole plan; the first steps have ``states``, the others wait."""
    kinds: list[tuple[StepKind, int, int]] = [(StepKind.BACK_UP, 0, 0), (StepKind.PREPARE, 0, 0)]
    kinds += [(StepKind.ERASE, APPLICATION, BLOCK)]
    kinds += [(StepKind.WRITE, *write) for write in WRITES]
    kinds += [(StepKind.CHECK, APPLICATION, len(IMAGE)), (StepKind.RESTART, 0, 0)]
    kinds += [(StepKind.GIVE_BACK, 0, 0), (StepKind.DELETE_BACKUP, 0, 0)]
    steps = [PlannedStep(1, number, *kind) for number, kind in enumerate(kinds)]
    for number, state in enumerate(states):
        steps[number] = replace(steps[number], state=state)
    return steps


DONE, SENT = StepState.DONE, StepState.SENT
ENTRIES = [PhonebookEntry(1, "Alice", "12345")]
SEALED = seal_backup(ENTRIES, KEY, SERIAL, 1)


def backup() -> Backup:
    return Backup(0, 1, SERIAL, len(SEALED), hashlib.sha256(SEALED).digest(), 3.0)


def records(*states: StepState, sealed: bytes | None = SEALED, **changes: Any) -> ServerMemory:
    """A server with a commanded update under way."""
    store = ServerMemory()
    image = Image(DIGEST, "1.1.0+0", "hw", "n", "t", 1, len(IMAGE), len(IMAGE), DIGEST, 0.0)
    store.add_image(image, IMAGE)
    update = Update(
        0, SERIAL, "1.1.0+0", DIGEST, "", b"", UpdateState.REWRITING, None, "", 1.0, 2.0
    )
    store.add_update(replace(update, commanded=True))
    store.add_session(session(**changes), plan_steps(*states))
    if sealed is not None:
        store.add_backup(backup(), sealed, Actor("server", 3.0))
    return store
