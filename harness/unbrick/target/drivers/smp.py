"""SMP (mcumgr) on a serial console: upload an image, have it tried, start the device anew.

Source: Zephyr's documentation, *SMP Protocol Specification* and *SMP over console*; image and OS
management groups.

Options: ``image``, its number (0); ``slot``, where the uploaded image is then looked for (1);
``test``, whether to ask for its trial (true); ``confirm``, whether to keep it for good (false);
``chunk``, bytes a request (96).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

import cbor2

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from unbrick.target.console import DriverConsole, Wait
    from unbrick.target.description import FirmwareFile

READ, WRITE = 0, 2
GROUP_OS, GROUP_IMAGE = 0, 1
OS_RESET, IMAGE_STATE, IMAGE_UPLOAD = 5, 0, 1
FIRST, NEXT = b"\x06\x09", b"\x04\x14"
"""Begin a line: the first one of a packet, and those that go on with it."""

LINE_SIZE = 127
"""Bytes of a line at most, with its beginning and its end."""

HEADER_SIZE, CRC_SIZE = 8, 2
ANSWER_TIMEOUT_S = 5.0
ERASE_TIMEOUT_S = 40.0
MAX_LINES = 200
"""Lines without an answer in them that are passed over: logs share the console."""


def update(
    console: DriverConsole, payload: FirmwareFile | None, options: Mapping[str, Any]
) -> Generator[Wait, Any, None]:
    """Upload the file, and have the device start it."""
    data = payload.data if payload else b""
    talk = _Talk(console)
    image, chunk = int(options.get("image", 0)), int(options.get("chunk", 96))
    at = 0
    while at < len(data):
        request: dict[str, Any] = {"off": at, "data": data[at : at + chunk]}
        if at == 0:
            digest = hashlib.sha256(data).digest()
            request |= {"image": image, "len": len(data), "sha": digest}
        within = ERASE_TIMEOUT_S if at == 0 else ANSWER_TIMEOUT_S
        answer = yield from talk.ask(WRITE, GROUP_IMAGE, IMAGE_UPLOAD, request, within)
        offset = answer.get("off")
        if not isinstance(offset, int) or not at < offset <= len(data):
            console.give_up(f"the device takes no more at byte {at}: {answer}")
        at = offset
    if options.get("test", True) or options.get("confirm", False):
        yield from _choose(talk, console, options)
    yield from talk.ask(WRITE, GROUP_OS, OS_RESET, {}, ANSWER_TIMEOUT_S)


def _choose(
    talk: _Talk, console: DriverConsole, options: Mapping[str, Any]
) -> Generator[Wait, Any, None]:
    """Have the uploaded image tried, or kept."""
    slot = int(options.get("slot", 1))
    state = yield from talk.ask(READ, GROUP_IMAGE, IMAGE_STATE, {}, ANSWER_TIMEOUT_S)
    images = state.get("images", [])
    hashes = [
        one.get("hash") for one in images if isinstance(one, dict) and one.get("slot") == slot
    ]
    if not hashes:
        console.give_up(f"the device shows no image in slot {slot}")
    request = {"hash": hashes[0], "confirm": bool(options.get("confirm", False))}
    yield from talk.ask(WRITE, GROUP_IMAGE, IMAGE_STATE, request, ANSWER_TIMEOUT_S)


class _Talk:
    """Requests and answers, numbered."""

    def __init__(self, console: DriverConsole) -> None:
        self._console, self._number = console, 0

    def ask(
        self, operation: int, group: int, command: int, body: Mapping[str, Any], within: float
    ) -> Generator[Wait, Any, dict[str, Any]]:
        """Send a request; gives its answer."""
        content = cbor2.dumps(dict(body))
        number, self._number = self._number, (self._number + 1) & 0xFF
        header = bytes((operation, 0)) + len(content).to_bytes(2, "big")
        header += group.to_bytes(2, "big") + bytes((number, command))
        self._console.write(frame(header + content))
        while True:
            packet = yield from self._take(within)
            if packet[6] == number:
                return self._read(packet[HEADER_SIZE:], group, command)

    def _read(self, content: bytes, group: int, command: int) -> dict[str, Any]:
        try:
            answer = cbor2.loads(content)
        except (cbor2.CBORDecodeError, ValueError):
            answer = None
        if not isinstance(answer, dict):
            self._console.give_up(f"the answer to {group}/{command} is no map")
        failed = answer.get("rc", 0) or answer.get("err")
        if failed:
            self._console.give_up(f"the device refuses {group}/{command}: {failed}")
        return answer

    def _take(self, within: float) -> Generator[Wait, Any, bytes]:
        """The next whole packet."""
        text = b""
        for _ in range(MAX_LINES):
            line: bytes = yield self._console.until(b"\n", within)
            first, more = line.rfind(FIRST), line.rfind(NEXT)
            if first >= 0:
                text = line[first + 2 :].strip()
            elif more >= 0 and text:
                text += line[more + 2 :].strip()
            else:
                continue
            packet = unframe(text)
            if packet is not None:
                return packet
        self._console.give_up(f"the device says {MAX_LINES} lines that are no answer")


def frame(packet: bytes) -> bytes:
    """A packet as lines: Base64 of length, packet and CRC-16."""
    whole = packet + binascii.crc_hqx(packet, 0).to_bytes(CRC_SIZE, "big")
    text = base64.b64encode(len(whole).to_bytes(2, "big") + whole)
    step = (LINE_SIZE - len(FIRST) - 1) // 4 * 4
    parts = [text[at : at + step] for at in range(0, len(text), step)]
    return b"".join((NEXT if n else FIRST) + part + b"\n" for n, part in enumerate(parts))


def unframe(text: bytes) -> bytes | None:
    """The packet in the Base64 of its lines; None: it is not whole yet, or damaged."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    size, whole = int.from_bytes(data[:2], "big"), data[2:]
    if not HEADER_SIZE + CRC_SIZE <= size <= len(whole) or binascii.crc_hqx(whole[:size], 0):
        return None
    return whole[: size - CRC_SIZE]
