"""Calls that a terminal's user makes, between link and customer center; no input or output (B4).

The server keeps what comes from the terminal (calls, keys, hanging up), and brings there what the
center says, one text after the other, until each is heard. What is said it does not know: the
center, a process of its own, reads calls and keys in the database, and says here that it is there.

When one of the two is lost, the call is over for the other: the center sees a line that is closing,
the terminal's user hears a last text, as soon as the terminal can be reached.
"""

from __future__ import annotations

from dataclasses import replace

import aiocoap

from unbrick.errors import ServerError
from unbrick.server.core.leases import Leases
from unbrick.server.records.calls import CALLER, Call, LineState, Saying, TerminalCall
from unbrick.server.records.contract import Records
from unbrick.wire.calls import CallRequest, HangUp, Key, SayRequest

CENTER_SILENCE_S = 15.0
"""Seconds after which a center that has said nothing is not there any more."""

LOOK_INTERVAL_S = 1.0
"""Seconds between two looks whether anybody calls."""

MAX_CALLS = 100
"""Calls at a time."""

MAX_KEYS = 200
"""In a call; the center ends it before that."""

BROKEN_OFF = "The customer center is not there any more. Please call again later."
LOST = "The line was lost, the call is over. Please call again."


class CallOverError(ServerError):
    """Nothing can be said in this call any more."""


class CallLines:
    """The lines between terminals and the center. Every ``now`` is in seconds.

    Args:
        records: where calls, keys and texts are kept; only this changes the terminal's end of them.
        leases: whether another server has the center.
    """

    def __init__(self, records: Records, leases: Leases) -> None:
        self._records, self._leases = records, leases
        self._there = False
        self._last_word: float | None = None
        self._looked = -LOOK_INTERVAL_S
        self._quiet = 0

    # What terminals send

    def call(self, asked: CallRequest, now: float) -> aiocoap.Message:
        """The answer to ``POST /call``."""
        calls = self._live()
        live = calls.get(asked.serial)
        if not self._is_there(now) or len(calls) >= MAX_CALLS:
            return aiocoap.Message(code=aiocoap.SERVICE_UNAVAILABLE)
        if self._records.terminal(asked.serial) is None:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        if live and live.number == asked.number and not self._has_begun(live):
            return aiocoap.Message(code=aiocoap.CHANGED)
        # One that was begun can only be called again by a terminal that has started anew.
        with self._records.transaction():
            if live:
                self._records.save_terminal_call(replace(live, state=LineState.OVER))
            draft = Call(0, asked.serial, CALLER, "", "", "", now, None)
            call = TerminalCall(self._records.add_call(draft).id, asked.serial, asked.number)
            self._records.add_terminal_call(call)
        self._quiet = 0
        return aiocoap.Message(code=aiocoap.CHANGED)

    def _is_there(self, now: float) -> bool:
        return self.has_center(now) or self._leases.center_elsewhere

    def has_center(self, now: float) -> bool:
        """Whether the center speaks to this server."""
        return self._there and now - (self._last_word or 0.0) < CENTER_SILENCE_S

    def wake(self) -> None:
        """Look for calls that others may have begun."""
        self._quiet = 0

    def _has_begun(self, call: TerminalCall) -> bool:
        said = self._records.sayings(call.call_id)
        return bool(call.keys) or any(saying.heard for saying in said)

    def key(self, pressed: Key) -> aiocoap.Message:
        """The answer to ``POST /key``."""
        live = self._live().get(pressed.serial)
        if live is None or live.number != pressed.number or live.state is not LineState.OPEN:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        if pressed.count > len(live.keys) or pressed.count >= MAX_KEYS:
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)
        if pressed.count == len(live.keys):
            self._save(replace(live, keys=live.keys + pressed.key))
        return aiocoap.Message(code=aiocoap.CHANGED)

    def hang_up(self, gone: HangUp) -> aiocoap.Message:
        """The answer to ``POST /hang-up``."""
        live = self._live().get(gone.serial)
        if live and live.number == gone.number:
            self._save(replace(live, state=LineState.OVER))
        return aiocoap.Message(code=aiocoap.CHANGED)

    # What the center says

    def center_is_there(self, now: float) -> None:
        """The center says so; it must, more often than every ``CENTER_SILENCE_S``."""
        self._there, self._last_word = True, now

    def center_leaves(self) -> list[TerminalCall]:
        """The center ends, or has just begun: nobody listens in calls that are going on.

        Returns:
            Those in which something is to be said.
        """
        self._there = False
        open_ = [call for call in self._live().values() if call.state is LineState.OPEN]
        if not open_:
            return []
        with self._records.transaction():
            return [self._close(call, BROKEN_OFF) for call in open_]

    def say(self, call_id: int, count: int, text: str, *, last: bool) -> TerminalCall:
        """Say text ``count`` of a call; the same one again changes nothing.

        Raises:
            CallOverError: there is no such call any more, or another text was that one.
            LinkError: it is too long, or no text.
        """
        call = self._records.terminal_call(call_id)
        if call is None or call.state is not LineState.OPEN:
            raise CallOverError(f"call {call_id} is over", hint="nobody would hear it")
        SayRequest(call.number, count, text, last).encode()
        said = self._records.sayings(call_id)
        saying = Saying(call_id, count, text, last)
        if count < len(said) and (said[count].text, said[count].final) == (text, last):
            return call
        if count != len(said) or (said and said[-1].final):
            raise CallOverError(
                f"text {count} of call {call_id} cannot follow {len(said)} others",
                hint="say them in their order, and nothing after the last",
            )
        self._records.save_saying(saying)
        return call

    # What goes to terminals

    def waiting(self, serial: str = "") -> list[TerminalCall]:
        """The calls, of all terminals or of one, in which something waits to be heard."""
        calls = self._live().values()
        found = [call for call in calls if not serial or call.serial == serial]
        return [call for call in found if self._next(call) is not None]

    def keeps(self, serial: str, now: float) -> bool:
        """Whether an update has to wait for the end of a call about this terminal.

        When it has begun, the terminal starts anew, and its user hears nothing any more.
        """
        line = self._live().get(serial)
        if line is not None and line.state is LineState.OPEN:
            return True
        calls = self._records.open_calls() if self._is_there(now) else []
        return any(call.serial == serial for call in calls)

    def message(self, call_id: int) -> bytes | None:
        """The payload of ``POST /say`` with what is to be heard next in a call, if anything is."""
        call = self._find(call_id)
        saying = self._next(call) if call else None
        if call is None or saying is None:
            return None
        return SayRequest(call.number, saying.count, saying.text, saying.final).encode()

    def heard(self, call_id: int, response: aiocoap.Message | None) -> bool:
        """What came of the last ``message``; gives whether there is more to say now."""
        call = self._find(call_id)
        saying = self._next(call) if call else None
        if call is None or saying is None:
            return False
        if response is None or response.code.class_ == 5:
            # Said when the terminal registers again.
            if call.state is LineState.OPEN:
                with self._records.transaction():
                    self._close(call, LOST)
            return False
        if not response.code.is_successful() or saying.final:
            self._save(replace(call, state=LineState.OVER))
            return False
        self._records.save_saying(replace(saying, heard=True))
        return self._next(call) is not None

    def look(self, now: float) -> list[TerminalCall]:
        """End what a center has left without a last word; gives where something is to be said."""
        # After a start of the server the center gets as long to say that it is there.
        if self._last_word is None:
            self._last_word = now
        self._last_word = min(self._last_word, now)  # The clock may have gone back.
        if self._looked <= now < self._looked + LOOK_INTERVAL_S:
            return []
        self._looked = now
        live = self._live()
        self._quiet = 0 if live else self._quiet + 1
        if self._leases.center_elsewhere:
            self._last_word = now
        if now - self._last_word >= CENTER_SILENCE_S:
            return self.center_leaves()
        left = [call for call in live.values() if self._is_left(call, now)]
        if not left:
            return []
        with self._records.transaction():
            return [self._close(call, LOST) for call in left]

    def _is_left(self, call: TerminalCall, now: float) -> bool:
        """Whether the center has ended a call, some time ago, and could not say so here."""
        if call.state is not LineState.OPEN or self._next(call) is not None:
            return False
        record = self._records.call(call.call_id)
        ended = record.ended if record else None
        return ended is not None and not 0 <= now - ended < CENTER_SILENCE_S

    def _live(self) -> dict[str, TerminalCall]:
        """The calls that are not over, as the records have them: what was written may be undone.

        After two looks that found none, not asked any more until there is one.
        """
        if self._quiet > 1 and not self._leases.others:
            return {}
        return {call.serial: call for call in self._records.terminal_calls()}

    def _find(self, call_id: int) -> TerminalCall | None:
        call = self._records.terminal_call(call_id)
        return None if call is None or call.state is LineState.OVER else call

    def _next(self, call: TerminalCall) -> Saying | None:
        said = self._records.sayings(call.call_id)
        return next((saying for saying in said if not saying.heard), None)

    def _close(self, call: TerminalCall, text: str) -> TerminalCall:
        """Say a last text; what is on its way may have been heard, and stays before it."""
        waiting = self._next(call)
        count = waiting.count + 1 if waiting else len(self._records.sayings(call.call_id))
        if waiting is None or not waiting.final:
            self._records.save_saying(Saying(call.call_id, count, text, final=True))
        return self._save(replace(call, state=LineState.CLOSING))

    def _save(self, call: TerminalCall) -> TerminalCall:
        self._records.save_terminal_call(call)
        return call
