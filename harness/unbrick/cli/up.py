"""``unbrick up``: server, terminal, customer center and bridge, each a process of its own."""

from __future__ import annotations

import contextlib
import getpass
import secrets
import shlex
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from unbrick.bench.process import Process
from unbrick.cli.center import center, center_start
from unbrick.cli.options import ACCOUNTS, STATE, find_words, make_state_folder
from unbrick.cli.run import build_releases, run, told_to_end
from unbrick.cli.server import server, server_start, terminals
from unbrick.errors import ServerError, UnbrickError
from unbrick.image.enrolment import read_enrolments
from unbrick.lock import owned
from unbrick.screen import open_status
from unbrick.server.edge.client import ServerClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from unbrick.firmware.signed import Releases

LOOK_INTERVAL_S = 0.2
"""Seconds between two looks whether every part is there still."""

DEMO_RELEASES = ("1.0.0", "1.1.0", "1.3.0", "2.0.0")
"""What --demo publishes: none that is broken on purpose."""

DEMO_OPERATORS = ("clerk", "engineer", "auditor")
"""Whom --demo makes: one of each role, who is called by it."""

WIRE = "wire"
"""A link in the state folder to the pseudo-terminal, whose name is another one each time."""

DEMO_PHONE, DEMO_NAME = "+441632960123", "Ada Lovelace"


@click.command(short_help="Start all parts of the system at once.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=STATE,
    show_default=True,
    help="Folder for logs, databases and the terminal's NOR, unless options of the parts say "
    "otherwise.",
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
    status = open_status()
    releases = build_releases(Path(plan.run["firmware"]), status)
    if demo:
        releases.require(DEMO_RELEASES, "--demo")
    with ExitStack() as stack:
        told = stack.enter_context(told_to_end())
        stack.enter_context(_alone(state))
        parts = _Parts(plan, told)
        (state / WIRE).unlink(missing_ok=True)  # Of one that was killed.
        stack.callback(parts.stop)
        try:
            with status.status("starting"):
                made = _people(plan) if demo else None
                parts.start()
                if demo:
                    _publish(parts.url, releases)
        except ServerError:
            if told():
                return
            raise
        _say(plan, parts, made)
        while not told():
            parts.check()
            time.sleep(LOOK_INTERVAL_S)
        click.echo("up: told to end", err=True)


class _Plan:
    """What the parts will be like: their options by file, environment and default."""

    def __init__(self, ctx: click.Context, state: Path) -> None:
        root = ctx.find_root()
        self.state = state
        self.server = _options(root, server_start, server, database=str(state / "server.db"))
        self.center = _options(root, center_start, center, accounts=str(state / "center.db"))
        self.run = _options(root, run)
        self.usual_url = _options(root, terminals)["server_url"]
        file = root.params.get("config")
        self.first = ("--config", str(file)) if file else ()


def _options(
    root: click.Context, command: click.Command, group: click.Group | None = None, **instead: str
) -> dict[str, Any]:
    """The options that a command would have now; ``instead`` replaces defaults of its own."""
    name = command.name or ""
    if group is None:
        context = command.make_context(name, [], parent=root)
    else:
        with click.Context(group, parent=root, info_name=group.name) as parent:
            context = command.make_context(name, [], parent=parent)
    replaced = {
        option: value
        for option, value in instead.items()
        if context.get_parameter_source(option) is ParameterSource.DEFAULT
    }
    return {**context.params, **replaced}


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state folder, which is made when it is missing.

    Raises:
        SetupError: it cannot be made, or another has it.
    """
    make_state_folder(state, hint="give another --state")
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
        database = ("--database", plan.server["database"])
        serving = self._start("server", "server", "start", *database)
        nor = plan.run["nor_file"] or plan.state / "terminal.nor"
        kept = () if plan.run["engine"] == "serial" else ("--nor", str(nor))  # A board keeps it.
        enrolment = plan.state / "terminal.enrolment"
        enrolment.unlink(missing_ok=True)
        terminal = self._start("terminal", "run", *kept, "--enrolment", str(enrolment))
        ready = serving.wait_for(r"server: ready, coap://(\S+) (\S+)\n", self.given_up)
        self.coap, self.url = ready.groups()
        page = self._start(
            *("center", "center", "start", "--server-url", self.url, *database),
            *("--accounts", plan.center["accounts"]),
        )
        ready = terminal.wait_for(r"ready: wire (\S+) modem (\S+)\n", self.given_up)
        self.wire, self.modem = ready.groups()
        self._enrol(enrolment)
        words = ("bridge", "--modem", self.modem, "--server", self.coap)
        self._start("bridge", *words).wait_for("bridge: ready", self.given_up)
        self.page = page.wait_for(r"center: ready, (\S+)\n", self.given_up)[1]

    def _enrol(self, file: Path) -> None:
        """Have the server know the terminal; of a board somebody else has its enrolment file."""
        if file.exists():
            with ServerClient(self.url) as client:
                for enrolment in read_enrolments(file):
                    client.approve(enrolment.serial, enrolment.link_key)

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


@dataclass
class _NewOperators:
    """Operators that were just made, and the password that they have."""

    password: str
    names: list[str] = field(default_factory=list)


def _people(plan: _Plan) -> _NewOperators:
    """Make operators and a subscriber, where there are none."""
    from unbrick.center.operators.accounts import Passwords, add_operator  # noqa: PLC0415 - slow to import
    from unbrick.center.operators.database import SqlAccounts  # noqa: PLC0415
    from unbrick.center.operators.records import Role  # noqa: PLC0415
    from unbrick.server.database import SqlRecords  # noqa: PLC0415
    from unbrick.server.records.people import Actor, Subscriber  # noqa: PLC0415

    now = time.time()
    made = _NewOperators(secrets.token_urlsafe(12))
    with contextlib.closing(SqlAccounts(plan.center["accounts"])) as accounts:
        for name in DEMO_OPERATORS:
            if accounts.operator(name) is None:
                add_operator(accounts, Passwords(), name, Role(name), made.password, now)
                made.names.append(name)
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
    return made


def _publish(url: str, releases: Releases) -> None:
    with ServerClient(url) as client:
        for version in DEMO_RELEASES:
            client.publish(releases.signed[version])


def _say(plan: _Plan, parts: _Parts, made: _NewOperators | None) -> None:
    """Where everything is, and what to do with it: commands that can be pasted."""
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
    click.echo(f"\nThe page of the customer center: {parts.page}")
    if made is not None:
        _say_passwords(plan, made)
    click.echo("The terminal's console (Enter brings its prompt, Ctrl-] leaves):")
    _say_command(*find_words("python"), "-m", "serial.tools.miniterm", wire, "115200")
    click.echo("Orders to the server, for example:")
    url = () if parts.url == plan.usual_url else ("--server-url", parts.url)
    _say_command(*find_words("unbrick"), "terminals", *url)
    click.echo("\nup: ready, Ctrl-C ends it all")


def _say_command(*words: str) -> None:
    click.echo(f"  {shlex.join(words)}")


def _say_passwords(plan: _Plan, made: _NewOperators) -> None:
    if made.names:
        click.echo(f"  sign in as {_one_of(made.names)}, password {made.password} (said only now)")
    old = [name for name in DEMO_OPERATORS if name not in made.names]
    if old:
        click.echo(f"  sign in as {_one_of(old)} with the password of an earlier start;")
        click.echo("  if you have it no more, this asks for a new one:")
        words = (*find_words("unbrick"), *plan.first, "center", "add-operator", old[0])
        accounts = plan.center["accounts"]
        where = () if accounts == str(ACCOUNTS) else ("--accounts", accounts)
        _say_command(*words, "--role", old[0], *where)


def _one_of(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


COMMANDS: list[click.Command] = [up]
