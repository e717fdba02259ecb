"""What can be kept and asked, whatever keeps it.

Whoever touches personal data (subscribers, backups) names himself: the store itself writes the
audit entry, in the same transaction, so that there is no way around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from unbrick.errors import ServerError
from unbrick.server.records.analysis import (
    Analysis,
    Installation,
    Preparation,
    PreparationState,
    Range,
    RangeKind,
)
from unbrick.server.records.calls import Call, Saying, TerminalCall
from unbrick.server.records.people import Actor, AuditEntry, Subscriber
from unbrick.server.records.sessions import Backup, Session, Step
from unbrick.server.records.updates import Event, Image, Terminal, TextMessage, Update


class UndoneError(ServerError):
    """A transaction of which a part could not be kept."""


def check_whole(*, undone: bool) -> None:
    """At the end of a transaction: ``undone`` says whether a part of it had raised.

    Raises:
        UndoneError: it had.
    """
    if undone:
        raise UndoneError(
            "a part of what belongs together could not be kept", hint="see the server's log"
        )


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


class Records(UserRecords, Protocol):
    """A store. Ids count up from 1 and never come back; listings are in the order of making."""

    def transaction(self) -> AbstractContextManager[None]:
        """All that is written inside is kept when the block ends, and nothing when it raises.

        One inside another is a part of it: it is kept when the outer one ends.

        Raises:
            UndoneError: a part had raised, and somebody in between took that for handled.
        """

    def terminal(self, serial: str) -> Terminal | None:
        """The terminal with this serial."""

    def terminals(self) -> list[Terminal]:
        """Every terminal, by serial."""

    def save_terminal(self, terminal: Terminal) -> None:
        """Keep a new terminal, or what has changed of one."""

    def image(self, digest: bytes) -> Image | None:
        """The image with this digest."""

    def images(self) -> list[Image]:
        """Every image, without the files."""

    def image_file(self, digest: bytes) -> bytes:
        """The file of a published image.

        Raises:
            KeyError: there is none.
        """

    def add_image(self, image: Image, file: bytes) -> None:
        """Keep a new image with its file."""

    def difference(self, base: bytes, digest: bytes) -> bytes | None:
        """The differential file that turns image ``base`` into image ``digest``, if one is kept."""

    def add_difference(self, base: bytes, digest: bytes, file: bytes) -> None:
        """Keep a differential file; one that is there already stays."""

    def update(self, update_id: int) -> Update | None:
        """The update with this id."""

    def updates(self, serial: str | None = None) -> list[Update]:
        """Every update, or every update of a terminal."""

    def unfinished_updates(self) -> list[Update]:
        """Every update that has not ended."""

    def add_update(self, update: Update) -> Update:
        """Keep a new update (its id is passed over); gives it back with its id."""

    def save_update(self, update: Update) -> None:
        """Keep what has changed of an update."""

    def events(
        self,
        *,
        serial: str | None = None,
        update_id: int | None = None,
        newest: int | None = None,
    ) -> list[Event]:
        """Every event, or those of a terminal or of an update; only the ``newest``."""

    def add_event(self, event: Event) -> None:
        """Keep a new event (its id is passed over)."""

    def messages(self, serial: str | None = None) -> list[TextMessage]:
        """Every text message, or those of a terminal."""

    def message(self, message_id: int) -> TextMessage | None:
        """The text message with this id."""

    def queued_messages(self) -> list[TextMessage]:
        """Every text message that has not been delivered."""

    def add_message(self, message: TextMessage) -> TextMessage:
        """Keep a new message (its id is passed over); gives it back with its id."""

    def save_message(self, message: TextMessage) -> None:
        """Keep what has changed of a message."""
