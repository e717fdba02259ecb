"""Commands that search and replay power cuts: ``campaign`` and ``replay``."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from unbrick.campaign.case import CaseId
from unbrick.campaign.coverage import CoverageRun
from unbrick.campaign.replay import debug, list_events, reduce, render_vcd, replay
from unbrick.campaign.run import PRESETS, Workers, open_pool, run_campaign, run_links
from unbrick.campaign.search import INTERRUPTED, SearchResult
from unbrick.campaign.store import OutcomeStore, digest_tool
from unbrick.cli.chip import refuse_svd
from unbrick.cli.completion import complete_searched
from unbrick.cli.options import (
    chip_engine_option,
    firmware_option,
    gdb_option,
    platform_option,
    svd_option,
)
from unbrick.engine import OWN_ENGINE
from unbrick.engine.base import NoteSource
from unbrick.engine.gdb.connection import gdb_command, wait_for_debugger
from unbrick.engine.gdb.server import DebuggedEngine, DebuggerGoneError
from unbrick.errors import (
    CannotBeginError,
    NotKnownHereError,
    SetupError,
    ToolBrokenError,
    UnbrickError,
)
from unbrick.flash.torn import SHAPES
from unbrick.lock import owned
from unbrick.report.formats import render_junit, render_sarif, tell_replay
from unbrick.report.html import render_html
from unbrick.report.model import (
    CampaignReport,
    SourceFile,
    list_versions,
    report_scenario,
    sum_timings,
)
from unbrick.report.summary import render_summary
from unbrick.report.told import tell_violations
from unbrick.screen import open_screen, open_status
from unbrick.target.load import SUFFIX
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from unbrick.campaign.target import ReplayedSession, Target
    from unbrick.engine.base import TracedEngine
    from unbrick.report.model import ScenarioReport


class _Bar:
    """The progress of a campaign on stderr; silent when nobody looks."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.bar.add_task("", total=None, rate="")
        self._start = time.monotonic()

    def begin(self, name: str) -> None:
        """The next scenario."""
        self._start = time.monotonic()
        self.bar.reset(self._task, description=name, total=None, rate="")

    def step(self, result: SearchResult, waiting: int) -> None:
        """One more session; what is left is what waits now: it may become more."""
        done = len(result.cases)
        rate = done / max(1e-6, time.monotonic() - self._start)
        bad = f" · {len(result.violations)} violations" if result.violations else ""
        words = (
            f"{result.states:,} states · {rate:.0f}/s · {waiting / rate:.0f} s or more left{bad}"
        )
        self.bar.update(self._task, completed=done, total=done + waiting, rate=words)


@contextmanager
def _verdict_or_broken() -> Iterator[None]:
    """A session ends with a verdict: any error that is none is the tool's, or the call's."""
    try:
        yield
    except (SetupError, CannotBeginError, ToolBrokenError):
        raise
    except UnbrickError as error:
        raise ToolBrokenError(f"a session had no verdict: {error}") from error


def _find_targets(
    names: tuple[str, ...],
    firmware: Path,
    status: Console,
    svd: Path | None = None,
    *,
    noting: bool = False,
) -> list[Target]:
    """The targets that are named: files, or scenarios of the reference; without names all of these.

    ``svd`` has names of registers, for files. With ``noting`` scenarios note what they read, which
    files always do.

    Raises:
        BuildError, SetupError: one is wrong, or the firmware for it cannot be built.
    """
    files = [Path(name) for name in names if name.endswith(SUFFIX)]
    if files and len(files) < len(names):
        raise SetupError(
            "files and scenarios cannot be searched together", hint="call it once for each"
        )
    if files:
        targets: list[Target] = [FileTarget.load(path, svd=svd) for path in files]
        called = [target.name for target in targets]
        for name in called:
            if called.count(name) > 1:
                raise SetupError(
                    f"two of the targets are called {name}", hint="give them a `name` each"
                )
        return targets
    refuse_svd(svd)
    # The reference needs more packages, which who tests firmware of his own may not have.
    from unbrick.firmware.signed import make_releases  # noqa: PLC0415
    from unbrick.reference.scenario import SCENARIOS, find_scenario  # noqa: PLC0415
    from unbrick.reference.target import find_target  # noqa: PLC0415

    for name in names:
        find_scenario(name)
    with status.status("building the firmware"):
        releases = make_releases(firmware)
    sources = NoteSource.ALL if noting else NoteSource.NONE
    return [find_target(name, releases, sources) for name in names or SCENARIOS]


def _open_workers(cluster: str | None, jobs: int | None) -> AbstractContextManager[Workers]:
    """Processes of this machine, or of a cluster.

    Raises:
        ModuleNotFoundError: Dask is not installed.
    """
    if cluster is None:
        return open_pool(jobs)
    # It takes long, and few have it.
    from unbrick.campaign.cluster import open_cluster  # noqa: PLC0415

    return open_cluster(cluster, jobs)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{out} cannot be made: {error.strerror}", hint="choose another folder with --out"
        ) from error


def _check_tries(tries: int, targets: Sequence[Target], preset: str) -> None:
    if tries and (not targets[0].file or preset in {"quick", "exhaustive"}):
        raise SetupError(
            "--refute needs a target file, and a search that judges states without running them",
            hint="take --preset single or full",
        )


@click.command(short_help="Cut the power everywhere, and see what comes of it.")
@click.argument(
    "names",
    nargs=-1,
    metavar="[SCENARIO|TARGET.toml]...",
    shell_complete=complete_searched,
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="quick: one power cut, a sample of the states; single: one power cut, at every operation, "
    "before it and torn; full: until no state is new; exhaustive: as full, and every state that "
    "counts as known is run all the same, unless one that was reads the same.  "
    "[default: quick; single for target files]",
)
@click.option(
    "--depth",
    type=click.IntRange(0),
    help="So many power cuts in a row at most, instead of what the preset says.",
)
@click.option(
    "--shapes",
    type=click.Choice(SHAPES),
    default="usual",
    show_default=True,
    help="In how many shapes an operation is torn: none, a few, one of each kind that chips are "
    "known for, or also steps of bytes and eighths, and random bits; with sure without weak cells.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the order in which states are searched, and so of the sample that quick takes.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Processes to use.  [default: one for each core that this may use]",
)
@click.option(
    "--dask",
    "cluster",
    metavar="ADDRESS",
    help="Have the sessions run by a Dask cluster, with the same result: the address of its "
    "scheduler, such as tcp://10.0.0.1:8786, or local for one of --jobs processes.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write report.html, report.json, junit.xml and report.sarif to this folder, and go on "
    "from the outcomes that a stopped campaign has left there.",
)
@click.option(
    "--links",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Also try each scenario over so many bad links, with power cuts on the way.",
)
@click.option(
    "--refute",
    "tries",
    type=click.IntRange(0),
    metavar="STATES",
    default=0,
    help="When the search of a TARGET.toml has ended, run so many random states that it has judged "
    "without running them, and see whether they do as it was said. [canonical] is tried so, too.",
)
@click.option(
    "--coverage",
    is_flag=True,
    help="Also note which source lines run only after a loss "
    "of power; every session is run anew, in one process.",
)
@click.option("--stop-early", is_flag=True, help="End a scenario with its first violation.")
@svd_option
@firmware_option
@click.option("--json", "as_json", is_flag=True, help="The report as JSON, for a script.")
def campaign(
    names: tuple[str, ...],
    preset: str | None,
    depth: int | None,
    shapes: str,
    seed: int,
    jobs: int | None,
    cluster: str | None,
    out: Path | None,
    links: int,
    tries: int,
    *,
    coverage: bool,
    stop_early: bool,
    svd: Path | None,
    firmware: Path,
    as_json: bool,
) -> None:
    """Cut the power at every flash operation, before it and in it, and see what comes of it.

    A SCENARIO is one of the reference terminal's; without a name all of them are searched. A
    TARGET.toml describes firmware of your own (docs/any-firmware.md). One session of it stands for
    all states that agree on what it reads; with the preset exhaustive every state is run.

    Every cut's recovery is searched in its turn, as deep as the preset goes. Ctrl-C ends the
    search and reports what was found; with --out the same call later goes on from there.

    \b
    Exit codes: 0 the terminal always recovered, 1 it did not,
    2 the call or the set-up is wrong, 3 unbrick itself is broken.
    """
    status = open_status()
    if coverage and (cluster or jobs not in {None, 1}):
        raise SetupError("coverage is measured in one process", hint="leave out --jobs and --dask")
    if out is not None:
        _make_folder(out)
        click.get_current_context().with_resource(owned(out, hint="give another --out"))
    targets = _find_targets(names, firmware, status, svd, noting=preset == "exhaustive")
    preset = preset or ("single" if targets[0].file else "quick")
    _check_tries(tries, targets, preset)
    digests = _list_programs(targets)
    begun = time.monotonic()
    results: list[SearchResult] = []
    reports: list[ScenarioReport] = []
    bounds = replace(PRESETS[preset], stop_early=stop_early, shapes=shapes, seed=seed)
    if depth is not None:
        bounds = replace(bounds, depth=depth)
    store: OutcomeStore | None = None
    with ExitStack() as stack:
        if out is not None and not coverage:
            # Before the pool: its last results are still being kept while it comes to its end.
            store = OutcomeStore(out / "outcomes.sqlite", f"{digest_tool()}/{digests!r}")
            stack.callback(store.close)
        measured = stack.enter_context(_measure(targets[0])) if coverage else None
        workers = (
            measured.workers if measured else stack.enter_context(_open_workers(cluster, jobs))
        )
        bar = _Bar(status)
        stack.enter_context(bar.bar)
        for target in targets:
            bar.begin(target.name)
            try:
                with _verdict_or_broken():
                    result = run_campaign(
                        target,
                        workers,
                        bounds,
                        exhaustive=preset == "exhaustive",
                        tries=tries,
                        store=store,
                        progress=bar.step,
                    )
                    results.append(result)
                    told = tell_violations(result) if out is not None or as_json else ()
                    reports.append(report_scenario(result, told))
                    if links and result.cut_short != INTERRUPTED:
                        tried = run_links(target, workers, links)
                        results.append(tried)
                        reports.append(report_scenario(tried))
                        _say_reduced(tried, status)
            except KeyboardInterrupt:
                interrupted = True
            else:
                interrupted = result.cut_short == INTERRUPTED
            if interrupted:
                status.print("interrupted; what was found so far counts", style="yellow")
                break
        unsearched = targets[sum(not report.links for report in reports) :]
        reports += [
            report_scenario(SearchResult(each, cut_short=INTERRUPTED)) for each in unsearched
        ]
    report = CampaignReport(
        preset=preset,
        seed=seed,
        firmware=dict(digests),
        versions=list_versions(),
        scenarios=tuple(reports),
        coverage=tuple(SourceFile(*file) for file in measured.lines()) if measured else (),
        timings=sum_timings(
            results, time.monotonic() - begun, workers.count, store.reused if store else 0
        ),
        invariants=targets[0].invariants,
        board=targets[0].board,
        partitions=targets[0].partitions,
    )
    _tell(report, out, status, as_json=as_json)
    sys.exit(report.exit_code)


def _list_programs(targets: list[Target]) -> dict[str, str]:
    """SHA-256 of all programs; of several files, with the name of the target before each."""
    if len(targets) == 1 or not targets[0].file:
        return dict(targets[0].programs)
    return {
        f"{target.name}: {name}": digest
        for target in targets
        for name, digest in target.programs.items()
    }


def _measure(target: Target) -> CoverageRun:
    engine = target.create_engine()
    return CoverageRun(engine, target.covered)


def _say_reduced(tried: SearchResult, status: Console) -> None:
    """Name the faults that the first violation over a bad link really needs."""
    if tried.violations:
        worst = tried.violations[0].id
        smaller = reduce(tried.target, worst) or worst
        command = tell_replay(tried.target.file, str(smaller))
        status.print(f"{worst} reduced: {command}", soft_wrap=True)


def _tell(report: CampaignReport, out: Path | None, status: Console, *, as_json: bool) -> None:
    """Write the report to all places where it is wanted."""
    if out is not None:
        pages = {
            "report.html": render_html(report),
            "report.json": report.to_json(),
            "junit.xml": render_junit(report),
            "report.sarif": render_sarif(report),
        }
        for name, text in pages.items():
            (out / name).write_text(text, encoding="utf-8")
        status.print(f"the report is in {out / 'report.html'}", style="dim")
    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        open_screen().print(render_summary(report))


_COLOURS = {"power": "bold", "nor": "yellow", "radio": "cyan", "server": "magenta"}


def _show(session: ReplayedSession, target: Target, screen: Console) -> None:
    screen.print(f"session {session.case}", style="bold underline")
    for event in list_events(session, target):
        loud = event.source == "power" and ("LOST" in event.text or "VIOLATION" in event.text)
        screen.print(
            f"{event.time:12.6f}  {event.source:<6}  {event.text}",
            style="bold red" if loud else _COLOURS.get(event.source),
            markup=False,
            soft_wrap=True,
        )


def _debug(target: Target, case: CaseId, port: int, status: Console) -> None:
    """Run a case under a debugger, and say how to begin."""

    def ready(port: int) -> None:
        status.print("waiting for a debugger; start one with:")
        status.print(gdb_command(target.covered[0], port), soft_wrap=True)

    with closing(target.create_engine(debugged=True)) as engine:
        if not isinstance(engine, DebuggedEngine):
            raise NotKnownHereError(
                f"the engine {engine.name} has no debugger", hint="leave out --gdb"
            )
        try:
            debug(target, engine, case, lambda: engine.attach(wait_for_debugger(port, ready)))
        except DebuggerGoneError as error:
            status.print(str(error))


def _find_case(
    names: tuple[str, ...], firmware: Path, status: Console, svd: Path | None
) -> tuple[Target, CaseId]:
    """The target and the case of a replay.

    Raises:
        SetupError: they are not one target and one case of it.
    """
    if not names[0].endswith(SUFFIX):
        if len(names) > 1:
            raise SetupError(
                f"not the file of a target: {names[0]}", hint="one CASE-ID is replayed at a time"
            )
        case = CaseId.parse(names[0])
        return _find_targets((case.scenario,), firmware, status, svd)[0], case
    if len(names) > 2:
        raise SetupError("too many words", hint="name a target's file and one case of it")
    target = FileTarget.load(Path(names[0]), tried=False, svd=svd)
    return target, target.find_case(*names[1:])


def _open_engine(target: Target, engine: str, platform: Path | None) -> TracedEngine:
    """What runs a replay.

    Raises:
        SetupError: it does not know the target, or what it needs is missing.
    """
    if isinstance(target, FileTarget):
        return target.create_engine(engine=engine, platform=platform)
    if engine != OWN_ENGINE:
        raise SetupError(
            f"the engine {engine} replays no SCENARIO",
            hint="leave out --engine, or name a TARGET.toml",
        )
    return target.create_engine()


@click.command("replay", short_help="Run one case of a campaign again.")
@click.argument(
    "names",
    nargs=-1,
    required=True,
    metavar="[TARGET.toml] CASE-ID",
    shell_complete=complete_searched,
)
@click.option("--all", "every", is_flag=True, help="Show every session that leads to the case.")
@click.option(
    "--vcd",
    "waveform",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all sessions as a waveform, for GTKWave and the like.",
)
@click.option(
    "--minimise",
    is_flag=True,
    help="First leave out every fault without which the same invariant breaks, and say what is "
    "left.",
)
@gdb_option(
    "Wait for a debugger on this port of the loopback interface (by default any), and run the case "
    "under it; it stops just before the operation at which power is lost last."
)
@svd_option
@chip_engine_option
@platform_option
@firmware_option
def replay_command(
    names: tuple[str, ...],
    *,
    every: bool,
    waveform: Path | None,
    minimise: bool,
    gdb_port: int | None,
    svd: Path | None,
    engine: str,
    platform: Path | None,
    firmware: Path,
) -> None:
    """Run one case of a campaign again and show all that happens, in one order, in virtual time.

    CASE-ID is as a report has it, e.g. staged/12-weak+1; with a target's file and no CASE-ID the
    session without a power cut is run. Exit code 1: an invariant does not hold.
    """
    status = open_status()
    target, case = _find_case(names, firmware, status, svd)
    with (
        closing(_open_engine(target, engine, platform)) as opened,
        status.status("replaying"),
        _verdict_or_broken(),
    ):
        if minimise:
            smaller = reduce(target, case)
            status.print(
                "nothing to leave out: every invariant holds"
                if smaller is None
                else f"reduced: {tell_replay(target.file, str(smaller))}",
                soft_wrap=True,
            )
            case = smaller or case
        sessions = replay(target, opened, case)
    if gdb_port is not None:
        _debug(target, case, gdb_port, status)
    screen = open_screen()
    for session in sessions if every else sessions[-1:]:
        _show(session, target, screen)
    if waveform is not None:
        try:
            waveform.write_text(render_vcd(sessions, target), encoding="utf-8")
        except OSError as error:
            raise SetupError(
                f"{waveform} cannot be written: {error.strerror}", hint="choose another file"
            ) from error
    sys.exit(1 if sessions[-1].outcome.violation else 0)


COMMANDS: list[click.Command] = [campaign, replay_command]
