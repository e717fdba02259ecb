"""The table of the server's speed in docs/performance.md: many simulated terminals are updated by
the server and by a bare ``aiocoap`` that answers the same from memory. Written by ``make bench``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import resource
import runpy
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from performance_page import ROOT, machine, write_section
from unbrick.bench.fleet import COURSE, Fleet, courses, order
from unbrick.board import BOARD
from unbrick.errors import ToolBrokenError
from unbrick.image.build import firmware_folder
from unbrick.image.sign import sign
from unbrick.server.database import SqlRecords
from unbrick.server.database.connection import full_url

VERSION = "1.1.0"
IMAGE = 4096  # bytes
HOST = "127.0.0.1"
TICKS = os.sysconf("SC_CLK_TCK")


BARE = "bare aiocoap"
BARE_PROGRAM = Path(__file__).with_name("bare_server.py")

INTRODUCTION = f"""\
Simulated terminals come to life at the same time, each with a UDP socket of its own, and are all
to be updated: each registers, is announced an image of {IMAGE:,} bytes, fetches it in blocks,
reports four times, registers with the new software and reports once more: 12 requests to the
server and one from it. The server is one process; what it answers is committed to the disk. *Bare
aiocoap* answers the same requests, and announces, from memory: no database, no history. The
terminals are another process. A run in which the records do not have the whole course of every
update does not count. When many ask at once they wait for each other: the time of a request is the
length of the queue.
"""


def serial(number: int) -> str:
    """Of the terminal with this number."""
    return f"LOAD-{number:05}"


# Processes


def _me(*arguments: str) -> list[str]:
    return [sys.executable, __file__, *arguments]


@contextmanager
def process(*command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and the first line that it says; it is ended afterwards."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None  # noqa: S101 - asked for above
        try:
            yield running, running.stdout.readline()
        finally:
            running.terminate()


def free_port() -> int:
    """A UDP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Usage:
    """Of a process: seconds of processor time, and bytes of memory at most."""

    cpu: float
    peak: int


def usage(pid: int) -> Usage:
    """What a process has used so far."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    ticks = int(stat[11]) + int(stat[12])
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return Usage(ticks / TICKS, int(found[1]) * 1024 if found else 0)


@dataclass(frozen=True)
class Run:
    """One server under one load; times in seconds."""

    count: int
    seconds: float
    requests: list[float]
    retransmissions: int
    fleet_cpu: float
    server: Usage

    @property
    def median(self) -> float:
        """Of a request."""
        return statistics.median(self.requests)

    @property
    def worst(self) -> float:
        """99 % of the requests are faster."""
        return statistics.quantiles(self.requests, n=100)[98]

    @property
    def rate(self) -> float:
        """Updates a second."""
        return self.count / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of the server's processor time for an update."""
        return self.server.cpu / self.count

    def __str__(self) -> str:
        return (
            f"{self.rate:.0f} updates/s, {self.cost * 1000:.1f} ms of processor time each, "
            f"requests {self.median * 1000:.1f} ms, 99 % {self.worst * 1000:.1f} ms, "
            f"{self.retransmissions} sent again, {self.server.peak / 1e6:.0f} MB"
        )


def load(port: int, count: int, at_once: int, pid: int) -> Run:
    """Run the fleet, in a process of its own, against a port."""
    before = usage(pid)
    done = subprocess.run(
        _me("fleet", str(port), str(count), str(at_once)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = usage(pid)
    said = json.loads(done.stdout)
    if said["done"] != count:
        raise ToolBrokenError(f"{count - said['done']} of {count} terminals were lost")
    return Run(
        count=count,
        seconds=said["seconds"],
        requests=said["requests"],
        retransmissions=said["retransmissions"],
        fleet_cpu=said["cpu"],
        server=Usage(after.cpu - before.cpu, after.peak),
    )


def fleet(port: int, count: int, at_once: int) -> None:
    """The process with the terminals: says what came of them."""
    terminals = Fleet((serial(n) for n in range(count)), (HOST, port), at_once=at_once)
    result = asyncio.run(terminals.run())
    used = resource.getrusage(resource.RUSAGE_SELF)
    said = {**vars(result), "cpu": used.ru_utime + used.ru_stime}
    json.dump(said, sys.stdout)


def small_image() -> bytes:
    """A signed image that is no program."""
    start = BOARD.partition("application").offset + BOARD.image_header_size
    head = BOARD.sram.end.to_bytes(4, "little") + (start + 0x41).to_bytes(4, "little")
    return sign(
        head + random.Random(VERSION).randbytes(IMAGE - len(head)),
        name="terminal",
        version=VERSION,
        build_time="2024-05-01T12:00:00Z",
        hardware_id=BOARD.hardware_id,
        security_counter=1,
        key=firmware_folder() / "keys" / "development.pem",
    )


def run_bare(count: int, at_once: int, file: Path) -> Run:
    port = free_port()
    with process(sys.executable, str(BARE_PROGRAM), str(port), str(file)) as (running, line):
        if line != "ready\n":
            raise ToolBrokenError("the bare server does not start")
        return load(port, count, at_once, running.pid)


def run_ours(count: int, at_once: int, file: Path, database: str) -> Run:
    """The server, on a database of its own, that has the updates ordered already."""
    serials = [serial(number) for number in range(count)]
    with closing(SqlRecords(database)) as records:
        order(records, [file.read_bytes()], serials)
    options = ["--coap-port", "0", "--http-port", "0", "--database", database]
    with process(sys.executable, "-m", "unbrick.cli", "server", "start", *options) as (
        running,
        line,
    ):
        found = re.search(r"coap://[^ ]*:(\d+)", line)
        if found is None:
            raise ToolBrokenError("the server does not start")
        result = load(int(found[1]), count, at_once, running.pid)
    with closing(SqlRecords(database)) as records:
        told = courses(records)
    wrong = [name for name in serials if told.get(name) != COURSE]
    if wrong or len(told) != count:
        raise ToolBrokenError(f"the records are wrong about {len(wrong)} terminals: {wrong[:3]}")
    return result


# The table


@contextmanager
def postgresql() -> Iterator[Callable[[], str] | None]:
    """Makes databases in a PostgreSQL of its own; None when there is none here."""
    tests = runpy.run_path(str(ROOT / "tests" / "postgres_server.py"))
    with ExitStack() as stack:
        try:
            url = stack.enter_context(tests["postgres_server"](durable=True))
        except tests["NoPostgresError"] as error:
            print(f"PostgreSQL is not measured: {error}")
            yield None
            return
        numbers = itertools.count()

        def make() -> str:
            name = f"bench{next(numbers)}"
            engine = create_engine(full_url(f"{url}/postgres"), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            engine.dispose()
            return f"{url}/{name}"

        yield make


def measure(count: int, at_once: int, rounds: int) -> dict[str, Run]:
    """The best run of each server. They take turns, so that the machine's moods hit all."""
    best: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder, postgresql() as make_database:
        file = Path(folder) / "image.bin"
        file.write_bytes(small_image())
        for turn in range(rounds):
            runs = {
                BARE: run_bare(count, at_once, file),
                "Unbrick, SQLite": run_ours(count, at_once, file, f"{folder}/{turn}.db"),
            }
            if make_database is not None:
                runs["Unbrick, PostgreSQL"] = run_ours(count, at_once, file, make_database())
            for name, run in runs.items():
                print(f"{at_once} at once, {name}: {run}", flush=True)
                if name not in best or run.seconds < best[name].seconds:
                    best[name] = run
    return best


def table(results: dict[int, dict[str, Run]]) -> str:
    """The section of the page."""
    lines = [INTRODUCTION]
    lines.append(
        "| terminals at once | server | updates a second | to bare | requests a second "
        "| processor time, ms an update | to bare | request, median, ms | 99 %, ms "
        "| sent again | memory at most, MB |"
    )
    lines.append("|--:|---|" + "--:|" * 9)
    for at_once, runs in results.items():
        bare_run = runs[BARE]
        for name, run in runs.items():
            figures = (
                f"{run.rate:.0f}",
                f"{run.rate / bare_run.rate:.2f}",
                f"{len(run.requests) / run.seconds:.0f}",
                f"{run.cost * 1000:.1f}",
                f"{run.cost / bare_run.cost:.2f}",
                f"{run.median * 1000:.1f}",
                f"{run.worst * 1000:.1f}",
                f"{run.retransmissions}",
                f"{run.server.peak / 1e6:.0f}",
            )
            lines.append(f"| {at_once} of {run.count} | {name} | {' | '.join(figures)} |")
    fleets = [run.fleet_cpu / run.seconds for runs in results.values() for run in runs.values()]
    lines += [
        "",
        f"The process with the terminals used {100 * max(fleets):.0f} % of a core at most.",
        "",
        machine("aiocoap", "SQLAlchemy", "psycopg"),
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, or be one of the processes."""
    match sys.argv[1:]:
        case ["fleet", *numbers]:
            fleet(*map(int, numbers))
        case []:
            results = {50: measure(500, 50, 3), 2000: measure(2000, 2000, 1)}
            write_section("Many terminals at once", table(results))
        case [count, at_once]:  # To look at while working on it.
            measure(int(count), int(at_once), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
