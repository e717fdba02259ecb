"""The restoration apparatus on serial ports: real ones, pseudo-terminals or TCP sockets."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serial.tools.list_ports import comports

from unbrick.engine.serial.engine import SerialLine
from unbrick.errors import PortError, RestoreError, UnbrickError
from unbrick.layout import reference_layout
from unbrick.restore.apparatus import ATTEMPTS, Apparatus, RestorationStage
from unbrick.restore.checked import CheckedImage, check_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from typing_extensions import Self

_MAX_WAIT_S = 0.5  # Without a look at the clock and whether to stop.
_REOPEN_INTERVAL_S = 0.5  # Between two tries to open a port that is gone.
_MOST_RETURNS = 20  # Times that a port may come back.
_END_TIMEOUT_S = 30.0  # A thread that was told to has ended by then: writing to a port may take 10.


class PortOutcome(enum.Enum):
    """How the restoration on one port ended."""

    RUNNING = "not over"
    RESTORED = "restored"
    UP_TO_DATE = "runs this image already"
    RUNS = "runs other software"
    NOTHING = "nothing asks to be restored"
    UNUSABLE = "port cannot be used"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class Options:
    """How to restore.

    Attributes:
        wait: seconds to wait for a terminal that asks to be restored, or for a port to come back.
            The same holds for the terminal after it broke off.
        baud: bits per second.
        attempts: transfers at most.
        read_back: nothing is a success that was not read back from the NOR.
        listen: type nothing before a terminal has asked to be restored.
        held: send nothing before :meth:`Restoration.release`.
    """

    wait: float = 60.0
    baud: int = field(default_factory=lambda: reference_layout().board.baud)
    attempts: int = ATTEMPTS
    read_back: bool = True
    listen: bool = False
    held: bool = False


def list_machine_ports() -> list[str]:
    """The serial ports of this machine that have hardware behind them, by name."""
    return sorted(port.device for port in comports())


class Restoration:
    """The restoration on one port, until it is over. A port that is gone is awaited.

    Args:
        port: see ``SerialLine``.
        image: to restore with.
        options: how.
        say: called with every line that the terminal says.
        progress: called at every step.

    Attributes:
        apparatus: None before the port was opened.
        error: why it is over without success.
        crash: the error in its thread that nobody expected: a bug.
        cancelled: it was told to stop.
        asked_at: when the terminal first asked to be restored, by ``time.monotonic``.
        ended_at: when it was over, likewise.
    """

    def __init__(
        self,
        port: str,
        image: CheckedImage,
        options: Options,
        *,
        say: Callable[[str], None] | None = None,
        progress: Callable[[Apparatus], None] | None = None,
    ) -> None:
        self.port, self.image, self.options = port, image, options
        self.apparatus: Apparatus | None = None
        self.error: UnbrickError | None = None
        self.crash: Exception | None = None
        self.cancelled = False
        self.asked_at: float | None = None
        self.ended_at: float | None = None
        self._say, self._progress = say, progress
        self._line: SerialLine | None = None
        self._over = False

    @property
    def asks(self) -> bool:
        """A terminal has asked to be restored."""
        return self.asked_at is not None

    @property
    def outcome(self) -> PortOutcome:
        """How it ended."""
        if not self._over:
            return PortOutcome.RUNNING
        if self.cancelled:
            return PortOutcome.CANCELLED
        if self.apparatus and self.apparatus.stage is RestorationStage.DONE:
            return PortOutcome.RESTORED if self.transfers else PortOutcome.UP_TO_DATE
        if self.asks or self.crash:
            return PortOutcome.FAILED
        if isinstance(self.error, PortError):
            return PortOutcome.UNUSABLE
        runs = self.apparatus is not None and self.apparatus.application_runs
        return PortOutcome.RUNS if runs else PortOutcome.NOTHING

    @property
    def transfers(self) -> int:
        """Transfers that were begun."""
        return self.apparatus.transfers if self.apparatus else 0

    def release(self) -> None:
        """Let a restoration that was held begin."""
        if self.apparatus:
            self.apparatus.held = False

    def run(self, stop: threading.Event | None = None) -> None:
        """Restore, and keep how it ended: errors are in :attr:`error`.

        Args:
            stop: ends it, and cancels a transfer, so that the terminal waits again.
        """
        stop = stop or threading.Event()
        try:
            self._open_and_restore(stop)
        except UnbrickError as error:
            self.error = error
        except KeyboardInterrupt:
            if self.apparatus is not None:
                self.apparatus.cancel()
            raise
        finally:
            self.ended_at = time.monotonic()
            if self._line is not None:
                self._line.close()
            self._over = True

    def _open_and_restore(self, stop: threading.Event) -> None:
        options = self.options
        line = self._line = SerialLine(self.port, options.baud)
        apparatus = self.apparatus = Apparatus(
            line,
            self.image.data,
            self.image.info,
            wait=options.wait,
            attempts=options.attempts,
            say=self._say,
            console=not options.listen,
            read_back=options.read_back,
            held=options.held,
        )
        returns = 0
        while True:
            try:
                self._restore(line, apparatus, stop)
                break
            except PortError as error:
                returns += 1
                if returns > _MOST_RETURNS:
                    raise
                line = self._reopen(error, stop)
                apparatus.reconnect(line, time.monotonic())
        self.error = apparatus.error

    def _restore(self, line: SerialLine, apparatus: Apparatus, stop: threading.Event) -> None:
        while not apparatus.finished:
            if stop.is_set():
                apparatus.cancel()
                self.cancelled = True
            now = time.monotonic()
            deadline = apparatus.step(now)
            if apparatus.asks and self.asked_at is None:
                self.asked_at = now
            if self._progress is not None:
                self._progress(apparatus)
            if not apparatus.finished:
                left = _MAX_WAIT_S if deadline is None else deadline - time.monotonic()
                line.wait(min(max(left, 0.0), _MAX_WAIT_S))

    def _reopen(self, error: PortError, stop: threading.Event) -> SerialLine:
        """Wait for a port that is gone.

        Raises:
            PortError: it did not come back.
        """
        if self._line is not None:
            self._line.close()
            self._line = None
        deadline = time.monotonic() + self.options.wait
        while not stop.wait(_REOPEN_INTERVAL_S):
            with contextlib.suppress(PortError):
                self._line = SerialLine(self.port, self.options.baud)
                return self._line
            if time.monotonic() >= deadline:
                raise error
        self.cancelled = True
        raise error


class Fleet:
    """Restorations on several ports at once, each in a thread of its own.

    Leaving it stops those that are not over.
    """

    def __init__(self, restorations: Sequence[Restoration]) -> None:
        self.restorations = restorations
        self._stops = {r.port: threading.Event() for r in restorations}
        self._threads = {
            r.port: threading.Thread(target=self._run, args=(r,), daemon=True) for r in restorations
        }

    def _run(self, restoration: Restoration) -> None:
        try:
            restoration.run(self._stops[restoration.port])
        except Exception as error:  # noqa: BLE001 - raised again where a person sees it
            restoration.crash = error

    def __enter__(self) -> Self:
        for thread in self._threads.values():
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(self.restorations)

    @property
    def running(self) -> bool:
        """Whether one is not over."""
        return any(thread.is_alive() for thread in self._threads.values())

    @property
    def asking(self) -> list[Restoration]:
        """Those whose terminal has asked to be restored."""
        return [restoration for restoration in self.restorations if restoration.asks]

    def stop(self, restorations: Sequence[Restoration]) -> None:
        """End these, and wait until they have."""
        for restoration in restorations:
            self._stops[restoration.port].set()
        deadline = time.monotonic() + _END_TIMEOUT_S
        for restoration in restorations:
            self._threads[restoration.port].join(max(deadline - time.monotonic(), 0.0))


def restore(
    port: str,
    image: Path,
    *,
    wait: float = 60.0,
    baud: int | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Apparatus], None] | None = None,
) -> Apparatus:
    """Restore the terminal on ``port`` with a signed image (Intel HEX or binary).

    Args:
        port: see ``SerialLine``.
        image: file with the image.
        wait: seconds to wait for a terminal that asks to be restored.
        baud: bits per second; by default those of our terminal.
        say: called with every line that the terminal says.
        progress: called at every step.

    Returns:
        The apparatus, with what the terminal said.

    Raises:
        ImageError: the file is no image for this board.
        PortError: the port cannot be used.
        RestoreError: the terminal was not restored.
    """
    options = Options(wait=wait) if baud is None else Options(wait=wait, baud=baud)
    restoration = Restoration(port, check_file(image), options, say=say, progress=progress)
    restoration.run()
    if restoration.error is not None:
        raise restoration.error
    if restoration.apparatus is None or restoration.apparatus.stage is not RestorationStage.DONE:
        raise RestoreError("the restoration did not come to its end", hint="start it again")
    return restoration.apparatus
