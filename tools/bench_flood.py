"""The table of forged registrations in docs/performance.md: what known terminals notice of a flood,
and what it costs the server in memory and rows. Written by ``make bench``.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiocoap

from bench_load import HOST, Usage, process, usage
from fleet import NOWHERE
from fleet_terminal import identity
from performance_page import machine, write_section
from unbrick.errors import ToolBrokenError
from unbrick.image.format import inspect
from unbrick.server.core.core import ServerCore
from unbrick.server.database import SqlRecords
from unbrick.wire.coap import ACK_TIMEOUT_S, MAX_RETRANSMIT, post

if TYPE_CHECKING:
    from collections.abc import Iterator

TITLE = "Forged registrations"

FORGED_PER_S = 10_000
"""Registrations a second that are aimed at."""

NETWORKS = 200
"""Networks (/24) that they come from, each with a socket of its own."""

KNOWN = 50
"""Terminals that the server knows."""

SECONDS = 20.0
"""Length of a measurement."""

TURN_S = 0.01
"""Seconds between two bursts of the flood."""

UNBOUNDED = "1e9"

ROWS = {
    "no flood, `--unknown wait`": ("wait", None, 0),
    "a flood, `--unknown wait`": ("wait", None, FORGED_PER_S),
    "a flood, `--unknown take`": ("take", None, FORGED_PER_S),
    "a flood, nothing bounded": ("take", UNBOUNDED, FORGED_PER_S),
}
"""What is measured: options of the server, and forged registrations a second."""

INTRODUCTION = f"""\
{KNOWN} terminals that the server knows register in turn, one after the other. Meanwhile another
process sends registrations of made-up terminals, each with a serial of its own, from {NETWORKS}
networks. It aims at {FORGED_PER_S:,} a second, and takes what the machine gives. Times and memory
are compared with the first row.
"""


def serials() -> list[str]:
    """Of the known terminals."""
    return [f"KNOWN-{number:03}" for number in range(KNOWN)]


def encode(serial: str, mid: int) -> bytes:
    """A registration as a datagram."""
    request: Any = post("register", identity(serial).encode())
    request.mtype, request.mid, request.token = aiocoap.CON, mid, b"flod"
    return bytes(request.encode())


# Processes


def flood(port: int, rate: int) -> None:
    """Send until told to end; then say how many were sent, and in how many seconds."""
    sockets = []
    for number in range(NETWORKS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((f"127.77.{number}.1", 0))
        sock.connect((HOST, port))
        sock.setblocking(False)
        sockets.append(sock)
    mark = "F00000000"
    head, tail = encode(mark, 1).split(mark.encode())
    print("ready", flush=True)
    began, sent = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        due = int((time.monotonic() - began) * rate)
        for number in range(sent, due):
            with contextlib.suppress(OSError):  # Lost, as on the way.
                sockets[number % NETWORKS].send(head + b"F%08d" % number + tail)
        sent = max(sent, due)
        time.sleep(TURN_S)
    json.dump({"sent": sent, "seconds": time.monotonic() - began}, sys.stdout)


@contextlib.contextmanager
def flooded(port: int, rate: int) -> Iterator[list[float]]:
    """A flood while the block runs; the list then has how many a second were sent."""
    rates: list[float] = []
    if not rate:
        yield rates
        return
    command = (sys.executable, __file__, "flood", str(port), str(rate))
    with process(*command) as (running, _line):
        yield rates
        said = json.loads(running.communicate()[0])
    rates.append(said["sent"] / said["seconds"])


# What known terminals notice


@dataclass(frozen=True)
class Notice:
    """Times of registrations in seconds, and how many datagrams were sent again."""

    seconds: list[float]
    again: int
    lost: int

    @property
    def median(self) -> float:
        """Of a registration."""
        return statistics.median(self.seconds)

    @property
    def worst(self) -> float:
        """99 % are faster."""
        return statistics.quantiles(self.seconds, n=100)[98]


def register_known(port: int) -> Notice:
    """Have the known terminals register in turn, as long as a measurement lasts."""
    rng, seconds, again, lost = random.Random(1), [], 0, 0
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(KNOWN)]
    for sock in sockets:
        sock.connect((HOST, port))
    began, turn = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        sock, serial = sockets[turn % KNOWN], serials()[turn % KNOWN]
        datagram = encode(serial, rng.randrange(0x10000))
        since, timeout = time.monotonic(), ACK_TIMEOUT_S
        for number in range(MAX_RETRANSMIT + 1):
            again += number > 0
            sock.send(datagram)
            if take_answer(sock, datagram, time.monotonic() + timeout):
                seconds.append(time.monotonic() - since)
                break
            timeout *= 2
        else:
            lost += 1
        turn += 1
        # One a second of each terminal: what the server takes of a known one for ever.
        time.sleep(max(0.0, began + turn / KNOWN - time.monotonic()))
    for sock in sockets:
        sock.close()
    return Notice(seconds, again, lost)


def take_answer(sock: socket.socket, datagram: bytes, until: float) -> bool:
    """Whether the answer 2.04 comes in time.

    Raises:
        ToolBrokenError: another answer comes.
    """
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            answer = aiocoap.Message.decode(sock.recv(2048))
        except TimeoutError:
            return False
        if answer.mid == int.from_bytes(datagram[2:4], "big"):
            if answer.code != aiocoap.CHANGED:
                raise ToolBrokenError(f"a known terminal was answered {answer.code}")
            return True
    return False


# The table


@dataclass(frozen=True)
class Row:
    """A measurement; bytes of memory, before and at most."""

    rate: float
    notice: Notice
    before: Usage
    after: Usage
    terminals: int


def measure(database: str, unknown: str, new_per_second: str | None, rate: int) -> Row:
    """One row, with a server of its own."""
    with contextlib.closing(SqlRecords(database)) as records:
        core = ServerCore(records, inspect)
        with records.transaction():
            for serial in serials():
                core.handle(NOWHERE, post("register", identity(serial).encode()), time.time())
    options = ["--coap-port", "0", "--http-port", "0", "--database", database]
    options += ["--unknown", unknown]
    options += ["--new-per-second", new_per_second] if new_per_second else []
    command = [sys.executable, "-m", "unbrick.cli", "server", "start", *options]
    with process(*command) as (running, line):
        found = re.search(r"coap://[^ ]*:(\d+)", line)
        if found is None:
            raise ToolBrokenError("the server does not start")
        before = usage(running.pid)
        with flooded(int(found[1]), rate) as rates:
            notice = register_known(int(found[1]))
        after = usage(running.pid)
    with contextlib.closing(SqlRecords(database)) as records:
        made = sum(records.count_terminals().values()) - KNOWN
    return Row(rates[0] if rates else 0.0, notice, before, after, made)


def table(rows: dict[str, Row]) -> str:
    """The section of the page."""
    lines = [INTRODUCTION]
    lines.append(
        "| server | forged a second | median to no flood | 99 % to no flood | median, ms "
        "| 99 %, ms | sent again | unanswered | memory grew, MB | new rows |"
    )
    lines.append("|---|" + "--:|" * 9)
    base = next(iter(rows.values())).notice
    for name, row in rows.items():
        notice = row.notice
        figures = (
            f"{row.rate:.0f}",
            f"{notice.median / base.median:.2f}",
            f"{notice.worst / base.worst:.2f}",
            f"{notice.median * 1000:.1f}",
            f"{notice.worst * 1000:.1f}",
            f"{notice.again}",
            f"{notice.lost}",
            f"{(row.after.peak - row.before.peak) / 1e6:.1f}",
            f"{row.terminals}",
        )
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", machine("aiocoap", "SQLAlchemy")])


def main() -> int:
    """Measure, or be the flood."""
    match sys.argv[1:]:
        case ["flood", port, rate]:
            flood(int(port), int(rate))
        case [] | ["--show"]:
            with tempfile.TemporaryDirectory() as name:
                rows = {
                    what: measure(str(Path(name) / f"{number}.db"), *how)
                    for number, (what, how) in enumerate(ROWS.items())
                }
            text = table(rows)
            print(text)
            if not sys.argv[1:]:
                write_section(TITLE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
