"""The person's window: the terminal's words and the bench's, in order, none lost."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import termios
import time
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_SIZE = 4096  # a pipe that is ready takes so many without blocking (PIPE_BUF)
CONGESTED_BYTES = 65536  # may wait before the terminal has to
LAST_WORDS_TIMEOUT_S = 5.0  # what whoever reads gets at the end
TAIL_BYTES = 256  # of the line that the terminal is writing


class Output:
    """A descriptor that never holds up its writer.

    Attributes:
        gone: whether nobody reads any more. Writing is then lost.
    """

    def __init__(self, descriptor: int) -> None:
        self._fd, self._own = descriptor, False
        if os.isatty(descriptor):
            # A description of our own, because it does not block: the shell's must not change.
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
                self._fd, self._own = os.open(os.ttyname(descriptor), flags), True
        self._file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._unsent = bytearray()
        self.gone = False

    @property
    def waiting(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """Write ``data``, now or as soon as it is taken."""
        self._unsent += data
        self.flush()

    def flush(self, timeout: float = 0.0) -> None:
        """Pass on what is taken at once. Wait for that for at most ``timeout`` seconds."""
        try:
            while self._unsent and not self.gone:
                if not self._file and not select.select([], [self._fd], [], timeout)[1]:
                    return
                del self._unsent[: os.write(self._fd, self._unsent[:PIECE_SIZE])]
        except BlockingIOError:
            return
        except OSError:
            self.gone = True
        if self.gone:
            self._unsent.clear()

    def close(self) -> None:
        """Pass on what waits, if somebody takes it, and end."""
        deadline = time.monotonic() + LAST_WORDS_TIMEOUT_S
        while self._unsent and time.monotonic() < deadline:
            self.flush(0.1)
        if self._own:
            os.close(self._fd)


class Screen:
    """The terminal's output with the bench's words in between.

    Args:
        output: where the terminal's output goes, byte for byte.
        words: where the bench's words go. It is the same when a person sits there.
        raw: whether the bench has to end its lines with CR LF.
    """

    def __init__(self, output: Output, words: Output, *, raw: bool) -> None:
        self.output, self.words = output, words
        self._raw = raw
        self._tail = b""
        self._held: bytearray | None = None

    @property
    def gone(self) -> bool:
        """Whether nobody sees this any more."""
        return self.output.gone

    @property
    def congested(self) -> bool:
        """Whether the terminal must wait: nobody reads, or a command is being typed."""
        return self.output.waiting + len(self._held or b"") >= CONGESTED_BYTES

    def hear(self, data: bytes) -> None:
        """Show output of the terminal."""
        if self._held is not None:
            self._held += data
        elif data:
            self._tail = (self._tail + data).rpartition(b"\n")[2][-TAIL_BYTES:]
            self.output.write(data)

    def show(self, data: bytes) -> None:
        """Show bytes of the bench's as they are."""
        self.words.write(data)

    def say(self, text: str) -> None:
        """Show lines of the bench's between those of the terminal."""
        text = text.rstrip("\n") + "\n"
        if not self._raw:
            self.show(text.encode())
            return
        within = self._held is None and self._tail
        between = b"\r\n" if within else b""
        after = self._tail if within and self.words is self.output else b""
        self.show(between + text.replace("\n", "\r\n").encode() + after)

    def hold(self, prompt: str) -> None:
        """Show a prompt of the bench's. The terminal's output waits until :meth:`release`."""
        self._held = bytearray()
        if self._raw:
            self.show((b"\r\n" if self._tail else b"") + prompt.encode())

    def release(self) -> None:
        """The bench has its answer: go on with the terminal's line."""
        held, self._held = self._held, None
        if held is not None:
            if self._raw and self.words is self.output:
                self.output.write(self._tail)
            self.hear(bytes(held))

    def new_line(self) -> None:
        """Let the next speaker begin a new line."""
        if self._raw and self._tail and self._held is None:
            self.show(b"\r\n")
        self._tail = b""

    def flush(self) -> None:
        """Pass on what waits, as far as it is taken."""
        self.output.flush()
        self.words.flush()

    def wait(self, timeout: float) -> None:
        """Wait until somebody reads, for at most ``timeout`` seconds."""
        if self.output.waiting:
            self.output.flush(timeout)
        else:
            time.sleep(timeout)


@contextlib.contextmanager
def raw_keyboard(descriptor: int) -> Iterator[None]:
    """Let every key come as it is typed. The old settings are restored however this ends."""
    before = termios.tcgetattr(descriptor)

    def set_raw(*_: object) -> None:
        with contextlib.suppress(termios.error):
            tty.setraw(descriptor, termios.TCSANOW)

    again = signal.signal(signal.SIGCONT, set_raw)  # a shell that had us stopped restores its own
    try:
        set_raw()
        yield
    finally:
        signal.signal(signal.SIGCONT, again)
        with contextlib.suppress(termios.error):  # the window is gone
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
