"""Parts of the system as processes of their own: started, waited for, ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from unbrick.engine.child import die_with_parent
from unbrick.errors import ServerError
from unbrick.patience import END_TIMEOUT_S, START_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Process:
    """A command of the package, run by this Python. Its output goes to a file.

    It ends with the thread that started it, whatever happens to that. Ctrl-C reaches it only by
    :meth:`stop`: the program that starts several processes says in which order they end.
    """

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        self._stream = log.open("wb")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "unbrick.cli", *arguments],
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one system call, no locks
        )

    @property
    def output(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line of its output."""
        return (self.output.strip().splitlines() or ["it said nothing"])[-1]

    def wait_for(self, pattern: str, given_up: Callable[[], bool] = lambda: False) -> re.Match[str]:
        """Wait until its output matches ``pattern``, or ``given_up`` says so.

        Raises:
            ServerError: it ended, said nothing of the kind in time, or was given up.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and not given_up():
            ended = self.popen.poll() is not None
            match = re.search(pattern, self.output)
            if match:
                return match
            if ended:
                break
            time.sleep(0.02)
        raise ServerError(
            f"{self.log.stem} did not start: {self.last_line.removeprefix('unbrick: ')}",
            hint=f"all that it said is in {self.log}",
        )

    def stop(self) -> int:
        """End it by SIGTERM, and by SIGKILL if that does not help.

        Returns:
            Its exit code; 0 also when it was told to end before it could listen for that.
        """
        told = self.popen.poll() is None
        if told:
            self.popen.terminate()
            try:
                self.popen.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self._stream.close()
        code = self.popen.returncode
        return 0 if told and code == -signal.SIGTERM else code
