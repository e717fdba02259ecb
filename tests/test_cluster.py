"""A campaign on a Dask cluster comes to the same result, whatever happens to the workers."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

pytest.importorskip("distributed", reason="Dask is not installed (pip install 'unbrick[dask]')")

from distributed import Client, LocalCluster
from test_ab_updater import build

from unbrick.campaign import cluster
from unbrick.campaign.cluster import LOCAL, open_cluster, pack_target, unpack_target
from unbrick.campaign.run import Workers, run_campaign
from unbrick.campaign.search import Bounds, SearchResult
from unbrick.cli.main import cli
from unbrick.errors import SetupError
from unbrick.reference.target import find_target
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.campaign.run import Run
    from unbrick.campaign.target import Target
    from unbrick.firmware.signed import Releases

ONE_CUT = Bounds(depth=1)

DRIVER = """
from unbrick.target.drivers import xmodem


def update(console, payload, options):
    yield from xmodem.update(console, payload, options)
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> FileTarget:
    """The example, whose update a driver of a user's drives."""
    path = build(tmp_path_factory.mktemp("example"), "stm32f103")
    (path.parent / "driver.py").write_text(DRIVER, encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert 'driver = "xmodem"' in text
    path.write_text(text.replace('driver = "xmodem"', 'driver = "driver.py"'), encoding="utf-8")
    return FileTarget.load(path)


@contextmanager
def started(workers: int) -> Iterator[LocalCluster]:
    """A cluster on this machine."""
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as one:
        yield one


@pytest.fixture(scope="module")
def dask() -> Iterator[LocalCluster]:
    """Two workers."""
    with started(2) as two:
        yield two


def list_found(result: SearchResult) -> list[object]:
    """What a search has found, without what it cost."""
    return [result.statement, *((str(case.id), case.outcome) for case in result.cases)]


@pytest.mark.slow
def test_a_cluster_finds_what_one_process_finds_though_it_has_no_file(
    example: FileTarget, tmp_path: Path
) -> None:
    here = run_campaign(example, bounds=ONE_CUT)
    folder = tmp_path / "moved"
    shutil.copytree(example.path.parent, folder)
    moved = FileTarget.load(folder / example.path.name)
    moved.start()

    def bring(target: Target) -> Run:
        run = workers.bring(target)
        shutil.rmtree(folder)
        return run

    with open_cluster(LOCAL, 2) as workers:
        there = run_campaign(moved, replace(workers, bring=bring), ONE_CUT)
    assert workers.count == 2
    assert len(here.cases) > 5
    assert list_found(there) == list_found(here)


@pytest.mark.slow
def test_the_reference_terminal_is_searched_there_too(unbrick_releases: Releases) -> None:
    phonebook = find_target("phonebook", unbrick_releases)
    with open_cluster(LOCAL, 2) as workers:
        there = run_campaign(phonebook, workers, ONE_CUT)
    assert list_found(there) == list_found(run_campaign(phonebook, bounds=ONE_CUT))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(
    example: FileTarget, dask: LocalCluster
) -> None:
    with Client(dask) as client, open_cluster(dask.scheduler_address) as workers:
        before = set(client.run(os.getpid).values())

        def kill(result: SearchResult, waiting: int) -> None:
            del waiting
            if len(result.cases) == 2:
                os.kill(min(before), signal.SIGKILL)

        there = run_campaign(example, workers, ONE_CUT, progress=kill)
        client.wait_for_workers(2)
        after = set(client.run(os.getpid).values())
        # Who comes later has the firmware, too.
        assert all(client.run(lambda: len(cluster._ARRIVED) == 1).values())
    assert before - after == {min(before)}
    assert list_found(there) == list_found(run_campaign(example, bounds=ONE_CUT))


@pytest.mark.slow
def test_nothing_is_left_on_the_workers(example: FileTarget, dask: LocalCluster) -> None:
    with Client(dask) as client:
        with open_cluster(dask.scheduler_address) as workers:
            run_campaign(example, workers, Bounds(depth=0))
            folders = client.run(lambda: [one.name for one in cluster._FOLDERS.values()])
        left = [Path(name) for names in folders.values() for name in names]
        assert len(left) == 2
        assert not any(folder.exists() for folder in left)
        assert not any(client.run(lambda: len(cluster._ARRIVED)).values())


@pytest.mark.slow
def test_another_version_of_the_tool_is_refused(
    example: FileTarget, dask: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "digest_tool", lambda: "another")
    with (
        open_cluster(dask.scheduler_address) as workers,
        pytest.raises(SetupError, match="has another version of unbrick"),
    ):
        run_campaign(example, workers, ONE_CUT)


@pytest.mark.slow
def test_a_session_without_the_firmware_says_so(dask: LocalCluster, example: FileTarget) -> None:
    def bring_nothing(target: Target) -> Run:
        del target
        return lambda state, fate: cluster.run_there("nothing", state, fate)

    with open_cluster(dask.scheduler_address) as workers:
        lost = Workers(workers.executor, 1, bring_nothing)
        with pytest.raises(SetupError, match="has not come to a worker"):
            run_campaign(example, lost, ONE_CUT)


def test_a_target_is_packed_with_its_files(example: FileTarget, tmp_path: Path) -> None:
    found = unpack_target(pack_target(example), tmp_path)
    assert isinstance(found, FileTarget)
    files = [path.read_bytes() for path in found.description.elf_files]
    assert files == [path.read_bytes() for path in example.description.elf_files]
    assert all(path.is_relative_to(tmp_path) for path in found.description.elf_files)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dask", "tcp://127.0.0.1:9", "--jobs", "2"], "processes of its own"),
        (["--dask", "local", "--coverage"], "coverage is measured in one process"),
        (["--dask", "nowhere://x"], "no Dask scheduler answers at nowhere://x"),
        (["--dask", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_a_wrong_call_is_one_line(
    words: list[str],
    message: str,
    example: FileTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 0.5)
    done = CliRunner().invoke(cli, ["campaign", str(example.path), *words])
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_cluster_without_workers_is_refused() -> None:
    with (
        started(0) as empty,
        pytest.raises(SetupError, match="has no worker"),
        open_cluster(empty.scheduler_address),
    ):
        pass


@pytest.mark.slow
def test_the_command_reports_the_same(example: FileTarget) -> None:
    said = {}
    for words in (("--jobs", "1"), ("--dask", "local", "--jobs", "2")):
        done = CliRunner().invoke(cli, ["campaign", str(example.path), *words])
        assert done.exit_code == 0, done.output
        said[words] = [line for line in done.stdout.splitlines() if " s, " not in line]
    assert len(set(map(tuple, said.values()))) == 1
