"""Source lines that run without faults, or only after a power cut.

The target says whose lines count. The reference terminal leaves its application out: during an
update two releases of it run at the same addresses. Of any target, lines at addresses that two
programs have are left out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from unbrick.campaign.run import Workers
from unbrick.engine.base import CodeWatch
from unbrick.engine.symbols import read_source_lines
from unbrick.errors import NotKnownHereError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from unbrick.campaign.target import Fate, Outcome, State, Target
    from unbrick.engine.base import TracedEngine
    from unbrick.engine.symbols import SourceLine

Lines = set[tuple[str, int]]


class LineTable:
    """Source lines by address; only those of files below ``prefix``, libraries left out."""

    def __init__(self, lines: Iterable[SourceLine], prefix: str) -> None:
        self._prefix = prefix
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
                if line.end > address and line.number and line.file.startswith(self._prefix):
                    found.add((line.file[len(self._prefix) :], line.number))
        return found


def keep_certain(programs: Sequence[Sequence[SourceLine]]) -> list[SourceLine]:
    """The lines of several programs, but for those of addresses where two of them have code.

    An old and a new image lie at the same place: nobody knows which of them ran.
    """
    spans = [_merge(lines) for lines in programs]
    return [
        line
        for number, lines in enumerate(programs)
        for line in lines
        if not any(_is_in(line, other) for at, other in enumerate(spans) if at != number)
    ]


def _merge(lines: Iterable[SourceLine]) -> list[tuple[int, int]]:
    """Where a program has code: starts and ends, in order."""
    found: list[tuple[int, int]] = []
    for line in sorted(lines):
        if found and line.start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], line.end)
        else:
            found.append((line.start, line.end))
    return found


def _is_in(line: SourceLine, spans: Sequence[tuple[int, int]]) -> bool:
    at = bisect_left(spans, (line.end, 0)) - 1
    return at >= 0 and spans[at][1] > line.start


class CoverageRun:
    """Runs sessions, as a search wants them, in one engine, and notes what is executed.

    The first session of a target is the golden one, all others begin after a power cut.

    Args:
        engine: of the target's; is closed at the end.
        covered: as the target has it.

    Raises:
        NotKnownHereError: the engine does not note which code runs.
    """

    def __init__(self, engine: TracedEngine, covered: tuple[Sequence[Path], str]) -> None:
        if not isinstance(engine, CodeWatch):
            raise NotKnownHereError(
                f"the engine {engine.name} does not note which code runs",
                hint="leave out --coverage",
            )
        self.engine, self._watch = engine, engine
        elf_files, prefix = covered
        programs = [list(read_source_lines(elf)) for elf in dict.fromkeys(elf_files)]
        self._table = LineTable(keep_certain(programs), prefix)
        self._golden: Lines = set()
        self._all: Lines = set()
        self._target: Target | None = None

    @property
    def workers(self) -> Workers:
        """This process alone."""
        return Workers(bring=lambda target: partial(self.run, target))

    def run(self, target: Target, state: State, fate: Fate) -> Outcome:
        """Run one session; see :meth:`unbrick.campaign.target.Target.run`."""
        golden = target != self._target
        if golden:
            self._all |= self._table.of(self._watch.executed())
            self._target = target
            self._watch.watch_code()
        outcome = target.run(state, fate, self.engine)
        if golden:
            self._golden |= self._table.of(self._watch.executed())
        return outcome

    def __enter__(self) -> CoverageRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._all |= self._table.of(self._watch.executed())
        self.engine.close()

    def lines(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """(file, lines of the golden sessions, lines that only recovery ran); once it is closed."""
        files: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for name, number in sorted(self._all):
            files[name][(name, number) not in self._golden].append(number)
        return [(name, tuple(golden), tuple(after)) for name, (golden, after) in files.items()]
