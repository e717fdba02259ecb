"""Options that several commands have."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unbrick.folders import build_folder
from unbrick.lock import owned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.extras import MissingExtraError

firmware_option = click.option(
    "--firmware",
    type=click.Path(file_okay=False, path_type=Path),
    default=build_folder,
    show_default="build/firmware; the cache for the firmware of an installed Unbrick",
    help="Where the firmware is built and kept.",
)
server_url_option = click.option(
    "--server-url",
    envvar="UNBRICK_SERVER",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="HTTP address of the server.",
)


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
    from unbrick.server.database.connection import sqlite_file  # noqa: PLC0415 - slow to import

    file = sqlite_file(database)
    if file is None or not file.parent.is_dir():  # Opening it will say what is wrong.
        yield
        return
    with owned(file, hint=f"give another {option}"):
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
