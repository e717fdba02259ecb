"""A bare ``aiocoap`` server to compare ours with: it answers from memory and keeps nothing.

Arguments: the UDP port, and the file that every terminal is to have.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

import aiocoap
from aiocoap.pipe import Pipe

from unbrick.wire.messages import CBOR_FORMAT, FILE_FORMAT, Announcement, Kind, Registration

HOST = "127.0.0.1"
VERSION = "1.1.0+0"


class BareSite:
    """Answers from memory what the server answers from its records, and announces as it does."""

    def __init__(self, file: bytes) -> None:
        self.context: aiocoap.Context | None = None
        self._file = file
        self._digest = hashlib.sha256(file).digest()
        self._ids: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def render_to_pipe(self, pipe: Pipe) -> None:
        """Answer a request."""
        request = pipe.request
        path = request.opt.uri_path
        if path[0] == "file":
            number, _, exponent = request.opt.block2
            start = number << (exponent + 4)
            end = start + (1 << (exponent + 4))
            response = aiocoap.Message(code=aiocoap.CONTENT, payload=self._file[start:end])
            response.opt.etag = self._digest[:8]
            response.opt.content_format = FILE_FORMAT
            response.opt.block2 = (number, end < len(self._file), exponent)
            pipe.add_response(response, is_last=True)
            return
        pipe.add_response(aiocoap.Message(code=aiocoap.CHANGED), is_last=True)
        if path[0] == "register":
            said = Registration.decode(request.payload)
            if said.version != VERSION:
                task = asyncio.get_running_loop().create_task(self._announce(said, request.remote))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _announce(self, said: Registration, remote: object) -> None:
        update_id = self._ids.setdefault(said.serial, len(self._ids) + 1)
        announcement = Announcement(
            update_id,
            Kind.FULL_IMAGE,
            len(self._file),
            self._digest,
            VERSION,
            self._digest,
            len(self._file),
            0,
        )
        message = aiocoap.Message(
            code=aiocoap.POST, payload=announcement.encode(), uri_path=("announce",)
        )
        message.opt.content_format = CBOR_FORMAT
        message.remote = remote
        assert self.context is not None  # noqa: S101 - set before the first request
        await self.context.request(message, handle_blockwise=False).response


async def bare(file: bytes, port: int) -> None:
    """Serve for ever."""
    site = BareSite(file)
    site.context = await aiocoap.Context.create_server_context(site, bind=(HOST, port))
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(bare(Path(sys.argv[2]).read_bytes(), int(sys.argv[1])))
