"""slipmux (draft-bormann-t2trg-slipmux-03): frames on the wireless link's byte stream.

SLIP (RFC 1055) separates the frames. The first byte of a frame says what it holds. CoAP messages
end in the 16-bit FCS of RFC 1662. Sizes are in bytes. No I/O.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from enum import IntEnum

from unbrick.errors import LinkError

MAX_FRAME_SIZE = 1280
"""The longest frame: type byte, contents and FCS, before escaping."""

END = 0xC0
ESC = 0xDB
ESC_END = 0xDC
ESC_ESC = 0xDD

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ESCAPED_END = bytes((ESC, ESC_END))
_ESCAPED_ESC = bytes((ESC, ESC_ESC))


class FrameType(IntEnum):
    """The first byte of a frame."""

    COAP = 0xA9
    DIAGNOSTIC = 0x0A


@dataclass(frozen=True)
class Frame:
    """One whole frame: ``data`` is the CoAP message, or the UTF-8 text of a diagnostic."""

    type: FrameType
    data: bytes


def fcs16(data: bytes) -> int:
    """The 16-bit FCS of RFC 1662, appendix C.2 (CRC-16/X-25).

    The polynomial is that of ``crc_hqx`` with the bits the other way round. So the bits are turned
    before and after, which keeps the loop over the bytes in C.
    """
    crc = binascii.crc_hqx(data.translate(_REVERSED), 0xFFFF)
    return (_REVERSED[crc & 0xFF] << 8 | _REVERSED[crc >> 8]) ^ 0xFFFF


def encode(message: bytes) -> bytes:
    """The bytes on the link that carry one CoAP message.

    Raises:
        LinkError: the frame would be longer than ``MAX_FRAME_SIZE``.
    """
    body = bytes((FrameType.COAP,)) + message
    return _enclose(body + fcs16(body).to_bytes(2, "little"))


def encode_diagnostic(text: str) -> bytes:
    """The bytes on the link that carry a line of text.

    Raises:
        LinkError: the frame would be longer than ``MAX_FRAME_SIZE``.
    """
    return _enclose(bytes((FrameType.DIAGNOSTIC,)) + text.encode())


def _enclose(body: bytes) -> bytes:
    if len(body) > MAX_FRAME_SIZE:
        raise LinkError(
            f"a frame of {len(body)} bytes does not fit the link",
            hint=f"send at most {MAX_FRAME_SIZE} bytes in a frame",
        )
    escaped = body.replace(b"\xdb", _ESCAPED_ESC).replace(b"\xc0", _ESCAPED_END)
    return b"\xc0" + escaped + b"\xc0"


class Decoder:
    """Takes bytes from the link as they come and gives whole, checked frames.

    Attributes:
        dropped: frames that were too long, of an unknown type, badly escaped or had a wrong FCS.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._held = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes, in order. It never holds more than one frame."""
        frames: list[Frame] = []
        *ended, rest = data.split(b"\xc0")
        for part in ended:
            self._hold(part)
            frame = self._finish()
            if frame is not None:
                frames.append(frame)
        self._hold(rest)
        return frames

    def _hold(self, part: bytes) -> None:
        # Escaping at most doubles a frame.
        if len(self._held) + len(part) > 2 * MAX_FRAME_SIZE:
            self._overlong = True
            self._held.clear()
        elif not self._overlong:
            self._held += part

    def _finish(self) -> Frame | None:
        raw, overlong = bytes(self._held), self._overlong
        self._held.clear()
        self._overlong = False
        if not raw and not overlong:
            return None  # Two ENDs in a row: the border between frames.
        frame = None if overlong else _parse(raw)
        if frame is None:
            self.dropped += 1
        return frame


def _parse(raw: bytes) -> Frame | None:
    if raw.count(ESC) != raw.count(_ESCAPED_END) + raw.count(_ESCAPED_ESC):
        return None  # An ESC that escapes nothing.
    body = raw.replace(_ESCAPED_END, b"\xc0").replace(_ESCAPED_ESC, b"\xdb")
    if len(body) > MAX_FRAME_SIZE:
        return None
    if body[0] == FrameType.DIAGNOSTIC:
        return Frame(FrameType.DIAGNOSTIC, body[1:])
    if body[0] != FrameType.COAP or len(body) < 3:
        return None
    if fcs16(body[:-2]) != int.from_bytes(body[-2:], "little"):
        return None
    return Frame(FrameType.COAP, body[1:-2])
