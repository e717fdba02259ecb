"""Bugs that can be built into the firmware, and the search that finds each of them.

They are the campaign's own test: a search that misses one of them proves nothing about the firmware
that it passes. ``firmware/lib/bug.h`` says how they are built in, ``docs/bugs.md`` what finds them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.campaign.run import Here
from unbrick.campaign.scenario import find_scenario
from unbrick.campaign.search import Bounds, search
from unbrick.campaign.session import images_of, initial_state, run_session
from unbrick.engine.inprocess import InProcessEngine
from unbrick.image.build import firmware_folder, read_releases
from unbrick.image.release import make_releases

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unbrick.campaign.scenario import Scenario
    from unbrick.campaign.search import Result
    from unbrick.image.release import Releases


QUICK = 8  # states of the good firmware that are searched in comparison


@dataclass(frozen=True)
class Bug:
    """One bug.

    Attributes:
        name: as in ``firmware/lib/bug.h``, without ``BUG_``.
        about: what the firmware does, in one sentence.
        scenario: the scenario that finds it.
        kinds: of the violation that it must be found by, keys of
            :data:`unbrick.campaign.verdict.INVARIANTS`.
        depth: losses of power in a row that the search needs.
        torn: whether operations must be torn to find it.
        exact: whether it hides behind what the canonical form takes for granted of the firmware.
        partition: where to look for it; None: everywhere.
    """

    name: str
    about: str
    scenario: str
    kinds: tuple[str, ...]
    depth: int = 0
    torn: bool = True
    exact: bool = False
    partition: str | None = None

    @property
    def folder(self) -> str:
        """Name of a folder for the build that has it."""
        return self.name.lower().replace("_", "-")

    @property
    def defines(self) -> dict[str, str]:
        """The build switch: macros for :func:`unbrick.image.release.make_releases`."""
        return {"BUG_SEEDED": f"BUG_{self.name}"}

    @property
    def bounds(self) -> Bounds:
        """The smallest search that finds it, and ends with it."""
        return Bounds(
            depth=self.depth,
            torn=self.torn,
            exact=self.exact,
            partition=self.partition,
            stop_early=True,
        )


BUGS = (
    Bug(
        "JOURNAL_NOT_WRITTEN",
        "The rewrite begins without a record in the journal.",
        "broken",
        ("untried",),
    ),
    Bug(
        "COUNTER_TOO_EARLY",
        "The security counter is raised before the new software is there.",
        "staged",
        ("needless",),
        depth=1,
        partition="journal",
    ),
    Bug(
        "COUNTER_NOT_RAISED",
        "The confirmation does not raise the security counter.",
        "downgrade",
        ("forged",),
        depth=1,
        partition="application",
    ),
    Bug(
        "HEADER_FIRST",
        "The image is programmed with its header first, and boot trusts a header that is there.",
        "staged",
        ("forged", "bricked", "executed-or-programmed-wrongly"),
        depth=1,
        partition="application",
    ),
    Bug(
        "HASH_NOT_CHECKED",
        "The hash that an image claims is taken for its own.",
        "damaged",
        ("forged",),
    ),
    Bug("SIGNATURE_NOT_CHECKED", "Any signature will do.", "imposter", ("forged",)),
    Bug(
        "TORN_BLOCK_KEPT",
        "A block whose last bytes are right already is not rewritten.",
        "restore",
        ("bricked",),
        depth=1,
        torn=False,
        exact=True,
        partition="application",
    ),
    Bug(
        "ONE_BLOCK_TOO_MANY",
        "The rewrite erases the block behind the application's partition.",
        "staged",
        ("data-lost",),
    ),
    Bug(
        "TARGET_REGISTERED",
        "The terminal registers with the digest of the update's target, not with its own.",
        "staged",
        ("server-lies",),
        depth=1,
        partition="journal",
    ),
    Bug(
        "STAGED_OVER_LIVE",
        "The staging area is the memory of a task that goes on working.",
        "staged",
        ("rejected",),
    ),
    Bug("TRIAL_NOT_COUNTED", "Boot does not count trial starts.", "broken", ("bricked",)),
    Bug("TRIAL_COUNT_WRAPS", "The count of trial starts wraps.", "broken", ("bricked",)),
    Bug(
        "FAILURE_FORGOTTEN",
        "Boot starts software that has failed its trial because it is signed.",
        "broken",
        ("untried",),
    ),
    Bug(
        "CONFIRMED_UNCHECKED",
        "The application confirms the update before it has checked itself.",
        "broken",
        ("untried",),
    ),
    Bug(
        "HEALTHY_START_WRITES",
        "Boot affirms the journal at every start.",
        "idle",
        ("restless",),
    ),
    Bug(
        "UNLOCK_FORGOTTEN",
        "Blocks are not unlocked before they are erased or programmed.",
        "restore",
        ("executed-or-programmed-wrongly", "bricked"),
    ),
    Bug(
        "READY_NOT_AWAITED",
        "The next command is given while the chips are busy.",
        "restore",
        ("executed-or-programmed-wrongly",),
    ),
    Bug(
        "ERASE_FROM_NOR",
        "A block is erased by code that lies in the NOR itself.",
        "restore",
        ("executed-or-programmed-wrongly",),
    ),
    Bug(
        "LOG_ENDS_AT_TORN",
        "A slot without a valid record is taken for the end of the log.",
        "phonebook",
        ("data-lost",),
    ),
    Bug(
        "RECORD_NOT_CHECKED",
        "A record counts whatever its CRC says.",
        "restore",
        ("bricked",),
        depth=1,
    ),
    Bug(
        "COMPACTION_HEADER_FIRST",
        "A compaction writes the header before the records.",
        "crowded",
        ("data-lost",),
        depth=1,
    ),
    Bug(
        "COMPACTION_NO_ERASE",
        "A compaction does not erase what an earlier one has left.",
        "crowded",
        ("data-lost",),
        depth=1,
    ),
    Bug(
        "LIVE_HALF_ERASED",
        "A compaction erases the half that counts.",
        "crowded",
        ("data-lost",),
    ),
    Bug(
        "BASE_NOT_CHECKED",
        "A differential file is decoded without a look at the software that it was made for.",
        "misfit",
        ("forged",),
    ),
    Bug(
        "REBUILT_NOT_VERIFIED",
        "What was rebuilt is trusted for the sake of the file that it was rebuilt from.",
        "counterfeit",
        ("forged",),
    ),
    Bug(
        "STAGED_SHORT",
        "The area is secured for the differential file alone, and the decoder writes past it.",
        "differential",
        ("bricked", "silent", "data-lost", "executed-or-programmed-wrongly", "rejected"),
    ),
    Bug(
        "SELF_RESTORATION_GIVES_UP",
        "After a file that cannot be used boot does not ask for another.",
        "pretender",
        ("bricked",),
    ),
    Bug(
        "SELF_RESTORATION_UNCHECKED",
        "What comes over the link is installed without a look at signature, hardware and age.",
        "pretender",
        ("forged", "bricked"),
    ),
    Bug(
        "WIRE_FORGOTTEN",
        "Boot does not listen to the wire once it has registered over the link.",
        "unstocked",
        ("bricked",),
    ),
    Bug(
        "DONE_TOO_EARLY",
        "The journal says that the terminal is restored before its NOR is rewritten.",
        "fallback",
        ("untried",),
        depth=1,
        torn=False,
    ),
)


def needed_releases(scenario: Scenario) -> list[str]:
    """The versions of the software that a scenario needs."""
    imposter = (scenario.imposter or "").split(" ")[-1]
    named = (scenario.installed, scenario.interrupted_by, imposter, scenario.rescue)
    versions = {*scenario.before, *scenario.updates, *scenario.published, *named}
    known = read_releases(firmware_folder() / "releases.toml")
    return [release.version for release in known if release.version in versions]


def build(defines: Mapping[str, str], scenario: Scenario, out: Path) -> Releases:
    """Compile the firmware as far as a scenario needs it.

    Args:
        defines: the build switch; empty for the good build.
        scenario: what it is for.
        out: folder for the build; nothing is compiled when it is there already.

    Raises:
        BuildError: it does not compile.
    """
    wanted = needed_releases(scenario)
    lines = []
    for release in read_releases(firmware_folder() / "releases.toml"):
        if release.version in wanted:
            entry = asdict(release)
            macros = ", ".join(
                f"{key} = {json.dumps(v)}" for key, v in entry.pop("defines").items()
            )
            lines += ["[[release]]", *(f"{key} = {json.dumps(v)}" for key, v in entry.items())]
            lines.append(f"defines = {{ {macros} }}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "releases.toml"
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return make_releases(out, defines=defines, releases=listed)


def look_for(bug: Bug, folder: Path, *, seeded: bool = True) -> Result:
    """Search the firmware with a bug, in this process.

    Args:
        bug: what to look for.
        folder: holds one build for every bug.
        seeded: whether the bug is built in; else the same search is made of the good firmware, and
            ends after a few states.

    Raises:
        ToolBrokenError: the scenario cannot even begin.
    """
    scenario = find_scenario(bug.scenario)
    if seeded:
        releases = build(bug.defines, scenario, folder / bug.folder)
    else:
        releases = build({}, scenario, folder / f"good-{scenario.name}")
    engine = InProcessEngine(releases.elf_files)
    start = initial_state(engine, releases, scenario)
    run = partial(run_session, engine, releases)
    bounds = bug.bounds if seeded else replace(bug.bounds, states=QUICK)
    images = images_of(releases)
    return search(scenario, start, run, Here(), bounds, workers=1, images=images)


def table(results: Mapping[str, Result]) -> str:
    """The table of ``docs/bugs.md``: every bug, and the case that shows it."""
    rows = ["| bug | what the firmware does | found as | case |", "|---|---|---|---|"]
    for bug in BUGS:
        found = results[bug.name].violations
        shown = f"`{found[0].id}`" if found else "none"
        kind = found[0].outcome.violation[0] if found and found[0].outcome.violation else "-"
        rows.append(f"| {bug.name} | {bug.about} | {kind} | {shown} |")
    return "\n".join(rows)


if __name__ == "__main__":
    place = firmware_folder().parent / "build" / "firmware-bugs"
    sys.stdout.write(table({bug.name: look_for(bug, place) for bug in BUGS}) + "\n")
