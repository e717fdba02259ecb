"""The command ``init``: from firmware files to a target's file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unbrick.cli.check import show_facts
from unbrick.cli.completion import complete_file
from unbrick.errors import SetupError
from unbrick.screen import open_screen
from unbrick.target.drivers import DRIVERS
from unbrick.target.load import SUFFIX, load_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.draft.draft import Draft
    from unbrick.draft.inputs import Input
    from unbrick.draft.zephyr import Build


class Person:
    """Asks a person, or takes the likeliest answer.

    Args:
        silent: nobody is asked.
    """

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._screen = open_screen()

    def choose(self, question: str, choices: Sequence[str], option: str) -> str:
        """One of several; the first is the likeliest."""
        if self._silent or len(choices) == 1:
            more = f"; {option} says another: {', '.join(choices[1:])}" if choices[1:] else ""
            self.note("taken", f"{choices[0]}{more}")
            return choices[0]
        return _ask(question, choices[0], click.Choice(choices))

    def tell(self, question: str, default: str, option: str) -> str:
        """A text, which may be the default."""
        if self._silent:
            self.note("taken", f"{default!r}; {option} says another")
            return default
        return _ask(question, default)

    def find(self, question: str, unknown: SetupError) -> int:
        """An address.

        Raises:
            SetupError: nobody can be asked, or the answer is none.
        """
        if self._silent:
            raise unknown
        text = _ask(question)
        try:
            return int(text.replace("_", ""), 0)
        except ValueError:
            raise SetupError(f"{text} is no address", hint=unknown.hint) from None

    def note(self, heading: str, text: str) -> None:
        """Say what was found."""
        show_facts([(heading.ljust(HEADING), text)], self._screen)


HEADING = 14
"""Columns of what a line is about."""


def _ask(question: str, default: str | None = None, kind: click.Choice[str] | None = None) -> str:
    try:
        return str(click.prompt(question, default, type=kind, err=True))
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise SetupError(
            f"nobody answers the question {question!r}", hint="--yes takes the likeliest answers"
        ) from None


def _read_all(
    names: Sequence[str], update: str | None
) -> tuple[list[Input], Path | None, Build | None]:
    """All files that were named, the path of the update, and a build folder."""
    from unbrick.draft.inputs import read_input, split_place  # noqa: PLC0415
    from unbrick.draft.zephyr import (  # noqa: PLC0415
        ELF_NAME,
        SIGNED_NAMES,
        is_build,
        read_build,
    )

    inputs: list[Input] = []
    build = None
    for name in names:
        path, at = split_place(name)
        if Path(path).is_dir():
            if not is_build(Path(path)):
                raise SetupError(
                    f"{path} is a folder, and Zephyr built nothing there",
                    hint="name the files that are flashed",
                )
            build = read_build(Path(path))
            inputs += [read_input(file) for file in build.symbols]
            for file, offset in build.files:
                made = read_input(file)
                inputs.append(made if offset is None or made.placed else _at_slot(made, offset))
        else:
            inputs.append(read_input(Path(path), at))
    chosen = None
    if update is not None:
        path, at = split_place(update)
        chosen = Path(path)
        known = [one for one in inputs if one.path == chosen]
        if known and at is not None:
            raise SetupError(f"{path} is named twice", hint="name it with --update alone")
        inputs += [] if known else [read_input(chosen, at)]
        elf = chosen.with_name(ELF_NAME)
        if chosen.name in SIGNED_NAMES and elf.is_file() and not known:  # of another build
            inputs.append(read_input(elf))
    return inputs, chosen, build


def _at_slot(made: Input, offset: int) -> Input:
    """A signed image: its vectors lead to the flash, which begins at a multiple of 16 MiB."""
    vectors = made.vectors
    base = vectors.handlers[0] & 0xFF00_0000 if vectors else 0
    return made.put(base + offset)


def _listen(draft: Draft, asked: Person, *, given: bool) -> Draft:
    """Send the update, and hear what the device says then."""
    from unbrick.draft.driven import send_update  # noqa: PLC0415

    lines, seconds, why = send_update(draft)
    fresh = [line for line in lines if line not in draft.old]
    asked.note("update", f"sent by {draft.driver}" + (f": {why}" if why else ""))
    asked.note("then", f"says {', '.join(map(repr, fresh[-3:] or lines[-1:])) or 'nothing'}")
    if why:
        raise SetupError(
            f"the update does not come about: {why}",
            hint="correct --after, --type and --driver, or write the target's file by hand",
        )
    draft = replace(draft, seconds=seconds)
    if given:
        return draft
    question = "What does the device say once it is updated?"
    told = asked.tell(question, (fresh or list(lines) or [""])[-1], "--says")
    if not told:
        raise SetupError(
            "nobody knows what the device says once it is updated", hint="give --says TEXT"
        )
    return replace(draft, says=(told,))


@click.command("init", short_help="Write a target's file for firmware of your own.")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE[@ADDRESS]...",
    shell_complete=complete_file,
)
@click.option(
    "--update",
    metavar="FILE[@ADDRESS]",
    help="The file that is the update, and perhaps where it is staged.  [default: what would lie "
    "over another file, or the last program]",
)
@click.option(
    "--driver",
    metavar="NAME",
    help=f"What sends the update: {', '.join(sorted(DRIVERS))}, or a Python file.  [default: it is "
    "staged in the flash]",
)
@click.option("--after", metavar="TEXT", help="What the device says before it can be sent.")
@click.option("--type", "typed", metavar="TEXT", help="What is then typed.")
@click.option("--says", multiple=True, metavar="TEXT", help="What it says once it is updated.")
@click.option("--chip", metavar="NAME", help="A chip of Unbrick, or a chip file of yours.")
@click.option("--console", metavar="UART", help="The UART where people read.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="target.toml",
    show_default=True,
    help="The target's file.",
)
@click.option("--force", is_flag=True, help="Write it even over one that is there.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the likeliest answer.")
def init(
    files: tuple[str, ...],
    update: str | None,
    driver: str | None,
    after: str | None,
    typed: str | None,
    says: tuple[str, ...],
    chip: str | None,
    console: str | None,
    out: Path,
    *,
    force: bool,
    yes: bool,
) -> None:
    """Write a target's file for firmware of your own, and find out what goes in there.

    FILES are what is flashed, and the update: ELF, Intel HEX, S-record, UF2 or binary files, as
    boot.elf or app.bin@0x08002000. A Zephyr build folder will do, too. Where a binary file lies
    is found out, if that is possible.

    The firmware is started once, in process. So its console is found, and what it says. You are
    asked what is left.
    """
    from unbrick.draft.draft import Wishes, make_draft  # noqa: PLC0415 - slow to import
    from unbrick.draft.write import render_target  # noqa: PLC0415

    if out.suffix != SUFFIX:
        raise SetupError(f"{out} is no name of a target's file", hint=f"let it end with {SUFFIX}")
    if out.exists() and not force:
        raise SetupError(f"{out} is there already", hint="give another --out, or --force")
    if (driver or after or typed) and not (driver and update):
        raise SetupError(
            "to send the update, --driver and --update are needed", hint="give both of them"
        )
    asked = Person(silent=yes)
    inputs, chosen, build = _read_all(files, update)
    wishes = Wishes(
        chip=chip or "",
        console=console or "",
        update=chosen,
        driver=driver or "",
        after=after or "",
        typed=typed or "",
        says=says,
        build=build,
    )
    draft = make_draft(inputs, wishes, asked)
    if draft.driver:
        draft = _listen(draft, asked, given=bool(says))
    text = render_target(draft, out.parent)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"{out} cannot be written: {error.strerror}", hint="choose another --out"
        ) from error
    load_target(out)
    click.echo(f"{out} is written. Read it, and then:\n    unbrick check {out}")


COMMANDS: list[click.Command] = [init]
