"""People in windows: at the console of a terminal, and at a debugger."""

from __future__ import annotations

import re
import sys
import termios
from pathlib import Path

import pexpect
from patience import PATIENCE_S

ESCAPE = "\x01"


def close(window: pexpect.spawn) -> None:
    """End what runs in a window, on a slow machine, too."""
    try:
        window.close(force=True)
    except pexpect.ExceptionPexpect:  # It was killed, and lives a tenth of a second later.
        window.wait()


class Person:
    """Somebody who has typed ``unbrick console`` in a window."""

    def __init__(self, options: list[object], folder: Path) -> None:
        self.window = pexpect.spawn(
            sys.executable,
            ["-m", "unbrick.cli", "console", *map(str, options)],
            timeout=PATIENCE_S,
            encoding="utf-8",
            codec_errors="replace",
            cwd=str(folder),
            dimensions=(50, 200),
        )
        self.window.delaybeforesend = None
        self.before = termios.tcgetattr(self.window.child_fd)

    def types(self, text: str) -> None:
        self.window.send(text)

    def sees(self, text: str) -> str:
        self.window.expect_exact(text)
        return str(self.window.before)

    def says(self, line: str) -> str:
        """Type a line to the terminal; returns the answer."""
        self.types(line + "\r")
        self.sees(line + "\r\n")
        return self.sees("\r\n> ")

    def tells_the_bench(self, line: str, answer: str = "") -> None:
        self.types(ESCAPE)
        self.sees("bench> ")
        self.types(line + "\r")
        self.sees(f"{line}\r\n{answer}")

    def is_gone(self) -> int:
        """Wait for the end; the window must be as it was. Returns the exit code."""
        self.window.expect(pexpect.EOF)
        # With the last one gone, the pseudo-terminal has its settings still.
        assert termios.tcgetattr(self.window.child_fd) == self.before
        self.window.wait()
        status = self.window.exitstatus
        assert status is not None, f"killed by {self.window.signalstatus}"
        return int(status)


class Debugger:
    """Somebody who has typed in another window what the console said."""

    def __init__(self, command: str) -> None:
        self.window = pexpect.spawn(
            "sh", ["-c", command], timeout=PATIENCE_S, encoding="utf-8", dimensions=(50, 200)
        )
        self.orders("set style enabled off")
        self.orders("set pagination off")

    def orders(self, line: str) -> None:
        self.window.expect_exact("(gdb) ")
        self.window.sendline(line)

    def sees(self, pattern: str) -> re.Match[str]:
        self.window.expect(pattern)
        match = self.window.match
        assert isinstance(match, re.Match)
        return match
