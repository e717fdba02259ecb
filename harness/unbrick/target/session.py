"""One session of a target from a file: from power-on until it has recovered, or not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.campaign.target import Fate, MemoryMark, Outcome, State
from unbrick.campaign.verdict import Violation
from unbrick.errors import DriverGaveUpError, ToolBrokenError
from unbrick.target.console import DriverConsole, DriverRun
from unbrick.target.description import put
from unbrick.target.drivers import start_driver
from unbrick.target.rests import SessionJoined

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any

    from unbrick.engine.base import ChipEngine
    from unbrick.target.console import Wait
    from unbrick.target.description import Afterwards, Description, FirmwareFile
    from unbrick.target.rests import KnownRests

BEGUN = "the update was begun"
"""What the peers remember once a session had power, with the driver's text behind a colon, if it
remembers one; before that it is None."""

INVARIANTS = {
    "bricked": "1: the device always comes back",
    "not-updated": "1: an update that is wanted comes about",
    "wrong-image": "1: what runs is a whole image that may run",
    "flash-differs": "1: the flash ends up as it must",
    "restless": "1: a device that has recovered leaves its flash alone, and keeps running",
    "said": "2: the device never says what it must not",
    "afterwards": "2: what is put to it after its recovery is taken as it must be",
    "fault": "3: the firmware uses the chip as its manual says",
}
"""What must hold, by the kind of violation."""

HINTS = {
    "bricked": "correct `says` or `within` of [recovered], or see what the firmware waits for",
    "not-updated": "correct [update], or see what the firmware waits for",
    "wrong-image": "correct `runs` or `pc` of [recovered], or `at` of [images]",
    "flash-differs": "correct `flash` of [recovered]",
    "restless": 'let [recovered] quiet be shorter, or "0 s" for firmware that always writes',
    "said": "correct the firmware, or `says` of [never]",
    "afterwards": "correct the firmware, or [afterwards]",
    "fault": "correct the firmware; `allowed` of [never] lets a kind of fault pass",
}
"""What to do when one is broken although nothing disturbs the update."""

MAX_CONSOLE_SIZE = 1 << 20
"""Bytes of the console that a session keeps."""

COMPARED_SIZE = 1024
"""Bytes that are compared at once. What comes after a difference has no say in the verdict."""

PC_SAMPLES = 4
PC_SAMPLE_INTERVAL_S = 0.005


def run_session(
    engine: ChipEngine,
    target: Description,
    state: State,
    fate: Fate,
    rests: KnownRests | None = None,
) -> Outcome:
    """Run one session and check what must hold.

    Args:
        engine: of the target's chip; its contents are replaced.
        target: what it is.
        state: where the session begins.
        fate: what happens to it besides its power cut.
        rests: of the same engine's earlier sessions of the same target, which this one may join;
            None: all of it is run.

    Raises:
        SetupError: the user's driver is wrong.
        ToolBrokenError: the flash is not what the trace says: no verdict on the firmware.
    """
    began = time.perf_counter()
    engine.power_off()
    engine.forget()
    engine.note_reads()
    if rests is not None:
        rests.begin(state.peers)
    engine.wire.read()
    readable = state.cells.readable(fate.resolution)
    engine.load_nor(readable.image())
    course = _Course(engine, target, state.peers)
    violation = None
    try:
        course.run()
    except Violation as found:
        violation = (found.kind, str(found))
    except SessionJoined:
        if rests is None:
            raise
        return _finish_joined(rests, state, time.perf_counter() - began)
    finally:
        course.close()
    ops, virtual = engine.ops, engine.now
    engine.power_off()
    left = readable.after(ops)
    # A violation may come while an operation is under way, which the loss of power tears.
    if violation is None and not left.reads_as(engine.read_nor()):
        raise ToolBrokenError("the flash is not what the trace of the session says")
    if violation is None and target.afterwards is not None:
        try:
            course.check_afterwards(target.afterwards)
        except Violation as found:
            violation = (found.kind, str(found))
        engine.power_off()
    outcome = Outcome(
        violation=violation,
        route="application",
        ops=ops,
        marks=course.marks,
        downtime=course.spoke_at,
        virtual=virtual,
        seconds=time.perf_counter() - began,
        console=course.text,
        final=State(state.cells.after(ops) if state.cells.weak else left, course.marks[-1].peers),
        relevant=engine.relevant,
    )
    if rests is not None:
        rests.keep(outcome)
    return outcome


def _finish_joined(rests: KnownRests, state: State, seconds: float) -> Outcome:
    """The outcome of a session that has joined another one: from there on it is that one's."""
    joined, engine = rests.find_joined(), rests.engine
    ops, relevant = rests.follow(joined), engine.relevant
    engine.power_off()
    final = State(state.cells.after(ops), joined.marks[-1].peers)
    return replace(joined, ops=ops, seconds=seconds, final=final, relevant=relevant)


def name_peers(remembered: str) -> str:
    """What the peers remember when the driver remembers a text, which may be empty."""
    return f"{BEGUN}: {remembered}" if remembered else BEGUN


def find_remembered(peers: str | None) -> str:
    """The text that the driver remembers; empty: there is none."""
    return (peers or "").partition(": ")[2]


def start_driving(console: DriverConsole, target: Description) -> DriverRun:
    """Whoever does what the target's update wants done at its console."""
    driver = target.update.driver
    path = driver if isinstance(driver, Path) else None
    return DriverRun(_drive(console, target), console, path)


class _Course:
    """A session under way.

    Attributes:
        spoke_at: when it said that it has recovered, in virtual seconds; None: it has not.
        marks: the changes of what the driver remembers.
    """

    def __init__(self, engine: ChipEngine, target: Description, peers: str | None) -> None:
        first = peers is None
        self._engine, self._target = engine, target
        self._said = bytearray()
        self._looked = 0
        self._console = DriverConsole(engine.wire, engine.now, find_remembered(peers))
        self.marks = [MemoryMark(0, name_peers(self._console.remembered))]
        self._must_drive = first and target.update.is_driven
        self._driver: DriverRun | None = None
        if target.update.is_driven and (first or target.update.again):
            self._driver = start_driving(self._console, target)
        self.spoke_at: float | None = None

    @property
    def text(self) -> str:
        """Everything that the device said."""
        return self._said.decode("utf-8", errors="replace")

    def close(self) -> None:
        """End the driver."""
        if self._driver is not None:
            self._driver.close()

    def run(self) -> None:
        """Run until the device has recovered.

        Raises:
            Violation: it has not, or it did what it must not.
            SetupError: the user's driver is wrong.
        """
        self._engine.power_on()
        self._wait_for_driver()
        self._wait_for_words()
        self._wait_quiet()
        self._check_what_runs()
        self._check_stays()
        self._check_flash(self._target.recovered.flash)

    def check_afterwards(self, check: Afterwards) -> None:
        """Put something into the flash of the device, which is off, and start it.

        Raises:
            Violation: it does not take it as it must.
        """
        engine = self._engine
        engine.load_nor(put(self._target.chip, engine.read_nor(), check.stage))
        engine.wire.read()
        start = len(self._said)
        engine.power_on()
        deadline = engine.now + check.within
        while not self._find(check.says, start):
            if engine.now >= deadline:
                raise Violation(
                    "afterwards",
                    f"after its recovery it does not say {_any_of(check.says)}",
                )
            self._advance(deadline)
        forbidden = self._find(check.never, start)
        if forbidden:
            raise Violation("afterwards", f"after its recovery it says {forbidden!r}")

    def _wait_for_driver(self) -> None:
        """Let the driver work, unless the device shows that there is nothing left to do."""
        driver, update = self._driver, self._target.update
        if driver is None:
            return
        deadline = self._engine.now + update.within
        try:
            self._step(driver)
            while not driver.finished:
                if not self._must_drive and self._has_spoken():
                    return
                if self._engine.now >= deadline:
                    raise Violation(
                        "not-updated",
                        f"the update has not ended after {update.within:g} s{self._waited_for()}",
                    )
                self._advance(min(deadline, driver.deadline))
                self._step(driver)
        except DriverGaveUpError as error:
            raise Violation("not-updated", f"{error}{self._waited_for()}") from None

    def _step(self, driver: DriverRun) -> None:
        """Give the driver its turns, and note what it remembers then."""
        engine = self._engine
        try:
            driver.step(engine.now)
        finally:
            peers = name_peers(self._console.remembered)
            if peers != self.marks[-1].peers:
                self.marks.append(MemoryMark(engine.op_count, peers, engine.now))

    def _has_spoken(self) -> bool:
        """Whether the device has said that it has recovered."""
        if self.spoke_at is None and self._find(self._target.recovered.says):
            self.spoke_at = self._engine.now
        return self.spoke_at is not None

    def _wait_for_words(self) -> None:
        recovered = self._target.recovered
        deadline = self._engine.now + recovered.within
        if not recovered.says:
            self._run_until(deadline)
            return
        while not self._has_spoken():
            if self._engine.now >= deadline:
                raise Violation(
                    "bricked",
                    f"it does not say {_any_of(recovered.says)} within {recovered.within:g} s"
                    f"{self._waited_for()}",
                )
            self._advance(deadline)

    def _waited_for(self) -> str:
        """The register that the firmware has waited for longest, in vain, to be told at the end."""
        found = self._engine.find_vain_registers()
        return f"; {found[0]}" if found else ""

    def _wait_quiet(self) -> None:
        """Wait until the flash is left alone: until then a power cut can still do harm.

        What is under way ends even where the target does not want to wait.
        """
        recovered, engine = self._target.recovered, self._engine
        deadline = engine.now + recovered.within
        while True:
            count = engine.op_count
            self._run_until(engine.now + recovered.quiet)
            ops = engine.ops
            busy_until = ops[-1].end if ops else 0.0
            if engine.now >= busy_until and (engine.op_count == count or not recovered.quiet):
                return
            self._run_until(busy_until)
            if engine.now >= deadline:
                raise Violation(
                    "restless",
                    f"it still writes its flash {recovered.within:g} s after its recovery",
                )

    def _check_what_runs(self) -> None:
        recovered, engine = self._target.recovered, self._engine
        if not recovered.runs and recovered.pc is None:
            return
        images = [self._target.images[name] for name in recovered.runs]
        whole = [image for image in images if not self._find_difference((image,))]
        if images and not whole:
            name, address = self._find_difference(images) or ("", 0)
            raise Violation(
                "wrong-image", f"no image that may run is whole: {name} differs at {address:#x}"
            )
        places = [(piece.address, piece.end) for image in whole for piece in image.pieces]
        places += [recovered.pc] if recovered.pc else []
        for _ in range(PC_SAMPLES):
            pc = engine.pc
            if not any(start <= pc < end for start, end in places):
                names = ", ".join(image.name for image in whole) or "the place where it must be"
                raise Violation("wrong-image", f"the core is at {pc:#x}, not in {names}")
            self._run_until(engine.now + PC_SAMPLE_INTERVAL_S)

    def _check_stays(self) -> None:
        """See that the chip does not reset itself again."""
        recovered, engine = self._target.recovered, self._engine
        if not recovered.stays:
            return
        resets = engine.resets
        self._run_until(engine.now + recovered.stays)
        if engine.resets != resets:
            raise Violation("restless", f"it starts anew within {recovered.stays:g} s")

    def _check_flash(self, programs: Iterable[FirmwareFile]) -> None:
        found = self._find_difference(programs)
        if found:
            name, address = found
            raise Violation("flash-differs", f"the flash differs from {name} at {address:#x}")

    def _find_difference(self, programs: Iterable[FirmwareFile]) -> tuple[str, int] | None:
        """The first byte of the flash that is not as a program has it."""
        for program in programs:
            for piece in program.pieces:
                for at in range(0, len(piece.data), COMPARED_SIZE):
                    wanted = piece.data[at : at + COMPARED_SIZE]
                    there = self._engine.read_memory(piece.address + at, len(wanted))
                    if there != wanted:
                        return program.name, piece.address + at + _first_difference(there, wanted)
        return None

    def _find(self, texts: Iterable[str], start: int = 0) -> str:
        """The first of some texts that was said; empty: none was."""
        for text in texts:
            if self._said.find(text.encode(), start) >= 0:
                return text
        return ""

    def _run_until(self, until: float) -> None:
        while self._engine.now < until:
            self._advance(until)

    def _advance(self, until: float) -> None:
        """Let time pass, at most to ``until``, and see what the device did.

        Raises:
            Violation: it did what it must not.
        """
        engine = self._engine
        engine.advance(max(1e-9, until - engine.now))
        if engine.has_joined:
            raise SessionJoined
        data = engine.wire.read()
        if data and len(self._said) < MAX_CONSOLE_SIZE:
            self._said += data
            self._console.hear(data)
            if self._target.never.says:
                self._look_for_forbidden(self._target.never.says)
        for fault in self._engine.faults:
            if not self._target.never.allows(fault):
                raise Violation("fault", str(fault))

    def _look_for_forbidden(self, texts: Iterable[str]) -> None:
        forbidden = self._find(texts, max(0, self._looked))
        if forbidden:
            raise Violation("said", f"it says {forbidden!r}")
        self._looked = len(self._said) - max(map(len, map(str.encode, texts)))


def _first_difference(there: bytes, wanted: bytes) -> int:
    pairs = zip(there, wanted, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), len(there))


def _any_of(texts: Iterable[str]) -> str:
    return " or ".join(map(repr, texts))


def _drive(console: DriverConsole, target: Description) -> Generator[Wait, Any, None]:
    """Wait for the device to be ready, type, and hand over to the driver."""
    update = target.update
    if update.after:
        yield console.until(update.after, update.within)
    for text in update.typed:
        console.write(text)
    if update.driver:
        yield from start_driver(update.driver, console, update.payload, update.options)
