"""Reading CoAP messages (RFC 7252 §3): ``aiocoap``'s objects, and how their options were encoded.

``aiocoap`` makes a new object for each option of each message, by way of an enumeration. Most
options come again and again, so here each is made once. That halves the time of reading. A test
compares both readers on messages that anybody could send.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import aiocoap
from aiocoap.error import UnparsableMessage
from aiocoap.message import Direction
from aiocoap.numbers import OptionNumber

from unbrick.errors import LinkError

MAX_TOKEN = 8

Options = list[tuple[int, int]]
"""The number of each option of a message, and the length of its value in bytes."""

REMEMBERED_OPTIONS = 1024
"""Options of which the object is kept."""

_MAX_REMEMBERED_OPTION = 16
"""Bytes of such an option's value."""

_HEADER = 4  # bytes
_VERSION = 0x40
_PAYLOAD_MARKER = 0xFF
_MAX_OPTION = 0xFFFF
_CONTENT_FORMAT = int(OptionNumber.CONTENT_FORMAT)
_MAX_CONTENT_FORMAT = 2  # bytes
_TYPES = tuple(aiocoap.Type(number) for number in range(4))
_ALWAYS_NEW = (int(OptionNumber.OSCORE), int(OptionNumber.ECHO))
"""Options whose values do not come again."""


class Datagram(NamedTuple):
    """What has come over the link.

    Attributes:
        data: as it has come.
        message: that it is; None: it is none.
        options: of the message, as they are encoded.
    """

    data: bytes
    message: aiocoap.Message | None
    options: Options


def read(data: bytes) -> Datagram:
    """See what has come; nothing in it makes this raise."""
    try:
        return Datagram(data, *decode_with_options(data))
    except LinkError:
        return Datagram(data, None, [])


def decode(datagram: bytes) -> aiocoap.Message:
    """Read one CoAP message.

    Raises:
        LinkError: it is not one (RFC 7252 §3).
    """
    return decode_with_options(datagram)[0]


def decode_with_options(datagram: bytes) -> tuple[aiocoap.Message, Options]:
    """Read one CoAP message, and its options as they are encoded.

    Raises:
        LinkError: it is not one (RFC 7252 §3).
    """
    if len(datagram) < _HEADER or datagram[0] & 0xC0 != _VERSION:
        raise LinkError("not a CoAP message")
    length = datagram[0] & 0x0F
    if length > MAX_TOKEN:
        raise LinkError("CoAP token is too long")
    end = _HEADER + length
    if end > len(datagram):
        raise LinkError("CoAP message ends in its token")
    if datagram[1] == aiocoap.EMPTY and len(datagram) != _HEADER:
        raise LinkError("empty CoAP message with contents")
    message, options = decode_inner(datagram[1], datagram[end:])
    message.mtype = _TYPES[datagram[0] >> 4 & 3]
    message.mid = int.from_bytes(datagram[2:_HEADER], "big")
    message.token = datagram[_HEADER:end]
    return message, options


def decode_inner(code: int, data: bytes) -> tuple[aiocoap.Message, Options]:
    """Read what of a message does not belong to its way: its code, options and payload.

    Args:
        code: as it is encoded.
        data: the options and the payload.

    Raises:
        LinkError: they are malformed.
    """
    message = aiocoap.Message(code=code)
    message.direction = Direction.INCOMING
    options: Options = []
    number = at = 0
    while at < len(data):
        head = data[at]
        at += 1
        if head == _PAYLOAD_MARKER:
            if at == len(data):
                raise LinkError("CoAP message ends in its payload marker")
            message.payload = data[at:]
            break
        delta, length = head >> 4, head & 0x0F
        if delta > 12:
            delta, at = _extended(delta, data, at)
        if length > 12:
            length, at = _extended(length, data, at)
        number += delta
        if number > _MAX_OPTION:
            raise LinkError("CoAP option number is too large")
        value = data[at : at + length]
        if len(value) != length:
            raise LinkError("CoAP message ends in an option")
        at += length
        options.append((number, length))
        again = length <= _MAX_REMEMBERED_OPTION and number not in _ALWAYS_NEW
        message.opt.add_option(_make_once(number, value) if again else _make(number, value))
    formats = [length for number, length in options if number == _CONTENT_FORMAT]
    if formats and formats[0] > _MAX_CONTENT_FORMAT:
        message.opt.content_format = None  # An elective option is then passed over (§5.4.3).
    return message, options


def _extended(value: int, data: bytes, at: int) -> tuple[int, int]:
    """A delta or a length with its extension (RFC 7252 §3.1), and where the next byte is."""
    size = value - 12
    if size > 2 or at + size > len(data):
        raise LinkError("CoAP message ends in an option")
    return int.from_bytes(data[at : at + size], "big") + (13 if size == 1 else 269), at + size


def _make(number: int, value: bytes) -> Any:
    """An option as ``aiocoap`` has it."""
    try:
        return OptionNumber(number).create_option(decode=value)
    except (UnparsableMessage, ValueError) as error:
        raise LinkError("CoAP option with a value that it cannot have") from error


_make_once = lru_cache(REMEMBERED_OPTIONS)(_make)
"""The same, once for all: nobody changes an option, setting it anew makes another one."""
