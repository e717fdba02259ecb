"""A call to the customer center as a state machine without input or output (row B4).

It is given events and gives actions; who holds the phone, a clerk at the page or a user at the
terminal's console, it does not know ::

                        needed, unnecessary, under way
    idle → asking ──────────────────────────────────────→ menu ⇄ (keys, silence)
              ↑                                            │ key: upgrade
              └─────────── refused: how is it now? ── starting → menu `started`

From everywhere it ends: the caller hangs up or chooses to, makes no choice, or the server gives no
answer. While the upgrade is being started it does not end before the server has answered, so that
the record says what came of it, whether or not the caller is still there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from unbrick.center.calls.menu import (
    END,
    NEEDED,
    REPEAT,
    STARTED,
    UNDER_WAY,
    UNNECESSARY,
    UPGRADE,
    Menu,
    MenuEntry,
    fill,
)

MAX_KEYS = 100
"""Keys after which a call is ended, whatever they are."""

MOMENT_S = 5.0
"""Seconds that the server may take before the caller hears that it takes a moment."""


class Need(Enum):
    """Whether a terminal needs an upgrade."""

    NEEDED = "needed"
    UNNECESSARY = "unnecessary"
    UNDER_WAY = "under way"
    UNKNOWN = "unknown terminal"


_MENU_OF = {Need.NEEDED: NEEDED, Need.UNNECESSARY: UNNECESSARY, Need.UNDER_WAY: UNDER_WAY}


@dataclass(frozen=True)
class Situation:
    """How it is with a terminal: it runs ``old``; ``new`` is offered or under way.

    Attributes:
        why: the reason, for a person.
    """

    need: Need
    old: str = ""
    new: str = ""
    why: str = ""


class CallOutcome(Enum):
    """How a call ended."""

    STARTED = "upgrade started"
    ENDED = "ended by the caller's choice"
    HUNG_UP = "hung up"
    NO_CHOICE = "no choice made"
    REFUSED = "upgrade refused"
    NO_ANSWER = "no answer from the server"
    UNKNOWN = "unknown terminal"
    BROKEN_OFF = "broken off"


# Events


@dataclass(frozen=True)
class Begins:
    """The call begins."""


@dataclass(frozen=True)
class KeyPressed:
    """The caller has pressed a key."""

    key: str


@dataclass(frozen=True)
class HungUp:
    """The caller is gone."""


@dataclass(frozen=True)
class TimedOut:
    """The time of a ``SetTimer`` is over."""

    timer: int


@dataclass(frozen=True)
class Told:
    """The server's answer to ``AskSituation``."""

    situation: Situation


@dataclass(frozen=True)
class UpgradeStarted:
    """The server's answer to ``StartUpgrade``: it has begun."""


@dataclass(frozen=True)
class UpgradeRefused:
    """The server's answer to ``StartUpgrade``: it will not."""

    why: str


@dataclass(frozen=True)
class ServerSilent:
    """The server has not answered the question or the order, and will not."""


Event = (
    Begins | KeyPressed | HungUp | TimedOut | Told | UpgradeStarted | UpgradeRefused | ServerSilent
)


# Actions


@dataclass(frozen=True)
class SayText:
    """Say this to the caller."""

    text: str


@dataclass(frozen=True)
class AskSituation:
    """Ask the server how it is with the terminal; ``Told`` or ``ServerSilent`` must come of it."""


@dataclass(frozen=True)
class StartUpgrade:
    """Have the server upgrade to ``version``; one of its three answers must come of it."""

    version: str


@dataclass(frozen=True)
class SetTimer:
    """Give ``TimedOut`` after ``seconds``; every earlier timer has lost its meaning."""

    timer: int
    seconds: float


@dataclass(frozen=True)
class EndCall:
    """The call is over."""

    outcome: CallOutcome


Action = SayText | AskSituation | StartUpgrade | SetTimer | EndCall


class CallState(Enum):
    """Where a call is."""

    IDLE = "idle"
    ASKING = "asking"
    MENU = "menu"
    STARTING = "starting"
    ENDED = "ended"


class CallMachine:
    """One call about one terminal.

    Attributes:
        state: where it is.
        hung_up: the caller is gone; only the server's answer is waited for.
    """

    def __init__(self, menu: Menu, serial: str) -> None:
        self.state = CallState.IDLE
        self.hung_up = False
        self._menu = menu
        self._serial = serial
        self._name = ""
        self._situation = Situation(Need.UNKNOWN)
        self._timer = 0
        self._strikes = 0
        self._keys = 0
        self._refused = ""
        self._started = False

    @property
    def entry(self) -> MenuEntry | None:
        """The menu that waits for a key, if one does."""
        return self._menu.entries[self._name] if self.state is CallState.MENU else None

    def handle(self, event: Event) -> list[Action]:
        """What is to be done about an event, in order; nothing about one that means nothing now."""
        if self.state is CallState.ENDED:
            return []
        match event:
            case Begins():
                return self._ask() if self.state is CallState.IDLE else []
            case KeyPressed(key):
                return self._key(key)
            case HungUp():
                return self._hang_up()
            case TimedOut(timer):
                return self._late() if timer == self._timer else []
            case Told(situation):
                return self._told(situation) if self.state is CallState.ASKING else []
            case ServerSilent():
                return (
                    self._silent() if self.state in (CallState.ASKING, CallState.STARTING) else []
                )
            case UpgradeStarted() | UpgradeRefused():
                return self._answered(event) if self.state is CallState.STARTING else []

    def _ask(self) -> list[Action]:
        self.state = CallState.ASKING
        return [AskSituation(), self._set_timer(MOMENT_S)]

    def _told(self, situation: Situation) -> list[Action]:
        self._situation = situation
        if situation.need is Need.UNKNOWN:
            return self._end(CallOutcome.UNKNOWN, "unknown")
        if self._refused and situation.need is Need.NEEDED:
            return self._end(CallOutcome.REFUSED, "refused", why=self._refused)
        self._refused = ""
        return self._enter(_MENU_OF[situation.need])

    def _enter(self, name: str) -> list[Action]:
        self.state, self._name, self._strikes = CallState.MENU, name, 0
        return self._say_menu()

    def _say_menu(self) -> list[Action]:
        return [
            SayText(fill(self._menu.entries[self._name].say, self._values())),
            self._set_timer(self._menu.silence),
        ]

    def _key(self, key: str) -> list[Action]:
        entry = self.entry
        if entry is None:
            return []  # Pressed ahead: what it would mean is not known yet.
        self._keys += 1
        does = entry.keys.get(key)
        if self._keys >= MAX_KEYS:
            return self._end(self._result(CallOutcome.NO_CHOICE), "no-choice")
        if does is None:
            return self._strike("wrong-key", key=key)
        if does == END:
            return self._end(self._result(CallOutcome.ENDED), "goodbye")
        if does == REPEAT:
            return self._say_menu()
        if does == UPGRADE:
            self.state = CallState.STARTING
            return [StartUpgrade(self._situation.new), self._set_timer(MOMENT_S)]
        return self._enter(does)

    def _strike(self, phrase: str, **more: str) -> list[Action]:
        """A wrong key or a silence: the menu again, or the end."""
        self._strikes += 1
        said = self._say(phrase, **more)
        if self._strikes >= self._menu.patience:
            return [said, *self._end(self._result(CallOutcome.NO_CHOICE), "no-choice")]
        return [said, *self._say_menu()]

    def _late(self) -> list[Action]:
        if self.state is CallState.MENU:
            return self._strike("silence")
        said = [] if self.hung_up else [self._say("moment")]
        return [*said, self._set_timer(self._menu.silence)]

    def _hang_up(self) -> list[Action]:
        if self.state is not CallState.STARTING:
            return self._end(self._result(CallOutcome.HUNG_UP))
        self.hung_up = True
        return []

    def _answered(self, event: UpgradeStarted | UpgradeRefused) -> list[Action]:
        if isinstance(event, UpgradeStarted):
            self._started = True
            return self._end(CallOutcome.STARTED) if self.hung_up else self._enter(STARTED)
        if self.hung_up:
            return self._end(CallOutcome.REFUSED)
        # It may have become unnecessary, or somebody else has started it.
        self._refused = event.why
        return self._ask()

    def _silent(self) -> list[Action]:
        if self._refused:
            return self._end(CallOutcome.REFUSED, "refused", why=self._refused)
        return self._end(CallOutcome.NO_ANSWER, "no-answer")

    def _result(self, outcome: CallOutcome) -> CallOutcome:
        return CallOutcome.STARTED if self._started else outcome

    def _end(self, outcome: CallOutcome, phrase: str = "", **more: str) -> list[Action]:
        self.state = CallState.ENDED
        said = [self._say(phrase, **more)] if phrase and not self.hung_up else []
        return [*said, EndCall(outcome)]

    def _say(self, phrase: str, **more: str) -> SayText:
        return SayText(fill(self._menu.phrases[phrase], {**self._values(), **more}))

    def _values(self) -> dict[str, str]:
        now = self._situation
        return {
            "old": shorten_version(now.old),
            "new": shorten_version(now.new),
            "serial": self._serial,
        }

    def _set_timer(self, seconds: float) -> SetTimer:
        self._timer += 1
        return SetTimer(self._timer, seconds)


def shorten_version(version: str) -> str:
    """A version as people say it: ``1.1.0`` for ``1.1.0+0``."""
    return version.removesuffix("+0")
