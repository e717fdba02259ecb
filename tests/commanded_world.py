"""A server's core and a modelled terminal, with everything lost in between that may get lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiocoap
from commanded_terminal import CommandedTerminal
from server_world import SERIAL, inspect, make_image

from unbrick.server.core.core import ServerCore
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.sessions import CommandedSession, PlannedStep, SessionState, StepKind
from unbrick.server.records.updates import Update

ENTRIES = ["Alice +441632960123", "Bob +441632960456"]
OLD = make_image("1.0.0+0", size=6000)
NEW = make_image("1.1.0+0", size=6500)


def with_format(image: bytes, number: int) -> bytes:
    """The stand-in for an image, whose software keeps user data in another format."""
    head, _, noise = image.partition(b"\n")
    return head[:-1] + b', "userdata_format": %d}\n' % number + noise


MIGRATED = with_format(make_image("2.0.0+0", size=6500), 2)


@dataclass
class Chances:
    """How often something happens to a message, or around one; probabilities from 0 to 1."""

    lose: float = 0.0
    repeat: float = 0.0
    cut: float = 0.0
    kill: float = 0.0
    until: float = 400.0


@dataclass
class World:
    """Both, and the time. ``on_request`` sees every request of the server before it is sent."""

    terminal: CommandedTerminal
    records: Records = field(default_factory=MemoryRecords)
    chances: Chances = field(default_factory=Chances)
    seed: int = 0
    now: float = 0.0
    on_request: Callable[[Any], None] = lambda _message: None
    make: Callable[[Records], ServerCore] = lambda records: ServerCore(records, inspect)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.late: list[Any] = []
        self.core = self.make(self.records)
        for image in self.terminal.images:
            self.core.publish(image, self.now)
        self.terminal.power_on(self.now)

    def start(self, version: str = "1.1.0") -> int:
        """Let the terminal register, and start the update."""
        self.run(lambda: self.records.terminal(SERIAL) is not None)
        return self.core.start_update(SERIAL, version, self.now, commanded=True).id

    def chance(self, what: str) -> bool:
        if self.now > self.chances.until:
            return False
        return self.rng.random() < float(getattr(self.chances, what))

    def restart(self) -> None:
        """The server dies, and another goes on from its records."""
        self.core = self.make(self.records)

    def tick(self) -> None:
        """A moment passes."""
        self.now += 0.05
        if self.chance("kill"):
            self.restart()
        if self.chance("cut"):
            self.terminal.cut(self.now)
        for ticket, message in self.terminal.step(self.now):
            if self.chance("lose"):
                continue
            if self.chance("repeat"):
                self.core.handle("radio", _copy(message), self.now)
            response = self.core.handle("radio", _copy(message), self.now)
            if not self.chance("lose"):
                self.terminal.answered(ticket, response, self.now)
        if self.late and self.chance("repeat"):
            self.terminal.handle(self.late.pop(), self.now)
        for outgoing in self.core.poll(self.now):
            self.on_request(outgoing.message)
            response = None
            if not self.chance("lose"):
                response = self.terminal.handle(_copy(outgoing.message), self.now)
                if self.chance("repeat"):
                    self.late.append(_copy(outgoing.message))
                if self.chance("lose"):
                    response = None
            self.core.outcome(outgoing.ticket, response, self.now)

    def run(self, until: Callable[[], bool], seconds: float = 1500.0) -> None:
        """Let time pass until something is so."""
        end = self.now + seconds
        while not until():
            assert self.now < end, self.story()
            self.tick()

    def finish(self, seconds: float = 1500.0) -> SessionState:
        """Run until the last session has ended; how it has."""
        self.run(lambda: self.session().state.ended, seconds)
        return self.session().state

    def session(self) -> CommandedSession:
        return self.records.sessions(SERIAL)[-1]

    def steps(self, kind: StepKind | None = None) -> list[PlannedStep]:
        steps = self.records.steps(self.session().id)
        return [step for step in steps if kind in (None, step.kind)]

    def update(self) -> Update:
        return next(u for u in reversed(self.records.updates(SERIAL)) if u.commanded)

    def audit(self) -> list[str]:
        return [entry.action.value for entry in self.records.audit(serial=SERIAL)]

    def story(self) -> str:
        """What happened, for a person who wonders."""
        steps = [(s.number, s.kind.value, s.state.value, s.tries) for s in self.steps()]
        events = [event.text for event in self.records.events(serial=SERIAL)][-15:]
        return f"at {self.now:.0f} s: {self.session()}\n{steps}\n{events}\n{self.terminal.journal}"


def _copy(message: Any) -> Any:
    copy = aiocoap.Message(code=message.code, payload=message.payload)
    for option in message.opt.option_list():
        copy.opt.add_option(option)
    return copy
