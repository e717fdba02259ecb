"""Campaigns from the command line and from pytest: results, exit codes, going on where it was."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from counted_starts import ops_but_for_starts

from unbrick.campaign import run
from unbrick.campaign.case import Death
from unbrick.campaign.run import Here, run_campaign
from unbrick.campaign.search import SearchResult
from unbrick.campaign.store import OutcomeStore, pack, unpack
from unbrick.campaign.target import Fate, Outcome, State
from unbrick.cli import campaign as cli_campaign
from unbrick.cli.main import cli
from unbrick.errors import ServerError, SetupError, ToolBrokenError, UnbrickError
from unbrick.firmware import signed
from unbrick.firmware.signed import Releases, SignedImages
from unbrick.flash.torn import SHAPES
from unbrick.folders import firmware_folder
from unbrick.reference import start as start_of_scenario
from unbrick.reference import target as reference_target
from unbrick.reference.scenario import SCENARIOS
from unbrick.reference.session import run_session
from unbrick.reference.target import ReferenceTarget, find_target
from unbrick.report.model import ScenarioReport, report_scenario

STATES = 8  # of the scenario phonebook, when it is searched to the end


@pytest.fixture
def phonebook(unbrick_releases: Releases) -> ReferenceTarget:
    return find_target("phonebook", unbrick_releases)


@pytest.fixture
def start(phonebook: ReferenceTarget) -> State:
    return phonebook.start()


RUN = ReferenceTarget.run


@pytest.fixture
def invoke(unbrick_releases: Releases) -> Callable[..., Result]:
    """The command in this process, which a test may meddle with; other processes do not see it."""
    folder = unbrick_releases.firmware.boot.elf.parent
    runner = CliRunner(env={"UNBRICK_CAMPAIGN_JOBS": "1"})
    return lambda *words: runner.invoke(cli, [*words, "--firmware", str(folder)])


def test_a_release_that_is_missing_is_said_before_anything_is_searched(
    monkeypatch: pytest.MonkeyPatch, unbrick_releases: Releases, tmp_path: Path
) -> None:
    less = replace(
        unbrick_releases, signed=SignedImages({"1.0.0": unbrick_releases.signed["1.0.0"]})
    )
    monkeypatch.setattr(signed, "make_releases", lambda _: less)
    for words in (["campaign", "phonebook"], ["campaign"], ["replay", "phonebook"]):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 2, done.stderr
        said = done.stderr.splitlines()[-1]
        assert re.match(r"unbrick: the scenario \w+ needs the releases? 1\.1\.0", said)
        assert "and this firmware has the release 1.0.0. Unset UNBRICK_FIRMWARE" in said


def test_every_scenario_can_be_searched_by_its_name(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    """Those with a release of their own, too: all of them are what a call without names takes."""
    searched: list[str] = []

    def search(target: ReferenceTarget, *_: object, **__: object) -> SearchResult:
        searched.append(target.name)
        return SearchResult(target, closed=True)

    monkeypatch.setattr(cli_campaign, "run_campaign", search)
    done = invoke("campaign", "--jobs", "1")
    assert done.exit_code == 0, done.stderr
    assert searched == list(SCENARIOS)


@pytest.mark.slow
def test_operations_are_torn_in_more_shapes_where_it_is_wished(
    invoke: Callable[..., Result],
) -> None:
    torn = {}
    for shapes in SHAPES:
        words = ("campaign", "phonebook", "--shapes", shapes, "--depth", "1", "--jobs", "1")
        done = invoke(*words, "--json")
        assert done.exit_code == 0, done.stderr
        scenario = json.loads(done.stdout)["scenarios"][0]
        assert scenario["shapes"] == shapes
        torn[shapes] = {cut["torn"] for cut in scenario["cuts"]} - {""}
    assert torn["none"] < torn["few"] < torn["usual"] < torn["many"]
    assert torn["none"] < torn["sure"] < torn["usual"]
    assert torn["sure"] < torn["many-sure"] < torn["many"]
    numbered = min(torn["many"] - torn["usual"])
    done = invoke("replay", "--all", f"phonebook/0-{numbered}")
    assert done.exit_code == 0, done.stderr
    assert f"LOST in operation 0, torn: {numbered}" in done.stdout


def test_every_scenario_says_which_releases_it_plays_with() -> None:
    """Each version that is written anywhere in it."""
    for scenario in SCENARIOS.values():
        written = set(re.findall(r"'(?:\w+ )?(\d+\.\d+\.\d+(?:-twin)?)'", repr(scenario)))
        assert set(scenario.releases) == written


@pytest.mark.slow
@pytest.mark.unbrick_campaign("staged", "overtaken", "restore", "phonebook")
def test_no_single_power_cut_does_harm(unbrick_campaign: ScenarioReport) -> None:
    assert unbrick_campaign.violations == ()
    assert unbrick_campaign.states > 3
    assert {case.depth for case in unbrick_campaign.cases} == {0, 1}
    assert (
        "open" not in {cut.came for cut in unbrick_campaign.cuts} or unbrick_campaign.states == 40
    )


@pytest.mark.slow
def test_the_report_files_agree(invoke: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    done = invoke("campaign", "phonebook", "--preset", "full", "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report == json.loads((out / "report.json").read_text())
    assert report["scenarios"][0]["closed"]
    assert report["totals"]["states"] == STATES
    for name in ("report.html", "junit.xml", "report.sarif"):
        assert (out / name).stat().st_size > 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "pools"), [((), [3]), (("--coverage",), []), (("--jobs", "2"), [2])]
)
def test_all_cores_are_used_unless_it_is_said_otherwise(
    words: tuple[str, ...], pools: list[int], firmware: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pool(jobs: int, **_: object) -> Here:
        asked.append(jobs)
        return Here()

    monkeypatch.setattr(run, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    command = ["campaign", "idle", *words, "--firmware", str(firmware)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert asked == pools


@pytest.mark.slow
def test_a_stopped_campaign_goes_on_where_it_was(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("campaign", "phonebook", "restore", "--preset", "full", "--json")
    sessions = 0

    def interrupted(*args: Any) -> Outcome:
        nonlocal sessions
        sessions += 1
        if sessions > 5:
            raise KeyboardInterrupt
        return RUN(*args)

    with monkeypatch.context() as patch:
        patch.setattr(ReferenceTarget, "run", interrupted)
        stopped = invoke(*words, "--out", str(tmp_path))
    assert stopped.exit_code == 0, stopped.output
    report = json.loads(stopped.stdout)
    assert [s["cut_short"] for s in report["scenarios"]] == ["it was interrupted"] * 2
    assert report["totals"]["sessions"] == 5
    assert report["verdict"] == "no violation found before the search was interrupted"

    words = ("campaign", "phonebook", "--preset", "full", "--json")
    on = json.loads(invoke(*words, "--out", str(tmp_path)).stdout)
    fresh = json.loads(invoke(*words).stdout)
    assert on.pop("timings")["reused"] == 5
    assert fresh.pop("timings")["reused"] == 0
    assert on == fresh


def test_a_campaign_that_is_stopped_between_scenarios_claims_nothing_for_the_rest(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ReferenceTarget.start

    def interrupted(target: ReferenceTarget) -> State:
        if target.name != "idle":
            raise KeyboardInterrupt
        return start(target)

    monkeypatch.setattr(ReferenceTarget, "start", interrupted)
    words = ("campaign", "idle", "phonebook", "restore", "--preset", "full", "--json")
    report = json.loads(invoke(*words).stdout)
    found = {s["name"]: (s["closed"], s["cut_short"]) for s in report["scenarios"]}
    unsearched = (False, "it was interrupted")
    assert found == {"idle": (True, ""), "phonebook": unsearched, "restore": unsearched}
    assert report["verdict"] == "no violation found before the search was interrupted"


@pytest.mark.parametrize("early", [False, True])
def test_a_violation_ends_with_1_and_names_the_case(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, *, early: bool
) -> None:
    def bad(target: ReferenceTarget, state: State, fate: Fate, engine: Any = None) -> Outcome:
        outcome = RUN(target, state, fate, engine)
        broken = ("data-lost", "Alice is gone") if not ops_but_for_starts(outcome.ops) else None
        return replace(outcome, violation=broken)

    monkeypatch.setattr(ReferenceTarget, "run", bad)
    done = invoke("campaign", "phonebook", *(["--stop-early"] if early else []))
    assert done.exit_code == 1, done.output
    assert "data-lost: Alice is gone" in done.output
    assert "unbrick replay phonebook/" in done.output
    assert ("it was to end with" in done.output) is early


@pytest.mark.parametrize("error", [ToolBrokenError, ServerError])
def test_a_broken_tool_is_no_verdict(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, error: type[UnbrickError]
) -> None:
    def broken(*_: Any) -> Outcome:
        raise error("the NOR is not what the trace says")

    monkeypatch.setattr(ReferenceTarget, "run", broken)
    assert invoke("campaign", "phonebook").exit_code == 3


def test_a_terminal_that_does_not_come_to_the_beginning_is_at_fault(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens before a search is a session, too: it has a name, and can be looked at."""

    def refused(*words: Any) -> Outcome:
        return replace(run_session(*words), violation=("rejected", "the update ended as too old"))

    with monkeypatch.context() as patch:
        patch.setattr(start_of_scenario, "run_session", refused)
        patch.setattr(reference_target, "_TOOLS", {})
        done = invoke("campaign", "compact")
        assert done.exit_code == 1, done.output
        assert "compact cannot begin: without any fault it comes to this: rejected:" in done.output
        assert "the update ended as too old" in done.output
        assert "see it with: unbrick replay compact-start" in done.output.lower()
    shown = invoke("replay", "compact-start")
    assert shown.exit_code == 0, shown.output
    assert "session compact-start" in shown.output
    assert "1.1.0" in shown.output


def test_wrong_calls_say_what_to_do(invoke: Callable[..., Result], tmp_path: Path) -> None:
    unknown = invoke("campaign", "stagged")
    assert unknown.exit_code == 2
    assert "Choose from staged" in unknown.output
    (tmp_path / "file").touch()
    occupied = invoke("campaign", "phonebook", "--out", str(tmp_path / "file"))
    assert occupied.exit_code == 2
    assert "--out" in occupied.output
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "outcomes.sqlite").write_bytes(b"this is no database, but a letter to a friend")
    strange = invoke("campaign", "phonebook", "--out", str(folder))
    assert strange.exit_code == 2
    assert "elete it" in strange.output


@pytest.mark.slow
def test_bad_links_are_tried_too(invoke: Callable[..., Result]) -> None:
    done = invoke("campaign", "phonebook", "--links", "2", "--json")
    report = json.loads(done.stdout)
    assert [s["name"] for s in report["scenarios"]] == ["phonebook", "phonebook~"]
    tried = report["scenarios"][1]
    assert tried["links"] == 2
    assert {case["id"].split("/")[0] for case in tried["cases"]} == {"phonebook~0", "phonebook~1"}


@pytest.mark.slow
def test_a_violation_over_a_bad_link_is_reduced(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(target: ReferenceTarget, state: State, fate: Fate) -> Outcome:
        outcome = RUN(target, state, fate)
        return replace(outcome, violation=("silent", "…") if fate.link else None)

    monkeypatch.setattr(ReferenceTarget, "run", bad)
    done = invoke("campaign", "phonebook", "--links", "1")
    assert done.exit_code == 1, done.output
    assert "phonebook~0 reduced: unbrick replay 'phonebook~0'\n" in done.output


@pytest.mark.slow
def test_coverage_tells_recovery_from_the_rest(invoke: Callable[..., Result]) -> None:
    done = invoke("campaign", "phonebook", "restore", "--coverage", "--links", "1", "--json")
    assert done.exit_code == 0, done.output
    files = {file["name"]: file for file in json.loads(done.stdout)["coverage"]}
    source = firmware_folder() / "agent" / "rewrite.c"
    rewrite = next(
        number
        for number, line in enumerate(source.read_text().splitlines(), 1)
        if "agent: rewriting" in line
    )
    assert rewrite in files["agent/rewrite.c"]["golden"]  # the restoration rewrites
    assert any(file["recovery"] for file in files.values())
    assert not any(set(file["golden"]) & set(file["recovery"]) for file in files.values())
    folders = {"agent", "boot", "resident", "board", "lib", "link"}
    assert {name.split("/")[0] for name in files} <= folders

    assert "lib/phonebook.c" not in files  # in the application alone: dropped from boot

    alone = json.loads(invoke("campaign", "phonebook", "--coverage", "--json").stdout)["coverage"]
    assert "agent/rewrite.c" not in {file["name"] for file in alone}
    refused = invoke("campaign", "phonebook", "--coverage", "--jobs", "2")
    assert refused.exit_code == 2


@pytest.mark.slow
def test_exhaustive_starts_every_different_nor_once(
    phonebook: ReferenceTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def noted(target: ReferenceTarget, state: State, fate: Fate) -> Outcome:
        started.append((state.cells, target.peers_key(state), fate))
        return RUN(target, state, fate)

    monkeypatch.setattr(ReferenceTarget, "run", noted)
    phonebook.start()
    started.clear()
    before = len(run_campaign(phonebook).cases)
    started.clear()
    result = run_campaign(phonebook, exhaustive=True)
    assert result.closed
    assert len(result.cases) == len(started) > before
    assert len(set(started)) == len(started)
    assert len({case.id for case in result.cases}) == len(result.cases)
    states = {(cells, peers) for cells, peers, _ in started}
    assert result.vouched == result.different == len(states)
    assert f"all {len(states)} that differ in any cell were started" in result.statement


@pytest.mark.slow
def test_exhaustive_vouches_for_no_more_than_it_has_started(phonebook: ReferenceTarget) -> None:
    def stop(result: SearchResult, _waiting: int) -> None:
        if result.vouched > 0 and len(result.cases) > searched + 2:
            raise KeyboardInterrupt

    searched = len(run_campaign(phonebook).cases)
    result = run_campaign(phonebook, exhaustive=True, progress=stop)
    assert 0 < result.vouched < result.different
    said = f"{result.vouched} of {result.different} that differ in any cell were started"
    assert said in result.statement
    assert report_scenario(result).vouched == result.vouched


# What is kept -----------------------------------------------------------------------------------


@pytest.fixture
def outcome(phonebook: ReferenceTarget, start: State) -> Outcome:
    return phonebook.run(start)


def test_an_outcome_is_read_as_it_was_written(
    outcome: Outcome, phonebook: ReferenceTarget, start: State
) -> None:
    kept: dict[str, bytes] = {}

    def keep(data: bytes) -> str:
        kept[data.hex()] = data
        return data.hex()

    again = unpack(pack(outcome, phonebook, keep), phonebook, start, kept.__getitem__)
    for field in fields(Outcome):
        assert getattr(again, field.name) == getattr(outcome, field.name), field.name


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"no zlib",
        zlib.compress(b"{}"),
        zlib.compress(b"[1]"),
        zlib.compress(b"\xff\xfe"),
        zlib.compress(b"0" * (9 << 20)),
        zlib.compress(b"{}")[:-3],
        zlib.compress(b'{"ops":[[1]],"marks":[],"violation":null}'),
    ],
)
def test_what_is_no_outcome_is_refused(
    packed: bytes, phonebook: ReferenceTarget, start: State
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        unpack(packed, phonebook, start, lambda _: b"")


def _count(path: Path, table: str) -> int:
    with sqlite3.connect(path) as database:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def test_an_outcome_is_found_by_all_that_it_depends_on(
    outcome: Outcome,
    phonebook: ReferenceTarget,
    start: State,
    unbrick_releases: Releases,
    tmp_path: Path,
) -> None:
    path = tmp_path / "outcomes.sqlite"
    store = OutcomeStore(path, "tool and firmware")
    key = store.key(phonebook, start, Fate())
    assert store.get(key, phonebook, start) is None
    store.put(key, phonebook, outcome)
    assert store.get(key, phonebook, start) == outcome
    touched = replace(start, cells=start.cells.with_range(0x3C0000, b"\xfe"))
    weak = replace(start, cells=start.cells.with_range(0x3C0000, b"\xff", b"\x01"))
    others = {
        store.key(phonebook, start, Fate(1)),
        store.key(phonebook, start, Fate(link=(1, 0))),
        store.key(phonebook, start, Fate(death=Death(1))),
        store.key(phonebook, start, Fate(death=Death(1, "late"))),
        store.key(find_target("staged", unbrick_releases), start, Fate()),
        store.key(phonebook, touched, Fate()),
        store.key(phonebook, weak, Fate()),
        store.key(phonebook, replace(start, peers=None), Fate()),
    }
    assert len(others | {key}) == 9
    store.close()
    other = OutcomeStore(path, "tool and other firmware")
    assert other.get(key, phonebook, start) is None
    other.close()


def test_damaged_outcomes_count_as_missing(
    outcome: Outcome, phonebook: ReferenceTarget, start: State, tmp_path: Path
) -> None:
    path = tmp_path / "outcomes.sqlite"
    store = OutcomeStore(path, "x")
    key = store.key(phonebook, start, Fate())
    store.put(key, phonebook, outcome)
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE data SET data = ?", (zlib.compress(b"other"),))
    store = OutcomeStore(path, "x")
    assert store.get(key, phonebook, start) is None
    assert store.reused == 0
    store.close()


def test_a_full_file_drops_what_is_of_other_firmware(
    outcome: Outcome, phonebook: ReferenceTarget, start: State, tmp_path: Path
) -> None:
    path = tmp_path / "outcomes.sqlite"
    store = OutcomeStore(path, "old")
    store.put(store.key(phonebook, start, Fate()), phonebook, outcome)
    store.close()
    assert _count(path, "outcomes") == 1
    store = OutcomeStore(path, "new", full=1)
    store.put(store.key(phonebook, start, Fate()), phonebook, outcome)
    assert store.added == 0
    store.close()
    assert _count(path, "outcomes") == 0


def test_only_what_is_not_kept_is_run(phonebook: ReferenceTarget, tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path / "outcomes.sqlite", "x")
    first, second = (run_campaign(phonebook, store=store) for _ in range(2))
    assert store.added == store.reused == len(first.cases)
    assert report_scenario(first) == report_scenario(second)
    store.close()


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError):
        OutcomeStore(tmp_path, "x")


@pytest.mark.slow
def test_two_processes_report_and_keep_what_one_does(
    tmp_path: Path, unbrick_releases: Releases
) -> None:
    """As a command: the outcomes' file must outlive the pool, whose last results go into it."""
    reports = []
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        command = [sys.executable, "-m", "unbrick.cli", "campaign", "phonebook"]
        command += ["--preset", "full", "--jobs", jobs, "--out", str(out)]
        command += ["--firmware", str(unbrick_releases.firmware.boot.elf.parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads((out / "report.json").read_text())
        assert report.pop("timings")["jobs"] == int(jobs)
        reports.append(json.dumps(report))
    assert reports[0] == reports[1], "to the byte"
