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
from fleet import FACTORY, NOWHERE
from fleet_terminal import find_link_key, identity, open_link
from performance_page import machine, write_section
from unbrick.errors import ToolBrokenError
from unbrick.image.format import inspect
from unbrick.server.core.core import ServerCore
from unbrick.server.database import SqlRecords
from unbrick.wire.coap import ACK_TIMEOUT_S, MAX_RETRANSMIT, post
from unbrick.wire.oscore import MESSAGE_BITS, Context, Side

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

ROWS = {
    "no flood": None,
    "made-up terminals": "made-up",
    "in the names of known terminals": "known",
    "made-up terminals, not protected": "plain",
}
"""What is measured: the kind of the flood."""

INTRODUCTION = f"""\
{KNOWN} terminals that the server knows register in turn, one after the other, protected by their
link keys. The server is one process on SQLite. Meanwhile another process sends forged registrations
from {NETWORKS} networks. It has no key. It aims at {FORGED_PER_S:,} a second, and takes what the
machine gives. Times are compared with the first row.
"""


def serials() -> list[str]:
    """Of the known terminals."""
    return [f"KNOWN-{number:03}" for number in range(KNOWN)]


def encode(request: Any, mid: int) -> bytes:
    """A request as a datagram."""
    request.mtype, request.mid, request.token = aiocoap.CON, mid, b"flod"
    return bytes(request.encode())


def forge(kind: str, count: int) -> list[bytes]:
    """So many registrations of a kind, made without a key."""
    mark = "F00000000" if kind != "known" else serials()[0]
    plain = post("register", identity(mark).encode())
    sealed, _ = Context(bytes(32), mark, Side.TERMINAL).seal_request(plain, 2 << MESSAGE_BITS)
    head, tail = encode(plain if kind == "plain" else sealed, 1).split(mark.encode(), 1)
    known = serials()
    names = (known[n % KNOWN] if kind == "known" else f"F{n:08}" for n in range(count))
    return [head + name.encode() + tail for name in names]


# Processes


def flood(port: int, kind: str) -> None:
    """Send until told to end; then say how many were sent, and in how many seconds."""
    sockets = []
    for number in range(NETWORKS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((f"127.77.{number}.1", 0))
        sock.connect((HOST, port))
        sock.setblocking(False)
        sockets.append(sock)
    datagrams = forge(kind, int(FORGED_PER_S * SECONDS) + 1)
    print("ready", flush=True)
    began, sent = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        due = min(int((time.monotonic() - began) * FORGED_PER_S), len(datagrams))
        for number in range(sent, due):
            with contextlib.suppress(OSError):  # Lost, as on the way.
                sockets[number % NETWORKS].send(datagrams[number])
        sent = max(sent, due)
        time.sleep(TURN_S)
    json.dump({"sent": sent, "seconds": time.monotonic() - began}, sys.stdout)


@contextlib.contextmanager
def flooded(port: int, kind: str | None) -> Iterator[list[float]]:
    """A flood while the block runs; the list then has how many a second were sent."""
    rates: list[float] = []
    if kind is None:
        yield rates
        return
    command = (sys.executable, __file__, "flood", str(port), kind)
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
        plain = post("register", identity(serial).encode())
        sealed, _ = open_link(serial).seal_request(plain, (1 << MESSAGE_BITS) + turn)
        datagram = encode(sealed, rng.randrange(0x10000))
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


def measure(database: str, kind: str | None) -> Row:
    """One row, with a server of its own."""
    with contextlib.closing(SqlRecords(database)) as records:
        core = ServerCore(records, inspect)
        with records.transaction():
            for serial in serials():
                records.links.enrol(serial, find_link_key(serial), FACTORY)
                core.handle(NOWHERE, post("register", identity(serial).encode()), time.time())
    options = ["--coap-port", "0", "--http-port", "0", "--database", database]
    command = [sys.executable, "-m", "unbrick.cli", "server", "start", *options]
    with process(*command) as (running, line):
        found = re.search(r"coap://[^ ]*:(\d+)", line)
        if found is None:
            raise ToolBrokenError("the server does not start")
        before = usage(running.pid)
        with flooded(int(found[1]), kind) as rates:
            notice = register_known(int(found[1]))
        after = usage(running.pid)
    with contextlib.closing(SqlRecords(database)) as records:
        made = sum(records.count_terminals().values()) - KNOWN
    return Row(rates[0] if rates else 0.0, notice, before, after, made)


def table(rows: dict[str, Row]) -> str:
    """The section of the page."""
    lines = [INTRODUCTION]
    lines.append(
        "| flood | forged a second | median to no flood | 99 % to no flood | median, ms "
        "| 99 %, ms | sent again | unanswered | server, % of a core | memory grew, MB | new rows |"
    )
    lines.append("|---|" + "--:|" * 10)
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
            f"{100 * (row.after.cpu - row.before.cpu) / SECONDS:.0f}",
            f"{(row.after.peak - row.before.peak) / 1e6:.1f}",
            f"{row.terminals}",
        )
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", machine("aiocoap", "SQLAlchemy")])


def main() -> int:
    """Measure, or be the flood."""
    match sys.argv[1:]:
        case ["flood", port, kind]:
            flood(int(port), kind)
        case [] | ["--show"]:
            with tempfile.TemporaryDirectory() as name:
                rows = {
                    what: measure(str(Path(name) / f"{number}.db"), kind)
                    for number, (what, kind) in enumerate(ROWS.items())
                }
            text = table(rows)
            print(text)
            if not sys.argv[1:]:
                write_section(TITLE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
