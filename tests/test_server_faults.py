"""The server and its database when things go wrong: killed anywhere, disk full, clock back."""

from __future__ import annotations

import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from commanded_terminal import CommandedTerminal, in_nor, seal
from patience import PATIENCE_S, until
from postgres_server import NoPostgresError, restarting_postgres
from processes import Running, unbrick
from record_stores import Open
from server_world import SERIAL, inspect, make_image, post, registration
from sqlalchemy import create_engine, event, text
from test_server_commanded_process import (
    ENTRIES,
    LINK_KEY,
    LONGEST_STEP_S,
    SPEED,
    ProtectedOnUdp,
    enrol,
    make_signed,
)
from test_server_process import UdpTerminal

from fleet import COURSE, FACTORY, make_small_image
from fleet_terminal import FleetTerminal, find_link_key, identity
from unbrick.errors import ServerError, SetupError
from unbrick.image import format as images
from unbrick.server.core.core import ServerCore
from unbrick.server.core.guard import RESERVED_AT_ONCE
from unbrick.server.core.lines import BROKEN_OFF, CENTER_SILENCE_S
from unbrick.server.core.rollouts import RolloutDraft, RolloutRunner
from unbrick.server.database import SqlRecords
from unbrick.server.database.connection import complete_url
from unbrick.server.edge.client import ServerClient
from unbrick.server.errors import RecordsError
from unbrick.server.records.people import AuditAction
from unbrick.server.records.updates import MessageState, UpdateState
from unbrick.wire.calls import CallRequest
from unbrick.wire.messages import Phase, Report, Result
from unbrick.wire.oscore import Context, Side
from unbrick.wire.protected import ProtectedEndpoint

HERE = Path(__file__).parent
VERSIONS = ("1.0.0", "2.0.0")
NOBODY = 65534
"""A user who owns nothing."""


@pytest.fixture(scope="session")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What kills the process that it is preloaded into."""
    library = tmp_path_factory.mktemp("killer") / "killer.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *options, "-o", library, HERE / "killer.c"],
        check=True,
    )
    return library


class Servers:
    """Starts servers within milliseconds, one after the other, on one database and one port."""

    def __init__(self, process: subprocess.Popen[str], database: str, port: int) -> None:
        self._process, self._database, self._port = process, database, port
        self._said: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._pid = 0
        self.ended = True
        """Whether none runs."""

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line)

    def start(self, number: int = 0) -> None:
        """Start one, which is killed at so many calls; it need not have begun to answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self._database} {self._port} {number}\n")
        self._process.stdin.flush()
        self.ended = False
        self._pid = int(self._wait_for("pid").split()[1])

    def look(self) -> None:
        """Take note of what the server has said."""
        with suppress(queue.Empty):
            while True:
                self._take(self._said.get_nowait())

    def stop(self) -> None:
        """End it as a person does."""
        if not self.ended:
            with suppress(ProcessLookupError):  # it may just have been killed
                os.kill(self._pid, signal.SIGTERM)
            self._wait_for("ended")

    def close(self) -> None:
        """No more servers."""
        if not self.ended:
            with suppress(ProcessLookupError):  # it may just have ended
                os.kill(self._pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _wait_for(self, word: str) -> str:
        while not (line := self._said.get(timeout=PATIENCE_S)).startswith(word):
            self._take(line)
        self._take(line)
        return line

    def _take(self, line: str) -> None:
        if line.startswith("ended"):
            # A person may end it before it listens for that.
            assert line.split()[1] in ("0", "-9", f"-{signal.SIGTERM.value}"), line
            self.ended = True


class Home:
    """A terminal, its server's database, and the folder that is in."""

    def __init__(self, folder: Path, servers: Servers, terminal: ProtectedOnUdp) -> None:
        self.folder, self.servers, self.terminal = folder, servers, terminal
        self.records = SqlRecords(str(folder / "server.db"))

    def order(self, version: str) -> int:
        core = ServerCore(self.records, images.inspect)
        how = {"commanded": True, "downgrade": True}
        return core.start_update(SERIAL, version, time.time(), **how).id

    def is_over(self) -> bool:
        return self.records.unfinished_sessions() == self.records.unfinished_updates() == []

    def data_is_somewhere(self) -> bool:
        if in_nor(self.terminal.model) >= set(ENTRIES):
            return True
        return bool(self.records.backups(SERIAL))

    def serve_until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, "\n".join(map(str, self.story()))
            for _ in range(5):
                self.terminal.serve()
            self.servers.look()

    def story(self) -> list[object]:
        """What has happened, for a test that fails."""
        sessions = self.records.unfinished_sessions()
        steps = [step for item in sessions for step in self.records.steps(item.id)]
        return [self.terminal.model.journal, *sessions, *steps, *self.records.events()[-12:]]

    def holds(self, data: bytes) -> bool:
        """Whether any file of the server has these bytes: the database, its log, free pages."""
        part = data[100:140]
        # Who closes a file gives up all locks on it, also those of SQLite in this process.
        self.records.close()
        files = [file for file in self.folder.iterdir() if file.is_file()]
        found = any(part in file.read_bytes() for file in files)
        self.records = SqlRecords(str(self.folder / "server.db"))
        return found


@contextmanager
def servers_of(killer: Path, folder: Path, port: int) -> Iterator[Servers]:
    process = subprocess.Popen(
        [sys.executable, HERE / "killed_server.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(killer), "XDG_STATE_HOME": str(folder / "state")},
    )
    servers = Servers(process, str(folder / "server.db"), port)
    try:
        yield servers
    finally:
        servers.close()


@pytest.fixture
def home(killer: Path, tmp_path: Path, unused_udp_port: int) -> Iterator[Home]:
    files = [make_signed(tmp_path, version, 1) for version in VERSIONS]
    folder = tmp_path / "server"
    folder.mkdir()
    model = CommandedTerminal(files, list(ENTRIES), inspect=images.inspect)
    terminal = ProtectedOnUdp(model, LINK_KEY)
    terminal.port = unused_udp_port
    with servers_of(killer, folder, unused_udp_port) as servers:
        home = Home(folder, servers, terminal)
        enrol(str(folder / "server.db"), SERIAL)
        core = ServerCore(home.records, images.inspect)
        for file in files:
            core.publish(file, time.time())
        yield home
        home.records.close()
        terminal.close()


@pytest.mark.slow(first=True)
def test_claim_b6_a_server_killed_at_every_fsync_and_sendto_loses_and_leaves_nothing(
    home: Home,
) -> None:
    """In a session for each of these calls of one server's life; another one goes on.

    The link is protected: no number is used for two messages, by whichever of the servers.
    """
    home.servers.start()
    home.serve_until(lambda: home.records.terminal(SERIAL) is not None)
    home.servers.stop()
    number = -1
    killed = True
    while killed:
        number += 1
        version = VERSIONS[(number + 1) % 2]
        update = home.order(version)
        home.servers.start(number)
        home.serve_until(lambda: home.servers.ended or home.is_over())
        killed = home.servers.ended
        assert home.data_is_somewhere()
        check_numbers(home)
        if killed:
            assert number
            home.servers.start()
            home.serve_until(home.is_over)
        home.servers.stop()
        killed |= not number
        check_session(home, update, version)
    assert number > 30, "each message has a commit, and there are two dozen of them"
    assert home.terminal.numbers(Side.TERMINAL), "replies were looked at, too"
    assert max(home.terminal.numbers(Side.SERVER)) > number * RESERVED_AT_ONCE


def check_numbers(home: Home) -> None:
    """Those that the next server takes come after all that were used."""
    link = home.records.links.find(SERIAL)
    assert link is not None
    assert link.reserved > max(home.terminal.numbers(Side.SERVER))


def check_session(home: Home, update: int, version: str) -> None:
    model = home.terminal.model
    assert model.running() == model.images[VERSIONS.index(version)]
    assert set(model.read() or ()) == set(ENTRIES)
    assert home.records.backups() == []
    states = [item.state for item in home.records.events(update_id=update) if item.state]
    assert states.count(UpdateState.SUCCEEDED) == 1
    assert states[-1] is UpdateState.SUCCEEDED
    check_numbers(home)
    assert not home.holds(seal(ENTRIES, update)), "of the user's data something is left"
    assert home.holds(model.images[0]), "the test can see what is there"


class Member(FleetTerminal):
    """A terminal of a rollout, on a socket; it registers again and again when it is done."""

    def __init__(self, serial: str, port: int) -> None:
        super().__init__(serial, random.Random(serial), patience=1.0)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(0.005)
        self._now, self._served, self._registered = 0.0, time.monotonic(), 0.0
        self.start(self._now)

    def close(self) -> None:
        self._socket.close()

    def serve(self) -> None:
        """Do what is due, for a few milliseconds; its clock waits while a server starts."""
        elapsed, self._served = time.monotonic() - self._served, time.monotonic()
        self._now += min(elapsed, LONGEST_STEP_S) * SPEED
        if self.done and self._now > self._registered + self._patience:
            self._registered = self._now
            self.coap.request(post("register", self._identity.encode()), 0, self._now)
        self.poll(self._now)
        self._flush()
        with suppress(TimeoutError, ConnectionError):
            self.receive(self._socket.recv(2048), self._now)
            self._flush()

    def _flush(self) -> None:
        for datagram in self.coap.take_datagrams():
            with suppress(ConnectionError):
                self._socket.send(datagram)


class Campaign:
    """Rollouts to one terminal after the other, by servers that are killed."""

    def __init__(self, folder: Path, servers: Servers, port: int) -> None:
        self._servers, self._port = servers, port
        self.records = SqlRecords(str(folder / "server.db"))
        self._core = ServerCore(self.records, images.inspect)
        self._image = self._core.publish(make_small_image(VERSIONS[1]), time.time())

    def run(self, number: int) -> bool:
        """A rollout; the server is killed at so many calls. Gives whether it was."""
        serial = f"T-{number}"
        self.records.links.enrol(serial, find_link_key(serial), FACTORY)
        self._core.handle("127.0.0.1:9", post("register", identity(serial).encode()), time.time())
        message = self._core.send_text(serial, "A release is coming.", time.time())
        runner = RolloutRunner(self._core)
        draft = RolloutDraft(VERSIONS[1], serials=serial, percents=(100,))
        rollout = runner.create(draft, "ada", time.time())
        runner.approve(rollout.id, "bob", time.time())

        def is_over() -> bool:
            told = self.records.message(message.id)
            now = self.records.rollouts.get(rollout.id)
            assert told is not None
            assert now is not None
            return terminal.done and now.settled and told.state is MessageState.DELIVERED

        with closing(Member(serial, self._port)) as terminal:
            self._servers.start(number)
            self._serve_until(terminal, lambda: self._servers.ended or is_over())
            killed = self._servers.ended
            if killed:
                self._servers.start()
                self._serve_until(terminal, is_over)
            self._servers.stop()
            assert terminal.texts in ((1, 2) if killed else (1,))
        self._check(serial, rollout.id)
        return killed

    def _serve_until(self, terminal: Member, done: Callable[[], bool]) -> None:
        def serve() -> bool:
            for _ in range(5):
                terminal.serve()
            self._servers.look()
            return done()

        until(serve, f"the end of {self.records.events()[-12:]}")

    def _check(self, serial: str, rollout: int) -> None:
        (update,) = self.records.updates(serial)
        found = [item.state for item in self.records.events(update_id=update.id) if item.state]
        assert [state.value for state in found] == COURSE
        terminal = self.records.terminal(serial)
        assert terminal is not None
        assert terminal.digest == self._image.digest
        history = [item.action for item in self.records.rollouts.history(rollout)]
        assert history == [
            *(AuditAction.ROLLOUT_CREATED, AuditAction.ROLLOUT_APPROVED),
            *(AuditAction.ROLLOUT_BEGUN, AuditAction.ROLLOUT_FINISHED),
        ]


@pytest.mark.slow(first=True)
def test_a_rollout_goes_on_at_whichever_fsync_and_sendto_its_server_is_killed(
    killer: Path, tmp_path: Path, unused_udp_port: int
) -> None:
    """By a file, and with a text message: in a rollout for each of these calls of a server."""
    with servers_of(killer, tmp_path, unused_udp_port) as servers:
        campaign = Campaign(tmp_path, servers, unused_udp_port)
        assert not campaign.run(0)
        number = 1
        while campaign.run(number):
            number += 1
        campaign.records.close()
    assert number > 20, "each message has a commit and an answer"


# The disk is full


class ProtectedTerminal(UdpTerminal):
    """A terminal on a protected link, in its first start."""

    def __init__(self, port: int, serial: str) -> None:
        super().__init__(port)
        context = Context(LINK_KEY, serial, Side.TERMINAL)
        self._coap = ProtectedEndpoint(self._handle, random.Random(port), context, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "said", "hint"),
    [
        ("FULL", "disk is full", "make room on the disk"),
        ("READONLY", "disk I/O error", "see that the disk can be written"),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing_is_said_once_and_all_goes_on_when_it_does(
    killer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    said: str,
    hint: str,
) -> None:
    wrong = tmp_path / "wrong"
    monkeypatch.setenv("LD_PRELOAD", str(killer))
    monkeypatch.setenv(variable, str(wrong))
    database = tmp_path / "server.db"
    enrol(str(database), SERIAL, "T-2")
    options = ("--coap-port", 0, "--http-port", 0, "--database", database)
    with Running("server", "start", *options) as server:
        found = server.wait_for(r"ready, coap://127\.0\.0\.1:(\d+) (\S+)")
        port, url = int(found[1]), found[2]
        one, another = ProtectedTerminal(port, SERIAL), ProtectedTerminal(port, "T-2")
        with ServerClient(url) as http, one, another:
            one.ask(post("register", registration().encode()))
            wrong.touch()
            for _ in range(3):
                with pytest.raises(ServerError, match=said) as caught:
                    http.send_text(SERIAL, "hello")
                assert hint in caught.value.hint
            assert [item["serial"] for item in http.terminals()] == [SERIAL]
            other = post("register", registration(serial="T-2").encode())
            room = threading.Thread(target=lambda: (server.wait_for(said), wrong.unlink()))
            room.start()
            another.ask(other)  # It asks until it is answered.
            room.join()
            assert [item["serial"] for item in http.terminals()] == [SERIAL, "T-2"]
            assert http.send_text(SERIAL, "hello")["state"] == "queued"
        assert server.end() == 0
        lines = [line for line in server.output if said in line]
        assert len(lines) == 1
        assert hint in lines[0]
        assert not [line for line in server.output if "Traceback" in line]


# Nothing can be written


def test_a_database_that_cannot_be_written_says_what_to_do(database_url: str) -> None:
    with closing(SqlRecords(database_url)) as records:
        core = ServerCore(records, inspect)
        register = post("register", registration().encode())
        core.handle("127.0.0.1:9", register, 1.0)
        forbid_writing(records, database_url)
        hint = "let (the server's user|PostgreSQL) write"
        for do in (
            lambda: core.handle("127.0.0.1:9", register, 2.0),
            lambda: core.send_text(SERIAL, "hello", 2.0),
            lambda: core.publish(make_image(), 2.0),
        ):
            with pytest.raises(RecordsError, match=r"read-?only") as caught:
                do()
            assert re.match(hint, caught.value.hint)
            assert "\n" not in str(caught.value)
        terminal = records.terminal(SERIAL)
        assert terminal is not None
        assert terminal.last_seen == 1.0
        assert records.messages() == []
        assert records.images() == []


_END_OTHERS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = :name AND pid <> pg_backend_pid()"
)


def forbid_writing(records: SqlRecords, url: str) -> None:
    """From now on nothing can be written, as in a file system that was remounted."""
    engine = records._database._engine
    engine.dispose()
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA query_only=ON"))
        return
    other = create_engine(complete_url(url), isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        name = url.rpartition("/")[2]
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only=on")
        connection.execute(_END_OTHERS, {"name": name})  # what is connected goes on as before
    other.dispose()


@contextmanager
def somebody_else() -> Iterator[None]:
    """Files of this process's user cannot be written: root gives that up for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_file_that_cannot_be_written_is_no_database_to_start_with() -> None:
    with tempfile.TemporaryDirectory() as name:  # The others are for one user only.
        path = Path(name) / "server.db"
        SqlRecords(str(path)).close()
        path.chmod(0o444)
        path.parent.chmod(0o555)
        with somebody_else(), pytest.raises(SetupError, match="cannot be opened") as caught:
            SqlRecords(str(path))
        path.parent.chmod(0o755)
        assert "can be written" in caught.value.hint
        assert "\n" not in str(caught.value)


# Two at once


@pytest.mark.slow
def test_a_second_server_on_a_file_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    options = ("--coap-port", 0, "--http-port", 0, "--database", tmp_path / "server.db")
    with Running("server", "start", *options) as first:
        first.wait_for("ready")
        second = unbrick("server", "start", *options)
        assert second.returncode == 2
        assert f"is in use by process {first.pid}" in second.stderr
        assert "postgresql://" in second.stderr
        assert first.end() == 0


# The clock goes back


def test_an_update_goes_on_when_the_clock_goes_back(open_records: Open) -> None:
    """By a day before each message."""
    with open_records() as records:
        core = ServerCore(records, inspect)
        day, now = 86_400.0, 30 * 86_400.0
        image = core.publish(make_image(), now)
        core.start_update(SERIAL, "1.1.0", now)
        core.handle("127.0.0.1:9", post("register", registration().encode()), now - day)
        (announced,) = core.poll(now - 2 * day)
        core.outcome(announced.ticket, None, now - 3 * day)
        core.handle("127.0.0.1:9", post("register", registration().encode()), now - 4 * day)
        (announced,) = core.poll(now - 5 * day)
        for back, phase in enumerate((Phase.TRANSFERRING, Phase.CHECKED, Phase.REWRITING), 6):
            said = Report(SERIAL, 1, phase, Result.SUCCESS, "1.0.0+0", bytes(32), "")
            core.handle("127.0.0.1:9", post("report", said.encode()), now - back * day)
        new = registration(digest=image.digest, version="1.1.0+0", last_update_id=1)
        core.handle("127.0.0.1:9", post("register", new.encode()), now - 9 * day)
        states = [item.state.value for item in records.events(update_id=1) if item.state]
        expected = ["pending", "announced", "transferring", "checked", "rewriting", "succeeded"]
        assert states == expected


def test_a_call_ends_with_its_center_when_the_clock_goes_back(open_records: Open) -> None:
    with open_records() as records:
        core = ServerCore(records, inspect)
        day, now = 86_400.0, 30 * 86_400.0
        core.handle("127.0.0.1:9", post("register", registration().encode()), now)
        core.poll(now)
        core.lines.center_is_there(now)
        core.handle("127.0.0.1:9", post("call", CallRequest(SERIAL, 1).encode()), now)
        core.poll(now)
        assert core.poll(now - day) == []
        (said,) = core.poll(now - day + CENTER_SILENCE_S)
        assert BROKEN_OFF.encode() in said.message.payload


# PostgreSQL is started anew


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["told to", "crashes"])
def test_a_session_goes_on_when_postgresql_was_started_anew_amid_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    files = [make_signed(tmp_path, version, 1) for version in VERSIONS]
    try:
        with restarting_postgres() as (url, restart):
            run_with_restarts(f"{url}/postgres", files, lambda: restart(number))
    except NoPostgresError as error:
        pytest.skip(f"no PostgreSQL: {error}")


def run_with_restarts(database: str, files: list[bytes], restart: Callable[[], None]) -> None:
    """A commanded update; the database is started anew at each new step of the terminal."""
    model = CommandedTerminal(files, list(ENTRIES), inspect=images.inspect)
    terminal = ProtectedOnUdp(model, LINK_KEY)
    options = ("--coap-port", 0, "--http-port", 0, "--database", database)
    seen: set[tuple[int, str]] = set()
    enrol(database, SERIAL)
    with Running("server", "start", *options) as server:
        found = server.wait_for(r"ready, coap://127\.0\.0\.1:(\d+) (\S+)")
        terminal.port, url = int(found[1]), found[2]

        def anew() -> None:
            moment = len(terminal.model.done), terminal.model.journal.phase
            if moment not in seen:
                seen.add(moment)
                restart()

        def state() -> str:
            for _ in range(5):
                terminal.serve()
            with suppress(ServerError), ServerClient(url) as http:
                (update,) = http.updates()
                session = http.update(update["id"])["session"]
            return str(session["state"]) if session else ""
            return ""

        with ServerClient(url) as http:
            for file in files:
                http.publish(file)
            until(lambda: (terminal.serve(), http.terminals())[1], "a registration")
            http.start(SERIAL, VERSIONS[1], "commanded")
        terminal.on_event = anew
        until(lambda: state() == "succeeded", "the end of the session")
        assert server.end() == 0
        assert not [line for line in server.output if "Traceback" in line]
    terminal.close()
    assert len(seen) >= 5
    assert model.running() == files[1]
    assert set(model.read() or ()) == set(ENTRIES)
    with closing(SqlRecords(database)) as records:
        assert records.backups() == []


@pytest.fixture
def unused_udp_port() -> int:
    """One that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
