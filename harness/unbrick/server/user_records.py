"""The user database: who uses which terminal, what it runs, what is prepared for it, what was said.

The part of ``Records`` that the update itself can do without. Times are seconds since 1970 on a
real server, and seconds of the simulation in one; sizes and offsets are in bytes.

Whoever touches personal data (subscribers, backups) names himself: the store itself writes the
audit entry, in the same transaction, so that there is no way around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True)
class Subscriber:
    """Somebody who has a terminal; ``phone`` (E.164, as ``+441632960123``) is theirs alone."""

    id: int
    phone: str
    name: str
    created: float


@dataclass(frozen=True)
class Installation:
    """What a terminal runs or ran: from its first registration with it to the first without."""

    id: int
    serial: str
    hardware_id: str
    name: str
    version: str
    build_time: str
    digest: bytes
    since: float
    until: float | None


class Verdict(Enum):
    """What comparing a terminal's software with the latest says."""

    UPGRADE = "upgrade"
    CURRENT = "current"
    NEWER = "newer"
    NOTHING_PUBLISHED = "nothing published"
    NOT_TAKEN = "not taken"
    RESTORATION = "restoration"


@dataclass(frozen=True)
class Analysis:
    """A decision about a terminal, and why; ``digest`` is the latest image's, empty without one."""

    id: int
    serial: str
    time: float
    verdict: Verdict
    digest: bytes
    reason: str

    @property
    def needed(self) -> bool:
        """Whether an upgrade is needed."""
        return self.verdict is Verdict.UPGRADE


class RangeKind(Enum):
    """What a range of the NOR is for."""

    DIFFERENCE = "difference"
    ERASE = "erase"
    WRITE = "write"


@dataclass(frozen=True)
class Range:
    """A range of the NOR: ``offset`` counts from its start."""

    kind: RangeKind
    offset: int
    length: int


class PreparationState(Enum):
    """How far the work on a pair of images is."""

    QUEUED = "queued"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Preparation:
    """What turns image ``base`` into image ``digest``, calculated before anybody asks for it.

    ``tries`` counts the times that the work was begun; ``file_size`` is the size of the
    differential file, None when there is none.
    """

    base: bytes
    digest: bytes
    state: PreparationState
    tries: int
    file_size: int | None
    text: str
    created: float
    changed: float


@dataclass(frozen=True)
class Call:
    """A call to the customer center, while it lasts (``ended`` None) and afterwards.

    ``caller`` is ``terminal``, or the operator who made the call; ``keys`` are those pressed, in
    their order; ``outcome`` is the center's word for how it ended.
    """

    id: int
    serial: str
    caller: str
    keys: str
    outcome: str
    text: str
    started: float
    ended: float | None


class LineState(Enum):
    """How it is with the line between a terminal's user and the customer center.

    A line that is closing has lost one of the two; the last text waits until the terminal has it.
    """

    OPEN = "open"
    CLOSING = "closing"
    OVER = "over"


@dataclass(frozen=True)
class TerminalCall:
    """The terminal's end of call ``call_id``, which its user makes.

    Attributes:
        number: the terminal's own, which counts up from its last start.
        keys: those that came, in their order; the center may not have looked at all of them yet.
    """

    call_id: int
    serial: str
    number: int
    keys: str = ""
    state: LineState = LineState.OPEN


@dataclass(frozen=True)
class Saying:
    """Text ``count`` (from 0) of a call that a terminal's user hears; the call ends with ``final``.

    Attributes:
        heard: the terminal has it.
    """

    call_id: int
    count: int
    text: str
    final: bool
    heard: bool = False


class SessionState(Enum):
    """How far a commanded update is."""

    PLANNED = "planned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected to happen."""
        return self not in (SessionState.PLANNED, SessionState.RUNNING)


class StepKind(Enum):
    """What a step of a commanded update does."""

    PREPARE = "prepare"
    BACK_UP = "back up"
    ERASE = "erase"
    WRITE = "write"
    CHECK = "check"
    RESTART = "restart"
    GIVE_BACK = "give back"
    DELETE_BACKUP = "delete backup"


class StepState(Enum):
    """How far a step is. What was sent may have been carried out, whether an answer came or not."""

    WAITING = "waiting"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do."""
        return self in (StepState.DONE, StepState.SKIPPED)


@dataclass(frozen=True)
class Session:
    """A commanded update, step by step, of update ``update_id``.

    ``command`` is the number of the last command to the resident program; ``outcome`` says how the
    session ends once the user's data is back, None while that is open.
    """

    id: int
    update_id: int
    serial: str
    base: bytes
    digest: bytes
    state: SessionState
    text: str
    created: float
    changed: float
    command: int = 0
    outcome: SessionState | None = None


@dataclass(frozen=True)
class Step:
    """Step ``number`` (from 0) of a session; ``offset`` and ``length`` are of the NOR, if any."""

    session_id: int
    number: int
    kind: StepKind
    offset: int
    length: int
    state: StepState = StepState.WAITING
    tries: int = 0
    result: int | None = None
    text: str = ""
    changed: float = 0.0


@dataclass(frozen=True)
class Backup:
    """A terminal's personal data in the server's care: which, not what.

    What it holds is encrypted with a key that only the terminal has. ``checksum`` is its SHA-256.
    """

    id: int
    session_id: int
    serial: str
    size: int
    checksum: bytes
    created: float


class AuditAction(Enum):
    """What was done to personal data."""

    SUBSCRIBER_ADDED = "subscriber added"
    SUBSCRIBER_CHANGED = "subscriber changed"
    SUBSCRIBER_DELETED = "subscriber deleted"
    TERMINAL_ASSIGNED = "terminal assigned"
    TERMINAL_RELEASED = "terminal released"
    BACKUP_KEPT = "backup kept"
    BACKUP_READ = "backup read"
    BACKUP_DELETED = "backup deleted"


@dataclass(frozen=True)
class AuditEntry:
    """Somebody touched personal data. ``subject`` is an id; the data itself is never in here."""

    id: int
    time: float
    actor: str
    action: AuditAction
    serial: str
    subject: int
    text: str


@dataclass(frozen=True)
class Actor:
    """Who touches personal data, when, and why if that has to be said."""

    name: str
    now: float
    why: str = ""


class UserRecords(Protocol):
    """The user database. Ids count up and never come back; listings are in the order of making."""

    def subscriber(self, subscriber_id: int) -> Subscriber | None:
        """The subscriber with this id."""

    def subscribers(self) -> list[Subscriber]:
        """Every subscriber."""

    def add_subscriber(self, subscriber: Subscriber, actor: Actor) -> Subscriber:
        """Keep a new subscriber (the id is passed over); gives it back with its id.

        Raises:
            KeyError: another subscriber has that phone number.
        """

    def save_subscriber(self, subscriber: Subscriber, actor: Actor) -> None:
        """Keep what has changed of a subscriber.

        Raises:
            KeyError: another subscriber has that phone number.
        """

    def delete_subscriber(self, subscriber_id: int, actor: Actor) -> None:
        """Forget a subscriber; their terminals are nobody's."""

    def owner(self, serial: str) -> Subscriber | None:
        """The subscriber whose terminal this is."""

    def owners(self) -> dict[str, Subscriber]:
        """The subscriber of each terminal that has one, by serial."""

    def owned(self, subscriber_id: int) -> list[str]:
        """Serials of a subscriber's terminals, in their order."""

    def assign(self, serial: str, subscriber_id: int | None, actor: Actor) -> None:
        """Make a terminal a subscriber's, or nobody's; it need not have registered yet."""

    def installations(self, serial: str) -> list[Installation]:
        """What a terminal has run, oldest first; ``until`` of the last is None if it runs now."""

    def add_installation(self, installation: Installation) -> Installation:
        """Keep what a terminal runs now (the id is passed over); gives it back with its id."""

    def end_installation(self, serial: str, until: float) -> None:
        """What the terminal ran, it does not run any more; nothing if it ran nothing."""

    def analysis(self, serial: str) -> Analysis | None:
        """The last decision about a terminal."""

    def analyses(self, serial: str) -> list[Analysis]:
        """Every decision about a terminal."""

    def decisions(self) -> dict[str, Analysis]:
        """The last decision about every terminal, by serial."""

    def add_analysis(self, analysis: Analysis) -> Analysis:
        """Keep a decision (the id is passed over); gives it back with its id."""

    def preparation(self, base: bytes, digest: bytes) -> Preparation | None:
        """What is prepared for a pair of images."""

    def preparations(self, state: PreparationState | None = None) -> list[Preparation]:
        """Every preparation, or those in a state, oldest first."""

    def save_preparation(self, preparation: Preparation) -> None:
        """Keep a new preparation, or what has changed of one."""

    def ranges(self, base: bytes, digest: bytes, kind: RangeKind | None = None) -> list[Range]:
        """The ranges that were prepared for a pair of images, by offset within each kind."""

    def set_ranges(self, base: bytes, digest: bytes, ranges: Sequence[Range]) -> None:
        """Keep the ranges of a pair of images whose preparation is kept, in place of others."""

    def calls(
        self, serial: str | None = None, *, newest: int | None = None, before: int | None = None
    ) -> list[Call]:
        """Every call, or those of a terminal; only the ``newest``, or those with lower ids."""

    def call(self, call_id: int) -> Call | None:
        """The call with this id."""

    def open_calls(self) -> list[Call]:
        """Every call that has not ended."""

    def add_call(self, call: Call) -> Call:
        """Keep a new call (its id is passed over); gives it back with its id."""

    def save_call(self, call: Call) -> None:
        """Keep what has changed of a call."""

    def terminal_call(self, call_id: int) -> TerminalCall | None:
        """The terminal's end of a call, if a terminal makes it."""

    def terminal_calls(self) -> list[TerminalCall]:
        """The terminal's end of every call that is not over there."""

    def add_terminal_call(self, call: TerminalCall) -> None:
        """Keep the terminal's end of a new call."""

    def save_terminal_call(self, call: TerminalCall) -> None:
        """Keep what has changed; when it is over, what was to be said is forgotten."""

    def sayings(self, call_id: int) -> list[Saying]:
        """What is said to a terminal's user, in its order."""

    def save_saying(self, saying: Saying) -> None:
        """Keep a new text, or what has changed of one."""

    def session(self, session_id: int) -> Session | None:
        """The session with this id."""

    def sessions(self, serial: str | None = None) -> list[Session]:
        """Every session, or those of a terminal."""

    def unfinished_sessions(self, serial: str | None = None) -> list[Session]:
        """Every session that has not ended, or those of a terminal."""

    def add_session(self, session: Session, steps: Sequence[Step]) -> Session:
        """Keep a new session with its plan (ids are passed over); gives it back with its id."""

    def save_session(self, session: Session) -> None:
        """Keep what has changed of a session."""

    def steps(self, session_id: int) -> list[Step]:
        """The plan of a session, and how far each step is."""

    def next_step(self, session_id: int) -> Step | None:
        """The first step that is not over; None when all are."""

    def save_step(self, step: Step) -> None:
        """Keep what has changed of a step."""

    def backups(self, serial: str | None = None) -> list[Backup]:
        """Which backups there are, or those of a terminal."""

    def add_backup(self, backup: Backup, data: bytes, actor: Actor) -> Backup:
        """Keep a backup (its id is passed over); gives it back with its id.

        Raises:
            KeyError: that session has one.
        """

    def read_backup(self, backup_id: int, actor: Actor) -> bytes:
        """What a backup holds.

        Raises:
            KeyError: there is none.
        """

    def delete_backup(self, backup_id: int, actor: Actor) -> None:
        """Remove a backup for good; nothing if there is none."""

    def audit(
        self,
        *,
        serial: str | None = None,
        subject: int | None = None,
        newest: int | None = None,
        before: int | None = None,
    ) -> list[AuditEntry]:
        """What was done to personal data: all, of a terminal, or to a subject (of any kind).

        Only the ``newest`` entries, or those with ids lower than ``before``.
        """
