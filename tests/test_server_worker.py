"""The worker: a process beside the server's event loop, killed at any time without harm."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from patience import PATIENCE_S, until
from server_world import inspect, make_image, registration

from unbrick.delta import decode
from unbrick.server.core.analysis import MAX_TRIES, Analyst
from unbrick.server.core.core import ServerCore
from unbrick.server.database import SqlRecords
from unbrick.server.edge import worker as worker_module
from unbrick.server.edge.prepare import REFUSED, pack_input
from unbrick.server.edge.worker import PROGRAM, Worker
from unbrick.server.records.analysis import Preparation, PreparationState, RangeKind
from unbrick.server.records.contract import Records
from unbrick.server.records.memory import MemoryRecords
from unbrick.server.records.updates import Terminal

OLD, NEW = make_image("1.0.0+0", counter=1), make_image("1.1.0+0")
PAIR = inspect(OLD).digest, inspect(NEW).digest


def queue(records: Records) -> Analyst:
    """A terminal that needs an upgrade."""
    analyst = Analyst(records)
    core = ServerCore(records, inspect, analyst=analyst)
    core.publish(OLD, 1.0)
    said = registration(digest=PAIR[0], version="1.0.0+0")
    terminal = Terminal(**vars(said), endpoint="a", first_seen=2.0, last_seen=2.0)
    with records.transaction():
        records.save_terminal(terminal)
        analyst.registered(terminal, None, 2.0)
    core.publish(NEW, 3.0)
    assert [item.state for item in records.preparations()] == [PreparationState.QUEUED]
    return analyst


def work(
    analyst: Analyst,
    program: Sequence[str] = PROGRAM,
    *,
    until: Callable[[Preparation], bool] = lambda _: True,
) -> list[Preparation]:
    """Work until a job ends that ``until`` was waiting for; gives how the jobs stood."""
    ends: list[Preparation] = []

    async def run() -> None:
        over = asyncio.Event()

        def ended(job: Preparation) -> None:
            found = analyst.records.preparation(job.base, job.digest)
            assert found
            ends.append(found)
            if until(found):
                over.set()

        worker = Worker(analyst, ended, program=program)
        task = asyncio.create_task(worker.run())
        try:
            await asyncio.wait_for(over.wait(), PATIENCE_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    return ends


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_claim_b2_a_process_prepares_what_is_queued() -> None:
    records = MemoryRecords()
    (ready,) = work(queue(records))
    assert ready.state is PreparationState.READY
    file = records.difference(*PAIR)
    assert file
    assert (ready.file_size, decode(OLD, file)) == (len(file), NEW)
    assert {item.kind for item in records.ranges(*PAIR)} == set(RangeKind)


@pytest.mark.slow
def test_what_is_queued_later_wakes_the_worker() -> None:
    records = MemoryRecords()
    analyst = queue(records)
    core = ServerCore(records, inspect, analyst=analyst)
    newest = make_image("1.2.0+0")

    def then_publish(_: Preparation) -> bool:
        if records.image(inspect(newest).digest) is None:
            asyncio.get_running_loop().call_later(0.05, core.publish, newest, 9.0)
            return False
        return True

    ends = work(analyst, until=then_publish)
    assert [item.digest for item in ends] == [PAIR[1], inspect(newest).digest]


def test_a_worker_that_is_killed_is_started_again(tmp_path: Path) -> None:
    mark = tmp_path / "killed"
    code = f"""
import os, pathlib, signal
mark = pathlib.Path({str(mark)!r})
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
from unbrick.server.edge.prepare import main
main()
"""
    records = MemoryRecords()
    killed, ready = work(
        queue(records), python(code), until=lambda item: item.state is PreparationState.READY
    )
    assert killed.state is PreparationState.QUEUED
    assert killed.text == f"the worker ended with {-signal.SIGKILL}"
    assert ready.tries == 2
    assert records.difference(*PAIR)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the worker ended with -9"),
        ("raise RuntimeError", "the worker ended with 1"),
        ("print('hello')", "malformed"),
        ("pass", "malformed"),
        (f"import sys; print('no', file=sys.stderr); sys.exit({REFUSED})", "no"),
    ],
)
def test_what_the_worker_cannot_do_is_given_up(code: str, text: str) -> None:
    records = MemoryRecords()
    ends = work(
        queue(records), python(code), until=lambda item: item.state is PreparationState.FAILED
    )
    assert len(ends) == (1 if f"sys.exit({REFUSED})" in code else MAX_TRIES)
    assert text in ends[-1].text
    assert records.difference(*PAIR) is None
    assert records.ranges(*PAIR) == []


def test_a_program_that_is_missing_is_given_up() -> None:
    ends = work(
        queue(MemoryRecords()),
        ["/nowhere/at/all"],
        until=lambda item: item.state is PreparationState.FAILED,
    )
    assert "no process can be started" in ends[-1].text


def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PREPARATION_TIMEOUT_S", 0.1)
    ends = work(
        queue(MemoryRecords()),
        python("import time; time.sleep(1000)"),
        until=lambda item: item.state is PreparationState.FAILED,
    )
    assert "it took more than" in ends[-1].text


def test_a_server_that_ends_takes_its_worker_with_it(tmp_path: Path) -> None:
    number = tmp_path / "pid"
    code = f"""
import os, pathlib, time
path = pathlib.Path({str(number)!r})
path.with_suffix('.new').write_text(str(os.getpid()))
path.with_suffix('.new').rename(path)
time.sleep(1000)
"""
    records = MemoryRecords()
    analyst = queue(records)

    async def run() -> None:
        task = asyncio.create_task(Worker(analyst, lambda _: None, program=python(code)).run())
        await asyncio.to_thread(until, number.exists)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)
    (queued,) = records.preparations()
    assert (queued.state, queued.tries) == (PreparationState.QUEUED, 0), "as if nothing had been"


@pytest.mark.slow
def test_what_was_queued_when_the_server_was_killed_is_prepared_after_its_start(
    database_url: str,
) -> None:
    """Killed: nothing of the server is left but its database."""
    records = SqlRecords(database_url)
    queue(records)
    records.close()
    records = SqlRecords(database_url)
    (ready,) = work(Analyst(records))
    assert ready.state is PreparationState.READY
    file = records.difference(*PAIR)
    assert file
    assert decode(OLD, file) == NEW
    records.close()


@pytest.mark.parametrize("size", [0, 7, 8, 3000])
def test_the_program_whose_server_was_killed_ends(size: int) -> None:
    done = subprocess.run(
        PROGRAM, input=pack_input(OLD, NEW)[:size], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == done.stderr == b""
