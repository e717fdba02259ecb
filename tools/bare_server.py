"""A bare ``aiocoap`` server to compare ours with: it answers from memory and keeps nothing.

Arguments: the UDP port, and the file that every terminal is to have. Then ``commanded`` when it is
to be written there by commands, and ``protected`` when the messages are protected by OSCORE. That,
too, is ``aiocoap``'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiocoap
from aiocoap import oscore
from aiocoap.pipe import Pipe

from fleet_terminal import find_link_key
from unbrick.layout import reference_layout
from unbrick.wire.coap import post
from unbrick.wire.commands import (
    BackupPiece,
    BackupRequest,
    Check,
    Command,
    CommandResult,
    Erase,
    Finish,
    RestorePiece,
    Upgrade,
    Write,
)
from unbrick.wire.messages import (
    FILE_FORMAT,
    Announcement,
    Kind,
    Registration,
    TerminalState,
)
from unbrick.wire.oscore import Side, read_header

LAYOUT = reference_layout()
HOST = "127.0.0.1"
VERSION = "1.1.0+0"
WRITE = 896  # bytes


class Link(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):  # type: ignore[misc]
    """The server's side of the link to a terminal, by ``aiocoap``; it is kept in memory alone."""

    def __init__(self, serial: str) -> None:
        self.alg_aead = oscore.ChaCha20Poly1305()
        self.hashfun = oscore.hashfunctions["sha256"]
        self.id_context = serial.encode()
        self.sender_id, self.recipient_id = Side.SERVER.value, Side.TERMINAL.value
        self.derive_keys(b"", find_link_key(serial))
        self.sender_sequence_number = 0
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        self.recipient_replay_window.initialize_empty()
        self.echo_recovery = None

    def post_seqnoincrease(self) -> None:
        """Nothing is stored."""


class BareSite:
    """Answers from memory what the server answers from its records, and asks what it asks."""

    def __init__(self, file: bytes, *, commanded: bool, protected: bool) -> None:
        self.context: aiocoap.Context | None = None
        self._file = file
        self._digest = hashlib.sha256(file).digest()
        self._commanded = commanded
        self._ids: dict[str, int] = {}
        self._commands: dict[str, Iterator[Command]] = {}
        self._backups: dict[str, BackupPiece] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: dict[str, Link] | None = {} if protected else None

    async def render_to_pipe(self, pipe: Pipe) -> None:
        """Answer a request."""
        request, remote = pipe.request, pipe.request.remote
        if self._links is None:
            pipe.add_response(self._answer(request, remote), is_last=True)
            return
        header = read_header(request)
        assert header is not None  # noqa: S101 - all terminals protect what they say
        link = self._link((header.kid_context or b"").decode())
        opened, binding = link.unprotect(request)
        if opened.opt.uri_path == ("register",):
            binding.can_reuse_nonce = False  # A terminal's window begins with a number of ours.
        response, _ = link.protect(self._answer(opened, remote), binding)
        pipe.add_response(response, is_last=True)

    def _link(self, serial: str) -> Link:
        assert self._links is not None  # noqa: S101 - as above
        if serial not in self._links:
            self._links[serial] = Link(serial)
        return self._links[serial]

    def _answer(self, request: aiocoap.Message, remote: object) -> aiocoap.Message:
        path = request.opt.uri_path[0]
        if path == "file":
            return self._block(*request.opt.block2)
        if path == "register":
            said = Registration.decode(request.payload)
            update_id = self._ids.setdefault(said.serial, len(self._ids) + 1)
            if said.state is TerminalState.COMMANDED:
                self._commands[said.serial] = self._all_commands(update_id, said.nonce)
                self._begin(self._command(said.serial, remote))
            elif said.version != VERSION:
                begin = self._prepare if self._commanded else self._announce
                self._begin(begin(said, update_id, remote))
            elif self._commanded:
                self._begin(self._give_back(said.serial, update_id, remote))
        elif path == "result":
            result = CommandResult.decode(request.payload)
            self._begin(self._command(result.serial, remote))
        return aiocoap.Message(code=aiocoap.CHANGED)

    def _block(self, number: int, _more: bool, exponent: int) -> aiocoap.Message:
        start = number << (exponent + 4)
        end = start + (1 << (exponent + 4))
        response = aiocoap.Message(code=aiocoap.CONTENT, payload=self._file[start:end])
        response.opt.etag = self._digest[:8]
        response.opt.content_format = FILE_FORMAT
        response.opt.block2 = (number, end < len(self._file), exponent)
        return response

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, serial: str, remote: object, path: str, payload: bytes) -> bytes:
        message, binding = post(path, payload), None
        if self._links is not None:
            message, binding = self._link(serial).protect(message, kid_context=False)
        message.remote = remote
        assert self.context is not None  # noqa: S101 - set before the first request
        response = await self.context.request(message, handle_blockwise=False).response
        if self._links is not None:
            response, _ = self._link(serial).unprotect(response, binding)
        return bytes(response.payload)

    async def _announce(self, said: Registration, update_id: int, remote: object) -> None:
        size = len(self._file)
        announcement = Announcement(
            update_id, Kind.FULL_IMAGE, size, self._digest, VERSION, self._digest, size, 0
        )
        await self._ask(said.serial, remote, "announce", announcement.encode())

    async def _prepare(self, said: Registration, update_id: int, remote: object) -> None:
        asked = BackupRequest(update_id, 0).encode()
        backup = BackupPiece.decode(await self._ask(said.serial, remote, "backup", asked))
        self._backups[said.serial] = backup
        upgrade = Upgrade(
            update_id,
            VERSION,
            self._digest,
            len(self._file),
            bytes(64),
            said.hardware_id,
            said.security_counter,
            backup.checksum,
        )
        await self._ask(said.serial, remote, "upgrade", upgrade.encode())

    def _all_commands(self, update_id: int, nonce: int) -> Iterator[Command]:
        start, file = LAYOUT.partition("application").offset, self._file
        pieces = [(at, file[at : at + WRITE]) for at in range(0, len(file), WRITE)]
        last = len(pieces) + 2
        yield Erase(update_id, nonce, 1, start, LAYOUT.board.nor.block_size)
        for number, (at, piece) in enumerate(pieces, 2):
            yield Write(update_id, nonce, number, start + at, piece)
        yield Check(update_id, nonce, last, start, len(file), self._digest)
        yield Finish(update_id, nonce, last + 1)

    async def _command(self, serial: str, remote: object) -> None:
        command = next(self._commands[serial], None)
        if command is not None:
            await self._ask(serial, remote, command.path, command.encode())

    async def _give_back(self, serial: str, update_id: int, remote: object) -> None:
        backup = self._backups[serial]
        piece = RestorePiece(update_id, backup.size, backup.checksum, 0, backup.data)
        await self._ask(serial, remote, "restore", piece.encode())


async def bare(port: int, file: bytes, *, commanded: bool, protected: bool) -> None:
    """Serve for ever."""
    site = BareSite(file, commanded=commanded, protected=protected)
    site.context = await aiocoap.Context.create_server_context(
        site, bind=(HOST, port), transports=["udp6"]
    )
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    words = sys.argv[3:]
    wanted = {"commanded": "commanded" in words, "protected": "protected" in words}
    asyncio.run(bare(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), **wanted))
