"""A terminal without firmware: the protocol from registration to confirmed update, as a script.

It costs little enough to have thousands of them. It has one request under way (NSTART 1) and gives
none up: when the server does not answer, the request is made again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Generator
from dataclasses import replace

import aiocoap

from unbrick.errors import LinkError, ToolBrokenError
from unbrick.image.factory import derive_bench_key, derive_link_key
from unbrick.layout import reference_layout
from unbrick.wire.coap import CoapEndpoint, post
from unbrick.wire.commands import (
    BackupPiece,
    BackupRequest,
    Check,
    Command,
    CommandAnswer,
    CommandResult,
    Erase,
    Finish,
    RestoreAnswer,
    RestorePiece,
    Upgrade,
    Write,
    decode_command,
)
from unbrick.wire.messages import (
    Announcement,
    Decision,
    Phase,
    Registration,
    Report,
    Result,
    Status,
    TerminalState,
)
from unbrick.wire.oscore import Context, Side
from unbrick.wire.protected import ProtectedEndpoint

LAYOUT = reference_layout()
BLOCK = 1024
REGISTRATION_INTERVAL_S = 60.0
"""Seconds after which a terminal registers again when it has heard nothing."""

_Script = Generator[aiocoap.Message | None, aiocoap.Message | None, None]


UNPUBLISHED = hashlib.sha256(b"1.0.0").digest()
"""The digest of software that no server has."""


def identity(serial: str, digest: bytes = UNPUBLISHED) -> Registration:
    """A terminal as it comes, with the software that has this digest."""
    return Registration(
        serial=serial,
        hardware_id=LAYOUT.hardware_id,
        name="terminal",
        version="1.0.0+0",
        build_time="2024-01-01T00:00:00Z",
        digest=digest,
        state=TerminalState.APPLICATION,
        last_update_id=0,
        last_result=Result.SUCCESS,
        security_counter=0,
    )


def find_link_key(serial: str) -> bytes:
    """The link key of a terminal."""
    return derive_link_key(derive_bench_key(serial))


def open_link(serial: str) -> Context:
    """A terminal's side of the link."""
    return Context(find_link_key(serial), serial, Side.TERMINAL)


class FleetTerminal:
    """One terminal: registers, takes the update that the server has for it, runs it. No I/O.

    Args:
        serial: its.
        rng: for message ids and the times at which it sends again.
        patience: seconds after which it registers again when it has heard nothing.
        digest: of the software that it has.
        gives_up: it takes no file for a cancelled update, and waits for another one.
        start: how often it has started; None: it protects nothing.

    Attributes:
        serial: its.
        fails: whether the new software does not pass its trial there.
        texts: how many text messages its user has got.
        coap: its end of the link.
        seconds: how long the server took for each of its requests.
        done: whether it runs the new software, has told so, and has the user's data back.
        ended: when that was.
    """

    def __init__(
        self,
        serial: str,
        rng: random.Random,
        patience: float = REGISTRATION_INTERVAL_S,
        digest: bytes = UNPUBLISHED,
        *,
        gives_up: bool = False,
        start: int | None = 1,
    ) -> None:
        self.serial, self.fails, self.texts = serial, False, 0
        self.coap = (
            CoapEndpoint(self._handle, rng)
            if start is None
            else ProtectedEndpoint(self._handle, rng, open_link(serial), start)
        )
        self._gives_up = gives_up
        self.seconds: list[float] = []
        self.done = False
        self.ended = 0.0
        self._identity = identity(serial, digest)
        self._patience = patience
        self._told = False
        self._announced: Announcement | None = None
        self._phase = Phase.IDLE
        self._received = 0
        self._obeying = Commanded(serial, rng.getrandbits(32))
        self._script = self._live()
        self._asked: aiocoap.Message | None = None
        self._since = 0.0

    def start(self, now: float) -> None:
        """Come to life."""
        self._go_on(None, now)

    def receive(self, datagram: bytes, now: float) -> None:
        """Take what the server sends."""
        self.coap.receive(datagram, now)
        self._look(now)

    def poll(self, now: float) -> None:
        """Do what is due."""
        self.coap.poll(now)
        self._look(now)

    def _look(self, now: float) -> None:
        for outcome in self.coap.take_outcomes():
            if outcome.response is None:
                self._ask(now)
            else:
                self.seconds.append(now - self._since)
                self._go_on(outcome.response, now)
        waits = self._asked is None and not self.done
        if waits and (self._told or now >= self._since + self._patience):
            self._go_on(None, now)

    def _go_on(self, response: aiocoap.Message | None, now: float) -> None:
        self._since = now
        try:
            self._asked = next(self._script) if response is None else self._script.send(response)
        except StopIteration:
            self._asked, self.done, self.ended = None, True, now
        self._ask(now)

    def _ask(self, now: float) -> None:
        if self._asked is not None:
            self.coap.request(self._asked, 0, now)

    # What it asks, one request after the other; None waits until the server has said something,
    # or until patience ends.

    def _live(self) -> _Script:
        while self._phase is Phase.IDLE:  # More than once, if the server takes a file away.
            while self._announced is None and self._obeying.upgrade is None:
                yield from self._register()
            if self._announced is None:
                yield from self._obey()
                return
            yield from self._fetch(self._announced)

    def _register(self) -> _Script:
        self._told = False
        yield post("register", self._identity.encode())
        if not self._told:
            yield None

    def _fetch(self, announced: Announcement) -> _Script:
        yield self._report(Phase.TRANSFERRING)
        digest = hashlib.sha256()
        while self._received < announced.file_size:
            request = aiocoap.Message(code=aiocoap.GET, uri_path=("file", str(announced.update_id)))
            request.opt.block2 = (self._received // BLOCK, False, 6)
            response = yield request
            if response is not None and response.code == aiocoap.NOT_FOUND and self._gives_up:
                yield self._report(Phase.FINISHED, Result.TRANSFER_GAVE_UP)
                self._announced, self._phase, self._received = None, Phase.IDLE, 0
                return
            if response is None or response.code != aiocoap.CONTENT:
                code = response.code if response else "nothing"
                raise ToolBrokenError(f"{self._identity.serial} gets {code}, not its file")
            digest.update(response.payload)
            self._received += len(response.payload)
        if digest.digest() != announced.file_digest:
            raise ToolBrokenError(f"{self._identity.serial} got another file")
        for phase in (Phase.RECEIVED, Phase.CHECKED, Phase.REWRITING):
            yield self._report(phase)
        if self.fails:  # The old software is back, and says why.
            self._identity = replace(
                self._identity,
                last_update_id=announced.update_id,
                last_result=Result.TRIAL_FAILED,
            )
            yield post("register", self._identity.encode())
            return
        self._runs(announced.version, announced.image_digest, announced.update_id)
        yield post("register", self._identity.encode())
        yield self._report(Phase.FINISHED)

    def _obey(self) -> _Script:
        obeying = self._obeying
        assert obeying.upgrade is not None  # noqa: S101 - or this would not be begun
        update_id = obeying.upgrade.update_id
        before = self._identity
        self._identity = replace(
            before, state=TerminalState.COMMANDED, nonce=obeying.nonce, last_update_id=update_id
        )
        while not obeying.finished:
            yield from self._register()
            while obeying.result is not None:
                self._told = False
                result, obeying.result = obeying.result, None
                yield post("result", result.encode())
                if not self._told and not obeying.finished:
                    yield None
        self._identity = before
        self._runs(obeying.upgrade.version, obeying.upgrade.digest, update_id)
        while not obeying.restored:
            yield from self._register()
        yield post("register", self._identity.encode())  # Answered after all that came before.

    def _runs(self, version: str, digest: bytes, update_id: int) -> None:
        self._identity = replace(
            self._identity, version=version, digest=digest, last_update_id=update_id
        )

    def _report(self, phase: Phase, result: Result = Result.SUCCESS) -> aiocoap.Message:
        self._phase = phase
        who = self._identity
        update_id = self._announced.update_id if self._announced else 0
        report = Report(who.serial, update_id, phase, result, who.version, who.digest, "")
        return post("report", report.encode())

    # What it answers

    def _handle(self, request: aiocoap.Message, _now: float) -> aiocoap.Message:
        path = request.opt.uri_path[0] if request.opt.uri_path else ""
        if path == "status":
            update_id = self._announced.update_id if self._announced else 0
            status = Status(self._phase, update_id, self._received, 0)
            return aiocoap.Message(code=aiocoap.CONTENT, payload=status.encode())
        self._told |= path not in ("backup", "message")  # After which there is nothing new to do.
        if path == "message":  # Its user reads it.
            self.texts += 1
            return aiocoap.Message(code=aiocoap.CHANGED)
        try:
            if path == "announce":
                answer: bytes | None = self._decide(Announcement.decode(request.payload))
            else:
                answer = self._obeying.answer(path, request.payload)
        except LinkError:
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)
        if answer is None:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        return aiocoap.Message(code=aiocoap.CHANGED, payload=answer)

    def _decide(self, announced: Announcement) -> bytes:
        if self._announced is None:
            self._announced = announced
        same = announced.update_id == self._announced.update_id
        result = Result.SUCCESS if same and self._phase is Phase.IDLE else Result.BUSY
        return Decision(result, announced.file_size, announced.file_size, "").encode()


class Commanded:
    """What a terminal answers in a commanded update. It believes what it is told, and has no NOR.

    Attributes:
        upgrade: what it is to become, when it was told.
        result: of the last command, until it is told.
        finished: whether that was the command to start the new software.
        restored: whether the user's data came back as it was.
    """

    def __init__(self, serial: str, nonce: int) -> None:
        self.nonce = nonce
        self.upgrade: Upgrade | None = None
        self.result: CommandResult | None = None
        self.finished = False
        self.restored = False
        self._serial = serial
        self._step = 0
        self._sealed = hashlib.sha256(serial.encode()).digest() * 3

    def answer(self, path: str, payload: bytes) -> bytes | None:
        """The answer to a request, None when there is no such resource.

        Raises:
            LinkError: the payload is malformed.
        """
        checksum = hashlib.sha256(self._sealed).digest()
        if path == "backup":
            BackupRequest.decode(payload)
            size = len(self._sealed)
            return BackupPiece(Result.SUCCESS, size, checksum, self._sealed).encode()
        if path == "upgrade":
            asked = Upgrade.decode(payload)
            same = asked.backup == checksum
            self.upgrade = asked if same else None
            result = Result.SUCCESS if same else Result.USERDATA_CHANGED
            return Decision(result, 0, 0, "").encode()
        if path == "restore":
            piece = RestorePiece.decode(payload)
            self.restored = piece.data == self._sealed
            result = Result.SUCCESS if self.restored else Result.BACKUP_UNREADABLE
            return RestoreAnswer(result, piece.size).encode()
        if path in ("erase", "write", "check", "finish"):
            return CommandAnswer(self._command(decode_command(path, payload))).encode()
        return None

    def _command(self, command: Command) -> Result:
        if command.nonce != self.nonce or command.step < self._step:
            return Result.OUT_OF_TURN
        self._step = command.step
        digest = hashlib.sha256()
        if isinstance(command, Erase):
            digest.update(b"\xff" * command.length)
        elif isinstance(command, Write):
            digest.update(command.data)
        reads = command.digest if isinstance(command, Check) else digest.digest()
        self.finished = isinstance(command, Finish)
        self.result = CommandResult(
            self._serial, command.update_id, self.nonce, command.step, Result.SUCCESS, reads, ""
        )
        return Result.SUCCESS
