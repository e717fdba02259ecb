"""Gives keyboard, terminal, link and screen their turns until the person leaves."""

from __future__ import annotations

import os
import select
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from unbrick.console.keys import Keys
from unbrick.console.typist import KNOWN_PROMPT_SILENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.console.commands import Commands
    from unbrick.console.power import PowerSwitch
    from unbrick.console.screen import Screen
    from unbrick.console.typist import Typist

PROMPT = "bench> "
TURN_S = 0.01  # how long the terminal runs at most before everybody else has a turn
MAX_BACKLOG_BYTES = 1 << 20  # typed ahead; what is more waits where it comes from
SETTLED_SILENCE_S = 0.2  # silence after which a terminal at its prompt has said everything


class SessionPeer(Protocol):
    """Something that talks to the terminal, like a peer of the bench."""

    def step(self, now: float, /) -> float | None:
        """Do what is due at ``now`` (seconds); return the time of the next deadline, if any."""


class WireView:
    """Shows the terminal's output."""

    def __init__(self, typist: Typist, screen: Screen) -> None:
        self._typist, self._screen = typist, screen

    def step(self, _now: float) -> None:
        """Show what has come."""
        self._screen.hear(self._typist.read())


class _CalledAwayError(Exception):
    """The bench is wanted while a debugger keeps the terminal stopped."""


class Session:
    """One sitting at a terminal's console.

    Args:
        power: of the terminal, which this lets run.
        typist: types at it.
        screen: shows it.
        peers: whoever else talks to the terminal.
        keyboard: the descriptor that typing comes from.
        person: whether a person types, and sees the result before typing on. A script's commands
            wait until the terminal has taken the earlier typing.
        behind_key: whether typing goes to the terminal, and commands come after a key. Otherwise
            there are commands alone.
        told: whether this has to end.

    Attributes:
        commands: of the bench; to be set before :meth:`run`.
    """

    commands: Commands

    def __init__(
        self,
        power: PowerSwitch,
        typist: Typist,
        screen: Screen,
        peers: list[SessionPeer],
        keyboard: int,
        *,
        person: bool,
        behind_key: bool,
        told: Callable[[], bool],
    ) -> None:
        self._power, self._typist, self._screen, self._peers = power, typist, screen, peers
        self._keyboard, self._person, self._behind_key = keyboard, person, behind_key
        self._told = told
        self._typed: deque[bytes | str] = deque()
        self._ahead = 0
        self._no_more = False
        self._keys = Keys(self._text, self._command, always=not behind_key)
        if person and behind_key:
            self._keys.show, self._keys.opened = screen.show, self._opened

    def run(self) -> None:
        """Run until the person leaves, the input ends, or this is told to end."""
        self._prompt()
        while not (self._told() or self.commands.ended or self._screen.gone):
            self._read_keyboard()
            self._work_off()
            if self._over():
                break
            now = self._power.engine.now
            due = [peer.step(now) for peer in self._peers]
            self._typist.step(now)
            self._screen.flush()
            if self._screen.congested:
                self._screen.wait(TURN_S)  # what is printed meanwhile waits in the terminal
                continue
            deadline = min((time for time in due if time is not None), default=now + TURN_S)
            with suppress(_CalledAwayError):
                self._power.advance(min(max(deadline - now, 1e-6), TURN_S))
        self._screen.new_line()
        self._screen.release()
        self._screen.new_line()

    def idle(self) -> None:
        """For an engine that a debugger has stopped: see to keyboard and screen.

        Raises:
            Exception: there is something to do; of a kind that :meth:`run` knows.
        """
        self._read_keyboard()
        self._screen.flush()
        if self._told() or self._no_more or any(isinstance(item, str) for item in self._typed):
            raise _CalledAwayError

    def _read_keyboard(self) -> None:
        if self._no_more or self._ahead + self._typist.waiting >= MAX_BACKLOG_BYTES:
            return
        if select.select([self._keyboard], [], [], 0)[0]:
            try:
                data = os.read(self._keyboard, 4096)
            except OSError:  # the window is gone
                data = b""
            self._keys.feed(data)
            if not data:
                self._keys.end()
                self._no_more = True

    def _text(self, data: bytes) -> None:
        self._ahead += len(data)
        self._typed.append(data)

    def _command(self, line: str) -> None:
        if self._person and self._behind_key:
            self._screen.show(b"\r\n")
        self._typed.append(line)

    def _opened(self, there: bool) -> None:
        if there:
            self._screen.hold(PROMPT)
        else:
            self._screen.show(b"\r\n")
            self._screen.release()

    def _work_off(self) -> None:
        """Pass on typing, then carry out commands."""
        while self._typed and not self.commands.ended:
            item = self._typed[0]
            if isinstance(item, bytes):
                self._ahead -= len(item)
                self._typist.write(item)
            elif self._person or self._settled():
                self.commands.run(item)
                if not self.commands.ended:
                    self._screen.release()
                    self._prompt()
            else:
                break
            self._typed.popleft()

    def _prompt(self) -> None:
        if self._person and not self._behind_key:
            self._screen.show(PROMPT.encode())

    def _settled(self) -> bool:
        """Whether the terminal has taken all typing, and has answered."""
        typist = self._typist
        if not typist.powered:
            return True
        long = SETTLED_SILENCE_S if typist.listened_to else KNOWN_PROMPT_SILENCE_S
        return not typist.waiting and (typist.silence >= long or typist.goes_on_speaking)

    def _over(self) -> bool:
        """Whether all typing was worked off, and nothing more will come."""
        if not self._no_more or not self._behind_key:
            return False  # without a key, others use the terminal
        return self._person or (not self._typed and self._settled())
