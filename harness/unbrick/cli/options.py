"""Options that several commands have."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unbrick.engine import CHIP_ENGINES, OWN_ENGINE
from unbrick.errors import SetupError, UnbrickError
from unbrick.folders import build_folder
from unbrick.layout import reference_layout
from unbrick.lock import owned
from unbrick.screen import Column, FittedTable, open_screen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from unbrick.extras import MissingExtraError
    from unbrick.layout import Layout

_Command = TypeVar("_Command", bound="Callable[..., object]")

STATE = Path("unbrick-state")
"""The folder for what a system keeps, unless options say otherwise."""

SERVER_DATABASE = STATE / "server.db"
ACCOUNTS = STATE / "center.db"


class FromLayout:
    """The default of an option that our firmware's layout knows; read when it is wanted."""

    def __init__(self, get: Callable[[Layout], object]) -> None:
        self._get = get

    def __call__(self) -> object:
        return self._get(reference_layout())

    def __str__(self) -> str:
        """For the help, which is given whatever the firmware's folder holds."""
        try:
            return str(self())
        except UnbrickError:
            return "as the firmware's layout says"


firmware_option = click.option(
    "--firmware",
    type=click.Path(file_okay=False, path_type=Path),
    default=build_folder,
    show_default="build/firmware; the cache for the firmware of an installed Unbrick",
    help="Where the firmware is built and kept.",
)
svd_option = click.option(
    "--svd",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Of a TARGET.toml: the SVD file of the chip's vendor, so that registers have names. It "
    "comes before the one that the target names.",
)


chip_engine_option = click.option(
    "--engine",
    type=click.Choice(CHIP_ENGINES),
    default=OWN_ENGINE,
    show_default=True,
    help="Of a TARGET.toml: what runs the chip. Another one than the default gives a second "
    "opinion (docs/second-opinion.md).",
)
platform_option = click.option(
    "--platform",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.repl",
    help="Of a TARGET.toml with --engine renode: your own platform, without the flash.",
)


def gdb_option(help_text: str) -> Callable[[_Command], _Command]:
    """``--gdb``: a port of the loopback interface for debuggers, any when none is said."""
    return click.option(
        "--gdb",
        "gdb_port",
        type=click.IntRange(0, 65535),
        is_flag=False,
        flag_value=0,
        metavar="[PORT]",
        help=help_text,
    )


live_gdb_option = gdb_option(
    "Let debuggers in on this port of the loopback interface (by default any), and say how."
)
server_url_option = click.option(
    "--server-url",
    envvar="UNBRICK_SERVER",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="HTTP address of the server.",
)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")


def database_option(help_text: str) -> Callable[[_Command], _Command]:
    """``--database``: the user database, which the server and the center share."""
    return click.option(
        "--database", default=str(SERVER_DATABASE), show_default=True, help=help_text
    )


accounts_option = click.option(
    "--accounts",
    envvar="UNBRICK_CENTER_ACCOUNTS",
    default=str(ACCOUNTS),
    show_default=True,
    help="Database of operators: an SQLite file, or an SQLAlchemy URL.",
)


def exposure_options(command: _Command) -> _Command:
    """Options of how people reach an HTTP port (``unbrick.server.edge.exposure``)."""
    file = click.Path(dir_okay=False, path_type=Path)
    for option in reversed(
        (
            click.option(
                "--host-name",
                "host_names",
                multiple=True,
                metavar="NAME",
                help="A name that people reach it by, besides localhost; may be given again.",
            ),
            click.option("--certificate", type=file, help="Certificate for HTTPS, PEM."),
            click.option("--key", type=file, help="Its private key, PEM."),
            click.option(
                "--behind-proxy", is_flag=True, help="A proxy on this machine does HTTPS."
            ),
        )
    ):
        command = option(command)
    return command


def make_state_folder(folder: Path, hint: str) -> None:
    """Make the state folder, if it is missing. Git ignores what is in it.

    Raises:
        SetupError: it cannot be made.
    """
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            (folder / ".gitignore").write_text("*\n")
    except OSError as error:
        raise SetupError(f"{folder} cannot be made: {error.strerror}", hint=hint) from error


def make_ready(database: str) -> str:
    """A database as an option has it; the state folder is made when it is in there."""
    if Path(database).parent == STATE:
        make_state_folder(STATE, hint="choose another place for the database")
    return database


def find_words(program: str) -> list[str]:
    """How a person begins a command with a program of this environment, in the folder here.

    Its name does where the shell finds it by that; else it needs its path.
    """
    own = Path(sys.executable).with_name(program)
    if program == "unbrick" and not own.exists():
        return [*find_words(Path(sys.executable).name), "-m", "unbrick.cli"]
    found = shutil.which(program)
    if found is not None and Path(found).absolute() == own:
        return [program]
    return [str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)]


@contextmanager
def owned_database(database: str, option: str) -> Iterator[None]:
    """Own the file of an SQLite database while the block runs; others than ours may use it, too.

    PostgreSQL knows itself who writes.

    Args:
        database: as an option has it: the path of a file, or a URL.
        option: the option's name, for the hint.

    Raises:
        SetupError: another process of the same kind has it.
    """
    from unbrick.server.database.connection import find_sqlite_file  # noqa: PLC0415 - slow to import

    file = find_sqlite_file(make_ready(database))
    if file is None or not file.parent.is_dir():  # Opening it will say what is wrong.
        yield
        return
    shared = "one that several may use: postgresql://USER@HOST/NAME"
    with owned(file, hint=f"give another {option}, or {shared}"):
        yield


class Unavailable(click.Command):
    """Stands for a command whose packages are not installed: says so, whatever it is told."""

    def __init__(self, name: str, missing: MissingExtraError) -> None:
        super().__init__(
            name,
            help=f"Not installed; {missing.hint}",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
        self._missing = missing

    def invoke(self, ctx: click.Context) -> None:
        """Say what is missing.

        Raises:
            MissingExtraError: always.
        """
        del ctx
        raise self._missing


def write_file(path: Path, data: bytes) -> None:
    """Write a file, and make its folder.

    Raises:
        SetupError: that does not work.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror}", hint="choose another place"
        ) from error


def print_json(value: object) -> None:
    """Print something for a script."""
    click.echo(json.dumps(value, indent=2))


def print_table(
    rows: Iterable[dict[str, Any]],
    columns: dict[str, str],
    nothing: str,
    *,
    dispensable: Collection[str] = (),
) -> None:
    """Print rows as a table.

    Args:
        rows: their values by key.
        columns: the heading of each key that is shown.
        nothing: what is said when there are no rows.
        dispensable: keys that are left out where the window is too narrow.
    """
    rows = list(rows)
    if not rows:
        click.echo(nothing)
        return
    table = FittedTable(
        [
            Column(heading, wraps=key == "text", dispensable=key in dispensable)
            for key, heading in columns.items()
        ],
        [[str(row[key]) for key in columns] for row in rows],
    )
    open_screen().print(table)
