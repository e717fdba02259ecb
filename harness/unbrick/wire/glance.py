"""A request at a glance: whose it is, and a refusal of it, without the cost of a codec.

A server under a flood looks at each datagram like this first. What cannot be read at a glance is
read in full, so nothing is lost but time.
"""

from __future__ import annotations

_CONFIRMABLE, _ACKNOWLEDGEMENT = 0x40, 0x60
"""Version and type in a message's first byte (RFC 7252 §3)."""

_POST = 0x02
_PATH = b"\xb8register"
_FORMAT = b"\x11\x3c"
"""The option Content-Format, behind Uri-Path: CBOR."""

_MAPS = range(0xA1, 0xB8)
"""Heads of CBOR maps with 1 to 23 pairs (RFC 8949 §3)."""

_SHORT_TEXTS = range(0x60, 0x78)
_TEXT_WITH_LENGTH = 0x78
_OSCORE = 9
"""The option OSCORE, as the first option: its number as a delta."""

_LENGTH_BYTE = 13
"""A length of an option that is in the next byte, less this (RFC 7252 §3.1)."""

_NAMES_TERMINAL = 0x18
"""Flags of the option OSCORE: with a kid, which is empty, and a kid context (RFC 8613 §6.1)."""

_MAX_AGE = b"\xd1\x01"
"""The option Max-Age with one byte, as the first option (RFC 7252 §3.1)."""


def glance_serial(datagram: bytes) -> str | None:
    """The serial of a confirmable registration; None: it is none that can be read at a glance."""
    if len(datagram) < 4 or datagram[0] & 0xF0 != _CONFIRMABLE or datagram[1] != _POST:
        return None
    at = 4 + (datagram[0] & 0x0F)
    if not datagram.startswith(_PATH, at):
        return None
    at += len(_PATH)
    if datagram.startswith(_FORMAT, at):
        at += len(_FORMAT)
    head = datagram[at : at + 5]
    if len(head) < 5 or head[0] != 0xFF or head[1] not in _MAPS or head[2] != 1:
        return None
    length, at = head[3] - _SHORT_TEXTS.start, at + 4
    if head[3] == _TEXT_WITH_LENGTH:
        length, at = head[4], at + 1
    elif head[3] not in _SHORT_TEXTS:
        return None
    serial = datagram[at : at + length]
    return serial.decode() if len(serial) == length and serial.isascii() else None


def glance_protected(datagram: bytes) -> tuple[str, int] | None:
    """The serial and the number of a confirmable request that a terminal has protected.

    None: it is none that can be read at a glance.
    """
    if len(datagram) < 4 or datagram[0] & 0xF0 != _CONFIRMABLE or datagram[1] != _POST:
        return None
    at = 4 + (datagram[0] & 0x0F)
    head = datagram[at : at + 2]
    if len(head) < 2 or head[0] >> 4 != _OSCORE:
        return None
    length, at = head[0] & 0x0F, at + 1
    if length == _LENGTH_BYTE:
        length, at = length + head[1], at + 1
    option = datagram[at : at + length]
    if len(option) < length or not option or option[0] & ~0x07 != _NAMES_TERMINAL:
        return None
    number_end = 1 + (option[0] & 0x07)
    serial = option[number_end + 1 :]
    if option[number_end : number_end + 1] != bytes((len(serial),)) or not serial.isascii():
        return None
    return serial.decode(), int.from_bytes(option[1:number_end], "big")


def refuse_at_a_glance(datagram: bytes, code: int, max_age: int | None = None) -> bytes:
    """The answer to a confirmable request: a code, and after how many seconds to ask again.

    Args:
        datagram: of which ``glance_serial`` or ``glance_protected`` has given a serial.
        code: of CoAP.
        max_age: 0 to 255 seconds; None: nothing is said of that.
    """
    length = datagram[0] & 0x0F
    head = bytes((_ACKNOWLEDGEMENT | length, code))
    wait = b"" if max_age is None else _MAX_AGE + bytes((max_age,))
    return head + datagram[2 : 4 + length] + wait
