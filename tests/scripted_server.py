"""A server that says what a test tells it to, on a simulated link to a real terminal."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiocoap

from unbrick.bench.bench import Bench
from unbrick.image.factory import derive_bench_key, make_factory_image
from unbrick.layout import reference_layout
from unbrick.link.guarded import guard_bench
from unbrick.link.simulated import Server, SimulatedLink
from unbrick.reference.system import PROMPT
from unbrick.server.records.memory import MemoryRecords
from unbrick.wire.coap import Outgoing
from unbrick.wire.commands import (
    PIECE_SIZE,
    BackupPiece,
    BackupRequest,
    RestoreAnswer,
    RestorePiece,
)
from unbrick.wire.messages import Registration, Result
from unbrick.wire.userdata import PhonebookEntry

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.engine.base import Engine
    from unbrick.firmware.signed import Releases
    from unbrick.server.records.contract import Records

LAYOUT = reference_layout()
SERIAL = "UB-000007"
USERDATA = slice(LAYOUT.partition("userdata").offset, LAYOUT.partition("userdata").end)
Code = aiocoap.numbers.codes.Code


@dataclass
class ScriptedServer:
    """Takes every request; what it answers is 2.04, or what ``answers`` has for the path.

    Attributes:
        serial: of the terminal.
        records: with its link key, once a guard has been made for it.
        answers: by the path of the request; None in it: never answers.
        requests: what came, in order: path and payload.
    """

    serial: str = SERIAL
    records: Records = field(default_factory=MemoryRecords)
    answers: dict[str, Code] = field(default_factory=dict)
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)
    waiting: list[Outgoing] = field(default_factory=list)
    responses: dict[int, aiocoap.Message | None] = field(default_factory=dict)
    admission: None = None
    has_errands: bool = True
    _tickets: int = 0

    def handle(
        self, _endpoint: str, request: aiocoap.Message, _now: float, _serial: str | None = None
    ) -> aiocoap.Message:
        """Answer the terminal."""
        path = "/".join(request.opt.uri_path)
        self.requests.append((path, request.payload))
        if path == "register":
            self.registrations.append(Registration.decode(request.payload))
        return aiocoap.Message(code=self.answers.get(path, aiocoap.CHANGED))

    def poll(
        self, _now: float, _endpoint: str | None = None, _most: int | None = None
    ) -> list[Outgoing]:
        """What is to be asked now."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def outcome(self, ticket: int, response: aiocoap.Message | None, _now: float) -> None:
        """An answer has come, or none."""
        self.responses[ticket] = response

    def ask(self, path: str, payload: bytes, code: Code = aiocoap.POST) -> int:
        """Ask the terminal at the next opportunity; returns the ticket of the answer."""
        self._tickets += 1
        message = aiocoap.Message(code=code, payload=payload, content_format=60)
        message.opt.uri_path = tuple(path.split("/"))
        self.waiting.append(Outgoing("radio", message, self._tickets, self.serial))
        return self._tickets

    def asked(self, path: str) -> list[bytes]:
        """The payloads of the terminal's requests to a path, in order."""
        return [payload for asked, payload in self.requests if asked == path]


class World:
    """A terminal, and a scripted server on its link."""

    def __init__(
        self,
        engine: Engine,
        releases: Releases,
        *,
        installed: str = "1.0.0",
        key: bytes | None = None,
        nor: bytes | None = None,
    ) -> None:
        self.engine, self.releases = engine, releases
        self.key = derive_bench_key(SERIAL) if key is None else key
        made = make_factory_image(releases.boot, releases.signed[installed], SERIAL, key=self.key)
        engine.load_nor(nor or made)
        self.bench = Bench(engine)
        self.console = self.bench.console
        self.server = ScriptedServer()
        self.link = SimulatedLink(engine.radio, self._seen)
        self.bench.peers.append(self.link)

    @property
    def _seen(self) -> Server:
        """The server as the terminal sees it."""
        return guard_bench(self.server, SERIAL, self.key) if self.key else self.server

    def load(self, nor: bytes) -> None:
        """Have the terminal as it was at some time, and a server that has not heard of it since."""
        self.engine.load_nor(nor)
        self.server.records = MemoryRecords()
        self.link.server_returns(self._seen)

    def start(self) -> None:
        """Power on, until the terminal has registered."""
        self.engine.power_on()
        self.console.expect(PROMPT)
        self.console.expect("link: registered")

    def restart(self) -> None:
        """Take the power and give it back."""
        self.bench.cut_power()
        self.engine.radio.read()
        self.start()

    def erase_userdata(self) -> None:
        """Take the power, erase the user's data, and give the power back."""
        self.change_nor(lambda nor: nor.__setitem__(USERDATA, b"\xff" * len(nor[USERDATA])))

    def install(self, version: str) -> None:
        """Take the power, put another release into the NOR, and give the power back."""
        image = self.releases.signed[version]
        part = LAYOUT.partition("application")
        padded = image.ljust(part.size, b"\xff")
        self.change_nor(lambda nor: nor.__setitem__(slice(part.offset, part.end), padded))

    def change_nor(self, change: Callable[[bytearray], None]) -> None:
        """Take the power, change what is in the NOR, and give the power back."""
        self.bench.cut_power()
        self.engine.radio.read()
        nor = bytearray(self.engine.read_nor())
        change(nor)
        self.engine.load_nor(bytes(nor))
        self.start()

    def ask(self, path: str, payload: bytes) -> aiocoap.Message:
        """Ask the terminal something and wait for its answer."""
        ticket = self.server.ask(path, payload)
        assert self.bench.run_until(lambda: ticket in self.server.responses, 120), path
        response = self.server.responses[ticket]
        assert response is not None, f"no answer to {path}"
        return response

    def add(self, *entries: tuple[str, str]) -> None:
        """Type entries of the phonebook."""
        for name, number in entries:
            assert "added" in self.console.command(f"pb add {name} {number}")

    def entries(self) -> list[PhonebookEntry]:
        """What ``pb list`` shows."""
        shown = self.console.command("pb list")
        rows = re.findall(r"^ *(\d+)  (.*?) +(\S+)\r?$", shown, re.MULTILINE)
        return [PhonebookEntry(int(number), name, text) for number, name, text in rows]

    # ---- The user's data ----

    def backup_piece(self, update_id: int, offset: int) -> BackupPiece:
        """Ask for one piece."""
        response = self.ask("backup", BackupRequest(update_id, offset).encode())
        assert response.code == aiocoap.CHANGED
        return BackupPiece.decode(response.payload)

    def back_up(self, update_id: int) -> bytes:
        """Fetch a whole backup."""
        first = self.backup_piece(update_id, 0)
        assert first.result is Result.SUCCESS
        sealed = first.data
        while len(sealed) < first.size:
            piece = self.backup_piece(update_id, len(sealed))
            assert (piece.result, piece.size, piece.checksum) == (
                *(Result.SUCCESS, first.size),
                first.checksum,
            )
            sealed += piece.data
        assert hashlib.sha256(sealed).digest() == first.checksum
        return sealed

    def restore_request(
        self, update_id: int, sealed: bytes, offset: int, checksum: bytes | None = None
    ) -> bytes:
        """The payload that gives one piece back."""
        return RestorePiece(
            update_id,
            len(sealed),
            checksum or hashlib.sha256(sealed).digest(),
            offset,
            sealed[offset : offset + PIECE_SIZE],
        ).encode()

    def restore_piece(
        self, update_id: int, sealed: bytes, offset: int, checksum: bytes | None = None
    ) -> RestoreAnswer:
        """Give one piece back."""
        payload = self.restore_request(update_id, sealed, offset, checksum)
        response = self.ask("restore", payload)
        assert response.code == aiocoap.CHANGED
        return RestoreAnswer.decode(response.payload)

    def give_back(self, update_id: int, sealed: bytes) -> RestoreAnswer:
        """Give a whole backup back; the answer to the last piece, or the first that refuses."""
        answer = RestoreAnswer(Result.SUCCESS, 0)
        while answer.result is Result.SUCCESS and answer.offset < len(sealed):
            before = answer.offset
            answer = self.restore_piece(update_id, sealed, before)
            assert answer.result is not Result.SUCCESS or answer.offset > before
        return answer
