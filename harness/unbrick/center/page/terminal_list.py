"""The list of terminals, page by page, however many there are.

It is made of sections. What a terminal runs decides what is offered to it, so that terminals that
run the same are one section. Those with which something is under way are others, by the version
that they get. Nothing is read of a section but what is shown of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from unbrick.center.calls.machine import Need, Situation, shorten_version
from unbrick.center.offer import judge_situation
from unbrick.server.records.calls import Call
from unbrick.server.records.contract import IDLE, Records
from unbrick.server.records.people import Subscriber
from unbrick.server.records.sessions import CommandedSession
from unbrick.server.records.tables import Elsewhere
from unbrick.server.records.updates import Image, Running, Terminal, Update
from unbrick.wire.messages import TerminalState

MOST_TERMINALS = 50
"""Terminals on one page."""

MOST_OWNERS = 500
"""Subscribers that a search takes into account."""

KINDS = {
    "bad": "without its application",
    "busy": "being updated",
    "due": "upgrade ready",
    "good": "up to date",
}
"""The kinds of states of terminals, in the order of the list, and what a filter calls them."""


def describe_status(terminal: Terminal | Running, now: Situation) -> str:
    """How it is with a terminal, in words."""
    restoration = terminal.state is TerminalState.RESTORATION
    if now.need is Need.UNDER_WAY:
        if now.new == terminal.version and not restoration:
            return "gets its user's data back"
        return (
            f"being {'restored with' if restoration else 'updated to'} {shorten_version(now.new)}"
        )
    if restoration:
        return "waits to be restored"
    if terminal.state is TerminalState.COMMANDED:
        return "runs its resident program"
    if now.need is Need.NEEDED:
        return f"{shorten_version(now.new)} is ready for it"
    return "up to date"


def classify_status(terminal: Terminal | Running, now: Situation) -> str:
    """The class of a terminal's state in the style sheet, one of ``KINDS``."""
    if now.need is Need.UNDER_WAY:
        return "busy"
    if terminal.state is not TerminalState.APPLICATION:
        return "bad"
    return "due" if now.need is Need.NEEDED else "good"


@dataclass(frozen=True)
class Listed:
    """A terminal in the list, and what goes on with it."""

    terminal: Terminal
    owner: Subscriber | None
    situation: Situation
    update: Update | None
    call: Call | None


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to see.

    Attributes:
        search: part of a serial, a version, a state, a name or a phone number.
        kind: of the state, one of ``KINDS``; empty: any.
        version: that runs; empty: any.
        after: the last terminal of the page before: its section and its serial; empty: none.
    """

    search: str = ""
    kind: str = ""
    version: str = ""
    after: str = ""


@dataclass(frozen=True)
class ListPage:
    """A page of the list.

    Attributes:
        terminals: on it.
        count: how many there are on all pages.
        versions: that run somewhere, newest name first.
        next: what ``Wanted.after`` is of the next page; empty: this is the last one.
    """

    terminals: list[Listed]
    count: int
    versions: list[str]
    next: str


@dataclass(frozen=True)
class _Section:
    """Terminals that are listed one after the other, by serial.

    Attributes:
        name: tells it from others, also on the next page.
        kind: of their states, one of ``KINDS``.
        count: how many they are.
        read: gives the first ones after a serial.
    """

    name: str
    kind: str
    count: int
    read: Callable[[str, int], list[Terminal]]


class TerminalList:
    """Makes the pages.

    Args:
        records: what is known.
        wanted: what somebody wants to see.
        owners: whether subscribers are shown, and found.
    """

    def __init__(self, records: Records, wanted: Wanted, *, owners: bool) -> None:
        self._records, self._wanted, self._owners = records, wanted, owners
        self._images = records.images()
        self._running = records.running()

    def make(self) -> ListPage:
        """The page."""
        sections = self._list_sections()
        name, _, serial = self._wanted.after.partition(".")
        names = [section.name for section in sections]
        first = names.index(name) if name in names else 0
        found: list[Terminal] = []
        last = more = ""
        for section in sections[first:]:
            after = serial if section.name == name else ""
            room = MOST_TERMINALS - len(found)
            some = section.read(after, room + 1)
            if some and not room:
                more = last
                break
            found += some[:room]
            last = f"{section.name}.{found[-1].serial}" if some else last
            if len(some) > room:
                more = last
                break
        versions = sorted({running.version for running in self._running}, reverse=True)
        count = sum(section.count for section in sections)
        return ListPage(self._show(found), count, versions, more)

    def _show(self, terminals: list[Terminal]) -> list[Listed]:
        serials = [terminal.serial for terminal in terminals]
        owners = self._records.owners_of(serials) if self._owners else {}
        calls = {call.serial: call for call in self._records.open_calls()}
        going = _Going(self._records, serials)
        return [
            Listed(
                terminal,
                owners.get(terminal.serial),
                going.judge(terminal, self._images),
                going.updates.get(terminal.serial),
                calls.get(terminal.serial),
            )
            for terminal in terminals
        ]

    def _list_sections(self) -> list[_Section]:
        """All that is wanted, in the order of the list."""
        search = self._wanted.search
        found = self._records.running(search) if search else self._running
        every, theirs = Counter(self._running), Counter(found)
        covered: set[tuple[str, Running]] = set()
        sections = []
        for version, among in self._records.under_way().items():
            busy = self._records.running(among=among)
            busy_found = self._records.running(search, among) if search and busy else busy
            every.subtract(busy)
            theirs.subtract(busy_found)
            sections += self._make_sections(version, among, busy, busy_found, covered)
        sections += self._make_sections("", IDLE, every, theirs, covered)
        sections.sort(key=lambda section: list(KINDS).index(section.kind))
        if search and self._owners:
            theirs_too = self._find_owned(covered)
            sections.insert(
                0, _Section("owned", self._wanted.kind, len(theirs_too), _reader(theirs_too))
            )
        return [section for section in sections if section.count]

    def _make_sections(
        self,
        version: str,
        among: Elsewhere,
        every: Mapping[Running, int],
        found: Mapping[Running, int],
        covered: set[tuple[str, Running]],
    ) -> list[_Section]:
        """A section for all that runs on some terminals.

        Args:
            version: that they get; empty: none.
            among: these terminals.
            every: how many of them run what.
            found: how many of these the search finds by what a database looks at.
            covered: is given those of which the search finds all, by the words for their state.
        """
        search = self._wanted.search
        sections = []
        for running, number in sorted(every.items()):
            now = self._situation(running, version, among)
            kind = classify_status(running, now)
            if not self._fits(kind, running):
                continue
            if search and search.casefold() in describe_status(running, now).casefold():
                covered.add((_group(now), running))
                some, text = number, ""
            else:
                some, text = found.get(running, 0), search
            read = partial(self._read, running, text, among)
            sections.append(_Section(_name(running, version, kind), kind, some, read))
        return sections

    def _situation(self, running: Running, version: str, among: Elsewhere) -> Situation:
        """How it is with each of the terminals of a section."""
        if among == IDLE:
            return judge_situation(running, self._images, (), ())
        return Situation(Need.UNDER_WAY, running.version, version or running.version)

    def _read(
        self, running: Running, search: str, among: Elsewhere, after: str, first: int
    ) -> list[Terminal]:
        return self._records.terminals_running(
            running, search=search, among=among, after=after, first=first
        )

    def _fits(self, kind: str, software: Terminal | Running) -> bool:
        """Whether the filters take it."""
        wanted = self._wanted
        return wanted.kind in ("", kind) and wanted.version in ("", software.version)

    def _find_owned(self, covered: set[tuple[str, Running]]) -> list[Terminal]:
        """Terminals that are found by their subscribers alone: no other section has them."""
        owned = self._records.owned_by(self._wanted.search, MOST_OWNERS)
        going = _Going(self._records, owned)
        found = []
        for terminal in self._records.terminals_with(owned):
            now = going.judge(terminal, self._images)
            elsewhere = _has(terminal, self._wanted.search) or (
                (_group(now), _find_running(terminal)) in covered
            )
            if self._fits(classify_status(terminal, now), terminal) and not elsewhere:
                found.append(terminal)
        return found


class _Going:
    """What is under way with some terminals.

    Attributes:
        updates: by serial.
    """

    def __init__(self, records: Records, serials: Collection[str]) -> None:
        self.updates: dict[str, Update] = {}
        for update in records.unfinished_updates_of(serials):
            self.updates.setdefault(update.serial, update)
        sessions = records.unfinished_sessions_of(serials)
        self._sessions = {session.serial: [session] for session in sessions}

    def judge(self, terminal: Terminal, images: list[Image]) -> Situation:
        """How it is with one of them."""
        update = self.updates.get(terminal.serial)
        sessions: list[CommandedSession] = self._sessions.get(terminal.serial, [])
        return judge_situation(terminal, images, [update] if update else [], sessions)


def _group(now: Situation) -> str:
    """What all terminals of a section have in common, besides what they run."""
    return now.new if now.need is Need.UNDER_WAY else ""


def _reader(terminals: Iterable[Terminal]) -> Callable[[str, int], list[Terminal]]:
    """Reads some that were read already."""
    ordered = sorted(terminals, key=lambda terminal: terminal.serial)
    return lambda after, first: [item for item in ordered if item.serial > after][:first]


def _find_running(terminal: Terminal) -> Running:
    return Running(*(getattr(terminal, name) for name in Running._fields))


def _name(running: Running, version: str, kind: str) -> str:
    return hashlib.sha256(repr((*running, version, kind)).encode()).hexdigest()[:12]


def _has(terminal: Terminal, search: str) -> bool:
    """Whether a search is in what a database looks at."""
    return any(search.casefold() in text.casefold() for text in (terminal.serial, terminal.version))
