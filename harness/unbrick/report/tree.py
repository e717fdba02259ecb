"""The tree of behaviours: what sessions do, and below it what comes when power is lost in them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from unbrick.report.formats import leave_out_numbers
from unbrick.report.pictures import CAME, make_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from unbrick.report.model import CaseReport, ScenarioReport

MOST_BRANCHES = 12
"""Lines below another line that are all shown; more of them are folded up."""

MOST_LEVELS = 24
"""Lines below lines. Pages with more than some hundreds of nested elements are not shown well."""

OPEN_LINES = 30
"""A tree with so many lines is shown whole; a larger one as far as it leads to violations."""

OPEN_LEVELS = 3
"""Of a larger tree, so many levels are open where a violation lies below."""


@dataclass
class Branch:
    """Behaviours that do the same, after behaviours that do the same.

    Attributes:
        cases: the session of each.
        branches: what comes when power is lost in them; what leads to violations comes first.
        sessions: how many there are, here and below.
        violations: how many of them are violations.
    """

    cases: list[CaseReport]
    branches: list[Branch] = field(default_factory=list)
    sessions: int = 0
    violations: int = 0

    @property
    def cuts(self) -> int:
        """Power cuts that lead to one of them, from wherever."""
        return sum(case.judged for case in self.cases)

    @property
    def lines(self) -> int:
        """Lines that show the branch."""
        return 1 + sum(branch.lines for branch in self.branches)


def build_tree(cases: Sequence[CaseReport]) -> Branch | None:
    """The tree of a search's sessions; None where there is none.

    Args:
        cases: the sessions. Each comes after the one in which the power is lost that leads to it.
    """
    followers: dict[str, list[CaseReport]] = {}
    for case in cases:
        followers.setdefault(case.after, []).append(case)
    sessions, violations = Counter[str](), Counter[str]()
    for case in reversed(cases):
        sessions[case.id] += 1
        violations[case.id] += bool(case.kind)
        sessions[case.after] += sessions[case.id]
        violations[case.after] += violations[case.id]

    def grow(alike: list[CaseReport], level: int) -> Branch:
        branch = Branch(
            alike,
            sessions=sum(sessions[case.id] for case in alike),
            violations=sum(violations[case.id] for case in alike),
        )
        if level < MOST_LEVELS:
            below = (follower for case in alike for follower in followers.get(case.id, ()))
            branch.branches = [grow(group, level + 1) for group in _group(below)]
            branch.branches.sort(key=lambda one: (not one.violations, -one.cuts))
        return branch

    first = followers.get("", [])[:1]
    return grow(first, 0) if first and len(cases) > 1 else None


def _group(cases: Iterable[CaseReport]) -> Iterable[list[CaseReport]]:
    """Cases that do the same together."""
    found: dict[Hashable, list[CaseReport]] = {}
    for case in cases:
        dies = case.first_op is None
        deed = (case.came, case.kind, leave_out_numbers(case.text), case.ops, case.erases, dies)
        found.setdefault(deed, []).append(case)
    return found.values()


_INTRODUCTION = """Each line is what the device does in a session, and the lines below it are what
it does after losing power in that session. {name} that do the same share a line: as many flash
operations, the same erases, the same end. Each is in the tree once, where it was met first. The
bar shows how many power cuts lead to it, from wherever, as a logarithm."""


def draw_tree(scenario: ScenarioReport) -> str:
    """The tree as nested lists that fold; empty where there is none, as with bad links."""
    tree = None if scenario.links else build_tree(scenario.cases)
    if tree is None:
        return ""
    name = "behaviour" if scenario.by_reading else "session"
    count = len(scenario.cases)
    cuts = sum(case.judged for case in scenario.cases)
    drawing = _Drawing(name, math.log1p(cuts) or 1.0, tree.lines <= OPEN_LINES)
    keys = [(came, CAME[came]) for came, seen in scenario.routes.items() if seen]
    introduction = _INTRODUCTION.format(name=f"{name}s".capitalize())
    return (
        f"<h3>Tree of {count:,} {name}s</h3><p class='dim'>{introduction}</p>{make_key(keys)}"
        f"<ul class='tree'>{drawing.draw(tree)}</ul>"
    )


@dataclass(frozen=True)
class _Drawing:
    """What all lines of a tree have in common.

    Attributes:
        name: of what there is one for each session.
        most: the logarithm of all power cuts.
        whole: whether all lines are shown at first.
    """

    name: str
    most: float
    whole: bool

    def draw(self, branch: Branch, level: int = 0) -> str:
        """A line, and those below it."""
        line = self._draw_line(branch, level)
        below = [self.draw(one, level + 1) for one in branch.branches]
        if not below:
            return f"<li><div class='line'>{line}</div></li>"
        shown, rest = below[:MOST_BRANCHES], below[MOST_BRANCHES:]
        if len(rest) > 1:
            hidden = branch.branches[MOST_BRANCHES:]
            words = f"{len(rest)} more lines: {self._count(sum(one.sessions for one in hidden))}"
            bad = sum(one.violations for one in hidden)
            words += f", <b class='bad'>{bad:,} violations</b>" if bad else ""
            folded = f"<summary class='dim'>{words}</summary><ul>{''.join(rest)}</ul>"
            rest = [f"<li><details>{folded}</details></li>"]
        is_open = self.whole or level == 0 or (branch.violations and level < OPEN_LEVELS)
        return (
            f"<li><details{' open' if is_open else ''}><summary class='line'>{line}</summary>"
            f"<ul>{''.join((*shown, *rest))}</ul></details></li>"
        )

    def _draw_line(self, branch: Branch, level: int) -> str:
        first = branch.cases[0]
        end = f"<b class='bad'>{escape(first.kind)}</b>: {escape(first.text)}"
        if not first.kind:
            end = f"<b>{CAME[first.came]}</b>"
        facts = [self._tell_why(branch) if level else "the power stays on"]
        erases = sum(times for _, times in first.erases)
        did = f"{_plural(first.ops, 'flash operation')}, {_plural(erases, 'erase')}"
        facts += [f"then {did}" if level else did, self._count(len(branch.cases))]
        below = branch.violations - sum(bool(case.kind) for case in branch.cases)
        if below:
            facts.append(f"<b class='bad'>{_plural(below, 'violation')} below</b>")
        more = branch.sessions - len(branch.cases)
        if more and not branch.branches:
            facts.append(f"{self._count(more)} below")
        facts.append(f"<code>{escape(first.id)}</code>")
        told = " ".join(f"<span>{fact}</span>" for fact in facts)
        bad = " class='found'" if first.kind else ""
        return (
            f"<i style='background:var(--{first.came})'></i>"
            f"<span{bad}>{end}<span class='facts'>{told}</span></span>"
            f"{self._draw_bar(branch) if level else ''}"
        )

    def _tell_why(self, branch: Branch) -> str:
        ops = [case.first_op for case in branch.cases if case.first_op is not None]
        return f"power lost from operation {min(ops):,} on" if ops else "the server dies"

    def _draw_bar(self, branch: Branch) -> str:
        width = 100 * math.log1p(branch.cuts) / self.most
        colour = f"var(--{branch.cases[0].came})"
        return (
            f"<span class='led'><span><i style='width:{width:.0f}%;background:{colour}'></i></span>"
            f"{_plural(branch.cuts, 'cut')}</span>"
        )

    def _count(self, sessions: int) -> str:
        return _plural(sessions, self.name)


def _plural(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}"
