"""The server's half of a state: what it remembers, as it can be taken, put back and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from unbrick.reference.canonical import Plan, make_plan
from unbrick.reference.layout import find_places
from unbrick.server.records.memory import Contents, MemoryRecords
from unbrick.server.records.people import AuditEntry
from unbrick.server.records.sessions import Backup, CommandedSession, PlannedStep, StepKind
from unbrick.server.records.updates import Event, File, Terminal, TextMessage, Update
from unbrick.wire.messages import TerminalState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


FOR_PEOPLE: Mapping[str, frozenset[str]] = {
    "Terminal": frozenset(("first_seen", "last_seen")),
    "Update": frozenset(("created", "changed", "text")),
    "TextMessage": frozenset(("created", "changed")),
    "CommandedSession": frozenset(("created", "changed", "text")),
    "PlannedStep": frozenset(("changed", "text")),
    "Backup": frozenset(("created",)),
}
"""Fields that the server keeps and by which it decides nothing, by the kind of record.

When it last heard of a terminal it does ask; at the start of a session that is over
(:meth:`ServerMemory.put_back`).
"""

_MAKES_NO_DIFFERENCE = frozenset(("id", "session_id", "created", "changed", "text", "command"))
"""Fields of sessions, steps and backups that only name, count up, or are for people."""


@dataclass(frozen=True)
class ServerState:
    """What the server remembers, without the images and what follows from them, and without the
    log of events and the audit, by which it decides nothing.

    ``contents`` are the sealed bytes of the backups, by id; ``counts``: ids given so far.
    """

    terminals: tuple[Terminal, ...]
    updates: tuple[Update, ...]
    messages: tuple[TextMessage, ...]
    sessions: tuple[CommandedSession, ...] = ()
    steps: tuple[PlannedStep, ...] = ()
    backups: tuple[Backup, ...] = ()
    contents: tuple[tuple[int, bytes], ...] = ()
    counts: tuple[tuple[str, int], ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Without what follows from the rest."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def form(self, *, steps: bool = True) -> tuple[object, ...]:
        """The part that can make a difference.

        It has no times, no words for people, and no numbers that only count up. Of a session that
        has ended it has only the end. It leaves out the software of a terminal that is commanded:
        nothing is decided by that before an application runs again, or restoration does.

        Args:
            steps: whether it counts how far the steps are.
        """
        terminals = [
            (
                t.serial,
                t.state is not TerminalState.COMMANDED and t.digest,
                t.state,
                t.last_update_id,
                t.last_result,
                t.security_counter,
                t.confirmed,
            )
            for t in self.terminals
        ]
        updates = [
            (
                u.id,
                u.version,
                u.state,
                u.result,
                u.restoration,
                u.commanded,
                u.kind,
                u.kind and u.from_digest,
            )
            for u in self.updates
        ]
        going = {session.id for session in self.sessions if not session.state.ended}
        sessions = [
            _what_counts(session) if session.id in going else (session.update_id, session.state)
            for session in self.sessions
        ]
        going_steps = [
            _what_counts(step) for step in self.steps if steps and step.session_id in going
        ]
        backups = [_what_counts(backup) for backup in self.backups]
        return (terminals, updates, self.messages, sessions, going_steps, backups)

    @cached_property
    def as_at_start(self) -> ServerState:
        """The same as a session begins: its clock is at 0, and terminals were heard before."""
        heard = tuple(replace(terminal, last_seen=0.0) for terminal in self.terminals)
        return replace(self, terminals=heard)

    @cached_property
    def canonical(self) -> str:
        """The form as a digest: states of the server with the same one count as one."""
        return hashlib.sha256(repr(self.form()).encode()).hexdigest()

    @cached_property
    def whole(self) -> str:
        """All of it as a digest, but for what only people look at."""
        kept = [[_list_kept(item) for item in getattr(self, part)] for part in PARTS]
        return hashlib.sha256(repr((kept, self.contents, self.counts)).encode()).hexdigest()

    @cached_property
    def canonical_without_steps(self) -> str:
        """The same without how far the steps are."""
        return hashlib.sha256(repr(self.form(steps=False)).encode()).hexdigest()

    @property
    def stage(self) -> str:
        """The state of the newest update, and the kind of the step that it is at, if it has any."""
        if not self.updates:
            return ""
        update = self.updates[-1]
        going = {session.id for session in self.sessions if not session.state.ended}
        steps = (s for s in self.steps if s.session_id in going and not s.state.over)
        step = next(steps, None)
        return f"{update.state.value} {step.kind.value if step else ''}"

    @cached_property
    def _ranges(self) -> tuple[bytes, tuple[tuple[int, int, bool], ...], frozenset[int]] | None:
        for session in self.sessions:
            if not session.state.ended:
                steps = [step for step in self.steps if step.session_id == session.id]
                application = find_places().application
                writes = tuple(
                    (step.offset, step.length, step.state.over)
                    for step in steps
                    if step.kind is StepKind.WRITE
                )
                to_erase = frozenset(
                    offset
                    for step in steps
                    if step.kind is StepKind.ERASE and not step.state.over
                    for offset in range(step.offset, step.offset + step.length, find_places().block)
                    if application.offset <= offset < application.end
                )
                return session.digest, writes, to_erase
        return None

    @cached_property
    def _plans(self) -> dict[bytes, Plan]:
        """What was made for some image: each cut asks."""
        return {}

    def plan(self, images: Mapping[bytes, bytes]) -> Plan | None:
        """What the commanded update that is under way makes of the application, if there is one.

        Args:
            images: by digest.

        Raises:
            KeyError: the image that it makes is not among them.
        """
        if self._ranges is None:
            return None
        digest, writes, to_erase = self._ranges
        image = images[digest]
        if image not in self._plans:
            self._plans[image] = make_plan(image, writes, to_erase)
        return self._plans[image]


def _list_kept(item: Any) -> list[Any]:
    """The values of a record's fields, without those that are for people."""
    left_out = FOR_PEOPLE[type(item).__name__]
    return [getattr(item, field.name) for field in fields(item) if field.name not in left_out]


def _what_counts(item: CommandedSession | PlannedStep | Backup) -> tuple[Any, ...]:
    return tuple(_GETTERS[type(item)](item))


_ENUMERATED: dict[type[Any], tuple[str, ...]] = {PlannedStep: ("kind", "state")}
"""Fields that count as their values, for there are many of them: writing these is quick."""

_GETTERS: dict[type[Any], Callable[[Any], Iterable[Any]]] = {
    kind: attrgetter(
        *(
            f"{field.name}._value_" if field.name in _ENUMERATED.get(kind, ()) else field.name
            for field in fields(kind)
            if field.name not in _MAKES_NO_DIFFERENCE
        )
    )
    for kind in (CommandedSession, PlannedStep, Backup)
}


PARTS: dict[str, type[Any]] = {
    "terminals": Terminal,
    "updates": Update,
    "messages": TextMessage,
    "sessions": CommandedSession,
    "steps": PlannedStep,
    "backups": Backup,
}
"""The kinds of records that a state has, by its fields."""

_LOGS = (Event, AuditEntry)
"""The kinds of records by which the server decides nothing."""


class ServerMemory(MemoryRecords):
    """The server's records, from which a state can be taken and put back."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: tuple[int, ServerState] | None = None

    def snapshot(self) -> ServerState:
        """What is remembered now; the same object as before if nothing was changed."""
        if self._taken is None or self._taken[0] != self.changes:
            self._taken = self.changes, self._take()
        return self._taken[1]

    def _take(self) -> ServerState:
        tables = self.tables.items()
        counts = ((kind.__name__, table.count) for kind, table in tables if kind not in _LOGS)
        return ServerState(
            **{name: self.tables[kind].take().records for name, kind in PARTS.items()},
            contents=self.tables[Backup].take().data,
            counts=tuple(counts),
        )

    def put_back(self, state: ServerState) -> None:
        """Remember what ``state`` says as a session begins; images and what follows stay."""
        state, counts = state.as_at_start, dict(state.counts)
        for kind, table in self.tables.items():
            table.count = counts.get(kind.__name__, 0)
        for kind in _LOGS:
            self.tables[kind].put_back(Contents())
        for name, kind in PARTS.items():
            data = state.contents if kind is Backup else ()
            count = self.tables[kind].count
            self.tables[kind].put_back(Contents(getattr(state, name), data, count))

    def spoil_file(self, digest: bytes, file: bytes) -> None:
        """Make another file of a published image."""
        self._files.remove(digest=digest)
        self._files.add(File(digest), file)

    def sealed(self, backup_id: int) -> bytes:
        """What a backup holds; the looking is not audited, for it is the judge who looks.

        Raises:
            KeyError: there is none.
        """
        data = self._backups.data(backup_id)
        if data is None:
            raise KeyError(backup_id)
        return data
