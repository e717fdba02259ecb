"""The maps of a commanded update and of the user's backup (docs/protocol.md).

Sizes and offsets are in bytes; offsets of the NOR count from its start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from unbrick.errors import LinkError
from unbrick.wire.maps import DIGEST_SIZE, Digest, Map, Message, Uint
from unbrick.wire.messages import (
    AnyResult,
    Name,
    Result,
    Serial,
    ShortName,
    UpdateId,
    Words,
    data_of,
    read_result,
    up_to,
)

if TYPE_CHECKING:
    from typing_extensions import Self

PIECE_SIZE = 768
"""A backup travels in pieces of so many bytes; the last one may be shorter."""

MAX_BACKUP_SIZE = 24 * 1024
MAX_WRITE_SIZE = 896
SIGNATURE_SIZE = 64
_SUM_SIZE = 8

_Size = Annotated[int, up_to(MAX_BACKUP_SIZE)]
_Piece = Annotated[bytes, data_of(1, PIECE_SIZE)]


@dataclass(frozen=True)
class BackupRequest(Message):
    """Asks the application for a piece of the sealed user's data (row B6): ``POST /backup``.

    Offset 0 seals it.
    """

    update_id: UpdateId
    offset: _Size

    @classmethod
    def _read(cls, values: Map) -> Self:
        request = super()._read(values)
        if request.offset % PIECE_SIZE:
            raise LinkError(f"key 2 must be a multiple of {PIECE_SIZE}")
        return request


@dataclass(frozen=True)
class BackupPiece(Message):
    """A piece of a backup. When ``result`` is no success, nothing else counts."""

    result: AnyResult
    size: _Size = 0
    checksum: Digest = bytes(DIGEST_SIZE)
    data: _Piece = b""

    @classmethod
    def _read(cls, values: Map) -> Self:
        result = read_result(values, 1)
        if result is not Result.SUCCESS:
            return cls(result)
        values.data(4, 1, min(PIECE_SIZE, values.uint(2, MAX_BACKUP_SIZE)))
        return super()._read(values)


@dataclass(frozen=True)
class RestorePiece(Message):
    """A piece of a backup that is given back to the application (row B6): ``POST /restore``."""

    update_id: UpdateId
    size: _Size
    checksum: Digest
    offset: _Size
    data: _Piece

    @classmethod
    def _read(cls, values: Map) -> Self:
        piece = super()._read(values)
        if piece.offset % PIECE_SIZE or len(piece.data) != min(
            PIECE_SIZE, piece.size - piece.offset
        ):
            raise LinkError("the piece is not one that its place and size make")
        return piece


@dataclass(frozen=True)
class RestoreAnswer(Message):
    """The application's answer to a piece: the offset that it wants next. The size: all is done."""

    result: AnyResult
    offset: _Size = 0

    @classmethod
    def _read(cls, values: Map) -> Self:
        result = read_result(values, 1)
        if result is not Result.SUCCESS:
            return cls(result)
        return super()._read(values)


@dataclass(frozen=True)
class Upgrade(Message):
    """Starts a commanded update (row B7): ``POST /upgrade``. The signature is over the digest."""

    update_id: UpdateId
    version: Name
    digest: Digest
    size: Uint
    signature: Annotated[bytes, data_of(SIGNATURE_SIZE, SIGNATURE_SIZE)]
    hardware_id: ShortName
    security_counter: Uint
    backup: Digest


@dataclass(frozen=True)
class Command(Message):
    """A command to the resident program (rows B8, B10): numbered, and for one start of it.

    Attributes:
        path: where it is sent to.
    """

    path: ClassVar[str]

    update_id: UpdateId
    nonce: Uint
    step: Uint


@dataclass(frozen=True)
class Erase(Command):
    """Erase the block at ``offset``, which has ``length`` bytes."""

    path: ClassVar[str] = "erase"

    offset: Uint
    length: Uint


@dataclass(frozen=True)
class Write(Command):
    """Write ``data`` to ``offset``, which is blank or holds it already."""

    path: ClassVar[str] = "write"

    offset: Uint
    data: Annotated[bytes, data_of(1, MAX_WRITE_SIZE)] = field(repr=False)

    @property
    def checksum(self) -> bytes:
        """The first bytes of the SHA-256 of the data, which go with it."""
        return hashlib.sha256(self.data).digest()[:_SUM_SIZE]

    def _values(self) -> Iterator[int | str | bytes]:
        yield from super()._values()
        yield self.checksum

    @classmethod
    def _read(cls, values: Map) -> Self:
        write = super()._read(values)
        if values.data(6, _SUM_SIZE, _SUM_SIZE) != write.checksum:
            raise LinkError("the data is not what its digest says")
        return write


@dataclass(frozen=True)
class Check(Command):
    """Say whether a range has the SHA-256 ``digest``."""

    path: ClassVar[str] = "check"

    offset: Uint
    length: Uint
    digest: Digest


@dataclass(frozen=True)
class Finish(Command):
    """Verify the image, and start it on trial."""

    path: ClassVar[str] = "finish"


@dataclass(frozen=True)
class Leave(Command):
    """End the update without it."""

    path: ClassVar[str] = "leave"


_COMMANDS: dict[str, type[Command]] = {
    kind.path: kind for kind in (Erase, Write, Check, Finish, Leave)
}


def decode_command(path: str, payload: bytes) -> Command:
    """Read the payload of a ``POST`` to ``path``.

    Raises:
        LinkError: it is no command.
    """
    if path not in _COMMANDS:
        raise LinkError(f"there is no command {path}")
    return _COMMANDS[path].decode(payload)


@dataclass(frozen=True)
class CommandAnswer(Message):
    """The resident program's answer to a command, at once. Success: it is carried out."""

    result: AnyResult


@dataclass(frozen=True)
class CommandResult(Message):
    """How a command ended (row B10): ``POST /result``.

    ``digest`` is of the range as the NOR reads now.
    """

    serial: Serial
    update_id: UpdateId
    nonce: Uint
    step: Uint
    result: AnyResult
    digest: Digest
    text: Words
