"""The table of the server's speed in docs/performance.md: many simulated terminals are updated by
the server and by a bare ``aiocoap`` that answers the same from memory. Written by ``make bench``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import resource
import runpy
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from fleet import COMMANDED_COURSE, COURSE, Fleet, courses, make_small_image, order
from fleet_terminal import UNPUBLISHED
from performance_page import ROOT, machine, write_section
from unbrick.errors import ToolBrokenError
from unbrick.image.format import inspect
from unbrick.server.database import SqlRecords
from unbrick.server.database.connection import complete_url

VERSION = "1.1.0"
IMAGE = 4096  # bytes
HOST = "127.0.0.1"
LINGER_S = 4.0
"""Seconds that commanded terminals stay when all are done: the server may have missed an answer."""

TICKS = os.sysconf("SC_CLK_TCK")


BARE = "bare aiocoap"
BARE_PROTECTED = "bare aiocoap, OSCORE"
INSECURE = ", `--insecure`"
"""How the names of those end that hear what is not protected; the terminals protect nothing."""

BARE_PROGRAM = Path(__file__).with_name("bare_server.py")
BALANCER = Path(__file__).with_name("balancer.py")

SERVERS = 3
"""Server processes that share a database."""

INTRODUCTION = f"""\
Many simulated terminals come to life at the same time, each with a UDP socket of its own. All are
to be updated:

| update | requests of a terminal | requests of the server |
|---|--:|--:|
| staged | 12 | 1 |
| commanded | 13 | 12 |

In a staged update a terminal registers, is announced an image of {IMAGE:,} bytes, and fetches it in
blocks. It reports four times, registers with the new software, and reports once more.

- The server is one process, or there are {SERVERS} behind a balancer, which share a database: then
  their processor time is added up, and the balancer's is not in it. Answers are committed to the
  disk, and the HTTP API asks for a sign-in.
- The messages of the link are protected by OSCORE, but for `--insecure` and *bare aiocoap*.
- *Bare aiocoap* answers the same requests, and announces, from memory: no database, no history. Two
  thousand commanded updates at once it does not bring to an end. With *OSCORE* it protects its
  messages, by what aiocoap has for that.
- *Like with like* is the ratio to the bare server that protects as much. *To bare* is always the
  ratio to the one that protects nothing.
- The terminals are another process. With PostgreSQL they share a core with its processes.
- A run counts only when the records have the whole course of every update.
- Many terminals that ask at once wait for each other: the time of a request is the length of the
  queue.
"""


# Processes


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


def usage(pid: int | tuple[int, ...]) -> Usage:
    """What a process has used so far; of several: together, and the memory of the largest."""
    if isinstance(pid, tuple):
        used = [usage(one) for one in pid]
        return Usage(sum(one.cpu for one in used), max(one.peak for one in used))
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


@dataclass(frozen=True)
class Load:
    """What terminals do to a server."""

    count: int
    at_once: int
    commanded: bool = False

    def __str__(self) -> str:
        way = "commanded" if self.commanded else "staged"
        return f"{self.at_once} of {self.count}, {way}"

    @property
    def serials(self) -> list[str]:
        """Of the terminals."""
        return [f"LOAD-{number:05}" for number in range(self.count)]

    @property
    def images(self) -> list[bytes]:
        """What is published, the wanted one last."""
        wanted = make_small_image(VERSION, IMAGE)
        return [make_small_image("1.0.0", IMAGE), wanted] if self.commanded else [wanted]


def run(what: Load, port: int, pid: int | tuple[int, ...], *, protected: bool = True) -> Run:
    """Run the fleet, in a process of its own, against a server."""
    before = usage(pid)
    numbers = (what.count, what.at_once, int(what.commanded), int(protected))
    done = subprocess.run(
        [sys.executable, __file__, "fleet", str(port), *map(str, numbers)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = usage(pid)
    said = json.loads(done.stdout)
    if said["done"] != what.count:
        raise ToolBrokenError(f"{what.count - said['done']} of {what.count} terminals were lost")
    return Run(
        count=what.count,
        seconds=said["seconds"],
        requests=said["requests"],
        retransmissions=said["retransmissions"],
        fleet_cpu=said["cpu"],
        server=Usage(after.cpu - before.cpu, after.peak),
    )


class Pause:
    """True when so many seconds have passed since it was asked first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = 0.0

    def __call__(self) -> bool:
        self._since = self._since or time.monotonic()
        return time.monotonic() >= self._since + self._seconds


def fleet(what: Load, port: int, start: int | None) -> None:
    """The process with the terminals: says what came of them."""
    digest = inspect(what.images[0]).digest if what.commanded else UNPUBLISHED
    terminals = Fleet(what.serials, (HOST, port), at_once=what.at_once, digest=digest, start=start)
    result = asyncio.run(terminals.run(settled=Pause(LINGER_S if what.commanded else 0.0)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    said = {**vars(result), "cpu": used.ru_utime + used.ru_stime}
    json.dump(said, sys.stdout)


def run_bare(what: Load, folder: Path, *, protected: bool = False) -> Run:
    """The bare server."""
    file = folder / "image.bin"
    file.write_bytes(what.images[-1])
    port = free_port()
    words = (["commanded"] if what.commanded else []) + (["protected"] if protected else [])
    command = [sys.executable, str(BARE_PROGRAM), str(port), str(file), *words]
    with process(*command) as (running, line):
        if line != "ready\n":
            raise ToolBrokenError("the bare server does not start")
        return run(what, port, running.pid, protected=protected)


def run_ours(what: Load, database: str, *, protected: bool = True) -> Run:
    """The server, on a database of its own, that has the updates ordered already."""
    with closing(SqlRecords(database)) as records:
        order(records, what.images, what.serials, enrols=protected)
    options = ["--coap-port", "0", "--http-port", "0", "--database", database]
    options += [] if protected else ["--insecure"]
    command = [sys.executable, "-m", "unbrick.cli", "server", "start", *options]
    with process(*command) as (running, line):
        found = re.search(r"coap://[^ ]*:(\d+)", line)
        if found is None:
            raise ToolBrokenError("the server does not start")
        result = run(what, int(found[1]), running.pid, protected=protected)
    check_records(what, database)
    return result


@contextmanager
def several_servers(database: str) -> Iterator[tuple[list[subprocess.Popen[str]], int]]:
    """Server processes on one database behind a balancer, and the balancer's port."""
    options = ["--coap-port", "0", "--http-port", "0", "--database", database]
    command = [sys.executable, "-m", "unbrick.cli", "server", "start", *options]
    with ExitStack() as stack:
        servers, ports = [], []
        for _ in range(SERVERS):
            running, line = stack.enter_context(process(*command))
            found = re.search(r"coap://[^ ]*:(\d+)", line)
            if found is None:
                raise ToolBrokenError("a server does not start")
            servers.append(running)
            ports.append(found[1])
        carry = [sys.executable, str(BALANCER), "0", "0", *ports]
        _, line = stack.enter_context(process(*carry))
        yield servers, int(line.rpartition(" ")[2])


def run_several(what: Load, database: str) -> Run:
    """Several server processes on a PostgreSQL database of their own, as ``run_ours``."""
    with closing(SqlRecords(database)) as records:
        order(records, what.images, what.serials)
    with several_servers(database) as (servers, port):
        result = run(what, port, tuple(one.pid for one in servers))
    check_records(what, database)
    return result


def check_records(what: Load, database: str) -> None:
    """Raise a ToolBrokenError unless the records have the whole course of every update."""
    with closing(SqlRecords(database)) as records:
        told = courses(records)
        left = len(records.backups())
    expected = COMMANDED_COURSE if what.commanded else COURSE
    wrong = [name for name in what.serials if told.get(name) != expected]
    if wrong or left or len(told) != what.count:
        raise ToolBrokenError(
            f"the records are wrong about {len(wrong)} terminals, {left} backups are left"
        )


# The table


@contextmanager
def postgresql() -> Iterator[Callable[[], str] | None]:
    """Makes databases in a PostgreSQL of its own; None when there is none here."""
    sys.path.append(str(ROOT / "tests"))  # The file imports others.
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
            engine = create_engine(complete_url(f"{url}/postgres"), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            engine.dispose()
            return f"{url}/{name}"

        yield make


def measure(what: Load, rounds: int) -> dict[str, Run]:
    """The best run of each server. They take turns, so that the machine's moods hit all."""
    best: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as name, postgresql() as make_database:
        folder = Path(name)
        for turn in range(rounds):
            runs: dict[str, Run] = {}
            if what not in BEYOND_BARE:
                runs[BARE] = run_bare(what, folder)
                runs[BARE_PROTECTED] = run_bare(what, folder, protected=True)
            plain = str(folder / f"{turn}-plain.db")
            runs["Unbrick, SQLite" + INSECURE] = run_ours(what, plain, protected=False)
            runs["Unbrick, SQLite"] = run_ours(what, str(folder / f"{turn}.db"))
            if make_database is not None:
                on_postgresql = "Unbrick, PostgreSQL"
                runs[on_postgresql + INSECURE] = run_ours(what, make_database(), protected=False)
                runs[on_postgresql] = run_ours(what, make_database())
                several = f"Unbrick, {SERVERS} processes on PostgreSQL"
                runs[several] = run_several(what, make_database())
            for server, result in runs.items():
                print(f"{what}, {server}: {result}", flush=True)
                if server not in best or result.seconds < best[server].seconds:
                    best[server] = result
    return best


def table(results: dict[Load, dict[str, Run]]) -> str:
    """The section of the page."""
    lines = [INTRODUCTION]
    lines.append(
        "| terminals at once | server | updates a second | to bare | like with like "
        "| requests a second | processor time, ms an update | to bare | like with like "
        "| request, median, ms | 99 %, ms | sent again | memory at most, MB |"
    )
    lines.append("|--:|---|" + "--:|" * 11)
    for what, runs in results.items():
        for server, one in runs.items():
            plain = server == BARE or server.endswith(INSECURE)
            others = runs.get(BARE), runs.get(BARE if plain else BARE_PROTECTED)
            figures = (
                f"{one.rate:.0f}",
                *(f"{one.rate / other.rate:.2f}" if other else "" for other in others),
                f"{len(one.requests) / one.seconds:.0f}",
                f"{one.cost * 1000:.1f}",
                *(f"{one.cost / other.cost:.2f}" if other else "" for other in others),
                f"{one.median * 1000:.1f}",
                f"{one.worst * 1000:.1f}",
                f"{one.retransmissions}",
                f"{one.server.peak / 1e6:.0f}",
            )
            lines.append(f"| {what} | {server} | {' | '.join(figures)} |")
    fleets = [one.fleet_cpu / one.seconds for runs in results.values() for one in runs.values()]
    lines += [
        "",
        f"The process with the terminals used {100 * max(fleets):.0f} % of a core at most.",
        "",
        machine("aiocoap", "SQLAlchemy", "psycopg"),
    ]
    return "\n".join(lines)


LOADS = {
    Load(500, 50): 3,
    Load(2000, 2000): 1,
    Load(500, 50, commanded=True): 3,
    Load(2000, 2000, commanded=True): 1,
}
"""What is measured, and how often."""

BEYOND_BARE = (Load(2000, 2000, commanded=True),)
"""What ``aiocoap`` does not bring to an end: it gives up messages that wait too long."""


def main() -> int:
    """Measure, or be one of the processes."""
    match sys.argv[1:]:
        case ["fleet", port, count, at_once, commanded, protected]:
            what = Load(int(count), int(at_once), bool(int(commanded)))
            fleet(what, int(port), 1 if int(protected) else None)
        case []:
            results = {what: measure(what, rounds) for what, rounds in LOADS.items()}
            write_section("Many terminals at once", table(results))
        case [count, at_once, *way]:  # To look at while working on it.
            measure(Load(int(count), int(at_once), way == ["commanded"]), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
