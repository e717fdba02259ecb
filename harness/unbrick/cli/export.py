"""The command ``export``: a case of a campaign, for a real board."""

from __future__ import annotations

from pathlib import Path

import click

from unbrick.errors import SetupError
from unbrick.screen import open_screen, open_status
from unbrick.target.load import SUFFIX
from unbrick.target.target import FileTarget


@click.command(short_help="Write the flash of a case for a real board.")
@click.argument("target", type=click.Path(path_type=Path), metavar="TARGET.toml")
@click.argument("case_id", required=False, metavar="[CASE-ID]")
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder.  [default: export-CASE]",
)
@click.option("--force", is_flag=True, help="Write even over files that are there.")
def export(target: Path, case_id: str | None, out: Path | None, *, force: bool) -> None:
    """Write the flash with which a case begins, as Intel HEX, and how to put it onto a board.

    The commands are those of OpenOCD, pyOCD, J-Link and nrfjprog. Start the board then: it does
    what the emulated one did, or the emulation is wrong, and you have a case to show.

    Without a CASE-ID it is the flash before the update.
    """
    # It takes long to import, and most commands need none of it.
    from unbrick.target.export import export_case, tell_wrong  # noqa: PLC0415

    if target.suffix != SUFFIX:
        raise SetupError(
            f"not the file of a target: {target}", hint="name a TARGET.toml and one of its cases"
        )
    found = FileTarget.load(target, tried=False)
    case = found.find_case(case_id or "")
    folder = out or Path(f"export-{str(case).replace('/', '-')}")
    with open_status().status("playing the case"):
        made = export_case(found, case)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [name for name in made.files if (folder / name).exists()]
        if there and not force:
            raise SetupError(
                f"{folder / there[0]} is there already", hint="give another --out, or --force"
            )
        for name, text in made.files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"{folder} cannot be written: {error.strerror}", hint="choose another --out"
        ) from error
    screen = open_screen()
    screen.print(f"{folder} has {', '.join(made.files)}.", soft_wrap=True, markup=False)
    for name, calls in made.commands:
        screen.print(f"{name}:", style="bold")
        for call in calls:
            screen.print(f"    {call}", soft_wrap=True, markup=False)
    if made.wrong:
        screen.print(f"{tell_wrong(made.wrong)}.", style="bold", soft_wrap=True, markup=False)
    last = made.expected.strip().splitlines()[-1:] or ["nothing"]
    screen.print(f"Emulated, the device's last words then are: {last[0]}", markup=False)
    if made.violation:
        screen.print(made.violation, style="bold red", markup=False)


COMMANDS: list[click.Command] = [export]
