"""The records in memory, for simulations and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from unbrick.server.records.analysis import (
    Analysis,
    Installation,
    Preparation,
    PreparationState,
    Range,
    RangeKind,
)
from unbrick.server.records.calls import Call, LineState, Saying, TerminalCall
from unbrick.server.records.contract import check_whole
from unbrick.server.records.people import Actor, AuditAction, AuditEntry, Subscriber
from unbrick.server.records.sessions import Backup, Session, Step
from unbrick.server.records.updates import Event, Image, MessageState, Terminal, TextMessage, Update

_Pair = tuple[bytes, bytes]


T = TypeVar("T", Call, AuditEntry)


def _page(found: list[T], newest: int | None, before: int | None) -> list[T]:
    found = [item for item in found if before is None or item.id < before]
    return found if newest is None else found[max(0, len(found) - newest) :]


class MemoryUserRecords:
    """``UserRecords``. Every attribute is a table that can be copied, so that all can be undone."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._subscribers: dict[int, Subscriber] = {}
        self._owners: dict[str, int] = {}
        self._installations: dict[int, Installation] = {}
        self._analyses: dict[int, Analysis] = {}
        self._preparations: dict[_Pair, Preparation] = {}
        self._ranges: dict[_Pair, list[Range]] = {}
        self._calls: dict[int, Call] = {}
        self._terminal_calls: dict[int, TerminalCall] = {}
        self._sayings: dict[tuple[int, int], Saying] = {}
        self._sessions: dict[int, Session] = {}
        self._steps: dict[tuple[int, int], Step] = {}
        self._backups: dict[int, Backup] = {}
        self._contents: dict[int, bytes] = {}
        self._audit: list[AuditEntry] = []

    def _next(self, table: str) -> int:
        self._counts[table] = self._counts.get(table, 0) + 1
        return self._counts[table]

    def subscriber(self, subscriber_id: int) -> Subscriber | None:
        """See ``UserRecords``."""
        return self._subscribers.get(subscriber_id)

    def subscribers(self) -> list[Subscriber]:
        """See ``UserRecords``."""
        return list(self._subscribers.values())

    def add_subscriber(self, subscriber: Subscriber, actor: Actor) -> Subscriber:
        """See ``UserRecords``."""
        self._check_phone(subscriber)
        subscriber = replace(subscriber, id=self._next("subscribers"))
        self._subscribers[subscriber.id] = subscriber
        self._note(AuditAction.SUBSCRIBER_ADDED, "", subscriber.id, actor)
        return subscriber

    def save_subscriber(self, subscriber: Subscriber, actor: Actor) -> None:
        """See ``UserRecords``."""
        self._check_phone(subscriber)
        if subscriber.id in self._subscribers:
            self._subscribers[subscriber.id] = subscriber
            self._note(AuditAction.SUBSCRIBER_CHANGED, "", subscriber.id, actor)

    def _check_phone(self, subscriber: Subscriber) -> None:
        for other in self._subscribers.values():
            if other.phone == subscriber.phone and other.id != subscriber.id:
                raise KeyError(subscriber.phone)

    def delete_subscriber(self, subscriber_id: int, actor: Actor) -> None:
        """See ``UserRecords``."""
        for serial in self.owned(subscriber_id):
            self.assign(serial, None, actor)
        if self._subscribers.pop(subscriber_id, None) is not None:
            self._note(AuditAction.SUBSCRIBER_DELETED, "", subscriber_id, actor)

    def owner(self, serial: str) -> Subscriber | None:
        """See ``UserRecords``."""
        return self._subscribers.get(self._owners.get(serial, 0))

    def owners(self) -> dict[str, Subscriber]:
        """See ``UserRecords``."""
        return {serial: self._subscribers[owner] for serial, owner in self._owners.items()}

    def owned(self, subscriber_id: int) -> list[str]:
        """See ``UserRecords``."""
        return sorted(serial for serial, owner in self._owners.items() if owner == subscriber_id)

    def assign(self, serial: str, subscriber_id: int | None, actor: Actor) -> None:
        """See ``UserRecords``."""
        before = self._owners.get(serial)
        if before == subscriber_id:
            return
        if before is not None:
            del self._owners[serial]
            self._note(AuditAction.TERMINAL_RELEASED, serial, before, actor)
        if subscriber_id is not None:
            self._owners[serial] = subscriber_id
            self._note(AuditAction.TERMINAL_ASSIGNED, serial, subscriber_id, actor)

    def installations(self, serial: str) -> list[Installation]:
        """See ``UserRecords``."""
        return [item for item in self._installations.values() if item.serial == serial]

    def add_installation(self, installation: Installation) -> Installation:
        """See ``UserRecords``."""
        installation = replace(installation, id=self._next("installations"))
        self._installations[installation.id] = installation
        return installation

    def end_installation(self, serial: str, until: float) -> None:
        """See ``UserRecords``."""
        for item in self.installations(serial):
            if item.until is None:
                self._installations[item.id] = replace(item, until=until)

    def analysis(self, serial: str) -> Analysis | None:
        """See ``UserRecords``."""
        return next(reversed(self.analyses(serial)), None)

    def analyses(self, serial: str) -> list[Analysis]:
        """See ``UserRecords``."""
        return [item for item in self._analyses.values() if item.serial == serial]

    def decisions(self) -> dict[str, Analysis]:
        """See ``UserRecords``."""
        return {item.serial: item for item in self._analyses.values()}

    def add_analysis(self, analysis: Analysis) -> Analysis:
        """See ``UserRecords``."""
        analysis = replace(analysis, id=self._next("analyses"))
        self._analyses[analysis.id] = analysis
        return analysis

    def preparation(self, base: bytes, digest: bytes) -> Preparation | None:
        """See ``UserRecords``."""
        return self._preparations.get((base, digest))

    def preparations(self, state: PreparationState | None = None) -> list[Preparation]:
        """See ``UserRecords``."""
        found = [item for item in self._preparations.values() if state in (None, item.state)]
        return sorted(found, key=lambda item: (item.created, item.base, item.digest))

    def save_preparation(self, preparation: Preparation) -> None:
        """See ``UserRecords``."""
        self._preparations[preparation.base, preparation.digest] = preparation

    def ranges(self, base: bytes, digest: bytes, kind: RangeKind | None = None) -> list[Range]:
        """See ``UserRecords``."""
        found = self._ranges.get((base, digest), [])
        return [item for item in found if kind in (None, item.kind)]

    def set_ranges(self, base: bytes, digest: bytes, ranges: Sequence[Range]) -> None:
        """See ``UserRecords``."""
        in_order = sorted(ranges, key=lambda item: (item.kind.value, item.offset))
        self._ranges[base, digest] = in_order

    def calls(
        self, serial: str | None = None, *, newest: int | None = None, before: int | None = None
    ) -> list[Call]:
        """See ``UserRecords``."""
        found = [item for item in self._calls.values() if serial in (None, item.serial)]
        return _page(found, newest, before)

    def call(self, call_id: int) -> Call | None:
        """See ``UserRecords``."""
        return self._calls.get(call_id)

    def open_calls(self) -> list[Call]:
        """See ``UserRecords``."""
        return [item for item in self._calls.values() if item.ended is None]

    def add_call(self, call: Call) -> Call:
        """See ``UserRecords``."""
        call = replace(call, id=self._next("calls"))
        self._calls[call.id] = call
        return call

    def save_call(self, call: Call) -> None:
        """See ``UserRecords``."""
        if call.id in self._calls:
            self._calls[call.id] = call

    def terminal_call(self, call_id: int) -> TerminalCall | None:
        """See ``UserRecords``."""
        return self._terminal_calls.get(call_id)

    def terminal_calls(self) -> list[TerminalCall]:
        """See ``UserRecords``."""
        return [item for item in self._terminal_calls.values() if item.state is not LineState.OVER]

    def add_terminal_call(self, call: TerminalCall) -> None:
        """See ``UserRecords``."""
        self._terminal_calls[call.call_id] = call

    def save_terminal_call(self, call: TerminalCall) -> None:
        """See ``UserRecords``."""
        self._terminal_calls[call.call_id] = call
        if call.state is LineState.OVER:
            for saying in self.sayings(call.call_id):
                del self._sayings[saying.call_id, saying.count]

    def sayings(self, call_id: int) -> list[Saying]:
        """See ``UserRecords``."""
        return [item for item in self._sayings.values() if item.call_id == call_id]

    def save_saying(self, saying: Saying) -> None:
        """See ``UserRecords``."""
        self._sayings[saying.call_id, saying.count] = saying

    def session(self, session_id: int) -> Session | None:
        """See ``UserRecords``."""
        return self._sessions.get(session_id)

    def sessions(self, serial: str | None = None) -> list[Session]:
        """See ``UserRecords``."""
        return [item for item in self._sessions.values() if serial in (None, item.serial)]

    def unfinished_sessions(self, serial: str | None = None) -> list[Session]:
        """See ``UserRecords``."""
        return [item for item in self.sessions(serial) if not item.state.ended]

    def add_session(self, session: Session, steps: Sequence[Step]) -> Session:
        """See ``UserRecords``."""
        session = replace(session, id=self._next("sessions"))
        self._sessions[session.id] = session
        for step in steps:
            self._steps[session.id, step.number] = replace(step, session_id=session.id)
        return session

    def save_session(self, session: Session) -> None:
        """See ``UserRecords``."""
        if session.id in self._sessions:
            self._sessions[session.id] = session

    def steps(self, session_id: int) -> list[Step]:
        """See ``UserRecords``."""
        found = [step for step in self._steps.values() if step.session_id == session_id]
        return sorted(found, key=lambda step: step.number)

    def next_step(self, session_id: int) -> Step | None:
        """See ``UserRecords``."""
        going = [step for step in self.steps(session_id) if not step.state.over]
        return next(iter(going), None)

    def save_step(self, step: Step) -> None:
        """See ``UserRecords``."""
        if (step.session_id, step.number) in self._steps:
            self._steps[step.session_id, step.number] = step

    def backups(self, serial: str | None = None) -> list[Backup]:
        """See ``UserRecords``."""
        return [item for item in self._backups.values() if serial in (None, item.serial)]

    def add_backup(self, backup: Backup, data: bytes, actor: Actor) -> Backup:
        """See ``UserRecords``."""
        if any(item.session_id == backup.session_id for item in self._backups.values()):
            raise KeyError(backup.session_id)
        backup = replace(backup, id=self._next("backups"))
        self._backups[backup.id] = backup
        self._contents[backup.id] = data
        self._note(AuditAction.BACKUP_KEPT, backup.serial, backup.id, actor)
        return backup

    def read_backup(self, backup_id: int, actor: Actor) -> bytes:
        """See ``UserRecords``."""
        data = self._contents[backup_id]
        self._note(AuditAction.BACKUP_READ, self._backups[backup_id].serial, backup_id, actor)
        return data

    def delete_backup(self, backup_id: int, actor: Actor) -> None:
        """See ``UserRecords``."""
        backup = self._backups.pop(backup_id, None)
        if backup is not None:
            del self._contents[backup_id]
            self._note(AuditAction.BACKUP_DELETED, backup.serial, backup_id, actor)

    def audit(
        self,
        *,
        serial: str | None = None,
        subject: int | None = None,
        newest: int | None = None,
        before: int | None = None,
    ) -> list[AuditEntry]:
        """See ``UserRecords``."""
        found = [
            item
            for item in self._audit
            if serial in (None, item.serial) and subject in (None, item.subject)
        ]
        return _page(found, newest, before)

    def _note(self, action: AuditAction, serial: str, subject: int, actor: Actor) -> None:
        number = len(self._audit) + 1
        entry = AuditEntry(number, actor.now, actor.name, action, serial, subject, actor.why)
        self._audit.append(entry)


class MemoryRecords(MemoryUserRecords):
    """A store in memory, for simulations and tests."""

    def __init__(self) -> None:
        super().__init__()
        self._terminals: dict[str, Terminal] = {}
        self._images: dict[bytes, Image] = {}
        self._files: dict[bytes, bytes] = {}
        self._differences: dict[tuple[bytes, bytes], bytes] = {}
        self._updates: dict[int, Update] = {}
        self._events: dict[int, Event] = {}
        self._messages: dict[int, TextMessage] = {}
        self._undone: bool | None = None  # A part of the transaction that is under way, if one is.

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Records``."""
        if self._undone is not None:
            try:
                yield
            except BaseException:
                self._undone = True
                raise
            return
        tables = {name: table for name, table in vars(self).items() if name != "_undone"}
        before = {name: table.copy() for name, table in tables.items()}
        self._undone = False
        try:
            yield
            check_whole(undone=self._undone)
        except BaseException:
            vars(self).update(before)
            raise
        finally:
            self._undone = None

    def terminal(self, serial: str) -> Terminal | None:
        """See ``Records``."""
        return self._terminals.get(serial)

    def terminals(self) -> list[Terminal]:
        """See ``Records``."""
        return [self._terminals[serial] for serial in sorted(self._terminals)]

    def save_terminal(self, terminal: Terminal) -> None:
        """See ``Records``."""
        self._terminals[terminal.serial] = terminal

    def image(self, digest: bytes) -> Image | None:
        """See ``Records``."""
        return self._images.get(digest)

    def images(self) -> list[Image]:
        """See ``Records``."""
        return list(self._images.values())

    def image_file(self, digest: bytes) -> bytes:
        """See ``Records``."""
        return self._files[digest]

    def add_image(self, image: Image, file: bytes) -> None:
        """See ``Records``."""
        self._images[image.digest] = image
        self._files[image.digest] = file

    def difference(self, base: bytes, digest: bytes) -> bytes | None:
        """See ``Records``."""
        return self._differences.get((base, digest))

    def add_difference(self, base: bytes, digest: bytes, file: bytes) -> None:
        """See ``Records``."""
        self._differences.setdefault((base, digest), file)

    def update(self, update_id: int) -> Update | None:
        """See ``Records``."""
        return self._updates.get(update_id)

    def updates(self, serial: str | None = None) -> list[Update]:
        """See ``Records``."""
        return [item for item in self._updates.values() if serial in (None, item.serial)]

    def unfinished_updates(self) -> list[Update]:
        """See ``Records``."""
        return [item for item in self._updates.values() if not item.state.ended]

    def add_update(self, update: Update) -> Update:
        """See ``Records``."""
        update = replace(update, id=len(self._updates) + 1)
        self._updates[update.id] = update
        return update

    def save_update(self, update: Update) -> None:
        """See ``Records``."""
        self._updates[update.id] = update

    def events(
        self,
        *,
        serial: str | None = None,
        update_id: int | None = None,
        newest: int | None = None,
    ) -> list[Event]:
        """See ``Records``."""
        found = [
            item
            for item in self._events.values()
            if serial in (None, item.serial) and update_id in (None, item.update_id)
        ]
        return found if newest is None else found[max(0, len(found) - newest) :]

    def add_event(self, event: Event) -> None:
        """See ``Records``."""
        event = replace(event, id=len(self._events) + 1)
        self._events[event.id] = event

    def messages(self, serial: str | None = None) -> list[TextMessage]:
        """See ``Records``."""
        return [item for item in self._messages.values() if serial in (None, item.serial)]

    def message(self, message_id: int) -> TextMessage | None:
        """See ``Records``."""
        return self._messages.get(message_id)

    def queued_messages(self) -> list[TextMessage]:
        """See ``Records``."""
        return [item for item in self._messages.values() if item.state is MessageState.QUEUED]

    def add_message(self, message: TextMessage) -> TextMessage:
        """See ``Records``."""
        message = replace(message, id=len(self._messages) + 1)
        self._messages[message.id] = message
        return message

    def save_message(self, message: TextMessage) -> None:
        """See ``Records``."""
        self._messages[message.id] = message
