"""``UserRecords`` in a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from sqlalchemy import Select, Update, bindparam, func, select, update

from unbrick.server.database.models import (
    AnalysisRow,
    AuditRow,
    BackupRow,
    CallRow,
    InstallationRow,
    OwnershipRow,
    PreparationRow,
    RangeRow,
    SayingRow,
    SessionRow,
    SoftwareRow,
    StepRow,
    SubscriberRow,
    TerminalCallRow,
    table,
)
from unbrick.server.database.rows import Rows
from unbrick.server.records.analysis import (
    Analysis,
    Installation,
    Preparation,
    PreparationState,
    Range,
    RangeKind,
)
from unbrick.server.records.calls import Call, LineState, Saying, TerminalCall
from unbrick.server.records.people import Actor, AuditAction, AuditEntry, Subscriber
from unbrick.server.records.sessions import Backup, Session, SessionState, Step, StepState

_SOFTWARE = ("digest", "hardware_id", "name", "version", "build_time")


@cache
def _installations() -> Select[Any]:
    rows, software = table(InstallationRow), table(SoftwareRow)
    columns = [rows.c[name] for name in ("id", "serial", "since", "until")]
    return (
        select(*columns, *(software.c[name] for name in _SOFTWARE))
        .join_from(rows, software, rows.c.software_id == software.c.id)
        .where(rows.c.serial == bindparam("of"))
        .order_by(rows.c.id)
    )


@cache
def _software() -> Select[Any]:
    rows = table(SoftwareRow)
    return select(rows.c.id).where(*(rows.c[name] == bindparam(name) for name in _SOFTWARE))


@cache
def _ending() -> Update:
    rows = table(InstallationRow)
    now = update(rows).where(rows.c.serial == bindparam("of"), rows.c.until.is_(None))
    return now.values(until=bindparam("at"))


class SqlUserRecords(Rows):
    """The user database."""

    def subscriber(self, subscriber_id: int) -> Subscriber | None:
        """See ``UserRecords``."""
        return self._first(Subscriber, SubscriberRow, id=subscriber_id)

    def subscribers(self) -> list[Subscriber]:
        """See ``UserRecords``."""
        return self._find(Subscriber, SubscriberRow)

    def add_subscriber(self, subscriber: Subscriber, actor: Actor) -> Subscriber:
        """See ``UserRecords``."""
        with self._together():
            self._check_phone(subscriber)
            kept = replace(subscriber, id=self._add(SubscriberRow, dict(vars(subscriber))))
            self._note(AuditAction.SUBSCRIBER_ADDED, "", kept.id, actor)
        return kept

    def save_subscriber(self, subscriber: Subscriber, actor: Actor) -> None:
        """See ``UserRecords``."""
        with self._together():
            self._check_phone(subscriber)
            if self._save(SubscriberRow, dict(vars(subscriber))):
                self._note(AuditAction.SUBSCRIBER_CHANGED, "", subscriber.id, actor)

    def _check_phone(self, subscriber: Subscriber) -> None:
        other = self._first(Subscriber, SubscriberRow, phone=subscriber.phone)
        if other is not None and other.id != subscriber.id:
            raise KeyError(subscriber.phone)

    def delete_subscriber(self, subscriber_id: int, actor: Actor) -> None:
        """See ``UserRecords``."""
        with self._together():
            for serial in self.owned(subscriber_id):
                self.assign(serial, None, actor)
            if self._remove_for_good(SubscriberRow, id=subscriber_id):
                self._note(AuditAction.SUBSCRIBER_DELETED, "", subscriber_id, actor)

    def owner(self, serial: str) -> Subscriber | None:
        """See ``UserRecords``."""
        owners = table(OwnershipRow)
        query = select(owners.c.subscriber_id).where(owners.c.serial == serial)
        with self._use() as connection:
            subscriber_id = connection.execute(query).scalar()
        return None if subscriber_id is None else self.subscriber(subscriber_id)

    def owners(self) -> dict[str, Subscriber]:
        """See ``UserRecords``."""
        owners = table(OwnershipRow)
        with self._use() as connection:
            rows = connection.execute(select(owners.c.serial, owners.c.subscriber_id)).all()
        known = {subscriber.id: subscriber for subscriber in self.subscribers()}
        return {serial: known[owner] for serial, owner in rows if owner in known}

    def owned(self, subscriber_id: int) -> list[str]:
        """See ``UserRecords``."""
        owners = table(OwnershipRow)
        query = select(owners.c.serial).where(owners.c.subscriber_id == subscriber_id)
        with self._use() as connection:
            return sorted(connection.execute(query).scalars())

    def assign(self, serial: str, subscriber_id: int | None, actor: Actor) -> None:
        """See ``UserRecords``."""
        with self._together():
            before = self.owner(serial)
            if (before.id if before else None) == subscriber_id:
                return
            if before is not None:
                self._remove(OwnershipRow, serial=serial)
                self._note(AuditAction.TERMINAL_RELEASED, serial, before.id, actor)
            if subscriber_id is not None:
                self._add(OwnershipRow, {"serial": serial, "subscriber_id": subscriber_id})
                self._note(AuditAction.TERMINAL_ASSIGNED, serial, subscriber_id, actor)

    def installations(self, serial: str) -> list[Installation]:
        """See ``UserRecords``."""
        with self._use() as connection:
            found = connection.execute(_installations(), {"of": serial})
            return [Installation(**row._mapping) for row in found]

    def add_installation(self, installation: Installation) -> Installation:
        """See ``UserRecords``."""
        named = {name: getattr(installation, name) for name in _SOFTWARE}
        with self._together():
            values = {name: getattr(installation, name) for name in ("serial", "since", "until")}
            values["software_id"] = self._known(
                "software", tuple(named.values()), lambda: self._software(named)
            )
            return replace(installation, id=self._add(InstallationRow, values))

    def _software(self, named: dict[str, Any]) -> int:
        with self._use() as connection:
            found: int | None = connection.execute(_software(), named).scalar()
        return self._add(SoftwareRow, dict(named)) if found is None else found

    def end_installation(self, serial: str, until: float) -> None:
        """See ``UserRecords``."""
        with self._writing(InstallationRow) as connection:
            connection.execute(_ending(), {"of": serial, "at": until})

    def analysis(self, serial: str) -> Analysis | None:
        """See ``UserRecords``."""
        return self._known(Analysis, serial, lambda: self._last_analysis(serial))

    def _last_analysis(self, serial: str) -> Analysis | None:
        return next(iter(self._page(Analysis, AnalysisRow, 1, None, serial=serial)), None)

    def analyses(self, serial: str) -> list[Analysis]:
        """See ``UserRecords``."""
        return self._find(Analysis, AnalysisRow, serial=serial)

    def decisions(self) -> dict[str, Analysis]:
        """See ``UserRecords``."""
        rows = table(AnalysisRow)
        last = select(func.max(rows.c.id)).group_by(rows.c.serial)
        with self._use() as connection:
            found = connection.execute(select(rows).where(rows.c.id.in_(last)))
            return {row.serial: Analysis(**row._mapping) for row in found}

    def add_analysis(self, analysis: Analysis) -> Analysis:
        """See ``UserRecords``."""
        kept = replace(analysis, id=self._add(AnalysisRow, dict(vars(analysis))))
        self._remember(Analysis, kept.serial, kept)
        return kept

    def preparation(self, base: bytes, digest: bytes) -> Preparation | None:
        """See ``UserRecords``."""
        return self._first(Preparation, PreparationRow, base=base, digest=digest)

    def preparations(self, state: PreparationState | None = None) -> list[Preparation]:
        """See ``UserRecords``."""
        found = self._find(Preparation, PreparationRow, state=state)
        return sorted(found, key=lambda item: (item.created, item.base, item.digest))

    def save_preparation(self, preparation: Preparation) -> None:
        """See ``UserRecords``."""
        self._put(PreparationRow, dict(vars(preparation)))

    def ranges(self, base: bytes, digest: bytes, kind: RangeKind | None = None) -> list[Range]:
        """See ``UserRecords``."""
        return self._find(Range, RangeRow, base=base, digest=digest, kind=kind)

    def set_ranges(self, base: bytes, digest: bytes, ranges: Sequence[Range]) -> None:
        """See ``UserRecords``."""
        with self._together():
            self._remove(RangeRow, base=base, digest=digest)
            self._add_all(RangeRow, [{"base": base, "digest": digest, **vars(r)} for r in ranges])

    def calls(
        self, serial: str | None = None, *, newest: int | None = None, before: int | None = None
    ) -> list[Call]:
        """See ``UserRecords``."""
        return self._page(Call, CallRow, newest, before, serial=serial)

    def call(self, call_id: int) -> Call | None:
        """See ``UserRecords``."""
        return self._first(Call, CallRow, id=call_id)

    def open_calls(self) -> list[Call]:
        """See ``UserRecords``."""
        rows = table(CallRow)
        query = select(rows).where(rows.c.ended.is_(None)).order_by(rows.c.id)
        with self._use() as connection:
            return [Call(**row._mapping) for row in connection.execute(query)]

    def add_call(self, call: Call) -> Call:
        """See ``UserRecords``."""
        return replace(call, id=self._add(CallRow, dict(vars(call))))

    def save_call(self, call: Call) -> None:
        """See ``UserRecords``."""
        self._save(CallRow, dict(vars(call)))

    def terminal_call(self, call_id: int) -> TerminalCall | None:
        """See ``UserRecords``."""
        return self._first(TerminalCall, TerminalCallRow, call_id=call_id)

    def terminal_calls(self) -> list[TerminalCall]:
        """See ``UserRecords``."""
        going = [state for state in LineState if state is not LineState.OVER]
        return self._find(TerminalCall, TerminalCallRow, state=going)

    def add_terminal_call(self, call: TerminalCall) -> None:
        """See ``UserRecords``."""
        self._add(TerminalCallRow, dict(vars(call)))

    def save_terminal_call(self, call: TerminalCall) -> None:
        """See ``UserRecords``."""
        with self._together():
            self._save(TerminalCallRow, dict(vars(call)))
            if call.state is LineState.OVER:
                self._remove(SayingRow, call_id=call.call_id)

    def sayings(self, call_id: int) -> list[Saying]:
        """See ``UserRecords``."""
        return self._find(Saying, SayingRow, call_id=call_id)

    def save_saying(self, saying: Saying) -> None:
        """See ``UserRecords``."""
        self._put(SayingRow, dict(vars(saying)))

    def session(self, session_id: int) -> Session | None:
        """See ``UserRecords``."""
        return self._first(Session, SessionRow, id=session_id)

    def sessions(self, serial: str | None = None) -> list[Session]:
        """See ``UserRecords``."""
        return self._find(Session, SessionRow, serial=serial)

    def unfinished_sessions(self, serial: str | None = None) -> list[Session]:
        """See ``UserRecords``."""
        going = [state for state in SessionState if not state.ended]
        read = partial(self._find, Session, SessionRow, state=going, serial=serial)
        if serial is None:
            return read()
        return list(self._known("unfinished sessions", serial, read) or ())

    def add_session(self, session: Session, steps: Sequence[Step]) -> Session:
        """See ``UserRecords``."""
        self._forget("unfinished sessions", session.serial)
        with self._together():
            kept = replace(session, id=self._add(SessionRow, dict(vars(session))))
            self._add_all(StepRow, [{**vars(step), "session_id": kept.id} for step in steps])
        return kept

    def save_session(self, session: Session) -> None:
        """See ``UserRecords``."""
        with self._together():
            going = self.unfinished_sessions(session.serial)
            if [other.id for other in going] == [session.id]:
                self._save_later(SessionRow, dict(vars(session)))
                left = [] if session.state.ended else [session]
                self._remember("unfinished sessions", session.serial, left)
            else:
                self._save(SessionRow, dict(vars(session)))
                self._forget("unfinished sessions", session.serial)

    def steps(self, session_id: int) -> list[Step]:
        """See ``UserRecords``."""
        return self._find(Step, StepRow, session_id=session_id)

    def next_step(self, session_id: int) -> Step | None:
        """See ``UserRecords``."""
        going = [state for state in StepState if not state.over]
        read = partial(self._first, Step, StepRow, session_id=session_id, state=going)
        return self._known("next step", session_id, read)

    def save_step(self, step: Step) -> None:
        """See ``UserRecords``."""
        with self._together():
            following = self._memory.get(("next step", step.session_id))
            self._save_later(StepRow, dict(vars(step)))
            if following is not None and following.number == step.number and not step.state.over:
                self._remember("next step", step.session_id, step)
            else:
                self._forget("next step", step.session_id)

    def backups(self, serial: str | None = None) -> list[Backup]:
        """See ``UserRecords``."""
        return self._find(Backup, BackupRow, serial=serial)

    def add_backup(self, backup: Backup, data: bytes, actor: Actor) -> Backup:
        """See ``UserRecords``."""
        with self._together():
            if self._first(Backup, BackupRow, session_id=backup.session_id) is not None:
                raise KeyError(backup.session_id)
            kept = replace(backup, id=self._add(BackupRow, {**vars(backup), "data": data}))
            self._note(AuditAction.BACKUP_KEPT, kept.serial, kept.id, actor)
        return kept

    def read_backup(self, backup_id: int, actor: Actor) -> bytes:
        """See ``UserRecords``."""
        with self._together():
            backup = self._first(Backup, BackupRow, id=backup_id)
            data = self._data(BackupRow, id=backup_id)
            if backup is None or data is None:
                raise KeyError(backup_id)
            self._note(AuditAction.BACKUP_READ, backup.serial, backup_id, actor)
        return data

    def delete_backup(self, backup_id: int, actor: Actor) -> None:
        """See ``UserRecords``."""
        with self._together():
            backup = self._first(Backup, BackupRow, id=backup_id)
            if backup is not None:
                self._remove_for_good(BackupRow, id=backup_id)
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
        return self._page(AuditEntry, AuditRow, newest, before, serial=serial, subject=subject)

    def _note(self, action: AuditAction, serial: str, subject: int, actor: Actor) -> None:
        entry = AuditEntry(0, actor.now, actor.name, action, serial, subject, actor.why)
        self._add(AuditRow, dict(vars(entry)))
