"""What every test can use, besides the fixtures of the plugin (``unbrick.pytest_plugin``)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from browsers import chromium, find_barriers  # noqa: F401 - fixtures
from elftools.elf.elffile import ELFFile
from person import Person, close
from postgres_server import NoPostgresError, postgres_server
from record_stores import STORES, Open, opener
from scripted_server import World
from sqlalchemy import create_engine
from summary import (
    pytest_collection_modifyitems,
    pytest_sessionstart,
    pytest_terminal_summary,
    pytest_xdist_make_scheduler,
)

from unbrick.engine.create import create_engine as create_terminal
from unbrick.engine.inprocess import InProcessEngine
from unbrick.engine.qemu.process import find_qemu
from unbrick.engine.renode.link import find_renode
from unbrick.errors import MissingToolError
from unbrick.firmware.signed import Releases
from unbrick.reference.target import MOST_STRETCHES, forget_peers

__all__ = [  # hooks of pytest
    "pytest_collection_modifyitems",
    "pytest_sessionstart",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
]

PROBE = Path(__file__).with_name("probe")

# A search ends after a number of examples and never after a time, and one that fails says how to
# repeat it. What else differs (more or fewer examples) is said at the test.
hypothesis.settings.register_profile(
    "unbrick",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unbrick")


def _take_signals_as_at_a_terminal() -> None:
    """Undo what `nohup`, `trap` and jobs in the background hand down: ignored, blocked signals.

    A handler that does nothing ignores as well, but not in programs that are started from here,
    which get the default. So the run itself is as deaf as it was told to be, and none of its
    children.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


_take_signals_as_at_a_terminal()


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What commands record for their user (XDG base directories) is not written to the tester's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def _peers() -> None:
    """What server, person and judge did in another test, which may have changed their code."""
    forget_peers()


@pytest.fixture(scope="session")
def qemu() -> str:
    """The path of QEMU; without it the test is skipped, and the summary says what is missing."""
    try:
        return find_qemu()
    except MissingToolError as error:
        pytest.skip(f"{error} ({error.hint})")


@pytest.fixture(scope="session")
def renode() -> str:
    """The path of Renode; without it the test is skipped, and the summary says what is missing."""
    try:
        return find_renode()
    except MissingToolError as error:
        pytest.skip(f"{error} ({error.hint})")


@pytest.fixture(scope="session")
def gdb() -> str:
    """The path of GDB; without it the test is skipped, and the summary says what is missing."""
    found = shutil.which("gdb-multiarch") or shutil.which("arm-none-eabi-gdb")
    if found is None:
        pytest.skip("gdb-multiarch is missing (apt install gdb-multiarch)")
    return found


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a running PostgreSQL, without a database; skips where none is installed."""
    try:
        pytest.importorskip("psycopg", reason="psycopg is missing (pip install 'unbrick[dev]')")
        with postgres_server() as url:
            yield url
    except NoPostgresError as error:
        pytest.skip(f"no PostgreSQL: {error}")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.db'}"
    return str(request.getfixturevalue("new_postgresql"))


@pytest.fixture
def new_postgresql(postgresql: str) -> str:
    """The URL of an empty database on PostgreSQL."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(f"{postgresql.replace('://', '+psycopg://')}/postgres")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{postgresql}/{name}"


@pytest.fixture(params=STORES)
def open_records(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a store of the server's records; what it keeps is there when it is opened again."""
    return opener(request, tmp_path)


@pytest.fixture(scope="session")
def firmware(unbrick_releases: Releases) -> Path:
    """The folder of the firmware that is built already, for commands with ``--firmware``."""
    return unbrick_releases.firmware.boot.elf.parent


@pytest.fixture
def remembering(unbrick_releases: Releases) -> Iterator[InProcessEngine]:
    """An engine in this process that does not execute again what the terminal did."""
    with InProcessEngine(unbrick_releases.elf_files, remembers=MOST_STRETCHES) as engine:
        yield engine


@pytest.fixture(scope="session")
def probe_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe, a program that does one thing for each letter it is sent, compiled."""
    elf = tmp_path_factory.mktemp("probe") / "probe.elf"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    command += ["-mcpu=cortex_a9", "-O2", "-g", "-fno-sanitize=all", "-nostdlib"]
    command += [f"-Wl,-T,{PROBE / 'probe.ld'}", "-o", str(elf), str(PROBE / "probe.c")]
    subprocess.run(command, check=True, capture_output=True)
    return elf


@pytest.fixture(scope="session")
def probe_image(probe_elf: Path) -> bytes:
    """The probe as contents of the NOR."""
    image = bytearray(b"\xff" * 0x40000)
    with probe_elf.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            start = segment["p_paddr"]
            image[start : start + segment["p_filesz"]] = segment.data()
    return bytes(image)


@pytest.fixture(params=["inprocess", "qemu", "renode"])
def emulator(request: pytest.FixtureRequest) -> str:
    """The name of each engine that emulates; a test is skipped where one is not installed."""
    name = str(request.param)
    try:
        if name == "qemu":
            find_qemu()
        elif name == "renode":
            find_renode()
    except MissingToolError as error:
        pytest.skip(f"{error} ({error.hint})")
    return name


@pytest.fixture
def make_world(emulator: str, unbrick_releases: Releases) -> Iterator[Callable[..., World]]:
    """Makes terminals with a scripted server on their link, on each engine that emulates."""
    with ExitStack() as engines:

        def make(**options: Any) -> World:
            engine = engines.enter_context(create_terminal(emulator, unbrick_releases.elf_files))
            return World(engine, unbrick_releases, **options)

        yield make


@pytest.fixture
def sit_down(firmware: Path, tmp_path: Path) -> Iterator[Callable[..., Person]]:
    """Has somebody sit down at ``unbrick console``; waits for the terminal's first prompt."""
    people: list[Person] = []

    def sit(*options: object, prompt: bool = True) -> Person:
        person = Person(["--firmware", firmware, *options], tmp_path)
        people.append(person)
        if prompt:
            person.sees("\r\n> ")
        return person

    yield sit
    for person in people:
        close(person.window)
