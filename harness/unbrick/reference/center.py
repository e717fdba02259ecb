"""The customer center in a simulation: a peer without event loop, HTTP or operators.

It invites users whose terminals need an upgrade, and takes their calls, with the menu and the
machine of the real one; what it orders, the server's core does at once.
"""

from __future__ import annotations

from dataclasses import replace

from unbrick.center.calls.machine import (
    Action,
    AskSituation,
    Begins,
    CallMachine,
    CallOutcome,
    EndCall,
    Event,
    HungUp,
    KeyPressed,
    SayText,
    SetTimer,
    StartUpgrade,
    TimedOut,
    Told,
    UpgradeRefused,
    UpgradeStarted,
)
from unbrick.center.calls.menu import Menu, read_menu
from unbrick.center.calls.notify import list_invitations
from unbrick.center.calls.terminal import split_text
from unbrick.center.offer import find_situation
from unbrick.errors import ServerError
from unbrick.server.core.core import ServerCore
from unbrick.server.errors import NotCommandedError
from unbrick.server.records.calls import Call, LineState

LOOK_INTERVAL_S = 0.25
"""Seconds between two looks for calls and keys."""


class _Line:
    """A call: its record, its machine, and the time that runs once all is heard."""

    def __init__(self, call: Call, machine: CallMachine) -> None:
        self.call, self.machine = call, machine
        self.keys = self.said = 0
        self.held: SetTimer | None = None
        self.timer: tuple[float, int] | None = None


class SimulatedCenter:
    """A peer of a bench; all times are the bench's.

    Args:
        core: the server.
        menu: what callers hear; the one that comes with the package by default.
        notify: users are told what is ready for their terminals.
    """

    def __init__(self, core: ServerCore, menu: Menu | None = None, *, notify: bool = True) -> None:
        self._core, self._records = core, core.records
        self._menu = menu or read_menu()
        self._notify = notify
        self._lines: dict[int, _Line] = {}
        self._left = core.records.open_calls()
        core.center_leaves()

    def step(self, now: float) -> float:
        """Do what is due; gives when to look again."""
        self._core.lines.center_is_there(now)
        while self._left:
            broken_off = replace(self._left.pop(), outcome=CallOutcome.BROKEN_OFF.value, ended=now)
            self._records.save_call(broken_off)
        if self._notify:
            for serial, _, text in list_invitations(self._records, self._menu):
                self._core.send_text(serial, text, now)
        for end in self._records.terminal_calls():
            call = self._records.call(end.call_id)
            new = end.call_id not in self._lines and end.state is LineState.OPEN
            if new and call and call.ended is None:
                machine = CallMachine(self._menu, call.serial)
                line = self._lines[call.id] = _Line(call, machine)
                self._handle(line, Begins(), now)
        for line in list(self._lines.values()):
            self._listen(line, now)
            if line.call.ended is not None:
                del self._lines[line.call.id]
        return now + LOOK_INTERVAL_S

    def _listen(self, line: _Line, now: float) -> None:
        end = self._records.terminal_call(line.call.id)
        if end is None or end.state is not LineState.OPEN:
            self._write(line, "caller", "hangs up")
            self._handle(line, HungUp(), now)
            return
        for key in end.keys[line.keys :]:
            line.keys += 1
            line.call = replace(line.call, keys=line.call.keys + key)
            self._write(line, "caller", f"presses {key}")
            self._handle(line, KeyPressed(key), now)
        heard = sum(saying.heard for saying in self._records.sayings(line.call.id))
        if line.held and heard == line.said:
            line.timer, line.held = (now + line.held.seconds, line.held.timer), None
        if line.timer and now >= line.timer[0]:
            number, line.timer = line.timer[1], None
            self._handle(line, TimedOut(number), now)

    def _handle(self, line: _Line, event: Event, now: float) -> None:
        events = [event]
        while events:
            actions = line.machine.handle(events.pop(0))
            self._say(line, actions)
            for action in actions:
                answer = self._carry_out(line, action, now)
                events += [answer] if answer else []

    def _say(self, line: _Line, actions: list[Action]) -> None:
        last = any(isinstance(action, EndCall) for action in actions)
        parts = [part for a in actions if isinstance(a, SayText) for part in split_text(a.text)]
        for at, part in enumerate(parts, 1):
            self._core.say(line.call.id, line.said, part, last=last and at == len(parts))
            line.said += 1

    def _carry_out(self, line: _Line, action: Action, now: float) -> Event | None:
        """Do it; gives the server's answer, if it is a question or an order."""
        serial = line.call.serial
        match action:
            case SayText(text):
                self._write(line, "center", text)
            case SetTimer():
                line.held = action
            case AskSituation():
                return Told(find_situation(self._records, serial))
            case StartUpgrade(version):
                self._write(line, "server", f"told to upgrade to {version}")
                return self._start(line, version, now)
            case EndCall(outcome):
                line.call = replace(line.call, outcome=outcome.value, ended=now)
                self._records.save_call(line.call)
        return None

    def _start(self, line: _Line, version: str, now: float) -> Event:
        start, serial = self._core.start_update, line.call.serial
        try:
            try:
                start(serial, version, now, commanded=True)
                self._write(line, "server", "by commands")
            except NotCommandedError as error:
                start(serial, version, now)
                self._write(line, "server", f"not by commands, but by a file: {error}")
        except ServerError as error:
            self._write(line, "server", "refuses")
            return UpgradeRefused(str(error))
        self._write(line, "server", "has begun")
        return UpgradeStarted()

    def _write(self, line: _Line, who: str, text: str) -> None:
        line.call = replace(line.call, text=f"{line.call.text}{who}: {text}\n")
        self._records.save_call(line.call)
