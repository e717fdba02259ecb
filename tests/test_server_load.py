"""Hundreds of terminals at once, on real sockets, against server processes: nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from processes import Running

from fleet import COMMANDED_COURSE, COURSE, Fleet, courses, make_small_image, order
from fleet_terminal import UNPUBLISHED, identity
from unbrick.image.format import inspect
from unbrick.server.database import SqlRecords
from unbrick.server.records.people import AuditAction
from unbrick.wire.messages import TerminalState

COUNT = 200
SERIALS = [f"T-{number:04}" for number in range(COUNT)]
VERSION = "1.1.0"
BALANCER = Path(__file__).parents[1] / "tools" / "balancer.py"


@pytest.fixture(scope="module")
def image() -> bytes:
    return make_small_image(VERSION)


@pytest.fixture(scope="module")
def old_image() -> bytes:
    return make_small_image("1.0.0")


@contextmanager
def server(database: str, port: int = 0) -> Iterator[tuple[Running, int]]:
    """A server process, and its UDP port."""
    options = ("--coap-port", port, "--http-port", 0, "--database", database)
    with Running("server", "start", *options) as process:
        yield process, int(process.wait_for(r"ready, coap://127\.0\.0\.1:(\d+)")[1])


def prepare(database: str, *images: bytes) -> None:
    with closing(SqlRecords(database)) as records:
        order(records, images, SERIALS)


def check(database: str, expected: list[str], *, disturbed: bool = False) -> None:
    """Every terminal is known as it is, with one update, one past and one present."""
    with closing(SqlRecords(database)) as records:
        told = courses(records)
        assert sorted(told) == SERIALS
        for course in told.values():
            # A server that starts again may have to announce again.
            assert (list(dict.fromkeys(course)) if disturbed else course) == expected
            assert course.count("succeeded") == 1
        assert [update.serial for update in records.updates()] == SERIALS
        for terminal in records.terminals():
            assert terminal.version == f"{VERSION}+0"
            assert terminal.state is TerminalState.APPLICATION
            ran = [item.version for item in records.installations(terminal.serial)]
            assert ran == [identity("").version, terminal.version]


@pytest.mark.slow
def test_hundreds_of_terminals_are_updated_at_once(database_url: str, image: bytes) -> None:
    prepare(database_url, image)
    with server(database_url) as (process, port):
        fleet = Fleet(SERIALS, ("127.0.0.1", port), at_once=COUNT)
        result = asyncio.run(fleet.run())
        assert result.done == COUNT
        assert len(result.requests) >= COUNT * (7 + len(image) // 1024)
        assert process.end() == 0
        assert len(process.output) == 1
    check(database_url, COURSE)


def check_nothing_personal(database: str) -> None:
    """Every backup was kept, read and deleted, and none is left."""
    with closing(SqlRecords(database)) as records:
        assert records.backups() == []
        assert records.unfinished_sessions() == []
        done: dict[str, list[AuditAction]] = {}
        for entry in records.audit():
            if entry.action is AuditAction.TERMINAL_ENROLLED:
                continue
            done.setdefault(entry.serial, []).append(entry.action)
    assert sorted(done) == SERIALS
    for actions in done.values():
        assert actions[0] is AuditAction.BACKUP_KEPT
        assert set(actions[1:-1]) == {AuditAction.BACKUP_READ}
        assert actions[-1] is AuditAction.BACKUP_DELETED


@pytest.mark.slow
def test_hundreds_of_terminals_are_commanded_at_once(
    database_url: str, old_image: bytes, image: bytes
) -> None:
    prepare(database_url, old_image, image)
    with server(database_url) as (process, port):
        digest = inspect(old_image).digest
        fleet = Fleet(SERIALS, ("127.0.0.1", port), at_once=COUNT, digest=digest)
        with closing(SqlRecords(database_url)) as records:
            result = asyncio.run(fleet.run(settled=lambda: not records.unfinished_sessions()))
        assert result.done == COUNT
        assert process.end() == 0
        assert len(process.output) == 1
    check(database_url, COMMANDED_COURSE)
    check_nothing_personal(database_url)


@pytest.mark.slow
def test_a_server_that_is_killed_amid_hundreds_goes_on_with_all(
    database_url: str, image: bytes
) -> None:
    prepare(database_url, image)
    with server(database_url) as (first, port):
        fleet = Fleet(SERIALS, ("127.0.0.1", port), at_once=COUNT // 3, patience=5.0)

        async def run() -> int:
            updating = asyncio.create_task(fleet.run())
            while fleet.done < COUNT // 4:  # noqa: ASYNC110 - nobody could say it
                await asyncio.sleep(0.01)
            first.end(signal.SIGKILL)
            assert fleet.done < COUNT
            with server(database_url, port):
                return (await updating).done

        assert asyncio.run(run()) == COUNT
    check(database_url, COURSE, disturbed=True)


@contextmanager
def three_servers(database: str, moves: float = 0.0) -> Iterator[tuple[list[Running], int]]:
    """Three server processes behind a balancer, and the balancer's port."""
    with ExitStack() as stack:
        servers, ports = zip(
            *(stack.enter_context(server(database)) for _ in range(3)), strict=True
        )
        command = [sys.executable, BALANCER, "0", str(moves), *map(str, ports)]
        balancer = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(balancer.kill)
        assert balancer.stdout is not None
        yield list(servers), int(balancer.stdout.readline().rpartition(" ")[2])


def kill_one_amid(database: str, digest: bytes, moves: float = 0.0) -> None:
    """Update all behind three servers, of which one is killed when a quarter is done."""
    with (
        three_servers(database, moves) as (servers, port),
        closing(SqlRecords(database)) as records,
    ):
        fleet = Fleet(SERIALS, ("127.0.0.1", port), at_once=COUNT // 3, patience=5.0, digest=digest)

        async def run() -> int:
            settled = lambda: not records.unfinished_sessions()  # noqa: E731 - a condition
            updating = asyncio.create_task(fleet.run(settled=settled))
            while fleet.done < COUNT // 4 and not updating.done():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            holders = {terminal.holder for terminal in records.terminals()}
            assert len(holders - {0}) == 3, "all of them have some"
            servers.pop(0).end(signal.SIGKILL)
            return (await updating).done

        assert asyncio.run(run()) == COUNT
        assert [one.end() for one in servers] == [0, 0]
        assert [len(one.output) for one in servers] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("moves", [0.0, 0.2], ids=["each keeps its terminals", "they are moved"])
def test_of_three_servers_one_is_killed_and_nothing_is_lost_or_done_twice(
    new_postgresql: str, image: bytes, moves: float
) -> None:
    prepare(new_postgresql, image)
    kill_one_amid(new_postgresql, UNPUBLISHED, moves)
    check(new_postgresql, COURSE, disturbed=True)


@pytest.mark.slow
def test_three_servers_command_a_fleet_and_the_user_data_of_each_comes_back_once(
    new_postgresql: str, old_image: bytes, image: bytes
) -> None:
    prepare(new_postgresql, old_image, image)
    kill_one_amid(new_postgresql, inspect(old_image).digest)
    check(new_postgresql, COMMANDED_COURSE, disturbed=True)
    check_nothing_personal(new_postgresql)
