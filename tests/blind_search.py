"""Searches for the bugs of ``blind_bugs/`` as a user would, who does not know which one is there.

``python tests/blind_search.py PRESET BUG [SCENARIO]...`` searches those scenarios that a user
chooses who has changed that part, or those that are named, until one shows a violation. It prints
a line of JSON: the first case, and the CPU time, with what it took to build the firmware.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from email.parser import Parser
from functools import partial
from pathlib import Path

from blind_bugs import server
from bug_search import BUILDS, build_good, build_seeded

from unbrick.campaign.run import PRESETS, Workers, run_campaign, run_links
from unbrick.campaign.search import Bounds, SearchResult
from unbrick.errors import CannotBeginError, ToolBrokenError
from unbrick.firmware.signed import Releases, make_releases
from unbrick.reference.target import find_target

PLACE = Path(__file__).with_name("blind_bugs")
FULL_S = 60
"""Seconds of CPU time in which ``full`` searches one scenario for one bug."""

LINKS = 10
"""How many bad links ``links`` tries."""

SEARCHES = {**PRESETS, "plain": Bounds(depth=0, states=1, deaths=0)}
"""The presets, and the session that each of them begins with: the one without any fault."""


AREAS = {
    "air": "staged twin otherblock otherformat broken bordering steps differential misfit large "
    "afterwards",
    "flash": "staged bordering restore commanded equalblock largedifference largecommanded "
    "spoilt slow",
    "boot": "staged broken fallback restore selfrestore alone commanded downgrade compact",
    "log": "first phonebook crowded staged compact broken liarlogs",
    "phonebook": "first phonebook crowded commanded migrated",
    "userdata": "commanded migrated twice recalled meddled commandeddamaged tampered hasty "
    "forsaken",
    "commanded": "commanded migrated recalled commandedfailing commandeddamaged echoed belated "
    "hasty",
    "restoration": "selfrestore fallback pretender linkdigest foreignlink unstocked either alone "
    "relapse",
    "wire": "restore imposter damaged either broken large",
    "image": "foreign successor damaged misclaimed imposter foreignstaged counterfeit filedigest "
    "foreigndifference",
    "link": "staged selfrestore unstocked commanded hasty echoed slow",
    "difference": "differential dying misfit counterfeit largedifference scarce",
}
"""Which scenarios a user chooses who has changed a part, those for every day first."""

PARTS = {
    "agent/": "flash",
    "app/userdata.c": "userdata",
    "app/staging.c": "difference",
    "app/": "air",
    "board/seal.c": "userdata",
    "board/timer.c": "link",
    "board/verify.c": "image",
    "boot/": "boot",
    "lib/image.c": "image",
    "lib/journal.c": "log",
    "lib/phonebook.c": "phonebook",
    "lib/phonebook_pack.c": "userdata",
    "lib/recordlog.c": "log",
    "lib/ymodem.c": "wire",
    "link/radio.c": "link",
    "link/transfer.c": "air",
    "resident/commanded.c": "commanded",
    "resident/": "restoration",
}
"""The area of each part of the firmware: the first that the file of a patch begins with."""

SERVER_AREAS = {
    "success_by_version": "air",
    "interrupted_not_announced": "air",
    "kind_in_memory": "difference",
    "held_by_target": "difference",
    "more_after_the_last": "air",
    "format_not_checked": "air",
}
"""The area of each bug of the server that is not about commanded updates."""


@dataclass(frozen=True)
class BlindBug:
    """One bug, or a control, which has none.

    Attributes:
        name: of the patch, the function in ``server.py``, or the control.
        about: what is wrong, in one sentence.
        area: key of :data:`AREAS`.
        build: makes the firmware.
        server: a context in which the server has it.
    """

    name: str
    about: str
    area: str
    build: Callable[[], Releases] = build_good
    server: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Finding:
    """What shows a bug: a case, the kind of violation and its words."""

    case: str
    kind: str
    text: str


def _find_area(patch: str) -> str:
    part = patch.partition("+++ b/firmware/")[2].partition("\n")[0]
    return next(area for name, area in PARTS.items() if part.startswith(name))


def _list_firmware_bugs() -> Iterator[BlindBug]:
    for patch in sorted(PLACE.glob("*.patch")):
        text = patch.read_text(encoding="utf-8")
        about = Parser().parsestr(text, headersonly=True)["Subject"]
        yield BlindBug(patch.stem, about, _find_area(text), partial(build_seeded, patch))


def _list_server_bugs() -> Iterator[BlindBug]:
    for name, context in vars(server).items():
        ours = getattr(context, "__module__", "") == server.__name__
        if ours and not name.startswith("_"):
            about = (context.__doc__ or "").partition("\n")[0]
            area = SERVER_AREAS.get(name, "commanded")
            yield BlindBug(name.replace("_", "-"), about, area, server=context)


def _build_control(path: Path) -> Releases:
    out = BUILDS / f"control-{path.stem}"
    return make_releases(out, releases=path, objects=BUILDS / "objects")


def _list_controls() -> Iterator[BlindBug]:
    for path in sorted((PLACE / "controls").glob("*.toml")):
        about = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        yield BlindBug(f"control/{path.stem}", about, "air", partial(_build_control, path))


BLIND_BUGS = {
    bug.name: bug for bug in (*_list_firmware_bugs(), *_list_server_bugs(), *_list_controls())
}


def find_first(result: SearchResult) -> Finding | None:
    """The first violation of a search."""
    for case in result.violations:
        if case.outcome.violation:
            return Finding(str(case.id), *case.outcome.violation)
    return None


def look(releases: Releases, scenario: str, preset: str, until: float) -> Finding | None:
    """Search one scenario until something is found, or ``until``, a CPU time in seconds."""

    def stop(*_: object) -> None:
        if time.process_time() > until:
            raise KeyboardInterrupt

    try:
        target = find_target(scenario, releases)
        if preset == "links":
            return find_first(run_links(target, Workers(), LINKS))
        bounds = replace(SEARCHES[preset], stop_early=True)
        return find_first(run_campaign(target, bounds=bounds, progress=stop))
    except (CannotBeginError, ToolBrokenError) as error:
        return Finding(scenario, "cannot-begin", str(error))


def search(bug: BlindBug, preset: str, scenarios: Iterable[str]) -> Finding | None:
    """Search scenarios for a bug, each until ``FULL_S`` are over when there is no bound."""
    releases = bug.build()
    with bug.server():
        for scenario in scenarios:
            until = time.process_time() + (FULL_S if preset == "full" else 1e9)
            found = look(releases, scenario, preset, until)
            if found:
                return found
    return None


def main(preset: str, name: str, scenarios: Sequence[str]) -> None:
    """Search for one bug, and print what came of it."""
    bug = BLIND_BUGS[name]
    chosen = scenarios or AREAS[bug.area].split()
    found = search(bug, preset, chosen)
    line = {"bug": name, "preset": preset, "seconds": round(time.process_time(), 1)}
    line["searched"] = " ".join(chosen) if scenarios else bug.area
    line.update(vars(found) if found else {"case": None})
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
