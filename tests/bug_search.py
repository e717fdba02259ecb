"""Seeded bugs of the firmware and of the server, and the search that finds each of them.

They are the campaign's own test: a search that misses one of them proves nothing about the firmware
that it passes. A bug of the firmware is a patch in ``seeded_bugs/``, applied to a copy of the
sources; a bug of the server is a context of ``server_bugs``. The shipping code knows of neither.

``python tests/bug_search.py`` searches them all and prints the tables of ``docs/bugs.md``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from email.parser import Parser
from functools import cache, lru_cache
from pathlib import Path

import server_bugs

from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds, SearchResult
from unbrick.errors import BuildError, MissingToolError
from unbrick.firmware.signed import Releases, make_releases
from unbrick.folders import firmware_folder
from unbrick.reference.target import find_target

PATCHES = Path(__file__).with_name("seeded_bugs")
BUILDS = firmware_folder().parent / "build" / "firmware-bugs"
QUICK_STATES = 8
"""How many states of the good firmware are searched in comparison."""
QUICK_DEATHS = 3
"""At how many changes of its mind the server dies there, in three ways each."""


@dataclass(frozen=True)
class Bug:
    """One bug.

    Attributes:
        name: of the firmware's, that of its patch.
        about: what the firmware, or the server, does, in one sentence.
        breaks: how it may be found, keys of :data:`unbrick.reference.invariants.INVARIANTS`.
        scenario: the scenario that finds it.
        depth: power cuts in a row that the search needs.
        torn: whether operations must be torn to find it.
        exact: whether it hides behind what the canonical form takes for granted of the firmware.
        partition: where to look for it; None: everywhere.
        deaths: whether the server must die to find it.
        patch: what puts it into the firmware; None: the server has it.
        server: a context in which the server has it; None: the firmware has it.
    """

    name: str
    about: str
    breaks: tuple[str, ...]
    scenario: str
    depth: int = 0
    torn: bool = True
    exact: bool = False
    partition: str | None = None
    deaths: bool = False
    patch: Path | None = None
    server: Callable[[], AbstractContextManager[None]] | None = None

    @property
    def bounds(self) -> Bounds:
        """The smallest search that finds it, and ends with it."""
        return Bounds(
            depth=self.depth,
            shapes="usual" if self.torn else "none",
            exact=self.exact,
            partition=self.partition,
            deaths=None if self.deaths else 0,
            stop_early=True,
        )


def read_bug(patch: Path) -> Bug:
    """The bug that a patch puts into the firmware, as the patch's header describes it."""
    header = Parser().parsestr(patch.read_text(encoding="utf-8"), headersonly=True)
    return Bug(
        name=patch.stem,
        about=header["Subject"],
        breaks=tuple(header["Breaks"].split(", ")),
        scenario=header["Scenario"],
        depth=int(header.get("Depth", "0")),
        torn=header.get("Torn") != "no",
        exact=header.get("Exact") == "yes",
        partition=header.get("Partition"),
        deaths=header.get("Deaths") == "yes",
        patch=patch,
    )


BUGS = tuple(read_bug(patch) for patch in sorted(PATCHES.glob("*.patch")))
"""Bugs of the firmware."""

SERVER_BUGS = (
    Bug(
        "backup-deleted-when-sent",
        "The backup is deleted when it was sent, and not when the terminal has confirmed it.",
        ("data-lost",),
        "migrated",
        server=server_bugs.deleted_when_sent,
    ),
    Bug(
        "backup-left",
        "The backup of an update that comes to nothing is left.",
        ("data-left",),
        "commandedforged",
        server=server_bugs.backup_left,
    ),
    Bug(
        "backup-deleted-with-failure",
        "The backup of an update that fails is deleted, whatever was erased.",
        ("data-lost",),
        "commandeddamaged",
        server=server_bugs.failed_and_deleted,
    ),
    Bug(
        "cancelled-too-late",
        "An update can be cancelled when the user's data is erased already.",
        ("data-lost",),
        "recalledlate",
        server=server_bugs.cancelled_too_late,
    ),
    Bug(
        "old-backup-kept",
        "The old backup is kept when the user's data has changed since.",
        ("bricked", "rejected", "data-lost"),
        "meddled",
        server=server_bugs.old_backup_kept,
    ),
    Bug(
        "deleted-in-silence",
        "The audit does not say that a backup was deleted.",
        ("unaudited",),
        "commanded",
        server=server_bugs.deleted_in_silence,
    ),
    Bug(
        "done-when-sent",
        "A step is done when it is sent.",
        ("server-lies",),
        "commanded",
        server=server_bugs.done_when_sent,
    ),
    Bug(
        "sent-is-done",
        "After its restart the server goes on behind the step that it had sent.",
        ("server-lies",),
        "commanded",
        deaths=True,
        server=server_bugs.sent_is_done_after_a_restart,
    ),
    Bug(
        "old-result-believed",
        "The result of a command from before the terminal's last start counts.",
        ("server-lies",),
        "echoed",
        server=server_bugs.old_result_believed,
    ),
    Bug(
        "success-when-told",
        "An update has succeeded when the resident program says that it is finished.",
        ("server-lies",),
        "commandedfailing",
        server=server_bugs.success_when_told,
    ),
    Bug(
        "success-by-version",
        "An update has succeeded when the terminal runs software of the same version.",
        ("server-lies",),
        "twin",
        depth=1,
        torn=False,
        server=server_bugs.success_by_version,
    ),
    Bug(
        "backup-deleted-on-an-error",
        "The backup is deleted when the terminal says that it cannot take it back.",
        ("data-lost",),
        "tampered",
        server=server_bugs.deleted_on_an_error,
    ),
)
"""Bugs of the server."""


def apply_patch(patch: Path, place: Path) -> Path:
    """Copy the firmware's sources into the folder ``place`` and patch the copy.

    Returns:
        The folder with the sources.

    Raises:
        BuildError: the patch does not fit the sources.
        MissingToolError: there is no git.
    """
    copy = place / "firmware"
    shutil.copytree(firmware_folder(), copy, ignore=shutil.ignore_patterns("tests"))
    # Without the ceiling git would find the repository that `place` may lie in.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(place.resolve().parent)}
    try:
        done = subprocess.run(
            ["git", "apply", str(patch)],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise MissingToolError("git is missing", hint="apt install git") from None
    if done.returncode:
        raise BuildError(
            f"the seeded bug {patch.stem} does not fit the firmware: {done.stderr.strip()}",
            hint=f"put it into the sources as they are now, and the diff into {patch.name}",
        )
    return copy


@cache
def build_good() -> Releases:
    """The firmware without a seeded bug."""
    return make_releases(BUILDS / "good", objects=BUILDS / "objects")


@lru_cache(maxsize=1)
def build_seeded(patch: Path) -> Releases:
    """The firmware with the bug of a patch. Compiles what the patch has changed, and links.

    Raises:
        BuildError: the patch does not fit, or what it makes does not compile.
        MissingToolError: there is no git.
    """
    build_good()  # Then only what the patch has changed is left to compile, in every process.
    with tempfile.TemporaryDirectory() as place:
        source = apply_patch(patch, Path(place))
        out = BUILDS / f"{patch.parent.name}-{patch.stem}"
        return make_releases(out, source=source, objects=BUILDS / "objects")


def look_for(bug: Bug, *, seeded: bool = True) -> SearchResult:
    """Search the system with a bug, in this process.

    Args:
        bug: what to look for.
        seeded: whether the bug is there; else the same search is made without any bug, and ends
            after a few states.

    Raises:
        BuildError, MissingToolError: as :func:`build_seeded`.
        ToolBrokenError: the scenario cannot even begin.
    """
    releases = build_seeded(bug.patch) if seeded and bug.patch else build_good()
    target = find_target(bug.scenario, releases)
    target.start()  # without the server's bug
    bounds = bug.bounds
    if not seeded:
        deaths = QUICK_DEATHS if bug.deaths else 0
        bounds = replace(bounds, states=QUICK_STATES, deaths=deaths)
    with bug.server() if seeded and bug.server else nullcontext():
        return run_campaign(target, bounds=bounds)


def table(bugs: Iterable[Bug], who: str, results: Mapping[str, SearchResult]) -> str:
    """A table of ``docs/bugs.md``: every bug, and the case that shows it; ``who`` has the bugs."""
    lines = [f"| bug | what the {who} does | found as | case |", "| -- | -- | -- | -- |"]
    return "\n".join([*lines, *(row(bug, results[bug.name]) for bug in bugs)])


def row(bug: Bug, result: SearchResult) -> str:
    """The row of a table with what the search for a bug has found."""
    found = result.violations
    kind = found[0].outcome.violation[0] if found and found[0].outcome.violation else "-"
    shown = f"`{found[0].id}`" if found else "none"
    return f"| {bug.name} | {bug.about} | {kind} | {shown} |"


if __name__ == "__main__":
    for some, has_it in ((BUGS, "firmware"), (SERVER_BUGS, "server")):
        results = {bug.name: look_for(bug) for bug in some}
        sys.stdout.write(table(some, has_it, results) + "\n\n")
