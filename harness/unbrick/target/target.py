"""A target from a file, as the campaign takes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbrick.board.svd import check_svd
from unbrick.campaign.case import CaseId
from unbrick.campaign.target import UNDISTURBED, Fate, State
from unbrick.engine import OWN_ENGINE
from unbrick.engine.base import ChipEngine
from unbrick.errors import NotKnownHereError, SetupError, UpdateNeverWorksError
from unbrick.flash.cells import Cells
from unbrick.target.load import load_target
from unbrick.target.rests import MOST_RAM, KnownRests
from unbrick.target.session import HINTS, INVARIANTS, run_session

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from unbrick.board import Board
    from unbrick.campaign.target import Form, Outcome, ReplayedSession, TimelineEvent
    from unbrick.engine.base import TracedEngine
    from unbrick.flash.partition import Partition
    from unbrick.target.description import Description


@dataclass(frozen=True)
class FileTarget:
    """A target from a file; see :class:`unbrick.campaign.target.Target`.

    It is pickled as the file's name. So other processes read the file themselves.

    Attributes:
        path: of the file.
        digest: SHA-256 of the file and of all that it names.
        tried: whether :meth:`start` sees first that the update works when nothing disturbs it.
        svd: file with names of registers; None: the one that the target's file names, if any.
    """

    path: Path
    digest: str
    tried: bool = True
    svd: Path | None = None

    @classmethod
    def load(cls, path: Path, *, tried: bool = True, svd: Path | None = None) -> FileTarget:
        """The target that a file describes.

        Raises:
            SetupError: the file, or one that it or ``svd`` names, is missing or wrong.
            ModuleNotFoundError: there are names of registers, and no extra to read them.
        """
        description = load_target(path)
        if svd is not None:
            check_svd(svd)
        _LOADED[path, description.digest] = description
        return cls(path, description.digest, tried, svd)

    @property
    def description(self) -> Description:
        """What the file says.

        Raises:
            SetupError: it says something else by now.
        """
        key = self.path, self.digest
        if key not in _LOADED:
            loaded = load_target(self.path)
            if loaded.digest != self.digest:
                raise SetupError(
                    f"{self.path}, or a file that it names, has changed meanwhile",
                    hint="start again",
                )
            _LOADED[key] = loaded
        return _LOADED[key]

    @property
    def name(self) -> str:
        """As the file says, or is called."""
        return self.description.name

    @property
    def about(self) -> str:
        """One sentence for people."""
        return self.description.about

    @property
    def file(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def source(self) -> tuple[str, int]:
        """The path, and its first line."""
        return self.file, 1

    @property
    def mortal(self) -> bool:
        """No peer dies."""
        return False

    @property
    def notes_reads(self) -> bool:
        """The engine for microcontrollers does."""
        return True

    @property
    def board(self) -> Board:
        """The chip, as a board of its own."""
        return self.description.chip.board

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Those of the file, or the chip's flashes."""
        return self.description.partitions

    @property
    def invariants(self) -> Mapping[str, str]:
        """What must hold."""
        return INVARIANTS

    @property
    def programs(self) -> Mapping[str, str]:
        """SHA-256 of each program."""
        found = self.description
        programs = [*found.programs, *found.images.values()]
        programs += [found.update.payload] if found.update.payload else []
        return {program.name: program.digest for program in programs}

    @property
    def identity(self) -> str:
        """All of it."""
        return self.digest

    @property
    def covered(self) -> tuple[Sequence[Path], str]:
        """All that has symbols."""
        return self.description.elf_files, ""

    def find_case(self, name: str = "") -> CaseId:
        """One of its cases, by its ID; without one the session that no power cut disturbs.

        Raises:
            SetupError: it is no case ID, or one of another target.
        """
        case = CaseId.parse(name or self.name)
        if case.scenario != self.name:
            raise SetupError(
                f"{self.path} has no case {case}",
                hint=f"its cases begin with its name: {self.name}/12",
            )
        return case

    def portable(self) -> Callable[[], FileTarget]:
        """What the file says, with all that it names."""
        return partial(_take_in, self, self.description)

    def start(self) -> State:
        """The flash as it is delivered, with what is staged.

        Raises:
            UpdateNeverWorksError: without any fault the update does not work.
        """
        found = self.description
        state = State(Cells.of(found.start_image, found.chip.geometry))
        if self.tried:
            _check_works(self, state)
        return state

    def create_engine(
        self, *, debugged: bool = False, engine: str = OWN_ENGINE, platform: Path | None = None
    ) -> ChipEngine:
        """An engine for the chip, with the symbols of all programs.

        Args:
            debugged: a debugger is to be let in.
            engine: one of :data:`unbrick.engine.CHIP_ENGINES`; campaigns search with the first.
            platform: a ``.repl`` of the user's for Renode.

        Raises:
            NotKnownHereError: that engine does not know the chip, or this debugger.
            SetupError: what it needs is missing.
        """
        found = self.description
        if engine != OWN_ENGINE:
            from unbrick.engine.second import create_second_engine  # noqa: PLC0415

            if debugged:
                raise NotKnownHereError(
                    f"the engine {engine} has no debugger for chips", hint="leave out --gdb"
                )
            return create_second_engine(
                engine, found.chip, found.elf_files, console=found.console, platform=platform
            )
        # Here, since it takes long, and who only checks a file needs no engine.
        from unbrick.engine.mcu.debugged import DebuggedChip  # noqa: PLC0415
        from unbrick.engine.mcu.engine import McuEngine  # noqa: PLC0415

        svd = self.svd or found.svd
        if debugged:
            return DebuggedChip(
                *(found.chip, found.elf_files),
                console=found.console,
                svd=svd,
                allows=found.never.allows,
            )
        return McuEngine(found.chip, found.elf_files, console=found.console, svd=svd)

    def run(
        self, state: State, fate: Fate = UNDISTURBED, engine: TracedEngine | None = None
    ) -> Outcome:
        """Run one session; see :func:`unbrick.target.session.run_session`."""
        if engine is None:
            own, rests = _own_engine(self)
            return run_session(own, self.description, state, fate, rests)
        if not isinstance(engine, ChipEngine):
            raise NotKnownHereError(
                f"the engine {engine.name} runs no microcontroller", hint="use the target's own"
            )
        return run_session(engine, self.description, state, fate)

    def key(self, state: State) -> Hashable:
        """Every difference in a cell makes another state: nothing is known of the firmware."""
        return state.cells, state.peers

    def peers_key(self, state: State) -> Hashable:
        """Whether the update was begun, and what its driver remembers."""
        return str(state.peers)

    @property
    def form(self) -> Form | None:
        """That of the file."""
        return self.description.form

    def name_stage(self, state: State) -> str:
        """Whether the update was begun, and what its driver remembers."""
        return str(state.peers or "")

    def pack_peers(self, peers: Sequence[Any]) -> Any:
        """They are texts, or None."""
        return list(peers)

    def unpack_peers(self, packed: Any) -> list[Any]:
        """What was packed.

        Raises:
            ValueError: it is something else.
        """
        if not all(peer is None or isinstance(peer, str) for peer in packed):
            raise ValueError("not what the peers of a target from a file remember")
        return list(packed)

    def tell(self, session: ReplayedSession) -> Iterable[TimelineEvent]:
        """Nothing besides what the console and the flash show."""
        del session
        return ()


_LOADED: dict[tuple[Path, str], Description] = {}


def _take_in(target: FileTarget, description: Description) -> FileTarget:
    """The target, of which all is known already."""
    _LOADED[target.path, target.digest] = description
    return target


@cache
def _own_engine(target: FileTarget) -> tuple[ChipEngine, KnownRests | None]:
    """This process's own, and its sessions that others may join."""
    from unbrick.engine.mcu.engine import McuEngine  # noqa: PLC0415 - as create_engine() does

    engine = target.create_engine()
    if isinstance(engine, McuEngine) and engine.chip.ram_size <= MOST_RAM:
        return engine, KnownRests(engine)
    return engine, None


@cache
def _check_works(target: FileTarget, start: State) -> None:
    """See that the update works when nothing disturbs it; see :meth:`FileTarget.start`."""
    outcome = target.run(start)
    if outcome.violation:
        kind, text = outcome.violation
        raise UpdateNeverWorksError(
            f"without any power cut the update of {target.name} does not work: {kind}: {text}",
            hint=_find_hint(kind, target.description, outcome),
        )
    if not outcome.ops:
        raise UpdateNeverWorksError(
            f"the update of {target.name} does nothing to the flash: there is nowhere to cut",
            hint="stage something with [update] stage, or drive it with `driver` or `type`",
        )


def _find_hint(kind: str, found: Description, outcome: Outcome) -> str:
    """What to do about an update that does not work, and the last thing that was said."""
    lines = outcome.console.strip().splitlines()
    last = f"its last words are {lines[-1][-60:]!r}" if lines else "it says nothing"
    return f"{HINTS[kind]}; {last}; all of it: unbrick check {found.path}"
