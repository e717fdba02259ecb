"""The pictures of the documentation's site, made anew from what Unbrick itself draws."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mermaid_render import mermaid_to_svg

THEMES = {"light": "neutral", "dark": "dark"}


class PictureError(Exception):
    """A command did not do what its picture needs."""


def draw_diagram(source: str) -> dict[str, str]:
    """A diagram in the language of Mermaid as SVG, for a light page and for a dark one."""
    return {look: mermaid_to_svg(source, theme=name).decode() for look, name in THEMES.items()}


def draw_pictures(reports: Path, firmware: Path) -> Mapping[str, str]:
    """The pictures by their names, as HTML, with ``@/`` for the root of the site.

    Args:
        reports: a folder of the site beside its pages; it gets the reports that they are from.
        firmware: the terminal's firmware, or where it is built and kept.

    Raises:
        PictureError: a command failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _unbrick(folder, "demo")
        page = (folder / "unbrick-demo" / "report.html").read_text(encoding="utf-8")
        (reports / "demo.html").write_text(page, encoding="utf-8")
        found = {"demo": _cut_out(page, "<h2>Violations</h2>", "<div class='wide'><table>")}

        words = ("campaign", "phonebook", "--preset", "full", "--out", "phonebook")
        _unbrick(folder, *words, "--firmware", firmware)
        page = (folder / "phonebook" / "report.html").read_text(encoding="utf-8")
        (reports / "phonebook.html").write_text(page, encoding="utf-8")
        picture = _cut_out(page, "<h2 id='phonebook'>", "<h2")
        found["phonebook"] = picture.partition("</h2>")[2]
    return {
        name: f"<div class='report'>{picture}<p><a class='external' href='@/reports/{name}.html'>"
        "The whole report</a></p></div>"
        for name, picture in found.items()
    }


def _unbrick(folder: Path, *words: str | Path) -> None:
    command = [sys.executable, "-m", "unbrick.cli", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PictureError(f"{' '.join(command)}: {done.stderr or done.stdout}")


def _cut_out(page: str, begin: str, end: str) -> str:
    """What a report has from ``begin`` on, as far as ``end``."""
    there, _, rest = page.partition(begin)
    if not rest:
        raise PictureError(f"a report has no {begin}")
    del there
    return rest.partition(end)[0]
