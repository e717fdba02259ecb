"""The command ``demo``: what Unbrick is for, shown once."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from textwrap import fill, indent
from typing import TYPE_CHECKING

import click

from unbrick.errors import SetupError, ToolBrokenError
from unbrick.folders import make_demo
from unbrick.screen import open_screen, open_status

if TYPE_CHECKING:
    from rich.console import Console

    from unbrick.campaign.search import SearchResult
    from unbrick.report.model import ToldCase, ToldSession

LINES = 6
"""Lines of a session that are shown: its last ones."""


def _search(target_file: Path, *, stop_early: bool) -> SearchResult:
    """Cut the power once, everywhere."""
    from unbrick.campaign.run import PRESETS, run_campaign  # noqa: PLC0415 - slow to import
    from unbrick.target.target import FileTarget  # noqa: PLC0415

    bounds = replace(PRESETS["single"], stop_early=stop_early)
    return run_campaign(FileTarget.load(target_file), bounds=bounds)


def _write_report(result: SearchResult, told: tuple[ToldCase, ...], page: Path) -> None:
    from unbrick.report.html import render_html  # noqa: PLC0415 - slow to import
    from unbrick.report.model import (  # noqa: PLC0415
        CampaignReport,
        list_versions,
        report_scenario,
        sum_timings,
    )

    target = result.target
    report = CampaignReport(
        preset="single",
        seed=0,
        firmware=dict(target.programs),
        versions=list_versions(),
        scenarios=(report_scenario(result, told),),
        coverage=(),
        timings=sum_timings([result], 0.0, 1, 0),
        invariants=target.invariants,
        board=target.board,
        partitions=target.partitions,
    )
    page.write_text(render_html(report), encoding="utf-8")


WIDTH = 76
"""Letters of a sentence in a line, on a screen of 80."""


def _show_session(session: ToldSession, screen: Console) -> None:
    for moment, text in session.said[-LINES:]:
        bad = "VIOLATION" in text or "LOST" in text
        style = "bold red" if bad else "dim"
        screen.print(f"    {moment:9.4f} s  {text}", style=style, markup=False, soft_wrap=True)


@click.command(short_help="See in ten seconds what this is for.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="unbrick-demo",
    show_default=True,
    help="A folder for the example; it must not be there yet.",
)
def demo(out: Path) -> None:
    """Search an example twice, without and with a bug, and show the power cut that bricks it.

    The example is an updater with two slots for an STM32F103. All of it stays in a folder: sources,
    firmware, target files, and the report. So you can go on from there.
    """
    from unbrick.report.told import tell_violations  # noqa: PLC0415 - slow to import

    screen, status = open_screen(), open_status()
    began = time.monotonic()
    if out.exists():
        raise SetupError(f"{out} is there already", hint="remove it, or give another --out")
    with status.status("preparing the example"):
        try:
            make_demo(out)
        except OSError as error:
            raise SetupError(
                f"{out} cannot be made: {error.strerror}", hint="give another --out"
            ) from error
    good, bad = out / "good" / "target.toml", out / "bug" / "target.toml"
    screen.print("An updater with two slots, for an STM32F103. It receives version 2 by XMODEM.")
    screen.print("The firmware runs unchanged, on an emulated chip.\n")

    with status.status("cutting the power"):
        found = _search(good, stop_early=False)
    first = found.cases[0].outcome
    screen.print(
        f"1. The update has {len(first.ops):,} flash operations. The power is cut at each,\n"
        f"   before it and in it: {found.transitions:,} cuts.",
        highlight=False,
    )
    if found.violations:
        raise ToolBrokenError(f"the example does not come back from {found.violations[0].id}")
    screen.print("   It always comes back.\n", style="bold green")

    patch = (out / "bug" / "bug.patch").read_text(encoding="utf-8")
    subject = patch.splitlines()[0].removeprefix("Subject: ")
    screen.print(f"2. Now with a bug ({out / 'bug' / 'bug.patch'}):", soft_wrap=True)
    screen.print(indent(fill(subject, WIDTH), "   "), style="italic")
    screen.print("   The update itself works as before. So no test on a desk sees it.\n")
    with status.status("cutting the power"):
        found = _search(bad, stop_early=True)
        told = tell_violations(found)
    if not told:
        raise ToolBrokenError("the bug of the example was not found")
    _write_report(found, told, out / "report.html")
    case = told[0]
    screen.print(f"3. One cut bricks it: {case.case}\n", style="bold red")
    if case.well:
        screen.print("   The power stays on:")
        _show_session(case.well, screen)
    screen.print(f"   The power is cut at operation {found.violations[0].id.cuts[-1]}. Then:")
    _show_session(case.bad, screen)
    screen.print(f"\nThis took {time.monotonic() - began:.1f} s. See the picture, and go on:")
    words = shlex.join(("unbrick", "replay", str(bad), case.case))
    for what in (
        str(out / "report.html"),
        words,
        shlex.join(("unbrick", "console", str(bad))),
        "unbrick init YOUR-BOOTLOADER.elf YOUR-OLD.bin YOUR-NEW.bin",
    ):
        screen.print(f"    {what}", soft_wrap=True, markup=False)
    sys.exit(0)


COMMANDS: list[click.Command] = [demo]
