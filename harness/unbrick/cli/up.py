"""``unbrick up``: server, terminal, customer center and bridge, each a process of its own."""

from __future__ import annotations

import contextlib
import getpass
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from unbrick.bench.process import Process
from unbrick.cli.center import center, center_start
from unbrick.cli.run import build_releases, run, told_to_end
from unbrick.cli.server import server, server_start
from unbrick.errors import ServerError, SetupError, UnbrickError
from unbrick.lock import owned
from unbrick.server.edge.client import ServerClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.firmware.signed import Releases

POLL = 0.2
"""Seconds between two looks whether every part is there still."""

DEMO_RELEASES = ("1.0.0", "1.1.0", "1.3.0", "2.0.0")
"""What --demo publishes: none that is broken on purpose."""

WIRE = "wire"
"""A link in the state folder to the pseudo-terminal, whose name is another one each time."""

DEMO_PHONE, DEMO_NAME = "+441632960123", "Ada Lovelace"


@click.command()
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("unbrick-state"),
    show_default=True,
    help="Folder for the logs, and for the terminal's NOR unless [run] has another.",
)
@click.option(
    "--demo",
    is_flag=True,
    help="Publish the releases that are built, make a subscriber for the terminal and an operator "
    "of each role, and say the password of new ones once.",
)
@click.pass_context
def up(ctx: click.Context, state: Path, *, demo: bool) -> None:
    """Start everything: server, terminal, customer center and bridge, until Ctrl-C or SIGTERM.

    Each is a process of its own with its options from the configuration file (see --config), as if
    it were started by itself; where one needs the port of another, it is told. What they say goes
    to logs in the state folder. When one of them ends, so do the others, and this says which it was
    and why.
    """
    plan = _Plan(ctx, state)
    status = Console(stderr=True, highlight=False)
    releases = build_releases(Path(plan.run["firmware"]), status)
    with ExitStack() as stack:
        told = stack.enter_context(told_to_end())
        stack.enter_context(_alone(state))
        parts = _Parts(plan, told.is_set)
        (state / WIRE).unlink(missing_ok=True)  # Of one that was killed.
        stack.callback(parts.stop)
        try:
            with status.status("starting"):
                password = _people(plan) if demo else ""
                parts.start()
                if demo:
                    _publish(parts.url, releases)
        except ServerError:
            if told.is_set():
                return
            raise
        _say(plan, parts, password)
        while not told.wait(POLL):
            parts.check()
        click.echo("up: told to end", err=True)


class _Plan:
    """What the parts will be like: their options by file, environment and default."""

    def __init__(self, ctx: click.Context, state: Path) -> None:
        root = ctx.find_root()
        self.state = state
        self.server = _options(root, server_start, server)
        self.center = _options(root, center_start, center)
        self.run = _options(root, run)
        file = root.params.get("config")
        self.first = ("--config", str(file)) if file else ()


def _options(
    root: click.Context, command: click.Command, group: click.Group | None = None
) -> dict[str, Any]:
    """The options that a command would have now."""
    name = command.name or ""
    if group is None:
        return dict(command.make_context(name, [], parent=root).params)
    with click.Context(group, parent=root, info_name=group.name) as parent:
        return dict(command.make_context(name, [], parent=parent).params)


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state folder, which is made when it is missing.

    Raises:
        SetupError: it cannot be made, or another has it.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{state} cannot be used: {error.strerror}", hint="give another --state"
        ) from error
    with owned(state, hint="give another --state"):
        yield


@dataclass
class _Parts:
    """The processes, in the order of their start.

    Attributes:
        plan: how they are started.
        given_up: whether nobody waits for them any more.
        url: of the server's HTTP API; with ``coap``, ``page``, ``wire`` and ``modem``, where the
            rest is, once they are started.
    """

    plan: _Plan
    given_up: Any
    url: str = ""
    coap: str = ""
    page: str = ""
    wire: str = ""
    modem: str = ""
    _processes: dict[str, Process] = field(default_factory=dict)

    def start(self) -> None:
        """Start them all, and wait until each is ready.

        Raises:
            ServerError: one is not.
        """
        plan = self.plan
        serving = self._start("server", "server", "start")
        nor = plan.run["nor_file"] or plan.state / "terminal.nor"
        kept = () if plan.run["engine"] == "serial" else ("--nor", str(nor))  # A board keeps it.
        terminal = self._start("terminal", "run", *kept)
        ready = serving.wait_for(r"server: ready, coap://(\S+) (\S+)\n", self.given_up)
        self.coap, self.url = ready.groups()
        page = self._start(
            *("center", "center", "start", "--server-url", self.url),
            *("--database", plan.server["database"]),
        )
        ready = terminal.wait_for(r"ready: wire (\S+) modem (\S+)\n", self.given_up)
        self.wire, self.modem = ready.groups()
        words = ("bridge", "--modem", self.modem, "--server", self.coap)
        self._start("bridge", *words).wait_for("bridge: ready", self.given_up)
        self.page = page.wait_for(r"center: ready, (\S+)\n", self.given_up)[1]

    def _start(self, name: str, *words: str) -> Process:
        process = Process(self.plan.state / f"{name}.log", *self.plan.first, *words)
        self._processes[name] = process
        return process

    def check(self) -> None:
        """See that all are there.

        Raises:
            UnbrickError: one has ended.
        """
        for name, process in self._processes.items():
            code = process.popen.poll()
            if code is not None:
                how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
                raise UnbrickError(
                    f"the {name} has ended {how}, its last line: {process.last_line}",
                    hint=f"all that it said is in {process.log}",
                )

    def stop(self) -> None:
        """End them, the last first; the terminal's NOR is kept."""
        (self.plan.state / WIRE).unlink(missing_ok=True)
        for name, process in reversed(self._processes.items()):
            ran = process.popen.poll() is None
            code = process.stop()
            if ran and code:
                click.echo(f"up: the {name} ended with {code}, see {process.log}", err=True)


def _people(plan: _Plan) -> str:
    """Operators and a subscriber, where there are none; gives the password of the new ones."""
    from unbrick.center.operators.accounts import Passwords, add_operator  # noqa: PLC0415 - slow to import
    from unbrick.center.operators.database import SqlAccounts  # noqa: PLC0415
    from unbrick.center.operators.records import Role  # noqa: PLC0415
    from unbrick.server.database import SqlRecords  # noqa: PLC0415
    from unbrick.server.records.people import Actor, Subscriber  # noqa: PLC0415

    now = time.time()
    password = secrets.token_urlsafe(12)
    new = False
    with contextlib.closing(SqlAccounts(plan.center["accounts"])) as accounts:
        for role in Role:
            if accounts.operator(role.value) is None:
                add_operator(accounts, Passwords(), role.value, role, password, now)
                new = True
    actor = Actor(getpass.getuser(), now, "by `unbrick up --demo`")
    with contextlib.closing(SqlRecords(plan.server["database"])) as records:
        if records.owner(plan.run["serial"]) is None:
            known = [person for person in records.subscribers() if person.phone == DEMO_PHONE]
            person = (
                known[0]
                if known
                else records.add_subscriber(Subscriber(0, DEMO_PHONE, DEMO_NAME, now), actor)
            )
            records.assign(plan.run["serial"], person.id, actor)
    return password if new else ""


def _publish(url: str, releases: Releases) -> None:
    with ServerClient(url) as client:
        for version in DEMO_RELEASES:
            client.publish(releases.signed[version])


def _say(plan: _Plan, parts: _Parts, password: str) -> None:
    """Where everything is, and what to do with it."""
    wire = parts.wire.replace("tcp:", "socket://")
    if Path(parts.wire).exists():
        wire = str(plan.state / WIRE)
        Path(wire).symlink_to(parts.wire)
    lines = {
        "server": f"{parts.url}, coap://{parts.coap}",
        "terminal": f"{plan.run['serial']}, wire {parts.wire}, modem {parts.modem}",
        "bridge": f"{parts.modem} <-> coap://{parts.coap}",
        "center": parts.page,
        "logs": f"{plan.state}/*.log",
    }
    for name, place in lines.items():
        click.echo(f"{name:<9} {place}")
    click.echo()
    click.echo(f"The page of the customer center:  {parts.page}")
    if password:
        click.echo(f"  sign in as clerk, engineer or auditor, password {password} (said only now)")
    click.echo(f"The terminal's console:           python -m serial.tools.miniterm {wire} 115200")
    click.echo(f"Orders to the server:             unbrick terminals --server-url {parts.url}")
    click.echo()
    click.echo("up: ready, Ctrl-C ends it all")


COMMANDS: list[click.Command] = [up]
