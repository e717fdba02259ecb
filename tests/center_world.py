"""What the tests of the customer center share: a center over a server in memory, and a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

import argon2
import msgspec
from server_world import SERIAL, inspect, make_image, open_client, post, registration

from unbrick.center.calls.menu import read_menu
from unbrick.center.center import Center
from unbrick.center.desk import Desk
from unbrick.center.operators.accounts import Passwords, add_operator
from unbrick.center.operators.records import LogEntry, MemoryAccounts, Role
from unbrick.center.page.web import make_app
from unbrick.server.core.core import ServerCore
from unbrick.server.core.rollouts import RolloutDraft, RolloutRunner
from unbrick.server.edge.client import SilentError
from unbrick.server.edge.http import RolloutOrder
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.people import Actor, Subscriber
from unbrick.server.records.sessions import PlannedStep, SessionState, StepKind, StepState
from unbrick.server.records.updates import UpdateState

QUICK = Passwords(argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
"""Hashes that are worth nothing, made at once."""

PASSWORD = "correct horse battery"  # noqa: S105 - of nobody
OPERATORS = {"cleo": Role.CLERK, "enno": Role.ENGINEER, "aude": Role.AUDITOR}
NOW = 1_700_000_000.0
IMAGE = make_image()
PHONE = "+441632960123"


class DirectServer:
    """The server's orders, given to a core in this process.

    Attributes:
        silent: it does not answer; with ``deaf``, it has not heard either.
    """

    def __init__(self, core: ServerCore, clock: Callable[[], float]) -> None:
        self.core, self.clock = core, clock
        self.rollouts = RolloutRunner(core)
        self.silent = self.deaf = False

    def _order(self, order: Callable[[], object]) -> dict[str, Any]:
        if not self.deaf:
            order()
        if self.silent:
            raise SilentError("no server answers")
        return {}

    def start(
        self, serial: str, version: str, *, way: str, downgrade: bool = False
    ) -> dict[str, Any]:
        ordered = {"commanded": way == "commanded", "downgrade": downgrade}
        start = self.core.start_update
        return self._order(lambda: start(serial, version, self.clock(), **ordered))

    def cancel(self, update_id: int) -> dict[str, Any]:
        return self._order(lambda: self.core.cancel_update(update_id, self.clock()))

    def roll_out(self, *, by: str, **order: Any) -> dict[str, Any]:
        asked = msgspec.convert(order, RolloutOrder)
        draft = RolloutDraft(
            *(asked.version, asked.hardware, asked.name, asked.serials, asked.software, asked.runs),
            *(tuple(asked.groups), asked.success, asked.error),
            commanded=asked.way == "commanded",
            downgrade=asked.downgrade,
            consent=asked.consent,
            not_before=asked.not_before.timestamp() if asked.not_before else None,
        )
        self._order(lambda: self.rollouts.create(draft, by, self.clock()))
        return {"id": self.core.records.rollouts.all()[-1].id}

    def do_with_rollout(self, rollout_id: int, deed: str, by: str) -> dict[str, Any]:
        do = getattr(self.rollouts, deed)
        return self._order(lambda: do(rollout_id, by, self.clock()))

    def send_text(self, serial: str, text: str) -> dict[str, Any]:
        return self._order(lambda: self.core.send_text(serial, text, self.clock()))

    def say(self, call_id: int, count: int, text: str, *, last: bool) -> None:
        self._order(lambda: self.core.say(call_id, count, text, last=last))

    def center_is_there(self) -> None:
        self._order(lambda: self.core.lines.center_is_there(self.clock()))

    def center_leaves(self) -> None:
        self._order(self.core.center_leaves)

    def abandon(self, update_id: int) -> dict[str, Any]:
        return self._order(lambda: self.core.abandon_update(update_id, self.clock()))

    def update(self, update_id: int) -> dict[str, Any]:
        self._order(lambda: None)
        update = self.core.records.update(update_id)
        assert update is not None
        return {"sent": self.core.progress(update, self.core.records.file_size(update))}


class World:
    """A server that a terminal has registered with, and a center.

    Attributes:
        now: the clock, in seconds; tests move it.
    """

    def __init__(self, records: Records | None = None, core: ServerCore | None = None) -> None:
        self.now = NOW
        self.records = records or MemoryRecords()
        self.core = core or ServerCore(self.records, inspect)
        self.server = DirectServer(self.core, lambda: self.now)
        self.accounts = MemoryAccounts()
        for name, role in OPERATORS.items():
            add_operator(self.accounts, QUICK, name, role, PASSWORD, NOW)
        self.center = Center(
            *(Desk(self.records, self.server), self.accounts, read_menu()), lambda: self.now, QUICK
        )
        self.app = make_app(self.center)

    def register(self, serial: str = SERIAL, **changes: Any) -> None:
        request = post("register", registration(serial=serial, **changes).encode())
        self.core.handle(f"127.0.0.1:{4000 + len(self.records.terminals())}", request, self.now)

    def publish(self, image: bytes = IMAGE) -> None:
        self.core.publish(image, self.now)

    def subscribe(self, name: str = "Ada Lovelace", serial: str = SERIAL) -> None:
        actor = Actor("registrar", self.now)
        draft = Subscriber(0, PHONE, name, self.now)
        subscriber = self.records.add_subscriber(draft, actor)
        self.records.assign(serial, subscriber.id, actor)

    def browser(self, name: str = "") -> Browser:
        """A browser, in which an operator has signed in if ``name`` is given."""
        browser = Browser(self)
        if name:
            assert browser.sign_in(name).status_code == 200
        return browser

    @property
    def deeds(self) -> list[LogEntry]:
        """What is in the log, oldest first, but for the making of the operators."""
        return self.accounts.entries(1000)[::-1][len(OPERATORS) :]


class Browser:
    """Looks at pages and sends the forms that are on them, as a person without JavaScript."""

    def __init__(self, world: World) -> None:
        self.http = open_client(world.app, base_url="https://testserver")

    def __enter__(self) -> Browser:
        """Keep the center running between requests: calls go on."""
        self.http.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.__exit__(kind, error, trace)

    def sign_in(self, name: str, password: str = PASSWORD) -> Any:
        return self.http.post("/sign-in", data={"name": name, "password": password})

    def get(self, path: str) -> str:
        response = self.http.get(path)
        assert response.status_code == 200, response.text
        return str(response.text)

    def token(self, path: str = "/") -> str:
        found = re.search(r'name="token" value="([^"]+)"', self.get(path))
        assert found
        return found.group(1)

    def post(self, path: str, **fields: str) -> Any:
        """Send a form with the token of this session."""
        return self.http.post(path, data={"token": self.token(), **fields})

    def order(self, path: str, **fields: str) -> str:
        """As ``post``; the page that it leads to."""
        response = self.post(path, **fields)
        assert response.status_code == 200, response.text
        return str(response.text)


def begin_session(world: World, serial: str = SERIAL) -> list[PlannedStep]:
    """A commanded update as the server would have planned it; returns its steps."""
    base = make_image("1.0.0+0")
    world.publish(base)
    world.register(serial, digest=inspect(base).digest)
    world.core.start_update(serial, "1.1.0", world.now, commanded=True)
    session = world.records.sessions(serial)[-1]
    kinds = [
        (StepKind.BACK_UP, 0, 0),
        (StepKind.PREPARE, 0, 0),
        (StepKind.ERASE, 0x100000, 0x40000),
        *((StepKind.WRITE, 0x100000 + at, 896) for at in range(0, 4 * 896, 896)),
        (StepKind.ERASE, 0x140000, 0x40000),
        (StepKind.WRITE, 0x140000, 896),
        (StepKind.CHECK, 0x100000, 5000),
        (StepKind.RESTART, 0, 0),
        (StepKind.GIVE_BACK, 0, 0),
        (StepKind.DELETE_BACKUP, 0, 0),
    ]
    steps = [PlannedStep(0, number, *kind) for number, kind in enumerate(kinds)]
    kept = world.records.add_session(replace(session, state=SessionState.RUNNING), steps)
    return world.records.steps(kept.id)


def carry_out(world: World, steps: list[PlannedStep], done: int, now: int | None = None) -> None:
    """So many steps are done, and one is under way."""
    for step in steps:
        state = StepState.DONE if step.number < done else StepState.WAITING
        state = StepState.SENT if step.number == now else state
        world.records.save_step(replace(step, state=state))


def words(page: str) -> str:
    """The text of a page."""
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(text.split())


def roll_out(world: World, count: int = 20, **draft: Any) -> int:
    """A rollout of 1.1.0 to terminals of its own, made by ada; gives its number."""
    base = make_image("1.0.0+0")
    world.publish(base)
    if len(world.records.images()) == 1:
        world.publish()
    number = len(world.records.rollouts.all()) + 1
    for terminal in range(count):
        world.register(f"R{number}-{terminal:03}", digest=inspect(base).digest)
    draft = {"name": f"Release {number}", "serials": f"R{number}-*", **draft}
    return world.server.rollouts.create(RolloutDraft("1.1.0", **draft), "ada", world.now).id


def go_on(world: World, succeeded: int = 0, failed: int = 0) -> None:
    """A rollout does all that is due; of what is under way then, so many end."""
    while world.server.rollouts.look(world.now):
        pass
    open_ = [u for u in world.records.unfinished_updates() if u.serial.startswith("R")]
    states = [UpdateState.SUCCEEDED] * succeeded + [UpdateState.FAILED] * failed
    for update, state in zip(open_, states, strict=False):
        text = "the new software did not start" if state is UpdateState.FAILED else ""
        with world.records.transaction():
            world.core._log.change(update, state, text, world.now)
    while world.server.rollouts.look(world.now):
        pass
