"""Who is not on the terminal's side: a network that repeats itself or lies, records that were
changed.

What stands between server and terminal is made of parts. A scenario names those that it combines
(``Scenario.network``), and each says what a terminal did wrong that was taken in by it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import aiocoap

from unbrick.campaign.verdict import Violation
from unbrick.errors import LinkError
from unbrick.reference.layout import find_places
from unbrick.reference.memory import ServerMemory
from unbrick.server.records.sessions import StepKind
from unbrick.wire.coap import Outgoing, post
from unbrick.wire.commands import Command, CommandResult, Erase, decode_command
from unbrick.wire.messages import Announcement, Result
from unbrick.wire.oscore import MESSAGE_BITS, read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.link.simulated import Server
    from unbrick.server.core.guard import Core
    from unbrick.server.records.people import Actor
    from unbrick.server.records.sessions import Backup

_FOREIGN = count(-1, -1)
"""The tickets of what no server has sent."""

OTHER_BLOCK = 2
"""Number of the block of a file that comes with another number."""

MOST_REPLAYED = 4
"""Messages that come once more, the last of those that were said."""

_NAME_AT = 26
"""Where the first entry's name begins in a sealed backup."""


class Network:
    """A server as the terminal sees it. Parts of it do something else than to pass on.

    They stand between the server and what protects its messages: an attacker who has the keys.
    """

    def __init__(self, server: Core, serial: str) -> None:
        self._server, self._serial = server, serial
        self.records, self.admission = server.records, server.admission

    @property
    def has_errands(self) -> bool:
        """Whether ``poll`` may have something to send."""
        return self._server.has_errands

    def returns(self, server: Core) -> None:
        """Another server has taken the place of one that died."""
        self._server = server

    def handle(
        self, endpoint: str, request: aiocoap.Message, now: float, serial: str | None = None
    ) -> aiocoap.Message:
        """The server's answer."""
        return self._server.handle(endpoint, request, now, serial)

    def poll(
        self, now: float, endpoint: str | None = None, most: int | None = None
    ) -> list[Outgoing]:
        """The server's requests."""
        return self._server.poll(now, endpoint, most)

    def take_back(self, requests: list[Outgoing]) -> None:
        """These are not sent."""
        self._server.take_back(requests)

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """What came of the server's own requests."""
        if ticket >= 0:
            self._server.outcome(ticket, response, now)

    def blame(self, said: str) -> Violation | None:
        """What a terminal that has ``said`` this did wrong."""
        del said
        return None


class OtherBlock(Network):
    """Once, a block of a file comes with another number than was asked for."""

    def __init__(self, server: Core, serial: str) -> None:
        super().__init__(server, serial)
        self._done = False

    def handle(
        self, endpoint: str, request: aiocoap.Message, now: float, serial: str | None = None
    ) -> aiocoap.Message:
        """The server's answer, to a request for the next block instead."""
        wanted = request.opt.block2
        if self._done or not _is_for_file(request) or wanted is None or wanted[0] != OTHER_BLOCK:
            return super().handle(endpoint, request, now, serial)
        other = aiocoap.Message(code=request.code, uri_path=request.opt.uri_path)
        other.opt.block2 = (OTHER_BLOCK + 1, False, wanted[2])
        answer = super().handle(endpoint, other, now, serial)
        self._done = answer.code == aiocoap.CONTENT
        return answer

    def blame(self, said: str) -> Violation | None:
        """It is asked for again, and nothing else happens."""
        if self._done and re.search("link: failed|update: failed", said):
            text = f"one wrong answer for block {OTHER_BLOCK} spoiled a transfer"
            return Violation("rejected", text)
        return None


class FalseDigest(Network):
    """Once, a file is announced whose digest is right but for its last byte.

    Args:
        server, serial: as of all parts.
        field: ``file_digest`` or ``image_digest``.
    """

    def __init__(self, server: Core, serial: str, field: str) -> None:
        super().__init__(server, serial)
        self._field, self._lied = field, False
        self._false: set[int] = set()

    def poll(
        self, now: float, endpoint: str | None = None, most: int | None = None
    ) -> list[Outgoing]:
        """The server's requests, the first announcement changed."""
        requests = super().poll(now, endpoint, most)
        for number, outgoing in enumerate(requests):
            if outgoing.message.opt.uri_path == ("announce",) and not self._lied:
                self._false.add(outgoing.ticket)
                true = Announcement.decode(outgoing.message.payload)
                digest = getattr(true, self._field)
                changed: dict[str, Any] = {self._field: digest[:-1] + bytes([digest[-1] ^ 1])}
                message = post("announce", replace(true, **changed).encode())
                requests[number] = replace(outgoing, message=message)
        return requests

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """What came of the server's own requests: a lie that was not heard is told again."""
        self._lied = self._lied or (ticket in self._false and response is not None)
        super().outcome(ticket, response, now)

    def blame(self, said: str) -> Violation | None:
        """It is refused, at the latest when all of it is there."""
        before = re.split("agent: rewriting", said, maxsplit=1)
        refused = re.search("(link|update): (failed|refused)", before[0])
        if self._lied and len(before) > 1 and not refused:
            what = self._field.replace("_", "'s ")
            return Violation("forged", f"what has another {what} than was announced was written")
        return None


class Echo(Network):
    """A network that brings what belongs to an earlier start once more.

    With the first command of a start comes an old erase of the application, with the same number.
    Before the terminal has carried out any erase, an old result says that it has.
    """

    def __init__(self, server: Core, serial: str) -> None:
        super().__init__(server, serial)
        self._nonce = 0

    def returns(self, server: Core) -> None:
        """The network brings it all once more."""
        super().returns(server)
        self._nonce = 0

    def poll(
        self, now: float, endpoint: str | None = None, most: int | None = None
    ) -> list[Outgoing]:
        """The server's requests, and old ones before them."""
        requests = []
        for outgoing in self._server.poll(now, endpoint, most):
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
                requests.append(replace(outgoing, message=message, ticket=next(_FOREIGN)))
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


class Late(Network):
    """A network that brings what was said once more, when it has been overtaken.

    When a command or an announcement leaves, the one before it comes a second time, after it. So do
    all results and reports that the terminal has sent until then, in their order.
    """

    def __init__(self, server: Core, serial: str) -> None:
        super().__init__(server, serial)
        self._order: aiocoap.Message | None = None
        self._said: list[tuple[str, bytes]] = []

    def handle(
        self, endpoint: str, request: aiocoap.Message, now: float, serial: str | None = None
    ) -> aiocoap.Message:
        """The server's answer."""
        path = request.opt.uri_path
        if path in (("result",), ("report",)):
            self._said.append((path[0], request.payload))
        return super().handle(endpoint, request, now, serial)

    def poll(
        self, now: float, endpoint: str | None = None, most: int | None = None
    ) -> list[Outgoing]:
        """The server's requests, and behind an order the one before it."""
        requests = []
        for outgoing in self._server.poll(now, endpoint, most):
            requests.append(outgoing)
            message = outgoing.message
            if message.opt.uri_path != ("announce",) and _command_in(message) is None:
                continue
            if self._order is not None:
                again = post(self._order.opt.uri_path[0], self._order.payload)
                requests.append(replace(outgoing, message=again, ticket=next(_FOREIGN)))
            self._order = message
            said, self._said = self._said, []
            for path, payload in said:
                self._server.handle(outgoing.endpoint, post(path, payload), now)
        return requests


class Replay:
    """A network without any key. It brings what was said to earlier starts of the terminal again.

    It does so when a start is heard of first, whose first message it answers by itself, in the
    open; and once more when an answer of the server's has told its own number.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._start = 0
        self._said: list[tuple[int, aiocoap.Message]] = []
        self._is_due = self._is_to_come = False

    def returns(self, server: Server) -> None:
        """Another server has taken the place of one that died."""
        self._server = server

    def handle(self, endpoint: str, request: aiocoap.Message, now: float) -> aiocoap.Message:
        """The server's answer, but to the first message of a start."""
        header = read_header(request)
        start = header.sequence >> MESSAGE_BITS if header is not None else 0
        if start > self._start:
            self._start, self._is_due, self._is_to_come = start, True, True
            return aiocoap.Message(code=aiocoap.UNAUTHORIZED)
        response = self._server.handle(endpoint, request, now)
        answer = read_header(response)
        if self._is_to_come and answer is not None and answer.partial_iv is not None:
            self._is_due, self._is_to_come = True, False
        return response

    def poll(self, now: float, endpoint: str | None = None) -> list[Outgoing]:
        """The server's requests, and old ones before them."""
        requests = []
        if self._is_due:
            self._is_due = False
            old = [message for start, message in self._said if start < self._start]
            requests = [
                Outgoing(endpoint or "", _copy(message), next(_FOREIGN))
                for message in old[-MOST_REPLAYED:]
            ]
        for outgoing in self._server.poll(now, endpoint):
            self._said.append((self._start, _copy(outgoing.message)))
            requests.append(outgoing)
        return requests

    def outcome(self, ticket: int, response: aiocoap.Message | None, now: float) -> None:
        """What came of the server's own requests."""
        if ticket >= 0:
            self._server.outcome(ticket, response, now)


def _copy(message: aiocoap.Message) -> aiocoap.Message:
    """A protected message, to be sent as another one."""
    return aiocoap.Message(code=message.code, payload=message.payload, oscore=message.opt.oscore)


NETWORK: dict[str, Callable[[Core, str], Network]] = {
    "echo": Echo,
    "late": Late,
    "other block": OtherBlock,
    "other file digest": partial(FalseDigest, field="file_digest"),
    "other image digest": partial(FalseDigest, field="image_digest"),
}
"""The parts of a bad network that have the keys, by the names that scenarios have for them."""

OUTSIDE: dict[str, Callable[[Server], Replay]] = {"replay": Replay}
"""Those that have none, and see what everybody on the link sees."""


def _is_for_file(request: aiocoap.Message) -> bool:
    return bool(request.code == aiocoap.GET and request.opt.uri_path[:1] == ("file",))


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

    def read_backup(self, backup_id: int, actor: Actor, known: bytes | None = None) -> bytes:
        """See ``Records``."""
        super().read_backup(backup_id, actor, known)
        return next(self._changed(item) for item in super().backups() if item.id == backup_id)

    def backups(self, serial: str | None = None) -> list[Backup]:
        """See ``Records``."""
        return [self._with_checksum(item) for item in super().backups(serial)]

    def backup(self, session_id: int) -> Backup | None:
        """See ``Records``."""
        found = super().backup(session_id)
        return None if found is None else self._with_checksum(found)

    def _with_checksum(self, backup: Backup) -> Backup:
        return replace(backup, checksum=hashlib.sha256(self._changed(backup)).digest())
