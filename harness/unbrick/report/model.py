"""The result of a campaign: the one model from which every report is made.

The same campaign gives the same model, to the byte, on any number of cores. ``timings`` alone
depends on the clock.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import statistics
import subprocess
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from unbrick import __version__
from unbrick.campaign.book import UNIT
from unbrick.campaign.search import INTERRUPTED, find_successors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from unbrick.board import Board
    from unbrick.campaign.search import Case, SearchResult
    from unbrick.campaign.target import Target
    from unbrick.flash.partition import Partition

FORMAT = 1


@dataclass(frozen=True)
class CaseReport:
    """One session. Times are virtual, in seconds; ``erases`` has (block number, erases).

    ``target`` is the file that describes the target; empty for a scenario of the reference.
    ``judged`` power cuts lead to the session, or to one for which it stands. ``after`` is the
    session in which one of them comes, where it was met first; ``first_op`` the first operation of
    that session at which one does.
    """

    id: str
    depth: int
    route: str
    kind: str
    text: str
    ops: int
    erases: tuple[tuple[int, int], ...]
    downtime: float | None
    virtual: float
    successors: int
    judged: int = 0
    console: str = ""
    target: str = ""
    after: str = ""
    first_op: int | None = None

    @property
    def came(self) -> str:
        """How it ended: ``application``, ``restored`` or ``violation``."""
        return "violation" if self.kind else self.route


@dataclass(frozen=True)
class GoldenOp:
    """A flash operation of the session without faults; offset and length in bytes, times in s."""

    kind: str
    offset: int
    length: int
    start: float
    end: float


@dataclass(frozen=True)
class Cut:
    """A power cut in the session without faults.

    Attributes:
        op: the flash operation that it comes before, or in.
        torn: how the operation is torn; empty: not begun.
        came: ``application``, ``restored``, ``violation``; ``known``: it leads to the state in
            which everything began; ``open``: it was not run.
        case: ID of the case that was run for it: its own, or one that begins in the same state.
    """

    op: int
    torn: str
    came: str
    case: str


@dataclass(frozen=True)
class ToldSession:
    """One session, for a picture.

    Attributes:
        case: its ID.
        ops: its flash operations, to its end as if the power stayed.
        cut: the operation before which, or in which, the power was then lost; None: it was not.
        torn: how that operation was torn; empty: not begun.
        kind: of the violation that it ends with; empty: it ends well.
        said: its last lines, each with its virtual time in seconds.
    """

    case: str
    ops: tuple[GoldenOp, ...]
    cut: int | None
    torn: str
    kind: str
    said: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class ToldCase:
    """A violation, and beside it the run that it parts from at its last power cut.

    Attributes:
        case: ID of the violation.
        well: the session that the last power cut ends, as it goes on without it; None: there was
            no power cut.
        bad: the session that ends badly.
    """

    case: str
    well: ToldSession | None
    bad: ToldSession


@dataclass(frozen=True)
class ScenarioReport:
    """The findings of a search.

    ``console`` of a case is kept for violations only. ``links`` is the number of bad links that
    were tried. With bad links, the report is no search, and has no picture. ``states`` of the
    ``met`` different states were searched. Of the ``different`` ones, which differ in any cell,
    ``vouched`` were started, and ``confirmed`` hold the same where one that was has read; all are 0
    where these were not asked for. ``missed`` cases begin with states that were met only so, and
    ``differed`` ones end otherwise than what they count as. With ``by_reading`` a session stands
    for all that read the same. ``shapes`` says in which shapes operations were torn. ``told`` are
    the first violations, for pictures. ``read`` has, of the session without faults, for each block
    of the flash how many of its bytes had a say before they were erased; empty where nobody noted
    that. ``source`` is the file that describes what was searched, and the line in it.
    """

    name: str
    about: str
    statement: str
    states: int
    met: int
    transitions: int
    closed: bool
    cut_short: str
    cases: tuple[CaseReport, ...]
    golden: tuple[GoldenOp, ...]
    cuts: tuple[Cut, ...]
    links: int = 0
    different: int = 0
    vouched: int = 0
    confirmed: int = 0
    missed: tuple[str, ...] = ()
    differed: tuple[str, ...] = ()
    shapes: str = "usual"
    by_reading: bool = False
    told: tuple[ToldCase, ...] = ()
    read: tuple[tuple[int, int], ...] = ()
    source: tuple[str, int] = ("", 1)

    @property
    def violations(self) -> tuple[CaseReport, ...]:
        """The cases in which an invariant does not hold, those with fewest faults first."""
        bad = (case for case in self.cases if case.kind)
        return tuple(sorted(bad, key=lambda case: case.depth))

    @property
    def routes(self) -> dict[str, int]:
        """How many cases ended in each way."""
        counted = Counter(case.came for case in self.cases)
        return {name: counted[name] for name in ("application", "restored", "violation")}

    @property
    def torn(self) -> int:
        """How many torn operations follow from the session without faults."""
        return sum(bool(cut.torn) for cut in self.cuts)

    @property
    def deepest(self) -> int:
        """The most power cuts before a case."""
        return max((case.depth for case in self.cases), default=0)


@dataclass(frozen=True)
class SourceFile:
    """Coverage: lines of a source file that the golden sessions ran, or only recovery."""

    name: str
    golden: tuple[int, ...]
    recovery: tuple[int, ...]


@dataclass(frozen=True)
class Timings:
    """All that depends on the clock. Seconds, and sessions per second and process."""

    seconds: float = 0.0
    jobs: int = 1
    sessions: int = 0
    reused: int = 0
    median: float = 0.0
    worst: float = 0.0


@dataclass(frozen=True)
class CampaignReport:
    """A campaign.

    Attributes:
        preset: how far it went.
        seed: of everything random.
        firmware: SHA-256 of each program as it is in the NOR.
        versions: of the tools.
        scenarios: what was found.
        coverage: source lines that ran.
        timings: what depends on the clock.
        invariants: what must hold, by the kind of violation.
        board: whose flash the pictures show.
        partitions: of that flash.
    """

    preset: str
    seed: int
    firmware: dict[str, str]
    versions: dict[str, str]
    scenarios: tuple[ScenarioReport, ...]
    coverage: tuple[SourceFile, ...] = ()
    timings: Timings = field(default_factory=Timings)
    invariants: Mapping[str, str] = field(default_factory=dict)
    board: Board | None = None
    partitions: tuple[Partition, ...] = ()

    @property
    def violations(self) -> tuple[CaseReport, ...]:
        """All violations, scenario by scenario."""
        return tuple(case for scenario in self.scenarios for case in scenario.violations)

    @property
    def totals(self) -> dict[str, int]:
        """States, transitions, sessions and violations of all scenarios."""
        return {
            "scenarios": len(self.scenarios),
            "closed": sum(scenario.closed for scenario in self.scenarios),
            "states": sum(scenario.states for scenario in self.scenarios),
            "transitions": sum(scenario.transitions for scenario in self.scenarios),
            "sessions": sum(len(scenario.cases) for scenario in self.scenarios),
            "violations": len(self.violations),
        }

    @property
    def verdict(self) -> str:
        """The whole campaign in one sentence."""
        totals = self.totals
        if totals["violations"]:
            plural = "s" if totals["violations"] > 1 else ""
            return f"{totals['violations']} violation{plural}, first {self.violations[0].id}"
        searched = [scenario for scenario in self.scenarios if not scenario.links]
        if searched and all(scenario.closed for scenario in searched):
            return "no number of power cuts in any order bricks this terminal"
        if not self.scenarios:
            return "nothing was searched"
        if any(scenario.cut_short == INTERRUPTED for scenario in self.scenarios):
            return "no violation found before the search was interrupted"
        further = "; full searches to the end" if self.preset == "quick" else ""
        return f"no violation found within the preset {self.preset}{further}"

    @property
    def exit_code(self) -> int:
        """0: the terminal always recovered; 1: it did not."""
        return 1 if self.violations else 0

    def as_dict(self, *, timings: bool = True) -> dict[str, Any]:
        """Plain data, as in ``report.json``; violations first."""
        scenarios = []
        for scenario in self.scenarios:
            data = asdict(scenario)
            ordered = (*scenario.violations, *(case for case in scenario.cases if not case.kind))
            data["cases"] = [asdict(case) for case in ordered]
            data["routes"] = scenario.routes
            scenarios.append(data)
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "preset": self.preset,
            "seed": self.seed,
            "firmware": self.firmware,
            "versions": self.versions,
            "totals": self.totals,
            "violations": [asdict(case) for case in self.violations],
            "scenarios": scenarios,
            "coverage": [asdict(file) for file in self.coverage],
            **({"timings": asdict(self.timings)} if timings else {}),
        }

    def to_json(self, *, timings: bool = True) -> str:
        """``report.json``; without ``timings`` the same campaign gives the same text."""
        return json.dumps(self.as_dict(timings=timings), indent=1) + "\n"


def report_scenario(result: SearchResult, told: tuple[ToldCase, ...] = ()) -> ScenarioReport:
    """The report of a search, with the violations that were played again for it."""
    links = len({case.id.link for case in result.cases} - {None})
    golden = result.cases[0].outcome if result.cases and not links else None
    return ScenarioReport(
        name=f"{result.target.name}~" if links else result.target.name,
        links=links,
        about=result.target.about + (f", over {links} bad links" if links else ""),
        statement=result.statement,
        states=result.states,
        met=result.met,
        different=result.different,
        vouched=result.vouched,
        confirmed=result.confirmed,
        missed=tuple(map(str, result.missed)),
        differed=tuple(map(str, result.differed)),
        shapes=result.shapes,
        by_reading=result.by_reading,
        transitions=result.transitions,
        closed=result.closed,
        cut_short=result.cut_short,
        cases=tuple(_case(case, result.target) for case in result.cases),
        golden=tuple(
            GoldenOp(op.kind, op.offset, op.length, op.start, op.end)
            for op in (golden.ops if golden else ())
        ),
        cuts=tuple(_cuts(result)) if golden else (),
        told=told,
        source=result.target.source,
        read=_count_read(golden.relevant or 0, result.target) if golden else (),
    )


def _count_read(units: int, target: Target) -> tuple[tuple[int, int], ...]:
    """For each block that has some of these units: its number, and how many bytes they are."""
    geometry = target.board.nor.geometry
    counted = Counter(
        geometry.find_block(UNIT * number)[0]
        for number, bit in enumerate(reversed(f"{units:b}"))
        if bit == "1"
    )
    return tuple((number, UNIT * count) for number, count in sorted(counted.items()))


def _case(case: Case, target: Target) -> CaseReport:
    outcome = case.outcome
    kind, text = outcome.violation or ("", "")
    geometry = target.board.nor.geometry
    erases = {geometry.find_block(offset)[0]: times for offset, times in case.erases.items()}
    return CaseReport(
        id=str(case.id),
        depth=case.depth,
        route=outcome.route,
        kind=kind,
        text=text,
        ops=case.op_count,
        erases=tuple(sorted(erases.items())),
        downtime=outcome.downtime,
        virtual=outcome.virtual,
        successors=case.successors,
        judged=case.judged,
        console=outcome.console if kind else "",
        target=target.file,
        after=str(case.after or ""),
        first_op=case.first_op,
    )


_SEVERITY = {"application": 0, "restored": 1, "violation": 2}


def _came(case: Case) -> str:
    return "violation" if case.outcome.violation else case.outcome.route


def _cuts(result: SearchResult) -> Iterable[Cut]:
    """How each power cut of the golden session ended, states met twice included."""
    first, *others = result.cases
    target = result.target
    if result.by_reading:
        for op, ways in result.first_cuts.items():
            for torn, cases in ways.items():
                ends = ((_came(case), str(case.id)) for case in cases)
                yield Cut(op, torn, *max(ends, key=lambda end: _SEVERITY[end[0]]))
        return
    start = target.start()
    worst: dict[str, tuple[str, str]] = {}
    for case in others:
        if case.depth == 1:
            came = _came(case)
            name = re.sub(r"\+\d$", "", str(case.id))
            if name not in worst or _SEVERITY[came] > _SEVERITY[worst[name][0]]:
                worst[name] = came, str(case.id)
    owner: dict[object, tuple[str, str]] = {target.key(start): ("known", str(first.id))}
    cuts = []
    for case_id, state in find_successors(first.id, start, first.outcome, shapes=result.shapes):
        key = target.key(state)
        if str(case_id) in worst:
            owner[key] = worst[str(case_id)]
        if case_id.cuts[-1].change is None:
            cuts.append((case_id.cuts[-1], key))
    for cut, key in cuts:
        came, case_name = owner.get(key, ("open", ""))
        yield Cut(cut.op, cut.torn, came, case_name)


def list_versions() -> dict[str, str]:
    """Versions of the tools that the campaign was made with."""
    found = {"unbrick": __version__, "unicorn": metadata.version("unicorn")}
    found["python"] = platform.python_version()
    qemu = shutil.which("qemu-system-arm")
    if qemu:
        said = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False)
        match = re.search(r"version (\S+)", said.stdout)
        found["qemu"] = match.group(1) if match else "unknown"
    return found


def sum_timings(results: Iterable[SearchResult], seconds: float, jobs: int, reused: int) -> Timings:
    """The time that a campaign took. Reused sessions count with the time that they once took."""
    costs = [case.outcome.seconds for result in results for case in result.cases]
    return Timings(
        seconds=seconds,
        jobs=jobs,
        sessions=len(costs),
        reused=reused,
        median=statistics.median(costs) if costs else 0.0,
        worst=max(costs, default=0.0),
    )
