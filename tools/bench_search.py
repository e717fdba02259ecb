"""The part of ``make bench`` about whole searches, each beside its aim. One core does all.

Each row is measured in a process of its own, for its memory is measured, too.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench_mcu import HERE, build_demo, find_mcuboot
from performance_page import machine, write_section
from unbrick.campaign.run import PRESETS, run_campaign
from unbrick.campaign.search import Bounds
from unbrick.firmware.signed import make_releases
from unbrick.reference.target import find_target
from unbrick.target.target import FileTarget

if TYPE_CHECKING:
    from unbrick.campaign.target import Target

TITLE = "Searches"
FORM = HERE / "f103_form.py"
FORM_TABLE = """\
[canonical]
file = "f103_form.py"
fields = [
    { at = 0x0801_E000, size = 12 },
    { at = 0x0801_E400, size = 12 },
    { at = 0x0800_2000, size = 4 },
    { at = 0x0801_0000, size = 4 },
]
"""
MOST_MB = 500
"""Memory that a campaign's parent should have at most, at 10⁷ cuts."""

CUTS_A_SECOND = "10,000 cuts a second"
"""The aim for the reference terminal."""

REFERENCE = ("staged", "commanded", "migrated")


class Measured(NamedTuple):
    """What a search came to: processor seconds, cuts, sessions, and MB at the peak."""

    seconds: float
    cuts: int
    sessions: int
    violations: int
    closed: bool
    memory: int


def measure(target: Target, bounds: Bounds) -> Measured:
    """Search in this process, where nothing was searched before."""
    target.start()  # the first session is known before
    began = time.process_time()
    found = run_campaign(target, bounds=bounds)
    seconds = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sizes = found.transitions, len(found.cases), len(found.violations)
    return Measured(seconds, *sizes, found.closed, memory)


def measure_alone(target: Target, bounds: Bounds) -> Measured:
    """The same in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(measure, target, bounds).result()


def build_formed_demo(folder: Path) -> FileTarget:
    """Brickproof's demo for the STM32F103 with its form."""
    path = build_demo(folder).path
    shutil.copy(FORM, path.parent)
    formed = path.with_name("f103-form.toml")
    formed.write_text(path.read_text().replace('"f103"', '"f103-form"', 1) + FORM_TABLE)
    return FileTarget.load(formed)


def tell(what: str, aim: str, found: Measured) -> str:
    """A row of the table."""
    ended = "closed" if found.closed else "ended by its bound"
    figures = f"{found.seconds:.1f} s, {ended}: {found.cuts:,} cuts, {found.sessions:,} sessions"
    figures += f", {found.violations} violations" if found.violations else ""
    each = f"{found.cuts / found.seconds:,.0f}"
    return f"| {what} | {aim} | {figures} | {each} | {found.memory} |"


def list_rows(folder: Path) -> list[str]:
    """All rows; those of MCUboot where its corpus is."""
    rows = []
    fixed, formed = find_mcuboot(folder), find_mcuboot(folder, "pr2100-form")
    if fixed and formed:
        rows += [
            tell(
                "MCUboot, a revert, one cut, torn", "10 s", measure_alone(fixed, PRESETS["single"])
            ),
            tell(
                "MCUboot, the same at any depth, `sure`, with its form",
                "60 s",
                measure_alone(formed, Bounds(shapes="sure")),
            ),
            tell(
                "MCUboot, the same in 12 shapes a word, `many-sure`",
                "60 s",
                measure_alone(formed, Bounds(shapes="many-sure")),
            ),
        ]
    demo = build_formed_demo(folder)
    found = measure_alone(demo, Bounds())
    rows.append(tell("brickproof's `f103` at any depth, torn, with its form", "5 s", found))
    found = measure_alone(demo, Bounds(shapes="many"))
    rows.append(tell("the same in 14 shapes a word, `many`", f"{MOST_MB} MB", found))
    releases = make_releases(Path("build/firmware"))
    for name in REFERENCE:
        found = measure_alone(find_target(name, releases), PRESETS["quick"])
        rows.append(tell(f"reference, `{name}`, preset quick", CUTS_A_SECOND, found))
    found = measure_alone(find_target("staged", releases), PRESETS["full"])
    rows.append(tell("reference, `staged`, preset full", CUTS_A_SECOND, found))
    return rows


def main() -> None:
    """Measure, print, and write the section."""
    head = "| search | aim | processor time of one core | cuts a second | MB at the peak |"
    with tempfile.TemporaryDirectory() as folder:
        lines = [head, "| -- | -- | -- | -: | -: |", *list_rows(Path(folder))]
    said = f"MB are of one process that searches and runs all sessions. The aim is {MOST_MB} at 10⁷"
    said += " cuts. A search that is ended by its bound shows a speed, and does not meet an aim of"
    said += " time."
    print("\n".join(lines))
    write_section(TITLE, "\n".join([said, "", *lines, "", machine("unicorn", "brickproof-fw")]))


if __name__ == "__main__":
    main()
