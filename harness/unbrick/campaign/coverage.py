"""Source lines of boot, resident program and agent that run without faults, or only after a cut.

The application is left out: during an update two releases of it run at the same addresses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from unbrick.campaign.session import run_session
from unbrick.engine.inprocess import InProcessEngine
from unbrick.engine.symbols import source_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unbrick.campaign.case import Death
    from unbrick.campaign.scenario import Scenario
    from unbrick.campaign.session import Outcome, State
    from unbrick.engine.symbols import SourceLine
    from unbrick.image.release import Releases

SOURCES = "firmware/"
"""Where our own sources are; libraries are not counted."""

Lines = set[tuple[str, int]]


class LineTable:
    """Source lines by address."""

    def __init__(self, lines: Iterable[SourceLine]) -> None:
        self._lines = sorted(lines)
        self._starts = [line.start for line in self._lines]

    def of(self, blocks: Iterable[tuple[int, int]]) -> Lines:
        """(file, line) of everything in blocks of code, each (address, length in bytes)."""
        found: Lines = set()
        for address, length in blocks:
            at = max(0, bisect_right(self._starts, address) - 1)
            for line in self._lines[at:]:
                if line.start >= address + length:
                    break
                if line.end > address and line.number and line.file.startswith(SOURCES):
                    found.add((line.file[len(SOURCES) :], line.number))
        return found


class CoverageRun:
    """Runs sessions, as a search wants them, in one engine, and notes what is executed.

    The first session of a scenario is the golden one, all others begin after a loss of power.
    """

    def __init__(self, releases: Releases) -> None:
        self._releases = releases
        self.engine = InProcessEngine(releases.elf_files)
        programs = releases.common_elf_files
        self._table = LineTable(line for elf in programs for line in source_lines(elf))
        self._golden: Lines = set()
        self._all: Lines = set()
        self._scenario: Scenario | None = None

    def __call__(
        self,
        scenario: Scenario,
        state: State,
        resolution: int = 0,
        link: tuple[int, int] | None = None,
        death: Death | None = None,
    ) -> Outcome:
        """Run one session; see :func:`unbrick.campaign.session.run_session`."""
        golden = scenario != self._scenario
        if golden:
            self._all |= self._table.of(self.engine.executed())
            self._scenario = scenario
            self.engine.watch_code()
        outcome = run_session(self.engine, self._releases, scenario, state, resolution, link, death)
        if golden:
            self._golden |= self._table.of(self.engine.executed())
        return outcome

    def __enter__(self) -> CoverageRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._all |= self._table.of(self.engine.executed())
        self.engine.close()

    def lines(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """(file, lines of the golden sessions, lines that only recovery ran); once it is closed."""
        files: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for name, number in sorted(self._all):
            files[name][(name, number) not in self._golden].append(number)
        return [(name, tuple(golden), tuple(after)) for name, (golden, after) in files.items()]
