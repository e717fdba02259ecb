"""Update files, and the blocks of them that terminals ask for (RFC 7959)."""

from __future__ import annotations

import hashlib

import aiocoap
from aiocoap.numbers import OptionNumber

from unbrick.server.records.contract import Records
from unbrick.server.records.updates import Update, UpdateState
from unbrick.wire.messages import FILE_FORMAT, Kind, Result

BLOCK_EXPONENT = 6
"""1,024-byte blocks, unless a request asks for others (RFC 7959 §2.2)."""

MAX_HELD_FILES = 4
"""Files kept in memory between the blocks of a transfer, and between the commands of a session."""


_FILE_IS_THERE = (UpdateState.RECEIVED, UpdateState.CHECKED, UpdateState.REWRITING)


class Files:
    """What is sent of images and differential files; sizes are in bytes.

    Args:
        records: where they are kept.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._held: dict[tuple[bytes, ...], tuple[bytes, bytes]] = {}
        self._sent: dict[int, int] = {}

    def sent(self, update: Update, size: int) -> int:
        """Bytes that were sent for an update of its file: all, where the terminal has said so.

        Otherwise those that were sent since this server started. ``size`` is that of the file.
        """
        if update.commanded:
            return 0
        installed = update.state is UpdateState.SUCCEEDED and update.result in (
            Result.SUCCESS,
            Result.RESTORED_BY_LINK,
        )
        if installed or update.state in _FILE_IS_THERE:
            return size
        return self._sent.get(update.id, 0)

    def begin_anew(self, update_id: int) -> None:
        """Another file follows for an update: nothing of it was sent."""
        self._sent.pop(update_id, None)

    def image(self, digest: bytes) -> bytes:
        """The file of a published image.

        Raises:
            KeyError: there is none.
        """
        return self._file(digest)[0]

    def difference(self, base: bytes, digest: bytes) -> bytes | None:
        """The differential file between two images, if there is one that helps."""
        wanted = self._records.image(digest)
        if self._records.image(base) is None or wanted is None:
            return None
        file = self._records.difference(base, digest)
        return file if file is not None and len(file) < wanted.file_size else None

    def _file(self, *key: bytes) -> tuple[bytes, bytes]:
        """An image, or the difference of two, and its ETag."""
        held = self._held.pop(key, None)
        if held is None:
            data = self._records.difference(*key) if len(key) == 2 else None
            data = self._records.image_file(key[-1]) if data is None else data
            held = data, hashlib.sha256(data).digest()[:8]
        self._held[key] = held
        if len(self._held) > MAX_HELD_FILES:
            self._held.pop(next(iter(self._held)))
        return held

    def answer_block(self, update: Update, request: aiocoap.Message) -> aiocoap.Message:
        """The answer to a request for a block of the file that was announced for an update."""
        differential = update.kind is Kind.DIFFERENTIAL
        base = (update.from_digest,) if differential else ()
        data, etag = self._file(*base, update.digest)
        response = answer_block(request, data, FILE_FORMAT)
        if response.code == aiocoap.CONTENT:
            response.opt.etag = etag
            number, _more, exponent = response.opt.block2
            end = (number << (exponent + 4)) + len(response.payload)
            self._sent[update.id] = max(end, self._sent.get(update.id, 0))
        return response


def answer_block(request: aiocoap.Message, data: bytes, content_format: int) -> aiocoap.Message:
    """The answer with the block of ``data`` that is asked for (RFC 7959 §2.4)."""
    option = request.opt.block2
    number, exponent = (option[0], option[2]) if option else (0, BLOCK_EXPONENT)
    if exponent > BLOCK_EXPONENT:
        return aiocoap.Message(code=aiocoap.BAD_REQUEST)
    start = number << (exponent + 4)
    if start >= len(data):
        text = f"option {OptionNumber.BLOCK2:d} asks for what is beyond the {len(data)} bytes"
        return aiocoap.Message(code=aiocoap.BAD_OPTION, payload=text.encode())
    part = data[start : start + (1 << (exponent + 4))]
    response = aiocoap.Message(code=aiocoap.CONTENT, payload=part)
    response.opt.content_format = content_format
    response.opt.block2 = (number, start + len(part) < len(data), exponent)
    return response
