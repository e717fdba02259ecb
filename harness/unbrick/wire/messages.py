"""The CBOR maps of docs/protocol.md, in which terminal and server talk.

Sizes are in bytes. Decoding is strict and bounded (``unbrick.wire.maps``). Commanded updates and
the user's data are in ``unbrick.wire.commands``, calls in ``unbrick.wire.calls``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

from unbrick.errors import LinkError
from unbrick.wire.maps import Digest, Map, Message, Uint

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_SERIAL = 31
MAX_TEXT = 160
CBOR_FORMAT = 60
FILE_FORMAT = 42
LINK_FORMAT = 40

MAX_NAME = 63


class Result(IntEnum):
    """How an update ended, or why it is refused."""

    SUCCESS = 0
    NOT_ENOUGH_SRAM = 1
    TOO_LARGE = 2
    UNKNOWN_KIND = 3
    MALFORMED_ANNOUNCEMENT = 4
    BUSY = 5
    TRANSFER_GAVE_UP = 6
    FILE_DIGEST_WRONG = 7
    IMAGE_MALFORMED = 8
    IMAGE_HASH_WRONG = 9
    SIGNATURE_WRONG = 10
    OTHER_HARDWARE = 11
    OLDER_THAN_COUNTER = 12
    INTERRUPTED = 13
    REWRITE_FAILED = 14
    TRIAL_FAILED = 15
    RESTORED = 16
    RESTORED_BY_LINK = 17
    WRONG_BASE = 18
    NOT_REBUILT = 19
    USERDATA_CHANGED = 20
    OUT_OF_TURN = 21
    ERASE_FAILED = 22
    PROGRAM_FAILED = 23
    OTHER_CONTENT = 24
    BACKUP_UNREADABLE = 25
    NO_ROOM = 26
    USERDATA_UNREADABLE = 27

    @property
    def text(self) -> str:
        """The result in words, for a person."""
        return _RESULT_TEXTS[self]


_RESULT_TEXTS = {
    Result.SUCCESS: "success",
    Result.NOT_ENOUGH_SRAM: "not enough SRAM",
    Result.TOO_LARGE: "too large for the partition",
    Result.UNKNOWN_KIND: "unknown kind",
    Result.MALFORMED_ANNOUNCEMENT: "malformed announcement",
    Result.BUSY: "busy with another update",
    Result.TRANSFER_GAVE_UP: "transfer gave up",
    Result.FILE_DIGEST_WRONG: "file digest wrong",
    Result.IMAGE_MALFORMED: "image malformed",
    Result.IMAGE_HASH_WRONG: "image hash wrong",
    Result.SIGNATURE_WRONG: "signature wrong or missing",
    Result.OTHER_HARDWARE: "for other hardware",
    Result.OLDER_THAN_COUNTER: "older than the security counter",
    Result.INTERRUPTED: "interrupted before anything was rewritten",
    Result.REWRITE_FAILED: "rewrite failed, restoration needed",
    Result.TRIAL_FAILED: "trial failed, restoration needed",
    Result.RESTORED: "restored over the wire",
    Result.RESTORED_BY_LINK: "restored over the wireless link",
    Result.WRONG_BASE: "made for other installed software",
    Result.NOT_REBUILT: "the differential file makes no image",
    Result.USERDATA_CHANGED: "the user's data has changed since its backup",
    Result.OUT_OF_TURN: "out of turn",
    Result.ERASE_FAILED: "erase failed",
    Result.PROGRAM_FAILED: "program failed",
    Result.OTHER_CONTENT: "the NOR holds something else",
    Result.BACKUP_UNREADABLE: "the backup cannot be opened",
    Result.NO_ROOM: "no room for the user's data",
    Result.USERDATA_UNREADABLE: "the user's data cannot be read",
}


class TerminalState(IntEnum):
    """The program that runs on a terminal that registers."""

    APPLICATION = 0
    RESTORATION = 1
    COMMANDED = 2


class Kind(IntEnum):
    """The kind of an update file."""

    FULL_IMAGE = 0
    DIFFERENTIAL = 1


class Phase(IntEnum):
    """How far a terminal is with an update."""

    IDLE = 0
    TRANSFERRING = 1
    RECEIVED = 2
    CHECKED = 3
    REWRITING = 4
    FINISHED = 5
    COMMANDED = 6


E = TypeVar("E", bound=IntEnum)


def one_of(kind: type[E]) -> Callable[[Map, int], E]:
    """Reads a member of ``kind``, whose numbers count up from 0."""
    last = max(kind)
    return lambda values, key: kind(values.uint(key, last))


def up_to(limit: int) -> Callable[[Map, int], int]:
    """Reads a number from 0 to ``limit``."""
    return lambda values, key: values.uint(key, limit)


def text_of(limit: int) -> Callable[[Map, int], str]:
    """Reads a printable text of at most ``limit`` bytes."""
    return lambda values, key: values.text(key, limit)


def data_of(least: int, limit: int) -> Callable[[Map, int], bytes]:
    """Reads ``least`` to ``limit`` bytes."""
    return lambda values, key: values.data(key, least, limit)


def _read_serial(values: Map, key: int) -> str:
    serial = values.text(key, MAX_SERIAL)
    if not serial:
        raise LinkError("the serial is empty")
    return serial


def _read_update_id(values: Map, key: int) -> int:
    update_id = values.uint(key)
    if not update_id:
        raise LinkError("the update id is 0")
    return update_id


def _read_nonce(values: Map, key: int) -> int:
    """Only the resident program has one."""
    return values.uint(key) if values.uint(7) == TerminalState.COMMANDED else 0


read_result = one_of(Result)

Serial = Annotated[str, _read_serial]
UpdateId = Annotated[int, _read_update_id]
Nonce = Annotated[int, _read_nonce]
Name = Annotated[str, text_of(MAX_NAME)]
ShortName = Annotated[str, text_of(MAX_SERIAL)]
Words = Annotated[str, text_of(MAX_TEXT)]
AnyResult = Annotated[Result, read_result]
AnyPhase = Annotated[Phase, one_of(Phase)]


def check_text(text: str, what: str, hint: str) -> None:
    """Whether the terminal takes a text: one line of at most ``MAX_TEXT`` bytes.

    Raises:
        LinkError: it does not; ``what`` and ``hint`` say so.
    """
    if not 0 < len(text.encode()) <= MAX_TEXT or not text.isprintable():
        raise LinkError(what, hint=hint)


@dataclass(frozen=True)
class Registration(Message):
    """A terminal's identity and that of its software (rows A6, A7, B1): ``POST /register``.

    Commands to the resident program must carry ``nonce``. It is 0 when that does not run.
    """

    serial: Serial
    hardware_id: ShortName
    name: Name
    version: Name
    build_time: Name
    digest: Digest
    state: Annotated[TerminalState, one_of(TerminalState)]
    last_update_id: Uint
    last_result: AnyResult
    security_counter: Uint
    nonce: Nonce = 0

    def _values(self) -> Iterator[int | str | bytes]:
        *values, nonce = super()._values()
        yield from values
        if self.state is TerminalState.COMMANDED:
            yield nonce


@dataclass(frozen=True)
class Announcement(Message):
    """An update that the server offers (row A5): ``POST /announce``."""

    update_id: UpdateId
    kind: Annotated[Kind, one_of(Kind)]
    file_size: Uint
    file_digest: Digest
    version: Name
    image_digest: Digest
    image_size: Uint
    working_memory: Uint = 0


@dataclass(frozen=True)
class Decision(Message):
    """A terminal's answer to an announcement: result 0 accepts it."""

    result: AnyResult
    needed: Uint
    possible: Uint
    text: Words


@dataclass(frozen=True)
class Report(Message):
    """How far a terminal is with an update: ``POST /report``."""

    serial: ShortName
    update_id: Uint
    phase: AnyPhase
    result: AnyResult
    version: Name
    digest: Digest
    text: Words

    @classmethod
    def _read(cls, values: Map) -> Self:
        report = super()._read(values)
        if report.phase in (Phase.IDLE, Phase.COMMANDED):
            raise LinkError("key 3 must be a number from 1 to 5")
        return report


@dataclass(frozen=True)
class Status(Message):
    """The answer to ``GET /status``: sizes in bytes."""

    phase: AnyPhase
    update_id: Uint
    received: Uint
    file_size: Uint


@dataclass(frozen=True)
class Text(Message):
    """A message for the terminal's user, at most ``MAX_TEXT`` bytes of UTF-8: ``POST /message``."""

    text: Words

    def _values(self) -> Iterator[int | str | bytes]:
        check_text(
            self.text,
            f"a text message is one line of 1 to {MAX_TEXT} bytes",
            "shorten it, and leave out line ends and control characters",
        )
        return super()._values()
