"""What the pages show, as plain values for the templates: no HTML here, no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from unbrick.center.calls.machine import Situation
from unbrick.center.desk import Desk
from unbrick.center.offer import judge_situation
from unbrick.center.page.live import read_topic
from unbrick.center.page.nor_map import Block, BlockMark, draw_nor_map, find_blocks
from unbrick.center.page.progress import SessionView, UpdateStage, list_data, mark_blocks
from unbrick.center.page.rollouts import RolloutPage, RolloutView, view_rollout
from unbrick.center.page.terminal_list import (
    ListPage,
    TerminalList,
    Wanted,
    classify_status,
    describe_status,
)
from unbrick.layout import reference_layout
from unbrick.server.records.analysis import RangeKind
from unbrick.server.records.calls import Call
from unbrick.server.records.people import Subscriber
from unbrick.server.records.rollouts import MemberState, Rollout
from unbrick.server.records.updates import Image, Terminal, TextMessage, Update, UpdateState

MOST_ROWS = 200
"""Calls and entries of the log on one page."""

MOST_LINES = 50
"""Events, messages and calls that a terminal's page shows; the latest."""

_STAGES = (
    (UpdateState.ANNOUNCED, "announced"),
    (UpdateState.TRANSFERRING, "being transferred"),
    (UpdateState.RECEIVED, "received"),
    (UpdateState.CHECKED, "checked"),
    (UpdateState.REWRITING, "being rewritten"),
    (UpdateState.SUCCEEDED, "runs the new software"),
)


def format_moment(seconds: float | None) -> str:
    """A time for a person, UTC."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_machine_time(seconds: float) -> str:
    """A time for the ``datetime`` of a ``time`` element."""
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class UpdateView:
    """An update, its stages and how far its transfer is, in per cent; ``session``: commanded.

    ``is_known``: whether the server has said how far the transfer is.
    """

    update: Update
    stages: list[UpdateStage]
    percent: int
    sent: int
    size: int
    session: SessionView | None = None
    is_known: bool = True

    @property
    def cancellable(self) -> bool:
        """Whether the server would still cancel it."""
        if self.session:
            return self.session.cancellable and not self.update.state.ended
        return self.update.state in (
            *(UpdateState.PENDING, UpdateState.ANNOUNCED, UpdateState.TRANSFERRING),
        )

    @property
    def abandonable(self) -> bool:
        """Whether only giving it up would end it now, if its terminal does not come back."""
        going = self.session is not None and not self.session.session.state.ended
        return going and not self.cancellable


@dataclass(frozen=True)
class Row:
    """A terminal among others."""

    terminal: Terminal
    owner: Subscriber | None
    situation: Situation
    update: UpdateView | None
    call: Call | None

    @property
    def words(self) -> str:
        """How it is with it, in words."""
        return describe_status(self.terminal, self.situation)

    @property
    def kind(self) -> str:
        """The style of its state."""
        return classify_status(self.terminal, self.situation)


@dataclass(frozen=True)
class TerminalView:
    """A terminal with all that is known of it."""

    row: Row
    nor: list[Block]
    update: UpdateView | None
    messages: list[TextMessage]
    calls: list[Call]
    history: list[tuple[float, str]]
    images: list[Image]


class Views:
    """Makes what the pages show.

    Args:
        desk: what is known.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._records = desk.records
        self._settled: dict[int, RolloutView] = {}
        """Of rollouts of which nothing goes on any more: their terminals need not be counted."""

    def rows(self, wanted: Wanted, *, owners: bool) -> tuple[list[Row], ListPage]:
        """A page of the list of terminals.

        Those that need somebody come first, then those that something happens with, then those
        with an upgrade to offer.

        Args:
            wanted: which of them.
            owners: whether subscribers are shown, and found.
        """
        page = TerminalList(self._records, wanted, owners=owners).make()
        rows = [
            Row(
                item.terminal,
                item.owner,
                item.situation,
                self._update(item.update, steps=False) if item.update else None,
                item.call,
            )
            for item in page.terminals
        ]
        return rows, page

    def terminal(self, serial: str, *, owners: bool) -> TerminalView | None:
        """All about a terminal, if it has registered."""
        records = self._records
        terminal = records.terminal(serial)
        if terminal is None:
            return None
        updates = records.updates(serial)
        images = records.images()
        call = next((call for call in records.open_calls() if call.serial == serial), None)
        update = self._update(updates[-1]) if updates else None
        row = Row(
            terminal,
            records.owner(serial) if owners else None,
            judge_situation(terminal, images, updates, records.unfinished_sessions(serial)),
            update if update and not update.update.state.ended else None,
            call,
        )
        installed = records.image(terminal.digest)
        return TerminalView(
            row,
            draw_nor_map(installed.size if installed else 0, self._marks(update)),
            update,
            records.messages(serial)[: -MOST_LINES - 1 : -1],
            records.calls(serial, newest=MOST_LINES)[::-1],
            self._history(serial),
            [image for image in images if image.hardware_id == terminal.hardware_id],
        )

    def rollouts(self) -> list[RolloutView]:
        """The newest rollouts, the newest one first."""
        return [self._rollout(item) for item in self._records.rollouts.newest(MOST_LINES)[::-1]]

    def rollout(self, rollout_id: int) -> RolloutPage | None:
        """All about a rollout, if there is one with that number."""
        rollouts = self._records.rollouts
        rollout = rollouts.get(rollout_id)
        if rollout is None:
            return None
        failed = (MemberState.FAILED, MemberState.FORGIVEN)
        failures = rollouts.members(rollout.id, states=failed, first=MOST_LINES)
        return RolloutPage(self._rollout(rollout), failures, rollouts.history(rollout.id)[::-1])

    def _rollout(self, rollout: Rollout) -> RolloutView:
        known = self._settled.get(rollout.id)
        if known is not None and known.rollout == rollout:
            return known
        view = view_rollout(rollout, self._records.rollouts.group_counts(rollout))
        if rollout.settled:
            self._settled[rollout.id] = view
        return view

    def fingerprint(self, topic: str) -> object:
        """A value that differs when what a topic's pages show has changed.

        Topics: ``terminals``, ``terminal:<serial>``, ``call:<id>``, ``rollouts``,
        ``rollout:<id>``. What is said in a call is not
        in it: whoever carries out the call tells.
        """
        kind, serial, number = read_topic(topic)
        if kind == "rollouts":
            return tuple((view.rollout, view.total) for view in self.rollouts())
        if kind == "rollout":
            rollout = self._records.rollouts.get(number)
            return rollout and (rollout, tuple(self._records.rollouts.group_counts(rollout)))
        records = self._records
        if kind == "terminals":
            seen = records.last_registration(), tuple(sorted(records.running().items()))
            under_way = (
                *(tuple(records.count_updates().items()), tuple(records.count_sessions().items())),
                *(records.last_change(), self._desk.sent_in_all),
            )
            return hash((seen, under_way, len(records.images())))
        if kind == "call":
            call = records.call(number)
            return hash(self._under_way(call.serial)) if call else None
        if kind != "terminal":
            return None
        sessions = records.sessions(serial)[-1:]
        return hash(
            (
                records.terminal(serial),
                tuple(records.updates(serial)),
                self._under_way(serial),
                tuple(records.messages(serial)),
                len(records.events(serial=serial)),
                tuple(sessions),
                tuple(records.backups(serial)),
                tuple(step for item in sessions for step in records.steps(item.id)),
            )
        )

    def _under_way(self, serial: str) -> tuple[object, ...]:
        """What is under way with a terminal, and how far it is."""
        updates = self._records.unfinished_updates_of([serial])
        sessions = self._records.unfinished_sessions_of([serial])
        return *((item, self._desk.sent(item.id)) for item in updates), *sessions

    def _session(self, update: Update) -> SessionView | None:
        """The session of a commanded update."""
        records = self._records
        found = [item for item in records.sessions(update.serial) if item.update_id == update.id]
        if not found:
            return None
        session = found[-1]
        kept = [item for item in records.backups(update.serial) if item.session_id == session.id]
        entries = records.audit(serial=update.serial, newest=MOST_LINES)
        since = [entry for entry in entries if entry.time >= session.created]
        steps = records.steps(session.id)
        return SessionView(session, steps, list_data(since), next(iter(kept), None))

    def _update(self, update: Update, *, steps: bool = True) -> UpdateView:
        """An update; of a commanded one with its ``steps``, which are many."""
        size = self._records.file_size(update)
        session = self._session(update) if update.commanded and steps else None
        if session:
            percent = 100 * session.done // len(session.steps) if session.steps else 0
            return UpdateView(update, session.stages, percent, 0, size, session)
        sent = self._desk.sent(update.id)
        states = [state for state, _ in _STAGES]
        reached = self._reached(update, states)
        stages = []
        for number, (_, words) in enumerate(_STAGES):
            state = "done" if number < reached else "later"
            if number == reached:
                ended = {UpdateState.SUCCEEDED: "done"}.get(update.state, "failed")
                state = ended if update.state.ended else "now"
            stages.append(UpdateStage(words, state))
        all_there = reached > states.index(UpdateState.TRANSFERRING)
        percent = 100 if all_there else min(100, 100 * sent // size) if size else 0
        is_known = all_there or self._desk.knows_sent(update.id)
        return UpdateView(
            update, stages, percent, size if all_there else sent, size, is_known=is_known
        )

    def _reached(self, update: Update, states: list[UpdateState]) -> int:
        """The number of the step that an update is at, or that it ended in."""
        if update.state in states:
            return states.index(update.state)
        if not update.state.ended:
            return -1
        events = self._records.events(update_id=update.id)
        been = [states.index(event.state) for event in events if event.state in states]
        return been[-1] if been else 0

    def _marks(self, view: UpdateView | None) -> dict[int, tuple[BlockMark, int]]:
        if view is None:
            return {}
        if view.session:
            return mark_blocks(view.session.steps)
        update = view.update
        image = self._records.image(update.digest)
        mark = {
            UpdateState.REFUSED: None,
            UpdateState.CANCELLED: None,
            UpdateState.FAILED: None,
            UpdateState.SUCCEEDED: BlockMark.DONE,
            UpdateState.REWRITING: BlockMark.REWRITING,
        }.get(update.state, BlockMark.DUE)
        if image is None or mark is None:
            return {}
        return dict.fromkeys(self._differing(update, image), (mark, 0))

    def _differing(self, update: Update, image: Image) -> list[int]:
        """The blocks that an update changes: as prepared, otherwise all that the image lies in."""
        ranges = self._records.ranges(update.from_digest, update.digest, RangeKind.ERASE)
        if ranges:
            return [n for item in ranges for n in find_blocks(item.offset, item.length)]
        return list(find_blocks(reference_layout().partition("application").offset, image.size))

    def _history(self, serial: str) -> list[tuple[float, str]]:
        lines = []
        for event in self._records.events(serial=serial)[-MOST_LINES:]:
            about = f"update {event.update_id}: " if event.update_id else ""
            words = ", ".join(
                part for part in (event.state and event.state.value, event.text) if part
            )
            lines.append((event.time, about + words))
        return lines[::-1]
