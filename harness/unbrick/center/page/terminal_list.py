"""The list of terminals, page by page, however many there are.

It is made of sections. What a terminal runs decides what is offered to it, so that terminals that
run the same are one section, unless something is under way with them. Nothing is read of a section
but what is shown of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from unbrick.center.calls.machine import Need, Situation, shorten_version
from unbrick.center.offer import judge_situation
from unbrick.server.records.calls import Call
from unbrick.server.records.contract import Records
from unbrick.server.records.people import Subscriber
from unbrick.server.records.sessions import CommandedSession
from unbrick.server.records.updates import Running, Terminal, Update
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
        self._updates = {update.serial: update for update in records.unfinished_updates()}
        self._sessions = {session.serial: [session] for session in records.unfinished_sessions()}
        self._busy = {*self._updates, *self._sessions}
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
        return [
            Listed(
                terminal,
                owners.get(terminal.serial),
                self._judge(terminal),
                self._updates.get(terminal.serial),
                calls.get(terminal.serial),
            )
            for terminal in terminals
        ]

    def _judge(self, terminal: Terminal) -> Situation:
        update = self._updates.get(terminal.serial)
        sessions: list[CommandedSession] = self._sessions.get(terminal.serial, [])
        return judge_situation(terminal, self._images, [update] if update else [], sessions)

    def _list_sections(self) -> list[_Section]:
        """All that is wanted, in the order of the list."""
        search, wanted = self._wanted.search, self._wanted
        busy = self._records.terminals_with(self._busy)
        theirs = Counter(_find_running(terminal) for terminal in busy)
        theirs_found = Counter(
            _find_running(terminal) for terminal in busy if _has(terminal, search)
        )
        found = self._records.running(search) if search else self._running
        sections = []
        covered = set()
        for running, every in sorted(self._running.items()):
            situation = judge_situation(running, self._images, (), ())
            kind = classify_status(running, situation)
            if not self._fits(kind, running):
                continue
            if search and search.casefold() in describe_status(running, situation).casefold():
                covered.add(running)
                some, text = every - theirs[running], ""
            else:
                some, text = found.get(running, 0) - theirs_found[running], search
            if some:
                sections.append(_Section(_name(running), kind, some, self._reader(running, text)))
        there = [item for item in busy if self._fits("busy", item) and self._finds(item)]
        sections.append(_Section("busy", "busy", len(there), _reader(there)))
        sections.sort(key=lambda section: list(KINDS).index(section.kind))
        if search and self._owners:
            theirs_too = self._find_owned(covered)
            sections.insert(0, _Section("owned", wanted.kind, len(theirs_too), _reader(theirs_too)))
        return [section for section in sections if section.count]

    def _fits(self, kind: str, software: Terminal | Running) -> bool:
        """Whether the filters take it."""
        wanted = self._wanted
        return wanted.kind in ("", kind) and wanted.version in ("", software.version)

    def _finds(self, terminal: Terminal) -> bool:
        """Whether the search finds a terminal with which something is under way."""
        search, words = self._wanted.search, describe_status(terminal, self._judge(terminal))
        return _has(terminal, search) or search.casefold() in words.casefold()

    def _find_owned(self, covered: set[Running]) -> list[Terminal]:
        """Terminals that are found by their subscribers alone: no other section has them."""
        found = []
        for terminal in self._records.terminals_with(
            self._records.owned_by(self._wanted.search, MOST_OWNERS)
        ):
            kind = classify_status(terminal, self._judge(terminal))
            elsewhere = _has(terminal, self._wanted.search) or (
                self._finds(terminal) if kind == "busy" else _find_running(terminal) in covered
            )
            if self._fits(kind, terminal) and not elsewhere:
                found.append(terminal)
        return found

    def _reader(self, running: Running, search: str) -> Callable[[str, int], list[Terminal]]:
        """Reads those that run something, and with which nothing is under way."""

        def read(after: str, first: int) -> list[Terminal]:
            found: list[Terminal] = []
            while len(found) < first:
                room = first - len(found)
                some = self._records.terminals_running(
                    running, search=search, after=after, first=room
                )
                found += [item for item in some if item.serial not in self._busy]
                if len(some) < room:
                    break
                after = some[-1].serial
            return found

        return read


def _reader(terminals: Iterable[Terminal]) -> Callable[[str, int], list[Terminal]]:
    """Reads some that were read already."""
    ordered = sorted(terminals, key=lambda terminal: terminal.serial)
    return lambda after, first: [item for item in ordered if item.serial > after][:first]


def _find_running(terminal: Terminal) -> Running:
    return Running(*(getattr(terminal, name) for name in Running._fields))


def _name(running: Running) -> str:
    return hashlib.sha256(repr(tuple(running)).encode()).hexdigest()[:12]


def _has(terminal: Terminal, search: str) -> bool:
    """Whether a search is in what a database looks at."""
    return any(search.casefold() in text.casefold() for text in (terminal.serial, terminal.version))
