"""The terminal's wire as lines with times: what keywords wait for, and what a failure shows."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from unbrick.errors import ExpectError

if TYPE_CHECKING:
    from collections.abc import Callable

QUOTED = 6  # lines that an error shows; the log has them all

_OVERWRITTEN = r"(?:[^\r\n]*\r+(?=[^\r\n]))*"
_LINE = re.compile(rf"{_OVERWRITTEN}([^\r\n]*)\r*\n")
"""A finished line, as it can be read: what is before a lone CR is written over by what follows. The
terminal moves its prompt below a message so."""
_REST = re.compile(rf"{_OVERWRITTEN}([^\r\n]*)\r*")


class FoundLine(NamedTuple):
    """What was found on the UART, with the names that Renode gives it.

    Attributes:
        Line: the line, without its end.
        Timestamp: seconds of the engine's time when its first character was heard.
        Groups: what the groups of a regular expression matched.
    """

    Line: str
    Timestamp: float
    Groups: tuple[str | None, ...] = ()


class Found(NamedTuple):
    """A line, and the place behind it."""

    line: FoundLine
    end: int


class Uart:
    """Everything that was said on UART0, and how far it has been looked at.

    Args:
        run: lets the terminal run until a condition, for at most so many seconds.
        clock: the engine's time in seconds.
        called: what people call the terminal.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], bool], float], bool],
        clock: Callable[[], float],
        called: str = "terminal",
    ) -> None:
        self._run, self._clock, self.called = run, clock, called
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._starts: list[int] = []
        self._times: list[float] = []
        self._events: list[tuple[int, float, str]] = []
        self.text = ""
        self.cursor = 0

    def hear(self, data: bytes) -> None:
        """Take what the terminal has said."""
        self._starts.append(len(self.text))
        self._times.append(self._clock())
        self.text += self._decoder.decode(data)

    def note(self, event: str) -> None:
        """Put something that happened to the terminal into the log, between what it says."""
        self._events.append((len(self.text), self._clock(), event))

    def skip(self) -> None:
        """Look for nothing in what was said so far."""
        self.cursor = len(self.text)

    def find(self, pattern: re.Pattern[str], *, unfinished: bool = False) -> Found | None:
        """The first line, from the cursor on, in which ``pattern`` is found."""
        at = self.cursor
        while True:
            finished = _LINE.match(self.text, at)
            line = finished or (_REST.match(self.text, at) if unfinished else None)
            if line is None:
                return None
            match = pattern.search(line.group(1))
            if match:
                end = line.end() if finished else line.start(1) + match.end()
                said = FoundLine(
                    line.group(1).rstrip(" "), self._time(line.start(1)), match.groups()
                )
                return Found(said, end)
            if not finished:
                return None
            at = line.end()

    def wait_for_echo(self, typed: str, timeout: float) -> None:
        """Wait for the line that was typed.

        Raises:
            ExpectError: it did not come: nobody reads what is typed.
        """
        echo = re.compile(re.escape(typed) + "$")
        if self.wait_until(lambda: self.find(echo), timeout) is None:
            raise ExpectError(
                f"the {self.called} does not echo {typed!r}, so it has no prompt; "
                f"its last words were:\n{self.last_words()}"
            )
        self.wait(echo, 0.0)

    def wait(
        self, pattern: re.Pattern[str], timeout: float, *, unfinished: bool = False
    ) -> FoundLine:
        """Wait for a line with ``pattern`` in it; the cursor is behind it then.

        Raises:
            ExpectError: it did not come within ``timeout`` seconds.
        """
        found = self.wait_until(lambda: self.find(pattern, unfinished=unfinished), timeout)
        if found is None:
            raise ExpectError(
                f"the {self.called} did not say {_shown(pattern)!r} within {timeout:g} s; "
                f"its last words were:\n{self.last_words()}"
            )
        self.cursor = found.end
        return found.line

    def wait_until(self, look: Callable[[], Found | None], timeout: float) -> Found | None:
        """Let the terminal run until ``look`` finds something, or the time is over."""
        self._run(lambda: look() is not None, timeout)
        return look()

    def last_words(self) -> str:
        """The last lines that the terminal has said."""
        return "\n".join(self.log().splitlines()[-QUOTED:]) or "none"

    def log(self) -> str:
        """Everything that was said and what happened, each line with its time."""
        out: list[str] = []
        at = 0
        for place, time, event in [*self._events, (len(self.text), 0.0, "")]:
            while at < place:
                line = _LINE.match(self.text, at, place) or _REST.match(self.text, at, place)
                if line is None:
                    break
                if line.group(1).strip() not in {"", ">"}:
                    out.append(f"[{self._time(line.start(1)):10.3f}] {line.group(1).rstrip()}")
                at = max(at + 1, line.end())
            if event:
                out.append(f"[{time:10.3f}] *** {event} ***")
        return "\n".join(out)

    def _time(self, place: int) -> float:
        return self._times[max(0, bisect_right(self._starts, place) - 1)] if self._times else 0.0


def compile_pattern(content: str, *, regex: bool) -> re.Pattern[str]:
    """What to look for in a line: a plain text, or a regular expression.

    Raises:
        ExpectError: it is not a regular expression.
    """
    try:
        return re.compile(content if regex else re.escape(content))
    except re.error as error:
        raise ExpectError(
            f"{content!r} is not a regular expression: {error}",
            hint="escape the backslashes: Robot takes one of two",
        ) from None


def _shown(pattern: re.Pattern[str]) -> str:
    return re.sub(r"\\([^\w])", r"\1", pattern.pattern)
