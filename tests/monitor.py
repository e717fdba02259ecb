"""Somebody who has started Renode in a window, and types into its monitor."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pexpect
from patience import PATIENCE_S

_LOGGED = re.compile(r"\d\d:\d\d:\d\d\.\d{4} \[\w+\].*\n")  # in the midst of other lines, too
_PROMPT = re.compile(r"\(([\w-]+)\) ")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[=>])")
AGAIN_S = 0.2  # until somebody asks once more for what has not come yet


class Monitor:
    """Renode with its monitor, in ``folder``. A context that ends it.

    Attributes:
        text: all that the window has shown, as plain lines.
    """

    def __init__(self, renode: str, folder: Path, *arguments: str) -> None:
        self.text = ""
        config = folder / "renode.config"
        config.write_text(f"[general]\nhistory-path = {folder / 'history'}\n")
        self._window = pexpect.spawn(
            renode,
            ["--plain", "--disable-xwt", "--config", str(config), *arguments],
            timeout=PATIENCE_S,
            encoding="utf-8",
            codec_errors="replace",
            cwd=str(folder),
            env={**os.environ, "TMPDIR": str(folder), "XDG_CONFIG_HOME": str(folder)},
            dimensions=(50, 200),
        )
        self._window.delaybeforesend = None
        self._read = 0  # of the text
        scripts = [argument for argument in arguments if not argument.startswith("-")]
        for _ in range(1 + len(scripts)):  # Renode types the script's name itself
            self.prompt = self._await(_PROMPT)[1]

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._window.isalive():
            self._window.kill(signal.SIGKILL)
            self._window.wait()  # close() has a tenth of a second for it
        self._window.close()

    def _take(self) -> None:
        try:
            data = self._window.read_nonblocking(1 << 16, timeout=0.1)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            raise AssertionError(f"Renode is gone:\n{self.text[-2000:]}") from None
        self.text += _ESCAPES.sub("", data).replace("\r", "")

    def _await(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait for ``pattern`` behind what was read already; it is read then."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := pattern.search(self.text, self._read)):
            assert time.monotonic() < deadline, (
                f"{pattern.pattern} never came:\n{self.text[-2000:]}"
            )
            self._take()
        self._read = found.end()
        return found

    def sees(self, text: str) -> None:
        """Wait for ``text``, in which ``...`` stands for anything within a line."""
        self._await(re.compile(r"[^\n]*?".join(map(re.escape, text.split("...")))))

    def asks(self, line: str) -> str:
        """Type ``line`` and wait for the next prompt; returns what came, without Renode's log."""
        self._read = len(self.text)  # what the terminal says meanwhile is still to be seen
        self._window.sendline(line)
        pattern = re.compile(rf"{re.escape(line)}\n((?s:.*?))^{_PROMPT.pattern}", re.MULTILINE)
        deadline = time.monotonic() + PATIENCE_S
        while not (found := pattern.search(_LOGGED.sub("", self.text[self._read :]))):
            assert time.monotonic() < deadline, f"no prompt after {line}:\n{self.text[-2000:]}"
            self._take()
        self.prompt = found[2]
        return found[1].strip()

    def asks_until(self, line: str, right: re.Pattern[str]) -> str:
        """Ask until the answer is ``right``; returns it."""
        deadline = time.monotonic() + PATIENCE_S
        while not right.fullmatch(answer := self.asks(line)):
            assert time.monotonic() < deadline, f"{line}: {answer}, and not {right.pattern}"
            time.sleep(AGAIN_S)
        return answer

    def quits(self) -> None:
        """Type ``quit``, and wait until Renode has ended."""
        self._window.sendline("quit")
        self._window.expect(pexpect.EOF)
        self._window.wait()
