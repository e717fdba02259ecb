"""The maps of a commanded update and of the user's backup (docs/protocol.md).

Sizes and offsets are in bytes; offsets of the NOR count from its start.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

from unbrick.errors import LinkError
from unbrick.wire.maps import DIGEST_SIZE, Map, encode_map
from unbrick.wire.messages import (
    MAX_NAME,
    MAX_SERIAL,
    MAX_TEXT,
    Result,
    read_result,
    read_serial,
    read_update,
)

PIECE_SIZE = 768
"""A backup travels in pieces of so many bytes; the last one may be shorter."""

MAX_BACKUP_SIZE = 24 * 1024
MAX_WRITE_SIZE = 896
SIGNATURE_SIZE = 64
_SUM_SIZE = 8


@dataclass(frozen=True)
class BackupRequest:
    """Asks the application for a piece of the sealed user's data (row B6). Offset 0 seals it."""

    update_id: int
    offset: int

    def encode(self) -> bytes:
        """The payload of ``POST /backup``."""
        return encode_map(self.update_id, self.offset)

    @classmethod
    def decode(cls, payload: bytes) -> BackupRequest:
        """Read a payload.

        Raises:
            LinkError: it asks for no piece of a backup.
        """
        values = Map(payload)
        offset = values.uint(2, MAX_BACKUP_SIZE)
        if offset % PIECE_SIZE:
            raise LinkError(f"key 2 must be a multiple of {PIECE_SIZE}")
        return cls(read_update(values, 1), offset)


@dataclass(frozen=True)
class BackupPiece:
    """A piece of a backup. When ``result`` is no success, nothing else counts."""

    result: Result
    size: int = 0
    checksum: bytes = bytes(DIGEST_SIZE)
    data: bytes = b""

    def encode(self) -> bytes:
        """The payload of the answer.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(int(self.result), self.size, self.checksum, self.data)

    @classmethod
    def decode(cls, payload: bytes) -> BackupPiece:
        """Read a payload.

        Raises:
            LinkError: it is no piece of a backup.
        """
        values = Map(payload)
        result = read_result(values, 1)
        if result is not Result.SUCCESS:
            return cls(result)
        size = values.uint(2, MAX_BACKUP_SIZE)
        return cls(result, size, values.digest(3), values.data(4, 1, min(PIECE_SIZE, size)))


@dataclass(frozen=True)
class RestorePiece:
    """A piece of a backup that is given back to the application (row B6)."""

    update_id: int
    size: int
    checksum: bytes
    offset: int
    data: bytes

    def encode(self) -> bytes:
        """The payload of ``POST /restore``.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(self.update_id, self.size, self.checksum, self.offset, self.data)

    @classmethod
    def decode(cls, payload: bytes) -> RestorePiece:
        """Read a payload.

        Raises:
            LinkError: it is no piece of a backup.
        """
        values = Map(payload)
        size, offset = values.uint(2, MAX_BACKUP_SIZE), values.uint(4, MAX_BACKUP_SIZE)
        data = values.data(5, 1, PIECE_SIZE)
        if offset % PIECE_SIZE or len(data) != min(PIECE_SIZE, size - offset):
            raise LinkError("the piece is not one that its place and size make")
        return cls(read_update(values, 1), size, values.digest(3), offset, data)


@dataclass(frozen=True)
class RestoreAnswer:
    """The application's answer to a piece: the offset that it wants next. The size: all is done."""

    result: Result
    offset: int = 0

    def encode(self) -> bytes:
        """The payload of the answer."""
        return encode_map(int(self.result), self.offset)

    @classmethod
    def decode(cls, payload: bytes) -> RestoreAnswer:
        """Read a payload.

        Raises:
            LinkError: it is no such answer.
        """
        values = Map(payload)
        result = read_result(values, 1)
        return cls(result, values.uint(2, MAX_BACKUP_SIZE) if result is Result.SUCCESS else 0)


@dataclass(frozen=True)
class Upgrade:
    """Starts a commanded update (row B7). The signature is over the digest."""

    update_id: int
    version: str
    digest: bytes
    size: int
    signature: bytes
    hardware_id: str
    security_counter: int
    backup: bytes

    def encode(self) -> bytes:
        """The payload of ``POST /upgrade``.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(
            self.update_id, self.version, self.digest, self.size, self.signature,
            self.hardware_id, self.security_counter, self.backup,
        )  # fmt: skip

    @classmethod
    def decode(cls, payload: bytes) -> Upgrade:
        """Read a payload.

        Raises:
            LinkError: it starts no commanded update.
        """
        values = Map(payload)
        return cls(
            update_id=read_update(values, 1),
            version=values.text(2, MAX_NAME),
            digest=values.digest(3),
            size=values.uint(4),
            signature=values.data(5, SIGNATURE_SIZE, SIGNATURE_SIZE),
            hardware_id=values.text(6, MAX_SERIAL),
            security_counter=values.uint(7),
            backup=values.digest(8),
        )


@dataclass(frozen=True)
class Command:
    """A command to the resident program (rows B8, B10): numbered, and for one start of it."""

    path: ClassVar[str]

    update_id: int
    nonce: int
    step: int

    def encode(self) -> bytes:
        """The payload of ``POST`` to ``path``.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(self.update_id, self.nonce, self.step, *self._more())

    def _more(self) -> tuple[int | bytes, ...]:
        return ()


@dataclass(frozen=True)
class Erase(Command):
    """Erase the block at ``offset``, which has ``length`` bytes."""

    path: ClassVar[str] = "erase"

    offset: int
    length: int

    def _more(self) -> tuple[int | bytes, ...]:
        return self.offset, self.length


@dataclass(frozen=True)
class Write(Command):
    """Write ``data`` to ``offset``, which is blank or holds it already."""

    path: ClassVar[str] = "write"

    offset: int
    data: bytes = field(repr=False)

    def _more(self) -> tuple[int | bytes, ...]:
        return self.offset, self.data, hashlib.sha256(self.data).digest()[:_SUM_SIZE]


@dataclass(frozen=True)
class Check(Command):
    """Say whether a range has the SHA-256 ``digest``."""

    path: ClassVar[str] = "check"

    offset: int
    length: int
    digest: bytes

    def _more(self) -> tuple[int | bytes, ...]:
        return self.offset, self.length, self.digest


@dataclass(frozen=True)
class Finish(Command):
    """Verify the image, and start it on trial."""

    path: ClassVar[str] = "finish"


@dataclass(frozen=True)
class Leave(Command):
    """End the update without it."""

    path: ClassVar[str] = "leave"


def decode_command(path: str, payload: bytes) -> Command:
    """Read the payload of a ``POST`` to ``path``.

    Raises:
        LinkError: it is no command.
    """
    values = Map(payload)
    head = read_update(values, 1), values.uint(2), values.uint(3)
    if path == Erase.path:
        return Erase(*head, values.uint(4), values.uint(5))
    if path == Write.path:
        data = values.data(5, 1, MAX_WRITE_SIZE)
        if values.data(6, _SUM_SIZE, _SUM_SIZE) != hashlib.sha256(data).digest()[:_SUM_SIZE]:
            raise LinkError("the data is not what its digest says")
        return Write(*head, values.uint(4), data)
    if path == Check.path:
        return Check(*head, values.uint(4), values.uint(5), values.digest(6))
    if path == Finish.path:
        return Finish(*head)
    if path == Leave.path:
        return Leave(*head)
    raise LinkError(f"there is no command {path}")


@dataclass(frozen=True)
class CommandAnswer:
    """The resident program's answer to a command, at once. Success: it is carried out."""

    result: Result

    def encode(self) -> bytes:
        """The payload of the answer."""
        return encode_map(int(self.result))

    @classmethod
    def decode(cls, payload: bytes) -> CommandAnswer:
        """Read a payload.

        Raises:
            LinkError: it is no such answer.
        """
        return cls(read_result(Map(payload), 1))


@dataclass(frozen=True)
class CommandResult:
    """How a command ended (row B10). ``digest`` is of the range as the NOR reads now."""

    serial: str
    update_id: int
    nonce: int
    step: int
    result: Result
    digest: bytes
    text: str

    def encode(self) -> bytes:
        """The payload of ``POST /result``.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(
            self.serial, self.update_id, self.nonce, self.step, int(self.result), self.digest,
            self.text,
        )  # fmt: skip

    @classmethod
    def decode(cls, payload: bytes) -> CommandResult:
        """Read a payload.

        Raises:
            LinkError: it is no result of a command.
        """
        values = Map(payload)
        return cls(
            serial=read_serial(values, 1),
            update_id=read_update(values, 2),
            nonce=values.uint(3),
            step=values.uint(4),
            result=read_result(values, 5),
            digest=values.digest(6),
            text=values.text(7, MAX_TEXT),
        )
