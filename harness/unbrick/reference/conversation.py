"""What the peers of a terminal have done before is not done again.

Server, link, person and judge are a function of how they begin and of what the terminal answers.
So all that they do and ask is kept, as a tree: after each answer comes what they do then. A session
that begins the same follows the tree, and asks the terminal alone. Where an answer is new, the
peers are brought there: they are told again what was answered, and go on by themselves. Decision
0044 says why that is right.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from unbrick.engine.base import LockingFlash, NoteSource, TracedEngine
from unbrick.errors import ToolBrokenError
from unbrick.reference.layout import list_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from unbrick.engine.base import FirmwareFault, Line
    from unbrick.flash.ops import FlashOp

MOST_ENDS = 64
"""Sessions whose ends a process keeps, the latest ones: about 1 MB each, for what was sent."""

LONG = 4096
"""Bytes of an answer from which on its SHA-256 is kept instead."""

T = TypeVar("T")
Question = tuple[Any, ...]


@dataclass(eq=False, slots=True)
class Turn(Generic[T]):
    """What the peers do after an answer: they send, then they ask.

    Attributes:
        sent: the number of a line, and bytes, in order.
        asked: what they ask then; None: nothing more.
        answers: their next turn, by what was answered.
        end: what has become of them, where nothing more is asked.
        before: the turn before, and what was answered there.
    """

    sent: list[tuple[int, bytes]] = field(default_factory=list)
    asked: Question | None = None
    answers: dict[Hashable, Turn[T]] = field(default_factory=dict, repr=False)
    end: T | None = None
    before: tuple[Turn[T], Hashable] | None = field(default=None, repr=False)

    def forget(self) -> None:
        """Have this be no end, and drop all that leads to no other one."""
        self.end = None
        turn = self
        while turn.before and not turn.answers and turn.end is None:
            last, answer = turn.before
            del last.answers[answer]
            turn = last


class Conversations(Generic[T]):
    """Those of one engine, from the latest sessions.

    Args:
        most: ends that are kept.

    Attributes:
        repeated: sessions whose peers had no need to do anything.
    """

    def __init__(self, most: int = MOST_ENDS) -> None:
        self._most = most
        self._roots: dict[Hashable, Turn[T]] = {}
        self._ends: dict[Turn[T], None] = {}
        self.repeated = 0

    def begin(self, engine: TracedEngine, key: Hashable) -> Conversation[T]:
        """A session begins.

        Args:
            engine: without power, at time 0.
            key: how the peers begin: they are the same where it is equal.
        """
        return Conversation(engine, self._roots.setdefault(key, Turn()), self)

    def keep(self, turn: Turn[T], end: T | None) -> None:
        """A conversation has ended, and so it may be repeated, or not (None)."""
        if end is None:
            turn.forget()
            return
        self.repeated += turn.end is not None
        turn.end = end
        self._ends.pop(turn, None)
        self._ends[turn] = None  # the latest
        while len(self._ends) > self._most:
            oldest = next(iter(self._ends))
            del self._ends[oldest]
            oldest.forget()
            self._roots = {key: root for key, root in self._roots.items() if root.answers}


class _ToldLine:
    """A line of the terminal, as far as its peers know what it has sent."""

    def __init__(self, conversation: Conversation[Any], number: int) -> None:
        self._conversation, self._number = conversation, number
        self.waits = b""

    def write(self, data: bytes) -> None:
        """Send ``data`` to the terminal."""
        self._conversation.send(self._number, data)

    def read(self) -> bytes:
        """What came with the answers since the last call."""
        data, self.waits = self.waits, b""
        return data


class Conversation(TracedEngine, LockingFlash, Generic[T]):
    """The terminal as its peers see it: an engine that keeps what it is asked, and its answers.

    Args:
        engine: that answers, without power, at time 0.
        root: what the peers do first.
        known: where it is kept when it ends.
    """

    def __init__(self, engine: TracedEngine, root: Turn[T], known: Conversations[T]) -> None:
        self._engine, self._turn, self._conversations = engine, root, known
        self.name, self.board = engine.name, engine.board
        self._is_over = False
        self._known: deque[Any] = deque()
        self._lines = _ToldLine(self, 0), _ToldLine(self, 1)
        self.wire, self.radio = self._lines
        self._root, self._sent = root, 0
        self._powered = False
        self._now, self._op_count, self._faults = 0.0, 0, 0

    def repeat(self) -> T | None:
        """Ask the terminal what the peers ask, as far as that is known.

        Returns:
            What has become of the peers; None where they are to go on by themselves. They have to
            begin anew for that, and are told the answers.
        """
        turn = self._root
        while turn.asked is not None or turn.end is not None:
            for number, data in turn.sent:
                _find_line(self._engine, number).write(data)
            if turn.asked is None:
                break
            answer = _ask(self._engine, turn.asked)
            self._known.append(answer)
            known = turn.answers.get(_as_key(answer))
            if known is None:
                break
            turn = known
        if turn.end is not None:
            self._turn = turn
        return turn.end

    def end(self, end: T | None) -> None:
        """The peers do nothing more. What they ask from now on is not kept.

        Args:
            end: what has become of them; None: another session must find that out by itself.
        """
        if not self._is_over:
            self._is_over = True
            self._conversations.keep(self._turn, end)

    def send(self, line: int, data: bytes) -> None:
        """The peers send.

        Raises:
            ToolBrokenError: they did something else after the same answers.
        """
        turn, sent = self._turn, (line, data)
        if self._is_over:
            _find_line(self._engine, line).write(data)
            return
        if turn.asked is not None or self._sent < len(turn.sent):
            if turn.sent[self._sent : self._sent + 1] != [sent]:
                raise ToolBrokenError(f"the peers sent {sent}, and did not before")
        else:
            turn.sent.append(sent)
        self._sent += 1
        if not self._known:
            _find_line(self._engine, line).write(data)

    def ask(self, *question: Any) -> Any:
        """The peers ask.

        Raises:
            ToolBrokenError: they did something else after the same answers.
        """
        turn = self._turn
        if self._is_over:
            return _ask(self._engine, question)
        if turn.asked is None and turn.end is None:
            turn.asked = question
        if turn.asked != question or self._sent != len(turn.sent):
            raise ToolBrokenError(f"the peers asked for {question}, and for {turn.asked} before")
        answer = self._known.popleft() if self._known else _ask(self._engine, question)
        key = _as_key(answer)
        if key not in turn.answers:
            turn.answers[key] = Turn(before=(turn, key))
        self._turn, self._sent = turn.answers[key], 0
        return answer

    def _look(self, *question: Any) -> None:
        """Ask for what may take time, or change the terminal."""
        self._now, wire, radio, self._op_count, self._faults = self.ask(*question)
        for line, heard in zip(self._lines, (wire, radio), strict=True):
            line.waits += heard

    # What the peers may ask

    @property
    def now(self) -> float:
        return self._engine.now if self._is_over else self._now

    @property
    def op_count(self) -> int:
        return self._engine.op_count if self._is_over else self._op_count

    @property
    def faults(self) -> list[FirmwareFault]:
        return self._engine.faults if self._faults else []

    def advance(self, seconds: float) -> None:
        self._look("advance", seconds)

    def power_on(self) -> None:
        self._look("power_on")
        self._powered = True

    def power_off(self) -> None:
        self._look("power_off")
        self._powered = False

    @property
    def powered(self) -> bool:
        return self._powered

    def read_memory(self, address: int, length: int) -> bytes:
        read: bytes = self.ask("read_memory", address, length)
        return read

    def read_nor(self) -> bytes:
        read: bytes = self.ask("read_nor")
        return read

    def is_locked_down(self, offset: int) -> bool:
        """Whether the terminal's software cannot change a block."""
        return bool(self.ask("is_locked_down", offset))

    def list_starts(self) -> Sequence[FlashOp]:
        """The operations on the counter of starts so far."""
        starts: Sequence[FlashOp] = self.ask("list_starts")
        return starts

    @property
    def ops(self) -> Sequence[FlashOp]:
        ops: Sequence[FlashOp] = self.ask("ops")
        return ops

    @property
    def cut_reached(self) -> bool:
        return False

    @property
    def relevant(self) -> int:
        raise self._refuse()

    # What is not for the peers

    def load_nor(self, image: bytes) -> None:
        raise self._refuse(image)

    def cut_before_op(self, index: int | None) -> None:
        raise self._refuse(index)

    def note_reads(self, sources: NoteSource = NoteSource.ALL) -> None:
        raise self._refuse(sources)

    def forget(self) -> None:
        raise self._refuse()

    def close(self) -> None:
        raise self._refuse()

    def _refuse(self, *_: object) -> ToolBrokenError:
        return ToolBrokenError("a terminal's peers have done what is not theirs")


def _find_line(engine: TracedEngine, number: int) -> Line:
    return engine.radio if number else engine.wire


def _look_at(engine: TracedEngine) -> tuple[float, bytes, bytes, int, int]:
    """What peers see of a terminal whenever it was its turn."""
    heard = engine.wire.read(), engine.radio.read()
    return engine.now, *heard, engine.op_count, len(engine.faults)


def _have_pass(name: str) -> Callable[..., object]:
    """A method after which is looked what has come of it."""

    def ask(engine: TracedEngine, *given: Any) -> object:
        getattr(engine, name)(*given)
        return _look_at(engine)

    return ask


def _is_locked_down(engine: TracedEngine, offset: int) -> object:
    return isinstance(engine, LockingFlash) and engine.is_locked_down(offset)


_QUESTIONS: Mapping[str, Callable[..., object]] = {
    "advance": _have_pass("advance"),
    "power_on": _have_pass("power_on"),
    "power_off": _have_pass("power_off"),
    "read_memory": lambda engine, *place: engine.read_memory(*place),
    "read_nor": lambda engine: engine.read_nor(),
    "is_locked_down": _is_locked_down,
    "list_starts": lambda engine: tuple(list_starts(engine)),
    "ops": lambda engine: tuple(engine.ops),
}
"""How a terminal is asked."""


def _ask(engine: TracedEngine, question: Question) -> Any:
    return _QUESTIONS[question[0]](engine, *question[1:])


def _as_key(answer: Any) -> Hashable:
    """What is kept of an answer."""
    if isinstance(answer, bytes) and len(answer) >= LONG:
        return hashlib.sha256(answer).digest()
    key: Hashable = answer
    return key
