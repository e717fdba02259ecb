"""The software restoration apparatus (rows A11 and A12): restores a terminal over the wire.

``Apparatus`` is the core. It owns no clock and no port: it reads and writes a ``Line`` and is
stepped with the time, so the same code restores a terminal on a desk and one in a deterministic
simulation. ``unbrick.restore.port`` puts it on a serial port.

What the terminal says is in ``docs/protocol.md``, *The wire*.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbrick.errors import RestoreError, UnbrickError
from unbrick.wire.ymodem import CANCEL, WANT_CRC, Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Line
    from unbrick.image.format import ImageInfo

_LINE_LIMIT = 256  # Bytes of a line that are kept; the rest is noise.
_TRANSFERS = 3  # Transfers that may break before the apparatus gives up.
_LONE_PROMPTS = 2  # "C"s without a banner that prove a YMODEM receiver,
_NOISY_PROMPTS = 5  # and behind other characters.
_PROBE_AFTER = 3.0  # Silence before asking whether an application listens.
_PROBE_ANSWER = 2.0
_VERDICT_TIMEOUT = 30.0  # Checking a signature takes the terminal well under a second.
_START_TIMEOUT = 90.0  # Erasing and programming the whole partition, and up to three trials.
_TRIAL_TIME = 10.0  # An application that has run so long passed its trial, even if unsaid.
_WANT = chr(WANT_CRC)

_IDENTITY = re.compile(
    r"restoration: serial=(?P<serial>.{1,31}) hardware=(?P<hardware>.{1,31}) "
    r"counter=(?P<counter>\d{1,10})$"
)
_ANNOUNCES = re.compile(r"restoration: send the signed image")
_ACCEPTED = re.compile(r"restoration: accepted (?P<version>\S{1,31})")
_REFUSED = re.compile(r"restoration: refused, (?P<reason>.{1,200})")
_REASON = re.compile(r"restoration: (?P<reason>.{1,200})")
_RUNS = re.compile(r"terminal: (?P<software>.{1,200})")
_CONFIRMED = re.compile(r"update: \S{1,31} confirmed")
_FROM_BOOT = re.compile(r"(boot|panic): ")
_PROMPT = "> "
_BANNER = b"restoration: "


class Stage(enum.Enum):
    """How far the restoration is."""

    SEARCHING = "looking for a terminal in the restoration state"
    SENDING = "sending the image"
    VERDICT = "waiting for the terminal's verdict"
    STARTING = "the terminal is rewriting and starting"
    DONE = "restored"
    FAILED = "failed"


@dataclass(frozen=True)
class Terminal:
    """What a terminal in the restoration state says of itself."""

    serial: str
    hardware_id: str
    security_counter: int


class Apparatus:
    """Restores one terminal, as a peer on its wire.

    Args:
        line: the host's end of the terminal's UART0.
        image: the signed image, as it lies in the NOR.
        info: of that image.
        wait: seconds to wait for a terminal that asks to be restored. None: for ever; then an
            application that runs is no error either, and whatever fails is tried again.
        say: called with every line that the terminal says.
        console: ask a silent terminal for its prompt, to tell one that runs from one that is dead.

    Attributes:
        stage: how far it is.
        reason: why the terminal wants to be restored, as it says; empty when it has not said.
        terminal: who it is; None when it has not said.
        accepted: the version that the terminal accepted; empty before that.
        running: what the terminal's application said when it started after the restoration.
        error: why it failed, in the stage FAILED.
        transfers: transfers that were begun.
    """

    def __init__(
        self,
        line: Line,
        image: bytes,
        info: ImageInfo,
        *,
        wait: float | None = 60.0,
        say: Callable[[str], None] | None = None,
        console: bool = True,
    ) -> None:
        self.stage = Stage.SEARCHING
        self.reason = ""
        self.terminal: Terminal | None = None
        self.accepted = ""
        self.running = ""
        self.error: UnbrickError | None = None
        self.transfers = 0
        self._line = line
        self._image = image
        self._info = info
        self._wait = wait
        self._say = say
        self._console = console and wait is not None
        self._sender: Sender | None = None
        self._text = ""
        self._announced = False
        self._heard = False
        self._deadline: float | None = None
        self._probe: float | None = None
        self._started = False
        self._tail = b""
        self._delivered = False
        self._refusal = ""

    @property
    def finished(self) -> bool:
        """Whether it is over, well or not."""
        return self.stage in {Stage.DONE, Stage.FAILED}

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return len(self._image)

    @property
    def sent(self) -> int:
        """Bytes of the image that the terminal has confirmed in the current transfer."""
        return self._sender.acknowledged if self._sender else 0

    def step(self, now: float) -> float | None:
        """Do what is due.

        Args:
            now: seconds, of any clock that does not go back.

        Returns:
            When to be stepped again at the latest, if nothing arrives before; None: not at all.
        """
        if not self._started:
            self._started = True
            self._search(now)
        received = self._line.read()
        if self.finished:
            return None
        if self.stage is Stage.SENDING:
            received = self._transfer(received, now)
        if self.stage is not Stage.SENDING:
            self._listen(received, now)
        self._expire(now)
        transfer = None if self._sender is None else self._sender.deadline
        deadlines = (self._deadline, self._probe, transfer)
        return min((d for d in deadlines if d is not None), default=None)

    def cancel(self) -> None:
        """Give up; a transfer that is under way is cancelled, so that the terminal waits again."""
        if self.stage is Stage.SENDING:
            self._line.write(CANCEL)
        if not self.finished:
            self._fail(RestoreError("the restoration was cancelled", hint="start it again"))

    def _search(self, now: float) -> None:
        self.stage = Stage.SEARCHING
        self._tail = b""
        self._sender = None
        self._announced = False
        self._text = ""
        self._deadline = None if self._wait is None else now + self._wait
        self._probe = now + _PROBE_AFTER if self._console else None

    def _transfer(self, received: bytes, now: float) -> bytes:
        """Go on with the transfer; the bytes after its end are left over."""
        sender = self._sender
        assert sender is not None  # noqa: S101 - there is one in the stage SENDING
        output = sender.step(received, now)
        if output:
            self._line.write(output)
        if not sender.finished:
            self._tail = (self._tail + received)[-_LINE_LIMIT:]
            banner = self._tail.find(_BANNER)
            if banner < 0 or b"\n" not in self._tail[banner:]:
                return b""
            # The terminal started anew in the middle of it.
            rest = self._tail[banner:]
            self._search(now)
            return rest
        rest, error = sender.rest, sender.error
        if error is None:
            self.stage = Stage.VERDICT
            self._delivered = True
            self._deadline = now + _VERDICT_TIMEOUT
            self._sender = None
            self._text = ""
        elif self._wait is None or self.transfers < _TRANSFERS:
            self._search(now)
        else:
            said = f"; the terminal said: {self._refusal}" if self._refusal else ""
            self._fail(RestoreError(f"{error}{said}", hint=error.hint))
        return rest

    def _listen(self, received: bytes, now: float) -> None:
        if received:
            self._heard = True
            if self._probe is not None and self.stage is Stage.SEARCHING:
                self._probe = now + _PROBE_AFTER
        for char in received.decode("latin-1"):
            if char in "\r\n":
                line, self._text = self._text, ""
                self._hear(line, now)
            elif char.isascii() and char.isprintable() and len(self._text) < _LINE_LIMIT:
                self._text += char
            if self.finished:
                return
        if self.stage is Stage.SEARCHING:
            self._look(now)

    def _look(self, now: float) -> None:
        """Whether the unfinished line is a receiver's prompt, or a console's."""
        prompts = len(self._text) - len(self._text.rstrip(_WANT))
        if prompts < len(self._text):
            enough = _NOISY_PROMPTS
        else:
            enough = 1 if self._announced else _LONE_PROMPTS
        if prompts >= enough:
            self._begin(now)
        elif self._console and self._text == _PROMPT:
            self._runs()

    def _hear(self, line: str, now: float) -> None:
        """Take in one line. In front of it there may be "C"s from before."""
        line = line.lstrip(_WANT)
        if not line:
            return
        if self._say is not None:
            self._say(line)
        if self._delivered and (match := _RUNS.search(line)):
            self.running = match["software"]
            self.stage = Stage.STARTING
            self._deadline = now + _TRIAL_TIME
        elif self.stage is Stage.SEARCHING:
            self._hear_searching(line)
        elif match := _ACCEPTED.search(line):
            self.accepted = match["version"]
            self._await_start(now)
        elif match := _REFUSED.search(line):
            self._fail(
                RestoreError(
                    f"the terminal refused the image: {match['reason']}",
                    hint="give an image that is meant for this terminal: "
                    "`unbrick image inspect` tells",
                )
            )
        elif match := _REASON.search(line):
            # It started again without being asked to: it lost power, or the new software failed.
            if self.stage is Stage.STARTING:
                self._failed(
                    f"the terminal is in the restoration state again: {match['reason']}",
                    "restore it with another version of the software",
                    now,
                )
            else:
                self._search(now)
                self._hear_searching(line)
        elif self.stage is Stage.STARTING:
            self._hear_starting(line, now)

    def _hear_starting(self, line: str, now: float) -> None:
        if self.running and _CONFIRMED.search(line):
            self._succeed()
        elif self.running and _FROM_BOOT.search(line):
            self.running = ""  # Its trial failed; boot may try again.
            self._await_start(now)

    def _hear_searching(self, line: str) -> None:
        if match := _IDENTITY.search(line):
            self.terminal = Terminal(match["serial"], match["hardware"], int(match["counter"]))
        elif _ANNOUNCES.search(line):
            self._announced = True
        elif match := _REFUSED.search(line):
            self._refusal = match["reason"]  # It broke off the transfer.
        elif match := _REASON.search(line):
            self.reason = match["reason"]
        elif self._console and _RUNS.search(line):
            self._runs()

    def _begin(self, now: float) -> None:
        """Send the image, unless the terminal has said that it cannot accept it."""
        found, info = self.terminal, self._info
        if found is not None and found.hardware_id != info.hardware_id:
            self._fail(
                RestoreError(
                    f"the image is for {info.hardware_id}, "
                    f"the terminal {found.serial} is {found.hardware_id}",
                    hint="give the image that was built for this hardware",
                )
            )
            return
        if found is not None and info.security_counter < found.security_counter:
            self._fail(
                RestoreError(
                    f"the image is too old: its security counter is {info.security_counter}, "
                    f"the terminal {found.serial} holds {found.security_counter}",
                    hint="give a newer image",
                )
            )
            return
        self.stage = Stage.SENDING
        self.transfers += 1
        self._deadline = None
        self._probe = None
        self._tail = b""
        self._sender = Sender(f"{info.version}.bin", self._image, now)
        self._line.write(self._sender.step(bytes([WANT_CRC]), now))

    def _expire(self, now: float) -> None:
        if self._probe is not None and now >= self._probe:
            self._line.write(b"\r")
            self._probe = now + _PROBE_ANSWER
        if self._deadline is None or now < self._deadline or self.finished:
            return
        if self.stage is Stage.SEARCHING:
            what = "nothing that asks to be restored" if self._heard else "nothing answers"
            self._fail(
                RestoreError(
                    f"{what} on the wire in {self._wait:.0f} s",
                    hint="power-cycle the terminal while this waits, and check that it is in the "
                    "restoration state: it says `restoration: ...` when it starts",
                )
            )
        elif self.stage is Stage.VERDICT:
            self._failed(
                "the terminal received the image but says nothing",
                "power-cycle it and try again",
                now,
            )
        elif self.running:
            self._succeed()
        else:
            self._failed(
                f"the terminal accepted {self.accepted} but has not started it "
                f"in {_START_TIMEOUT:.0f} s",
                "power-cycle it; when it is in the restoration state again, restore it again",
                now,
            )

    def _await_start(self, now: float) -> None:
        self.stage = Stage.STARTING
        self._deadline = now + _START_TIMEOUT

    def _succeed(self) -> None:
        self.stage = Stage.DONE
        self._deadline = None

    def _runs(self) -> None:
        self._fail(
            RestoreError(
                "the terminal's application runs: there is nothing to restore",
                hint="change its software with an update over the air; to force a restoration, "
                "erase the application partition, then power-cycle the terminal",
            )
        )

    def _failed(self, what: str, hint: str, now: float) -> None:
        """Something went wrong that a patient apparatus tries again."""
        if self._wait is None:
            self._search(now)
        else:
            self._fail(RestoreError(what, hint=hint))

    def _fail(self, error: UnbrickError) -> None:
        self.stage = Stage.FAILED
        self.error = error
        self._deadline = None
        self._probe = None
        self._sender = None
