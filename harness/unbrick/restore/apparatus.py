"""The software restoration apparatus (rows A11 and A12): restores a terminal over the wire.

``Apparatus`` is the core. It owns no clock and no port: it reads and writes a ``Line``, and is
stepped with the time. So the same code restores a terminal on a desk and one in a deterministic
simulation. ``unbrick.restore.port`` puts it on a serial port.

A terminal is restored when it runs, and when its NOR was read back. Nothing is called a success
before that.
"""

from __future__ import annotations

import enum
import hashlib
from typing import TYPE_CHECKING

from unbrick.restore import troubles, words
from unbrick.restore.words import Ear, WiredTerminal
from unbrick.wire.ymodem import CANCEL, NAK, WANT_CRC, Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Line
    from unbrick.errors import UnbrickError
    from unbrick.image.format import ImageInfo

ATTEMPTS = 5
"""Transfers that are begun at most, unless told otherwise."""

_LONE_PROMPTS = 2  # "C"s without a banner that prove a YMODEM receiver,
_NOISY_PROMPTS = 5  # and behind other characters.
_CLEAN = 3  # Blocks that may be sent again before a new transfer takes the line for a bad one.
_PROBE_SILENCE_S = 3.0  # Silence before asking whether an application listens.
_PROBE_TIMEOUT_S = 2.0
_VERDICT_TIMEOUT_S = 30.0  # Checking a signature takes the terminal well under a second.
_START_TIMEOUT_S = 90.0  # Erasing and programming the whole partition, and up to three trials.
_TRIAL_TIME_S = 10.0  # An application that has run so long has passed its trial, even unsaid.
_DIGEST_TIMEOUT_S = 5.0  # Hashing the whole partition takes the terminal about a second.
_PROMPT_TIMEOUT_S = 1.0  # The prompt follows at once.
_DIGEST_TRIES = 8  # The line may be noisy, and the power may be cut.
_WANT = chr(WANT_CRC)


class RestorationStage(enum.Enum):
    """How far the restoration is."""

    SEARCHING = "looking for a terminal in the restoration state"
    SENDING = "sending the image"
    VERDICT = "waiting for the terminal's verdict"
    STARTING = "the terminal is rewriting and starting"
    READING_BACK = "reading back what lies in the NOR"
    DONE = "restored"
    FAILED = "failed"


class Apparatus:
    """Restores one terminal, as a peer on its wire.

    Args:
        line: the host's end of the terminal's UART0.
        image: the signed image, as it lies in the NOR.
        info: of that image.
        wait: seconds to wait for a terminal that asks to be restored, at first and whenever a
            restoration broke off. None: for ever. Then an application that runs is no error,
            every failure is tried again, and nothing is ever typed at a console.
        attempts: transfers that are begun at most. It has no effect when ``wait`` is None.
        say: called with every line that the terminal says.
        console: ask a silent terminal for its prompt, to tell one that runs from one that is dead.
        read_back: ask the restored software for the digest of the image in the NOR.
        held: find a terminal, but send nothing before :attr:`held` is set to false.

    Attributes:
        stage: how far it is.
        asks: a terminal has asked to be restored.
        reason: why the terminal wants to be restored, in its words; empty when it has not said.
        terminal: who it is; None when it has not said.
        accepted: the version that the terminal accepted; empty before that.
        running: the first line of the application that started after the restoration.
        digest: SHA-256 of the whole image that was read back (hexadecimal); empty before that.
        error: why it failed, in the stage FAILED.
        transfers: transfers that were begun. 0 in the stage DONE: it had the image already.
        repeats: blocks that were sent again, in all transfers.
        application_runs: an application answered to the search for a terminal to restore.
    """

    def __init__(
        self,
        line: Line,
        image: bytes,
        info: ImageInfo,
        *,
        wait: float | None = 60.0,
        attempts: int = ATTEMPTS,
        say: Callable[[str], None] | None = None,
        console: bool = True,
        read_back: bool = True,
        held: bool = False,
    ) -> None:
        self.stage = RestorationStage.SEARCHING
        self.asks = False
        self.reason = ""
        self.terminal: WiredTerminal | None = None
        self.accepted = ""
        self.running = ""
        self.digest = ""
        self.error: UnbrickError | None = None
        self.transfers = 0
        self.repeats = 0
        self.application_runs = False
        self.held = held
        self._line = line
        self._image = image
        self._info = info
        self._wait = wait
        self._attempts = attempts
        self._say = say
        self._console = console and wait is not None
        self._reads_back = read_back and wait is not None
        self._sender: Sender | None = None
        self._ear = Ear()
        self._announced = False
        self._deadline: float | None = None
        self._probe: float | None = None
        self._started = False
        self._tail = b""
        self._delivered = False
        self._refusal = ""
        self._objection = ""
        self._asked = 0
        self._heard_since_asked = False
        self._other_digest = ""
        self._serial = ""
        self._trouble: UnbrickError | None = None

    @property
    def finished(self) -> bool:
        """Whether it is over, well or not."""
        return self.stage in (RestorationStage.DONE, RestorationStage.FAILED)

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
        if self.stage is RestorationStage.SENDING:
            received = self._transfer(received, now)
        if self.stage is not RestorationStage.SENDING:
            self._listen(received, now)
        self._expire(now)
        transfer = None if self._sender is None else self._sender.deadline
        deadlines = (self._deadline, self._probe, transfer)
        return min((d for d in deadlines if d is not None), default=None)

    def cancel(self) -> None:
        """Give up. A transfer under way is cancelled, so that the terminal waits again."""
        if self.stage is RestorationStage.SENDING:
            self._line.write(CANCEL)
        if not self.finished:
            self._fail(troubles.cancelled())

    def reconnect(self, line: Line, now: float) -> None:
        """Go on, on a line that was gone. Look for the terminal again, and start over."""
        self._line = line
        self._ear.text = ""
        if not self.finished:
            self._search(now)

    def _search(self, now: float) -> None:
        self.stage = RestorationStage.SEARCHING
        self._tail = b""
        self._end_transfer()
        self._announced = False
        self._ear.text = ""
        self._deadline = None if self._wait is None else now + self._wait
        knocks = self._console or (self._reads_back and self.transfers)
        self._probe = now + _PROBE_SILENCE_S if knocks else None

    def _end_transfer(self) -> None:
        if self._sender is not None:
            self.repeats += self._sender.repeats
        self._sender = None

    def _transfer(self, received: bytes, now: float) -> bytes:
        """Go on with the transfer; the bytes after its end are left over."""
        sender = self._sender
        assert sender is not None  # noqa: S101 - there is one in the stage SENDING
        output = sender.step(received, now)
        if output:
            self._line.write(output)
        if not sender.finished:
            self._tail = (self._tail + received)[-words.LINE_LIMIT :]
            banner = self._tail.find(words.BANNER)
            if banner < 0 or b"\n" not in self._tail[banner:]:
                return b""
            # The terminal has started again in the middle of it.
            rest = self._tail[banner:]
            self._search(now)
            return rest
        if sender.error is None:
            self._end_transfer()
            self._delivered = True
            self._ear.text = ""
            self._await(RestorationStage.VERDICT, now + _VERDICT_TIMEOUT_S)
        else:
            self._retry(troubles.broken_off(sender.error, self._refusal), now)
        return sender.rest

    def _listen(self, received: bytes, now: float) -> None:
        self._heard_since_asked |= bool(received)
        if received and self._probe is not None:
            self._probe = now + _PROBE_SILENCE_S
            if set(received) == {NAK}:
                # It waits for the next block of a transfer that broke off: let it start over.
                self._line.write(CANCEL)
        for char in received.decode("latin-1"):
            line = self._ear.hear(char)
            # In front of it there may be "C"s from before.
            if line is not None and (line := line.lstrip(_WANT)):
                if self._say is not None:
                    self._say(line)
                self._hear(line, now)
            if self.finished:
                return
        if self.stage is RestorationStage.SEARCHING:
            self._look(now)
        elif self.digest and self._ear.text == words.PROMPT:
            self._await(RestorationStage.DONE, None)

    def _look(self, now: float) -> None:
        """Whether the unfinished line is a receiver's prompt, or a console's."""
        text = self._ear.text
        prompts = len(text) - len(text.rstrip(_WANT))
        lone = 1 if self._announced else _LONE_PROMPTS
        enough = lone if prompts == len(text) else _NOISY_PROMPTS
        if prompts >= enough:
            self.asks = True
            if not self.held:
                self._begin(now)
        elif self._probe is not None and text == words.PROMPT:
            self._runs(now)

    def _hear(self, line: str, now: float) -> None:
        """Take in one line."""
        if self._delivered and (match := words.RUNS.search(line)):
            self.running = match["software"]
            self._await(RestorationStage.STARTING, now + _TRIAL_TIME_S)
        elif self.stage is RestorationStage.SEARCHING:
            self._hear_searching(line, now)
        elif match := words.ACCEPTED.search(line):
            self.accepted = match["version"]
            self._await(RestorationStage.STARTING, now + _START_TIMEOUT_S)
        elif match := words.REFUSED.search(line):
            self._refused(match["reason"], now)
        elif match := words.REASON.search(line):
            # It started again by itself: the power was cut, or the new software failed.
            self._again(line, match["reason"], now)
        elif self.stage is RestorationStage.STARTING:
            self._hear_starting(line, now)
        elif self.stage is RestorationStage.READING_BACK:
            self._hear_reading(line, now)

    def _again(self, line: str, reason: str, now: float) -> None:
        last = words.FAILED_TRIAL.search(reason) or self.transfers >= self._attempts
        if self.stage is RestorationStage.STARTING and last and self._wait is not None:
            self._fail(troubles.not_better(reason))
        else:
            self._search(now)
            self._hear_searching(line, now)

    def _hear_starting(self, line: str, now: float) -> None:
        if self.running and words.CONFIRMED.search(line):
            self._succeed(now)
        elif self.running and words.FROM_BOOT.search(line):
            self.running = ""  # Its trial failed; boot may try again.
            self._await(RestorationStage.STARTING, now + _START_TIMEOUT_S)

    def _hear_reading(self, line: str, now: float) -> None:
        if match := words.DIGEST.search(line):
            self._compare(match["digest"], int(match["size"]), now)
        elif match := words.SERIAL.search(line):
            self._serial = match["serial"]
        elif match := words.HARDWARE.search(line):
            # Its words before the transfer have precedence: they were said unasked.
            self.terminal = self.terminal or WiredTerminal(self._serial, match["hardware"], None)
        elif words.UNKNOWN.search(line):
            self._read_back(now)
        elif words.FROM_BOOT.search(line):
            self.running = ""
            self._search(now)

    def _hear_searching(self, line: str, now: float) -> None:
        if match := words.IDENTITY.search(line):
            if self._ear.clean:  # A spoiled name must not keep the right image from being sent.
                self.terminal = WiredTerminal(
                    match["serial"], match["hardware"], int(match["counter"])
                )
        elif words.ANNOUNCES.search(line):
            self._announced = True
        elif words.ACCEPTED.search(line):
            pass  # From somebody else: over the air, or before the line was gone.
        elif match := words.REFUSED.search(line):
            self._refusal = match["reason"]  # It broke off the transfer.
            if self.transfers and words.FINAL.search(self._refusal):
                self._refused(self._refusal, now)
        elif match := words.REASON.search(line):
            self.reason = match["reason"]
        elif self._console and not self._reads_back and words.RUNS.search(line):
            self._runs(now)

    def _refused(self, reason: str, now: float) -> None:
        error = troubles.refused(reason)
        if words.FINAL.search(reason) or reason == self._objection:
            self._fail(error)
        else:
            self._objection = reason
            self._retry(error, now)

    def _begin(self, now: float) -> None:
        """Send the image, unless the terminal has said that it cannot accept it."""
        if problem := troubles.unfit(self._info, self.terminal):
            self._fail(problem)
            return
        if self._wait is not None and self.transfers >= self._attempts:
            self._fail(self._trouble or troubles.asks_again(self.transfers))
            return
        self.transfers += 1
        self._probe = None
        self._tail = b""
        self._delivered = False
        self._refusal = ""
        self.accepted = self.running = ""
        self._await(RestorationStage.SENDING, None)
        self._sender = Sender(
            f"{self._info.version}.bin", self._image, now, short=self.repeats > _CLEAN
        )
        self._line.write(self._sender.step(bytes([WANT_CRC]), now))

    def _expire(self, now: float) -> None:
        if self._probe is not None and now >= self._probe:
            self._line.write(b"\r")
            self._probe = now + _PROBE_TIMEOUT_S
        if self._deadline is None or now < self._deadline or self.finished:
            return
        if self.stage is RestorationStage.SEARCHING:
            self._fail(self._trouble or self._ear.why_nothing(self._wait or 0))
        elif self.stage is RestorationStage.READING_BACK:
            self._unanswered(now)
        elif self.stage is RestorationStage.VERDICT:
            self._retry(troubles.no_verdict(), now)
        elif self.running:
            self._succeed(now)
        else:
            self._retry(troubles.not_started(self.accepted, _START_TIMEOUT_S), now)

    def _await(self, stage: RestorationStage, deadline: float | None) -> None:
        self.stage = stage
        self._deadline = deadline
        self._probe = None

    def _succeed(self, now: float) -> None:
        """It runs. Whether that is the image that was sent, is another question."""
        if self._reads_back:
            self._read_back(now)
        else:
            self._await(RestorationStage.DONE, None)

    def _runs(self, now: float) -> None:
        """A console answers, instead of a terminal in the restoration state."""
        self.application_runs = True
        if self._reads_back:
            self._read_back(now)
        else:
            self._fail(troubles.runs_fine())

    def _read_back(self, now: float) -> None:
        """Ask for the digest of the NOR, until it is that of the image, or there is no hope."""
        if self._asked < _DIGEST_TRIES:
            self._asked += 1
            self._heard_since_asked = False
            self._await(RestorationStage.READING_BACK, now + _DIGEST_TIMEOUT_S)
            self._line.write(words.READ_BACK)
        elif not self.transfers:
            self._fail(troubles.runs_fine())
        elif self._other_digest:
            self._fail(troubles.not_what_was_sent(self._other_digest, self._image))
        else:
            self._fail(troubles.not_read_back())

    def _unanswered(self, now: float) -> None:
        if self.digest:
            self._await(RestorationStage.DONE, None)
        elif self._heard_since_asked or not self.transfers:
            self._read_back(now)
        else:
            self._trouble = troubles.silent_again()
            self._search(now)

    def _compare(self, digest: str, size: int, now: float) -> None:
        if (digest, size) == (hashlib.sha256(self._image).hexdigest(), len(self._image)):
            self.digest = digest
            self._deadline = now + _PROMPT_TIMEOUT_S  # The console is left as it was found.
        else:  # Noise can make right wrong, but neither wrong right nor twice the same.
            if digest == self._other_digest:
                self._asked = _DIGEST_TRIES
            self._other_digest = digest
            self._read_back(now)

    def _retry(self, error: UnbrickError, now: float) -> None:
        """Something went wrong that may go well the next time."""
        if self._wait is None or self.transfers < self._attempts:
            self._trouble = error
            self._search(now)
        else:
            self._fail(error)

    def _fail(self, error: UnbrickError) -> None:
        self.error = error
        self._end_transfer()
        self._await(RestorationStage.FAILED, None)
