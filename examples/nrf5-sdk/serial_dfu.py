"""Sends an update to Nordic's serial bootloader, as nrfutil does: select, create, write, execute.

Packets are framed by SLIP (RFC 1055). Source: nRF5 SDK 17.0.2, documentation of the DFU protocol
and of its UART transport. The payload is the firmware; the option ``init`` is the init packet, in
hexadecimal digits.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Mapping
from typing import Any
from zlib import crc32

from unbrick.target.console import DriverConsole, Wait
from unbrick.target.description import FirmwareFile

CREATE, RECEIPTS, GET_CRC, EXECUTE, SELECT, GET_MTU, WRITE, PING = 1, 2, 3, 4, 6, 7, 8, 9
RESPONSE, SUCCESS = 0x60, 1
COMMAND, DATA = 1, 2
"""Objects: the init packet, and the firmware in pieces."""

END, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE = b"\xc0", b"\xdb", b"\xdb\xdc", b"\xdb\xdd"
ASK_AGAIN_S = 0.1
CONNECT_S = 2.0
ANSWER_S = 10.0
"""A signature is verified, or pages are erased, before some answers."""


def update(
    console: DriverConsole, payload: FirmwareFile, options: Mapping[str, Any]
) -> Generator[Wait, Any, None]:
    """Send the init packet and the firmware; nothing, if nobody answers.

    A device that does not answer has started its new application, or is dead. The judge tells.
    """
    if not (yield from _connect(console)):
        return
    yield from _ask(console, bytes([RECEIPTS, 1, 0]))  # for each packet: the line has no brakes
    mtu = yield from _ask(console, bytes([GET_MTU]))
    # Each byte may be escaped, and an opcode and the end of the frame belong to it, too.
    step = (int.from_bytes(mtu[:2], "little") - 1) // 2 - 1
    for kind, data in ((COMMAND, bytes.fromhex(options["init"])), (DATA, payload.data)):
        yield from _send_object(console, kind, data, step)


def _connect(console: DriverConsole) -> Generator[Wait, Any, bool]:
    """Ask until there is an answer; gives whether there was one."""
    until = console.now + CONNECT_S
    while console.now < until:
        console.write(_frame(bytes([PING, 1])))
        heard = yield console.read(5, ASK_AGAIN_S)
        if heard[-5:-2] == bytes([RESPONSE, PING, SUCCESS]):
            return True
    return False


def _send_object(
    console: DriverConsole, kind: int, data: bytes, step: int
) -> Generator[Wait, Any, None]:
    selected = yield from _ask(console, bytes([SELECT, kind]))
    most = int.from_bytes(selected[:4], "little")
    for start in range(0, len(data), most):
        part = data[start : start + most]
        yield from _ask(console, bytes([CREATE, kind]) + len(part).to_bytes(4, "little"))
        for at in range(0, len(part), step):
            packet = bytes([WRITE]) + part[at : at + step]
            receipt = yield from _ask(console, packet, GET_CRC)
            sent = start + at + len(packet) - 1
            if receipt != struct.pack("<II", sent, crc32(data[:sent])):
                console.give_up(f"it has not taken all of {sent} bytes: {receipt.hex(' ')}")
        yield from _ask(console, bytes([EXECUTE]))


def _ask(
    console: DriverConsole, packet: bytes, answered: int | None = None
) -> Generator[Wait, Any, bytes]:
    """Send a packet, and give what its answer holds behind its head."""
    console.write(_frame(packet))
    answer = b""
    while len(answer) < 3:  # ends of frames alone may come
        answer = _unframe((yield console.until(END, ANSWER_S)))
    if answer[:3] != bytes([RESPONSE, answered or packet[0], SUCCESS]):
        console.give_up(f"the bootloader answers {answer.hex(' ')} to {packet[:8].hex(' ')}")
    return answer[3:]


def _frame(packet: bytes) -> bytes:
    return packet.replace(ESCAPE, ESCAPED_ESCAPE).replace(END, ESCAPED_END) + END


def _unframe(frame: bytes) -> bytes:
    return frame.rstrip(END).replace(ESCAPED_END, END).replace(ESCAPED_ESCAPE, ESCAPE)
