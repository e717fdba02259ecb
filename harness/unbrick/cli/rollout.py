"""Commands for rollouts: a release for many terminals, in groups."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from unbrick.cli.options import json_option, print_json, print_table, server_url_option
from unbrick.server.edge.client import ServerClient
from unbrick.server.records.rollouts import read_percent

_BAR_CHARS = 20
_STATES = ("succeeded", "failed", "ordered", "asked", "waiting", "skipped", "forgiven")


class _Percents(click.ParamType):  # type: ignore[type-arg]
    """Percentages that people write as ``5%,25%,100%``."""

    name = "percents"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        numbers = []
        for part in str(value).split(","):
            number = read_percent(part)
            if number is None:
                self.fail(f"{value!r} is no list of percentages such as 5%,25%,100%", param, ctx)
            numbers.append(number)
        return tuple(numbers)


class _Percent(click.ParamType):  # type: ignore[type-arg]
    """One percentage, with or without its sign."""

    name = "percent"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """The number."""
        number = read_percent(str(value))
        if number is None:
            self.fail(f"{value!r} is no percentage such as 90%", param, ctx)
        return number


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """A moment in ISO 8601; without a time zone it is that of this machine."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """The moment with its time zone."""
        try:
            return (
                datetime.fromisoformat(str(value).replace("Z", "+00:00")).astimezone().isoformat()
            )
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time such as 2026-12-01T03:00", param, ctx)


@click.group()
def rollout() -> None:
    """Roll a release out to many terminals, in groups."""


_number = click.argument("rollout_id", metavar="ID", type=click.IntRange(1))


@rollout.command("create", short_help="Make a rollout, which then waits for approval.")
@click.argument("version")
@click.option("--name", default="", help="What people call it.  [default: the version]")
@click.option("--serials", default="*", show_default=True, help="Only these, with * and ?.")
@click.option("--runs", default="*", show_default=True, help="Only where such a version runs.")
@click.option("--software", default="", help="Only where this runs.  [default: that of the image]")
@click.option("--hardware", default="", help="Only this hardware, if VERSION is for several.")
@click.option(
    "--groups", type=_Percents(), default="5%,25%,100%", show_default=True, help="How far each is."
)
@click.option(
    *("--success", "success"),
    type=_Percent(),
    default="90%",
    show_default=True,
    help="So much of a group must succeed before the next one begins.",
)
@click.option(
    *("--error", "error"),
    type=_Percent(),
    default="5%",
    show_default=True,
    help="When more of a group fails, all stops.",
)
@click.option("--commanded", is_flag=True, help="By commands, not by files.")
@click.option("--consent", is_flag=True, help="Ask each terminal's user first, who then calls.")
@click.option("--downgrade", is_flag=True, help="Also where VERSION is older than what runs.")
@click.option("--not-before", type=_Moment(), help="Begin then, such as 2026-12-01T03:00.")
@server_url_option
@json_option
def rollout_create(
    version: str, server_url: str, *, commanded: bool, as_json: bool, **order: Any
) -> None:
    """Make a rollout of the published VERSION, for the terminals that need it now.

    It begins when somebody else has approved it: `unbrick rollout approve`.
    """
    order["way"] = "commanded" if commanded else "staged"
    with ServerClient(server_url) as client:
        made = client.roll_out(version=version, **order)
    if as_json:
        print_json(made)
        return
    sizes = ", ".join(str(group["terminals"]) for group in made["groups"])
    click.echo(f"rollout {made['id']} of {made['version']} is made: groups of {sizes} terminals")
    click.echo(f"it begins when somebody else says `unbrick rollout approve {made['id']}`")


@rollout.command("list")
@server_url_option
@json_option
def rollout_list(server_url: str, *, as_json: bool) -> None:
    """List the rollouts."""
    with ServerClient(server_url) as client:
        rows = client.rollouts()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["at"] = f"{row['group']} of {len(row['groups'])}"
        for state in ("succeeded", "failed"):
            row[state] = sum(group[state] for group in row["groups"])
    columns = {
        "id": "id",
        "name": "name",
        "version": "version",
        "state": "state",
        "at": "group",
        "terminals": "terminals",
        "succeeded": "succeeded",
        "failed": "failed",
        "text": "",
    }
    print_table(rows, columns, "there are no rollouts", dispensable=("name", "terminals"))


@rollout.command("show", short_help="Show how far a rollout is.")
@_number
@click.option("--members", is_flag=True, help="Every terminal, and what has become of it.")
@server_url_option
@json_option
def rollout_show(rollout_id: int, server_url: str, *, members: bool, as_json: bool) -> None:
    """Show how far a rollout is, and what was done with it by whom."""
    with ServerClient(server_url) as client:
        found = client.rollout_members(rollout_id) if members else client.rollout(rollout_id)
    if as_json:
        print_json(found)
    elif isinstance(found, list):
        _print_members(found)
    else:
        _show(found)


def _print_members(rows: list[dict[str, Any]]) -> None:
    columns = {
        "serial": "serial",
        "group": "group",
        "state": "state",
        "update_id": "update",
        "text": "",
    }
    for row in rows:
        row["update_id"] = "" if row["update_id"] is None else row["update_id"]
    print_table(rows, columns, "it has no terminals")


def _show(item: dict[str, Any]) -> None:
    why = f", {item['text']}" if item["text"] else ""
    click.echo(f"rollout {item['id']}, {item['name']}: {item['state']}{why}")
    click.echo(
        f"{item['version']} for {item['hardware_id']}, {item['way']}: {item['terminals']} terminals"
        f" with serials {item['serials']} that ran {item['software']} {item['runs']}"
    )
    click.echo(f"goes on after {item['success']} % succeeded, stops after {item['error']} % failed")
    if item["not_before"]:
        click.echo(f"not before {item['not_before']}")
    if item["consent"]:
        agreed, silent = (sum(g[name] for g in item["groups"]) for name in ("consented", "asked"))
        click.echo(f"{agreed + silent} users were asked, {agreed} have consented")
    for group in item["groups"]:
        counted = group["terminals"] - group["skipped"] - group["forgiven"]
        done = _BAR_CHARS * group["succeeded"] // counted if counted else _BAR_CHARS
        words = [f"{group[state]} {state}" for state in _STATES if group[state]]
        bar = "#" * done + "." * (_BAR_CHARS - done)
        click.echo(f"group {group['group']}  {bar}  {', '.join(words) or 'no terminals'}")
    for member in item["failures"]:
        click.echo(f"{member['serial']} {member['state']}: {member['text']}")
    for deed in item["history"]:
        what = ": ".join(part for part in (deed["what"], deed["text"]) if part)
        click.echo(f"{deed['time']}  {deed['who']}  {what}")


@rollout.command("approve", short_help="Let a rollout begin that somebody else has made.")
@_number
@server_url_option
def rollout_approve(rollout_id: int, server_url: str) -> None:
    """Let a rollout begin that somebody else has made."""
    with ServerClient(server_url) as client:
        item = client.do_with_rollout(rollout_id, "approve")
    when = f", it begins at {item['not_before']}" if item["state"] == "scheduled" else ""
    click.echo(f"rollout {rollout_id} is approved{when}")


@rollout.command("pause", short_help="Order nothing more for now.")
@_number
@server_url_option
def rollout_pause(rollout_id: int, server_url: str) -> None:
    """Order nothing more for now, and take back what terminals have not got yet."""
    with ServerClient(server_url) as client:
        client.do_with_rollout(rollout_id, "pause")
    click.echo(f"rollout {rollout_id} is paused: `unbrick rollout resume {rollout_id}` goes on")


@rollout.command("resume", short_help="Go on with one that was paused or has stopped.")
@_number
@server_url_option
def rollout_resume(rollout_id: int, server_url: str) -> None:
    """Go on with a rollout that was paused or has stopped.

    After a stop, what had failed until then does not count any more.
    """
    with ServerClient(server_url) as client:
        client.do_with_rollout(rollout_id, "resume")
    click.echo(f"rollout {rollout_id} goes on")


@rollout.command("abandon", short_help="Give a rollout up for good.")
@_number
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_url_option
def rollout_abandon(rollout_id: int, server_url: str, *, yes: bool) -> None:
    """Give a rollout up for good, and take back what terminals have not got yet."""
    if not yes:
        click.confirm("It cannot be resumed. Abandon it?", abort=True)
    with ServerClient(server_url) as client:
        client.do_with_rollout(rollout_id, "abandon")
    click.echo(f"rollout {rollout_id} is given up")


COMMANDS: list[click.Command] = [rollout]
