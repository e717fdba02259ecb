"""The console as a driver of an update has it: it writes, and yields what it waits for.

A driver is a generator. It gets the console, and yields one wait after the other::

    def update(console, payload, options):
        console.write(b"flash\\r")
        yield console.until("ready> ", within=2.0)
        console.write(payload.data)
        answer = yield console.read(2, within=1.0)
        if answer != b"OK":
            console.give_up("the device does not take the file")

Time is the device's, in virtual seconds.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from unbrick.errors import DeviceSilentError, DriverGaveUpError, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import FrameType

    from unbrick.engine.base import Line

TURN_TIMEOUT_S = 10.0
"""Seconds by the clock that a driver may take until it waits for something again."""

MAX_HEARD_SIZE = 1 << 20
"""Bytes that wait for a driver; older ones are dropped."""


@dataclass(frozen=True)
class Wait:
    """What a driver waits for; made by :class:`DriverConsole`.

    Attributes:
        until: the text that must come; empty: none.
        count: or so many bytes; 0: only time passes.
        deadline: when the waiting ends at the latest, in the engine's seconds.
        within: the same as a length.
    """

    until: bytes
    count: int
    deadline: float
    within: float


class DriverConsole:
    """The device's console, as a driver uses it.

    Attributes:
        now: virtual seconds.
        remembered: the text of the last :meth:`remember`, also from before the power cut; empty:
            there was none.
    """

    def __init__(self, line: Line, now: float, remembered: str = "") -> None:
        self._line = line
        self._heard = bytearray()
        self.now = now
        self.remembered = remembered

    def write(self, data: bytes | str) -> None:
        """Send bytes, or a text as UTF-8; they arrive at the line's rate."""
        self._line.write(data.encode() if isinstance(data, str) else bytes(data))

    def until(self, text: bytes | str, within: float = 5.0) -> Wait:
        """To be yielded: waits for a text, and gives all that came, with it at the end.

        Where it does not come, the yield raises :class:`unbrick.errors.DeviceSilentError`.
        """
        data = text.encode() if isinstance(text, str) else bytes(text)
        return Wait(data, 0, self.now + within, within)

    def read(self, count: int, within: float = 5.0) -> Wait:
        """To be yielded: gives the next ``count`` bytes, or fewer when the time is over."""
        return Wait(b"", count, self.now + within, within)

    def pause(self, seconds: float) -> Wait:
        """To be yielded: lets time pass."""
        return Wait(b"", 0, self.now + seconds, seconds)

    def remember(self, text: str) -> None:
        """Keep a text over power cuts, in place of the last one: what the device has promised.

        A power cut after this moment leaves a driver with this text, one before it with the last.

        Raises:
            TypeError: it is no text.
        """
        if not isinstance(text, str):
            raise TypeError(f"a driver remembers a text, not {text!r}")
        self.remembered = text

    def give_up(self, why: str) -> NoReturn:
        """End: the device does not do its part.

        Raises:
            DriverGaveUpError: always.
        """
        raise DriverGaveUpError(why)

    def hear(self, data: bytes) -> None:
        """Take in what the device has said."""
        self._heard += data
        del self._heard[:-MAX_HEARD_SIZE]

    def take(self, wait: Wait) -> bytes | None:
        """What a wait has come to; None: it goes on.

        Raises:
            DeviceSilentError: its text did not come in time.
        """
        heard, over = self._heard, self.now >= wait.deadline
        if wait.until:
            at = heard.find(wait.until)
            if at >= 0:
                return self._consume(at + len(wait.until))
            if over:
                text = wait.until.decode(errors="replace")
                raise DeviceSilentError(f"the device did not say {text!r} in {wait.within:g} s")
            return None
        if over or (wait.count and len(heard) >= wait.count):
            return self._consume(min(wait.count, len(heard)))
        return None

    def _consume(self, count: int) -> bytes:
        taken = bytes(self._heard[:count])
        del self._heard[:count]
        return taken


class DriverRun:
    """A driver at work.

    Args:
        driving: the generator that it is.
        console: what it was given.
        path: the user's file that has it; None: it is one of ours.

    Attributes:
        finished: whether it is done.
    """

    def __init__(
        self, driving: Generator[Wait, Any, object], console: DriverConsole, path: Path | None
    ) -> None:
        self._driving, self._console, self._path = driving, console, path
        self._wait: Wait | None = None
        self.finished = False

    @property
    def deadline(self) -> float:
        """When it wants its next turn at the latest."""
        return self._wait.deadline if self._wait and not self.finished else float("inf")

    def step(self, now: float) -> None:
        """Give it its turns, until it waits for what has not come.

        Raises:
            DriverGaveUpError: the device does not do its part.
            SetupError: the user's file is wrong: it raises, hangs, or yields something else.
        """
        self._console.now = now
        while not self.finished:
            if self._wait is None:
                self._turn(partial(next, self._driving))
                continue
            try:
                came = self._console.take(self._wait)
            except DeviceSilentError as silent:
                self._turn(partial(self._driving.throw, silent))
                continue
            if came is None:
                return
            self._turn(partial(self._driving.send, came))

    def close(self) -> None:
        """End it, wherever it is."""
        self.finished = True
        with contextlib.suppress(Exception):
            self._driving.close()

    def _turn(self, go: Callable[[], Wait]) -> None:
        try:
            with _turn_timeout(self._path):
                wait = go()
        except StopIteration:
            self.finished = True
            return
        except (DriverGaveUpError, SetupError):
            raise
        except Exception as error:
            if self._path is None:
                raise
            raise _driver_error(self._path, error) from error
        if not isinstance(wait, Wait):
            raise SetupError(
                f"the driver {self._path} yields {wait!r}",
                hint="yield console.until(…), console.read(…) or console.pause(…)",
            )
        self._wait = wait


def _driver_error(path: Path, error: Exception) -> SetupError:
    """The error about a user's driver that has raised one, with the line that did."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return SetupError(
        f"the driver {path}:{line} raises {what}".replace("\n", " "),
        hint="correct it; console.give_up(…) says that the device is at fault",
    )


@contextlib.contextmanager
def _turn_timeout(path: Path | None) -> Iterator[None]:
    """Interrupt a user's driver that does not come to its next wait.

    Only the main thread can be interrupted; in another one a driver that hangs hangs.
    """
    if path is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise SetupError(
            f"the driver {path} hangs: it took more than {TURN_TIMEOUT_S:g} s without a yield",
            hint="yield what it waits for, instead of a loop or time.sleep",
        )

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, TURN_TIMEOUT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
