"""``Records`` in a database: terminals, images, updates, events and messages."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from unbrick.server.database.models import (
    DifferenceRow,
    EventRow,
    FileRow,
    ImageRow,
    MessageRow,
    TerminalRow,
    UpdateRow,
)
from unbrick.server.database.user_store import SqlUserRecords
from unbrick.server.records.updates import (
    Event,
    Image,
    MessageState,
    Terminal,
    TextMessage,
    Update,
    UpdateState,
)


class SqlRecords(SqlUserRecords):
    """``Records`` in a database.

    What a transaction wrote is on the disk when its block ends. Not for several threads at once,
    but processes may share a database.

    Args:
        url: an SQLAlchemy URL, or the path of an SQLite file, which is made when it is missing.

    Raises:
        SetupError: the database cannot be opened, or is a later version's.
    """

    def terminal(self, serial: str) -> Terminal | None:
        """See ``Records``."""
        return self._known(
            Terminal, serial, lambda: next(iter(self._terminals(serial=serial)), None)
        )

    def terminals(self) -> list[Terminal]:
        """See ``Records``."""
        return sorted(self._terminals(), key=lambda item: item.serial)  # Databases sort by locale.

    def _terminals(self, **where: object) -> list[Terminal]:
        found = self._find(Terminal, TerminalRow, **where)
        # An earlier version's row has no such thing.
        return [
            item if item.confirmed is not None else replace(item, confirmed=b"") for item in found
        ]

    def save_terminal(self, terminal: Terminal) -> None:
        """See ``Records``."""
        if self._is_known(Terminal, terminal.serial):
            self._save_later(TerminalRow, dict(vars(terminal)))
        else:
            self._put(TerminalRow, dict(vars(terminal)))
        self._remember(Terminal, terminal.serial, terminal)

    def image(self, digest: bytes) -> Image | None:
        """See ``Records``."""
        return self._known(Image, digest, lambda: self._first(Image, ImageRow, digest=digest))

    def images(self) -> list[Image]:
        """See ``Records``."""
        return list(self._known("images", None, lambda: self._find(Image, ImageRow)) or ())

    def image_file(self, digest: bytes) -> bytes:
        """See ``Records``."""
        data = self._data(FileRow, digest=digest)
        if data is None:
            raise KeyError(digest)
        return data

    def add_image(self, image: Image, file: bytes) -> None:
        """See ``Records``."""
        self._forget("images", None)
        with self._together():
            self._add(ImageRow, dict(vars(image)))
            self._add(FileRow, {"digest": image.digest, "data": file})

    def difference(self, base: bytes, digest: bytes) -> bytes | None:
        """See ``Records``."""
        return self._data(DifferenceRow, base=base, digest=digest)

    def add_difference(self, base: bytes, digest: bytes, file: bytes) -> None:
        """See ``Records``."""
        with self._together():
            if self.difference(base, digest) is None:
                self._add(DifferenceRow, {"base": base, "digest": digest, "data": file})

    def update(self, update_id: int) -> Update | None:
        """See ``Records``."""
        return self._known(Update, update_id, lambda: next(iter(self._updates(id=update_id)), None))

    def updates(self, serial: str | None = None) -> list[Update]:
        """See ``Records``."""
        if serial is None:
            return self._updates()
        ids = self._known("updates", serial, lambda: self._ids(serial))
        found = [self.update(update_id) for update_id in ids or ()]
        return [update for update in found if update is not None]

    def _ids(self, serial: str) -> list[int]:
        found = self._updates(serial=serial)
        for update in found:
            self._remember(Update, update.id, update)
        return [update.id for update in found]

    def unfinished_updates(self) -> list[Update]:
        """See ``Records``."""
        going = [state for state in UpdateState if not state.ended]
        return self._updates(state=going)

    def _updates(self, **where: object) -> list[Update]:
        found = self._find(Update, UpdateRow, **where)
        # An earlier version's row has no such thing.
        return [
            item if item.restoration is not None else replace(item, restoration=False)
            for item in found
        ]

    def add_update(self, update: Update) -> Update:
        """See ``Records``."""
        self._forget("updates", update.serial)
        return replace(update, id=self._add(UpdateRow, dict(vars(update))))

    def save_update(self, update: Update) -> None:
        """See ``Records``."""
        if self._is_known(Update, update.id):
            self._save_later(UpdateRow, dict(vars(update)))
        elif not self._save(UpdateRow, dict(vars(update))):
            return
        self._remember(Update, update.id, update)

    def events(
        self,
        *,
        serial: str | None = None,
        update_id: int | None = None,
        newest: int | None = None,
    ) -> list[Event]:
        """See ``Records``."""
        return self._page(Event, EventRow, newest, None, serial=serial, update_id=update_id)

    def add_event(self, event: Event) -> None:
        """See ``Records``."""
        self._add_later(EventRow, dict(vars(event)))

    def messages(self, serial: str | None = None) -> list[TextMessage]:
        """See ``Records``."""
        if serial is None:
            return self._find(TextMessage, MessageRow)
        read = partial(self._find, TextMessage, MessageRow, serial=serial)
        return list(self._known("messages", serial, read) or ())

    def message(self, message_id: int) -> TextMessage | None:
        """See ``Records``."""
        return self._first(TextMessage, MessageRow, id=message_id)

    def queued_messages(self) -> list[TextMessage]:
        """See ``Records``."""
        return self._find(TextMessage, MessageRow, state=MessageState.QUEUED)

    def add_message(self, message: TextMessage) -> TextMessage:
        """See ``Records``."""
        self._forget("messages", message.serial)
        return replace(message, id=self._add(MessageRow, dict(vars(message))))

    def save_message(self, message: TextMessage) -> None:
        """See ``Records``."""
        self._forget("messages", message.serial)
        self._save(MessageRow, dict(vars(message)))
