"""Commands for the server, the bridge, and what people do with them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unbrick.cli.options import (
    database_option,
    exposure_options,
    json_option,
    make_ready,
    owned_database,
    print_json,
    print_table,
    server_url_option,
)
from unbrick.errors import SetupError, UpdateError
from unbrick.image.enrolment import parse_link_key, read_enrolments
from unbrick.image.hexfile import read_image
from unbrick.link.bridge import Bridge, parse_host_port
from unbrick.link.faults import Direction, FaultPlan, Faults
from unbrick.screen import open_status
from unbrick.server.core.admission import Limits, Unknown
from unbrick.server.edge.access import add_token
from unbrick.server.edge.client import ServerClient
from unbrick.server.edge.shapes import format_time
from unbrick.server.records.access import AccessRole

if TYPE_CHECKING:
    from unbrick.server.records.access import AccessTokens

_FILE = click.Path(dir_okay=False, path_type=Path)
_PORT = click.IntRange(0, 65535)
_DAY_S = 86_400
_PROBABILITY = click.FloatRange(0, 1)


@click.group()
def server() -> None:
    """Run the software management server."""


@server.command("start")
@click.option("--host", default="127.0.0.1", show_default=True, help="IP address to listen on.")
@click.option("--coap-port", type=_PORT, default=5683, show_default=True, help="UDP; 0: any.")
@click.option("--http-host", show_default="as --host", help="IP address to listen on for HTTP.")
@click.option("--http-port", type=_PORT, default=8080, show_default=True, help="TCP; 0: any.")
@exposure_options
@click.option("--log", is_flag=True, help="Say all that happens, a JSON object a line.")
@click.option("--self-approval", is_flag=True, help="Who makes a rollout may approve it, too.")
@click.option(
    "--unknown",
    type=click.Choice([choice.value for choice in Unknown]),
    default=Unknown.TAKE.value,
    show_default=True,
    help="With --insecure, what becomes of a terminal that registers for the first time; wait: "
    "until `unbrick server approve`.",
)
@click.option(
    "--new-per-second",
    type=click.FloatRange(0, min_open=True),
    default=Limits.new_per_second,
    show_default=True,
    help="How many of these may ask in the long run; half as many of one network.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Also hear terminals whose messages are not protected, for tools and old terminals.",
)
@database_option("SQLite file, or an SQLAlchemy URL.")
def server_start(
    host: str,
    coap_port: int,
    http_host: str | None,
    http_port: int,
    database: str,
    *,
    host_names: tuple[str, ...],
    certificate: Path | None,
    key: Path | None,
    behind_proxy: bool,
    log: bool,
    self_approval: bool,
    unknown: str,
    new_per_second: float,
    insecure: bool,
) -> None:
    """Start the server; it runs until SIGTERM or Ctrl-C.

    It prints one line with its two addresses when it is ready. Your own commands on this machine
    may do everything; all others need a token (`unbrick server token`).
    """
    from unbrick.server.edge.exposure import Exposure  # noqa: PLC0415 - slow to import
    from unbrick.server.edge.main import ServerSettings, serve  # noqa: PLC0415

    exposure = Exposure(http_host or host, http_port, host_names, certificate, key, behind_proxy)
    with owned_database(database, "--database"):
        limits = Limits(Unknown(unknown), new_per_second)
        settings = ServerSettings(
            *(host, coap_port, exposure, database, log, self_approval, limits, insecure)
        )
        asyncio.run(serve(settings))


@server.command("waiting", short_help="List the terminals that wait for approval.")
@server_url_option
@json_option
def server_waiting(server_url: str, *, as_json: bool) -> None:
    """List the terminals that wait for approval, those that asked last at the end."""
    with ServerClient(server_url) as client:
        rows = client.waiting()
    if as_json:
        print_json(rows)
        return
    columns = {
        "serial": "serial",
        "hardware_id": "hardware",
        "name": "software",
        "version": "version",
        "endpoint": "from",
        "last": "asked last",
        "times": "times",
    }
    dispensable = ("hardware_id", "name", "times")
    print_table(rows, columns, "no terminal waits for approval", dispensable=dispensable)


@server.command("approve", short_help="Let a terminal register.")
@click.argument("serial")
@click.option(
    "--key",
    "link_key",
    metavar="HEX",
    help="Key of its link, from its enrolment file; needed unless the server is --insecure.",
)
@server_url_option
@json_option
def server_approve(serial: str, link_key: str | None, server_url: str, *, as_json: bool) -> None:
    """Let the terminal SERIAL register, whether it has asked or not."""
    key = None if link_key is None else parse_link_key(link_key)
    with ServerClient(server_url) as client:
        client.approve(serial, key)
    if as_json:
        print_json({"serial": serial})
    else:
        click.echo(f"{serial} may register")


@server.command("enrol", short_help="Let terminals register by their enrolment file.")
@click.argument("file", type=_FILE)
@server_url_option
@json_option
def server_enrol(file: Path, server_url: str, *, as_json: bool) -> None:
    """Tell the server the link keys of the terminals in FILE, so that they may register.

    `unbrick image factory` writes such files.
    """
    enrolments = read_enrolments(file)
    with ServerClient(server_url) as client:
        for enrolment in enrolments:
            client.approve(enrolment.serial, enrolment.link_key)
    if as_json:
        print_json([enrolment.serial for enrolment in enrolments])
    else:
        number = len(enrolments)
        click.echo(f"{number} terminal{'s' if number != 1 else ''} may register")


@server.group()
def token() -> None:
    """Say who else may use the server, and for what."""


@contextlib.contextmanager
def _open_tokens(database: str) -> Iterator[AccessTokens]:
    from unbrick.server.database import SqlRecords  # noqa: PLC0415 - slow to import

    with contextlib.closing(SqlRecords(make_ready(database))) as records:
        yield records.tokens


_token_database_option = database_option("The server's: an SQLite file, or an SQLAlchemy URL.")


@token.command("add", short_help="Make a token for a person or a machine.")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in AccessRole]),
    default=AccessRole.VIEWER.value,
    show_default=True,
    help="viewer: looks; operator: also publishes, updates, sends messages; center: also takes "
    "calls, as the customer center does.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    default=90,
    show_default=True,
    help="How long it is good for.",
)
@click.option("--for-ever", is_flag=True, help="Until it is removed.")
@_token_database_option
def token_add(name: str, role: str, days: float, database: str, *, for_ever: bool) -> None:
    """Make a token for NAME, in place of an earlier one, and print it: it is kept nowhere.

    Whoever holds it sets UNBRICK_TOKEN to it, or sends it as `Authorization: Bearer TOKEN`.
    """
    lifetime_s = None if for_ever else days * _DAY_S
    with _open_tokens(database) as tokens:
        made = add_token(tokens, name, AccessRole(role), time.time(), lifetime_s=lifetime_s)
    click.echo(made)


@token.command("list")
@_token_database_option
@json_option
def token_list(database: str, *, as_json: bool) -> None:
    """List who has a token, in which role, and until when."""
    with _open_tokens(database) as tokens:
        rows = [
            {
                "name": item.name,
                "role": item.role.value,
                "created": format_time(item.created),
                "expires": format_time(item.expires) if item.expires is not None else None,
            }
            for item in tokens.list()
        ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["expires"] = row["expires"] or "never"
    columns = {"name": "name", "role": "role", "created": "made", "expires": "ends"}
    print_table(rows, columns, "nobody has a token")


@token.command("remove")
@click.argument("name")
@_token_database_option
def token_remove(name: str, database: str) -> None:
    """Take NAME's token away, at once."""
    with _open_tokens(database) as tokens:
        if not tokens.remove(name):
            raise SetupError(
                f"nobody called {name!r} has a token", hint="`unbrick server token list` has all"
            )
    click.echo(f"{name} may not use the server any more")


@click.command(short_help="Carry messages between a modem and the server.")
@click.option(
    "--modem",
    required=True,
    help="The terminal's modem: tcp:HOST:PORT to call it, listen:HOST:PORT to be called, or the "
    "path of a serial port or pseudo-terminal.",
)
@click.option(
    "--server",
    "server_address",
    default="127.0.0.1:5683",
    show_default=True,
    help="HOST:PORT of the server's CoAP.",
)
@click.option("--latency", type=click.FloatRange(0), default=0.0, help="Seconds one way.")
@click.option("--drop", type=_PROBABILITY, default=0.0, help="Messages lost.")
@click.option("--duplicate", type=_PROBABILITY, default=0.0, help="Messages that arrive twice.")
@click.option("--reorder", type=_PROBABILITY, default=0.0, help="Messages that are overtaken.")
@click.option("--corrupt", type=_PROBABILITY, default=0.0, help="Frames with a wrong bit.")
@click.option("--truncate", type=_PROBABILITY, default=0.0, help="Frames cut short.")
@click.option("--garble", type=_PROBABILITY, default=0.0, help="Messages changed unnoticed.")
@click.option("--noise", type=_PROBABILITY, default=0.0, help="Bytes replaced by others.")
@click.option("--delay", type=click.FloatRange(0), default=0.0, help="Seconds of jitter.")
@click.option(
    "--cut",
    type=(float, float),
    multiple=True,
    metavar="START END",
    help="Nothing gets through in these seconds of a connection; may be given again.",
)
@click.option(
    "--only",
    type=click.Choice([direction.value for direction in Direction]),
    help="Faults in this direction alone.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Where the faults come from.")
def bridge(
    *,
    modem: str,
    server_address: str,
    latency: float,
    cut: tuple[tuple[float, float], ...],
    only: str | None,
    seed: int,
    **probabilities: float,
) -> None:
    """Carry messages between a terminal's modem and the server, with faults if wanted.

    The fault options are probabilities from 0 to 1. It runs until SIGTERM or Ctrl-C.
    """
    plan = FaultPlan(cuts=cut, only=Direction(only) if only else None, **probabilities)
    base_station = Bridge(
        modem,
        parse_host_port(server_address),
        faults=lambda number: Faults(plan, seed + number),
        latency=latency,
    )
    asyncio.run(_run_bridge(base_station, modem, server_address))


async def _run_bridge(base_station: Bridge, modem: str, server_address: str) -> None:
    await base_station.start()
    where = f"port {base_station.port}" if base_station.port else modem
    click.echo(f"bridge: ready, {where} <-> coap://{server_address}")
    task = asyncio.ensure_future(base_station.wait())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await base_station.close()


@click.command(short_help="Publish a signed image for updates.")
@click.argument("file", type=_FILE)
@server_url_option
@json_option
def publish(file: Path, server_url: str, *, as_json: bool) -> None:
    """Publish a signed image (.bin or .hex), so that terminals can be updated to it."""
    data = read_image(file)
    with ServerClient(server_url) as client:
        image = client.publish(data)
    if as_json:
        print_json(image)
    else:
        click.echo(f"published {image['name']} {image['version']} for {image['hardware_id']}")
        for text in image.get("warnings", ()):
            click.echo(f"warning: {text}", err=True)


@click.command(short_help="List the terminals, and what they run.")
@server_url_option
@json_option
def terminals(server_url: str, *, as_json: bool) -> None:
    """List the terminals that registered, and what they run."""
    with ServerClient(server_url) as client:
        rows = client.terminals()
    if as_json:
        print_json(rows)
        return
    columns = {
        "serial": "serial",
        "hardware_id": "hardware",
        "name": "software",
        "version": "version",
        "build_time": "built",
        "state": "state",
        "last_seen": "last seen",
        "upgrade": "upgrade",
    }
    for row in rows:
        row["upgrade"] = row["upgrade"]["verdict"] if row["upgrade"] else "?"
    print_table(
        *(rows, columns, "no terminal has registered"),
        dispensable=("hardware_id", "name", "build_time"),
    )


@click.command(short_help="Show one terminal and its history.")
@click.argument("serial")
@server_url_option
@json_option
def terminal(serial: str, server_url: str, *, as_json: bool) -> None:
    """Show what the terminal SERIAL has run, and whether it needs an upgrade."""
    with ServerClient(server_url) as client:
        item = client.terminal(serial)
    if as_json:
        print_json(item)
        return
    click.echo(f"{serial} runs {item['name']} {item['version']}, built {item['build_time']}")
    for ran in item["installations"]:
        until = f"to {ran['until']}" if ran["until"] else "until now"
        click.echo(f"{ran['since']}  {ran['version']}, {until}")
    for decision in item["analyses"]:
        click.echo(f"{decision['time']}  {decision['verdict']}: {decision['reason']}")


@click.command(short_help="List what is prepared for updates.")
@server_url_option
@json_option
def preparations(server_url: str, *, as_json: bool) -> None:
    """List what is prepared for updates before anybody asks for them."""
    with ServerClient(server_url) as client:
        rows = client.preparations()
    if as_json:
        print_json(rows)
        return
    columns = {
        "from_version": "from",
        "version": "to",
        "hardware_id": "hardware",
        "state": "state",
        "file_size": "file",
        "full_size": "full image",
        "erase": "blocks",
        "write": "written",
        "text": "",
    }
    for row in rows:
        row["erase"] = row["ranges"]["erase"]["count"]
        row["write"] = row["ranges"]["write"]["bytes"]
        row["file_size"] = "" if row["file_size"] is None else row["file_size"]
    dispensable = ("hardware_id", "file_size", "full_size", "write")
    print_table(rows, columns, "nothing is prepared", dispensable=dispensable)


@click.command()
@server_url_option
@json_option
def images(server_url: str, *, as_json: bool) -> None:
    """List the published images."""
    with ServerClient(server_url) as client:
        rows = client.images()
    if as_json:
        print_json(rows)
        return
    columns = {
        "version": "version",
        "name": "software",
        "hardware_id": "hardware",
        "security_counter": "counter",
        "size": "bytes",
        "build_time": "built",
        "published": "published",
    }
    dispensable = ("security_counter", "build_time", "published")
    print_table(rows, columns, "no image is published", dispensable=dispensable)


@click.group()
def update() -> None:
    """Update terminals over the air."""


@update.command("start")
@click.argument("serial")
@click.argument("version")
@click.option(
    "--commanded",
    is_flag=True,
    help="Not by a file, but by commands, with the user's data backed up and given back.",
)
@click.option("--downgrade", is_flag=True, help="Also if VERSION is older than what it runs.")
@click.option("--wait", is_flag=True, help="Stay until it has ended; exit code 1 if it failed.")
@server_url_option
@json_option
def update_start(
    serial: str,
    version: str,
    server_url: str,
    *,
    commanded: bool,
    downgrade: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Update the terminal SERIAL to the published VERSION.

    A terminal has one update at a time: while one is under way, wait for it or cancel it.
    """
    with ServerClient(server_url) as client:
        way = "commanded" if commanded else "staged"
        started = client.start(serial, version, way, downgrade=downgrade)
        if started["text"] and not as_json:
            click.echo(f"note: {started['text']}", err=True)
        if wait:
            started = _watch(client, started)
        elif not as_json:
            click.echo(f"update {started['id']} of {serial} to {started['version']} is started")
            click.echo(f"follow it with `unbrick update show {started['id']}`")
    if as_json:
        print_json(started)
    if wait:
        _judge(started)


def _watch(client: ServerClient, started: dict[str, Any]) -> dict[str, Any]:
    from rich.progress import (  # noqa: PLC0415 - slow to import
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    counted = MofNCompleteColumn() if started["commanded"] else DownloadColumn()
    columns = (
        TextColumn("{task.description:13}"),
        BarColumn(),
        counted,
        TimeElapsedColumn(),
    )
    latest = started
    with Progress(*columns, console=open_status()) as progress:
        task = progress.add_task(started["state"], total=started["size"])
        for latest in client.watch(started["id"]):
            session = latest["session"]
            if session is not None:
                now = session["current"]["kind"] if session["current"] else latest["state"]
                done, steps = session["done"], session["steps"]
                progress.update(task, description=now, completed=done, total=steps)
                continue
            sent, size = latest["sent"], latest["size"]
            progress.update(task, description=latest["state"], completed=sent, total=size)
    return latest


def _judge(ended: dict[str, Any]) -> None:
    if ended["state"] != "succeeded":
        raise UpdateError(
            f"update {ended['id']} {ended['state']}: {ended['text'] or 'no reason given'}",
            hint=f"`unbrick update show {ended['id']}` has its course",
        )
    click.echo(f"update {ended['id']} succeeded: {ended['text']}", err=True)


@update.command("show")
@click.argument("update_id", metavar="ID", type=click.IntRange(1))
@server_url_option
@json_option
def update_show(update_id: int, server_url: str, *, as_json: bool) -> None:
    """Show an update and everything that happened."""
    with ServerClient(server_url) as client:
        item = client.update(update_id)
    if as_json:
        print_json(item)
        return
    click.echo(
        f"update {item['id']} of {item['serial']}, {item['from_version'] or '?'} to"
        f" {item['version']}: {item['state']}"
    )
    if item["session"] is None:
        kind = f" of the {item['kind']}" if item["kind"] else ""
        click.echo(f"sent {item['sent']} of {item['size']} bytes{kind}")
    else:
        _show_session(item["session"])
    for event in item["events"]:
        words = ", ".join(part for part in (event["state"], event["text"]) if part)
        click.echo(f"{event['time']}  {words}")


def _show_session(session: dict[str, Any]) -> None:
    """How far a commanded update is, in a line or two."""
    line = f"session {session['id']} {session['state']}, {session['done']} of {session['steps']}"
    click.echo(f"{line} steps done, {session['repeats']} repeated")
    step = session["current"]
    if step is not None:
        where = f" {step['length']} bytes at {step['offset']:#x}" if step["length"] else ""
        said = f": {step['text']}" if step["text"] else ""
        click.echo(f"now: {step['kind']}{where}, {step['state']}{said}")
    if session["backup"] is not None:
        click.echo(f"the user's data is kept: {session['backup']['size']} bytes, sealed")


@update.command("list")
@server_url_option
@json_option
def update_list(server_url: str, *, as_json: bool) -> None:
    """List all updates."""
    with ServerClient(server_url) as client:
        rows = client.updates()
    if as_json:
        print_json(rows)
        return
    columns = {
        "id": "id",
        "serial": "serial",
        "from_version": "from",
        "version": "to",
        "state": "state",
        "text": "",
        "changed": "changed",
    }
    print_table(rows, columns, "there are no updates", dispensable=("changed",))


@update.command("cancel", short_help="Cancel an update that has erased nothing yet.")
@click.argument("update_id", metavar="ID", type=click.IntRange(1))
@server_url_option
def update_cancel(update_id: int, server_url: str) -> None:
    """Cancel an update: until the terminal has the whole file, or until the first erase."""
    with ServerClient(server_url) as client:
        client.cancel(update_id)
    click.echo(f"update {update_id} is cancelled")


@update.command("abandon")
@click.argument("update_id", metavar="ID", type=click.IntRange(1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_url_option
def update_abandon(update_id: int, server_url: str, *, yes: bool) -> None:
    """Give up a commanded update whose terminal will not come back.

    The backup of its user's data is deleted. When nothing was erased yet, cancel it instead.
    """
    if not yes:
        click.confirm("The user's data may be nowhere else. Delete its backup?", abort=True)
    with ServerClient(server_url) as client:
        client.abandon(update_id)
    click.echo(f"update {update_id} is given up, no backup is left")


@click.command()
@click.argument("serial")
@click.argument("text")
@server_url_option
@json_option
def message(serial: str, text: str, server_url: str, *, as_json: bool) -> None:
    """Send TEXT to the user of the terminal SERIAL."""
    with ServerClient(server_url) as client:
        sent = client.send_text(serial, text)
    if as_json:
        print_json(sent)
    else:
        click.echo(f"message {sent['id']} is queued, it is delivered when {serial} is there")


COMMANDS: list[click.Command] = [
    server,
    bridge,
    publish,
    terminals,
    terminal,
    preparations,
    images,
    update,
    message,
]
