"""Who is not on the terminal's side: a network that repeats itself, a server that changes data."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import aiocoap

from unbrick.errors import LinkError
from unbrick.reference.layout import find_places
from unbrick.reference.memory import ServerMemory
from unbrick.server.records.sessions import StepKind
from unbrick.wire.coap import Outgoing, post
from unbrick.wire.commands import Command, CommandResult, Erase, decode_command
from unbrick.wire.messages import Result

if TYPE_CHECKING:
    from unbrick.link.simulated import Server
    from unbrick.server.records.people import Actor
    from unbrick.server.records.sessions import Backup

ECHO = -1
"""The ticket of what no server has sent."""

_NAME_AT = 26
"""Where the first entry's name begins in a sealed backup."""


class Echo:
    """A server, and a network that brings what belongs to an earlier start once more.

    With the first command of a start comes an old erase of the application, with the same number.
    Before the terminal has carried out any erase, an old result says that it has.
    """

    def __init__(self, server: Server, serial: str) -> None:
        self._server, self._serial = server, serial
        self._nonce = 0

    def handle(self, endpoint: str, request: aiocoap.Message, now: float) -> aiocoap.Message:
        """The server's answer."""
        return self._server.handle(endpoint, request, now)

    def poll(self, now: float, endpoint: str | None = None) -> list[Outgoing]:
        """The server's requests, and old ones before them."""
        requests = []
        for outgoing in self._server.poll(now, endpoint):
            command = _command_in(outgoing.message)
            if command is not None and command.nonce != self._nonce:
                self._nonce = command.nonce
                old = Erase(
                    command.update_id,
                    command.nonce ^ 1,
                    command.step,
                    find_places().application.offset,
                    find_places().block,
                )
                message = post("erase", old.encode())
                requests.append(Outgoing(outgoing.endpoint, message, ECHO))
            requests.append(outgoing)
            if isinstance(command, Erase):
                self._say_done(outgoing.endpoint, command, now)
        return requests

    def _say_done(self, endpoint: str, command: Erase, now: float) -> None:
        blank = hashlib.sha256(b"\xff" * command.length).digest()
        old = CommandResult(
            serial=self._serial,
            update_id=command.update_id,
            nonce=command.nonce ^ 1,
            step=command.step,
            result=Result.SUCCESS,
            digest=blank,
            text="",
        )
        self._server.handle(endpoint, post("result", old.encode()), now)

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """What came of the server's own requests."""
        if ticket != ECHO:
            self._server.outcome(ticket, response, now)


def _command_in(message: aiocoap.Message) -> Command | None:
    path = message.opt.uri_path
    try:
        return decode_command(path[0], message.payload) if len(path) == 1 else None
    except LinkError:
        return None


class TamperedStore(ServerMemory):
    """Records that somebody has changed: what is given back is not what was kept, at first."""

    def __init__(self) -> None:
        super().__init__()
        self.tampered = True
        """Whether that is still so."""

    def repent(self) -> None:
        """From now on backups read as they were kept."""
        self.tampered = False

    def _changed(self, backup: Backup) -> bytes:
        """What a backup reads as: with another name in it when it is time to give it back."""
        data = bytearray(self.sealed(backup.id))
        step = self.next_step(backup.session_id)
        if self.tampered and step is not None and step.kind is StepKind.GIVE_BACK:
            data[_NAME_AT] ^= 2
        return bytes(data)

    def read_backup(self, backup_id: int, actor: Actor) -> bytes:
        """See ``Records``."""
        super().read_backup(backup_id, actor)
        return next(self._changed(item) for item in super().backups() if item.id == backup_id)

    def backups(self, serial: str | None = None) -> list[Backup]:
        """See ``Records``."""
        return [
            replace(item, checksum=hashlib.sha256(self._changed(item)).digest())
            for item in super().backups(serial)
        ]
