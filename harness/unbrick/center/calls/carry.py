"""Carries out calls: between the machine of each and records, server and clock.

Whoever holds the phone (the page, or a terminal's console) begins a call, presses keys and hangs
up here. Everything that is heard and pressed is in the record before anybody hears it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

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
    ServerSilent,
    SetTimer,
    Situation,
    StartUpgrade,
    TimedOut,
    Told,
    UpgradeRefused,
    UpgradeStarted,
)
from unbrick.center.calls.menu import KEYS, Menu
from unbrick.errors import ServerError, UnbrickError
from unbrick.server.edge.client import SilentError
from unbrick.server.records.calls import CALLER, Call
from unbrick.server.records.contract import Records

MAX_CALLS = 100
"""Calls at a time."""

MAX_TEXT = 64 * 1024
"""Characters that the record of a call keeps of what was said."""


_LOG = logging.getLogger(__name__)
_NOTES = {UpgradeStarted: "has begun", UpgradeRefused: "refuses", ServerSilent: "does not answer"}


class CallError(UnbrickError):
    """There is no such call, or it cannot be made."""


class Upgrades(Protocol):
    """What a call needs of the server."""

    async def situation(self, serial: str) -> Situation:
        """How it is with a terminal.

        Raises:
            SilentError: the server does not answer.
        """

    async def upgrade(self, serial: str, version: str) -> str:
        """Start the upgrade; gives what the record should say of the way, if anything.

        Raises:
            SilentError: the server does not answer.
            ServerError: it refuses.
        """


class Speak(Protocol):
    """Brings texts to whoever calls from a terminal."""

    def __call__(self, call_id: int, texts: list[str], *, last: bool) -> None:
        """Say them; the call ends with them if they are the ``last``."""


class _Live:
    """A call that goes on."""

    def __init__(self, call: Call, machine: CallMachine) -> None:
        self.call = call
        self.machine = machine
        self.timer: asyncio.TimerHandle | None = None
        self.held: SetTimer | None = None
        self.question: asyncio.Task[None] | None = None


class Calls:
    """All calls of a center; to be used on its event loop.

    Args:
        menu: what callers hear.
        users: where calls are recorded. What an earlier life left open is ended.
        server: answers and starts upgrades.
        clock: seconds since 1970.
        changed: told of a call that has changed.

    Attributes:
        speak: told what is said in calls of terminals.
    """

    def __init__(
        self,
        menu: Menu,
        users: Records,
        server: Upgrades,
        clock: Callable[[], float],
        changed: Callable[[Call], None],
    ) -> None:
        self._menu, self._users, self._server = menu, users, server
        self._clock, self._changed = clock, changed
        self._live: dict[int, _Live] = {}
        self.speak: Speak | None = None
        for call in users.open_calls():
            self._users.save_call(
                replace(call, outcome=CallOutcome.BROKEN_OFF.value, ended=self._clock())
            )

    def begin(self, serial: str, caller: str) -> Call:
        """Begin a call about a terminal.

        Raises:
            CallError: there is one already, or there are too many.
        """
        for live in self._live.values():
            if live.call.serial == serial:
                raise CallError(
                    f"call {live.call.id} about {serial} is going on", hint="hang up there first"
                )
        if len(self._live) >= MAX_CALLS:
            raise CallError("all lines are busy", hint="try again when a call has ended")
        draft = Call(0, serial, caller, "", "", "", self._clock(), None)
        return self._begin(self._users.add_call(draft))

    def pick_up(self, call: Call) -> None:
        """A terminal's user calls; the server has made the record."""
        self._begin(call)

    def _begin(self, call: Call) -> Call:
        live = self._live[call.id] = _Live(call, CallMachine(self._menu, call.serial))
        self._handle(live, Begins())
        return live.call

    def goes_on(self, call_id: int) -> bool:
        """Whether a call has not ended."""
        return call_id in self._live

    def listens(self, call_id: int) -> None:
        """The terminal's user has heard all that was said: now silence counts.

        Raises:
            CallError: there is no such call.
        """
        live = self._find(call_id)
        if live.held:
            self._wait(live, live.held)

    def press(self, call_id: int, key: str) -> None:
        """The caller presses a key.

        Raises:
            CallError: there is no such call or no such key.
        """
        live = self._find(call_id)
        if len(key) != 1 or key not in KEYS:
            raise CallError("a telephone has no such key", hint=f"press one of {KEYS}")
        self._write(live, "caller", f"presses {key}", key)
        self._handle(live, KeyPressed(key))

    def hang_up(self, call_id: int) -> None:
        """The caller hangs up.

        Raises:
            CallError: there is no such call.
        """
        live = self._find(call_id)
        self._write(live, "caller", "hangs up")
        self._handle(live, HungUp())

    def choices(self, call_id: int) -> dict[str, str]:
        """For each key that means something now, what it does."""
        live = self._live.get(call_id)
        entry = live.machine.entry if live else None
        return dict(entry.keys) if entry else {}

    async def settled(self, call_id: int, seconds: float) -> None:
        """Wait until the server has answered, but not longer than that."""
        live = self._live.get(call_id)
        while live and live.question and not live.question.done():
            done, _ = await asyncio.wait({live.question}, timeout=seconds)
            if not done:
                return

    async def close(self) -> None:
        """End all calls; what the server has been told to do goes on there."""
        for live in list(self._live.values()):
            if live.question:
                live.question.cancel()
                await asyncio.gather(live.question, return_exceptions=True)
            self._end(live, CallOutcome.BROKEN_OFF)

    def _find(self, call_id: int) -> _Live:
        live = self._live.get(call_id)
        if live is None:
            raise CallError(f"call {call_id} is over", hint="begin another")
        return live

    def _handle(self, live: _Live, event: Event) -> None:
        actions = live.machine.handle(event)
        for action in actions:
            self._carry_out(live, action)
        said = [action.text for action in actions if isinstance(action, SayText)]
        if said and self.speak and live.call.caller == CALLER:
            last = any(isinstance(action, EndCall) for action in actions)
            self.speak(live.call.id, said, last=last)
        self._changed(live.call)

    def _carry_out(self, live: _Live, action: Action) -> None:
        match action:
            case SayText(text):
                self._write(live, "center", text)
            case SetTimer() if live.call.caller == CALLER:
                live.held = action
            case SetTimer():
                self._wait(live, action)
            case AskSituation():
                live.question = asyncio.get_running_loop().create_task(self._ask(live))
            case StartUpgrade(version):
                self._write(live, "server", f"told to upgrade to {version}")
                live.question = asyncio.get_running_loop().create_task(self._start(live, version))
            case EndCall(outcome):
                self._end(live, outcome)

    def _wait(self, live: _Live, action: SetTimer) -> None:
        if live.timer:
            live.timer.cancel()
        loop = asyncio.get_running_loop()
        event = TimedOut(action.timer)
        live.held, live.timer = None, loop.call_later(action.seconds, self._handle, live, event)

    async def _ask(self, live: _Live) -> None:
        try:
            event: Event = Told(await self._server.situation(live.call.serial))
        except UnbrickError:
            event = ServerSilent()
        except Exception:  # noqa: BLE001 - a caller must not wait for ever
            _LOG.exception("call %d", live.call.id)
            event = ServerSilent()
        self._handle(live, event)

    async def _start(self, live: _Live, version: str) -> None:
        event: Event
        try:
            way = await self._server.upgrade(live.call.serial, version)
            if way:
                self._write(live, "server", way)
            event = UpgradeStarted()
        except SilentError:
            event = ServerSilent()
        except ServerError as error:
            event = UpgradeRefused(str(error))
        except Exception:  # noqa: BLE001 - as above
            _LOG.exception("call %d", live.call.id)
            event = ServerSilent()
        self._write(live, "server", _NOTES[type(event)])
        self._handle(live, event)

    def _write(self, live: _Live, who: str, text: str, key: str = "") -> None:
        call = live.call
        said = call.text
        if len(said) + len(text) < MAX_TEXT:
            said += f"{who}: {' '.join(text.split())}\n"
        live.call = replace(call, keys=call.keys + key, text=said)
        self._users.save_call(live.call)

    def _end(self, live: _Live, outcome: CallOutcome) -> None:
        if live.timer:
            live.timer.cancel()
        self._live.pop(live.call.id, None)
        live.call = replace(live.call, outcome=outcome.value, ended=self._clock())
        self._users.save_call(live.call)
