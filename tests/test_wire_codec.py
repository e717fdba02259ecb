"""Reading CoAP messages: as ``aiocoap`` reads them, whoever has made them."""

from __future__ import annotations

from typing import Any

import aiocoap
import pytest
from aiocoap.error import UnparsableMessage
from aiocoap.numbers import OptionNumber
from hypothesis import given
from hypothesis import strategies as st

from unbrick.errors import LinkError
from unbrick.wire.codec import _MAX_REMEMBERED_OPTION, REMEMBERED_OPTIONS, _make_once, decode


def say(message: Any) -> tuple[Any, ...]:
    """All that a message says, but for its format: one of over two bytes is passed over here."""
    options = [o for o in message.opt.option_list() if o.number != OptionNumber.CONTENT_FORMAT]
    return (
        *(message.mtype, message.mid, message.token, message.code, message.direction),
        *(message.payload, [(o.number, o.encode(), o.value) for o in options]),
    )


def read_with_aiocoap(datagram: bytes) -> tuple[Any, ...] | None:
    """What ``aiocoap`` reads; None: nothing, or what RFC 7252 forbids and it lets through."""
    try:
        message = aiocoap.Message.decode(datagram)
    except (UnparsableMessage, ValueError):
        return None
    token = datagram[0] & 0x0F
    if token > 8 or len(message.token) != token:
        return None
    if message.code == aiocoap.EMPTY and len(datagram) != 4:
        return None
    return say(message)


NUMBERS = [1, 3, 4, 6, 7, 8, 9, 11, 12, 14, 15, 17, 20, 23, 27, 35, 60, 252, 300, 65001]
OPTIONS = st.lists(st.tuples(st.sampled_from(NUMBERS), st.binary(max_size=20)), max_size=5)
HEADS = st.tuples(st.sampled_from([0x40, 0x42, 0x50, 0x61, 0x78, 0x49, 0x80]), st.integers(0, 255))


def encode(options: list[tuple[int, bytes]]) -> bytes:
    """Options as they are on their way."""
    message = aiocoap.Message()
    for number, value in options:
        message.opt.add_option(OptionNumber(number).create_option())
        message.opt.get_option(number)[-1].encode = lambda value=value: value
    return bytes(message.opt.encode())


@given(HEADS, OPTIONS, st.binary(max_size=4), st.integers(0, 3))
def test_a_message_is_read_as_aiocoap_reads_it(
    head: tuple[int, int], options: list[tuple[int, bytes]], payload: bytes, cut: int
) -> None:
    datagram = bytes(head) + b"\1\2" + bytes(head[0] & 0x0F) + encode(options)
    datagram += b"\xff" + payload if payload else b""
    compare(datagram[: len(datagram) - cut])


@given(st.sampled_from([b"\x40\x02\0\1", b"\x40\x45\0\1", b""]), st.binary(max_size=12))
def test_any_bytes_are_read_as_aiocoap_reads_them(head: bytes, data: bytes) -> None:
    compare(head + data)


def compare(datagram: bytes) -> None:
    """Both readers say the same, twice: what is remembered does not change."""
    expected = read_with_aiocoap(datagram)
    for _ in range(2):
        read = read_here(datagram)
        assert read in (expected, "payload marker", "too large")  # Those, ours alone refuses.


def read_here(datagram: bytes) -> tuple[Any, ...] | str | None:
    """What we read, or why we do not, when ``aiocoap`` would."""
    try:
        return say(decode(datagram))
    except LinkError as error:
        return next((why for why in ("payload marker", "too large") if why in str(error)), None)


def test_an_option_is_made_once_and_is_nobodys() -> None:
    first, second = (decode(b"\x40\x02\0\1\xb8register") for _ in range(2))
    first.opt.uri_path = ("report",)
    assert first.opt.uri_path == ("report",)
    assert second.opt.uri_path == ("register",)


def test_what_strangers_send_fills_no_memory() -> None:
    before = _make_once.cache_info().currsize
    decode(b"\x40\x02\0\1\xbd" + bytes((_MAX_REMEMBERED_OPTION + 1 - 13,)) + b"x" * 17)
    assert _make_once.cache_info().currsize == before
    for number in range(2 * REMEMBERED_OPTIONS):
        decode(b"\x40\x02\0\1\xb4" + f"{number:04}".encode())
    assert _make_once.cache_info().currsize <= REMEMBERED_OPTIONS


@pytest.mark.parametrize(
    ("sizes", "known"), [((2,), True), ((3,), False), ((2, 3), True), ((3, 2), False)]
)
def test_a_format_that_is_none_is_passed_over(sizes: tuple[int, ...], known: bool) -> None:
    options = encode([(12, bytes(size)) for size in sizes])
    assert (decode(b"\x40\x02\0\1" + options).opt.content_format is not None) == known


@pytest.mark.parametrize("end", ["ff", "b5616263", "d0", "e000", "f0", "0f"])
def test_a_message_that_ends_early_is_none(end: str) -> None:
    with pytest.raises(LinkError):
        decode(b"\x40\x02\0\1" + bytes.fromhex(end))
