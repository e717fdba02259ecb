"""The table of the server's speed in docs/performance.md: many simulated terminals are updated by
the server and by a bare ``aiocoap`` that answers the same from memory. Written by ``make bench``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiocoap
from aiocoap.pipe import Pipe

from unbrick.bench.fleet import COURSE, Fleet, courses, identity, order
from unbrick.board import BOARD
from unbrick.errors import ToolBrokenError
from unbrick.image.build import firmware_folder
from unbrick.image.sign import sign
from unbrick.server.database import SqlRecords
from unbrick.wire.messages import CBOR_FORMAT, FILE_FORMAT, Announcement, Kind, Registration

VERSION = "1.1.0"
IMAGE = 4096  # bytes
HOST = "127.0.0.1"


def serial(number: int) -> str:
    """Of the terminal with this number."""
    return f"LOAD-{number:05}"


# The bare server: a process of its own


class BareSite:
    """Answers from memory what the server answers from its records, and announces as it does."""

    def __init__(self, file: bytes) -> None:
        self.context: aiocoap.Context | None = None
        self._file = file
        self._digest = hashlib.sha256(file).digest()
        self._ids: dict[str, int] = {}
        self._old = identity("").digest
        self._tasks: set[asyncio.Task[None]] = set()

    async def render_to_pipe(self, pipe: Pipe) -> None:
        """Answer a request."""
        request = pipe.request
        path = request.opt.uri_path
        if path[0] == "file":
            number, _, exponent = request.opt.block2
            start = number << (exponent + 4)
            end = start + (1 << (exponent + 4))
            response = aiocoap.Message(code=aiocoap.CONTENT, payload=self._file[start:end])
            response.opt.etag = self._digest[:8]
            response.opt.content_format = FILE_FORMAT
            response.opt.block2 = (number, end < len(self._file), exponent)
            pipe.add_response(response, is_last=True)
            return
        pipe.add_response(aiocoap.Message(code=aiocoap.CHANGED), is_last=True)
        if path[0] == "register":
            said = Registration.decode(request.payload)
            if said.digest == self._old:
                task = asyncio.get_running_loop().create_task(self._announce(said, request.remote))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _announce(self, said: Registration, remote: object) -> None:
        update_id = self._ids.setdefault(said.serial, len(self._ids) + 1)
        announcement = Announcement(
            update_id,
            Kind.FULL_IMAGE,
            len(self._file),
            self._digest,
            f"{VERSION}+0",
            self._digest,
            len(self._file),
            0,
        )
        message = aiocoap.Message(
            code=aiocoap.POST, payload=announcement.encode(), uri_path=("announce",)
        )
        message.opt.content_format = CBOR_FORMAT
        message.remote = remote
        assert self.context is not None  # noqa: S101 - set before the first request
        await self.context.request(message, handle_blockwise=False).response


async def bare(file: bytes, port: int) -> None:
    """Serve for ever."""
    site = BareSite(file)
    site.context = await aiocoap.Context.create_server_context(site, bind=(HOST, port))
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


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
    return Usage(ticks / 100, int(found[1]) * 1024 if found else 0)


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

    def __str__(self) -> str:
        return (
            f"{self.count} in {self.seconds:.2f} s: {self.count / self.seconds:.0f} updates/s, "
            f"{len(self.requests) / self.seconds:.0f} requests/s, "
            f"median {self.median * 1000:.1f} ms, 99 % {self.worst * 1000:.1f} ms, "
            f"{self.retransmissions} sent again, cpu {self.server.cpu:.2f} s, fleet "
            f"{self.fleet_cpu:.2f} s, {self.server.peak / 1e6:.0f} MB"
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
    with process(*_me("bare", str(port), str(file))) as (running, line):
        if line != "ready\n":
            raise ToolBrokenError("the bare server does not start")
        return load(port, count, at_once, running.pid)


def run_ours(count: int, at_once: int, file: Path, database: str) -> Run:
    """The server, on a database of its own, that has the updates ordered already."""
    serials = [serial(number) for number in range(count)]
    with closing(SqlRecords(database)) as records:
        order(records, file.read_bytes(), serials)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("bare")
    one.add_argument("port", type=int)
    one.add_argument("file", type=Path)
    one = commands.add_parser("fleet")
    for name in ("port", "count", "at_once"):
        one.add_argument(name, type=int)
    one = commands.add_parser("run")
    one.add_argument("which", choices=("bare", "ours"))
    one.add_argument("count", type=int)
    one.add_argument("at_once", type=int)
    one.add_argument("--database")
    given = parser.parse_args()
    if given.command == "bare":
        asyncio.run(bare(given.file.read_bytes(), given.port))
    elif given.command == "fleet":
        fleet(given.port, given.count, given.at_once)
    elif given.command == "run":
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "image.bin"
            file.write_bytes(small_image())
            if given.which == "bare":
                print(run_bare(given.count, given.at_once, file))
            else:
                database = given.database or str(Path(folder) / "server.db")
                print(run_ours(given.count, given.at_once, file, database))
    return 0


if __name__ == "__main__":
    sys.exit(main())
