"""Keywords: the UART, named as Renode's users know them."""
# Arguments are Renode's, too, in its spelling: a suite can be taken over as it is.
# ruff: noqa: N803

from __future__ import annotations

import re
from datetime import timedelta

from robot.api import logger

from unbrick.errors import ExpectError
from unbrick.robot.base import Keywords, keyword
from unbrick.robot.uart import FoundLine, compile_pattern

ANYTHING = compile_pattern(r"\S", regex=True)


class UartKeywords(Keywords):
    """UART0 as lines, or the console of a target file's device."""

    @keyword
    def set_default_uart_timeout(self, timeout: timedelta) -> None:
        """How long keywords wait for the terminal when they are not told."""
        self._timeout = timeout

    @keyword
    def wait_for_line_on_uart(
        self,
        content: str,
        timeout: timedelta | None = None,
        treatAsRegex: bool = False,
        includeUnfinishedLine: bool = False,
    ) -> FoundLine:
        """Waits for a line that contains ``content``, and returns it.

        Looks behind the last line that was found, so nothing is seen twice. A regular expression
        is Python's. The result has ``Line``, ``Timestamp`` (seconds of the engine's time) and
        ``Groups``.

        | `Wait For Line On Uart` | link: registered | timeout=1 min |
        | ${line} = | `Wait For Line On Uart` | secured (.*) bytes | treatAsRegex=true |
        | `Log` | ${line.Groups[0]} |
        """
        pattern = compile_pattern(content, regex=treatAsRegex)
        return self._wait(pattern, timeout, unfinished=includeUnfinishedLine)

    @keyword
    def wait_for_lines_on_uart(
        self, content: list[str], timeout: timedelta | None = None, treatAsRegex: bool = False
    ) -> list[FoundLine]:
        """Waits for several lines, in this order; others may be in between.

        ``timeout`` is for each of them.
        """
        patterns = [compile_pattern(text, regex=treatAsRegex) for text in content]
        return [self._wait(pattern, timeout) for pattern in patterns]

    @keyword
    def wait_for_next_line_on_uart(self, timeout: timedelta | None = None) -> FoundLine:
        """Waits for the next line, whatever it says; blank lines do not count."""
        return self._wait(ANYTHING, timeout)

    @keyword
    def wait_for_prompt_on_uart(
        self, prompt: str = "> ", timeout: timedelta | None = None, treatAsRegex: bool = False
    ) -> FoundLine:
        """Waits for a prompt, which has no end of line."""
        pattern = compile_pattern(prompt, regex=treatAsRegex)
        return self._wait(pattern, timeout, unfinished=True)

    def _wait(
        self, pattern: re.Pattern[str], timeout: timedelta | None, *, unfinished: bool = False
    ) -> FoundLine:
        line = self._device.uart.wait(pattern, self._seconds(timeout), unfinished=unfinished)
        logger.info(f"[{line.Timestamp:.3f}] {line.Line}")
        return line

    @keyword
    def should_not_be_on_uart(
        self,
        content: str,
        timeout: timedelta | None = None,
        treatAsRegex: bool = False,
        includeUnfinishedLine: bool = False,
    ) -> None:
        """Fails when a line with ``content`` is there or comes within ``timeout``.

        Looks behind the last line that was found, and leaves everything to be found. On engines
        that run by the clock, this takes as long as it says.
        """
        pattern = compile_pattern(content, regex=treatAsRegex)
        uart = self._device.uart
        found = uart.wait_until(
            lambda: uart.find(pattern, unfinished=includeUnfinishedLine), self._seconds(timeout)
        )
        if found is not None:
            raise ExpectError(f"the {uart.called} should not have said: {found.line.Line}")

    @keyword
    def test_if_uart_is_idle(self, timeout: timedelta) -> None:
        """Fails when the terminal says anything within ``timeout``."""
        device = self._device
        start = len(device.uart.text)
        if device.bench.run_until(lambda: len(device.uart.text) > start, timeout.total_seconds()):
            raise ExpectError(f"the UART is not idle: {device.uart.text[start:]!r}")

    @keyword
    def write_to_uart(self, content: str) -> None:
        """Sends ``content`` as it is."""
        self._device.bench.console.write(content.encode())

    @keyword
    def write_line_to_uart(self, content: str = "", waitForEcho: bool = True) -> None:
        """Sends a line, and waits until the terminal has echoed it.

        `Type Command` also gives the answer.
        """
        self._device.bench.console.type(content)
        if waitForEcho:
            self._device.uart.wait_for_echo(content, self._seconds(None))
