"""Who commands an update: a scripted server at a terminal of the bench."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import aiocoap
from scripted_server import Code, ScriptedServer

from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.link.guarded import guard_bench
from unbrick.wire.commands import (
    BackupPiece,
    BackupRequest,
    Check,
    Command,
    CommandAnswer,
    CommandResult,
    Erase,
    Finish,
    Leave,
    Upgrade,
    Write,
)
from unbrick.wire.messages import (
    Decision,
    Registration,
    Result,
    Status,
    TerminalState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.reference.system import System

LAYOUT = reference_layout()
APPLICATION = LAYOUT.partition("application")
BLOCK = LAYOUT.board.nor.block_size
MAX_WRITE = 896


class Commander:
    """Says what a test tells it to, and keeps what comes of it."""

    def __init__(self, system: System, update_id: int = 7) -> None:
        self.system = system
        self.server = ScriptedServer(system.serial, system.records)
        self.update_id = update_id
        self.step = 0
        self._known: set[int] = set()
        system.link.server_returns(guard_bench(self.server, system.serial))

    # ---- Asking ----

    def ask(self, path: str, payload: bytes, code: Code = aiocoap.POST) -> aiocoap.Message:
        """Send a request and wait for its answer."""
        ticket = self.server.ask(path, payload, code)
        self.system.bench.run_until(lambda: ticket in self.server.responses, 60)
        answer = self.server.responses.get(ticket)
        assert answer is not None, f"no answer to {path}:\n{self.system.console.text[-1000:]}"
        return answer

    @property
    def results(self) -> list[CommandResult]:
        """What came of the commands so far, repetitions included."""
        return [CommandResult.decode(payload) for payload in self.server.asked("result")]

    def status(self) -> Status:
        """What the terminal says of its status."""
        return Status.decode(self.ask("status", b"", aiocoap.GET).payload)

    def said(self, command: Command) -> Result:
        """Send a command; what the terminal says to it at once."""
        answer = self.ask(command.path, command.encode())
        assert answer.code == aiocoap.CHANGED, answer.code
        return CommandAnswer.decode(answer.payload).result

    def result_of(self, step: int, timeout: float = 60.0) -> CommandResult:
        """Wait for the result of a step."""

        def found() -> list[CommandResult]:
            return [r for r in self.results if (r.step, r.nonce) == (step, self.nonce)]

        assert self.system.bench.run_until(lambda: bool(found()), timeout), (
            f"no result of step {step}:\n{self.system.console.text[-1000:]}"
        )
        return found()[-1]

    def do(self, command: Command) -> Result:
        """Have a command carried out; its result."""
        assert self.said(command) is Result.SUCCESS
        result = self.result_of(command.step)
        assert result.update_id == self.update_id
        assert result.serial == self.system.serial
        return result.result

    # ---- Commands ----

    @property
    def nonce(self) -> int:
        """Of the terminal's last start."""
        return self.server.registrations[-1].nonce

    def _head(self) -> tuple[int, int, int]:
        self.step += 1
        return self.update_id, self.nonce, self.step

    def erase(self, offset: int = APPLICATION.offset, length: int = BLOCK) -> Erase:
        """The next command: to erase a block."""
        return Erase(*self._head(), offset, length)

    def write(self, offset: int, data: bytes) -> Write:
        """The next command: to write."""
        return Write(*self._head(), offset, data)

    def check(self, offset: int, data: bytes) -> Check:
        """The next command: to compare with ``data``."""
        return Check(*self._head(), offset, len(data), hashlib.sha256(data).digest())

    def finish(self) -> Finish:
        """The next command: to end the update with it."""
        return Finish(*self._head())

    def leave(self) -> Leave:
        """The next command: to end the update without it."""
        return Leave(*self._head())

    def writes(self, image: bytes) -> Iterator[Write]:
        """All that is to be written of an image, header last."""
        pieces = range(0, len(image), MAX_WRITE)
        for at in reversed(pieces):
            yield self.write(APPLICATION.offset + at, image[at : at + MAX_WRITE])

    # ---- The update ----

    def backup(self) -> bytes:
        """Have the user's data sealed; the SHA-256 of what came of it."""
        request = BackupRequest(self.update_id, 0)
        answer = self.ask("backup", request.encode())
        piece = BackupPiece.decode(answer.payload)
        assert piece.result is Result.SUCCESS
        return piece.checksum

    def upgrade_to(self, release: str, /, **changes: Any) -> Upgrade:
        """The start message for a release."""
        image = self.system.releases.signed[release]
        info = inspect(image)
        fields = {
            "update_id": self.update_id,
            "version": info.version,
            "digest": info.digest,
            "size": len(image),
            "signature": info.signature,
            "hardware_id": info.hardware_id,
            "security_counter": info.security_counter,
            "backup": bytes(32),
        }
        return Upgrade(**{**fields, **changes})

    def decide(self, upgrade: Upgrade) -> Decision:
        """Send the start message; what the terminal decides."""
        answer = self.ask("upgrade", upgrade.encode())
        assert answer.code == aiocoap.CHANGED, answer.code
        return Decision.decode(answer.payload)

    def wait_commanded(self, timeout: float = 60.0) -> Registration:
        """Wait until the resident program of a new start has registered."""

        def new() -> list[Registration]:
            said = self.server.registrations
            return [r for r in said if r.state is TerminalState.COMMANDED and r.nonce not in known]

        known = self._known
        assert self.system.bench.run_until(lambda: bool(new()), timeout), (
            f"no resident program has registered:\n{self.system.console.text[-1000:]}"
        )
        registration = new()[-1]
        self._known.add(registration.nonce)
        self.step = 0
        return registration

    def start(self, version: str = "1.1.0") -> Registration:
        """Power on, if that is off, and bring the terminal to the resident program."""
        if not self.system.engine.powered:
            self.system.power_on()
        if not self.server.registrations:
            self.system.wait_registered()
        upgrade = self.upgrade_to(version, backup=self.backup())
        assert self.decide(upgrade).result is Result.SUCCESS
        return self.wait_commanded()

    def rewrite(self, version: str = "1.1.0") -> None:
        """Erase and write the application, up to and including its check."""
        image = self.system.releases.signed[version]
        for offset in range(APPLICATION.offset, APPLICATION.offset + len(image), BLOCK):
            assert self.do(self.erase(offset)) is Result.SUCCESS
        for write in self.writes(image):
            assert self.do(write) is Result.SUCCESS
        assert self.do(self.check(APPLICATION.offset, image)) is Result.SUCCESS
