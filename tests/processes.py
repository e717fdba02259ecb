"""Commands of ours as processes, as a person starts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator


def unbrick(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``unbrick`` to its end."""
    return subprocess.run(
        _command(arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        **options,
    )


def _command(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "unbrick.cli", *map(str, arguments)]


class Running:
    """``unbrick`` in the background, in a process group of its own; killed at the end of ``with``.

    Attributes:
        output: the lines that it has said, both streams together.
    """

    def __init__(self, *arguments: object) -> None:
        self.output: list[str] = []
        self._said = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            _command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        yield from self._process.stdout

    def _read(self) -> None:
        for line in self._lines():
            with self._said:
                self.output.append(line)
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in what it says."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, "".join(self.output))

        with self._said:
            self._said.wait_for(lambda: found() or self._ended, PATIENCE_S)
            match = found()
        assert match, f"never said {pattern!r}, but:\n{''.join(self.output)}"
        return match

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def wait(self) -> int:
        """Wait until it ends by itself, and all is read that it has said; returns the exit code."""
        code = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to its process group, as Ctrl-C does; returns the exit code."""
        os.killpg(self._process.pid, number)
        return self.wait()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
