"""Writes ``docs/traceability.md``: which test shows which row of what the project set out to do.

A test belongs to a row by its name: ``test_claim_a10_…`` shows row A10. One test may name several
rows: ``test_claim_a4_a10_…``. Tests are found by parsing, so nothing has to be installed.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "traceability.md"

GROUPS = {
    "A": "A staged update from SRAM, and restoration over the wire",
    "B": "A commanded update through a service provider, with the user's data kept safe",
    "C": "The bench",
}

ROWS = {
    "A1": "Before a file is received, software that uses SRAM is limited in a stated order, only "
    "as far as is needed. The staging area is secured in what it held.",
    "A2": "The transfer is asked for only when the area is secured.",
    "A3": "The file goes into that area and nowhere else.",
    "A4": "When the file is complete, code in SRAM rewrites the application that the CPU executes "
    "from NOR.",
    "A5": "The server announces the size first. An update that cannot fit is refused with its "
    "reason before anything is transferred, and what was limited resumes.",
    "A6": "The terminal keeps its identification in NOR and sends it to the server.",
    "A7": "The terminal keeps the identification of its software (name, version, build time, "
    "digest) and sends it.",
    "A8": "The server makes a differential file from what is installed to what is wanted, once a "
    "pair, and sends it; the terminal rebuilds the image. Otherwise the full image is sent.",
    "A9": "All of this goes over the wireless link.",
    "A10": "After the rewrite the terminal judges from the NOR whether it succeeded.",
    "A11": "If it failed, at once or at a later start, the terminal enters the restoration state "
    "and talks to the apparatus over the wire.",
    "A12": "It receives the software from the apparatus, stores it and runs. The apparatus is a "
    "program of its own for any serial port.",
    "A13": "The server sends update files on request, makes differential files and keeps the "
    "identifications.",
    "B1": "Version and compile time are collected when a terminal registers, and kept.",
    "B2": "Where the terminal's software differs from the latest is calculated before anyone asks, "
    "and kept.",
    "B3": "When an upgrade is needed, a text message reaches the terminal's user.",
    "B4": "The user calls the customer center, hears a menu and starts the upgrade with a key.",
    "B5": "Data passes through the service provider; a failed transmission is made again.",
    "B6": "The user's data is backed up before anything is erased, given back after the upgrade "
    "and then deleted from the database, which is recorded.",
    "B7": "On the start message the terminal loads the program for it into SRAM.",
    "B8": "The server commands erases and writes, address by address, and the terminal reports "
    "each; only what differs is touched.",
    "B9": "During the upgrade the terminal goes on exchanging messages with the base station.",
    "B10": "Each message is checked, carried out and answered with the result.",
    "B11": "Customer center, server, database, service provider and terminal can be separate "
    "processes.",
    "C1": "A Renode platform of the board runs the firmware.",
    "C2": "QEMU runs the same binary.",
    "C3": "Python drives the wire: console and restoration.",
    "C4": "A TCP bridge is the wireless link to the update server.",
    "C5": "`make hil-test` runs the whole system.",
    "C6": "Robot Framework suites.",
    "C7": "A person can sit at the console, with a debugger when wanted.",
    "C8": "pytest drives the bench; Intel HEX goes in and out.",
}

_NAME = re.compile(r"test_claim_((?:[abc]\d+_)+)")


def rows_of(name: str) -> list[str]:
    """The rows that a test of this name shows: ``test_claim_a4_a10_x`` shows A4 and A10."""
    match = _NAME.match(name)
    return match.group(1).upper().strip("_").split("_") if match else []


def collect(folder: Path) -> dict[str, list[str]]:
    """For each row the tests that show it, as ``file.py::name``, sorted.

    Raises:
        ValueError: a test names a row that does not exist.
    """
    tests: dict[str, list[str]] = defaultdict(list)
    for file in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for row in rows_of(node.name):
                if row not in ROWS:
                    raise ValueError(f"{file.name}::{node.name} names row {row}, which is not one")
                tests[row].append(f"{file.relative_to(folder).as_posix()}::{node.name}")
    return {row: sorted(names) for row, names in tests.items()}


def page(tests: dict[str, list[str]]) -> str:
    """The page, in Markdown."""
    lines = [
        "# What the project set out to do, and the tests that show it",
        "",
        "Written by `make docs/traceability` from the names of the tests; do not edit.",
        "",
        "A row without a test is open.",
    ]
    for group, title in GROUPS.items():
        rows = [row for row in ROWS if row.startswith(group)]
        lines += ["", f"## {group}: {title}", "", "| row | what | shown by |", "| -- | -- | -- |"]
        for row in rows:
            shown = "<br>".join(f"`{name}`" for name in tests.get(row, [])) or "*open*"
            lines.append(f"| {row} | {ROWS[row]} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with ``--check`` say whether it is as it would be written."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail when out of date")
    wanted = page(collect(ROOT / "tests"))
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
        print(f"{PAGE.relative_to(ROOT)} is out of date; run: make docs/traceability")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
