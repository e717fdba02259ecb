"""A real PostgreSQL for tests: a folder of its own, a user that is not root, a free port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patience import PATIENCE_S


class NoPostgresError(Exception):
    """There is no PostgreSQL here that could be started, and why."""


def _program(name: str) -> str:
    """Debian keeps the server's programs where the path does not lead."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: p.parts[4])
    found = shutil.which(name) or (str(newest[-1]) if newest else None)
    if found is None:
        raise NoPostgresError(f"there is no {name} (apt install postgresql)")
    return found


def _as_somebody() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return {}
    # No supplementary groups, and nobody's own.
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], data: Path, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    status = data / "postmaster.pid"
    while time.monotonic() < deadline and server.poll() is None:
        if status.exists() and status.read_text().rstrip().endswith("ready"):
            return
        time.sleep(0.05)
    raise NoPostgresError(f"it does not start: {log.read_text()[-500:]}")


@contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder of the user that PostgreSQL runs as (pytest's own are for one user only)."""
    folder = Path(tempfile.mkdtemp(prefix="unbrick-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[str]:
    """Runs PostgreSQL; gives its URL, without a database's name.

    Args:
        durable: PostgreSQL waits for the disk, as it does outside of tests.

    Raises:
        NoPostgresError: it is not installed.
    """
    initdb, postgres = _program("initdb"), _program("postgres")
    with _folder() as folder, _server(folder, initdb, postgres, durable=durable) as url:
        yield url


@contextmanager
def restarting_postgres() -> Iterator[tuple[str, Callable[[signal.Signals], None]]]:
    """Runs PostgreSQL; gives its URL, and what ends it with a signal and starts it again.

    Raises:
        NoPostgresError: it is not installed.
    """
    initdb, postgres = _program("initdb"), _program("postgres")
    with _folder() as folder:
        _init(folder, initdb)
        server = _Server(folder, postgres, durable=True)  # Also when it crashes.

        def restart(number: signal.Signals) -> None:
            server.stop(number)
            server.start()

        try:
            server.start()
            yield server.url, restart
        finally:
            server.stop()


@contextmanager
def _server(folder: Path, initdb: str, postgres: str, *, durable: bool) -> Iterator[str]:
    _init(folder, initdb)
    server = _Server(folder, postgres, durable=durable)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


def _init(folder: Path, initdb: str) -> None:
    options = ["--pgdata", str(folder / "data"), "--auth", "trust", "--username", "tester"]
    done = subprocess.run(
        [initdb, *options, "--no-sync", "--encoding", "UTF8", "--locale", "C"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        **_as_somebody(),
    )
    if done.returncode:
        raise NoPostgresError(f"initdb fails: {done.stderr.strip()}")


class _Server:
    """PostgreSQL on a folder and a port of its own; it can be started again and again."""

    def __init__(self, folder: Path, postgres: str, *, durable: bool) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        port = _free_port()
        self.url = f"postgresql://tester@127.0.0.1:{port}"
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
        settings |= {"max_connections": 40, "shared_buffers": "16MB"}
        if not durable:
            # What is lost when the machine dies is lost for good, which no test minds.
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
            settings |= {"wal_level": "minimal", "max_wal_senders": 0, "autovacuum": "off"}
        self._command = [postgres, "-D", str(folder / "data")]
        self._command += [part for n, value in settings.items() for part in ("-c", f"{n}={value}")]

    def start(self) -> None:
        log = self._folder / "log"
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=stream, stderr=stream, **_as_somebody()
            )
        _wait(self._process, self._folder / "data", log)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it; by default whoever is connected is sent away ("fast")."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_S)
