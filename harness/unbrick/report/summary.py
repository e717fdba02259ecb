"""A campaign on the terminal, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from unbrick.report.formats import group_violations, tell_how_to_replay
from unbrick.screen import Column, FittedTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from unbrick.report.model import CampaignReport, ScenarioReport

SHOWN = 20  # kinds of violations on the terminal; the report has all violations


def _tell_differences(report: CampaignReport) -> Iterator[Text]:
    """What the canonical form vouches for, and what came of starting what only counts as known."""
    different = sum(scenario.different for scenario in report.scenarios)
    if any(scenario.closed and not scenario.by_reading for scenario in report.scenarios):
        tested = "this has tested" if different else "exhaustive tests"
        if different and not any(one.missed or one.differed for one in report.scenarios):
            tested += ": nothing else was met"
        line = f"Closed as far as the canonical form is right, which {tested}"
        yield Text(line, style="dim")
    if not different:
        return
    vouched = sum(scenario.vouched for scenario in report.scenarios)
    line = f"{vouched:,} of {different:,} states that differ in any cell were started"
    confirmed = sum(scenario.confirmed for scenario in report.scenarios)
    if confirmed:
        line += f"; {confirmed:,} hold the same where one that was has read"
    yield Text(line, style="dim")
    for scenario in report.scenarios:
        told = f"{scenario.name}: what counts as known is not all known: "
        if scenario.missed:
            line = f"{len(scenario.missed)} states were met only so, as {scenario.missed[0]}"
            yield Text(told + line, style="red")
        if scenario.differed:
            line = f"{len(scenario.differed)} cases end otherwise, as {scenario.differed[0]}"
            yield Text(told + line, style="red")


def render_summary(report: CampaignReport) -> RenderableType:
    """Scenarios, violations and the verdict."""
    parts: list[RenderableType] = [_table(report)]
    for reason, names in _reasons(report).items():
        where = f" ({', '.join(names)})" if len(names) < len(report.scenarios) else ""
        parts.append(Text(f"Searched in part: {reason}{where}"))
    alike = group_violations(report)
    for case, *others in alike[:SHOWN]:
        parts.append(Text(f"{case.id}: {case.kind}: {case.text}", style="red"))
        parts.append(Text(f"    {tell_how_to_replay(case)}", style="dim"))
        if others:
            parts.append(Text(f"    and {len(others):,} more like it", style="dim"))
    if len(alike) > SHOWN:
        parts.append(Text(f"and {len(alike) - SHOWN:,} more kinds in the report"))
    if report.coverage:
        golden = sum(len(file.golden) for file in report.coverage)
        after = sum(len(file.recovery) for file in report.coverage)
        line = f"{golden:,} source lines run without faults, "
        parts.append(Text(f"{line}{after:,} only after a power cut", style="dim"))
    times = report.timings
    if times.sessions and times.seconds:
        ran = times.sessions - times.reused
        rate = ran / times.seconds / max(1, times.jobs)
        line = f"{ran:,} sessions in {times.seconds:.1f} s, {rate:.1f} per second and process"
        line += f"; {times.reused:,} were there already" if times.reused else ""
        parts.append(Text(line, style="dim"))
    for scenario in report.scenarios:
        if scenario.by_reading:
            line = f"{scenario.name}: {scenario.statement}"
            parts.append(Text(line, style="dim"))
    torn = sum(scenario.torn for scenario in report.scenarios)
    if torn:
        line = f"{torn:,} torn operations follow from the sessions without faults, in "
        parts.append(Text(f"{line}{report.scenarios[0].shapes} shapes", style="dim"))
    parts += _tell_differences(report)
    verdict = report.verdict
    style = "bold red" if report.violations else "bold green"
    parts.append(Text(verdict[:1].upper() + verdict[1:] + ".", style=style))
    return Group(*parts)


def _table(report: CampaignReport) -> FittedTable:
    columns = [Column("scenario")]
    columns += [
        Column(name, justify="right", dispensable=name in {"transitions", "restored"})
        for name in ("states", "transitions", "sessions", "deepest", "restored", "violations")
    ]
    columns.append(Column("searched"))
    rows = []
    for scenario in report.scenarios:
        bad = len(scenario.violations)
        rows.append(
            (
                scenario.name,
                f"{scenario.states:,}",
                f"{scenario.transitions:,}",
                f"{len(scenario.cases):,}",
                str(scenario.deepest),
                f"{scenario.routes['restored']:,}",
                Text(f"{bad:,}", style="bold red" if bad else ""),
                Text("to the end", style="green") if scenario.closed else _share(scenario),
            )
        )
    return FittedTable(columns, rows, f"Unbrick campaign, preset {report.preset}")


def _share(scenario: ScenarioReport) -> str:
    """How much of a scenario was searched that was not searched to its end."""
    if scenario.met == scenario.states:
        return "in part"
    return f"{scenario.states:,} of {scenario.met:,}"


def _reasons(report: CampaignReport) -> dict[str, list[str]]:
    """Why searches stopped early: each reason with its scenarios."""
    reasons: dict[str, list[str]] = {}
    for scenario in report.scenarios:
        if not scenario.closed:
            reasons.setdefault(scenario.cut_short, []).append(scenario.name)
    return reasons
