"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

firmware_option = click.option(
    "--firmware",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/firmware"),
    show_default=True,
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
