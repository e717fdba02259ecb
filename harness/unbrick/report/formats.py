"""JUnit XML and SARIF 2.1.0, for CI servers and for code scanning."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from unbrick import __version__

if TYPE_CHECKING:
    from unbrick.report.model import CampaignReport, CaseReport, ScenarioReport

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_TAIL = 2000  # characters of the console that a violation shows

_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")

VIOLATIONS_SHOWN = 20
"""Violations of a search that a failed test shows."""


def tell_how_to_replay(case: CaseReport) -> str:
    """The command that runs a case again."""
    return tell_replay(case.target, case.id)


def tell_replay(file: str, case: str) -> str:
    """The command that runs a case of a target again; without a file it is the reference's."""
    return shlex.join(("unbrick", "replay", *filter(None, (file,)), case))


def leave_out_numbers(text: str) -> str:
    """What violations that are alike have in common."""
    return _NUMBERS.sub("#", text)


def group_violations(report: CampaignReport) -> list[list[CaseReport]]:
    """Violations that differ in numbers only, together; one bug shows in hundreds of power cuts."""
    found: dict[tuple[str, str, str], list[CaseReport]] = {}
    for scenario in report.scenarios:
        for case in scenario.violations:
            words = leave_out_numbers(case.text)
            found.setdefault((scenario.name, case.kind, words), []).append(case)
    return list(found.values())


def tell_violations_briefly(report: ScenarioReport) -> str:
    """What a search came to, and its first violations with the commands that run them again."""
    shown = report.violations[:VIOLATIONS_SHOWN]
    lines = [
        f"{case.id}: {case.kind}: {case.text}\n    {tell_how_to_replay(case)}" for case in shown
    ]
    return "\n".join([report.statement, *lines])


def render_junit(report: CampaignReport) -> str:
    """A test case for each scenario, and one for each violation. Times are virtual, in seconds."""
    root = Element("testsuites", name="unbrick campaign")
    suite = SubElement(root, "testsuite", name=f"campaign {report.preset}")
    properties = SubElement(suite, "properties")
    facts = {f"firmware {name}": digest for name, digest in report.firmware.items()}
    facts |= {f"version {name}": version for name, version in report.versions.items()}
    facts |= {"preset": report.preset, "seed": str(report.seed)}
    for name, value in facts.items():
        SubElement(properties, "property", name=name, value=value)
    tests = failures = 0
    for scenario in report.scenarios:
        tests += 1
        virtual = sum(case.virtual for case in scenario.cases)
        test = SubElement(
            suite,
            "testcase",
            classname="campaign",
            name=scenario.name,
            time=f"{virtual:.3f}",
        )
        if scenario.violations:
            failures += 1
            SubElement(test, "failure", message=scenario.statement, type="violations")
        SubElement(test, "system-out").text = f"{scenario.about}\n{scenario.statement}\n"
        for case in scenario.violations:
            tests, failures = tests + 1, failures + 1
            test = SubElement(
                suite,
                "testcase",
                classname=f"campaign.{scenario.name}",
                name=case.id,
                time=f"{case.virtual:.3f}",
            )
            failed = SubElement(test, "failure", message=case.text, type=case.kind)
            failed.text = f"{tell_how_to_replay(case)}\n"
            SubElement(test, "system-out").text = _printable(case.console[-_TAIL:])
    suite.set("tests", str(tests))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Text without the characters that XML 1.0 cannot write."""
    return "".join(char if char in "\t\n" or " " <= char < "\ufffe" else "" for char in text)


def render_sarif(report: CampaignReport) -> str:
    """The violations as SARIF results, with a rule for each invariant."""
    kinds = list(report.invariants)
    rules = [
        {"id": kind, "shortDescription": {"text": f"Invariant {text}."}}
        for kind, text in report.invariants.items()
    ]
    for kind in sorted({case.kind for case in report.violations} - set(kinds)):
        kinds.append(kind)
        rules.append({"id": kind, "shortDescription": {"text": kind}})
    results = [
        _sarif_result(case, kinds, scenario.source)
        for scenario in report.scenarios
        for case in scenario.violations
    ]
    driver = {"name": "unbrick", "semanticVersion": __version__, "rules": rules}
    facts = {"firmware": report.firmware, "preset": report.preset, "seed": report.seed}
    run = {"tool": {"driver": driver}, "results": results, "properties": facts}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _sarif_result(case: CaseReport, kinds: list[str], source: tuple[str, int]) -> dict[str, Any]:
    file, line = source
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": case.id, "kind": "member"}],
        "physicalLocation": {  # code scanning of GitHub shows nothing without a file
            "artifactLocation": {"uri": _make_uri(Path(file))},
            "region": {"startLine": line},
        },
    }
    return {
        "ruleId": case.kind,
        "ruleIndex": kinds.index(case.kind),
        "level": "error",
        "message": {"text": f"{case.text}. Replay: {tell_how_to_replay(case)}"},
        "locations": [location],
        "partialFingerprints": {"unbrick/v1": case.id},
    }


def _make_uri(path: Path) -> str:
    """A file as SARIF names it: relative to where the campaign was started, or whole."""
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
