"""What the software management server remembers, and the store that forgets when it ends.

Times are seconds since 1970 on a real server, and seconds of the simulation in one. Sizes are in
bytes. ``database.py`` has the store that lasts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from unbrick.errors import ServerError
from unbrick.server.user_memory import MemoryUserRecords
from unbrick.server.user_records import UserRecords
from unbrick.wire.messages import Kind, Result, TerminalState


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


class UpdateState(Enum):
    """How far an update is; the docstring of ``server.core`` has the order."""

    PENDING = "pending"
    ANNOUNCED = "announced"
    REFUSED = "refused"
    TRANSFERRING = "transferring"
    RECEIVED = "received"
    CHECKED = "checked"
    REWRITING = "rewriting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected to happen."""
        return self in _ENDED


_ENDED = frozenset(
    (UpdateState.REFUSED, UpdateState.SUCCEEDED, UpdateState.FAILED, UpdateState.CANCELLED)
)


class MessageState(Enum):
    """Where a text message is."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    REFUSED = "refused"


@dataclass(frozen=True)
class Terminal:
    """A terminal as it registered last; ``endpoint`` is where it can be reached.

    ``confirmed`` is the digest of the software that ran last, and so had passed its trial; empty
    when none is known. ``nonce`` is of the resident program's start, 0 when that does not run.
    """

    serial: str
    hardware_id: str
    name: str
    version: str
    build_time: str
    digest: bytes
    state: TerminalState
    last_update_id: int
    last_result: Result
    security_counter: int
    endpoint: str
    first_seen: float
    last_seen: float
    confirmed: bytes = b""
    nonce: int = 0


@dataclass(frozen=True)
class Image:
    """A published image; ``digest`` is its SHA-256 TLV, ``file_digest`` is of the whole file."""

    digest: bytes
    version: str
    hardware_id: str
    name: str
    build_time: str
    security_counter: int
    size: int
    file_size: int
    file_digest: bytes
    published: float
    userdata_format: int = 1


@dataclass(frozen=True)
class Update:
    """One update of one terminal to the image ``digest``; ``from_…`` is what it ran before.

    ``restoration``: the server began it by itself, for a terminal without valid software; ``kind``
    is of the file that was announced last, and None before that. ``commanded``: not by a file, but
    by commands, in a session.
    """

    id: int
    serial: str
    version: str
    digest: bytes
    from_version: str
    from_digest: bytes
    state: UpdateState
    result: Result | None
    text: str
    created: float
    changed: float
    restoration: bool = False
    kind: Kind | None = None
    commanded: bool = False


@dataclass(frozen=True)
class Event:
    """Something that happened; ``state`` is the state an update changed to, if it did."""

    id: int
    time: float
    serial: str
    update_id: int | None
    state: UpdateState | None
    text: str


@dataclass(frozen=True)
class TextMessage:
    """A text for a terminal's user."""

    id: int
    serial: str
    text: str
    state: MessageState
    created: float
    changed: float


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
