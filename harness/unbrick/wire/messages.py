"""The CBOR maps of docs/protocol.md, in which terminal and server talk.

Sizes are in bytes. Decoding is strict and bounded (``unbrick.wire.maps``). Commanded updates and
the user's data are in ``unbrick.wire.commands``, calls in ``unbrick.wire.calls``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from unbrick.errors import LinkError
from unbrick.wire.maps import Map, encode_map

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


def read_result(values: Map, key: int) -> Result:
    """The result at ``key``.

    Raises:
        LinkError: there is none.
    """
    return Result(values.uint(key, max(Result)))


def read_serial(values: Map, key: int) -> str:
    """The serial at ``key``.

    Raises:
        LinkError: there is none.
    """
    serial = values.text(key, MAX_SERIAL)
    if not serial:
        raise LinkError("the serial is empty")
    return serial


def read_update(values: Map, key: int) -> int:
    """The id of an update at ``key``.

    Raises:
        LinkError: there is none.
    """
    update_id = values.uint(key)
    if not update_id:
        raise LinkError("the update id is 0")
    return update_id


@dataclass(frozen=True)
class Registration:
    """A terminal's identity and that of its software (rows A6, A7, B1).

    Commands to the resident program must carry ``nonce``. It is 0 when that does not run.
    """

    serial: str
    hardware_id: str
    name: str
    version: str
    build_time: str
    digest: bytes
    state: TerminalState
    last_update_id: int
    last_result: Result
    security_counter: int
    nonce: int = 0

    def encode(self) -> bytes:
        """The payload of ``POST /register``.

        Raises:
            LinkError: it does not fit.
        """
        nonce = (self.nonce,) if self.state is TerminalState.COMMANDED else ()
        return encode_map(
            self.serial, self.hardware_id, self.name, self.version, self.build_time, self.digest,
            int(self.state), self.last_update_id, int(self.last_result), self.security_counter,
            *nonce,
        )  # fmt: skip

    @classmethod
    def decode(cls, payload: bytes) -> Registration:
        """Read a payload.

        Raises:
            LinkError: it is not a registration.
        """
        values = Map(payload)
        state = TerminalState(values.uint(7, max(TerminalState)))
        return cls(
            serial=read_serial(values, 1),
            hardware_id=values.text(2, MAX_SERIAL),
            name=values.text(3, MAX_NAME),
            version=values.text(4, MAX_NAME),
            build_time=values.text(5, MAX_NAME),
            digest=values.digest(6),
            state=state,
            last_update_id=values.uint(8),
            last_result=read_result(values, 9),
            security_counter=values.uint(10),
            nonce=values.uint(11) if state is TerminalState.COMMANDED else 0,
        )


@dataclass(frozen=True)
class Announcement:
    """An update that the server offers (row A5)."""

    update_id: int
    kind: Kind
    file_size: int
    file_digest: bytes
    version: str
    image_digest: bytes
    image_size: int
    working_memory: int = 0

    def encode(self) -> bytes:
        """The payload of ``POST /announce``.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(
            self.update_id, int(self.kind), self.file_size, self.file_digest, self.version,
            self.image_digest, self.image_size, self.working_memory,
        )  # fmt: skip

    @classmethod
    def decode(cls, payload: bytes) -> Announcement:
        """Read a payload.

        Raises:
            LinkError: it is not an announcement.
        """
        values = Map(payload)
        return cls(
            update_id=read_update(values, 1),
            kind=Kind(values.uint(2, max(Kind))),
            file_size=values.uint(3),
            file_digest=values.digest(4),
            version=values.text(5, MAX_NAME),
            image_digest=values.digest(6),
            image_size=values.uint(7),
            working_memory=values.uint(8),
        )


@dataclass(frozen=True)
class Decision:
    """A terminal's answer to an announcement: result 0 accepts it."""

    result: Result
    needed: int
    possible: int
    text: str

    def encode(self) -> bytes:
        """The payload of the answer.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(int(self.result), self.needed, self.possible, self.text)

    @classmethod
    def decode(cls, payload: bytes) -> Decision:
        """Read a payload.

        Raises:
            LinkError: it is not a decision.
        """
        values = Map(payload)
        return cls(read_result(values, 1), values.uint(2), values.uint(3), values.text(4, MAX_TEXT))


@dataclass(frozen=True)
class Report:
    """How far a terminal is with an update."""

    serial: str
    update_id: int
    phase: Phase
    result: Result
    version: str
    digest: bytes
    text: str

    def encode(self) -> bytes:
        """The payload of ``POST /report``.

        Raises:
            LinkError: it does not fit.
        """
        return encode_map(
            self.serial, self.update_id, int(self.phase), int(self.result), self.version,
            self.digest, self.text,
        )  # fmt: skip

    @classmethod
    def decode(cls, payload: bytes) -> Report:
        """Read a payload.

        Raises:
            LinkError: it is not a report.
        """
        values = Map(payload)
        phase = Phase(values.uint(3, max(Phase)))
        if phase in (Phase.IDLE, Phase.COMMANDED):
            raise LinkError("key 3 must be a number from 1 to 5")
        return cls(
            serial=values.text(1, MAX_SERIAL),
            update_id=values.uint(2),
            phase=phase,
            result=read_result(values, 4),
            version=values.text(5, MAX_NAME),
            digest=values.digest(6),
            text=values.text(7, MAX_TEXT),
        )


@dataclass(frozen=True)
class Status:
    """The answer to ``GET /status``: sizes in bytes."""

    phase: Phase
    update_id: int
    received: int
    file_size: int

    def encode(self) -> bytes:
        """The payload of the answer."""
        return encode_map(int(self.phase), self.update_id, self.received, self.file_size)

    @classmethod
    def decode(cls, payload: bytes) -> Status:
        """Read a payload.

        Raises:
            LinkError: it is not a status.
        """
        values = Map(payload)
        phase = Phase(values.uint(1, max(Phase)))
        return cls(phase, values.uint(2), values.uint(3), values.uint(4))


@dataclass(frozen=True)
class Text:
    """A message for the terminal's user: at most ``MAX_TEXT`` bytes of UTF-8."""

    text: str

    def encode(self) -> bytes:
        """The payload of ``POST /message``.

        Raises:
            LinkError: too long, empty, or not printable.
        """
        if not 0 < len(self.text.encode()) <= MAX_TEXT or not self.text.isprintable():
            raise LinkError(
                f"a text message is one line of 1 to {MAX_TEXT} bytes",
                hint="shorten it, and leave out line ends and control characters",
            )
        return encode_map(self.text)

    @classmethod
    def decode(cls, payload: bytes) -> Text:
        """Read a payload.

        Raises:
            LinkError: it is not a text message.
        """
        return cls(Map(payload).text(1, MAX_TEXT))
