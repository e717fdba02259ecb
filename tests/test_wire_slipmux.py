"""Frames on the wireless link: what goes in comes out, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbrick.errors import LinkError
from unbrick.wire.slipmux import (
    MAX_FRAME_SIZE,
    Decoder,
    Frame,
    FrameType,
    encode,
    encode_diagnostic,
    fcs16,
)


def test_fcs_is_that_of_rfc_1662() -> None:
    assert fcs16(b"123456789") == 0x906E
    assert fcs16(b"") == 0x0000


def test_escapes_are_those_of_rfc_1055() -> None:
    frame = encode(b"\xc0\xdb")
    body = b"\xa9\xc0\xdb"
    fcs = fcs16(body).to_bytes(2, "little")
    assert frame == b"\xc0\xa9\xdb\xdc\xdb\xdd" + fcs + b"\xc0"


@given(st.lists(st.binary(max_size=80), max_size=5), st.integers(1, 9))
def test_messages_come_through_however_the_stream_is_cut(messages: list[bytes], cut: int) -> None:
    stream = b"".join(encode(message) for message in messages)
    decoder = Decoder()
    frames = []
    for start in range(0, len(stream), cut):
        frames += decoder.feed(stream[start : start + cut])
    assert [frame.data for frame in frames] == messages
    assert decoder.dropped == 0


@given(st.binary(min_size=1, max_size=60), st.data())
def test_one_wrong_bit_is_always_found(message: bytes, data: st.DataObject) -> None:
    frame = bytearray(encode(message))
    frame[data.draw(st.integers(1, len(frame) - 2))] ^= 1 << data.draw(st.integers(0, 7))
    coap = [f for f in Decoder().feed(bytes(frame)) if f.type is FrameType.COAP]
    assert coap == []


def test_a_damaged_frame_does_not_hurt_the_next() -> None:
    decoder = Decoder()
    damaged = encode(b"first")[:-3] + b"\xc0"
    assert decoder.feed(damaged + encode(b"second")) == [Frame(FrameType.COAP, b"second")]
    assert decoder.dropped == 1


@pytest.mark.parametrize(
    "raw", [b"\x55hello", b"\xa9", b"\xa9\x00", b"\xdb", b"\x0a\xdb\x00", b"\x0a\xdb\xdb\xdc"]
)
def test_frames_of_no_use_are_dropped_and_counted(raw: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(b"\xc0" + raw + b"\xc0") == []
    assert decoder.dropped == 1


def test_endless_frames_are_not_kept() -> None:
    decoder = Decoder()
    for _ in range(100):
        decoder.feed(b"\x0a" * 1000)
        assert len(decoder._held) <= 2 * MAX_FRAME_SIZE
    assert decoder.feed(b"\xc0" + encode(b"next")) == [Frame(FrameType.COAP, b"next")]
    assert decoder.dropped == 1


def test_the_longest_frame_goes_through_and_a_longer_one_does_not() -> None:
    longest = bytes([0xC0]) * (MAX_FRAME_SIZE - 3)
    assert Decoder().feed(encode(longest)) == [Frame(FrameType.COAP, longest)]
    with pytest.raises(LinkError, match="1281 bytes"):
        encode(longest + b"x")
    decoder = Decoder()
    assert decoder.feed(b"\xc0\x0a" + b"x" * MAX_FRAME_SIZE + b"\xc0") == []
    assert decoder.dropped == 1


def test_diagnostics_are_text_beside_the_messages() -> None:
    stream = encode(b"a") + encode_diagnostic("Grüße") + encode(b"b")
    frames = Decoder().feed(stream)
    assert [frame.type for frame in frames] == [
        FrameType.COAP,
        FrameType.DIAGNOSTIC,
        FrameType.COAP,
    ]
    assert frames[1].data.decode() == "Grüße"


@given(st.binary(max_size=3000))
def test_any_bytes_can_be_fed(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data)
    decoder.feed(b"\xc0")
    assert decoder.feed(encode(b"still there")) == [Frame(FrameType.COAP, b"still there")]
