"""What can be kept and asked, whatever keeps it.

Whoever touches personal data (subscribers, backups) names himself: the audit entry is written here,
in the same transaction, so that there is no way around it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from unbrick.server.records.access import AccessTokens
from unbrick.server.records.analysis import (
    Analysis,
    Installation,
    KeptInstallation,
    Preparation,
    PreparationState,
    PreparedRange,
    Range,
    RangeKind,
    Software,
)
from unbrick.server.records.calls import Call, LineState, Saying, TerminalCall
from unbrick.server.records.links import LinkKeys
from unbrick.server.records.people import Actor, AuditAction, AuditEntry, Ownership, Subscriber
from unbrick.server.records.rollouts import Rollouts
from unbrick.server.records.sessions import (
    Backup,
    CommandedSession,
    PlannedStep,
    SessionState,
    StepState,
)
from unbrick.server.records.tables import Containing, Elsewhere, Record, Store, given
from unbrick.server.records.updates import (
    Difference,
    Event,
    File,
    Image,
    MessageState,
    Running,
    Terminal,
    TextMessage,
    Update,
    UpdateState,
)
from unbrick.wire.messages import Kind

SOFTWARE = ("digest", "hardware_id", "name", "version", "build_time")
"""The fields of an installation by which software is known."""

EVENTS_AT_ONCE = 500
"""Events that are read together, of those that are new."""

_GOING_UPDATE = frozenset(state for state in UpdateState if not state.ended)
_GOING_SESSION = frozenset(state for state in SessionState if not state.ended)
_GOING_STEP = frozenset(state for state in StepState if not state.over)
_GOING_LINE = frozenset(LineState) - {LineState.OVER}

_Kind = tuple[type[Record], tuple[tuple[str, Any], ...]]
_GOING: tuple[_Kind, ...] = (
    (Update, (("state", _GOING_UPDATE),)),
    (CommandedSession, (("state", _GOING_SESSION),)),
)

ANY = Elsewhere()
"""All terminals."""

IDLE = Elsewhere(none=_GOING)
"""The terminals with which nothing is under way."""


AT_ONCE = 5_000
"""Records that are asked for together; databases have bounds for the values of a statement."""

K = TypeVar("K", str, int)


def _in_parts(keys: Iterable[K]) -> Iterator[frozenset[K]]:
    """Keys in their order, not too many at once."""
    ordered = sorted(set(keys))
    for at in range(0, len(ordered), AT_ONCE):
        yield frozenset(ordered[at : at + AT_ONCE])


def _given_among(among: Elsewhere) -> dict[str, Any]:
    return {} if among == ANY else {"serial": among}


def _searching(text: str) -> Containing | None:
    return Containing(("serial", "version"), text) if text else None


class Records:
    """What the server remembers.

    Ids count up from 1 and never come back; listings are in the order of making. Who adds a record
    that has an id passes one over, and is given the record back with the id that it has.

    Args:
        store: keeps it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._terminals = store.table(Terminal)
        self._images = store.table(Image)
        self._files = store.table(File)
        self._differences = store.table(Difference)
        self._updates = store.table(Update)
        self._events = store.table(Event)
        self._messages = store.table(TextMessage)
        self._subscribers = store.table(Subscriber)
        self._ownerships = store.table(Ownership)
        self._audit = store.table(AuditEntry)
        self._software = store.table(Software)
        self._installations = store.table(KeptInstallation)
        self._analyses = store.table(Analysis)
        self._preparations = store.table(Preparation)
        self._ranges = store.table(PreparedRange)
        self._calls = store.table(Call)
        self._terminal_calls = store.table(TerminalCall)
        self._sayings = store.table(Saying)
        self._sessions = store.table(CommandedSession)
        self._steps = store.table(PlannedStep)
        self._backups = store.table(Backup)

    @cached_property
    def tokens(self) -> AccessTokens:
        """Those of who may use the HTTP API."""
        return AccessTokens(self._store)

    @cached_property
    def links(self) -> LinkKeys:
        """The keys of the links to terminals."""
        return LinkKeys(self._store, self._audit)

    @cached_property
    def rollouts(self) -> Rollouts:
        """Those that there are."""
        return Rollouts(self._store, self._audit)

    def transaction(self) -> AbstractContextManager[None]:
        """All that is written inside is kept when the block ends, and nothing when it raises.

        One inside another is a part of it: it is kept when the outer one ends.

        Raises:
            UndoneError: a part had raised, and somebody in between took that for handled.
        """
        return self._store.transaction()

    def while_waiting(self, do: Callable[[], bool]) -> None:
        """Have this done while a transaction is waited for: see ``Store.while_waiting``."""
        self._store.while_waiting = do

    # Terminals, images, updates

    def terminal(self, serial: str) -> Terminal | None:
        """The terminal with this serial."""
        return self._terminals.get(serial)

    def look_ahead(self, serials: Sequence[str]) -> None:
        """These terminals are about to register: what is asked for then is read together."""
        self._terminals.look_ahead("serial", serials)
        self._updates.look_ahead("serial", serials)
        self._sessions.look_ahead("serial", serials)
        going = [item.id for serial in serials for item in self.unfinished_sessions(serial)]
        self._steps.look_ahead("session_id", going)
        self._backups.look_ahead("session_id", going)
        known = [serial for serial in serials if self._terminals.get(serial) is not None]
        self._messages.look_ahead("serial", known)
        self._installations.look_ahead("serial", known)
        self._analyses.look_ahead("serial", known)

    def terminals(self) -> list[Terminal]:
        """Every terminal, by serial."""
        return sorted(self._terminals.select(), key=lambda item: item.serial)

    def terminals_after(self, serial: str, first: int) -> list[Terminal]:
        """The first so many terminals with later serials, by serial."""
        return self._terminals.select(after=serial, first=first)

    def serials_running(self, what: Running) -> list[str]:
        """The serials of the terminals that run this."""
        return sorted(self._terminals.tally("serial", **what._asdict()))

    def serials(self) -> set[str]:
        """The serials of all terminals."""
        return set(self._terminals.tally("serial"))

    def running(self, search: str = "", among: Elsewhere = ANY) -> dict[Running, int]:
        """What terminals run, and how many of them do.

        Args:
            search: only of those that have this in their serial or version.
            among: only of these terminals.
        """
        tally = self._terminals.tally(
            *Running._fields, search=_searching(search), **_given_among(among)
        )
        return {Running(*values): number for values, number in tally.items()}

    def terminals_running(
        self,
        what: Running,
        *,
        search: str = "",
        among: Elsewhere = ANY,
        after: str = "",
        first: int | None = None,
    ) -> list[Terminal]:
        """Terminals that run this, by serial.

        Args:
            what: they run.
            search: only those that have this in their serial or version.
            among: only these terminals.
            after: only those with later serials.
            first: only so many.
        """
        where = {**what._asdict(), **_given_among(among)}
        return self._terminals.select(first=first, after=after, search=_searching(search), **where)

    def under_way(self) -> dict[str, Elsewhere]:
        """The terminals with which something is under way, by the version that they get.

        Each is among those of one version. Empty: its user's data is given back, and no more.
        """
        found: dict[str, Elsewhere] = {}
        others: tuple[_Kind, ...] = ()
        for version in sorted(self._updates.tally("version", state=_GOING_UPDATE)):
            theirs = (Update, (*_GOING[0][1], ("version", version)))
            found[version] = Elsewhere((theirs,), others)
            others += (theirs,)
        return {**found, "": Elsewhere(_GOING[1:], _GOING[:1])}

    def terminals_with(self, serials: Iterable[str]) -> list[Terminal]:
        """Those of the terminals with these serials that there are, by serial."""
        return [
            terminal
            for some in _in_parts(serials)
            for terminal in self._terminals.select(after="", serial=some)
        ]

    def last_registration(self) -> float:
        """When a terminal was seen last, in seconds since 1970; 0: none ever was."""
        return float(self._terminals.largest("last_seen") or 0)

    def count_terminals(self) -> dict[str, int]:
        """How many terminals there are in each state, by its name."""
        return {state.name.lower(): n for state, n in self._terminals.tally("state").items()}

    def count_updates(self) -> dict[str, int]:
        """How many updates there are in each state."""
        return {state.value: number for state, number in self._updates.tally("state").items()}

    def count_messages(self) -> dict[str, int]:
        """How many text messages there are in each state."""
        return {state.value: number for state, number in self._messages.tally("state").items()}

    def save_terminal(self, terminal: Terminal) -> None:
        """Keep a new terminal, or what has changed of one."""
        self._terminals.put(terminal)

    def image(self, digest: bytes) -> Image | None:
        """The image with this digest."""
        return self._images.get(digest)

    def images(self) -> list[Image]:
        """Every image, without the files."""
        return self._images.select()

    def images_after(self, image: Image | None, first: int) -> list[Image]:
        """The first so many images that were published after one, or of all; by that time."""
        after = None if image is None else (image.published, image.digest)
        return self._images.select(by=("published", "digest"), after=after, first=first)

    def images_among(self, digests: frozenset[bytes]) -> list[Image]:
        """The images with these digests, ``AT_ONCE`` at most."""
        return self._images.select(digest=digests)

    def image_file(self, digest: bytes) -> bytes:
        """The file of a published image.

        Raises:
            KeyError: there is none.
        """
        data = self._files.data(digest)
        if data is None:
            raise KeyError(digest)
        return data

    def add_image(self, image: Image, file: bytes) -> None:
        """Keep a new image with its file."""
        with self._store.together():
            self._images.add(image)
            self._files.add(File(image.digest), file)

    def difference(self, base: bytes, digest: bytes) -> bytes | None:
        """The differential file that turns image ``base`` into image ``digest``, if one is kept."""
        return self._differences.data(base, digest)

    def add_difference(self, base: bytes, digest: bytes, file: bytes) -> None:
        """Keep a differential file; one that is there already stays."""
        with self._store.together():
            if self._differences.get(base, digest) is None:
                self._differences.add(Difference(base, digest), file)

    def update(self, update_id: int) -> Update | None:
        """The update with this id."""
        return self._updates.get(update_id)

    def updates(self, serial: str | None = None) -> list[Update]:
        """Every update, or every update of a terminal."""
        return self._updates.select(**given(serial=serial))

    def file_sizes(self, updates: Iterable[Update]) -> dict[int, int]:
        """Bytes of each update's file, by the update's id.

        That is what was announced last, or else the full image.
        """
        updates = list(updates)
        images = self._images.select(digest=frozenset(item.digest for item in updates))
        sizes = {image.digest: image.file_size for image in images}
        differential = [item for item in updates if item.kind is Kind.DIFFERENTIAL]
        of_pairs = self._difference_sizes(
            {(item.from_digest, item.digest) for item in differential}
        )
        found = {item.id: sizes.get(item.digest, 0) for item in updates}
        for item in differential:
            found[item.id] = of_pairs.get((item.from_digest, item.digest), found[item.id])
        return found

    def _difference_sizes(self, pairs: set[tuple[bytes, bytes]]) -> dict[tuple[bytes, bytes], int]:
        """Bytes of the differential files between pairs of images, of those that have one."""
        if not pairs:
            return {}
        bases, digests = (frozenset(part) for part in zip(*pairs, strict=True))
        prepared = self._preparations.select(base=bases, digest=digests)
        found = {
            (item.base, item.digest): item.file_size
            for item in prepared
            if item.file_size is not None
        }
        for pair in pairs - set(found):
            file = self.difference(*pair)
            if file is not None:
                found[pair] = len(file)
        return found

    def updates_after(self, update_id: int, first: int) -> list[Update]:
        """The first so many updates with higher ids."""
        return self._updates.select(after=update_id, first=first)

    def updates_among(self, ids: frozenset[int]) -> list[Update]:
        """The updates with these ids; as many as ``rollouts.UPDATES_AT_ONCE`` at most."""
        return self._updates.select(id=ids)

    def unfinished_updates(self) -> list[Update]:
        """Every update that has not ended."""
        return self._updates.select(state=_GOING_UPDATE)

    def transfers(self, first: int) -> list[Update]:
        """The first so many updates whose files are being sent."""
        return self._updates.select(state=UpdateState.TRANSFERRING, first=first)

    def unfinished_updates_of(self, serials: Iterable[str]) -> list[Update]:
        """The updates of these terminals that have not ended."""
        return [
            update
            for some in _in_parts(serials)
            for update in self._updates.select(serial=some, state=_GOING_UPDATE)
        ]

    def add_update(self, update: Update) -> Update:
        """Keep a new update."""
        return self._updates.add(update)

    def save_update(self, update: Update) -> None:
        """Keep what has changed of an update."""
        self._updates.change(update)

    def file_size(self, update: Update) -> int:
        """Bytes of an update's file; see ``file_sizes``."""
        return self.file_sizes((update,))[update.id]

    def events(
        self,
        *,
        serial: str | None = None,
        update_id: int | None = None,
        newest: int | None = None,
    ) -> list[Event]:
        """Every event, or those of a terminal or of an update; only the ``newest``."""
        return self._events.select(last=newest, **given(serial=serial, update_id=update_id))

    def events_of(self, serial: str, *, after: int, first: int) -> list[Event]:
        """The first so many events of a terminal with higher ids."""
        return self._events.select(serial=serial, after=after, first=first)

    def events_after(
        self, event_id: int, states: frozenset[UpdateState] | None = None
    ) -> list[Event]:
        """The events that were kept after the one with this id, or those into these states."""
        found: list[Event] = []
        while True:
            after = found[-1].id if found else event_id
            some = self._events.select(after=after, first=EVENTS_AT_ONCE, **given(state=states))
            found += some
            if len(some) < EVENTS_AT_ONCE:
                return found

    def add_event(self, event: Event) -> None:
        """Keep a new event."""
        self._events.append(event)

    def messages(self, serial: str | None = None) -> list[TextMessage]:
        """Every text message, or those of a terminal."""
        return self._messages.select(**given(serial=serial))

    def message(self, message_id: int) -> TextMessage | None:
        """The text message with this id."""
        return self._messages.get(message_id)

    def queued_messages(self, newest: int | None = None) -> list[TextMessage]:
        """Every text message that has not been delivered, or only the ``newest``."""
        return self._messages.select(last=newest, state=MessageState.QUEUED)

    def add_message(self, message: TextMessage) -> TextMessage:
        """Keep a new message."""
        return self._messages.add(message)

    def save_message(self, message: TextMessage) -> None:
        """Keep what has changed of a message."""
        self._messages.change(message)

    # People

    def subscriber(self, subscriber_id: int) -> Subscriber | None:
        """The subscriber with this id."""
        return self._subscribers.get(subscriber_id)

    def subscribers(self) -> list[Subscriber]:
        """Every subscriber."""
        return self._subscribers.select()

    def add_subscriber(self, subscriber: Subscriber, actor: Actor) -> Subscriber:
        """Keep a new subscriber.

        Raises:
            KeyError: another subscriber has that phone number.
        """
        with self._store.together():
            self._check_phone(subscriber)
            subscriber = self._subscribers.add(subscriber)
            self._note(AuditAction.SUBSCRIBER_ADDED, "", subscriber.id, actor)
        return subscriber

    def save_subscriber(self, subscriber: Subscriber, actor: Actor) -> None:
        """Keep what has changed of a subscriber.

        Raises:
            KeyError: another subscriber has that phone number.
        """
        with self._store.together():
            self._check_phone(subscriber)
            if self._subscribers.change(subscriber):
                self._note(AuditAction.SUBSCRIBER_CHANGED, "", subscriber.id, actor)

    def _check_phone(self, subscriber: Subscriber) -> None:
        for other in self._subscribers.select(phone=subscriber.phone):
            if other.id != subscriber.id:
                raise KeyError(subscriber.phone)

    def delete_subscriber(self, subscriber_id: int, actor: Actor) -> None:
        """Forget a subscriber; their terminals are nobody's."""
        with self._store.together():
            for serial in self.owned(subscriber_id):
                self.assign(serial, None, actor)
            if self._subscribers.remove(id=subscriber_id):
                self._note(AuditAction.SUBSCRIBER_DELETED, "", subscriber_id, actor)

    def owner(self, serial: str) -> Subscriber | None:
        """The subscriber whose terminal this is."""
        found = self._ownerships.get(serial)
        return None if found is None else self._subscribers.get(found.subscriber_id)

    def owners(self) -> dict[str, Subscriber]:
        """The subscriber of each terminal that has one, by serial."""
        found = self._ownerships.select()
        known = {subscriber.id: subscriber for subscriber in self._subscribers.select()}
        return {
            item.serial: known[item.subscriber_id] for item in found if item.subscriber_id in known
        }

    def owners_of(self, serials: Iterable[str]) -> dict[str, Subscriber]:
        """The subscribers of these terminals, by serial."""
        found = [
            item
            for some in _in_parts(serials)
            for item in self._ownerships.select(after="", serial=some)
        ]
        known = {
            subscriber.id: subscriber
            for some in _in_parts(item.subscriber_id for item in found)
            for subscriber in self._subscribers.select(id=some)
        }
        return {
            item.serial: known[item.subscriber_id] for item in found if item.subscriber_id in known
        }

    def owned_by(self, search: str, first: int) -> list[str]:
        """Serials of terminals of the first subscribers with this in their name or number."""
        found = self._subscribers.select(first=first, search=Containing(("name", "phone"), search))
        return [
            item.serial
            for some in _in_parts(subscriber.id for subscriber in found)
            for item in self._ownerships.select(subscriber_id=some)
        ]

    def owned(self, subscriber_id: int) -> list[str]:
        """Serials of a subscriber's terminals, in their order."""
        found = self._ownerships.select(subscriber_id=subscriber_id)
        return sorted(item.serial for item in found)

    def assign(self, serial: str, subscriber_id: int | None, actor: Actor) -> None:
        """Make a terminal a subscriber's, or nobody's; it need not have registered yet."""
        with self._store.together():
            before = self._ownerships.get(serial)
            if (before.subscriber_id if before else None) == subscriber_id:
                return
            if before is not None:
                self._ownerships.remove(serial=serial)
                self._note(AuditAction.TERMINAL_RELEASED, serial, before.subscriber_id, actor)
            if subscriber_id is not None:
                self._ownerships.add(Ownership(serial, subscriber_id))
                self._note(AuditAction.TERMINAL_ASSIGNED, serial, subscriber_id, actor)

    def audit(
        self,
        *,
        serial: str | None = None,
        subject: int | None = None,
        newest: int | None = None,
        before: int | None = None,
    ) -> list[AuditEntry]:
        """What the audit has: all, of a terminal, or about a subject (of any kind).

        Only the ``newest`` entries, or those with ids lower than ``before``.
        """
        where = given(serial=serial, subject=subject)
        return self._audit.select(last=newest, below=before, **where)

    def is_approved(self, serial: str) -> bool:
        """Whether somebody has let a terminal register."""
        action = AuditAction.TERMINAL_APPROVED
        return bool(self._audit.select(last=1, serial=serial, action=action))

    def approved(self) -> set[str]:
        """The serials of all terminals that somebody has let register."""
        return {entry.serial for entry in self._audit.select(action=AuditAction.TERMINAL_APPROVED)}

    def approve(self, serial: str, actor: Actor) -> None:
        """Keep that somebody lets a terminal register."""
        with self._store.together():
            self._note(AuditAction.TERMINAL_APPROVED, serial, 0, actor)

    def _note(self, action: AuditAction, serial: str, subject: int, actor: Actor) -> None:
        entry = AuditEntry(0, actor.now, actor.name, action, serial, subject, actor.why)
        self._audit.append(entry)

    # What terminals run, and what is prepared for them

    def installations(self, serial: str) -> list[Installation]:
        """What a terminal has run, oldest first; ``until`` of the last is None if it runs now."""
        found = []
        for kept in self._installations.select(serial=serial):
            values = {**vars(self._software.get(kept.software_id)), **vars(kept)}
            del values["software_id"]
            found.append(Installation(**values))
        return found

    def add_installation(self, installation: Installation) -> Installation:
        """Keep what a terminal runs now."""
        named = {name: getattr(installation, name) for name in SOFTWARE}
        times = {name: getattr(installation, name) for name in ("since", "until")}
        with self._store.together():
            known = self._software.select(**named) or [self._software.add(Software(0, **named))]
            kept = KeptInstallation(0, installation.serial, known[0].id, **times)
            return replace(installation, id=self._installations.add(kept).id)

    def end_installation(self, serial: str, until: float) -> None:
        """What the terminal ran, it does not run any more; nothing if it ran nothing."""
        with self._store.together():
            for kept in self._installations.select(serial=serial):
                if kept.until is None:
                    self._installations.change(replace(kept, until=until))

    def analysis(self, serial: str) -> Analysis | None:
        """The last decision about a terminal."""
        return next(iter(self._analyses.select(last=1, serial=serial)), None)

    def analyses(self, serial: str) -> list[Analysis]:
        """Every decision about a terminal."""
        return self._analyses.select(serial=serial)

    def decisions(self, serials: Iterable[str]) -> dict[str, Analysis]:
        """The last decision about each of these terminals, by serial."""
        return {
            item.serial: item
            for some in _in_parts(serials)
            for item in self._analyses.select(last_of_each="serial", serial=some)
        }

    def add_analysis(self, analysis: Analysis) -> Analysis:
        """Keep a decision."""
        return self._analyses.add(analysis)

    def preparation(self, base: bytes, digest: bytes) -> Preparation | None:
        """What is prepared for a pair of images."""
        return self._preparations.get(base, digest)

    def preparations(self, state: PreparationState | None = None) -> list[Preparation]:
        """Every preparation, or those in a state, oldest first."""
        found = self._preparations.select(**given(state=state))
        return sorted(found, key=lambda item: (item.created, item.base, item.digest))

    def preparations_after(self, item: Preparation | None, first: int) -> list[Preparation]:
        """The first so many preparations that were made after one, or of all; by that time."""
        after = None if item is None else (item.created, item.base, item.digest)
        by = ("created", "base", "digest")
        return self._preparations.select(by=by, after=after, first=first)

    def sum_up_ranges(
        self, preparations: Collection[Preparation]
    ) -> dict[tuple[bytes, bytes, RangeKind], tuple[int, int]]:
        """How many ranges each preparation has of each kind, and their bytes; 0 is left out.

        Args:
            preparations: ``AT_ONCE`` at most, together.
        """
        where: dict[str, Any] = {
            "base": frozenset(item.base for item in preparations),
            "digest": frozenset(item.digest for item in preparations),
        }
        by = ("base", "digest", "kind")
        sizes = self._ranges.totals("length", *by, **where)
        return {key: (n, sizes[key]) for key, n in self._ranges.tally(*by, **where).items()}

    def save_preparation(self, preparation: Preparation) -> None:
        """Keep a new preparation, or what has changed of one."""
        self._preparations.put(preparation)

    def ranges(self, base: bytes, digest: bytes, kind: RangeKind | None = None) -> list[Range]:
        """The ranges that were prepared for a pair of images, by offset within each kind."""
        found = self._ranges.select(base=base, digest=digest, **given(kind=kind))
        return [Range(item.kind, item.offset, item.length) for item in found]

    def set_ranges(self, base: bytes, digest: bytes, ranges: Sequence[Range]) -> None:
        """Keep the ranges of a pair of images whose preparation is kept, in place of others."""
        with self._store.together():
            self._ranges.remove(base=base, digest=digest)
            for item in sorted(ranges, key=lambda item: (item.kind.value, item.offset)):
                self._ranges.append(PreparedRange(base, digest, **vars(item)))

    # Calls

    def calls(
        self, serial: str | None = None, *, newest: int | None = None, before: int | None = None
    ) -> list[Call]:
        """Every call, or those of a terminal; only the ``newest``, or those with lower ids."""
        return self._calls.select(last=newest, below=before, **given(serial=serial))

    def call(self, call_id: int) -> Call | None:
        """The call with this id."""
        return self._calls.get(call_id)

    def open_calls(self) -> list[Call]:
        """Every call that has not ended."""
        return self._calls.select(ended=None)

    def add_call(self, call: Call) -> Call:
        """Keep a new call."""
        return self._calls.add(call)

    def save_call(self, call: Call) -> None:
        """Keep what has changed of a call."""
        self._calls.change(call)

    def terminal_call(self, call_id: int) -> TerminalCall | None:
        """The terminal's end of a call, if a terminal makes it."""
        return self._terminal_calls.get(call_id)

    def terminal_calls(self) -> list[TerminalCall]:
        """The terminal's end of every call that is not over there."""
        return self._terminal_calls.select(state=_GOING_LINE)

    def add_terminal_call(self, call: TerminalCall) -> None:
        """Keep the terminal's end of a new call."""
        self._terminal_calls.add(call)

    def save_terminal_call(self, call: TerminalCall) -> None:
        """Keep what has changed; when it is over, what was to be said is forgotten."""
        with self._store.together():
            self._terminal_calls.change(call)
            if call.state is LineState.OVER:
                self._sayings.remove(call_id=call.call_id)

    def sayings(self, call_id: int) -> list[Saying]:
        """What is said to a terminal's user, in its order."""
        return self._sayings.select(call_id=call_id)

    def save_saying(self, saying: Saying) -> None:
        """Keep a new text, or what has changed of one."""
        self._sayings.put(saying)

    # Commanded updates

    def session(self, session_id: int) -> CommandedSession | None:
        """The session with this id."""
        return self._sessions.get(session_id)

    def sessions(self, serial: str | None = None) -> list[CommandedSession]:
        """Every session, or those of a terminal."""
        return self._sessions.select(**given(serial=serial))

    def unfinished_sessions(self, serial: str | None = None) -> list[CommandedSession]:
        """Every session that has not ended, or those of a terminal."""
        return self._sessions.select(state=_GOING_SESSION, **given(serial=serial))

    def unfinished_sessions_of(self, serials: Iterable[str]) -> list[CommandedSession]:
        """The sessions of these terminals that have not ended."""
        return [
            session
            for some in _in_parts(serials)
            for session in self._sessions.select(serial=some, state=_GOING_SESSION)
        ]

    def count_sessions(self) -> dict[str, int]:
        """How many sessions there are in each state."""
        return {state.value: number for state, number in self._sessions.tally("state").items()}

    def last_change(self) -> float:
        """When an update or a session changed last, in seconds since 1970; 0: none ever did."""
        return max(
            float(table.largest("changed") or 0) for table in (self._updates, self._sessions)
        )

    def add_session(
        self, session: CommandedSession, steps: Sequence[PlannedStep]
    ) -> CommandedSession:
        """Keep a new session with its plan."""
        with self._store.together():
            session = self._sessions.add(session)
            for step in sorted(steps, key=lambda step: step.number):
                self._steps.add(replace(step, session_id=session.id))
        return session

    def save_session(self, session: CommandedSession) -> None:
        """Keep what has changed of a session."""
        self._sessions.change(session)

    def steps(self, session_id: int) -> list[PlannedStep]:
        """The plan of a session, and how far each step is."""
        return self._steps.select(session_id=session_id)

    def next_step(self, session_id: int) -> PlannedStep | None:
        """The first step that is not over; None when all are."""
        found = self._steps.select(first=1, session_id=session_id, state=_GOING_STEP)
        return next(iter(found), None)

    def save_step(self, step: PlannedStep) -> None:
        """Keep what has changed of a step."""
        self._steps.change(step)

    def backups(self, serial: str | None = None) -> list[Backup]:
        """Which backups there are, or those of a terminal."""
        return self._backups.select(**given(serial=serial))

    def backup(self, session_id: int) -> Backup | None:
        """The backup of a session."""
        return next(iter(self._backups.select(session_id=session_id)), None)

    def add_backup(self, backup: Backup, data: bytes, actor: Actor) -> Backup:
        """Keep a backup.

        Raises:
            KeyError: that session has one.
        """
        with self._store.together():
            if self.backup(backup.session_id) is not None:
                raise KeyError(backup.session_id)
            backup = self._backups.add(backup, data)
            self._note(AuditAction.BACKUP_KEPT, backup.serial, backup.id, actor)
        return backup

    def read_backup(self, backup_id: int, actor: Actor, known: bytes | None = None) -> bytes:
        """What a backup holds. Whoever has it in memory asks all the same, for the audit.

        Args:
            backup_id: of the backup.
            actor: who wants it, and why.
            known: what it holds, if that is remembered.

        Raises:
            KeyError: there is none.
        """
        with self._store.together():
            backup = self._backups.get(backup_id)
            data = self._backups.data(backup_id) if known is None else known
            if backup is None or data is None:
                raise KeyError(backup_id)
            self._note(AuditAction.BACKUP_READ, backup.serial, backup_id, actor)
        return data

    def delete_backup(self, backup_id: int, actor: Actor) -> None:
        """Remove a backup for good; nothing if there is none."""
        with self._store.together():
            backup = self._backups.get(backup_id)
            if backup is not None:
                self._backups.remove(id=backup_id)
                self._note(AuditAction.BACKUP_DELETED, backup.serial, backup_id, actor)
