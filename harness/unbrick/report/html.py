"""A campaign as one HTML page that needs nothing else: no script, no font, no other file."""

from __future__ import annotations

import math
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from unbrick.report.formats import group_violations, tell_how_to_replay
from unbrick.report.pictures import (
    CAME,
    CONTENTS,
    draw_scenario,
    draw_told,
    list_used_blocks,
    make_key,
    make_scrollable,
)
from unbrick.report.tree import draw_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from unbrick.report.model import CampaignReport, CaseReport, SourceFile

SHOWN = 200
"""Rows of violations in the page, and names of those that are like one. The JSON has them all."""

_STYLE = """
:root{color-scheme:light dark;--bg:#fcfcfb;--fg:#14181d;--dim:#5b6570;--line:#d9dde2;--soft:#f1f3f5;
--application:#2a78d6;--restored:#e09a00;--violation:#d03b3b;--known:#aab4bf;--open:#e3e7eb;
--erased:#ffffff;--programmed:#b9c6d4;--now:#46586b;--bad:#b42525}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e8ebee;--dim:#9aa5b1;--line:#333a42;
--soft:#1d2228;--application:#4b93ea;--restored:#e5ab33;--violation:#ea5f5f;--known:#66717d;
--open:#2a3037;--erased:#0d0f12;--programmed:#45525f;--now:#c3d0dd;--bad:#f07a7a}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem 1rem 4rem;max-width:72rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.2rem;margin:2.4rem 0 .4rem}
h3{font-size:1rem;margin:1.4rem 0 .3rem}p{margin:.3rem 0 .6rem}
.dim,figcaption{color:var(--dim);font-size:.875rem}
.verdict{border-left:.35rem solid var(--application);background:var(--soft);padding:.7rem 1rem;
font-size:1.1rem;font-weight:600;margin:1rem 0}.verdict.bad{border-color:var(--violation)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:.6rem;margin:1rem 0}
.tiles div{background:var(--soft);padding:.6rem .8rem;border-radius:.4rem}
.tiles b{display:block;font-size:1.4rem;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto;margin:.4rem 0}
table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600;white-space:nowrap}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code,pre{font:.85em ui-monospace,monospace}pre{white-space:pre-wrap;background:var(--soft);
padding:.6rem;max-height:20rem;overflow:auto}.hash{overflow-wrap:anywhere}
.bad{color:var(--bad)}.key{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.3rem 0}
.key i{display:inline-block;width:.75rem;height:.75rem;margin-right:.35rem;border-radius:2px;
border:1px solid var(--line)}
svg{display:block}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1.5rem}
figure{margin:0}.two svg{width:100%;height:auto}.two pre{font-size:.72rem;max-height:none}
summary{cursor:pointer}.alike{display:flex;flex-wrap:wrap;gap:0 1rem}
.tree,.tree ul{list-style:none;margin:0;padding:0}
.tree ul{margin-left:.35rem;padding-left:1.1rem;border-left:1px solid var(--line)}
.tree li{position:relative;padding:.2rem 0}
.tree ul>li::before{content:"";position:absolute;left:-1.1rem;top:1rem;width:.8rem;
border-top:1px solid var(--line)}
.tree summary{border-radius:.3rem}.tree summary:hover{background:var(--soft)}
.line{display:grid;grid-template-columns:.7rem .75rem 1fr 14rem;gap:.1rem .5rem;line-height:1.35}
summary.line::before{content:"▸";color:var(--dim)}
details[open]>summary.line::before{content:"▾"}div.line::before{content:""}
.line>i{height:.75rem;margin-top:.3rem;border-radius:2px}
.line>.found{border-left:.25rem solid var(--violation);padding-left:.5rem;background:var(--soft)}
.facts{display:flex;flex-wrap:wrap;gap:0 1rem;color:var(--dim);font-size:.875rem}
.led{display:grid;grid-template-columns:1fr 6.5rem;gap:.5rem;align-items:center;text-align:right;
font-size:.875rem;font-variant-numeric:tabular-nums;align-self:start}
.led>span{background:var(--soft)}.led i{display:block;height:.6rem;min-width:2px}
@media(max-width:44rem){.line{grid-template-columns:.7rem .75rem 1fr}.led{grid-column:3}
.tree ul{padding-left:.5rem}.tree ul>li::before{left:-.5rem;width:.4rem}}
"""

_INTRODUCTION = """Power is cut at every flash operation, before it and in its middle, and again in
every recovery."""


_TOLD = """The first of each kind as pictures. On the left is the session in which the power is lost
last, as it goes on when the power stays on; on the right, what comes when it is lost there. Each
column is one flash operation, each row a block of the flash."""


def render_html(report: CampaignReport) -> str:
    """The page."""
    bad = " bad" if report.violations else ""
    verdict = report.verdict[:1].upper() + report.verdict[1:]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>Unbrick campaign: {escape(report.verdict)}</title><style>{_STYLE}</style></head>",
        "<body><main><h1>Unbrick campaign</h1>",
        f"<p class='dim'>Preset {escape(report.preset)}, seed {report.seed}. {_INTRODUCTION}</p>",
        f"<p class='verdict{bad}'>{escape(verdict)}.</p>",
        _tiles(report),
        _violations(report),
        _scenarios(report),
        *(draw_scenario(one, report) + draw_tree(one) for one in report.scenarios),
        _distributions(report),
        _coverage(report.coverage),
        _made_with(report),
        "</main></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _tiles(report: CampaignReport) -> str:
    tiles = "".join(f"<div><b>{count:,}</b>{name}</div>" for name, count in report.totals.items())
    return f"<div class='tiles'>{tiles}</div>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag} class='n'>{cell}</{tag}>" if i in numbers else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return make_scrollable(f"<table><tr>{line('th', header)}</tr>{body}</table>", header[0])


def _violations(report: CampaignReport) -> str:
    if not report.violations:
        return ""
    alike = group_violations(report)
    rows = [_violation(cases, report) for cases in alike[:SHOWN]]
    more = sum(map(len, alike[SHOWN:]))
    note = f"<p class='dim'>{more:,} more are in report.json.</p>" if more else ""
    header = ("case", "faults", "invariant", "what was seen", "to replay it")
    told = [draw_told(told, report) for scenario in report.scenarios for told in scenario.told]
    if told:
        told.insert(0, f"<p class='dim'>{_TOLD}</p>{make_key(CONTENTS)}")
    return f"<h2>Violations</h2>{''.join(told)}{_table(header, rows, (1,))}{note}"


def _violation(cases: Sequence[CaseReport], report: CampaignReport) -> tuple[str, ...]:
    """The cells of a row: a violation, and those that are like it."""
    case, *others = cases
    rule = escape(report.invariants.get(case.kind, ""))
    tail = escape(case.console[-1500:].replace("\r", ""))
    seen = escape(case.text)
    if tail:
        seen += f"<details><summary>console</summary><pre>{tail}</pre></details>"
    if others:
        names = " ".join(f"<code>{escape(other.id)}</code>" for other in others[:SHOWN])
        rest = f" and {len(others) - SHOWN:,} more in report.json" if len(others) > SHOWN else ""
        words = f"and {len(others):,} more like it"
        seen += f"<details><summary>{words}</summary><p class='alike'>{names}{rest}</p></details>"
    return (
        f"<code>{escape(case.id)}</code>",
        str(case.depth),
        f"<b class='bad'>{escape(case.kind)}</b><br><span class='dim'>{rule}</span>",
        seen,
        f"<code>{escape(tell_how_to_replay(case))}</code>",
    )


def _scenarios(report: CampaignReport) -> str:
    rows = [
        (
            f"<a href='#{escape(s.name)}'>{escape(s.name)}</a>",
            escape(s.about),
            f"{s.states:,}" + (f" of {s.met:,}" if s.met > s.states else ""),
            f"{s.transitions:,}",
            f"{len(s.cases):,}",
            str(s.deepest),
            f"{s.routes['application']:,}",
            f"{s.routes['restored']:,}",
            f"<b class='bad'>{len(s.violations):,}</b>" if s.violations else "0",
            "to the end" if s.closed else escape(s.cut_short),
        )
        for s in report.scenarios
    ]
    header = (
        *("scenario", "about", "states", "transitions", "sessions", "deepest"),
        *("application", "restored", "violations", "searched"),
    )
    return f"<h2>Scenarios</h2>{_table(header, rows, range(2, 9))}"


def _distributions(report: CampaignReport) -> str:
    cases = [case for scenario in report.scenarios for case in scenario.cases]
    timed = [case for case in cases if case.downtime is not None]
    if not timed or report.board is None:
        return ""
    downtime = _histogram(timed, lambda case: case.downtime or 0.0, "s", "Sessions by downtime")
    wear = _histogram(cases, lambda case: sum(n for _, n in case.erases), "", "Sessions by erases")
    blocks: Counter[int] = Counter()
    worst: Counter[int] = Counter()
    for case in cases:
        for number, erases in case.erases:
            blocks[number] += erases
            worst[number] = max(worst[number], erases)
    rows = [
        (escape(name), f"{worst[number]:,}", f"{blocks[number] / len(cases):.2f}")
        for number, name in list_used_blocks(report)
        if blocks[number]
    ]
    table = _table(("block", "most erases in a session", "mean"), rows, (1, 2)) if rows else ""
    keys = [(name, CAME[name]) for name in ("application", "restored", "violation")]
    return (
        "<h2>Downtime and wear</h2><p class='dim'>Of every session of every scenario, each as if "
        "it ran to its end; the height is the number of sessions, as a logarithm.</p>"
        f"{make_key(keys)}<div class='two'><figure>{downtime}<figcaption>"
        "Downtime: virtual seconds from power-on to the application's prompt</figcaption></figure>"
        f"<figure>{wear}<figcaption>Wear: erases in one session, all blocks</figcaption></figure>"
        f"</div>{table}"
    )


def _histogram(
    cases: Sequence[CaseReport], value: Callable[[CaseReport], float], unit: str, about: str
) -> str:
    """Bars of cases by value, stacked by their ends. Heights go with log(1 + count)."""
    values = [value(case) for case in cases]
    most = max(values)
    whole = all(v == int(v) for v in values) and most < 24
    bins = int(most) + 1 if whole else 24
    size = 1.0 if whole else (most or 1.0) / bins
    counts: list[Counter[str]] = [Counter() for _ in range(bins)]
    for case, v in zip(cases, values, strict=True):
        counts[min(bins - 1, int(v / size))][case.came] += 1
    width, height, floor = 360, 150, 126
    bar = (width - 8) / bins
    scale = (floor - 18) / math.log1p(max(sum(c.values()) for c in counts))
    out = [f"<svg viewBox='0 0 {width} {height}' role='img'><title>{about}</title>"]
    for i, counted in enumerate(counts):
        total = sum(counted.values())
        if not total:
            continue
        y, full = float(floor), math.log1p(total) * scale
        low, high = i * size, (i + 1) * size
        span = f"{low:.0f}" if whole else f"{low:.2f} to {high:.2f}"
        for name in ("application", "restored", "violation"):
            part = full * counted[name] / total
            if part:
                y -= part
                title = f"{span} {unit}: {counted[name]:,} {CAME[name]}"
                out.append(
                    f"<rect x='{4 + i * bar:.1f}' y='{y:.1f}' width='{max(1, bar - 2):.1f}' "
                    f"height='{part:.1f}' style='fill:var(--{name})'><title>{title}</title></rect>"
                )
        if bins <= 12:
            middle = 4 + (i + 0.5) * bar
            out.append(
                f"<text x='{middle:.1f}' y='{y - 4:.1f}' text-anchor='middle'>{total:,}</text>"
            )
    out.append(f"<path d='M4 {floor}H{width - 4}' style='stroke:var(--line)'/>")
    marks = range(bins) if whole else range(0, bins + 1, 6)
    for i in marks:
        x = 4 + (i + (0.5 if whole else 0)) * bar
        text = f"{i}" if whole else f"{i * size:.1f} {unit}"
        anchor = "middle" if whole or 0 < i < bins else ("start" if i == 0 else "end")
        out.append(f"<text x='{x:.1f}' y='{height - 8}' text-anchor='{anchor}'>{text}</text>")
    return "".join(out) + "</svg>"


def _coverage(files: Sequence[SourceFile]) -> str:
    """Lines that ran only after a power cut. Nothing when that was not measured."""
    if not files:
        return ""
    rows = [
        (
            f"<code>{escape(file.name)}</code>",
            f"{len(file.golden):,}",
            f"{len(file.recovery):,}",
            f"<code>{_ranges(file.recovery)}</code>",
        )
        for file in files
    ]
    header = ("source", "lines without faults", "lines only after a cut", "which")
    return f"<h2>Lines that only recovery runs</h2>{_table(header, rows, (1, 2))}"


def _ranges(numbers: Sequence[int]) -> str:
    """``3-5, 9`` for 3, 4, 5 and 9."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in runs)


def _made_with(report: CampaignReport) -> str:
    firmware = [
        (escape(name), f"<code class='hash'>{digest}</code>")
        for name, digest in report.firmware.items()
    ]
    versions = ", ".join(f"{escape(n)} {escape(v)}" for n, v in report.versions.items())
    times = report.timings
    cost = ""
    if times.sessions:
        cost = (
            f"<h3>Timings</h3><p class='dim'>{times.sessions:,} sessions, {times.reused:,} of them "
            f"were there already, in {times.seconds:.1f} s with {times.jobs} processes; a session "
            f"costs {1000 * times.median:.0f} ms (median), {1000 * times.worst:.0f} ms at most.</p>"
        )
    table = _table(("program", "SHA-256"), firmware, ())
    return f"<h2>Made with</h2><p>{versions}</p>{table}{cost}"
