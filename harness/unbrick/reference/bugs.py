"""Bugs of the firmware and of the server, and the search that finds each of them.

They are the campaign's own test: a search that misses one of them proves nothing about the firmware
that it passes. ``firmware/lib/bug.h`` says how they are built in, ``reference.server_bugs`` what
the server does, ``docs/bugs.md`` what finds them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.image.build import firmware_folder, read_releases
from unbrick.image.release import make_releases
from unbrick.reference import server_bugs
from unbrick.reference.scenario import find_scenario
from unbrick.reference.target import find_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from unbrick.campaign.search import Result
    from unbrick.image.release import Releases
    from unbrick.reference.scenario import Scenario


QUICK = 8  # states of the good firmware that are searched in comparison


@dataclass(frozen=True)
class Bug:
    """One bug.

    Attributes:
        name: of the firmware's as in ``firmware/lib/bug.h``, without ``BUG_``.
        about: what the firmware, or the server, does, in one sentence.
        scenario: the scenario that finds it.
        kinds: of the violation that it must be found by, keys of
            :data:`unbrick.reference.invariants.INVARIANTS`.
        depth: losses of power in a row that the search needs.
        torn: whether operations must be torn to find it.
        exact: whether it hides behind what the canonical form takes for granted of the firmware.
        partition: where to look for it; None: everywhere.
        deaths: whether the server must die to find it.
        server: a context in which the server has the bug; None: the firmware has it.
    """

    name: str
    about: str
    scenario: str
    kinds: tuple[str, ...]
    depth: int = 0
    torn: bool = True
    exact: bool = False
    partition: str | None = None
    deaths: bool = False
    server: Callable[[], AbstractContextManager[None]] | None = None

    @property
    def folder(self) -> str:
        """Name of a folder for the build that has it."""
        return self.name.lower().replace("_", "-")

    @property
    def defines(self) -> dict[str, str]:
        """The build switch: macros for :func:`unbrick.image.release.make_releases`."""
        return {} if self.server else {"BUG_SEEDED": f"BUG_{self.name}"}

    @property
    def bounds(self) -> Bounds:
        """The smallest search that finds it, and ends with it."""
        return Bounds(
            depth=self.depth,
            torn=self.torn,
            exact=self.exact,
            partition=self.partition,
            deaths=None if self.deaths else 0,
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
        ("forged", "rejected", "bricked", "executed-or-programmed-wrongly"),
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
        "first",
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
        ("bricked", "needless"),
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
    Bug("BACKUP_NOT_SEALED", "The backup is not sealed.", "commanded", ("data-read",)),
    Bug(
        "CHANGES_NOT_SEEN",
        "The commanded update begins although the user's data has changed since its backup.",
        "meddled",
        ("data-lost",),
    ),
    Bug(
        "RESTORE_UNSTORED",
        "The terminal confirms that it has the user's data back before it has stored it.",
        "hasty",
        ("data-lost",),
    ),
    Bug(
        "RESTORE_UNAUTHENTICATED",
        "A backup is opened without a look at whether it was changed.",
        "tampered",
        ("data-lost",),
    ),
    Bug(
        "ERASE_REPEATED",
        "A repeated command to erase is carried out again.",
        "hasty",
        ("restless",),
        deaths=True,
    ),
    Bug(
        "RESULT_TOO_EARLY",
        "The result of an erase is sent before the erase has begun.",
        "commanded",
        ("server-lies",),
    ),
    Bug(
        "START_UNSIGNED",
        "A commanded update begins without a look at the signature.",
        "commandedforged",
        ("forged",),
    ),
    Bug(
        "FINISH_UNVERIFIED",
        "What was commanded is put on trial without a look at it.",
        "commandeddamaged",
        ("forged",),
    ),
    Bug(
        "NONCE_NOT_CHECKED",
        "A command from before the terminal's last start is obeyed.",
        "echoed",
        ("restless", "server-lies"),
        depth=1,
        torn=False,
        partition="application",
    ),
    Bug(
        "COMMANDED_FORGOTTEN",
        "Boot starts the application in the midst of a commanded update.",
        "commanded",
        ("rejected",),
    ),
    Bug(
        "GIVES_UP_WITHOUT_WIRE",
        "The resident program does not listen to the wire when the server has gone.",
        "migrated",
        ("bricked",),
        deaths=True,
    ),
)

SERVER_BUGS = (
    Bug(
        "BACKUP_DELETED_WHEN_SENT",
        "The backup is deleted when it was sent, and not when the terminal has confirmed it.",
        "migrated",
        ("data-lost",),
        server=server_bugs.deleted_when_sent,
    ),
    Bug(
        "BACKUP_LEFT",
        "The backup of an update that comes to nothing is left.",
        "commandedforged",
        ("data-left",),
        server=server_bugs.backup_left,
    ),
    Bug(
        "BACKUP_DELETED_WITH_FAILURE",
        "The backup of an update that fails is deleted, whatever was erased.",
        "commandeddamaged",
        ("data-lost",),
        server=server_bugs.failed_and_deleted,
    ),
    Bug(
        "CANCELLED_TOO_LATE",
        "An update can be cancelled when the user's data is erased already.",
        "recalledlate",
        ("data-lost",),
        server=server_bugs.cancelled_too_late,
    ),
    Bug(
        "OLD_BACKUP_KEPT",
        "The old backup is kept when the user's data has changed since.",
        "meddled",
        ("bricked", "rejected", "data-lost"),
        server=server_bugs.old_backup_kept,
    ),
    Bug(
        "DELETED_IN_SILENCE",
        "The audit does not say that a backup was deleted.",
        "commanded",
        ("unaudited",),
        server=server_bugs.deleted_in_silence,
    ),
    Bug(
        "DONE_WHEN_SENT",
        "A step is done when it is sent.",
        "commanded",
        ("server-lies",),
        server=server_bugs.done_when_sent,
    ),
    Bug(
        "SENT_IS_DONE",
        "After its restart the server goes on behind the step that it had sent.",
        "commanded",
        ("server-lies",),
        deaths=True,
        server=server_bugs.sent_is_done_after_a_restart,
    ),
    Bug(
        "OLD_RESULT_BELIEVED",
        "The result of a command from before the terminal's last start counts.",
        "echoed",
        ("server-lies",),
        server=server_bugs.old_result_believed,
    ),
    Bug(
        "SUCCESS_WHEN_TOLD",
        "An update has succeeded when the resident program says that it is finished.",
        "commandedfailing",
        ("server-lies",),
        server=server_bugs.success_when_told,
    ),
)
"""Bugs of the server."""


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
    if seeded and bug.server is None:
        releases = build(bug.defines, scenario, folder / bug.folder)
    else:
        releases = build({}, scenario, folder / f"good-{scenario.name}")
    target = find_target(scenario.name, releases)
    target.start()  # without the server's bug
    bounds = bug.bounds
    if not seeded:
        bounds = replace(bounds, states=QUICK, deaths=QUICK if bug.deaths else 0)
    with bug.server() if seeded and bug.server else nullcontext():
        return run_campaign(target, bounds=bounds)


def table(bugs: Iterable[Bug], who: str, results: Mapping[str, Result]) -> str:
    """A table of ``docs/bugs.md``: every bug, and the case that shows it; ``who`` has the bugs."""
    rows = [f"| bug | what the {who} does | found as | case |", "|---|---|---|---|"]
    for bug in bugs:
        found = results[bug.name].violations
        shown = f"`{found[0].id}`" if found else "none"
        kind = found[0].outcome.violation[0] if found and found[0].outcome.violation else "-"
        rows.append(f"| {bug.name} | {bug.about} | {kind} | {shown} |")
    return "\n".join(rows)


if __name__ == "__main__":
    place = firmware_folder().parent / "build" / "firmware-bugs"
    for some, has_it in ((BUGS, "firmware"), (SERVER_BUGS, "server")):
        found = {bug.name: look_for(bug, place) for bug in some}
        sys.stdout.write(table(some, has_it, found) + "\n\n")
