"""Reports of a campaign: all say the same, read as their formats ask, and need nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from unbrick.layout import reference_layout
from unbrick.reference.invariants import INVARIANTS
from unbrick.reference.scenario import SCENARIOS, find_row
from unbrick.report.formats import render_junit, render_sarif
from unbrick.report.html import render_html
from unbrick.report.model import (
    CampaignReport,
    CaseReport,
    Cut,
    GoldenOp,
    ScenarioReport,
    SourceFile,
    Timings,
    ToldCase,
    ToldSession,
)
from unbrick.report.summary import render_summary
from unbrick.report.tree import MOST_LEVELS, draw_tree

LAYOUT = reference_layout()
GOOD = CaseReport(
    id="staged",
    depth=0,
    route="application",
    kind="",
    text="",
    ops=2,
    erases=((4, 1),),
    downtime=0.08,
    virtual=7.0,
    successors=9,
)
RESTORED = replace(GOOD, id="staged/1-half", depth=1, route="restored", downtime=6.5)
BAD = replace(
    GOOD,
    id="staged/1-weak+1/3",
    depth=2,
    kind="data-lost",
    text="<script>alert('Bob & \"Eve\"')</script>",
    downtime=None,
    console="boot: \x00\x1b[1m<b>",
)
WORSE = replace(BAD, id="staged/7", depth=1, kind="bricked", text="it does not come back")


def scenario(*cases: CaseReport, closed: bool = True) -> ScenarioReport:
    return ScenarioReport(
        name="staged",
        about="1.0.0 is updated",
        statement="what was found",
        states=5,
        met=5,
        transitions=40,
        closed=closed,
        cut_short="" if closed else "it was to end",
        cases=cases,
        golden=(
            GoldenOp("erase", 0x100000, 0x40000, 1.0, 1.8),
            GoldenOp("buffer", 0x100800, 2048, 1.9, 2.0),
        ),
        cuts=(
            Cut(0, "", "known", "staged"),
            Cut(1, "half", "restored", "staged/1-half"),
            Cut(1, "weak", "violation", "staged/1-weak"),
            Cut(2, "", "open", ""),
        ),
    )


def campaign(*scenarios: ScenarioReport) -> CampaignReport:
    return CampaignReport(
        preset="quick",
        seed=0,
        firmware={"boot": "ab" * 32, "application 1.0.0": "cd" * 32},
        versions={"unbrick": "1"},
        scenarios=scenarios,
        timings=Timings(seconds=2.5, jobs=2, sessions=3, reused=1, median=0.1, worst=0.2),
        invariants=INVARIANTS,
        board=LAYOUT.board,
        partitions=LAYOUT.partitions,
    )


TOLD = ToldCase(
    BAD.id,
    ToldSession("staged/1", (GoldenOp("erase", 0x100000, 0x40000, 1.0, 1.8),), 0, "weak", "", ()),
    ToldSession(
        BAD.id,
        tuple(GoldenOp("word", 0x100000 + 4 * i, 4, 2.0 + i, 2.5 + i) for i in range(300)),
        None,
        "",
        "data-lost",
        ((0.0, "on"), (1.5, "boot: <b>")),
    ),
)
INTERRUPTED = replace(scenario(GOOD, closed=False), cut_short="it was interrupted")
HEALTHY = campaign(scenario(GOOD, RESTORED))
BROKEN = campaign(scenario(GOOD, RESTORED, BAD, WORSE))


AFTER = [replace(case, after=GOOD.id, judged=2, first_op=1) for case in (RESTORED, BAD, WORSE)]
BOTH = campaign(replace(scenario(GOOD, *AFTER), told=(TOLD,), read=((4, 0x10000),)))


def text_of(report: CampaignReport, width: int = 120) -> str:
    console = Console(width=width, record=True, file=None, quiet=False)
    with console.capture() as said:
        console.print(render_summary(report))
    return said.get()


@pytest.mark.parametrize(
    ("report", "code", "words"),
    [
        (HEALTHY, 0, "no number of power cuts"),
        (BROKEN, 1, "2 violations, first staged/7"),
        (campaign(scenario(GOOD, closed=False)), 0, "within the preset quick; full"),
        (campaign(INTERRUPTED), 0, "no violation found before the search was interrupted"),
        (campaign(), 0, "nothing was searched"),
        (campaign(scenario(GOOD), scenario(BAD)), 1, "1 violation, first"),
        (campaign(scenario(GOOD), replace(scenario(GOOD, closed=False), links=3)), 0, "bricks"),
    ],
)
def test_the_verdict(report: CampaignReport, code: int, words: str) -> None:
    assert report.exit_code == code
    assert words in report.verdict


def test_violations_that_differ_in_numbers_only_are_told_once() -> None:
    cases = [replace(BAD, id=f"staged/{n}", text=f"byte {n:#x} is wrong") for n in range(9, 50)]
    told = text_of(campaign(scenario(GOOD, *cases, WORSE)))
    assert "staged/9: data-lost: byte 0x9 is wrong\n" in told
    assert "    and 40 more like it\n" in told
    assert "staged/10" not in told
    assert f"{WORSE.id}: {WORSE.kind}: {WORSE.text}" in told
    assert "42 violations, first staged/7" in told


def test_a_closed_search_says_what_it_rests_on_and_whether_that_was_tested() -> None:
    closed = "Closed as far as the canonical form is right, which"
    tested = replace(scenario(GOOD), different=9, vouched=9)
    assert f"{closed} exhaustive tests\n" in text_of(HEALTHY)
    assert f"{closed} this has tested: nothing else was met\n" in text_of(campaign(tested))
    for found in ({"missed": ("staged/1",)}, {"differed": ("staged/1",)}):
        text = text_of(campaign(replace(tested, **found), replace(tested, name="other")))
        assert f"{closed} this has tested\n" in text
        assert "staged: what counts as known is not all known" in text


def test_the_summary_fits_a_window_of_80_columns_and_cuts_no_name() -> None:
    names = [f"{name}~" for name in SCENARIOS]
    found = replace(scenario(GOOD, closed=False), states=1_234_567, transitions=12_345_678)
    text = text_of(campaign(*(replace(found, name=name) for name in names), INTERRUPTED), 80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    assert [line.split()[0] for line in lines[2 : 2 + len(names)]] == names
    assert "Searched in part: it was interrupted (staged)" in text


def test_all_reports_name_the_same_violations_fewest_faults_first() -> None:
    ids = [WORSE.id, BAD.id]
    assert [case.id for case in BROKEN.violations] == ids
    assert [case["id"] for case in json.loads(BROKEN.to_json())["violations"]] == ids
    results = json.loads(render_sarif(BROKEN))["runs"][0]["results"]
    assert [result["partialFingerprints"]["unbrick/v1"] for result in results] == ids
    cases = ET.fromstring(render_junit(BROKEN)).iter("testcase")  # noqa: S314 - our own
    assert [case.get("name") for case in cases] == ["staged", *ids]
    for text in (render_html(BROKEN), text_of(BROKEN)):
        assert text.index(f"unbrick replay {ids[0]}") < text.index(f"unbrick replay {ids[1]}")


def test_violations_come_first_in_the_json() -> None:
    cases = json.loads(BROKEN.to_json())["scenarios"][0]["cases"]
    assert [bool(case["kind"]) for case in cases] == [True, True, False, False]


def test_only_timings_depend_on_the_clock() -> None:
    later = replace(BROKEN, timings=Timings(seconds=99.0, jobs=1))
    assert BROKEN.to_json(timings=False) == later.to_json(timings=False)
    assert BROKEN.to_json() != later.to_json()
    assert render_junit(BROKEN) == render_junit(later)
    assert render_sarif(BROKEN) == render_sarif(later)


def test_junit_counts_and_names_the_firmware() -> None:
    root = ET.fromstring(render_junit(BROKEN))  # noqa: S314 - our own
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "3")
    assert len(list(root.iter("failure"))) == 3
    properties = {item.get("name"): item.get("value") for item in root.iter("property")}
    assert properties["firmware boot"] == "ab" * 32
    healthy = ET.fromstring(render_junit(HEALTHY))[0]  # noqa: S314 - our own
    assert (healthy.get("tests"), healthy.get("failures")) == ("1", "0")


def test_sarif_has_the_row_of_each_scenario() -> None:
    lines = (Path(__file__).parents[1] / find_row("staged")[0]).read_text("utf-8").splitlines()
    rows = {name: find_row(name)[1] for name in SCENARIOS}
    assert len(set(rows.values())) == len(SCENARIOS)
    assert all(f'"{name}",' in lines[row - 1] for name, row in rows.items())
    report = campaign(replace(scenario(BAD), source=find_row("phonebook")))
    (result,) = json.loads(render_sarif(report))["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "harness/unbrick/reference/scenario.py"},
        "region": {"startLine": rows["phonebook"]},
    }


def test_sarif_has_a_rule_for_each_invariant() -> None:
    report = campaign(scenario(BAD, replace(BAD, kind="something-new")))
    document = json.loads(render_sarif(report))
    assert document["version"] == "2.1.0"
    run = document["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == [*INVARIANTS, "something-new"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]


class _Page(HTMLParser):
    """Notes tags that are open, and everything that a browser would fetch or run."""

    VOID = frozenset({"meta", "br", "rect", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        target = dict(attrs).get("href") or "#"
        if tag in {"script", "link", "img", "iframe"} or "src" in names or target[0] != "#":
            self.wrong.append(tag)
        self.wrong += [name for name in names if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")


@pytest.mark.parametrize("report", [HEALTHY, BROKEN, BOTH, campaign()])
def test_the_page_is_whole_and_runs_and_fetches_nothing(report: CampaignReport) -> None:
    page = _Page()
    page.feed(render_html(report))
    page.close()
    assert page.wrong == []
    assert page.open == []
    assert not re.search(r"https?://|@import|url\(", render_html(report))


def test_the_picture_shows_operations_and_cuts() -> None:
    page = render_html(BROKEN)
    assert "operation 0 erases application 0, 1.000 to 1.800 s" in page
    assert "power lost in operation 1, half: restored over the wire (staged/1-half)" in page
    assert "power lost before operation 0: as if nothing had begun" in page
    for came in ("restored", "violation", "known", "open"):
        assert page.count(f"style='fill:var(--{came})'><title>power lost") == 1, came


def test_a_violation_is_seen_beside_the_run_that_ends_well() -> None:
    page = render_html(BOTH)
    well, bad = page.index("It ends well when the power stays on"), page.index("It ends badly")
    assert page.index("power lost in operation 0: weak") < well < bad
    assert "1.500  boot: &lt;b&gt;" in page[bad:]
    assert "operation 299 programs 4 bytes at 0x1004ac" in page
    assert "It ends badly" not in render_html(BROKEN)
    widths = re.findall(r"<rect [^>]*width='([^']+)'", page)
    assert min(map(float, widths)) > 0


def test_a_violation_without_a_flash_operation_says_so() -> None:
    silent = replace(TOLD, bad=replace(TOLD.bad, ops=()))
    page = render_html(campaign(replace(scenario(GOOD, BAD), told=(silent,))))
    assert ">no flash operation<" in page
    assert ">operations 0 to -1<" not in page


def test_what_was_read_of_a_block_is_beside_it() -> None:
    assert ">25 % read<title>65,536 of 262,144 bytes of application 0 had a say<" in render_html(
        BOTH
    )
    assert "% read" not in render_html(BROKEN)


def branch_of(after: CaseReport, number: int, **changes: Any) -> CaseReport:
    name = f"{after.id}/{number}"
    return replace(
        after, **{"id": name, "after": after.id, "first_op": number, "judged": 1, **changes}
    )


def grown(*cases: CaseReport) -> str:
    return draw_tree(replace(scenario(*cases), by_reading=True))


def test_behaviours_that_do_the_same_share_a_line_with_all_their_power_cuts() -> None:
    alike = [branch_of(GOOD, number, judged=1000) for number in (7, 5)]
    tree = grown(GOOD, *alike, branch_of(GOOD, 6, ops=9), branch_of(alike[0], 8, ops=9))
    assert tree.count("class='line'") == 4
    assert "power lost from operation 5 on" in tree
    assert "<span>2 behaviours</span>" in tree
    assert "2,000 cuts" in tree
    # What comes of a power cut in it is below it, and not beside it.
    text = re.sub("<[^>]+>", " ", tree)
    assert text.index("operation 5 on") < text.index("operation 8 on") < text.index("operation 6")


def test_violations_come_first_and_are_open() -> None:
    harmless = [branch_of(GOOD, number, ops=number, judged=99) for number in range(3, 60)]
    there = branch_of(GOOD, 1, route="restored")
    bad = branch_of(there, 2, kind="bricked", text="<b>", judged=3)
    tree = grown(GOOD, *harmless, there, bad)
    assert tree.index("<b class='bad'>bricked</b>: &lt;b&gt;") < tree.index(harmless[0].id)
    assert tree.count("1 violation below") == 2
    assert tree.count("<details open>") == 2
    assert "46 more lines: 46 behaviours" in tree
    assert "<details open>" not in tree[tree.index("more lines") :]


def test_a_long_chain_of_power_cuts_is_cut_off_and_counted() -> None:
    chain = [GOOD]
    for _ in range(2000):
        chain.append(branch_of(chain[-1], 1, judged=1))
    tree = grown(*chain)
    assert tree.count("<ul") <= MOST_LEVELS + 1
    assert f"{2000 - MOST_LEVELS:,} behaviours below" in tree


def test_a_tree_of_two_thousand_behaviours_is_no_larger_than_a_page_may_be() -> None:
    dice = Random(7)
    cases = [GOOD]
    for _ in range(2000):
        cases.append(
            branch_of(dice.choice(cases[:200]), dice.randrange(500), ops=dice.randrange(9))
        )
    page = render_html(campaign(replace(scenario(*cases), by_reading=True)))
    assert "Tree of 2,001 behaviours" in page
    assert len(page) < 1_500_000


def test_there_is_no_tree_where_links_were_tried_or_nothing_was_cut() -> None:
    assert draw_tree(scenario(GOOD)) == ""
    assert draw_tree(replace(scenario(GOOD, branch_of(GOOD, 1)), links=3)) == ""


def test_coverage_is_shown_when_it_was_measured() -> None:
    assert "only recovery runs" not in render_html(HEALTHY)
    measured = replace(HEALTHY, coverage=(SourceFile("boot/main.c", (1, 2), (7, 8, 9, 12)),))
    assert "7-9, 12" in render_html(measured)


def test_the_summary_is_for_people() -> None:
    assert "restored" in text_of(HEALTHY)
    assert "2 sessions in 2.5 s" in text_of(HEALTHY)
    assert "1 were there already" in text_of(HEALTHY)
    assert "<script>" in text_of(BROKEN)  # as it is: no page
    assert "<script>" not in render_html(BROKEN)
