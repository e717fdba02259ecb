"""Pictures of a campaign's page: the flash over the operations of a session, and the cuts in it."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from unbrick.flash.torn import ERASES, NUMBERED, PROGRAMS, strip_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unbrick.flash.geometry import FlashGeometry
    from unbrick.report.model import (
        CampaignReport,
        Cut,
        GoldenOp,
        ScenarioReport,
        ToldCase,
        ToldSession,
    )

CAME = {
    "application": "the application runs",
    "restored": "restored over the wire",
    "violation": "violation",
    "known": "as if nothing had begun",
    "open": "not run",
}

CONTENTS = [("erased", "erased"), ("programmed", "programmed"), ("now", "this operation")]
"""Colours of a block, and of an operation on it."""

_SHOWN_LAST = ("open", "known", "application", "restored", "violation")
"""Where several cuts share a place in a picture, the last of these is seen."""


def make_key(items: Sequence[tuple[str, str]]) -> str:
    """What colours mean, each a name of the page's style and words."""
    shown = "".join(
        f"<span><i style='background:var(--{colour})'></i>{text}</span>" for colour, text in items
    )
    return f"<div class='key dim'>{shown}</div>"


def make_scrollable(inner: str, name: str) -> str:
    """What may be broader than the page, for whoever scrolls it by mouse, finger or keys."""
    return f"<div class='wide' tabindex='0' role='region' aria-label='{escape(name)}'>{inner}</div>"


_WIDTH = 1110
"""Of the page. The operations of a session share it, as long as they are to be seen."""

_LEFT, _ROW, _TOP = 96, 17, 4
_READ = 72
"""How much room there is for what was read of a block, right of it."""

MAX_SHOWN_BLOCKS = 64
"""Blocks of the flash that are all shown; of more, only those that are written."""


def list_used_blocks(report: CampaignReport) -> list[tuple[int, str]]:
    """Number and name of each block that a partition has; of many, those that are written."""
    if report.board is None:
        return []
    geometry = report.board.nor.geometry
    named = []
    for part in report.partitions:
        first, last = (geometry.find_block(at)[0] for at in (part.offset, part.end - 1))
        named += [
            (number, part.name if first == last else f"{part.name} {number - first}")
            for number in range(first, last + 1)
        ]
    if len(named) <= MAX_SHOWN_BLOCKS:
        return named
    touched = {
        geometry.find_block(op.offset)[0] for scenario in report.scenarios for op in scenario.golden
    }
    touched |= {
        number
        for scenario in report.scenarios
        for case in scenario.cases
        for number, _ in case.erases
    }
    touched |= {
        geometry.find_block(op.offset)[0]
        for scenario in report.scenarios
        for told in scenario.told
        for op in told.bad.ops
    }
    return [(number, name) for number, name in named if number in touched]


def draw_scenario(scenario: ScenarioReport, report: CampaignReport) -> str:
    """The NOR over the operations of the session without faults, and the cuts in it."""
    head = f"<h2 id='{escape(scenario.name)}'>{escape(scenario.name)}</h2>"
    head += f"<p>{escape(scenario.about[:1].upper() + scenario.about[1:])}.</p>"
    head += f"<p class='dim'>{escape(scenario.statement)}.</p>"
    if not scenario.golden or report.board is None:
        return head
    count = len(scenario.golden)
    right = _READ if scenario.read else 8
    step = min(12.0, max(2.0, (_WIDTH - _LEFT - right) / (count + 1)))
    names = ["before it", *dict.fromkeys(n for n, _ in (*PROGRAMS, *ERASES)), *NUMBERED]
    seen = {strip_number(cut.torn) for cut in scenario.cuts}
    lanes = [name for name in names if name == "before it" or name in seen]
    lane_row = 12
    blocks = list_used_blocks(report)
    top = _TOP + 14 + lane_row * len(lanes) + 26
    width, height = math.ceil(_LEFT + step * (count + 1) + right), top + _ROW * len(blocks) + 22
    out = [
        f"<svg width='{width}' height='{height}' viewBox='0 0 {width} {height}' role='img'>",
        f"<title>NOR over the operations of {escape(scenario.name)}</title>",
        f"<text x='0' y='{_TOP + 9}'>power lost …</text>",
    ]
    for row, name in enumerate(lanes):
        label = "before it" if name == "before it" else f"in it: {name}"
        y = _TOP + 14 + lane_row * row
        out.append(f"<text x='{_LEFT - 6}' y='{y + 10}' text-anchor='end'>{label}</text>")
    # Numbered shapes share a lane: the worst of them is seen.
    for cut in sorted(scenario.cuts, key=lambda cut: _SHOWN_LAST.index(cut.came)):
        row = lanes.index(strip_number(cut.torn) or "before it")
        y = _TOP + 14 + lane_row * row
        out.append(
            _cut_mark(cut, _LEFT + step * cut.op, y + 1, max(step - 2, 0.8 * step), lane_row - 2)
        )
    out += _history(scenario.golden, report.board.nor.geometry, blocks, top, step)
    out += _read(scenario, report.board.nor.geometry, blocks, top, _LEFT + step * (count + 1))
    label_y = top + _ROW * len(blocks) + 15
    every = next(each for each in (10, 50, 100, 1000) if each * step > 40)
    for number in range(0, count + 1, every):
        out.append(f"<text x='{_LEFT + step * number:g}' y='{label_y}'>{number}</text>")
    out.append("</svg>")
    keys = [
        (name, text) for name, text in CAME.items() if any(c.came == name for c in scenario.cuts)
    ]
    keys += CONTENTS
    caption = (
        "The session without faults: each column is one flash operation, each row below a block of "
        "the NOR. Above, what came of losing power there; a state met twice shows what came of it "
        "the first time. Hover for details."
    )
    if scenario.read:
        caption += " On the right, how much of a block had a say before it was erased."
    picture = make_scrollable("".join(out), f"operations of {scenario.name}")
    return f"{head}{make_key(keys)}{picture}<figcaption>{caption}</figcaption>"


def _cut_mark(cut: Cut, x: float, y: float, width: float, height: float) -> str:
    where = f"in operation {cut.op}, {cut.torn}" if cut.torn else f"before operation {cut.op}"
    title = f"power lost {where}: {CAME[cut.came]} ({cut.case or 'no case'})"
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='1' "
        f"style='fill:var(--{cut.came})'><title>{escape(title)}</title></rect>"
    )


def _history(
    ops: Sequence[GoldenOp],
    geometry: FlashGeometry,
    blocks: list[tuple[int, str]],
    top: int,
    step: float,
) -> list[str]:
    """For each block its name, and its contents after each operation that changes it."""
    out = []
    count = len(ops)
    places = [geometry.find_block(op.offset)[0] for op in ops]
    for row, (number, name) in enumerate(blocks):
        y = top + _ROW * row
        out.append(f"<text x='{_LEFT - 6}' y='{y + 12}' text-anchor='end'>{name}</text>")
        out.append(
            f"<rect x='{_LEFT}' y='{y}' width='{step * (count + 1)}' height='{_ROW - 3}' "
            "style='fill:var(--soft)'/>"
        )
        mine = [(i, ops[i]) for i, place in enumerate(places) if place == number]
        for at, (index, op) in enumerate(mine):
            until = mine[at + 1][0] if at + 1 < len(mine) else count + 1
            x, span = _LEFT + step * index, step * (until - index)
            inset, broad = min(1.0, 0.15 * step), max(step - 2, 0.7 * step)
            erase = op.kind == "erase"
            colour = "erased" if erase else "programmed"
            what = "erases" if erase else f"programs {op.length} bytes at {op.offset:#x} in"
            title = f"operation {index} {what} {name}, {op.start:.3f} to {op.end:.3f} s"
            now = "fill:var(--erased);stroke:var(--now)" if erase else "fill:var(--now)"
            out.append(
                f"<rect x='{x:g}' y='{y}' width='{span:g}' height='{_ROW - 3}' "
                f"style='fill:var(--{colour})'/><rect x='{x + inset:g}' y='{y + 1}' "
                f"width='{broad:g}' height='{_ROW - 5}' rx='1' style='{now}'>"
                f"<title>{escape(title)}</title></rect>"
            )
    return out


def _read(
    scenario: ScenarioReport,
    geometry: FlashGeometry,
    blocks: list[tuple[int, str]],
    top: int,
    x: float,
) -> list[str]:
    """For each block, how much of it the session without faults has read."""
    read = dict(scenario.read)
    out = []
    for row, (number, name) in enumerate(blocks):
        if number not in read:
            continue
        size = geometry.block_sizes[number]
        share = 100 * read[number] / size
        percent = f"{share:.0f}" if share >= 1 else "< 1"
        title = f"{read[number]:,} of {size:,} bytes of {name} had a say"
        out.append(
            f"<text x='{x + 6:.1f}' y='{top + _ROW * row + 12}'>{percent} % read"
            f"<title>{escape(title)}</title></text>"
        )
    return out


_TOLD_WIDTH = 540
"""Of a session's picture, where two are side by side."""


def draw_told(told: ToldCase, report: CampaignReport) -> str:
    """A violation beside the run that ends well, up to where they part and beyond."""
    if report.board is None:
        return ""
    geometry, blocks = report.board.nor.geometry, list_used_blocks(report)
    parts = [_draw_session(told.bad, geometry, blocks, "It ends badly")]
    if told.well:
        title = "It ends well when the power stays on"
        parts.insert(0, _draw_session(told.well, geometry, blocks, title))
    return (
        f"<h3><code>{escape(told.case)}</code></h3>"
        f"<div class='two'>{''.join(f'<figure>{part}</figure>' for part in parts)}</div>"
    )


def _draw_session(
    session: ToldSession, geometry: FlashGeometry, named: list[tuple[int, str]], title: str
) -> str:
    """The flash over the operations of a session, where the power was lost, and what was said."""
    touched = {geometry.find_block(op.offset)[0] for op in session.ops}
    blocks = [block for block in named if block[0] in touched]
    count, top = len(session.ops), 22
    step = min(12.0, (_TOLD_WIDTH - _LEFT - 16) / (count + 1))
    bottom = top + _ROW * len(blocks)
    out = [
        f"<svg viewBox='0 0 {_TOLD_WIDTH} {bottom + 18}' role='img'>",
        f"<title>NOR over the operations of {escape(session.case)}</title>",
        *_history(session.ops, geometry, blocks, top, step),
    ]
    end = _LEFT + step * (count + 1)
    if session.cut is not None:
        x = _LEFT + step * (session.cut + (0.5 if session.torn else 0))
        where = f"in operation {session.cut}" if session.torn else f"before operation {session.cut}"
        out.append(
            f"<rect x='{x:.1f}' y='{top - 4}' width='{max(0, end - x):.1f}' "
            f"height='{bottom - top + 4}' style='fill:var(--bg);opacity:.55'/>"
            f"<path d='M{x:.1f} {top - 6}V{bottom + 4}' "
            "style='stroke:var(--violation);stroke-width:2'/>"
            f"<text x='{min(x, _TOLD_WIDTH - 190):.1f}' y='12' style='fill:var(--bad)'>"
            f"power lost {where}{f': {session.torn}' if session.torn else ''}</text>"
        )
    if session.kind:
        out.append(
            f"<text x='{min(end, _TOLD_WIDTH - 8):.1f}' y='12' text-anchor='end' "
            f"style='fill:var(--bad)'>{escape(session.kind)}</text>"
        )
    shown = f"operations 0 to {count - 1}" if count else "no flash operation"
    out.append(f"<text x='{_LEFT}' y='{bottom + 14}'>{shown}</text></svg>")
    said = "\n".join(f"{time:10.3f}  {text}" for time, text in session.said)
    return (
        f"{''.join(out)}<figcaption>{title}: <code>{escape(session.case)}</code></figcaption>"
        f"<pre>{escape(said)}</pre>"
    )
