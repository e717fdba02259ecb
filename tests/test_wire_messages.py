"""The CBOR maps: exact on the way out, strict on the way in."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbrick.errors import LinkError
from unbrick.wire.calls import CallRequest, HangUp, Key, SayRequest
from unbrick.wire.commands import (
    MAX_WRITE_SIZE,
    PIECE_SIZE,
    BackupPiece,
    BackupRequest,
    Check,
    Command,
    CommandAnswer,
    CommandResult,
    Erase,
    Finish,
    Leave,
    RestoreAnswer,
    RestorePiece,
    Upgrade,
    Write,
    decode_command,
)
from unbrick.wire.messages import (
    Announcement,
    Decision,
    Kind,
    Phase,
    Registration,
    Report,
    Result,
    Status,
    TerminalState,
    Text,
)

REGISTRATION = Registration(
    serial="T-0001",
    hardware_id="unbrick-a9-r1",
    name="terminal",
    version="1.0.0+0",
    build_time="2024-05-01T12:00:00Z",
    digest=bytes(range(32)),
    state=TerminalState.APPLICATION,
    last_update_id=7,
    last_result=Result.INTERRUPTED,
    security_counter=3,
)
ANNOUNCEMENT = Announcement(9, Kind.FULL_IMAGE, 1234, b"f" * 32, "1.1.0+0", b"i" * 32, 1234, 0)
DECISION = Decision(Result.NOT_ENOUGH_SRAM, 2_000_000, 1_800_000, "no room")
REPORT = Report("T-0001", 9, Phase.CHECKED, Result.SUCCESS, "1.0.0+0", b"d" * 32, "")
STATUS = Status(Phase.TRANSFERRING, 9, 512, 1234)
TEXT = Text("Grüße an alle")
COMMANDED = replace(REGISTRATION, state=TerminalState.COMMANDED, nonce=0xFFFF_FFFF)
RESTORE_PIECE = RestorePiece(9, PIECE_SIZE + 5, b"s" * 32, PIECE_SIZE, b"piece")
WRITE = Write(9, 77, 3, 0x100000, b"w" * MAX_WRITE_SIZE)
RESULT = CommandResult("T-0001", 9, 77, 3, Result.ERASE_FAILED, b"d" * 32, "SR.5")
ALL: list[Any] = [
    *(REGISTRATION, COMMANDED, ANNOUNCEMENT, DECISION, REPORT, STATUS, TEXT),
    *(
        BackupRequest(9, 2 * PIECE_SIZE),
        BackupPiece(Result.SUCCESS, PIECE_SIZE + 1, b"s" * 32, b"p"),
    ),
    *(BackupPiece(Result.OUT_OF_TURN), RESTORE_PIECE, RestoreAnswer(Result.SUCCESS, PIECE_SIZE)),
    Upgrade(9, "1.1.0+0", b"i" * 32, 1234, b"s" * 64, "unbrick-a9-r1", 3, b"b" * 32),
    *(Erase(9, 77, 2, 0x100000, 0x40000), WRITE, Check(9, 77, 4, 0x100000, 5000, b"c" * 32)),
    *(Finish(9, 77, 5), Leave(9, 77, 6), CommandAnswer(Result.OUT_OF_TURN), RESULT),
    *(
        CallRequest("T-0001", 1),
        Key("T-0001", 1, 2, "#"),
        HangUp("T-0001", 1),
        SayRequest(1, 3, "Bye", True),
    ),
]


def decode(message: Any, payload: bytes) -> Any:
    if isinstance(message, Command):
        return decode_command(message.path, payload)
    return type(message).decode(payload)


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_what_is_encoded_is_decoded(message: Any) -> None:
    assert decode(message, message.encode()) == message


def test_keys_are_those_of_the_protocol() -> None:
    assert cbor2.loads(REGISTRATION.encode()) == {
        1: "T-0001",
        2: "unbrick-a9-r1",
        3: "terminal",
        4: "1.0.0+0",
        5: "2024-05-01T12:00:00Z",
        6: bytes(range(32)),
        7: 0,
        8: 7,
        9: 13,
        10: 3,
    }
    assert cbor2.loads(ANNOUNCEMENT.encode()) == {
        1: 9, 2: 0, 3: 1234, 4: b"f" * 32, 5: "1.1.0+0", 6: b"i" * 32, 7: 1234, 8: 0,
    }  # fmt: skip
    assert cbor2.loads(DECISION.encode()) == {1: 1, 2: 2_000_000, 3: 1_800_000, 4: "no room"}
    assert cbor2.loads(REPORT.encode()) == {
        1: "T-0001", 2: 9, 3: 3, 4: 0, 5: "1.0.0+0", 6: b"d" * 32, 7: "",
    }  # fmt: skip
    assert cbor2.loads(STATUS.encode()) == {1: 1, 2: 9, 3: 512, 4: 1234}
    assert cbor2.loads(TEXT.encode()) == {1: "Grüße an alle"}
    assert cbor2.loads(COMMANDED.encode())[11] == 0xFFFF_FFFF
    assert cbor2.loads(RESTORE_PIECE.encode()) == {
        1: 9, 2: PIECE_SIZE + 5, 3: b"s" * 32, 4: PIECE_SIZE, 5: b"piece",
    }  # fmt: skip
    assert cbor2.loads(WRITE.encode()) == {
        1: 9, 2: 77, 3: 3, 4: 0x100000, 5: b"w" * 896, 6: hashlib.sha256(b"w" * 896).digest()[:8],
    }  # fmt: skip
    assert cbor2.loads(RESULT.encode()) == {
        1: "T-0001", 2: 9, 3: 77, 4: 3, 5: 22, 6: b"d" * 32, 7: "SR.5",
    }  # fmt: skip
    assert cbor2.loads(SayRequest(1, 3, "Bye", True).encode()) == {1: 1, 2: 3, 3: "Bye", 4: 1}


def test_unknown_keys_are_passed_over() -> None:
    values = cbor2.loads(STATUS.encode())
    values[99] = [1, {2: b"x"}, None]
    assert Status.decode(cbor2.dumps(values)) == STATUS


def test_every_result_has_words() -> None:
    assert [int(result) for result in Result] == list(range(28))
    assert all(result.text for result in Result)


def changed(key: int, value: object) -> bytes:
    values = cbor2.loads(REGISTRATION.encode())
    values[key] = value
    return bytes(cbor2.dumps(values))


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", "no CBOR map"),
        (b"\x01", "no CBOR map"),
        (b"\xa1\x01", "ends early"),
        (b"\xa1\x01\x1b\x00", "ends early"),
        (b"\xa1\x01\x62a", "ends early"),
        (b"\xbb" + b"\xff" * 8, "ends early"),
        (b"\xbf\x01\x01\xff", "indefinite"),
        (b"\xa1\x01\x7f\xff", "indefinite"),
        (b"\xa2\x01\x01\x01\x02", "occurs twice"),
        (b"\xa1\x01\x01\x00", "after the CBOR map"),
        (b"\xa1\x20\x01", "no unsigned number"),
        (b"\xa1\xf5\x01", "no unsigned number"),
        (b"\xa1\x01\x62\xff\xff", "well-formed"),
        (b"\xa1\x80\x01", "well-formed|unsigned"),
        (b"\xa1\x01\xc0\x01", "tag"),
        (b"\xa1\x01\xf9\x00\x00", "no number, text"),
        (b"\xa1\x01" + b"\x81" * 9 + b"\x01", "too deeply"),
        (b"\xa1\x01\x59\x04\x00" + bytes(1024), "at most 1024"),
        (changed(1, ""), "serial is empty"),
        (changed(1, "x" * 32), "key 1 .* 31 bytes"),
        (changed(1, "ü" * 16), "key 1 .* 31 bytes"),
        (changed(1, b"bytes"), "key 1"),
        (changed(4, "1.0\x1b[31m"), "key 4 .* printable"),
        (changed(6, bytes(31)), "key 6 .* 32 bytes"),
        (changed(6, "x" * 32), "key 6"),
        (changed(7, 3), "key 7"),
        (changed(8, -1), "key 8"),
        (changed(8, 1 << 32), "key 8"),
        (changed(8, True), "key 8"),
        (changed(9, 28), "key 9"),
    ],
)
def test_bad_payloads_are_refused(payload: bytes, complaint: str) -> None:
    with pytest.raises(LinkError, match=complaint):
        Registration.decode(payload)


def test_numbers_of_any_width_are_understood() -> None:
    wide = b"\xa4\x18\x01\x19\x00\x01\x02\x1a\x00\x00\x00\x09\x03\x00\x04\x1b" + bytes(7) + b"\x05"
    assert Status.decode(wide) == Status(Phase.TRANSFERRING, 9, 0, 5)


def test_special_values_are_refused() -> None:
    with pytest.raises(LinkError, match="update id is 0"):
        Announcement.decode(Announcement(0, *list(vars(ANNOUNCEMENT).values())[1:]).encode())
    values = cbor2.loads(REPORT.encode())
    values[3] = 0
    with pytest.raises(LinkError, match="from 1 to 5"):
        Report.decode(cbor2.dumps(values))


def test_pieces_and_data_must_be_what_they_claim() -> None:
    with pytest.raises(LinkError, match="multiple of 768"):
        BackupRequest.decode(BackupRequest(9, 1).encode())
    with pytest.raises(LinkError, match="key 4 must be 1 to 3 bytes"):
        BackupPiece.decode(BackupPiece(Result.SUCCESS, 3, b"s" * 32, b"long").encode())
    for wrong in (replace(RESTORE_PIECE, data=b"short"[:-1]), replace(RESTORE_PIECE, offset=5)):
        with pytest.raises(LinkError, match="piece"):
            RestorePiece.decode(wrong.encode())
    values = cbor2.loads(WRITE.encode())
    values[5] = b"other"
    with pytest.raises(LinkError, match="digest"):
        decode_command("write", cbor2.dumps(values))
    with pytest.raises(LinkError, match="no command sleep"):
        decode_command("sleep", Leave(9, 77, 6).encode())
    with pytest.raises(LinkError, match="one of"):
        Key.decode(Key("T-0001", 1, 2, "a").encode())
    with pytest.raises(LinkError, match="160 bytes"):
        SayRequest(1, 3, "x" * 161).encode()
    with pytest.raises(LinkError, match="key 11"):
        Registration.decode(changed(7, 2))


@pytest.mark.parametrize("text", ["", "x" * 161, "ü" * 81, "two\nlines"])
def test_texts_that_no_terminal_takes_are_not_sent(text: str) -> None:
    with pytest.raises(LinkError, match="160 bytes"):
        Text(text).encode()


@given(st.sampled_from(ALL), st.data())
def test_mutated_payloads_are_understood_or_refused(message: Any, data: st.DataObject) -> None:
    payload = bytearray(message.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload)))
        new = data.draw(st.binary(max_size=3))
        payload[at : at + data.draw(st.integers(0, 3))] = new
    with contextlib.suppress(LinkError):
        decode(message, bytes(payload))


@given(st.binary(max_size=100))
def test_any_bytes_are_understood_or_refused(payload: bytes) -> None:
    for message in ALL:
        with contextlib.suppress(LinkError):
            decode(message, b"\xa8" + payload)
