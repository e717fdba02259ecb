"""Commands for the customer center and its operators."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unbrick.center.calls.menu import DEFAULT
from unbrick.center.operators.accounts import Passwords, Permission, add_operator, may
from unbrick.center.operators.records import Deed, LogEntry, Role
from unbrick.cli.options import (
    accounts_option,
    database_option,
    exposure_options,
    make_ready,
    owned_database,
    server_url_option,
)
from unbrick.errors import SetupError
from unbrick.screen import Column, FittedTable, open_screen

if TYPE_CHECKING:
    from unbrick.center.operators.database import SqlAccounts

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(short_help="Run the customer center.")
def center() -> None:
    """Run the customer center: calls, text messages, and the page for operators."""


@center.command("start", short_help="Start the customer center.")
@click.option("--host", default="127.0.0.1", show_default=True, help="IP address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="TCP; 0: any."
)
@server_url_option
@database_option("The user database, which the server has, too.")
@accounts_option
@click.option("--menu", type=_FILE, default=DEFAULT, help="What callers hear, a YAML file.")
@exposure_options
@click.option(
    "--notify/--no-notify",
    default=True,
    show_default=True,
    help="Tell users by text message that an upgrade is ready.",
)
@click.option(
    "--upgrade",
    type=click.Choice(["commanded", "staged"]),
    default="commanded",
    show_default=True,
    help="How a call upgrades: by commands, with a backup of the user's data, where that can be; "
    "or by a file that the terminal rewrites itself.",
)
def center_start(
    host: str,
    port: int,
    server_url: str,
    database: str,
    accounts: str,
    menu: Path,
    *,
    host_names: tuple[str, ...],
    certificate: Path | None,
    key: Path | None,
    behind_proxy: bool,
    notify: bool,
    upgrade: str,
) -> None:
    """Start the customer center; it runs until SIGTERM or Ctrl-C.

    It prints one line with the address of its page when it is ready.
    """
    from unbrick.center.main import CenterSettings, serve  # noqa: PLC0415 - slow to import
    from unbrick.server.edge.exposure import Exposure  # noqa: PLC0415

    exposure = Exposure(host, port, host_names, certificate, key, behind_proxy)
    settings = CenterSettings(
        *(exposure, server_url, make_ready(database), accounts, menu),
        notify=notify,
        upgrade=upgrade,
    )
    with owned_database(accounts, "--accounts"):
        asyncio.run(serve(settings))


@contextlib.contextmanager
def _open_accounts(accounts: str) -> Iterator[SqlAccounts]:
    from unbrick.center.operators.database import SqlAccounts  # noqa: PLC0415 - slow to import

    with contextlib.closing(SqlAccounts(make_ready(accounts))) as store:
        yield store


@center.command("add-operator", short_help="Make an account, or give a new password.")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@accounts_option
def center_add_operator(name: str, role: str, accounts: str) -> None:
    """Make an account for NAME, or give it another role and password.

    Asks for the password, or reads it from a pipe. A clerk makes calls and sends text messages; an
    engineer starts and cancels updates, and does not see who a terminal belongs to; an auditor
    sees what was done, and does nothing.
    """
    password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    with _open_accounts(accounts) as store:
        add_operator(store, Passwords(), name, Role(role), password, time.time())
    click.echo(f"{name} may sign in as {role}")


@center.command("remove-operator", short_help="Take an account away, at once.")
@click.argument("name")
@accounts_option
def center_remove_operator(name: str, accounts: str) -> None:
    """Take NAME's account away, at once; what they did stays in the log."""
    with _open_accounts(accounts) as store:
        if store.operator(name) is None:
            raise SetupError(
                f"there is no operator {name!r}", hint="`unbrick center operators` lists them"
            )
        store.remove_operator(name)
        store.log(LogEntry(0, time.time(), name, Deed.REMOVED, "", ""))
    click.echo(f"{name} may not sign in any more")


@center.command("operators")
@accounts_option
def center_operators(accounts: str) -> None:
    """List the operators, and what each may do."""
    with _open_accounts(accounts) as store:
        operators = store.operators()
    if not operators:
        click.echo("there are no operators, `unbrick center add-operator` makes one")
        return
    rows = [
        (
            operator.name,
            operator.role.value,
            ", ".join(item.value for item in Permission if may(operator, item)),
        )
        for operator in operators
    ]
    columns = (Column("name"), Column("role"), Column("may", wraps=True))
    open_screen().print(FittedTable(columns, rows))


COMMANDS: list[click.Command] = [center]
