"""Plays a target's update once without a fault, and says what a campaign would meet.

Every trouble comes with what to do about it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from unbrick.board.mcu import APPLICATION_CORES
from unbrick.campaign.case import CaseId
from unbrick.campaign.replay import replay
from unbrick.campaign.search import find_cuts
from unbrick.campaign.target import UNDISTURBED, State
from unbrick.engine import OWN_ENGINE
from unbrick.engine.symbols import Symbols
from unbrick.flash.cells import Cells
from unbrick.flash.partition import name_partition
from unbrick.target.description import Trigger
from unbrick.target.session import HINTS, run_session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from unbrick.campaign.target import Outcome, ReplayedSession
    from unbrick.engine.base import ChipEngine, FirmwareFault, VainRegister
    from unbrick.flash.ops import FlashOp
    from unbrick.target.description import Description
    from unbrick.target.target import FileTarget

SESSIONS_SHARE = 0.1
"""Of the cuts of preset single, how many need a session of their own: 4 to 14 in a hundred of six
targets (docs/any-firmware.md)."""

FULL_SHARE = 50
"""How much longer preset full takes than single: 44 and 80 times for the two examples."""

SHORT_SESSION_S = 1.0
"""A session that takes less is run once more to measure it: the first one translates the code."""

BLANK_VECTOR = 0xFFFF_FFFF


@dataclass(frozen=True)
class Trouble:
    """Something that keeps a campaign from being worth anything.

    Attributes:
        what: is wrong.
        hint: what to do.
    """

    what: str
    hint: str


@dataclass(frozen=True)
class Flashed:
    """What a session did to a part of the flash.

    Attributes:
        part: its name.
        erases: operations that erase.
        programs: operations that program.
        size: bytes that were programmed.
    """

    part: str
    erases: int
    programs: int
    size: int


@dataclass(frozen=True)
class Words:
    """A line that the device said.

    Attributes:
        time: when, in virtual seconds.
        text: the line.
    """

    time: float
    text: str


@dataclass(frozen=True)
class Cost:
    """What a campaign will take.

    Attributes:
        cuts: of preset single.
        session: seconds of one core that a session takes.
    """

    cuts: int
    session: float

    @property
    def sessions(self) -> int:
        """Of preset single; a guess."""
        return max(1, round(self.cuts * SESSIONS_SHARE))

    @property
    def most(self) -> float:
        """Seconds of one core that preset single takes at most."""
        return self.cuts * self.session

    @property
    def single(self) -> float:
        """Seconds of one core that preset single takes; a guess."""
        return self.sessions * self.session

    @property
    def full(self) -> float:
        """Seconds of one core that preset full takes; a guess."""
        return self.single * FULL_SHARE


@dataclass(frozen=True)
class Trial:
    """What a target did when nothing disturbed it.

    Attributes:
        target: what was tried.
        outcome: of its session.
        start: where the core begins, and that place in the source, or an empty text.
        words: what was said at the console.
        elsewhere: what was said at other UARTs, by their names.
        flashed: what was done to each part of the flash.
        faults: of the hardware's rules, the first of each kind and place.
        waits: registers that were polled in vain.
        lost: bytes that each UART lost, where there are any.
        resets: how often the chip has reset itself.
        place: where the core was at the end.
        idle: whether the device counts as recovered without the update as well.
        cost: of a campaign; None: there is nothing to cut, or another engine has played it.
        engine: what has; only the own one knows registers that are polled in vain.
    """

    target: FileTarget
    outcome: Outcome
    start: tuple[int, str]
    words: tuple[Words, ...]
    elsewhere: dict[str, str]
    flashed: tuple[Flashed, ...]
    faults: tuple[FirmwareFault, ...]
    waits: tuple[VainRegister, ...]
    lost: dict[str, int]
    resets: int
    place: str
    idle: bool
    cost: Cost | None
    engine: str

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """What must be mended before a campaign, the likeliest cause first."""
        return tuple(_find_troubles(self))

    @property
    def notes(self) -> tuple[Trouble, ...]:
        """What may be meant, and is worth a look."""
        return tuple(_find_notes(self))


def try_target(
    target: FileTarget, engine_name: str = OWN_ENGINE, platform: Path | None = None
) -> Trial:
    """Play the update once without a fault.

    Args:
        target: what is tried.
        engine_name: what runs its chip, and
        platform: both as of :meth:`FileTarget.create_engine`.

    Raises:
        SetupError: the user's driver, or the file with names of registers, is wrong.
        ToolBrokenError: the flash is not what the trace says.
    """
    found = target.description
    with target.create_engine(engine=engine_name, platform=platform) as engine:
        (session,) = replay(target, engine, CaseId(target.name))
        faults, waits = _first_faults(engine), tuple(engine.find_vain_registers())
        elsewhere = {
            name: text
            for name, line in engine.lines.items()
            if line is not engine.wire and (text := _text(_heard_elsewhere(session, engine, name)))
        }
        lost = {name: count for name in found.chip.uarts if (count := engine.find_overruns(name))}
        resets, place = engine.resets, _describe(found, engine.pc)
        works = session.outcome.violation is None and bool(session.outcome.ops)
        idle = works and _recovers_without_update(engine, found)
        searches = engine_name == OWN_ENGINE and session.outcome.ops
        cost = _measure(target, engine, session.outcome) if searches else None
    return Trial(
        target=target,
        outcome=session.outcome,
        start=_find_start(found),
        words=tuple(_list_words(session)),
        elsewhere=elsewhere,
        flashed=tuple(_count_ops(target, session.outcome.ops)),
        faults=faults,
        waits=waits,
        lost=lost,
        resets=resets,
        place=place,
        idle=idle,
        cost=cost,
        engine=engine_name,
    )


def _find_start(found: Description) -> tuple[int, str]:
    base = found.chip.firmware_base
    offset, is_application = found.chip.image_offset(base), found.chip.core in APPLICATION_CORES
    (entry,) = struct.unpack_from("<I", found.start_image, offset + (0 if is_application else 4))
    if is_application and entry != BLANK_VECTOR:  # it has no vector, but an instruction
        entry = base
    return entry, Symbols(found.elf_files).describe(entry & ~1)


def _describe(found: Description, address: int) -> str:
    where = Symbols(found.elf_files).describe(address)
    return where or f"{address:#x}"


def _first_faults(engine: ChipEngine) -> tuple[FirmwareFault, ...]:
    found: dict[tuple[str, int], FirmwareFault] = {}
    for fault in engine.faults:
        found.setdefault((fault.kind, fault.pc), fault)
    return tuple(found.values())


def _heard_elsewhere(session: ReplayedSession, engine: ChipEngine, name: str) -> bytes:
    """What was said at a UART that is not the console."""
    line = engine.lines[name]
    replayed = b"".join(heard.data for heard in session.heard if heard.uart == 1 and heard.sent)
    return line.read() or (replayed if line is engine.radio else b"")


def _text(data: bytes) -> str:
    """What bytes say to people; empty: nothing."""
    text = data.decode("ascii", errors="replace")
    return text.strip() if text.isprintable() or text.replace("\ufffd", "").strip() else ""


def _list_words(session: ReplayedSession) -> list[Words]:
    words, line, since = [], "", 0.0
    for heard in session.heard:
        if heard.uart != 0 or not heard.sent or heard.time > session.outcome.virtual:
            continue  # what is said later is [afterwards]
        for character in heard.data.decode("utf-8", errors="replace"):
            if character < " " and character not in "\t\x1b":  # also what a file transfer answers
                words += [Words(since, line)] if line.strip() else []
                line = ""
            else:
                since = since if line else heard.time
                line += character
    return [*words, *([Words(since, line)] if line.strip() else [])]


def _count_ops(target: FileTarget, ops: Sequence[FlashOp]) -> list[Flashed]:
    found: dict[str, list[int]] = {}
    for op in ops:
        part = name_partition(target.partitions, op.offset)
        erases = op.kind == "erase"
        counts = found.setdefault(part, [0, 0, 0])
        counts[0] += erases
        counts[1] += not erases
        counts[2] += 0 if erases else op.length
    return [Flashed(part, *counts) for part, counts in found.items()]


def _recovers_without_update(engine: ChipEngine, found: Description) -> bool:
    """Whether the device counts as recovered when nothing began the update."""
    if not (found.update.staged or found.update.is_driven):
        return False
    programs = tuple(one for one in found.programs if one not in found.update.staged)
    idle = replace(found, programs=programs, update=Trigger(), afterwards=None)
    state = State(Cells.of(idle.start_image, found.chip.geometry))
    return run_session(engine, idle, state, UNDISTURBED).violation is None


def _measure(target: FileTarget, engine: ChipEngine, outcome: Outcome) -> Cost:
    geometry = target.description.chip.geometry
    cuts = sum(1 for _ in find_cuts(CaseId(target.name), outcome, geometry))
    seconds = outcome.seconds
    if seconds < SHORT_SESSION_S:
        state = State(Cells.of(target.description.start_image, geometry))
        seconds = min(seconds, target.run(state, UNDISTURBED, engine).seconds)
    return Cost(cuts, seconds)


def _find_troubles(trial: Trial) -> list[Trouble]:
    found = trial.target.description
    entry, _ = trial.start
    if entry == BLANK_VECTOR:
        base = found.chip.firmware_base
        return [
            Trouble(
                f"nothing is flashed at {base:#x}, where the chip starts",
                "name the bootloader in [[firmware]], with `at` if it is a binary file",
            )
        ]
    troubles = [
        Trouble(
            f"a fault in {fault}",
            f"correct the firmware; `allowed` of [never] lets {fault.kind} pass",
        )
        for fault in trial.faults
        if not found.never.allows(fault)
    ]
    if trial.outcome.violation and not trial.words and trial.elsewhere:
        troubles += [
            Trouble(
                f"the console {found.console} says nothing, but {uart} says "
                f"{text.splitlines()[0][:40]!r}",
                f'write console = "{uart}"',
            )
            for uart, text in trial.elsewhere.items()
        ]
    troubles += _find_failure(trial)
    if not trial.outcome.violation and not trial.outcome.ops:
        troubles.append(
            Trouble(
                "the update does nothing to the flash: there is nowhere to cut",
                "stage something with [update] stage, or drive it with `driver` or `type`",
            )
        )
    return troubles


def _find_failure(trial: Trial) -> list[Trouble]:
    """Why the update does not come about; faults say it themselves."""
    kind, text = trial.outcome.violation or ("", "")
    if not kind or kind == "fault":
        return []
    hint = HINTS[kind]
    recovered = trial.target.description.recovered
    if kind == "bricked":
        said = [words.text.strip() for words in trial.words]
        close = [line for wanted in recovered.says for line in get_close_matches(wanted, said, n=1)]
        if close:
            hint = f"is it {close[0]!r} that `says` of [recovered] means?"
    what = text if trial.waits else f"{text}; at the end the core is at {trial.place}"
    return [Trouble(what, hint), *_find_waits(trial)]


def _find_waits(trial: Trial) -> list[Trouble]:
    named = any(one.name for one in trial.waits)
    how = "" if named else "; --svd FILE gives it a name"
    return [
        Trouble(str(one), f"give the chip's file the bits that it waits for (docs/chips.md){how}")
        for one in trial.waits
    ]


def _find_notes(trial: Trial) -> list[Trouble]:
    found = trial.target.description
    notes = [
        Trouble(f"`allowed` lets pass: {fault}", "see that it is meant")
        for fault in trial.faults
        if found.never.allows(fault)
    ]
    if trial.outcome.violation is None:
        notes += _find_waits(trial)
    if trial.idle:
        notes.append(
            Trouble(
                "without the update the device counts as recovered, too",
                "name in [recovered] what only the update makes, unless falling back will do",
            )
        )
    notes += [
        Trouble(f"{uart} lost {count:,} bytes: the firmware was late", "see how fast you send")
        for uart, count in trial.lost.items()
    ]
    return notes
