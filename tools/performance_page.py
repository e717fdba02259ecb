"""docs/performance.md: each benchmark writes its own section and leaves the others."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"

_HEAD = """# Performance

Written by `make bench`; do not edit. All figures, and the ratios between them, are of one run on
one machine, which each section names. A later build may have other sizes.
"""


def write_section(title: str, text: str) -> None:
    """Put a section where its predecessor was, or at the end."""
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sections = {}
    for part in re.split(r"^## ", old, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        sections[name] = body.strip()
    sections[title] = text.strip()
    parts = [_HEAD, *(f"## {name}\n\n{body}\n" for name, body in sections.items())]
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "mdformat", PAGE], check=True)
    print(f"written: {PAGE.relative_to(ROOT)}, {title}")


def write_table(title: str, rows: list[tuple[str, str, str]], *packages: str) -> None:
    """Print what there is to say (what, ratio, figures of this machine), and make a section of it.

    The machine is named at its end, with the versions of ``packages``.
    """
    names = ("what", "ratio", "figures of this machine")
    table = Table(*names, title=title, title_justify="left")
    lines = [f"| {' | '.join(names)} |", "|---|--:|---|"]
    for row in rows:
        table.add_row(*row)
        lines.append(f"| {' | '.join(row)} |")
    Console(width=120).print(table)
    write_section(title, "\n".join([*lines, "", machine(*packages)]))


def machine(*packages: str) -> str:
    """A line about day and machine, with the versions of the measured packages."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"Measured on {datetime.now(timezone.utc).date()}. "
        f"Machine: {_processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}. {versions}."
    )


def _processor() -> str:
    """As the system names it."""
    done = subprocess.run(["lscpu"], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model name":
            return value.strip()
    return platform.processor() or "unknown processor"
