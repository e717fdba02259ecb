"""Replays a case: everything that happened in its sessions, in one order, with virtual time.

What the terminal says is noted when it is read, which is when its line falls silent or at the
peers' next turn; flash operations, and what the server writes down, have the times at which they
were.
"""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from unbrick.board import BOARD
from unbrick.campaign.search import follow, minimise
from unbrick.campaign.session import run_session
from unbrick.engine.gdbstub import PowerLostError
from unbrick.errors import LinkError, SetupError
from unbrick.wire import coap, slipmux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unbrick.campaign.case import CaseId, Death, Step
    from unbrick.campaign.scenario import Scenario
    from unbrick.campaign.session import Outcome, State
    from unbrick.engine.base import Line
    from unbrick.engine.gdbstub import DebuggedEngine
    from unbrick.engine.inprocess import InProcessEngine
    from unbrick.image.release import Releases

BYTE = 10 / BOARD.baud
"""Seconds that a byte takes on a line."""


class Heard(NamedTuple):
    """Bytes on a line: ``uart`` 0 or 1, ``sent`` by the terminal, at ``time`` in seconds."""

    time: float
    uart: int
    sent: bool
    data: bytes


class Event(NamedTuple):
    """One line of a timeline; ``source`` is power, uart0, radio, nor or server."""

    time: float
    source: str
    text: str


class _Listener:
    """A line that writes down what passes."""

    def __init__(self, line: Line, engine: InProcessEngine, uart: int, heard: list[Heard]) -> None:
        self._line, self._engine, self._uart, self._heard = line, engine, uart, heard

    def write(self, data: bytes) -> None:
        """Send ``data`` to the terminal."""
        if data:
            self._heard.append(Heard(self._engine.now, self._uart, False, bytes(data)))
        self._line.write(data)

    def read(self) -> bytes:
        """What the terminal has sent."""
        data = self._line.read()
        if data:
            self._heard.append(Heard(self._engine.now, self._uart, True, data))
        return data


@dataclass(frozen=True)
class Session:
    """One session of a replay.

    Attributes:
        case: that it is, or that it leads to.
        outcome: what came of it when nothing cut it.
        heard: what passed on the lines.
        cut: the loss of power that ended it; None: it is the case itself.
    """

    case: CaseId
    outcome: Outcome
    heard: tuple[Heard, ...]
    cut: Step | None

    @property
    def end(self) -> float:
        """Virtual seconds from power-on to the loss of power, or to the end."""
        if self.cut is None:
            return self.outcome.virtual
        ops = self.outcome.ops
        if self.cut.op >= len(ops):
            return self.outcome.virtual
        op = ops[self.cut.op]
        return (op.start + op.end) / 2 if self.cut.torn else op.start

    def events(self) -> list[Event]:
        """The timeline, up to the loss of power."""
        found = [
            Event(0.0, "power", "on"),
            *self._console(),
            *self._radio(),
            *self._flash(),
            *self._server(),
        ]
        end = self.end
        kept = [event for event in found if event.time <= end]
        kept.sort(key=lambda event: event.time)  # stable: what is listed first stays first
        return [*kept, Event(end, "power", self._last_words())]

    def _last_words(self) -> str:
        if self.cut is None:
            kind, text = self.outcome.violation or ("", "")
            ended = (
                f"VIOLATION {kind}: {text}" if kind else f"all has come about: {self.outcome.route}"
            )
            return f"off; {ended}"
        if self.cut.torn:
            return f"LOST in operation {self.cut.op}, torn: {self.cut.torn}"
        return f"LOST before operation {self.cut.op}"

    def _console(self) -> Iterator[Event]:
        for sent in (True, False):
            text, arrow = "", "" if sent else "typed: "
            for heard in self.heard:
                if heard.uart != 0 or heard.sent is not sent:
                    continue
                if not _is_text(heard.data):  # a file that is restored
                    yield Event(heard.time, "uart0", f"{arrow}{_shortly(heard.data)}")
                    continue
                text += heard.data.decode("utf-8", errors="replace")
                *lines, text = re.split(r"[\r\n]+", text)
                for line in lines:
                    if line.strip("> "):
                        yield Event(heard.time, "uart0", f"{arrow}{line}")
            if text.strip("> "):
                yield Event(self.end, "uart0", f"{arrow}{text}")

    def _radio(self) -> Iterator[Event]:
        for sent in (True, False):
            decoder = slipmux.Decoder()
            arrow = "->" if sent else "<-"
            for heard in self.heard:
                if heard.uart == 1 and heard.sent is sent:
                    for frame in decoder.feed(heard.data):
                        yield Event(heard.time, "radio", f"{arrow} {_frame_in_words(frame)}")

    def _flash(self) -> Iterator[Event]:
        last = len(self.outcome.ops) if self.cut is None else self.cut.op + bool(self.cut.torn)
        for number, op in enumerate(self.outcome.ops[:last]):
            what = "erase" if op.kind == "erase" else f"program {op.length} bytes"
            where = f"{op.offset:#08x} ({_partition(op.offset)})"
            yield Event(op.start, "nor", f"{number}: {what} at {where}")

    def _server(self) -> Iterator[Event]:
        before = self.outcome.marks[0].server
        death = self.case.death
        for number, mark in enumerate(self.outcome.marks[1:], 1):
            after = mark.server
            if death is not None and death.change == number:
                yield Event(mark.time, "server", _HOW_IT_DIES[death.when])
            known = {update.id: update for update in before.updates}
            for update in after.updates:
                old = known.get(update.id)
                if old != update:
                    text = f"update {update.id} to {update.version}: {update.state.value}"
                    yield Event(update.changed, "server", text)
            for terminal in after.terminals:
                if terminal not in before.terminals:
                    text = f"{terminal.serial} runs {terminal.version}"
                    yield Event(terminal.last_seen, "server", text)
            for step in sorted(set(after.steps) - set(before.steps), key=lambda s: s.number):
                where = f" at {step.offset:#x}" if step.length else ""
                text = f"step {step.number}, {step.kind.value}{where}: {step.state.value}"
                yield Event(mark.time, "server", text)
            before = after


_HOW_IT_DIES = {
    "": "DIES before it can say so, and goes on from its records",
    "said": "DIES when it has said so, and goes on from its records",
    "late": "DIES when it has said so, and stays away for long",
}


def _is_text(data: bytes) -> bool:
    return all(0x20 <= byte < 0x7F or byte in b"\r\n\t\b" for byte in data)


def _shortly(data: bytes) -> str:
    """Bytes of a file transfer in a few characters."""
    return f"{len(data)} bytes, {data[:4].hex(' ')}" + (" …" if len(data) > 4 else "")


def _partition(offset: int) -> str:
    found = (part.name for part in BOARD.partitions if part.offset <= offset < part.end)
    return next(found, "unused")


def _frame_in_words(frame: slipmux.Frame) -> str:
    if frame.type is not slipmux.FrameType.COAP:
        return frame.data.decode(errors="replace")
    try:
        message = coap.decode(frame.data)
    except LinkError as error:
        return f"no CoAP message: {error}"
    code = message.code
    path = "/" + "/".join(message.opt.uri_path) if code.is_request() else ""
    name = code.name if code.is_request() else code.dotted
    block = message.opt.block2
    part = f" block {block.block_number}{'+' if block.more else ''}" if block else ""
    return f"{message.mtype.name} {message.mid} {name}{path and ' ' + path}{part}".replace(
        "EMPTY", "empty"
    ) + (f", {len(message.payload)} bytes" if message.payload else "")


def replay(
    engine: InProcessEngine, releases: Releases, scenario: Scenario, case: CaseId, start: State
) -> list[Session]:
    """Run the sessions that lead to a case, and the case, and write down all that happens.

    Args:
        engine: any; its contents are replaced.
        releases: the software.
        scenario: that of the case.
        case: what to run.
        start: where the scenario begins.

    Raises:
        SetupError: the case does not exist.
        ToolBrokenError: the NOR is not what the trace says.
    """
    heard: list[Heard] = []

    number = itertools.count()

    def run(state: State, resolution: int, death: Death | None) -> Outcome:
        heard.clear()
        link = None if case.link is None else (case.link, next(number))
        lines = engine.wire, engine.radio
        engine.wire = _Listener(engine.wire, engine, 0, heard)
        engine.radio = _Listener(engine.radio, engine, 1, heard)
        try:
            return run_session(engine, releases, scenario, state, resolution, link, death)
        finally:
            engine.wire, engine.radio = lines

    cuts = iter((*case.steps, None))
    return [
        Session(found, outcome, tuple(heard), next(cuts))
        for found, _, outcome in follow(case, start, run)
    ]


def debug(
    engine: DebuggedEngine,
    releases: Releases,
    scenario: Scenario,
    case: CaseId,
    start: State,
    attach: Callable[[], None],
) -> None:
    """Run a case under a debugger, and before it the session that its last cut ends.

    That session stops by itself just before the operation at which the power is lost; when the
    debugger goes on from there, the power is lost and the case begins. A case without a loss of
    power just runs.

    Args:
        engine: any; its contents are replaced.
        releases: the software.
        scenario: that of the case.
        case: what to run.
        start: where the scenario begins.
        attach: called when the debugger is to have the engine.

    Raises:
        SetupError: the case does not exist.
        DebuggerGoneError: the debugger has killed the terminal.
    """
    number = itertools.count()
    last: list[tuple[State, int, tuple[int, int] | None, Death | None]] = []

    def run(state: State, resolution: int, death: Death | None) -> Outcome:
        link = None if case.link is None else (case.link, next(number))
        last.append((state, resolution, link, death))
        return run_session(engine, releases, scenario, state, resolution, link, death)

    for _ in follow(case, start, run):
        pass
    attach()
    try:
        for session, cut in zip(last[-2:], (*case.steps, None)[-2:], strict=True):
            engine.cut_before_op(None if cut is None else cut.op)
            with suppress(PowerLostError):
                run_session(engine, releases, scenario, *session)
    finally:
        engine.cut_before_op(None)
        engine.detach()


def reduced(
    case: CaseId,
    start: State,
    run: Callable[..., Outcome],
    scenario: Scenario,
) -> CaseId | None:
    """The case with the fewest faults that breaks the same invariant; None: this one breaks none.

    Args:
        case: what to reduce.
        start: where the scenario begins.
        run: runs a session, over a bad link (its number, and the session's) or a good one, with a
            death of the server or without.
        scenario: that of the case.

    Raises:
        SetupError: the case does not exist.
    """

    def kind(tried: CaseId) -> str:
        sessions = itertools.count()

        def one(state: State, resolution: int, death: Death | None) -> Outcome:
            link = None if tried.link is None else (tried.link, next(sessions))
            return run(scenario, state, resolution, link, death)

        *_, (_, _, outcome) = follow(tried, start, one)
        return outcome.violation[0] if outcome.violation else ""

    def fails(tried: CaseId) -> bool:
        try:
            return kind(tried) == wanted
        except SetupError:  # with another fault left out, this one has nothing to happen in
            return False

    wanted = kind(case)
    return minimise(case, fails) if wanted else None


# Waveforms -------------------------------------------------------------------------------------

_WIRES = ("power", "uart0_tx", "uart0_rx", "uart1_tx", "uart1_rx", "nor_low_busy", "nor_high_busy")
_KINDS = {"": 0, "erase": 1, "buffer": 2, "word": 3}


def vcd(sessions: Iterable[Session]) -> str:
    """Sessions as a Value Change Dump (IEEE 1364), one after the other, in units of 1 ns.

    Signals: ``power``; ``uartN_tx`` and ``uartN_rx``, 1 while bytes are on the line; ``nor_*_busy``
    of each chip; ``op_kind`` (0 none, 1 erase, 2 buffer, 3 word) and ``op_block``; ``server``, the
    state of the newest update, as a string.
    """
    changes: list[tuple[int, str, str]] = []
    codes = {name: chr(ord("!") + i) for i, name in enumerate(_WIRES)}
    kind, block, server = "k", "b", "s"
    offset = 0
    for session in sessions:
        end = offset + _ns(session.end)
        spans = _spans(session)
        spans["power"] = [(0.0, session.end)]
        for name, pieces in spans.items():
            for first, last in _merged(pieces):
                a, z = min(end, offset + _ns(first)), min(end, offset + _ns(last))
                if a < z:
                    changes += [(a, f"1{codes[name]}", name), (z, f"0{codes[name]}", name)]
        for op in session.outcome.ops:
            a, z = offset + _ns(op.start), min(end, offset + _ns(op.end))
            if a < z:
                changes.append((a, f"b{_KINDS[op.kind]:02b} {kind}", kind))
                changes.append((a, f"b{op.offset // BOARD.nor.block_size:08b} {block}", block))
                changes.append((z, f"b00 {kind}", kind))
        for event in session.events():
            if event.source == "server" and event.text.startswith("update"):
                state = event.text.rpartition(": ")[2]
                changes.append((offset + _ns(event.time), f"s{state} {server}", server))
        offset = end + 1_000_000  # a millisecond without power
    out = ["$version unbrick replay $end", "$timescale 1 ns $end", "$scope module terminal $end"]
    out += [f"$var wire 1 {codes[name]} {name} $end" for name in _WIRES]
    out += [
        f"$var reg 2 {kind} op_kind [1:0] $end",
        f"$var reg 8 {block} op_block [7:0] $end",
        f"$var string 1 {server} server $end",
        "$upscope $end",
        "$enddefinitions $end",
        "#0",
        "$dumpvars",
        *(f"0{code}" for code in codes.values()),
        f"b00 {kind}",
        f"b00000000 {block}",
        f"snone {server}",
        "$end",
    ]
    now = 0
    # At one moment, ends come before beginnings, so that what follows at once is seen.
    for time, change, _ in sorted(
        changes, key=lambda c: (c[0], c[1][0] != "0" and c[1][:3] != "b00")
    ):
        if time != now:
            out.append(f"#{time}")
            now = time
        out.append(change)
    out.append(f"#{max(offset, now + 1)}")
    return "\n".join(out) + "\n"


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _spans(session: Session) -> dict[str, list[tuple[float, float]]]:
    """When each signal is 1, in seconds from the session's power-on."""
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in _WIRES}
    free = [0.0, 0.0]
    for heard in session.heard:
        length = len(heard.data) * BYTE
        if heard.sent:
            spans[f"uart{heard.uart}_tx"].append((max(0.0, heard.time - length), heard.time))
        else:  # bytes wait for those before them
            begin = max(free[heard.uart], heard.time)
            free[heard.uart] = begin + length
            spans[f"uart{heard.uart}_rx"].append((begin, begin + length))
    for op in session.outcome.ops:
        for bit, name in ((1, "nor_low_busy"), (2, "nor_high_busy")):
            if op.lanes & bit:
                spans[name].append((op.start, op.end))
    return spans


def _merged(pieces: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pieces that touch or overlap as one."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(pieces):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged
