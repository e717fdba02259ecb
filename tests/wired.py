"""Scripted terminals behind real pseudo-terminals, living by the clock in threads."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import tty
from typing import TYPE_CHECKING

from unbrick.engine.serial.engine import SerialLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest
    from scripted_terminal import ScriptedTerminal


class Wired:
    """A terminal whose wire is the port ``path``, a link that outlives the cable.

    It gets power when its port is first opened: opening throws away what has arrived.
    """

    def __init__(self, terminal: ScriptedTerminal, path: Path) -> None:
        self.terminal, self.path = terminal, path
        self.opened = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._master = self._slave = -1
        self.plug()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def plug(self) -> None:
        """Connect the cable (again)."""
        with self._lock:
            self._master, self._slave = os.openpty()
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(os.ttyname(self._slave))

    def pull(self) -> None:
        """Pull the cable: what is under way is lost, and the port is gone."""
        with self._lock:
            self.path.unlink()
            os.close(self._slave)
            os.close(self._master)
            self._master = -1

    def close(self) -> None:
        """End the terminal."""
        self._stop.set()
        self._thread.join()
        if self._master >= 0:
            self.pull()

    def _live(self) -> None:
        while not self.opened.wait(0.01):
            if self._stop.is_set():
                return
        self.terminal.start(time.monotonic())
        while not self._stop.wait(0.003):
            with self._lock, contextlib.suppress(BlockingIOError):
                if self._master >= 0:
                    self.terminal.write(os.read(self._master, 8192))
            self.terminal.step(time.monotonic())
            output = self.terminal.read()
            with self._lock, contextlib.suppress(BlockingIOError):
                if self._master >= 0 and output:
                    os.write(self._master, output)


@contextlib.contextmanager
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Wired]]:
    """Connects terminals: ``wire(terminal)``; the first is ``tmp_path/wire0``, and so on."""
    wired: dict[str, Wired] = {}
    opens = SerialLine.__init__

    def open_and_tell(line: SerialLine, port: str, *arguments: int) -> None:
        opens(line, port, *arguments)
        if port in wired:
            wired[port].opened.set()

    monkeypatch.setattr(SerialLine, "__init__", open_and_tell)

    def wire(terminal: ScriptedTerminal) -> Wired:
        made = Wired(terminal, tmp_path / f"wire{len(wired)}")
        wired[str(made.path)] = made
        return made

    try:
        yield wire
    finally:
        for made in wired.values():
            made.close()
