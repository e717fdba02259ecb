"""Replays a case: everything that happened in its sessions, in one order, with virtual time.

What the terminal says is noted when it is read: when its line falls silent, or at the peers' next
turn. Flash operations, and what the peers write down, have the times at which they were.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from unbrick.campaign.search import follow, minimise
from unbrick.campaign.target import Heard, ReplayedSession, TimelineEvent
from unbrick.engine.gdb.server import DebuggedEngine, PowerLostError
from unbrick.errors import SetupError
from unbrick.flash.partition import name_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from unbrick.campaign.case import CaseId
    from unbrick.campaign.target import Fate, Outcome, State, Target
    from unbrick.engine.base import Line, TracedEngine
    from unbrick.flash.partition import Partition

BITS_PER_BYTE = 10
"""On a line: start bit, eight data bits, stop bit."""


class _Listener:
    """A line that writes down what passes."""

    def __init__(self, line: Line, engine: TracedEngine, uart: int, heard: list[Heard]) -> None:
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


def list_events(session: ReplayedSession, target: Target) -> list[TimelineEvent]:
    """The timeline of a session, up to its power cut."""
    found = [
        TimelineEvent(0.0, "power", "on"),
        *_tell_console(session),
        *_tell_flash(session, target.partitions),
        *target.tell(session),
    ]
    kept = [event for event in found if event.time <= session.end]
    order = ("power", "uart0", "radio", "nor", "server")
    kept.sort(key=lambda event: (event.time, order.index(event.source)))
    return [*kept, TimelineEvent(session.end, "power", _tell_end(session))]


def _tell_end(session: ReplayedSession) -> str:
    if session.cut is None:
        kind, text = session.outcome.violation or ("", "")
        route = session.outcome.route
        return f"off; {f'VIOLATION {kind}: {text}' if kind else f'all has come about: {route}'}"
    if session.cut.torn:
        return f"LOST in operation {session.cut.op}, torn: {session.cut.torn}"
    return f"LOST before operation {session.cut.op}"


def _tell_console(session: ReplayedSession) -> Iterator[TimelineEvent]:
    for sent in (True, False):
        text, last, arrow = "", session.end, "" if sent else "typed: "
        for heard in session.heard:
            if heard.uart != 0 or heard.sent is not sent:
                continue
            if not _is_text(heard.data):  # a file that is restored, after a line without an end
                if text.strip("> "):
                    yield TimelineEvent(last, "uart0", f"{arrow}{text}")
                text = ""
                yield TimelineEvent(heard.time, "uart0", f"{arrow}{_shorten(heard.data)}")
                continue
            text += heard.data.decode("utf-8", errors="replace")
            last = heard.time
            *lines, text = re.split(r"[\r\n]+", text)
            for line in lines:
                if line.strip("> "):
                    yield TimelineEvent(heard.time, "uart0", f"{arrow}{line}")
        if text.strip("> "):
            yield TimelineEvent(last, "uart0", f"{arrow}{text}")


def _tell_flash(
    session: ReplayedSession, partitions: tuple[Partition, ...]
) -> Iterator[TimelineEvent]:
    cut, ops = session.cut, session.outcome.ops
    last = len(ops) if cut is None else cut.op + bool(cut.torn)
    for number, op in enumerate(ops[:last]):
        what = "erase" if op.kind == "erase" else f"program {op.length} bytes"
        where = f"{op.offset:#08x} ({name_partition(partitions, op.offset)})"
        yield TimelineEvent(op.start, "nor", f"{number}: {what} at {where}")


def _is_text(data: bytes) -> bool:
    return all(0x20 <= byte < 0x7F or byte in b"\r\n\t\b" for byte in data)


def _shorten(data: bytes) -> str:
    """Bytes of a file transfer in a few characters."""
    return f"{len(data)} bytes, {data[:4].hex(' ')}" + (" …" if len(data) > 4 else "")


def replay(target: Target, engine: TracedEngine, case: CaseId) -> list[ReplayedSession]:
    """Run the sessions that lead to a case, and the case, and write down all that happens.

    Args:
        target: that of the case.
        engine: one of the target's; its contents are replaced.
        case: what to run.

    Raises:
        SetupError: the case does not exist.
        ToolBrokenError: the flash is not what the trace says.
    """
    heard: list[Heard] = []

    def run(state: State, fate: Fate) -> Outcome:
        heard.clear()
        lines = engine.wire, engine.radio
        engine.wire = _Listener(engine.wire, engine, 0, heard)
        engine.radio = _Listener(engine.radio, engine, 1, heard)
        try:
            return target.run(state, fate, engine)
        finally:
            engine.wire, engine.radio = lines

    cuts = iter((*case.cuts, None))
    return [
        ReplayedSession(found, outcome, tuple(heard), next(cuts))
        for found, _, outcome in follow(case, target.start(), run)
    ]


def debug(target: Target, engine: DebuggedEngine, case: CaseId, attach: Callable[[], None]) -> None:
    """Run a case under a debugger, and before it the session that its last cut ends.

    That session stops by itself just before the operation at which the power is cut; when the
    debugger goes on from there, the power is cut and the case begins. A case without a power cut
    just runs.

    Args:
        target: that of the case.
        engine: one of the target's; its contents are replaced.
        case: what to run.
        attach: called when the debugger is to have the engine.

    Raises:
        SetupError: the case does not exist.
        DebuggerGoneError: the debugger has killed the terminal.
    """
    last: list[tuple[State, Fate]] = []

    def run(state: State, fate: Fate) -> Outcome:
        last.append((state, fate))
        return target.run(state, fate, engine)

    for _ in follow(case, target.start(), run):
        pass
    attach()
    try:
        for session, cut in zip(last[-2:], (*case.cuts, None)[-2:], strict=True):
            engine.cut_before_op(None if cut is None else cut.op)
            with suppress(PowerLostError):
                target.run(*session, engine)
    finally:
        engine.cut_before_op(None)
        engine.detach()


def reduce(target: Target, case: CaseId) -> CaseId | None:
    """The case with the fewest faults that breaks the same invariant; None: this one breaks none.

    Args:
        target: that of the case.
        case: what to reduce.

    Raises:
        SetupError: the case does not exist.
    """
    start = target.start()

    def find_kind(tried: CaseId) -> str:
        *_, (_, _, outcome) = follow(tried, start, target.run)
        return outcome.violation[0] if outcome.violation else ""

    def fails(tried: CaseId) -> bool:
        try:
            return find_kind(tried) == wanted
        except SetupError:  # with another fault left out, this one has nothing to happen in
            return False

    wanted = find_kind(case)
    return minimise(case, fails) if wanted else None


# Waveforms -------------------------------------------------------------------------------------

_WIRES = ("power", "uart0_tx", "uart0_rx", "uart1_tx", "uart1_rx", "nor_low_busy", "nor_high_busy")
_KINDS = {"": 0, "erase": 1, "buffer": 2, "word": 3}


def render_vcd(sessions: Iterable[ReplayedSession], target: Target) -> str:
    """Sessions as a Value Change Dump (IEEE 1364), one after the other, in units of 1 ns.

    Signals: ``power``; ``uartN_tx`` and ``uartN_rx``, 1 while bytes are on the line; ``nor_*_busy``
    of each chip; ``op_kind`` (0 none, 1 erase, 2 buffer, 3 word) and ``op_block``; ``server``, the
    state of the newest update, as a string.
    """
    changes: list[tuple[int, str, str]] = []
    codes = {name: chr(ord("!") + i) for i, name in enumerate(_WIRES)}
    kind, block, server = "k", "b", "s"
    width = max(8, len(target.board.nor.geometry.block_sizes).bit_length())  # bits of op_block
    offset = 0
    for session in sessions:
        end = offset + _ns(session.end)
        spans = _spans(session, BITS_PER_BYTE / target.board.baud)
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
                number = target.board.nor.geometry.find_block(op.offset)[0]
                changes.append((a, f"b{number:0{width}b} {block}", block))
                changes.append((z, f"b00 {kind}", kind))
        for event in list_events(session, target):
            if event.update:
                moment = offset + _ns(event.time)
                changes.append((moment, f"s{event.update} {server}", server))
        offset = end + 1_000_000  # a millisecond without power
    out = ["$version unbrick replay $end", "$timescale 1 ns $end", "$scope module terminal $end"]
    out += [f"$var wire 1 {codes[name]} {name} $end" for name in _WIRES]
    out += [
        f"$var reg 2 {kind} op_kind [1:0] $end",
        f"$var reg {width} {block} op_block [{width - 1}:0] $end",
        f"$var string 1 {server} server $end",
        "$upscope $end",
        "$enddefinitions $end",
        "#0",
        "$dumpvars",
        *(f"0{code}" for code in codes.values()),
        f"b00 {kind}",
        f"b{0:0{width}b} {block}",
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


def _spans(session: ReplayedSession, byte_s: float) -> dict[str, list[tuple[float, float]]]:
    """When each signal is 1, in seconds from the session's power-on."""
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in _WIRES}
    free = [0.0, 0.0]
    for heard in session.heard:
        length = len(heard.data) * byte_s
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
