"""A registration read at a glance is the one that is read in full."""

from __future__ import annotations

from typing import Any

import aiocoap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_world import post, registration

from unbrick.errors import LinkError
from unbrick.wire.codec import decode
from unbrick.wire.glance import glance_protected, glance_serial, refuse_at_a_glance
from unbrick.wire.messages import Registration
from unbrick.wire.oscore import SEQUENCE_LIMIT, Context, Side, read_header

SERIALS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=31)
TOKENS = st.binary(max_size=8)
MIDS = st.integers(0, 0xFFFF)


def datagram(message: Any, mid: int = 1, token: bytes = b"ab", mtype: Any = aiocoap.CON) -> bytes:
    message.mtype, message.mid, message.token = mtype, mid, token
    return bytes(message.encode())


@given(SERIALS, TOKENS, MIDS)
def test_what_terminals_send_is_read_at_a_glance(serial: str, token: bytes, mid: int) -> None:
    request = post("register", registration(serial=serial).encode())
    assert glance_serial(datagram(request, mid, token)) == serial


@given(SERIALS, TOKENS, MIDS, st.integers(0, SEQUENCE_LIMIT - 1))
def test_what_terminals_protect_is_read_at_a_glance(
    serial: str, token: bytes, mid: int, number: int
) -> None:
    context = Context(bytes(32), serial, Side.TERMINAL)
    sealed, _ = context.seal_request(post("register", registration(serial=serial).encode()), number)
    assert glance_protected(datagram(sealed, mid, token)) == (serial, number)
    assert glance_serial(datagram(sealed, mid, token)) is None


@given(st.binary(max_size=12).map(lambda data: b"\x9b\x1a" + data) | st.binary(max_size=20))
def test_any_protected_message_is_read_as_in_full_or_not_at_all(data: bytes) -> None:
    found = glance_protected(b"\x40\x02\0\1" + data)
    if found is None:
        return
    try:
        header = read_header(decode(b"\x40\x02\0\1" + data))
    except LinkError:
        return  # Read in full, it is refused.
    assert header is not None
    assert found == ((header.kid_context or b"").decode(), header.sequence)
    assert header.kid == b""


@given(TOKENS, MIDS, st.sampled_from([aiocoap.TOO_MANY_REQUESTS, aiocoap.SERVICE_UNAVAILABLE]))
def test_the_refusal_is_the_one_that_the_codec_makes(token: bytes, mid: int, code: Any) -> None:
    request = datagram(post("register", registration().encode()), mid, token)
    made = datagram(aiocoap.Message(code=code, max_age=200), mid, token, aiocoap.ACK)
    assert refuse_at_a_glance(request, code, 200) == made
    without = datagram(aiocoap.Message(code=code), mid, token, aiocoap.ACK)
    assert refuse_at_a_glance(request, code) == without


@given(st.data())
def test_a_glance_says_nothing_else_than_reading_in_full(data: st.DataObject) -> None:
    good = bytearray(datagram(post("register", registration().encode())))
    for _ in range(data.draw(st.integers(0, 4))):
        good[data.draw(st.integers(0, 30))] = data.draw(st.integers(0, 255))
    sent = bytes(good[: data.draw(st.integers(0, len(good)))])
    serial = glance_serial(sent)
    try:
        message = decode(sent)
        said = Registration.decode(message.payload)
    except (LinkError, UnicodeDecodeError):
        return
    if serial is not None:
        assert message.opt.uri_path == ("register",)
        assert said.serial == serial


@given(st.binary(max_size=80))
def test_nothing_makes_a_glance_raise(sent: bytes) -> None:
    assert glance_serial(sent) is None or sent[1] == aiocoap.POST


@pytest.mark.parametrize(
    "sent",
    [
        datagram(post("register", registration().encode()), mtype=aiocoap.NON),
        datagram(post("report", registration().encode())),
        datagram(aiocoap.Message(code=aiocoap.GET, uri_path=("register",))),
        datagram(aiocoap.Message(code=aiocoap.POST, uri_path=("register",), payload=b"\xa0")),
        datagram(post("register", b"\xa1\x02\x61a")),
    ],
)
def test_what_is_something_else_is_left_to_the_codec(sent: bytes) -> None:
    assert glance_serial(sent) is None
