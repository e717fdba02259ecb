"""The terminal's console as a test uses it: send a line, wait for text, keep the transcript."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from unbrick.errors import ExpectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Line

TAIL = 1200  # characters of the transcript that a failure shows


class Console:
    """UART0 as text.

    It is a peer of the bench: it reads the line whenever the bench gives it a turn. A wait looks
    for its text behind the text that the last wait has found. So nothing is seen twice or missed.

    Args:
        line: the engine's end of UART0.
        run: lets the terminal run until a condition or for a time in seconds; says whether it held.
        called: what people call the terminal.

    Attributes:
        text: all that was said.
        listeners: called with every piece of output, for logs and for peers on the same line.
    """

    def __init__(
        self,
        line: Line,
        run: Callable[[Callable[[], bool], float], bool],
        called: str = "terminal",
    ) -> None:
        self._line, self._run, self._called = line, run, called
        self._seen = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.text = ""
        self.listeners: list[Callable[[bytes], None]] = []

    def step(self, _now: float) -> None:
        """Take in what the terminal has said."""
        data = self._line.read()
        if data:
            self.hear(data)

    def hear(self, data: bytes) -> None:
        """Take in what somebody else has read from the line."""
        # A character may come in two pieces.
        self.text += self._decoder.decode(data)
        for listener in self.listeners:
            listener(data)

    def write(self, data: bytes) -> None:
        """Send raw bytes."""
        self._line.write(data)

    def type(self, text: str) -> None:
        """Type a line and press Enter."""
        self._line.write(text.encode() + b"\r")

    def expect(self, text: str, timeout: float = 30.0) -> str:
        """Wait until the terminal has said ``text`` (plain, not a pattern).

        Returns the text before it. ``timeout`` is in seconds of the engine's time.

        Raises:
            ExpectError: it did not come in time; the message shows the end of the transcript.
        """
        match = self.expect_pattern(re.escape(text), timeout, shown=text)
        return match.string[: match.start()]

    def expect_pattern(
        self, pattern: str, timeout: float = 30.0, *, shown: str | None = None
    ) -> re.Match[str]:
        """As :meth:`expect`, with a regular expression; returns the match."""
        compiled = re.compile(pattern, re.MULTILINE)
        found: list[re.Match[str]] = []

        def said() -> bool:
            match = compiled.search(self.text[self._seen :])
            if match:
                found.append(match)
            return match is not None

        if not self._run(said, timeout):
            raise ExpectError(
                f"the {self._called} did not say {shown or pattern!r} within {timeout:g} s; "
                f"its last words were:\n{self.text[-TAIL:]}",
            )
        self._seen += found[0].end()
        return found[0]

    def command(self, line: str, timeout: float = 30.0) -> str:
        """Type ``line`` at the prompt and return the terminal's answer, without the prompt."""
        self.type(line)
        self.expect(line + "\r\n", timeout)
        return self.expect("\r\n> ", timeout) if line else self.expect("> ", timeout)

    def skip(self) -> None:
        """Pass over everything that was said so far."""
        self.step(0.0)
        self._seen = len(self.text)

    @property
    def unread(self) -> str:
        """The text behind the last text that was waited for."""
        return self.text[self._seen :]
