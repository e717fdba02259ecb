"""The table of the list of terminals in docs/performance.md: pages of the customer center over an
SQLite database of made-up terminals. Written by ``make bench``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from performance_page import machine, write_section
from unbrick.center.calls.menu import read_menu
from unbrick.center.center import Center
from unbrick.center.desk import Desk
from unbrick.center.operators.accounts import Passwords, add_operator
from unbrick.center.operators.records import MemoryAccounts, Role
from unbrick.center.page.web import make_app
from unbrick.errors import ToolBrokenError
from unbrick.server.database import SqlRecords
from unbrick.server.edge.client import ServerClient
from unbrick.server.records.people import Actor, Subscriber
from unbrick.server.records.updates import Image, Terminal, Update, UpdateState
from unbrick.wire.messages import Result, TerminalState

TITLE = "The list of terminals"

TERMINALS = 100_000
RELEASES = 10
"""Versions that the terminals run, as many each."""

SUBSCRIBERS = 10_000
UPDATES = 500
"""Under way."""

TIMES = 20
"""Each page is asked for so often."""

PASSWORD = "for this measurement only"  # noqa: S105 - of nobody
HARDWARE, SOFTWARE, BUILT = "unbrick-a9-r1", "terminal", "2026-01-01T00:00:00Z"

PAGES = {
    "the first ones": "/",
    "those that need somebody": "/?kind=bad",
    "those with one version": "/?version=1.4.0%2B0",
    "a part of a serial, found ten times": "/?q=1234",
    "a serial": "/?q=S-054321",
    "a subscriber's name": "/?q=Person+4321",
}
"""What is measured: queries of the list."""


def fill(records: SqlRecords) -> None:
    """Make up everything."""
    digests = [bytes([number]) * 32 for number in range(RELEASES)]
    actor = Actor("bench", 0.0)
    with records.transaction():
        for number, digest in enumerate(digests):
            version = f"1.{number}.0+0"
            image = Image(digest, version, HARDWARE, SOFTWARE, BUILT, 1, 9, 10, digest, 1.0)
            records.add_image(image, b"-")
        for number in range(TERMINALS):
            records.save_terminal(make_terminal(number, digests[number % RELEASES]))
    with records.transaction():
        for number in range(SUBSCRIBERS):
            draft = Subscriber(0, f"+44{number:07}", f"Person {number}", 0.0)
            serial = f"S-{number * 10:06}"
            records.assign(serial, records.add_subscriber(draft, actor).id, actor)
        for number in range(UPDATES):
            records.add_update(make_update(f"S-{number * 100:06}", digests[0], digests[-1]))


def make_terminal(number: int, digest: bytes) -> Terminal:
    """One of them; few need somebody."""
    return Terminal(
        serial=f"S-{number:06}",
        hardware_id=HARDWARE,
        name=SOFTWARE,
        version=f"1.{number % RELEASES}.0+0",
        build_time=BUILT,
        digest=digest,
        state=TerminalState.RESTORATION if number % 1000 == 7 else TerminalState.APPLICATION,
        last_update_id=0,
        last_result=Result.SUCCESS,
        security_counter=1,
        endpoint="127.0.0.1:1",
        first_seen=0.0,
        last_seen=float(number),
    )


def make_update(serial: str, from_digest: bytes, digest: bytes) -> Update:
    """One under way."""
    return Update(
        id=0,
        serial=serial,
        version=f"1.{RELEASES - 1}.0+0",
        digest=digest,
        from_version="1.0.0+0",
        from_digest=from_digest,
        state=UpdateState.PENDING,
        result=None,
        text="",
        created=1.0,
        changed=1.0,
    )


@dataclass(frozen=True)
class Row:
    """Seconds of each time: by the clock, and of the processor."""

    clock: list[float]
    processor: list[float]


async def measure(records: SqlRecords) -> dict[str, Row]:
    """Ask for each page."""
    accounts, passwords = MemoryAccounts(), Passwords()
    add_operator(accounts, passwords, "cleo", Role.CLERK, PASSWORD, 0.0)
    desk = Desk(records, ServerClient("http://127.0.0.1:9"))
    center = Center(desk, accounts, read_menu(), time.time, passwords)
    transport = httpx.ASGITransport(make_app(center))
    async with httpx.AsyncClient(transport=transport, base_url="https://center") as client:
        await client.post("/sign-in", data={"name": "cleo", "password": PASSWORD})
        rows = {}
        for name, address in PAGES.items():
            row = rows[name] = Row([], [])
            for _ in range(TIMES):
                clock, processor = time.perf_counter(), time.process_time()
                answer = await client.get(address)
                row.clock.append(time.perf_counter() - clock)
                row.processor.append(time.process_time() - processor)
                if answer.status_code != 200:
                    raise ToolBrokenError(f"{address} was answered {answer.status_code}")
        return rows


def table(rows: dict[str, Row]) -> str:
    """The section of the page."""
    load = os.getloadavg()[0]
    introduction = (
        f"{TERMINALS:,} terminals with {RELEASES} versions, {SUBSCRIBERS:,} subscribers, and "
        f"{UPDATES} updates under way, in SQLite. Each page was asked for {TIMES} times, at a load "
        f"of {load:.0f}: when that is more than 1, others had the machine, too. A page is to take "
        "at most 200 ms of the processor."
    )
    lines = [
        introduction,
        "",
        "| page | to the first | median, ms | slowest, ms | of the processor, ms |",
        "|---|" + "--:|" * 4,
    ]
    base = statistics.median(next(iter(rows.values())).processor)
    for name, row in rows.items():
        own = statistics.median(row.processor)
        figures = (statistics.median(row.clock), max(row.clock), own)
        shown = " | ".join(f"{1000 * figure:.0f}" for figure in figures)
        lines.append(f"| {name} | {own / base:.2f} | {shown} |")
    return "\n".join([*lines, "", machine("SQLAlchemy", "Jinja2")])


def main() -> int:
    """Measure; ``--show``: and write nothing."""
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.closing(SqlRecords(str(Path(name) / "list.db"))) as records,
    ):
        fill(records)
        text = table(asyncio.run(measure(records)))
    print(text)
    if "--show" not in sys.argv[1:]:
        write_section(TITLE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
