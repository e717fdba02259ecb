"""A terminal as the restoration apparatus sees it, scripted: for tests without firmware."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ymodem_receiver import Receiver

from unbrick.errors import ImageError
from unbrick.image.format import inspect
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = reference_layout()


@dataclass
class ScriptedTerminal:
    """Speaks `docs/protocol.md`, *The wire*; also the apparatus's end of it (a ``Line``).

    Attributes:
        application: starts with a valid application instead of the restoration state.
        check: says why an image is refused; empty to accept it.
        trials: what the new application says at each start: ``ok``, ``quiet``, ``panic``
            or ``dead``, which panics and does not start again.
        limit: bytes of a file; a larger one is refused at its header.
        stores: what comes into the NOR of an image that was accepted.
        reads_back: what its application says the SHA-256 of these contents of the NOR is; without
            the command, None.
        cut_at: bytes received by YMODEM after which power is lost once.
        garbled: passes what the terminal says, to disturb it.
    """

    serial: str = "T-0001"
    hardware_id: str = LAYOUT.hardware_id
    counter: int = 1
    reason: str = "no application"
    application: bool = False
    banner: bool = True
    check: Callable[[bytes], str] = lambda _image: ""
    trials: list[str] = field(default_factory=lambda: ["ok"])
    limit: int = 1 << 20
    stores: Callable[[bytes], bytes] = lambda image: image
    reads_back: Callable[[bytes], str] | None = lambda image: hashlib.sha256(image).hexdigest()
    cut_at: int | None = None
    garbled: Callable[[bytes], bytes] = lambda data: data
    image: bytes = b""
    starts: int = 0
    asked: int = 0
    _typed: bytes = b""
    _inbox: bytes = b""
    _outbox: bytes = b""
    _receiver: Receiver | None = None
    _powered: bool = False

    def write(self, data: bytes) -> None:
        """The apparatus sends."""
        self._inbox += data

    def read(self) -> bytes:
        """The apparatus receives."""
        data, self._outbox = self._outbox, b""
        return self.garbled(data)

    def start(self, now: float) -> None:
        """Get power, or power back."""
        self._powered = True
        self._receiver = None
        self._inbox = self._typed = b""
        if self.banner:
            self._say("boot: unbrick boot 1.0.0")
        if self.application:
            self._start_application(now)
        else:
            self._ask(now)

    def step(self, now: float) -> None:
        """Do what is due."""
        if not self._powered:
            return
        received, self._inbox = self._inbox, b""
        if self._receiver is None:
            self._typed += received
            while self._receiver is None and b"\r" in self._typed:
                line, self._typed = self._typed.split(b"\r", 1)
                self._command(line)
            return
        self._outbox += self._receiver.step(received, now)
        if self.cut_at is not None and len(self._receiver.data) >= self.cut_at:
            self.cut_at = None
            self.reason = "power came back"
            self.start(now)
        elif self._receiver.size > self.limit:
            self._outbox = b"\x18" * 5 + b"\r\n"
            self._say("restoration: refused, file too large")
            self._receiver = Receiver(now + 1.0)
        elif self._receiver.cancelled:
            self._receiver = Receiver(now + 1.0)
        elif self._receiver.finished:
            self._judge(self._receiver.data, now)

    def cut(self) -> None:
        """Lose power; what was said is on the line already."""
        self._powered = False

    def _command(self, line: bytes) -> None:
        self._outbox += line + b"\r\n"
        if line == b"digest" and self.reads_back:
            self.asked += 1
            self._say(f"sha256: {self.reads_back(self.image)}, {len(self.image)} bytes in the NOR")
        elif line == b"id":
            self._say(f"serial:   {self.serial}")
            self._say(f"hardware: {self.hardware_id}")
        elif line:
            self._say(f'no command "{line.decode("latin-1")}": type help')
        self._outbox += b"> "

    def _say(self, line: str) -> None:
        self._outbox += line.encode() + b"\r\n"

    def _ask(self, now: float) -> None:
        if self.banner:
            self._say(f"restoration: {self.reason}")
            self._say(
                f"restoration: serial={self.serial} hardware={self.hardware_id} "
                f"counter={self.counter}"
            )
            self._say("restoration: send the signed image by YMODEM")
        self._receiver = Receiver(now)

    def _judge(self, image: bytes, now: float) -> None:
        self._receiver = Receiver(now + 1.0)
        try:
            info = inspect(image)
        except ImageError as error:
            self._say(f"restoration: refused, {error}")
            return
        if why := self.check(image):
            self._say(f"restoration: refused, {why}")
            return
        self._say(f"restoration: accepted {info.version}")
        self.image = self.stores(image)
        self._say("agent: rewriting 1 of 1 blocks")
        self._say("agent: done")
        self._start_application(now)

    def _start_application(self, now: float) -> None:
        """Start it up to three times, as boot does."""
        self._receiver = None
        for trial in self.trials:
            self.starts += 1
            self._say("boot: unbrick boot 1.0.0")
            self._say("terminal: unbrick-terminal 1.1.0, built 2026-01-31T12:00:00Z")
            self._outbox += b"> "
            if trial in {"panic", "dead"}:
                self._say("panic: self-check failed")
            if trial == "panic":
                continue
            self._powered = trial != "dead"
            if trial == "ok":
                self._say("update: 1.1.0 confirmed")
                self._outbox += b"> "
            return
        self.reason = "the new software failed its trial"
        self._ask(now)
